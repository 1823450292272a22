"""Quantiles of a new response whose linear predictor is normal: the response distribution mixed over it.

P(Y <= y) = integral of phi(z) F(y | eta + s z) dz. F as a function of z falls from 1 to 0 around the point where y is
the mean, over a width that is the standard deviation of Y there; with many trials or large counts that is much narrower
than phi. Gauss-Legendre rules on pieces that are short around that point, and also where phi changes, serve all cases.
"""

from __future__ import annotations

from copy import copy
from typing import Protocol

import numpy as np
from scipy import special

from lme4py.chunks import chunk
from lme4py.families.mean_response import mean_response
from lme4py.families.response import ResponseData
from lme4py.fits.base import Fit
from lme4py.linalg.types import BoolArray, FloatArray, IntArray

__all__ = ["Distribution", "cumulative", "mixed_quantiles", "search"]

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(6)
_FIXED = np.array([-8.0, -5.0, -3.0, -1.5, 0.0, 1.5, 3.0, 5.0, 8.0])
_AROUND = np.array([-8.0, -4.0, -1.5, 0.0, 1.5, 4.0, 8.0])
# Where F falls over more than this many standard deviations of the linear predictor, and is an entire function of it,
# one Gauss-Hermite rule is exact to 1e-8.
_SMOOTH = 1.2
_HERMITE = np.polynomial.hermite_e.hermegauss(32)
# Rows whose nodes are held at a time.
_ROWS = chunk(5_000)
_STEPS = 300
# Steps towards the first guess of a quantile.
_GUESSES = 3
# Logarithms of the largest and smallest positive responses that are numbers.
_LAST = 700.0
# The largest count that is looked at.
_MOST = 1e200


def mixed_quantiles(
    fit: Fit, eta: FloatArray, variance: FloatArray, data: ResponseData, probability: float
) -> FloatArray:
    """The smallest responses whose probability reaches `probability`, shape (n,).

    Parameters
    ----------
    fit : Fit
    eta, variance : ndarray, shape (n,)
        Mean and variance of the linear predictor.
    data : ResponseData
        Trials and weights of the rows.
    probability : float

    Returns
    -------
    ndarray
        Proportions for the binomial family with several trials.
    """
    # Rows that are alike, as in factorial designs, are computed once.
    columns = [eta, variance, *(v for v in (data.trials, data.weights) if v is not None)]
    _, first, back = np.unique(np.column_stack(columns), axis=0, return_index=True, return_inverse=True)
    parts = []
    for start in range(0, first.size, _ROWS):
        rows = first[start : start + _ROWS]
        parts.append(_quantiles(_Mixture(fit, eta[rows], variance[rows], data.take(rows)), probability))
    return np.concatenate(parts)[back.reshape(-1)] if parts else np.zeros(0)


class _Mixture:
    """P(Y <= y) for rows with a normal linear predictor."""

    def __init__(self, fit: Fit, eta: FloatArray, variance: FloatArray, data: ResponseData) -> None:
        self.fit = fit
        self.family = mean_response(fit.family)
        self.eta = eta
        self.s = np.sqrt(np.maximum(variance, 1e-24))
        self.data = data

    @property
    def is_count(self) -> bool:
        return self.family.is_count

    @property
    def is_positive(self) -> bool:
        return self.family.kind == "positive"

    def take(self, rows: IntArray) -> _Mixture:
        """Some of the rows."""
        part = copy(self)
        part.eta, part.s, part.data = self.eta[rows], self.s[rows], self.data.take(rows)
        return part

    def __call__(self, y: FloatArray) -> FloatArray:
        """Probability of at most `y`, shape (n,)."""
        smooth = np.zeros(y.size, dtype=bool)
        if self.is_count and self.family.link.entire:
            smooth = self._turn(y)[1] > _SMOOTH
        total = np.empty(y.size)
        for chosen, rule in ((smooth, _Mixture._smooth_nodes), (~smooth, _Mixture._nodes)):
            rows = np.flatnonzero(chosen)
            if rows.size:
                part = self.take(rows)
                total[rows] = part._sum(y[rows], *rule(part, y[rows]))
        return total

    def _sum(self, y: FloatArray, z: FloatArray, w: FloatArray) -> FloatArray:
        total: FloatArray = (w * cumulative(self.fit, y, self.eta + self.s * z, self.data)).sum(axis=0)
        return total

    def _smooth_nodes(self, y: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Nodes (q, 1) and weights for a function without a sharp turn."""
        z, w = _HERMITE
        return z[:, None], w[:, None] / np.sqrt(2.0 * np.pi)

    def _nodes(self, y: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Points z (q, n) and weights, which hold the normal density."""
        centre, width = self._turn(y)
        edges = np.concatenate([np.tile(_FIXED[:, None], y.size), centre + width * _AROUND[:, None]])
        edges = np.sort(np.clip(edges, _FIXED[0], _FIXED[-1]), axis=0)
        middle, half = 0.5 * (edges[1:] + edges[:-1]), 0.5 * np.diff(edges, axis=0)
        z = (middle[:, None] + half[:, None] * _NODES[:, None]).reshape(-1, y.size)
        w = (half[:, None] * _WEIGHTS[:, None]).reshape(-1, y.size)
        return z, w * np.exp(-0.5 * z * z) / np.sqrt(2.0 * np.pi)

    def _turn(self, y: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Where the mean is y, in standard deviations of the linear predictor, and how wide F falls there."""
        there, width, _ = self._local(y)
        with np.errstate(all="ignore"):
            centre, width = (there - self.eta) / self.s, width / self.s
        # Where there is no such point the fixed pieces do.
        usable = np.isfinite(centre) & np.isfinite(width)
        return np.where(usable, centre, 0.0), np.where(usable, width, 1.0)

    def _local(self, y: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """The linear predictor where the mean is y, the spread of the response on its scale, and dmu/deta."""
        family = self.family
        with np.errstate(all="ignore"):
            mu = family.mean_near(y, self.data)
            variance = family.row_variance(mu, self.fit.lam, self.data)
            there = family.eta_of(mu)
            slope = family.link.derivatives(there)[1]
            return there, np.sqrt(variance) / np.abs(slope), slope

    def guess(self, probability: float) -> tuple[FloatArray, FloatArray]:
        """A response near the quantile, and how fast the normal quantile of P(Y <= y) rises there, each (n,).

        The spread of the response where the mean is y adds to that of the linear predictor.
        """
        link = self.family.link
        if self.family.kind == "real":
            mu, rise = link.edge_mean(self.eta), link.derivatives(self.eta)[1]
            spread = np.sqrt((self.s * rise) ** 2 + self.family.row_variance(mu, self.fit.lam, self.data))
            return mu + special.ndtri(probability) * spread, 1.0 / spread
        trials = self.data.n_trials if self.family.has_trials else 1.0
        y, slope = trials * link.edge_mean(self.eta), np.ones(self.eta.size)
        with np.errstate(all="ignore"):
            # Of continuous responses the spread at the mean is enough, and may grow without limit above it.
            for _ in range(_GUESSES if self.is_count else 1):
                _, width, rise = self._local(y)
                spread = np.hypot(self.s, width)
                found = trials * link.edge_mean(self.eta + np.sign(rise) * special.ndtri(probability) * spread)
                rate = 1.0 / (trials * np.abs(rise) * spread)
                usable = np.isfinite(found) & np.isfinite(rate) & (rate > 0.0)
                y, slope = np.where(usable, found, y), np.where(usable, rate, slope)
        return np.nan_to_num(y, posinf=1e15), slope


def _quantiles(mixture: _Mixture, probability: float) -> FloatArray:
    """Over whole numbers for counts, over logarithms for positive responses."""
    y, slope = mixture.guess(probability)
    low, high = np.full(y.size, -np.inf), np.full(y.size, np.inf)
    if mixture.is_count:
        low = np.full(y.size, -1.0)
        high = mixture.data.n_trials.copy() if mixture.family.has_trials else high
        counts = search(mixture, np.ceil(y), slope, low, high, probability)
        if not mixture.family.has_trials:
            return counts
        # A proportion of no trials is not a number.
        trials = mixture.data.n_trials
        shares: FloatArray = np.divide(counts, trials, out=np.full(counts.shape, np.nan), where=trials > 0.0)
        return shares
    if mixture.is_positive:
        y = np.maximum(y, 1e-300)
        return np.exp(search(mixture, np.log(y), np.maximum(slope * y, 1e-3), low, high, probability))
    return search(mixture, y, slope, low, high, probability)


class Distribution(Protocol):
    """P(Y <= y) of rows; of their logarithms where Y is positive."""

    @property
    def is_count(self) -> bool: ...

    @property
    def is_positive(self) -> bool: ...

    def take(self, rows: IntArray) -> Distribution: ...

    def __call__(self, y: FloatArray) -> FloatArray: ...


def search(
    mixture: Distribution, x: FloatArray, slope: FloatArray, low: FloatArray, high: FloatArray, probability: float
) -> FloatArray:
    """Secant steps on the normal quantile of F, which is nearly straight, kept inside what is known of each row.

    Parameters
    ----------
    mixture : Distribution
    x, slope : ndarray, shape (n,)
        First points, and slopes there.
    low, high : ndarray, shape (n,)
        Where F is known to be below `probability`, or not below; infinite where nothing is known. Changed in place.
    probability : float
    """
    whole, target = mixture.is_count, special.ndtri(probability)
    x = np.clip(x, low + 1.0, np.maximum(high - 1.0, low + 1.0)) if whole else x.copy()
    last = np.full((2, x.size), np.nan)
    active = np.arange(x.size)
    for step in range(_STEPS):
        own = x[active]
        below = mixture.take(active)(np.exp(own) if mixture.is_positive else own)
        # Rounding of a sum of probabilities must not move a quantile.
        enough = below >= (probability - 1e-12 if whole else probability)
        high[active[enough]], low[active[~enough]] = own[enough], own[~enough]
        h = special.ndtri(np.clip(below, 1e-300, 1.0 - 1e-16)) - target
        ends = low[active], high[active]
        new = _next(own, h, last[:, active], slope[active], ends, halve=step > 5 and step % 3 == 0)
        new, done = (_whole if whole else _real)(new, own, h, ends)
        if mixture.is_positive:
            # Means without limits: no number reaches the quantile.
            beyond = ((own >= _LAST) & ~enough) | ((own <= -_LAST) & enough)
            new = np.where(beyond, np.copysign(np.inf, own), np.clip(new, -_LAST, _LAST))
            done |= beyond
        last[:, active] = own, h
        x[active] = new
        active = active[~done]
        if not active.size:
            break
    return high if whole else x


def _whole(
    new: FloatArray, own: FloatArray, h: FloatArray, ends: tuple[FloatArray, FloatArray]
) -> tuple[FloatArray, BoolArray]:
    """The next whole numbers strictly between the ends, and the rows of which nothing is left between them."""
    low, high = ends
    new = np.minimum(np.clip(np.ceil(new), low + 1.0, np.maximum(high - 1.0, low + 1.0)), _MOST)
    return new, (high - low <= np.maximum(1.0, 4e-16 * low)) | ((own >= _MOST) & np.isinf(high))


def _real(
    new: FloatArray, own: FloatArray, h: FloatArray, ends: tuple[FloatArray, FloatArray]
) -> tuple[FloatArray, BoolArray]:
    """The next real numbers, and the rows that have arrived."""
    near = 1e-11 * np.maximum(1e-3, np.abs(own))
    hit = np.abs(h) < 1e-12
    # Far away, where F is 0 or 1 to rounding, a short step says nothing.
    settled = hit | ((np.abs(new - own) <= near) & (np.abs(h) < 1e-5))
    return np.where(hit, own, new), settled | (ends[1] - ends[0] <= near)


def _next(
    x: FloatArray,
    h: FloatArray,
    last: FloatArray,
    slope: FloatArray,
    ends: tuple[FloatArray, FloatArray],
    halve: bool,
) -> FloatArray:
    """The next point of each row: along the secant, not too far, and inside the ends; or their middle."""
    with np.errstate(all="ignore"):
        moved = x - last[0]
        rate = (h - last[1]) / moved
        # Where F is flat, as far as it goes.
        rate = np.where(np.isnan(moved), slope, np.where(np.isfinite(rate) & (rate > 0.0), rate, 1e-300))
        reach = np.fmax(4.0 * np.abs(moved), 4.0 / slope)
        new = x - np.clip(h / rate, -reach, reach)
        middle = 0.5 * (ends[0] + ends[1])
    outside = ~((new > ends[0]) & (new < ends[1]))
    return np.where(np.isfinite(middle) & (outside | halve), middle, new)


def cumulative(fit: Fit, y: FloatArray, eta: FloatArray, data: ResponseData) -> FloatArray:
    """P(Y <= y | eta): the distribution function of the response (binomial: of successes), shape of eta.

    Parameters
    ----------
    fit : Fit
    y : ndarray, shape (n,)
    eta : ndarray, shape (..., n)
    data : ResponseData
    """
    return fit.distribution.cdf(y, eta, fit.lam, data)
