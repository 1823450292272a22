"""Values of the expressions of a formula, computed by walking the syntax tree.

Nothing that the user wrote is ever run as Python: an expression consists of names of columns, constants,
operators and calls of the functions in `KNOWN_FUNCTIONS` or of callables that the user handed over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lme4py.data.column import Column
from lme4py.errors import DataError, FormulaError
from lme4py.formula.deparse import deparse, names_in, walk
from lme4py.formula.functions import KNOWN_FUNCTIONS, call_function
from lme4py.formula.nodes import Binary, Call, Name, Node, Number, Paren, Text, Unary
from lme4py.formula.operands import Context, Operand, describe, kind_text
from lme4py.formula.operators import apply_binary, apply_unary
from lme4py.formula.values import Value, ValueKind

__all__ = ["KNOWN_FUNCTIONS", "LEARNERS", "evaluate", "learn"]

_KINDS: Final[dict[str, ValueKind]] = {
    "numeric": "numeric",
    "boolean": "boolean",
    "factor": "factor",
    "ordered": "ordered",
    "text": "factor",
    "label": "label",
}
_CONSTANTS: Final[dict[str, float | bool | None]] = {
    "pi": float(np.pi),
    "TRUE": True,
    "T": True,
    "True": True,
    "FALSE": False,
    "F": False,
    "False": False,
    "Inf": float("inf"),
    "NaN": float("nan"),
    "NA": float("nan"),
    "NULL": None,
    "None": None,
}
# Calls whose meaning depends on the values of the training data, by numbers that other rows share.
LEARNERS: Final = frozenset(
    (
        "poly",
        "scale",
        "center",
        "standardize",
        "bs",
        "ns",
        "cut",
        "quantile",
        "between",
        "within",
        "mean",
        "median",
        "sd",
        "var",
        "min",
        "max",
    )
)
_NO_FUNCTIONS: Final[dict[str, Callable[..., Any]]] = {}


def evaluate(
    node: Node,
    column: Callable[[str], Column],
    state: dict[str, Any],
    *,
    functions: Mapping[str, Callable[..., Any]] | None = None,
    formula: str = "",
) -> Value:
    """The value of one variable of a formula on all rows.

    Parameters
    ----------
    node : Node
        The expression.
    column : callable
        Gives the column of a name, complete rows only; raises DataError for an unknown name.
    state : dict
        What poly(), scale(), bs(), factor() and their like learnt from the training data, under the text of
        the call. Empty for the training data, where it is filled; hand the same dict over for new data.
    functions : mapping of str to callable, optional
        Functions of the user's: they receive numpy arrays and return an array with one entry per row.
    formula : str
        The formula, shown in error messages.

    Returns
    -------
    Value
        For a factor on new data, levels that training did not have stand after the known ones: compare
        ``levels`` before coding it.

    Examples
    --------
    >>> import numpy as np
    >>> from lme4py.data.column import Column
    >>> from lme4py.formula.syntax import parse_expression
    >>> days = Column("days", "numeric", np.array([1.0, 2.0, 3.0]))
    >>> evaluate(parse_expression("I(days^2)"), lambda name: days, {}).values
    array([1., 4., 9.])
    """
    if isinstance(node, Name):
        try:
            found = column(node.name)
        except DataError:
            pass  # a constant or an unknown name: judged below
        else:
            return _value_of(found)
    context = Context(column, state, functions or _NO_FUNCTIONS, formula)
    value = _with_rows(context, node, evaluate_node(context, node))
    if not _complete(value):
        raise _incomplete(context, node, value)
    return value


def learn(
    node: Node,
    column: Callable[[str], Column],
    state: dict[str, Any],
    *,
    functions: Mapping[str, Callable[..., Any]] | None = None,
) -> None:
    """Fill `state` from all rows of the data: those that the fit leaves out count too, as in R.

    Each call of scale(), poly(), bs() and their like learns from the rows that its own columns are complete in. Where
    that gives no finite numbers (a logarithm of a negative number, say), the rows of the fit are left to decide.

    Parameters
    ----------
    node : Node
    column : callable
        Gives the column of a name with all its rows, missing ones too; raises DataError for an unknown name.
    state : dict
    functions : mapping of str to callable, optional
        As in `evaluate`.
    """
    # Inner calls first: their columns may be complete in more rows.
    for call in reversed(list(walk(node))):
        if not isinstance(call, Call) or call.function not in LEARNERS:
            continue
        columns = _known_columns(call, column)
        if not columns:
            continue
        complete = ~np.logical_or.reduce([found.missing() for found in columns.values()])
        present = {name: found.take(complete) for name, found in columns.items()}
        found = dict(state)
        try:
            operand = evaluate_node(Context(_among(present), found, functions or _NO_FUNCTIONS, ""), call)
        except (FormulaError, DataError):
            continue
        if not isinstance(operand, Value) or _complete(operand):
            state.update(found)


def _known_columns(node: Node, column: Callable[[str], Column]) -> dict[str, Column]:
    found = {}
    for name in names_in(node):
        with suppress(DataError):
            found[name] = column(name)
    return found


def _among(columns: Mapping[str, Column]) -> Callable[[str], Column]:
    def column(name: str) -> Column:
        if name not in columns:
            raise DataError(f"there is no column {name!r}")
        return columns[name]

    return column


def evaluate_node(context: Context, node: Node) -> Operand:
    """The operand that a node stands for."""
    match node:
        case Name():
            return _name(context, node)
        case Number() | Text():
            return node.value
        case Paren():
            return evaluate_node(context, node.inner)
        case Call():
            return call_function(context, node, evaluate_node)
        case Unary():
            return apply_unary(context, node, evaluate_node(context, node.operand))
        case Binary():
            return apply_binary(context, node, evaluate_node(context, node.left), evaluate_node(context, node.right))
    raise context.error(node, f"{type(node).__name__} cannot be evaluated; write names, numbers and functions")


def _name(context: Context, node: Name) -> Operand:
    try:
        found = context.column(node.name)
    except DataError as error:
        if not node.quoted and node.name in _CONSTANTS:
            return _CONSTANTS[node.name]
        # The caret makes the place of the name visible; the type of the error stays.
        shown = context.error(node, str(error))
        raise DataError(str(shown)) from error
    context.n_rows = len(found.values)
    return _value_of(found)


def _value_of(column: Column) -> Value:
    return Value(_KINDS[column.kind], column.values, column.levels, refusal=column.refusal)


def _with_rows(context: Context, node: Node, operand: Operand) -> Value:
    """The result as a Value: a constant is repeated if the expression has a column."""
    if isinstance(operand, Value):
        return operand
    if context.n_rows is None:
        raise context.error(
            node,
            f"the variable {_text(node)} has no column in it, only {kind_text(operand)}; "
            "a variable of the model must vary over the rows. Remove it, or write 1 for the intercept",
        )
    if isinstance(operand, (bool, float)):
        return Value("boolean" if isinstance(operand, bool) else "numeric", np.full(context.n_rows, float(operand)))
    raise context.error(node, f"{_text(node)} is {kind_text(operand)}, not a value for every row; remove it")


def _text(node: Node) -> str:
    return f"`{deparse(node)}`"


def _bad_rows(value: Value) -> NDArray[np.bool_]:
    if value.is_factor:
        return np.asarray(value.values < 0)
    bad = ~np.isfinite(value.values)
    return np.asarray(bad.any(axis=1) if bad.ndim == 2 else bad)


def _complete(value: Value) -> bool:
    if value.is_factor:
        return value.values.size == 0 or int(value.values.min()) >= 0
    return bool(np.isfinite(value.values).all())


def _incomplete(context: Context, node: Node, value: Value) -> FormulaError | DataError:
    """The error for missing or infinite results: the smallest expression at fault, and its first bad row."""
    rows = _bad_rows(value)
    first = int(np.flatnonzero(rows)[0])
    culprit, result = _culprit(context, node, value, first)
    if isinstance(culprit, Name):
        return _bad_column(context, culprit, result)
    inputs = _inputs_at(context, culprit, first)
    where = f" where {inputs}" if inputs else ""
    return context.error(culprit, f"{_text(culprit)} {_outcome(result, first)}{where}. {_advice(culprit)}")


def _bad_column(context: Context, node: Name, value: Value) -> FormulaError | DataError:
    first = int(np.flatnonzero(_bad_rows(value))[0])
    message = f"{describe(node)} {_outcome(value, first)}; correct these values or remove the rows"
    return DataError(str(context.error(node, message)))


def _culprit(context: Context, node: Node, value: Value, row: int) -> tuple[Node, Value]:
    """The deepest expression whose value at `row` is bad, with that value."""
    for child in _children(node):
        try:
            inner = evaluate_node(context, child)
        except (FormulaError, DataError):
            continue  # an argument that is no value of its own, such as contr.sum in C(x, contr.sum)
        if isinstance(inner, Value) and _bad_rows(inner)[row]:
            return _culprit(context, child, inner, row)
    return node, value


def _children(node: Node) -> tuple[Node, ...]:
    match node:
        case Paren():
            return (node.inner,)
        case Unary():
            return (node.operand,)
        case Binary():
            return (node.left, node.right)
        case Call():
            return tuple(argument.value for argument in node.arguments)
    return ()


def _outcome(value: Value, row: int) -> str:
    """How many rows are bad, and what `row` is (no row number: incomplete rows are gone by now)."""
    bad = _bad_rows(value)
    count = f"{int(bad.sum())} of {bad.size} rows"
    if value.is_factor:
        return f"has no level in {count}, first"
    cells = np.atleast_1d(value.values[row])
    cell = cells[~np.isfinite(cells)][0]
    spelled = "NaN" if np.isnan(cell) else "Inf" if cell > 0 else "-Inf"
    return f"is not finite in {count}, first {spelled}"


def _inputs_at(context: Context, node: Node, row: int) -> str:
    """``x = -1, arm = 'a'``: the columns of an expression at one row."""
    names: dict[str, str] = {}
    _collect(context, node, row, names)
    return ", ".join(f"{name} = {cell}" for name, cell in names.items())


def _collect(context: Context, node: Node, row: int, names: dict[str, str]) -> None:
    if isinstance(node, Name):
        try:
            found = context.column(node.name)
        except DataError:
            return
        cell = found.values[row]
        names[node.name] = repr(found.levels[cell]) if found.is_factor and cell >= 0 else f"{cell:g}"
    for child in _children(node):
        _collect(context, child, row, names)


_ADVICE: Final[dict[str, str]] = {
    **dict.fromkeys(
        ("log", "log2", "log10"),
        "A logarithm needs numbers above 0: remove these rows, or shift the column, as in log(x + 1)",
    ),
    "log1p": "log1p() needs numbers above -1: remove these rows, or shift the column",
    "sqrt": "A square root needs numbers >= 0: remove these rows, or use abs()",
    **dict.fromkeys(("asin", "acos"), "This function needs numbers between -1 and 1: rescale the column"),
    **dict.fromkeys(
        ("qlogis", "qnorm"),
        "This function needs probabilities strictly between 0 and 1: correct or shrink them",
    ),
    **dict.fromkeys(("exp", "expm1", "sinh", "cosh"), "The argument is too large: rescale the column"),
    "cut": "Widen the breaks, for instance with -Inf and Inf, or set include.lowest = TRUE",
    "factor": "List every level in levels = c(...), or remove these rows",
    "ordered": "List every level in levels = c(...), or remove these rows",
    "/": "A division by 0 is not defined: remove these rows, or change the divisor",
    "%%": "A division by 0 is not defined: remove these rows, or change the divisor",
    "%/%": "A division by 0 is not defined: remove these rows, or change the divisor",
    "^": "A negative number has no such power, and 0 no negative one: remove these rows, or use abs()",
}


def _advice(node: Node) -> str:
    key = node.function if isinstance(node, Call) else node.operator if isinstance(node, Binary) else ""
    return _ADVICE.get(key, "Remove these rows, or change the expression")
