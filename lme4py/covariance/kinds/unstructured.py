"""Unstructured covariances, and those of reduced rank: theta are elements of a lower triangular T, column by column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from lme4py.covariance.charts import Chart, RootChart, moves_of_root
from lme4py.covariance.holding import Holding, PairHeld, RootHeld
from lme4py.covariance.jets import Jet
from lme4py.covariance.kinds.angles import SphericalAngles, order_for
from lme4py.covariance.kinds.correlation import Correlation
from lme4py.covariance.kinds.scaled import Heterogeneous
from lme4py.covariance.natural import NaturalParameter, elements_as_natural
from lme4py.covariance.registry import register
from lme4py.covariance.spaces import TangentCone, symmetric_basis
from lme4py.covariance.structure import AT_EDGE, LEAST_UNIT, ColumnChanges, CovarianceStructure
from lme4py.errors import OptionError
from lme4py.frozen import computed_once
from lme4py.linalg.small import lower_factor, singular_parts, singular_values
from lme4py.linalg.types import BoolArray, FloatArray, IntArray

__all__ = ["Loadings", "ReducedRank", "Unstructured"]

# Diagonal elements of T below this part of its norm are on the boundary, where theta moves on the user's scale.
_BOUNDARY = 1e-6


class Loadings(CovarianceStructure):
    """T lower triangular with `rank` columns that are not zero; any change of columns keeps the structure."""

    column_changes: ClassVar[ColumnChanges] = "any"
    linear_factor: ClassVar[bool] = True
    triangular: ClassVar[bool] = True

    @property
    def rank(self) -> int:
        """Number of columns of T that are not zero."""
        return self.size

    @computed_once
    def rows(self) -> IntArray:
        """Rows of the elements of T that theta are."""
        return np.concatenate([np.arange(j, self.size) for j in range(self.rank)])

    @computed_once
    def columns(self) -> IntArray:
        """Their columns."""
        return np.repeat(np.arange(self.rank), np.arange(self.size, self.size - self.rank, -1))

    @computed_once
    def theta_names(self) -> tuple[str, ...]:
        return tuple(f"T{i + 1}{j + 1}" for i, j in zip(self.rows, self.columns, strict=True))

    @property
    def n_theta(self) -> int:
        return int(self.rows.size)

    # --- T and Sigma ------------------------------------------------------------------------------------------------

    def factor(self, theta: FloatArray) -> FloatArray:
        T = np.zeros((self.size, self.size))
        T[self.rows, self.columns] = theta
        return T

    @computed_once
    def _tangents(self) -> FloatArray:
        out = np.zeros((self.n_theta, self.size, self.size))
        out[np.arange(self.n_theta), self.rows, self.columns] = 1.0
        return out

    def tangents(self, theta: FloatArray) -> FloatArray:
        return self._tangents

    def second_tangents(self, theta: FloatArray) -> FloatArray:
        return np.zeros((self.n_theta, self.n_theta, self.size, self.size))

    def pullback(self, theta: FloatArray, D: FloatArray) -> FloatArray:
        return D[self.rows, self.columns]

    def second(self, theta: FloatArray, D: FloatArray) -> FloatArray:
        return np.zeros((self.n_theta, self.n_theta))

    @computed_once
    def _same_column(self) -> FloatArray:
        return np.asarray(2.0 * (self.columns[:, None] == self.columns))

    def curvature(self, theta: FloatArray, G: FloatArray) -> FloatArray:
        return np.asarray(self._same_column * G[self.rows[:, None], self.rows])

    # --- theta from elsewhere ---------------------------------------------------------------------------------------

    def scaled(self, theta: FloatArray, size: float) -> FloatArray:
        return size * theta

    def uncorrelated(self, theta: FloatArray) -> FloatArray:
        return np.where(self.even, theta, 0.0)

    def at_random(self, sizes: FloatArray, beside: FloatArray) -> FloatArray:
        return np.where(self.even, sizes, beside)

    def axes(self) -> FloatArray:
        return np.eye(self.n_theta)[self.even]

    def canonical(self, theta: FloatArray) -> FloatArray:
        return self.theta_of_factor(self.factor(theta))

    def moment_basis(self) -> FloatArray:
        return symmetric_basis(self.size)

    # --- edges ------------------------------------------------------------------------------------------------------

    @computed_once
    def even(self) -> BoolArray:
        """The diagonal of T: the criterion is even in them where the elements below a zero are zero."""
        return np.asarray(self.rows == self.columns)

    def edges(self, theta: FloatArray) -> FloatArray:
        return np.where(self.even, 0.0, np.nan)

    def edge_sizes(self, theta: FloatArray) -> FloatArray:
        return np.where(self.even, np.abs(theta), np.inf)

    def depth(self, theta: FloatArray) -> float:
        return float(singular_values(self.factor(theta))[self.rank - 1])

    def truncate(self, theta: FloatArray, least: float) -> FloatArray:
        """Singular values of T below `least` become zero."""
        vectors, sizes, right = singular_parts(self.factor(theta))
        if not (sizes[: self.rank] < least).any():
            return theta
        return self.theta_of_factor((vectors * np.where(sizes < least, 0.0, sizes)) @ right)

    def chart(self, theta: FloatArray) -> Chart:
        """The elements of T where its rank is what it can be, or those of a root of a lower rank."""
        T = self.factor(theta)
        vectors, sizes, _ = singular_parts(T)
        rank = int((sizes > AT_EDGE).sum())
        full = rank == self.rank
        R = T[:, :rank] if full else vectors[:, :rank] * sizes[:rank]
        moves = self._tangents[:, :, :rank] if full else moves_of_root(R)
        rows = np.maximum(np.linalg.norm(R, axis=1), LEAST_UNIT)
        used = np.abs(moves).max(axis=2, initial=0.0) > 1e-12
        return RootChart(self, np.where(used, rows, np.inf).min(axis=1), R, moves)

    def as_start(self, theta: FloatArray, lowest: float, highest: float = np.inf) -> FloatArray:
        vectors, sizes, _ = singular_parts(self.factor(theta))
        if lowest <= sizes[self.rank - 1] and sizes[0] <= highest:
            return self.canonical(theta)
        return self.theta_of_factor((vectors * np.clip(sizes, lowest, highest))[:, : self.rank])

    def boundary(
        self, theta: FloatArray, label: str, columns: Sequence[str], S: FloatArray | None = None, least: float = 1e-4
    ) -> tuple[str, ...]:
        T = self.factor(theta)
        lost = self.rank - int((singular_values(T) >= least).sum())
        if not lost:
            return ()
        user = T if S is None else (S @ T) / np.linalg.norm(S, axis=1)[:, None]
        gone = [name for name, sd in zip(columns, np.linalg.norm(user, axis=1), strict=True) if sd < least]
        if lost == self.rank:
            return self.no_variance(label)
        if len(gone) == lost and self.rank == self.size:
            return (f"the variance of {', '.join(gone)} in {label} is zero",)
        if self.size == 2:
            sign = "-1" if float(user[0] @ user[1]) < 0.0 else "+1"
            return (f"the correlation of {columns[0]} and {columns[1]} in {label} is {sign}",)
        return (f"the covariance matrix of {label} has rank {self.rank - lost}, not {self.rank}",)

    # --- changes of columns -----------------------------------------------------------------------------------------

    def to_user_jacobian(self, theta: FloatArray, S: FloatArray) -> FloatArray:
        """Derivative of `to_user`, shape (m, m); rows of parameters that are on the boundary are zero.

        With L = lower(S T) = S T Q, Q orthogonal, a change dT gives dL = X + L K, X = S dT Q, where K is the skew
        matrix that keeps L lower triangular.
        """
        M = S @ self.factor(theta)
        L = lower_factor(M)
        pivots = np.flatnonzero(L.diagonal() > _BOUNDARY * np.linalg.norm(L))
        kept = L[:, pivots]
        Q = np.linalg.lstsq(M, kept, rcond=None)[0]
        inverse = np.linalg.inv(kept[pivots])
        X = S @ self._tangents @ Q
        upper = np.triu(inverse @ X[:, pivots], 1)
        change = np.zeros((self.n_theta, self.size, self.size))
        change[:, :, pivots] = X + kept @ (upper.swapaxes(1, 2) - upper)
        return change[:, self.rows, self.columns].T


@register
class Unstructured(Loadings):
    """Any covariance matrix.

    Examples
    --------
    >>> us = Unstructured(2)
    >>> us.factor(np.array([1.0, 2.0, 3.0]))
    array([[1., 0.],
           [2., 3.]])
    >>> us.natural(np.array([1.0, 2.0, 3.0])).round(4)
    array([1.    , 3.6056, 0.5547])
    """

    name: ClassVar[str] = "us"
    title: ClassVar[str] = "Unstructured"
    aliases: ClassVar[tuple[str, ...]] = ("unstructured", "un")
    linear: ClassVar[bool] = True
    foreign: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            "lme4": "(x | g)",
            "glmmTMB": "us",
            "nlme": "pdSymm; corSymm + varIdent",
            "mmrm": "us",
            "SAS": "UN",
            "SPSS": "UN",
            "Stata": "unstructured",
        }
    )

    @property
    def elements(self) -> tuple[tuple[int, int], ...]:
        pairs = ((i, j) for j in range(self.size) for i in range(j + 1, self.size))
        return (*super().elements, *pairs)

    def initial(self) -> FloatArray:
        return self.even.astype(float)

    def theta_of_factor(self, M: FloatArray) -> FloatArray:
        return lower_factor(M)[self.rows, self.columns]

    def boundary_derivative(self, theta: FloatArray, G: FloatArray) -> float | None:
        """Smallest eigenvalue of G in the directions without variance."""
        N = self._null(theta)
        return float(np.linalg.eigvalsh(N.T @ G @ N)[0]) if N.shape[1] else None

    def _null(self, theta: FloatArray) -> FloatArray:
        """A basis of the directions without variance, (k, r)."""
        vectors, sizes, _ = singular_parts(self.factor(theta))
        return vectors[:, sizes < AT_EDGE]

    def cone(self, theta: FloatArray) -> TangentCone:
        N = self._null(theta)
        r = N.shape[1]
        B = np.hstack([N, np.linalg.svd(N)[0][:, r:]]) if r else np.eye(self.size)
        rows, columns = (index.T for index in np.triu_indices(self.size))
        order = np.lexsort((rows, columns))  # by columns of the upper triangle
        rows, columns = rows[order], columns[order]
        half = B.T[rows, :, None] * B.T[columns, None]
        moves = half + half.swapaxes(1, 2)
        moves[rows == columns] *= 0.5
        return TangentCone((r,) if r else (), moves[columns < r], moves[columns >= r])

    @computed_once
    def natural_parameters(self) -> tuple[NaturalParameter, ...]:
        sd = [NaturalParameter("sd", "sd", (j,), 0.0, np.inf, relative=True) for j in range(self.size)]
        columns, rows = np.triu_indices(self.size, 1)
        pairs = zip(columns.tolist(), rows.tolist(), strict=True)
        return (*sd, *(NaturalParameter("cor", "cor", pair, -1.0, 1.0) for pair in pairs))

    def natural_derivatives(self, theta: FloatArray, order: int = 2) -> Jet:
        return elements_as_natural(self.covariance_derivatives(theta, order=order))

    def hold(self, place: int) -> Holding:
        """In an order of the columns where the held ones come first."""
        columns = self.natural_parameters[place].columns
        order = np.array([*columns, *(j for j in range(self.size) if j not in columns)])
        return RootHeld(self, order, 0) if len(columns) == 1 else _Turned(self, order, (1, self.size))

    def apart(self, places: frozenset[int]) -> CovarianceStructure:
        known = self.natural_parameters
        pairs = frozenset((a, b) for a, b in (known[i].columns for i in places if known[i].kind == "cor"))
        order = order_for(self.size, pairs)
        if order is None:
            raise OptionError(
                "these correlations cannot be held without others: hold those of one column with any others, or all "
                "among some columns."
            )
        return ByAngles(self.size, correlation=SphericalAngles(self.size, None, order))

    def theta_of_natural(self, values: FloatArray) -> FloatArray:
        values = np.asarray(values, dtype=float)
        self.check_natural(values)
        R = np.eye(self.size)
        columns, rows = np.triu_indices(self.size, 1)
        R[rows, columns] = R[columns, rows] = values[self.size :]
        sizes, vectors = np.linalg.eigh(R)
        if sizes[0] < -1e-8:
            raise OptionError(
                f"the correlations {np.round(values[self.size :], 4)} are no correlation matrix: its smallest "
                f"eigenvalue would be {sizes[0]:.3g}."
            )
        return self.theta_of_factor(values[: self.size, None] * vectors * np.sqrt(np.maximum(sizes, 0.0)))


class ByAngles(Heterogeneous):
    """us by its standard deviations and angles of its correlations; not in the registry."""

    name: ClassVar[str] = "us"
    title: ClassVar[str] = "Unstructured"

    @classmethod
    def correlation_of(cls, size: int, positions: FloatArray | None, **options: Any) -> Correlation:
        return SphericalAngles(size, None, tuple(range(size)))

    def hold(self, place: int) -> Holding:
        """Standard deviations, and correlations with the first column in the order of the angles."""
        if place < self.size:
            return super().hold(place)
        theta = self.size + np.flatnonzero(
            self.correlation.natural(self.correlation.typical(), 1).first[:, place - self.size]
        )
        if theta.size > 1:
            self.refuse("a profile of a correlation beside parameters that are held")
        return _AngleHeld(self, np.arange(self.size), int(theta[0]))


class _AngleHeld(RootHeld):
    """The angle of a correlation."""

    def value(self, theta: FloatArray) -> float:
        return float(theta[self.place])


class _Turned(PairHeld):
    """T21 = x sin(s) and T22 = x cos(s) of the first two columns."""

    def value(self, theta: FloatArray) -> float:
        return float(np.arctan2(*theta[list(self.pair)]))

    def own(self, theta: FloatArray) -> float:
        return float(np.hypot(*theta[list(self.pair)]))

    def two(self, x: float, s: float) -> Jet:
        ahead, turned = np.array([np.sin(s), np.cos(s)]), np.array([np.cos(s), -np.sin(s)])
        second = np.array([[np.zeros(2), turned], [turned, -x * ahead]])
        return Jet(x * ahead, np.array([ahead, x * turned]), second)


@register
@dataclass(frozen=True, eq=False, repr=False)
class ReducedRank(Loadings):
    """Sigma = L L' with d columns of loadings L, lower triangular: only Sigma is identified, not a rotation of L.

    Parameters
    ----------
    size, positions
        As in `CovarianceStructure`.
    d : int
        Rank, 1 .. k.
    """

    d: int = 2

    name: ClassVar[str] = "rr"
    title: ClassVar[str] = "Reduced rank"
    within: ClassVar[tuple[str, ...]] = ("us",)
    separable: ClassVar[bool] = True
    options: ClassVar[tuple[str, ...]] = ("d",)
    sides: ClassVar[tuple[str, ...]] = ("random",)
    foreign: ClassVar[Mapping[str, str]] = MappingProxyType({"glmmTMB": "rr", "SAS": "FA0(d)"})

    @classmethod
    def build(cls, size: int, positions: FloatArray | None = None, **options: Any) -> CovarianceStructure:
        cls.refuse_options(options)
        d = options.get("d", 2)
        if isinstance(d, bool) or not isinstance(d, int) or not 1 <= d <= size:
            raise OptionError(f"d of rr() is {d!r}; it must be a whole number between 1 and its {size} columns.")
        return cls(size, None, d)

    def key(self) -> tuple[Any, ...]:
        return (*super().key(), self.d)

    @property
    def option_values(self) -> dict[str, Any]:
        return {"d": self.d}

    def subset(self, columns: IntArray) -> CovarianceStructure:
        return ReducedRank(len(columns), None, min(self.d, len(columns)))

    @property
    def rank(self) -> int:
        return self.d

    def initial(self) -> FloatArray:
        """Ones on the diagonal, and the rows below the triangle along the mean of all factors."""
        return np.where(self.even, 1.0, np.where(self.rows >= self.rank, 1.0 / np.sqrt(self.rank), 0.0))

    def theta_of_factor(self, M: FloatArray) -> FloatArray:
        used = M[:, M.any(axis=0)]
        if used.shape[1] > self.rank:
            vectors, sizes, _ = np.linalg.svd(M, full_matrices=False)
            used = (vectors * sizes)[:, : self.rank]
        L = lower_factor(used)
        # Where leading rows depend on each other, columns of zeros stand between the others.
        filled = np.flatnonzero(L.any(axis=0))[: self.rank]
        out = np.zeros_like(L)
        out[:, : filled.size] = L[:, filled]
        return out[self.rows, self.columns]

    def boundary_derivative(self, theta: FloatArray, G: FloatArray) -> float | None:
        """Smallest eigenvalue of G in the directions without variance, where there is room for one more factor."""
        vectors, sizes, _ = singular_parts(self.factor(theta))
        if sizes[self.rank - 1] >= AT_EDGE:
            return None
        N = vectors[:, sizes < AT_EDGE]
        return float(np.linalg.eigvalsh(N.T @ G @ N)[0])

    def cone(self, theta: FloatArray) -> TangentCone:
        found = self.covariance_tangents(theta)
        if singular_values(self.factor(theta))[self.rank - 1] >= AT_EDGE:
            return TangentCone((), found[:0], found)
        return TangentCone((), found[:0], found, "matrices of a lower rank are no smooth edge of those of reduced rank")

    @property
    def natural_parameters(self) -> tuple[NaturalParameter, ...]:
        places = zip(self.rows.tolist(), self.columns.tolist(), strict=True)
        return tuple(
            NaturalParameter("loading", f"loading {j + 1}", (i,), 0.0 if i == j else -np.inf, np.inf, relative=True)
            for i, j in places
        )

    def larger(self) -> tuple[str, ...]:
        """Also ad for one factor: all correlations are -1 or 1."""
        return (*self.within, *(("ad",) if self.d == 1 else ()))

    def holds(self, inner: CovarianceStructure) -> bool:
        return self.d == self.size

    def takes(self, inner: CovarianceStructure) -> bool:
        return isinstance(inner, ReducedRank) and inner.d <= self.d
