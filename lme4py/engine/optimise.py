"""Trust-region Newton steps for the criterion.

The Hessian model is the average information plus a secant correction (symmetric rank one) that learns from the
analytic gradients what the average information leaves out, so that convergence is superlinear. The subproblem
is solved exactly through an eigendecomposition (m is small), which also leaves saddle points: at theta = 0 the
gradient vanishes by symmetry although the criterion may fall along the axis.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from lme4py.engine.certificate import Evaluation, Rival
from lme4py.errors import DesignError
from lme4py.linalg.small import eigen
from lme4py.linalg.types import FloatArray
from lme4py.progress import tick

Block = Literal["auto", "exact", "iterative"]
# Far from the minimum a secant says little about the Hessian there, and slowed the fits of the reference models.
_LEARN_BELOW = 0.3


@dataclass(frozen=True)
class Control:
    """Settings of the optimiser.

    Attributes
    ----------
    max_evaluations : int
    tolerance : float
        Stop when the criterion is predicted to fall by less than this.
    radius : float
        First trust-region radius in theta (scaled columns).
    block : {"auto", "exact", "iterative"}
        How `lmer` and `glmer` treat crossed random effects: by an exact factor, or by conjugate gradients and random
        probes; "auto" takes the second only where the first is forecast not to fit into memory or to take minutes.
    seed : int
        Of the probes.
    criterion_se : float
        Wanted standard error of the criterion where probes estimate it.
    exact : bool
        Whether the criterion at estimates that were found iteratively is that of an exact factor, made once in tiles.
    optimizer : str
        "trust-region" is the package's own method; another one finds a start from which that proves the minimum.
    """

    max_evaluations: int = 200
    tolerance: float = 1e-13
    radius: float = 1.0
    block: Block = "auto"
    seed: int = 0
    criterion_se: float = 0.3
    exact: bool = False
    optimizer: str = "trust-region"


@dataclass(frozen=True)
class Local:
    """Value, gradient and Hessian model at a point; `source` is what made them."""

    theta: FloatArray
    value: float
    gradient: FloatArray
    hessian: FloatArray
    source: Any = None


@dataclass(frozen=True)
class Optimum:
    """Where the optimiser stopped.

    Attributes
    ----------
    theta : ndarray, shape (m,)
        In the engine's columns.
    value : float
    log : tuple of Evaluation
    message : str
        Why it stopped.
    hessian : ndarray, shape (m, m)
        The last Hessian model: average information with secant correction.
    source : object
        What the function handed over at the optimum.
    compared : tuple of Rival
        Other starts and scans, none of them lower.
    """

    theta: FloatArray
    value: float
    log: tuple[Evaluation, ...]
    message: str
    hessian: FloatArray
    source: Any = None
    compared: tuple[Rival, ...] = ()

    @property
    def steepest(self) -> float:
        """The largest derivative at the point."""
        return next(entry.gradient_norm for entry in reversed(self.log) if entry.accepted)


@dataclass
class _State:
    here: Local
    radius: float
    correction: FloatArray
    log: list[Evaluation] = field(default_factory=list)

    @property
    def hessian(self) -> FloatArray:
        return self.here.hessian + self.correction


Learn = Callable[["_State", Local, FloatArray], None]


def minimise(
    local: Callable[[FloatArray], Local | None],
    start: FloatArray,
    control: Control,
    learn: Learn | None = None,
    until: Callable[[Local], bool] | None = None,
) -> Optimum:
    """Minimise a smooth function of theta.

    Parameters
    ----------
    local : callable
        theta -> Local, or None where the function cannot be evaluated (the step is then shortened).
    start : ndarray, shape (m,)
    control : Control
    learn : callable, optional
        How a step corrects the Hessian model; the default is the symmetric rank-one formula.
    until : callable, optional
        Whether to stop at a point because it is known where the descent leads from there.
    """
    first = local(start)
    if first is None:
        raise DesignError(
            "the criterion cannot be evaluated at the starting values; give other ones (`start=`) or take columns out "
            "of the random effects."
        )
    state = _State(first, control.radius, np.zeros((start.size, start.size)))
    _record(state, first, True)
    message = "maximum number of evaluations reached"
    stalled = failed = 0
    if not start.size:
        message = "there are no parameters"
    while start.size and len(state.log) + failed < control.max_evaluations:
        if until is not None and not stalled and until(state.here):
            message = "it is known where this leads"
            break
        step, predicted = trust_region_step(state.here.gradient, state.hessian, state.radius)
        if predicted <= control.tolerance or _is_negligible(step, state.here, predicted):
            message = "predicted decrease below tolerance"
            break
        trial = local(state.here.theta + step)
        if trial is None:
            failed += 1
            state.radius = 0.25 * float(np.linalg.norm(step))
            continue
        accepted, ratio = _judge(state.here, trial, predicted)
        _record(state, trial, accepted)
        if predicted < _LEARN_BELOW:
            (learn or _learn)(state, trial, step)
        _resize(state, ratio, step)
        if accepted:
            state.here = trial
            stalled = 0
        else:
            stalled += 1
        if stalled and predicted < _noise(state.here):
            # Neither the value nor the gradient can be improved any more in floating point.
            message = "no further improvement in floating point"
            break
    here = state.here
    return Optimum(here.theta, here.value, tuple(state.log), message, state.hessian, here.source)


def _is_negligible(step: FloatArray, here: Local, predicted: float) -> bool:
    """A step that would change neither the criterion nor any digit that is reported."""
    relative = np.abs(step) / np.maximum(np.abs(here.theta), 1e-2)
    largest = float(relative.max(initial=0.0))
    # A decrease that is far below the last binary digit of the criterion cannot be seen in it.
    invisible = predicted < 0.1 * np.finfo(float).eps * abs(here.value)
    return predicted < 1e-9 and largest <= (1e-7 if invisible else 3e-8)


def trust_region_step(gradient: FloatArray, hessian: FloatArray, radius: float) -> tuple[FloatArray, float]:
    """Minimiser of g's + s'Hs/2 within |s| <= radius, and the predicted decrease.

    Parameters
    ----------
    gradient : ndarray, shape (m,)
    hessian : ndarray, shape (m, m)
    radius : float

    Notes
    -----
    Moré & Sorensen (1983), with the eigenvectors at hand; the hard case (no gradient along the most negative
    curvature) moves along that eigenvector.
    """
    if not gradient.size:
        return gradient, 0.0
    values, vectors = eigen(hessian)
    g = vectors.T @ gradient
    floor = 1e-10 * max(1.0, float(np.abs(values).max()))
    flat = np.abs(values) <= floor
    active = np.where(flat, floor, values)
    if active[0] > 0:
        step = -g / active
        if float(step @ step) <= radius**2:
            return vectors @ step, -float(g @ step + 0.5 * step @ (values * step))
    step = _boundary_step(g, active, radius)
    return vectors @ step, -float(g @ step + 0.5 * step @ (values * step))


def _boundary_step(g: FloatArray, values: FloatArray, radius: float) -> FloatArray:
    lowest = float(values[0])
    least = max(0.0, -lowest)
    scale = float(np.linalg.norm(g))
    # Hard case: the shift that makes the matrix semi-definite already gives a step inside the region.
    tiny = 1e-12 * max(1.0, abs(lowest))
    shifted = values + least
    movable = shifted > tiny
    inside = np.where(movable, -g / np.where(movable, shifted, 1.0), 0.0)
    if lowest < 0 and np.abs(g[~movable]).max(initial=0.0) <= 1e-10 * max(scale, 1e-300):
        rest = radius**2 - float(inside @ inside)
        if rest > 0:
            direction = 1.0 if g[0] <= 0 else -1.0
            inside[0] += direction * np.sqrt(rest)
            return inside
    # Bisection on what is added to `least`, since next to the hard case that is a small difference of large numbers.
    low, high = 0.0, scale / radius + 1e-300
    # Of a few parameters, Python's own numbers are faster than arrays.
    slopes, curvatures = g.tolist(), shifted.tolist()
    for _ in range(200):
        middle = 0.5 * (low + high)
        parts = [slope / (curvature + middle + 1e-300) for slope, curvature in zip(slopes, curvatures, strict=True)]
        if sum(part * part for part in parts) > radius**2:
            low = middle
        else:
            high = middle
        if high - low <= 1e-10 * high:
            break
    return -g / (shifted + high + 1e-300)


def _noise(here: Local) -> float:
    """Differences of the criterion below this are rounding."""
    return 1e-12 * max(1.0, abs(here.value)) * 10.0


def _judge(here: Local, trial: Local, predicted: float) -> tuple[bool, float]:
    """Is the trial point better, and by which part of the prediction?"""
    actual = here.value - trial.value
    noise = _noise(here)
    if predicted > noise:
        return actual > 1e-4 * predicted, actual / predicted
    # The value says nothing any more; the gradient still does.
    better = float(np.linalg.norm(trial.gradient)) < float(np.linalg.norm(here.gradient))
    return better and actual > -10.0 * noise, 1.0 if better else 0.0


def _learn(state: _State, trial: Local, step: FloatArray) -> None:
    """Symmetric rank-one correction: the model must reproduce the change of the gradient over the step."""
    change = trial.gradient - state.here.gradient
    base = trial.hessian + state.correction
    miss = change - base @ step
    curvature = float(miss @ step)
    if abs(curvature) > 1e-8 * float(np.linalg.norm(miss) * np.linalg.norm(step)):
        state.correction = state.correction + np.outer(miss, miss) / curvature


def learn_bounded(state: _State, trial: Local, step: FloatArray) -> None:
    """Symmetric rank-one correction, or Powell's symmetric one where that would be out of proportion."""
    miss = trial.gradient - state.here.gradient - (trial.hessian + state.correction) @ step
    length2 = float(step @ step)
    curvature = float(miss @ step)
    if abs(curvature) > 0.3 * float(np.linalg.norm(miss)) * np.sqrt(length2):
        state.correction = state.correction + np.outer(miss, miss) / curvature
        return
    both = np.outer(miss, step)
    state.correction = state.correction + (both + both.T) / length2 - curvature * np.outer(step, step) / length2**2


def _resize(state: _State, ratio: float, step: FloatArray) -> None:
    length = float(np.linalg.norm(step))
    if ratio < 0.25:
        state.radius = 0.25 * length
    elif ratio > 0.75 and length > 0.8 * state.radius:
        state.radius = 2.0 * state.radius


def _record(state: _State, point: Local, accepted: bool) -> None:
    tick("evaluations")
    state.log.append(
        Evaluation(
            len(state.log) + 1,
            point.value,
            float(np.abs(point.gradient).max(initial=0.0)),
            state.radius,
            accepted,
            tuple(float(t) for t in point.theta),
        )
    )
