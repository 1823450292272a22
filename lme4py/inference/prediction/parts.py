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
from lme4py.families.links import LogMean
from lme4py.families.parts import PartsFamily
from lme4py.families.response import ResponseData
from lme4py.fits.base import Fit
from lme4py.fits.parameters import is_inverted
from lme4py.fits.rows.arrays import RowArrays
from lme4py.fits.steps import response_with_modes
from lme4py.inference.estimates.coefficients import chosen_alpha
from lme4py.inference.estimates.dispersion import shown_dispersion
from lme4py.inference.prediction.intervals import row_data
from lme4py.inference.prediction.part_errors import (
    combined_variance,
    own_variance,
    predictor_covariance,
    residual_variance,
)
from lme4py.inference.prediction.part_means import link_limits, part_mean
from lme4py.inference.prediction.part_quantiles import part_quantiles
from lme4py.inference.prediction.predictor import linear_predictor
from lme4py.inference.prediction.rows import chosen_terms, make_rows, padded, report_unseen, without_unseen
from lme4py.linalg.types import BoolArray, FloatArray

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["PART_TYPES", "needs_parts", "predict_parts"]

PART_TYPES = ("response", "conditional", "zprob", "dispersion", "variance")


def needs_parts(fit: Fit, type: str, interval: str | None = None) -> bool:
    """Whether a prediction is one of this module.

    Parameters
    ----------
    fit : Fit
    type : str
    interval : str, optional
    """
    if type == "linear":
        return False
    several = interval == "prediction" and fit.family.n_coefficients > 0
    return several or not fit.family.mean_is_link or type in PART_TYPES[1:]


def predict_parts(
    fit: Fit,
    data: Any,
    include_random: Any,
    type: str,
    new_levels: str,
    interval: str | None,
    offset: Column | FloatArray | None,
    alpha: float | None = None,
    se: bool = False,
    weights: Any = None,
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
    interval : {None, "confidence", "prediction"}
        As in `predict`; "prediction" for type "response".
    offset : Column, optional
        Of new data.
    alpha : float, optional
    se : bool
        Add a column std_error.
    weights : str or array, optional
        Of new data, for prediction intervals.

    Returns
    -------
    pandas.Series, or pandas.DataFrame predicted, lower, upper
    """
    level = chosen_alpha(fit, alpha)
    if not isinstance(fit.family, PartsFamily):
        return _of_one_predictor(fit, data, include_random, type, new_levels, interval, offset, level, se, weights)
    _check(fit, type, interval)
    average = isinstance(include_random, str) and include_random == "integrate"
    chosen = chosen_terms(fit, include_random)
    frame = None if data is None else read_frame(data)
    rows = without_unseen(make_rows(fit, frame, chosen, False, offset), new_levels)
    report_unseen(fit, rows, new_levels)
    whole, response = rows.complete, _response(fit, rows, chosen)
    rows, response = (
        replace(rows.take(whole), frame=None if frame is None else frame.take(np.flatnonzero(whole))),
        response.take(whole),
    )
    if interval == "prediction":
        known = row_data(fit, frame, whole, weights)
        columns = _with_observations(fit, rows, replace(known, y=np.zeros(rows.n), parts=response.parts), level)
    elif average:
        columns = _with_average(fit, type, rows, response, interval is not None, level, se)
    else:
        columns = _with_modes(fit, type, rows, response, interval is not None, level, se)
    return _shown(fit, frame, whole, columns, se, interval is not None)


def _of_one_predictor(
    fit: Fit,
    data: Any,
    include_random: Any,
    type: str,
    new_levels: str,
    interval: str | None,
    offset: Column | FloatArray | None,
    alpha: float,
    se: bool,
    weights: Any,
) -> pd.Series[float] | pd.DataFrame:
    """Dispersions and variances of rows of a model without further parts."""
    _check(fit, type, interval)
    average = isinstance(include_random, str) and include_random == "integrate" and type == "variance"
    chosen = chosen_terms(fit, include_random)
    frame = None if data is None else read_frame(data)
    rows = without_unseen(make_rows(fit, frame, chosen, average, offset), new_levels)
    report_unseen(fit, rows, new_levels)
    whole, limits = rows.complete, interval is not None
    known, rows = row_data(fit, frame, whole, weights), rows.take(rows.complete)
    if fit.normal_errors:
        columns = _of_normal(
            fit, type, rows, whole, np.broadcast_to(known.weight, rows.n), average, limits or se, alpha
        )
    elif type == "dispersion":
        columns = [np.full(rows.n, value) for value in _of_dispersion(fit, alpha)]
    elif limits or se:
        value, error = own_variance(fit, rows, _eta(fit, rows), known, average)
        columns = [value, error, *link_limits(fit, LogMean(), value, error, alpha)]
    else:
        columns = [own_variance(fit, rows, _eta(fit, rows), known, average, errors=False)[0]]
    kept = [True, se, limits, limits]
    return _shown(fit, frame, whole, [one for one, keep in zip(columns, kept, strict=False) if keep], se, limits)


def _of_dispersion(fit: Fit, alpha: float) -> tuple[float, float, float, float]:
    """The dispersion, its standard error and its limits, in the words of the family whatever the front door."""
    found = shown_dispersion(fit, alpha)
    if found is None:
        raise fit.family.lacks("prediction of type 'dispersion'")
    if not is_inverted(fit):
        return found.estimate, found.std_error, found.lower, found.upper
    with np.errstate(divide="ignore"):
        low, value, high = 1.0 / np.array([found.upper, found.estimate, found.lower])
    return float(value), found.std_error * float(value) ** 2, float(low), float(high)


def _of_normal(
    fit: Fit,
    type: str,
    rows: RowArrays,
    whole: BoolArray,
    weight: FloatArray,
    average: bool,
    uncertain: bool,
    alpha: float,
) -> list[FloatArray]:
    """Variances of normal responses, or their standard deviations at weight 1, with errors and limits."""
    if uncertain and fit.has_fitted_variance:
        raise OptionError(
            "errors and limits of residual variances that depend on the fitted values are not defined here: the "
            "fitted values have errors too; leave out `interval` and `se`, or use bootstrap()."
        )
    variance, error = residual_variance(fit, rows, whole, weight, _eta(fit, rows), average, uncertain)
    if type == "dispersion":
        value = np.sqrt(variance * weight)
        error = 0.5 * value * error / variance
    else:
        value = variance
    return [value, error, *(link_limits(fit, LogMean(), value, error, alpha, "normal") if uncertain else [])]


def _shown(
    fit: Fit, frame: Any, whole: BoolArray, columns: Sequence[FloatArray], se: bool, limits: bool
) -> pd.Series[float] | pd.DataFrame:
    """Columns of complete rows (predictions, then errors and limits where asked for) on the index of the data."""
    import pandas as pd

    names = ["predicted", *["std_error"] * se, *["lower", "upper"] * limits]
    values: FloatArray = np.full((whole.size, len(names)), np.nan)
    values[whole] = np.column_stack(columns)
    table, index = (values, frame.index) if frame is not None else padded(fit, values)
    if len(names) == 1:
        return pd.Series(table[:, 0], index=index, name="predicted")
    return pd.DataFrame(table, index=index, columns=names)


def _eta(fit: Fit, rows: RowArrays) -> FloatArray:
    """The conditional predictor with the modes of the rows' groups."""
    own = rows.frame is None and len(rows.codes) == len(fit.design.terms)
    return fit.linear_predictor if own else linear_predictor(fit, rows)


def _with_average(
    fit: Fit, type: str, rows: RowArrays, response: ResponseData, limits: bool, level: float, se: bool
) -> list[FloatArray]:
    found = part_mean(fit, type, rows, response, slopes=limits or se)
    columns = [found.value, *([found.errors(fit)] if se else [])]
    return [*columns, *(found.limits(fit, level) if limits else [])]


def _with_modes(
    fit: Fit, type: str, rows: RowArrays, response: ResponseData, limits: bool, level: float, se: bool
) -> list[FloatArray]:
    """Predictions at conditional modes, or at random effects of zero."""
    family: Any = fit.family
    eta = _eta(fit, rows)
    value = family.predicted(type, response, eta, fit.lam)
    if not (limits or se):
        return [value]
    x = list(family.variables(response, eta, fit.lam).values())
    slopes = dict(zip(family.density.names, family.moment_slopes(type, response, x), strict=True))
    error = np.sqrt(combined_variance(fit, rows, response, slopes))
    columns = [value, *([error] if se else [])]
    return [*columns, *(link_limits(fit, family.moment_link(type), value, error, level) if limits else [])]


def _with_observations(fit: Fit, rows: RowArrays, response: ResponseData, level: float) -> list[FloatArray]:
    """Means, and limits of one new observation of a known group where its modes are included, else of a new group."""
    family: Any = fit.family
    eta = _eta(fit, rows)
    covariance = predictor_covariance(fit, rows, response)
    ends = part_quantiles(fit, response, eta, covariance, (level / 2.0, 1.0 - level / 2.0))
    return [family.predicted("response", response, eta, fit.lam), *ends]


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


def _check(fit: Fit, type: str, interval: str | None) -> None:
    if type not in PART_TYPES:
        hint = did_you_mean(str(type), [*PART_TYPES, "linear"])
        raise OptionError(f"type must be one of {', '.join(map(repr, (*PART_TYPES, 'linear')))}, got {type!r}.{hint}")
    family = fit.family
    several = isinstance(family, PartsFamily)
    if not several and (type == "zprob" or (type == "dispersion" and not (fit.normal_errors or family.n_dispersion))):
        raise family.lacks(f"prediction of type {type!r}")
    if interval not in (None, "confidence", "prediction"):
        raise OptionError(f"interval must be None, 'confidence' or 'prediction', got {interval!r}.")
    if interval == "prediction" and type != "response":
        raise OptionError(
            "interval='prediction' is that of a new observation, which is on the scale of the response; use "
            "type='response', or interval='confidence'."
        )
    if fit.recession is not None:
        raise family.lacks("predictions by parts where conditional coefficients are infinite")
    if type == "variance" and family.has_trials:
        raise family.lacks("variance of new rows, whose trials are not known here")
