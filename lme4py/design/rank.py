"""Which columns of a model matrix are linear combinations of the ones before them.

A column is taken apart along the columns kept before it, in their order, after its mean where the model holds a
constant. It is dependent when one step along a single column takes away all of its length but a part in 1e7 (R compares
the end with the beginning, at the same tolerance), or when what is left at the end cannot be told from the rounding of
the numbers. So a covariate may be shifted: `year`, `year^2` and `year^3` with years about 2000 lose all but a part in
200 at each of three steps, and in R the last of them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["dependent_by_triangle", "dependent_columns", "is_clearly_regular", "null_vectors"]

FloatArray = NDArray[np.float64]

# A step that leaves less than this part of the length ends in a combination of columns (R's tolerance, and lme4's).
TOLERANCE = 1e-7
# With eigenvalues above this no step can come near TOLERANCE (squared: 1e-14), so the cheap check is safe.
CLEARLY_REGULAR = 1e-6
# A remainder needs this many times the rounding of the sum that it is left of: three digits of it are right.
DIGITS = 1e3


def dependent_columns(X: FloatArray, has_intercept: bool) -> list[int]:
    """Positions of the columns that are combinations of the columns before them.

    Parameters
    ----------
    X : ndarray, shape (n, p)
        Finite model matrix.
    has_intercept : bool
        Column 0 is the constant 1.

    Returns
    -------
    list of int
        Ascending. Neither the scale of a column nor, beside an intercept, the origin of a covariate plays a role.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([1.0, 2.0, 4.0])
    >>> dependent_columns(np.column_stack([np.ones(3), x, 2 * x - 1]), True)
    [2]
    >>> year = np.arange(2000.0, 2020.0)
    >>> dependent_columns(np.column_stack([year**k for k in range(4)]), True)
    []
    """
    n, p = X.shape
    if p == 0:
        return []
    if p <= n:
        with np.errstate(over="ignore", invalid="ignore"):
            cross = X.T @ X
        if is_clearly_regular(cross, has_intercept):
            return []
    if not has_intercept:
        X = np.column_stack([np.ones(n), X])
    scaled = _unit_columns(X)
    # The square factor R has the same lengths and angles between columns as the tall matrix.
    R = np.asarray(np.linalg.qr(scaled, mode="r")) if n > p else scaled
    return _Basis(R[:, 0]).dependent(R if has_intercept else R[:, 1:])


def dependent_by_triangle(R: FloatArray, has_intercept: bool) -> list[int]:
    """The same as `dependent_columns` from R of the QR decomposition of X.

    Parameters
    ----------
    R : ndarray, shape (m, p), or (m, p + 1)
        Without an intercept the first column is the constant, which is not one of X.
    has_intercept : bool
        Column 0 of X is the constant 1.
    """
    scaled = _unit_columns(R)
    return _Basis(scaled[:, 0]).dependent(scaled if has_intercept else scaled[:, 1:])


def null_vectors(X: FloatArray, dropped: list[int]) -> FloatArray:
    """Combinations of all columns that are zero, one for each dropped column: 1 there, and minus its combination.

    Parameters
    ----------
    X : ndarray, shape (n, p)
        With all columns.
    dropped : list of int
        Of `dependent_columns`.

    Returns
    -------
    ndarray, shape (p, number dropped)
    """
    kept = [j for j in range(X.shape[1]) if j not in set(dropped)]
    out = np.zeros((X.shape[1], len(dropped)))
    out[dropped, np.arange(len(dropped))] = 1.0
    if kept and dropped:
        own, other = _sizes(X[:, kept]), _sizes(X[:, dropped])
        solution = np.linalg.lstsq(X[:, kept] / own, X[:, dropped] / other, rcond=None)[0]
        solution[np.abs(solution) < 1e-10] = 0.0  # rounding
        out[kept] = -solution * other / own[:, None]
    return out


def _sizes(X: FloatArray) -> FloatArray:
    sizes: FloatArray = np.maximum(np.abs(X).max(axis=0), np.finfo(float).tiny)
    return sizes


def is_clearly_regular(cross: FloatArray, has_intercept: bool) -> bool:
    """A cheap sufficient check from X'X, with the intercept swept out.

    Parameters
    ----------
    cross : ndarray, shape (p, p)
        X'X; the columns may be shifted, beside an intercept, and scaled.
    has_intercept : bool
        Column 0 is the constant 1.
    """
    p = cross.shape[0]
    with np.errstate(over="ignore", invalid="ignore"):
        squares = cross.diagonal()
        if has_intercept:
            sums = cross[0, 1:]
            cross = cross[1:, 1:] - np.multiply.outer(sums, sums) / cross[0, 0]
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


class _Basis:
    """Gram-Schmidt from left to right on columns of length one (or zero).

    Parameters
    ----------
    constant : ndarray, shape (m,)
        The constant column.
    """

    def __init__(self, constant: FloatArray) -> None:
        self.constant = constant
        self.has_constant = False
        self.rank = 0

    def dependent(self, R: FloatArray) -> list[int]:
        """Positions of the columns of R, (m, p), that depend on the ones before them."""
        most = min(R.shape)
        self.Q = np.zeros((R.shape[0], most))
        self.kept = np.zeros((most, most))  # the columns kept, in terms of Q
        dropped = []
        for j, column in enumerate(R.T):
            if self.rank == most or not self._take(column):
                dropped.append(j)
        return dropped

    def _take(self, column: FloatArray) -> bool:
        """Keep a column unless it depends on those that were kept."""
        Q = self.Q[:, : self.rank]
        centred = column - self.constant * float(self.constant @ column) if self.has_constant else column
        along = Q.T @ centred
        left = centred - Q @ along
        again = Q.T @ left  # twice is enough for orthogonality to rounding
        left -= Q @ again
        length = float(np.linalg.norm(left))
        if self._is_dependent(along + again, Q.T @ column, length):
            return False
        self.Q[:, self.rank] = left / length
        self.kept[: self.rank, self.rank] = Q.T @ column
        self.kept[self.rank, self.rank] = length
        self.rank += 1
        if not self.has_constant:
            Q = self.Q[:, : self.rank]
            rest = self.constant - Q @ (Q.T @ self.constant)
            self.has_constant = float(np.linalg.norm(rest)) < TOLERANCE
        return True

    def _is_dependent(self, along: FloatArray, whole: FloatArray, length: float) -> bool:
        """Whether one step leaves next to nothing, or rounding is left."""
        # Lengths before each step and after the last one, from the end: small ones keep their digits.
        lengths = np.sqrt(length**2 + np.append(np.cumsum(along[::-1] ** 2)[::-1], 0.0))
        if length == 0.0 or (lengths[1:] < TOLERANCE * lengths[:-1]).any():
            return True
        if length > CLEARLY_REGULAR:
            return False
        parts = np.linalg.solve(self.kept[: self.rank, : self.rank], whole)
        size = 1.0 + float(np.abs(parts).sum())
        return bool(length < DIGITS * np.finfo(float).eps * size)
