"""Tables of numbers that stay where rows are, for functions that are called often."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "FloatArray",
    "HeldTables",
    "MergeTables",
    "ReduceTable",
    "RunTable",
    "TableFunction",
    "TablesOfBlocks",
]

T = TypeVar("T")
FloatArray = NDArray[np.float64]
# From a table and what was kept with it to a value, and what is kept now.
TableFunction: TypeAlias = Callable[[FloatArray, Any], tuple[T, Any]]


class HeldTables(ABC):
    """Parts of a table, each on the machine that has it.

    Attributes
    ----------
    n_parts : int
    """

    n_parts: int

    @abstractmethod
    def table(self, number: int) -> FloatArray:
        """A part, brought here."""

    @abstractmethod
    def map(self, function: TableFunction[T], without: Iterable[int] = ()) -> dict[int, T]:
        """What a function makes of each part that has rows, by number; what it keeps stays with the part.

        Parameters
        ----------
        function : callable
            It can be pickled. What it kept may be lost, and is then None.
        without : iterable of int
            Parts that are left out.
        """

    @abstractmethod
    def reduce(self, function: Callable[[FloatArray], T], merge: Callable[[T, T], T]) -> T | None:
        """What a function makes of all parts together, merged where they are; None of no rows.

        Parameters
        ----------
        function : callable
            It can be pickled, and keeps nothing.
        merge : callable
            Joins two of its values, in any order and grouping, and changes neither; it can be pickled.
        """

    @abstractmethod
    def with_columns(self, function: Callable[[FloatArray], FloatArray], width: int) -> HeldTables:
        """The same tables with further columns, in the place of these, which are given back.

        Parameters
        ----------
        function : callable
            From a table to its further columns, (n, width); it can be pickled.
        width : int
        """

    @abstractmethod
    def release(self) -> None:
        """Give back what is held, and stop what still runs."""


@dataclass(frozen=True)
class TablesOfBlocks(Generic[T]):
    """Tables that are made of blocks.

    Attributes
    ----------
    function : callable
        From a `lme4py.data.sources.base.RowBlock` to a table, (n, width), and something beside it; it can be pickled.
    merge : callable
        Joins what is beside them.
    columns : sequence of str
        That the function needs.
    width : int
        Columns of the table.
    key : int or None
        The column of which equal whole numbers come together; without one the rows stay in the partition they are in.
    n_parts : int
        At least, where partitions are made anew; more where that keeps all workers busy.
    """

    function: Callable[[Any], tuple[FloatArray, T]]
    merge: Callable[[T, T], T]
    columns: Sequence[str]
    width: int
    key: int | None
    n_parts: int


@dataclass(frozen=True)
class RunTable(Generic[T]):
    """A function of tables that has nothing to say of one without rows."""

    function: TableFunction[T]

    def __call__(self, table: FloatArray, kept: Any) -> tuple[T | None, Any]:
        return self.function(table, kept) if table.shape[0] else (None, None)


@dataclass(frozen=True)
class ReduceTable(Generic[T]):
    """The same of a function that keeps nothing."""

    function: Callable[[FloatArray], T]

    def __call__(self, table: FloatArray) -> T | None:
        return self.function(table) if table.shape[0] else None


@dataclass(frozen=True)
class MergeTables(Generic[T]):
    """Merges two values of which either may be missing."""

    merge: Callable[[T, T], T]

    def __call__(self, first: T | None, second: T | None) -> T | None:
        if first is None or second is None:
            return second if first is None else first
        return self.merge(first, second)
