"""Effect plots: predictions over one variable with a confidence band, everything else at typical values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lme4py.chunks import chunk
from lme4py.data.column import Column
from lme4py.design.parts import new_parts
from lme4py.errors import OptionError, did_you_mean
from lme4py.families.response import PartRows, ResponseData
from lme4py.fits.base import Fit
from lme4py.fits.rows.arrays import RowArrays
from lme4py.formula.several import RESPONSE
from lme4py.inference.estimates.coefficients import chosen_alpha, constant_df, quantile
from lme4py.inference.estimates.limits import masked, unknown
from lme4py.inference.prediction.predictor import at_limits
from lme4py.inference.prediction.predictor_error import predictor_error
from lme4py.pictures import GREY, PALETTE, outside, short, single, title
from lme4py.report.plots.categories import category_effects
from lme4py.report.plots.labels import mean_label
from lme4py.report.plots.training import columns_of
from lme4py.report.plots.typical import discrete_effects, effect_names, fixed_columns, frame_of

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["effect", "effect_data"]

FloatArray = NDArray[np.float64]
Figsize = tuple[float, float]
# Rows of the model matrix made at a time.
_CHUNK = chunk(200_000)
_MOST_LINES = len(PALETTE)


def effect_data(
    fit: Fit,
    variable: str | None = None,
    *,
    by: str | None = None,
    at: Mapping[str, Any] | None = None,
    type: str = "response",
    alpha: float | None = None,
    n_points: int = 60,
) -> pd.DataFrame:
    """Predictions of the fixed effects over the values of one variable.

    Other numeric variables stand at their means, and the linear predictor is averaged over the levels of other factors
    as often as they occur together (as the R package effects does); the offset is its mean. Random effects are zero.

    Parameters
    ----------
    fit : Fit
    variable : str
        A variable of the data in the fixed effects.
    by : str, optional
        A second variable: its levels, or three quantiles (10, 50, 90 %) of a numeric one.
    at : mapping, optional
        Values of other variables instead of typical ones.
    type : {"response", "linear"}
        Means (of categories: the probability of each), or linear predictors (of unordered categories those beside the
        baseline).
    alpha : float, optional
        One minus the level of the band; that of the fit when not given.
    n_points : int
        Points on the axis of a numeric variable.

    Returns
    -------
    pandas.DataFrame
        Columns `variable`, `by`, (category,) predicted, lower, upper, linear, std_error (the last two on the scale of
        the linear predictor; NaN for the baseline of unordered categories).

    Raises
    ------
    OptionError
    """
    import pandas as pd

    level, by = chosen_alpha(fit, alpha), _own_by(fit, variable, by, at)
    if type not in ("response", "linear"):
        raise OptionError(f"type must be 'response' or 'linear', got {type!r}.")
    names = effect_names(fit)
    focus = [_known(names, variable, "variable")] + ([] if by is None else [_known(names, by, "by")])
    if len(set(focus)) < len(focus):
        raise OptionError(f"`variable` and `by` are both {by!r}; give two different variables.")
    columns = columns_of(fit, names)
    discrete = discrete_effects(fit, columns)
    grids = [_grid(columns[name], name in discrete, n_points, first=i == 0) for i, name in enumerate(focus)]
    # The first variable varies fastest, so that each line is one block.
    points = [mesh.T.ravel() for mesh in np.meshgrid(*grids, indexing="ij")]
    held, weights = _typical(columns, focus, at or {}, discrete)
    X, parts = _averaged(fit, columns, dict(zip(focus, points, strict=True)), held, weights)
    offset = np.zeros(1) if fit.design.offset is None else np.atleast_1d(fit.design.offset.mean(axis=0))
    known = np.tile(offset, (len(X), 1))
    rows = RowArrays(X, known if offset.size > 1 else known[:, 0], {}, {}, None)
    table = pd.DataFrame({name: _shown(columns[name], value) for name, value in zip(focus, points, strict=True)})
    if fit.family.is_joint or (fit.categories and type == "response"):
        z = float(quantile(level, constant_df(fit, None)))
        return category_effects(fit, table, rows, parts, type, z)
    return table.assign(**_of_one(fit, rows, type, level))


def _of_one(fit: Fit, rows: RowArrays, type: str, level: float) -> dict[str, FloatArray]:
    """Predictions of rows with one linear predictor, and their limits."""
    X, eta, spread = rows.X, rows.X @ fit.beta + rows.offset, predictor_error(fit, rows)
    half = spread.half(level)
    mean: Any = _inverse_link(fit, type)
    low, high = mean(eta - half), mean(eta + half)
    # A decreasing inverse link turns the limits round.
    found = [mean(eta), np.minimum(low, high), np.maximum(low, high)]
    shown = dict(zip(("predicted", "lower", "upper"), at_limits(fit, rows, found, type), strict=True))
    known = np.where(unknown(fit, X), np.nan, np.sqrt(spread.variance))
    return shown | {"linear": masked(fit, X, eta), "std_error": known}


def _own_by(fit: Fit, variable: str | None, by: str | None, at: Mapping[str, Any] | None) -> str | None:
    """`by`; where there are several responses and none is chosen, these."""
    if fit.design.responses is None or RESPONSE in (variable, by) or RESPONSE in (at or {}):
        return by
    if by is None:
        return RESPONSE
    raise OptionError(f"by={by!r} is for one of several responses: choose it, as in at={{{RESPONSE!r}: ...}}.")


def _known(names: list[str], name: object, what: str) -> str:
    if isinstance(name, str) and name in names:
        return name
    shown = ", ".join(names) or "none"
    if name is None:
        raise OptionError(f"kind='effect' needs `variable`, a variable of the fixed effects: {shown}.")
    raise OptionError(
        f"{what}={name!r} is no variable of the fixed effects.{did_you_mean(str(name), names)} There are: {shown}."
    )


def _inverse_link(fit: Fit, type: str) -> Any:
    if type == "linear" or fit.normal_errors:
        return np.asarray
    return fit.family.mean


def _grid(column: Column, discrete: bool, n_points: int, first: bool) -> NDArray[Any]:
    """Values of a variable: its levels, or points (for a second variable three quantiles)."""
    if discrete:
        values = np.unique(column.values)
        few = column.kind != "numeric" or values.size <= n_points
        return values if few else values[np.linspace(0, values.size - 1, n_points).round().astype(np.intp)]
    if not first:
        return np.unique(np.quantile(column.values, [0.1, 0.5, 0.9]))
    return np.linspace(float(column.values.min()), float(column.values.max()), n_points)


def _typical(
    columns: Mapping[str, Column], focus: list[str], at: Mapping[str, Any], discrete: set[str]
) -> tuple[dict[str, NDArray[Any]], FloatArray]:
    """Values of the other variables in each combination of levels, (c,) each, and the share of each combination."""
    others = [name for name in columns if name not in focus]
    for name in at:
        _known(others, name, "at")
    free = [name for name in others if name not in at and name in discrete]
    held: dict[str, NDArray[Any]] = {}
    weights = np.ones(1)
    if free:
        rows = np.column_stack([columns[name].values for name in free])
        combinations, counts = np.unique(rows, axis=0, return_counts=True)
        held = {name: combinations[:, i] for i, name in enumerate(free)}
        weights = counts / counts.sum()
    for name in others:
        if name not in held:
            value = _code(columns[name], at[name]) if name in at else float(columns[name].values.mean())
            held[name] = np.full(weights.size, value)
    return held, weights


def _code(column: Column, value: Any) -> float:
    """A value that the user gives, as a number or as the code of a level."""
    if not column.is_factor:
        try:
            return float(value)
        except (TypeError, ValueError):
            raise OptionError(f"at[{column.name!r}] is {value!r}, but it is numeric; give a number.") from None
    levels = list(column.levels)
    if value in levels:
        return float(levels.index(value))
    shown = ", ".join(map(repr, levels[:8])) + (", ..." if len(levels) > 8 else "")
    raise OptionError(f"at[{column.name!r}] is {value!r}, which is no level of it; the levels are {shown}.")


def _averaged(
    fit: Fit,
    columns: Mapping[str, Column],
    points: Mapping[str, NDArray[Any]],
    held: Mapping[str, NDArray[Any]],
    weights: FloatArray,
) -> tuple[FloatArray, list[PartRows]]:
    """Rows of X at each point, averaged over the combinations, (points, p), and so those of the parts of categories."""
    n, c = next(iter(points.values())).size, weights.size
    step = max(1, _CHUNK // c)
    blocks: list[list[FloatArray]] = []
    names: list[str] = []
    for start in range(0, n, step):
        size = min(step, n - start)
        values = {name: np.repeat(point[start : start + size], c) for name, point in points.items()}
        values |= {name: np.tile(value, size) for name, value in held.items()}
        frame = frame_of(columns, values, size * c)
        beside = new_parts(fit.design, frame, ResponseData(np.zeros(0))).parts if fit.categories else ()
        names = [part.name for part in beside]
        whole = [fixed_columns(fit, frame), *(part.X for part in beside)]
        blocks.append([np.einsum("scp,c->sp", own.reshape(size, c, -1), weights) for own in whole])
    X, *others = (np.concatenate(own) for own in zip(*blocks, strict=True))
    return X, [PartRows(name, own) for name, own in zip(names, others, strict=True)]


def _shown(column: Column, values: NDArray[Any]) -> Any:
    if column.is_factor:
        import pandas as pd

        levels = list(column.levels)
        used = [levels[int(code)] for code in np.unique(values)]
        return pd.Categorical([levels[int(code)] for code in values], categories=used)
    return values.astype(bool) if column.kind == "boolean" else values


# --- drawing ----------------------------------------------------------------------------------------------------


def effect(
    fit: Fit,
    variable: str | None = None,
    *,
    ax: Axes | None = None,
    figsize: Figsize | None = None,
    by: str | None = None,
    at: Mapping[str, Any] | None = None,
    type: str = "response",
    alpha: float | None = None,
    n_points: int = 60,
) -> Axes:
    """Predictions over one variable with a confidence band; see `effect_data` for what the others are held at.

    Parameters
    ----------
    fit : Fit
    variable : str
    ax : Axes, optional
    figsize : (float, float), optional
    by, at, type, alpha, n_points
        As in `effect_data`.
    """
    alpha, by = chosen_alpha(fit, alpha), _own_by(fit, variable, by, at)
    table = effect_data(fit, variable, by=by, at=at, type=type, alpha=alpha, n_points=n_points)
    name, lines = str(variable), _line_column(table, by)
    groups = [None] if lines is None else list(dict.fromkeys(table[lines]))
    if len(groups) > _MOST_LINES:
        raise OptionError(
            f"{lines!r} has {len(groups)} levels, more than the {_MOST_LINES} lines that can be told apart; take the "
            "numbers from plot_data()."
        )
    axis = single(ax, figsize)
    column = columns_of(fit, [name])[name]
    numeric = name not in discrete_effects(fit, {name: column})
    for i, group in enumerate(groups):
        own = table if group is None else table[table[lines] == group]
        label = None if group is None else (f"{group:.4g}" if isinstance(group, float) else short(group))
        draw = _draw_line if numeric else _draw_points
        draw(axis, own, name, PALETTE[i], label, (i - 0.5 * (len(groups) - 1)) * 0.14)
    if numeric:
        _rug(axis, column.values)
    else:
        labels = [f"{v:g}" if isinstance(v, float) else short(v) for v in dict.fromkeys(table[name])]
        axis.set_xticks(range(len(labels)), labels=labels, rotation=30 if len(labels) > 8 else 0)
        axis.set_xlim(-0.5, len(labels) - 0.5)
    if lines is not None:
        # Error bars and bands leave no corner that is sure to be free.
        outside(axis, short(lines))
    axis.set_xlabel(name)
    axis.set_ylabel(mean_label(fit, type))
    title(
        axis,
        f"Effect of {name}, {100 * (1 - alpha):g} % confidence {'band' if numeric else 'intervals'}",
    )
    return axis


def _line_column(table: pd.DataFrame, by: str | None) -> str | None:
    """The column that has one line for each of its values."""
    if "category" not in table:
        return by
    if by is not None:
        raise OptionError(
            f"by={by!r} would draw every category for each of its levels; use `at` to hold it at one, or type='linear'."
        )
    return "category"


def _draw_line(axis: Axes, own: pd.DataFrame, name: str, colour: str, label: str | None, shift: float) -> None:
    x = own[name].to_numpy()
    axis.fill_between(x, own["lower"], own["upper"], color=colour, alpha=0.15, linewidth=0)
    axis.plot(x, own["predicted"], color=colour, linewidth=1.8, label=label)


def _draw_points(axis: Axes, own: pd.DataFrame, name: str, colour: str, label: str | None, shift: float) -> None:
    y = own["predicted"].to_numpy()
    ends = np.abs(np.stack([y - own["lower"], own["upper"] - y]))
    x = np.arange(y.size) + shift
    axis.errorbar(x, y, yerr=ends, fmt="o", markersize=6, capsize=3, elinewidth=1.6, color=colour, label=label)


def _rug(axis: Axes, values: FloatArray) -> None:
    """Where the data are, as ticks above the axis."""
    x = np.unique(values)
    if x.size > 400:
        x = np.quantile(x, np.linspace(0.0, 1.0, 400))
    axis.plot(x, np.full(x.size, 0.01), "|", color=GREY, markersize=6, transform=axis.get_xaxis_transform(), zorder=1)
