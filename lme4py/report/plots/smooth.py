"""Smooths with their limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lme4py.inference.estimates.smooths import smooth_curves, smooths_of
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
    n: int = 100,
    derivative: bool = False,
    simultaneous: bool = False,
    level: float = 0.95,
) -> pd.DataFrame:
    """Curves of smooths: term, the variable as x, estimate, std_error, lower, upper.

    Parameters
    ----------
    fit : Fit
    variable : str or sequence of str, optional
        Labels of smooths, ``"s(x)"``; all by default.
    n : int
        Points of each.
    derivative, simultaneous, level
        As in `lme4py.inference.estimates.smooths.smooth_curves`.
    """
    import pandas as pd

    frames = []
    for label in _labels(fit, variable):
        table = smooth_curves(fit, label, n, derivative, simultaneous, level)
        frames.append(table.rename(columns={table.columns[0]: "x"}).assign(term=label))
    return pd.concat(frames, ignore_index=True)[["term", "x", "estimate", "std_error", "lower", "upper"]]


def smooth(
    fit: Fit,
    variable: Any = None,
    *,
    n: int = 100,
    derivative: bool = False,
    simultaneous: bool = False,
    level: float = 0.95,
    ax: Axes | None = None,
    figsize: tuple[float, float] | None = None,
) -> Axes | NDArray[Any]:
    """Each smooth, or its derivative, with pointwise or simultaneous limits.

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
    names = {one.label: one.variable for one in smooths_of(fit)}
    labels = list(dict.fromkeys(data["term"]))
    axes = panels(len(labels), ax, figsize, columns=2, size=(4.4, 3.4))
    for axis, label in zip(axes, labels, strict=False):
        own = data[data["term"] == label]
        axis.plot(own["x"], own["estimate"], color=BLUE)
        axis.fill_between(own["x"], own["lower"], own["upper"], color=BLUE, alpha=0.2, linewidth=0)
        axis.axhline(0.0, color="0.7", linewidth=0.8)
        axis.set_xlabel(names[label])
        title(axis, f"{label}, derivative" if derivative else label)
    drawn: Axes | NDArray[Any] = axes[0] if len(labels) == 1 else axes
    return drawn
