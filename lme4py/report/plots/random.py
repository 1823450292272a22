"""Plots of random effects: caterpillar, normal quantiles of the modes, shrinkage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from lme4py.design.names import INTERCEPTS
from lme4py.errors import OptionError, did_you_mean
from lme4py.fits.base import Fit
from lme4py.fits.refuse import refuse_structured, refuse_without_random
from lme4py.inference.diagnostics.residuals import residual_values
from lme4py.inference.estimates.coefficients import chosen_alpha
from lme4py.inference.estimates.random_effects import conditional_modes, conditional_sds, known_columns
from lme4py.pictures import BLUE, GREY, LIGHT, ORANGE, level_axis, level_height, panels, single, title

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["caterpillar", "caterpillar_data", "effect_names", "shrinkage", "shrinkage_data"]

FloatArray = NDArray[np.float64]
Figsize = tuple[float, float]


def effect_names(fit: Fit) -> dict[str, tuple[str, str]]:
    """(factor, column) of each random effect by its name: "Days", or "Days|Subject" with several factors."""
    frames = conditional_modes(_any(fit))
    several = len(frames) > 1
    return {
        (f"{column}|{group}" if several else str(column)): (group, str(column))
        for group, frame in frames.items()
        for column in frame.columns
    }


def chosen_effects(fit: Fit, variable: str | Sequence[str] | None) -> list[tuple[str, str, str]]:
    """(name, factor, column) of the random effects that `variable` names; the name of a factor stands for all its own.

    Parameters
    ----------
    fit : Fit
    variable : str, sequence of str, or None
        None takes all.
    """
    known = effect_names(fit)
    if variable is None:
        return [(name, *pair) for name, pair in known.items()]
    found: list[tuple[str, str, str]] = []
    for word in [variable] if isinstance(variable, str) else variable:
        own = [(name, *pair) for name, pair in known.items() if word in (name, "|".join(reversed(pair)), pair[0])]
        own = own or [(name, *pair) for name, pair in known.items() if word == pair[1]]
        if not own:
            raise OptionError(
                f"There is no random effect {word!r}.{did_you_mean(str(word), known)} Use one of {', '.join(known)}."
            )
        found += [item for item in own if item not in found]
    return found


def _any(fit: Fit) -> Any:
    return fit


# --- caterpillar ------------------------------------------------------------------------------------------------


def _asked_for(fit: Fit, variable: str | Sequence[str] | None) -> list[tuple[str, str, str]]:
    """The effects of a caterpillar plot: the first random intercept (or effect) when not given."""
    if not fit.design.n_groups:
        raise OptionError("the model has no random effects to draw; see plot('residuals').")
    if variable is None:
        known = chosen_effects(fit, None)
        return [next((effect for effect in known if effect[2] in INTERCEPTS), known[0])]
    names = effect_names(fit)
    if variable == "all" and not any("all" in (name, *pair) for name, pair in names.items()):
        return chosen_effects(fit, None)
    return chosen_effects(fit, variable)


def caterpillar_data(
    fit: Fit, variable: str | Sequence[str] | None = None, *, alpha: float | None = None, sort: bool = True
) -> pd.DataFrame:
    """Conditional modes with normal intervals: group, term, level, estimate, std_error, lower, upper.

    Parameters
    ----------
    fit : Fit
    variable : str or sequence of str, optional
        Random effects or grouping factors, or "all"; the random intercept when not given.
    alpha : float, optional
    sort : bool
        By size within each random effect; otherwise in the order of the levels.
    """
    import pandas as pd

    half = -float(special.ndtri(chosen_alpha(fit, alpha) / 2.0))
    modes, sds = conditional_modes(_any(fit)), conditional_sds(_any(fit))
    blocks = []
    for _, group, column in _asked_for(fit, variable):
        estimate = modes[group][column].to_numpy()
        error = sds[group][column].to_numpy()
        order = np.argsort(estimate, kind="stable") if sort else np.arange(estimate.size)
        levels = pd.Series(list(modes[group].index), dtype=object)
        block = {
            "group": group,
            "term": column,
            "level": levels.iloc[order].to_list(),
            "estimate": estimate[order],
            "std_error": error[order],
            "lower": (estimate - half * error)[order],
            "upper": (estimate + half * error)[order],
        }
        blocks.append(pd.DataFrame(block))
    return pd.concat(blocks, ignore_index=True)


def caterpillar(
    fit: Fit,
    variable: str | Sequence[str] | None = None,
    *,
    ax: Axes | None = None,
    figsize: Figsize | None = None,
    alpha: float | None = None,
    sort: bool = True,
) -> Axes | NDArray[Any]:
    """Conditional modes level by level with intervals; those that exclude zero are dark.

    Parameters
    ----------
    fit : Fit
    variable : str or sequence of str, optional
        As in `caterpillar_data`; one effect is drawn into one axes.
    ax : Axes, optional
    figsize : (float, float), optional
    alpha : float, optional
    sort : bool
    """
    alpha = chosen_alpha(fit, alpha)
    effects = _asked_for(fit, variable)
    table = caterpillar_data(fit, [f"{column}|{group}" for _, group, column in effects], alpha=alpha, sort=sort)
    n = [int(((table["group"] == group) & (table["term"] == column)).sum()) for _, group, column in effects]
    axes = panels(len(effects), ax, figsize, size=(3.6, level_height(max(n))), what="random effects")
    several = len(fit.design.n_groups) > 1
    for axis, (_, group, column) in zip(axes, effects, strict=True):
        own = table[(table["group"] == group) & (table["term"] == column)]
        # Without sorting the first level stands at the top.
        _draw_caterpillar(axis, own if sort else own.iloc[::-1], group, alpha)
        title(axis, f"{column} | {group}" if several else column)
    return axes[0] if len(axes) == 1 else axes


def _draw_caterpillar(axis: Axes, own: pd.DataFrame, group: str, alpha: float) -> None:
    x, height = own["estimate"].to_numpy(), np.arange(len(own))
    dense = len(own) > 60
    ends = np.abs(np.stack([x - own["lower"], own["upper"] - x]))
    bars = axis.errorbar(
        x,
        height,
        xerr=ends,
        fmt="o",
        markersize=2.2 if dense else 4,
        elinewidth=0.8 if dense else 1.6,
        color=BLUE,
        ecolor=LIGHT,
    )
    clear = (own["lower"].to_numpy() > 0) | (own["upper"].to_numpy() < 0)
    bars.lines[2][0].set_color([BLUE if flag else LIGHT for flag in clear])
    axis.axvline(0.0, color=GREY, linewidth=0.9, zorder=0)
    level_axis(axis, own["level"].tolist(), group)
    axis.grid(False, axis="y")
    # Tick labels such as -0.075 touch each other on a narrow panel otherwise.
    axis.locator_params(axis="x", nbins=5)
    axis.set_xlabel(f"conditional mode, {100 * (1 - alpha):g} % interval")


# --- shrinkage --------------------------------------------------------------------------------------------------


def shrinkage_data(fit: Fit, variable: str | Sequence[str] | None = None) -> pd.DataFrame:
    """Coefficients of each level without pooling and with partial pooling.

    The estimate without pooling is that of the level's own rows, with all else (other fixed effects, other factors)
    at its estimate: least squares in a linear model, one Newton step from the mode in a generalised one. It is NaN for
    a level whose rows do not determine it.

    Parameters
    ----------
    fit : Fit
    variable : str or sequence of str, optional
        Random effects of one factor, or the factor; the first factor when not given.

    Returns
    -------
    pandas.DataFrame
        Columns group, level, term, no_pooling, partial_pooling, population (the fixed effect), n_rows.
    """
    import pandas as pd

    refuse_structured(fit, "a shrinkage plot is", "use kind='caterpillar'")
    group, columns = _one_factor(fit, variable)
    positions = [t for t, term in enumerate(fit.design.terms) if term.group == group]
    terms = [fit.design.terms[t] for t in positions]
    names = list(conditional_modes(_any(fit))[group].columns)
    modes = known_columns(_any(fit), fit.modes)
    b = np.hstack([modes[t] for t in positions])
    codes, J = terms[0].codes, terms[0].n_levels
    own = b + _newton(fit, np.hstack([term.values for term in terms]), codes, J)
    fixed = dict(zip(fit.design.x_names, fit.beta.tolist(), strict=True))
    rows = np.bincount(codes, minlength=J)
    blocks = []
    for column in columns:
        j = names.index(column)
        # A column that two terms share is numbered, and its fixed effect counts once.
        centre = fixed.get(column, 0.0)
        block = {
            "group": group,
            "level": pd.Series(list(terms[0].levels), dtype=object),
            "term": column,
            "no_pooling": centre + own[:, j],
            "partial_pooling": centre + b[:, j],
            "population": centre,
            "n_rows": rows,
        }
        blocks.append(pd.DataFrame(block))
    return pd.concat(blocks, ignore_index=True)


def _one_factor(fit: Fit, variable: str | Sequence[str] | None) -> tuple[str, list[str]]:
    refuse_without_random(fit, "a shrinkage plot is")
    if fit.categories:
        raise OptionError(
            "a shrinkage plot needs residuals of one mean, which categories do not have; use 'caterpillar'."
        )
    effects = chosen_effects(fit, variable if variable is not None else fit.design.terms[0].group)
    groups = list(dict.fromkeys(group for _, group, _ in effects))
    if len(groups) > 1:
        raise OptionError(
            f"a shrinkage plot is about one grouping factor, but `variable` names effects of {', '.join(groups)}; "
            f"give one such as {effects[0][1]!r}."
        )
    return groups[0], [column for _, _, column in effects]


def _newton(fit: Fit, Z: FloatArray, codes: NDArray[np.intp], J: int) -> FloatArray:
    """(Z_j'WZ_j)^-1 Z_j'W r with working weights W and residuals r, for each level, (J, k); NaN where singular."""
    w, r = _working(fit)
    k = Z.shape[1]
    # Columns of unit size, so that the test of rank does not depend on units.
    size = np.maximum(np.abs(Z).max(axis=0), np.finfo(float).tiny)
    Z = Z / size
    A = np.empty((J, k, k))
    right = np.empty((J, k))
    for a in range(k):
        right[:, a] = np.bincount(codes, weights=Z[:, a] * w * r, minlength=J)
        for c in range(a + 1):
            A[:, a, c] = A[:, c, a] = np.bincount(codes, weights=Z[:, a] * w * Z[:, c], minlength=J)
    values, vectors = np.linalg.eigh(A)
    weak = values[:, 0] <= 1e-9 * values[:, -1]
    safe = np.where(weak[:, None], 1.0, values)
    step = np.einsum("jab,jb,jcb,jc->ja", vectors, 1.0 / safe, vectors, right, optimize=True)
    step[weak] = np.nan
    found: FloatArray = step / size
    return found


def _working(fit: Fit) -> tuple[FloatArray, FloatArray]:
    """Working weights (up to a factor) and residuals of the rows used."""
    if fit.normal_errors:
        weights = np.ones(fit.design.n_obs) if fit.design.weights is None else fit.design.weights
        return weights, residual_values(fit, "working")
    mu, counts = fit.fitted, 1.0 if fit.data.trials is None else fit.data.trials
    slope = fit.family.link.derivatives(fit.linear_predictor)[1]
    w = slope**2 * fit.data.weight * counts / fit.family.unit_variance(mu, fit.lam)
    return w, residual_values(_any(fit), "working")


def shrinkage(
    fit: Fit,
    variable: str | Sequence[str] | None = None,
    *,
    ax: Axes | None = None,
    figsize: Figsize | None = None,
) -> Axes:
    """How far partial pooling pulls the coefficients of each level towards the population.

    Two effects are drawn against each other, one effect level by level.

    Parameters
    ----------
    fit : Fit
    variable : str or sequence of str, optional
        One or two effects of a factor, or the factor, whose first two effects are drawn.
    ax : Axes, optional
    figsize : (float, float), optional
    """
    table = shrinkage_data(fit, variable)
    terms = list(dict.fromkeys(table["term"]))[:2]
    first = table[table["term"] == terms[0]].reset_index(drop=True)
    if len(terms) == 1:
        axis = single(ax, figsize, (5.2, level_height(len(first))))
        _draw_one(axis, first)
    else:
        axis = single(ax, figsize, (6.0, 5.0))
        _draw_two(axis, first, table[table["term"] == terms[1]].reset_index(drop=True))
    title(axis, f"Shrinkage by {first['group'].iloc[0]}")
    axis.legend(fontsize="small", frameon=False, loc="best")
    return axis


def _draw_two(axis: Axes, x: pd.DataFrame, y: pd.DataFrame) -> None:
    start = np.column_stack([x["no_pooling"], y["no_pooling"]])
    end = np.column_stack([x["partial_pooling"], y["partial_pooling"]])
    from matplotlib.collections import LineCollection

    axis.add_collection(LineCollection(list(np.stack([start, end], axis=1)), colors=LIGHT, linewidths=1.0, zorder=1))
    size = 5.0 if len(x) <= 60 else 3.0
    axis.plot(*start.T, "o", mfc="white", mec=GREY, markersize=size, label="no pooling")
    axis.plot(*end.T, "o", color=BLUE, markersize=size, label="partial pooling")
    centre = (float(x["population"].iloc[0]), float(y["population"].iloc[0]))
    axis.plot(*centre, "D", color=ORANGE, markersize=7, label="population")
    if len(x) <= 20:
        for level, point in zip(x["level"], end, strict=True):
            axis.annotate(str(level), tuple(point), xytext=(4, 3), textcoords="offset points", fontsize=7, color="0.35")
    axis.set_xlabel(str(x["term"].iloc[0]))
    axis.set_ylabel(str(y["term"].iloc[0]))


def _draw_one(axis: Axes, x: pd.DataFrame) -> None:
    x = x.sort_values("partial_pooling", kind="stable")
    height = np.arange(len(x))
    dense = len(x) > 60
    axis.hlines(height, x["no_pooling"], x["partial_pooling"], color=LIGHT, linewidth=0.8 if dense else 1.4)
    size = 2.5 if dense else 5.0
    axis.plot(x["no_pooling"], height, "o", mfc="white", mec=GREY, markersize=size, label="no pooling")
    axis.plot(x["partial_pooling"], height, "o", color=BLUE, markersize=size, label="partial pooling")
    axis.axvline(float(x["population"].iloc[0]), color=ORANGE, linewidth=1.2, label="population")
    level_axis(axis, x["level"].tolist(), str(x["group"].iloc[0]))
    axis.grid(False, axis="y")
    axis.set_xlabel(str(x["term"].iloc[0]))
