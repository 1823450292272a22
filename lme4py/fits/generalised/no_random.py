"""The generalised linear model that is left of a mixed one without its random effects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from lme4py.engine.generalised.descent import minimise_scaled
from lme4py.engine.generalised.making.make import make_glmm
from lme4py.engine.generalised.problem import GlmmProblem
from lme4py.engine.generalised.starts.start import Start, find_start, glm_starts
from lme4py.engine.optimise import Control, Local
from lme4py.engine.threads import limited_threads
from lme4py.families.nuisance import Nuisance, total
from lme4py.fits.derived import derived
from lme4py.fits.generalised.fit import GeneralisedFit
from lme4py.linalg.types import FloatArray

__all__ = ["PlainFit", "fit_plain", "log_likelihood_without_random", "plain_fit"]

# Relative step of the differences in a log dispersion or in thresholds; the Hessian only steers.
_STEP = 1e-5


@dataclass(frozen=True)
class PlainFit:
    """A generalised linear model.

    Attributes
    ----------
    problem : GlmmProblem
        That of the mixed model; its random effects are not used.
    x : ndarray, shape (p + d,)
        Fixed effects inside, then log dispersion or the parameters of the thresholds.
    criterion : float
        -2 log-likelihood.
    """

    problem: GlmmProblem
    x: FloatArray
    criterion: float

    @property
    def lam(self) -> Nuisance:
        """Log dispersion, or the parameters of the thresholds; inside."""
        lam: Nuisance = self.problem.nuisance(self.x[self.problem.n_fixed :])
        return lam

    @property
    def linear_predictor(self) -> FloatArray:
        """Offset included, inside, shape (n,)."""
        return self.problem.fixed_part(self.x[: self.problem.n_fixed])


def fit_plain(problem: GlmmProblem, start: FloatArray) -> PlainFit:
    """Maximise the likelihood with all random effects zero.

    Parameters
    ----------
    problem : GlmmProblem
    start : ndarray, shape (p + d,)
        Compared with moment estimates, and with other maxima where the likelihood can have some.
    """
    usual = find_start(problem)
    others = [] if problem.family.single_peaked else glm_starts(problem, usual)
    starts = [_sloped(problem, start), *(_joined(problem, one) for one in (usual, *others))]
    # One maximum only: beta, or a dispersion with a slope, leads to it from everywhere.
    wanted = starts[:1] if problem.family.single_peaked and not problem.n_nuisance else starts
    return min((_maximised(problem, one) for one in wanted), key=lambda found: found.criterion)


def _joined(problem: GlmmProblem, start: Start) -> FloatArray:
    return problem.join(np.zeros(0), start.beta, start.lam)


def _sloped(problem: GlmmProblem, x: FloatArray) -> FloatArray:
    """The start with a dispersion where the likelihood has a slope."""
    if not problem.has_limit:
        return x
    return np.append(x[: problem.n_fixed], problem.sloped_lambda(problem.nuisance(x[problem.n_fixed :])))


def _maximised(problem: GlmmProblem, start: FloatArray) -> PlainFit:
    """The maximum that a start leads to; at the limit of the dispersion where that is as good."""
    local = _local_of(problem)
    if not start.size:
        return PlainFit(problem, start, _criterion(problem, start))
    found = minimise_scaled(local, start, Control(max_evaluations=200, tolerance=1e-11))
    if problem.has_limit and problem.in_tail(float(found.theta[-1])):
        limit = np.append(found.theta[:-1], problem.limit_lambda)
        again = minimise_scaled(local, limit, Control(max_evaluations=200, tolerance=1e-11)) if local(limit) else found
        if again.value <= found.value + 1e-8:
            return PlainFit(problem, again.theta, again.value)
    return PlainFit(problem, found.theta, found.value)


def _criterion(problem: GlmmProblem, x: FloatArray) -> float:
    p = problem.n_fixed
    eta = problem.fixed_part(x[:p])
    return -2.0 * float(problem.family.loglik(problem.data, eta, problem.nuisance(x[p:])).sum())


def _local_of(problem: GlmmProblem) -> Callable[[FloatArray], Local | None]:
    """-2 log-likelihood without random effects, for `minimise`."""
    p = problem.n_fixed
    # Weights for the Newton steps, and the slopes in all parameters.
    order: Any = 3 if problem.n_nuisance else 2
    joint = problem.family.is_joint
    X = problem.X if joint else problem.stack.first(problem.X)

    def gradient_of(x: FloatArray) -> tuple[Any, FloatArray]:
        eta = problem.fixed_part(x[:p])
        rows = problem.family.derivatives(problem.data, eta, problem.nuisance(x[p:]), order)
        parts = [X.T @ rows.score]
        if problem.n_nuisance:
            parts.append(np.atleast_1d(total(rows.d_lam)))
        return rows, -2.0 * np.concatenate(parts)

    def local(x: FloatArray) -> Local | None:
        if problem.beyond_limit(problem.nuisance(x[p:])):
            return None
        with np.errstate(all="ignore"):
            rows, gradient = gradient_of(x)
            value = -2.0 * float(rows.loglik.sum())
            if not (np.isfinite(value) and np.isfinite(gradient).all()):
                return None
            hessian = np.zeros((x.size, x.size))
            weighted = problem.stack.weigh(rows.w_work, X).T if joint else X.T * rows.w_work
            hessian[:p, :p] = 2.0 * weighted @ X
            for i in range(p, x.size):
                step = _STEP * np.eye(x.size)[i]
                up, down = gradient_of(x + step)[1], gradient_of(x - step)[1]
                hessian[i] = hessian[:, i] = (up - down) / (2.0 * _STEP)
        return Local(x, value, gradient, hessian, None) if np.isfinite(hessian).all() else None

    return local


def plain_fit(fit: GeneralisedFit, X: FloatArray | None = None) -> PlainFit:
    """The model of a fit without its random effects.

    Parameters
    ----------
    fit : GeneralisedFit
    X : ndarray, shape (n, p), optional
        Other fixed effects than those of the fit.
    """
    with limited_threads(fit.design):
        if X is None:
            return fit_plain(fit.problem, fit.phi[fit.problem.n_theta :])
        design = fit.design.with_predictor(X=X, names=tuple(map(str, range(X.shape[1]))))
        problem = make_glmm(design, fit.family, fit.data, expected=fit.problem.expected)
        return fit_plain(problem, _joined(problem, find_start(problem)))


@derived
def log_likelihood_without_random(fit: GeneralisedFit) -> float:
    """Largest log-likelihood with all random effects zero: of the same fixed effects, dispersion and thresholds.

    Parameters
    ----------
    fit : GeneralisedFit

    Examples
    --------
    >>> import lme4py
    >>> fit = lme4py.glmer("use ~ age + urban + (1 | district)", lme4py.load_dataset("Contraception")).fit
    >>> round(log_likelihood_without_random(fit), 4)
    -1269.4238
    """
    return -0.5 * plain_fit(fit).criterion
