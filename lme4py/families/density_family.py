"""Families whose log-likelihood is a density in all its variables: `lme4py.families.densities`.

The density knows its log-likelihood with partial derivatives, support, moments and distribution; here these become what
the engine and the rest of the package ask of a family. lambda holds the variables beside the linear predictor, the log
dispersion last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np

from lme4py.errors import DataError
from lme4py.families.base import Family, Kind
from lme4py.families.coercion import read_binomial
from lme4py.families.densities.base import DISPERSION, Density, DensityArgument
from lme4py.families.densities.calculus.jets import Index, degrees_of
from lme4py.families.densities.calculus.rows import partials
from lme4py.families.distributions import Binomial
from lme4py.families.links import PROBABILITY_LINKS, ProbabilityLink
from lme4py.families.mean_response import MeanResponse
from lme4py.families.nuisance import NuisanceColumns, NuisancePart, elements_of
from lme4py.families.response import ResponseData
from lme4py.families.rows import DispersionLimit, EtaDerivatives, Order, RowNoise
from lme4py.families.shares import VarianceKind, latent_kind
from lme4py.formula.values import Value
from lme4py.linalg.small import eigen
from lme4py.linalg.types import BoolArray, FloatArray

__all__ = ["DensityFamily"]

# Where the observed curvature is below this part of that of Fisher scoring, a Newton step uses the latter.
_CURVED: Final = 0.25
# Steps towards the linear predictor under which a response is most likely, and the largest of them.
_SATURATED, _LONGEST = 40, 4.0
# The least curvature in the parameters beside the linear predictor.
_LEAST_CURVATURE: Final = 1e-3
# A variable that stands for infinity.
_END: Final = 800.0


@dataclass(frozen=True, init=False)
class DensityFamily(MeanResponse):
    """A family made of a density.

    Attributes
    ----------
    density : Density
    """

    density: Density
    has_expected = False

    def __init__(self, density: Density) -> None:
        object.__setattr__(self, "link", density.link)
        object.__setattr__(self, "density", density)

    # --- facts

    @property
    def name(self) -> str:
        return self.density.name

    @property
    def kind(self) -> Kind:
        kind = self.density.kind
        if kind == "unordered":
            raise self.lacks("order of its categories")
        return kind

    @property
    def default_link(self) -> str:
        return self.density.default_link

    @property
    def log_concave(self) -> bool:
        return self.density.log_concave

    @property
    def mean_is_link(self) -> bool:
        return self.density.mean_is_link

    @property
    def weights_multiply(self) -> bool:
        return self.density.weights_multiply

    @property
    def support(self) -> str:
        return self.density.support

    @property
    def advice(self) -> str:
        return self.density.advice

    @property
    def ratios(self) -> frozenset[str]:
        return frozenset({"odds_ratio"} if self.kind in ("trials", "proportion") else {"rate_ratio"})

    @property
    def ratio(self) -> str | None:
        return super().ratio if self.kind in ("count", "trials") else None

    @property
    def more_variable(self) -> str:  # type: ignore[override]
        if self.n_dispersion or DISPERSION in self.density.names:
            return ""
        return {"count": "a negative binomial", "trials": "a beta-binomial"}.get(self.kind, "")

    @property
    def separates(self) -> str:
        return "successes from failures" if self.has_trials else "zeros from other responses"

    # --- parameters

    @property
    def nuisance(self) -> tuple[DensityArgument, ...]:
        """The variables beside the linear predictor, in the order of lambda."""
        rest = self.density.variables[1:]
        others = [v for v in rest if v.name != DISPERSION]
        return (*others, *(v for v in rest if v.name == DISPERSION))

    @property
    def nuisance_names(self) -> tuple[str, ...]:
        return tuple(v.parameter for v in self.nuisance if v.name != DISPERSION)

    @property
    def n_nuisance(self) -> int:
        return len(self.nuisance)

    @property
    def n_dispersion(self) -> int:
        return int(any(v.name == DISPERSION for v in self.nuisance))

    @property
    def parameter(self) -> str:
        return self.nuisance[-1].parameter if self.n_dispersion else ""

    @property
    def nuisance_order(self) -> Order:
        return 1

    @property
    def limit(self) -> DispersionLimit | None:
        """Of the dispersion: where the responses have no variation of their own, or that of a simpler family."""
        end = next((end for end in self.density.limits if end.variable == DISPERSION), None)
        if end is None or not self.n_dispersion:
            return None
        sign = float(end.sign)
        if end.simpler:
            return DispersionLimit(np.inf if sign > 0 else 0.0, end.model, sign * 30.0, sign * 6.0, sign * 4.0)
        # A scale that goes to zero, or a precision that goes to infinity: half as far for a standard deviation.
        far = 1.0 if end.sign > 0 or self.parameter == "phi" else 0.5
        far *= sign
        return DispersionLimit(np.inf if sign > 0 else 0.0, end.model, 23.0 * far, 9.0 * far, 8.0 * far)

    def trouble(self, data: ResponseData, eta: FloatArray, lam: Any) -> str:
        return self.density.trouble(data, self._x(eta, lam, data))

    def no_maximum(self, data: ResponseData) -> str:
        return self.density.no_maximum(data)

    def lambda_unit(self, data: ResponseData) -> float:
        return self.density.dispersion_unit(data)

    def limiting(self) -> Family:
        if self.has_trials:
            return Binomial(self.link) if isinstance(self.link, ProbabilityLink) else self
        simpler = self.density.without_dispersion
        return self if simpler is None else DensityFamily(simpler)

    @property
    def _others(self) -> tuple[DensityArgument, ...]:
        return tuple(v for v in self.nuisance if v.name != DISPERSION)

    def shown_params(self, values: dict[str, float]) -> dict[str, float]:
        return self.density.shown_params(values)

    def other_values(self, others: Sequence[float]) -> FloatArray:
        values = np.array([v.natural(value) for v, value in zip(self._others, others, strict=True)])
        for i in self.other_ends(others):
            with np.errstate(over="ignore"):
                values[i] = self._others[i].natural(float(np.copysign(_END, others[i])))
        return values

    def other_ends(self, others: Sequence[float]) -> dict[int, str]:
        found = {}
        for i, (own, value) in enumerate(zip(self._others, others, strict=True)):
            for end in self.density.limits:
                if end.variable == own.name and end.sign * value > end.far:
                    found[i] = end.model
        return found

    def other_natural(self, number: int, value: float) -> float:
        return self._others[number].natural(value)

    def other_slopes(self, others: Sequence[float]) -> FloatArray:
        ends = self.other_ends(others)
        slopes = [np.nan if i in ends else v.slope(others[i]) for i, v in enumerate(self._others)]
        return np.diag(slopes)

    def other_limits(self, number: int, value: float, half: float) -> tuple[float, float]:
        own = self._others[number]
        if not np.isfinite(half) or not half > 0.0:
            return float("nan"), float("nan")
        centre = own.of(value)
        with np.errstate(all="ignore"):
            spread = half / own.slope(centre)
            return own.natural(centre - spread), own.natural(centre + spread)

    def _x(self, eta: FloatArray, lam: Any, data: ResponseData | None = None) -> list[FloatArray]:
        """The variables of the density, in its own order."""
        known = {v.name: value for v, value in zip(self.nuisance, elements_of(lam), strict=False)}
        return [np.asarray(eta, dtype=np.float64), *(known[v.name] for v in self.density.variables[1:])]

    @property
    def _places(self) -> tuple[int, ...]:
        """Where the elements of lambda are among the variables of the density."""
        names = self.density.names
        return tuple(names.index(v.name) for v in self.nuisance)

    # --- log-likelihood

    @property
    def takes_points(self) -> bool:
        return self.density.takes_points

    def of_points(self, data: ResponseData, eta: FloatArray, lam: Any) -> list[EtaDerivatives]:
        whole = self.derivatives(data, eta, lam)
        return [whole.point(b) for b in range(eta.shape[0])]

    def derivatives(
        self,
        data: ResponseData,
        eta: FloatArray,
        lam: Any = 0.0,
        order: Order = 3,
        *,
        expected: bool = True,
    ) -> EtaDerivatives:
        """As `Family.derivatives`; `d_lam` comes with orders 1 and 3, and no expected weights at all."""
        places = self._places if order in (1, 3) else ()
        together = 2 if order == 3 and places and eta.ndim == 1 else 1
        degrees = degrees_of(order, tuple(sorted((0, *places))), tuple(sorted(places)), together, 1)
        x = self._x(eta, lam, data)
        found = partials(self.density, data, x, degrees)
        if order == 0:
            return EtaDerivatives(found[()])
        nuisance: dict[str, Any] = {"d_lam": self._part(found, (), data)} if places else {}
        if order == 1:
            return EtaDerivatives(found[()], found[0,], **nuisance)
        w_obs = -found[0, 0]
        working = partial(self._working, data, x, w_obs)
        if order == 2:
            return EtaDerivatives(found[()], found[0,], w_obs, working=working)
        result: dict[str, Any] = {
            "score": found[0,],
            "w_obs": w_obs,
            "working": working,
            "dw_obs": -found[0, 0, 0],
            **nuisance,
        }
        if places:
            result |= {
                "score_lam": self._part(found, (0,), data),
                "w_obs_lam": self._part(found, (0, 0), data, -1.0),
                "curve_lam": self._curve(found, data) if together > 1 else None,
            }
        return EtaDerivatives(found[()], **result)

    def curvatures(self, data: ResponseData, eta: FloatArray, lam: Any) -> EtaDerivatives:
        """What a Newton step in eta and lambda together needs: order 2, and `d_lam`, `score_lam` and `curve_lam`.

        Parameters
        ----------
        data : ResponseData
        eta : ndarray, shape (n,)
        lam : ndarray
        """
        places, x = self._places, self._x(eta, lam, data)
        found = partials(self.density, data, x, degrees_of(2, tuple(sorted((0, *places))), tuple(sorted(places)), 2))
        w_obs = -found[0, 0]
        return EtaDerivatives(
            found[()],
            found[0,],
            w_obs,
            working=partial(self._working, data, x, w_obs),
            d_lam=self._part(found, (), data),
            score_lam=self._part(found, (0,), data),
            curve_lam=self._curve(found, data),
        )

    def _part(self, found: dict[Index, FloatArray], of: Index, data: ResponseData, sign: float = 1.0) -> NuisancePart:
        """Derivatives in lambda of a derivative in eta: an array for one parameter, else `NuisanceColumns`."""
        columns = [sign * found[tuple(sorted((*of, i)))] for i in self._places]
        return columns[0] if len(columns) == 1 else NuisanceColumns(tuple(columns))

    def _curve(self, found: dict[Index, FloatArray], data: ResponseData) -> FloatArray:
        """-d2l / dlambda2 of all rows together; curvatures count with their size."""
        places = self._places
        curve = -np.array([[float(np.sum(found[tuple(sorted((i, j)))])) for j in places] for i in places])
        return self._sized(curve)

    @staticmethod
    def _sized(curve: FloatArray) -> FloatArray:
        """A positive definite matrix near a symmetric one; itself where it is one."""
        finite = np.isfinite(curve)
        values, vectors = eigen(np.where(finite, curve, 0.0))
        if values[0] > _LEAST_CURVATURE and finite.all():
            return curve
        size = np.maximum(np.abs(values), _LEAST_CURVATURE)
        result: FloatArray = (vectors * size) @ vectors.T
        return result

    def _working(self, data: ResponseData, x: list[FloatArray], w_obs: FloatArray) -> FloatArray:
        """The observed weights, and the size of what Fisher scoring or the curvature says where these are small."""
        if bool((w_obs > 0.0).all()):
            return w_obs
        with np.errstate(all="ignore"):
            slope = self.link.derivatives(x[0])[1] * (data.n_trials if self.has_trials else 1.0)
            scoring = slope * slope / self.density.variance(x, data)
            if self.weights_multiply:
                scoring = scoring * data.weight
        scoring = np.where(np.isfinite(scoring), scoring, 0.0)
        return np.where(w_obs > _CURVED * scoring, w_obs, np.maximum(scoring, np.abs(w_obs)))

    # --- the response

    def coerce(self, value: Value, name: str, weights: FloatArray | None = None, **more: Any) -> ResponseData:
        if not self.has_trials:
            return self._complete(super().coerce(value, name, weights, **more), name)
        return read_binomial(value, name, weights)

    def _complete(self, data: ResponseData, name: str) -> ResponseData:
        """The response, or a refusal where it lacks values that the family needs."""
        why = self.density.lacking(data)
        if why:
            raise DataError(f"the response {name!r} {why}")
        return data

    def coerce_again(self, values: FloatArray, data: ResponseData, name: str, proportions: bool) -> ResponseData:
        if self.has_trials:
            return Binomial(PROBABILITY_LINKS["logit"]).coerce_again(values, data, name, proportions)
        return self._complete(super().coerce_again(values, data, name, proportions), name)

    def outside(self, y: FloatArray) -> BoolArray:
        return self.density.outside(ResponseData(y))

    # --- infinity

    def stays_likely(self, data: ResponseData, mean: float) -> BoolArray:
        """By the log-likelihood far out: the density of these families has no closed form there."""
        return self.density.stays_likely(data, mean)

    def says_nothing(self, data: ResponseData) -> BoolArray:
        return np.asarray(data.n_trials == 0.0) if self.has_trials else super().says_nothing(data)

    # --- moments

    def variance(self, mu: FloatArray, lam: Any = 0.0) -> FloatArray:
        return self.density.variance(self._x(self.link.eta(np.asarray(mu)), lam))

    def row_variance(self, mu: FloatArray, lam: Any, data: ResponseData) -> FloatArray:
        spread = self.density.variance(self._x(self.link.eta(np.asarray(mu)), lam, data), data)
        return spread / data.n_trials**2 if self.has_trials else spread

    def mean_near(self, y: FloatArray, data: ResponseData) -> FloatArray:
        if self.has_trials:
            return np.clip((y + 0.5) / (data.n_trials + 1.0), 1e-9, 1.0 - 1e-9)
        return super().mean_near(y, data)

    def sigma(self, lam: Any) -> float:
        return self.dispersion(float(np.atleast_1d(lam)[-1]))

    def observation_kind(self, method: str) -> VarianceKind:
        if self.has_trials and method == "theoretical":
            return latent_kind(self)
        if method == "theoretical" and self.kind == "positive" and self.density.has_zeros and self.link.is_log:
            # Amounts with zeros are far from symmetric: as counts.
            return "lognormal"
        return super().observation_kind(method)

    # --- distribution

    def cdf(self, y: FloatArray, eta: FloatArray, lam: Any, data: ResponseData) -> FloatArray:
        inside = np.where(self.valid(eta), eta, self.link.inner)
        with np.errstate(all="ignore"):
            value = self.density.cdf(np.asarray(y), self._x(inside, lam, data), data)
        limit = np.where(self.link.edge_mean(eta) > y, 0.0, 1.0)
        return np.where(self.valid(eta) & np.isfinite(value), value, limit)

    def _simulate(self, eta: FloatArray, lam: Any, data: ResponseData, rng: np.random.Generator) -> FloatArray:
        with np.errstate(all="ignore"):
            return self.density.simulate(self._x(eta, lam, data), data, rng)

    # --- starts

    def start_mean(self, data: ResponseData) -> FloatArray:
        return self.mean(self.start_eta(data))

    def start_eta(self, data: ResponseData) -> FloatArray:
        return self.density.start_eta(data)

    def start_nuisance(self, data: ResponseData, eta: FloatArray) -> Any:
        rest = dict(zip(self.density.names[1:], self.density.start_rest(data, eta), strict=True))
        values = np.array([rest[v.name] for v in self.nuisance])
        if not values.size:
            return 0.0
        return float(values[0]) if values.size == 1 else values

    # --- what random effects can be told from

    def row_noise(self, data: ResponseData) -> RowNoise | None:
        if not self.n_dispersion:
            return None
        size = float(np.sum(data.n_trials)) if self.has_trials else float(data.n_obs)
        return RowNoise(f"the dispersion of the {self.name} distribution", size, exact=False)

    # --- residuals

    def pearson(self, data: ResponseData, mu: FloatArray, lam: Any = 0.0) -> FloatArray:
        """(y - mu) / sd(y) with the weights of the row, shape (n,)."""
        spread = self.density.variance(self._x(self.link.eta(mu), lam, data), data)
        counts = data.n_trials if self.has_trials else 1.0
        weight = data.weight if self.weights_multiply else 1.0
        result: FloatArray = np.sqrt(weight / spread) * (data.y - counts * mu)
        return result

    def deviance_residuals(self, data: ResponseData, mu: FloatArray, lam: Any = 0.0) -> FloatArray:
        """sign(y - mu) sqrt(2 (largest log-likelihood of the row - its own)), largest over its linear predictors."""
        eta = self.link.eta(mu)
        own = self.loglik(data, eta, lam)
        best = np.maximum(self._saturated(data, eta, lam), own)
        observed = data.y / np.maximum(data.n_trials, 1.0) if self.has_trials else data.y
        result: FloatArray = np.sign(observed - mu) * np.sqrt(2.0 * (best - own))
        return result

    def _saturated(self, data: ResponseData, eta: FloatArray, lam: Any) -> FloatArray:
        """The largest log-likelihood of each row over its linear predictor, by Newton steps of bounded length."""
        best = self.loglik(data, eta, lam)
        at = eta
        for _ in range(_SATURATED):
            rows = self.derivatives(data, at, lam, 2)
            step = np.clip(rows.score / np.maximum(rows.w_work, 1e-12), -_LONGEST, _LONGEST)
            step = np.where(np.isfinite(step), step, 0.0)
            at = np.where(self.valid(at + step), at + step, at)
            best = np.fmax(best, self.loglik(data, at, lam))
        return best
