"""Array types used by every module of the engine."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]
BoolArray = NDArray[np.bool_]
SparseMatrix = Any  # scipy.sparse.csr_array; its stubs do not follow arithmetic

__all__ = ["BoolArray", "FloatArray", "IntArray", "SparseMatrix", "sparse"]
