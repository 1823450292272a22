"""Derivatives of the expressions of a formula in one of their columns: forward mode through the syntax tree.

Every function of the formula language has its rule; functions of the user's are differenced. Factors, comparisons and
roundings are constant between their jumps: their derivative is zero.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from lme4py.formula import splines
from lme4py.formula.deparse import deparse, names_in
from lme4py.formula.evaluate import evaluate_node
from lme4py.formula.functions import KNOWN_FUNCTIONS, match_arguments
from lme4py.formula.nodes import Binary, Call, Name, Node, Paren, Text, Unary
from lme4py.formula.operands import CallSite, Context
from lme4py.formula.smooth import columns as smooths
from lme4py.formula.values import Value
from lme4py.linalg.types import FloatArray

__all__ = ["expression_slope"]

_ELEMENTWISE: Final[dict[str, Callable[[FloatArray], FloatArray]]] = {
    "log2": lambda x: 1.0 / (x * np.log(2.0)),
    "log10": lambda x: 1.0 / (x * np.log(10.0)),
    "log1p": lambda x: 1.0 / (1.0 + x),
    "exp": np.exp,
    "expm1": np.exp,
    "sqrt": lambda x: 0.5 / np.sqrt(x),
    "abs": np.sign,
    "sin": np.cos,
    "cos": lambda x: -np.sin(x),
    "tan": lambda x: 1.0 / np.cos(x) ** 2,
    "asin": lambda x: 1.0 / np.sqrt(1.0 - x * x),
    "acos": lambda x: -1.0 / np.sqrt(1.0 - x * x),
    "atan": lambda x: 1.0 / (1.0 + x * x),
    "sinh": np.cosh,
    "cosh": np.sinh,
    "tanh": lambda x: 1.0 / np.cosh(x) ** 2,
    "I": np.ones_like,
    "as.vector": np.ones_like,
    "as.numeric": np.ones_like,
}


def expression_slope(context: Context, node: Node, name: str) -> FloatArray | None:
    """Derivative of an expression in the column `name`, row by row.

    Parameters
    ----------
    context : Context
        Of an evaluation on complete rows.
    node : Node
    name : str

    Returns
    -------
    ndarray of the shape of the value, (n,) or (n, k), or None where it is zero everywhere
    """
    if isinstance(node, Name):
        return np.ones(len(context.column(name).values)) if node.name == name else None
    if name not in names_in(node, (name,)):
        return None
    if isinstance(node, Paren):
        return expression_slope(context, node.inner, name)
    if isinstance(node, Unary):
        inner = expression_slope(context, node.operand, name)
        return None if inner is None or node.operator == "!" else -inner if node.operator == "-" else inner
    if isinstance(node, Binary):
        return _binary(context, node, name)
    return _call(context, node, name) if isinstance(node, Call) else None


def _value(context: Context, node: Node) -> FloatArray:
    """Numbers of an expression, () for a constant."""
    operand = evaluate_node(context, node)
    return np.asarray(operand.values if isinstance(operand, Value) else operand, dtype=np.float64)


def _aligned(a: FloatArray, other: FloatArray) -> FloatArray:
    return a[:, None] if a.ndim == 1 and other.ndim == 2 else a


def _binary(context: Context, node: Binary, name: str) -> FloatArray | None:
    if node.operator not in ("+", "-", "*", "/", "^", "%%"):
        return None
    da, db = (expression_slope(context, side, name) for side in (node.left, node.right))
    a, b = _value(context, node.left), _value(context, node.right)
    a, b = _aligned(a, b), _aligned(b, a)
    zero = np.zeros(())
    da = zero if da is None else _aligned(da, b)
    db = zero if db is None else _aligned(db, a)
    with np.errstate(all="ignore"):
        return np.asarray(_RULES[node.operator](a, b, da, db), dtype=np.float64)


def _power(a: FloatArray, b: FloatArray, da: FloatArray, db: FloatArray) -> FloatArray:
    # b a^(b-1) at a = 0 with b = 0 is 0, not 0 times infinity; log(a) matters only where the exponent moves.
    base = np.where(b == 0, 0.0, b * np.power(a, np.where(b == 0, 1.0, b - 1.0))) * da
    return base if not db.ndim else base + np.where(db == 0, 0.0, np.power(a, b) * np.log(a) * db)


_RULES: Final[dict[str, Callable[..., FloatArray]]] = {
    "+": lambda a, b, da, db: da + db,
    "-": lambda a, b, da, db: da - db,
    "*": lambda a, b, da, db: da * b + a * db,
    "/": lambda a, b, da, db: (da - a / b * db) / b,
    "^": _power,
    "%%": lambda a, b, da, db: da - np.floor(a / b) * db,
}


def _call(context: Context, node: Call, name: str) -> FloatArray | None:
    if node.function in context.functions:
        return _user(context, node, name)
    site = CallSite(context, node, node.function, deparse(node))
    named, many = match_arguments(site, KNOWN_FUNCTIONS[node.function], node.arguments)
    if node.function in _ELEMENTWISE:
        inner = expression_slope(context, named["x"], name)
        if inner is None:
            return None
        x = evaluate_node(context, named["x"])
        if isinstance(x, Value) and x.is_factor:
            return None
        with np.errstate(all="ignore"):
            return _ELEMENTWISE[node.function](_value(context, named["x"])) * inner
    rule = _FUNCTIONS.get(node.function)
    return None if rule is None else rule(context, site, named, many, name)


def _user(context: Context, node: Call, name: str) -> FloatArray | None:
    """A function of the user's, by differences of fourth order."""
    column = context.column(name)
    if column.is_factor:
        return None
    h = 1e-3 * (float(np.max(np.abs(column.values), initial=0.0)) or 1.0)

    def at(steps: float) -> FloatArray:
        moved = type(column)(name, column.kind, column.values + steps * h)
        there = Context(
            lambda other: moved if other == name else context.column(other),
            context.state,
            context.functions,
            context.formula,
            context.n_rows,
        )
        return _value(there, node)

    return (at(-2) - 8 * at(-1) + 8 * at(1) - at(2)) / (12 * h)


Matched = dict[str, Node]


def _log(context: Context, site: CallSite, named: Matched, many: list[Node], name: str) -> FloatArray | None:
    inner = expression_slope(context, named["x"], name)
    base = float(_value(context, named["base"])) if "base" in named else np.e
    return None if inner is None else inner / (_value(context, named["x"]) * np.log(base))


def _scaled(context: Context, site: CallSite, named: Matched, many: list[Node], name: str) -> FloatArray | None:
    inner = expression_slope(context, named["x"], name)
    if inner is None:
        return None
    spread = np.array(site.learnt()["scale"])
    result: FloatArray = inner / (spread if inner.ndim == 2 else spread[0])
    return result


def _poly(context: Context, site: CallSite, named: Matched, many: list[Node], name: str) -> FloatArray | None:
    inner = expression_slope(context, named["x"], name)
    if inner is None:
        return None
    x, learnt = _value(context, named["x"]), site.learnt()
    if learnt is None:  # raw = TRUE
        degree = _value(context, site.node).shape[1]
        powers = np.arange(1, degree + 1)
        raw: FloatArray = powers * x[:, None] ** (powers - 1) * inner[:, None]
        return raw
    alpha, norm2 = learnt["alpha"], learnt["norm2"]
    out = np.empty((x.size, len(alpha)))
    before, current = np.zeros_like(x), np.ones_like(x)
    d_before, d_current = np.zeros_like(x), np.zeros_like(x)
    for k, shift in enumerate(alpha):
        ratio = norm2[k] / norm2[k - 1] if k else 0.0
        d_before, d_current = d_current, current + (x - shift) * d_current - ratio * d_before
        before, current = current, (x - shift) * current - ratio * before
        out[:, k] = d_current / np.sqrt(norm2[k + 1])
    return out * inner[:, None]


def _bs(context: Context, site: CallSite, named: Matched, many: list[Node], name: str) -> FloatArray | None:
    inner = expression_slope(context, named["x"], name)
    if inner is None:
        return None
    learnt = site.learnt()
    degree = int(_value(context, named["degree"])) if "degree" in named else 3
    full = bool(_value(context, named["intercept"])) if "intercept" in named else False
    x = _value(context, named["x"])
    return splines.bs_slope(x, learnt["knots"], learnt["boundary"], degree, intercept=full) * inner[:, None]


def _ns(context: Context, site: CallSite, named: Matched, many: list[Node], name: str) -> FloatArray | None:
    inner = expression_slope(context, named["x"], name)
    if inner is None:
        return None
    learnt = site.learnt()
    full = bool(_value(context, named["intercept"])) if "intercept" in named else False
    x = _value(context, named["x"])
    return splines.ns_slope(x, learnt["knots"], learnt["boundary"], intercept=full) * inner[:, None]


def _smooth(context: Context, site: CallSite, named: Matched, many: list[Node], name: str) -> FloatArray | None:
    if "by" in named and expression_slope(context, named["by"], name) is not None:
        raise site.error(
            f"slopes in {name}, which a smooth is multiplied by, are not there; predict at two values", "by"
        )
    nodes = [named["x"]] if "x" in named else many
    inner = [expression_slope(context, node, name) for node in nodes]
    if all(slope is None for slope in inner) or not isinstance(site.node, Call):
        return None
    plain = smooths.plain_call(site.node)
    learnt = context.state[deparse(plain)]
    at = [_value(context, node) for node in nodes]
    part = _text(named, "part")
    total: FloatArray = np.zeros((1, 1))
    for j, slope in enumerate(inner):
        if slope is not None:
            own = (
                smooths.fixed_columns(at, learnt, j) if part is None else smooths.penalised_columns(at, learnt, part, j)
            )
            total = total + own * slope[:, None]
    by = evaluate_node(context, named["by"]) if "by" in named else None
    weights = smooths.weights(site, by, learnt, _text(named, "level"))
    return np.hstack([total * np.reshape(w, (-1, 1)) for w in weights])


def _text(named: Matched, argument: str) -> str | None:
    at = named.get(argument)
    return at.value if isinstance(at, Text) else None


def _distribution(context: Context, site: CallSite, named: Matched, many: list[Node], name: str) -> FloatArray | None:
    argument, centre, width = _LOCATION[site.function]
    inner = expression_slope(context, named[argument], name)
    if inner is None:
        return None
    middle = float(_value(context, named[centre])) if centre in named else 0.0
    spread = float(_value(context, named[width])) if width in named else 1.0
    x = _value(context, named[argument])
    if site.function == "qlogis":
        return np.asarray(inner * spread / (x * (1.0 - x)), dtype=np.float64)
    if site.function == "qnorm":
        from scipy.special import ndtri

        return np.asarray(inner * spread * np.sqrt(2.0 * np.pi) * np.exp(0.5 * ndtri(x) ** 2), dtype=np.float64)
    z = (x - middle) / spread
    if site.function == "pnorm":
        return np.asarray(inner * np.exp(-0.5 * z * z) / np.sqrt(2.0 * np.pi) / spread, dtype=np.float64)
    from scipy.special import expit

    return np.asarray(inner * expit(z) * expit(-z) / spread, dtype=np.float64)


_LOCATION: Final = {
    "plogis": ("q", "location", "scale"),
    "qlogis": ("p", "location", "scale"),
    "pnorm": ("q", "mean", "sd"),
    "qnorm": ("p", "mean", "sd"),
}


def _extreme(context: Context, site: CallSite, named: Matched, many: list[Node], name: str) -> FloatArray | None:
    """pmin and pmax: the derivative of the argument that is chosen."""
    n = len(context.column(name).values)
    values = np.stack([np.broadcast_to(_value(context, node), (n,)) for node in many])
    chosen = values.argmin(axis=0) if site.function == "pmin" else values.argmax(axis=0)
    slopes = [expression_slope(context, node, name) for node in many]
    stacked = np.stack([np.zeros(n) if slope is None else slope for slope in slopes])
    return np.asarray(np.take_along_axis(stacked, chosen[None, :], axis=0)[0], dtype=np.float64)


def _ifelse(context: Context, site: CallSite, named: Matched, many: list[Node], name: str) -> FloatArray | None:
    slopes = [expression_slope(context, named[side], name) for side in ("yes", "no")]
    if all(slope is None for slope in slopes):
        return None
    yes, no = (np.zeros(()) if slope is None else slope for slope in slopes)
    return np.where(_value(context, named["test"]) != 0, yes, no)


def _cbind(context: Context, site: CallSite, named: Matched, many: list[Node], name: str) -> FloatArray | None:
    parts = []
    for node in [*named.values(), *many]:
        value, slope = _value(context, node), expression_slope(context, node, name)
        part = np.zeros_like(value) if slope is None else slope
        parts.append(part if part.ndim == 2 else np.reshape(part, (-1, 1)))
    return np.hstack(parts)


def _within(context: Context, site: CallSite, named: Matched, many: list[Node], name: str) -> FloatArray | None:
    """A row that moves leaves the mean of its group where it is: the slope of the deviation is that of the value."""
    return expression_slope(context, named["x"], name)


def _between(context: Context, site: CallSite, named: Matched, many: list[Node], name: str) -> FloatArray | None:
    slope = expression_slope(context, named["x"], name)
    return None if slope is None else np.zeros_like(slope)


_FUNCTIONS: Final[dict[str, Any]] = {
    "within": _within,
    "between": _between,
    "log": _log,
    **dict.fromkeys(("scale", "center", "standardize"), _scaled),
    "poly": _poly,
    "bs": _bs,
    "ns": _ns,
    **dict.fromkeys(smooths.SMOOTH_FUNCTIONS, _smooth),
    **dict.fromkeys(_LOCATION, _distribution),
    **dict.fromkeys(("pmin", "pmax"), _extreme),
    "ifelse": _ifelse,
    "cbind": _cbind,
}
