"""Starting values by the method of moments.

Quadratic forms in the least-squares residuals r have expectations that are linear in the variances:
E sum_j (Z_a'W r)_j^2 = sigma^2 tr(Z_a'W M Z_a) + sum_b tau_b |Z_a'W M Z_b|^2 with M the projection off X (MINQUE with
zero prior weights; Rao 1971, J. Multivariate Anal. 1:445). Everything comes from the cross-products.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import nnls

from lme4py.engine.lmm import Criterion, Problem
from lme4py.engine.types import FloatArray

# Smallest and largest relative standard deviation to start from, in columns of unit size.
_LOWEST, _HIGHEST = 0.05, 20.0
# With more fixed effects than this the projection is left out: it would cost more than it brings.
_MAX_FIXED = 40


def moment_start(criterion: Criterion) -> FloatArray:
    """theta in the engine's columns, shape (m,).

    Parameters
    ----------
    criterion : Criterion
    """
    problem = criterion.problem
    relative = _relative_sds(criterion)
    out = []
    for term, template in enumerate(problem.templates.templates):
        for factor, values in zip(problem.factors, relative, strict=True):
            if term in factor.terms:
                own = values[factor.columns[factor.terms.index(term)]]
        out.append(template.theta(np.diag(own)))
    return np.concatenate(out)


def _relative_sds(criterion: Criterion) -> list[FloatArray]:
    """Estimates of sd / sigma for every column of every grouping factor."""
    problem = criterion.problem
    system, observed = _moment_equations(criterion)
    scale = np.sqrt(np.maximum(system.diagonal(), 1e-300))
    try:
        solution = nnls(system / np.outer(scale, scale), observed / scale)[0] / scale
    except RuntimeError:  # no solution within the iterations: any start will do
        solution = np.ones(observed.size)
    sigma2 = max(float(solution[-1]), 1e-3 * float(observed[-1]) / problem.cross.n_obs)
    values = np.sqrt(np.maximum(solution[:-1], 0.0) / sigma2)
    values = np.clip(values, _LOWEST, _HIGHEST)
    ends = np.cumsum([factor.n_columns for factor in problem.factors])[:-1]
    return list(np.split(values, ends))


def _moment_equations(criterion: Criterion) -> tuple[FloatArray, FloatArray]:
    """Coefficients and observed quadratic forms; the last unknown is sigma^2."""
    problem = criterion.problem
    n, p = problem.cross.n_obs, problem.n_fixed
    starts = np.concatenate([[0], np.cumsum([factor.n_columns for factor in problem.factors])])
    size = int(starts[-1]) + 1
    system = np.zeros((size, size))
    observed = np.zeros(size)
    fixed = [_fixed_border(problem, f) for f in range(len(problem.factors))]
    for f, factor in enumerate(problem.factors):
        k, J = factor.n_columns, factor.n_levels
        rows = slice(int(starts[f]), int(starts[f]) + k)
        diagonal = problem.cross.diagonal[f]
        system[rows, rows] = np.einsum("abj,abj->ab", diagonal, diagonal)
        system[rows, -1] = np.einsum("aaj->a", diagonal) - np.einsum("ajc,ajc->a", fixed[f], fixed[f]) / n
        system[-1, rows] = system[rows, -1]
        residual = problem.base.border[f][:, -1].reshape(k, J)
        observed[rows] = np.einsum("aj,aj->a", residual, residual)
    for (s, t), edges in problem.cross.edges.items():
        block = np.einsum("abe,abe->ab", edges.values, edges.values)
        rows = slice(int(starts[s]), int(starts[s + 1]))
        columns = slice(int(starts[t]), int(starts[t + 1]))
        system[rows, columns] += block
        system[columns, rows] += block.T
    if fixed[0].shape[2]:
        system[:-1, :-1] += _projection(criterion, fixed, n)
    system[-1, -1] = n - p
    observed[-1] = problem.cross.corner[-1, -1]
    return system, observed


def _fixed_border(problem: Problem, f: int) -> FloatArray:
    """Z_f'W X, shape (k, J, p), or without columns where there are too many."""
    factor = problem.factors[f]
    p = problem.n_fixed if problem.n_fixed <= _MAX_FIXED else 0
    return problem.base.border[f][:, :p].reshape(factor.n_columns, factor.n_levels, p)


def _projection(criterion: Criterion, fixed: list[FloatArray], n: int) -> FloatArray:
    """What the projection off X (whose columns are orthonormal) takes from the squared norms."""
    parts = []
    grams = []
    for f, U in enumerate(fixed):
        for a in range(U.shape[0]):
            grams.append(U[a].T @ U[a])
            h = [np.zeros((other.shape[0] * other.shape[1], U.shape[2])) for other in fixed]
            own = np.zeros_like(U)
            own[a] = U[a]
            h[f] = own.reshape(-1, U.shape[2])
            products, _ = criterion.ZZ.apply(h)
            line = [
                np.einsum("bjc,bjc->b", product.reshape(other.shape), other)
                for product, other in zip(products, fixed, strict=True)
            ]
            parts.append(np.concatenate(line))
    gram = np.array(grams).reshape(len(grams), -1)
    cross = np.array(parts)
    out: FloatArray = gram @ gram.T / n**2 - (cross + cross.T) / n
    return out
