"""The criterion of a linear mixed model with priors: -2 log-likelihood - 2 log prior density, its mode profiled.

At given relative covariances the rest is a function of beta and w = log sigma^2,

    (n - p or n) (w + log 2 pi) + r2(beta) / sigma^2 + [REML: log|X'V^-1X + P|] - 2 log p(beta, sigma^2, theta),

whose minimum is in closed form where everything is relative to sigma^2 and beta is normal (then sigma^2 is the
penalised residual sum of squares over n + p), and else by a root of its slope in w. Priors are as in blme (Chung et al.
2013, Psychometrika 78:685). `Point.r2` is sigma^2 times the divisor of the model without priors, so that what reads it
has the variance of the mode.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, log, pi
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import scipy.linalg.lapack as lapack

from lme4py.engine.linear.chained import ChainCriterion, ChainProblem
from lme4py.engine.linear.criterion import Criterion, Derivatives, Point, SweptPoint
from lme4py.engine.linear.one_factor import OneFactorCriterion, has_tables
from lme4py.engine.linear.problem import Problem
from lme4py.engine.penalty import PenaltyPoint, covariance_penalty
from lme4py.errors import OptionError
from lme4py.linalg.types import FloatArray

if TYPE_CHECKING:
    from collections.abc import Callable

    from lme4py.priors.fixed import Quadratic

__all__ = ["PenalisedCriterion", "PenalisedPoint", "make_criterion"]

# Where less than this is left of a sum of squares, most of its digits are gone.
_DIGITS = 1e-13

# Weightings of a t density: the last change, and most of them.
_ROUNDS, _ROUNDED = 2000, 1e-15
# The root of the slope in log sigma^2 is looked for this far from the estimate without priors.
_WIDEST = 60.0


class _Least(NamedTuple):
    """Least squares at one theta: X'V^-1X and its root, beta, and the residual sum of squares."""

    K: FloatArray
    R: FloatArray
    beta: FloatArray
    r2: float


class _Inner(NamedTuple):
    """The mode in beta at one log sigma^2."""

    beta: FloatArray
    r2: float  # of the likelihood alone
    precision: FloatArray  # half the curvature of the prior in beta, times sigma^2
    value: float  # of the prior of beta, the constant included
    slope: float  # of the same in log sigma^2


@dataclass(frozen=True)
class PenalisedPoint(SweptPoint):
    """The penalised criterion at one theta.

    Attributes
    ----------
    likelihood : float
        -2 log-likelihood, or the REML criterion, at the mode.
    prior : float
        -2 log density of the priors at the mode.
    """

    likelihood: float = np.nan
    prior: float = np.nan


class PenalisedCriterion(Criterion):
    """-2 log posterior density as a function of theta in the engine's columns.

    Parameters
    ----------
    problem : Problem
        With priors.
    reml : bool
    """

    def __init__(self, problem: Problem, reml: bool) -> None:
        super().__init__(problem, reml)
        if problem.priors is None:
            raise ValueError("the problem has no priors")
        fixed = problem.priors.fixed
        if reml and fixed is not None and np.isfinite(fixed.df):
            raise OptionError(
                "fixef_prior='t' has no restricted likelihood in closed form; use reml=False, or 'normal'."
            )
        self.priors, scaling = problem.priors, problem.scaling
        self.covariance = covariance_penalty(self.priors.covariance, scaling.column_changes)
        # The residual variance on the user's scale over that of the engine.
        self.unit = scaling.y_scale**2 * scaling.weight_scale
        known = problem.known
        inside = 1.0 + log(2.0 * pi / self.df) if known is None else log(2.0 * pi * known)
        self.plain = self.constant - self.df * inside + self.df * log(2.0 * pi)

    def __call__(self, theta: FloatArray) -> float:
        try:
            return self.evaluate(theta).value
        except np.linalg.LinAlgError:
            return np.inf

    def evaluate_factors(self, T: list[FloatArray], theta: FloatArray | None = None) -> PenalisedPoint:
        swept, border = self.eliminate(T)
        least = self._least(self.problem.base.corner - border.cross(border))
        w = self._log_variance(least, T)
        inner = self._beta(least, w)
        prior = inner.value + self._rest(T, w)[0]
        RX, info = lapack.dpotrf(least.K + inner.precision, lower=0, clean=1)
        if info != 0 or not np.isfinite(prior):
            raise np.linalg.LinAlgError("the density of a prior is zero, or the fixed effects are lost in rounding")
        start = swept.log_det + self.plain + self.df * w
        value, likelihood = inner.r2 * exp(-w), inner.r2 * exp(-w)
        if self.reml:
            # The restricted likelihood itself has neither the prior of beta nor its mode.
            value += 2.0 * float(np.log(RX.diagonal()).sum())
            likelihood = least.r2 * exp(-w) + 2.0 * float(np.log(least.R.diagonal()).sum())
        none = np.zeros(0) if theta is None else theta
        r2 = self.df * exp(w)
        return PenalisedPoint(
            none, T, start + value + prior, r2, RX, inner.beta, (swept, border), start + likelihood, prior
        )

    def _least(self, corner: FloatArray) -> _Least:
        p = self.problem.n_fixed
        R, info = lapack.dpotrf(corner, lower=0, clean=1)
        if info != 0 or not (R.diagonal() ** 2 > _DIGITS * self.problem.base.corner.diagonal()).all():
            raise np.linalg.LinAlgError("the residual variance, or that of a fixed effect, is lost in rounding")
        beta = lapack.dtrtrs(R[:p, :p], R[:p, p])[0] if p else np.zeros(0)
        return _Least(corner[:p, :p], R[:p, :p], beta, float(R[p, p]) ** 2)

    def sigma_gradient(self, point: Point) -> list[FloatArray]:
        out = super().sigma_gradient(point)
        here = self._covariance_prior(point)
        return out if here is None else [g + here.gradient(t) for t, g in enumerate(out)]

    def derivatives(self, point: Point) -> Derivatives:
        found = super().derivatives(point)
        here = self._covariance_prior(point)
        if here is None:
            return found
        # The curvature of Sigma times the gradient of the prior is in the Hessian already: G holds both.
        hessian = found.hessian + here.hessian(self.problem.structures, point.theta)
        return Derivatives(found.gradient, hessian, found.G, found.forms)

    def _covariance_prior(self, point: Point) -> PenaltyPoint | None:
        return None if self.covariance is None else self.covariance.at(point.T, self.unit * self.variance(point.r2))

    # --- beta and sigma^2 ---------------------------------------------------------------------------------------------

    @property
    def _is_closed(self) -> bool:
        """Whether beta and sigma^2 are profiled in closed form."""
        fixed = self.priors.fixed
        relative = self.covariance is None or self.covariance.is_relative
        normal = fixed is None or (fixed.common_scale and np.isinf(fixed.df))
        return relative and normal and self.priors.residual is None

    def _log_variance(self, least: _Least, T: list[FloatArray]) -> float:
        """log sigma^2 of the mode."""
        if self.problem.known is not None:
            return log(self.problem.known)
        first = self._first(least)
        return first if self._is_closed else self._root(least, T, first)

    def _first(self, least: _Least) -> float:
        """log sigma^2 where everything is relative to it, and the prior of beta is normal."""
        if self.priors.fixed is None:
            return log(least.r2 / self.df)
        P, target = self._normal(0.0)
        # With two weighted means of beta the sum of squares is that of their difference in the harmonic precision.
        away = least.beta - target
        between = float(away @ P @ np.linalg.solve(least.K + P, least.K @ away))
        return log((least.r2 + between) / (self.df + target.size))

    def _normal(self, w: float) -> tuple[FloatArray, FloatArray]:
        """Precision of beta inside, relative to sigma^2, and its mean."""
        fixed, scaling = self.priors.fixed, self.problem.scaling
        if fixed is None:
            return np.zeros_like(scaling.C), np.zeros(self.problem.n_fixed)
        unit = 1.0 / scaling.weight_scale if fixed.common_scale else scaling.y_scale**2 * exp(w)
        target = np.linalg.solve(scaling.C, (fixed.mean - scaling.b0) / scaling.y_scale)
        P: FloatArray = unit * (scaling.C.T @ fixed.precision @ scaling.C)
        return P, np.asarray(target, dtype=np.float64)

    def _beta(self, least: _Least, w: float) -> _Inner:
        """The mode in beta at one sigma^2."""
        p, fixed = self.problem.n_fixed, self.priors.fixed
        if fixed is None:
            return _Inner(least.beta, least.r2, np.zeros((p, p)), 0.0, 0.0)
        P, target = self._normal(w)
        beta = _mode_of_beta(least, P, target, fixed, w)
        away, moved = beta - target, beta - least.beta
        half = P @ away
        # P of a prior that is not relative to sigma^2 holds sigma^2.
        q = float(away @ half) * exp(-w)
        value, first, second = fixed.of_square(q)
        precision = first * P + 2.0 * second * exp(-w) * np.outer(half, half)
        value += fixed.constant
        slope = 0.0
        if fixed.common_scale:
            value, slope = value + p * (w + log(self.unit)), p - first * q
        return _Inner(beta, least.r2 + float(moved @ least.K @ moved), precision, value, slope)

    def _rest(self, T: list[FloatArray], w: float) -> tuple[float, float]:
        """-2 log density of the other priors, with its slope in w."""
        variance = self.unit * exp(w)
        value, slope = (0.0, 0.0) if self.covariance is None else self.covariance.log_slope(T, variance)
        if self.priors.residual is not None:
            own, first = self.priors.residual.of_variance(variance)
            value, slope = value + own, slope + first * variance
        return value, slope

    def _root(self, least: _Least, T: list[FloatArray], start: float) -> float:
        """Where the slope in log sigma^2 is zero, nearest to a start."""
        fixed = self.priors.fixed
        of_det = self.reml and fixed is not None and not fixed.common_scale

        def slope(w: float) -> float:
            inner = self._beta(least, w)
            out = self.df - inner.r2 * exp(-w) + inner.slope + self._rest(T, w)[1]
            # log|X'V^-1X + sigma^2 P|
            return out + (float(np.trace(np.linalg.solve(least.K + inner.precision, inner.precision))) if of_det else 0)

        from scipy.optimize import brentq

        if not np.isfinite(slope(start)):
            raise np.linalg.LinAlgError("the density of a prior is zero")
        low, high = _bracket(slope, start, -1.0), _bracket(slope, start, 1.0)
        return low if low == high else float(brentq(slope, low, high, xtol=1e-15, rtol=1e-15))


def _bracket(slope: Callable[[float], float], start: float, sign: float) -> float:
    """The first point from a start on where the slope has the sign."""
    step, w = 0.5, start
    while not sign * slope(w) >= 0.0:
        w += sign * step
        step *= 2.0
        if abs(w - start) > _WIDEST:
            raise np.linalg.LinAlgError("the priors leave the residual variance no mode")
    return w


def _mode_of_beta(least: _Least, P: FloatArray, target: FloatArray, fixed: Quadratic, w: float) -> FloatArray:
    """The mode in beta under a density of precision P / sigma^2.

    Under a t density it is that of a normal one whose precision is weighted by how far beta is out.
    """
    weight, beta = 1.0, least.beta
    for _ in range(_ROUNDS):
        right = least.K @ least.beta + weight * (P @ target)
        new = np.asarray(np.linalg.solve(least.K + weight * P, right), dtype=np.float64)
        done = float(np.abs(new - beta).max(initial=0.0)) <= _ROUNDED * max(1.0, float(np.abs(new).max(initial=0.0)))
        beta, away = new, new - target
        if done or np.isinf(fixed.df):
            break
        weight = fixed.of_square(float(away @ P @ away) * exp(-w))[1]
    return beta


def make_criterion(problem: Problem, reml: bool) -> Criterion:
    """The criterion of a problem: with its priors where it has some, by the way that it can be computed.

    Parameters
    ----------
    problem : Problem
    reml : bool
    """
    if isinstance(problem, ChainProblem):
        return ChainCriterion(problem, reml)
    if problem.priors is not None:
        return PenalisedCriterion(problem, reml)
    return (OneFactorCriterion if has_tables(problem) else Criterion)(problem, reml)
