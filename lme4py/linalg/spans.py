"""Whether the columns of one matrix are linear combinations of those of another."""

from __future__ import annotations

import numpy as np

from lme4py.linalg.types import FloatArray, IntArray

__all__ = ["pivoted", "same_span", "spans"]

_TOLERANCE = 1e-6


def spans(outer: FloatArray, inner: FloatArray) -> bool:
    """Are the columns of `inner` linear combinations of those of `outer`?"""
    if not inner.shape[1]:
        return True
    if not outer.shape[1]:
        return False
    Q, R, _ = pivoted(outer)
    basis = Q[:, np.abs(R.diagonal()) > 1e-10 * abs(R[0, 0])]
    rest = inner - basis @ (basis.T @ inner)
    return bool((np.linalg.norm(rest, axis=0) <= _TOLERANCE * np.linalg.norm(inner, axis=0)).all())


def same_span(a: FloatArray, b: FloatArray) -> bool:
    """Do the columns of both matrices span the same space?"""
    return spans(a, b) and spans(b, a)


def pivoted(M: FloatArray) -> tuple[FloatArray, FloatArray, IntArray]:
    import scipy.linalg

    scaled = M / np.maximum(np.linalg.norm(M, axis=0), 1e-300)
    Q, R, order = scipy.linalg.qr(scaled, mode="economic", pivoting=True, check_finite=False)
    return Q, R, order
