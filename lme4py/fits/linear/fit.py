"""The frozen result of a linear mixed model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lme4py.engine.linear.criterion import Criterion, Point, Problem
from lme4py.fits.derived import derived
from lme4py.fits.normal import NormalFit
from lme4py.fits.steps import linear_predictor
from lme4py.linalg.types import FloatArray

__all__ = ["LinearFit"]


@dataclass(frozen=True, kw_only=True)
class LinearFit(NormalFit):
    """A fitted linear mixed model: numbers only, everything on the user's scale.

    Beside those of `NormalFit`:

    Attributes
    ----------
    sigma : float
        Residual standard deviation (of an observation with weight 1); `vcov` is sigma^2 (X'V^-1X)^-1.
    problem : Problem
        The engine's side of the model.
    theta_inside : ndarray, shape (m,)
        theta in the engine's columns.
    """

    kind: ClassVar[str] = "linear mixed model"

    problem: Problem
    theta_inside: FloatArray

    @property
    def n_params(self) -> int:
        """Fixed effects, theta and the residual scale, unless that is known."""
        return self.beta.size + self.theta.size + int(self.has_residual)

    @derived
    def fitted(self) -> FloatArray:
        """Fitted values of the rows used, offset and conditional modes included, shape (n,)."""
        return linear_predictor(self.design, self.beta, self.modes)

    @property
    def theta_unit(self) -> float:
        """The residual standard deviation."""
        return self.sigma

    @property
    def has_residual(self) -> bool:
        """Whether the residual standard deviation is estimated."""
        return self.design.sigma is None

    @derived
    def knapp_hartung(self) -> float:
        """(y - X beta)'V^-1 (y - X beta) / (n - p) with V in the units of a known sigma: 1 in expectation."""
        point, known = self.point, self.problem.known
        return float("nan") if known is None else point.r2 / known / (self.design.n_obs - self.beta.size)

    @derived
    def point(self) -> Point:
        """The factor at the optimum."""
        return Criterion(self.problem, self.reml).evaluate(self.theta_inside)
