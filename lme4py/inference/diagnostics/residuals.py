"""Fitted values and residuals, on the index of the user's data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lme4py.errors import OptionError, did_you_mean
from lme4py.fits.base import Fit
from lme4py.fits.residual.fit import ResidualFit
from lme4py.fits.residual.residuals import structured_residuals
from lme4py.inference.diagnostics.quantile_residuals import quantile_residuals
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
    """
    if isinstance(fit, ResidualFit):
        return structured_residuals(fit, type)
    if fit.categories:
        return ordinal_residuals(fit, "pearson" if type == "scaled" else type)
    if type not in RESIDUAL_TYPES:
        hint = did_you_mean(str(type), RESIDUAL_TYPES)
        raise OptionError(f"type={type!r} is no kind of residual.{hint} Use one of {', '.join(RESIDUAL_TYPES)}.")
    mu = fit.fitted
    if type in ("pearson", "scaled"):
        pearson = fit.family.pearson_at(fit.response, mu, fit.linear_predictor, fit.lam)
        return pearson / fit.theta_unit if type == "scaled" else pearson
    if type == "deviance":
        return fit.family.deviance_residuals(fit.response, mu, fit.lam)
    raw = _observed(fit) - mu
    if type == "response":
        return raw
    slope: FloatArray = fit.family.link.derivatives(fit.linear_predictor)[1]
    return raw / slope


def _observed(fit: Fit) -> FloatArray:
    """The response on the scale of the mean."""
    return fit.data.y if fit.data.trials is None else fit.data.y / np.maximum(fit.data.trials, 1.0)


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
        (P(Y < y) - P(Y > y)), "score" or "quantile".
    seed : int, optional
        Of the quantile residuals, which are simulated.

    Returns
    -------
    Series, shape (n,)
        Of several responses a DataFrame with a column for each, NaN where one is missing.
    """
    if type == "quantile":
        values = quantile_residuals(fit, seed=seed).residuals
        if fit.design.responses is None:
            return values
        numbers: FloatArray = np.asarray(values, dtype=np.float64)
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
