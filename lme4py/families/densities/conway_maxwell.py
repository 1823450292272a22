"""Conway-Maxwell-Poisson counts by their mean (Huang)."""

from __future__ import annotations

from dataclasses import dataclass
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
from lme4py.families.densities.calculus.jets import Degrees, DensityJet, compose, log
from lme4py.families.densities.calculus.lattice import deviance
from lme4py.families.densities.counts import CountDensity
from lme4py.families.densities.geometric import Geometric
from lme4py.families.densities.series.conway_maxwell_curve import curve
from lme4py.families.densities.series.conway_maxwell_sums import Curve
from lme4py.families.response import ResponseData
from lme4py.linalg.types import BoolArray, FloatArray

__all__ = ["ConwayMaxwellPoisson"]

# Bounds of |log mu|, and of -log phi and log phi.
_FARTHEST: Final = 30.0
_NARROWEST: Final = 6.0
_WIDEST: Final = 33.0
# Counts that are e^-30 times as likely as others do not occur.
_ALONE: Final = 30.0


@dataclass(frozen=True)
class ConwayMaxwellPoisson(ScaledDensity, CountDensity):
    """P(y) proportional to (alpha^y / y!)^nu with mean mu; the second variable is log phi, phi = 1/nu.

    Huang (2017, *Statistical Modelling* 17:359): mu and nu are orthogonal. With the deviance d(y) = y log(y / alpha) -
    y + alpha and s(y) = log y! - (y log y - y): l = -nu [d(y) + s(y)] - R, R the log of the sum of the exponentials of
    the same over all counts. phi = 1 is Poisson; for phi < 1 the counts are less variable; as phi goes to infinity they
    are geometric.
    """

    name = "compois"
    overdisperses = False
    default_link = "log"
    links = ("log", "identity", "sqrt")
    dispersion_means = "phi = 1/nu: the variance is about mu phi; 1 is Poisson"
    limits = (End(DISPERSION, 1, "the geometric distribution", simpler=True), End(CONDITIONAL, -1, "a mean of zero"))
    sources = "Huang (2017)"

    def valid(self, x: Values) -> BoolArray:
        """Also where the sums of the distribution have a length that can be summed."""
        inside = super().valid(x)
        with np.errstate(all="ignore"):
            L = np.asarray(log_mean(self.link, np.where(inside, x[0], self.link.inner)))
        F = np.asarray(x[1])
        return np.asarray(inside & (np.abs(L) < _FARTHEST) & (F > -_NARROWEST) & (F < _WIDEST))

    def moved_inside(self, x: Values, valid: BoolArray) -> list[FloatArray]:
        return [*super().moved_inside(x, valid)[:1], np.clip(np.asarray(x[1]), -0.9 * _NARROWEST, 0.9 * _WIDEST)]

    def jet(self, data: ResponseData, x: Values, degrees: Degrees) -> DensityJet:
        L, N = log_mean(self.link, x[0]), -np.asarray(x[1])
        c = curve(L, N, degrees.total)
        jet = _log_likelihood(data, c, N, degrees)
        return through_log_mean(_in_dispersion(jet), self.link, x[0])

    def log_log_zero(self, data: ResponseData, x: Values, degrees: Degrees) -> DensityJet:
        """The log of the log of the normalising constant."""
        L, N = log_mean(self.link, x[0]), -np.asarray(x[1])
        jet = log(_log_constant(curve(L, N, degrees.total), N, degrees))
        return through_log_mean(_in_dispersion(jet), self.link, x[0])

    def variance(self, x: Values, data: ResponseData | None = None) -> FloatArray:
        L, N = log_mean(self.link, np.asarray(x[0])), -np.asarray(x[1])
        with np.errstate(over="ignore", under="ignore", invalid="ignore", divide="ignore"):
            # d log(lambda) / d log(mu) = mu / V.
            return np.exp(L - N) / curve(L, N, 1).rate[0,]

    def trouble(self, data: ResponseData, x: Values) -> str:
        """As phi goes to zero only the two counts beside the mean are left."""
        rise = float(np.log1p(1.0 / max(float(np.max(data.y)), 1.0)))
        if np.exp(-float(np.max(x[1]))) * rise < _ALONE:
            return ""
        return "phi goes to zero: no row has other counts than the two beside its mean; use a binomial model of these"

    @property
    def without_dispersion(self) -> Density | None:
        return Geometric(self.link)

    def start_rest(self, data: ResponseData, eta: FloatArray) -> tuple[float, ...]:
        """From sum((y - mu)^2) = phi sum(mu)."""
        mu = self.mean((eta,))
        ratio = float(np.sum(data.weight * (data.y - mu) ** 2) / np.sum(data.weight * mu))
        return (clipped_log(ratio, 0.1, 10.0),)


def _log_likelihood(data: ResponseData, c: Curve, N: FloatArray, degrees: Degrees) -> DensityJet:
    """In L = log mu and N = log nu."""
    y, A, alpha, nu = data.y, c.rate[()], np.exp(c.rate[()]), np.exp(N)
    b = np.where(
        c.centered,
        deviance(y, alpha, np.asarray(A)) + data.factorial_remainder,
        data.remember("log_factorial", lambda: special.gammaln(y + 1.0)) - y * A,
    )
    rise = np.where(c.centered, alpha, 0.0)
    of_y = compose((b, rise - y, rise, rise), DensityJet.kept(degrees, c.rate))
    return DensityJet.kept(degrees, c.total) * -1.0 - of_y * DensityJet.kept(
        degrees, {(): nu, (1,): nu, (1, 1): nu, (1, 1, 1): nu}
    )


def _log_constant(c: Curve, N: FloatArray, degrees: Degrees) -> DensityJet:
    """log of the sum of (alpha^j / j!)^nu over j."""
    total = DensityJet.kept(degrees, c.total)
    alpha = np.where(c.centered, np.exp(c.rate[()]), 0.0)
    nu = np.exp(N)
    power = DensityJet.kept(degrees, {(): nu, (1,): nu, (1, 1): nu, (1, 1, 1): nu})
    return total + compose((alpha, alpha, alpha, alpha), DensityJet.kept(degrees, c.rate)) * power


def _in_dispersion(jet: DensityJet) -> DensityJet:
    """From derivatives in log nu to those in log phi = -log nu."""
    parts = {k: -part if k.count(1) % 2 else part for k, part in jet.parts.items()}
    return DensityJet(parts, jet.degrees)
