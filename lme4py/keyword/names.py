"""Column names and terms as pieces of a formula."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from lme4py.data.frame import Frame
from lme4py.errors import DataError, FormulaError, OptionError, did_you_mean
from lme4py.formula.deparse import deparse, names_in, walk
from lme4py.formula.nodes import Binary, Call, Name
from lme4py.formula.syntax import parse_expression

__all__ = ["as_list", "column", "is_categorical", "quote", "term"]

_JOINS = re.compile(r"([*:])")
_CONSTANTS = {"0": "0", "-1": "0", "1": "1"}
_AS_FACTOR = frozenset(("factor", "as.factor", "ordered", "C"))


def as_list(given: Any, argument: str) -> list[Any]:
    """What the user gave as a list: nothing for None, one entry for a text or a number.

    Parameters
    ----------
    given : None, str, or sequence of str
    argument : str
        Its name, for messages.
    """
    if given is None:
        return []
    if isinstance(given, str | int):
        return [given]
    if isinstance(given, set | frozenset | dict) or not hasattr(given, "__iter__"):
        raise OptionError(f"`{argument}` is of type {type(given).__name__}; give a column name or a list of them.")
    return list(given)


def quote(name: str) -> str:
    """A column name as a formula writes it: in backquotes where it is no plain name.

    Examples
    --------
    >>> quote("age"), quote("body mass (g)")
    ('age', '`body mass (g)`')
    """
    return deparse(Name(name, True))


def column(name: Any, frame: Frame, argument: str) -> str:
    """The name of a column that must exist.

    Parameters
    ----------
    name : str
    frame : Frame
    argument : str

    Raises
    ------
    DataError
    """
    text = _text(name, argument)
    if text not in frame:
        raise DataError(
            f"`{argument}` names {text!r}, which is no column of the data.{did_you_mean(text, frame.names)} "
            f"The columns are {_shortened(frame.names)}."
        )
    return text


def term(entry: Any, frame: Frame, argument: str) -> str:
    """One entry of `x_fixed` or `x_random`, or a response, as a piece of a formula.

    Parameters
    ----------
    entry : str
        A column name, whatever its characters; columns joined by ``:`` or ``*``; or an expression such as
        ``"log(x)"`` or ``"poly(x, 2)"``.
    frame : Frame
    argument : str

    Raises
    ------
    DataError
        A name that is no column.
    FormulaError
        An expression that cannot be read.
    """
    text = _text(entry, argument)
    if text in frame:
        return quote(text)
    if text.strip() in _CONSTANTS:
        return _CONSTANTS[text.strip()]
    parts = [part.strip() for part in _JOINS.split(text)]
    if len(parts) > 1 and all(part in frame for part in parts[::2]):
        return "".join(f" {part} " if part == "*" else part if part == ":" else quote(part) for part in parts)
    return _expression(text, frame, argument)


def _text(entry: Any, argument: str) -> str:
    if isinstance(entry, bool) or not isinstance(entry, str | int):
        raise OptionError(f"`{argument}` holds {entry!r}, of type {type(entry).__name__}; give column names as text.")
    if not str(entry).strip():
        raise OptionError(f"`{argument}` holds an empty name; give the name of a column.")
    return str(entry)


def _expression(text: str, frame: Frame, argument: str) -> str:
    if "#" in text or re.match(r"\s*[ic]b?\d*\.\w", text):
        raise DataError(
            f"`{argument}` holds {text!r}, which is no column of the data. Factors need no prefix (text and "
            "categorical columns are factors; write 'factor(x)' for a numeric one), interactions are 'a:b' or 'a*b'."
        )
    try:
        node = parse_expression(text)
    except FormulaError as error:
        message = f"`{argument}` holds {text!r}, which is neither a column nor an expression: {error.message}"
        raise FormulaError(message, error.formula, error.start, error.end) from None
    for part in walk(node):
        if isinstance(part, Binary) and part.operator in ("|", "||", "~"):
            raise OptionError(
                f"`{argument}` holds {text!r}; give column names, and the random effects by `group` and `x_random` "
                "(or use a formula with lmer and glmer)."
            )
    unknown = [name for name in names_in(node, frame.names) if name not in frame]
    if unknown:
        column(unknown[0], frame, argument)
    return deparse(node)


def is_categorical(entry: Any, frame: Frame) -> bool:
    """Is this entry one column of labels, or a column made a factor?"""
    text = str(entry)
    if text in frame:
        return frame.kind(text) in ("factor", "ordered", "text")
    try:
        node = parse_expression(text)
    except FormulaError:
        return False
    return isinstance(node, Call) and node.function in _AS_FACTOR


def _shortened(names: Sequence[str], most: int = 10) -> str:
    return ", ".join(names[:most]) + (f", ... ({len(names) - most} more)" if len(names) > most else "")
