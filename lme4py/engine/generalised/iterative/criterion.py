"""Laplace's approximation of crossed effects without a factor of them.

With D_j = deta / dphi_j, the modes moving along, and q_j = dW/deta D_j (+ dW/dlambda), the gradient is

    d/dtheta = <dlog|M|/dSigma - Z's s'Z, dSigma>  + tr(Lambda M^-1 Lambda' Z'diag(q)Z)
    d/dbeta  = -2 X's                              + the same
    d/dlambda = -2 dlog f/dlambda                  + the same

where log|M|, its derivative in Sigma and the traces come from probes (`lme4py.engine.factor.crossed_probes`): no row
needs a leverage of its own. The D_j are X_j - Z Lambda M^-1 Lambda' Z'W X_j and the like: systems that are solved
exactly, and that the average information and the prediction of the next mode are made of too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lme4py.engine.factor.crossed_factor import CrossedFactor, ExactValue
from lme4py.engine.factor.crossed_inverse import LevelBlocks, effects_of, exact_blocks, probed_blocks
from lme4py.engine.factor.crossed_probes import CrossedProbes, WeightChange
from lme4py.engine.generalised.iterative.cells import CellProducts, times
from lme4py.engine.generalised.iterative.mode import CellMode, LastPass, last_pass, mode_of
from lme4py.engine.generalised.laplace import directions, outer_by_factor, with_dispersion, working_hessian
from lme4py.engine.generalised.problem import GlmmProblem
from lme4py.engine.linear.stochastic import gradients_of
from lme4py.engine.linear.stochastic_solve import NothingProved, ProbedPoint
from lme4py.linalg.types import FloatArray

__all__ = ["IterativeLaplace", "LaplacePoint"]

# Residuals of the systems that the gradient and standard errors are made from.
_EXACT = 1e-9
# Step of the differences of gradients in units of 1 / sqrt(curvature): their noise is that of modes, whose decrease is
# 1e-10. And their probes, the same at both ends.
_DIFFERENCE, _PROBES = 0.02, 8
# Of more fixed effects the information is taken.
_MOST_FIXED = 10
# Relative standard deviations below this have no inverse that is worth computing with.
_NO_INVERSE = 1e-6


class NextMode(NamedTuple):
    """What the next mode is predicted from: the parameters, b, and its derivatives (Q, r)."""

    phi: FloatArray
    b: FloatArray
    slopes: FloatArray


@dataclass(frozen=True)
class LaplacePoint(ProbedPoint):
    """The criterion at one phi = (theta, beta, log dispersion).

    Attributes
    ----------
    b : ndarray, shape (Q,)
        The conditional modes, Lambda u.
    """

    b: FloatArray


@dataclass(frozen=True)
class _Prepared:
    """All that no probe is needed for."""

    phi: FloatArray
    mode: CellMode
    last: LastPass
    slopes: FloatArray
    changes: list[WeightChange]
    swept: FloatArray
    iterations: int


class IterativeLaplace:
    """-2 log-likelihood (Laplace) in phi = (theta, beta, log dispersion), log|M| by probes.

    Parameters
    ----------
    problem : GlmmProblem
        One that `is_iterative`.
    seed : int
    """

    parameters = "the estimates"

    def __init__(self, problem: GlmmProblem, seed: int = 0) -> None:
        self.problem, self.seed = problem, seed
        self.products: CellProducts = problem.products  # type: ignore[assignment]
        self.probes = CrossedProbes(self.size, seed)
        self._known: _Prepared | None = None

    @property
    def size(self) -> int:
        """Rows of the system that is left: the most directions that there are."""
        return self.products.tables.size

    def depth(self, phi: FloatArray) -> float:
        """The smallest standard deviation."""
        return self.problem.structures.depth(phi[: self.problem.n_theta])

    def learn_directions(self, phi: FloatArray, count: int) -> None:
        """Directions that probes leave out, those at one phi.

        Parameters
        ----------
        phi : ndarray
        count : int
        """
        self.probes.learn_directions(self._prepared(phi, None).mode.at, count)

    def evaluate(self, phi: FloatArray, probes: int, start: NextMode | None = None) -> LaplacePoint:
        """Value, gradient and average information.

        Parameters
        ----------
        phi : ndarray
        probes : int
        start : NextMode, optional
            `h` of a point near by.

        Raises
        ------
        numpy.linalg.LinAlgError
            There is no mode, or systems are not solved.
        NothingProved
            A dispersion at the end of its range.
        """
        problem = self.problem
        known = self._prepared(phi, start)
        mode, last = known.mode, known.last
        probed = self.probes.probe(mode.at, probes, known.changes)
        m, p, d = problem.n_theta, problem.n_fixed, problem.n_nuisance
        score = outer_by_factor(problem.factors, mode.score, mode.score)
        by_factor = [G - s for G, s in zip(probed.G, score, strict=True)]
        gradients = probed.along
        gradients[:, :m] += gradients_of(problem.structures, problem.factors, mode.theta, by_factor)
        gradients[:, m : m + p] -= 2.0 * last.Xs
        if d:
            gradients[:, -1] -= 2.0 * last.d_lam
        information = working_hessian(problem, mode, [G.mean(axis=0) for G in probed.G], known.swept)
        if d:
            information = with_dispersion(information, last.curvature)
        values = mode.objective + probed.log_det
        return LaplacePoint(
            theta=phi,
            value=float(values.mean()),
            gradient=gradients.mean(axis=0),
            information=information,
            values=values,
            gradients=gradients,
            h=NextMode(phi, mode.b, known.slopes),
            iterations=max(known.iterations, probed.iterations),
            b=mode.b,
        )

    def by_factor(self, phi: FloatArray) -> ExactValue:
        """The value by a factor in tiles, without probes' error.

        Parameters
        ----------
        phi : ndarray

        Raises
        ------
        DesignError
            The tiles do not fit into memory.
        numpy.linalg.LinAlgError
            There is no mode, or the matrix is not positive definite in their precision.
        """
        mode = self._mode(phi)
        found = CrossedFactor(mode.at).log_det(self.seed)
        return ExactValue(mode.objective + found.value, found.error)

    def level_blocks(self, phi: FloatArray, fixed: FloatArray | None, exact: bool) -> LevelBlocks:
        """What the data leave of the effects of each level, in the engine's columns.

        Parameters
        ----------
        phi : ndarray
        fixed : ndarray, shape (p, p), or None
            A root of the covariance of the fixed effects, where their uncertainty counts.
        exact : bool
            By a factor in tiles, not by probes.

        Raises
        ------
        DesignError
            The tiles do not fit into memory.
        numpy.linalg.LinAlgError
            There is no mode, or the matrix is not positive definite in their precision.
        """
        mode = self._mode(phi)
        found = exact_blocks(mode.at) if exact else probed_blocks(mode.at, self.seed)
        if fixed is None:
            return found
        own = effects_of(mode.at, last_pass(self.problem, mode).ZWX @ fixed, _EXACT)[0]
        return found.plus(self.products.split(own))

    def moves(self, phi: FloatArray) -> tuple[CellMode, FloatArray]:
        """The mode, and what it loses when a fixed effect or the log dispersion rises by one, (Q, p + d) by factor.

        Parameters
        ----------
        phi : ndarray

        Raises
        ------
        numpy.linalg.LinAlgError
            There is no mode, or the systems are not solved.
        """
        mode = self._mode(phi)
        last = last_pass(self.problem, mode)
        return mode, effects_of(mode.at, np.hstack([last.ZWX, -last.Z_lam]), _EXACT)[0]

    def _mode(self, phi: FloatArray) -> CellMode:
        """The mode, with nothing beside it."""
        known, start = self._known, np.zeros(self.products.size)
        if known is not None and np.array_equal(known.phi, phi):
            start = known.mode.b
        # What derivatives were made of would stand beside the factor.
        self._known = known = None
        return mode_of(self.problem, phi, start)

    def hessian(self, point: LaplacePoint) -> FloatArray:
        """Second derivatives at a minimum: differences of gradients.

        The working model leaves out what the weights change by, which standard errors of variances depend on by
        several per cent; those of fixed effects hardly do, and of many there the information is taken.

        Parameters
        ----------
        point : LaplacePoint
            A minimum.

        Raises
        ------
        numpy.linalg.LinAlgError
            There is no mode beside it, or the differences are not positive definite.
        """
        m, size = self.problem.n_theta, point.theta.size
        beta = range(m, m + self.problem.n_fixed)
        moving = [i for i in range(size) if i not in beta or len(beta) <= _MOST_FIXED]
        hessian, here = point.information.copy(), self.evaluate(point.theta, _PROBES)
        rows = np.zeros((len(moving), size))
        for row, i in zip(rows, moving, strict=True):
            step = _DIFFERENCE / np.sqrt(hessian[i, i])
            there = point.theta.copy()
            there[i] += step
            row[:] = (self.evaluate(there, _PROBES, point.h).gradient - here.gradient) / step
        hessian[moving], hessian[:, moving] = rows, rows.T
        hessian[np.ix_(moving, moving)] = 0.5 * (rows[:, moving] + rows[:, moving].T)
        np.linalg.cholesky(hessian)
        return hessian

    # ----------------------------------------------------------------------------------------------------------------

    def _prepared(self, phi: FloatArray, start: NextMode | None) -> _Prepared:
        if self._known is not None and np.array_equal(self._known.phi, phi):
            return self._known
        problem = self.problem
        if problem.in_tail(phi[-1]) or problem.beyond_limit(problem.split(phi)[2]):
            instead = problem.limit_model if problem.has_limit else "another family"
            raise NothingProved(
                "the dispersion goes to the end of its range, where the iterative block proves nothing: take "
                f"{instead}, or use control={{'block': 'exact'}}."
            )
        if self.depth(phi) < _NO_INVERSE:
            raise np.linalg.LinAlgError("a variance is zero at this point")
        b = np.zeros(self.products.size) if start is None else start.b + start.slopes @ (phi - start.phi)
        # Two sets of numbers for every cell would be one too many.
        self._known = None
        self._known = self._prepare(phi, mode_of(problem, phi, b))
        return self._known

    def _prepare(self, phi: FloatArray, mode: CellMode) -> _Prepared:
        """Derivatives of the predictor and the average information from systems that are solved exactly."""
        problem, m = self.problem, self.problem.n_theta
        last = last_pass(problem, mode)
        h = directions(problem, mode)
        gathered = np.hstack([times(mode.at.tables, h), last.ZWX])
        solved, iterations = effects_of(mode.at, np.hstack([gathered, last.Z_lam]), _EXACT)
        own = solved[:, : gathered.shape[1]]
        corner = np.empty((gathered.shape[1],) * 2)
        corner[:m] = h.T @ gathered
        corner[:, :m] = corner[:m].T
        corner[m:, m:] = last.XWX
        swept = corner - gathered.T @ own
        slopes = np.hstack([h - own[:, :m], -own[:, m:], solved[:, gathered.shape[1] :]])
        changes = [self._change(last, i, slope) for i, slope in enumerate(slopes.T)]
        return _Prepared(phi, mode, last, slopes, changes, swept, max(iterations, mode.iterations))

    def _change(self, last: LastPass, i: int, slope: FloatArray) -> WeightChange:
        """How the weights change along one parameter."""
        problem, column = self.problem, i - self.problem.n_theta
        q = np.empty(problem.n_obs)
        for place in self.products.rows():
            own = self.products.spread(slope, place)
            if 0 <= column < problem.n_fixed:
                own += problem.X[place, column]
            own *= last.dw[place]
            if column >= problem.n_fixed and last.w_lam is not None:
                own += last.w_lam[place]
            q[place] = own
        return self.products.base(q)
