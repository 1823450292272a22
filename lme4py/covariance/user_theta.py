"""How theta on the user's scale moves with theta in the engine's columns.

The engine has T with Z_inside = Z S; the user's factor is L = lower(S T), L L' = S T T'S'. With L = S T Q, Q
orthogonal, a change dT gives dL = X + L K, X = S dT Q, where K is the skew matrix that keeps L lower triangular.
"""

from __future__ import annotations

import numpy as np
import scipy.linalg

from lme4py.covariance.templates import Template, Templates
from lme4py.linalg.small import lower_factor
from lme4py.linalg.types import FloatArray

# Diagonal elements of L below this part of its norm are on the boundary.
_BOUNDARY = 1e-6


def theta_jacobian(templates: Templates, S: tuple[FloatArray, ...], theta: FloatArray) -> FloatArray:
    """Derivative of the user's theta in the engine's, shape (m, m), block diagonal in the terms.

    Rows of parameters on the boundary are zero: these are held fixed. On the boundary are zeros on the diagonal of an
    unstructured L, with the zeros below them, and zero eigenvalues of the other structures.

    Parameters
    ----------
    templates : Templates
    S : tuple of ndarray, each (k, k)
    theta : ndarray, shape (m,)
        In the engine's columns.
    """
    pairs = zip(templates.templates, S, templates.factors(theta), strict=True)
    blocks = [_triangular(t, s, T) if t.projections is None else _projected(t, s, T) for t, s, T in pairs]
    jacobian: FloatArray = scipy.linalg.block_diag(*blocks)
    return jacobian


def _projected(template: Template, S: FloatArray, T: FloatArray) -> FloatArray:
    """theta are roots of eigenvalues, linear in the covariance."""
    user = template.user
    M = S @ T
    size = np.sqrt(np.maximum(user.coefficients(M @ M.T), 0.0))
    free = size > _BOUNDARY * size.max(initial=0.0)
    changes = [user.coefficients(S @ dT @ M.T + M @ dT.T @ S.T) for dT in template.directions]
    slopes: FloatArray = np.array(changes).T / (2.0 * np.where(free, size, 1.0))[:, None]
    return np.where(free[:, None], slopes, 0.0)


def _triangular(template: Template, S: FloatArray, T: FloatArray) -> FloatArray:
    M = S @ T
    L = lower_factor(M)
    pivots = np.flatnonzero(L.diagonal() > _BOUNDARY * np.linalg.norm(L))
    kept = L[:, pivots]
    Q = np.linalg.lstsq(M, kept, rcond=None)[0]
    inverse = np.linalg.inv(kept[pivots])
    columns = []
    for dT in template.directions:
        X = S @ dT @ Q
        upper = np.triu(inverse @ X[pivots], 1)
        change = np.zeros_like(L)
        change[:, pivots] = X + kept @ (upper.T - upper)
        columns.append(template.theta(change))
    return np.array(columns).T
