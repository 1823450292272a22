"""Plots of results: lines with bands over a numeric variable, and forest plots; matplotlib is imported here only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from lme4py.errors import OptionError, did_you_mean
from lme4py.linalg.types import FloatArray
from lme4py.margins.population.scenarios import shown
from lme4py.pictures import BLUE, GREY, PALETTE, outside, ratio_axis, single

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from lme4py.margins.results.result import MarginsResult

__all__ = ["plot_result"]

_KINDS: Final = ("line", "forest")


def plot_result(
    result: MarginsResult,
    x: str | None = None,
    by: str | None = None,
    *,
    kind: str | None = None,
    ax: Axes | None = None,
    figsize: tuple[float, float] | None = None,
    level: float | None = None,
    simultaneous: bool = False,
    reference: float | None = None,
    xlabel: str | None = None,
    ylabel: str | None = None,
    title: str | None = None,
) -> Axes:
    """Draw a result; see `MarginsResult.plot`."""
    from lme4py.margins.results.result import check_level

    if kind is not None and kind not in _KINDS:
        raise OptionError(f"kind={kind!r} is no kind of plot.{did_you_mean(str(kind), _KINDS)} Use 'line' or 'forest'.")
    for name in (x, by):
        if name is not None and name not in result.scenarios:
            hint = did_you_mean(name, result.scenarios)
            raise OptionError(f"there is no scenario variable {name!r}.{hint} There are {', '.join(result.scenarios)}.")
    chosen = x if x is not None else _numeric_variable(result, by)
    draw_line = kind == "line" or (kind is None and chosen is not None)
    if draw_line and (chosen is None or not _is_numeric(result.scenarios[chosen])):
        raise OptionError("a line needs a numeric scenario variable with several values; use kind='forest'.")
    lower, upper = result.limits(check_level(result.level if level is None else level), simultaneous)
    axes = single(ax, figsize, (6.4, 4.2) if draw_line else (6.4, 1.1 + 0.34 * len(result)))
    if draw_line and chosen is not None:
        _line(axes, result, chosen, by, lower, upper)
        axes.set_xlabel(chosen if xlabel is None else xlabel)
        axes.set_ylabel(_quantity(result) if ylabel is None else ylabel)
        if reference is not None:
            axes.axhline(reference, color=GREY, linewidth=0.9, linestyle="--", zorder=1)
    else:
        _forest(axes, result, lower, upper, reference)
        axes.set_xlabel(_quantity(result) if xlabel is None else xlabel)
        axes.set_ylabel("" if ylabel is None else ylabel)
    axes.set_title(result.title if title is None else title, loc="left", fontsize=11)
    return axes


def _is_numeric(values: list[Any]) -> bool:
    return all(isinstance(value, (int, float, np.number)) and not isinstance(value, bool) for value in values)


def _numeric_variable(result: MarginsResult, by: str | None) -> str | None:
    """The numeric variable with most values, at least three, of predictions or slopes."""
    best, most = None, 2
    for name, values in result.scenarios.items():
        if name in (by, "row") or name not in result.numeric or not _is_numeric(values):
            continue
        if len(set(values)) > most:
            best, most = name, len(set(values))
    return best if best is not None and len(set(result.terms)) == 1 else None


def _quantity(result: MarginsResult) -> str:
    kinds = set(result.kinds)
    if "odds" in result.title:
        return "odds ratio"
    if result.shown == "exp" and kinds != {"predict"}:
        return "ratio"
    # The title says in parentheses what was averaged: "Predictions (probability)".
    averaged = result.title.rpartition("(")[2].rstrip(")") or "mean"
    words = {"predict": averaged, "dydx": f"slope of the {averaged}", "contrast": f"difference of the {averaged}"}
    only = next(iter(kinds)) if len(kinds) == 1 else "estimate"
    return words.get(only, only)


def _line(axes: Axes, result: MarginsResult, x: str, by: str | None, lower: FloatArray, upper: FloatArray) -> None:
    at = np.array(result.scenarios[x], dtype=np.float64)
    others = [name for name in result.scenarios if name != x] if by is None else [by]
    keys = list(zip(*(result.scenarios[name] for name in others), strict=True)) if others else [()] * at.size
    groups = list(dict.fromkeys(keys))
    for i, key in enumerate(groups):
        rows = np.array([j for j, one in enumerate(keys) if one == key])
        rows = rows[np.argsort(at[rows], kind="stable")]
        if np.unique(at[rows]).size < rows.size:
            raise OptionError(
                f"several estimates share a value of {x!r}; leave `by` out to get a line for every combination of "
                "the other variables."
            )
        colour = PALETTE[i % len(PALETTE)]
        label = ", ".join(f"{name} = {shown(value)}" for name, value in zip(others, key, strict=True))
        axes.fill_between(at[rows], lower[rows], upper[rows], color=colour, alpha=0.18, linewidth=0)
        marker = "o" if rows.size <= 8 else None
        axes.plot(at[rows], result.estimate[rows], color=colour, linewidth=1.8, marker=marker, label=label or None)
    if len(groups) > 1:
        outside(axes)


def _forest(axes: Axes, result: MarginsResult, lower: FloatArray, upper: FloatArray, reference: float | None) -> None:
    estimate, places = result.estimate, np.arange(len(result))[::-1]
    ratio = result.shown == "exp"
    line = reference if reference is not None else _no_effect(result)
    if line is not None:
        axes.axvline(line, color=GREY, linewidth=0.9, linestyle="--", zorder=1)
    axes.hlines(places, lower, upper, color=BLUE, linewidth=1.8, zorder=2)
    axes.plot(estimate, places, "o", color=BLUE, markersize=6, zorder=3)
    axes.set_yticks(places, list(result.labels))
    axes.set_ylim(-0.7, len(result) - 0.3)
    axes.tick_params(axis="y", length=0)
    if ratio and (lower > 0).all():
        ratio_axis(axes, float(lower.min()), float(upper.max()))


def _no_effect(result: MarginsResult) -> float | None:
    """Where there is no difference; predictions have no such place."""
    if set(result.kinds) <= {"predict", "evaluate"}:
        return None
    return 1.0 if result.shown == "exp" else 0.0
