"""Proportions: beta, and ordered beta for proportions that can be 0 or 1."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

from lme4py.families.densities.base import (
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
from lme4py.families.densities.calculus.special import LOG_2PI, expm1_minus, log1mexp, sigmoid, softplus, stirling
from lme4py.families.response import ResponseData
from lme4py.linalg.types import BoolArray, FloatArray

__all__ = ["Beta", "OrderedBeta", "beta_jet"]

_LINKS = ("logit", "probit", "cloglog", "loglog", "cauchit")


class _ProportionDensity(ScaledDensity):
    takes_points = True
    kind = "proportion"
    default_link = "logit"
    ratio = "odds ratio of the mean"

    def _shapes(self, x: Values) -> tuple[FloatArray, FloatArray]:
        """a = mu phi and b = (1 - mu) phi."""
        link = probability_link(self.link)
        eta, phi = np.asarray(x[0]), np.exp(np.asarray(x[1]))
        # No smaller than double precision has: the beta functions need both above zero.
        return np.maximum(link.mean(eta) * phi, 1e-300), np.maximum(link.complement(eta) * phi, 1e-300)

    def stays_likely(self, data: ResponseData, mean: float) -> BoolArray:
        """Zeros and ones, where they are possible: the density between them is zero with a mean of zero or one."""
        return np.asarray(data.y == mean)

    def start_eta(self, data: ResponseData) -> FloatArray:
        """Of the responses, moved a little towards 1/2 (Smithson & Verkuilen 2006)."""
        n = max(data.n_obs, 2)
        return self.link.eta((data.y * (n - 1) + 0.5) / n)

    def start_rest(self, data: ResponseData, eta: FloatArray) -> tuple[float, ...]:
        """From sum((y - mu)^2) = sum(mu (1 - mu)) / (1 + phi)."""
        mu = self.link.mean(eta)
        square = float(np.sum(data.weight * (data.y - mu) ** 2))
        return (clipped_log(float(np.sum(data.weight * mu * (1.0 - mu))) / max(square, 1e-300) - 1.0, 0.1, 1e4),)


@dataclass(frozen=True)
class Beta(_ProportionDensity):
    """y ~ Beta(mu phi, (1 - mu) phi), variance mu (1 - mu) / (1 + phi); the second variable is log phi.

    l = -phi KL + [log phi + log mu + log(1 - mu) - log 2 pi]/2 - delta(a) - delta(b) + delta(phi) - log y - log(1 - y)
    with a = mu phi, b = (1 - mu) phi and KL = mu log(mu / y) + (1 - mu) log((1 - mu) / (1 - y)): the gamma functions,
    which grow like phi log phi, are gone. Smithson & Verkuilen (2006, *Psychol. Methods* 11:54); Ferrari &
    Cribari-Neto (2004, *J. Appl. Stat.* 31:799).
    """

    name = "beta"
    links = _LINKS
    support = "numbers above 0 and below 1"
    advice = "for zeros add a ziformula (a hurdle model), for zeros and ones use the ordbeta family"
    dispersion_means = "phi: the variance is mu (1 - mu) / (1 + phi)"
    limits = (End(DISPERSION, 1, "responses without variation around their means"),)
    sources = "Smithson & Verkuilen (2006); Ferrari & Cribari-Neto (2004)"

    def jet(self, data: ResponseData, x: Values, degrees: Degrees) -> DensityJet:
        link = probability_link(self.link)
        return beta_jet(*link.tails(x[0]), link.derivatives(x[0]), data.log_y, data.log_rest, x[1], degrees)

    def outside(self, data: ResponseData) -> BoolArray:
        return np.asarray((data.y <= 0.0) | (data.y >= 1.0))

    def variance(self, x: Values, data: ResponseData | None = None) -> FloatArray:
        A, B = probability_link(self.link).tails(np.asarray(x[0]))
        return np.exp(A[0] + B[0]) * special.expit(-np.asarray(x[1]))

    def cdf(self, y: FloatArray, x: Values, data: ResponseData) -> FloatArray:
        a, b = self._shapes(x)
        return np.asarray(special.betainc(a, b, np.clip(y, 0.0, 1.0)))

    def sf(self, y: FloatArray, x: Values, data: ResponseData) -> FloatArray:
        a, b = self._shapes(x)
        return np.asarray(special.betaincc(a, b, np.clip(y, 0.0, 1.0)))

    def quantile(self, p: FloatArray, x: Values, data: ResponseData) -> FloatArray:
        a, b = self._shapes(x)
        return np.asarray(special.betaincinv(a, b, p))

    def simulate(self, x: Values, data: ResponseData, rng: np.random.Generator) -> FloatArray:
        a, b = self._shapes(x)
        # Rounding must not make a proportion 0 or 1.
        return np.clip(rng.beta(a, b, data.n_obs), 1e-300, 1.0 - 2.0**-53)


def beta_jet(
    A: tuple[FloatArray, ...],
    B: tuple[FloatArray, ...],
    mu: tuple[FloatArray, ...],
    log_y: FloatArray,
    log_rest: FloatArray,
    F: FloatArray,
    degrees: Degrees,
) -> DensityJet:
    """Beta log-density in (eta, F = log phi), from log mu, log(1 - mu) and mu with three derivatives in eta."""
    F = np.asarray(F)
    phi = np.exp(F)
    # t - t_y is the difference of the logits of mu and y.
    logit = [a - b for a, b in zip(A, B, strict=True)]
    logit[0] = logit[0] - (log_y - log_rest)
    KL = [mu[0] * expm1_minus(log_y - A[0]) + np.exp(B[0]) * expm1_minus(log_rest - B[0])]
    KL += [
        mu[1] * logit[0],
        mu[2] * logit[0] + mu[1] * logit[1],
        mu[3] * logit[0] + 2.0 * mu[2] * logit[1] + mu[1] * logit[2],
    ][: degrees.total]
    parts: dict[Index, Part] = {
        (): 0.5 * (F + A[0] + B[0] - LOG_2PI) - log_y - log_rest - phi * KL[0],
    }
    for index in degrees.indices()[1:]:
        if max(index) > 1:
            continue
        parts[index] = -phi * KL[index.count(0)]
        if 1 not in index:
            parts[index] = parts[index] + 0.5 * (A[len(index)] + B[len(index)])
    if degrees.keeps((1,)):
        parts[1,] = parts[1,] + 0.5
    whole = DensityJet.kept(degrees, {(): F, (1,): 1.0})
    orders = max(index.count(1) for index in degrees.indices())
    jet = DensityJet(parts, degrees) + compose(stirling(F, orders), whole)
    for C in (A, B):
        t = C[0] + F
        inner: dict[Index, Part] = {(): t, **{(0,) * k: C[k] for k in (1, 2, 3)}, (1,): 1.0}
        jet = jet - compose(stirling(t, degrees.total), DensityJet.kept(degrees, inner))
    return jet


@dataclass(frozen=True)
class OrderedBeta(_ProportionDensity):
    """Proportions that can be 0 and 1 (Kubinec 2022, *Political Analysis* 31:519).

    With the logistic F and cutpoints c1 < c2: P(0) = 1 - F(eta - c1), P(1) = F(eta - c2), and in between
    [F(eta - c1) - F(eta - c2)] times the beta density with mean F(eta) and precision phi. The variables are eta,
    log phi, c1 and log(c2 - c1).
    """

    name = "ordbeta"
    links = ("logit",)
    # Zeros and ones have a part in the mean.
    mean_is_link = False
    has_zeros = True
    support = "numbers from 0 to 1"
    advice = "correct or remove these rows"
    dispersion_means = "phi: between 0 and 1 the variance is mu (1 - mu) / (1 + phi)"
    limits = (End("cut", -1, "no responses of 0"), End("width", 1, "no responses of 1"))
    sources = "Kubinec (2022)"

    @property
    def variables(self) -> tuple[DensityArgument, ...]:
        cuts = (
            DensityArgument("cut", "lower cutpoint", "identity", False),
            DensityArgument("width", "cut distance", "log", False),
        )
        return (*super().variables, *cuts)

    def shown_params(self, values: dict[str, float]) -> dict[str, float]:
        low, distance = values["lower cutpoint"], values["cut distance"]
        return {"lower cutpoint": low, "upper cutpoint": low + distance}

    def cutpoints(self, x: Values) -> tuple[FloatArray, FloatArray]:
        """c1 and c2."""
        lower = np.asarray(x[2])
        return lower, lower + np.exp(np.asarray(x[3]))

    def outside(self, data: ResponseData) -> BoolArray:
        return np.asarray((data.y < 0.0) | (data.y > 1.0))

    def lacking(self, data: ResponseData) -> str:
        """Without zeros, or without ones, a cutpoint is infinite."""
        absent = [number for number in (0, 1) if not (data.y == number).any()]
        if not absent:
            return ""
        numbers = " and no ".join(map(str, absent))
        instead: dict[tuple[int, ...], str] = {
            (0,): "the beta family of one minus the response, with ziformula='~ 1' for its ones",
            (1,): "the beta family with ziformula='~ 1' for its zeros",
        }
        advice = instead.get(tuple(absent), "the beta family")
        return f"has no {numbers}, so that a cutpoint of ordbeta has no finite estimate; use {advice}."

    def jet(self, data: ResponseData, x: Values, degrees: Degrees) -> DensityJet:
        eta, low = np.asarray(x[0]), np.asarray(x[2])
        width = np.exp(np.asarray(x[3]))
        zero, one = data.y == 0.0, data.y == 1.0
        inside = ~(zero | one)
        link = probability_link(self.link)
        center = beta_jet(*link.tails(eta), link.derivatives(eta), data.log_y, data.log_rest, x[1], degrees)
        jet = DensityJet({k: np.where(inside, part, 0.0) for k, part in center.parts.items()}, degrees)
        # log F(+-(eta - c1)) for the rows above and at 0, log F(-+(eta - c2)) for those below and at 1.
        below = DensityJet.kept(degrees, {(): eta - low, (0,): 1.0, (2,): -1.0})
        less = {(3,) * k: -width for k in (1, 2, 3)}
        above = DensityJet.kept(degrees, {(): eta - low - width, (0,): 1.0, (2,): -1.0, **less})
        jet = jet + _log_logistic(below, np.where(zero, -1.0, np.where(one, 0.0, 1.0)))
        jet = jet + _log_logistic(above, np.where(one, 1.0, np.where(zero, 0.0, -1.0)))
        gap = DensityJet.kept(degrees, {(): width, (3,): width, (3, 3): width, (3, 3, 3): width})
        r = 1.0 / np.expm1(width)
        kappa = r * (1.0 + r)
        length = compose((log1mexp(width), r, -kappa, kappa * (1.0 + 2.0 * r)), gap)
        return jet + length * np.where(inside, 1.0, 0.0)

    def parts(self, x: Values) -> tuple[FloatArray, FloatArray, FloatArray]:
        """P(0), P(between) and P(1)."""
        low, high = self.cutpoints(x)
        eta = np.asarray(x[0])
        above, zero = sigmoid(eta - low)
        one, below = sigmoid(eta - high)
        return zero, above * below * -np.expm1(low - high), one

    def mean(self, x: Values, data: ResponseData | None = None) -> FloatArray:
        """E(y), zeros and ones included."""
        _, between, one = self.parts(x)
        return between * self.link.mean(np.asarray(x[0])) + one

    def mean_jet(self, x: Values, degrees: Degrees, data: ResponseData | None = None) -> DensityJet:
        """F(eta - c1) mu + F(eta - c2) (1 - mu)."""
        eta, low, width = np.asarray(x[0]), np.asarray(x[2]), np.exp(np.asarray(x[3]))
        mu = self.conditional.mean_jet(x, degrees)
        above = DensityJet.kept(degrees, {(): eta - low, (0,): 1.0, (2,): -1.0})
        less = {(3,) * k: -width for k in (1, 2, 3)}
        one = DensityJet.kept(degrees, {(): eta - low - width, (0,): 1.0, (2,): -1.0, **less})
        return _logistic(above) * mu + _logistic(one) * (1.0 - mu)

    @property
    def conditional(self) -> Density:
        """Between 0 and 1."""
        return Beta(self.link)

    def variance(self, x: Values, data: ResponseData | None = None) -> FloatArray:
        """Var(y), zeros and ones included."""
        zero, between, one = self.parts(x)
        mu = self.link.mean(np.asarray(x[0]))
        V = mu * (1.0 - mu) * special.expit(-np.asarray(x[1]))
        mean = between * mu + one
        # Within the three parts, and between them.
        spread = zero * mean**2 + between * (mu - mean) ** 2 + one * (1.0 - mean) ** 2
        return between * V + spread

    def zero_probability(self, x: Values, data: ResponseData) -> FloatArray:
        return self.parts(x)[0]

    def cdf(self, y: FloatArray, x: Values, data: ResponseData) -> FloatArray:
        zero, between, _ = self.parts(x)
        a, b = self._shapes(x)
        inside = zero + between * special.betainc(a, b, np.clip(y, 0.0, 1.0))
        return np.where(np.asarray(y) < 0.0, 0.0, np.where(np.asarray(y) >= 1.0, 1.0, inside))

    def sf(self, y: FloatArray, x: Values, data: ResponseData) -> FloatArray:
        _, between, one = self.parts(x)
        a, b = self._shapes(x)
        inside = one + between * special.betaincc(a, b, np.clip(y, 0.0, 1.0))
        return np.where(np.asarray(y) < 0.0, 1.0, np.where(np.asarray(y) >= 1.0, 0.0, inside))

    def quantile(self, p: FloatArray, x: Values, data: ResponseData) -> FloatArray:
        zero, between, one = self.parts(x)
        a, b = self._shapes(x)
        inside = special.betaincinv(a, b, np.clip((p - zero) / np.maximum(between, 1e-300), 0.0, 1.0))
        return np.where(p <= zero, 0.0, np.where(p > 1.0 - one, 1.0, inside))

    def simulate(self, x: Values, data: ResponseData, rng: np.random.Generator) -> FloatArray:
        zero, between, _ = self.parts(x)
        a, b = self._shapes(x)
        u, inside = rng.random(data.n_obs), np.clip(rng.beta(a, b, data.n_obs), 1e-300, 1.0 - 2.0**-53)
        return np.where(u < zero, 0.0, np.where(u < zero + between, inside, 1.0))

    def start_rest(self, data: ResponseData, eta: FloatArray) -> tuple[float, ...]:
        """Precision of the rows between 0 and 1; cutpoints from the shares of zeros and ones at the mean predictor."""
        inside = (data.y > 0.0) & (data.y < 1.0)
        some = data.take(inside)
        (phi,) = super().start_rest(some, eta[inside]) if inside.any() else (1.0,)
        n = data.n_obs
        zeros, ones = (float(np.sum(rows)) + 0.5 for rows in (data.y == 0.0, data.y == 1.0))
        center = float(np.median(eta))
        low, high = (center + float(special.logit(share)) for share in (zeros / (n + 1.0), 1.0 - ones / (n + 1.0)))
        return (phi, low, float(np.log(max(high - low, 0.1))))


def _logistic(z: DensityJet) -> DensityJet:
    """F(z)."""
    p, q = sigmoid(z.value)
    v = p * q
    return compose((p, v, v * (q - p), v * (1.0 - 6.0 * v)), z)


def _log_logistic(z: DensityJet, sign: FloatArray) -> DensityJet:
    """log F(sign z); nothing where the sign is 0."""
    some = np.abs(sign)
    p, q = sigmoid(sign * z.value)
    v = some * p * q
    return compose((-some * softplus(-sign * z.value), sign * q, -v, sign * v * (p - q)), z)
