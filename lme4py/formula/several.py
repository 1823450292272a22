"""Formulas with several responses, ``mvbind(y1, y2) ~ x + (1 | id)``, as formulas of rows with one response each.

Every column left or right of a bar becomes one column for each response: it is multiplied by the factor that tells the
responses apart, which has no contrasts. The terms of the long formula are those of the wide one in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from lme4py.errors import FormulaError
from lme4py.formula.deparse import deparse, names_in, walk
from lme4py.formula.nodes import Bar, Binary, Call, FixedTerm, Formula, Name, Node, Terms
from lme4py.formula.syntax import read_formula

__all__ = ["RESPONSE", "SeveralResponses", "long_formula", "refuse_several", "several_responses"]

FUNCTION: Final = "mvbind"
RESPONSE: Final = "response"
"""Column that tells the responses of a row apart."""


@dataclass(frozen=True, slots=True)
class SeveralResponses:
    """What stands left of the tilde.

    Attributes
    ----------
    text : str
        ``"mvbind(y1, y2)"``.
    nodes : tuple of Node
    labels : tuple of str
        The text of each, or the name that it was given.
    """

    text: str
    nodes: tuple[Node, ...]
    labels: tuple[str, ...]


def is_several(response: Node | None) -> bool:
    """Whether the response of a formula is ``mvbind(...)``."""
    return isinstance(response, Call) and response.function == FUNCTION


def refuse_several(response: Node | None, text: str) -> None:
    """Refuse several responses where a model has one.

    Parameters
    ----------
    response : Node or None
    text : str
        The formula.

    Raises
    ------
    FormulaError
    """
    if response is not None and is_several(response):
        raise FormulaError(
            "mvbind() of several responses is for lmer() and glmer(); this model has one response",
            text,
            *response.span,
        )


def several_responses(parsed: Formula) -> SeveralResponses | None:
    """The responses of a formula; None where it has one.

    Parameters
    ----------
    parsed : Formula

    Raises
    ------
    FormulaError
        Fewer than two, or one that occurs twice or in the terms.

    Examples
    --------
    >>> from lme4py.formula.parse import parse_formula
    >>> several_responses(parse_formula("mvbind(y1, log(y2)) ~ x + (1 | id)")).labels
    ('y1', 'log(y2)')
    """
    response = parsed.response
    if not isinstance(response, Call) or response.function != FUNCTION:
        return None
    nodes = tuple(argument.value for argument in response.arguments)
    if len(nodes) < 2:
        raise FormulaError("mvbind() takes two responses or more; write one without it", parsed.text, *response.span)
    labels = tuple(argument.name or _text(argument.value) for argument in response.arguments)
    for i, label in enumerate(labels):
        if label in labels[:i]:
            raise FormulaError(f"mvbind() has the response {label} twice", parsed.text, *nodes[i].span)
        if ": " in label:
            raise FormulaError(
                f"the response {label} needs a name without ': ', which coefficients are told apart by; write "
                "mvbind(a = ..., b = ...)",
                parsed.text,
                *nodes[i].span,
            )
    used = {name for node in _all_nodes(parsed) for name in names_in(node)}
    for node in nodes:
        own = set(names_in(node)) & used
        if own:
            raise FormulaError(
                f"{sorted(own)[0]} is a response, and stands on the right of the tilde too", parsed.text, *node.span
            )
    return SeveralResponses(deparse(response), nodes, labels)


def _text(node: Node) -> str:
    return node.name if isinstance(node, Name) else deparse(node)


def _all_nodes(parsed: Formula) -> list[Node]:
    bars = [node for bar in parsed.bars for node in (*bar.terms.variables, *bar.group)]
    return [*parsed.fixed.variables, *parsed.fixed.offsets, *bars]


def long_formula(parsed: Formula, responses: SeveralResponses, is_factor: Callable[[Node], bool]) -> Formula:
    """The formula of the rows with one response each.

    Parameters
    ----------
    parsed : Formula
        As it was written.
    responses : SeveralResponses
    is_factor : callable
        Whether a variable is a factor, which the coding of a formula without an intercept depends on.

    Returns
    -------
    Formula
        Its response is the column called as `SeveralResponses.text`.

    Raises
    ------
    FormulaError
        A variable that is called "response", or a covariance structure of times or places.
    """
    for node in _all_nodes(parsed):
        if RESPONSE in names_in(node):
            raise FormulaError(
                f"a column of a model with several responses cannot be called {RESPONSE!r}, which tells them apart; "
                "rename it",
                parsed.text,
                *node.span,
            )
    double = _double_bars(read_formula(parsed.text))
    return replace(
        parsed,
        response=Name(responses.text, True),
        fixed=_long_terms(parsed.fixed, is_factor),
        bars=tuple(_long_bar(bar, double, is_factor) for bar in parsed.bars),
    )


def _double_bars(tree: Node) -> Sequence[tuple[int, int]]:
    """Where ``||`` stands."""
    return [node.span for node in walk(tree) if isinstance(node, Binary) and node.operator == "||"]


def _long_bar(bar: Bar, double: Sequence[tuple[int, int]], is_factor: Callable[[Node], bool]) -> Bar:
    start, end = bar.span
    independent = any(start <= a and b <= end for a, b in double)
    structure = "diag" if independent and bar.structure == "us" else bar.structure
    return replace(bar, terms=_long_terms(bar.terms, is_factor), structure=structure)


def _long_terms(terms: Terms, is_factor: Callable[[Node], bool]) -> Terms:
    """Every term times the responses; the intercept becomes one for each of them."""
    first = _without_contrasts(terms, is_factor)
    own = [FixedTerm((0, *(v + 1 for v in term.variables))) for term in terms.terms]
    coding = [
        (False, *(flag and (i, j) != first for j, flag in enumerate(flags))) for i, flags in enumerate(terms.coding)
    ]
    if terms.intercept:
        own, coding = [FixedTerm((0,)), *own], [(False,), *coding]
    return Terms((Name(RESPONSE), *terms.variables), tuple(own), tuple(coding), False, terms.offsets)


def _without_contrasts(terms: Terms, is_factor: Callable[[Node], bool]) -> tuple[int, int] | None:
    """Term and place of the factor that takes over the role of an intercept that there is not."""
    if terms.intercept:
        return None
    for i, term in enumerate(terms.terms):
        for j, v in enumerate(term.variables):
            if is_factor(terms.variables[v]):
                return i, j
    return None
