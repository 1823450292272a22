"""Quantiles of a new response whose linear predictor is normal: the response distribution mixed over it.

P(Y <= y) = integral of phi(z) F(y | eta + s z) dz. F as a function of z falls from 1 to 0 around the point where y is
the mean, over a width that is the standard deviation of Y there; with many trials or large counts that is much narrower
than phi. Gauss-Legendre rules on pieces that are short around that point, and also where phi changes, serve all cases.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import special

from lme4py.design.response import ResponseData
from lme4py.engine.types import FloatArray, IntArray
from lme4py.glmm_fit import GlmmFit

__all__ = ["cumulative", "mixed_quantiles"]

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(6)
_FIXED = np.array([-8.0, -5.0, -3.0, -1.5, 0.0, 1.5, 3.0, 5.0, 8.0])
_AROUND = np.array([-8.0, -4.0, -1.5, 0.0, 1.5, 4.0, 8.0])
# Rows whose nodes are held at a time.
_ROWS = 5_000
_STEPS = 60


def mixed_quantiles(
    fit: GlmmFit, eta: FloatArray, variance: FloatArray, data: ResponseData, probability: float
) -> FloatArray:
    """The smallest responses whose probability reaches `probability`, shape (n,).

    Parameters
    ----------
    fit : GlmmFit
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
        parts.append(_quantiles(_Mixture(fit, eta[rows], variance[rows], _rows_of(data, rows)), probability))
    return np.concatenate(parts)[back.reshape(-1)] if parts else np.zeros(0)


def _rows_of(data: ResponseData, rows: IntArray) -> ResponseData:
    def take(values: FloatArray | None) -> FloatArray | None:
        return None if values is None else values[rows]

    return ResponseData(data.y[rows], take(data.trials), take(data.weights))


class _Mixture:
    """P(Y <= y) for rows with a normal linear predictor."""

    def __init__(self, fit: GlmmFit, eta: FloatArray, variance: FloatArray, data: ResponseData) -> None:
        self.fit = fit
        self.eta = eta
        self.s = np.sqrt(np.maximum(variance, 1e-24))
        self.data = data

    @property
    def is_count(self) -> bool:
        return self.fit.family.name in ("binomial", "poisson", "nbinomial", "nbinomial1")

    def __call__(self, y: FloatArray) -> FloatArray:
        """Probability of at most `y`, shape (n,)."""
        from lme4py.inference.prediction_intervals import edge_mean

        z, w = self._nodes(y)
        mu = edge_mean(self.fit, self.eta + self.s * z)
        total: FloatArray = (w * cumulative(self.fit, y, mu, self.data)).sum(axis=0)
        return total

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
        fit, family = self.fit, self.fit.family
        if family.name == "binomial":
            mu = np.clip((y + 0.5) / (self.data.n_trials + 1.0), 1e-9, 1.0 - 1e-9)
            variance = family.variance(mu) / self.data.n_trials
        elif family.name == "gaussian":
            mu, variance = y, family.variance(y, fit.lam) / self.data.weight
            if family.link.name != "identity":
                mu = np.where(np.abs(y) > 1e-12, np.abs(y), 1e-12)
        else:
            mu = y + 0.5 if self.is_count else np.maximum(y, 1e-300)
            mu = np.maximum(mu, 1e-6) if self.is_count else mu
            variance = family.variance(mu, fit.lam) / (1.0 if self.is_count else self.data.weight)
        with np.errstate(all="ignore"):
            there = family.eta_of(mu)
            width = np.sqrt(variance) / np.abs(family.link.derivatives(there)[1])
            centre, width = (there - self.eta) / self.s, width / self.s
        # Where there is no such point the fixed pieces do.
        usable = np.isfinite(centre) & np.isfinite(width)
        return np.where(usable, centre, 0.0), np.where(usable, width, 1.0)

    def bracket(self) -> tuple[FloatArray, FloatArray]:
        """Values below and above all quantiles that matter."""
        from lme4py.inference.prediction_intervals import edge_mean

        ends = np.stack([edge_mean(self.fit, self.eta + k * self.s) for k in (-9.0, 0.0, 9.0)])
        largest = np.minimum(np.nan_to_num(ends, posinf=1e200).max(axis=0), 1e200)
        if self.fit.family.name == "binomial":
            return np.full(self.eta.size, -1.0), self.data.n_trials.copy()
        if self.is_count:
            return np.full(self.eta.size, -1.0), np.minimum(np.ceil(20.0 + 2.0 * largest), 1e15)
        smallest = np.minimum(ends.min(axis=0), largest)
        if self.fit.family.name == "gaussian":
            reach = 12.0 * np.sqrt(self.fit.family.variance(largest, self.fit.lam) / self.data.weight)
            return smallest - reach, largest + reach
        return np.maximum(smallest, 1e-200), largest


def _quantiles(mixture: _Mixture, probability: float) -> FloatArray:
    """Bisection: over whole numbers for counts, over logarithms for positive responses."""
    name = mixture.fit.family.name
    low, high = mixture.bracket()
    if mixture.is_count:
        high = _widened(mixture, high, probability) if name != "binomial" else high
        return _count_quantiles(mixture, low, high, probability)
    if name == "gaussian":
        return _bisect(mixture, low, high, probability, np.asarray)
    low, high = _log_bracket(mixture, np.log(low), np.log(high), probability)
    return np.exp(_bisect(mixture, low, high, probability, np.exp))


def _widened(mixture: _Mixture, high: FloatArray, probability: float) -> FloatArray:
    """Upper ends doubled until they hold the quantile."""
    for _ in range(60):
        short = mixture(high) < probability
        if not short.any():
            break
        high = np.where(short, 2.0 * high + 1.0, high)
    return high


def _log_bracket(
    mixture: _Mixture, low: FloatArray, high: FloatArray, probability: float
) -> tuple[FloatArray, FloatArray]:
    for _ in range(60):
        under, over = mixture(np.exp(low)) >= probability, mixture(np.exp(high)) < probability
        if not (under.any() or over.any()):
            break
        low, high = np.where(under, low - 2.0, low), np.where(over, high + 2.0, high)
    return low, high


def _count_quantiles(mixture: _Mixture, low: FloatArray, high: FloatArray, probability: float) -> FloatArray:
    # F(low) < probability <= F(high) throughout; rounding of a sum of probabilities must not move a quantile.
    aim = probability - 1e-12
    while (high - low > 1.0).any():
        middle = np.floor(0.5 * (low + high))
        enough = mixture(middle) >= aim
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    is_share = mixture.fit.family.name == "binomial"
    return high / mixture.data.n_trials if is_share else high


def _bisect(mixture: _Mixture, low: FloatArray, high: FloatArray, probability: float, scale: Any) -> FloatArray:
    for _ in range(_STEPS):
        middle = 0.5 * (low + high)
        enough = mixture(scale(middle)) >= probability
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
        if (high - low <= 1e-10 * np.maximum(1e-3, np.abs(middle))).all():
            break
    return np.asarray(0.5 * (low + high))


def cumulative(fit: GlmmFit, y: FloatArray, mu: FloatArray, data: ResponseData) -> FloatArray:
    """P(Y <= y | mu): the distribution function of the response (binomial: of successes), shape of mu.

    Parameters
    ----------
    fit : GlmmFit
    y : ndarray, shape (n,)
    mu : ndarray, shape (..., n)
    data : ResponseData
    """
    name, size = fit.family.name, fit.dispersion
    with np.errstate(all="ignore"):
        if name == "binomial":
            rest = np.maximum(data.n_trials - y, 1e-300)
            value = special.betainc(rest, np.maximum(y, 0.0) + 1.0, 1.0 - np.clip(mu, 0.0, 1.0))
            value = np.where(y < 0.0, 0.0, np.where(y >= data.n_trials, 1.0, value))
        elif name == "poisson":
            value = np.where(y < 0.0, 0.0, special.pdtr(np.maximum(y, 0.0), mu))
        elif name == "nbinomial":
            value = np.where(y < 0.0, 0.0, special.betainc(size, np.maximum(y, 0.0) + 1.0, size / (size + mu)))
        elif name == "nbinomial1":
            value = np.where(y < 0.0, 0.0, special.betainc(mu / size, np.maximum(y, 0.0) + 1.0, 1.0 / (1.0 + size)))
        elif name == "gaussian":
            value = special.ndtr((y - mu) * np.sqrt(data.weight / size))
        elif name == "gamma":
            shape = data.weight / size
            value = special.gammainc(shape, shape * y / mu)
        else:
            value = _inverse_gaussian(y, mu, data.weight / size)
    # A mean at the end of its range: nothing (infinite mean) or everything (zero) is below y.
    limit = np.where(mu > y, 0.0, 1.0)
    return np.where(np.isfinite(value), value, limit)


def _inverse_gaussian(y: FloatArray, mu: FloatArray, b: FloatArray | float) -> FloatArray:
    """Phi(r (y/mu - 1)) + exp(2b/mu) Phi(-r (y/mu + 1)) with r = sqrt(b / y)."""
    r = np.sqrt(b / y)
    first = special.ndtr(r * (y / mu - 1.0))
    second: FloatArray = np.exp(2.0 * b / mu + special.log_ndtr(-r * (y / mu + 1.0)))
    total: FloatArray = first + second
    return total
