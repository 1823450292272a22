"""Many Laplace fits at once: generalised models with one random effect per group, all responses together.

All responses are evaluated by arrays of (B, n) (`lme4py.engine.generalised.batches`). The parameters move by
trust-region steps whose Hessian starts from that of the fit and learns from the gradients (symmetric rank one).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lme4py.engine.generalised.batches import StackedModel, StackedPoints, can_stack
from lme4py.families.response import ResponseData
from lme4py.fits.generalised.fit import GeneralisedFit
from lme4py.fits.generalised.refit import start_theta
from lme4py.fits.rows.response import is_proportion
from lme4py.linalg.newton import newton_steps
from lme4py.linalg.types import BoolArray, FloatArray, IntArray

__all__ = ["GlmmBatch", "GlmmBatchFits", "can_batch_glmm", "solve_responses", "solve_with_curvature", "user_estimates"]

_MAX_ITERATIONS = 40
# Stop when the criterion can fall by less than this; as for single fits.
_TOLERANCE = 1e-9
# Converged standard deviations below the first are zeros; below the second only the single fit can tell.
_ZERO, _SMALL = 1e-3, 0.02
# Step of the differences that make the first Hessian, in units of a standard error of about one.
_STEP = 1e-4
# Step of the differences that make standard errors, in standard errors.
_CURVATURE = 1e-3


def can_batch_glmm(fit: GeneralisedFit) -> bool:
    """True for Laplace fits with one scalar random effect and no dispersion, thresholds or unordered categories."""
    plain = not fit.family.n_nuisance and not fit.family.is_joint
    return fit.nAGQ == 1 and not fit.restricted and plain and can_stack(fit.problem)


def solve_responses(fit: GeneralisedFit, Y: FloatArray) -> GlmmBatchFits:
    """Fit responses in the form in which `GlmmSimulator` draws them.

    Parameters
    ----------
    fit : GeneralisedFit
    Y : ndarray, shape (n, B)
    """
    counts = np.rint(Y * fit.data.n_trials[:, None]) if is_proportion(fit) else Y
    return GlmmBatch(fit).solve(counts)


def solve_with_curvature(fit: GeneralisedFit, Y: FloatArray) -> tuple[GlmmBatchFits, FloatArray]:
    """As `solve_responses`, with the asymptotic covariance of theta and beta inside, (B, 1 + p, 1 + p).

    Parameters
    ----------
    fit : GeneralisedFit
    Y : ndarray, shape (n, B)
    """
    counts = np.rint(Y * fit.data.n_trials[:, None]) if is_proportion(fit) else Y
    batch = GlmmBatch(fit)
    found = batch.solve(counts)
    return found, batch.covariances(found.phi, counts)


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


class GlmmBatch:
    """Optimises many responses of one model.

    Parameters
    ----------
    fit : GeneralisedFit
        One that `can_batch_glmm`.
    """

    def __init__(self, fit: GeneralisedFit) -> None:
        self.model = StackedModel(fit.problem)
        self.start = np.concatenate([start_theta(fit), fit.problem.split(fit.phi)[1]])
        self.hessian = self._first_hessian(fit)

    def _first_hessian(self, fit: GeneralisedFit) -> FloatArray:
        """Hessian at the start for the response of the fit, by differences of gradients: one small batch."""
        m = self.start.size
        steps = _STEP * np.vstack([np.eye(m), -np.eye(m)])
        found = self.model.evaluate(self.start + steps, np.zeros((2 * m, self.model.n_levels)), self.model.data)
        if not np.isfinite(found.value).all():
            return np.eye(m) * float(fit.design.n_obs)
        rows = (found.gradient[:m] - found.gradient[m:]) / (2.0 * _STEP)
        return 0.5 * (rows + rows.T)

    # -- all responses -------------------------------------------------------------------------------------------

    def solve(self, Y: FloatArray) -> GlmmBatchFits:
        """Fit all responses.

        Parameters
        ----------
        Y : ndarray, shape (n, B)
            In the form of `ResponseData.y` (binomial: counts).
        """
        data = replace(self.model.data, y=np.ascontiguousarray(Y[self.model.order].T))
        B = Y.shape[1]
        phi = np.tile(self.start, (B, 1))
        here = self.model.evaluate(phi, np.zeros((B, self.model.n_levels)), data)
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

    def _rises(self, here: StackedPoints, rows: IntArray, Y: FloatArray) -> BoolArray:
        """Whether the criterion rises from a standard deviation of zero, where its gradient always vanishes."""
        if not rows.size:
            return np.zeros(0, dtype=bool)
        phi = here.phi[rows].copy()
        phi[:, 0] = _SMALL
        data = replace(self.model.data, y=np.ascontiguousarray(Y[self.model.order][:, rows].T))
        rising: BoolArray = self.model.evaluate(phi, here.u[rows], data).gradient[:, 0] > 0.0
        return rising

    def covariances(self, phi: FloatArray, Y: FloatArray) -> FloatArray:
        """Twice the inverse of the Hessian at estimates (B, 1 + p), by differences of gradients, (B, 1 + p, 1 + p).

        A standard deviation of zero is taken as known: its row and column are zero. NaN where there is no inverse.

        Parameters
        ----------
        phi : ndarray, shape (B, 1 + p)
        Y : ndarray, shape (n, B)
        """
        B, m = phi.shape
        data = replace(self.model.data, y=np.ascontiguousarray(Y[self.model.order].T))
        steps = _CURVATURE / np.sqrt(np.maximum(np.abs(np.diag(self.hessian)), 1e-6) / 2.0)
        u = np.zeros((B, self.model.n_levels))
        hessian: FloatArray = np.empty((B, m, m))
        for i in range(m):
            move = np.zeros(m)
            move[i] = steps[i]
            above = self.model.evaluate(phi + move, u, data)
            below = self.model.evaluate(phi - move, above.u, data)
            u = below.u
            hessian[:, i] = (above.gradient - below.gradient) / (2.0 * steps[i])
        hessian = np.asarray(0.5 * (hessian + hessian.transpose(0, 2, 1)))
        zero = phi[:, 0] == 0.0
        hessian[zero, 0, :] = hessian[zero, :, 0] = 0.0
        hessian[zero, 0, 0] = 1.0
        usable: BoolArray = np.asarray(np.isfinite(hessian).all(axis=(1, 2)))
        hessian[~usable] = np.eye(m)
        usable &= np.linalg.eigvalsh(hessian)[:, 0] > 0.0
        hessian[~usable] = np.eye(m)
        covariance: FloatArray = np.asarray(2.0 * np.linalg.inv(hessian), dtype=np.float64)
        covariance[zero, 0, 0] = 0.0
        covariance[~usable] = np.nan
        return covariance

    @staticmethod
    def _of(data: ResponseData, rows: IntArray) -> ResponseData:
        return data if rows.size == data.y.shape[0] else replace(data, y=data.y[rows])

    def _advance(
        self,
        here: StackedPoints,
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
        trial = self.model.evaluate(here.phi[active] + move, here.u[active], data)
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
    def _learn(
        here: StackedPoints, hessian: FloatArray, rows: IntArray, gradient: FloatArray, move: FloatArray
    ) -> None:
        """Symmetric rank-one correction where it is in proportion."""
        miss = gradient - here.gradient[rows] - np.einsum("bij,bj->bi", hessian[rows], move)
        curvature = np.einsum("bi,bi->b", miss, move)
        size = np.linalg.norm(miss, axis=1) * np.linalg.norm(move, axis=1)
        fine = np.abs(curvature) > 1e-2 * size
        update = miss[fine, :, None] * miss[fine, None, :] / curvature[fine, None, None]
        hessian[rows[fine]] += update
