"""The cross-products A = [Z X y]' W [Z X y]: the only place where a linear mixed model touches its rows.

They are accumulated over blocks of rows, so that data larger than memory, or on several machines, need only
send their blocks through `accumulate`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lme4py.chunks import chunk, from_size
from lme4py.linalg.types import FloatArray, IntArray, sparse

# Below this many products the border is summed column by column, and pairs of levels are sorted.
_FEW = from_size(20_000)
# Rows that are summed at one time.
_ROWS = chunk(2**17)


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
class SortedEdges:
    """The same, kept as a table of rows: half the memory, and the first coupling can share it.

    Attributes
    ----------
    pointer : ndarray of int, shape (J_s + 1,)
        Where the pairs of each level of s begin.
    indices : ndarray of int, shape (E,)
        Levels of t.
    values : ndarray, shape (k_s, k_t, E)
    """

    pointer: NDArray[Any]
    indices: NDArray[Any]
    values: FloatArray

    @property
    def rows(self) -> IntArray:
        """Levels of s, made anew each time."""
        return np.repeat(np.arange(self.pointer.size - 1), np.diff(self.pointer))

    @property
    def columns(self) -> IntArray:
        """Levels of t as integers that arithmetic does not overflow, made anew each time."""
        return self.indices.astype(np.intp)


@dataclass(frozen=True)
class CrossProducts:
    """A by blocks.

    Attributes
    ----------
    diagonal : tuple of ndarray, each (k, k, J)
    edges : dict (s, t) -> Edges or SortedEdges, s < t
    border : tuple of ndarray, each (k, J, p + 1)
        Z_s'W [X y].
    corner : ndarray, shape (p + 1, p + 1)
        [X y]'W [X y].
    n_obs : int
    sum_log_weights : float
    """

    diagonal: tuple[FloatArray, ...]
    edges: Mapping[tuple[int, int], Edges | SortedEdges]
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
    sums: _Sums | None = None
    for block in blocks:
        if sums is None:
            sums = _Sums(factors, block.XY.shape[1])
        sums.add(block)
    if sums is None:
        raise ValueError("there are no rows")
    return sums.result()


class _Sums:
    """Cross-products of the blocks of rows so far.

    Parameters
    ----------
    factors : tuple of Factor
    width : int
        p + 1.
    """

    def __init__(self, factors: tuple[Factor, ...], width: int) -> None:
        self.factors = factors
        self.diagonal = tuple(np.zeros((f.n_columns, f.n_columns, f.n_levels)) for f in factors)
        self.border = tuple(np.zeros((f.n_columns, f.n_levels, width)) for f in factors)
        self.edges: dict[tuple[int, int], list[Edges | SortedEdges]] = {
            (s, t): [] for s in range(len(factors)) for t in range(s + 1, len(factors))
        }
        self.corner = np.zeros((width, width))
        self.n_obs = 0
        self.sum_log_weights = 0.0

    def add(self, block: RowBlock) -> None:
        """Add the products of some rows."""
        w = block.weights
        weighted_XY = block.XY if w is None else block.XY * w[:, None]
        weighted_Z = [Z if w is None else Z * w[:, None] for Z in block.Z]
        for f in range(len(self.factors)):
            codes, Z = block.codes[f], block.Z[f]
            _add_diagonal(self.diagonal[f], codes, Z, weighted_Z[f])
            _add_border(self.border[f], codes, Z, weighted_XY)
        for (s, t), parts in self.edges.items():
            parts.append(_edges(block, weighted_Z, s, t, self.factors))
        self.corner += block.XY.T @ weighted_XY
        self.n_obs += block.XY.shape[0]
        self.sum_log_weights += 0.0 if w is None else float(np.log(w).sum())

    def result(self) -> CrossProducts:
        """The sums; the parts of the edges are given up one by one."""
        edges = {}
        for pair in list(self.edges):
            parts = self.edges.pop(pair)
            shape = (self.factors[pair[0]].n_levels, self.factors[pair[1]].n_levels)
            edges[pair] = parts[0] if len(parts) == 1 else _merge_edges(parts, shape)
        return CrossProducts(self.diagonal, edges, self.border, self.corner, self.n_obs, self.sum_log_weights)


def sum_arrays(arrays: list[FloatArray]) -> FloatArray:
    """Sum of equally shaped arrays, in order."""
    total = arrays[0].copy()
    for array in arrays[1:]:
        total += array
    return total


def _add_diagonal(out: FloatArray, codes: IntArray, Z: FloatArray, WZ: FloatArray) -> None:
    k, _, n_levels = out.shape
    for a in range(k):
        for b in range(a + 1):
            out[a, b] += np.bincount(codes, weights=Z[:, a] * WZ[:, b], minlength=n_levels)
            if a != b:
                out[b, a] = out[a, b]


def _add_border(out: FloatArray, codes: IntArray, Z: FloatArray, weighted_XY: FloatArray) -> None:
    n, k = Z.shape
    n_levels, c = out.shape[1:]
    if n * k * c < _FEW:
        # A sparse matrix costs more to set up than these sums.
        for a in range(k):
            for j in range(c):
                out[a, :, j] += np.bincount(codes, weights=Z[:, a] * weighted_XY[:, j], minlength=n_levels)
        return
    for start in range(0, n, _ROWS):
        rows = slice(start, min(start + _ROWS, n))
        shape = (rows.stop - start, n_levels)
        for a in range(k):
            ones = np.ascontiguousarray(Z[rows, a])
            indicator = sparse.csr_array((ones, codes[rows], np.arange(shape[0] + 1)), shape=shape)
            out[a] += indicator.T @ weighted_XY[rows]


def _edges(
    block: RowBlock, weighted_Z: list[FloatArray], s: int, t: int, factors: tuple[Factor, ...]
) -> Edges | SortedEdges:
    rows, columns = block.codes[s], block.codes[t]
    Zs, WZt = block.Z[s], weighted_Z[t]
    shape = (factors[s].n_levels, factors[t].n_levels)
    if rows.size < _FEW:
        # Few rows are sorted in less time than a sparse matrix takes to be set up.
        keys, place = np.unique(rows.astype(np.intp) * shape[1] + columns, return_inverse=True)
        sums = [[np.bincount(place, weights=z * wz, minlength=keys.size) for wz in WZt.T] for z in Zs.T]
        return Edges(*np.divmod(keys, shape[1]), np.array(sums))
    return _sorted_edges(rows, columns, [[z * wz for wz in WZt.T] for z in Zs.T], shape)


def _sorted_edges(
    rows: NDArray[Any], columns: NDArray[Any], values: Sequence[Sequence[FloatArray]], shape: tuple[int, int]
) -> SortedEdges:
    """Pairs of levels with their values summed over duplicates; explicit zeros stay, so that all have one pattern."""
    tables = [[sparse.coo_array((own, (rows, columns)), shape=shape).tocsr() for own in line] for line in values]
    first = tables[0][0]
    if len(tables) == len(tables[0]) == 1:
        return SortedEdges(first.indptr, first.indices, first.data[None, None])
    return SortedEdges(first.indptr, first.indices, np.array([[table.data for table in line] for line in tables]))


def _merge_edges(parts: list[Edges | SortedEdges], shape: tuple[int, int]) -> SortedEdges:
    small = np.int32 if max(shape) < 2**31 else np.intp
    rows = np.concatenate([part.rows.astype(small) for part in parts])
    columns = np.concatenate([part.columns.astype(small) for part in parts])
    values = np.concatenate([part.values for part in parts], axis=2)
    parts.clear()
    return _sorted_edges(rows, columns, [list(line) for line in values], shape)
