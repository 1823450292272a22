"""Newton's method for many responses of one linear mixed model at once, whatever gives values and derivatives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Generic, Protocol, Self, TypeVar

import numpy as np

from lme4py.engine.linear.criterion import Criterion
from lme4py.linalg.newton import newton_steps
from lme4py.linalg.types import BoolArray, FloatArray, IntArray

__all__ = ["BatchFits", "BatchSums", "NewtonBatch", "State", "VarianceParts"]

_MAX_ITERATIONS = 60
# Sizes of the relative standard deviations at which the criterion is looked at for a second minimum.
_SIZES = np.array([0.0, 0.05, 0.2, 0.5, 1.0, 2.5, 8.0, 30.0, 200.0])
# Stop when the criterion can fall by less than this.
_TOLERANCE = 1e-12


class BatchSums(Protocol):
    """What is left of B responses."""

    @property
    def yy(self) -> FloatArray: ...

    def take(self, rows: IntArray) -> Self: ...


S = TypeVar("S", bound=BatchSums)


@dataclass(frozen=True)
class BatchFits:
    """What the fits of B responses found, inside.

    Attributes
    ----------
    theta : ndarray, shape (B, m)
    beta : ndarray, shape (B, p)
    r2 : ndarray, shape (B,)
    value : ndarray, shape (B,)
    converged : ndarray of bool, shape (B,)
    """

    theta: FloatArray
    beta: FloatArray
    r2: FloatArray
    value: FloatArray
    converged: BoolArray

    def lower(self, rows: IntArray, other: BatchFits) -> BatchFits:
        """These, with `other` for some rows where it is lower."""
        better = other.converged & (other.value < self.value[rows] - 1e-9)
        out = BatchFits(*(values.copy() for values in vars(self).values()))
        for name, values in vars(other).items():
            getattr(out, name)[rows[better]] = values[better]
        return out


@dataclass(frozen=True)
class VarianceParts:
    """What inference needs at the estimates, inside.

    Attributes
    ----------
    inverse : ndarray, shape (B, p, p)
        W = (X'V^-1X)^-1, relative to sigma^2.
    slope : ndarray, shape (B, m)
        y'P dV P y: minus the derivative of the residual sum of squares in theta.
    changes : ndarray, shape (B, m, p, p)
        W X'V^-1 dV V^-1X W: the derivative of W.
    hessian : ndarray, shape (B, m, m)
        Of the criterion profiled over sigma.
    """

    inverse: FloatArray
    slope: FloatArray
    changes: FloatArray
    hessian: FloatArray


@dataclass(frozen=True)
class State:
    """Value, gradient and Hessian for each response."""

    value: FloatArray
    gradient: FloatArray
    hessian: FloatArray
    beta: FloatArray
    r2: FloatArray


class NewtonBatch(ABC, Generic[S]):
    """Optimises many responses of one model.

    Parameters
    ----------
    criterion : Criterion
        Of the model, for any response.
    """

    def __init__(self, criterion: Criterion) -> None:
        self.reml, self.df, self.constant = criterion.reml, criterion.df, criterion.constant
        self.p = criterion.problem.n_fixed

    @abstractmethod
    def sums(self, Zy: list[FloatArray], Xy: FloatArray, yy: FloatArray) -> S:
        """What is left of responses with the products Zy (k J, B) of each factor, Xy (p, B), yy (B,)."""

    @abstractmethod
    def values(self, theta: FloatArray, sums: S) -> FloatArray:
        """The criterion of all responses at one theta, (m,); infinite where it does not exist."""

    @abstractmethod
    def _evaluate(self, theta: FloatArray, sums: S) -> State:
        """Value, gradient and Hessian of each response at its theta, (B, m)."""

    @abstractmethod
    def variance_parts(self, theta: FloatArray, sums: S) -> VarianceParts:
        """What inference needs at the estimates, theta of shape (B, m)."""

    @abstractmethod
    def _lines(self, start: FloatArray) -> list[FloatArray]:
        """Directions in theta to look along."""

    def solve(self, sums: S, start: FloatArray, tolerance: float = _TOLERANCE) -> BatchFits:
        """The lowest minima that are found from `start`, shape (m,), and from dips along lines, for all responses.

        Parameters
        ----------
        sums : object
        start : ndarray, shape (m,)
        tolerance : float
            Stop when the criterion can fall by less than this.
        """
        found = self._descend(sums, np.tile(start, (sums.yy.size, 1)), tolerance)
        for direction in self._lines(start):
            found = self._compare(sums, found, _SIZES[:, None] * direction, tolerance)
        return found

    def evaluate(self, theta: FloatArray, sums: S) -> State:
        """Value, gradient and Hessian of each response at its theta, (B, m).

        Parameters
        ----------
        theta : ndarray, shape (B, m)
        sums : object
        """
        return self._evaluate(theta, sums)

    def _compare(self, sums: S, found: BatchFits, thetas: FloatArray, tolerance: float) -> BatchFits:
        """Minimise again where the values at `thetas`, (c, m), have another dip, or one below the minimum."""
        values = np.array([self.values(theta, sums) for theta in thetas])
        padded = np.pad(values, ((1, 1), (0, 0)), constant_values=np.inf)
        dips = (values < padded[:-2]) & (values < padded[2:])
        several = (dips.sum(axis=0) > 1) | (values.min(axis=0) < found.value)
        for theta, dip in zip(thetas, dips, strict=True):
            rows = np.flatnonzero(dip & several)
            if rows.size:
                found = found.lower(rows, self._descend(sums.take(rows), np.tile(theta, (rows.size, 1)), tolerance))
        return found

    def _descend(self, sums: S, theta: FloatArray, tolerance: float = _TOLERANCE) -> BatchFits:
        """Minimise from theta, shape (B, m)."""
        B = sums.yy.size
        theta = theta.copy()
        radius = np.ones(B)
        state = self._evaluate(theta, sums)
        active = np.arange(B)
        here = State(*(np.array(v) for v in vars(state).values()))
        converged = np.zeros(B, dtype=bool)
        for _ in range(_MAX_ITERATIONS):
            step, predicted = newton_steps(here.gradient[active], here.hessian[active], radius[active])
            done = predicted < tolerance * np.maximum(1.0, np.abs(here.value[active]) * 1e-3)
            converged[active[done]] = True
            active, step, predicted = active[~done], step[~done], predicted[~done]
            if not active.size:
                break
            trial_theta = theta[active] + step
            trial = self._evaluate(trial_theta, sums.take(active))
            actual = here.value[active] - trial.value
            noise = 1e-11 * np.maximum(1.0, np.abs(here.value[active]))
            with np.errstate(invalid="ignore"):
                good = np.isfinite(trial.value) & (actual > np.minimum(1e-4 * predicted, predicted) - noise)
            ratio = np.where(good, actual / predicted, 0.0)
            length = np.linalg.norm(step, axis=1)
            wider = np.where(ratio > 0.75, np.maximum(radius[active], 2.0 * length), radius[active])
            tiny = predicted < 10.0 * noise
            radius[active] = np.where((ratio < 0.25) & ~tiny, 0.3 * length, wider)
            moved = active[good]
            theta[moved] = trial_theta[good]
            for name, values in vars(trial).items():
                getattr(here, name)[moved] = values[good]
        return BatchFits(theta, here.beta, here.r2, here.value, converged)

    def _solve_fixed(
        self, XX: FloatArray, Xy: FloatArray, yy: FloatArray
    ) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """(X'V^-1X)^-1, beta, r2 and log|X'V^-1X| from X'V^-1X, X'V^-1y and y'V^-1y."""
        if not self.p:
            return XX, Xy, yy, np.zeros(yy.size)
        sign, log_det = np.linalg.slogdet(XX)
        safe = np.where((sign > 0)[:, None, None], XX, np.eye(self.p))
        W = np.linalg.inv(safe)
        beta = np.einsum("bpq,bq->bp", W, Xy)
        r2 = yy - np.einsum("bp,bp->b", Xy, beta)
        return W, beta, np.where(sign > 0, r2, np.nan), log_det
