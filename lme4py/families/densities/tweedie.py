"""Tweedie responses with a power between 1 and 2: a Poisson number of gamma amounts, so that zeros are possible."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import special

from lme4py.families.densities.base import (
    CONDITIONAL,
    DISPERSION,
    DensityArgument,
    End,
    ScaledDensity,
    Values,
    at,
    clipped_log,
    log_mean,
    through_log_mean,
)
from lme4py.families.densities.calculus import jets
from lme4py.families.densities.calculus.jets import Degrees, DensityJet, Index, Part
from lme4py.families.densities.calculus.special import LOG_2PI, expm1_minus_slopes
from lme4py.families.densities.continuous import log_bisection
from lme4py.families.densities.counts import flat
from lme4py.families.densities.series.tweedie_sums import log_sum
from lme4py.families.response import ResponseData
from lme4py.linalg.types import BoolArray, FloatArray

__all__ = ["Tweedie"]

# Bound of |logit(power - 1)|.
_FARTHEST: Final = 6.0
# Terms of a distribution function that are left out.
_NOTHING: Final = 1e-18


@dataclass(frozen=True)
class Tweedie(ScaledDensity):
    """Variance phi mu^p, 1 < p < 2; the variables are eta, log phi and logit(p - 1).

    Dunn & Smyth (2005, *Stat. Comput.* 15:267). With k = 2 - p, rho = p - 1, tau = k / rho and phi divided by the
    weight, P(0) = exp(-mu^k / (phi k)), and for y > 0 with q = log(mu / y)

        l = -y^k / phi [(e^(k q) - 1)/k + (e^(-rho q) - 1)/rho] - log y - log 2 pi + log(tau)/2 + T(lambda, tau),

    lambda = y^k / (phi k). The first term is half the deviance, T the log of a sum of positive terms
    (`tweedie_sums`): nothing is left that grows as phi goes to zero.
    """

    name = "tweedie"
    kind = "positive"
    has_zeros = True
    default_link = "log"
    links = ("log", "identity", "sqrt")
    support = "numbers of 0 and above"
    advice = "correct or remove these rows"
    ratio = "ratio of means"
    dispersion_means = "phi: the variance is phi mu^power"
    weights_multiply = False
    limits = (
        End("power", -1, "a Poisson model of multiples of phi", far=5.5),
        End("power", 1, "the gamma model", far=5.5),
        End(DISPERSION, -1, "responses without variation around their means"),
        End(CONDITIONAL, -1, "a mean of zero"),
    )
    sources = "Dunn & Smyth (2005)"

    @property
    def variables(self) -> tuple[DensityArgument, ...]:
        return (*super().variables, DensityArgument("power", "power", "power", linear=False))

    def valid(self, x: Values) -> BoolArray:
        """Also where the series of the density has a length that can be summed."""
        return np.asarray(super().valid(x) & (np.abs(np.asarray(x[2])) < _FARTHEST))

    def moved_inside(self, x: Values, valid: BoolArray) -> list[FloatArray]:
        first, log_phi, power = super().moved_inside(x, valid)
        return [first, log_phi, np.clip(power, -0.9 * _FARTHEST, 0.9 * _FARTHEST)]

    def outside(self, data: ResponseData) -> BoolArray:
        return np.asarray(data.y < 0.0)

    def jet(self, data: ResponseData, x: Values, degrees: Degrees) -> DensityJet:
        L = log_mean(self.link, x[0])
        F = np.asarray(x[1]) - np.log(data.weight)
        shape = np.broadcast_shapes(data.y.shape, L.shape, F.shape)
        out: dict[Index, Part] = {index: np.zeros(shape) for index in degrees.indices()}
        rows, some = data.positive
        for where, make in ((data.zeros, _of_zeros), (rows, _of_amounts)):
            if where.size:
                part = make(some, [*at((L, F), where), np.asarray(x[2])], degrees)
                for index, values in part.parts.items():
                    np.asarray(out[index])[..., where] = values
        return through_log_mean(DensityJet(out, degrees), self.link, x[0])

    def _poisson_gamma(self, x: Values, data: ResponseData | None) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Mean number of amounts, their shape, their scale."""
        mu, phi = self.mean(x), np.exp(np.asarray(x[1])) / (1.0 if data is None else data.weight)
        rho, k = special.expit(np.asarray(x[2])), special.expit(-np.asarray(x[2]))
        return mu**k / (phi * k), k / rho, phi * rho * mu**rho

    def no_maximum(self, data: ResponseData) -> str:
        if data.zeros.size:
            return ""
        return (
            "no response is zero, and the power goes to 2, where it is the gamma model: use family='gamma' with the "
            "same link, or 'lognormal'"
        )

    def dispersion_unit(self, data: ResponseData) -> float:
        """phi mu^(power - 2) has no unit; at a power of 3/2."""
        return 0.5 * float(np.log(max(float(np.mean(data.y)), 1e-300)))

    def variance(self, x: Values, data: ResponseData | None = None) -> FloatArray:
        phi = np.exp(np.asarray(x[1])) / (1.0 if data is None else data.weight)
        return phi * self.mean(x) ** (1.0 + special.expit(np.asarray(x[2])))

    def zero_probability(self, x: Values, data: ResponseData) -> FloatArray:
        return np.exp(-self._poisson_gamma(x, data)[0])

    def cdf(self, y: FloatArray, x: Values, data: ResponseData) -> FloatArray:
        return self._tail(special.gammainc, y, x, data)

    def sf(self, y: FloatArray, x: Values, data: ResponseData) -> FloatArray:
        return self._tail(special.gammaincc, y, x, data)

    def _tail(
        self, part: Callable[[FloatArray, FloatArray], FloatArray], y: FloatArray, x: Values, data: ResponseData
    ) -> FloatArray:
        """Sum over the number of amounts of its probability times a tail of the gamma distribution."""
        is_lower = part is special.gammainc
        number, shape_of, scale = np.broadcast_arrays(*self._poisson_gamma(x, data))
        y, (number, shape_of, scale), shape = flat(y, (number, shape_of, scale))
        total = np.exp(-number) if is_lower else np.zeros(y.shape)
        # The number of amounts within 9 standard deviations, and some more where they are few.
        spread = 9.0 * np.sqrt(number) + 30.0
        first, last = np.maximum(np.floor(number - spread), 1.0), np.ceil(number + spread)
        z = np.maximum(y, 0.0) / scale
        with np.errstate(divide="ignore"):
            log_number = np.log(number)
        # Beside the probability of no amount these are not seen.
        least = _NOTHING * total
        for offset in range(int((last - first).max(initial=0.0)) + 1):
            rows = np.flatnonzero(first + offset <= last)
            j = first[rows] + offset
            p = np.exp(j * log_number[rows] - number[rows] - special.gammaln(j + 1.0))
            seen = p > least[rows]
            rows, p, j = rows[seen], p[seen], j[seen]
            total[rows] += p * part(j * shape_of[rows], z[rows])
        total = np.where(y < 0.0, 0.0 if is_lower else 1.0, total)
        return np.minimum(total, 1.0).reshape(shape)

    def quantile(self, p: FloatArray, x: Values, data: ResponseData) -> FloatArray:
        zero = self.zero_probability(x, data)
        positive = log_bisection(np.where(np.asarray(p) > zero, p, 0.5 * (1.0 + zero)), x, data, self)
        return np.where(np.asarray(p) <= zero, 0.0, positive)

    def simulate(self, x: Values, data: ResponseData, rng: np.random.Generator) -> FloatArray:
        number, shape, scale = self._poisson_gamma(x, data)
        j = rng.poisson(number, data.n_obs)
        amounts: FloatArray = rng.gamma(np.maximum(j, 1) * shape, scale)
        return np.where(j > 0, amounts, 0.0)

    def start_eta(self, data: ResponseData) -> FloatArray:
        """Of the responses, a zero as a sixth of the mean."""
        low = max(float(np.mean(data.y)) / 6.0, 1e-300)
        return self.link.eta(np.maximum(data.y, low))

    def start_rest(self, data: ResponseData, eta: FloatArray) -> tuple[float, ...]:
        """At power 3/2, from sum((y - mu)^2) = phi sum(mu^p)."""
        mu = self.mean((eta,))
        ratio = float(np.sum(data.weight * (data.y - mu) ** 2) / np.sum(mu**1.5))
        return (clipped_log(ratio, 1e-8, 1e8), 0.0)


def _of_zeros(data: ResponseData, x: list[FloatArray], degrees: Degrees) -> DensityJet:
    """-mu^k / (phi k)."""
    log_mu, log_phi, power = (jets.variable(v, i, degrees) for i, v in enumerate(x))
    log_k = jets.log_sigmoid(-power)
    return -jets.exp(jets.exp(log_k) * log_mu - log_phi - log_k)


def _of_amounts(data: ResponseData, x: list[FloatArray], degrees: Degrees) -> DensityJet:
    log_mu, log_phi, power = (jets.variable(v, i, degrees) for i, v in enumerate(x))
    log_k, log_rho = jets.log_sigmoid(-power), jets.log_sigmoid(power)
    k, rho = jets.exp(log_k), jets.exp(log_rho)
    log_y = data.log_y
    size = jets.exp(k * log_y - log_phi)
    q = log_mu - log_y
    total = log_sum((k * log_y - log_phi - log_k), -power)
    deviance = size * (q * q) * (k * _second(k * q) + rho * _second(-(rho * q)))
    return total - deviance - power * 0.5 - (log_y + LOG_2PI)


def _second(x: DensityJet) -> DensityJet:
    """(e^x - 1 - x) / x^2."""
    return jets.compose(expm1_minus_slopes(x.value, x.degrees.total), x)
