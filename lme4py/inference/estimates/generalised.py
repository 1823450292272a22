"""Predictions, residuals and tables of generalised linear mixed models."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from lme4py.errors import OptionError, did_you_mean
from lme4py.fits.generalised.fit import GeneralisedFit
from lme4py.inference.estimates.coefficients import confidence_intervals
from lme4py.inference.estimates.limits import coefficient_estimates
from lme4py.inference.estimates.variance import VarianceEntry, _keyed, _suffix, variance_entries
from lme4py.inference.prediction.rows import on_data_index
from lme4py.linalg.types import FloatArray

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "RESIDUAL_TYPES",
    "fitted_values",
    "ratios",
    "residual_values",
    "var_corr",
    "variance_components",
]

RESIDUAL_TYPES = ("response", "pearson", "deviance", "working")


def residual_values(fit: GeneralisedFit, type: str = "deviance") -> FloatArray:
    """Residuals of the rows used, shape (n,), conditional on the modes of the random effects.

    Parameters
    ----------
    fit : GeneralisedFit
    type : {"deviance", "pearson", "response", "working"}
        "response" is y - mu (for the binomial family the proportion less the probability), "working" divides it
        by dmu/deta; "pearson" and "deviance" are those of R's glm with prior weights.
    """
    if fit.categories:
        from lme4py.inference.prediction.ordinal import ordinal_residuals

        return ordinal_residuals(fit, type)
    if type not in RESIDUAL_TYPES:
        hint = did_you_mean(str(type), RESIDUAL_TYPES)
        raise OptionError(f"type={type!r} is no kind of residual.{hint} Use one of {', '.join(RESIDUAL_TYPES)}.")
    mu = fit.fitted
    if type == "pearson":
        return fit.family.pearson(fit.data, mu, fit.lam)
    if type == "deviance":
        return fit.family.deviance_residuals(fit.data, mu, fit.lam)
    raw = _observed(fit) - mu
    if type == "response":
        return raw
    slope: FloatArray = fit.family.link.derivatives(fit.linear_predictor)[1]
    return raw / slope


def _observed(fit: GeneralisedFit) -> FloatArray:
    """The response on the scale of the mean."""
    return fit.data.y if fit.data.trials is None else fit.data.y / np.maximum(fit.data.trials, 1.0)


def fitted_values(fit: GeneralisedFit) -> pd.Series[float]:
    """Means (offset and conditional modes included) on the user's own index."""
    return on_data_index(fit, fit.fitted, "fitted")


# -- tables ------------------------------------------------------------------------------------------------------


def has_residual(fit: GeneralisedFit) -> bool:
    """Only the gaussian family has a residual variance beside those of the random effects."""
    return fit.family.has_residual


def random_entries(fit: GeneralisedFit) -> Iterator[VarianceEntry]:
    """Variances and covariances of the random effects; the residual one for the gaussian family only."""
    for entry in variance_entries(fit):
        if entry.term is not None or has_residual(fit):
            yield entry


def var_corr(fit: GeneralisedFit) -> pd.DataFrame:
    """Table group, name1, name2, vcov, sdcor."""
    import pandas as pd

    rows = [(e.group, e.name1, e.name2, e.vcov, e.sdcor) for e in random_entries(fit)]
    table = pd.DataFrame(rows, columns=["group", "name1", "name2", "vcov", "sdcor"])
    for position in (1, 2):
        table[f"name{position}"] = pd.Series([row[position] for row in rows], dtype=object)
    return table


def variance_components(fit: GeneralisedFit) -> dict[str, float]:
    """Variances, covariances and correlations under Stata-like keys; see `lme4py.inference.estimates.variance`."""
    factors = {term.group for term in fit.design.terms}
    parts: dict[str, float] = {}
    for entry in random_entries(fit):
        parts.update(_keyed(entry, _suffix(fit, entry, len(factors) > 1, parts)))
    return parts


def ratios(fit: GeneralisedFit, alpha: float | None, name: str) -> pd.DataFrame:
    """exp of the fixed effects with confidence limits.

    Parameters
    ----------
    fit : GeneralisedFit
    alpha : float or None
    name : str
        Name of the first column.
    """
    limits = confidence_intervals(fit, alpha).apply(np.exp)
    limits.insert(0, name, np.exp(coefficient_estimates(fit)))
    return limits
