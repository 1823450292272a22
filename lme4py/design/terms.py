"""The random-effects terms of a formula on the rows that a model uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lme4py.covariance import CovarianceStructure, find_structure
from lme4py.covariance.registry import plain_structure
from lme4py.design.beside.related import Relations, level_variance, related
from lme4py.design.coding import Variable, matrix_columns, model_columns, stack_columns
from lme4py.design.design import Design, FloatArray, RandomTerm
from lme4py.design.fixed import FixedPart, make_variables, name_of, used_variables
from lme4py.design.names import ColumnNames
from lme4py.design.places import learn_places
from lme4py.design.random import Grouping, check_levels, grouping_factor, shared_columns, term_order
from lme4py.design.recipe import BarRecipe
from lme4py.design.rows import UsedRows
from lme4py.design.smooths import is_smooth_bar, is_smooth_group, smooth_structure
from lme4py.errors import DesignError, FormulaError, OptionError
from lme4py.formula.nodes import Bar, Formula, Node
from lme4py.formula.values import Value, check_finite

__all__ = ["check_structure", "join_terms", "random_terms"]


def random_terms(
    parsed: Formula,
    values: Mapping[Node, Value],
    rows: UsedRows,
    fixed: FixedPart,
    names: ColumnNames,
    relations: Relations,
    state: dict[str, Any],
) -> tuple[tuple[RandomTerm, ...], tuple[BarRecipe, ...]]:
    """The terms in lme4's order, checked, and how to replay them.

    Parameters
    ----------
    parsed : Formula
    values : dict of Node to Value
    rows : UsedRows
    fixed : FixedPart
        Whose columns the terms share where they can.
    names : ColumnNames
    relations : Relations
        Known covariances of levels by grouping factor.
    state : dict
        What functions learnt from the training data.
    """
    groups: dict[tuple[Node, ...], tuple[Grouping, NDArray[np.intp]]] = {}
    built = []
    for bar in parsed.bars:
        check_structure(bar, parsed.text)
    for bar in parsed.bars:
        if bar.group not in groups:
            found = grouping_factor([name_of(v) for v in bar.group], [values[v] for v in bar.group])
            groups[bar.group] = related(*found, relations)
        term, recipe = _random_term(bar, *groups[bar.group], values, rows, fixed, state)
        if recipe.places is None:
            names.add(recipe.terms, recipe.variables, bar.label)
        built.append((term, recipe))
    order = term_order([term.n_levels for term, _ in built])
    for term, recipe in (built[i] for i in order):
        # One field of places has correlations to learn from.
        if recipe.places is None and not is_smooth_group(recipe.group):
            check_levels(recipe.grouping, term.label)
    return tuple(built[i][0] for i in order), tuple(built[i][1] for i in order)


def join_terms(design: Design) -> Design:
    """The design with one term for all those that have one id, as in ``(1 | id | group)``.

    Parameters
    ----------
    design : Design

    Returns
    -------
    Design

    Raises
    ------
    FormulaError
        Terms with one id have other groups, or a covariance structure that cannot be joined.
    """
    bars = design.recipe.bars
    tags = dict.fromkeys(bar.tag for bar in bars if bar.tag)
    if not tags:
        return design
    terms: list[RandomTerm | None] = list(design.terms)
    recipes = list(bars)
    for tag in tags:
        own = [i for i, bar in enumerate(bars) if bar.tag == tag]
        first, *others = own
        terms[first] = _joined([design.terms[i] for i in own], tag)
        recipes[first] = replace(bars[first], n_columns=sum(bars[i].n_columns for i in own), joined=_parts(bars, own))
        for i in others:
            terms[i] = None
    kept = [i for i, term in enumerate(terms) if term is not None]
    recipe = replace(design.recipe, bars=tuple(recipes[i] for i in kept))
    return replace(design.with_terms([term for term in terms if term is not None]), recipe=recipe)


def _parts(bars: Sequence[BarRecipe], own: Sequence[int]) -> tuple[BarRecipe, ...]:
    return tuple(bars[i] for i in own) if len(own) > 1 else ()


def _joined(terms: Sequence[RandomTerm], tag: str) -> RandomTerm:
    first = terms[0]
    if len(terms) == 1:
        return first
    names = ", ".join(term.label for term in terms)
    if len({term.group for term in terms}) > 1:
        raise FormulaError(f"the terms of the id {tag} ({names}) have different groups; give each its own id")
    kinds = {type(term.structure) for term in terms}
    if len(kinds) > 1 or first.structure.name not in ("us", "diag"):
        raise FormulaError(f"the terms of the id {tag} ({names}) cannot be joined; write them without a structure")
    columns = tuple(name for term in terms for name in term.columns)
    twice = next((name for i, name in enumerate(columns) if name in columns[:i]), None)
    if twice is not None:
        raise FormulaError(f"the terms of the id {tag} ({names}) have the column {twice} twice; leave one of them out")
    return replace(
        first,
        columns=columns,
        structure=type(first.structure).build(len(columns), None),
        label=" + ".join(term.label for term in terms),
        values=np.hstack([term.values for term in terms]),
        parts=tuple(part for term in terms for part in term.column_parts),
    )


def check_structure(bar: Bar, text: str) -> None:
    """Refuse a structure or an option that there is not, and show where it stands."""
    try:
        kind = find_structure(bar.structure)
        if "random" not in kind.sides:
            raise OptionError(f"{kind.name}() is a structure of residuals, not of random effects.")
        kind.refuse_options(_options(bar, kind))
    except OptionError as error:
        raise FormulaError(str(error), text, *bar.span) from None


def _options(bar: Bar, kind: type[CovarianceStructure]) -> dict[str, Any]:
    """Options by name; those without one are in the order of the structure's own."""
    given = [option for option in bar.options if not option[0]]
    named = {name: value for name, value in bar.options if name}
    free = [name for name in kind.options if name not in named]
    if len(given) > len(free):
        raise OptionError(f"{kind.name}() takes no argument {given[len(free)][1]!r} behind the bar.")
    return named | {name: value for name, (_, value) in zip(free, given, strict=False)}


def _placed_term(
    bar: Bar,
    kind: type[CovarianceStructure],
    grouping: Grouping,
    codes: NDArray[np.intp],
    values: Mapping[Node, Value],
    rows: UsedRows,
) -> tuple[RandomTerm, BarRecipe]:
    """A term with a column for each time or place."""
    # A level that does not occur is a time that was missed.
    whole = {name: column.levels for name, column in rows.columns.items()}
    places = learn_places(bar, kind, values, whole)
    structure = kind.build(len(places.names), places.positions, **_options(bar, kind))
    block = places.columns(values)
    term = _made(grouping, places.names, structure, bar, codes, block)
    return term, BarRecipe(bar.label, bar.terms, {}, bar.group, grouping, len(places.names), places, bar.tag)


def _random_term(
    bar: Bar,
    grouping: Grouping,
    codes: NDArray[np.intp],
    values: Mapping[Node, Value],
    rows: UsedRows,
    fixed: FixedPart,
    state: dict[str, Any],
) -> tuple[RandomTerm, BarRecipe]:
    kind = find_structure(bar.structure)
    if kind.takes_positions != "nothing":
        return _placed_term(bar, kind, grouping, codes, values, rows)
    nodes = used_variables(bar.terms)
    variables: dict[Node, Variable] = make_variables(nodes, values)
    names, _ = model_columns(bar.terms, variables)
    columns = matrix_columns(bar.terms, variables, {node: values[node].values for node in nodes})
    if not columns:
        raise DesignError(f"{bar.label} has no columns left of the bar; write (1 | group) or remove it")
    block = shared_columns(names, columns, fixed.X, fixed.names)
    if block is None:
        block = stack_columns(columns, rows.n, order="C")
        check_finite(block, names, f"column {{name}} of {bar.label}")
    made = smooth_structure(bar, state, len(names)) if is_smooth_bar(bar) else None
    options = _options(bar, kind)
    structure = made or (kind.build(len(names), None, **options) if options else plain_structure(kind, len(names)))
    if is_smooth_bar(bar):
        names = tuple(f"{bar.label}.{i}" for i in range(1, len(names) + 1))
    term = _made(grouping, names, structure, bar, codes, block)
    return term, BarRecipe(bar.label, bar.terms, variables, bar.group, grouping, len(names), tag=bar.tag)


def _made(
    grouping: Grouping,
    names: tuple[str, ...],
    structure: CovarianceStructure,
    bar: Bar,
    codes: NDArray[np.intp],
    block: FloatArray,
) -> RandomTerm:
    return RandomTerm(
        grouping.name,
        names,
        grouping.levels,
        structure,
        bar.label,
        codes,
        block,
        relation=grouping.relation,
        level_variance=level_variance(grouping, codes),
        smooth=is_smooth_bar(bar),
    )
