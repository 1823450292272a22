"""Symmetric positive definite tridiagonal matrices: solutions, determinants and the elements of inverses in O(n)."""

from __future__ import annotations

import numpy as np
import scipy.linalg.lapack as lapack

from lme4py.frozen import computed_once
from lme4py.linalg.types import FloatArray

__all__ = ["Tridiagonal", "bidiagonal_solve", "tridiagonal_product"]


def tridiagonal_product(diagonal: FloatArray, below: FloatArray, x: FloatArray) -> FloatArray:
    """M x of a symmetric tridiagonal matrix.

    Parameters
    ----------
    diagonal : ndarray, shape (n,)
    below : ndarray, shape (n - 1,)
    x : ndarray, shape (n, c)
    """
    out: FloatArray = diagonal[:, None] * x
    out[1:] += below[:, None] * x[:-1]
    out[:-1] += below[:, None] * x[1:]
    return out


def bidiagonal_solve(below: FloatArray, right: FloatArray, transpose: bool = False) -> FloatArray:
    """Solution of a lower bidiagonal system with ones on its diagonal, or of its transpose.

    Parameters
    ----------
    below : ndarray, shape (n - 1,)
    right : ndarray, shape (n, c)
    transpose : bool

    Examples
    --------
    >>> bidiagonal_solve(np.array([-0.5, -0.5]), np.ones((3, 1))).ravel()
    array([1.  , 1.5 , 1.75])
    """
    n = right.shape[0]
    band = np.ones((2, n))
    band[1, :-1] = below
    band[1, -1:] = 0.0
    solution: FloatArray = lapack.dtbtrs(band, right, uplo="L", trans="T" if transpose else "N", diag="U")[0]
    return np.ascontiguousarray(solution)


class Tridiagonal:
    """The factor L D L' of a symmetric positive definite tridiagonal matrix.

    Parameters
    ----------
    diagonal : ndarray, shape (n,)
    below : ndarray, shape (n - 1,)

    Raises
    ------
    numpy.linalg.LinAlgError
        It is not positive definite.

    Examples
    --------
    >>> M = Tridiagonal(np.array([2.0, 2.0]), np.array([-1.0]))
    >>> M.inverse_elements[0].round(4), round(float(np.exp(M.log_det)), 4)
    (array([0.6667, 0.6667]), 3.0)
    """

    def __init__(self, diagonal: FloatArray, below: FloatArray) -> None:
        # LAPACK wants one element below the diagonal even where there is none.
        self.n = diagonal.size
        padded = below if below.size else np.zeros(1)
        self.d, self.l, info = lapack.dpttrf(diagonal, padded)
        if info != 0 or not np.isfinite(self.d).all():
            raise np.linalg.LinAlgError("the matrix is not positive definite")

    @property
    def log_det(self) -> float:
        """Logarithm of the determinant."""
        return float(np.log(self.d).sum())

    def solve(self, right: FloatArray) -> FloatArray:
        """M^-1 right, shape (n, c)."""
        if not right.shape[1]:
            return right.copy()
        solution: FloatArray = lapack.dpttrs(self.d, self.l, right)[0]
        return np.ascontiguousarray(solution)

    @computed_once
    def inverse_elements(self) -> tuple[FloatArray, FloatArray]:
        """Elements of the inverse on its diagonal (n,) and below it (n - 1,)."""
        below = self.l[: self.n - 1]
        # z_i = 1 / d_i + l_i^2 z_{i+1}: sums of positive numbers.
        diagonal = bidiagonal_solve(-(below**2), (1.0 / self.d)[:, None], transpose=True)[:, 0]
        return diagonal, -below * diagonal[1:]
