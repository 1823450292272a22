"""Arithmetic on many small matrices at once.

A batch of J matrices is one array of shape (k, k, J): every operation is a few NumPy calls on vectors of
length J, whatever k is. That is far faster than J calls into LAPACK, and free of threads; matrices of many columns, as
of a process at many times, are multiplied and inverted one by one instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import sqrt
from operator import mul

import numpy as np
import scipy.linalg.lapack as lapack

from lme4py.chunks import from_size
from lme4py.linalg.cholesky import upper_cholesky
from lme4py.linalg.types import FloatArray

# Matrices with as many rows are worked on one by one.
_LARGE = from_size(32, 3)


def _stacked(A: FloatArray) -> FloatArray:
    """The batch with the matrices last, (J, k, l); J may be several axes."""
    return np.ascontiguousarray(np.moveaxis(A, (0, 1), (-2, -1)))


def _unstacked(M: FloatArray) -> FloatArray:
    """The inverse of `_stacked`."""
    return np.ascontiguousarray(np.moveaxis(M, (-2, -1), (0, 1)))


def _inverse_of_large(M: FloatArray) -> tuple[float, FloatArray]:
    """`spd_inverse` by the Cholesky factor of each matrix."""
    inverse = np.empty_like(M)
    log_det = 0.0
    for j in range(M.shape[2]):
        factor = upper_cholesky(np.array(M[:, :, j], order="F"), clean=True)
        log_det += 2.0 * float(np.log(factor.diagonal()).sum())
        own = lapack.dpotri(factor, lower=0)[0]
        inverse[:, :, j] = np.triu(own) + np.triu(own, 1).T
    return log_det, inverse


def spd_inverse(M: FloatArray) -> tuple[float, FloatArray]:
    """Sum of log-determinants and the inverses of a batch of symmetric positive definite matrices.

    Parameters
    ----------
    M : ndarray, shape (k, k, J)

    Returns
    -------
    log_det : float
        Sum over the batch of log|M_j|.
    inverse : ndarray, shape (k, k, J)
    """
    k = M.shape[0]
    if k == 1:
        return float(np.log(M).sum()), 1.0 / M
    if k == 2:
        log_dets, inverse = _spd_inverse_2(M)
        return float(log_dets.sum()), inverse
    if k >= _LARGE and np.isfinite(M).all():
        return _inverse_of_large(M)
    inverse = M.copy()
    log_det = 0.0
    for pivot in _sweeps(inverse):
        log_det += float(np.log(pivot).sum())
    return log_det, inverse


def log_dets_and_inverse(M: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The log-determinant of each of a batch of symmetric positive definite matrices, and its inverse.

    Parameters
    ----------
    M : ndarray, shape (k, k, J)
        J may be several axes.

    Returns
    -------
    log_det : ndarray, shape (J,)
    inverse : ndarray, shape (k, k, J)
    """
    if M.shape[0] == 1:
        return np.log(M[0, 0]), 1.0 / M
    if M.shape[0] == 2:
        return _spd_inverse_2(M)
    inverse = M.copy()
    log_det = np.zeros(M.shape[2:])
    for pivot in _sweeps(inverse):
        log_det += np.log(pivot)
    return log_det, inverse


def _sweeps(inverse: FloatArray) -> Iterator[FloatArray]:
    """Gauss-Jordan sweeps in place, with their pivots; none are exchanged in positive definite matrices."""
    for i in range(inverse.shape[0]):
        pivot = inverse[i, i].copy()
        yield pivot
        row = inverse[i] / pivot
        column = inverse[:, i].copy()
        column[i] = 0.0
        inverse -= column[:, None] * row[None]
        inverse[:, i] = -column / pivot
        inverse[i] = row
        inverse[i, i] = 1.0 / pivot


def _spd_inverse_2(M: FloatArray) -> tuple[FloatArray, FloatArray]:
    """`log_dets_and_inverse` of 2 x 2 matrices."""
    a, b, c = M[0, 0], M[0, 1], M[1, 1]
    inverse = np.empty_like(M)
    ratio = b / a
    schur = c - b * ratio
    inverse[1, 1] = 1.0 / schur
    inverse[0, 1] = inverse[1, 0] = -ratio * inverse[1, 1]
    inverse[0, 0] = 1.0 / a - ratio * inverse[0, 1]
    return np.log(a * schur), inverse


def congruence(T: FloatArray, A: FloatArray) -> FloatArray:
    """T' A_j T for every j; A has shape (k, k, J)."""
    if T.shape[0] == 1:
        scaled: FloatArray = A * T[0, 0] ** 2
        return scaled
    return right(left(T.T, A), T)


def left(T: FloatArray, A: FloatArray) -> FloatArray:
    """T A_j for every j; A has shape (k, l, J)."""
    return (T @ A.reshape(A.shape[0], -1)).reshape(T.shape[0], *A.shape[1:])


def right(A: FloatArray, T: FloatArray) -> FloatArray:
    """A_j T for every j; A has shape (l, k, J)."""
    if T.shape[0] >= _LARGE:
        return _unstacked(_stacked(A) @ T)
    product: FloatArray = np.matmul(T.T, A)
    return product


def product(A: FloatArray, B: FloatArray) -> FloatArray:
    """A_j B_j for every j; shapes (k, l, J) and (l, m, J), where J may be several axes that broadcast."""
    if A.shape[1] == 1:
        return A * B
    if A.shape[1] >= _LARGE:
        return _unstacked(_stacked(A) @ _stacked(B))
    out: FloatArray = A[:, 0, None] * B[None, 0]
    for i in range(1, A.shape[1]):
        out += A[:, i, None] * B[None, i]
    return out


def apply(A: FloatArray, B: FloatArray) -> FloatArray:
    """A_j B_j for every j where B holds rows: shapes (k, l, J) and (l, J, c), result (k, J, c)."""
    if A.shape[1] == 1:
        scaled: FloatArray = A[:, 0, :, None] * B
        return scaled
    if A.shape[1] >= _LARGE:
        rows = _stacked(A) @ np.ascontiguousarray(B.transpose(1, 0, 2))
        return np.ascontiguousarray(rows.transpose(1, 0, 2))
    out: FloatArray = A[:, 0, :, None] * B[None, 0]
    for i in range(1, A.shape[1]):
        out += A[:, i, :, None] * B[None, i]
    return out


def outer(A: FloatArray, B: FloatArray) -> FloatArray:
    """A_j B_j' for every j: shapes (k, J, c) and (l, J, c), result (k, l, J)."""
    if A.shape[0] == 1 and B.shape[0] == 1:
        single: FloatArray = np.einsum("jc,jc->j", A[0], B[0])[None, None]
        return single
    out: FloatArray = np.einsum("ajc,bjc->abj", A, B)
    return out


def transpose(A: FloatArray) -> FloatArray:
    """A_j' for every j."""
    return A.swapaxes(0, 1)


def symmetrize(A: FloatArray) -> FloatArray:
    """(A_j + A_j') / 2 for every j."""
    if A.shape[0] == 1:
        return A
    return 0.5 * (A + A.swapaxes(0, 1))


def factor_inverse(T: FloatArray) -> FloatArray:
    """Inverse of one factor of a covariance matrix, which mostly is lower triangular."""
    return np.asarray(lapack.dtrtri(T, lower=1)[0] if is_lower(T) else np.linalg.inv(T), dtype=np.float64)


def is_lower(T: FloatArray) -> bool:
    """Whether all elements above the diagonal are zero."""
    if T.shape[0] >= _LARGE:
        return not np.triu(T, 1).any()
    return not any(any(row[i + 1 :]) for i, row in enumerate(T.tolist()))


def eigen(S: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Eigenvalues, increasing, and eigenvectors of one symmetric matrix, of which the lower triangle is read.

    What `numpy.linalg.eigh` gives, without its preparations, which take longer than the work on a small matrix.

    Parameters
    ----------
    S : ndarray, shape (k, k)

    Raises
    ------
    LinAlgError
        The algorithm does not converge.
    """
    if not S.size:
        return np.zeros(0), np.zeros((0, 0))
    values, vectors, info = lapack.dsyevd(S, lower=1)
    if info:
        raise np.linalg.LinAlgError("eigenvalues did not converge")
    return values, vectors


def solve(A: FloatArray, b: FloatArray) -> FloatArray:
    """A^-1 b of one matrix, as `numpy.linalg.solve`, without its preparations.

    Parameters
    ----------
    A : ndarray, shape (k, k)
    b : ndarray, shape (k,) or (k, c)

    Raises
    ------
    LinAlgError
        A is singular.
    """
    if not b.size:
        return np.empty(b.shape)
    _, _, solution, info = lapack.dgesv(A, b)
    if info:
        raise np.linalg.LinAlgError("the matrix is singular")
    return np.asarray(solution)


def bordered(A: FloatArray, B: FloatArray, C: FloatArray) -> FloatArray:
    """The symmetric matrix [[A, B], [B', C]]; `numpy.block` looks at its arguments for longer than it copies them.

    Parameters
    ----------
    A : ndarray, shape (k, k)
    B : ndarray, shape (k, c)
    C : ndarray, shape (c, c)
    """
    k, c = B.shape
    out = np.empty((k + c, k + c))
    out[:k, :k], out[:k, k:], out[k:, :k], out[k:, k:] = A, B, B.T, C
    return out


def least_eigenvalue(S: FloatArray) -> float:
    """The smallest eigenvalue of one symmetric matrix that is not empty."""
    return float(S[0, 0]) if S.shape == (1, 1) else float(eigen(S)[0][0])


def symmetric_root(S: FloatArray) -> FloatArray:
    """R with R R' = S, from the eigenvectors of a positive semi-definite matrix; rounding below zero is zero.

    Parameters
    ----------
    S : ndarray, shape (k, k)
    """
    if S.shape == (1, 1):
        return np.sqrt(np.maximum(S, 0.0))
    values, vectors = eigen(S)
    root: FloatArray = vectors * np.sqrt(np.maximum(values, 0.0))
    return root


def mapped_root(S: FloatArray, T: FloatArray) -> FloatArray:
    """S T; rows that are rounding noise, because a variance is zero, are exact zeros.

    Parameters
    ----------
    S : ndarray, shape (k, k)
    T : ndarray, shape (k, l)
    """
    root: FloatArray = S @ T
    if root.shape == (1, 1):  # a single product has no other rounding than its own
        return root
    largest = np.abs(S) @ np.abs(T)
    lost = (root * root).sum(axis=1) <= 1e-26 * (largest * largest).sum(axis=1)
    if lost.any():
        root[lost] = 0.0
    return root


def singular_values(T: FloatArray) -> FloatArray:
    """Singular values of one matrix, decreasing."""
    return np.abs(T[0]) if T.shape == (1, 1) else _singular(T, vectors=False)[1]


def singular_parts(T: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """U, the singular values, decreasing, and V' of one square matrix T = U diag(values) V'."""
    if T.shape == (1, 1):
        return np.where(T < 0.0, -1.0, 1.0), np.abs(T[0]), np.ones((1, 1))
    return _singular(T, vectors=True)


def _singular(T: FloatArray, vectors: bool) -> tuple[FloatArray, FloatArray, FloatArray]:
    """As `numpy.linalg.svd`, without its preparations."""
    if not T.size:
        U, values, V = np.linalg.svd(T)
        return U, values, V
    U, values, V, info = lapack.dgesdd(T, compute_uv=int(vectors))
    if info:
        raise np.linalg.LinAlgError("singular values did not converge")
    return U, values, V


def lower_factor(M: FloatArray) -> FloatArray:
    """Lower triangular L with L L' = M M' and a non-negative diagonal; M may be singular or wide.

    Parameters
    ----------
    M : ndarray, shape (k, l)

    Returns
    -------
    ndarray, shape (k, k)
        Elements that are rounding noise against their row are exact zeros.
    """
    if M.shape == (1, 1):
        return np.abs(M)
    # Of a few columns, Python's own numbers are faster than arrays.
    rows: list[list[float]] = M.tolist()
    norms = [sqrt(sum(x * x for x in row)) for row in rows]
    canonical = M.shape[0] == M.shape[1] and all(
        row[i] > 1e-9 * norm and not any(row[i + 1 :]) for i, (row, norm) in enumerate(zip(rows, norms, strict=True))
    )
    L = rows if canonical else _orthogonalised(rows, norms)
    kept = [0.0 if abs(x) < 1e-15 * norm else x for row, norm in zip(L, norms, strict=True) for x in row]
    return np.array(kept, dtype=np.float64).reshape(M.shape[0], M.shape[0])


def _orthogonalised(rows: list[list[float]], norms: list[float]) -> list[list[float]]:
    """The triangle of `lower_factor`.

    Rows are orthonormalised one by one; a row inside the span of the ones before it gets a zero diagonal, which a QR
    of M' would replace by noise in the diagonal and arbitrary elements below it.
    """
    out: list[list[float]] = []
    basis: list[tuple[int, list[float]]] = []
    for i, row in enumerate(rows):
        rest, own = row, [0.0] * len(rows)
        for _ in range(2):
            for place, q in basis:
                amount = sum(map(mul, q, rest))
                own[place] += amount
                rest = [x - amount * z for x, z in zip(rest, q, strict=True)]
        size = sqrt(sum(x * x for x in rest))
        if size > 1e-9 * norms[i] and size > 0.0:
            own[i] = size
            basis.append((i, [x / size for x in rest]))
        out.append(own)
    return out
