"""The rate of the Conway-Maxwell-Poisson distribution for many rows: by a table for each nu, where rows share it.

For one nu, A and R are smooth functions of L = log mu, and the steps of a conditional mode change the means and not nu.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np

from lme4py.chunks import from_size
from lme4py.families.densities.calculus.jets import Index, degrees_of
from lme4py.families.densities.calculus.tables import ChebyshevTable
from lme4py.families.densities.series.conway_maxwell_sums import Curve, exact_curve, is_centered
from lme4py.linalg.types import FloatArray, IntArray

__all__ = ["curve"]

_KEYS: Final[tuple[Index, ...]] = degrees_of(3, (0, 1)).indices()
# By the number of derivatives: those of third order carry the rounding of the sums.
_TOLERANCE: Final = np.array([(4e-13, 4e-13, 4e-12, 3e-11)[len(key)] for key in _KEYS] * 2 + [1e-12])
# Rows that share a nu pay for a table from here on; beyond this nu the counts are so regular that pieces are short.
_SHARED: Final = from_size(24, 1)
_REGULAR: Final = float(np.log(20.0))
# The last curve of so many numbers is kept, with its order.
_REMEMBERED: Final = from_size(20_000, 1)
_KNOWN: Final[dict[tuple[bytes, bytes], tuple[int, Curve]]] = {}


def curve(L: FloatArray, N: FloatArray, order: int = 3) -> Curve:
    """A(L, N) and R(L, N) with derivatives to the order asked for, for arrays of any one shape.

    Parameters
    ----------
    L : ndarray
        log mu.
    N : ndarray
        log nu, of the shape of `L` or one number.
    order : {0, 1, 2, 3}
    """
    key = _key(L, N)
    known = None if key is None else _KNOWN.get(key)
    if known is not None and known[0] >= order:
        return known[1]
    found = _curve(L, N, order)
    if key is not None:
        _KNOWN.clear()
        _KNOWN[key] = order, found
    return found


def _key(L: FloatArray, N: FloatArray) -> tuple[bytes, bytes] | None:
    """The arguments themselves, where they are few: a log-likelihood asks for one curve several times."""
    few = np.size(L) <= _REMEMBERED and np.size(N) <= _REMEMBERED
    return (np.asarray(L).tobytes(), np.asarray(N).tobytes()) if few else None


def _curve(L: FloatArray, N: FloatArray, order: int) -> Curve:
    shape = np.broadcast_shapes(np.shape(L), np.shape(N))
    flat = np.broadcast_to(L, shape).ravel()
    if np.size(N) == 1:
        found = _shared(flat, float(np.ravel(N)[0]), order)
    else:
        found = _by_value(flat, np.broadcast_to(N, shape).ravel(), order)
    rate, total = ({k: np.asarray(p).reshape(shape) for k, p in part.items()} for part in (found.rate, found.total))
    return Curve(dict(rate), dict(total), found.centered.reshape(shape))


def _by_value(L: FloatArray, N: FloatArray, order: int) -> Curve:
    """Rows with the same nu by its table; where almost every row has its own, each by itself."""
    values, index, count = np.unique(N, return_inverse=True, return_counts=True)
    keys = degrees_of(order, (0, 1)).indices()
    found = Curve({k: np.empty(L.size) for k in keys}, {k: np.empty(L.size) for k in keys}, np.empty(L.size, bool))
    for k in np.flatnonzero(count >= _SHARED):
        rows = np.flatnonzero(index == k)
        _put(found, rows, _shared(L[rows], float(values[k]), order))
    rows = np.flatnonzero(count[index] < _SHARED)
    if rows.size:
        _put(found, rows, exact_curve(L[rows], N[rows], order))
    return found


def _put(found: Curve, rows: IntArray, part: Curve) -> None:
    for ours, theirs in ((found.rate, part.rate), (found.total, part.total)):
        for key in ours:
            np.asarray(ours[key])[rows] = theirs[key]
    found.centered[rows] = part.centered


def _shared(L: FloatArray, N: float, order: int) -> Curve:
    if L.size < _SHARED or N > _REGULAR or not np.isfinite(L).all():
        return exact_curve(L, np.full(L.shape, N), order)
    keys = [key for key in _KEYS if len(key) <= order]
    half = [i for i, key in enumerate(_KEYS) if len(key) <= order]
    chosen = np.array([*half, *(len(_KEYS) + i for i in half), 2 * len(_KEYS)])
    values = _table(N)(L, chosen)
    rate, total = values[: len(keys)], values[len(keys) : -1]
    return Curve(dict(zip(keys, rate, strict=True)), dict(zip(keys, total, strict=True)), values[-1] > 0.5)


@lru_cache(maxsize=64)
def _table(N: float) -> ChebyshevTable:
    def exact(L: FloatArray, middle: FloatArray) -> FloatArray:
        shared = np.full(L.shape, N)
        found = exact_curve(L, shared, 3, is_centered(middle, shared))
        parts = [part[key] for part in (found.rate, found.total) for key in _KEYS]
        return np.stack([*(np.asarray(part) for part in parts), found.centered.astype(np.float64)])

    return ChebyshevTable(exact, _TOLERANCE)
