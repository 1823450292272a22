"""Arguments that stand beside the data: a column name, an expression in the language of formulas, or values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lme4py.data.beside import beside
from lme4py.data.column import Column
from lme4py.data.frame import Frame, missing_rows
from lme4py.errors import DataError, FormulaError, OptionError, did_you_mean
from lme4py.formula.deparse import names_in, walk
from lme4py.formula.evaluate import evaluate, learn
from lme4py.formula.nodes import Binary, Name, Node
from lme4py.formula.syntax import parse_expression
from lme4py.formula.values import Value

__all__ = [
    "Given",
    "column_getter",
    "column_of_text",
    "finite_offset",
    "given_text",
    "number_column",
    "numbers_of",
    "positive_weights",
]

FloatArray = NDArray[np.float64]
Functions = Mapping[str, Callable[..., Any]]


@dataclass(frozen=True, slots=True)
class Given:
    """How `weights`, `offset` or another argument with a value for each row was given.

    Attributes
    ----------
    what : str
        Name of the argument.
    text : str
        A column name or an expression; "" for values.
    node : Node or None
        What the text means, so that it can be evaluated on new data; None for values, which belong to the rows of
        the fit and to no others.
    """

    what: str
    text: str = ""
    node: Node | None = None

    @property
    def title(self) -> str:
        """How messages call it: ``the offset 'log(time)'``."""
        return f"the {self.what} {self.text!r}" if self.text else f"the {self.what}"

    @property
    def are(self) -> str:
        """``are`` of weights and trials, ``is`` of an offset."""
        return "are" if self.what.endswith("s") else "is"


def given_text(text: str, what: str, names: tuple[str, ...], condition: bool = False) -> Given:
    """Read a column name or an expression; a column of that very name comes first.

    Parameters
    ----------
    text : str
        Such as ``"size"``, ``"log(exposure)"`` or ``"1/vi"``.
    what : str
        Name of the argument, for messages.
    names : tuple of str
        Of the columns.
    condition : bool
        ``|`` is "or", and not the bar of a term.

    Raises
    ------
    DataError
        A name that is no column.
    FormulaError
        An expression that cannot be read.
    OptionError
        Something that is no expression, such as a formula.

    Examples
    --------
    >>> given_text("1/vi", "weights", ("yi", "vi")).title
    "the weights '1/vi'"
    """
    if text in names:
        return Given(what, text, Name(text, True))
    if not text.strip():
        raise OptionError(f"`{what}` is an empty text; give a column name, an expression or values.")
    try:
        node = parse_expression(text)
    except FormulaError as error:
        message = f"`{what}` is {text!r}, which is neither a column nor an expression: {error.message}"
        raise FormulaError(message, error.formula, error.start, error.end) from None
    no_value = ("~",) if condition else ("~", "|", "||")
    if any(isinstance(part, Binary) and part.operator in no_value for part in walk(node)):
        raise OptionError(f"`{what}` is {text!r}; give a column name or an expression of columns.")
    for name in names_in(node, names):
        if name not in names:
            shown = ", ".join(names[:10]) + (f", ... ({len(names) - 10} more)" if len(names) > 10 else "")
            within = "" if isinstance(node, Name) else f" in {what}={text!r}"
            raise DataError(
                f"column {name!r} not found{within}.{did_you_mean(name, names)} The data have {len(names)} "
                f"column{'s' * (len(names) != 1)}: {shown}."
            )
    return Given(what, text, node)


def numbers_of(value: Value, given: Given) -> FloatArray:
    """The value of an argument as numbers, shape (n,).

    Parameters
    ----------
    value : Value
    given : Given

    Raises
    ------
    DataError
        Labels, or several columns.
    """
    if value.refusal:
        raise DataError(value.refusal)
    if value.is_factor or value.values.ndim != 1:
        raise DataError(
            f"{given.title} {given.are} not numeric; give a numeric column, an expression of such columns, or an array"
        )
    numbers: FloatArray = value.values
    return numbers


def finite_offset(numbers: FloatArray, given: Given) -> FloatArray:
    """An offset without infinite values; NaN where it is missing.

    Parameters
    ----------
    numbers : ndarray, shape (n,)
    given : Given
    """
    infinite = int(np.isinf(numbers).sum())
    if infinite:
        raise DataError(f"{given.title} has {infinite} infinite value(s); correct them, or remove these rows")
    return numbers


def positive_weights(numbers: FloatArray, given: Given, *, zero: bool = False) -> FloatArray:
    """Prior weights, which must be positive and finite.

    Parameters
    ----------
    numbers : ndarray, shape (n,)
    given : Given
    zero : bool
        Zeros are left to the response, which knows whether they are numbers of trials.
    """
    faults = {
        "negative": int((numbers < 0).sum()),
        "zero": 0 if zero else int((numbers == 0).sum()),
        "infinite": int(np.isinf(numbers).sum()),
        "missing": int(np.isnan(numbers).sum()),
    }
    if any(faults.values()):
        listed = " and ".join(f"{count} {word}" for word, count in faults.items() if count)
        raise DataError(f"{given.title} hold {listed} value(s) but must be positive and finite; remove these rows")
    return numbers


def column_of_text(
    text: str, what: str, frame: Frame, functions: Functions | None = None, state: dict[str, Any] | None = None
) -> Column:
    """A column or an expression evaluated on the rows of a frame: numbers or labels, missing where a column of it is.

    Parameters
    ----------
    text : str
    what : str
        Name of the argument, for messages.
    frame : Frame
    functions : mapping of str to callable, optional
        The user's own functions.
    state : dict, optional
        What functions such as scale() learnt from the training data.

    Returns
    -------
    Column
        Under the name `text`, values of shape (n_rows,).
    """
    given = given_text(text, what, frame.names)
    if isinstance(given.node, Name):
        return frame.column(given.node.name)
    assert given.node is not None
    columns = {name: frame.column(name) for name in names_in(given.node, frame.names)}
    present = ~missing_rows(columns.values(), frame.n_rows)
    if not present.any():
        return Column(text, "numeric", np.full(frame.n_rows, np.nan))
    known = {} if state is None else state
    learn(given.node, frame.column, known, functions=functions)
    complete = {name: column.take(present) for name, column in columns.items()}
    value = evaluate(given.node, column_getter(complete), known, functions=functions, formula=text)
    return _on_all_rows(value, given, present)


def number_column(
    argument: Any, what: str, frame: Frame, functions: Functions | None = None, state: dict[str, Any] | None = None
) -> Column:
    """An argument with one number for each row of a frame, whichever way it was given.

    Parameters
    ----------
    argument : str, number or array-like
        A column name, an expression, one number for all rows, or values; values with an index are matched by it.
    what, frame, functions, state
        As in `column_of_text`.

    Returns
    -------
    Column
        "numeric", NaN where missing.
    """
    if isinstance(argument, int | float | np.number) and not isinstance(argument, bool):
        return Column(what, "numeric", np.full(frame.n_rows, float(argument)))
    if not isinstance(argument, str):
        return beside(argument, what, frame)
    column = column_of_text(argument, what, frame, functions, state)
    if column.is_factor:
        given = Given(what, argument)
        raise DataError(column.refusal or f"{given.title} {given.are} not numeric but {column.kind}; give numbers")
    return Column(argument, "numeric", column.values)


def column_getter(columns: Mapping[str, Column]) -> Callable[[str], Column]:
    """What `evaluate` asks for columns; it takes a DataError as "no such column"."""

    def column(name: str) -> Column:
        if name not in columns:
            raise DataError(f"column {name!r} not found.{did_you_mean(name, columns)}")
        return columns[name]

    return column


def _on_all_rows(value: Value, given: Given, present: NDArray[np.bool_]) -> Column:
    if value.kind == "matrix":
        raise DataError(f"{given.title} has {value.values.shape[1]} columns; give one")
    values = np.full(present.size, -1 if value.is_factor else np.nan, dtype=value.values.dtype)
    values[present] = value.values
    return Column(given.text, value.kind, values, value.levels, refusal=value.refusal)
