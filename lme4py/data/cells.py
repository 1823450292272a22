"""Rows that are equal in all columns of a model, as one cell with the number of them.

Where only sums of a response and of its squares are needed, rows are equal that agree in all other columns: the cell
has its mean, and the sum of squares around it.
"""

from __future__ import annotations

from collections.abc import Generator, Hashable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lme4py.chunks import from_size
from lme4py.data.column import Column
from lme4py.data.concatenate import concatenate
from lme4py.data.frame import Frame, read_frame
from lme4py.data.sources.base import RowBlock, RowSource, Schema
from lme4py.errors import DataError

__all__ = ["COUNT", "WITHIN", "CellSource", "Cells", "find_cells"]

COUNT = "(rows of the cell)"
"""Name of the column that holds how many rows a cell stands for."""

WITHIN = "(squares within the cell)"
"""Name of the column with the sum of squares of a response around the mean of its cell."""

# Fewer cells than this part of the rows are worth it.
_PART = 0.5
# Blocks with fewer rows say nothing about the others.
_FEW = from_size(10_000)


@dataclass(frozen=True)
class Cells:
    """Distinct rows.

    Attributes
    ----------
    columns : mapping of str to Column
        Their values, each of shape (number of cells,).
    counts : ndarray, shape (number of cells,)
        Rows of each cell.
    n_blocks : int
    response : str
        The column that holds means; "" for none.
    within : ndarray, shape (number of cells,)
        Sums of squares around these.
    """

    columns: Mapping[str, Column]
    counts: NDArray[np.float64]
    n_blocks: int = 1
    response: str = ""
    within: NDArray[np.float64] | None = None

    @property
    def n_rows(self) -> int:
        """Number of rows of all cells."""
        return int(self.counts.sum())

    @property
    def frame(self) -> Frame:
        """The cells as data, with the column `COUNT`, and `WITHIN` where they hold means."""
        columns = {**self.columns, COUNT: Column(COUNT, "numeric", self.counts)}
        if self.within is not None:
            columns[WITHIN] = Column(WITHIN, "numeric", self.within)
        names = tuple(columns)
        return Frame(names, self.counts.size, lambda i: columns[names[i]])

    def merge(self, other: Cells) -> Cells:
        """The cells of the rows of both.

        Parameters
        ----------
        other : Cells
            With the same columns.
        """
        for name, column in self.columns.items():
            if column.kind != other.columns[name].kind:
                raise DataError(
                    f"column {name!r} is {column.kind} in some blocks of the source and {other.columns[name].kind} in "
                    "others; convert it to one type."
                )
        columns = {name: concatenate([column, other.columns[name]]) for name, column in self.columns.items()}
        counts, n_blocks = np.concatenate([self.counts, other.counts]), self.n_blocks + other.n_blocks
        if self.within is None or other.within is None:
            return _distinct(columns, counts, n_blocks)
        return _distinct(columns, counts, n_blocks, self.response, np.concatenate([self.within, other.within]))


def find_cells(
    source: RowSource, columns: Sequence[str], insist: bool = False, response: str = "", part: float = _PART
) -> Cells | None:
    """The distinct rows of a source; None where these are hardly fewer than the rows.

    Parameters
    ----------
    source : RowSource
    columns : sequence of str
    insist : bool
        Find them however many there are.
    response : str
        One of them, of which only mean and squares are kept; a column of numbers.
    part : float
        More cells than this part of the rows are hardly fewer.
    """
    few = _Few(0.0 if insist else part)
    one = _CellsOfBlock(tuple(columns), few, response)
    if source.travels:
        found = source.reduce_blocks(one, _Merge(few), columns)
        return _checked(found, few, source)
    with closing(_filled(source, columns)) as blocks:
        first = next(map(one, blocks), None)
    if not isinstance(first, Cells):
        return None
    table = source.distinct(columns, COUNT, (response, WITHIN) if response else None)
    if table is not None:
        return _checked(_of_table(table, columns, response), few, source)
    total: Cells | _Many | None = None
    for own in map(one, _filled(source, columns)):
        total = own if total is None else _Merge(few)(total, own)
        if isinstance(total, _Many):
            return None
    return _checked(total, few, source)


def _filled(source: RowSource, columns: Sequence[str]) -> Generator[RowBlock, None, None]:
    """The blocks that have rows."""
    for block in source.blocks(columns):
        if block.frame.n_rows:
            yield block


def _checked(cells: Cells | _Many | None, few: _Few, source: RowSource) -> Cells | None:
    if not isinstance(cells, Cells) or not few(cells, every=True):
        return None
    source.check_chosen(cells.n_rows)
    return cells


def _of_table(table: Any, columns: Sequence[str], response: str) -> Cells:
    frame = read_frame(table)
    counts = frame.column(COUNT).values
    found = {name: frame.column(name) for name in columns}
    if not response:
        return Cells(found, counts)
    # The variance of a cell without a value is missing, and counts for nothing.
    within = np.nan_to_num(frame.column(WITHIN).values.astype(np.float64)) * counts
    return Cells(found, counts, 1, response, within)


@dataclass(frozen=True)
class _Many:
    """Blocks whose rows hardly repeat: nothing of them is kept, or sent."""


@dataclass(frozen=True)
class _Few:
    """Whether cells are few beside their rows: at most this part of them; 0 for any number of cells."""

    part: float

    def __call__(self, cells: Cells, every: bool = False) -> bool:
        if not self.part or (cells.n_rows < _FEW and not every):
            return True
        return cells.counts.size <= self.part * cells.n_rows


@dataclass(frozen=True)
class _Merge:
    """The cells of two parts of the rows, as long as they are few."""

    few: _Few

    def __call__(self, first: Cells | _Many, second: Cells | _Many) -> Cells | _Many:
        if isinstance(first, _Many) or isinstance(second, _Many):
            return _Many()
        found = first.merge(second)
        return found if self.few(found) else _Many()


@dataclass(frozen=True)
class _CellsOfBlock:
    """The cells of one block, where the block is."""

    names: tuple[str, ...]
    few: _Few
    response: str

    def __call__(self, block: RowBlock) -> Cells | _Many:
        columns = {name: block.frame.column(name) for name in self.names}
        n = block.frame.n_rows
        if self.response and columns[self.response].is_factor:
            return _Many()
        within = np.zeros(n) if self.response else None
        found = _distinct(columns, np.ones(n), int(n > 0), self.response, within)
        return found if self.few(found) else _Many()


def _distinct(
    columns: Mapping[str, Column],
    counts: NDArray[np.float64],
    n_blocks: int,
    response: str = "",
    within: NDArray[np.float64] | None = None,
) -> Cells:
    import pandas as pd

    place = np.zeros(counts.size, dtype=np.int64)
    for name, column in columns.items():
        if name == response:
            own = column.missing().astype(np.int64)
        else:
            own = column.values if column.is_factor else pd.factorize(column.values, use_na_sentinel=True)[0]
        # One more than there are, for missing cells (-1). Renumbered each time, so that products stay small.
        place = place * (int(own.max(initial=-1)) + 2) + own + 1
        place = pd.factorize(place)[0]
    first = np.full(int(place.max(initial=-1)) + 1, -1, dtype=np.intp)
    first[place[::-1]] = np.arange(place.size - 1, -1, -1)
    sums = np.bincount(place, weights=counts, minlength=first.size).astype(np.float64)
    own_columns = {name: column.take(first) for name, column in columns.items()}
    if within is None:
        return Cells(own_columns, sums, n_blocks)
    y = columns[response].values
    mean = np.bincount(place, weights=counts * y, minlength=first.size) / sums
    spread = np.bincount(place, weights=within + counts * (y - mean[place]) ** 2, minlength=first.size)
    own_columns[response] = Column(response, "numeric", mean)
    return Cells(own_columns, sums, n_blocks, response, np.nan_to_num(spread))


class CellSource(RowSource):
    """Cells in the place of the rows that they stand for.

    Parameters
    ----------
    cells : Cells
    rows : RowSource
        Where these are.
    """

    def __init__(self, cells: Cells, rows: RowSource) -> None:
        self.cells, self.rows = cells, rows
        self.place = f"{rows.place}, compressed to {cells.counts.size} cells"

    def schema(self) -> Schema:
        """Names of the columns of the rows."""
        return self.rows.schema()

    def blocks(self, columns: Sequence[str] | None = None) -> Iterator[RowBlock]:
        """The cells, all at once, with their counts."""
        yield RowBlock(self.cells.frame, self.place, self.cells)

    def fingerprint(self) -> Hashable:
        """Of the rows."""
        return self.rows.fingerprint()
