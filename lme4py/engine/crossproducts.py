"""The cross-products A = [Z X y]' W [Z X y]: the only place where a linear mixed model touches its rows.

They are accumulated over blocks of rows, so that data larger than memory, or on several machines, need only
send their blocks through `accumulate`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from lme4py.engine.types import FloatArray, IntArray, sparse

# Below this many products the border is summed column by column, and pairs of levels are sorted.
_FEW = 20_000
# Rows that are summed at one time.
_ROWS = 2**17


@dataclass(frozen=True)
class Factor:
    """A grouping factor with the columns of all its terms side by side.

    Attributes
    ----------
    name : str
    n_levels : int
    n_columns : int
    terms : tuple of int
        Positions of its terms in the design.
    columns : tuple of slice
        Columns of each of its terms.
    """

    name: str
    n_levels: int
    n_columns: int
    terms: tuple[int, ...]
    columns: tuple[slice, ...]

    @property
    def size(self) -> int:
        return self.n_levels * self.n_columns


@dataclass(frozen=True)
class RowBlock:
    """Some rows of the data: `XY` (n, p + 1), and for each factor codes (n,) and columns (n, k)."""

    XY: FloatArray
    codes: tuple[IntArray, ...]
    Z: tuple[FloatArray, ...]
    weights: FloatArray | None


@dataclass(frozen=True)
class Edges:
    """Blocks of Z_s'W Z_t that can be non-zero: one per pair of levels that occur together.

    Attributes
    ----------
    rows, columns : ndarray of int, shape (E,)
        Levels of s and t, sorted by row, then column.
    values : ndarray, shape (k_s, k_t, E)
    """

    rows: IntArray
    columns: IntArray
    values: FloatArray


@dataclass(frozen=True)
class CrossProducts:
    """A by blocks.

    Attributes
    ----------
    diagonal : tuple of ndarray, each (k, k, J)
    edges : dict (s, t) -> Edges, s < t
    border : tuple of ndarray, each (k, J, p + 1)
        Z_s'W [X y].
    corner : ndarray, shape (p + 1, p + 1)
        [X y]'W [X y].
    n_obs : int
    sum_log_weights : float
    """

    diagonal: tuple[FloatArray, ...]
    edges: dict[tuple[int, int], Edges]
    border: tuple[FloatArray, ...]
    corner: FloatArray
    n_obs: int
    sum_log_weights: float


def accumulate(blocks: Iterable[RowBlock], factors: tuple[Factor, ...]) -> CrossProducts:
    """Sum the cross-products of all blocks of rows.

    Parameters
    ----------
    blocks : iterable of RowBlock
    factors : tuple of Factor
    """
    parts = [_of_block(block, factors) for block in blocks]
    if len(parts) == 1:
        return parts[0]
    diagonal = tuple(sum_arrays([part.diagonal[f] for part in parts]) for f in range(len(factors)))
    border = tuple(sum_arrays([part.border[f] for part in parts]) for f in range(len(factors)))
    edges = {key: _merge_edges([part.edges[key] for part in parts], factors[key[0]].n_levels) for key in parts[0].edges}
    return CrossProducts(
        diagonal,
        edges,
        border,
        sum_arrays([part.corner for part in parts]),
        sum(part.n_obs for part in parts),
        sum(part.sum_log_weights for part in parts),
    )


def sum_arrays(arrays: list[FloatArray]) -> FloatArray:
    """Sum of equally shaped arrays, in order."""
    total = arrays[0].copy()
    for array in arrays[1:]:
        total += array
    return total


def _of_block(block: RowBlock, factors: tuple[Factor, ...]) -> CrossProducts:
    w = block.weights
    weighted_XY = block.XY if w is None else block.XY * w[:, None]
    weighted_Z = [Z if w is None else Z * w[:, None] for Z in block.Z]
    diagonal = []
    border = []
    for f, factor in enumerate(factors):
        codes, Z, WZ = block.codes[f], block.Z[f], weighted_Z[f]
        diagonal.append(_diagonal(codes, Z, WZ, factor.n_levels))
        border.append(_border(codes, Z, weighted_XY, factor.n_levels))
    edges = {
        (s, t): _edges(block, weighted_Z, s, t, factors)
        for s in range(len(factors))
        for t in range(s + 1, len(factors))
    }
    log_weights = 0.0 if w is None else float(np.log(w).sum())
    corner = block.XY.T @ weighted_XY
    return CrossProducts(tuple(diagonal), edges, tuple(border), corner, block.XY.shape[0], log_weights)


def _diagonal(codes: IntArray, Z: FloatArray, WZ: FloatArray, n_levels: int) -> FloatArray:
    k = Z.shape[1]
    out = np.empty((k, k, n_levels))
    for a in range(k):
        for b in range(a + 1):
            out[a, b] = np.bincount(codes, weights=Z[:, a] * WZ[:, b], minlength=n_levels)
            out[b, a] = out[a, b]
    return out


def _border(codes: IntArray, Z: FloatArray, weighted_XY: FloatArray, n_levels: int) -> FloatArray:
    n, k = Z.shape
    c = weighted_XY.shape[1]
    out = np.empty((k, n_levels, c))
    if n * k * c < _FEW:
        # A sparse matrix costs more to set up than these sums.
        for a in range(k):
            for j in range(c):
                out[a, :, j] = np.bincount(codes, weights=Z[:, a] * weighted_XY[:, j], minlength=n_levels)
        return out
    out[:] = 0.0
    for start in range(0, n, _ROWS):
        rows = slice(start, min(start + _ROWS, n))
        shape = (rows.stop - start, n_levels)
        for a in range(k):
            ones = np.ascontiguousarray(Z[rows, a])
            indicator = sparse.csr_array((ones, codes[rows], np.arange(shape[0] + 1)), shape=shape)
            out[a] += indicator.T @ weighted_XY[rows]
    return out


def _edges(block: RowBlock, weighted_Z: list[FloatArray], s: int, t: int, factors: tuple[Factor, ...]) -> Edges:
    rows, columns = block.codes[s], block.codes[t]
    Zs, WZt = block.Z[s], weighted_Z[t]
    shape = (factors[s].n_levels, factors[t].n_levels)
    if rows.size < _FEW:
        # Few rows are sorted in less time than a sparse matrix takes to be set up.
        keys, place = np.unique(rows * shape[1] + columns, return_inverse=True)
        sums = [[np.bincount(place, weights=z * wz, minlength=keys.size) for wz in WZt.T] for z in Zs.T]
        return Edges(*np.divmod(keys, shape[1]), np.array(sums))
    # The conversion sums duplicates; its structure is the same every time, since explicit zeros are kept.
    tables = [[sparse.coo_array((z * wz, (rows, columns)), shape=shape).tocsr() for wz in WZt.T] for z in Zs.T]
    return _as_edges(tables[0][0], np.array([[table.data for table in line] for line in tables]))


def _as_edges(table: sparse.csr_array, values: FloatArray) -> Edges:
    rows = np.repeat(np.arange(table.shape[0]), np.diff(table.indptr))
    return Edges(rows, table.indices.astype(np.intp), values)


def _merge_edges(parts: list[Edges], n_rows: int) -> Edges:
    rows = np.concatenate([part.rows for part in parts])
    columns = np.concatenate([part.columns for part in parts])
    values = np.concatenate([part.values for part in parts], axis=2)
    k_s, k_t, _ = values.shape
    shape = (n_rows, int(columns.max()) + 1)
    merged = np.array(
        [
            [sparse.coo_array((values[a, b], (rows, columns)), shape=shape).tocsr().data for b in range(k_t)]
            for a in range(k_s)
        ]
    )
    table = sparse.coo_array((values[0, 0], (rows, columns)), shape=shape).tocsr()
    return _as_edges(table, merged)
