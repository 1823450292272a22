"""From the linear predictor to the quantity that is averaged, with the derivatives of the delta method.

A curve is a function f(eta, v) of a row's linear predictor eta and of the variance v of its random effects. Averaged
over random effects, f(eta, v) = E h(eta + sqrt(v) z) with z standard normal (`lme4py.inference.prediction.averages`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final

import numpy as np
from scipy import special

from lme4py.families.links import Link
from lme4py.inference.prediction.averages import MeanDerivatives, averaged_mean
from lme4py.linalg.types import FloatArray

__all__ = ["Averaged", "Composed", "Identity", "Inverse", "Outer", "ResponseCurve"]

_ABSENT: Final[Any] = None


class ResponseCurve(ABC):
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
    def __call__(self, eta: FloatArray, v: FloatArray | None, order: int) -> MeanDerivatives:
        """Value (order 0), first (1) and second (2) derivatives; `v` broadcasts with `eta`."""


class Identity(ResponseCurve):
    """f = eta."""

    is_linear = True

    def __call__(self, eta: FloatArray, v: FloatArray | None, order: int) -> MeanDerivatives:
        return MeanDerivatives(eta, np.ones_like(eta), ee=np.zeros_like(eta))


@dataclass(frozen=True)
class Inverse(ResponseCurve):
    """f = g^-1(eta) for a link g."""

    link: Link

    def __call__(self, eta: FloatArray, v: FloatArray | None, order: int) -> MeanDerivatives:
        if order == 0:
            return MeanDerivatives(self.link.mean(eta))
        d = self.link.mean_derivatives(eta, order)
        return MeanDerivatives(d[0], d[1], ee=d[2] if order == 2 else _ABSENT)


@dataclass(frozen=True)
class Averaged(ResponseCurve):
    """f = E g^-1(eta + sqrt(v) z); see `lme4py.inference.prediction.averages`."""

    link: Link

    @property
    def uses_variance(self) -> bool:
        return True

    def __call__(self, eta: FloatArray, v: FloatArray | None, order: int) -> MeanDerivatives:
        return averaged_mean(self.link, eta, v, order)


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
class Composed(ResponseCurve):
    """g(f(eta, v))."""

    outer: Outer
    inner: ResponseCurve

    @property
    def uses_variance(self) -> bool:
        return self.inner.uses_variance

    def __call__(self, eta: FloatArray, v: FloatArray | None, order: int) -> MeanDerivatives:
        d = self.inner(eta, v, order)
        value, g1, g2 = self.outer(d.f)
        if order == 0:
            return MeanDerivatives(value)

        def second(cross: FloatArray, a: FloatArray, b: FloatArray) -> FloatArray:
            return g1 * cross + g2 * a * b

        v = g1 * d.v if self.uses_variance else _ABSENT
        if order == 1:
            return MeanDerivatives(value, g1 * d.e, v)
        both = MeanDerivatives(value, g1 * d.e, v, second(d.ee, d.e, d.e))
        if self.uses_variance:
            return replace(both, ev=second(d.ev, d.e, d.v), vv=second(d.vv, d.v, d.v))
        return both
