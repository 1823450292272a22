"""Which columns of a model matrix are linear combinations of the ones before them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["dependent_columns"]

FloatArray = NDArray[np.float64]

# R's qr() calls a column dependent when what is left of its length is below this share (lme4 uses the same).
TOLERANCE = 1e-7
# With eigenvalues above this no column can come near TOLERANCE (squared: 1e-14), so the cheap check is safe.
CLEARLY_REGULAR = 1e-6


def dependent_columns(X: FloatArray, has_intercept: bool) -> list[int]:
    """Positions of the columns that R's rank check removes.

    Parameters
    ----------
    X : ndarray, shape (n, p)
        Finite model matrix.
    has_intercept : bool
        Column 0 is the constant 1.

    Returns
    -------
    list of int
        Ascending; a column is listed when its part orthogonal to the columns kept before it is shorter than
        1e-7 of its own length. The scale of a column plays no role.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([1.0, 2.0, 4.0])
    >>> dependent_columns(np.column_stack([np.ones(3), x, 2 * x - 1]), True)
    [2]
    """
    n, p = X.shape
    if p == 0 or (p <= n and _clearly_regular(X, has_intercept)):
        return []
    scaled = _unit_columns(X)
    # The p x p factor R has the same lengths and angles between columns as the n x p matrix.
    return _sequential(np.asarray(np.linalg.qr(scaled, mode="r")) if n > p else scaled)


def _clearly_regular(X: FloatArray, has_intercept: bool) -> bool:
    """A cheap sufficient check from X'X, with the intercept swept out."""
    n, p = X.shape
    with np.errstate(over="ignore", invalid="ignore"):
        cross = X.T @ X
        squares = cross.diagonal()
        if has_intercept:
            sums = cross[0, 1:]
            cross = cross[1:, 1:] - np.multiply.outer(sums, sums) / n
            # A nearly constant column loses its digits in the subtraction: leave it to the careful check.
            squares, before = cross.diagonal(), squares[1:] * CLEARLY_REGULAR
        else:
            before = np.zeros(p)
        # Column lengths outside this range would overflow or vanish in X'X.
        if not ((squares > before) & (squares > 1e-290) & (squares < 1e290)).all():
            return False
    if squares.size < 2:
        return True
    scale = 1.0 / np.sqrt(squares)
    return bool(np.linalg.eigvalsh(cross * scale * scale[:, None])[0] > CLEARLY_REGULAR)


def _unit_columns(X: FloatArray) -> FloatArray:
    """Columns of length one, or zero; safe for very large and very small entries."""
    largest = np.abs(X).max(axis=0)
    scaled = X / np.where(largest > 0, largest, 1.0)
    lengths = np.sqrt(np.square(scaled).sum(axis=0))
    unit: FloatArray = scaled / np.where(lengths > 0, lengths, 1.0)
    return unit


def _sequential(R: FloatArray) -> list[int]:
    """Gram-Schmidt from left to right on columns of length one (or zero)."""
    basis = np.zeros((R.shape[0], min(R.shape)))
    rank = 0
    dropped = []
    for j in range(R.shape[1]):
        left = R[:, j].copy()
        for _ in range(2):  # twice is enough for orthogonality to rounding
            left -= basis[:, :rank] @ (basis[:, :rank].T @ left)
        length = float(np.linalg.norm(left))
        if length < TOLERANCE or rank == basis.shape[1]:
            dropped.append(j)
            continue
        basis[:, rank] = left / length
        rank += 1
    return dropped
