"""First-order autoregression, with one variance or one for each time, and antedependence.

ar1: correlation rho^|i - j| of whole-numbered times, rho = sin(v), any sign. ad: the correlation of two times is the
product of those between neighbours, each its own (Gabriel 1962, *Ann. Math. Stat.* 33:201).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from lme4py.covariance.chain import OwnSteps, SharedSteps, neighbour_turns
from lme4py.covariance.jets import Jet
from lme4py.covariance.kinds.correlation import Correlation, Independent, turn_sizes
from lme4py.covariance.kinds.lags import Angles, LagCorrelation, end_of, powers, whole_numbers
from lme4py.covariance.kinds.scaled import Heterogeneous, Homogeneous, Scaled
from lme4py.covariance.natural import NaturalParameter
from lme4py.covariance.registry import register
from lme4py.covariance.steps import Steps
from lme4py.covariance.structure import Positions
from lme4py.linalg.types import FloatArray

__all__ = ["Antedependence", "AntedependenceStructure", "Ar1", "Autoregression", "HetAr1"]


def _innovations(angle: float, gaps: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """cos(v) r with r = sqrt(1 + y + ... + y^(g-1)), y = sin(v)^2, so that its square is 1 - y^g; two derivatives."""
    s, c = np.sin(angle), np.cos(angle)
    if (gaps == 1.0).all():
        one = np.ones_like(gaps)
        return c * one, -s * one, -c * one
    y, dy, d2y = s**2, np.sin(2.0 * angle), 2.0 * np.cos(2.0 * angle)
    e = np.arange(gaps.max(initial=1.0))
    terms = [y**e, e * y ** np.maximum(e - 1.0, 0.0), e * (e - 1.0) * y ** np.maximum(e - 2.0, 0.0)]
    q, q1, q2 = (np.cumsum(term)[gaps.astype(np.intp) - 1] for term in terms)
    r = np.sqrt(q)
    r1 = 0.5 * q1 * dy / r
    r2 = 0.5 * (q2 * dy**2 + q1 * d2y) / r - r1**2 / r
    return c * r, c * r1 - s * r, c * r2 - 2.0 * s * r1 - c * r


@dataclass(frozen=True, eq=False)
class Autoregression(LagCorrelation, SharedSteps):
    """rho^|lag| of whole-numbered times; phi is the arc sine of rho."""

    @property
    def phi_names(self) -> tuple[str, ...]:
        return ("angle",)

    def gap_steps(self, phi: FloatArray, gaps: FloatArray) -> Steps:
        s, ds, d2s = powers(float(phi[0]), gaps)
        c, dc, d2c = _innovations(float(phi[0]), gaps)
        return Steps(s, c, ds, dc, d2s, d2c)

    def sequence(self, phi: FloatArray, largest: int, order: int) -> Jet:
        value, first, second = powers(float(phi[0]), np.arange(largest + 1))
        return Jet.of(value, first[None], second[None, None], order)

    def grid(self) -> Iterator[FloatArray]:
        return (np.array([v]) for v in np.linspace(-0.5 * np.pi, 0.5 * np.pi, 25))

    def of_rows(self, M: FloatArray) -> FloatArray:
        sine, cosine = neighbour_turns(M)
        gaps = np.diff(self.places)
        use = np.isfinite(sine) & (gaps == 1.0)
        # The mean of sines and of cosines keeps the digits of a correlation near +-1.
        return np.array([np.arctan2(sine[use].sum(), cosine[use].sum())]) if use.any() else super().of_rows(M)

    def boundary(self, phi: FloatArray, label: str, columns: Sequence[str], least: float) -> tuple[str, ...]:
        if turn_sizes(phi)[0] >= least:
            return ()
        return (f"the correlation of neighbours in {label} is {end_of(phi[0])}",)

    @property
    def natural_parameters(self) -> tuple[NaturalParameter, ...]:
        return (NaturalParameter("cor", "cor", (), -1.0, 1.0),)


@dataclass(frozen=True, eq=False)
class Antedependence(Angles, OwnSteps):
    """Products of the correlations of neighbours, each the sine of its own phi."""

    @property
    def phi_names(self) -> tuple[str, ...]:
        return tuple(f"angle {j + 1},{j + 2}" for j in range(self.size - 1))

    def steps(self, phi: FloatArray) -> Steps:
        s, c = np.sin(phi), np.cos(phi)
        return Steps(s, c, c, -s, -s, -c)

    def grid(self) -> Iterator[FloatArray]:
        angles = np.linspace(-0.5 * np.pi, 0.5 * np.pi, 13)
        turns = (np.ones(self.n_phi), (-1.0) ** np.arange(self.n_phi))
        return (v * signs for v in angles for signs in turns)

    def of_rows(self, M: FloatArray) -> FloatArray:
        known = np.flatnonzero(np.einsum("ab,ab->a", M, M) > 0.5)
        sine, cosine = neighbour_turns(M[known])
        out = np.zeros(self.n_phi)
        for before, after, s, c in zip(known[:-1], known[1:], sine, cosine, strict=True):
            steps = after - before
            # Over columns without variance the correlation is shared out among the steps.
            out[before:after] = np.arctan2(s, c) if steps == 1 else np.arcsin(min(abs(s), 1.0) ** (1.0 / steps))
            out[before] *= 1.0 if steps == 1 else np.sign(s)
        return out

    def boundary(self, phi: FloatArray, label: str, columns: Sequence[str], least: float) -> tuple[str, ...]:
        return tuple(
            f"the correlation of {columns[j]} and {columns[j + 1]} in {label} is {end_of(phi[j])}"
            for j in np.flatnonzero(turn_sizes(phi) < least).tolist()
        )

    @property
    def natural_parameters(self) -> tuple[NaturalParameter, ...]:
        return tuple(NaturalParameter("cor", "cor", (j, j + 1), -1.0, 1.0) for j in range(self.size - 1))


def _serial(kind: type[Scaled], size: int, positions: FloatArray | None, options: Mapping[str, Any]) -> Correlation:
    """Powers of one correlation, or none for one column."""
    kind.refuse_options(options)
    places = whole_numbers(positions, size, f"{kind.name}()")
    return Autoregression(size, places) if size > 1 else Independent(size, places)


@register
class Ar1(Homogeneous):
    """First-order autoregression: sd and correlation of neighbours.

    Examples
    --------
    >>> structure = Ar1.build(3)
    >>> structure.natural(np.array([2.0, np.pi / 6])).round(4)
    array([2. , 0.5])
    """

    name: ClassVar[str] = "ar1"
    title: ClassVar[str] = "First-order autoregressive"
    within: ClassVar[tuple[str, ...]] = ("hetar1", "homtoep", "arma11")
    takes_positions: ClassVar[Positions] = "whole numbers"
    separable: ClassVar[bool] = True
    foreign: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"glmmTMB": "ar1", "nlme": "corAR1", "mmrm": "ar1", "SAS": "AR(1)", "SPSS": "AR1", "Stata": "ar 1"}
    )

    @classmethod
    def correlation_of(cls, size: int, positions: FloatArray | None, **options: Any) -> Correlation:
        return _serial(cls, size, positions, options)


@register
class HetAr1(Heterogeneous):
    """First-order autoregression with a standard deviation for each time."""

    name: ClassVar[str] = "hetar1"
    title: ClassVar[str] = "First-order autoregressive, heterogeneous"
    within: ClassVar[tuple[str, ...]] = ("toep", "ad")
    takes_positions: ClassVar[Positions] = "whole numbers"
    separable: ClassVar[bool] = True
    foreign: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"glmmTMB": "hetar1", "nlme": "corAR1 + varIdent", "mmrm": "ar1h", "SAS": "ARH(1)", "SPSS": "ARH1"}
    )

    @classmethod
    def correlation_of(cls, size: int, positions: FloatArray | None, **options: Any) -> Correlation:
        return _serial(cls, size, positions, options)


@register
class AntedependenceStructure(Heterogeneous):
    """First-order antedependence: a standard deviation for each column, a correlation for each pair of neighbours."""

    name: ClassVar[str] = "ad"
    title: ClassVar[str] = "First-order antedependence"
    within: ClassVar[tuple[str, ...]] = ("us",)
    separable: ClassVar[bool] = True
    foreign: ClassVar[Mapping[str, str]] = MappingProxyType({"mmrm": "adh", "SAS": "ANTE(1)", "SPSS": "AD1"})

    @classmethod
    def correlation_of(cls, size: int, positions: FloatArray | None, **options: Any) -> Correlation:
        cls.refuse_options(options)
        return Antedependence(size) if size > 1 else Independent(size)
