"""log(F(a1 - eta) - F(a0 - eta)) and its derivatives, without cancellation in either tail.

F(x) = 1 - G(-x), G the inverse link: P(Y > k) = G(eta - alpha_k), a binomial model with that link. F is logistic,
normal, Cauchy, exp(-exp(-x)) for cloglog and 1 - exp(-exp(x)) for loglog.

With z = a - eta, d = a1 - a0, rho = 1 / (exp(d) - 1) and kappa = rho (1 + rho), the difference of two logistic
distributions factors,

    F(z1) - F(z0) = F(z1) (1 - F(z0)) (1 - exp(-d)),

and so does that of 1 - exp(-exp(z)): exp(-exp(z0)) (1 - exp(-exp(x))) with x = log(exp(a1) - exp(a0)) - eta. For
symmetric distributions in general, with A = log F and the pair mirrored into the left tail,

    log(F(z1) - F(z0)) = A(z1) + log(1 - exp(-(A(z1) - A(z0)))).

s is a common shift of z1 and z0, so that d/ds = -d/deta.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from lme4py.families.links import Derivatives, _gumbel_tail
from lme4py.linalg.types import FloatArray, IntArray

__all__ = ["Intervals", "RowParts", "make_intervals", "row_parts"]

_ABSENT: Final[Any] = None
Tail = Callable[[FloatArray], Derivatives]


@dataclass(frozen=True, slots=True)
class Intervals:
    """The thresholds around each of the K categories, each array of shape (K,).

    Attributes
    ----------
    low, high : ndarray
        -inf for the first category, inf for the last.
    width_log : ndarray
        log(1 - exp(-(high - low))), 0 for the first and the last.
    rho, kappa : ndarray
        0 for the first and the last.
    """

    low: FloatArray
    high: FloatArray
    width_log: FloatArray
    rho: FloatArray
    kappa: FloatArray


def make_intervals(alpha: FloatArray) -> Intervals:
    """The intervals between increasing thresholds, shape (K - 1,)."""
    low, high = np.append(-np.inf, alpha), np.append(alpha, np.inf)
    rho = np.zeros(low.size)
    width_log = np.zeros(low.size)
    if alpha.size > 1:
        width = np.diff(alpha)
        rho[1:-1] = 1.0 / np.expm1(width)
        width_log[1:-1] = np.log(-np.expm1(-width))
    return Intervals(low, high, width_log, rho, rho * (1.0 + rho))


@dataclass(slots=True)
class RowParts:
    """Log-probability of each row and its derivatives in s (a shift of both thresholds), a1 and a0.

    Attributes
    ----------
    value, s, ss, sss : ndarray
        l and its derivatives in s.
    up, low : ndarray
        In a1, in a0.
    up_s, low_s, up_ss, low_ss : ndarray
        Derivatives of `up` and `low` in s.
    up_up, low_low, up_low : ndarray
        Second derivatives in the thresholds.
    """

    value: FloatArray
    s: FloatArray = _ABSENT
    up: FloatArray = _ABSENT
    low: FloatArray = _ABSENT
    ss: FloatArray = _ABSENT
    sss: FloatArray = _ABSENT
    up_s: FloatArray = _ABSENT
    low_s: FloatArray = _ABSENT
    up_ss: FloatArray = _ABSENT
    low_ss: FloatArray = _ABSENT
    up_up: FloatArray = _ABSENT
    low_low: FloatArray = _ABSENT
    up_low: FloatArray = _ABSENT


def row_parts(link: str, tail: Tail, intervals: Intervals, codes: IntArray, eta: FloatArray, order: int) -> RowParts:
    """Log-probabilities of the categories `codes` with derivatives up to `order`.

    Parameters
    ----------
    link : str
    tail : callable
        log F with three derivatives; used for symmetric distributions without a closed form.
    intervals : Intervals
    codes : ndarray of int, shape (n,)
    eta : ndarray, shape (n,) or (N, n)
    order : int
        1 adds `s`, `up`, `low`; 2 adds `ss`; 3 adds the rest.
    """
    if link == "logit":
        return _logistic(intervals, codes, eta, order)
    if link == "loglog":
        return _gumbel(intervals, codes, eta, order)
    if link == "cloglog":
        mirrored = Intervals(
            -intervals.high[::-1],
            -intervals.low[::-1],
            intervals.width_log[::-1],
            intervals.rho[::-1],
            intervals.kappa[::-1],
        )
        return _mirror(_gumbel(mirrored, intervals.low.size - 1 - codes, -eta, order), order)
    return _symmetric(tail, intervals, codes, eta, order)


def _logistic(intervals: Intervals, codes: IntArray, eta: FloatArray, order: int) -> RowParts:
    z1, z0 = intervals.high[codes] - eta, intervals.low[codes] - eta
    e1, e0 = np.exp(-np.abs(z1)), np.exp(-np.abs(z0))
    q1, q0 = 1.0 + e1, 1.0 + e0
    value = np.minimum(z1, 0.0) - np.maximum(z0, 0.0) - np.log(q1 * q0) + intervals.width_log[codes]
    if order == 0:
        return RowParts(value)
    S1, F0 = np.where(z1 > 0, e1, 1.0) / q1, np.where(z0 > 0, 1.0, e0) / q0
    rho = intervals.rho[codes]
    parts = RowParts(value, S1 - F0, S1 + rho, -F0 - rho)
    if order == 1:
        return parts
    w1, w0 = e1 / (q1 * q1), e0 / (q0 * q0)
    parts.ss = -w1 - w0
    if order == 2:
        return parts
    kappa = intervals.kappa[codes]
    parts.up_s, parts.low_s = -w1, -w0
    parts.up_ss, parts.low_ss = w1 * (1.0 - 2.0 * S1), w0 * (2.0 * F0 - 1.0)
    parts.sss = parts.up_ss + parts.low_ss
    parts.up_up, parts.low_low, parts.up_low = -w1 - kappa, -w0 - kappa, np.broadcast_to(kappa, eta.shape)
    return parts


def _gumbel(intervals: Intervals, codes: IntArray, eta: FloatArray, order: int) -> RowParts:
    """F(z) = 1 - exp(-exp(z))."""
    middle = (intervals.high + intervals.width_log)[codes] - eta
    value, g1, g2, g3 = _gumbel_tail(middle)
    b = -np.exp(intervals.low[codes] - eta)  # log(1 - F(z0)) and all its derivatives
    value = value + b
    if order == 0:
        return RowParts(value)
    rho = intervals.rho[codes]
    up = 1.0 + rho
    parts = RowParts(value, g1 + b, up * g1, b - rho * g1)
    if order == 1:
        return parts
    parts.ss = g2 + b
    if order == 2:
        return parts
    parts.sss = g3 + b
    parts.up_s, parts.low_s = up * g2, b - rho * g2
    parts.up_ss, parts.low_ss = up * g3, b - rho * g3
    bent = intervals.kappa[codes] * g1
    parts.up_up = up * up * g2 - bent
    parts.low_low = b + rho * rho * g2 - bent
    parts.up_low = bent - up * rho * g2
    return parts


def _mirror(parts: RowParts, order: int) -> RowParts:
    """Derivatives for -eta and thresholds of opposite sign in reverse order."""
    if order == 0:
        return parts
    result = RowParts(parts.value, -parts.s, -parts.low, -parts.up, parts.ss)
    if order < 3:
        return result
    result.sss = -parts.sss
    result.up_s, result.low_s = parts.low_s, parts.up_s
    result.up_ss, result.low_ss = -parts.low_ss, -parts.up_ss
    result.up_up, result.low_low, result.up_low = parts.low_low, parts.up_up, parts.up_low
    return result


def _symmetric(tail: Tail, intervals: Intervals, codes: IntArray, eta: FloatArray, order: int) -> RowParts:
    """Any F with 1 - F(z) = F(-z): P is the end nearer to the middle, Q the other one, both in the left tail."""
    z1, z0 = intervals.high[codes] - eta, intervals.low[codes] - eta
    left = z1 + z0 < 0
    near, far = np.where(left, z1, -z0), np.where(left, z0, -z1)
    open_end = np.isinf(far)
    P, Q = tail(near), tail(np.where(open_end, 0.0, far))
    gap = np.where(open_end, np.inf, P[0] - Q[0])
    value = P[0] + np.log(-np.expm1(-gap))
    if order == 0:
        return RowParts(value)
    rho = 1.0 / np.expm1(gap)
    g1 = P[1] - Q[1]
    s, in_P, in_Q = P[1] + rho * g1, (1.0 + rho) * P[1], -rho * Q[1]
    sign = np.where(left, 1.0, -1.0)
    parts = RowParts(value, sign * s, np.where(left, in_P, -in_Q), np.where(left, in_Q, -in_P))
    if order == 1:
        return parts
    kappa, g2 = rho * (1.0 + rho), P[2] - Q[2]
    parts.ss = P[2] + rho * g2 - kappa * g1 * g1
    if order == 2:
        return parts
    third, g3 = (1.0 + 2.0 * rho) * kappa, P[3] - Q[3]
    parts.sss = sign * (P[3] + rho * g3 - 3.0 * kappa * g1 * g2 + third * g1**3)
    P_s = (1.0 + rho) * P[2] - kappa * g1 * P[1]
    Q_s = kappa * g1 * Q[1] - rho * Q[2]
    P_ss = (1.0 + rho) * P[3] - 2.0 * kappa * g1 * P[2] - kappa * g2 * P[1] + third * g1 * g1 * P[1]
    Q_ss = -third * g1 * g1 * Q[1] + kappa * g2 * Q[1] + 2.0 * kappa * g1 * Q[2] - rho * Q[3]
    parts.up_s, parts.low_s = np.where(left, P_s, Q_s), np.where(left, Q_s, P_s)
    parts.up_ss, parts.low_ss = np.where(left, P_ss, -Q_ss), np.where(left, Q_ss, -P_ss)
    PP, QQ = (1.0 + rho) * P[2] - kappa * P[1] * P[1], -rho * Q[2] - kappa * Q[1] * Q[1]
    parts.up_up, parts.low_low = np.where(left, PP, QQ), np.where(left, QQ, PP)
    parts.up_low = kappa * P[1] * Q[1]
    return parts
