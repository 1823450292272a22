"""What a linear model with correlated or unequal residuals is made of, as arrays.

    Var(y) = sum_t same_t o (Z_t Sigma_t Z_t') + S (same o R) S,     S = diag(exp(G delta) / sqrt(w))

o is the elementwise product; same_t is 1 where two rows have the same level of term t, and without index where they
belong to the same subject; R is the residual covariance by the positions of the rows within their subject, with a
covariance of its own for each stratum of subjects. All standard deviations are absolute: sigma is one of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from lme4py.covariance import CovarianceStructure
    from lme4py.design.residual.part import ResidualPart
    from lme4py.linalg.types import FloatArray, IntArray

__all__ = ["MarginalModel", "RandomPart"]


@dataclass(frozen=True)
class RandomPart:
    """One random-effects term.

    Attributes
    ----------
    structure : CovarianceStructure
    codes : ndarray of int, shape (n,)
        Level of each row.
    values : ndarray, shape (n, k)
    """

    structure: CovarianceStructure
    codes: IntArray
    values: FloatArray


@dataclass(frozen=True)
class MarginalModel:
    """Fixed effects, random effects and residuals.

    Attributes
    ----------
    X : ndarray, shape (n, p)
    y : ndarray, shape (n,)
        Without the offset.
    random : tuple of RandomPart
    residual : ResidualPart
    """

    X: FloatArray
    y: FloatArray
    random: tuple[RandomPart, ...]
    residual: ResidualPart

    def then(self, other: MarginalModel) -> MarginalModel:
        """These rows, then others, whose levels have the same codes.

        Parameters
        ----------
        other : MarginalModel
        """
        random = tuple(
            RandomPart(own.structure, np.concatenate([own.codes, new.codes]), np.concatenate([own.values, new.values]))
            for own, new in zip(self.random, other.random, strict=True)
        )
        X, y = np.concatenate([self.X, other.X]), np.concatenate([self.y, other.y])
        return MarginalModel(X, y, random, self.residual.then(other.residual))

    @cached_property
    def structures(self) -> tuple[CovarianceStructure, ...]:
        """Those of the random effects, then those of the residuals."""
        return (*(part.structure for part in self.random), *self.residual.structures)

    @cached_property
    def slices(self) -> tuple[slice, ...]:
        """Where the parameters of each structure are among all; the last slice is that of delta."""
        sizes = [structure.n_theta for structure in self.structures]
        ends = np.cumsum([0, *sizes, self.residual.log_scale.shape[1]]).tolist()
        return tuple(slice(a, b) for a, b in pairwise(ends))

    @cached_property
    def n_par(self) -> int:
        """Number of covariance parameters, m."""
        return int(self.slices[-1].stop)

    def scaled(self, par: FloatArray, size: float) -> FloatArray:
        """Parameters of size^2 times the covariance.

        Parameters
        ----------
        par : ndarray, shape (m,)
        size : float
        """
        own = self.slices
        parts = [s.scaled(par[place], size) for s, place in zip(self.structures, own[:-1], strict=True)]
        return np.concatenate([*parts, par[own[-1]]])
