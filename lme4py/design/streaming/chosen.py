"""Rows of a source that a condition chooses (``subset=``), wherever they are.

What an engine compares as this package does goes into its own query; the rest is evaluated block by block where the
rows are. One pass over the columns of the condition comes first: it counts rows and finds the levels, so that a level
that no row has is refused as it is in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any, Final, Generic, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from lme4py.data.column import Column
from lme4py.data.concatenate import concatenate
from lme4py.data.frame import Frame, missing_rows, read_frame
from lme4py.data.sources.base import MadeColumns, RowBlock, RowSource, Schema
from lme4py.data.sources.column_test import ColumnTest, ColumnType
from lme4py.data.sources.held import HeldTables, TablesOfBlocks
from lme4py.design.beside.given import given_text
from lme4py.errors import DataError, OptionError
from lme4py.formula.deparse import names_in, walk
from lme4py.formula.evaluate import LEARNERS, evaluate
from lme4py.formula.nodes import Binary, Call, Name, Node, Number, Paren, Text, Unary

__all__ = ["ChosenRows", "Condition", "choose_rows", "read_condition"]

T = TypeVar("T")
# The same comparison with its sides exchanged.
_MIRROR: Final = {"==": "==", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}


@dataclass(frozen=True)
class Condition:
    """Which rows are wanted; it can be sent to where they are.

    Attributes
    ----------
    text : str
    node : Node
    columns : tuple of str
        That it names: it is not true where one of them is missing.
    state : dict
        The levels that it names, where these are known to occur.
    """

    text: str
    node: Node
    columns: tuple[str, ...]
    state: dict[str, Any] = field(default_factory=dict)

    def __call__(self, frame: Frame) -> NDArray[np.bool_]:
        """Where it is true, shape (n,).

        Parameters
        ----------
        frame : Frame

        Raises
        ------
        OptionError
            It is no condition.
        """
        known = ~missing_rows([frame.column(name) for name in self.columns], frame.n_rows)
        value = evaluate(self.node, lambda name: frame.column(name).take(known), self.state)
        if value.kind != "boolean":
            raise OptionError(
                f"subset={self.text!r} is no condition; write a comparison, such as 'x > 1' or 'g == \"a\"'."
            )
        mask = np.zeros(frame.n_rows, dtype=bool)
        mask[known] = value.values != 0.0
        return mask

    def of_block(self, block: RowBlock) -> RowBlock:
        """The rows of a block in which it is true."""
        mask = self(block.frame) if block.frame.n_rows else np.zeros(0, dtype=bool)
        return block if mask.all() else replace(block, frame=block.frame.take(mask))


def read_condition(text: str, names: tuple[str, ...]) -> Condition:
    """A condition of columns.

    Parameters
    ----------
    text : str
        In the language of formulas.
    names : tuple of str
        Of the columns.

    Examples
    --------
    >>> from lme4py.data.frame import read_frame
    >>> read_condition("x > 1", ("x", "y"))(read_frame({"x": [1.0, None, 3.0]})).tolist()
    [False, False, True]
    """
    node = given_text(text, "subset", names, condition=True).node
    assert node is not None
    return Condition(text, node, names_in(node, names))


def choose_rows(source: RowSource, text: str) -> RowSource:
    """The rows of a source in which a condition is true, as a source.

    Parameters
    ----------
    source : RowSource
    text : str

    Raises
    ------
    OptionError, DataError, FormulaError
        What is no condition of the columns, takes all rows to be evaluated, or is true in no row.
    """
    schema = source.schema()
    condition = read_condition(text, schema.names)
    if not condition.columns:
        raise OptionError(f"subset={text!r} names no column; write a comparison, such as 'x > 1'.")
    for part in walk(condition.node):
        if isinstance(part, Call) and part.function in LEARNERS:
            raise OptionError(
                f"subset={text!r} learns from all rows by {part.function}(), and these are streamed; write the number "
                "itself, or make a column of it in the source."
            )
    before = source.fingerprint()
    found = source.reduce_blocks(_Count(condition), _merged, condition.columns)
    if found is not None and found.n_rows:
        condition = replace(condition, state=found.state(condition))
    if found is None or not found.kept:
        raise DataError(f"subset={text!r} is true in none of the {0 if found is None else found.n_rows} rows.")
    tests, rest = _split(condition, schema.types)
    native = source.where(tests) if tests else None
    if native is None:
        native, rest = source, condition
    chosen = copy(native) if rest is None else ChosenRows(native, rest)
    chosen.place = f"{source.place} (rows where {text}: {found.kept} of {found.n_rows})"
    chosen.passes, chosen.chosen = source.passes + 1, (found.kept, before)
    return chosen


class ChosenRows(RowSource):
    """The rows of a source in which a condition is true.

    Parameters
    ----------
    source : RowSource
    condition : Condition
    """

    def __init__(self, source: RowSource, condition: Condition) -> None:
        self.source, self.condition = source, condition
        self.place, self.travels = source.place, source.travels

    def schema(self) -> Schema:
        """Of the source."""
        return self.source.schema()

    def blocks(self, columns: Sequence[str] | None = None) -> Iterator[RowBlock]:
        """Its blocks, cut."""
        return map(self.condition.of_block, self.source.blocks(self._with_own(columns)))

    def in_blocks(self, rows: int) -> Self:
        """The same rows of smaller blocks."""
        other = copy(self)
        other.source = self.source.in_blocks(rows)
        return other

    def map_blocks(self, function: Callable[[RowBlock], T], columns: Sequence[str] | None = None) -> Iterator[T]:
        """What a function makes of each block that was cut where it is."""
        return self.source.map_blocks(_OfChosen(self.condition, function), self._with_own(columns))

    def reduce_blocks(
        self, function: Callable[[RowBlock], T], merge: Callable[[T, T], T], columns: Sequence[str] | None = None
    ) -> T | None:
        """The same, merged as the source does."""
        return self.source.reduce_blocks(_OfChosen(self.condition, function), merge, self._with_own(columns))

    def hold(self, what: TablesOfBlocks[T]) -> tuple[HeldTables, T] | None:
        """Tables of the rows, where these are."""
        columns = self._with_own(what.columns) or ()
        return self.source.hold(replace(what, function=_OfChosen(self.condition, what.function), columns=columns))

    def lazily(self, made: MadeColumns) -> Any:
        """In the kind of the source."""
        return self.source.lazily(replace(made, where=self.condition))

    def count(self) -> int | None:
        """By a pass over the columns of the condition."""
        found = self.source.reduce_blocks(_Count(self.condition), _merged, self.condition.columns)
        return 0 if found is None else found.kept

    def whole(self) -> Frame:
        """All of them in memory."""
        frame = read_frame(self.source.whole())
        return frame.take(self.condition(frame))

    def fingerprint(self) -> Hashable:
        """Of the source."""
        return self.source.fingerprint()

    def _with_own(self, columns: Sequence[str] | None) -> Sequence[str] | None:
        return None if columns is None else tuple(dict.fromkeys([*columns, *self.condition.columns]))


@dataclass(frozen=True)
class _OfChosen(Generic[T]):
    """A function of blocks as one of blocks that are to be cut."""

    condition: Condition
    function: Callable[[RowBlock], T]

    def __call__(self, block: RowBlock) -> T:
        return self.function(self.condition.of_block(block))


@dataclass(frozen=True)
class _Found:
    """Rows in which a condition is true, and what kinds of columns it met.

    Attributes
    ----------
    n_rows, kept : int
    columns : dict of str to Column
        With all levels, and no rows.
    """

    n_rows: int
    kept: int
    columns: Mapping[str, Column]

    def state(self, condition: Condition) -> dict[str, Any]:
        """What the condition learns: that the levels which it names occur.

        Raises
        ------
        FormulaError
            A level that no row has.
        """
        state: dict[str, Any] = {}
        evaluate(condition.node, self.columns.__getitem__, state, formula=condition.text)
        return state


@dataclass(frozen=True)
class _Count:
    """Counts the rows of a block."""

    condition: Condition

    def __call__(self, block: RowBlock) -> _Found:
        frame, condition = block.frame, self.condition
        columns = {name: frame.column(name) for name in condition.columns}
        kept = int(np.count_nonzero(replace(condition, state=_AnyLevel())(frame))) if frame.n_rows else 0
        return _Found(frame.n_rows, kept, {name: _levels_only(column) for name, column in columns.items()})


class _AnyLevel(dict[str, Any]):
    """Says that the levels a condition names occur somewhere, though a block may lack them."""

    def __contains__(self, key: object) -> bool:
        return True


def _levels_only(column: Column) -> Column:
    return column.take(np.zeros(0, dtype=np.intp))


def _merged(first: _Found, second: _Found) -> _Found:
    if not first.n_rows or not second.n_rows:
        # A part without rows may have types of its own.
        return first if first.n_rows else second
    columns = {}
    for name, column in first.columns.items():
        other = second.columns[name]
        if column.kind != other.kind:
            raise DataError(
                f"column {name!r} is {column.kind} in some blocks of the source and {other.kind} in others; convert it "
                "to one type."
            )
        columns[name] = concatenate([column, other])
    return _Found(first.n_rows + second.n_rows, first.kept + second.kept, columns)


def _split(condition: Condition, types: Mapping[str, ColumnType]) -> tuple[list[ColumnTest], Condition | None]:
    """What a source can compare itself, and a condition of what is left; None where nothing is."""
    tests: list[ColumnTest] = []
    rest: list[Node] = []
    for part in _conjuncts(condition.node):
        test = _comparison(part, types)
        if test is None:
            rest.append(part)
        else:
            tests.append(test)
    if not rest:
        return tests, None
    node = rest[0]
    for part in rest[1:]:
        node = Binary("&", node, part)
    return tests, replace(condition, node=node, columns=names_in(node, condition.columns))


def _conjuncts(node: Node) -> list[Node]:
    if isinstance(node, Paren):
        return _conjuncts(node.inner)
    if isinstance(node, Binary) and node.operator == "&":
        return [*_conjuncts(node.left), *_conjuncts(node.right)]
    return [node]


def _comparison(node: Node, types: Mapping[str, ColumnType]) -> ColumnTest | None:
    if not isinstance(node, Binary):
        return None
    left, right, operator = node.left, node.right, node.operator
    if isinstance(right, Name) and operator in _MIRROR:
        left, right, operator = right, left, _MIRROR[operator]
    if not isinstance(left, Name) or left.name not in types:
        return None
    values: list[float | str | None] = [_constant(right)]
    if operator == "%in%":
        operator = "=="
        if isinstance(right, Call) and right.function == "c":
            values = [_constant(argument.value) for argument in right.arguments]
    kind = types[left.name]
    wanted = str if kind == "text" else float
    if operator not in _MIRROR or not values or not all(isinstance(value, wanted) for value in values):
        return None
    if kind == "text" and operator not in ("==", "!="):
        return None
    return ColumnTest(left.name, operator, tuple(value for value in values if value is not None), kind)


def _constant(node: Node) -> float | str | None:
    if isinstance(node, Paren):
        return _constant(node.inner)
    if isinstance(node, Unary) and node.operator == "-" and isinstance(node.operand, Number):
        return -node.operand.value
    return node.value if isinstance(node, Number | Text) else None
