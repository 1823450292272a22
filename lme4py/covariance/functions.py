"""T and Sigma of a covariance structure, and their derivatives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, NoReturn

import numpy as np

from lme4py.covariance.jets import Jet
from lme4py.covariance.steps import Steps
from lme4py.errors import DesignError, OptionError
from lme4py.linalg.small import mapped_root
from lme4py.linalg.types import FloatArray, IntArray

__all__ = ["CovarianceFunctions"]


class CovarianceFunctions(ABC):
    """Sigma = T T' as functions of theta: the part of `CovarianceStructure` that is calculus."""

    name: ClassVar[str]
    size: int
    positions: FloatArray | None

    @property
    def word(self) -> str:
        """What it is called where its parameters are named."""
        return self.name

    @property
    @abstractmethod
    def theta_names(self) -> tuple[str, ...]:
        """A name for each theta, for tables of the engine."""

    @property
    def n_theta(self) -> int:
        """Number of parameters, m."""
        return len(self.theta_names)

    @property
    def places(self) -> FloatArray:
        """Positions of the columns; their numbers where they have no others."""
        return np.arange(float(self.size)) if self.positions is None else self.positions

    # --- T and Sigma ------------------------------------------------------------------------------------------------

    @abstractmethod
    def factor(self, theta: FloatArray) -> FloatArray:
        """T, shape (k, k)."""

    @abstractmethod
    def tangents(self, theta: FloatArray) -> FloatArray:
        """dT / dtheta_i, shape (m, k, k)."""

    @abstractmethod
    def second_tangents(self, theta: FloatArray) -> FloatArray:
        """d2T / dtheta_i dtheta_j, shape (m, m, k, k)."""

    @abstractmethod
    def initial(self) -> FloatArray:
        """theta to start from where nothing is known: variances of about 1, off every edge."""

    def pullback(self, theta: FloatArray, D: FloatArray) -> FloatArray:
        """Derivative in theta from the derivative D in the elements of T: <D, dT_i>, shape (m,)."""
        return np.asarray(np.einsum("ab,iab->i", D, self.tangents(theta)))

    def second(self, theta: FloatArray, D: FloatArray) -> FloatArray:
        """<D, d2T_ij>, shape (m, m)."""
        return np.asarray(np.einsum("ab,ijab->ij", D, self.second_tangents(theta)))

    def covariance(self, theta: FloatArray, points: FloatArray | None = None) -> FloatArray:
        """Sigma, shape (k, k), or (..., p, p) at `points`.

        Parameters
        ----------
        theta : ndarray, shape (m,)
        points : ndarray, shape (..., p) or (..., p, d), optional
            Positions of p rows, for many subjects at once: some of those of the columns; structures of a stationary
            process take any time, or coordinates.
        """
        return self.covariance_derivatives(theta, points, order=0).value

    def covariance_derivatives(self, theta: FloatArray, points: FloatArray | None = None, order: int = 2) -> Jet:
        """Sigma with its first and second derivatives in theta, as `covariance` takes points.

        Parameters
        ----------
        theta : ndarray, shape (m,)
        points : ndarray, optional
        order : {0, 1, 2}
            Derivatives of higher order are left out.
        """
        rows = None if points is None else self.columns_at(points)
        T = _rows(self.factor(theta), rows)
        value = T @ T.swapaxes(-1, -2)
        if order == 0:
            return Jet.value_only(value)
        dT = _rows(self.tangents(theta), rows)
        half = dT @ T.swapaxes(-1, -2)
        first = half + half.swapaxes(-1, -2)
        if order == 1:
            return Jet(value, first, np.zeros((0, 0, *value.shape)))
        half = dT[:, None] @ dT[None].swapaxes(-1, -2) + _rows(self.second_tangents(theta), rows) @ T.swapaxes(-1, -2)
        return Jet(value, first, half + half.swapaxes(-1, -2))

    def columns_at(self, points: FloatArray) -> IntArray:
        """Numbers of the columns at these positions, of the same shape.

        Raises
        ------
        DesignError
            There is no column at a position.
        """
        points = np.asarray(points, dtype=float)
        places = self.places
        order = np.argsort(places)
        found = np.minimum(np.searchsorted(places[order], points), self.size - 1)
        columns: IntArray = order[found]
        wrong = places[columns] != points
        if wrong.any():
            raise DesignError(f"{self.name}() has no column at {points[wrong].flat[0]:g}; its columns are at {places}.")
        return columns

    def covariance_tangents(self, theta: FloatArray) -> FloatArray:
        """dSigma / dtheta_i, shape (m, k, k)."""
        return self.covariance_derivatives(theta, order=1).first

    def covariance_pullback(self, theta: FloatArray, G: FloatArray) -> FloatArray:
        """Derivative in theta of tr(G Sigma), G symmetric: <G, dSigma_i>, shape (m,)."""
        return self.pullback(theta, 2.0 * (G @ self.factor(theta)))

    def curvature(self, theta: FloatArray, G: FloatArray) -> FloatArray:
        """Second derivative in theta of tr(G Sigma): 2 tr(dT_i' G dT_j) + 2 <G T, d2T_ij>, shape (m, m)."""
        dT = self.tangents(theta)
        both = np.einsum("iab,jab->ij", dT, G @ dT)
        return np.asarray(2.0 * (both + self.second(theta, G @ self.factor(theta))))

    # --- the user's columns, from those of the engine ---------------------------------------------------------------

    def whole_covariance(self, theta: FloatArray, S: FloatArray) -> FloatArray:
        """Covariance of the user's columns from theta inside, S T T' S', shape (k, k)."""
        root = mapped_root(S, self.factor(theta))
        return np.asarray(root @ root.T)

    def whole_tangents(self, theta: FloatArray, S: FloatArray) -> FloatArray:
        """Its derivatives in theta inside, shape (m, k, k)."""
        return np.asarray(S @ self.covariance_tangents(theta) @ S.T)

    def whole_effects(self, theta: FloatArray, S: FloatArray, b: FloatArray) -> FloatArray:
        """Effects of the user's columns, shape (k, J), from those of the engine's."""
        return np.asarray(S @ b)

    def user_gradient(
        self, user: CovarianceFunctions, theta: FloatArray, given: FloatArray, S: FloatArray, G: FloatArray
    ) -> FloatArray:
        """Derivative in theta of the user's columns from the one in Sigma inside, shape (m,).

        Parameters
        ----------
        user : CovarianceFunctions
            The structure in the user's columns.
        theta, given : ndarray, shape (m,)
            Of the covariance inside, and of the user's columns.
        S, G : ndarray, shape (k, k)
        """
        inverse = np.linalg.inv(S)
        return user.covariance_pullback(given, inverse.T @ G @ inverse)

    # --- chains -----------------------------------------------------------------------------------------------------

    @property
    def is_chain(self) -> bool:
        """Does each column depend on the one before it alone, so that the inverse of Sigma is tridiagonal?"""
        return False

    @property
    def is_chain_in_time(self) -> bool:
        """Are columns in the order of their times a chain of one variance whose steps depend on the gaps alone?

        Then theta[0] and `gap_steps` are all there is to know of them.
        """
        return False

    def precision(self, theta: FloatArray) -> tuple[FloatArray, FloatArray, float]:
        """The inverse of Sigma of a chain as its diagonal (k,) and what is below it (k - 1,), and log|Sigma|.

        Raises
        ------
        OptionError
            The structure is no chain.
        DesignError
            Sigma is singular.
        """
        self.refuse("a sparse inverse")

    def gap_steps(self, theta: FloatArray, gaps: FloatArray) -> Steps:
        """Correlations over gaps in time with derivatives in the one phi, for chains with a correlation of time alone.

        Row i of a subject is s_i times the row before plus an innovation of deviation c_i, in units of the standard
        deviations: n rows are whitened in O(n).

        Parameters
        ----------
        theta : ndarray, shape (m,)
        gaps : ndarray, any shape
            Positive; whole numbers for ar1 and hetar1.

        Raises
        ------
        OptionError
            The structure is no such chain.
        """
        self.refuse("a step over a gap in time")

    def refuse(self, what: str) -> NoReturn:
        """Raise for something that this structure has no answer to."""
        raise OptionError(f"{what} is not known for {self.word}().")


def _rows(T: FloatArray, rows: IntArray | None) -> FloatArray:
    """Rows of the last two axes, (..., k, k) -> (..., *rows.shape, k)."""
    return T if rows is None else T[..., rows, :]
