"""Derivatives of the covariance of the fixed effects in the variance parameters, and the Hessian there.

The parameters are coordinates of the relative covariance matrix of every term (`lme4py.covariance.charts`: what is on
the boundary is taken as known) and log sigma^2. Whatever is computed from both derivatives, such as Satterthwaite's
degrees of freedom, does not depend on the parametrisation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from lme4py.covariance.charts import ThetaChart
from lme4py.engine.linear.criterion import Criterion
from lme4py.engine.linear.hessian import has_exact_hessian, hessian_along
from lme4py.engine.linear.penalised import make_criterion
from lme4py.fits.derived import derived
from lme4py.fits.parameters import VarianceDerivatives
from lme4py.linalg.small import eigen
from lme4py.linalg.types import FloatArray

if TYPE_CHECKING:
    from lme4py.covariance.charts import Chart
    from lme4py.engine.factor.crossproducts import Factor
    from lme4py.engine.linear.criterion import Point
    from lme4py.engine.linear.problem import Problem
    from lme4py.fits.linear.fit import LinearFit

__all__ = [
    "changed_products",
    "charts",
    "fixed_in_groups",
    "level_products",
    "steps",
    "symmetric_inverse",
    "variance_derivatives",
]

# Step of the differences, relative to the size of a coordinate: the five-point rule leaves an error of the order of its
# fourth power (1e-9), and the rounding of the gradient divided by it (1e-12).
_STEP = 4e-3
# Directions of a matrix with unit diagonal that have less curvature than this are not identified by the data.
_FLAT = 1e-8


@derived
def variance_derivatives(fit: LinearFit) -> VarianceDerivatives:
    """Derivatives at the optimum of a fit; kept with the fit.

    Parameters
    ----------
    fit : LinearFit
    """
    criterion = make_criterion(fit.problem, fit.reml)
    point = fit.point
    parts = charts(fit.problem, point.theta)
    profiled, slope = _profiled_hessian(criterion, point, parts)
    m = slope.size
    hessian = np.zeros((m + 1, m + 1))
    hessian[:m, :m] = profiled
    if fit.problem.known is None:
        sigma2 = criterion.variance(point.r2)
        hessian[:m, :m] += np.outer(slope, slope) / (criterion.df * sigma2**2)
        hessian[m, :m] = hessian[:m, m] = slope / sigma2
        hessian[m, m] = criterion.df
    # A known sigma has a row of zeros, and no variance.
    inverse = 2.0 * symmetric_inverse(hessian)
    return VarianceDerivatives(parts, _jacobian(fit, parts), hessian, inverse, _covariance_slopes(fit, parts))


def symmetric_inverse(H: FloatArray) -> FloatArray:
    """Inverse of a positive semi-definite matrix without its null space, shape (s, s)."""
    scale = 1.0 / np.sqrt(np.maximum(H.diagonal(), np.finfo(float).tiny))
    scale[H.diagonal() <= 0.0] = 0.0
    values, vectors = eigen(H * scale * scale[:, None])
    keep = values > _FLAT
    half = scale[:, None] * vectors[:, keep] / np.sqrt(values[keep])
    inverse: FloatArray = half @ half.T
    return inverse


def charts(problem: Problem, theta: FloatArray) -> tuple[Chart, ...]:
    """Coordinates of the covariance of every term near theta.

    Parameters
    ----------
    problem : Problem
    theta : ndarray, shape (m,)
        In the engine's columns.
    """
    structures = problem.structures
    return tuple(s.chart(own) for s, own in zip(structures.each, structures.split(theta), strict=True))


# --- the Hessian ------------------------------------------------------------------------------------------------


def _profiled_hessian(criterion: Criterion, point: Point, parts: tuple[Chart, ...]) -> tuple[FloatArray, FloatArray]:
    """Second derivatives in the coordinates of the criterion profiled over sigma, and the slopes of `_slope`.

    Exact, where `has_exact_hessian`; else from four analytic gradients for each parameter.
    """
    if has_exact_hessian(criterion, point):
        changes = [chart.tangents() for chart in parts]
        forms = criterion.average_information(point, changes)
        hessian = hessian_along(criterion, point, changes, forms)
        first = 0
        for chart, G in zip(parts, criterion.sigma_gradient(point), strict=True):
            place = slice(first, first := first + chart.size)
            hessian[place, place] += chart.curvature(G)
        return 0.5 * (hessian + hessian.T), forms[1]
    s = sum(chart.size for chart in parts)
    rows = [_differences(c, s, partial(_gradient, criterion, point, parts, term)) for term, c in enumerate(parts)]
    hessian = np.concatenate([np.zeros((0, s)), *rows])
    return 0.5 * (hessian + hessian.T), _slope(criterion.problem, point, parts)


def _along(G: FloatArray, chart: Chart, change: FloatArray | None) -> FloatArray:
    """Derivative in the coordinates of a term from the one in its covariance, shape (d,)."""
    return chart.pulled(G, change)


def _differences(chart: Chart, s: int, gradient: Callable[[FloatArray], FloatArray]) -> FloatArray:
    """Derivatives of a gradient of s elements in the coordinates of a term by the five-point rule, a row for each."""
    rows = []
    for step, change in steps(chart):
        near, far = (gradient(size * change) - gradient(-size * change) for size in (1, 2))
        rows.append((8.0 * near - far) / (12.0 * step))
    return np.array(rows).reshape(chart.size, s)


def steps(chart: Chart) -> Iterator[tuple[float, FloatArray]]:
    """Length of the step of a difference in each coordinate, and the step, (d,)."""
    for unit, along in zip(_STEP * chart.units, np.eye(chart.size), strict=True):
        yield float(unit), unit * along


def _gradient(
    criterion: Criterion, point: Point, parts: tuple[Chart, ...], term: int, change: FloatArray
) -> FloatArray:
    """Gradient in all coordinates where those of `term` are moved by `change`."""
    theta = point.theta.copy()
    theta[criterion.problem.structures.slices[term]] = parts[term].theta(change)
    G = criterion.sigma_gradient(criterion.evaluate(theta))
    own = enumerate(zip(G, parts, strict=True))
    return np.concatenate([_along(g, chart, change if t == term else None) for t, (g, chart) in own])


def _slope(problem: Problem, point: Point, parts: tuple[Chart, ...]) -> FloatArray:
    """y'P Z dSigma Z'P y for each direction: minus the derivative of the penalised residual sum of squares."""
    g = point.solved(np.append(-point.beta, 1.0)[:, None])
    return changed_products(problem, point, parts, g)[:, 0, 0]


def _covariance_slopes(fit: LinearFit, parts: tuple[Chart, ...]) -> tuple[FloatArray, ...]:
    """Derivatives of the covariance matrix of each term in all coordinates and log sigma^2, each (s, k, k)."""
    scaling = fit.problem.scaling
    s, first, out = sum(chart.size for chart in parts) + 1, 0, []
    for S, chart, covariance in zip(scaling.S, parts, fit.covariances, strict=True):
        d = np.zeros((s, *covariance.shape))
        d[first : first + chart.size] = fit.sigma**2 / scaling.weight_scale * chart.whole_tangents(S)
        d[-1] = covariance
        first += chart.size
        out.append(d)
    return tuple(out)


# --- the Jacobian -----------------------------------------------------------------------------------------------


def fixed_in_groups(point: Point) -> list[FloatArray]:
    """Z'V^-1X by grouping factor, each (k J, p), where V is the covariance of y divided by sigma^2."""
    p = point.beta.size
    weights = np.eye(p + 1)[:, :p]
    return point.solved(weights)


def level_products(problem: Problem, U: list[FloatArray]) -> list[FloatArray]:
    """For each term the sums over levels of u_aj u_bj', shape (k, k, c, c); rows of U are columns, then levels.

    Of related levels they are the sums of K_ij u_ai u_bj' over pairs.
    """
    out: list[FloatArray] = [np.empty(0)] * len(problem.structures.each)
    for factor, rows in zip(problem.factors, U, strict=True):
        blocks = rows.reshape(factor.n_columns, factor.n_levels, -1)
        for term, columns in zip(factor.terms, factor.columns, strict=True):
            own = blocks[columns]
            out[term] = _level_products(factor, own)
    return out


def changed_products(problem: Problem, point: Point, parts: tuple[Chart, ...], U: list[FloatArray]) -> FloatArray:
    """U'Z dSigma Z'U along every coordinate of the terms, shape (s, c, c).

    Parameters
    ----------
    problem : Problem
    point : Point
    parts : tuple of Chart
        One for each term.
    U : list of ndarray, each (k J, c)
        Rows of each grouping factor.
    """
    c = U[0].shape[1]
    found: list[FloatArray] = [np.zeros((0, c, c))] * len(parts)
    chained = point.chain
    for f, factor in enumerate(problem.factors):
        if chained is not None and f == chained.sweeper.chain:
            chart = parts[factor.terms[0]]
            assert isinstance(chart, ThetaChart)
            found[factor.terms[0]] = chained.changed_products(U[f])[chart.free]
            continue
        blocks = U[f].reshape(factor.n_columns, factor.n_levels, -1)
        for t, columns in zip(factor.terms, factor.columns, strict=True):
            found[t] = np.einsum("iab,abcd->icd", parts[t].tangents(), _level_products(factor, blocks[columns]))
    return np.concatenate([np.zeros((0, c, c)), *found])


def _level_products(factor: Factor, own: FloatArray) -> FloatArray:
    return np.asarray(np.matmul(own.transpose(0, 2, 1)[:, None], factor.along(own)[None]))


def _jacobian(fit: LinearFit, parts: tuple[Chart, ...]) -> FloatArray:
    """d vcov = sigma^2 Phi (X'V^-1 Z dSigma Z'V^-1 X) Phi, with Phi = (X'V^-1X)^-1; shape (s, p, p)."""
    problem, C = fit.problem, fit.problem.scaling.C
    p = fit.beta.size
    changes = changed_products(problem, fit.point, parts, fixed_in_groups(fit.point))
    inverse = np.linalg.inv(fit.point.RX)
    spread = fit.sigma / np.sqrt(problem.scaling.weight_scale)
    half = spread * (C @ (inverse @ inverse.T))
    return np.array([*(half @ change @ half.T for change in changes), fit.vcov]).reshape(len(changes) + 1, p, p)
