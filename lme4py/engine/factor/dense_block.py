"""The block that remains after all stages, as one dense matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import scipy.linalg.blas as blas
import scipy.linalg.lapack as lapack

from lme4py.engine.factor.crossproducts import CrossProducts, Factor
from lme4py.engine.factor.symbolic import Stage, Structure, cross_block
from lme4py.frozen import freeze
from lme4py.linalg import small
from lme4py.linalg.cholesky import mirror, upper_cholesky
from lme4py.linalg.types import FloatArray, IntArray

# Below this ratio of the smallest to the largest diagonal element of T its inverse would lose digits.
_INVERTIBLE = 1e-6


class BlockDerivative(Protocol):
    """Derivative in the block; elements are made where they are needed."""

    def at(self, stage: Any) -> FloatArray:
        """Derivative in the targets of a stage; an element off the diagonal stands for both of its kind."""


class BlockFactor(Protocol):
    """The block at given T: S = Q + Lambda'K Lambda, E = Lambda S^-1 Lambda'.

    Q^-1 is the covariance of the effects before they are scaled: the identity, but for levels with a known covariance,
    where it is K (x) I in a sparse block, or the identity with a root of K in Lambda, in a dense one.

    Attributes
    ----------
    log_det : float
        log|S| - log|Q|.
    """

    log_det: float

    def solve(self, right: FloatArray) -> FloatArray:
        """S^-1 right."""

    def apply_E(self, B: FloatArray) -> FloatArray:
        """E B."""

    def residual(self, B: FloatArray, EB: FloatArray) -> FloatArray:
        """(I + K Sigma)^-1 B."""

    def effect_blocks(self, f: int) -> FloatArray:
        """Diagonal blocks of E of a grouping factor (by position in the block), (k, k, J)."""

    def sigma_gradient(self, f: int) -> FloatArray:
        """Derivative of log|S| in Sigma of a grouping factor, (k, k)."""

    def largest_inverse(self, f: int) -> float:
        """The largest element of the diagonal of S^-1 of a grouping factor, relative to that of Q^-1."""

    def derivative(self, left: FloatArray, right: FloatArray) -> BlockDerivative:
        """The derivative E + left right' in the block."""

    def release(self) -> None:
        """Forget the inverse; it is made again when needed."""

    def spend(self) -> None:
        """The inverse may take the place of the factor."""

    def discard(self) -> None:
        """Forget the factor and its inverse; only `residual` works afterwards."""


@dataclass(frozen=True)
class BlockValues:
    """Values of the block before any elimination, which are zero nearly everywhere.

    Attributes
    ----------
    places : ndarray of int
        Flat positions.
    values : ndarray
    shape : tuple of int
        (q, q), or (n_elements,) where the block is sparse.
    """

    places: IntArray
    values: FloatArray
    shape: tuple[int, ...]

    def array(self) -> FloatArray:
        """A new array of all values."""
        out = np.zeros(self.shape)
        out.reshape(-1)[self.places] = self.values
        return out

    def rooted(self, factors: tuple[Factor, ...]) -> FloatArray:
        """A dense block between the roots of the known covariances of its factors; made once."""
        kept: FloatArray | None = self.__dict__.get("_rooted")
        if kept is None:
            kept = freeze(self._rooted_diagonal(factors) if self._is_one_diagonal(factors) else self._in_roots(factors))
            self.__dict__["_rooted"] = kept
        return kept

    def _in_roots(self, factors: tuple[Factor, ...]) -> FloatArray:
        return in_roots(factors, np.ascontiguousarray(in_roots(factors, self.array()).T))

    def _is_one_diagonal(self, factors: tuple[Factor, ...]) -> bool:
        """Whether the block is the diagonal matrix of one scalar effect of related levels."""
        related = len(factors) == 1 and factors[0].n_columns == 1 and factors[0].relation is not None
        return related and bool((self.places % (self.shape[0] + 1) == 0).all())

    def _rooted_diagonal(self, factors: tuple[Factor, ...]) -> FloatArray:
        """F'DF as the product of a matrix and its transpose."""
        relation = factors[0].relation
        assert relation is not None
        d = np.zeros(self.shape[0])
        d[self.places // (self.shape[0] + 1)] = self.values
        # In Fortran order (F' sqrt(D)), whose products with its transpose fill one triangle.
        half = np.asfortranarray((relation.dense_root * np.sqrt(d)[:, None]).T)
        return mirror(blas.dsyrk(1.0, half, lower=0).T)


def base_block(structure: Structure, factors: tuple[Factor, ...], cross: CrossProducts) -> BlockValues:
    """The block before any elimination."""
    pairs = list(zip(structure.dense, structure.dense_offsets, strict=True))
    if structure.sparse is not None:
        edges = {
            (i, j): cross_block(cross, f, g)
            for i, (f, _) in enumerate(pairs)
            for j, (g, _) in enumerate(pairs)
            if i > j
        }
        values = structure.sparse.base([cross.diagonal[f] for f in structure.dense], edges)
        used = np.flatnonzero(values)
        return BlockValues(used, values[used], values.shape)
    size = structure.dense_size
    places: list[IntArray] = [np.zeros(0, dtype=np.intp)]
    parts: list[FloatArray] = [np.zeros(0)]
    for f, start in pairs:
        J, k = factors[f].n_levels, factors[f].n_columns
        levels = np.arange(J)
        for a in range(k):
            for b in range(k):
                places.append((start + a * J + levels) * size + start + b * J + levels)
                parts.append(cross.diagonal[f][a, b])
        for g, other in pairs:
            if f == g:
                continue
            block = cross_block(cross, f, g)
            for a in range(k):
                for b in range(factors[g].n_columns):
                    columns = other + b * factors[g].n_levels + block.columns
                    places.append((start + a * J + block.rows) * size + columns)
                    parts.append(block.values[a, b])
    return BlockValues(np.concatenate(places), np.concatenate(parts), (size, size))


def in_roots(factors: tuple[Factor, ...], M: FloatArray, transpose: bool = True) -> FloatArray:
    """(I (x) F)' M, or (I (x) F) M, with a root F of the known covariance of each factor; changed in place."""
    start = 0
    for factor in factors:
        if factor.relation is not None:
            F = factor.relation.dense_root
            for a in range(factor.n_columns):
                own = slice(start + a * factor.n_levels, start + (a + 1) * factor.n_levels)
                M[own] = (F.T if transpose else F) @ M[own]
        start += factor.size
    return M


class DenseFactor:
    """The Cholesky factor of a dense block.

    Parameters
    ----------
    factors : tuple of Factor
        Those of the block, in the order of its rows.
    T : list of ndarray, each (k, k)
    K : ndarray, shape (q, q)
        Only the lower triangle is up to date; it is overwritten.
    rooted : ndarray, shape (q, q), optional
        K between the roots of known covariances, where it is known already.

    Attributes
    ----------
    K : ndarray, shape (q, q), or None
        Kept only where Lambda cannot be divided out again.
    chol : ndarray, shape (q, q), Fortran order
        U upper triangular, U'U = I + Lambda'K Lambda.
    lam : ndarray, shape (q,), or None
        Diagonal of Lambda when every grouping factor of the block has one column.
    """

    def __init__(
        self, factors: tuple[Factor, ...], T: list[FloatArray], K: FloatArray, rooted: FloatArray | None = None
    ) -> None:
        self.factors = factors
        self.T = T
        self.lam: FloatArray | None = None
        self.K: FloatArray | None = None
        self._inverse: FloatArray | None = None
        self._is_spent = False
        if all(factor.n_columns == 1 and factor.relation is None for factor in factors):
            lam = np.repeat([t[0, 0] for t in T], [factor.n_levels for factor in factors])
            if not all(is_invertible(t) for t in T):
                self.K = mirror(K.copy())
            S = K
            S *= lam
            S *= lam[:, None]
            self.lam = lam
        else:
            self.K = mirror(K)
            if rooted is None:
                S = self._scaled(self._scaled(self.K).T)
            elif len(factors) == 1 and factors[0].n_columns == 1:
                S = rooted * float(T[0][0, 0]) ** 2
            else:
                S = scale_rows(factors, T, scale_rows(factors, T, rooted).T)
        S.reshape(-1)[:: S.shape[0] + 1] += 1.0
        self.chol = upper_cholesky(S.T)
        self.log_det = 2.0 * float(np.log(self.chol.diagonal()).sum())

    def apply_E(self, B: FloatArray) -> FloatArray:
        """Lambda (I + Lambda'K Lambda)^-1 Lambda' B."""
        right = np.asfortranarray(self._scaled(B))
        known = self._inverse
        solved = self.solve(right) if known is None else blas.dsymm(1.0, known.T, right, lower=0)
        return self._scaled(solved, transpose=False)

    def _scaled(self, M: FloatArray, transpose: bool = True) -> FloatArray:
        """Lambda' M (or Lambda M), with roots of known covariances in Lambda."""
        return in_roots(self.factors, scale_rows(self.factors, self.T, M, transpose), transpose)

    def solve(self, right: FloatArray) -> FloatArray:
        """(I + Lambda'K Lambda)^-1 right, for the rows of the block."""
        solved: FloatArray = lapack.dpotrs(self.chol, right, lower=0)[0]
        return solved

    def residual(self, B: FloatArray, EB: FloatArray) -> FloatArray:
        """(I + K Sigma)^-1 B = B - K E B, by division with Lambda where that has no cancellation."""
        if self.K is not None:
            return B - self.K @ EB
        if self.lam is None:
            raise ValueError("the dense block was not kept")
        return EB / (self.lam**2)[:, None]

    def inverse(self) -> FloatArray:
        """(I + Lambda'K Lambda)^-1: the lower triangle, and the upper one too unless all factors are scalar."""
        if self._inverse is None:
            inverse, info = lapack.dpotri(self.chol, lower=0, overwrite_c=int(self._is_spent))
            if info != 0:
                raise np.linalg.LinAlgError("the factor is not positive definite")
            self._inverse = freeze(inverse.T if self.lam is not None else mirror(inverse.T))
            if self._is_spent:
                self.chol = np.zeros((0, 0))
        return self._inverse

    def release(self) -> None:
        """Forget the inverse; it is made again when needed."""
        if not self._is_spent:
            self._inverse = None

    def spend(self) -> None:
        """The inverse may take the place of the factor."""
        self._is_spent = True

    def discard(self) -> None:
        """Forget the factor and its inverse; only `residual` works afterwards."""
        self._is_spent = True
        self.chol, self._inverse = np.zeros((0, 0)), None

    def _rows(self, f: int) -> slice:
        start = 0
        for factor in self.factors[:f]:
            start += factor.size
        return slice(start, start + self.factors[f].size)

    def _inverse_blocks(self, f: int) -> FloatArray:
        """Diagonal blocks of S^-1 of one grouping factor, (k, k, J)."""
        rows = self._rows(f)
        return _diagonal_blocks(self.inverse()[rows, rows], self.factors[f].n_columns, self.factors[f].n_levels)

    def effect_blocks(self, f: int) -> FloatArray:
        """Diagonal blocks of E of one grouping factor, (k, k, J)."""
        T, relation = self.T[f], self.factors[f].relation
        if relation is None:
            return small.right(small.left(T, self._inverse_blocks(f)), T.T)
        k, J = self.factors[f].n_columns, self.factors[f].n_levels
        rows = self._rows(f)
        inner = self.inverse()[rows, rows].reshape(k, J, k, J)
        F = relation.dense_root
        inner = np.array([[np.einsum("ij,ij->i", F @ inner[a, :, b], F) for b in range(k)] for a in range(k)])
        return small.right(small.left(T, inner), T.T)

    def largest_inverse(self, f: int) -> float:
        """The largest element of the diagonal of S^-1 of a grouping factor."""
        rows = self._rows(f)
        return float(self.inverse().diagonal()[rows].max())

    def sigma_gradient(self, f: int) -> FloatArray:
        """Derivative of log|S| in Sigma of one grouping factor, (k, k)."""
        if is_invertible(self.T[f]):
            return gradient_of_invertible(self.factors[f], self.T[f], self._inverse_blocks(f).sum(axis=2))
        return self._reduced_sum(f)

    def _reduced_sum(self, f: int) -> FloatArray:
        """Sum over levels of the diagonal blocks of K - K E K, in the space of a known covariance, (k, k)."""
        if self.K is None:
            raise ValueError("the dense block was not kept")
        k, J = self.factors[f].n_columns, self.factors[f].n_levels
        rows = self._rows(f)
        relation = self.factors[f].relation
        if relation is not None:
            reduced = self.K[rows, rows] - self.K[rows] @ self.apply_E(np.ascontiguousarray(self.K[:, rows]))
            parts = reduced.reshape(k, J, k, J)
            return np.array([[np.vdot(relation.matrix, parts[a, :, b]) for b in range(k)] for a in range(k)])
        K_rows = self.K[rows]
        EK = self.apply_E(np.ascontiguousarray(K_rows.T)).T
        blocks = _diagonal_blocks(self.K[rows, rows], k, J) - block_products(K_rows, EK, k, J)
        total: FloatArray = blocks.sum(axis=2)
        return total

    def derivative(self, left: FloatArray, right: FloatArray) -> DenseDerivative:
        """The derivative E + left right' in the block."""
        E = self.inverse()
        if self.lam is None:
            half = self._scaled(E, transpose=False)
            E = self._scaled(half.T, transpose=False)
        return DenseDerivative(E, self.lam, left, right)


class DenseDerivative:
    """Derivative in the dense block, diag(lam) inverse diag(lam) + left right'.

    Parameters
    ----------
    inverse : ndarray, shape (q, q)
    lam : ndarray, shape (q,), or None
    left, right : ndarray, shape (q, c)
    """

    def __init__(self, inverse: FloatArray, lam: FloatArray | None, left: FloatArray, right: FloatArray) -> None:
        self.inverse = inverse
        self.lam = lam
        self.left = left
        self.right = right

    def symmetric(self) -> FloatArray:
        """The inverse with both of its triangles."""
        # Filled in place: a second copy of a large block is too much.
        self.inverse.flags.writeable = True
        return freeze(mirror(self.inverse))

    def at(self, stage: Stage) -> FloatArray:
        """Derivative in the targets of a stage; an element off the diagonal stands for both of its kind."""
        rows, columns = stage.dense_rows, stage.dense_columns
        values = self.inverse.reshape(-1)[stage.dense_targets]
        if self.lam is not None:
            values *= self.lam[rows]
            values *= self.lam[columns]
        if self.left.shape[1] > 8:
            values += (self.left @ self.right.T).reshape(-1)[stage.dense_targets]
        else:
            add_products(values, rows, columns, self.left, self.right)
        values *= np.where(rows == columns, 1.0, 2.0)
        return values


def add_products(values: FloatArray, rows: Any, columns: Any, left: FloatArray, right: FloatArray) -> None:
    """Add the elements (rows, columns) of left right' to `values`."""
    for a, b in zip(left.T, right.T, strict=True):
        values += np.ascontiguousarray(a)[rows] * np.ascontiguousarray(b)[columns]


def scale_rows(factors: tuple[Factor, ...], T: list[FloatArray], M: FloatArray, transpose: bool = True) -> FloatArray:
    """Lambda' M (or Lambda M) for the rows of the block."""
    out = np.empty_like(M, order="C")
    start = 0
    for factor, own in zip(factors, T, strict=True):
        J, k = factor.n_levels, factor.n_columns
        rows = slice(start, start + k * J)
        t = own.T if transpose else own
        if k == 1:
            np.multiply(M[rows], t[0, 0], out=out[rows])
        else:
            out[rows] = small.left(t, M[rows].reshape(k, J, -1)).reshape(k * J, -1)
        start += k * J
    return out


def gradient_of_invertible(factor: Factor, T: FloatArray, prior_sum: FloatArray) -> FloatArray:
    """Derivative of log|Q + Lambda'K Lambda| in Sigma = T T' of a factor, (k, k).

    Parameters
    ----------
    factor : Factor
    T : ndarray, shape (k, k)
    prior_sum : ndarray, shape (k, k)
        Sum over pairs of levels of Q at the pair times the block of the inverse there.
    """
    inverse = small.factor_inverse(T)
    out: FloatArray = inverse.T @ (factor.n_levels * np.eye(factor.n_columns) - prior_sum) @ inverse
    return out


def is_invertible(T: FloatArray) -> bool:
    """Can T be divided out without loss of digits?"""
    if T.shape[0] == 1:
        size = abs(float(T[0, 0]))
        return size > _INVERTIBLE * max(1.0, size)
    smallest = float(np.abs(T.diagonal()).min()) if small.is_lower(T) else float(small.singular_values(T)[-1])
    return smallest > _INVERTIBLE * max(1.0, float(np.abs(T).max()))


def _diagonal_blocks(M: FloatArray, k: int, J: int) -> FloatArray:
    """The J diagonal blocks of a matrix whose rows run over columns of the term, then levels; shape (k, k, J)."""
    if k == 1:
        return M.diagonal()[None, None]
    return np.array([[M[a * J : (a + 1) * J, b * J : (b + 1) * J].diagonal() for b in range(k)] for a in range(k)])


def block_products(left: FloatArray, right: FloatArray, k: int, J: int) -> FloatArray:
    """Diagonal blocks of left right'."""
    return small.outer(left.reshape(k, J, -1), right.reshape(k, J, -1))
