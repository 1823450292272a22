"""The block that remains after all stages, as a sparse matrix with a sparse factor.

The same operations as `lme4py.engine.factor.dense_block.DenseFactor`; no matrix of the size of the block is formed.
"""

from __future__ import annotations

import numpy as np

from lme4py.chunks import chunk
from lme4py.engine.factor.dense_block import (
    add_products,
    block_products,
    gradient_of_invertible,
    is_invertible,
    scale_rows,
)
from lme4py.engine.factor.sparse_pattern import SparseBlock
from lme4py.engine.factor.symbolic import Stage
from lme4py.engine.threads import single_thread
from lme4py.frozen import freeze
from lme4py.linalg import small
from lme4py.linalg.supernodes import SparseCholesky
from lme4py.linalg.types import FloatArray

# Variances, beside the largest one, with which a singular covariance is made invertible.
_NEAR_SINGULAR = (1e-6, 2e-6, 3e-6)
# Right-hand sides at one time.
_CHUNK = chunk(256)


class SparseFactor:
    """The Cholesky factor of a sparse block.

    Parameters
    ----------
    block : SparseBlock
    T : list of ndarray, each (k, k)
        By positions in the block.
    values : ndarray, shape (n_elements,)
        K; changed in place.
    """

    def __init__(self, block: SparseBlock, T: list[FloatArray], values: FloatArray) -> None:
        self.block = block
        self.T = T
        # Stages change the lower triangle alone.
        values[block.upper] = values[block.lower]
        self.K = values
        S = block.congruence(values, T)
        S += block.prior
        self._invertible = [is_invertible(t) for t in T]
        self._inverse: FloatArray | None = None
        with single_thread(block.symbolic.largest_front):
            self.cholesky = SparseCholesky(block.symbolic, block.places, S)
        self.log_det = self.cholesky.log_det + block.prior_log_det

    def apply_E(self, B: FloatArray) -> FloatArray:
        """Lambda (I + Lambda'K Lambda)^-1 Lambda' B."""
        factors = self.block.factors
        return scale_rows(factors, self.T, self.solve(scale_rows(factors, self.T, B)), transpose=False)

    def solve(self, right: FloatArray) -> FloatArray:
        """S^-1 right, for the rows of the block."""
        with single_thread(self.block.symbolic.largest_front):
            return self.cholesky.solve(right)

    def residual(self, B: FloatArray, EB: FloatArray) -> FloatArray:
        """(I + K Sigma)^-1 B, by division with Sigma where that has no cancellation."""
        if not all(self._invertible):
            out: FloatArray = B - self.block.matrix(self.K) @ EB
            return out
        inverses: list[FloatArray] = [np.linalg.inv(t).astype(float) for t in self.T]
        half = self._prior_times(scale_rows(self.block.factors, inverses, EB, transpose=False))
        return scale_rows(self.block.factors, inverses, half)

    def _prior_times(self, rows: FloatArray) -> FloatArray:
        """The inverse of the covariance of the effects before they are scaled, times rows of the block."""
        out = rows
        for f, factor in enumerate(self.block.factors):
            if factor.relation is not None:
                out = rows.copy() if out is rows else out
                for a in range(factor.n_columns):
                    start = int(self.block.offsets[f]) + a * factor.n_levels
                    own = slice(start, start + factor.n_levels)
                    out[own] = factor.relation.precision @ rows[own]
        return out

    def inverse(self) -> FloatArray:
        """Elements of (I + Lambda'K Lambda)^-1 on the pattern of K."""
        if self._inverse is None:
            with single_thread(self.block.symbolic.largest_front):
                self._inverse = freeze(self.cholesky.inverse()[self.block.places])
        return self._inverse

    def release(self) -> None:
        """Forget the inverse; it is made again when needed."""
        self._inverse = None

    def spend(self) -> None:
        """Nothing: the factor is needed for solutions."""

    def discard(self) -> None:
        """Forget the factor and its inverse; only `residual` works afterwards."""
        self._inverse = None
        del self.cholesky
        if all(self._invertible):
            self.K = np.zeros(0)

    def effect_blocks(self, f: int) -> FloatArray:
        """Diagonal blocks of E of one grouping factor, (k, k, J)."""
        T = self.T[f]
        return small.right(small.left(T, self.inverse()[self.block.own_places[f]]), T.T)

    def largest_inverse(self, f: int) -> float:
        """The largest element of the diagonal of S^-1 of a grouping factor, relative to that of Q^-1."""
        factor = self.block.factors[f]
        own = np.einsum("aaj->aj", self.inverse()[self.block.own_places[f]])
        return float((own if factor.relation is None else own / factor.relation.variances).max())

    def sigma_gradient(self, f: int) -> FloatArray:
        """Derivative of log|S| in Sigma of one grouping factor, (k, k)."""
        if self._invertible[f]:
            return gradient_of_invertible(self.block.factors[f], self.T[f], self.block.prior_sum(f, self.inverse()))
        if self.block.factors[f].relation is not None:
            return self._limit_of_gradient(f)
        return self._reduced_sum(f)

    def _limit_of_gradient(self, f: int) -> FloatArray:
        """The same at a singular T of related levels: the derivative is smooth in Sigma + s I, and s goes to 0."""
        sizes, vectors = np.linalg.eigh(self.T[f] @ self.T[f].T)
        found = []
        for s in _NEAR_SINGULAR:
            T = list(self.T)
            T[f] = vectors * np.sqrt(np.maximum(sizes, 0.0) + s * max(1.0, float(sizes[-1])))
            found.append(SparseFactor(self.block, T, self.K.copy()).sigma_gradient(f))
        # The parabola through the values at s, 2 s and 3 s, at 0.
        return 3.0 * found[0] - 3.0 * found[1] + found[2]

    def _reduced_sum(self, f: int) -> FloatArray:
        """Sum over levels of the diagonal blocks of K - K E K, (k, k).

        It needs elements of E outside the pattern, and so one solve for each level.
        """
        factor = self.block.factors[f]
        k, J = factor.n_columns, factor.n_levels
        total: FloatArray = self.K[self.block.own_places[f]].sum(axis=2)
        if not any(t.any() for t in self.T):
            return total  # E is zero
        first = int(self.block.offsets[f])
        matrix = self.block.matrix(self.K)
        for start in range(0, J, max(1, _CHUNK // k)):
            levels = np.arange(start, min(start + max(1, _CHUNK // k), J))
            rows = (first + J * np.arange(k)[:, None] + levels).ravel()
            K_rows = matrix[rows].toarray()
            EK = self.apply_E(np.ascontiguousarray(K_rows.T)).T
            total = total - block_products(K_rows, EK, k, levels.size).sum(axis=2)
        return total

    def derivative(self, left: FloatArray, right: FloatArray) -> SparseDerivative:
        """The derivative E + left right' on the pattern of K."""
        return SparseDerivative(self.block.congruence(self.inverse(), [t.T for t in self.T]), left, right)


class SparseDerivative:
    """Derivative on the pattern of a sparse block, E + left right'.

    Parameters
    ----------
    E : ndarray, shape (n_elements,)
    left, right : ndarray, shape (q, c)
    """

    def __init__(self, E: FloatArray, left: FloatArray, right: FloatArray) -> None:
        self.E = E
        self.left = left
        self.right = right

    def at(self, stage: Stage) -> FloatArray:
        """Derivative in the targets of a stage; an element off the diagonal stands for both of its kind."""
        rows, columns = stage.dense_rows, stage.dense_columns
        values = self.E[stage.dense_targets]
        add_products(values, rows, columns, self.left, self.right)
        values *= np.where(rows == columns, 1.0, 2.0)
        return values
