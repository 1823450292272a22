"""The cross-products A = [Z X y]' W [Z X y]: the only place where a linear mixed model touches its rows.

They are accumulated over blocks of rows, so that data larger than memory, or on several machines, need only
send their blocks through `accumulate`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lme4py.chunks import chunk, from_size
from lme4py.covariance.relations.relation import Relation
from lme4py.linalg.types import FloatArray, IntArray, sparse

# Below this many products the border is summed column by column, and pairs of levels are sorted.
_FEW = from_size(20_000)
# Rows that are summed at one time.
_ROWS = chunk(2**17)
# Edges that are merged at one time.
_MERGED = chunk(2**20)
# Parts of edges that are kept apart.
_PARTS = chunk(4)
# Columns from which a matrix product for each level is faster, where there are fewer levels.
_MANY = from_size(32, 3)
# Up to this many products they are summed one by one.
_NARROW = from_size(8)


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
    relation : Relation or None
        The known covariance of the levels; None where they are independent.
    """

    name: str
    n_levels: int
    n_columns: int
    terms: tuple[int, ...]
    columns: tuple[slice, ...]
    relation: Relation | None = None

    @property
    def size(self) -> int:
        return self.n_levels * self.n_columns

    def along(self, values: FloatArray) -> FloatArray:
        """The covariance of the levels times values, (k, J, c): the values themselves of independent levels."""
        return values if self.relation is None else self.relation.along(values)

    def gram(self, values: FloatArray) -> FloatArray:
        """Sum of K_ij v_i v_j' over pairs of levels, (k, k), for values (k, J)."""
        out: FloatArray = values @ self.along(values[:, :, None])[:, :, 0].T
        return out


@dataclass(frozen=True)
class ModelBlock:
    """Some rows of a model: `XY` (n, p + 1), and for each factor codes (n,) and columns (n, k)."""

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

    def levels(self, place: slice) -> tuple[IntArray, IntArray]:
        """Levels of s and t of some of the pairs."""
        return self.rows[place], self.columns[place]


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

    def levels(self, place: slice) -> tuple[IntArray, IntArray]:
        """Levels of s and t of some of the pairs."""
        first = np.searchsorted(self.pointer, place.start, side="right") - 1
        last = np.searchsorted(self.pointer, place.stop)
        counts = np.diff(np.clip(self.pointer[first : last + 1], place.start, place.stop))
        return np.repeat(np.arange(first, first + counts.size), counts), self.indices[place].astype(np.intp)

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

    def merge(self, other: CrossProducts) -> CrossProducts:
        """The cross-products of the rows of both: in any order and grouping the same up to rounding.

        Parameters
        ----------
        other : CrossProducts
            Of other rows of the same model, in the same columns.
        """
        edges: dict[tuple[int, int], Edges | SortedEdges] = {}
        for (s, t), own in self.edges.items():
            shape = (self.diagonal[s].shape[2], self.diagonal[t].shape[2])
            edges[s, t] = _merge_edges([own, other.edges[s, t]], shape)
        return CrossProducts(
            tuple(a + b for a, b in zip(self.diagonal, other.diagonal, strict=True)),
            edges,
            tuple(a + b for a, b in zip(self.border, other.border, strict=True)),
            self.corner + other.corner,
            self.n_obs + other.n_obs,
            self.sum_log_weights + other.sum_log_weights,
        )

    def in_columns(
        self, XY: FloatArray, Z: Sequence[FloatArray], scale: float = 1.0, log_scale: float = 0.0
    ) -> CrossProducts:
        """The cross-products of [X y] XY and of Z_f Z[f], with weights multiplied by `scale`.

        Parameters
        ----------
        XY : ndarray, shape (p + 1, p' + 1)
        Z : sequence of ndarray, each (k, k)
            One for each factor.
        scale : float
        log_scale : float
            What is added to the sum of the log weights.
        """
        edges = {
            (s, t): replace(own, values=scale * np.einsum("ac,abe,bd->cde", Z[s], own.values, Z[t], optimize=True))
            for (s, t), own in self.edges.items()
        }
        return CrossProducts(
            tuple(_moved(S, D, S, scale) for S, D in zip(Z, self.diagonal, strict=True)),
            edges,
            tuple(
                scale * np.tensordot(S.T, B, axes=1).reshape(B.shape) @ XY for S, B in zip(Z, self.border, strict=True)
            ),
            scale * (XY.T @ self.corner @ XY),
            self.n_obs,
            self.sum_log_weights + log_scale,
        )


def _moved(S: FloatArray, D: FloatArray, T: FloatArray, scale: float) -> FloatArray:
    out: FloatArray = scale * np.einsum("ac,abj,bd->cdj", S, D, T, optimize=True)
    return out


def accumulate(blocks: Iterable[ModelBlock], factors: tuple[Factor, ...]) -> CrossProducts:
    """Sum the cross-products of all blocks of rows.

    Parameters
    ----------
    blocks : iterable of ModelBlock
    factors : tuple of Factor
    """
    sums: Sums | None = None
    for block in blocks:
        if sums is None:
            sums = Sums(factors, block.XY.shape[1])
        sums.add(block)
    if sums is None:
        raise ValueError("there are no rows")
    return sums.result()


class Sums:
    """Cross-products of the blocks of rows so far.

    Parameters
    ----------
    factors : tuple of Factor
    width : int
        p + 1.

    Attributes
    ----------
    n_obs : int
    sum_log_weights : float
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

    def add(self, block: ModelBlock, counted: bool = False) -> None:
        """Add the products of some rows.

        Parameters
        ----------
        block : ModelBlock
        counted : bool
            Weights say how many rows each of them stands for.
        """
        w = block.weights
        weighted_XY = block.XY if w is None else block.XY * w[:, None]
        weighted_Z = [Z if w is None else Z * w[:, None] for Z in block.Z]
        for f in range(len(self.factors)):
            codes, Z = block.codes[f], block.Z[f]
            if _shares(self.border[f], codes.size):
                _add_shared(self.diagonal[f], self.border[f], codes, Z, block.XY, w)
                continue
            _add_diagonal(self.diagonal[f], codes, Z, weighted_Z[f])
            _add_border(self.border[f], codes, Z, weighted_XY)
        for (s, t), parts in self.edges.items():
            parts.append(_edges(block, weighted_Z, s, t, self.factors))
            self._shorten(s, t)
        self.corner += block.XY.T @ weighted_XY
        self.n_obs += int(w.sum()) if counted and w is not None else block.XY.shape[0]
        self.sum_log_weights += 0.0 if w is None or counted else float(np.log(w).sum())

    def _shorten(self, s: int, t: int) -> None:
        """Merge the parts of the edges of a pair where the later ones are as long as the first, which is merged."""
        parts = self.edges[s, t]
        if len(parts) > _PARTS and sum(part.values.shape[2] for part in parts[1:]) > parts[0].values.shape[2]:
            parts.append(_merge_edges(parts, (self.factors[s].n_levels, self.factors[t].n_levels)))

    def _no_edges(self, s: int, t: int) -> Edges:
        """Of no rows at all."""
        none = np.zeros(0, dtype=np.intp)
        return Edges(none, none, np.zeros((self.factors[s].n_columns, self.factors[t].n_columns, 0)))

    def result(self) -> CrossProducts:
        """The sums."""
        edges: dict[tuple[int, int], Edges | SortedEdges] = {}
        for pair, parts in self.edges.items():
            shape = (self.factors[pair[0]].n_levels, self.factors[pair[1]].n_levels)
            if len(parts) > 1:
                parts.append(_merge_edges(parts, shape))
            edges[pair] = parts[0] if parts else self._no_edges(*pair)
        return CrossProducts(self.diagonal, edges, self.border, self.corner, self.n_obs, self.sum_log_weights)


def _shares(border: FloatArray, n: int) -> bool:
    """Whether products are summed one by one, each of them once: (x | g) beside x has five, not nine."""
    k, n_levels, c = border.shape
    return n >= _FEW and ((k > 1 and k * c <= _NARROW) or n_levels > _ROWS)


def _add_shared(
    diagonal: FloatArray, border: FloatArray, codes: IntArray, Z: FloatArray, XY: FloatArray, w: FloatArray | None
) -> None:
    sums = _GroupedSums(codes, diagonal.shape[2], w)
    own = [sums.number(column) for column in Z.T]
    others = [sums.number(column) for column in XY.T]
    for a, first in enumerate(own):
        for b, second in enumerate(own):
            diagonal[a, b] += sums.product(first, second)
        for j, second in enumerate(others):
            border[a, :, j] += sums.product(first, second)


class _GroupedSums:
    """Sums of products of columns over the rows of each level; equal columns are one.

    Parameters
    ----------
    codes : ndarray of int, shape (n,)
    n_levels : int
    weights : ndarray, shape (n,), or None
    """

    def __init__(self, codes: IntArray, n_levels: int, weights: FloatArray | None) -> None:
        self.codes = codes
        self.n_levels = n_levels
        # Number 0 is the constant 1, weighted as all others.
        self.columns: list[FloatArray | None] = [None]
        self.weights = weights
        self.found: dict[tuple[int, int], FloatArray] = {}

    def number(self, column: FloatArray) -> int:
        """The place of a column among the distinct ones."""
        if column[0] == 1.0 and (column == 1.0).all():
            return 0
        for place, known in enumerate(self.columns):
            if known is not None and known[0] == column[0] and np.array_equal(known, column):
                return place
        self.columns.append(np.ascontiguousarray(column))
        return len(self.columns) - 1

    def product(self, first: int, second: int) -> FloatArray:
        """Sum of the products of two columns, shape (J,)."""
        pair = min(first, second), max(first, second)
        if pair not in self.found:
            values: FloatArray | None = None
            for part in (self.columns[pair[0]], self.columns[pair[1]], self.weights):
                values = part if values is None else values if part is None else values * part
            sums = np.bincount(self.codes, weights=values, minlength=self.n_levels)
            self.found[pair] = sums.astype(np.float64, copy=False)
        return self.found[pair]


def _add_diagonal(out: FloatArray, codes: IntArray, Z: FloatArray, WZ: FloatArray) -> None:
    k, _, n_levels = out.shape
    if k > n_levels and k > _MANY:
        order = np.argsort(codes, kind="stable")
        ends = np.cumsum(np.bincount(codes, minlength=n_levels))
        for j, rows in enumerate(np.split(order, ends[:-1])):
            out[:, :, j] += Z[rows].T @ WZ[rows]
        return
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
    block: ModelBlock, weighted_Z: list[FloatArray], s: int, t: int, factors: tuple[Factor, ...]
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
    """The sum of parts, by blocks of rows: little more is in memory than the parts or the sum. `parts` is emptied."""
    pointers = [_pointer(part, shape[0]) for part in parts]
    whole = np.sum(pointers, axis=0)
    cuts = np.unique([0, *np.searchsorted(whole, np.arange(_MERGED, whole[-1], _MERGED)), shape[0]])
    small = np.int32 if max(shape) < 2**31 else np.intp
    # The sum has no more pairs than its parts: pages beyond its end are never touched, and take no memory.
    indices = np.empty(whole[-1], dtype=small)
    values = np.empty((*parts[0].values.shape[:2], whole[-1]))
    ends, counts = [0], []
    for a, b in pairwise(cuts.tolist()):
        places = [slice(int(pointer[a]), int(pointer[b])) for pointer in pointers]
        levels = np.arange(b - a, dtype=small)
        rows = np.concatenate([np.repeat(levels, np.diff(pointer[a : b + 1])) for pointer in pointers])
        columns = np.concatenate([_indices(part)[place] for part, place in zip(parts, places, strict=True)])
        own = np.concatenate([part.values[..., place] for part, place in zip(parts, places, strict=True)], axis=2)
        tables = [list(line) for line in own]
        block = _sorted_edges(rows, columns.astype(small, copy=False), tables, (b - a, shape[1]))
        place = slice(ends[-1], ends[-1] + block.indices.size)
        indices[place], values[..., place] = block.indices, block.values
        counts.append(np.diff(block.pointer))
        ends.append(place.stop)
    parts.clear()
    pointer = np.concatenate([[0], np.cumsum(np.concatenate(counts))])
    return SortedEdges(pointer, indices[: ends[-1]], values[..., : ends[-1]])


def _pointer(edges: Edges | SortedEdges, n_rows: int) -> NDArray[Any]:
    """Where the pairs of each level of s begin."""
    return edges.pointer if isinstance(edges, SortedEdges) else np.searchsorted(edges.rows, np.arange(n_rows + 1))


def _indices(edges: Edges | SortedEdges) -> NDArray[Any]:
    """Levels of t, not copied."""
    return edges.indices if isinstance(edges, SortedEdges) else edges.columns
