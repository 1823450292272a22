"""From a start to the certified optimum of the criterion."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lme4py.engine.covariance import Templates
from lme4py.engine.lmm import Criterion
from lme4py.engine.optimize import Control, Local, Optimum, minimise
from lme4py.engine.start import moment_start
from lme4py.engine.types import FloatArray

# Relative standard deviations below this are tried as exact zeros.
_SNAP = 1e-3


def solve(criterion: Criterion, start: FloatArray | None, control: Control) -> Optimum:
    """Minimise the criterion; standard deviations that belong to the boundary become exact zeros.

    Parameters
    ----------
    criterion : Criterion
    start : ndarray, shape (m,), or None
        In the engine's columns; None is the method of moments.
    control : Control
    """

    def local(theta: FloatArray) -> Local | None:
        try:
            point = criterion.evaluate(theta)
            found = criterion.derivatives(point)
        except np.linalg.LinAlgError:
            return None
        point.swept.release()
        return Local(theta, point.value, found.gradient, found.hessian, (point, found.G))

    templates = criterion.problem.templates
    optimum = minimise(local, moment_start(criterion) if start is None else start, control)
    # At an exact zero the trust region sees the curvature along the axis, so that a wrong zero is left again.
    for _ in range(3):
        snapped = _snap(criterion, templates, optimum)
        if snapped is None:
            break
        again = minimise(local, snapped, control)
        count = len(optimum.log)
        log = optimum.log + tuple(replace(e, number=e.number + count) for e in again.log)
        moved = again.value < optimum.value - 1e-9 * max(1.0, abs(again.value))
        optimum = replace(again, log=log)
        if not moved:
            break
    return optimum


def _snap(criterion: Criterion, templates: Templates, optimum: Optimum) -> FloatArray | None:
    """theta with small singular values of T set to zero, if the criterion does not rise; None if none is small."""
    factors = templates.factors(optimum.theta)
    small = [np.linalg.svd(T, compute_uv=False)[-1] < _SNAP for T in factors]
    if not any(small):
        return None
    noise = 1e-11 * max(1.0, abs(optimum.value)) + 1e-10
    theta = optimum.theta
    for i, is_small in enumerate(small):
        if not is_small:
            continue
        trial = list(templates.factors(theta))
        trial[i] = _truncate(trial[i], templates.templates[i].structure)
        candidate = templates.theta_of_factors(trial)
        if criterion(candidate) <= optimum.value + noise:
            theta = candidate
    return None if theta is optimum.theta else theta


def _truncate(T: FloatArray, structure: str) -> FloatArray:
    if structure != "unstructured":
        return np.where(np.abs(T) < _SNAP, 0.0, T)
    vectors, sizes, right = np.linalg.svd(T)
    kept: FloatArray = (vectors * np.where(sizes < _SNAP, 0.0, sizes)) @ right
    return kept
