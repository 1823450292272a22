"""Values that can name groups and nothing else: 64-bit integers, dates and times, UUIDs, bytes.

Each distinct value is one level, as an object that loses nothing of it: a Python integer, a `datetime.date`, a
`pandas.Timestamp` with its nanoseconds and its time zone, a `uuid.UUID`.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["label_codes"]

Codes = NDArray[np.int32]


def label_codes(values: Any) -> tuple[Codes, tuple[Any, ...]] | None:
    """Codes of a column into its distinct values, in ascending order.

    Parameters
    ----------
    values : pandas, polars or pyarrow column, numpy array, or list, of length n

    Returns
    -------
    codes : ndarray of int32, shape (n,)
        -1 where missing.
    levels : tuple
        None in the place of both where two values cannot be told apart, or have no hash.
    """
    try:
        codes, labels = _factorized(values)
        # Objects that are equal to themselves only are no labels: a copy of the data would have other groups.
        if len(set(labels)) < len(labels) or any(_has_identity_only(type(label)) for label in labels):
            return None
    except TypeError:
        return None
    return _ascending(codes, labels)


def _has_identity_only(kind: type) -> bool:
    return getattr(kind, "__eq__", None) is getattr(object, "__eq__", None)


def _factorized(values: Any) -> tuple[NDArray[Any], list[Any]]:
    """Codes and labels in any order."""
    import pandas as pd

    polars, pyarrow = sys.modules.get("polars"), sys.modules.get("pyarrow")
    narwhals = sys.modules.get("narwhals")
    if narwhals is not None and isinstance(values, narwhals.Series):
        return _factorized(values.to_native())
    if polars is not None and isinstance(values, polars.Series):
        return _of_polars(values, polars)
    if pyarrow is not None and isinstance(values, (pyarrow.Array, pyarrow.ChunkedArray)):
        return _of_arrow(values, pyarrow)
    if isinstance(values, np.ma.MaskedArray):
        objects = values.data.astype(object)
        objects[np.ma.getmaskarray(values)] = None
        return _of_objects(objects)
    if isinstance(values, (pd.Series, pd.Index, pd.api.extensions.ExtensionArray)):
        codes, labels = pd.factorize(pd.Series(values))
        return codes, pd.Index(labels).tolist()
    if isinstance(values, np.ndarray) and values.dtype.kind in "iuMm":
        # A Series has nanoseconds where a list of NumPy's own scalars would be plain integers.
        codes, labels = pd.factorize(pd.Series(values))
        return codes, pd.Index(labels).tolist()
    return _of_objects(np.fromiter(values, dtype=object, count=len(values)))


def _of_objects(values: NDArray[np.object_]) -> tuple[NDArray[Any], list[Any]]:
    import pandas as pd

    codes, labels = pd.factorize(values)
    return codes, list(labels)


def _of_polars(values: Any, pl: Any) -> tuple[NDArray[Any], list[Any]]:
    if values.dtype == pl.Object:
        return _of_objects(np.fromiter(values.to_list(), dtype=object, count=len(values)))
    distinct = values.drop_nulls().unique().sort()
    codes = distinct.search_sorted(values).cast(pl.Int64)
    return np.where(values.is_null().to_numpy(), -1, codes.to_numpy()), _polars_labels(distinct, pl)


def _polars_labels(distinct: Any, pl: Any) -> list[Any]:
    import pandas as pd

    dtype = distinct.dtype
    if getattr(dtype, "time_unit", None) != "ns":
        labels: list[Any] = distinct.to_list()
        return labels
    # Python's own objects end at microseconds.
    numbers = distinct.to_physical().to_list()
    if dtype == pl.Duration:
        return [pd.Timedelta(number, unit="ns") for number in numbers]
    return [pd.Timestamp(number, unit="ns", tz=dtype.time_zone) for number in numbers]


def _of_arrow(values: Any, pa: Any) -> tuple[NDArray[Any], list[Any]]:
    if isinstance(values.type, pa.BaseExtensionType):
        return _of_objects(np.fromiter(values.to_pylist(), dtype=object, count=len(values)))
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    found = values.dictionary_encode()
    return np.asarray(found.indices.cast(pa.int64()).fill_null(-1)), found.dictionary.to_pylist()


def _ascending(codes: NDArray[Any], labels: list[Any]) -> tuple[Codes, tuple[Any, ...]]:
    """The labels sorted: by their own order where they have one."""
    positions = range(len(labels))
    try:
        order = sorted(positions, key=labels.__getitem__)
    except TypeError:
        order = sorted(positions, key=lambda i: str(labels[i]))
    # One place more than there are labels, so that code -1 finds -1.
    rank = np.full(len(labels) + 1, -1, dtype=np.int32)
    rank[order] = np.arange(len(labels), dtype=np.int32)
    return rank[codes], tuple(labels[i] for i in order)
