"""Effects on the scale of ordered categories that have no finite estimate.

The scale of some rows goes to zero where each of them lies inside of its category: its probability goes to one. It goes
to infinity where all of them have the lowest or the highest category, which then have the probability F(0) each. None
of this shows in the directions of recession of thresholds and means, and the likelihood is flat long before: a
direction of the log scale is taken as one without a maximum if the criterion is no higher far along it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import scipy.linalg

from lme4py.engine.generalised.criteria import JointCriterion
from lme4py.engine.generalised.integrals.nested_quadrature import refinement
from lme4py.engine.generalised.limit import Limit, polished
from lme4py.engine.generalised.optimum import GlmmOptimum
from lme4py.engine.generalised.problem import ModeFinder
from lme4py.engine.identification.recession import Recession
from lme4py.linalg.types import FloatArray, IntArray

__all__ = ["find_scale_limit"]

# Change of the logarithm of a scale that is far, and its size at which it has gone as far as can be told.
_FAR, _GONE = 8.0, 10.0
# Scales end there for the family.
_END = 16.0
# What the criterion can rise by numbers alone.
_FLAT = 1e-5
# Slope of the log-likelihood of a row that still holds the estimates.
_HELD = 1e-3


def find_scale_limit(
    finder: ModeFinder,
    optimum: GlmmOptimum,
    coefficients: Callable[[], tuple[tuple[str, ...], FloatArray, int]],
    nAGQ: int,
) -> Limit | None:
    """The limit of a likelihood whose scales go to zero or to infinity; None for one that has a maximum in them.

    Parameters
    ----------
    finder : ModeFinder
    optimum : GlmmOptimum
    coefficients : callable
        As in `find_limit`.
    nAGQ : int
    """
    problem = finder.problem
    own = problem.family.scale_columns(problem.data)
    if own is None:
        return None
    place, Z = own
    start = problem.n_theta + problem.n_fixed
    criterion = JointCriterion(finder, refinement(finder, nAGQ))
    criterion.base = optimum.found
    block = np.arange(start + place.start, start + place.stop)
    directions = _flat(criterion, optimum, block, Z)
    if not directions.size:
        return None
    null = scipy.linalg.orth(directions.T)
    whole = np.zeros((optimum.phi.size, null.shape[1]))
    whole[block] = null
    basis = scipy.linalg.null_space(whole.T)
    far = _moved(criterion, optimum, block, directions.sum(axis=0), basis)
    # Where the search ended: further along they have moved away from the ends of their categories.
    score = np.abs(optimum.found.mode.rows.score) * problem.unit
    names, to_user, n_effects = coefficients()
    m = problem.n_theta
    wide = np.zeros((optimum.phi.size - m, null.shape[1]))
    wide[block - m] = null
    cone, middle = directions @ null, null.T @ directions.sum(axis=0)
    rows = Z @ directions.sum(axis=0)
    moved = np.abs(rows) > 1e-9 * np.abs(rows).max()
    held = bool((score[moved & (rows < 0.0)] > _HELD).any())
    if not moved.all() and float(score[~moved].max()) < _HELD:
        # It is the scale of the other rows that goes to zero, and everything that is measured by it to infinity.
        along = far.phi[m:].copy()
        along[block - m] = directions.sum(axis=0) * float(np.abs(along).max())
        wide, held = along[:, None] / np.linalg.norm(along), True
        cone = middle = np.ones((1, 1))
    unit = cone / np.linalg.norm(cone, axis=1, keepdims=True)
    recession = Recession(names, to_user, wide, unit, middle.ravel(), int(moved.sum()), problem.n_obs, n_effects)
    return Limit(far, recession, problem.identification, basis, held)


def _flat(criterion: JointCriterion, optimum: GlmmOptimum, block: IntArray, Z: FloatArray) -> FloatArray:
    """Independent directions of the log scale along which the criterion does not rise, shape (r, q)."""
    found: list[FloatArray] = []
    for direction in _candidates(optimum.hessian[np.ix_(block, block)]):
        along = Z @ direction
        size = float(np.abs(along).max())
        if size <= 0.0 or (found and np.linalg.matrix_rank(np.array([*found, direction]), tol=1e-6) <= len(found)):
            continue
        depth = float(np.abs(Z @ optimum.phi[block])[along != 0.0].max())
        step = direction * (min(_FAR, max(_END - depth, 1.0)) / size)
        # Far away it is flat both ways: the estimates have gone the right one.
        away = 1.0 if float(direction @ optimum.phi[block]) >= 0.0 else -1.0
        if depth > _GONE and not float(np.abs(Z @ (optimum.phi[block] - away * step))[along != 0.0].max()) > _GONE:
            found.append(away * step)
            continue
        for sign in (away, -away):
            phi = optimum.phi.copy()
            phi[block] += sign * step
            there = criterion.evaluate(phi)
            if there is not None and there[1] <= optimum.value + _FLAT:
                found.append(sign * step)
                break
    return np.array(found).reshape(len(found), block.size)


def _candidates(hessian: FloatArray) -> Iterator[FloatArray]:
    """Single effects, then the directions of least curvature."""
    yield from np.eye(hessian.shape[0])
    if hessian.shape[0] > 1:
        values, vectors = np.linalg.eigh(0.5 * (hessian + hessian.T))
        yield from vectors.T[np.argsort(values)]


def _moved(
    criterion: JointCriterion, optimum: GlmmOptimum, block: IntArray, step: FloatArray, basis: FloatArray
) -> GlmmOptimum:
    """The optimum of everything else far along a direction of the scale; the point itself where that is none."""
    phi = optimum.phi.copy()
    phi[block] += step
    there = criterion.evaluate(phi)
    if there is None or there[1] > optimum.value + _FLAT:
        return optimum
    found, value, gradient = there
    return polished(criterion, replace(optimum, phi=phi, found=found, value=value, gradient=gradient), basis)
