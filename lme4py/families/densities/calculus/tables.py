"""Smooth functions of one variable that are expensive, for many arguments: piecewise Chebyshev polynomials.

Pieces are of fixed places, each made from exact values when it is first needed, checked between its nodes, halved
where the checks fail, and remembered. Values depend on the argument only, not on which others were asked for, as long
as exact values do not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from lme4py.linalg.types import FloatArray, IntArray

__all__ = ["ChebyshevTable"]

_DEGREE: Final = 15
_ANGLES: Final = np.pi * (np.arange(_DEGREE + 1) + 0.5) / (_DEGREE + 1)
# Nodes of a piece, and three points between them to check with.
_LOCAL: Final = np.concatenate([np.cos(_ANGLES), np.array([-0.93, 0.041, 0.77])])
_WEIGHTS: Final = np.array([1.0] + [2.0] * _DEGREE) / (_DEGREE + 1)
_TO_COEFFICIENTS: Final = np.cos(np.outer(_ANGLES, np.arange(_DEGREE + 1))) * _WEIGHTS
_TO_CHECKS: Final = np.cos(np.outer(np.arange(_DEGREE + 1), np.arccos(_LOCAL[_DEGREE + 1 :])))
# A piece that does not pass is halved; so often, and then its arguments get exact values.
_LEVELS: Final = 7
# So few arguments get exact values rather than a finer piece.
_FEW: Final = 20

Exact = Callable[[FloatArray, FloatArray], FloatArray]


class ChebyshevTable:
    """F functions of one variable.

    Parameters
    ----------
    exact : callable
        Of arguments x and, for each, the middle of its piece, both of shape (n,): the values, shape (F, n). Which of
        several equivalent forms is tabulated may depend on the middle, but not otherwise on the piece.
    tolerance : ndarray, shape (F,)
        Of each function at the checks, beside one plus its largest value in the piece.
    length : float
        Of the pieces; piece k is on k length <= x <= (k + 1) length.
    """

    def __init__(self, exact: Exact, tolerance: FloatArray, length: float = 0.5, level: int = 0) -> None:
        self._exact, self._tolerance, self._length, self._level = exact, tolerance, length, level
        # Coefficients (F, degree + 1), or None where the checks failed.
        self._pieces: dict[int, FloatArray | None] = {}
        self._finer: ChebyshevTable | None = None

    def __call__(self, x: FloatArray, chosen: IntArray | None = None) -> FloatArray:
        """Values of all functions, or of those `chosen`, shape (F, n)."""
        which = np.arange(self._tolerance.size) if chosen is None else chosen
        place = np.floor(x / self._length)
        numbers, index = np.unique(place, return_inverse=True)
        self._make([float(k) for k in numbers if int(k) not in self._pieces])
        local = 2.0 * (x / self._length - place) - 1.0
        out = np.empty((which.size, x.size))
        order = np.argsort(index, kind="stable")
        ends = np.searchsorted(index[order], np.arange(numbers.size + 1))
        for i, k in enumerate(numbers):
            rows = order[ends[i] : ends[i + 1]]
            coefficients = self._pieces[int(k)]
            if coefficients is None:
                out[:, rows] = self._otherwise(x[rows], which)
            else:
                out[:, rows] = coefficients[which] @ _basis(local[rows])
        return out

    def _otherwise(self, x: FloatArray, which: IntArray) -> FloatArray:
        if self._level == _LEVELS or x.size < _FEW:
            return self._exact(x, x)[which]
        if self._finer is None:
            self._finer = ChebyshevTable(self._exact, self._tolerance, 0.5 * self._length, self._level + 1)
        return self._finer(x, which)

    def _make(self, numbers: list[float]) -> None:
        if not numbers:
            return
        left = self._length * np.array(numbers)
        at = left[:, None] + 0.5 * self._length * (_LOCAL + 1.0)
        middle = np.repeat(left + 0.5 * self._length, _LOCAL.size)
        values = self._exact(at.ravel(), middle).reshape(-1, *at.shape)  # (F, pieces, points)
        coefficients = values[..., : _DEGREE + 1] @ _TO_COEFFICIENTS
        error = np.abs(coefficients @ _TO_CHECKS - values[..., _DEGREE + 1 :]).max(axis=-1)
        bound = self._tolerance[:, None] * (1.0 + np.abs(values).max(axis=-1))
        good = np.all(error <= bound, axis=0)
        for i, k in enumerate(numbers):
            self._pieces[int(k)] = np.ascontiguousarray(coefficients[:, i]) if good[i] else None


def _basis(x: FloatArray) -> FloatArray:
    """Chebyshev polynomials at x, (degree + 1, n)."""
    basis = np.empty((_DEGREE + 1, x.size))
    basis[0], basis[1] = 1.0, x
    for k in range(2, _DEGREE + 1):
        np.multiply(2.0 * x, basis[k - 1], out=basis[k])
        basis[k] -= basis[k - 2]
    return basis
