"""A Cholesky factor in square tiles: held in single or double precision, summed in double.

Column by column of tiles: every tile below the diagonal is a sum of products with those to its left, and the tiles of a
column are independent of each other. Each is made by one call, so that the number of threads changes no digit. Single
precision halves the memory and the time; what it loses is what `lme4py.engine.factor.crossed_factor` corrects.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.linalg.lapack as lapack
from scipy.linalg.blas import dtrsm

from lme4py.chunks import chunk
from lme4py.linalg.types import FloatArray
from lme4py.progress import tick

__all__ = ["TiledCholesky", "tiled_bytes"]

# Rows of a tile, and columns of the factor that are multiplied before their sum is added in double precision.
_TILE, _DEPTH = chunk(1024, 5), chunk(4096, 7)

Fill = Callable[[slice, slice], FloatArray]
Run = Callable[[Callable[[int], None], range], object]


def tiled_bytes(size: int, dtype: Any, threads: int) -> float:
    """Memory of a factor and of its making.

    Parameters
    ----------
    size : int
    dtype : dtype
    threads : int

    Examples
    --------
    >>> round(tiled_bytes(40_000, np.float32, 2) / 2**30, 1)
    3.2
    """
    held = float(np.dtype(dtype).itemsize) * 0.5 * float(size) * float(size + min(_TILE, size))
    # A tile with its sum, its right-hand side and a product, and rows of the factor in double precision.
    return held + 8.0 * threads * float(4 * _TILE**2 + _TILE * _DEPTH)


class TiledCholesky:
    """L with L L' = A.

    Parameters
    ----------
    size : int
    fill : callable
        A tile of A, from the slices of its rows and columns, in double precision; the tile is changed in place.
    dtype : dtype
        Of the tiles that are held: float32 or float64.
    run : callable
        Calls a function for each of a range of numbers, in any order.

    Attributes
    ----------
    log_det : float
        log|L L'| of the factor as it is held.

    Raises
    ------
    numpy.linalg.LinAlgError
        A is not positive definite in this precision.
    """

    def __init__(self, size: int, fill: Fill, dtype: Any, run: Run) -> None:
        self.size = size
        self.places = [slice(start, min(start + _TILE, size)) for start in range(0, size, _TILE)]
        self.log_det = 0.0
        # Rows of tiles, each up to its diagonal tile: pages are taken as they are written.
        self.rows = [np.empty((place.stop - place.start, place.stop), dtype=dtype) for place in self.places]
        for j, place in enumerate(self.places):
            corner = self._corner(j, fill(place, place))

            def below(i: int, place: slice = place, corner: FloatArray = corner, j: int = j) -> None:
                tile = self._reduced(i, j, fill(self.places[i], place))
                self.rows[i][:, place] = dtrsm(1.0, corner, tile, side=1, lower=1, trans_a=1)

            run(below, range(j + 1, len(self.places)))
            tick("tiles", len(self.places) - j)

    def _reduced(self, i: int, j: int, tile: FloatArray) -> FloatArray:
        """A tile less what the columns before it say."""
        end = self.places[j].start
        for start in range(0, end, _DEPTH):
            part = slice(start, min(start + _DEPTH, end))
            tile -= self.rows[i][:, part] @ self.rows[j][:, part].T
        return tile

    def _corner(self, j: int, tile: FloatArray) -> FloatArray:
        """The factor of a diagonal tile; its sums are made in double precision throughout."""
        place = self.places[j]
        for start in range(0, place.start, _DEPTH):
            own = self.rows[j][:, start : min(start + _DEPTH, place.start)].astype(np.float64)
            tile -= own @ own.T
        root, info = lapack.dpotrf(tile, lower=1, clean=1)
        if info != 0:
            raise np.linalg.LinAlgError(f"not positive definite in {self.rows[j].dtype}")
        held = self.rows[j][:, place]
        held[:] = root
        corner = held.astype(np.float64)
        self.log_det += 2.0 * float(np.log(corner.diagonal()).sum())
        return corner

    def forward(self, B: FloatArray, first: int = 0) -> FloatArray:
        """L^-1 B in double precision.

        Parameters
        ----------
        B : ndarray, shape (q, c)
        first : int
            Rows before this one are zero.
        """
        out = B.copy()
        begin = first // _TILE
        for i in range(begin, len(self.places)):
            place = self.places[i]
            for start in range(begin * _TILE, place.start, _DEPTH):
                part = slice(start, min(start + _DEPTH, place.start))
                out[place] -= self.rows[i][:, part].astype(np.float64) @ out[part]
            out[place] = lapack.dtrtrs(self.rows[i][:, place].astype(np.float64), out[place], lower=1)[0]
        return out

    def backward(self, B: FloatArray) -> FloatArray:
        """L'^-1 B in double precision.

        Parameters
        ----------
        B : ndarray, shape (q, c)
        """
        out = B.copy()
        for i in reversed(range(len(self.places))):
            place = self.places[i]
            own = lapack.dtrtrs(self.rows[i][:, place].astype(np.float64), out[place], lower=1, trans=1)[0]
            out[place] = own
            for start in range(0, place.start, _DEPTH):
                part = slice(start, min(start + _DEPTH, place.start))
                out[part] -= self.rows[i][:, part].astype(np.float64).T @ own
        return out
