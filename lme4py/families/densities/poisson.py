"""Poisson counts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

from lme4py.families.densities.base import CONDITIONAL, DensityArgument, End, Values, log_mean, through_log_mean
from lme4py.families.densities.calculus.jets import Degrees, DensityJet
from lme4py.families.densities.counts import CountDensity
from lme4py.families.links import LogMean
from lme4py.families.response import ResponseData
from lme4py.linalg.types import FloatArray

__all__ = ["PoissonDensity"]


@dataclass(frozen=True)
class PoissonDensity(CountDensity):
    """l = -y (e^q - 1 - q) - [log y! - (y log y - y)] with q = log(mu / y), and -mu for y = 0.

    The first term is half the deviance of the row: nothing of the size of y log y is left to cancel.
    """

    takes_points = True
    name = "poisson"
    default_link = "log"
    links = ("log", "identity", "sqrt")
    limits = (End(CONDITIONAL, -1, "a mean of zero"),)

    @property
    def log_concave(self) -> bool:
        return True

    @property
    def truncated_is_concave(self) -> bool:
        """The zero-truncated distribution is an exponential family in log mu."""
        return isinstance(self.link, LogMean)

    @property
    def variables(self) -> tuple[DensityArgument, ...]:
        return (DensityArgument(CONDITIONAL, "mu", "log"),)

    def jet(self, data: ResponseData, x: Values, degrees: Degrees) -> DensityJet:
        L = log_mean(self.link, x[0])
        jet = poisson_jet(data, L, degrees)
        return through_log_mean(jet, self.link, x[0])

    def zero_jet(self, data: ResponseData, x: Values, degrees: Degrees) -> DensityJet:
        """-mu."""
        f = -np.exp(log_mean(self.link, x[0]))
        jet = DensityJet.kept(degrees, {(0,) * k: f for k in range(4)})
        return through_log_mean(jet, self.link, x[0])

    def log_log_zero(self, data: ResponseData, x: Values, degrees: Degrees) -> DensityJet:
        jet = DensityJet({(): log_mean(self.link, x[0]), (0,): 1.0}, degrees)
        return through_log_mean(jet, self.link, x[0])

    def variance(self, x: Values, data: ResponseData | None = None) -> FloatArray:
        return self.mean(x, data)

    def cdf(self, y: FloatArray, x: Values, data: ResponseData) -> FloatArray:
        k = np.floor(y)
        return np.where(k < 0.0, 0.0, special.pdtr(np.maximum(k, 0.0), self.mean(x, data)))

    def sf(self, y: FloatArray, x: Values, data: ResponseData) -> FloatArray:
        k = np.floor(y)
        return np.where(k < 0.0, 1.0, special.pdtrc(np.maximum(k, 0.0), self.mean(x, data)))

    def simulate(self, x: Values, data: ResponseData, rng: np.random.Generator) -> FloatArray:
        return rng.poisson(self.mean(x, data), data.n_obs).astype(np.float64)


def poisson_jet(data: ResponseData, L: FloatArray, degrees: Degrees) -> DensityJet:
    """In L = log mu."""
    y = data.y
    mu = np.exp(L)
    q = data.unless_zero(L - data.log_y, lambda: 0.0)
    rise = np.expm1(q)
    # What cancels in rise - q near zero is below y q eps, which is less than sqrt(y) eps where a count is likely.
    value = data.unless_zero(-y * (rise - q) - data.factorial_remainder, lambda: -mu)
    return DensityJet.of(
        degrees,
        {
            (): lambda: value,
            (0,): lambda: data.unless_zero(-y * rise, lambda: -mu),
            (0, 0): lambda: -mu,
            (0, 0, 0): lambda: -mu,
        },
    )
