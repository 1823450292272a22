"""Cross-products Z'WZ for weights that change: the pattern once, then one sparse product per set of weights.

All distinct elements of the blocks of Z'WZ stand in one vector v = P w. The arrays that the elimination starts from
are gathered from v, and the derivative of any function of them comes back to the weights by the transpose:
df/dw = P' df/dv. For f = log|M| this is h, the diagonal of Z Lambda M^-1 Lambda'Z'.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lme4py.engine.crossproducts import CrossProducts, Edges, Factor
from lme4py.engine.structure import Structure, analyse
from lme4py.engine.sweep import BaseValues, Sweeper, Swept, SweptBorder, base_values
from lme4py.engine.types import FloatArray, IntArray, SparseMatrix, sparse


@dataclass(frozen=True)
class DenseElements:
    """Elements of the dense block on and below its diagonal: flat positions, rows and columns."""

    dense_targets: IntArray
    dense_rows: IntArray
    dense_columns: IntArray


class WeightedProducts:
    """Prepared products of the random-effects columns.

    Parameters
    ----------
    codes : tuple of ndarray of int, each (n,)
        Level of each row, one per grouping factor.
    Z : tuple of ndarray, each (n, k)
        Columns of each grouping factor.
    factors : tuple of Factor

    Attributes
    ----------
    structure : Structure
    sweeper : Sweeper
    rows : csr_array, shape (n, Q)
        Z; its columns run over factors, then columns of the factor, then levels.
    columns : csr_array, shape (Q, n)
        Z'.
    """

    def __init__(self, codes: tuple[IntArray, ...], Z: tuple[FloatArray, ...], factors: tuple[Factor, ...]) -> None:
        self.factors = factors
        self.n = int(codes[0].size)
        self._P_parts: list[tuple[IntArray, FloatArray]] = []
        self._next = 1  # element 0 of the vector is always zero: a place for what the pattern does not hold
        cross = self._numbered(codes, Z)
        self._P, self._Pt = self._matrix()
        self.structure: Structure = analyse(factors, cross)
        self.sweeper = Sweeper(self.structure, factors)
        base = base_values(self.structure, factors, cross)
        self._numbers(base)
        self.rows, self.columns = _matrix_of_columns(codes, Z, factors)
        self.splits = np.cumsum([factor.size for factor in factors])[:-1]
        self._border = tuple(np.zeros((factor.size, 0)) for factor in factors)

    # -- preparation ---------------------------------------------------------------------------------------------

    def _numbered(self, codes: tuple[IntArray, ...], Z: tuple[FloatArray, ...]) -> CrossProducts:
        """Cross-products whose values are positions in v."""
        diagonal = tuple(
            self._diagonal(c, z, factor.n_levels) for c, z, factor in zip(codes, Z, self.factors, strict=True)
        )
        edges = {
            (s, t): self._edges(codes[s], codes[t], Z[s], Z[t], self.factors[t].n_levels)
            for s in range(len(self.factors))
            for t in range(s + 1, len(self.factors))
        }
        border = tuple(np.zeros((factor.n_columns, factor.n_levels, 1)) for factor in self.factors)
        return CrossProducts(diagonal, edges, border, np.zeros((0, 0)), self.n, 0.0)

    def _reserve(self, places: IntArray, values: FloatArray, count: int) -> FloatArray:
        """Room for `count` elements, to which row i adds w_i values_i at `places`; their numbers."""
        self._P_parts.append((places + self._next, values))
        numbers = np.arange(self._next, self._next + count, dtype=float)
        self._next += count
        return numbers

    def _diagonal(self, codes: IntArray, Z: FloatArray, n_levels: int) -> FloatArray:
        k = Z.shape[1]
        out = np.empty((k, k, n_levels))
        for a in range(k):
            for b in range(a + 1):
                out[a, b] = out[b, a] = self._reserve(codes, Z[:, a] * Z[:, b], n_levels)
        return out

    def _edges(self, rows: IntArray, columns: IntArray, Zs: FloatArray, Zt: FloatArray, width: int) -> Edges:
        keys, place = np.unique(rows * width + columns, return_inverse=True)
        values = np.array(
            [
                [self._reserve(place, Zs[:, a] * Zt[:, b], keys.size) for b in range(Zt.shape[1])]
                for a in range(Zs.shape[1])
            ]
        )
        return Edges(keys // width, keys % width, values)

    def _matrix(self) -> tuple[SparseMatrix, SparseMatrix]:
        """P and its transpose as CSR."""
        places = np.concatenate([part[0] for part in self._P_parts])
        values = np.concatenate([part[1] for part in self._P_parts])
        rows = np.tile(np.arange(self.n), len(self._P_parts))
        self._P_parts = []
        P = sparse.coo_array((values, (places, rows)), shape=(self._next, self.n)).tocsr()
        return P, P.T.tocsr()

    def _numbers(self, base: BaseValues) -> None:
        """Keep the positions that the arrays of the elimination are gathered from."""
        self._vector = _as_index(base.vector)
        self._coupling = _as_index(base.coupling.data)
        self._coupling_pattern = (base.coupling.indices, base.coupling.indptr, base.coupling.shape)
        first = self.structure.stages[0]
        self._first, self._second = self._coupling[first.first], self._coupling[first.second]
        self._products_pattern = (first.products.indices, first.products.indptr, first.products.shape)
        dense = _as_index(base.dense).reshape(-1)
        size = self.structure.dense_size
        used = np.flatnonzero(dense)
        below = used[used // max(size, 1) >= used % max(size, 1)]
        self._dense_used, self._dense_from = used, dense[used]
        self._below: Any = DenseElements(below, below // max(size, 1), below % max(size, 1))
        self._below_from = dense[below]
        self._diagonal_from = tuple(_as_index(d) for d in base.diagonal)
        f = first.factor
        self._derivative_from = np.concatenate(
            [self._diagonal_from[f].ravel(), self._vector, self._coupling, self._below_from]
        )

    # -- every set of weights ------------------------------------------------------------------------------------

    def base(self, w: FloatArray) -> BaseValues:
        """Blocks of Z'WZ in the layout of the elimination.

        Parameters
        ----------
        w : ndarray, shape (n,)
        """
        v = self._P @ w
        structure = self.structure
        size = structure.dense_size
        dense = np.zeros(size * size)
        dense[self._dense_used] = v[self._dense_from]
        indices, indptr, shape = self._coupling_pattern
        coupling = sparse.csr_array((v[self._coupling], indices, indptr), shape=shape)
        indices, indptr, shape = self._products_pattern
        products = sparse.csr_array((v[self._first] * v[self._second], indices, indptr), shape=shape)
        diagonal = tuple(v[index] for index in self._diagonal_from)
        return BaseValues(
            v[self._vector],
            coupling,
            products,
            dense.reshape(size, size),
            diagonal,
            self._border,
            np.zeros((0, 0)),
        )

    def factorize(self, T: list[FloatArray], w: FloatArray) -> Swept:
        """Factor of I + Lambda'Z'WZ Lambda; LinAlgError when it is not positive definite."""
        with np.errstate(invalid="ignore", divide="ignore"):
            swept = self.sweeper.factorize(T, self.base(w))
        if not np.isfinite(swept.log_det):
            raise np.linalg.LinAlgError("the factor is not positive definite")
        return swept

    def project(self, columns: FloatArray) -> list[FloatArray]:
        """Z' columns, (k J, c) for each grouping factor."""
        return self.split(self.columns @ columns)

    def split(self, values: FloatArray) -> list[FloatArray]:
        """Rows of each grouping factor."""
        if not self.splits.size:
            return [values]
        return list(np.split(values, self.splits))

    def solve(self, swept: Swept, columns: FloatArray) -> tuple[SweptBorder, FloatArray, FloatArray]:
        """Lambda M^-1 Lambda'Z' columns and Z'V^-1 (columns / w), stacked over factors, (Q, c)."""
        border = swept.sweep_border(self.project(columns))
        b, g = swept.back_substitute(border, np.eye(columns.shape[1]))
        return border, np.concatenate(b), np.concatenate(g)

    def log_det_derivatives(self, swept: Swept) -> tuple[FloatArray, list[FloatArray], list[FloatArray]]:
        """h (n,) = d log|M| / dw, the derivative in Sigma of each factor, and the diagonal blocks of Lambda M^-1 Lambda'."""
        zero = swept.sweep_border([np.zeros((factor.size, 1)) for factor in self.factors])
        adjoint = swept.adjoint(zero, np.zeros((1, 1)), blocks=True)
        f = self.structure.stages[0].factor
        parts = [adjoint.diagonal[f].ravel()]
        if adjoint.values is not None:
            parts.append(adjoint.values)
        if adjoint.coupling is not None:
            parts.append(adjoint.coupling)
        if adjoint.dense is not None:
            parts.append(adjoint.dense.at(self._below))
        dv = np.bincount(self._derivative_from, weights=np.concatenate(parts), minlength=self._P.shape[0])
        return self._Pt @ dv, adjoint.sigma, adjoint.diagonal


def _as_index(numbers: FloatArray) -> IntArray:
    return numbers.astype(np.intp)


def _matrix_of_columns(
    codes: tuple[IntArray, ...], Z: tuple[FloatArray, ...], factors: tuple[Factor, ...]
) -> tuple[SparseMatrix, SparseMatrix]:
    """Z and Z' as CSR."""
    n = codes[0].size
    places, values, start = [], [], 0
    for c, z, factor in zip(codes, Z, factors, strict=True):
        for a in range(factor.n_columns):
            places.append(start + c)
            values.append(z[:, a])
            start += factor.n_levels
    width = len(places)
    indices = np.stack(places, axis=1).ravel()
    data = np.stack(values, axis=1).ravel()
    rows = sparse.csr_array((data, indices, np.arange(0, n * width + 1, width)), shape=(n, start))
    return rows, rows.T.tocsr()
