"""A Spark DataFrame: functions run in Spark's workers, which need lme4py and pyarrow."""

from __future__ import annotations

import pickle
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from typing import Any, TypeVar

import numpy as np

from lme4py.chunks import chunk
from lme4py.data.frame import read_frame
from lme4py.data.sources.arrow import arrow_blocks, batch_where
from lme4py.data.sources.base import MadeColumns, RowBlock, RowSource, Schema
from lme4py.data.sources.cluster import cluster_error
from lme4py.data.sources.column_test import ColumnTest, ColumnType, expression_of
from lme4py.data.sources.held import (
    FloatArray,
    HeldTables,
    MergeTables,
    ReduceTable,
    RunTable,
    TableFunction,
    TablesOfBlocks,
)

__all__ = ["SparkSource", "SparkTables"]

T = TypeVar("T")
_TYPES: dict[str, ColumnType] = {"double": "float", "string": "text"}
_TYPES |= dict.fromkeys(["tinyint", "smallint", "int", "bigint"], "integer")
# Tasks for each core, up to which partitions are left as they are.
_TASKS = chunk(4, tiny=1)
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
        types = {name: _TYPES[type] for name, type in self.data.dtypes if type in _TYPES}
        return Schema(tuple(self.data.columns), types)

    def where(self, tests: Sequence[ColumnTest]) -> SparkSource:
        """By its filter, which goes down to the files."""
        from pyspark.sql import functions

        own = expression_of(tests, lambda name: functions.col(f"`{name}`"), functions.isnan)
        return SparkSource(self.data.where(own))

    def blocks(self, columns: Sequence[str] | None = None) -> Iterator[RowBlock]:
        """The rows, which are brought here batch by batch."""
        import pyarrow as pa

        with _in_words():
            sent = self._columns(columns).mapInArrow(_sent, "part binary")
            for row in sent.toLocalIterator():
                yield RowBlock(read_frame(pa.ipc.open_stream(row["part"]).read_all()), self.place)

    def map_blocks(self, function: Callable[[RowBlock], T], columns: Sequence[str] | None = None) -> Iterator[T]:
        """What a function makes of each block, where it is."""
        chosen = self._columns(columns)
        with _in_words():
            made = chosen.mapInArrow(_Run(function), "part binary")
            for row in made.toLocalIterator(prefetchPartitions=True):
                yield pickle.loads(row["part"])

    def reduce_blocks(
        self, function: Callable[[RowBlock], T], merge: Callable[[T, T], T], columns: Sequence[str] | None = None
    ) -> T | None:
        """What a function makes of all blocks together: those of a partition are merged where they are."""
        chosen = self._columns(columns)
        total: T | None = None
        with _in_words():
            for row in chosen.mapInArrow(_Merged(function, merge), "part binary").toLocalIterator():
                own: T = pickle.loads(row["part"])
                total = own if total is None else merge(total, own)
        return total

    def hold(self, what: TablesOfBlocks[T]) -> tuple[HeldTables, T] | None:
        """Tables in cached partitions, after a shuffle by Spark where there is a key."""
        chosen = self._columns(what.columns)
        names = [f"c{j}" for j in range(what.width)]
        schema = ", ".join([f"{name} double" for name in names] + ["beside binary"])
        made = chosen.mapInArrow(_Packed(what.function, tuple(names)), schema)
        parts = chosen.rdd.getNumPartitions()
        if what.key is None:
            parts = min(parts, max(what.n_parts, _TASKS * self.data.sparkSession.sparkContext.defaultParallelism))
            made = made.coalesce(parts)
        else:
            parts = max(what.n_parts, parts)
            made = made.repartition(parts, names[what.key])
        held = SparkTables(made.persist(), names, parts)
        total: Any = None
        with held.interrupted():
            for row in held.frame.where("beside IS NOT NULL").select("beside").toLocalIterator():
                own = pickle.loads(row["beside"])
                total = own if total is None else what.merge(total, own)
        if total is None:
            held.release()
            return None
        return held, total

    def _columns(self, columns: Sequence[str] | None) -> Any:
        return self.data if columns is None else self.data.select([f"`{name}`" for name in columns])

    def lazily(self, made: MadeColumns) -> Any:
        """A Spark DataFrame."""
        from pyspark.sql.types import DoubleType, StructField, StructType

        own = [StructField(name, DoubleType()) for name in made.names]
        schema = StructType([*self.data.schema.fields, *own] if made.keep else own)
        return self.data.mapInArrow(_Made(made), schema)

    def count(self) -> int | None:
        """By Spark."""
        return int(self.data.count())

    def whole(self) -> Any:
        """A pandas DataFrame."""
        return self.data.toPandas()


def _sent(batches: Any) -> Iterator[Any]:
    """Record batches as bytes."""
    import pyarrow as pa

    for batch in batches:
        if batch.num_rows:
            buffer = pa.BufferOutputStream()
            with pa.ipc.new_stream(buffer, batch.schema) as writer:
                writer.write_batch(batch)
            yield pa.RecordBatch.from_pydict({"part": pa.array([buffer.getvalue().to_pybytes()], pa.binary())})


@contextmanager
def _in_words() -> Iterator[None]:
    """Errors of a cluster say what to do."""
    try:
        yield
    except Exception as error:
        found = cluster_error(error, "Spark", _INSTALL)
        if found is not None:
            raise found from None
        raise


class SparkTables(HeldTables):
    """Tables in the cached partitions of a Spark DataFrame; what a function keeps is with the worker that ran it.

    Parameters
    ----------
    frame : pyspark.sql.DataFrame
        Columns of numbers, and one beside them.
    names : sequence of str
        Of the columns of numbers.
    n_parts : int
    """

    def __init__(self, frame: Any, names: Sequence[str], n_parts: int) -> None:
        self.frame, self.names, self.n_parts = frame, tuple(names), n_parts
        self.token = uuid.uuid4().hex

    def table(self, number: int) -> FloatArray:
        """A part, brought here."""
        found = self._run(_Given(), frozenset(range(self.n_parts)) - {number})
        table: FloatArray = found.get(number, np.zeros((0, len(self.names))))
        return table

    def map(self, function: TableFunction[T], without: Iterable[int] = ()) -> dict[int, T]:
        """One job; partitions are where they were cached."""
        return self._run(function, frozenset(without))

    def reduce(self, function: Callable[[FloatArray], T], merge: Callable[[T, T], T]) -> T | None:
        """One job, whose values are merged in a tree by Spark."""
        made = self.frame.mapInArrow(_ReducePart(ReduceTable(function), self.names), "value binary")
        join = MergeTables(merge)
        with self.interrupted():
            found: T | None = made.rdd.map(_value).treeAggregate(None, join, join)
        return found

    def with_columns(self, function: Callable[[FloatArray], FloatArray], width: int) -> HeldTables:
        """In cached partitions again."""
        names = [f"c{j}" for j in range(len(self.names) + width)]
        schema = ", ".join([f"{name} double" for name in names] + ["beside binary"])
        made = self.frame.mapInArrow(_WidenPart(function, self.names, tuple(names)), schema)
        wider = SparkTables(made.persist(), names, self.n_parts)
        with wider.interrupted():
            wider.frame.count()
        self.release()
        return wider

    def _run(self, function: TableFunction[T], without: frozenset[int]) -> dict[int, T]:
        run = _RunPart(RunTable(function), self.names, self.token, without)
        with self.interrupted():
            rows = self.frame.mapInArrow(run, "number int, value binary").collect()
        return {row["number"]: pickle.loads(row["value"]) for row in rows}

    @contextmanager
    def interrupted(self) -> Iterator[None]:
        """Jobs of a group, which are cancelled when something goes wrong here, or is interrupted."""
        context = self.frame.sparkSession.sparkContext
        context.setJobGroup(self.token, "lme4py", interruptOnCancel=True)
        try:
            with _in_words():
                yield
        except BaseException:
            context.cancelJobGroup(self.token)
            self.release()
            raise
        finally:
            context.setLocalProperty("spark.jobGroup.id", None)

    def release(self) -> None:
        """Give up the cached partitions."""
        self.frame.unpersist()


# What functions of tables kept, by fit and part, in a worker that Spark uses again.
_KEPT: dict[tuple[str, int], Any] = {}
_MOST_KEPT = 64


@dataclass(frozen=True)
class _Given:
    """The table itself."""

    def __call__(self, table: FloatArray, kept: Any) -> tuple[FloatArray, Any]:
        return table, kept


@dataclass(frozen=True)
class _RunPart:
    """A function of tables as one of the record batches of a cached partition."""

    run: RunTable[Any]
    names: tuple[str, ...]
    token: str
    without: frozenset[int]

    def __call__(self, batches: Any) -> Iterator[Any]:
        import pyarrow as pa
        from pyspark import TaskContext

        context = TaskContext.get()
        number = -1 if context is None else int(context.partitionId())
        if number in self.without:
            return
        table = _table(batches, self.names)
        value, kept = self.run(table, _KEPT.get((self.token, number)))
        while len(_KEPT) >= _MOST_KEPT:
            _KEPT.pop(next(iter(_KEPT)))
        _KEPT[self.token, number] = kept
        if value is not None:
            yield pa.RecordBatch.from_pydict(
                {"number": pa.array([number], pa.int32()), "value": pa.array([pickle.dumps(value)], pa.binary())}
            )


def _table(batches: Any, names: Sequence[str]) -> FloatArray:
    """The numbers of a cached partition, without rows that only carry what stands beside them."""

    def numbers(batch: Any) -> FloatArray:
        columns = [batch.column(name).to_numpy(zero_copy_only=False) for name in names]
        table = np.column_stack(columns) if columns else np.zeros((0, 0))
        return table[~np.isnan(table).any(axis=1)]

    return np.concatenate([np.zeros((0, len(names))), *map(numbers, batches)])


@dataclass(frozen=True)
class _ReducePart:
    """A function of tables as one of the record batches of a cached partition."""

    function: ReduceTable[Any]
    names: tuple[str, ...]

    def __call__(self, batches: Any) -> Iterator[Any]:
        import pyarrow as pa

        value = pickle.dumps(self.function(_table(batches, self.names)))
        yield pa.RecordBatch.from_pydict({"value": pa.array([value], pa.binary())})


def _value(row: Any) -> Any:
    return pickle.loads(row["value"])


@dataclass(frozen=True)
class _WidenPart:
    """The record batches of a cached partition with further columns."""

    function: Callable[[FloatArray], FloatArray]
    names: tuple[str, ...]
    wider: tuple[str, ...]

    def __call__(self, batches: Any) -> Iterator[Any]:
        import pyarrow as pa

        for batch in batches:
            table = _table([batch], self.names)
            every = np.hstack([table, self.function(table)])
            columns = {name: pa.array(own, pa.float64()) for name, own in zip(self.wider, every.T, strict=True)}
            yield pa.RecordBatch.from_pydict({**columns, "beside": pa.nulls(len(every), pa.binary())})


@dataclass(frozen=True)
class _Packed:
    """Tables of blocks as record batches; what stands beside a table is in a row of its own."""

    function: Callable[[RowBlock], tuple[FloatArray, Any]]
    names: tuple[str, ...]

    def __call__(self, batches: Any) -> Iterator[Any]:
        import pyarrow as pa

        for block in arrow_blocks(batches, "Spark partition"):
            table, beside = self.function(block)
            note = [None] * len(table) + [pickle.dumps(beside)]
            rows = np.vstack([table, np.full((1, len(self.names)), np.nan)])
            columns = {name: pa.array(own, pa.float64()) for name, own in zip(self.names, rows.T, strict=True)}
            yield pa.RecordBatch.from_pydict({**columns, "beside": pa.array(note, pa.binary())})


@dataclass(frozen=True)
class _Run:
    """A function of blocks as one of the record batches of a partition."""

    function: Callable[[RowBlock], Any]

    def __call__(self, batches: Any) -> Iterator[Any]:
        import pyarrow as pa

        for block in arrow_blocks(batches, "Spark partition"):
            yield pa.RecordBatch.from_pydict({"part": [pickle.dumps(self.function(block))]})


@dataclass(frozen=True)
class _Merged:
    """The same, as one value of a partition: what goes through Java is no larger than that."""

    function: Callable[[RowBlock], Any]
    merge: Callable[[Any, Any], Any]

    def __call__(self, batches: Any) -> Iterator[Any]:
        import pyarrow as pa

        found = map(self.function, arrow_blocks(batches, "Spark partition"))
        first = next(found, None)
        if first is not None:
            yield pa.RecordBatch.from_pydict({"part": [pickle.dumps(reduce(self.merge, found, first))]})


@dataclass(frozen=True)
class _Made:
    """Columns made of the rows of the record batches of a partition."""

    made: MadeColumns

    def __call__(self, batches: Any) -> Iterator[Any]:
        import pyarrow as pa

        made = self.made
        for each in batches:
            batch = batch_where(each, made.where)
            if batch.num_rows:
                found = made.function(read_frame(pa.Table.from_batches([batch])))
                own = {name: pa.array(found[name], pa.float64()) for name in made.names}
                kept = dict(zip(batch.schema.names, batch.columns, strict=True)) if made.keep else {}
                yield pa.RecordBatch.from_pydict({**kept, **own})
