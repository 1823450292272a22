"""The minimum of a criterion whose log-determinant is known by probes only.

With fixed probes the gradient is a smooth function, but not quite that of the value: steps are judged by the value
while a fall is large, and by the gradient in the metric of the information near the minimum. Directions are learned
when the search is near it, since those of a poor start leave rare large errors to the probes; more directions and
probes are taken at the end only, until value and theta are known well enough.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import scipy.linalg

from lme4py.engine.certificate import Evaluation, MonteCarlo
from lme4py.engine.factor.crossed_factor import ExactValue
from lme4py.engine.factor.crossed_probes import small_sample, standard_error
from lme4py.engine.optimise import Control, trust_region_step
from lme4py.errors import DesignError
from lme4py.linalg.types import FloatArray
from lme4py.progress import announce, tick

__all__ = [
    "THETA_PART",
    "NothingProved",
    "ProbedCriterion",
    "ProbedPoint",
    "StochasticOptimum",
    "solve_stochastic",
    "with_factor",
]

# Probes far from the minimum; directions and probes near it, where these are not enough, and the most of both.
_FAR = 4
_NEAR = (8, 8)
_DIRECTIONS, _PROBES, _MOST_DIRECTIONS, _MOST_PROBES = 32, 16, 256, 2048
# A search takes as long as so many of its first evaluations.
_LIKE_FIRST = 8.0
# Largest Monte-Carlo error of theta, in its standard errors.
THETA_PART = 0.02
# The search has ended when the criterion is predicted to fall by less than the first; below the second the value says
# less than the gradient.
_DONE, _FLAT = 1e-8, 0.5
# A variance at zero is no accident of a long step where so little is to be gained.
_SETTLED = 1.0
# What steps teach may change a curvature of the average information by this factor.
_TAUGHT = 5.0
# Standard deviations (relative, in columns of unit size) below this are at zero.
_LEAST = 1e-3


class NothingProved(DesignError):
    """The model has no regular minimum, and only an exact factor says what it has."""


@dataclass(frozen=True)
class ProbedPoint:
    """A criterion at one value of its parameters.

    Attributes
    ----------
    theta : ndarray, shape (m,)
        All that the search moves: theta, and of generalised models the other parameters after it.
    value : float
    gradient : ndarray, shape (m,)
    information : ndarray, shape (m, m)
        Average information, as second derivatives of the criterion.
    values, gradients : ndarray, shape (B,) and (B, m)
        Of single probes.
    h : object
        What the next point begins with.
    iterations : int
        Largest number of steps of conjugate gradients.
    """

    theta: FloatArray
    value: float
    gradient: FloatArray
    information: FloatArray
    values: FloatArray
    gradients: FloatArray
    h: Any
    iterations: int

    @property
    def value_se(self) -> float:
        """Standard error of the value."""
        return standard_error(self.values)

    @property
    def gradient_vcov(self) -> FloatArray:
        """Covariance of the gradient's Monte-Carlo error, (m, m)."""
        count, m = self.gradients.shape
        if count < 2:
            return np.full((m, m), np.inf)
        scatter: FloatArray = np.cov(self.gradients.T).reshape(m, m)
        return np.asarray(scatter * (small_sample(count) ** 2 / count))


P = TypeVar("P", bound=ProbedPoint)
# Of a result that is only handed on.
P_co = TypeVar("P_co", bound=ProbedPoint, covariant=True)


class ProbedCriterion(Protocol[P_co]):
    """What the search needs to know of a criterion."""

    @property
    def seed(self) -> int: ...

    @property
    def parameters(self) -> str:
        """What the search moves: "theta", or more."""
        ...

    @property
    def size(self) -> int:
        """The most directions that there are."""
        ...

    def depth(self, theta: FloatArray) -> float:
        """The smallest standard deviation."""
        ...

    def learn_directions(self, theta: FloatArray, count: int) -> None:
        """Directions that probes leave out."""
        ...

    def evaluate(self, theta: FloatArray, probes: int, start: Any = None) -> P_co:
        """Value, gradient and information; LinAlgError where there are none."""
        ...


@dataclass(frozen=True)
class StochasticOptimum(Generic[P]):
    """Where the search ended.

    Attributes
    ----------
    point : ProbedPoint
    fall : float
        How far the criterion is predicted to fall still.
    log : tuple of Evaluation
    monte_carlo : MonteCarlo
    hessian : ndarray, shape (m, m)
        The average information with what the steps taught.
    interrupted : bool
        Whether Ctrl-C ended the search.
    """

    point: P
    fall: float
    log: tuple[Evaluation, ...]
    monte_carlo: MonteCarlo
    hessian: FloatArray
    interrupted: bool = False


def with_factor(
    optimum: StochasticOptimum[P], exact: Callable[[FloatArray], ExactValue]
) -> tuple[StochasticOptimum[P], str]:
    """The optimum with the criterion by an exact factor; and why it has the probes' criterion still, or "".

    Parameters
    ----------
    optimum : StochasticOptimum
    exact : callable
        The value at the parameters.

    Raises
    ------
    DesignError
        The factor does not fit into memory.
    """
    try:
        with np.errstate(all="ignore"):
            found = exact(optimum.point.theta)
    except KeyboardInterrupt:
        return optimum, "The exact factor was interrupted: the criterion is the probes'."
    except np.linalg.LinAlgError as error:
        return optimum, f"The exact factor failed ({error}): the criterion is the probes'."
    known = replace(optimum.monte_carlo, criterion_se=found.error, by_factor=True)
    return replace(optimum, point=replace(optimum.point, value=found.value), monte_carlo=known), ""


def solve_stochastic(
    criterion: ProbedCriterion[P],
    start: FloatArray,
    control: Control,
    error: float,
    others: Sequence[FloatArray] = (),
) -> StochasticOptimum[P]:
    """Search from a start.

    Parameters
    ----------
    criterion : ProbedCriterion
    start : ndarray, shape (m,)
        In the engine's columns.
    control : Control
    error : float
        Wanted standard error of the value.
    others : sequence of ndarray
        Starts that may be better: the search begins at the lowest.

    Raises
    ------
    NothingProved
        A variance at zero.
    DesignError
        Systems that are not solved.
    """
    search = _Search(criterion, [start, *others], control)
    try:
        search.descend(_FLAT)
        search.sharpen(*_NEAR)
        search.descend(_DONE)
        return search.finish(error)
    except KeyboardInterrupt:
        return search.reached(interrupted=True)


class _Search(Generic[P]):
    def __init__(self, criterion: ProbedCriterion[P], starts: Sequence[FloatArray], control: Control) -> None:
        self.criterion, self.control = criterion, control
        self.log: list[Evaluation] = []
        self.radius = control.radius
        self.correction = np.zeros((starts[0].size, starts[0].size))
        self.probes, self.directions = _FAR, 0
        began = perf_counter()
        found = [point for point in (self._evaluate(start, None) for start in starts) if point is not None]
        if not found:
            raise DesignError(
                "the systems of the crossed random effects are not solved at the start; give other starting values "
                "(`start=`), or use control={'block': 'exact'}."
            )
        self.here = min(found, key=lambda point: point.value)
        self._record(self.here, True)
        one = (perf_counter() - began) / len(starts)
        announce("crossed random effects without a factor, longer where many directions are needed", _LIKE_FIRST * one)

    def sharpen(self, directions: int, probes: int) -> bool:
        """Learn directions where the search is, and evaluate there again; whether that could be done."""
        self.probes = probes
        if directions != self.directions:
            self.directions = directions
            self.criterion.learn_directions(self.here.theta, directions)
        found = self._evaluate(self.here.theta, self.here.h)
        if found is not None:
            self.here = found
            self._record(found, True)
        return found is not None

    def _evaluate(self, theta: FloatArray, start: Any) -> P | None:
        try:
            with np.errstate(all="ignore"):
                point = self.criterion.evaluate(theta, self.probes, start)
        except np.linalg.LinAlgError:
            return None
        usable = np.isfinite(point.value) and np.isfinite(point.information).all() and np.isfinite(point.gradient).all()
        return point if usable else None

    def _record(self, point: P, accepted: bool) -> None:
        tick("evaluations")
        largest = float(np.abs(point.gradient).max(initial=0.0))
        theta = tuple(float(t) for t in point.theta)
        self.log.append(Evaluation(len(self.log) + 1, point.value, largest, self.radius, accepted, theta))

    @property
    def _hessian(self) -> FloatArray:
        return self.here.information + self.correction

    def _step(self) -> tuple[FloatArray, float]:
        return trust_region_step(self.here.gradient, self._hessian, self.radius)

    def descend(self, until: float) -> None:
        """Steps until a fall of no more than `until` is predicted."""
        while len(self.log) < self.control.max_evaluations:
            step, fall = self._step()
            if fall < _SETTLED:
                self._refuse_zero(self.here)
            if fall < until:
                return
            trial = self._evaluate(self.here.theta + step, self.here.h)
            if trial is None:
                self.radius = 0.25 * float(np.linalg.norm(step))
                if self.radius < 1e-8:
                    return
                continue
            accepted = self._is_better(trial, fall)
            self._record(trial, accepted)
            self._learn(trial, step, fall)
            length = float(np.linalg.norm(step))
            self.radius = max(self.radius, 2.0 * length) if accepted else 0.25 * length
            if accepted:
                self.here = trial

    def _is_better(self, trial: P, fall: float) -> bool:
        if fall > _FLAT:
            return self.here.value - trial.value > 1e-2 * fall
        metric = self._hessian
        return _size(trial.gradient, metric) < _size(self.here.gradient, metric)

    def _learn(self, trial: P, step: FloatArray, fall: float) -> None:
        """Symmetric rank one, near the minimum, where the Hessian stays like the average information."""
        if fall > _FLAT:
            return
        base = trial.information + self.correction
        miss = trial.gradient - self.here.gradient - base @ step
        along = float(miss @ step)
        if abs(along) > 1e-8 * float(np.linalg.norm(miss) * np.linalg.norm(step)):
            taught = self.correction + np.outer(miss, miss) / along
            self.correction = taught if _is_alike(trial.information + taught, trial.information) else 0.0 * taught

    def _refuse_zero(self, point: P) -> None:
        if self.criterion.depth(point.theta) < _LEAST:
            raise NothingProved(
                "a variance of the random effects is at or near zero, where the iterative block proves nothing: take "
                "the term out, or use control={'block': 'exact'}."
            )

    def finish(self, error: float) -> StochasticOptimum[P]:
        """More directions and probes, and the steps that they ask for."""
        most = min(_MOST_DIRECTIONS, self.criterion.size)
        # Few probes know little of their own scatter.
        short = 2.0 * self._part(error)
        while short > 1.0:
            if self.directions < most:
                reached = self.sharpen(min(max(2 * self.directions, _DIRECTIONS), most), _PROBES)
            elif self.probes < _MOST_PROBES:
                reached = self.sharpen(most, min(_MOST_PROBES, int(np.ceil(1.1 * self.probes * short**2))))
            else:
                break
            if not reached:
                break
            short = self._part(error)
        for _ in range(4):
            step, fall = self._step()
            if fall < _DONE:
                break
            trial = self._evaluate(self.here.theta + step, self.here.h)
            if trial is None or not self._is_better(trial, min(fall, _FLAT)):
                break
            self._learn(trial, step, fall)
            self.here = trial
            self._record(trial, True)
        return self.reached()

    def reached(self, interrupted: bool = False) -> StochasticOptimum[P]:
        """Where the search is."""
        fall = self._step()[1]
        return StochasticOptimum(self.here, fall, tuple(self.log), self._errors(), self._hessian, interrupted)

    def _part(self, error: float) -> float:
        """The largest error as a part of what is wanted."""
        found = self._errors()
        return max(found.criterion_se / error, found.theta_part / THETA_PART)

    def _errors(self) -> MonteCarlo:
        here, hessian = self.here, self._hessian
        inverse = np.linalg.pinv(hessian)
        theta_se = np.sqrt(np.maximum(np.diag(inverse @ here.gradient_vcov @ inverse), 0.0))
        own = np.sqrt(np.maximum(2.0 * np.diag(inverse), np.finfo(float).tiny))
        return MonteCarlo(
            here.value_se,
            tuple(float(t) for t in theta_se),
            float((theta_se / own).max(initial=0.0)),
            self.probes,
            min(self.directions, self.criterion.size),
            here.iterations,
            self.criterion.seed,
            self.criterion.parameters,
        )


def _is_alike(hessian: FloatArray, information: FloatArray) -> bool:
    """Whether no curvature differs by more than is usual."""
    try:
        ratios = scipy.linalg.eigvalsh(hessian, information)
    except np.linalg.LinAlgError:  # the information has no full rank here
        return False
    return bool(ratios[0] > 1.0 / _TAUGHT and ratios[-1] < _TAUGHT)


def _size(gradient: FloatArray, hessian: FloatArray) -> float:
    """g'H^-1g with the sizes of the curvatures."""
    values, vectors = np.linalg.eigh(hessian)
    along = vectors.T @ gradient
    return float(np.sum(along**2 / np.maximum(np.abs(values), 1e-10)))
