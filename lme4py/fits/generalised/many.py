"""Generalised models for many responses: all at once where the model allows it, else one by one."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import numpy as np

from lme4py.chunks import chunk
from lme4py.design.design import Design
from lme4py.errors import ConvergenceWarning, Lme4Error
from lme4py.fits.answers.many import TASK_NUMBERS, TASK_REPLICATES, Many, nothing, one_by_one, stacked
from lme4py.fits.generalised.batch import can_batch_glmm, solve_responses, user_dispersion, user_estimates
from lme4py.fits.generalised.categories.thresholds import refuse_crossing
from lme4py.fits.generalised.fit import GeneralisedFit
from lme4py.fits.generalised.joint import model_covariance
from lme4py.fits.generalised.refit import RefitEstimates, refit_estimates, refit_glmm
from lme4py.fits.generalised.steps import fit_like
from lme4py.linalg.types import BoolArray, FloatArray

__all__ = [
    "batch_estimates",
    "estimates",
    "estimates_of_design",
    "far_from",
    "fit_of_design",
    "refits",
    "together",
]

# Rows times responses of one batch: arrays of this size stay in the cache.
_BATCH_NUMBERS = chunk(200_000, 4000)
# Standard errors beyond which an estimate of a replicate may be infinite.
_FAR = 10.0


def together(fit: GeneralisedFit) -> int:
    """Responses whose estimates are made in one task.

    Parameters
    ----------
    fit : GeneralisedFit
    """
    rows = max(fit.design.n_obs, 1)
    if not can_batch_glmm(fit):
        return max(1, min(TASK_REPLICATES["single"], TASK_NUMBERS // rows))
    return max(1, min(TASK_REPLICATES["batch"], _BATCH_NUMBERS // rows))


def estimates(fit: GeneralisedFit, Y: FloatArray) -> Many:
    """Estimates for responses; coefficients that are infinite in the fit are so for all responses that come from it.

    Parameters
    ----------
    fit : GeneralisedFit
    Y : ndarray, shape (n, B), or (n, B, K) of counts of categories
    """
    if not can_batch_glmm(fit):
        return _singly(fit, Y)
    values = _empty(fit, Y.shape[1])
    possible = np.flatnonzero(~np.isnan(Y).any(axis=0))
    found = solve_responses(fit, Y[:, possible])
    sure = possible[found.converged]
    own = found.take(np.flatnonzero(found.converged))
    far = far_from(fit, *user_estimates(fit.problem, own.phi))
    values = values.with_rows(sure[~far], batch_estimates(fit, own.phi[~far], own.held[~far]))
    sure = sure[~far]
    open_ones = np.setdiff1d(np.arange(Y.shape[1]), sure)
    return values.with_rows(open_ones, _singly(fit, Y[:, open_ones])) if open_ones.size else values


def batch_estimates(fit: GeneralisedFit, phi: FloatArray, held: BoolArray) -> Many:
    """Estimates of a batch on the user's scale.

    Parameters
    ----------
    fit : GeneralisedFit
    phi : ndarray, shape (B, 1 + p + d)
    held : ndarray of bool, same shape
        Parameters at the end of their range.
    """
    beta, sd = user_estimates(fit.problem, phi)
    lam = user_dispersion(fit.problem, phi, held).tolist()
    sigma, dispersion = (np.array([of(one) for one in lam]) for of in (fit.family.sigma, fit.family.dispersion))
    return Many(_known_finite(fit, beta), [(sd**2)[:, None, None]], sigma, dispersion)


def refits(fit: GeneralisedFit, Y: FloatArray) -> Iterator[Callable[[], GeneralisedFit]]:
    """Makers of the fits to responses; infinite estimates count as not converged.

    Parameters
    ----------
    fit : GeneralisedFit
    Y : ndarray, shape (n, B)
    """
    for y in np.moveaxis(Y, 1, 0):

        def make(y: FloatArray = y) -> GeneralisedFit:
            _refuse_outside(y)
            return _counted(refit_glmm(fit, y, compare=False))

        yield make


def fit_of_design(fit: GeneralisedFit, design: Design) -> GeneralisedFit:
    """The fit of another design; infinite estimates count as not converged.

    Parameters
    ----------
    fit : GeneralisedFit
    design : Design
    """
    return _counted(fit_like(fit, design, design.response, thorough=False))


def estimates_of_design(fit: GeneralisedFit, design: Design) -> Many:
    """Estimates of the model of another design.

    Parameters
    ----------
    fit : GeneralisedFit
    design : Design
    """
    again = fit_of_design(fit, design)
    refuse_crossing(again.family, again.lam, again.data)
    return _of_fit(again)


def _empty(fit: GeneralisedFit, rows: int) -> Many:
    cuts = None if fit.thresholds is None else fit.thresholds.size
    return nothing(rows, fit.beta.size, [cov.shape[0] for cov in fit.covariances], cuts, True, len(fit.others))


def _singly(fit: GeneralisedFit, Y: FloatArray) -> Many:
    def makers() -> Iterator[Callable[[], Many]]:
        for y in np.moveaxis(Y, 1, 0):
            yield partial(_of_response, fit, y)

    return stacked(one_by_one(makers()), _empty(fit, 1))


def _of_response(fit: GeneralisedFit, y: FloatArray) -> Many:
    _refuse_outside(y)
    found = refit_estimates(fit, y)
    if not _far(fit, found.beta):
        return _of_estimates(fit, replace(found, beta=_known_finite(fit, found.beta)))
    # Far away means infinite, mostly; the fit itself knows.
    return _of_fit(_counted(refit_glmm(fit, y, compare=False)))


def _refuse_outside(y: FloatArray) -> None:
    if np.isnan(y).any():
        raise Lme4Error("the random effects that were drawn lead to a mean outside the range of the link")


def _counted(again: GeneralisedFit) -> GeneralisedFit:
    """The same fit; infinite estimates count as not converged."""
    if again.recession is not None:
        warnings.warn(again.certificate.verdict, ConvergenceWarning, stacklevel=2)
    return again


def _finite(fit: GeneralisedFit) -> BoolArray:
    """Which fixed effects have a finite estimate, shape (p,)."""
    p = fit.beta.size
    return np.ones(p, dtype=bool) if fit.recession is None else fit.recession.finite(np.eye(p))


def far_from(fit: GeneralisedFit, beta: FloatArray, sd: FloatArray) -> BoolArray:
    """Which of B fits are so far from another that something may be infinite, shape (B,).

    Parameters
    ----------
    fit : GeneralisedFit
    beta : ndarray, shape (B, p)
    sd : ndarray, shape (B,)
        Standard deviations of the random effects: of another size where every group has one answer.
    """
    own = max(float(np.sqrt(fit.covariances[0][0, 0])), 1.0)
    return _far(fit, beta) | (sd > _FAR * own)


def _known_finite(fit: GeneralisedFit, beta: FloatArray) -> FloatArray:
    """Coefficients of replicates; those that are infinite in the fit are so in all that come from it.

    Parameters
    ----------
    fit : GeneralisedFit
    beta : ndarray, shape (..., p)
    """
    return np.where(_finite(fit), beta, fit.beta_estimates)


def _far(fit: GeneralisedFit, beta: FloatArray) -> BoolArray:
    """Which fixed effects, (..., p), lie so far from those of the fit that the response may be separated, (...,)."""
    error = np.sqrt(np.maximum(model_covariance(fit).diagonal(), 1e-300))
    return np.asarray((np.abs(beta - fit.beta) > _FAR * error)[..., _finite(fit)].any(axis=-1))


def _of_fit(again: GeneralisedFit) -> Many:
    return _one(
        again, again.beta_estimates, again.covariances, again.log_dispersion, again.threshold_estimates, again.others
    )


def _of_estimates(fit: GeneralisedFit, found: RefitEstimates) -> Many:
    return _one(fit, found.beta, found.covariances, found.log_dispersion, found.thresholds, found.others)


def _one(
    fit: GeneralisedFit,
    beta: FloatArray,
    covariances: tuple[FloatArray, ...],
    log_dispersion: float | None,
    thresholds: FloatArray | None,
    others: tuple[float, ...],
) -> Many:
    """The estimates of one response."""
    lam = 0.0 if log_dispersion is None else log_dispersion
    return Many(
        beta[None],
        [cov[None] for cov in covariances],
        np.array([fit.family.sigma(lam)]),
        np.array([fit.family.dispersion(lam)]),
        None if thresholds is None else np.asarray(thresholds)[None],
        fit.family.other_values(others)[None] if others else None,
    )
