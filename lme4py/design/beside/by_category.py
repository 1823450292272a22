"""An offset of each unordered category: ``offset={"car": "log_price_car", "bus": z}``, or a frame with such columns.

log P(k) / P(baseline) = eta_k + o_k - o_baseline; a category that is not named has o = 0. One column, or ``offset()``
in the formula, is a part of the linear predictor of every category beside the baseline, as all that the formula says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lme4py.design.beside.given import Given, finite_offset
from lme4py.design.rows import UsedRows
from lme4py.errors import OptionError, did_you_mean
from lme4py.formula.nodes import Node
from lme4py.formula.values import Value

__all__ = ["beside_baseline", "category_offset", "check_labels", "given_by_category", "offset_arguments"]

FloatArray = NDArray[np.float64]
_NAME = "offset of "


def offset_arguments(offset: Any) -> dict[str, Any]:
    """The `offset` argument as arguments of one column each.

    Parameters
    ----------
    offset : object
        A mapping of category to column name, expression or values, or a frame with a column for each category; anything
        else stays one argument.

    Examples
    --------
    >>> offset_arguments({"B": "z"}), offset_arguments("z")
    ({'offset of B': 'z'}, {'offset': 'z'})
    """
    if isinstance(offset, Mapping):
        if not offset:
            raise OptionError("`offset` is an empty mapping; name categories, {'B': 'z'}, or leave it out.")
        return {f"{_NAME}{label}": value for label, value in offset.items()}
    names = getattr(offset, "columns", None)
    if names is None or isinstance(names, np.ndarray) or getattr(offset, "ndim", 2) != 2 or len(names) < 2:
        return {"offset": offset}
    return {f"{_NAME}{label}": offset[label] for label in names}


def given_by_category(rows: UsedRows, categories: Sequence[str]) -> tuple[Given | None, ...]:
    """How the offset of each category was given; () where there is no such offset.

    Parameters
    ----------
    rows : UsedRows
    categories : sequence of str
        Labels; () for families that have none.

    Raises
    ------
    OptionError
        A category that the response does not have, or a family without categories.
    """
    own = {name: one for name, one in rows.given.items() if name.startswith(_NAME)}
    return tuple(own.get(name) for name in check_labels(own, categories)) if own else ()


def check_labels(given: Iterable[str], categories: Sequence[str]) -> list[str]:
    """Names of the arguments of all categories, where those that are given are among them.

    Parameters
    ----------
    given : iterable of str
        Keys of `offset_arguments`.
    categories : sequence of str
        Labels, the baseline first; () for families that have none.
    """
    if not categories:
        raise OptionError(
            "`offset` has several columns, which only family='multinomial' has a use for: one for each category. Give "
            "one column, an expression or an array."
        )
    names = [name.removeprefix(_NAME) for name in given]
    strangers = [name for name in names if name not in categories]
    if strangers:
        hint = did_you_mean(strangers[0], categories)
        raise OptionError(
            f"`offset` names {strangers[0]!r}, which is no category of the response.{hint} They are "
            f"{', '.join(categories)}."
        )
    return [f"{_NAME}{label}" for label in categories]


def category_offset(rows: UsedRows, values: Mapping[Node, Value], given: Sequence[Given | None]) -> FloatArray:
    """The offset of each category beside the baseline, less that of the baseline, shape (n, D).

    Parameters
    ----------
    rows : UsedRows
    values : mapping of Node to Value
    given : sequence of Given or None, length K
        The baseline first.
    """
    columns = []
    for one in given:
        numbers = None if one is None else rows.numbers(one.what, values)
        columns.append(np.zeros(rows.n) if one is None or numbers is None else finite_offset(numbers, one))
    return beside_baseline(columns)


def beside_baseline(columns: Sequence[FloatArray]) -> FloatArray:
    """Offsets of the categories after the first, less that of the first, (n, D), or (n,) where D = 1."""
    table: FloatArray = np.column_stack([own - columns[0] for own in columns[1:]])
    return table if len(columns) > 2 else table[:, 0]
