"""Estimates without a row or a group where the variances are estimated again, fully or by one Newton step."""

from __future__ import annotations

from typing import Any

import numpy as np

from lme4py.design.design import Design
from lme4py.engine.linear.criterion import Criterion
from lme4py.engine.threads import limited_threads
from lme4py.fits.answers.many import UnitEstimate, unit_table
from lme4py.fits.linear.batches.batch import can_batch
from lme4py.fits.linear.batches.deletion_batch import DeletionSolver
from lme4py.fits.linear.fit import LinearFit
from lme4py.fits.linear.refit import random_start
from lme4py.fits.linear.steps import LmmCriterion
from lme4py.linalg.types import BoolArray, FloatArray, IntArray

__all__ = ["deletions", "newton_step"]


def deletions(
    fit: LinearFit, ok: BoolArray, whole_levels: bool, full: bool
) -> tuple[dict[str, FloatArray], BoolArray] | None:
    """Estimates without each level of the only grouping factor, or each row; None where they are not made together.

    Parameters
    ----------
    fit : LinearFit
    ok : ndarray of bool, shape (U,)
        Units without which the fixed effects can be estimated.
    whole_levels : bool
        The units are levels, not rows.
    full : bool
        False takes one Newton step of the variances.
    """
    if not can_batch(fit):
        return None
    with limited_threads(fit.design):
        solver = DeletionSolver(fit)
        out = unit_table(fit, ok.size)
        good = ok.copy()
        start = random_start(fit) if full else fit.theta_inside
        for units in solver.chunks(ok.size):
            units = units[ok[units]]
            if not units.size:
                continue
            products: Any = solver.levels(units) if whole_levels else solver.rows(units)
            found = solver.solve(products, start) if full else solver.step(products, start)
            phi = solver.covariances(found.theta, products)
            good[units] = found.converged
            _store(fit, out, units, found, phi, products.df)
    return out, good


def _store(
    fit: LinearFit, out: dict[str, FloatArray], units: IntArray, found: Any, phi: FloatArray, df: FloatArray
) -> None:
    scaling = fit.problem.scaling
    inside = found.r2 / df
    out["beta"][units] = scaling.b0 + scaling.y_scale * found.beta @ scaling.C.T
    half = scaling.y_scale**2 * inside[:, None, None] * phi
    out["vcov"][units] = scaling.C @ half @ scaling.C.T
    out["sigma"][units] = np.sqrt(inside * scaling.weight_scale) * scaling.y_scale
    criterion = LmmCriterion.__new__(LmmCriterion)
    criterion.design, criterion.inside = fit.design, Criterion(fit.problem, fit.reml)
    out["theta"][units] = np.array([criterion.to_user(theta) for theta in found.theta]).reshape(units.size, -1)


def newton_step(fit: LinearFit, design: Design) -> UnitEstimate:
    """One Newton step of the variances for another design, and everything else at the new variances."""
    with limited_threads(design):
        criterion = LmmCriterion(design, fit.reml)
        inside = criterion.inside
        point = inside.evaluate(criterion.to_inside(fit.theta))
        d = inside.derivatives(point)
        values, vectors = np.linalg.eigh(d.hessian)
        # Directions without curvature, such as a variance of zero, stay where they are.
        used = np.where(
            values > 1e-8 * max(float(values.max(initial=0.0)), 1.0), 1.0 / np.where(values, values, 1.0), 0
        )
        theta = point.theta - vectors @ (used * (vectors.T @ d.gradient))
        point = inside.evaluate(theta)
    scaling = inside.problem.scaling
    sigma2 = inside.variance(point.r2)
    inverse = np.linalg.inv(point.RX)
    sigma = float(np.sqrt(sigma2 * scaling.weight_scale)) * scaling.y_scale
    return UnitEstimate(
        scaling.beta(point.beta), scaling.vcov(sigma2 * inverse @ inverse.T), sigma, criterion.to_user(theta)
    )
