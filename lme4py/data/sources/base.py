"""Where rows live: anything that gives its rows in blocks, as often as it is asked.

A linear mixed model needs its rows only in sums, so they never have to be in memory together. A new kind of source is
one module here with a class that has `place`, `schema` and `blocks`; where rows live on other machines, `map_blocks`
sends the function to them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any, Protocol, Self, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from lme4py.chunks import chunk
from lme4py.data.column import Column
from lme4py.data.concatenate import concatenate
from lme4py.data.frame import Frame
from lme4py.data.sources.column_test import ColumnTest, ColumnType
from lme4py.data.sources.held import FloatArray, HeldTables, TablesOfBlocks
from lme4py.errors import DataError, OptionError

__all__ = ["MadeColumns", "RowBlock", "RowSource", "RowsWhere", "Schema"]

T = TypeVar("T")
# Which rows of a frame are wanted, shape (n,).
RowsWhere: TypeAlias = Callable[[Frame], NDArray[np.bool_]]


class CountedRows(Protocol):
    """Rows that stand for several, see `lme4py.data.cells.Cells`."""

    @property
    def counts(self) -> FloatArray: ...

    @property
    def within(self) -> FloatArray | None: ...

    @property
    def n_rows(self) -> int: ...

    @property
    def n_blocks(self) -> int: ...

    @property
    def response(self) -> str: ...


@dataclass(frozen=True)
class RowBlock:
    """Some of the rows of a source.

    Attributes
    ----------
    frame : Frame
        Their columns; only those that were asked for need be there.
    where : str
        What messages call the block, such as the name of a file.
    cells : CountedRows or None
        Where each row stands for several.
    """

    frame: Frame
    where: str = ""
    cells: CountedRows | None = None


@dataclass(frozen=True)
class Schema:
    """What is known of a source before its rows are read.

    Attributes
    ----------
    names : tuple of str
        Of the columns.
    types : dict of str to str
        Of those that `RowSource.where` takes.
    """

    names: tuple[str, ...]
    types: Mapping[str, ColumnType] = field(default_factory=dict)


@dataclass(frozen=True)
class MadeColumns:
    """Columns that are made of rows; all of it can be pickled.

    Attributes
    ----------
    function : callable
        From some rows to columns of numbers.
    names : tuple of str
        Of these columns.
    keep : bool
        The columns of the source come first.
    where : callable, optional
        Of which rows; of all without it.
    """

    function: Callable[[Frame], dict[str, Any]]
    names: tuple[str, ...]
    keep: bool
    where: RowsWhere | None = None


class RowSource(ABC):
    """Rows in blocks.

    Attributes
    ----------
    place : str
        Where the rows are, in words: "3 Parquet files".
    travels : bool
        True where functions are sent to the rows, and only what they return comes here.
    groups : bool
        True where `distinct` is made by a GROUP BY of its own.
    rows_at_once : int
        Of a block, where the source can choose.
    passes : int
        Over the rows, that were made to choose them.
    chosen : (int, Hashable) or None
        How many were chosen then, and the fingerprint before it.
    """

    place: str
    rows_at_once: int = chunk(2**20)
    travels: bool = False
    groups: bool = False
    passes: int = 0
    chosen: tuple[int, Hashable] | None = None

    @abstractmethod
    def schema(self) -> Schema:
        """Names of the columns; no rows are read."""

    @abstractmethod
    def blocks(self, columns: Sequence[str] | None = None) -> Iterable[RowBlock]:
        """All rows in blocks, from the beginning each time.

        Parameters
        ----------
        columns : sequence of str, optional
            Those that are needed; all without it.
        """

    def where(self, tests: Sequence[ColumnTest]) -> RowSource | None:
        """The rows in which all comparisons are true, by the source's own filter.

        Parameters
        ----------
        tests : sequence of ColumnTest
            Of columns in `Schema.types`.

        Returns
        -------
        RowSource, or None where the source has no filter
        """
        return None

    def in_blocks(self, rows: int) -> Self:
        """The same source in smaller blocks.

        Parameters
        ----------
        rows : int
        """
        other = copy(self)
        other.rows_at_once = min(rows, self.rows_at_once)
        return other

    def map_blocks(self, function: Callable[[RowBlock], T], columns: Sequence[str] | None = None) -> Iterator[T]:
        """What a function makes of each block, in any order.

        Parameters
        ----------
        function : callable
            It can be pickled, and keeps nothing between blocks.
        columns : sequence of str, optional
        """
        return (function(block) for block in self.blocks(columns))

    def reduce_blocks(
        self, function: Callable[[RowBlock], T], merge: Callable[[T, T], T], columns: Sequence[str] | None = None
    ) -> T | None:
        """What a function makes of all blocks together; None where there are no blocks.

        Parameters
        ----------
        function : callable
            As in `map_blocks`.
        merge : callable
            Joins two of its values, in any order and grouping; it can be pickled.
        columns : sequence of str, optional
        """
        total: T | None = None
        for part in self.map_blocks(function, columns):
            total = part if total is None else merge(total, part)
        return total

    def hold(self, what: TablesOfBlocks[T]) -> tuple[HeldTables, T] | None:
        """Tables that a function makes of blocks, kept where the rows are.

        Parameters
        ----------
        what : TablesOfBlocks

        Returns
        -------
        (HeldTables, object), or None where rows are not on other machines
        """
        return None

    def distinct(self, columns: Sequence[str], count: str, response: tuple[str, str] | None = None) -> Any:
        """The distinct rows by the source's own GROUP BY, as something that `lme4py.data.frame.read_frame` reads.

        Parameters
        ----------
        columns : sequence of str
        count : str
            Name of a further column, for the number of rows.
        response : (str, str), optional
            One of the columns, which makes no rows distinct but those in which it is missing from others: its mean
            instead, and under the second name its variance, with the number of rows as divisor.

        Returns
        -------
        data frame, or None where the source has no such means
        """
        return None

    def whole(self) -> Any:
        """All rows in memory, as something that `lme4py.data.frame.read_frame` reads."""
        sizes = [block.frame.n_rows for block in self.blocks()]
        names = self.schema().names

        def column(position: int) -> Column:
            own = [names[position]]
            parts = [block.frame.column(own[0]) for block in self.blocks(own) if block.frame.n_rows]
            return concatenate(parts)

        return Frame(names, sum(sizes), column)

    def check_chosen(self, n: int) -> None:
        """Refuse other rows than were chosen.

        Parameters
        ----------
        n : int
            Found by a later pass.
        """
        if self.chosen is not None and self.chosen != (n, self.fingerprint()):
            raise DataError(
                f"the source changed while it was read: {self.chosen[0]} rows were chosen from {self.place}, and a "
                f"later pass found {n}, or other files. Fit the model when nothing writes to it."
            )

    def lazily(self, made: MadeColumns) -> Any:
        """Columns made of the rows, in the source's own kind, where possible without going through them yet.

        Parameters
        ----------
        made : MadeColumns

        Returns
        -------
        pyarrow.RecordBatchReader
            Sources of other kinds give their own.
        """
        import pyarrow as pa

        if made.keep:
            raise OptionError(
                f"rows were streamed from {self.place}, whose columns cannot stand beside new ones; use predict()."
            )
        where = made.where
        frames = (block.frame if where is None else block.frame.take(where(block.frame)) for block in self.blocks())
        blocks = (made.function(frame) for frame in frames if frame.n_rows)
        schema = pa.schema([(name, pa.float64()) for name in made.names])
        return pa.RecordBatchReader.from_batches(schema, (pa.RecordBatch.from_pydict(one, schema) for one in blocks))

    def count(self) -> int | None:
        """Number of rows, where that is cheap to know; else None."""
        return None

    def fingerprint(self) -> Hashable:
        """Something that differs when the rows do; None where nothing is known without reading them."""
        return None
