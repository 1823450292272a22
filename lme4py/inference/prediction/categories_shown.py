"""Predictions of categories as users see them: a column for each category, or the most probable one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lme4py.errors import IdentificationWarning, warn
from lme4py.families.ordered.categories import category_label
from lme4py.fits.base import Fit
from lme4py.linalg.types import FloatArray

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["by_predictor", "categories_shown"]

# Probabilities that differ by this part are equal but for rounding.
_SAME = 1e-12


def categories_shown(fit: Fit, table: FloatArray, index: pd.Index[Any], type: str) -> pd.DataFrame | pd.Series[Any]:
    """Numbers of the categories on an index.

    Parameters
    ----------
    fit : Fit
    table : ndarray, shape (n, K, c)
        Probabilities, standard errors where c is 2 or 4, and limits where it is 3 or 4.
    index : Index
    type : {"response", "prob", "cumulative", "class"}
    """
    return _most_probable(fit, table[:, :, 0], index) if type == "class" else _by_category(fit, table, index)


def by_predictor(fit: Fit, parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Linear predictors of the categories beside the baseline: a column for each, or a pair of levels.

    Parameters
    ----------
    fit : Fit
    parts : sequence of DataFrame
        One for each, with the columns predicted and what was asked for beside it.
    """
    import pandas as pd

    labels = pd.Index(list(fit.categories[1:]), name=fit.design.response_name)
    if len(parts[0].columns) == 1:
        return pd.concat([part["predicted"] for part in parts], axis=1).set_axis(labels, axis=1)
    columns = pd.MultiIndex.from_product([labels, list(parts[0].columns)], names=[labels.name, None])
    return pd.concat(parts, axis=1).set_axis(columns, axis=1)


def _by_category(fit: Fit, table: FloatArray, index: pd.Index[Any]) -> pd.DataFrame:
    """A column for each category; of several numbers each, (n, K, c), a pair of levels (category, number)."""
    import pandas as pd

    columns: pd.Index[Any] = pd.Index(list(fit.categories), name=fit.design.response_name)
    if table.shape[2] > 1:
        numbers = ["predicted", *["std_error"] * (table.shape[2] % 2 == 0), *["lower", "upper"] * (table.shape[2] > 2)]
        columns = pd.MultiIndex.from_product([columns, numbers], names=[columns.name, None])
    return pd.DataFrame(table.reshape(len(table), -1), index=index, columns=columns)


def _most_probable(fit: Fit, table: FloatArray, index: pd.Index[Any]) -> pd.Series[Any]:
    import pandas as pd

    missing = np.isnan(table).any(axis=1)
    shares = np.where(np.isnan(table), -1.0, table)
    top = shares >= (1.0 - _SAME) * shares.max(axis=1, keepdims=True)
    tied = (top.sum(axis=1) > 1) & ~missing
    if tied.any():
        first = int(np.flatnonzero(tied)[0])
        names = " and ".join(
            category_label(level) for level, own in zip(fit.categories, top[first], strict=True) if own
        )
        warn(
            f"{int(tied.sum())} of {tied.size} rows have several most probable categories (the first of these rows: "
            f"{names}); the first of them in the order of the categories is given. See type='prob'.",
            IdentificationWarning,
        )
    codes = np.where(missing, -1, top.argmax(axis=1))
    kind = pd.CategoricalDtype(list(fit.categories), ordered=fit.family.has_thresholds)
    values = pd.Categorical.from_codes(codes.astype(np.int64), dtype=kind)
    return pd.Series(values, index=index, name="predicted")
