"""Conditions that engines of rows know too: a column beside constants."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import reduce
from typing import Any, Final, Literal

__all__ = ["ColumnTest", "ColumnType", "expression_of"]

ColumnType = Literal["float", "integer", "text"]
"""Of columns that an engine compares as this package does: numbers of 64 bits, whole numbers, text by its bytes."""

_OPERATORS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True)
class ColumnTest:
    """A column compared with a constant, or with several of which one has to fit; not true where it is missing.

    Attributes
    ----------
    column : str
    operator : {"==", "!=", "<", "<=", ">", ">="}
    values : tuple of float or str
        Several only with "==".
    type : {"float", "integer", "text"}
        Of the column.
    """

    column: str
    operator: str
    values: tuple[float | str, ...]
    type: ColumnType


def expression_of(tests: Iterable[ColumnTest], column: Callable[[str], Any], is_nan: Callable[[Any], Any]) -> Any:
    """All comparisons together in the expressions of an engine, whose operators are those of Python.

    Parameters
    ----------
    tests : iterable of ColumnTest
    column : callable
        From a name to an expression.
    is_nan : callable
        Of such an expression: NaN is missing here, and a number for most engines.
    """
    return reduce(operator.and_, [_expression(test, column(test.column), is_nan) for test in tests])


def _expression(test: ColumnTest, own: Any, is_nan: Callable[[Any], Any]) -> Any:
    compare = _OPERATORS[test.operator]
    found = reduce(operator.or_, [compare(own, value) for value in test.values])
    return found & ~is_nan(own) if test.type == "float" else found
