"""Values that stand beside a data frame: weights, offsets, trials, clusters, new responses.

There is one rule, for every argument that takes one value for each row. Values that have row labels of their own (a
pandas Series, or anything else with an index) are matched with the rows by these labels, or refused; values without
labels (arrays, lists, columns of polars and pyarrow) are taken in the order of the rows.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence, Sized
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lme4py.data.column import Column
from lme4py.data.convert import to_column
from lme4py.data.frame import as_factor_column
from lme4py.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["LabelledRows", "beside", "column_beside", "in_name_order", "in_row_order", "is_numbered", "with_index"]

BoolArray = NDArray[np.bool_]


class LabelledRows(Protocol):
    """The rows that values stand beside: a `Frame`, or the `Design` of a fit.

    Attributes
    ----------
    n_rows : int
        Of the data.
    index : pandas.Index
        Their labels.
    labelled : bool
        Whether these are the user's; False where they only count the rows.
    """

    @property
    def n_rows(self) -> int: ...
    @property
    def index(self) -> pd.Index: ...
    @property
    def labelled(self) -> bool: ...


def beside(
    values: Any, name: str, rows: LabelledRows, used: BoolArray | None = None, *, as_labels: bool = False
) -> Column:
    """An argument that holds one value for each row, in the order of the rows.

    Parameters
    ----------
    values : array-like, shape (n_rows,)
        Array, list, Series of pandas, polars or pyarrow, or a data frame with one column; with an index matched by it.
    name : str
        Of the argument, for messages.
    rows : LabelledRows
    used : ndarray of bool, shape (n_rows,), optional
        The rows of a fit: the result is for these, and values without labels may be given for these alone.
    as_labels : bool
        Values of any kind that name groups, as a factor; otherwise they must be numbers.

    Returns
    -------
    Column
        "numeric" with NaN where missing, or a factor with code -1 where missing.

    Raises
    ------
    DataError
        Row labels that do not fit, another number of values, or values of another kind.

    Examples
    --------
    >>> import pandas as pd
    >>> from lme4py.data.frame import read_frame
    >>> frame = read_frame(pd.DataFrame({"y": [1.0, 2.0]}, index=["a", "b"]))
    >>> beside(pd.Series([20.0, 10.0], index=["b", "a"]), "weights", frame).values
    array([10., 20.])
    """
    column = column_beside(values, name, rows, used)
    if as_labels:
        return as_factor_column(column)
    if column.kind == "label":
        raise DataError(column.refusal)
    if column.kind != "numeric":
        raise DataError(f"`{name}` holds {column.kind} values, not numbers; give one number per row.")
    return column


def column_beside(values: Any, name: str, rows: LabelledRows, used: BoolArray | None = None) -> Column:
    """As `beside`, for values of any kind.

    Parameters
    ----------
    values, name, rows, used
        As in `beside`.

    Returns
    -------
    Column
    """
    ordered = in_row_order(_one_column(values, name), name, rows, used)
    if _length(ordered) is None:
        raise DataError(
            f"`{name}` is of type {type(values).__name__}; give a column name, or one value for each of "
            f"the {_counted(rows.n_rows)} of the data."
        )
    return _of_rows_used(to_column(name, ordered, f"`{name}`"), name, rows, used)


def _of_rows_used(column: Column, name: str, rows: LabelledRows, used: BoolArray | None) -> Column:
    n, n_rows = column.values.size, rows.n_rows
    if n == n_rows:
        return column if used is None else column.take(used)
    n_used = n_rows if used is None else int(np.count_nonzero(used))
    if n == n_used:
        return column
    either = "" if n_used == n_rows else f", and the model was fitted to {n_used} of them"
    raise DataError(
        f"`{name}` has {n} value{'s' * (n != 1)} but the data have {_counted(n_rows)}{either}; give one number per row."
    )


def in_row_order(values: Any, name: str, rows: LabelledRows, used: BoolArray | None = None) -> Any:
    """The same values without an index, in the order of the rows; those without an index as they are.

    Parameters
    ----------
    values : object
        A column, or a data frame of several.
    name : str
    rows : LabelledRows
    used : ndarray of bool, shape (n_rows,), optional
        The rows that need a value; all of them when not given.

    Returns
    -------
    object
        A pandas object for all rows (where its index is that of the data) or for the rows used; or `values`.

    Raises
    ------
    DataError
        The index cannot be matched with the rows.
    """
    found = with_index(values)
    if found is None:
        return values
    index = rows.index if used is None else rows.index[used]
    if found.index.equals(rows.index) or found.index.equals(index):
        return found
    if not rows.labelled:
        raise DataError(
            f"`{name}` has row labels (first: {_shown(found.index)}), but the data have none, so that its values "
            f"cannot be matched with the rows; {_by_position(name)}."
        )
    labels = _same_levels(found.index, index)
    for owner, own in ((f"`{name}`", labels), ("the data", index)):
        if not own.is_unique:
            twice = own[own.duplicated()]
            raise DataError(
                f"`{name}` has other row labels than the data, and they cannot be matched because those of {owner} "
                f"are not unique ({_shown(twice)} more than once); {_by_position(name)}."
            )
    places = labels.get_indexer(index)
    absent = places < 0
    if absent.any():
        raise DataError(
            f"`{name}` has no value for {int(absent.sum())} of the {_counted(index.size)} "
            f"{'of the data' if used is None else 'used'} (first: row label {_shown(index[absent])}; those of "
            f"`{name}` begin with {_shown(labels)}); give it the row labels of the data, or {_by_position(name)}."
        )
    return found.iloc[places]


def in_name_order(values: Any, names: Sequence[Any], name: str, what: str, rest: float | None = None) -> Any:
    """A vector with one entry for each of some names, such as coefficients; one without labels as it is.

    Parameters
    ----------
    values : object
        A Series is matched by its labels, unless these only count 0, 1, ...
    names : sequence
    name : str
        Of the argument, for messages.
    what : str
        What the names are, for messages: ``"fixed effects"``.
    rest : float, optional
        For the names that have no entry; without it each needs one.

    Returns
    -------
    object
        An array in the order of the names, or `values`.

    Raises
    ------
    DataError
        Labels that are no such names, or occur twice.

    Examples
    --------
    >>> import pandas as pd
    >>> in_name_order(pd.Series({"b": 2.0, "a": 1.0}), ["a", "b"], "value", "scenarios")
    array([1., 2.])
    """
    found = with_index(values)
    if found is None or getattr(found, "ndim", 1) != 1 or is_numbered(found.index):
        return values
    labels, wanted = found.index.tolist(), list(names)
    unknown = [label for label in labels if label not in wanted]
    absent = [one for one in wanted if one not in labels] if rest is None else []
    if unknown or absent or len(set(labels)) < len(labels):
        fault = f"label {unknown[0]!r}" if unknown else f"no entry for {absent[0]!r}" if absent else "a label twice"
        shown = ", ".join(map(str, wanted[:10])) + ", ..." * (len(wanted) > 10)
        raise DataError(
            f"`{name}` has {fault}, and its entries are matched by their labels with the {what} ({shown}); correct the "
            f"labels, or give the numbers alone, in this order: `{name}.to_numpy()`."
        )
    entries = dict(zip(labels, found.tolist(), strict=True))
    return np.array([entries.get(one, rest) for one in wanted])


def is_numbered(index: Any) -> bool:
    """Whether labels are no more than the numbers 0, 1, 2, ... that pandas gives where there are none."""
    import pandas as pd

    return bool(index.equals(pd.RangeIndex(len(index))))


def _by_position(name: str) -> str:
    return f"where its values are in the order of the rows, give them without labels: `{name}.to_numpy()`"


def _shown(index: pd.Index) -> str:
    return repr(index[:1].tolist()[0]) if index.size else "none"


def _same_levels(labels: pd.Index, index: pd.Index) -> pd.Index:
    """Labels of several levels with the levels in the order of the data, where their names say which is which."""
    names, wanted = list(labels.names), list(index.names)
    if len(names) > 1 and names != wanted and len(set(names)) == len(names) and set(names) == set(wanted):
        return labels.reorder_levels(wanted)  # type: ignore[attr-defined, no-any-return]
    return labels


def with_index(values: Any) -> Any:
    """Values that have row labels as a pandas object; None for all others."""
    pandas = sys.modules.get("pandas")
    narwhals = sys.modules.get("narwhals")
    if narwhals is not None and isinstance(values, (narwhals.Series, narwhals.DataFrame)):
        values = values.to_native()
    if pandas is None or isinstance(values, (np.ndarray, list, tuple, range, pandas.Index)):
        return None
    if isinstance(values, (pandas.Series, pandas.DataFrame)):
        return values
    own = type(values).__module__.split(".")[0]
    if own in ("pandas", "polars", "pyarrow"):
        return None
    # What other packages have of pandas' kind: Dask, Modin, xarray, cuDF.
    for method in ("compute", "to_pandas", "_to_pandas"):
        if callable(getattr(values, method, None)):
            made = getattr(values, method)()
            if isinstance(made, (pandas.Series, pandas.DataFrame)):
                return made
    index = getattr(values, "index", None)
    return pandas.Series(np.asarray(values), index=index) if isinstance(index, pandas.Index) else None


def _one_column(values: Any, name: str) -> Any:
    """The column of a data frame, or of a matrix, that has one; other values as they are."""
    found = with_index(values)
    values = values if found is None else found
    columns = getattr(values, "columns", None)
    if columns is not None and not isinstance(columns, np.ndarray) and hasattr(values, "shape"):
        if len(columns) != 1:
            raise DataError(f"`{name}` is a data frame with {len(columns)} columns; give one column.")
        return values.iloc[:, 0] if hasattr(values, "iloc") else values[0] if _is_arrow(values) else values[:, 0]
    if isinstance(values, np.ndarray) and values.ndim == 2 and values.shape[1] == 1:
        return values[:, 0]
    return values


def _is_arrow(values: Any) -> bool:
    return type(values).__module__.split(".")[0] == "pyarrow"


def _length(values: Any) -> int | None:
    """Number of values; None for a scalar (numpy's 0-d arrays have a `len` that fails), a text or a dict."""
    if isinstance(values, (str, bytes, dict)) or not isinstance(values, Sized):
        return None
    try:
        return len(values)
    except TypeError:
        return None


def _counted(n: int) -> str:
    return f"{n} row" if n == 1 else f"{n} rows"
