"""Rows of Poisson responses in their log mean t: y t - mu - log y!, y - mu and mu = exp(t), a block at a time.

A block stays in the cache of the processor while some passes go over it.
"""

from __future__ import annotations

import numpy as np

from lme4py.compiled.twins import with_loops
from lme4py.families.blocks.places import block_places
from lme4py.families.response import ResponseData
from lme4py.linalg.types import FloatArray

__all__ = ["poisson_rows"]


def poisson_rows(data: ResponseData, t: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Log-likelihood of each row, its derivative in t, and the mean.

    Parameters
    ----------
    data : ResponseData
        Whose y has the shape of t, or of its last axis.
    t : ndarray, shape (..., n)
    """
    value, slope, mu = np.empty(t.shape), np.empty(t.shape), np.empty(t.shape)
    fill = _fill.of(t.size) if t.ndim == 1 else _fill.plain
    for rows in block_places(t.shape):
        # NumPy's exponentials are those of the widest registers that the processor has.
        np.exp(t[rows], out=mu[rows])
        fill(t[rows], mu[rows], data.y[rows], data.log_factorial[rows], value[rows], slope[rows])
    return value, slope, mu


def _fill_loops(
    t: FloatArray, mu: FloatArray, y: FloatArray, constant: FloatArray, value: FloatArray, slope: FloatArray
) -> None:
    for i in range(t.size):
        value[i] = y[i] * t[i] - mu[i] - constant[i]
        slope[i] = y[i] - mu[i]


@with_loops(_fill_loops, "f1 f1 f1 f1 F1 F1")
def _fill(
    t: FloatArray, mu: FloatArray, y: FloatArray, constant: FloatArray, value: FloatArray, slope: FloatArray
) -> None:
    """Fill log-likelihood and slope of one block.

    Parameters
    ----------
    t, mu, y, constant : ndarray
        Log mean, mean, response and log y!.
    value, slope : ndarray
    """
    np.multiply(y, t, out=value)
    value -= mu
    value -= constant
    np.subtract(y, mu, out=slope)
