"""R squared of Nakagawa & Schielzeth (2013), with Johnson's (2014) mean variance for random slopes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lme4py.design.design import CONDITIONAL, Design
from lme4py.errors import OptionError
from lme4py.fits.base import Fit
from lme4py.fits.refuse import refuse, refuse_unequal
from lme4py.inference.estimates.limits import warn_unknown
from lme4py.inference.shares.observation import Observation, observation_variance
from lme4py.linalg.types import FloatArray

__all__ = ["RSquared", "fixed_variance", "observation_level", "r_squared", "random_moments", "rest_variance"]


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


def random_moments(design: Design) -> list[FloatArray]:
    """Z'Z / n of each term: the mean variance of its effects over the rows is tr(Sigma Z'Z / n) (Johnson 2014).

    Columns of further linear predictors are zero, and so are those of curves, which are no random effects but part of
    the mean of a row.
    """
    columns = [term.values_of(CONDITIONAL) * (not term.is_curve) for term in design.terms]
    return [Z.T @ Z / design.n_obs for Z in columns]


def observation_level(fit: Fit) -> tuple[bool, ...]:
    """Which terms have a level for every row: overdispersion, which no two rows share."""
    return tuple(term.relation is None and term.n_levels == fit.design.n_obs for term in fit.design.terms)


def fixed_variance(fit: Fit, X: FloatArray | None = None) -> float:
    """Variance of X beta and smooths over the rows (offsets left out, denominator n - 1); NaN where it is not finite.

    Parameters
    ----------
    fit : Fit
    X : ndarray, shape (n, p), optional
        The rows of one of several linear predictors.
    """
    X = fit.design.X if X is None else X
    curves = [
        term.values_of(CONDITIONAL) @ own[0]
        for term, own in zip(fit.design.terms, fit.modes, strict=True)
        if term.is_curve
    ]
    if fit.design.n_obs < 2 or not (fit.beta.size or curves):
        return 0.0
    if warn_unknown(fit, X, "the variance of the fixed effects", stacklevel=4):
        return float("nan")
    return float(np.var(sum(curves, X @ fit.beta), ddof=1))


def rest_variance(fit: Fit, variance: str = "theoretical") -> Observation:
    """What is left of the variance when fixed and random effects are known.

    Parameters
    ----------
    fit : Fit
    variance : str
        For generalised models, see `observation_variance`.
    """
    refuse_unequal(fit, "shares of the variance are")
    if fit.design.sigma is not None and fit.design.weights is not None:
        raise OptionError(
            "the residual variances are known and differ between the rows, so that there is no one share of them; "
            "see result.heterogeneity()."
        )
    if fit.normal_errors and variance != "theoretical":
        refuse(f"variance={variance!r} is", "leave it out", "generalised models")
    return observation_variance(fit, variance)


def r_squared(fit: Fit, variance: str = "theoretical") -> RSquared:
    """Nakagawa's R squared, marginal and conditional, with the variances it is made of.

    Parameters
    ----------
    fit : Fit
    variance : {"theoretical", "lognormal", "trigamma", "delta"}
        Of one observation of a generalised model, see `observation_variance`.

    Returns
    -------
    RSquared (`result.r_squared()` gives the same as a dict)
        marginal, conditional, and var_fixed: the variance of X beta and of smooths over the rows (offsets left out,
        denominator n - 1, as R's performance), var_random: the mean over the rows of the variance of Z b, var_residual:
        sigma^2 or the variance of one observation on the link scale. Random effects with a level for every row
        (overdispersion) count in var_residual.

    Examples
    --------
    >>> from lme4py import glmer, load_dataset
    >>> result = glmer("cbind(incidence, size - incidence) ~ period + (1 | herd)", load_dataset("cbpp"))
    >>> found = r_squared(result.fit)
    >>> round(found.marginal, 3), round(found.conditional, 3)
    (0.085, 0.187)
    """
    if fit.family.is_joint:
        raise fit.family.lacks("one R squared: each category has a linear predictor of its own; see icc_table()")
    fixed = fixed_variance(fit)
    parts = [
        term.level_variance * float(np.sum(cov * K))
        for term, cov, K in zip(fit.design.terms, fit.covariances, random_moments(fit.design), strict=True)
    ]
    own = observation_level(fit)
    random = sum(part for part, alone in zip(parts, own, strict=True) if not alone)
    residual = rest_variance(fit, variance).variance + sum(
        part for part, alone in zip(parts, own, strict=True) if alone
    )
    total = fixed + random + residual
    return RSquared(fixed / total, (fixed + random) / total, fixed, random, residual)
