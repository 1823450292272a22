"""The groups of `over`: parts of the rows of a session."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lme4py.data.column import Column
from lme4py.errors import DataError, OptionError, did_you_mean
from lme4py.margins.population.population import SessionRows

__all__ = ["RowGroup", "groups_of"]


@dataclass(frozen=True, slots=True)
class RowGroup:
    """Rows with the same values of the variables of `over`.

    Attributes
    ----------
    values : dict of str to object
    rows : ndarray of int, or None for all
    """

    values: dict[str, Any]
    rows: NDArray[np.intp] | None

    def named(self, moved: Collection[str]) -> dict[str, Any]:
        """`values`, those of variables that scenarios set as ``over_x``: rows were grouped by what x was in the data.

        Parameters
        ----------
        moved : collection of str
            Variables that are set.
        """
        names: dict[str, Any] = {}
        for name, value in self.values.items():
            own = f"over_{name}" if name in moved else name
            while own in moved or own in names:
                own += "_"
            names[own] = value
        return names


def groups_of(session: SessionRows, over: Any, set_names: Collection[str] = ()) -> list[RowGroup]:
    """The groups, in the order of the values; one of all rows without `over`.

    Parameters
    ----------
    session : SessionRows
    over : None, str, list of str, or values of shape (n,)
        Values with an index are matched with the rows by it.
    set_names : collection of str
        Variables that scenarios set. Rows of several responses are not averaged over these: each is a group, where
        no scenario sets which one is meant.
    """
    apart = session.adapter.apart
    own = [apart] if apart and apart not in {*set_names, *session.fixed} else []
    if over is None and not own:
        return [RowGroup({}, None)]
    columns = [] if over is None else _columns(session, over)
    columns = [*(_named(session, name) for name in own if name not in [c.name for c in columns]), *columns]
    codes = np.zeros(session.n_rows, dtype=np.int64)
    decoded = []
    for column in columns:
        missing = int(column.missing().sum())
        if missing:
            raise DataError(f"over={column.name!r} has {missing} missing value(s) in the rows used; remove these rows.")
        distinct, inverse = np.unique(column.values, return_inverse=True)
        codes = codes * distinct.size + inverse
        decoded.append((column, inverse))
    groups = []
    used = session.weights > 0
    for code in np.unique(codes[used]).tolist():
        rows = np.flatnonzero((codes == code) & used)
        values = {column.name: _value(column, int(rows[0])) for column, _ in decoded}
        groups.append(RowGroup(values, rows))
    return groups


def _columns(session: SessionRows, over: Any) -> list[Column]:
    names = [over] if isinstance(over, str) else list(over) if isinstance(over, (list, tuple)) else None
    if names is None or not all(isinstance(name, str) for name in names):
        return [replace(session.beside(over, "over", as_labels=True), name="group")]
    return [_named(session, name) for name in names]


def _named(session: SessionRows, name: str) -> Column:
    column = session.column(name)
    if column is None:
        hint = did_you_mean(name, session.columns)
        raise OptionError(
            f"over={name!r} is not a column of the model or of its data.{hint} The model has "
            f"{', '.join(session.columns)}; labels of another kind can be given as an array."
        )
    return column


def _value(column: Column, row: int) -> Any:
    cell = column.values[row]
    if column.is_factor:
        return column.levels[int(cell)]
    if column.kind == "boolean":
        return bool(cell)
    return int(cell) if float(cell).is_integer() else float(cell)
