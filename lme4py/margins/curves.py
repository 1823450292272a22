"""From the linear predictor to the quantity that is averaged, with the derivatives of the delta method.

A curve is a function f(eta, v) of a row's linear predictor eta and of the variance v of its random effects. Averaged
over random effects, f(eta, v) = E h(eta + sqrt(v) z) with z standard normal; then df/dv = 1/2 d2f/deta2 (the heat
equation), so that all derivatives follow from those in eta.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final

import numpy as np
from scipy import special

from lme4py.engine.links import Link
from lme4py.engine.types import FloatArray

__all__ = ["Averaged", "Composed", "Curve", "Derivatives", "Identity", "Inverse", "Outer"]

# Steps of the trapezoidal rule over a standard normal variable. Its error falls exponentially with the inverse step h:
# by exp(-2 pi^2 / h^2) for the density, and by exp(-2 pi d / (h sd)) for a mean that is analytic in a strip of
# half-width d (logit pi, cloglog pi / 2, cauchit 1). Gauss-Hermite rules of the same error need several times as many
# points where the standard deviation is large.
_STEP: Final = 0.7
_STRIPS: Final = {"logit": np.pi, "cauchit": 1.0}
_REACH: Final = 8.5
# Numbers of rows times nodes that are worked on at a time.
_HELD: Final = 100_000
_ABSENT: Final[Any] = None


@dataclass(frozen=True, slots=True)
class Derivatives:
    """A curve and its derivatives, each of the shape of eta; what the order left out is None.

    Attributes
    ----------
    f : ndarray
    e, v : ndarray
        First derivatives in eta and in the variance (order 1).
    ee, ev, vv : ndarray
        Second derivatives (order 2).
    """

    f: FloatArray
    e: FloatArray = _ABSENT
    v: FloatArray = _ABSENT
    ee: FloatArray = _ABSENT
    ev: FloatArray = _ABSENT
    vv: FloatArray = _ABSENT


class Curve(ABC):
    """f(eta, v).

    Attributes
    ----------
    is_linear : bool
        f(eta) = eta: averages over rows are averages of the design.
    uses_variance : bool
        Whether v matters.
    """

    is_linear: ClassVar[bool] = False

    @property
    def uses_variance(self) -> bool:
        return False

    @abstractmethod
    def __call__(self, eta: FloatArray, v: FloatArray | None, order: int) -> Derivatives:
        """Value (order 0), first (1) and second (2) derivatives; `v` broadcasts with `eta`."""


class Identity(Curve):
    """f = eta."""

    is_linear = True

    def __call__(self, eta: FloatArray, v: FloatArray | None, order: int) -> Derivatives:
        return Derivatives(eta, np.ones_like(eta), ee=np.zeros_like(eta))


@dataclass(frozen=True)
class Inverse(Curve):
    """f = g^-1(eta) for a link g."""

    link: Link

    def __call__(self, eta: FloatArray, v: FloatArray | None, order: int) -> Derivatives:
        if order == 0:
            return Derivatives(self.link.mean(eta))
        d = _inverse_link(self.link, eta, order)
        return Derivatives(d[0], d[1], ee=d[2] if order == 2 else _ABSENT)


@dataclass(frozen=True)
class Averaged(Curve):
    """f = E g^-1(eta + sqrt(v) z): closed form for identity, log and probit, else quadrature."""

    link: Link

    @property
    def uses_variance(self) -> bool:
        return True

    def __call__(self, eta: FloatArray, v: FloatArray | None, order: int) -> Derivatives:
        spread = np.broadcast_to(np.zeros(()) if v is None else np.maximum(v, 0.0), eta.shape)
        closed = {"probit": _probit, "log": _log, "identity": _identity}.get(self.link.name)
        if closed is not None and not (self.link.name == "log" and np.isfinite(self.link.high)):
            return _by_heat(closed(eta, spread), order)
        return _by_heat(_quadrature(self.link, eta, spread, order), order)


def _inverse_link(link: Link, eta: FloatArray, order: int) -> tuple[FloatArray, ...]:
    """The inverse link and its derivatives, at least `order` of them."""
    if link.name != "logit":
        return link.derivatives(eta)
    # The logit link on large grids: no derivative that is not asked for, and no 1 - mu by subtraction.
    t = np.exp(-np.abs(eta))
    large = 1.0 / (1.0 + t)
    small = t * large
    positive = eta > 0
    mean = np.where(positive, large, small)
    first = large * small
    if order < 2:
        return mean, first
    difference = large - small
    second = first * np.where(positive, -difference, difference)
    return (mean, first, second) if order == 2 else (mean, first, second, first * (1.0 - 6.0 * first))


def _by_heat(d: tuple[FloatArray, ...], order: int) -> Derivatives:
    """Derivatives in v from those in eta, d = (f, f', ..., f'''')."""
    if order == 0:
        return Derivatives(d[0])
    if order == 1:
        return Derivatives(d[0], d[1], 0.5 * d[2])
    return Derivatives(d[0], d[1], 0.5 * d[2], d[2], 0.5 * d[3], 0.25 * d[4])


def _identity(eta: FloatArray, v: FloatArray) -> tuple[FloatArray, ...]:
    zero = np.zeros_like(eta)
    return eta, zero + 1.0, zero, zero, zero


def _log(eta: FloatArray, v: FloatArray) -> tuple[FloatArray, ...]:
    mean = np.exp(eta + 0.5 * v)
    return mean, mean, mean, mean, mean


def _probit(eta: FloatArray, v: FloatArray) -> tuple[FloatArray, ...]:
    root = np.sqrt(1.0 + v)
    a = eta / root
    density = np.exp(-0.5 * a * a) / np.sqrt(2.0 * np.pi) / root
    second = -a * density / root
    third = (a * a - 1.0) * density / root**2
    return special.ndtr(a), density, second, third, (3.0 * a - a**3) * density / root**3


def _nodes(link: Link, widest: float) -> tuple[FloatArray, FloatArray]:
    """Nodes and weights for the standard normal distribution, for standard deviations up to `widest`."""
    strip = _STRIPS.get(link.name, 0.5 * np.pi)
    step = min(_STEP, 2.0 * np.pi * strip / (37.0 * max(widest, 1e-3)))
    half = int(np.ceil(_REACH / step))
    nodes = step * np.arange(-half, half + 1, dtype=np.float64)
    weights: FloatArray = np.exp(-0.5 * nodes * nodes)
    total = float(weights.sum())
    return nodes, weights / total


def _quadrature(link: Link, eta: FloatArray, v: FloatArray, order: int) -> tuple[FloatArray, ...]:
    sd = np.sqrt(v)
    nodes, weights = _nodes(link, float(sd.max(initial=0.0)))
    # The derivative in the variance is half the second one in eta.
    highest = {0: 0, 1: 2, 2: 3}[order]
    sums = [np.zeros_like(eta) for _ in range(highest + 1 + (order == 2))]
    # By Stein's identity the fourth derivative is the mean of z times the third over the standard deviation; with a
    # standard deviation of zero nothing depends on it.
    inverse = np.divide(1.0, sd, out=np.zeros_like(sd), where=sd > 0)
    block = max(1, _HELD // max(eta.size, 1))
    for start in range(0, nodes.size, block):
        z, w = nodes[start : start + block], weights[start : start + block]
        at = eta + sd * z.reshape(-1, *(1,) * eta.ndim)
        if order == 0:
            sums[0] += np.tensordot(w, link.mean(at), axes=1)
            continue
        parts = _inverse_link(link, at, highest)
        for total, part in zip(sums, parts, strict=False):
            total += np.tensordot(w, part, axes=1)
        if order == 2:
            sums[4] += np.tensordot(w * z, parts[3], axes=1) * inverse
    return tuple(sums)


@dataclass(frozen=True)
class Outer:
    """A function of one variable with two derivatives, by name: "log", "logit", "exp", "expit" or "identity"."""

    name: str

    def __call__(self, x: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Value and two derivatives, each of the shape of x."""
        if self.name == "log":
            return np.log(x), 1.0 / x, -1.0 / (x * x)
        if self.name == "logit":
            slope = 1.0 / (x * (1.0 - x))
            return special.logit(x), slope, (2.0 * x - 1.0) * slope * slope
        if self.name == "exp":
            value = np.exp(x)
            return value, value, value
        if self.name == "expit":
            value = special.expit(x)
            slope = value * special.expit(-x)
            return value, slope, slope * (1.0 - 2.0 * value)
        return x, np.ones_like(x), np.zeros_like(x)


@dataclass(frozen=True)
class Composed(Curve):
    """g(f(eta, v))."""

    outer: Outer
    inner: Curve

    @property
    def uses_variance(self) -> bool:
        return self.inner.uses_variance

    def __call__(self, eta: FloatArray, v: FloatArray | None, order: int) -> Derivatives:
        d = self.inner(eta, v, order)
        value, g1, g2 = self.outer(d.f)
        if order == 0:
            return Derivatives(value)

        def second(cross: FloatArray, a: FloatArray, b: FloatArray) -> FloatArray:
            return g1 * cross + g2 * a * b

        v = g1 * d.v if self.uses_variance else _ABSENT
        if order == 1:
            return Derivatives(value, g1 * d.e, v)
        both = Derivatives(value, g1 * d.e, v, second(d.ee, d.e, d.e))
        if self.uses_variance:
            return replace(both, ev=second(d.ev, d.e, d.v), vv=second(d.vv, d.v, d.v))
        return both
