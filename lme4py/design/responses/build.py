"""The design of several responses: long rows, made inside of wide data."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from lme4py.covariance import find_structure
from lme4py.data.beside import beside
from lme4py.data.frame import Frame, missing_rows, read_frame
from lme4py.design.beside.given import column_getter
from lme4py.design.build import formula_design, read_formula
from lme4py.design.design import Design
from lme4py.design.fixed import name_of
from lme4py.design.random import grouping_factor
from lme4py.design.residual.reader import reader_of
from lme4py.design.residual.text import ResidualText
from lme4py.design.responses.responses import UNIT, BoundResponses
from lme4py.design.rows import NaAction
from lme4py.design.smooths import has_smooths
from lme4py.errors import DataError, FormulaError, OptionError, did_you_mean
from lme4py.formula.deparse import deparse, names_in
from lme4py.formula.evaluate import evaluate
from lme4py.formula.nodes import Binary, Formula, Name, Node, Paren
from lme4py.formula.several import RESPONSE, long_formula, several_responses
from lme4py.formula.syntax import parse_expression
from lme4py.formula.tokens import CONSTANTS

_BOUND: Final = re.compile(r"\s*mvbind\s*\(")

__all__ = ["Occasion", "has_several", "read_occasion", "several_design", "unit_of"]


def has_several(formula: object) -> bool:
    """Whether the text of a formula binds several responses together.

    Parameters
    ----------
    formula : object
        What was given as the formula.

    Examples
    --------
    >>> has_several("mvbind(y1, y2) ~ x + (1 | id)"), has_several("y ~ x + (1 | id)")
    (True, False)
    """
    return isinstance(formula, str) and _BOUND.match(formula) is not None


@dataclass(frozen=True)
class Occasion:
    """The unit whose residuals are correlated across the responses.

    Attributes
    ----------
    nodes : tuple of Node
        Factors whose combination it is.
    counted : bool
        Whether it is the row of the data.
    """

    nodes: tuple[Node, ...]
    counted: bool


def read_occasion(occasion: str | None, names: Sequence[str]) -> Occasion:
    """What `occasion` says.

    Parameters
    ----------
    occasion : str or None
        A column, or factors as in ``"id:visit"`` and ``"id/visit"``; None is the row of the data.
    names : sequence of str
        Columns of the data.

    Raises
    ------
    OptionError
    """
    if occasion is None:
        unit = UNIT if UNIT not in names else f".{UNIT}"
        return Occasion((Name(unit, True),), True)
    if not isinstance(occasion, str):
        raise OptionError(
            f"`occasion` is of type {type(occasion).__name__}; give the name of the column whose values are the units "
            "that the responses belong to."
        )
    if occasion in names:
        return Occasion((Name(occasion, True),), False)
    found = _factors(parse_expression(occasion), occasion)
    for node in found:
        if node.name not in names:
            hint = did_you_mean(node.name, names)
            raise OptionError(f"occasion={occasion!r} names {node.name!r}, which is no column of the data.{hint}")
    return Occasion(found, False)


def _factors(node: Node, text: str) -> tuple[Name, ...]:
    if isinstance(node, Paren):
        return _factors(node.inner, text)
    if isinstance(node, Binary) and node.operator in (":", "/"):
        return (*_factors(node.left, text), *_factors(node.right, text))
    if not isinstance(node, Name):
        raise OptionError(f"occasion={text!r}: {deparse(node)} is no column; write 'id:visit' for a combination.")
    return (node,)


def several_design(
    formula: str,
    data: Any,
    occasion: str | None,
    *,
    weights: Any = None,
    contrasts: Mapping[str, Any] | None = None,
    na_action: NaAction = "omit",
    functions: Mapping[str, Callable[..., Any]] | None = None,
    binary: Sequence[str] = (),
    require_random: bool = False,
) -> tuple[Design, Occasion]:
    """The design of a formula with several responses, and their unit.

    Parameters
    ----------
    formula : str
    data : data frame
        Wide: a column for each response.
    occasion : str or None
        See `read_occasion`.
    weights, contrasts, na_action, functions
        As in `lformula`.
    binary : sequence of str
        Responses that may have two levels, the second of which is 1.
    require_random : bool
        Refuse a formula without a random-effects term.

    Raises
    ------
    FormulaError, DataError, OptionError
    """
    frame = read_frame(data)
    parsed = read_formula(formula, frame.names)
    several = several_responses(parsed)
    if several is None:
        raise FormulaError(f"the formula '{formula}' has one response; write mvbind(y1, y2) ~ x + (1 | id)")
    _refuse_terms(parsed)
    unit = read_occasion(occasion, frame.names)
    own = functions or {}
    name = name_of(unit.nodes[0]) if unit.counted else ""
    responses = BoundResponses(several, parsed, frame.names, name, dict(own), {}, frozenset(binary))
    whole = long_formula(parsed, several, lambda node: _is_factor(node, frame, own))
    _refuse_empty(responses, frame)
    if weights is not None and not isinstance(weights, str):
        weights = np.repeat(beside(weights, "weights", frame).values, len(several.labels))
    design = formula_design(
        whole,
        responses.long(frame),
        weights=weights,
        contrasts=contrasts,
        na_action=na_action,
        functions=functions,
        require_random=require_random,
        beside=unit.nodes,
        responses=responses,
    )
    _refuse_unobserved(design, responses)
    return replace(design, response_name=several.text), unit


def _refuse_terms(parsed: Formula) -> None:
    """Refuse what has no meaning for several responses."""
    if parsed.fixed.offsets:
        raise FormulaError(
            "an offset() belongs to one response, and the formula has several; subtract it from a response, as in "
            "mvbind(I(y1 - z), y2)"
        )
    if has_smooths(parsed):
        raise FormulaError(
            "smooths are not there for models with several responses; use ns(x, df = 4) or poly(x, 3), or fit a model "
            "to each response"
        )
    for bar in parsed.bars:
        kind = find_structure(bar.structure)
        if kind.takes_positions != "nothing":
            raise FormulaError(
                f"{bar.label}: {kind.name}() of times or places is not there for models with several responses; their "
                "random effects are unstructured over the responses, or diag(), cs(), homcs(), rr()",
                parsed.text,
                *bar.span,
            )


def _is_factor(node: Node, frame: Frame, functions: Mapping[str, Callable[..., Any]]) -> bool:
    columns = {name: frame.column(name) for name in names_in(node, frame.names)}
    present = ~missing_rows(columns.values(), frame.n_rows)
    if not present.any():
        return False
    get = column_getter({name: column.take(present) for name, column in columns.items()})
    return evaluate(node, get, {}, functions=functions).kind not in ("numeric", "matrix")


def _refuse_empty(responses: BoundResponses, frame: Frame) -> None:
    for node in responses.several.nodes:
        for name in set(names_in(node)) - {*frame.names, *CONSTANTS}:
            # The frame writes the error, with its suggestions.
            frame.column(name)
    for label, values in zip(responses.labels, responses.wide(frame).T, strict=True):
        if not np.isfinite(values).any():
            raise DataError(f"the response {label!r} has no value that is not missing; leave it out of mvbind()")


def _refuse_unobserved(design: Design, responses: BoundResponses) -> None:
    """Refuse a response all of whose rows miss another variable."""
    levels = (design.columns or {})[RESPONSE]
    seen = np.bincount(levels.values, minlength=len(responses.labels))
    for label, count in zip(responses.labels, seen.tolist(), strict=True):
        if not count:
            raise DataError(
                f"no row with the response {label!r} is complete: each has a missing value in another variable of the "
                "model"
            )


def unit_of(design: Design, unit: Occasion) -> tuple[ResidualText, str]:
    """The residual side of the long rows, and a note on the unit, or "".

    An occasion that is numbered within the groups of the model stands for its combination with these.

    Parameters
    ----------
    design : Design
    unit : Occasion

    Raises
    ------
    DataError
        A unit has a response twice.
    """
    nodes, note = unit.nodes, ""
    if _is_repeated(design, nodes):
        groups = [bar.group for bar in design.recipe.bars]
        wider = (tuple(dict.fromkeys([*group, *nodes])) for group in groups)
        nodes = next((own for own in wider if not _is_repeated(design, own)), nodes)
        if nodes is not unit.nodes:
            note = f"Occasions {_words(unit.nodes)} are numbered within groups: the unit is {_words(nodes)}."
        else:
            raise DataError(
                f"occasion={_words(unit.nodes)!r}: a unit has a response more than once; name the units so that they "
                "are told apart, as in occasion='id:visit', or leave occasion= out where a row is a unit"
            )
    _refuse_apart(design, nodes)
    text = f"us({RESPONSE} | {_words(nodes)})"
    return ResidualText(text, find_structure("us"), (Name(RESPONSE),), (), nodes, {}), note


def _words(nodes: Sequence[Node]) -> str:
    return ":".join(map(name_of, nodes))


def _codes(design: Design, nodes: Sequence[Node]) -> Any:
    read = reader_of(design)
    return grouping_factor([name_of(node) for node in nodes], [read(node) for node in nodes])[1].astype(np.intp)


def _responses_of_rows(design: Design) -> Any:
    return (design.columns or {})[RESPONSE].values.astype(np.intp)


def _is_repeated(design: Design, nodes: Sequence[Node]) -> bool:
    key = np.column_stack([_codes(design, nodes), _responses_of_rows(design)])
    return len(np.unique(key, axis=0)) < len(key)


def _refuse_apart(design: Design, nodes: Sequence[Node]) -> None:
    """Refuse responses that no unit has both of: nothing is known about their residual covariance."""
    labels = design.responses.labels if design.responses else ()
    codes = _codes(design, nodes)
    seen = np.zeros((int(codes.max()) + 1, len(labels)))
    seen[codes, _responses_of_rows(design)] = 1.0
    apart = np.argwhere(np.triu(seen.T @ seen == 0.0))
    if apart.size:
        a, b = (labels[i] for i in apart[0])
        raise DataError(
            f"{a} and {b} are never observed in the same {_words(nodes)}, so that nothing is known about the "
            "covariance of their residuals; occasion= names the column of the units that responses belong to, where "
            "these are not the rows of the data"
        )
