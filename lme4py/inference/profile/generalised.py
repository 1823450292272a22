"""Profiles of generalised linear mixed models."""

from __future__ import annotations

import warnings

import numpy as np
from scipy import special

from lme4py.engine.threads import limited_threads
from lme4py.errors import ConvergenceWarning, Lme4Error, OptionError
from lme4py.fits.generalised import GlmmFit, fit_like, glmm_fit
from lme4py.inference.estimates.parameters import Parameter
from lme4py.inference.profile.generalised_constrained import GlmmConstrained, covariances_of
from lme4py.inference.profile.side import BetterOptimum, Point, Side
from lme4py.linalg.types import FloatArray

__all__ = ["check_profiled", "covariances_at_limit", "glmm_sides", "refit_from"]

# A first step where there is no standard error, in units of a column of unit size.
_GUESS = 0.3
# Better optima that are followed before a fit counts as not converged.
_REFITS = 5


def check_profiled(fit: GlmmFit) -> None:
    """Refuse fits whose criterion has no profile."""
    if fit.nAGQ == 0:
        raise OptionError(
            "a fit with nAGQ=0 does not maximise its likelihood over the fixed effects, so that there is no profile; "
            "refit the model with nAGQ=1, or use method='wald' or 'boot'."
        )


def glmm_sides(fit: GlmmFit, parameter: Parameter, error: float) -> tuple[Side, Side]:
    """Both sides of a profile, with the estimate alone on them.

    Parameters
    ----------
    fit : GlmmFit
    parameter : Parameter
    error : float
        Standard error; one that is zero or not finite (boundary) is replaced by a guess.
    """
    constrained = GlmmConstrained(fit, parameter)
    start = constrained.estimate
    v = start.v
    scale = float(np.cos(v)) if parameter.kind == "corr" else 1.0
    error = error / scale if scale > 1e-6 else 0.0
    if not np.isfinite(error) or error <= 1e-6 * max(abs(v), 1e-300):
        error = _GUESS * (1.0 if parameter.kind in ("fixed", "threshold", "corr") else constrained.chart.unit)
    first = Point(start, 0.0, 1.0 / error)
    low, high = _bounds(parameter)
    islands = tuple(
        Point(other, float(np.sqrt(max(other.value - start.value, 0.0))), 1.0 / error) for other in constrained.others
    )
    sides = [
        Side(constrained, direction, start.value, bound, [first], ended=abs(v - bound) <= 1e-9, islands=islands)
        for direction, bound in ((-1, low), (1, high))
    ]
    return sides[0], sides[1]


def _bounds(parameter: Parameter) -> tuple[float, float]:
    if parameter.kind == "corr":
        return -0.5 * np.pi, 0.5 * np.pi
    return (-np.inf if parameter.kind in ("fixed", "threshold") else 0.0), np.inf


def refit_from(fit: GlmmFit, better: BetterOptimum) -> GlmmFit:
    """The fit from a better point that a profile has found.

    Parameters
    ----------
    fit : GlmmFit
    better : BetterOptimum
    """
    holding = better.holding
    if not isinstance(holding, GlmmConstrained):
        raise TypeError("the point belongs to another kind of model")
    roots: list[FloatArray] = []
    for cov in covariances_of(holding.problem, better.minimum.theta):
        ridge = 1e-12 * max(float(np.trace(cov)), 1e-6)
        roots.append(np.asarray(np.linalg.cholesky(cov + ridge * np.eye(cov.shape[0])), dtype=np.float64))
    start = fit.problem.templates.theta_of_factors(roots)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return fit_like(fit, fit.design, start=start)


def covariances_at_limit(fit: GlmmFit, term: int, column: int, alpha: float) -> list[FloatArray] | None:
    """Covariances of all terms where the standard deviation of one column is at its upper profile limit.

    Parameters
    ----------
    fit : GlmmFit
        One with nAGQ=0 is fitted again with nAGQ=1.
    term, column : int
    alpha : float

    Returns
    -------
    list of ndarray, each (k, k), or None
        None where there is no upper limit.
    """
    if fit.nAGQ == 0:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            fit = glmm_fit(fit.design, fit.family, fit.data, nAGQ=1, hessian=fit.hessian)
    for _ in range(_REFITS):
        try:
            return _at_limit(fit, Parameter("sd", "sd", term, column, column), alpha)
        except BetterOptimum as better:
            fit = refit_from(fit, better)
    raise Lme4Error("the profile finds ever better optima: the fit has not converged. Simplify the random effects.")


def _at_limit(fit: GlmmFit, parameter: Parameter, alpha: float) -> list[FloatArray] | None:
    with limited_threads(fit.design):
        _, side = glmm_sides(fit, parameter, 0.0)
        limit = side.limit(float(-special.ndtri(alpha / 2.0)))
        if not np.isfinite(limit):
            return None
        found = min(side.points, key=lambda point: abs(point.v - limit)).minimum
    holding = side.constrained
    if not isinstance(holding, GlmmConstrained):
        raise TypeError("the point belongs to another kind of model")
    return covariances_of(holding.problem, found.theta)
