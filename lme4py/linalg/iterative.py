"""Conjugate gradients for many right-hand sides, and the logarithms of determinants that they give on the way.

The coefficients of conjugate gradients are those of the Lanczos process for the preconditioned matrix, started at the
preconditioned right-hand side z: they make a Gauss quadrature of z'log(A)z (Golub & Meurant 2010, *Matrices, Moments
and Quadrature*, chapters 4 and 6). For random signs z its mean is log|A| (Ubaru, Chen & Saad 2017, SIAM J. Matrix Anal.
38:1075).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.linalg

from lme4py.linalg.types import FloatArray

__all__ = ["Solved", "conjugate_gradients", "random_signs"]

Map = Callable[[FloatArray], FloatArray]


@dataclass(frozen=True)
class Solved:
    """Solutions of A x = b for the columns of b.

    Attributes
    ----------
    x : ndarray, shape (q, c)
    first : ndarray, shape (q, c)
        A times the preconditioned right-hand sides: the first product.
    residual : ndarray, shape (c,)
        Norms of the last residuals relative to the first, in the metric of the preconditioner.
    iterations : int
    log_moments : ndarray, shape (c,)
        z'(log(A) - A + I)z of the preconditioned matrix, z the preconditioned right-hand side: of random signs the mean
        of z'(A - I)z is known, and what is left varies less.
    """

    x: FloatArray
    first: FloatArray
    residual: FloatArray
    iterations: int
    log_moments: FloatArray


def random_signs(size: int, count: int, seed: int, first: int = 0) -> FloatArray:
    """Columns of independent signs, shape (size, count): of a seed always the same, however many are asked for.

    Parameters
    ----------
    size, count : int
    seed : int
    first : int
        Number of the first column.
    """
    columns = [
        np.random.default_rng([seed, k]).integers(0, 2, size, dtype=np.int8) for k in range(first, first + count)
    ]
    return np.array(columns, dtype=np.float64).reshape(count, size).T * 2.0 - 1.0


def conjugate_gradients(
    apply: Map,
    precondition: Map,
    b: FloatArray,
    tolerance: float,
    start: FloatArray | None = None,
    most: int = 1000,
) -> Solved:
    """Solve A x = b for all columns at once; A is positive definite.

    Parameters
    ----------
    apply, precondition : callable
        A, and the inverse of the preconditioner, for (q, c).
    b : ndarray, shape (q, c)
    tolerance : float
        For the residuals of all columns, relative to b (not to that of `start`).
    start : ndarray, shape (q, c), optional
    most : int
        Iterations.
    """
    whole = precondition(b)
    size = _inner(b, whole)
    x = np.zeros_like(b) if start is None else start.copy()
    r = b.copy() if start is None else b - apply(x)
    z = whole if start is None else precondition(r)
    rho = size.copy() if start is None else _inner(r, z)
    p, first = z.copy(), np.zeros_like(b)
    goal = tolerance**2 * np.maximum(size, np.finfo(float).tiny)
    alphas: list[FloatArray] = []
    betas: list[FloatArray] = []
    while len(alphas) < most and (rho > goal).any():
        product = apply(p)
        if not alphas:
            first = product
        curvature = _inner(p, product)
        # A column that has converged to the last digit stays where it is.
        alpha = np.divide(rho, curvature, out=np.zeros_like(rho), where=curvature > 0.0)
        x += alpha * p
        r = r - alpha * product
        z = precondition(r)
        before, rho = rho, _inner(r, z)
        beta = np.divide(rho, before, out=np.zeros_like(rho), where=before > 0.0)
        p *= beta
        p += z
        alphas.append(alpha)
        betas.append(beta)
    left = np.sqrt(rho / np.maximum(size, np.finfo(float).tiny))
    moments = _log_moments(np.array(alphas), np.array(betas), size) if start is None and alphas else np.zeros(size.size)
    return Solved(x, first, left, len(alphas), moments)


def _inner(a: FloatArray, b: FloatArray) -> FloatArray:
    return np.asarray(np.einsum("ij,ij->j", a, b))


def _log_moments(alphas: FloatArray, betas: FloatArray, size: FloatArray) -> FloatArray:
    """z'(log(A) - A + I)z of each column from the tridiagonal matrix of its coefficients."""
    out = np.zeros(size.size)
    for c, (alpha, beta) in enumerate(zip(alphas.T, betas.T, strict=True)):
        used = int((alpha > 0.0).cumprod().sum())
        diagonal = 1.0 / alpha[:used]
        diagonal[1:] += beta[: used - 1] / alpha[: used - 1]
        beside = np.sqrt(beta[: used - 1]) / alpha[: used - 1]
        values, vectors = scipy.linalg.eigh_tridiagonal(diagonal, beside)
        values = np.maximum(values, np.finfo(float).tiny)
        out[c] = size[c] * float(vectors[0] ** 2 @ (np.log(values) - values + 1.0))
    return out
