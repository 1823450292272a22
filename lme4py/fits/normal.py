"""What models of normally distributed responses have in common."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from lme4py.engine.identification.record import Identification
from lme4py.families.registry import Family, make_family
from lme4py.families.response import ResponseData
from lme4py.fits.base import Fit
from lme4py.fits.derived import derived
from lme4py.fits.method import METHODS, Ddf
from lme4py.linalg.types import FloatArray

__all__ = ["NormalFit"]

_NORMAL = make_family("gaussian", "identity")


@dataclass(frozen=True, kw_only=True)
class NormalFit(Fit):
    """A fit whose response is the linear predictor plus normal errors, whatever their covariance is.

    Beside those of `Fit`:

    Attributes
    ----------
    reml : bool
    sigma : float
        Scale of the residual standard deviations.
    """

    ddf_methods: ClassVar[tuple[Ddf, ...]] = METHODS
    normal_errors: ClassVar[bool] = True
    robust_variances: ClassVar[bool] = False

    reml: bool
    sigma: float
    identification: Identification = field(default_factory=Identification)

    @property
    def default_ddf(self) -> str:
        """Degrees of freedom of tests and intervals of the fixed effects where none are asked for."""
        return self.conventions.ddf or "satterthwaite"

    @property
    def approximation(self) -> None:
        """None: the integral over the random effects is exact."""

    @property
    def integral_check(self) -> None:
        """None: the integral over the random effects is exact."""

    @property
    def linear_predictor(self) -> FloatArray:
        """The fitted values: the link is the identity."""
        return self.fitted

    @property
    def family(self) -> Family:
        """The normal distribution."""
        return _NORMAL

    @derived
    def data(self) -> ResponseData:
        """The response and its weights, which divide the residual variance."""
        return ResponseData(self.design.y, None, self.design.weights)

    @property
    def lam(self) -> float:
        """Log of the square of `sigma`."""
        return 2.0 * float(np.log(self.sigma))

    @property
    def recession(self) -> None:
        """None: there is always a maximum."""

    @property
    def others(self) -> tuple[float, ...]:
        """None: the normal distribution has no other parameters."""
        return ()

    @property
    def log_dispersion(self) -> None:
        """None: the residual standard deviation is one of the random effects' kind."""

    @property
    def log_dispersion_se(self) -> None:
        """None, as `log_dispersion`."""

    @property
    def dispersion(self) -> float:
        """The square of `sigma`."""
        return self.sigma**2

    @property
    def dispersion_limit(self) -> str:
        """Always "": a residual variance of zero is refused."""
        return ""

    @property
    def distribution(self) -> Family:
        """The normal one."""
        return self.family

    @property
    def thresholds(self) -> None:
        """None: the response is a number."""

    @property
    def threshold_estimates(self) -> None:
        """None, as `thresholds`."""

    @property
    def threshold_se(self) -> None:
        """None, as `thresholds`."""

    @property
    def threshold_vcov(self) -> None:
        """None, as `thresholds`."""

    @property
    def threshold_names(self) -> tuple[str, ...]:
        """(), as `thresholds`."""
        return ()
