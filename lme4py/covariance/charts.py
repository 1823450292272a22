"""Coordinates of the covariances near one of them, for derivatives that know the boundary.

What lies on the boundary is taken as known: a variance of zero, or a covariance matrix of rank r < k, stays what it is.
So near an unstructured matrix of rank r its k x r roots move, which need not be triangular; near any other covariance
the theta that have no edge there.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lme4py.linalg.types import FloatArray, IntArray

if TYPE_CHECKING:
    from lme4py.covariance.structure import CovarianceStructure

__all__ = ["Chart", "RootChart", "ThetaChart", "moves_of_root"]


@dataclass(frozen=True, eq=False)
class Chart(ABC):
    """Coordinates x of covariances, zero at the one they were made for.

    Attributes
    ----------
    structure : CovarianceStructure
    units : ndarray, shape (d,)
        Changes of this size matter.
    """

    structure: CovarianceStructure
    units: FloatArray

    @property
    def size(self) -> int:
        """Number of coordinates, d."""
        return int(self.units.size)

    @abstractmethod
    def theta(self, x: FloatArray) -> FloatArray:
        """theta at coordinates x, shape (m,)."""

    @abstractmethod
    def tangents(self, x: FloatArray | None = None) -> FloatArray:
        """dSigma / dx_i, shape (d, k, k), at x or at zero."""

    def pulled(self, G: FloatArray, x: FloatArray | None = None) -> FloatArray:
        """Derivative in x from the one in Sigma, <G, dSigma_i>, shape (d,), at x or at zero."""
        return np.asarray(np.einsum("ab,iab->i", G, self.tangents(x)))

    @abstractmethod
    def curvature(self, G: FloatArray) -> FloatArray:
        """Second derivatives in x of tr(G Sigma) at zero, G symmetric, shape (d, d)."""

    def whole_tangents(self, S: FloatArray) -> FloatArray:
        """dSigma / dx_i of the user's columns, shape (d, k, k), at zero."""
        return np.asarray(S @ self.tangents() @ S.T)


@dataclass(frozen=True, eq=False)
class ThetaChart(Chart):
    """Those theta that are free move.

    Attributes
    ----------
    origin : ndarray, shape (m,)
    free : ndarray of int, shape (d,)
    """

    origin: FloatArray
    free: IntArray

    def theta(self, x: FloatArray) -> FloatArray:
        moved = self.origin.copy()
        moved[self.free] += x
        return moved

    def tangents(self, x: FloatArray | None = None) -> FloatArray:
        return self.structure.covariance_tangents(self.origin if x is None else self.theta(x))[self.free]

    def pulled(self, G: FloatArray, x: FloatArray | None = None) -> FloatArray:
        return self.structure.covariance_pullback(self.origin if x is None else self.theta(x), G)[self.free]

    def curvature(self, G: FloatArray) -> FloatArray:
        return self.structure.curvature(self.origin, G)[self.free][:, self.free]

    def whole_tangents(self, S: FloatArray) -> FloatArray:
        return self.structure.whole_tangents(self.origin, S)[self.free]


@dataclass(frozen=True, eq=False)
class RootChart(Chart):
    """A root R (k, r) of Sigma = R R' moves along some directions.

    Attributes
    ----------
    root : ndarray, shape (k, r)
    moves : ndarray, shape (d, k, r)
    """

    root: FloatArray
    moves: FloatArray

    def _at(self, x: FloatArray | None) -> FloatArray:
        return self.root if x is None else self.root + np.tensordot(x, self.moves, 1)

    def theta(self, x: FloatArray) -> FloatArray:
        return self.structure.theta_of_factor(self._at(x))

    def tangents(self, x: FloatArray | None = None) -> FloatArray:
        half = self.moves @ self._at(x).T
        return np.asarray(half + half.swapaxes(1, 2))

    def curvature(self, G: FloatArray) -> FloatArray:
        # Sigma has x_i x_j (M_i M_j' + M_j M_i') / 2 for all i and j, and no higher powers.
        shape = (self.size, self.root.size)
        return np.asarray(2.0 * (self.moves.reshape(shape) @ (G @ self.moves).reshape(shape).T))


def moves_of_root(R: FloatArray) -> FloatArray:
    """A basis of the directions of a (k, r) root that change R R': all but its rotations R K, K' = -K; (d, k, r)."""
    k, r = R.shape
    rotations = []
    for i in range(r):
        for j in range(i):
            K = np.zeros((r, r))
            K[i, j], K[j, i] = 1.0, -1.0
            rotations.append((R @ K).ravel())
    if not rotations:
        return np.eye(k * r).reshape(k * r, k, r)
    still = np.linalg.svd(np.array(rotations))[2][len(rotations) :]
    return still.reshape(-1, k, r)
