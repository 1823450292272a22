"""The Laplace criterion with its gradient at many points at once, or for many responses, by arrays of (B, n).

With one grouping factor everything that a group needs is a sum over its rows: the modes are found by Newton steps for
all groups of all points, and the criterion with its gradient (the formulas of `lme4py.engine.generalised.laplace`)
follows without a loop over groups or points. Rows are touched by the predictor and by sums alone; with A_j = Z'WZ of
the rows of a group the rest is done with the k x k blocks of

    M_j = I + T'A_j T,      h = diag Z E_j Z',  E_j = T M_j^-1 T',      d log|M_j| / dT = 2 A_j T M_j^-1,

in arrays (k, k, B, J), and with vectors of the effects in arrays (k, B, J).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from lme4py.chunks import chunk
from lme4py.engine.generalised.criteria import BESIDE
from lme4py.engine.generalised.laplace import FLAT, Laplace, theta_gradient
from lme4py.engine.generalised.problem import GlmmProblem
from lme4py.families.nuisance import as_columns, totals
from lme4py.families.response import ResponseData
from lme4py.linalg import small
from lme4py.linalg.types import BoolArray, FloatArray, IntArray

__all__ = ["StackedModel", "StackedPoints", "can_stack", "has_dispersions", "has_own_nuisance", "is_scalar"]

# Larger models gain nothing: their arrays alone fill the cache.
_MAX_ROWS, _MAX_FIXED, _MAX_CELLS = 20_000, 40, 240_000
# More effects of a group than these are left to products of matrices.
_MAX_EFFECTS = 6
# Elements of the rows of points beside each other that are worked on at a time.
_TOGETHER = chunk(2**16)
_MAX_NEWTON, _MAX_HALVINGS = 60, 30
# Full steps from predicted modes: points from which more are needed are no neighbours.
_NEAR_STEPS = 4
# Newton decrement of a group's mode, before the last step squares what is left.
_MODE = 1e-12


def has_dispersions(problem: GlmmProblem) -> bool:
    """Whether the points of a model may each have a dispersion of their own.

    Parameters
    ----------
    problem : GlmmProblem
    """
    return problem.has_one_dispersion and bool(problem.family.many_dispersions)


def has_own_nuisance(problem: GlmmProblem) -> bool:
    """Whether the points of a model may each have parameters beside the predictor of their own.

    Parameters
    ----------
    problem : GlmmProblem
    """
    return bool(problem.n_nuisance) and (has_dispersions(problem) or bool(problem.family.takes_points))


def is_scalar(problem: GlmmProblem) -> bool:
    """Whether there is one scalar random effect of independent levels, whose standard deviation is theta.

    Parameters
    ----------
    problem : GlmmProblem
    """
    one = len(problem.factors) == 1 and not problem.products.has_related
    return one and problem.factors[0].n_columns == 1 and problem.structures.linear


def can_stack(problem: GlmmProblem) -> bool:
    """True for models with one grouping factor of independent levels, of the first predictor, without priors.

    Families that are not log-concave, and further predictors, are there for points beside a mode alone.

    Parameters
    ----------
    problem : GlmmProblem
    """
    one = len(problem.factors) == 1 and not problem.products.has_related and problem.chain is None
    one = one and problem.products.stack.size == 1 and not problem.restricted
    few = one and (is_scalar(problem) or 1 < problem.factors[0].n_columns <= _MAX_EFFECTS)
    small_enough = problem.n_obs <= _MAX_ROWS and problem.n_fixed <= _MAX_FIXED
    small_enough = small_enough and problem.n_obs * problem.n_fixed <= _MAX_CELLS
    family, points = problem.family, bool(problem.family.takes_points)
    plain = family.has_thresholds and family.is_plain
    beside = not problem.n_nuisance or problem.has_one_dispersion or plain or points
    beside = beside and problem.penalty is None
    known = points or (family.log_concave and not problem.data.parts)
    return bool(few and small_enough and beside and known)


@dataclass
class StackedPoints:
    """B points: parameters (B, r), spherical modes (B, k J), value (B,), gradient (B, r), mean weight of the rows (B,).

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
        codes = problem.products.codes[0].astype(np.intp)
        self.order: IntArray = np.argsort(codes, kind="stable")
        self.codes = codes[self.order]
        self.n_levels = problem.factors[0].n_levels
        self.starts = np.searchsorted(self.codes, np.arange(self.n_levels))
        self._counts = np.diff(self.starts, append=self.codes.size)
        self.k = problem.factors[0].n_columns
        Z = problem.products.blocks[0][self.order]
        self.Z = [_column(z) for z in Z.T]
        self.ZZ = {(a, b): _column(Z[:, a] * Z[:, b]) for a in range(self.k) for b in range(a + 1)}
        self.X = problem.X[self.order]
        self.offset = problem.offset[self.order]
        self.data: ResponseData = problem.data.take(self.order)
        self.expected = problem.uses_expected
        self.has_dispersions = has_dispersions(problem)
        self.is_scalar = is_scalar(problem)
        self.m = problem.n_theta

    def gradients(self, phi: FloatArray, centre: Laplace) -> FloatArray | None:
        """Gradients at several points beside each other, shape (B, r); None where one of them has no value.

        Parameters
        ----------
        phi : ndarray, shape (B, r)
            With the parameters beside the predictor of all points, or those of each where the family takes them.
        centre : Laplace
            Near by. The predictor is that of the centre and a change, so that the rounding of a large one is the same
            at all points, and the modes start from those that its rows predict.
        """
        mode, X = centre.mode, self.X
        there = self.offset + X @ mode.beta
        size = max(1, _TOGETHER // max(there.size, 1))
        out = np.empty(phi.shape)
        for start in range(0, phi.shape[0], size):
            some = phi[start : start + size]
            fixed = there + (self._beta(some) - mode.beta) @ X.T
            with np.errstate(all="ignore"):
                T = self._factors(some)
                begin = self._predicted(some, fixed, T, centre)
                found = self._at(some, fixed, T, begin, self.data, beside=True)
            if not np.isfinite(found.value).all():
                return None
            out[start : start + size] = found.gradient
        return out

    def _predicted(self, phi: FloatArray, fixed: FloatArray, T: FloatArray, centre: Laplace) -> FloatArray:
        """Modes, (k, B, J), by a Newton step with rows linear in what has changed: off by the square of the change."""
        mode, order = centre.mode, self.order
        u = np.repeat(mode.u.reshape(self.k, 1, -1), phi.shape[0], axis=1)
        w, score = centre.rows.w_obs[order], centre.rows.score[order]
        score = score - w * (self._predictor(fixed, T, u) - mode.eta[order])
        if has_own_nuisance(self.problem):
            score += (self._lambda(phi) - mode.lam) @ as_columns(centre.rows.score_lam)[order].T
        M = self._blocks(T, self._products(w[None]))
        predicted = u + self._step(small.log_dets_and_inverse(M)[1], self._slope(T, self._sums(score), u))
        return np.where(np.isfinite(predicted), predicted, u)

    # -- sums over the rows of groups ----------------------------------------------------------------------------------

    def _sum(self, values: FloatArray) -> FloatArray:
        """Sums over the rows of each group: (B, n) to (B, J)."""
        total: FloatArray = np.add.reduceat(values, self.starts, axis=-1)
        return total

    def _sums(self, x: FloatArray) -> FloatArray:
        """Z'x, (k, B, J), of rows (B, n)."""
        return np.stack([self._sum(x if z is None else z * x) for z in self.Z])

    def _of_rows(self, values: FloatArray) -> FloatArray:
        """The value of its group for each row: (B, J) to (B, n)."""
        return np.repeat(values, self._counts, axis=1)

    def _products(self, w: FloatArray) -> FloatArray:
        """A = Z'WZ, (k, k, B, J), of weights (B, n)."""
        A = np.empty((self.k, self.k, w.shape[0], self.n_levels))
        for (a, b), zz in self.ZZ.items():
            A[a, b] = A[b, a] = self._sum(w if zz is None else zz * w)
        return A

    def _spread(self, b: FloatArray) -> FloatArray:
        """Z b, (B, n), of effects (k, B, J)."""
        total = _times(self._of_rows(b[0]), self.Z[0])
        for own, z in zip(b[1:], self.Z[1:], strict=True):
            total += _times(self._of_rows(own), z)
        return total

    def _diagonal(self, E: FloatArray) -> FloatArray:
        """The diagonal of Z E Z', (B, n)."""
        total = np.zeros((E.shape[2], self.codes.size))
        for (a, b), zz in self.ZZ.items():
            total += _times(self._of_rows(E[a, b] if a == b else 2.0 * E[a, b]), zz)
        return total

    # -- the effects of groups -----------------------------------------------------------------------------------------

    def _factors(self, phi: FloatArray) -> FloatArray:
        """T of each point, (k, k, B, 1)."""
        if self.is_scalar:
            return phi[:, 0][None, None, :, None]
        return np.stack([self.problem.factor_T(theta)[0] for theta in phi[:, : self.m]], axis=-1)[..., None]

    def _predictor(self, fixed: FloatArray, T: FloatArray, u: FloatArray) -> FloatArray:
        """eta, (B, n)."""
        eta = self._spread(small.product(T, u[:, None])[:, 0])
        eta += fixed
        return eta

    @staticmethod
    def _slope(T: FloatArray, gathered: FloatArray, u: FloatArray) -> FloatArray:
        """T'Z's - u, (k, B, J)."""
        slope: FloatArray = small.product(small.transpose(T), gathered[:, None])[:, 0] - u
        return slope

    def _blocks(self, T: FloatArray, A: FloatArray) -> FloatArray:
        """M = I + T'AT, (k, k, B, J)."""
        M = small.product(small.product(small.transpose(T), A), T)
        for a in range(self.k):
            M[a, a] += 1.0
        return M

    @staticmethod
    def _step(inverse: FloatArray, slope: FloatArray) -> FloatArray:
        """M^-1 times a slope, (k, B, J)."""
        step: FloatArray = small.product(inverse, slope[:, None])[:, 0]
        return step

    def _rows(self, eta: FloatArray, data: ResponseData, lam: Any, order: Any) -> Any:
        return self.family.derivatives(data, eta, lam, order, expected=self.expected and order == 3)

    # -- modes ---------------------------------------------------------------------------------------------------------

    def _modes(
        self, fixed: FloatArray, T: FloatArray, u: FloatArray, data: ResponseData, lam: Any
    ) -> tuple[FloatArray, Any]:
        """Modes of all groups, (k, B, J), and the rows there, of order 3."""
        rows = self._rows(self._predictor(fixed, T, u), data, lam, 2)
        objective = -2.0 * self._sum(rows.loglik) + (u * u).sum(axis=0)
        for _ in range(_MAX_NEWTON):
            slope = self._slope(T, self._sums(rows.score), u)
            step = self._step(small.log_dets_and_inverse(self._blocks(T, self._products(rows.w_work)))[1], slope)
            done = (slope * step).sum(axis=0).max(axis=1) < _MODE
            if done.all():
                # The last step costs nothing, and squares what is left of the error.
                u = u + step
                break
            # A response that is done stays where it is, whatever else is in the batch.
            step[:, done] = 0.0
            # Rounding of a row: log f is a difference of terms of the size of w eta.
            eta = self._predictor(fixed, T, u)
            slack = 1e-12 * np.abs(objective) + 1e-12 + 1e-15 * self._sum(rows.w_work * np.abs(eta))
            u, rows, objective = self._moved(fixed, T, u, step, objective + slack, data, lam)
        return u, self._rows(self._predictor(fixed, T, u), data, lam, 3)

    def _modes_beside(
        self, fixed: FloatArray, T: FloatArray, u: FloatArray, data: ResponseData, lam: Any
    ) -> tuple[FloatArray, Any, BoolArray]:
        """The same by full steps from predicted modes, and at which points that leads to modes, (B,)."""
        done: BoolArray = np.zeros(u.shape[1], dtype=bool)
        for _ in range(_NEAR_STEPS):
            rows = self._rows(self._predictor(fixed, T, u), data, lam, 2)
            slope = self._slope(T, self._sums(rows.score), u)
            step = self._step(small.log_dets_and_inverse(self._blocks(T, self._products(rows.w_obs)))[1], slope)
            decrease = (slope * step).sum(axis=0)
            # The last step costs nothing, as above.
            u = np.where(done[:, None], u, u + step)
            done = done | ((decrease >= 0.0).all(axis=1) & (decrease.sum(axis=1) < BESIDE))
            if done.all():
                break
        return u, self._rows(self._predictor(fixed, T, u), data, lam, 3), done

    def _moved(
        self,
        fixed: FloatArray,
        T: FloatArray,
        u: FloatArray,
        step: FloatArray,
        bound: FloatArray,
        data: ResponseData,
        lam: Any,
    ) -> tuple[FloatArray, Any, FloatArray]:
        """One Newton step for every group, shorter where its objective would be above the bound."""
        for _ in range(_MAX_HALVINGS):
            trial = u + step
            rows = self._rows(self._predictor(fixed, T, trial), data, lam, 2)
            value = -2.0 * self._sum(rows.loglik) + (trial * trial).sum(axis=0)
            worse = ~(value <= bound)
            if not worse.any():
                break
            step = np.where(worse, 0.5 * step, step)
        return trial, rows, value

    # -- the criterion -------------------------------------------------------------------------------------------------

    def evaluate(self, phi: FloatArray, u: FloatArray, data: ResponseData) -> StackedPoints:
        """Criterion and gradient.

        Parameters
        ----------
        phi : ndarray, shape (B, r)
        u : ndarray, shape (B, k J)
            Where the search for the modes begins.
        data : ResponseData
            With a row of y for each point, or one for all.
        """
        begin = self._by_column(u)
        return self._at(phi, self.offset + self._fixed(self._beta(phi)), self._factors(phi), begin, data)

    def _by_column(self, u: FloatArray) -> FloatArray:
        """Effects (B, k J) as (k, B, J)."""
        return u.reshape(u.shape[0], self.k, -1).swapaxes(0, 1)

    def _eta(self, points: StackedPoints) -> FloatArray:
        """The linear predictor of each point, (B, n)."""
        fixed = self.offset + self._fixed(self._beta(points.phi))
        return self._predictor(fixed, self._factors(points.phi), self._by_column(points.u))

    def _beta(self, phi: FloatArray) -> FloatArray:
        """Fixed effects, (B, p)."""
        return phi[:, self.m : self.m + self.X.shape[1]]

    def within_groups(self, points: StackedPoints, data: ResponseData, far: float) -> tuple[FloatArray, FloatArray]:
        """The regression within groups in the working linear models at some points, and how far it is from theirs.

        Of models with a scalar random effect.

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
            eta = self._eta(points)
            rows = self._rows(eta, data, lam, 2)
            w = rows.w_work
            square = (far * theta[:, None]) ** 2
            shrunken = square / (1.0 + square * self._products(w)[0, 0])
            columns = [w * column for column in self.X.T] + [w * (eta - self.offset) + rows.score]
            sums = [self._sums(column)[0] for column in columns]
            cross = np.empty((phi.shape[0], p, p + 1))
            for i, j in np.ndindex(p, p + 1):
                whole = (columns[j] * self.X[:, i]).sum(axis=1)
                cross[:, i, j] = whole - (sums[i] * sums[j] * shrunken).sum(axis=1)
        usable = np.isfinite(cross).all(axis=(1, 2))
        cross[~usable, :, :p] = np.eye(p)
        usable &= np.linalg.eigvalsh(cross[:, :, :p]).min(axis=1, initial=np.inf) > 0.0
        cross[~usable, :, :p] = np.eye(p)
        beta = np.linalg.solve(cross[:, :, :p], cross[:, :, p:])[:, :, 0]
        change = beta - self._beta(phi)
        distance = np.einsum("bi,bij,bj->b", change, cross[:, :, :p], change)
        return np.where(usable[:, None], beta, self._beta(phi)), np.where(usable, distance, np.inf)

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
        right: BoolArray = (answers * self._eta(points) > 0.0).all(axis=1)
        return right

    def _lambda(self, phi: FloatArray) -> Any:
        """What the family has beside the predictor: that of each point where the family takes them."""
        if has_own_nuisance(self.problem):
            return phi[:, self.m + self.X.shape[1] :]
        return self.problem.split(phi[0])[2]

    def _fixed(self, beta: FloatArray) -> FloatArray:
        """X beta of B points, (B, n); no matrix product, which would round differently in batches of other sizes."""
        out = np.zeros((beta.shape[0], self.X.shape[0]))
        for j, column in enumerate(self.X.T):
            out += beta[:, j, None] * column
        return out

    def _at(
        self,
        phi: FloatArray,
        fixed: FloatArray,
        T: FloatArray,
        u: FloatArray,
        data: ResponseData,
        beside: bool = False,
    ) -> StackedPoints:
        """The criterion at the modes, to which the way begins at u, (k, B, J); `beside` them, it is short."""
        usable: BoolArray = np.ones(phi.shape[0], dtype=bool)
        with np.errstate(all="ignore"):
            if beside:
                u, rows, usable = self._modes_beside(fixed, T, u, data, self._lambda(phi))
            else:
                u, rows = self._modes(fixed, T, u, data, self._lambda(phi))
            w, dw = (rows.w_exp, rows.dw_exp) if self.expected else (rows.w_obs, rows.dw_obs)
            A = self._products(w)
            log_det, inverse = small.log_dets_and_inverse(self._blocks(T, A))
            A_obs, inverse_obs = A, inverse
            if self.expected:
                A_obs = self._products(rows.w_obs)
                inverse_obs = small.log_dets_and_inverse(self._blocks(T, A_obs))[1]
            value = -2.0 * rows.loglik.sum(axis=1) + (u * u).sum(axis=0).sum(axis=1) + log_det.sum(axis=1)
            half = small.product(T, inverse)
            h = self._diagonal(small.product(half, small.transpose(T)))
            c = h * dw
            gathered, scores = self._sums(c), self._sums(rows.score)
            a = self._step(inverse_obs, small.product(small.transpose(T), gathered[:, None])[:, 0])
            b = small.product(T, a[:, None])
            moved = self._spread(b[:, 0])
            rest = c - rows.w_obs * moved - 2.0 * rows.score
            by_T = 2.0 * small.product(A, half) + scores[:, None] * a[None]
            by_T += (gathered - small.product(A_obs, b)[:, 0] - 2.0 * scores)[:, None] * u[None]
            # Column by column, as in `_fixed`, where the numbers must not depend on what else is in the batch.
            by_beta = [rest @ self.X] if beside else [(rest * column).sum(axis=1) for column in self.X.T]
            gradient = np.column_stack([self._by_theta(phi, by_T.sum(axis=3)), *by_beta])
            if self.problem.n_nuisance:
                w_lam = rows.w_exp_lam if self.expected else rows.w_obs_lam
                by_lam = totals(w_lam, h) - 2.0 * totals(rows.d_lam) + totals(rows.score_lam, moved)
                gradient = np.hstack([gradient, by_lam])
        usable = usable & np.isfinite(value) & np.isfinite(gradient).all(axis=1)
        if not self.family.log_concave:
            # As of single points: where a group's curvature nearly vanishes there is no value.
            usable &= inverse.max(axis=(0, 1, 3)) <= FLAT
        modes = u.swapaxes(0, 1).reshape(phi.shape[0], -1)
        return StackedPoints(phi, modes, np.where(usable, value, np.inf), gradient, np.abs(w).mean(axis=1))

    def _by_theta(self, phi: FloatArray, by_T: FloatArray) -> FloatArray:
        """Derivatives in theta, (B, m), from those in T, (k, k, B)."""
        if self.is_scalar:
            scalar: FloatArray = by_T[0, 0][:, None]
            return scalar
        points = zip(phi[:, : self.m], np.moveaxis(by_T, 2, 0), strict=True)
        return np.array([theta_gradient(self.problem, theta, [own]) for theta, own in points])


def _column(z: FloatArray) -> FloatArray | None:
    """A column in one piece; None for ones, by which nothing need be multiplied."""
    return None if (z == 1.0).all() else np.ascontiguousarray(z)


def _times(x: FloatArray, z: FloatArray | None) -> FloatArray:
    """New rows x, times a column in place."""
    if z is not None:
        x *= z
    return x
