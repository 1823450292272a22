"""Estimates without a row or a group where the variances are estimated again, fully or by one Newton step."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from lme4py.engine.linear.criterion import Criterion
from lme4py.engine.threads import limited_threads
from lme4py.errors import Lme4Error, Lme4Warning
from lme4py.fits.base import Fit
from lme4py.fits.generalised.fit import GeneralisedFit
from lme4py.fits.generalised.steps import fit_like
from lme4py.fits.groups import without_level
from lme4py.fits.kinds import model_of
from lme4py.fits.linear.batch import can_batch
from lme4py.fits.linear.deletion_batch import DeletionSolver
from lme4py.fits.linear.fit import LinearFit
from lme4py.fits.linear.refit import random_start
from lme4py.fits.linear.steps import LmmCriterion, lmm_fit
from lme4py.inference.estimates.limits import known_coefficients, same_limits
from lme4py.inference.refits.deletion import Deleted
from lme4py.linalg.types import BoolArray, FloatArray, IntArray

__all__ = ["refit_without", "step_without"]


@dataclass(frozen=True)
class _Estimate:
    """What one fit without a unit gives, on the user's scale."""

    beta: FloatArray
    vcov: FloatArray
    sigma: float
    theta: FloatArray


def refit_without(fit: Fit, codes: IntArray, ok: BoolArray, whole_levels: bool | None) -> Deleted:
    """A full fit without each unit.

    Parameters
    ----------
    fit : Fit
    codes : ndarray of int, shape (n,)
        Unit of each row.
    ok : ndarray of bool, shape (U,)
        Units without which the fixed effects can be estimated.
    whole_levels : bool or None
        True when the units are the levels of the only grouping factor, False when they are single rows; these are
        fitted all at once. None for other groups.
    """
    if isinstance(fit, LinearFit) and whole_levels is not None and can_batch(fit):
        return _batched(fit, ok, whole_levels, full=True)
    return _loop(fit, codes, ok, _refit_linear if isinstance(fit, LinearFit) else _refit_generalised)


def step_without(fit: LinearFit, codes: IntArray, ok: BoolArray, whole_levels: bool | None) -> Deleted:
    """One Newton step of the variances without each unit, and everything else at the new variances.

    Parameters
    ----------
    fit, codes, ok, whole_levels
        As `refit_without`.
    """
    if whole_levels is not None and can_batch(fit):
        return _batched(fit, ok, whole_levels, full=False)
    return _loop(fit, codes, ok, _step_linear)


# --- all at once ------------------------------------------------------------------------------------------------


def _batched(fit: LinearFit, ok: BoolArray, whole_levels: bool, full: bool) -> Deleted:
    with limited_threads(fit.design):
        solver = DeletionSolver(fit)
        out = _empty(fit, ok.size)
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
    return _finished(fit, out, good)


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


def _empty(fit: Fit, size: int) -> dict[str, FloatArray]:
    p = fit.beta.size
    shapes = {"beta": (p,), "vcov": (p, p), "sigma": (), "theta": (fit.theta.size,)}
    return {name: np.full((size, *shape), np.nan) for name, shape in shapes.items()}


def _finished(fit: Fit, out: dict[str, FloatArray], ok: BoolArray) -> Deleted:
    hide = np.where(ok, 1.0, np.nan)
    own = model_of(fit).own_vcov()
    safe = np.where(ok[:, None, None], out["vcov"], own)
    known = np.flatnonzero(known_coefficients(fit))
    log_dets = [np.linalg.slogdet(V[..., known[:, None], known])[1] for V in (safe, own)]
    return Deleted(
        change=(out["beta"] - fit.beta) * hide[:, None],
        errors=np.sqrt(np.einsum("uaa->ua", safe)) * hide[:, None],
        log_det=(log_dets[0] - log_dets[1]) * hide,
        sigma=out["sigma"] / fit.sigma * hide,
        ok=ok,
        theta=out["theta"] * hide[:, None],
    )


# --- one after the other ----------------------------------------------------------------------------------------


def _loop(fit: Any, codes: IntArray, ok: BoolArray, estimate: Callable[[Any, Any], _Estimate | None]) -> Deleted:
    out, good = _empty(fit, ok.size), ok.copy()
    for unit in np.flatnonzero(ok):
        found = _attempt(fit, without_level(fit.design, codes, int(unit)), estimate)
        good[unit] = found is not None
        if found is not None:
            for name in out:
                out[name][unit] = getattr(found, name)
    return _finished(fit, out, good)


def _attempt(fit: Any, design: Any, estimate: Callable[[Any, Any], _Estimate | None]) -> _Estimate | None:
    """The estimate, or None where there is none; such units are counted and named in the result."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Lme4Warning)
        try:
            return estimate(fit, design)
        except (Lme4Error, np.linalg.LinAlgError):
            return None


def _refit_linear(fit: LinearFit, design: Any) -> _Estimate | None:
    again = lmm_fit(design, fit.reml, start=None if fit.certificate.is_singular else fit.theta)
    return _Estimate(again.beta, again.vcov, again.sigma, again.theta) if again.certificate.converged else None


def _refit_generalised(fit: GeneralisedFit, design: Any) -> _Estimate | None:
    start = None if fit.certificate.is_singular else fit.theta
    again = fit_like(fit, design, design.response, start, thorough=False)
    usable = same_limits(fit, again) and (again.certificate.converged or again.recession is not None)
    return _Estimate(again.beta, again.vcov, again.sigma, again.theta) if usable else None


def _step_linear(fit: LinearFit, design: Any) -> _Estimate | None:
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
    sigma2 = point.r2 / inside.df
    inverse = np.linalg.inv(point.RX)
    sigma = float(np.sqrt(sigma2 * scaling.weight_scale)) * scaling.y_scale
    return _Estimate(
        scaling.beta(point.beta), scaling.vcov(sigma2 * inverse @ inverse.T), sigma, criterion.to_user(theta)
    )
