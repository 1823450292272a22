"""Stages of the elimination, and where every value that changes in it stands in one long vector."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from lme4py.engine.factor.crossproducts import CrossProducts, Edges, Factor, SortedEdges
from lme4py.engine.factor.pattern import Pattern, count_products, cross_block
from lme4py.engine.factor.sparse_pattern import Forecast, SparseBlock
from lme4py.engine.factor.wide import GramPlan
from lme4py.errors import DesignError
from lme4py.frozen import computed_once
from lme4py.linalg.types import BoolArray, IntArray, SparseMatrix, sparse


@dataclass(frozen=True)
class Stage:
    """Elimination of one grouping factor.

    Attributes
    ----------
    factor : int
        Position of the grouping factor.
    coupling : csr_array, shape (k J, R)
        C: rows are the random effects of this factor (column of the term, then level), columns all random effects
        that remain. The values are those of A, before any elimination.
    first, second : ndarray of int
        Elements of C whose products make up the changes.
    products : csr_array, shape (k k J, n_targets)
        P; its values are ``C.data[first] * C.data[second]``.
    targets : ndarray of int
        Positions in the value vector (see `Structure`) that the first columns of `products` change.
    dense_targets, dense_rows, dense_columns : ndarray of int
        Elements of the lower triangle of the dense block that the remaining columns change: flat position (or
        position in the values of a sparse block), row and column.

    A last stage with too many products to list has None for `products`; its changes are made by matrix
    products (see `lme4py.engine.factor.wide`).
    """

    factor: int
    n_levels: int
    n_columns: int
    coupling: SparseMatrix
    first: IntArray
    second: IntArray
    products: SparseMatrix | None
    targets: IntArray
    dense_targets: IntArray
    dense_rows: IntArray
    dense_columns: IntArray

    @computed_once
    def gram(self) -> GramPlan:
        """How the change of the dense block is made without the list."""
        return GramPlan(self.coupling, self.n_levels)


@dataclass(frozen=True)
class Structure:
    """The order of elimination and the layout of the values.

    Attributes
    ----------
    stages : tuple of Stage
    dense : tuple of int
        Grouping factors in the dense block, in the order of its rows.
    dense_offsets : tuple of int
        First row of each of them.
    dense_size : int
    diagonal_slices, coupling_slices : dict
        Where the diagonal blocks and couplings of the later stages stand in the value vector.
    remaining_slices : tuple of dict
        For each stage the columns of `coupling` that belong to each remaining factor.
    sparse : SparseBlock or None
        The block that remains, where it is kept sparse.
    forecast : Forecast or None
        What that choice was made on.
    """

    stages: tuple[Stage, ...]
    dense: tuple[int, ...]
    dense_offsets: tuple[int, ...]
    dense_size: int
    diagonal_slices: dict[int, slice]
    coupling_slices: dict[int, slice]
    n_values: int
    remaining_slices: tuple[dict[int, slice], ...]
    sparse: SparseBlock | None = None
    forecast: Forecast | None = None


class Layout:
    """Positions of all values that change during elimination in one long vector."""

    def __init__(
        self,
        factors: tuple[Factor, ...],
        order: list[int],
        dense: list[int],
        pattern: Pattern,
        cross: CrossProducts,
        block: SparseBlock | None,
        max_products: int,
        max_listed: int,
    ) -> None:
        self.factors, self.order, self.dense, self.cross = factors, order, dense, cross
        self.block = block
        self.max_products, self.max_listed = max_products, max_listed
        self.diagonal_slices: dict[int, slice] = {}
        self.coupling_slices: dict[int, slice] = {}
        self.remaining: list[dict[int, slice]] = []
        self.couplings: list[SparseMatrix] = []
        self.dense_size = sum(factors[f].size for f in dense)
        self.n_values = 0
        for position, f in enumerate(order):
            later = order[position + 1 :] + dense
            slices, start = {}, 0
            for g in later:
                slices[g] = slice(start, start + factors[g].size)
                start += factors[g].size
            self.remaining.append(slices)
            self.couplings.append(self._coupling(f, slices, start, pattern))
            if position:
                self.diagonal_slices[f] = self._reserve(factors[f].size * factors[f].n_columns)
                self.coupling_slices[f] = self._reserve(self.couplings[-1].nnz)

    def _reserve(self, count: int) -> slice:
        place = slice(self.n_values, self.n_values + count)
        self.n_values += count
        return place

    def _coupling(self, s: int, slices: dict[int, slice], width: int, pattern: Pattern) -> SparseMatrix:
        """Values of A between s and all that remain, on the pattern with fill."""
        shared = self._shared_coupling(s, slices, width, pattern)
        if shared is not None:
            return shared
        rows, columns, values = [], [], []
        J = self.factors[s].n_levels
        for t, place in slices.items():
            block = cross_block(self.cross, s, t)
            J_t = self.factors[t].n_levels
            full_rows, full_columns, where = self._with_fill(pattern, s, t, block)
            for a in range(self.factors[s].n_columns):
                for b in range(self.factors[t].n_columns):
                    data = block.values[a, b]
                    if where is not None:
                        data = np.zeros(full_rows.size)
                        data[where] = block.values[a, b]
                    rows.append(full_rows + a * J if a else full_rows)
                    columns.append(full_columns + (place.start + b * J_t))
                    values.append(data)
        if not rows:
            return _nothing()
        shape = (self.factors[s].size, width)
        if len(rows) == 1 and s < next(iter(slices)):
            # One block, sorted by row and column as it is.
            counts = np.bincount(rows[0], minlength=shape[0])
            return sparse.csr_array((values[0].copy(), columns[0], np.append(0, np.cumsum(counts))), shape=shape)
        index = (np.concatenate(rows), np.concatenate(columns))
        return sparse.coo_array((np.concatenate(values), index), shape=shape).tocsr()

    def _shared_coupling(self, s: int, slices: dict[int, slice], width: int, pattern: Pattern) -> SparseMatrix | None:
        """The one table of edges itself, where it is all there is: of large crossed factors there is no second copy."""
        t = next(iter(slices), -1)
        edges = self.cross.edges.get((s, t))
        if len(slices) != 1 or not isinstance(edges, SortedEdges) or (s, t) in pattern.filled:
            return None
        if edges.values.shape[:2] != (1, 1):
            return None
        return sparse.csr_array((edges.values[0, 0], edges.indices, edges.pointer), shape=(self.factors[s].size, width))

    def _with_fill(
        self, pattern: Pattern, s: int, t: int, block: Edges | SortedEdges
    ) -> tuple[IntArray, IntArray, IntArray | None]:
        """Pairs that can be non-zero, and where the ones of the data stand among them (None: there are no others)."""
        if (s, t) not in pattern.filled:
            return block.rows, block.columns, None
        width = self.factors[t].n_levels
        # Pairs made by fill start as explicit zeros.
        where = np.searchsorted(pattern.filled[s, t], block.rows * width + block.columns)
        return *pattern.pairs(s, t), where

    def stage(self, position: int) -> Stage:
        f = self.order[position]
        factor = self.factors[f]
        C = self.couplings[position]
        J, k = factor.n_levels, factor.n_columns
        none = np.zeros(0, dtype=np.intp)
        if not C.nnz:
            return Stage(f, J, k, C, none, none, _nothing(), none, none, none, none)
        if position == len(self.order) - 1:
            limit = self.max_listed if self.block is None and position == 0 else self.max_products
            if count_products(np.diff(C.indptr[: J + 1]), k) > limit:
                return Stage(f, J, k, C, none, none, None, none, none, none, none)
            first, second, targets, rows = self._products_of_dense(C, factor)
        else:
            first, second, targets, rows = self._products(C, factor, position)
        used = np.zeros(self.n_values + self._block_elements(), dtype=bool)
        used[targets] = True
        distinct = np.flatnonzero(used)
        place = np.empty(used.size, dtype=np.int32 if distinct.size < 2**31 else np.int64)
        place[distinct] = np.arange(distinct.size)
        shape = (k * k * J, distinct.size)
        P = sparse.csr_array((C.data[first] * C.data[second], place[targets], rows), shape=shape)
        flat = distinct[distinct >= self.n_values] - self.n_values
        own = distinct[: distinct.size - flat.size]
        if self.block is None:
            dense_rows, dense_columns = np.divmod(flat, max(self.dense_size, 1))
        else:
            dense_rows, dense_columns = self.block.rows[flat], self.block.columns[flat]
        return Stage(f, J, k, C, first, second, P, own, flat, dense_rows, dense_columns)

    def _block_elements(self) -> int:
        return self.dense_size**2 if self.block is None else self.block.n_elements

    def _block_positions(self, rows: IntArray, columns: IntArray) -> IntArray:
        """Where elements of the lower triangle of the block stand in it."""
        return rows * self.dense_size + columns if self.block is None else self.block.positions(rows, columns)

    def _products_of_dense(self, C: SparseMatrix, factor: Factor) -> tuple[IntArray, IntArray, IntArray, IntArray]:
        """Products of the last stage: all of them change the lower triangle of the dense block.

        Returns
        -------
        first, second : elements of C, in the order of the rows of P
        targets : position in the value vector of each product
        rows : row pointer of P
        """
        J, k = factor.n_levels, factor.n_columns
        counts = np.diff(C.indptr[: J + 1])
        per_block = int(C.indptr[J])
        index_type = np.int32 if k * k * per_block < 2**31 else np.int64
        starts = C.indptr[:J].astype(index_type)
        rank = np.arange(per_block, dtype=index_type) - np.repeat(starts, counts)
        repeats = rank + 1
        left = np.repeat(np.arange(per_block, dtype=index_type), repeats)
        ends = np.cumsum(repeats, dtype=np.int64)
        total = int(ends[-1]) if per_block else 0
        # Partners of an element are the elements of its level up to itself.
        right = np.arange(total) - np.repeat(ends - repeats - np.repeat(starts, counts), repeats)
        columns = C.indices[:per_block].astype(np.intp)
        targets = self.n_values + self._block_positions(columns[left], columns[right])
        per_level = counts.astype(np.int64) * (counts + 1) // 2
        # Every column of the term has the same pattern, so the other blocks repeat the first.
        first = np.concatenate([left + a * per_block for a in range(k) for _ in range(k)])
        second = np.concatenate([right + b * per_block for _ in range(k) for b in range(k)])
        rows = np.concatenate([[0], np.cumsum(np.tile(per_level, k * k))])
        return first, second, np.tile(targets, k * k), rows

    def _products(
        self, C: SparseMatrix, factor: Factor, position: int
    ) -> tuple[IntArray, IntArray, IntArray, IntArray]:
        """Products of a stage that others follow; see `_products_of_dense`."""
        J, k = factor.n_levels, factor.n_columns
        row_of = np.repeat(np.arange(C.shape[0]), np.diff(C.indptr))
        by_level = np.argsort(row_of % J, kind="stable")
        level = row_of[by_level] % J
        counts = np.bincount(level, minlength=J)
        total = count_products(counts, k)
        if total > self.max_products:
            raise DesignError(
                f"the random effects of {factor.name} meet the others in {total:,} pairs, "
                f"more than this version can hold ({self.max_products:,})."
            )
        starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
        repeats = counts[level]
        left = np.repeat(np.arange(level.size), repeats)
        within = np.arange(left.size) - np.repeat(np.cumsum(repeats) - repeats, repeats)
        right = starts[level[left]] + within
        first, second = by_level[left], by_level[right]
        keep = self._kept(C, first, second, position)
        first, second = first[keep], second[keep]
        targets = self._targets(C, first, second, position)
        rows = (row_of[first] // J * k + row_of[second] // J) * J + row_of[first] % J
        order = np.argsort(rows, kind="stable")
        pointer = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=k * k * J))])
        return first[order], second[order], targets[order], pointer

    def _kept(self, C: SparseMatrix, first: IntArray, second: IntArray, position: int) -> BoolArray:
        """Each unordered pair of remaining effects once, but both orders inside a diagonal block."""
        kind = self._kind_of_columns(position)
        a, b = C.indices[first], C.indices[second]
        ka, kb = kind[a], kind[b]
        n_stages = len(self.order)
        both_dense = (ka == n_stages) & (kb == n_stages)
        keep: BoolArray = np.where(both_dense, a >= b, ka <= kb)
        return keep

    def _kind_of_columns(self, position: int) -> IntArray:
        """For each remaining effect the stage that eliminates it, or the number of stages if it is dense."""
        slices = self.remaining[position]
        width = sum(place.stop - place.start for place in slices.values())
        kind = np.full(width, len(self.order), dtype=np.intp)
        for later in range(position + 1, len(self.order)):
            kind[slices[self.order[later]]] = later
        return kind

    def _targets(self, C: SparseMatrix, first: IntArray, second: IntArray, position: int) -> IntArray:
        """Position in the value vector that each product changes; dense elements follow all others."""
        slices = self.remaining[position]
        kind = self._kind_of_columns(position)
        a, b = C.indices[first].astype(np.intp), C.indices[second].astype(np.intp)
        out = np.empty(a.size, dtype=np.intp)
        for later in range(position + 1, len(self.order)):
            t = self.order[later]
            start = slices[t].start
            J, k = self.factors[t].n_levels, self.factors[t].n_columns
            inside = (kind[a] == later) & (kind[b] == later)
            row, column = a[inside] - start, b[inside] - start
            out[inside] = self.diagonal_slices[t].start + (row // J * k + column // J) * J + row % J
            across = (kind[a] == later) & (kind[b] > later)
            # Columns keep their order when factors before them are eliminated.
            shift = slices[t].stop
            out[across] = self.coupling_slices[t].start + _positions(
                self.couplings[later], a[across] - start, b[across] - shift
            )
        n_stages = len(self.order)
        both = (kind[a] == n_stages) & (kind[b] == n_stages)
        if both.any():
            start = slices[self.dense[0]].start
            out[both] = self.n_values + self._block_positions(a[both] - start, b[both] - start)
        return out


@cache
def _nothing() -> SparseMatrix:
    """The coupling and the products of a factor that is alone."""
    return sparse.csr_array((0, 0))


def _positions(table: SparseMatrix, rows: IntArray, columns: IntArray) -> IntArray:
    """Where the elements (rows, columns) stand in ``table.data``."""
    width = table.shape[1]
    row_of = np.repeat(np.arange(table.shape[0]), np.diff(table.indptr))
    found: IntArray = np.searchsorted(row_of * width + table.indices, rows * width + columns)
    return found
