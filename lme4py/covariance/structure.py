"""What a covariance structure is: everything that the rest of the package may ask of one.

The covariance of the k effects of a term is sigma^2 Sigma(theta) with Sigma = T T', T = T(theta) of shape (k, k). A
structure knows both as functions of theta, with two derivatives, and what they mean. These rules hold for every one:

* theta may be any real numbers. Ends of the parameter space at which Sigma still exists (a standard deviation of 0, a
  correlation of -1 or 1, an infinite range) lie at finite theta, and Sigma is an even function of theta about them, as
  the criterion then is: an ordinary point for an optimiser, stationary whatever the data say, where the *second*
  derivative is the one-sided derivative that decides. `edges` tells where they are.
* A variance that multiplies a whole row of a correlation matrix enters as sd = theta^2: the criterion is not even in a
  signed standard deviation that has covariances. A variance common to all, or without covariances, has sd = |theta|.
* T need not be triangular, and neither T nor Sigma is linear in theta, unless the class says so.

A new structure is a subclass with `name`, `title`, `theta_names`, `factor`, `tangents`, `second_tangents` and
`initial`; all else has a default that is right for any structure, if by numbers only, or by saying what is not known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import numpy as np

from lme4py.covariance.by_numbers import independent, nearest
from lme4py.covariance.charts import Chart, ThetaChart
from lme4py.covariance.functions import CovarianceFunctions
from lme4py.covariance.holding import Holding, NaturalHeld, SurfaceHeld
from lme4py.covariance.jets import Jet
from lme4py.covariance.natural import Adjusted, NaturalParameter, check_values, in_other_parameters
from lme4py.covariance.spaces import TangentCone, symmetric_basis
from lme4py.errors import OptionError
from lme4py.linalg.small import mapped_root
from lme4py.linalg.types import BoolArray, FloatArray, IntArray

__all__ = ["ColumnChanges", "CovarianceStructure", "Positions"]

ColumnChanges = Literal["any", "diagonal", "common"]
Positions = Literal["nothing", "whole numbers", "times", "coordinates"]
# A theta this close to an edge (on the scale of singular values of T) is on it.
AT_EDGE = 1e-7
# Standard deviations below this do not matter where others are about 1.
LEAST_UNIT = 0.02
# Structures of so few columns are made once, with what they keep; of many columns that would be much memory.
_SMALL = 8


@lru_cache(maxsize=256)
def _shared(kind: type[CovarianceStructure], size: int) -> CovarianceStructure:
    """The one structure of a kind and size, without positions and options."""
    return kind(size)


@dataclass(frozen=True, eq=False, repr=False)
class CovarianceStructure(CovarianceFunctions):
    """The covariance structure of one term.

    Parameters
    ----------
    size : int
        k, the number of columns.
    positions : ndarray, shape (k,) or (k, d), or None
        Where the columns are: whole numbers, times or coordinates, for structures that use them.

    Attributes
    ----------
    name : str
        The word in formulas, and the key of the registry.
    title : str
        For the heading of a table.
    within : tuple of str
        Structures that hold this one as a special case, for the same columns (the larger ones of those follow).
    foreign : mapping
        Program -> what it calls this structure.
    takes_positions : {"nothing", "whole numbers", "times", "coordinates"}
        What the columns stand for. Times and coordinates are what stands left of the bar in a formula.
    options : tuple of str
        Further arguments in a formula.
    sides : tuple of str
        "random" for effects, "residual" for residuals.
    column_changes : {"any", "diagonal", "common"}
        Changes Z S of the columns that keep the structure: any nonsingular S, an own scale for each, or one scale.
    linear_factor : bool
        T is linear in theta.
    linear : bool
        Sigma is linear in its own elements (all unstructured, diagonal, ... matrices are a linear space).
    triangular : bool
        T is lower triangular.
    separable : bool
        Each natural parameter is a function of one theta, the one in the same place.
    """

    size: int
    positions: FloatArray | None = None

    name: ClassVar[str]
    title: ClassVar[str]
    aliases: ClassVar[tuple[str, ...]] = ()
    within: ClassVar[tuple[str, ...]] = ()
    foreign: ClassVar[Mapping[str, str]] = MappingProxyType({})
    takes_positions: ClassVar[Positions] = "nothing"
    options: ClassVar[tuple[str, ...]] = ()
    sides: ClassVar[tuple[str, ...]] = ("random", "residual")
    column_changes: ClassVar[ColumnChanges] = "common"
    linear_factor: ClassVar[bool] = False
    linear: ClassVar[bool] = False
    triangular: ClassVar[bool] = False
    separable: ClassVar[bool] = False

    # --- identity ---------------------------------------------------------------------------------------------------

    @classmethod
    def build(cls, size: int, positions: FloatArray | None = None, **options: Any) -> CovarianceStructure:
        """The structure of `size` columns; the way in for a formula.

        Raises
        ------
        DesignError
            Positions that the structure cannot have.
        OptionError
            Options that it does not know.
        """
        cls.refuse_options(options)
        if cls.takes_positions != "nothing":
            return cls(size, positions)
        return _shared(cls, size) if size <= _SMALL else cls(size)

    @classmethod
    def refuse_options(cls, options: Mapping[str, Any]) -> None:
        """Raise for an option that the structure does not have."""
        for option in options:
            if option not in cls.options:
                has = f"its options are {', '.join(cls.options)}" if cls.options else "it has none"
                raise OptionError(f"{cls.name}() has no option {option!r}; {has}.")

    def key(self) -> tuple[Any, ...]:
        """What makes two structures the same."""
        place = None if self.positions is None else (self.positions.shape, self.positions.tobytes())
        return type(self), self.size, place

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CovarianceStructure) and self.key() == other.key()

    def __hash__(self) -> int:
        return hash(self.key())

    def __repr__(self) -> str:
        return f"<{self.name} of {self.size} column{'s' * (self.size != 1)}>"

    def __getstate__(self) -> dict[str, Any]:
        """Without what is cached."""
        return {field.name: self.__dict__[field.name] for field in fields(self)}

    @property
    def heading(self) -> str:
        """What it is called in tables."""
        return self.title

    @property
    def option_values(self) -> dict[str, Any]:
        """The options that `build` would need for this structure."""
        return {}

    def subset(self, columns: IntArray) -> CovarianceStructure:
        """The same structure of some of the columns, where they are.

        It is a special case of this one, with no variance for the others, unless they share a variance
        (`column_changes` is "common").
        """
        places = None if self.positions is None else self.positions[columns]
        return self.build(len(columns), places, **self.option_values)

    def at_places(self, positions: FloatArray) -> CovarianceStructure:
        """The same process at other positions.

        Parameters
        ----------
        positions : ndarray, shape (l,) or (l, d)

        Raises
        ------
        DesignError
            Positions that the structure cannot have.
        """
        return self.build(len(positions), positions, **self.option_values)

    @property
    def has_correlations(self) -> bool:
        """Are covariances parameters, and not zeros by definition?"""
        return self.size > 1

    @property
    def shares_variance(self) -> bool:
        """Have all columns one variance, so that they come and go together?"""
        return self.column_changes == "common"

    @property
    def elements(self) -> tuple[tuple[int, int], ...]:
        """Places in Sigma of what stands for its variances and, where it is linear, covariances."""
        return ((0, 0),) if self.shares_variance else tuple((j, j) for j in range(self.size))

    @property
    def reference(self) -> int:
        """Place of a theta that sigma can stand for, on the residual side: held at 1 there."""
        return 0

    # --- theta from elsewhere ---------------------------------------------------------------------------------------

    def theta_of_factor(self, M: FloatArray) -> FloatArray:
        """theta of the covariance M M', or of one of this structure that is close to it; M of shape (k, l)."""
        return self.canonical(nearest(self, M))

    def scaled(self, theta: FloatArray, size: float) -> FloatArray:
        """theta of size^2 Sigma."""
        return self.theta_of_factor(size * self.factor(theta))

    def other_starts(self, theta: FloatArray, sizes: Sequence[tuple[float, float]]) -> list[FloatArray]:
        """theta of other correlations, at standard deviations of each size (lowest, highest); none for one minimum."""
        return []

    def in_units(self, size: float) -> CovarianceStructure:
        """The structure of effects that are counted in `size`: itself, where theta takes any unit."""
        return self

    def reference_sd(self, theta: FloatArray, at: FloatArray | None) -> float:
        """The standard deviation of residuals that sigma is: that of the first of the columns, or of the points `at`.

        Parameters
        ----------
        theta : ndarray, shape (m,)
        at : ndarray, shape (..., p) or (..., p, d), or None
        """
        return float(np.sqrt(self.covariance(theta, at).reshape(-1)[0]))

    def uncorrelated(self, theta: FloatArray) -> FloatArray:
        """theta without the covariances that are parameters of their own; itself where there are none."""
        return theta

    def at_random(self, sizes: FloatArray, beside: FloatArray) -> FloatArray:
        """A start at random, from sizes of what has an edge at zero and small numbers for the rest, both (m,)."""
        return self.scaled(self.initial(), float(np.exp(np.mean(np.log(sizes)))))

    def axes(self) -> FloatArray:
        """theta of a unit variance of each effect (or eigenvalue) alone, or of all at once, shape (a, m)."""
        return self.initial()[None]

    def alone(self, column: int) -> FloatArray:
        """theta of a unit variance of one column and none of the others, or of all where these go together."""
        axes = self.axes()
        return axes[column] if len(axes) == self.size else self.initial()

    def canonical(self, theta: FloatArray) -> FloatArray:
        """The theta of the same covariance that stands for all the others: sd not negative, angles in their range."""
        return theta

    def generic(self) -> FloatArray:
        """theta in no special place: off every edge, all correlations different from 0."""
        return self.initial() + 0.1 * np.cos(np.arange(self.n_theta))

    def redundant(self) -> tuple[str, ...]:
        """Names of the last theta that add nothing to those before them: too few columns or distances for them."""
        known = independent(self.covariance_tangents(self.generic()))
        return tuple(name for i, name in enumerate(self.theta_names) if i not in known)

    def directions(self) -> FloatArray:
        """A basis of the directions in which Sigma moves where nothing is special, shape (d, k, k)."""
        if self.linear:
            return self.span_basis()
        moves = self.covariance_tangents(self.generic())
        moves = moves[independent(moves)]
        return np.asarray(moves / np.sqrt(np.einsum("iab,iab->i", moves, moves))[:, None, None])

    def moment_basis(self) -> FloatArray:
        """A few symmetric matrices for a start by the method of moments, shape (b, k, k), variances first.

        A combination of them (made positive definite) is given to `theta_of_factor` by a root of it.
        """
        return self.span_basis()

    def span_basis(self) -> FloatArray:
        """A basis of the smallest linear space that holds all covariances of the structure, shape (b, k, k).

        Raises
        ------
        DesignError
            It has a matrix for each pair of too many columns.
        """
        return symmetric_basis(self.size)

    # --- the edges of the parameter space ---------------------------------------------------------------------------

    def edges(self, theta: FloatArray) -> FloatArray:
        """For each theta the nearest value at which a covariance is on the boundary, shape (m,); NaN for none.

        Sigma is even in a theta about its edge, so that the criterion is stationary there.
        """
        return np.full(theta.size, np.nan)

    def edge_sizes(self, theta: FloatArray) -> FloatArray:
        """How far each theta is from its edge, as a singular value of T for columns of unit size; infinite for none."""
        return np.full(theta.size, np.inf)

    @property
    def even(self) -> BoolArray:
        """Which theta have an edge, shape (m,)."""
        return ~np.isnan(self.edges(self.initial()))

    def depth(self, theta: FloatArray) -> float:
        """How far theta is from the boundary, on the scale of `edge_sizes`; infinite where there is none."""
        return float(self.edge_sizes(theta).min(initial=np.inf))

    def truncate(self, theta: FloatArray, least: float) -> FloatArray:
        """theta with what is less than `least` from the boundary put on it."""
        return np.where(self.edge_sizes(theta) < least, self.edges(theta), theta)

    def as_start(self, theta: FloatArray, lowest: float, highest: float = np.inf) -> FloatArray:
        """theta that a search can start from: off the boundary, and where the criterion is not flat.

        Parameters
        ----------
        theta : ndarray, shape (m,)
            Of `inside`, in columns of unit size.
        lowest, highest : float
            Of standard deviations (singular values of T of an unstructured covariance). Correlations and ranges have
            bounds of their own.
        """
        near = self.edge_sizes(theta) < lowest
        return np.where(near, self.edges(theta) + lowest, theta)

    def units(self, theta: FloatArray) -> FloatArray:
        """Changes of theta of this size matter, shape (m,)."""
        return np.maximum(np.abs(theta), LEAST_UNIT)

    def chart(self, theta: FloatArray) -> Chart:
        """Coordinates of the covariances near theta; what is on the boundary stays there."""
        free = np.flatnonzero(self.edge_sizes(theta) >= AT_EDGE)
        return ThetaChart(self, self.units(theta)[free], theta, free)

    def boundary(
        self, theta: FloatArray, label: str, columns: Sequence[str], S: FloatArray | None = None, least: float = 1e-4
    ) -> tuple[str, ...]:
        """What is on the boundary, in words: ``"the variance of (1 | g) is zero"``; empty inside.

        Parameters
        ----------
        theta : ndarray, shape (m,)
            Of `inside`, in the engine's columns Z S, which have unit size.
        label : str
            Of the term.
        columns : sequence of str
        S : ndarray, shape (k, k), optional
            The identity by default.
        least : float
            What counts as zero.
        """
        rank = int((np.linalg.svd(self.inside.factor(theta), compute_uv=False) >= least).sum())
        if not rank:
            return self.no_variance(label)
        return () if rank == self.size else (f"the covariance matrix of {label} has rank {rank}, not {self.size}",)

    def no_variance(self, label: str) -> tuple[str, ...]:
        """What `boundary` says where nothing varies."""
        return (f"the variance of {label} is zero" if self.size == 1 else f"all variances of {label} are zero",)

    def limits(self, theta: FloatArray, label: str) -> tuple[str, ...]:
        """Parameters that have run to where they no longer matter, in words; empty for none."""
        return ()

    def boundary_derivative(self, theta: FloatArray, G: FloatArray) -> float | None:
        """Smallest one-sided derivative of the criterion at a boundary point; None inside.

        Parameters
        ----------
        theta : ndarray, shape (m,)
        G : ndarray, shape (k, k)
            Derivative of the criterion in Sigma.
        """
        at = self.edge_sizes(theta) < AT_EDGE
        # Sigma is even in these theta: half the curvature is the derivative in the distance squared.
        return float(0.5 * self.curvature(theta, G).diagonal()[at].min()) if at.any() else None

    def cone(self, theta: FloatArray) -> TangentCone:
        """The covariances near theta: what a likelihood ratio against this point is distributed by."""
        found = self.covariance_derivatives(theta)
        at = self.edge_sizes(theta) < AT_EDGE
        free = found.first[~at]
        held = 0.5 * found.second[np.flatnonzero(at), np.flatnonzero(at)]
        names = [p.label for p in self.natural_parameters] if self.separable else self.theta_names
        lost = [n for n, D in zip(np.array(names)[~at], free, strict=True) if not np.abs(D).max() > 0.0]
        words = f"{' and '.join(dict.fromkeys(lost))} {'has' if len(set(lost)) == 1 else 'have'} no meaning there"
        return TangentCone((1,) * int(at.sum()), held, free, words if lost and at.any() else "")

    # --- changes of columns -----------------------------------------------------------------------------------------

    @property
    def inside(self) -> CovarianceStructure:
        """The structure of the engine's columns Z S: this one, unless `basis` turns them."""
        return self

    @property
    def user(self) -> CovarianceStructure:
        """The structure of the user's columns that this is the `inside` of."""
        return self

    @property
    def basis(self) -> FloatArray | None:
        """An orthogonal matrix (k, k) that the engine's columns are turned by, before they are scaled."""
        return None

    def in_columns(self, S: FloatArray) -> CovarianceStructure:
        """The structure of the effects of columns Z S: itself, where theta takes any scale of them.

        Parameters
        ----------
        S : ndarray, shape (k, k)
            One of `column_changes`.
        """
        return self

    def to_user(self, theta: FloatArray, S: FloatArray) -> FloatArray:
        """theta of Sigma = S T T' S' in the user's columns Z, from that of `inside` in the engine's, Z S.

        Parameters
        ----------
        theta : ndarray, shape (m,)
        S : ndarray, shape (k, k)
            One of `column_changes`, after `basis`.
        """
        return self.theta_of_factor(mapped_root(S, self.inside.factor(theta)))

    def to_engine(self, theta: FloatArray, S: FloatArray) -> FloatArray:
        """The inverse of `to_user`."""
        return self.inside.theta_of_factor(np.asarray(np.linalg.solve(S, self.factor(theta))))

    def to_user_jacobian(self, theta: FloatArray, S: FloatArray) -> FloatArray:
        """Derivative of `to_user` in theta, shape (m, m); rows of parameters that are on the boundary are zero."""
        user = self.to_user(theta, S)
        moved = S @ self.inside.covariance_tangents(theta) @ S.T
        own = self.covariance_tangents(user).reshape(user.size, -1)
        size = max(float(np.abs(own).max(initial=0.0)), np.finfo(float).tiny)
        inverse = np.linalg.pinv(own.T / size, rcond=1e-12) / size
        jacobian: FloatArray = inverse @ moved.reshape(theta.size, -1).T
        jacobian[self.edge_sizes(user) < AT_EDGE] = 0.0
        return jacobian

    # --- natural parameters -----------------------------------------------------------------------------------------

    @property
    def natural_parameters(self) -> tuple[NaturalParameter, ...]:
        """What is printed and what intervals are made for."""
        return tuple(NaturalParameter("theta", name, (), -np.inf, np.inf) for name in self.theta_names)

    def natural_derivatives(self, theta: FloatArray, order: int = 2) -> Jet:
        """The natural parameters, (r,), with derivatives in theta; NaN where one has no meaning."""
        m = theta.size
        return Jet.of(theta.copy(), np.eye(m), np.zeros((m, m, m)), order)

    def natural(self, theta: FloatArray) -> FloatArray:
        """Values of the natural parameters, shape (r,)."""
        return self.natural_derivatives(theta, 0).value

    def natural_jacobian(self, theta: FloatArray) -> FloatArray:
        """Their derivatives, shape (r, m)."""
        return self.natural_derivatives(theta, 1).first.T

    def theta_of_natural(self, values: FloatArray) -> FloatArray:
        """theta from all natural parameters.

        Raises
        ------
        OptionError
            A value out of its range, or values that are no covariance matrix.
        """
        self.check_natural(values)
        return np.array(values, dtype=float)

    def natural_place(self, kind: str, columns: tuple[int, ...]) -> int:
        """Which natural parameter of a kind is that of these columns, or of all."""
        known = enumerate(self.natural_parameters)
        return next(i for i, parameter in known if parameter.kind == kind and parameter.columns in (columns, ()))

    def hold(self, place: int) -> Holding:
        """Coordinates in which one natural parameter has a given value.

        Parameters
        ----------
        place : int
            Of `natural_parameters`.
        """
        held = NaturalHeld if self.separable else SurfaceHeld
        return held(self, np.arange(self.size), place, self.natural_parameters[place].kind == "cor")

    def apart(self, places: frozenset[int]) -> CovarianceStructure:
        """The same covariances with other theta: those natural parameters are functions of as many of them.

        Parameters
        ----------
        places : set of int
            Among `natural_parameters`.

        Raises
        ------
        OptionError
            They cannot be held without others.
        """
        return self

    def holding(self, values: Mapping[int, float]) -> dict[int, float]:
        """The theta that natural parameters are functions of, where these have given values.

        Parameters
        ----------
        values : mapping of int to float
            Place among `natural_parameters` -> value.

        Returns
        -------
        dict of int to float
            Place in theta -> value.
        """
        if not self.separable:
            self.refuse("holding parameters at given values")
        natural = self.natural(self.initial())
        natural[list(values)] = list(values.values())
        theta = self.theta_of_natural(natural)
        return {place: float(theta[place]) for place in values}

    def check_natural(self, values: FloatArray) -> None:
        """Raise for a natural parameter out of its range, by name."""
        check_values(self.natural_parameters, values, f"{self.name}()")

    @property
    def adjusting(self) -> tuple[int, ...]:
        """Places of the natural parameters that the adjustment is made in, as many as there are theta."""
        return tuple(range(len(self.natural_parameters)))

    @property
    def shown_as_matrix(self) -> bool:
        """Whether tables show a standard deviation of each column and all correlations."""
        return self.linear

    def kenward_roger(self, theta: FloatArray) -> Adjusted:
        """Sigma with its derivatives in the parameters that Kenward and Roger's adjustment is made in.

        These are the elements of Sigma for a linear structure, with no second derivatives; otherwise variances, and the
        other natural parameters as they are.
        """
        if self.linear:
            basis = self.span_basis()
            value = self.covariance(theta)
            # Along the scale all elements grow in proportion.
            along = np.einsum("iab,ab->i", basis, value) / np.einsum("iab,iab->i", basis, basis)
            return Adjusted(Jet(value, basis, np.zeros((len(basis), *basis.shape))), along)
        places = self.adjusting
        known = [self.natural_parameters[i] for i in places]
        psi = self.natural_derivatives(theta)[np.asarray(places, dtype=np.intp)]
        square = psi * psi
        is_sd = np.array([parameter.kind == "sd" for parameter in known], dtype=bool)
        parts = zip((square.first, square.second), (psi.first, psi.second), strict=True)
        J, H = (np.where(is_sd, of_square, plain) for of_square, plain in parts)
        sigma = in_other_parameters(self.covariance_derivatives(theta), J.T, np.moveaxis(H, -1, 0))
        # Variances grow with the scale, other lengths with its root.
        grows = np.array([0.5 * parameter.relative for parameter in known])
        return Adjusted(sigma, np.where(is_sd, square.value, grows * psi.value))

    # --- other structures -------------------------------------------------------------------------------------------

    def nested_in(self, other: CovarianceStructure) -> bool:
        """Is every covariance of this structure one of `other`?

        False also where it is one only in a limit, such as an infinite smoothness.
        """
        from lme4py.covariance.registry import nested

        return nested(self, other)

    def larger(self) -> tuple[str, ...]:
        """Names of structures that hold this one for its positions."""
        return self.within

    def holds(self, inner: CovarianceStructure) -> bool:
        """Does this structure hold `inner` for a reason of its own, beside what `within` says?"""
        return False

    def takes(self, inner: CovarianceStructure) -> bool:
        """Where a structure of the kind of `inner` can be one of this kind: also with its positions and options?"""
        if self.positions is None or inner.positions is None:
            return True
        return bool(np.array_equal(self.positions, inner.positions))
