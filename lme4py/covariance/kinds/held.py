"""A covariance structure with some of its parameters at given values, which are no parameters then.

The other theta stay what they are, so that every derivative is a part of that of the whole structure. A standard
deviation that is held is so in the user's columns: in other columns Z S it is another number (`in_columns`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from lme4py.covariance.holding import Holding, SurfaceHeld
from lme4py.covariance.jets import Jet
from lme4py.covariance.natural import NaturalParameter
from lme4py.covariance.structure import ColumnChanges, CovarianceStructure
from lme4py.errors import OptionError
from lme4py.frozen import computed_once
from lme4py.linalg.types import FloatArray, IntArray

__all__ = ["HeldStructure", "hold_natural", "hold_theta"]


def hold_natural(structure: CovarianceStructure, values: Mapping[int, float]) -> CovarianceStructure:
    """A structure with natural parameters at given values.

    Parameters
    ----------
    structure : CovarianceStructure
    values : mapping of int to float
        Place among `natural_parameters` -> value; of standard deviations in the units of theta.

    Raises
    ------
    OptionError
        A value out of its range, values that are no covariance matrix, or parameters that cannot be held alone.

    Examples
    --------
    >>> from lme4py.covariance import make_structure
    >>> held = hold_natural(make_structure("us", 2), {0: 2.0, 2: 0.5})
    >>> held.n_theta, held.covariance(np.array([np.sqrt(3.0)])).round(10).tolist()
    (1, [[4.0, 3.0], [3.0, 9.0]])
    """
    known = structure.natural_parameters
    for place, value in values.items():
        known[place].check(value, f"{structure.word}()")
    whole = structure.apart(frozenset(values))
    return _held(structure, whole, whole.holding(values))


def hold_theta(structure: CovarianceStructure, values: Mapping[int, float]) -> CovarianceStructure:
    """A structure with some theta at given values.

    Parameters
    ----------
    structure : CovarianceStructure
    values : mapping of int to float
        Place in theta -> value.
    """
    return _held(structure, structure, values)


def _held(kind: CovarianceStructure, whole: CovarianceStructure, values: Mapping[int, float]) -> CovarianceStructure:
    if not values:
        return kind
    held = _HeldTogether if whole.shares_variance else HeldStructure
    at = tuple(sorted((int(place), float(value)) for place, value in values.items()))
    return held(whole.size, whole.positions, kind=kind, whole=whole, at=at)


@dataclass(frozen=True, eq=False, repr=False)
class HeldStructure(CovarianceStructure):
    """`whole` with the theta `at` given values.

    Attributes
    ----------
    kind : CovarianceStructure
        As the user wrote it: the same covariances as those of `whole`.
    whole : CovarianceStructure
    at : tuple of (int, float)
        Place in theta and value.
    outside : HeldStructure or None
        The structure in the user's columns, where this one is that of others.
    """

    kind: CovarianceStructure = field(kw_only=True)
    whole: CovarianceStructure = field(kw_only=True)
    at: tuple[tuple[int, float], ...] = field(kw_only=True)
    outside: HeldStructure | None = field(default=None, kw_only=True)

    name: ClassVar[str] = "held"
    title: ClassVar[str] = "Held"
    sides: ClassVar[tuple[str, ...]] = ("random",)
    column_changes: ClassVar[ColumnChanges] = "diagonal"

    # --- identity ---------------------------------------------------------------------------------------------------

    @property
    def word(self) -> str:
        return self.kind.word

    @property
    def heading(self) -> str:
        return self.kind.heading

    def key(self) -> tuple[Any, ...]:
        return (*super().key(), self.kind.key(), self.whole.key(), self.at)

    def __repr__(self) -> str:
        return f"<{self.kind!r} with {len(self.at)} of {self.whole.n_theta} parameters held>"

    @computed_once
    def free(self) -> IntArray:
        """Places of the theta that are free, (m,)."""
        return np.setdiff1d(np.arange(self.whole.n_theta), [place for place, _ in self.at])

    def full(self, theta: FloatArray) -> FloatArray:
        """theta of the whole structure."""
        out = np.empty(self.whole.n_theta)
        out[[place for place, _ in self.at]] = [value for _, value in self.at]
        out[self.free] = theta
        return out

    def _some(self, jet: Jet) -> Jet:
        """Derivatives in the free theta alone."""
        first = jet.first[self.free] if len(jet.first) else jet.first
        second = jet.second[np.ix_(self.free, self.free)] if len(jet.second) else jet.second
        return Jet(jet.value, first, second)

    @computed_once
    def theta_names(self) -> tuple[str, ...]:
        return tuple(self.whole.theta_names[i] for i in self.free)

    @property
    def has_correlations(self) -> bool:
        return self.kind.has_correlations

    def at_places(self, positions: FloatArray) -> CovarianceStructure:
        kind, whole = self.kind.at_places(positions), self.whole.at_places(positions)
        return replace(self, size=whole.size, positions=positions, kind=kind, whole=whole)

    def subset(self, columns: IntArray) -> CovarianceStructure:
        own = self.kind.subset(columns)
        number = {int(column): j for j, column in enumerate(columns)}
        held = {
            (p.kind, p.label, tuple(number[j] for j in p.columns)): value
            for p, value in zip(self.natural_parameters, self.natural(self.generic()), strict=True)
            if p.held and set(p.columns) <= set(number)
        }
        places = {(p.kind, p.label, p.columns): i for i, p in enumerate(own.natural_parameters)}
        return hold_natural(own, {places[key]: float(value) for key, value in held.items() if key in places})

    # --- T and Sigma ------------------------------------------------------------------------------------------------

    def factor(self, theta: FloatArray) -> FloatArray:
        return self.whole.factor(self.full(theta))

    def tangents(self, theta: FloatArray) -> FloatArray:
        return self.whole.tangents(self.full(theta))[self.free]

    def second_tangents(self, theta: FloatArray) -> FloatArray:
        return self.whole.second_tangents(self.full(theta))[np.ix_(self.free, self.free)]

    def pullback(self, theta: FloatArray, D: FloatArray) -> FloatArray:
        return self.whole.pullback(self.full(theta), D)[self.free]

    def second(self, theta: FloatArray, D: FloatArray) -> FloatArray:
        return self.whole.second(self.full(theta), D)[np.ix_(self.free, self.free)]

    def covariance_derivatives(self, theta: FloatArray, points: FloatArray | None = None, order: int = 2) -> Jet:
        return self._some(self.whole.covariance_derivatives(self.full(theta), points, order))

    def covariance_pullback(self, theta: FloatArray, G: FloatArray) -> FloatArray:
        return self.whole.covariance_pullback(self.full(theta), G)[self.free]

    def curvature(self, theta: FloatArray, G: FloatArray) -> FloatArray:
        return self.whole.curvature(self.full(theta), G)[np.ix_(self.free, self.free)]

    # --- theta from elsewhere ---------------------------------------------------------------------------------------

    def initial(self) -> FloatArray:
        return self.whole.initial()[self.free]

    def theta_of_factor(self, M: FloatArray) -> FloatArray:
        return self.whole.theta_of_factor(M)[self.free]

    def scaled(self, theta: FloatArray, size: float) -> FloatArray:
        """theta with what is free of the scale of the effects multiplied."""
        return self.whole.scaled(self.full(theta), size)[self.free]

    def axes(self) -> FloatArray:
        return self.whole.axes()[:, self.free]

    def at_random(self, sizes: FloatArray, beside: FloatArray) -> FloatArray:
        return np.where(self.even, sizes, self.initial() + beside)

    def canonical(self, theta: FloatArray) -> FloatArray:
        full = self.full(theta)
        canonical = self.whole.canonical(full)
        held = [place for place, _ in self.at]
        # Signs that what is held has a part in stay.
        return canonical[self.free] if np.array_equal(canonical[held], full[held]) else theta

    def moment_basis(self) -> FloatArray:
        return self.whole.moment_basis()

    def span_basis(self) -> FloatArray:
        return self.whole.span_basis()

    # --- edges ------------------------------------------------------------------------------------------------------

    def edges(self, theta: FloatArray) -> FloatArray:
        return self.whole.edges(self.full(theta))[self.free]

    def edge_sizes(self, theta: FloatArray) -> FloatArray:
        return self.whole.edge_sizes(self.full(theta))[self.free]

    def as_start(self, theta: FloatArray, lowest: float, highest: float = np.inf) -> FloatArray:
        return self.whole.as_start(self.full(theta), lowest, highest)[self.free]

    def units(self, theta: FloatArray) -> FloatArray:
        return self.whole.units(self.full(theta))[self.free]

    def boundary(
        self, theta: FloatArray, label: str, columns: Sequence[str], S: FloatArray | None = None, least: float = 1e-4
    ) -> tuple[str, ...]:
        """Of what is free; a parameter that is held on the boundary is where the user put it."""
        if not (self.edge_sizes(theta) < least).any():
            return ()
        return self.whole.boundary(self.full(theta), label, columns, S, least)

    def limits(self, theta: FloatArray, label: str) -> tuple[str, ...]:
        return self.whole.limits(self.full(theta), label) if theta.size else ()

    # --- changes of columns -----------------------------------------------------------------------------------------

    def in_columns(self, S: FloatArray) -> CovarianceStructure:
        """With what is held as it is in the columns Z S."""
        return replace(self, at=self._at(S), outside=self if self.outside is None else self.outside)

    def in_units(self, size: float) -> CovarianceStructure:
        return self.in_columns(size * np.eye(self.size))

    @property
    def user(self) -> CovarianceStructure:
        return self if self.outside is None else self.outside

    def _inside(self, theta: FloatArray, S: FloatArray) -> FloatArray:
        """theta of the whole structure in the columns Z S from the free ones there."""
        return replace(self, at=self._at(S)).full(theta)

    def _at(self, S: FloatArray) -> tuple[tuple[int, float], ...]:
        """What is held, in the columns Z S."""
        own = self.whole.to_engine(self.full(self.generic()), S)
        return tuple((place, float(own[place])) for place, _ in self.at)

    def to_user(self, theta: FloatArray, S: FloatArray) -> FloatArray:
        return self.whole.to_user(self._inside(theta, S), S)[self.free]

    def to_engine(self, theta: FloatArray, S: FloatArray) -> FloatArray:
        return self.whole.to_engine(self.full(theta), S)[self.free]

    def to_user_jacobian(self, theta: FloatArray, S: FloatArray) -> FloatArray:
        return self.whole.to_user_jacobian(self._inside(theta, S), S)[np.ix_(self.free, self.free)]

    # --- natural parameters -----------------------------------------------------------------------------------------

    @computed_once
    def natural_parameters(self) -> tuple[NaturalParameter, ...]:
        """All of them; those that no free theta moves are `held`."""
        slopes = self.whole.natural_jacobian(self.full(self.generic()))[:, self.free]
        moved = np.abs(slopes).max(axis=1, initial=0.0) > 0.0
        return tuple(replace(p, held=not m) for p, m in zip(self.whole.natural_parameters, moved.tolist(), strict=True))

    def natural_derivatives(self, theta: FloatArray, order: int = 2) -> Jet:
        return self._some(self.whole.natural_derivatives(self.full(theta), order))

    def theta_of_natural(self, values: FloatArray) -> FloatArray:
        return self.whole.theta_of_natural(values)[self.free]

    def hold(self, place: int) -> Holding:
        if self.natural_parameters[place].held:
            raise OptionError(
                f"{self.natural_parameters[place].label} of {self.word}() is held at a value: no profile."
            )
        inner = self.whole.hold(place)
        if isinstance(inner, SurfaceHeld):
            inner = replace(inner, fixed=tuple(place for place, _ in self.at))
        if (np.diff(inner.order) < 0).any():
            self.refuse(f"a profile of {self.natural_parameters[place].label} beside parameters that are held")
        return _Beside(self, inner.order, inner)

    @computed_once
    def adjusting(self) -> tuple[int, ...]:
        free = tuple(i for i, parameter in enumerate(self.natural_parameters) if not parameter.held)
        if len(free) != self.n_theta:
            self.refuse("Kenward and Roger's adjustment beside theta that are held")
        return free

    @property
    def shown_as_matrix(self) -> bool:
        return self.kind.shown_as_matrix

    def nested_in(self, other: CovarianceStructure) -> bool:
        if not isinstance(other, HeldStructure):
            return self.kind.nested_in(other)
        return self == other or (self.whole.key() == other.whole.key() and set(other.at) <= set(self.at))

    def holds(self, inner: CovarianceStructure) -> bool:
        return False

    def takes(self, inner: CovarianceStructure) -> bool:
        return False


class _HeldTogether(HeldStructure):
    """Of a structure whose columns share a variance."""

    column_changes: ClassVar[ColumnChanges] = "common"


@dataclass(frozen=True, eq=False)
class _Beside(Holding):
    """One more parameter that is held: coordinates of the whole structure, less those of what is held already.

    Attributes
    ----------
    inner : Holding
        Of the whole structure.
    """

    inner: Holding

    @property
    def _own(self) -> HeldStructure:
        structure = self.structure
        if not isinstance(structure, HeldStructure):
            raise TypeError("the structure has no parameters that are held")
        return structure

    @property
    def size(self) -> int:
        return self.structure.n_theta - 1

    def about(self, theta: FloatArray) -> Holding:
        return replace(self, inner=self.inner.about(self._own.full(theta)))

    def value(self, theta: FloatArray) -> float:
        return self.inner.value(self._own.full(theta))

    @property
    def _coordinates(self) -> IntArray:
        """Coordinates of the whole structure that are free: those that move free theta and no others."""
        start = self.inner.start(self._own.full(self._own.generic()))
        moved = self.inner.theta(start, self.value(self._own.generic())).first[:-1] != 0.0
        return np.flatnonzero(moved[:, self._own.free].any(axis=1) & ~np.delete(moved, self._own.free, 1).any(axis=1))

    def start(self, theta: FloatArray) -> FloatArray:
        return self.inner.start(self._own.full(theta))[self._coordinates]

    def theta(self, x: FloatArray, s: float) -> Jet:
        free = self._coordinates
        whole = self.inner.start(self._own.full(self._own.initial()))
        whole[free] = x
        jet = self.inner.theta(whole, s)
        kept = [*free, len(whole)]
        some = self._own.free
        return Jet(jet.value[some], jet.first[np.ix_(kept, some)], jet.second[np.ix_(kept, kept, some)])
