"""Null vectors of a Gram matrix, and a basis of them with zeros in many places."""

from __future__ import annotations

import numpy as np

from lme4py.linalg.small import eigen
from lme4py.linalg.types import FloatArray

__all__ = ["INDEPENDENT", "echelon", "independent_rows", "null_space"]

# Smallest eigenvalue of a Gram matrix of directions of unit length that still counts as independent. Rounding leaves
# 1e-14 of it; the models of textbooks and of the reference files have more than 0.1.
INDEPENDENT = 1e-9
# Rounding of the Gram matrix of unit directions.
_ROUNDING = 1e-13
# Elements of a null vector of unit directions that are rounding, and pivots that are as large as the largest.
_ZERO, _LARGEST = 1e-10, 1.0 - 1e-6


def null_space(gram: FloatArray) -> FloatArray:
    """Orthonormal null vectors of a Gram matrix whose diagonal is at most one, as columns."""
    own = gram.diagonal()
    left = own > INDEPENDENT
    count = own.size
    gone = np.eye(count)[:, ~left]
    if not left.any():
        return gone
    root = np.sqrt(own[left])
    values, vectors = eigen(gram[left][:, left] / (root[:, None] * root))
    # What the projection leaves of a direction has lost digits.
    null = values < max(INDEPENDENT, _ROUNDING / float(own[left].min()))
    if not null.any():
        return gone
    found = np.zeros((count, int(null.sum())))
    found[left] = vectors[:, null] / root[:, None]
    return np.column_stack([gone, np.linalg.qr(found)[0]])


def echelon(rows: FloatArray) -> tuple[FloatArray, list[int]]:
    """Rows of the same space in reduced echelon form, with zeros in many places, and the column of each row's 1."""
    rows = rows.copy()
    pivots: list[int] = []
    for i in range(rows.shape[0]):
        sizes = np.abs(rows[i:]).max(axis=0)
        sizes[pivots] = 0.0
        # The first of the largest, up to rounding: callers order the columns by what they would rather eliminate.
        pivot = int(np.flatnonzero(sizes > _LARGEST * sizes.max())[0])
        best = i + int(np.argmax(np.abs(rows[i:, pivot])))
        rows[[i, best]] = rows[[best, i]]
        rows[i] /= rows[i, pivot]
        others = np.arange(rows.shape[0]) != i
        rows[others] -= np.outer(rows[others, pivot], rows[i])
        pivots.append(pivot)
    rows[np.abs(rows) < _ZERO] = 0.0
    return rows, pivots


def independent_rows(rows: FloatArray) -> FloatArray:
    """An orthonormal basis of the space of the rows."""
    _, sizes, right = np.linalg.svd(rows, full_matrices=False)
    return np.asarray(right[sizes > 1e-6 * sizes[0]])
