"""Probabilities of ordered categories with limits, for effect plots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lme4py.errors import OptionError
from lme4py.fits.rows.arrays import RowArrays
from lme4py.inference.prediction.ordinal import probabilities_at_limits
from lme4py.inference.prediction.ordinal_intervals import probability_limits
from lme4py.inference.prediction.predictor import family_of

if TYPE_CHECKING:
    import pandas as pd

    from lme4py.fits.base import Fit

__all__ = ["category_rows"]

FloatArray = NDArray[np.float64]


def category_rows(fit: Fit, table: pd.DataFrame, X: FloatArray, eta: FloatArray, z: float) -> pd.DataFrame:
    """`table` once for each category, with the columns category, predicted, lower and upper.

    Limits as those of ``predict(type="prob", include_random=False, interval="confidence")``.

    Parameters
    ----------
    fit : Fit
        Of ordered categories.
    table : DataFrame, n rows
    X : ndarray, shape (n, p)
    eta : ndarray, shape (n,)
    z : float
        Normal quantile of the limits.
    """
    import pandas as pd

    if not fit.family.is_plain:
        raise OptionError(
            "effect plots of categories are those of cumulative models without further parts; use "
            "Margins.response(fit).predict(...).plot()."
        )
    rows = RowArrays(X, eta - X @ fit.beta, {}, {}, None)
    found = [family_of(fit).probabilities(eta, fit.lam), *probability_limits(fit, rows, z)]
    p, lower, upper = probabilities_at_limits(fit, rows, found, average=False, cumulative=False)
    blocks = []
    for k, label in enumerate(fit.categories):
        parts: dict[str, Any] = {
            "category": [label] * len(table),
            "predicted": p[:, k],
            "lower": lower[:, k],
            "upper": upper[:, k],
        }
        blocks.append(table.assign(**parts))
    return pd.concat(blocks, ignore_index=True)
