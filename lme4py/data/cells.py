"""Rows that are equal in all columns of a model, as one cell with the number of them."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lme4py.chunks import from_size
from lme4py.data.column import Column
from lme4py.data.concatenate import concatenate
from lme4py.data.frame import Frame, read_frame
from lme4py.data.sources.base import RowBlock, RowSource
from lme4py.errors import DataError

__all__ = ["COUNT", "Cells", "find_cells"]

COUNT = "(rows of the cell)"
"""Name of the column that holds how many rows a cell stands for."""

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
    """

    columns: Mapping[str, Column]
    counts: NDArray[np.float64]
    n_blocks: int = 1

    @property
    def n_rows(self) -> int:
        """Number of rows of all cells."""
        return int(self.counts.sum())

    @property
    def frame(self) -> Frame:
        """The cells as data, with the column `COUNT`."""
        columns = {**self.columns, COUNT: Column(COUNT, "numeric", self.counts)}
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
        return _distinct(columns, np.concatenate([self.counts, other.counts]), self.n_blocks + other.n_blocks)


def find_cells(source: RowSource, columns: Sequence[str], insist: bool = False) -> Cells | None:
    """The distinct rows of a source; None where these are hardly fewer than the rows.

    Parameters
    ----------
    source : RowSource
    columns : sequence of str
    insist : bool
        Find them however many there are.
    """
    one = _CellsOfBlock(tuple(columns))
    if source.travels:
        found = source.reduce_blocks(one, _merged, columns)
        return _checked(found, insist)
    with closing(_filled(source, columns)) as blocks:
        first = next(map(one, blocks), None)
    if first is None or not (insist or first.n_rows < _FEW or _few(first)):
        return None
    table = source.distinct(columns, COUNT)
    if table is not None:
        return _checked(_of_table(table, columns), insist)
    total: Cells | None = None
    for own in map(one, _filled(source, columns)):
        total = own if total is None else total.merge(own)
        if not insist and total.n_rows >= _FEW and not _few(total):
            return None
    return _checked(total, insist)


def _filled(source: RowSource, columns: Sequence[str]) -> Generator[RowBlock, None, None]:
    """The blocks that have rows."""
    for block in source.blocks(columns):
        if block.frame.n_rows:
            yield block


def _checked(cells: Cells | None, insist: bool) -> Cells | None:
    return cells if cells is None or insist or _few(cells) else None


def _of_table(table: Any, columns: Sequence[str]) -> Cells:
    frame = read_frame(table)
    return Cells({name: frame.column(name) for name in columns}, frame.column(COUNT).values)


def _few(cells: Cells) -> bool:
    return cells.counts.size <= _PART * cells.n_rows


def _merged(first: Cells, second: Cells) -> Cells:
    return first.merge(second)


@dataclass(frozen=True)
class _CellsOfBlock:
    """The cells of one block, where the block is."""

    names: tuple[str, ...]

    def __call__(self, block: RowBlock) -> Cells:
        columns = {name: block.frame.column(name) for name in self.names}
        return _distinct(columns, np.ones(block.frame.n_rows), int(block.frame.n_rows > 0))


def _distinct(columns: Mapping[str, Column], counts: NDArray[np.float64], n_blocks: int) -> Cells:
    import pandas as pd

    place = np.zeros(counts.size, dtype=np.int64)
    for column in columns.values():
        own = column.values if column.is_factor else pd.factorize(column.values, use_na_sentinel=True)[0]
        # One more than there are, for missing cells (-1). Renumbered each time, so that products stay small.
        place = place * (int(own.max(initial=-1)) + 2) + own + 1
        place = pd.factorize(place)[0]
    first = np.full(int(place.max(initial=-1)) + 1, -1, dtype=np.intp)
    first[place[::-1]] = np.arange(place.size - 1, -1, -1)
    sums = np.bincount(place, weights=counts, minlength=first.size)
    return Cells({name: column.take(first) for name, column in columns.items()}, sums.astype(np.float64), n_blocks)
