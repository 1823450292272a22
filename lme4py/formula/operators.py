"""The operators of expressions: arithmetic, comparison and logic on rows and constants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lme4py.errors import did_you_mean
from lme4py.formula.deparse import deparse
from lme4py.formula.nodes import Binary, Node, Unary
from lme4py.formula.operands import (
    Context,
    FloatArray,
    Items,
    Operand,
    boolean,
    describe,
    factor_text,
    kind_text,
    level_index,
    list_text,
)
from lme4py.formula.values import Value

ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.true_divide,
    "^": np.power,
    "%%": np.mod,
    "%/%": np.floor_divide,
}
COMPARISON: dict[str, Callable[[Any, Any], Any]] = {
    "==": np.equal,
    "!=": np.not_equal,
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
}
LOGIC: dict[str, Callable[[Any, Any], Any]] = {
    "&": np.logical_and,
    "&&": np.logical_and,
    "|": np.logical_or,
    "||": np.logical_or,
}
_MIRROR = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}


def apply_unary(context: Context, node: Unary, operand: Operand) -> Operand:
    """``-x``, ``+x`` or ``!x``."""
    if node.operator not in ("-", "+", "!"):
        raise context.error(node, f"'{node.operator}' has no meaning inside an expression; remove it")
    numbers = _numbers(context, node.operand, operand)
    if node.operator == "!":
        return _wrap(np.where(np.isnan(numbers), np.nan, np.logical_not(numbers)), (operand,), as_boolean=True)
    return _wrap(-numbers if node.operator == "-" else +numbers, (operand,))


def apply_binary(context: Context, node: Binary, left: Operand, right: Operand) -> Operand:
    """A binary operator on two operands."""
    operator = node.operator
    if operator in ARITHMETIC:
        return _elementwise(context, node, left, right, ARITHMETIC[operator], as_boolean=False)
    if operator in COMPARISON:
        return _compare(context, node, left, right)
    if operator in LOGIC:
        return _elementwise(context, node, left, right, LOGIC[operator], as_boolean=True)
    if operator == "%in%":
        return _member(context, node, left, right)
    if operator == ":":
        return _sequence(context, node, left, right)
    raise context.error(node, f"operator '{operator}' is not known inside an expression; remove it")


def _elementwise(
    context: Context,
    node: Binary,
    left: Operand,
    right: Operand,
    function: Callable[[Any, Any], Any],
    *,
    as_boolean: bool,
) -> Operand:
    a = _numbers(context, node.left, left)
    b = _numbers(context, node.right, right)
    if a.ndim == 2 and b.ndim == 1:
        b = b[:, None]
    elif b.ndim == 2 and a.ndim == 1:
        a = a[:, None]
    if a.ndim == 2 and b.ndim == 2 and a.shape[1] != b.shape[1] and 1 not in (a.shape[1], b.shape[1]):
        raise context.error(node, f"'{node.operator}' on {a.shape[1]} and {b.shape[1]} columns; they must be as many")
    with np.errstate(all="ignore"):
        result = function(a, b)
    if as_boolean:
        result = _undecided(node.operator, result, a, b)
    return _wrap(result, (left, right), as_boolean=as_boolean)


def _undecided(operator: str, result: NDArray[Any], a: FloatArray, b: FloatArray) -> NDArray[Any]:
    """NaN where a NaN operand leaves the answer open (R's NA): ``FALSE & NA`` is FALSE, ``TRUE & NA`` NA."""
    unknown = np.isnan(a) | np.isnan(b)
    if not unknown.any():
        return result
    if operator in ("&", "&&"):
        unknown &= (a != 0) & (b != 0)
    elif operator in ("|", "||"):
        unknown &= (np.isnan(a) | (a == 0)) & (np.isnan(b) | (b == 0))
    return np.where(unknown, np.nan, result)


def _numbers(context: Context, node: Node, operand: Operand) -> FloatArray:
    """The operand as floats of shape (), (n,) or (n, k)."""
    if isinstance(operand, Value):
        if operand.is_factor:
            raise context.error(
                node,
                f"{factor_text(describe(node), operand)}; arithmetic needs numbers. Use the factor as a term "
                f"of its own, or compare it with a level: == {str(operand.levels[0])!r}"
                if operand.levels
                else f"{describe(node)} is a factor without levels; arithmetic needs numbers",
            )
        return np.asarray(operand.values, dtype=np.float64)
    if isinstance(operand, (bool, int, float)):
        return np.asarray(operand, dtype=np.float64)
    if isinstance(operand, Items) and len(operand.values) == 1:
        return _numbers(context, node, operand.values[0])
    raise context.error(node, f"arithmetic needs numbers or columns of numbers, not {kind_text(operand)}")


def _wrap(result: NDArray[Any], operands: tuple[Operand, ...], *, as_boolean: bool = False) -> Operand:
    """A result as a Value like its operands, or as a constant where nothing had rows."""
    result = np.asarray(result)
    if result.ndim == 0:
        return bool(result) if as_boolean and not np.isnan(result) else float(result)
    if result.ndim == 2:
        first = next(x for x in operands if isinstance(x, Value) and x.values.ndim == 2)
        return Value("matrix", result.astype(np.float64), suffixes=first.suffixes)
    return boolean(result) if as_boolean else Value("numeric", result)


def _compare(context: Context, node: Binary, left: Operand, right: Operand) -> Operand:
    left_factor = isinstance(left, Value) and left.is_factor
    right_factor = isinstance(right, Value) and right.is_factor
    if left_factor and right_factor:
        return _compare_factors(context, node, left, right)
    if isinstance(left, Value) and left_factor:
        return _compare_level(context, node, node.left, left, right, node.operator)
    if isinstance(right, Value) and right_factor:
        operator = _MIRROR.get(node.operator, node.operator)
        return _compare_level(context, node, node.right, right, left, operator)
    if isinstance(left, str) and isinstance(right, str):
        return bool(COMPARISON[node.operator](left, right))
    for side, operand in ((node.left, left), (node.right, right)):
        if isinstance(operand, str):
            other = node.right if side is node.left else node.left
            raise context.error(node, f"{describe(other)} holds numbers; compare it with a number, not {operand!r}")
    return _elementwise(context, node, left, right, COMPARISON[node.operator], as_boolean=True)


def _compare_level(
    context: Context, node: Binary, factor_node: Node, factor: Value, other: Operand, operator: str
) -> Value:
    """A factor against one level."""
    if not isinstance(other, (str, bool, int, float)):
        raise context.error(
            node,
            f"{factor_text(describe(factor_node), factor)}; compare it with one level, not {kind_text(other)}",
        )
    _need_order(context, node, factor_node, factor, operator)
    position = level_index(factor.levels, other)
    _check_level(context, node, factor_node, factor, (other,))
    if position is None:
        # New data need not hold every level of the training data.
        return _known(np.full(factor.values.shape, operator == "!="), factor)
    return _known(COMPARISON[operator](factor.values, position), factor)


def _known(mask: NDArray[Any], *factors: Value) -> Value:
    """A boolean that is NaN where a factor has no level."""
    missing = np.logical_or.reduce([factor.values < 0 for factor in factors])
    return boolean(np.where(missing, np.nan, mask))


def _check_level(context: Context, node: Node, factor_node: Node, factor: Value, wanted: tuple[Any, ...]) -> None:
    """In training every level that the formula names must exist; on new data it may be absent."""
    key = deparse(node)
    if key in context.state:
        return
    for item in wanted:
        if level_index(factor.levels, item) is None:
            hint = did_you_mean(str(item), [str(level) for level in factor.levels])
            raise context.error(
                node,
                f"{kind_text(item)} is not a level of {describe(factor_node)}; "
                f"its levels are {list_text(factor.levels)}.{hint}",
            )
    context.state[key] = {"levels": wanted}


def _need_order(context: Context, node: Binary, factor_node: Node, factor: Value, operator: str) -> None:
    if operator not in ("==", "!=") and factor.kind != "ordered":
        raise context.error(
            node,
            f"{factor_text(describe(factor_node), factor)} without an order, so '{node.operator}' "
            "has no meaning; use == or !=, or ordered()",
        )


def _compare_factors(context: Context, node: Binary, left: Operand, right: Operand) -> Value:
    if not (isinstance(left, Value) and isinstance(right, Value)):  # pragma: no cover - narrowed by the caller
        raise TypeError
    if {str(level) for level in left.levels} != {str(level) for level in right.levels}:
        raise context.error(
            node,
            f"the factors have different levels: {list_text(left.levels)} and {list_text(right.levels)}; "
            "give both the same levels with factor(..., levels=c(...))",
        )
    _need_order(context, node, node.left, left, node.operator)
    place = {str(level): i for i, level in enumerate(left.levels)}
    places = np.array([place[str(level)] for level in right.levels], dtype=np.int64)
    return _known(COMPARISON[node.operator](left.values, places[right.values]), left, right)


def _member(context: Context, node: Binary, left: Operand, right: Operand) -> Operand:
    """``x %in% c(...)``."""
    if not isinstance(left, Value) or isinstance(right, Value) or right is None:
        raise context.error(node, "%in% needs a column on the left and constants such as c('a', 'b') on the right")
    wanted = right.values if isinstance(right, Items) else (right,)
    if left.is_factor:
        _check_level(context, node, node.left, left, wanted)
        positions = [level_index(left.levels, item) for item in wanted]
        return _known(np.isin(left.values, [p for p in positions if p is not None]), left)
    if any(isinstance(item, str) for item in wanted):
        raise context.error(node, f"{describe(node.left)} holds numbers, but the list holds text; write numbers")
    return boolean(np.isin(left.values, np.array(wanted, dtype=np.float64)))


def _sequence(context: Context, node: Binary, left: Operand, right: Operand) -> Items:
    """``1:5`` among constants."""
    if isinstance(left, Value) or isinstance(right, Value):
        raise context.error(
            node, "':' between columns works only between terms; inside an expression write interaction(a, b)"
        )
    first = float(_numbers(context, node.left, left))
    last = float(_numbers(context, node.right, right))
    if not np.isfinite(last - first) or abs(last - first) > 1e6:
        raise context.error(node, f"the sequence {first:g}:{last:g} is too long; give its numbers with c()")
    step = 1.0 if last >= first else -1.0
    return Items(tuple(first + step * i for i in range(int(abs(last - first) + 1e-10) + 1)))
