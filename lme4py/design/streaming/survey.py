"""The first pass over rows in blocks: what a plan needs to know of all of them.

A plan depends on the rows through the levels that occur, and through what functions such as poly() and scale() learn.
So the survey keeps rows that stand for all: the first one of every level, and of every combination of levels that a
grouping factor or a function of columns makes. The columns inside functions that learn are kept whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lme4py.chunks import chunk, from_size
from lme4py.data.column import Column
from lme4py.data.concatenate import concatenate
from lme4py.data.frame import Frame, missing_rows
from lme4py.data.sources.base import RowBlock
from lme4py.design.beside.given import column_getter
from lme4py.errors import DataError
from lme4py.formula.deparse import deparse
from lme4py.formula.evaluate import evaluate
from lme4py.formula.nodes import Name, Node

__all__ = ["Survey", "SurveyPlan", "Tally", "used_rows"]

IntArray = NDArray[np.intp]
BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]

# Of each block this many rows are kept beside, evenly spaced: they tell about how large numbers are.
_SAMPLE = chunk(1000)
# Whole numbers in a range up to this length are looked up in a table.
_TABLE = from_size(2**26)
# Combinations of values that are kept at most.
_MOST = 20_000_000


@dataclass(frozen=True)
class SurveyPlan:
    """What is asked of the rows.

    Attributes
    ----------
    columns : tuple of str
        All columns of the model.
    keys : tuple of tuple of Node
        Columns and expressions whose combinations must all be found.
    learnt : tuple of str
        Columns inside functions that learn from all values.
    formula : str
        For messages.
    """

    columns: tuple[str, ...]
    keys: tuple[tuple[Node, ...], ...] = ()
    learnt: tuple[str, ...] = ()
    formula: str = ""


@dataclass
class Tally:
    """Counts and sums by which two passes over the same rows are compared.

    Attributes
    ----------
    n_rows, n_obs, n_blocks : int
        Rows, complete rows, and blocks that had rows.
    sums : dict of str to float
        Of the numeric columns on complete rows.
    squares : dict of str to float
        The same of squares.
    """

    n_rows: int = 0
    n_obs: int = 0
    n_blocks: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    squares: dict[str, float] = field(default_factory=dict)

    def add(self, n_rows: int, columns: Iterable[Column], n_obs: int) -> None:
        """Count a block whose complete rows have these columns."""
        self.n_rows += n_rows
        self.n_obs += n_obs
        self.n_blocks += n_rows > 0
        for column in columns:
            if not column.is_factor:
                self._sum(column.name, float(column.values.sum()), float(column.values @ column.values))

    def add_cells(self, columns: Iterable[Column], cells: CellRows) -> None:
        """Count the rows that the complete cells of a block stand for."""
        self.n_rows += cells.n_rows
        self.n_obs += int(cells.counts.sum())
        self.n_blocks += cells.n_blocks
        for column in columns:
            if not column.is_factor:
                squares = float(cells.counts @ column.values**2)
                squares += float(cells.within.sum()) if column.name == cells.response else 0.0
                self._sum(column.name, float(cells.counts @ column.values), squares)

    def merge(self, other: Tally) -> None:
        """Count the blocks of another tally too."""
        self.n_rows += other.n_rows
        self.n_obs += other.n_obs
        self.n_blocks += other.n_blocks
        for name, total in other.sums.items():
            self._sum(name, total, other.squares[name])

    def _sum(self, name: str, total: float, squares: float) -> None:
        self.sums[name] = self.sums.get(name, 0.0) + total
        self.squares[name] = self.squares.get(name, 0.0) + squares

    def refuse_other(self, now: Tally) -> None:
        """Raise where another pass found other rows."""
        same = (self.n_rows, self.n_obs) == (now.n_rows, now.n_obs)
        # Blocks can come in another order, which changes the rounding of a sum.
        same = same and all(
            abs(now.sums.get(name, np.nan) - total) <= 1e-9 * np.sqrt(self.n_obs * self.squares[name])
            for name, total in self.sums.items()
        )
        if not same:
            raise DataError(
                f"the source changed while it was read: one pass found {self.n_rows} rows ({self.n_obs} complete), "
                f"a later one {now.n_rows} ({now.n_obs} complete) or other values. Fit the model when nothing "
                "writes to it."
            )


@dataclass(frozen=True)
class CellRows:
    """What the complete cells of a block stand for.

    Attributes
    ----------
    counts, within : ndarray, shape (n,)
        Rows of each cell, and the sum of squares of the response in it.
    n_rows, n_blocks : int
        Of all cells.
    response : str
    """

    counts: FloatArray
    within: FloatArray
    n_rows: int
    n_blocks: int
    response: str

    @classmethod
    def of(cls, block: RowBlock, keep: BoolArray) -> CellRows | None:
        """Those of a block; None where its rows are rows."""
        found = block.cells
        if found is None or found.within is None:
            return None
        return cls(found.counts[keep], found.within[keep], found.n_rows, found.n_blocks, found.response)


def used_rows(block: RowBlock, names: Sequence[str]) -> tuple[dict[str, Column], BoolArray]:
    """Columns of a block on the rows that are complete in all of them, and which rows those are."""
    frame = block.frame
    columns = {name: frame.column(name) for name in names}
    keep = ~missing_rows(columns.values(), frame.n_rows)
    if not keep.all():
        columns = {name: column.take(keep) for name, column in columns.items()}
    return columns, keep


class Survey:
    """Rows that stand for all rows.

    Parameters
    ----------
    plan : SurveyPlan
    """

    def __init__(self, plan: SurveyPlan) -> None:
        self.plan = plan
        self.tally = Tally()
        self.missing = dict.fromkeys(plan.columns, 0)
        self.rows: list[dict[str, Column]] = []
        self.sample: list[dict[str, Column]] = []
        self.learnt: list[dict[str, Column]] = []
        self.used: list[BoolArray] = []
        self._kinds: dict[str, str] = {}
        self._seen: dict[tuple[Node, ...], _Seen] = {}

    def add(self, block: RowBlock) -> None:
        """Take in a block of rows."""
        if block.frame.n_rows == 0:
            return
        columns, keep = used_rows(block, self.plan.columns)
        self._check_kinds(columns, block.where)
        for name in self.plan.columns:
            self.missing[name] += 0 if keep.all() else _rows_where(block, block.frame.column(name).missing())
        n = int(np.count_nonzero(keep))
        cells = CellRows.of(block, keep)
        if cells is None:
            self.tally.add(block.frame.n_rows, columns.values(), n)
        else:
            self.tally.add_cells(columns.values(), cells)
        if self.plan.learnt:
            # Rows that the fit leaves out count too, as in R.
            self.learnt.append({name: block.frame.column(name).own() for name in self.plan.learnt})
            self.used.append(keep)
        if n:
            self._keep(columns, n)

    def _check_kinds(self, columns: dict[str, Column], where: str) -> None:
        for name, column in columns.items():
            known = self._kinds.setdefault(name, column.kind)
            if known != column.kind:
                raise DataError(
                    f"column {name!r} is {known} in some blocks of the source and {column.kind} in others"
                    f"{f' ({where})' * bool(where)}; convert it to one type."
                )

    def _keep(self, columns: dict[str, Column], n: int) -> None:
        self._keep_new(columns)
        spaced = np.unique(np.linspace(0, n - 1, min(n, _SAMPLE)).astype(np.intp))
        self.sample.append({name: column.take(spaced) for name, column in columns.items()})

    def _keep_new(self, columns: dict[str, Column]) -> None:
        """Keep the first row of each combination that is new."""
        new = [np.zeros(0, dtype=np.intp)]
        get = column_getter(columns)
        for key in self._keys(columns):
            parts = [_value(node, columns, get, self.plan.formula) for node in key]
            seen = self._seen.setdefault(key, _Seen())
            new.append(seen.new_rows(parts))
            if seen.numbers > _MOST:
                text = ":".join(deparse(node) for node in key)
                raise DataError(
                    f"{text} has more than {_MOST} distinct values, which are all kept while rows are streamed; make "
                    "this column in the source, or fit in memory with control={'rows': 'memory'}."
                )
        rows = _union(new)
        if rows.size:
            self.rows.append({name: column.take(rows) for name, column in columns.items()})

    def _keys(self, columns: dict[str, Column]) -> list[tuple[Node, ...]]:
        """What is collected: the keys of the plan, and every factor."""
        alone: list[tuple[Node, ...]] = [(Name(name, True),) for name, column in columns.items() if column.is_factor]
        return list(dict.fromkeys([*alone, *self.plan.keys]))

    def merge(self, other: Survey) -> None:
        """Take in what another survey found in other rows."""
        self.tally.merge(other.tally)
        for name, count in other.missing.items():
            self.missing[name] += count
        self.learnt += other.learnt
        self.used += other.used
        self.sample += other.sample
        for columns in other.rows:
            self._check_kinds(columns, "")
            self._keep_new(columns)

    def witness(self) -> tuple[Frame, int]:
        """The rows that stand for all, and the number of evenly spaced ones, which come last."""
        parts = [*self.rows, *self.sample]
        n = sum(next(iter(columns.values())).values.size for columns in self.sample)
        return _frame(parts, self.plan.columns), n

    def all_of_learnt(self) -> Frame:
        """The columns inside functions that learn, on all rows."""
        return _frame(self.learnt, self.plan.learnt)

    def used_of_learnt(self) -> Frame:
        """The same on the complete rows."""
        return self.all_of_learnt().take(np.concatenate(self.used))


def _rows_where(block: RowBlock, chosen: BoolArray) -> int:
    """How many rows some rows of a block stand for."""
    return int(np.count_nonzero(chosen) if block.cells is None else block.cells.counts[chosen].sum())


def _union(parts: Sequence[IntArray]) -> IntArray:
    """Ascending positions without repetition."""
    filled = [part for part in parts if part.size]
    if len(filled) < 2:
        return np.sort(filled[0]) if filled else parts[0]
    chosen = np.zeros(max(int(part.max()) for part in filled) + 1, dtype=bool)
    for part in filled:
        chosen[part] = True
    return np.flatnonzero(chosen)


def _value(node: Node, columns: dict[str, Column], get: Callable[[str], Column], formula: str) -> Column:
    """A key on the rows of a block."""
    if isinstance(node, Name):
        return columns[node.name]
    value = evaluate(node, get, {}, formula=formula)
    if value.kind == "matrix":
        raise DataError(f"{deparse(node)} has several columns; group by one.")
    return Column(deparse(node), "factor" if value.is_factor else "numeric", value.values, value.levels)


def _frame(parts: Sequence[dict[str, Column]], names: Sequence[str]) -> Frame:
    columns = {name: concatenate([part[name] for part in parts]) for name in names}
    n = next(iter(columns.values())).values.size if columns else 0
    return Frame(tuple(names), n, lambda i: columns[names[i]])


class _Seen:
    """Which values, or combinations of values, have occurred; each has a number."""

    def __init__(self) -> None:
        self.parts: list[_Numbers | _Levels] = []
        self.pairs: list[_Numbers] = []

    @property
    def numbers(self) -> int:
        """How many combinations there are."""
        last = self.pairs[-1] if self.pairs else self.parts[0]
        return last.count

    def new_rows(self, columns: Sequence[Column]) -> IntArray:
        """The first row of each combination that did not occur before."""
        if not self.parts:
            self.parts = [_Levels() if column.is_factor else _Numbers() for column in columns]
            self.pairs = [_Numbers() for _ in columns[1:]]
        numbers, new = self.parts[0].look_up(columns[0])
        for column, part, pair in zip(columns[1:], self.parts[1:], self.pairs, strict=True):
            own, _ = part.look_up(column)
            numbers, new = pair.look_up_values(numbers.astype(np.int64) * 2**31 + own)
        return new


class _Levels:
    """Levels that have occurred."""

    def __init__(self) -> None:
        self.known: dict[Any, int] = {}

    @property
    def count(self) -> int:
        """How many levels there are."""
        return len(self.known)

    def look_up(self, column: Column) -> tuple[IntArray, IntArray]:
        """The number of each row, and the first row of each new level."""
        codes = column.values
        first = np.full(len(column.levels), -1, dtype=np.intp)
        first[codes[::-1]] = np.arange(codes.size - 1, -1, -1)
        table = np.full(len(column.levels), -1, dtype=np.intp)
        new = []
        for code in np.flatnonzero(first >= 0).tolist():
            before = len(self.known)
            table[code] = self.known.setdefault(column.levels[code], before)
            if len(self.known) > before:
                new.append(first[code])
        return table[codes], np.array(new, dtype=np.intp)


class _Numbers:
    """Numbers that have occurred: in a table where they are whole and lie close together, else in a hash table."""

    def __init__(self) -> None:
        self.count = 0
        self.low, self.high = 0, -1
        self.table: NDArray[Any] | None = np.zeros(0, dtype=np.int32)
        self.index: Any = None

    def look_up(self, column: Column) -> tuple[IntArray, IntArray]:
        """The number of each row, and the first row of each new value."""
        return self.look_up_values(column.values)

    def look_up_values(self, values: NDArray[Any]) -> tuple[IntArray, IntArray]:
        """The same for an array of numbers."""
        if self.table is not None and not self._fits(values):
            self._to_hash(values.dtype)
        return self._in_hash(values) if self.table is None else self._in_table(values)

    def _fits(self, values: NDArray[Any]) -> bool:
        """Whether a table can hold these numbers too; it is made longer where needed."""
        assert self.table is not None
        low, high = float(values.min()), float(values.max())
        if self.table.size:
            low, high = min(low, self.low), max(high, self.high)
        if not (np.isfinite(high - low) and high - low < _TABLE and max(abs(low), abs(high)) < 2**52):
            return False
        if values.dtype.kind == "f" and not np.array_equal(values, np.floor(values)):
            return False
        self._stretch(int(low), int(high))
        return True

    def _stretch(self, low: int, high: int) -> None:
        assert self.table is not None
        if self.table.size and low == self.low and high - low < self.table.size:
            self.high = high
            return
        table = np.full(max(high - low + 1, min(2 * self.table.size, _TABLE)), -1, dtype=np.int32)
        if self.table.size:
            place = self.low - low
            used = self.high - self.low + 1
            table[place : place + used] = self.table[:used]
        self.table, self.low, self.high = table, low, high

    def _in_table(self, values: NDArray[Any]) -> tuple[IntArray, IntArray]:
        assert self.table is not None
        places = (values - self.low).astype(np.int32)
        found = self.table[places]
        unknown = np.flatnonzero(found < 0)
        if not unknown.size:
            return found, unknown
        # The last assignment counts, so rows go backwards.
        self.table[places[unknown[::-1]]] = unknown[::-1]
        new: IntArray = unknown[self.table[places[unknown]] == unknown]
        self.table[places[new]] = np.arange(self.count, self.count + new.size)
        self.count += new.size
        return self.table[places], new

    def _to_hash(self, dtype: np.dtype[Any]) -> None:
        import pandas as pd

        assert self.table is not None
        places = np.flatnonzero(self.table >= 0)
        order = np.argsort(self.table[places])
        self.index = pd.Index((places[order] + self.low).astype(np.float64 if dtype.kind == "f" else np.int64))
        self.table = None

    def _in_hash(self, values: NDArray[Any]) -> tuple[IntArray, IntArray]:
        import pandas as pd

        codes, distinct = pd.factorize(values)
        numbers = self.index.get_indexer(distinct)
        unknown = np.flatnonzero(numbers < 0)
        if unknown.size:
            numbers[unknown] = np.arange(self.count, self.count + unknown.size)
            self.count += unknown.size
            self.index = self.index.append(pd.Index(np.asarray(distinct)[unknown]))
        first = np.full(len(distinct), -1, dtype=np.intp)
        first[codes[::-1]] = np.arange(codes.size - 1, -1, -1)
        return numbers[codes], first[unknown]
