"""The rows that a model uses, and copies of the columns that it keeps of them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lme4py.chunks import chunk, from_size
from lme4py.data.beside import beside
from lme4py.data.column import Column
from lme4py.data.frame import Frame, missing_rows
from lme4py.design.beside.given import Given, column_of_text, given_text, numbers_of
from lme4py.design.design import RandomTerm
from lme4py.errors import DataError
from lme4py.formula.deparse import names_in
from lme4py.formula.nodes import Node
from lme4py.formula.values import Value

__all__ = ["NaAction", "UsedRows", "kept_columns"]

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
NaAction = Literal["omit", "exclude", "raise"]

# Rows from which on a fit holds nothing twice.
_LARGE = from_size(1_000_000)
# Rows that are compared at one time.
_ROWS = chunk(2**18)


class UsedRows:
    """The rows of a model: one mask of missing values over every column and argument that it needs.

    The columns are copies: nothing that happens to the user's data later reaches them.

    Parameters
    ----------
    frame : Frame
    nodes : sequence of Node
        The variables of the formula.
    arguments : mapping of str to object
        `weights` and `offset` as the user gave them; those that are None are left out.
    na_action : str
    counted : Node, optional
        A binomial response: weights of zero are rows without trials, in which it may be anything.

    Attributes
    ----------
    columns : dict of str to Column
        Those of the formula and of arguments that are names or expressions, on the rows used.
    given : dict of str to Given
        How each argument was given.
    keep : ndarray of bool, shape (n_data,)
    n : int
        Rows used.
    """

    def __init__(
        self,
        frame: Frame,
        nodes: Sequence[Node],
        arguments: Mapping[str, Any],
        na_action: NaAction,
        counted: Node | None = None,
    ) -> None:
        self.frame = frame
        self.na_action = na_action
        self.given: dict[str, Given] = {}
        values: dict[str, Column] = {}
        for what, argument in arguments.items():
            if isinstance(argument, str):
                self.given[what] = given_text(argument, what, frame.names)
            elif argument is not None:
                self.given[what], values[what] = Given(what), beside(argument, what, frame)
        used = [*nodes, *(given.node for given in self.given.values() if given.node is not None)]
        names = dict.fromkeys(name for node in used for name in names_in(node, frame.names))
        # A name that is no column may be a constant such as pi; `evaluate` judges it, with a caret.
        columns = {name: frame.column(name) for name in names if name in frame}
        empty = None if counted is None else self._without_trials(values.get("weights"))
        own = set() if counted is None or empty is None else _of_response(counted, nodes, frame.names)
        self.keep = _complete_rows([*columns.values(), *values.values()], frame, na_action, empty, own)
        self.n = int(np.count_nonzero(self.keep))
        self.columns = {name: self._copied(column) for name, column in columns.items()}
        # The response of a row without trials says nothing, whatever it is.
        self._stand_ins = {} if empty is None else self._with_trials(own, empty[self.keep])
        self._values = {what: self._copied(column) for what, column in values.items()}

    def _copied(self, column: Column) -> Column:
        return column.own() if self.n == self.keep.size else column.take(self.keep)

    def column(self, name: str) -> Column:
        """A column on the rows used."""
        # For a name that is no column the frame writes the error, with its suggestions.
        return self.columns[name] if name in self.columns else self.frame.column(name).take(self.keep)

    def response_column(self, name: str) -> Column:
        """The same for the response, with values of a row that has trials in the rows that have none."""
        return self._stand_ins[name] if name in self._stand_ins else self.column(name)

    def _without_trials(self, weights: Column | None) -> BoolArray | None:
        """Rows whose number of trials is zero, where there are any."""
        given = self.given.get("weights")
        if given is None:
            return None
        column = column_of_text(given.text, "weights", self.frame) if weights is None else weights
        empty = np.asarray(column.values == 0.0)
        return empty if column.kind == "numeric" and empty.any() and not empty.all() else None

    def _with_trials(self, own: Collection[str], empty: BoolArray) -> dict[str, Column]:
        place = np.where(empty, int(np.argmin(empty)), np.arange(empty.size))
        return {name: self.columns[name].take(place) for name in own if name in self.columns}

    def numbers(self, what: str, values: Mapping[Node, Value]) -> FloatArray | None:
        """An argument on the rows used, shape (n,); None where there is none.

        Parameters
        ----------
        what : str
        values : mapping of Node to Value
            Of all expressions of the model.
        """
        given = self.given.get(what)
        if given is None:
            return None
        return self._values[what].values if given.node is None else numbers_of(values[given.node], given)


class KeptColumns(Mapping[str, Column]):
    """Columns of many rows, some of them made anew from codes whenever they are asked for.

    Parameters
    ----------
    columns : mapping of str to Column
        Those that are made anew without values.
    coded : mapping of str to (ndarray, shape (J,), ndarray of int, shape (n,))
        The distinct numbers, and each row's place among them.
    """

    def __init__(
        self, columns: Mapping[str, Column], coded: Mapping[str, tuple[FloatArray, NDArray[np.integer[Any]]]]
    ) -> None:
        self._columns, self._coded = columns, coded

    def __getitem__(self, name: str) -> Column:
        column = self._columns[name]
        if name not in self._coded:
            return column
        numbers, codes = self._coded[name]
        return replace(column, values=numbers[codes])

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)


def kept_columns(
    columns: Mapping[str, Column], fixed: FloatArray, names: Sequence[str], terms: Sequence[RandomTerm]
) -> Mapping[str, Column]:
    """Columns for as long as a fit lives, without what its design holds anyway.

    Parameters
    ----------
    columns : mapping of str to Column
    fixed : ndarray, shape (n, p)
        X.
    names : sequence of str
        Of its columns.
    terms : sequence of RandomTerm
    """
    if fixed.shape[0] < _LARGE:
        return columns
    kept, coded = dict(columns), {}
    groups = {term.group: term for term in terms if term.relation is None}
    for name, column in columns.items():
        if column.kind != "numeric":
            continue
        if name in names:
            own = fixed[:, names.index(name)]
            if own.flags.c_contiguous and np.array_equal(own, column.values):
                kept[name] = replace(column, values=own)
        elif name in groups:
            numbers, codes = np.asarray(groups[name].levels, dtype=np.float64), groups[name].codes
            places = [slice(start, start + _ROWS) for start in range(0, codes.size, _ROWS)]
            if all(np.array_equal(numbers[codes[place]], column.values[place]) for place in places):
                kept[name], coded[name] = replace(column, values=numbers[:0]), (numbers, codes)
    return KeptColumns(kept, coded) if coded else kept


def _of_response(response: Node, nodes: Sequence[Node], names: tuple[str, ...]) -> set[str]:
    """Columns that are used in the response only."""
    elsewhere = {name for node in nodes if node != response for name in names_in(node, names)}
    return set(names_in(response, names)) - elsewhere


def _complete_rows(
    columns: Sequence[Column],
    frame: Frame,
    na_action: NaAction,
    empty: BoolArray | None = None,
    of_response: Collection[str] = (),
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
