"""Syntax tree back to text, spaced as R prints it, and walks over a tree."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Final

from lme4py.formula.nodes import Argument, Binary, Call, Name, Node, Number, Paren, Text, Unary
from lme4py.formula.syntax import POWERS, PREFIX_POWERS
from lme4py.formula.tokens import CONSTANTS, is_plain_name

__all__ = ["deparse", "names_in", "walk"]

_TIGHT: Final = frozenset(("/", ":", "^", "%%", "%/%"))
_ESCAPES: Final = {"\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def deparse(node: Node) -> str:
    """Write an expression as R does.

    Parameters
    ----------
    node : Node

    Returns
    -------
    str

    Examples
    --------
    >>> from lme4py.formula.syntax import parse_expression
    >>> deparse(parse_expression("poly( Days,3,raw=TRUE )"))
    'poly(Days, 3, raw = TRUE)'
    >>> deparse(parse_expression("I(Days / 2+1e5)"))
    'I(Days/2 + 1e+05)'
    """
    if isinstance(node, Name):
        return _name(node)
    if isinstance(node, Binary):
        return _binary(node)
    if isinstance(node, Call):
        function = node.function if is_plain_name(node.function) else _quote(node.function, "`")
        return f"{function}({', '.join([_argument(argument) for argument in node.arguments])})"
    if isinstance(node, Number):
        return _number(node.value)
    if isinstance(node, Paren):
        return f"({deparse(node.inner)})"
    if isinstance(node, Unary):
        return node.operator + _operand(node.operand, PREFIX_POWERS[node.operator])
    if isinstance(node, Text):
        return _quote(node.value, '"')
    raise TypeError(f"{type(node).__name__} is not a node of a formula")


def names_in(node: Node, known: Collection[str] = ()) -> tuple[str, ...]:
    """Return the names of the columns that an expression uses, each once, in order.

    Parameters
    ----------
    node : Node
    known : collection of str
        Columns that exist: one that is called like a constant (`T`, `pi`) counts as a column.

    Returns
    -------
    tuple of str

    Examples
    --------
    >>> from lme4py.formula.syntax import parse_expression
    >>> names_in(parse_expression("sin(2 * pi * Time) + log(x, base = b)"))
    ('Time', 'x', 'b')
    >>> names_in(parse_expression("C(arm, Sum)"))
    ('arm',)
    """
    found: dict[str, None] = {}
    for part in walk(node, contrasts=False):
        if isinstance(part, Name) and (part.quoted or part.name not in CONSTANTS or part.name in known):
            found[part.name] = None
    return tuple(found)


def walk(node: Node, *, contrasts: bool = True) -> Iterator[Node]:
    """Yield a node and all nodes below it, from left to right, without recursion.

    Without `contrasts`, the contrasts that C() names are passed over.
    """
    waiting = [node]
    while waiting:
        part = waiting.pop()
        yield part
        if isinstance(part, Binary):
            waiting += (part.right, part.left)
        elif isinstance(part, Call):
            arguments = part.arguments if contrasts or part.function != "C" else _coded(part)
            waiting += [argument.value for argument in reversed(arguments)]
        elif isinstance(part, Unary):
            waiting.append(part.operand)
        elif isinstance(part, Paren):
            waiting.append(part.inner)


def _coded(call: Call) -> Sequence[Argument]:
    """The argument of ``C(x, contr)`` that holds data: the first one that is not the contrasts."""
    named = [one for one in call.arguments if one.name is not None and not "contr".startswith(one.name)]
    positional = [one for one in call.arguments if one.name is None]
    return (named or positional)[:1]


def _name(node: Name) -> str:
    word = node.name
    if is_plain_name(word) and not (node.quoted and (word in CONSTANTS or word == ".")):
        return word
    return _quote(word, "`")


def _argument(argument: Argument) -> str:
    value = deparse(argument.value)
    if argument.name is None:
        return value
    return f"{argument.name if is_plain_name(argument.name) else _quote(argument.name, '`')} = {value}"


def _binary(node: Binary) -> str:
    """Write a chain of operators from its end: a formula may be a chain of thousands of terms."""
    pieces: list[str] = []
    left: Node = node
    power = 0
    while isinstance(left, Binary) and POWERS[left.operator] >= power:
        operator = left.operator
        power = POWERS[operator]
        # Equal powers group to the left, only those of `^` to the right.
        rightmost = operator == "^"
        pieces.append(_operand(left.right, power if rightmost else power + 1, right=True))
        pieces.append(operator if operator in _TIGHT else f" {operator} ")
        power += rightmost
        left = left.left
    pieces.append(_operand(left, power))
    return "".join(reversed(pieces))


def _operand(node: Node, power: int, right: bool = False) -> str:
    """Write an operand, in parentheses where it binds looser than `power`."""
    if isinstance(node, Binary):
        loose = POWERS[node.operator] < power
    else:
        # A sign on the right of an operator needs no parentheses: `a^-2`.
        loose = isinstance(node, Unary) and not right and PREFIX_POWERS[node.operator] < power
    return f"({deparse(node)})" if loose else deparse(node)


def _quote(text: str, mark: str) -> str:
    escapes = {**_ESCAPES, mark: "\\" + mark}
    return mark + "".join([escapes.get(letter, letter) for letter in text]) + mark


def _number(value: float) -> str:
    """Write the shorter of the fixed and the scientific spelling, as R; the fixed one if both are equal."""
    if value != value or value in (float("inf"), float("-inf")):
        return "NaN" if value != value else ("Inf" if value > 0 else "-Inf")
    mantissa, _, exponent = f"{value!r}".partition("e")
    sign = "-" if mantissa.startswith("-") else ""
    whole, _, fraction = mantissa.lstrip("-").partition(".")
    fraction = "" if fraction == "0" else fraction
    digits = (whole + fraction).lstrip("0")
    if not digits:
        return "0"
    # value = 0.d1d2d3... * 10^point
    point = len(whole) + int(exponent or 0) - (len(whole + fraction) - len(digits))
    digits = digits.rstrip("0")
    scientific = f"{digits[0]}{'.' if len(digits) > 1 else ''}{digits[1:]}e{point - 1:+03d}"
    if point <= 0:
        fixed = f"0.{'0' * -point}{digits}"
    else:
        fixed = digits[:point].ljust(point, "0") + ("." + digits[point:] if len(digits) > point else "")
    return sign + (fixed if len(fixed) <= len(scientific) else scientific)
