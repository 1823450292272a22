"""The limit of a likelihood without a maximum: the optimum of what does not go to infinity."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import scipy.linalg

from lme4py.design.design import RandomTerm
from lme4py.engine.certificate import CONVERGED
from lme4py.engine.generalised.criteria import JointCriterion
from lme4py.engine.generalised.hessian import curvature_floor, newton_step
from lme4py.engine.generalised.integrals.nested_quadrature import refinement
from lme4py.engine.generalised.optimum import GlmmOptimum
from lme4py.engine.generalised.problem import GlmmProblem, Mode, ModeFinder
from lme4py.engine.identification.recession import Recession, find_recession
from lme4py.engine.identification.record import Identification
from lme4py.families.rows import HalfRows
from lme4py.linalg.types import BoolArray, FloatArray, IntArray

__all__ = ["Limit", "find_limit", "moving", "polished", "range_hint"]

# Beyond predictors of this size the rows that do not move would lose their digits.
_FARTHEST = 1e8
# What `find_recession` gives.
Directions = tuple[FloatArray, FloatArray, FloatArray, IntArray]


@dataclass(frozen=True)
class Limit:
    """An optimum in the directions that have one.

    Attributes
    ----------
    optimum : GlmmOptimum
        At a point so far along the directions of recession that the rows which move have no digits left.
    recession : Recession
        On the user's scale.
    identification : Identification
        That of the problem, less the covariances of columns that are zero in all rows that do not move.
    basis : ndarray, shape (r, r - q)
        Orthonormal directions of the engine's parameters in which the limit has a maximum; with nAGQ = 0 those of the
        fixed effects alone.
    held : bool
        Whether rows that move still hold everything else: then nothing has a standard error.
    """

    optimum: GlmmOptimum
    recession: Recession
    identification: Identification
    basis: FloatArray
    held: bool = False

    @property
    def inside(self) -> GlmmOptimum:
        """The optimum with gradient and Hessian in the directions of `basis`; as it is with nAGQ = 0."""
        if self.basis.shape[0] != self.optimum.hessian.shape[0]:
            return self.optimum
        hessian = self.basis.T @ self.optimum.hessian @ self.basis
        return replace(self.optimum, gradient=self.basis.T @ self.optimum.gradient, hessian=hessian)


def find_limit(
    finder: ModeFinder,
    optimum: GlmmOptimum,
    coefficients: Callable[[], tuple[tuple[str, ...], FloatArray, int]],
    terms: tuple[RandomTerm, ...],
    nAGQ: int,
) -> Limit | None:
    """The limit of a likelihood that has no maximum; None for one that has.

    Parameters
    ----------
    finder : ModeFinder
    optimum : GlmmOptimum
        Where the optimiser stopped.
    coefficients : callable
        Names of the fixed effects, then of the effects on thresholds or scale and of the thresholds of ordered
        categories; their derivative in the coefficients inside; and how many are no thresholds.
    terms : tuple of RandomTerm
    nAGQ : int
        With 0 gradient and Hessian are not those in all parameters.
    """
    problem, mode = finder.problem, optimum.found.mode
    if problem.penalty is not None and problem.penalty.has_fixed:
        return None
    family = problem.family
    eta = problem.stack.first(mode.eta)
    half = family.half_rows(problem.data, eta)
    stopped = _stopped(optimum)
    rates = family.rates(half, optimum.found.rows, problem.data, eta, mode.lam) if stopped else None
    cuts = family.half_columns(half, problem.data)
    p = problem.n_fixed
    size = np.ones(p if cuts is None else p + cuts.shape[1])
    grows = np.ones(size.size, dtype=bool)
    if cuts is not None:
        largest = np.abs(cuts).max(axis=0, initial=0.0)
        # Logarithms of scales move no threshold.
        grows[p:] = largest > 0.0
        size[p:][grows[p:]] = largest[grows[p:]]
        cuts = (cuts / size[p:])[:, grows[p:]]
    found = find_recession(half, rates, problem.stack.first(problem.X), cuts, problem.unit)
    if found is None:
        return None
    rest = _rest(half, found[3], problem.n_obs)
    null, cone, direction, moved = _whole(found, grows, family.silent(problem.data, rest), p)
    names, to_user, n_effects = coefficients()
    n_moved = np.unique(half.row[moved]).size
    middle = null.T @ direction
    recession = Recession(names, to_user / size, null, cone, middle, n_moved, problem.n_obs, n_effects)
    basis = scipy.linalg.null_space((null / size[:, None]).T)
    identification = _of_rest(finder.problem.identification, terms, rest)
    if nAGQ == 0:
        return Limit(optimum, recession, identification, basis)
    own = np.eye(problem.n_nuisance if cuts is None else 0)
    basis = scipy.linalg.block_diag(np.eye(problem.n_theta), basis, own)
    criterion = JointCriterion(finder, refinement(finder, nAGQ))
    criterion.base = optimum.found
    direction = direction / size
    far = _further(criterion, optimum, direction, _distance(half, mode, problem, moved, direction))
    return Limit(polished(criterion, far, basis), recession, identification, basis)


def _whole(found: Directions, grows: BoolArray, silent: FloatArray | None, n_fixed: int) -> Directions:
    """Directions in all coefficients, with those of a scale that the rows which do not move say nothing about."""
    null, cone, direction, moved = found
    count = 0 if silent is None else silent.shape[1]
    wide, along = np.zeros((grows.size, null.shape[1] + count)), np.zeros(grows.size)
    wide[grows, : null.shape[1]], along[grows] = null, direction
    if silent is not None:
        wide[n_fixed:, null.shape[1] :] = silent
    return wide, np.hstack([cone, np.zeros((cone.shape[0], count))]), along, moved


def _rest(half: HalfRows, moved: IntArray, n_obs: int) -> BoolArray:
    """Rows that say something and do not move on every side that they have, shape (n,)."""
    still = np.ones(half.row.size, dtype=bool)
    still[moved] = False
    rest = np.zeros(n_obs, dtype=bool)
    rest[half.row[still]] = True
    return rest


def _of_rest(identification: Identification, terms: tuple[RandomTerm, ...], rest: BoolArray) -> Identification:
    """Identification by some of the rows."""
    lost = [np.asarray((term.values[rest] == 0.0).all(axis=0)) for term in terms]
    changes = [(columns | columns[:, None]).astype(np.float64) for columns in lost]
    if not any(change.any() for change in changes):
        return identification
    names = [
        f"the variance of {', '.join(name for name, gone in zip(term.columns, columns, strict=True) if gone)} in "
        f"{term.label}"
        for term, columns in zip(terms, lost, strict=True)
        if columns.any()
    ]
    return replace(
        identification,
        changes=(*identification.changes, tuple(changes)),
        sizes=(*identification.sizes, tuple(changes)),
        sentences=(*identification.sentences, f"the rows that remain say nothing about {', '.join(names)}"),
    )


def _stopped(optimum: GlmmOptimum) -> bool:
    """Whether the point is an optimum as far as the gradient says."""
    return optimum.bound < CONVERGED and not optimum.descends


def _distance(half: HalfRows, mode: Mode, problem: GlmmProblem, moved: IntArray, direction: FloatArray) -> float:
    """How far along the direction all rows that move are in their tails; each moves by at least 1 per unit."""
    cuts = problem.family.half_columns(half, problem.data)
    values = half.values(problem.stack.first(mode.eta), None if cuts is None else cuts @ mode.lam)
    wanted = float((problem.family.tail(mode.lam, problem.data) - values[moved]).max())
    return float(np.clip(wanted, 0.0, _FARTHEST / max(float(np.abs(direction).max()), 1.0)))


def _further(criterion: JointCriterion, optimum: GlmmOptimum, direction: FloatArray, distance: float) -> GlmmOptimum:
    """The same point further along the direction; the point itself where the criterion does not fall there."""
    phi = optimum.phi.copy()
    m = criterion.finder.problem.n_theta
    phi[m : m + direction.size] += distance * direction
    there = criterion.evaluate(phi)
    if there is None or there[1] > optimum.value + 1e-9 * max(1.0, abs(optimum.value)):
        return optimum
    found, value, gradient = there
    return replace(optimum, phi=phi, found=found, value=value, gradient=gradient)


def polished(criterion: JointCriterion, optimum: GlmmOptimum, basis: FloatArray) -> GlmmOptimum:
    """Newton steps in the directions that have an optimum.

    Parameters
    ----------
    criterion : JointCriterion
    optimum : GlmmOptimum
    basis : ndarray, shape (r, r - q)
    """
    problem = criterion.finder.problem
    floor = curvature_floor(optimum.found, problem.units)
    hessian = basis.T @ optimum.hessian @ basis
    for _ in range(3):
        step, bound = newton_step(hessian, basis.T @ optimum.gradient, floor)
        trial = None if bound < 1e-13 else criterion.evaluate(optimum.phi + basis @ step)
        if trial is None or trial[1] > optimum.value:
            break
        found, value, gradient = trial
        optimum = replace(optimum, phi=optimum.phi + basis @ step, found=found, value=value, gradient=gradient)
    return optimum


def moving(problem: GlmmProblem, direction: FloatArray, names: tuple[str, ...]) -> list[str]:
    """Names of the fixed effects that move along a direction of the engine's coefficients."""
    along = np.abs(problem.C @ direction)
    return [name for name, size in zip(names, along, strict=True) if size > 1e-9 * along.max()]


def range_hint(problem: GlmmProblem, names: tuple[str, ...]) -> str:
    """Why a fit may have no maximum inside the range of its family or link; "" where nothing speaks for that.

    Parameters
    ----------
    problem : GlmmProblem
    names : tuple of str
        Of the fixed effects.
    """
    own = problem.family.no_maximum(problem.data)
    if own:
        return f" Here {own}."
    link = problem.family.link
    if link.low == -np.inf and link.high == np.inf:
        return ""
    half = problem.family.half_rows(problem.data, np.ones(problem.n_obs), beyond=True)
    found = find_recession(half, None, problem.stack.first(problem.X), None)
    if found is None:
        return ""
    _, _, direction, moved = found
    columns = moving(problem, direction, names)
    return (
        f" Here {', '.join(columns)} {'separates' if len(columns) == 1 else 'separate'} {problem.family.separates} "
        f"({np.unique(half.row[moved]).size} of {problem.n_obs} rows): their means go to an end of the range of the "
        f"{link.name} link, and there is no maximum inside it. Use a link without bounds, leave these columns out, or "
        "merge sparse categories."
    )
