"""Coordinates of the covariances in which one parameter has a given value: what a profile moves in.

A standard deviation is held at s, a correlation at sin(s), in which the likelihood is smooth at the ends of its range,
and any other parameter at s. Everything else stays free, in coordinates x.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from lme4py.covariance.jets import Jet
from lme4py.errors import DesignError
from lme4py.frozen import computed_once
from lme4py.linalg.types import FloatArray, IntArray

if TYPE_CHECKING:
    from lme4py.covariance.structure import CovarianceStructure

__all__ = ["Holding", "NaturalHeld", "PairHeld", "RootHeld", "SurfaceHeld"]

# A standard deviation that enters by its root has no slope at zero.
_LEAST = 1e-8
# A range or smoothness of this part of a usual one is none.
_SHORTEST = 1e-6
# Correlations on a surface are held at this distance from -1 and 1, where all matrices with them are singular.
_SHORT_OF_ONE = 1e-6
# Newton steps to the surface, and how closely it is met.
_ROUNDS, _MET = 60, 1e-13
# Cosine between the normal of a surface and that in the middle of the coordinates, beyond which these are not used.
_TURNED = 0.2
# A slope of a minimum in such coordinates that is none.
_STEEP = 0.05


@dataclass(frozen=True, eq=False)
class Holding(ABC):
    """theta as a function of free coordinates x and the held value s.

    Attributes
    ----------
    structure : CovarianceStructure
        In the user's columns, taken in this `order`.
    order : ndarray of int, shape (k,)
    has_end : bool
        There are theta beyond the coordinates.
    """

    structure: CovarianceStructure
    order: IntArray

    has_end: ClassVar[bool] = False

    def check_slope(self, steepest: float) -> None:
        """Refuse what is no minimum because the coordinates end there.

        Parameters
        ----------
        steepest : float
            The largest derivative in the coordinates.

        Raises
        ------
        DesignError
        """
        if self.has_end and steepest > _STEEP:
            raise DesignError("the minimum is where the coordinates about the estimate end.")

    @property
    @abstractmethod
    def size(self) -> int:
        """Number of free coordinates, d."""

    @abstractmethod
    def value(self, theta: FloatArray) -> float:
        """s at theta."""

    @abstractmethod
    def start(self, theta: FloatArray) -> FloatArray:
        """x at theta, shape (d,)."""

    @abstractmethod
    def theta(self, x: FloatArray, s: float) -> Jet:
        """theta, (m,), with its derivatives in (x, s)."""

    def about(self, theta: FloatArray) -> Holding:
        """Coordinates that are good about theta, shape (m,): where they are good everywhere, these.

        Parameters
        ----------
        theta : ndarray, shape (m,)
        """
        return self

    def _jet(self, size: int) -> tuple[FloatArray, FloatArray, FloatArray]:
        d = self.size + 1
        return np.zeros(size), np.zeros((d, size)), np.zeros((d, d, size))


@dataclass(frozen=True, eq=False)
class RootHeld(Holding):
    """One theta alone is the held parameter, or its root, or its angle; the others are x.

    Attributes
    ----------
    place : int
    """

    place: int

    @property
    def size(self) -> int:
        return self.structure.n_theta - 1

    def value(self, theta: FloatArray) -> float:
        return float(abs(theta[self.place]))

    def start(self, theta: FloatArray) -> FloatArray:
        return np.delete(theta, self.place)

    def _of(self, s: float) -> tuple[float, float, float]:
        """The theta with two derivatives."""
        return s, 1.0, 0.0

    def theta(self, x: FloatArray, s: float) -> Jet:
        m = self.structure.n_theta
        value, first, second = self._jet(m)
        others = np.delete(np.arange(m), self.place)
        value[others], first[np.arange(m - 1), others] = x, 1.0
        value[self.place], first[-1, self.place], second[-1, -1, self.place] = self._of(s)
        return Jet(value, first, second)


@dataclass(frozen=True, eq=False)
class NaturalHeld(RootHeld):
    """A natural parameter that is a function of the theta in the same place.

    Attributes
    ----------
    angle : bool
        It is a correlation, sin(s).
    """

    angle: bool

    def value(self, theta: FloatArray) -> float:
        natural = float(self.structure.natural(theta)[self.place])
        return float(np.arcsin(natural)) if self.angle else natural

    def _of(self, s: float) -> tuple[float, float, float]:
        structure = self.structure
        values = structure.natural(structure.initial())
        parameter = structure.natural_parameters[self.place]
        wanted = float(np.sin(s)) if self.angle else s
        if parameter.kind in ("range", "smoothness"):
            # At zero theta is infinite, and nothing changes on the way there.
            wanted = max(wanted, _SHORTEST * float(values[self.place]))
        values[self.place] = min(max(wanted, parameter.lower), parameter.upper)
        theta = structure.theta_of_natural(values)
        jet = structure.natural_derivatives(theta)
        slope, curve = float(jet.first[self.place, self.place]), float(jet.second[self.place, self.place, self.place])
        inner, bend = (float(np.cos(s)), -float(np.sin(s))) if self.angle else (1.0, 0.0)
        if abs(slope) < _LEAST:
            # At an end of the range both move in proportion, or theta moves alone.
            return float(theta[self.place]), _end_slope(curve, bend, inner), 0.0
        first = inner / slope
        return float(theta[self.place]), first, (bend - curve * first**2) / slope


def _end_slope(curve: float, bend: float, inner: float) -> float:
    """d theta / ds where neither the parameter nor s moves to first order: the root of the ratio of the curvatures."""
    if abs(inner) < _LEAST and curve * bend > 0.0:
        return float(np.sqrt(bend / curve))
    return 1.0 / _LEAST


@dataclass(frozen=True, eq=False)
class PairHeld(Holding):
    """Two theta are made of one coordinate and s; the others are x too.

    Attributes
    ----------
    pair : tuple of int
        The coordinate takes the place of the first one.
    """

    pair: tuple[int, int]

    @property
    def size(self) -> int:
        return self.structure.n_theta - 1

    @abstractmethod
    def own(self, theta: FloatArray) -> float:
        """The coordinate at theta."""

    @abstractmethod
    def two(self, x: float, s: float) -> Jet:
        """Both theta with derivatives in (x, s)."""

    def start(self, theta: FloatArray) -> FloatArray:
        out = theta.copy()
        out[self.pair[0]] = self.own(theta)
        return np.delete(out, self.pair[1])

    def theta(self, x: FloatArray, s: float) -> Jet:
        m, pair = self.structure.n_theta, list(self.pair)
        value, first, second = self._jet(m)
        others = np.delete(np.arange(m), pair[1])
        value[others], first[np.arange(m - 1), others] = x, 1.0
        coordinate = int(np.flatnonzero(others == pair[0])[0])
        own = self.two(float(x[coordinate]), s)
        moves = [coordinate, m - 1]
        value[pair] = own.value
        first[np.ix_(moves, pair)] = own.first
        second[np.ix_(moves, moves, pair)] = own.second
        return Jet(value, first, second)


@dataclass(frozen=True, eq=False)
class SurfaceHeld(Holding):
    """A natural parameter that is a function of several theta: they move on the surface where it has its value.

    About a point, theta = point + N y + g n with n the unit normal of the surface there, N an orthogonal basis beside
    it, and g(y, s) the solution of natural(theta) = s or sin(s). Theta that are angles go through the end of the range
    of a partial correlation as through any other point, so that the surface has no edge there.

    Attributes
    ----------
    place : int
        Of the natural parameter.
    angle : bool
        It is a correlation, sin(s).
    middle : ndarray, shape (m,), or None
        The point; None for one without a meaning.
    fixed : tuple of int
        theta that are coordinates by themselves, and do not move with the held value.
    """

    place: int
    angle: bool
    middle: FloatArray | None = None
    fixed: tuple[int, ...] = ()

    has_end: ClassVar[bool] = True

    @property
    def size(self) -> int:
        return self.structure.n_theta - 1

    def about(self, theta: FloatArray) -> Holding:
        return replace(self, middle=theta)

    @computed_once
    def _point(self) -> FloatArray:
        """The middle, off edges, where the parameter does not move to first order."""
        structure = self.structure
        middle = structure.generic() if self.middle is None else self.middle
        slope = np.delete(structure.natural_derivatives(middle, 1).first[:, self.place], self.fixed)
        return middle if np.linalg.norm(slope) > 0.05 else structure.as_start(middle, 0.0)

    @computed_once
    def _frame(self) -> tuple[FloatArray, FloatArray]:
        """n (m,) and N (m, m - 1)."""
        slope = self.structure.natural_derivatives(self._point, 1).first[:, self.place].copy()
        slope[list(self.fixed)] = 0.0
        own = np.flatnonzero(slope)
        n = np.zeros(slope.size)
        n[own] = slope[own] / np.linalg.norm(slope[own])
        N = np.delete(np.eye(slope.size), own[-1], axis=1)
        # The others that the parameter depends on: an orthogonal basis beside n.
        beside = np.linalg.svd(n[own][None])[2][1:].T
        N[np.ix_(own, own[:-1])] = beside
        return n, N

    def value(self, theta: FloatArray) -> float:
        natural = float(self.structure.natural(theta)[self.place])
        return float(np.arcsin(natural)) if self.angle else natural

    def start(self, theta: FloatArray) -> FloatArray:
        return np.asarray(self._frame[1].T @ (theta - self._point))

    def _wanted(self, s: float) -> tuple[float, float, float]:
        """The value of the parameter with two derivatives in s."""
        if not self.angle:
            return s, 1.0, 0.0
        s = float(np.clip(s, -0.5 * np.pi, 0.5 * np.pi))
        value, most = float(np.sin(s)), 1.0 - _SHORT_OF_ONE
        value = min(max(value, -most), most)
        return value, float(np.sqrt(1.0 - value**2)), -value

    def _met(self, theta: FloatArray, wanted: float) -> FloatArray:
        """The point along n where the parameter has its value, or the last one where there is none."""
        n = self._frame[0]

        def miss(g: float) -> tuple[float, float]:
            jet = self.structure.natural_derivatives(theta + g * n, 1)
            return float(jet.value[self.place]) - wanted, float(jet.first[:, self.place] @ n)

        g, (off, slope) = 0.0, miss(0.0)
        for _ in range(_ROUNDS):
            if abs(off) <= _MET:
                break
            step = -off / slope if slope != 0.0 else np.inf
            step = float(np.clip(step, -0.5, 0.5))
            for _ in range(_ROUNDS):
                after = miss(g + step)
                if abs(after[0]) < abs(off):
                    break
                step *= 0.5
            else:
                break
            g, (off, slope) = g + step, after
        return theta + g * n

    def theta(self, x: FloatArray, s: float) -> Jet:
        n, N = self._frame
        wanted, rises, bends = self._wanted(s)
        theta = self._met(self._point + N @ x, wanted)
        jet = self.structure.natural_derivatives(theta)
        slope, curve = jet.first[:, self.place], jet.second[:, :, self.place]
        across = float(slope @ n)
        missed = abs(float(jet.value[self.place]) - wanted) > 1e3 * _MET
        if missed or not across > _TURNED * np.linalg.norm(np.delete(slope, self.fixed)):
            nothing = np.full((n.size, n.size, n.size), np.nan)
            return Jet(nothing[0, 0], nothing[0], nothing)
        moves = np.append(-(N.T @ slope), rises) / across
        first = np.append(N, np.zeros((n.size, 1)), axis=1).T + moves[:, None] * n
        second = -(first @ curve @ first.T)
        second[-1, -1] += bends
        return Jet(theta, first, second[:, :, None] * n / across)
