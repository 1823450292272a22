"""The first modular step: a formula and data become a `Design`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from lme4py.data.column import Column
from lme4py.data.frame import Frame, column_from_array, missing_rows, read_frame
from lme4py.design.categories import ordinal_response
from lme4py.design.coding import Variable, drop_unused, matrix_columns, model_columns, stack_columns
from lme4py.design.design import Design, RandomTerm
from lme4py.design.fixed import (
    FixedPart,
    check_finite,
    fixed_part,
    make_variables,
    name_of,
    response_values,
    used_variables,
    user_contrasts,
    without_intercept,
)
from lme4py.design.names import ColumnNames
from lme4py.design.random import (
    Grouping,
    check_levels,
    grouping_factor,
    shared_columns,
    term_order,
)
from lme4py.design.recipe import BarRecipe, Recipe, offset_column, offset_values
from lme4py.design.response import ResponseData, glmm_response
from lme4py.errors import DataError, DesignError, FormulaError, OptionError, RankWarning, did_you_mean, warn
from lme4py.formula.deparse import deparse, names_in
from lme4py.formula.evaluate import evaluate, learn
from lme4py.formula.nodes import Bar, Formula, Name, Node
from lme4py.formula.parse import DOUBLE_BAR_NOTE, parse_formula
from lme4py.formula.values import Value

__all__ = ["NaAction", "lformula"]

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
NaAction = Literal["omit", "exclude", "raise"]
Functions = Mapping[str, Callable[..., Any]]


def lformula(
    formula: str,
    data: Any,
    *,
    weights: Any = None,
    offset: Any = None,
    contrasts: Mapping[str, str | NDArray[Any]] | None = None,
    na_action: NaAction = "omit",
    functions: Functions | None = None,
    require_random: bool = True,
    family: str | None = None,
    levels: Iterable[Any] | None = None,
) -> Design:
    """Read a formula and data into the arrays of a mixed model.

    Parameters
    ----------
    formula : str
        As in lme4: ``"Reaction ~ Days + (Days | Subject)"``.
    data : data frame
        pandas, polars, pyarrow, a dict of columns, or anything narwhals reads.
    weights : str or array of shape (n_data,), optional
        Prior weights, positive: the residual variance of row i is sigma^2 / weights[i].
    offset : str or array of shape (n_data,), optional
        Added to the linear predictor, together with any ``offset()`` of the formula.
    contrasts : dict, optional
        Factor -> "contr.sum", "contr.helmert", "contr.treatment", "contr.SAS", "contr.poly", or a matrix with
        one row per level. For the fixed effects only, as in lme4.
    na_action : {"omit", "exclude", "raise"}
        Rows with a missing value in any column needed: left out; left out, and NaN in fitted values and
        residuals; or an error.
    functions : dict of str to callable, optional
        Functions of your own that the formula may call.
    require_random : bool
        Refuse a formula without a random-effects term.
    family : str, optional
        Canonical name of a response family: the response is checked for it and stands in `Design.response`.
        "ordinal": ordered categories, with thresholds in the place of the intercept.
    levels : iterable, optional
        Ordinal: the categories of the response, lowest first.

    Returns
    -------
    Design

    Examples
    --------
    >>> data = {"y": [1.0, 3.0, 2.0, 5.0], "x": [0.0, 1.0, 0.0, 1.0], "g": ["a", "a", "b", "b"]}
    >>> design = lformula("y ~ x + (1 | g)", data)
    >>> design.x_names, design.X.shape, design.Zt.shape, design.n_theta
    (('Intercept', 'x'), (4, 2), (2, 4), 1)
    """
    _check_na_action(na_action)
    frame = read_frame(data)
    parsed = _parsed(formula, frame.names)
    response = _check_parts(parsed, require_random)
    if family == "ordinal":
        _check_thresholds(parsed)
    rows = _Rows(frame, parsed, weights, offset, na_action, trials=family == "binomial")
    state: dict[str, Any] = {}
    values = _evaluate(parsed, rows, state, functions or {})
    return _assemble(parsed, response, rows, values, state, contrasts, functions or {}, family, levels)


@lru_cache(maxsize=256)
def _parse(formula: str, names: tuple[str, ...]) -> Formula:
    return parse_formula(formula, names)


def _parsed(formula: Any, names: tuple[str, ...]) -> Formula:
    if not isinstance(formula, str):
        raise FormulaError(f"`formula` is of type {type(formula).__name__}; give text such as 'y ~ x + (1 | group)'")
    return _parse(formula, names)


def _check_na_action(na_action: str) -> None:
    if na_action not in get_args(NaAction):
        raise OptionError(
            f"na_action is {na_action!r}.{did_you_mean(str(na_action), get_args(NaAction))} "
            "Use 'omit', 'exclude' or 'raise'"
        )


def _check_parts(parsed: Formula, require_random: bool) -> Node:
    """Refuse a formula that lacks a part or computes its groups; return the response."""
    if parsed.response is None:
        raise FormulaError("the formula has no response; write it left of '~', as in 'y ~ x + (1 | group)'")
    if require_random and not parsed.bars:
        raise FormulaError(f"the formula '{parsed.text}' has no random-effects term; add one in brackets: (1 | group)")
    in_frame = {node.name for node in _model_nodes(parsed) if isinstance(node, Name)}
    for bar in parsed.bars:
        for node in bar.group:
            # lme4 evaluates the expression among the variables of the model, not among all columns.
            if not isinstance(node, Name) and not in_frame.issuperset(names_in(node)):
                start, end = node.span
                raise FormulaError(
                    f"the grouping factor {deparse(node)} is computed from a column that is not itself in "
                    "the formula, which lme4 does not accept; group by a column (numbers are labels there); "
                    "store computed groups as a column first",
                    parsed.text,
                    start,
                    end,
                )
        if bar.terms.offsets:
            raise FormulaError(f"offset() has no meaning inside {bar.label}; move it out of the brackets")
    return parsed.response


def _check_thresholds(parsed: Formula) -> None:
    """Thresholds stand in the place of the intercept: it cannot be taken out."""
    if not parsed.fixed.intercept:
        raise FormulaError(
            f"the formula '{parsed.text}' takes the intercept out, but an ordinal model has thresholds in its place, "
            "which cannot be left out (R's clmm ignores `0 +` with a warning); write 'y ~ x + (1 | group)'"
        )


def _model_nodes(parsed: Formula) -> list[Node]:
    """All variables, in the order of the model: response, fixed effects, offsets, random-effects terms."""
    nodes: list[Node] = [parsed.response] if parsed.response is not None else []
    nodes += [*parsed.fixed.variables, *parsed.fixed.offsets]
    for bar in parsed.bars:
        nodes += [*bar.terms.variables, *bar.group]
    return list(dict.fromkeys(nodes))


class _Rows:
    """The rows that a model uses: one mask of missing values over every column and argument it needs."""

    def __init__(
        self, frame: Frame, parsed: Formula, weights: Any, offset: Any, na_action: NaAction, trials: bool = False
    ) -> None:
        self.frame = frame
        self.na_action = na_action
        self.offset_column = offset if isinstance(offset, str) else None
        self.weights_column = weights if isinstance(weights, str) else None
        names = dict.fromkeys(name for node in _model_nodes(parsed) for name in names_in(node, frame.names))
        # A name that is no column may be a constant such as pi; `evaluate` judges it, with a caret.
        columns = {name: frame.column(name) for name in names if name in frame}
        arguments = {
            "weights": _argument(frame, weights, "weights"),
            "offset": _argument(frame, offset, "offset"),
        }
        given = {name: column for name, column in arguments.items() if column is not None}
        empty = _without_trials(given.get("weights")) if trials else None
        own = {} if empty is None else _of_response(parsed, columns)
        self.keep = _complete_rows([*columns.values(), *given.values()], frame, na_action, empty, own)
        self.n = int(np.count_nonzero(self.keep))
        if self.n < self.keep.size:
            columns = {name: column.take(self.keep) for name, column in columns.items()}
            given = {name: column.take(self.keep) for name, column in given.items()}
        self.columns = columns
        # The response of a row without trials says nothing, whatever it is.
        self.stand_ins = {} if empty is None else _stand_ins(columns, own, empty[self.keep])
        # Predictions from the training data replay the offset argument from its column.
        self.training = {**columns, self.offset_column: given["offset"]} if self.offset_column else columns
        self.weights = _check_weights(given["weights"], zero=trials) if "weights" in given else None
        self.offset = offset_column(given["offset"]) if "offset" in given else None


def _argument(frame: Frame, given: Any, what: str) -> Column | None:
    """`weights` or `offset` as a column, from a name or an array."""
    if given is None:
        return None
    return frame.column(given) if isinstance(given, str) else column_from_array(given, what, frame.n_rows)


def _without_trials(weights: Column | None) -> BoolArray | None:
    """Rows whose number of trials is zero, where there are any."""
    if weights is None or weights.kind != "numeric":
        return None
    empty = np.asarray(weights.values == 0.0)
    return empty if empty.any() and not empty.all() else None


def _of_response(parsed: Formula, columns: Mapping[str, Column]) -> dict[str, Column]:
    """Columns that are used in the response only."""
    own = names_in(parsed.response) if parsed.response is not None else []
    elsewhere = {name for node in _model_nodes(parsed) if node is not parsed.response for name in names_in(node)}
    return {name: columns[name] for name in own if name in columns and name not in elsewhere}


def _stand_ins(columns: Mapping[str, Column], own: Iterable[str], empty: BoolArray) -> dict[str, Column]:
    """The columns of the response with values of a row that has trials in the rows that have none."""
    place = np.where(empty, int(np.argmin(empty)), np.arange(empty.size))
    return {name: columns[name].take(place) for name in own}


def _complete_rows(
    columns: Sequence[Column],
    frame: Frame,
    na_action: NaAction,
    empty: BoolArray | None = None,
    of_response: Iterable[str] = (),
) -> BoolArray:
    """Rows without missing values; those of the response do not count in rows without trials."""
    if frame.n_rows == 0:
        raise DataError("the data have no rows; give at least one row per parameter")
    missing = missing_rows(columns, frame.n_rows)
    if empty is not None:
        others = missing_rows((column for column in columns if column.name not in of_response), frame.n_rows)
        missing = np.where(empty, others, missing)
    n_missing = int(np.count_nonzero(missing))
    if n_missing and (na_action == "raise" or n_missing == frame.n_rows):
        counts = ((column.name, int(np.count_nonzero(column.missing()))) for column in columns)
        listed = ", ".join(f"{name}: {count}" for name, count in dict(counts).items() if count)
        if na_action == "raise":
            advice = "remove these rows or fill them in, or use na_action='omit'"
        else:
            advice = "no row is left; leave out the columns with many missing values"
        raise DataError(f"{n_missing} of {frame.n_rows} rows have missing values ({listed}); {advice}")
    return ~missing


def _check_weights(column: Column, zero: bool = False) -> FloatArray:
    """Weights as numbers; `zero` ones are left to the response, which knows whether they are numbers of trials."""
    values = column.values
    if column.kind != "numeric":
        raise DataError(f"the weights {column.name!r} are not numeric; give a numeric column or an array")
    faults = {
        "negative": int((values < 0).sum()),
        "zero": 0 if zero else int((values == 0).sum()),
        "infinite": int(np.isinf(values).sum()),
    }
    if any(faults.values()):
        listed = " and ".join(f"{count} {word}" for word, count in faults.items() if count)
        raise DataError(f"the weights hold {listed} value(s) but must be positive and finite; remove these rows")
    return values


def _evaluate(parsed: Formula, rows: _Rows, state: dict[str, Any], functions: Functions) -> dict[Node, Value]:
    """Every variable of the model once, on the rows used, without levels that do not occur."""
    getter = _getter(rows)
    used = [parsed.response, *used_variables(parsed.fixed), *parsed.fixed.offsets]
    for bar in parsed.bars:
        used += [*used_variables(bar.terms), *bar.group]
    nodes = [node for node in dict.fromkeys(used) if node is not None]
    if rows.n < rows.keep.size:
        for node in nodes:
            learn(node, rows.frame.column, state, functions=functions)
    getters = {parsed.response: _response_getter(rows, getter)}
    return {
        node: drop_unused(evaluate(node, getters.get(node, getter), state, functions=functions, formula=parsed.text))
        for node in nodes
    }


def _response_getter(rows: _Rows, getter: Callable[[str], Column]) -> Callable[[str], Column]:
    return lambda name: rows.stand_ins[name] if name in rows.stand_ins else getter(name)


def _getter(rows: _Rows) -> Callable[[str], Column]:
    known, frame = rows.columns, rows.frame

    def column(name: str) -> Column:
        # For a name that is no column the frame writes the error, with its suggestions.
        return known[name] if name in known else frame.column(name).take(rows.keep)

    return column


def _assemble(
    parsed: Formula,
    response: Node,
    rows: _Rows,
    values: dict[Node, Value],
    state: dict[str, Any],
    contrasts: Mapping[str, str | NDArray[Any]] | None,
    functions: Functions,
    family: str | None,
    levels: Iterable[Any] | None,
) -> Design:
    fixed_nodes = used_variables(parsed.fixed)
    others = [node for bar in parsed.bars for node in (*used_variables(bar.terms), *bar.group)]
    chosen, notes = user_contrasts(contrasts, fixed_nodes, others, values)
    response_name = name_of(response)
    data, own_notes = _response(response, values, rows, family, levels)
    y = response_values(values[response], response_name) if data is None else data.table
    variables = make_variables(fixed_nodes, values, chosen)
    names = ColumnNames()
    names.add(parsed.fixed, variables, "the fixed effects")
    fixed = fixed_part(parsed.fixed, variables, values, rows.n)
    if family == "ordinal":
        fixed = without_intercept(fixed)
    terms, bars = _random_terms(parsed.bars, values, rows, fixed, names)
    columns = {name: (column.kind, column.levels) for name, column in rows.columns.items()}
    notes = [*_formula_notes(parsed, bars), *_dropped_note(fixed.dropped), *own_notes, *notes]
    if fixed.dropped:
        warn(_dropped_words(fixed.dropped, len(fixed.dropped)), RankWarning)
    return Design(
        formula=parsed.text,
        response_name=response_name,
        y=y,
        X=fixed.X,
        x_names=fixed.names,
        assign=fixed.assign,
        fixed_labels=fixed.labels,
        dropped=fixed.dropped,
        alias=fixed.alias,
        terms=terms,
        weights=rows.weights,
        offset=_total_offset(parsed, rows, values),
        keep=rows.keep,
        index=rows.frame.index,
        na_action=rows.na_action,
        recipe=Recipe(
            parsed,
            state,
            columns,
            variables,
            fixed.kept,
            bars,
            rows.offset_column,
            dict(functions),
            rows.weights_column,
            fixed.null,
        ),
        notes=tuple(notes),
        response=data,
        columns=rows.training,
    )


def _response(
    node: Node, values: Mapping[Node, Value], rows: _Rows, family: str | None, levels: Iterable[Any] | None
) -> tuple[ResponseData | None, list[str]]:
    """The response checked for its family, and notes."""
    if family is None:
        return None, []
    if family == "ordinal":
        column = rows.columns.get(node.name) if isinstance(node, Name) else None
        return ordinal_response(values[node], name_of(node), levels, rows.weights, column)
    return glmm_response(values[node], name_of(node), family, rows.weights), []


def _formula_notes(parsed: Formula, bars: Iterable[BarRecipe]) -> list[str]:
    """The parser's notes; the one on ``||`` only where a factor keeps a block of several columns."""
    block = any(
        "||" in bar.label and bar.n_columns > 1 and any(v.kind == "factor" for v in bar.variables.values())
        for bar in bars
    )
    return [note for note in parsed.notes if note != DOUBLE_BAR_NOTE or block]


def _dropped_note(dropped: tuple[str, ...]) -> list[str]:
    return [_dropped_words(dropped, 8)] if dropped else []


def _dropped_words(dropped: tuple[str, ...], most: int) -> str:
    """Which columns are left out, and why; at most so many names."""
    if len(dropped) == 1:
        return f"The column {dropped[0]} is left out of the fixed effects: the columns before it determine it."
    shown = ", ".join(dropped[:most]) + (", ..." if len(dropped) > most else "")
    return (
        f"{len(dropped)} columns are left out of the fixed effects because the columns before them determine "
        f"them: {shown}."
    )


def _total_offset(parsed: Formula, rows: _Rows, values: Mapping[Node, Value]) -> FloatArray | None:
    parts = [offset_values(values[node], name_of(node)) for node in parsed.fixed.offsets]
    if rows.offset is not None:
        parts.append(rows.offset)
    if not parts:
        return None
    total = np.sum(parts, axis=0)
    check_finite(total, ["offset"], "the {name}")
    return np.asarray(total, dtype=np.float64)


def _random_terms(
    bars: Iterable[Bar], values: Mapping[Node, Value], rows: _Rows, fixed: FixedPart, names: ColumnNames
) -> tuple[tuple[RandomTerm, ...], tuple[BarRecipe, ...]]:
    """The terms in lme4's order, checked, and how to replay them."""
    groups: dict[tuple[Node, ...], tuple[Grouping, NDArray[np.intp]]] = {}
    built = []
    for bar in bars:
        if bar.group not in groups:
            groups[bar.group] = grouping_factor([name_of(v) for v in bar.group], [values[v] for v in bar.group])
        term, recipe = _random_term(bar, *groups[bar.group], values, rows.n, fixed)
        names.add(recipe.terms, recipe.variables, bar.label)
        built.append((term, recipe))
    order = term_order([term.n_levels for term, _ in built])
    for term, recipe in (built[i] for i in order):
        check_levels(recipe.grouping, term.label)
    return tuple(built[i][0] for i in order), tuple(built[i][1] for i in order)


def _random_term(
    bar: Bar,
    grouping: Grouping,
    codes: NDArray[np.intp],
    values: Mapping[Node, Value],
    n: int,
    fixed: FixedPart,
) -> tuple[RandomTerm, BarRecipe]:
    nodes = used_variables(bar.terms)
    variables: dict[Node, Variable] = make_variables(nodes, values)
    names, _ = model_columns(bar.terms, variables)
    columns = matrix_columns(bar.terms, variables, {node: values[node].values for node in nodes})
    if not columns:
        raise DesignError(f"{bar.label} has no columns left of the bar; write (1 | group) or remove it")
    block = shared_columns(names, columns, fixed.X, fixed.names)
    if block is None:
        block = stack_columns(columns, n, order="C")
        check_finite(block, names, f"column {{name}} of {bar.label}")
    term = RandomTerm(grouping.name, names, grouping.levels, codes, block, bar.structure, bar.label)
    return term, BarRecipe(bar.label, bar.terms, variables, bar.group, grouping, len(names))
