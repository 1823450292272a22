"""Elements of Z'WZ of grouping factors of any kind, summed over rows that go by in parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lme4py.engine.factor.crossproducts import CrossProducts, Edges, Factor
from lme4py.engine.factor.forecast import check_levels
from lme4py.engine.generalised.elements import Elements
from lme4py.engine.generalised.stacking import Stack
from lme4py.linalg.types import FloatArray, IntArray

__all__ = ["PassingRows", "RowElements", "SummedElements", "added"]

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


class RowElements:
    """Where rows stand among the levels and among the elements of Z'WZ: without the pattern, so that it can be sent.

    Parameters
    ----------
    sizes : sequence of (int, int)
        Levels and columns of each factor.
    n_pairs : mapping of (int, int) to int
        Pairs of levels that occur together, by factors s < t.

    Attributes
    ----------
    blocks : tuple of _Block
    offsets : tuple of int
        Where the levels of each factor begin, and the end.
    size : int
        Number of elements, with the zero that comes first.
    """

    def __init__(self, sizes: Sequence[tuple[int, int]], n_pairs: Mapping[Pair, int]) -> None:
        self.sizes = tuple(sizes)
        self.offsets = tuple(int(end) for end in np.cumsum([0, *(J * k for J, k in self.sizes)]))
        self.size = 1
        blocks = [
            self._reserve(s, s, a, b, J) for s, (J, k) in enumerate(self.sizes) for a in range(k) for b in range(a + 1)
        ]
        blocks += [
            self._reserve(s, t, a, b, count)
            for (s, t), count in n_pairs.items()
            for a in range(self.sizes[s][1])
            for b in range(self.sizes[t][1])
        ]
        self.blocks = tuple(blocks)

    def _reserve(self, s: int, t: int, a: int, b: int, count: int) -> _Block:
        place = slice(self.size, self.size + count)
        self.size += count
        return _Block(s, t, a, b, place)

    @property
    def n_effects(self) -> int:
        """Q, the number of random effects."""
        return self.offsets[-1]

    def column(self, values: FloatArray, s: int, a: int) -> FloatArray:
        """The part of a vector (Q,) that belongs to a column of a factor, as a view."""
        J = self.sizes[s][0]
        start = self.offsets[s] + a * J
        return values[start : start + J]

    def random_part(self, rows: PassingRows, b: FloatArray) -> FloatArray:
        """Z b of some rows, (n,)."""
        out = np.zeros(rows.n)
        for s, (codes, Z) in enumerate(zip(rows.codes, rows.Z, strict=True)):
            for a in range(Z.shape[1]):
                out += Z[:, a] * self.column(b, s, a)[codes]
        return out

    def gather(self, rows: PassingRows, x: FloatArray, out: FloatArray) -> None:
        """Add Z'x of some rows to `out`, (Q,)."""
        for s, (codes, Z) in enumerate(zip(rows.codes, rows.Z, strict=True)):
            for a in range(Z.shape[1]):
                added(self.column(out, s, a), codes, Z[:, a] * x)

    def take_in(self, rows: PassingRows, w: FloatArray, v: FloatArray) -> None:
        """Add the elements of some rows to `v`."""
        for block in self.blocks:
            added(v[block.place], _places(rows, block), _product(rows, block) * w)

    def row_derivative(self, rows: PassingRows, dv: FloatArray) -> FloatArray:
        """A derivative in the weights of some rows, (n,), from that in the elements."""
        out = np.zeros(rows.n)
        for block in self.blocks:
            out += _product(rows, block) * dv[block.place][_places(rows, block)]
        return out


def _places(rows: PassingRows, block: _Block) -> IntArray:
    return rows.codes[block.s] if block.s == block.t else rows.places[block.s, block.t]


def _product(rows: PassingRows, block: _Block) -> FloatArray:
    product: FloatArray = rows.Z[block.s][:, block.a] * rows.Z[block.t][:, block.b]
    return product


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

    Attributes
    ----------
    rows : RowElements
    """

    def __init__(self, factors: tuple[Factor, ...], pairs: Mapping[Pair, IntArray], n: int) -> None:
        check_levels(factors)
        super().__init__(factors)
        self.n, self.stack = n, Stack(n)
        sizes = [(factor.n_levels, factor.n_columns) for factor in factors]
        self.rows = RowElements(sizes, {pair: keys.size for pair, keys in pairs.items()})
        self.offsets, self._next = np.array(self.rows.offsets), self.rows.size
        numbers = {
            (one.s, one.t, one.a, one.b): np.arange(one.place.start, one.place.stop, dtype=float)
            for one in self.rows.blocks
        }
        self._ends: dict[Pair, tuple[IntArray, IntArray]] = {}
        edges = {}
        for (s, t), keys in pairs.items():
            self._ends[s, t] = rows, columns = np.divmod(keys, sizes[t][0])
            own = [[numbers[s, t, a, b] for b in range(sizes[t][1])] for a in range(sizes[s][1])]
            edges[s, t] = Edges(rows, columns, np.array(own))
        diagonal = tuple(
            np.array([[numbers[s, s, max(a, b), min(a, b)] for b in range(k)] for a in range(k)])
            for s, (_, k) in enumerate(sizes)
        )
        border = tuple(np.zeros((k, J, 1)) for J, k in sizes)
        self._analysed(CrossProducts(diagonal, edges, border, np.zeros((0, 0)), n, 0.0), "auto")

    def times(self, v: FloatArray, b: FloatArray) -> FloatArray:
        """Z'WZ b, shape (Q,) or (Q, c) as b."""
        if b.ndim > 1:
            return np.stack([self.times(v, column) for column in b.T], axis=1) if b.shape[1] else np.zeros(b.shape)
        out, column_of = np.zeros(b.size), self.rows.column
        for block in self.rows.blocks:
            values = v[block.place]
            left, right = column_of(out, block.s, block.a), column_of(b, block.t, block.b)
            if block.s == block.t:
                left += values * right
                if block.a != block.b:
                    out_b, own = column_of(out, block.s, block.b), column_of(b, block.s, block.a)
                    out_b += values * own
                continue
            rows, columns = self._ends[block.s, block.t]
            added(left, rows, values * right[columns])
            added(column_of(out, block.t, block.b), columns, values * column_of(b, block.s, block.a)[rows])
        return out
