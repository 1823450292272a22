"""Many responses, a few columns at a time: from a data frame, an array, a sparse matrix, AnnData or a Parquet file."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from lme4py.errors import DataError, OptionError, did_you_mean
from lme4py.linalg.types import FloatArray, IntArray

__all__ = ["NamedResponses", "read_responses"]

# Names among which a similar one is looked for.
_LOOKED_AT = 2000


@dataclass(frozen=True)
class NamedResponses:
    """Columns of numbers by name.

    Attributes
    ----------
    names : tuple
    take : callable
        From positions to values, (n, len(positions)).
    places : dict
        Position of each name.
    """

    names: tuple[Any, ...]
    take: Callable[[IntArray], FloatArray]
    places: Mapping[Any, int]

    def columns(self, names: Sequence[Any]) -> FloatArray:
        """Values of some responses, (n, len(names)), NaN where missing.

        Parameters
        ----------
        names : sequence
        """
        return self.take(np.array([self.places[name] for name in names], dtype=np.intp))


class _Dense:
    """Columns of an array."""

    def __init__(self, values: Any) -> None:
        self.values = values

    def __call__(self, places: IntArray) -> FloatArray:
        return np.asarray(self.values[:, places], dtype=np.float64)


class _Sparse:
    """Columns of a sparse matrix, made dense."""

    def __init__(self, values: Any) -> None:
        self.values = sparse.csc_matrix(values)

    def __call__(self, places: IntArray) -> FloatArray:
        return np.asarray(self.values[:, places].toarray(), dtype=np.float64)


class _Frame:
    """Columns of a data frame of pandas or polars, or of a dict."""

    def __init__(self, values: Any, names: Sequence[Any]) -> None:
        self.values, self.names = values, names

    def __call__(self, places: IntArray) -> FloatArray:
        chosen = [self.values[self.names[i]] for i in places.tolist()]
        return np.column_stack([_numbers(column, self.names[i]) for column, i in zip(chosen, places, strict=True)])


class _Parquet:
    """Columns of a Parquet file, read when they are needed."""

    def __init__(self, path: str, names: Sequence[Any]) -> None:
        self.path, self.names = path, names

    def __call__(self, places: IntArray) -> FloatArray:
        from pyarrow import parquet

        chosen = [self.names[i] for i in places.tolist()]
        table = parquet.read_table(self.path, columns=chosen)
        return np.column_stack([_numbers(table.column(name).to_pandas(), name) for name in chosen])


def _numbers(column: Any, name: Any) -> FloatArray:
    try:
        return np.asarray(column.to_numpy() if hasattr(column, "to_numpy") else column, dtype=np.float64)
    except (TypeError, ValueError):
        raise DataError(f"the response {name!r} holds values that are no numbers; give numbers.") from None


def read_responses(responses: Any, names: Sequence[Any] | None, n: int, index: Any) -> NamedResponses:
    """Many responses of n rows.

    Parameters
    ----------
    responses : object
        See `lme4py.fit_many`.
    names : sequence or None
    n : int
    index : pandas.Index or None
        Labels of the rows of the data: those of a pandas frame of responses must be the same.

    Raises
    ------
    DataError, OptionError
        Another number of rows, or other labels; names that do not fit.
    """
    own, take, rows = _source(responses)
    if rows is not None and rows != n:
        raise DataError(f"the responses have {rows} rows and the data {n}; give one row for each, in the same order.")
    labels = getattr(responses, "index", None)
    if index is not None and labels is not None and hasattr(labels, "equals") and not labels.equals(index):
        raise DataError(
            "the responses and the data have different row labels; bring the responses into the order of the data "
            "(`responses.loc[data.index]`), or give `responses.to_numpy()` with names=."
        )
    if own is None:
        own = [f"y{i + 1}" for i in range(take.values.shape[1])] if names is None else list(names)  # type: ignore[attr-defined]
        if len(own) != take.values.shape[1]:  # type: ignore[attr-defined]
            raise OptionError(f"`names` has {len(own)} names for {take.values.shape[1]} responses.")  # type: ignore[attr-defined]
        names = None
    places = {name: i for i, name in enumerate(own)}
    if len(places) != len(own):
        raise OptionError("two responses have the same name; give each its own.")
    wanted = own if names is None else list(names)
    for name in wanted:
        if name not in places:
            raise OptionError(
                f"there is no response {name!r}.{did_you_mean(str(name), [str(one) for one in own[:2000]])}"
            )
    if not wanted:
        raise OptionError("there are no responses; give at least one column.")
    return NamedResponses(tuple(wanted), take, places)


def _source(responses: Any) -> tuple[list[Any] | None, Callable[[IntArray], FloatArray], int | None]:
    """Names (None where the columns have none), what takes columns, and the number of rows where it is known."""
    if isinstance(responses, str | os.PathLike):
        from pyarrow import parquet

        path = os.fspath(responses)
        try:
            head = parquet.ParquetFile(path)
        except OSError as error:
            raise DataError(f"the responses {path!r} cannot be read as a Parquet file: {error}") from None
        names = [name for name in head.schema_arrow.names if not name.startswith("__index_level")]
        return names, _Parquet(path, names), int(head.metadata.num_rows)
    if hasattr(responses, "X") and hasattr(responses, "var_names"):
        _, take, rows = _source(responses.X)
        return list(responses.var_names), take, rows
    if sparse.issparse(responses):
        made = _Sparse(responses)
        return None, made, int(made.values.shape[0])
    if isinstance(responses, np.ndarray):
        values = responses[:, None] if responses.ndim == 1 else responses
        if values.ndim != 2:
            raise OptionError(f"the responses have {values.ndim} dimensions; give an array of rows and responses.")
        return None, _Dense(values), int(values.shape[0])
    if isinstance(responses, Mapping) or hasattr(responses, "columns"):
        names = list(responses) if isinstance(responses, Mapping) else list(responses.columns)
        rows = len(responses[names[0]]) if names else 0
        return names, _Frame(responses, names), rows
    raise OptionError(
        f"`responses` is of type {type(responses).__name__}; give a data frame, a dict, an array or a sparse matrix "
        "with one column for each response, or the path of a Parquet file."
    )
