"""Residuals whose covariance is known: `sigma=`, and a matrix of the rows as `residual=`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from lme4py.covariance import CovarianceStructure
from lme4py.covariance.kinds.given import GivenCovariance
from lme4py.design.design import Design
from lme4py.design.residual.text import ResidualSides
from lme4py.errors import DataError
from lme4py.linalg.types import FloatArray, IntArray

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["given_residuals"]

# Differences of V from its transpose, relative to its largest element, that are rounding.
_SYMMETRIC = 1e-10


def given_residuals(
    design: Design, sides: ResidualSides
) -> tuple[tuple[CovarianceStructure, ...], FloatArray, IntArray]:
    """The structure, the positions of the rows (n, 1), and the blocks of rows that are correlated.

    Parameters
    ----------
    design : Design
    sides : ResidualSides

    Raises
    ------
    DataError
        A matrix of another size, that is not symmetric, or that is not positive definite.
    """
    n = design.n_obs
    if sides.matrix is None:
        # Every row is at the one place there is.
        return (GivenCovariance(1, sd=sides.sigma),), np.zeros((n, 1)), np.arange(n)
    V = _of_rows_used(sides.matrix, design)
    _check(V)
    blocks = connected_components(sparse.csr_array(V != 0.0), directed=False)[1].astype(np.intp)
    return (GivenCovariance(n, matrix=V, sd=sides.sigma),), np.arange(n, dtype=float)[:, None], blocks


def _of_rows_used(matrix: Any, design: Design) -> FloatArray:
    """The matrix of the rows used, (n, n), in their order."""
    import pandas as pd

    n, n_rows = design.n_obs, design.keep.size
    if isinstance(matrix, pd.DataFrame):
        return _by_labels(matrix, design)
    dense: Any = matrix.toarray() if hasattr(matrix, "toarray") else matrix
    V: FloatArray = np.asarray(dense, dtype=np.float64)
    if V.shape == (n_rows, n_rows):
        return V[np.ix_(design.keep, design.keep)]
    if V.shape == (n, n):
        return V.copy()
    raise DataError(
        f"the covariance matrix of the residuals has shape {V.shape}; the data have {n_rows} rows: give one row and "
        "one column for each."
    )


def _by_labels(matrix: pd.DataFrame, design: Design) -> FloatArray:
    used = design.index[design.keep]
    if not used.is_unique or not matrix.index.is_unique:
        raise DataError(
            "the covariance matrix of the residuals has labels, and those of the rows occur more than once; give an "
            "array in the order of the rows."
        )
    for side, labels in (("rows", matrix.index), ("columns", matrix.columns)):
        missing = used.difference(labels)
        if missing.size:
            raise DataError(
                f"the {side} of the covariance matrix of the residuals lack {missing.size} label(s) of the data, such "
                f"as {missing[0]!r}; give one for each row, or an array in the order of the rows."
            )
    return matrix.loc[used, used].to_numpy(dtype=float, copy=True)


def _check(V: FloatArray) -> None:
    if not np.isfinite(V).all():
        raise DataError(
            f"the covariance matrix of the residuals has {int((~np.isfinite(V)).sum())} elements that are missing or "
            "infinite."
        )
    size = float(np.abs(V).max())
    if np.abs(V - V.T).max() > _SYMMETRIC * size:
        raise DataError("the covariance matrix of the residuals is not symmetric.")
    least = float(np.linalg.eigvalsh(V)[0])
    if not least > 0.0:
        raise DataError(
            f"the covariance matrix of the residuals is not positive definite: its smallest eigenvalue is {least:.3g}. "
            "Rows that determine each other have no likelihood: combine them, or correct the matrix."
        )
