"""Coordinates of the covariances in which one parameter has a given value: what a profile moves in.

A standard deviation is held at s, a correlation at sin(s), in which the likelihood is smooth at the ends of its range,
and any other parameter at s. Everything else stays free, in coordinates x.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lme4py.covariance.jets import Jet
from lme4py.linalg.types import FloatArray, IntArray

if TYPE_CHECKING:
    from lme4py.covariance.structure import CovarianceStructure

__all__ = ["Holding", "NaturalHeld", "PairHeld", "RootHeld"]

# A standard deviation that enters by its root has no slope at zero.
_LEAST = 1e-8
# A range or smoothness of this part of a usual one is none.
_SHORTEST = 1e-6


@dataclass(frozen=True, eq=False)
class Holding(ABC):
    """theta as a function of free coordinates x and the held value s.

    Attributes
    ----------
    structure : CovarianceStructure
        In the user's columns, taken in this `order`.
    order : ndarray of int, shape (k,)
    """

    structure: CovarianceStructure
    order: IntArray

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
