"""Least squares in which one linear combination of the coefficients is held."""

from __future__ import annotations

import numpy as np

from lme4py.linalg.types import FloatArray

__all__ = ["HeldDirection"]


class HeldDirection:
    """Coefficients beta with origin + a'beta held at a value, in an orthogonal basis whose last element alone moves it.

    Parameters
    ----------
    a : ndarray, shape (p,)
    origin : float
        The value where beta is zero.

    Attributes
    ----------
    length : float
        Of a.
    free : ndarray, shape (p, p - 1)
        Directions that leave the value as it is.
    held : ndarray, shape (p,)
        a of length one.

    Examples
    --------
    >>> direction = HeldDirection(np.array([3.0, 4.0]), 1.0)
    >>> round(float(1.0 + np.array([3.0, 4.0]) @ direction.beta(6.0, np.array([2.0]))), 12)
    6.0
    """

    def __init__(self, a: FloatArray, origin: float) -> None:
        self.origin = origin
        self.length = float(np.linalg.norm(a))
        basis = np.linalg.qr(np.column_stack([a, np.eye(a.size)]))[0]
        self.free, self.held = basis[:, 1:], a / self.length

    def _along(self, v: float) -> float:
        return (v - self.origin) / self.length

    def beta(self, v: float, free: FloatArray) -> FloatArray:
        """All coefficients from those of the free directions, (p - 1,), with the value v."""
        out: FloatArray = self.free @ free + self._along(v) * self.held
        return out

    def columns(self, v: float) -> FloatArray:
        """The map of [X, y] to the free columns and what is left of y with the value v, (p + 1, p)."""
        p = self.held.size
        M = np.zeros((p + 1, p))
        M[:p, : p - 1] = self.free
        M[:p, -1] = -self._along(v) * self.held
        M[p, -1] = 1.0
        return M
