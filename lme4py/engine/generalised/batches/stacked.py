"""The Laplace criterion with its gradient at many points at once, or for many responses, by arrays of (B, n).

With one scalar effect everything that a group needs is a sum over its rows: the modes are found by Newton steps for all
groups of all points, and the criterion with its gradient (the formulas of `lme4py.engine.generalised.laplace`) follows
without a loop.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from lme4py.engine.generalised.problem import GlmmProblem, Mode
from lme4py.families.nuisance import totals
from lme4py.families.response import ResponseData
from lme4py.linalg.types import BoolArray, FloatArray, IntArray

__all__ = ["StackedModel", "StackedPoints", "can_stack", "has_dispersions"]

# Larger models gain nothing: their arrays alone fill the cache.
_MAX_ROWS, _MAX_FIXED, _MAX_CELLS = 20_000, 40, 240_000
_MAX_NEWTON, _MAX_HALVINGS = 60, 30
# Newton decrement of a group's mode.
_MODE = 1e-14


def has_dispersions(problem: GlmmProblem) -> bool:
    """Whether the points of a model may each have a dispersion of their own.

    Parameters
    ----------
    problem : GlmmProblem
    """
    return problem.has_one_dispersion and bool(problem.family.many_dispersions)


def can_stack(problem: GlmmProblem) -> bool:
    """True for models with one scalar random effect of independent levels, of one predictor, without priors.

    Parameters
    ----------
    problem : GlmmProblem
    """
    one = len(problem.factors) == 1 and not problem.products.has_related
    scalar = one and problem.factors[0].n_columns == 1 and problem.structures.linear
    small = problem.n_obs <= _MAX_ROWS and problem.n_fixed <= _MAX_FIXED
    small = small and problem.n_obs * problem.n_fixed <= _MAX_CELLS
    plain = problem.family.has_thresholds and problem.family.is_plain
    beside = not problem.n_nuisance or problem.has_one_dispersion or plain
    beside = beside and problem.penalty is None
    return scalar and small and beside and not problem.data.parts and problem.family.log_concave


@dataclass
class StackedPoints:
    """B points: parameters (B, m), spherical modes (B, J), value (B,), gradient (B, m), mean weight of the rows (B,).

    Without a mode the value is infinite.
    """

    phi: FloatArray
    u: FloatArray
    value: FloatArray
    gradient: FloatArray
    weight: FloatArray

    def take(self, rows: IntArray) -> StackedPoints:
        """Some of the points.

        Parameters
        ----------
        rows : ndarray of int
        """
        return StackedPoints(self.phi[rows], self.u[rows], self.value[rows], self.gradient[rows], self.weight[rows])

    def put(self, rows: IntArray, other: StackedPoints) -> None:
        """Other points in the places of some, in place.

        Parameters
        ----------
        rows : ndarray of int
        other : StackedPoints
        """
        for one in fields(self):
            getattr(self, one.name)[rows] = getattr(other, one.name)


class StackedModel:
    """A model that `can_stack`, its rows in the order of the groups.

    Parameters
    ----------
    problem : GlmmProblem

    Attributes
    ----------
    order : ndarray of int, shape (n,)
        Of the rows.
    data : ResponseData
        In this order.
    n_levels : int
    """

    def __init__(self, problem: GlmmProblem) -> None:
        self.problem = problem
        self.family = problem.family
        Z = problem.products.rows
        codes = Z.indices.astype(np.intp)
        self.order: IntArray = np.argsort(codes, kind="stable")
        self.codes = codes[self.order]
        self.n_levels = problem.factors[0].n_levels
        self.starts = np.searchsorted(self.codes, np.arange(self.n_levels))
        self.z = Z.data[self.order]
        self.X = problem.X[self.order]
        self.offset = problem.offset[self.order]
        self.data = self._ordered(problem.data)
        self.expected = problem.uses_expected
        self.has_dispersions = has_dispersions(problem)

    def _ordered(self, data: ResponseData) -> ResponseData:
        parts = {
            name: getattr(data, name)[self.order]
            for name in ("y", "trials", "weights")
            if getattr(data, name) is not None
        }
        return replace(data, **parts)

    def gradients(self, phi: FloatArray, centre: Mode) -> FloatArray | None:
        """Gradients at several points beside each other, shape (B, m); None where one of them has no value.

        Parameters
        ----------
        phi : ndarray, shape (B, m)
            With thresholds, or one dispersion, of all points; with one of each where the family takes them.
        centre : Mode
            Near by. The predictor is that of the centre and a change, so that the rounding of a large one is the same
            at all points.
        """
        there = self.offset + self._fixed(centre.beta[None])
        fixed = there + self._fixed(phi[:, 1 : 1 + self.X.shape[1]] - centre.beta)
        found = self._at(phi, fixed, np.tile(centre.u, (phi.shape[0], 1)), self.data)
        return found.gradient if np.isfinite(found.value).all() else None

    def _sum(self, values: FloatArray) -> FloatArray:
        """Sums over the rows of each group: (B, n) to (B, J)."""
        total: FloatArray = np.add.reduceat(values, self.starts, axis=-1)
        return total

    def _rows(self, eta: FloatArray, data: ResponseData, lam: Any, order: Any) -> Any:
        return self.family.derivatives(data, eta, lam, order, expected=self.expected and order == 3)

    def _modes(
        self, fixed: FloatArray, theta: FloatArray, u: FloatArray, data: ResponseData, lam: Any
    ) -> tuple[FloatArray, Any]:
        """Modes of all groups, (B, J), and the rows there, of order 3."""
        scale = theta[:, None] * self.z
        rows = self._rows(fixed + scale * u[:, self.codes], data, lam, 2)
        objective = -2.0 * self._sum(rows.loglik) + u * u
        for _ in range(_MAX_NEWTON):
            slope = self._sum(scale * rows.score) - u
            step = slope / (1.0 + self._sum(scale * scale * rows.w_work))
            done = (slope * step).max(axis=1) < _MODE
            if done.all():
                # The last step costs nothing, and squares what is left of the error.
                u = u + step
                break
            # A response that is done stays where it is, whatever else is in the batch.
            step[done] = 0.0
            # Rounding of a row: log f is a difference of terms of the size of w eta.
            eta = fixed + scale * u[:, self.codes]
            slack = 1e-12 * np.abs(objective) + 1e-12 + 1e-15 * self._sum(rows.w_work * np.abs(eta))
            u, rows, objective = self._moved(fixed, scale, u, step, objective + slack, data, lam)
        return u, self._rows(fixed + scale * u[:, self.codes], data, lam, 3)

    def _moved(
        self,
        fixed: FloatArray,
        scale: FloatArray,
        u: FloatArray,
        step: FloatArray,
        bound: FloatArray,
        data: ResponseData,
        lam: Any,
    ) -> tuple[FloatArray, Any, FloatArray]:
        """One Newton step for every group, shorter where its objective would be above the bound."""
        for _ in range(_MAX_HALVINGS):
            trial = u + step
            rows = self._rows(fixed + scale * trial[:, self.codes], data, lam, 2)
            value = -2.0 * self._sum(rows.loglik) + trial * trial
            worse = ~(value <= bound)
            if not worse.any():
                break
            step = np.where(worse, 0.5 * step, step)
        return trial, rows, value

    def evaluate(self, phi: FloatArray, u: FloatArray, data: ResponseData) -> StackedPoints:
        """Criterion and gradient.

        Parameters
        ----------
        phi : ndarray, shape (B, m)
        u : ndarray, shape (B, J)
            Where the search for the modes begins.
        data : ResponseData
            With a row of y for each point, or one for all.
        """
        return self._at(phi, self.offset + self._fixed(phi[:, 1 : 1 + self.X.shape[1]]), u, data)

    def within_groups(self, points: StackedPoints, data: ResponseData, far: float) -> tuple[FloatArray, FloatArray]:
        """The regression within groups in the working linear models at some points, and how far it is from theirs.

        Parameters
        ----------
        points : StackedPoints
        data : ResponseData
        far : float
            Standard deviations are multiplied by it, so that between groups next to nothing is left.

        Returns
        -------
        beta : ndarray, shape (B, p)
        distance : ndarray, shape (B,)
            Quadratic form of its difference from the estimates; infinite where there is no regression.
        """
        phi, p = points.phi, self.X.shape[1]
        theta, lam = phi[:, 0], self._lambda(phi)
        with np.errstate(all="ignore"):
            eta = self.offset + self._fixed(phi[:, 1 : 1 + p]) + theta[:, None] * self.z * points.u[:, self.codes]
            rows = self._rows(eta, data, lam, 2)
            w = rows.w_work
            square = (far * theta[:, None]) ** 2
            shrunken = square / (1.0 + square * self._sum(self.z * self.z * w))
            columns = [w * column for column in self.X.T] + [w * (eta - self.offset) + rows.score]
            sums = [self._sum(self.z * column) for column in columns]
            cross = np.empty((phi.shape[0], p, p + 1))
            for i, j in np.ndindex(p, p + 1):
                whole = (columns[j] * self.X[:, i]).sum(axis=1)
                cross[:, i, j] = whole - (sums[i] * sums[j] * shrunken).sum(axis=1)
        usable = np.isfinite(cross).all(axis=(1, 2))
        cross[~usable, :, :p] = np.eye(p)
        usable &= np.linalg.eigvalsh(cross[:, :, :p]).min(axis=1, initial=np.inf) > 0.0
        cross[~usable, :, :p] = np.eye(p)
        beta = np.linalg.solve(cross[:, :, :p], cross[:, :, p:])[:, :, 0]
        change = beta - phi[:, 1 : 1 + p]
        distance = np.einsum("bi,bij,bj->b", change, cross[:, :, :p], change)
        return np.where(usable[:, None], beta, phi[:, 1 : 1 + p]), np.where(usable, distance, np.inf)

    def predicts_all(self, points: StackedPoints, data: ResponseData) -> BoolArray:
        """Where every row of a response that is an answer has that which its predictor is for, (B,).

        Parameters
        ----------
        points : StackedPoints
        data : ResponseData
        """
        answers = self.family.answers(data)
        if answers is None:
            return np.zeros(points.value.size, dtype=bool)
        theta, beta = points.phi[:, :1], points.phi[:, 1 : 1 + self.X.shape[1]]
        eta = self.offset + self._fixed(beta) + theta * self.z * points.u[:, self.codes]
        right: BoolArray = (answers * eta > 0.0).all(axis=1)
        return right

    def _lambda(self, phi: FloatArray) -> Any:
        """What the family has beside the predictor: one for each point where the family takes them."""
        return phi[:, -1:] if self.has_dispersions else self.problem.split(phi[0])[2]

    def _fixed(self, beta: FloatArray) -> FloatArray:
        """X beta of B points, (B, n); no matrix product, which would round differently in batches of other sizes."""
        out = np.zeros((beta.shape[0], self.X.shape[0]))
        for j, column in enumerate(self.X.T):
            out += beta[:, j, None] * column
        return out

    def _at(self, phi: FloatArray, fixed: FloatArray, u: FloatArray, data: ResponseData) -> StackedPoints:
        with np.errstate(all="ignore"):
            theta, lam = phi[:, 0], self._lambda(phi)
            u, rows = self._modes(fixed, theta, u, data, lam)
            scale = theta[:, None] * self.z
            w, dw = (rows.w_exp, rows.dw_exp) if self.expected else (rows.w_obs, rows.dw_obs)
            zz = self.z * self.z
            A, A_obs = self._sum(zz * w), self._sum(zz * rows.w_obs)
            square = (theta * theta)[:, None]
            M, H = 1.0 + square * A, 1.0 + square * A_obs
            value = -2.0 * rows.loglik.sum(axis=1) + (u * u).sum(axis=1) + np.log(M).sum(axis=1)
            h = (square / M)[:, self.codes] * zz
            c = h * dw
            a = self._sum(scale * c) / H
            moved = scale * a[:, self.codes]
            rest = c - rows.w_obs * moved - 2.0 * rows.score
            by_theta = (u * self._sum(self.z * rest)).sum(axis=1) + (a * self._sum(self.z * rows.score)).sum(axis=1)
            by_theta += 2.0 * theta * (A / M).sum(axis=1)
            # Column by column, as in `_fixed`.
            gradient = np.column_stack([by_theta, *((rest * column).sum(axis=1) for column in self.X.T)])
            if self.problem.n_nuisance:
                w_lam = rows.w_exp_lam if self.expected else rows.w_obs_lam
                by_lam = totals(w_lam, h) - 2.0 * totals(rows.d_lam) + totals(rows.score_lam, moved)
                gradient = np.hstack([gradient, by_lam])
        usable = np.isfinite(value) & np.isfinite(gradient).all(axis=1)
        return StackedPoints(phi, u, np.where(usable, value, np.inf), gradient, np.abs(w).mean(axis=1))
