"""The exact Hessian of the linear criterion, for models of one grouping factor or of few random effects.

With W = Z'PZ (Z'V^-1Z for ML), S_i the derivative of Sigma in a parameter i and g = Z'Py, the second derivatives of the
criterion are those of the average information with tr(P V_i P V_j) put back:

    H_ij = df / r2 (2 g'S_i Z'PZ S_j g - g'S_i g g'S_j g / r2) - tr(W S_i W S_j) + curvature of Sigma

(Searle, Casella & McCulloch 1992, *Variance Components*, section 6.6, profiled over sigma^2). Of one grouping factor
Z'V^-1Z is block diagonal, and W differs from it by U U', U = Z'V^-1X RX^-1; of more factors W is a dense matrix of all
random effects.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.linalg.lapack as lapack

from lme4py.linalg import small
from lme4py.linalg.types import FloatArray

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lme4py.engine.linear.criterion import Criterion, Point

# Up to this many random effects a dense matrix of all of them is cheaper than gradients beside the optimum.
_SMALL = 300
# Models with more random effects than this are certified with the optimiser's Hessian.
LARGE = 2000
# A table of one grouping factor has the fourth power of its columns.
_COLUMNS = 20


def has_exact_hessian(criterion: Criterion, point: Point) -> bool:
    """Whether second derivatives are cheap.

    Parameters
    ----------
    criterion : Criterion
    point : Point
    """
    factors = criterion.problem.factors
    if criterion.problem.priors is not None or not criterion.has_traces:
        return False
    if _is_one(criterion):
        return factors[0].n_columns <= _COLUMNS
    return sum(factor.size for factor in factors) <= _SMALL and point.swept.is_complete


def _is_one(criterion: Criterion) -> bool:
    """One grouping factor of independent levels."""
    factors = criterion.problem.factors
    return len(factors) == 1 and factors[0].relation is None


def exact_hessian(
    criterion: Criterion, point: Point, G: Sequence[FloatArray], forms: tuple[FloatArray, FloatArray]
) -> FloatArray:
    """Second derivatives of the criterion in theta (engine's columns), shape (m, m).

    Parameters
    ----------
    criterion : Criterion
    point : Point
        One that `has_exact_hessian`.
    G : sequence of ndarray, each (k, k)
        Derivatives in the covariance of each term at the point.
    forms : tuple of ndarray
        `Criterion.average_information` at the point.
    """
    structures = criterion.problem.structures
    own = zip(structures.each, structures.split(point.theta), strict=True)
    hessian = hessian_along(criterion, point, [s.covariance_tangents(theta) for s, theta in own], forms)
    for structure, place, g in zip(structures.each, structures.slices, G, strict=True):
        hessian[place, place] += structure.curvature(point.theta[place], g)
    return 0.5 * (hessian + hessian.T)


def hessian_along(
    criterion: Criterion,
    point: Point,
    changes: Sequence[FloatArray],
    forms: tuple[FloatArray, FloatArray] | None = None,
) -> FloatArray:
    """Second derivatives along straight lines in the covariances: without the curvature of Sigma, shape (d, d).

    Parameters
    ----------
    criterion : Criterion
    point : Point
        One that `has_exact_hessian`.
    changes : sequence of ndarray, each (d_t, k, k)
        Of the covariance of each term.
    forms : tuple of ndarray, optional
        `Criterion.average_information` for them.
    """
    q, slope = criterion.average_information(point, changes) if forms is None else forms
    hessian: FloatArray = criterion.quadratic(point, 2.0 * q, slope)
    return hessian - criterion.traces(point, changes)


def traces(criterion: Criterion, point: Point, changes: Sequence[FloatArray]) -> FloatArray:
    """tr(W S_i W S_j) for all pairs of changes, from the factor at a point, shape (d, d).

    Parameters
    ----------
    criterion : Criterion
    point : Point
    changes : sequence of ndarray, each (d_t, k, k)
    """
    return (_traces_of_one if _is_one(criterion) else _traces_of_all)(criterion, point, changes)


def _changes_by_factor(criterion: Criterion, changes: Sequence[FloatArray]) -> list[tuple[int, FloatArray]]:
    """Grouping factor of each change, and the change in the factor's columns, (k, k)."""
    out: list[tuple[int, FloatArray]] = [(0, np.empty(0))] * sum(map(len, changes))
    ends = np.cumsum([len(own) for own in changes])
    for f, factor in enumerate(criterion.problem.factors):
        for term, columns in zip(factor.terms, factor.columns, strict=True):
            for i, change in enumerate(changes[term], start=int(ends[term]) - len(changes[term])):
                S = np.zeros((factor.n_columns, factor.n_columns))
                S[columns, columns] = change
                out[i] = f, S
    return out


def _traces_of_one(criterion: Criterion, point: Point, changes: Sequence[FloatArray]) -> FloatArray:
    """tr(W S_i W S_j) with W = B - U U', from sums over the levels of B_ab B_cd, u_a u_b B_cd and u_a u_b'."""
    k, levels_of = criterion.problem.factors[0].n_columns, point.swept.stages[0].pieces
    p = criterion.problem.n_fixed if criterion.reml else 0
    border = criterion.problem.base.border[0].reshape(k, criterion.problem.factors[0].n_levels, -1)[:, :, :p]
    blocks, crossed, fixed = np.zeros((k * k, k * k)), np.zeros((k * k, k * k)), np.zeros((k, p, k, p))
    for levels, stage in levels_of():
        B = small.product(stage.residual_map, stage.A).reshape(k * k, -1)
        blocks += B @ B.T
        if p:
            raw = small.apply(stage.residual_map, border[:, levels]).reshape(-1, p)
            U = lapack.dtrtrs(point.RX, raw.T, trans=1)[0].T.reshape(k, -1, p)
            crossed += small.outer(U, U).reshape(k * k, -1) @ B.T
            fixed += np.tensordot(U, U, axes=(1, 1))
    S = np.array([own for _, own in _changes_by_factor(criterion, changes)]).reshape(-1, k, k)
    # With T = S_i and R = S_j: tr(B T B R) = sum of B_ab T_bc B_cd R_da.
    own = blocks - 2.0 * crossed if p else blocks
    table = np.einsum("abcd,ibc->iad", own.reshape(k, k, k, k), S)
    out: FloatArray = np.einsum("iad,jda->ij", table, S)
    if p:
        K = np.einsum("apbq,iab->ipq", fixed, S)
        out += np.einsum("ipq,jqp->ij", K, K)
    return 0.5 * (out + out.T)


def _traces_of_all(criterion: Criterion, point: Point, changes: Sequence[FloatArray]) -> FloatArray:
    """tr(W S_i W S_j) for all pairs of changes."""
    problem = criterion.problem
    W = inner_products(criterion, point)
    ends = np.cumsum([factor.size for factor in problem.factors])
    rows = [slice(int(end) - factor.size, int(end)) for end, factor in zip(ends, problem.factors, strict=True)]
    moved = []
    related = [
        factor.along(W[own].reshape(factor.n_columns, factor.n_levels, -1)).reshape(factor.n_columns, -1)
        for factor, own in zip(problem.factors, rows, strict=True)
    ]
    for f, S in _changes_by_factor(criterion, changes):
        moved.append((rows[f], (S @ related[f]).reshape(-1, W.shape[1])))
    out = np.empty((len(moved), len(moved)))
    for i, (own_rows, left) in enumerate(moved):
        for j, (other_rows, right) in enumerate(moved[: i + 1]):
            out[i, j] = out[j, i] = np.vdot(left[:, other_rows], right[:, own_rows].T)
    return out


def inner_products(criterion: Criterion, point: Point) -> FloatArray:
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
