"""Derivatives of the covariance of the fixed effects in the variance parameters, and the Hessian there.

The parameters are a root of the relative covariance matrix of every term and log sigma^2. For a covariance matrix of
full rank the root is T(theta). For one of rank r < k it is a k x r matrix: the rank is taken as known, and the
parameters are the directions along which a matrix of that rank can move. A variance of zero has no direction. Whatever
is computed from both derivatives, such as Satterthwaite's degrees of freedom, does not depend on the parametrisation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lme4py.engine.linear.criterion import Criterion
from lme4py.fits.derived import derived
from lme4py.fits.parameters import Root, VarianceDerivatives
from lme4py.linalg.types import FloatArray

if TYPE_CHECKING:
    from lme4py.covariance.templates import Template
    from lme4py.engine.linear.criterion import Point, Problem
    from lme4py.fits.linear.fit import LinearFit

__all__ = [
    "fixed_in_groups",
    "level_products",
    "roots",
    "symmetric_inverse",
    "variance_derivatives",
]

# Relative standard deviations (in scaled columns) below this are zero.
_ZERO = 1e-7
# Step of the differences, relative to the size of the root: the five-point rule leaves an error of the order of its
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
    criterion = Criterion(fit.problem, fit.reml)
    point = fit.point
    parts = roots(fit.problem, point.T)
    sigma2 = point.r2 / criterion.df
    slope = _slope(fit.problem, point, parts)
    m = slope.size
    hessian = np.empty((m + 1, m + 1))
    hessian[:m, :m] = _profiled_hessian(criterion, point, parts) + np.outer(slope, slope) / (criterion.df * sigma2**2)
    hessian[m, :m] = hessian[:m, m] = slope / sigma2
    hessian[m, m] = criterion.df
    inverse = 2.0 * symmetric_inverse(hessian)
    return VarianceDerivatives(parts, _jacobian(fit, parts), hessian, inverse, _covariance_slopes(fit, parts))


def symmetric_inverse(H: FloatArray) -> FloatArray:
    """Inverse of a positive semi-definite matrix without its null space, shape (s, s)."""
    scale = 1.0 / np.sqrt(np.maximum(H.diagonal(), np.finfo(float).tiny))
    scale[H.diagonal() <= 0.0] = 0.0
    values, vectors = np.linalg.eigh(H * scale * scale[:, None])
    keep = values > _FLAT
    half = scale[:, None] * vectors[:, keep] / np.sqrt(values[keep])
    inverse: FloatArray = half @ half.T
    return inverse


# --- roots ------------------------------------------------------------------------------------------------------


def roots(problem: Problem, T: list[FloatArray]) -> tuple[Root, ...]:
    """Root of every term at given T.

    Parameters
    ----------
    problem : Problem
    T : list of ndarray, each (k, k)
        One per term.
    """
    return tuple(_root(template, t) for template, t in zip(problem.templates.templates, T, strict=True))


def _root(template: Template, T: FloatArray) -> Root:
    if template.structure != "unstructured":
        directions = [D for D in template.directions if np.abs(T[D != 0]).max() > _ZERO]
        return _with_steps(T, directions)
    vectors, sizes, _ = np.linalg.svd(T)
    rank = int((sizes > _ZERO).sum())
    if rank == template.size:
        return _with_steps(T, template.directions)
    R = vectors[:, :rank] * sizes[:rank]
    return _with_steps(R, _moves(R))


def _moves(R: FloatArray) -> list[FloatArray]:
    """A basis of the directions of a (k, r) root that change R R': all but its rotations R K, K' = -K."""
    k, r = R.shape
    rotations = []
    for i in range(r):
        for j in range(i):
            K = np.zeros((r, r))
            K[i, j], K[j, i] = 1.0, -1.0
            rotations.append((R @ K).ravel())
    if not rotations:
        return [unit.reshape(k, r) for unit in np.eye(k * r)]
    still = np.linalg.svd(np.array(rotations))[2][len(rotations) :]
    return [direction.reshape(k, r) for direction in still]


def _with_steps(R: FloatArray, directions: list[FloatArray]) -> Root:
    sizes = np.maximum(np.linalg.norm(R, axis=1), 0.02)
    steps = [_STEP * float(sizes[np.abs(D).max(axis=1) > 1e-12].min()) for D in directions]
    return Root(R, tuple(directions), tuple(steps))


# --- the Hessian ------------------------------------------------------------------------------------------------


def _profiled_hessian(criterion: Criterion, point: Point, parts: tuple[Root, ...]) -> FloatArray:
    """Second derivatives in the roots of the criterion profiled over sigma, from analytic gradients.

    Four gradients for each parameter (five-point rule).
    """
    rows = []
    for term, root in enumerate(parts):
        for D, step in zip(root.directions, root.steps, strict=True):
            gradients = [_gradient(criterion, point, parts, term, size * step * D) for size in (1, -1, 2, -2)]
            near, far = gradients[0] - gradients[1], gradients[2] - gradients[3]
            rows.append((8.0 * near - far) / (12.0 * step))
    hessian = np.array(rows).reshape(len(rows), len(rows))
    symmetric: FloatArray = 0.5 * (hessian + hessian.T)
    return symmetric


def _gradient(criterion: Criterion, point: Point, parts: tuple[Root, ...], term: int, change: FloatArray) -> FloatArray:
    """Gradient in all roots where the root of `term` is moved by `change`."""
    templates = criterion.problem.templates
    theta = point.theta.copy()
    values = [root.value for root in parts]
    values[term] = values[term] + change
    theta[templates.slices[term]] = templates.templates[term].theta_of_factor(values[term])
    G = criterion.sigma_gradient(criterion.evaluate(theta))
    return np.array(
        [2.0 * float(np.sum((g @ R) * D)) for g, R, root in zip(G, values, parts, strict=True) for D in root.directions]
    )


def _slope(problem: Problem, point: Point, parts: tuple[Root, ...]) -> FloatArray:
    """y'P Z dSigma Z'P y for each direction: minus the derivative of the penalised residual sum of squares."""
    combination = np.append(-point.beta, 1.0)[:, None]
    _, g = point.swept.back_substitute(point.border, combination)
    products = level_products(problem, g)
    return np.array(
        [
            float(np.sum(dS * P[..., 0, 0]))
            for root, P in zip(parts, products, strict=True)
            for dS in root.sigma_directions()
        ]
    )


def _covariance_slopes(fit: LinearFit, parts: tuple[Root, ...]) -> tuple[FloatArray, ...]:
    """Derivatives of the covariance matrix of each term in all roots and log sigma^2, each (s, k, k)."""
    scaling = fit.problem.scaling
    s, first, out = sum(len(root.directions) for root in parts) + 1, 0, []
    for S, root, covariance in zip(scaling.S, parts, fit.covariances, strict=True):
        d = np.zeros((s, *covariance.shape))
        for i, own in enumerate(root.sigma_directions(), start=first):
            d[i] = fit.sigma**2 / scaling.weight_scale * (S @ own @ S.T)
        d[-1] = covariance
        first += len(root.directions)
        out.append(d)
    return tuple(out)


# --- the Jacobian -----------------------------------------------------------------------------------------------


def fixed_in_groups(point: Point) -> list[FloatArray]:
    """Z'V^-1X by grouping factor, each (k J, p), where V is the covariance of y divided by sigma^2."""
    p = point.beta.size
    weights = np.eye(p + 1)[:, :p]
    return point.swept.back_substitute(point.border, weights)[1]


def level_products(problem: Problem, U: list[FloatArray]) -> list[FloatArray]:
    """For each term the sums over levels of u_aj u_bj', shape (k, k, c, c); rows of U are columns, then levels."""
    out: list[FloatArray] = [np.empty(0)] * len(problem.templates.templates)
    for factor, rows in zip(problem.factors, U, strict=True):
        blocks = rows.reshape(factor.n_columns, factor.n_levels, -1)
        for term, columns in zip(factor.terms, factor.columns, strict=True):
            own = blocks[columns]
            out[term] = np.matmul(own.transpose(0, 2, 1)[:, None], own[None])
    return out


def _jacobian(fit: LinearFit, parts: tuple[Root, ...]) -> FloatArray:
    """d vcov = sigma^2 Phi (X'V^-1 Z dSigma Z'V^-1 X) Phi, with Phi = (X'V^-1X)^-1; shape (s, p, p)."""
    problem, C = fit.problem, fit.problem.scaling.C
    p = fit.beta.size
    products = level_products(problem, fixed_in_groups(fit.point))
    changes = [
        np.einsum("ab,abij->ij", dS, P)
        for root, P in zip(parts, products, strict=True)
        for dS in root.sigma_directions()
    ]
    inverse = np.linalg.inv(fit.point.RX)
    spread = fit.sigma / np.sqrt(problem.scaling.weight_scale)
    half = spread * (C @ (inverse @ inverse.T))
    return np.array([*(half @ change @ half.T for change in changes), fit.vcov]).reshape(len(changes) + 1, p, p)
