"""Special functions of the response distributions, accurate where the textbook formula cancels."""

from __future__ import annotations

from typing import Final

import numpy as np
from scipy.special import digamma, gammaln, polygamma

from lme4py.linalg.types import FloatArray

__all__ = ["log1p_minus", "log_coefficient", "log_rising", "log_shape", "nb1_information"]

# Coefficients of z^-1, z^-3, ... in log Gamma(z) - [(z - 1/2) log z - z + log(2 pi)/2] (Stirling).
_STIRLING: Final = ((1, 1 / 12), (3, -1 / 360), (5, 1 / 1260), (7, -1 / 1680), (9, 1 / 1188))
# From here on five terms of the series leave less than 1e-13, also in the third derivative.
_LARGE: Final = 20.0


def log1p_minus(x: FloatArray) -> FloatArray:
    """log(1 + x) - x for x > -1, without cancellation near 0."""
    small = np.abs(x) < 0.01
    z = np.where(small, x, 0.0)
    series = z * z * (-1 / 2 + z * (1 / 3 + z * (-1 / 4 + z * (1 / 5 + z * (-1 / 6 + z * (1 / 7 - z / 8))))))
    result: FloatArray = np.where(small, series, np.log1p(x) - x)
    return result


def log_shape(a: FloatArray) -> tuple[FloatArray, FloatArray]:
    """K(a) = a log a - a - log Gamma(a) and a K'(a) = a (log a - digamma(a)), for a > 0.

    K is the part of a gamma log-density that depends on its shape only; for large a it is (log(a / 2 pi))/2
    minus a small series, where the three terms cancel.
    """
    large = a > _LARGE
    small_a, large_a = np.where(large, 1.0, a), np.where(large, a, 1.0)
    series = sum((c * large_a**-m for m, c in _STIRLING), np.zeros_like(a))
    d_series = sum((c * m * large_a**-m for m, c in _STIRLING), np.zeros_like(a))
    value = np.where(
        large,
        0.5 * np.log(large_a / (2.0 * np.pi)) - series,
        small_a * np.log(small_a) - small_a - gammaln(small_a),
    )
    return value, np.where(large, 0.5 + d_series, small_a * (np.log(small_a) - digamma(small_a)))


def log_rising(y: FloatArray, log_s: FloatArray, order: int = 3) -> tuple[FloatArray, ...]:
    """R = sum over j < y of log(1 + j / s), and its derivatives with respect to log s.

    R = log Gamma(y + s) - log Gamma(s) - y log s: the negative binomial's own part beside the Poisson.

    Parameters
    ----------
    y : ndarray
        Counts.
    log_s : ndarray
        Same shape, or one that broadcasts.
    order : int
        0 .. 3: how many derivatives.

    Returns
    -------
    tuple of order + 1 ndarrays

    Examples
    --------
    >>> import numpy as np
    >>> float(log_rising(np.array([3.0]), np.array([0.0]), 0)[0][0])  # log(1 * 2 * 3)
    1.791...
    """
    y, log_s = np.broadcast_arrays(y, log_s)
    results = tuple(np.zeros(y.shape) for _ in range(order + 1))
    # With y of 0 or 1 the sum is empty or log 1.
    large = (log_s > np.log(_LARGE)) & (y > 1.0)
    small = ~large & (y > 1.0)
    for where, function in ((small, _rising_direct), (large, _rising_stirling)):
        if where.any():
            for result, part in zip(results, function(y[where], log_s[where], order), strict=True):
                result[where] = part
    return results


def log_coefficient(y: FloatArray, log_s: FloatArray) -> tuple[FloatArray, FloatArray]:
    """log of Gamma(y + s) / (Gamma(s) y!), and its derivative with respect to log s, for large y and s < y.

    The first is R + y log s - log y!, the second R' + y with R of `log_rising`, without the cancellation of terms of
    the size of y log y.

    Parameters
    ----------
    y : ndarray
        Counts of 20 and more.
    log_s : ndarray, same shape

    Examples
    --------
    >>> import numpy as np
    >>> float(log_coefficient(np.array([1000.0]), np.array([0.0]))[0][0])  # log(1000! / 1000!)
    0.0
    """
    s = np.exp(log_s)
    a, d = y + 1.0, s - 1.0
    # log Gamma(a + d) - log Gamma(a) by Stirling's series.
    ratio = d * np.log(a) + (a + d - 0.5) * np.log1p(d / a) - d
    ratio += sum((c * ((a + d) ** -m - a**-m) for m, c in _STIRLING), np.zeros_like(a))
    value = ratio - gammaln(1.0 + s) + log_s
    return value, s * (digamma(y + s) - digamma(1.0 + s)) + 1.0


def _rising_direct(y: FloatArray, log_s: FloatArray, order: int) -> list[FloatArray]:
    """By gamma functions from j = 1 on: the term j = 0 is 0, and leaving it out removes the pole at s = 0."""
    s = np.exp(log_s)
    top, bottom = y + s, 1.0 + s
    parts = [gammaln(top) - gammaln(bottom) - (y - 1.0) * log_s]
    if order >= 1:
        d1 = s * (digamma(top) - digamma(bottom))
        parts.append(d1 - (y - 1.0))
    if order >= 2:
        d2 = s * s * (polygamma(1, top) - polygamma(1, bottom))
        parts.append(d1 + d2)
    if order >= 3:
        d3 = s**3 * (polygamma(2, top) - polygamma(2, bottom))
        parts.append(d1 + 3.0 * d2 + d3)
    return parts


def _rising_stirling(y: FloatArray, log_s: FloatArray, order: int) -> list[FloatArray]:
    """By Stirling's series, term by term in the difference between y + s and s."""
    s = np.exp(log_s)
    x = y / s
    r = 1.0 / (1.0 + x)
    v = x * r
    log_x, near = np.log1p(x), log1p_minus(x)
    rv = r * v
    # s (log(1 + x) - x), its derivatives; then those of -log(1 + x)/2.
    parts = [s * near + (y - 0.5) * log_x]
    if order >= 1:
        parts.append(s * near + 0.5 * v)
    if order >= 2:
        parts.append(s * (near + x * v) - 0.5 * rv)
    if order >= 3:
        parts.append(s * (near + x * v - v + rv) - 0.5 * rv * (v - r))
    for m, c in _STIRLING:
        low = c * s**-m
        high = low * r**m
        factor = m * r * high
        terms = (high - low, m * low - factor, factor * (m * r - v) - m * m * low)
        for k in range(min(order, 2) + 1):
            parts[k] += terms[k]
        if order >= 3:
            parts[3] += factor * (3.0 * m * rv - m * m * r * r - v * (v - r)) + m**3 * low
    return parts


def nb1_information(log_s: FloatArray, alpha: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Expected information on log s in a count with size s and variance s alpha (1 + alpha).

    J = s^2 * sum over j of P(Y > j) / (s + j)^2, written as the integral over tau > 0 of
    tau exp(-tau) (1 - (1 + alpha x)^-s) / x with x = 1 - exp(-tau / s). In log tau the integrand is analytic in
    a strip of half-width pi/2 and dies off on both sides, so the trapezoidal rule is exact to rounding.

    Parameters
    ----------
    log_s : ndarray
    alpha : ndarray, same shape

    Returns
    -------
    J, dJ/d(log s), dJ/d(log alpha) : ndarrays
    """
    # Beyond these ends s or 1/s is not a number of double precision, and J is at its limit.
    s = np.exp(np.clip(log_s, -600.0, 600.0))
    J, J_s, J_alpha = (np.zeros_like(s) for _ in range(3))
    step = 0.25
    # The lower end leaves out a part of relative size tau^2 (1 + alpha).
    low = -18.5 - 0.5 * float(np.log1p(np.max(alpha, initial=0.0)))
    for log_tau in np.arange(low, 3.9, step):
        tau = np.exp(log_tau)
        weight = step * tau * tau * np.exp(-tau)
        ratio = tau / s
        x = -np.expm1(-ratio)
        x_s = -ratio * np.exp(-ratio)
        log_term = np.log1p(alpha * x)
        hit = -np.expm1(-s * log_term)
        miss = 1.0 - hit
        slope = s * alpha / (1.0 + alpha * x)
        J += weight * hit / x
        J_s += weight * (miss * (s * log_term + slope * x_s) / x - (hit / x) * (x_s / x))
        J_alpha += weight * miss * slope
    return J, J_s, J_alpha
