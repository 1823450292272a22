"""Fitted curves by group: one panel per level, with the observed responses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lme4py.data.column import Column
from lme4py.design.design import CONDITIONAL
from lme4py.design.parts import new_parts
from lme4py.errors import OptionError, did_you_mean
from lme4py.families.categories.counts import category_shares
from lme4py.families.response import ResponseData
from lme4py.fits.base import Fit
from lme4py.inference.prediction.categories import CategoryRows, category_table, with_general_family
from lme4py.linalg.types import BoolArray
from lme4py.pictures import BLUE, GREY, ORANGE, PALETTE, panels, short
from lme4py.report.plots.labels import mean_label
from lme4py.report.plots.training import columns_of, observed_response, training_columns
from lme4py.report.plots.typical import (
    discrete_effects,
    effect_names,
    fixed_columns,
    frame_of,
    random_columns,
    random_names,
)

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["fitted", "fitted_data"]

FloatArray = NDArray[np.float64]
Figsize = tuple[float, float]


def fitted_data(
    fit: Fit,
    variable: str | None = None,
    *,
    group: str | None = None,
    levels: Sequence[Any] | None = None,
    n_points: int = 30,
    max_panels: int = 24,
) -> pd.DataFrame:
    """Observed responses and fitted curves of the levels of a grouping factor.

    On the curve of a level its other numeric variables stand at their means in that level, other factors at their most
    frequent value there. Random effects of other factors are added where the level lies in one level of them (nesting).

    Parameters
    ----------
    fit : Fit
    variable : str, optional
        On the horizontal axis; the first variable with a random slope, else the first of the fixed effects.
    group : str, optional
        Grouping factor; the one with the most levels when not given.
    levels : sequence, optional
        Which levels; otherwise all, or `max_panels` evenly spaced ones.
    n_points : int
        Points of a curve.
    max_panels : int

    Returns
    -------
    pandas.DataFrame
        Columns level, part ("observed", "fitted" or "population": random effects zero), `variable`, value (on the
        scale of the mean). Of categories also the category, whose probability or share is the value.

    Raises
    ------
    OptionError
    """
    return _Lattice(fit, variable, group, levels, n_points, max_panels).table()


class _Lattice:
    """The parts of a lattice of fitted curves."""

    def __init__(
        self,
        fit: Fit,
        variable: str | None,
        group: str | None,
        levels: Sequence[Any] | None,
        n_points: int,
        max_panels: int,
    ) -> None:
        design = fit.design
        self.fit = fit
        self.group = _checked_group(fit, group)
        self.term = next(term for term in design.terms if term.group == self.group)
        self.all_levels = list(self.term.levels)
        self.codes = _chosen_levels(self.all_levels, levels, max_panels)
        recipe = design.recipe
        names = [*effect_names(fit), *(n for t in range(len(design.terms)) for n in random_names(recipe, t))]
        self.name = _checked_variable(fit, variable, list(dict.fromkeys(names)))
        self.columns = columns_of(fit, dict.fromkeys(names))
        self.discrete = discrete_effects(fit, self.columns)
        self.n_points = n_points

    @property
    def axis_column(self) -> Column:
        return self.columns[self.name]

    @property
    def is_numeric(self) -> bool:
        return self.name not in self.discrete

    def table(self) -> pd.DataFrame:
        import pandas as pd

        fit, x = self.fit, self.axis_column.values
        keep = np.isin(self.term.codes, self.codes)
        codes, points = self._points()
        observed, curves = self._observed(keep), self._curves(codes, points)
        blocks = []
        for k, label in enumerate(fit.categories or (None,)):
            blocks += [
                self._block(self.term.codes[keep], "observed", x[keep], observed[:, k], label),
                self._block(codes, "fitted", points, curves[1][:, k], label),
                self._block(codes, "population", points, curves[0][:, k], label),
            ]
        return pd.concat(blocks, ignore_index=True)

    def _block(self, codes: Any, part: str, x: FloatArray, value: FloatArray, category: Any) -> pd.DataFrame:
        import pandas as pd

        level = pd.Series([self.all_levels[code] for code in codes], dtype=object)
        block = pd.DataFrame({"level": level, "part": part, self.name: x, "value": value})
        return block if not self.fit.categories else block.assign(category=[category] * len(block))

    def _observed(self, keep: BoolArray) -> FloatArray:
        """Responses of rows, (n, 1), or the share of each category, (n, K)."""
        fit = self.fit
        if not fit.categories:
            return observed_response(fit)[keep][:, None]
        return category_shares(fit.data)[keep]

    def _points(self) -> tuple[Any, FloatArray]:
        """Level and value of the variable of each point, over the range of each level."""
        x = self.axis_column.values
        codes, points = [], []
        for code in self.codes:
            own = x[self.term.codes == code]
            grid = np.linspace(own.min(), own.max(), self.n_points) if self.is_numeric else np.unique(own)
            codes.append(np.full(grid.size, code))
            points.append(grid.astype(np.float64))
        return np.concatenate(codes), np.concatenate(points)

    def _curves(self, codes: Any, points: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Means, or probabilities of the categories, without and with random effects, (n, 1 or K) each."""
        fit = self.fit
        J = len(self.all_levels)
        values = {
            name: _by_level(column, name in self.discrete, self.term.codes, J)[codes]
            for name, column in self.columns.items()
        }
        values[self.name] = points
        frame = frame_of(self.columns, values, points.size)
        X, known = fixed_columns(fit, frame), self._offset(codes)
        homes = fit.family.homes if fit.categories else (CONDITIONAL,)
        random = np.zeros((points.size, len(homes)))
        for t, term in enumerate(fit.design.terms):
            inside = _containing(term.codes, self.term.codes, J)[codes]
            b = np.where(inside[:, None] >= 0, fit.modes[t][np.maximum(inside, 0)], 0.0)
            columns = random_columns(fit, frame, t)
            for d, home in enumerate(homes):
                random[:, d] += np.einsum("nk,nk->n", term.masked(columns, home), b)
        if fit.categories:
            data = new_parts(fit.design, frame, ResponseData(np.zeros(points.size)))
            fixed, own = (
                CategoryRows((X,) * len(homes), np.broadcast_to(known + part, random.shape).T, data)
                for part in (0.0, random)
            )
            general = with_general_family(fit)
            return category_table(general, fixed).p, category_table(general, own).p
        eta = (X @ fit.beta)[:, None] + known
        if fit.normal_errors:
            return eta, eta + random
        return fit.family.mean(eta), fit.family.mean(eta + random)

    def _offset(self, codes: Any) -> FloatArray:
        """Offsets of points: the mean in their level, (n, 1), or (n, D) where categories have their own."""
        offset = self.fit.design.offset
        if offset is None:
            return np.zeros((codes.size, 1))
        wide = offset.reshape(offset.shape[0], -1)
        return np.stack([_means(own, self.term.codes, len(self.all_levels))[codes] for own in wide.T], axis=1)


def _checked_group(fit: Fit, group: str | None) -> str:
    known = list(fit.design.n_groups)
    if not known:
        raise OptionError("the model has no grouping factor to draw lines for; see plot('effect').")
    if group is None:
        return known[0]
    if group in known:
        return group
    raise OptionError(
        f"group={group!r} is no grouping factor of the model.{did_you_mean(str(group), known)} There are: "
        f"{', '.join(known)}."
    )


def _chosen_levels(known: list[Any], levels: Sequence[Any] | None, most: int) -> NDArray[np.intp]:
    """Positions of the levels to draw."""
    if levels is None:
        return np.unique(np.linspace(0, len(known) - 1, min(most, len(known))).round().astype(np.intp))
    place = {level: i for i, level in enumerate(known)}
    for level in levels:
        if level not in place:
            hint = did_you_mean(str(level), [str(name) for name in known])
            raise OptionError(f"levels names {level!r}, which is no level of the grouping factor.{hint}")
    return np.array([place[level] for level in levels], dtype=np.intp)


def _checked_variable(fit: Fit, variable: str | None, names: list[str]) -> str:
    if variable is None:
        slopes = [column for term in fit.design.terms for column in term.columns]
        plain = training_columns(fit)
        numbers = [n for n in names if n in plain and plain[n].kind == "numeric"]
        for name in [*(n for n in slopes if n in numbers), *numbers, *names]:
            return name
        raise OptionError("kind='fitted' needs a variable for the horizontal axis, but the model has none.")
    if variable in names:
        return variable
    raise OptionError(
        f"variable={variable!r} is no variable of the model.{did_you_mean(str(variable), names)} There are: "
        f"{', '.join(names) or 'none'}."
    )


def _means(values: FloatArray, codes: NDArray[np.intp], J: int) -> FloatArray:
    means: FloatArray = np.bincount(codes, weights=values, minlength=J) / np.maximum(np.bincount(codes, minlength=J), 1)
    return means


def _by_level(column: Column, discrete: bool, codes: NDArray[np.intp], J: int) -> FloatArray:
    """Mean of a numeric column in each level, most frequent value of any other, shape (J,)."""
    if not discrete:
        return _means(column.values, codes, J)
    values, place = np.unique(column.values, return_inverse=True)
    counts = np.zeros((J, values.size))
    np.add.at(counts, (codes, place), 1.0)
    frequent: FloatArray = values[counts.argmax(axis=1)].astype(np.float64)
    return frequent


def _containing(outer: NDArray[np.intp], codes: NDArray[np.intp], J: int) -> NDArray[np.intp]:
    """For each level the level of another factor that holds all its rows; -1 where there are several."""
    low, high = np.full(J, np.iinfo(np.intp).max), np.full(J, -1, dtype=np.intp)
    np.minimum.at(low, codes, outer)
    np.maximum.at(high, codes, outer)
    return np.where(low == high, high, -1)


def fitted(
    fit: Fit,
    variable: str | None = None,
    *,
    figsize: Figsize | None = None,
    group: str | None = None,
    levels: Sequence[Any] | None = None,
    n_points: int = 30,
    max_panels: int = 24,
    ax: Any = None,
) -> Any:
    """One panel per level with the observed responses, the fitted curve and that of the population.

    Parameters
    ----------
    fit : Fit
    variable : str, optional
    figsize : (float, float), optional
    group, levels, n_points, max_panels
        As in `fitted_data`.
    ax : Axes, optional
        For a single level.

    Returns
    -------
    array of matplotlib Axes, or Axes for a single level
    """
    lattice = _Lattice(fit, variable, group, levels, n_points, max_panels)
    table, column = lattice.table(), lattice.axis_column
    shown = [lattice.all_levels[code] for code in lattice.codes]
    # Few panels are larger and stand in fewer columns.
    wide = int(np.clip(np.ceil(np.sqrt(1.5 * len(shown))), 1, 6))
    size = (1.75, 1.7) if wide > 4 else (2.3, 2.0)
    axes = panels(len(shown), ax, figsize, columns=wide, size=size, what="levels", share=True)
    for axis, level in zip(axes, shown, strict=True):
        own = table[[cell == level for cell in table["level"]]]
        _draw(axis, own, lattice.name, "" if lattice.is_numeric else "o")
        axis.set_title(short(level), fontsize="small", pad=3)
        if column.kind != "numeric":
            _name_values(axis, column)
    figure = axes[0].figure
    total = len(lattice.all_levels)
    few = f": {len(shown)} of {total} levels of {lattice.group}" if len(shown) < total else f" by {lattice.group}"
    if ax is None:
        figure.suptitle(f"Fitted curves{few}", fontsize="medium", x=0.01, ha="left")
        figure.supxlabel(lattice.name, fontsize="medium")
        figure.supylabel(mean_label(fit), fontsize="medium")
        handles = axes[0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside upper right", ncols=3, fontsize="small", frameon=False)
    return axes[0] if len(axes) == 1 else axes


def _draw(axis: Any, own: pd.DataFrame, name: str, marker: str) -> None:
    seen, curve = own[own["part"] == "observed"], own[own["part"] == "fitted"]
    population = own[own["part"] == "population"]
    if "category" in own:
        _draw_categories(axis, seen, curve, population, name, marker)
        return
    axis.plot(population[name], population["value"], color=ORANGE, linewidth=1.2, linestyle="--", label="population")
    # A level may have a single value of a factor, and a line through one point is no line.
    points = {"marker": marker, "markersize": 3.5}
    axis.plot(curve[name], curve["value"], color=BLUE, linewidth=1.6, label="fitted", **points)
    axis.plot(seen[name], seen["value"], "o", markersize=3, mfc="white", mec=GREY, mew=0.8, label="observed")


def _draw_categories(axis: Any, seen: Any, curve: Any, population: Any, name: str, marker: str) -> None:
    """Curves of the categories, and above them a row of ticks for each: the rows that had it."""
    for i, label in enumerate(dict.fromkeys(curve["category"])):
        colour = PALETTE[i % len(PALETTE)]
        own, mean, had = (part[part["category"] == label] for part in (curve, population, seen))
        axis.plot(mean[name], mean["value"], color=colour, linewidth=0.9, linestyle="--")
        axis.plot(
            own[name], own["value"], color=colour, linewidth=1.6, label=short(label), marker=marker, markersize=3.5
        )
        x = had[name][had["value"] > 0.0]
        axis.plot(x, np.full(len(x), 1.05 + 0.06 * i), "|", color=colour, markersize=4)


def _name_values(axis: Any, column: Column) -> None:
    values = np.unique(column.values)
    labels = [short(column.levels[int(v)]) if column.is_factor else str(bool(v)) for v in values]
    axis.set_xticks(values, labels=labels)
