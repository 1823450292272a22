"""Tables of numbers that stay where rows are, some whole groups in each, for functions that are called often."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["FloatArray", "HeldTables", "RunTable", "TableFunction", "TablesOfBlocks"]

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
    def release(self) -> None:
        """Give back what is held, and stop what still runs."""


@dataclass(frozen=True)
class TablesOfBlocks(Generic[T]):
    """Tables that are made of blocks, equal whole numbers of one column together.

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
    key : int
        Which of them.
    n_parts : int
        At least; more where that keeps all workers busy.
    """

    function: Callable[[Any], tuple[FloatArray, T]]
    merge: Callable[[T, T], T]
    columns: Sequence[str]
    width: int
    key: int
    n_parts: int


@dataclass(frozen=True)
class RunTable(Generic[T]):
    """A function of tables that has nothing to say of one without rows."""

    function: TableFunction[T]

    def __call__(self, table: FloatArray, kept: Any) -> tuple[T | None, Any]:
        return self.function(table, kept) if table.shape[0] else (None, None)
