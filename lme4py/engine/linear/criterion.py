"""The profiled criterion of a linear mixed model, its gradient and an approximate Hessian.

    -2 log L(theta)   = log|M| + n   (1 + log(2 pi r2 / n))     - sum(log w)                    (ML)
    REML criterion    = log|M| + log|X'V^-1X| + (n-p) (1 + log(2 pi r2 / (n-p))) - sum(log w)   (REML)

with M = I + Lambda'Z'WZ Lambda and r2 the penalised residual sum of squares (Bates et al. 2015, JSS 67(1),
eqs. 34 and 41). Everything happens in the scaled columns of `lme4py.engine.linear.scaling`; the value is on the
user's scale.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import log, pi
from typing import ClassVar

import numpy as np
import scipy.linalg.lapack as lapack

from lme4py.engine.factor.chain import ChainSwept, as_chain
from lme4py.engine.factor.crossproducts import Edges, Factor, SortedEdges
from lme4py.engine.factor.sweep import Sweeper, Swept, SweptBorder
from lme4py.engine.linear.hessian import traces
from lme4py.engine.linear.problem import Problem
from lme4py.frozen import computed_once
from lme4py.linalg import small
from lme4py.linalg.types import FloatArray, IntArray, LinearOperator, SparseMatrix, sparse

# Where less than this is left of a sum of squares, most of its digits are gone: the value would be rounding.
_DIGITS = 1e-13


@dataclass(frozen=True)
class Point:
    """The criterion at one theta, with what is needed for derivatives and solutions.

    Attributes
    ----------
    theta : ndarray, shape (m,)
    T : list of ndarray, each (k, k)
        One per term.
    value : float
    r2 : float
        Penalised residual sum of squares, inside.
    RX : ndarray, shape (p, p)
        Upper triangular, RX'RX = X'V^-1X, inside.
    beta : ndarray, shape (p,)
        Inside.
    """

    theta: FloatArray
    T: list[FloatArray]
    value: float
    r2: float
    RX: FloatArray
    beta: FloatArray

    @property
    def factored(self) -> tuple[Swept, SweptBorder]:
        """The factor, and the columns X and y carried through it."""
        raise NotImplementedError

    @property
    def swept(self) -> Swept:
        """The factor."""
        return self.factored[0]

    @property
    def border(self) -> SweptBorder:
        """The columns X and y carried through the elimination."""
        return self.factored[1]

    def modes(self) -> list[FloatArray]:
        """Conditional modes of each grouping factor, (k J, 1)."""
        return self.swept.back_substitute(self.border, np.append(-self.beta, 1.0)[:, None])[0]

    def solved(self, weights: FloatArray) -> list[FloatArray]:
        """Z'V^-1 [X y] weights by grouping factor, (k J, d)."""
        return self.swept.back_substitute(self.border, weights)[1]

    @property
    def chain(self) -> ChainSwept | None:
        """The factor where it is that of a chain."""
        return as_chain(self.swept)

    def spend(self) -> None:
        """Of large dense blocks no more than one is to be in memory."""
        self.swept.spend()

    def discard(self) -> None:
        """Forget what is large."""
        self.swept.discard()


@dataclass(frozen=True)
class SweptPoint(Point):
    """A point with the factor that made it.

    Attributes
    ----------
    made : tuple of (Swept, SweptBorder)
    """

    made: tuple[Swept, SweptBorder]

    @property
    def factored(self) -> tuple[Swept, SweptBorder]:
        return self.made


@dataclass(frozen=True)
class Derivatives:
    """Gradient and approximate Hessian of the criterion in theta."""

    gradient: FloatArray
    hessian: FloatArray
    G: tuple[FloatArray, ...]  # per term: derivative in Sigma
    forms: tuple[FloatArray, FloatArray]  # as `Criterion.average_information` returns them


class Criterion:
    """-2 log-likelihood (ML) or REML criterion as a function of theta in the engine's columns.

    Parameters
    ----------
    problem : Problem
    reml : bool
    """

    # What a Hessian is made of: second derivatives, and gradients whose cost grows with the number of effects only.
    has_traces: ClassVar[bool] = True
    is_fast: ClassVar[bool] = False

    def __init__(self, problem: Problem, reml: bool) -> None:
        self.problem = problem
        self.reml = reml
        self.sweeper = Sweeper(problem.symbolic, problem.factors, lean=True)
        n, p = problem.cross.n_obs, problem.n_fixed
        self.df = n - p if reml else n
        scaling = problem.scaling
        # -2 log L = log|M| + r2 / sigma^2 + df log(2 pi sigma^2), at sigma^2 = r2 / df where that is not known.
        inside = 1.0 + log(2.0 * pi / self.df) if problem.known is None else log(2.0 * pi * problem.known)
        self.constant = self.df * (inside + 2.0 * log(scaling.y_scale))
        self.constant -= problem.cross.sum_log_weights
        if reml:
            self.constant -= 2.0 * scaling.log_det_C

    @computed_once
    def ZZ(self) -> _ZZ:
        """Products with Z'WZ."""
        return _ZZ(self.problem)

    def __call__(self, theta: FloatArray) -> float:
        """Value at theta (engine's columns)."""
        return self.evaluate(theta).value

    def evaluate(self, theta: FloatArray) -> Point:
        """Value at theta with the factor that made it."""
        return self.evaluate_factors(self.problem.structures.factors(theta), theta)

    def evaluate_factors(self, T: list[FloatArray], theta: FloatArray | None = None) -> Point:
        """Value where the terms have any relative covariances T T'.

        Parameters
        ----------
        T : list of ndarray, each (k, k)
            One per term.
        theta : ndarray, shape (m,), optional
            To which they belong; without it the point has no derivatives in theta.
        """
        swept, border = self.eliminate(T)
        corner = self.problem.base.corner - border.cross(border)
        return SweptPoint(*self.solved(theta, T, corner, swept.log_det), (swept, border))

    def eliminate(self, T: list[FloatArray]) -> tuple[Swept, SweptBorder]:
        """The factor where the terms have these relative covariances T T', and X and y carried through it."""
        swept = self.sweeper.factorize(self.problem.factor_T(T), self.problem.base)
        return swept, swept.sweep_border(self.problem.base.border)

    def solved(
        self, theta: FloatArray | None, T: list[FloatArray], corner: FloatArray, log_det: float
    ) -> tuple[FloatArray, list[FloatArray], float, float, FloatArray, FloatArray]:
        """What a `Point` holds, from the products of X and y after the elimination.

        Parameters
        ----------
        theta : ndarray, shape (m,), or None
        T : list of ndarray, each (k, k)
        corner : ndarray, shape (p + 1, p + 1)
        log_det : float
            log|M|.

        Raises
        ------
        LinAlgError
        """
        problem = self.problem
        p = problem.n_fixed
        # The factor of the bordered matrix holds RX, the right-hand side and r in its last column.
        R, info = lapack.dpotrf(corner, lower=0, clean=1)
        if info != 0 or not (R.diagonal() ** 2 > _DIGITS * problem.base.corner.diagonal()).all():
            raise np.linalg.LinAlgError("the residual variance, or that of a fixed effect, is lost in rounding")
        RX = R[:p, :p]
        beta = lapack.dtrtrs(RX, R[:p, p])[0] if p else np.zeros(0)
        r2 = float(R[p, p]) ** 2
        known = problem.known
        value = log_det + self.constant + (self.df * log(r2) if known is None else r2 / known)
        if self.reml:
            value += 2.0 * float(np.log(RX.diagonal()).sum())
        return np.zeros(0) if theta is None else theta, T, value, r2, RX, beta

    def variance(self, r2: float) -> float:
        """The residual variance in the engine's columns: the one that is known, or its estimate."""
        return self.problem.variance(r2, self.reml)

    def gradient(self, theta: FloatArray) -> FloatArray:
        """Gradient at theta (engine's columns), shape (m,)."""
        point = self.evaluate(theta)
        return self.theta_gradient(point, self.sigma_gradient(point))

    def sigma_gradient(self, point: Point) -> list[FloatArray]:
        """Derivative in the covariance of each term (k, k), relative to sigma^2."""
        p = self.problem.n_fixed
        combination = np.append(-point.beta, 1.0)
        corner = np.outer(combination, combination) / self.variance(point.r2)
        if self.reml and p:
            inverse = lapack.dtrtri(point.RX)[0]
            corner[:p, :p] += inverse @ inverse.T
        by_factor = point.swept.adjoint(point.border, corner, only_sigma=True).sigma
        out: list[FloatArray] = [np.empty(0)] * len(self.problem.structures.each)
        for factor, G in zip(self.problem.factors, by_factor, strict=True):
            for term, columns in zip(factor.terms, factor.columns, strict=True):
                out[term] = G[columns, columns]
        return out

    def theta_gradient(self, point: Point, G: list[FloatArray]) -> FloatArray:
        """Chain rule."""
        return self.problem.structures.covariance_pullback(point.theta, G)

    def derivatives(self, point: Point) -> Derivatives:
        """Gradient and Hessian of the criterion with the average information (Gilmour et al. 1995).

        The average of observed and expected information replaces the traces tr(P V_i P V_j) by quadratic forms, exact
        in expectation; the part from the curvature of Sigma = T T' is exact.
        """
        problem = self.problem
        structures = problem.structures
        G = self.sigma_gradient(point)
        gradient = self.theta_gradient(point, G)
        q, slope = self.average_information(point)
        hessian = self.quadratic(point, q, slope)
        for structure, place, g in zip(structures.each, structures.slices, G, strict=True):
            hessian[place, place] += structure.curvature(point.theta[place], g)
        return Derivatives(gradient, 0.5 * (hessian + hessian.T), tuple(G), (q, slope))

    def quadratic(self, point: Point, q: FloatArray, slope: FloatArray) -> FloatArray:
        """Second derivatives from quadratic forms, less what estimating sigma takes."""
        if self.problem.known is not None:
            return q / self.problem.known
        out: FloatArray = self.df / point.r2 * (q - np.outer(slope, slope) / point.r2)
        return out

    def average_information(
        self, point: Point, changes: Sequence[FloatArray] | None = None
    ) -> tuple[FloatArray, FloatArray]:
        """y'P V_i P V_j P y and y'P V_i P y for all pairs of theta, or of other changes of the covariances.

        Parameters
        ----------
        point : Point
        changes : sequence of ndarray, each (d, k, k), optional
            Of the covariance of each term, in the order of rows of the result.
        """
        problem = self.problem
        changes = self.changes_at(point) if changes is None else changes
        combination = np.append(-point.beta, 1.0)[:, None]
        if not any(map(len, changes)):
            return np.zeros((0, 0)), np.zeros(0)
        if len(problem.factors) == 1 and problem.factors[0].relation is None:
            q, slope, XY = self._forms_of_one(point, combination, changes)
        else:
            q, slope, XY = self._forms(point, point.solved(combination), changes)
        p = problem.n_fixed
        if p:
            half = lapack.dtrtrs(point.RX, XY[:p], trans=1)[0]
            q -= half.T @ half
        return q, slope

    def changes_at(self, point: Point) -> list[FloatArray]:
        """Derivatives of the covariance of each term in its theta, each (m, k, k)."""
        structures = self.problem.structures
        own = zip(structures.each, structures.split(point.theta), strict=True)
        return [structure.covariance_tangents(theta) for structure, theta in own]

    def traces(self, point: Point, changes: Sequence[FloatArray]) -> FloatArray:
        """tr(W S_i W S_j) for all pairs of changes, as of `lme4py.engine.linear.hessian.traces`."""
        return traces(self, point, changes)

    def _forms(
        self, point: Point, g: list[FloatArray], changes: Sequence[FloatArray]
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Quadratic forms in V^-1 of the directions S_i g, their products with g, and with X and y."""
        problem = self.problem
        directions = self._directions(point, g, changes)
        slope = np.zeros(directions[0].shape[1])
        XY = np.zeros((problem.n_fixed + 1, slope.size))
        for f, h in enumerate(directions):
            slope += h.T @ g[f][:, 0]
            XY += problem.base.border[f].T @ h
        border, inner = self.ZZ.apply(directions)
        swept_border = point.swept.sweep_border(border)
        XY -= point.border.cross(swept_border)
        return inner - swept_border.cross(swept_border), slope, XY

    def _forms_of_one(
        self, point: Point, combination: FloatArray, changes: Sequence[FloatArray]
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """The same for one grouping factor, some levels at a time."""
        k, m = self.problem.factors[0].n_columns, sum(map(len, changes))
        border = self.problem.base.border[0].reshape(k, self.problem.factors[0].n_levels, -1)
        q, slope, XY = np.zeros((m, m)), np.zeros(m), np.zeros((border.shape[2], m))
        for levels, stage in point.swept.stages[0].pieces():
            own = small.apply(stage.residual_map, border[:, levels] @ combination).reshape(-1, 1)
            h = self._directions(point, [own], changes)[0]
            products = small.apply(stage.A, h.reshape(k, -1, m)).reshape(-1, m)
            rest = h - stage.apply_E(products)
            q += products.T @ rest
            slope += h.T @ own[:, 0]
            XY += border[:, levels].reshape(-1, border.shape[2]).T @ rest
        return q, slope, XY

    def _directions(self, point: Point, g: list[FloatArray], changes: Sequence[FloatArray]) -> list[FloatArray]:
        """(K (x) dSigma) g for each change, by grouping factor: (k J, m), or for the levels whose g are given."""
        starts = np.cumsum([0, *(len(own) for own in changes)])
        return [self._directions_of(point, f, own, changes, starts) for f, own in enumerate(g)]

    def _directions_of(
        self, point: Point, f: int, g: FloatArray, changes: Sequence[FloatArray], starts: IntArray
    ) -> FloatArray:
        """Those of one grouping factor; the changes of term t are at starts[t] : starts[t + 1]."""
        factor = self.problem.factors[f]
        values = g.reshape(factor.n_columns, -1)
        h = np.zeros((*values.shape, int(starts[-1])))
        for term, columns in zip(factor.terms, factor.columns, strict=True):
            for i, change in enumerate(changes[term], start=int(starts[term])):
                h[columns, :, i] = change @ values[columns]
        return factor.along(h).reshape(values.size, -1)

    def refined(self, theta: FloatArray) -> FloatArray:
        """A start that is no worse than the one given, shape (m,)."""
        return theta

    def with_columns(self, M: FloatArray) -> Criterion:
        """The criterion of the model whose columns are [X y] M, with the same random effects.

        Parameters
        ----------
        M : ndarray, shape (p + 1, p' + 1)
        """
        problem = self.problem
        border = tuple(B @ M for B in problem.base.border)
        corner = M.T @ problem.base.corner @ M
        moved = copy.copy(self)
        moved.problem = replace(
            problem,
            base=replace(problem.base, border=border, corner=corner),
            cross=replace(problem.cross, corner=corner),
        )
        return moved


class _ZZ:
    """Products with Z'WZ, from its blocks."""

    def __init__(self, problem: Problem) -> None:
        self.factors = problem.factors
        self.diagonal = problem.cross.diagonal
        # The factor that is eliminated first has its products with all others in one matrix.
        stages = problem.symbolic.stages
        self.first = stages[0].factor if stages else -1
        self.others = problem.symbolic.remaining_slices[0] if stages else {}
        self.coupling = problem.base.coupling_operator
        self.tables = {
            pair: LinearOperator.of(_edge_matrix(edges, problem.factors[pair[0]], problem.factors[pair[1]]))
            for pair, edges in problem.cross.edges.items()
            if self.first not in pair
        }

    def apply(self, h: list[FloatArray]) -> tuple[list[FloatArray], FloatArray]:
        """Z'WZ h by factor, and h'Z'WZ h."""
        out = []
        for f, factor in enumerate(self.factors):
            k, J = factor.n_columns, factor.n_levels
            out.append(small.apply(self.diagonal[f], h[f].reshape(k, J, -1)).reshape(k * J, -1))
        if self.others:
            out[self.first] += self.coupling.matrix @ np.concatenate([h[t] for t in self.others])
            change = self.coupling.transposed @ h[self.first]
            for t, place in self.others.items():
                out[t] += change[place]
        for (s, t), table in self.tables.items():
            out[s] += table.matrix @ h[t]
            out[t] += table.transposed @ h[s]
        inner = sum((a.T @ b for a, b in zip(h, out, strict=True)), np.zeros((h[0].shape[1], h[0].shape[1])))
        return out, inner


def _edge_matrix(edges: Edges | SortedEdges, s: Factor, t: Factor) -> SparseMatrix:
    """Z_s'W Z_t."""
    k_s, k_t, _ = edges.values.shape
    rows = np.concatenate([a * s.n_levels + edges.rows for a in range(k_s) for _ in range(k_t)])
    columns = np.concatenate([b * t.n_levels + edges.columns for _ in range(k_s) for b in range(k_t)])
    return sparse.coo_array((edges.values.ravel(), (rows, columns)), shape=(s.size, t.size)).tocsr()
