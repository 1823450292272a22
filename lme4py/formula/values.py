"""What an expression of a formula evaluates to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from numpy.typing import NDArray

ValueKind = Literal["numeric", "boolean", "factor", "ordered", "matrix", "label"]


@dataclass(frozen=True, slots=True)
class Value:
    """The value of one variable of a formula on all rows.

    Attributes
    ----------
    kind : str
        "numeric" and "boolean": float64 of shape (n,); "factor" and "ordered": integer codes of shape (n,), -1 where
        missing; "label": such codes of values that can name groups and nothing else; "matrix": float64 of shape
        (n, k), from poly(), bs(), ns(), cbind(), scale() of a matrix.
    values : ndarray
    levels : tuple
        Levels of a factor, as the user's objects.
    suffixes : tuple of str
        For a matrix the k endings of the column names: ``("[1]", "[2]")``.
    contrasts : str, ndarray or None
        Contrasts asked for in the formula by ``C(x, contr.sum)``.
    refusal : str
        Of a "label": what to say where it is used for anything else.
    """

    kind: ValueKind
    values: NDArray[Any]
    levels: tuple[Any, ...] = ()
    suffixes: tuple[str, ...] = ()
    contrasts: str | NDArray[Any] | None = None
    refusal: str = ""

    @property
    def is_factor(self) -> bool:
        return self.kind in ("factor", "ordered", "label")
