"""Rows in files that pyarrow streams (Parquet, Feather, CSV and TSV), and its own datasets."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from lme4py.chunks import chunk
from lme4py.data.column import Column
from lme4py.data.frame import Frame, read_frame
from lme4py.data.sources.address import address_fault, file_stamps, file_system_of, shown_address
from lme4py.data.sources.base import MadeColumns, RowBlock, RowSource, RowsWhere, Schema
from lme4py.data.sources.column_test import ColumnTest, ColumnType, expression_of
from lme4py.errors import DataError, Lme4Error

__all__ = ["ArrowSource", "arrow_blocks", "arrow_lazily", "batch_where"]

# Record batches of a block, which are read ahead.
_BATCHES = chunk(8, tiny=1)


class ArrowSource(RowSource):
    """A pyarrow.dataset.

    Parameters
    ----------
    dataset : pyarrow.dataset.Dataset
    place : str, optional
    faults : mapping of str to str, optional
        Columns that cannot be read, and why.
    filter : pyarrow.dataset.Expression, optional
        Of the rows.
    """

    def __init__(
        self,
        dataset: Any,
        place: str = "pyarrow dataset",
        faults: Mapping[str, str] | None = None,
        filter: Any = None,
    ) -> None:
        self.dataset, self.filter = dataset, filter
        self.place = place
        self.faults = dict(faults or {})

    def schema(self) -> Schema:
        """Names of the columns."""
        schema = self.dataset.schema
        found = zip(schema.names, map(_type_of, schema.types), strict=True)
        return Schema(tuple(schema.names), {name: type for name, type in found if type is not None})

    def where(self, tests: Sequence[ColumnTest]) -> ArrowSource:
        """By a filter of the dataset, which leaves out groups of rows by their statistics."""
        import pyarrow.dataset as ds

        own = expression_of(tests, ds.field, lambda column: column.is_nan())
        return ArrowSource(self.dataset, self.place, self.faults, own if self.filter is None else self.filter & own)

    def blocks(self, columns: Sequence[str] | None = None) -> Iterator[RowBlock]:
        """The rows file by file; only the columns asked for are read."""
        for name in columns or ():
            self._refuse(name)
        wanted = [name for name in self._sound() if columns is None or name in set(columns)]
        size = max(1, self.rows_at_once // _BATCHES)
        with self._readable():
            batches = self.dataset.to_batches(
                columns=wanted, filter=self.filter, batch_size=size, batch_readahead=_BATCHES, fragment_readahead=2
            )
            yield from arrow_blocks(batches, self.place, self.rows_at_once)

    @contextmanager
    def _readable(self) -> Iterator[None]:
        """What goes wrong while files are read, in words, and without credentials."""
        import pyarrow as pa

        try:
            yield
        except Lme4Error:
            raise
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
            raise DataError(
                f"{self.place} cannot be read as one table: {shown_address(str(error))}. Files of one source need the "
                "same type for a column; convert them, or fit them apart."
            ) from None
        except Exception as error:
            if file_system_of(self.dataset) is not None and not isinstance(error, FileNotFoundError):
                raise DataError(f"{self.place} cannot be read: {address_fault(error)}") from None
            if not isinstance(error, OSError):
                raise
            raise DataError(
                f"{self.place} cannot be read to the end; perhaps the source changed while it was read: "
                f"{shown_address(str(error))}"
            ) from None

    def lazily(self, made: MadeColumns) -> Any:
        """A RecordBatchReader, without columns that cannot be read."""
        import pyarrow as pa

        schema = pa.schema([self.dataset.schema.field(name) for name in self._sound()])
        batches = self.dataset.to_batches(columns=schema.names, filter=self.filter, batch_size=self.rows_at_once)
        return arrow_lazily(self._said(batches), schema, made)

    def _said(self, batches: Iterable[Any]) -> Iterator[Any]:
        with self._readable():
            yield from batches

    def count(self) -> int | None:
        """By the metadata of the files; text is read through."""
        with self._readable():
            return int(self.dataset.count_rows(filter=self.filter))

    def whole(self) -> Any:
        """A pyarrow Table, or a frame that refuses columns which cannot be read."""
        names = self.dataset.schema.names
        with self._readable():
            table = self.dataset.to_table(columns=self._sound(), filter=self.filter)
        if not self.faults:
            return table
        frame = read_frame(table)

        def column(position: int) -> Column:
            self._refuse(names[position])
            return frame.column(names[position])

        return Frame(names, frame.n_rows, column)

    def _sound(self) -> list[str]:
        return [name for name in self.dataset.schema.names if name not in self.faults]

    def _refuse(self, name: str) -> None:
        if name in self.faults:
            raise DataError(shown_address(self.faults[name]))

    def fingerprint(self) -> Hashable:
        """Sizes and times of the files, and what else a server says of them (ETag, version)."""
        files = getattr(self.dataset, "files", None)
        if not files:
            return None
        system = file_system_of(self.dataset)
        if system is not None:
            with self._readable():
                return file_stamps(system, files)
        found = self.dataset.filesystem.get_file_info(files)
        return tuple((info.path, info.size, info.mtime_ns) for info in found)


def _type_of(type: Any) -> ColumnType | None:
    import pyarrow as pa

    if pa.types.is_float64(type):
        return "float"
    if pa.types.is_integer(type):
        return "integer"
    return "text" if pa.types.is_string(type) or pa.types.is_large_string(type) else None


def arrow_lazily(batches: Any, schema: Any, made: MadeColumns) -> Any:
    """Record batches with columns made of their rows, as a RecordBatchReader.

    Parameters
    ----------
    batches : iterable of pyarrow.RecordBatch
    schema : pyarrow.Schema
    made : MadeColumns
    """
    import pyarrow as pa

    own = [pa.field(name, pa.float64()) for name in made.names]
    whole = pa.schema([*schema, *own] if made.keep else own)

    def all_batches() -> Iterator[Any]:
        for each in batches:
            batch = batch_where(each, made.where)
            if batch.num_rows:
                found = made.function(read_frame(pa.Table.from_batches([batch])))
                columns = [pa.array(found[name], pa.float64()) for name in made.names]
                yield pa.RecordBatch.from_arrays([*batch.columns, *columns] if made.keep else columns, schema=whole)

    return pa.RecordBatchReader.from_batches(whole, all_batches())


def batch_where(batch: Any, where: RowsWhere | None) -> Any:
    """The rows of a record batch that are wanted; all without a condition."""
    import pyarrow as pa

    if where is None or not batch.num_rows:
        return batch
    return batch.filter(pa.array(where(read_frame(pa.Table.from_batches([batch])))))


def arrow_blocks(batches: Any, place: str, rows_at_once: int = RowSource.rows_at_once) -> Iterator[RowBlock]:
    """Record batches put together to blocks.

    Parameters
    ----------
    batches : iterable of pyarrow.RecordBatch
    place : str
        For messages.
    rows_at_once : int
        Record batches are put together until there are as many rows.
    """
    import pyarrow as pa

    kept: list[Any] = []
    size = 0
    for batch in batches:
        kept.append(batch)
        size += batch.num_rows
        if size >= rows_at_once:
            yield RowBlock(read_frame(pa.Table.from_batches(kept)), place)
            kept, size = [], 0
    if size:
        yield RowBlock(read_frame(pa.Table.from_batches(kept)), place)
