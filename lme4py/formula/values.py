"""What an expression of a formula evaluates to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lme4py.errors import DataError

__all__ = ["Value", "ValueKind", "check_finite", "response_values"]

FloatArray = NDArray[np.float64]
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


def check_finite(columns: FloatArray, names: Sequence[str], what: str) -> None:
    """Refuse infinite values and results that are not numbers; `what` has a place for the column's {name}."""
    with np.errstate(over="ignore", invalid="ignore"):
        # An infinite or undefined entry survives in the sum; a finite matrix is done after this one pass.
        if np.isfinite(columns.sum()):
            return
    for j, name in enumerate(names):
        column = columns if columns.ndim == 1 else columns[:, j]
        infinite = int(np.isinf(column).sum())
        undefined = int(np.isnan(column).sum())
        if infinite or undefined:
            counts = [f"{infinite} infinite value(s)"] * bool(infinite)
            counts += [f"{undefined} value(s) that are not a number"] * bool(undefined)
            raise DataError(
                f"{what.format(name=repr(name))} has {' and '.join(counts)}; correct the data, or remove "
                "these rows, or set them to missing"
            )


def response_values(value: Value, name: str) -> FloatArray:
    """The response as numbers: shape (n,), or (n, 2) for ``cbind(successes, failures)``."""
    if value.is_factor:
        raise DataError(
            f"the response '{name}' is not numeric: it is text or a factor with {len(value.levels)} levels "
            f"({', '.join(map(repr, value.levels[:5]))}{', ...' * (len(value.levels) > 5)}); use a numeric "
            "column, or make one, for example with ifelse()"
        )
    y: FloatArray = np.ascontiguousarray(value.values, dtype=np.float64)
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim == 2 and (y.shape[1] != 2 or not name.startswith("cbind(")):
        raise DataError(f"the response '{name}' has {y.shape[1]} columns; give one, or cbind(successes, failures)")
    check_finite(y, [name] if y.ndim == 1 else [name, name], "the response {name}")
    return y
