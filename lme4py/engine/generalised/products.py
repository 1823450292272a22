"""Cross-products Z'WZ for weights that change: the pattern once, then one sparse product per set of weights.

All distinct elements of the blocks of Z'WZ stand in one vector v = P w. The arrays that the elimination starts from
are gathered from v, and the derivative of any function of them comes back to the weights by the transpose:
df/dw = P' df/dv. For f = log|M| this is h, the diagonal of Z Lambda M^-1 Lambda'Z'.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np

from lme4py.chunks import chunk
from lme4py.covariance.relations.relation import Product
from lme4py.engine.factor.crossproducts import CrossProducts, Edges, Factor
from lme4py.engine.factor.dense_block import BlockValues
from lme4py.engine.factor.forecast import check_levels
from lme4py.engine.factor.sweep import BaseValues, LoneStage, Sweeper, Swept, SweptBorder, SweptStage, base_values
from lme4py.engine.factor.symbolic import Structure, analyse
from lme4py.engine.generalised.stacking import Stack
from lme4py.linalg import small
from lme4py.linalg.types import FloatArray, IntArray, SparseMatrix, sparse

# Numbers in the expanded rows that are held at a time.
_CHUNK = chunk(4_000_000)


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
    block : {"auto", "dense", "sparse"}
        As in `lme4py.engine.factor.symbolic.analyse`.
    places : tuple of tuple of int, optional
        The linear predictor of each column of each grouping factor, 0 .. D-1, where there are several.

    Attributes
    ----------
    has_related : bool
        Whether the levels of a grouping factor are related.
    structure : Structure
    sweeper : Sweeper
    codes : tuple of ndarray of int, each (n,)
        As given.
    stack : Stack
        How the predictors stand in one column.
    rows : csr_array, shape (D n, Q)
        Z; its columns run over factors, then columns of the factor, then levels.
    columns : csr_array, shape (Q, D n)
        Z'.
    blocks : tuple of ndarray, each (n, k)
        Columns of each grouping factor.
    """

    def __init__(
        self,
        codes: tuple[IntArray, ...],
        Z: tuple[FloatArray, ...],
        factors: tuple[Factor, ...],
        block: str = "auto",
        places: tuple[tuple[int, ...], ...] | None = None,
    ) -> None:
        check_levels(factors)
        self.factors = factors
        self.has_related = any(factor.relation is not None for factor in factors)
        self.n = int(codes[0].size)
        self.codes = codes
        self.places = tuple((0,) * z.shape[1] for z in Z) if places is None else places
        self.stack = Stack(self.n, 1 + max(max(own) for own in self.places))
        self._P_parts: list[tuple[IntArray, FloatArray, int]] = []
        self._next = 1  # element 0 of the vector is always zero: a place for what the pattern does not hold
        cross = self._numbered(codes, Z)
        self._codes = codes[0] if _is_indicator(Z) and self.stack.size == 1 else None
        self._P, self._Pt = self._matrix()
        self.structure: Structure = analyse(factors, cross, block)
        self.sweeper = Sweeper(self.structure, factors)
        base = base_values(self.structure, factors, cross)
        self._numbers(base)
        self.rows, self.columns = self._stacked_columns(codes, Z)
        self.splits = np.cumsum([factor.size for factor in factors])[:-1]
        self._border = tuple(np.zeros((factor.size, 0)) for factor in factors)
        self._zero_border = self._make_zero_border()

    # -- preparation ---------------------------------------------------------------------------------------------

    def _numbered(self, codes: tuple[IntArray, ...], Z: tuple[FloatArray, ...]) -> CrossProducts:
        """Cross-products whose values are positions in v."""
        every = range(len(self.factors))
        diagonal = tuple(self._diagonal(codes[s], Z[s], s) for s in every)
        edges = {(s, t): self._edges(codes, Z, s, t) for s in every for t in every[s + 1 :]}
        border = tuple(np.zeros((factor.n_columns, factor.n_levels, 1)) for factor in self.factors)
        return CrossProducts(diagonal, edges, border, np.zeros((0, 0)), self.n, 0.0)

    def _reserve(self, places: IntArray, values: FloatArray, count: int, pair: tuple[int, int]) -> FloatArray:
        """Room for `count` elements, to which row i adds values_i at `places`, times its weight; their numbers."""
        number = self.stack.pairs.index((min(pair), max(pair)))
        self._P_parts.append((places + self._next, values, number))
        numbers = np.arange(self._next, self._next + count, dtype=float)
        self._next += count
        return numbers

    def _diagonal(self, codes: IntArray, Z: FloatArray, factor: int) -> FloatArray:
        k, n_levels, own = Z.shape[1], self.factors[factor].n_levels, self.places[factor]
        out = np.empty((k, k, n_levels))
        for a in range(k):
            for b in range(a + 1):
                numbers = self._reserve(codes, Z[:, a] * Z[:, b], n_levels, (own[a], own[b]))
                out[a, b] = out[b, a] = numbers
        return out

    def _edges(self, codes: tuple[IntArray, ...], Z: tuple[FloatArray, ...], s: int, t: int) -> Edges:
        width = self.factors[t].n_levels
        keys, place = np.unique(codes[s].astype(np.intp) * width + codes[t], return_inverse=True)
        values = np.array(
            [
                [self._reserve(place, x * z, keys.size, (d, e)) for e, z in zip(self.places[t], Z[t].T, strict=True)]
                for d, x in zip(self.places[s], Z[s].T, strict=True)
            ]
        )
        return Edges(keys // width, keys % width, values)

    def _matrix(self) -> tuple[SparseMatrix, SparseMatrix]:
        """P and its transpose as CSR; a random intercept alone needs neither."""
        if self._codes is not None:
            self._P_parts = []
            return None, None
        places = np.concatenate([part[0] for part in self._P_parts])
        values = np.concatenate([part[1] for part in self._P_parts])
        rows = np.concatenate([np.arange(number * self.n, (number + 1) * self.n) for *_, number in self._P_parts])
        self._P_parts = []
        P = sparse.coo_array((values, (places, rows)), shape=(self._next, len(self.stack.pairs) * self.n)).tocsr()
        return P, P.T.tocsr()

    def _stacked_columns(self, codes: tuple[IntArray, ...], Z: tuple[FloatArray, ...]) -> tuple[SparseMatrix, ...]:
        """Z and Z' as CSR, the predictors one below the other."""
        kept = range(self.stack.size)
        parts = [_matrix_of_columns(codes, Z, self.factors, self.places, d) for d in kept]
        rows = parts[0] if len(parts) == 1 else sparse.vstack(parts, format="csr")
        return rows, rows.T.tocsr()

    def _numbers(self, base: BaseValues) -> None:
        """Keep the positions that the arrays of the elimination are gathered from."""
        self._vector = _as_index(base.vector)
        self._coupling = _as_index(base.coupling.data)
        self._coupling_pattern = base.coupling
        stages = self.structure.stages
        first = stages[0] if stages else None
        # Without the list the elimination forms C'EC by dense algebra.
        by_matrices = first is None or self._only_dense(first.coupling.shape[0] * self.structure.dense_size**2)
        self._products_pattern = None if by_matrices or first is None else first.products
        if self._products_pattern is not None and first is not None:
            self._first, self._second = self._coupling[first.first], self._coupling[first.second]
        self._dense_shape = base.block.shape
        self._direct = first is not None and self._only_dense(first.coupling.nnz * self.structure.dense_size)
        places, first_of = np.unique(base.block.places, return_index=True)
        dense = _as_index(base.block.values[first_of])
        used = places[dense > 0]
        self._dense_used, self._dense_from = used, dense[dense > 0]
        rows, columns = self._dense_positions(used)
        lower = rows >= columns
        below = used[lower]
        self._below: Any = DenseElements(below, rows[lower], columns[lower])
        self._below_from = self._dense_from[lower]
        self._diagonal_from = tuple(_as_index(d) for d in base.diagonal)
        own = [] if first is None else [self._diagonal_from[first.factor].ravel()]
        self._derivative_from = np.concatenate([*own, self._vector, self._coupling, self._below_from])

    def _only_dense(self, cost: int) -> bool:
        """Whether matrix products of `cost` operations beat the list of products of the only stage.

        One listed product costs about as much as twenty operations of a matrix product.
        """
        structure = self.structure
        first = structure.stages[0]
        if first.products is None:
            return True
        if len(structure.stages) > 1 or structure.sparse is not None or not structure.dense_size:
            return False
        return bool(cost < 20 * first.products.nnz)

    def _dense_positions(self, used: IntArray) -> tuple[IntArray, IntArray]:
        """Rows and columns of elements of the block that remains after all stages."""
        block = self.structure.sparse
        if block is not None:
            return block.rows[used], block.columns[used]
        size = max(self.structure.dense_size, 1)
        return used // size, used % size

    def _make_zero_border(self) -> SweptBorder:
        """One column of zeros, swept: it is the same at every point."""
        order = [stage.factor for stage in self.structure.stages]
        zeros = [np.zeros((self.factors[f].size, 1)) for f in order]
        dense = np.zeros((self.structure.dense_size, 1)) if self.structure.dense_size else None
        return SweptBorder(zeros, zeros, dense, dense)

    @property
    def blocks(self) -> tuple[FloatArray, ...]:
        """Columns of each grouping factor, (n, k), as views of `rows` where there is one predictor."""
        ends = np.cumsum([factor.n_columns for factor in self.factors]).tolist()
        whole = self.rows.data.reshape(self.n, -1) if self.stack.size == 1 else self._together()
        return tuple(whole[:, end - f.n_columns : end] for end, f in zip(ends, self.factors, strict=True))

    def _together(self) -> FloatArray:
        """All columns side by side, (n, k)."""
        order = np.concatenate(self.places)
        out = np.empty((self.n, order.size))
        start = 0
        for d in range(self.stack.size):
            own = np.flatnonzero(order == d)
            out[:, own] = self.rows.data[start : start + self.n * own.size].reshape(self.n, own.size)
            start += self.n * own.size
        return out

    # -- every set of weights ------------------------------------------------------------------------------------

    def base(self, w: FloatArray) -> BaseValues:
        """Blocks of Z'WZ in the layout of the elimination.

        Parameters
        ----------
        w : ndarray, shape (n,), or (n_pairs n,)
        """
        if self._codes is None:
            v = self._P @ w
        else:
            v = np.empty(self._next)
            v[0] = 0.0
            v[1:] = np.bincount(self._codes, weights=w, minlength=v.size - 1)
        block = BlockValues(self._dense_used, v[self._dense_from], self._dense_shape)
        coupling = _with_data(self._coupling_pattern, v[self._coupling])
        products = None
        if self._products_pattern is not None:
            products = _with_data(self._products_pattern, v[self._first] * v[self._second])
        diagonal = tuple(v[index] for index in self._diagonal_from)
        return BaseValues(
            v[self._vector],
            coupling,
            products,
            block,
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

    def spread(self, b: FloatArray) -> FloatArray:
        """Z b, (D n,)."""
        if self._codes is not None:
            return b[self._codes]
        out: FloatArray = self.rows @ b
        return out

    def gather(self, x: FloatArray) -> FloatArray:
        """Z' x, (Q,)."""
        if self._codes is not None:
            counted: Any = np.bincount(self._codes, weights=x, minlength=self.factors[0].n_levels)
            return np.asarray(counted, dtype=np.float64)
        out: FloatArray = self.columns @ x
        return out

    def project(self, columns: FloatArray) -> list[FloatArray]:
        """Z' columns, (k J, c) for each grouping factor."""
        return self.split(self.columns @ columns)

    def split(self, values: FloatArray) -> list[FloatArray]:
        """Rows of each grouping factor."""
        if not self.splits.size:
            return [values]
        return list(np.split(values, self.splits))

    # -- the distribution of u: independent standard normal, but K (x) I of related levels ----------------------------

    def _along(self, f: int, values: FloatArray, how: Product) -> FloatArray:
        factor = self.factors[f]
        if factor.relation is None:
            return values
        return factor.relation.along(values.reshape(factor.n_columns, factor.n_levels, 1), how).ravel()

    def related(self, values: FloatArray) -> FloatArray:
        """The covariance of u before it is scaled, times values, (Q,)."""
        if not self.has_related:
            return values
        return np.concatenate([self._along(f, own, "times") for f, own in enumerate(self.split(values))])

    def whitened(self, u: FloatArray) -> FloatArray:
        """Independent standard normal numbers that u is made from, (Q,)."""
        if not self.has_related:
            return u
        return np.concatenate([self._along(f, own, "solve_root") for f, own in enumerate(self.split(u))])

    def pulled_back(self, gradient: FloatArray) -> FloatArray:
        """A gradient in the numbers of `whitened` from that in u, (Q,)."""
        if not self.has_related:
            return gradient
        return np.concatenate([self._along(f, own, "root_transposed") for f, own in enumerate(self.split(gradient))])

    def penalty(self, u: FloatArray) -> float:
        """|u|^2 in the metric of its distribution."""
        z = self.whitened(u)
        return float(z @ z)

    def solve(self, swept: Swept, column: FloatArray) -> tuple[FloatArray, FloatArray]:
        """u = H^-1 Lambda'Z' column and b = Lambda u, each (Q,)."""
        border = swept.sweep_border(self.split(self.gather(column)[:, None]))
        return self.spherical(swept, border, np.ones((1, 1)))

    def spherical(self, swept: Swept, border: SweptBorder, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
        """u and b = Lambda u of the combination ``columns @ weights`` (c, 1) of swept columns, each (Q,).

        The effects u of related levels have the covariance K (x) I.

        u comes from M^-1 itself, without the cancellation in T'(I + A Sigma)^-1 where T is singular.
        """
        structure = self.structure
        b: dict[int, FloatArray] = {}
        u: dict[int, FloatArray] = {}
        if swept.dense is not None and border.dense is not None and border.dense_scaled is not None:
            all_b = border.dense_scaled @ weights
            all_g = swept.dense.residual(border.dense @ weights, all_b)
            for f, start in zip(structure.dense, structure.dense_offsets, strict=True):
                rows = slice(start, start + self.factors[f].size)
                b[f] = all_b[rows, 0]
                u[f] = (swept.T[f].T @ all_g[rows].reshape(self.factors[f].n_columns, -1)).ravel()
                u[f] = self._along(f, u[f], "times")
        for position in range(len(swept.stages) - 1, -1, -1):
            stage = swept.stages[position]
            rest = border.before[position] @ weights[:, 0]
            slices = structure.remaining_slices[position]
            if slices:
                rest = rest - stage.coupling @ np.concatenate([b[f] for f in slices])
            f = stage.stage.factor
            k = self.factors[f].n_columns
            if k == 1:
                t = stage.T[0, 0]
                u[f] = stage.inverse[0, 0] * rest * t
                b[f] = u[f] * t
            else:
                own = small.product(stage.inverse, (stage.T.T @ rest.reshape(k, -1))[:, None])[:, 0]
                u[f], b[f] = own.ravel(), (stage.T @ own).ravel()
        order = range(len(self.factors))
        return np.concatenate([u[f] for f in order]), np.concatenate([b[f] for f in order])

    def log_det_derivatives(self, swept: Swept) -> tuple[FloatArray, list[FloatArray], list[FloatArray]]:
        """Derivatives of log|M|.

        Returns
        -------
        h : ndarray, shape (n,), or (n_pairs n,)
            In w: the diagonal of Z Lambda M^-1 Lambda'Z', and twice what couples two predictors in a row.
        sigma : list of ndarray, each (k, k)
            In Sigma of each factor.
        diagonal : list of ndarray, each (k, k, J)
            In the diagonal blocks of Z'WZ: those of Lambda M^-1 Lambda'.
        """
        adjoint = swept.adjoint(self._zero_border, np.zeros((1, 1)), blocks=not self._direct)
        parts = [adjoint.diagonal[stage.factor].ravel() for stage in self.structure.stages[:1]]
        if adjoint.values is not None:
            parts.append(adjoint.values)
        if self._direct:
            parts.append(_direct_coupling(swept.stages[0], adjoint.dense))
        elif adjoint.coupling is not None:
            parts.append(adjoint.coupling)
        if adjoint.dense is not None:
            parts.append(adjoint.dense.at(self._below))
        dv: Any = np.bincount(self._derivative_from, weights=np.concatenate(parts), minlength=self._next)
        h: FloatArray = dv[1:][self._codes] if self._codes is not None else self._Pt @ dv
        return h, adjoint.sigma, adjoint.diagonal


def _direct_coupling(stage: SweptStage | LoneStage, dense: Any) -> FloatArray:
    """Derivative of log|M| in the stored elements of C of the only stage: -2 E C D.

    D is the derivative in the dense block that follows. Rows are expanded a few levels at a time.
    """
    C = stage.coupling
    k = stage.E.shape[0]
    lower = np.tril(dense.inverse, -1)
    D = lower + lower.T
    D.reshape(-1)[:: D.shape[0] + 1] = dense.inverse.diagonal()
    if dense.lam is not None:
        D *= dense.lam
        D *= dense.lam[:, None]
    rows = np.repeat(np.arange(C.shape[0]), np.diff(C.indptr))
    values = np.empty(C.nnz)
    size = max(1, _CHUNK // max(C.shape[1], 1))
    for start in range(0, C.shape[0], size):
        stop = min(start + size, C.shape[0])
        place = slice(int(C.indptr[start]), int(C.indptr[stop]))
        values[place] = (C[start:stop] @ D)[rows[place] - start, C.indices[place]]
    # All columns of the term have the same pattern.
    by_column = values.reshape(k, -1)
    level = rows[: by_column.shape[1]]
    out: FloatArray = np.einsum("abe,be->ae", stage.E[:, :, level], by_column)
    return -2.0 * out.ravel()


def _is_indicator(Z: tuple[FloatArray, ...]) -> bool:
    """One random intercept and nothing else: Z b is a look-up, Z'x a count."""
    return len(Z) == 1 and Z[0].shape[1] == 1 and bool((Z[0] == 1.0).all())


def _with_data(table: SparseMatrix, data: FloatArray) -> SparseMatrix:
    """A sparse matrix of the same pattern, without the checks of its constructor."""
    if not data.size:
        return table
    out = copy(table)
    out.data = data
    return out


def _as_index(numbers: FloatArray) -> IntArray:
    return numbers.astype(np.intp)


def _matrix_of_columns(
    codes: tuple[IntArray, ...],
    Z: tuple[FloatArray, ...],
    factors: tuple[Factor, ...],
    predictors: tuple[tuple[int, ...], ...],
    wanted: int,
) -> SparseMatrix:
    """The rows of Z of one predictor as CSR."""
    n = codes[0].size
    places, values, start = [], [], 0
    for c, z, factor, own in zip(codes, Z, factors, predictors, strict=True):
        for a in range(factor.n_columns):
            if own[a] == wanted:
                places.append(start + c)
                values.append(z[:, a])
            start += factor.n_levels
    width = len(places)
    indices = np.stack(places, axis=1).ravel() if width else np.zeros(0, dtype=np.intp)
    data = np.stack(values, axis=1).ravel() if width else np.zeros(0)
    return sparse.csr_array((data, indices, np.arange(n + 1) * width), shape=(n, start))
