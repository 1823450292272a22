"""A polars LazyFrame, through its streaming engine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from lme4py.chunks import chunk
from lme4py.data.frame import read_frame
from lme4py.data.sources.base import RowBlock, RowSource, Schema

__all__ = ["PolarsSource"]

_ROWS = chunk(2**20)


class PolarsSource(RowSource):
    """A LazyFrame: its query runs anew in each pass, and reads only the columns asked for.

    Parameters
    ----------
    data : polars.LazyFrame
    """

    place = "polars LazyFrame"

    def __init__(self, data: Any) -> None:
        self.data = data

    def schema(self) -> Schema:
        """Names of the columns."""
        return Schema(tuple(self.data.collect_schema().names()))

    def blocks(self, columns: Sequence[str] | None = None) -> Iterator[RowBlock]:
        """The rows of the query."""
        import polars as pl

        query = self.data if columns is None else self.data.select(list(columns))
        if not hasattr(query, "collect_batches"):
            # Versions of polars before 1.34 have no batches.
            query = query.collect(engine="streaming")
            yield from (RowBlock(read_frame(part)) for part in query.iter_slices(_ROWS))
            return
        kept: list[Any] = []
        size = 0
        for batch in query.collect_batches(chunk_size=_ROWS, engine="streaming"):
            kept.append(batch)
            size += batch.height
            if size >= _ROWS:
                yield RowBlock(read_frame(pl.concat(kept)))
                kept, size = [], 0
        if size:
            yield RowBlock(read_frame(pl.concat(kept)))

    def distinct(self, columns: Sequence[str], count: str) -> Any:
        """By ``group_by``, as a polars DataFrame."""
        return self.data.group_by(list(columns)).len(name=count).collect(engine="streaming")

    def count(self) -> int | None:
        """By the query."""
        import polars as pl

        return int(self.data.select(pl.len()).collect(engine="streaming").item())

    def whole(self) -> Any:
        """A polars DataFrame."""
        return self.data.collect()
