"""One column of data, in the form that the rest of the package works with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["numeric", "boolean", "factor", "ordered", "text"]


@dataclass(frozen=True, slots=True)
class Column:
    """A column as numbers, or as codes into levels.

    Attributes
    ----------
    name : str
    kind : str
        "numeric", "boolean", "factor", "ordered" (a factor whose order means something) or "text"
        (strings: a factor whose levels are the sorted distinct values).
    values : ndarray, shape (n,)
        numeric and boolean: float64, NaN where missing; otherwise int32 codes, -1 where missing.
    levels : tuple
        Levels of a factor, ordered or text column, in order, as the user's own objects; () for numbers.
    declared : bool
        Whether the user listed the levels of a "factor" in their order (a polars Enum).
    """

    name: str
    kind: Kind
    values: NDArray[Any]
    levels: tuple[Any, ...] = ()
    declared: bool = False

    @property
    def is_factor(self) -> bool:
        """True for factor, ordered and text columns (codes), False for numbers."""
        return self.kind in ("factor", "ordered", "text")

    def missing(self) -> NDArray[np.bool_]:
        """Boolean mask of missing cells, shape (n,)."""
        if self.is_factor:
            return self.values < 0
        missing: NDArray[np.bool_] = np.isnan(self.values)
        return missing

    def take(self, rows: NDArray[Any]) -> Column:
        """The same column at `rows` (a boolean mask or positions); levels are kept."""
        return Column(self.name, self.kind, self.values[rows], self.levels, self.declared)
