"""The criterion of crossed effects without a factor of them: conjugate gradients and random probes.

What is a quadratic form (r^2, beta, X'V^-1X, the average information) comes from systems that are solved exactly;
log|M| and its derivatives are means over probes (`lme4py.engine.factor.crossed_probes`). The probes stay the same
during a search, so that value and gradient are smooth functions of theta; the gradient is not that of the value, but
both have the right mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log, pi
from typing import NamedTuple

import numpy as np
import scipy.linalg.lapack as lapack

from lme4py.chunks import from_size
from lme4py.covariance import CovarianceStructures
from lme4py.engine.factor.crossed import CrossedAt, CrossedTables
from lme4py.engine.factor.crossed_factor import CrossedFactor, ExactValue
from lme4py.engine.factor.crossed_inverse import LevelBlocks, effects_of, exact_blocks, probed_blocks
from lme4py.engine.factor.crossed_probes import MOST_ITERATIONS, CrossedProbes
from lme4py.engine.factor.crossproducts import Factor
from lme4py.engine.linear.problem import Problem
from lme4py.engine.linear.stochastic_solve import ProbedPoint
from lme4py.linalg import small
from lme4py.linalg.iterative import Solved, conjugate_gradients
from lme4py.linalg.memory import give_back_freed
from lme4py.linalg.types import FloatArray

__all__ = ["StochasticCriterion", "StochasticPoint", "gradients_of"]

# Residuals of systems that estimates are made from, and of the average information.
_EXACT, _ROUGH = 1e-11, 1e-4
# Rows from which on memory that was freed is given back.
_LARGE = from_size(2_000_000)


class Solution(NamedTuple):
    """The exactly solved part at one theta.

    Attributes
    ----------
    corner : ndarray, shape (p + 1, p + 1)
        [X y]'V^-1[X y].
    h : ndarray, shape (q, p + 1)
        S^-1 Lambda' Z_2'V_1^-1 [X y].
    right : ndarray, shape (q, p + 1)
        Lambda' Z_2'V_1^-1 [X y].
    swept_first : ndarray, shape (k J, p + 1)
        E Z_1'W[X y].
    iterations : int
    residual : float
    """

    corner: FloatArray
    h: FloatArray
    right: FloatArray
    swept_first: FloatArray
    iterations: int
    residual: float


@dataclass(frozen=True)
class StochasticPoint(ProbedPoint):
    """The criterion at one theta.

    Beside those of `ProbedPoint`, with `h` of `Solution` as what the next point begins with:

    Attributes
    ----------
    slope : ndarray, shape (m,)
        y'P V_i P y.
    r2 : float
    RX : ndarray, shape (p, p)
    beta : ndarray, shape (p,)
    T : list of ndarray
        By term.
    modes : list of ndarray, each (k J, 1)
        Lambda u of each grouping factor.
    """

    slope: FloatArray
    r2: float
    RX: FloatArray
    beta: FloatArray
    T: list[FloatArray]
    modes: list[FloatArray]


class StochasticCriterion:
    """-2 log-likelihood (ML) or REML criterion in theta (engine's columns), log|M| by probes.

    Parameters
    ----------
    problem : Problem
    reml : bool
    seed : int
    threads : int
    """

    parameters = "theta"

    def __init__(self, problem: Problem, reml: bool, seed: int = 0, threads: int = 1) -> None:
        self.problem, self.reml, self.seed = problem, reml, seed
        n, p = problem.cross.n_obs, problem.n_fixed
        self.df = n - p if reml else n
        scaling = problem.scaling
        self.constant = self.df * (1.0 + log(2.0 * pi / self.df) + 2.0 * log(scaling.y_scale))
        self.constant -= problem.cross.sum_log_weights + (2.0 * scaling.log_det_C if reml else 0.0)
        self.tables = CrossedTables(problem.factors, problem.cross, threads)
        border = [B.reshape(-1, B.shape[2]) for B in problem.cross.border]
        self.first = border[self.tables.first]
        self.rest = np.concatenate([border[t] for t in self.tables.rest])
        self.border = border
        self.probes = CrossedProbes(self.tables.size, seed)
        self.evaluations = 0

    # -- exact systems -------------------------------------------------------------------------------------------

    def _solve(
        self, at: CrossedAt, first: FloatArray, rest: FloatArray, tolerance: float, start: FloatArray | None
    ) -> tuple[FloatArray, Solved, FloatArray]:
        """Right-hand side, solution, and E times the rows of the first factor, for columns Z'W v."""
        swept = at.eliminate(first)
        right = at.to_spherical(rest - self.tables.from_first(swept))
        found = conjugate_gradients(at.apply, at.precondition, right, tolerance, start, MOST_ITERATIONS)
        return right, found, swept

    def _exact(self, at: CrossedAt, start: FloatArray | None) -> Solution:
        right, found, swept = self._solve(at, self.first, self.rest, _EXACT, start)
        corner = self.problem.cross.corner - self.first.T @ swept - right.T @ found.x
        residual = float(found.residual.max(initial=0.0))
        return Solution(0.5 * (corner + corner.T), found.x, right, swept, found.iterations, residual)

    @property
    def size(self) -> int:
        """Rows of the system that is left: the most directions that there are."""
        return self.tables.size

    def depth(self, theta: FloatArray) -> float:
        """The smallest standard deviation."""
        return self.problem.structures.depth(theta)

    def learn_directions(self, theta: FloatArray, count: int) -> None:
        """Directions that probes leave out, those at one theta.

        Parameters
        ----------
        theta : ndarray, shape (m,)
        count : int
        """
        factors = self.problem.structures.factors(theta)
        self.probes.learn_directions(CrossedAt.of(self.tables, self.problem.factor_T(factors)), count)

    # -- a point -------------------------------------------------------------------------------------------------

    def evaluate(self, theta: FloatArray, probes: int, start: FloatArray | None = None) -> StochasticPoint:
        """Value, gradient and average information.

        Parameters
        ----------
        theta : ndarray, shape (m,)
        probes : int
        start : ndarray, optional
            `h` of a point near by.

        Raises
        ------
        numpy.linalg.LinAlgError
            Systems that are not solved, or a residual variance that is lost in rounding.
        """
        self.evaluations += 1
        problem, p = self.problem, self.problem.n_fixed
        T = problem.structures.factors(theta)
        at = CrossedAt.of(self.tables, problem.factor_T(T))
        solution, R, exact = self._solved(at, start)
        RX = R[:p, :p]
        beta = lapack.dtrtrs(RX, R[:p, p])[0] if p else np.zeros(0)
        r2 = float(R[p, p]) ** 2
        probed = self.probes.probe(at, probes)
        if self.problem.cross.n_obs > _LARGE:
            # Columns of the probes leave holes in the heap that the next arrays do not fit into.
            give_back_freed()
        g, U, modes = self._in_groups(at, solution, beta, RX)
        fixed = [-(self.df / r2) * _gram(own, own, f) for own, f in zip(g, problem.factors, strict=True)]
        if self.reml and p:
            fixed = [a - _gram(own, own, f) for a, own, f in zip(fixed, U, problem.factors, strict=True)]
        G = [a + b for a, b in zip(fixed, probed.G, strict=True)]
        gradients = gradients_of(problem.structures, problem.factors, theta, G)
        by_term = _by_term(problem.factors, [each.mean(axis=0) for each in G])
        information, slope = self._information(at, solution, g, theta, r2, RX, by_term)
        values = exact + probed.log_det
        return StochasticPoint(
            theta=theta,
            value=float(values.mean()),
            gradient=gradients.mean(axis=0),
            information=information,
            values=values,
            gradients=gradients,
            h=solution.h,
            iterations=max(solution.iterations, probed.iterations),
            slope=slope,
            r2=r2,
            RX=RX,
            beta=beta,
            T=T,
            modes=modes,
        )

    def _at(self, theta: FloatArray) -> CrossedAt:
        return CrossedAt.of(self.tables, self.problem.factor_T(self.problem.structures.factors(theta)))

    def _solved(self, at: CrossedAt, start: FloatArray | None) -> tuple[Solution, FloatArray, float]:
        """Solution, root of its corner, and the criterion without log|M|."""
        solution, p = self._exact(at, start), self.problem.n_fixed
        R, info = lapack.dpotrf(solution.corner, lower=0, clean=1)
        if info != 0 or solution.residual > 1e3 * _EXACT:
            raise np.linalg.LinAlgError("the systems of the random effects cannot be solved at this point")
        exact = self.df * log(float(R[p, p]) ** 2) + self.constant
        if self.reml:
            exact += 2.0 * float(np.log(R[:p, :p].diagonal()).sum())
        return solution, R, exact

    def by_factor(self, theta: FloatArray) -> ExactValue:
        """The value by a factor in tiles, without probes' error.

        Parameters
        ----------
        theta : ndarray, shape (m,)

        Raises
        ------
        DesignError
            The tiles do not fit into memory.
        numpy.linalg.LinAlgError
            The matrix is not positive definite in their precision.
        """
        at = self._at(theta)
        known = self._solved(at, None)[2]
        found = CrossedFactor(at).log_det(self.seed)
        return ExactValue(known + found.value, found.error)

    def level_blocks(self, theta: FloatArray, include_fixed: bool, exact: bool) -> LevelBlocks:
        """What the data leave of the effects of each level, over sigma^2 and in the engine's columns.

        Parameters
        ----------
        theta : ndarray, shape (m,)
        include_fixed : bool
            Count the uncertainty of the fixed effects.
        exact : bool
            By a factor in tiles, not by probes.

        Raises
        ------
        DesignError
            The tiles do not fit into memory.
        numpy.linalg.LinAlgError
            The matrix is not positive definite in their precision.
        """
        at = self._at(theta)
        found = exact_blocks(at) if exact else probed_blocks(at, self.seed)
        p = self.problem.n_fixed
        if not include_fixed or not p:
            return found
        solution, R, _ = self._solved(at, None)
        inverse = lapack.dtrtri(R[:p, :p])[0]
        b = at.to_effects(solution.h[:, :p] @ inverse)
        own = at.eliminate(self.first[:, :p] @ inverse - self.tables.into_first(b))
        return found.plus(self.tables.by_factor(own, b))

    def moves(self, theta: FloatArray) -> tuple[CrossedAt, FloatArray]:
        """The products at theta, and what the modes lose when a fixed effect rises by one, (Q, p) by factor.

        Parameters
        ----------
        theta : ndarray, shape (m,)

        Raises
        ------
        numpy.linalg.LinAlgError
            The systems are not solved.
        """
        at, p = self._at(theta), self.problem.n_fixed
        return at, effects_of(at, np.concatenate([own[:, :p] for own in self.border]), _EXACT)[0]

    def _in_groups(
        self, at: CrossedAt, solution: Solution, beta: FloatArray, RX: FloatArray
    ) -> tuple[list[FloatArray], list[FloatArray], list[FloatArray]]:
        """Z'V^-1(y - X beta) and Z'V^-1X RX^-1 by factor, and the conditional modes of Lambda u."""
        p = beta.size
        columns = np.zeros((p + 1, p + 1))
        columns[:, 0] = np.append(-beta, 1.0)
        if p:
            columns[:p, 1:] = lapack.dtrtri(RX)[0]
        b = at.to_effects(solution.h @ columns)
        crossed = self.tables.into_first(b)
        first = self.first @ columns
        swept = at.swept(first - crossed)
        rest = self.rest @ columns - self.tables.among_rest(b)
        eliminated = at.eliminate(first - crossed)
        rest = rest - self.tables.from_first(eliminated)
        g: list[FloatArray] = [np.empty(0)] * len(self.tables.factors)
        modes = list(g)
        g[self.tables.first], modes[self.tables.first] = swept, eliminated[:, :1]
        for t in self.tables.rest:
            g[t], modes[t] = rest[self.tables.slices[t]], b[self.tables.slices[t], :1]
        return [own[:, :1] for own in g], [own[:, 1:] for own in g], modes

    def _information(
        self,
        at: CrossedAt,
        solution: Solution,
        g: list[FloatArray],
        theta: FloatArray,
        r2: float,
        RX: FloatArray,
        G: Sequence[FloatArray],
    ) -> tuple[FloatArray, FloatArray]:
        """As `lme4py.engine.linear.criterion.Criterion.derivatives`: traces replaced by quadratic forms."""
        problem, tables, p = self.problem, self.tables, self.problem.n_fixed
        structures = problem.structures
        own = zip(structures.each, structures.split(theta), strict=True)
        h = self._directions(g, [s.covariance_tangents(each) for s, each in own])
        rest = np.concatenate([h[t] for t in tables.rest])
        k, J = problem.factors[tables.first].n_columns, problem.factors[tables.first].n_levels
        A = tables.cross.diagonal[tables.first]
        first = small.apply(A, h[tables.first].reshape(k, J, -1)).reshape(k * J, -1) + tables.into_first(rest)
        others = tables.from_first(h[tables.first]) + tables.among_rest(rest)
        right, found, swept = self._solve(at, first, others, _ROUGH, None)
        q = h[tables.first].T @ first + rest.T @ others - first.T @ swept - right.T @ found.x
        XY = sum(B.T @ own for B, own in zip(self.border, h, strict=True))
        XY = XY - solution.swept_first.T @ first - solution.h.T @ right
        slope = np.sum([(a.T @ b)[:, 0] for a, b in zip(h, g, strict=True)], axis=0)
        if p:
            half = lapack.dtrtrs(RX, XY[:p], trans=1)[0]
            q = q - half.T @ half
        hessian: FloatArray = self.df / r2 * (q - np.outer(slope, slope) / r2)
        for structure, place, each in zip(structures.each, structures.slices, G, strict=True):
            hessian[place, place] += structure.curvature(theta[place], each)
        return 0.5 * (hessian + hessian.T), slope

    def _directions(self, g: list[FloatArray], changes: Sequence[FloatArray]) -> list[FloatArray]:
        """dSigma g for each change, by grouping factor: (k J, m)."""
        ends = np.cumsum([len(own) for own in changes])
        out = []
        for f, factor in enumerate(self.problem.factors):
            values = g[f].reshape(factor.n_columns, -1)
            h = np.zeros((*values.shape, int(ends[-1])))
            for term, columns in zip(factor.terms, factor.columns, strict=True):
                for i, change in enumerate(changes[term], start=int(ends[term]) - len(changes[term])):
                    h[columns, :, i] = change @ values[columns]
            out.append(h.reshape(values.size, -1))
        return out


def _by_term(factors: tuple[Factor, ...], by_factor: Sequence[FloatArray]) -> list[FloatArray]:
    out: dict[int, FloatArray] = {}
    for factor, G in zip(factors, by_factor, strict=True):
        for term, columns in zip(factor.terms, factor.columns, strict=True):
            out[term] = G[..., columns, columns]
    return [out[term] for term in sorted(out)]


def gradients_of(
    structures: CovarianceStructures, factors: tuple[Factor, ...], theta: FloatArray, by_factor: Sequence[FloatArray]
) -> FloatArray:
    """Derivatives in theta from those in the covariances of the factors, (B, m).

    Parameters
    ----------
    structures : CovarianceStructures
    factors : tuple of Factor
    theta : ndarray, shape (m,)
    by_factor : sequence of ndarray, each (B, k, k)
    """
    own = zip(structures.each, structures.split(theta), _by_term(factors, by_factor), strict=True)
    parts = [np.einsum("cab,iab->ci", g, s.covariance_tangents(each)) for s, each, g in own]
    return np.concatenate(parts, axis=1)


def _gram(a: FloatArray, b: FloatArray, factor: Factor) -> FloatArray:
    """Sum over levels and columns of a_j b_j', (k, k)."""
    k = factor.n_columns
    return a.reshape(k, -1) @ b.reshape(k, -1).T
