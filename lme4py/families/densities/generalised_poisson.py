"""Generalised Poisson counts (Consul & Famoye)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lme4py.families.densities.base import (
    CONDITIONAL,
    End,
    ScaledDensity,
    Values,
    clipped_log,
    log_mean,
    through_log_mean,
)
from lme4py.families.densities.calculus.jets import Degrees, DensityJet, Index, Part, compose
from lme4py.families.densities.calculus.special import log1p_minus
from lme4py.families.densities.counts import CountDensity
from lme4py.families.response import ResponseData
from lme4py.linalg.types import BoolArray, FloatArray

__all__ = ["GeneralisedPoisson"]


@dataclass(frozen=True)
class GeneralisedPoisson(ScaledDensity, CountDensity):
    """Variance mu phi; the second variable is log phi, r = 1/sqrt(phi).

    P(y) = mu r v^(y - 1) e^-v / y! with v = y + r (mu - y) (Consul & Famoye 1992, *Commun. Statist.* 21:89, with
    theta = mu r and lambda = 1 - r). For phi < 1 the support ends where v <= 0 and the probabilities do not add up
    to exactly one, as in Consul & Famoye's and glmmTMB's: no constant is known that would make them.

    l = -log(1 + y (1 - r) / (mu r)) + y log(v / y) - (v - y) - [log y! - (y log y - y)]: the Poisson limit is exact.
    """

    takes_points = True
    name = "genpois"
    default_link = "log"
    links = ("log", "identity", "sqrt")
    dispersion_means = "phi: the variance is mu phi"
    limits = (End(CONDITIONAL, -1, "a mean of zero"),)
    sources = "Consul & Famoye (1992)"

    def jet(self, data: ResponseData, x: Values, degrees: Degrees) -> DensityJet:
        y, L, F = data.y, log_mean(self.link, x[0]), np.asarray(x[1])
        some = y > 0.0
        r = np.exp(-0.5 * F)
        # d = v - y = r (mu - y), without cancellation where mu is near y.
        d = r * np.where(some, y * np.expm1(np.where(some, L - data.log_y, 0.0)), np.exp(L))
        m = r * np.exp(L)
        v = DensityJet.kept(degrees, {(): y + d, **_table(m, m, -0.5 * d, 0.25 * d, -0.125 * d)})
        inverse = 1.0 / v.value
        whole = np.where(some, y, 1.0)
        main = np.where(some, y * log1p_minus(d / whole), -m)
        value = compose((main, -d * inverse, -y * inverse**2, 2.0 * y * inverse**3), v)
        # kappa = y (sqrt(phi) - 1) / mu
        k = y * np.exp(0.5 * F - L)
        kappa = y * np.expm1(0.5 * F) * np.exp(-L)
        ratio = DensityJet.kept(degrees, {(): kappa, **_table(-kappa, -k, 0.5 * k, 0.25 * k, 0.125 * k, -1.0)})
        share = m * inverse  # 1 / (1 + kappa)
        length = np.where(kappa > -0.5, np.log1p(np.maximum(kappa, -0.5)), np.log(v.value) - L + 0.5 * F)
        jet = value - compose((length, share, -(share**2), 2.0 * share**3), ratio) - data.factorial_remainder
        possible = v.value > 0.0
        if not possible.all():
            jet = _impossible(jet, possible)
        return through_log_mean(jet, self.link, x[0])

    def log_log_zero(self, data: ResponseData, x: Values, degrees: Degrees) -> DensityJet:
        """log(mu / sqrt(phi))."""
        jet = DensityJet.kept(degrees, {(): log_mean(self.link, x[0]) - 0.5 * np.asarray(x[1]), (0,): 1.0, (1,): -0.5})
        return through_log_mean(jet, self.link, x[0])

    def variance(self, x: Values, data: ResponseData | None = None) -> FloatArray:
        return self.mean(x) * np.exp(np.asarray(x[1]))

    def start_rest(self, data: ResponseData, eta: FloatArray) -> tuple[float, ...]:
        """From sum((y - mu)^2) = phi sum(mu); no underdispersion to start with: it ends the support."""
        mu = self.mean((eta,))
        ratio = float(np.sum(data.weight * (data.y - mu) ** 2) / np.sum(data.weight * mu))
        return (clipped_log(ratio, 1.0, 1e6),)


def _table(
    in_L: FloatArray, both: FloatArray, f1: FloatArray, f2: FloatArray, f3: FloatArray, sign: float = 1.0
) -> dict[Index, Part]:
    """Derivatives of a function e^L g(F) + h(F), or e^-L g(F), in L and F.

    `in_L` is its first derivative in L, `f1` .. `f3` those in F; `both` what a derivative in L leaves of g, which
    halves at every derivative in F.
    """
    rate = -0.5 if sign > 0.0 else 0.5
    return {
        (0,): in_L,
        (0, 0): sign * in_L,
        (0, 0, 0): in_L,
        (0, 1): rate * both,
        (0, 0, 1): sign * rate * both,
        (0, 1, 1): rate * rate * both,
        (1,): f1,
        (1, 1): f2,
        (1, 1, 1): f3,
    }


def _impossible(jet: DensityJet, possible: BoolArray) -> DensityJet:
    """Log-likelihood -inf where the support has ended."""
    parts: dict[Index, Part] = {
        index: np.where(possible, part, np.nan if index else -np.inf) for index, part in jet.parts.items()
    }
    return DensityJet(parts, jet.degrees)
