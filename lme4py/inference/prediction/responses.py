"""Predictions of several responses: each by its own family, side by side."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from lme4py.data.frame import Frame
from lme4py.fits.base import Fit
from lme4py.fits.responses.generalised import response_view
from lme4py.formula.several import RESPONSE

if TYPE_CHECKING:
    import pandas as pd

    from lme4py.design.responses.responses import BoundResponses

__all__ = ["predicted_by_family"]


def predicted_by_family(
    fit: Any,
    responses: BoundResponses,
    frame: Frame | None,
    predict: Callable[[Fit, Frame], pd.Series[float] | pd.DataFrame],
) -> pd.Series[float] | pd.DataFrame:
    """Predictions of long rows, those of each response by its own family.

    Parameters
    ----------
    fit : GeneralisedFit
    responses : BoundResponses
    frame : Frame or None
        Long rows; those of the fit when None.
    predict : callable
        From the view of one response and its rows to their predictions.
    """
    import pandas as pd

    rows = _own_rows(fit) if frame is None else frame
    column = rows.column(RESPONSE)
    labels = np.array([*map(str, column.levels)], dtype=object)[column.values]
    parts, places = [], []
    for k, label in enumerate(responses.labels):
        own = np.flatnonzero(labels == label)
        if own.size:
            parts.append(predict(response_view(fit, k), rows.take(own)))
            places.append(own)
    first = parts[0]
    table = np.full((rows.n_rows, 1 if isinstance(first, pd.Series) else first.shape[1]), np.nan)
    for own, part in zip(places, parts, strict=True):
        table[own] = np.asarray(part, dtype=np.float64).reshape(own.size, -1)
    if isinstance(first, pd.Series):
        return pd.Series(table[:, 0], index=rows.index, name=first.name)
    return pd.DataFrame(table, index=rows.index, columns=first.columns)


def _own_rows(fit: Fit) -> Frame:
    """The rows used, with the columns that the fit keeps."""
    columns = dict(fit.design.columns or {})
    names = tuple(columns)
    return Frame(names, fit.design.n_obs, lambda i: columns[names[i]], lambda: fit.design.index[fit.design.keep])
