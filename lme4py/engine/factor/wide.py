"""Elimination of a last stage without a list of all its products: sums of sparse and of dense matrix products.

Columns of C that are met by many levels are multiplied as a dense matrix, all others as sparse ones: the few popular
levels of a skewed factor hold most of the products, and a sparse product pays for each of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.linalg.blas as blas

from lme4py.chunks import chunk
from lme4py.linalg.cholesky import mirror
from lme4py.linalg.types import FloatArray, IntArray, SparseMatrix, sparse

# Bytes of the expanded rows, and of the changes, at one time.
_CHUNK = chunk(2**20)
# Seconds for one product of sparse matrices, for one of a sparse and a dense matrix, for one of dense matrices, and
# for one change in a row of the block.
_SPARSE, _MIXED, _DENSE, _WRITE = 3.5e-9, 5e-10, 2.1e-11, 5e-9

Block = tuple[IntArray, IntArray | None, FloatArray]


@dataclass(frozen=True)
class _Part:
    """Some columns of C, sorted by column then row.

    Attributes
    ----------
    columns : ndarray of int
        In increasing order.
    pointer : ndarray of int
        Where each of them begins in `rows` and `places`.
    rows, places : ndarray of int
        Level of each element, and where it stands in the data of C.
    """

    columns: IntArray
    pointer: IntArray
    rows: IntArray
    places: IntArray


class GramPlan:
    """How A'B is formed for matrices on the pattern of the rows of C that belong to one column of its term.

    Parameters
    ----------
    C : csr_array, shape (k J, q)
        All columns of the term have the same pattern.
    n_levels : int
        J.
    """

    def __init__(self, C: SparseMatrix, n_levels: int) -> None:
        self.shape = (n_levels, int(C.shape[1]))
        self.count = int(C.indptr[n_levels])
        self.pointer: IntArray = C.indptr[: n_levels + 1]
        self.indices: IntArray = C.indices[: self.count]
        numbers = np.arange(self.count, dtype=self.indices.dtype)
        by_column = sparse.csr_array((numbers, self.indices, self.pointer), shape=self.shape).tocsc()
        met = np.diff(self.pointer)
        popular = _popular(by_column, met, n_levels)
        self.popular = _part(by_column, np.flatnonzero(popular))
        self.others = _part(by_column, np.flatnonzero(~popular))

    def by_element(self, values: FloatArray) -> FloatArray:
        """The value of its level for each element."""
        return np.repeat(values, np.diff(self.pointer))

    def matrix(self, data: FloatArray) -> SparseMatrix:
        """The matrix with these elements, (J, q)."""
        return sparse.csr_array((data, self.indices, self.pointer), shape=self.shape)

    def blocks(self, left: FloatArray, right: FloatArray, weights: FloatArray | None = None) -> Iterator[Block]:
        """Rows, columns (None for all) and values that add up to A'WB.

        Parameters
        ----------
        left, right : ndarray, shape (count,)
            Elements of A and B.
        weights : ndarray, shape (J,), or None
            Diagonal of W, not negative; where there are weights, B must be A.
        """
        popular, others = self.popular.columns, self.others.columns
        if popular.size:
            total = self._dense(left, right, None if weights is None else np.sqrt(weights))
            step = max(1, _CHUNK // (8 * popular.size))
            for start in range(0, popular.size, step):
                own = slice(start, start + step)
                yield popular[own], popular if others.size else None, total[own]
            del total
        if not others.size:
            return
        B = self.matrix(right)
        step = max(1, _CHUNK // (20 * self.shape[1]))
        for start in range(0, others.size, step):
            stop = min(start + step, others.size)
            block = (self._others(left, start, stop, weights) @ B).toarray()
            rows = others[start:stop]
            yield rows, None, block
            if popular.size:
                if right is not left:
                    block = (self._others(right, start, stop) @ self.matrix(left)).toarray()
                yield popular, rows, block[:, popular].T

    def _others(self, data: FloatArray, start: int, stop: int, weights: FloatArray | None = None) -> SparseMatrix:
        """Some of the columns that are kept sparse, as rows."""
        part = self.others
        own = slice(int(part.pointer[start]), int(part.pointer[stop]))
        pointer = part.pointer[start : stop + 1] - part.pointer[start]
        values = data[part.places[own]]
        if weights is not None:
            values *= weights[part.rows[own]]
        return sparse.csr_array((values, part.rows[own], pointer), shape=(stop - start, self.shape[0]))

    def _dense(self, left: FloatArray, right: FloatArray, root: FloatArray | None = None) -> FloatArray:
        """The product of the columns that are kept dense."""
        part, J = self.popular, self.shape[0]
        size = part.columns.size
        column = np.repeat(np.arange(size, dtype=part.rows.dtype), np.diff(part.pointer))
        total = np.zeros((size, size), order="F")
        # More rows at one time, since every product runs through all of `total`.
        step = max(1, _CHUNK // (4 * size))
        for start in range(0, J, step):
            stop = min(start + step, J)
            own = slice(None) if stop - start == J else (part.rows >= start) & (part.rows < stop)
            rows, columns, places = part.rows[own] - start, column[own], part.places[own]
            A = np.zeros((stop - start, size))
            A[rows, columns] = left[places] if root is None else left[places] * root[start:stop][rows]
            # Added in place: a product of its own would be one more matrix of this size.
            if right is left:
                total = blas.dsyrk(1.0, A.T, beta=1.0, c=total, overwrite_c=1)
                continue
            B = np.zeros_like(A)
            B[rows, columns] = right[places]
            total = blas.dgemm(1.0, B.T, A.T, trans_b=1, beta=1.0, c=total, overwrite_c=1)
        return mirror(total.T) if right is left else total.T


def _popular(by_column: SparseMatrix, met: IntArray, n_levels: int) -> np.ndarray:
    """Columns for which a dense product is forecast to be faster."""
    count = np.diff(by_column.indptr)
    ends = np.concatenate([[0.0], np.cumsum(met[by_column.indices], dtype=float)])
    products = ends[by_column.indptr[1:]] - ends[by_column.indptr[:-1]]
    order = np.argsort(-count, kind="stable")
    rest = products.sum() - np.concatenate([[0.0], np.cumsum(products[order])])
    sizes = np.arange(count.size + 1)
    sparse_seconds = _SPARSE * rest + _WRITE * count.size * (count.size - sizes)
    best = int(np.argmin(sparse_seconds + _DENSE * float(n_levels) * sizes**2))
    out = np.zeros(count.size, dtype=bool)
    out[order[:best]] = True
    return out


def _part(by_column: SparseMatrix, columns: IntArray) -> _Part:
    chosen = by_column[:, columns]
    return _Part(columns, chosen.indptr, chosen.indices, chosen.data)


def combine(plan: GramPlan, C: SparseMatrix, F: FloatArray) -> list[FloatArray]:
    """Elements of R_a = sum over c of diag(F_ac) C_c for each a, on the pattern of the plan.

    Parameters
    ----------
    plan : GramPlan
    C : csr_array, shape (k J, q)
    F : ndarray, shape (k, k, J)
    """
    k = F.shape[0]
    by_column = C.data.reshape(k, -1)
    out = []
    for a in range(k):
        total = plan.by_element(F[a, 0])
        total *= by_column[0]
        for c in range(1, k):
            total += plan.by_element(F[a, c]) * by_column[c]
        out.append(total)
    return out


def subtract_gram(plan: GramPlan, C: SparseMatrix, T: FloatArray, inverse: FloatArray, K: FloatArray) -> None:
    """Subtract C'EC, E = T inverse T', from the lower triangle of K, in place; the upper one is not kept.

    Parameters
    ----------
    plan : GramPlan
    C : csr_array, shape (k J, q)
    T : ndarray, shape (k, k)
    inverse : ndarray, shape (k, k, J)
    K : ndarray, shape (q, q), C order
    """
    k = T.shape[0]
    if k == 1:
        _subtract(K, plan.blocks(C.data, C.data, T[0, 0] ** 2 * inverse[0, 0]))
        return
    factors = T @ np.linalg.cholesky(np.moveaxis(inverse, 2, 0))
    # E_j = F_j F_j', so that C'EC is the sum of the squares of sum_c F_ca C_c.
    for data in combine(plan, C, np.moveaxis(factors, 0, 2).swapaxes(0, 1)):
        _subtract(K, plan.blocks(data, data))


def _subtract(K: FloatArray, blocks: Iterator[Block]) -> None:
    for rows, columns, block in blocks:
        if columns is None:
            K[rows] -= block
        else:
            K[rows[:, None], columns] -= block


def gram_traces(plan: GramPlan, C: SparseMatrix, N: FloatArray, D: FloatArray, lam: FloatArray | None) -> FloatArray:
    """Sum over levels of N_j c_j D c_j' N_j', shape (k, k): c_j are the rows of C of a level.

    Parameters
    ----------
    plan : GramPlan
    C : csr_array, shape (k J, q)
    N : ndarray, shape (k, k, J)
    D : ndarray, shape (q, q)
        Symmetric.
    lam : ndarray, shape (q,), or None
        D stands for diag(lam) D diag(lam).
    """
    k = N.shape[0]
    if k == 1:
        return np.array([[_trace(D, lam, plan.blocks(C.data, C.data, N[0, 0] ** 2))]])
    parts = combine(plan, C, N)
    if lam is not None:
        for data in parts:
            data *= lam[plan.indices]
    out = np.empty((k, k))
    for a in range(k):
        for b in range(a + 1):
            out[a, b] = out[b, a] = _trace(D, None, plan.blocks(parts[a], parts[b]))
    return out


def _trace(D: FloatArray, lam: FloatArray | None, blocks: Iterator[Block]) -> float:
    """Sum of the products of the elements of diag(lam) D diag(lam) and of the blocks."""
    total = 0.0
    for rows, columns, block in blocks:
        own = D[rows] if columns is None else D[rows[:, None], columns]
        if lam is None:
            total += float(np.einsum("ij,ij->", own, block))
            continue
        own *= block
        total += float(lam[rows] @ (own @ (lam if columns is None else lam[columns])))
    return total


def gram_adjoint(C: SparseMatrix, J: int, k: int, D: FloatArray, lam: FloatArray | None) -> FloatArray:
    """Diagonal blocks of C diag(lam) D diag(lam) C', shape (k, k, J).

    Parameters
    ----------
    C : csr_array, shape (k J, q)
    D : ndarray, shape (q, q)
        Symmetric.
    lam : ndarray, shape (q,), or None
    """
    out = np.empty((k, k, J))
    by_products = C.nnz * _MIXED < C.shape[0] * C.shape[1] * 2 * _DENSE
    step = max(1, _CHUNK // (8 * k * C.shape[1]))
    for start in range(0, J, step):
        place = slice(start, min(start + step, J))
        tables = [C[a * J + place.start : a * J + place.stop] for a in range(k)]
        rows = [table.toarray() for table in tables]
        if lam is not None:
            for block in rows:
                block *= lam
        for a in range(k):
            if by_products:
                moved = (tables[a] if lam is None else tables[a].multiply(lam).tocsr()) @ D
            else:
                moved = blas.dsymm(1.0, D.T, rows[a].T, lower=0).T
            for b in range(k):
                out[a, b, place] = np.einsum("jc,jc->j", moved, rows[b])
    return out
