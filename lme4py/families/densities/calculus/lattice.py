"""Sums over whole numbers of terms with one peak: which numbers count, in tables for many rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from lme4py.chunks import chunk
from lme4py.families.densities.calculus.special import log1p_minus
from lme4py.linalg.types import FloatArray, IntArray

__all__ = ["deviance", "node_blocks", "window"]

# Terms smaller than e^-42 times the largest one change no digit of their sum.
_DROP: Final = 42.0
# Elements of a table of rows by nodes.
_TABLE: Final = chunk(400_000)


def deviance(j: FloatArray, rate: FloatArray, log_rate: FloatArray) -> FloatArray:
    """j log(j / rate) - j + rate for j >= 0 (Loader's bd0), without cancellation where j is near a large rate."""
    some = np.where(j > 0.0, j, 1.0)
    plain = some * (np.log(some) - log_rate) - some + rate
    if np.any(rate > 30.0):
        u = (rate - some) / some
        plain = np.where(np.abs(u) < 0.5, -some * log1p_minus(np.where(np.abs(u) < 0.5, u, 0.0)), plain)
    return np.where(j > 0.0, plain, rate)


def window(rate: FloatArray, power: FloatArray, lowest: int = 0) -> tuple[FloatArray, FloatArray]:
    """First and last whole number with power * deviance(j, rate) below what still counts.

    From deviance(rate + d, rate) >= d^2 / (2 (rate + d/3)) and deviance(rate - d, rate) >= d^2 / (2 rate).
    """
    c = _DROP / power
    peak = np.maximum(rate, 1.0)
    up = c / 3.0 + np.sqrt(c * c / 9.0 + 2.0 * c * peak)
    low = np.maximum(np.floor(rate - np.sqrt(2.0 * c * rate)), float(lowest))
    return low, np.maximum(np.ceil(peak + up), low + 1.0)


def node_blocks(low: FloatArray, high: FloatArray) -> Iterator[tuple[IntArray, FloatArray]]:
    """Rows with windows of alike length, and the whole numbers of each as a table (rows, nodes).

    A table may go beyond the end of a window, never before its start.
    """
    count = high - low + 1.0
    order = np.argsort(count)
    start = 0
    while start < order.size:
        longest = 1.5 * count[order[start]] + 8.0
        stop = int(np.searchsorted(count[order], longest, side="right"))
        stop = min(stop, start + max(1, int(_TABLE / longest)))
        rows = order[start:stop]
        yield rows, low[rows, None] + np.arange(int(count[rows].max()))
        start = stop
