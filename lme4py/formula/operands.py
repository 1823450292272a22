"""What the parts of an expression are while it is being evaluated, and the errors they can cause."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lme4py.data.column import Column
from lme4py.errors import FormulaError
from lme4py.formula.deparse import deparse
from lme4py.formula.nodes import Name, Node
from lme4py.formula.values import Value

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Items:
    """Constants written together, as in ``c(1, 2)``: knots, breaks or levels; never rows of data."""

    values: tuple[Any, ...]


# A Value has rows; everything else is a constant of the formula. None is R's NULL.
Operand: TypeAlias = Value | Items | float | bool | str | None


@dataclass(slots=True)
class Context:
    """One evaluation: where columns and remembered parameters are found."""

    column: Callable[[str], Column]
    state: dict[str, Any]
    functions: Mapping[str, Callable[..., Any]]
    formula: str
    n_rows: int | None = None

    def error(self, node: Node, message: str) -> FormulaError:
        """A FormulaError with a caret under `node` where its place in the formula is known."""
        start, end = node.span
        if not self.formula or end <= start:
            return FormulaError(message)
        return FormulaError(message, self.formula, start, end)


@dataclass(slots=True)
class CallSite:
    """A call being evaluated: its name, its place, and what it learnt from the training data.

    Attributes
    ----------
    context : Context
    node : Node
        The call in the syntax tree.
    function : str
        Name as the user wrote it.
    text : str
        The whole call; the key of what it learnt.
    nodes : dict
        Argument name -> its syntax tree.
    """

    context: Context
    node: Node
    function: str
    text: str
    nodes: dict[str, Node] = field(default_factory=dict)

    def error(self, message: str, argument: str | None = None) -> FormulaError:
        """A FormulaError that names the function, with the caret under the argument where there is one."""
        at = self.nodes.get(argument or "", self.node)
        return self.context.error(at, f"{self.function}(): {message}")

    def learnt(self) -> Any:
        """What the training call stored, or None during training."""
        return self.context.state.get(self.text)

    def learn(self, parameters: Any) -> None:
        """Store plain data that later calls on new data reuse."""
        self.context.state[self.text] = parameters

    def what(self, argument: str) -> str:
        """How a message calls an argument: ``column 'x'`` or its text."""
        node = self.nodes.get(argument)
        return describe(node) if node is not None else f"the argument '{argument}'"

    def numbers(self, argument: str, operand: Operand) -> FloatArray:
        """The rows of a numeric or boolean argument, shape (n,); a constant is repeated if rows exist."""
        if isinstance(operand, Value):
            if operand.is_factor:
                raise self.error(f"{factor_text(self.what(argument), operand)}; this function needs numbers", argument)
            if operand.kind == "matrix":
                raise self.error(
                    f"{self.what(argument)} has {operand.values.shape[1]} columns; give one column", argument
                )
            return np.asarray(operand.values, dtype=np.float64)
        constant = self.constant(argument, operand)
        if self.context.n_rows is None:
            raise self.error(f"{self.what(argument)} has no data in it; give a column", argument)
        return np.full(self.context.n_rows, constant)

    def rows(self, argument: str, operand: Operand) -> Value:
        """An argument that must have rows: a column or an expression of columns."""
        if not isinstance(operand, Value):
            raise self.error(f"{self.what(argument)} is a constant; give a column", argument)
        return operand

    def constant(self, argument: str, operand: Operand) -> float:
        """A single number (TRUE is 1)."""
        if isinstance(operand, Items) and len(operand.values) == 1:
            operand = operand.values[0]
        if isinstance(operand, (bool, int, float)):
            return float(operand)
        raise self.error(f"argument '{argument}' must be one number, not {kind_text(operand)}", argument)

    def whole(self, argument: str, operand: Operand, least: int) -> int:
        """A whole number that is at least `least`."""
        number = self.constant(argument, operand)
        if isinstance(operand, bool) or number != int(number) or number < least:
            raise self.error(f"argument '{argument}' must be a whole number >= {least}, not {number:g}", argument)
        return int(number)

    def flag(self, argument: str, operand: Operand) -> bool:
        """TRUE or FALSE."""
        if isinstance(operand, bool):
            return operand
        raise self.error(f"argument '{argument}' must be TRUE or FALSE, not {kind_text(operand)}", argument)

    def items(self, argument: str, operand: Operand) -> tuple[Any, ...]:
        """Constants from ``c(...)``, or one constant as a list of one."""
        if isinstance(operand, Items):
            return operand.values
        if isinstance(operand, (bool, int, float, str)):
            return (operand,)
        raise self.error(f"argument '{argument}' must be constants such as c(1, 2), not {kind_text(operand)}", argument)

    def floats(self, argument: str, operand: Operand) -> list[float]:
        """Numbers from ``c(...)``; NaN refused."""
        values = self.items(argument, operand)
        if any(isinstance(value, str) or value != value for value in values):
            raise self.error(f"argument '{argument}' must be numbers, not {list_text(values)}", argument)
        return [float(value) for value in values]


def describe(node: Node) -> str:
    """``column 'x'`` for a name, otherwise the text of the expression in backquotes."""
    return f"column '{node.name}'" if isinstance(node, Name) else f"`{deparse(node)}`"


def list_text(values: Iterable[Any], limit: int = 6) -> str:
    """``'a', 'b', ... (9 in all)``."""
    items = list(values)
    shown = ", ".join([f"{item:g}" if isinstance(item, float) else repr(item) for item in items[:limit]])
    return shown if len(items) <= limit else f"{shown}, ... ({len(items)} in all)"


# A number of a formula is a float64, which cannot say which integer from here on is meant; text can.
_INEXACT = 2**53


def level_index(levels: tuple[Any, ...], wanted: Any) -> int | None:
    """Position of a level that the user wrote as text or number; None where there is no such level."""
    if not isinstance(wanted, str):
        if abs(wanted) >= _INEXACT:
            return None
        for i, level in enumerate(levels):
            if not isinstance(level, str) and level == wanted:
                return i
    spelled = wanted if isinstance(wanted, (str, bool)) else f"{wanted:.15g}"
    names = [str(level) for level in levels]
    return names.index(str(spelled)) if str(spelled) in names else None


def factor_text(what: str, value: Value) -> str:
    """``column 'arm' is a factor with levels 'a', 'b'``; of values that only name groups what is wrong with them."""
    if value.refusal:
        return value.refusal.rstrip(".")
    return f"{what} is a factor with levels {list_text(value.levels)}"


def kind_text(operand: Operand) -> str:
    """What an operand is, in words."""
    if operand is None:
        return "NULL"
    if isinstance(operand, Items):
        return f"c({list_text(operand.values)})"
    if isinstance(operand, Value):
        return "data" if not operand.is_factor else "a factor"
    if isinstance(operand, bool):
        return "TRUE" if operand else "FALSE"
    return repr(operand) if isinstance(operand, str) else f"{operand:g}"


def boolean(mask: NDArray[Any]) -> Value:
    """A boolean value from a mask."""
    return Value("boolean", np.asarray(mask, dtype=np.float64))


def matrix(values: FloatArray) -> Value:
    """A matrix whose columns are called ``[1]``, ``[2]``, ..."""
    return Value("matrix", values, suffixes=tuple(f"[{i}]" for i in range(1, values.shape[1] + 1)))
