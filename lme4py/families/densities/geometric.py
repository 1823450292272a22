"""Geometric counts: negative binomial ones of shape one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lme4py.families.densities.base import CONDITIONAL, DensityArgument, End, Values
from lme4py.families.densities.calculus.jets import Degrees, DensityJet
from lme4py.families.densities.counts import CountDensity
from lme4py.families.densities.negative_binomial import NegativeBinomial2Density
from lme4py.families.response import ResponseData
from lme4py.linalg.types import FloatArray

__all__ = ["Geometric"]


@dataclass(frozen=True)
class Geometric(CountDensity):
    """P(y) = mu^y / (1 + mu)^(y + 1): what Conway-Maxwell-Poisson counts tend to as nu goes to zero."""

    name = "geometric"
    default_link = "log"
    links = ("log", "identity", "sqrt")
    limits = (End(CONDITIONAL, -1, "a mean of zero"),)

    @property
    def variables(self) -> tuple[DensityArgument, ...]:
        return (DensityArgument(CONDITIONAL, "mu", "identity"),)

    @property
    def _base(self) -> NegativeBinomial2Density:
        return NegativeBinomial2Density(self.link)

    def jet(self, data: ResponseData, x: Values, degrees: Degrees) -> DensityJet:
        return self._base.jet(data, _of_shape_one(x), degrees)

    def log_log_zero(self, data: ResponseData, x: Values, degrees: Degrees) -> DensityJet:
        """log log(1 + mu)."""
        return self._base.log_log_zero(data, _of_shape_one(x), degrees)

    def variance(self, x: Values, data: ResponseData | None = None) -> FloatArray:
        return self._base.variance(_of_shape_one(x), data)

    def cdf(self, y: FloatArray, x: Values, data: ResponseData) -> FloatArray:
        return self._base.cdf(y, _of_shape_one(x), data)

    def sf(self, y: FloatArray, x: Values, data: ResponseData) -> FloatArray:
        return self._base.sf(y, _of_shape_one(x), data)

    def simulate(self, x: Values, data: ResponseData, rng: np.random.Generator) -> FloatArray:
        return self._base.simulate(_of_shape_one(x), data, rng)


def _of_shape_one(x: Values) -> list[FloatArray]:
    return [np.asarray(x[0]), np.asarray(0.0)]
