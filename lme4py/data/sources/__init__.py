"""Where rows live: one module for each kind of source. A new kind is one module and one line in `_KINDS`."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from lme4py.data.sources.base import RowBlock, RowSource, Schema
from lme4py.data.sources.paths import frame_of_file, is_path, source_of_paths
from lme4py.errors import OptionError, did_you_mean

__all__ = ["RowBlock", "RowSource", "Schema", "find_source", "is_path"]

# Module and class of the data -> module and class of the source.
_KINDS = {
    ("polars", "LazyFrame"): ("polars", "PolarsSource"),
    ("duckdb", "DuckDBPyRelation"): ("duckdb", "DuckDBSource"),
    ("_duckdb", "DuckDBPyRelation"): ("duckdb", "DuckDBSource"),
    ("pyarrow", "Dataset"): ("arrow", "ArrowSource"),
    ("deltalake", "DeltaTable"): ("delta", "DeltaSource"),
    ("ibis", "Table"): ("ibis", "IbisSource"),
    ("dask", "DataFrame"): ("dask", "DaskSource"),
    ("pyspark", "DataFrame"): ("spark", "SparkSource"),
}
_CHOICES = ("auto", "memory", "stream")


def find_source(data: Any, rows: str = "auto") -> tuple[Any, RowSource | None]:
    """The data as a source of rows, where they are streamed.

    Parameters
    ----------
    data : object
        As the user gave it.
    rows : {"auto", "memory", "stream"}
        "auto" streams what is lazy, in files or on other machines; "stream" everything; "memory" nothing.

    Returns
    -------
    data : object
        For fits in memory: the same, or a table that was read from files.
    source : RowSource or None
        None for fits in memory.

    Raises
    ------
    OptionError
        An unknown word in `rows`.
    DataError
        Files that do not exist, or do not fit together.
    """
    if rows not in _CHOICES:
        raise OptionError(
            f"control['rows'] is {rows!r}.{did_you_mean(str(rows), _CHOICES)} Use one of {', '.join(_CHOICES)}."
        )
    whole = frame_of_file(data)
    if whole is not None:
        data = whole
    source = data if isinstance(data, RowSource) else _lazy_source(data)
    if source is not None and rows == "memory":
        return source.whole(), None
    if source is None and rows == "stream":
        from lme4py.data.frame import read_frame
        from lme4py.data.sources.memory import MemorySource

        return data, MemorySource(read_frame(data))
    return data, source


def _lazy_source(data: Any) -> RowSource | None:
    if is_path(data):
        return source_of_paths(data)
    names = ((kind.__module__.split(".")[0], kind.__name__) for kind in type(data).__mro__)
    found = next((_KINDS[name] for name in names if name in _KINDS), None)
    if found is None:
        return None
    make: Callable[[Any], RowSource] = getattr(import_module(f"lme4py.data.sources.{found[0]}"), found[1])
    return make(data)
