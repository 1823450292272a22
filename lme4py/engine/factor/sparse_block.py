"""The block that remains after all stages, as a sparse matrix with a sparse factor.

The same operations as `lme4py.engine.factor.dense_block.DenseFactor`; no matrix of the size of the block is formed.
"""

from __future__ import annotations

import numpy as np

from lme4py.chunks import chunk
from lme4py.engine.factor.dense_block import add_products, block_products, is_invertible, scale_rows
from lme4py.engine.factor.sparse_pattern import SparseBlock
from lme4py.engine.factor.symbolic import Stage
from lme4py.engine.threads import single_thread
from lme4py.frozen import freeze
from lme4py.linalg.supernodes import SparseCholesky
from lme4py.linalg.types import FloatArray

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
        S[block.diagonal] += 1.0
        self._invertible = [is_invertible(t) for t in T]
        self._inverse: FloatArray | None = None
        with single_thread(block.symbolic.largest_front):
            self.cholesky = SparseCholesky(block.symbolic, block.places, S)
        self.log_det = self.cholesky.log_det

    def apply_E(self, B: FloatArray) -> FloatArray:
        """Lambda (I + Lambda'K Lambda)^-1 Lambda' B."""
        factors = self.block.factors
        return scale_rows(factors, self.T, self.solve(scale_rows(factors, self.T, B)), transpose=False)

    def solve(self, right: FloatArray) -> FloatArray:
        """(I + Lambda'K Lambda)^-1 right, for the rows of the block."""
        with single_thread(self.block.symbolic.largest_front):
            return self.cholesky.solve(right)

    def residual(self, B: FloatArray, EB: FloatArray) -> FloatArray:
        """(I + K Sigma)^-1 B, by division with Sigma where that has no cancellation."""
        if not all(self._invertible):
            out: FloatArray = B - self.block.matrix(self.K) @ EB
            return out
        inverses: list[FloatArray] = [np.linalg.inv(t).astype(float) for t in self.T]
        half = scale_rows(self.block.factors, inverses, EB, transpose=False)
        return scale_rows(self.block.factors, inverses, half)

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

    def inverse_blocks(self, f: int) -> FloatArray:
        """Diagonal blocks of the inverse of one grouping factor, (k, k, J)."""
        return self.inverse()[self.block.own_places[f]]

    def reduced_sum(self, f: int) -> FloatArray:
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
