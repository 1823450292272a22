"""Array types used by every module of the engine."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from lme4py.chunks import from_size

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]
BoolArray = NDArray[np.bool_]
SparseMatrix = Any  # scipy.sparse.csr_array; its stubs do not follow arithmetic

# A matrix with fewer elements than this multiplies faster as a dense one: setting up a sparse product takes longer.
_DENSE_BELOW = from_size(20_000)


@dataclass(frozen=True)
class LinearOperator:
    """A sparse matrix and its transpose, ready for many products; small ones as dense arrays.

    (SciPy makes a new object at every `.T`, which small models would notice.)
    """

    matrix: Any
    transposed: Any

    @classmethod
    def of(cls, table: SparseMatrix) -> LinearOperator:
        """The operator of a sparse matrix."""
        if table.shape[0] * table.shape[1] < _DENSE_BELOW:
            dense = table.toarray()
            return cls(dense, np.ascontiguousarray(dense.T))
        return cls(table, table.T)


def with_data(table: SparseMatrix, data: FloatArray) -> SparseMatrix:
    """A matrix of the same pattern; the arrays of the pattern are shared and not checked again."""
    out = copy(table)
    out.data = data
    return out


__all__ = ["BoolArray", "FloatArray", "IntArray", "LinearOperator", "SparseMatrix", "sparse", "with_data"]
