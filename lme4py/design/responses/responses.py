"""What a design of long rows knows of the wide rows that it was made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lme4py.data.column import Column
from lme4py.data.frame import Frame, missing_rows, read_frame
from lme4py.data.long import long_frame
from lme4py.design.beside.given import column_getter
from lme4py.errors import DataError
from lme4py.formula.deparse import names_in
from lme4py.formula.evaluate import evaluate
from lme4py.formula.nodes import Formula
from lme4py.formula.several import RESPONSE, SeveralResponses
from lme4py.formula.tokens import CONSTANTS
from lme4py.formula.values import Value, response_values
from lme4py.frozen import Frozen

if TYPE_CHECKING:
    import pandas as pd

    from lme4py.design.design import Design
    from lme4py.linalg.types import FloatArray

__all__ = [
    "UNIT",
    "BoundResponses",
    "beside_each_other",
    "is_long",
    "long_values",
    "observed_rows_of",
    "rows_of",
    "wide_table",
    "wide_values",
]

UNIT = "row"


@dataclass(frozen=True)
class BoundResponses(Frozen):
    """The responses of a model, each with rows of its own in the design.

    Attributes
    ----------
    several : SeveralResponses
        What stands left of the tilde.
    formula : Formula
        As the user wrote it.
    names : tuple of str
        Columns of the wide data.
    unit : str
        Column that numbers the wide rows, where these are the units whose residuals correlate; "" where the user named
        another unit.
    functions : mapping of str to callable
        The user's own.
    state : dict
        What functions learnt in the responses.
    binary : frozenset of str
        Labels of responses that may have two levels, the second of which is 1.
    """

    several: SeveralResponses
    formula: Formula
    names: tuple[str, ...]
    unit: str
    functions: Mapping[str, Callable[..., Any]]
    state: dict[str, Any]
    binary: frozenset[str] = frozenset()

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the D responses."""
        return self.several.labels

    def long(self, frame: Frame, units: Callable[[], Sequence[Any]] | None = None) -> Frame:
        """Wide rows as long ones.

        Parameters
        ----------
        frame : Frame
        units : callable, optional
            Gives what the n wide rows are called; their numbers when not given.
        """

        def numbered() -> Column:
            labels = tuple(range(frame.n_rows)) if units is None else tuple(units())
            return Column(self.unit, "factor", np.arange(len(labels), dtype=np.int32), labels)

        others = {self.unit: numbered} if self.unit else {}
        made = {self.several.text: lambda: Column(self.several.text, "numeric", self.wide(frame).ravel())}
        known = any(name in frame for node in self.several.nodes for name in names_in(node))
        return long_frame(frame, RESPONSE, self.labels, made if known else {}, others)

    def wide(self, frame: Frame) -> FloatArray:
        """The responses as numbers, (n, D), NaN where a column of one is missing."""
        return np.column_stack([self._values(frame, k) for k in range(len(self.labels))])

    def _values(self, frame: Frame, k: int) -> FloatArray:
        node, label = self.several.nodes[k], self.labels[k]
        values = np.full(frame.n_rows, np.nan)
        if not set(names_in(node)) <= {*frame.names, *CONSTANTS}:
            # Of rows of other data one response may be all that is known.
            return values
        columns = {name: frame.column(name) for name in names_in(node, frame.names)}
        present = ~missing_rows(columns.values(), frame.n_rows)
        if not present.any():
            return values
        get = column_getter({name: column.take(present) for name, column in columns.items()})
        found = evaluate(node, get, self.state, functions=self.functions, formula=self.formula.text)
        if found.refusal:
            raise DataError(found.refusal)
        numbers = self._coded(found, label) if found.is_factor else response_values(found, label)
        if numbers.ndim != 1:
            raise DataError(f"the response '{label}' has {numbers.shape[1]} columns; give one for each response")
        values[present] = numbers
        return values

    def _coded(self, value: Value, label: str) -> FloatArray:
        """A response of two levels as 0 and 1, by the levels of the fit."""
        known = self.state.setdefault(f"levels of {label}", value.levels)
        if label not in self.binary or len(known) != 2 or not set(value.levels) <= set(known):
            return response_values(value, label)
        table = np.array([float(known.index(level)) for level in value.levels])
        return np.asarray(table[value.values])

    # --- names

    def renamed(self, name: str) -> str:
        """``y1: x`` for ``response[y1]:x``, and ``y1: Intercept`` for the column of a response alone."""
        for label in sorted(self.labels, key=len, reverse=True):
            start = f"{RESPONSE}[{label}]"
            if name.startswith(start):
                return f"{label}: {name[len(start) + 1 :] or 'Intercept'}"
        return name

    def split(self, name: str) -> tuple[str, str]:
        """The response and the name of a coefficient without it."""
        label = next((one for one in self.labels if name.startswith(f"{one}: ")), "")
        return label, name[len(label) + 2 :] if label else name


def rows_of(design: Design, data: Any) -> Frame:
    """Rows that a user gives, as the model has them: of several responses a long one for each.

    Parameters
    ----------
    design : Design
        Of the fit.
    data : data frame
        Wide rows, or long ones with a column "response".
    """
    frame, responses = read_frame(data), design.responses
    if responses is None or is_long(responses, frame):
        return frame
    return responses.long(frame, lambda: _units(design, responses, frame))


def is_long(responses: BoundResponses, frame: Frame) -> bool:
    """Whether rows say which response each of them is for.

    Parameters
    ----------
    responses : BoundResponses
    frame : Frame
    """
    if RESPONSE not in frame:
        return False
    column = frame.column(RESPONSE)
    return column.is_factor and set(column.levels) <= set(responses.labels)


def observed_rows_of(design: Design, data: Any) -> Frame:
    """The same, of several responses without those that are missing.

    Parameters
    ----------
    design : Design
    data : data frame
    """
    frame = rows_of(design, data)
    if design.responses is None:
        return frame
    return frame.take(~frame.column(design.responses.several.text).missing())


def _units(design: Design, responses: BoundResponses, frame: Frame) -> list[Any]:
    """What other wide rows are called: rows of the fit, told by their label and their responses, as there."""
    labels = list(frame.index)
    repeated = len(set(labels)) < len(labels)
    new: list[Any] = [("new", place if repeated else label) for place, label in enumerate(labels)]
    if repeated or not hasattr(design.y, "shape"):
        return new
    try:
        theirs = responses.wide(frame)
    except DataError:
        # Without responses they are no rows whose responses are given.
        return new
    own = wide_values(design, design.y)
    places = {label: i for i, label in enumerate(wide_index(design))}
    for i, label in enumerate(labels):
        place = places.get(label)
        if place is not None and np.isfinite(theirs[i]).any() and np.array_equal(theirs[i], own[place], equal_nan=True):
            new[i] = place
    return new


def wide_index(design: Design) -> Any:
    """Labels of all wide rows of the data of a fit."""
    D = len(design.responses.labels) if design.responses else 1
    return without_response(design.index[::D])


def without_response(index: Any) -> Any:
    """Labels of long rows without the response, which is their last level."""
    return index.droplevel(index.nlevels - 1)


def wide_values(design: Design, values: FloatArray) -> FloatArray:
    """Values of the long rows used beside each other, (wide rows, D), NaN where a response was not used.

    Parameters
    ----------
    design : Design
    values : ndarray, shape (n,)
    """
    D = len(design.responses.labels) if design.responses else 1
    whole = np.full(design.keep.size, np.nan)
    whole[design.keep] = values
    return whole.reshape(-1, D)


def long_values(design: Design, y: Any) -> Any:
    """A new response of the long rows used from a frame with a column for each response; anything else as it is.

    Parameters
    ----------
    design : Design
    y : data frame, or values of the long rows

    Raises
    ------
    DataError
        A column, or a value of a row that was used, is missing.
    """
    responses = design.responses
    if responses is None or not hasattr(y, "columns") or len(list(y.columns)) < len(responses.labels):
        return y
    frame, n = read_frame(y), design.keep.size // len(responses.labels)
    if frame.n_rows != n:
        raise DataError(
            f"the new responses have {frame.n_rows} rows and the data of the fit {n}; give one for each row of the data"
        )
    whole = np.column_stack([frame.column(label).values for label in responses.labels]).astype(np.float64).ravel()
    return whole[design.keep]


def wide_table(design: Design, values: FloatArray) -> pd.DataFrame:
    """Values of the long rows used as a column for each response, on the index of the wide rows.

    Rows of which no response was used are left out, where the fit leaves rows out.

    Parameters
    ----------
    design : Design
        Of several responses.
    values : ndarray, shape (n,)
    """
    import pandas as pd

    labels = design.responses.labels if design.responses else ()
    table = pd.DataFrame(wide_values(design, values), index=wide_index(design), columns=list(labels))
    if design.na_action == "exclude":
        return table
    return table.iloc[np.flatnonzero(design.keep.reshape(-1, len(labels)).any(axis=1))]


def beside_each_other(table: pd.Series[float] | pd.DataFrame, labels: Sequence[str]) -> pd.DataFrame:
    """Long rows, the response of each fastest, as wide ones.

    Parameters
    ----------
    table : Series or DataFrame, n D rows
        On the index of long rows.
    labels : sequence of str, length D

    Returns
    -------
    DataFrame
        Of a Series a column for each response; of a frame with several columns those of each response, (response,
        column).
    """
    import pandas as pd

    D, index = len(labels), without_response(table.index[:: len(labels)])
    if isinstance(table, pd.Series):
        return pd.DataFrame(table.to_numpy().reshape(-1, D), index=index, columns=list(labels))
    columns = pd.MultiIndex.from_product([list(labels), list(table.columns)])
    return pd.DataFrame(table.to_numpy().reshape(-1, D * table.shape[1]), index=index, columns=columns)
