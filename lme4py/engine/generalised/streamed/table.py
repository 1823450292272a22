"""Elements of Z'WZ of grouping factors of any kind, summed over rows that go by in parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lme4py.engine.factor.crossproducts import CrossProducts, Edges, Factor
from lme4py.engine.factor.forecast import check_levels
from lme4py.engine.generalised.elements import Elements
from lme4py.engine.generalised.stacking import Stack
from lme4py.linalg.types import FloatArray, IntArray

__all__ = ["PassingRows", "SummedElements", "added"]

Pair = tuple[int, int]


@dataclass(frozen=True)
class _Block:
    """Elements of column a of factor s with column b of factor t: one for each level (s = t), or pair of levels."""

    s: int
    t: int
    a: int
    b: int
    place: slice


@dataclass(frozen=True)
class PassingRows:
    """Some rows of a model in the engine's columns.

    Attributes
    ----------
    X : ndarray, shape (n, p)
    offset : ndarray, shape (n,)
    Z : tuple of ndarray, each (n, k)
        By factor.
    codes : tuple of ndarray of int, each (n,)
        Levels, by factor.
    places : mapping of (int, int) to ndarray of int, each (n,)
        Which pair of levels of two factors a row belongs to.
    data : object
        The response, as the family prepared it.
    """

    X: FloatArray
    offset: FloatArray
    Z: tuple[FloatArray, ...]
    codes: tuple[IntArray, ...]
    places: Mapping[Pair, IntArray]
    data: Any

    @property
    def n(self) -> int:
        """Number of rows."""
        return int(self.X.shape[0])


def added(out: FloatArray, places: IntArray, values: FloatArray) -> None:
    """Add values at places, of which some may be the same.

    Parameters
    ----------
    out : ndarray, shape (m,)
    places : ndarray of int, shape (n,)
    values : ndarray, shape (n,)
    """
    if 4 * values.size > out.size:
        out += np.bincount(places, weights=values, minlength=out.size)
    else:
        np.add.at(out, places, values)


class SummedElements(Elements):
    """The pattern of Z'WZ without rows.

    Parameters
    ----------
    factors : tuple of Factor
    pairs : mapping of (int, int) to ndarray of int
        For factors s < t the pairs of levels that occur together, ascending, as level of s times levels of t plus
        level of t.
    n : int
        Number of rows.
    """

    def __init__(self, factors: tuple[Factor, ...], pairs: Mapping[Pair, IntArray], n: int) -> None:
        check_levels(factors)
        super().__init__(factors)
        self.n, self.stack = n, Stack(n)
        self.offsets = np.concatenate([[0], np.cumsum([factor.size for factor in factors])])
        self._list: list[_Block] = []
        self._ends: dict[Pair, tuple[IntArray, IntArray]] = {}
        diagonal = tuple(self._diagonal(s) for s in range(len(factors)))
        edges = {pair: self._edges(pair, keys) for pair, keys in pairs.items()}
        border = tuple(np.zeros((factor.n_columns, factor.n_levels, 1)) for factor in factors)
        self._analysed(CrossProducts(diagonal, edges, border, np.zeros((0, 0)), n, 0.0), "auto")

    @property
    def size(self) -> int:
        """Number of elements, with the zero that comes first."""
        return self._next

    def _reserve(self, block: Pair, columns: Pair, count: int) -> FloatArray:
        self._list.append(_Block(*block, *columns, slice(self._next, self._next + count)))
        numbers = np.arange(self._next, self._next + count, dtype=float)
        self._next += count
        return numbers

    def _diagonal(self, s: int) -> FloatArray:
        k, n_levels = self.factors[s].n_columns, self.factors[s].n_levels
        out = np.empty((k, k, n_levels))
        for a in range(k):
            for b in range(a + 1):
                out[a, b] = out[b, a] = self._reserve((s, s), (a, b), n_levels)
        return out

    def _edges(self, pair: Pair, keys: IntArray) -> Edges:
        s, t = pair
        rows, columns = np.divmod(keys, self.factors[t].n_levels)
        self._ends[pair] = rows, columns
        wide, high = range(self.factors[t].n_columns), range(self.factors[s].n_columns)
        return Edges(rows, columns, np.array([[self._reserve(pair, (a, b), keys.size) for b in wide] for a in high]))

    def _column(self, values: FloatArray, s: int, a: int) -> FloatArray:
        """The part of a vector (Q,) that belongs to a column of a factor, as a view."""
        J = self.factors[s].n_levels
        start = int(self.offsets[s]) + a * J
        return values[start : start + J]

    # -- some rows -----------------------------------------------------------------------------------------------

    def random_part(self, rows: PassingRows, b: FloatArray) -> FloatArray:
        """Z b of some rows, (n,)."""
        out = np.zeros(rows.n)
        for s, (codes, Z) in enumerate(zip(rows.codes, rows.Z, strict=True)):
            for a in range(Z.shape[1]):
                out += Z[:, a] * self._column(b, s, a)[codes]
        return out

    def gather(self, rows: PassingRows, x: FloatArray, out: FloatArray) -> None:
        """Add Z'x of some rows to `out`, (Q,)."""
        for s, (codes, Z) in enumerate(zip(rows.codes, rows.Z, strict=True)):
            for a in range(Z.shape[1]):
                added(self._column(out, s, a), codes, Z[:, a] * x)

    def take_in(self, rows: PassingRows, w: FloatArray, v: FloatArray) -> None:
        """Add the elements of some rows to `v`."""
        for block in self._list:
            added(v[block.place], self._places(rows, block), self._product(rows, block) * w)

    def row_derivative(self, rows: PassingRows, dv: FloatArray) -> FloatArray:
        """A derivative in the weights of some rows, (n,), from that in the elements."""
        out = np.zeros(rows.n)
        for block in self._list:
            out += self._product(rows, block) * dv[block.place][self._places(rows, block)]
        return out

    def _places(self, rows: PassingRows, block: _Block) -> IntArray:
        return rows.codes[block.s] if block.s == block.t else rows.places[block.s, block.t]

    def _product(self, rows: PassingRows, block: _Block) -> FloatArray:
        product: FloatArray = rows.Z[block.s][:, block.a] * rows.Z[block.t][:, block.b]
        return product

    # -- all rows ------------------------------------------------------------------------------------------------

    def times(self, v: FloatArray, b: FloatArray) -> FloatArray:
        """Z'WZ b, shape (Q,) or (Q, c) as b."""
        if b.ndim > 1:
            return np.stack([self.times(v, column) for column in b.T], axis=1) if b.shape[1] else np.zeros(b.shape)
        out = np.zeros(b.size)
        for block in self._list:
            values = v[block.place]
            left, right = self._column(out, block.s, block.a), self._column(b, block.t, block.b)
            if block.s == block.t:
                left += values * right
                if block.a != block.b:
                    out_b, own = self._column(out, block.s, block.b), self._column(b, block.s, block.a)
                    out_b += values * own
                continue
            rows, columns = self._ends[block.s, block.t]
            added(left, rows, values * right[columns])
            added(self._column(out, block.t, block.b), columns, values * self._column(b, block.s, block.a)[rows])
        return out
