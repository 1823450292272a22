"""Cholesky factor of one dense matrix, in place."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import scipy.linalg.blas as blas
import scipy.linalg.lapack as lapack

from lme4py.chunks import chunk, from_size
from lme4py.linalg.types import FloatArray

# OpenBLAS (0.3.30 at least) writes outside its buffers in `potrf` with several threads from somewhat more than
# 12,000 rows on, which ends the process. Larger matrices are factored by blocks of columns.
_LARGEST, _BLOCK = from_size(8000, 4), chunk(2048, 3)
# Rows that are copied across the diagonal at one time.
_TILE = chunk(256)


def upper_cholesky(A: FloatArray, clean: bool = False) -> FloatArray:
    """U upper triangular with U'U = A, in the place of A.

    Parameters
    ----------
    A : ndarray, shape (n, n), Fortran order
        Its upper triangle is used, and overwritten.
    clean : bool
        Set the lower triangle to zero.

    Raises
    ------
    LinAlgError
        When A is not positive definite.

    Examples
    --------
    >>> upper_cholesky(np.array([[4.0, 2.0], [2.0, 5.0]], order="F"), clean=True)
    array([[2., 1.],
           [0., 2.]])
    """
    if A.shape[0] > _LARGEST:
        return _by_blocks(A, clean)
    U, info = lapack.dpotrf(A, lower=0, overwrite_a=1, clean=int(clean))
    if info != 0:
        raise np.linalg.LinAlgError("the factor is not positive definite")
    factor: FloatArray = U
    return factor


def _by_blocks(A: FloatArray, clean: bool) -> FloatArray:
    n = A.shape[0]
    bounds = [*range(0, n, _BLOCK), n]
    parts = [slice(start, stop) for start, stop in pairwise(bounds)]
    for i, own in enumerate(parts):
        U = upper_cholesky(np.asfortranarray(A[own, own]), clean=True)
        A[own, own] = U
        for other in parts[i + 1 :]:
            A[own, other] = blas.dtrsm(1.0, U, A[own, other], lower=0, trans_a=1)
            if clean:
                A[other, own] = 0.0
        for j, other in enumerate(parts[i + 1 :], i + 1):
            above = slice(parts[i + 1].start, parts[j].stop)
            A[above, other] -= A[own, above].T @ A[own, other]
    return A


def mirror(lower: FloatArray) -> FloatArray:
    """Make a matrix symmetric in place by its lower triangle."""
    n = lower.shape[0]
    for start in range(0, n, _TILE):
        own = slice(start, min(start + _TILE, n))
        part = np.tril(lower[own, own], -1)
        diagonal = lower[own, own].diagonal()
        lower[own, own] = part + part.T + np.diag(diagonal)
        for other in range(own.stop, n, _TILE):
            rows = slice(other, min(other + _TILE, n))
            lower[own, rows] = lower[rows, own].T
    return lower


def positive_inverses(A: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Inverses and log determinants of many positive definite matrices, in the place of A.

    LAPACK's Cholesky routines one by one: NumPy's batched inverse, by LU, takes three times as long.

    Parameters
    ----------
    A : ndarray, shape (B, n, n), C order
        Overwritten.

    Returns
    -------
    ndarray, shape (B, n, n)
    ndarray, shape (B,)
        Infinite where a matrix is not positive definite; its inverse is then the identity.

    Examples
    --------
    >>> inverse, log_det = positive_inverses(np.array([[[4.0, 2.0], [2.0, 5.0]]]))
    >>> inverse[0].round(4).tolist(), bool(np.isclose(log_det[0], np.log(16.0)))
    ([[0.3125, -0.125], [-0.125, 0.25]], True)
    """
    log_det = np.full(A.shape[0], np.inf)
    diagonal = np.arange(A.shape[1])
    for b in range(A.shape[0]):
        own = A[b].T
        _, info = lapack.dpotrf(own, lower=1, clean=0, overwrite_a=1)
        if info == 0:
            log_det[b] = 2.0 * np.log(own[diagonal, diagonal]).sum()
            _, info = lapack.dpotri(own, lower=1, overwrite_c=1)
        if info != 0:
            log_det[b], A[b] = np.inf, np.eye(A.shape[1])
    rows, columns = np.tril_indices(A.shape[1], -1)
    A[:, rows, columns] = A[:, columns, rows]
    return A, log_det
