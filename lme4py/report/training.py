"""The columns of the training data that plots and `augment` show, from the user's data or from the design."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lme4py.data.column import Column
from lme4py.data.frame import Frame, read_frame
from lme4py.design.coding import Variable
from lme4py.design.design import Design, RandomTerm
from lme4py.errors import OptionError, did_you_mean
from lme4py.formula.nodes import Name
from lme4py.report.parts import AnyFit

__all__ = ["column_of", "columns_of", "observed_response", "training_columns", "training_frame"]

# Levels of a factor are found again by comparing each row with every level.
_MOST_LEVELS = 200


def training_frame(fit: AnyFit, data: Any) -> Frame:
    """The rows used of the data of a fit.

    Parameters
    ----------
    fit : Fit or GlmmFit
    data : data frame
        All rows of the training data, or the rows used.

    Raises
    ------
    OptionError
        The number of rows is neither.
    """
    frame, keep = read_frame(data), fit.design.keep
    if frame.n_rows == keep.size:
        return frame if keep.all() else frame.take(keep)
    if frame.n_rows == fit.design.n_obs:
        return frame
    raise OptionError(
        f"`data` has {frame.n_rows} rows but the model was fitted to {fit.design.n_obs} of {keep.size} rows; give the "
        "data of the fit."
    )


def columns_of(fit: AnyFit, names: Iterable[str], data: Any = None) -> dict[str, Column]:
    """Columns of the training data on the rows used.

    Parameters
    ----------
    fit : Fit or GlmmFit
    names : iterable of str
    data : data frame, optional
        The training data; without it columns are taken back from the design, where they stand as they are.

    Raises
    ------
    OptionError
        A column cannot be taken back from the design.
    """
    if data is not None:
        frame = training_frame(fit, data)
        return {name: frame.column(name) for name in names}
    known = training_columns(fit.design)
    return {name: _known(fit, known, name) for name in names}


def column_of(fit: AnyFit, name: str, data: Any = None) -> Column:
    """One column; see `columns_of`."""
    return columns_of(fit, [name], data)[name]


def _known(fit: AnyFit, known: dict[str, Column], name: str) -> Column:
    if name in known:
        return known[name]
    formula = fit.design.recipe.columns
    if name not in formula:
        raise OptionError(
            f"the model has no variable {name!r}.{did_you_mean(str(name), formula)} Its variables are "
            f"{', '.join(formula)}."
        )
    raise OptionError(
        f"the model uses {name!r} only inside other expressions, so that its values are not kept with the fit; give "
        "the training data as `data`."
    )


def training_columns(design: Design) -> dict[str, Column]:
    """Columns that stand in the design as they are: plain numbers, coded factors and grouping factors.

    Parameters
    ----------
    design : Design
    """
    recipe = design.recipe
    found: dict[str, Column] = {}
    blocks: list[tuple[dict[Any, Variable], tuple[str, ...], NDArray[np.float64]]]
    blocks = [(recipe.variables, design.x_names, design.X)]
    blocks += [(b.variables, t.columns, t.values) for t, b in zip(design.terms, recipe.bars, strict=True)]
    for variables, names, matrix in blocks:
        for node, variable in variables.items():
            if isinstance(node, Name) and node.name not in found:
                column = _taken_back(node.name, variable, names, matrix, recipe.columns[node.name][0])
                if column is not None:
                    found[node.name] = column
    for term, bar in zip(design.terms, recipe.bars, strict=True):
        if len(bar.group) == 1 and isinstance(bar.group[0], Name) and bar.group[0].name not in found:
            found[bar.group[0].name] = _grouping(term, recipe.columns[bar.group[0].name][0], bar.group[0].name)
    return {name: found[name] for name in recipe.columns if name in found}


def _grouping(term: RandomTerm, kind: Any, name: str) -> Column:
    if kind in ("numeric", "boolean"):
        return Column(name, kind, np.asarray(term.levels, dtype=np.float64)[term.codes])
    return Column(name, kind, term.codes, term.levels)


def _taken_back(
    name: str, variable: Variable, names: tuple[str, ...], matrix: NDArray[np.float64], kind: Any
) -> Column | None:
    place = {column: j for j, column in enumerate(names)}
    if variable.kind == "numeric":
        return Column(name, kind, matrix[:, place[name]]) if name in place else None
    if variable.kind != "factor" or not 2 <= len(variable.levels) <= _MOST_LEVELS:
        return None
    for full in (False, True):
        wanted = variable.names(full)
        if all(column in place for column in wanted):
            coding = np.eye(len(variable.levels)) if full else variable.contrasts
            codes = _nearest(matrix[:, [place[column] for column in wanted]], coding)
            if kind == "boolean":
                return Column(name, kind, codes.astype(np.float64))
            return Column(name, kind, codes, variable.levels)
    return None


def _nearest(rows: NDArray[np.float64], coding: Any) -> NDArray[np.intp]:
    """For each row the row of `coding` that it equals, up to rounding."""
    distance = np.sum(coding**2, axis=1) - 2.0 * rows @ coding.T
    nearest: NDArray[np.intp] = np.argmin(distance, axis=1)
    return nearest


def observed_response(fit: AnyFit) -> NDArray[np.float64]:
    """The response of the rows used on the scale of the mean (proportions for binomial counts), shape (n,).

    Parameters
    ----------
    fit : Fit or GlmmFit
    """
    anything: Any = fit
    data = getattr(anything, "data", None)
    if data is None:
        y: NDArray[np.float64] = fit.design.y
        return y
    observed: NDArray[np.float64] = data.y if data.trials is None else data.y / np.maximum(data.trials, 1.0)
    return observed
