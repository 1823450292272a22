"""What is printed: standard deviations, correlations, ranges, and the scale on which an interval is made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lme4py.covariance.jets import Jet
from lme4py.errors import OptionError
from lme4py.linalg.types import FloatArray

__all__ = ["Adjusted", "NaturalParameter", "check_values", "elements_as_natural", "in_other_parameters"]

# Part of a range that is its end: the arc sines of correlations come so near where the criterion is flat in them.
_END = 1e-9

Kind = Literal["sd", "cor", "range", "smoothness", "nugget", "ar", "ma", "loading", "theta"]


@dataclass(frozen=True)
class NaturalParameter:
    """One parameter as people read it.

    Attributes
    ----------
    kind : str
        "sd", "cor", "range", "smoothness", "nugget", "ar", "ma", "loading", or "theta" (no better name).
    label : str
        ``"sd"``, ``"cor"``, ``"cor(lag 2)"``, ``"range"``; unique among those of one kind and the same columns.
    columns : tuple of int
        The columns of the term it belongs to; empty for all of them.
    lower, upper : float
        Its range; the ends are reached unless they are infinite.
    relative : bool
        In a model with a residual variance the value is in units of sigma.
    held : bool
        It is at a value that the user gave, and no parameter of the model.

    Notes
    -----
    Wald intervals are made on an unbounded scale: the logarithm of what is positive, and
    artanh((2 x - a - b) / (b - a)) of what lies in (a, b), which is Fisher's z of a correlation.

    Examples
    --------
    >>> cor = NaturalParameter("cor", "cor", (0, 1), -1.0, 1.0)
    >>> round(cor.unbounded(0.5), 4), round(cor.bounded(cor.unbounded(0.5)), 4), round(cor.slope(0.5), 4)
    (0.5493, 0.5, 1.3333)
    >>> sd = NaturalParameter("sd", "sd", (0,), 0.0, np.inf)
    >>> round(sd.unbounded(2.0), 4), round(sd.slope(2.0), 4)
    (0.6931, 0.5)
    """

    kind: Kind
    label: str
    columns: tuple[int, ...]
    lower: float
    upper: float
    relative: bool = False
    held: bool = False

    def _half(self) -> tuple[float, float]:
        """Middle and half the width of a bounded range."""
        return 0.5 * (self.lower + self.upper), 0.5 * (self.upper - self.lower)

    def unbounded(self, value: float) -> float:
        """The value on the scale of intervals; infinite at the ends of the range."""
        with np.errstate(divide="ignore"):
            if np.isfinite(self.upper):
                middle, half = self._half()
                return float(np.arctanh((value - middle) / half))
            return float(np.log(value - self.lower)) if np.isfinite(self.lower) else float(value)

    def bounded(self, z: float) -> float:
        """The value from the scale of intervals."""
        if np.isfinite(self.upper):
            middle, half = self._half()
            return float(middle + half * np.tanh(z))
        return float(self.lower + np.exp(z)) if np.isfinite(self.lower) else float(z)

    def slope(self, value: float) -> float:
        """Derivative of `unbounded`; infinite at the ends of the range."""
        with np.errstate(divide="ignore"):
            if np.isfinite(self.upper):
                middle, half = self._half()
                return float(np.divide(half, half**2 - (value - middle) ** 2))
            return float(np.divide(1.0, value - self.lower)) if np.isfinite(self.lower) else 1.0

    def at_end(self, value: float) -> bool:
        """Is the value next to an end of a range that has two, where Wald's method says nothing?"""
        width = self.upper - self.lower
        return bool(np.isfinite(width) and min(value - self.lower, self.upper - value) < _END * width)

    def allows(self, value: float) -> bool:
        """Is the value in the range, ends included?"""
        return bool(np.isfinite(value) and self.lower <= value <= self.upper)

    def check(self, value: float, owner: str) -> None:
        """Raise for a value out of the range.

        Parameters
        ----------
        value : float
        owner : str
            What the parameter belongs to, in words.

        Raises
        ------
        OptionError
        """
        if not self.allows(value):
            raise OptionError(
                f"{self.label} of {owner} is {value:g}; it must be between {self.lower:.4g} and {self.upper:.4g}."
            )


@dataclass(frozen=True)
class Adjusted:
    """Sigma as a function of the parameters that Kenward and Roger's adjustment is made in.

    Attributes
    ----------
    sigma : Jet
        Sigma with its derivatives in these parameters.
    along_scale : ndarray, shape (m,)
        Their derivatives in the logarithm of a factor of all covariances.
    """

    sigma: Jet
    along_scale: FloatArray


def check_values(known: Sequence[NaturalParameter], values: FloatArray, owner: str) -> None:
    """Raise for a number of values that is not that of the parameters, or a value out of its range, by name.

    Parameters
    ----------
    known : sequence of NaturalParameter
    values : ndarray, shape (q,)
    owner : str
        Whose parameters they are.

    Raises
    ------
    OptionError
    """
    if len(values) != len(known):
        raise OptionError(f"{owner} has {len(known)} parameters, and {len(values)} values were given.")
    for parameter, value in zip(known, values, strict=True):
        parameter.check(float(value), owner)


def elements_as_natural(S: Jet) -> Jet:
    """Standard deviations, then correlations by columns of the lower triangle.

    Parameters
    ----------
    S : Jet
        One covariance matrix, (k, k).

    Returns
    -------
    Jet
        Of shape (k + k (k - 1) / 2,). A correlation with an effect that has no variance is NaN, and so are derivatives.

    Examples
    --------
    >>> elements_as_natural(Jet.value_only(np.array([[4.0, 3.0], [3.0, 9.0]]))).value
    array([2. , 3. , 0.5])
    """
    columns, rows = np.triu_indices(S.value.shape[-1], 1)
    own = np.arange(S.value.shape[-1])
    variances = Jet(S.value[own, own], S.first[:, own, own], S.second[:, :, own, own])
    covariances = Jet(S.value[rows, columns], S.first[:, rows, columns], S.second[:, :, rows, columns])
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        sd = variances.sqrt()
        cor = covariances * (sd[rows] * sd[columns]).reciprocal()
    # Rounding may leave a correlation of a singular matrix just outside its range.
    return sd.join(Jet(np.clip(cor.value, -1.0, 1.0), cor.first, cor.second))


def in_other_parameters(S: Jet, J: FloatArray, H: FloatArray) -> Jet:
    """Derivatives of S in psi(theta) from those in theta, J = dpsi / dtheta (r, m) and H its second ones (r, m, m)."""
    K = np.linalg.inv(J)
    first = np.einsum("iab,ir->rab", S.first, K)
    curved = S.second - np.einsum("rab,rij->ijab", first, H)
    return Jet(S.value, first, np.einsum("ir,ijab,js->rsab", K, curved, K))
