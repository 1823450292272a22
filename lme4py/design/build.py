"""The first modular step: a formula and data become a `Design`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from lme4py.data.cells import COUNT
from lme4py.data.column import Column
from lme4py.data.frame import Frame, read_frame
from lme4py.data.spellings import warn_of_spellings
from lme4py.design.beside.by_category import category_offset, given_by_category, offset_arguments
from lme4py.design.beside.given import finite_offset, positive_weights
from lme4py.design.beside.related import Relations, read_relations
from lme4py.design.coding import drop_unused
from lme4py.design.design import Design, Predictor, RandomTerm
from lme4py.design.fixed import (
    FixedPart,
    fixed_part,
    make_variables,
    name_of,
    used_variables,
    user_contrasts,
    without_intercept,
)
from lme4py.design.names import ColumnNames
from lme4py.design.parts import DIFFERENCES, with_parts
from lme4py.design.recipe import BarRecipe, Recipe, offset_values
from lme4py.design.responses.names import named_parts
from lme4py.design.responses.responses import BoundResponses
from lme4py.design.rows import NaAction, UsedRows, kept_columns
from lme4py.design.smooths import has_smooths, is_smooth, refuse_smooths, with_smooths
from lme4py.design.terms import join_terms, random_terms
from lme4py.errors import DataError, FormulaError, OptionError, RankWarning, did_you_mean, warn
from lme4py.families.base import Family
from lme4py.families.registry import response_family
from lme4py.families.response import ResponseData
from lme4py.formula.deparse import deparse, names_in
from lme4py.formula.evaluate import evaluate, learn
from lme4py.formula.nodes import Formula, Name, Node
from lme4py.formula.parse import DOUBLE_BAR_NOTE, parse_formula
from lme4py.formula.several import refuse_several
from lme4py.formula.values import Value, check_finite, response_values

__all__ = [
    "NaAction",
    "assemble",
    "check_parts",
    "evaluate_all",
    "formula_design",
    "lformula",
    "model_nodes",
    "read_formula",
]

FloatArray = NDArray[np.float64]
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
    family: str | Family | None = None,
    levels: Iterable[Any] | None = None,
    beside: Sequence[Node] = (),
    parts: Mapping[str, str] | None = None,
    relmat: Mapping[str, Any] | None = None,
) -> Design:
    """Read a formula and data into the arrays of a mixed model.

    Parameters
    ----------
    formula : str
        As in lme4: ``"Reaction ~ Days + (Days | Subject)"``.
    data : data frame
        pandas, polars, pyarrow, a dict of columns, or anything narwhals reads.
    weights : str or array of shape (n_data,), optional
        Prior weights, positive: the residual variance of row i is sigma^2 / weights[i]. A column name, an expression
        in the language of formulas (``"1/vi"``), or values; values with an index are matched with the rows by it.
    offset : str, array of shape (n_data,) or mapping, optional
        Added to the linear predictor, together with any ``offset()`` of the formula; as `weights`. Of unordered
        categories also one for each, see `lme4py.design.beside.by_category`.
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
    family : str or Family, optional
        A response family, or its name: the response is checked for it and stands in `Design.response`.
        "ordinal": ordered categories, with thresholds in the place of the intercept.
    levels : iterable, optional
        Ordinal: the categories of the response, lowest first.
    beside : sequence of Node
        Other variables of the model, such as those of a residual structure: rows in which they are missing are not
        used, and `Design.columns` holds their columns.
    parts : dict of str to str, optional
        One-sided formulas of further linear predictors by their names: ``{"zero_inflation": "~ x"}``.
    relmat : dict, optional
        Grouping factor -> known covariance of its levels: a DataFrame, (matrix, labels), `Precision` or `Pedigree`.

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
    parsed = read_formula(formula, frame.names)
    refuse_several(parsed.response, parsed.text)
    return formula_design(
        parsed,
        frame,
        weights=weights,
        offset=offset,
        contrasts=contrasts,
        na_action=na_action,
        functions=functions,
        require_random=require_random,
        family=family,
        levels=levels,
        beside=beside,
        parts=parts,
        relmat=relmat,
    )


def formula_design(
    parsed: Formula,
    frame: Frame,
    *,
    weights: Any = None,
    offset: Any = None,
    contrasts: Mapping[str, str | NDArray[Any]] | None = None,
    na_action: NaAction = "omit",
    functions: Functions | None = None,
    require_random: bool = True,
    family: str | Family | None = None,
    levels: Iterable[Any] | None = None,
    beside: Sequence[Node] = (),
    parts: Mapping[str, str] | None = None,
    relmat: Mapping[str, Any] | None = None,
    responses: BoundResponses | None = None,
) -> Design:
    """The design of a formula that was read.

    Parameters
    ----------
    parsed : Formula
    frame : Frame
    weights, offset, contrasts, na_action, functions, require_random, family, levels, beside, parts, relmat
        As in `lformula`.
    responses : BoundResponses, optional
        Several, which the rows of the frame have one each of.

    Returns
    -------
    Design
    """
    further = {name: read_formula(text, frame.names) for name, text in (parts or {}).items()}
    response = check_parts(parsed, require_random and not any(map(has_smooths, (parsed, *further.values()))))
    reader = None if family is None else response_family(family)
    if reader is not None and reader.has_thresholds:
        _check_thresholds(parsed)
    for own in further.values():
        check_groups(own)
    if reader is not None and reader.is_joint:
        refuse_smooths(parsed, f"the {reader.name} family")
    for name in DIFFERENCES & further.keys():
        refuse_smooths(further[name], f"{name}=")
    bars = [bar for own in (parsed, *further.values()) for bar in own.bars]
    relations = read_relations(relmat, list(dict.fromkeys(":".join(map(name_of, bar.group)) for bar in bars)))
    nodes = list(
        dict.fromkeys([*model_nodes(parsed), *(node for own in further.values() for node in model_nodes(own))])
    )
    rows = UsedRows(
        frame,
        list(dict.fromkeys([*nodes, *beside])),
        {"weights": weights, **offset_arguments(offset)},
        na_action,
        response if reader is not None and reader.has_trials else None,
    )
    warn_of_spellings(rows.columns.values(), lambda column, levels: _rows_of_levels(column, levels, rows.columns))
    state: dict[str, Any] = {}
    parsed = with_smooths(parsed, rows)
    further = {name: with_smooths(own, rows) for name, own in further.items()}
    values = evaluate_all(parsed, rows, state, functions or {})
    design = assemble(
        parsed,
        response,
        rows,
        values,
        state,
        contrasts,
        functions or {},
        reader,
        levels,
        relations=relations,
        responses=responses,
    )
    learnt = functions or {}
    made = {name: (own, evaluate_all(own, rows, state, learnt)) for name, own in further.items()}
    return join_terms(with_parts(design, made, rows, relations))


def _rows_of_levels(column: Column, levels: Sequence[Any], columns: Mapping[str, Column]) -> list[int]:
    """How many rows have each level."""
    times = columns[COUNT].values if COUNT in columns else None
    rows = np.bincount(column.values[column.values >= 0], times, len(column.levels))
    return [int(rows[column.levels.index(level)]) for level in levels]


@lru_cache(maxsize=256)
def _parse(formula: str, names: tuple[str, ...]) -> Formula:
    return parse_formula(formula, names)


def read_formula(formula: Any, names: tuple[str, ...]) -> Formula:
    """The tree of a formula; the same text is parsed once."""
    if not isinstance(formula, str):
        raise FormulaError(f"`formula` is of type {type(formula).__name__}; give text such as 'y ~ x + (1 | group)'")
    return _parse(formula, names)


def _check_na_action(na_action: str) -> None:
    if na_action not in get_args(NaAction):
        raise OptionError(
            f"na_action is {na_action!r}.{did_you_mean(str(na_action), get_args(NaAction))} "
            "Use 'omit', 'exclude' or 'raise'"
        )


def check_parts(parsed: Formula, require_random: bool) -> Node:
    """Refuse a formula that lacks a part or computes its groups; return the response."""
    if parsed.response is None:
        raise FormulaError("the formula has no response; write it left of '~', as in 'y ~ x + (1 | group)'")
    if require_random and not parsed.bars:
        raise FormulaError(
            f"the formula '{parsed.text}' has no random-effects term; add one in brackets: (1 | group); one without "
            "any is fitted with fixed_only=True"
        )
    check_groups(parsed)
    return parsed.response


def check_groups(parsed: Formula) -> None:
    """Refuse computed groups, and offsets inside of terms."""
    in_frame = {node.name for node in model_nodes(parsed) if isinstance(node, Name)}
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


def _check_thresholds(parsed: Formula) -> None:
    """Thresholds stand in the place of the intercept: it cannot be taken out."""
    if not parsed.fixed.intercept:
        raise FormulaError(
            f"the formula '{parsed.text}' takes the intercept out, but an ordinal model has thresholds in its place, "
            "which cannot be left out (R's clmm ignores `0 +` with a warning); write 'y ~ x + (1 | group)'"
        )


def model_nodes(parsed: Formula) -> list[Node]:
    """All variables, in the order of the model: response, fixed effects, offsets, random-effects terms."""
    nodes: list[Node] = [parsed.response] if parsed.response is not None else []
    nodes += [*parsed.fixed.variables, *parsed.fixed.offsets]
    for bar in parsed.bars:
        nodes += [*bar.terms.variables, *bar.group]
    return list(dict.fromkeys(nodes))


def evaluate_all(parsed: Formula, rows: UsedRows, state: dict[str, Any], functions: Functions) -> dict[Node, Value]:
    """Every variable of the model once, on the rows used, without levels that do not occur."""
    groups = [node for bar in parsed.bars for node in bar.group]
    numbers: list[Node | None] = [parsed.response, *used_variables(parsed.fixed), *parsed.fixed.offsets]
    numbers += [left for bar in parsed.bars for left in used_variables(bar.terms)]
    texts = {node: parsed.text for node in (*numbers, *groups) if node is not None}
    texts |= {given.node: given.text for given in rows.given.values() if given.node is not None}
    if rows.n < rows.keep.size:
        for node in texts:
            if is_smooth(node):
                # As mgcv, whose bases are made of the rows used.
                continue
            learn(node, rows.frame.column, state, functions=functions)
    getters = {parsed.response: rows.response_column}
    values = {
        node: drop_unused(evaluate(node, getters.get(node, rows.column), state, functions=functions, formula=text))
        for node, text in texts.items()
    }
    for number in numbers:
        if number is not None and values[number].refusal:
            raise DataError(values[number].refusal)
    return values


def assemble(
    parsed: Formula,
    response: Node,
    rows: UsedRows,
    values: dict[Node, Value],
    state: dict[str, Any],
    contrasts: Mapping[str, str | NDArray[Any]] | None,
    functions: Functions,
    family: Family | None,
    levels: Iterable[Any] | None,
    check_rank: bool = True,
    relations: Relations | None = None,
    responses: BoundResponses | None = None,
) -> Design:
    """The design of evaluated variables.

    Parameters
    ----------
    parsed : Formula
    response : Node
    rows : UsedRows
    values : dict of Node to Value
    state : dict
        What functions learnt.
    contrasts, functions, family, levels
        As in `lformula`.
    check_rank : bool
        Leave out columns of X that depend on others.
    relations : Relations, optional
        Known covariances of levels by grouping factor.
    responses : BoundResponses, optional
        Several, which the rows have one each of.
    """
    fixed_nodes = used_variables(parsed.fixed)
    others = [node for bar in parsed.bars for node in (*used_variables(bar.terms), *bar.group)]
    chosen, notes = user_contrasts(contrasts, fixed_nodes, others, values)
    response_name = name_of(response)
    weights, offset = rows.numbers("weights", values), rows.numbers("offset", values)
    if weights is not None:
        positive_weights(weights, rows.given["weights"], zero=family is not None and family.has_trials)
    if offset is not None:
        finite_offset(offset, rows.given["offset"])
    data = None if family is None else _response(response, values, rows, weights, family, levels)
    own = given_by_category(rows, () if family is None or data is None else family.offset_labels(data))
    if own:
        offset = category_offset(rows, values, own)
    y = response_values(values[response], response_name) if data is None else data.table
    variables = make_variables(fixed_nodes, values, chosen)
    names = ColumnNames()
    names.add(parsed.fixed, variables, "the fixed effects")
    fixed = fixed_part(parsed.fixed, variables, values, rows.n, check_rank)
    if family is not None and family.has_thresholds:
        fixed = without_intercept(fixed)
    terms, bars = random_terms(parsed, values, rows, fixed, names, relations or {}, state)
    if responses is not None:
        fixed, terms = named_parts(responses, fixed, terms)
    columns = {name: (column.kind, column.levels) for name, column in rows.columns.items()}
    notes = [*_formula_notes(parsed, bars), *_dropped_note(fixed.dropped), *(data.notes if data else ()), *notes]
    warn_dropped(fixed.dropped)
    return Design(
        formula=parsed.text,
        response_name=response_name,
        y=y,
        predictors=(_predictor(fixed, terms, _total_offset(parsed, offset, values)),),
        weights=weights,
        keep=rows.keep,
        row_labels=rows.frame.row_labels,
        na_action=rows.na_action,
        recipe=Recipe(
            parsed,
            state,
            columns,
            variables,
            fixed.kept,
            bars,
            rows.given.get("offset"),
            dict(functions),
            rows.given.get("weights"),
            fixed.null,
            own,
        ),
        notes=tuple(notes),
        response=data,
        columns=kept_columns(rows.columns, fixed.X, fixed.names, terms),
        labelled=rows.frame.labelled,
        source=rows.frame.again().again,
        responses=responses,
    )


def _predictor(fixed: FixedPart, terms: tuple[RandomTerm, ...], offset: FloatArray | None) -> Predictor:
    return Predictor(fixed.X, fixed.names, fixed.assign, fixed.labels, terms, offset, fixed.dropped, fixed.alias)


def _response(
    node: Node,
    values: Mapping[Node, Value],
    rows: UsedRows,
    weights: FloatArray | None,
    family: Family,
    levels: Iterable[Any] | None,
) -> ResponseData:
    """The response checked for its family."""
    column = rows.columns.get(node.name) if isinstance(node, Name) else None
    return family.coerce(values[node], name_of(node), weights, levels=levels, column=column)


def _formula_notes(parsed: Formula, bars: Iterable[BarRecipe]) -> list[str]:
    """The parser's notes; the one on ``||`` only where a factor keeps a block of several columns."""
    block = any(
        "||" in bar.label and bar.n_columns > 1 and any(v.kind == "factor" for v in bar.variables.values())
        for bar in bars
    )
    return [note for note in parsed.notes if note != DOUBLE_BAR_NOTE or block]


def _dropped_note(dropped: tuple[str, ...]) -> list[str]:
    return [_dropped_words(dropped, 8)] if dropped else []


def warn_dropped(dropped: tuple[str, ...]) -> list[str]:
    """Warn of columns that are left out of the fixed effects, where there are any; the note on them."""
    if dropped:
        warn(_dropped_words(dropped, len(dropped)), RankWarning)
    return _dropped_note(dropped)


def _dropped_words(dropped: tuple[str, ...], most: int) -> str:
    """Which columns are left out, and why; at most so many names."""
    if len(dropped) == 1:
        return f"The column {dropped[0]} is left out of the fixed effects: the columns before it determine it."
    shown = ", ".join(dropped[:most]) + (", ..." if len(dropped) > most else "")
    return (
        f"{len(dropped)} columns are left out of the fixed effects because the columns before them determine "
        f"them: {shown}."
    )


def _total_offset(parsed: Formula, given: FloatArray | None, values: Mapping[Node, Value]) -> FloatArray | None:
    parts = [offset_values(values[node], name_of(node)) for node in parsed.fixed.offsets]
    if given is None and not parts:
        return None
    total = np.sum(parts, axis=0)
    if given is not None:
        total = given + (total if given.ndim == 1 or not parts else total[:, None])
    check_finite(total, ["offset"], "the {name}")
    return np.asarray(total, dtype=np.float64)
