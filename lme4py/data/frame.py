"""Any data frame as named columns, converted one by one when a model asks for them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lme4py.data.column import Column, Kind
from lme4py.data.convert import sorted_levels, to_column
from lme4py.errors import DataError, did_you_mean

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Frame",
    "as_factor_column",
    "drop_unused_levels",
    "missing_rows",
    "range_index",
    "read_frame",
]

_ACCEPTED = (
    "a pandas or polars DataFrame (or LazyFrame), a pyarrow Table, a dict of equally long columns, "
    "a numpy structured array, or another data frame that narwhals reads"
)
_MOST_NAMES = 10


class Frame:
    """The user's data: named columns of equal length.

    Made by `read_frame`. A column is converted when it is first asked for, and kept.

    Attributes
    ----------
    names : tuple of str
    n_rows : int
    labelled : bool
        Whether the rows have labels of the user's (those of pandas data).
    """

    __slots__ = ("_column_at", "_columns", "_index", "_make_index", "_positions", "labelled", "n_rows", "names")

    def __init__(
        self,
        names: Iterable[Any],
        n_rows: int,
        column_at: Callable[[int], Column],
        make_index: Callable[[], pd.Index] | None = None,
    ) -> None:
        self.names: tuple[str, ...] = tuple(map(str, names))
        self.n_rows = n_rows
        self._column_at = column_at
        self._make_index = make_index
        self.labelled = make_index is not None
        self._positions = {name: i for i, name in enumerate(self.names)}
        self._columns: dict[str, Column] = {}
        self._index: pd.Index | None = None

    def __repr__(self) -> str:
        return f"Frame({self.n_rows} rows: {_shortened(self.names)})"

    def __contains__(self, name: object) -> bool:
        return name in self._positions

    @property
    def index(self) -> pd.Index:
        """Row labels: those of pandas data or Series, otherwise 0, 1, ..., n_rows - 1."""
        if self._index is None:
            self._index = self._make_index() if self._make_index else range_index(self.n_rows)
        return self._index

    @property
    def row_labels(self) -> pd.Index | None:
        """As `index`, copied (names of an index can be changed in place); None where it would count the rows, which
        needs no pandas."""
        if self._make_index is None:
            return None
        # A view of numbers that are counted takes a tenth of the time.
        return self.index.view() if hasattr(self.index, "step") else self.index.copy(deep=True)

    def column(self, name: str) -> Column:
        """The column `name` as numbers or codes, values of shape (n_rows,).

        Raises
        ------
        DataError
            If there is no such column, if two columns have that name, or if its values are neither
            numbers nor labels.
        """
        known = self._columns.get(name)
        if known is None:
            known = self._columns[name] = self._column_at(self._position(name))
        return known

    def kind(self, name: str) -> Kind:
        """Kind of the column `name`: "numeric", "boolean", "factor", "ordered" or "text"."""
        return self.column(name).kind

    def take(self, rows: NDArray[Any]) -> Frame:
        """The same columns at `rows`: a boolean mask of shape (n_rows,), or positions.

        Each column is cut when it is asked for. Levels are kept, those of text columns too, even where
        no row is left: see `drop_unused_levels`.
        """
        rows = np.asarray(rows)
        if rows.dtype.kind == "b" and rows.shape != (self.n_rows,):
            raise DataError(
                f"the row mask has shape {rows.shape} but the data have {_counted(self.n_rows, 'row')}; "
                "give one value per row."
            )
        n_rows = int(np.count_nonzero(rows)) if rows.dtype.kind == "b" else len(rows)
        taken = Frame(self.names, n_rows, lambda i: self._taken(i, rows), lambda: self.index[rows])
        taken.labelled = self.labelled
        return taken

    def again(self) -> Frame:
        """The same columns, not yet converted: it keeps no arrays of the user's."""
        other = Frame(self.names, self.n_rows, self._column_at, self._make_index)
        other.labelled = self.labelled
        return other

    def with_column(self, added: Column) -> Frame:
        """The same rows with one column more, which has the last place."""
        last = len(self.names)

        def column_at(position: int) -> Column:
            return added if position == last else self.column(self.names[position])

        make_index = None if self._make_index is None else lambda: self.index
        wider = Frame((*self.names, added.name), self.n_rows, column_at, make_index)
        wider.labelled = self.labelled
        return wider

    def _taken(self, position: int, rows: NDArray[Any]) -> Column:
        return self.column(self.names[position]).take(rows)

    def _position(self, name: str) -> int:
        if name not in self._positions:
            raise DataError(
                f"column {name!r} not found.{did_you_mean(str(name), self.names)} "
                f"The data have {_counted(len(self.names), 'column')}: {_shortened(self.names)}."
            )
        # Looked for only here: a repeated name does no harm until a model needs it.
        times = self.names.count(name) if len(self._positions) < len(self.names) else 1
        if times > 1:
            raise DataError(f"{times} columns are named {name!r}; rename all but one of them.")
        return self._positions[name]


def range_index(n_rows: int) -> pd.Index:
    """Row labels of data that have none."""
    import pandas as pd

    return pd.RangeIndex(n_rows)


def _shortened(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:_MOST_NAMES])
    rest = len(names) - _MOST_NAMES
    return f"{shown}, ... ({rest} more)" if rest > 0 else shown


def _counted(n: int, word: str) -> str:
    return f"{n} {word}" if n == 1 else f"{n} {word}s"


# Reading ---------------------------------------------------------------------------------------------------


def read_frame(data: Any) -> Frame:
    """Read a data frame of any kind; columns are converted later, when they are needed.

    Parameters
    ----------
    data : data frame
        pandas DataFrame, polars DataFrame or LazyFrame (collected once), pyarrow Table, dict of columns
        (arrays, lists or Series), numpy structured array, anything else that narwhals reads, or a `Frame`,
        which is returned as it is.

    Returns
    -------
    Frame

    Raises
    ------
    DataError
        If `data` is none of these, or a dict whose columns differ in length.

    Examples
    --------
    >>> frame = read_frame({"y": [1, 2, None], "g": ["b", "a", "b"]})
    >>> frame.names, frame.n_rows
    (('y', 'g'), 3)
    >>> frame.column("g").levels
    ('a', 'b')
    """
    if isinstance(data, Frame):
        return data
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(data, pandas.DataFrame):
        return _read_pandas(data)
    polars = sys.modules.get("polars")
    if polars is not None and isinstance(data, (polars.DataFrame, polars.LazyFrame)):
        return _read_polars(data.collect() if isinstance(data, polars.LazyFrame) else data)
    pyarrow = sys.modules.get("pyarrow")
    if pyarrow is not None and isinstance(data, (pyarrow.Table, pyarrow.RecordBatch)):
        return _read_arrow(data)
    if isinstance(data, np.ndarray) and data.dtype.names and data.ndim == 1:
        return _read_structured(data)
    if isinstance(data, Mapping):
        return _read_mapping(data)
    return _read_other(data)


def _read_pandas(data: pd.DataFrame) -> Frame:
    # No copy: from pandas 3 on, or with its copy-on-write, later changes of the user's frame do not reach this one.
    data = data.copy(deep=False)
    labels = data.columns.tolist()
    names = [str(label) for label in labels]

    # By label, which is several times faster than by position; a repeated name never gets here.
    def column_at(position: int) -> Column:
        return to_column(names[position], data[labels[position]])

    return Frame(names, len(data), column_at, lambda: data.index)


def _read_polars(data: Any) -> Frame:
    names, data = data.columns, data.clone()
    return Frame(names, data.height, lambda i: to_column(names[i], data.to_series(i)))


def _read_arrow(data: Any) -> Frame:
    names = data.schema.names
    return Frame(names, data.num_rows, lambda i: to_column(names[i], data.column(i)))


def _read_structured(data: NDArray[Any]) -> Frame:
    names = data.dtype.names or ()
    return Frame(names, len(data), lambda i: to_column(names[i], data[names[i]]))


def _read_mapping(data: Mapping[Any, Any]) -> Frame:
    names = [str(key) for key in data]
    columns = list(data.values())
    lengths = [_length(name, values) for name, values in zip(names, columns, strict=True)]
    for name, length in zip(names, lengths, strict=True):
        if length != lengths[0]:
            raise DataError(
                f"the columns of `data` differ in length: {names[0]!r} has {_counted(lengths[0], 'row')} and "
                f"{name!r} has {length}; give one value per row."
            )
    index = _shared_index(names, columns)
    make_index = None if index is None else lambda: index
    return Frame(names, lengths[0] if lengths else 0, lambda i: to_column(names[i], columns[i]), make_index)


def _length(name: str, values: Any) -> int:
    n_values = _n_values(values)
    if n_values is None:
        raise DataError(
            f"column {name!r} is of type {type(values).__name__}; give one value per row, as an array, list or Series."
        )
    return n_values


def _n_values(values: Any) -> int | None:
    """Number of values, or None for a scalar (numpy's 0-d arrays have a `len` that fails) or a text."""
    try:
        return None if isinstance(values, (str, bytes, Mapping)) else len(values)
    except TypeError:
        return None


def _shared_index(names: list[str], columns: list[Any]) -> pd.Index | None:
    """The row labels of the Series among the columns; different ones belong together in an order unknown here."""
    pandas = sys.modules.get("pandas")
    if pandas is None:
        return None
    series = [(name, s) for name, s in zip(names, columns, strict=True) if isinstance(s, pandas.Series)]
    for name, one in series[1:]:
        if not one.index.equals(series[0][1].index):
            raise DataError(
                f"the Series {series[0][0]!r} and {name!r} have different row labels; use "
                "`pandas.DataFrame(data)` to match rows by label, or `.to_numpy()` on each to match them "
                "by position."
            )
    return series[0][1].index if series else None


def _read_other(data: Any) -> Frame:
    """Whatever else narwhals reads (its own frames, Modin, cuDF, DuckDB, Dask, Ibis)."""
    import narwhals as nw

    try:
        frame = nw.from_native(data)
    except TypeError:
        raise DataError(f"`data` is of type {type(data).__name__}; {_hint(data)}give {_ACCEPTED}.") from None
    if isinstance(frame, nw.LazyFrame):
        frame = frame.collect()
    native = nw.to_native(frame)
    known = type(native).__module__.split(".")[0] in ("pandas", "polars", "pyarrow")
    return read_frame(native if known else frame.to_pandas())


def _hint(data: Any) -> str:
    if isinstance(data, str) or hasattr(data, "__fspath__"):
        from lme4py.data.hints import reader_of

        call = reader_of(os.fspath(data))
        return f"read the file first, for example with `{call or 'pandas.read_csv'}`; "
    if isinstance(data, np.ndarray):
        return "name its columns with `pandas.DataFrame(data, columns=[...])`; "
    return ""


# Columns ---------------------------------------------------------------------------------------------------


def missing_rows(columns: Iterable[Column], n_rows: int) -> NDArray[np.bool_]:
    """The one mask of missing values: True where any column is missing, shape (n_rows,)."""
    missing = np.zeros(n_rows, dtype=bool)
    for column in columns:
        missing |= column.missing()
    return missing


def as_factor_column(column: Column) -> Column:
    """A grouping factor from any column; factors and text are returned as they are.

    Numbers become levels in ascending order, as integers where all are whole; booleans become (False, True).

    Raises
    ------
    DataError
        If a number is infinite.

    Examples
    --------
    >>> as_factor_column(Column("g", "numeric", np.array([309.0, 308.0, np.nan])))
    Column(name='g', kind='factor', values=array([ 1,  0, -1], dtype=int32), levels=(308, 309), ...)
    """
    if column.is_factor:
        return column
    if column.kind == "boolean":
        codes = np.where(column.missing(), -1, column.values == 1).astype(np.int32)
        return Column(column.name, "factor", codes, (False, True))
    infinite = int(np.count_nonzero(np.isinf(column.values)))
    if infinite:
        raise DataError(
            f"column {column.name!r} is used as a factor and has {_counted(infinite, 'infinite value')}; "
            "replace them by a label or by a missing value."
        )
    import pandas as pd

    # Much faster than numpy.unique, which sorts all values.
    places, distinct = pd.factorize(column.values)
    whole = bool(np.all(distinct == np.floor(distinct)) and np.all(np.abs(distinct) < 2**53))
    labels = distinct.astype(np.int64) if whole else distinct
    found = sorted_levels(places, labels.tolist())
    return Column(column.name, "factor", found.values, found.levels)


def drop_unused_levels(column: Column) -> Column:
    """The same column without the levels that no row has; numbers are returned as they are."""
    if not column.is_factor:
        return column
    n_levels = len(column.levels)
    used = np.bincount(column.values[column.values >= 0], minlength=n_levels) > 0
    if used.all():
        return column
    renumbered = np.full(n_levels + 1, -1, dtype=np.int32)
    renumbered[:-1][used] = np.arange(np.count_nonzero(used))
    levels = tuple(level for level, kept in zip(column.levels, used, strict=True) if kept)
    return replace(column, values=renumbered[column.values], levels=levels, declared=False)
