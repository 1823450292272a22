"""Formula text to a syntax tree: R's expressions, read by operator precedence."""

from __future__ import annotations

from typing import Final

from lme4py.errors import FormulaError
from lme4py.formula.nodes import Argument, Binary, Call, Name, Node, Number, Paren, Text, Unary
from lme4py.formula.tokens import SPELLINGS, Token, tokenize, unquote

__all__ = [
    "COMPARISONS",
    "MAX_DEPTH",
    "POWERS",
    "PREFIX_POWERS",
    "TERM_OPERATORS",
    "parse_expression",
    "read_formula",
]

MAX_DEPTH: Final = 100
"""Deepest nesting: brackets in brackets, and operators in one variable. It keeps walks of the tree safe."""

POWERS: Final = {
    "~": 1,
    **dict.fromkeys(("|", "||"), 2),
    **dict.fromkeys(("&", "&&"), 3),
    **dict.fromkeys(("==", "!=", "<", "<=", ">", ">="), 5),
    **dict.fromkeys(("+", "-"), 6),
    **dict.fromkeys(("*", "/"), 7),
    **dict.fromkeys(("%in%", "%%", "%/%"), 8),
    ":": 9,
    **dict.fromkeys(("^", "**"), 11),
}
PREFIX_POWERS: Final = {"~": 1, "!": 4, "+": 10, "-": 10}
COMPARISONS: Final = frozenset(("==", "!=", "<", "<=", ">", ">="))
TERM_OPERATORS: Final = frozenset(("+", "-", "*", "/", ":", "^", "%in%"))
"""Operators that combine terms. Chains of them may be long: what reads them must not recurse to the left."""

# A token's text tells its kind: names and numbers never look like operators, quoted words keep their quotes.
_TOO_DEEP: Final = f"one variable has more than {MAX_DEPTH} nested operators; compute it as a column first"


def parse_expression(text: str) -> Node:
    """Read one expression.

    Parameters
    ----------
    text : str
        Such as ``"log(x + 1)"`` or ``"y ~ x"``.

    Returns
    -------
    Node

    Raises
    ------
    FormulaError
        With a caret under the offending part.

    Examples
    --------
    >>> parse_expression("2 * x")
    Binary(operator='*', left=Number(value=2.0), right=Name(name='x', quoted=False))
    """
    parser = _Parser(text)
    node = parser.whole()
    if parser.depth > MAX_DEPTH:
        raise FormulaError(_TOO_DEEP, text, 0, len(text))
    return node


def read_formula(text: str) -> Node:
    """Read a formula; unlike `parse_expression` it allows a long chain of terms.

    Parameters
    ----------
    text : str

    Returns
    -------
    Node
        A ``Binary("~", ...)`` or ``Unary("~", ...)`` where the text has a tilde.
    """
    return _Parser(text).whole()


class _Parser:
    """State of one reading: the tokens, the position, and the depth of the node that was read last."""

    def __init__(self, text: str) -> None:
        if not isinstance(text, str):
            raise FormulaError(f"a formula is a text such as 'y ~ x + (1 | g)', not {type(text).__name__}")
        self.text = text
        self.tokens = tokenize(text)
        self.at = 0
        self.nesting = 0
        self.brackets = 0
        self.tilde = False
        self.depth = 0

    def whole(self) -> Node:
        if self.tokens[0].kind == "end":
            raise self.error("the formula is empty; write `response ~ terms`", self.tokens[0])
        node = self.expression(0)
        if self.tokens[self.at].kind != "end":
            raise self.unexpected(self.tokens[self.at])
        return node

    def error(self, message: str, token: Token) -> FormulaError:
        return FormulaError(message, self.text, token.start, token.end)

    def expression(self, minimum: int) -> Node:
        """Read operands and the operators that bind tighter than `minimum` (Pratt's method)."""
        self.nesting += 1
        if self.nesting > MAX_DEPTH:
            message = f"the formula is nested more than {MAX_DEPTH} deep; compute parts of it as columns first"
            raise self.error(message, self.tokens[self.at])
        left = self.operand()
        depth = self.depth
        while True:
            token = self.tokens[self.at]
            power = POWERS.get(token.text, 0)
            if power <= minimum:
                break
            self.at += 1
            operator = "^" if token.text == "**" else token.text
            if operator == "~":
                self.check_tilde(token)
            # The power operator groups to the right, all others to the left.
            right = self.expression(power - 1 if operator == "^" else power)
            self.check_binary(token, operator, left_depth=depth)
            left = Binary(operator, left, right, span=(left.span[0], right.span[1]))
            depth = max(depth, self.depth) + 1
        self.depth = depth
        self.nesting -= 1
        return left

    def check_tilde(self, token: Token) -> None:
        if self.brackets:
            raise self.error("`~` cannot stand inside parentheses; write `response ~ terms`", token)
        if self.tilde:
            raise self.error("a formula has only one `~`; join the terms with `+`", token)
        self.tilde = True

    def check_binary(self, token: Token, operator: str, left_depth: int) -> None:
        """Refuse `a < b < c`, and trees that are too deep to be one variable."""
        if operator in TERM_OPERATORS:
            return
        # On the right of a tilde and on the left of a bar stand terms: these chains may be long.
        right = 0 if operator == "~" else self.depth
        left = 0 if operator in ("|", "||") else left_depth
        if max(left, right) >= MAX_DEPTH:
            raise self.error(_TOO_DEEP, token)
        if operator in COMPARISONS and self.tokens[self.at].text in COMPARISONS:
            raise self.error("comparisons cannot be chained; write `(a < b) & (b < c)`", self.tokens[self.at])

    def operand(self) -> Node:
        token = self.tokens[self.at]
        kind = token.kind
        self.at += 1
        self.depth = 1
        if kind == "name" or kind == "quoted":
            return self.name(token)
        if kind == "number":
            return self.number(token)
        if kind == "string":
            return Text(unquote(token, self.text), span=(token.start, token.end))
        if token.text == "(":
            return self.parenthesis(token)
        power = PREFIX_POWERS.get(token.text)
        if power is None or (token.text == "~" and self.at > 1):
            raise self.missing(token)
        return self.prefix(token, power)

    def prefix(self, token: Token, power: int) -> Node:
        if token.text == "~":
            self.tilde = True
        operand = self.expression(power)
        if token.text == "!" and self.depth >= MAX_DEPTH:
            raise self.error(_TOO_DEEP, token)
        self.depth += 1
        return Unary(token.text, operand, span=(token.start, operand.span[1]))

    def number(self, token: Token) -> Node:
        value = float(token.text.rstrip("L"))
        if value == float("inf"):
            raise self.error("the number is too large; write `Inf` for infinity", token)
        return Number(value, span=(token.start, token.end))

    def name(self, token: Token) -> Node:
        quoted = token.kind == "quoted"
        word = unquote(token, self.text) if quoted else token.text
        following = self.tokens[self.at]
        if following.text == "(":
            return self.call(word, token)
        if not quoted:
            word = SPELLINGS.get(word, word)
        return Name(word, quoted, span=(token.start, token.end))

    def parenthesis(self, opening: Token) -> Node:
        following = self.tokens[self.at]
        if following.text == ")":
            raise self.error("the parentheses are empty; write a term in them or remove them", following)
        self.brackets += 1
        inner = self.expression(0)
        closing = self.close(opening)
        self.brackets -= 1
        self.depth += 1
        return Paren(inner, span=(opening.start, closing.end))

    def close(self, opening: Token) -> Token:
        token = self.tokens[self.at]
        if token.kind == "end":
            raise self.error("this parenthesis is not closed; add `)`", opening)
        if token.text != ")":
            raise self.unexpected(token)
        self.at += 1
        return token

    def call(self, function: str, name: Token) -> Node:
        opening = self.tokens[self.at]
        self.at += 1
        self.brackets += 1
        arguments: list[Argument] = []
        depth = 0
        following = self.tokens[self.at]
        while following.text != ")" or arguments:
            arguments.append(self.argument(arguments))
            depth = max(depth, self.depth)
            if depth >= MAX_DEPTH:
                raise self.error(_TOO_DEEP, name)
            following = self.tokens[self.at]
            if following.text != ",":
                break
            self.at += 1
        closing = self.close(opening)
        self.brackets -= 1
        self.depth = depth + 1
        return Call(function, tuple(arguments), span=(name.start, closing.end))

    def argument(self, before: list[Argument]) -> Argument:
        token, following = self.tokens[self.at], self.tokens[min(self.at + 1, len(self.tokens) - 1)]
        if following.text != "=" or token.kind not in ("name", "quoted", "string"):
            return Argument(None, self.expression(0))
        self.at += 2
        name = token.text if token.kind == "name" else unquote(token, self.text)
        if any(argument.name == name for argument in before):
            raise self.error(f"the argument `{name}` is given twice; remove one", token)
        return Argument(name, self.expression(0))

    def missing(self, token: Token) -> FormulaError:
        """An operator, a closing sign or the end stands where an operand should."""
        before = self.tokens[self.at - 2] if self.at > 1 else None
        if token.text == "=":
            return self.unexpected(token)
        after = f" after `{before.text}`" if before is not None else " before it"
        if token.kind == "end":
            return self.error(f"the formula ends too early: something is missing{after}; add a term", token)
        if token.text in ("|", "||"):
            return self.error("nothing stands on the left of the bar; write `(1 | group)`", token)
        if before is not None and before.text in ("|", "||") and token.text == ")":
            return self.error("no grouping factor stands on the right of the bar; write `(1 | group)`", token)
        if token.text == ")" and before is None:
            return self.error("this parenthesis has no opening one; remove it", token)
        return self.error(f"`{token.text}` needs something{after}; add a term or remove it", token)

    def unexpected(self, token: Token) -> FormulaError:
        """A complete expression is followed by what cannot follow it."""
        if token.kind == "end":
            return self.error("the formula ends too early; add a term", token)
        if token.kind != "operator":
            return self.error(f"an operator is missing before `{token.text}`; join terms with `+`", token)
        advice = {
            ")": "this parenthesis has no opening one; remove it",
            "(": "an operator is missing before the parenthesis; join terms with `+`",
            ",": "a comma stands only between the arguments of a function; join terms with `+`",
            "=": "`=` only names an argument of a function; to compare write `==`",
            "!": "`!` needs an operator before it; to compare write `!=`",
            "~": "`~` cannot stand here; write `response ~ terms`",
        }
        return self.error(advice.get(token.text, f"`{token.text}` cannot stand here; remove it"), token)
