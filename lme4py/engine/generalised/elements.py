"""Distinct elements of the blocks of Z'WZ in one vector, and what the elimination makes of them.

The arrays that the elimination starts from are gathered from this vector v; derivatives of log|M| come back to it.
Whoever sums v over rows, in memory or as they go by, has the factor M and all that is solved with it.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np

from lme4py.chunks import chunk
from lme4py.covariance.relations.relation import Product
from lme4py.engine.factor.crossproducts import CrossProducts, Factor
from lme4py.engine.factor.dense_block import BlockValues
from lme4py.engine.factor.sweep import BaseValues, LoneStage, Sweeper, Swept, SweptBorder, SweptStage, base_values
from lme4py.engine.factor.symbolic import Structure, analyse
from lme4py.linalg import small
from lme4py.linalg.types import FloatArray, IntArray, SparseMatrix

__all__ = ["Elements"]

# Numbers in the expanded rows that are held at a time.
_CHUNK = chunk(4_000_000)


@dataclass(frozen=True)
class DenseElements:
    """Elements of the dense block on and below its diagonal: flat positions, rows and columns."""

    dense_targets: IntArray
    dense_rows: IntArray
    dense_columns: IntArray


class Elements:
    """What elimination needs to know of the elements of Z'WZ.

    Parameters
    ----------
    factors : tuple of Factor

    Attributes
    ----------
    has_related : bool
        Whether the levels of a grouping factor are related.
    is_alone : bool
        Whether there is one grouping factor, of levels that are not: they have nothing to do with each other.
    structure : Structure
    sweeper : Sweeper
    """

    def __init__(self, factors: tuple[Factor, ...]) -> None:
        self.factors = factors
        self.has_related = any(factor.relation is not None for factor in factors)
        self._next = 1  # element 0 of the vector is always zero: a place for what the pattern does not hold

    def _analysed(self, cross: CrossProducts, block: str) -> None:
        """The symbolic step for cross-products whose values are positions in v."""
        factors = self.factors
        self._numbers(self._symbolic(cross, block))
        staged = len(self.structure.stages) == len(factors) == 1 and not self.structure.dense_size
        self.is_alone = staged and self.structure.sparse is None and not self.has_related
        self.splits = np.cumsum([factor.size for factor in factors])[:-1]
        self._border = tuple(np.zeros((factor.size, 0)) for factor in factors)
        self._zero_border = self._make_zero_border()

    def _symbolic(self, cross: CrossProducts, block: str) -> BaseValues:
        """Choose the order of elimination, and lay the elements out in it."""
        self.structure: Structure = analyse(self.factors, cross, block)
        self.sweeper = Sweeper(self.structure, self.factors)
        return base_values(self.structure, self.factors, cross)

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

    # -- every set of weights ------------------------------------------------------------------------------------

    def base_of(self, v: FloatArray) -> BaseValues:
        """Blocks of Z'WZ in the layout of the elimination.

        Parameters
        ----------
        v : ndarray
            Distinct elements; the first is zero.
        """
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

    def factor_of(self, T: list[FloatArray], base: BaseValues) -> Swept:
        """Factor of I + Lambda'Z'WZ Lambda; LinAlgError when it is not positive definite."""
        with np.errstate(invalid="ignore", divide="ignore"):
            swept = self.sweeper.factorize(T, base)
        if not np.isfinite(swept.log_det):
            raise np.linalg.LinAlgError("the factor is not positive definite")
        return swept

    def solve_gathered(self, swept: Swept, gathered: FloatArray) -> tuple[FloatArray, FloatArray]:
        """u = H^-1 Lambda' gathered and b = Lambda u, each (Q,).

        Parameters
        ----------
        swept : Swept
        gathered : ndarray, shape (Q,)
            Z' column.
        """
        if self.is_alone:
            return _own_effects(swept.stages[0], gathered)
        border = swept.sweep_border(self.split(gathered[:, None]))
        return self.spherical(swept, border, np.ones((1, 1)))

    def element_derivatives(self, swept: Swept) -> tuple[FloatArray, list[FloatArray], list[FloatArray]]:
        """Derivatives of log|M| in v, in Sigma of each factor, and in the diagonal blocks of Z'WZ."""
        if self.is_alone:
            stage = swept.stages[0]
            found: Any = np.bincount(self._derivative_from, weights=stage.E.ravel(), minlength=self._next)
            return found, [_log_det_sigma(stage)], [stage.E]
        coupling: list[FloatArray] = []

        def through(stage: SweptStage | LoneStage, dense: Any) -> FloatArray:
            own, blocks = _through_block(stage, dense)
            coupling.append(own)
            return blocks

        wide = through if self._direct else None
        adjoint = swept.adjoint(self._zero_border, np.zeros((1, 1)), blocks=not self._direct, wide=wide)
        parts = [adjoint.diagonal[stage.factor].ravel() for stage in self.structure.stages[:1]]
        if adjoint.values is not None:
            parts.append(adjoint.values)
        if self._direct:
            parts.append(coupling[0] if coupling else _through_block(swept.stages[0], adjoint.dense)[0])
        elif adjoint.coupling is not None:
            parts.append(adjoint.coupling)
        if adjoint.dense is not None:
            parts.append(adjoint.dense.at(self._below))
        dv: Any = np.bincount(self._derivative_from, weights=np.concatenate(parts), minlength=self._next)
        return dv, adjoint.sigma, adjoint.diagonal

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
            u[f], b[f] = _own_effects(stage, rest)
        order = range(len(self.factors))
        return np.concatenate([u[f] for f in order]), np.concatenate([b[f] for f in order])


def _own_effects(stage: SweptStage | LoneStage, rest: FloatArray) -> tuple[FloatArray, FloatArray]:
    """u and b of a factor from its own part of Z' times a column, all (k J,)."""
    T, inverse = stage.T, stage.inverse
    k = T.shape[0]
    if k == 1:
        t = T[0, 0]
        scalar = inverse[0, 0] * rest * t
        return scalar, scalar * t
    own = small.product(inverse, (T.T @ rest.reshape(k, -1))[:, None])[:, 0]
    return own.ravel(), (T @ own).ravel()


def _log_det_sigma(stage: SweptStage | LoneStage) -> FloatArray:
    """Derivative of log|M| in Sigma of a factor that is alone, (k, k)."""
    N, A = stage.residual_map, stage.A
    if N.shape[0] == 1:
        return np.array([[float(N[0, 0] @ A[0, 0])]])
    total: FloatArray = small.product(N, A).sum(axis=2)
    return total


def _through_block(stage: SweptStage | LoneStage, dense: Any) -> tuple[FloatArray, FloatArray]:
    """Derivative of log|M| in the stored elements of C of the only stage, -2 E C D, and the blocks of C D C'.

    D is the derivative in the dense block that follows. Rows are expanded a few levels at a time.
    """
    C = stage.coupling
    k = stage.E.shape[0]
    D = dense.symmetric()
    if dense.lam is not None:
        D = D * dense.lam
        D *= dense.lam[:, None]
    rows = np.repeat(np.arange(C.shape[0]), np.diff(C.indptr))
    values = np.empty(C.nnz)
    size = max(1, _CHUNK // max(C.shape[1], 1))
    for start in range(0, C.shape[0], size):
        stop = min(start + size, C.shape[0])
        place = slice(int(C.indptr[start]), int(C.indptr[stop]))
        own = C if stop - start == C.shape[0] else C[start:stop]
        values[place] = (own @ D)[rows[place] - start, C.indices[place]]
    # All columns of the term have the same pattern.
    by_column, elements = values.reshape(k, -1), C.data.reshape(k, -1)
    level, J = rows[: by_column.shape[1]], stage.E.shape[2]
    blocks: Any = [[np.bincount(level, weights=one * other, minlength=J) for other in elements] for one in by_column]
    out: FloatArray = np.einsum("abe,be->ae", stage.E[:, :, level], by_column)
    return -2.0 * out.ravel(), np.array(blocks)


def _with_data(table: SparseMatrix, data: FloatArray) -> SparseMatrix:
    """A sparse matrix of the same pattern, without the checks of its constructor."""
    if not data.size:
        return table
    out = copy(table)
    out.data = data
    return out


def _as_index(numbers: FloatArray) -> IntArray:
    return numbers.astype(np.intp)
