"""Elimination of a stage whose levels meet too many other effects for a list of all products.

Its rows of A are expanded to dense ones a few levels at a time, and the changes are made by matrix products.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import scipy.linalg.blas as blas

from lme4py.engine.types import FloatArray, SparseMatrix

# Bytes of the expanded rows at one time.
_CHUNK = 64 * 2**20


def _chunks(C: SparseMatrix, k: int, J: int) -> Iterator[tuple[slice, list[FloatArray]]]:
    """Levels, and for each column of the term their rows of C as dense ones."""
    levels = max(1, _CHUNK // (8 * k * C.shape[1]))
    for start in range(0, J, levels):
        place = slice(start, min(start + levels, J))
        yield place, [C[a * J + place.start : a * J + place.stop].toarray() for a in range(k)]


def subtract_gram(C: SparseMatrix, E: FloatArray, K: FloatArray) -> None:
    """Subtract C'EC from the lower triangle of K, in place.

    Parameters
    ----------
    C : csr_array, shape (k J, q)
    E : ndarray, shape (k, k, J)
    K : ndarray, shape (q, q), C order
    """
    k, _, J = E.shape
    for place, rows in _chunks(C, k, J):
        if k == 1:
            rows[0] *= np.sqrt(E[0, 0, place])[:, None]
            # The transposes are in Fortran order: the upper triangle of K' is the lower one of K.
            blas.dsyrk(-1.0, rows[0].T, beta=1.0, c=K.T, trans=0, lower=0, overwrite_c=1)
            continue
        for a in range(k):
            scaled = sum((E[a, b, place][:, None] * rows[b] for b in range(k)), np.zeros_like(rows[a]))
            K -= rows[a].T @ scaled


def gram_adjoint(C: SparseMatrix, J: int, k: int, inverse: FloatArray, lam: FloatArray | None) -> FloatArray:
    """Diagonal blocks of C D C' with D = diag(lam) inverse diag(lam), shape (k, k, J).

    Parameters
    ----------
    C : csr_array, shape (k J, q)
    inverse : ndarray, shape (q, q)
        Its lower triangle is used.
    lam : ndarray, shape (q,), or None
    """
    out = np.empty((k, k, J))
    for place, rows in _chunks(C, k, J):
        scaled = rows if lam is None else [block * lam for block in rows]
        for a in range(k):
            moved = blas.dsymm(1.0, inverse.T, scaled[a].T, lower=0).T
            for b in range(k):
                out[a, b, place] = np.einsum("jc,jc->j", moved, scaled[b])
    return out
