"""Fitted values and residuals, on the index of the user's data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from lme4py.errors import OptionError, did_you_mean
from lme4py.families.base import Family
from lme4py.families.categories.multinomial import Multinomial
from lme4py.families.distributions import Binomial
from lme4py.families.links import PROBABILITY_LINKS
from lme4py.families.response import ResponseData
from lme4py.fits.base import Fit
from lme4py.fits.residual.fit import ResidualFit
from lme4py.fits.residual.residuals import structured_residuals
from lme4py.inference.diagnostics.quantile_residuals import category_quantiles, quantile_residuals
from lme4py.inference.prediction.ordinal import ordinal_residuals
from lme4py.inference.prediction.rows import by_row

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["RESIDUAL_TYPES", "fitted_values", "residual_series", "residual_values", "row_weights"]

FloatArray = NDArray[np.float64]
RESIDUAL_TYPES = ("response", "pearson", "scaled", "deviance", "working")


def residual_values(fit: Fit, type: str = "response") -> FloatArray:
    """Residuals of the rows used, shape (n,), conditional on the modes of the random effects.

    Parameters
    ----------
    fit : Fit
    type : {"response", "pearson", "scaled", "deviance", "working"}
        "response" is y - mu (for the binomial family the proportion less the probability), "working" divides it
        by dmu/deta; "pearson" and "deviance" are those of R's glm with prior weights; "scaled" divides the Pearson
        residual by the residual standard deviation of a linear mixed model. With correlated or unequal residuals see
        `lme4py.fits.residual.residuals.structured_residuals`, which has "normalized" as well.

    Returns
    -------
    ndarray, shape (n,), or (n, K) of unordered categories
        The residual of a category is the binomial one of this category against all others.
    """
    if isinstance(fit, ResidualFit):
        return structured_residuals(fit, type)
    if fit.categories and not isinstance(fit.family, Multinomial):
        return ordinal_residuals(fit, "pearson" if type == "scaled" else type)
    if type not in RESIDUAL_TYPES:
        known = RESIDUAL_TYPES if not fit.categories else (*RESIDUAL_TYPES, "quantile")
        hint = did_you_mean(str(type), known)
        raise OptionError(f"type={type!r} is no kind of residual.{hint} Use one of {', '.join(known)}.")
    if isinstance(fit.family, Multinomial):
        return _by_category(fit, fit.family, type)
    return _of_means(fit.family, fit.response, fit.fitted, fit.linear_predictor, fit.lam, type) / (
        fit.theta_unit if type == "scaled" else 1.0
    )


def _of_means(family: Family, data: ResponseData, mu: FloatArray, eta: FloatArray, lam: Any, type: str) -> FloatArray:
    """Residuals of rows with means, (n,)."""
    if type in ("pearson", "scaled"):
        return family.pearson_at(data, mu, eta, lam)
    if type == "deviance":
        return family.deviance_residuals(data, mu, lam)
    raw = (data.y if data.trials is None else data.y / np.maximum(data.trials, 1.0)) - mu
    if type == "response":
        return raw
    slope: FloatArray = family.link.derivatives(eta)[1]
    return raw / slope


def _by_category(fit: Fit, family: Multinomial, type: str) -> FloatArray:
    """Residuals of each category against all others, (n, K); NaN in rows without trials."""
    binomial, p = Binomial(PROBABILITY_LINKS["logit"]), family.probabilities(fit.data, fit.linear_predictor)
    with np.errstate(all="ignore"):
        columns = [
            _of_means(binomial, own, mu, special.logit(mu), 0.0, type)
            for own, mu in zip(family.against_others(fit.data), p.T, strict=True)
        ]
    return np.where(fit.data.totals[:, None] > 0.0, np.column_stack(columns), np.nan)


def residual_series(fit: Fit, type: str = "response", seed: int | None = None) -> pd.Series[float]:
    """Residuals on the data's own index.

    Parameters
    ----------
    fit : Fit
    type : {"response", "pearson", "scaled", "deviance", "working", "quantile", "normalized",
        "probability", "score"}
        Response minus fitted value; times the square root of the weight ("pearson", "deviance"); and
        divided by sigma ("scaled"); for "quantile" see `quantile_residuals`. Of correlated
        residuals "normalized": independent ones with variance 1. Of ordered categories: "deviance", "probability"
        (P(Y < y) - P(Y > y)), "score" or "quantile". Of unordered ones a column for each category, whose residual is
        the binomial one of this category against all others.
    seed : int, optional
        Of the quantile residuals, which are simulated.

    Returns
    -------
    Series, shape (n,)
        Of several responses a DataFrame with a column for each, NaN where one is missing; so of unordered categories,
        NaN where a row of counts has no trials.
    """
    numbers: FloatArray
    if type == "quantile" and fit.family.is_joint:
        numbers = category_quantiles(fit, seed)
    elif type == "quantile":
        values = quantile_residuals(fit, seed=seed).residuals
        if fit.design.responses is None:
            return values
        numbers = np.asarray(values, dtype=np.float64)
    else:
        numbers = residual_values(fit, type)
    found: pd.Series[float] = by_row(fit, numbers, "residual")
    return found


def fitted_values(fit: Fit) -> pd.Series[float]:
    """Fitted values (offset and conditional modes included) as a Series on the user's own index.

    Of several responses a DataFrame with a column for each, NaN where one is missing.
    """
    found: pd.Series[float] = by_row(fit, fit.fitted, "fitted")
    return found


def row_weights(fit: Fit, type: str = "prior") -> pd.Series[float]:
    """Prior or working weights on the data's own index, as R's ``weights``.

    Parameters
    ----------
    fit : Fit
    type : {"prior", "working"}
        "prior": those that were given, 1 without any; numbers of trials of binomial rows (times the weights that these
        have beside them). "working": (dmu/deta)^2 over the variance of the response at the modes, which are the prior
        ones in a linear mixed model.

    Returns
    -------
    Series
    """
    if type not in ("prior", "working"):
        hint = did_you_mean(str(type), ("prior", "working"))
        raise OptionError(f"type={type!r} is no kind of weights.{hint} Use 'prior' or 'working'.")
    design, data = fit.design, fit.response
    found: pd.Series[float]
    prior = np.ones(design.n_obs) if data.weights is None else np.asarray(data.weights)
    if data.trials is not None:
        prior = prior * data.trials
    if type == "prior" or (fit.normal_errors and fit.independent_residuals):
        found = by_row(fit, prior, "weights")
        return found
    if not fit.independent_residuals:
        raise OptionError("correlated or unequal residuals have no working weights; see residual_covariance().")
    if not fit.family.has_expected:
        raise fit.family.lacks("expected weights")
    rows = fit.family.derivatives(data, fit.linear_predictor, fit.lam, 2, expected=True)
    found = by_row(fit, rows.w_exp, "weights")
    return found
