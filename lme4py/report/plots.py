"""Diagnostic plots; matplotlib is imported only when one is drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from lme4py.errors import OptionError, did_you_mean
from lme4py.fit import Fit
from lme4py.inference.coefficients import check_alpha
from lme4py.inference.random_effects import conditional_modes, conditional_sds
from lme4py.inference.residuals import residual_values

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["plot"]

FloatArray = NDArray[np.float64]
_KINDS = ("caterpillar", "residuals", "qq")
_MOST_LABELS = 60  # more level names than this cannot be read on an axis
_COLOUR = "#2b5c8a"


def plot(fit: Fit, kind: str = "caterpillar", variable: str | None = None, **kw: Any) -> Axes | NDArray[Any]:
    """Draw one of the diagnostic plots.

    Parameters
    ----------
    fit : Fit
    kind : {"caterpillar", "residuals", "qq"}
        Conditional modes with 95 % intervals, level by level; scaled residuals against fitted values; normal
        quantiles of the scaled residuals, or of the conditional modes of `variable`.
    variable : str, optional
        Random effect to draw, as ``"Days"`` or, with several grouping factors, ``"Intercept|Subject"``. The
        caterpillar plot draws every random effect when it is not given.
    **kw
        ``ax`` to draw into given axes, ``figsize``, and for the caterpillar plot ``alpha`` (0.05) and
        ``sort`` (True).

    Returns
    -------
    matplotlib Axes, or an array of them when several random effects are drawn
    """
    if kind == "caterpillar":
        return _caterpillar(fit, variable, **kw)
    if kind == "residuals":
        return _residuals(fit, variable, **kw)
    if kind == "qq":
        return _quantiles(fit, variable, **kw)
    hint = did_you_mean(str(kind), _KINDS)
    raise OptionError(f"kind={kind!r} is no kind of plot.{hint} Use one of {', '.join(_KINDS)}.")


def _caterpillar(
    fit: Fit,
    variable: str | None = None,
    *,
    ax: Axes | None = None,
    figsize: tuple[float, float] | None = None,
    alpha: float = 0.05,
    sort: bool = True,
) -> Axes | NDArray[Any]:
    effects = _random_effects(fit)
    names = list(effects) if variable is None else [_known_variable(variable, effects)]
    if ax is not None and len(names) > 1:
        raise OptionError(
            f"`ax` holds one plot but there are {len(names)} random effects; choose one with `variable`: "
            f"{', '.join(names)}."
        )
    half_width = -float(special.ndtri(check_alpha(alpha) / 2.0))
    axes = [ax] if ax is not None else _side_by_side([effects[name][0].size for name in names], figsize)
    for name, axis in zip(names, axes, strict=True):
        _draw_caterpillar(axis, name, *effects[name], half_width, sort)
    return axes[0] if len(axes) == 1 else np.array(axes, dtype=object)


def _draw_caterpillar(
    axis: Axes, name: str, modes: pd.Series[float], sds: pd.Series[float], half_width: float, sort: bool
) -> None:
    order = np.argsort(modes.to_numpy(), kind="stable") if sort else np.arange(modes.size)[::-1]
    x = modes.to_numpy()[order]
    height = np.arange(x.size)
    crowded = x.size > _MOST_LABELS
    axis.errorbar(
        x,
        height,
        xerr=half_width * sds.to_numpy()[order],
        fmt="o",
        markersize=2 if crowded else 4,
        elinewidth=0.6 if crowded else 1.2,
        color=_COLOUR,
        ecolor="#9dbad5",
    )
    axis.axvline(0.0, color="0.6", linewidth=0.8, zorder=0)
    labels = [] if crowded else [str(modes.index[i]) for i in order]
    axis.set_yticks([] if crowded else height, labels=labels)
    axis.set_ylim(-0.8, x.size - 0.2)
    axis.set_title(name.partition("|")[0], fontsize="medium")
    axis.set_xlabel("conditional mode")
    axis.set_ylabel(f"{modes.index.name} ({x.size} levels)" if crowded else str(modes.index.name))


def _residuals(
    fit: Fit,
    variable: str | None = None,
    *,
    ax: Axes | None = None,
    figsize: tuple[float, float] | None = None,
) -> Axes:
    if variable is not None:
        raise OptionError("kind='residuals' takes no `variable`; it draws all scaled residuals.")
    axis = ax if ax is not None else _one(figsize)
    residuals = residual_values(fit, "scaled")
    # Many points overlap: make them lighter, so that density can be seen.
    strength = float(np.clip(300.0 / residuals.size, 0.08, 0.8))
    axis.plot(fit.fitted, residuals, "o", markersize=4, color=_COLOUR, alpha=strength, markeredgewidth=0)
    axis.axhline(0.0, color="0.6", linewidth=0.8, zorder=0)
    axis.set_xlabel("fitted value")
    axis.set_ylabel("scaled residual")
    return axis


def _quantiles(
    fit: Fit,
    variable: str | None = None,
    *,
    ax: Axes | None = None,
    figsize: tuple[float, float] | None = None,
) -> Axes:
    values, label = _quantile_values(fit, variable)
    axis = ax if ax is not None else _one(figsize)
    y = np.sort(values)
    x = special.ndtri((np.arange(y.size) + 0.5) / y.size)
    axis.plot(x, y, "o", markersize=4, color=_COLOUR, markeredgewidth=0)
    # Through the quartiles: a few outliers do not turn this line.
    low, high = np.quantile(y, [0.25, 0.75])
    slope = (high - low) / (2.0 * float(special.ndtri(0.75)))
    axis.axline((0.0, float(0.5 * (low + high))), slope=float(slope), color="0.6", linewidth=0.8, zorder=0)
    axis.set_xlabel("normal quantile")
    axis.set_ylabel(label)
    return axis


def _quantile_values(fit: Fit, variable: str | None) -> tuple[FloatArray, str]:
    if variable is None:
        return residual_values(fit, "scaled"), "scaled residual"
    effects = _modes(fit)
    name = _known_variable(variable, effects)
    return np.asarray(effects[name], dtype=np.float64), f"conditional mode of {name}"


def _modes(fit: Fit) -> dict[str, pd.Series[float]]:
    return _columns(conditional_modes(fit))


def _random_effects(fit: Fit) -> dict[str, tuple[pd.Series[float], pd.Series[float]]]:
    sds = _columns(conditional_sds(fit))
    return {name: (modes, sds[name]) for name, modes in _modes(fit).items()}


def _columns(frames: dict[str, pd.DataFrame]) -> dict[str, pd.Series[float]]:
    """Each column of each frame, named ``"x"``, or ``"x|g"`` when there are several grouping factors."""
    several = len(frames) > 1
    return {
        f"{name}|{group}" if several else str(name): frame[name]
        for group, frame in frames.items()
        for name in frame.columns
    }


def _known_variable(variable: str, effects: dict[str, Any]) -> str:
    if variable in effects:
        return variable
    hint = did_you_mean(str(variable), effects)
    raise OptionError(f"There is no random effect {variable!r}.{hint} Use one of {', '.join(effects)}.")


def _side_by_side(sizes: list[int], figsize: tuple[float, float] | None) -> list[Axes]:
    plt = _pyplot()
    # Room for each label; without labels the number of levels does not matter.
    height = max(6.0 if size > _MOST_LABELS else max(2.5, 0.9 + 0.2 * size) for size in sizes)
    _, axes = plt.subplots(
        1,
        len(sizes),
        figsize=figsize or (1.0 + 3.6 * len(sizes), height),
        squeeze=False,
        layout="constrained",
    )
    return list(axes[0])


def _one(figsize: tuple[float, float] | None) -> Axes:
    _, axis = _pyplot().subplots(figsize=figsize or (6.0, 4.5), layout="constrained")
    drawn: Axes = axis
    return drawn


def _pyplot() -> Any:
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        raise OptionError(
            'Plots need matplotlib, which is not installed; run `python -m pip install "lme4py[plot]"`.'
        ) from None
    return plt
