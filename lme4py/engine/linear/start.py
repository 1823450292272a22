"""Starting values by the method of moments.

Quadratic forms in the least-squares residuals r have expectations that are linear in the variance parameters. With
V = sigma^2 W^-1 + sum_q tau_q Z E_q Z' and M the projection off X,

    E[ r'W Z E_p Z'W r ] = sigma^2 tr(E_p Z'W M Z) + sum_q tau_q tr(E_p Z'WMZ E_q Z'WMZ)

(MINQUE with zero prior weights; Rao 1971, J. Multivariate Anal. 1:257); the traces are those of
`lme4py.engine.identification.gram`. With balanced data these are the REML estimates, so that the optimiser has nothing
left to do.
"""

from __future__ import annotations

import numpy as np

from lme4py.covariance import CovarianceStructure
from lme4py.engine.identification.gram import Direction
from lme4py.engine.linear.problem import Problem
from lme4py.linalg.small import eigen, least_eigenvalue, symmetric_root
from lme4py.linalg.types import FloatArray

# Smallest and largest relative standard deviation to start from, in columns of unit size.
_LOWEST, _HIGHEST = 0.05, 30.0
# What is left to the residuals where correlations by which a process is told from them are not known yet.
_NOISE = 0.2


def moment_start(problem: Problem) -> FloatArray:
    """theta in the engine's columns, shape (m,).

    Parameters
    ----------
    problem : Problem
    """
    problem = problem.at_start
    gram = problem.moment_gram
    covariances = _solve(problem, gram.directions, gram.projected, _observed(problem, gram.directions))
    theta = problem.structures.theta_of_factors([symmetric_root(covariance) for covariance in covariances])
    return problem.structures.as_start(theta, _LOWEST, _HIGHEST)


def _solve(
    problem: Problem, directions: tuple[Direction, ...], system: FloatArray, observed: FloatArray
) -> list[FloatArray]:
    """Covariance matrices of the terms relative to sigma^2."""
    if problem.known is not None:
        # What the known variance explains is taken off; it is then an observation of itself.
        observed = observed - system[-1] * problem.known
        observed[-1] = problem.known
        system = system.copy()
        system[-1], system[:, -1], system[-1, -1] = 0.0, 0.0, 1.0
    scale = np.sqrt(np.maximum(system.diagonal(), 1e-300))
    values, vectors = eigen(system / (scale[:, None] * scale))
    sizes = np.abs(values)
    used = sizes > 1e-10 * sizes.max()
    # The shortest solution, where there are several.
    along = (vectors.T @ (observed / scale))[used] / values[used]
    solution = vectors[:, used] @ along / scale
    covariances = _assemble(problem, directions, solution)
    least = [least_eigenvalue(covariance) for covariance in covariances]
    if solution[-1] > 0 and min(least) > _LOWEST**2 * solution[-1]:
        return [covariance / solution[-1] for covariance in covariances]
    from scipy.optimize import nnls

    # Outside the parameter space: few variances, none of them negative.
    few = _few_directions(problem, directions)
    try:
        solution = few.T @ nnls(few @ system @ few.T, few @ observed)[0]
    except RuntimeError:  # no solution within the iterations: any start will do
        solution = few.sum(axis=0)
    least_share = 1e-3 if all(map(_is_plain, problem.structures.each)) else _NOISE
    sigma2 = max(float(solution[-1]), least_share * float(observed[-1]) / problem.cross.n_obs)
    return [covariance / sigma2 for covariance in _assemble(problem, directions, solution)]


def _few_directions(problem: Problem, directions: tuple[Direction, ...]) -> FloatArray:
    """Combinations of the directions and the residual variance that are variances, (r, m + 1).

    Each variance of a linear structure alone, and one for all of any other, with its usual correlations: with one row
    for each effect the variances of a process alone are those of the residuals.
    """
    rows = []
    for t, structure in enumerate(problem.structures.each):
        own = [i for i, direction in enumerate(directions) if direction.term == t]
        chosen = [[i] for i in own if directions[i].diagonal] if _is_plain(structure) else [own]
        rows += [np.isin(np.arange(len(directions) + 1), places).astype(float) for places in chosen if places]
    return np.array([*rows, np.eye(len(directions) + 1)[-1]])


def _is_plain(structure: CovarianceStructure) -> bool:
    """Whether variances alone are a start."""
    return structure.linear or structure.size == 1


def _assemble(problem: Problem, directions: tuple[Direction, ...], solution: FloatArray) -> list[FloatArray]:
    out = [np.zeros((t.size, t.size)) for t in problem.structures.each]
    for direction, value in zip(directions, solution, strict=False):
        out[direction.term] += value * direction.own
    return out


def _observed(problem: Problem, directions: tuple[Direction, ...]) -> FloatArray:
    """The quadratic forms r'W Z E Z'W r and r'W r of the residuals r from X, shape (m + 1,)."""
    grams = []
    for factor, border in zip(problem.factors, problem.cross.border, strict=True):
        grams.append(factor.gram(border[:, :, -1]))
    forms = [float(np.vdot(direction.E, grams[direction.factor])) for direction in directions]
    return np.array([*forms, problem.cross.corner[-1, -1]])
