"""Negative binomial counts, with the variance quadratic (NB-2) or linear (NB-1) in mu.

Hardin & Hilbe (2007, *Generalized Linear Models and Extensions*). Both are written with r = s / (y + s), c = 1 - r,
v = (mu - y) / (y + s), w = v / (1 + v) and G = log(1 + v) - w for the size s (Loader 2000): what remains of the gamma
functions is small, and the Poisson limit s -> infinity is exact.

    l = -(y + s) log(1 + v) + y log(mu / y) - log(1 + y/s)/2 - [log y! - (y log y - y)] + delta(y + s) - delta(s)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from scipy import special

from lme4py.families.densities.base import (
    CONDITIONAL,
    DISPERSION,
    Density,
    End,
    ScaledDensity,
    Values,
    clipped_log,
    log_mean,
    through_log_mean,
)
from lme4py.families.densities.calculus.jets import Degrees, DensityJet, compose
from lme4py.families.densities.calculus.special import (
    NEAR_ZERO,
    log_log1p,
    log_log1p_rest,
    near_log1p_minus_slope,
    sigmoid,
    sigmoid_softplus,
    softplus,
    stirling,
)
from lme4py.families.densities.counts import CountDensity
from lme4py.families.densities.poisson import PoissonDensity
from lme4py.families.response import ResponseData
from lme4py.linalg.types import FloatArray

__all__ = ["NegativeBinomial1Density", "NegativeBinomial2Density"]

# Logarithms of s over the counts below which truncated counts are logarithmic for all that rows can tell.
_LOGARITHMIC: Final = -10.0
_LOG_NEAR: Final = float(np.log(NEAR_ZERO))


class _NegativeBinomial(ScaledDensity, CountDensity):
    takes_points = True
    default_link = "log"
    links = ("log", "identity", "sqrt")
    sources = "Hardin & Hilbe (2007)"
    # Which parameters have no estimates where s goes to zero in all rows with a count.
    logarithmic = ""

    def size(self, x: Values) -> FloatArray:
        """s, in terms of which the variance is mu + mu^2 / s."""
        raise NotImplementedError

    def variance(self, x: Values, data: ResponseData | None = None) -> FloatArray:
        mu = self.mean(x, data)
        return mu * (1.0 + mu / self.size(x))

    @property
    def without_dispersion(self) -> Density | None:
        return PoissonDensity(self.link)

    def trouble_above_zero(self, data: ResponseData, x: Values) -> str:
        """As s goes to zero with a fixed ratio of mean and s, counts above zero become logarithmic."""
        with np.errstate(under="ignore"):
            s = np.broadcast_to(self.size(x), data.y.shape)
        if float(np.log(np.maximum(s, 1e-300))[data.y > 0.0].max()) - _log_mean(data) > _LOGARITHMIC:
            return ""
        return (
            f"{self.logarithmic}: counts above zero vary as those of the logarithmic distribution, more than any "
            "truncated negative binomial. More columns or random effects for the mean may explain a part of it"
        )

    def cdf(self, y: FloatArray, x: Values, data: ResponseData) -> FloatArray:
        k, (miss, _) = np.floor(y), self._odds(x)
        return np.where(k < 0.0, 0.0, special.betainc(self.size(x), np.maximum(k, 0.0) + 1.0, miss))

    def sf(self, y: FloatArray, x: Values, data: ResponseData) -> FloatArray:
        k, (_, hit) = np.floor(y), self._odds(x)
        return np.where(k < 0.0, 1.0, special.betainc(np.maximum(k, 0.0) + 1.0, self.size(x), hit))

    def _odds(self, x: Values) -> tuple[FloatArray, FloatArray]:
        """s / (s + mu) and mu / (s + mu)."""
        return sigmoid(np.log(self.size(x)) - np.log(self.mean(x)))

    def simulate(self, x: Values, data: ResponseData, rng: np.random.Generator) -> FloatArray:
        """Poisson counts with gamma distributed means."""
        mu, s = np.broadcast_arrays(self.mean(x, data), self.size(x))
        mu, s = np.broadcast_to(mu, data.y.shape), np.broadcast_to(s, data.y.shape)
        # A gamma distribution of immense shape is its mean.
        rate = np.where(s < 1e15, rng.gamma(np.minimum(s, 1e15), mu / np.minimum(s, 1e15)), mu)
        return rng.poisson(rate).astype(np.float64)


@dataclass(frozen=True)
class NegativeBinomial2Density(_NegativeBinomial):
    """Variance mu + mu^2 / shape."""

    name = "nbinomial"
    parameter = "shape"
    dispersion_means = "shape: the variance is mu + mu^2 / shape"
    logarithmic = (
        "the shape and the means before truncation go to zero together, and neither has an estimate, only slopes do"
    )
    limits = (End(DISPERSION, 1, "the Poisson model", simpler=True), End(CONDITIONAL, -1, "a mean of zero"))

    def size(self, x: Values) -> FloatArray:
        return np.exp(np.asarray(x[1]))

    def dispersion_unit(self, data: ResponseData) -> float:
        """The shape as large as the mean: both parts of the variance are the same."""
        return _log_mean(data)

    def jet(self, data: ResponseData, x: Values, degrees: Degrees) -> DensityJet:
        L = log_mean(self.link, x[0])
        return through_log_mean(_quadratic(data, L, np.asarray(x[1]), degrees), self.link, x[0])

    def zero_jet(self, data: ResponseData, x: Values, degrees: Degrees) -> DensityJet:
        """-theta log(1 + mu/theta)."""
        L, T = log_mean(self.link, x[0]), np.asarray(x[1])
        return through_log_mean(_quadratic_zero(L, T, degrees), self.link, x[0])

    def log_log_zero(self, data: ResponseData, x: Values, degrees: Degrees) -> DensityJet:
        """log(theta log(1 + mu/theta))."""
        L, T = log_mean(self.link, x[0]), np.asarray(x[1])
        inner = DensityJet.kept(degrees, {(): L - T, (0,): 1.0, (1,): -1.0})
        jet = compose(log_log1p(L - T, degrees.total), inner)
        if degrees.keeps((1,)):
            jet.parts[1,] = log_log1p_rest(L - T)
        jet.parts[()] = jet.parts[()] + T
        return through_log_mean(jet, self.link, x[0])

    def start_rest(self, data: ResponseData, eta: FloatArray) -> tuple[float, ...]:
        """From sum((y - mu)^2 - mu) = sum(mu^2) / shape."""
        mu = self.mean((eta,))
        excess = float(np.sum(data.weight * ((data.y - mu) ** 2 - mu)))
        square = float(np.sum(data.weight * mu * mu))
        return (clipped_log(square / max(excess, 1e-300), 1e-3, 1e3),)


@dataclass(frozen=True)
class NegativeBinomial1Density(_NegativeBinomial):
    """Variance mu (1 + phi)."""

    name = "nbinomial1"
    dispersion_means = "phi: the variance is mu (1 + phi)"
    logarithmic = "the means before truncation go to zero, and have no estimates, only phi does"
    limits = (End(DISPERSION, -1, "the Poisson model", simpler=True), End(CONDITIONAL, -1, "a mean of zero"))

    def size(self, x: Values) -> FloatArray:
        return self.mean(x) * np.exp(-np.asarray(x[1]))

    def jet(self, data: ResponseData, x: Values, degrees: Degrees) -> DensityJet:
        L = log_mean(self.link, x[0])
        return through_log_mean(_linear(data, L, np.asarray(x[1]), degrees), self.link, x[0])

    def log_log_zero(self, data: ResponseData, x: Values, degrees: Degrees) -> DensityJet:
        """log(mu log(1 + phi) / phi)."""
        L, F = log_mean(self.link, x[0]), np.asarray(x[1])
        jet = compose(log_log1p(F, degrees.total), DensityJet.kept(degrees, {(): F, (1,): 1.0}))
        if degrees.keeps((0,)):
            jet.parts[0,] = 1.0
        if degrees.keeps((1,)):
            jet.parts[1,] = -log_log1p_rest(F)
        jet.parts[()] = jet.parts[()] + (L - F)
        return through_log_mean(jet, self.link, x[0])

    def start_rest(self, data: ResponseData, eta: FloatArray) -> tuple[float, ...]:
        """From sum((y - mu)^2) = (1 + phi) sum(mu)."""
        mu = self.mean((eta,))
        ratio = float(np.sum(data.weight * (data.y - mu) ** 2) / np.sum(data.weight * mu))
        return (clipped_log(ratio - 1.0, 1e-3, 1e12),)


def _log_mean(data: ResponseData) -> float:
    return float(np.log(max(float(np.mean(data.y)), 1e-300)))


def _beyond_poisson(data: ResponseData, t: FloatArray, order: int) -> list[FloatArray]:
    """-log(1 + y/s)/2 + delta(y + s) - delta(s) and its derivatives with respect to t = log s.

    One number s for all rows, or (B, 1) for those of B points, needs the gamma functions of the distinct counts only.
    """
    if np.ndim(t) and t.shape[-1] > 1:
        return _remainder(data.y, t, order)
    counts, index = data.distinct
    if np.size(t) > 1:
        return [part[:, index] for part in _remainder(counts, t, order)]
    # Where modes are sought, at one s many times, without derivatives in s and with them.
    most = max(order, 2)
    one = np.reshape(t, ())
    parts = data.remember_last("remainder", (float(one), most), lambda: _remainder(counts, one, most))
    return [part[index] for part in parts[: order + 1]]


def _remainder(y: FloatArray, t: FloatArray, order: int) -> list[FloatArray]:
    s = np.exp(t)
    total = y + s
    c, r = y / total, s / total
    top, low = _stirling_of_both(np.log(total), t, order)
    out = [-0.5 * np.log1p(y / s) + top[0] - low[0]]
    if order >= 1:
        out.append(0.5 * c + r * top[1] - low[1])
    if order >= 2:
        rc = r * c
        out.append(rc * (top[1] - 0.5) + r * r * top[2] - low[2])
    if order >= 3:
        out.append(rc * (c - r) * (top[1] - 0.5) + 3.0 * r * rc * top[2] + r**3 * top[3] - low[3])
    return out if y.all() else [np.where(y == 0.0, 0.0, part) for part in out]


def _stirling_of_both(top: FloatArray, low: FloatArray, order: int) -> tuple[list[FloatArray], list[FloatArray]]:
    """`stirling` of two arrays; of one that is a number for all others together with them."""
    if low.ndim and low.shape[-1] > 1:
        return stirling(top, order), stirling(low, order)
    both = stirling(np.concatenate([top, low[..., None] if low.ndim == 0 else low], axis=-1), order)
    return [part[..., :-1] for part in both], [part[..., -1:] for part in both]


@dataclass(frozen=True)
class _Common:
    """What both kinds need of y, L = log mu and t = log s: y - mu, y + s, v, log(1 + v), q = log(mu/y), and w and G."""

    y: FloatArray
    L: FloatArray
    t: FloatArray
    s: FloatArray
    less: FloatArray
    total: FloatArray
    v: FloatArray
    length: FloatArray
    q: FloatArray

    @classmethod
    def of(cls, data: ResponseData, L: FloatArray, t: FloatArray, above: FloatArray) -> _Common:
        """All of them; `above` is softplus(L - t) = log(1 + mu/s)."""
        y, s = data.y, np.exp(t)
        q = data.unless_zero(L - data.log_y, lambda: 0.0)
        less = data.unless_zero(-y * np.expm1(np.minimum(q, 700.0)), lambda: -np.exp(np.minimum(L, 700.0)))
        total = y + s
        v = -less / total
        # Far from 0, where 1 + v would lose its digits or overflow, by its two parts.
        far = above + t - np.log(total)
        length = np.where(np.abs(v) < 0.5, np.log1p(np.maximum(v, -0.5)), far)
        return cls(y, L, t, s, less, total, v, length, q)

    def unless_far(self, values: FloatArray, instead: Callable[[], FloatArray]) -> FloatArray:
        """Numbers made with y - mu, and others where that is no number that products can be made with."""
        near = self.v < 1e10
        return values if np.count_nonzero(near) == near.size else np.where(near, values, instead())

    @cached_property
    def c(self) -> FloatArray:
        return self.y / self.total

    # Derivatives in s only.

    @cached_property
    def r(self) -> FloatArray:
        return self.s / self.total

    @cached_property
    def w(self) -> FloatArray:
        mu = np.exp(np.minimum(self.L, 700.0))
        plain = -self.less / (mu + self.s)
        return self.unless_far(plain, lambda: sigmoid(self.L - self.t)[0] - self.y * np.exp(-self.L))

    @cached_property
    def G(self) -> FloatArray:
        G = self.length - self.w
        near = np.abs(self.v) < NEAR_ZERO
        G[near] = near_log1p_minus_slope(self.v[near])
        return G

    def value(self, data: ResponseData, rest: FloatArray) -> FloatArray:
        main = self.y * self.q - self.total * self.length
        return data.unless_zero(main + rest - data.factorial_remainder, lambda: -self.s * self.length)


def _quadratic(data: ResponseData, L: FloatArray, T: FloatArray, degrees: Degrees) -> DensityJet:
    """NB-2 in L = log mu and T = log shape."""
    p, q, above = sigmoid_softplus(L - T)
    k = _Common.of(data, L, T, above)
    s = k.s
    in_shape = degrees.keeps((1,))
    E = _beyond_poisson(data, T, max(i.count(1) for i in degrees.indices()) if in_shape else 0)
    less_q = k.unless_far(k.less * q, lambda: k.y * q - s * p)
    curve = k.total * p * q
    rw = k.r * k.w * k.w if in_shape else p
    return DensityJet.of(
        degrees,
        {
            (): lambda: k.value(data, E[0]),
            (0,): lambda: less_q,
            (1,): lambda: E[1] - s * k.G,
            (0, 0): lambda: -curve,
            (0, 1): lambda: less_q * p,
            (1, 1): lambda: E[2] - s * (k.G - rw),
            (0, 0, 0): lambda: curve * (p - q),
            # Two forms of the same, each without cancellation on its side.
            (0, 0, 1): lambda: np.where(p < 0.5, p * q * (k.less * (q - p) - s * p / q), curve * (q - p) - s * p * q),
            (0, 1, 1): lambda: less_q * p * (p - q),
            (1, 1, 1): lambda: E[3] - s * (k.G - rw * (3.0 - k.r - 2.0 * q)),
        },
    )


def _quadratic_zero(L: FloatArray, T: FloatArray, degrees: Degrees) -> DensityJet:
    """`_quadratic` of counts of 0, where no gamma functions are left."""
    s, t = np.exp(T), L - T
    p, q, length = sigmoid_softplus(t)
    hit, G = s * p, length
    if degrees.keeps((1,)):
        G = length - p
        near = t < _LOG_NEAR
        G[near] = near_log1p_minus_slope(np.exp(t[near]))
    curve = hit * q
    return DensityJet.of(
        degrees,
        {
            (): lambda: -s * length,
            (0,): lambda: -hit,
            (1,): lambda: -s * G,
            (0, 0): lambda: -curve,
            (0, 1): lambda: -hit * p,
            (1, 1): lambda: -s * (G - p * p),
            (0, 0, 0): lambda: curve * (p - q),
            (0, 0, 1): lambda: -2.0 * curve * p,
            (0, 1, 1): lambda: hit * p * (q - p),
            (1, 1, 1): lambda: -s * (G - 2.0 * p * p * p),
        },
    )


def _linear(data: ResponseData, L: FloatArray, F: FloatArray, degrees: Degrees) -> DensityJet:
    """NB-1 in L = log mu and F = log phi; s = mu / phi."""
    t = L - F
    # Not of F: all are those of the same s.
    k = _Common.of(data, L, t, softplus(L - t))
    rho, rest = sigmoid(F)
    s = k.s
    E = _remainder(data.y, t, degrees.total)
    e = k.v * rest  # d log(1 + v) / dF
    rc, wc = k.r * k.c, k.w * k.c
    d_e = rho * rest - rc
    return DensityJet.of(
        degrees,
        {
            (): lambda: k.value(data, E[0]),
            (0,): lambda: E[1] - s * k.length,
            (1,): lambda: s * k.G - E[1],
            (0, 0): lambda: E[2] - s * (k.length + k.c),
            (0, 1): lambda: s * (k.G + wc) - E[2],
            (1, 1): lambda: E[2] - s * (k.G - k.w * e),
            (0, 0, 0): lambda: E[3] - s * (k.length + k.c + k.c * k.c),
            (0, 0, 1): lambda: s * (k.G + wc + k.c * k.c) - E[3],
            (0, 1, 1): lambda: E[3] + s * (k.w * e + (1.0 - k.w) * e * k.c + k.w * rc - k.G - wc),
            (1, 1, 1): lambda: s * (k.G - 2.0 * k.w * e + (1.0 - k.w) * e * e + k.w * d_e) - E[3],
        },
    )
