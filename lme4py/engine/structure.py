"""Which blocks of the factor can be non-zero: found once, used by every evaluation.

Grouping factors are eliminated one by one, the one with most random effects first, for as long as the matrix of
what is left stays block diagonal in the next one (the next one is nested outside all before it). What remains
after these *stages* is one block: dense, or sparse where that is clearly better (see
`lme4py.engine.sparse_pattern`). For every stage the positions that its elimination changes are listed once, so
that an evaluation only does arithmetic: `changes = P' vec(E)` (see `lme4py.engine.sweep`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lme4py.engine.crossproducts import CrossProducts, Edges, Factor
from lme4py.engine.sparse_pattern import Forecast, SparseBlock, dense_forecast, level_graph, plan_sparse
from lme4py.engine.types import BoolArray, IntArray, SparseMatrix, sparse
from lme4py.errors import DesignError

# Above this many products per evaluation the prepared list would not fit into memory.
MAX_PRODUCTS = 60_000_000
# Blocks with fewer rows are dense: a fit takes seconds at most.
SPARSE_FROM = 3000
# Blocks of which more than this part meets are dense without further questions.
_MAX_DENSITY = 0.25


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

    A last stage with too many products to list has None for `products`; its changes are made by dense
    algebra (see `lme4py.engine.wide`).
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


def elimination_order(factors: tuple[Factor, ...]) -> list[int]:
    """Positions of the factors, the one with most random effects first."""
    return sorted(range(len(factors)), key=lambda f: -factors[f].size)


def _pairs(cross: CrossProducts, s: int, t: int) -> tuple[IntArray, IntArray]:
    """Levels of s and t that occur together."""
    edges = cross.edges[min(s, t), max(s, t)]
    return (edges.rows, edges.columns) if s < t else (edges.columns, edges.rows)


def cross_block(cross: CrossProducts, s: int, t: int) -> Edges:
    """Z_s'W Z_t for any order of s and t."""
    edges = cross.edges[min(s, t), max(s, t)]
    if s < t:
        return edges
    return Edges(edges.columns, edges.rows, edges.values.swapaxes(0, 1))


def _is_function(rows: IntArray, columns: IntArray) -> bool:
    """Does every row occur with one column only?  (pairs are distinct)"""
    return np.unique(rows).size == rows.size


class _Pattern:
    """Pairs of levels that can be non-zero between any two remaining factors, growing as factors are eliminated."""

    def __init__(self, factors: tuple[Factor, ...], cross: CrossProducts) -> None:
        self.factors = factors
        self.keys: dict[tuple[int, int], IntArray] = {}
        for s, t in cross.edges:
            for a, b in ((s, t), (t, s)):
                rows, columns = _pairs(cross, a, b)
                self.keys[a, b] = np.sort(rows * factors[b].n_levels + columns)

    def pairs(self, s: int, t: int) -> tuple[IntArray, IntArray]:
        width = self.factors[t].n_levels
        keys = self.keys[s, t]
        return keys // width, keys % width

    def function(self, s: int, t: int) -> IntArray | None:
        """Level of t for every level of s when s is nested in t, otherwise None."""
        rows, columns = self.pairs(s, t)
        if rows.size != self.factors[s].n_levels or not _is_function(rows, columns):
            return None
        parent = np.empty(self.factors[s].n_levels, dtype=np.intp)
        parent[rows] = columns
        return parent

    def fill(self, parent: IntArray, s: int, t: int, others: list[int]) -> None:
        """Add the pairs between t and `others` that the elimination of s (nested in t) makes."""
        for u in others:
            if u == t:
                continue
            rows, columns = self.pairs(s, u)
            new = np.unique(parent[rows] * self.factors[u].n_levels + columns)
            keys = np.union1d(self.keys[t, u], new)
            self.keys[t, u] = keys
            width = self.factors[u].n_levels
            self.keys[u, t] = np.sort((keys % width) * self.factors[t].n_levels + keys // width)


def choose_stages(factors: tuple[Factor, ...], cross: CrossProducts) -> tuple[list[int], list[int], _Pattern]:
    """Factors eliminated by stages, factors left for the dense block, and the pattern of what is left."""
    remaining = elimination_order(factors)
    pattern = _Pattern(factors, cross)
    stages = [remaining.pop(0)]
    # Further stages need the list of products of the first one.
    while remaining and _count_meetings(factors, pattern, stages[0]) <= MAX_PRODUCTS:
        found = None
        for t in remaining:
            parents = [pattern.function(s, t) for s in stages]
            if all(parent is not None for parent in parents):
                found = t, parents
                break
        if found is None:
            break
        t, parents = found
        for s, parent in zip(stages, parents, strict=True):
            if parent is not None:
                pattern.fill(parent, s, t, remaining)
        remaining.remove(t)
        stages.append(t)
    return stages, remaining, pattern


def _count_meetings(factors: tuple[Factor, ...], pattern: _Pattern, s: int) -> int:
    """Number of products that the elimination of s needs."""
    met = np.zeros(factors[s].n_levels)
    for t, factor in enumerate(factors):
        if t != s:
            met += factor.n_columns * np.bincount(pattern.pairs(s, t)[0], minlength=met.size)
    return _count_products(met, factors[s].n_columns)


def analyse(factors: tuple[Factor, ...], cross: CrossProducts, block: str = "auto") -> Structure:
    """The symbolic step.

    Parameters
    ----------
    factors : tuple of Factor
    cross : CrossProducts
    block : {"auto", "dense", "sparse"}
        What remains after the stages; "auto" takes what is forecast to be faster.

    Raises
    ------
    DesignError
        When the dense block would not fit into memory.
    """
    order, dense, pattern = choose_stages(factors, cross)
    offsets = np.concatenate([[0], np.cumsum([factors[f].size for f in dense])]).astype(int)
    dense_size = int(offsets[-1])
    memory = _free_memory()
    sparse_block, forecast = None, None
    if dense and (block == "sparse" or (block == "auto" and dense_size > SPARSE_FROM)):
        sparse_block, forecast = _plan_block(factors, cross, order, dense, pattern, memory, block == "sparse")
    if sparse_block is None:
        _check_memory(dense_size, dense, factors, memory, forecast)
    layout = _Layout(factors, order, dense, pattern, cross, sparse_block)
    stages = tuple(layout.stage(position) for position in range(len(order)))
    return Structure(
        stages,
        tuple(dense),
        tuple(int(o) for o in offsets[:-1]),
        dense_size,
        layout.diagonal_slices,
        layout.coupling_slices,
        layout.n_values,
        tuple(layout.remaining),
        sparse_block,
        forecast,
    )


def _plan_block(
    factors: tuple[Factor, ...],
    cross: CrossProducts,
    order: list[int],
    dense: list[int],
    pattern: _Pattern,
    memory: float,
    forced: bool,
) -> tuple[SparseBlock | None, Forecast | None]:
    """The sparse block, or None where a dense one is better; and the forecast, if one was needed."""
    if _count_meetings(factors, pattern, order[0]) > MAX_PRODUCTS:
        return None, None
    starts = dict(zip(dense, np.cumsum([0] + [factors[f].n_levels for f in dense]), strict=False))
    n_levels = sum(factors[f].n_levels for f in dense)
    incidences = []
    for s in order:
        met = [pattern.pairs(s, t) for t in dense]
        rows = np.concatenate([pair[0] for pair in met])
        columns = np.concatenate([starts[t] + pair[1] for t, pair in zip(dense, met, strict=True)])
        ones = np.ones(rows.size, dtype=np.int32)
        incidences.append(sparse.coo_array((ones, (rows, columns)), shape=(factors[s].n_levels, n_levels)).tocsr())
    pairs = []
    for i, s in enumerate(dense):
        for t in dense[:i]:
            rows, columns = _pairs(cross, s, t)
            pairs.append((starts[s] + rows, starts[t] + columns))
    graph = level_graph(n_levels, incidences, pairs)
    if graph.nnz > _MAX_DENSITY * n_levels**2 and not forced:
        return None, None
    return plan_sparse(tuple(factors[f] for f in dense), graph, memory, forced)


def _free_memory() -> float:
    import os

    try:
        return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (ValueError, OSError, AttributeError):
        return float(8 * 2**30)


def _check_memory(
    dense_size: int, dense: list[int], factors: tuple[Factor, ...], available: float, forecast: Forecast | None
) -> None:
    _, need = dense_forecast(dense_size)
    if need <= available:
        return
    names = ", ".join(f"{factors[f].name} ({factors[f].size:,})" for f in dense)
    other = ""
    if forecast is not None:
        other = f" Kept sparse they would need {forecast.sparse_bytes / 2**30:.1f} GB."
    raise DesignError(
        f"the crossed random effects {names} need a dense block of {dense_size:,} x {dense_size:,} numbers, "
        f"about {need / 2**30:.1f} GB, and {available / 2**30:.1f} GB are free.{other} Leave one of these terms out, "
        "fit a part of the data with fewer levels, or use a machine with more memory."
    )


class _Layout:
    """Positions of all values that change during elimination in one long vector."""

    def __init__(
        self,
        factors: tuple[Factor, ...],
        order: list[int],
        dense: list[int],
        pattern: _Pattern,
        cross: CrossProducts,
        block: SparseBlock | None = None,
    ) -> None:
        self.factors, self.order, self.dense, self.cross = factors, order, dense, cross
        self.block = block
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

    def _coupling(self, s: int, slices: dict[int, slice], width: int, pattern: _Pattern) -> SparseMatrix:
        """Values of A between s and all that remain, on the pattern with fill."""
        rows, columns, values = [], [], []
        J = self.factors[s].n_levels
        for t, place in slices.items():
            block = cross_block(self.cross, s, t)
            J_t = self.factors[t].n_levels
            full_rows, full_columns = pattern.pairs(s, t)
            # Pairs made by fill start as explicit zeros.
            where = np.searchsorted(full_rows * J_t + full_columns, block.rows * J_t + block.columns)
            for a in range(self.factors[s].n_columns):
                for b in range(self.factors[t].n_columns):
                    data = np.zeros(full_rows.size)
                    data[where] = block.values[a, b]
                    rows.append(a * J + full_rows)
                    columns.append(place.start + b * J_t + full_columns)
                    values.append(data)
        shape = (self.factors[s].size, width)
        if not rows:
            return sparse.csr_array(shape)
        index = (np.concatenate(rows), np.concatenate(columns))
        return sparse.coo_array((np.concatenate(values), index), shape=shape).tocsr()

    def stage(self, position: int) -> Stage:
        f = self.order[position]
        factor = self.factors[f]
        C = self.couplings[position]
        J, k = factor.n_levels, factor.n_columns
        none = np.zeros(0, dtype=np.intp)
        if position == len(self.order) - 1:
            if _count_products(np.diff(C.indptr[: J + 1]), k) > MAX_PRODUCTS:
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
        total = _count_products(counts, k)
        if total > MAX_PRODUCTS:
            raise DesignError(
                f"the random effects of {factor.name} meet the others in {total:,} pairs, "
                f"more than this version can hold ({MAX_PRODUCTS:,})."
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


def _count_products(counts: NDArray[Any], k: int) -> int:
    """Number of products of a stage whose levels meet `counts` remaining effects each."""
    return int((counts.astype(float) ** 2).sum() * k**2 / 2)


def _positions(table: SparseMatrix, rows: IntArray, columns: IntArray) -> IntArray:
    """Where the elements (rows, columns) stand in ``table.data``."""
    width = table.shape[1]
    row_of = np.repeat(np.arange(table.shape[0]), np.diff(table.indptr))
    found: IntArray = np.searchsorted(row_of * width + table.indices, rows * width + columns)
    return found
