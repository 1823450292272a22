"""Many small supernodes of one shape, worked on at one time.

What they take from their ancestors is subtracted from the panels of those at once, from positions that are listed
beforehand, so that no supernode of a batch needs a turn of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lme4py.chunks import chunk
from lme4py.frozen import computed_once
from lme4py.linalg.types import FloatArray, IntArray

__all__ = ["SupernodeBatch"]

# Elements of fronts that are in memory at one time.
_ELEMENTS = chunk(2_000_000, 50)


@dataclass(frozen=True, eq=False)
class SupernodeBatch:
    """Supernodes of one width and one number of rows, none of them an ancestor of another.

    Attributes
    ----------
    starts : ndarray of int, shape (m,)
        First column of each.
    width : int
        w.
    rows : ndarray of int, shape (m, r)
        Rows below the columns.
    targets : ndarray of int, shape (m, r (r + 1) / 2)
        Where the pairs of rows, of the lower triangle, stand in the vector of all panels.
    offset : int
        Where their panels begin, one after the other, each (w + r, w) in C order.
    """

    starts: IntArray
    width: int
    rows: IntArray
    targets: IntArray
    offset: int

    @property
    def front(self) -> int:
        """w + r."""
        return self.width + int(self.rows.shape[1])

    def _parts(self) -> Iterator[slice]:
        step = max(1, _ELEMENTS // self.front**2)
        return (slice(start, start + step) for start in range(0, self.starts.size, step))

    def _panels(self, panels: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Triangles (m, w, w) and rectangles (m, r, w), as views."""
        m, w = self.starts.size, self.width
        whole = panels[self.offset : self.offset + m * w * self.front].reshape(m, self.front, w)
        return whole[:, :w], whole[:, w:]

    @computed_once
    def _lower(self) -> tuple[IntArray, IntArray]:
        return np.tril_indices(self.rows.shape[1])

    @computed_once
    def _own(self) -> IntArray:
        return self.starts[:, None] + np.arange(self.width)

    @computed_once
    def _collected(self) -> tuple[IntArray, IntArray, IntArray]:
        """The order of all rows by their number, where each number begins, and the numbers."""
        flat = self.rows.ravel()
        order = np.argsort(flat, kind="stable")
        first = np.flatnonzero(np.diff(flat[order], prepend=-1))
        return order, first, flat[order[first]]

    def factorize(self, panels: FloatArray) -> float:
        """The panels of L in place; log|L|."""
        log_det = 0.0
        for part in self._parts():
            L, R = (side[part] for side in self._panels(panels))
            if self.width == 1:
                if not (L > 0.0).all():
                    raise np.linalg.LinAlgError("the matrix is not positive definite")
                np.sqrt(L, out=L)
            else:
                L[:] = np.linalg.cholesky(L)
            log_det += float(np.log(np.einsum("maa->ma", L)).sum())
            if self.rows.shape[1]:
                R[:] = _transposed(_solve(L, _transposed(R)))
                change = (R @ _transposed(R))[:, *self._lower]
                np.subtract.at(panels, self.targets[part].ravel(), change.ravel())
        return log_det

    def forward(self, panels: FloatArray, x: FloatArray) -> None:
        """The columns of L^-1 x, in place; what they take from their rows is subtracted there."""
        L, R = self._panels(panels)
        x[self._own] = own = _solve(L, x[self._own])
        if self.rows.shape[1]:
            order, first, numbers = self._collected
            x[numbers] -= np.add.reduceat((R @ own).reshape(-1, x.shape[1])[order], first, axis=0)

    def backward(self, panels: FloatArray, x: FloatArray) -> None:
        """The columns of L'^-1 x, in place; their rows are solved."""
        L, R = self._panels(panels)
        own = x[self._own]
        if self.rows.shape[1]:
            own = own - _transposed(R) @ x[self.rows]
        x[self._own] = _solve(_transposed(L), own)

    def invert(self, panels: FloatArray, out: FloatArray) -> None:
        """Elements of the inverse in these panels of `out`, from those of their ancestors."""
        i, j = self._lower
        for part in self._parts():
            L, R = (side[part] for side in self._panels(panels))
            own, below = (side[part] for side in self._panels(out))
            inverse: FloatArray = 1.0 / L if self.width == 1 else np.linalg.inv(L).astype(float, copy=False)
            own[:] = _transposed(inverse) @ inverse
            if i.size:
                rest = np.empty((L.shape[0], self.rows.shape[1], self.rows.shape[1]))
                rest[:, i, j] = rest[:, j, i] = out[self.targets[part]]
                W = R @ inverse
                np.negative(rest @ W, out=below)
                own -= _transposed(W) @ below


def _transposed(x: FloatArray) -> FloatArray:
    return x.transpose(0, 2, 1)


def _solve(triangles: FloatArray, right: FloatArray) -> FloatArray:
    if triangles.shape[1] == 1:
        return right / triangles
    out: FloatArray = np.linalg.solve(triangles, right).astype(float, copy=False)
    return out
