"""Compound symmetry: the same correlation between any two columns, with one variance or one for each.

R = I + rho (J - I) has two eigenvalues, 1 + (k - 1) rho of the mean of all effects and 1 - rho of their differences
from it. With rho = (k sin^2 w - 1) / (k - 1) their roots are sqrt(k) sin w and sqrt(k / (k - 1)) cos w: analytic in w,
with both ends of the range, -1 / (k - 1) at w = 0 and 1 at w = pi / 2, at points about which R is even.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from lme4py.covariance.holding import Holding, PairHeld, RootHeld
from lme4py.covariance.jets import Jet
from lme4py.covariance.kinds.correlation import Correlation, Independent
from lme4py.covariance.kinds.diagonal import Projections
from lme4py.covariance.kinds.scaled import Heterogeneous, Homogeneous
from lme4py.covariance.natural import NaturalParameter
from lme4py.covariance.registry import register
from lme4py.covariance.structure import CovarianceStructure
from lme4py.frozen import computed_once
from lme4py.linalg.types import FloatArray

__all__ = ["CompoundSymmetry", "Equal", "HomogeneousCompoundSymmetry", "Tied", "mean_and_contrasts"]


def mean_and_contrasts(k: int) -> FloatArray:
    """An orthogonal matrix whose first column is constant, shape (k, k): Helmert's contrasts.

    Examples
    --------
    >>> mean_and_contrasts(2).round(4)
    array([[ 0.7071,  0.7071],
           [ 0.7071, -0.7071]])
    """
    H = np.zeros((k, k))
    H[:, 0] = 1.0 / np.sqrt(k)
    for j in range(1, k):
        H[:j, j] = 1.0
        H[j, j] = -j
        H[:, j] /= np.sqrt(j * (j + 1.0))
    return H


def _sizes_of_mean_and_rest(M: FloatArray) -> tuple[float, float]:
    """Roots of the two eigenvalues of the compound symmetric matrix nearest to M M'."""
    k = M.shape[0]
    total = M.sum(axis=0)
    rest = M - total / k
    return float(np.sqrt(total @ total / k)), float(np.sqrt(np.vdot(rest, rest) / max(k - 1, 1)))


def _lowest(k: int) -> float:
    return -1.0 / (k - 1.0)


@dataclass(frozen=True, eq=False)
class Equal(Correlation):
    """One correlation for all pairs."""

    @property
    def phi_names(self) -> tuple[str, ...]:
        return ("angle",)

    def initial(self) -> FloatArray:
        return np.array([np.arcsin(np.sqrt(1.0 / self.size))])

    def typical(self) -> FloatArray:
        return self.of_natural(np.array([0.5]))

    def _rho(self, phi: FloatArray) -> tuple[float, float, float]:
        """rho with two derivatives."""
        w, k = float(phi[0]), float(self.size)
        unit = k / (k - 1.0)
        rho = (k * np.sin(w) ** 2 - 1.0) / (k - 1.0)
        return float(rho), float(unit * np.sin(2.0 * w)), float(2.0 * unit * np.cos(2.0 * w))

    def derivatives(self, phi: FloatArray, points: FloatArray | None = None, order: int = 2) -> Jet:
        shape = (self.size, self.size) if points is None else (*points.shape, points.shape[-1])
        one = np.eye(shape[-1])
        rho, first, second = self._rho(phi)
        value = np.broadcast_to(one + rho * (1.0 - one), shape)
        off = np.broadcast_to(1.0 - one, shape)
        return Jet.of(value, first * off[None], (second * off)[None, None], order)

    def _projected(self, mean: float, rest: float) -> FloatArray:
        """mean J / k + rest (I - J / k)."""
        return np.full((self.size, self.size), (mean - rest) / self.size) + rest * np.eye(self.size)

    def root(self, phi: FloatArray) -> FloatArray:
        return self._turned(np.sin(phi[0]), np.cos(phi[0]))

    def _turned(self, sine: float, cosine: float) -> FloatArray:
        k = float(self.size)
        return self._projected(np.sqrt(k) * sine, np.sqrt(k / (k - 1.0)) * cosine)

    def root_tangents(self, phi: FloatArray) -> FloatArray:
        return self._turned(np.cos(phi[0]), -np.sin(phi[0]))[None]

    def root_second_tangents(self, phi: FloatArray) -> FloatArray:
        return -self.root(phi)[None, None]

    def root_pullback(self, phi: FloatArray, D: FloatArray) -> FloatArray:
        return np.array([np.vdot(D, self.root_tangents(phi)[0])])

    def root_second(self, phi: FloatArray, D: FloatArray) -> FloatArray:
        return np.array([[-np.vdot(D, self.root(phi))]])

    def grid(self) -> Iterator[FloatArray]:
        return (np.array([w]) for w in np.linspace(0.0, 0.5 * np.pi, 25))

    def of_rows(self, M: FloatArray) -> FloatArray:
        known = np.einsum("ab,ab->a", M, M) > 0.5
        if known.sum() < 2:
            return self.initial()
        mean, rest = _sizes_of_mean_and_rest(M[known])
        if known.all():
            return np.array([np.arctan2(mean, rest * np.sqrt(self.size - 1.0))])
        rho = (mean**2 - rest**2) / known.sum()
        return self.of_natural(np.array([max(rho, _lowest(self.size))]))

    def canonical(self, phi: FloatArray) -> FloatArray:
        return np.arctan2(np.abs(np.sin(phi)), np.abs(np.cos(phi))) if not 0.0 <= phi[0] <= 0.5 * np.pi else phi

    def edges(self, phi: FloatArray) -> FloatArray:
        return np.asarray(np.round(phi / (0.5 * np.pi)) * 0.5 * np.pi)

    def edge_sizes(self, phi: FloatArray) -> FloatArray:
        k = self.size
        return np.asarray(np.minimum(np.sqrt(k) * np.abs(np.sin(phi)), np.sqrt(k / (k - 1.0)) * np.abs(np.cos(phi))))

    def as_start(self, phi: FloatArray) -> FloatArray:
        # Neither eigenvalue below a tenth of what it is without correlation.
        w = np.sqrt(0.1) * np.array([np.sqrt(1.0 / self.size), np.sqrt((self.size - 1.0) / self.size)])
        return np.clip(self.canonical(phi), np.arcsin(w[0]), np.arccos(w[1]))

    def boundary(self, phi: FloatArray, label: str, columns: Sequence[str], least: float) -> tuple[str, ...]:
        if self.edge_sizes(phi)[0] >= least:
            return ()
        lowest = "-1" if self.size == 2 else f"-1/{self.size - 1}, the lowest possible"
        return (f"the correlation of {label} is {'+1' if self._rho(phi)[0] > 0.0 else lowest}",)

    @property
    def natural_parameters(self) -> tuple[NaturalParameter, ...]:
        return (NaturalParameter("cor", "cor", (), _lowest(self.size), 1.0),)

    def natural(self, phi: FloatArray, order: int) -> Jet:
        rho, first, second = self._rho(phi)
        return Jet.of(np.array([rho]), np.array([[first]]), np.array([[[second]]]), order)

    def of_natural(self, values: FloatArray) -> FloatArray:
        k, rho = float(self.size), values[0]
        return np.array([np.arctan2(np.sqrt(max(1.0 + (k - 1.0) * rho, 0.0)), np.sqrt((k - 1.0) * (1.0 - rho)))])

    def pairs(self) -> FloatArray:
        return 1.0 - np.eye(self.size)


@register
class CompoundSymmetry(Heterogeneous):
    """One correlation for all pairs, a standard deviation for each column.

    Examples
    --------
    >>> cs = CompoundSymmetry.build(3)
    >>> theta = cs.theta_of_natural(np.array([1.0, 2.0, 3.0, 0.5]))
    >>> cs.covariance(theta).round(10)
    array([[1. , 1. , 1.5],
           [1. , 4. , 3. ],
           [1.5, 3. , 9. ]])
    """

    name: ClassVar[str] = "cs"
    title: ClassVar[str] = "Compound symmetry, heterogeneous"
    within: ClassVar[tuple[str, ...]] = ("toep",)
    separable: ClassVar[bool] = True
    foreign: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"glmmTMB": "cs", "nlme": "corCompSymm + varIdent", "mmrm": "csh", "SAS": "CSH", "SPSS": "CSH"}
    )

    @classmethod
    def correlation_of(cls, size: int, positions: FloatArray | None, **options: Any) -> Correlation:
        cls.refuse_options(options)
        return Equal(size) if size > 1 else Independent(size)


class _TwoEigenvalues(Projections):
    """theta are the roots of the eigenvalues of the mean and of the differences; one for one column."""

    @property
    def theta_names(self) -> tuple[str, ...]:
        return ("root of the mean", "root of the differences")[: self.size]

    @property
    def elements(self) -> tuple[tuple[int, int], ...]:
        return ((0, 0), (1, 0))[: self.size]

    def boundary(
        self, theta: FloatArray, label: str, columns: Sequence[str], S: FloatArray | None = None, least: float = 1e-4
    ) -> tuple[str, ...]:
        gone = np.abs(theta) < least
        if gone.all():
            return self.no_variance(label)
        if not gone.any():
            return ()
        if self.size == 2:
            return (f"the correlation of {columns[0]} and {columns[1]} in {label} is {'-1' if gone[0] else '+1'}",)
        return (f"the covariance matrix of {label} has rank {self.size - 1 if gone[0] else 1}, not {self.size}",)


class Tied(_TwoEigenvalues):
    """homcs in the engine's columns: the mean of all effects, then contrasts, which share a variance; T is diagonal.

    It is no structure of its own (the data would have to come as contrasts), and not in the registry.
    """

    name: ClassVar[str] = "tied"
    title: ClassVar[str] = "Mean and contrasts"
    triangular: ClassVar[bool] = True

    @property
    def user(self) -> CovarianceStructure:
        return HomogeneousCompoundSymmetry(self.size)

    @computed_once
    def projections(self) -> FloatArray:
        one = np.eye(self.size)
        first = np.diag(one[0])
        return np.array([first, one - first])[: self.size]


@register
class HomogeneousCompoundSymmetry(_TwoEigenvalues):
    """One variance and one covariance: exchangeable effects.

    Examples
    --------
    >>> homcs = HomogeneousCompoundSymmetry(3)
    >>> homcs.natural(homcs.theta_of_natural(np.array([2.0, 0.25]))).round(12)
    array([2.  , 0.25])
    """

    name: ClassVar[str] = "homcs"
    title: ClassVar[str] = "Exchangeable"
    aliases: ClassVar[tuple[str, ...]] = ("exchangeable",)
    within: ClassVar[tuple[str, ...]] = ("cs", "homtoep")
    foreign: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            "glmmTMB": "homcs",
            "nlme": "pdCompSymm; corCompSymm",
            "mmrm": "cs",
            "SAS": "CS",
            "SPSS": "CS",
            "Stata": "exchangeable",
        }
    )

    @computed_once
    def projections(self) -> FloatArray:
        k = self.size
        mean = np.full((k, k), 1.0 / k)
        return np.array([mean, np.eye(k) - mean])[:k]

    def theta_of_factor(self, M: FloatArray) -> FloatArray:
        values = np.array(_sizes_of_mean_and_rest(M))[: self.size]
        # These are sums of all rows: what is rounding against the largest is zero.
        values[values < 1e-14 * values.max()] = 0.0
        return values

    @property
    def reference(self) -> int:
        return min(self.size - 1, 1)

    @property
    def inside(self) -> CovarianceStructure:
        return Tied(self.size)

    @property
    def basis(self) -> FloatArray | None:
        return mean_and_contrasts(self.size)

    def to_user(self, theta: FloatArray, S: FloatArray) -> FloatArray:
        # S is an orthogonal matrix times the one scale.
        return theta * float(np.linalg.norm(S[0]))

    def to_engine(self, theta: FloatArray, S: FloatArray) -> FloatArray:
        return theta / float(np.linalg.norm(S[0]))

    def apart(self, places: frozenset[int]) -> CovarianceStructure:
        return self if self.size == 1 else Exchangeable.build(self.size)

    def holding(self, values: Mapping[int, float]) -> dict[int, float]:
        return {0: values[0]}

    def hold(self, place: int) -> Holding:
        order = np.arange(self.size)
        if self.size == 1:
            return RootHeld(self, order, 0)
        return _VarianceHeld(self, order, (0, 1)) if place == 0 else _CorrelationHeld(self, order, (0, 1))

    @property
    def natural_parameters(self) -> tuple[NaturalParameter, ...]:
        sd = NaturalParameter("sd", "sd", (), 0.0, np.inf, relative=True)
        if self.size == 1:
            return (sd,)
        return (sd, NaturalParameter("cor", "cor", (), _lowest(self.size), 1.0))

    def natural_derivatives(self, theta: FloatArray, order: int = 2) -> Jet:
        """sd = sqrt(v), v = (a^2 + (k - 1) b^2) / k, and cor = (a^2 - b^2) / (k v)."""
        k, n = float(self.size), theta.size
        own = np.eye(n)[:, :, None] * np.eye(n)[:, None]
        squares = Jet.of(theta**2 / k, np.diag(2.0 * theta / k), 2.0 / k * own, order)
        variance = squares.weighted(np.array([1.0, k - 1.0])[:n])
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            sd = variance.sqrt().column()
            if n == 1:
                return sd
            return sd.join((squares.weighted(np.array([1.0, -1.0])) * variance.reciprocal()).column())

    def theta_of_natural(self, values: FloatArray) -> FloatArray:
        values = np.asarray(values, dtype=float)
        self.check_natural(values)
        if self.size == 1:
            return values
        sd, rho = values
        return np.asarray(sd * np.sqrt(np.maximum([1.0 + (self.size - 1.0) * rho, 1.0 - rho], 0.0)))


class Exchangeable(Homogeneous):
    """homcs by its standard deviation and its correlation; not in the registry."""

    name: ClassVar[str] = "homcs"
    title: ClassVar[str] = "Exchangeable"
    within: ClassVar[tuple[str, ...]] = ("cs", "homtoep")
    separable: ClassVar[bool] = True

    @classmethod
    def correlation_of(cls, size: int, positions: FloatArray | None, **options: Any) -> Correlation:
        return Equal(size)


class _VarianceHeld(PairHeld):
    """The standard deviation is held: x is the angle of the roots of the two parts of the variance."""

    def _roots(self) -> FloatArray:
        k = float(self.structure.size)
        return np.array([np.sqrt(k), np.sqrt(k / (k - 1.0))])

    def value(self, theta: FloatArray) -> float:
        return float(np.linalg.norm(theta / self._roots()))

    def own(self, theta: FloatArray) -> float:
        return float(np.arctan2(*(theta / self._roots())))

    def two(self, x: float, s: float) -> Jet:
        ahead = self._roots() * np.array([np.sin(x), np.cos(x)])
        turned = self._roots() * np.array([np.cos(x), -np.sin(x)])
        second = np.array([[-s * ahead, turned], [turned, np.zeros(2)]])
        return Jet(s * ahead, np.array([s * turned, ahead]), second)


class _CorrelationHeld(PairHeld):
    """The correlation is held at sin(s): x is the standard deviation."""

    def value(self, theta: FloatArray) -> float:
        k, (mean, rest) = self.structure.size, theta**2
        return float(np.arcsin((mean - rest) / (mean + (k - 1.0) * rest)))

    def own(self, theta: FloatArray) -> float:
        k, (mean, rest) = self.structure.size, theta**2
        return float(np.sqrt((mean + (k - 1.0) * rest) / k))

    def two(self, x: float, s: float) -> Jet:
        k, rho = float(self.structure.size), float(np.sin(s))
        large, small = np.sqrt(max(1.0 + (k - 1.0) * rho, 1e-300)), np.sqrt(max(1.0 - rho, 0.0))
        unit = np.array([large, small])
        # d sqrt(1 - sin s) = -sqrt(1 + sin s) / 2, also where the root is zero.
        moved = np.array([0.5 * (k - 1.0) * np.cos(s) / large, -0.5 * np.sqrt(1.0 + rho)])
        bent = np.array([-(0.5 * (k - 1.0) * rho + moved[0] ** 2) / large, -0.25 * small])
        second = np.array([[np.zeros(2), moved], [moved, x * bent]])
        return Jet(x * unit, np.array([unit, x * moved]), second)
