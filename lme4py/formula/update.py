"""A formula changed by another one, in which ``.`` stands for what was there (as R's `update`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from lme4py.errors import FormulaError
from lme4py.formula.deparse import deparse, walk
from lme4py.formula.nodes import Argument, Bar, Binary, Call, Formula, Name, Node, Paren, Terms, Unary
from lme4py.formula.parse import parse_formula
from lme4py.formula.syntax import parse_expression, read_formula
from lme4py.formula.terms import bar_in, expand, term_label

__all__ = ["update_formula"]


def update_formula(old: Formula, change: str) -> tuple[str, tuple[str, ...]]:
    """The text of a changed formula.

    Parameters
    ----------
    old : Formula
    change : str
        A formula in which ``.`` is the old response on the left of the tilde, and all old terms on its right; without
        a left side the response stays. Random-effects terms are added with ``+ (x | g)`` and removed with
        ``- (x | g)``; a product such as ``. * z`` multiplies the fixed terms only.

    Returns
    -------
    text : str
        Fixed terms in R's order, then offsets, then random-effects terms.
    notes : tuple of str
        About terms that were to be removed and did not exist.

    Examples
    --------
    >>> old = parse_formula("Reaction ~ Days + (Days | Subject)")
    >>> update_formula(old, "~ . - Days")[0]
    'Reaction ~ 1 + (Days | Subject)'
    >>> update_formula(old, "log(.) ~ . + I(Days^2) - (Days | Subject) + (1 | Subject)")[0]
    'log(Reaction) ~ Days + I(Days^2) + (1 | Subject)'
    """
    if not isinstance(change, str):
        raise FormulaError(f"the formula is of type {type(change).__name__}; give a text such as '. ~ . + x'")
    tree = read_formula(change)
    if isinstance(tree, Unary) and tree.operator == "~":
        left, right = "", tree.operand
    elif isinstance(tree, Binary) and tree.operator == "~":
        left, right = deparse(_substituted(tree.left, _response(old))), tree.right
    else:
        raise FormulaError("the formula has no `~`; write '~ . + x' to add a term", change, *tree.span)
    response = left or deparse(_response(old))
    if isinstance(right, Binary) and right.operator in ("|", "||"):
        # R reads a bar without parentheses as the loosest operator.
        right = Paren(right, span=right.span)
    bars = _Bars(old, change)
    fixed = [f"{sign} ({deparse(node)})" for sign, node in _fixed_items(right, old, bars)]
    # Only bars: the intercept that every formula has.
    text = " ".join(fixed).removeprefix("+ ") or "1"
    expansion = expand(parse_expression(text), text)
    parts = [_terms_text(expansion.terms), *bars.texts()]
    return f"{response} ~ {' + '.join(parts)}", expansion.notes


def _response(old: Formula) -> Node:
    if old.response is None:
        raise FormulaError("the old formula has no response")
    return old.response


def _is_dot(node: Node) -> bool:
    return isinstance(node, Name) and node.name == "." and not node.quoted


def _substituted(node: Node, by: Node) -> Node:
    """`node` with ``.`` replaced wherever it stands."""
    if _is_dot(node):
        return by
    if isinstance(node, Binary):
        return replace(node, left=_substituted(node.left, by), right=_substituted(node.right, by))
    if isinstance(node, Unary):
        return replace(node, operand=_substituted(node.operand, by))
    if isinstance(node, Paren):
        return replace(node, inner=_substituted(node.inner, by))
    if isinstance(node, Call):
        return replace(node, arguments=tuple(Argument(a.name, _substituted(a.value, by)) for a in node.arguments))
    return node


def _signed(node: Node, sign: str = "+") -> Iterator[tuple[str, Node]]:
    """The summands of an expression with their signs, parentheses around sums opened."""
    other = "-" if sign == "+" else "+"
    if isinstance(node, Binary) and node.operator in ("+", "-"):
        yield from _signed(node.left, sign)
        yield from _signed(node.right, sign if node.operator == "+" else other)
    elif isinstance(node, Unary) and node.operator in ("+", "-"):
        yield from _signed(node.operand, sign if node.operator == "+" else other)
    elif isinstance(node, Paren) and bar_in(node) is None:
        yield from _signed(node.inner, sign)
    else:
        yield sign, node


def _fixed_items(right: Node, old: Formula, bars: _Bars) -> list[tuple[str, Node]]:
    """Summands without bars, ``.`` replaced by the old fixed terms; bars go to `bars`."""
    fixed = parse_expression(f"({_terms_text(old.fixed)})")
    items = []
    for sign, node in _signed(right):
        if bar_in(node) is not None:
            bars.change(sign, node)
            continue
        if any(_is_dot(part) for part in walk(node)):
            bars.keep_old(sign)
        items.append((sign, _substituted(node, fixed)))
    return items


def _terms_text(terms: Terms) -> str:
    """Fixed terms and offsets as text."""
    labels = [term_label(terms, term) for term in terms.terms]
    labels += [f"offset({deparse(offset)})" for offset in terms.offsets]
    if not terms.intercept:
        labels.insert(0, "0")
    elif not terms.terms:
        labels.insert(0, "1")
    return " + ".join(labels)


@dataclass(frozen=True)
class _Term:
    """A random-effects term as it is written, and the bars that it stands for."""

    text: str
    bars: tuple[Bar, ...]

    @property
    def keys(self) -> tuple[object, ...]:
        return tuple(bar.key for bar in self.bars)


def _read_term(node: Node) -> _Term:
    text = deparse(node)
    return _Term(text, parse_formula(f"`response of update()` ~ 1 + {text}").bars)


class _Bars:
    """The random-effects terms of the new formula."""

    def __init__(self, old: Formula, change: str) -> None:
        right = read_formula(old.text)
        right = right.right if isinstance(right, Binary) else right
        if isinstance(right, Binary) and right.operator in ("|", "||"):
            right = Paren(right)
        self.old = [_read_term(node) for _, node in _signed(right) if bar_in(node) is not None]
        self.change_text = change
        self.terms: list[_Term] = []

    def texts(self) -> list[str]:
        return [term.text for term in self.terms]

    def keep_old(self, sign: str) -> None:
        for term in self.old:
            self._add(term) if sign == "+" else self._remove(term, None)

    def change(self, sign: str, node: Node) -> None:
        term = _read_term(node)
        self._add(term) if sign == "+" else self._remove(term, node)

    def _add(self, term: _Term) -> None:
        known = {key for other in self.terms for key in other.keys}
        if not known.issuperset(term.keys):
            self.terms.append(term)

    def _remove(self, term: _Term, node: Node | None) -> None:
        wanted = set(term.keys)
        known = {key for other in self.terms for key in other.keys}
        if not wanted <= known:
            present = ", ".join(self.texts()) or "none"
            raise FormulaError(
                f"there is no random-effects term `{term.text}` to remove; there are {present}",
                self.change_text,
                *(node.span if node is not None else (0, 1)),
            )
        kept = []
        for other in self.terms:
            left = [bar for bar, key in zip(other.bars, other.keys, strict=True) if key not in wanted]
            if len(left) == len(other.bars):
                kept.append(other)
            else:
                kept += [_Term(bar.label, (bar,)) for bar in left]
        self.terms = kept
