"""A DuckDB relation: a query, a view or a table of a database."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from lme4py.chunks import chunk
from lme4py.data.sources.arrow import arrow_blocks
from lme4py.data.sources.base import RowBlock, RowSource, Schema

__all__ = ["DuckDBSource"]

_ROWS = chunk(2**20)


class DuckDBSource(RowSource):
    """A relation: its query runs anew in each pass, and reads only the columns asked for.

    Parameters
    ----------
    data : duckdb.DuckDBPyRelation
    """

    place = "DuckDB relation"

    def __init__(self, data: Any) -> None:
        self.data = data

    def schema(self) -> Schema:
        """Names of the columns."""
        return Schema(tuple(self.data.columns))

    def blocks(self, columns: Sequence[str] | None = None) -> Iterator[RowBlock]:
        """The rows of the query."""
        chosen = self.data.columns if columns is None else columns
        query = self.data.project(", ".join(map(_quoted, chosen)))
        read = query.to_arrow_reader if hasattr(query, "to_arrow_reader") else query.fetch_arrow_reader
        reader = read(_ROWS)
        try:
            yield from arrow_blocks(reader, self.place)
        finally:
            # A connection has one open result at a time.
            reader.close()

    def distinct(self, columns: Sequence[str], count: str) -> Any:
        """By ``GROUP BY``, as a pyarrow Table."""
        names = ", ".join(map(_quoted, columns))
        return self.data.aggregate(f"{names}, count(*) AS {_quoted(count)}", names).to_arrow_table()

    def count(self) -> int | None:
        """By the query."""
        return int(self.data.aggregate("count(*)").fetchall()[0][0])

    def whole(self) -> Any:
        """A pyarrow Table."""
        return self.data.project("*").to_arrow_table()


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
