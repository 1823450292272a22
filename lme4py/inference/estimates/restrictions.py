"""Linear hypotheses about the coefficients, R beta = r: from text, names, a dict, a matrix or a data frame.

Text is one hypothesis or several, separated by commas: ``"Days = 10"``, ``"a - b"`` (= 0), ``"2*a + b = c, a = 1"``.
The names are those of the coefficients, whatever their characters (``period[T.2]``, ``I(x^2)``); backquotes around one
are understood too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lme4py.data.beside import in_name_order
from lme4py.errors import OptionError, did_you_mean
from lme4py.linalg.types import FloatArray

__all__ = ["Hypotheses", "hypothesised", "linear_hypotheses", "restriction_matrix"]

_NUMBER = re.compile(r"(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_WORD = re.compile(r"[^\s+\-*/=,()]+")


@dataclass(frozen=True)
class Hypotheses:
    """Linear hypotheses R beta = r.

    Attributes
    ----------
    R : ndarray, shape (r, p)
    target : ndarray, shape (r,)
    labels : tuple of str, or None
        What the rows are called; None where they have no names.
    """

    R: FloatArray
    target: FloatArray
    labels: tuple[Any, ...] | None


def linear_hypotheses(names: Sequence[str], given: Any, value: Any = 0.0) -> Hypotheses:
    """Hypotheses as a user writes them, checked.

    Parameters
    ----------
    names : sequence of str
        Of the p coefficients.
    given : str, sequence of str, dict, array of shape (p,) or (r, p), or data frame
        Text as in `lme4py.inference.estimates.restrictions`; a dict from such text (without ``=``) to the value that it
        has under the hypothesis; or the matrix R, the columns of a data frame found by their names.
    value : float or array of shape (r,)
        The right-hand sides, where `given` has none.

    Raises
    ------
    OptionError

    Examples
    --------
    >>> found = linear_hypotheses(["Intercept", "Days"], "Days - 10 = 0")
    >>> found.R.tolist(), found.target.tolist()
    ([[0.0, 1.0]], [10.0])
    """
    _some(names)
    if isinstance(given, Mapping):
        texts, values = [str(text) for text in given], list(given.values())
        if not texts:
            raise OptionError("`restrictions` is an empty dict; give text and the value that it has.")
        if any("=" in text for text in texts):
            raise OptionError("a dict of restrictions holds the right-hand sides as its values; leave out the `=`.")
        if not (np.ndim(value) == 0 and value == 0):
            raise OptionError("a dict of restrictions has their right-hand sides as its values; leave `value` out.")
        value = values
        return _of_text(names, texts, value)
    if isinstance(given, str):
        return _of_text(names, _split(names, given), value)
    if not hasattr(given, "columns") and _all_text(given):
        return _of_text(names, list(given), value)
    R = restriction_matrix(names, given)
    labels = list(given.index) if hasattr(given, "columns") and hasattr(given, "index") else None
    target = np.broadcast_to(hypothesised(value, R.shape[0], labels), (R.shape[0],))
    return Hypotheses(R, target, None if labels is None else tuple(labels))


def restriction_matrix(names: Sequence[str], given: Any) -> FloatArray:
    """Names of coefficients, or a matrix with one column for each, as a checked matrix.

    Parameters
    ----------
    names : sequence of str
        Of the p coefficients.
    given : str, sequence of str, array of shape (p,) or (r, p), or data frame

    Returns
    -------
    ndarray, shape (r, p)
    """
    _some(names)
    if hasattr(given, "columns"):
        return _checked_matrix(names, _by_name(names, given))
    if isinstance(given, str) or _all_text(given):
        return linear_hypotheses(names, given).R
    row = in_name_order(given, names, "restrictions", "fixed effects", rest=0.0)
    return _checked_matrix(names, row)


def hypothesised(value: Any, rows: int, labels: Sequence[Any] | None = None) -> FloatArray:
    """The right-hand side of `rows` linear hypotheses, a scalar or shape (rows,), checked.

    Parameters
    ----------
    value : float or array of shape (rows,)
        A Series with labels is matched by them with `labels`.
    rows : int
    labels : sequence, optional
        Names of the hypotheses.
    """
    named = in_name_order(value, range(rows) if labels is None else labels, "value", "hypotheses")
    try:
        target = np.asarray(named, dtype=np.float64)
    except (TypeError, ValueError):
        raise OptionError(f"`value` is {value!r}; give a number, or one for each of the {rows} row(s).") from None
    if target.ndim > 0 and target.shape != (rows,):
        raise OptionError(
            f"`value` has shape {target.shape} but there are {rows} row(s); give one number, or one for each row."
        )
    if not np.isfinite(target).all():
        raise OptionError("`value` holds missing or infinite numbers; give finite ones.")
    return target


def _some(names: Sequence[str]) -> None:
    if not names:
        raise OptionError("the model has no fixed effects: there is nothing to test.")


def _all_text(values: Any) -> bool:
    return hasattr(values, "__len__") and len(values) > 0 and all(isinstance(value, str) for value in values)


def _checked_matrix(names: Sequence[str], given: Any) -> FloatArray:
    try:
        R = np.atleast_2d(np.asarray(given, dtype=np.float64))
    except (TypeError, ValueError):
        raise OptionError(
            "`restrictions` must be names of fixed effects or a matrix with one column per fixed effect, or text such "
            "as 'a - b = 0'."
        ) from None
    if R.ndim != 2 or R.shape[1] != len(names) or R.shape[0] == 0:
        raise OptionError(
            f"`restrictions` has shape {R.shape}; give one column for each of the {len(names)} fixed "
            f"effects ({', '.join(names)})."
        )
    if not np.isfinite(R).all():
        raise OptionError("`restrictions` holds a value that is not finite; use finite numbers only.")
    return R


def _by_name(names: Sequence[str], table: Any) -> Any:
    """The matrix of a data frame whose columns are named after coefficients; those it does not name are not tested.

    A frame whose columns only have numbers (0, 1, ...) is a plain matrix.
    """
    columns = list(table.columns)
    if columns == list(range(len(columns))):
        return table.to_numpy()
    if len(set(columns)) < len(columns):
        raise OptionError("`restrictions` has two columns of the same name; give each coefficient one column.")
    places = [_place(names, name) for name in columns]
    matrix = np.zeros((len(table), len(names)))
    try:
        matrix[:, places] = np.asarray(table.to_numpy(), dtype=np.float64)
    except (TypeError, ValueError):
        raise OptionError("`restrictions` holds values that are no numbers; give one row per restriction.") from None
    return matrix


def _place(names: Sequence[str], name: object) -> int:
    if isinstance(name, str) and name in names:
        return list(names).index(name)
    raise _no_effect(names, name)


def _no_effect(names: Sequence[str], name: object) -> OptionError:
    hint = did_you_mean(str(name), names)
    return OptionError(f"There is no fixed effect {name!r}.{hint} The fixed effects are {', '.join(names)}.")


# --- text -------------------------------------------------------------------------------------------------------


def _of_text(names: Sequence[str], texts: Sequence[str], value: Any) -> Hypotheses:
    """One hypothesis for each text; a right-hand side that a text has stands beside no other one."""
    rows, own = zip(*(_equation(names, text) for text in texts), strict=True)
    target = np.broadcast_to(hypothesised(value, len(texts), list(texts)), (len(texts),))
    constants = np.array([np.nan if constant is None else constant for constant in own])
    if bool((~np.isnan(constants) & (target != 0.0)).any()):
        raise OptionError("the text of a hypothesis has its right-hand side already; leave `value` out.")
    return Hypotheses(np.array(rows), np.where(np.isnan(constants), target, constants), tuple(texts))


def _split(names: Sequence[str], text: str) -> list[str]:
    """The hypotheses of one text: commas between them, not those inside a name."""
    if text in names:
        return [text]
    parts, current = [], ""
    for kind, token in _tokens(names, text):
        if kind == "," and current.strip():
            parts.append(current.strip())
            current = ""
        elif kind != ",":
            current += token if kind != "name" else f"`{token}`"
    whole = [*parts, current.strip()] if current.strip() else parts
    return whole if len(whole) > 1 else [text]


def _equation(names: Sequence[str], text: str) -> tuple[FloatArray, float | None]:
    """Weights of the coefficients, and the number on the right (None where the text has no number at all)."""
    if text in names:
        return np.eye(len(names))[list(names).index(text)], None
    reader = _Reader(names, text)
    left = reader.sum()
    right = reader.sum() if reader.took("=") else np.zeros(len(names) + 1)
    reader.end()
    gap = left - right
    if not gap[:-1].any():
        raise OptionError(f"the hypothesis {text!r} holds no coefficient; they are {', '.join(names)}.")
    return gap[:-1], (-float(gap[-1]) if "=" in reader.kinds or gap[-1] else None)


def _tokens(names: Sequence[str], text: str) -> Iterator[tuple[str, str]]:
    """Pairs (kind, text): "name", "number", " ", or one of the signs ``+ - * / = , ( )``."""
    spelt = _spellings(names)
    longest = sorted(spelt, key=len, reverse=True)
    at = 0
    while at < len(text):
        found = _name_at(longest, text, at)
        number = _NUMBER.match(text, at)
        if found is not None:
            yield "name", spelt[found[0]]
            at = found[1]
        elif text[at].isspace():
            yield " ", text[at]
            at += 1
        elif number is not None:
            yield "number", number.group()
            at = number.end()
        elif text[at] in "+-*/=,()":
            yield text[at], text[at]
            at += 1
        else:
            word = _WORD.match(text, at)
            unknown = text[at:] if word is None else word.group()
            raise _no_effect(names, unknown)


def _spellings(names: Sequence[str]) -> dict[str, str]:
    """Names as they may be written: "y1:x" is "y1: x" too, where no coefficient has that name."""
    short = {name.replace(": ", ":"): name for name in names}
    return short | {name: name for name in names}


def _name_at(names: Sequence[str], text: str, at: int) -> tuple[str, int] | None:
    """The longest name that stands here as a whole word, and where it ends."""
    for name in names:
        quoted = f"`{name}`"
        if text.startswith(quoted, at):
            return name, at + len(quoted)
        end = at + len(name)
        whole = not (name[-1:].isalnum() and (text[end : end + 1].isalnum() or text[end : end + 1] in ("_", "[", ":")))
        if text.startswith(name, at) and whole:
            return name, end
    return None


class _Reader:
    """Reads sums of multiples of coefficients: values are weights of the coefficients, then the constant, (p + 1,)."""

    def __init__(self, names: Sequence[str], text: str) -> None:
        self.names, self.text = list(names), text
        self.tokens = [token for token in _tokens(names, text) if token[0] != " "]
        self.kinds = {kind for kind, _ in self.tokens}
        self.at = 0

    def took(self, kind: str) -> bool:
        """Step over the next token if it is of this kind."""
        here = self.at < len(self.tokens) and self.tokens[self.at][0] == kind
        self.at += here
        return here

    def end(self) -> None:
        """Nothing may be left."""
        if self.at < len(self.tokens):
            raise self._error(f"{self.tokens[self.at][1]!r} is not expected there")

    def sum(self) -> FloatArray:
        """Terms with plus and minus between them."""
        total = self.product()
        while True:
            if self.took("+"):
                total = total + self.product()
            elif self.took("-"):
                total = total - self.product()
            else:
                return total

    def product(self) -> FloatArray:
        """Factors, at most one of which holds coefficients."""
        total = self.factor()
        while True:
            if self.took("*"):
                total = self._times(total, self.factor())
            elif self.took("/"):
                other = self.factor()
                if other[:-1].any() or other[-1] == 0.0:
                    raise self._error("only division by a number that is not zero is linear")
                total = total / other[-1]
            else:
                return total

    def factor(self) -> FloatArray:
        """A sign, a sum in parentheses, a number or a name."""
        if self.took("-"):
            return -self.factor()
        if self.took("+"):
            return self.factor()
        if self.took("("):
            inner = self.sum()
            if not self.took(")"):
                raise self._error("a parenthesis is not closed")
            return inner
        if self.at >= len(self.tokens):
            raise self._error("something is missing at its end")
        kind, token = self.tokens[self.at]
        self.at += 1
        out = np.zeros(len(self.names) + 1)
        if kind == "number":
            out[-1] = float(token)
        elif kind == "name":
            out[self.names.index(token)] = 1.0
        else:
            raise self._error(f"{token!r} is not expected there")
        return out

    def _times(self, a: FloatArray, b: FloatArray) -> FloatArray:
        if a[:-1].any() and b[:-1].any():
            raise self._error("a product of two coefficients is not linear; Margins.evaluate() takes any function")
        product: FloatArray = a * b[-1] if not b[:-1].any() else b * a[-1]
        return product

    def _error(self, what: str) -> OptionError:
        return OptionError(
            f"the hypothesis {self.text!r} cannot be read: {what}. Write it as 'a - b = 0' or '2*a = 1', several "
            "with commas: 'a = 0, b = 0'."
        )
