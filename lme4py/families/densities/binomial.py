"""Successes out of trials: binomial and beta-binomial."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import special

from lme4py.chunks import chunk
from lme4py.families.densities.base import (
    CONDITIONAL,
    DISPERSION,
    Density,
    DensityArgument,
    End,
    ScaledDensity,
    Values,
    clipped_log,
    probability_link,
)
from lme4py.families.densities.calculus.jets import Degrees, DensityJet, Index, Part, compose
from lme4py.families.densities.calculus.special import rising
from lme4py.families.densities.counts import discrete_quantile, flat
from lme4py.families.links import Derivatives
from lme4py.families.response import ResponseData
from lme4py.linalg.types import BoolArray, FloatArray, IntArray

__all__ = ["BetaBinomial", "BinomialDensity"]

# Probabilities of a table of rows by successes.
_TABLE: Final = chunk(1_000_000)
_LINKS = ("logit", "probit", "cloglog", "loglog", "cauchit", "log", "identity")


class _TrialsDensity(Density):
    takes_points = True
    kind = "trials"
    default_link = "logit"
    support = "whole numbers of successes, from 0 to the trials of the row"
    ratio = "odds ratio"

    def outside(self, data: ResponseData) -> BoolArray:
        whole = (data.y == np.rint(data.y)) & (data.n_trials == np.rint(data.n_trials))
        return np.asarray(~whole | (data.y < 0.0) | (data.y > data.n_trials))

    def start_eta(self, data: ResponseData) -> FloatArray:
        return self.link.eta((data.y + 0.5) / (data.n_trials + 1.0))

    def quantile(self, p: FloatArray, x: Values, data: ResponseData) -> FloatArray:
        p, parts, shape = flat(p, x)
        rows = np.broadcast_to(np.arange(shape[-1] if shape else 1), shape).ravel()
        everything = data.take(rows)

        def cdf(k: FloatArray, which: IntArray) -> FloatArray:
            return self.cdf(k, [part[which] for part in parts], everything.take(which))

        center = everything.n_trials * self.mean(parts)
        spread = np.sqrt(self.variance(parts, everything))
        k = discrete_quantile(p, center, spread, cdf)
        return np.where(np.isposinf(k), everything.n_trials, k).reshape(shape)


@dataclass(frozen=True)
class BinomialDensity(_TrialsDensity):
    """y successes of m trials: l = log C(m, y) + y log mu + (m - y) log(1 - mu)."""

    name = "binomial"
    links = _LINKS

    @property
    def variables(self) -> tuple[DensityArgument, ...]:
        return (DensityArgument(CONDITIONAL, "p", "logit"),)

    def jet(self, data: ResponseData, x: Values, degrees: Degrees) -> DensityJet:
        A, B = probability_link(self.link).tails(x[0])
        parts: dict[Index, Part] = {(): data.log_choose + _both(data, A[0], B[0])}
        for k in range(1, degrees.total + 1):
            if degrees.keeps((0,) * k):
                parts[(0,) * k] = _both(data, A[k], B[k])
        return DensityJet(parts, degrees)

    def variance(self, x: Values, data: ResponseData | None = None) -> FloatArray:
        A, B = probability_link(self.link).tails(np.asarray(x[0]))
        trials = 1.0 if data is None else data.n_trials
        return trials * np.exp(A[0] + B[0])

    def cdf(self, y: FloatArray, x: Values, data: ResponseData) -> FloatArray:
        k, m = np.floor(y), data.n_trials
        inside = np.clip(k, 0.0, np.maximum(m - 1.0, 0.0))
        rest = probability_link(self.link).complement(np.asarray(x[0]))
        lower = special.betainc(np.maximum(m - inside, 1.0), inside + 1.0, rest)
        return np.where(k < 0.0, 0.0, np.where(k >= m, 1.0, lower))

    def sf(self, y: FloatArray, x: Values, data: ResponseData) -> FloatArray:
        k, m = np.floor(y), data.n_trials
        inside = np.clip(k, 0.0, np.maximum(m - 1.0, 0.0))
        upper = special.betainc(inside + 1.0, np.maximum(m - inside, 1.0), self.mean(x))
        return np.where(k < 0.0, 1.0, np.where(k >= m, 0.0, upper))

    def simulate(self, x: Values, data: ResponseData, rng: np.random.Generator) -> FloatArray:
        return rng.binomial(np.rint(data.n_trials).astype(np.int64), self.mean(x)).astype(np.float64)


def _both(data: ResponseData, a: FloatArray, b: FloatArray) -> FloatArray:
    """y a + (m - y) b, where no count makes 0 of an infinite part."""
    total = data.y * a + data.failures * b
    if bool(np.isfinite(total.sum())):
        return total
    return np.where(data.y == 0.0, 0.0, data.y * a) + np.where(data.failures == 0.0, 0.0, data.failures * b)


@dataclass(frozen=True)
class BetaBinomial(ScaledDensity, _TrialsDensity):
    """Binomial with probabilities from Beta(mu phi, (1 - mu) phi); the second variable is log phi.

    The binomial log-likelihood plus R(y, a) + R(m - y, b) - R(m, phi), a = mu phi, b = (1 - mu) phi, R of
    `special.rising`, which goes to zero as phi grows: the binomial limit is exact. Where a parameter is small beside
    its count the log terms are added to R first, so that nothing of the size of the count is left to cancel.
    Smithson & Verkuilen (2006, *Psychol. Methods* 11:54) for the mean and the precision.
    """

    name = "betabinomial"
    links = ("logit", "probit", "cloglog", "loglog", "cauchit")
    dispersion_means = "phi: the probabilities of the rows have the variance mu (1 - mu) / (1 + phi)"
    limits = (End(DISPERSION, 1, "the binomial model", simpler=True),)
    sources = "Smithson & Verkuilen (2006)"

    def jet(self, data: ResponseData, x: Values, degrees: Degrees) -> DensityJet:
        A, B = probability_link(self.link).tails(x[0])
        F = np.asarray(x[1])
        total = _gamma_ratio(data.y, A, F, degrees) + _gamma_ratio(data.failures, B, F, degrees)
        zero = np.zeros(())
        less = _gamma_ratio(data.n_trials, (zero, zero, zero, zero), F, degrees)
        jet = total - less
        jet.parts[()] = jet.parts[()] + data.log_choose
        if degrees.keeps((1,)):
            jet.parts[1,] = _slope_in_phi(data, A[0], B[0], F)
        return jet

    def variance(self, x: Values, data: ResponseData | None = None) -> FloatArray:
        A, B = probability_link(self.link).tails(np.asarray(x[0]))
        trials: FloatArray | float = 1.0 if data is None else data.n_trials
        # (phi + m) / (phi + 1)
        excess = 1.0 + (trials - 1.0) * special.expit(-np.asarray(x[1]))
        return trials * np.exp(A[0] + B[0]) * excess

    def cdf(self, y: FloatArray, x: Values, data: ResponseData) -> FloatArray:
        return self._tails(y, x, data)[0]

    def sf(self, y: FloatArray, x: Values, data: ResponseData) -> FloatArray:
        return self._tails(y, x, data)[1]

    def _tails(self, y: FloatArray, x: Values, data: ResponseData) -> tuple[FloatArray, FloatArray]:
        """Both sums over the probabilities of each row."""
        y, parts, shape = flat(y, x)
        rows = np.broadcast_to(np.arange(shape[-1] if shape else 1), shape).ravel()
        k = np.floor(y)
        m = data.take(rows).n_trials
        lower, upper = np.zeros(y.shape), np.zeros(y.shape)
        # As many rows at a time as keep the table of probabilities small.
        most = int(m.max(initial=0.0)) + 1
        for start in range(0, y.size, step := max(1, _TABLE // most)):
            block = slice(start, start + step)
            everything = data.take(rows[block])
            counts = np.arange(int(m[block].max(initial=0.0)) + 1.0)
            many = np.repeat(np.arange(k[block].size), counts.size)
            table = np.minimum(counts, m[block, None])
            log_p = self.loglik(everything.take(many).with_y(table.ravel()), [part[block][many] for part in parts])
            p = np.where(counts <= m[block, None], np.exp(log_p).reshape(table.shape), 0.0)
            below = counts <= k[block, None]
            lower[block] = np.where(below, p, 0.0).sum(axis=1)
            upper[block] = np.where(below, 0.0, p).sum(axis=1)
        return np.minimum(lower, 1.0).reshape(shape), np.minimum(upper, 1.0).reshape(shape)

    def simulate(self, x: Values, data: ResponseData, rng: np.random.Generator) -> FloatArray:
        mu = self.mean(x)
        rest = probability_link(self.link).complement(np.asarray(x[0]))
        phi = np.minimum(np.exp(np.asarray(x[1])), 1e15)
        p = rng.beta(np.maximum(mu * phi, 1e-300), np.maximum(rest * phi, 1e-300), data.n_obs)
        return rng.binomial(np.rint(data.n_trials).astype(np.int64), np.clip(p, 0.0, 1.0)).astype(np.float64)

    def start_rest(self, data: ResponseData, eta: FloatArray) -> tuple[float, ...]:
        """From sum of (y - m mu)^2 / (m mu (1 - mu)) = 1 + (m - 1) / (1 + phi)."""
        mu, m = self.mean((eta,)), np.maximum(data.n_trials, 1.0)
        ratio = (data.y - m * mu) ** 2 / np.maximum(m * mu * (1.0 - mu), 1e-8)
        excess = float(np.sum(data.weight * (ratio - 1.0))) / max(float(np.sum(data.weight * (m - 1.0))), 1.0)
        return (clipped_log(1.0 / max(excess, 1e-3) - 1.0, 1e-2, 1e3),)


def _gamma_ratio(y: FloatArray, A: Derivatives, F: FloatArray, degrees: Degrees) -> DensityJet:
    """log Gamma(y + a) - log Gamma(a) - y log phi with log a = A(eta) + F, in (eta, F)."""
    t = A[0] + F
    R = rising(y, t, degrees.total)
    inner: dict[Index, Part] = {(): t, (1,): 1.0}
    if A[0].ndim:
        inner |= {(0,) * k: A[k] for k in (1, 2, 3)}
    slopes = [R[0] + y * A[0], *([R[1] + y] if len(R) > 1 else []), *R[2:]]
    return compose(slopes, DensityJet.kept(degrees, inner))


def _slope_in_phi(data: ResponseData, log_mu: FloatArray, log_rest: FloatArray, F: FloatArray) -> FloatArray:
    """dl/dF: R' of the three parts, or R' + y of those whose parameter is small beside the count."""
    total, whole = np.zeros(()), np.zeros(())
    for sign, y, t in ((1.0, data.y, log_mu + F), (1.0, data.failures, log_rest + F), (-1.0, data.n_trials, F)):
        slope = rising(y, t, 1)[1]
        small = np.exp(t) < y
        # R' is y less than the slope of the gamma functions; whole numbers are put together exactly.
        total = total + sign * np.where(small, slope + y, slope)
        whole = whole + sign * np.where(small, y, 0.0)
    return total - whole
