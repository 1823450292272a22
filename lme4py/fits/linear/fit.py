"""The frozen result of a linear mixed model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import numpy as np

from lme4py.engine.linear.chained import ChainProblem
from lme4py.engine.linear.criterion import Criterion, Point
from lme4py.engine.linear.hessian import exact_hessian, has_exact_hessian
from lme4py.engine.linear.penalised import make_criterion
from lme4py.engine.linear.problem import Problem, make_problem
from lme4py.fits.derived import derived
from lme4py.fits.method import Ddf
from lme4py.fits.normal import NormalFit
from lme4py.fits.steps import linear_predictor
from lme4py.linalg.types import FloatArray

__all__ = ["LinearFit", "PenalisedLinearFit"]


# Relative step of the central differences of analytic gradients: their error is of order step^2, rounding 1e-12 / step.
_STEP = 1e-4


class Curvature(NamedTuple):
    """Second derivatives at the optimum, in the engine's columns.

    Attributes
    ----------
    hessian : ndarray, shape (m, m)
        Of the criterion profiled over sigma, in theta.
    slope : ndarray, shape (m,)
        y'P V_i P y: minus the derivative of the penalised residual sum of squares.
    r2 : float
        That sum.
    df : int
        What it is divided by.
    """

    hessian: FloatArray
    slope: FloatArray
    r2: float
    df: int


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
    def point(self) -> Point:
        """The factor at the optimum."""
        return make_criterion(self.problem, self.reml).evaluate(self.theta_inside)

    @derived
    def in_blocks(self) -> LinearFit:
        """The same fit with a block of all times for each group where it has their sparse inverse; else itself.

        Raises
        ------
        DesignError
            The blocks do not fit into memory.
        """
        if not isinstance(self.problem, ChainProblem):
            return self
        return replace(self, problem=make_problem(self.design))

    @derived
    def curvature(self) -> Curvature:
        """Second derivatives at the optimum: exact ones, or differences of gradients."""
        criterion, point = make_criterion(self.problem, self.reml), self.point
        forms = criterion.average_information(point)
        if has_exact_hessian(criterion, point):
            hessian = exact_hessian(criterion, point, criterion.sigma_gradient(point), forms)
        else:
            hessian = _differences(criterion, self.theta_inside)
        return Curvature(hessian, forms[1], point.r2, criterion.df)


@dataclass(frozen=True, kw_only=True)
class PenalisedLinearFit(LinearFit):
    """A linear mixed model with priors: the mode of its posterior density.

    Beside those of `LinearFit`:

    Attributes
    ----------
    criterion : float
        What was minimised: `likelihood` and `prior` together; under REML with a prior of the fixed effects these are
        integrated over that prior, and the sum is another one.
    likelihood : float
        -2 log-likelihood, or the REML criterion, at the mode.
    prior : float
        -2 log density of the priors at the mode, without the normalising constants of those of variances.
    """

    kind: ClassVar[str] = "penalised linear mixed model"
    ddf_methods: ClassVar[tuple[Ddf, ...]] = ("residual", "normal")
    penalised: ClassVar[bool] = True

    likelihood: float
    prior: float

    @property
    def log_likelihood(self) -> float:
        """-likelihood / 2: of the data alone, at the mode."""
        return -0.5 * self.likelihood

    @property
    def default_ddf(self) -> str:
        """Degrees of freedom of tests and intervals of the fixed effects where none are asked for."""
        return self.conventions.ddf or "normal"


def _differences(criterion: Criterion, theta: FloatArray) -> FloatArray:
    rows = []
    for i, step in enumerate(_STEP * np.maximum(np.abs(theta), 0.1)):
        moved = np.zeros(theta.size)
        moved[i] = step
        rows.append((criterion.gradient(theta + moved) - criterion.gradient(theta - moved)) / (2.0 * step))
    hessian: FloatArray = np.array(rows).reshape(theta.size, theta.size)
    return 0.5 * (hessian + hessian.T)
