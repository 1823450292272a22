"""Formula text to tokens."""

from __future__ import annotations

import re
import unicodedata
from typing import Final, NamedTuple

from lme4py.errors import FormulaError

__all__ = ["CONSTANTS", "MAX_LENGTH", "SPELLINGS", "Token", "is_plain_name", "tokenize", "unquote"]

MAX_LENGTH: Final = 100_000

_CONTRASTS: Final = ("contr.treatment", "contr.sum", "contr.helmert", "contr.poly", "contr.SAS")
CONSTANTS: Final = frozenset(("pi", "TRUE", "FALSE", "T", "F", "NA", "NULL", "Inf", "NaN", *_CONTRASTS))
"""Names that mean a value and not a column, unless the data have such a column."""

SPELLINGS: Final = {"True": "TRUE", "False": "FALSE", "None": "NULL"}
"""Python's constants, read as R's."""

KEYWORDS: Final = frozenset(("function", "lambda", "if", "else", "for", "while"))
"""Words of programs: taken as a column only in backquotes."""


class Token(NamedTuple):
    """One word of a formula; `kind` is name, quoted, number, string, operator or end."""

    kind: str
    text: str
    start: int
    end: int


_TOKEN: Final = re.compile(
    r"""(?P<space>\s+)
    |(?P<number>(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?L?)
    |(?P<name>[^\W\d][\w.]*|\.(?!\d)[\w.]*)
    |(?P<quoted>`(?:[^`\\]|\\.)*`)
    |(?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    |(?P<operator><<-|->>|<-|->|:=|:::?|\|>|\*\*|==|!=|<=|>=|&&|\|\||%[^%\s]*%|[-+*/^:~!<>&|(),=])
    |(?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)

_PLAIN: Final = re.compile(r"(?:[^\W\d]|\.(?!\d))[\w.]*")

_ASSIGN: Final = "a formula assigns nothing; for the comparison with a negative number put a space between `<` and `-`"
_BLOCK: Final = "a formula holds one expression; compute such a column before and use its name"
_REFUSED: Final = {
    "<-": _ASSIGN,
    "<<-": _ASSIGN,
    "->": "a formula assigns nothing; write `response ~ terms`",
    "->>": "a formula assigns nothing; write `response ~ terms`",
    ":=": "a formula assigns nothing; name an argument with `=`, compare with `==`",
    "::": "write the function without its package: `poly(x, 2)`, not `stats::poly(x, 2)`",
    ":::": "write the function without its package: `poly(x, 2)`, not `stats::poly(x, 2)`",
    "|>": "pipes are not possible in a formula; write `f(x)`",
    "[": "indexing is not possible in a formula; make a column first",
    "]": "indexing is not possible in a formula; make a column first",
    "{": _BLOCK,
    "}": _BLOCK,
    ";": _BLOCK,
    "$": "write only the name of the column: `x`, not `data$x`",
    "@": "write only the name of the column: `x`, not `data@x`",
    "\\": "functions cannot be defined in a formula; compute such a column before and use its name",
    "#": "comments are not possible in a formula; remove it, or write the name in backquotes",
    "%": "an operator like `%in%` needs a percent sign on both sides",
    "?": "remove it, or write the name in backquotes",
    '"': 'the text is not closed; add the second `"`',
    "'": "the text is not closed; add the second `'`",
    "`": "the name is not closed; add the second backquote",
    "\u201c": 'write straight quotes: `"`',
    "\u201d": 'write straight quotes: `"`',
    "\u2018": "write straight quotes: `'`",
    "\u2019": "write straight quotes: `'`",
    "\u2212": "this is not the minus of the keyboard; write `-`",
    "\u2013": "this is a dash; write `-`",
    "\u223c": "this is not the tilde of the keyboard; write `~`",
    "\u00d7": "write `*` for crossing and `:` for an interaction",
}
_SPECIALS: Final = frozenset(("%in%", "%%", "%/%"))
_ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", '"': '"', "'": "'", "`": "`"}


def tokenize(text: str) -> list[Token]:
    """Cut a formula into tokens; the last one has kind ``"end"``.

    Parameters
    ----------
    text : str
        At most 100,000 characters.

    Examples
    --------
    >>> [token.text for token in tokenize("y ~ x.1 + (1 | g)")]
    ['y', '~', 'x.1', '+', '(', '1', '|', 'g', ')', '']
    """
    if len(text) > MAX_LENGTH:
        message = f"the formula has {len(text)} characters; at most {MAX_LENGTH} are read, so use fewer terms"
        raise FormulaError(message)
    tokens: list[Token] = []
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup or "other"
        if kind == "space":
            continue
        token = Token(kind, match.group(), match.start(), match.end())
        if kind == "operator":
            _check_operator(token, text)
        elif kind == "name":
            _check_name(token, text)
        elif kind == "other":
            raise _unreadable(token, text)
        tokens.append(token)
    tokens.append(Token("end", "", len(text), len(text)))
    return tokens


def unquote(token: Token, text: str) -> str:
    """Return what stands between the quotes of a string or a backquoted name, escapes resolved."""
    body = token.text[1:-1]
    if "\\" in body:
        body = _unescape(body, token, text)
    if token.kind == "quoted":
        if not body:
            message = "the backquotes hold no name; write the name of a column"
            raise FormulaError(message, text, token.start, token.end)
        _refuse_dunder(body, token, text)
    return body


def is_plain_name(name: str) -> bool:
    """True where `name` can stand in a formula without backquotes.

    Examples
    --------
    >>> is_plain_name("Boundary.knots"), is_plain_name("body mass")
    (True, False)
    """
    if _PLAIN.fullmatch(name) is None or name in KEYWORDS or name in SPELLINGS:
        return False
    return name.isascii() or _is_clean(name)


def _is_clean(name: str) -> bool:
    """Letters of any script in composed form; nothing is normalised, so a look-alike is another name."""
    return unicodedata.is_normalized("NFC", name) and ("a" + name.replace(".", "_")).isidentifier()


def _check_operator(token: Token, text: str) -> None:
    advice = _REFUSED.get(token.text)
    if advice is None and token.text[0] == "%" and token.text not in _SPECIALS:
        advice = "the operators of this kind are %in%, %% and %/%"
    if advice is not None:
        raise FormulaError(f"`{token.text}` is not part of a formula: {advice}", text, token.start, token.end)


def _check_name(token: Token, text: str) -> None:
    name = token.text
    if name in KEYWORDS:
        message = f"`{name}` has no meaning in a formula; if it is a column, write it in backquotes"
        raise FormulaError(message, text, token.start, token.end)
    if "__" in name:
        _refuse_dunder(name, token, text)
    if not name.isascii() and not _is_clean(name):
        message = f"the name {name!r} has characters that a plain name cannot have; write it in backquotes"
        raise FormulaError(message, text, token.start, token.end)


def _refuse_dunder(name: str, token: Token, text: str) -> None:
    for part in name.split("."):
        if part.startswith("__") and part.endswith("__"):
            message = f"the name {name!r} is refused (two underscores at both ends); rename the column"
            raise FormulaError(message, text, token.start, token.end)


def _unescape(body: str, token: Token, text: str) -> str:
    def character(match: re.Match[str]) -> str:
        letter = match.group(1)
        if letter not in _ESCAPES:
            start = token.start + 1 + match.start()
            message = f"`\\{letter}` is not known in a text; for a backslash write two of them"
            raise FormulaError(message, text, start, start + 2)
        return _ESCAPES[letter]

    return re.sub(r"\\(.)", character, body, flags=re.DOTALL)


def _unreadable(token: Token, text: str) -> FormulaError:
    sign = token.text
    advice = _REFUSED.get(sign, "remove it, or write the name in backquotes")
    shown = f"`{sign}`" if sign.isprintable() else f"the character U+{ord(sign):04X}"
    return FormulaError(f"{shown} is not part of a formula: {advice}", text, token.start, token.end)
