"""Fits of this package as a session sees them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lme4py.data.column import Column
from lme4py.data.frame import Frame
from lme4py.design.coding import Variable, _products, full_coding, model_columns, model_matrix
from lme4py.design.design import Design
from lme4py.design.fixed import used_variables
from lme4py.design.recipe import (
    Recipe,
    _columns,
    _evaluate,
    _trained_values,
    column_getter,
    new_fixed,
    new_random,
    offset_column,
)
from lme4py.engine.covariance import Template
from lme4py.engine.types import FloatArray
from lme4py.errors import OptionError
from lme4py.formula.deparse import names_in, walk
from lme4py.formula.nodes import Call, Node, Terms
from lme4py.formula.operands import Context
from lme4py.glmm_fit import GlmmFit
from lme4py.inference.df import method
from lme4py.margins.adapter import FactoredRows, ModelAdapter, Rows, DdfMethod
from lme4py.margins.slopes import expression_slope

__all__ = ["FormulaRows", "OwnAdapter"]

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
    alias : ndarray, shape (p, dropped), or None
        Columns that the rank check left out, as combinations of those kept.
    """

    def __init__(self, recipe: Recipe, columns: Mapping[str, Column], alias: FloatArray | None = None) -> None:
        self.recipe = recipe
        self.alias = alias
        self.columns = columns
        self.fixed = recipe.formula.fixed
        extra = (recipe.offset_column,) if recipe.offset_column in columns else ()
        nodes = [*recipe.variables, *self.fixed.offsets]
        self.variables = tuple(dict.fromkeys([*_names(nodes, columns), *(name for name in extra if name)]))

    @cached_property
    def categorical(self) -> frozenset[str]:
        """Numeric columns that the formula turns into factors."""
        calls = [part for node in self.recipe.variables for part in walk(node, contrasts=False)]
        inside = [call for call in calls if isinstance(call, Call) and call.function in _FACTOR_CALLS]
        return frozenset(_names(inside, self.columns))

    def design(self, frame: Frame) -> tuple[FloatArray, FloatArray]:
        """X and the offset."""
        if self.alias is not None:
            self._check_estimable(_whole_matrix(self.recipe, self.fixed, self.recipe.variables, frame), "predictions")
        return new_fixed(self.recipe, frame)

    def _check_estimable(self, whole: FloatArray, what: str) -> None:
        """Refuse rows outside the span of the training rows where the columns there were dependent."""
        if self.alias is None:
            return
        kept = list(self.recipe.kept)
        left_out = [j for j in range(whole.shape[1]) if j not in set(kept)]
        gap = np.abs(whole[:, left_out] - whole[:, kept] @ self.alias).max(axis=1)
        size = np.abs(whole).max(axis=1) + 1.0
        bad = int((gap > 1e-6 * size).sum())
        if bad:
            raise OptionError(
                f"{bad} of {gap.size} {what} cannot be estimated: columns of the fixed effects were left out because "
                "the data hold no rows for some combinations of levels, and these rows need them; keep to "
                "combinations that occur in the data, or take the interaction out of the model."
            )

    def slopes(self, frame: Frame, name: str) -> tuple[FloatArray, FloatArray]:
        """Derivatives of X and the offset in a numeric column."""
        recipe, n = self.recipe, frame.n_rows
        whole = matrix_slope(recipe, self.fixed, recipe.variables, frame, name)
        self._check_estimable(whole, "slopes")
        X = whole[:, recipe.kept]
        offset = np.zeros(n)
        columns = _columns(recipe, frame, self.fixed.offsets)
        for node in self.fixed.offsets:
            slope = expression_slope(_context(recipe, columns, n), node, name)
            offset += 0.0 if slope is None else slope
        if recipe.offset_column == name:
            offset += 1.0
        return X, offset

    def factored(self, rows: Frame, scenarios: Frame) -> tuple[tuple[FloatArray, FloatArray], ...] | None:
        """X and the offset as products of a part of the scenario and a part of the row."""
        recipe = self.recipe
        if self.alias is not None:
            return None  # every row is checked for what can be estimated
        X = factored_matrix(recipe, self.fixed, recipe.variables, rows, scenarios)
        known = _factored_offset(recipe, rows, scenarios)
        if X is None or known is None:
            return None
        return (X[0][:, recipe.kept], X[1][:, recipe.kept]), known


def _names(nodes: Sequence[Node], columns: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for node in nodes for name in names_in(node, columns) if name in columns))


def _context(recipe: Recipe, columns: Mapping[str, Column], n: int) -> Context:
    return Context(column_getter(columns), recipe.state, recipe.functions, recipe.formula.text, n)


def matrix_slope(
    recipe: Recipe, terms: Terms, variables: Mapping[Node, Variable], frame: Frame, name: str
) -> FloatArray:
    """Derivative of a model matrix in a numeric column: the product rule, one variable of the formula at a time."""
    nodes, n = list(variables), frame.n_rows
    columns = _columns(recipe, frame, nodes)
    values = _evaluate(recipe, nodes, columns, n)[0]
    arrays = {node: _trained_values(variable, values[node]) for node, variable in variables.items()}
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


def _whole_matrix(recipe: Recipe, terms: Terms, variables: Mapping[Node, Variable], frame: Frame) -> FloatArray:
    """All columns of a right-hand side on complete rows."""
    columns = _columns(recipe, frame, list(variables))
    values = _evaluate(recipe, list(variables), columns, frame.n_rows)[0]
    arrays = {node: _trained_values(variable, values[node]) for node, variable in variables.items()}
    return model_matrix(terms, variables, arrays, frame.n_rows)


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
        columns = _columns(recipe, frame, nodes)
        values = _evaluate(recipe, nodes, columns, frame.n_rows)[0] if nodes else {}
        arrays = {node: _trained_values(variables[node], values[node]) for node in nodes}
        out.append(_one_side(terms, variables, arrays, frame.n_rows))
    return out[0], out[1]


def _side(node: Node, recipe: Recipe, moving: set[str]) -> str | None:
    used = set(_names([node], recipe.columns))
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
        columns += _products(parts)
    matrix = np.empty((n, len(columns)), order="F")
    for j, column in enumerate(columns):
        matrix[:, j] = column
    return matrix


def _factored_offset(recipe: Recipe, rows: Frame, scenarios: Frame) -> tuple[FloatArray, FloatArray] | None:
    moving, nodes = set(scenarios.names), recipe.formula.fixed.offsets
    by_scenario, by_row = np.zeros(scenarios.n_rows), np.zeros(rows.n_rows)
    for node in nodes:
        side = _side(node, recipe, moving)
        if side is None:
            return None
        frame, total = (scenarios, by_scenario) if side == "scenario" else (rows, by_row)
        values = _evaluate(recipe, [node], _columns(recipe, frame, [node]), frame.n_rows)[0]
        total += values[node].values
    name = recipe.offset_column
    if name is not None:
        frame, total = (scenarios, by_scenario) if name in moving else (rows, by_row)
        total += offset_column(frame.column(name))
    S, n = scenarios.n_rows, rows.n_rows
    return np.column_stack([by_scenario, np.ones(S)]), np.column_stack([np.ones(n), by_row])


@dataclass(frozen=True)
class _Pairs:
    """Entries of the covariance matrix of a term on and below the diagonal."""

    rows: NDArray[np.intp]
    columns: NDArray[np.intp]

    def products(self, z: FloatArray) -> FloatArray:
        """Products of pairs of columns of z, (n, k(k+1)/2)."""
        return z[:, self.rows] * z[:, self.columns]

    def slopes(self, z: FloatArray, dz: FloatArray) -> FloatArray:
        """Derivatives of `products` from those of z."""
        return dz[:, self.rows] * z[:, self.columns] + z[:, self.rows] * dz[:, self.columns]

    def entries(self, matrix: FloatArray) -> FloatArray:
        """Coefficients of the products in z' matrix z."""
        values: FloatArray = matrix[self.rows, self.columns] * np.where(self.rows == self.columns, 1.0, 2.0)
        return values


class OwnAdapter(ModelAdapter):
    """A linear or generalised linear mixed model fitted by this package.

    Parameters
    ----------
    fit : Fit or GlmmFit
    """

    def __init__(self, fit: Any) -> None:
        design: Design = fit.design
        if design.columns is None:
            raise OptionError("the fit does not hold its data; fit the model again with this version of lme4py.")
        self.fit, self.design = fit, design
        self.columns = design.columns
        self.formula_rows = FormulaRows(design.recipe, self.columns, design.alias)
        self.names, self.params, self.vcov = design.x_names, fit.beta, fit.vcov
        self.variables = self.formula_rows.variables
        self.is_linear_model = not isinstance(fit, GlmmFit)
        self.description = design.formula
        self._unreplayed = self._offset_of_rows()
        if not self.is_linear_model:
            self.family, self.link = fit.family.name, fit.family.link
        self.theta = fit.theta
        self._pairs = tuple(_Pairs(*np.tril_indices(term.n_columns)) for term in design.terms)
        if not self.is_linear_model:
            self.parameter_vcov = _beta_first(fit.parameter_vcov, self.theta.size, self.params.size)

    def _offset_of_rows(self) -> FloatArray | None:
        """An offset given as an array belongs to the rows of the fit and is replayed on them only."""
        if self.design.offset is None or self.design.recipe.offset_column is not None:
            return None
        from lme4py.margins.adapter import frame_of

        known = self.formula_rows.design(frame_of(self.columns, self.n_rows))[1]
        rest: FloatArray = self.design.offset - known
        return rest if np.any(rest != 0.0) else None

    @property
    def n_rows(self) -> int:
        return self.design.n_obs

    def is_categorical(self, name: str) -> bool:
        return super().is_categorical(name) or name in self.formula_rows.categorical

    def needed(self, random: str) -> tuple[str, ...]:
        names = dict.fromkeys(self.variables)
        if random != "zero":
            for bar in self.design.recipe.bars:
                names.update(dict.fromkeys(_names(list(bar.variables), self.columns)))
                if random == "conditional":
                    names.update(dict.fromkeys(_names(bar.group, self.columns)))
        return tuple(names)

    # --- rows

    def rows(self, frame: Frame, random: str) -> Rows:
        X, offset = self.formula_rows.design(frame)
        if random == "conditional":
            for t, modes in enumerate(self.fit.modes):
                z, codes = self._conditional(frame, t)
                offset = offset + np.einsum("nk,nk->n", z, modes[codes])
        spread = np.hstack(self._spread(frame)) if random == "integrate" else None
        return Rows(X, offset, spread)

    def _conditional(self, frame: Frame, t: int) -> tuple[FloatArray, NDArray[np.intp]]:
        z, codes = new_random(self.design.recipe, frame, t)
        unseen = int((codes < 0).sum())
        if unseen:
            raise OptionError(
                f"random='conditional' needs groups that the model was fitted to, but {unseen} rows have a level of "
                f"{self.design.terms[t].group!r} that it does not know; use random='zero' or 'integrate'."
            )
        return z, codes

    def _spread(self, frame: Frame) -> list[FloatArray]:
        recipe = self.design.recipe
        return [pairs.products(self._z(recipe, frame, t)) for t, pairs in enumerate(self._pairs)]

    @staticmethod
    def _z(recipe: Recipe, frame: Frame, t: int) -> FloatArray:
        bar = recipe.bars[t]
        return _whole_matrix(recipe, bar.terms, bar.variables, frame)

    def slopes(self, frame: Frame, name: str, random: str) -> Rows:
        X, offset = self.formula_rows.slopes(frame, name)
        if random == "zero":
            return Rows(X, offset)
        recipe = self.design.recipe
        dz = [matrix_slope(recipe, bar.terms, bar.variables, frame, name) for bar in recipe.bars]
        if random == "conditional":
            for t, modes in enumerate(self.fit.modes):
                offset = offset + np.einsum("nk,nk->n", dz[t], modes[self._conditional(frame, t)[1]])
            return Rows(X, offset)
        parts = [pairs.slopes(self._z(recipe, frame, t), dz[t]) for t, pairs in enumerate(self._pairs)]
        return Rows(X, offset, np.hstack(parts))

    def factored(self, rows: Frame, scenarios: Frame, random: str) -> FactoredRows | None:
        fixed = self.formula_rows.factored(rows, scenarios)
        if fixed is None:
            return None
        X, known = fixed
        if random == "zero":
            return FactoredRows(X, known)
        recipe = self.design.recipe
        parts = [factored_matrix(recipe, bar.terms, bar.variables, rows, scenarios) for bar in recipe.bars]
        if any(part is None for part in parts):
            return None
        z = [part for part in parts if part is not None]
        if random == "integrate":
            sides = [np.hstack([pair.products(p[side]) for pair, p in zip(self._pairs, z, strict=True)]) for side in (0, 1)]
            return FactoredRows(X, known, (sides[0], sides[1]))
        if any(set(_names(bar.group, self.columns)) & set(scenarios.names) for bar in recipe.bars):
            return None
        by_row = [z[t][1] * modes[self._conditional(rows, t)[1]] for t, modes in enumerate(self.fit.modes)]
        whole = np.hstack([known[0], *(p[0] for p in z)]), np.hstack([known[1], *by_row])
        return FactoredRows(X, whole)

    def training_offset(self, random: str) -> FloatArray | None:
        """Part of the offset that belongs to the rows of the fit, (n,), None without one."""
        return self._unreplayed

    # --- parameters

    def spread_coefficients(self, theta: FloatArray) -> tuple[FloatArray, FloatArray]:
        values, slopes, start = [], [], 0
        for term, pairs in zip(self.design.terms, self._pairs, strict=True):
            template = Template(term.n_columns, term.structure)
            T = template.factor(theta[start : start + template.n_theta])
            values.append(pairs.entries(T @ T.T))
            block = np.zeros((values[-1].size, theta.size))
            for j, D in enumerate(template.directions):
                half = D @ T.T
                block[:, start + j] = pairs.entries(half + half.T)
            slopes.append(block)
            start += template.n_theta
        return np.concatenate(values), np.vstack(slopes)

    def test_method(self, ddf: str) -> DdfMethod | None:
        if ddf == "normal":
            return None
        if self.is_linear_model:
            return method(self.fit, ddf)
        if ddf == "residual":
            from lme4py.inference.df import Plain

            return Plain(self.vcov, float(self.n_rows - self.params.size))
        return super().test_method(ddf)

    def robust(self, kind: str, cluster: Any) -> DdfMethod:
        from lme4py.inference.robust import robust_method

        return robust_method(self.fit, kind, cluster)

    def replicates(self, n: int, kind: str, group: Any, seed: int, n_jobs: int) -> FloatArray:
        from lme4py.margins.refits import own_replicates

        return own_replicates(self.fit, n, kind, group, seed, n_jobs)


def _beta_first(covariance: FloatArray, m: int, p: int) -> FloatArray:
    """Covariance of (beta, theta) from that of (theta, beta, ...)."""
    order = np.r_[m : m + p, 0:m]
    return covariance[np.ix_(order, order)]
