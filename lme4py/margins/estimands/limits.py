"""Estimates that depend on coefficients without a finite estimate (separation): their limits, without errors.

An estimand is a function of the parameters, whatever it averages and compares. Moved far along the directions in which
the likelihood rises for ever (`lme4py.engine.identification.recession`) it has a limit, which is the same along all of
them, or it has none. Moved back from there it changes if it depends on them: then the curvature says nothing about its
error.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lme4py.engine.identification.recession import Recession
from lme4py.linalg.types import BoolArray, FloatArray

__all__ = ["Limits", "limits_of"]

# How far along the directions: limits agree there, and rounding of the predictors is still small.
_FAR = 1e4
# Differences that are rounding, of the size of the estimates.
_SAME = 1e-6
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Limits:
    """What becomes of estimates in the limit.

    Attributes
    ----------
    value : ndarray, shape (K,)
        Limits: finite, +inf or -inf, or NaN where there is none.
    depends : ndarray of bool, shape (K,)
        Which estimates depend on what is not finite; the others are those of the fit.
    """

    value: FloatArray
    depends: BoolArray


def limits_of(
    evaluate: Callable[[FloatArray], FloatArray], value: FloatArray, recession: Recession, tail: float
) -> Limits:
    """The limits of estimates.

    Parameters
    ----------
    evaluate : callable
        Estimates, (K,), for coefficients that differ from those of the fit by a vector, (P,).
    value : ndarray, shape (K,)
        Those of the fit.
    recession : Recession
    tail : float
        Predictors of this size are in the tails of the link.
    """
    directions = recession.directions
    with np.errstate(all="ignore"):
        depends = _differ(evaluate(-tail * directions[0]), value, _ROUNDING)
        if not depends.any():
            return Limits(value, depends)
        far = max(_FAR, 10.0 * tail)
        ends = np.array([_limit(evaluate(far * d), evaluate(10.0 * far * d)) for d in directions])
    same = ~np.array([_differ(end, ends[0], _SAME) for end in ends]).any(axis=0)
    return Limits(np.where(depends, np.where(same, ends[0], np.nan), value), depends)


def _limit(near: FloatArray, far: FloatArray) -> FloatArray:
    """Where values at two distances go."""
    moves = _differ(near, far, _SAME)
    return np.where(moves & np.isfinite(far), np.sign(far - near) * np.inf, far)


def _differ(one: FloatArray, other: FloatArray, part: float) -> BoolArray:
    """Which numbers differ by more than a part of their size; infinities of one sign are the same."""
    finite = np.isfinite(one) & np.isfinite(other)
    size = np.maximum(np.abs(one), np.abs(other))
    with np.errstate(invalid="ignore"):
        differ: BoolArray = np.where(finite, np.abs(one - other) > part * size, one != other)
    return differ
