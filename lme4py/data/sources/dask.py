"""A Dask DataFrame: functions run where its partitions are, on the client that is active or on threads."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from operator import itemgetter
from typing import Any, Generic, TypeVar

import numpy as np

from lme4py.chunks import chunk
from lme4py.data.frame import read_frame
from lme4py.data.sources.base import MadeColumns, RowBlock, RowSource, Schema
from lme4py.data.sources.cluster import cluster_error
from lme4py.data.sources.held import (
    FloatArray,
    HeldTables,
    MergeTables,
    ReduceTable,
    RunTable,
    TableFunction,
    TablesOfBlocks,
)
from lme4py.errors import DataError

__all__ = ["DaskSource", "DaskTables"]

T = TypeVar("T")
# Values that are merged by one task.
_WIDTH = chunk(8, tiny=2)
# Tasks for each thread, up to which partitions are left as they are.
_TASKS = chunk(4, tiny=1)


class DaskSource(RowSource):
    """A Dask DataFrame; no cluster is started for it.

    Parameters
    ----------
    data : dask.dataframe.DataFrame
    """

    travels = True

    def __init__(self, data: Any) -> None:
        self.data = data
        self.place = f"Dask DataFrame of {data.npartitions} partition{'s' * (data.npartitions != 1)}"

    def schema(self) -> Schema:
        """Names of the columns."""
        return Schema(tuple(map(str, self.data.columns)))

    def _partitions(self, columns: Sequence[str] | None) -> list[Any]:
        chosen = self.data if columns is None else self.data[list(columns)]
        parts: list[Any] = chosen.to_delayed()
        return parts

    def blocks(self, columns: Sequence[str] | None = None) -> Iterator[RowBlock]:
        """The partitions, which are brought here one after the other."""
        for number, part in enumerate(self._partitions(columns)):
            yield RowBlock(read_frame(_computed([part])[0]), f"partition {number}")

    def map_blocks(self, function: Callable[[RowBlock], T], columns: Sequence[str] | None = None) -> Iterator[T]:
        """What a function makes of each partition, where it is."""
        dask: Any = import_module("dask")
        run = _Run(function)
        return iter(_computed([dask.delayed(run)(part, i) for i, part in enumerate(self._partitions(columns))]))

    def reduce_blocks(
        self, function: Callable[[RowBlock], T], merge: Callable[[T, T], T], columns: Sequence[str] | None = None
    ) -> T | None:
        """What a function makes of all partitions together, merged in a tree."""
        dask: Any = import_module("dask")
        run = _Run(function)
        parts = [dask.delayed(run)(part, number) for number, part in enumerate(self._partitions(columns))]
        return _computed(_merged(parts, merge))[0] if parts else None

    def hold(self, what: TablesOfBlocks[T]) -> tuple[HeldTables, T] | None:
        """Tables on the workers, after a shuffle by Dask where there is a key."""
        dask: Any = import_module("dask")
        frames: Any = import_module("dask.dataframe")
        run, names = _Run(what.function), [str(j) for j in range(what.width)]
        made = dask.persist(*[dask.delayed(run)(part, i) for i, part in enumerate(self._partitions(what.columns))])
        if not made:
            return None
        with _let_go(made):
            beside = _computed(_merged([dask.delayed(_SECOND)(one) for one in made], what.merge))[0]
            if what.key is None:
                return DaskTables(_fewer([dask.delayed(_FIRST)(one) for one in made])), beside
            tables = frames.from_delayed(
                [dask.delayed(_Framed(names))(one) for one in made], meta=_Framed(names).meta, verify_meta=False
            )
            tables = tables.shuffle(on=names[what.key], npartitions=max(what.n_parts, len(made)))
            held = DaskTables([dask.delayed(_array)(part) for part in tables.to_delayed()])
        return held, beside

    def lazily(self, made: MadeColumns) -> Any:
        """A Dask DataFrame on the same index."""
        import pandas as pd

        empty = self.data._meta
        own = {name: pd.Series([], dtype="float64", index=empty.index) for name in made.names}
        meta = empty.assign(**own) if made.keep else pd.DataFrame(own, index=empty.index)
        return self.data.map_partitions(_Made(made), meta=meta)

    def count(self) -> int | None:
        """Where the partitions are."""
        return len(self.data)

    def whole(self) -> Any:
        """A pandas DataFrame."""
        return self.data.compute()


class DaskTables(HeldTables):
    """Tables on Dask's workers.

    Parameters
    ----------
    parts : list of delayed ndarray
    """

    def __init__(self, parts: Sequence[Any]) -> None:
        dask: Any = import_module("dask")
        self.parts = dask.persist(*parts)
        self.kept: list[Any] = [None] * len(parts)
        self.n_parts = len(parts)
        with _let_go(self.parts):
            # So that nothing of what they are made from is needed any more.
            _computed([dask.delayed(len)(part) for part in self.parts])

    def table(self, number: int) -> FloatArray:
        """A part, brought here."""
        found: FloatArray = _computed([self.parts[number]])[0]
        return found

    def map(self, function: TableFunction[T], without: Iterable[int] = ()) -> dict[int, T]:
        """One task for each part; what it keeps is a future on its worker."""
        dask: Any = import_module("dask")
        run: Any = dask.delayed(RunTable(function), pure=False)
        left_out = set(without)
        numbers = [number for number in range(self.n_parts) if number not in left_out]
        made = [run(self.parts[number], self.kept[number]) for number in numbers]
        both = dask.persist(*[dask.delayed(place)(one) for place in (_FIRST, _SECOND) for one in made])
        with _let_go(both):
            values = _computed(both[: len(made)], held=True)
        for number, own in zip(numbers, both[len(made) :], strict=True):
            self.kept[number] = own
        return {number: value for number, value in zip(numbers, values, strict=True) if value is not None}

    def reduce(self, function: Callable[[FloatArray], T], merge: Callable[[T, T], T]) -> T | None:
        """One task for each part, whose values are merged in a tree."""
        dask: Any = import_module("dask")
        run: Any = dask.delayed(ReduceTable(function), pure=False, traverse=False)
        with _large_graphs():
            found: T | None = _computed(_merged([run(part) for part in self.parts], MergeTables(merge)))[0]
        return found

    def with_columns(self, function: Callable[[FloatArray], FloatArray], width: int) -> HeldTables:
        """Where the parts are."""
        dask: Any = import_module("dask")
        run: Any = dask.delayed(_Widened(function), pure=False, traverse=False)
        with _large_graphs():
            wider = DaskTables([run(part) for part in self.parts])
        self.release()
        return wider

    def release(self) -> None:
        """Give up the futures."""
        _give_up([*self.parts, *(one for one in self.kept if one is not None)])
        self.parts, self.kept = (), []


def _fewer(tables: Sequence[Any]) -> Sequence[Any]:
    """Delayed tables, neighbours together where there are many more than threads."""
    dask: Any = import_module("dask")
    size = max(1, len(tables) // (_TASKS * _n_threads()))
    if size == 1:
        return tables
    return [dask.delayed(np.concatenate)(tables[i : i + size]) for i in range(0, len(tables), size)]


def _n_threads() -> int:
    """Of the active cluster, or of this machine."""
    if not _is_distributed():
        return os.cpu_count() or 1
    client: Any = sys.modules["distributed"].default_client()
    return max(1, sum(map(int, client.nthreads().values())))


def _merged(parts: Sequence[Any], merge: Callable[[Any, Any], Any]) -> Sequence[Any]:
    """Delayed values merged in a tree to one."""
    dask: Any = import_module("dask")
    join = _Join(merge)
    while len(parts) > 1:
        parts = [dask.delayed(join)(parts[i : i + _WIDTH]) for i in range(0, len(parts), _WIDTH)]
    return parts


def _large_graphs() -> Any:
    """Without Dask's warning of large functions: what is known of levels and pairs of them is sent in each pass."""
    dask: Any = import_module("dask")
    return dask.config.set({"distributed.admin.large-graph-warning-threshold": "1TB"})


@contextmanager
def _let_go(parts: Sequence[Any]) -> Iterator[None]:
    """Futures that are given up when something goes wrong, or is interrupted: no work is left to the cluster."""
    try:
        yield
    except BaseException:
        _give_up(parts)
        raise


def _give_up(parts: Sequence[Any]) -> None:
    """Tell the scheduler that nobody waits for them, whatever still refers to them, such as a traceback."""
    module = sys.modules.get("distributed")
    for future in [] if module is None else module.futures_of(list(parts)):
        future.release()


def _computed(parts: Sequence[Any], held: bool = False) -> Sequence[Any]:
    """Values of delayed ones, which are futures if they are held.

    Dask's own scheduler tries tasks of lost workers again.
    """
    dask: Any = import_module("dask")
    try:
        if _is_distributed() and not held:
            # Futures with names, so that an interrupt can cancel them.
            parts = dask.persist(*parts)
        with _let_go(parts):
            values: Sequence[Any] = dask.compute(*parts)
    except Exception as error:
        # Of Dask's check of partitions against their description, or of pandas where that was not made.
        if "provided metadata" in str(error) or (isinstance(error, KeyError) and "not in index" in str(error)):
            raise DataError(
                "a partition has other columns than the Dask DataFrame says; give all partitions the same: "
                f"{error.args[0]}"
            ) from None
        found = cluster_error(error, "Dask", ", as with client.register_plugin(PipInstall(['lme4py']))")
        if found is not None:
            raise found from None
        raise
    return values


def _is_distributed() -> bool:
    """Whether a client of a cluster is active."""
    module = sys.modules.get("distributed")
    try:
        return module is not None and module.default_client() is not None
    except ValueError:
        return False


_FIRST, _SECOND = itemgetter(0), itemgetter(1)


def _array(frame: Any) -> FloatArray:
    """The numbers of a data frame in rows."""
    return np.ascontiguousarray(frame.to_numpy(dtype=np.float64))


@dataclass(frozen=True)
class _Widened:
    """A table with what a function makes of it beside it."""

    function: Callable[[FloatArray], FloatArray]

    def __call__(self, table: FloatArray) -> FloatArray:
        return np.hstack([table, self.function(table)])


@dataclass(frozen=True)
class _Framed:
    """A table as a data frame."""

    names: list[str]

    def __call__(self, made: tuple[FloatArray, Any]) -> Any:
        import pandas as pd

        return pd.DataFrame(made[0], columns=self.names)

    @property
    def meta(self) -> Any:
        """One without rows."""
        return self((np.zeros((0, len(self.names))), None))


@dataclass(frozen=True)
class _Run(Generic[T]):
    """A function of blocks as one of partitions."""

    function: Callable[[RowBlock], T]

    def __call__(self, part: Any, number: int) -> T:
        return self.function(RowBlock(read_frame(part), f"partition {number}"))


@dataclass(frozen=True)
class _Made:
    """Columns made of the rows of a partition, on its index."""

    made: MadeColumns

    def __call__(self, part: Any) -> Any:
        import pandas as pd

        made = self.made
        if made.where is not None and len(part):
            part = part[made.where(read_frame(part))]
        found = made.function(read_frame(part)) if len(part) else {name: [] for name in made.names}
        own = pd.DataFrame({name: found[name] for name in made.names}, index=part.index, dtype="float64")
        return pd.concat([part, own], axis=1) if made.keep else own


@dataclass(frozen=True)
class _Join(Generic[T]):
    """Merges a list of values."""

    merge: Callable[[T, T], T]

    def __call__(self, parts: Sequence[T]) -> T:
        total = parts[0]
        for part in parts[1:]:
            total = self.merge(total, part)
        return total
