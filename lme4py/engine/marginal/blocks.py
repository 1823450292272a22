"""The covariance of the units of a batch and its derivatives in the parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lme4py.covariance import CovarianceStructure, Jet
from lme4py.engine.marginal.model import MarginalModel
from lme4py.engine.marginal.units import Batch
from lme4py.linalg.types import FloatArray

__all__ = ["Blocks", "jets_of", "make_blocks", "points_for", "second_sum", "structure_placed"]


@dataclass(frozen=True)
class Blocks:
    """V of each class of a batch, and its parts.

    Attributes
    ----------
    V : ndarray, shape (C, s, s)
    first : ndarray, shape (m, C, s, s)
        Derivatives; (0, C, s, s) where none were asked for.
    scale : ndarray, shape (C, s)
        Standard deviations of the rows that multiply R.
    residual : ndarray, shape (C, s, s)
        The part of the residuals, scaled.
    """

    V: FloatArray
    first: FloatArray
    scale: FloatArray
    residual: FloatArray


def make_blocks(model: MarginalModel, batch: Batch, jets: Sequence[Jet], delta: FloatArray) -> Blocks:
    """V and its first derivatives.

    Parameters
    ----------
    model : MarginalModel
    batch : Batch
    jets : sequence of Jet
        Of each structure: of its columns for random effects and for residuals on a grid, at the points of the batch for
        other residuals. Without derivatives there are none here.
    delta : ndarray, shape (r,)
    """
    scale = batch.base_scale * np.exp(batch.log_scale @ delta)
    both = scale[:, :, None] * scale[:, None, :]
    V = np.zeros(batch.same.shape)
    first = []
    for Z, same, jet in zip(batch.Z, batch.same_level, jets, strict=False):
        V += same * _spread(Z, jet.value)
        first.append(same * _spread(Z, jet.first[:, None]))
    residual = np.zeros_like(V)
    for h, jet in enumerate(jets[len(batch.Z) :]):
        here = both * batch.same * (batch.stratum == h)[:, :, None]
        residual += here * placed(model, batch, jet.value)
        first.append(here * placed(model, batch, jet.first))
    if jets and jets[0].first.shape[0]:
        first.append(np.array([_moved(g, residual) for g in np.moveaxis(batch.log_scale, 2, 0)]).reshape(-1, *V.shape))
    return Blocks(V + residual, np.concatenate(first), scale, residual)


def _spread(Z: FloatArray, S: FloatArray) -> FloatArray:
    """Z S Z' of every class."""
    return np.asarray(Z @ S @ Z.swapaxes(1, 2))


def structure_placed(model: MarginalModel, batch: Batch, blocks: Blocks, S: FloatArray, i: int) -> FloatArray:
    """The part of V, (C, s, s), that a covariance in the place of structure i makes.

    Parameters
    ----------
    model : MarginalModel
    batch : Batch
    blocks : Blocks
    S : ndarray, shape (k, k), or (C, s, s) at points
    i : int
    """
    if i < len(batch.Z):
        return batch.same_level[i] * _spread(batch.Z[i], S)
    own = batch.same * (batch.stratum == i - len(batch.Z))[:, :, None]
    return np.asarray(own * (blocks.scale[:, :, None] * blocks.scale[:, None, :]) * placed(model, batch, S))


def _moved(g: FloatArray, residual: FloatArray) -> FloatArray:
    """Derivative of the residual part in a coefficient of the logarithm of the standard deviation."""
    return (g[:, :, None] + g[:, None, :]) * residual


def placed(model: MarginalModel, batch: Batch, R: FloatArray) -> FloatArray:
    """Elements for the pairs of rows: of the columns on a grid, (..., k, k) -> (..., C, s, s); else as they are."""
    if not model.residual.on_grid:
        return R
    columns = batch.points.astype(np.intp)
    return np.asarray(R[..., columns[:, :, None], columns[:, None, :]])


def jets_of(model: MarginalModel, batch: Batch, par: FloatArray, order: int) -> list[Jet]:
    """The covariance of each structure with derivatives in its own parameters, for `make_blocks`.

    Parameters
    ----------
    model : MarginalModel
    batch : Batch
    par : ndarray, shape (m,)
    order : {0, 1, 2}
    """
    own = zip(model.structures, model.slices[:-1], strict=True)
    return [
        structure.covariance_derivatives(par[place], points_for(model, batch, i), order)
        for i, (structure, place) in enumerate(own)
    ]


def points_for(model: MarginalModel, batch: Batch, i: int) -> FloatArray | None:
    """Where structure i is asked for: at the points of the batch, or at its columns (None)."""
    return None if i < len(model.random) or model.residual.on_grid else batch.points


def structure_adjoint(model: MarginalModel, batch: Batch, blocks: Blocks, G: FloatArray, i: int) -> FloatArray:
    """Derivative in the covariance of structure i from that in V, G (C, s, s): (k, k), or (C, s, s) at points."""
    if i < len(batch.Z):
        Z = batch.Z[i]
        return np.asarray((Z.swapaxes(1, 2) @ (G * batch.same_level[i]) @ Z).sum(axis=0))
    h = i - len(batch.Z)
    own: FloatArray = G * (
        batch.same * (batch.stratum == h)[:, :, None] * (blocks.scale[:, :, None] * blocks.scale[:, None, :])
    )
    if not model.residual.on_grid:
        return own
    k = model.residual.structures[h].size
    columns = batch.points.astype(np.intp)
    cells = (columns[:, :, None] * k + columns[:, None, :]).ravel()
    return np.asarray(np.bincount(cells, own.ravel(), k * k).reshape(k, k), dtype=float)


def second_sum(model: MarginalModel, batch: Batch, blocks: Blocks, par: FloatArray, G: FloatArray) -> FloatArray:
    """sum <G, d2V_jk>, shape (m, m), for a symmetric G (C, s, s).

    Parameters
    ----------
    model : MarginalModel
    batch : Batch
    blocks : Blocks
        With first derivatives.
    par : ndarray, shape (m,)
    G : ndarray, shape (C, s, s)
    """
    out = np.zeros((model.n_par, model.n_par))
    for i, (structure, place) in enumerate(zip(model.structures, model.slices[:-1], strict=True)):
        adjoint = structure_adjoint(model, batch, blocks, G, i)
        out[place, place] = _curvature(structure, par[place], adjoint, points_for(model, batch, i))
    at = model.slices[-1]
    if at.stop == at.start:
        return out
    g = batch.log_scale
    W = G * blocks.residual
    own = 2.0 * (np.einsum("caj,ca,cak->jk", g, W.sum(axis=2), g) + np.einsum("caj,cab,cbk->jk", g, W, g))
    out[at, at] = own
    R = slice(model.slices[len(model.random)].start, at.start)
    mixed = 2.0 * np.einsum("icab,caj->ij", G * blocks.first[R], g)
    out[R, at], out[at, R] = mixed, mixed.T
    return out


def _curvature(
    structure: CovarianceStructure, theta: FloatArray, G: FloatArray, points: FloatArray | None
) -> FloatArray:
    if points is None:
        return structure.curvature(theta, G)
    second = structure.covariance_derivatives(theta, points).second
    return np.asarray(np.einsum("ijcab,cab->ij", second, G))
