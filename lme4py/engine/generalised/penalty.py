"""-2 log prior densities of a generalised linear mixed model in the engine's columns, with derivatives.

Jeffreys' prior of the fixed effects is |X'WX|^(power / 2) with the expected weights W of the model without random
effects, as in Sterzinger & Kosmidis (2023, Stat. Comput. 33:53); power 1 is Firth's (1993) penalty. The gradient of
-power log|X'WX| is -power sum_i h_i dlog w_i/deta x_i with the leverages h.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lme4py.engine.penalty import CovariancePenalty, PenaltyPoint, covariance_penalty
from lme4py.errors import OptionError
from lme4py.linalg.types import FloatArray
from lme4py.priors.fixed import Jeffreys

if TYPE_CHECKING:
    from lme4py.design.design import Design
    from lme4py.engine.generalised.problem import GlmmProblem, Mode
    from lme4py.families.base import Family
    from lme4py.priors.fixed import Quadratic

__all__ = ["GlmmPenalty", "GlmmPenaltyPoint", "PenalisedRule", "glmm_penalty"]


class GlmmPenaltyPoint(NamedTuple):
    """The penalty at one point.

    Attributes
    ----------
    value : float
    theta, beta : ndarray, shape (m,) and (p,)
        Gradients.
    covariance : PenaltyPoint or None
    curvature : ndarray, shape (p, p)
        Second derivatives in beta; 0 for Jeffreys' prior, where secants learn them.
    """

    value: float
    theta: FloatArray
    beta: FloatArray
    covariance: PenaltyPoint | None
    curvature: FloatArray

    def hessian(self, problem: GlmmProblem, theta: FloatArray) -> FloatArray:
        """Second derivatives in (theta, beta), shape (m + p, m + p)."""
        m, p = problem.n_theta, problem.n_fixed
        out = np.zeros((m + p, m + p))
        if self.covariance is not None:
            out[:m, :m] = self.covariance.hessian(problem.structures, theta, curvature=True)
        out[m:, m:] = self.curvature
        return out


@dataclass(frozen=True)
class GlmmPenalty:
    """The priors of a generalised linear mixed model.

    Attributes
    ----------
    covariance : CovariancePenalty or None
    fixed : Quadratic or None
        Of beta on the user's scale.
    jeffreys : float
        Power of Jeffreys' prior; 0 for none.
    """

    covariance: CovariancePenalty | None
    fixed: Quadratic | None
    jeffreys: float

    @property
    def has_fixed(self) -> bool:
        """Whether the fixed effects have a prior."""
        return self.fixed is not None or self.jeffreys > 0.0

    def at(self, problem: GlmmProblem, mode: Mode) -> GlmmPenaltyPoint:
        """The penalty at the parameters of a mode.

        Parameters
        ----------
        problem : GlmmProblem
        mode : Mode
        """
        m, p = problem.n_theta, problem.n_fixed
        value, by_theta, covariance = 0.0, np.zeros(m), None
        if self.covariance is not None:
            T = problem.structures.factors(mode.theta)
            covariance = self.covariance.at(T)
            zeros = [np.zeros(t.shape) for t in T]
            value = covariance.value
            G = [zero + covariance.gradient(i) for i, zero in enumerate(zeros)]
            by_theta = problem.structures.covariance_pullback(mode.theta, G)
        by_beta, curvature = np.zeros(p), np.zeros((p, p))
        if self.fixed is not None:
            own, by_beta, curvature = _quadratic(self.fixed, problem.C, mode.beta)
            value += own
        if self.jeffreys:
            own, by_beta = _jeffreys(problem, mode.beta, self.jeffreys)
            value += own
        return GlmmPenaltyPoint(value, by_theta, by_beta, covariance, curvature)


def _quadratic(fixed: Quadratic, C: FloatArray, beta: FloatArray) -> tuple[float, FloatArray, FloatArray]:
    away = C @ beta - fixed.mean
    half = C.T @ fixed.precision @ away
    value, first, second = fixed.of_square(float(away @ fixed.precision @ away))
    curvature = 2.0 * first * (C.T @ fixed.precision @ C) + 4.0 * second * np.outer(half, half)
    return value + fixed.constant, 2.0 * first * half, curvature


def _jeffreys(problem: GlmmProblem, beta: FloatArray, power: float) -> tuple[float, FloatArray]:
    """-power log|X'WX| in the user's columns, with its gradient in beta inside."""
    rows = problem.family.derivatives(problem.data, problem.fixed_part(beta), 0.0, 3, expected=True)
    X = problem.X
    L = np.linalg.cholesky(X.T @ (rows.w_exp[:, None] * X))
    half = np.linalg.solve(L, X.T)
    value = 2.0 * float(np.log(L.diagonal()).sum()) - 2.0 * float(np.linalg.slogdet(problem.C)[1])
    gradient: FloatArray = -power * (X.T @ (np.einsum("ij,ij->j", half, half) * rows.dw_exp))
    return -power * value, gradient


class PenalisedRule:
    """A quadrature rule with the penalty in its value and gradient.

    Parameters
    ----------
    rule : callable
        Laplace to (value, gradient) of the likelihood.
    """

    def __init__(self, rule: Callable[[Any], tuple[float, FloatArray]]) -> None:
        self.rule = rule

    def __call__(self, found: Any) -> tuple[float, FloatArray]:
        """Value and gradient at a point.

        Parameters
        ----------
        found : PenalisedLaplace
        """
        value, gradient = self.rule(found)
        return value + found.penalty.value, found.with_penalty(gradient)


def glmm_penalty(design: Design, family: Family, maps: tuple[FloatArray, ...]) -> GlmmPenalty | None:
    """The priors of a design; None without any.

    Parameters
    ----------
    design : Design
    family : Family
    maps : tuple of ndarray, each (k, k)
        From the engine's columns to the user's, of each term.

    Raises
    ------
    OptionError
        Jeffreys' prior for a family whose expected information is not that of the coefficients alone.
    """
    priors = design.priors
    if priors is None:
        return None
    if priors.residual is not None:
        raise OptionError("resid_prior is of the residual variance of lmer(); leave it out.")
    power = priors.fixed.power if isinstance(priors.fixed, Jeffreys) else 0.0
    if power and (family.n_nuisance or not family.has_expected):
        raise OptionError(
            f"fixef_prior='jeffreys' is for families whose only parameters are coefficients (binomial, poisson); the "
            f"{family.name} family has others. Use 'normal' or 't'."
        )
    fixed = None if priors.fixed is None else priors.fixed.quadratic(design.x_names)
    covariance = covariance_penalty([priors.of_term(term) for term in design.terms], maps)
    return GlmmPenalty(covariance, fixed, power)
