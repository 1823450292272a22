"""Adaptive Gauss-Hermite quadrature for one grouping factor.

For group j with mode u_j and M_j = C_j^-T C_j^-1, and the nodes x_q of a product rule,

    -2 log L_j = log|M_j| - 2 log sum_q omega_q exp(|x_q|^2 / 2 - F_j(u_j + C_j x_q) / 2),
    F_j(u) = -2 sum log f(y_i | eta_i(u)) + |u|^2

(Pinheiro & Bates 1995, J. Comput. Graph. Stat. 4:12). One node is the Laplace approximation. The gradient is exact:
it follows the modes and the scales of the nodes as they move with the parameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from lme4py.chunks import chunk
from lme4py.engine.generalised.laplace import Laplace, theta_gradient
from lme4py.engine.generalised.problem import GlmmProblem, ModeFinder
from lme4py.errors import OptionError
from lme4py.families.nuisance import total
from lme4py.linalg.types import FloatArray, IntArray

# Most random effects per group, points per dimension, and points altogether.
MAX_DIMENSION = 4
MAX_POINTS = 100
MAX_NODES = 20_000
# Values of all rows at all nodes that are held at a time.
_CHUNK = chunk(4_000_000)


@dataclass(frozen=True)
class ProductRule:
    """Nodes of the product rule.

    Attributes
    ----------
    x : ndarray, shape (N, k)
    log_weight : ndarray, shape (N,)
        log omega + |x|^2 / 2, omega the weights of the standard normal distribution.
    """

    x: FloatArray
    log_weight: FloatArray


def product_rule(points: int, dimension: int) -> ProductRule:
    """Gauss-Hermite rule for the standard normal distribution in `dimension` dimensions."""
    x, w = np.polynomial.hermite.hermgauss(points)
    x, log_w = x * np.sqrt(2.0), np.log(w) - 0.5 * np.log(np.pi)
    index = np.array(list(product(range(points), repeat=dimension)))
    nodes = x[index]
    return ProductRule(nodes, log_w[index].sum(axis=1) + 0.5 * (nodes**2).sum(axis=1))


def check_quadrature(problem: GlmmProblem, n_points: int, most: int = MAX_POINTS) -> None:
    """Refuse models for which there is no quadrature rule.

    Parameters
    ----------
    problem : GlmmProblem
    n_points : int
        nAGQ.
    most : int
        Most points per dimension.
    """
    refuse_related_levels(problem, n_points)
    if len(problem.factors) > 1:
        raise too_many_factors(problem, n_points)
    check_points(n_points, problem.factors[0].n_columns, "random effect(s) per group", most)


def refuse_related_levels(problem: GlmmProblem, n_points: int) -> None:
    """Refuse quadrature of random effects that are related, whose integral does not split into groups or is large."""
    if problem.chain is not None:
        whole = problem.chain.levels.whole
        what, instead = f"nAGQ={n_points} integrates", "use nAGQ=1, the Laplace approximation."
        if n_points == 1:
            what, instead = "the likelihood of each group by itself is integrated", "take fewer times."
        raise OptionError(
            f"{what} over a few random effects of a group at a time, and {whole.word}() has one for each of "
            f"{whole.size:,} times; {instead}"
        )
    related = [factor.name for factor in problem.factors if factor.relation is not None]
    if related:
        raise OptionError(
            f"nAGQ={n_points} needs groups that are independent, and relmat= relates the levels of "
            f"{' and '.join(related)}; use nAGQ=1, the Laplace approximation."
        )


def too_many_factors(problem: GlmmProblem, n_points: int) -> OptionError:
    """The refusal of factors that are not nested, or of more than two of them."""
    names = ", ".join(factor.name for factor in problem.factors)
    if problem.stack.size > 1:
        return OptionError(
            f"nAGQ={n_points} needs one grouping factor where further parts have random effects; this model has "
            f"{len(problem.factors)} ({names}). Use nAGQ=1, the Laplace approximation."
        )
    return OptionError(
        f"nAGQ={n_points} needs one grouping factor, or two of which one is nested in the other, because the integral "
        f"must split into groups; this model has {len(problem.factors)} ({names}). Use nAGQ=1, the Laplace "
        "approximation."
    )


def check_points(n_points: int, dimension: int, what: str, most: int = MAX_POINTS) -> None:
    """Refuse more dimensions or nodes than there is a rule for.

    Parameters
    ----------
    n_points : int
        nAGQ.
    dimension : int
        Random effects that are integrated together.
    what : str
        Their name.
    most : int
        Most points per dimension.
    """
    if dimension > MAX_DIMENSION:
        raise OptionError(
            f"nAGQ={n_points} with {dimension} {what} would need {n_points}**{dimension} nodes; at most "
            f"{MAX_DIMENSION} random effects are integrated together this way. Use nAGQ=1."
        )
    if n_points > most or n_points**dimension > MAX_NODES:
        best = min(most, int(MAX_NODES ** (1.0 / dimension) + 1e-9))
        raise OptionError(
            f"nAGQ={n_points} with {dimension} {what} would need {n_points**dimension:,} nodes; "
            f"use nAGQ={best} or less."
        )


class Quadrature:
    """-2 log-likelihood by quadrature around a mode.

    Parameters
    ----------
    finder : ModeFinder
    n_points : int
        nAGQ, points per dimension.
    most : int
        Most points per dimension.
    """

    def __init__(self, finder: ModeFinder, n_points: int, most: int = MAX_POINTS) -> None:
        problem = finder.problem
        check_quadrature(problem, n_points, most)
        self.finder = finder
        factor = problem.factors[0]
        self.k, self.J = factor.n_columns, factor.n_levels
        self.rule = product_rule(n_points, self.k)
        # What the log-determinant of a group counts for.
        self.unit = np.eye(self.k)
        self._sort(problem)

    def _sort(self, problem: GlmmProblem) -> None:
        """Rows in the order of the groups, so that sums over a group are sums of neighbours."""
        products = problem.products
        codes = products.codes[0].astype(np.intp)
        self.order: IntArray = np.argsort(codes, kind="stable")
        self.codes = codes[self.order]
        self.starts = np.searchsorted(self.codes, np.arange(self.J))
        whole, places = products.blocks[0][self.order], np.array(products.places[0])
        # Columns in each linear predictor.
        D = problem.stack.size
        self.Z = [whole] if D == 1 else [whole * (places == d) for d in range(D)]
        self.whole = np.concatenate([d * self.order.size + self.order for d in range(D)])
        self.data = reordered(problem.data, self.order)

    def _group_sum(self, values: FloatArray) -> FloatArray:
        """Sums over the rows of each group: (..., n) to (..., J)."""
        total: FloatArray = np.add.reduceat(values, self.starts, axis=-1)
        return total

    def _scales(self, found: Laplace) -> tuple[FloatArray, FloatArray]:
        """C_j (J, k, k) and Z_j'WZ_j (J, k, k)."""
        A = np.moveaxis(found.swept.stages[0].A, 2, 0)
        T = found.mode.T[0]
        M = np.eye(self.k) + T.T @ A @ T
        return np.swapaxes(np.linalg.inv(np.linalg.cholesky(M)), 1, 2), A

    def _values(self, found: Laplace, moves: FloatArray, order: int) -> Any:
        """Rows at the nodes whose moves of b are given, (k, N, J) -> each (N, n), or (N, D n)."""
        eta = np.broadcast_to(found.mode.eta[self.whole], (moves.shape[1], self.whole.size)).copy()
        n = self.codes.size
        for d, Z in enumerate(self.Z):
            for a in range(self.k):
                eta[:, d * n : (d + 1) * n] += Z[:, a] * moves[a][:, self.codes]
        return self.finder.problem.family.derivatives(self.data, eta, found.mode.lam, order)

    def value(self, found: Laplace) -> float:
        """-2 log-likelihood without its gradient."""
        C, _ = self._scales(found)
        u, moves = self._nodes(found, C)
        return self._log_integral(found, u, moves)[0]

    def _nodes(self, found: Laplace, C: FloatArray) -> tuple[FloatArray, FloatArray]:
        """u at the nodes, (k, N, J), and the moves of b from the mode, (k, N, J)."""
        change = np.einsum("jab,qb->aqj", C, self.rule.x)
        mode = found.mode.u.reshape(self.k, self.J)
        return mode[:, None, :] + change, np.einsum("ab,bqj->aqj", found.mode.T[0], change)

    def _blocks(self) -> list[slice]:
        size = max(1, _CHUNK // self.codes.size)
        return [slice(i, i + size) for i in range(0, self.rule.x.shape[0], size)]

    def _log_integral(self, found: Laplace, u: FloatArray, moves: FloatArray) -> tuple[float, FloatArray]:
        """-2 log-likelihood and the weights of the nodes given the data, (N, J)."""
        log_joint = np.concatenate(
            [self._group_sum(self._values(found, moves[:, part], 0).loglik) for part in self._blocks()]
        )
        return self._normalise(found, u, log_joint)

    def _normalise(self, found: Laplace, u: FloatArray, log_joint: FloatArray) -> tuple[float, FloatArray]:
        exponent = log_joint - 0.5 * (u * u).sum(axis=0) + self.rule.log_weight[:, None]
        top = exponent.max(axis=0)
        weights = np.exp(exponent - top)
        total = weights.sum(axis=0)
        value = found.swept.log_det - 2.0 * float((top + np.log(total)).sum())
        return value, weights / total

    def __call__(self, found: Laplace) -> tuple[float, FloatArray]:
        """-2 log-likelihood and its gradient in (theta, beta, lambda).

        Parameters
        ----------
        found : Laplace
            The Laplace approximation at the same parameters.
        """
        C, A = self._scales(found)
        u, moves = self._nodes(found, C)
        blocks = self._blocks()
        if len(blocks) == 1:
            rows = self._values(found, moves, self.finder.problem.score_order)
            value, posterior = self._normalise(found, u, self._group_sum(rows.loglik))
            sums = self._sums(rows, posterior, u)
        else:
            value, posterior = self._log_integral(found, u, moves)
            parts = []
            for part in blocks:
                rows = self._values(found, moves[:, part], self.finder.problem.score_order)
                parts.append(self._sums(rows, posterior[part], u[:, part], self.rule.x[part]))
            sums = _Sums(*(np.sum([getattr(p, name) for p in parts], axis=0) for name in _Sums.__slots__))
        return value, self._gradient(found, C, A, sums)

    def _sums(self, rows: Any, posterior: FloatArray, u: FloatArray, x: FloatArray | None = None) -> _Sums:
        """Averages over the nodes under their weights given the data."""
        x = self.rule.x if x is None else x
        score, by_row = rows.score, posterior[:, self.codes]
        n, D = self.codes.size, len(self.Z)
        possible = np.isfinite(score)
        if not possible.all():
            # A node outside the range of the link has weight 0.
            score = np.where(possible, score, 0.0)
        pulled = [sum(score[:, d * n : (d + 1) * n] * Z[:, a] for d, Z in enumerate(self.Z)) for a in range(self.k)]
        Zs = np.array([self._group_sum(own) for own in pulled])
        lam = np.zeros(0)
        if self.finder.problem.n_nuisance:
            lam = total(rows.d_lam, by_row, possible[:, :n])
        by_T = np.einsum("qj,aqj,bqj->ab", posterior, Zs, u)
        return _Sums(
            (score * (by_row if D == 1 else np.tile(by_row, D))).sum(axis=0),
            by_T,
            np.einsum("qj,aqj->aj", posterior, u),
            np.einsum("qj,aqj->aj", posterior, Zs),
            np.einsum("qj,aqj,qb->jab", posterior, u, x),
            np.einsum("qj,aqj,qb->jab", posterior, Zs, x),
            lam,
        )

    def _gradient(self, found: Laplace, C: FloatArray, A: FloatArray, sums: _Sums) -> FloatArray:
        finder, mode, rows = self.finder, found.mode, found.rows
        problem, products = finder.problem, finder.problem.products
        T = mode.T[0]
        # Derivatives in the mode and in C: F falls by 2 (u - T'Z's).
        in_mode = 2.0 * (sums.u - T.T @ sums.Zs)
        in_C = 2.0 * (sums.ux - np.einsum("ba,jbc->jac", T, sums.Zsx))
        B = np.swapaxes(C, 1, 2) @ in_C
        upper = np.triu(B)
        half = 0.5 * (upper + np.swapaxes(upper, 1, 2))
        half[:, range(self.k), range(self.k)] = 0.5 * B[:, range(self.k), range(self.k)]
        D = C @ (self.unit - half) @ np.swapaxes(C, 1, 2)
        TDT = T @ D @ T.T
        h = self._in_weights(problem, TDT[self.codes])
        expected = problem.uses_expected
        c = problem.stack.gradient(h, rows.dw_exp if expected else rows.dw_obs)
        # H a = T'Z'c + derivative in the mode.
        extra = in_mode.ravel()
        column = c - problem.stack.weigh(mode.w, products.spread(finder.spread(mode.T, extra)))
        a = extra + products.solve(mode.swept, column)[0]
        Za = products.spread(finder.spread(mode.T, a))
        rest = c - problem.stack.weigh(mode.w, Za)
        Z_rest = products.gather(rest).reshape(self.k, self.J)
        by_T = -2.0 * sums.by_T + Z_rest @ mode.u.reshape(self.k, self.J).T
        by_T += mode.score.reshape(self.k, self.J) @ a.reshape(self.k, self.J).T
        by_T += 2.0 * (A @ T @ D).sum(axis=0)
        score = np.empty(self.whole.size)
        score[self.whole] = sums.score
        parts = [theta_gradient(problem, mode.theta, [by_T]), problem.X.T @ (rest - 2.0 * score)]
        if problem.n_nuisance:
            lam_w = rows.w_exp_lam if expected else rows.w_obs_lam
            parts.append(-2.0 * sums.lam + total(lam_w, h) + total(rows.score_lam, Za))
        return np.concatenate(parts)

    def _in_weights(self, problem: GlmmProblem, D: FloatArray) -> FloatArray:
        """z_d' D z_e of each row and pair of predictors, twice where they differ, (n_pairs n,)."""
        n = problem.n_obs
        h = np.empty(len(problem.stack.pairs) * n)
        for i, (d, e) in enumerate(problem.stack.pairs):
            own = np.einsum("na,nab,nb->n", self.Z[d], D, self.Z[e])
            h[i * n + self.order] = own if d == e else 2.0 * own
        return h


class FixedQuadrature(Quadrature):
    """-2 log-likelihood by Gauss-Hermite quadrature that is not adapted to the groups.

    The nodes stand at u = x_q / sqrt(2) in all groups: the rule for the weight exp(-|u|^2), as in R's clmm, is denser
    where posterior distributions of groups lie than the one for the prior. It needs more points than the adaptive
    rule for the same precision.
    """

    def _nodes(self, found: Laplace, C: FloatArray) -> tuple[FloatArray, FloatArray]:
        nodes = self.rule.x.T[:, :, None] / np.sqrt(2.0)
        u = np.broadcast_to(nodes, (self.k, self.rule.x.shape[0], self.J))
        change = u - found.mode.u.reshape(self.k, 1, self.J)
        return u, np.einsum("ab,bqj->aqj", found.mode.T[0], change)

    def _normalise(self, found: Laplace, u: FloatArray, log_joint: FloatArray) -> tuple[float, FloatArray]:
        value, weights = super()._normalise(found, u, log_joint)
        return value - found.swept.log_det + self.J * self.k * float(np.log(2.0)), weights

    def _gradient(self, found: Laplace, C: FloatArray, A: FloatArray, sums: _Sums) -> FloatArray:
        problem = self.finder.problem
        score = np.empty(self.whole.size)
        score[self.whole] = sums.score
        parts = [theta_gradient(problem, found.mode.theta, [-2.0 * sums.by_T]), problem.X.T @ (-2.0 * score)]
        return np.concatenate([*parts, -2.0 * sums.lam] if problem.n_nuisance else parts)


@dataclass(frozen=True, slots=True)
class _Sums:
    """Averages over the nodes.

    Attributes
    ----------
    score : ndarray, shape (D n,)
    by_T : ndarray, shape (k, k)
        Z's u'.
    u, Zs : ndarray, shape (k, J)
    ux, Zsx : ndarray, shape (J, k, k)
        u x' and Z's x'.
    lam : ndarray, shape (d,)
        d log f / d lambda.
    """

    score: FloatArray
    by_T: FloatArray
    u: FloatArray
    Zs: FloatArray
    ux: FloatArray
    Zsx: FloatArray
    lam: FloatArray


def reordered(data: Any, order: IntArray) -> Any:
    """The response with its rows in another order."""
    return data.take(order)
