"""Independent effects: an own variance for each, or one for all. theta are the standard deviations."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar

import numpy as np

from lme4py.covariance.holding import Holding, RootHeld
from lme4py.covariance.jets import Jet
from lme4py.covariance.natural import NaturalParameter
from lme4py.covariance.registry import register
from lme4py.covariance.steps import Steps
from lme4py.covariance.structure import AT_EDGE, ColumnChanges, CovarianceStructure
from lme4py.frozen import computed_once
from lme4py.linalg.types import FloatArray

__all__ = ["Diagonal", "HomogeneousDiagonal", "Projections"]


class Projections(CovarianceStructure):
    """T = sum_i theta_i D_i with orthogonal projections D_i: theta are the roots of the eigenvalues of Sigma."""

    linear_factor: ClassVar[bool] = True
    linear: ClassVar[bool] = True

    @property
    @abstractmethod
    def projections(self) -> FloatArray:
        """The D_i, shape (m, k, k)."""

    @computed_once
    def _ranks(self) -> FloatArray:
        return np.asarray(np.trace(self.projections, axis1=1, axis2=2))

    def factor(self, theta: FloatArray) -> FloatArray:
        return np.asarray(np.tensordot(theta, self.projections, 1))

    def tangents(self, theta: FloatArray) -> FloatArray:
        return self.projections

    def second_tangents(self, theta: FloatArray) -> FloatArray:
        return np.zeros((self.n_theta, self.n_theta, self.size, self.size))

    def pullback(self, theta: FloatArray, D: FloatArray) -> FloatArray:
        return np.asarray(np.einsum("ab,iab->i", D, self.projections))

    def second(self, theta: FloatArray, D: FloatArray) -> FloatArray:
        return np.zeros((self.n_theta, self.n_theta))

    def covariance_pullback(self, theta: FloatArray, G: FloatArray) -> FloatArray:
        return np.asarray(2.0 * theta * self.pullback(theta, G))

    def curvature(self, theta: FloatArray, G: FloatArray) -> FloatArray:
        return np.diag(2.0 * self.pullback(theta, G))

    def initial(self) -> FloatArray:
        return np.ones(self.n_theta)

    def theta_of_factor(self, M: FloatArray) -> FloatArray:
        # Projected before they are squared, so that small eigenvalues keep their digits.
        parts = self.projections @ M
        return np.asarray(np.sqrt(np.einsum("iab,iab->i", parts, parts) / self._ranks))

    def scaled(self, theta: FloatArray, size: float) -> FloatArray:
        return size * theta

    def at_random(self, sizes: FloatArray, beside: FloatArray) -> FloatArray:
        return np.where(self.even, sizes, beside)

    def axes(self) -> FloatArray:
        return np.eye(self.n_theta)

    def canonical(self, theta: FloatArray) -> FloatArray:
        return np.abs(theta)

    def span_basis(self) -> FloatArray:
        return self.projections

    def edges(self, theta: FloatArray) -> FloatArray:
        return np.zeros(theta.size)

    def edge_sizes(self, theta: FloatArray) -> FloatArray:
        return np.abs(theta)

    def as_start(self, theta: FloatArray, lowest: float, highest: float = np.inf) -> FloatArray:
        return np.clip(np.abs(theta), lowest, highest)

    def to_user_jacobian(self, theta: FloatArray, S: FloatArray) -> FloatArray:
        free = self.edge_sizes(theta) >= AT_EDGE
        return np.diag(np.where(free, self.to_user(np.ones(theta.size), S), 0.0))


class _Independent(Projections):
    triangular: ClassVar[bool] = True
    separable: ClassVar[bool] = True

    @property
    def has_correlations(self) -> bool:
        return False

    def natural_derivatives(self, theta: FloatArray, order: int = 2) -> Jet:
        m = theta.size
        return Jet.of(np.abs(theta), np.diag(np.where(theta < 0.0, -1.0, 1.0)), np.zeros((m, m, m)), order)

    def hold(self, place: int) -> Holding:
        return RootHeld(self, np.arange(self.size), place)

    def boundary(
        self, theta: FloatArray, label: str, columns: Sequence[str], S: FloatArray | None = None, least: float = 1e-4
    ) -> tuple[str, ...]:
        gone = np.abs(theta) < least
        if gone.all():
            return self.no_variance(label)
        names = ", ".join(name for name, zero in zip(columns, gone, strict=True) if zero)
        return (f"the variance of {names} in {label} is zero",) if names else ()


@register
class Diagonal(_Independent):
    """An own standard deviation for each column, no correlations.

    Examples
    --------
    >>> Diagonal(2).covariance(np.array([2.0, 3.0]))
    array([[4., 0.],
           [0., 9.]])
    """

    name: ClassVar[str] = "diag"
    title: ClassVar[str] = "Independent"
    aliases: ClassVar[tuple[str, ...]] = ("diagonal", "independent")
    within: ClassVar[tuple[str, ...]] = ("cs", "hetar1")
    column_changes: ClassVar[ColumnChanges] = "diagonal"
    foreign: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            "lme4": "(x || g)",
            "glmmTMB": "diag",
            "nlme": "pdDiag; varIdent",
            "SAS": "UN(1)",
            "SPSS": "DIAG",
            "Stata": "independent",
        }
    )

    @property
    def theta_names(self) -> tuple[str, ...]:
        return tuple(f"sd {j + 1}" for j in range(self.size))

    @property
    def n_theta(self) -> int:
        return self.size

    @computed_once
    def projections(self) -> FloatArray:
        return np.asarray(np.eye(self.size)[:, :, None] * np.eye(self.size)[:, None, :])

    def factor(self, theta: FloatArray) -> FloatArray:
        return np.diag(theta)

    def pullback(self, theta: FloatArray, D: FloatArray) -> FloatArray:
        return np.array(D.diagonal())

    def theta_of_factor(self, M: FloatArray) -> FloatArray:
        return np.asarray(np.sqrt(np.einsum("ab,ab->a", M, M)))

    @property
    def natural_parameters(self) -> tuple[NaturalParameter, ...]:
        return tuple(NaturalParameter("sd", "sd", (j,), 0.0, np.inf, relative=True) for j in range(self.size))


@register
class HomogeneousDiagonal(_Independent):
    """One standard deviation for all columns, no correlations."""

    name: ClassVar[str] = "homdiag"
    title: ClassVar[str] = "Identity"
    aliases: ClassVar[tuple[str, ...]] = ("identity", "id")
    within: ClassVar[tuple[str, ...]] = ("diag", "homcs", "ar1")
    foreign: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"glmmTMB": "homdiag", "nlme": "pdIdent", "SAS": "VC", "SPSS": "ID", "Stata": "identity"}
    )

    @property
    def theta_names(self) -> tuple[str, ...]:
        return ("sd",)

    @property
    def is_chain_in_time(self) -> bool:
        return True

    def gap_steps(self, theta: FloatArray, gaps: FloatArray) -> Steps:
        none = np.zeros(np.shape(gaps))
        return Steps(none, np.ones(np.shape(gaps)), none, none, none, none)

    @computed_once
    def projections(self) -> FloatArray:
        return np.eye(self.size)[None]

    def boundary(
        self, theta: FloatArray, label: str, columns: Sequence[str], S: FloatArray | None = None, least: float = 1e-4
    ) -> tuple[str, ...]:
        return super().boundary(theta, label, columns[:1], S, least)

    @property
    def natural_parameters(self) -> tuple[NaturalParameter, ...]:
        return (NaturalParameter("sd", "sd", (), 0.0, np.inf, relative=True),)
