"""Levels that follow each other in time: a Markov chain for each group, whose correlations depend on one parameter.

The correlation R of the effects of all groups is block diagonal, and R^-1 tridiagonal: with a step of correlation s
and innovation c = sqrt(1 - s^2) into each level that is not the first of its group, R^-1 = B'C^-2 B, where B is the
identity less s below its diagonal. Products with R, its roots and its inverse cost O(m) for m levels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lme4py.covariance.chain import SharedSteps
from lme4py.covariance.relations.relation import Relation
from lme4py.covariance.steps import Steps
from lme4py.frozen import computed_once
from lme4py.linalg.tridiagonal import bidiagonal_solve, tridiagonal_product
from lme4py.linalg.types import BoolArray, FloatArray, IntArray

__all__ = ["ChainLayout", "ChainRelation"]


@dataclass(frozen=True, eq=False)
class ChainLayout:
    """Which levels there are: pairs of a group and a time that occur, by group, then time.

    Attributes
    ----------
    groups : ndarray of int, shape (m,)
        Group of each level, in increasing order.
    columns : ndarray of int, shape (m,)
        Number of its time among the columns of the term, increasing within a group.
    gaps : ndarray, shape (m - 1,)
        Time since the level before; 1 where that is one of another group.
    linked : ndarray of bool, shape (m - 1,)
        Whether a level and the one before it belong to one group.
    n_groups, n_columns : int
        J and k of the term.
    """

    groups: IntArray
    columns: IntArray
    gaps: FloatArray
    linked: BoolArray
    n_groups: int
    n_columns: int

    @classmethod
    def of(cls, groups: IntArray, columns: IntArray, places: FloatArray, n_groups: int) -> ChainLayout:
        """The layout of levels in their order.

        Parameters
        ----------
        groups, columns : ndarray of int, shape (m,)
        places : ndarray, shape (k,)
            Times of the columns.
        n_groups : int
        """
        linked = groups[1:] == groups[:-1]
        gaps = np.where(linked, np.diff(places[columns]), 1.0)
        return cls(groups, columns, gaps, linked, n_groups, places.size)

    @computed_once
    def distinct_gaps(self) -> tuple[FloatArray, IntArray]:
        """The gaps that occur, and which of them each is."""
        found, place = np.unique(self.gaps, return_inverse=True)
        return found, place

    @property
    def size(self) -> int:
        """m."""
        return int(self.groups.size)

    @property
    def longest(self) -> int:
        """The most levels of one group."""
        return int(np.bincount(self.groups).max(initial=0))

    @property
    def flat(self) -> IntArray:
        """Place of each level in the table of all groups and times, (J k,)."""
        return self.groups * self.n_columns + self.columns

    def complete(self, places: FloatArray) -> ChainLayout:
        """The layout of every group at every time.

        Parameters
        ----------
        places : ndarray, shape (k,)
        """
        J, k = self.n_groups, self.n_columns
        return ChainLayout.of(np.repeat(np.arange(J), k), np.tile(np.arange(k), J), places, J)


class ChainRelation(Relation):
    """The correlations of levels at one value of the parameter of the steps.

    Parameters
    ----------
    layout : ChainLayout
    correlation : SharedSteps
    phi : ndarray, shape (1,)
    share : float
        The derivatives in phi are multiplied by it.

    Examples
    --------
    >>> from lme4py.covariance import make_structure
    >>> ar1 = make_structure("ar1", 3).correlation
    >>> layout = ChainLayout.of(np.zeros(3, int), np.arange(3), np.arange(3.0), 1)
    >>> ChainRelation(layout, ar1, np.array([np.pi / 6])).times(np.eye(3)[:, :1]).ravel().round(4)
    array([1.  , 0.5 , 0.25])
    """

    def __init__(self, layout: ChainLayout, correlation: SharedSteps, phi: FloatArray, share: float = 1.0) -> None:
        self.n_levels = layout.size
        self.layout = layout
        self.correlation = correlation
        self.phi = phi
        self.share = share
        gaps, place = layout.distinct_gaps
        found, zero = correlation.gap_steps(phi, gaps), layout.linked.astype(float)
        # A level without one before it has the correlation 0 with it, whatever phi is.
        self.steps = Steps(
            found.s[place] * zero,
            np.where(layout.linked, found.c[place], 1.0),
            found.ds[place] * zero,
            found.dc[place] * zero,
            zero,
            zero,
        )

    _kept = ("n_levels", "layout", "correlation", "phi", "share", "steps")

    @computed_once
    def inverse(self) -> tuple[FloatArray, FloatArray]:
        """R^-1: its diagonal (m,) and what is below it (m - 1,)."""
        s, square = self.steps.s, self.steps.c**2
        diagonal = np.append(s**2 / square, 0.0) + np.append(1.0, 1.0 / square)
        return diagonal, -s / square

    @computed_once
    def inverse_slope(self) -> tuple[FloatArray, FloatArray]:
        """d R^-1 / d phi: its diagonal and what is below it."""
        s, c, ds, dc = self.steps.s, self.steps.c, self.steps.ds, self.steps.dc
        # s^2 / c^2 and 1 / c^2 differ by 1, and have one derivative.
        square = c * c
        own = -2.0 * self.share * dc / (c * square)
        below = -self.share * ds / square - s * own
        return np.append(own, 0.0) + np.append(0.0, own), below

    @property
    def log_det(self) -> float:
        return float(2.0 * np.log(np.abs(self.steps.c)).sum())

    @property
    def log_det_slope(self) -> float:
        """d log|R| / d phi."""
        return float(2.0 * self.share * (self.steps.dc / self.steps.c).sum())

    @property
    def variances(self) -> FloatArray:
        return np.ones(self.n_levels)

    @computed_once
    def matrix(self) -> FloatArray:
        return self.times(np.eye(self.n_levels))

    @property
    def _innovations(self) -> FloatArray:
        return np.append(1.0, self.steps.c)[:, None]

    def times(self, x: FloatArray) -> FloatArray:
        return self.root(self.root_transposed(x))

    def root(self, z: FloatArray) -> FloatArray:
        return bidiagonal_solve(-self.steps.s, self._innovations * z)

    def moved_root(self, z: FloatArray) -> FloatArray:
        """(dC / d phi) z of the root C, shape (m, c)."""
        change = np.zeros_like(z)
        change[1:] = self.share * (self.steps.ds[:, None] * self.root(z)[:-1] + self.steps.dc[:, None] * z[1:])
        return bidiagonal_solve(-self.steps.s, change)

    def root_transposed(self, x: FloatArray) -> FloatArray:
        return self._innovations * bidiagonal_solve(-self.steps.s, x, transpose=True)

    def solve_root(self, x: FloatArray) -> FloatArray:
        out = x.copy()
        out[1:] -= self.steps.s[:, None] * x[:-1]
        return out / self._innovations

    def solve(self, x: FloatArray) -> FloatArray:
        """R^-1 x, shape (m, c)."""
        return tridiagonal_product(*self.inverse, x)

    def slope_times(self, x: FloatArray) -> FloatArray:
        """(d R^-1 / d phi) x, shape (m, c)."""
        return tridiagonal_product(*self.inverse_slope, x)

    def moved(self, Rx: FloatArray) -> FloatArray:
        """(dR / d phi) x, from R x; shape (m, c)."""
        return -self.times(self.slope_times(Rx))
