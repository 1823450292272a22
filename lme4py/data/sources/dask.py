"""A Dask DataFrame: functions run where its partitions are, on the client that is active or on threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Generic, TypeVar

from lme4py.chunks import chunk
from lme4py.data.frame import Frame, read_frame
from lme4py.data.sources.base import RowBlock, RowSource, Schema
from lme4py.data.sources.cluster import cluster_error

__all__ = ["DaskSource"]

T = TypeVar("T")
# Values that are merged by one task.
_WIDTH = chunk(8, tiny=2)


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
        run, join = _Run(function), _Join(merge)
        parts = [dask.delayed(run)(part, number) for number, part in enumerate(self._partitions(columns))]
        while len(parts) > 1:
            parts = [dask.delayed(join)(parts[i : i + _WIDTH]) for i in range(0, len(parts), _WIDTH)]
        return _computed(parts)[0] if parts else None

    def lazily(self, function: Callable[[Frame], dict[str, Any]], names: Sequence[str], keep: bool) -> Any:
        """A Dask DataFrame on the same index."""
        import pandas as pd

        empty = self.data._meta
        own = {name: pd.Series([], dtype="float64", index=empty.index) for name in names}
        meta = empty.assign(**own) if keep else pd.DataFrame(own, index=empty.index)
        return self.data.map_partitions(_Made(function, tuple(names), keep), meta=meta)

    def count(self) -> int | None:
        """Where the partitions are."""
        return len(self.data)

    def whole(self) -> Any:
        """A pandas DataFrame."""
        return self.data.compute()


def _computed(parts: Sequence[Any]) -> Sequence[Any]:
    """Values of delayed ones, by Dask's own scheduler, which tries tasks of lost workers again."""
    dask: Any = import_module("dask")
    try:
        values: Sequence[Any] = dask.compute(*parts)
    except Exception as error:
        found = cluster_error(error, "Dask", ", as with client.register_plugin(PipInstall(['lme4py']))")
        if found is not None:
            raise found from None
        raise
    return values


@dataclass(frozen=True)
class _Run(Generic[T]):
    """A function of blocks as one of partitions."""

    function: Callable[[RowBlock], T]

    def __call__(self, part: Any, number: int) -> T:
        return self.function(RowBlock(read_frame(part), f"partition {number}"))


@dataclass(frozen=True)
class _Made:
    """Columns made of the rows of a partition, on its index."""

    function: Callable[[Frame], dict[str, Any]]
    names: tuple[str, ...]
    keep: bool

    def __call__(self, part: Any) -> Any:
        import pandas as pd

        found = self.function(read_frame(part)) if len(part) else {name: [] for name in self.names}
        own = pd.DataFrame({name: found[name] for name in self.names}, index=part.index, dtype="float64")
        return pd.concat([part, own], axis=1) if self.keep else own


@dataclass(frozen=True)
class _Join(Generic[T]):
    """Merges a list of values."""

    merge: Callable[[T, T], T]

    def __call__(self, parts: Sequence[T]) -> T:
        total = parts[0]
        for part in parts[1:]:
            total = self.merge(total, part)
        return total
