"""Levels of a grouping factor that are related: the covariance of their effects is sigma^2 K (x) Sigma.

K is known: of animals the additive relationship, of species what their shared history makes, of places a function of
their distances. It is kept either as a matrix K = F F', which may be singular, or as a sparse inverse K^-1 = H'H, which
for a pedigree has few elements however many animals it has (Henderson 1976, Biometrics 32:69). Nothing else of the
package asks which of the two it is, except the factor of the engine.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Literal, TypeAlias

import numpy as np
import scipy.linalg
import scipy.sparse.linalg as sparse_linalg

from lme4py.chunks import chunk
from lme4py.errors import DataError
from lme4py.frozen import computed_once
from lme4py.linalg.cholesky import upper_cholesky
from lme4py.linalg.types import FloatArray, IntArray, SparseMatrix, sparse

__all__ = ["DenseRelation", "Relation", "SparseRelation"]

# An eigenvalue of K above minus this part of the largest one is zero.
_ROUNDING = 1e-10
# Columns of K that are made at one time.
_COLUMNS = chunk(256)

Product: TypeAlias = Literal["times", "root", "root_transposed", "solve_root"]


class Relation(ABC):
    """A known covariance of J levels.

    Attributes
    ----------
    n_levels : int
        J.
    precision : csc_array, shape (J, J), or None
        K^-1, where K is known by it.
    """

    n_levels: int
    precision: SparseMatrix = None

    @abstractmethod
    def times(self, x: FloatArray) -> FloatArray:
        """K x, shape (J, c)."""

    @abstractmethod
    def root(self, z: FloatArray) -> FloatArray:
        """F z with K = F F', shape (J, c)."""

    @abstractmethod
    def root_transposed(self, x: FloatArray) -> FloatArray:
        """F'x, shape (J, c)."""

    @abstractmethod
    def solve_root(self, x: FloatArray) -> FloatArray:
        """The shortest z with F z = x, shape (J, c), for x in the space of K."""

    @property
    @abstractmethod
    def log_det(self) -> float:
        """log|K|; 0 where K is kept as a matrix, whose factor needs none."""

    @property
    @abstractmethod
    def variances(self) -> FloatArray:
        """Diagonal of K, shape (J,)."""

    @property
    @abstractmethod
    def matrix(self) -> FloatArray:
        """K, shape (J, J)."""

    @computed_once
    def dense_root(self) -> FloatArray:
        """F, shape (J, J)."""
        return self.root(np.eye(self.n_levels))

    def elements(self, i: IntArray, j: IntArray) -> FloatArray:
        """K at some places, shape (m,); a column is made for each level that is not paired with itself only."""
        out = self.variances[i]
        apart = np.flatnonzero(i != j)
        used, place = np.unique(i[apart], return_inverse=True)
        for start in range(0, used.size, _COLUMNS):
            own = used[start : start + _COLUMNS]
            unit = np.zeros((self.n_levels, own.size))
            unit[own, np.arange(own.size)] = 1.0
            here = (place >= start) & (place < start + own.size)
            out[apart[here]] = self.times(unit)[j[apart[here]], place[here] - start]
        return out

    def along(self, values: FloatArray, how: Product = "times") -> FloatArray:
        """One of the products for values of every column of a term, shape (k, J, c) to the same shape."""
        k, J, c = values.shape
        moved = getattr(self, how)(values.transpose(1, 0, 2).reshape(J, k * c))
        return np.ascontiguousarray(moved.reshape(J, k, c).transpose(1, 0, 2))

    def __getstate__(self) -> dict[str, Any]:
        # Factors of other libraries cannot be pickled, and are soon made again.
        return {name: value for name, value in self.__dict__.items() if name in self._kept}

    _kept: tuple[str, ...] = ()


class DenseRelation(Relation):
    """K as a matrix.

    Parameters
    ----------
    K : ndarray, shape (J, J)
        Symmetric and positive semi-definite.

    Raises
    ------
    DataError
        K has a negative eigenvalue.

    Examples
    --------
    >>> K = DenseRelation(np.array([[1.0, 0.5], [0.5, 1.0]]))
    >>> K.times(np.array([[1.0], [0.0]])).ravel()
    array([1. , 0.5])
    """

    _kept = ("n_levels", "K", "F", "triangular")

    def __init__(self, K: FloatArray) -> None:
        self.n_levels = K.shape[0]
        self.K = K
        self.F, self.triangular = _root_of(K)

    @property
    def log_det(self) -> float:
        return 0.0

    @property
    def variances(self) -> FloatArray:
        return self.K.diagonal()

    @property
    def matrix(self) -> FloatArray:
        return self.K

    @property
    def dense_root(self) -> FloatArray:
        return self.F

    def times(self, x: FloatArray) -> FloatArray:
        return self.K @ x

    def root(self, z: FloatArray) -> FloatArray:
        return self.F @ z

    def root_transposed(self, x: FloatArray) -> FloatArray:
        return self.F.T @ x

    def solve_root(self, x: FloatArray) -> FloatArray:
        if self.triangular:
            out: FloatArray = scipy.linalg.solve_triangular(self.F, x, lower=True)
            return out
        # F = U diag(sqrt(d)) with orthonormal U; columns of zeros stand for what does not vary.
        sizes = np.einsum("ij,ij->j", self.F, self.F)
        inverse = np.divide(1.0, sizes, out=np.zeros_like(sizes), where=sizes > 0.0)
        shortest: FloatArray = (self.F.T @ x) * inverse[:, None]
        return shortest


def _root_of(K: FloatArray) -> tuple[FloatArray, bool]:
    """F with K = F F', and whether it is triangular."""
    try:
        F = upper_cholesky(np.array(K, order="F"), clean=True).T
        if (F.diagonal() ** 2 > _ROUNDING * K.diagonal()).all():
            return F, True
    except np.linalg.LinAlgError:
        pass
    values, vectors = np.linalg.eigh(K)
    if values[0] < -_ROUNDING * max(float(values[-1]), 0.0):
        raise DataError(
            f"the matrix is no covariance matrix: its smallest eigenvalue is {values[0]:.6g} (the largest "
            f"{values[-1]:.6g}), and none may be negative"
        )
    values = np.where(values > _ROUNDING * values[-1], values, 0.0)
    return vectors * np.sqrt(values), False


class SparseRelation(Relation):
    """K by its sparse inverse, K^-1 = H'H.

    Parameters
    ----------
    precision : sparse matrix, shape (J, J)
        K^-1.
    half : sparse matrix, shape (J, J)
        H.
    log_det : float
        log|K|.
    variances : ndarray, shape (J,), optional
        Diagonal of K, where it is known already.

    Examples
    --------
    >>> H = sparse.csc_array(np.diag([1.0, 2.0]))
    >>> SparseRelation(H.T @ H, H, -np.log(4.0)).variances
    array([1.  , 0.25])
    """

    _kept: tuple[str, ...] = ("n_levels", "precision", "half", "_log_det", "_variances")

    def __init__(
        self, precision: SparseMatrix, half: SparseMatrix, log_det: float, variances: FloatArray | None = None
    ) -> None:
        self.n_levels = int(precision.shape[0])
        self.precision = precision.tocsc()
        self.half = half.tocsr()
        self._log_det = log_det
        self._variances = variances

    @property
    def log_det(self) -> float:
        return self._log_det

    @computed_once
    def _solver(self) -> Any:
        return symmetric_factor(self.precision)

    @computed_once
    def variances(self) -> FloatArray:
        if self._variances is not None:
            return self._variances
        parts = []
        for start in range(0, self.n_levels, _COLUMNS):
            stop = min(start + _COLUMNS, self.n_levels)
            unit = np.zeros((self.n_levels, stop - start))
            unit[np.arange(start, stop), np.arange(stop - start)] = 1.0
            parts.append(self.times(unit)[start:stop].diagonal())
        return np.concatenate(parts)

    @computed_once
    def matrix(self) -> FloatArray:
        K = self.times(np.eye(self.n_levels))
        return 0.5 * (K + K.T)

    def times(self, x: FloatArray) -> FloatArray:
        out: FloatArray = self._solver.solve(np.ascontiguousarray(x))
        return out

    def root(self, z: FloatArray) -> FloatArray:
        return self.times(self.half.T @ z)

    def root_transposed(self, x: FloatArray) -> FloatArray:
        out: FloatArray = self.half @ self.times(x)
        return out

    def solve_root(self, x: FloatArray) -> FloatArray:
        out: FloatArray = self.half @ x
        return out


def symmetric_factor(matrix: SparseMatrix) -> Any:
    """A sparse factor of a symmetric positive definite matrix, without pivots."""
    return sparse_linalg.splu(
        sparse.csc_array(matrix, copy=True),
        permc_spec="MMD_AT_PLUS_A",
        diag_pivot_thresh=0.0,
        options={"SymmetricMode": True},
    )


def relation_of_precision(matrix: SparseMatrix) -> SparseRelation:
    """The relation whose inverse is given.

    Parameters
    ----------
    matrix : sparse matrix, shape (J, J)
        Symmetric.

    Raises
    ------
    DataError
        It is not positive definite.
    """
    factor = symmetric_factor(matrix)
    pivots = factor.U.diagonal()
    symmetric = np.array_equal(factor.perm_r, factor.perm_c)
    if not symmetric or not np.isfinite(pivots).all() or not (pivots > 0.0).all():
        raise DataError(
            "the precision matrix is not positive definite, so that it is the inverse of no covariance matrix"
            + _smallest(matrix)
        )
    # P Q P' = L D L'; H = D^1/2 L'P.
    place = factor.perm_c
    L = factor.L.tocsc()
    H = sparse.csr_array(sparse.diags_array(np.sqrt(pivots)) @ L.T)[:, place]
    return SparseRelation(matrix, H, -float(np.log(pivots).sum()))


def _smallest(matrix: SparseMatrix) -> str:
    """The smallest eigenvalue in words, where it is soon found."""
    if matrix.shape[0] > 2000:
        return ""
    return f"; its smallest eigenvalue is {np.linalg.eigvalsh(matrix.toarray())[0]:.6g}"
