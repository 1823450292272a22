"""Zero-truncated counts: P(Y = y | Y > 0), the conditional part being the mean of the untruncated distribution."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lme4py.families.densities.base import CONDITIONAL, Density, DensityArgument, End, Values, at
from lme4py.families.densities.calculus.jets import Degrees, DensityJet, compose, degrees_of
from lme4py.families.densities.calculus.special import log_expm1_ratio
from lme4py.families.densities.counts import CountDensity
from lme4py.families.response import ResponseData
from lme4py.linalg.types import BoolArray, FloatArray

__all__ = ["Truncated"]


@dataclass(frozen=True, init=False)
class Truncated(CountDensity):
    """A family of counts given that they are not zero.

    With M = log(-log P(0)) and m = e^M: l = f(y) - M - log((1 - e^-m) / m), which stays finite and accurate as the
    mean goes to zero (every count is then one, or logarithmic for the negative binomials).

    Attributes
    ----------
    base : CountDensity
        The untruncated family; it gives the link and all variables.
    """

    base: CountDensity
    lowest = 1
    mean_is_link = False
    support = "counts 1, 2, ..."
    advice = "for zeros add a ziformula (a hurdle model)"

    def __init__(self, base: CountDensity) -> None:
        object.__setattr__(self, "link", base.link)
        object.__setattr__(self, "base", base)

    @property
    def name(self) -> str:
        return f"truncated_{self.base.name}"

    @property
    def default_link(self) -> str:
        return self.base.default_link

    @property
    def links(self) -> tuple[str, ...]:
        return self.base.links

    @property
    def dispersion_means(self) -> str:
        return f"{self.base.dispersion_means}, before truncation" if self.base.dispersion_means else ""

    @property
    def log_concave(self) -> bool:
        return self.base.truncated_is_concave

    @property
    def takes_points(self) -> bool:
        return self.base.takes_points

    @property
    def limits(self) -> tuple[End, ...]:
        others = tuple(limit for limit in self.base.limits if limit.variable != CONDITIONAL)
        return (*others, End(CONDITIONAL, -1, "a mean of zero before truncation: the smallest counts"))

    @property
    def sources(self) -> str:
        return self.base.sources

    @property
    def variables(self) -> tuple[DensityArgument, ...]:
        return self.base.variables

    def valid(self, x: Values) -> BoolArray:
        return self.base.valid(x)

    def moved_inside(self, x: Values, valid: BoolArray) -> list[FloatArray]:
        return self.base.moved_inside(x, valid)

    def inner(self) -> float:
        return self.base.inner()

    def trouble(self, data: ResponseData, x: Values) -> str:
        return self.base.trouble(data, x) or self.base.trouble_above_zero(data, x)

    def jet(self, data: ResponseData, x: Values, degrees: Degrees) -> DensityJet:
        M = self.base.log_log_zero(data, x, degrees)
        return self.base.jet(data, x, degrees) - M - compose(log_expm1_ratio(M.value, degrees.total), M)

    def _positive(self, x: Values, data: ResponseData | None) -> FloatArray:
        """P(Y > 0) of the untruncated distribution."""
        if data is None:
            data = ResponseData(np.zeros(np.broadcast_shapes(*(np.shape(part) for part in x))[-1:]))
        with np.errstate(over="ignore", under="ignore"):
            M = self.base.log_log_zero(data, x, degrees_of(0, ())).value
            positive: FloatArray = -np.expm1(-np.exp(M))
        return positive

    def mean(self, x: Values, data: ResponseData | None = None) -> FloatArray:
        """E(Y | Y > 0)."""
        return self.base.mean(x, data) / self._positive(x, data)

    def mean_jet(self, x: Values, degrees: Degrees, data: ResponseData | None = None) -> DensityJet:
        """mu over P(Y > 0) = 1 - exp(-m) with m = -log P(0)."""
        if data is None:
            data = ResponseData(np.zeros(np.broadcast_shapes(*(np.shape(part) for part in x))[-1:]))
        with np.errstate(over="ignore", under="ignore"):
            M = self.base.log_log_zero(data, x, degrees)
            # Beyond this the probability of a zero is none in double precision.
            m = np.exp(np.minimum(M.value, 30.0))
            r = m * np.exp(-m)
            positive = compose((-np.expm1(-m), r, r * (1.0 - m), r * (1.0 - 3.0 * m + m * m)), M)
        return self.base.mean_jet(x, degrees, data) / positive

    @property
    def conditional(self) -> Density:
        return self.base

    def variance(self, x: Values, data: ResponseData | None = None) -> FloatArray:
        """Var(Y | Y > 0)."""
        mu, positive = self.base.mean(x, data), self._positive(x, data)
        # V / P - mu^2 (1 - P) / P^2.
        return (self.base.variance(x, data) - mu * (mu * (1.0 - positive) / positive)) / positive

    def zero_probability(self, x: Values, data: ResponseData) -> FloatArray:
        return np.zeros(np.broadcast_shapes(*(np.shape(part) for part in x)))

    def cdf(self, y: FloatArray, x: Values, data: ResponseData) -> FloatArray:
        positive = self._positive(x, data)
        k = np.floor(y)
        # From whichever side is the smaller one.
        lower = (self.base.cdf(k, x, data) - (1.0 - positive)) / positive
        upper = 1.0 - self.base.sf(k, x, data) / positive
        first = np.exp(self.loglik(data.with_y(np.ones_like(data.y)), x))
        value = np.where(k == 1.0, first, np.where(positive > 0.5, lower, upper))
        return np.where(k < 1.0, 0.0, np.clip(value, 0.0, 1.0))

    def sf(self, y: FloatArray, x: Values, data: ResponseData) -> FloatArray:
        k = np.floor(y)
        return np.where(k < 1.0, 1.0, np.minimum(self.base.sf(k, x, data) / self._positive(x, data), 1.0))

    def simulate(self, x: Values, data: ResponseData, rng: np.random.Generator) -> FloatArray:
        """From the untruncated distribution until the count is not zero; by inversion where that is rare or slow."""
        positive = np.broadcast_to(self._positive(x, data), data.y.shape)
        if type(self.base).simulate is CountDensity.simulate and (positive > 0.2).all():
            above_zero = 1.0 - positive * (1.0 - rng.random(data.n_obs))
            return np.maximum(self.base.inverse(above_zero, x, data), 1.0)
        y = np.where(positive > 0.2, self.base.simulate(x, data, rng), 0.0)
        again = np.flatnonzero((y == 0.0) & (positive > 0.2))
        while again.size:
            y[again] = self.base.simulate(at(x, again), data.take(again), rng)
            again = again[y[again] == 0.0]
        rare = np.flatnonzero(positive <= 0.2)
        if rare.size:
            some = at(x, rare)
            y[rare] = self.quantile(rng.random(rare.size), some, data.take(rare))
        return y

    def stays_likely(self, data: ResponseData, mean: float) -> BoolArray:
        """As the mean goes to zero counts are 1, or logarithmic where the distribution is overdispersed."""
        only_ones = len(self.base.variables) == 1 or not self.base.overdisperses
        return np.asarray((data.y == 1.0) | (not only_ones)) & (mean == 0.0)

    def dispersion_unit(self, data: ResponseData) -> float:
        return self.base.dispersion_unit(data)

    @property
    def without_dispersion(self) -> Density | None:
        simpler = self.base.without_dispersion
        return Truncated(simpler) if isinstance(simpler, CountDensity) else None

    def start_eta(self, data: ResponseData) -> FloatArray:
        """The untruncated mean is below that of the positive counts, most so where it is small."""
        return self.link.eta(np.where(data.y <= 1.0, 0.5, data.y))

    def start_rest(self, data: ResponseData, eta: FloatArray) -> tuple[float, ...]:
        return self.base.start_rest(data, eta)
