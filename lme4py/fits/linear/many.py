"""Linear mixed models for many responses: all at once where the model allows it, else one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np

from lme4py.covariance.chain_levels import ChainLevels
from lme4py.design.design import Design
from lme4py.engine.linear.chained import linear_problem
from lme4py.engine.linear.criterion import Criterion
from lme4py.engine.linear.penalised import make_criterion
from lme4py.engine.linear.problem import Problem
from lme4py.engine.linear.solve import solve
from lme4py.engine.optimise import Control
from lme4py.fits.answers.many import TASK_NUMBERS, TASK_REPLICATES, Many, nothing, one_by_one, stacked
from lme4py.fits.linear.batches.batch import BatchSolver, can_batch
from lme4py.fits.linear.batches.dense_batch import DenseBatch, can_batch_dense
from lme4py.fits.linear.batches.newton_batch import NewtonBatch
from lme4py.fits.linear.fit import LinearFit
from lme4py.fits.linear.refit import Responses, fit_problem, random_start
from lme4py.linalg.types import FloatArray

__all__ = [
    "batch_solver",
    "by_term",
    "estimates",
    "estimates_of_design",
    "on_user_scale",
    "refits",
    "together",
]

Products: TypeAlias = tuple[list[FloatArray], FloatArray, FloatArray]


def together(fit: LinearFit) -> int:
    """Responses whose estimates are made in one task.

    Parameters
    ----------
    fit : LinearFit
    """
    is_dense = not can_batch(fit) and can_batch_dense(fit)
    most = TASK_REPLICATES["batch" if can_batch(fit) or is_dense else "single"]
    sums = 0
    if can_batch(fit):
        factor = fit.problem.factors[0]
        sums = factor.size * (2 * factor.n_columns + fit.problem.n_fixed)
    elif is_dense:
        sums = 2 * sum(factor.size for factor in fit.problem.factors) ** 2
    numbers = max(fit.design.n_obs + 4 * sums, 1)
    return max(1, min(most, TASK_NUMBERS // numbers))


def estimates(fit: LinearFit, Y: FloatArray) -> Many:
    """Estimates for responses.

    Parameters
    ----------
    fit : LinearFit
    Y : ndarray, shape (n, B)
    """
    responses = Responses(fit)
    products = responses.products(Y)
    solver = batch_solver(fit, responses)
    if solver is not None:
        return _batch(fit, solver, responses, products)
    return stacked(one_by_one(_problems(fit, responses, products)), _empty(fit))


def refits(fit: LinearFit, Y: FloatArray) -> Iterator[Callable[[], LinearFit]]:
    """Makers of the fits to responses.

    Parameters
    ----------
    fit : LinearFit
    Y : ndarray, shape (n, B)
    """
    responses = Responses(fit)
    Zy, Xy, yy = responses.products(Y)
    start = random_start(fit)
    for b in range(Y.shape[1]):

        def make(b: int = b) -> LinearFit:
            problem = responses.problem([z[:, b] for z in Zy], Xy[:, b], float(yy[b]))
            design = replace(fit.design, y=np.ascontiguousarray(Y[:, b]))
            return fit_problem(fit, design, problem, fit.reml, start)

        yield make


def estimates_of_design(fit: LinearFit, design: Design) -> Many:
    """Estimates of the model of another design, without a certificate.

    Parameters
    ----------
    fit : LinearFit
    design : Design
    """
    return _solved(fit, linear_problem(design), None)


def _empty(fit: LinearFit) -> Many:
    return nothing(1, fit.beta.size, [cov.shape[0] for cov in fit.covariances], None, False)


def _problems(fit: LinearFit, responses: Responses, products: Products) -> Iterator[Callable[[], Many]]:
    Zy, Xy, yy = products
    start = random_start(fit)
    for b in range(yy.size):

        def make(b: int = b) -> Many:
            problem = responses.problem([z[:, b] for z in Zy], Xy[:, b], float(yy[b]))
            return _solved(fit, problem, start)

        yield make


def batch_solver(fit: LinearFit, responses: Responses) -> NewtonBatch[Any] | None:
    """What optimises many responses of a model at once; None where that has to be one by one.

    Parameters
    ----------
    fit : LinearFit
    responses : Responses
    """
    if can_batch(fit):
        return BatchSolver(Criterion(fit.problem, fit.reml))
    return DenseBatch(Criterion(fit.problem, fit.reml), responses) if can_batch_dense(fit) else None


def by_term(fit: LinearFit, theta: FloatArray) -> list[FloatArray]:
    """T of each term, (B, k, k), where it is a linear function of theta.

    Parameters
    ----------
    fit : LinearFit
    theta : ndarray, shape (B, m)
        In the engine's columns.
    """
    structures = fit.problem.structures
    out = []
    for structure, place in zip(structures.each, structures.slices, strict=True):
        directions = np.array(list(structure.tangents(structure.initial())))
        out.append(np.tensordot(theta[:, place], directions, 1))
    return out


def _batch(fit: LinearFit, solver: NewtonBatch[Any], responses: Responses, products: Products) -> Many:
    Zy, Xy, yy = products
    found = solver.solve(solver.sums(Zy, Xy, yy), random_start(fit))
    values = on_user_scale(fit.problem, by_term(fit, found.theta), found.beta, found.r2 / solver.df)
    rest = np.flatnonzero(~found.converged)
    if not rest.size:
        return values
    own = ([z[:, rest] for z in Zy], Xy[:, rest], yy[rest])
    singly = stacked(one_by_one(_problems(fit, responses, own)), _empty(fit))
    return values.with_rows(rest, replace(singly, n_not_converged=0))


def _solved(fit: LinearFit, problem: Problem, start: FloatArray | None) -> Many:
    """All parameters of a problem, without a certificate."""
    criterion = make_criterion(problem, fit.reml)
    point = solve(criterion, start, Control()).source[0]
    T = [t[None] for t in point.T]
    found = on_user_scale(problem, T, point.beta[None], np.array([criterion.variance(point.r2)]))
    chain = next((t for t, s in enumerate(problem.structures.each) if isinstance(s, ChainLevels)), None)
    if chain is None:
        return found
    # T of a chain of many times is that of its levels: the covariance of all times is the structure's to make.
    scaling, structure, place = problem.scaling, problem.structures.each[chain], problem.structures.slices[chain]
    scale = scaling.y_scale**2 * criterion.variance(point.r2)
    covariances = list(found.covariances)
    covariances[chain] = scale * structure.whole_covariance(point.theta[place], scaling.S[chain])[None]
    return replace(found, covariances=covariances)


def on_user_scale(problem: Problem, T: list[FloatArray], beta: FloatArray, sigma2: FloatArray) -> Many:
    """Estimates on the user's scale.

    Parameters
    ----------
    problem : Problem
    T : list of ndarray, each (B, k, k)
        Of each term.
    beta : ndarray, shape (B, p)
    sigma2 : ndarray, shape (B,)
    """
    scaling = problem.scaling
    covariances = []
    for S, t in zip(scaling.S, T, strict=True):
        root = (S if t.shape[1] == S.shape[1] else np.eye(t.shape[1])) @ t
        covariances.append((scaling.y_scale**2 * sigma2)[:, None, None] * (root @ root.transpose(0, 2, 1)))
    sigma = scaling.y_scale * np.sqrt(scaling.weight_scale * sigma2)
    return Many(scaling.b0 + scaling.y_scale * (beta @ scaling.C.T), covariances, sigma)
