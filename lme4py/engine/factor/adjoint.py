"""The adjoint of the elimination: the sweeps of `lme4py.engine.factor.sweep` run backwards.

It gives the derivative of any function of the swept cross-products with respect to every Sigma_s and every block of A
at about twice the cost of the elimination.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lme4py.engine.factor.dense_block import BlockDerivative, DenseDerivative, block_products
from lme4py.engine.factor.symbolic import Stage
from lme4py.engine.factor.wide import gram_adjoint, gram_traces
from lme4py.linalg import small
from lme4py.linalg.types import FloatArray, with_data

if TYPE_CHECKING:
    from lme4py.engine.factor.sweep import LoneStage, Swept, SweptBorder, SweptStage


# From a stage and the derivative in the dense block to derivatives in the E of the stage.
Wide = Callable[[Any, Any], FloatArray]


@dataclass(frozen=True)
class Adjoint:
    """Derivatives by grouping factor.

    Attributes
    ----------
    sigma : list of ndarray, each (k, k)
        G with df = tr(G dSigma).
    diagonal : list of ndarray, each (k, k, J)
        D with df = sum over levels of tr(D_j dA_jj); for F = 0 the diagonal blocks of Lambda M^-1 Lambda'.
    values : ndarray, shape (n_values,), or None
        Derivatives in `BaseValues.vector`.
    coupling : ndarray, or None
        Derivatives in the stored elements of `BaseValues.coupling`; each stands for both of its kind.
    dense : object with `at`, or None
        Derivatives in the dense block.
    """

    sigma: list[FloatArray]
    diagonal: list[FloatArray]
    values: FloatArray | None = None
    coupling: FloatArray | None = None
    dense: BlockDerivative | None = None


def adjoint(
    swept: Swept,
    border: SweptBorder,
    corner: FloatArray,
    blocks: bool = False,
    only_sigma: bool = False,
    wide: Wide | None = None,
) -> Adjoint:
    """Derivatives of log|M| + F, where F depends on the swept corner with derivative `corner`.

    Parameters
    ----------
    swept : Swept
    border : SweptBorder
        Of the columns whose products form the corner.
    corner : ndarray, shape (c, c)
        dF / d corner (symmetric); zeros give the derivatives of log|M| alone.
    blocks : bool
        Also the derivatives in the base values outside the diagonal blocks.
    only_sigma : bool
        The caller needs `Adjoint.sigma` alone: what costs more is left out where it can be.
    wide : callable, optional
        Of models without other columns: what gives the diagonal blocks of C D C', (k, k, J), of the only stage, if it
        has no list of products, from the stage and the derivative in the dense block.
    """
    structure = swept.sweeper.structure
    first_coupling = None
    state = _AdjointState(np.zeros(structure.n_values), {}, {}, {}, None)
    if swept.dense is not None:
        _adjoint_dense(swept, border, corner, state, only_sigma)
    for position in range(len(swept.stages) - 1, -1, -1):
        s = swept.stages[position]
        f = s.stage.factor
        k, J = s.A.shape[0], s.A.shape[2]
        B = border.before[position]
        P = swept.base.products if position == 0 else s.stage.products
        if only_sigma and not position and P is not None and not P.shape[1]:
            state.sigma[f] = _sigma_alone(s, B, corner)
            continue
        Y = B @ corner
        slices = structure.remaining_slices[position]
        lower = np.concatenate([state.border[g] for g in slices]) if slices else None
        if lower is not None:
            C = swept.base.coupling_operator.matrix if position == 0 else s.coupling
            Y = Y + C @ lower
        d_E = -small.outer(Y.reshape(k, J, -1), B.reshape(k, J, -1))
        change = None
        spread = None
        if P is None and only_sigma:
            spread = state.wide_traces(s)
        elif P is None:
            d_E -= state.wide(s) if wide is None else wide(s, state.dense)
        elif P.shape[1]:
            change = state.change(s.stage)
            if position:
                P = with_data(P, s.coupling.data[s.stage.first] * s.coupling.data[s.stage.second])
            elif swept.base.products_operator:
                P = swept.base.products_operator.matrix
            d_E -= (P @ change).reshape(k, k, J)
        d_E = small.symmetrize(d_E)
        state.sigma[f] = _sigma_of_stage(s, d_E) if spread is None else _sigma_of_stage(s, d_E) - spread
        if only_sigma and not position:
            continue
        d_A = s.E - small.product(small.product(s.E, d_E), s.E)
        state.diagonal[f] = d_A
        if position:
            # What earlier stages changed of this stage's own values.
            state.values[structure.diagonal_slices[f]] += d_A.ravel()
            state.border[f] = -s.apply_E(Y + B @ corner)
            part = _adjoint_coupling(s, border.scaled[position], lower, change)
            state.values[structure.coupling_slices[f]] += part
        elif blocks:
            first_coupling = _adjoint_coupling(s, border.scaled[0] if border.scaled else B, lower, change)
    order = range(len(swept.sweeper.factors))
    sigma = [state.sigma[f] for f in order]
    if only_sigma:
        return Adjoint(sigma, [])
    return Adjoint(sigma, [state.diagonal[f] for f in order], state.values, first_coupling, state.dense)


def _sigma_alone(s: SweptStage | LoneStage, B: FloatArray, corner: FloatArray) -> FloatArray:
    """Derivative in Sigma of the only factor, some levels at a time."""
    k, J = s.A.shape[0], s.A.shape[2]
    rows = B.reshape(k, J, -1)
    total = np.zeros((k, k))
    for levels, part in s.pieces():
        own = rows[:, levels]
        total += _sigma_of_stage(part, -small.symmetrize(small.outer(own @ corner, own)))
    return total


def _sigma_of_stage(s: SweptStage | LoneStage, d_E: FloatArray) -> FloatArray:
    """Derivative in Sigma of an eliminated factor from that in its E, (k, k)."""
    N = s.residual_map
    if N.shape[0] == 1:
        only = N[0, 0]
        return np.array([[float(only @ s.A[0, 0] + (only * d_E[0, 0]) @ only)]])
    NE = small.product(N, d_E)
    total: FloatArray = (small.product(N, s.A) + small.product(NE, small.transpose(N))).sum(axis=2)
    return total


@dataclass
class _AdjointState:
    """Derivatives gathered while the sweeps run backwards."""

    values: FloatArray
    border: dict[int, FloatArray]
    sigma: dict[int, FloatArray]
    diagonal: dict[int, FloatArray]
    dense: BlockDerivative | None

    def change(self, stage: Stage) -> FloatArray:
        """Derivatives in the targets of a stage."""
        own = self.values[stage.targets]
        if self.dense is None or not stage.dense_targets.size:
            return own
        return np.concatenate([own, self.dense.at(stage)])

    def wide(self, swept: SweptStage | LoneStage) -> FloatArray:
        """Derivatives in E of a stage without a list of products, (k, k, J)."""
        if not isinstance(self.dense, DenseDerivative):
            raise ValueError("there is no dense block")
        k, J = swept.E.shape[0], swept.E.shape[2]
        C = swept.coupling
        out = gram_adjoint(C, J, k, self.dense.symmetric(), self.dense.lam)
        left, right = C @ self.dense.left, C @ self.dense.right
        return out + small.outer(left.reshape(k, J, -1), right.reshape(k, J, -1))

    def wide_traces(self, s: SweptStage | LoneStage) -> FloatArray:
        """The part of the derivative in Sigma that comes through such a stage's E, summed over levels, (k, k)."""
        plan = s.stage.gram
        if not isinstance(self.dense, DenseDerivative):
            raise ValueError("there is no dense block")
        k, J = s.E.shape[0], s.E.shape[2]
        C, N = s.coupling, s.residual_map
        out = gram_traces(plan, C, N, self.dense.symmetric(), self.dense.lam)
        left, right = (small.apply(N, (C @ side).reshape(k, J, -1)) for side in (self.dense.left, self.dense.right))
        total: FloatArray = out + small.outer(left, right).sum(axis=2)
        return 0.5 * (total + total.T)


def _adjoint_coupling(
    s: SweptStage | LoneStage, EB: FloatArray, lower: FloatArray | None, change: FloatArray | None
) -> FloatArray:
    """Derivative in the stored elements of C of a stage."""
    C = s.coupling
    out = np.zeros(C.nnz)
    if change is None or lower is None:
        return out
    P = s.stage.products
    if P is None:
        return out
    weight = change[P.indices] * np.repeat(s.E.ravel(), np.diff(P.indptr))
    out -= np.bincount(s.stage.first, weights=weight * C.data[s.stage.second], minlength=C.nnz)
    out -= np.bincount(s.stage.second, weights=weight * C.data[s.stage.first], minlength=C.nnz)
    rows = np.repeat(np.arange(C.shape[0]), np.diff(C.indptr))
    out -= np.einsum("ec,ec->e", EB[rows], lower[C.indices])
    return out


def _adjoint_dense(
    swept: Swept, border: SweptBorder, corner: FloatArray, state: _AdjointState, only_sigma: bool
) -> None:
    structure = swept.sweeper.structure
    dense = swept.dense
    if dense is None or border.dense is None or border.dense_scaled is None:
        return
    B, EB = border.dense, border.dense_scaled
    NB = dense.residual(B, EB)
    weighted = EB @ corner
    d_B = -2.0 * weighted
    for position, (f, start) in enumerate(zip(structure.dense, structure.dense_offsets, strict=True)):
        J, k = swept.sweeper.factors[f].n_levels, swept.sweeper.factors[f].n_columns
        rows = slice(start, start + k * J)
        state.border[f] = d_B[rows]
        if not only_sigma:
            state.diagonal[f] = dense.effect_blocks(position) + block_products(weighted[rows], EB[rows], k, J)
        part = NB[rows].reshape(k, J, -1)
        moved = swept.sweeper.factors[f].along(part)
        change = small.outer((NB[rows] @ corner).reshape(k, J, -1), moved).sum(axis=2)
        state.sigma[f] = dense.sigma_gradient(position) - change
    if structure.stages or not only_sigma:
        state.dense = dense.derivative(weighted, EB)
