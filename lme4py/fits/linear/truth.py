"""A linear mixed model with parameters and rows that are given, as what responses are simulated from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lme4py.design.design import Design
from lme4py.engine.linear.penalised import make_criterion
from lme4py.fits.linear.fit import LinearFit
from lme4py.fits.linear.refit import shared_criterion
from lme4py.fits.truth import Truth, padded_modes, theta_of

__all__ = ["on_rows", "with_truth"]


def with_truth(fit: LinearFit, truth: Truth) -> LinearFit:
    """The fit with other parameters; refits start from them.

    Parameters
    ----------
    fit : LinearFit
    truth : Truth
    """
    sigma = fit.sigma if truth.lam == fit.lam else float(np.exp(0.5 * truth.lam))
    thetas = [theta_of(term, C, sigma) for term, C in zip(fit.design.terms, truth.covariances, strict=True)]
    theta = np.concatenate(thetas) if thetas else np.zeros(0)
    criterion = shared_criterion(fit.design, make_criterion(fit.problem, fit.reml))
    return replace(
        fit,
        beta=truth.beta,
        sigma=sigma,
        covariances=truth.covariances,
        theta=theta,
        theta_inside=criterion.to_inside(theta),
    )


def on_rows(fit: LinearFit, design: Design) -> LinearFit:
    """The fit with other rows.

    Parameters
    ----------
    fit : LinearFit
    design : Design
    """
    return replace(fit, design=design, modes=padded_modes(fit.modes, design))
