"""Leverages, and the distances of Cook that follow from them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lme4py.fits.base import Fit
from lme4py.fits.kinds import model_of
from lme4py.inference.diagnostics.influence import influence
from lme4py.inference.diagnostics.residuals import residual_values
from lme4py.inference.prediction.rows import by_row
from lme4py.linalg.types import FloatArray

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["cooks_distance", "hat_series", "hatvalues"]


def hatvalues(fit: Fit) -> FloatArray:
    """Leverages of the rows used, shape (n,).

    Parameters
    ----------
    fit : Fit

    Returns
    -------
    ndarray
        Diagonal of the matrix that maps the response to the fitted values, random effects included, at the estimated
        covariances (as lme4's `hatvalues`); for generalised models that of the working linear model, with the
        expected weights of iteratively reweighted least squares. Of several linear predictors: the trace of the row's
        block in all of them, with the observed weights. Their sum is the effective number of parameters. Of ordered
        categories: given the thresholds, with columns around their means.
    """
    return model_of(fit).hat_values()


def cooks_distance(fit: Fit) -> FloatArray:
    """Cook's distance of each row used, shape (n,): r^2 h / (p (1 - h)^2).

    Parameters
    ----------
    fit : Fit
        r are its Pearson residuals over sigma, h its `hatvalues` and p the number of fixed effects (as lme4's
        `cooks.distance`). Where residuals are correlated, or there are several linear predictors: the change of the
        fixed effects, as `influence` has it.
    """
    if not fit.independent_residuals or fit.family.with_all_stacked().stacked:
        return np.asarray(influence(fit).cooks_distance, dtype=np.float64)
    h, r = hatvalues(fit), residual_values(fit, "pearson")
    scale = fit.sigma if not fit.family.weights_multiply else 1.0
    p = max(fit.beta.size, 1)
    distance: FloatArray = (r / scale) ** 2 * h / (p * np.maximum(1.0 - h, 1e-300) ** 2)
    return distance


def hat_series(fit: Fit) -> pd.Series[float]:
    """Leverages: the diagonal of the matrix from responses to fitted values, on the data's own index.

    For a generalised model those of the working linear model at the estimates.

    Parameters
    ----------
    fit : Fit

    Returns
    -------
    Series, shape (n,)
    """
    found: pd.Series[float] = by_row(fit, hatvalues(fit), "hat")
    return found
