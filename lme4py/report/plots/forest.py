"""Effects with known sampling variances, one row each, and what the model says of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import special

from lme4py.design.names import INTERCEPTS
from lme4py.errors import OptionError
from lme4py.fits.base import Fit
from lme4py.inference.estimates.coefficients import chosen_alpha, coef_table, confidence_intervals
from lme4py.inference.shares.sampling import sampling_sd
from lme4py.pictures import BLUE, GREY, level_height, single

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["forest", "forest_data"]


def forest_data(
    fit: Fit, variable: str | None = None, *, alpha: float | None = None, ddf: str | None = None
) -> pd.DataFrame:
    """Effects and their limits: label, estimate, lower, upper, part of the weight of each row; the pooled effect last.

    Parameters
    ----------
    fit : Fit
        With sampling variances that are known.
    variable : str, optional
        A column of the data that labels the rows; the first grouping factor, or the rows' own labels, by default.
    alpha : float, optional
        One minus the level of the limits.
    ddf : str, optional
        Degrees of freedom of the limits of the pooled effect.

    Raises
    ------
    OptionError
    """
    import pandas as pd

    sd = sampling_sd(fit)
    if sd is None:
        raise OptionError(
            "a forest plot shows effects whose sampling variances are known; fit the model with weights='1/v', sigma=1."
        )
    level = chosen_alpha(fit, alpha)
    z = float(special.ndtri(1.0 - level / 2.0))
    variances = sd**2 + sum(
        np.einsum("ij,jk,ik->i", term.values, cov, term.values)
        for term, cov in zip(fit.design.terms, fit.covariances, strict=True)
    )
    weight = 1.0 / variances
    y = np.asarray(fit.design.y, dtype=float)
    table = pd.DataFrame(
        {
            "label": _labels(fit, variable),
            "estimate": y,
            "lower": y - z * sd,
            "upper": y + z * sd,
            "weight": weight / weight.sum(),
        }
    )
    names = list(fit.design.x_names)
    if len(names) != 1 or names[0] not in INTERCEPTS:
        return table
    limits = confidence_intervals(fit, level, ddf=ddf).iloc[0]
    pooled = float(coef_table(fit, ddf)["estimate"].iloc[0])
    last = {"label": "pooled", "estimate": pooled, "lower": limits["lower"], "upper": limits["upper"], "weight": np.nan}
    return pd.concat([table, pd.DataFrame([last])], ignore_index=True)


def _labels(fit: Fit, variable: str | None) -> list[str]:
    design = fit.design
    if variable is not None:
        columns = design.columns or {}
        if variable not in columns:
            raise OptionError(f"the model has no column {variable!r}. It has {', '.join(columns)}.")
        column = columns[variable]
        levels = column.levels if column.is_factor else None
        return [str(value if levels is None else levels[int(value)]) for value in column.values]
    if design.terms:
        term = design.terms[0]
        return [str(term.levels[int(code)]) for code in term.codes]
    return [str(label) for label in design.index[design.keep]]


def forest(
    fit: Fit,
    variable: str | None = None,
    *,
    ax: Axes | None = None,
    figsize: tuple[float, float] | None = None,
    alpha: float | None = None,
    ddf: str | None = None,
) -> Axes:
    """A forest plot: squares as large as the weights of the rows, and a diamond for the pooled effect.

    Parameters
    ----------
    fit : Fit
    variable : str, optional
    ax : Axes, optional
    figsize : (float, float), optional
    alpha, ddf
        As in `forest_data`.
    """
    table = forest_data(fit, variable, alpha=alpha, ddf=ddf).iloc[::-1].reset_index(drop=True)
    axis = single(ax, figsize, (6.4, min(level_height(len(table)), 11.0)))
    pooled = table["weight"].isna().to_numpy()
    height = np.arange(len(table))
    rows = table[~pooled]
    axis.axvline(0.0, color=GREY, linewidth=0.8)
    axis.hlines(height[~pooled], rows["lower"], rows["upper"], color=BLUE, linewidth=1.2)
    weight = rows["weight"].to_numpy()
    axis.scatter(rows["estimate"], height[~pooled], s=12.0 + 90.0 * weight / weight.max(), marker="s", color=BLUE)
    for place in np.flatnonzero(pooled):
        estimate, lower, upper = (float(table[name].iloc[place]) for name in ("estimate", "lower", "upper"))
        axis.fill([lower, estimate, upper, estimate], place + np.array([0.0, 0.3, 0.0, -0.3]), color=BLUE, alpha=0.7)
        axis.axvline(estimate, color=BLUE, linewidth=0.8, linestyle=":")
    axis.set_yticks(height, list(table["label"]))
    axis.set_ylim(-0.7, len(table) - 0.3)
    axis.grid(False, axis="y")
    axis.set_xlabel(f"{fit.design.response_name}, {100.0 * (1.0 - chosen_alpha(fit, alpha)):g}% limits")
    return axis
