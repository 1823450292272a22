"""A DuckDB relation: a query, a view or a table of a database."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from lme4py.data.sources.arrow import arrow_blocks, arrow_lazily
from lme4py.data.sources.base import MadeColumns, RowBlock, RowSource, Schema
from lme4py.data.sources.column_test import ColumnTest, ColumnType

__all__ = ["DuckDBSource"]

_SQL = {"==": "=", "!=": "<>"}
_TYPES: dict[str, ColumnType] = {"DOUBLE": "float", "VARCHAR": "text"}
_SIZES = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT")
_TYPES |= dict.fromkeys([sign + size for sign in ("", "U") for size in _SIZES], "integer")


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
        found = zip(self.data.columns, map(str, self.data.types), strict=True)
        return Schema(tuple(self.data.columns), {name: _TYPES[type] for name, type in found if type in _TYPES})

    def where(self, tests: Sequence[ColumnTest]) -> DuckDBSource:
        """By ``WHERE``."""
        return DuckDBSource(self.data.filter(" AND ".join(map(_sql, tests))))

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

    def lazily(self, made: MadeColumns) -> Any:
        """A relation of a connection of its own, whose rows can be read once."""
        import duckdb

        schema = self.data.limit(0).to_arrow_table().schema
        reader = arrow_lazily(self._batches(self.data.columns), schema, made)
        # A connection has one open result at a time, and this one reads another.
        return duckdb.connect().from_arrow(reader)

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


def _sql(test: ColumnTest) -> str:
    own = _quoted(test.column)
    compare = " OR ".join(f"{own} {_SQL.get(test.operator, test.operator)} {_literal(value)}" for value in test.values)
    return f"({compare})" + (f" AND NOT isnan({own})" if test.type == "float" else "")


def _literal(value: float | str) -> str:
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return f"'{value!r}'::DOUBLE"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
