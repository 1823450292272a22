"""Derivatives of rows in the parameters beside theta and beta: a log dispersion, or the thresholds of ordinal models.

A family with one log dispersion gives an array with one number per row. An ordinal family gives a `ThresholdPart`:
each row depends on two thresholds only, however many there are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from lme4py.linalg.types import BoolArray, FloatArray, IntArray

__all__ = [
    "DensePart",
    "Nuisance",
    "NuisanceColumns",
    "NuisancePart",
    "StackedColumns",
    "ThresholdPart",
    "as_columns",
    "at_point",
    "change",
    "elements_of",
    "total",
    "totals",
]

# A log dispersion (0 for families without one), or the free parameters of the thresholds, shape (d,).
Nuisance = float | FloatArray


@dataclass(frozen=True, slots=True)
class ThresholdPart:
    """Derivatives of one quantity per row in the two thresholds around the row's category.

    Attributes
    ----------
    upper, lower : ndarray, shape (..., n)
        In the threshold above and in the one below; zero for the last and the first category.
    codes : ndarray of int, shape (n,)
        Category of each row, 0 .. K - 1.
    A : ndarray, shape (K - 1, d)
        Thresholds = A gamma.
    """

    upper: FloatArray
    lower: FloatArray
    codes: IntArray
    A: FloatArray

    def total(self, by: FloatArray | None) -> FloatArray:
        """Sum over all rows (and nodes), each times `by`, shape (d,)."""
        upper, lower = (part if by is None else part * by for part in (self.upper, self.lower))
        if upper.ndim > 1:
            upper, lower = upper.sum(axis=0), lower.sum(axis=0)
        K = self.A.shape[0] + 1
        by_threshold = np.bincount(self.codes, weights=upper, minlength=K)[:-1]
        by_threshold = by_threshold + np.bincount(self.codes, weights=lower, minlength=K)[1:]
        result: FloatArray = by_threshold @ self.A
        return result

    def totals(self, by: FloatArray | None) -> FloatArray:
        """Sum over the rows of each of B points, each times `by`, (B, n); shape (B, d)."""
        upper, lower = (part if by is None else part * by for part in (self.upper, self.lower))
        B, K = upper.shape[0], self.A.shape[0] + 1
        codes = (self.codes + K * np.arange(B)[:, None]).ravel()
        above, below = (np.bincount(codes, part.ravel(), B * K).reshape(B, K) for part in (upper, lower))
        result: FloatArray = (above[:, :-1] + below[:, 1:]) @ self.A
        return result

    def change(self, difference: FloatArray) -> FloatArray:
        """First-order change of each row when gamma moves by `difference`, shape (n,)."""
        step = np.concatenate([[0.0], self.A @ difference, [0.0]])
        moved: FloatArray = self.upper * step[self.codes + 1] + self.lower * step[self.codes]
        return moved

    def columns(self) -> FloatArray:
        """All derivatives in gamma, shape (n, d)."""
        padded = np.vstack([np.zeros((1, self.A.shape[1])), self.A, np.zeros((1, self.A.shape[1]))])
        dense: FloatArray = self.upper[:, None] * padded[self.codes + 1] + self.lower[:, None] * padded[self.codes]
        return dense


@dataclass(frozen=True, slots=True)
class DensePart:
    """Derivatives of one quantity per row in all parameters of the thresholds.

    Attributes
    ----------
    values : ndarray, shape (n, d), or (n, B, d) of B points
    """

    values: FloatArray

    def total(self, by: FloatArray | None) -> FloatArray:
        """Sum over all rows, each times `by`, shape (d,)."""
        summed: FloatArray = self.values.sum(axis=0) if by is None else by @ self.values
        return summed

    def totals(self, by: FloatArray | None) -> FloatArray:
        """Sum over the rows of each of B points, each times `by`, (B, n); shape (B, d)."""
        summed: FloatArray = (self.values if by is None else self.values * by.T[:, :, None]).sum(axis=0)
        return summed

    def change(self, difference: FloatArray) -> FloatArray:
        """First-order change of each row, shape (n,)."""
        moved: FloatArray = self.values @ difference
        return moved

    def columns(self) -> FloatArray:
        """All derivatives, shape (n, d)."""
        return self.values


@dataclass(frozen=True, slots=True)
class NuisanceColumns:
    """Derivatives of one quantity per row in several parameters.

    Attributes
    ----------
    parts : tuple of ndarray, each (..., n)
        One for each parameter, or each linear predictor.
    X : tuple of ndarray (n, p) or None
        Columns of the linear predictors; None for a parameter that all rows share.
    """

    parts: tuple[FloatArray, ...]
    X: tuple[FloatArray | None, ...] = ()

    def _pairs(self) -> list[tuple[FloatArray, FloatArray | None]]:
        return list(zip(self.parts, self.X or (None,) * len(self.parts), strict=True))

    def total(self, by: FloatArray | None, possible: BoolArray | None = None) -> FloatArray:
        """Sum over all rows (and nodes), each times `by`, shape (d,)."""
        sums = []
        for part, X in self._pairs():
            if possible is not None and not possible.all():
                part = np.where(possible, part, 0.0)
            weighted = part if by is None else part * by
            if weighted.ndim > 1:
                weighted = weighted.sum(axis=0)
            sums.append(np.array([weighted.sum()]) if X is None else X.T @ weighted)
        return np.concatenate(sums)

    def totals(self, by: FloatArray | None) -> FloatArray:
        """Sum over the rows of each of B points, each times `by`, (B, n); shape (B, d)."""
        sums = []
        for part, X in self._pairs():
            weighted = part if by is None else part * by
            sums.append(weighted.sum(axis=1)[:, None] if X is None else weighted @ X)
        return np.concatenate(sums, axis=1)

    def change(self, difference: FloatArray) -> FloatArray:
        """First-order change of each row, shape (n,)."""
        moved: FloatArray = np.zeros(self.parts[0].shape)
        start = 0
        for part, X in self._pairs():
            width = 1 if X is None else X.shape[1]
            step = difference[start : start + width]
            moved += part * (step[0] if X is None else X @ step)
            start += width
        return moved

    def columns(self) -> FloatArray:
        """All derivatives, shape (n, d)."""
        return np.hstack([part[:, None] if X is None else part[:, None] * X for part, X in self._pairs()])


@dataclass(frozen=True, slots=True)
class StackedColumns:
    """Derivatives of several quantities per row, one below the other, in several parameters.

    Attributes
    ----------
    parts : tuple of ndarray, each (D, n)
        One for each parameter, or each linear predictor; a row for each quantity.
    X : tuple of ndarray (n, p) or None
        Columns of the linear predictors; None for a parameter that all rows share.
    """

    parts: tuple[FloatArray, ...]
    X: tuple[FloatArray | None, ...]

    def total(self, by: FloatArray | None) -> FloatArray:
        """Sum over all rows and quantities, each times `by`, (D n,), shape (d,)."""
        sums = []
        for part, X in zip(self.parts, self.X, strict=True):
            weighted = (part if by is None else part * by.reshape(part.shape)).sum(axis=0)
            sums.append(np.array([weighted.sum()]) if X is None else X.T @ weighted)
        return np.concatenate(sums)

    def change(self, difference: FloatArray) -> FloatArray:
        """First-order change, shape (D n,)."""
        moved: FloatArray = np.zeros(self.parts[0].shape)
        start = 0
        for part, X in zip(self.parts, self.X, strict=True):
            width = 1 if X is None else X.shape[1]
            step = difference[start : start + width]
            moved += part * (step[0] if X is None else X @ step)
            start += width
        return moved.ravel()

    def columns(self) -> FloatArray:
        """All derivatives, shape (D n, d)."""
        out = []
        for part, X in zip(self.parts, self.X, strict=True):
            wide = part[:, :, None] if X is None else part[:, :, None] * X
            out.append(wide.reshape(part.size, -1))
        return np.hstack(out)


# A derivative in the parameters beside eta, row by row.
NuisancePart: TypeAlias = "FloatArray | ThresholdPart | DensePart | NuisanceColumns | StackedColumns"


def total(part: Any, by: FloatArray | None = None, possible: BoolArray | None = None) -> FloatArray:
    """Sum over rows (and nodes) of a derivative times `by`, shape (d,).

    Parameters
    ----------
    part : ndarray, ThresholdPart or DensePart
    by : ndarray, optional
    possible : ndarray of bool, optional
        Where the derivative is a number; it counts as zero elsewhere.
    """
    if isinstance(part, NuisanceColumns):
        return part.total(by, possible)
    if isinstance(part, ThresholdPart | DensePart | StackedColumns):
        return part.total(by)
    if possible is not None and not possible.all():
        part = np.where(possible, part, 0.0)
    if by is None:
        return np.array([part.sum()])
    return np.array([by @ part if by.ndim == 1 else (part * by).sum()])


def totals(part: Any, by: FloatArray | None = None) -> FloatArray:
    """Sum over the rows of each of B points of a derivative times `by`, shape (B, d).

    Parameters
    ----------
    part : ndarray (B, n), or ThresholdPart, DensePart or NuisanceColumns of such arrays
    by : ndarray, shape (B, n), optional
    """
    if isinstance(part, ThresholdPart | DensePart | NuisanceColumns):
        return part.totals(by)
    summed: FloatArray = (part if by is None else part * by).sum(axis=1)[:, None]
    return summed


def change(part: Any, difference: Nuisance) -> FloatArray:
    """First-order change of each row, shape (n,).

    Parameters
    ----------
    part : ndarray, ThresholdPart or DensePart
    difference : float or ndarray, shape (d,)
    """
    if isinstance(part, ThresholdPart | DensePart | NuisanceColumns | StackedColumns):
        return part.change(np.atleast_1d(difference))
    moved: FloatArray = difference * part
    return moved


def elements_of(lam: Nuisance) -> list[FloatArray]:
    """The elements of lambda, each a number; of lambda at B points, (B, d), each of shape (B, 1)."""
    values = np.atleast_1d(np.asarray(lam, dtype=np.float64))
    return [values[i, ...] if values.ndim == 1 else values[:, i, None] for i in range(values.shape[-1])]


def at_point(part: Any, number: int) -> Any:
    """A derivative at one of B points.

    Parameters
    ----------
    part : ndarray (..., B, n), or NuisanceColumns or StackedColumns of such arrays
    number : int
    """
    if isinstance(part, NuisanceColumns | StackedColumns):
        return replace(part, parts=tuple(own[..., number, :] for own in part.parts))
    return part[..., number, :]


def as_columns(part: Any) -> FloatArray:
    """A derivative as columns, one for each parameter, shape (n, d)."""
    if isinstance(part, ThresholdPart | DensePart | NuisanceColumns | StackedColumns):
        return part.columns()
    column: FloatArray = part[:, None]
    return column
