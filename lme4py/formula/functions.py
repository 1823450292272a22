"""The functions that a formula may call, and how their arguments are matched."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lme4py.errors import FormulaError, did_you_mean
from lme4py.formula import factors, splines, transforms
from lme4py.formula import functions_numeric as numeric
from lme4py.formula.deparse import deparse
from lme4py.formula.nodes import Argument, Call, Node
from lme4py.formula.operands import CallSite, Context, Items, Operand, boolean, matrix
from lme4py.formula.smooth import columns as smooths
from lme4py.formula.values import Value

Body = Callable[..., Operand]
Evaluate = Callable[[Context, Node], Operand]


@dataclass(frozen=True, slots=True)
class Function:
    """A function of the formula language.

    Attributes
    ----------
    name : str
        R's name.
    body : callable
        Takes a CallSite and the matched arguments.
    parameters : tuple of str
        R's argument names, in order; the ones after `n_positional` must be named.
    required : frozenset of str
    n_positional : int
    many : bool
        Whether further positional arguments are allowed (R's ``...``).
    named_columns : bool
        Whether any argument name is allowed (cbind).
    quoted : frozenset of str
        Arguments that are handed over as syntax, not evaluated.
    """

    name: str
    body: Body
    parameters: tuple[str, ...]
    required: frozenset[str]
    n_positional: int
    many: bool = False
    named_columns: bool = False
    quoted: frozenset[str] = frozenset()


def _describe(name: str, body: Body, quoted: frozenset[str]) -> Function:
    """Read the arguments off the signature of `body`: ``include_lowest`` is R's ``include.lowest``."""
    parameters = list(inspect.signature(body).parameters.values())[1:]
    kinds = inspect.Parameter
    positional = [p for p in parameters if p.kind is kinds.POSITIONAL_OR_KEYWORD]
    named = [*positional, *(p for p in parameters if p.kind is kinds.KEYWORD_ONLY)]
    return Function(
        name,
        body,
        tuple(_r_name(p.name) for p in named),
        frozenset(_r_name(p.name) for p in named if p.default is kinds.empty),
        len(positional),
        many=any(p.kind is kinds.VAR_POSITIONAL for p in parameters),
        named_columns=any(p.kind is kinds.VAR_KEYWORD for p in parameters),
        quoted=quoted,
    )


def _r_name(name: str) -> str:
    return name.rstrip("_") if name.endswith("_") else _UNDERSCORED.get(name, name.replace("_", "."))


_UNDERSCORED: Final = {"ordered_result": "ordered_result"}

_ELEMENTWISE: Final[dict[str, Callable[[Any], Any]]] = {
    "log2": np.log2,
    "log10": np.log10,
    "log1p": np.log1p,
    "exp": np.exp,
    "expm1": np.expm1,
    "sqrt": np.sqrt,
    "abs": np.abs,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "tanh": np.tanh,
    "floor": np.floor,
    "ceiling": np.ceil,
    "sign": np.sign,
    "trunc": np.trunc,
}

_BODIES: Final[dict[str, Body]] = {
    **{name: numeric.elementwise(function) for name, function in _ELEMENTWISE.items()},
    "I": numeric.identity,
    "as.vector": numeric.identity,
    "log": numeric.log,
    "round": numeric.round_,
    "pmin": numeric.pmin,
    "pmax": numeric.pmax,
    "ifelse": numeric.ifelse,
    "is.na": numeric.is_na,
    "as.numeric": numeric.as_numeric,
    "as.integer": numeric.as_integer,
    "plogis": numeric.plogis,
    "qlogis": numeric.qlogis,
    "pnorm": numeric.pnorm,
    "qnorm": numeric.qnorm,
    "c": numeric.combine,
    "seq": numeric.seq,
    "poly": transforms.poly,
    "scale": transforms.scale,
    "center": transforms.center,
    "standardize": transforms.standardize,
    "cbind": transforms.cbind,
    "between": transforms.between,
    "within": transforms.within,
    "numFactor": transforms.num_factor,
    "dummy": factors.dummy,
    "mean": transforms.summary(np.mean),
    "median": transforms.summary(np.median),
    "sd": transforms.summary(transforms.deviation),
    "var": transforms.summary(transforms.variance),
    "min": transforms.summary(np.min),
    "max": transforms.summary(np.max),
    "quantile": transforms.quantile,
    "bs": splines.bs,
    "ns": splines.ns,
    "s": smooths.s,
    "s_penalised": smooths.s_penalised,
    "s_level": smooths.s_level,
    "smooth_group": smooths.smooth_group,
    **dict.fromkeys(smooths.TENSORS, smooths.tensor),
    **dict.fromkeys((f"{name}_penalised" for name in smooths.TENSORS), smooths.tensor_penalised),
    "factor": factors.factor,
    "as.factor": factors.as_factor,
    "ordered": factors.ordered,
    "as.ordered": factors.as_ordered,
    "as.character": factors.as_character,
    "droplevels": factors.droplevels,
    "relevel": factors.relevel,
    "interaction": factors.interaction,
    "cut": factors.cut,
    "C": factors.contrasts,
}

KNOWN_FUNCTIONS: Final[Mapping[str, Function]] = MappingProxyType(
    {
        name: _describe(name, body, frozenset({"contr"}) if name == "C" else frozenset())
        for name, body in _BODIES.items()
    }
)

_ROWS_IN_ORDER = "depends on the order of the rows; make the column in the data before the fit"
_REFUSED: Final[dict[str, str]] = {
    **dict.fromkeys(("lag", "lead", "diff", "shift", "cumsum", "cumprod", "rank", "rev"), _ROWS_IN_ORDER),
    "lo": "is not fitted; use s(x)",
    **dict.fromkeys(("cr", "cc"), "is not available; use ns(x, df = 4), a natural cubic spline"),
    "Q": "write a name with blanks between backquotes: `my column`",
    "sum": "gives one number for all rows; use mean(), or make the column in the data before the fit",
    "contr.sum": "contrasts belong inside C(): C(x, contr.sum)",
    "offset": "offset() is a term of its own; do not put it inside another expression",
}
_SPELLINGS: Final[dict[str, str]] = {
    "ceil": "ceiling",
    "ln": "log",
    "arcsin": "asin",
    "arccos": "acos",
    "arctan": "atan",
    "where": "ifelse",
    "minimum": "pmin",
    "maximum": "pmax",
    "logit": "qlogis",
    "expit": "plogis",
    "probit": "qnorm",
    "std": "sd",
    "isna": "is.na",
    "power": "^",
    "square": "^2",
}


def call_function(context: Context, node: Call, evaluate: Evaluate) -> Operand:
    """Evaluate a call: a function of the user's, or a known one."""
    user = context.functions.get(node.function)
    if user is not None:
        return _call_user(context, node, user, evaluate)
    function = KNOWN_FUNCTIONS.get(node.function)
    if function is None:
        raise unknown_function(context, node)
    site = CallSite(context, node, node.function, deparse(node))
    named, many = match_arguments(site, function, node.arguments)
    site.nodes = {**named, **{f"..{i}": value for i, value in enumerate(many, start=1)}}
    if function.named_columns:
        return function.body(site, **{name: evaluate(context, value) for name, value in site.nodes.items()})
    values = {name: None if name in function.quoted else evaluate(context, value) for name, value in named.items()}
    rest = [evaluate(context, value) for value in many]
    return _invoke(site, function, values, rest)


def _invoke(site: CallSite, function: Function, values: dict[str, Operand], rest: list[Operand]) -> Operand:
    python = {_python_name(function, name): value for name, value in values.items()}
    if not rest:
        return function.body(site, **python)
    # Positional parameters stand before R's "..." in the Python signature as well.
    first = [python.pop(_python_name(function, name)) for name in function.parameters[: function.n_positional]]
    return function.body(site, *first, *rest, **python)


def _python_name(function: Function, name: str) -> str:
    return "from_" if name == "from" else name.replace(".", "_")


def match_arguments(
    site: CallSite, function: Function, arguments: tuple[Argument, ...]
) -> tuple[dict[str, Node], list[Node]]:
    """Match arguments as R does: by name (or its unique beginning), then by position."""
    named: dict[str, Node] = {}
    positional: list[Node] = []
    for argument in arguments:
        if argument.name is None:
            positional.append(argument.value)
            continue
        name = _parameter(site, function, argument)
        if name in named:
            raise site.context.error(argument.value, f"{site.function}(): argument '{name}' is given twice")
        named[name] = argument.value
    free = [name for name in function.parameters[: function.n_positional] if name not in named]
    named.update(zip(free, positional, strict=False))
    rest = positional[len(free) :]
    if rest and not (function.many or function.named_columns):
        raise site.context.error(
            rest[0],
            f"{site.function}() takes at most {function.n_positional} arguments: {_signature(function)}",
        )
    missing = [name for name in function.parameters if name in function.required and name not in named]
    if missing:
        raise site.error(f"argument '{missing[0]}' is missing; write {_signature(function)}")
    return named, rest


def _parameter(site: CallSite, function: Function, argument: Argument) -> str:
    given = argument.name or ""
    if given in function.parameters or function.named_columns:
        return given
    spelled = {_fold(name): name for name in function.parameters}
    if _fold(given) in spelled:
        return spelled[_fold(given)]
    begin = [name for name in function.parameters if name.startswith(given)]
    if len(begin) == 1:
        return begin[0]
    hint = did_you_mean(given, function.parameters)
    raise site.context.error(
        argument.value, f"{site.function}() has no argument '{given}'; write {_signature(function)}.{hint}"
    )


def _fold(name: str) -> str:
    return name.replace("_", ".").casefold()


def _signature(function: Function) -> str:
    shown = list(function.parameters[: function.n_positional])
    if function.many or function.named_columns:
        shown.append("...")
    shown.extend(f"{name} =" for name in function.parameters[function.n_positional :])
    return f"{function.name}({', '.join(shown)})"


def unknown_function(context: Context, node: Call) -> FormulaError:
    """The error for a function that the formula language does not have."""
    name = node.function
    if name in _REFUSED:
        return context.error(node, f"{name}(): {_REFUSED[name]}")
    last = name.replace("::", ".").rpartition(".")[2]
    if last != name and last in KNOWN_FUNCTIONS:
        return context.error(node, f"function '{name}' is not known in a formula; write {last}(...)")
    if last in _SPELLINGS:
        return context.error(node, f"function '{name}' is not known in a formula; write {_SPELLINGS[last]}")
    hint = did_you_mean(name, [*KNOWN_FUNCTIONS, *context.functions])
    return context.error(
        node,
        f"function '{name}' is not known in a formula.{hint} Make the column in the data before the fit, "
        f"or hand the function over: functions={{{name!r}: ...}}",
    )


def _call_user(context: Context, node: Call, user: Callable[..., Any], evaluate: Evaluate) -> Operand:
    """A callable of the user's: arrays in, an array with one entry per row out."""
    site = CallSite(context, node, node.function, deparse(node))
    positional: list[Any] = []
    named: dict[str, Any] = {}
    for argument in node.arguments:
        value = _for_user(evaluate(context, argument.value))
        if argument.name is None:
            positional.append(value)
        else:
            named[argument.name] = value
    try:
        result = np.asarray(user(*positional, **named))
    except Exception as error:
        raise site.error(f"your function failed with {type(error).__name__}: {error}") from error
    return _from_user(site, result)


def _for_user(operand: Operand) -> Any:
    """Plain arrays, copied so that the function cannot change the data."""
    if isinstance(operand, Value):
        if operand.is_factor:
            levels = np.empty(len(operand.levels) + 1, dtype=object)
            levels[: len(operand.levels)] = operand.levels
            return levels[operand.values]
        return operand.values.astype(bool) if operand.kind == "boolean" else operand.values.copy()
    return list(operand.values) if isinstance(operand, Items) else operand


def _from_user(site: CallSite, result: NDArray[Any]) -> Operand:
    rows = site.context.n_rows
    if result.ndim == 0 and result.dtype.kind in "biuf":
        return float(result)
    if rows is None or result.ndim not in (1, 2) or result.shape[0] != rows:
        raise site.error(
            f"your function returned an array of shape {result.shape}; it must return one value per row "
            f"({rows if rows is not None else 'and take a column'} rows)"
        )
    if result.dtype.kind in "OUS" and result.ndim == 1:
        return _text_result(site, result)
    if result.dtype.kind not in "biuf":
        raise site.error(f"your function returned values of type {result.dtype}; it must return numbers or text")
    numbers = result.astype(np.float64)
    if result.ndim == 2:
        return matrix(numbers)
    return boolean(numbers) if result.dtype.kind == "b" else Value("numeric", numbers)


def _text_result(site: CallSite, result: NDArray[Any]) -> Value:
    if not all(isinstance(item, str) for item in result.tolist()):
        raise site.error("your function returned objects; it must return numbers or text, none missing")
    labels, index = np.unique(result.astype(str), return_inverse=True)
    return factors.text_factor(site, index, [str(label) for label in labels])
