"""Probabilities of ordered categories with limits, for effect plots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from lme4py.inference.ordinal import family_of

if TYPE_CHECKING:
    import pandas as pd

    from lme4py.glmm_fit import GlmmFit

__all__ = ["category_rows"]

FloatArray = NDArray[np.float64]


def category_rows(fit: GlmmFit, table: pd.DataFrame, X: FloatArray, eta: FloatArray, z: float) -> pd.DataFrame:
    """`table` once for each category, with the columns category, predicted, lower and upper.

    With P(Y <= k) = 1 - F(eta - a_k) the probability of a category is the difference of two of them. Limits are normal
    on the logit scale, by the delta method in the fixed effects and the thresholds.

    Parameters
    ----------
    fit : GlmmFit
        Of ordered categories.
    table : DataFrame, n rows
    X : ndarray, shape (n, p)
    eta : ndarray, shape (n,)
    z : float
        Normal quantile of the limits.
    """
    import pandas as pd

    p = family_of(fit).probabilities(eta, fit.lam)
    error = _standard_errors(fit, X, eta)
    inside = np.clip(p, 1e-300, 1.0 - 1e-16)
    half = z * error / (inside * (1.0 - inside))
    centre = special.logit(inside)
    blocks = []
    for k, label in enumerate(fit.categories):
        parts: dict[str, Any] = {
            "category": [label] * len(table),
            "predicted": p[:, k],
            "lower": special.expit(centre[:, k] - half[:, k]),
            "upper": special.expit(centre[:, k] + half[:, k]),
        }
        blocks.append(table.assign(**parts))
    return pd.concat(blocks, ignore_index=True)


def _standard_errors(fit: GlmmFit, X: FloatArray, eta: FloatArray) -> FloatArray:
    """Of the probability of each category, shape (n, K)."""
    family = family_of(fit)
    n, K = eta.size, len(fit.categories)
    # Densities at the thresholds; there is none below the first and above the last category.
    f = np.zeros((n, K + 1))
    f[:, 1:-1] = family.link.derivatives(eta[:, None] - np.asarray(fit.thresholds))[1]
    own = fit.parameter_vcov[fit.theta.size :, fit.theta.size :]
    out = np.empty((n, K))
    for k in range(K):
        cuts = np.zeros((n, K + 1))
        cuts[:, k + 1], cuts[:, k] = f[:, k + 1], -f[:, k]
        gradient = np.hstack([(f[:, k] - f[:, k + 1])[:, None] * X, cuts[:, 1:-1]])
        out[:, k] = np.sqrt(np.maximum(np.einsum("na,ab,nb->n", gradient, own, gradient), 0.0))
    return out
