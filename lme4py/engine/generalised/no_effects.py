"""Generalised models without random effects, as the engine sees them: products with a Z of no columns.

The mode of nothing is found at once, log|M| is zero, and what is left of every formula is that of the fixed effects.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from lme4py.engine.generalised.products import predicted
from lme4py.engine.generalised.stacking import Stack
from lme4py.linalg.types import FloatArray, IntArray

__all__ = ["NoProducts"]

_NONE = np.zeros(0)


@dataclass(frozen=True)
class _NoBorder:
    """Swept columns of a model without random effects.

    Attributes
    ----------
    width : int
        Number of columns.
    """

    width: int

    def cross(self, other: _NoBorder) -> FloatArray:
        """What elimination takes from the products of the columns: nothing."""
        return np.zeros((self.width, other.width))


@dataclass(frozen=True)
class _NoFactor:
    """The factor of a matrix of no rows."""

    T: tuple[FloatArray, ...] = ()
    stages: tuple[Any, ...] = ()
    dense: None = None
    log_det: float = 0.0
    largest_inverse: float = 1.0

    def sweep_border(self, columns: list[FloatArray]) -> _NoBorder:
        return _NoBorder(columns[0].shape[1] if columns else 0)

    def back_substitute(self, border: _NoBorder, weights: FloatArray) -> tuple[list[FloatArray], list[FloatArray]]:
        return [np.zeros((0, weights.shape[1]))], []


class NoProducts:
    """Products with a Z of no columns; see `lme4py.engine.generalised.products.WeightedProducts`.

    Parameters
    ----------
    n : int
        Rows of the data.
    size : int
        Linear predictors that stand one below the other.
    """

    factors: tuple[Any, ...] = ()
    codes: tuple[IntArray, ...] = ()
    places: tuple[tuple[int, ...], ...] = ()
    blocks: tuple[FloatArray, ...] = ()
    has_related = False

    def __init__(self, n: int, size: int = 1) -> None:
        self.n, self.stack = n, Stack(n, size)
        self.rows = sparse.csr_array((n * size, 0))
        self.columns = self.rows.T.tocsr()

    def factorize(self, T: list[FloatArray], w: FloatArray) -> _NoFactor:
        """The factor; LinAlgError where a weight is no number."""
        if not np.isfinite(w).all():
            raise np.linalg.LinAlgError("a weight is not finite")
        return _NoFactor()

    def spread(self, b: FloatArray) -> FloatArray:
        """Z b, (D n,), or (D n, c)."""
        return np.zeros((self.n * self.stack.size, *b.shape[1:]))

    def predictor(self, b: FloatArray, X: FloatArray, beta: FloatArray, start: FloatArray) -> FloatArray:
        """start + X beta, (D n,)."""
        return predicted(self.spread(b), X, beta, start)

    def weighted_sums(
        self, b: FloatArray, X: FloatArray, beta: FloatArray, w: FloatArray, start: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Z'x, (0,), and X'x, (p,), of x = start + W X beta; beta may be empty."""
        return _NONE, X.T @ (start + self.stack.weigh(w, predicted(self.spread(b), X, beta)))

    def weighted_cross(self, w: FloatArray, X: FloatArray, swept: Any = None) -> tuple[list[FloatArray], FloatArray]:
        """Z'W X, (0, p), and X'W X, (p, p)."""
        weighted = self.stack.weigh(w, X)
        return self.project(weighted), X.T @ weighted

    def normal(self, swept: _NoFactor, w: FloatArray, b: FloatArray) -> FloatArray:
        """Z'WZ b, (0,), or (0, c)."""
        return b

    def gather(self, x: FloatArray) -> FloatArray:
        """Z' x, (0,)."""
        return _NONE

    def project(self, columns: FloatArray) -> list[FloatArray]:
        """Z' columns, (0, c)."""
        return [np.zeros((0, columns.shape[1]))]

    def split(self, values: FloatArray) -> list[FloatArray]:
        """Rows of each grouping factor: there are none."""
        return []

    def related(self, values: FloatArray) -> FloatArray:
        return values

    def whitened(self, u: FloatArray) -> FloatArray:
        return u

    def pulled_back(self, gradient: FloatArray) -> FloatArray:
        return gradient

    def penalty(self, u: FloatArray) -> float:
        return 0.0

    def solve(self, swept: _NoFactor, column: FloatArray) -> tuple[FloatArray, FloatArray]:
        return _NONE, _NONE

    def solve_gathered(self, swept: _NoFactor, gathered: FloatArray) -> tuple[FloatArray, FloatArray]:
        return _NONE, _NONE

    def spherical(self, swept: _NoFactor, border: _NoBorder, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
        return _NONE, _NONE

    def log_det_derivatives(self, swept: _NoFactor) -> tuple[FloatArray, list[FloatArray], list[FloatArray]]:
        """Derivatives of log|M| = 0."""
        return np.zeros(len(self.stack.pairs) * self.n), [], []
