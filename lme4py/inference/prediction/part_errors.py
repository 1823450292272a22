"""How uncertain predictions at conditional modes are, in models with several linear predictors.

A prediction is a function q of the linear predictors and the other parameters of a row. By the delta method its error
is a'(beta^ - beta, lambda^ - lambda) + z'(b^ - b), where each column of a design and of a term is multiplied by the
slope of q in the predictor that it belongs to; their joint covariance is that of `lme4py.fits.answers.joint`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from lme4py.design.design import CONDITIONAL
from lme4py.design.recipe import new_random_values
from lme4py.families.response import ResponseData
from lme4py.fits.base import Fit
from lme4py.fits.kinds import model_of
from lme4py.fits.rows.arrays import RowArrays
from lme4py.inference.prediction.predictor import included_variance, random_variance
from lme4py.linalg.types import FloatArray

__all__ = ["combined_variance", "predictor_covariance"]


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
