"""Several tests at once: adjusted p-values, simultaneous intervals, and the joint test.

The largest of correlated t (or normal) statistics: P(max |T_j| > t) is the sum over j of P(|T_j| > t) times the mean
of 1 / (number of |T_i| > t) given |T_j| > t. The conditional means are taken over a fixed set of quasi-random points;
their relative error is about 1e-3, also where the probability is tiny. Tukey's studentised range has its own integral,
exact to about 1e-9 of the p-value.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Final

import numpy as np
from scipy import interpolate, optimize, special

from lme4py.errors import OptionError, did_you_mean
from lme4py.linalg.types import FloatArray

__all__ = [
    "BY_P_VALUES",
    "METHODS",
    "adjusted",
    "at_each",
    "check_adjustment",
    "max_t_critical",
    "max_t_tail",
    "range_critical",
    "range_tail",
]

BY_P_VALUES: Final = ("bonferroni", "holm", "hochberg", "sidak", "holm-sidak", "fdr", "by")
METHODS: Final = ("none", *BY_P_VALUES, "tukey", "dunnett", "mvt")
_SPELLINGS: Final = {"bh": "fdr", "fdr_bh": "fdr", "fdr_by": "by", "sup-t": "mvt", "single-step": "mvt"}
# Points of the conditional means: a power of 2, fewer where the means of many statistics are summed.
_POINTS: Final = 8192
_FEWEST: Final = 2048
_MANY: Final = 16
# The density of chi^2 over df loses digits of the size of df, and the difference from the limit is of that of 1 / df.
_NEARLY_NORMAL: Final = 1e7
# Degrees of freedom at which critical values of many are solved for.
_NODES: Final = 11
# Directions of least variance beyond these are left out.
_MOST_DIMENSIONS: Final = 200


def check_adjustment(method: object) -> str:
    """The canonical name of an adjustment."""
    word = str(method).lower()
    word = _SPELLINGS.get(word, word)
    if word not in METHODS:
        hint = did_you_mean(word, METHODS)
        raise OptionError(f"method={method!r} is no adjustment.{hint} Use one of {', '.join(METHODS)}.")
    return word


def adjusted(p: FloatArray, method: str) -> FloatArray:
    """Adjusted p-values that need the p-values only.

    >>> adjusted(np.array([0.01, 0.02, 0.04]), "holm").round(3).tolist()
    [0.03, 0.04, 0.04]
    """
    m = p.size
    order = np.argsort(p, kind="stable")
    ranked = p[order]
    places = np.arange(m)
    if method == "bonferroni":
        return np.minimum(1.0, m * p)
    if method == "sidak":
        return _sidak(p, np.full(m, float(m)))
    out = np.empty(m)
    if method in ("holm", "holm-sidak"):
        steps = (m - places) * ranked if method == "holm" else _sidak(ranked, (m - places).astype(float))
        out[order] = np.minimum(1.0, np.maximum.accumulate(steps))
        return out
    factor = {
        "hochberg": (m - places).astype(float),
        "fdr": m / (places + 1.0),
        "by": m / (places + 1.0) * np.sum(1.0 / (places + 1.0)),
    }[method]
    out[order] = np.minimum(1.0, np.minimum.accumulate((factor * ranked)[::-1])[::-1])
    return out


def _sidak(p: FloatArray, m: FloatArray) -> FloatArray:
    """1 - (1 - p)^m without loss of digits for small p."""
    with np.errstate(divide="ignore"):
        result: FloatArray = -np.expm1(m * np.log1p(-p))
    return result


# The studentised range ----------------------------------------------------------------------------------------


@lru_cache(maxsize=8)
def _legendre(points: int) -> tuple[FloatArray, FloatArray]:
    x, w = np.polynomial.legendre.leggauss(points)
    return x, w


def _range_tail_normal(q: FloatArray, k: int) -> FloatArray:
    """P(range of k standard normal variables > q), shape of q."""
    x, w = _legendre(240)
    # The density of the largest variable times what the others may do. A wide range is most likely when it lies
    # around zero, so the largest variable is near q / 2; nothing is farther than 9 deviations from there.
    half = 9.0 + 0.25 * q[..., None]
    z = half * x + half - 9.0
    weight = half * w * np.exp(-0.5 * z * z) / np.sqrt(2.0 * np.pi) * k
    log_all = (k - 1) * special.log_ndtr(z)
    ratio = np.exp(special.log_ndtr(z - q[..., None]) - special.log_ndtr(z))
    with np.errstate(divide="ignore"):
        inside = -np.expm1((k - 1) * np.log1p(-np.minimum(ratio, 1.0)))
    return np.asarray((weight * np.exp(log_all) * inside).sum(axis=-1))


def range_tail(q: float, k: int, df: float) -> float:
    """P(Q > q) of the studentised range of k means with `df` degrees of freedom.

    >>> round(range_tail(3.5, 3, 20.0), 4)
    0.0559
    """
    if q <= 0:
        return 1.0
    if df > _NEARLY_NORMAL:
        return float(_range_tail_normal(np.array([q]), k)[0])
    # Over s = sqrt(chi^2 / df), on the scale where its density is nearly normal.
    s, density = _chi_nodes(df, q)
    return float(density @ _range_tail_normal(q * s, k))


def _chi_nodes(df: float, q: float) -> tuple[FloatArray, FloatArray]:
    """Nodes for s and weights times the density of sqrt(chi^2_df / df).

    Far in the tail of the range, small s matter: the nodes are spread over log s.
    """
    x, w = _legendre(200)
    low = 0.5 * (np.log(special.chdtri(df, 1.0 - 1e-16) + 1e-300) - np.log(df))
    low = max(low, -np.log(max(q, 1.0)) - 12.0 / np.sqrt(df) - 3.0) if df > 2 else min(low, -np.log(max(q, 1.0)) - 20.0)
    high = 0.5 * (np.log(special.chdtri(df, 1e-18)) - np.log(df))
    u = 0.5 * (high - low) * x + 0.5 * (high + low)
    s = np.exp(u)
    log_density = np.log(2.0) + 0.5 * df * np.log(0.5 * df) - special.gammaln(0.5 * df) + df * u - 0.5 * df * s * s
    return s, 0.5 * (high - low) * w * np.exp(log_density)


@lru_cache(maxsize=256)
def range_critical(alpha: float, k: int, df: float) -> float:
    """Upper quantile of the studentised range."""
    root = np.sqrt(2.0)
    return float(root) * _solve(lambda t: range_tail(root * t, k, df), alpha, k * (k - 1) // 2, df)


def _solve(tail: Callable[[float], float], alpha: float, m: int, df: float) -> float:
    """Where the tail of the largest of m statistics equals alpha: between the point of one and Bonferroni's of m."""
    half = np.array([0.5 * alpha, 0.5 * alpha / m])
    ends = -special.ndtri(half) if np.isinf(df) else -special.stdtrit(df, half)
    low, high = 0.999 * float(ends[0]), 1.001 * float(ends[1])
    return float(optimize.brentq(lambda x: np.log(max(tail(x), 1e-300)) - np.log(alpha), low, high, xtol=1e-10))


def at_each(solve: Callable[[float], float], df: FloatArray) -> FloatArray:
    """Critical values at many degrees of freedom, each of which costs an equation to solve.

    They are smooth in 1 / df: where there are many, their logarithms are interpolated between Chebyshev nodes.

    Parameters
    ----------
    solve : callable
        From degrees of freedom to a critical value.
    df : ndarray, shape (K,)
        NaN where there is no estimate.

    Returns
    -------
    ndarray, shape (K,)
        Relative errors of the interpolation below 1e-6, and 1e-8 above two degrees of freedom.
    """
    # Those of balanced data differ by rounding only.
    rounded = np.array([float(f"{value:.11g}") for value in df.tolist()])
    distinct = np.unique(rounded[~np.isnan(rounded)])
    if distinct.size <= _NODES:
        found = {value: solve(value) for value in distinct.tolist()}
        return np.array([found.get(value, np.nan) for value in rounded.tolist()])
    low, high = 1.0 / distinct[-1], 1.0 / distinct[0]
    nodes = 0.5 * (low + high) + 0.5 * (high - low) * np.cos(np.pi * (np.arange(_NODES) + 0.5) / _NODES)
    logs = interpolate.BarycentricInterpolator(nodes, np.log([solve(1.0 / node) for node in nodes.tolist()]))
    out = np.full(rounded.size, np.nan)
    known = ~np.isnan(rounded)
    out[known] = np.exp(logs(1.0 / rounded[known]))
    return out


# The largest of correlated statistics -------------------------------------------------------------------------


def two_sided_tail(t: FloatArray, df: FloatArray | float) -> FloatArray:
    """P(|T| > t), normal where df is infinite; exact in the tail."""
    x = -np.abs(np.asarray(t, dtype=np.float64))
    df = np.asarray(df, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        student = special.stdtr(np.where(np.isinf(df), 1.0, df), x)
    return np.asarray(2.0 * np.where(np.isinf(df), special.ndtr(x), student))


@lru_cache(maxsize=4)
def _points(dimension: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Quasi-random points, always the same: two uniform columns, and `dimension` standard normal ones."""
    from scipy.stats import qmc

    uniform = qmc.Sobol(dimension + 2, scramble=True, seed=20240607).random(_POINTS)
    uniform = np.clip(uniform, 1e-12, 1.0 - 1e-12)
    return uniform[:, 0], uniform[:, 1], np.ascontiguousarray(special.ndtri(uniform[:, 2:]))


@lru_cache(maxsize=16)
def _chi_squares(df: float, dimension: int) -> FloatArray:
    """Quasi-random chi-square variables with df + 1 degrees of freedom."""
    return np.asarray(2.0 * special.gammaincinv(0.5 * (df + 1.0), _points(dimension)[1]), dtype=np.float64)


def _root(matrix: FloatArray) -> FloatArray:
    """A root of a positive semi-definite matrix, without its null directions."""
    values, vectors = np.linalg.eigh(matrix)
    keep = values > 1e-10 * max(float(values[-1]), 1e-300)
    root: FloatArray = vectors[:, keep] * np.sqrt(values[keep])
    return root


def max_t_tail(t: float, correlation: FloatArray, df: float) -> float:
    """P(max |T_j| > t) for multivariate t statistics.

    Parameters
    ----------
    t : float
    correlation : ndarray, shape (m, m)
    df : float
        Infinite for normal statistics.

    Examples
    --------
    >>> round(max_t_tail(1.96, np.eye(2), np.inf), 3), round(1 - 0.95**2, 3)
    (0.097, 0.098)
    """
    m = correlation.shape[0]
    single = float(two_sided_tail(np.array(t), df))
    if m == 1 or t <= 0:
        return single if t > 0 else 1.0
    return min(1.0, single * sum(_share(j, t, correlation, df, single) for j in range(m)))


def _share(j: int, t: float, correlation: FloatArray, df: float, single: float) -> float:
    """Mean of 1 / (number of |T_i| > t) given |T_j| > t."""
    m = correlation.shape[0]
    r = correlation[:, j]
    root = _root(correlation - np.outer(r, r)) if m > 1 else np.zeros((m, 0))
    width = min(root.shape[1], _MOST_DIMENSIONS)
    count = _FEWEST if m > _MANY else _POINTS
    uniform, normal = _points(width)[0][:count], _points(width)[2][:count]
    half = 0.5 * single * uniform
    # T_j in its tail, by the inverse of its distribution; the others given T_j are t with one more degree of freedom.
    x = -(special.ndtri(half) if np.isinf(df) else special.stdtrit(df, half))
    scale: FloatArray = np.ones_like(x)
    if not np.isinf(df):
        scale = np.sqrt((df + x * x) / _chi_squares(df, width)[:count])
    others = normal @ root[:, -width:].T * scale[:, None] if width else np.zeros((x.size, m))
    others += x[:, None] * r
    others[:, j] = x
    # Statistics that are copies of T_j (redundant contrasts) count as exceeding with it, whatever the rounding.
    exceeding = (np.abs(others) >= t * (1.0 - 1e-12)).sum(axis=1)
    return float(np.mean(1.0 / np.maximum(exceeding, 1)))


def max_t_critical(level: float, correlation: FloatArray, df: float) -> float:
    """The t with P(max |T_j| <= t) = level (sup-t)."""
    alpha = 1.0 - level
    return _solve(lambda t: max_t_tail(t, correlation, df), alpha, correlation.shape[0], df)
