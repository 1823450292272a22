"""Functions of expressions that make or change factors: factor(), cut(), relevel(), C() and others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from lme4py.errors import did_you_mean
from lme4py.formula.contrast_names import CONTRASTS, contrast_name, level_position
from lme4py.formula.nodes import Call, Name, Node, Number, Text
from lme4py.formula.operands import CallSite, Items, Operand, kind_text, list_text
from lme4py.formula.values import Value

# R's limit for labels of intervals; the last digits of a double are mostly rounding.
_MOST_DIGITS: Final = 12
# Each level has a name: more of them take gigabytes.
_MOST_LEVELS: Final = 1_000_000


def as_number(level: Any) -> float | None:
    """The number that a level spells, or None."""
    if isinstance(level, bool):
        return None
    if isinstance(level, str) and "_" in level:
        return None
    try:
        number = float(level)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def distinct(value: Value) -> Value:
    """Any value as a factor of the values that occur, sorted; whole numbers become ints, booleans bools."""
    if value.kind == "label":
        # factor(date) says that a level for each of them is meant.
        return Value("factor", value.values, value.levels)
    if value.is_factor:
        return value
    levels, codes = np.unique(value.values, return_inverse=True)
    codes = codes.astype(np.int64)
    codes[np.isnan(value.values)] = -1
    levels = levels[~np.isnan(levels)]
    if value.kind == "boolean":
        return Value("factor", codes, tuple(bool(level) for level in levels))
    return Value("factor", codes, tidy_levels(levels.tolist()))


def tidy_levels(levels: Sequence[Any]) -> tuple[Any, ...]:
    """Levels as ints where all are whole numbers."""
    if all(isinstance(level, float) and level.is_integer() and abs(level) < 2**53 for level in levels):
        return tuple(int(level) for level in levels)
    return tuple(levels)


def drop_unused(value: Value) -> Value:
    """The same factor with only the levels that occur."""
    used = np.bincount(value.values[value.values >= 0], minlength=len(value.levels)) > 0
    if used.all():
        return value
    places = np.append(np.where(used, np.cumsum(used) - 1, -1), -1)
    levels = tuple(level for level, keep in zip(value.levels, used, strict=True) if keep)
    return Value(value.kind, places[value.values].astype(np.int64), levels)


def recode(value: Value, levels: tuple[Any, ...], *, append: bool) -> Value:
    """The same factor on other levels; levels not among them are appended, or become missing."""
    if value.levels == levels:
        return value
    places = {str(level): i for i, level in enumerate(levels)}
    if append:
        extra = [level for level in drop_unused(value).levels if str(level) not in places]
        levels = levels + tuple(extra)
        places = {str(level): i for i, level in enumerate(levels)}
    table = np.array([*(places.get(str(level), -1) for level in value.levels), -1], dtype=np.int64)
    return Value(value.kind, table[value.values], levels)


def remember(site: CallSite, value: Value) -> Value:
    """The levels of the training data in their order; unseen ones after them, for the caller to judge."""
    learnt = site.learnt()
    if learnt is None:
        site.learn({"levels": value.levels})
        return value
    return recode(value, tuple(learnt["levels"]), append=True)


def as_rows(site: CallSite, argument: str, operand: Operand) -> Value:
    """An argument as a factor."""
    value = site.rows(argument, operand)
    if value.kind == "matrix":
        raise site.error(f"{site.what(argument)} has several columns; a factor needs one", argument)
    return distinct(value)


def text_factor(site: CallSite, index: NDArray[Any], labels: Sequence[str]) -> Value:
    """A factor from positions in `labels` (-1 where missing); levels sorted, as of a text column."""
    levels = tuple(sorted(set(labels)))
    places = _places(labels, levels)
    return remember(site, drop_unused(Value("factor", places[index], levels)))


def factor(
    site: CallSite, x: Operand, levels: Operand = None, labels: Operand = None, ordered: Operand = None
) -> Operand:
    """A factor; ``levels=`` sets the order, ``labels=`` renames."""
    value = as_rows(site, "x", x)
    order = value.kind == "ordered" if ordered is None else site.flag("ordered", ordered)
    if levels is None:
        value = remember(site, drop_unused(value))
    else:
        value = recode(value, _listed_levels(site, value, levels), append=False)
    if labels is not None:
        value = _rename(site, value, site.items("labels", labels))
    return Value("ordered" if order else "factor", value.values, value.levels)


def _listed_levels(site: CallSite, value: Value, levels: Operand) -> tuple[Any, ...]:
    listed = tidy_levels(site.items("levels", levels))
    if len({str(level) for level in listed}) < len(listed):
        raise site.error(f"argument 'levels' names a level twice: {list_text(listed)}", "levels")
    own = {str(level): level for level in value.levels}
    return tuple(own.get(str(level), level) for level in listed)


def _rename(site: CallSite, value: Value, labels: tuple[Any, ...]) -> Value:
    # On new data, levels that training did not have stand after the known ones and keep their names.
    learnt = site.learnt()
    known = len(value.levels) if learnt is None else len(learnt["levels"])
    if len(labels) != known:
        raise site.error(
            f"argument 'labels' has {len(labels)} labels for {known} levels ({list_text(value.levels)})",
            "labels",
        )
    names = [*tidy_levels(labels), *value.levels[known:]]
    merged = tuple(dict.fromkeys(names))
    return Value(value.kind, _places(names, merged)[value.values], merged)


def _places(labels: Sequence[Any], levels: Sequence[Any]) -> NDArray[np.int64]:
    """Position of each label among the levels; one place more, so that code -1 (missing) finds -1."""
    place = {level: i for i, level in enumerate(levels)}
    return np.array([*(place[label] for label in labels), -1], dtype=np.int64)


def ordered(site: CallSite, x: Operand, levels: Operand = None, labels: Operand = None) -> Operand:
    """A factor whose order of levels has a meaning (polynomial contrasts)."""
    return factor(site, x, levels, labels, True)


def as_factor(site: CallSite, x: Operand) -> Operand:
    """A factor; one that is a factor already keeps all its levels."""
    return remember(site, as_rows(site, "x", x))


def dummy(site: CallSite, x: Operand, level: Operand = None) -> Operand:
    """1 where a factor has a level, and 0 elsewhere (lme4's ``dummy(f, "level")``); the first level without one."""
    value = _factor(site, "x", x)
    if level is not None and not isinstance(level, (str, int, float)):
        raise site.error(f"argument 'level' must be one level, not {kind_text(level)}", "level")
    place = 0 if level is None else _position(site, "level", value, level, by_position=False)
    return Value("numeric", (value.values == place).astype(np.float64))


def as_ordered(site: CallSite, x: Operand) -> Operand:
    """An ordered factor; one that is a factor already keeps all its levels."""
    value = remember(site, as_rows(site, "x", x))
    return Value("ordered", value.values, value.levels)


def as_character(site: CallSite, x: Operand) -> Operand:
    """The levels as text, in sorted order."""
    value = as_rows(site, "x", x)
    return text_factor(site, value.values, [str(level) for level in value.levels])


def droplevels(site: CallSite, x: Operand) -> Operand:
    """The factor without levels that do not occur in the training data."""
    return remember(site, drop_unused(_factor(site, "x", x)))


def _factor(site: CallSite, argument: str, operand: Operand) -> Value:
    value = site.rows(argument, operand)
    if not value.is_factor:
        raise site.error(f"{site.what(argument)} is not a factor; write factor(...) around it", argument)
    return distinct(value)


def relevel(site: CallSite, x: Operand, ref: Operand) -> Operand:
    """The factor with level `ref` first."""
    value = _factor(site, "x", x)
    if value.kind == "ordered":
        raise site.error(
            f"{site.what('x')} is ordered; a reference level is for unordered factors. "
            "Write relevel(factor(..., ordered = FALSE), ref = ...)",
            "x",
        )
    if site.learnt() is not None:
        return remember(site, value)
    if not isinstance(ref, (str, int, float)):
        raise site.error(f"argument 'ref' must be one level, not {kind_text(ref)}", "ref")
    first = _position(site, "ref", value, ref, by_position=True)
    order = (value.levels[first], *value.levels[:first], *value.levels[first + 1 :])
    return remember(site, recode(value, order, append=False))


def _position(site: CallSite, argument: str, value: Value, wanted: str | float, *, by_position: bool) -> int:
    """Index of the level that an argument means; a number that could mean two levels is refused."""
    place = level_position(value.levels, wanted, by_position=by_position)
    named = level_position(value.levels, wanted, by_position=False)
    if by_position and named is not None and place != named:
        raise site.error(
            f"{wanted:g} could mean position {wanted:g} or the level {value.levels[named]!s}; "
            f'write the level in quotes: "{value.levels[named]!s}"',
            argument,
        )
    if place is None:
        hint = did_you_mean(str(wanted), [str(level) for level in value.levels])
        raise site.error(
            f"{kind_text(wanted)} is not a level of {site.what('x')}; its levels are {list_text(value.levels)}.{hint}",
            argument,
        )
    return place


def interaction(
    site: CallSite, *x: Operand, drop: Operand = False, sep: Operand = ".", lex_order: Operand = False
) -> Operand:
    """All combinations of the levels of factors; the first varies fastest unless ``lex.order=TRUE``."""
    if len(x) < 2:
        raise site.error("needs two or more factors, such as interaction(a, b)")
    if not isinstance(sep, str):
        raise site.error(f"argument 'sep' must be text in quotes, not {kind_text(sep)}", "sep")
    parts = [as_rows(site, f"..{i}", operand) for i, operand in enumerate(x, start=1)]
    only_used, lexical = site.flag("drop", drop), site.flag("lex.order", lex_order)
    size = math.prod(len(part.levels) for part in parts)
    if size > (2**62 if only_used else _MOST_LEVELS):
        advice = "make a column that holds the combination" if only_used else "write drop = TRUE for those that occur"
        raise site.error(f"has {size} combinations of levels, more than there is room for; {advice}")
    return remember(site, _cross(parts if lexical else parts[::-1], sep, backwards=not lexical, only_used=only_used))


def _cross(parts: list[Value], sep: str, *, backwards: bool, only_used: bool) -> Value:
    """Combinations with the first of `parts` varying slowest; `backwards` spells them last part first."""
    sizes = tuple(len(part.levels) for part in parts)
    missing = np.logical_or.reduce([part.values < 0 for part in parts])
    codes = np.zeros(missing.size, dtype=np.int64)
    codes[~missing] = np.ravel_multi_index(tuple(part.values[~missing] for part in parts), sizes)
    codes[missing] = -1
    listed = np.arange(math.prod(sizes))
    if only_used:
        listed, codes[~missing] = np.unique(codes[~missing], return_inverse=True)
    texts = [[str(level) for level in part.levels] for part in parts]
    places = zip(texts, np.unravel_index(listed, sizes), strict=True)
    cells = [[text[i] for i in place.tolist()] for text, place in places]
    labels = zip(*(cells[::-1] if backwards else cells), strict=True)
    return Value("factor", codes, tuple(map(sep.join, labels)))


def cut(
    site: CallSite,
    x: Operand,
    breaks: Operand,
    labels: Operand = None,
    include_lowest: Operand = False,
    right: Operand = True,
    dig_lab: Operand = 3.0,
    ordered_result: Operand = False,
) -> Operand:
    """A numeric column as intervals; one number of breaks means pieces of equal length."""
    values = site.numbers("x", x)
    closed_right = site.flag("right", right)
    lowest = site.flag("include.lowest", include_lowest)
    kind: Literal["factor", "ordered"] = "ordered" if site.flag("ordered_result", ordered_result) else "factor"
    digits = site.whole("dig.lab", dig_lab, 1)
    edges = _cut_points(site, values, breaks)
    codes = _interval_codes(values, edges, closed_right, lowest)
    if labels is False:
        return Value("numeric", np.where(codes < 0, np.nan, codes + 1.0))
    if labels is None:
        return Value(kind, codes, _interval_names(edges, closed_right, lowest, digits))
    given = _given_labels(site, labels, len(edges) - 1)
    # Intervals with the same label are one level.
    levels = tuple(dict.fromkeys(given))
    return Value(kind, _places(given, levels)[codes], levels)


def _cut_points(site: CallSite, x: NDArray[np.float64], breaks: Operand) -> NDArray[np.float64]:
    """Edges of the intervals, ascending; those that depend on the data are remembered."""
    if isinstance(breaks, Items) and not breaks.values:
        raise site.error("argument 'breaks' is empty; give two or more edges, or a number of pieces", "breaks")
    if isinstance(breaks, Items) and len(breaks.values) > 1:
        edges = np.sort(site.floats("breaks", breaks))
    else:
        pieces = site.whole("breaks", breaks, 2)
        if pieces > _MOST_LEVELS:
            raise site.error(f"makes {pieces} intervals; give at most {_MOST_LEVELS}", "breaks")
        if site.learnt() is None:
            # Values that are not finite lie in no interval, which is reported with their rows.
            finite = x[np.isfinite(x)]
            if not finite.size:
                raise site.error(
                    f"{site.what('x')} has no finite value, so there is no range to divide; "
                    "give the breaks themselves, breaks = c(...)",
                    "x",
                )
            site.learn({"range": (float(finite.min()), float(finite.max()))})
        low, high = site.learnt()["range"]
        edges = _equal_breaks(low, high, pieces)
    if not (np.diff(edges) > 0).all():
        raise site.error(
            f"the breaks {list_text(edges.tolist())} are not all different; remove the repeated ones, or give fewer",
            "breaks",
        )
    return edges


def _equal_breaks(low: float, high: float, pieces: int) -> NDArray[np.float64]:
    """Edges of `pieces` equal intervals over a range, the outer ones moved out by 0.1 % of it."""
    if low == high:
        # Without a range the 0.1 % is of the value itself (of 1 for zero), and all pieces stay equal.
        reach = (abs(low) or 1.0) / 1000
        return np.linspace(low - reach, high + reach, pieces + 1)
    reach = (high - low) / 1000
    edges = np.linspace(low, high, pieces + 1)
    edges[[0, -1]] = low - reach, high + reach
    return edges


def _interval_codes(x: NDArray[np.float64], edges: NDArray[np.float64], right: bool, lowest: bool) -> NDArray[np.int64]:
    """Index of the interval that each value lies in, -1 outside of all (and for NaN)."""
    codes = np.searchsorted(edges, x, side="left" if right else "right").astype(np.int64) - 1
    last = len(edges) - 2
    codes[codes > last] = -1
    if lowest:
        codes[x == edges[0 if right else -1]] = 0 if right else last
    return codes


def _given_labels(site: CallSite, labels: Operand, intervals: int) -> tuple[Any, ...]:
    given = tidy_levels(site.items("labels", labels))
    if len(given) != intervals:
        raise site.error(
            f"argument 'labels' has {len(given)} labels for {intervals} intervals ({list_text(given)})",
            "labels",
        )
    return given


def _interval_names(edges: NDArray[np.float64], right: bool, lowest: bool, digits: int) -> tuple[str, ...]:
    """R's ``(0,1]``, with as many digits as the edges need to differ."""
    enough = (p for p in range(digits, max(digits, _MOST_DIGITS) + 1) if _all_differ(edges, p))
    precision = next(enough, None)
    if precision is None:
        return tuple(f"Range_{i}" for i in range(1, len(edges)))
    spelled = _edge_texts(edges, precision)
    before, after = "(]" if right else "[)"
    names = [f"{before}{low},{high}{after}" for low, high in pairwise(spelled)]
    if lowest and right:
        names[0] = "[" + names[0].removeprefix(before)
    elif lowest:
        names[-1] = names[-1].removesuffix(after) + "]"
    return tuple(names)


def _all_differ(edges: NDArray[np.float64], precision: int) -> bool:
    """Whether ascending edges are all spelled in different ways; rounding keeps their order, so neighbours decide."""
    finite = edges[np.isfinite(edges)]
    largest = np.maximum(np.abs(finite[:-1]), np.abs(finite[1:]))
    unit = 10.0 ** (np.floor(np.log10(np.maximum(largest, np.finfo(float).tiny))) - precision + 1)
    # Numbers that are more than a unit of the last digit apart differ; the others are spelled to see.
    close = np.flatnonzero(np.diff(finite) <= 1.001 * unit)
    pairs = zip(finite[close].tolist(), finite[close + 1].tolist(), strict=True)
    return not any(f"{low + 0.0:.{precision}g}" == f"{high + 0.0:.{precision}g}" for low, high in pairs)


def _edge_texts(edges: NDArray[np.float64], precision: int) -> list[str]:
    """Edges as R's formatC() writes them: where -Inf is one of them, Inf is as wide as it."""
    infinity = " Inf" if np.isneginf(edges[0]) else "Inf"
    # Adding 0 takes the sign off a negative zero.
    spelled = [f"{edge + 0.0:.{precision}g}" for edge in edges.tolist()]
    return [{"inf": infinity, "-inf": "-Inf"}.get(text, text) for text in spelled]


def contrasts(site: CallSite, x: Operand, contr: Operand = None) -> Operand:
    """``C(x, contr.sum)``: a factor with the contrasts that its columns shall have."""
    value = remember(site, as_rows(site, "x", x))
    node = site.nodes.get("contr")
    kind = None if node is None else _contrast_kind(site, value, node)
    return Value(value.kind, value.values, value.levels, contrasts=kind)


def _contrast_kind(site: CallSite, value: Value, node: Node) -> str:
    """A contrast name; a base is named as a level, ``contr.treatment('b')``, as unused ones may still go."""
    word = getattr(node, "name", None) or getattr(node, "function", None) or getattr(node, "value", None)
    if not isinstance(word, str):
        raise site.error(f"the second argument must be contrasts, one of {', '.join(CONTRASTS)}", "contr")
    name = contrast_name(word)
    if name is None:
        hint = did_you_mean(word, [*CONTRASTS, "Sum", "Helmert", "Treatment", "Poly", "Diff", "SAS"])
        raise site.error(f"'{word}' is not known; contrasts are {', '.join(CONTRASTS)}.{hint}", "contr")
    if not isinstance(node, Call) or not node.arguments:
        return name
    if name != "contr.treatment" or len(node.arguments) > 1:
        raise site.error(f"{word}() takes no arguments here; only contr.treatment(base = ...) does", "contr")
    argument = node.arguments[0]
    if argument.name not in (None, "base", "ref", "reference"):
        raise site.error(f"{word}() has no argument '{argument.name}'; write base = ...", "contr")
    if not isinstance(argument.value, (Text, Number, Name)):
        raise site.error(f"the base of {word}() must be a level in quotes or its position", "contr")
    if isinstance(argument.value, Name):
        raise site.error(f'the base of {word}() must be in quotes: "{argument.value.name}"', "contr")
    # contr.treatment(2) is R's position; Treatment(2) of patsy and formulaic names a level.
    by_position = word.startswith("contr.") and isinstance(argument.value, Number)
    base = _position(site, "contr", value, argument.value.value, by_position=by_position)
    level = str(value.levels[base])
    quote = '"' if "'" in level else "'"
    return f"{name}({quote}{level}{quote})"
