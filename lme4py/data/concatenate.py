"""Parts of a column below each other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lme4py.data.column import Column
from lme4py.errors import DataError

__all__ = ["common_order", "concatenate"]


def concatenate(parts: Sequence[Column]) -> Column:
    """Columns of one name below each other, as codes into the levels of all.

    Parameters
    ----------
    parts : sequence of Column

    Raises
    ------
    DataError
        Ordered levels whose order differs between the parts.

    Examples
    --------
    >>> first = Column("g", "text", np.array([0, 1], dtype=np.int32), ("b", "d"))
    >>> second = Column("g", "text", np.array([0, 0], dtype=np.int32), ("c",))
    >>> both = concatenate([first, second])
    >>> both.levels, both.values.tolist()
    (('b', 'c', 'd'), [0, 2, 1, 1])
    """
    first = parts[0]
    if not first.is_factor:
        return replace(first, values=np.concatenate([part.values for part in parts]))
    levels = _all_levels(parts)
    place = {level: i for i, level in enumerate(levels)}
    codes = []
    for part in parts:
        if part.levels == levels:
            codes.append(part.values)
            continue
        table = np.array([*(place[level] for level in part.levels), -1], dtype=np.int32)
        codes.append(table[part.values])
    return replace(first, values=np.concatenate(codes), levels=levels)


def common_order(parts: Sequence[Sequence[Any]]) -> tuple[Any, ...]:
    """The levels of all parts in an order that does not depend on that of the parts.

    Parameters
    ----------
    parts : sequence of sequences
        Levels in the order of each part.

    Returns
    -------
    tuple
        In the order of a part that has them all and with which the others agree; else ascending.

    Examples
    --------
    >>> common_order([("low", "high"), ("low", "middle", "high")])
    ('low', 'middle', 'high')
    >>> common_order([("b", "a"), ("a", "c")])
    ('a', 'b', 'c')
    """
    distinct = dict.fromkeys(map(tuple, parts))
    if len(distinct) == 1:
        return next(iter(distinct))
    longest = max(distinct, key=len)
    place = {level: i for i, level in enumerate(longest)}
    for part in distinct:
        own = [place.get(level, -1) for level in part]
        if own != sorted(own) or min(own, default=0) < 0:
            return _sorted(dict.fromkeys(level for levels in distinct for level in levels))
    return longest


def _sorted(levels: Iterable[Any]) -> tuple[Any, ...]:
    try:
        return tuple(sorted(levels))
    except TypeError:
        return tuple(sorted(levels, key=str))


def _all_levels(parts: Sequence[Column]) -> tuple[Any, ...]:
    found = dict.fromkeys(level for levels in dict.fromkeys(part.levels for part in parts) for level in levels)
    if parts[0].kind in ("text", "label"):
        return _sorted(found)
    if parts[0].kind == "factor":
        return common_order([part.levels for part in parts])
    levels = tuple(found)
    if parts[0].kind == "ordered":
        place = {level: i for i, level in enumerate(levels)}
        for part in parts:
            own = [place[level] for level in part.levels]
            if own != sorted(own):
                raise DataError(
                    f"the levels of the ordered column {part.name!r} have different orders in parts of the source: "
                    f"{', '.join(map(repr, part.levels[:6]))} and {', '.join(map(repr, levels[:6]))}; give all parts "
                    "the same categories."
                )
    return levels
