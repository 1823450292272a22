"""Pseudo-likelihood: the log-likelihoods of groups, each times a sampling weight of the group.

    -2 log L = sum_j w_j (-2 log L_j),      L_j = int prod_i f(y_ij | u)^{w_ij} phi(u) du

(Rabe-Hesketh & Skrondal 2006, JRSS A 169:805). The weights w_ij of rows are weights that multiply the log-likelihood of
a row. The mode of a group does not depend on w_j; value and gradient are linear in the contributions of groups.

Of inner groups b in outer groups a, with w_b given the outer one,

    L_a = int phi(u) prod_b [int phi(v_b) prod_i f(y_i | u, v_b)^{w_i} dv_b]^{w_b} du:

an inner group stands for w_b equal ones. Inside, its rows have the weights w_b w_i, and its effects are
v' = w_b^1/2 v_b beside columns that are divided by the root: the joint mode, M_bb and the Schur complement of M_aa are
then those of w_b equal groups.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lme4py.engine.generalised.integrals.nested_quadrature import NestedQuadrature, Rule, _Block, _normalise, _Scales
from lme4py.engine.generalised.integrals.quadrature import Quadrature
from lme4py.engine.generalised.laplace import Laplace
from lme4py.engine.generalised.problem import GlmmProblem, ModeFinder
from lme4py.linalg.types import FloatArray

__all__ = ["conditional_of_copies", "modes_of_copies", "weighted_rule"]


def weighted_rule(finder: ModeFinder, n_points: int, weights: FloatArray) -> Rule:
    """-2 pseudo-log-likelihood with its gradient; with one point the Laplace approximation.

    Parameters
    ----------
    finder : ModeFinder
        Of one grouping factor, or of two nested ones, whose problem has the weights of the inner groups as `copies`.
    n_points : int
        Points per dimension.
    weights : ndarray, shape (J,)
        Of the outer groups, zero or positive.
    """
    kind = WeightedQuadrature if len(finder.problem.factors) == 1 else WeightedNestedQuadrature
    return kind(finder, n_points, weights)


class WeightedQuadrature(Quadrature):
    """-2 pseudo-log-likelihood of one grouping factor.

    Parameters
    ----------
    finder : ModeFinder
    n_points : int
    weights : ndarray, shape (J,)
        All as in `weighted_rule`.
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
        log_det = _log_det_of_roots(self._scales(found)[0])
        value: FloatArray = log_det - 2.0 * (top + np.log(total))
        return value, nodes / total


class WeightedNestedQuadrature(NestedQuadrature):
    """-2 pseudo-log-likelihood of two nested grouping factors.

    Parameters
    ----------
    finder : ModeFinder
    n_points : int
    weights : ndarray, shape (J_a,)
        All as in `weighted_rule`.
    """

    def __init__(self, finder: ModeFinder, n_points: int, weights: FloatArray) -> None:
        super().__init__(finder, n_points)
        copies = finder.problem.copies[self.inner] if finder.problem.copies else None
        self.each = np.ones(self.levels.size) if copies is None else copies[self.levels]
        self.weights, self.copies = weights, self.each
        self.count_a, self.count_b = weights, weights[self.parent]

    def _scales(self, found: Laplace) -> _Scales:
        """Nodes of v' = w_b^1/2 v stand as much further from the mode."""
        plain = super()._scales(found)
        return replace(plain, D=plain.D * np.sqrt(self.each)[:, None, None])

    def _log_joint(self, block: _Block) -> FloatArray:
        """Of one of the equal inner groups."""
        log_weight = self.log_weight_b[block.part, None]
        return (super()._log_joint(block) - log_weight) / self.each + log_weight

    def _integrate(self, found: Laplace, scales: _Scales, parts: list[FloatArray]) -> tuple[float, FloatArray]:
        """-2 pseudo-log-likelihood, and the weights of the nodes given the data times those of the outer groups."""
        inner = np.concatenate(parts).reshape(len(self.rule_a.x), -1, self.starts.size)
        log_inner, within = _normalise(inner, 1)
        log_b = log_inner - 0.5 * (_log_det_of_roots(scales.D) + np.log(self.each) * self.kb)
        u = self._outer_nodes(found, scales)
        outer = np.add.reduceat(self.each * log_b, self.outer_starts, axis=-1)
        log_outer, posterior = _normalise(outer - 0.5 * (u * u).sum(axis=0) + self.rule_a.log_weight[:, None], 0)
        value = float(self.weights @ (_log_det_of_roots(scales.C) - 2.0 * log_outer))
        joint = (self.weights * posterior)[:, None, self.parent] * within
        return value, joint.reshape(-1, self.starts.size)


def _log_det_of_roots(C: FloatArray) -> FloatArray:
    """log|M| of C = L^-T, each (J, k, k)."""
    log_det: FloatArray = -2.0 * np.log(np.einsum("jaa->ja", C)).sum(axis=1)
    return log_det


def modes_of_copies(problem: GlmmProblem, b: FloatArray) -> FloatArray:
    """Effects of each level out of those inside, (Q,).

    Parameters
    ----------
    problem : GlmmProblem
        Whose columns are divided by the roots of `copies`.
    b : ndarray, shape (Q,)
    """
    parts = []
    for factor, copies, own in zip(problem.factors, problem.copies, problem.products.split(b), strict=True):
        each = own.reshape(factor.n_columns, factor.n_levels)
        parts.append((each if copies is None else each / np.sqrt(copies)).ravel())
    return np.concatenate(parts)


def conditional_of_copies(found: Laplace) -> list[FloatArray]:
    """Conditional covariances of the effects of each level in the engine's columns, each (k, k, J).

    Inside they are E_b + w_b K S^-1 K', of one of the equal groups E_b + K S^-1 K' with E_b that given the outer group.

    Parameters
    ----------
    found : Laplace
    """
    problem = found.finder.problem
    out = []
    rule = NestedQuadrature(found.finder, 1)
    inverse = np.empty((rule.levels.size, rule.kb, rule.kb))
    inverse[rule.levels] = rule._scales(found).inverse
    for copies, block, T in zip(problem.copies, found.diagonal, found.mode.T, strict=True):
        if copies is None:
            out.append(block)
            continue
        alone = np.moveaxis(T @ inverse @ T.T, 0, 2)
        out.append(alone + (block - alone) / copies)
    return out
