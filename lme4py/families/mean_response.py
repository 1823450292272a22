"""Responses with a mean that a link leads to."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from lme4py.families.base import Family
from lme4py.families.response import ResponseData
from lme4py.families.rows import EtaDerivatives, HalfRows, Order
from lme4py.linalg.types import BoolArray, FloatArray

__all__ = ["MeanResponse", "mean_response"]

# numpy draws Poisson counts up to about 2^63 only.
_LARGEST_MEAN: Final = 1e18


@dataclass(frozen=True)
class MeanResponse(Family):
    """A response with a mean that the link leads to."""

    def derivatives(
        self,
        data: ResponseData,
        eta: FloatArray,
        lam: Any = 0.0,
        order: Order = 3,
        *,
        expected: bool = True,
    ) -> EtaDerivatives:
        valid = None if self.link.all_valid(eta) else self.valid(eta)
        inside = eta if valid is None else np.where(valid, eta, self.link.inner)
        with np.errstate(over="ignore", under="ignore", invalid="ignore", divide="ignore"):
            result = self._derivatives(data, inside, lam, order, expected)
            if self.weights_multiply and data.weights is not None:
                result = result.scaled(data.weights)
        return result if valid is None else result.restricted(valid)

    def _derivatives(
        self, data: ResponseData, eta: FloatArray, lam: Any, order: Order, expected: bool
    ) -> EtaDerivatives:
        """`derivatives` for valid eta, without the weights that multiply."""
        raise self.lacks("log-likelihood")

    # --- infinity

    @abstractmethod
    def stays_likely(self, data: ResponseData, mean: float) -> BoolArray:
        """Rows whose likelihood does not fall to zero as the mean goes to `mean`, an end of its range, shape (n,)."""

    def half_rows(self, data: ResponseData, eta: FloatArray, beyond: bool = False) -> HalfRows:
        # Kept with the family, so that no other one has its number.
        kept: tuple[Family, HalfRows, BoolArray | None] = data.remember_last(
            "half rows", (id(self), beyond), lambda: (self, *self._half_rows(data, beyond))
        )
        _, half, both = kept
        if both is None:
            return half
        # A side that is possible at both ends (a mean of zero at both) is the one on which the predictor is.
        return HalfRows(half.row, np.where(both & (eta[half.row] < 0.0), -1.0, half.sign))

    def _half_rows(self, data: ResponseData, beyond: bool) -> tuple[HalfRows, BoolArray | None]:
        """`half_rows` on the right of zero, and which rows have another side on the left of it; None for none."""
        nowhere = np.zeros(data.n_obs, dtype=bool)
        ends = self.link.extremes if beyond else self.link.ends
        down, up = (nowhere if end is None else self.stays_likely(data, end) for end in ends)
        says = np.flatnonzero(~self.says_nothing(data))
        both = (up & down)[says]
        sign = np.where(up, 1.0, np.where(down, -1.0, 0.0))[says]
        return HalfRows(says, sign), both if both.any() else None

    # --- moments

    def mean(self, eta: FloatArray) -> FloatArray:
        with np.errstate(over="ignore", under="ignore"):
            return self.link.mean(eta)

    def eta_of(self, mu: FloatArray) -> FloatArray:
        """Linear predictor of a mean inside the range, shape of mu."""
        return self.link.eta(mu)

    @abstractmethod
    def variance(self, mu: FloatArray, lam: float = 0.0) -> FloatArray: ...

    def row_variance(self, mu: FloatArray, lam: Any, data: ResponseData) -> FloatArray:
        """Var(y) of each row on the scale of its mean, with the weights that divide a dispersion, shape of mu."""
        spread = self.variance(mu, lam)
        return spread if self.weights_multiply else spread / data.weight

    def mean_near(self, y: FloatArray, data: ResponseData) -> FloatArray:
        """A mean inside the range under which y is no surprise, shape of y."""
        if self.kind == "count":
            return np.maximum(y + 0.5, 1e-6)
        if self.kind == "positive":
            return np.maximum(y, 1e-300)
        if self.kind == "proportion":
            return np.clip(y, 1e-9, 1.0 - 1e-9)
        if self.kind == "real":
            return y if self.link.is_identity else np.maximum(np.abs(y), 1e-12)
        raise self.lacks("mean near a response")

    # --- distribution

    def cdf(self, y: FloatArray, eta: FloatArray, lam: Any, data: ResponseData) -> FloatArray:
        mu = self.link.edge_mean(eta)
        with np.errstate(all="ignore"):
            value = self._cdf(y, mu, lam, data)
        # A mean at the end of its range: nothing (infinite mean) or everything (zero) is below y.
        return np.where(np.isfinite(value), value, np.where(mu > y, 0.0, 1.0))

    def _cdf(self, y: FloatArray, mu: FloatArray, lam: Any, data: ResponseData) -> FloatArray:
        """P(Y <= y) by the mean."""
        raise self.lacks("distribution function")

    def _simulate(self, eta: FloatArray, lam: Any, data: ResponseData, rng: np.random.Generator) -> FloatArray:
        mu = self.mean(eta)
        if self.kind == "count" and mu.max() > _LARGEST_MEAN:
            return np.full(mu.shape, np.nan)
        return self._draw(mu, lam, data, rng)

    def _draw(self, mu: FloatArray, lam: Any, data: ResponseData, rng: np.random.Generator) -> FloatArray:
        """New responses with means mu."""
        raise self.lacks("way to draw new responses")

    # --- starts

    @abstractmethod
    def start_mean(self, data: ResponseData) -> FloatArray:
        """Means inside the range, near the responses, shape (n,)."""

    def start_eta(self, data: ResponseData) -> FloatArray:
        return self.eta_of(self.start_mean(data))

    def middle_eta(self, data: ResponseData) -> FloatArray:
        return self.link.eta(np.full(data.n_obs, float(np.mean(self.start_mean(data)))))

    # --- residuals

    def pearson(self, data: ResponseData, mu: FloatArray, lam: float = 0.0) -> FloatArray:
        result: FloatArray = np.sqrt(data.weight / self.unit_variance(mu, lam)) * (data.y - mu)
        return result

    def deviance_residuals(self, data: ResponseData, mu: FloatArray, lam: float = 0.0) -> FloatArray:
        deviance = np.maximum(self._unit_deviance(data, mu, lam), 0.0)
        result: FloatArray = np.sign(self._response(data) - mu) * np.sqrt(data.weight * deviance)
        return result

    def _response(self, data: ResponseData) -> FloatArray:
        return data.y

    def _unit_deviance(self, data: ResponseData, mu: FloatArray, lam: float) -> FloatArray:
        """Unit deviance of each row, as in R's glm."""
        raise self.lacks("deviance residuals")


def mean_response(family: Family) -> MeanResponse:
    """The family as one with a mean, or an error by its name."""
    if not isinstance(family, MeanResponse):
        raise family.lacks("mean")
    return family
