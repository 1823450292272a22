"""Gaussian responses, the standard deviation a linear predictor or a parameter."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

from lme4py.families.densities.base import DISPERSION, End, Values, clipped_log, through_mean
from lme4py.families.densities.calculus.jets import Degrees, DensityJet
from lme4py.families.densities.calculus.special import LOG_2PI
from lme4py.families.densities.continuous import RealDensity
from lme4py.families.response import ResponseData
from lme4py.linalg.types import FloatArray

__all__ = ["GaussianDensity"]


@dataclass(frozen=True)
class GaussianDensity(RealDensity):
    """Standard deviation sigma / sqrt(w); the second variable is log sigma.

    With z = (y - mu) sqrt(w) / sigma: l = [log(w / 2 pi) - z^2]/2 - log sigma.
    """

    takes_points = True
    name = "gaussian"
    default_link = "identity"
    links = ("identity", "log", "inverse")
    parameter = "sigma"
    dispersion_means = "sigma: the standard deviation"
    weights_multiply = False
    limits = (End(DISPERSION, -1, "responses without residual variation"),)

    def jet(self, data: ResponseData, x: Values, degrees: Degrees) -> DensityJet:
        w = data.weight
        b = w * np.exp(-2.0 * np.asarray(x[1]))
        less = data.y - self.link.mean(x[0])
        slope = b * less
        square = slope * less
        jet = DensityJet.of(
            degrees,
            {
                (): lambda: 0.5 * (np.log(w) - LOG_2PI - square) - x[1],
                (0,): lambda: slope,
                (1,): lambda: square - 1.0,
                (0, 0): lambda: -b,
                (0, 1): lambda: -2.0 * slope,
                (1, 1): lambda: -2.0 * square,
                (0, 0, 1): lambda: 2.0 * b,
                (0, 1, 1): lambda: 4.0 * slope,
                (1, 1, 1): lambda: 4.0 * square,
            },
        )
        return through_mean(jet, self.link, x[0])

    def dispersion_unit(self, data: ResponseData) -> float:
        """The standard deviation of the response."""
        return float(np.log(max(float(np.std(data.y)), 1e-300)))

    def variance(self, x: Values, data: ResponseData | None = None) -> FloatArray:
        weight = 1.0 if data is None else data.weight
        return np.exp(2.0 * np.asarray(x[1])) / weight + np.zeros_like(x[0])

    def _z(self, y: FloatArray, x: Values, data: ResponseData) -> FloatArray:
        z: FloatArray = (y - self.mean(x)) * np.sqrt(data.weight) * np.exp(-np.asarray(x[1]))
        return z

    def cdf(self, y: FloatArray, x: Values, data: ResponseData) -> FloatArray:
        return special.ndtr(self._z(y, x, data))

    def sf(self, y: FloatArray, x: Values, data: ResponseData) -> FloatArray:
        return special.ndtr(-self._z(y, x, data))

    def quantile(self, p: FloatArray, x: Values, data: ResponseData) -> FloatArray:
        return self.mean(x) + special.ndtri(p) * np.sqrt(self.variance(x, data))

    def simulate(self, x: Values, data: ResponseData, rng: np.random.Generator) -> FloatArray:
        return rng.normal(self.mean(x), np.sqrt(self.variance(x, data)), data.n_obs)

    def start_eta(self, data: ResponseData) -> FloatArray:
        """Of the responses; with a log or inverse link moved to the side of the pole where most of them are."""
        if self.link.name == "identity":
            return data.y
        scale = float(np.mean(np.abs(data.y))) or 1.0
        if self.link.name == "inverse" and np.mean(data.y) < 0.0:
            return self.link.eta(np.minimum(data.y, -0.1 * scale))
        return self.link.eta(np.maximum(data.y, 0.1 * scale))

    def start_rest(self, data: ResponseData, eta: FloatArray) -> tuple[float, ...]:
        square = data.weight * (data.y - self.mean((eta,))) ** 2
        return (0.5 * clipped_log(float(np.mean(square)), 1e-300, 1e300),)
