"""Coefficients with their confidence limits, one row each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lme4py.design.names import INTERCEPTS
from lme4py.errors import OptionError, did_you_mean
from lme4py.fits.base import Fit
from lme4py.inference.estimates.coefficients import chosen_alpha, coef_table, confidence_intervals, parametric_names
from lme4py.pictures import BLUE, GREY, level_height, ratio_axis, single

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["coef", "coef_data"]


def coef_data(
    fit: Fit,
    variable: str | Sequence[str] | None = None,
    *,
    alpha: float | None = None,
    ddf: str | None = None,
    exponentiate: bool = False,
) -> pd.DataFrame:
    """Coefficients: term, estimate, lower, upper.

    Parameters
    ----------
    fit : Fit
    variable : str or sequence of str, optional
        Coefficients by name; all but the intercept when not given.
    alpha : float, optional
        One minus the level of the limits.
    ddf : str, optional
        Degrees of freedom of the limits.
    exponentiate : bool
        exp of estimates and limits: odds and rate ratios.
    """
    import pandas as pd

    names = parametric_names(fit)
    wanted = [name for name in names if name not in INTERCEPTS] if variable is None else variable
    chosen = [wanted] if isinstance(wanted, str) else list(wanted)
    for name in chosen:
        if name not in names:
            raise OptionError(
                f"There is no coefficient {name!r}.{did_you_mean(str(name), names)} They are {', '.join(names)}."
            )
    if not chosen:
        raise OptionError("the model has no coefficients beside the intercept; name it to see it alone.")
    limits = confidence_intervals(fit, chosen_alpha(fit, alpha), ddf=ddf).loc[chosen]
    numbers = np.column_stack([coef_table(fit, ddf)["estimate"].loc[chosen], limits["lower"], limits["upper"]])
    with np.errstate(over="ignore"):
        shown = np.exp(numbers) if exponentiate else numbers
    return pd.DataFrame(shown, columns=["estimate", "lower", "upper"]).assign(term=chosen)[
        ["term", "estimate", "lower", "upper"]
    ]


def coef(
    fit: Fit,
    variable: str | Sequence[str] | None = None,
    *,
    ax: Axes | None = None,
    figsize: tuple[float, float] | None = None,
    alpha: float | None = None,
    ddf: str | None = None,
    exponentiate: bool = False,
) -> Axes:
    """Coefficients as points with their limits, and a line at no effect.

    Parameters
    ----------
    fit : Fit
    variable : str or sequence of str, optional
    ax : Axes, optional
    figsize : (float, float), optional
    alpha, ddf, exponentiate
        As in `coef_data`.
    """
    table = coef_data(fit, variable, alpha=alpha, ddf=ddf, exponentiate=exponentiate).iloc[::-1]
    axis = single(ax, figsize, (6.0, min(level_height(len(table)), 8.5)))
    height = np.arange(len(table))
    estimate = table["estimate"].to_numpy()
    axis.axvline(1.0 if exponentiate else 0.0, color=GREY, linewidth=0.8)
    axis.hlines(height, table["lower"], table["upper"], color=BLUE, linewidth=1.6)
    axis.plot(estimate, height, "o", color=BLUE, markersize=5)
    axis.set_yticks(height, list(table["term"]))
    axis.set_ylim(-0.6, len(table) - 0.4)
    axis.grid(False, axis="y")
    if exponentiate:
        ratio_axis(axis, float(table["lower"].min()), float(table["upper"].max()))
    level = 100.0 * (1.0 - chosen_alpha(fit, alpha))
    what = "exp(coefficient)" if exponentiate else "coefficient"
    axis.set_xlabel(f"{what} with {level:g}% limits ({fit.design.response_name})")
    return axis
