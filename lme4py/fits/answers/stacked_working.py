"""The working model of several linear predictors that stand one below the other, a block of weights for each row.

    V^-1 = W - W Z Lambda M^-1 Lambda'Z'W,   W block diagonal in the rows, (D, D) each.

Leaving out a row leaves out D rows of the working model, with the D x D block P_ii in the place of a number.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lme4py.engine.factor.sweep import Swept
from lme4py.engine.generalised.products import WeightedProducts
from lme4py.fits.answers.working import RowBlocks, WorkingModel
from lme4py.fits.rows.clusters import row_sums
from lme4py.frozen import computed_once
from lme4py.linalg.types import FloatArray, IntArray

__all__ = ["StackedWorking"]

# What stands for the weight of rows without information, of the largest weight.
_TINY = 1e-12


@dataclass(frozen=True, kw_only=True)
class StackedWorking(WorkingModel):
    """The working model at the mode; `X` and `z` have D n rows, `w` is as in `lme4py.engine.generalised.stacking`.

    Attributes
    ----------
    Wz : ndarray, shape (D n,)
        W z, which needs no inverse of the weights.
    T : list of ndarray
    products : WeightedProducts
    swept : Swept
    """

    Wz: FloatArray
    T: list[FloatArray]
    products: WeightedProducts
    swept: Swept

    @property
    def independent_rows(self) -> bool:
        return False

    @computed_once
    def inverse_times(self) -> tuple[FloatArray, FloatArray]:
        """V^-1 X (D n, p) and V^-1 z (D n,)."""
        stack = self.products.stack
        right = np.column_stack([stack.weigh(self.w, self.X), self.Wz])
        border = self.swept.sweep_border(self.products.project(right))
        b, _ = self.swept.back_substitute(border, np.eye(right.shape[1]))
        right -= stack.weigh(self.w, np.asarray(self.products.rows @ np.concatenate(b)))
        return right[:, :-1], right[:, -1]

    @property
    def inverse_diagonal(self) -> FloatArray:
        """Diagonal of V^-1, (D n,)."""
        diagonal: FloatArray = np.einsum("ndd->dn", self._inverse_blocks).ravel()
        return diagonal

    @computed_once
    def _weights(self) -> FloatArray:
        """The blocks of W, (n, D, D)."""
        return self._square(self.w)

    @computed_once
    def _inverse_blocks(self) -> FloatArray:
        """The diagonal blocks of V^-1, (n, D, D)."""
        h = self.products.log_det_derivatives(self.swept)[0].copy()
        # Derivatives in what couples two predictors are twice the element.
        h[self.products.stack.size * self.products.stack.n :] *= 0.5
        W = self._weights
        return W - W @ self._square(h) @ W

    def _square(self, pairs: FloatArray) -> FloatArray:
        """Symmetric blocks from their elements, (n, D, D)."""
        stack = self.products.stack
        out = np.empty((stack.n, stack.size, stack.size))
        for own, (d, e) in zip(pairs.reshape(len(stack.pairs), stack.n), stack.pairs, strict=True):
            out[:, d, e] = out[:, e, d] = own
        return out

    def _by_row(self, tall: FloatArray) -> FloatArray:
        """(D n, ...) as (n, D, ...)."""
        stack = self.products.stack
        return np.moveaxis(tall.reshape(stack.size, stack.n, *tall.shape[1:]), 0, 1)

    @computed_once
    def row_blocks(self) -> RowBlocks:
        VX = self._by_row(self.inverse_times[0])
        P = self._inverse_blocks - np.einsum("ndi,ij,nej->nde", VX, self.phi, VX)
        least = _TINY * float(np.abs(self._weights).max()) * np.eye(P.shape[1])
        root = np.linalg.inv(np.linalg.cholesky(self._weights + least))
        left = root @ (P + least) @ np.swapaxes(root, 1, 2)
        return RowBlocks(P + least, self._by_row(self.residual), VX, left)

    @computed_once
    def leverage(self) -> FloatArray:
        """Derivatives of the D fitted values of each row in its responses, summed: the trace of I - P_ii W_ii^-1."""
        left = self.row_blocks.left
        gone: FloatArray = left.shape[1] - np.einsum("ndd->n", left)
        return gone

    def without(self, codes: IntArray, level: int) -> StackedWorking:
        """The model without the rows of one cluster, by weights of zero."""
        kept = (codes != level).astype(np.float64)
        w = self.w * np.tile(kept, len(self.products.stack.pairs))
        Wz = self.Wz * np.tile(kept, self.products.stack.size)
        return replace(self, w=w, Wz=Wz, swept=self.products.factorize(self.T, w))

    def cluster_products(self, codes: IntArray, size: int) -> tuple[FloatArray, FloatArray, FloatArray]:
        VX, Vz = self.inverse_times
        tall = np.tile(codes, self.products.stack.size)
        blocks = row_sums(self.X[:, :, None] * VX[:, None, :], tall, size)
        # X'V^-1z of independent clusters from z's side; the square is that of no variance that is estimated.
        return 0.5 * (blocks + np.swapaxes(blocks, 1, 2)), row_sums(self.X * Vz[:, None], tall, size), np.zeros(size)
