"""Student's t responses: a location, a scale, and degrees of freedom."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

from lme4py.families.densities.base import DISPERSION, DensityArgument, End, Values, clipped_log, through_mean
from lme4py.families.densities.calculus.jets import Degrees, DensityJet
from lme4py.families.densities.calculus.special import LOG_2PI, log1p_minus_slope, rising
from lme4py.families.densities.continuous import RealDensity
from lme4py.families.response import ResponseData
from lme4py.linalg.types import FloatArray

__all__ = ["Student"]


@dataclass(frozen=True)
class Student(RealDensity):
    """y = mu + sigma T with T from the t distribution; the variables are mu, log sigma and log nu.

    With h = nu/2, u = (y - mu)^2 / (nu sigma^2) and c = u / (1 + u):
    l = R(1/2, log h) - log(2 pi)/2 - log sigma - (h + 1/2) log(1 + u), R of `special.rising`, which goes to zero as
    nu grows: the Gaussian limit is exact. Lange, Little & Taylor (1989, *JASA* 84:881).
    """

    takes_points = True
    name = "t"
    default_link = "identity"
    links = ("identity", "log", "inverse")
    parameter = "sigma"
    dispersion_means = "sigma: the scale; the standard deviation is sigma sqrt(nu / (nu - 2))"
    limits = (End("df", 1, "the gaussian model", far=9.0), End(DISPERSION, -1, "responses without residual variation"))
    sources = "Lange, Little & Taylor (1989)"

    @property
    def variables(self) -> tuple[DensityArgument, ...]:
        return (*super().variables, DensityArgument("df", "df", "log", linear=False))

    def jet(self, data: ResponseData, x: Values, degrees: Degrees) -> DensityJet:
        sigma, nu = np.exp(np.asarray(x[1])), np.exp(np.asarray(x[2]))
        h = 0.5 * nu
        N = h + 0.5
        less = data.y - self.link.mean(x[0])
        s = less / (sigma * np.sqrt(nu))
        root = np.hypot(1.0, s)
        # log(1 + u); u itself overflows where its logarithm does not.
        far = np.abs(s) > 1e8
        u = np.where(far, 1.0, s * s)
        length = np.where(far, 2.0 * np.log(root), np.log1p(u))
        c, rest = (s / root) ** 2, 1.0 / (root * root)
        G = np.where(far, length - c, log1p_minus_slope(u))
        # Derivatives of log(1 + u) in y.
        inverse = rest / (nu * sigma * sigma)
        g1 = 2.0 * less * inverse
        g2 = 2.0 * inverse * (1.0 - 2.0 * c)
        R = rising(np.array(0.5), np.log(h), max(index.count(2) for index in degrees.indices()))
        k = h * c - 0.5 * rest
        jet = DensityJet.of(
            degrees,
            {
                (): lambda: R[0] - 0.5 * LOG_2PI - x[1] - N * length,
                (0,): lambda: N * g1,
                (1,): lambda: 2.0 * N * c - 1.0,
                (2,): lambda: R[1] - h * G + 0.5 * c,
                (0, 0): lambda: -N * g2,
                (0, 1): lambda: -2.0 * N * g1 * rest,
                (0, 2): lambda: g1 * k,
                (1, 1): lambda: -4.0 * N * c * rest,
                (1, 2): lambda: 2.0 * c * k,
                (2, 2): lambda: R[2] - h * (G - c * c) - 0.5 * c * rest,
                (0, 0, 0): lambda: -2.0 * N * g1 * inverse * (3.0 - 4.0 * c),
                (0, 0, 1): lambda: 2.0 * N * rest * (g2 - g1 * g1),
                (0, 0, 2): lambda: -g2 * k - N * g1 * g1 * rest,
                (0, 1, 1): lambda: 4.0 * N * g1 * rest * (1.0 - 2.0 * c),
                (0, 1, 2): lambda: g1 * rest * (1.0 - 4.0 * N * c),
                (0, 2, 2): lambda: -g1 * (1.0 - 2.0 * c) * k,
                (1, 1, 1): lambda: 8.0 * N * c * rest * (1.0 - 2.0 * c),
                (1, 1, 2): lambda: 2.0 * c * rest * (1.0 - 4.0 * N * c),
                (1, 2, 2): lambda: -2.0 * c * (1.0 - 2.0 * c) * k,
                (2, 2, 2): lambda: R[3] - h * (G - 2.0 * c**3) + 0.5 * c * rest * (1.0 - 2.0 * c),
            },
        )
        return through_mean(jet, self.link, x[0])

    def dispersion_unit(self, data: ResponseData) -> float:
        """The standard deviation of the response."""
        return float(np.log(max(float(np.std(data.y)), 1e-300)))

    def variance(self, x: Values, data: ResponseData | None = None) -> FloatArray:
        """sigma^2 nu / (nu - 2); infinite for nu <= 2."""
        sigma, nu = np.exp(np.asarray(x[1])), np.exp(np.asarray(x[2]))
        return np.where(nu > 2.0, sigma**2 * nu / np.maximum(nu - 2.0, 1e-300), np.inf) + np.zeros_like(x[0])

    def _z(self, y: FloatArray, x: Values) -> FloatArray:
        z: FloatArray = (y - self.mean(x)) * np.exp(-np.asarray(x[1]))
        return z

    def cdf(self, y: FloatArray, x: Values, data: ResponseData) -> FloatArray:
        return special.stdtr(np.exp(np.asarray(x[2])), self._z(y, x))

    def sf(self, y: FloatArray, x: Values, data: ResponseData) -> FloatArray:
        return special.stdtr(np.exp(np.asarray(x[2])), -self._z(y, x))

    def quantile(self, p: FloatArray, x: Values, data: ResponseData) -> FloatArray:
        z: FloatArray = special.stdtrit(np.exp(np.asarray(x[2])), p)
        return self.mean(x) + np.exp(np.asarray(x[1])) * z

    def simulate(self, x: Values, data: ResponseData, rng: np.random.Generator) -> FloatArray:
        noise: FloatArray = rng.standard_t(np.exp(np.asarray(x[2])), data.n_obs)
        return self.mean(x) + np.exp(np.asarray(x[1])) * noise

    def start_eta(self, data: ResponseData) -> FloatArray:
        if self.link.name == "identity":
            return data.y
        positive = np.maximum(data.y, 0.1 * (float(np.mean(np.abs(data.y))) or 1.0))
        return self.link.eta(positive)

    def start_rest(self, data: ResponseData, eta: FloatArray) -> tuple[float, ...]:
        """The scale from the quartiles (which outliers do not move), the degrees of freedom from the kurtosis.

        The excess kurtosis of the distribution is 6 / (nu - 4).
        """
        less = data.y - self.mean((eta,))
        scale = float(np.subtract(*np.quantile(less, [0.75, 0.25]))) / 1.4
        square = float(np.mean(less**2))
        excess = float(np.mean(less**4)) / square**2 - 3.0 if square > 0.0 else 0.0
        df = 4.0 + 6.0 / excess if excess > 0.0 else 50.0
        return (clipped_log(scale, 1e-300, 1e300), clipped_log(df, 2.5, 50.0))
