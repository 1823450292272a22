"""R squared of Nakagawa & Schielzeth (2013), with Johnson's (2014) mean variance for random slopes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lme4py.engine.types import FloatArray
from lme4py.fit import Fit
from lme4py.inference.refit import linear_fit

__all__ = ["RSquared", "r_squared", "random_moments"]


@dataclass(frozen=True)
class RSquared:
    """Shares of the variance.

    Attributes
    ----------
    marginal : float
        Of the fixed effects.
    conditional : float
        Of fixed and random effects.
    var_fixed, var_random, var_residual : float
    """

    marginal: float
    conditional: float
    var_fixed: float
    var_random: float
    var_residual: float


def random_moments(fit: Fit) -> list[FloatArray]:
    """Z'Z / n of each term: the mean variance of its effects over the rows is tr(Sigma Z'Z / n) (Johnson 2014)."""
    return [term.values.T @ term.values / fit.design.n_obs for term in fit.design.terms]


def r_squared(fit: Fit) -> RSquared:
    """Marginal and conditional R squared.

    Parameters
    ----------
    fit : Fit

    Returns
    -------
    RSquared
        var_fixed is the variance of X beta over the rows (offsets left out, denominator n - 1, as R's performance),
        var_random the mean over the rows of the variance of Z b, var_residual sigma^2.
    """
    fit = linear_fit(fit, "r_squared()")
    fixed = float(np.var(fit.design.X @ fit.beta, ddof=1))
    pairs = zip(fit.covariances, random_moments(fit), strict=True)
    random = float(sum(np.sum(cov * moment) for cov, moment in pairs))
    residual = fit.sigma**2
    total = fixed + random + residual
    return RSquared(fixed / total, (fixed + random) / total, fixed, random, residual)
