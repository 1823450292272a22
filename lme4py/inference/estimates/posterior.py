"""Posterior means of random effects: what Stata's ``predict, reffects`` gives after generalised models.

The mode of an effect given the data is its mean where everything is normal; in a generalised model the two differ. Here
the mean and covariance of the effects of each group, given its rows and the estimates, are ratios of integrals by
Gauss-Hermite quadrature, with nodes about the mode scaled by the curvature there (Rabe-Hesketh & Skrondal 2009,
J. R. Statist. Soc. A 172:659, section 4).
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from lme4py.errors import OptionError
from lme4py.fits.base import Fit
from lme4py.fits.kinds import model_of
from lme4py.inference.estimates.random_effects import Frames, conditional_modes, conditional_sds, level_frames
from lme4py.linalg.types import FloatArray

if TYPE_CHECKING:
    from lme4py.design.design import RandomTerm

__all__ = ["posterior_moments"]

# Nodes of each dimension by the number of effects of a group: errors are below 1e-6 of a standard deviation.
_NODES = {1: 31, 2: 21, 3: 11}


def posterior_moments(fit: Fit) -> tuple[Frames, Frames]:
    """Means and standard deviations of the random effects given the data, at the estimates.

    Parameters
    ----------
    fit : Fit
        A linear model, whose means are its modes; or a generalised one with one random-effects term of up to three
        effects, whose integral is one for each group.

    Returns
    -------
    means, sds : dict of str to DataFrame
        Shaped as `conditional_modes`.

    Raises
    ------
    OptionError
        More terms, which are integrals over all of their effects together; singular covariances.
    """
    if fit.normal_errors:
        return conditional_modes(fit), conditional_sds(fit)
    term, covariance = _only_term(fit)
    means, variances = _moments(fit, term, covariance)
    return level_frames(fit.design, (means,)), level_frames(fit.design, (np.sqrt(variances),))


def _only_term(fit: Fit) -> tuple[RandomTerm, FloatArray]:
    design = fit.design
    if len(design.terms) != 1 or design.terms[0].relation is not None or fit.family.n_coefficients:
        raise OptionError(
            "posterior means are those of a model with one random-effects term and independent groups; of others "
            "ranef() has the modes."
        )
    term, covariance = design.terms[0], fit.covariances[0]
    if term.n_columns not in _NODES:
        raise OptionError(f"posterior means take up to {max(_NODES)} effects in a group, and {term.label} has more.")
    if np.linalg.matrix_rank(covariance, hermitian=True) < term.n_columns:
        raise OptionError(
            "the covariance of the random effects is singular, so that some of them are functions of others; simplify "
            f"{term.label}."
        )
    return term, covariance


def _moments(fit: Fit, term: RandomTerm, covariance: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Means and variances of the effects of each level, both (J, k)."""
    k, J = term.n_columns, term.n_levels
    modes = fit.modes[0]
    fixed = fit.linear_predictor - np.einsum("nk,nk->n", term.values, modes[term.codes])
    scale = np.linalg.cholesky(model_of(fit).conditional_covariances(include_fixed=False)[0])
    precision = np.linalg.inv(covariance)
    x, w = np.polynomial.hermite_e.hermegauss(_NODES[k])
    log_weights, steps = [], []
    for place in product(range(x.size), repeat=k):
        node = x[list(place)]
        step = scale @ node
        b = modes + step
        eta = fixed + np.einsum("nk,nk->n", term.values, b[term.codes])
        rows = fit.family.derivatives(fit.response, eta, fit.lam, 0).loglik
        joint = np.bincount(term.codes, rows, minlength=J) - 0.5 * np.einsum("ja,ab,jb->j", b, precision, b)
        log_weights.append(joint + np.log(w[list(place)]).sum() + 0.5 * float(node @ node))
        steps.append(step)
    logs = np.array(log_weights)
    share = np.exp(logs - logs.max(axis=0))
    share /= share.sum(axis=0)
    away = np.array(steps)
    mean = np.einsum("qj,qjk->jk", share, away)
    square = np.einsum("qj,qjk->jk", share, (away - mean) ** 2)
    return modes + mean, square
