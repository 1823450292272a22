"""The working model of several linear predictors, which stand one below the other.

With A the Hessian of the penalised log-likelihood in (beta, u) at the mode, H = [X Z] A^-1 [X Z]', W_i and H_i the
D x D blocks of a row, R = X - Z M^-1 Lambda'Z'WX and r = P z, leaving out row i is (Sherman, Morrison & Woodbury)

    beta_(i) - beta = -Phi R_i' (I - W_i H_i)^-1 r_i,        Phi_(i) = Phi + Phi R_i' (I - W_i H_i)^-1 W_i R_i Phi.

For D = 1 these are the formulas of `lme4py.inference.refits.deletion`, with P_ii = w_i (1 - w_i H_i). Nothing divides
by W_i, which need be neither positive nor invertible.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from lme4py.engine.generalised.stacking import Stack
from lme4py.fits.answers.working import FactoredModel, LeftOut, WorkingModel
from lme4py.fits.rows.clusters import row_sums
from lme4py.frozen import computed_once
from lme4py.linalg.types import FloatArray, IntArray

__all__ = ["SeveralPredictors"]


@dataclass(frozen=True, kw_only=True)
class SeveralPredictors(FactoredModel):
    """Rows, X and z of D predictors one below the other, (D n,); w holds the elements of the blocks (n_pairs n,).

    z stands for W z here, the weighted predictor plus the score: W has no inverse in general.

    Attributes
    ----------
    stack : Stack
        Of the D predictors; those that `products` knows come first, the others have no random effects.
    parts : dict of str to slice
        Columns of the further predictors that have a name.
    """

    stack: Stack
    parts: dict[str, slice] = field(default_factory=dict)

    def of_part(self, component: str) -> WorkingModel:
        if component not in self.parts:
            return super().of_part(component)
        return replace(self, C=np.eye(self.X.shape[1])[self.parts[component]])

    @property
    def most_rows(self) -> int:
        """None: the weights join the predictors of a row."""
        return 0

    @property
    def independent_rows(self) -> bool:
        """A row of the data is D rows here."""
        return False

    @computed_once
    def inverse_times(self) -> tuple[FloatArray, FloatArray]:
        """V^-1 X (D n, p) and V^-1 z (D n,)."""
        rest = self._residuals
        VX = self.stack.weigh(self.w, rest[:, :-1])
        return VX, self.z + self.stack.weigh(self.w, rest[:, -1])

    @computed_once
    def _residuals(self) -> FloatArray:
        """R (D n, p), and minus the random part of z alone (D n, 1)."""
        right = np.column_stack([self.stack.weigh(self.w, self.X), self.z])
        known = self.products.rows.shape[0]
        border = self.swept.sweep_border(self.products.project(right[:known]))
        b, _ = self.swept.back_substitute(border, np.eye(right.shape[1]))
        out = np.column_stack([self.X, np.zeros(self.z.size)])
        out[:known] -= self.products.rows @ np.concatenate(b)
        return out

    def _by_row(self, stacked: FloatArray) -> FloatArray:
        """(D n, ...) as (n, D, ...)."""
        stack = self.stack
        return stacked.reshape(stack.size, stack.n, *stacked.shape[1:]).swapaxes(0, 1)

    def _blocks(self, elements: FloatArray, stack: Stack) -> FloatArray:
        """Elements of symmetric blocks as matrices, (n, D, D); zeros where `stack` has no predictor."""
        out = np.zeros((stack.n, self.stack.size, self.stack.size))
        for own, (d, e) in zip(elements.reshape(-1, stack.n), stack.pairs, strict=True):
            out[:, d, e] = out[:, e, d] = own
        return out

    @computed_once
    def _kept(self) -> FloatArray:
        """I - W_i H_i of each row, (n, D, D)."""
        # Derivatives of a log-determinant count both elements that couple two predictors.
        h = self._blocks(self.products.log_det_derivatives(self.swept)[0], self.products.stack)
        h *= np.where(np.eye(self.stack.size, dtype=bool), 1.0, 0.5)
        R = self._by_row(self._residuals[:, :-1])
        h += np.einsum("ndp,pq,neq->nde", R, self.phi, R, optimize=True)
        kept: FloatArray = np.eye(h.shape[1]) - self._blocks(self.w, self.stack) @ h
        return kept

    @computed_once
    def leverage(self) -> FloatArray:
        """tr(W_i H_i): what each row adds to the effective number of parameters, (n,)."""
        used: FloatArray = self.stack.size - np.einsum("ndd->n", self._kept)
        return used

    @computed_once
    def square(self) -> float:
        """z'P z would need W^-1; no scale is estimated."""
        return 0.0

    def studentised(self) -> None:
        return None

    def left_out(self, least: float) -> LeftOut:
        # The eigenvalues are real: those of a positive semidefinite matrix times a symmetric one.
        ok = np.linalg.eigvals(self._kept).real.min(axis=1) > least
        inverse = np.linalg.inv(np.where(ok[:, None, None], self._kept, np.eye(self._kept.shape[1])))
        r, R = self._by_row(self.residual), self._by_row(self._residuals[:, :-1])
        user = R @ self.phi @ self.C.T
        change = -np.einsum("nda,nde,ne->na", user, inverse, r)
        grown = inverse @ self._blocks(self.w, self.stack)
        grown = 0.5 * (grown + grown.swapaxes(1, 2))
        own = self.C @ self.phi @ self.C.T
        with_own = np.einsum("nda,ab,neb->nde", user, np.linalg.inv(own), user, optimize=True)
        return LeftOut(
            change=change,
            variances=np.diag(own) + np.einsum("nda,nde,nea->na", user, grown, user),
            log_det=np.linalg.slogdet(np.eye(grown.shape[1]) + grown @ with_own)[1],
            lost=np.zeros(r.shape[0]),
            ok=ok,
        )

    def cluster_products(self, codes: IntArray, size: int) -> tuple[FloatArray, FloatArray, FloatArray]:
        VX, Vz = self.inverse_times
        below = np.tile(codes, self.stack.size)
        blocks = row_sums(self.X[:, :, None] * VX[:, None, :], below, size)
        blocks = 0.5 * (blocks + np.swapaxes(blocks, 1, 2))
        return blocks, row_sums(self.X * Vz[:, None], below, size), np.zeros(size)

    def without(self, codes: IntArray, level: int) -> SeveralPredictors:
        w = np.where(np.tile(codes, len(self.stack.pairs)) != level, self.w, 0.0)
        z = np.where(np.tile(codes, self.stack.size) != level, self.z, 0.0)
        swept = self.products.factorize(self.T, self.stack.part(w, self.products.stack))
        return replace(self, w=w, z=z, swept=swept)
