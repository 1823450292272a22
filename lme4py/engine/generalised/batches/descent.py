"""Many Laplace fits at once: each response from its start down to a minimum, on the boundary where that is as low.

The parameters of a response are theta, beta and, for families that have one, the log dispersion. They move by
trust-region steps whose Hessian learns from the gradients (symmetric rank one). What a response does depends on nothing
else in the batch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lme4py.engine.certificate import CONVERGED
from lme4py.engine.generalised.batches.stacked import StackedModel, StackedPoints
from lme4py.engine.generalised.criteria import INWARDS
from lme4py.families.response import ResponseData
from lme4py.families.rows import DispersionLimit
from lme4py.linalg.newton import newton_steps
from lme4py.linalg.types import BoolArray, FloatArray, IntArray

__all__ = ["Descent", "StackedDescent"]

_MAX_ITERATIONS = 40
# Stop when the criterion can fall by less than this; as for single fits.
_TOLERANCE = 1e-9
# Standard deviations below this are compared with zero.
_SMALL = 0.02
# First trust-region radius, in standard errors.
_RADIUS = 4.0
# A point on the boundary is taken where the criterion is no higher than this part of it.
_EQUAL = 1e-8
# Arrays are made anew for fewer responses when no more than this share is left.
_LEFT = 0.75


@dataclass
class Descent:
    """Where the descents of B responses are.

    Attributes
    ----------
    points : StackedPoints
    hessian : ndarray, shape (B, m, m)
        What the steps have learnt.
    held : ndarray of bool, shape (B, m)
        Parameters at the end of their range: a standard deviation of zero, a dispersion at its limit.
    converged : ndarray of bool, shape (B,)
        False also where a small standard deviation, or a dispersion near its limit, is no better than the boundary.
    """

    points: StackedPoints
    hessian: FloatArray
    held: BoolArray
    converged: BoolArray

    @property
    def phi(self) -> FloatArray:
        """Parameters, (B, m)."""
        return self.points.phi

    @property
    def value(self) -> FloatArray:
        """-2 log-likelihoods, (B,)."""
        return self.points.value

    def take(self, rows: IntArray) -> Descent:
        """Some of the responses.

        Parameters
        ----------
        rows : ndarray of int
        """
        return Descent(self.points.take(rows), self.hessian[rows], self.held[rows], self.converged[rows])

    def put(self, rows: IntArray, other: Descent) -> None:
        """Other ends of some responses, in place.

        Parameters
        ----------
        rows : ndarray of int
        other : Descent
        """
        self.points.put(rows, other.points)
        self.hessian[rows], self.held[rows] = other.hessian, other.held
        self.converged[rows] = other.converged


class StackedDescent:
    """The ways down of many responses of one model.

    Parameters
    ----------
    model : StackedModel
    Y : ndarray, shape (n, B)
        In the form of `ResponseData.y` (binomial: counts).
    """

    def __init__(self, model: StackedModel, Y: FloatArray) -> None:
        self.model, self.counts = model, Y
        self.data = replace(model.data, y=np.ascontiguousarray(Y[model.order].T))
        self.units = self._units() if model.has_dispersions and model.problem.has_limit else None

    def _units(self) -> FloatArray:
        """Units of the dispersion of each response, (B,)."""
        family = self.model.family
        return np.array([family.lambda_unit(self.data.with_y(y)) for y in self.data.y])

    # -- pieces --------------------------------------------------------------------------------------------------------

    def first(self, phi: FloatArray, hessian: FloatArray | None = None) -> Descent:
        """The descents at their starts.

        Parameters
        ----------
        phi : ndarray, shape (B, m)
        hessian : ndarray, shape (m, m), optional
            By differences of the gradients of each response where it is not given.
        """
        B, m = phi.shape
        here = self.model.evaluate(phi, np.zeros((B, self.model.n_levels)), self.data)
        model = self._first_hessian(here) if hessian is None else np.tile(hessian, (B, 1, 1))
        return Descent(here, model, np.zeros((B, m), dtype=bool), np.zeros(B, dtype=bool))

    def _first_hessian(self, here: StackedPoints) -> FloatArray:
        """By differences on one side: the steps correct what they lack."""
        B, m = here.phi.shape
        step = 1e-4
        hessian = np.empty((B, m, m))
        for i in range(m):
            move = np.zeros(m)
            move[i] = step
            beside = self.model.evaluate(here.phi + move, here.u, self.data)
            hessian[:, i] = (beside.gradient - here.gradient) / step
        hessian = 0.5 * (hessian + hessian.transpose(0, 2, 1))
        unusable = ~np.isfinite(hessian).all(axis=(1, 2))
        hessian[unusable] = np.eye(m) * float(self.model.problem.n_obs)
        return hessian

    def rows_of(self, rows: IntArray) -> ResponseData:
        """The data of some responses.

        Parameters
        ----------
        rows : ndarray of int
        """
        whole = rows.size == self.data.y.shape[0]
        return self.data if whole else self.data.with_y(self.data.y[rows])

    # -- the whole way -------------------------------------------------------------------------------------------------

    def down(self, state: Descent) -> Descent:
        """To a minimum, or to the boundary where the criterion is no higher there, in place.

        Parameters
        ----------
        state : Descent
            At the starts.
        """
        rows = np.arange(state.converged.size)
        self._descend(state, rows)
        self._try_zeros(state)
        self._try_limits(state)
        return state

    def _try_zeros(self, state: Descent) -> None:
        """Small standard deviations are compared with none, from which the criterion has to rise."""
        small = state.converged & (np.abs(state.points.phi[:, 0]) < _SMALL) & ~state.held[:, 0]
        rows = np.flatnonzero(small)
        self._try(state, rows, 0, np.zeros(rows.size))
        at_zero = rows[state.converged[rows]]
        if at_zero.size:
            phi = state.points.phi[at_zero].copy()
            phi[:, 0] = _SMALL
            beside = self.model.evaluate(phi, state.points.u[at_zero], self.rows_of(at_zero))
            state.converged[at_zero] = beside.gradient[:, 0] > 0.0

    def _try_limits(self, state: Descent) -> None:
        """Dispersions in the tail of the likelihood are compared with the limit, and brought back where it is none."""
        if self.units is None:
            return
        everyone = np.arange(state.converged.size)
        rows = everyone[self._in_tail(everyone, state) & np.isfinite(state.value)]
        self._try(state, rows, -1, self._limit.stand_in + self._unit_of(rows))
        inside = rows[~state.converged[rows]]
        inside = np.concatenate([inside, self._off_limit(state, rows[state.converged[rows]])])
        if inside.size:
            own = state.take(inside)
            self._descend(own, inside, through=True)
            state.put(inside, own)
        self._try_zeros(state)

    def _unit_of(self, rows: IntArray) -> FloatArray:
        return np.zeros(rows.size) if self.units is None else self.units[rows]

    @property
    def _limit(self) -> DispersionLimit:
        limit: DispersionLimit = self.model.family.limit
        return limit

    def _in_tail(self, rows: IntArray, state: Descent) -> BoolArray:
        """Whose dispersion, of the responses at `rows`, is on its way to the limit, where the slope vanishes."""
        far = (state.phi[:, -1] - self._unit_of(rows)) * np.sign(self._limit.stand_in)
        return np.asarray((far >= abs(self._limit.tail)) & ~state.held[:, -1])

    def _off_limit(self, state: Descent, rows: IntArray) -> IntArray:
        """Responses whose criterion falls from the limit inwards, moved there in place.

        In s = exp(-|lambda - unit|) there is a slope at the limit; two gradients give a parabola, and its minimum. As
        `lme4py.engine.generalised.descent.off_limit` for single fits.
        """
        if not rows.size:
            return rows
        side, unit = float(np.sign(self._limit.stand_in)), self._unit_of(rows)
        slopes = []
        for share in INWARDS:
            phi = state.phi[rows].copy()
            phi[:, -1] = unit - side * np.log(share)
            there = self.model.evaluate(phi, state.points.u[rows], self.rows_of(rows))
            slopes.append(-side * there.gradient[:, -1] / share)
        curvature = (slopes[1] - slopes[0]) / (INWARDS[1] - INWARDS[0])
        at_limit = slopes[0] - curvature * INWARDS[0]
        bent = np.where(curvature > 0.0, curvature, 1e-300)
        falls = (at_limit < 0.0) & ~((curvature > 0.0) & (0.5 * at_limit**2 / bent < CONVERGED))
        best = np.clip(np.where(curvature > 0.0, -at_limit / bent, np.inf), INWARDS[0], 0.3)
        moved = rows[falls]
        if moved.size:
            own = state.take(moved)
            phi = own.phi.copy()
            phi[:, -1] = unit[falls] - side * np.log(best[falls])
            hessian = own.hessian.copy()
            hessian[:, -1, :] = hessian[:, :, -1] = 0.0
            hessian[:, -1, -1] = np.maximum(np.abs(curvature[falls]) * best[falls] ** 2, 1e-3)
            here = self.model.evaluate(phi, own.points.u, self.rows_of(moved))
            held = own.held.copy()
            held[:, -1] = False
            state.put(moved, Descent(here, hessian, held, np.zeros(moved.size, dtype=bool)))
        return moved

    def _try(self, state: Descent, rows: IntArray, place: int, values: FloatArray) -> None:
        """Descents of some responses with one parameter held, which count where they end no higher; else none does."""
        if not rows.size:
            return
        before = state.take(rows)
        phi = before.points.phi.copy()
        phi[:, place] = values
        here = self.model.evaluate(phi, before.points.u, self.rows_of(rows))
        held = before.held.copy()
        held[:, place] = True
        trial = Descent(here, before.hessian.copy(), held, np.zeros(rows.size, dtype=bool))
        self._descend(trial, rows)
        bound = before.points.value + _EQUAL * np.maximum(1.0, np.abs(before.points.value))
        better = trial.converged & (trial.points.value <= bound)
        state.put(rows[better], trial.take(np.flatnonzero(better)))
        state.converged[rows[~better]] = False

    def _descend(self, state: Descent, rows: IntArray, through: bool = False) -> None:
        """Trust-region steps, in place; `rows` are the places of the responses of `state` in the batch.

        They stop where a dispersion comes to the tail of the likelihood, unless they go `through` it.
        """
        free = ~state.held
        unit = np.sqrt(np.maximum(np.abs(np.einsum("bii->bi", state.hessian)), 1e-6) / 2.0)
        radius = np.full(rows.size, _RADIUS)
        active = np.flatnonzero(np.isfinite(state.points.value))
        kept, data = active, self.rows_of(rows[active])
        for _ in range(_MAX_ITERATIONS):
            if not active.size:
                break
            if active.size <= _LEFT * kept.size:
                kept, data = active, self.rows_of(rows[active])
            step, predicted = self._steps(state, active, unit, free, radius)
            done = predicted < _TOLERANCE
            state.converged[active[done]] = True
            active, step, predicted = active[~done], step[~done], predicted[~done]
            if active.size:
                self._advance(state, radius, kept, active, step, predicted, unit, data)
                if self.units is not None and not through:
                    active = active[~self._in_tail(rows[active], state.take(active))]

    @staticmethod
    def _steps(
        state: Descent, active: IntArray, unit: FloatArray, free: BoolArray, radius: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Steps in standard errors, and what they promise."""
        u, open_ones = unit[active], free[active]
        gradient = np.where(open_ones, state.points.gradient[active], 0.0)
        both = open_ones[:, :, None] & open_ones[:, None, :]
        hessian = np.where(both, state.hessian[active], 0.0)
        return newton_steps(gradient / u, hessian / (u[:, :, None] * u[:, None, :]), radius[active])

    def _advance(
        self,
        state: Descent,
        radius: FloatArray,
        kept: IntArray,
        active: IntArray,
        step: FloatArray,
        predicted: FloatArray,
        unit: FloatArray,
        data: ResponseData,
    ) -> None:
        """One step for the active responses, in place; all that are kept in the arrays are evaluated."""
        here = state.points
        where = np.searchsorted(kept, active)
        moves = np.zeros((kept.size, step.shape[1]))
        moves[where] = step / unit[active]
        everyone = self.model.evaluate(here.phi[kept] + moves, here.u[kept], data)
        trial, move = everyone.take(where), moves[where]
        actual = here.value[active] - trial.value
        noise = 1e-11 * np.maximum(1.0, np.abs(here.value[active]))
        good = actual > np.minimum(1e-4 * predicted, predicted) - noise
        usable = np.isfinite(trial.value)
        ratio = np.where(usable, actual / np.maximum(predicted, 1e-300), -1.0)
        length = np.linalg.norm(step, axis=1)
        shorter = np.where((ratio < 0.25) & (predicted > 10.0 * noise), 0.3 * length, radius[active])
        radius[active] = np.where(ratio > 0.75, np.maximum(radius[active], 2.0 * length), shorter)
        self._learn(state, active[usable], trial.gradient[usable], move[usable])
        here.put(active[good & usable], trial.take(np.flatnonzero(good & usable)))

    @staticmethod
    def _learn(state: Descent, rows: IntArray, gradient: FloatArray, move: FloatArray) -> None:
        """Symmetric rank-one correction where it is in proportion."""
        miss = gradient - state.points.gradient[rows] - np.einsum("bij,bj->bi", state.hessian[rows], move)
        miss[state.held[rows]] = 0.0
        curvature = np.einsum("bi,bi->b", miss, move)
        size = np.linalg.norm(miss, axis=1) * np.linalg.norm(move, axis=1)
        fine = np.abs(curvature) > 1e-2 * size
        update = miss[fine, :, None] * miss[fine, None, :] / curvature[fine, None, None]
        state.hessian[rows[fine]] += update
