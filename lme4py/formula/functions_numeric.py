"""Elementwise functions of expressions, with R's names, arguments and numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lme4py.formula.factors import as_number, text_factor
from lme4py.formula.nodes import Name
from lme4py.formula.operands import CallSite, FloatArray, Items, Operand, boolean, factor_text, list_text
from lme4py.formula.values import Value

Body = Callable[..., Operand]
# Numbers that a formula may write out.
_MOST_CONSTANTS = 1_000_001


def _special(name: str) -> Callable[[Any], Any]:
    def call(x: Any) -> Any:
        from scipy import special

        return getattr(special, name)(x)

    return call


def elementwise(function: Callable[[Any], Any]) -> Body:
    """A function of one numeric argument `x`; constants stay constants, matrices keep their columns."""

    def body(site: CallSite, x: Operand) -> Operand:
        return _map(site, "x", x, function)

    return body


def _map(site: CallSite, argument: str, operand: Operand, function: Callable[[Any], Any]) -> Operand:
    with np.errstate(all="ignore"):
        if isinstance(operand, Value) and operand.kind == "matrix":
            return Value("matrix", function(operand.values), suffixes=operand.suffixes)
        if isinstance(operand, Value):
            return Value("numeric", function(site.numbers(argument, operand)))
        return float(function(np.float64(site.constant(argument, operand))))


def identity(site: CallSite, x: Operand) -> Operand:
    """``I(x)``: the same value; arithmetic signs inside mean arithmetic."""
    return x


def log(site: CallSite, x: Operand, base: Operand = math.e) -> Operand:
    """Logarithm to a base, the natural one by default."""
    b = site.constant("base", base)
    if not (b > 0 and b != 1 and math.isfinite(b)):
        raise site.error(f"argument 'base' must be positive and not 1, not {b:g}", "base")
    exact: dict[float, Callable[[Any], Any]] = {math.e: np.log, 2.0: np.log2, 10.0: np.log10}
    return _map(site, "x", x, exact.get(b, lambda v: np.log(v) / math.log(b)))


def round_(site: CallSite, x: Operand, digits: Operand = 0.0) -> Operand:
    """Rounding to decimal digits; halves go to the even neighbour, as in R."""
    d = site.constant("digits", digits)
    if d != int(d):
        raise site.error(f"argument 'digits' must be a whole number, not {d:g}", "digits")
    if d <= 0:
        return _map(site, "x", x, lambda v: np.round(v, int(d)))
    # numpy multiplies by 10^digits first, which turns 0.15 into 0.2; R and Python round the number itself.
    exact = np.frompyfunc(lambda v: round(v, int(d)), 1, 1)
    return _map(site, "x", x, lambda v: np.asarray(exact(v), dtype=np.float64))


def pmin(site: CallSite, *x: Operand) -> Operand:
    """Smallest of the arguments, row by row."""
    return _parallel(site, np.minimum, x)


def pmax(site: CallSite, *x: Operand) -> Operand:
    """Largest of the arguments, row by row."""
    return _parallel(site, np.maximum, x)


def _parallel(site: CallSite, function: Any, operands: tuple[Operand, ...]) -> Operand:
    if not operands:
        raise site.error("needs at least one column")
    columns = [_numbers_or_constant(site, f"..{i}", operand) for i, operand in enumerate(operands, start=1)]
    result = columns[0]
    for column in columns[1:]:
        result = function(result, column)
    return Value("numeric", result) if isinstance(result, np.ndarray) else float(result)


def _numbers_or_constant(site: CallSite, argument: str, operand: Operand) -> FloatArray | float:
    if isinstance(operand, Value):
        return site.numbers(argument, operand)
    return site.constant(argument, operand)


def ifelse(site: CallSite, test: Operand, yes: Operand, no: Operand) -> Operand:
    """`yes` where `test` holds, `no` elsewhere; two texts give a factor."""
    decided = site.numbers("test", test)
    if isinstance(yes, str) and isinstance(no, str):
        labels = np.where(decided != 0, 0, 1)
        labels[np.isnan(decided)] = -1
        return text_factor(site, labels, (yes, no))
    for argument, operand in (("yes", yes), ("no", no)):
        if isinstance(operand, str) or (isinstance(operand, Value) and operand.is_factor):
            raise site.error("'yes' and 'no' must be both numbers, or both text in quotes", argument)
    a = _numbers_or_constant(site, "yes", yes)
    b = _numbers_or_constant(site, "no", no)
    result = np.where(np.isnan(decided), np.nan, np.where(decided != 0, a, b))
    return boolean(result) if _is_boolean(yes) and _is_boolean(no) else Value("numeric", result)


def _is_boolean(operand: Operand) -> bool:
    return isinstance(operand, bool) or (isinstance(operand, Value) and operand.kind == "boolean")


def is_na(site: CallSite, x: Operand) -> Operand:
    """TRUE where a value is missing."""
    value = site.rows("x", x)
    if value.kind == "matrix":
        return boolean(np.isnan(value.values).any(axis=1))
    return boolean(value.values < 0 if value.is_factor else np.isnan(value.values))


def as_numeric(site: CallSite, x: Operand) -> Operand:
    """Numbers: of a boolean 0 and 1, of an ordered or named factor the codes 1, 2, ..."""
    if not (isinstance(x, Value) and x.is_factor) or x.kind == "label":
        return _map(site, "x", x, lambda v: v)
    return Value("numeric", _codes(site, x))


def _codes(site: CallSite, factor: Value) -> FloatArray:
    node = site.nodes.get("x")
    numbers = [as_number(level) for level in factor.levels]
    text = isinstance(node, Name) and site.context.column(node.name).kind == "text"
    if getattr(node, "function", None) == "as.character" or (text and all(v is not None for v in numbers)):
        return _level_numbers(site, factor, numbers)
    if any(number is not None for number in numbers):
        raise site.error(
            f"{factor_text(site.what('x'), factor)}, which look like numbers; as.numeric() of a factor "
            "gives the codes 1, 2, 3, ... and not these numbers. Write "
            "as.numeric(as.character(...)) for the numbers",
            "x",
        )
    if text:
        raise site.error(
            f"{site.what('x')} holds text ({list_text(factor.levels)}), which has no order; write "
            "as.numeric(factor(..., levels = c(...))) to number the levels",
            "x",
        )
    levels = factor.levels if (learnt := site.learnt()) is None else learnt["levels"]
    site.learn({"levels": levels})
    place = {level: i + 1.0 for i, level in enumerate(levels)}
    unseen = [level for level in factor.levels if level not in place]
    if unseen:
        raise site.error(
            f"level {list_text(unseen)} was not in the training data; its levels were {list_text(levels)}",
            "x",
        )
    return _look_up(factor, [place[level] for level in factor.levels])


def _level_numbers(site: CallSite, factor: Value, numbers: list[float | None]) -> FloatArray:
    bad = [level for level, number in zip(factor.levels, numbers, strict=True) if number is None]
    if bad:
        raise site.error(f"{list_text(bad)} in {site.what('x')} is not a number; correct the column", "x")
    return _look_up(factor, [float(number) for number in numbers if number is not None])


def _look_up(factor: Value, numbers: list[float]) -> FloatArray:
    # The last entry answers code -1 (missing).
    table: NDArray[np.float64] = np.array([*numbers, np.nan], dtype=np.float64)
    return np.asarray(table[factor.values], dtype=np.float64)


def as_integer(site: CallSite, x: Operand) -> Operand:
    """`as.numeric`, cut off towards zero."""
    numeric = as_numeric(site, x)
    return Value("numeric", np.trunc(numeric.values)) if isinstance(numeric, Value) else numeric


def plogis(site: CallSite, q: Operand, location: Operand = 0.0, scale: Operand = 1.0) -> Operand:
    """Distribution function of the logistic distribution (inverse logit)."""
    centre, width = _location_scale(site, "location", location, "scale", scale)
    return _map(site, "q", q, lambda v: _special("expit")((v - centre) / width))


def qlogis(site: CallSite, p: Operand, location: Operand = 0.0, scale: Operand = 1.0) -> Operand:
    """Quantile function of the logistic distribution (logit)."""
    centre, width = _location_scale(site, "location", location, "scale", scale)
    return _map(site, "p", p, lambda v: centre + width * _special("logit")(v))


def pnorm(site: CallSite, q: Operand, mean: Operand = 0.0, sd: Operand = 1.0) -> Operand:
    """Distribution function of the normal distribution."""
    centre, width = _location_scale(site, "mean", mean, "sd", sd)
    return _map(site, "q", q, lambda v: _special("ndtr")((v - centre) / width))


def qnorm(site: CallSite, p: Operand, mean: Operand = 0.0, sd: Operand = 1.0) -> Operand:
    """Quantile function of the normal distribution (probit)."""
    centre, width = _location_scale(site, "mean", mean, "sd", sd)
    return _map(site, "p", p, lambda v: centre + width * _special("ndtri")(v))


def _location_scale(site: CallSite, first: str, location: Operand, second: str, scale: Operand) -> tuple[float, float]:
    width = site.constant(second, scale)
    if not width > 0:
        raise site.error(f"argument '{second}' must be positive, not {width:g}", second)
    return site.constant(first, location), width


def combine(site: CallSite, *x: Operand) -> Operand:
    """``c(1, 2)``: constants only."""
    values: list[Any] = []
    for i, operand in enumerate(x, start=1):
        if isinstance(operand, Value):
            raise site.error("c() takes constants only; put columns side by side with cbind()", f"..{i}")
        values.extend(site.items(f"..{i}", operand))
    if len({isinstance(value, str) for value in values}) > 1:
        raise site.error(f"mixes text and numbers: c({list_text(values)}); write all of one kind")
    return Items(tuple(values))


def seq(site: CallSite, from_: Operand, to: Operand, by: Operand = None, length_out: Operand = None) -> Operand:
    """``seq(0, 10, by = 2)`` or ``seq(0, 1, length.out = 5)``."""
    first, last = site.constant("from", from_), site.constant("to", to)
    if by is not None and length_out is not None:
        raise site.error("give 'by' or 'length.out', not both", "by")
    if length_out is not None:
        count = site.whole("length.out", length_out, 1)
        if count > _MOST_CONSTANTS:
            raise site.error(f"makes {count} numbers; give at most {_MOST_CONSTANTS}", "length.out")
        return Items(tuple(np.linspace(first, last, count).tolist()))
    step = (1.0 if last >= first else -1.0) if by is None else site.constant("by", by)
    if step == 0 or (last - first) / step < 0 or (last - first) / step > _MOST_CONSTANTS:
        raise site.error(f"no sequence leads from {first:g} to {last:g} in steps of {step:g}; change 'by'", "by")
    return Items(tuple(first + step * i for i in range(int((last - first) / step + 1e-10) + 1)))
