"""Predictions of models whose means do not follow from one linear predictor: zero parts, truncated counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lme4py.data.column import Column
from lme4py.data.frame import read_frame
from lme4py.design.parts import new_parts
from lme4py.design.recipe import new_random_values
from lme4py.errors import OptionError, did_you_mean
from lme4py.families.parts import PartsFamily
from lme4py.families.response import ResponseData
from lme4py.fits.base import Fit
from lme4py.fits.rows.arrays import RowArrays
from lme4py.fits.steps import response_with_modes
from lme4py.inference.estimates.coefficients import chosen_alpha
from lme4py.inference.prediction.part_means import part_mean
from lme4py.inference.prediction.predictor import linear_predictor
from lme4py.inference.prediction.rows import chosen_terms, make_rows, padded, report_unseen, without_unseen
from lme4py.linalg.types import FloatArray

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["PART_TYPES", "needs_parts", "predict_parts"]

PART_TYPES = ("response", "conditional", "zprob", "dispersion", "variance")


def needs_parts(fit: Fit, type: str) -> bool:
    """Whether a prediction is one of this module."""
    return type != "linear" and (not fit.family.mean_is_link or type in PART_TYPES[1:])


def predict_parts(
    fit: Fit,
    data: Any,
    include_random: Any,
    type: str,
    new_levels: str,
    interval: str | None,
    offset: Column | None,
    alpha: float | None = None,
) -> pd.Series[float] | pd.DataFrame:
    """Means, probabilities of zeros, dispersions or variances of rows.

    Parameters
    ----------
    fit : Fit
    data : data frame, optional
    include_random : bool, list of str, or "integrate"
    type : {"response", "conditional", "zprob", "dispersion", "variance"}
        The mean, zeros included; the mean of the conditional part; the probability of a zero of the zero part; the
        dispersion; the variance of the response.
    new_levels : {"zero", "error", "missing"}
    interval : {None, "confidence"}
        Limits of predictions without conditional modes.
    offset : Column, optional
        Of new data.
    alpha : float, optional

    Returns
    -------
    pandas.Series, or pandas.DataFrame predicted, lower, upper
    """
    import pandas as pd

    family = _check(fit, include_random, type, interval)
    average = isinstance(include_random, str) and include_random == "integrate"
    chosen = chosen_terms(fit, include_random)
    frame = None if data is None else read_frame(data)
    rows = without_unseen(make_rows(fit, frame, chosen, False, offset), new_levels)
    report_unseen(fit, rows, new_levels)
    whole, response = rows.complete, _response(fit, rows, chosen)
    if average or interval is not None:
        if frame is not None and not whole.all():
            raise OptionError(
                f"{int((~whole).sum())} of {whole.size} rows of the new data have missing values; leave them out for "
                "averages and limits of models with further parts."
            )
        found = part_mean(fit, type, rows, response, average)
        columns = [found.value, *([] if interval is None else found.limits(fit, chosen_alpha(fit, alpha)))]
    else:
        own = data is None and len(chosen) == len(fit.design.terms)
        eta = fit.linear_predictor if own else linear_predictor(fit, rows.take(whole))
        columns = [family.predicted(type, response.take(whole), eta, fit.lam)]
    values: FloatArray = np.full((rows.n, len(columns)), np.nan)
    values[whole] = np.column_stack(columns)
    table, index = (values, frame.index) if frame is not None else padded(fit, values)
    if interval is None:
        return pd.Series(table[:, 0], index=index, name="predicted")
    return pd.DataFrame(table, index=index, columns=["predicted", "lower", "upper"])


def _response(fit: Fit, rows: RowArrays, chosen: Sequence[int]) -> ResponseData:
    """A response of the rows whose further predictors have the modes of the chosen terms in their offsets."""
    design = fit.design
    if rows.frame is None:
        modes = [fit.modes[t] if t in chosen else None for t in range(len(design.terms))]
        return response_with_modes(design, fit.data, modes)
    response = new_parts(design, rows.frame, ResponseData(np.zeros(rows.n)))
    added = {part.name: np.zeros(rows.n) for part in response.parts}
    for t in chosen:
        term = design.terms[t]
        if not term.parts:
            continue
        values = new_random_values(design.recipe, rows.frame, t)
        for part in added:
            own: FloatArray = np.einsum(
                "nk,nk->n", term.masked(values, part), fit.modes[t][np.maximum(rows.codes[t], 0)]
            )
            added[part] += np.where(rows.codes[t] >= 0, own, 0.0)
    return replace(response, parts=tuple(part.plus(added[part.name]) for part in response.parts))


def _check(fit: Fit, include_random: Any, type: str, interval: str | None) -> PartsFamily:
    if type not in PART_TYPES:
        hint = did_you_mean(str(type), [*PART_TYPES, "linear"])
        raise OptionError(f"type must be one of {', '.join(map(repr, (*PART_TYPES, 'linear')))}, got {type!r}.{hint}")
    family = fit.family
    if not isinstance(family, PartsFamily):
        raise family.lacks(f"prediction of type {type!r}, which belongs to models with further parts")
    if interval == "prediction":
        raise family.lacks("prediction intervals with further parts; use simulate()")
    if interval not in (None, "confidence"):
        raise OptionError(f"interval must be None or 'confidence' here, got {interval!r}.")
    modes = not (include_random is False or include_random == "integrate")
    if interval is not None and modes and fit.design.terms:
        raise family.lacks("limits at the conditional modes of several parts; use include_random=False or 'integrate'")
    if fit.recession is not None:
        raise family.lacks("predictions by parts where conditional coefficients are infinite")
    if type == "variance" and family.has_trials:
        raise family.lacks("variance of new rows, whose trials are not known here")
    return family
