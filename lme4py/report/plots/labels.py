"""What the axes of plots say."""

from __future__ import annotations

import numpy as np

from lme4py.fits.base import Fit
from lme4py.pictures import short

__all__ = ["mean_label"]


def mean_label(fit: Fit, type: str = "response") -> str:
    """What the vertical axis of predictions says.

    Parameters
    ----------
    fit : Fit
    type : {"response", "linear"}
    """
    name = fit.design.response_name
    if fit.normal_errors:
        return short(name)
    if type == "linear":
        return f"linear predictor ({fit.family.link.name})"
    if fit.categories:
        return f"P({short(name)} = category)"
    if fit.family.has_trials:
        return _probability_label(fit)
    return f"mean of {short(name)}"


def _probability_label(fit: Fit) -> str:
    """``P(use = Y)`` of a response with two values, ``P(incidence)`` of successes and failures, or a proportion."""
    name = fit.design.response_name
    if name.startswith("cbind("):
        return f"P({short(name[len('cbind(') :].partition(',')[0].strip())})"
    column = (fit.design.columns or {}).get(name)
    if column is not None and column.is_factor:
        # The last of the levels that occur is the success.
        return f"P({short(name)} = {short(column.levels[int(column.values.max())])})"
    if column is not None and column.kind == "boolean":
        return f"P({short(name)})"
    one = fit.data.trials is None or float(np.max(fit.data.n_trials)) <= 1.0
    return f"P({short(name)} = 1)" if one else f"probability, {short(name)}"
