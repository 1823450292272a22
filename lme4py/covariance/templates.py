"""Relative covariance factors T(theta) of the random-effects terms.

The covariance of the k random effects of a term is sigma^2 T T'. An unstructured term has a lower triangular T (k x k)
and theta runs over its lower triangle by columns. Every other structure is a sum of orthogonal projections,

    T = sum_i theta_i D_i,    T T' = sum_i theta_i^2 D_i,

so that each theta is the root of an eigenvalue of the covariance: of one effect ("diagonal"), of all ("identity"), of
the mean of all effects and of their differences from it ("exchangeable": J/k and I - J/k, which is one variance
(theta_1^2 + (k - 1) theta_2^2) / k and one covariance (theta_1^2 - theta_2^2) / k, positive semi-definite for every
theta). The engine has exchangeable effects in the basis of that mean and k - 1 contrasts, where T is diagonal: "tied".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lme4py.design.design import RandomTerm
from lme4py.errors import OptionError
from lme4py.frozen import computed_once
from lme4py.linalg.small import lower_factor
from lme4py.linalg.types import BoolArray, FloatArray, IntArray

STRUCTURES = ("unstructured", "diagonal", "identity", "exchangeable", "tied")


def mean_and_contrasts(k: int) -> FloatArray:
    """An orthogonal matrix whose first column is constant, shape (k, k): Helmert's contrasts."""
    H = np.zeros((k, k))
    H[:, 0] = 1.0 / np.sqrt(k)
    for j in range(1, k):
        H[:j, j] = 1.0
        H[j, j] = -j
        H[:, j] /= np.sqrt(j * (j + 1.0))
    return H


@dataclass(frozen=True)
class Template:
    """Where the theta of one term go in its T."""

    size: int
    structure: str

    @computed_once
    def rows(self) -> IntArray:
        """Rows of the elements of an unstructured T."""
        return np.concatenate([np.arange(j, self.size) for j in range(self.size)])

    @computed_once
    def columns(self) -> IntArray:
        return np.repeat(np.arange(self.size), np.arange(self.size, 0, -1))

    @computed_once
    def projections(self) -> FloatArray | None:
        """The D_i, shape (n_theta, k, k); None for an unstructured term."""
        k = self.size
        if self.structure == "unstructured":
            return None
        if self.structure == "diagonal":
            diagonal: FloatArray = np.eye(k)[:, :, None] * np.eye(k)[:, None, :]
            return diagonal
        if self.structure == "identity" or k == 1:
            return np.eye(k)[None]
        first = np.full((k, k), 1.0 / k) if self.structure == "exchangeable" else np.diag(np.eye(k)[0])
        return np.array([first, np.eye(k) - first])

    @computed_once
    def _sizes(self) -> FloatArray:
        """Ranks of the projections."""
        return np.array([np.trace(direction) for direction in self.directions])

    @property
    def user(self) -> Template:
        """The template in the user's columns."""
        return Template(self.size, "exchangeable") if self.structure == "tied" else self

    @property
    def n_theta(self) -> int:
        return self.rows.size if self.projections is None else self.projections.shape[0]

    def factor(self, theta: FloatArray) -> FloatArray:
        """T, shape (k, k)."""
        if self.projections is not None:
            total: FloatArray = np.tensordot(theta, self.projections, 1)
            return total
        T = np.zeros((self.size, self.size))
        T[self.rows, self.columns] = theta
        return T

    def theta(self, T: FloatArray) -> FloatArray:
        """theta of a T of this structure (of the nearest one, not negative, where theta are eigenvalues)."""
        if self.projections is not None:
            return np.abs(self.coefficients(T))
        values: FloatArray = T[self.rows, self.columns]
        return values

    def theta_of_factor(self, M: FloatArray) -> FloatArray:
        """theta of the covariance M M', M of shape (k, l)."""
        if self.projections is None:
            return self.theta(lower_factor(M))
        # Projected before they are squared, so that small eigenvalues keep their digits.
        parts = self.projections @ M
        values: FloatArray = np.sqrt(np.einsum("iab,iab->i", parts, parts) / self._sizes)
        if self.structure == "exchangeable":
            # These projections are sums of all rows: what is rounding against the largest is zero.
            values[values < 1e-14 * values.max()] = 0.0
        return values

    def gradient(self, derivative: FloatArray) -> FloatArray:
        """Derivative in theta from the derivative in the elements of T, shape (k, k)."""
        if self.projections is not None:
            return np.asarray(np.einsum("ab,iab->i", derivative, self.projections))
        values: FloatArray = derivative[self.rows, self.columns]
        return values

    @computed_once
    def directions(self) -> list[FloatArray]:
        """dT/dtheta for each theta."""
        if self.projections is not None:
            return list(self.projections)
        out = []
        for row, column in zip(self.rows, self.columns, strict=True):
            direction = np.zeros((self.size, self.size))
            direction[row, column] = 1.0
            out.append(direction)
        return out

    @computed_once
    def covariance_directions(self) -> list[FloatArray]:
        """A basis of the covariance matrices that the term can have; they are linear in these."""
        if self.projections is not None:
            return list(self.projections)
        return [np.maximum(direction, direction.T) for direction in self.directions]

    def coefficients(self, covariance: FloatArray) -> FloatArray:
        """Coefficients of a symmetric matrix in `covariance_directions`, shape (n_theta,)."""
        if self.projections is not None:
            return np.asarray(np.einsum("ab,iab->i", covariance, self.projections)) / self._sizes
        values: FloatArray = covariance[self.rows, self.columns]
        return values

    def curvature(self, G: FloatArray) -> FloatArray:
        """Second derivative in theta of tr(G T T'), shape (n_theta, n_theta): 2 tr(dT_i' G dT_j)."""
        if self.projections is not None:
            return np.diag(2.0 * self.gradient(G))
        curvature: FloatArray = self._same_column * G[self.rows[:, None], self.rows]
        return curvature

    @computed_once
    def _same_column(self) -> FloatArray:
        same: FloatArray = 2.0 * (self.columns[:, None] == self.columns)
        return same

    def truncate(self, T: FloatArray, least: float) -> FloatArray:
        """T with singular values below `least` set to zero."""
        if self.projections is not None:
            theta = self.theta(T)
            return self.factor(np.where(theta < least, 0.0, theta))
        vectors, sizes, right = np.linalg.svd(T)
        kept: FloatArray = (vectors * np.where(sizes < least, 0.0, sizes)) @ right
        return kept

    def diagonal(self) -> BoolArray:
        """Which theta the criterion is even in: diagonal elements of a triangular T, and all eigenvalues."""
        if self.projections is not None:
            return np.ones(self.n_theta, dtype=bool)
        on_diagonal: BoolArray = self.rows == self.columns
        return on_diagonal

    def initial(self) -> FloatArray:
        """theta of T = I."""
        return self.diagonal().astype(float)

    def axes(self) -> list[FloatArray]:
        """theta of T = I for one effect (one eigenvalue) alone, each in turn; (n_theta,) each."""
        return [np.eye(self.n_theta)[i] for i in np.flatnonzero(self.diagonal())]


@dataclass(frozen=True)
class Templates:
    """The templates of all terms, in the order of the design."""

    templates: tuple[Template, ...]

    @classmethod
    def of_terms(cls, terms: Sequence[RandomTerm]) -> Templates:
        """The engine's templates of the terms of a design."""
        inside = {"exchangeable": "tied"}
        return cls(tuple(Template(term.n_columns, inside.get(term.structure, term.structure)) for term in terms))

    @computed_once
    def slices(self) -> tuple[slice, ...]:
        ends = np.cumsum([template.n_theta for template in self.templates])
        starts = np.concatenate([[0], ends[:-1]])
        return tuple(slice(int(a), int(b)) for a, b in zip(starts, ends, strict=True))

    @property
    def n_theta(self) -> int:
        return sum(template.n_theta for template in self.templates)

    @property
    def user(self) -> Templates:
        """The templates in the user's columns."""
        return Templates(tuple(template.user for template in self.templates))

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
        try:
            values = np.asarray(theta, dtype=float).ravel()
        except (TypeError, ValueError):
            raise OptionError(f"theta is {theta!r}; give {self.n_theta} numbers, the start of the search.") from None
        if values.size != self.n_theta or not np.isfinite(values).all():
            raise OptionError(
                f"theta must hold {self.n_theta} finite numbers (one per relative covariance parameter), "
                f"got {values.size}; see Design.terms for their order."
            )
        return values
