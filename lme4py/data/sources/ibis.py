"""An ibis table: a query in any of its engines, run anew in each pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from lme4py.data.sources.arrow import arrow_blocks, arrow_lazily
from lme4py.data.sources.base import MadeColumns, RowBlock, RowSource, Schema
from lme4py.data.sources.column_test import ColumnTest, ColumnType, expression_of

__all__ = ["IbisSource"]


class IbisSource(RowSource):
    """A table expression; only the columns asked for are read.

    Parameters
    ----------
    data : ibis.Table
    """

    place = "ibis table"
    groups = True

    def __init__(self, data: Any) -> None:
        self.data = data

    def schema(self) -> Schema:
        """Names of the columns."""
        types: dict[str, ColumnType] = {}
        for name, type in self.data.schema().items():
            # Text is compared by the rules of the engine, such as its collation.
            if type.is_float64() or type.is_integer():
                types[name] = "float" if type.is_float64() else "integer"
        return Schema(tuple(self.data.columns), types)

    def where(self, tests: Sequence[ColumnTest]) -> IbisSource:
        """By the filter of its engine."""
        own = expression_of(tests, self.data.__getitem__, self._is_nan)
        return IbisSource(self.data.filter(own))

    def blocks(self, columns: Sequence[str] | None = None) -> Iterator[RowBlock]:
        """The rows of the query."""
        query = self.data if columns is None else self.data.select(*columns)
        reader = query.to_pyarrow_batches(chunk_size=self.rows_at_once)
        try:
            yield from arrow_blocks(reader, self.place, self.rows_at_once)
        finally:
            # A connection has one open result at a time.
            reader.close()

    def distinct(self, columns: Sequence[str], count: str, response: tuple[str, str] | None = None) -> Any:
        """By ``GROUP BY``, as a pyarrow Table."""
        made = {count: self.data.count()}
        if response is None:
            return self.data.group_by(list(columns)).aggregate(**made).to_pyarrow()
        y = self.data[response[0]].cast("float64")
        missing = (y.isnull() | self._is_nan(y)).name("(missing)")
        keys = [*(name for name in columns if name != response[0]), missing]
        made |= {response[0]: y.mean(), response[1]: y.var(how="pop")}
        return self.data.group_by(keys).aggregate(**made).to_pyarrow().drop_columns(["(missing)"])

    def _is_nan(self, column: Any) -> Any:
        """Where a column of floating-point numbers is NaN, which engines without such a number store as null."""
        import ibis

        known = self.data.get_backend().has_operation(ibis.expr.operations.IsNan)
        return column.isnan().fill_null(False) if known else ibis.literal(False)

    def lazily(self, made: MadeColumns) -> Any:
        """A RecordBatchReader, which any of ibis' engines reads."""
        reader = self.data.to_pyarrow_batches(chunk_size=self.rows_at_once)
        return arrow_lazily(reader, reader.schema, made)

    def count(self) -> int | None:
        """By the query."""
        return int(self.data.count().execute())

    def whole(self) -> Any:
        """A pyarrow Table."""
        return self.data.to_pyarrow()
