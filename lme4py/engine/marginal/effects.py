"""What is made of the rows at the estimates: V^-1 times columns, conditional modes, whitened residuals, draws."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lme4py.engine.marginal.blocks import jets_of, make_blocks, structure_placed
from lme4py.engine.marginal.chain_sums import effects_inner, random_factor, solved
from lme4py.engine.marginal.criterion import MarginalCriterion, MarginalPoint
from lme4py.errors import DesignError
from lme4py.linalg.types import FloatArray

__all__ = ["conditional_covariances", "inverse_root", "inverse_times", "modes", "residual_roots", "whitened"]

# A row whose residual varies less than this part of its standard deviation given the others is determined by them.
_SINGULAR = 1e-7


def inverse_times(criterion: MarginalCriterion, point: MarginalPoint, M: FloatArray) -> FloatArray:
    """V^-1 M, M of shape (n, q), with V inside."""
    if criterion.chain is not None:
        return solved(criterion.chain, point.par, M)
    out = np.empty_like(M)
    for batch, inverse in zip(criterion.batches, point.inverse, strict=True):
        own = inverse[batch.unit_class]
        out[batch.rows] = own.swapaxes(1, 2) @ (own @ M[batch.rows])
    return out


def modes(criterion: MarginalCriterion, point: MarginalPoint) -> list[FloatArray]:
    """Conditional modes of each random part inside, (J, k): Sigma Z'V^-1 (y - X beta)."""
    model = criterion.model
    if not model.random:
        return []
    weighted = inverse_times(criterion, point, (model.y - model.X @ point.beta)[:, None])
    found = []
    for part, place in zip(model.random, model.slices, strict=False):
        size = int(part.codes.max()) + 1
        columns = [np.bincount(part.codes, weighted[:, 0] * z, size) for z in part.values.T]
        found.append(np.stack(columns, axis=1) @ part.structure.covariance(point.par[place]))
    return found


def conditional_covariances(
    criterion: MarginalCriterion, point: MarginalPoint, include_fixed: bool
) -> list[FloatArray]:
    """Covariances of the errors of the modes of each level, inside, (J, k, k).

    Sigma - Sigma Z'V^-1 Z Sigma for known fixed effects; Sigma Z'V^-1 X Phi X'V^-1 Z Sigma more for estimated ones.
    """
    model = criterion.model
    VX = inverse_times(criterion, point, model.X)
    found = []
    for t, (part, place) in enumerate(zip(model.random, model.slices, strict=False)):
        S = part.structure.covariance(point.par[place])
        k, size = S.shape[0], int(part.codes.max()) + 1
        inner = _inner(criterion, point, t, size)
        cov = S - S @ inner @ S
        if include_fixed:
            P = np.zeros((size, k, VX.shape[1]))
            np.add.at(P, part.codes, part.values[:, :, None] * VX[:, None, :])
            P = S @ P
            cov = cov + P @ point.phi @ P.swapaxes(1, 2)
        found.append(cov)
    return found


def _inner(criterion: MarginalCriterion, point: MarginalPoint, t: int, size: int) -> FloatArray:
    """Z'V^-1 Z of each level of term t, (J, k, k)."""
    part = criterion.model.random[t]
    k = part.structure.size
    inner = np.zeros((size, k, k))
    if criterion.chain is not None:
        H, T = effects_inner(criterion.chain, point.par), random_factor(criterion.model, point.par, 0).value
        M = np.eye(len(T)) + T.T @ H @ T
        whole = H - H @ T @ np.linalg.solve(M, T.T @ H)
        first = sum(other.structure.size for other in criterion.model.random[:t])
        own = slice(first, first + k)
        np.add.at(inner, part.codes[criterion.chain.order[criterion.chain.starts]], whole[:, own, own])
        return inner
    for batch, inverse in zip(criterion.batches, point.inverse, strict=True):
        W = batch.same_level[t] * (inverse.swapaxes(1, 2) @ inverse)
        rows = batch.Z[t][..., :, None] * (W @ batch.Z[t])[..., None, :]
        np.add.at(inner, part.codes[batch.rows], rows[batch.unit_class])
    return inner


def residual_roots(criterion: MarginalCriterion, par: FloatArray, parts: Sequence[int] = ()) -> list[FloatArray]:
    """Factors, (C, s, s) by batch, of the residual part of V and of some random parts beside it.

    Lower triangular; of a part that is singular, which V need not be, the eigenvectors times the roots of their values.
    """
    model = criterion.model
    found = []
    for batch in criterion.batches:
        jets = jets_of(model, batch, par, 0)
        blocks = make_blocks(model, batch, jets, par[model.slices[-1]])
        V = blocks.residual
        for t in parts:
            V = V + structure_placed(model, batch, blocks, jets[t].value, t)
        found.append(_root(V))
    return found


def _root(V: FloatArray) -> FloatArray:
    try:
        L = np.asarray(np.linalg.cholesky(V), dtype=float)
        sizes = np.diagonal(L, axis1=1, axis2=2) / np.sqrt(np.diagonal(V, axis1=1, axis2=2))
        if sizes.min() > _SINGULAR:
            return L
    except np.linalg.LinAlgError:
        pass
    values, vectors = np.linalg.eigh(V)
    kept = values > _SINGULAR**2 * values[:, -1:]
    return np.asarray(vectors * np.sqrt(np.where(kept, values, 0.0))[:, None, :])


def is_singular(root: FloatArray) -> bool:
    """Whether a factor of `residual_roots` is one of a singular covariance."""
    return bool(np.triu(root, 1).any())


def inverse_root(root: FloatArray) -> FloatArray:
    """W with W'W the inverse of the covariance that a factor of `residual_roots` belongs to, (C, s, s); where it is
    singular, the generalised inverse."""
    inverse = np.linalg.pinv(root, rcond=_SINGULAR) if is_singular(root) else np.linalg.inv(root)
    return np.asarray(inverse)


def whitened(criterion: MarginalCriterion, point: MarginalPoint, residual: FloatArray) -> FloatArray:
    """L^-1 e in the order of the rows, (n,), L the lower factors of the residual part of V.

    Raises
    ------
    DesignError
        The residual part is singular.
    """
    if criterion.chain is not None:
        return criterion.chain.whitened(point.par, residual[:, None])[:, 0]
    out = np.empty_like(residual)
    for batch, root in zip(criterion.batches, residual_roots(criterion, point.par), strict=True):
        if is_singular(root):
            raise DesignError(
                "residuals that are whitened by the covariance of the residuals are not there: it is singular at the "
                "estimates, and rows of a subject determine each other. Use residuals('pearson'), or choose a simpler "
                "residual structure."
            )
        own = inverse_root(root)[batch.unit_class]
        out[batch.rows] = (own @ residual[batch.rows][..., None])[..., 0]
    return out
