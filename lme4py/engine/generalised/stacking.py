"""Several linear predictors with random effects in one column: those of the second stand below those of the first.

With D predictors of n rows, eta, X and Z have D n rows, and W is block-diagonal in the rows of the data: symmetric
D x D blocks W_de = -d2l / (deta_d deta_e). Its distinct elements stand in one vector of n numbers for each pair of
predictors, (0, 0), (1, 1), ..., then (0, 1), (0, 2), ...: for D = 1 that is the usual vector of weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lme4py.linalg.types import FloatArray

__all__ = ["Stack"]


@dataclass(frozen=True)
class Stack:
    """How predictors and weights stand in one column.

    Attributes
    ----------
    n : int
        Rows of the data.
    size : int
        Number of predictors, D.

    Examples
    --------
    >>> Stack(5, 3).pairs
    ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))
    >>> Stack(1, 2).weigh(np.array([1.0, 2.0, 3.0]), np.array([10.0, 1.0]))
    array([13., 32.])
    """

    n: int
    size: int = 1

    @cached_property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """Pairs of predictors in the order of the weights."""
        places = range(self.size)
        return (*((d, d) for d in places), *((d, e) for d in places for e in places if d < e))

    def weigh(self, w: FloatArray, x: FloatArray) -> FloatArray:
        """W x.

        Parameters
        ----------
        w : ndarray, shape (n_pairs n,)
        x : ndarray, shape (D n,) or (D n, c)
        """
        if self.size == 1:
            return (w[:, None] if x.ndim > 1 else w) * x
        weights = w.reshape(len(self.pairs), self.n)
        parts = x.reshape(self.size, self.n, -1)
        total = np.zeros(parts.shape)
        for own, (d, e) in zip(weights, self.pairs, strict=True):
            total[d] += own[:, None] * parts[e]
            if d != e:
                total[e] += own[:, None] * parts[d]
        return total.reshape(x.shape)

    def gradient(self, h: FloatArray, dw: FloatArray) -> FloatArray:
        """Derivative in eta of a function of the weights, shape (D n,).

        Parameters
        ----------
        h : ndarray, shape (n_pairs n,)
            Derivative in the weights; those of pairs count once.
        dw : ndarray, shape (n,), or (D, n_pairs n)
            Derivatives of the weights in each predictor.
        """
        if self.size == 1:
            return h * dw
        by_pair = (dw * h).reshape(self.size, len(self.pairs), self.n)
        total: FloatArray = by_pair.sum(axis=1).ravel()
        return total

    def part(self, w: FloatArray, smaller: Stack) -> FloatArray:
        """The weights of the first predictors, as another stack has them.

        Parameters
        ----------
        w : ndarray, shape (n_pairs n,)
        smaller : Stack
        """
        by_pair = w.reshape(len(self.pairs), self.n)
        return np.concatenate([by_pair[self.pairs.index(pair)] for pair in smaller.pairs])

    def first(self, x: FloatArray) -> FloatArray:
        """The rows of the first predictor."""
        return x[: self.n]

    def below(self, x: FloatArray) -> FloatArray:
        """The column of the first predictor with zeros for the others."""
        if self.size == 1:
            return x
        out = np.zeros((self.size * self.n, *x.shape[1:]))
        out[: self.n] = x
        return out
