"""The exact Hessian of the linear criterion, for models with few random effects.

With W = Z'PZ (Z'V^-1Z for ML), S_i the derivative of Sigma in theta_i and g = Z'Py, the second derivatives of the
criterion are those of the average information with tr(P V_i P V_j) put back:

    H_ij = df / r2 (2 g'S_i Z'PZ S_j g - g'S_i g g'S_j g / r2) - tr(W S_i W S_j) + curvature of Sigma(theta)

(Searle, Casella & McCulloch 1992, *Variance Components*, section 6.6, profiled over sigma^2). W is a dense
matrix of all random effects.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.linalg.lapack as lapack

from lme4py.linalg.types import FloatArray

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lme4py.engine.linear.criterion import Criterion, Point


def exact_hessian(
    criterion: Criterion, point: Point, G: Sequence[FloatArray], forms: tuple[FloatArray, FloatArray]
) -> FloatArray:
    """Second derivatives of the criterion in theta (engine's columns), shape (m, m).

    Parameters
    ----------
    criterion : Criterion
    point : Point
        Its factor must still be there.
    G : sequence of ndarray, each (k, k)
        Derivatives in the covariance of each term at the point.
    forms : tuple of ndarray
        `Criterion.average_information` at the point.
    """
    structures = criterion.problem.structures
    q, slope = forms
    hessian: FloatArray = criterion.df / point.r2 * (2.0 * q - np.outer(slope, slope) / point.r2)
    hessian -= _traces(criterion, point)
    for structure, place, g in zip(structures.each, structures.slices, G, strict=True):
        hessian[place, place] += structure.curvature(point.theta[place], g)
    return 0.5 * (hessian + hessian.T)


def _traces(criterion: Criterion, point: Point) -> FloatArray:
    """tr(W S_i W S_j) for all pairs of theta."""
    problem = criterion.problem
    W = _inner_products(criterion, point)
    ends = np.cumsum([factor.size for factor in problem.factors])
    rows = [slice(int(end) - factor.size, int(end)) for end, factor in zip(ends, problem.factors, strict=True)]
    moved: list[tuple[slice, FloatArray]] = [(rows[0], W)] * problem.structures.n_theta
    for f, factor in enumerate(problem.factors):
        own = W[rows[f]].reshape(factor.n_columns, -1)
        for term, columns in zip(factor.terms, factor.columns, strict=True):
            place = problem.structures.slices[term]
            for i, dSigma in enumerate(problem.structures.each[term].covariance_tangents(point.theta[place])):
                S = np.zeros((factor.n_columns, factor.n_columns))
                S[columns, columns] = dSigma
                moved[place.start + i] = rows[f], (S @ own).reshape(factor.size, -1)
    out = np.empty((len(moved), len(moved)))
    for i, (own_rows, left) in enumerate(moved):
        for j, (other_rows, right) in enumerate(moved[: i + 1]):
            out[i, j] = out[j, i] = np.vdot(left[:, other_rows], right[:, own_rows].T)
    return out


def _inner_products(criterion: Criterion, point: Point) -> FloatArray:
    """Z'PZ for REML, Z'V^-1Z for ML, shape (q, q)."""
    problem = criterion.problem
    identity = np.eye(sum(factor.size for factor in problem.factors))
    ends = np.cumsum([factor.size for factor in problem.factors])
    border, A = criterion.ZZ.apply(np.split(identity, ends[:-1]))
    swept = point.swept.sweep_border(border)
    W = A - swept.cross(swept)
    p = problem.n_fixed
    if criterion.reml and p:
        ZX = np.concatenate(problem.base.border)[:, :p] - swept.cross(point.border)[:, :p]
        half = lapack.dtrtrs(point.RX, ZX.T, trans=1)[0]
        W -= half.T @ half
    return W
