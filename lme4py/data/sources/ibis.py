"""An ibis table: a query in any of its engines, run anew in each pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from lme4py.data.frame import Frame
from lme4py.data.sources.arrow import arrow_blocks, arrow_lazily
from lme4py.data.sources.base import RowBlock, RowSource, Schema

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
        return Schema(tuple(self.data.columns))

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
        missing = (y.isnull() | y.isnan().fill_null(True)).name("(missing)")
        keys = [*(name for name in columns if name != response[0]), missing]
        made |= {response[0]: y.mean(), response[1]: y.var(how="pop")}
        return self.data.group_by(keys).aggregate(**made).to_pyarrow().drop_columns(["(missing)"])

    def lazily(self, function: Callable[[Frame], dict[str, Any]], names: Sequence[str], keep: bool) -> Any:
        """A RecordBatchReader, which any of ibis' engines reads."""
        reader = self.data.to_pyarrow_batches(chunk_size=self.rows_at_once)
        return arrow_lazily(reader, reader.schema, function, names, keep)

    def count(self) -> int | None:
        """By the query."""
        return int(self.data.count().execute())

    def whole(self) -> Any:
        """A pyarrow Table."""
        return self.data.to_pyarrow()
