"""The linear mixed model with given variances behind a fit: for a generalised model the working one at the mode.

    z = X beta + Z b + e,   V = W^-1 + Z Sigma Z',   P = V^-1 - V^-1 X (X'V^-1X)^-1 X'V^-1.

Everything is n x p arrays and diagonals, never an n x n matrix.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import numpy as np

from lme4py.engine.factor.sweep import Swept
from lme4py.engine.generalised.products import WeightedProducts
from lme4py.fits.rows.clusters import row_sums
from lme4py.frozen import computed_once
from lme4py.linalg.types import FloatArray, IntArray

__all__ = ["FactoredModel", "RowBlocks", "WorkingModel"]


@dataclass(frozen=True)
class RowBlocks:
    """What single rows are to the model: numbers, or (D, D) blocks where a row has several linear predictors.

    Attributes
    ----------
    P : ndarray, shape (n, D, D)
        Blocks of P on its diagonal.
    residual : ndarray, shape (n, D)
        P z.
    VX : ndarray, shape (n, D, p)
        V^-1 X.
    left : ndarray, shape (n, D, D)
        P relative to the weights of the row: one less its leverage.
    """

    P: FloatArray
    residual: FloatArray
    VX: FloatArray
    left: FloatArray


@dataclass(frozen=True, kw_only=True)
class WorkingModel(ABC):
    """A linear mixed model with known relative variances, in the engine's columns.

    Attributes
    ----------
    X : ndarray, shape (n, p)
    z : ndarray, shape (n,)
        The response, or the working response.
    w : ndarray, shape (n,)
        One over the residual variance of each row, relative to the scale.
    C : ndarray, shape (p, p)
        Changes of the user's coefficients are C times changes of the inside ones, times `scale`.
    scale : float
    df : float or None
        Degrees of freedom of the scale, n - p (REML) or n; None where the scale is not estimated with beta.
    sigma : float
        Square root of the scale inside: 1 for generalised models.
    """

    X: FloatArray
    z: FloatArray
    w: FloatArray
    C: FloatArray
    scale: float
    df: float | None
    sigma: float

    @property
    @abstractmethod
    def inverse_times(self) -> tuple[FloatArray, FloatArray]:
        """V^-1 X (n, p) and V^-1 z (n,)."""

    @property
    @abstractmethod
    def inverse_diagonal(self) -> FloatArray:
        """Diagonal of V^-1, (n,)."""

    @abstractmethod
    def without(self, codes: IntArray, level: int) -> WorkingModel:
        """The model without the rows of one cluster; variances are kept."""

    @property
    def independent_rows(self) -> bool:
        """Whether rows are independent where the random effects are known."""
        return True

    @computed_once
    def cross(self) -> tuple[FloatArray, FloatArray]:
        """X'V^-1X (p, p) and X'V^-1z (p,)."""
        VX, Vz = self.inverse_times
        A = self.X.T @ VX
        return 0.5 * (A + A.T), self.X.T @ Vz

    @computed_once
    def phi(self) -> FloatArray:
        """(X'V^-1X)^-1."""
        return np.asarray(np.linalg.inv(self.cross[0]))

    @computed_once
    def beta(self) -> FloatArray:
        beta: FloatArray = self.phi @ self.cross[1]
        return beta

    @computed_once
    def residual(self) -> FloatArray:
        """P z, (n,)."""
        VX, Vz = self.inverse_times
        return Vz - VX @ self.beta

    @computed_once
    def projection_diagonal(self) -> FloatArray:
        """Diagonal of P, (n,)."""
        VX = self.inverse_times[0]
        explained: FloatArray = np.einsum("ni,ij,nj->n", VX, self.phi, VX, optimize=True)
        return self.inverse_diagonal - explained

    @computed_once
    def leverage(self) -> FloatArray:
        """Derivative of the fitted value (random effects included) of each row in its response: 1 - P_ii / w_i."""
        return 1.0 - self.projection_diagonal / self.w

    @computed_once
    def row_blocks(self) -> RowBlocks:
        """What is needed to leave out single rows."""
        P = self.projection_diagonal[:, None, None]
        left = (1.0 - self.leverage)[:, None, None]
        return RowBlocks(P, self.residual[:, None], self.inverse_times[0][:, None, :], left)

    @computed_once
    def square(self) -> float:
        """z'P z, the penalised residual sum of squares."""
        return float(self.z @ self.residual)

    def cluster_products(self, codes: IntArray, size: int) -> tuple[FloatArray, FloatArray, FloatArray]:
        """X_c'V_c^-1X_c (m, p, p), X_c'V_c^-1z_c (m, p), z_c'V_c^-1z_c (m,) where V is block diagonal in the clusters.

        Parameters
        ----------
        codes : ndarray of int, shape (n,)
        size : int
        """
        VX, Vz = self.inverse_times
        blocks = row_sums(self.X[:, :, None] * VX[:, None, :], codes, size)
        blocks = 0.5 * (blocks + np.swapaxes(blocks, 1, 2))
        right = row_sums(VX * self.z[:, None], codes, size)
        square = row_sums(Vz * self.z, codes, size)
        return blocks, right, square


@dataclass(frozen=True, kw_only=True)
class FactoredModel(WorkingModel):
    """The same by the factor of I + Lambda'Z'WZ Lambda.

    Attributes
    ----------
    T : list of ndarray
        Relative covariance factor of each grouping factor.
    products : WeightedProducts
    swept : Swept
        The factor for the weights `w`.
    """

    T: list[FloatArray]
    products: WeightedProducts
    swept: Swept

    @computed_once
    def inverse_times(self) -> tuple[FloatArray, FloatArray]:
        """V^-1 X (n, p) and V^-1 z (n,)."""
        right = self.w[:, None] * np.concatenate([self.X, self.z[:, None]], axis=1)
        border = self.swept.sweep_border(self.products.project(right))
        b, _ = self.swept.back_substitute(border, np.eye(right.shape[1]))
        right -= self.w[:, None] * (self.products.rows @ np.concatenate(b))
        return right[:, :-1], right[:, -1]

    @computed_once
    def inverse_diagonal(self) -> FloatArray:
        """Diagonal of V^-1, (n,)."""
        h = self.products.log_det_derivatives(self.swept)[0]
        return self.w * (1.0 - self.w * h)

    def without(self, codes: IntArray, level: int) -> FactoredModel:
        """The model without the rows of one cluster, by weights of zero."""
        w = np.where(codes != level, self.w, 0.0)
        return replace(self, w=w, swept=self.products.factorize(self.T, w))
