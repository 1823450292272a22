"""A generalised mixed model with parameters and rows that are given, as what responses are simulated from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lme4py.design.design import Design
from lme4py.families.response import ResponseData
from lme4py.fits.generalised.fit import GeneralisedFit
from lme4py.fits.generalised.steps import others_of
from lme4py.fits.steps import linear_predictor
from lme4py.fits.truth import Truth, padded_modes, theta_of

__all__ = ["on_rows", "with_truth"]


def with_truth(fit: GeneralisedFit, truth: Truth) -> GeneralisedFit:
    """The fit with other parameters; refits start from its own.

    Parameters
    ----------
    fit : GeneralisedFit
    truth : Truth
    """
    family = fit.family
    thetas = [theta_of(term, C, 1.0) for term, C in zip(fit.design.terms, truth.covariances, strict=True)]
    return replace(
        fit,
        beta=truth.beta,
        covariances=truth.covariances,
        theta=np.concatenate(thetas) if thetas else np.zeros(0),
        log_dispersion=float(np.atleast_1d(truth.lam)[-1]) if family.n_dispersion else None,
        thresholds=family.alpha(truth.lam),
        others=others_of(family, truth.lam),
        linear_predictor=linear_predictor(fit.design, truth.beta, fit.modes),
        # Infinite estimates of one response say nothing of others.
        recession=None,
    )


def on_rows(fit: GeneralisedFit, design: Design) -> GeneralisedFit:
    """The fit with other rows.

    Parameters
    ----------
    fit : GeneralisedFit
    design : Design
    """
    modes = padded_modes(fit.modes, design)
    data = design.response or ResponseData(design.y)
    return replace(
        fit, design=design, data=data, modes=modes, linear_predictor=linear_predictor(design, fit.beta, modes)
    )
