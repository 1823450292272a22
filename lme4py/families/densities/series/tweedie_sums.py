"""The sum in the Tweedie density: Poisson probabilities of the number of amounts times their gamma densities.

With deviance d(j) = j log(j / lambda) - j + lambda and delta of `special.stirling`,

    T(lambda, tau) = log sum over j >= 1 of exp(-(1 + tau) d(j) - delta(j) - delta(j tau)):

all terms are positive, and T goes like log(lambda)/2. It is summed over the j that matter; where lambda is large it is
expanded in powers of 1 / ((1 + tau) lambda). The power is one number for all rows, so that T is a function of
log lambda, kept in a table.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np

from lme4py.chunks import from_size
from lme4py.families.densities.calculus import jets
from lme4py.families.densities.calculus.jets import DensityJet, Index, Part, compose2, degrees_of
from lme4py.families.densities.calculus.lattice import deviance, node_blocks, window
from lme4py.families.densities.calculus.special import LOG_2PI, stirling
from lme4py.families.densities.calculus.tables import ChebyshevTable
from lme4py.linalg.types import FloatArray, IntArray

__all__ = ["log_sum", "sums"]

# The coefficient of ((1 + tau) lambda)^-k: exponents of Q_1, Q_3, Q_5 and a factor, Q_m = (1 + tau^-m) (1 + tau)^m.
_SERIES: Final[tuple[tuple[tuple[int, int, int, float], ...], ...]] = (
    ((0, 0, 0, -1 / 24), (1, 0, 0, -1 / 12)),
    ((0, 0, 0, -1 / 48), (1, 0, 0, -1 / 24)),
    ((0, 0, 0, -161 / 5760), (0, 1, 0, 1 / 360), (1, 0, 0, -17 / 288), (2, 0, 0, 1 / 288)),
    ((0, 0, 0, -367 / 5760), (0, 1, 0, 1 / 80), (1, 0, 0, -41 / 288), (2, 0, 0, 1 / 72)),
    (
        (0, 0, 0, -120257 / 580608),
        (0, 0, 1, -1 / 1260),
        (0, 1, 0, 19 / 320),
        (1, 0, 0, -33667 / 69120),
        (1, 1, 0, -1 / 1440),
        (2, 0, 0, 415 / 6912),
        (3, 0, 0, -5 / 10368),
    ),
    (
        (0, 0, 0, -39793 / 45360),
        (0, 0, 1, -5 / 504),
        (0, 1, 0, 313 / 960),
        (1, 0, 0, -37303 / 17280),
        (1, 1, 0, -11 / 1440),
        (2, 0, 0, 1055 / 3456),
        (3, 0, 0, -25 / 5184),
    ),
)
_KEYS: Final[tuple[Index, ...]] = degrees_of(3, (0, 1)).indices()
# By the number of derivatives: those of higher order carry the rounding of the sums.
_TOLERANCE: Final = np.array([(4e-13, 4e-13, 4e-12, 3e-11)[len(key)] for key in _KEYS])
# Rows from which on a table is worth its pieces.
_SHARED: Final = from_size(100, 1)


def log_sum(log_rate: DensityJet, log_tau: DensityJet) -> DensityJet:
    """T as a function of jets; the second is one number for all rows."""
    Lam, q = log_rate.value, float(np.ravel(log_tau.value)[0])
    order = log_rate.degrees.total
    keys = [key for key in _KEYS if len(key) <= order]
    if Lam.size < _SHARED or not np.isfinite(Lam).all():
        parts = sums(Lam.ravel(), q, order)
        values: list[Part] = [np.reshape(parts[key], Lam.shape) for key in keys]
    else:
        chosen = np.array([i for i, key in enumerate(_KEYS) if len(key) <= order])
        values = [part.reshape(Lam.shape) for part in _table(q)(Lam.ravel(), chosen)]
    return compose2(dict(zip(keys, values, strict=True)), log_rate, log_tau)


@lru_cache(maxsize=64)
def _table(q: float) -> ChebyshevTable:
    def exact(Lam: FloatArray, middle: FloatArray) -> FloatArray:
        parts = sums(Lam, q, 3)
        return np.stack([np.asarray(parts[key]) for key in _KEYS])

    return ChebyshevTable(exact, _TOLERANCE)


def sums(Lam: FloatArray, q: float, order: int = 3) -> dict[Index, FloatArray]:
    """T and its derivatives in log lambda (variable 0) and q = log tau (variable 1).

    Parameters
    ----------
    Lam : ndarray, shape (n,)
        log lambda.
    q : float
    order : {0, 1, 2, 3}

    Examples
    --------
    >>> import numpy as np
    >>> round(float(sums(np.array([0.0]), 0.0, 0)[()][0]), 6)  # log(2 pi e^-2 I_1(2)), I_1 a Bessel function
    0.302012
    """
    rate, tau = np.exp(np.minimum(Lam, 690.0)), float(np.exp(q))
    least = rate * min(tau, 1.0)
    many = (least > 60.0) & ((1.0 + tau) * rate > 200.0) & (rate > 2.5 * (1.0 + tau))
    if many.all():
        return _from_series(Lam, q, order)
    if not many.any():
        return _from_sums(Lam, q, order)
    few = ~many
    large, small = _from_series(Lam[many], q, order), _from_sums(Lam[few], q, order)
    out = {}
    for key in small:
        out[key] = np.empty(Lam.shape)
        out[key][many], out[key][few] = large[key], small[key]
    return out


def _from_series(Lam: FloatArray, q: float, order: int) -> dict[Index, FloatArray]:
    """T = [log(2 pi) + log lambda - log(1 + tau)]/2 + sum over k of B_k(q) lambda^-k."""
    keys = [key for key in _KEYS if len(key) <= order]
    out = {key: np.zeros(Lam.shape) for key in keys}
    tau = jets.exp(jets.variable(np.array(q), 0, degrees_of(order, (0,))))
    v = 1.0 / (tau + 1.0)
    w = [1.0 + jets.reciprocal(tau) ** m for m in (1, 3, 5)]
    inverse = np.exp(-Lam)
    power = np.ones_like(Lam)
    for k, row in enumerate(_SERIES, start=1):
        power = power * inverse
        B = None
        for a, b, c, factor in row:
            term = w[0] ** a * w[1] ** b * w[2] ** c * v ** (k - a - 3 * b - 5 * c) * factor
            B = term if B is None else B + term
        if B is not None:
            for key in keys:
                in_q = key.count(1)
                out[key] += float((-k) ** key.count(0) * B.d(*[0] * in_q)) * power
    half = jets.log(tau + 1.0) * -0.5
    for n in range(order + 1):
        out[(1,) * n] += float(half.d(*[0] * n))
    out[()] += 0.5 * (LOG_2PI + Lam)
    if order:
        out[0,] += 0.5
    return out


def _from_sums(Lam: FloatArray, q: float, order: int) -> dict[Index, FloatArray]:
    rate, tau = np.exp(np.minimum(Lam, 690.0)), float(np.exp(q))
    low, high = window(rate, np.full(rate.shape, 1.0 + tau), lowest=1)
    out = {key: np.empty(Lam.shape) for key in _KEYS if len(key) <= order}
    for rows, j in node_blocks(low, high):
        # The gamma functions of the numbers that this table has, once each.
        first = float(j.min())
        numbers = first + np.arange(int(j.max() - first) + 1)
        log_numbers = np.log(numbers)
        place = (j - first).astype(np.intp)
        of_number = [part[place] for part in stirling(log_numbers + q, order)]
        own = stirling(log_numbers, 0)[0][place]
        _one_table(out, rows, j, deviance(j, rate[rows, None], Lam[rows, None]), own, of_number, rate[rows], tau, order)
    return out


def _one_table(
    out: dict[Index, FloatArray],
    rows: IntArray,
    j: FloatArray,
    d: FloatArray,
    own: FloatArray,
    delta: list[FloatArray],
    rate: FloatArray,
    tau: float,
    order: int,
) -> None:
    """Derivatives of a log-sum of exponentials by the moments of those of its terms."""
    u = 1.0 + tau
    g = -u * d - own - delta[0]
    top = g.max(axis=1)
    p = np.exp(g - top[:, None])
    total = p.sum(axis=1)
    out[()][rows] = top + np.log(total)
    if order == 0:
        return
    p /= total[:, None]
    mean = np.einsum("ij,ij->i", p, j)
    less = mean - rate
    a = j - mean[:, None]
    in_q = [-tau * d - part for part in delta[1:]]
    means = [np.einsum("ij,ij->i", p, part) for part in in_q]
    e = in_q[0] - means[0][:, None]
    out[0,][rows], out[1,][rows] = u * less, means[0]
    if order == 1:
        return
    pa, pe = p * a, p * e
    aa, ae, ee = (np.einsum("ij,ij->i", left, right) for left, right in ((pa, a), (pa, e), (pe, e)))
    out[0, 0][rows] = u * (u * aa - rate)
    out[0, 1][rows] = tau * less + u * ae
    out[1, 1][rows] = means[1] + ee
    if order == 2:
        return
    paa, pee = pa * a, pe * e
    out[0, 0, 0][rows] = u * (u * u * np.einsum("ij,ij->i", paa, a) - rate)
    out[0, 0, 1][rows] = tau * (2.0 * u * aa - rate) + u * u * np.einsum("ij,ij->i", paa, e)
    with_second = np.einsum("ij,ij->i", pa, in_q[1])
    out[0, 1, 1][rows] = tau * (less + 2.0 * ae) + u * (with_second + np.einsum("ij,ij->i", pee, a))
    out[1, 1, 1][rows] = means[2] + 3.0 * np.einsum("ij,ij->i", pe, in_q[1]) + np.einsum("ij,ij->i", pee, e)
