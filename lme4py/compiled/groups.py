"""Sums and look-ups by group, over rows in any order.

Loops add in the order of the rows, as `numpy.bincount` does: their sums by group are equal to the last bit. Codes are
places of an array; that they are unsigned spares a look at their sign.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lme4py.chunks import chunk
from lme4py.compiled.twins import with_loops
from lme4py.linalg.types import FloatArray, IntArray

__all__ = ["AT_ONCE", "group_sum", "predictor", "weighted_cross", "weighted_sums"]

# Rows whose products are added up before they are added to those of others: an argument, since numba keeps machine code
# with the constants that it was made with.
AT_ONCE = chunk(512)


def _group_sum(codes: IntArray, x: FloatArray, n_levels: int) -> FloatArray:
    out = np.zeros(n_levels)
    for i in range(codes.size):
        out[np.uintp(codes[i])] += x[i]
    return out


@with_loops(_group_sum, "i1 f1 i")
def group_sum(codes: IntArray, x: FloatArray, n_levels: int) -> FloatArray:
    """Sums over the rows of each group, (J,).

    Parameters
    ----------
    codes : ndarray of int, shape (n,)
    x : ndarray, shape (n,)
    n_levels : int
    """
    counted: Any = np.bincount(codes, weights=x, minlength=n_levels)
    return np.asarray(counted, dtype=np.float64)


def _weighted_cross(
    codes: IntArray, w: FloatArray, columns: FloatArray, n_levels: int, size: int, first: FloatArray
) -> tuple[FloatArray, FloatArray]:
    p, n = columns.shape
    known = 1 if first.size else 0
    sums, cross = np.zeros((p, n_levels)), np.zeros((p, p))
    values = np.empty(size)
    for begin in range(0, n, size):
        end = min(begin + size, n)
        own_codes, own_w, changed = codes[begin:end], w[begin:end], values[: end - begin]
        for a in range(p):
            column, total = columns[a][begin:end], sums[a]
            for i in range(changed.size):
                changed[i] = own_w[i] * column[i]
            if a >= known:
                for i in range(changed.size):
                    total[np.uintp(own_codes[i])] += changed[i]
            for b in range(a + 1):
                cross[a, b] += np.dot(changed, columns[b][begin:end])
    for j in range(first.size):
        sums[0, j] = first[j]
    for a in range(p):
        for b in range(a):
            cross[b, a] = cross[a, b]
    return sums.T, cross


@with_loops(_weighted_cross, "i1 f1 f2 i i f1")
def weighted_cross(
    codes: IntArray, w: FloatArray, columns: FloatArray, n_levels: int, size: int, first: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Sums of W X over the rows of each group, (J, p), and X'W X, (p, p).

    Parameters
    ----------
    codes : ndarray of int, shape (n,)
    w : ndarray, shape (n,)
    columns : ndarray, shape (p, n)
        X'.
    n_levels : int
    size : int
        Rows that loops work on at a time: `AT_ONCE`.
    first : ndarray, shape (J,), or empty
        The sums of the first column, where they are known.
    """
    weighted, sums = columns * w, np.empty((columns.shape[0], n_levels))
    known = 1 if first.size else 0
    if known:
        sums[0] = first
    for own, total in zip(weighted[known:], sums[known:], strict=True):
        total[:] = np.bincount(codes, weights=own, minlength=n_levels)
    return sums.T, columns @ weighted.T


def _predictor(
    codes: IntArray, b: FloatArray, columns: FloatArray, beta: FloatArray, start: FloatArray, out: FloatArray, size: int
) -> None:
    for begin in range(0, codes.size, size):
        end = min(begin + size, codes.size)
        own_codes, own_start, own = codes[begin:end], start[begin:end], out[begin:end]
        for i in range(own.size):
            own[i] = own_start[i] + b[np.uintp(own_codes[i])]
        for a in range(beta.size):
            column, factor = columns[a][begin:end], beta[a]
            for i in range(own.size):
                own[i] += column[i] * factor


@with_loops(_predictor, "i1 f1 f2 f1 f1 F1 i")
def predictor(
    codes: IntArray, b: FloatArray, columns: FloatArray, beta: FloatArray, start: FloatArray, out: FloatArray, size: int
) -> None:
    """Fill with start + X beta + Z b, (n,).

    Parameters
    ----------
    codes : ndarray of int, shape (n,)
    b : ndarray, shape (J,)
        One effect of each group.
    columns : ndarray, shape (p, n)
        X'.
    beta : ndarray, shape (p,), or empty
    start, out : ndarray, shape (n,)
    size : int
        Rows that loops work on at a time: `AT_ONCE`.
    """
    # Codes are places of b: "clip" leaves out the buffer that a check would need.
    b.take(codes, out=out, mode="clip")
    out += start + beta @ columns if beta.size else start


def _weighted_sums(
    codes: IntArray, b: FloatArray, columns: FloatArray, beta: FloatArray, w: FloatArray, start: FloatArray, size: int
) -> tuple[FloatArray, FloatArray]:
    p, n = columns.shape
    sums, products = np.zeros(b.size), np.zeros(p)
    values = np.empty(size)
    for begin in range(0, n, size):
        end = min(begin + size, n)
        own_codes, own_w, own_start, x = codes[begin:end], w[begin:end], start[begin:end], values[: end - begin]
        for i in range(x.size):
            x[i] = b[np.uintp(own_codes[i])]
        for a in range(beta.size):
            column, factor = columns[a][begin:end], beta[a]
            for i in range(x.size):
                x[i] += column[i] * factor
        for i in range(x.size):
            x[i] = own_w[i] * x[i] + own_start[i]
        for i in range(x.size):
            sums[np.uintp(own_codes[i])] += x[i]
        for a in range(p):
            products[a] += np.dot(x, columns[a][begin:end])
    return sums, products


@with_loops(_weighted_sums, "i1 f1 f2 f1 f1 f1 i")
def weighted_sums(
    codes: IntArray, b: FloatArray, columns: FloatArray, beta: FloatArray, w: FloatArray, start: FloatArray, size: int
) -> tuple[FloatArray, FloatArray]:
    """Sums of x = start + W (X beta + Z b) over the rows of each group, (J,), and X'x, (p,).

    Parameters
    ----------
    codes : ndarray of int, shape (n,)
    b : ndarray, shape (J,)
        One effect of each group.
    columns : ndarray, shape (p, n)
        X'.
    beta : ndarray, shape (p,), or empty
    w, start : ndarray, shape (n,)
    size : int
        Rows that loops work on at a time: `AT_ONCE`.
    """
    x = b.take(codes)
    if beta.size:
        x += beta @ columns
    x *= w
    x += start
    sums: Any = np.bincount(codes, weights=x, minlength=b.size)
    return np.asarray(sums, dtype=np.float64), columns @ x
