"""Pseudo-likelihood: the log-likelihoods of groups, each times a sampling weight of the group.

    -2 log L = sum_j w_j (-2 log L_j),      L_j = int prod_i f(y_ij | u)^{w_ij} phi(u) du

(Rabe-Hesketh & Skrondal 2006, JRSS A 169:805). The weights w_ij of rows are weights that multiply the log-likelihood of
a row. The mode of a group does not depend on w_j; value and gradient are linear in the contributions of groups.
"""

from __future__ import annotations

import numpy as np

from lme4py.engine.generalised.integrals.quadrature import Quadrature
from lme4py.engine.generalised.laplace import Laplace
from lme4py.engine.generalised.problem import ModeFinder
from lme4py.linalg.types import FloatArray

__all__ = ["WeightedQuadrature"]


class WeightedQuadrature(Quadrature):
    """-2 pseudo-log-likelihood of one grouping factor; with one point the Laplace approximation.

    Parameters
    ----------
    finder : ModeFinder
    n_points : int
        Points per dimension.
    weights : ndarray, shape (J,)
        Of the groups, zero or positive.
    """

    def __init__(self, finder: ModeFinder, n_points: int, weights: FloatArray) -> None:
        super().__init__(finder, n_points)
        self.weights = weights
        self.unit = weights[:, None, None] * np.eye(self.k)

    def _normalise(self, found: Laplace, u: FloatArray, log_joint: FloatArray) -> tuple[float, FloatArray]:
        """The pseudo-log-likelihood, and the weights of the nodes given the data times those of their groups."""
        by_group, posterior = self._by_group(found, u, log_joint)
        return float(self.weights @ by_group), self.weights * posterior

    def _by_group(self, found: Laplace, u: FloatArray, log_joint: FloatArray) -> tuple[FloatArray, FloatArray]:
        exponent = log_joint - 0.5 * (u * u).sum(axis=0) + self.rule.log_weight[:, None]
        top = exponent.max(axis=0)
        nodes = np.exp(exponent - top)
        total = nodes.sum(axis=0)
        log_det = -2.0 * np.log(np.einsum("jaa->ja", self._scales(found)[0])).sum(axis=1)
        value: FloatArray = log_det - 2.0 * (top + np.log(total))
        return value, nodes / total
