"""What tests need of linear mixed models of many responses: all at once where the model allows it."""

from __future__ import annotations

from typing import Any

import numpy as np

from lme4py.fits.answers.inferences import inferences_of
from lme4py.fits.answers.many import Inferences
from lme4py.fits.linear.batches.newton_batch import BatchFits, NewtonBatch, VarianceParts
from lme4py.fits.linear.derivatives import variance_derivatives
from lme4py.fits.linear.fit import LinearFit
from lme4py.fits.linear.many import batch_solver, by_term, on_user_scale, refits
from lme4py.fits.linear.refit import Responses, random_start
from lme4py.linalg.types import BoolArray, FloatArray

__all__ = ["inferences", "of_batch"]

# Relative standard deviations (singular values of T) below this are zeros.
_ZERO = 1e-4
# Directions of a Hessian with unit diagonal that have less curvature than this are not identified by the data.
_FLAT = 1e-8


def inferences(fit: LinearFit, Y: FloatArray) -> Inferences:
    """What tests need of the fits to responses.

    Parameters
    ----------
    fit : LinearFit
    Y : ndarray, shape (n, B)
    """
    responses = Responses(fit)
    solver = batch_solver(fit, responses)
    if solver is None:
        return _singly(fit, Y)
    sums = solver.sums(*responses.products(Y))
    found = solver.solve(sums, random_start(fit))
    out = of_batch(fit, solver, found, sums)
    rest = np.flatnonzero(~found.converged)
    return out.with_rows(rest, _singly(fit, Y[:, rest])) if rest.size else out


def _singly(fit: LinearFit, Y: FloatArray) -> Inferences:
    def derivatives(one: Any) -> tuple[FloatArray, FloatArray]:
        found = variance_derivatives(one)
        return found.jacobian, found.covariance

    return inferences_of(fit, refits(fit, Y), derivatives)


def of_batch(fit: LinearFit, solver: NewtonBatch[Any], found: BatchFits, sums: Any) -> Inferences:
    """What tests need of fits that were found together.

    Parameters
    ----------
    fit : LinearFit
    solver : NewtonBatch
    found : BatchFits
    sums : object
        What the solver made of the responses.
    """
    parts = solver.variance_parts(found.theta, sums)
    sigma2 = found.r2 / solver.df
    T = by_term(fit, found.theta)
    scaling = fit.problem.scaling
    half = scaling.y_scale * scaling.C
    W = half @ (sigma2[:, None, None] * parts.inverse) @ half.T
    changes = half @ (sigma2[:, None, None, None] * parts.changes) @ half.T
    least = np.min([np.linalg.svd(t, compute_uv=False)[:, -1] for t in T], axis=0)
    return Inferences(
        on_user_scale(fit.problem, T, found.beta, sigma2),
        W,
        found.value,
        least < _ZERO,
        found.converged,
        np.concatenate([changes, W[:, None]], axis=1),
        2.0 * _inverses(_hessians(parts, sigma2, solver.df)),
    )


def _hessians(parts: VarianceParts, sigma2: FloatArray, df: float) -> FloatArray:
    """Of the criterion in (theta, log sigma^2), not profiled, (B, m + 1, m + 1)."""
    B, m = parts.slope.shape
    out = np.empty((B, m + 1, m + 1))
    outer = parts.slope[:, :, None] * parts.slope[:, None, :]
    out[:, :m, :m] = parts.hessian + outer / (df * sigma2**2)[:, None, None]
    out[:, m, :m] = out[:, :m, m] = parts.slope / sigma2[:, None]
    out[:, m, m] = df
    return out


def _inverses(H: FloatArray) -> FloatArray:
    """Inverses of positive semi-definite matrices without their null spaces, (B, s, s)."""
    diagonal = np.einsum("bii->bi", H)
    with np.errstate(invalid="ignore", divide="ignore"):
        scale = np.where(diagonal > 0.0, 1.0 / np.sqrt(np.maximum(diagonal, np.finfo(float).tiny)), 0.0)
    scaled = H * scale[:, :, None] * scale[:, None, :]
    usable: BoolArray = np.asarray(np.isfinite(scaled).all(axis=(1, 2)))
    values, vectors = np.linalg.eigh(np.where(usable[:, None, None], scaled, np.eye(H.shape[1])))
    root = np.where(values > _FLAT, 1.0 / np.sqrt(np.maximum(values, _FLAT)), 0.0)
    half = scale[:, :, None] * vectors * root[:, None, :]
    inverse: FloatArray = half @ half.transpose(0, 2, 1)
    return np.where(usable[:, None, None], inverse, np.nan)
