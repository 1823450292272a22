"""Rows of a model with a residual structure given the responses of others: missing visits given the observed ones.

The residuals of a subject are correlated, so that the responses of its other rows say something about the residual of a
row too, beside its random effects; what is predicted is the response itself. With r the covariances of its residual
with those of the rows given, R theirs, and z~ = z - Z'R^-1 r, "confidence" limits are those of the mean of the row
given the random effects and these residuals (their errors are those of beta and of z~'b), "prediction" limits those of
the response.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lme4py.data.frame import Frame
from lme4py.design.design import Design
from lme4py.design.recipe import new_response
from lme4py.design.replay import replayed
from lme4py.design.residual.part import ResidualPart
from lme4py.design.residual.replay import NewResiduals, new_residuals, widened
from lme4py.errors import DataError, OptionError
from lme4py.fits.residual.fit import ResidualFit
from lme4py.fits.residual.modes import modes_of_rows
from lme4py.fits.residual.prediction import Prediction, joined, predicted
from lme4py.linalg.types import BoolArray, FloatArray, IntArray

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["frame_of", "given_modes", "predict_rows"]


def predict_rows(fit: ResidualFit, frame: Frame, given: Frame | None) -> tuple[Prediction, BoolArray]:
    """Predictions of rows given the responses of those of the fit, and of others.

    Parameters
    ----------
    fit : ResidualFit
    frame : Frame
        The rows to predict.
    given : Frame or None
        Further rows with responses; rows of the fit may be among them.

    Returns
    -------
    Prediction
        Of the complete rows.
    ndarray of bool, shape (n,)
        Which rows these are.
    """
    if fit.residual.fitted_column is not None:
        raise OptionError("given= is not there where the variance is a power of the fitted values; leave it out.")
    known, of_known = (None, None) if given is None else _known(fit, given)
    rows = replayed(fit.design, frame, fit.family, keep_levels=True)
    side = _placed(fit, frame, rows.keep, rows.weights)
    whole = side.present[rows.keep]
    rows, part = _some(rows, whole), side.take(rows.keep).take(whole).part
    part = _same_subjects(part, side, of_known, len(fit.residual.subjects))
    own, other = fit.residual.part, None if of_known is None else of_known.part
    both = part if other is None else part.then(other)
    wide, both = widened(own, both)
    part = both.take(np.arange(len(part.subject)))
    if other is not None:
        other = both.take(np.arange(len(part.subject), len(both.subject)))
    wider = replace(fit, residual=replace(fit.residual, part=wide))
    codes = {t: _levels(term, known.terms[t] if known else fit.design.terms[t]) for t, term in enumerate(rows.terms)}
    found = predicted(fit, joined(wider, known, other), rows, part, codes)
    return found, _positions(rows.keep, whole)


def _placed(fit: ResidualFit, frame: Frame, keep: BoolArray, weights: FloatArray | None) -> NewResiduals:
    full = None
    if weights is not None:
        full = np.full(keep.size, np.nan)
        full[keep] = weights
    found = new_residuals(fit.residual, fit.design.recipe, frame, full, subjects=True)
    if not found.placed:
        raise OptionError(
            f"residual={fit.residual.text!r} counts the rows of a subject, so that it is not known where a row of "
            "other data stands among them; fit the model with an index, such as ar1(visit | id)."
        )
    return found


def _positions(keep: BoolArray, whole: BoolArray) -> BoolArray:
    out = keep.copy()
    out[np.flatnonzero(keep)[~whole]] = False
    return out


def _some(design: Design, rows: BoolArray | IntArray) -> Design:
    """Some rows of a design of other data."""

    def take(values: FloatArray | None) -> FloatArray | None:
        return None if values is None else values[rows]

    first = design.predictors[0]
    terms = tuple(replace(term, codes=term.codes[rows], values=term.values[rows]) for term in first.terms)
    first = replace(first, X=first.X[rows], terms=terms, offset=take(first.offset))
    return replace(design, predictors=(first,), y=design.y[rows], weights=take(design.weights))


def _known(fit: ResidualFit, given: Frame) -> tuple[Design, NewResiduals]:
    """The rows given, with their responses, without those of the fit."""
    values, present = new_response(fit.design.recipe, given)
    rows = replayed(fit.design, given, fit.family, keep_levels=True)
    side = _placed(fit, given, rows.keep, rows.weights)
    complete = present[rows.keep] & side.present[rows.keep]
    if fit.residual.text:
        complete &= side.part.subject[rows.keep] >= 0
    if not complete.any():
        raise DataError("no row given has a response; give rows with responses, or leave given= out.")
    rows = replace(rows, y=values[rows.keep, 0])
    rows, side = _some(rows, complete), side.take(rows.keep).take(complete)
    new = _new_rows(fit, side.part, rows.y)
    rows, side = _some(rows, new), side.take(new)
    if not fit.residual.text:
        # Each row is a subject.
        codes = fit.design.n_obs + np.arange(rows.n_obs)
        side = replace(side, part=replace(side.part, subject=codes))
    return rows, side


def _new_rows(fit: ResidualFit, part: ResidualPart, y: FloatArray) -> BoolArray:
    """Rows given that are none of the fit: a subject has one row at a position."""
    own = fit.residual
    if not own.text:
        return np.ones(y.size, dtype=bool)
    key = np.column_stack([part.subject, part.points])
    if np.unique(key, axis=0).shape[0] < y.size:
        raise DataError(f"the rows given have a subject of {own.text} twice at one position; leave one of them out.")
    place = {tuple(row): i for i, row in enumerate(np.column_stack([own.part.subject, own.part.points]).tolist())}
    found = np.array([place.get(tuple(row), -1) for row in key.tolist()], dtype=np.intp)
    same = found >= 0
    if not np.array_equal(fit.design.y[found[same]], y[same]):
        count = int((fit.design.y[found[same]] != y[same]).sum())
        raise DataError(
            f"{count} of the rows given stand where the fit has a row with another response; a subject of {own.text} "
            "has one row at a position. Correct them, or fit the model to these rows."
        )
    return ~same


def _same_subjects(part: ResidualPart, side: NewResiduals, known: NewResiduals | None, n: int) -> ResidualPart:
    """Subjects that are not in the fit under the codes that they have among the rows given."""
    place = {} if known is None else {label: code for code, label in enumerate(known.labels)}
    table = np.array([place.get(label, -1 - n) for label in side.labels], dtype=np.intp)
    subject = part.subject.copy()
    new = subject >= n
    if new.any():
        subject[new] = n + table[subject[new] - n]
    return replace(part, subject=subject)


def _levels(term: Any, known: Any) -> IntArray:
    """Levels of a term among those of the rows given; -1 for others."""
    place = {level: j for j, level in enumerate(known.levels)}
    table = np.array([place.get(level, -1) for level in term.levels], dtype=np.intp)
    return np.asarray(table[term.codes])


def given_modes(fit: ResidualFit, given: Frame) -> tuple[Design, tuple[FloatArray, ...], tuple[FloatArray, ...]]:
    """Conditional modes of the groups of some rows from these rows alone, and their conditional covariances.

    Parameters
    ----------
    fit : ResidualFit
    given : Frame
    """
    values, present = new_response(fit.design.recipe, given)
    rows = replayed(fit.design, given, fit.family)
    side = _placed(fit, given, rows.keep, rows.weights)
    if not (present[rows.keep] & side.present[rows.keep]).all():
        raise DataError("some of the rows given have no response; leave these rows out.")
    rows = replace(rows, y=values[rows.keep, 0])
    wide, part = widened(fit.residual.part, side.take(rows.keep).part)
    wider = replace(fit, residual=replace(fit.residual, part=wide))
    return (rows, *modes_of_rows(wider, rows, part))


def frame_of(
    found: Prediction, whole: BoolArray, index: Any, quantile: float, interval: str | None, se: bool
) -> pd.Series[float] | pd.DataFrame:
    """The predictions as `predict` gives them.

    Parameters
    ----------
    found : Prediction
    whole : ndarray of bool
    index : pandas.Index
    quantile : float
        Of the limits.
    interval : {None, "confidence", "prediction"}
    se : bool
    """
    import pandas as pd

    columns = {"predicted": found.mean}
    if se:
        columns["std_error"] = np.sqrt(found.expected)
    if interval is not None:
        width = quantile * np.sqrt(found.expected if interval == "confidence" else found.observed)
        columns |= {"lower": found.mean - width, "upper": found.mean + width}
    table = pd.DataFrame(np.nan, index=index, columns=list(columns))
    table.loc[whole] = np.column_stack(list(columns.values()))
    return table if len(columns) > 1 else table["predicted"]
