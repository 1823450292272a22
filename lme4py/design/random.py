"""Random-effects terms: grouping factors, the columns left of the bar, lme4's order and its checks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lme4py.chunks import chunk, from_size
from lme4py.covariance.relations.relation import Relation
from lme4py.errors import DataError, DesignError
from lme4py.formula.values import Value

__all__ = [
    "Grouping",
    "as_factor",
    "check_levels",
    "group_codes",
    "grouping_factor",
    "shared_columns",
    "term_order",
]

FloatArray = NDArray[np.float64]

IntArray = NDArray[np.intp]

# Ranges of whole numbers, and of combinations of levels, up to which a table beats sorting.
_NUMBERS, _COMBINATIONS = from_size(1000), from_size(100_000)
# From this many rows on a hash table beats sorting all of them.
HASH_FROM = from_size(20_000)
# Rows that are converted at one time.
_ROWS = chunk(2**18)


@dataclass(frozen=True, slots=True)
class Grouping:
    """A grouping factor without its rows.

    Attributes
    ----------
    name : str
        ``"Subject"`` or ``"cond:Subject"``.
    parts : tuple of tuple
        Levels of each variable of the interaction (one for a plain factor).
    levels : tuple
        Levels that occur; for an interaction the joined labels.
    occurring : ndarray of int, shape (J,), or None
        For an interaction the ascending positions of `levels` in the table of all combinations.
    relation : Relation or None
        The known covariance of the levels, which are then all of its levels; None where they are independent.
    """

    name: str
    parts: tuple[tuple[Any, ...], ...]
    levels: tuple[Any, ...]
    occurring: IntArray | None = None
    relation: Relation | None = None


def as_factor(value: Value, name: str) -> tuple[IntArray, tuple[Any, ...]]:
    """Codes and occurring levels, in order; numbers become factors of their sorted distinct values."""
    if value.is_factor:
        return _compact(_narrow(value.values), value.levels)
    if value.kind == "matrix":
        raise DataError(
            f"the grouping variable '{name}' has {value.values.shape[1]} columns; group by one, or by an "
            "interaction such as a:b"
        )
    if value.kind == "boolean":
        return _compact(_narrow(value.values), (False, True))
    return _number_codes(value.values, name)


def _narrow(codes: NDArray[Any]) -> IntArray:
    """The codes of rows in 32 bits, which is what data frames hold: of large data there is no second copy."""
    narrow: Any = codes.astype(np.int32, copy=False)
    return narrow  # type: ignore[no-any-return]


def _compact(codes: IntArray, levels: Sequence[Any]) -> tuple[IntArray, tuple[Any, ...]]:
    """Drop the levels that do not occur; the codes are renumbered only if there are any."""
    used = np.zeros(len(levels), dtype=bool)
    # Some rows at a time: what counts or picks makes 64-bit numbers of all codes that it is given.
    for start in range(0, codes.size, _ROWS):
        used[codes[start : start + _ROWS]] = True
    if used.all():
        return codes, tuple(levels)
    position = _narrow(np.cumsum(used) - 1)
    kept = tuple(level for level, keep in zip(levels, used.tolist(), strict=True) if keep)
    out: NDArray[Any] = np.empty(codes.size, dtype=np.int32)
    for start in range(0, codes.size, _ROWS):
        out[start : start + _ROWS] = position[codes[start : start + _ROWS]]
    return out, kept


def _number_codes(values: NDArray[np.float64], name: str) -> tuple[IntArray, tuple[Any, ...]]:
    low, high = float(values.min()), float(values.max())
    if not np.isfinite(high - low):
        raise DataError(
            f"the grouping variable '{name}' has {int((~np.isfinite(values)).sum())} infinite value(s); "
            "replace them by a label, or set them to missing"
        )
    if high - low <= max(4 * values.size, _NUMBERS):
        whole = _whole_numbers(values, low) if low == int(low) else None
        if whole is not None:
            # Whole numbers in a short range: a table is ten times faster than sorting a million values.
            return _compact(whole, range(int(low), int(high) + 1))
    distinct, codes = _distinct(values)
    return _narrow(codes), tuple(_whole_if_possible(distinct))


def _whole_numbers(values: NDArray[np.float64], low: float) -> IntArray | None:
    """How far values are above the lowest; None where they are not whole numbers."""
    out: NDArray[Any] = np.empty(values.size, dtype=np.int32)
    for start in range(0, values.size, _ROWS):
        place = slice(start, start + _ROWS)
        out[place] = values[place] - low
        if not np.array_equal(out[place] + low, values[place]):
            return None
    return out


def _distinct(values: NDArray[Any]) -> tuple[NDArray[Any], IntArray]:
    """Sorted distinct values, and each row's place among them."""
    if values.size < HASH_FROM:
        distinct, codes = np.unique(values, return_inverse=True)
        return distinct, codes.astype(np.intp, copy=False)
    import pandas as pd

    codes, found = pd.factorize(values)
    order = np.argsort(found)
    rank = np.empty(order.size, dtype=np.intp)
    rank[order] = np.arange(order.size)
    return np.asarray(found)[order], rank[codes]


def _whole_if_possible(numbers: NDArray[np.float64]) -> list[Any]:
    """Whole numbers as int, so that a level reads ``308`` and not ``308.0``."""
    if np.array_equal(numbers, np.floor(numbers)) and np.abs(numbers).max() < 2**53:
        return [int(number) for number in numbers.tolist()]
    levels: list[Any] = numbers.tolist()
    return levels


def grouping_factor(names: Sequence[str], values: Sequence[Value]) -> tuple[Grouping, IntArray]:
    """The interaction of one or more variables as one factor, and the level of each row.

    Parameters
    ----------
    names : sequence of str
        Of the variables.
    values : sequence of Value
        On complete rows: no code is negative.

    Returns
    -------
    Grouping
    ndarray of int, shape (n,)
        In R's order: the first variable varies slowest, only combinations that occur.
    """
    coded = [as_factor(value, part) for value, part in zip(values, names, strict=True)]
    parts = tuple(levels for _, levels in coded)
    name = ":".join(names)
    if len(coded) == 1:
        return Grouping(name, parts, parts[0]), coded[0][0]
    position, size = _combine([codes for codes, _ in coded], parts)
    occurring, codes = _renumber(position, size)
    return Grouping(name, parts, _labels(occurring, parts), occurring), _narrow(codes)


def _combine(codes: Sequence[IntArray], parts: Sequence[Sequence[Any]]) -> tuple[IntArray, int]:
    """Position of each row in the table of all combinations, and the size of that table."""
    position, size = codes[0].astype(np.intp), len(parts[0])
    for code, part in zip(codes[1:], parts[1:], strict=True):
        size *= len(part)
        if size >= 2**62:
            raise DesignError(
                f"the interaction of {len(parts)} grouping variables has more than 2**62 combinations; "
                "make one column that holds the combination, and group by it"
            )
        position = position * len(part) + code
    return position, size


def _renumber(position: IntArray, size: int) -> tuple[IntArray, IntArray]:
    """Sorted distinct positions, and each row's place among them."""
    if size > max(8 * position.size, _COMBINATIONS):
        return _distinct(position)
    used = np.bincount(position, minlength=size) > 0
    return np.flatnonzero(used), (np.cumsum(used) - 1)[position]


def _labels(occurring: IntArray, parts: Sequence[Sequence[Any]]) -> tuple[str, ...]:
    places = np.unravel_index(occurring, tuple(len(part) for part in parts))
    texts = [[str(level) for level in part] for part in parts]
    columns = [[text[i] for i in place.tolist()] for text, place in zip(texts, places, strict=True)]
    return tuple(":".join(labels) for labels in zip(*columns, strict=True))


def group_codes(grouping: Grouping, parts: Sequence[tuple[IntArray, Sequence[Any]]]) -> IntArray:
    """Level of each row of new data in a known grouping factor, -1 where it is missing or was never seen.

    Parameters
    ----------
    grouping : Grouping
    parts : sequence of (codes, levels)
        Per variable the codes (negative where missing) and what they mean in the new data.
    """
    known = []
    for (codes, levels), trained in zip(parts, grouping.parts, strict=True):
        place = {level: i for i, level in enumerate(trained)}
        # One more entry, for the code -1 of missing cells.
        table = np.array([*(place.get(level, -1) for level in levels), -1], dtype=np.intp)
        known.append(table[codes])
    if grouping.occurring is None:
        return known[0]
    position, _ = _combine(known, grouping.parts)
    found = np.searchsorted(grouping.occurring, position)
    found[found == grouping.occurring.size] = 0
    seen = (grouping.occurring[found] == position) & (np.min(known, axis=0) >= 0)
    return np.where(seen, found, -1).astype(np.intp, copy=False)


def shared_columns(
    names: Sequence[str], columns: Sequence[FloatArray | None], X: FloatArray, x_names: Sequence[str]
) -> FloatArray | None:
    """The columns of a term as a view of X where X holds them all, equally spaced; otherwise None.

    Most random slopes are fixed slopes too, and a copy of them would be a large part of the memory of a fit.

    Parameters
    ----------
    names : sequence of str
        Of the k columns.
    columns : sequence of ndarray (n,) or None
        None is the intercept.
    X : ndarray, shape (n, p)
    x_names : sequence of str
    """
    places = [x_names.index(name) if name in x_names else -1 for name in names]
    steps = {second - first for first, second in pairwise(places)} or {1}
    if not places or min(places) < 0 or len(steps) > 1 or min(steps) < 1:
        return None
    for place, column in zip(places, columns, strict=True):
        if not (np.all(X[:, place] == 1.0) if column is None else np.array_equal(X[:, place], column)):
            return None
    return X[:, places[0] : places[-1] + 1 : steps.pop()]


def term_order(n_levels: Sequence[int]) -> list[int]:
    """lme4's order of the terms: as written if the numbers of levels do not increase, otherwise sorted.

    Ties of the sort come out reversed, because lme4 reverses an ascending sort.

    Examples
    --------
    >>> term_order([36, 18, 18]), term_order([18, 18, 36])
    ([0, 1, 2], [2, 1, 0])
    """
    if all(left >= right for left, right in pairwise(n_levels)):
        return list(range(len(n_levels)))
    return sorted(range(len(n_levels)), key=n_levels.__getitem__)[::-1]


def check_levels(grouping: Grouping, label: str) -> None:
    """A grouping factor needs two levels."""
    if len(grouping.levels) < 2:
        raise DesignError(
            f"the grouping factor '{grouping.name}' of {label} has only one level ({grouping.levels[0]!r}) "
            "in the rows that are used; a grouping factor must have at least 2 levels, so remove the term"
        )
