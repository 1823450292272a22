"""Many Laplace fits at once: generalised models with one random effect per group, all responses together.

The engine's side is `lme4py.engine.generalised.batches`: here responses come in the form in which they are drawn, and
start where a fit has ended.
"""

from __future__ import annotations

import numpy as np

from lme4py.engine.generalised.batches.descent import Descent, StackedDescent
from lme4py.engine.generalised.batches.ends import StackedEnds, certified_ends
from lme4py.engine.generalised.batches.stacked import StackedModel, can_stack, has_dispersions, is_scalar
from lme4py.engine.generalised.problem import GlmmProblem
from lme4py.fits.generalised.fit import GeneralisedFit
from lme4py.fits.generalised.refit import start_theta
from lme4py.fits.rows.response import is_proportion
from lme4py.linalg.types import BoolArray, FloatArray

__all__ = [
    "can_batch",
    "can_batch_glmm",
    "solve_responses",
    "solve_with_curvature",
    "user_dispersion",
    "user_estimates",
]

# Step of the differences that make the first Hessian, in units of a standard error of about one.
_STEP = 1e-4


def can_batch(problem: GlmmProblem) -> bool:
    """True for models with one scalar random effect and no parameters of the family but one dispersion.

    Parameters
    ----------
    problem : GlmmProblem
    """
    plain = not problem.n_nuisance or has_dispersions(problem)
    known = problem.family.log_concave and not problem.family.is_joint
    return plain and known and is_scalar(problem) and can_stack(problem)


def can_batch_glmm(fit: GeneralisedFit) -> bool:
    """True for Laplace fits of models that `can_batch`."""
    return fit.nAGQ == 1 and not fit.restricted and can_batch(fit.problem)


def solve_responses(fit: GeneralisedFit, Y: FloatArray) -> Descent:
    """Fit responses in the form in which `GlmmSimulator` draws them.

    Parameters
    ----------
    fit : GeneralisedFit
    Y : ndarray, shape (n, B)
    """
    return _solved(fit, Y)[1]


def solve_with_curvature(fit: GeneralisedFit, Y: FloatArray) -> StackedEnds:
    """As `solve_responses`, to certified ends with the asymptotic covariances of all parameters inside.

    Parameters
    ----------
    fit : GeneralisedFit
    Y : ndarray, shape (n, B)
    """
    return certified_ends(*_solved(fit, Y))


def _solved(fit: GeneralisedFit, Y: FloatArray) -> tuple[StackedDescent, Descent]:
    counts = np.rint(Y * fit.data.n_trials[:, None]) if is_proportion(fit) else Y
    model = StackedModel(fit.problem)
    descent = StackedDescent(model, counts)
    start = _start(fit)
    state = descent.first(np.tile(start, (Y.shape[1], 1)), _first_hessian(model, start, fit))
    return descent, descent.down(state)


def _start(fit: GeneralisedFit) -> FloatArray:
    """The estimates, moved off the boundary."""
    problem = fit.problem
    _, beta, lam = problem.split(fit.phi)
    return problem.join(start_theta(fit), beta, problem.sloped_lambda(lam) if problem.n_nuisance else lam)


def _first_hessian(model: StackedModel, start: FloatArray, fit: GeneralisedFit) -> FloatArray:
    """Hessian at the start for the response of the fit, by differences of gradients: one small batch."""
    m = start.size
    steps = _STEP * np.vstack([np.eye(m), -np.eye(m)])
    found = model.evaluate(start + steps, np.zeros((2 * m, model.n_levels)), model.data)
    if not np.isfinite(found.value).all():
        return np.eye(m) * float(fit.design.n_obs)
    rows = (found.gradient[:m] - found.gradient[m:]) / (2.0 * _STEP)
    hessian: FloatArray = 0.5 * (rows + rows.T)
    return hessian


def user_estimates(problem: GlmmProblem, phi: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Fixed effects (B, p) and standard deviations (B,) on the user's scale.

    Parameters
    ----------
    problem : GlmmProblem
    phi : ndarray, shape (B, 1 + p + d)
    """
    unit = abs(float(problem.S[0][0, 0]))
    return phi[:, 1 : 1 + problem.n_fixed] @ problem.C.T, unit * np.abs(phi[:, 0])


def user_dispersion(problem: GlmmProblem, phi: FloatArray, held: BoolArray) -> FloatArray:
    """Log dispersions as they are reported, (B,); the known one, or zero, where they are no parameters.

    Parameters
    ----------
    problem : GlmmProblem
    phi : ndarray, shape (B, 1 + p + d)
    held : ndarray of bool, same shape
        Parameters at the end of their range.
    """
    if not problem.n_nuisance:
        return np.full(phi.shape[0], problem.lambda_without)
    limit = problem.family.limit
    end = np.inf if limit is None else np.inf * np.sign(limit.stand_in)
    return np.where(held[:, -1], end, phi[:, -1])
