"""Plots of rows: residuals against fitted values, and normal quantiles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from lme4py.errors import OptionError
from lme4py.fits.base import Fit
from lme4py.inference.diagnostics.quantile_residuals import category_quantiles, quantile_residuals
from lme4py.inference.diagnostics.residuals import residual_values
from lme4py.inference.estimates.coefficients import chosen_alpha
from lme4py.inference.estimates.random_effects import conditional_modes
from lme4py.inference.prediction.predict import predict
from lme4py.inference.prediction.rows import by_category
from lme4py.pictures import BLUE, GREY, LIGHT, ORANGE, PALETTE, short, single, strength, title
from lme4py.report.plots.random import chosen_effects
from lme4py.report.summaries.parts import is_ordinal

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["qq", "qq_data", "residuals", "residuals_data"]

FloatArray = NDArray[np.float64]
Figsize = tuple[float, float]
_NAMES = {
    "scaled": "scaled residual",
    "pearson": "Pearson residual",
    "deviance": "deviance residual",
    "response": "residual",
    "working": "working residual",
    "quantile": "quantile residual, normal scale",
}
# Quantile residuals are simulated; a plot and its numbers are the same each time.
_SEED = 1
# Half of one in 250 simulations.
_EDGE = 0.002


def _kind(fit: Fit, type: str | None, normal: bool = False) -> str:
    """The kind of residual, or that of the model when not given: one that should be normal, or one against means."""
    if type is not None:
        return type
    if fit.normal_errors:
        return "scaled" if fit.independent_residuals else "normalized"
    return "quantile" if normal or is_ordinal(fit) else "pearson"


def _residual_values(fit: Fit, type: str, include_random: bool = False) -> tuple[FloatArray, str]:
    """Residuals of the rows used and what they are called; quantile ones given the random effects, or for new ones."""
    if type == "quantile":
        normal = quantile_residuals(fit, seed=_SEED, include_random=include_random).normal.dropna()
        return np.asarray(normal, dtype=np.float64), _NAMES["quantile"]
    if is_ordinal(fit):
        raise OptionError("of the residuals of ordinal models only type='quantile' can be drawn.")
    return residual_values(fit, type), _NAMES.get(type, f"{type} residual")


# --- residuals against fitted values ----------------------------------------------------------------------------


def residuals_data(fit: Fit, variable: None = None, *, type: str | None = None) -> pd.DataFrame:
    """One row per row used, on the data's own index: fitted, residual; of unordered categories one for each of these.

    Parameters
    ----------
    fit : Fit
    variable : None
    type : str, optional
        Kind of residual; when not given "scaled" for linear models, "pearson" for generalised ones and "quantile" for
        ordered categories. Quantile residuals are drawn with new random effects, and so stand against the fixed part
        of the fitted values.
    """
    import pandas as pd

    if variable is not None:
        raise OptionError("kind='residuals' takes no `variable`; it draws all scaled residuals.")
    kind = _kind(fit, type)
    if fit.family.is_joint:
        return _by_category(fit, kind)
    values, _ = _residual_values(fit, kind)
    design = fit.design
    index = design.index if design.keep.all() else design.index[design.keep]
    fitted = _fixed_part(fit) if kind == "quantile" else fit.fitted
    return pd.DataFrame({"fitted": fitted, "residual": values}, index=index)


def _by_category(fit: Fit, kind: str) -> pd.DataFrame:
    """Rows once for each unordered category: category, fitted (its probability), residual."""
    import pandas as pd

    if kind == "quantile":
        uniform = np.clip(category_quantiles(fit, _SEED), _EDGE, 1.0 - _EDGE)
        residual = by_category(fit, special.ndtri(uniform))
    else:
        residual = by_category(fit, residual_values(fit, kind))
    mean = predict(fit, include_random=kind != "quantile", type="prob")
    table = pd.DataFrame(mean)
    parts = [
        pd.DataFrame({"category": label, "fitted": table[label], "residual": residual[label]}) for label in residual
    ]
    return pd.concat(parts).dropna()


def _fixed_part(fit: Fit) -> FloatArray:
    """Means of the rows used with random effects at zero; linear predictors of ordered categories."""
    means = predict(fit, include_random=False, type="linear" if is_ordinal(fit) else "response").to_numpy()
    fixed: FloatArray = np.asarray(means, dtype=np.float64)
    return fixed[~np.isnan(fixed)]


def residuals(
    fit: Fit,
    variable: None = None,
    *,
    ax: Axes | None = None,
    figsize: Figsize | None = None,
    type: str | None = None,
    smooth: bool = True,
) -> Axes:
    """Residuals against fitted values, with their running mean.

    Parameters
    ----------
    fit : Fit
    variable : None
    ax : Axes, optional
    figsize : (float, float), optional
    type : str, optional
    smooth : bool
        Draw the mean of the residuals in bins of equally many rows.
    """
    table = residuals_data(fit, variable, type=type)
    axis = single(ax, figsize)
    lines: dict[str | None, pd.DataFrame] = {None: table}
    if fit.family.is_joint:
        lines = {short(label): own for label, own in table.groupby("category", sort=False)}
    for i, (label, own) in enumerate(lines.items()):
        colour, mean = (BLUE, ORANGE) if label is None else (PALETTE[i % len(PALETTE)],) * 2
        x, y = own["fitted"].to_numpy(), own["residual"].to_numpy()
        axis.plot(x, y, "o", markersize=4, color=colour, alpha=strength(x.size), markeredgewidth=0)
        if smooth and x.size >= 20:
            axis.plot(*_binned(x, y), color=mean, linewidth=1.8, label="mean in bins" if label is None else label)
    axis.axhline(0.0, color=GREY, linewidth=0.9, zorder=0)
    if smooth and axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize="small", frameon=False, title=None if None in lines else "mean in bins")
    what = "linear predictor" if is_ordinal(fit) else f"fitted {'value' if fit.normal_errors else 'mean'}"
    what = "probability of a category" if fit.family.is_joint else what
    kind = _kind(fit, type)
    part = ", random effects zero" if kind == "quantile" else ""
    axis.set_xlabel(f"{what} of {fit.design.response_name}{part}")
    axis.set_ylabel(_NAMES.get(kind, f"{kind} residual"))
    title(axis, "Residuals against fitted values")
    return axis


def _binned(x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Means of x and y in up to 25 bins of equally many rows, rows in the order of x."""
    order = np.argsort(x, kind="stable")
    bins = np.array_split(order, int(np.clip(np.sqrt(x.size) / 1.5, 4, 25)))
    return np.array([x[b].mean() for b in bins]), np.array([y[b].mean() for b in bins])


# --- normal quantiles -------------------------------------------------------------------------------------------


def qq_data(
    fit: Fit, variable: str | None = None, *, type: str | None = None, alpha: float | None = None
) -> pd.DataFrame:
    """Sorted values against normal quantiles: label, theoretical, sample, line, lower, upper.

    Parameters
    ----------
    fit : Fit
    variable : str, optional
        A random effect, for its conditional modes; residuals when not given.
    type : str, optional
        Kind of residual; "scaled" for linear models and "quantile" for generalised ones when not given. Quantile
        residuals are simulated given the conditional modes: they should be normal for every family if the model is
        right, which Pearson and deviance residuals of counts and 0/1 responses are not.
    alpha : float, optional
        One minus the level of the band, which holds for each point on its own; that of the fit when not given.

    Returns
    -------
    pandas.DataFrame
        `line` goes through the quartiles; the band is that of order statistics of a normal sample, Beta(i, n - i + 1).
    """
    import pandas as pd

    values, labels, _ = _sample(fit, variable, type)
    order = np.argsort(values, kind="stable")
    y, n = values[order], values.size
    x = special.ndtri((np.arange(n) + 0.5) / n)
    # Through the quartiles: a few outliers do not turn this line.
    low, high = np.quantile(y, [0.25, 0.75])
    slope, centre = (high - low) / (2.0 * float(special.ndtri(0.75))), 0.5 * (low + high)
    i, tail = np.arange(1, n + 1), chosen_alpha(fit, alpha) / 2.0
    band = [centre + slope * special.ndtri(special.betaincinv(i, n - i + 1, p)) for p in (tail, 1.0 - tail)]
    columns = {"theoretical": x, "sample": y, "line": centre + slope * x, "lower": band[0], "upper": band[1]}
    return pd.DataFrame({"label": [labels[j] for j in order], **columns})


def _sample(fit: Fit, variable: str | None, type: str | None) -> tuple[FloatArray, list[Any], str]:
    if variable is None:
        # Those of one group share its random effect otherwise, and are no sample for the band.
        values, name = _residual_values(fit, _kind(fit, type, normal=True), include_random=True)
        design = fit.design
        return values, list(design.index[design.keep]), name
    (name, group, column), *more = chosen_effects(fit, variable)
    if more:
        names = ", ".join([name, *(other[0] for other in more)])
        raise OptionError(f"variable={variable!r} means several random effects ({names}); name one of them.")
    frame = conditional_modes(fit)[group]
    return frame[column].to_numpy(dtype=np.float64), list(frame.index), f"conditional mode of {name}"


def qq(
    fit: Fit,
    variable: str | None = None,
    *,
    ax: Axes | None = None,
    figsize: Figsize | None = None,
    type: str | None = None,
    alpha: float | None = None,
) -> Axes:
    """Normal quantiles of the residuals or of conditional modes, with a pointwise band.

    Parameters
    ----------
    fit : Fit
    variable : str, optional
    ax : Axes, optional
    figsize : (float, float), optional
    type : str, optional
    alpha : float, optional
    """
    alpha = chosen_alpha(fit, alpha)
    table = qq_data(fit, variable, type=type, alpha=alpha)
    axis = single(ax, figsize, (4.8, 4.4))
    x, n = table["theoretical"], len(table)
    size = 4.5 if n <= 300 else 3.0
    axis.plot(x, table["sample"], "o", markersize=size, color=BLUE, alpha=0.8 if n <= 300 else 0.5, markeredgewidth=0)
    axis.fill_between(x, table["lower"], table["upper"], color=LIGHT, alpha=0.3, linewidth=0, zorder=0)
    axis.plot(x, table["line"], color=GREY, linewidth=1.2, zorder=1)
    name = _sample(fit, variable, type)[2]
    axis.set_xlabel("normal quantile")
    axis.set_ylabel(name)
    title(axis, f"Normal quantiles, {100 * (1 - alpha):g} % band")
    return axis
