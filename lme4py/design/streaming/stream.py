"""The plan of a model whose rows come in blocks, and the model's rows of one block."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lme4py.covariance import find_structure
from lme4py.data.column import Column
from lme4py.data.frame import Frame
from lme4py.data.sources.base import RowBlock, RowSource
from lme4py.data.spellings import warn_of_spellings
from lme4py.design.beside.given import Given, column_getter, finite_offset, given_text, numbers_of, positive_weights
from lme4py.design.build import assemble, check_parts, evaluate_all, model_nodes, read_formula
from lme4py.design.coding import model_matrix
from lme4py.design.design import Design
from lme4py.design.fixed import name_of
from lme4py.design.random import as_factor
from lme4py.design.recipe import Recipe, offset_values, trained_values
from lme4py.design.rows import UsedRows
from lme4py.design.smooths import refuse_smooths
from lme4py.design.streaming.survey import CellRows, Survey, SurveyPlan, Tally, used_rows
from lme4py.design.terms import check_structure
from lme4py.errors import DataError, OptionError
from lme4py.families.base import Family
from lme4py.formula.deparse import deparse, names_in, walk
from lme4py.formula.evaluate import LEARNERS, evaluate, learn
from lme4py.formula.nodes import Call, Formula, Name, Node
from lme4py.formula.values import Value, ValueKind, check_finite, response_values
from lme4py.progress import tick

__all__ = ["ModelRows", "Replay", "ResponseForm", "StreamPlan", "plan_stream", "sample_of"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]

# Functions that make levels.
_MAKE_LEVELS = frozenset(
    [
        "factor",
        "as.factor",
        "ordered",
        "as.ordered",
        "as.character",
        "interaction",
        "cut",
        "relevel",
        "droplevels",
        "C",
        "ifelse",
    ]
)


@dataclass(frozen=True)
class ModelRows:
    """Rows of a model.

    Attributes
    ----------
    X : ndarray, shape (n, p)
    y : ndarray, shape (n,)
        Of a response that a family reads, the table of `ResponseForm`, shape (n,) or (n, k).
    Z : tuple of ndarray, each (n, k)
        By term.
    codes : tuple of ndarray of int, each (n,)
        By term.
    weights, offset : ndarray, shape (n,), or None
    cells : CellRows or None
        Where each of them stands for several rows.
    """

    X: FloatArray
    y: FloatArray
    Z: tuple[FloatArray, ...]
    codes: tuple[IntArray, ...]
    weights: FloatArray | None
    offset: FloatArray | None
    cells: CellRows | None = None

    @property
    def n(self) -> int:
        """Number of rows."""
        return int(self.y.shape[0])


@dataclass(frozen=True)
class ResponseForm:
    """How the response of a family is written as numbers, and read from them.

    Attributes
    ----------
    name : str
    kind, levels, suffixes
        As in `Value`.
    """

    name: str
    kind: ValueKind
    levels: tuple[Any, ...]
    suffixes: tuple[str, ...]

    @classmethod
    def of(cls, name: str, value: Value) -> ResponseForm:
        """That of a response."""
        return cls(name, value.kind, value.levels, value.suffixes)

    def table(self, value: Value) -> FloatArray:
        """Numbers of the rows of a block."""
        if not self.levels:
            return np.asarray(value.values, dtype=np.float64)
        place = {level: float(i) for i, level in enumerate(self.levels)}
        own: FloatArray = np.array([place.get(level, np.nan) for level in value.levels])[value.values]
        return own

    def value(self, table: FloatArray) -> Value:
        """The response of some rows."""
        numbers = table.astype(np.intp) if self.levels else table
        return Value(self.kind, numbers, self.levels, self.suffixes)


@dataclass(frozen=True)
class StreamPlan:
    """A plan, and what the first pass found.

    Attributes
    ----------
    witness : Design
        The design of rows that stand for all: every level occurs in it. Columns of X that depend on others are there.
    n_sample : int
        So many of its last rows are evenly spaced in the data.
    replay : Replay
        Makes the model's rows of any block.
    tally : Tally
    passes : int
        Over the rows, so far.
    """

    witness: Design
    n_sample: int
    replay: Replay
    tally: Tally
    passes: int


def plan_stream(
    formula: str,
    source: RowSource,
    *,
    weights: Any = None,
    offset: Any = None,
    contrasts: Mapping[str, str | NDArray[Any]] | None = None,
    na_action: str = "omit",
    family: Family | None = None,
    levels: Iterable[Any] | None = None,
) -> StreamPlan:
    """Read a formula and make the first pass over the rows.

    Parameters
    ----------
    formula : str
    source : RowSource
    weights, offset : str, optional
        Columns or expressions; values of their own cannot be matched with rows that come in blocks.
    contrasts, na_action
        As in `lformula`.
    family : Family, optional
        Reads the response.
    levels : iterable, optional
        Ordered categories, as in `clmm`.
    """
    names = source.schema().names
    parsed = read_formula(formula, names)
    _check_columns(parsed, names)
    refuse_smooths(parsed, "models of rows that are streamed (control={'rows': 'memory'} reads them)")
    response = check_parts(parsed, True)
    for bar in parsed.bars:
        check_structure(bar, parsed.text)
        if bar.tag:
            raise OptionError(
                f"{bar.label} has an id, which streamed rows do not take; write the terms as one, or fit the model in "
                "memory with control={'rows': 'memory'}."
            )
        if find_structure(bar.structure).takes_positions != "nothing":
            raise OptionError(
                f"the columns of {bar.label} are the times or places of all rows, which are streamed here; fit the "
                "model in memory with control={'rows': 'memory'}."
            )
    arguments = {"weights": weights, "offset": offset}
    given = {what: _given(one, what, names) for what, one in arguments.items() if one is not None}
    asked = _survey_plan(parsed, given, names)
    if family is not None and (family.has_thresholds or family.has_trials) and isinstance(response, Name):
        # Every category must be found, however rare.
        asked = replace(asked, keys=(*asked.keys, (Name(response.name, True),)))
    survey = _survey(source, asked)
    _check_missing(survey, na_action)
    state = _learnt(parsed, given, survey)
    frame, n_sample = survey.witness()
    count = _LevelCounts(source)
    warn_of_spellings(map(frame.column, asked.columns), count)
    rows = UsedRows(frame, model_nodes(parsed), arguments, "omit")
    values = evaluate_all(parsed, rows, state, {})
    witness = assemble(parsed, response, rows, values, state, contrasts, {}, family, levels, check_rank=False)
    form = None if family is None else ResponseForm.of(name_of(response), values[response])
    return StreamPlan(witness, n_sample, Replay(witness.recipe, asked.columns, form), survey.tally, 1 + count.passes)


def _check_columns(parsed: Formula, names: tuple[str, ...]) -> None:
    """Refuse names that are no columns before any rows are read, in the words of fits in memory."""
    frame = Frame(names, 0, lambda i: Column(names[i], "numeric", np.zeros(0)))
    for node in model_nodes(parsed):
        unknown = set(names_in(node, names)) - set(names)
        for part in walk(node, contrasts=False):
            if isinstance(part, Name) and part.name in unknown:
                evaluate(part, frame.column, {}, formula=parsed.text)


def _given(argument: Any, what: str, names: tuple[str, ...]) -> Given:
    if not isinstance(argument, str):
        raise OptionError(
            f"`{what}` is of type {type(argument).__name__}, but the rows are streamed, in an order of their own; give "
            "the name of a column or an expression, or fit in memory with control={'rows': 'memory'}."
        )
    return given_text(argument, what, names)


def _survey_plan(parsed: Formula, given: Mapping[str, Given], names: tuple[str, ...]) -> SurveyPlan:
    nodes = [*model_nodes(parsed), *(one.node for one in given.values() if one.node is not None)]
    known = set(names)
    columns = tuple(dict.fromkeys(name for node in nodes for name in names_in(node, names) if name in known))
    keys: list[tuple[Node, ...]] = []
    learnt: list[str] = []
    for node in nodes:
        calls = {part.function for part in walk(node) if isinstance(part, Call)}
        own = [name for name in names_in(node, names) if name in known]
        if calls & LEARNERS:
            learnt += own
        if calls & _MAKE_LEVELS:
            # What a function that learns will make of a row is not known yet: every row that differs is kept.
            keys.append(tuple(Name(name, True) for name in own) if calls & LEARNERS else (node,))
    keys += [_group_key(bar.group, known) for bar in parsed.bars]
    return SurveyPlan(columns, tuple(dict.fromkeys(keys)), tuple(dict.fromkeys(learnt)), parsed.text)


def _group_key(group: Sequence[Node], known: set[str]) -> tuple[Node, ...]:
    if any(isinstance(part, Call) and part.function in LEARNERS for node in group for part in walk(node)):
        return tuple(Name(name, True) for node in group for name in names_in(node) if name in known)
    return tuple(Name(node.name, True) if isinstance(node, Name) else node for node in group)


def _survey(source: RowSource, asked: SurveyPlan) -> Survey:
    whole = Survey(asked)
    if source.travels:
        whole = source.reduce_blocks(_SurveyOne(asked), merged_surveys, asked.columns) or whole
    else:
        for block in source.blocks(asked.columns):
            tick("blocks of rows")
            whole.add(block)
    if whole.tally.n_rows == 0:
        raise DataError("the data have no rows; give at least one row per parameter")
    source.check_chosen(whole.tally.n_rows)
    return whole


@dataclass(frozen=True)
class _SurveyOne:
    """The survey of one block, where the block is."""

    asked: SurveyPlan

    def __call__(self, block: RowBlock) -> Survey:
        survey = Survey(self.asked)
        survey.add(block)
        return survey


def merged_surveys(first: Survey, second: Survey) -> Survey:
    """What two surveys found."""
    first.merge(second)
    return first


class _LevelCounts:
    """Rows of levels, by a pass over their column.

    Parameters
    ----------
    source : RowSource
    """

    def __init__(self, source: RowSource) -> None:
        self.source = source
        self.passes = 0

    def __call__(self, column: Column, levels: Sequence[str]) -> list[int]:
        self.passes += 1
        found = self.source.reduce_blocks(_CountLevels(column.name, tuple(levels)), np.add, [column.name])
        return [0] * len(levels) if found is None else found.astype(int).tolist()


@dataclass(frozen=True)
class _CountLevels:
    """Rows of levels in one block."""

    name: str
    levels: tuple[str, ...]

    def __call__(self, block: RowBlock) -> FloatArray:
        column = block.frame.column(self.name)
        known = column.values >= 0
        times = None if block.cells is None else block.cells.counts[known]
        rows = np.bincount(column.values[known], times, len(column.levels))
        place = {level: i for i, level in enumerate(column.levels)}
        return np.array([rows[place[level]] if level in place else 0 for level in self.levels], dtype=np.float64)


def _check_missing(survey: Survey, na_action: str) -> None:
    tally = survey.tally
    n_missing = tally.n_rows - tally.n_obs
    if not n_missing or (na_action != "raise" and tally.n_obs):
        return
    listed = ", ".join(f"{name}: {count}" for name, count in survey.missing.items() if count)
    advice = (
        "remove these rows or fill them in, or use na_action='omit'"
        if na_action == "raise"
        else "no row is left; leave out the columns with many missing values"
    )
    raise DataError(f"{n_missing} of {tally.n_rows} rows have missing values ({listed}); {advice}")


def _learnt(parsed: Formula, given: Mapping[str, Given], survey: Survey) -> dict[str, Any]:
    """What functions learn from all rows, as they do in memory."""
    state: dict[str, Any] = {}
    if not survey.plan.learnt:
        return state
    nodes = [*model_nodes(parsed), *(one.node for one in given.values() if one.node is not None)]
    learners = [node for node in nodes if any(_is_learner(part) for part in walk(node))]
    everything = survey.all_of_learnt()
    used = everything if survey.tally.n_obs == survey.tally.n_rows else survey.used_of_learnt()
    for node in learners:
        if used is not everything:
            learn(node, everything.column, state)
        if any(_is_learner(part) and deparse(part) not in state for part in walk(node)):
            evaluate(node, used.column, state, formula=parsed.text)
    return state


def _is_learner(node: Node) -> bool:
    return isinstance(node, Call) and node.function in LEARNERS


class Replay:
    """Makes the model's rows of a block; it holds no rows, and can be sent to where they are.

    Parameters
    ----------
    recipe : Recipe
    columns : tuple of str
        All columns of the model.
    form : ResponseForm, optional
        Of a response that a family reads.
    """

    def __init__(self, recipe: Recipe, columns: tuple[str, ...], form: ResponseForm | None = None) -> None:
        self.recipe = recipe
        self.columns = columns
        self.form = form
        parsed = recipe.formula
        given = [one.node for one in (recipe.weights, recipe.offset) if one is not None and one.node is not None]
        bars = [node for bar in recipe.bars for node in bar.variables]
        groups = [node for bar in recipe.bars for node in bar.group if not isinstance(node, Name)]
        self.nodes = tuple(
            dict.fromkeys([_response(parsed), *recipe.variables, *parsed.fixed.offsets, *bars, *groups, *given])
        )
        self._trained = {name: _Coder(levels) for name, (_, levels) in recipe.columns.items() if levels}
        self._parts: dict[tuple[int, int], _Coder] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"recipe": self.recipe, "columns": self.columns, "form": self.form}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["recipe"], state["columns"], state["form"])  # type: ignore[misc]

    def rows(self, block: RowBlock, tally: Tally) -> ModelRows | None:
        """The complete rows of a block; None where it has none.

        Parameters
        ----------
        block : RowBlock
        tally : Tally
            The block is counted there.
        """
        if block.frame.n_rows == 0:
            return None
        raw, keep = used_rows(block, self.columns)
        n = int(np.count_nonzero(keep))
        cells = CellRows.of(block, keep)
        if cells is None:
            tally.add(block.frame.n_rows, raw.values(), n)
        else:
            tally.add_cells(raw.values(), cells)
        if n == 0:
            return None
        columns = {name: self._as_trained(column) for name, column in raw.items()}
        get = column_getter(columns)
        recipe = self.recipe
        values = {node: evaluate(node, get, recipe.state, formula=recipe.text_of(node)) for node in self.nodes}
        return replace(self._assembled(columns, values, n), cells=cells)

    def _as_trained(self, column: Column) -> Column:
        kind, levels = self.recipe.columns[column.name]
        if kind != column.kind:
            raise DataError(f"the source changed while it was read: column {column.name!r} was {kind}.")
        if not levels or column.levels == levels:
            return column
        codes = self._trained[column.name].of_levels(column)
        return Column(column.name, kind, codes, levels, column.declared, column.refusal)

    def _assembled(self, columns: Mapping[str, Column], values: Mapping[Node, Value], n: int) -> ModelRows:
        recipe = self.recipe
        fixed = recipe.formula.fixed
        arrays = {node: trained_values(variable, values[node]) for node, variable in recipe.variables.items()}
        X = model_matrix(fixed, recipe.variables, arrays, n)
        check_finite(X, [""] * X.shape[1], "a column of the fixed effects")
        response = _response(recipe.formula)
        value = values[response]
        y = response_values(value, name_of(response)) if self.form is None else self.form.table(value)
        Z, codes = [], []
        for t, bar in enumerate(recipe.bars):
            arrays = {node: trained_values(variable, values[node]) for node, variable in bar.variables.items()}
            own = model_matrix(bar.terms, bar.variables, arrays, n)
            check_finite(own, [""] * own.shape[1], f"a column of {bar.label}")
            Z.append(own)
            codes.append(self._codes(t, columns, values))
        return ModelRows(X, y, tuple(Z), tuple(codes), self._weights(values), self._offset(values))

    def _codes(self, t: int, columns: Mapping[str, Column], values: Mapping[Node, Value]) -> IntArray:
        """Levels of the rows in the grouping factor of a term."""
        bar = self.recipe.bars[t]
        same = next(s for s, other in enumerate(self.recipe.bars) if other.grouping is bar.grouping)
        grouping = bar.grouping
        parts = []
        for i, (node, levels) in enumerate(zip(bar.group, grouping.parts, strict=True)):
            if (same, i) not in self._parts:
                self._parts[same, i] = _Coder(levels)
            coder = self._parts[same, i]
            if isinstance(node, Name):
                column = columns[node.name]
                parts.append(coder.of_levels(column) if column.is_factor else coder.of_numbers(column.values))
            else:
                own, found = as_factor(values[node], name_of(node))
                parts.append(coder.of_levels(Column(name_of(node), "factor", own, found)))
        codes = parts[0] if grouping.occurring is None else _position(parts, grouping.parts, grouping.occurring)
        if codes.size and int(codes.min()) < 0:
            raise DataError(
                f"the source changed while it was read: the grouping factor {grouping.name!r} has levels that the "
                "first pass did not find."
            )
        return codes

    def _weights(self, values: Mapping[Node, Value]) -> FloatArray | None:
        given = self.recipe.weights
        if given is None or given.node is None:
            return None
        return positive_weights(numbers_of(values[given.node], given), given)

    def _offset(self, values: Mapping[Node, Value]) -> FloatArray | None:
        parts = [offset_values(values[node], name_of(node)) for node in self.recipe.formula.fixed.offsets]
        given = self.recipe.offset
        if given is not None and given.node is not None:
            parts.append(finite_offset(numbers_of(values[given.node], given), given))
        if not parts:
            return None
        total = np.sum(parts, axis=0)
        check_finite(total, ["offset"], "the {name}")
        return np.asarray(total, dtype=np.float64)


def _response(parsed: Formula) -> Node:
    assert parsed.response is not None
    return parsed.response


def _position(parts: Sequence[IntArray], levels: Sequence[Sequence[Any]], occurring: IntArray) -> IntArray:
    position = parts[0].astype(np.intp)
    for codes, own in zip(parts[1:], levels[1:], strict=True):
        position = position * len(own) + codes
    found = np.searchsorted(occurring, position)
    found[found == occurring.size] = 0
    known = (occurring[found] == position) & (np.min(parts, axis=0) >= 0)
    return np.where(known, found, -1)


class _Coder:
    """From values to their places among levels; what makes it fast is made once.

    Parameters
    ----------
    levels : sequence
    """

    def __init__(self, levels: Sequence[Any]) -> None:
        self.levels = tuple(levels)
        self._place: dict[Any, int] | None = None
        self._last: tuple[tuple[Any, ...], NDArray[Any]] | None = None
        self._table: tuple[float, NDArray[Any]] | None = None
        self._index: Any = None

    def of_levels(self, column: Column) -> IntArray:
        """Places of the codes of a factor."""
        if column.levels is self.levels or column.levels == self.levels:
            return column.values
        if self._last is None or self._last[0] is not column.levels:
            if self._place is None:
                self._place = {level: i for i, level in enumerate(self.levels)}
            place = self._place
            table = np.array([*(place.get(level, -1) for level in column.levels), -1], dtype=np.int32)
            self._last = column.levels, table
        codes: IntArray = self._last[1][column.values]
        return codes

    def of_numbers(self, values: NDArray[Any]) -> IntArray:
        """Places of numbers."""
        if self._table is None and self._index is None:
            self._prepare()
        if self._table is None:
            found: IntArray = self._index.get_indexer(values)
            return found
        low, table = self._table
        places = values - low
        inside = (places >= 0) & (places < table.size)
        if not inside.all():
            return np.where(inside, table[np.where(inside, places, 0).astype(np.intp)], -1)
        whole = places.astype(np.intp)
        return np.where(whole == places, table[whole], -1) if not np.array_equal(whole, places) else table[whole]

    def _prepare(self) -> None:
        import pandas as pd

        numbers = np.array(self.levels, dtype=np.float64)
        low, high = float(numbers.min()), float(numbers.max())
        if high - low <= max(4 * numbers.size, 1000) and np.array_equal(numbers, np.floor(numbers)):
            table = np.full(int(high - low) + 1, -1, dtype=np.int32)
            table[(numbers - low).astype(np.intp)] = np.arange(numbers.size)
            self._table = low, table
        else:
            self._index = pd.Index(numbers)


def sample_of(plan: StreamPlan) -> ModelRows:
    """Rows that tell how large the numbers are: all that the first pass kept."""
    own = plan.witness
    return ModelRows(
        own.X,
        own.y,
        tuple(term.values for term in own.terms),
        tuple(term.codes for term in own.terms),
        own.weights,
        own.offset,
    )
