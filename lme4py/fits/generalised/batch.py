"""Many Laplace fits at once: generalised models with one random effect per group, all responses together.

With one scalar effect everything that a group needs is a sum over its rows, so that B responses are (B, n) arrays: the
modes are found by Newton steps for all groups of all responses, and the criterion with its gradient (the formulas of
`lme4py.engine.generalised.laplace`) follows without a loop. The parameters move by trust-region steps whose Hessian
starts from that of the fit and learns from the gradients (symmetric rank one).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lme4py.families.response import ResponseData
from lme4py.fits.generalised.fit import GeneralisedFit
from lme4py.fits.generalised.refit import start_theta
from lme4py.fits.rows.response import is_proportion
from lme4py.linalg.newton import newton_steps
from lme4py.linalg.types import BoolArray, FloatArray, IntArray

__all__ = ["GlmmBatch", "GlmmBatchFits", "can_batch_glmm", "solve_responses", "user_estimates"]

# Larger models gain nothing: their arrays alone fill the cache.
_MAX_ROWS, _MAX_FIXED = 20_000, 12
_MAX_ITERATIONS, _MAX_NEWTON, _MAX_HALVINGS = 40, 60, 30
# Stop when the criterion can fall by less than this; as for single fits.
_TOLERANCE = 1e-9
# Newton decrement of a group's mode.
_MODE = 1e-14
# Converged standard deviations below the first are zeros; below the second only the single fit can tell.
_ZERO, _SMALL = 1e-3, 0.02
# Step of the differences that make the first Hessian, in units of a standard error of about one.
_STEP = 1e-4


def can_batch_glmm(fit: GeneralisedFit) -> bool:
    """True for Laplace fits with one scalar random effect and no dispersion or thresholds."""
    problem = fit.problem
    scalar = len(problem.factors) == 1 and problem.factors[0].n_columns == 1
    small = problem.n_obs <= _MAX_ROWS and problem.n_fixed <= _MAX_FIXED
    return scalar and small and fit.nAGQ == 1 and problem.n_nuisance == 0 and problem.family.log_concave


def solve_responses(fit: GeneralisedFit, Y: FloatArray) -> GlmmBatchFits:
    """Fit responses in the form in which `GlmmSimulator` draws them.

    Parameters
    ----------
    fit : GeneralisedFit
    Y : ndarray, shape (n, B)
    """
    counts = np.rint(Y * fit.data.n_trials[:, None]) if is_proportion(fit) else Y
    return GlmmBatch(fit).solve(counts)


def user_estimates(fit: GeneralisedFit, phi: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Fixed effects (B, p) and standard deviations (B,) on the user's scale.

    Parameters
    ----------
    fit : GeneralisedFit
    phi : ndarray, shape (B, 1 + p)
    """
    unit = abs(float(fit.problem.S[0][0, 0]))
    return phi[:, 1:] @ fit.problem.C.T, unit * np.abs(phi[:, 0])


@dataclass(frozen=True)
class GlmmBatchFits:
    """What the fits of B responses found, inside.

    Attributes
    ----------
    phi : ndarray, shape (B, 1 + p)
        theta and beta.
    value : ndarray, shape (B,)
        -2 log-likelihood.
    converged : ndarray of bool, shape (B,)
        False also for standard deviations next to zero that are none.
    """

    phi: FloatArray
    value: FloatArray
    converged: BoolArray


@dataclass
class _State:
    """Points of B responses: parameters (B, m), spherical modes (B, J), value (B,) and gradient (B, m)."""

    phi: FloatArray
    u: FloatArray
    value: FloatArray
    gradient: FloatArray


class GlmmBatch:
    """Optimises many responses of one model.

    Parameters
    ----------
    fit : GeneralisedFit
        One that `can_batch_glmm`.
    """

    def __init__(self, fit: GeneralisedFit) -> None:
        problem = fit.problem
        self.problem, self.family = problem, problem.family
        Z = problem.products.rows
        codes = Z.indices.astype(np.intp)
        self.order: IntArray = np.argsort(codes, kind="stable")
        self.codes = codes[self.order]
        self.starts = np.searchsorted(self.codes, np.arange(problem.factors[0].n_levels))
        self.z = Z.data[self.order]
        self.X = problem.X[self.order]
        self.offset = problem.offset[self.order]
        self.data = self._ordered(fit.data)
        self.expected = problem.uses_expected
        self.start = np.concatenate([start_theta(fit), problem.split(fit.phi)[1]])
        self.hessian = self._first_hessian(fit)

    def _ordered(self, data: ResponseData) -> ResponseData:
        parts = {
            name: getattr(data, name)[self.order]
            for name in ("y", "trials", "weights")
            if getattr(data, name) is not None
        }
        return replace(data, **parts)

    def _first_hessian(self, fit: GeneralisedFit) -> FloatArray:
        """Hessian at the start for the response of the fit, by differences of gradients: one small batch."""
        m = self.start.size
        steps = _STEP * np.vstack([np.eye(m), -np.eye(m)])
        phi = self.start + steps
        data = replace(self.data, y=np.broadcast_to(self.data.y, (2 * m, self.data.y.size)).copy())
        state = self._evaluate(phi, np.zeros((2 * m, self.starts.size)), data)
        rows = (state.gradient[:m] - state.gradient[m:]) / (2.0 * _STEP)
        hessian: FloatArray = 0.5 * (rows + rows.T)
        return hessian if np.isfinite(hessian).all() else np.eye(m) * float(fit.design.n_obs)

    def _sum(self, values: FloatArray) -> FloatArray:
        """Sums over the rows of each group: (B, n) to (B, J)."""
        total: FloatArray = np.add.reduceat(values, self.starts, axis=-1)
        return total

    # -- one point -----------------------------------------------------------------------------------------------

    def _rows(self, eta: FloatArray, data: ResponseData, order: Any) -> Any:
        return self.family.derivatives(data, eta, 0.0, order, expected=self.expected)

    def _modes(self, fixed: FloatArray, theta: FloatArray, u: FloatArray, data: ResponseData) -> tuple[FloatArray, Any]:
        """Modes of all groups, (B, J), and the rows there, of order 3."""
        scale = theta[:, None] * self.z
        rows = self._rows(fixed + scale * u[:, self.codes], data, 2)
        objective = -2.0 * self._sum(rows.loglik) + u * u
        for _ in range(_MAX_NEWTON):
            slope = self._sum(scale * rows.score) - u
            step = slope / (1.0 + self._sum(scale * scale * rows.w_work))
            done = (slope * step).max(axis=1) < _MODE
            if done.all():
                break
            # A response that is done stays where it is, whatever else is in the batch.
            step[done] = 0.0
            u, rows, objective = self._moved(fixed, scale, u, step, objective, data)
        return u, self._rows(fixed + scale * u[:, self.codes], data, 3)

    def _moved(
        self,
        fixed: FloatArray,
        scale: FloatArray,
        u: FloatArray,
        step: FloatArray,
        objective: FloatArray,
        data: ResponseData,
    ) -> tuple[FloatArray, Any, FloatArray]:
        """One Newton step for every group, shorter where its objective would rise."""
        for _ in range(_MAX_HALVINGS):
            trial = u + step
            rows = self._rows(fixed + scale * trial[:, self.codes], data, 2)
            value = -2.0 * self._sum(rows.loglik) + trial * trial
            worse = ~(value <= objective + 1e-12 * np.abs(objective) + 1e-12)
            if not worse.any():
                break
            step = np.where(worse, 0.5 * step, step)
        return trial, rows, value

    def _evaluate(self, phi: FloatArray, u: FloatArray, data: ResponseData) -> _State:
        """Criterion and gradient from modes near `u`."""
        with np.errstate(all="ignore"):
            theta, beta = phi[:, 0], phi[:, 1:]
            fixed = self.offset + sum(beta[:, j, None] * column for j, column in enumerate(self.X.T))
            u, rows = self._modes(fixed, theta, u, data)
            scale = theta[:, None] * self.z
            w, dw = (rows.w_exp, rows.dw_exp) if self.expected else (rows.w_obs, rows.dw_obs)
            zz = self.z * self.z
            A, A_obs = self._sum(zz * w), self._sum(zz * rows.w_obs)
            square = (theta * theta)[:, None]
            M, H = 1.0 + square * A, 1.0 + square * A_obs
            value = -2.0 * rows.loglik.sum(axis=1) + (u * u).sum(axis=1) + np.log(M).sum(axis=1)
            c = (square / M)[:, self.codes] * zz * dw
            a = self._sum(scale * c) / H
            rest = c - rows.w_obs * scale * a[:, self.codes] - 2.0 * rows.score
            by_theta = (u * self._sum(self.z * rest)).sum(axis=1) + (a * self._sum(self.z * rows.score)).sum(axis=1)
            by_theta += 2.0 * theta * (A / M).sum(axis=1)
            # Column by column: a matrix product would round differently in batches of other sizes.
            gradient = np.column_stack([by_theta, *((rest * column).sum(axis=1) for column in self.X.T)])
        usable = np.isfinite(value) & np.isfinite(gradient).all(axis=1)
        return _State(phi, u, np.where(usable, value, np.inf), gradient)

    # -- all responses -------------------------------------------------------------------------------------------

    def solve(self, Y: FloatArray) -> GlmmBatchFits:
        """Fit all responses.

        Parameters
        ----------
        Y : ndarray, shape (n, B)
            In the form of `ResponseData.y` (binomial: counts).
        """
        data = replace(self.data, y=np.ascontiguousarray(Y[self.order].T))
        B = Y.shape[1]
        phi = np.tile(self.start, (B, 1))
        here = self._evaluate(phi, np.zeros((B, self.starts.size)), data)
        hessian, radius = np.tile(self.hessian, (B, 1, 1)), np.full(B, np.inf)
        # Steps are measured in standard errors of the fit.
        unit = np.sqrt(np.maximum(np.abs(np.diag(self.hessian)), 1e-6) / 2.0)
        converged, active = np.zeros(B, dtype=bool), np.flatnonzero(np.isfinite(here.value))
        radius[:] = 4.0
        data = self._of(data, active)
        for _ in range(_MAX_ITERATIONS):
            scaled = hessian[active] / (unit[:, None] * unit)
            step, predicted = newton_steps(here.gradient[active] / unit, scaled, radius[active])
            done = predicted < _TOLERANCE
            converged[active[done]] = True
            if done.any():
                active, step, predicted = active[~done], step[~done], predicted[~done]
                data = self._of(data, np.flatnonzero(~done))
            if not active.size:
                break
            self._advance(here, hessian, radius, active, step, predicted, unit, data)
        size = np.abs(here.phi[:, 0])
        zero = converged & (size < _ZERO)
        zero[zero] = self._rises(here, np.flatnonzero(zero), Y)
        here.phi[zero, 0] = 0.0
        return GlmmBatchFits(here.phi, here.value, converged & (zero | (size > _SMALL)))

    def _rises(self, here: _State, rows: IntArray, Y: FloatArray) -> BoolArray:
        """Whether the criterion rises from a standard deviation of zero, where its gradient always vanishes."""
        if not rows.size:
            return np.zeros(0, dtype=bool)
        phi = here.phi[rows].copy()
        phi[:, 0] = _SMALL
        data = replace(self.data, y=np.ascontiguousarray(Y[self.order][:, rows].T))
        rising: BoolArray = self._evaluate(phi, here.u[rows], data).gradient[:, 0] > 0.0
        return rising

    @staticmethod
    def _of(data: ResponseData, rows: IntArray) -> ResponseData:
        return data if rows.size == data.y.shape[0] else replace(data, y=data.y[rows])

    def _advance(
        self,
        here: _State,
        hessian: FloatArray,
        radius: FloatArray,
        active: IntArray,
        step: FloatArray,
        predicted: FloatArray,
        unit: FloatArray,
        data: ResponseData,
    ) -> None:
        """One step for the active responses, in place."""
        move = step / unit
        trial = self._evaluate(here.phi[active] + move, here.u[active], data)
        actual = here.value[active] - trial.value
        noise = 1e-11 * np.maximum(1.0, np.abs(here.value[active]))
        good = actual > np.minimum(1e-4 * predicted, predicted) - noise
        usable = np.isfinite(trial.value)
        ratio = np.where(usable, actual / np.maximum(predicted, 1e-300), -1.0)
        length = np.linalg.norm(step, axis=1)
        shorter = np.where((ratio < 0.25) & (predicted > 10.0 * noise), 0.3 * length, radius[active])
        radius[active] = np.where(ratio > 0.75, np.maximum(radius[active], 2.0 * length), shorter)
        self._learn(here, hessian, active[usable], trial.gradient[usable], move[usable])
        moved = active[good & usable]
        for name in ("phi", "u", "value", "gradient"):
            getattr(here, name)[moved] = getattr(trial, name)[good & usable]

    @staticmethod
    def _learn(here: _State, hessian: FloatArray, rows: IntArray, gradient: FloatArray, move: FloatArray) -> None:
        """Symmetric rank-one correction where it is in proportion."""
        miss = gradient - here.gradient[rows] - np.einsum("bij,bj->bi", hessian[rows], move)
        curvature = np.einsum("bi,bi->b", miss, move)
        size = np.linalg.norm(miss, axis=1) * np.linalg.norm(move, axis=1)
        fine = np.abs(curvature) > 1e-2 * size
        update = miss[fine, :, None] * miss[fine, None, :] / curvature[fine, None, None]
        hessian[rows[fine]] += update
