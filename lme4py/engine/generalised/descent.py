"""From a start down to a local minimum of the criterion of a generalised linear mixed model.

First the criterion with nAGQ = 0 (beta in the mode, with u) over theta and the dispersion, loosely; then the
Laplace or quadrature criterion over (theta, beta, log dispersion) together, by trust-region steps whose model is
the average information of the working linear model plus what secants teach. The Hessian at the end is made of
differences of the analytic gradient: it certifies the minimum, polishes it by one Newton step and gives the
covariance of all parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lme4py.engine.certificate import CONVERGED
from lme4py.engine.generalised.batches.stacked import StackedModel, can_stack, has_own_nuisance
from lme4py.engine.generalised.criteria import JointCriterion, ProfiledCriterion, off_limit
from lme4py.engine.generalised.hessian import ScaledEigen, curvature_floor, difference_hessian, scaled_eigen
from lme4py.engine.generalised.laplace import Laplace, flat_mode, is_at_pole
from lme4py.engine.generalised.optimum import Basin, GlmmOptimum, joined
from lme4py.engine.generalised.problem import GlmmProblem, Mode, ModeFinder
from lme4py.engine.generalised.starts.start import Start
from lme4py.engine.optimise import Control, Local, Optimum, learn_bounded, minimise
from lme4py.errors import DesignError
from lme4py.linalg.types import FloatArray

# Relative standard deviations below this are tried as exact zeros.
_SNAP = 0.02
# Below this the random effects do not change a single digit of the criterion.
_NO_VARIANCE = 1e-9
# The first stage only has to come near the optimum of the second: the second number is for likelihoods with a single
# maximum and nothing beside the predictor, where any point that the two criteria hardly differ at will do.
_ROUGH, _ROUGHER = 1e-2, 1.0
# First trust-region radius in units of standard errors, and, for these likelihoods, in those of the predictor: of many
# rows standard errors are far shorter than the way along which the criterion is nearly quadratic.
_RADIUS, _RADIUS_IN_ETA = 4.0, 0.3
# By less than this the criterion need not fall: estimates are then good to a part in 1e8 of their standard errors.
_EXACT = 1e-16
# Parts of the first standard deviations that are tried.
_SHRINK = (1.0, 0.3, 0.1, 0.03)
# Steps off a point with negative curvature, in units of 1 / sqrt(curvature), and how often they are tried.
_BESIDE_SADDLE = (0.01, 0.1, 0.3, 1.0)
_ESCAPES = 2
# Tolerance of the second stage.
_FINE = 1e-9


def first_point(local: Callable[[FloatArray], Local | None], x: FloatArray, problem: GlmmProblem) -> Local:
    """The starting values, with smaller random effects where the criterion does not exist at them."""
    for shrink in _SHRINK:
        start = x.copy()
        start[: problem.n_theta] *= shrink
        here = local(start)
        if here is not None:
            return here
    raise DesignError(
        "the criterion cannot be evaluated at the starting values; give other ones (`start=`), or take columns out of "
        "the random effects."
        if problem.family.log_concave
        else flat_mode(problem)
    )


def minimise_scaled(
    local: Callable[[FloatArray], Local | None],
    start: FloatArray,
    control: Control,
    first: Local | None = None,
    known: Sequence[Basin] = (),
    least_unit: float = 0.0,
    lost: Callable[[Any], bool] | None = None,
) -> Optimum:
    """`minimise` in units of 1 / sqrt(curvature at the start), about standard errors, or of a part of the predictor.

    Parameters
    ----------
    local : callable
    start : ndarray
    control : Control
        Its radius counts in these units times `_RADIUS`.
    first : Local, optional
        What `local` gives at the start, where that is known.
    known : sequence of Basin
        The descent ends where it comes into one of them.
    least_unit : float
        No unit is smaller.
    lost : callable, optional
        Whether the criterion falls for ever from a point with this source, so that the descent may end there.
    """
    first = local(start) if first is None else first
    if first is None:
        return minimise(local, start, control)
    unit = np.maximum(1.0 / np.sqrt(np.maximum(np.abs(first.hessian.diagonal()), 1e-6)), least_unit)
    units = np.outer(unit, unit)
    waiting = [first]

    def scaled(point: FloatArray) -> Local | None:
        here = waiting.pop() if waiting else local(point * unit)
        if here is None:
            return None
        with np.errstate(over="ignore"):
            gradient = here.gradient * unit
        if not np.isfinite(gradient).all():
            # So far out that slopes have no numbers.
            return None
        return Local(point, here.value, gradient, here.hessian * units, here.source)

    def arrived(point: Local) -> bool:
        if lost is not None and lost(point.source):
            return True
        plain = Local(point.theta * unit, point.value, point.gradient / unit, point.hessian)
        return any(basin.holds(plain) for basin in known)

    settings = replace(control, radius=_RADIUS * control.radius)
    until = arrived if known or lost is not None else None
    optimum = minimise(scaled, start / unit, settings, learn_bounded, until)
    log = tuple(replace(e, theta=tuple((np.array(e.theta) * unit).tolist())) for e in optimum.log)
    hessian = optimum.hessian / units
    return replace(optimum, theta=optimum.theta * unit, log=log, hessian=hessian)


def with_snaps(
    local: Callable[[FloatArray], Local | None],
    start: FloatArray,
    control: Control,
    problem: GlmmProblem,
    first: Local | None = None,
    known: Sequence[Basin] = (),
    lost: Callable[[Any], bool] | None = None,
) -> Optimum:
    """`minimise`, and again from the boundary: exact zeros of small standard deviations, the limit of the dispersion.

    Parameters
    ----------
    local : callable
        In theta and what else is free; a log dispersion is the last of it.
    start : ndarray
    control : Control
    problem : GlmmProblem
    first : Local, optional
        What `local` gives at the start, where that is known.
    known : sequence of Basin
        The descent ends where it comes into one of them.
    lost : callable, optional
        As in `minimise_scaled`.
    """
    optimum = minimise_scaled(local, start, control, first, known, _least_unit(problem), lost)
    if lost is not None and lost(optimum.source):
        return optimum
    for snap in (_zeros, _limit):
        for _ in range(3):
            before = optimum
            optimum = _snapped(local, optimum, control, snap(problem, optimum.theta))
            if not optimum.value < before.value - 1e-9 * max(1.0, abs(optimum.value)):
                break
    return optimum


def _steps_in_eta(problem: GlmmProblem) -> bool:
    """Whether the likelihood has a single maximum and all parameters move the predictor alone.

    Thresholds, and coefficients of further predictors, have the units of their columns.
    """
    return problem.family.single_peaked and not problem.n_nuisance


def _least_unit(problem: GlmmProblem) -> float:
    """The least unit of a descent's steps."""
    return _RADIUS_IN_ETA / _RADIUS if _steps_in_eta(problem) else 0.0


def _snapped(
    local: Callable[[FloatArray], Local | None], optimum: Optimum, control: Control, point: FloatArray | None
) -> Optimum:
    """The optimum from a point on the boundary, if it is as good."""
    there = None if point is None else local(point)
    if point is None or there is None or there.value > optimum.value + 1e-3:
        # The data know that this small standard deviation, or that little dispersion, is none.
        return optimum
    again = minimise_scaled(local, point, control, there)
    log = joined(optimum.log, again.log)
    if again.value > optimum.value + 1e-8 * max(1.0, abs(optimum.value)):
        return replace(optimum, log=log)
    return replace(again, log=log)


def _zeros(problem: GlmmProblem, phi: FloatArray) -> FloatArray | None:
    """Parameters with small singular values of each T set to zero; None if none is small, or all are zero already."""
    structures = problem.structures
    own = zip(structures.each, structures.split(phi[: problem.n_theta]), strict=True)
    theta = np.concatenate([np.zeros(0), *(structure.canonical(structure.truncate(t, _SNAP)) for structure, t in own)])
    if np.allclose(theta, structures.canonical(phi[: problem.n_theta]), rtol=0, atol=1e-14):
        return None
    return np.concatenate([theta, phi[problem.n_theta :]])


def _limit(problem: GlmmProblem, phi: FloatArray) -> FloatArray | None:
    """Parameters with the dispersion at its limit; None where it is far from it, or there already."""
    if not problem.in_tail(float(phi[-1])) or problem.at_limit(float(phi[-1])):
        return None
    return np.append(phi[:-1], problem.limit_lambda)


def canonical(problem: GlmmProblem, phi: FloatArray) -> FloatArray:
    """The same covariances with non-negative diagonals; what is rounding beside the predictor's unit is zero."""
    theta = problem.structures.canonical(phi[: problem.n_theta])
    theta = np.where(np.abs(theta) < _NO_VARIANCE, 0.0, theta)
    return np.concatenate([theta, phi[problem.n_theta :]])


# -- the end -----------------------------------------------------------------------------------------------------


def no_value(problem: GlmmProblem) -> DesignError:
    if not problem.family.log_concave:
        return DesignError(flat_mode(problem))
    return DesignError(
        "the criterion cannot be evaluated around the point where it is smallest; simplify the random effects, or give "
        "other starting values (`start=`)."
    )


def finish(criterion: JointCriterion, optimum: Optimum) -> GlmmOptimum:
    """Difference Hessian, one Newton step with it, and the derivatives there.

    Parameters
    ----------
    criterion : JointCriterion
    optimum : Optimum
        In all parameters.
    """
    problem = criterion.finder.problem
    phi = canonical(problem, optimum.theta)
    here = criterion.reported(phi, optimum.source if (phi == optimum.theta).all() else None)
    if here is None:
        raise no_value(problem)
    found, value, gradient = here

    def each(points: FloatArray) -> FloatArray:
        found = [gradient for gradient in criterion.gradients(points) if gradient is not None]
        if len(found) < points.shape[0]:
            raise no_value(problem)
        return np.reshape(found, points.shape)

    def slopes(points: FloatArray) -> FloatArray:
        first = problem.n_theta + problem.n_fixed
        beside = np.full(points.shape[0], criterion.refine is None and can_stack(problem))
        if not has_own_nuisance(problem):
            beside &= (points[:, first:] == phi[first:]).all(axis=1)
        together = StackedModel(problem).gradients(points[beside], found) if beside.any() else None
        if together is None:
            return each(points)
        out = np.empty(points.shape)
        out[beside] = together
        out[~beside] = each(points[~beside])
        return out

    criterion.base, criterion.best = found, value
    held = problem.held(phi)
    hessian = difference_hessian(slopes, phi, optimum.hessian, held)
    if not np.isfinite(hessian).all():
        # Parameters so far out that steps beside them are rounding.
        raise no_value(problem)
    curvatures = scaled_eigen(hessian, curvature_floor(found, problem.units))
    for _ in range(2):
        step, bound = curvatures.newton(gradient)
        # A zero on the boundary stays one: its gradient is rounding.
        step[held | ((phi == 0.0) & (np.abs(step) < 1e-8))] = 0.0
        if bound < _EXACT:
            break
        trial = criterion.reported(phi + step)
        if trial is None or trial[1] > value + 1e-11 * max(1.0, abs(value)):
            break
        if curvatures.newton(trial[2])[1] > bound:
            break
        phi, (found, value, gradient) = phi + step, trial
    return GlmmOptimum(phi, found, value, gradient, hessian, optimum.log)


def _finish_profiled(criterion: ProfiledCriterion, optimum: Optimum) -> GlmmOptimum:
    problem = criterion.finder.problem
    x = canonical(problem, optimum.theta)
    found = criterion.evaluate(x)
    if found is None:
        raise no_value(problem)

    def slope(point: FloatArray) -> FloatArray:
        result = criterion.evaluate(point)
        if result is None:
            raise no_value(problem)
        return result.gradient

    def slopes(points: FloatArray) -> FloatArray:
        return np.array([slope(point) for point in points])

    hessian = difference_hessian(slopes, x, optimum.hessian, problem.held(x))
    phi = problem.join(found.mode.theta, found.mode.beta, found.mode.lam)

    def value_at(point: FloatArray) -> float:
        there = criterion.evaluate(point)
        return np.inf if there is None else there.value

    end = GlmmOptimum(phi, found, found.value, found.gradient, hessian, optimum.log)
    return replace(end, descends=_downhill(value_at, x, found.value, end.curvatures) is not None)


# -- the whole way -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Way:
    """Where a descent has ended, before its Hessian is known.

    Attributes
    ----------
    first : float
        The criterion at the start: the one with nAGQ = 0, unless the descent began in all parameters.
    near : Basin
        Where the first stage ended, in theta and what else is free there.
    basin : Basin
        The end, in all parameters.
    value : float
    phi : ndarray
    found : Laplace
        All three at the end, in all parameters.
    finish : callable
        The certified end.
    """

    first: float
    near: Basin
    basin: Basin
    value: float
    phi: FloatArray
    found: Laplace
    finish: Callable[[], GlmmOptimum]

    def known_better(self, end: GlmmOptimum) -> Way:
        """The same with the difference Hessian at its certified end.

        Parameters
        ----------
        end : GlmmOptimum
        """
        problem, whole = end.found.finder.problem, Basin(end.phi, end.value, end.gradient, end.hessian)
        near = self.near.with_hessian(end.hessian, problem.n_theta, problem.n_fixed)
        return replace(self, near=near, basin=whole if end.gradient.size == end.phi.size else self.basin)


class Descents:
    """The ways down in one model.

    Parameters
    ----------
    finder : ModeFinder
    control : Control
    refine : callable, optional
        Laplace -> (value, gradient) of a better approximation; for nAGQ > 1.
    profiled : bool
        nAGQ = 0.
    """

    def __init__(
        self,
        finder: ModeFinder,
        control: Control,
        refine: Callable[[Laplace], tuple[float, FloatArray]] | None = None,
        profiled: bool = False,
    ) -> None:
        self.finder, self.problem, self.control = finder, finder.problem, control
        self.refine, self.profiled = refine, profiled

    def hasty(self, max_evaluations: int) -> Descents:
        """The same ways with fewer evaluations.

        Parameters
        ----------
        max_evaluations : int
        """
        control = replace(self.control, max_evaluations=min(max_evaluations, self.control.max_evaluations))
        return Descents(self.finder, control, self.refine, self.profiled)

    def glance(
        self, start: Start, near: Mode | None = None, tolerance: float = 1e-6, only_value: bool = False
    ) -> Laplace | None:
        """The criterion with nAGQ = 0 at a start; None where it has no value.

        Parameters
        ----------
        start : Start
        near : Mode, optional
            Where the log-likelihood is concave, so that there is one mode, the search for it begins there.
        tolerance : float
            Of the Newton decrement.
        only_value : bool
            Derivatives, which may take as long, need not be numbers.
        """
        x = np.append(start.theta, start.lam) if self.problem.n_nuisance else start.theta
        near = near if self.problem.family.log_concave else None
        return ProfiledCriterion(self.finder, start.beta, near).evaluate(x, tolerance, only_value)

    def down(self, start: Start, known: Sequence[Way] = (), tolerance: float = _FINE) -> Way:
        """First nAGQ = 0, then the criterion itself.

        Parameters
        ----------
        start : Start
        known : sequence of Way
            Where a stage comes into the basin of one of theirs, that way itself is returned.
        tolerance : float
            Of the second stage.

        Raises
        ------
        DesignError
            The criterion has no value around the start.
        """
        problem = self.problem
        if self.profiled:
            return self._profiled(start)
        if problem.penalty is not None and problem.penalty.has_fixed:
            # Without their prior the fixed effects may have no finite mode.
            return self.beside(start, known, tolerance)
        rough = ProfiledCriterion(self.finder, start.beta)
        x = np.append(start.theta, start.lam) if problem.n_nuisance else start.theta

        def loosely(x: FloatArray) -> Local | None:
            return rough.local(x, 1e-6)

        here = first_point(loosely, x, problem)
        basins = [other.near for other in known]
        rough_enough = _ROUGHER if _steps_in_eta(problem) else _ROUGH
        settings = replace(self.control, tolerance=rough_enough)
        stage = minimise_scaled(loosely, here.theta, settings, here, basins, _least_unit(problem))
        end = Local(stage.theta, stage.value, stage.source.gradient, stage.hessian)
        for other in known:
            if other.near.ends(end.theta, end.hessian) or other.near.holds(end):
                return other
        mode = stage.source.mode
        return self._joint(problem.join(mode.theta, mode.beta, mode.lam), known, tolerance, here.value, stage)

    def beside(self, start: Start, known: Sequence[Way] = (), tolerance: float = _FINE) -> Way:
        """The criterion itself, in all parameters at once.

        Parameters
        ----------
        start : Start
        known : sequence of Way
            As for `down`.
        tolerance : float

        Raises
        ------
        DesignError
        """
        if self.profiled:
            return self._profiled(start)
        return self._joint(self.problem.join(start.theta, start.beta, start.lam), known, tolerance)

    def criterion(self) -> JointCriterion:
        """The criterion in all parameters."""
        return JointCriterion(self.finder, self.refine)

    def at_pole(self, found: Laplace) -> bool:
        """Whether a point is the end of a fall into a pole of the criterion, which quadrature does not have.

        Parameters
        ----------
        found : Laplace
        """
        return self.refine is None and is_at_pole(found)

    def _lost(self, source: Any) -> bool:
        return self.at_pole(source[0])

    def _profiled(self, start: Start) -> Way:
        rough = ProfiledCriterion(self.finder, start.beta)
        x = np.append(start.theta, start.lam) if self.problem.n_nuisance else start.theta
        here = first_point(rough.local, x, self.problem)
        found = with_snaps(rough.local, here.theta, self.control, self.problem, here)
        mode = found.source.mode
        phi = self.problem.join(mode.theta, mode.beta, mode.lam)
        basin = Basin(found.theta, found.value, found.source.gradient, found.hessian)
        return Way(
            here.value,
            basin,
            basin,
            found.value,
            phi,
            found.source,
            lambda: _finish_profiled(rough, found),
        )

    def _joint(
        self,
        phi: FloatArray,
        known: Sequence[Way],
        tolerance: float,
        first: float | None = None,
        stage: Optimum | None = None,
    ) -> Way:
        criterion = self.criterion()
        criterion.base = None if stage is None else stage.source
        here = first_point(criterion.local, phi, self.problem)
        settings = replace(self.control, tolerance=tolerance)
        basins = [other.basin for other in known]
        optimum = with_snaps(criterion.local, here.theta, settings, self.problem, here, basins, self._lost)
        basin = Basin(optimum.theta, optimum.value, optimum.source[2], optimum.hessian)
        for other in known:
            if other.basin.holds(Local(basin.centre, basin.value, basin.gradient, basin.hessian)):
                return other
        log = optimum.log if stage is None else joined(stage.log, optimum.log)
        optimum = replace(optimum, log=log)
        near = basin if stage is None else Basin(stage.theta, stage.value, stage.source.gradient, stage.hessian)
        value = here.value if first is None else first
        return Way(
            value,
            near,
            basin,
            optimum.value,
            optimum.theta,
            optimum.source[0],
            lambda: self._end(criterion, optimum, tolerance),
        )

    def _end(self, criterion: JointCriterion, optimum: Optimum, tolerance: float) -> GlmmOptimum:
        """The end of a descent with its Hessian, off saddles and off a limit that is no minimum."""
        settings = replace(self.control, tolerance=_FINE)
        if tolerance > _FINE:
            again = with_snaps(criterion.local, optimum.theta, settings, self.problem, lost=self._lost)
            optimum = replace(again, log=joined(optimum.log, again.log))
        result = finish(criterion, optimum)
        for _ in range(_ESCAPES):
            lower = _below(criterion, result)
            if lower is None:
                return result
            try:
                optimum = with_snaps(criterion.local, lower, settings, self.problem, lost=self._lost)
                result = finish(criterion, replace(optimum, log=joined(result.log, optimum.log)))
            except DesignError:
                # The criterion falls to where it has no value.
                return replace(result, descends=True)
        return replace(result, descends=_below(criterion, result) is not None)


# -- off a point that is no minimum ---------------------------------------------------------------------------------


def _below(criterion: JointCriterion, optimum: GlmmOptimum) -> FloatArray | None:
    """A lower point beside an optimum in all parameters: off the limit of the dispersion, or off a saddle."""
    inside = off_limit(criterion, optimum.phi)
    if inside is not None:
        return inside

    def value_at(phi: FloatArray) -> float:
        found = criterion.evaluate(phi, beside=True)
        return np.inf if found is None else found[1]

    return _downhill(value_at, optimum.phi, optimum.value, optimum.curvatures)


def _downhill(
    value_at: Callable[[FloatArray], float], x: FloatArray, value: float, curvatures: ScaledEigen
) -> FloatArray | None:
    """A lower point along the direction of negative curvature, if there are any.

    A symmetric saddle has no gradient, and where a curvature is zero, the differences can make it negative: only the
    criterion itself tells these from a minimum.
    """
    d, values, vectors = curvatures
    if not values.size or values[0] >= -1e-3:
        return None
    for size in _BESIDE_SADDLE:
        for sign in (1.0, -1.0):
            point: FloatArray = x + sign * size * vectors[:, 0] / d
            if value_at(point) < value - CONVERGED:
                return point
    return None
