"""A formula as the user wrote it to response, fixed terms and random-effects terms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, NoReturn

from lme4py.errors import FormulaError
from lme4py.formula.deparse import deparse, names_in, walk
from lme4py.formula.nodes import (
    Argument,
    Bar,
    Binary,
    Call,
    Formula,
    Name,
    Node,
    Number,
    OptionValue,
    Paren,
    Terms,
    Text,
    Unary,
)
from lme4py.formula.syntax import read_formula
from lme4py.formula.terms import Expansion, Structured, bar_in, expand, single_terms, term_label
from lme4py.formula.tokens import CONSTANTS

__all__ = ["DOUBLE_BAR_NOTE", "parse_formula"]

DOUBLE_BAR_NOTE: Final = "`(f || g)` keeps the block of a factor; write `diag(f | g)` for independent columns."
_MAX_BARS: Final = 1_000
_NOT_GROUPS: Final = (CONSTANTS - {"T", "F"}) | {"."}
_WRITE: Final = "write `response ~ terms + (1 | group)`"
_LOGICAL: Final = {"TRUE": True, "FALSE": False, "True": True, "False": False}
Group = tuple[Node, ...]


def parse_formula(text: str, data_names: Sequence[str] | None = None) -> Formula:
    """Read a mixed-model formula.

    Parameters
    ----------
    text : str
        In the language of lme4: ``"Reaction ~ Days + (Days | Subject)"``. Without a bar it is the formula of
        a linear model.
    data_names : sequence of str, optional
        Columns of the data; needed where the formula has a ``.``.

    Returns
    -------
    Formula
        `Formula.notes` tells of a ``||``: whether it matters depends on the data (is there a factor?), so the
        design decides whether to show `DOUBLE_BAR_NOTE`. Bars that come from ``||`` have it in their label.

    Raises
    ------
    FormulaError
        With a caret under the offending part.

    Examples
    --------
    >>> formula = parse_formula("Reaction ~ Days + (Days || Subject)")
    >>> [bar.label for bar in formula.bars]
    ['(1 | Subject)', '(0 + Days || Subject)']
    """
    tree = read_formula(text)
    response, right = _sides(tree, text)
    notes: dict[str, None] = {}
    if isinstance(right, Binary) and right.operator in ("|", "||"):
        # R reads a bar without parentheses as the loosest operator: it takes the whole right-hand side.
        expansion = Expansion(Terms((), (), (), True), (right,), ())
        notes["The bar has no parentheses, so the whole right-hand side is one random-effects term."] = None
    else:
        expansion = expand(right, text, dot=_dot(response, data_names), response=response)
    notes.update(dict.fromkeys(expansion.notes))
    bars: list[Bar] = []
    for node in expansion.bars:
        bars += _Reader(text, node, response).bars(notes)
        if len(bars) > _MAX_BARS:
            raise FormulaError(f"the formula has more than {_MAX_BARS} random-effects terms", text, *node.span)
    _check_duplicates(bars, text)
    return Formula(text, response, expansion.terms, tuple(bars), tuple(notes))


def _sides(tree: Node, text: str) -> tuple[Node, Node]:
    """Split at the tilde."""
    if isinstance(tree, Unary) and tree.operator == "~":
        start = tree.span[0]
        raise FormulaError(f"the formula has no response on the left of `~`; {_WRITE}", text, start, start + 1)
    if not isinstance(tree, Binary) or tree.operator != "~":
        raise FormulaError(f"the formula has no `~`; {_WRITE}", text, *tree.span)
    response = tree.left
    for part in walk(response):
        if isinstance(part, Name) and part.name == "." and not part.quoted:
            raise FormulaError("`.` cannot be the response; name the column", text, *part.span)
    if not names_in(response) and not isinstance(response, Name):
        raise FormulaError("the response uses no column of the data; name one", text, *response.span)
    return response, tree.right


def _dot(response: Node, data_names: Sequence[str] | None) -> tuple[str, ...] | None:
    """Columns that ``.`` stands for: all that the response does not use."""
    if data_names is None:
        return None
    used = set(names_in(response, known=data_names))
    return tuple([name for name in data_names if name not in used])


def _check_duplicates(bars: list[Bar], text: str) -> None:
    seen = set()
    for bar in bars:
        key = bar.key
        if key in seen:
            message = f"the random-effects term `{bar.label}` occurs twice; remove one of them"
            raise FormulaError(message, text, *bar.span)
        seen.add(key)


@dataclass(frozen=True, slots=True)
class _Reader:
    """One random-effects term as written, and what its messages need."""

    text: str
    node: Node
    response: Node

    def fail(self, message: str, node: Node) -> NoReturn:
        raise FormulaError(message, self.text, *node.span)

    def bars(self, notes: dict[str, None]) -> list[Bar]:
        """Read the term: one `Bar` for each piece of ``||`` and each grouping factor of ``/`` and ``*``."""
        found = self.structured()
        bar = found.bar
        options = tuple([self.option(argument) for argument in found.options])
        double = bar.operator == "||"
        inner, tag = self.tagged(bar)
        if double and isinstance(self.node, Call):
            name = self.node.function
            self.fail(f"`{name}()` takes a single bar; write `{name}(x | g)`", self.node)
        terms = self.terms(inner, notes)
        groups = self.groups(bar.right)
        if double and terms.terms:
            notes[DOUBLE_BAR_NOTE] = None
        middle = f" {tag} |" if tag else ""
        pieces = self.pieces(terms) if double else [(terms, f"{deparse(inner)} |{middle}")]
        opening = f"{self.node.function}(" if isinstance(self.node, Call) else "("
        result = []
        for piece, left in pieces:
            for group in groups:
                label = f"{opening}{left} {':'.join(map(deparse, group))}{''.join(map(_written, options))})"
                result.append(Bar(piece, group, found.structure, label, options, tag, span=self.node.span))
        return result

    def tagged(self, bar: Binary) -> tuple[Node, str]:
        """What stands left of the bar, and the id of ``(1 | id | group)`` or ""."""
        inner = bar.left
        if not (bar.operator == "|" and isinstance(inner, Binary) and inner.operator == "|"):
            return inner, ""
        if not isinstance(inner.right, Name | Number):
            self.refuse_nested(inner)
        return inner.left, deparse(inner.right)

    def structured(self) -> Structured:
        found = bar_in(self.node)
        if found is not None:
            return found
        if isinstance(self.node, Binary):
            return Structured(self.node, "us")
        raise TypeError("not a random-effects term")

    def option(self, argument: Argument) -> tuple[str, OptionValue]:
        """The name ("" without one) and the value of a further argument."""
        value = argument.value
        if isinstance(value, Number):
            return argument.name or "", int(value.value) if value.value == int(value.value) else value.value
        if isinstance(value, Text):
            return argument.name or "", value.value
        if isinstance(value, Name) and value.name in _LOGICAL:
            return argument.name or "", _LOGICAL[value.name]
        return self.fail(f"`{deparse(value)}` cannot be an option; give a number, text, TRUE or FALSE", value)

    def terms(self, left: Node, notes: dict[str, None]) -> Terms:
        self.refuse_nested(left)
        expansion = expand(left, self.text, response=self.response, allow_bars=False)
        terms = expansion.terms
        if not terms.terms and not terms.intercept:
            self.fail("the random-effects term has no columns; write `(1 | group)` for an intercept", left)
        notes.update(dict.fromkeys(expansion.notes))
        return terms

    def pieces(self, terms: Terms) -> list[tuple[Terms, str]]:
        """Cut the terms of ``||`` apart, as lme4 does: the intercept, then each term without one."""
        pieces = [(Terms((), (), (), True), "1 |")] if terms.intercept else []
        for alone in single_terms(terms):
            pieces.append((alone, f"0 + {term_label(alone, alone.terms[0])} ||"))
        return pieces

    def refuse_nested(self, node: Node) -> None:
        if isinstance(node, Binary) and node.operator in ("|", "||"):
            self.fail(
                "a random-effects term has one bar; put each term in parentheses, joined with `+` (what stands between "
                "two bars is an id, which is a name: `(1 | id | group)`)",
                node,
            )

    def groups(self, node: Node) -> list[Group]:
        """Return the grouping factors, the innermost of a nesting first."""
        self.refuse_nested(node)
        if isinstance(node, Paren):
            return self.groups(node.inner)
        if isinstance(node, Binary) and node.operator in ("/", ":", "*", "+", "-", "^", "%in%"):
            return self.combined(node)
        if isinstance(node, (Number, Text, Unary)):
            self.fail("the grouping factor must be a column; write its name on the right of the bar", node)
        if isinstance(node, Name) and not node.quoted and node.name in _NOT_GROUPS:
            self.fail(f"`{node.name}` is not a grouping factor; write the name of a column", node)
        if node == self.response:
            self.fail(f"the response `{deparse(node)}` cannot be the grouping factor; name another column", node)
        return [(node,)]

    def combined(self, node: Binary) -> list[Group]:
        if node.operator == "+":
            self.fail(f"a bar has one grouping factor; write `{self.one_bar_each()}`", node)
        if node.operator not in "/:*":
            left, right = deparse(node.left), deparse(node.right)
            joined = f"`{left}`" if isinstance(node.right, Number) else f"`{left}:{right}` or `{left}/{right}`"
            self.fail(f"`{node.operator}` cannot join grouping factors; write {joined}", node)
        outer, inner = self.groups(node.left), self.groups(node.right)
        if node.operator == "/":
            around = _joined(*outer)
            groups = [_joined(group, around) for group in inner] + outer
        else:
            groups = [_joined(a, b) for a in outer for b in inner]
            groups = outer + inner + groups if node.operator == "*" else groups
        if len(groups) > _MAX_BARS:
            self.fail(f"the term has more than {_MAX_BARS} grouping factors; use fewer", node)
        return groups

    def one_bar_each(self) -> str:
        """The term with one bar for each grouping factor of a sum."""
        bar = self.structured().bar
        factors = _summands(bar.right)
        for factor in factors:
            self.groups(factor)
        opening = f"{self.node.function}(" if isinstance(self.node, Call) else "("
        start = f"{opening}{deparse(bar.left)} {bar.operator}"
        return " + ".join(f"{start} {name})" for name in dict.fromkeys(map(deparse, factors)))


def _summands(node: Node) -> list[Node]:
    """The grouping factors of a sum, also of sums inside nestings and interactions."""
    if isinstance(node, Paren):
        return _summands(node.inner)
    if not (isinstance(node, Binary) and node.operator in "+/:*"):
        return [node]
    left, right = _summands(node.left), _summands(node.right)
    if node.operator == "+":
        return left + right
    return [replace(node, left=a, right=b) for a in left for b in right]


def _written(option: tuple[str, OptionValue]) -> str:
    """An option as it stands behind the bar."""
    name, value = option
    text = str(value).upper() if isinstance(value, bool) else repr(value)
    return f", {name} = {text}" if name else f", {text}"


def _joined(*groups: Group) -> Group:
    """One interaction of several, each variable once."""
    return tuple(dict.fromkeys([node for group in groups for node in group]))
