"""How good the integral over the random effects is: a finer rule at the estimates, and where its maximum lies.

The finer rule is evaluated once, with its gradient g, at the estimates. With the covariance V of the estimates, one
Newton step, V g / 2 in units of -2 log-likelihood, says where its own maximum lies; that step in standard errors says
whether the difference between the two rules matters, whatever the number of groups.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lme4py.engine.generalised.integrals.nested_quadrature import find_nesting, make_quadrature
from lme4py.engine.generalised.integrals.quadrature import MAX_DIMENSION, MAX_NODES
from lme4py.engine.generalised.laplace import Laplace, laplace
from lme4py.engine.generalised.problem import GlmmProblem, ModeError, ModeFinder
from lme4py.linalg.types import FloatArray
from lme4py.text import Sentence

__all__ = ["IntegralCheck", "check_integral"]

# Differences of this many log-likelihood units move likelihood-ratio tests, of this many standard errors intervals.
LOG_LIKELIHOOD = 0.1
STANDARD_ERRORS = 1.0
# A Laplace approximation that moves an estimate by more standard errors is poor: 95 % intervals then cover 92 %.
POOR = 0.5
# Most points per dimension of the finer rule: above, weights of Gauss-Hermite rules are zeros of double precision.
_MOST_POINTS = 200
# The finer rule of a Laplace fit: as many points as rows times nodes allow.
_LAPLACE_POINTS = (15, 9, 7, 5)
_LAPLACE_COST = 2_000_000
# Numbers of points that are tried for one that is enough.
_LADDER = (9, 15, 25, 51, 99)
_LADDER_COST = 20_000_000
# A Newton step longer than this many standard errors is cut: the quadratic does not reach so far.
_LONGEST_STEP = 2.0


@dataclass(frozen=True, slots=True, repr=False)
class IntegralCheck(Sentence):
    """Two rules for the integral over the random effects, compared at the estimates.

    Attributes
    ----------
    used : int
        nAGQ of the fit; 1 is the Laplace approximation.
    points : int or None
        Points per random effect of the other rule; None where none could be tried, and then all that follows is NaN.
    change : float
        Log-likelihood at the estimates by the finer rule minus that of the fit.
    gain : float
        How much higher the maximum of the finer rule is than its value at the estimates, by one Newton step.
    shift : float
        Largest move of an estimate (fixed effects, theta, log dispersion or thresholds) to that maximum, in standard
        errors.
    enough : int or None
        The smallest number of points tried that is enough; None where `used` is, or where none of those tried is.
    tried : int
        The largest number of points that was tried for `enough`; 0 for none.
    reason : str
        Why nothing was compared.
    """

    used: int
    points: int | None
    change: float = float("nan")
    gain: float = float("nan")
    shift: float = float("nan")
    enough: int | None = None
    tried: int = 0
    reason: str = ""

    @property
    def matters(self) -> bool:
        """True when the log-likelihood changes by more than 0.1 or an estimate by more than one standard error.

        For a Laplace approximation, whose log-likelihood is compared with others of its kind only: when an estimate
        moves by more than half a standard error.
        """
        return self._exceeds(1.0)

    @property
    def nearly_matters(self) -> bool:
        """True from three tenths of these bounds on."""
        return self._exceeds(0.3)

    def _exceeds(self, part: float) -> bool:
        if self.points is None:
            return False
        if self.used == 1:
            return not self.shift < part * POOR
        moved = max(abs(self.change), abs(self.change + self.gain))
        return not (moved < part * LOG_LIKELIHOOD and self.shift < part * STANDARD_ERRORS)

    @property
    def advice(self) -> str:
        """What to do, with a number of points that has been tried."""
        if self.enough is not None:
            return f"Use nAGQ={self.enough}, which is enough at these estimates."
        if not self.tried:
            return "Larger numbers of points would be too expensive to try here."
        return (
            f"None of the numbers of points that were tried (up to {self.tried}) is enough: the random effects of some "
            "groups are spread so widely that Gauss-Hermite quadrature does not follow them."
        )

    def __str__(self) -> str:
        if self.points is None:
            return f"The integral over the random effects was not checked: {self.reason}."
        what = "The Laplace approximation" if self.used == 1 else f"The quadrature with nAGQ={self.used}"
        numbers = (
            f"{self.points} quadrature points change the log-likelihood by {self.change:+.2g} and move the estimates "
            f"by up to {self.shift:.2g} standard errors"
        )
        if not self.matters:
            return f"{what} is accurate enough here: {numbers}."
        return f"{what} is poor here: {numbers}. {self.advice}"


@dataclass(frozen=True, slots=True)
class _Estimates:
    """A point with the covariance of its parameters, all in the engine's columns.

    Attributes
    ----------
    finder : ModeFinder
    found : Laplace
        At the estimates.
    value : float
        -2 log-likelihood of the fit.
    vcov : ndarray, shape (r, r)
    to_user : ndarray, shape (r', r)
        Parameters whose standard errors count, from those of the engine.
    """

    finder: ModeFinder
    found: Laplace
    value: float
    vcov: FloatArray
    to_user: FloatArray

    @property
    def problem(self) -> GlmmProblem:
        return self.finder.problem

    def phi(self) -> FloatArray:
        mode = self.found.mode
        return self.problem.join(mode.theta, mode.beta, mode.lam)

    def step(self, gradient: FloatArray) -> tuple[FloatArray, float]:
        """The Newton step down a criterion with this gradient, and its largest size in standard errors."""
        step = -0.5 * self.vcov @ gradient
        error = np.sqrt(np.maximum(np.einsum("ij,jk,ik->i", self.to_user, self.vcov, self.to_user), 0.0))
        known = error > 0.0
        moves = np.abs(self.to_user @ step)[known] / error[known]
        return step, float(moves.max(initial=0.0))


def check_integral(
    finder: ModeFinder, found: Laplace, nAGQ: int, value: float, vcov: FloatArray, to_user: FloatArray
) -> IntegralCheck:
    """Compare the rule of a fit with a finer one at the estimates.

    Parameters
    ----------
    finder : ModeFinder
    found : Laplace
        The Laplace approximation at the estimates.
    nAGQ : int
        1 (Laplace), points per random effect, or those of a rule that is not adaptive with a minus sign.
    value : float
        -2 log-likelihood of the fit.
    vcov : ndarray, shape (r, r)
        Covariance of (theta, beta, lambda) in the engine's columns; zeros where a parameter is held.
    to_user : ndarray, shape (r', r)
        The parameters whose standard errors count.
    """
    here = _Estimates(finder, found, value, vcov, to_user)
    dimension = integrated_together(finder.problem)
    if dimension is None:
        return IntegralCheck(nAGQ, None, reason="the integral does not split into groups")
    points = _other_points(nAGQ, dimension, finder.problem.n_obs)
    if points is None:
        return IntegralCheck(nAGQ, None, reason="quadrature would be too expensive here")
    try:
        check, step = _compared(here, nAGQ, points)
    except np.linalg.LinAlgError:
        return IntegralCheck(nAGQ, None, reason="the curvature at the estimates gives no place for the nodes")
    if nAGQ != 1 and check.nearly_matters and not check.matters:
        # Differences fall slowly where they matter: a rule with twice the points may still leave out a third of them.
        check, step = _compared(here, nAGQ, min(2 * points, _most_points(dimension)))
    if not check.matters:
        return check
    enough, tried = _enough(here, abs(nAGQ), dimension, step, check.shift)
    return replace(check, enough=enough, tried=tried)


def _compared(here: _Estimates, nAGQ: int, points: int) -> tuple[IntegralCheck, FloatArray]:
    """The comparison with another number of points, and the Newton step to its maximum."""
    with np.errstate(all="ignore"):
        other, gradient = make_quadrature(here.finder, points, _MOST_POINTS)(here.found)
    step, shift = here.step(gradient)
    return IntegralCheck(nAGQ, points, -0.5 * (other - here.value), -0.25 * float(gradient @ step), shift), step


def integrated_together(problem: GlmmProblem) -> int | None:
    """Random effects that a quadrature rule integrates at a time; None where there is no rule."""
    dimension = sum(factor.n_columns for factor in problem.factors)
    if any(factor.relation is not None for factor in problem.factors):
        return None
    splits = len(problem.factors) == 1 or find_nesting(problem) is not None
    return dimension if splits and dimension <= MAX_DIMENSION else None


def _other_points(nAGQ: int, dimension: int, n_obs: int) -> int | None:
    """Points of the rule to compare with."""
    if nAGQ == 1:
        return next((p for p in _LAPLACE_POINTS if p**dimension * n_obs <= _LAPLACE_COST), None)
    used, most = abs(nAGQ), _most_points(dimension)
    finer = 2 * used if dimension == 1 else used + max(2, used // 2)
    if finer <= most:
        return finer
    # With no room above, the same question to a coarser rule: its answer is too strict, if anything.
    return most if most > 1.3 * used else max(2, int(used / 1.5))


def _most_points(dimension: int, nodes: float = MAX_NODES) -> int:
    return min(_MOST_POINTS, int(nodes ** (1.0 / dimension) + 1e-9))


def _enough(here: _Estimates, used: int, dimension: int, step: FloatArray, shift: float) -> tuple[int | None, int]:
    """The smallest number of points that agrees with a much larger one, and the largest that was tried.

    They are compared at the estimates and where the finer rule has its maximum: the new estimates lie near these.
    """
    there = _moved(here, step * min(1.0, _LONGEST_STEP / max(shift, 1e-300)))
    places = [here] if there is None else [here, there]
    limit = _most_points(dimension, min(MAX_NODES, _LADDER_COST / here.problem.n_obs))
    differences: dict[int, float] = {}
    for points in (p for p in _LADDER if used < p <= limit / 1.5):
        finer = min(3 * points, limit)
        differences[points] = max(_difference(place, points, finer) for place in places)
        # A quarter of what matters: the new estimates will be a little away, where the rules may differ more.
        if differences[points] < 0.25:
            break
    good = [p for part in (0.25, 1.0) for p, difference in differences.items() if difference < part]
    return (good[0] if good else None), max(differences, default=0)


def _difference(here: _Estimates, points: int, finer: int) -> float:
    """How much two rules differ, in units of what matters."""
    with np.errstate(all="ignore"):
        (value, gradient), (other, slope) = (
            make_quadrature(here.finder, n, _MOST_POINTS)(here.found) for n in (points, finer)
        )
    move, gap = here.step(slope - gradient)
    change = 0.5 * abs(other - value) + 0.25 * abs(float((slope - gradient) @ move))
    return max(change / LOG_LIKELIHOOD, gap / STANDARD_ERRORS)


def _moved(here: _Estimates, step: FloatArray) -> _Estimates | None:
    """The same at other parameters; None where there is no mode."""
    theta, beta, lam = here.problem.split(here.phi() + step)
    try:
        with np.errstate(all="ignore"):
            found = laplace(here.finder, here.finder.find(theta, beta, lam, here.found.mode.u))
    except (ModeError, np.linalg.LinAlgError):
        return None
    return _Estimates(here.finder, found, here.value, here.vcov, here.to_user)
