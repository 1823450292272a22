"""The syntax tree of a formula.

Nodes are frozen and hashable; `span` (character positions in the formula) takes no part in
comparisons, so two spellings of the same expression are the same variable.
"""

from __future__ import annotations

from dataclasses import dataclass, field

Span = tuple[int, int]
# What an option of a covariance structure can be.
OptionValue = int | float | str | bool


@dataclass(frozen=True, slots=True)
class Node:
    """Base of all nodes; `span` is (start, end) in the formula text."""

    span: Span = field(compare=False, repr=False, kw_only=True, default=(0, 0))


@dataclass(frozen=True, slots=True)
class Name(Node):
    """A column name or a known constant (`x`, `` `a b` ``, `pi`, `TRUE`)."""

    name: str
    quoted: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class Number(Node):
    value: float


@dataclass(frozen=True, slots=True)
class Text(Node):
    value: str


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of a call; `name` is None for a positional one."""

    name: str | None
    value: Node


@dataclass(frozen=True, slots=True)
class Call(Node):
    function: str
    arguments: tuple[Argument, ...]


@dataclass(frozen=True, slots=True)
class Unary(Node):
    operator: str  # "-", "+", "!", "~"
    operand: Node


@dataclass(frozen=True, slots=True)
class Binary(Node):
    operator: str  # + - * / : ^ %in% %% %/% == != < <= > >= & | || && ~   (** is read as ^)
    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class Paren(Node):
    inner: Node


@dataclass(frozen=True, slots=True)
class FixedTerm:
    """A product of variables; the empty product is the intercept (never listed: see `Terms.intercept`).

    `variables` are indices into `Terms.variables`, ascending (R's order inside a term).
    """

    variables: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Terms:
    """A right-hand side without bars, expanded as R's `terms.formula` does.

    Attributes
    ----------
    variables : tuple of Node
        Expressions in order of first appearance.
    terms : tuple of FixedTerm
        By degree, then by appearance (R's order).
    coding : tuple of tuple of bool
        Same shape as ``terms[i].variables``: True where a factor gets contrasts in that term, False where it gets
        one column per level (R's rule).
    intercept : bool
    offsets : tuple of Node
        Arguments of `offset()`.
    """

    variables: tuple[Node, ...]
    terms: tuple[FixedTerm, ...]
    coding: tuple[tuple[bool, ...], ...]
    intercept: bool
    offsets: tuple[Node, ...] = ()


@dataclass(frozen=True, slots=True)
class Bar:
    """One random-effects term after expansion of `||`, `/` and `*` in the grouping part.

    Attributes
    ----------
    terms : Terms
        Left of the bar.
    group : tuple of Node
        The variables whose interaction is the grouping factor (one for a plain factor), in the order of the label.
    structure : str
        Name of the covariance structure of the effects, as it is written: "us" where none is.
    label : str
        As the user would write it: ``(Days | Subject)``; shown in messages.
    options : tuple of (name, value)
        What else stands in the call of the structure, with "" for the name of an argument without one.
    tag : str
        The id of ``(1 | id | group)``: terms with one id are correlated, also those of other formulas of the model.
    """

    terms: Terms
    group: tuple[Node, ...]
    structure: str
    label: str
    options: tuple[tuple[str, OptionValue], ...] = ()
    tag: str = ""
    span: Span = field(compare=False, repr=False, kw_only=True, default=(0, 0))

    @property
    def key(self) -> tuple[object, ...]:
        """What makes two terms the same."""
        return self.terms, frozenset(self.group), self.structure, self.options


@dataclass(frozen=True, slots=True)
class Formula:
    """A mixed-model formula, read and expanded."""

    text: str
    response: Node | None
    fixed: Terms
    bars: tuple[Bar, ...]
    notes: tuple[str, ...] = ()
    # Before smooths were taken apart, where there are some.
    before: Formula | None = None
