"""From a start to the certified optimum of a generalised linear mixed model.

First the criterion with nAGQ = 0 (beta in the mode, with u) over theta and the dispersion, loosely; then the
Laplace or quadrature criterion over (theta, beta, log dispersion) together, by trust-region steps whose model is
the average information of the working linear model plus what secants teach. The Hessian at the end is made of
differences of the analytic gradient: it certifies the optimum, polishes it by one Newton step and gives the
covariance of all parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from lme4py.engine.certificate import CONVERGED, Evaluation
from lme4py.engine.glmm import TOLERANCE, GlmmProblem, ModeError, ModeFinder
from lme4py.engine.glmm_hessian import curvature_floor, difference_hessian, newton_step, scaled_eigen
from lme4py.engine.glmm_laplace import FLAT_MODE, Laplace, average_information, laplace
from lme4py.engine.glmm_start import find_start
from lme4py.engine.optimize import Control, Local, Optimum, learn_bounded, minimise
from lme4py.engine.types import FloatArray
from lme4py.errors import DesignError

# Relative standard deviations below this are tried as exact zeros.
_SNAP = 0.02
# Below this the random effects do not change a single digit of the criterion.
_NO_VARIANCE = 1e-9
# The first stage only has to come near the optimum of the second.
_ROUGH = 1e-2
# First trust-region radius in units of standard errors.
_RADIUS = 4.0
# Parts of the first standard deviations that are tried.
_SHRINK = (1.0, 0.3, 0.1, 0.03)
# Steps off a point with negative curvature, in units of 1 / sqrt(curvature), and how often they are tried.
_BESIDE_SADDLE = (0.01, 0.1, 0.3, 1.0)
_ESCAPES = 2
# Newton decrement that is good enough for one point of a central difference.
_BESIDE = 1e-9


@dataclass(frozen=True)
class GlmmOptimum:
    """Where the optimiser stopped; everything in the engine's columns.

    Attributes
    ----------
    phi : ndarray, shape (m + p + d,)
        theta, beta and log dispersion.
    found : Laplace
        Value and gradient there; for nAGQ > 1 those of the Laplace criterion at the same point.
    value : float
        -2 log-likelihood.
    gradient : ndarray, shape (m + p + d,), or (m + d,) for nAGQ = 0
    hessian : ndarray
        Of the same size, from differences of analytic gradients.
    log : tuple of Evaluation
    descends : bool
        The criterion is lower beside this point.
    """

    phi: FloatArray
    found: Laplace
    value: float
    gradient: FloatArray
    hessian: FloatArray
    log: tuple[Evaluation, ...]
    descends: bool = False


class JointCriterion:
    """-2 log-likelihood in (theta, beta, log dispersion); modes start from the best point so far.

    Parameters
    ----------
    finder : ModeFinder
    refine : callable, optional
        Laplace -> (value, gradient) of a better approximation, such as quadrature.
    """

    def __init__(self, finder: ModeFinder, refine: Callable[[Laplace], tuple[float, FloatArray]] | None = None) -> None:
        self.finder = finder
        self.refine = refine
        self.base: Laplace | None = None
        self.best = np.inf

    def evaluate(self, phi: FloatArray, beside: bool = False) -> tuple[Laplace, float, FloatArray] | None:
        """Laplace, value and gradient; None where there is no mode.

        Parameters
        ----------
        phi : ndarray
        beside : bool
            A point right beside the best one, for a central difference: the first-order prediction of the mode is so
            good that the errors of two opposite points cancel.
        """
        problem = self.finder.problem
        theta, beta, lam = problem.split(phi)
        tolerance = _BESIDE if beside else TOLERANCE
        for u in self._starts(phi):
            try:
                with np.errstate(all="ignore"):
                    mode = self.finder.find(theta, beta, lam, u, tolerance=tolerance, order=3 if beside else 2)
                    found = laplace(self.finder, mode)
                    value, gradient = (found.value, found.gradient) if self.refine is None else self.refine(found)
            except (ModeError, np.linalg.LinAlgError):
                continue
            if not (np.isfinite(value) and np.isfinite(gradient).all()):
                continue
            if not beside and value < self.best:
                self.base, self.best = found, value
            return found, value, gradient
        return None

    def _starts(self, phi: FloatArray) -> list[FloatArray]:
        zero = np.zeros(sum(factor.size for factor in self.finder.problem.factors))
        if self.base is None:
            return [zero]
        with np.errstate(all="ignore"):
            predicted = self.finder.predict(self.base, phi)
        candidates = [predicted] if np.isfinite(predicted).all() else []
        return [*candidates, self.base.mode.u, zero]

    def local(self, phi: FloatArray) -> Local | None:
        """For `minimise`."""
        result = self.evaluate(phi)
        if result is None:
            return None
        found, value, gradient = result
        with np.errstate(all="ignore"):
            information = average_information(self.finder, found)
        return Local(phi, value, gradient, information, result) if np.isfinite(information).all() else None


class ProfiledCriterion:
    """The criterion with nAGQ = 0 in (theta, log dispersion): beta is part of the mode.

    Parameters
    ----------
    finder : ModeFinder
    beta : ndarray, shape (p,)
        Start.
    """

    def __init__(self, finder: ModeFinder, beta: FloatArray) -> None:
        self.finder = finder
        self.start_beta = beta
        self.base: Laplace | None = None

    def evaluate(self, x: FloatArray, tolerance: float = 1e-15) -> Laplace | None:
        problem = self.finder.problem
        m = problem.n_theta
        lam = problem.nuisance(x[m:])
        zero = np.zeros(sum(factor.size for factor in problem.factors))
        starts = [(self.start_beta, zero)]
        if self.base is not None:
            starts.insert(0, (self.base.mode.beta, self.base.mode.u))
        for beta, u in starts:
            try:
                with np.errstate(all="ignore"):
                    mode = self.finder.find(x[:m], beta, lam, u, joint=True, tolerance=tolerance)
                    found = laplace(self.finder, mode, profiled=True)
            except (ModeError, np.linalg.LinAlgError):
                continue
            if not (np.isfinite(found.value) and np.isfinite(found.gradient).all()):
                continue
            if self.base is None or found.value < self.base.value:
                self.base = found
            return found
        return None

    def local(self, x: FloatArray, tolerance: float = 1e-15) -> Local | None:
        """For `minimise`."""
        found = self.evaluate(x, tolerance)
        if found is None:
            return None
        with np.errstate(all="ignore"):
            hessian = self._hessian(found)
        return Local(x, found.value, found.gradient, hessian, found) if np.isfinite(hessian).all() else None

    def _hessian(self, found: Laplace) -> FloatArray:
        problem = self.finder.problem
        m, p = problem.n_theta, problem.n_fixed
        full = average_information(self.finder, found)
        outer = np.r_[:m, m + p : full.shape[0]]
        inside: FloatArray = full[np.ix_(outer, outer)]
        if not p:
            return inside
        cross = full[m : m + p, outer]
        rest: FloatArray = inside - cross.T @ np.linalg.solve(full[m : m + p, m : m + p], cross)
        return rest


# -- the solver --------------------------------------------------------------------------------------------------


def solve_glmm(
    finder: ModeFinder,
    start: FloatArray | None,
    control: Control,
    refine: Callable[[Laplace], tuple[float, FloatArray]] | None = None,
    profiled: bool = False,
) -> GlmmOptimum:
    """Minimise the criterion.

    Parameters
    ----------
    finder : ModeFinder
    start : ndarray, shape (m,), or None
        theta in the engine's columns.
    control : Control
    refine : callable, optional
        For nAGQ > 1.
    profiled : bool
        nAGQ = 0.
    """
    problem = finder.problem
    first = find_start(problem)
    lam = first.lam
    theta = first.theta if start is None else start
    rough = ProfiledCriterion(finder, first.beta)
    x = np.append(theta, lam) if problem.n_nuisance else theta
    if profiled:
        optimum = _with_snaps(rough.local, x, control, finder)
        return _finish_profiled(rough, optimum)

    def loosely(x: FloatArray) -> Local | None:
        return rough.local(x, 1e-6)

    here = _first_point(loosely, x, problem)
    stage = minimise_scaled(loosely, here.theta, replace(control, tolerance=_ROUGH), here)
    near: Laplace = stage.source
    phi = problem.join(near.mode.theta, near.mode.beta, near.mode.lam)
    criterion = JointCriterion(finder, refine)
    criterion.base = near
    here = _first_point(criterion.local, phi, problem)
    settings = replace(control, tolerance=1e-9)
    optimum = _with_snaps(criterion.local, here.theta, settings, finder, here)
    result = _finish(criterion, replace(optimum, log=_joined(stage.log, optimum.log)))
    for _ in range(_ESCAPES):
        lower = _below(criterion, result)
        if lower is None:
            return result
        optimum = _with_snaps(criterion.local, lower, settings, finder)
        result = _finish(criterion, replace(optimum, log=_joined(result.log, optimum.log)))
    return replace(result, descends=_below(criterion, result) is not None)


def _below(criterion: JointCriterion, optimum: GlmmOptimum) -> FloatArray | None:
    """`_downhill` from an optimum in all parameters."""

    def value_at(phi: FloatArray) -> float:
        found = criterion.evaluate(phi, beside=True)
        return np.inf if found is None else found[1]

    floor = curvature_floor(optimum.found, criterion.finder.problem.unit)
    return _downhill(value_at, optimum.phi, optimum.value, optimum.hessian, floor)


def _joined(first: tuple[Evaluation, ...], second: tuple[Evaluation, ...]) -> tuple[Evaluation, ...]:
    """One log after another."""
    return first + tuple(replace(e, number=e.number + len(first)) for e in second)


def _downhill(
    value_at: Callable[[FloatArray], float], x: FloatArray, value: float, hessian: FloatArray, floor: float
) -> FloatArray | None:
    """A lower point along the direction of negative curvature, if there are any.

    A symmetric saddle has no gradient, and where a curvature is zero, the differences can make it negative: only the
    criterion itself tells these from a minimum.
    """
    d, values, vectors = scaled_eigen(hessian, floor)
    if not values.size or values[0] >= -1e-3:
        return None
    for size in _BESIDE_SADDLE:
        for sign in (1.0, -1.0):
            point: FloatArray = x + sign * size * vectors[:, 0] / d
            if value_at(point) < value - CONVERGED:
                return point
    return None


def _first_point(local: Callable[[FloatArray], Local | None], x: FloatArray, problem: GlmmProblem) -> Local:
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
        else FLAT_MODE
    )


def minimise_scaled(
    local: Callable[[FloatArray], Local | None], start: FloatArray, control: Control, first: Local | None = None
) -> Optimum:
    """`minimise` in units of 1 / sqrt(curvature at the start), about standard errors.

    Parameters
    ----------
    local : callable
    start : ndarray
    control : Control
        Its radius counts in these units times `_RADIUS`.
    first : Local, optional
        What `local` gives at the start, where that is known.
    """
    first = local(start) if first is None else first
    if first is None:
        return minimise(local, start, control)
    unit = 1.0 / np.sqrt(np.maximum(np.abs(first.hessian.diagonal()), 1e-6))
    waiting = [first]

    def scaled(point: FloatArray) -> Local | None:
        here = waiting.pop() if waiting else local(point * unit)
        if here is None:
            return None
        return Local(point, here.value, here.gradient * unit, here.hessian * np.outer(unit, unit), here.source)

    optimum = minimise(scaled, start / unit, replace(control, radius=_RADIUS * control.radius), learn_bounded)
    log = tuple(replace(e, theta=tuple((np.array(e.theta) * unit).tolist())) for e in optimum.log)
    hessian = optimum.hessian / np.outer(unit, unit)
    return replace(optimum, theta=optimum.theta * unit, log=log, hessian=hessian)


def _with_snaps(
    local: Callable[[FloatArray], Local | None],
    start: FloatArray,
    control: Control,
    finder: ModeFinder,
    first: Local | None = None,
) -> Optimum:
    """`minimise`, and again from exact zeros where standard deviations are small."""
    optimum = minimise_scaled(local, start, control, first)
    for _ in range(3):
        snapped = _snap(finder.problem, optimum.theta)
        if snapped is None:
            break
        there = local(snapped)
        if there is None or there.value > optimum.value + 1e-3:
            # The data know that this small standard deviation is none.
            break
        again = minimise_scaled(local, snapped, control, there)
        log = optimum.log + tuple(replace(e, number=e.number + len(optimum.log)) for e in again.log)
        if again.value > optimum.value + 1e-8 * max(1.0, abs(optimum.value)):
            optimum = replace(optimum, log=log)
            break
        moved = again.value < optimum.value - 1e-9 * max(1.0, abs(again.value))
        optimum = replace(again, log=log)
        if not moved:
            break
    return optimum


def _snap(problem: GlmmProblem, phi: FloatArray) -> FloatArray | None:
    """Parameters with small singular values of each T set to zero; None if none is small, or all are zero already."""
    templates = problem.templates
    factors = templates.factors(phi[: problem.n_theta])
    changed = False
    for i, (T, template) in enumerate(zip(factors, templates.templates, strict=True)):
        sizes = np.linalg.svd(T, compute_uv=False)
        if sizes[-1] < _SNAP and (sizes[sizes < _SNAP] > 0.0).any():
            factors[i] = template.truncate(T, _SNAP)
            changed = True
    if not changed:
        return None
    theta = templates.theta_of_factors(factors)
    if np.allclose(theta, phi[: problem.n_theta], rtol=0, atol=1e-14):
        return None
    return np.concatenate([theta, phi[problem.n_theta :]])


def canonical(problem: GlmmProblem, phi: FloatArray) -> FloatArray:
    """The same covariances with non-negative diagonals; what is rounding beside the predictor's unit is zero."""
    theta = problem.templates.theta_of_factors(problem.templates.factors(phi[: problem.n_theta]))
    theta = np.where(np.abs(theta) < _NO_VARIANCE, 0.0, theta)
    return np.concatenate([theta, phi[problem.n_theta :]])


# -- the end -----------------------------------------------------------------------------------------------------


def _no_value(problem: GlmmProblem) -> DesignError:
    if not problem.family.log_concave:
        return DesignError(FLAT_MODE)
    return DesignError(
        "the criterion cannot be evaluated around the point where it is smallest; simplify the random effects, or give "
        "other starting values (`start=`)."
    )


def _finish(criterion: JointCriterion, optimum: Optimum) -> GlmmOptimum:
    """Difference Hessian, one Newton step with it, and the derivatives there."""
    problem = criterion.finder.problem
    phi = canonical(problem, optimum.theta)
    here = optimum.source if (phi == optimum.theta).all() else criterion.evaluate(phi)
    if here is None:
        raise _no_value(problem)
    found, value, gradient = here

    def slope(point: FloatArray) -> FloatArray:
        result = criterion.evaluate(point, beside=True)
        if result is None:
            raise _no_value(problem)
        return result[2]

    criterion.base, criterion.best = found, value
    hessian = difference_hessian(slope, phi, optimum.hessian, gradient)
    floor = curvature_floor(found, problem.unit)
    for _ in range(2):
        step, bound = newton_step(hessian, gradient, floor)
        # A zero on the boundary stays one: its gradient is rounding.
        step[(phi == 0.0) & (np.abs(step) < 1e-8)] = 0.0
        if bound < 1e-13:
            break
        trial = criterion.evaluate(phi + step)
        if trial is None or trial[1] > value + 1e-11 * max(1.0, abs(value)):
            break
        if newton_step(hessian, trial[2], floor)[1] > bound:
            break
        phi, (found, value, gradient) = phi + step, trial
    return GlmmOptimum(phi, found, value, gradient, hessian, optimum.log)


def _finish_profiled(criterion: ProfiledCriterion, optimum: Optimum) -> GlmmOptimum:
    problem = criterion.finder.problem
    x = canonical(problem, optimum.theta)
    found = criterion.evaluate(x)
    if found is None:
        raise _no_value(problem)

    def slope(point: FloatArray) -> FloatArray:
        result = criterion.evaluate(point)
        if result is None:
            raise _no_value(problem)
        return result.gradient

    hessian = difference_hessian(slope, x, optimum.hessian, found.gradient)
    phi = problem.join(found.mode.theta, found.mode.beta, found.mode.lam)

    def value_at(point: FloatArray) -> float:
        there = criterion.evaluate(point)
        return np.inf if there is None else there.value

    lower = _downhill(value_at, x, found.value, hessian, curvature_floor(found, problem.unit))
    return GlmmOptimum(phi, found, found.value, found.gradient, hessian, optimum.log, descends=lower is not None)
