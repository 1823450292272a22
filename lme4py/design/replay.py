"""The design of a fit for other rows: the same columns and bases, and groups that may be new."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

import numpy as np

from lme4py.data.frame import Frame
from lme4py.design.design import Design, Predictor, RandomTerm
from lme4py.design.joint import stacked_columns
from lme4py.design.parts import new_parts
from lme4py.design.recipe import Recipe, group_parts, new_fixed, new_random, new_response, new_weights
from lme4py.errors import DataError, OptionError
from lme4py.families.base import Family
from lme4py.families.response import ResponseData
from lme4py.formula.several import RESPONSE
from lme4py.linalg.types import BoolArray, FloatArray, IntArray

__all__ = ["replayed", "with_terms"]


def replayed(design: Design, frame: Frame, family: Family, keep_levels: bool = False) -> Design:
    """The design of a fit for other rows, with a response of zeros.

    Parameters
    ----------
    design : Design
    frame : Frame
        The other rows; the response is needed for the numbers of trials only.
    family : Family
        Of the fit.
    keep_levels : bool
        All groups of the fit stay, in their places, before the new ones; False: the groups that occur.

    Returns
    -------
    Design
        `response` has trials, weights, categories and parts, and zeros as values.

    Raises
    ------
    DataError
        No row is complete.
    """
    recipe = design.recipe
    X, offset = new_fixed(recipe, frame)
    blocks = [new_random(recipe, frame, t) for t in range(len(design.terms))]
    parts = [group_parts(recipe, frame, t) for t in range(len(design.terms))]
    keep: BoolArray = np.asarray(np.isfinite(np.column_stack([X, offset])).all(axis=1))
    for (values, _), own in zip(blocks, parts, strict=True):
        keep &= np.isfinite(values).all(axis=1) & np.all([codes >= 0 for codes, _ in own], axis=0)
    beside = new_parts(design, frame, ResponseData(np.zeros(keep.size))).parts
    for part in beside:
        keep &= np.isfinite(part.X).all(axis=1) & (True if part.offset is None else np.isfinite(part.offset))
    weights = None if recipe.weights is None else new_weights(recipe, frame)
    keep &= True if weights is None else np.isfinite(weights)
    if not keep.any():
        raise DataError("no row of the new data is complete: each has a missing value in a variable of the model.")
    terms = tuple(
        _term(term, values[keep], codes[keep], [(c[keep], levels) for c, levels in own], keep_levels)
        for term, (values, codes), own in zip(design.terms, blocks, parts, strict=True)
    )
    has_offset = design.offset is not None
    home = with_terms(design.predictors, terms)
    first = replace(home[0], X=stacked_columns(X[keep], design.n_stacked), offset=offset[keep] if has_offset else None)
    weights = None if weights is None else weights[keep]
    data = _response(recipe, design, frame, family, weights, keep)
    data = replace(data, parts=tuple(part.take(keep) for part in beside))
    further = tuple(replace(old, X=part.X, offset=part.offset) for old, part in zip(home[1:], data.parts, strict=True))
    return _with_rows(design, frame, (first, *further), data, weights, keep)


def with_terms(predictors: Sequence[Predictor], terms: Sequence[RandomTerm]) -> list[Predictor]:
    """Predictors with other terms, which are those of all predictors in their order.

    Parameters
    ----------
    predictors : sequence of Predictor
    terms : sequence of RandomTerm
    """
    left = iter(terms)
    return [replace(predictor, terms=tuple(islice(left, len(predictor.terms)))) for predictor in predictors]


def _with_rows(
    design: Design,
    frame: Frame,
    predictors: tuple[Predictor, ...],
    data: ResponseData,
    weights: FloatArray | None,
    keep: BoolArray,
) -> Design:
    columns = None
    if design.columns is not None:
        names = [name for name in design.columns if name in frame.names]
        columns = {name: frame.column(name).take(keep) for name in names}
    return replace(
        design,
        y=data.table,
        predictors=predictors,
        weights=weights,
        keep=keep,
        row_labels=frame.row_labels,
        response=data if design.response is not None else None,
        columns=columns,
        labelled=frame.labelled,
        source=frame.again().again,
    )


def _response(
    recipe: Recipe, design: Design, frame: Frame, family: Family, weights: FloatArray | None, keep: BoolArray
) -> ResponseData:
    """Zeros with the trials, weights and categories of the rows."""
    old = design.response
    zeros = np.zeros(int(keep.sum()))
    categories = None if old is None else old.categories
    if old is not None and old.responses is not None:
        return ResponseData(zeros, None, weights, responses=_response_codes(design, frame)[keep])
    if old is not None and old.counts is not None:
        # All trials in the first category stand for no response.
        counts = np.zeros((zeros.size, old.counts.shape[1]))
        counts[:, 0] = _trials(recipe, frame, keep, counts.shape[1])
        return ResponseData(zeros, None, weights, categories, counts=counts)
    if old is None or not family.has_trials or old.trials is None:
        return ResponseData(zeros, None, weights, categories)
    if weights is not None and old.weights is None:
        # Proportions, with the numbers of trials as weights.
        return ResponseData(zeros, weights)
    return ResponseData(zeros, _trials(recipe, frame, keep, 2), weights)


def _response_codes(design: Design, frame: Frame) -> IntArray:
    """Which of several responses long rows are for."""
    column = frame.column(RESPONSE)
    labels = design.responses.labels if design.responses else ()
    table = np.array([labels.index(str(level)) for level in column.levels], dtype=np.intp)
    return np.asarray(table[column.values])


def _trials(recipe: Recipe, frame: Frame, keep: BoolArray, columns: int) -> FloatArray:
    try:
        values, present = new_response(recipe, frame)
    except DataError as error:
        raise DataError(f"the numbers of trials of the new rows come from the response: {error}") from None
    if values.shape[1] != columns or not present[keep].all():
        which = "both" if columns == 2 else f"all {columns}"
        raise OptionError(f"the new data need {which} columns of the response, whose sums are the numbers of trials.")
    trials: FloatArray = values[keep].sum(axis=1)
    return trials


def _term(
    term: RandomTerm,
    values: FloatArray,
    codes: IntArray,
    parts: list[tuple[IntArray, tuple[object, ...]]],
    keep_levels: bool,
) -> RandomTerm:
    """The term with the groups of the rows; new ones stand behind those of the fit."""
    codes = codes.astype(np.intp)
    unseen = codes < 0
    if term.relation is not None:
        if unseen.any():
            raise OptionError(
                f"{int(unseen.sum())} of {unseen.size} rows have levels of {term.group} that the covariance of relmat= "
                "does not have, so that how they are related to the others is not known; give rows of its levels."
            )
        return replace(term, values=np.ascontiguousarray(values), codes=codes)
    labels: list[object] = list(term.levels)
    if unseen.any():
        table = np.stack([own[unseen] for own, _ in parts], axis=1)
        found, place = np.unique(table, axis=0, return_inverse=True)
        codes[unseen] = len(labels) + place.ravel()
        levels = [own for _, own in parts]
        for row in found.tolist():
            named = [own[code] for own, code in zip(levels, row, strict=True)]
            labels.append(named[0] if len(named) == 1 else ":".join(map(str, named)))
    if not keep_levels:
        used, place = np.unique(codes, return_inverse=True)
        codes, labels = place.ravel().astype(np.intp), [labels[i] for i in used.tolist()]
    return replace(term, values=np.ascontiguousarray(values), codes=codes, levels=tuple(labels))
