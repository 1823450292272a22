"""Gradients of rows: dense in the coefficients and variances, sparse in the random effects of their groups."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lme4py.linalg.types import FloatArray, SparseMatrix

__all__ = ["RowGradients"]


@dataclass(frozen=True, slots=True)
class RowGradients:
    """Gradients of n rows.

    Attributes
    ----------
    dense : ndarray, shape (n, p)
    effects : sparse matrix, shape (n, Q), or None
        In the random effects, where they are at their conditional modes.
    """

    dense: FloatArray
    effects: SparseMatrix = None

    def times(self, factor: FloatArray) -> RowGradients:
        """Every row times a number, (n,)."""
        effects = None if self.effects is None else self.effects.multiply(factor[:, None]).tocsr()
        return RowGradients(factor[:, None] * self.dense, effects)

    def plus(self, other: RowGradients) -> RowGradients:
        """The sum with other gradients of the same rows."""
        known = [own for own in (self.effects, other.effects) if own is not None]
        effects: SparseMatrix = sum(known[1:], start=known[0]) if known else None
        return RowGradients(self.dense + other.dense, effects)

    def beside(self, columns: FloatArray) -> RowGradients:
        """With more dense columns, (n, m)."""
        return RowGradients(np.hstack([self.dense, columns]), self.effects)

    def mean(self, weights: FloatArray) -> FloatArray:
        """Weighted sum over the rows, (q,)."""
        mean: FloatArray = weights @ self.dense
        return mean if self.effects is None else np.concatenate([mean, self.effects.T @ weights])

    def whole(self) -> FloatArray:
        """All rows, (n, q)."""
        return self.dense if self.effects is None else np.hstack([self.dense, self.effects.toarray()])
