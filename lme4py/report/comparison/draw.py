"""Coefficients of several models side by side, drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lme4py.design.names import INTERCEPTS
from lme4py.errors import OptionError, did_you_mean
from lme4py.pictures import GREY, PALETTE, level_height, outside, ratio_axis, short, single

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from lme4py.report.comparison.compare import Comparison

__all__ = ["draw_comparison"]


def draw_comparison(
    found: Comparison,
    terms: str | Sequence[str] | None,
    ax: Axes | None,
    figsize: tuple[float, float] | None,
) -> Axes:
    """See `Comparison.plot`."""
    table = found.to_frame(wide=False)
    table = table[(table["part"] == "fixed") & table["estimate"].notna()]
    chosen = _chosen(list(dict.fromkeys(map(str, table["term"]))), terms)
    models = list(found.names)
    if len(models) > len(PALETTE):
        raise OptionError(f"{len(models)} models are more than the {len(PALETTE)} that can be told apart in a plot.")
    ratios = any(found.exponentiated)
    if ratios and not all(found.exponentiated):
        raise OptionError("some models show ratios and others coefficients, which have no axis in common.")
    axis = single(ax, figsize, (6.8, level_height(len(chosen) * max(1, len(models) // 2))))
    for i, model in enumerate(models):
        own = table[table["model"] == model].set_index("term")
        _draw(axis, own, chosen, PALETTE[i], model, 0.7 * ((len(models) - 1) / 2 - i) / max(len(models), 1))
    axis.axvline(1.0 if ratios else 0.0, color=GREY, linewidth=0.8, zorder=0)
    if ratios:
        ratio_axis(axis, *_range(table))
    axis.set_yticks(range(len(chosen)), labels=[short(name) for name in reversed(chosen)])
    axis.set_ylim(-0.6, len(chosen) - 0.4)
    axis.grid(False, axis="y")
    axis.set_xlabel(f"{'exp(coefficient)' if ratios else 'coefficient'} with confidence limits")
    if len(models) > 1:
        outside(axis)
    return axis


def _range(table: pd.DataFrame) -> tuple[float, float]:
    limits = table[["ci_lower", "ci_upper"]].to_numpy(dtype=np.float64)
    return float(np.nanmin(limits)), float(np.nanmax(limits))


def _draw(axis: Axes, own: pd.DataFrame, chosen: list[str], colour: str, model: str, shift: float) -> None:
    present = [name for name in chosen if name in own.index]
    height = np.array([len(chosen) - 1 - chosen.index(name) for name in present]) + shift
    numbers = own.loc[present, ["estimate", "ci_lower", "ci_upper"]].to_numpy(dtype=np.float64)
    axis.hlines(height, numbers[:, 1], numbers[:, 2], color=colour, linewidth=1.6)
    axis.plot(numbers[:, 0], height, "o", color=colour, markersize=5, label=short(model))


def _chosen(known: list[str], terms: str | Sequence[str] | None) -> list[str]:
    if terms is None:
        names = [name for name in known if name not in INTERCEPTS]
    else:
        names = [terms] if isinstance(terms, str) else list(terms)
    for name in names:
        if name not in known:
            raise OptionError(f"no model has the coefficient {name!r}.{did_you_mean(str(name), known)}")
    if not names:
        raise OptionError("the models have no coefficients beside the intercept; name it to see it alone.")
    return names
