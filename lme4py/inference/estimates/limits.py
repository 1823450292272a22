"""What has a finite estimate, for functions of linear and generalised models alike.

A likelihood without a maximum (separation) has a limit in which some linear functions of the coefficients are infinite
or not determined; see `lme4py.engine.identification.recession`. Their estimates are given as infinities or NaN, and
what comes from a curvature (standard errors, Wald tests and intervals) as NaN.
"""

from __future__ import annotations

import warnings

import numpy as np

from lme4py.engine.identification.recession import Recession
from lme4py.errors import ConvergenceWarning
from lme4py.fits.base import Fit
from lme4py.linalg.types import BoolArray, FloatArray

__all__ = [
    "coefficient_estimates",
    "known_coefficients",
    "known_errors",
    "limit_mean",
    "masked",
    "recession_of",
    "same_limits",
    "unknown",
    "warn_rows",
    "warn_unknown",
]


def recession_of(fit: Fit) -> Recession | None:
    """Where the likelihood of a fit has no maximum; None where it has one, as in every linear model."""
    return fit.recession


def known_coefficients(fit: Fit) -> BoolArray:
    """Which fixed effects have a finite estimate, shape (p,)."""
    return ~unknown(fit, np.eye(fit.beta.size))


def same_limits(one: Fit, other: Fit) -> bool:
    """Whether the same coefficients are infinite in two fits of the same columns."""
    if one.recession is None or other.recession is None:
        return one.recession is other.recession
    return np.array_equal(one.recession.limits, other.recession.limits, equal_nan=True)


def unknown(fit: Fit, C: FloatArray) -> BoolArray:
    """Which rows of C, (r, p) or with the thresholds (r, P), have no finite estimate, shape (r,)."""
    recession = recession_of(fit)
    return np.zeros(C.shape[0], dtype=bool) if recession is None else ~recession.finite(C)


def masked(fit: Fit, C: FloatArray, values: FloatArray) -> FloatArray:
    """`values` of C beta, shape (r,), with +inf, -inf and NaN for what has no finite estimate."""
    recession = recession_of(fit)
    return values if recession is None else recession.masked(C, values)


def known_errors(fit: Fit, C: FloatArray, vcov: FloatArray) -> FloatArray:
    """Standard errors of C beta, NaN for what has no finite estimate, shape (r,).

    Parameters
    ----------
    fit : Fit
    C : ndarray, shape (r, p) or, with the thresholds, (r, P)
    vcov : ndarray
        Of the coefficients that C has columns for.
    """
    errors = np.sqrt(np.maximum(np.einsum("ri,ij,rj->r", C, vcov, C), 0.0))
    return np.where(unknown(fit, C), np.nan, errors)


def coefficient_estimates(fit: Fit) -> FloatArray:
    """Fixed effects, with +inf, -inf and NaN for those without a finite estimate, shape (p,)."""
    return fit.beta_estimates


def limit_mean(fit: Fit, limits: FloatArray) -> FloatArray:
    """The mean that is approached as eta goes to +inf or -inf; NaN for other limits, shape of limits."""
    low, high = (np.nan if end is None else end for end in fit.family.link.ends)
    return np.where(limits == np.inf, high, np.where(limits == -np.inf, low, np.nan))


def warn_rows(recession: Recession, limits: FloatArray, interval: bool, stacklevel: int = 5) -> None:
    """Warn of predictions that are not determined, or have no interval.

    Parameters
    ----------
    recession : Recession
    limits : ndarray
        Of the linear predictors: 0 where these are finite.
    interval : bool
        Whether intervals were asked for.
    stacklevel : int
    """
    lost = limits != 0.0 if interval else np.isnan(limits)
    if lost.any():
        what = "have no interval" if interval else "are not determined"
        warnings.warn(
            f"{int(lost.sum())} of {lost.size} predictions {what}: {recession.sentence} (separation); NaN is given.",
            ConvergenceWarning,
            stacklevel=stacklevel,
        )


def warn_unknown(fit: Fit, C: FloatArray, what: str, stacklevel: int = 3) -> bool:
    """Whether some row of C has no finite estimate; warns if so.

    Parameters
    ----------
    fit : Fit
    C : ndarray, shape (r, p)
    what : str
        What does not exist for that reason, as in "a Wald test".
    stacklevel : int
    """
    recession = recession_of(fit)
    if recession is None or not unknown(fit, C).any():
        return False
    warnings.warn(
        f"{what} needs finite estimates, and here {recession.sentence} (separation): NaN is given. Compare models by "
        "lrtest(), or use profile intervals.",
        ConvergenceWarning,
        stacklevel=stacklevel + 1,
    )
    return True
