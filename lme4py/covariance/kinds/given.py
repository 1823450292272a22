"""A residual covariance that is known: sampling variances of a meta-analysis, or a whole matrix of the rows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from lme4py.covariance.jets import Jet
from lme4py.covariance.natural import NaturalParameter
from lme4py.covariance.structure import CovarianceStructure, Positions
from lme4py.linalg.types import FloatArray

__all__ = ["GivenCovariance"]


@dataclass(frozen=True, eq=False, repr=False)
class GivenCovariance(CovarianceStructure):
    """A known matrix M times sd^2, a standard deviation that is known or estimated.

    Attributes
    ----------
    matrix : ndarray, shape (k, k)
        M, positive definite.
    sd : float or None
        None: it is theta.

    Examples
    --------
    >>> import numpy as np
    >>> V = GivenCovariance(2, matrix=np.array([[2.0, 1.0], [1.0, 3.0]]), sd=1.0)
    >>> V.n_theta, V.covariance(np.zeros(0)).tolist()
    (0, [[2.0, 1.0], [1.0, 3.0]])
    """

    matrix: FloatArray | None = None
    sd: float | None = None

    name: ClassVar[str] = "given"
    title: ClassVar[str] = "Known"
    sides: ClassVar[tuple[str, ...]] = ("residual",)
    takes_positions: ClassVar[Positions] = "coordinates"
    linear_factor: ClassVar[bool] = True
    separable: ClassVar[bool] = True

    def key(self) -> tuple[Any, ...]:
        return (*super().key(), self.M.tobytes(), self.sd)

    def __repr__(self) -> str:
        return f"<a known covariance of {self.size} row{'s' * (self.size != 1)}>"

    @property
    def M(self) -> FloatArray:
        """The matrix, (k, k)."""
        return np.eye(self.size) if self.matrix is None else self.matrix

    @property
    def theta_names(self) -> tuple[str, ...]:
        return ("sd",) if self.sd is None else ()

    def initial(self) -> FloatArray:
        return np.ones(self.n_theta)

    def in_units(self, size: float) -> CovarianceStructure:
        return self if self.sd is None else replace(self, sd=self.sd / size)

    def scaled(self, theta: FloatArray, size: float) -> FloatArray:
        return theta * size

    def canonical(self, theta: FloatArray) -> FloatArray:
        return np.abs(theta)

    def theta_of_factor(self, M: FloatArray) -> FloatArray:
        return np.full(self.n_theta, float(np.sqrt(np.sum(M**2) / np.trace(self.M))))

    def edges(self, theta: FloatArray) -> FloatArray:
        return np.zeros(theta.size)

    def edge_sizes(self, theta: FloatArray) -> FloatArray:
        return np.abs(theta)

    def reference_sd(self, theta: FloatArray, at: FloatArray | None) -> float:
        return abs(float(theta[0])) if self.sd is None else self.sd

    @cached_property
    def _root(self) -> FloatArray:
        return np.asarray(np.linalg.cholesky(self.M))

    def factor(self, theta: FloatArray) -> FloatArray:
        return float(theta[0] if self.sd is None else self.sd) * self._root

    def tangents(self, theta: FloatArray) -> FloatArray:
        return np.repeat(self._root[None], self.n_theta, axis=0)

    def second_tangents(self, theta: FloatArray) -> FloatArray:
        return np.zeros((self.n_theta, self.n_theta, self.size, self.size))

    def covariance_derivatives(self, theta: FloatArray, points: FloatArray | None = None, order: int = 2) -> Jet:
        value = self.M
        if points is not None:
            rows = self.columns_at(points)
            value = value[rows[..., :, None], rows[..., None, :]]
        if self.sd is not None:
            return Jet.value_only(self.sd**2 * value)
        sd = float(theta[0])
        return Jet.of(sd**2 * value, (2.0 * sd * value)[None], (2.0 * value)[None, None], order)

    def span_basis(self) -> FloatArray:
        return self.M[None]

    @property
    def natural_parameters(self) -> tuple[NaturalParameter, ...]:
        return (NaturalParameter("sd", "sd", (), 0.0, np.inf),) if self.sd is None else ()
