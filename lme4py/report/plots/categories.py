"""Probabilities of categories with limits, for effect plots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lme4py.families.response import PartRows, ResponseData
from lme4py.fits.rows.arrays import RowArrays
from lme4py.inference.prediction.categories import CategoryRows, home_rows
from lme4py.inference.prediction.ordinal import general_parts, plain_parts
from lme4py.inference.prediction.predictor_error import predictor_error

if TYPE_CHECKING:
    import pandas as pd

    from lme4py.fits.base import Fit

__all__ = ["category_effects"]

FloatArray = NDArray[np.float64]


def category_effects(
    fit: Fit, table: pd.DataFrame, rows: RowArrays, parts: Sequence[PartRows], type: str, z: float
) -> pd.DataFrame:
    """`table` once for each category, with category, predicted, lower, upper, linear and std_error.

    Limits as those of ``predict(include_random=False, interval="confidence")``. The linear predictor of unordered
    categories is NaN for the baseline, and not there with ``type="linear"``.

    Parameters
    ----------
    fit : Fit
        Of categories.
    table : DataFrame, n rows
    rows : RowArrays
        Without random effects.
    parts : sequence of PartRows
        Of the further predictors.
    type : {"response", "linear"}
        "linear" for unordered categories.
    z : float
        Normal quantile of the limits.
    """
    import pandas as pd

    each = home_rows(fit, rows) if fit.family.is_joint else [rows]
    linear = [own.X @ fit.beta + own.offset for own in each]
    error = [np.sqrt(predictor_error(fit, own).variance) for own in each]
    if fit.family.is_joint:
        none = np.full(rows.n, np.nan)
        linear, error = [none, *linear], [none, *error]
    else:
        linear, error = linear * len(fit.categories), error * len(fit.categories)
    if type == "linear":
        found = [
            np.column_stack([eta + s * z * e for eta, e in zip(linear, error, strict=True)]) for s in (0.0, -1.0, 1.0)
        ]
    else:
        found = _probabilities(fit, rows, parts, z)
    blocks = []
    for k, label in enumerate(fit.categories):
        if type == "linear" and k == 0:
            continue
        own: dict[str, Any] = {"category": [label] * len(table)}
        own |= {name: numbers[:, k] for name, numbers in zip(("predicted", "lower", "upper"), found, strict=True)}
        blocks.append(table.assign(**own, linear=linear[k], std_error=error[k]))
    return pd.concat(blocks, ignore_index=True)


def _probabilities(fit: Fit, rows: RowArrays, parts: Sequence[PartRows], z: float) -> list[FloatArray]:
    """Probabilities and their limits, each (n, K)."""
    if fit.family.is_plain:
        return plain_parts(fit, rows, False, False, z)
    homes = fit.family.homes
    known = rows.offset.T if rows.offset.ndim == 2 else np.tile(rows.offset, (len(homes), 1))
    own = CategoryRows((rows.X,) * len(homes), known, ResponseData(np.zeros(rows.n), parts=tuple(parts)))
    return general_parts(fit, own, False, z)
