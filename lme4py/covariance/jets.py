"""Arrays with their first and second derivatives in n parameters.

Their products let recursions that are short to write, but long to differentiate by hand, be written once (Griewank &
Walther 2008, *Evaluating Derivatives*, chapter 13).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lme4py.linalg.types import FloatArray, IntArray

__all__ = ["Jet", "sines"]


@dataclass(frozen=True)
class Jet:
    """An array and its derivatives.

    Attributes
    ----------
    value : ndarray, shape (...)
    first : ndarray, shape (n, ...)
    second : ndarray, shape (n, n, ...)
        With n = 0 only the value is carried along; `second` alone may be left out in what a function returns.

    Examples
    --------
    >>> x = Jet(np.array(3.0), np.array([1.0]), np.array([[0.0]]))
    >>> y = x * x * x
    >>> float(y.value), float(y.first[0]), float(y.second[0, 0])
    (27.0, 27.0, 18.0)
    """

    value: FloatArray
    first: FloatArray
    second: FloatArray

    @classmethod
    def constant(cls, value: FloatArray, n: int, order: int = 2) -> Jet:
        """What does not depend on the n parameters."""
        return cls.of(value, np.zeros((n, *value.shape)), np.zeros((n, n, *value.shape)), order)

    @classmethod
    def value_only(cls, value: FloatArray) -> Jet:
        """An array without derivatives."""
        return cls(value, np.zeros((0, *value.shape)), np.zeros((0, 0, *value.shape)))

    @classmethod
    def of(cls, value: FloatArray, first: FloatArray, second: FloatArray, order: int) -> Jet:
        """An array without the derivatives of a higher order than `order`."""
        if order == 0:
            return cls.value_only(value)
        return cls(value, first, second if order > 1 else second[:0, :0])

    def __add__(self, other: Jet) -> Jet:
        return Jet(self.value + other.value, self.first + other.first, self.second + other.second)

    def __neg__(self) -> Jet:
        return Jet(-self.value, -self.first, -self.second)

    def __sub__(self, other: Jet) -> Jet:
        return self + (-other)

    def __mul__(self, other: Jet) -> Jet:
        a, b = self, other
        second = a.value * b.second + a.second * b.value
        if second.shape[0]:
            crossed = a.first[:, None] * b.first[None]
            second = second + crossed + crossed.swapaxes(0, 1)
        return Jet(a.value * b.value, a.value * b.first + a.first * b.value, second)

    def _mapped(self, value: FloatArray, slope: FloatArray, curve: FloatArray) -> Jet:
        """A function of the array, from its value and its two derivatives there."""
        second = slope * self.second
        if second.shape[0]:
            second = second + curve * self.first[:, None] * self.first[None]
        return Jet(value, slope * self.first, second)

    def reciprocal(self) -> Jet:
        """1 / x."""
        r = 1.0 / self.value
        return self._mapped(r, -(r**2), 2.0 * r**3)

    def sqrt(self) -> Jet:
        """The square root."""
        root = np.sqrt(self.value)
        slope = 0.5 / root
        return self._mapped(root, slope, -0.5 * slope / self.value)

    def __getitem__(self, place: int | slice | IntArray) -> Jet:
        """Elements of the last axis."""
        return Jet(self.value[..., place], self.first[..., place], self.second[..., place])

    def sum(self) -> Jet:
        """Sum over the last axis."""
        return Jet(self.value.sum(axis=-1), self.first.sum(axis=-1), self.second.sum(axis=-1))

    def weighted(self, weights: FloatArray) -> Jet:
        """Sum over the last axis with constant weights."""
        return Jet(self.value @ weights, self.first @ weights, self.second @ weights)

    def column(self) -> Jet:
        """A number as an array of one."""
        return Jet(self.value[..., None], self.first[..., None], self.second[..., None])

    def join(self, after: Jet) -> Jet:
        """The elements of both along the last axis."""
        parts = zip((self.value, self.first, self.second), (after.value, after.first, after.second), strict=True)
        return Jet(*(np.concatenate(pair, axis=-1) for pair in parts))


def sines(angles: FloatArray, order: int) -> tuple[Jet, Jet]:
    """sin v and cos^2 v of n angles as functions of all of them, each an array of n jets.

    Parameters
    ----------
    angles : ndarray, shape (n,)
    order : int
        Derivatives of a higher order are left out.

    Examples
    --------
    >>> sine, square = sines(np.array([0.0, 0.5]), 2)
    >>> sine.first.round(3)
    array([[1.   , 0.   ],
           [0.   , 0.878]])
    """
    n = angles.size
    sine, square = np.sin(angles), np.cos(angles) ** 2
    one = np.eye(n)
    both = one[:, :, None] * one[:, None] if order > 1 else np.zeros((0, 0, n))
    return (
        Jet.of(sine, one * np.cos(angles), both * -sine, order),
        Jet.of(square, one * -np.sin(2.0 * angles), both * (-2.0 * np.cos(2.0 * angles)), order),
    )
