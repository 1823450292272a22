"""Log-likelihoods of ordered categories as functions of all cuts of a row, t_k = (alpha_k - eta) / sigma, k < K.

| structure  | model                                                  | source                                        |
| ---------- | ------------------------------------------------------ | --------------------------------------------- |
| cumulative | P(Y <= k) = F(t_k)                                     | McCullagh 1980, J. R. Stat. Soc. B 42:109     |
| sequential | P(Y = k given Y >= k) = F(t_k)                         | Tutz 1991, Comput. Stat. Data Anal. 11:275    |
| adjacent   | P(Y = k given Y is k or k + 1) = F(t_k), F logistic    | Agresti 2010, Ordinal Categorical Data, 4.1   |

F(x) = 1 - G(-x), G the inverse link. What the engine needs of third order is contracted with a common shift of all
cuts, which is what eta does to them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from lme4py.families.links import ProbabilityLink
from lme4py.families.ordered.interval_rows import Intervals, row_parts
from lme4py.linalg.types import FloatArray, IntArray

__all__ = ["STRUCTURES", "CutParts", "cut_parts", "cut_probabilities"]

STRUCTURES: Final = ("cumulative", "adjacent", "sequential")
_ABSENT: Final[Any] = None


@dataclass(frozen=True, slots=True)
class CutParts:
    """Log-probability l of each row and its derivatives in its cuts; q = K - 1.

    Attributes
    ----------
    value : ndarray, shape (..., n)
    first : ndarray, shape (..., n, q)
        dl/dt_k (order 1).
    curvature : ndarray, shape (..., n)
        sum_ij d2l / dt_i dt_j (order 2).
    shifted : ndarray, shape (..., n, q)
        sum_i d2l / dt_k dt_i (order 3).
    bent : ndarray, shape (..., n, q)
        sum_ij d3l / dt_k dt_i dt_j (order 3).
    second : ndarray, shape (..., n, q, q)
        d2l / dt_i dt_j (order 3).
    """

    value: FloatArray
    first: FloatArray = _ABSENT
    curvature: FloatArray = _ABSENT
    shifted: FloatArray = _ABSENT
    bent: FloatArray = _ABSENT
    second: FloatArray = _ABSENT


def cut_parts(structure: str, link: ProbabilityLink, codes: IntArray, t: FloatArray, order: int) -> CutParts:
    """Log-probabilities of the categories `codes`.

    Parameters
    ----------
    structure : {"cumulative", "adjacent", "sequential"}
    link : ProbabilityLink
    codes : ndarray of int, shape (n,)
    t : ndarray, shape (..., n, K - 1)
    order : {0, 1, 2, 3}

    Returns
    -------
    CutParts
        Cumulative cuts around a category that do not increase have the value -inf.
    """
    with np.errstate(over="ignore", under="ignore", invalid="ignore", divide="ignore"):
        return _PARTS[structure](link, codes, t, order)


def cut_probabilities(structure: str, link: ProbabilityLink, t: FloatArray) -> FloatArray:
    """P(Y = k) of all categories, shape (..., K).

    Parameters
    ----------
    structure : {"cumulative", "adjacent", "sequential"}
    link : ProbabilityLink
    t : ndarray, shape (..., K - 1)

    Returns
    -------
    ndarray
        Cumulative cuts that do not increase give NaN between them.
    """
    flat = t.reshape(-1, t.shape[-1])
    n, K = flat.shape[0], flat.shape[1] + 1
    out = np.empty((n, K))
    for k in range(K):
        value = cut_parts(structure, link, np.full(n, k), flat, 0).value
        out[:, k] = np.exp(value)
        if structure == "cumulative" and 0 < k < K - 1:
            out[flat[:, k] <= flat[:, k - 1], k] = np.nan
    return out.reshape(*t.shape[:-1], K)


# --- cumulative -------------------------------------------------------------------------------------------------


def _cumulative(link: ProbabilityLink, codes: IntArray, t: FloatArray, order: int) -> CutParts:
    n, q = codes.size, t.shape[-1]
    rows = np.arange(n)
    has_upper, has_lower = codes < q, codes > 0
    above, below = np.minimum(codes, q - 1), np.maximum(codes - 1, 0)
    high, low = t[..., rows, above], t[..., rows, below]
    # Thresholds of one row do not depend on the node of a quadrature but by a common shift.
    middle = np.where(has_upper, high, low)
    width = np.where(has_upper & has_lower, high - low, np.inf)
    one = width if width.ndim == 1 else width[(0,) * (width.ndim - 1)]
    inner = np.isfinite(one)
    rho = np.where(inner, 1.0 / np.expm1(one), 0.0)
    width_log = np.where(inner, np.log(-np.expm1(-one)), 0.0)
    ends = np.where(has_upper, 0.0, np.inf), np.where(has_lower, np.where(has_upper, -one, 0.0), -np.inf)
    own = Intervals(ends[1], ends[0], width_log, rho, rho * (1.0 + rho))
    found = row_parts(link.name, link.lower_tail, own, rows, -middle, order)
    value = np.where(np.isnan(found.value), -np.inf, found.value)
    if order == 0:
        return CutParts(value)

    def spread(up: FloatArray, down: FloatArray) -> FloatArray:
        out = np.zeros((*value.shape, q))
        out[..., rows[has_upper], above[has_upper]] = up[..., has_upper]
        out[..., rows[has_lower], below[has_lower]] += down[..., has_lower]
        return out

    first = spread(found.up, found.low)
    if order == 1:
        return CutParts(value, first)
    if order == 2:
        return CutParts(value, first, found.ss)
    shifted, bent = spread(found.up_s, found.low_s), spread(found.up_ss, found.low_ss)
    second = np.zeros((*value.shape, q, q))
    second[..., rows[has_upper], above[has_upper], above[has_upper]] = found.up_up[..., has_upper]
    second[..., rows[has_lower], below[has_lower], below[has_lower]] += found.low_low[..., has_lower]
    both = has_upper & has_lower
    for i, j in ((above, below), (below, above)):
        second[..., rows[both], i[both], j[both]] = found.up_low[..., both]
    return CutParts(value, first, found.ss, shifted, bent, second)


# --- sequential -------------------------------------------------------------------------------------------------


def _sequential(link: ProbabilityLink, codes: IntArray, t: FloatArray, order: int) -> CutParts:
    """log F(t_y) + sum_{k < y} log(1 - F(t_k)): every cut on its own."""
    passed, stops = (np.arange(t.shape[-1]) < codes[:, None]), (np.arange(t.shape[-1]) == codes[:, None])
    beyond, within = link.tails(-t)

    def of(order: int, sign: float) -> FloatArray:
        # Derivatives are in -t.
        return np.asarray(sign * np.where(passed, beyond[order], np.where(stops, within[order], 0.0)))

    value = of(0, 1.0).sum(axis=-1)
    if order < 2:
        return CutParts(value, of(1, -1.0) if order else _ABSENT)
    first, shifted = of(1, -1.0), of(2, 1.0)
    if order == 2:
        return CutParts(value, first, shifted.sum(axis=-1))
    second = shifted[..., None] * np.eye(t.shape[-1])
    return CutParts(value, first, shifted.sum(axis=-1), shifted, of(3, -1.0), second)


# --- adjacent ---------------------------------------------------------------------------------------------------


def _adjacent(link: ProbabilityLink, codes: IntArray, t: FloatArray, order: int) -> CutParts:
    """log P(y) = -sum_{k < y} t_k less the logarithm of the sum of such terms: an exponential family.

    Derivatives are the cumulants of the indicators of Y > k.
    """
    q = t.shape[-1]
    scores = np.concatenate([np.zeros((*t.shape[:-1], 1)), np.cumsum(-t, axis=-1)], axis=-1)
    top = scores.max(axis=-1, keepdims=True)
    weights = np.exp(scores - top)
    total = weights.sum(axis=-1, keepdims=True)
    own = np.take_along_axis(scores, np.broadcast_to(codes[:, None], (*t.shape[:-1], 1)), axis=-1)
    value = (own - top - np.log(total))[..., 0]
    if order == 0:
        return CutParts(value)
    p = weights / total
    above = np.cumsum(p[..., ::-1], axis=-1)[..., ::-1][..., 1:]
    first = above - (np.arange(q) < codes[:, None])
    if order == 1:
        return CutParts(value, first)
    # Cov(1[Y > k], Y), and the third cumulant of 1[Y > k], Y and Y.
    place = np.arange(q + 1.0)
    mean = (p * place).sum(axis=-1, keepdims=True)
    centred = place - mean
    square = centred**2
    variance = (p * square).sum(axis=-1, keepdims=True)
    if order == 2:
        return CutParts(value, first, -variance[..., 0])
    tail = np.cumsum((p * centred)[..., ::-1], axis=-1)[..., ::-1][..., 1:]
    third = np.cumsum((p * (square - variance))[..., ::-1], axis=-1)[..., ::-1][..., 1:]
    i, j = np.maximum.outer(np.arange(q), np.arange(q)), np.minimum.outer(np.arange(q), np.arange(q))
    second = -(above[..., i] * (1.0 - above[..., j]))
    return CutParts(value, first, -variance[..., 0], -tail, third, second)


_PARTS: Final[dict[str, Callable[[ProbabilityLink, IntArray, FloatArray, int], CutParts]]] = {
    "cumulative": _cumulative,
    "adjacent": _adjacent,
    "sequential": _sequential,
}
