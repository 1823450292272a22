"""The fixed-effects part: X with its rank check, the response, and the `contrasts` argument."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lme4py.design.coding import Variable, make_variable, model_columns, model_matrix
from lme4py.design.rank import dependent_columns, null_vectors
from lme4py.errors import OptionError, did_you_mean
from lme4py.formula.deparse import deparse
from lme4py.formula.nodes import Call, Node, Terms, Text
from lme4py.formula.values import Value, check_finite

__all__ = [
    "FixedPart",
    "fixed_part",
    "make_variables",
    "name_of",
    "used_variables",
    "user_contrasts",
    "without_intercept",
]

FloatArray = NDArray[np.float64]
Contrasts = Mapping[str, str | NDArray[Any]]


@dataclass(frozen=True, slots=True)
class FixedPart:
    """X and what describes it.

    Attributes
    ----------
    X : ndarray, shape (n, p)
    names : tuple of str
    assign : tuple of int
    labels : tuple of str
        Of the terms.
    dropped : tuple of str
    kept : tuple of int
        Positions of the columns of X in the model matrix before the rank check.
    null : ndarray, shape (number of all columns, d), or None
        Combinations of all columns that are zero on the rows of the data, one for each dropped column, in units of the
        size of that column.
    alias : ndarray, shape (p, d), or None
        Each dropped column as a combination of the columns of X.
    """

    X: FloatArray
    names: tuple[str, ...]
    assign: tuple[int, ...]
    labels: tuple[str, ...]
    dropped: tuple[str, ...]
    kept: tuple[int, ...]
    null: FloatArray | None = None
    alias: FloatArray | None = None


def name_of(node: Node) -> str:
    """Text of a variable; a column keeps its own name, without backquotes."""
    name = getattr(node, "name", None)
    if isinstance(node, Call) and node.function == "smooth_group" and isinstance(node.arguments[-1].value, Text):
        return node.arguments[-1].value.value
    return name if isinstance(name, str) else deparse(node)


def used_variables(terms: Terms) -> tuple[Node, ...]:
    """The variables that occur in a term (one removed by ``- x`` does not), in order."""
    used = sorted({v for term in terms.terms for v in term.variables})
    return tuple(terms.variables[v] for v in used)


def make_variables(
    nodes: Sequence[Node], values: Mapping[Node, Value], contrasts: Contrasts | None = None
) -> dict[Node, Variable]:
    """How each variable becomes columns, with the user's contrasts where there are any."""
    chosen = contrasts or {}
    variables = {}
    for node in nodes:
        name = name_of(node)
        variables[node] = make_variable(name, values[node], chosen.get(name))
    return variables


def fixed_part(
    terms: Terms, variables: Mapping[Node, Variable], values: Mapping[Node, Value], n: int, check_rank: bool = True
) -> FixedPart:
    """The model matrix of the fixed effects, of full column rank.

    Parameters
    ----------
    terms : Terms
    variables : mapping of Node to Variable
    values : mapping of Node to Value
        On the n rows that are used.
    n : int
    check_rank : bool
        Leave out columns that are combinations of the ones before them.
    """
    names, assign = model_columns(terms, variables)
    X = model_matrix(terms, variables, {node: values[node].values for node in variables}, n)
    check_finite(X, names, "column {name} of the fixed effects")
    dropped = dependent_columns(X, terms.intercept) if check_rank else []
    kept = tuple(j for j in range(len(names)) if j not in dropped)
    null = alias = None
    if dropped:
        null = null_vectors(X, dropped)
        alias = -null[list(kept)]
        size = np.sqrt(np.mean(X[:, dropped] ** 2, axis=0))
        null /= np.where(size > 0.0, size, 1.0)
        X = np.asfortranarray(X[:, kept])
    labels = tuple(":".join(name_of(terms.variables[v]) for v in term.variables) for term in terms.terms)
    return FixedPart(
        X,
        tuple(names[j] for j in kept),
        tuple(assign[j] for j in kept),
        labels,
        tuple(names[j] for j in dropped),
        kept,
        null,
        alias,
    )


def without_intercept(part: FixedPart) -> FixedPart:
    """The same columns without the first, the intercept: thresholds take its place."""
    X = np.asfortranarray(part.X[:, 1:])
    alias = None if part.alias is None else part.alias[1:]
    return FixedPart(X, part.names[1:], part.assign[1:], part.labels, part.dropped, part.kept[1:], part.null, alias)


def user_contrasts(
    contrasts: Contrasts | None,
    fixed: Sequence[Node],
    others: Sequence[Node],
    values: Mapping[Node, Value],
) -> tuple[dict[str, str | NDArray[Any]], list[str]]:
    """Check the `contrasts` argument against the variables of the formula.

    Parameters
    ----------
    contrasts : dict of variable to name or matrix, or None
    fixed, others : sequence of Node
        Variables of the fixed effects, and those of the random-effects terms.
    values : mapping of Node to Value

    Returns
    -------
    dict
    list of str
        Notes: the argument has no effect on random-effects terms (as in lme4).
    """
    if contrasts is None:
        return {}, []
    if not isinstance(contrasts, Mapping):
        raise OptionError(
            f"`contrasts` is of type {type(contrasts).__name__}; give a dict such as {{'x': 'contr.sum'}}"
        )
    fixed_kinds = {name_of(node): _is_coded(values[node]) for node in fixed}
    other_kinds = {name_of(node): _is_coded(values[node]) for node in others}
    factors = [name for name, coded in {**other_kinds, **fixed_kinds}.items() if coded]
    notes = []
    for name in contrasts:
        if fixed_kinds.get(name, False):
            continue
        if not other_kinds.get(name, False):
            why = "is not a factor" if name in fixed_kinds or name in other_kinds else "is not in the formula"
            known = f"its factors are {', '.join(factors)}" if factors else "it has no factors"
            raise OptionError(
                f"`contrasts` names {name!r}, which {why}.{did_you_mean(str(name), factors)} Use a factor of "
                f"the formula ({known})"
            )
        notes.append(f"The contrasts for '{name}' have no effect: the argument is for fixed effects only.")
    return dict(contrasts), notes


def _is_coded(value: Value) -> bool:
    return value.is_factor or value.kind == "boolean"
