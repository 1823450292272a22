"""A DuckDB relation: a query, a view or a table of a database."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from lme4py.data.frame import Frame
from lme4py.data.sources.arrow import arrow_blocks, arrow_lazily
from lme4py.data.sources.base import RowBlock, RowSource, Schema

__all__ = ["DuckDBSource"]


class DuckDBSource(RowSource):
    """A relation: its query runs anew in each pass, and reads only the columns asked for.

    Parameters
    ----------
    data : duckdb.DuckDBPyRelation
    """

    place = "DuckDB relation"
    groups = True

    def __init__(self, data: Any) -> None:
        self.data = data

    def schema(self) -> Schema:
        """Names of the columns."""
        return Schema(tuple(self.data.columns))

    def blocks(self, columns: Sequence[str] | None = None) -> Iterator[RowBlock]:
        """The rows of the query."""
        return arrow_blocks(
            self._batches(self.data.columns if columns is None else columns), self.place, self.rows_at_once
        )

    def distinct(self, columns: Sequence[str], count: str, response: tuple[str, str] | None = None) -> Any:
        """By ``GROUP BY``, as a pyarrow Table."""
        keys = [_quoted(name) for name in columns if response is None or name != response[0]]
        made = [*keys, f"count(*) AS {_quoted(count)}"]
        if response is not None:
            y, number = _quoted(response[0]), f"{_quoted(response[0])}::DOUBLE"
            made.append(f"avg({number}) AS {y}")
            made.append(f"var_pop(CASE WHEN isfinite({number}) THEN {number} END) AS {_quoted(response[1])}")
            keys.append(f"({y} IS NULL OR isnan({number}))")
        return self.data.aggregate(", ".join(made), ", ".join(keys)).to_arrow_table()

    def lazily(self, function: Callable[[Frame], dict[str, Any]], names: Sequence[str], keep: bool) -> Any:
        """A relation of a connection of its own, whose rows can be read once."""
        import duckdb

        schema = self.data.limit(0).to_arrow_table().schema
        made = arrow_lazily(self._batches(self.data.columns), schema, function, names, keep)
        # A connection has one open result at a time, and this one reads another.
        return duckdb.connect().from_arrow(made)

    def _batches(self, columns: Sequence[str]) -> Iterator[Any]:
        query = self.data.project(", ".join(map(_quoted, columns)))
        read = query.to_arrow_reader if hasattr(query, "to_arrow_reader") else query.fetch_arrow_reader
        reader = read(self.rows_at_once)
        try:
            yield from reader
        finally:
            # A connection has one open result at a time.
            reader.close()

    def count(self) -> int | None:
        """By the query."""
        return int(self.data.aggregate("count(*)").fetchall()[0][0])

    def whole(self) -> Any:
        """A pyarrow Table."""
        return self.data.project("*").to_arrow_table()


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
