"""One column of pandas, polars, pyarrow, numpy or plain Python as numbers, or as codes into levels.

No backend is imported here unless the user's data already come from it (or, for strings and
Python objects, pandas, which has the fast routines).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from decimal import Decimal
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lme4py.data.column import Column, Kind
from lme4py.data.concatenate import common_order
from lme4py.data.label_codes import label_codes
from lme4py.errors import DataError

__all__ = ["sorted_levels", "to_column"]

# From here on neighbouring integers share one float64: two labels would become the same group.
_INEXACT = 2**53

_TIMES = (
    "turn it into a number first, such as the days since the first date (pandas: `(x - x.min()).dt.days`, "
    "polars: `(x - x.min()).dt.total_days()`); as it is, it can be a grouping factor"
)
_BYTES = "decode it to text first (pandas: `x.str.decode('utf-8')`)"
_COMPLEX = "use the real part, the imaginary part or the modulus as columns of their own"
_OTHER = "turn it into numbers, booleans, text or a categorical column first"


class Encoded(NamedTuple):
    """What a `Column` needs besides its name."""

    kind: Kind
    values: NDArray[Any]
    levels: tuple[Any, ...] = ()
    declared: bool = False


class Unusable(Exception):
    """Values that no model can use as numbers or as a factor; `to_column` adds the name of the column.

    Parameters
    ----------
    fault, advice : str
    as_labels : bool
        Whether each value can still name a group.
    """

    def __init__(self, fault: str, advice: str = _OTHER, *, as_labels: bool = False) -> None:
        super().__init__(f"{fault}; {advice}.")
        self.as_labels = as_labels


def to_column(name: str, values: Any, subject: str | None = None) -> Column:
    """Convert one column.

    Parameters
    ----------
    name : str
    values : pandas, polars or pyarrow column, numpy array, or list, of length n
    subject : str, optional
        How error messages call it; default ``column 'name'``.

    Returns
    -------
    Column
        Of kind "label" where the values can name groups and nothing else, with the reason in `refusal`.

    Raises
    ------
    DataError
        If the values are neither numbers nor labels.
    """
    try:
        encoded = _encode(values)
    except Unusable as error:
        text = f"{subject or f'column {name!r}'} {error}"
        found = label_codes(values) if error.as_labels else None
        if found is None:
            raise DataError(text) from None
        codes, levels = found
        return Column(name, "label", codes, levels, refusal=text)
    # Whole numbers and truth values were converted: 64-bit floats may be the user's own.
    fresh = getattr(getattr(values, "dtype", None), "kind", "f") in "iub"
    return Column(name, *encoded, fresh=fresh)


def _encode(values: Any) -> Encoded:
    if isinstance(values, np.ndarray):
        return _from_numpy(values)
    if isinstance(values, (list, tuple, range)):
        # np.array would turn ["a", 1] into text and a missing value among text into "nan".
        return _from_objects(np.fromiter(values, dtype=object, count=len(values)))
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(values, (pandas.Series, pandas.Index, pandas.api.extensions.ExtensionArray)):
        return _from_pandas(values, pandas)
    polars = sys.modules.get("polars")
    if polars is not None and isinstance(values, polars.Series):
        return _from_polars(values, polars)
    pyarrow = sys.modules.get("pyarrow")
    if pyarrow is not None and isinstance(values, (pyarrow.Array, pyarrow.ChunkedArray)):
        return _from_arrow(values, pyarrow)
    narwhals = sys.modules.get("narwhals")
    if narwhals is not None and isinstance(values, narwhals.Series):
        return _encode(values.to_native())
    if hasattr(values, "__array__"):
        return _from_numpy(np.asarray(values))
    advice = "give one value per row, as an array, list or Series"
    raise Unusable(f"is of type {type(values).__name__}", advice)


# numpy -----------------------------------------------------------------------------------------------------


def _from_numpy(values: NDArray[Any]) -> Encoded:
    if values.ndim != 1:
        raise Unusable(f"has shape {values.shape}", "a column needs one value per row, that is shape (n,)")
    if isinstance(values, np.ma.MaskedArray):
        objects = values.data.astype(object)
        objects[np.ma.getmaskarray(values)] = None
        return _from_objects(objects)
    kind = values.dtype.kind
    if kind in "iu":
        _check_exact(values)
    if kind in "fiu":
        floats = values.astype(np.float64, copy=False)
        if values.dtype.itemsize > 8:
            _check_distinct(np.unique(values[~np.isnan(values)]).size, floats)
        return Encoded("numeric", floats)
    if kind == "b":
        return Encoded("boolean", values.astype(np.float64))
    if kind == "O":
        return _from_objects(values)
    if kind in "UT":
        return _from_text(values.astype(object))
    raise _unusable_type(str(values.dtype), kind)


def _unusable_type(dtype: str, kind: str) -> Unusable:
    word, advice = {
        "M": ("dates or times", _TIMES),
        "m": ("time differences", _TIMES),
        "c": ("complex numbers", _COMPLEX),
        "S": ("bytes", _BYTES),
    }.get(kind, ("values", _OTHER))
    return Unusable(f"holds {word} of type {dtype}", advice, as_labels=kind in "MmcSO")


def _check_exact(values: NDArray[Any]) -> None:
    if values.dtype.itemsize == 8 and values.size:
        _check_bounds(int(values.min()), int(values.max()))


def _check_bounds(low: int | None, high: int | None) -> None:
    """Refuse integers that float64 cannot tell apart; None where there are no values."""
    worst = max(low or 0, high or 0, key=abs)
    if abs(worst) >= _INEXACT:
        raise Unusable(
            f"holds the integer {worst}, and integers of 2**53 or more lose digits as floating-point numbers",
            "as it is, it can be a grouping factor; store labels as text for other uses (pandas: `x.astype(str)`), or "
            "divide amounts by a power of ten",
            as_labels=True,
        )


def _check_distinct(n_distinct: int, floats: NDArray[np.float64]) -> None:
    """Refuse numbers of which several become the same float64: they may be labels."""
    n_floats = np.unique(floats[~np.isnan(floats)]).size
    if n_floats < n_distinct:
        raise Unusable(
            f"holds {n_distinct} numbers that become {n_floats} as floating-point numbers of 64 bits",
            "as it is, it can be a grouping factor; round amounts first",
            as_labels=True,
        )


# Python objects --------------------------------------------------------------------------------------------


def _from_objects(values: NDArray[np.object_]) -> Encoded:
    import pandas as pd

    present = ~np.asarray(pd.isna(values), dtype=bool)
    content = pd.api.types.infer_dtype(values[present])
    if content == "string":
        return _from_text(values)
    if content == "integer":
        _check_bounds(int(values[present].min()), int(values[present].max()))
    elif content in ("mixed", "mixed-integer"):
        _check_all_numbers(values)
    elif content not in ("boolean", "floating", "mixed-integer-float", "decimal", "empty"):
        raise _unusable_objects(values, content)
    floats = np.full(values.shape, np.nan)
    floats[present] = values[present].astype(np.float64)
    if content in ("decimal", "mixed", "mixed-integer"):
        _check_distinct(len(set(values[present].tolist())), floats)
    return Encoded("boolean" if content == "boolean" else "numeric", floats)


def _present(values: NDArray[np.object_]) -> Iterator[tuple[int, Any]]:
    """Row number and value of the cells that are not missing."""
    import pandas as pd

    rows = np.flatnonzero(~np.asarray(pd.isna(values), dtype=bool))
    return ((int(row), values[row]) for row in rows)


def _described(example: tuple[int, Any]) -> str:
    row, value = example
    text = repr(value)
    short = text if len(text) <= 40 else text[:37] + "..."
    return f"{short} of type {type(value).__name__} in row {row}"


def _unusable_objects(values: NDArray[np.object_], content: str) -> Unusable:
    timelike = content.startswith(("date", "time", "period"))
    advice = _TIMES if timelike else {"complex": _COMPLEX, "bytes": _BYTES}.get(content, _OTHER)
    return Unusable(f"holds {_described(next(_present(values)))}", advice, as_labels=True)


def _check_all_numbers(values: NDArray[np.object_]) -> None:
    """Accept numbers of several types together (int, float, Decimal, Fraction) and nothing else."""
    first_of_type: dict[type, tuple[int, Any]] = {}
    for row, value in _present(values):
        first_of_type.setdefault(type(value), (row, value))
    wrong = [kind for kind in first_of_type if not _is_number(kind)]
    if not wrong:
        return
    example = _described(first_of_type[wrong[0]])
    others = [kind for kind in first_of_type if kind is not wrong[0]]
    if not others:
        raise Unusable(f"holds {example}", as_labels=True)
    raise Unusable(
        f"mixes types: it holds {example} and {_described(first_of_type[others[0]])}",
        "make them all one type (pandas: `pandas.to_numeric(x)` for numbers, `x.astype(str)` for labels)",
    )


def _is_number(kind: type) -> bool:
    return issubclass(kind, (Real, Decimal)) and not issubclass(kind, (bool, np.bool_))


def _from_text(values: Any) -> Encoded:
    """Strings of any pandas kind or an object array of strings, with None, NaN or NA where missing."""
    import pandas as pd

    codes, labels = pd.factorize(values)
    return sorted_levels(codes, labels.tolist())


def sorted_levels(codes: NDArray[Any], labels: list[Any]) -> Encoded:
    """Codes into `labels` (-1 where missing) as codes into the sorted labels."""
    order = sorted(range(len(labels)), key=labels.__getitem__)
    # One place more than there are labels, so that code -1 finds -1.
    rank = np.full(len(labels) + 1, -1, dtype=np.int32)
    rank[order] = np.arange(len(labels), dtype=np.int32)
    return Encoded("text", rank[codes], tuple(labels[i] for i in order))


# pandas ----------------------------------------------------------------------------------------------------


def _from_pandas(values: Any, pd: Any) -> Encoded:
    dtype = values.dtype
    if isinstance(dtype, np.dtype):
        return _from_numpy(values.to_numpy())
    if isinstance(dtype, pd.CategoricalDtype):
        codes = getattr(values, "array", values).codes
        kind: Kind = "ordered" if dtype.ordered else "factor"
        return Encoded(kind, codes.astype(np.int32, copy=False), tuple(dtype.categories.tolist()))
    if isinstance(dtype, pd.StringDtype):
        return _from_text(values)
    if isinstance(dtype, pd.ArrowDtype):
        import pyarrow as pa

        return _from_arrow(getattr(values, "array", values).__arrow_array__(), pa)
    if isinstance(dtype, pd.SparseDtype):
        return _from_numpy(np.asarray(values))
    if dtype.kind in "iufb":
        return _from_masked(values, dtype.kind)
    raise _unusable_type(str(dtype), "M" if isinstance(dtype, pd.PeriodDtype) else dtype.kind)


def _from_masked(values: Any, kind: str) -> Encoded:
    """The nullable dtypes Int64, UInt8, Float64, boolean, ..."""
    if kind in "iu":
        present = values[~values.isna()].to_numpy(dtype=f"{kind}8")
        _check_exact(present)
    floats = values.to_numpy(dtype="float64", na_value=np.nan)
    return Encoded("boolean" if kind == "b" else "numeric", floats)


# polars ----------------------------------------------------------------------------------------------------


def _from_polars(values: Any, pl: Any) -> Encoded:
    dtype = values.dtype
    if dtype.is_numeric() or dtype == pl.Null:
        if dtype.is_integer():
            _check_bounds(values.min(), values.max())
        floats = values.cast(pl.Float64).to_numpy()
        if dtype.is_decimal():
            _check_distinct(values.drop_nulls().n_unique(), floats)
        return Encoded("numeric", floats)
    if dtype == pl.Boolean:
        return Encoded("boolean", values.cast(pl.Float64).to_numpy())
    if dtype == pl.String:
        return _polars_codes("text", values, sorted(values.drop_nulls().unique().to_list()), pl)
    if dtype == pl.Enum:
        return _polars_codes("factor", values, dtype.categories.to_list(), pl)._replace(declared=True)
    if dtype == pl.Categorical:
        # polars numbers these by what the session has seen before and sorts them by name: only the
        # sorted order is the same in every session.
        text = values.cast(pl.String)
        return _polars_codes("factor", text, sorted(text.drop_nulls().unique().to_list()), pl)
    if dtype == pl.Object:
        return _from_objects(np.fromiter(values.to_list(), dtype=object, count=len(values)))
    if dtype.is_temporal():
        raise Unusable(f"holds dates or times of type {dtype}", _TIMES, as_labels=True)
    binary = dtype == pl.Binary
    raise Unusable(f"holds values of type {dtype}", _BYTES if binary else _OTHER, as_labels=binary)


def _polars_codes(kind: Kind, values: Any, levels: list[str], pl: Any) -> Encoded:
    codes = values.cast(pl.Enum(levels)).to_physical().cast(pl.Int32).fill_null(-1)
    return Encoded(kind, codes.to_numpy(), tuple(levels))


# pyarrow ---------------------------------------------------------------------------------------------------


def _from_arrow(values: Any, pa: Any) -> Encoded:
    dtype = values.type
    is_type = pa.types
    if is_type.is_dictionary(dtype):
        return _from_dictionary(values, pa)
    if str(dtype) in ("string", "large_string", "string_view"):
        encoded = _from_dictionary(values.dictionary_encode(), pa)
        return sorted_levels(encoded.values, list(encoded.levels))
    if is_type.is_boolean(dtype):
        return Encoded("boolean", _arrow_floats(values.cast(pa.uint8()), pa))
    if is_type.is_integer(dtype):
        import pyarrow.compute as pc

        bounds = pc.min_max(values)
        _check_bounds(bounds["min"].as_py(), bounds["max"].as_py())
        return Encoded("numeric", _arrow_floats(values, pa))
    if is_type.is_floating(dtype) or is_type.is_decimal(dtype) or is_type.is_null(dtype):
        floats = _arrow_floats(values, pa)
        if is_type.is_decimal(dtype):
            import pyarrow.compute as pc

            _check_distinct(pc.count_distinct(values).as_py(), floats)
        return Encoded("numeric", floats)
    if is_type.is_temporal(dtype):
        raise Unusable(f"holds dates or times of type {dtype}", _TIMES, as_labels=True)
    named = isinstance(dtype, pa.BaseExtensionType) or "binary" in str(dtype)
    raise Unusable(f"holds values of type {dtype}", _OTHER, as_labels=named)


def _arrow_floats(values: Any, pa: Any) -> NDArray[np.float64]:
    if not pa.types.is_float64(values.type):
        values = values.cast(pa.float64())
    # A chunked array has no `zero_copy_only` in old versions; np.asarray copies only where it must.
    floats: NDArray[np.float64] = np.asarray(values, dtype=np.float64)
    return floats


def _from_dictionary(values: Any, pa: Any) -> Encoded:
    """A dictionary (categorical) column; levels in the order of the dictionary, if chunks agree about it."""
    chunks = values.chunks if isinstance(values, pa.ChunkedArray) else [values]
    level_codes: dict[Any, int] = {}
    if not values.type.ordered:
        own = [[x for x in chunk.dictionary.to_pylist() if x is not None and x == x] for chunk in chunks]
        level_codes = {level: i for i, level in enumerate(common_order(own))} if own else {}
    # Each chunk may have a dictionary of its own.
    codes = [np.empty(0, dtype=np.int32), *(_chunk_codes(chunk, level_codes, pa) for chunk in chunks)]
    kind: Kind = "ordered" if values.type.ordered else "factor"
    return Encoded(kind, np.concatenate(codes), tuple(level_codes))


def _chunk_codes(chunk: Any, level_codes: dict[Any, int], pa: Any) -> NDArray[np.int32]:
    """Codes of one chunk into all levels; levels not seen before are added to `level_codes`."""
    labels = chunk.dictionary.to_pylist()
    # A dictionary may itself hold a missing value; one place more than labels, so that code -1 finds -1.
    place = np.full(len(labels) + 1, -1, dtype=np.int32)
    for i, label in enumerate(labels):
        if label is not None and label == label:
            place[i] = level_codes.setdefault(label, len(level_codes))
    codes: NDArray[np.int32] = place[np.asarray(chunk.indices.cast(pa.int64()).fill_null(-1))]
    return codes
