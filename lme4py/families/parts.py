"""Families with further linear predictors: the probability of zeros, the dispersion.

Predictors without random effects are blocks of the parameters beside eta: lambda holds their coefficients, then the
other parameters of the family, then a log dispersion that is one number. Their columns stand in `ResponseData.parts`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from scipy import special

from lme4py.errors import OptionError
from lme4py.families.densities.base import DISPERSION, Density, DensityArgument
from lme4py.families.densities.calculus.jets import Index
from lme4py.families.densities.zeros import ZERO_INFLATION, Hurdle, ZeroInflated
from lme4py.families.density_family import DensityFamily
from lme4py.families.links import PROBABILITY_LINKS, Link, LogMean
from lme4py.families.nuisance import NuisanceColumns, elements_of
from lme4py.families.response import ResponseData
from lme4py.families.rows import EtaDerivatives, Order
from lme4py.families.shares import VarianceKind
from lme4py.families.stacked_rows import curve_of_pieces, stacked_derivatives
from lme4py.frozen import computed_once
from lme4py.linalg.types import BoolArray, FloatArray

__all__ = ["ZERO_INFLATION", "PartsFamily"]

# Starts that lead to one minimum, where only the mean has random effects and where parts have some too.
_ENOUGH: Final = 3
_ENOUGH_RANDOM: Final = 6
# Of central differences of moments: their error is about its square.
_STEP: Final = 1e-5
# A linear predictor of this size is an end of its range for all that rows can tell.
_FAR: Final = 16.0
_AT_END: Final = {
    ZERO_INFLATION: "the zero-inflation probability is zero",
    DISPERSION: "the dispersion is at the end of its range",
}
_INFINITE: Final = {
    ZERO_INFLATION: "its columns tell rows that must be zero, or cannot be, from others",
    DISPERSION: "its columns tell rows that have no dispersion of their own, or all of it, from others",
}


@dataclass(frozen=True, init=False)
class PartsFamily(DensityFamily):
    """A family some of whose variables beside the mean have linear predictors.

    Attributes
    ----------
    parts : tuple of (str, tuple of str)
        Name of each predictor and of its columns.
    random : tuple of str
        Names of those that have random effects.
    """

    parts: tuple[tuple[str, tuple[str, ...]], ...]
    random: tuple[str, ...]

    def __init__(
        self, density: Density, parts: Sequence[tuple[str, tuple[str, ...]]], random: Sequence[str] = ()
    ) -> None:
        super().__init__(density)
        object.__setattr__(self, "parts", tuple(parts))
        object.__setattr__(self, "random", tuple(random))

    @property
    def mean_is_link(self) -> bool:
        return ZERO_INFLATION not in self.components and self.density.mean_is_link

    @computed_once
    def components(self) -> tuple[str, ...]:
        return ("conditional", *(name for name, _ in self.parts))

    @property
    def base_name(self) -> str:
        density = self.density
        return density.base.name if isinstance(density, ZeroInflated | Hurdle) else density.name

    @property
    def without_parts(self) -> DensityFamily:
        """The family of what is not a zero of the zero part."""
        density = self.density
        return DensityFamily(density.base if isinstance(density, ZeroInflated | Hurdle) else density)

    @property
    def of_conditional_mean(self) -> DensityFamily:
        """The family whose mean is that of the conditional part: the untruncated one where counts are truncated."""
        return DensityFamily(self.density.conditional)

    def without_parts_variance(self, x: Sequence[FloatArray], data: ResponseData) -> FloatArray:
        """Variance of a response that is not a zero of the zero part, from the arguments of all, shape (n,)."""
        density = self.density
        if isinstance(density, ZeroInflated | Hurdle):
            return density.base.variance([x[0], *x[2:]], data)
        return density.variance(x, data)

    @property
    def stacked(self) -> tuple[str, ...]:
        return self.random

    def with_all_stacked(self) -> PartsFamily:
        """The same with a place in the stack for every predictor; those without random effects come last."""
        rest = tuple(name for name, _ in self.parts if name not in self.random)
        return PartsFamily(self.density, self.parts, (*self.random, *rest))

    @property
    def enough_starts(self) -> int | None:
        """A descent costs more than one in a single predictor, and minima besides the lowest were seen by the first.

        Far from zero, near it, and with less dispersion or parts without effects; of few rows all are followed. Of 60
        random data sets of models with random effects in parts (``benchmarks/parts_robust.py``) three had a minimum
        that these did not find.
        """
        return _ENOUGH_RANDOM if self.random else _ENOUGH

    # --- parameters

    @computed_once
    def _scalars(self) -> tuple[DensityArgument, ...]:
        """Variables without a linear predictor, the dispersion last."""
        rest = [v for v in self.density.variables[1:] if v.name not in self.components]
        return (*(v for v in rest if v.name != DISPERSION), *(v for v in rest if v.name == DISPERSION))

    @property
    def nuisance(self) -> tuple[DensityArgument, ...]:
        return self._scalars

    @computed_once
    def n_coefficients(self) -> int:
        """Coefficients of all further predictors."""
        return sum(len(columns) for _, columns in self.parts)

    @property
    def nuisance_names(self) -> tuple[str, ...]:
        own = tuple(f"{name}: {column}" for name, columns in self.parts for column in columns)
        return (*own, *(v.parameter for v in self._scalars if v.name != DISPERSION))

    @property
    def n_nuisance(self) -> int:
        return self.n_coefficients + len(self._scalars)

    def place(self, component: str) -> slice:
        """Where the coefficients of a predictor are in lambda."""
        start = 0
        for name, columns in self.parts:
            if name == component:
                return slice(start, start + len(columns))
            start += len(columns)
        raise OptionError(f"the model has no part {component!r}; it has {', '.join(self.components)}.")

    def other_values(self, others: Sequence[float]) -> FloatArray:
        q = self.n_coefficients
        return np.concatenate([others[:q], super().other_values(others[q:])])

    def other_ends(self, others: Sequence[float]) -> dict[int, str]:
        # Parameters behind the coefficients only: what coefficients do depends on their columns.
        q = self.n_coefficients
        return {q + i: model for i, model in super().other_ends(others[q:]).items()} if len(others) > q else {}

    def other_natural(self, number: int, value: float) -> float:
        q = self.n_coefficients
        return value if number < q else super().other_natural(number - q, value)

    def other_slopes(self, others: Sequence[float]) -> FloatArray:
        q = self.n_coefficients
        out = np.eye(len(others))
        out[q:, q:] = super().other_slopes(others[q:])
        return out

    def other_limits(self, number: int, value: float, half: float) -> tuple[float, float]:
        q = self.n_coefficients
        return (value - half, value + half) if number < q else super().other_limits(number - q, value, half)

    def trouble(self, data: ResponseData, eta: FloatArray, lam: Any) -> str:
        """Why coefficients of a part, or of several together, have no finite estimate, or ""."""
        values = np.atleast_1d(np.asarray(lam, dtype=np.float64))
        for rows in data.parts:
            why = self._at_end(rows.name, rows.predictor(values[self.place(rows.name)]), data)
            if why:
                return why
        return self.density.trouble(data, self._stacked_x(data, eta, lam))

    def _at_end(self, name: str, eta: FloatArray, data: ResponseData) -> str:
        """Why the predictor of a part is at an end of its range, or ""."""
        if name == DISPERSION:
            eta = eta - self.density.dispersion_unit(data)
        for end in self.density.limits:
            if end.variable == name and end.simpler and (end.sign * eta > _FAR).all():
                return f"{_AT_END[name]} in all rows ({end.model}); leave the part out"
        if (np.abs(eta) <= _FAR).all():
            return ""
        return f"coefficients of the {name} part go to infinity: {_INFINITE[name]}"

    def _x(self, eta: FloatArray, lam: Any, data: ResponseData | None = None) -> list[FloatArray]:
        if data is None or len(data.parts) != len(self.parts):
            raise self.lacks("numbers for rows without the columns of its further linear predictors")
        values = np.atleast_1d(np.asarray(lam, dtype=np.float64))
        known = {rows.name: rows.predictor(values[..., self.place(rows.name)]) for rows in data.parts}
        rest = zip(self._scalars, elements_of(values[..., self.n_coefficients :]), strict=False)
        known |= {v.name: value for v, value in rest}
        return [np.asarray(eta, dtype=np.float64), *(known[v.name] for v in self.density.variables[1:])]

    # --- derivatives

    def derivatives(
        self,
        data: ResponseData,
        eta: FloatArray,
        lam: Any = 0.0,
        order: Order = 3,
        *,
        expected: bool = True,
    ) -> EtaDerivatives:
        """As `DensityFamily.derivatives`; for predictors one below the other those in all of them."""
        size = 1 + len(self.stacked)
        if size == 1 or eta.shape[-1] != size * data.n_obs:
            return super().derivatives(data, eta, lam, order, expected=expected)
        x = self._stacked_x(data, eta, lam)
        return stacked_derivatives(self.density, data, x, self._own, self._pieces(data), order)

    @computed_once
    def _own(self) -> tuple[int, ...]:
        """Which variables of the density have a predictor of their own in the stack."""
        return (0, *(self.density.names.index(name) for name in self.stacked))

    def _stacked_x(self, data: ResponseData, eta: FloatArray, lam: Any) -> list[FloatArray]:
        """The variables of the density where predictors stand one below the other, or there is one."""
        first, *further = np.split(eta, eta.shape[-1] // data.n_obs, axis=-1)
        x = self._x(first, lam, data)
        for place, more in zip(self._own[1:], further, strict=False):
            x[place] = x[place] + more
        return x

    def room(self, eta: FloatArray, change: FloatArray) -> float:
        n = eta.size // (1 + len(self.stacked))
        return super().room(eta[:n], change[:n])

    def _pieces(self, data: ResponseData) -> list[tuple[int, FloatArray | None]]:
        """Variable of the density and columns of each block of lambda."""
        columns = (*(rows.X for rows in data.parts), *(None,) * len(self._scalars))
        return list(zip(self._places, columns, strict=True))

    @computed_once
    def _places(self) -> tuple[int, ...]:
        names = self.density.names
        return tuple(names.index(name) for name in (*self.components[1:], *(v.name for v in self._scalars)))

    def _part(self, found: dict[Index, FloatArray], of: Index, data: ResponseData, sign: float = 1.0) -> Any:
        if not self.parts:
            return super()._part(found, of, data, sign)
        pieces = self._pieces(data)
        columns = tuple(found[tuple(sorted((*of, i)))] for i, _ in pieces)
        if sign != 1.0:
            columns = tuple(sign * column for column in columns)
        return NuisanceColumns(columns, tuple(X for _, X in pieces))

    def _curve(self, found: dict[Index, FloatArray], data: ResponseData) -> FloatArray:
        return self._sized(curve_of_pieces(found, self._pieces(data)))

    # --- the response

    def coerce_again(self, values: FloatArray, data: ResponseData, name: str, proportions: bool) -> ResponseData:
        return replace(super().coerce_again(values, data, name, proportions), parts=data.parts)

    # --- infinity

    def stays_likely(self, data: ResponseData, mean: float) -> BoolArray:
        """A zero of a zero-inflated distribution is possible with every mean."""
        if not self.mean_is_link and not self.density.is_hurdle:
            return np.asarray(data.y == 0.0)
        return super().stays_likely(data, mean)

    def says_nothing(self, data: ResponseData) -> BoolArray:
        """Zeros of a hurdle model say nothing of what is behind it."""
        if self.density.is_hurdle:
            return np.asarray(data.y == 0.0)
        return super().says_nothing(data)

    # --- moments

    def mean(self, eta: FloatArray) -> FloatArray:
        if self.mean_is_link:
            return super().mean(eta)
        raise self.lacks("mean that follows from the conditional part alone; use predict()")

    def start_mean(self, data: ResponseData) -> FloatArray:
        return self.link.mean(self.start_eta(data))

    def fitted(self, data: ResponseData, eta: FloatArray, lam: Any) -> FloatArray:
        """Means of the responses, zeros included, shape (n,)."""
        return self.density.mean(self._x(eta, lam, data), data)

    def predicted(self, kind: str, data: ResponseData, eta: FloatArray, lam: Any) -> FloatArray:
        """What `predict(type=...)` gives of rows with this conditional predictor, shape (n,).

        Parameters
        ----------
        kind : {"response", "conditional", "zprob", "dispersion", "variance"}
        data : ResponseData
            The rows, with their parts.
        eta : ndarray, shape (n,)
        lam : ndarray
        """
        return self.moment(kind, data, self._x(eta, lam, data))

    def variables(self, data: ResponseData, eta: FloatArray, lam: Any) -> dict[str, FloatArray]:
        """The arguments of the rows' log-likelihoods by name, each (n,) or a number.

        Parameters
        ----------
        data : ResponseData
            The rows, with their parts.
        eta : ndarray, shape (n,)
        lam : ndarray
        """
        return dict(zip(self.density.names, self._x(eta, lam, data), strict=True))

    def moment(self, kind: str, data: ResponseData, x: Sequence[FloatArray]) -> FloatArray:
        """As `predicted`, from the arguments of the log-likelihood in the order of the density, shape (n,)."""
        shape = np.broadcast_shapes(*(np.shape(part) for part in x))
        by_name = dict(zip(self.density.names, x, strict=True))
        if kind == "conditional":
            return self.link.mean(x[0])
        if kind == "zprob" and ZERO_INFLATION in by_name:
            return 1.0 / (1.0 + np.exp(-np.broadcast_to(by_name[ZERO_INFLATION], shape)))
        if kind == "dispersion" and DISPERSION in by_name:
            return np.exp(np.broadcast_to(by_name[DISPERSION], shape))
        if kind == "variance":
            return np.broadcast_to(self.density.variance(x, data), shape)
        if kind == "response":
            return np.broadcast_to(self.density.mean(x, data), shape)
        raise self.lacks(f"prediction of type {kind!r}")

    def moment_slopes(self, kind: str, data: ResponseData, x: Sequence[FloatArray]) -> list[FloatArray]:
        """Derivatives of `moment` in each argument, each (n,), by central differences."""
        out = []
        for i, part in enumerate(x):
            up, down = (self.moment(kind, data, [*x[:i], part + h, *x[i + 1 :]]) for h in (_STEP, -_STEP))
            out.append((up - down) / (2.0 * _STEP))
        return out

    def moment_link(self, kind: str) -> Link:
        """On whose scale limits of `moment` are made, so that they stay in its range."""
        if kind == "conditional":
            return self.link
        if kind == "zprob" or (kind == "response" and self.kind in ("trials", "proportion")):
            return PROBABILITY_LINKS["logit"]
        return self.link if kind == "response" and self.kind == "real" else LogMean()

    def observation_kind(self, method: str) -> VarianceKind:
        kind = super().observation_kind(method)
        if kind == "latent" and ZERO_INFLATION in self.components:
            raise self.lacks("latent variable for zeros of two kinds; use variance='delta'")
        # The residual variance differs between the rows.
        return "delta" if kind == "residual" else kind

    def link_scale_variance(self, kind: str, mu: float, data: ResponseData, lam: Any) -> float:
        """Variance of a response, zeros included, on the scale of the conditional link, averaged over the rows.

        Nakagawa, Johnson & Schielzeth (2017), with the slope m' of the mean of the response in the linear predictor in
        the place of that of the link: V / m'^2, log(1 + V / m'^2), or trigamma(m'^2 / V).

        Parameters
        ----------
        kind : {"delta", "lognormal", "trigamma"}
        mu : float
            The conditional mean; the further parts are those of the rows.
        data : ResponseData
        lam : ndarray
        """
        x = self._x(np.full(data.n_obs, float(self.link.eta(np.array(mu)))), lam, data)
        spread = self.moment("variance", data, x)
        if self.has_trials:
            spread = spread / data.n_trials**2
        ratio = spread / self.moment_slopes("response", data, x)[0] ** 2
        if kind == "delta":
            return float(np.mean(ratio))
        if kind not in ("lognormal", "trigamma"):
            raise self.lacks(f"variance of an observation of kind {kind!r} with further parts")
        return float(np.mean(np.log1p(ratio) if kind == "lognormal" else special.polygamma(1, 1.0 / ratio)))

    def pearson(self, data: ResponseData, mu: FloatArray, lam: Any = 0.0) -> FloatArray:
        self._only_by_link("Pearson residuals")
        return super().pearson(data, mu, lam)

    def pearson_at(self, data: ResponseData, mu: FloatArray, eta: FloatArray, lam: Any) -> FloatArray:
        """(y - E y) / sd(y), zeros of the zero part included."""
        if self.mean_is_link:
            return super().pearson_at(data, mu, eta, lam)
        spread = self.predicted("variance", data, eta, lam)
        weight = data.weight if self.weights_multiply else 1.0
        counts = data.n_trials if self.has_trials else 1.0
        result: FloatArray = np.sqrt(weight / spread) * (data.y - counts * mu)
        return result

    def deviance_residuals(self, data: ResponseData, mu: FloatArray, lam: Any = 0.0) -> FloatArray:
        self._only_by_link("deviance residuals")
        return super().deviance_residuals(data, mu, lam)

    def _only_by_link(self, what: str) -> None:
        if not self.mean_is_link:
            raise self.lacks(f"{what}; use residuals(type='response')")

    # --- starts

    def start_nuisance(self, data: ResponseData, eta: FloatArray) -> Any:
        rest = dict(zip(self.density.names[1:], self.density.start_rest(data, eta), strict=True))
        if not self.parts:
            return super().start_nuisance(data, eta)
        values = []
        for rows in data.parts:
            target = np.full(data.n_obs, rest[rows.name]) - (0.0 if rows.offset is None else rows.offset)
            values.append(np.linalg.lstsq(rows.X, target, rcond=None)[0])
        return np.concatenate([*values, [rest[v.name] for v in self._scalars]])
