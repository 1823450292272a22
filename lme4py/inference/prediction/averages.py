"""Means over a normal part of the linear predictor: f(eta, v) = E g^-1(eta + sqrt(v) z), z standard normal.

Predictions averaged over the random effects, their limits and the margins of a session all come from here. The
derivatives in the variance follow from those in eta by the heat equation, df/dv = 1/2 d2f/deta2; that in the standard
deviation is 2 sd df/dv. Where the link has closed forms (`Link.averaged`) these are used; the other links are summed by
the trapezoidal rule.

The error of the trapezoidal rule falls exponentially with the inverse step h: as exp(-2 pi^2 / h^2) for the normal
density, and as exp(-2 pi d / (h sd)) for a function that is analytic in a strip of half-width d (Trefethen & Weideman
2014, SIAM Review 56:385, theorem 5.1). Gauss-Hermite rules of the same error need several times as many points where
the standard deviation is large.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from lme4py.chunks import chunk, from_size
from lme4py.errors import OptionError
from lme4py.families.averages import REACH, normal_nodes
from lme4py.families.links import Link
from lme4py.linalg.types import FloatArray, IntArray

__all__ = ["MeanDerivatives", "average_over", "averaged_mean", "normal_rule"]

_STEP: Final = 0.7
# -log of the relative error that is left.
_DIGITS: Final = 37.0
# Numbers of rows times nodes that are worked on at a time.
_HELD: Final = chunk(100_000)
# From this number of linear predictors with one variance a table is made: polynomials of degree 7 on pieces of length
# 1/8, whose error is below 1e-12 of the largest value.
_TABLE_FROM: Final = from_size(20_000, 1)
_PIECES: Final = 8
_POINTS: Final = 8
_ABSENT: Final[Any] = None


@dataclass(frozen=True, slots=True)
class MeanDerivatives:
    """A function of (eta, v) and its derivatives, each of the shape of eta; what the order left out is None.

    Attributes
    ----------
    f : ndarray
    e, v : ndarray
        First derivatives in eta and in the variance (order 1).
    ee, ev, vv : ndarray
        Second derivatives (order 2). `vv` is 0 where the variance is 0 and the mean has no closed form: the slope of
        the variance in theta is 0 there.
    """

    f: FloatArray
    e: FloatArray = _ABSENT
    v: FloatArray = _ABSENT
    ee: FloatArray = _ABSENT
    ev: FloatArray = _ABSENT
    vv: FloatArray = _ABSENT


def averaged_mean(link: Link, eta: FloatArray, variance: FloatArray | float | None, order: int = 0) -> MeanDerivatives:
    """E g^-1(eta + sqrt(v) z) with derivatives.

    Parameters
    ----------
    link : Link
    eta : ndarray
        Of any shape.
    variance : ndarray or float
        v, broadcasts with eta; None is 0, and negative numbers (rounding) count as 0.
    order : {0, 1, 2}
        Of the highest derivatives.

    Returns
    -------
    MeanDerivatives
        Absolute errors below 1e-12 of the largest value, for any standard deviation.

    Raises
    ------
    OptionError
        For the links 1/mu and 1/mu^2 where the linear predictor is negative with a probability above 1e-6.

    Examples
    --------
    >>> import numpy as np
    >>> from lme4py.families.links import PROBABILITY_LINKS
    >>> found = averaged_mean(PROBABILITY_LINKS["logit"], np.array([1.0, 1.0]), np.array([0.0, 4.0]), 1)
    >>> found.f.round(4), found.v.round(4)
    (array([0.7311, 0.6477]), array([-0.0454, -0.0105]))
    """
    v = np.broadcast_to(np.zeros(()) if variance is None else np.maximum(variance, 0.0), np.shape(eta))
    with np.errstate(under="ignore"):
        return _by_heat(_in_eta(link, np.asarray(eta, dtype=np.float64), v, order), order)


def _in_eta(link: Link, eta: FloatArray, v: FloatArray, order: int) -> tuple[FloatArray, ...]:
    closed = link.averaged(eta, v, order)
    if closed is not None:
        return closed
    sd = np.sqrt(v)
    found = _tabulated(link, eta, sd, order) if eta.size >= _TABLE_FROM and sd.any() else None
    return _trapezoidal(link, eta, sd, order) if found is None else found


def _by_heat(d: tuple[FloatArray, ...], order: int) -> MeanDerivatives:
    """Derivatives in v from those in eta, d = (f, f', ..., f'''')."""
    if order == 0:
        return MeanDerivatives(d[0])
    if order == 1:
        return MeanDerivatives(d[0], d[1], 0.5 * d[2])
    return MeanDerivatives(d[0], d[1], 0.5 * d[2], d[2], 0.5 * d[3], 0.25 * d[4])


# --- the trapezoidal rule


def normal_rule(link: Link, widest: float) -> tuple[FloatArray, FloatArray]:
    """Nodes and weights of a rule over the standard normal distribution, each (Q,).

    Exact to rounding for g^-1(eta + sd z), differences of it, and their derivatives.

    Parameters
    ----------
    link : Link
        g.
    widest : float
        Largest standard deviation; 0 gives one node.
    """
    if not widest > 0.0:
        return np.zeros(1), np.ones(1)
    if link.strip is None:
        raise OptionError(
            f"the link {link.name!r} does not say in which strip its inverse is analytic (`Link.strip`), so that no "
            "sum over the random effects is known to be exact. Use random effects at zero (include_random=False, "
            "random='zero')."
        )
    step = min(_STEP, 2.0 * np.pi * link.strip / (_DIGITS * widest))
    # A tail of g^-1 that falls like exp(eta) moves the mass of the integral by one standard deviation.
    return normal_nodes(step, REACH + (0.0 if link.heavy_tail else widest))


def average_over(
    function: Callable[[FloatArray], FloatArray], link: Link, eta: FloatArray, sd: FloatArray
) -> FloatArray:
    """Mean of function(eta + sd z); one node at a time, so that few values of `function` are held at once.

    Parameters
    ----------
    function : callable
        Of linear predictors (n,), made of g^-1(eta - constant).
    link : Link
        g.
    eta, sd : ndarray, shape (n,)

    Returns
    -------
    ndarray
        Of the shape of what `function` gives.
    """
    nodes, weights = normal_rule(link, float(np.max(sd, initial=0.0)))
    total: FloatArray = sum(w * function(eta + z * sd) for z, w in zip(nodes.tolist(), weights.tolist(), strict=True))
    return total


def _trapezoidal(link: Link, eta: FloatArray, sd: FloatArray, order: int) -> tuple[FloatArray, ...]:
    nodes, weights = normal_rule(link, float(sd.max(initial=0.0)))
    # The derivative in the variance is half the second one in eta.
    highest = {0: 0, 1: 2, 2: 3}[order]
    sums = [np.zeros_like(eta) for _ in range(highest + 1 + (order == 2))]
    # By Stein's identity the fourth derivative is the mean of z times the third over the standard deviation.
    inverse = np.divide(1.0, sd, out=np.zeros_like(sd), where=sd > 0)
    block = max(1, _HELD // max(eta.size, 1))
    for start in range(0, nodes.size, block):
        z, w = nodes[start : start + block], weights[start : start + block]
        at = eta + sd * z.reshape(-1, *(1,) * eta.ndim)
        if order == 0:
            sums[0] += np.tensordot(w, link.mean(at), axes=1)
            continue
        parts = link.mean_derivatives(at, highest)
        for total, part in zip(sums, parts, strict=False):
            total += np.tensordot(w, part, axes=1)
        if order == 2:
            sums[4] += np.tensordot(w * z, parts[3], axes=1) * inverse
    return tuple(sums)


def _tabulated(link: Link, eta: FloatArray, sd: FloatArray, order: int) -> tuple[FloatArray, ...] | None:
    """As `_trapezoidal`, by interpolation in eta; None where standard deviations differ or the range is too wide."""
    low, high = float(eta.min()), float(eta.max())
    if sd.min() != sd.max() or not (high - low) * _PIECES * _POINTS * 8 < eta.size:
        return None
    count = int((high - low) * _PIECES) + 1
    middles = low + (np.arange(count) + 0.5) / _PIECES
    # Chebyshev points of each piece, whose coordinate is -1 .. 1.
    t = np.cos(np.pi * (np.arange(_POINTS) + 0.5) / _POINTS)
    at = middles + t[:, None] * (0.5 / _PIECES)
    exact = _trapezoidal(link, at, np.full(at.shape, sd.flat[0]), order)
    back = np.linalg.inv(np.vander(t))
    piece = np.minimum(((eta - low) * _PIECES).astype(np.intp), count - 1)
    x = (eta - middles[piece]) * (2.0 * _PIECES)
    return tuple(_horner(back @ values, piece, x) for values in exact)


def _horner(coefficients: FloatArray, piece: IntArray, x: FloatArray) -> FloatArray:
    """Polynomials, highest power first, (d, pieces), at x of the pieces given."""
    total: FloatArray = coefficients[0][piece]
    for row in coefficients[1:]:
        total *= x
        total += row[piece]
    return total
