"""The steps of a Markov chain."""

from __future__ import annotations

from dataclasses import dataclass

from lme4py.linalg.types import FloatArray

__all__ = ["Steps"]


@dataclass(frozen=True)
class Steps:
    """Steps of a chain from one row to the next, and their derivatives in the parameter of each; all of one shape.

    Attributes
    ----------
    s : ndarray
        Correlation with the row before.
    c : ndarray
        sqrt(1 - s^2), with a sign that makes it analytic.
    ds, dc, d2s, d2c : ndarray
    """

    s: FloatArray
    c: FloatArray
    ds: FloatArray
    dc: FloatArray
    d2s: FloatArray
    d2c: FloatArray
