"""From the variables of a formula to the columns of a model matrix, with R's coding rules.

A `Variable` says how one variable becomes columns; it knows levels and contrasts and holds no rows, so the
same object serves the training data and new data.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lme4py.design.contrasts import contrast_matrix, full_dummies
from lme4py.errors import DesignError
from lme4py.formula.nodes import Node, Terms
from lme4py.formula.values import Value

__all__ = [
    "Source",
    "Variable",
    "column_sources",
    "drop_unused",
    "full_coding",
    "make_variable",
    "matrix_columns",
    "model_columns",
    "model_matrix",
    "stack_columns",
]

FloatArray = NDArray[np.float64]
Contrasts = str | NDArray[Any]
# Variables and endings of their names that a column is made of; nothing for the intercept.
Source: TypeAlias = tuple[tuple[str, str], ...]

# Boolean variables are factors with these two levels, whether or not both occur (R).
BOOLEAN_LEVELS = (False, True)
# A contrast matrix has the square of this many cells.
MOST_LEVELS = 10_000


@dataclass(frozen=True, slots=True)
class Variable:
    """How a variable becomes columns.

    Attributes
    ----------
    name : str
        Its text in the formula; the first part of the names of its columns.
    kind : str
        "numeric" (one column), "matrix" (poly(), ns(), ...) or "factor" (codes; booleans too).
    levels : tuple
        Levels that occur in the training data.
    contrasts : ndarray, shape (L, c), or None
        Contrast matrix of a factor; None where it has a single level.
    suffixes : tuple of str
        Endings of the names: of the contrast columns, or of the columns of a matrix.
    """

    name: str
    kind: Literal["numeric", "matrix", "factor"]
    levels: tuple[Any, ...] = ()
    contrasts: FloatArray | None = None
    suffixes: tuple[str, ...] = ("",)

    def endings(self, full: bool) -> tuple[str, ...]:
        """What the names of the columns have after the variable's own; `full` asks for one column per level."""
        return tuple(full_dummies(self.levels)[1]) if full and self.kind == "factor" else self.suffixes

    def names(self, full: bool) -> tuple[str, ...]:
        """Names of the columns; `full` asks for one column per level."""
        return tuple(self.name + ending for ending in self.endings(full))

    def columns(self, values: NDArray[Any], full: bool) -> list[FloatArray]:
        """The columns, each of shape (n,), for `values` as in `Value` (codes for a factor)."""
        if self.kind == "numeric":
            return [values]
        if self.kind == "matrix":
            return [values[:, j] for j in range(values.shape[1])]
        codes = values.astype(np.intp, copy=False)
        if full:
            return [(codes == j).astype(np.float64) for j in range(len(self.levels))]
        if self.contrasts is None:
            raise DesignError(
                f"the factor '{self.name}' has only one level ({self.levels[0]!r}) in the rows used; "
                "there is nothing to compare it with, so remove it from the formula"
            )
        return [column.take(codes) for column in np.ascontiguousarray(self.contrasts.T)]


def drop_unused(value: Value) -> Value:
    """The same factor without the levels that do not occur (R drops them); other values unchanged."""
    if not value.is_factor:
        return value
    used = np.bincount(value.values, minlength=len(value.levels)) > 0
    if used.all():
        return value
    position = (np.cumsum(used) - 1).astype(value.values.dtype)
    levels = tuple(level for level, keep in zip(value.levels, used.tolist(), strict=True) if keep)
    return replace(value, values=position[value.values], levels=levels)


def make_variable(name: str, value: Value, contrasts: Contrasts | None = None) -> Variable:
    """How `value`, with unused levels dropped, becomes columns.

    Parameters
    ----------
    name : str
    value : Value
    contrasts : str or ndarray, optional
        The user's choice; without one, that of ``C(x, ...)`` in the formula, else treatment contrasts, and
        polynomial ones for an ordered factor (R's defaults).
    """
    if value.kind == "numeric":
        return Variable(name, "numeric")
    if value.kind == "matrix":
        return Variable(name, "matrix", suffixes=value.suffixes)
    levels = value.levels if value.is_factor else BOOLEAN_LEVELS
    if len(levels) > MOST_LEVELS:
        raise DesignError(
            f"the factor '{name}' has {len(levels)} levels, too many for one coefficient each; use it as a "
            f"grouping factor, (1 | {name})"
        )
    if len(levels) < 2:
        return Variable(name, "factor", levels, None, ())
    kind = contrasts if contrasts is not None else value.contrasts
    if kind is None:
        kind = "contr.poly" if value.kind == "ordered" else "contr.treatment"
    matrix, suffixes = contrast_matrix(kind, levels)
    return Variable(name, "factor", levels, matrix, tuple(suffixes))


def full_coding(terms: Terms, variables: Mapping[Node, Variable]) -> list[tuple[bool, ...]]:
    """For each term and each variable in it: True where a factor gets one column per level.

    That is R's rule on the formula alone (`Terms.coding`) plus the one that needs the data: without an
    intercept, the first factor of the first term that holds a factor takes over the role of the intercept.
    """
    full = [tuple(not contrasts for contrasts in coding) for coding in terms.coding]
    if terms.intercept:
        return full
    for i, term in enumerate(terms.terms):
        kinds = [variables[terms.variables[v]].kind for v in term.variables]
        if "factor" in kinds:
            first = kinds.index("factor")
            full[i] = tuple(flag or j == first for j, flag in enumerate(full[i]))
            break
    return full


def model_columns(terms: Terms, variables: Mapping[Node, Variable]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Names of the columns of a right-hand side, and the term of each (0 for the intercept)."""
    names = ["Intercept"] if terms.intercept else []
    assign = [0] if terms.intercept else []
    for i, (term, full) in enumerate(zip(terms.terms, full_coding(terms, variables), strict=True)):
        parts = [variables[terms.variables[v]].names(f) for v, f in zip(term.variables, full, strict=True)]
        new = [":".join(reversed(combination)) for combination in product(*reversed(parts))]
        names += new
        assign += [i + 1] * len(new)
    return tuple(names), tuple(assign)


def column_sources(terms: Terms, variables: Mapping[Node, Variable]) -> Iterator[tuple[str, Source]]:
    """Names of the columns as `model_columns`, each with the variables and endings that it is made of."""
    if terms.intercept:
        yield "Intercept", ()
    for term, full in zip(terms.terms, full_coding(terms, variables), strict=True):
        own = [variables[terms.variables[v]] for v in term.variables]
        parts = [[(one.name, ending) for ending in one.endings(f)] for one, f in zip(own, full, strict=True)]
        for combination in product(*reversed(parts)):
            source = tuple(reversed(combination))
            yield ":".join(name + ending for name, ending in source), source


def model_matrix(
    terms: Terms,
    variables: Mapping[Node, Variable],
    values: Mapping[Node, NDArray[Any]],
    n: int,
    order: Literal["C", "F"] = "F",
) -> FloatArray:
    """The columns of a right-hand side, shape (n, k); inside a term the first variable varies fastest (R)."""
    return stack_columns(matrix_columns(terms, variables, values), n, order)


def matrix_columns(
    terms: Terms, variables: Mapping[Node, Variable], values: Mapping[Node, NDArray[Any]]
) -> list[FloatArray | None]:
    """The columns of `model_matrix` before they stand side by side; None for the intercept."""
    columns: list[FloatArray | None] = [None] if terms.intercept else []
    known: dict[tuple[int, bool], list[FloatArray]] = {}
    for term, full in zip(terms.terms, full_coding(terms, variables), strict=True):
        parts = []
        for v, flag in zip(term.variables, full, strict=True):
            if (v, flag) not in known:
                node = terms.variables[v]
                known[v, flag] = variables[node].columns(values[node], flag)
            parts.append(known[v, flag])
        columns += column_products(parts)
    return columns


def stack_columns(columns: Sequence[FloatArray | None], n: int, order: Literal["C", "F"] = "F") -> FloatArray:
    """Columns side by side, shape (n, k); None is a column of ones."""
    matrix = np.empty((n, len(columns)), order=order)
    for j, column in enumerate(columns):
        matrix[:, j] = 1.0 if column is None else column
    return matrix


def column_products(parts: Sequence[list[FloatArray]]) -> list[FloatArray]:
    """All products of one column from each part, the first part varying fastest."""
    columns = parts[0]
    for part in parts[1:]:
        columns = [left * right for right in part for left in columns]
    return columns
