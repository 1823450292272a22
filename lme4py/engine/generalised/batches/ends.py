"""What is proved about the ends of many descents: difference Hessians, a last Newton step, and the covariance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lme4py.engine.certificate import CONVERGED
from lme4py.engine.generalised.batches.descent import Descent, StackedDescent
from lme4py.linalg.types import BoolArray, FloatArray, IntArray

__all__ = ["StackedEnds", "certified_ends"]

# As for single fits: difference steps in units of 1 / sqrt(curvature), at most the second; curvatures that are none,
# and the least curvature as a part of the mean weight.
_DIFFERENCE, _LONGEST = 1e-3, 0.01
_FLAT, _FLOOR = 1e-7, 1e-3


@dataclass(frozen=True)
class StackedEnds:
    """Minima of B responses.

    Attributes
    ----------
    phi : ndarray, shape (B, m)
    value : ndarray, shape (B,)
        -2 log-likelihood.
    covariance : ndarray, shape (B, m, m)
        Twice the inverse of the Hessian; zero for parameters at the end of their range.
    held : ndarray of bool, shape (B, m)
        Parameters at the end of their range.
    bound : ndarray, shape (B,)
        The criterion could still fall by this much.
    converged : ndarray of bool, shape (B,)
        The minimum is proved: first- and second-order conditions hold.
    """

    phi: FloatArray
    value: FloatArray
    covariance: FloatArray
    held: BoolArray
    bound: FloatArray
    converged: BoolArray


def certified_ends(descent: StackedDescent, state: Descent) -> StackedEnds:
    """The ends of descents, after a last Newton step.

    Parameters
    ----------
    descent : StackedDescent
    state : Descent
        At the ends; those that did not converge are left as they are.
    """
    B, m = state.points.phi.shape
    covariance = np.full((B, m, m), np.nan)
    bound = np.full(B, np.inf)
    converged = np.zeros(B, dtype=bool)
    rows = np.flatnonzero(state.converged)
    if rows.size:
        own = state.take(rows)
        hessian = _hessian(descent, own, rows)
        floor = np.maximum(_FLOOR * own.points.weight, 1e-300)
        bound[rows] = _polish(descent, own, rows, hessian, floor)
        covariance[rows], curved = _inverse(hessian, own.held, floor)
        converged[rows] = curved & (bound[rows] < CONVERGED)
        state.put(rows, own)
    return StackedEnds(state.phi, state.value, covariance, state.held, bound, converged)


def _hessian(descent: StackedDescent, own: Descent, rows: IntArray) -> FloatArray:
    """By central differences of the gradients, (B, m, m); parameters that are held have rows and columns of zeros."""
    data, model, phi = descent.rows_of(rows), descent.model, own.points.phi
    size = np.sqrt(np.maximum(np.abs(np.einsum("bii->bi", own.hessian)), 1e-6))
    steps = np.minimum(_DIFFERENCE / size, _LONGEST)
    # A standard deviation of zero has a curvature, a dispersion at its limit has none.
    moved: BoolArray = np.logical_not(own.held)
    moved[:, 0] = True
    hessian = np.zeros(own.hessian.shape)
    u = own.points.u
    for i in range(phi.shape[1]):
        move = np.zeros(phi.shape)
        move[:, i] = np.where(moved[:, i], steps[:, i], 0.0)
        above = model.evaluate(phi + move, u, data)
        below = model.evaluate(phi - move, u, data)
        width = (phi + move)[:, i] - (phi - move)[:, i]
        safe = np.where(width > 0.0, width, 1.0)
        slope = (above.gradient - below.gradient) / safe[:, None]
        hessian[:, i] = np.where((width > 0.0)[:, None], slope, 0.0)
    hessian = 0.5 * (hessian + hessian.transpose(0, 2, 1))
    free = moved[:, :, None] & moved[:, None, :]
    whole: FloatArray = np.where(free, hessian, 0.0)
    return whole


def _polish(
    descent: StackedDescent, own: Descent, rows: IntArray, hessian: FloatArray, floor: FloatArray
) -> FloatArray:
    """Newton steps that lower the bound, in place; the bounds at the end, (B,)."""
    data, points = descent.rows_of(rows), own.points
    step, bound = _newton(hessian, np.where(own.held, 0.0, points.gradient), floor)
    for _ in range(3):
        step[own.held | (bound < 1e-16)[:, None]] = 0.0
        if not step.any():
            break
        trial = descent.model.evaluate(points.phi + step, points.u, data)
        next_step, after = _newton(hessian, np.where(own.held, 0.0, trial.gradient), floor)
        noise = 1e-11 * np.maximum(1.0, np.abs(points.value))
        better = (trial.value <= points.value + noise) & (after < bound)
        moved = np.flatnonzero(better)
        points.put(moved, trial.take(moved))
        step, bound = np.where(better[:, None], next_step, 0.0), np.where(better, after, bound)
    return bound


def _scaled(hessian: FloatArray, floor: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Scales d (B, m), and eigenvalues and vectors of the Hessians divided by d d'."""
    d = np.sqrt(np.maximum(np.abs(np.einsum("bii->bi", hessian)), floor[:, None]))
    usable: BoolArray = np.asarray(np.isfinite(hessian).all(axis=(1, 2)))
    safe = np.where(usable[:, None, None], hessian / (d[:, :, None] * d[:, None, :]), 0.0)
    values, vectors = np.linalg.eigh(safe)
    return d, np.where(usable[:, None], values, np.nan), vectors


def _newton(hessian: FloatArray, gradient: FloatArray, floor: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Newton steps (B, m), and how much the criteria could still fall; flat directions are left alone."""
    d, values, vectors = _scaled(hessian, floor)
    along = np.einsum("bij,bi->bj", vectors, gradient / d)
    size = np.maximum(np.abs(values), _FLAT)
    bound = 0.5 * (along**2 / size).sum(axis=1)
    step = -np.einsum("bij,bj->bi", vectors, np.where(np.abs(values) > _FLAT, along / size, 0.0)) / d
    return np.where(np.isfinite(step), step, 0.0), np.where(np.isfinite(bound), bound, np.inf)


def _inverse(hessian: FloatArray, held: BoolArray, floor: FloatArray) -> tuple[FloatArray, BoolArray]:
    """Covariances (B, m, m), and which Hessians are positive definite in what is not at a limit."""
    limit = held.copy()
    limit[:, 0] = False
    m = hessian.shape[1]
    whole = np.where(limit[:, :, None] & np.eye(m, dtype=bool), 1.0, hessian)
    d, values, vectors = _scaled(whole, floor)
    curved = values[:, 0] > _FLAT
    values = np.where(curved[:, None], values, np.nan)
    covariance = 2.0 * np.einsum("bij,bj,bkj->bik", vectors, 1.0 / values, vectors) / (d[:, :, None] * d[:, None, :])
    known = held[:, :, None] | held[:, None, :]
    return np.where(known & curved[:, None, None], 0.0, covariance), curved
