"""Matern's correlation: (x^nu K_nu(x)) / (2^(nu - 1) Gamma(nu)), x = distance / range, with a smoothness nu.

As a mixture of Gaussian correlations it is E exp(-x^2 / (4 g)) with g of a gamma distribution of shape nu, so that the
correlation and all of its derivatives, those in nu too, are expectations of positive or centred quantities. In log g
the integrand is entire and falls at both ends faster than any exponential: the trapezoidal rule reaches rounding error
with about a hundred nodes (Trefethen & Weideman 2014, *SIAM Review* 56:385).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import ClassVar

import numpy as np
from scipy import special

from lme4py.chunks import chunk
from lme4py.covariance.jets import Jet
from lme4py.covariance.kinds.decay import Decay, distances
from lme4py.covariance.kinds.distance import DistanceStructure
from lme4py.covariance.natural import NaturalParameter
from lme4py.covariance.registry import register
from lme4py.covariance.structure import AT_EDGE
from lme4py.linalg.types import FloatArray

__all__ = ["MaternStructure", "matern"]

# Exponents beyond this are zeros.
_GONE = 45.0
# exp(-2 s) leaves the range of floating point beyond.
_LOWEST = -350.0
# Elements of the table of distances by nodes that are worked on at one time.
_TABLE = chunk(2**20)
# Beyond this smoothness the correlation is the Gaussian one, to the eye.
_SMOOTH = 50.0
# Logarithm of a smoothness beyond which the correlation is the Gaussian one, to 1e-11.
_GAUSSIAN = 25.0
# Stirling's series with three terms is exact to rounding from here.
_LARGE = 1e3
# Correlations at a smoothness below exp of this are below 1e-40, and zero beside the ones on the diagonal.
_UNRELATED = -100.0


def matern(x: FloatArray, log_nu: float, order: int = 2) -> Jet:
    """The correlation at x > 0 with derivatives in x and log nu.

    Parameters
    ----------
    x : ndarray, shape (n,)
    log_nu : float
    order : int
        With 0 the derivatives are left out.

    Returns
    -------
    Jet
        first (2, n) and second (2, 2, n), x before log nu.

    Examples
    --------
    With nu = 1/2 it is exp(-x).

    >>> f = matern(np.array([0.5, 2.0]), np.log(0.5))
    >>> f.value.round(6), f.first[0].round(6)
    (array([0.606531, 0.135335]), array([-0.606531, -0.135335]))
    """
    if log_nu > _GAUSSIAN:
        return _gaussian(x, log_nu, order)
    if log_nu < _UNRELATED:
        return Jet.constant(np.zeros(x.shape), 2 if order else 0)
    nu = float(np.exp(log_nu))
    t = _nodes(float(x.min()), nu)
    pieces = np.array_split(x, max(1, x.size * t.size // _TABLE))
    parts = [_expectations(piece, t, nu, order) for piece in pieces]
    return Jet(*(np.concatenate(arrays, axis=-1) for arrays in zip(*parts, strict=True)))


def _gaussian(x: FloatArray, log_nu: float, order: int) -> Jet:
    """The limit exp(-x^2 / (4 nu)) of large nu."""
    q = np.exp(2.0 * np.log(0.5 * x) - log_nu)
    value = np.exp(-q)
    if order == 0:
        return Jet.constant(value, 0)
    mixed = 2.0 * q / x * (1.0 - q)
    second = np.array([[(4.0 * q - 2.0) * q / x**2, mixed], [mixed, q * q - q]])
    return Jet(value, np.array([-2.0 * q / x, q]) * value, second * value)


def _expectations(x: FloatArray, t: FloatArray, nu: float, order: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    # In t = log(g / nu) nothing cancels where nu is large.
    log_weight = _log_constant(nu) + np.log(t[1] - t[0]) - nu * _exp_less_line(t, nu)
    y = 0.25 / nu * np.exp(-t)
    table = np.exp(log_weight - x[:, None] ** 2 * y)  # (n, nodes)
    value = table.sum(axis=1)
    if order == 0:
        return value, np.zeros((0, x.size)), np.zeros((0, 0, x.size))
    # Score of log nu, and its derivative: d log density = nu (log g - digamma(nu)).
    score = nu * t + nu * _log_less_digamma(nu)
    twice = score**2 + score - nu**2 * special.polygamma(1, nu)
    Ey, Eyy, Es, Ess, Esy = (table @ np.column_stack([y, y**2, score, twice, score * y])).T
    first = np.array([-2.0 * x * Ey, Es])
    mixed = -2.0 * x * Esy
    return value, first, np.array([[4.0 * x**2 * Eyy - 2.0 * Ey, mixed], [mixed, Ess]])


def _exp_less_line(t: FloatArray, nu: float) -> FloatArray:
    """exp(t) - 1 - t."""
    if nu < _LARGE:
        return np.asarray(np.expm1(t) - t)
    # Every |t| is below 0.4 there: the first term left out is 1e-15 of the sum.
    total = np.ones_like(t)
    for k in range(13, 2, -1):
        total = 1.0 + total * t / k
    return 0.5 * t * t * total


def _log_constant(nu: float) -> float:
    """nu log(nu) - nu - log Gamma(nu)."""
    if nu < _LARGE:
        return float(nu * np.log(nu) - nu - special.gammaln(nu))
    return float(0.5 * np.log(nu / (2.0 * np.pi)) - 1.0 / (12.0 * nu) + 1.0 / (360.0 * nu**3))


def _log_less_digamma(nu: float) -> float:
    """log(nu) - digamma(nu)."""
    if nu < _LARGE:
        return float(np.log(nu) - special.digamma(nu))
    return 1.0 / (2.0 * nu) + 1.0 / (12.0 * nu**2) - 1.0 / (120.0 * nu**4)


def _nodes(least: float, nu: float) -> FloatArray:
    """Values of t = log(g / nu) at which the integrand is not zero for x >= least, evenly spaced; about a hundred.

    Below, exp(t) - 1 - t > t^2 / (2 - t) for t < 0, so that nu (exp(t) - 1 - t) > _GONE where the second candidate is.
    """
    r = _GONE / nu
    high = np.log1p(r + np.sqrt(2.0 * r))
    by_x = 2.0 * np.log(0.5 * least) - np.log(_GONE + nu * _GONE) - np.log(nu)
    low = max(by_x, -r - np.sqrt(2.0 * r), _LOWEST - np.log(nu))
    step = min(0.12, 0.5 / np.sqrt(nu))
    return np.arange(min(low, high - 20.0 * step), high + step, step)


class _MaternDecay(Decay):
    """phi are the root of the inverse range and log nu."""

    shape_names: ClassVar[tuple[str, ...]] = ("log smoothness",)

    def profile(self, phi: FloatArray, x: FloatArray, order: int) -> Jet:
        different, place = np.unique(x, return_inverse=True)
        place = place.reshape(x.shape)
        apart = different > 0.0
        n = 2 if order else 0
        out = Jet.constant(np.ones(different.size), n)
        if apart.any():
            found = matern(different[apart], float(phi[1]), order)
            out.value[apart], out.first[:, apart], out.second[:, :, apart] = found.value, found.first, found.second
        return Jet(out.value[place], out.first[:, place], out.second[:, :, place])

    def _grid_of_shapes(self) -> Iterator[tuple[float, ...]]:
        return ((float(np.log(nu)),) for nu in (0.25, 0.5, 1.0, 2.0, 4.0))

    def limits(self, phi: FloatArray, label: str) -> tuple[str, ...]:
        if np.exp(phi[1]) <= _SMOOTH:
            return super().limits(phi, label)
        return (*super().limits(phi, label), f"the smoothness of {label} is without bound: gau() fits as well")

    def _shape_parameters(self) -> tuple[NaturalParameter, ...]:
        return (NaturalParameter("smoothness", "smoothness", (), 0.0, np.inf),)


@register
class MaternStructure(DistanceStructure):
    """Matern's correlation with a range and a smoothness.

    Examples
    --------
    >>> mat = MaternStructure.build(3, np.array([0.0, 1.0, 2.0]))
    >>> mat.covariance(mat.theta_of_natural(np.array([1.0, 2.0, 1.5])))[0].round(4)
    array([1.    , 0.9098, 0.7358])
    """

    name: ClassVar[str] = "mat"
    title: ClassVar[str] = "Matern"
    within: ClassVar[tuple[str, ...]] = ("us",)
    decay: ClassVar[type[Decay]] = _MaternDecay
    foreign: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"glmmTMB": "mat", "SAS": "SP(MATERN)", "SPSS": "SP_MATERN"}
    )

    def boundary_derivative(self, theta: FloatArray, G: FloatArray) -> float | None:
        """At an infinite range, where 1 - R goes as distance^p with p up to 2 nu or 2, the least over all such p."""
        found = super().boundary_derivative(theta, G)
        at = self.edge_sizes(theta) < AT_EDGE
        if found is None or self.size == 1 or at[0] or not at[1]:
            return found
        share = np.cos(theta[3]) ** 2 if theta.size > 3 else 1.0
        apart = distances(self.places, 1 if self.places.ndim == 1 else self.places.shape[1])
        apart = apart / np.median(apart[apart > 0.0])
        least = min(-share * theta[0] ** 2 * float(np.vdot(G, apart**p)) for p in np.linspace(0.1, 2.0, 20))
        rest = 0.5 * self.curvature(theta, G).diagonal()[2:][at[2:]]
        return float(min([least, *rest]))
