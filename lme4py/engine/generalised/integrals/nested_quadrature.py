"""Adaptive Gauss-Hermite quadrature for two grouping factors, one nested in the other.

For outer group a with effects u, and its inner groups b with effects v_b,

    L_a = int phi(u) prod_b [int phi(v_b) prod_{i in b} f(y_i | eta_i(u, v_b)) dv_b] du,

an outer rule over products of inner rules: the cost grows with nAGQ to the dimension of (u, v_b), however many inner
groups there are. Both rules stand at the joint mode of a group and are scaled by the Cholesky factor of the joint
Hessian with the inner effects eliminated first (Pinheiro & Chao 2006, J. Comput. Graph. Stat. 15:58):

    u_q = u~ + C_a x_q,      v_qr = v~ + D_b z_r - K_b C_a x_q,
    D_b D_b' = M_bb^-1,  K_b = M_bb^-1 M_ba,  C_a C_a' = (M_aa - sum_b M_ab K_b)^-1,

so that the inner scale is that of v given u, and the inner centre moves linearly with u. (Rabe-Hesketh, Skrondal &
Pickles 2005, J. Econometrics 128:301, place the inner rules by posterior moments instead.) One node is the Laplace
approximation. The gradient is exact: it follows the modes and the scales of the nodes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from lme4py.engine.generalised.integrals.quadrature import (
    _CHUNK,
    MAX_POINTS,
    FixedQuadrature,
    Quadrature,
    check_points,
    product_rule,
    refuse_related_levels,
    reordered,
    too_many_factors,
)
from lme4py.engine.generalised.laplace import Laplace, outer_by_factor, theta_gradient
from lme4py.engine.generalised.penalty import PenalisedRule
from lme4py.engine.generalised.problem import GlmmProblem, ModeFinder
from lme4py.families.nuisance import total
from lme4py.linalg.types import FloatArray, IntArray

# From a point to -2 log-likelihood and its gradient.
Rule: TypeAlias = Callable[[Laplace], tuple[float, FloatArray]]


def refinement(finder: ModeFinder, nAGQ: int) -> Rule | None:
    """The rule that takes the place of Laplace's approximation; None where that is asked for, or exact.

    Parameters
    ----------
    finder : ModeFinder
    nAGQ : int
    """
    return None if nAGQ in (0, 1) or not finder.problem.factors else make_quadrature(finder, nAGQ)


def make_quadrature(finder: ModeFinder, n_points: int, most: int = MAX_POINTS) -> Rule:
    """The quadrature rule of a model.

    Parameters
    ----------
    finder : ModeFinder
    n_points : int
        nAGQ, points per dimension; negative for nodes that stay where the distribution of the random effects is.
    most : int
        Most points per dimension.

    Raises
    ------
    OptionError
        When the integral does not split into groups, or has too many dimensions.
    """
    rule: Quadrature | NestedQuadrature
    if n_points < 0:
        rule = FixedQuadrature(finder, -n_points, most)
    elif len(finder.problem.factors) == 1:
        rule = Quadrature(finder, n_points, most)
    else:
        rule = NestedQuadrature(finder, n_points, most)
    return rule if finder.problem.penalty is None else PenalisedRule(rule)


def find_nesting(problem: GlmmProblem) -> tuple[int, int] | None:
    """Positions of the outer and the inner factor of two nested ones; None for any other model."""
    if len(problem.factors) != 2 or problem.stack.size > 1:
        return None
    codes = _codes_and_columns(problem)
    for outer, inner in ((0, 1), (1, 0)):
        (a, _), (b, _) = codes[outer], codes[inner]
        parent = np.zeros(problem.factors[inner].n_levels, dtype=np.intp)
        parent[b] = a
        if (parent[b] == a).all():
            return outer, inner
    return None


def _codes_and_columns(problem: GlmmProblem) -> list[tuple[IntArray, FloatArray]]:
    """Level of each row and columns of Z, for each factor."""
    products = problem.products
    return [(codes.astype(np.intp), Z) for codes, Z in zip(products.codes, products.blocks, strict=True)]


@dataclass(frozen=True, slots=True)
class _Scales:
    """Where the nodes stand around the mode.

    Attributes
    ----------
    C : ndarray, shape (J_a, k_a, k_a)
    D, inverse : ndarray, shape (J_b, k_b, k_b)
        D and D D'.
    K : ndarray, shape (J_b, k_b, k_a)
    A_aa, A_bb, A_ba : ndarray, shape (J, k, k)
        Blocks of Z'WZ.
    """

    C: FloatArray
    D: FloatArray
    inverse: FloatArray
    K: FloatArray
    A_aa: FloatArray
    A_bb: FloatArray
    A_ba: FloatArray


@dataclass(frozen=True, slots=True)
class _Block:
    """Some pairs of nodes: u (k_a, N, J_b), v (k_b, N, J_b), and the rows with derivatives, each (N, n)."""

    part: slice
    u: FloatArray
    v: FloatArray
    rows: Any


@dataclass(frozen=True, slots=True)
class _Sums:
    """Averages over the nodes of the score and of the slopes 2 (v - T'Z's) in v and -2 T'Z's in u.

    Attributes
    ----------
    score : ndarray, shape (n,)
    by_Ta, by_Tb : ndarray, shape (k, k)
        Z's u' and Z's v'.
    u : ndarray, shape (J_b, k_a)
    ux : ndarray, shape (J_b, k_a, k_a)
    v : ndarray, shape (J_b, k_b)
    vx : ndarray, shape (J_b, k_b, k_a)
    vz : ndarray, shape (J_b, k_b, k_b)
    lam : ndarray, shape (d,)
    """

    score: FloatArray
    by_Ta: FloatArray
    by_Tb: FloatArray
    u: FloatArray
    ux: FloatArray
    v: FloatArray
    vx: FloatArray
    vz: FloatArray
    lam: FloatArray


class NestedQuadrature:
    """-2 log-likelihood by quadrature around the joint mode, for two nested factors.

    Parameters
    ----------
    finder : ModeFinder
    n_points : int
        nAGQ, points per dimension.
    most : int
        Most points per dimension.
    """

    # What the integrals of an outer and an inner group count for, and how many inner groups one stands for.
    count_a: float | FloatArray = 1.0
    count_b: float | FloatArray = 1.0
    copies: float | FloatArray = 1.0

    def __init__(self, finder: ModeFinder, n_points: int, most: int = MAX_POINTS) -> None:
        problem = finder.problem
        refuse_related_levels(problem, n_points)
        nesting = find_nesting(problem)
        if nesting is None:
            raise too_many_factors(problem, n_points)
        self.finder = finder
        self.outer, self.inner = nesting
        self.ka, self.kb = (problem.factors[f].n_columns for f in nesting)
        check_points(n_points, self.ka + self.kb, "random effects per inner group and its outer group", most)
        self.rule_a, self.rule_b = product_rule(n_points, self.ka), product_rule(n_points, self.kb)
        # Pairs of nodes, the inner one fastest.
        self.x = np.repeat(self.rule_a.x, len(self.rule_b.x), axis=0)
        self.z = np.tile(self.rule_b.x, (len(self.rule_a.x), 1))
        self.log_weight_b = np.tile(self.rule_b.log_weight, len(self.rule_a.x))
        self._sort(problem)

    def _sort(self, problem: GlmmProblem) -> None:
        """Rows in the order of the inner groups within the outer ones, so that all sums are sums of neighbours."""
        by_factor = _codes_and_columns(problem)
        (a, Za), (b, Zb) = by_factor[self.outer], by_factor[self.inner]
        self.order: IntArray = np.lexsort((b, a))
        a, b = a[self.order], b[self.order]
        first = np.append(True, b[1:] != b[:-1])
        self.starts: IntArray = np.flatnonzero(first)
        self.codes: IntArray = np.cumsum(first) - 1
        self.levels: IntArray = b[self.starts]
        self.parent: IntArray = a[self.starts]
        self.outer_starts: IntArray = np.searchsorted(self.parent, np.arange(problem.factors[self.outer].n_levels))
        self.Za, self.Zb = Za[self.order], Zb[self.order]
        self.data = reordered(problem.data, self.order)

    # -- where the nodes stand -----------------------------------------------------------------------------------

    def _scales(self, found: Laplace) -> _Scales:
        w = found.rows.w_exp if self.finder.problem.uses_expected else found.mode.w
        w, Ta, Tb = w[self.order], found.mode.T[self.outer], found.mode.T[self.inner]

        def cross(left: FloatArray, right: FloatArray) -> FloatArray:
            return _sums_of(np.einsum("n,ni,nj->nij", w, left, right), self.starts)

        A_aa = _sums_of(cross(self.Za, self.Za), self.outer_starts)
        A_bb, A_ba = cross(self.Zb, self.Zb), cross(self.Zb, self.Za)
        D = _inverse_root(np.eye(self.kb) + Tb.T @ A_bb @ Tb)
        inverse, M_ba = D @ _transpose(D), Tb.T @ A_ba @ Ta
        K = inverse @ M_ba
        C = _inverse_root(np.eye(self.ka) + Ta.T @ A_aa @ Ta - _sums_of(_transpose(M_ba) @ K, self.outer_starts))
        return _Scales(C, D, inverse, K, A_aa, A_bb, A_ba)

    def _mode(self, found: Laplace) -> tuple[FloatArray, FloatArray]:
        """Modes of the outer effects, (k_a, J_a), and of the inner ones in the order of the rows, (k_b, J_b)."""
        parts = []
        start = 0
        for factor in self.finder.problem.factors:
            parts.append(found.mode.u[start : start + factor.size].reshape(factor.n_columns, -1))
            start += factor.size
        return parts[self.outer], parts[self.inner][:, self.levels]

    def _nodes(self, found: Laplace, scales: _Scales, part: slice) -> tuple[FloatArray, FloatArray, FloatArray]:
        """u (k_a, N, J_b) and v (k_b, N, J_b) of each inner group, and eta (N, n)."""
        Ta, Tb = found.mode.T[self.outer], found.mode.T[self.inner]
        u, v = self._mode(found)
        du = np.einsum("bij,qj->iqb", scales.C[self.parent], self.x[part])
        dv = np.einsum("bij,qj->iqb", scales.D, self.z[part]) - np.einsum("bij,jqb->iqb", scales.K, du)
        eta = np.broadcast_to(found.mode.eta[self.order], (du.shape[1], self.codes.size)).copy()
        for Z, moves in ((self.Za, np.tensordot(Ta, du, 1)), (self.Zb, np.tensordot(Tb, dv, 1))):
            for column, move in zip(Z.T, moves, strict=True):
                eta += column * move[:, self.codes]
        return u[:, None, self.parent] + du, v[:, None, :] + dv, eta

    def _outer_nodes(self, found: Laplace, scales: _Scales) -> FloatArray:
        """u at the nodes of the outer rule alone, (k_a, N_a, J_a)."""
        moves: FloatArray = np.einsum("aij,qj->iqa", scales.C, self.rule_a.x)
        return self._mode(found)[0][:, None, :] + moves

    def _evaluate(self, found: Laplace, scales: _Scales, part: slice, order: int) -> _Block:
        u, v, eta = self._nodes(found, scales, part)
        return _Block(part, u, v, self.finder.problem.family.derivatives(self.data, eta, found.mode.lam, order))

    def _blocks(self) -> list[slice]:
        size = max(1, _CHUNK // self.codes.size)
        return [slice(i, i + size) for i in range(0, self.x.shape[0], size)]

    # -- value ---------------------------------------------------------------------------------------------------

    def value(self, found: Laplace) -> float:
        """-2 log-likelihood without its gradient."""
        scales = self._scales(found)
        parts = [self._log_joint(self._evaluate(found, scales, part, 0)) for part in self._blocks()]
        return self._integrate(found, scales, parts)[0]

    def _log_joint(self, block: _Block) -> FloatArray:
        """log f(y_b, v) of each inner group with the weights of the inner rule, (N, J_b)."""
        loglik = np.add.reduceat(block.rows.loglik, self.starts, axis=-1)
        log_joint: FloatArray = loglik - 0.5 * (block.v * block.v).sum(axis=0) + self.log_weight_b[block.part, None]
        return log_joint

    def _integrate(self, found: Laplace, scales: _Scales, parts: list[FloatArray]) -> tuple[float, FloatArray]:
        """-2 log-likelihood, and the weights of the pairs of nodes given the data, (N, J_b)."""
        inner = np.concatenate(parts).reshape(len(self.rule_a.x), -1, self.starts.size)
        log_inner, within = _normalise(inner, 1)
        u = self._outer_nodes(found, scales)
        outer = np.add.reduceat(log_inner, self.outer_starts, axis=-1)
        log_outer, posterior = _normalise(outer - 0.5 * (u * u).sum(axis=0) + self.rule_a.log_weight[:, None], 0)
        joint = posterior[:, None, self.parent] * within
        return found.swept.log_det - 2.0 * float(log_outer.sum()), joint.reshape(-1, self.starts.size)

    # -- gradient ------------------------------------------------------------------------------------------------

    def __call__(self, found: Laplace) -> tuple[float, FloatArray]:
        """-2 log-likelihood and its gradient in (theta, beta, lambda).

        Parameters
        ----------
        found : Laplace
            The Laplace approximation at the same parameters.
        """
        scales = self._scales(found)
        order = self.finder.problem.score_order
        parts = self._blocks()
        if len(parts) == 1:
            block = self._evaluate(found, scales, parts[0], order)
            value, posterior = self._integrate(found, scales, [self._log_joint(block)])
            sums = self._sums(found, block, posterior)
        else:
            logs = [self._log_joint(self._evaluate(found, scales, part, 0)) for part in parts]
            value, posterior = self._integrate(found, scales, logs)
            by_part = [self._sums(found, self._evaluate(found, scales, part, order), posterior[part]) for part in parts]
            sums = _Sums(*(np.sum([getattr(p, name) for p in by_part], axis=0) for name in _Sums.__slots__))
        return value, self._gradient(found, scales, sums, self._prior_slopes(found, scales, posterior))

    def _sums(self, found: Laplace, block: _Block, posterior: FloatArray) -> _Sums:
        """Averages over the nodes of one block under their weights given the data."""
        Ta, Tb = found.mode.T[self.outer], found.mode.T[self.inner]
        u, v, rows = block.u, block.v, block.rows
        score, by_row = rows.score, posterior[:, self.codes]
        possible = np.isfinite(score)
        if not possible.all():
            # A node outside the range of the link has weight 0.
            score = np.where(possible, score, 0.0)
        lam = np.zeros(0)
        if self.finder.problem.n_nuisance:
            lam = total(rows.d_lam, by_row, possible)
        Zas, Zbs = (
            posterior * np.array([np.add.reduceat(score * column, self.starts, axis=-1) for column in Z.T])
            for Z in (self.Za, self.Zb)
        )
        slope_u = -2.0 * np.tensordot(Ta.T, Zas, 1)
        slope_v = 2.0 * (posterior * v - np.tensordot(Tb.T, Zbs, 1))
        x, z = self.x[block.part], self.z[block.part]
        return _Sums(
            (score * by_row).sum(axis=0),
            np.einsum("iqb,jqb->ij", Zas, u),
            np.einsum("iqb,jqb->ij", Zbs, v),
            slope_u.sum(axis=1).T,
            np.einsum("iqb,qj->bij", slope_u, x),
            slope_v.sum(axis=1).T,
            np.einsum("iqb,qj->bij", slope_v, x),
            np.einsum("iqb,qj->bij", slope_v, z),
            lam,
        )

    def _prior_slopes(self, found: Laplace, scales: _Scales, posterior: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Averages of 2 u and of 2 u x', shapes (J_a, k_a) and (J_a, k_a, k_a)."""
        first = posterior[:, self.outer_starts]
        P = first.reshape(len(self.rule_a.x), -1, first.shape[1]).sum(axis=1)
        u = self._outer_nodes(found, scales)
        weighted = 2.0 * P * u
        return weighted.sum(axis=1).T, np.einsum("iqa,qj->aij", weighted, self.rule_a.x)

    def _gradient(
        self, found: Laplace, scales: _Scales, sums: _Sums, prior: tuple[FloatArray, FloatArray]
    ) -> FloatArray:
        finder, mode, rows = self.finder, found.mode, found.rows
        problem, products = finder.problem, finder.problem.products
        Ta, Tb = mode.T[self.outer], mode.T[self.inner]
        G_aa, G_bb, G_ba = self._in_hessian(scales, sums, prior[1])
        h = np.empty(problem.n_obs)
        h[self.order] = self._in_weights(Ta @ G_aa @ Ta.T, Tb @ G_bb @ Tb.T, Tb @ G_ba @ Ta.T)
        expected = problem.uses_expected
        c = h * (rows.dw_exp if expected else rows.dw_obs)
        # H a = T'Z'c + derivative in the mode.
        extra = self._stack(prior[0] + _sums_of(sums.u, self.outer_starts), sums.v)
        column = c - mode.w * (products.spread(finder.spread(mode.T, extra)))
        a = extra + products.solve(mode.swept, column)[0]
        Za = products.spread(finder.spread(mode.T, a))
        rest = c - mode.w * Za
        through_mode = outer_by_factor(problem.factors, products.gather(rest), mode.u)
        through_T = outer_by_factor(problem.factors, mode.score, a)
        by_T = [x + y for x, y in zip(through_mode, through_T, strict=True)]
        by_T[self.outer] += -2.0 * sums.by_Ta + 2.0 * (scales.A_aa @ Ta @ G_aa).sum(axis=0)
        by_T[self.outer] += (_transpose(scales.A_ba) @ Tb @ G_ba).sum(axis=0)
        by_T[self.inner] += -2.0 * sums.by_Tb + 2.0 * (scales.A_bb @ Tb @ G_bb).sum(axis=0)
        by_T[self.inner] += (scales.A_ba @ Ta @ _transpose(G_ba)).sum(axis=0)
        score = np.empty(problem.n_obs)
        score[self.order] = sums.score
        parts = [theta_gradient(problem, mode.theta, by_T), problem.X.T @ (rest - 2.0 * score)]
        if problem.n_nuisance:
            lam_w = rows.w_exp_lam if expected else rows.w_obs_lam
            parts.append(-2.0 * sums.lam + total(lam_w, h) + total(rows.score_lam, Za))
        return np.concatenate(parts)

    def _in_hessian(
        self, scales: _Scales, sums: _Sums, prior_ux: FloatArray
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Derivatives in the blocks M_aa, M_bb and M_ba, through log|M| and through the places of the nodes."""
        C, D, K = scales.C, scales.D, scales.K
        in_C = prior_ux + _sums_of(sums.ux - _transpose(K) @ sums.vx, self.outer_starts)
        in_K = scales.inverse @ (-sums.vx @ _transpose(C)[self.parent])
        G_aa = _through_root(C, in_C, self.count_a)
        KG = K @ G_aa[self.parent]
        through_K = in_K @ _transpose(K)
        G_bb = (
            _through_root(D, sums.vz, self.count_b, self.copies)
            + KG @ _transpose(K)
            - 0.5 * (through_K + _transpose(through_K))
        )
        return G_aa, G_bb, in_K - 2.0 * KG

    def _in_weights(self, B_aa: FloatArray, B_bb: FloatArray, B_ba: FloatArray) -> FloatArray:
        """Derivatives in the weights of the rows, in their own order here, from those in the blocks of Z'WZ."""
        total: FloatArray = np.einsum("ni,nij,nj->n", self.Za, B_aa[self.parent][self.codes], self.Za)
        total += np.einsum("ni,nij,nj->n", self.Zb, B_bb[self.codes], self.Zb)
        total += np.einsum("ni,nij,nj->n", self.Zb, B_ba[self.codes], self.Za)
        return total

    def _stack(self, u: FloatArray, v: FloatArray) -> FloatArray:
        """(J_a, k_a) and (J_b, k_b) in the order of the random effects, (Q,)."""
        placed = np.empty_like(v)
        placed[self.levels] = v
        parts = [u, placed] if self.outer == 0 else [placed, u]
        return np.concatenate([part.T.ravel() for part in parts])


def _sums_of(values: FloatArray, starts: IntArray) -> FloatArray:
    """Sums of neighbours along the first axis."""
    total: FloatArray = np.add.reduceat(values, starts, axis=0)
    return total


def _transpose(matrices: FloatArray) -> FloatArray:
    return np.swapaxes(matrices, 1, 2)


def _inverse_root(M: FloatArray) -> FloatArray:
    """C = L^-T, upper triangular, for M = L L', each (J, k, k)."""
    return _transpose(np.linalg.inv(np.linalg.cholesky(M)))


def _through_root(
    C: FloatArray, in_C: FloatArray, count: float | FloatArray, copies: float | FloatArray = 1.0
) -> FloatArray:
    """Derivative in M of count log|M| / copies and of a function of C = copies^1/2 L^-T, given its derivative in C."""
    k = C.shape[1]
    B = _transpose(C) @ in_C
    upper = np.triu(B)
    half = 0.5 * (upper + _transpose(upper))
    half[:, range(k), range(k)] = 0.5 * B[:, range(k), range(k)]
    own = np.eye(k) * np.reshape(count, (-1, 1, 1)) - half / np.reshape(copies, (-1, 1, 1))
    out: FloatArray = C @ own @ _transpose(C)
    return out


def _normalise(exponent: FloatArray, axis: int) -> tuple[FloatArray, FloatArray]:
    """log sum exp along an axis, and the shares; no shares where all nodes are impossible."""
    top = exponent.max(axis=axis, keepdims=True)
    top = np.where(top == -np.inf, 0.0, top)
    weights = np.exp(exponent - top)
    total = weights.sum(axis=axis, keepdims=True)
    with np.errstate(divide="ignore"):
        log_sum = (top + np.log(total)).squeeze(axis)
    return log_sum, weights / np.where(total > 0.0, total, 1.0)
