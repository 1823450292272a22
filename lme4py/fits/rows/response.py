"""A new response for the rows of a fit: matched with them, and as numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lme4py.data.beside import column_beside, in_row_order
from lme4py.data.column import Column
from lme4py.data.frame import drop_unused_levels
from lme4py.design.design import Design
from lme4py.errors import DataError, OptionError
from lme4py.fits.base import Fit
from lme4py.linalg.types import FloatArray

__all__ = ["is_proportion", "levels_of_response", "numeric_categories", "response_numbers", "response_table"]


def response_numbers(
    design: Design, y: Any, levels: Sequence[Any] = (), *, coded: bool = False, pairs: bool = False
) -> FloatArray:
    """A new response on the rows used.

    Parameters
    ----------
    design : Design
    y : array-like, shape (n,) or (n_data,), or a data frame with one column
        One value for each row used, or for each row of the data (others may be missing); values with an index are
        matched with the rows by it.
    levels : sequence
        Labels whose positions 0, 1, ... are the numbers.
    coded : bool
        Numbers are such labels too.
    pairs : bool
        Two columns, successes and failures, are allowed.

    Returns
    -------
    ndarray, shape (n,) or (n, 2)

    Raises
    ------
    DataError
        Labels that are not among the levels, missing or infinite values, or an index that does not fit.
    OptionError
        Another number of values.
    """
    if pairs and _n_columns(y) == 2:
        values = _columns(design, y)
    else:
        _check_length(design, y, pairs)
        values = _numbers(column_beside(y, "y", design, design.keep), levels, coded)
    return _finite(values)


def response_table(design: Design, y: Any, labels: Sequence[str]) -> FloatArray:
    """A new response of several columns on the rows used, shape (n, K).

    Parameters
    ----------
    design : Design
    y : array-like, shape (n, K) or (n_data, K), or a data frame
        Columns of a frame are found by their names, where they have those.
    labels : sequence of str, length K

    Raises
    ------
    DataError, OptionError
    """
    if _n_columns(y) != len(labels):
        raise OptionError(
            f"the new response has shape {np.shape(y)}, and needs a column for each of {', '.join(labels)}."
        )
    named = [str(name) for name in getattr(y, "columns", ())]
    values = _columns(design, y)
    return _finite(values[:, [named.index(label) for label in labels]] if set(named) == set(labels) else values)


def _finite(values: FloatArray) -> FloatArray:
    if not np.isfinite(values).all():
        count = int((~np.isfinite(values)).sum())
        raise DataError(f"the new response holds {count} missing or infinite values; refit the model to other rows.")
    return values


def levels_of_response(design: Design) -> tuple[Any, ...]:
    """Levels of a response that is a factor, those that occur; () for other responses."""
    column = (design.columns or {}).get(design.response_name)
    return () if column is None else drop_unused_levels(column).levels


def _n_columns(y: Any) -> int:
    shape = np.shape(y)
    return int(shape[1]) if len(shape) == 2 else 1


def _check_length(design: Design, y: Any, pairs: bool) -> None:
    shape = np.shape(y)
    sizes = {design.n_obs, design.n_rows}
    labelled = getattr(y, "index", None) is not None and not isinstance(y, list | tuple)
    if labelled or (shape and shape[0] in sizes and shape[1:] in ((), (1,))):
        return
    also = ", or two columns (successes, failures)" if pairs else ""
    raise OptionError(
        f"the new response has shape {shape}, but the model was fitted to {design.n_obs} rows"
        f"{'' if design.keep.all() else f' of {design.n_rows}'}; give one number for each{also}."
    )


def _columns(design: Design, y: Any) -> FloatArray:
    try:
        values = np.asarray(in_row_order(y, "y", design, design.keep), dtype=np.float64)
    except (TypeError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError("the new response holds values that are no numbers; give one number per row.") from None
    if values.shape[0] == design.n_rows:
        values = values[design.keep]
    if values.shape[0] != design.n_obs:
        _check_length(design, values, pairs=True)
    return values


def _numbers(column: Column, levels: Sequence[Any], coded: bool) -> FloatArray:
    """Positions of labels, or the numbers themselves."""
    if column.is_factor and not levels:
        raise DataError("the new response holds values that are no numbers; give one number per row.")
    if not column.is_factor and not coded:
        return np.asarray(column.values, dtype=np.float64)
    place = {level: float(i) for i, level in enumerate(levels)}
    if not column.is_factor:
        return np.array([_place(value, place) for value in column.values.tolist()])
    table = [place.get(level, np.nan) for level in column.levels]
    used = np.unique(column.values[column.values >= 0]).tolist()
    for code in used:
        _place(column.levels[code], place)
    return np.asarray(np.array([*table, np.nan])[column.values])


def _place(value: Any, place: dict[Any, float]) -> float:
    if value not in place:
        if isinstance(value, float) and np.isnan(value):
            return float("nan")
        shown = ", ".join(map(repr, list(place)[:6])) + ", ..." * (len(place) > 6)
        raise DataError(f"the new response holds {value!r}, but its levels are {shown}; give these.")
    return place[value]


def is_proportion(fit: Fit) -> bool:
    """Whether the binomial response was given as proportions with the numbers of trials as weights."""
    return fit.data.trials is not None and fit.data.weights is None and fit.design.weights is not None


def numeric_categories(fit: Fit) -> bool:
    """Whether the categories of an ordinal model are numbers."""
    kinds = (int, float, np.number)
    return bool(fit.categories) and all(
        isinstance(level, kinds) and not isinstance(level, bool) for level in fit.categories
    )
