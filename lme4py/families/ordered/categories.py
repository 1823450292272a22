"""The response of an ordinal model: which categories there are, and in which order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lme4py.data.column import Column
from lme4py.errors import DataError, OptionError
from lme4py.families.response import ResponseData
from lme4py.formula.values import Value, check_finite

__all__ = ["MAX_CATEGORIES", "category_label", "ordinal_response", "positions", "threshold_names"]

# More distinct values than this are measurements rather than categories.
MAX_CATEGORIES = 100


def ordinal_response(
    value: Value,
    name: str,
    levels: Iterable[Any] | None = None,
    weights: NDArray[np.float64] | None = None,
    column: Column | None = None,
) -> ResponseData:
    """The response as codes 0 .. K - 1 of its K categories, lowest first.

    Parameters
    ----------
    value : Value
        The evaluated left-hand side on the n rows used.
    name : str
        As the user wrote it.
    levels : iterable, optional
        The categories, lowest first. Needed for text and for unordered categoricals.
    weights : ndarray, shape (n,), optional
        Multiply the log-likelihood of the row.
    column : Column, optional
        The column that the response is, with the levels that do not occur.

    Raises
    ------
    DataError
        A response whose order is unknown, values outside `levels`, or fewer than three categories.

    Examples
    --------
    >>> import numpy as np
    >>> data = ordinal_response(Value("numeric", np.array([3.0, 1.0, 2.0, 3.0])), "y")
    >>> data.codes, data.categories
    (array([2, 0, 1, 2]), (1, 2, 3))
    """
    if value.kind == "matrix":
        raise DataError(f"the response '{name}' has several columns; clmm needs one column of ordered categories")
    codes, found = positions(value, name)
    if levels is not None:
        codes, kept, unused = _given_order(codes, found, _listed(levels), name)
    else:
        if column is None or not column.declared:
            codes, found = _own_order(value, codes, found, name)
        kept = found
        whole = () if column is None or not column.is_factor else column.levels
        unused = [level for level in whole if level not in found]
    _check_count(kept, name)
    notes = (_unused_note(unused, name),) if unused else ()
    return ResponseData(codes.astype(np.float64), None, weights, tuple(kept), notes)


def category_label(level: Any) -> str:
    """A category as text: whole numbers without a point."""
    if isinstance(level, float | np.floating) and float(level).is_integer():
        return str(int(level))
    return str(level)


def positions(value: Value, name: str) -> tuple[NDArray[np.intp], list[Any]]:
    """Positions among the distinct values, in their present order."""
    if value.is_factor:
        return np.asarray(value.values, dtype=np.intp), list(value.levels)
    numbers = np.asarray(value.values, dtype=np.float64)
    check_finite(numbers, [name], "the response {name}")
    distinct, codes = np.unique(numbers, return_inverse=True)
    if value.kind == "boolean":
        return codes, [bool(x) for x in distinct]
    return codes, [int(x) if float(x).is_integer() else float(x) for x in distinct]


def _listed(levels: Iterable[Any]) -> list[Any]:
    if isinstance(levels, str | bytes) or not isinstance(levels, Iterable):
        raise OptionError(f"`levels` is {levels!r}; give a list of the categories, lowest first.")
    return list(levels)


def _own_order(
    value: Value, codes: NDArray[np.intp], found: list[Any], name: str
) -> tuple[NDArray[np.intp], list[Any]]:
    """The order that the column has itself; refused where nobody gave one."""
    if value.kind != "factor" or len(found) < 3:
        return codes, found
    if all(isinstance(level, int | float | np.number) for level in found):
        order = sorted(range(len(found)), key=lambda i: float(found[i]))
        return np.argsort(order)[codes], [found[i] for i in order]
    shown = ", ".join(repr(level) for level in found[:6]) + (", ..." if len(found) > 6 else "")
    raise DataError(
        f"the response '{name}' is text or an unordered categorical ({shown}), so that the order of its categories is "
        f"unknown; give them from the lowest to the highest, as in levels=[{shown}], or make the column an ordered "
        "categorical: pandas.Categorical(column, categories=[...], ordered=True)"
    )


def _given_order(
    codes: NDArray[np.intp], found: Sequence[Any], levels: list[Any], name: str
) -> tuple[NDArray[np.intp], list[Any], list[Any]]:
    """Codes in the order of `levels`, the levels that occur, and those that do not."""
    if len(levels) != len(set(levels)):
        twice = next(level for i, level in enumerate(levels) if level in levels[:i])
        raise OptionError(f"`levels` names {twice!r} twice; give each category once, lowest first.")
    strangers = [level for level in found if level not in levels]
    if strangers:
        rows = int(np.isin(codes, [found.index(level) for level in strangers]).sum())
        shown = ", ".join(repr(level) for level in strangers[:5]) + (", ..." if len(strangers) > 5 else "")
        raise DataError(
            f"{rows} of {codes.size} rows of the response '{name}' have values that `levels` does not name: {shown}; "
            f"`levels` is {levels!r}. Add them at their place, or remove these rows"
        )
    kept = [level for level in levels if level in found]
    place = np.array([kept.index(level) for level in found], dtype=np.intp)
    return place[codes], kept, [level for level in levels if level not in found]


def threshold_names(categories: Sequence[Any]) -> tuple[str, ...]:
    """Names of the thresholds between ordered categories: ``("1|2", "2|3", ...)``.

    Parameters
    ----------
    categories : sequence
        Lowest first.
    """
    labels = [category_label(level) for level in categories]
    return tuple(f"{low}|{high}" for low, high in pairwise(labels))


def _check_count(kept: Sequence[Any], name: str) -> None:
    labels = ", ".join(repr(level) for level in kept[:5])
    if len(kept) == 2:
        raise DataError(
            f"the response '{name}' has two categories in the rows used ({labels}), and clmm needs three or more; "
            "use glmer(..., family='binomial') for two"
        )
    if len(kept) < 2:
        raise DataError(
            f"the response '{name}' has only the category {labels} in the rows used, so there is nothing to model; "
            "check the column, or use more data"
        )
    if len(kept) > MAX_CATEGORIES:
        raise DataError(
            f"the response '{name}' has {len(kept)} distinct values, more than the {MAX_CATEGORIES} that clmm takes "
            "for ordered categories; use lmer() for a measurement, or group its values"
        )


def _unused_note(unused: Sequence[Any], name: str) -> str:
    shown = ", ".join(repr(level) for level in unused[:8]) + (", ..." if len(unused) > 8 else "")
    if len(unused) == 1:
        return f"The category {shown} of the response '{name}' does not occur in the rows used and is left out."
    return f"{len(unused)} categories of the response '{name}' do not occur in the rows used and are left out: {shown}."
