"""What tests need of generalised models of many responses: all at once where the model allows it."""

from __future__ import annotations

import numpy as np

from lme4py.fits.answers.inferences import inferences_of, no_inferences
from lme4py.fits.answers.many import Inferences
from lme4py.fits.generalised.batch import can_batch_glmm, solve_with_curvature, user_estimates
from lme4py.fits.generalised.fit import GeneralisedFit
from lme4py.fits.generalised.many import batch_estimates, far_from, refits
from lme4py.linalg.types import FloatArray

__all__ = ["inferences"]


def inferences(fit: GeneralisedFit, Y: FloatArray) -> Inferences:
    """What tests need of the fits to responses.

    Parameters
    ----------
    fit : GeneralisedFit
    Y : ndarray, shape (n, B)
    """
    if not can_batch_glmm(fit) or fit.recession is not None:
        return inferences_of(fit, refits(fit, Y), None)
    out = no_inferences(fit, Y.shape[1])
    possible = np.flatnonzero(~np.isnan(Y).any(axis=0))
    found = solve_with_curvature(fit, Y[:, possible])
    good = found.converged & ~far_from(fit, *user_estimates(fit.problem, found.phi))
    C, p = fit.problem.C, fit.problem.n_fixed
    vcov = C @ found.covariance[good, 1 : 1 + p, 1 : 1 + p] @ C.T
    yes = np.ones(vcov.shape[0], dtype=bool)
    many = batch_estimates(fit, found.phi[good], found.held[good])
    out = out.with_rows(possible[good], Inferences(many, vcov, found.value[good], found.held[good, 0], yes))
    rest = np.setdiff1d(np.arange(Y.shape[1]), possible[good])
    return out.with_rows(rest, inferences_of(fit, refits(fit, Y[:, rest]), None)) if rest.size else out
