"""Scores of the marginal likelihood of a generalised linear mixed model, one for each independent cluster.

The gradient of the Laplace criterion (`lme4py.engine.generalised.laplace`) is a sum over rows and over levels of the
grouping factors; its parts are added up by cluster instead of altogether. With quadrature, and where a covariance
matrix of several factors is singular, each cluster is a small model of its own, differentiated at the same parameters.

The robust covariance is H^-1 (sum over clusters of s_c s_c') H^-1, with H the Hessian of minus the log-likelihood
in (theta, beta, log dispersion or thresholds): White (1982, Econometrica 50:1); times m / (m - 1) it is Stata's
vce(cluster) of multilevel models, where vce(robust) takes the highest level as the clusters.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lme4py.engine.factor.crossproducts import Factor
from lme4py.engine.generalised.integrals.quadrature import reordered
from lme4py.engine.generalised.laplace import Laplace, laplace
from lme4py.engine.generalised.problem import GlmmProblem, ModeFinder
from lme4py.engine.generalised.products import WeightedProducts
from lme4py.engine.threads import limited_threads
from lme4py.errors import OptionError
from lme4py.families.nuisance import as_columns
from lme4py.fits.generalised.fit import GeneralisedFit, user_jacobian
from lme4py.fits.rows.clusters import ClusterChoice, Clusters, home_of_levels, independent_clusters, row_sums
from lme4py.linalg.types import FloatArray, IntArray

__all__ = ["cluster_scores", "score_covariance"]

# T with a smaller relative singular value is singular.
_SINGULAR = 1e-6


def cluster_scores(fit: GeneralisedFit, cluster: ClusterChoice = None) -> FloatArray:
    """Derivatives of the log-likelihood of each cluster in (theta, beta, log dispersion or thresholds).

    Parameters
    ----------
    fit : GeneralisedFit
        Fitted with nAGQ >= 1.
    cluster : str, array of shape (n,), or None
        Clusters that contain whole groups of every term.

    Returns
    -------
    ndarray, shape (m, n_parameters)

    Notes
    -----
    On the user's scale. Parameters held fixed on the boundary have scores of zero.

    Examples
    --------
    >>> import lme4py
    >>> cbpp = lme4py.load_dataset("cbpp")
    >>> fit = lme4py.glmer("cbind(incidence, size - incidence) ~ period + (1 | herd)", cbpp).fit
    >>> scores = cluster_scores(fit)
    >>> scores.shape, bool(abs(scores.sum(axis=0)).max() < 1e-3)
    ((15, 5), True)
    """
    clusters = independent_clusters(fit.design, cluster)
    if fit.restricted:
        raise OptionError("scores are those of a likelihood of the fixed effects too; refit the model with reml=False.")
    if fit.nAGQ == 0:
        raise OptionError("scores need a likelihood in all parameters; refit the model with nAGQ=1 or more.")
    with limited_threads(fit.design), np.errstate(all="ignore"):
        by_level = _by_level(fit.point) if fit.nAGQ == 1 and not fit.problem.copies else None
        gradient = _one_by_one(fit, clusters) if by_level is None else _together(fit, clusters, by_level)
    return _on_user_scale(fit, -0.5 * gradient)


def score_covariance(fit: GeneralisedFit, type: str, cluster: ClusterChoice) -> FloatArray:
    """Sandwich of the scores for all parameters, in the places of ``fit.parameter_vcov``.

    Parameters
    ----------
    fit : GeneralisedFit
    type : {"CR0", "CR1"}
    cluster : str, array of shape (n,), or None

    Returns
    -------
    ndarray, shape (n_parameters, n_parameters)
        Of (theta, beta, log dispersion or thresholds); zero for parameters held fixed on the boundary.
    """
    if type not in ("CR0", "CR1"):
        raise OptionError(f"type={type!r} is for linear mixed models; use 'CR0', or 'CR1' as Stata's vce(robust).")
    scores = cluster_scores(fit, cluster)
    moves = scores @ fit.own_parameter_vcov
    count = scores.shape[0]
    factor = count / (count - 1.0) if type == "CR1" else 1.0
    covariance: FloatArray = factor * moves.T @ moves
    return covariance


def _on_user_scale(fit: GeneralisedFit, scores: FloatArray) -> FloatArray:
    # Parameters on the boundary have rows of zeros, and scores of zero.
    user: FloatArray = scores @ np.linalg.pinv(user_jacobian(fit.problem, fit.phi))
    return user


# --- Laplace, all clusters at once ------------------------------------------------------------------------------


def _by_level(found: Laplace) -> list[FloatArray] | None:
    """Derivative of log|M| in the T of each level of each factor over 2, (J, k, k); None for singular T of several."""
    factors, T = found.finder.problem.factors, found.mode.T
    if len(factors) == 1:
        A = np.moveaxis(found.swept.stages[0].A, 2, 0) if found.swept.stages else None
        if A is None:
            return None
        M = np.eye(T[0].shape[0]) + T[0].T @ A @ T[0]
        return [A @ T[0] @ np.linalg.inv(M)]
    out = []
    for t, blocks in zip(T, found.diagonal, strict=True):
        sizes = np.linalg.svd(t, compute_uv=False)
        if sizes[-1] < _SINGULAR * max(float(sizes[0]), 1.0):
            return None
        inverse = np.linalg.inv(t)
        inner = np.eye(t.shape[0]) - inverse @ np.moveaxis(blocks, 2, 0) @ inverse.T
        out.append(inverse.T @ inner)
    return out


def _together(fit: GeneralisedFit, clusters: Clusters, by_level: list[FloatArray]) -> FloatArray:
    """Gradient of the criterion by cluster, (m, n_parameters), in the engine's columns."""
    found = fit.point
    problem, mode, rows = fit.problem, found.mode, found.rows
    products = problem.products
    h = found._log_det[0]
    expected = problem.uses_expected
    c = problem.stack.gradient(h, rows.dw_exp if expected else rows.dw_obs)
    a, b_a = products.solve(mode.swept, c)
    moved = products.spread(b_a)
    rest = c - problem.stack.weigh(mode.w, moved)
    count = clusters.n_clusters
    left = products.gather(rest) - 2.0 * mode.score
    T = [
        x + y + 2.0 * g
        for x, y, g in zip(
            _outer_by_level(problem.factors, left, mode.u),
            _outer_by_level(problem.factors, mode.score, a),
            by_level,
            strict=True,
        )
    ]
    parts = [
        _theta_by_cluster(fit, T, clusters),
        row_sums(_by_row(problem, problem.X * (rest - 2.0 * rows.score)[:, None]), clusters.codes, count),
    ]
    if problem.n_nuisance:
        curve = as_columns(rows.w_exp_lam if expected else rows.w_obs_lam)
        values = -2.0 * as_columns(rows.d_lam) + _by_row(problem, h[:, None] * curve)
        values += _by_row(problem, moved[:, None] * as_columns(rows.score_lam))
        parts.append(row_sums(values, clusters.codes, count))
    return np.concatenate(parts, axis=1)


def _by_row(problem: GlmmProblem, values: FloatArray) -> FloatArray:
    """Sums over the linear predictors, or their pairs, of each row of the data, shape (n, c)."""
    if problem.stack.size == 1:
        return values
    summed: FloatArray = values.reshape(-1, problem.n_obs, values.shape[1]).sum(axis=0)
    return summed


def _outer_by_level(factors: tuple[Factor, ...], left: FloatArray, right: FloatArray) -> list[FloatArray]:
    """left_j right_j' of every level of each factor, (J, k, k)."""
    out, start = [], 0
    for factor in factors:
        place = slice(start, start + factor.size)
        a, b = left[place].reshape(factor.n_columns, -1), right[place].reshape(factor.n_columns, -1)
        out.append(np.einsum("aj,bj->jab", a, b))
        start += factor.size
    return out


def _theta_by_cluster(fit: GeneralisedFit, by_T: list[FloatArray], clusters: Clusters) -> FloatArray:
    """Derivatives in theta by cluster, (m, n_theta), from those in the T of every level."""
    problem = fit.problem
    homes = home_of_levels(fit.design, clusters)
    if homes is None:
        raise OptionError("the clusters are not independent in this model.")
    out = np.zeros((clusters.n_clusters, problem.n_theta))
    for factor, values in zip(problem.factors, by_T, strict=True):
        for term, columns in zip(factor.terms, factor.columns, strict=True):
            structure = problem.structures.each[term]
            place = problem.structures.slices[term]
            own = np.einsum("jab,iab->ji", values[:, columns, columns], structure.tangents(fit.phi[place]))
            out[:, place] = row_sums(own, homes[factor.name], clusters.n_clusters)
    return out


# --- any approximation, cluster by cluster ----------------------------------------------------------------------


def _one_by_one(fit: GeneralisedFit, clusters: Clusters) -> FloatArray:
    """Gradient of the criterion by cluster from a model of each cluster at the same parameters."""
    order = np.argsort(clusters.codes, kind="stable")
    ends = np.cumsum(np.bincount(clusters.codes, minlength=clusters.n_clusters))
    return np.array([_gradient(fit, rows) for rows in np.split(order, ends[:-1])])


def _gradient(fit: GeneralisedFit, rows: IntArray) -> FloatArray:
    problem, place = _restricted(fit.problem, rows)
    finder = ModeFinder(problem)
    theta, beta, lam = problem.split(fit.phi)
    found = laplace(finder, finder.find(theta, beta, lam, fit.point.mode.u[place]))
    rule = fit.cluster_rule(finder)
    return found.gradient if rule is None else rule(found)[1]


def _restricted(problem: GlmmProblem, rows: IntArray) -> tuple[GlmmProblem, IntArray]:
    """The problem of some rows in the same columns, and the places of its random effects among all of them."""
    products, D = problem.products, problem.stack.size
    codes, Z, factors, places, copies = [], [], [], [], []
    start = 0
    every_copies = problem.copies or (None,) * len(problem.factors)
    for factor, levels, block, count in zip(
        problem.factors, products.codes, products.blocks, every_copies, strict=True
    ):
        used, own = np.unique(levels[rows], return_inverse=True)
        codes.append(own.reshape(-1).astype(np.intp))
        Z.append(np.ascontiguousarray(block[rows]))
        copies.append(None if count is None else count[used])
        factors.append(replace(factor, n_levels=used.size))
        places.append((start + np.arange(factor.n_columns)[:, None] * factor.n_levels + used).ravel())
        start += factor.size
    # The outer factor first: within one cluster of one small group the data cannot tell which one it is.
    order = sorted(range(len(factors)), key=lambda f: problem.factors[f].n_levels)
    kept = tuple(factors[f] for f in order)
    every = np.concatenate([d * problem.n_obs + rows for d in range(D)])
    smaller = replace(
        problem,
        factors=kept,
        X=problem.X[every],
        offset=problem.offset[every],
        products=WeightedProducts(
            tuple(codes[f] for f in order),
            tuple(Z[f] for f in order),
            kept,
            places=tuple(products.places[f] for f in order),
        ),
        data=reordered(problem.data, rows),
        copies=tuple(copies[f] for f in order) if problem.copies else (),
    )
    return smaller, np.concatenate([places[f] for f in order])
