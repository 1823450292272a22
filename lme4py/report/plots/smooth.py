"""Smooths with their limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lme4py.inference.estimates.smooth_system import Smooth, smooths_of
from lme4py.inference.estimates.smooths import smooth_curves
from lme4py.pictures import BLUE, panels, title

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from lme4py.fits.base import Fit

__all__ = ["smooth", "smooth_data"]


def _labels(fit: Fit, variable: Any) -> list[str]:
    known = [one.label for one in smooths_of(fit)]
    return known if variable is None else [variable] if isinstance(variable, str) else list(variable)


def smooth_data(
    fit: Fit,
    variable: Any = None,
    *,
    n: int | None = None,
    derivative: bool | str = False,
    simultaneous: bool = False,
    level: float = 0.95,
) -> pd.DataFrame:
    """Curves of smooths: term, the variable as x (and a second one as z), level, estimate, std_error, lower, upper.

    Parameters
    ----------
    fit : Fit
    variable : str or sequence of str, optional
        Labels of smooths, ``"s(x)"``; all by default.
    n : int, optional
        Points of each.
    derivative, simultaneous, level
        As in `lme4py.inference.estimates.smooths.smooth_curves`.
    """
    import pandas as pd

    known = {one.label: one for one in smooths_of(fit)}
    frames = []
    for label in _labels(fit, variable):
        table = smooth_curves(fit, label, n, derivative, simultaneous, level)
        one = known[label]
        names = dict(zip(one.variables[:2], ("x", "z"), strict=False)) | ({one.factor: "level"} if one.factor else {})
        frames.append(table.drop(columns=list(one.variables[2:])).rename(columns=names).assign(term=label))
    whole = pd.concat(frames, ignore_index=True)
    first = [name for name in ("term", "x", "z", "level") if name in whole]
    return whole[[*first, "estimate", "std_error", "lower", "upper"]]


def smooth(
    fit: Fit,
    variable: Any = None,
    *,
    n: int | None = None,
    derivative: bool | str = False,
    simultaneous: bool = False,
    level: float = 0.95,
    ax: Axes | None = None,
    figsize: tuple[float, float] | None = None,
) -> Axes | NDArray[Any]:
    """Each smooth, or its derivative: curves with limits, surfaces as contours, a curve for each level of a factor.

    Parameters
    ----------
    fit : Fit
    variable, n, derivative, simultaneous, level
        As in `smooth_data`.
    ax : Axes, optional
        For one smooth.
    figsize : (float, float), optional
    """
    data = smooth_data(fit, variable, n=n, derivative=derivative, simultaneous=simultaneous, level=level)
    known = {one.label: one for one in smooths_of(fit)}
    labels = list(dict.fromkeys(data["term"]))
    axes = panels(len(labels), ax, figsize, columns=2, size=(4.4, 3.4))
    for axis, label in zip(axes, labels, strict=False):
        own, one = data[data["term"] == label], known[label]
        draw = _surface if len(one.variables) > 1 else _levels if one.factor else _curve
        draw(axis, own, one)
        axis.set_xlabel(one.variables[0])
        title(axis, f"{label}, derivative" if derivative else label)
    drawn: Axes | NDArray[Any] = axes[0] if len(labels) == 1 else axes
    return drawn


def _curve(axis: Axes, own: pd.DataFrame, one: Smooth) -> None:
    axis.plot(own["x"], own["estimate"], color=BLUE)
    axis.fill_between(own["x"], own["lower"], own["upper"], color=BLUE, alpha=0.2, linewidth=0)
    axis.axhline(0.0, color="0.7", linewidth=0.8)


def _levels(axis: Axes, own: pd.DataFrame, one: Smooth) -> None:
    for _, curve in own.groupby("level", sort=False):
        axis.plot(curve["x"], curve["estimate"], color=BLUE, alpha=0.6, linewidth=1.0)
    axis.axhline(0.0, color="0.7", linewidth=0.8)


def _surface(axis: Axes, own: pd.DataFrame, one: Smooth) -> None:
    """Contours, and where the rows are."""
    side = int(np.sqrt(len(own)))
    x, z, height = (own[name].to_numpy().reshape(side, side) for name in ("x", "z", "estimate"))
    axis.contourf(x, z, height, levels=12, cmap="RdBu_r", alpha=0.7)
    lines = axis.contour(x, z, height, levels=12, colors="0.25", linewidths=0.6)
    axis.clabel(lines, fontsize=7)
    axis.plot(one.x[:, 0], one.x[:, 1], ".", color="0.2", markersize=2, alpha=0.5)
    axis.set_ylabel(one.variables[1])
