"""Correlations that depend on the lag alone: Toeplitz matrices, and ARMA(1, 1).

The partial autocorrelations of a Toeplitz correlation matrix may be anything in [-1, 1], each on its own
(Barndorff-Nielsen & Schou 1973, *J. Multivar. Anal.* 3:408), so that phi are their arc sines; the correlations follow
by the recursion of Durbin and Levinson. ARMA(1, 1): rho_1 = (1 + f t)(f + t) / (1 + 2 f t + t^2) and then
rho_l = f rho_(l-1), with f and t in [-1, 1] (Box & Jenkins 1976, section 3.4).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from lme4py.covariance.jets import Jet, sines
from lme4py.covariance.kinds.correlation import Correlation, Independent, turn_sizes
from lme4py.covariance.kinds.lags import LagCorrelation, end_of, powers, whole_numbers
from lme4py.covariance.kinds.scaled import Heterogeneous, Homogeneous, Scaled
from lme4py.covariance.natural import NaturalParameter
from lme4py.covariance.registry import register
from lme4py.covariance.structure import Positions
from lme4py.errors import DesignError, OptionError
from lme4py.linalg.types import FloatArray

__all__ = ["Arma11", "HomToep", "MovingAverage", "PartialAutocorrelations", "Toep", "partial_to_lags"]


def partial_to_lags(angles: FloatArray, order: int = 2) -> Jet:
    """Correlations at lags 0, 1, ..., n from the arc sines of n partial autocorrelations.

    Parameters
    ----------
    angles : ndarray, shape (n,)
    order : int
        With 0 the derivatives are left out.

    Examples
    --------
    A first-order autoregression has one that is not zero.

    >>> partial_to_lags(np.array([np.pi / 6, 0.0, 0.0]), 0).value.round(4)
    array([1.   , 0.5  , 0.25 , 0.125])
    """
    partial, rest = sines(angles, order)
    n = partial.first.shape[0]
    lags = Jet.constant(np.ones(1), n, order).join(partial[:1])
    weights, variance = partial[:1], rest[0]
    for j in range(1, angles.size):
        predicted = (weights * lags[j:0:-1]).sum()
        lags = lags.join((predicted + partial[j] * variance).column())
        weights = (weights - partial[j].column() * weights[::-1]).join(partial[j : j + 1])
        variance = variance * rest[j]
    return lags


def lags_to_partial(lags: FloatArray) -> FloatArray:
    """Partial autocorrelations from correlations at lags 1, ..., n; zeros after the first that leaves [-1, 1].

    Examples
    --------
    >>> lags_to_partial(np.array([0.5, 0.25, 0.125])).round(12)
    array([0.5, 0. , 0. ])
    """
    out = np.zeros(lags.size)
    weights, variance = np.zeros(0), 1.0
    for j in range(lags.size):
        if variance <= 1e-12:
            break
        out[j] = (lags[j] - weights @ lags[:j][::-1]) / variance
        if abs(out[j]) > 1.0:
            break
        weights = np.append(weights - out[j] * weights[::-1], out[j])
        variance *= 1.0 - out[j] ** 2
    return out


@dataclass(frozen=True, eq=False)
class PartialAutocorrelations(LagCorrelation):
    """Any positive semi-definite Toeplitz matrix over the range of the positions."""

    @property
    def phi_names(self) -> tuple[str, ...]:
        return tuple(f"partial angle {j + 1}" for j in range(self.n_lags))

    def sequence(self, phi: FloatArray, largest: int, order: int) -> Jet:
        if largest > self.n_lags:
            raise DesignError(f"there is a lag of {largest}, and the correlations go to lag {self.n_lags} only.")
        return partial_to_lags(phi, order)[: largest + 1]

    def typical(self) -> FloatArray:
        return np.where(np.arange(self.n_phi) == 0, np.pi / 6.0, 0.0)

    def grid(self) -> Iterator[FloatArray]:
        for v in np.linspace(-0.5 * np.pi, 0.5 * np.pi, 13):
            for w in (-1.0, 0.0, 1.0) if self.n_phi > 1 else (0.0,):
                yield np.concatenate([[v, w], np.zeros(self.n_phi)])[: self.n_phi]

    def of_rows(self, M: FloatArray) -> FloatArray:
        known = (np.einsum("ab,ab->a", M, M) > 0.5).astype(float)
        counts = self._by_lag(np.outer(known, known))
        lags = self._by_lag(M @ M.T) / np.maximum(counts, 1.0)
        return np.arcsin(np.clip(lags_to_partial(lags[1:]), -1.0, 1.0))

    def boundary(self, phi: FloatArray, label: str, columns: Sequence[str], least: float) -> tuple[str, ...]:
        gone = np.flatnonzero(turn_sizes(phi) < least)
        if not gone.size:
            return ()
        if gone[0] == 0:
            return (f"the correlation of neighbours in {label} is {end_of(phi[0])}",)
        return (f"the covariance matrix of {label} has rank {gone[0] + 1}, not {self.size}",)

    separable: ClassVar[bool] = False

    @property
    def natural_parameters(self) -> tuple[NaturalParameter, ...]:
        return tuple(NaturalParameter("cor", f"cor(lag {j + 1})", (), -1.0, 1.0) for j in range(self.n_phi))

    def natural(self, phi: FloatArray, order: int) -> Jet:
        return partial_to_lags(phi, order)[1:]

    def of_natural(self, values: FloatArray) -> FloatArray:
        partial = lags_to_partial(values)
        if (np.abs(partial) > 1.0 + 1e-8).any():
            lag = int(np.flatnonzero(np.abs(partial) > 1.0)[0]) + 1
            raise OptionError(
                f"with these correlations at the lags before, that at lag {lag} cannot be {values[lag - 1]:g}: that "
                "would be no correlation matrix."
            )
        return np.arcsin(np.clip(partial, -1.0, 1.0))

    def holding(self, values: Mapping[int, float]) -> dict[int, float]:
        n = len(values)
        if set(values) != set(range(n)):
            raise OptionError(
                "the correlations of a Toeplitz matrix can be held from lag 1 on without gaps: what is possible at a "
                "lag depends on those before it."
            )
        phi = self.of_natural(np.array([values[place] for place in range(n)]))
        return dict(enumerate(phi.tolist()))


@dataclass(frozen=True, eq=False)
class MovingAverage(LagCorrelation):
    """ARMA(1, 1): phi are the arc sines of the autoregressive and the moving-average parameter."""

    @property
    def phi_names(self) -> tuple[str, ...]:
        return ("ar angle", "ma angle")

    def sequence(self, phi: FloatArray, largest: int, order: int) -> Jet:
        both = sines(phi, order)[0]
        n = both.first.shape[0]
        ar, ma, one = both[0], both[1], Jet.constant(np.array(1.0), n, order)
        first = (one + ar * ma) * (ar + ma) * (one + ar * ma + ar * ma + ma * ma).reciprocal()
        value, slope, curve = powers(float(phi[0]), np.arange(max(largest, 1)))
        none = np.zeros_like(value)
        later = Jet.of(value, np.array([slope, none]), np.array([[curve, none], [none, none]]), order)
        return Jet.constant(np.ones(1), n, order).join(first.column() * later)[: largest + 1]

    def initial(self) -> FloatArray:
        return np.array([0.5, 0.0])

    def typical(self) -> FloatArray:
        return np.array([0.5, 0.0])

    def grid(self) -> Iterator[FloatArray]:
        angles = np.linspace(-0.48 * np.pi, 0.48 * np.pi, 9)
        return (np.array([a, b]) for a in angles for b in angles)

    def boundary(self, phi: FloatArray, label: str, columns: Sequence[str], least: float) -> tuple[str, ...]:
        words = ("autoregressive", "moving-average")
        return tuple(
            f"the {words[i]} parameter of {label} is {end_of(phi[i])}" for i in np.flatnonzero(turn_sizes(phi) < least)
        )

    def limits(self, phi: FloatArray, label: str) -> tuple[str, ...]:
        if abs(float(np.sin(phi).sum())) > 1e-4:
            return ()
        return (
            f"the autoregressive and the moving-average parameter of {label} cancel: there is no correlation, and "
            "neither of them is identified",
        )

    @property
    def natural_parameters(self) -> tuple[NaturalParameter, ...]:
        return NaturalParameter("ar", "phi", (), -1.0, 1.0), NaturalParameter("ma", "theta", (), -1.0, 1.0)


def _toeplitz(kind: type[Scaled], size: int, positions: FloatArray | None, options: Mapping[str, Any]) -> Correlation:
    """Correlations by lag, or none for one column."""
    kind.refuse_options(options)
    places = whole_numbers(positions, size, f"{kind.name}()")
    if size == 1:
        return Independent(size, places)
    found = PartialAutocorrelations(size, places)
    missing = np.setdiff1d(np.arange(found.n_lags + 1), found.lags)
    if missing.size:
        raise DesignError(
            f"no two times of {kind.name}() are {missing[0]} apart, so that the correlation at this lag is not known; "
            "count the times without gaps, or use ar1()."
        )
    return found


@register
class Toep(Heterogeneous):
    """A correlation for each lag, and a standard deviation for each time."""

    name: ClassVar[str] = "toep"
    title: ClassVar[str] = "Toeplitz, heterogeneous"
    within: ClassVar[tuple[str, ...]] = ("us",)
    takes_positions: ClassVar[Positions] = "whole numbers"
    foreign: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"glmmTMB": "toep", "mmrm": "toeph", "SAS": "TOEPH", "SPSS": "TPH"}
    )

    @classmethod
    def correlation_of(cls, size: int, positions: FloatArray | None, **options: Any) -> Correlation:
        return _toeplitz(cls, size, positions, options)


@register
class HomToep(Homogeneous):
    """A correlation for each lag, and one standard deviation: linear in its elements."""

    name: ClassVar[str] = "homtoep"
    title: ClassVar[str] = "Toeplitz"
    within: ClassVar[tuple[str, ...]] = ("toep",)
    linear: ClassVar[bool] = True
    takes_positions: ClassVar[Positions] = "whole numbers"
    foreign: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"glmmTMB": "homtoep", "mmrm": "toep", "SAS": "TOEP", "SPSS": "TP", "Stata": "toeplitz"}
    )

    @classmethod
    def correlation_of(cls, size: int, positions: FloatArray | None, **options: Any) -> Correlation:
        return _toeplitz(cls, size, positions, options)

    def natural_place(self, kind: str, columns: tuple[int, ...]) -> int:
        if kind != "cor":
            return super().natural_place(kind, columns)
        first, second = self.correlation.places[list(columns)]
        return self.n_sd + int(abs(second - first)) - 1


@register
class Arma11(Homogeneous):
    """An autoregressive and a moving-average parameter of first order, and one standard deviation.

    Examples
    --------
    >>> arma = Arma11.build(4)
    >>> arma.covariance(arma.theta_of_natural(np.array([1.0, 0.5, 0.4])))[0].round(4)
    array([1.    , 0.6923, 0.3462, 0.1731])
    """

    name: ClassVar[str] = "arma11"
    title: ClassVar[str] = "ARMA(1, 1)"
    within: ClassVar[tuple[str, ...]] = ("homtoep",)
    separable: ClassVar[bool] = True
    takes_positions: ClassVar[Positions] = "whole numbers"
    foreign: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"nlme": "corARMA(p = 1, q = 1)", "SAS": "ARMA(1,1)", "SPSS": "ARMA11"}
    )

    @classmethod
    def correlation_of(cls, size: int, positions: FloatArray | None, **options: Any) -> Correlation:
        cls.refuse_options(options)
        places = whole_numbers(positions, size, "arma11()")
        return MovingAverage(size, places) if size > 1 else Independent(size, places)
