"""Layout of a sparse block: which pairs of levels meet, and where their elements stand in one vector of values.

Every pair of levels has all elements between the columns of their terms, so that Lambda'K Lambda and Lambda E Lambda'
stay on the pattern. Of two orders of a pair one is kept; the pair of a level with itself is kept in full.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lme4py.engine.factor import forecast as guard
from lme4py.engine.factor.crossproducts import Edges, Factor, SortedEdges
from lme4py.linalg import small
from lme4py.linalg.ordering import minimum_degree
from lme4py.linalg.supernodes import NodeColumns, Symbolic, analyse_pattern
from lme4py.linalg.types import BoolArray, FloatArray, IntArray, SparseMatrix, sparse

# Floating-point operations per second with one large matrix, and with many small fronts; seconds per supernode.
_RATE_DENSE, _RATE_FRONTS, _PER_SUPERNODE = 6e10, 3e10, 1e-4
# Edges that are looked at in a second while an order is sought.
_RATE_ORDER = 1e7
# Gradients that a fit is counted as.
EVALUATIONS = 6
# A sparse block must be expected to take less than this part of the time of a dense one.
_WORTH = 0.7


class Group(NamedTuple):
    """Pairs of levels of two grouping factors of the block: positions f >= g, levels, and the slice of values."""

    f: int
    g: int
    rows: IntArray
    columns: IntArray
    place: slice


@dataclass(frozen=True)
class Forecast:
    """What a gradient would cost with a sparse and with a dense block.

    Attributes
    ----------
    factor_elements : float
        Stored elements of the sparse factor.
    sparse_seconds, dense_seconds : float
    sparse_bytes, dense_bytes : float
    """

    factor_elements: float
    sparse_seconds: float
    dense_seconds: float
    sparse_bytes: float
    dense_bytes: float

    @property
    def sparse_is_better(self) -> bool:
        return self.sparse_seconds < _WORTH * self.dense_seconds and self.sparse_bytes < 2 * self.dense_bytes


class SparseBlock:
    """The block that remains after all stages, on a fixed sparse pattern.

    Parameters
    ----------
    factors : tuple of Factor
        Those of the block, in the order of its rows.
    pairs : csr_array, shape (N, N)
        Levels (of all factors, one after the other) that meet, symmetric and without a diagonal.
    symbolic : Symbolic

    Attributes
    ----------
    rows, columns : ndarray of int, shape (n_elements,)
        Row and column in the block of each element.
    prior : ndarray, shape (n_elements,)
        What is added to Lambda'K Lambda: the inverse of the covariance of the effects before they are scaled.
    prior_log_det : float
        Minus its log determinant.
    counted : ndarray of bool
        Elements that stand for themselves: the upper triangle of a level's own block repeats the lower one.
    upper, lower : ndarray of int
        Positions of those repeated elements, and of the ones they repeat.
    """

    def __init__(self, factors: tuple[Factor, ...], pairs: SparseMatrix, symbolic: Symbolic) -> None:
        self.factors = factors
        self.symbolic = symbolic
        self.level_starts = np.concatenate([[0], np.cumsum([f.n_levels for f in factors])])
        self.offsets = np.concatenate([[0], np.cumsum([f.size for f in factors])])
        self.size = int(self.offsets[-1])
        self.n_levels = int(self.level_starts[-1])
        self._find_groups(pairs)
        self.rows, self.columns = self._indices()
        own = [g for g in self.groups if g.f == g.g]
        self.upper, self.lower = self._repeated(own)
        self.counted: BoolArray = np.ones(self.n_elements, dtype=bool)
        self.counted[self.upper] = False
        self.places = symbolic.panel_positions(self.rows, self.columns)
        self.own_places = tuple(self._own_positions(f) for f in range(len(factors)))
        self.diagonal = np.concatenate([self._diagonal(f) for f in range(len(factors))])
        self.prior = self._prior()
        self.prior_log_det = sum(f.n_columns * f.relation.log_det for f in factors if f.relation is not None)

    def _find_groups(self, pairs: SparseMatrix) -> None:
        low = sparse.tril(pairs, -1).tocoo()
        levels = np.arange(self.n_levels)
        first = np.concatenate([low.row.astype(np.intp), levels])
        second = np.concatenate([low.col.astype(np.intp), levels])
        kind = self._kind(first, second)
        self._keys = np.sort(self._key(kind, first, second))
        groups, start = [], 0
        bounds = np.searchsorted(self._keys, np.arange(len(self.factors) ** 2 + 1) * self.n_levels**2)
        for f in range(len(self.factors)):
            for g in range(f + 1):
                number = f * len(self.factors) + g
                keys = self._keys[bounds[number] : bounds[number + 1]] - number * self.n_levels**2
                stop = start + keys.size * self.factors[f].n_columns * self.factors[g].n_columns
                rows = keys // self.n_levels - self.level_starts[f]
                columns = keys % self.n_levels - self.level_starts[g]
                groups.append(Group(f, g, rows, columns, slice(start, stop)))
                start = stop
        self.groups = tuple(groups)
        self._bounds = bounds
        self.n_elements = start
        self._group_start = np.zeros(len(self.factors) ** 2, dtype=np.intp)
        for group in groups:
            self._group_start[group.f * len(self.factors) + group.g] = group.place.start

    def _kind(self, first: IntArray, second: IntArray) -> IntArray:
        f = np.searchsorted(self.level_starts, first, side="right") - 1
        g = np.searchsorted(self.level_starts, second, side="right") - 1
        kind: IntArray = f * len(self.factors) + g
        return kind

    def _key(self, kind: IntArray, first: IntArray, second: IntArray) -> IntArray:
        return (kind * self.n_levels + first) * self.n_levels + second

    def _indices(self) -> tuple[IntArray, IntArray]:
        rows, columns = [], []
        for group in self.groups:
            left, right = self.factors[group.f], self.factors[group.g]
            for a in range(left.n_columns):
                for b in range(right.n_columns):
                    rows.append(self.offsets[group.f] + a * left.n_levels + group.rows)
                    columns.append(self.offsets[group.g] + b * right.n_levels + group.columns)
        return np.concatenate(rows), np.concatenate(columns)

    def _split(self, index: IntArray) -> tuple[IntArray, IntArray, IntArray]:
        """Factor, column of the term and level of rows of the block."""
        f = np.searchsorted(self.offsets, index, side="right") - 1
        levels = np.array([factor.n_levels for factor in self.factors])[f]
        a, level = np.divmod(index - self.offsets[f], levels)
        return f, a, level

    def positions(self, rows: IntArray, columns: IntArray) -> IntArray:
        """Where elements of the lower triangle (row >= column) stand in the vector of values."""
        f, a, i = self._split(rows)
        g, b, j = self._split(columns)
        # Inside a factor with several columns the lower triangle holds pairs of levels in both orders.
        swap = self.level_starts[f] + i < self.level_starts[g] + j
        a, b = np.where(swap, b, a), np.where(swap, a, b)
        i, j = np.where(swap, j, i), np.where(swap, i, j)
        kind = f * len(self.factors) + g
        keys = self._key(kind, self.level_starts[f] + i, self.level_starts[g] + j)
        within = np.searchsorted(self._keys, keys) - self._bounds[kind]
        width = np.array([factor.n_columns for factor in self.factors])[g]
        count = np.diff(self._bounds)[kind]
        out: IntArray = self._group_start[kind] + (a * width + b) * count + within
        return out

    def _own_positions(self, f: int) -> IntArray:
        """Positions of the diagonal blocks of a factor, (k, k, J)."""
        group = next(g for g in self.groups if g.f == g.g == f)
        k = self.factors[f].n_columns
        all_pairs = np.arange(group.place.start, group.place.stop).reshape(k, k, -1)
        own: IntArray = all_pairs[:, :, group.rows == group.columns]
        return own

    def _diagonal(self, f: int) -> IntArray:
        own = self.own_places[f]
        return np.concatenate([own[a, a] for a in range(own.shape[0])])

    def _prior(self) -> FloatArray:
        """1 on the diagonal of independent levels, and the inverse K^-1 (x) I of a known covariance."""
        values = np.zeros(self.n_elements)
        for f, factor in enumerate(self.factors):
            if factor.relation is None:
                values[self._diagonal(f)] = 1.0
                continue
            low = sparse.tril(factor.relation.precision).tocoo()
            for a in range(factor.n_columns):
                start = self.offsets[f] + a * factor.n_levels
                values[self.positions(start + low.row, start + low.col)] = low.data
        return values

    def prior_sum(self, f: int, values: FloatArray) -> FloatArray:
        """Sum over pairs of levels i, j of a factor of its prior at (i, j) times the block of values there, (k, k)."""
        factor = self.factors[f]
        if factor.relation is None:
            total: FloatArray = values[self.own_places[f]].sum(axis=2)
            return total
        k = factor.n_columns
        group = next(g for g in self.groups if g.f == g.g == f)
        blocks, prior = values[group.place].reshape(k, k, -1), self.prior[group.place].reshape(k, k, -1)[0, 0]
        off = group.rows != group.columns
        half = blocks[:, :, off] @ prior[off]
        out: FloatArray = blocks[:, :, ~off] @ prior[~off] + half + half.T
        return out

    def _repeated(self, own: list[Group]) -> tuple[IntArray, IntArray]:
        upper: list[IntArray] = [np.zeros(0, dtype=np.intp)]
        lower: list[IntArray] = [np.zeros(0, dtype=np.intp)]
        for group in own:
            places = self._own_positions(group.f)
            for a in range(places.shape[0]):
                for b in range(a):
                    upper.append(places[b, a])
                    lower.append(places[a, b])
        return np.concatenate(upper), np.concatenate(lower)

    # -- values --------------------------------------------------------------------------------------------------

    def base(self, diagonal: list[FloatArray], edges: dict[tuple[int, int], Edges | SortedEdges]) -> FloatArray:
        """Values before any elimination.

        Parameters
        ----------
        diagonal : list of ndarray, each (k, k, J)
        edges : dict
            Z_f'W Z_g for positions f > g in the block.
        """
        values = np.zeros(self.n_elements)
        for f, blocks in enumerate(diagonal):
            values[self.own_places[f]] = blocks
        for (f, g), block in edges.items():
            left, right = self.factors[f], self.factors[g]
            for a in range(left.n_columns):
                for b in range(right.n_columns):
                    rows = self.offsets[f] + a * left.n_levels + block.rows
                    columns = self.offsets[g] + b * right.n_levels + block.columns
                    values[self.positions(rows, columns)] = block.values[a, b]
        return values

    def congruence(self, values: FloatArray, T: list[FloatArray]) -> FloatArray:
        """T_f' X T_g for every pair of levels of f and g; ``T`` by positions in the block."""
        out = np.empty_like(values)
        for group in self.groups:
            k, m = self.factors[group.f].n_columns, self.factors[group.g].n_columns
            X = values[group.place].reshape(k, m, -1)
            out[group.place] = small.right(small.left(T[group.f].T, X), T[group.g]).ravel()
        return out

    def matrix(self, values: FloatArray) -> SparseMatrix:
        """The symmetric matrix of the values."""
        off = self.rows != self.columns
        off[self.upper] = False
        rows = np.concatenate([self.rows[self.counted], self.columns[off]])
        columns = np.concatenate([self.columns[self.counted], self.rows[off]])
        data = np.concatenate([values[self.counted], values[off]])
        return sparse.coo_array((data, (rows, columns)), shape=(self.size, self.size)).tocsr()


def level_graph(n_levels: int, incidences: list[SparseMatrix], pairs: list[tuple[IntArray, IntArray]]) -> SparseMatrix:
    """Levels of the block that meet: in the data, or through a level that has been eliminated.

    Parameters
    ----------
    n_levels : int
    incidences : list of csr_array, each (J, n_levels)
        For each stage the levels of the block that each of its levels meets.
    pairs : list of (ndarray, ndarray)
        Levels that occur together.
    """
    total = sparse.csr_array((n_levels, n_levels), dtype=np.int32)
    for B in incidences:
        total = total + B.T @ B
    for rows, columns in pairs:
        ones = np.ones(rows.size, dtype=np.int32)
        table = sparse.coo_array((ones, (rows, columns)), shape=total.shape).tocsr()
        total = total + table + table.T
    found: SparseMatrix = total.tocoo()
    off = found.row != found.col
    index = (found.row[off], found.col[off])
    return sparse.coo_array((np.ones(index[0].size, dtype=np.int32), index), shape=total.shape).tocsr()


def plan_sparse(
    factors: tuple[Factor, ...], graph: SparseMatrix, dense_bytes: float, forced: bool = False
) -> tuple[SparseBlock | None, Forecast]:
    """Order the block, forecast what it would cost, and lay it out when that is clearly better than a dense one.

    Parameters
    ----------
    factors : tuple of Factor
        Those of the block.
    graph : csr_array, shape (N, N)
        From `level_graph`.
    dense_bytes : float
        What a dense block would take.
    forced : bool
        Lay it out in any case.
    """
    size = sum(factor.size for factor in factors)
    dense_seconds = float(size) ** 3 / _RATE_DENSE
    memory = guard.available_memory()
    weights = _level_sizes(factors)
    # The factor cannot cost less than a clique of this size.
    limit = size if forced else (dense_seconds * _RATE_FRONTS) ** (1 / 3)
    found = minimum_degree(graph, weights, float(limit), hubs=forced)
    open_size = int(weights[found.order[found.order.size - found.n_open :]].sum())
    # What was left open is one dense front, in the factor and in the inverse.
    core_seconds, least = float(open_size) ** 3 / _RATE_DENSE, 2.0 * 8.0 * float(open_size) ** 2
    if core_seconds > _WORTH * dense_seconds and not forced and not dense_bytes > memory > least:
        # What could be saved is not worth the symbolic step.
        return None, Forecast(float(open_size) ** 2, core_seconds, dense_seconds, least, dense_bytes)
    symbolic = analyse_pattern(graph, found, _node_columns(factors))
    n_elements = size + graph.nnz / 2 * float(np.mean(weights)) ** 2
    forecast = Forecast(
        float(symbolic.panel_size),
        _seconds(symbolic),
        dense_seconds,
        8.0 * (2.0 * symbolic.panel_size + symbolic.peak_updates + symbolic.listed + 12.0 * n_elements),
        dense_bytes,
    )
    wanted = forecast.sparse_is_better or (dense_bytes > memory > forecast.sparse_bytes)
    return (SparseBlock(factors, graph, symbolic) if forced or wanted else None), forecast


def dense_fit(size: int) -> float:
    """Seconds of a fit with a dense block of so many rows."""
    return EVALUATIONS * float(size) ** 3 / _RATE_DENSE


def least_fit(factors: tuple[Factor, ...], graph: SparseMatrix, worth: float) -> float:
    """Seconds that a fit with a factor takes at least, found out up to those that it may be worth.

    Parameters
    ----------
    factors : tuple of Factor
        Those of the block.
    graph : csr_array, shape (N, N)
        From `level_graph`.
    worth : float
    """
    weights = _level_sizes(factors)
    # Larger fronts cost more than that, and the search for them would take longer than an iterative fit.
    largest = (worth / EVALUATIONS * _RATE_DENSE) ** (1 / 3)
    found = minimum_degree(graph, weights, largest, max_work=worth * _RATE_ORDER)
    return dense_fit(int(weights[found.order[found.order.size - found.n_open :]].sum()))


def _level_sizes(factors: tuple[Factor, ...]) -> IntArray:
    """Rows of the block that each level has."""
    return np.concatenate([np.full(f.n_levels, f.n_columns) for f in factors])


def _seconds(symbolic: Symbolic) -> float:
    """Forecast for a gradient: the factor, and twice as much for the elements of its inverse."""
    flops = 3.0 * symbolic.shapes.flops
    core = min(float(symbolic.shapes.widths.max()) ** 3, flops)
    alone = len(symbolic.nodes) + len(symbolic.batches)
    return core / _RATE_DENSE + (flops - core) / _RATE_FRONTS + _PER_SUPERNODE * alone


def _node_columns(factors: tuple[Factor, ...]) -> NodeColumns:
    """Rows of the block that belong to each level."""
    counts, columns = [], []
    start = 0
    for factor in factors:
        J, k = factor.n_levels, factor.n_columns
        counts.append(np.full(J, k))
        columns.append((start + np.arange(J)[:, None] + J * np.arange(k)).ravel())
        start += factor.size
    return NodeColumns(np.concatenate(counts), np.concatenate(columns))
