"""Structures of times and points: one standard deviation, and a correlation that falls with the distance."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from lme4py.covariance.chain import increasing
from lme4py.covariance.kinds.correlation import Correlation, Independent
from lme4py.covariance.kinds.decay import (
    ContinuousChain,
    Decay,
    ExponentialDecay,
    GaussianDecay,
    OneApartChain,
    SphericalDecay,
    checked_positions,
    typical_distance,
)
from lme4py.covariance.kinds.scaled import Homogeneous, Scaled
from lme4py.covariance.registry import register
from lme4py.covariance.structure import CovarianceStructure, Positions
from lme4py.errors import DesignError, OptionError
from lme4py.linalg.types import FloatArray

__all__ = [
    "Car1",
    "DistanceStructure",
    "ExponentialStructure",
    "GaussianStructure",
    "OrnsteinUhlenbeck",
    "SphericalStructure",
]


class DistanceStructure(Homogeneous):
    """One standard deviation, and a correlation that falls with the distance.

    Options: ``nugget`` (True or False) and ``unit``, the distance in which ranges are counted inside (by default a
    typical one of the positions).
    """

    separable: ClassVar[bool] = True
    takes_positions: ClassVar[Positions] = "coordinates"
    decay: ClassVar[type[Decay]]
    options: ClassVar[tuple[str, ...]] = ("nugget", "unit")

    @classmethod
    def correlation_of(cls, size: int, positions: FloatArray | None, **options: Any) -> Correlation:
        cls.refuse_options(options)
        what = f"{cls.name}()"
        places = checked_positions(positions, size, what)
        nugget = options.get("nugget", False)
        if not isinstance(nugget, bool):
            raise OptionError(f"nugget of {what} is {nugget!r}; it must be True or False.")
        most, dimensions = cls.decay.most_dimensions, 1 if places.ndim == 1 else places.shape[1]
        if most is not None and dimensions > most:
            raise DesignError(f"{what} takes {most} coordinates at most, not {dimensions}: it is no correlation there.")
        if size == 1:
            return Independent(size, places)
        return cls.decay(size, places, cls._unit(options, places), nugget)

    @classmethod
    def _unit(cls, options: Mapping[str, Any], places: FloatArray) -> float:
        unit = options.get("unit")
        if unit is None:
            return typical_distance(places)
        if not isinstance(unit, int | float) or not 0.0 < unit < np.inf:
            raise OptionError(f"unit of {cls.name}() is {unit!r}; it must be a positive number.")
        return float(unit)

    @property
    def option_values(self) -> dict[str, Any]:
        if not isinstance(self.correlation, Decay):
            return {}
        values = {"nugget": self.correlation.nugget, "unit": self.correlation.unit}
        return {name: value for name, value in values.items() if name in self.options}

    @property
    def _ends_in_independence(self) -> bool:
        """Is no correlation at all one of its covariances, and not only a limit?"""
        return self.decay is SphericalDecay or bool(getattr(self.correlation, "nugget", False))

    def holds(self, inner: CovarianceStructure) -> bool:
        return inner.name == "homdiag" and self._ends_in_independence

    def takes(self, inner: CovarianceStructure) -> bool:
        more = getattr(self.correlation, "nugget", False) or not getattr(_correlation(inner), "nugget", False)
        return super().takes(inner) and more


def _correlation(structure: CovarianceStructure) -> Correlation | None:
    return structure.correlation if isinstance(structure, Scaled) else None


@register
class ExponentialStructure(DistanceStructure):
    """exp(-distance / range).

    Examples
    --------
    >>> exp = ExponentialStructure.build(3, np.array([[0.0, 0.0], [3.0, 4.0], [0.0, 10.0]]))
    >>> exp.covariance(exp.theta_of_natural(np.array([1.0, 5.0])))[0].round(4)
    array([1.    , 0.3679, 0.1353])
    """

    name: ClassVar[str] = "exp"
    title: ClassVar[str] = "Exponential"
    within: ClassVar[tuple[str, ...]] = ("mat", "us")
    decay: ClassVar[type[Decay]] = ExponentialDecay
    foreign: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"glmmTMB": "exp", "nlme": "corExp", "mmrm": "sp_exp", "SAS": "SP(EXP)", "SPSS": "SP_EXPONENTIAL"}
    )

    def larger(self) -> tuple[str, ...]:
        """Also ou, of increasing times without a nugget."""
        in_time = self.places.ndim == 1 and (np.diff(self.places) > 0.0).all()
        return (*self.within, *(("ou",) if in_time and not getattr(self.correlation, "nugget", False) else ()))


@register
class GaussianStructure(DistanceStructure):
    """exp(-(distance / range)^2)."""

    name: ClassVar[str] = "gau"
    title: ClassVar[str] = "Gaussian"
    within: ClassVar[tuple[str, ...]] = ("us",)
    decay: ClassVar[type[Decay]] = GaussianDecay
    foreign: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"glmmTMB": "gau", "nlme": "corGaus", "SAS": "SP(GAU)", "SPSS": "SP_GAUSSIAN"}
    )


@register
class SphericalStructure(DistanceStructure):
    """1 - 1.5 x + .5 x^3 with x = distance / range below 1, and 0 beyond; up to three dimensions."""

    name: ClassVar[str] = "sph"
    title: ClassVar[str] = "Spherical"
    within: ClassVar[tuple[str, ...]] = ("us",)
    decay: ClassVar[type[Decay]] = SphericalDecay
    foreign: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"nlme": "corSpher", "SAS": "SP(SPH)", "SPSS": "SP_SPHERICAL"}
    )


class _InTime(DistanceStructure):
    takes_positions: ClassVar[Positions] = "times"
    decay: ClassVar[type[Decay]] = ContinuousChain
    options: ClassVar[tuple[str, ...]] = ("unit",)

    @classmethod
    def correlation_of(cls, size: int, positions: FloatArray | None, **options: Any) -> Correlation:
        if positions is not None:
            increasing(np.asarray(positions, dtype=float), f"{cls.name}()")
        return super().correlation_of(size, positions, **options)


@register
class OrnsteinUhlenbeck(_InTime):
    """exp(-gap / range) of increasing times, any gaps: a process in continuous time.

    Examples
    --------
    >>> ou = OrnsteinUhlenbeck.build(3, np.array([0.0, 1.0, 3.0]))
    >>> ou.covariance(ou.theta_of_natural(np.array([1.0, 2.0])))[0].round(4)
    array([1.    , 0.6065, 0.2231])
    """

    name: ClassVar[str] = "ou"
    title: ClassVar[str] = "Ornstein-Uhlenbeck"
    within: ClassVar[tuple[str, ...]] = ("exp", "car1", "ad")
    foreign: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"glmmTMB": "ou", "nlme": "corCAR1", "SAS": "SP(POW)", "Stata": "exponential"}
    )

    def larger(self) -> tuple[str, ...]:
        """Also ar1, at times one apart."""
        one_apart = self.positions is not None and np.array_equal(np.diff(self.positions), np.ones(self.size - 1))
        return (*self.within, *(("ar1",) if one_apart else ()))


@register
class Car1(_InTime):
    """phi^gap of increasing times, any gaps: ou with the correlation at times one apart for its range."""

    name: ClassVar[str] = "car1"
    title: ClassVar[str] = "Continuous first-order autoregressive"
    within: ClassVar[tuple[str, ...]] = ("ou",)
    decay: ClassVar[type[Decay]] = OneApartChain
    foreign: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"glmmTMB": "ou", "nlme": "corCAR1", "SAS": "SP(POW)", "Stata": "exponential"}
    )
