"""A polars LazyFrame, through its streaming engine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from lme4py.data.frame import read_frame
from lme4py.data.sources.base import MadeColumns, RowBlock, RowSource, Schema
from lme4py.data.sources.column_test import ColumnTest, ColumnType, expression_of

__all__ = ["PolarsSource"]


class PolarsSource(RowSource):
    """A LazyFrame: its query runs anew in each pass, and reads only the columns asked for.

    Parameters
    ----------
    data : polars.LazyFrame
    """

    place = "polars LazyFrame"
    groups = True

    def __init__(self, data: Any) -> None:
        self.data = data

    def schema(self) -> Schema:
        """Names of the columns."""
        import polars as pl

        types: dict[str, ColumnType] = {}
        for name, type in self.data.collect_schema().items():
            if type in (pl.Float64, pl.String):
                types[name] = "float" if type == pl.Float64 else "text"
            elif type.is_integer():
                types[name] = "integer"
        return Schema(tuple(self.data.collect_schema().names()), types)

    def where(self, tests: Sequence[ColumnTest]) -> PolarsSource:
        """By its filter, which goes down to the files."""
        import polars as pl

        return PolarsSource(self.data.filter(expression_of(tests, pl.col, lambda column: column.is_nan())))

    def blocks(self, columns: Sequence[str] | None = None) -> Iterator[RowBlock]:
        """The rows of the query."""
        import polars as pl

        query = self.data if columns is None else self.data.select(list(columns))
        if not hasattr(query, "collect_batches"):
            # Versions of polars before 1.34 have no batches.
            query = query.collect(engine="streaming")
            yield from (RowBlock(read_frame(part)) for part in query.iter_slices(self.rows_at_once))
            return
        kept: list[Any] = []
        size = 0
        for batch in query.collect_batches(chunk_size=self.rows_at_once, engine="streaming"):
            kept.append(batch)
            size += batch.height
            if size >= self.rows_at_once:
                yield RowBlock(read_frame(pl.concat(kept)))
                kept, size = [], 0
        if size:
            yield RowBlock(read_frame(pl.concat(kept)))

    def distinct(self, columns: Sequence[str], count: str, response: tuple[str, str] | None = None) -> Any:
        """By ``group_by``, as a polars DataFrame."""
        import polars as pl

        if response is None:
            return self.data.group_by(list(columns)).len(name=count).collect(engine="streaming")
        keys: list[Any] = [name for name in columns if name != response[0]]
        y = pl.col(response[0]).cast(pl.Float64)
        made = [pl.len().alias(count), y.mean(), y.var(ddof=0).alias(response[1])]
        keys.append((y.is_null() | y.is_nan().fill_null(True)).alias("(missing)"))
        return self.data.group_by(keys).agg(made).collect(engine="streaming").drop("(missing)")

    def lazily(self, made: MadeColumns) -> Any:
        """A LazyFrame."""
        import polars as pl

        own = dict.fromkeys(made.names, pl.Float64())
        schema = {**self.data.collect_schema(), **own} if made.keep else own

        def of_part(part: Any) -> Any:
            if made.where is not None and part.height:
                part = part.filter(pl.Series(made.where(read_frame(part)), dtype=pl.Boolean))
            if not part.height:
                return pl.DataFrame(schema=schema)
            columns = pl.DataFrame(made.function(read_frame(part)), schema=own)
            return part.hstack(columns) if made.keep else columns

        # Filters and columns asked for afterwards are those of what is made.
        return self.data.map_batches(of_part, projection_pushdown=False, predicate_pushdown=False, schema=schema)

    def count(self) -> int | None:
        """By the query."""
        import polars as pl

        return int(self.data.select(pl.len()).collect(engine="streaming").item())

    def whole(self) -> Any:
        """A polars DataFrame."""
        return self.data.collect()
