"""Relative covariance factors T(theta) of the random-effects terms.

A term with k columns has a lower triangular T (k x k); the covariance of its random effects is sigma^2 T T'.
theta runs over the lower triangle by columns ("unstructured"), the diagonal ("diagonal") or one common value
("identity"), one term after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lme4py.engine.small import lower_factor
from lme4py.engine.types import BoolArray, FloatArray, IntArray
from lme4py.errors import OptionError

STRUCTURES = ("unstructured", "diagonal", "identity")


@dataclass(frozen=True)
class Template:
    """Where the theta of one term go in its T."""

    size: int
    structure: str

    @cached_property
    def rows(self) -> IntArray:
        return self._positions[0]

    @cached_property
    def columns(self) -> IntArray:
        return self._positions[1]

    @cached_property
    def _positions(self) -> tuple[IntArray, IntArray]:
        if self.structure == "unstructured":
            columns, rows = np.triu_indices(self.size)
            return rows, columns
        diagonal = np.arange(self.size)
        return diagonal, diagonal

    @property
    def n_theta(self) -> int:
        return 1 if self.structure == "identity" else self.rows.size

    def factor(self, theta: FloatArray) -> FloatArray:
        """T, shape (k, k)."""
        T = np.zeros((self.size, self.size))
        T[self.rows, self.columns] = theta
        return T

    def theta(self, T: FloatArray) -> FloatArray:
        """theta of a lower triangular T (for "identity" the root mean square of its diagonal)."""
        values: FloatArray = T[self.rows, self.columns]
        if self.structure == "identity":
            return np.array([np.sqrt(np.mean(values**2))])
        return values

    def theta_of_factor(self, M: FloatArray) -> FloatArray:
        """theta of the covariance M M', M of shape (k, l)."""
        if self.structure == "unstructured":
            return self.theta(lower_factor(M))
        return self.theta(np.diag(np.sqrt((M * M).sum(axis=1))))

    def gradient(self, derivative: FloatArray) -> FloatArray:
        """Derivative in theta from the derivative in the elements of T, shape (k, k)."""
        values = derivative[self.rows, self.columns]
        return np.array([values.sum()]) if self.structure == "identity" else values

    @cached_property
    def directions(self) -> list[FloatArray]:
        """dT/dtheta for each theta."""
        if self.structure == "identity":
            return [np.eye(self.size)]
        out = []
        for row, column in zip(self.rows, self.columns, strict=True):
            direction = np.zeros((self.size, self.size))
            direction[row, column] = 1.0
            out.append(direction)
        return out

    @cached_property
    def covariance_directions(self) -> list[FloatArray]:
        """A basis of the covariance matrices that the term can have; they are linear in these."""
        if self.structure == "identity":
            return [np.eye(self.size)]
        out = []
        for row, column in zip(self.rows, self.columns, strict=True):
            direction = np.zeros((self.size, self.size))
            direction[row, column] = direction[column, row] = 1.0
            out.append(direction)
        return out

    def curvature(self, G: FloatArray) -> FloatArray:
        """Second derivative in theta of tr(G T T'), shape (n_theta, n_theta): 2 tr(dT_i' G dT_j)."""
        if self.structure == "identity":
            return np.array([[2.0 * np.trace(G)]])
        curvature: FloatArray = self._same_column * G[self.rows[:, None], self.rows]
        return curvature

    @cached_property
    def _same_column(self) -> FloatArray:
        same: FloatArray = 2.0 * (self.columns[:, None] == self.columns)
        return same

    def diagonal(self) -> BoolArray:
        """Which theta are diagonal elements of T."""
        if self.structure == "identity":
            return np.array([True])
        on_diagonal: BoolArray = self.rows == self.columns
        return on_diagonal

    def initial(self) -> FloatArray:
        """theta of T = I."""
        return self.diagonal().astype(float)


@dataclass(frozen=True)
class Templates:
    """The templates of all terms, in the order of the design."""

    templates: tuple[Template, ...]

    @cached_property
    def slices(self) -> tuple[slice, ...]:
        ends = np.cumsum([template.n_theta for template in self.templates])
        starts = np.concatenate([[0], ends[:-1]])
        return tuple(slice(int(a), int(b)) for a, b in zip(starts, ends, strict=True))

    @property
    def n_theta(self) -> int:
        return sum(template.n_theta for template in self.templates)

    def factors(self, theta: FloatArray) -> list[FloatArray]:
        """T of every term."""
        return [t.factor(theta[s]) for t, s in zip(self.templates, self.slices, strict=True)]

    def initial(self) -> FloatArray:
        return np.concatenate([template.initial() for template in self.templates])

    def diagonal(self) -> BoolArray:
        return np.concatenate([template.diagonal() for template in self.templates])

    def theta_of_factors(self, factors: Sequence[FloatArray]) -> FloatArray:
        """theta of the covariances M M' of all terms."""
        return np.concatenate([t.theta_of_factor(M) for t, M in zip(self.templates, factors, strict=True)])

    def check(self, theta: FloatArray) -> FloatArray:
        """`theta` as a float array of the right length, or an error."""
        values = np.asarray(theta, dtype=float).ravel()
        if values.size != self.n_theta or not np.isfinite(values).all():
            raise OptionError(
                f"theta must hold {self.n_theta} finite numbers (one per relative covariance parameter), "
                f"got {values.size}; see Design.terms for their order."
            )
        return values
