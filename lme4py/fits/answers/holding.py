"""The likelihood with one parameter held at a value: what every kind of model gives to a profile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from lme4py.fits.parameters import Parameter
from lme4py.linalg.types import FloatArray

__all__ = ["HeldModel", "Minimum"]


@dataclass(frozen=True)
class Minimum:
    """The smallest value of the criterion with the parameter at v.

    Attributes
    ----------
    v : float
    x : ndarray
        Free coordinates.
    value : float
    slope : float
        Derivative of `value` in v.
    theta : ndarray, shape (m,)
        Inside.
    log_sigma : float
        Inside.
    evaluations : int
    """

    v: float
    x: FloatArray
    value: float
    slope: float
    theta: FloatArray
    log_sigma: float
    evaluations: int


class HeldModel(Protocol):
    """The criterion with one parameter held, and everything else free.

    Attributes
    ----------
    parameter : Parameter
    ends : bool
        Whether the criterion has a value at the end of the range of a standard deviation or a dispersion.
    reml : bool
        Which criterion.
    estimate : Minimum
        The fit itself.
    others : sequence of Minimum
        Other minima of the criterion.
    bounds : tuple of float
        The range of the coordinate of the parameter.
    guess : float
        Size of a first step where there is no standard error.
    """

    parameter: Parameter
    ends: bool
    reml: bool

    @property
    def estimate(self) -> Minimum: ...

    @property
    def others(self) -> list[Minimum]: ...

    @property
    def bounds(self) -> tuple[float, float]: ...

    @property
    def guess(self) -> float: ...

    def minimum(self, v: float, x: FloatArray) -> Minimum:
        """Minimise over everything else from the coordinates x."""

    def covariances(self, minimum: Minimum) -> list[FloatArray]:
        """Covariances of all terms at a minimum, on the user's scale."""

    def residual_change(self, minimum: Minimum) -> float:
        """Residual variance there less that of the fit; 0 where it is not a parameter of its own."""
