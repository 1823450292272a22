"""A model with a residual structure at its variances: what is left of it without rows or groups."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lme4py.engine.marginal.criterion import MarginalCriterion, MarginalPoint
from lme4py.errors import DesignError
from lme4py.fits.answers.working import WorkingModel
from lme4py.fits.residual.fit import ResidualFit
from lme4py.frozen import computed_once
from lme4py.linalg.types import BoolArray, FloatArray, IntArray

__all__ = ["ResidualWorking", "residual_working"]

# Condition numbers at which the digits of an inverse are gone.
_SINGULAR = 1e10


@dataclass(frozen=True, kw_only=True)
class ResidualWorking(WorkingModel):
    """The linear model with the covariances of its units.

    Attributes
    ----------
    criterion : MarginalCriterion
    point : MarginalPoint
    here : ndarray of bool, shape (n,)
        Rows that have not been left out.
    """

    criterion: MarginalCriterion
    point: MarginalPoint
    here: BoolArray

    @computed_once
    def _inverses(self) -> list[FloatArray]:
        """V^-1 of every unit without the rows left out, (N, s, s) by batch; zeros in their places."""
        found = []
        for batch, blocks, inverse in zip(self.criterion.batches, self.point.blocks, self.point.inverse, strict=True):
            own = (inverse.swapaxes(1, 2) @ inverse)[batch.unit_class]
            here = self.here[batch.rows]
            touched = np.flatnonzero(~here.all(axis=1))
            if touched.size:
                some = here[touched]
                both = some[:, :, None] & some[:, None, :]
                V = np.where(both, blocks.V[batch.unit_class[touched]], np.eye(batch.size))
                own[touched] = np.linalg.inv(V) * both
            found.append(own)
        return found

    @computed_once
    def inverse_times(self) -> tuple[FloatArray, FloatArray]:
        """V^-1 X (n, p) and V^-1 z (n,)."""
        M = np.concatenate([self.X, self.z[:, None]], axis=1)
        out = np.empty_like(M)
        for batch, own in zip(self.criterion.batches, self._inverses, strict=True):
            out[batch.rows] = own @ M[batch.rows]
        return out[:, :-1], out[:, -1]

    @computed_once
    def inverse_diagonal(self) -> FloatArray:
        """Diagonal of V^-1, (n,)."""
        out = np.empty(self.z.size)
        for batch, own in zip(self.criterion.batches, self._inverses, strict=True):
            out[batch.rows] = np.diagonal(own, axis1=1, axis2=2)
        return out

    @computed_once
    def leverage(self) -> FloatArray:
        """Derivative of the fitted value (random effects included) of each row in its response: 1 - (R P)_ii."""
        VX = self.inverse_times[0]
        explained = VX @ self.phi
        out = np.empty(self.z.size)
        for batch, blocks, own in zip(self.criterion.batches, self.point.blocks, self._inverses, strict=True):
            R, rows = blocks.residual[batch.unit_class], batch.rows
            P = own - explained[rows] @ VX[rows].swapaxes(1, 2)
            out[rows] = 1.0 - np.einsum("uab,uba->ua", R, P)
        return out

    @property
    def independent_rows(self) -> bool:
        return all(
            np.array_equal(blocks.residual, blocks.residual * np.eye(blocks.residual.shape[1]))
            for blocks in self.point.blocks
        )

    def without(self, codes: IntArray, level: int) -> ResidualWorking:
        return replace(self, here=self.here & (codes != level))


def _covariances(point: MarginalPoint) -> list[FloatArray]:
    return [blocks.V for blocks in point.blocks]


def residual_working(fit: ResidualFit) -> ResidualWorking:
    """The working model of a fit.

    Parameters
    ----------
    fit : ResidualFit
    """
    criterion, point = fit.problem.criterion, fit.point
    if not fit.certificate.converged and any(np.linalg.cond(V).max() > _SINGULAR for V in _covariances(point)):
        raise DesignError(
            "the fit has not converged, and the covariance of its rows is singular: there is nothing that rows could "
            "be left out of. Choose a simpler residual structure."
        )
    model, scaling = criterion.model, criterion.scaling
    w = np.empty(model.y.size)
    for batch, blocks in zip(criterion.batches, point.blocks, strict=True):
        w[batch.rows] = 1.0 / np.diagonal(blocks.residual, axis1=1, axis2=2)[batch.unit_class]
    n, p = model.X.shape
    return ResidualWorking(
        X=model.X,
        z=model.y,
        w=w,
        C=scaling.C,
        scale=scaling.y_scale,
        df=None if fit.residual.is_known else float(n - p if criterion.reml else n),
        sigma=1.0,
        criterion=criterion,
        point=point,
        here=np.ones(n, dtype=bool),
    )
