"""Starting values by the method of moments.

Quadratic forms in the least-squares residuals r have expectations that are linear in the variance parameters. With
V = sigma^2 W^-1 + sum_q tau_q Z E_q Z' and M the projection off X,

    E[ r'W Z E_p Z'W r ] = sigma^2 tr(E_p Z'W M Z) + sum_q tau_q tr(E_p Z'WMZ E_q Z'WMZ)

(MINQUE with zero prior weights; Rao 1971, J. Multivariate Anal. 1:445). Everything comes from the cross-products. With
balanced data these are the REML estimates, so that the optimiser has nothing left to do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from lme4py.engine import small
from lme4py.engine.lmm import Criterion, Problem
from lme4py.engine.types import FloatArray

# Smallest and largest relative standard deviation to start from, in columns of unit size.
_LOWEST, _HIGHEST = 0.05, 30.0
# With more fixed effects than this the projection is left out: it would cost more than it brings.
_MAX_FIXED = 40


@dataclass(frozen=True)
class _Direction:
    """One variance parameter: E is its matrix in the columns of the grouping factor."""

    term: int
    factor: int
    E: FloatArray
    diagonal: bool


def moment_start(criterion: Criterion) -> FloatArray:
    """theta in the engine's columns, shape (m,).

    Parameters
    ----------
    criterion : Criterion
    """
    problem = criterion.problem
    directions = _directions(problem)
    system, observed = _moment_equations(criterion, directions)
    covariances = _solve(problem, directions, system, observed)
    return problem.templates.theta_of_factors([_root(covariance) for covariance in covariances])


def _directions(problem: Problem) -> list[_Direction]:
    out = []
    for f, factor in enumerate(problem.factors):
        for term, columns in zip(factor.terms, factor.columns, strict=True):
            template = problem.templates.templates[term]
            for small_E in template.covariance_directions:
                E = np.zeros((factor.n_columns, factor.n_columns))
                E[columns, columns] = small_E
                out.append(_Direction(term, f, E, bool(np.trace(small_E) > 0)))
    return out


def _solve(
    problem: Problem, directions: list[_Direction], system: FloatArray, observed: FloatArray
) -> list[FloatArray]:
    """Covariance matrices of the terms relative to sigma^2."""
    scale = np.sqrt(np.maximum(system.diagonal(), 1e-300))
    scaled, right = system / np.outer(scale, scale), observed / scale
    solution = np.linalg.lstsq(scaled, right, rcond=1e-10)[0] / scale
    covariances = _assemble(problem, directions, solution)
    least = [np.linalg.eigvalsh(covariance)[0] for covariance in covariances]
    if solution[-1] > 0 and min(least) > _LOWEST**2 * solution[-1]:
        return [covariance / solution[-1] for covariance in covariances]
    # Outside the parameter space: variances alone, none of them negative.
    use = np.array([direction.diagonal for direction in directions] + [True])
    try:
        positive = nnls(scaled[np.ix_(use, use)], right[use])[0] / scale[use]
    except RuntimeError:  # no solution within the iterations: any start will do
        positive = np.ones(int(use.sum()))
    solution = np.zeros(use.size)
    solution[use] = positive
    sigma2 = max(float(solution[-1]), 1e-3 * float(observed[-1]) / problem.cross.n_obs)
    return [covariance / sigma2 for covariance in _assemble(problem, directions, solution)]


def _assemble(problem: Problem, directions: list[_Direction], solution: FloatArray) -> list[FloatArray]:
    out = [np.zeros((t.size, t.size)) for t in problem.templates.templates]
    for direction, value in zip(directions, solution, strict=False):
        factor = problem.factors[direction.factor]
        columns = factor.columns[factor.terms.index(direction.term)]
        out[direction.term] += value * direction.E[columns, columns]
    return out


def _root(covariance: FloatArray) -> FloatArray:
    """A factor of a covariance whose standard deviations are kept within sensible bounds."""
    values, vectors = np.linalg.eigh(covariance)
    bounded = np.clip(np.sqrt(np.maximum(values, 0.0)), _LOWEST, _HIGHEST)
    root: FloatArray = vectors * bounded
    return root


def _moment_equations(criterion: Criterion, directions: list[_Direction]) -> tuple[FloatArray, FloatArray]:
    """Coefficients and observed quadratic forms; the last unknown is sigma^2."""
    problem = criterion.problem
    cross = problem.cross
    n = cross.n_obs
    m = len(directions)
    system = np.zeros((m + 1, m + 1))
    observed = np.zeros(m + 1)
    moved = [small.left(d.E, cross.diagonal[d.factor]) for d in directions]
    for i, direction in enumerate(directions):
        f = direction.factor
        k, J = problem.factors[f].n_columns, problem.factors[f].n_levels
        residual = problem.base.border[f][:, -1].reshape(k, J)
        observed[i] = np.vdot(direction.E @ residual, residual)
        system[i, -1] = system[-1, i] = float(moved[i].trace().sum())
        for j in range(i + 1):
            other = directions[j]
            if other.factor == f:
                value = float(np.vdot(moved[i].swapaxes(0, 1), moved[j]))
            else:
                value = _edge_product(criterion, direction, other)
            system[i, j] = system[j, i] = value
    del moved
    if 0 < problem.n_fixed <= _MAX_FIXED:
        _project(criterion, directions, system)
    system[-1, -1] = n - problem.n_fixed
    observed[-1] = cross.corner[-1, -1]
    return system, observed


def _edge_product(criterion: Criterion, left: _Direction, right: _Direction) -> float:
    """sum over pairs of levels of tr(E_p A E_q A')."""
    edges = criterion.problem.cross.edges
    if left.factor > right.factor:
        left, right = right, left
    values = edges[left.factor, right.factor].values
    return float(np.vdot(small.left(left.E, values), small.right(values, right.E)))


def _project(criterion: Criterion, directions: list[_Direction], system: FloatArray) -> None:
    """Take the projection off X (whose columns are orthonormal) into account."""
    problem = criterion.problem
    n, p = problem.cross.n_obs, problem.n_fixed
    borders = [
        B[:, :p].reshape(factor.n_columns, factor.n_levels, p)
        for B, factor in zip(problem.base.border, problem.factors, strict=True)
    ]
    moved = [small.left(d.E, borders[d.factor]) for d in directions]
    grams = [h.reshape(-1, p).T @ borders[d.factor].reshape(-1, p) for h, d in zip(moved, directions, strict=True)]
    m = len(directions)
    for i, direction in enumerate(directions):
        h = [np.zeros((factor.size, p)) for factor in problem.factors]
        h[direction.factor] = moved[i].reshape(-1, p)
        products, _ = criterion.ZZ.apply(h)
        for j, other in enumerate(directions):
            cross = float(np.vdot(products[other.factor], moved[j]))
            system[i, j] -= cross / n
            system[j, i] -= cross / n
            system[i, j] += float(np.vdot(grams[i], grams[j])) / n**2
        system[i, m] -= float(np.trace(grams[i])) / n
        system[m, i] = system[i, m]
