"""Figures, colours and labels shared by all plots; matplotlib is imported only when one is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lme4py.errors import OptionError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = [
    "BLUE",
    "GREY",
    "LIGHT",
    "ORANGE",
    "PALETTE",
    "level_axis",
    "level_height",
    "outside",
    "panels",
    "pyplot",
    "ratio_axis",
    "short",
    "single",
    "spikes",
    "strength",
    "style",
    "title",
]

# The colours of Okabe and Ito (2008), which people with any kind of colour vision can tell apart.
BLUE, ORANGE, LIGHT, GREY = "#0072B2", "#D55E00", "#9CC9E3", "#7F7F7F"
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_INCHES_PER_LABEL = 0.155
_LONGEST_LABEL = 24
_TALLEST = 8.5


def style(axis: Axes, grid: str = "both") -> Axes:
    """Light grid behind the data, no frame above and to the right."""
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axis.spines[side].set_color("0.7")
    axis.grid(True, axis=grid, color="0.92", linewidth=0.8)  # type: ignore[arg-type]
    axis.set_axisbelow(True)
    axis.tick_params(color="0.7", labelsize="small")
    return axis


def title(axis: Axes, text: str) -> None:
    """A small title at the left."""
    axis.set_title(text, fontsize="medium", loc="left")


def single(ax: Axes | None, figsize: tuple[float, float] | None, default: tuple[float, float] = (6.0, 4.2)) -> Axes:
    """The axes given, or those of a new figure."""
    if ax is not None:
        return style(ax)
    _, made = pyplot().subplots(figsize=figsize or default, layout="constrained")
    axis: Axes = made
    return style(axis)


def panels(
    n: int,
    ax: Axes | None,
    figsize: tuple[float, float] | None,
    *,
    columns: int = 4,
    size: tuple[float, float] = (3.2, 2.8),
    what: str = "panels",
    share: bool = False,
) -> NDArray[Any]:
    """Axes of `n` panels as an array of shape (n,), or the axes given where there is one panel.

    Raises
    ------
    OptionError
        Axes are given but there are several panels.
    """
    if ax is not None:
        if n > 1:
            raise OptionError(f"`ax` holds one plot but there are {n} {what}; choose one with `variable`.")
        return np.array([style(ax)], dtype=object)
    wide = min(n, columns)
    tall = -(-n // wide)
    shape = figsize or (0.4 + size[0] * wide, min(0.3 + size[1] * tall, 14.0))
    _, axes = pyplot().subplots(
        tall, wide, figsize=shape, squeeze=False, layout="constrained", sharex=share, sharey=share
    )
    flat = axes.ravel()
    for unused in flat[n:]:
        unused.set_visible(False)
    if share:
        # The lowest panel of each column shows the axis.
        for axis in flat[max(n - wide, 0) : n]:
            axis.tick_params(labelbottom=True)
    return np.array([style(axis) for axis in flat[:n]], dtype=object)


def spikes(values: pd.Series[float], n_labels: int, ax: Axes | None, figsize: tuple[float, float] | None) -> Axes:
    """A spike for each value in their order; the largest ones, in size, have their labels.

    Parameters
    ----------
    values : Series
    n_labels : int
    ax : Axes, optional
    figsize : (float, float), optional
    """
    axis = single(ax, figsize, (7.0, 3.6))
    y = values.to_numpy(dtype=np.float64)
    x = np.arange(y.size)
    axis.vlines(x, 0.0, y, color=LIGHT if y.size <= 400 else BLUE, linewidth=1.4 if y.size <= 400 else 0.6)
    if y.size <= 400:
        axis.plot(x, y, "o", color=BLUE, markersize=3.5)
    axis.axhline(0.0, color=GREY, linewidth=0.8)
    for i in _apart(y, n_labels):
        axis.annotate(
            short(values.index[i]),
            (i, y[i]),
            xytext=(0, 3 if y[i] >= 0 else -3),
            textcoords="offset points",
            ha="center",
            va="bottom" if y[i] >= 0 else "top",
            fontsize="small",
        )
    axis.margins(x=0.02, y=0.12)
    if np.nanmin(y, initial=0.0) >= 0.0:
        axis.set_ylim(bottom=0.0)
    axis.grid(False, axis="x")
    return axis


def _apart(y: NDArray[Any], n_labels: int) -> list[int]:
    """Places of the largest values in size, without neighbours whose labels would overlap."""
    chosen: list[int] = []
    known = np.flatnonzero(np.isfinite(y))
    for i in known[np.argsort(-np.abs(y[known]), kind="stable")].tolist():
        if len(chosen) < n_labels and all(abs(i - other) > 0.03 * y.size for other in chosen):
            chosen.append(i)
    return chosen


def ratio_axis(axis: Axes, lower: float, upper: float) -> None:
    """A logarithmic horizontal axis with plain numbers, for ratios between two values."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axis.set_xscale("log")
    narrow = upper / lower < 30.0
    axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if narrow else (1.0,)))
    axis.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())


def outside(axis: Axes, heading: str | None = None) -> None:
    """A legend to the right of the axes, where it covers nothing."""
    axis.legend(
        title=heading,
        fontsize="small",
        title_fontsize="small",
        frameon=False,
        loc="upper left",
        bbox_to_anchor=(1.0, 1.0),
    )


def level_height(n_levels: int) -> float:
    """Height in inches of a plot with one row per level."""
    return float(np.clip(1.0 + 0.2 * n_levels, 2.4, _TALLEST))


def level_axis(axis: Axes, labels: Sequence[Any], name: str) -> None:
    """Names of levels on the vertical axis, level i at height i; thinned where they would overlap.

    Parameters
    ----------
    axis : Axes
    labels : sequence
        From the bottom to the top.
    name : str
        Of the grouping factor.
    """
    n = len(labels)
    figure: Any = axis.figure
    inches = axis.get_position().height * figure.get_size_inches()[1]
    step = -(-n // max(3, int(inches / _INCHES_PER_LABEL)))
    shown = range(n - 1, -1, -step)
    axis.set_yticks(list(shown), labels=[short(labels[i]) for i in shown])
    axis.tick_params(axis="y", labelsize="x-small" if n > 25 else "small", length=0 if step == 1 else 2)
    axis.set_ylim(-0.8, n - 0.2)
    axis.set_ylabel(name if step == 1 else f"{name} ({n} levels, every {step}{_ordinal(step)} named)")


def _ordinal(number: int) -> str:
    if number % 100 in (11, 12, 13):
        return "th"
    return {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")


def short(label: Any) -> str:
    """A label of bounded length."""
    text = str(label)
    return text if len(text) <= _LONGEST_LABEL else text[: _LONGEST_LABEL - 1] + "…"


def strength(n: int) -> float:
    """Opacity of a point: many points overlap, and lighter ones show their density."""
    return float(np.clip(300.0 / max(n, 1), 0.08, 0.75))


def pyplot() -> Any:
    """matplotlib.pyplot, or an error that says how to install it."""
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        raise OptionError(
            'Plots need matplotlib, which is not installed; run `python -m pip install "lme4py[plot]"`.'
        ) from None
    return plt
