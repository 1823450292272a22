"""Replaying a design on new data: the same columns, levels and groups, whatever rows come in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lme4py.data.column import Column, Kind
from lme4py.data.frame import Frame, as_factor_column, missing_rows
from lme4py.design.coding import Variable, model_matrix
from lme4py.design.fixed import name_of
from lme4py.design.random import Grouping, as_factor, group_codes
from lme4py.errors import DataError, did_you_mean
from lme4py.formula.deparse import names_in
from lme4py.formula.evaluate import evaluate
from lme4py.formula.nodes import Formula, Name, Node, Terms
from lme4py.formula.values import Value

__all__ = ["BarRecipe", "Recipe", "beyond", "new_fixed", "new_random", "new_random_values", "new_response"]

# A sum of parts that cancel is zero below this part of their sizes.
_ROUNDING = 1e-8

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class BarRecipe:
    """One random-effects term without its rows.

    Attributes
    ----------
    label : str
        ``"(Days | Subject)"``.
    terms : Terms
        Left of the bar.
    variables : dict of Node to Variable
    group : tuple of Node
    grouping : Grouping
    n_columns : int
    """

    label: str
    terms: Terms
    variables: dict[Node, Variable]
    group: tuple[Node, ...]
    grouping: Grouping
    n_columns: int


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is needed to build the columns of a design for new data; it holds no rows.

    Attributes
    ----------
    formula : Formula
    state : dict
        What functions such as poly() and scale() learnt from the training data.
    columns : dict of str to (kind, levels)
        Columns of the training data that the formula uses.
    variables : dict of Node to Variable
        Of the fixed effects.
    kept : tuple of int
        Columns of the model matrix that passed the rank check.
    bars : tuple of BarRecipe
        In the order of `Design.terms`.
    offset_column : str or None
        Name given as the `offset` argument; an offset given as an array is not replayed (lme4's rule).
    functions : dict
        The user's own functions.
    weights_column : str or None
        Name given as the `weights` argument.
    null : ndarray, shape (number of all columns, d), or None
        Combinations of the columns of the model matrix that are zero in the data of the fit, in units of the size of
        the dropped column; see `beyond`.
    """

    formula: Formula
    state: dict[str, Any]
    columns: dict[str, tuple[Kind, tuple[Any, ...]]]
    variables: dict[Node, Variable]
    kept: tuple[int, ...]
    bars: tuple[BarRecipe, ...]
    offset_column: str | None = None
    functions: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    weights_column: str | None = None
    null: FloatArray | None = None


def beyond(recipe: Recipe, whole: FloatArray) -> FloatArray:
    """How far rows of the model matrix lie outside the span of those of the fit, (n, d): what they are multiplied by
    there, nothing is known about. Only rows of zeros can be estimated.

    Parameters
    ----------
    recipe : Recipe
    whole : ndarray, shape (n, number of all columns)
    """
    if recipe.null is None:
        return np.zeros((whole.shape[0], 0))
    found = whole @ recipe.null
    # Zeros are sums of cancelling parts.
    found[np.abs(found) <= _ROUNDING * (np.abs(whole) @ np.abs(recipe.null))] = 0.0
    return found


def new_fixed(recipe: Recipe, frame: Frame) -> tuple[FloatArray, FloatArray]:
    """The fixed-effects model matrix and the offset of new data.

    Parameters
    ----------
    recipe : Recipe
    frame : Frame
        New data; the response and the grouping factors are not needed.

    Returns
    -------
    X : ndarray, shape (n, p)
        NaN in rows with a missing value, and in those that cannot be estimated: columns were left out of the fixed
        effects, and in these rows they are not what they were in the data of the fit.
    offset : ndarray, shape (n,)
        ``offset()`` terms of the formula plus the `offset` column; zeros without any; NaN exactly in the rows
        with a missing value.
    """
    terms = recipe.formula.fixed
    nodes = [*recipe.variables, *terms.offsets]
    columns = _columns(recipe, frame, nodes)
    extra = [frame.column(recipe.offset_column)] if recipe.offset_column else []
    values, present = _evaluate(recipe, nodes, columns, frame.n_rows, extra)
    X = np.full((frame.n_rows, len(recipe.kept)), np.nan)
    offset = np.where(present, 0.0, np.nan)
    if present.any():
        whole = _replay(terms, recipe.variables, values, int(present.sum()))
        known = whole[:, recipe.kept]
        known[beyond(recipe, whole).any(axis=1)] = np.nan
        X[present] = known
        for node in terms.offsets:
            offset[present] += offset_values(values[node], name_of(node))
    for column in extra:
        offset += offset_column(column)
    return X, offset


def new_random(recipe: Recipe, frame: Frame, term_index: int) -> tuple[FloatArray, IntArray]:
    """The columns and the groups of one random-effects term on new data.

    Parameters
    ----------
    recipe : Recipe
    frame : Frame
    term_index : int
        Position in `Design.terms`.

    Returns
    -------
    values : ndarray, shape (n, k)
        NaN in rows with a missing value left of the bar.
    codes : ndarray of int, shape (n,)
        -1 where the group is missing or was not in the training data.
    """
    bar = recipe.bars[term_index]
    values = new_random_values(recipe, frame, term_index)
    return values, group_codes(bar.grouping, [_new_group(recipe, frame, node) for node in bar.group])


def new_random_values(recipe: Recipe, frame: Frame, term_index: int) -> FloatArray:
    """The columns of one random-effects term on new data, shape (n, k); the grouping factor is not needed."""
    bar = recipe.bars[term_index]
    nodes = list(bar.variables)
    columns = _columns(recipe, frame, nodes)
    evaluated, present = _evaluate(recipe, nodes, columns, frame.n_rows)
    values = np.full((frame.n_rows, bar.n_columns), np.nan)
    if present.any():
        values[present] = _replay(bar.terms, bar.variables, evaluated, int(present.sum()))
    return values


def new_response(recipe: Recipe, frame: Frame) -> tuple[FloatArray, NDArray[np.bool_]]:
    """The response of new data as numbers, (n, c), NaN where missing, and which rows are complete.

    Parameters
    ----------
    recipe : Recipe
    frame : Frame
        DataError where a column of the response is missing.
    """
    response = recipe.formula.response
    nodes = [] if response is None else [response]
    columns = {name: frame.column(name) for node in nodes for name in names_in(node, recipe.columns)}
    evaluated, present = _evaluate(recipe, nodes, columns, frame.n_rows)
    parts = [np.asarray(evaluated[node].values, dtype=np.float64) for node in nodes if present.any()]
    found = np.column_stack(parts) if parts else np.zeros((0, 1))
    values = np.full((frame.n_rows, found.shape[1]), np.nan)
    values[present] = found
    return values, present


def offset_column(column: Column) -> FloatArray:
    """The `offset` argument as numbers, shape (n,), NaN where missing."""
    if column.is_factor:
        raise DataError(f"the offset column {column.name!r} is not numeric; give a numeric column")
    if np.isinf(column.values).any():
        raise DataError(f"the offset {column.name!r} has {int(np.isinf(column.values).sum())} infinite value(s)")
    values: FloatArray = column.values
    return values


def offset_values(value: Value, name: str) -> FloatArray:
    """An offset as numbers, shape (n,)."""
    if value.is_factor or value.values.ndim != 1:
        raise DataError(f"the offset '{name}' is not numeric; use one numeric column or expression")
    values: FloatArray = value.values
    return values


def column_getter(columns: Mapping[str, Column]) -> Callable[[str], Column]:
    """What `evaluate` asks for columns; it takes a DataError as "no such column"."""

    def column(name: str) -> Column:
        if name not in columns:
            raise DataError(f"column {name!r} not found.{did_you_mean(name, columns)}")
        return columns[name]

    return column


def _columns(recipe: Recipe, frame: Frame, nodes: Iterable[Node], strict: bool = True) -> dict[str, Column]:
    """The columns of new data that expressions use, in the form they had in the training data."""
    trained = recipe.columns
    names = dict.fromkeys(name for node in nodes for name in names_in(node, trained) if name in trained)
    return {name: _as_trained(frame.column(name), trained[name], strict) for name in names}


def _evaluate(
    recipe: Recipe,
    nodes: Sequence[Node],
    columns: Mapping[str, Column],
    n_rows: int,
    extra: Sequence[Column] = (),
) -> tuple[dict[Node, Value], NDArray[np.bool_]]:
    """Values of expressions on the rows that are complete, and which rows those are."""
    present = ~missing_rows([*columns.values(), *extra], n_rows)
    complete = {name: column.take(present) for name, column in columns.items()}
    if not present.any():
        return {}, present  # a spline or a cut of no values has no meaning
    get, text = column_getter(complete), recipe.formula.text
    values = {node: evaluate(node, get, recipe.state, functions=recipe.functions, formula=text) for node in nodes}
    return values, present


def _replay(terms: Terms, variables: Mapping[Node, Variable], values: Mapping[Node, Value], n: int) -> FloatArray:
    arrays = {node: _trained_values(variable, values[node]) for node, variable in variables.items()}
    return model_matrix(terms, variables, arrays, n)


def _trained_values(variable: Variable, value: Value) -> NDArray[Any]:
    """Values of a variable in terms of the training levels."""
    if variable.kind != "factor":
        return value.values
    codes, levels = as_factor(value, variable.name)
    table = _translation(levels, variable.levels)
    unseen = [level for level, code in zip(levels, table.tolist(), strict=False) if code < 0]
    _refuse_unseen(variable.name, unseen, variable.levels)
    translated: NDArray[Any] = table[codes]
    return translated


def _as_trained(column: Column, trained: tuple[Kind, tuple[Any, ...]], strict: bool) -> Column:
    """A column of new data with the kind and the levels of the training data."""
    kind, levels = trained
    if kind in ("numeric", "boolean"):
        return _as_numbers(column, kind)
    column = as_factor_column(column)
    if column.levels == levels:
        return Column(column.name, kind, column.values, levels)
    table = _translation(column.levels, levels)
    codes = table[column.values]
    if strict:
        unseen = (codes < 0) & (column.values >= 0)
        _refuse_unseen(column.name, [column.levels[i] for i in np.unique(column.values[unseen]).tolist()], levels)
    return Column(column.name, kind, codes, levels)


def _as_numbers(column: Column, kind: Kind) -> Column:
    if column.is_factor:
        raise DataError(
            f"column {column.name!r} of the new data is text or a factor, but it was {kind} when the model "
            "was fitted; convert it"
        )
    if kind == "boolean" and column.kind == "numeric":
        other = set(np.unique(column.values[~column.missing()]).tolist()) - {0.0, 1.0}
        if other:
            raise DataError(
                f"column {column.name!r} of the new data holds {min(other):g}, but it was boolean when the "
                "model was fitted; give True and False"
            )
    return Column(column.name, kind, column.values)


def _translation(levels: Sequence[Any], trained: Sequence[Any]) -> IntArray:
    """Training code of each level, -1 for unknown ones; the last entry serves missing cells (code -1)."""
    place = {level: i for i, level in enumerate(trained)}
    return np.array([*(place.get(level, -1) for level in levels), -1], dtype=np.intp)


def _refuse_unseen(name: str, unseen: Sequence[Any], trained: Sequence[Any]) -> None:
    if not unseen:
        return
    known = [str(level) for level in trained]
    same = str(unseen[0]) in known
    kind = " (the same labels were of another type when the model was fitted)" if same else ""
    hint = "" if same else did_you_mean(str(unseen[0]), known)
    raise DataError(
        f"the factor '{name}' has {len(unseen)} level(s) in the new data that were not in the rows the model "
        f"was fitted to: {_listed(unseen, 5)}{kind}.{hint} The model has {len(known)}: {_listed(trained, 6)}; remove "
        "these rows, or correct the labels"
    )


def _listed(levels: Sequence[Any], most: int) -> str:
    return ", ".join(repr(level) for level in levels[:most]) + ", ..." * (len(levels) > most)


def _new_group(recipe: Recipe, frame: Frame, node: Node) -> tuple[IntArray, Sequence[Any]]:
    """Codes (-1 where missing) and levels of one grouping variable on new data."""
    if isinstance(node, Name):
        column = as_factor_column(frame.column(node.name))
        return column.values.astype(np.intp, copy=False), column.levels
    columns = _columns(recipe, frame, [node], strict=False)
    values, present = _evaluate(recipe, [node], columns, frame.n_rows)
    codes = np.full(frame.n_rows, -1, dtype=np.intp)
    levels: Sequence[Any] = ()
    if present.any():
        codes[present], levels = as_factor(values[node], name_of(node))
    return codes, levels
