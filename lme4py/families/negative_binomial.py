"""Negative binomial responses, with the variance quadratic (NB-2) or linear (NB-1) in mu; L is log mu."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
from scipy.special import betainc, xlog1py, xlogy

from lme4py.families.base import Family
from lme4py.families.distributions import CountResponse, Poisson
from lme4py.families.mean_family import Pieces, natural
from lme4py.families.response import ResponseData
from lme4py.families.rows import DispersionLimit, Order, RowNoise
from lme4py.families.special import log1p_minus, log_coefficient, log_rising, nb1_information
from lme4py.linalg.types import FloatArray

__all__ = ["NegativeBinomial1", "NegativeBinomial2", "NegativeBinomialGiven"]

# Starts are kept where the likelihood still has a slope: at little overdispersion it has none.
_MOMENT_RANGE: Final = (1e-3, 1e3)
_ALPHA_RANGE: Final = (1e-3, 1e12)
# Beyond this, terms of the size of y log y would leave few digits of the rest.
_LARGE_COUNT: Final = 1000.0


@dataclass(frozen=True)
class NegativeBinomial2(CountResponse):
    """Variance mu + mu^2 / theta (NB-2).

    With R = log_rising(y, log theta): l = R + y L - (y + theta) log(1 + mu/theta) - log y!.
    """

    name = "nbinomial"
    default_link = "log"
    concave_links = frozenset({"log"})
    n_dispersion = 1
    parameter = "theta"
    stata_inverts = True
    stata_parameter = "alpha"
    many_dispersions = True
    limit = DispersionLimit(np.inf, "the Poisson model", stand_in=30.0, tail=4.0, start=2.0)

    def lambda_unit(self, data: ResponseData) -> float:
        """theta as large as the mean: both parts of the variance are the same."""
        return float(np.log(max(float(np.mean(data.y)), 1e-300)))

    def _pieces(self, data: ResponseData, t: FloatArray, lam: float, order: Order, expected: bool) -> Pieces:
        y, theta = data.y, natural(lam)
        u = t - lam
        p_, q = _expit_pair(u)
        excess = _softplus(u)
        total = y + theta
        slopes = 1 if order == 3 else 0
        rising = _of_counts(data, lam, f"rising {slopes}", partial(log_rising, order=slopes))
        p = Pieces(rising[0] + y * t - total * excess - data.log_factorial)
        if order >= 1:
            p.d1 = y * q - theta * p_
        if order >= 2:
            pq = p_ * q
            curve = total * pq
            p.d2 = -curve
            p.info = p.quasi = theta * p_
        if order >= 3:
            p.d3 = curve * (p_ - q)
            p.d_info = theta * pq
            # -theta (log(1 + x) - x/(1 + x)) with x = mu/theta, plus y x/(1 + x).
            p.d_lam = rising[1] - theta * _softplus_minus_slope(u, p_, excess) + y * p_
            p.d1_lam = p_ * p.d1
            p.d2_lam = curve * (q - p_) - theta * pq
            p.info_lam = theta * p_ * p_
        large = (y > _LARGE_COUNT) & (theta < y) & (u > 0.0)
        if large.any():
            coefficient, slope = _of_counts(data, lam, "coefficient", _large_coefficient)
            exact = coefficient - y * np.log1p(np.exp(-np.abs(u))) - theta * excess
            p.value = np.where(large, exact, p.value)
            if order >= 3:
                slope_lam = slope - y * q - theta * _softplus_minus_slope(u, p_, excess)
                p.d_lam = np.where(large, slope_lam, p.d_lam)
        return p

    def limiting(self) -> Family:
        return Poisson(self.link)

    def _cdf(self, y: FloatArray, mu: FloatArray, lam: Any, data: ResponseData) -> FloatArray:
        size = float(np.exp(lam))
        return np.where(y < 0.0, 0.0, betainc(size, np.maximum(y, 0.0) + 1.0, size / (size + mu)))

    def variance(self, mu: FloatArray, lam: float = 0.0) -> FloatArray:
        return mu + mu * mu * natural(-lam)

    def row_noise(self, data: ResponseData) -> RowNoise | None:
        """The gamma mixture that makes the counts overdispersed, as a normal effect of every row does."""
        return RowNoise("the dispersion of the counts", float(data.n_obs), exact=False)

    def start_mean(self, data: ResponseData) -> FloatArray:
        return np.where(data.y == 0.0, 1.0 / 6.0, data.y)

    def start_lambda(self, data: ResponseData, mu: FloatArray) -> float:
        """Log theta from sum((y - mu)^2 - mu) = sum(mu^2) / theta, kept inside 0.001 .. 1000."""
        excess = float(np.sum(data.weight * ((data.y - mu) ** 2 - mu)))
        square = float(np.sum(data.weight * mu * mu))
        return float(np.log(np.clip(square / max(excess, 1e-300), *_MOMENT_RANGE)))

    def _unit_deviance(self, data: ResponseData, mu: FloatArray, lam: float) -> FloatArray:
        return _nb_deviance(data.y, mu, natural(lam))

    def _draw(self, mu: FloatArray, lam: Any, data: ResponseData, rng: np.random.Generator) -> FloatArray:
        theta = natural(lam)
        return rng.poisson(rng.gamma(theta, mu / theta)).astype(np.float64)


@dataclass(frozen=True)
class NegativeBinomialGiven(NegativeBinomial2):
    """NB-2 with a shape that is known, as R's ``MASS::negative.binomial(theta)``: there is no dispersion to estimate.

    Attributes
    ----------
    shape : float
        theta of the variance mu + mu^2 / theta.
    """

    shape: float = 1.0

    n_dispersion = 0
    parameter = ""
    many_dispersions = False
    stata_inverts = False
    stata_parameter = ""
    limit = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", f"nbinomial({self.shape:.10g})")

    @property
    def _log_shape(self) -> float:
        return float(np.log(self.shape))

    def _pieces(self, data: ResponseData, t: FloatArray, lam: float, order: Order, expected: bool) -> Pieces:
        p = super()._pieces(data, t, self._log_shape, order, expected)
        return Pieces(p.value, p.d1, p.d2, p.d3, p.info, p.d_info, p.quasi)

    def _cdf(self, y: FloatArray, mu: FloatArray, lam: Any, data: ResponseData) -> FloatArray:
        return super()._cdf(y, mu, self._log_shape, data)

    def variance(self, mu: FloatArray, lam: float = 0.0) -> FloatArray:
        return super().variance(mu, self._log_shape)

    def limiting(self) -> Family:
        return self

    def row_noise(self, data: ResponseData) -> None:
        """None: what a row varies beside its mean is known, so that an effect of every row is more than that."""

    def start_lambda(self, data: ResponseData, mu: FloatArray) -> float:
        return 0.0

    def _unit_deviance(self, data: ResponseData, mu: FloatArray, lam: float) -> FloatArray:
        return super()._unit_deviance(data, mu, self._log_shape)

    def _draw(self, mu: FloatArray, lam: Any, data: ResponseData, rng: np.random.Generator) -> FloatArray:
        return super()._draw(mu, self._log_shape, data, rng)


@dataclass(frozen=True)
class NegativeBinomial1(CountResponse):
    """Variance mu (1 + alpha) (NB-1).

    With s = mu/alpha, R = log_rising(y, log s) and k = log(1 + alpha): l = R + y L - (y + s) k - log y!.
    """

    name = "nbinomial1"
    default_link = "log"
    concave_links = frozenset({"identity"})
    n_dispersion = 1
    parameter = "alpha"
    limit = DispersionLimit(0.0, "the Poisson model", stand_in=-30.0, tail=-4.0, start=-2.0)

    def _pieces(self, data: ResponseData, t: FloatArray, lam: float, order: Order, expected: bool) -> Pieces:
        y, alpha = data.y, natural(lam)
        k, rho = np.log1p(alpha), alpha / (1.0 + alpha)
        log_s = t - lam
        s = np.exp(log_s)
        R = log_rising(y, log_s, order)
        p = Pieces(R[0] + y * t - (y + s) * k - data.log_factorial)
        if order >= 1:
            p.d1 = R[1] - s * k + y
        if order >= 2:
            p.d2 = R[2] - s * k
            p.quasi = np.exp(t) / (1.0 + alpha)
            J = nb1_information(log_s, np.broadcast_to(alpha, s.shape)) if expected else None
            p.info = p.info if J is None else J[0]
        if order >= 3:
            p.d3 = R[3] - s * k
            p.d_lam = s * (k - rho) - R[1] - y * rho
            p.d1_lam = s * (k - rho) - R[2]
            p.d2_lam = s * (k - rho) - R[3]
            if J is not None:
                p.d_info, p.info_lam = J[1], J[2] - J[1]
        large = (y > _LARGE_COUNT) & (s < y)
        if large.any():
            coefficient, slope = log_coefficient(np.maximum(y, _LARGE_COUNT), log_s)
            p.value = np.where(large, coefficient - y * np.log1p(1.0 / alpha) - s * k, p.value)
            if order >= 1:
                p.d1 = np.where(large, slope - s * k, p.d1)
            if order >= 3:
                p.d_lam = np.where(large, s * (k - rho) - slope + y / (1.0 + alpha), p.d_lam)
        return p

    def limiting(self) -> Family:
        return Poisson(self.link)

    def _cdf(self, y: FloatArray, mu: FloatArray, lam: Any, data: ResponseData) -> FloatArray:
        alpha = float(np.exp(lam))
        return np.where(y < 0.0, 0.0, betainc(mu / alpha, np.maximum(y, 0.0) + 1.0, 1.0 / (1.0 + alpha)))

    def variance(self, mu: FloatArray, lam: float = 0.0) -> FloatArray:
        return mu * (1.0 + natural(lam))

    def row_noise(self, data: ResponseData) -> RowNoise | None:
        """The gamma mixture that makes the counts overdispersed, as a normal effect of every row does."""
        return RowNoise("the dispersion of the counts", float(data.n_obs), exact=False)

    def start_mean(self, data: ResponseData) -> FloatArray:
        return np.where(data.y == 0.0, 1.0 / 6.0, data.y)

    def start_lambda(self, data: ResponseData, mu: FloatArray) -> float:
        """Log alpha from sum((y - mu)^2) = (1 + alpha) sum(mu), kept inside 0.001 .. 1000."""
        ratio = float(np.sum(data.weight * (data.y - mu) ** 2) / np.sum(data.weight * mu))
        return float(np.log(np.clip(ratio - 1.0, *_ALPHA_RANGE)))

    def _unit_deviance(self, data: ResponseData, mu: FloatArray, lam: float) -> FloatArray:
        """That of the NB-2 distribution with the same size mu/alpha."""
        return _nb_deviance(data.y, mu, mu * natural(-lam))

    def _draw(self, mu: FloatArray, lam: Any, data: ResponseData, rng: np.random.Generator) -> FloatArray:
        alpha = natural(lam)
        return rng.poisson(rng.gamma(mu / alpha, alpha)).astype(np.float64)


def _of_counts(
    data: ResponseData, lam: Any, name: str, function: Callable[[FloatArray, FloatArray], tuple[FloatArray, ...]]
) -> list[FloatArray]:
    """Functions of the counts and lambda, row by row; gamma functions are computed once per distinct count.

    `lam` is one number, or (B, 1) for B responses (B, n), or B points of one response (n,).
    """
    if np.ndim(lam) and data.y.ndim > 1:
        counts, whose, index = data.distinct_of_each
        return [part[index] for part in function(counts, lam[whose, 0])]
    counts, index = data.distinct
    at = np.asarray(lam)
    # While modes are looked for lambda stays where it is.
    found = data.remember_last(f"{name} of counts", (at.shape, at.tobytes()), lambda: function(counts, at))
    return [part[..., index] for part in found]


def _large_coefficient(counts: FloatArray, lam: FloatArray) -> tuple[FloatArray, FloatArray]:
    """`log_coefficient` of the large counts; of the others it is not asked for."""
    large, log_s = np.broadcast_arrays(np.maximum(counts, _LARGE_COUNT), lam)
    return log_coefficient(large, log_s)


def _expit_pair(u: FloatArray) -> tuple[FloatArray, FloatArray]:
    """1 / (1 + e^-u) and 1 / (1 + e^u), both to full relative accuracy."""
    small = np.exp(-np.abs(u))
    larger = 1.0 / (1.0 + small)
    smaller = small * larger
    return np.where(u > 0, larger, smaller), np.where(u > 0, smaller, larger)


def _softplus(u: FloatArray) -> FloatArray:
    """log(1 + e^u)."""
    result: FloatArray = np.maximum(u, 0.0) + np.log1p(np.exp(-np.abs(u)))
    return result


def _softplus_minus_slope(u: FloatArray, p: FloatArray, excess: FloatArray) -> FloatArray:
    """log(1 + x) - x/(1 + x) with x = e^u; small x without cancellation.

    `p` is x/(1 + x) and `excess` is log(1 + x).
    """
    x: FloatArray = np.exp(np.minimum(u, 0.0))
    # x - x/(1 + x) = x p.
    result: FloatArray = np.where(u < -2.0, log1p_minus(x) + x * p, excess - p)
    return result


def _nb_deviance(y: FloatArray, mu: FloatArray, size: FloatArray) -> FloatArray:
    """2 [y log(y/mu) - (y + size) log((y + size) / (mu + size))]."""
    parts = xlogy(y, y / mu) - xlog1py(y + size, (y - mu) / (mu + size))
    return 2.0 * np.asarray(parts, dtype=np.float64)
