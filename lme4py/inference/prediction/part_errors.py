"""How uncertain predictions at conditional modes are, in models with several linear predictors, and moments in others.

A prediction is a function q of the linear predictors and the other parameters of a row. By the delta method its error
is a'(beta^ - beta, lambda^ - lambda) + z'(b^ - b), where each column of a design and of a term is multiplied by the
slope of q in the predictor that it belongs to; their joint covariance is that of `lme4py.fits.answers.joint`. So are
variances of responses in models with one linear predictor, whose distribution has parameters beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np

from lme4py.design.design import CONDITIONAL
from lme4py.design.recipe import new_random_values
from lme4py.families.averages import normal_nodes
from lme4py.families.mean_response import mean_response
from lme4py.families.response import ResponseData
from lme4py.fits.base import Fit
from lme4py.fits.kinds import model_of
from lme4py.fits.rows.arrays import RowArrays
from lme4py.inference.prediction.predictor import included_variance, random_variance, variance_slopes
from lme4py.linalg.types import BoolArray, FloatArray

__all__ = ["combined_variance", "own_variance", "predictor_covariance", "residual_variance"]

# Of central differences: their error is about its square.
_STEP: Final = 1e-5
# Of the trapezoidal rule over random effects.
_NODE_STEP: Final = 0.25
_REACH: Final = 8.0


def combined_variance(
    fit: Fit, rows: RowArrays, response: ResponseData, slopes: Mapping[str, FloatArray], new: bool = False
) -> FloatArray:
    """Variance of the error of a combination of the arguments of each row, shape (n,).

    Parameters
    ----------
    fit : Fit
    rows : RowArrays
        Complete rows, with the groups whose modes are added.
    response : ResponseData
        Of these rows, with their parts.
    slopes : dict of str to ndarray, each (n,)
        By the name of the linear predictor or the parameter; what is missing is zero.
    new : bool
        Random effects without groups in `rows` are those of new groups: their variance is added.
    """
    scaled = _scaled(fit, rows, response, slopes, new)
    model, m = model_of(fit), fit.theta.size
    if rows.codes:
        known = replace(model.joint_variance(), C=np.eye(scaled.X.shape[1])).variance(scaled)
    else:
        vcov = model.parameter_vcov()[m:, m:]
        known = np.maximum(np.einsum("np,pq,nq->n", scaled.X, vcov, scaled.X), 0.0)
    return known + (random_variance(fit, scaled) if new else included_variance(fit, scaled))


def predictor_covariance(fit: Fit, rows: RowArrays, response: ResponseData) -> FloatArray:
    """Covariance of the errors of all linear predictors of each row with new groups, (n, D, D), the conditional last.

    Parameters
    ----------
    fit : Fit
    rows : RowArrays
    response : ResponseData
    """
    names = [*(part.name for part in response.parts), CONDITIONAL]
    one = np.ones(rows.n)
    out = np.empty((rows.n, len(names), len(names)))
    for i, first in enumerate(names):
        out[:, i, i] = combined_variance(fit, rows, response, {first: one}, new=True)
        for j, second in enumerate(names[:i]):
            both = combined_variance(fit, rows, response, {first: one, second: one}, new=True)
            out[:, i, j] = out[:, j, i] = 0.5 * (both - out[:, i, i] - out[:, j, j])
    return out


def _scaled(
    fit: Fit, rows: RowArrays, response: ResponseData, slopes: Mapping[str, FloatArray], others: bool
) -> RowArrays:
    """Columns of all parameters after theta, and of the terms, times the slopes of what they belong to."""
    family: Any = fit.family
    nothing = np.zeros(rows.n)
    columns = [slopes.get(CONDITIONAL, nothing)[:, None] * rows.X]
    columns += [slopes.get(part.name, nothing)[:, None] * part.X for part in response.parts]
    columns += [slopes.get(v.name, nothing)[:, None] for v in family.nuisance]
    values = {}
    for t, term in enumerate(fit.design.terms):
        if others or t in rows.codes:
            own = term.values if rows.frame is None else new_random_values(fit.design.recipe, rows.frame, t)
            values[t] = own * np.column_stack([slopes.get(home, nothing) for home in term.column_parts])
    return RowArrays(np.concatenate(columns, axis=1), rows.offset, values, rows.codes, rows.frame)


# --- one linear predictor -----------------------------------------------------------------------------------------


def own_variance(
    fit: Fit, rows: RowArrays, eta: FloatArray, known: ResponseData, average: bool, errors: bool = True
) -> tuple[FloatArray, FloatArray]:
    """Variances of responses in a generalised model with one linear predictor, and their standard errors, each (n,).

    Parameters
    ----------
    fit : Fit
    rows : RowArrays
        Complete rows; of all terms for averages.
    eta : ndarray, shape (n,)
        Their linear predictors with what is added of the random effects.
    known : ResponseData
        Their weights and trials.
    average : bool
        Of a response of a new group: what varies within groups, and the means of groups.
    errors : bool
        Zeros where they are not asked for.
    """
    m, n = fit.theta.size, rows.n
    lam = np.atleast_1d(np.asarray(fit.lam, dtype=np.float64)) if fit.family.n_nuisance else np.zeros(0)
    spread = random_variance(fit, rows) if average else np.zeros(n)
    x = [eta, *(np.full(n, value) for value in lam), *([spread] if average else [])]

    def at(values: list[FloatArray]) -> FloatArray:
        return _own_variance(fit, known, values, average)

    if not errors:
        return at(x), np.zeros(n)
    slopes = []
    for i, part in enumerate(x):
        # A variance of the predictor stays one on both sides.
        size = np.minimum(_STEP, 0.5 * part) if average and i == len(x) - 1 else np.full(n, _STEP)
        ends = [at([*x[:i], part + sign * size, *x[i + 1 :]]) for sign in (1.0, -1.0)]
        slopes.append(np.divide(ends[0] - ends[1], 2.0 * size, out=np.zeros(n), where=size > 0.0))
    columns = np.column_stack([slopes[0][:, None] * rows.X, *slopes[1 : 1 + lam.size]])
    model = model_of(fit)
    if average or not rows.codes:
        if average:
            columns = np.column_stack([slopes[-1][:, None] * variance_slopes(fit, rows), columns])
        vcov = model.parameter_vcov()[0 if average else m :, 0 if average else m :]
        error = np.einsum("np,pq,nq->n", columns, vcov, columns)
    else:
        values = {t: slopes[0][:, None] * Z for t, Z in rows.values.items()}
        scaled = RowArrays(columns, rows.offset, values, rows.codes, rows.frame)
        joint = model.joint_variance(beside=bool(lam.size))
        error = replace(joint, C=np.eye(columns.shape[1])).variance(scaled) + included_variance(fit, scaled)
    return at(x), np.sqrt(np.maximum(error, 0.0))


def _own_variance(fit: Fit, known: ResponseData, x: list[FloatArray], average: bool) -> FloatArray:
    """Var(y) of rows from the predictor, the parameters beside it, and the variance of the predictor for averages."""
    family = mean_response(fit.family)
    eta, *others = x
    spread = others.pop() if average else None
    # Parameters beside the predictor are the same in all rows.
    lam: Any = np.array([float(part[0]) for part in others]) if len(others) > 1 else (others[0][0] if others else 0.0)
    if spread is None:
        mu = family.mean(eta)
        return family.row_variance(mu, lam, known)
    mean, square = np.zeros(eta.size), np.zeros(eta.size)
    for z, w in zip(*normal_nodes(_NODE_STEP, _REACH), strict=True):
        mu = family.mean(eta + np.sqrt(spread) * z)
        mean += w * mu
        square += w * (family.row_variance(mu, lam, known) + mu * mu)
    return square - mean * mean


def residual_variance(
    fit: Fit, rows: RowArrays, whole: BoolArray, weight: FloatArray, eta: FloatArray, average: bool, errors: bool
) -> tuple[FloatArray, FloatArray]:
    """Variances of normal responses, and their standard errors, each (n,).

    Parameters
    ----------
    fit : Fit
    rows : RowArrays
        Complete rows; of all terms for averages.
    whole : ndarray of bool
        Which rows of `rows.frame` these are.
    weight : ndarray, shape (n,)
        Prior weights.
    eta : ndarray, shape (n,)
        Linear predictors.
    average : bool
        Of a response of a new group: z'Sigma z is added.
    errors : bool
        Zeros where they are not asked for.
    """
    model = model_of(fit)
    own = fit.independent_residuals or rows.frame is not None
    noise = model.noise(rows, whole, weight if own else None, eta)
    total = noise.variance + (random_variance(fit, rows) if average else 0.0)
    if not errors:
        return total, np.zeros(rows.n)
    derivatives = model.variance_derivatives()
    slopes = np.zeros((rows.n, derivatives.covariance.shape[0])) if noise.slopes is None else noise.slopes.copy()
    for t, Z in rows.values.items() if average else ():
        level = fit.design.terms[t].level_variance
        slopes += level * np.einsum("na,sab,nb->ns", Z, derivatives.covariances[t], Z)
    # Every variance is proportional to sigma^2 when the others are relative to it.
    slopes[:, -1] = total
    df = derivatives.degrees_of_freedom(total, slopes)
    return total, total * np.sqrt(2.0 / df)
