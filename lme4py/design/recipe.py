"""Replaying a design on new data: the same columns, levels and groups, whatever rows come in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lme4py.data.column import Column, Kind
from lme4py.data.frame import Frame, as_factor_column, missing_rows
from lme4py.design.beside.by_category import beside_baseline
from lme4py.design.beside.given import Given, column_getter, finite_offset, numbers_of
from lme4py.design.coding import Variable, model_matrix
from lme4py.design.fixed import name_of
from lme4py.design.places import Between, Places
from lme4py.design.random import Grouping, as_factor, group_codes
from lme4py.errors import DataError, OptionError, did_you_mean
from lme4py.families.categories.counts import column_labels
from lme4py.formula.deparse import names_in
from lme4py.formula.evaluate import evaluate
from lme4py.formula.nodes import Formula, Name, Node, Terms
from lme4py.formula.values import Value

__all__ = [
    "BarRecipe",
    "Recipe",
    "beyond",
    "columns_of",
    "evaluated",
    "group_parts",
    "new_fixed",
    "new_group",
    "new_random",
    "new_random_values",
    "new_response",
    "new_weights",
    "offset_values",
    "trained_values",
    "unseen_groups",
]

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
    places : Places or None
        Of a term whose columns are times or places.
    tag : str
        The id of ``(1 | id | group)``.
    joined : tuple of BarRecipe
        The terms that a term of several with one id is made of; its other fields are those of the first.
    """

    label: str
    terms: Terms
    variables: dict[Node, Variable]
    group: tuple[Node, ...]
    grouping: Grouping
    n_columns: int
    places: Places | None = None
    tag: str = ""
    joined: tuple[BarRecipe, ...] = ()

    @property
    def nodes(self) -> list[Node]:
        """What stands left of the bar."""
        if self.joined:
            return list(dict.fromkeys(node for bar in self.joined for node in bar.nodes))
        return list(self.variables if self.places is None else self.places.nodes)

    def matrix(self, values: Mapping[Node, Value], n: int, between: Between | None = None) -> FloatArray:
        """The columns of n rows, (n, k), from the values of `nodes`."""
        if self.joined:
            return np.hstack([bar.matrix(values, n) for bar in self.joined])
        if self.places is not None:
            return self.places.columns(values, between)
        return _replay(self.terms, self.variables, values, n)


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
    offset : Given or None
        The `offset` argument: a column or an expression, which is replayed, or values, which are refused there.
    functions : dict
        The user's own functions.
    weights : Given or None
        The `weights` argument.
    null : ndarray, shape (number of all columns, d), or None
        Combinations of the columns of the model matrix that are zero in the data of the fit, in units of the size of
        the dropped column; see `beyond`.
    by_category : tuple of Given or None, length K
        The `offset` of each of K unordered categories, the baseline first; () without such.
    held : tuple of (int, float)
        Columns of the model matrix whose coefficients are known: they are a part of the offset.
    """

    formula: Formula
    state: dict[str, Any]
    columns: dict[str, tuple[Kind, tuple[Any, ...]]]
    variables: dict[Node, Variable]
    kept: tuple[int, ...]
    bars: tuple[BarRecipe, ...]
    offset: Given | None = None
    functions: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    weights: Given | None = None
    null: FloatArray | None = None
    by_category: tuple[Given | None, ...] = ()
    held: tuple[tuple[int, float], ...] = ()

    def known_part(self, whole: FloatArray) -> FloatArray:
        """What columns with known coefficients add to the offset, (n,), of all columns of the model matrix."""
        places = [place for place, _ in self.held]
        known: FloatArray = whole[:, places] @ np.array([value for _, value in self.held])
        return known

    @property
    def offsets(self) -> tuple[Node, ...]:
        """What is added to the linear predictor: the ``offset()`` terms and an `offset` that is no array."""
        own = () if self.offset is None or self.offset.node is None else (self.offset.node,)
        return (*self.formula.fixed.offsets, *own)

    @property
    def category_nodes(self) -> tuple[Node, ...]:
        """What the offsets of single categories are evaluated from."""
        return tuple(one.node for one in self.by_category if one is not None and one.node is not None)

    def text_of(self, node: Node) -> str:
        """The text that an expression stands in: the formula, or an argument."""
        arguments = (self.offset, self.weights, *self.by_category)
        given = next((one for one in arguments if one is not None and one.node is node), None)
        return self.formula.text if given is None else given.text


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


def new_fixed(recipe: Recipe, frame: Frame, offset: Column | FloatArray | None = None) -> tuple[FloatArray, FloatArray]:
    """The fixed-effects model matrix and the offset of new data.

    Parameters
    ----------
    recipe : Recipe
    frame : Frame
        New data; the response and the grouping factors are not needed.
    offset : Column, or ndarray of shape (n, D), optional
        Takes the place of the `offset` argument of the fit, values of shape (n,).

    Returns
    -------
    X : ndarray, shape (n, p)
        NaN in rows with a missing value, and in those that cannot be estimated: columns were left out of the fixed
        effects, and in these rows they are not what they were in the data of the fit.
    offset : ndarray, shape (n,), or (n, D) where categories have offsets of their own
        ``offset()`` terms of the formula plus the `offset` argument; zeros without any; NaN exactly in the rows
        with a missing value.

    Raises
    ------
    OptionError
        The fit had an offset that was given as an array, and there is none for the new data.
    """
    terms = recipe.formula.fixed
    offsets = recipe.offsets if offset is None else terms.offsets
    arguments = (recipe.offset, *recipe.by_category)
    if offset is None and any(one is not None and one.node is None for one in arguments):
        raise OptionError(
            "the model has an offset that was given as an array, and predictions of other rows need theirs: give it as "
            "offset=, a column name, an expression or an array; or fit the model with the offset as a column."
        )
    own = recipe.category_nodes if offset is None else ()
    nodes = [*recipe.variables, *offsets, *own]
    columns = columns_of(recipe, frame, nodes)
    extra = [offset] if isinstance(offset, Column) else []
    values, present = evaluated(recipe, nodes, columns, frame.n_rows, extra)
    X = np.full((frame.n_rows, len(recipe.kept)), np.nan)
    known = np.where(present, 0.0, np.nan)
    if present.any():
        whole = _replay(terms, recipe.variables, values, int(present.sum()))
        for node in offsets:
            known[present] += _offset_of(recipe, node, values[node])
        known[present] += recipe.known_part(whole)
        _check_finite(np.column_stack([whole, known[present]]), present)
        X[present] = whole[:, recipe.kept]
        X[np.flatnonzero(present)[beyond(recipe, whole).any(axis=1)]] = np.nan
    for column in extra:
        known += finite_offset(column.values, Given("offset"))
    beside = offset if isinstance(offset, np.ndarray) else _category_offsets(recipe, values, present) if own else None
    if beside is not None:
        known = beside + (known if beside.ndim == 1 else known[:, None])
    return X, known


def _category_offsets(recipe: Recipe, values: Mapping[Node, Value], present: NDArray[np.bool_]) -> FloatArray:
    """Offsets of single categories beside that of the baseline, (n, D); zeros in rows with a missing value."""
    columns = [np.zeros(present.size) for _ in recipe.by_category]
    for column, one in zip(columns, recipe.by_category, strict=True):
        if one is not None and one.node is not None and present.any():
            column[present] = finite_offset(numbers_of(values[one.node], one), one)
    return beside_baseline(columns)


def _check_finite(columns: FloatArray, present: NDArray[np.bool_]) -> None:
    """Products of large numbers can overflow where each of them is finite; `columns` are of the rows present."""
    bad = ~np.isfinite(columns).all(axis=1)
    if bad.any():
        first = int(np.flatnonzero(present)[int(np.argmax(bad))])
        raise DataError(
            f"{int(bad.sum())} of {present.size} rows of the new data have values so large that the model matrix is "
            f"not finite (first: row {first}); correct these rows, or remove them"
        )


def _check_column(name: str, value: Value, present: NDArray[np.bool_]) -> None:
    """A column that is a variable by itself must be finite; expressions were checked when they were evaluated."""
    if value.kind != "numeric" or np.isfinite(value.values.sum()):
        return
    infinite = np.isinf(value.values)
    if infinite.any():
        first = int(np.flatnonzero(present)[int(np.argmax(infinite))])
        raise DataError(
            f"column {name!r} of the new data has {int(infinite.sum())} infinite value(s) (first: row {first}); "
            "correct them, set them to missing, or remove these rows"
        )


def _offset_of(recipe: Recipe, node: Node, value: Value) -> FloatArray:
    given = recipe.offset
    if given is not None and node is given.node:
        return finite_offset(numbers_of(value, given), given)
    return offset_values(value, name_of(node))


def new_weights(recipe: Recipe, frame: Frame) -> FloatArray:
    """The `weights` argument of the fit on new data, shape (n,), NaN in rows with a missing value.

    Parameters
    ----------
    recipe : Recipe
        Whose weights are a column or an expression.
    frame : Frame
    """
    given = recipe.weights
    if given is None or given.node is None:
        raise OptionError("the fit has no weights that can be evaluated on new data; give them as weights=.")
    values, present = evaluated(recipe, [given.node], columns_of(recipe, frame, [given.node]), frame.n_rows)
    weights = np.full(frame.n_rows, np.nan)
    if present.any():
        weights[present] = numbers_of(values[given.node], given)
    return weights


def new_random(
    recipe: Recipe, frame: Frame, term_index: int, between: Between | None = None
) -> tuple[FloatArray, IntArray]:
    """The columns and the groups of one random-effects term on new data.

    Parameters
    ----------
    recipe : Recipe
    frame : Frame
    term_index : int
        Position in `Design.terms`.
    between : callable, optional
        Rows of a process at places where no row of the fit was.

    Returns
    -------
    values : ndarray, shape (n, k)
        NaN in rows with a missing value left of the bar.
    codes : ndarray of int, shape (n,)
        -1 where the group is missing or was not in the training data.
    """
    bar = recipe.bars[term_index]
    values = new_random_values(recipe, frame, term_index, between)
    return values, group_codes(bar.grouping, [new_group(recipe, frame, node) for node in bar.group])


def new_random_values(recipe: Recipe, frame: Frame, term_index: int, between: Between | None = None) -> FloatArray:
    """The columns of one random-effects term on new data, shape (n, k); the grouping factor is not needed."""
    bar = recipe.bars[term_index]
    nodes = bar.nodes
    columns = columns_of(recipe, frame, nodes)
    values_of, present = evaluated(recipe, nodes, columns, frame.n_rows)
    values = np.full((frame.n_rows, bar.n_columns), np.nan)
    if present.any():
        values[present] = bar.matrix(values_of, int(present.sum()), between)
        _check_finite(values[present], present)
    return values


def group_parts(recipe: Recipe, frame: Frame, term_index: int) -> list[tuple[IntArray, tuple[Any, ...]]]:
    """Codes (-1 where missing) and levels of each variable that groups one random-effects term on new data.

    Parameters
    ----------
    recipe : Recipe
    frame : Frame
    term_index : int
        Position in `Design.terms`.
    """
    found = (new_group(recipe, frame, node) for node in recipe.bars[term_index].group)
    return [(codes, tuple(levels)) for codes, levels in found]


def unseen_groups(recipe: Recipe, frame: Frame, term_index: int, codes: IntArray) -> tuple[list[Any], int]:
    """The groups of new data that the fit does not know, and the number of rows whose group is missing.

    Parameters
    ----------
    recipe : Recipe
    frame : Frame
    term_index : int
        Position in `Design.terms`.
    codes : ndarray of int, shape (n,)
        From `new_random`.

    Returns
    -------
    list
        Each label once, in ascending order; ``"lo:308"`` for an interaction.
    int
    """
    parts = [new_group(recipe, frame, node) for node in recipe.bars[term_index].group]
    missing = np.any([part < 0 for part, _ in parts], axis=0)
    unknown = (codes < 0) & ~missing
    found = np.unique(np.stack([part[unknown] for part, _ in parts], axis=1), axis=0).tolist()
    if len(parts) == 1:
        return [parts[0][1][code] for (code,) in found], int(missing.sum())
    levels = [part_levels for _, part_levels in parts]
    named = [":".join(str(own[code]) for own, code in zip(levels, row, strict=True)) for row in found]
    return named, int(missing.sum())


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
    values_of, present = evaluated(recipe, nodes, columns, frame.n_rows)
    parts = [np.asarray(values_of[node].values, dtype=np.float64) for node in nodes if present.any()]
    found = np.column_stack(parts) if parts else np.zeros((0, 1))
    values = np.full((frame.n_rows, found.shape[1]), np.nan)
    values[present] = found
    return values, present


def new_response_labels(recipe: Recipe, frame: Frame) -> tuple[Any, ...]:
    """What the codes of a response that is a factor mean, or the columns of one that has several; () for numbers.

    Parameters
    ----------
    recipe : Recipe
    frame : Frame
    """
    response = recipe.formula.response
    if response is None:
        return ()
    columns = {name: frame.column(name) for name in names_in(response, recipe.columns)}
    value = evaluated(recipe, [response], columns, frame.n_rows)[0].get(response)
    if value is None:
        return ()
    if value.kind == "boolean":
        return False, True
    return tuple(value.levels) if value.is_factor else column_labels(value) if value.kind == "matrix" else ()


def offset_values(value: Value, name: str) -> FloatArray:
    """An offset as numbers, shape (n,)."""
    if value.refusal:
        raise DataError(value.refusal)
    if value.is_factor or value.values.ndim != 1:
        raise DataError(f"the offset '{name}' is not numeric; use one numeric column or expression")
    values: FloatArray = value.values
    return values


def columns_of(recipe: Recipe, frame: Frame, nodes: Iterable[Node], strict: bool = True) -> dict[str, Column]:
    """The columns of new data that expressions use, in the form they had in the training data.

    Parameters
    ----------
    recipe : Recipe
    frame : Frame
    nodes : iterable of Node
    strict : bool
        Refuse levels that the training data did not have; their codes are -1 otherwise.

    Returns
    -------
    dict of str to Column
    """
    trained = recipe.columns
    names = dict.fromkeys(name for node in nodes for name in names_in(node, trained) if name in trained)
    return {name: _as_trained(frame.column(name), trained[name], strict) for name in names}


def evaluated(
    recipe: Recipe,
    nodes: Sequence[Node],
    columns: Mapping[str, Column],
    n_rows: int,
    extra: Sequence[Column] = (),
) -> tuple[dict[Node, Value], NDArray[np.bool_]]:
    """Values of expressions on the rows that are complete, and which rows those are.

    Parameters
    ----------
    recipe : Recipe
    nodes : sequence of Node
    columns : mapping of str to Column
        As `columns_of` gives them.
    n_rows : int
    extra : sequence of Column
        Further columns that must not be missing.

    Returns
    -------
    dict of Node to Value
    ndarray of bool, shape (n,)
    """
    present = ~missing_rows([*columns.values(), *extra], n_rows)
    complete = {name: column.take(present) for name, column in columns.items()}
    if not present.any():
        return {}, present  # a spline or a cut of no values has no meaning
    get = column_getter(complete)
    values = {
        node: evaluate(node, get, recipe.state, functions=recipe.functions, formula=recipe.text_of(node))
        for node in nodes
    }
    for node, value in values.items():
        if isinstance(node, Name):
            _check_column(node.name, value, present)
    return values, present


def _replay(terms: Terms, variables: Mapping[Node, Variable], values: Mapping[Node, Value], n: int) -> FloatArray:
    arrays = {node: trained_values(variable, values[node]) for node, variable in variables.items()}
    return model_matrix(terms, variables, arrays, n)


def trained_values(variable: Variable, value: Value) -> NDArray[Any]:
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
    if column.refusal:
        raise DataError(column.refusal)
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


def new_group(recipe: Recipe, frame: Frame, node: Node) -> tuple[IntArray, Sequence[Any]]:
    """Codes (-1 where missing) and levels of one grouping variable on new data.

    Parameters
    ----------
    recipe : Recipe
    frame : Frame
    node : Node
        A column or an expression.

    Returns
    -------
    ndarray of int, shape (n,)
    sequence
        What the codes mean.
    """
    if isinstance(node, Name):
        column = as_factor_column(frame.column(node.name))
        return column.values.astype(np.intp, copy=False), column.levels
    columns = columns_of(recipe, frame, [node], strict=False)
    values, present = evaluated(recipe, [node], columns, frame.n_rows)
    codes = np.full(frame.n_rows, -1, dtype=np.intp)
    levels: Sequence[Any] = ()
    if present.any():
        codes[present], levels = as_factor(values[node], name_of(node))
    return codes, levels
