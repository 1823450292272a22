"""Special functions of the response distributions, with derivatives, accurate where the textbook formula cancels.

Most log-densities hold differences of log gamma functions that grow like x log x while the difference does not. All
of them are written here with the remainder of Stirling's formula,

    delta(x) = log Gamma(x) - [(x - 1/2) log x - x + log(2 pi)/2],

which is small, and with `log1p_minus` and `expm1_minus` for what is left of the large terms (Loader 2000, *Fast and
accurate computation of binomial probabilities*). Functions of a positive quantity x take t = log x and give
derivatives with respect to t: x may then be as small or as large as double precision allows.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from scipy import special

from lme4py.chunks import from_size
from lme4py.linalg.types import FloatArray

__all__ = [
    "LOG_2PI",
    "NEAR_ZERO",
    "expm1_minus",
    "expm1_minus_slopes",
    "log1mexp",
    "log1p_minus",
    "log1p_minus_slope",
    "log_expm1_ratio",
    "log_factorial_remainder",
    "log_log1p",
    "log_log1p_rest",
    "near_log1p_minus_slope",
    "rising",
    "sigmoid",
    "sigmoid_softplus",
    "softplus",
    "stirling",
]

LOG_2PI: Final = float(np.log(2.0 * np.pi))
# Up to here log(1 + x) is taken by its series, less the terms that cancel.
NEAR_ZERO: Final = 0.25
# Coefficients of x^-1, x^-3, ... of Stirling's series: B_2k / (2k (2k - 1)).
_STIRLING: Final = (
    1 / 12,
    -1 / 360,
    1 / 1260,
    -1 / 1680,
    1 / 1188,
    -691 / 360360,
    1 / 156,
    -3617 / 122400,
)
# From here on eight terms of the series leave less than 1e-16, also in the third derivative.
_LARGE: Final = 15.0
_LOG_LARGE: Final = float(np.log(_LARGE))
_SHIFT: Final = 15
_STEPS: Final = np.arange(1.0, _SHIFT)
# Of x^-(2 m + 1), a column for each m, in the k-th derivative with respect to log x, a row for each k.
_COEFFICIENTS: Final = np.array([[c * (-(2.0 * m + 1.0)) ** k for m, c in enumerate(_STIRLING)] for k in range(4)])
# Up to so many numbers are summed over a table.
_FEW: Final = from_size(512)
# The exponential of a larger number may be infinite.
_HIGHEST: Final = 709.0
# log x outside of these is taken at them: x is no number of double precision there.
_RANGE: Final = (-700.0, 700.0)


def log1p_minus(x: FloatArray) -> FloatArray:
    """log(1 + x) - x for x > -1, without cancellation near 0."""
    near = np.abs(x) < NEAR_ZERO
    result: FloatArray = np.where(near, _near_log1p_minus(np.where(near, x, 0.0)), np.log1p(x) - x)
    return result


def _near_log1p_minus(x: FloatArray) -> FloatArray:
    """The same near 0: with v = x / (2 + x) it is -x v + 2 v^3 (1/3 + v^2/5 + v^4/7 + ...)."""
    v = x / (2.0 + x)
    result: FloatArray = v * (2.0 * _atanh_rest(v) - x)
    return result


def _atanh_rest(v: FloatArray) -> FloatArray:
    """atanh(v) / v - 1 = v^2/3 + v^4/5 + ... of abs(v) up to 1/7."""
    w = v * v
    series = np.full_like(w, 1 / 21)
    for k in (19, 17, 15, 13, 11, 9, 7, 5, 3):
        series *= w
        series += 1 / k
    series *= w
    return series


def log1p_minus_slope(x: FloatArray) -> FloatArray:
    """log(1 + x) - x / (1 + x) for x > -1: positive, x^2/2 near 0, without cancellation."""
    near = np.abs(x) < NEAR_ZERO
    z = np.where(near, x, 0.0)
    result: FloatArray = np.where(near, near_log1p_minus_slope(z), np.log1p(x) - x / (1.0 + x))
    return result


def near_log1p_minus_slope(x: FloatArray) -> FloatArray:
    """The same where abs(x) is below `NEAR_ZERO`: with v = x / (2 + x) it is 2 v (v / (1 + v) + v^2/3 + ...)."""
    v = x / (2.0 + x)
    result: FloatArray = 2.0 * v * (v / (1.0 + v) + _atanh_rest(v))
    return result


def expm1_minus(x: FloatArray) -> FloatArray:
    """e^x - 1 - x, without cancellation near 0."""
    near = np.abs(x) < 0.5
    z = np.where(near, x, 0.0)
    series = np.full_like(z, 1 / 15)
    for k in range(14, 2, -1):
        series = (1.0 + z * series) / k
    result: FloatArray = np.where(near, 0.5 * z * z * (1.0 + z * series), np.expm1(x) - x)
    return result


def expm1_minus_slopes(x: FloatArray, order: int = 3) -> list[FloatArray]:
    """(e^x - 1 - x) / x^2 and its derivatives in x: the entire function 1/2 + x/6 + x^2/24 + ..."""
    near = np.abs(x) < 1.5
    z = np.where(near, x, 0.0)
    far = np.where(near, 2.0, x)
    r = 1.0 / far
    e = np.exp(np.minimum(far, 700.0))
    # phi_2 = (phi_1 - 1)/x with phi_1 = (e^x - 1)/x; the derivatives follow from phi_k' = phi_k - (k) phi_{k+1} ...
    direct = [(np.expm1(np.minimum(far, 700.0)) - far) * r * r]
    top = np.expm1(np.minimum(far, 700.0))
    for k in range(order):
        # x^2 f = e^x - 1 - x, differentiated k + 1 times.
        top = e if k else top
        low = 2.0 * (k + 1) * far * direct[k] + (k * (k + 1) * direct[k - 1] if k else 0.0)
        direct.append((top - low) * r * r)
    out = []
    for k in range(order + 1):
        # Sum over j of x^j (j + 1) ... (j + k) / (j + k + 2)!
        term = np.full_like(z, 1.0 / ((k + 1) * (k + 2)))
        total = term.copy()
        for j in range(1, 26):
            term = term * z * ((j + k) / (j * (j + k + 2.0)))
            total += term
        out.append(np.where(near, total, direct[k]))
    return out


def softplus(x: FloatArray) -> FloatArray:
    """log(1 + e^x)."""
    result: FloatArray = np.maximum(np.log1p(np.exp(np.minimum(x, _HIGHEST))), x)
    return result


def sigmoid(x: FloatArray) -> tuple[FloatArray, FloatArray]:
    """1 / (1 + e^-x) and 1 / (1 + e^x), both to full relative accuracy."""
    # One of the exponentials is 1, and their sum 1 + e^-|x|.
    left, right = np.exp(np.minimum(x, 0.0)), np.exp(-np.maximum(x, 0.0))
    both = left + right
    return left / both, right / both


def sigmoid_softplus(x: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """`sigmoid` and `softplus` of the same numbers."""
    above = np.maximum(x, 0.0)
    left, right = np.exp(np.minimum(x, 0.0)), np.exp(-above)
    both = left + right
    return left / both, right / both, above + np.log1p(left * right)


def log1mexp(x: FloatArray) -> FloatArray:
    """log(1 - e^-x) for x > 0."""
    result: FloatArray = np.where(x < 0.7, np.log(-np.expm1(-x)), np.log1p(-np.exp(-x)))
    return result


def log_expm1_ratio(t: FloatArray, order: int = 3) -> list[FloatArray]:
    """log((1 - e^-m) / m) with m = e^t, and its derivatives with respect to t.

    The part of a zero-truncated log-density that its untruncated one does not have.
    """
    m = np.exp(np.minimum(t, 6.5))
    small = m < 0.1
    positive = np.where(small, 1.0, m)
    b = np.where(small, 0.0, positive / np.expm1(positive))
    z = np.where(small, m, 0.0)
    # b - 1 = -m/2 + m^2/12 - ... (Bernoulli numbers).
    less = z * (-1 / 2 + z * (1 / 12 + z * z * (-1 / 720 + z * z * (1 / 30240 - z * z / 1209600))))
    slope = np.where(small, less, b - 1.0)
    b = np.where(small, 1.0 + less, b)
    s = np.where(small, -slope - m, 1.0 - b - m)
    value = np.where(t > 6.5, -t, np.where(small, np.log1p(-_lost(z)), np.log(-np.expm1(-positive) / positive)))
    bs = b * s
    return [value, slope, bs, bs * s - b * (bs + m)][: order + 1]


def _lost(m: FloatArray) -> FloatArray:
    """1 - (1 - e^-m)/m = m/2 - m^2/6 + ..., for small m."""
    return m * (1 / 2 - m * (1 / 6 - m * (1 / 24 - m * (1 / 120 - m * (1 / 720 - m * (1 / 5040 - m / 40320))))))


def log_log1p(t: FloatArray, order: int = 3) -> list[FloatArray]:
    """log(log(1 + x)) with x = e^t, and its derivatives with respect to t."""
    x = np.exp(np.minimum(t, 700.0))
    # The square of a smaller number is not one of double precision.
    tiny = x < 1e-150
    z = np.where(tiny, 1.0, x)
    far = t > 700.0
    length = np.where(tiny, 1.0, np.where(far, t, np.log1p(z)))
    less = log1p_minus(z)
    # h = x / ((1 + x) log(1 + x)) is the slope; g the slope of log h.
    p = z / (1.0 + z)
    h = np.where(tiny, 1.0 - 0.5 * x, p / length)
    g = np.where(tiny, -0.5 * x, less / ((1.0 + z) * length))
    value = np.where(tiny, t - 0.5 * x, np.log(length))
    if order < 2:
        return [value, h][: order + 1]
    d_g = g * np.where(tiny, 1.0, -z * p / less - p - h)
    return [value, h, h * g, h * (g * g + d_g)][: order + 1]


def log_log1p_rest(t: FloatArray) -> FloatArray:
    """1 less the slope of `log_log1p`: x/2 - 5 x^2/12 + ... near 0, without cancellation."""
    x = np.exp(np.minimum(t, 700.0))
    tiny = x < 1e-150
    z = np.where(tiny, 1.0, x)
    length = np.log1p(z)
    return np.where(tiny, 0.5 * x, (log1p_minus(z) / z + length) / ((1.0 / z + 1.0) * length))


def stirling(t: FloatArray, order: int = 3) -> list[FloatArray]:
    """delta(x), x = e^t, and its derivatives with respect to t.

    Examples
    --------
    >>> import numpy as np
    >>> delta, slope = stirling(np.log(np.array([1e6])), 1)
    >>> delta * 12e6, slope * 12e6
    (array([1.]), array([-1.]))
    """
    t = _in_range(t)
    small = t < _LOG_LARGE
    count = np.count_nonzero(small)
    if count == 0:
        return _series(np.exp(-t), order)
    if count == small.size:
        return _shifted(t, order)
    out = [np.empty(t.shape) for _ in range(order + 1)]
    large = ~small
    for where, parts in ((small, _shifted(t[small], order)), (large, _series(np.exp(-t[large]), order))):
        for result, part in zip(out, parts, strict=True):
            result[where] = part
    return out


def _in_range(t: FloatArray) -> FloatArray:
    """log x where x is a number of double precision."""
    result: FloatArray = np.minimum(np.maximum(t, _RANGE[0]), _RANGE[1])
    return result


def _series(r: FloatArray, order: int) -> list[FloatArray]:
    """By Stirling's series in r = 1/x, all derivatives together."""
    w = r * r
    coefficients = _COEFFICIENTS[: order + 1].reshape(order + 1, -1, *(1,) * r.ndim)
    total = coefficients[:, -1] * np.ones_like(w)
    for m in range(len(_STIRLING) - 2, -1, -1):
        total *= w
        total += coefficients[:, m]
    total *= r
    return list(total)


def _falling(x: FloatArray, cubed: bool = False) -> FloatArray:
    """Sum of (x / (x + k))^2, or of the cubes, over k = 1 .. 14."""
    if x.size <= _FEW:
        ratios = x[..., None] / (x[..., None] + _STEPS)
        square = ratios * ratios
        summed: FloatArray = (square * ratios if cubed else square).sum(axis=-1)
        return summed
    # A table of many numbers does not fit into the processor's cache.
    total = np.zeros_like(x)
    for k in _STEPS.tolist():
        ratio = x / (x + k)
        square = ratio * ratio
        total += square * ratio if cubed else square
    return total


def _shifted(t: FloatArray, order: int) -> list[FloatArray]:
    """From the gamma functions, those of higher order by recurrence from x + 15."""
    x = np.exp(t)
    out = [special.gammaln(x) - (x - 0.5) * t + x - 0.5 * LOG_2PI]
    if order == 0:
        return out
    # x psi(x) + 1, x^2 psi'(x) - 1, x^3 psi''(x) + 2: without the poles at 0, which cancel below.
    log_part = x * t
    slope = x * special.digamma(1.0 + x)
    out.append(slope - log_part - 0.5)
    if order == 1:
        return out
    far = x + _SHIFT
    r = 1.0 / far
    w = r * r
    # From psi' = 1/x + 1/(2 x^2) + B_2/x^3 + ... at x + 15.
    tri = r * (1.0 + r * (0.5 + r * (1 / 6 - w * (1 / 30 - w * (1 / 42 - w * (1 / 30 - w * (5 / 66 - w * 0.2531)))))))
    squares = x * x * tri + _falling(x)
    out.append(slope + squares - log_part - x)
    if order == 2:
        return out
    tet = -w * (1.0 + r * (1.0 + r * (0.5 - w * (1 / 6 - w * (1 / 6 - w * (3 / 10 - w * (5 / 6 - w * 3.29)))))))
    cubes = x**3 * tet - 2.0 * _falling(x, cubed=True)
    out.append(slope + 3.0 * squares + cubes - log_part - 2.0 * x)
    return out


def rising(y: FloatArray, t: FloatArray, order: int = 3) -> list[FloatArray]:
    """R = log Gamma(y + a) - log Gamma(a) - y log a with a = e^t, and its derivatives with respect to t.

    For counts y it is the sum over j < y of log(1 + j / a). It goes to zero as a grows; the derivatives of the whole
    of log Gamma(y + a) - log Gamma(a) are those of R plus those of y t.

    Examples
    --------
    >>> import numpy as np
    >>> float(rising(np.array([3.0]), np.array([0.0]), 0)[0][0])  # log(1 * 2 * 3)
    1.791...
    """
    y, t = np.broadcast_arrays(np.asarray(y, dtype=np.float64), np.asarray(t, dtype=np.float64))
    t = _in_range(t)
    a = np.exp(t)
    x = y / a
    total = y + a
    c = y / total
    r = a / total
    top, low = stirling(np.log(total), order), stirling(t, order)
    near = log1p_minus(x)
    out = [a * near + (y - 0.5) * np.log1p(x) + top[0] - low[0]]
    if order >= 1:
        out.append(a * near + 0.5 * c + r * top[1] - low[1])
    if order >= 2:
        slope = log1p_minus_slope(x)
        rc = r * c
        out.append(a * slope - 0.5 * rc + rc * top[1] + r * r * top[2] - low[2])
    if order >= 3:
        bend = rc * (c - r)
        third = bend * (top[1] - 0.5) + 3.0 * r * rc * top[2] + r**3 * top[3] - low[3]
        out.append(a * (slope - c * c) + third)
    # With y of 0 or 1 the sum is empty or log 1.
    single = (y == 0.0) | (y == 1.0)
    return [np.where(single, 0.0, part) for part in out]


def log_factorial_remainder(y: FloatArray) -> FloatArray:
    """log y! - (y log y - y): log(2 pi y)/2 + delta(y), and 0 for y = 0."""
    some = np.where(y > 0.0, y, 1.0)
    t = np.log(some)
    return np.where(y > 0.0, 0.5 * (LOG_2PI + t) + stirling(t, 0)[0], 0.0)
