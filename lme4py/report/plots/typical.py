"""Rows of the model at typical values of its variables, for effect plots and fitted curves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lme4py.data.column import Column
from lme4py.data.frame import Frame, read_frame
from lme4py.design.recipe import Recipe, new_fixed, new_random_values
from lme4py.fits.base import Fit
from lme4py.formula.deparse import names_in
from lme4py.inference.prediction.between import interpolation

__all__ = [
    "cells",
    "discrete_effects",
    "discrete_names",
    "effect_names",
    "fixed_columns",
    "fixed_names",
    "frame_of",
    "random_columns",
    "random_names",
]

FloatArray = NDArray[np.float64]


def fixed_names(recipe: Recipe) -> list[str]:
    """Columns of the data that the fixed effects use, offsets left out."""
    return _names(recipe, recipe.variables)


def effect_names(fit: Fit) -> list[str]:
    """Columns of the data that predictions of the fixed effects depend on: of categories those of all parts too."""
    recipes = [fit.design.recipe, *(fit.design.part_recipes if fit.categories else ())]
    return list(dict.fromkeys(name for recipe in recipes for name in fixed_names(recipe)))


def discrete_effects(fit: Fit, columns: Mapping[str, Column]) -> set[str]:
    """`discrete_names` of the formula and of the parts of categories."""
    recipes = [fit.design.recipe, *(fit.design.part_recipes if fit.categories else ())]
    return set().union(*(discrete_names(recipe, columns) for recipe in recipes))


def random_names(recipe: Recipe, term: int) -> list[str]:
    """Columns of the data left of the bar of one term."""
    return _names(recipe, recipe.bars[term].nodes)


def discrete_names(recipe: Recipe, columns: Mapping[str, Column]) -> set[str]:
    """Columns that only take the values that occur: factors, booleans, and numbers inside factor() or cut()."""
    found = {name for name, column in columns.items() if column.is_factor or column.kind == "boolean"}
    for variables in (recipe.variables, *(bar.variables for bar in recipe.bars)):
        computed = [node for node, variable in variables.items() if variable.kind == "factor"]
        found.update(name for name in _names(recipe, computed) if name in columns)
    return found


def _names(recipe: Recipe, nodes: Any) -> list[str]:
    found = dict.fromkeys(name for node in nodes for name in names_in(node))
    return [name for name in found if name in recipe.columns]


def cells(column: Column, values: NDArray[Any]) -> Any:
    """Values (or codes) of a column as a user would write them, for a data frame.

    Parameters
    ----------
    column : Column
        Gives the kind and the levels.
    values : ndarray, shape (n,)
    """
    import pandas as pd

    if column.is_factor:
        codes: Any = np.asarray(values).astype(np.intp)
        levels: Any = pd.Index(list(column.levels))
        return pd.Categorical.from_codes(codes, categories=levels, ordered=column.kind == "ordered")
    return values.astype(bool) if column.kind == "boolean" else values


def frame_of(columns: Mapping[str, Column], values: Mapping[str, NDArray[Any]], n: int) -> Frame:
    """New data of n rows.

    Parameters
    ----------
    columns : mapping of str to Column
    values : mapping of str to ndarray, each (n,)
    n : int
    """
    import pandas as pd

    made = {name: cells(columns[name], value) for name, value in values.items()}
    return read_frame(pd.DataFrame(made, index=pd.RangeIndex(n)))


def fixed_columns(fit: Fit, frame: Frame) -> FloatArray:
    """Fixed-effects model matrix of new data, shape (n, p); the offsets of the model are not evaluated."""
    recipe = fit.design.recipe
    formula = replace(recipe.formula, fixed=replace(recipe.formula.fixed, offsets=()))
    return new_fixed(replace(recipe, formula=formula, offset=None, by_category=()), frame)[0]


def random_columns(fit: Fit, frame: Frame, term: int) -> FloatArray:
    """Columns of one random-effects term of new data, shape (n, k); of processes also between the places of the fit."""
    values: FloatArray = new_random_values(fit.design.recipe, frame, term, interpolation(fit, term))
    return values
