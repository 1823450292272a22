"""Binomial, Poisson, gaussian, gamma and inverse Gaussian responses; L stands for log mu."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final

import numpy as np
from scipy import special
from scipy.special import xlogy

from lme4py.data.column import Column
from lme4py.errors import DataError
from lme4py.families.base import Kind
from lme4py.families.blocks.logit_rows import logit_rows
from lme4py.families.blocks.poisson_rows import poisson_rows
from lme4py.families.coercion import (
    one_column,
    read_binomial,
    refuse,
    successes_of_trials,
    whole_numbers,
)
from lme4py.families.links import ProbabilityLink
from lme4py.families.mean_family import MeanFamily, Pieces, natural
from lme4py.families.mean_response import MeanResponse
from lme4py.families.response import ResponseData
from lme4py.families.rows import DispersionLimit, EtaDerivatives, Order, RowNoise, working_weight
from lme4py.families.shares import VarianceKind, latent_kind
from lme4py.families.special import log1p_minus, log_shape
from lme4py.formula.values import Value
from lme4py.linalg.types import BoolArray, FloatArray

__all__ = [
    "Binomial",
    "CountResponse",
    "Gamma",
    "Gaussian",
    "InverseGaussian",
    "Poisson",
]

# Means to start from stay this part of their range away from its ends.
_INSIDE: Final = 0.05
_TINY: Final = float(np.finfo(np.float64).eps)
# With phi 1e-10 of its unit the rows stand at their means; a smaller one would leave the modes few digits.
_NO_DISPERSION: Final = DispersionLimit(
    0.0, "no variation beside that of the random effects", stand_in=-23.0, tail=-9.0, start=-8.0
)


@dataclass(frozen=True)
class Binomial(MeanResponse):
    """y successes of m trials: l = log C(m, y) + y A + (m - y) B, with A = log mu and B = log(1 - mu)."""

    link: ProbabilityLink
    name = "binomial"
    kind = "trials"
    default_link = "logit"
    canonical_link = "logit"
    ratios = frozenset({"odds_ratio"})
    more_variable = "a beta-binomial"

    @property
    def log_concave(self) -> bool:
        return self.link.log_concave

    def _derivatives(
        self, data: ResponseData, eta: FloatArray, lam: float, order: Order, expected: bool
    ) -> EtaDerivatives:
        if self.canonical:
            return logit_rows(data, eta, order)
        A, B = self.link.tails(eta)
        y, f, m = data.y, data.failures, data.n_trials
        loglik = data.log_choose + _times(y, A[0]) + _times(f, B[0])
        if order == 0:
            return EtaDerivatives(loglik)
        score = _times(y, A[1]) + _times(f, B[1])
        if order == 1:
            return EtaDerivatives(loglik, score)
        w_exp = -m * (A[1] * B[1])
        w_obs = -(_times(y, A[2]) + _times(f, B[2]))
        w_work = w_obs if self.log_concave else working_weight(w_obs, w_exp)
        if order == 2:
            return EtaDerivatives(loglik, score, w_obs, w_exp, w_work)
        dw_exp = -m * (A[2] * B[1] + A[1] * B[2])
        dw_obs = -(_times(y, A[3]) + _times(f, B[3]))
        return EtaDerivatives(loglik, score, w_obs, w_exp, w_work, dw_obs, dw_exp)

    separates = "successes from failures"

    def coerce(
        self,
        value: Value,
        name: str,
        weights: FloatArray | None = None,
        *,
        levels: Iterable[Any] | None = None,
        column: Column | None = None,
    ) -> ResponseData:
        if levels is not None:
            raise self.lacks("levels: these are for ordered categories, which clmm() fits")
        return read_binomial(value, name, weights)

    def coerce_again(self, values: FloatArray, data: ResponseData, name: str, proportions: bool) -> ResponseData:
        if values.ndim == 2:
            return read_binomial(Value("matrix", values), name, data.weights)
        if proportions:
            return read_binomial(Value("numeric", values), name, data.trials)
        read = successes_of_trials(values, data.n_trials, name, data.weights)
        return read if data.trials is None else replace(read, trials=data.trials)

    def observation_kind(self, method: str) -> VarianceKind:
        return super().observation_kind(method) if method != "theoretical" else latent_kind(self)

    def stays_likely(self, data: ResponseData, mean: float) -> BoolArray:
        return np.asarray((data.failures if mean else data.y) == 0.0)

    def answers(self, data: ResponseData) -> FloatArray | None:
        """1 for successes only, -1 for failures only."""
        return np.where(data.failures == 0.0, 1.0, -1.0)

    def answer_name(self, data: ResponseData, answer: float) -> str:
        return "only successes" if answer > 0.0 else "only failures"

    def says_nothing(self, data: ResponseData) -> BoolArray:
        return np.asarray(data.n_trials == 0.0)

    def variance(self, mu: FloatArray, lam: float = 0.0) -> FloatArray:
        return mu * (1.0 - mu)

    def row_variance(self, mu: FloatArray, lam: Any, data: ResponseData) -> FloatArray:
        """Of the proportion."""
        return self.variance(mu) / data.n_trials

    def mean_near(self, y: FloatArray, data: ResponseData) -> FloatArray:
        return np.clip((y + 0.5) / (data.n_trials + 1.0), 1e-9, 1.0 - 1e-9)

    def _cdf(self, y: FloatArray, mu: FloatArray, lam: Any, data: ResponseData) -> FloatArray:
        rest = np.maximum(data.n_trials - y, 1e-300)
        value = special.betainc(rest, np.maximum(y, 0.0) + 1.0, 1.0 - np.clip(mu, 0.0, 1.0))
        return np.where(y < 0.0, 0.0, np.where(y >= data.n_trials, 1.0, value))

    def row_noise(self, data: ResponseData) -> RowNoise | None:
        """That of the latent variable whose sign a single trial shows; the trials of a row have an effect in common."""
        trials = np.maximum(data.n_trials * data.weight, 1.0)
        return RowNoise("the variation of a single 0/1 response", float(trials.sum()), trials)

    def start_mean(self, data: ResponseData) -> FloatArray:
        return (data.y + 0.5) / (data.n_trials + 1.0)

    def pearson(self, data: ResponseData, mu: FloatArray, lam: float = 0.0) -> FloatArray:
        """sqrt(m w / V(mu)) (y/m - mu), as R's glm, shape (n,); 0 for a row without trials."""
        spread = np.maximum(mu * (1.0 - mu), _TINY)
        result: FloatArray = np.sqrt(data.n_trials * data.weight / spread) * (self._response(data) - mu)
        return result

    def _response(self, data: ResponseData) -> FloatArray:
        return data.y / np.maximum(data.n_trials, 1.0)

    def _unit_deviance(self, data: ResponseData, mu: FloatArray, lam: float) -> FloatArray:
        success: FloatArray = np.clip(mu, _TINY, 1.0 - _TINY)
        y, f, m = data.y, data.failures, np.maximum(data.n_trials, 1.0)
        parts = xlogy(y, y / (m * success)) + xlogy(f, f / (m * (1.0 - success)))
        return 2.0 * np.asarray(parts, dtype=np.float64)

    def _draw(self, mu: FloatArray, lam: Any, data: ResponseData, rng: np.random.Generator) -> FloatArray:
        return rng.binomial(np.rint(data.n_trials).astype(np.int64), mu).astype(np.float64)


def _times(count: FloatArray, part: FloatArray) -> FloatArray:
    """count * part, where no count makes 0 of an infinite part."""
    product = count * part
    # An infinite or undefined element survives in the sum: one pass tells whether there is any.
    return product if bool(np.isfinite(product.sum())) else np.where(count == 0.0, 0.0, product)


class CountResponse(MeanFamily):
    """Counts 0, 1, 2, ..."""

    kind: Kind = "count"
    ratios = frozenset({"rate_ratio"})
    separates = "zeros from positive counts"

    def _read(self, value: Value, name: str) -> FloatArray:
        what = f"the response '{name}'"
        return whole_numbers(one_column(value, name), what, f"the {self.name} family needs counts 0, 1, 2, ...")

    def outside(self, y: FloatArray) -> BoolArray:
        """None: what is no count was refused when it was read."""
        return np.zeros(y.shape, dtype=bool)

    def _refuse_uninformative(self, y: FloatArray, name: str) -> None:
        if not y.any():
            raise DataError(
                f"all {y.size} values of the response '{name}' are 0: the mean has no estimate above 0; "
                "check the column, or use more data"
            )

    def stays_likely(self, data: ResponseData, mean: float) -> BoolArray:
        return np.asarray((data.y == 0.0) & (mean == 0.0))


@dataclass(frozen=True)
class Poisson(CountResponse):
    """l = y L - mu - log y!."""

    name = "poisson"
    default_link = "log"
    canonical_link = "log"
    concave_links = frozenset({"log", "sqrt", "identity"})
    more_variable = "a negative binomial"

    def _pieces(self, data: ResponseData, t: FloatArray, lam: float, order: Order, expected: bool) -> Pieces:
        if data.has_large_counts:
            value, d1, mu = _large_counts(data, t)
        else:
            value, d1, mu = poisson_rows(data, t)
        p = Pieces(value)
        if order >= 1:
            p.d1 = d1
        if order >= 2:
            p.info = p.d_info = p.quasi = mu
            if not self.canonical:
                p.d2 = p.d3 = -mu
        return p

    def _cdf(self, y: FloatArray, mu: FloatArray, lam: Any, data: ResponseData) -> FloatArray:
        return np.where(y < 0.0, 0.0, special.pdtr(np.maximum(y, 0.0), mu))

    def variance(self, mu: FloatArray, lam: float = 0.0) -> FloatArray:
        return mu

    def row_noise(self, data: ResponseData) -> None:
        """None: a count has no variance beside its mean, so that an effect of every row is overdispersion."""

    def start_mean(self, data: ResponseData) -> FloatArray:
        return data.y + 0.1

    def _unit_deviance(self, data: ResponseData, mu: FloatArray, lam: float) -> FloatArray:
        result: FloatArray = 2.0 * (xlogy(data.y, data.y / mu) - (data.y - mu))
        return result

    def _draw(self, mu: FloatArray, lam: Any, data: ResponseData, rng: np.random.Generator) -> FloatArray:
        return rng.poisson(mu).astype(np.float64)


def _large_counts(data: ResponseData, t: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Poisson log-likelihood, score and mean by the distance q of log mu from log y, which keeps their digits."""
    y = data.y
    some = y > 0.0
    q = np.where(some, t - np.log(np.where(some, y, 1.0)), t)
    growth = np.expm1(q)
    score = np.where(some, -y * growth, -np.exp(t))
    value = np.where(some, y * q + score, score) + data.saturated_poisson
    return value, score, y - score


class _PhiFamily(MeanFamily):
    """Variance phi V(mu) / w: prior weights divide the dispersion, as in R's glm."""

    n_dispersion = 1
    parameter = "phi"
    weights_multiply = False
    limit = _NO_DISPERSION

    def _read(self, value: Value, name: str) -> FloatArray:
        y = one_column(value, name)
        if self.kind == "positive":
            refuse(
                y <= 0.0,
                y,
                f"the response '{name}'",
                f"zero or negative, but the {self.name} family needs values above 0; remove these rows, or use another "
                "family",
            )
        return y

    def outside(self, y: FloatArray) -> BoolArray:
        """None: what is not positive was refused when it was read."""
        return np.zeros(y.shape, dtype=bool)

    def variance(self, mu: FloatArray, lam: float = 0.0) -> FloatArray:
        return natural(lam) * self.unit_variance(mu, lam)

    def sigma(self, lam: float) -> float:
        """sqrt(phi), as glmmTMB: the residual SD (gaussian), the coefficient of variation (gamma)."""
        return float(np.exp(0.5 * lam))

    def row_noise(self, data: ResponseData) -> RowNoise | None:
        """The dispersion, which makes the same variances as a normal effect with another shape."""
        return RowNoise(f"the dispersion of the {self.name} distribution", float(data.n_obs), exact=False)

    def start_mean(self, data: ResponseData) -> FloatArray:
        return data.y

    def start_lambda(self, data: ResponseData, mu: FloatArray) -> float:
        """Log of the mean squared Pearson residual."""
        return float(np.log(max(float(np.mean(self.pearson(data, mu) ** 2)), 1e-300)))

    @staticmethod
    def _precision(data: ResponseData, lam: float) -> FloatArray:
        """w / phi, shape (n,) (or one number without weights)."""
        return np.asarray(data.weight * np.exp(-lam))


@dataclass(frozen=True)
class Gamma(_PhiFamily):
    """Variance phi mu^2; shape a = w / phi. With z = log(y / mu): l = -a (e^z - 1 - z) + K(a) - log y."""

    name = "gamma"
    kind = "positive"
    many_dispersions = True
    default_link = "log"
    canonical_link = "inverse"
    concave_links = frozenset({"log", "inverse"})

    def _pieces(self, data: ResponseData, t: FloatArray, lam: float, order: Order, expected: bool) -> Pieces:
        a = self._precision(data, lam)
        z = data.log_y - t
        excess = np.expm1(z)
        # e^z - 1 - z = -(log(1 + excess) - excess); the second form keeps its digits near 0.
        gap = np.where(np.abs(z) < 0.1, -log1p_minus(np.where(np.abs(z) < 0.1, excess, 0.0)), excess - z)
        shape, d_shape = log_shape(a)
        p = Pieces(shape - data.log_y - a * gap)
        if order >= 1:
            p.d1 = a * excess
        if order >= 2:
            p.d2 = -a * (excess + 1.0)
            p.info = p.quasi = a + np.zeros_like(t)
        if order >= 3:
            p.d3 = -p.d2
            p.d_info = np.zeros_like(t)
            p.d_lam = a * gap - d_shape
            p.d1_lam, p.d2_lam, p.info_lam = -p.d1, -p.d2, -p.info
        return p

    def stays_likely(self, data: ResponseData, mean: float) -> BoolArray:
        """None: the density of a positive response is zero with a mean of zero and with an infinite one."""
        return np.zeros(data.n_obs, dtype=bool)

    def unit_variance(self, mu: FloatArray, lam: float = 0.0) -> FloatArray:
        return mu * mu

    def _cdf(self, y: FloatArray, mu: FloatArray, lam: Any, data: ResponseData) -> FloatArray:
        shape = self._precision(data, lam)
        return np.asarray(special.gammainc(shape, shape * y / mu))

    def _unit_deviance(self, data: ResponseData, mu: FloatArray, lam: float) -> FloatArray:
        return -2.0 * log1p_minus(data.y / mu - 1.0)

    def _draw(self, mu: FloatArray, lam: Any, data: ResponseData, rng: np.random.Generator) -> FloatArray:
        a = self._precision(data, lam)
        return rng.gamma(np.broadcast_to(a, mu.shape), mu / a)


@dataclass(frozen=True)
class InverseGaussian(_PhiFamily):
    """Variance phi mu^3. With b = w / phi: l = -b (y/mu^2 - 2/mu + 1/y) / 2 + [log(b / 2 pi) - 3 log y] / 2."""

    name = "inverse_gaussian"
    kind = "positive"
    default_link = "log"
    canonical_link = "1/mu^2"
    concave_links = frozenset({"1/mu^2", "inverse"})

    def lambda_unit(self, data: ResponseData) -> float:
        """phi mu has no unit."""
        return -float(np.log(np.median(data.y)))

    def _pieces(self, data: ResponseData, t: FloatArray, lam: float, order: Order, expected: bool) -> Pieces:
        b = self._precision(data, lam)
        y = data.y
        V = np.exp(-t)
        excess = np.expm1(data.log_y - t)
        square = excess * excess / y
        p = Pieces(0.5 * (np.log(b / (2.0 * np.pi)) - 3.0 * data.log_y - b * square))
        if order >= 1:
            p.d1 = b * V * excess
        if order >= 2:
            bU, bV = b * V * (excess + 1.0), b * V
            p.d2 = bV - 2.0 * bU
            p.info = p.quasi = bV
        if order >= 3:
            p.d3 = 4.0 * bU - bV
            p.d_info = -bV
            p.d_lam = 0.5 * (b * square - 1.0)
            p.d1_lam, p.d2_lam, p.info_lam = -p.d1, -p.d2, -bV
        return p

    def stays_likely(self, data: ResponseData, mean: float) -> BoolArray:
        """With an infinite mean the density is that of a stable distribution, not zero."""
        return np.full(data.n_obs, mean == np.inf)

    def unit_variance(self, mu: FloatArray, lam: float = 0.0) -> FloatArray:
        return mu**3

    def _cdf(self, y: FloatArray, mu: FloatArray, lam: Any, data: ResponseData) -> FloatArray:
        """Phi(r (y/mu - 1)) + exp(2b/mu) Phi(-r (y/mu + 1)) with r = sqrt(b / y)."""
        b = self._precision(data, lam)
        r = np.sqrt(b / y)
        first = special.ndtr(r * (y / mu - 1.0))
        second: FloatArray = np.exp(2.0 * b / mu + special.log_ndtr(-r * (y / mu + 1.0)))
        total: FloatArray = first + second
        return total

    def _unit_deviance(self, data: ResponseData, mu: FloatArray, lam: float) -> FloatArray:
        return (data.y - mu) ** 2 / (mu * mu * data.y)

    def _draw(self, mu: FloatArray, lam: Any, data: ResponseData, rng: np.random.Generator) -> FloatArray:
        return rng.wald(mu, np.broadcast_to(self._precision(data, lam), mu.shape))


@dataclass(frozen=True)
class Gaussian(_PhiFamily):
    """Variance sigma^2 / w, in t = mu; the dispersion parameter is sigma^2."""

    name = "gaussian"
    kind = "real"
    has_residual = True
    default_link = "identity"
    canonical_link = "identity"
    concave_links = frozenset({"identity"})
    parameter = "sigma2"
    uses_log_mean: ClassVar[bool] = False

    def lambda_unit(self, data: ResponseData) -> float:
        """The variance of the response."""
        return float(np.log(max(float(np.var(data.y)), 1e-300)))

    def _pieces(self, data: ResponseData, t: FloatArray, lam: float, order: Order, expected: bool) -> Pieces:
        b = self._precision(data, lam)
        r = data.y - t
        p = Pieces(0.5 * (np.log(b / (2.0 * np.pi)) - b * r * r))
        if order >= 1:
            p.d1 = b * r
        if order >= 2:
            p.info = p.quasi = b + np.zeros_like(t)
            p.d2 = -p.info
        if order >= 3:
            p.d3 = p.d_info = np.zeros_like(t)
            p.d_lam = 0.5 * (b * r * r - 1.0)
            p.d1_lam, p.d2_lam, p.info_lam = -p.d1, p.info, -p.info
        return p

    def row_noise(self, data: ResponseData) -> RowNoise | None:
        """The residual, which the identity makes a part of eta."""
        is_part = self.link.is_identity
        weights = data.weights if is_part else None
        return RowNoise("the residual variance", float(data.n_obs), weights, exact=is_part)

    separates = "responses around zero from others"

    def stays_likely(self, data: ResponseData, mean: float) -> BoolArray:
        """With a finite mean, which log, inverse and logit links only approach, every response is possible."""
        return np.full(data.n_obs, bool(np.isfinite(mean)))

    def unit_variance(self, mu: FloatArray, lam: float = 0.0) -> FloatArray:
        return np.ones_like(mu)

    def start_mean(self, data: ResponseData) -> FloatArray:
        """The responses; with a log or inverse link moved to the side of the pole where most of them are."""
        if self.link.name == "identity":
            return data.y
        scale = float(np.mean(np.abs(data.y))) or 1.0
        low, high = self.link.extremes
        if np.isfinite(low) and np.isfinite(high) and low < high:
            return np.clip(data.y, low + _INSIDE * (high - low), high - _INSIDE * (high - low))
        if self.link.name == "inverse" and np.mean(data.y) < 0:
            return np.minimum(data.y, -0.1 * scale)
        return np.maximum(data.y, 0.1 * scale)

    def _cdf(self, y: FloatArray, mu: FloatArray, lam: Any, data: ResponseData) -> FloatArray:
        return special.ndtr((y - mu) * np.sqrt(self._precision(data, lam)))

    def _unit_deviance(self, data: ResponseData, mu: FloatArray, lam: float) -> FloatArray:
        return (data.y - mu) ** 2

    def _draw(self, mu: FloatArray, lam: Any, data: ResponseData, rng: np.random.Generator) -> FloatArray:
        return rng.normal(mu, 1.0 / np.sqrt(self._precision(data, lam)))
