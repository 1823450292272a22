"""A Spark DataFrame: functions run in Spark's workers, which need lme4py and pyarrow."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from lme4py.data.frame import Frame, read_frame
from lme4py.data.sources.arrow import arrow_blocks
from lme4py.data.sources.base import RowBlock, RowSource, Schema
from lme4py.data.sources.cluster import cluster_error

__all__ = ["SparkSource"]

T = TypeVar("T")
_INSTALL = (
    " (the environment variable PYSPARK_PYTHON names their Python), or send it with spark.sparkContext.addPyFile or "
    "--py-files"
)


class SparkSource(RowSource):
    """A DataFrame of the active Spark session.

    Parameters
    ----------
    data : pyspark.sql.DataFrame
    """

    travels = True
    place = "Spark DataFrame"

    def __init__(self, data: Any) -> None:
        self.data = data

    def schema(self) -> Schema:
        """Names of the columns."""
        return Schema(tuple(self.data.columns))

    def blocks(self, columns: Sequence[str] | None = None) -> Iterator[RowBlock]:
        """The rows, which are brought here."""
        chosen = self.data if columns is None else self.data.select([f"`{name}`" for name in columns])
        yield RowBlock(read_frame(chosen.toArrow()), self.place)

    def map_blocks(self, function: Callable[[RowBlock], T], columns: Sequence[str] | None = None) -> Iterator[T]:
        """What a function makes of each block, where it is."""
        chosen = self.data if columns is None else self.data.select([f"`{name}`" for name in columns])
        try:
            made = chosen.mapInArrow(_Run(function), "part binary")
            for row in made.toLocalIterator(prefetchPartitions=True):
                yield pickle.loads(row["part"])
        except Exception as error:
            found = cluster_error(error, "Spark", _INSTALL)
            if found is not None:
                raise found from None
            raise

    def lazily(self, function: Callable[[Frame], dict[str, Any]], names: Sequence[str], keep: bool) -> Any:
        """A Spark DataFrame."""
        from pyspark.sql.types import DoubleType, StructField, StructType

        own = [StructField(name, DoubleType()) for name in names]
        schema = StructType([*self.data.schema.fields, *own] if keep else own)
        return self.data.mapInArrow(_Made(function, tuple(names), keep), schema)

    def count(self) -> int | None:
        """By Spark."""
        return int(self.data.count())

    def whole(self) -> Any:
        """A pandas DataFrame."""
        return self.data.toPandas()


@dataclass(frozen=True)
class _Run:
    """A function of blocks as one of the record batches of a partition."""

    function: Callable[[RowBlock], Any]

    def __call__(self, batches: Any) -> Iterator[Any]:
        import pyarrow as pa

        for block in arrow_blocks(batches, "Spark partition"):
            yield pa.RecordBatch.from_pydict({"part": [pickle.dumps(self.function(block))]})


@dataclass(frozen=True)
class _Made:
    """Columns made of the rows of the record batches of a partition."""

    function: Callable[[Frame], dict[str, Any]]
    names: tuple[str, ...]
    keep: bool

    def __call__(self, batches: Any) -> Iterator[Any]:
        import pyarrow as pa

        for batch in batches:
            if batch.num_rows:
                found = self.function(read_frame(pa.Table.from_batches([batch])))
                own = {name: pa.array(found[name], pa.float64()) for name in self.names}
                kept = dict(zip(batch.schema.names, batch.columns, strict=True)) if self.keep else {}
                yield pa.RecordBatch.from_pydict({**kept, **own})
