"""A term of many times as one effect of each pair of a group and a time, with the sparse inverse of their correlations.

A structure of k columns makes matrices of k x k for each group. Where it is a standard deviation times a Markov chain
whose steps depend on one parameter (ar1, ou, car1), the same covariance is s^2 R(phi) of the pairs that occur, and R^-1
is tridiagonal: the engine then works in O(n). theta is (s, phi), as that of the structure of k columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

import numpy as np

from lme4py.covariance.chain import SharedSteps
from lme4py.covariance.charts import ThetaChart
from lme4py.covariance.functions import CovarianceFunctions
from lme4py.covariance.kinds.correlation import Latest
from lme4py.covariance.natural import Adjusted
from lme4py.covariance.relations.chains import ChainLayout, ChainRelation
from lme4py.covariance.structure import AT_EDGE, CovarianceStructure
from lme4py.errors import OptionError
from lme4py.frozen import computed_once
from lme4py.linalg.types import FloatArray

if TYPE_CHECKING:
    from lme4py.covariance.kinds.scaled import Homogeneous

__all__ = ["ChainLevels"]

# Nearer to a correlation of +-1 than this the correlations are those of this distance: R has no inverse at the edge.
# The criterion is even about the edge, and what is left out is of the order of the square.
_NEAREST = 1e-4


@dataclass(frozen=True, eq=False, repr=False)
class ChainLevels(CovarianceStructure):
    """The engine's side of a chain of many columns.

    Parameters
    ----------
    whole : Homogeneous
        The structure of the k columns.
    layout : ChainLayout
    """

    whole: Homogeneous = field(kw_only=True)
    layout: ChainLayout = field(kw_only=True)

    name: ClassVar[str] = "chain"
    title: ClassVar[str] = "Chain of levels"

    @property
    def word(self) -> str:
        return self.whole.word

    def refuse(self, what: str) -> NoReturn:
        raise OptionError(
            f"{what} is not available for {self.word}() of {self.whole.size:,} times, which is fitted by its sparse "
            "inverse; take fewer times (means of neighbours), or another method."
        )

    def key(self) -> tuple[Any, ...]:
        return (*super().key(), self.whole.key(), id(self.layout))

    @property
    def theta_names(self) -> tuple[str, ...]:
        return self.whole.theta_names

    @property
    def user(self) -> CovarianceStructure:
        return self.whole

    @property
    def steps(self) -> SharedSteps:
        """The correlations of the k columns."""
        correlation = self.whole.correlation
        assert isinstance(correlation, SharedSteps)
        return correlation

    def relation(self, row: FloatArray) -> ChainRelation:
        """The correlations of the levels.

        Parameters
        ----------
        row : ndarray, shape (2,)
            (s, phi), as in `factor`.
        """
        return self._last.get(row[1:], self._new_relation)

    @computed_once
    def _last(self) -> Latest[ChainRelation]:
        return Latest()

    def _new_relation(self, phi: FloatArray) -> ChainRelation:
        correlation = self.steps
        edge = correlation.edges(phi)[0]
        distance = float(phi[0] - edge)
        if correlation.edge_sizes(phi)[0] >= _NEAREST:
            return ChainRelation(self.layout, correlation, phi)
        place = edge + np.copysign(_NEAREST, distance)
        # The slope of what is even about the edge grows in proportion to the distance.
        return ChainRelation(self.layout, correlation, np.array([place]), abs(distance) / _NEAREST)

    # --- T: (s, phi) in one row -------------------------------------------------------------------------------------

    def factor(self, theta: FloatArray) -> FloatArray:
        """s, and phi beside it: the scale of the effects and what their correlations depend on, shape (1, 2)."""
        return np.asarray(theta[None])

    def tangents(self, theta: FloatArray) -> FloatArray:
        self.refuse("this number")

    def second_tangents(self, theta: FloatArray) -> FloatArray:
        self.refuse("this number")

    def covariance_tangents(self, theta: FloatArray) -> FloatArray:
        self.refuse("this number")

    def kenward_roger(self, theta: FloatArray) -> Adjusted:
        self.refuse("the adjustment of Kenward and Roger")

    def pullback(self, theta: FloatArray, D: FloatArray) -> FloatArray:
        return np.asarray(D[0])

    def covariance_pullback(self, theta: FloatArray, G: FloatArray) -> FloatArray:
        """From the derivatives in the variance s^2 and in phi, shape (1, 2)."""
        return np.array([2.0 * theta[0] * G[0, 0], G[0, 1]])

    def curvature(self, theta: FloatArray, G: FloatArray) -> FloatArray:
        """As of the structure of k columns, without the second derivative in phi, which is zero in expectation."""
        mixed = 2.0 * G[0, 1] / theta[0] if theta[0] != 0.0 else 0.0
        return np.array([[2.0 * G[0, 0], mixed], [mixed, 0.0]])

    def directions(self) -> FloatArray:
        return np.ones((1, 1, 1))

    def moment_basis(self) -> FloatArray:
        return np.ones((1, 1, 1))

    # --- theta: that of the k columns -------------------------------------------------------------------------------

    def initial(self) -> FloatArray:
        return self.whole.initial()

    def typical(self) -> FloatArray:
        """theta with positive correlations, for the start by moments."""
        return np.append(self.initial()[:1], self.whole.correlation.typical())

    def theta_of_factor(self, M: FloatArray) -> FloatArray:
        phi = M[0, 1:] if M.shape[1] == self.n_theta else self.typical()[1:]
        return self.canonical(np.append(M[0, 0], phi))

    def canonical(self, theta: FloatArray) -> FloatArray:
        return self.whole.canonical(theta)

    def scaled(self, theta: FloatArray, size: float) -> FloatArray:
        return self.whole.scaled(theta, size)

    def edges(self, theta: FloatArray) -> FloatArray:
        return self.whole.edges(theta)

    def edge_sizes(self, theta: FloatArray) -> FloatArray:
        return self.whole.edge_sizes(theta)

    def as_start(self, theta: FloatArray, lowest: float, highest: float = np.inf) -> FloatArray:
        return self.whole.as_start(theta, lowest, highest)

    def units(self, theta: FloatArray) -> FloatArray:
        return self.whole.units(theta)

    def boundary(
        self, theta: FloatArray, label: str, columns: Sequence[str], S: FloatArray | None = None, least: float = 1e-4
    ) -> tuple[str, ...]:
        return self.whole.boundary(theta, label, columns, S, least)

    def limits(self, theta: FloatArray, label: str) -> tuple[str, ...]:
        return self.whole.limits(theta, label)

    def boundary_derivative(self, theta: FloatArray, G: FloatArray) -> float | None:
        """In the variance where that is zero, at the correlation where the search ended."""
        return float(G[0, 0]) if abs(theta[0]) < AT_EDGE else None

    def chart(self, theta: FloatArray) -> ThetaChart:
        free = np.flatnonzero(self.edge_sizes(theta) >= max(AT_EDGE, _NEAREST))
        return ThetaChart(self, self.units(theta)[free], theta, free)

    # --- the k columns ----------------------------------------------------------------------------------------------

    @computed_once
    def everywhere(self) -> ChainLevels:
        """The same with a level for every group at every time."""
        return ChainLevels(1, whole=self.whole, layout=self.layout.complete(self.whole.places))

    def whole_covariance(self, theta: FloatArray, S: FloatArray) -> FloatArray:
        return np.asarray(S[0, 0] ** 2 * self.whole.covariance(theta))

    def whole_tangents(self, theta: FloatArray, S: FloatArray) -> FloatArray:
        return np.asarray(S[0, 0] ** 2 * self.whole.covariance_tangents(theta))

    def user_gradient(
        self, user: CovarianceFunctions, theta: FloatArray, given: FloatArray, S: FloatArray, G: FloatArray
    ) -> FloatArray:
        return np.asarray(self.covariance_pullback(theta, G) / np.array([S[0, 0], 1.0]))

    def whole_effects(self, theta: FloatArray, S: FloatArray, b: FloatArray) -> FloatArray:
        """Effects of every group at every time, (k, J), from those of the levels, (1, m).

        At a time without a row they are the expectation given those with one.
        """
        x = np.zeros((self.everywhere.layout.size, 1))
        x[self.layout.flat] = self.relation(theta).solve(b.T)
        effects = self.everywhere.relation(theta).times(x)
        return np.asarray(S[0, 0] * effects.reshape(self.layout.n_groups, self.layout.n_columns).T)
