"""From a start to the certified optimum of the criterion."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from lme4py.covariance import CovarianceStructures
from lme4py.engine.linear.criterion import Criterion
from lme4py.engine.linear.rivals import compare, starts
from lme4py.engine.linear.start import moment_start
from lme4py.engine.optimise import Control, Local, Optimum, minimise, trust_region_step
from lme4py.errors import DesignError
from lme4py.linalg.small import singular_values
from lme4py.linalg.types import FloatArray

# Relative standard deviations below this are tried as exact zeros.
_SNAP = 1e-3
# A start with relative standard deviations beyond the first is moved in to the second: further out the criterion hardly
# knows the shape of a covariance matrix, and the way back is long.
_REACH, _MOVED_IN = 300.0, 100.0
# Minima whose values differ by less are one.
_APART = 1e-6
# A predicted decrease of the criterion above this where the optimiser stopped calls for the fall-back.
_STUCK = 1e-7


def solve(criterion: Criterion, start: FloatArray | None, control: Control) -> Optimum:
    """The lowest minimum of the criterion that was found; standard deviations on the boundary become exact zeros.

    Parameters
    ----------
    criterion : Criterion
    start : ndarray, shape (m,), or None
        In the engine's columns; None is the method of moments.
    control : Control
    """

    local = _local(criterion)

    def descend(theta: FloatArray) -> Optimum:
        return _descend(criterion, local, theta, control)

    structures = criterion.problem.structures
    first = criterion.refined(moment_start(criterion.problem)) if start is None else _within_reach(structures, start)
    optimum = descend(first)
    if len(optimum.log) >= control.max_evaluations:
        return optimum
    return compare(criterion, optimum, "moments" if start is None else "start", descend, local)


def minima(criterion: Criterion) -> list[Optimum]:
    """The different local minima that the usual starts lead to, lowest first.

    Parameters
    ----------
    criterion : Criterion
    """
    local, control = _local(criterion), Control()
    found: list[Optimum] = []
    for _, theta in starts(criterion):
        try:
            found.append(_descend(criterion, local, theta, control))
        except DesignError:  # no value there
            continue
    found.sort(key=lambda optimum: optimum.value)
    apart = np.diff([optimum.value for optimum in found], prepend=-np.inf) > _APART
    return [optimum for optimum, new in zip(found, apart, strict=True) if new]


def _local(criterion: Criterion) -> Callable[[FloatArray], Local | None]:
    def local(theta: FloatArray) -> Local | None:
        try:
            point = criterion.evaluate(theta)
            point.spend()
            found = criterion.derivatives(point)
        except np.linalg.LinAlgError:
            return None
        point.discard()
        return Local(theta, point.value, found.gradient, found.hessian, (point, found.G, found.gradient, found.forms))

    return local


def _descend(
    criterion: Criterion, local: Callable[[FloatArray], Local | None], start: FloatArray, control: Control
) -> Optimum:
    """The local minimum below a start."""
    structures = criterion.problem.structures
    optimum = minimise(local, start, control)
    if _is_stuck(optimum) and len(optimum.log) < control.max_evaluations:
        optimum = _append(optimum, minimise(local, _fall_back(criterion, optimum.theta), control))
    # At an exact zero the trust region sees the curvature along the axis, so that a wrong zero is left again.
    for _ in range(3):
        snapped = _snap(criterion, structures, optimum)
        if snapped is None:
            break
        again = minimise(local, snapped, control)
        moved = again.value < optimum.value - 1e-9 * max(1.0, abs(again.value))
        optimum = _append(optimum, again)
        if not moved:
            break
    return optimum


def _within_reach(structures: CovarianceStructures, start: FloatArray) -> FloatArray:
    """The start, with terms moved in that are too far out."""
    moved = start.copy()
    for structure, place in zip(structures.each, structures.slices, strict=True):
        largest = float(singular_values(structure.factor(start[place]))[0])
        if largest > _REACH:
            moved[place] = structure.scaled(start[place], _MOVED_IN / largest)
    return moved


def _append(before: Optimum, after: Optimum) -> Optimum:
    """The later optimum with both logs."""
    count = len(before.log)
    return replace(after, log=before.log + tuple(replace(e, number=e.number + count) for e in after.log))


def _is_stuck(optimum: Optimum) -> bool:
    """Did the optimiser stop although its own model still predicts a decrease that matters?"""
    _, predicted = trust_region_step(optimum.source[2], optimum.hessian, 1.0)
    return predicted > _STUCK


def _fall_back(criterion: Criterion, theta: FloatArray) -> FloatArray:
    """A quasi-Newton search (L-BFGS) that needs nothing but values and gradients."""

    def value_and_gradient(theta: FloatArray) -> tuple[float, FloatArray]:
        try:
            point = criterion.evaluate(theta)
        except np.linalg.LinAlgError:
            return np.inf, np.zeros_like(theta)
        return point.value, criterion.theta_gradient(point, criterion.sigma_gradient(point))

    from scipy.optimize import minimize as minimise_by_scipy

    found = minimise_by_scipy(value_and_gradient, theta, jac=True, method="L-BFGS-B", options={"maxiter": 500})
    best: FloatArray = found.x if np.isfinite(found.fun) else theta
    return best


def _snap(criterion: Criterion, structures: CovarianceStructures, optimum: Optimum) -> FloatArray | None:
    """theta with what is near the boundary put on it, if the criterion does not rise; None if nothing is near it."""
    noise = 1e-11 * max(1.0, abs(optimum.value)) + 1e-10
    theta = optimum.theta
    for structure, place in zip(structures.each, structures.slices, strict=True):
        if structure.depth(theta[place]) >= _SNAP:
            continue
        candidate = theta.copy()
        candidate[place] = structure.truncate(theta[place], _SNAP)
        if criterion(candidate) <= optimum.value + noise:
            theta = candidate
    return None if theta is optimum.theta else theta
