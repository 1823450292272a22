"""Smooths of a formula as what they are in a mixed model: fixed columns, and random terms of their penalties.

``s(x)`` is a term with one level and one variance; ``te(x, z)`` one whose variances follow from one parameter for each
variable; ``t2(x, z)`` a term for each of its penalties; ``s(x, g, bs = "fs")`` terms of the levels of g, and no fixed
columns.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lme4py.covariance import CovarianceStructure
from lme4py.covariance.kinds.penalties import Penalties
from lme4py.errors import FormulaError, OptionError
from lme4py.formula.deparse import deparse
from lme4py.formula.nodes import Argument, Bar, Call, FixedTerm, Formula, Name, Node, Number, Terms, Text
from lme4py.formula.smooth.columns import FACTOR_PARTS, SMOOTH_FUNCTIONS, plain_call
from lme4py.linalg.types import BoolArray

if TYPE_CHECKING:
    from lme4py.data.column import Column
    from lme4py.design.design import Design
    from lme4py.design.rows import UsedRows

__all__ = [
    "GROUP",
    "has_smooths",
    "is_smooth",
    "is_smooth_bar",
    "is_smooth_group",
    "level_of",
    "part_of",
    "refuse_smooth_design",
    "refuse_smooths",
    "smooth_columns",
    "smooth_structure",
    "variables_of",
    "with_smooths",
]

# The one level of the terms of smooths.
GROUP = "smooth_group"
_FACTOR = "s_level"


def is_smooth(node: Node) -> bool:
    """Whether a variable of a formula is a part of a smooth.

    Parameters
    ----------
    node : Node
    """
    return isinstance(node, Call) and node.function in SMOOTH_FUNCTIONS


def is_smooth_bar(bar: Bar) -> bool:
    """Whether a term holds the penalised columns of a smooth.

    Parameters
    ----------
    bar : Bar
    """
    return any(is_smooth(node) for node in bar.terms.variables)


def has_smooths(parsed: Formula) -> bool:
    """Whether the fixed part of a formula has smooths.

    Parameters
    ----------
    parsed : Formula
    """
    return any(is_smooth(node) for node in parsed.fixed.variables)


def variables_of(call: Call) -> tuple[Node, ...]:
    """What a smooth is a function of, without a factor whose levels have a curve each.

    Parameters
    ----------
    call : Call
    """
    return tuple(a.value for a in call.arguments if a.name in (None, "x") and not isinstance(a.value, Number))


def _text(call: Call, argument: str) -> str | None:
    return next((a.value.value for a in call.arguments if a.name == argument and isinstance(a.value, Text)), None)


def level_of(call: Call) -> str | None:
    """The level of a factor ``by`` that the penalised columns of a smooth are those of.

    Parameters
    ----------
    call : Call
    """
    return _text(call, "level")


def part_of(call: Call) -> str:
    """Which of the penalties of a smooth its penalised columns have.

    Parameters
    ----------
    call : Call
    """
    return _text(call, "part") or "all"


def smooth_structure(bar: Bar, state: dict[str, Any], n_columns: int) -> CovarianceStructure | None:
    """The covariance structure of a smooth with overlapping penalties; None where it has one variance.

    Parameters
    ----------
    bar : Bar
    state : dict
        What functions learnt from the training data.
    n_columns : int
    """
    call = bar.terms.variables[0]
    if not isinstance(call, Call) or not call.function.endswith("_penalised"):
        return None
    plain = plain_call(call)
    penalties = state[deparse(plain)].get("penalties", {}).get(part_of(call))
    if penalties is None or plain.function == "t2" or len(penalties) == 1:
        return None
    names = tuple(deparse(node) for node in variables_of(plain))
    return Penalties(n_columns, values=penalties, names=names)


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
    """The formula with random terms for the penalised parts of every smooth, for each level of a factor ``by``.

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
                    f"{deparse(node)} stands in {bar.label}; random effects have no smooths; a curve of each level "
                    'is s(x, g, bs = "fs")',
                    parsed.text,
                    *node.span,
                )
    if not has_smooths(parsed):
        return parsed
    bars: list[Bar] = []
    empty: list[int] = []
    random: list[Bar] = []
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
        if node.function == "s" and _bases(node, parsed.text, 1) == ["re"]:
            random.append(_random_bar(node, rows, parsed.text))
            empty.append(place)
            continue
        made, has_fixed = _bars(node, rows, parsed.text)
        bars += made
        if not has_fixed:
            empty.append(place)
    labels = [bar.label for bar in bars]
    twice = next((label for i, label in enumerate(labels) if label in labels[:i]), None)
    if twice is not None:
        raise FormulaError(f"the formula has {twice} twice; one smooth of a variable is enough", parsed.text)
    return replace(parsed, fixed=_without(parsed.fixed, empty), bars=(*parsed.bars, *random, *bars), before=parsed)


def _random_bar(node: Call, rows: UsedRows, text: str) -> Bar:
    """``s(g, bs = "re")`` is (1 | g), ``s(g, x, bs = "re")`` is (0 + x | g), ``s(g, h, bs = "re")`` is (1 | g:h)."""
    variables = variables_of(node)
    factors = [v for v in variables if isinstance(v, Name) and rows.column(v.name).is_factor]
    numbers = [v for v in variables if v not in factors]
    if not factors or len(numbers) > 1 or any(a.name not in (None, "x", "bs") for a in node.arguments):
        names = ", ".join(deparse(v) for v in variables)
        raise FormulaError(
            f'{deparse(node)}: bs = "re" takes factors, and one number for a slope, and no further arguments; store '
            f"numbers that name groups as text or a category, or write (1 | g) (got {names})",
            text,
            *node.span,
        )
    label = " : ".join(deparse(v) for v in factors).replace(" ", "")
    if numbers:
        terms = Terms((numbers[0],), (FixedTerm((0,)),), ((True,),), False)
        return Bar(terms, tuple(factors), "us", f"(0 + {deparse(numbers[0])} | {label})", span=node.span)
    return Bar(Terms((), (), (), True), tuple(factors), "us", f"(1 | {label})", span=node.span)


def _bars(node: Call, rows: UsedRows, text: str) -> tuple[list[Bar], bool]:
    """Terms of a smooth, and whether it has unpenalised columns."""
    variables = variables_of(node)
    bases = _bases(node, text, len(variables))
    if not variables:
        raise FormulaError(f"{node.function}() needs a variable, as {node.function}(x)", text, *node.span)
    if len(set(variables)) < len(variables):
        raise FormulaError(f"{deparse(node)} has a variable twice", text, *node.span)
    if bases == ["fs"]:
        return _factor_bars(node, rows, text), False
    _refuse_bases(node, bases, variables, text)
    name = f"{node.function}({','.join(deparse(v) for v in variables)})"
    levels, varies = _by(node, rows, text)
    parts = ["all"]
    if node.function == "t2":
        words = ["".join("rn"[i >> j & 1] for j in range(len(variables))) for i in range(2 ** len(variables) - 1)]
        parts = words if len(variables) > 1 else ["r"]
    bars = []
    for suffix, level in levels:
        for part in parts:
            own = f"{name}{suffix}" + (f":{part}" if len(parts) > 1 else "")
            bars.append(_bar(node, variables[0], own, level, part))
    cyclic = [kind == "cc" for kind in bases]
    if node.function == "ti":
        return bars, not any(cyclic)
    return bars, varies or not all(cyclic)


def _by(node: Call, rows: UsedRows, text: str) -> tuple[list[tuple[str, str | None]], bool]:
    """Ends of the labels and levels of the smooths of a call, and whether it is multiplied by numbers that vary."""
    by = next((a.value for a in node.arguments if a.name == "by"), None)
    if by is None:
        return [("", None)], False
    if not isinstance(by, Name):
        raise FormulaError("by = takes a column; make one of what it is computed from", text, *node.span)
    column = rows.column(by.name)
    if column.kind in ("numeric", "boolean"):
        return [(f":{by.name}", None)], bool(np.ptp(column.values) != 0.0)
    used = np.unique(np.asarray(column.values)[np.asarray(column.values) >= 0])
    levels = [str(column.levels[int(i)]) for i in used][_first_level(column) :]
    return [(f":{by.name}{level}", level) for level in levels], False


def _first_level(column: Column) -> int:
    """Of ordered levels the first one has no smooth: the others are differences to it, as in mgcv."""
    return int(column.kind == "ordered")


def _bases(node: Call, text: str, n: int) -> list[str]:
    """The bases of the variables of a smooth."""
    usual = "tp" if node.function == "s" else "cr"
    given = next((a.value for a in node.arguments if a.name == "bs"), Text(usual))
    if isinstance(given, Call) and given.function == "c":
        found = [a.value.value for a in given.arguments if isinstance(a.value, Text)]
    else:
        found = [given.value] if isinstance(given, Text) else []
    return found * n if len(found) == 1 and node.function != "s" else found


def _refuse_bases(node: Call, bases: list[str], variables: tuple[Node, ...], text: str) -> None:
    """Refuse what mgcv has and this package not, with what to write."""
    names = ", ".join(deparse(v) for v in variables)
    advice = {"re": "random effects are s(g, bs = 're'), or (1 | g)", "sz": 'write s(x, by = f), or s(x, g, bs = "fs")'}
    for kind, words in advice.items():
        if kind in bases:
            raise FormulaError(f'bs = "{kind}" is not there; {words}', text, *node.span)
    if node.function == "s" and len(variables) > 2:
        raise FormulaError(
            f"s({names}) of more than two variables is not there; write te({names}), whose smoothness may differ "
            "between them",
            text,
            *node.span,
        )


def _factor_bars(node: Call, rows: UsedRows, text: str) -> list[Bar]:
    """Terms of ``s(x, g, bs = "fs")``: curves, constants and lines of the levels of g, each with its variance."""
    kinds = {v: rows.column(v.name).is_factor if isinstance(v, Name) else False for v in variables_of(node)}
    factors = [v for v in kinds if kinds[v]]
    numbers = [v for v in kinds if not kinds[v]]
    if len(factors) != 1 or len(numbers) != 1:
        raise FormulaError(
            f'{deparse(node)}: bs = "fs" takes a number and a factor, as s(x, g, bs = "fs"); store numbers that name '
            "groups as text or a category",
            text,
            *node.span,
        )
    if any(a.name == "by" for a in node.arguments):
        raise FormulaError('bs = "fs" takes no by =; its factor is an argument', text, *node.span)
    basis = next((a.value for a in node.arguments if a.name == "xt"), Text("tp"))
    kept = tuple(a for a in node.arguments if a.name in ("k", "m"))
    call = Call(_FACTOR, (Argument(None, numbers[0]), *kept, Argument("bs", basis)), span=node.span)
    label = f"s({deparse(numbers[0])},{deparse(factors[0])})"
    parts = FACTOR_PARTS[:2] if basis == Text("cc") else FACTOR_PARTS
    return [
        replace(
            _bar(call, numbers[0], label if part == FACTOR_PARTS[0] else f"{label}:{part}", None, part, _FACTOR),
            group=(factors[0],),
        )
        for part in parts
    ]


def _bar(node: Call, x: Node, label: str, level: str | None, part: str, function: str = "") -> Bar:
    more = [Argument("part", Text(part))] + ([] if level is None else [Argument("level", Text(level))])
    columns = Call(function or f"{node.function}_penalised", (*node.arguments, *more), span=node.span)
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
