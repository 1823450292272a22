"""Quantile residuals in several panels: their distribution, against fitted values, dispersion, zeros, predictors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lme4py.data.column import Column
from lme4py.errors import OptionError
from lme4py.fits.base import Fit
from lme4py.inference.diagnostics.quantile_residuals import QuantileResiduals, quantile_residuals
from lme4py.linalg.types import FloatArray
from lme4py.pictures import BLUE, GREY, LIGHT, ORANGE, panels, short, title
from lme4py.report.plots.training import columns_of
from lme4py.report.plots.typical import fixed_names
from lme4py.tables.numbers import format_p_value

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

_MOST_PREDICTORS = 5

__all__ = ["residual_panel", "residual_panel_data"]


def residual_panel_data(
    fit: Fit, variable: str | None = None, *, n: int = 250, seed: int | None = None
) -> pd.DataFrame:
    """Rows of the fit: the fitted mean without random effects, the quantile residual (0 .. 1), and its rank / n.

    Parameters
    ----------
    fit : Fit
    variable : None
        There is nothing to choose.
    n : int
        Simulated responses.
    seed : int, optional
    """
    import pandas as pd

    found = _residuals(fit, variable, n, seed)
    residual = _values(found)
    rank = (np.argsort(np.argsort(residual, kind="stable"), kind="stable") + 0.5) / residual.size
    return pd.DataFrame({"fitted": found.expected, "residual": residual, "uniform": rank})


def residual_panel(
    fit: Fit,
    variable: str | None = None,
    *,
    ax: Axes | None = None,
    figsize: tuple[float, float] | None = None,
    n: int = 250,
    seed: int | None = None,
) -> NDArray[Any]:
    """Panels: uniform quantiles, residuals against fitted ranks, dispersion, zeros of discrete responses, predictors.

    Parameters
    ----------
    fit : Fit
    variable : None
    ax : None
        There are several panels.
    figsize : (float, float), optional
    n, seed
        As in `residual_panel_data`.
    """
    found = _residuals(fit, variable, n, seed)
    columns = _predictors(fit)
    first = 4 if found.is_discrete else 3
    axes = panels(first + len(columns), ax, figsize, columns=2 if not columns else 3, size=(3.6, 3.0))
    _quantiles(axes[0], found)
    _against_fitted(axes[1], found)
    size = np.ones(found.observed.size) if found.trials is None else found.trials
    spread = np.var((found.simulated - found.expected[:, None]) * size[:, None], axis=0, ddof=1)
    own = float(np.var((found.observed - found.expected) * size, ddof=1))
    test = found.test_dispersion()
    _histogram(axes[2], spread / spread.mean(), own / spread.mean(), "dispersion", test.p_value)
    axes[2].set_xlabel("variance over its mean in simulations")
    if found.is_discrete:
        zeros = (found.simulated == 0.0).sum(axis=0).astype(np.float64)
        inflation = found.test_zero_inflation()
        _histogram(axes[3], zeros, float((found.observed == 0.0).sum()), "zeros", inflation.p_value)
        axes[3].set_xlabel("number of zeros in simulations")
    for axis, (name, column) in zip(axes[first:], columns.items(), strict=True):
        _against_predictor(axis, name, column, found)
    return axes


def _predictors(fit: Fit) -> dict[str, Column]:
    """The first variables of the fixed effects, on the rows used."""
    return columns_of(fit, fixed_names(fit.design.recipe)[:_MOST_PREDICTORS])


def _against_predictor(axis: Axes, name: str, column: Column, found: QuantileResiduals) -> None:
    """Residuals over a variable: points for numbers, boxes for levels; the quartiles should lie at the dotted lines."""
    residual = _values(found)
    for level in (0.25, 0.5, 0.75):
        axis.axhline(level, color=GREY, linewidth=0.8, linestyle="-" if level == 0.5 else ":")
    if column.is_factor or column.kind == "boolean":
        codes = np.unique(column.values)
        boxes = [residual[column.values == code] for code in codes]
        drawn = axis.boxplot(boxes, positions=np.arange(len(codes)), widths=0.6, showfliers=False, patch_artist=True)
        for box in drawn["boxes"]:
            box.set(facecolor=LIGHT, edgecolor=BLUE)
        for part in ("whiskers", "caps", "medians"):
            for line in drawn[part]:
                line.set_color(BLUE)
        labels = [short(column.levels[int(code)]) if column.is_factor else str(bool(code)) for code in codes]
        axis.set_xticks(range(len(codes)), labels=labels, rotation=30 if len(codes) > 6 else 0)
    else:
        axis.plot(column.values, residual, "o", color=BLUE, markersize=2.5, alpha=0.6)
    axis.set(xlabel=short(name), ylabel="quantile residual", ylim=(-0.03, 1.03))
    title(axis, f"against {short(name)}")


def _residuals(fit: Fit, variable: str | None, n: int, seed: int | None) -> QuantileResiduals:
    if variable is not None:
        raise OptionError(f"the residual panel has no variable to choose; leave {variable!r} out.")
    return quantile_residuals(fit, n, seed, False)


def _values(found: QuantileResiduals) -> FloatArray:
    values: FloatArray = np.asarray(found.residuals, dtype=np.float64)
    return values[np.isfinite(values)]


def _quantiles(axis: Axes, found: QuantileResiduals) -> None:
    residual = np.sort(_values(found))
    expected = (np.arange(residual.size) + 0.5) / residual.size
    axis.plot([0.0, 1.0], [0.0, 1.0], color=GREY, linewidth=0.8)
    axis.plot(expected, residual, "o", color=BLUE, markersize=2.5)
    axis.set(xlabel="uniform quantile", ylabel="quantile residual", aspect="equal")
    title(axis, f"uniformity: p = {format_p_value(found.test_uniformity().p_value)}".replace("= <", "< "))


def _against_fitted(axis: Axes, found: QuantileResiduals) -> None:
    rank = np.argsort(np.argsort(found.expected, kind="stable"), kind="stable") / max(found.expected.size - 1, 1)
    for level in (0.25, 0.5, 0.75):
        axis.axhline(level, color=GREY, linewidth=0.8, linestyle="-" if level == 0.5 else ":")
    axis.plot(rank, _values(found), "o", color=BLUE, markersize=2.5, alpha=0.6)
    axis.set(xlabel="rank of the fitted mean", ylabel="quantile residual", ylim=(-0.03, 1.03))
    title(axis, "against fitted means")


def _histogram(axis: Axes, simulated: FloatArray, observed: float, name: str, p: float) -> None:
    axis.hist(simulated, bins=25, color=LIGHT)
    axis.axvline(observed, color=ORANGE, linewidth=2.0)
    axis.set_ylabel("simulations")
    title(axis, f"{name}: p = {format_p_value(p)}".replace("= <", "< "))
