"""Fixed effects and thresholds of the cumulative link model without random effects."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.linalg

from lme4py.engine.generalised.problem import GlmmProblem
from lme4py.errors import DesignError
from lme4py.families.nuisance import as_columns, total
from lme4py.families.ordered.ordinal import Ordinal
from lme4py.families.response import ResponseData
from lme4py.linalg.small import bordered
from lme4py.linalg.types import FloatArray

__all__ = ["newton_direction", "start_thresholds"]

_STEPS = 30
# Newton decrement that is near enough for a start.
_NEAR = 1e-3


def start_thresholds(problem: GlmmProblem) -> tuple[FloatArray, FloatArray]:
    """Fixed effects, shape (p,), and lambda, shape (d,), by Newton steps with halving; parts start at no effect.

    Parameters
    ----------
    problem : GlmmProblem
    """
    beta = np.zeros(problem.n_fixed)
    gamma = np.concatenate(
        [np.zeros(problem.family.n_coefficients), _first_gamma(problem.family, problem.data, problem.offset)]
    )
    X = problem.X

    def rows_at(beta: FloatArray, gamma: FloatArray, order: int) -> Any:
        return problem.family.derivatives(problem.data, problem.offset + X @ beta, gamma, order, expected=False)

    rows = rows_at(beta, gamma, 3)
    value = float(rows.loglik.sum())
    if not np.isfinite(value):
        raise DesignError(
            "no starting value was found: the categories have likelihood zero at thresholds that fit the whole "
            "sample. Check the offset (its range should be that of a linear predictor), or use another link."
        )
    p = beta.size
    for _ in range(_STEPS):
        gradient = np.concatenate([X.T @ rows.score, total(rows.d_lam)])
        step = newton_direction(X, rows, gradient)
        decrease = float(gradient @ step)
        if not np.isfinite(decrease) or decrease < _NEAR:
            break
        for _ in range(30):
            trial = beta + step[:p], gamma + step[p:]
            reached = float(rows_at(*trial, 0).loglik.sum())
            if reached >= value + 1e-4 * decrease:
                break
            step, decrease = 0.5 * step, 0.5 * decrease
        else:
            break
        beta, gamma = trial
        value, rows = reached, rows_at(beta, gamma, 3)
    return beta, gamma


def newton_direction(X: FloatArray, rows: Any, gradient: FloatArray) -> FloatArray:
    """Newton step; where the likelihood is not concave (cauchit), curvatures count with their size."""
    beside = -X.T @ as_columns(rows.score_lam)
    hessian = bordered((X.T * rows.w_obs) @ X, beside, rows.curve_lam)
    try:
        return np.asarray(scipy.linalg.cho_solve(scipy.linalg.cho_factor(hessian), gradient))
    except (np.linalg.LinAlgError, ValueError):
        values, vectors = np.linalg.eigh(np.where(np.isfinite(hessian), hessian, 0.0))
        size = np.maximum(np.abs(values), 1e-6 * max(float(np.abs(values).max(initial=0.0)), 1e-300))
        return np.asarray(vectors @ ((vectors.T @ gradient) / size))


def _first_gamma(family: Ordinal, data: ResponseData, offset: FloatArray) -> FloatArray:
    """Thresholds of the marginal shares of the categories, brought into their structure."""
    counts = np.bincount(data.codes, weights=data.weights, minlength=family.n_categories) + 1e-3
    # An offset that varies spreads the latent variable, and its mean moves it.
    spread = np.sqrt(1.0 + float(np.var(offset)) / 3.0)
    alpha = np.clip(spread * family.marginal_thresholds(counts / counts.sum()), -1e3, 1e3) + float(np.mean(offset))
    gamma: FloatArray = np.linalg.lstsq(family.A, alpha, rcond=None)[0]
    if family.allows(family.A @ gamma):
        return gamma
    # A fit to equally spaced thresholds is in order for every structure.
    even = alpha.mean() + (np.arange(alpha.size) - 0.5 * (alpha.size - 1.0)) * max(float(np.ptp(alpha)), 1.0)
    return np.asarray(np.linalg.lstsq(family.A, even / max(alpha.size - 1, 1), rcond=None)[0], dtype=np.float64)
