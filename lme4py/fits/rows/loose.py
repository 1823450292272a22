"""Rows of a model on the workers of a cluster, in any parts: passes are sent to them, and their sums come back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from lme4py.chunks import chunk
from lme4py.data.sources.held import HeldTables
from lme4py.design.streaming.stream import ModelRows
from lme4py.engine.generalised.streamed.sums import PassingSums, RowPass
from lme4py.errors import DataError
from lme4py.fits.rows.parts import EngineRows
from lme4py.fits.rows.passed import PairKeys, Pairs, SeenLevels
from lme4py.fits.rows.spill import RowTable, is_many
from lme4py.linalg.types import FloatArray, IntArray
from lme4py.progress import tick

__all__ = ["LooseRows", "SentSums", "WayOnWorkers"]

# Rows that a worker takes at one time.
_ROWS = chunk(2**17)
# Spreads the bits of a number over all its places.
_ODD = np.uint64(0x9E3779B97F4A7C15)


class LooseRows:
    """Rows on a cluster, as `lme4py.fits.rows.parts.Stored` and `lme4py.fits.rows.passed.PassedRows`.

    Parameters
    ----------
    held : HeldTables
    layout : RowTable
    n : int
        Rows.
    n_parts : int
        Samples of the rows, which together are all of them.
    term : int
        Whose levels are whole in a sample, where there are many.
    n_levels : int
        Of this term.
    hindrance : str
        Why groups are not evaluated one by one.
    """

    def __init__(
        self, held: HeldTables, layout: RowTable, n: int, n_parts: int, term: int, n_levels: int, hindrance: str
    ) -> None:
        self.held, self.layout, self.n, self.hindrance = held, layout, n, hindrance
        self.n_parts = n_parts
        self._part_of = np.random.default_rng(0).permutation(n_levels) % n_parts
        self._code = layout.code(term) if is_many(n_levels, n_parts) else None

    def has(self, number: int) -> bool:
        """Whether a sample has rows."""
        return number < self.n_parts

    def read(self, number: int) -> ModelRows:
        """A sample, brought here."""
        found = self.held.reduce(_Sample(self._code, self._part_of, number, self.n_parts), _stacked)
        return self.layout.rows(np.zeros((0, self.layout.width)) if found is None else found)

    def seen(self, keys: PairKeys) -> SeenLevels:
        """By one map over the parts."""
        found = self.held.reduce(_Seen(self.layout, keys), keys.merged)
        if found is None or int(found.counts[0].sum()) != self.n:
            raise _changed(self.n, 0 if found is None else int(found.counts[0].sum()))
        return found

    def way(self, make: EngineRows, keys: PairKeys, pairs: Pairs) -> WayOnWorkers:
        """Where each row has its pairs is kept beside the rows."""
        self.held = self.held.with_columns(_Places(self.layout, keys, pairs), len(pairs))
        return WayOnWorkers(self.held, self.layout, make.light(), tuple(pairs), self.n)

    def release(self) -> None:
        """Give back what is held."""
        self.held.release()


class WayOnWorkers:
    """Passes over rows where they are, as `lme4py.engine.generalised.streamed.sums.PassingWay`.

    Parameters
    ----------
    held : HeldTables
        With the places of pairs beside the rows.
    layout : RowTable
    make : EngineRows
    pairs : tuple of (int, int)
        By the columns of their places.
    n : int
        Rows.

    Attributes
    ----------
    traffic : int
        Bytes of sums that parts have sent.
    """

    def __init__(
        self, held: HeldTables, layout: RowTable, make: EngineRows, pairs: tuple[tuple[int, int], ...], n: int
    ) -> None:
        self.held, self.layout, self.make, self.pairs, self.n = held, layout, make, pairs, n
        self.traffic = 0
        self._digest: int | None = None

    def total(self, function: RowPass) -> PassingSums:
        """Sums over all rows, which are counted."""
        tick("passes over rows")
        found = self.held.reduce(_Pass(self.layout, self.make, self.pairs, function), merged_sent)
        if found is None or found.n != self.n:
            raise _changed(self.n, 0 if found is None else found.n)
        if self._digest not in (None, found.digest):
            raise _changed(self.n, found.n)
        self._digest = found.digest
        self.traffic += found.size
        return found.sums


def _changed(n: int, found: int) -> DataError:
    other = f"{found:,} of them" if found != n else "others"
    return DataError(
        f"the source changed while it was read: {n:,} rows were held by the workers, and a later pass found {other}, "
        "as when the rows of a lost worker are read again. Fit the model when nothing writes to it."
    )


@dataclass(frozen=True)
class _Sample:
    """Rows of some levels, or any rows."""

    code: int | None
    part_of: IntArray
    number: int
    n_parts: int

    def __call__(self, table: FloatArray) -> FloatArray:
        if self.code is None:
            # The same rows whenever it is asked for.
            part = np.random.default_rng(_digest(table)).integers(self.n_parts, size=len(table))
        else:
            part = self.part_of[table[:, self.code].astype(np.intp)]
        found: FloatArray = table[part == self.number]
        return found


def _stacked(first: FloatArray, second: FloatArray) -> FloatArray:
    return np.concatenate([first, second])


@dataclass(frozen=True)
class _Seen:
    """The levels of a part."""

    layout: RowTable
    keys: PairKeys

    def __call__(self, table: FloatArray) -> SeenLevels:
        return self.keys.seen(self.layout.codes(table))


@dataclass(frozen=True)
class _Places:
    """Where the rows of a part have their pairs of levels."""

    layout: RowTable
    keys: PairKeys
    pairs: Pairs

    def __call__(self, table: FloatArray) -> FloatArray:
        found = self.keys.places(self.layout.codes(table), self.pairs)
        return np.array([found[pair] for pair in self.pairs], dtype=np.float64).reshape(len(self.pairs), len(table)).T


@dataclass(frozen=True)
class _Pass:
    """A pass over the rows of a part."""

    layout: RowTable
    make: EngineRows
    pairs: tuple[tuple[int, int], ...]
    function: RowPass

    def __call__(self, table: FloatArray) -> SentSums:
        sums, width = self.function.empty(), self.layout.width
        with np.errstate(all="ignore"):
            for start in range(0, len(table), _ROWS):
                own = table[start : start + _ROWS]
                places = {pair: own[:, width + j].astype(np.intp) for j, pair in enumerate(self.pairs)}
                if not self.function.add(self.make.rows(self.layout.rows(own[:, :width]), places), sums):
                    break
        return SentSums.of(sums, table)


@dataclass(frozen=True)
class _Scattered:
    """An array that is mostly zero: what is not, by flat places (in Fortran's order)."""

    shape: tuple[int, ...]
    places: IntArray
    values: FloatArray

    @property
    def nbytes(self) -> int:
        return self.places.nbytes + self.values.nbytes

    def whole(self) -> FloatArray:
        out = np.zeros(int(np.prod(self.shape)))
        out[self.places] = self.values
        return out.reshape(self.shape, order="F")


_Sent: TypeAlias = "FloatArray | _Scattered"


def _packed(array: FloatArray) -> _Sent:
    flat = array.ravel(order="F")
    places = np.flatnonzero(flat)
    return array if 2 * places.size >= flat.size else _Scattered(array.shape, places, flat[places])


def _added(first: _Sent, second: _Sent) -> _Sent:
    """Their sum; levels that neither has rows of need no place in it."""
    if isinstance(first, _Scattered) and isinstance(second, _Scattered):
        places, own = np.unique(np.concatenate([first.places, second.places]), return_inverse=True)
        every = np.concatenate([first.values, second.values])
        values: Any = np.bincount(own.reshape(-1), every, places.size)
        both = _Scattered(first.shape, places, values)
        return both if 2 * places.size < np.prod(first.shape) else both.whole()
    a, b = (one.whole() if isinstance(one, _Scattered) else one for one in (first, second))
    return np.asfortranarray(a + b)


@dataclass(frozen=True)
class SentSums:
    """Sums over the rows of some parts, as they travel.

    Attributes
    ----------
    values : dict of str to array
    n : int
        Rows.
    digest : int
        Of the rows, in any order.
    size : int
        Bytes that parts have sent.
    """

    values: dict[str, Any]
    n: int
    digest: int
    size: int

    @classmethod
    def of(cls, sums: PassingSums, table: FloatArray) -> SentSums:
        """Over the rows of a part.

        Parameters
        ----------
        sums : dict of str to ndarray
        table : ndarray, shape (n, width)
        """
        values = {name: _packed(array) for name, array in sums.items()}
        return cls(values, len(table), _digest(table), sum(int(one.nbytes) for one in values.values()))

    @property
    def sums(self) -> PassingSums:
        """As arrays."""
        return {name: one.whole() if isinstance(one, _Scattered) else one for name, one in self.values.items()}


def merged_sent(first: SentSums, second: SentSums) -> SentSums:
    """The sums over the rows of both."""
    values = {name: _added(one, second.values[name]) for name, one in first.values.items()}
    digest = (first.digest + second.digest) % 2**64
    return replace(first, values=values, n=first.n + second.n, digest=digest, size=first.size + second.size)


def _digest(table: FloatArray) -> int:
    """A whole number that is another one where a row is, whatever the order of the rows."""
    bits = np.ascontiguousarray(table).view(np.uint64)
    rows = bits @ np.random.default_rng(0).integers(2**64, size=bits.shape[1], dtype=np.uint64)
    rows ^= rows >> np.uint64(32)
    rows *= _ODD
    return int((rows ^ (rows >> np.uint64(29))).sum(dtype=np.uint64))
