"""Products with the matrix that is left of crossed effects when the largest grouping factor has been eliminated.

With E the inverse of the first block and Lambda the relative covariance factor of the others,

    S = I + Lambda' K Lambda,      K = A_22 - A_21 E A_12.

S is never made. Its blocks of one level each are, and precondition it. Products are made by blocks of rows, each by
itself, so that the number of threads changes no digit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lme4py.chunks import chunk, from_size
from lme4py.engine.factor.crossproducts import CrossProducts, Edges, Factor, SortedEdges
from lme4py.linalg import small
from lme4py.linalg.types import FloatArray, IntArray, SparseMatrix, sparse

__all__ = ["CrossedAt", "CrossedTables"]

Run = Callable[[Callable[[int], FloatArray], range], list[FloatArray]]
Times = Callable[..., FloatArray]

# Products of fewer numbers than this are made by one thread.
_SHARED = from_size(500_000)
# Numbers of a table that are multiplied by others at one time.
_PART = chunk(2**22, 201)


class _Table:
    """Blocks of Z_s'W Z_t that are not zero, (k_s, k_t) for each pair of levels that meet, and products with them.

    Products with the transposed table are sums over blocks of rows: of large data a second table, sorted by its
    columns, would be as large as the first.

    Parameters
    ----------
    pointer, indices : ndarray of int
        Of the rows.
    values : ndarray, shape (k_s, k_t, E)
    shape : tuple of int
        Numbers of levels.
    parts : int
        Blocks of rows.
    run : callable
        Calls a function for each block of rows.
    """

    def __init__(
        self,
        pointer: IntArray,
        indices: NDArray[np.int32],
        values: FloatArray,
        shape: tuple[int, int],
        parts: int,
        run: Run,
    ) -> None:
        self.values, self.indices, self.shape, self.run = values, indices, shape, run
        inner = np.searchsorted(pointer, np.linspace(0, pointer[-1], parts + 1)[1:-1])
        cuts = np.unique([0, *inner, shape[0]]).tolist()
        self.rows = [slice(cuts[i], cuts[i + 1]) for i in range(len(cuts) - 1)]
        self.pointers = [pointer[rows.start : rows.stop + 1] - pointer[rows.start] for rows in self.rows]
        self.places = [slice(int(pointer[rows.start]), int(pointer[rows.stop])) for rows in self.rows]

    def _matrix(self, part: int, data: Sequence[FloatArray]) -> SparseMatrix:
        """Some rows, with products of values of the pattern."""
        rows, place = self.rows[part], self.places[part]
        shape = (rows.stop - rows.start, self.shape[1])
        values = data[0][place] if len(data) == 1 else data[0][place] * data[1][place]
        return sparse.csr_array((values, self.indices[place], self.pointers[part]), shape=shape)

    def levels(self) -> tuple[IntArray, NDArray[Any]]:
        """Row and column of every block."""
        counts = np.concatenate([np.diff(pointer) for pointer in self.pointers])
        return np.repeat(np.arange(self.shape[0]), counts), self.indices

    def with_values(self, values: FloatArray) -> _Table:
        """Other values of the same pattern."""
        other = copy(self)
        other.values = values
        return other

    def times(self, x: FloatArray, *data: FloatArray) -> FloatArray:
        """(rows, c) from (columns, c)."""
        out = np.empty((self.shape[0], x.shape[1]))

        def fill(part: int) -> FloatArray:
            out[self.rows[part]] = self._matrix(part, data) @ x
            return out

        self.run(fill, range(len(self.rows)))
        return out

    def transposed_times(self, x: FloatArray, *data: FloatArray) -> FloatArray:
        """(columns, c) from (rows, c)."""

        def product(part: int) -> FloatArray:
            found: FloatArray = self._matrix(part, data).T @ x[self.rows[part]]
            return found

        found = self.run(product, range(len(self.rows)))
        # In the order of the blocks, whichever thread was first.
        total = found[0]
        for own in found[1:]:
            total += own
        return total


class CrossedTables:
    """The cross-products of a model with crossed factors, ready for products.

    Parameters
    ----------
    factors : tuple of Factor
    cross : CrossProducts
    threads : int

    Attributes
    ----------
    first : int
        The largest factor, which is eliminated.
    rest : list of int
        The others, in the order of the rows of S.
    slices : dict of slice
        Rows of S by factor: columns of the term, then levels.
    size : int
        Rows of S.
    """

    def __init__(self, factors: tuple[Factor, ...], cross: CrossProducts, threads: int = 1) -> None:
        self.factors, self.cross = factors, cross
        self.first = int(np.argmax([factor.size for factor in factors]))
        self.rest = [f for f in range(len(factors)) if f != self.first]
        ends = np.cumsum([0, *(factors[f].size for f in self.rest)])
        self.slices = {f: slice(int(ends[i]), int(ends[i + 1])) for i, f in enumerate(self.rest)}
        self.size = int(ends[-1])
        self.threads = threads
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None
        self.tables: dict[tuple[int, int], _Table] = {}
        for (s, t), edges in cross.edges.items():
            self._add(s, t, edges)

    def with_values(
        self, diagonal: tuple[FloatArray, ...], edges: Mapping[tuple[int, int], FloatArray]
    ) -> CrossedTables:
        """Other values of the same pattern.

        Parameters
        ----------
        diagonal : tuple of ndarray, each (k, k, J)
        edges : mapping of (int, int) to ndarray, each (k_s, k_t, E)
        """
        other = copy(self)
        other.cross = replace(self.cross, diagonal=diagonal)
        other.tables = {pair: table.with_values(edges[pair]) for pair, table in self.tables.items()}
        return other

    @staticmethod
    def oriented(edges: Mapping[tuple[int, int], FloatArray], s: int, t: int) -> FloatArray:
        """Values of the pattern as blocks of Z_s'W Z_t, (k_s, k_t, E)."""
        return edges[s, t] if (s, t) in edges else edges[t, s].transpose(1, 0, 2)

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown()
        self._pool = None

    def _run(self, call: Callable[[int], FloatArray], parts: range) -> list[FloatArray]:
        if self._pool is None or len(parts) == 1:
            return [call(part) for part in parts]
        return list(self._pool.map(call, parts))

    def _add(self, s: int, t: int, edges: Edges | SortedEdges) -> None:
        shape = (self.factors[s].n_levels, self.factors[t].n_levels)
        parts = max(2, -(-edges.values.size // _PART)) if edges.values.size > _SHARED else 1
        if isinstance(edges, SortedEdges):
            pointer, indices = edges.pointer, edges.indices
        else:
            pointer, indices = np.searchsorted(edges.rows, np.arange(shape[0] + 1)), edges.columns
        narrow = indices.astype(np.int32, copy=False)
        self.tables[s, t] = _Table(pointer.astype(np.int64), narrow, edges.values, shape, parts, self._run)

    def by_factor(self, first: FloatArray, rest: FloatArray) -> list[FloatArray]:
        """Rows of the first factor and of S, in the order of the factors."""
        return [first if f == self.first else rest[self.slices[f]] for f in range(len(self.factors))]

    def split(self, x: FloatArray) -> list[FloatArray]:
        """Rows of each factor, in their order."""
        return list(np.split(x, np.cumsum([factor.size for factor in self.factors])[:-1]))

    def off(self, s: int, t: int, x: FloatArray, values: FloatArray | None = None) -> FloatArray:
        """Z_s'W Z_t x for rows (k_t J_t, c), or with other values of the pattern; zeros where no levels meet."""
        k, m = self.factors[s].n_columns, self.factors[t].n_columns
        times, own = self._product(s, t)
        if times is None:
            return np.zeros((self.factors[s].size, x.shape[1]))
        V = own if values is None else values
        rows = x.reshape(m, self.factors[t].n_levels, -1)
        out = []
        for a in range(k):
            total = times(rows[0], V[a, 0])
            for b in range(1, m):
                total += times(rows[b], V[a, b])
            out.append(total)
        return out[0] if k == 1 else np.concatenate(out)

    def _product(self, s: int, t: int) -> tuple[Times | None, FloatArray]:
        """Products with Z_s'W Z_t for values of its pattern, and its own values, (k_s, k_t, E)."""
        table = self.tables.get((s, t))
        if table is not None:
            return table.times, table.values
        table = self.tables.get((t, s))
        return (None, np.empty(0)) if table is None else (table.transposed_times, table.values.transpose(1, 0, 2))

    def blocks_of(self, s: int, t: int) -> tuple[NDArray[Any], NDArray[Any], FloatArray]:
        """Levels of both factors that meet, and the blocks of Z_s'W Z_t, (k_s, k_t, E)."""
        table = self.tables.get((s, t))
        if table is not None:
            return (*table.levels(), table.values)
        table = self.tables.get((t, s))
        if table is None:
            nothing = np.zeros(0, dtype=np.intp)
            return nothing, nothing, np.zeros((self.factors[s].n_columns, self.factors[t].n_columns, 0))
        columns, rows = table.levels()
        return rows, columns, table.values.transpose(1, 0, 2)

    def counts(self, s: int, t: int) -> FloatArray:
        """How many levels of the second factor each level of the first meets, (J_s,)."""
        return np.bincount(self.blocks_of(s, t)[0], minlength=self.factors[s].n_levels).astype(np.float64)

    def into_first(self, x: FloatArray) -> FloatArray:
        """A_12 x for the rows of S."""
        return sum(self.off(self.first, t, x[self.slices[t]]) for t in self.rest)  # type: ignore[return-value]

    def from_first(self, x: FloatArray) -> FloatArray:
        """A_21 x for rows of the first factor."""
        return np.concatenate([self.off(t, self.first, x) for t in self.rest])

    def among_rest(self, x: FloatArray) -> FloatArray:
        """A_22 x."""
        out = []
        for t in self.rest:
            factor = self.factors[t]
            own = x[self.slices[t]].reshape(factor.n_columns, factor.n_levels, -1)
            total = small.apply(self.cross.diagonal[t], own).reshape(factor.size, -1)
            for other in self.rest:
                if other != t:
                    total += self.off(t, other, x[self.slices[other]])
            out.append(total)
        return np.concatenate(out)

    def blocks(self, s: int, t: int, inner: FloatArray, other: FloatArray | None = None) -> FloatArray:
        """Sum over levels l of V_jl N_l U_jl' for each level j of s, (k_s, k_s, J_s), V the blocks of Z_s'W Z_t.

        Parameters
        ----------
        s, t : int
        inner : ndarray, shape (k_t, k_t, J_t)
            N.
        other : ndarray, shape (k_s, k_t, E), optional
            U; V when not given.
        """
        k, m = self.factors[s].n_columns, self.factors[t].n_columns
        out = np.zeros((k, k, self.factors[s].n_levels))
        times, V = self._product(s, t)
        if times is None:
            return out
        U = V if other is None else other
        for a in range(k):
            for b in range(a + 1 if other is None else k):
                for c, d in np.ndindex(m, m):
                    out[a, b] += times(inner[c, d][:, None], V[a, c], U[b, d])[:, 0]
                if other is None:
                    out[b, a] = out[a, b]
        return out


@dataclass(frozen=True)
class CrossedAt:
    """The matrices at one T.

    Attributes
    ----------
    tables : CrossedTables
    T : list of ndarray
        By factor.
    log_det : float
        log of the determinants of the first block and of the preconditioner.
    E : ndarray, shape (k, k, J)
        Of the first factor.
    residual_map : ndarray, shape (k, k, J)
        (I + A Sigma)^-1 of the first factor.
    roots, inverses : dict of ndarray, each (k, k, J)
        L with L L' the blocks of S of one level each, and the inverses of these blocks, by factor.
    """

    tables: CrossedTables
    T: list[FloatArray]
    log_det: float
    E: FloatArray
    residual_map: FloatArray
    roots: dict[int, FloatArray]
    inverses: dict[int, FloatArray]

    @classmethod
    def of(cls, tables: CrossedTables, T: Sequence[FloatArray]) -> CrossedAt:
        """Eliminate the first factor, and make the preconditioner."""
        first = tables.first
        A = tables.cross.diagonal[first]
        k = A.shape[0]
        M = small.congruence(T[first], A)
        M[np.arange(k), np.arange(k)] += 1.0
        log_det, inverse = small.spd_inverse(M)
        E = small.right(small.left(T[first], inverse), T[first].T)
        residual_map = inverse if k == 1 else np.eye(k)[:, :, None] - small.product(A, E)
        roots: dict[int, FloatArray] = {}
        inverses: dict[int, FloatArray] = {}
        for t in tables.rest:
            K = tables.cross.diagonal[t] - tables.blocks(t, first, E)
            P = small.congruence(T[t], small.symmetrize(K))
            m = P.shape[0]
            P[np.arange(m), np.arange(m)] += 1.0
            own, inverses[t] = small.spd_inverse(P)
            log_det += own
            root = np.sqrt(P) if m == 1 else np.linalg.cholesky(P.transpose(2, 0, 1)).transpose(1, 2, 0)
            roots[t] = np.asarray(root, dtype=np.float64)
        return cls(tables, list(T), log_det, E, residual_map, roots, inverses)

    def _by_factor(self, x: FloatArray, change: Callable[[int, FloatArray], FloatArray]) -> FloatArray:
        """Each factor's rows changed by themselves; rows as (k, J, c)."""
        out = []
        for t in self.tables.rest:
            factor = self.tables.factors[t]
            own = x[self.tables.slices[t]].reshape(factor.n_columns, factor.n_levels, -1)
            out.append(change(t, own).reshape(factor.size, -1))
        return out[0] if len(out) == 1 else np.concatenate(out)

    def to_effects(self, x: FloatArray) -> FloatArray:
        """Lambda x."""
        return self._by_factor(x, lambda t, own: _mixed(self.T[t], own))

    def to_spherical(self, x: FloatArray) -> FloatArray:
        """Lambda' x."""
        return self._by_factor(x, lambda t, own: _mixed(self.T[t].T, own))

    def precondition(self, x: FloatArray) -> FloatArray:
        """The inverse of the blocks of one level each, times x."""
        return self._by_factor(x, lambda t, own: small.apply(self.inverses[t], own))

    def rooted(self, z: FloatArray) -> tuple[FloatArray, FloatArray]:
        """L z and L'^-1 z, L L' the preconditioner."""
        left = self._by_factor(z, lambda t, own: small.apply(self.roots[t], own))
        return left, self.precondition(left)

    def whitened(self, z: FloatArray) -> FloatArray:
        """L^-1 S L'^-1 z: the preconditioned matrix, with a diagonal of ones."""
        moved = self.precondition(self.apply(self.rooted(z)[1]))
        return self._by_factor(moved, lambda t, own: small.apply(small.transpose(self.roots[t]), own))

    def eliminate(self, x: FloatArray) -> FloatArray:
        """E x for rows of the first factor."""
        k, J = self.E.shape[0], self.E.shape[2]
        return small.apply(self.E, x.reshape(k, J, -1)).reshape(k * J, -1)

    def swept(self, x: FloatArray) -> FloatArray:
        """(I + A Sigma)^-1 x for rows of the first factor."""
        k, J = self.E.shape[0], self.E.shape[2]
        return small.apply(self.residual_map, x.reshape(k, J, -1)).reshape(k * J, -1)

    def reduced(self, b: FloatArray) -> FloatArray:
        """K b for rows of all other factors."""
        return self.tables.among_rest(b) - self.tables.from_first(self.eliminate(self.tables.into_first(b)))

    def apply(self, x: FloatArray) -> FloatArray:
        """S x."""
        return x + self.to_spherical(self.reduced(self.to_effects(x)))

    def diagonal_inverse(self, t: int) -> FloatArray:
        """Lambda P^-1 Lambda' of a factor, P the preconditioner, (k, k, J)."""
        return small.right(small.left(self.T[t], self.inverses[t]), self.T[t].T)


def _mixed(T: FloatArray, rows: FloatArray) -> FloatArray:
    """T times rows (k, J, c) of each level."""
    return rows * T[0, 0] if T.shape[0] == 1 else np.tensordot(T, rows, axes=1)
