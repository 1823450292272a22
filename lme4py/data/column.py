"""One column of data, in the form that the rest of the package works with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["numeric", "boolean", "factor", "ordered", "text", "label"]


@dataclass(frozen=True, slots=True)
class Column:
    """A column as numbers, or as codes into levels.

    Attributes
    ----------
    name : str
    kind : str
        "numeric", "boolean", "factor", "ordered" (a factor whose order means something), "text" (strings: a factor
        whose levels are the sorted distinct values) or "label" (dates, identifiers and the like, which can name groups
        and nothing else).
    values : ndarray, shape (n,)
        numeric and boolean: float64, NaN where missing; otherwise int32 codes, -1 where missing.
    levels : tuple
        Levels of a factor, ordered, text or label column, in order, as the user's own objects; () for numbers.
    declared : bool
        Whether the user listed the levels of a "factor" in their order (a polars Enum).
    refusal : str
        Of a "label" column: what is wrong with it where it is not a grouping factor, and what to do.
    fresh : bool
        Whether the values were certainly made here: no change of the user's data reaches them.
    """

    name: str
    kind: Kind
    values: NDArray[Any]
    levels: tuple[Any, ...] = ()
    declared: bool = False
    refusal: str = ""
    fresh: bool = False

    @property
    def is_factor(self) -> bool:
        """True for factor, ordered, text and label columns (codes), False for numbers."""
        return self.kind in ("factor", "ordered", "text", "label")

    def missing(self) -> NDArray[np.bool_]:
        """Boolean mask of missing cells, shape (n,)."""
        if self.is_factor:
            return self.values < 0
        missing: NDArray[np.bool_] = np.isnan(self.values)
        return missing

    def take(self, rows: NDArray[Any]) -> Column:
        """The same column at `rows` (a boolean mask or positions); levels are kept."""
        return replace(self, values=self.values[rows], fresh=False)

    def own(self) -> Column:
        """The same column with values of its own, which no change of the user's data reaches."""
        if self.fresh:
            return self
        return Column(self.name, self.kind, self.values.copy(), self.levels, self.declared, self.refusal, fresh=True)
