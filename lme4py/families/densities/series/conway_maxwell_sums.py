"""The rate and the normalising constant of the Conway-Maxwell-Poisson distribution as functions of mean and nu.

With A = log alpha and N = log nu, every count j has the weight exp(-nu b_j), b_j = log j! - j A, or centered
b_j + alpha = deviance(j, alpha) + [log j! - (j log j - j)]. R is the log of the sum of the weights, M(A, N) the mean.
A(L, N) solves M = e^L, and its derivatives follow from those of M by the implicit function theorem.

M and R come from sums over the counts that matter, or where these are many from the asymptotic series in
1 / (nu alpha) (Gaunt, Iyengar, Olde Daalhuis & Simsek 2019, *Ann. Inst. Stat. Math.* 71:163; its coefficients derived
here by expanding the integral that replaces the sum).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import special

from lme4py.families.densities.calculus.jets import DensityJet, Index, Part, compose2, degrees_of
from lme4py.families.densities.calculus.lattice import deviance, node_blocks, window
from lme4py.families.densities.calculus.special import log_factorial_remainder
from lme4py.linalg.types import BoolArray, FloatArray, IntArray

__all__ = ["Curve", "exact_curve", "is_centered"]

# log R = nu-terms + sum over k, m of _SERIES[k - 1][m] nu^(2 m - k) alpha^-k.
_SERIES: Final = (
    (-1 / 24, 1 / 24, 0, 0, 0),
    (-1 / 48, 1 / 48, 0, 0, 0),
    (-161 / 5760, 17 / 576, -1 / 640, 0, 0),
    (-367 / 5760, 41 / 576, -43 / 5760, 0, 0),
    (-120257 / 580608, 33667 / 138240, -5107 / 138240, 305 / 580608, 0),
    (-39793 / 45360, 37303 / 34560, -3611 / 17280, 4987 / 725760, 0),
    (-6389072441 / 1393459200, 81830645 / 13934592, -45075959 / 33177600, 998141 / 13934592, -87983 / 199065600),
    (-993607187 / 34836480, 8243537 / 217728, -8342147 / 829440, 635009 / 870912, -388919 / 34836480),
)
_LOG_2PI: Final = float(np.log(2.0 * np.pi))


@dataclass(frozen=True, slots=True)
class Curve:
    """A and R with their derivatives in L = log mu and N = log nu.

    Attributes
    ----------
    rate, total : dict of tuple of int to ndarray
        A and R along the curve on which the mean is e^L; variables 0 (L) and 1 (N).
    centered : ndarray of bool
        Whether b_j + alpha stands for b_j.
    """

    rate: dict[Index, Part]
    total: dict[Index, Part]
    centered: BoolArray


def is_centered(L: FloatArray, N: FloatArray) -> BoolArray:
    """Where alpha is (about) one or more, and the deviance the better form."""
    return np.asarray(_start(L, N) > 0.0)


def exact_curve(L: FloatArray, N: FloatArray, order: int, centered: BoolArray | None = None) -> Curve:
    """A(L, N) and R(L, N), each row by itself.

    Parameters
    ----------
    L, N : ndarray, shape (n,)
    order : {0, 1, 2, 3}
    centered : ndarray of bool, optional
        Which form of b_j each row has; by default `is_centered`.
    """
    if centered is None:
        centered = is_centered(L, N)
    A = _solve(L, N)
    M, R = _mean_and_total(A, N, centered, order)
    rate: dict[Index, Part] = {(): A}
    mu = np.exp(L)
    slope = M[0,] if order else np.ones_like(A)
    # Order by order: what the known derivatives of A give, and what is missing.
    for k in range(1, order + 1):
        degrees = degrees_of(k, (0, 1))
        known = compose2(M, DensityJet(dict(rate), degrees), DensityJet({(): N, (1,): 1.0}, degrees))
        for index in degrees.indices():
            if len(index) == k:
                target = 0.0 if 1 in index else mu
                rate[index] = (target - known.parts.get(index, 0.0)) / slope
    degrees = degrees_of(order, (0, 1))
    total = compose2(R, DensityJet(rate, degrees), DensityJet({(): N, (1,): 1.0}, degrees))
    return Curve(rate, dict(total.parts), centered)


def _start(L: FloatArray, N: FloatArray) -> FloatArray:
    """A near the one with mean e^L: alpha = mu + 1/2 - 1/(2 nu), or from the first three counts."""
    mu, nu = np.exp(L), np.exp(N)
    large = mu + 0.5 - 0.5 / nu
    small = (L - np.log1p(np.maximum(mu * (np.exp2(1.0 - nu) - 1.0), -0.5))) / nu
    use = (large > 0.3 * mu) & (mu > 0.8)
    return np.where(use, np.log(np.where(use, large, 1.0)), small)


def _solve(L: FloatArray, N: FloatArray) -> FloatArray:
    """A with mean e^L, by Newton steps on log M inside a bracket."""
    A, nu = _start(L, N), np.exp(N)
    low, high = np.full(A.shape, -np.inf), np.full(A.shape, np.inf)
    active = np.arange(A.size)
    for _ in range(100):
        M, _ = _mean_and_total(A[active], N[active], A[active] > 0.0, 1)
        mean, slope = M[()], M[0,]
        gap = np.log(mean) - L[active]
        low[active] = np.where(gap < 0.0, np.maximum(low[active], A[active]), low[active])
        high[active] = np.where(gap > 0.0, np.minimum(high[active], A[active]), high[active])
        limit = 0.5 + 3.0 / nu[active]
        step = np.clip(-gap * mean / np.maximum(slope, 1e-300), -limit, limit)
        trial = A[active] + step
        # After a small Newton step its square is what is left; a bracket says nothing more there.
        small = np.abs(step) <= 1e-9 * (1.0 + np.abs(trial))
        outside = ((trial <= low[active]) | (trial >= high[active])) & ~small
        both = np.isfinite(low[active]) & np.isfinite(high[active])
        middle = 0.5 * (np.where(both, low[active], 0.0) + np.where(both, high[active], 0.0))
        trial = np.where(outside & both, middle, trial)
        moved = np.abs(trial - A[active])
        A[active] = trial
        # A bisection may be small without being near.
        active = active[~small & (moved > 1e-15 * (1.0 + np.abs(trial)))]
        if not active.size:
            break
    return A


Table = dict[Index, Part]


def _mean_and_total(A: FloatArray, N: FloatArray, centered: BoolArray, order: int) -> tuple[Table, Table]:
    """M and R with their derivatives in A (variable 0) and N (variable 1)."""
    alpha, nu = np.exp(np.minimum(A, 690.0)), np.exp(N)
    many = (nu * alpha > 100.0) & (alpha > 2.5 * nu) & (alpha > 10.0) & centered
    if many.all():
        return _from_series(A, N, order)
    if not many.any():
        return _from_sums(A, N, centered, order)
    few = ~many
    parts = _from_series(A[many], N[many], order), _from_sums(A[few], N[few], centered[few], order)
    out: tuple[Table, Table] = ({}, {})
    for i in (0, 1):
        for key in parts[1][i]:
            merged = np.empty(A.shape)
            merged[many], merged[few] = parts[0][i][key], parts[1][i][key]
            out[i][key] = merged
    return out


def _from_series(A: FloatArray, N: FloatArray, order: int) -> tuple[Table, Table]:
    """R = -(nu - 1)/2 log(2 pi alpha) - N/2 + series, and M = alpha + (dR/dA) / nu."""
    alpha, nu = np.exp(A), np.exp(N)
    wanted = degrees_of(order, (0, 1)).indices()
    M = {key: np.zeros(A.shape) for key in wanted}
    R = {key: np.zeros(A.shape) for key in wanted}
    inverse, square = 1.0 / (alpha * nu), nu * nu
    power = np.ones_like(alpha)
    for k, row in enumerate(_SERIES, start=1):
        power = power * inverse
        term = power
        for m, c in enumerate(row):
            if c:
                part = c * term
                of_mean = part * (-k) / nu
                for key in wanted:
                    a, n = key.count(0), key.count(1)
                    R[key] += part * float((-k) ** a * (2 * m - k) ** n)
                    M[key] += of_mean * float((-k) ** a * (2 * m - k - 1) ** n)
            term = term * square
    inv = 1.0 / nu
    for key in wanted:
        a, n = key.count(0), key.count(1)
        if n == 0:
            M[key] = M[key] + alpha
        if a == 0:
            M[key] = M[key] + 0.5 * ((-1) ** n * inv - (n == 0))
            R[key] = R[key] - 0.5 * (nu - (n == 0)) * (_LOG_2PI + A) - (0.5 * N if n == 0 else 0.5 * (n == 1))
        if a == 1:
            R[key] = R[key] - 0.5 * (nu - (n == 0))
    return dict(M), dict(R)


def _from_sums(A: FloatArray, N: FloatArray, centered: BoolArray, order: int) -> tuple[Table, Table]:
    """By the cumulants of (j, b_j) under the weights."""
    nu = np.exp(N)
    k = _cumulants(A, nu, centered, order)
    rise = np.where(centered, np.exp(np.minimum(A, 690.0)), 0.0)
    M: Table = {(): k[1, 0]}
    R: Table = {(): k[0, 0]}
    if order >= 1:
        M[0,], M[1,] = nu * k[2, 0], -nu * k[1, 1]
        R[0,], R[1,] = nu * (k[1, 0] - rise), -nu * k[0, 1]
    if order >= 2:
        n2 = nu * nu
        M[0, 0] = n2 * k[3, 0]
        M[0, 1] = nu * k[2, 0] - n2 * k[2, 1]
        M[1, 1] = n2 * k[1, 2] - nu * k[1, 1]
        R[0, 0], R[0, 1] = nu * (M[0,] - rise), nu * (k[1, 0] - rise + M[1,])
        R[1, 1] = R[1,] + n2 * k[0, 2]
    if order >= 3:
        n3 = n2 * nu
        M[0, 0, 0] = n3 * k[4, 0]
        M[0, 0, 1] = 2.0 * n2 * k[3, 0] - n3 * k[3, 1]
        M[0, 1, 1] = nu * k[2, 0] - n2 * k[2, 1] + n2 * (nu * k[2, 2] - 2.0 * k[2, 1])
        M[1, 1, 1] = -nu * k[1, 1] + 3.0 * n2 * k[1, 2] - n3 * k[1, 3]
        R[0, 0, 0], R[0, 0, 1] = nu * (M[0, 0] - rise), nu * (M[0,] - rise + M[0, 1])
        R[0, 1, 1] = nu * (k[1, 0] - rise + 2.0 * M[1,] + M[1, 1])
        R[1, 1, 1] = R[1,] + 3.0 * n2 * k[0, 2] - n3 * k[0, 3]
    return M, R


def _cumulants(A: FloatArray, nu: FloatArray, centered: BoolArray, order: int) -> dict[tuple[int, int], FloatArray]:
    """Joint cumulants of j and b_j, to degree order + 1 with at least one j, to degree order without; [0, 0] is R."""
    alpha = np.exp(np.minimum(A, 690.0))
    low, high = window(alpha, nu)
    # For alpha < 1 and small nu the weights fall geometrically.
    high = np.where(A < 0.0, np.minimum(high, np.ceil(45.0 / np.maximum(-A * nu, 1e-300)) + 2.0), high)
    # A rate that was not found leaves a row without a value.
    low, high = np.nan_to_num(low), np.nan_to_num(high, nan=1.0)
    keys = [(p, q) for p in range(5) for q in range(5) if p + q <= order + (p > 0)]
    out = {key: np.empty(A.shape) for key in keys}
    for rows, j in node_blocks(low, high):
        a, log_a = alpha[rows, None], A[rows, None]
        inside = centered[rows, None]
        b = deviance(j, a, log_a) + log_factorial_remainder(j)
        if not inside.all():
            b = np.where(inside, b, special.gammaln(j + 1.0) - j * log_a)
        _one_table(out, rows, j, b, nu[rows, None], order)
    return out


def _one_table(
    out: dict[tuple[int, int], FloatArray],
    rows: IntArray,
    j: FloatArray,
    b: FloatArray,
    nu: FloatArray,
    order: int,
) -> None:
    g = -nu * b
    top = g.max(axis=1)
    p = np.exp(g - top[:, None])
    # Where the first count is the likeliest the sum is one and the rest of them.
    first = (top == g[:, 0]) & (j[:, 0] == 0.0)
    rest = p[:, 1:].sum(axis=1)
    total = np.where(first, 1.0 + rest, p.sum(axis=1))
    out[0, 0][rows] = top + np.where(first, np.log1p(rest), np.log(total))
    p /= total[:, None]
    mean = np.einsum("ij,ij->i", p, j)
    out[1, 0][rows] = mean
    if order == 0:
        return
    d = j - mean[:, None]
    level = np.einsum("ij,ij->i", p, b)
    e = b - level[:, None]
    out[0, 1][rows] = level
    pd, pe = p * d, p * e
    second = {(2, 0): (pd, d), (1, 1): (pd, e), (0, 2): (pe, e)}
    m = {key: np.einsum("ij,ij->i", x, y) for key, (x, y) in second.items()}
    if order >= 2:
        pdd, pde = pd * d, pd * e
        third = {(3, 0): (pdd, d), (2, 1): (pdd, e), (1, 2): (pde, e)}
        m |= {key: np.einsum("ij,ij->i", x, y) for key, (x, y) in third.items()}
    if order >= 3:
        dd, ee = d * d, e * e
        m[0, 3] = np.einsum("ij,ij->i", pe, ee)
        m[4, 0] = np.einsum("ij,ij->i", pdd, dd) - 3.0 * m[2, 0] ** 2
        m[3, 1] = np.einsum("ij,ij->i", pde, dd) - 3.0 * m[2, 0] * m[1, 1]
        m[2, 2] = np.einsum("ij,ij->i", pdd, ee) - m[2, 0] * m[0, 2] - 2.0 * m[1, 1] ** 2
        m[1, 3] = np.einsum("ij,ij->i", pde, ee) - 3.0 * m[0, 2] * m[1, 1]
    for key, value in m.items():
        if key in out:
            out[key][rows] = value
