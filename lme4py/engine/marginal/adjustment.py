"""What Kenward and Roger's adjustment is made of, for a covariance of any form (Kenward & Roger 1997, 2009).

With V_i, V_ij the derivatives of V in parameters psi and Phi = (X'V^-1X)^-1,

    P_i = - X'V^-1 V_i V^-1 X,   Q_ij = X'V^-1 V_i V^-1 V_j V^-1 X,   R_ij = X'V^-1 V_ij V^-1 X
    2 (W^-1)_ij = tr(V_i V^-1 V_j V^-1) - tr(2 Phi Q_ij - Phi P_i Phi P_j)
    Phi_A = Phi + 2 Phi (sum W_ij (Q_ij - P_i Phi P_j - R_ij / 4)) Phi

The result depends on psi through R alone. psi are the elements of the covariance for structures that are linear in them
(no R), variances and correlations for the others, and the coefficients of the logarithm of the standard deviation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lme4py.covariance import CovarianceStructure, Jet
from lme4py.engine.factor.forecast import check_memory
from lme4py.engine.marginal.blocks import Blocks, make_blocks, points_for, structure_placed
from lme4py.engine.marginal.chain import RowChain
from lme4py.engine.marginal.chain_sums import ChainSums, second_moments
from lme4py.engine.marginal.criterion import MarginalCriterion, MarginalPoint, residuals
from lme4py.engine.marginal.units import Batch
from lme4py.errors import DesignError
from lme4py.linalg.types import FloatArray

__all__ = ["Expected", "NoAdjustment", "expected"]


class NoAdjustment(DesignError):
    """The adjustment does not exist at the estimates; the message says why."""


@dataclass(frozen=True)
class Expected:
    """Sums at the estimates, in the parameters psi and the columns inside.

    Attributes
    ----------
    information : ndarray, shape (s, s)
        Expected information of psi under REML, W^-1.
    first : ndarray, shape (s, p, p)
        X'V^-1 V_i V^-1 X = -P_i.
    second : ndarray, shape (s, s, p, p)
        Q_ij.
    curved : ndarray, shape (s, s, p, p), or None
        R_ij; None where it was not asked for, or is zero.
    """

    information: FloatArray
    first: FloatArray
    second: FloatArray
    curved: FloatArray | None


def expected(criterion: MarginalCriterion, point: MarginalPoint, curved: bool = True) -> Expected:
    """The sums of the adjustment.

    Parameters
    ----------
    criterion : MarginalCriterion
    point : MarginalPoint
    curved : bool
        With R_ij.

    Raises
    ------
    NoAdjustment
        The parameters have no meaning at the estimates: a correlation with what has no variance.
    DesignError
        The second derivatives do not fit into memory.
    """
    model, m, p = criterion.model, criterion.model.n_par, criterion.p
    if not m:
        return Expected(np.zeros((0, 0)), np.zeros((0, p, p)), np.zeros((0, 0, p, p)), None)
    has_curves = curved and (
        model.slices[-1].stop > model.slices[-1].start or not all(s.linear for s in model.structures)
    )
    if criterion.chain is not None and point.sums is not None and not model.random:
        return _of_chain(criterion, criterion.chain, point.par, point.sums, point.phi, curved)
    first, second, traces = np.zeros((m, p, p)), np.zeros((m, p, m, p)), np.zeros((m, m))
    R = np.zeros((m, m, p, p)) if has_curves else None
    # On a grid the covariances are the same for all batches.
    shared = [
        _jet(structure, point.par[place], None, has_curves)
        if points_for(model, criterion.batches[0], i) is None
        else None
        for i, (structure, place) in enumerate(zip(model.structures, model.slices[:-1], strict=True))
    ]
    for batch, inverse in zip(criterion.batches, point.inverse, strict=True):
        jets = [
            jet or _jet(model.structures[i], point.par[model.slices[i]], points_for(model, batch, i), has_curves)
            for i, jet in enumerate(shared)
        ]
        blocks = make_blocks(model, batch, jets, point.par[model.slices[-1]])
        B = residuals(batch, inverse, point.beta)[1]
        D = blocks.first[:, batch.of_class] @ B
        first += B.reshape(-1, p).T @ D.reshape(m, -1, p)
        flat = np.moveaxis(inverse[batch.of_class] @ D, 0, 2).reshape(-1, m * p)
        second += (flat.T @ flat).reshape(m, p, m, p)
        E = inverse @ blocks.first @ inverse.swapaxes(1, 2)
        traces += (batch.count[:, None, None] * E).reshape(m, -1) @ E.reshape(m, -1).T
        if R is not None:
            _add_curves(criterion, batch, blocks, jets, B, R)
    return _expected(traces, first, np.moveaxis(second, 2, 1), R, point.phi)


def _expected(traces: FloatArray, first: FloatArray, Q: FloatArray, R: FloatArray | None, phi: FloatArray) -> Expected:
    PP = phi @ first
    information = 0.5 * (traces - 2.0 * np.einsum("pq,stqp->st", phi, Q) + np.einsum("sab,tba->st", PP, PP))
    return Expected(information, first, Q, R)


def _of_chain(
    criterion: MarginalCriterion, chain: RowChain, par: FloatArray, sums: ChainSums, phi: FloatArray, curved: bool
) -> Expected:
    """The sums of rows that follow a chain: X'V^-1 V_i V^-1 X = -A_i, and so on, first in par and then in psi."""
    model, p = criterion.model, criterion.p
    first = -sums.A.first[:, :p, :p]
    Q, traces = second_moments(chain, par)
    R = Q + Q.swapaxes(0, 1) - sums.A.second[..., :p, :p]
    K = np.eye(model.n_par)
    for structure, place in zip(model.structures, model.slices[:-1], strict=True):
        K[place, place], H = _change(structure, par[place])
        own = np.tensordot(K[place, place].T, first[place], 1)
        R[place, place] -= np.tensordot(np.moveaxis(H, 0, -1), own, 1)

    def changed(values: FloatArray) -> FloatArray:
        return np.tensordot(K.T, np.moveaxis(np.tensordot(K.T, values, 1), 1, 0), 1).swapaxes(0, 1)

    return _expected(changed(traces), np.tensordot(K.T, first, 1), changed(Q), changed(R) if curved else None, phi)


def _jet(structure: CovarianceStructure, theta: FloatArray, points: FloatArray | None, curved: bool) -> Jet:
    """Covariance with derivatives in its psi, the second ones where they are asked for."""
    if not structure.n_theta:
        return structure.covariance_derivatives(theta, points)
    if structure.linear:
        if points is not None:
            structure.refuse("a position that is no column")
        basis = structure.span_basis()
        return Jet(structure.covariance(theta), basis, np.zeros((len(basis), len(basis), 1, 1)))
    if curved:
        need = 16.0 * structure.n_theta**2 * structure.size**2
        check_memory(need, f"second derivatives of {structure.word}() of {structure.size} positions need memory")
    S = structure.covariance_derivatives(theta, points, 1 + curved)
    K, H = _change(structure, theta)
    first = np.tensordot(K.T, S.first, 1)
    if not curved:
        return Jet(S.value, first, S.second)
    second = S.second - np.tensordot(np.moveaxis(H, 0, -1), first, 1)
    return Jet(S.value, first, np.tensordot(K.T, np.moveaxis(np.tensordot(K.T, second, 1), 1, 0), 1))


def _change(structure: CovarianceStructure, theta: FloatArray) -> tuple[FloatArray, FloatArray]:
    """d theta / d psi (m, m), and the second derivatives of each psi in theta (m, m, m)."""
    places = structure.adjusting
    psi = structure.natural_derivatives(theta)[np.array(places)]
    square = psi * psi
    is_sd = np.array([structure.natural_parameters[i].kind == "sd" for i in places])
    J = np.where(is_sd, square.first, psi.first).T
    H = np.moveaxis(np.where(is_sd, square.second, psi.second), -1, 0)
    if not (np.isfinite(J).all() and np.isfinite(H).all() and np.linalg.cond(J) < 1e12):
        raise NoAdjustment(f"the estimate of {structure.word}() is on the boundary of its parameter space")
    return np.asarray(np.linalg.inv(J)), H


def _add_curves(
    criterion: MarginalCriterion, batch: Batch, blocks: Blocks, jets: list[Jet], B: FloatArray, R: FloatArray
) -> None:
    """R_ij of a batch."""
    model = criterion.model
    at = model.slices[-1]

    def add(i: int, j: int, V: FloatArray) -> None:
        own = np.tensordot(B, V[batch.of_class] @ B, ((0, 1), (0, 1)))
        R[i, j] += own
        if i != j:
            R[j, i] += own

    for k, (structure, place) in enumerate(zip(model.structures, model.slices[:-1], strict=True)):
        if structure.linear:
            continue
        for i in range(structure.n_theta):
            for j in range(i + 1):
                add(place.start + i, place.start + j, structure_placed(model, batch, blocks, jets[k].second[i, j], k))
    g = np.moveaxis(batch.log_scale, 2, 0)
    both = g[:, :, :, None] + g[:, :, None, :]
    for i in range(len(g)):
        for j in range(i + 1):
            add(at.start + i, at.start + j, both[i] * both[j] * blocks.residual)
        for j in range(model.slices[len(model.random)].start, at.start):
            add(at.start + i, j, both[i] * blocks.first[j])
