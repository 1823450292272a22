"""Z'WZ of crossed effects for weights that change: the cells of pairs of levels once, then sums over their rows.

Nothing here is of the size of a factor: the largest arrays have a number for each row, or for each cell.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np

from lme4py.chunks import chunk, row_blocks
from lme4py.engine.factor.crossed import CrossedTables
from lme4py.engine.factor.crossed_probes import WeightChange
from lme4py.engine.factor.crossproducts import CrossProducts, Factor, SortedEdges
from lme4py.engine.factor.symbolic import may_be_iterative, prefers_iterative
from lme4py.engine.generalised.stacking import Stack
from lme4py.engine.linear.problem import UNFACTORED
from lme4py.engine.optimise import Block
from lme4py.errors import Lme4Error
from lme4py.linalg.types import FloatArray, IntArray

__all__ = ["CellProducts", "cells_of", "times"]

# Rows that are worked on at one time: sums by level are added once for each.
_ROWS = chunk(2**19, 201)
# Matrices of the size of a dense block that an evaluation with a factor holds.
_COPIES = 4


class _Cells:
    """The rows of each pair of levels that occur together.

    Parameters
    ----------
    rows, columns : ndarray of int, shape (n,)
        Levels of both factors.
    shape : tuple of int
    """

    def __init__(self, rows: IntArray, columns: IntArray, shape: tuple[int, int]) -> None:
        keys = rows * np.int64(shape[1]) + columns
        self.order = np.argsort(keys, kind="stable")
        keys = keys[self.order]
        first = np.flatnonzero(np.diff(keys, prepend=-1))
        # Where no two rows share a cell, nothing is summed.
        self.first = None if first.size == keys.size else first
        keys = keys if self.first is None else keys[first]
        self.indices = (keys % shape[1]).astype(np.int32)
        self.pointer = np.searchsorted(keys, np.arange(shape[0] + 1, dtype=np.int64) * shape[1])

    def sums(self, x: FloatArray) -> FloatArray:
        """Sums over the rows of each cell."""
        ordered = x[self.order]
        return ordered if self.first is None else np.asarray(np.add.reduceat(ordered, self.first))


class CellProducts:
    """Products with the columns of random effects that are never factored.

    What needs a factor of them is refused by name.

    Parameters
    ----------
    codes : tuple of ndarray of int, each (n,)
        Level of each row, one per grouping factor.
    Z : tuple of ndarray, each (n, k)
        Columns of each grouping factor.
    factors : tuple of Factor

    Attributes
    ----------
    blocks : tuple of ndarray, each (n, k)
        As given.
    """

    def __init__(self, codes: tuple[IntArray, ...], Z: tuple[FloatArray, ...], factors: tuple[Factor, ...]) -> None:
        self.factors, self.codes, self.blocks = factors, codes, Z
        self.stack = Stack(int(codes[0].size))
        self.places = tuple((0,) * z.shape[1] for z in Z)
        # Columns of ones, such as those of random intercepts, multiply nothing.
        self._columns = tuple(tuple(None if (z == 1.0).all() else z for z in block.T) for block in Z)
        self._splits = np.cumsum([factor.size for factor in factors])[:-1]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        raise Lme4Error(UNFACTORED)

    def emptied(self) -> CellProducts:
        """The same without what can be computed again."""
        return CellProducts(self.codes, self.blocks, self.factors)

    def __reduce__(self) -> tuple[Any, ...]:
        return CellProducts, (self.codes, self.blocks, self.factors)

    @cached_property
    def _cells(self) -> dict[tuple[int, int], _Cells]:
        sizes = [factor.n_levels for factor in self.factors]
        every = range(len(sizes))
        return {
            (s, t): _Cells(self.codes[s], self.codes[t], (sizes[s], sizes[t])) for s in every for t in every[s + 1 :]
        }

    @property
    def pattern(self) -> CrossProducts:
        """Which blocks of Z'WZ can differ from zero."""
        return self._cross(
            {
                pair: np.broadcast_to(
                    0.0, (self.factors[pair[0]].n_columns, self.factors[pair[1]].n_columns, cells.indices.size)
                )
                for pair, cells in self._cells.items()
            },
            tuple(np.zeros((factor.n_columns, factor.n_columns, factor.n_levels)) for factor in self.factors),
        )

    def _cross(self, values: Mapping[tuple[int, int], FloatArray], diagonal: tuple[FloatArray, ...]) -> CrossProducts:
        edges = {pair: SortedEdges(cells.pointer, cells.indices, values[pair]) for pair, cells in self._cells.items()}
        return CrossProducts(diagonal, edges, (), np.zeros((0, 0)), self.stack.n, 0.0)

    @cached_property
    def tables(self) -> CrossedTables:
        """The pattern, with weights of one."""
        own = self.base(np.ones(self.stack.n))
        return CrossedTables(self.factors, self._cross(own.edges, tuple(own.diagonal)))

    @property
    def size(self) -> int:
        """Columns of Z."""
        return sum(factor.size for factor in self.factors)

    def rows(self) -> Iterator[slice]:
        """Rows, some at a time."""
        return row_blocks(self.stack.n, _ROWS)

    # -- every set of weights ------------------------------------------------------------------------------------

    def base(self, w: FloatArray) -> WeightChange:
        """Blocks of Z'WZ.

        Parameters
        ----------
        w : ndarray, shape (n,)
            Of any sign.
        """
        diagonal = []
        for factor, codes, columns in zip(self.factors, self.codes, self._columns, strict=True):
            k = factor.n_columns
            own = np.zeros((k, k, factor.n_levels))
            for a in range(k):
                for b in range(a + 1):
                    own[a, b] = own[b, a] = self._summed(codes, factor.n_levels, (w, columns[a], columns[b]))
            diagonal.append(own)
        edges = {}
        for (s, t), cells in self._cells.items():
            edges[s, t] = np.array(
                [[cells.sums(_product((w, x, z))) for z in self._columns[t]] for x in self._columns[s]]
            )
        return WeightChange(tuple(diagonal), edges)

    def weighted(self, w: FloatArray) -> CrossedTables:
        """Z'WZ, ready for products."""
        own = self.base(w)
        return self.tables.with_values(tuple(own.diagonal), own.edges)

    def _summed(self, codes: IntArray, n_levels: int, parts: tuple[FloatArray | None, ...]) -> FloatArray:
        """Sums by level of a product of columns."""
        out = np.zeros(n_levels)
        for place in self.rows():
            own = _product(tuple(None if part is None else part[place] for part in parts))
            out += np.bincount(codes[place], weights=own, minlength=n_levels)
        return out

    def spread(self, b: FloatArray, place: slice = slice(None)) -> FloatArray:
        """Rows of Z b for b of shape (Q,)."""
        out: FloatArray | None = None
        for codes, columns, own in zip(self.codes, self._columns, self.split(b), strict=True):
            level = codes[place]
            for z, values in zip(columns, own.reshape(len(columns), -1), strict=True):
                part = values.take(level)
                if z is not None:
                    part *= z[place]
                out = part if out is None else np.add(out, part, out=out)
        assert out is not None
        return out

    def gather(self, x: FloatArray, place: slice | None = None) -> FloatArray:
        """Z'x, (Q,); of some rows when x holds these only."""
        if place is None:
            return np.asarray(np.sum([self.gather(x[own], own) for own in self.rows()], axis=0), dtype=np.float64)
        out = [
            np.bincount(codes[place], weights=_product((x, None if z is None else z[place])), minlength=f.n_levels)
            for f, codes, columns in zip(self.factors, self.codes, self._columns, strict=True)
            for z in columns
        ]
        return np.concatenate(out)

    def split(self, values: FloatArray) -> list[FloatArray]:
        """Rows of each grouping factor."""
        return list(np.split(values, self._splits))

    def related(self, values: FloatArray) -> FloatArray:
        """The covariance of u before it is scaled, times values: levels are independent."""
        return values


def cells_of(
    codes: tuple[IntArray, ...], Z: tuple[FloatArray, ...], factors: tuple[Factor, ...], block: Block
) -> CellProducts | None:
    """Products without a factor where these are asked for, or forecast to be better; None where a factor is.

    Parameters
    ----------
    codes, Z, factors
        As in `CellProducts`.
    block : {"auto", "iterative"}
    """
    if block == "iterative":
        return CellProducts(codes, Z, factors)
    if not may_be_iterative(factors, _COPIES):
        return None
    found = CellProducts(codes, Z, factors)
    return found if prefers_iterative(factors, found.pattern, _COPIES)[0] else None


def _product(parts: tuple[FloatArray | None, ...]) -> FloatArray:
    """The product of columns; None is a column of ones, the first is a column."""
    first, *rest = parts
    assert first is not None
    for part in rest:
        if part is not None:
            first = first * part
    return first


def times(tables: CrossedTables, x: FloatArray) -> FloatArray:
    """Z'WZ x for rows in the order of the factors, (Q, c)."""
    by_factor = tables.split(x)
    out = []
    for s, own in enumerate(by_factor):
        D = tables.cross.diagonal[s]
        total = np.einsum("abj,bjc->ajc", D, own.reshape(D.shape[0], D.shape[2], -1)).reshape(own.shape)
        for t, other in enumerate(by_factor):
            if t != s:
                total = total + tables.off(s, t, other)
        out.append(total)
    return np.concatenate(out)
