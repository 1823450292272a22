"""Lognormal responses by their mean."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

from lme4py.families.densities.base import DISPERSION, End, Values, clipped_log, log_mean, through_log_mean
from lme4py.families.densities.calculus import jets
from lme4py.families.densities.calculus.jets import Degrees, DensityJet
from lme4py.families.densities.calculus.special import LOG_2PI
from lme4py.families.densities.continuous import PositiveDensity
from lme4py.families.response import ResponseData
from lme4py.linalg.types import FloatArray

__all__ = ["Lognormal"]


@dataclass(frozen=True)
class Lognormal(PositiveDensity):
    """log y ~ N(log mu - s^2/2, s^2), so that E(y) = mu; the second variable is log s.

    With a log link the model is the linear one of log y, its intercept larger by s^2/2 and its log-likelihood smaller
    by the sum of log y.

    Attributes
    ----------
    response_sd : bool
        The dispersion is the standard deviation phi of the *response* (glmmTMB's parametrisation), so that
        s^2 = log(1 + phi^2 / mu^2); False: it is s itself.
    """

    response_sd: bool = False
    takes_points = True
    name = "lognormal"
    default_link = "log"
    links = ("log", "identity", "inverse")
    parameter = "sigma"
    dispersion_means = "sigma: the standard deviation of log y (with response_sd that of y)"
    limits = (End(DISPERSION, -1, "responses without variation around their means"),)

    def _s(self, x: Values) -> FloatArray:
        """Standard deviation of log y."""
        if not self.response_sd:
            return np.exp(np.asarray(x[1]))
        log_mu = log_mean(self.link, np.asarray(x[0]))
        s: FloatArray = np.sqrt(np.logaddexp(0.0, 2.0 * (x[1] - log_mu)))
        return s

    def jet(self, data: ResponseData, x: Values, degrees: Degrees) -> DensityJet:
        L = log_mean(self.link, x[0])
        jet = _response_sd(data, L, x[1], degrees) if self.response_sd else _log_sd(data, L, x[1], degrees)
        return through_log_mean(jet, self.link, x[0])

    def variance(self, x: Values, data: ResponseData | None = None) -> FloatArray:
        return self.mean(x) ** 2 * np.expm1(self._s(x) ** 2)

    def _z(self, y: FloatArray, x: Values) -> FloatArray:
        s = self._s(x)
        log_y = np.log(np.maximum(y, 1e-300))
        z: FloatArray = (log_y - np.log(self.mean(x))) / s + 0.5 * s
        return np.where(np.asarray(y) > 0.0, z, -np.inf)

    def cdf(self, y: FloatArray, x: Values, data: ResponseData) -> FloatArray:
        return special.ndtr(self._z(y, x))

    def sf(self, y: FloatArray, x: Values, data: ResponseData) -> FloatArray:
        return special.ndtr(-self._z(y, x))

    def quantile(self, p: FloatArray, x: Values, data: ResponseData) -> FloatArray:
        s = self._s(x)
        return self.mean(x) * np.exp(s * special.ndtri(p) - 0.5 * s * s)

    def simulate(self, x: Values, data: ResponseData, rng: np.random.Generator) -> FloatArray:
        s = self._s(x)
        return self.mean(x) * np.exp(s * rng.standard_normal(data.n_obs) - 0.5 * s * s)

    def start_rest(self, data: ResponseData, eta: FloatArray) -> tuple[float, ...]:
        mu = self.mean((eta,))
        if self.response_sd:
            return (0.5 * clipped_log(float(np.mean((data.y - mu) ** 2)), 1e-300, 1e300),)
        return (0.5 * clipped_log(float(np.mean(np.log(data.y / mu) ** 2)), 1e-8, 1e2),)


def _log_sd(data: ResponseData, L: FloatArray, F: FloatArray, degrees: Degrees) -> DensityJet:
    """In L = log mu and F = log s: with q = log y - L, l = -F - (q/s + s/2)^2 / 2 - ..."""
    q = data.log_y - L
    v = np.exp(-2.0 * np.asarray(F))
    # (q/s + s/2)^2 = q^2 v + q + s^2/4.
    a, b = q * q * v, 0.25 / v
    qv = q * v
    return DensityJet.of(
        degrees,
        {
            (): lambda: -F - 0.5 * (LOG_2PI + a + q + b) - data.log_y,
            (0,): lambda: qv + 0.5,
            (1,): lambda: a - b - 1.0,
            (0, 0): lambda: -v,
            (0, 1): lambda: -2.0 * qv,
            (1, 1): lambda: -2.0 * (a + b),
            (0, 0, 1): lambda: 2.0 * v,
            (0, 1, 1): lambda: 4.0 * qv,
            (1, 1, 1): lambda: 4.0 * (a - b),
        },
    )


def _response_sd(data: ResponseData, L: FloatArray, F: FloatArray, degrees: Degrees) -> DensityJet:
    """In L = log mu and F = log phi, through S = s^2 = log(1 + phi^2 / mu^2)."""
    mu, phi = jets.variable(L, 0, degrees), jets.variable(np.asarray(F), 1, degrees)
    S = jets.softplus((phi - mu) * 2.0)
    q = data.log_y - mu
    square = q * q / S + q + 0.25 * S
    return (square + jets.log(S) + LOG_2PI) * -0.5 - data.log_y
