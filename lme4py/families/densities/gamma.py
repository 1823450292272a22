"""Gamma and inverse Gaussian responses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

from lme4py.families.densities.base import DISPERSION, End, Values, clipped_log, log_mean, through_log_mean
from lme4py.families.densities.calculus.jets import Degrees, DensityJet
from lme4py.families.densities.calculus.special import LOG_2PI, expm1_minus, stirling
from lme4py.families.densities.continuous import PositiveDensity, log_bisection
from lme4py.families.response import ResponseData
from lme4py.linalg.types import FloatArray

__all__ = ["GammaDensity", "InverseGaussianDensity"]


@dataclass(frozen=True)
class GammaDensity(PositiveDensity):
    """Variance mu^2 / shape; the second variable is log shape, and the shape of a row is a = w shape.

    With z = log(y / mu): l = -a (e^z - 1 - z) + log(a / 2 pi)/2 - delta(a) - log y.
    """

    takes_points = True
    name = "gamma"
    default_link = "log"
    links = ("log", "inverse", "identity")
    parameter = "shape"
    dispersion_means = "shape: the variance is mu^2 / shape"
    weights_multiply = False
    limits = (End(DISPERSION, 1, "responses without variation around their means"),)

    def jet(self, data: ResponseData, x: Values, degrees: Degrees) -> DensityJet:
        t = np.log(data.weight) + x[1]
        a = np.exp(t)
        z = data.log_y - log_mean(self.link, x[0])
        growth = a * np.expm1(z)
        gap = a * expm1_minus(z)
        delta = stirling(t, max(index.count(1) for index in degrees.indices()))
        jet = DensityJet.of(
            degrees,
            {
                (): lambda: 0.5 * (t - LOG_2PI) - delta[0] - data.log_y - gap,
                (0,): lambda: growth,
                (1,): lambda: 0.5 - delta[1] - gap,
                (0, 0): lambda: -(growth + a),
                (0, 1): lambda: growth,
                (1, 1): lambda: -delta[2] - gap,
                (0, 0, 0): lambda: growth + a,
                (0, 0, 1): lambda: -(growth + a),
                (0, 1, 1): lambda: growth,
                (1, 1, 1): lambda: -delta[3] - gap,
            },
        )
        return through_log_mean(jet, self.link, x[0])

    def _shape(self, x: Values, data: ResponseData | None) -> FloatArray:
        return np.exp(np.asarray(x[1])) * (1.0 if data is None else data.weight)

    def variance(self, x: Values, data: ResponseData | None = None) -> FloatArray:
        return self.mean(x) ** 2 / self._shape(x, data)

    def cdf(self, y: FloatArray, x: Values, data: ResponseData) -> FloatArray:
        a = self._shape(x, data)
        return special.gammainc(a, a * np.maximum(y, 0.0) / self.mean(x))

    def sf(self, y: FloatArray, x: Values, data: ResponseData) -> FloatArray:
        a = self._shape(x, data)
        return special.gammaincc(a, a * np.maximum(y, 0.0) / self.mean(x))

    def quantile(self, p: FloatArray, x: Values, data: ResponseData) -> FloatArray:
        a = self._shape(x, data)
        return special.gammaincinv(a, p) * self.mean(x) / a

    def simulate(self, x: Values, data: ResponseData, rng: np.random.Generator) -> FloatArray:
        a = self._shape(x, data)
        return rng.gamma(a, self.mean(x) / a, data.n_obs)

    def start_rest(self, data: ResponseData, eta: FloatArray) -> tuple[float, ...]:
        """One over the mean squared relative residual."""
        relative = data.weight * (data.y / self.mean((eta,)) - 1.0) ** 2
        return (clipped_log(1.0 / max(float(np.mean(relative)), 1e-8)),)


@dataclass(frozen=True)
class InverseGaussianDensity(PositiveDensity):
    """Variance phi mu^3; the second variable is log phi, and b = w / phi.

    l = -b (e^z - 1)^2 / (2 y) + [log(b / 2 pi) - 3 log y]/2 with z = log(y / mu).
    """

    takes_points = True
    name = "inverse_gaussian"
    default_link = "log"
    links = ("log", "1/mu^2", "inverse", "identity")
    dispersion_means = "phi: the variance is phi mu^3"
    weights_multiply = False
    limits = (End(DISPERSION, -1, "responses without variation around their means"),)

    def jet(self, data: ResponseData, x: Values, degrees: Degrees) -> DensityJet:
        t = np.log(data.weight) - x[1]
        b = np.exp(t)
        L = log_mean(self.link, x[0])
        growth = np.expm1(data.log_y - L)
        half = 0.5 * b * growth * growth / data.y
        U, V = b * np.exp(data.log_y - 2.0 * L), b * np.exp(-L)
        slope = V * growth
        jet = DensityJet.of(
            degrees,
            {
                (): lambda: 0.5 * (t - LOG_2PI - 3.0 * data.log_y) - half,
                (0,): lambda: slope,
                (1,): lambda: half - 0.5,
                (0, 0): lambda: V - 2.0 * U,
                (0, 1): lambda: -slope,
                (1, 1): lambda: -half,
                (0, 0, 0): lambda: 4.0 * U - V,
                (0, 0, 1): lambda: 2.0 * U - V,
                (0, 1, 1): lambda: slope,
                (1, 1, 1): lambda: half,
            },
        )
        return through_log_mean(jet, self.link, x[0])

    def _phi(self, x: Values, data: ResponseData | None) -> FloatArray:
        return np.exp(np.asarray(x[1])) / (1.0 if data is None else data.weight)

    def variance(self, x: Values, data: ResponseData | None = None) -> FloatArray:
        return self._phi(x, data) * self.mean(x) ** 3

    def _roots(self, y: FloatArray, x: Values, data: ResponseData) -> tuple[FloatArray, FloatArray, FloatArray]:
        mu, phi = self.mean(x), self._phi(x, data)
        positive = np.maximum(y, 1e-300)
        r = 1.0 / np.sqrt(phi * positive)
        return r * (positive / mu - 1.0), r * (positive / mu + 1.0), 2.0 / (phi * mu)

    def cdf(self, y: FloatArray, x: Values, data: ResponseData) -> FloatArray:
        a, b, shift = self._roots(y, x, data)
        # exp(2 / (phi mu)) can overflow where the probability beside it is zero.
        total = special.ndtr(a) + np.exp(shift + special.log_ndtr(-b))
        return np.where(np.asarray(y) > 0.0, total, 0.0)

    def sf(self, y: FloatArray, x: Values, data: ResponseData) -> FloatArray:
        a, b, shift = self._roots(y, x, data)
        upper = special.log_ndtr(-a)
        rest = -np.exp(upper) * np.expm1(shift + special.log_ndtr(-b) - upper)
        return np.where(np.asarray(y) > 0.0, np.maximum(rest, 0.0), 1.0)

    def quantile(self, p: FloatArray, x: Values, data: ResponseData) -> FloatArray:
        return log_bisection(p, x, data, self)

    def simulate(self, x: Values, data: ResponseData, rng: np.random.Generator) -> FloatArray:
        return rng.wald(self.mean(x), 1.0 / self._phi(x, data), data.n_obs)

    def start_rest(self, data: ResponseData, eta: FloatArray) -> tuple[float, ...]:
        mu = self.mean((eta,))
        return (clipped_log(float(np.mean(data.weight * (data.y - mu) ** 2 / mu**3)), 1e-8, 1e8),)
