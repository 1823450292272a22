"""Smooths of a formula, ``s(x)``, as what they are in a mixed model: fixed columns and a random term with one level."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from lme4py.errors import FormulaError, OptionError
from lme4py.formula.deparse import deparse
from lme4py.formula.nodes import Argument, Bar, Call, FixedTerm, Formula, Name, Node, Terms, Text
from lme4py.linalg.types import BoolArray

if TYPE_CHECKING:
    from lme4py.design.design import Design
    from lme4py.design.rows import UsedRows

__all__ = [
    "GROUP",
    "has_smooths",
    "is_smooth",
    "is_smooth_group",
    "refuse_smooth_design",
    "refuse_smooths",
    "smooth_columns",
    "with_smooths",
]

# The functions that stand for a smooth in a tree: its unpenalised and penalised columns, and the one level of its term.
FIXED, PENALISED, GROUP = "s", "s_penalised", "smooth_group"
_ARGUMENTS = ("x", "k", "bs", "m", "by")


def is_smooth(node: Node) -> bool:
    """Whether a variable of a formula is a part of a smooth.

    Parameters
    ----------
    node : Node
    """
    return isinstance(node, Call) and node.function in (FIXED, PENALISED)


def has_smooths(parsed: Formula) -> bool:
    """Whether the fixed part of a formula has smooths, those of several variables among them, which are refused later.

    Parameters
    ----------
    parsed : Formula
    """
    return any(is_smooth(node) or _is_surface(node) for node in parsed.fixed.variables)


def _is_surface(node: Node) -> bool:
    return isinstance(node, Call) and node.function in ("te", "ti", "t2")


def refuse_smooths(parsed: Formula, what: str) -> None:
    """Refuse smooths where a model cannot have them.

    Parameters
    ----------
    parsed : Formula
    what : str
        Which models, in the plural.

    Raises
    ------
    FormulaError
    """
    for node in parsed.fixed.variables:
        if is_smooth(node):
            raise FormulaError(
                f"smooths are not there for {what}; use ns(x, df = 4) or poly(x, 3)", parsed.text, *node.span
            )


def refuse_smooth_design(design: Design, what: str) -> None:
    """Refuse a design with smooths where a model cannot have them.

    Parameters
    ----------
    design : Design
    what : str
        Which models.

    Raises
    ------
    OptionError
    """
    if design.smooth_terms:
        raise OptionError(f"smooths are not there for {what}; use ns(x, df = 4) or poly(x, 3).")


def is_smooth_group(group: tuple[Node, ...]) -> bool:
    """Whether the grouping factor of a term is the one level of a smooth.

    Parameters
    ----------
    group : tuple of Node
    """
    return len(group) == 1 and isinstance(group[0], Call) and group[0].function == GROUP


def with_smooths(parsed: Formula, rows: UsedRows) -> Formula:
    """The formula with a random term for the penalised part of every smooth, one for each level of a factor ``by``.

    Parameters
    ----------
    parsed : Formula
    rows : UsedRows

    Raises
    ------
    FormulaError
        Smooths inside interactions or random effects, or two with one name.
    """
    for bar in parsed.bars:
        for node in bar.terms.variables:
            if is_smooth(node):
                raise FormulaError(
                    f"{deparse(node)} stands in {bar.label}; random effects have no smooths", parsed.text, *node.span
                )
    if not has_smooths(parsed):
        return parsed
    bars: list[Bar] = []
    empty: list[int] = []
    for place, node in enumerate(parsed.fixed.variables):
        if not is_smooth(node) or not isinstance(node, Call):
            continue
        for term in parsed.fixed.terms:
            if place in term.variables and len(term.variables) > 1:
                raise FormulaError(
                    f"{deparse(node)} is part of an interaction; write s(x, by = f) for a smooth of each level",
                    parsed.text,
                    *node.span,
                )
        bars += _bars(node, rows, parsed.text)
        if _named(node).get("bs") == Text("cc"):
            empty.append(place)
    labels = [bar.label for bar in bars]
    twice = next((label for i, label in enumerate(labels) if label in labels[:i]), None)
    if twice is not None:
        raise FormulaError(f"the formula has {twice} twice; one smooth of a variable is enough", parsed.text)
    return replace(parsed, fixed=_without(parsed.fixed, empty), bars=(*parsed.bars, *bars))


def _named(node: Call) -> dict[str, Node]:
    """Arguments of a smooth by name."""
    given = {argument.name: argument.value for argument in node.arguments if argument.name is not None}
    free = (name for name in _ARGUMENTS if name not in given)
    positional = (argument.value for argument in node.arguments if argument.name is None)
    return given | dict(zip(free, positional, strict=False))


def _bars(node: Call, rows: UsedRows, text: str) -> list[Bar]:
    named = _named(node)
    x, by = named.get("x"), named.get("by")
    if x is None:
        raise FormulaError("s() needs a variable, as s(x)", text, *node.span)
    name = f"s({deparse(x)})"
    if by is None:
        return [_bar(node, x, name)]
    if not isinstance(by, Name):
        raise FormulaError("by = takes a column; make one of what it is computed from", text, *node.span)
    column = rows.column(by.name)
    if column.kind == "numeric":
        return [_bar(node, x, f"{name}:{by.name}")]
    used = np.unique(np.asarray(column.values)[np.asarray(column.values) >= 0])
    levels = [str(column.levels[int(i)]) for i in used]
    return [_bar(node, x, f"{name}:{by.name}{level}", level) for level in levels]


def _bar(node: Call, x: Node, label: str, level: str | None = None) -> Bar:
    more = () if level is None else (Argument("level", Text(level)),)
    columns = Call(PENALISED, (*node.arguments, *more), span=node.span)
    group = Call(GROUP, (Argument(None, x), Argument(None, Text(label))), span=node.span)
    terms = Terms((columns,), (FixedTerm((0,)),), ((False,),), False)
    return Bar(terms, (group,), "homdiag", label, span=node.span)


def _without(fixed: Terms, places: list[int]) -> Terms:
    """The fixed part without the terms of smooths that have no unpenalised columns."""
    kept = [i for i, term in enumerate(fixed.terms) if not any(place in term.variables for place in places)]
    return replace(fixed, terms=tuple(fixed.terms[i] for i in kept), coding=tuple(fixed.coding[i] for i in kept))


def smooth_columns(design: Design) -> BoolArray:
    """Which columns of X are the unpenalised ones of smooths, (p,).

    Parameters
    ----------
    design : Design
    """
    fixed = design.recipe.formula.fixed
    smooth = [any(is_smooth(fixed.variables[v]) for v in term.variables) for term in fixed.terms]
    return np.array([place > 0 and smooth[place - 1] for place in design.assign], dtype=bool)
