"""Fixed effects in standard deviations of their columns, and of the response of a linear model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lme4py.fits.base import Fit
from lme4py.formula.several import RESPONSE
from lme4py.inference.estimates.coefficients import chosen_alpha, coef_table, parametric_names, quantile
from lme4py.linalg.types import FloatArray

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["standardised_coefficients"]


def standardised_coefficients(fit: Fit, ddf: str | None = None, alpha: float | None = None) -> pd.DataFrame:
    """Coefficients for a change of one standard deviation of their columns of X, in those of the response.

    The change of the prediction when a column of the model matrix rises by its standard deviation over the rows (those
    with a value of its response, where there are several); of a linear model in standard deviations of the response, of
    others on the scale of the linear predictor. Statistics and p-values are those of the plain coefficients. (R's
    effectsize calls it "basic". To standardise the variables instead
    write ``scale(x)`` in the formula.)

    Parameters
    ----------
    fit : Fit
    ddf : {None, "satterthwaite", "kenward-roger", "residual", "normal"}
        As in `coef_table`.
    alpha : float, optional
        One minus the confidence level; that of the fit when not given.

    Returns
    -------
    DataFrame
        Columns estimate, std_error, lower, upper; the intercept, which has no standard deviation, is left out.

    Examples
    --------
    >>> import lme4py
    >>> fit = lme4py.lmer("Reaction ~ Days + (Days | Subject)", lme4py.load_dataset("sleepstudy")).fit
    >>> standardised_coefficients(fit)["estimate"].round(4).to_dict()
    {'Days': 0.5352}
    """
    X = fit.design.X[:, [fit.design.x_names.index(name) for name in parametric_names(fit)]]
    spread, scale = _spreads(fit, X)
    plain = coef_table(fit, ddf)
    half = quantile(chosen_alpha(fit, alpha), plain["df"].to_numpy(dtype=np.float64)) * plain["std_error"]
    columns = plain[["estimate", "std_error"]].assign(lower=plain["estimate"] - half, upper=plain["estimate"] + half)
    # A constant column is left out; rounding of its mean counts as none.
    varies = spread > 1e-12 * np.abs(X).max(axis=0, initial=0.0)
    table: pd.DataFrame = columns.mul(spread / scale, axis=0).loc[varies]
    return table


def _spreads(fit: Fit, X: FloatArray) -> tuple[FloatArray, Any]:
    """Standard deviations of the columns, and of the response of each."""
    design = fit.design
    if fit.family.is_joint:
        # Rows of all predictors, one below the other: a coefficient belongs to some of them, with the same columns.
        blocks = X.reshape(-1, design.n_obs, X.shape[1])
        first = np.abs(blocks).max(axis=1, initial=0.0).argmax(axis=0)
        return blocks[first, :, np.arange(X.shape[1])].std(axis=1, ddof=1), 1.0
    if design.responses is None:
        return X.std(axis=0, ddof=1), float(np.std(design.y, ddof=1)) if fit.normal_errors else 1.0
    codes = (design.columns or {})[RESPONSE].values
    spread, scale = np.zeros(X.shape[1]), np.ones(X.shape[1])
    for j, name in enumerate(parametric_names(fit)):
        own = codes == design.responses.labels.index(design.responses.split(name)[0])
        spread[j] = X[own, j].std(ddof=1)
        scale[j] = np.std(design.y[own], ddof=1) if fit.normal_errors else 1.0
    return spread, scale
