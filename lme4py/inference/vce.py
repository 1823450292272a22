"""The covariance of the fixed effects that a front door asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from lme4py.fit import Fit
from lme4py.glmm_fit import GlmmFit
from lme4py.inference.robust import robust_covariance

__all__ = ["with_vce"]

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
    return replace(fit, vcov=robust_covariance(fit, "CR1", chosen.clusters))
