"""The fixed effects of a formula on new rows: design, slopes, and products over scenarios."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lme4py.data.column import Column
from lme4py.data.frame import Frame
from lme4py.design.beside.given import column_getter
from lme4py.design.coding import Variable, column_products, full_coding, model_columns, model_matrix
from lme4py.design.recipe import (
    BarRecipe,
    Recipe,
    beyond,
    columns_of,
    evaluated,
    new_fixed,
    trained_values,
)
from lme4py.formula.deparse import names_in, walk
from lme4py.formula.nodes import Call, Node, Terms
from lme4py.formula.operands import Context
from lme4py.frozen import computed_once
from lme4py.linalg.types import FloatArray
from lme4py.margins.models.nesting import NestedCells, nested_cells
from lme4py.margins.models.slopes import expression_slope

__all__ = ["FormulaRows", "bar_matrix", "bar_slope", "factored_matrix", "names_of_nodes"]

_FACTOR_CALLS = frozenset(
    ("factor", "as.factor", "ordered", "as.ordered", "as.character", "C", "interaction", "relevel", "droplevels")
)


class FormulaRows:
    """The fixed effects of a formula on new data, their slopes, and their products over scenarios.

    Parameters
    ----------
    recipe : Recipe
    columns : mapping of str to Column
        Training data.

    Attributes
    ----------
    n_beyond : int
        Columns of a design after those of the fixed effects: how far a row lies outside the span of the rows of the
        fit, see `lme4py.design.recipe.beyond`.
    """

    def __init__(self, recipe: Recipe, columns: Mapping[str, Column]) -> None:
        self.recipe = recipe
        self.n_beyond = 0 if recipe.null is None else recipe.null.shape[1]
        self.columns = columns
        self.fixed = recipe.formula.fixed
        self.variables = names_of_nodes([*recipe.variables, *recipe.offsets, *recipe.category_nodes], columns)

    @computed_once
    def categorical(self) -> frozenset[str]:
        """Numeric columns that the formula turns into factors."""
        calls = [part for node in self.recipe.variables for part in walk(node, contrasts=False)]
        inside = [call for call in calls if isinstance(call, Call) and call.function in _FACTOR_CALLS]
        return frozenset(names_of_nodes(inside, self.columns))

    def cells(self) -> NestedCells | None:
        """Nested factors of the fixed effects; where the model has them, columns of their interaction are left out."""
        if not self.n_beyond:
            return None
        variables = self.recipe.variables
        factors = [node for node, variable in variables.items() if variable.kind == "factor"]
        nodes = self.fixed.variables
        terms = [
            frozenset(names_of_nodes([nodes[v] for v in term.variables], self.columns)) for term in self.fixed.terms
        ]
        return nested_cells(self.columns, names_of_nodes(factors, self.columns), terms)

    def design(self, frame: Frame) -> tuple[FloatArray, FloatArray]:
        """X and the offset."""
        X, offset = new_fixed(self.recipe, frame)
        if self.n_beyond:
            X = self._with_beyond(whole_matrix(self.recipe, self.fixed, self.recipe.variables, frame))
        return X, offset

    def offsets(self, frame: Frame) -> list[tuple[frozenset[str], FloatArray]]:
        """The columns and the values of each offset, those of the formula and that of `offset=`."""
        recipe = self.recipe
        out: list[tuple[frozenset[str], FloatArray]] = []
        for node in recipe.offsets:
            values = evaluated(recipe, [node], columns_of(recipe, frame, [node]), frame.n_rows)[0]
            out.append((frozenset(names_of_nodes([node], self.columns)), values[node].values))
        return out

    def _with_beyond(self, whole: FloatArray) -> FloatArray:
        return np.hstack([whole[:, self.recipe.kept], beyond(self.recipe, whole)])

    def slopes(self, frame: Frame, name: str) -> tuple[FloatArray, FloatArray]:
        """Derivatives of X and the offset in a numeric column."""
        recipe, n = self.recipe, frame.n_rows
        whole = matrix_slope(recipe, self.fixed, recipe.variables, frame, name)
        X = self._with_beyond(whole)
        offset = np.zeros(n)
        columns = columns_of(recipe, frame, recipe.offsets)
        for node in recipe.offsets:
            slope = expression_slope(_context(recipe, columns, n), node, name)
            offset += 0.0 if slope is None else slope
        return X, offset + recipe.known_part(whole)

    def factored(self, rows: Frame, scenarios: Frame) -> tuple[tuple[FloatArray, FloatArray], ...] | None:
        """X and the offset as products of a part of the scenario and a part of the row."""
        recipe = self.recipe
        if self.n_beyond or recipe.held:
            return None  # every row is checked for what can be estimated
        X = factored_matrix(recipe, self.fixed, recipe.variables, rows, scenarios)
        known = _factored_offset(recipe, rows, scenarios)
        if X is None or known is None:
            return None
        return (X[0][:, recipe.kept], X[1][:, recipe.kept]), known


def names_of_nodes(nodes: Sequence[Node], columns: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for node in nodes for name in names_in(node, columns) if name in columns))


def _context(recipe: Recipe, columns: Mapping[str, Column], n: int) -> Context:
    return Context(column_getter(columns), recipe.state, recipe.functions, recipe.formula.text, n)


def matrix_slope(
    recipe: Recipe, terms: Terms, variables: Mapping[Node, Variable], frame: Frame, name: str
) -> FloatArray:
    """Derivative of a model matrix in a numeric column: the product rule, one variable of the formula at a time."""
    nodes, n = list(variables), frame.n_rows
    columns = columns_of(recipe, frame, nodes)
    values = evaluated(recipe, nodes, columns, n)[0]
    arrays = {node: trained_values(variable, values[node]) for node, variable in variables.items()}
    names, assign = model_columns(terms, variables)
    total = np.zeros((n, len(names)))
    context = _context(recipe, columns, n)
    for place, node in enumerate(terms.variables):
        if node not in variables or variables[node].kind == "factor":
            continue
        slope = expression_slope(context, node, name)
        if slope is None:
            continue
        within = np.array([t > 0 and place in terms.terms[t - 1].variables for t in assign])
        moved = model_matrix(terms, variables, {**arrays, node: np.broadcast_to(slope, arrays[node].shape)}, n)
        total[:, within] += moved[:, within]
    return total


def whole_matrix(recipe: Recipe, terms: Terms, variables: Mapping[Node, Variable], frame: Frame) -> FloatArray:
    """All columns of a right-hand side on complete rows."""
    columns = columns_of(recipe, frame, list(variables))
    values = evaluated(recipe, list(variables), columns, frame.n_rows)[0]
    arrays = {node: trained_values(variable, values[node]) for node, variable in variables.items()}
    return model_matrix(terms, variables, arrays, frame.n_rows)


def bar_matrix(recipe: Recipe, bar: BarRecipe, frame: Frame) -> FloatArray:
    """All columns of a random-effects term on complete rows, (n, k)."""
    values = evaluated(recipe, bar.nodes, columns_of(recipe, frame, bar.nodes), frame.n_rows)[0]
    return bar.matrix(values, frame.n_rows)


def bar_slope(recipe: Recipe, bar: BarRecipe, frame: Frame, name: str) -> FloatArray:
    """Their derivatives in a numeric column, (n, k): a row that is at another time has another effect, not a slope."""
    if bar.joined:
        return np.hstack([bar_slope(recipe, own, frame, name) for own in bar.joined])
    if bar.places is not None:
        return np.zeros((frame.n_rows, bar.n_columns))
    return matrix_slope(recipe, bar.terms, bar.variables, frame, name)


def factored_matrix(
    recipe: Recipe, terms: Terms, variables: Mapping[Node, Variable], rows: Frame, scenarios: Frame
) -> tuple[FloatArray, FloatArray] | None:
    """Factors C (S, k), R (n, k) of a model matrix; None where an expression mixes both kinds of columns."""
    moving = set(scenarios.names)
    sides = {node: _side(node, recipe, moving) for node in variables}
    if None in sides.values():
        return None
    out = []
    for side, frame in (("scenario", scenarios), ("row", rows)):
        nodes = [node for node in variables if sides[node] == side]
        columns = columns_of(recipe, frame, nodes)
        values = evaluated(recipe, nodes, columns, frame.n_rows)[0] if nodes else {}
        arrays = {node: trained_values(variables[node], values[node]) for node in nodes}
        out.append(_one_side(terms, variables, arrays, frame.n_rows))
    return out[0], out[1]


def _side(node: Node, recipe: Recipe, moving: set[str]) -> str | None:
    used = set(names_of_nodes([node], recipe.columns))
    if not used & moving:
        return "row"
    return "scenario" if used <= moving else None


def _one_side(
    terms: Terms, variables: Mapping[Node, Variable], arrays: Mapping[Node, NDArray[Any]], n: int
) -> FloatArray:
    """The columns of a model matrix with 1 in place of the variables that stand on the other side."""
    one = np.ones(1)
    columns = [one] if terms.intercept else []
    for term, full in zip(terms.terms, full_coding(terms, variables), strict=True):
        parts = []
        for v, flag in zip(term.variables, full, strict=True):
            node = terms.variables[v]
            variable = variables[node]
            known = node in arrays
            parts.append(variable.columns(arrays[node], flag) if known else [one] * len(variable.names(flag)))
        columns += column_products(parts)
    matrix = np.empty((n, len(columns)), order="F")
    for j, column in enumerate(columns):
        matrix[:, j] = column
    return matrix


def _factored_offset(recipe: Recipe, rows: Frame, scenarios: Frame) -> tuple[FloatArray, FloatArray] | None:
    moving, nodes = set(scenarios.names), recipe.offsets
    by_scenario, by_row = np.zeros(scenarios.n_rows), np.zeros(rows.n_rows)
    for node in nodes:
        side = _side(node, recipe, moving)
        if side is None:
            return None
        frame, total = (scenarios, by_scenario) if side == "scenario" else (rows, by_row)
        values = evaluated(recipe, [node], columns_of(recipe, frame, [node]), frame.n_rows)[0]
        total += values[node].values
    S, n = scenarios.n_rows, rows.n_rows
    return np.column_stack([by_scenario, np.ones(S)]), np.column_stack([np.ones(n), by_row])
