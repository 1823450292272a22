"""Predictions, residuals and tables of generalised linear mixed models."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import special

from lme4py.data.frame import read_frame
from lme4py.engine.types import FloatArray
from lme4py.errors import OptionError, did_you_mean
from lme4py.glmm_fit import GlmmFit
from lme4py.inference.coefficients import check_alpha
from lme4py.inference.predict import _chosen_terms, _new, _training, on_data_index
from lme4py.inference.variance import VarianceEntry, _keyed, _suffix, variance_entries

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "RESIDUAL_TYPES",
    "fitted_values",
    "predict",
    "ratios",
    "residual_series",
    "residual_values",
    "var_corr",
    "variance_components",
]

RESIDUAL_TYPES = ("response", "pearson", "deviance", "working")
# Points of the rule that averages a mean over the random effects; exact to 1e-10 for standard deviations up to 3.
_AVERAGE_POINTS = 41


def residual_values(fit: GlmmFit, type: str = "deviance") -> FloatArray:
    """Residuals of the rows used, shape (n,), conditional on the modes of the random effects.

    Parameters
    ----------
    fit : GlmmFit
    type : {"deviance", "pearson", "response", "working"}
        "response" is y - mu (for the binomial family the proportion less the probability), "working" divides it
        by dmu/deta; "pearson" and "deviance" are those of R's glm with prior weights.
    """
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


def _observed(fit: GlmmFit) -> FloatArray:
    """The response on the scale of the mean."""
    return fit.data.y if fit.data.trials is None else fit.data.y / np.maximum(fit.data.trials, 1.0)


def residual_series(fit: GlmmFit, type: str = "deviance") -> pd.Series[float]:
    """`residual_values` on the user's own index."""
    return on_data_index(_any(fit), residual_values(fit, type), "residual")


def fitted_values(fit: GlmmFit) -> pd.Series[float]:
    """Means (offset and conditional modes included) on the user's own index."""
    return on_data_index(_any(fit), fit.fitted, "fitted")


def _any(fit: GlmmFit) -> Any:
    """The functions for linear models read only what both kinds of fit have."""
    return fit


def predict(
    fit: GlmmFit,
    data: Any = None,
    include_random: bool | str | Iterable[str] = True,
    type: str = "response",
    new_levels: str = "zero",
) -> pd.Series[float]:
    """Predicted means or linear predictors.

    Parameters
    ----------
    fit : GlmmFit
    data : data frame, optional
        New data; None predicts the rows that were fitted.
    include_random : bool, str or iterable of str
        True adds the conditional modes of all terms, False none; names of grouping factors add theirs only.
        "integrate" averages the mean over the distribution of all random effects (population averages).
    type : {"response", "linear"}
    new_levels : {"zero", "error"}

    Returns
    -------
    pandas.Series
        On the data's own index.
    """
    import pandas as pd

    for name, value, allowed in (
        ("type", type, ("response", "linear")),
        ("new_levels", new_levels, ("zero", "error")),
    ):
        if value not in allowed:
            raise OptionError(f"{name} must be {' or '.join(map(repr, allowed))}, got {value!r}.")
    chosen = _chosen_terms(_any(fit), include_random)
    average = isinstance(include_random, str) and include_random == "integrate" and type == "response"
    if data is None:
        eta = _training(_any(fit), chosen, fit.linear_predictor)
        spread = _random_variance(fit, None) if average else None
        return on_data_index(_any(fit), _on_scale(fit, eta, spread, type), "predicted")
    frame = read_frame(data)
    eta = _new(_any(fit), frame, chosen, new_levels)
    spread = _random_variance(fit, frame) if average else None
    return pd.Series(_on_scale(fit, eta, spread, type), index=frame.index, name="predicted")


def _random_variance(fit: GlmmFit, frame: Any) -> FloatArray:
    """Variance of Z b of each row."""
    from lme4py.design.recipe import new_random

    total: Any = 0.0
    for t, (term, cov) in enumerate(zip(fit.design.terms, fit.covariances, strict=True)):
        Z = term.values if frame is None else new_random(fit.design.recipe, frame, t)[0]
        total = total + np.einsum("na,ab,nb->n", Z, cov, Z)
    return np.asarray(total)


def _on_scale(fit: GlmmFit, eta: FloatArray, variance: FloatArray | None, type: str) -> FloatArray:
    if type == "linear":
        return eta
    missing = np.isnan(eta)
    safe = np.where(missing, 0.0 if not missing.all() else 1.0, eta)
    if variance is None:
        mean = fit.family.mean(safe)
    else:
        x, w = np.polynomial.hermite.hermgauss(_AVERAGE_POINTS)
        sd = np.sqrt(np.where(missing, 0.0, variance))
        mean = np.einsum("q,qn->n", w / np.sqrt(np.pi), fit.family.mean(safe + np.sqrt(2.0) * x[:, None] * sd))
    return np.where(missing, np.nan, mean)


# -- tables ------------------------------------------------------------------------------------------------------


def has_residual(fit: GlmmFit) -> bool:
    """Only the gaussian family has a residual variance beside those of the random effects."""
    return fit.family.name == "gaussian"


def random_entries(fit: GlmmFit) -> Iterator[VarianceEntry]:
    """Variances and covariances of the random effects; the residual one for the gaussian family only."""
    for entry in variance_entries(_any(fit)):
        if entry.term is not None or has_residual(fit):
            yield entry


def var_corr(fit: GlmmFit) -> pd.DataFrame:
    """Table group, name1, name2, vcov, sdcor."""
    import pandas as pd

    rows = [(e.group, e.name1, e.name2, e.vcov, e.sdcor) for e in random_entries(fit)]
    table = pd.DataFrame(rows, columns=["group", "name1", "name2", "vcov", "sdcor"])
    for position in (1, 2):
        table[f"name{position}"] = pd.Series([row[position] for row in rows], dtype=object)
    return table


def variance_components(fit: GlmmFit) -> dict[str, float]:
    """Variances, covariances and correlations under Stata-like keys; see `lme4py.inference.variance`."""
    factors = {term.group for term in fit.design.terms}
    parts: dict[str, float] = {}
    for entry in random_entries(fit):
        parts.update(_keyed(entry, _suffix(_any(fit), entry, len(factors) > 1, parts)))
    return parts


def ratios(fit: GlmmFit, alpha: float | None, name: str) -> pd.DataFrame:
    """exp of the fixed effects with confidence limits.

    Parameters
    ----------
    fit : GlmmFit
    alpha : float or None
    name : str
        Name of the first column.
    """
    import pandas as pd

    half = -special.ndtri(check_alpha(alpha) / 2.0) * np.sqrt(fit.vcov.diagonal())
    columns = {name: np.exp(fit.beta), "lower": np.exp(fit.beta - half), "upper": np.exp(fit.beta + half)}
    index: pd.Index[str] = pd.Index(list(fit.design.x_names), name="term")
    return pd.DataFrame(columns, index=index)
