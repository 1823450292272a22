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
from lme4py.engine.sweep import level_slices
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
    for f in range(len(problem.factors)):
        own = [i for i, direction in enumerate(directions) if direction.factor == f]
        for levels in level_slices(problem.factors[f].n_levels):
            _add_moments(problem, [(i, directions[i].E) for i in own], f, levels, system, observed)
    for i, direction in enumerate(directions):
        for j, other in enumerate(directions[:i]):
            if other.factor != direction.factor:
                system[i, j] = system[j, i] = _edge_product(criterion, direction, other)
    if 0 < problem.n_fixed <= _MAX_FIXED:
        _project(criterion, directions, system)
    system[-1, -1] = n - problem.n_fixed
    observed[-1] = cross.corner[-1, -1]
    return system, observed


def _add_moments(
    problem: Problem,
    directions: list[tuple[int, FloatArray]],
    f: int,
    levels: slice,
    system: FloatArray,
    observed: FloatArray,
) -> None:
    """Add what some levels of a factor contribute to the equations of its own directions."""
    k, J = problem.factors[f].n_columns, problem.factors[f].n_levels
    residual = problem.base.border[f][:, -1].reshape(k, J)[:, levels]
    diagonal = problem.cross.diagonal[f][:, :, levels]
    moved = {i: small.left(E, diagonal) for i, E in directions}
    for i, E in directions:
        observed[i] += np.vdot(E @ residual, residual)
        trace = float(moved[i].trace().sum())
        system[i, -1] += trace
        system[-1, i] += trace
        for j, _ in directions:
            if j <= i:
                value = float(np.vdot(moved[i].swapaxes(0, 1), moved[j]))
                system[i, j] += value
                system[j, i] += value if i != j else 0.0


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
    m = len(directions)
    grams = np.zeros((m, p, p))
    products = np.zeros((m, m))
    if len(problem.factors) == 1:
        factor = problem.factors[0]
        border = problem.base.border[0].reshape(factor.n_columns, factor.n_levels, -1)
        for levels in level_slices(factor.n_levels):
            own = border[:, levels, :p]
            moved = [small.left(d.E, own) for d in directions]
            grams += np.array([h.reshape(-1, p).T @ own.reshape(-1, p) for h in moved])
            diagonal = problem.cross.diagonal[0][:, :, levels]
            products += np.array([[np.vdot(small.apply(diagonal, h), other) for other in moved] for h in moved])
    else:
        _project_crossed(criterion, directions, grams, products)
    system[:m, :m] += (grams.reshape(m, -1) @ grams.reshape(m, -1).T) / n**2 - (products + products.T) / n
    system[:m, m] -= grams.trace(axis1=1, axis2=2) / n
    system[m, :m] = system[:m, m]


def _project_crossed(
    criterion: Criterion, directions: list[_Direction], grams: FloatArray, products: FloatArray
) -> None:
    """Fill in Z'X E Z'X for each direction (m, p, p), and the products with Z'WZ of each pair (m, m)."""
    problem = criterion.problem
    p = problem.n_fixed
    borders = [
        B[:, :p].reshape(factor.n_columns, factor.n_levels, p)
        for B, factor in zip(problem.base.border, problem.factors, strict=True)
    ]
    moved = [small.left(d.E, borders[d.factor]) for d in directions]
    for i, direction in enumerate(directions):
        grams[i] = moved[i].reshape(-1, p).T @ borders[direction.factor].reshape(-1, p)
        h = [np.zeros((factor.size, p)) for factor in problem.factors]
        h[direction.factor] = moved[i].reshape(-1, p)
        changed, _ = criterion.ZZ.apply(h)
        for j, other in enumerate(directions):
            products[i, j] = np.vdot(changed[other.factor], moved[j])
