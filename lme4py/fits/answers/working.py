"""The linear mixed model with given variances behind a fit: for a generalised model the working one at the mode.

    z = X beta + Z b + e,   V = W^-1 + Z Sigma Z',   P = V^-1 - V^-1 X (X'V^-1X)^-1 X'V^-1.

Everything is n x p arrays and diagonals, never an n x n matrix.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lme4py.chunks import from_size
from lme4py.engine.factor.sweep import Swept
from lme4py.engine.generalised.products import WeightedProducts
from lme4py.errors import OptionError
from lme4py.fits.rows.clusters import row_sums
from lme4py.frozen import computed_once
from lme4py.linalg.types import BoolArray, FloatArray, IntArray

__all__ = ["FactoredModel", "LeftOut", "WorkingModel"]

_FEW_ROWS = from_size(16, 3)


@dataclass(frozen=True)
class LeftOut:
    """What leaving out each row changes, the relative variances kept; by C on the user's columns.

    Attributes
    ----------
    change : ndarray, shape (n, p)
        In beta.
    variances : ndarray, shape (n, p)
        Of beta without the row, over the scale.
    log_det : ndarray, shape (n,)
        log determinant of the covariance of beta over the scale without the row, minus that with it.
    lost : ndarray, shape (n,)
        What the penalised residual sum of squares loses.
    ok : ndarray of bool, shape (n,)
        False where a direction of beta cannot be estimated without the row.
    """

    change: FloatArray
    variances: FloatArray
    log_det: FloatArray
    lost: FloatArray
    ok: BoolArray


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
    C : ndarray, shape (k, p)
        Changes of the user's coefficients are C times changes of the inside ones, times `scale`; k < p where
        coefficients that are not asked for move along.
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

    def of_part(self, component: str) -> WorkingModel:
        """The same with the coefficients of a further linear predictor as those that are asked for.

        Raises
        ------
        OptionError
            They do not take part in the steps of this model.
        """
        raise OptionError(
            f"what units do to the {component} part is not available for this kind of model; leave component= out."
        )

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
    def square(self) -> float:
        """z'P z, the penalised residual sum of squares."""
        return float(self.z @ self.residual)

    def studentised(self) -> FloatArray | None:
        """Pearson residuals over sigma sqrt(1 - h), (n,); None where rows have several linear predictors."""
        rest = self.projection_diagonal
        with np.errstate(divide="ignore", invalid="ignore"):
            out: FloatArray = self.residual / np.sqrt(rest) / self.sigma
        return np.where(rest > 1e-9 * self.w, out, np.nan)

    def left_out(self, least: float) -> LeftOut:
        """The model without each row.

        Parameters
        ----------
        least : float
            A row takes a direction of X with it when less than this part of the information is left.
        """
        ok = self.leverage < 1.0 - least
        P = np.where(ok, self.projection_diagonal, np.nan)
        VX = self.inverse_times[0]
        moves = VX @ self.phi
        user = moves @ self.C.T
        plain = np.einsum("ai,ij,aj->a", self.C, self.phi, self.C)
        return LeftOut(
            change=-user * (self.residual / P)[:, None],
            variances=plain + user**2 / P[:, None],
            log_det=np.log1p(np.einsum("ni,ni->n", moves, VX) / P),
            lost=self.residual**2 / P,
            ok=ok,
        )

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

    @property
    def most_rows(self) -> int:
        """Clusters of more rows are left out by a factorisation, which costs about as much as so many columns."""
        return max(_FEW_ROWS, self.swept.sweeper.structure.dense_size // 8)

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

    def inverse_blocks(self, clusters: Sequence[IntArray]) -> list[FloatArray]:
        """Blocks of V^-1 at the rows of clusters, (n_c, n_c) each.

        V^-1 = W - W Z Lambda M^-1 Lambda'Z'W, where M is the matrix that is factored.

        Parameters
        ----------
        clusters : sequence of ndarray of int, each (n_c,)
        """
        rows = np.concatenate(clusters)
        columns = (self.products.rows[rows].T * self.w[rows]).toarray()
        swept = self.swept.sweep_border(self.products.split(columns))
        inverse = np.diag(self.w[rows]) - swept.cross(swept)
        ends = np.cumsum([own.size for own in clusters]).tolist()
        return [inverse[end - own.size : end, end - own.size : end] for end, own in zip(ends, clusters, strict=True)]

    def without(self, codes: IntArray, level: int) -> FactoredModel:
        """The model without the rows of one cluster, by weights of zero."""
        w = np.where(codes != level, self.w, 0.0)
        return replace(self, w=w, swept=self.products.factorize(self.T, w))
