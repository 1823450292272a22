"""The algebra of terms: what `a * b - a` and its relatives mean (as R's `terms.formula`)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Final, Literal, NoReturn

from lme4py.errors import FormulaError
from lme4py.formula.deparse import deparse, walk
from lme4py.formula.functions import KNOWN_FUNCTIONS
from lme4py.formula.nodes import Argument, Binary, Call, FixedTerm, Name, Node, Number, Paren, Terms, Text, Unary
from lme4py.formula.syntax import TERM_OPERATORS

__all__ = ["MAX_TERMS", "Expansion", "Structured", "bar_in", "expand", "single_terms", "term_label"]

MAX_TERMS: Final = 20_000
_MAX_STEPS: Final = 4_000_000
_MAX_DEGREES: Final = 200_000
# Names of functions that are covariance structures too: around a bar they are these.
_BOTH: Final = frozenset({"exp"})

_RESERVED: Final = frozenset(("TRUE", "FALSE", "NULL", "NA", "NaN", "Inf"))

Place = Literal["sum", "minus", "product"]
# A set of terms in order of appearance. A term is the set of its variables, as bits of an integer.
TermSet = dict[int, None]


@dataclass(frozen=True, slots=True)
class Expansion:
    """Fixed terms, the bars that stood among them (not yet read), and remarks for the user."""

    terms: Terms
    bars: tuple[Node, ...]
    notes: tuple[str, ...]


def expand(
    node: Node,
    text: str,
    *,
    dot: Sequence[str] | None = None,
    response: Node | None = None,
    allow_bars: bool = True,
) -> Expansion:
    """Expand the right-hand side of a formula.

    Parameters
    ----------
    node : Node
        What stands on the right of the tilde, or on the left of a bar.
    text : str
        The whole formula, for messages.
    dot : sequence of str, optional
        The columns that ``.`` stands for.
    response : Node, optional
        Must not occur as a term.
    allow_bars : bool
        False on the left of a bar.

    Returns
    -------
    Expansion
        In `Expansion.terms` are only variables that some term uses (R also keeps the removed ones), in the
        order of first appearance in the formula, removed ones counted. `Terms.coding` is R's "factors"
        attribute: it takes no notice of a missing intercept. Where there is none, the first term that is a
        single factor gets one column per level (the parser cannot know which variables are factors, so the
        design applies that rule).
    """
    expander = _Expander(text, dot, response, allow_bars)
    masks = expander.encode(node, True, "sum")
    return Expansion(expander.finish(masks), tuple(expander.bars), tuple(expander.notes))


def term_label(terms: Terms, term: FixedTerm) -> str:
    """Return R's label of a term: ``"Days:cond"``.

    Parameters
    ----------
    terms : Terms
    term : FixedTerm
        One of ``terms.terms``.
    """
    return ":".join([deparse(terms.variables[index]) for index in term.variables])


def single_terms(terms: Terms) -> list[Terms]:
    """Return each term alone and without intercept, as ``||`` needs them: ``0 + x``, ``0 + x:f``."""
    pieces = []
    for term in terms.terms:
        variables = tuple([terms.variables[index] for index in term.variables])
        alone = FixedTerm(tuple(range(len(variables))))
        pieces.append(Terms(variables, (alone,), _coding([alone.variables]), False))
    return pieces


@dataclass(frozen=True, slots=True)
class Structured:
    """A bar, the name of the covariance structure around it, and what else stands in the call."""

    bar: Binary
    structure: str
    options: tuple[Argument, ...] = ()


def bar_in(node: Node) -> Structured | None:
    """Return the bar of ``(x | g)``, or of any call around one such as ``ar1(0 + t | g)``, else None.

    Which structures there are is not known here; functions of the formula language are none.
    """
    structure, inner = "us", node
    options: tuple[Argument, ...] = ()
    if isinstance(node, Call):
        if (
            (node.function in KNOWN_FUNCTIONS and node.function not in _BOTH)
            or not node.arguments
            or node.arguments[0].name is not None
        ):
            return None
        structure, options, inner = node.function, node.arguments[1:], node.arguments[0].value
    while isinstance(inner, Paren):
        inner = inner.inner
    is_bar = isinstance(inner, Binary) and inner.operator in ("|", "||") and inner is not node
    return Structured(inner, structure, options) if is_bar and isinstance(inner, Binary) else None


def _coding(terms: Iterable[tuple[int, ...]]) -> tuple[tuple[bool, ...], ...]:
    """True where a factor gets contrasts: what is left of the term without it lies within an earlier term.

    Terms come by degree, so an earlier term that holds the rest is the rest itself or has one variable more.
    """
    covered: set[tuple[int, ...]] = {()}
    coding = []
    for term in terms:
        rests = [term[:i] + term[i + 1 :] for i in range(len(term))]
        coding.append(tuple([rest in covered for rest in rests]))
        covered.add(term)
        covered.update(rests)
    return tuple(coding)


def _members(mask: int) -> tuple[int, ...]:
    """Positions of the bits of `mask`, ascending."""
    members = []
    while mask:
        lowest = mask & -mask
        members.append(lowest.bit_length() - 1)
        mask ^= lowest
    return tuple(members)


class _Expander:
    """State of one expansion: variables seen so far, intercept, offsets, bars.

    As in R, 0 and 1 switch the intercept wherever they stand, and a minus turns their meaning round; apart
    from that they are empty sets of terms.
    """

    def __init__(self, text: str, dot: Sequence[str] | None, response: Node | None, allow_bars: bool) -> None:
        self.text = text
        self.dot = dot
        self.response = response
        self.allow_bars = allow_bars
        self.variables: dict[Node, int] = {}
        self.offsets: dict[Node, None] = {}
        self.bars: list[Node] = []
        self.notes: dict[str, None] = {}
        self.intercept = True
        self.steps = 0
        self.dot_terms: TermSet | None = None

    def fail(self, message: str, node: Node) -> NoReturn:
        raise FormulaError(message, self.text, *node.span)

    def encode(self, node: Node, plus: bool, place: Place) -> TermSet:
        """Return the terms of `node`; `plus` is False under an odd number of minus signs."""
        # Chains lean to the left and may be long, so they are walked down and up again without recursion.
        chain: list[tuple[Binary, Place]] = []
        while isinstance(node, Binary) and node.operator in TERM_OPERATORS:
            chain.append((node, place))
            if node.operator not in "+-":
                place = "product"
            node = node.left
        masks = self.leaf(node, plus, place)
        for link, around in reversed(chain):
            masks = self.combine(link, masks, plus, around)
            self.check_size(masks, link)
        return masks

    def check_size(self, masks: TermSet, node: Node, steps: int = 0) -> None:
        """Refuse what would take very long: the time of an expansion is limited, whatever the formula."""
        self.steps += steps
        if len(masks) > MAX_TERMS:
            self.fail(f"the formula has more than {MAX_TERMS} terms; use fewer variables or a lower power", node)
        if self.steps > _MAX_STEPS:
            self.fail("the formula has too many interactions; use fewer variables or a lower power", node)

    def combine(self, node: Binary, left: TermSet, plus: bool, place: Place) -> TermSet:
        operator = node.operator
        if operator == "+":
            left.update(self.encode(node.right, plus, place))
            return left
        if operator == "-":
            return self.remove(left, node.right, plus)
        if operator == "^":
            return self.power(left, node)
        right = self.encode(node.right, plus, "product")
        # R forgets the variable of `1:x` and `1 * x` without a word; `x * 1` and `x/1` it reads as `x`.
        if not left or not (right or operator in "*/"):
            message = f"`{operator}` needs a variable on both sides; leave 0, 1 and removed terms out of it"
            self.fail(message, node)
        if operator == "*":
            product = self.product(left, right, node)
            return left | right | product
        if operator == ":":
            return self.product(left, right, node)
        if operator == "/":
            self.check_size(left, node, steps=len(left))
            return left | self.product({reduce(or_, left): None}, right, node)
        return self.product(left, {reduce(or_, right): None}, node)

    def product(self, left: TermSet, right: TermSet, node: Node) -> TermSet:
        self.check_size(left, node, steps=len(left) * (len(right) + 1))
        result: TermSet = {}
        for a in left if right else ():
            result.update(dict.fromkeys([a | b for b in right]))
            self.check_size(result, node)
        return result

    def remove(self, left: TermSet, node: Node, plus: bool) -> TermSet:
        right = self.encode(node, not plus, "minus")
        before = len(left)
        for mask in right:
            left.pop(mask, None)
        if right and len(left) == before:
            self.notes[f"`- {deparse(node)}` removes nothing: the formula has no such term before it."] = None
        return left

    def power(self, left: TermSet, node: Binary) -> TermSet:
        exponent = node.right
        if not isinstance(exponent, Number) or exponent.value < 1 or exponent.value % 1:
            message = "the power of terms must be a whole number such as `(a + b)^2`; for arithmetic write `I(x^p)`"
            self.fail(message, exponent)
        base = left
        if exponent.value > 1 and len(base) == 1 and next(iter(base)).bit_count() == 1:
            power = deparse(node)
            self.notes[f"`{power}` means only `{deparse(node.left)}`; for the power write `I({power})`."] = None
        for _ in range(int(min(exponent.value, MAX_TERMS)) - 1):
            size = len(left)
            left = self.product(left, base, node)
            # Once no term is new, higher powers add nothing.
            if len(left) == size:
                break
        return left

    def leaf(self, node: Node, plus: bool, place: Place) -> TermSet:
        if isinstance(node, Paren):
            return self.bar(node, place) if bar_in(node) else self.encode(node.inner, plus, place)
        if isinstance(node, Unary) and node.operator in "+-":
            if node.operator == "+":
                return self.encode(node.operand, plus, place)
            return self.remove({}, node.operand, plus)
        if isinstance(node, Number):
            return self.number(node, plus)
        if isinstance(node, Call):
            return self.call(node, place)
        if isinstance(node, Name) and not node.quoted:
            if node.name == ".":
                return self.columns(node)
            if node.name in _RESERVED:
                self.fail(f"`{node.name}` is not a term; write `1` for an intercept, `0` for none", node)
        if isinstance(node, Text):
            self.fail("a text is not a term; write a column's name without quotes or in backquotes", node)
        return self.variable(node)

    def number(self, node: Number, plus: bool) -> TermSet:
        if node.value not in (0.0, 1.0):
            number = deparse(node)
            self.fail(f"{number} is not a term: only 0 and 1 are; for arithmetic write `I(x + {number})`", node)
        self.intercept = (node.value == 1.0) == plus
        return {}

    def columns(self, node: Name) -> TermSet:
        if self.dot is None:
            self.fail("`.` stands for all columns of the data and cannot be used here; name the columns", node)
        self.check_size({}, node, steps=4 * len(self.dot))
        if self.dot_terms is None:
            names = [Name(name, True, span=node.span) for name in self.dot]
            positions = [self.variables.setdefault(name, len(self.variables)) for name in names]
            self.dot_terms = {1 << position: None for position in positions}
        return dict(self.dot_terms)

    def call(self, node: Call, place: Place) -> TermSet:
        if bar_in(node):
            return self.bar(node, place)
        if node.function == "offset":
            return self.offset(node, place)
        return self.variable(node)

    def offset(self, node: Call, place: Place) -> TermSet:
        if len(node.arguments) != 1:
            self.fail("`offset()` takes one expression; write `offset(log(time))`", node)
        value = node.arguments[0].value
        if place == "product":
            self.fail("an offset has no coefficient, so it has no interactions; add it with `+`", node)
        if not self.allow_bars:
            self.fail("an offset cannot stand in a random-effects term; add it to the fixed terms with `+`", node)
        self.check_inside(value)
        if place == "sum":
            self.offsets[value] = None
        elif self.offsets.pop(value, self) is self:
            negative = f"offset(-{deparse(Paren(value))})"
            self.fail(f"there is no such offset to remove; to subtract it write `{negative}`", node)
        return {}

    def bar(self, node: Node, place: Place) -> TermSet:
        shown = deparse(node)
        if not self.allow_bars:
            self.fail(f"the random-effects term `{shown}` stands within another one; join them with `+`", node)
        if place == "minus":
            self.fail(f"the random-effects term `{shown}` cannot be subtracted; leave it out of the formula", node)
        if place == "product":
            self.fail(f"the random-effects term `{shown}` has no interactions; add it with `+`", node)
        self.bars.append(node)
        return {}

    def variable(self, node: Node) -> TermSet:
        self.check_inside(node)
        if node == self.response:
            self.fail(f"the response `{deparse(node)}` is also a term on the right; remove it there", node)
        return {1 << self.variables.setdefault(node, len(self.variables)): None}

    def check_inside(self, node: Node) -> None:
        for part in walk(node):
            if isinstance(part, Name) and part.name == "." and not part.quoted:
                self.fail("`.` is a term of its own and cannot stand inside an expression; name the column", part)

    def finish(self, masks: TermSet) -> Terms:
        """Sort by degree, drop variables that no term uses, and number the others anew."""
        members = sorted(map(_members, masks), key=len)
        if sum(map(len, members)) > _MAX_DEGREES:
            raise FormulaError("the formula has too many large interactions; use fewer variables")
        used = set().union(*members)
        position: dict[int, int] = {}
        variables: list[Node] = []
        for node, index in self.variables.items():
            if index in used:
                position[index] = len(variables)
                variables.append(node)
        terms = [tuple([position[index] for index in term]) for term in members]
        fixed = tuple([FixedTerm(term) for term in terms])
        return Terms(tuple(variables), fixed, _coding(terms), self.intercept, tuple(self.offsets))
