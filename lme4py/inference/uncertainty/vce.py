"""Fits whose standard errors are robust."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import numpy as np

from lme4py.fits.generalised import GlmmFit
from lme4py.fits.linear import Fit
from lme4py.inference.uncertainty.clusters import ClusterChoice
from lme4py.inference.uncertainty.robust import robust_covariance, robust_parameters

__all__ = ["with_robust", "with_vce"]

AnyFit = TypeVar("AnyFit", Fit, GlmmFit)


def with_vce(fit: AnyFit) -> AnyFit:
    """The fit with the robust covariance of its conventions (CR1, as Stata's); the same fit where none is asked for.

    Parameters
    ----------
    fit : Fit or GlmmFit
    """
    chosen = fit.design.conventions
    if chosen.vce is None:
        return fit
    if isinstance(fit, GlmmFit):
        return with_robust(fit, "CR1", chosen.clusters)
    return replace(fit, vcov=robust_covariance(fit, "CR1", chosen.clusters))


def with_robust(fit: GlmmFit, type: str, cluster: ClusterChoice) -> GlmmFit:
    """A generalised model with a robust covariance of all its parameters, variances, dispersion and thresholds too.

    Parameters
    ----------
    fit : GlmmFit
    type : {"CR0", "CR1"}
    cluster : str, array of shape (n,), or None
    """
    whole = robust_parameters(fit, type, cluster)
    m, p = fit.theta.size, fit.beta.size
    error = None if fit.log_dispersion_se is None else float(np.sqrt(whole[m + p, m + p]))
    return replace(
        fit,
        vcov=whole[m : m + p, m : m + p].copy(),
        parameter_vcov=whole,
        log_dispersion_se=error,
        model_vcov=fit.own_parameter_vcov,
    )
