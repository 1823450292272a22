"""Curved estimands away from the estimates: joint tests of hypotheses where they bend.

The Wald statistic of g(beta) = c puts a plane through the estimates. Where the gradients of several functions are
nearly dependent there and dependent under the hypothesis (probabilities at several values of x are all the same when
the slope is zero, one restriction and not many), the plane misses the hypothesis by far, and the statistic is anything
(Gregory & Veall 1985, Econometrica 53:1465; Phillips & Park 1988, Econometrica 56:1065). The smallest distance

    D = min (b - beta^)' V^-1 (b - beta^)    over b with g(b) = c

does not depend on how the hypothesis is written, is the Wald statistic itself where g is linear, and has as many
degrees of freedom as g has independent gradients at the nearest b.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lme4py.frozen import computed_once
from lme4py.linalg.types import FloatArray
from lme4py.margins.estimands.estimands import Estimand
from lme4py.margins.estimands.grids import Parameters

__all__ = ["Nearby", "Nearest"]

# Singular values of the gradients, in units of standard errors, below this part of the largest are dependence.
_RANK = 1e-5
# A hypothesis is reached when the estimates are this near to it, in standard errors at the estimates.
_REACHED = 1e-5
# Weights of the distance beside the distance from the hypothesis: from a compromise to the hypothesis itself.
_WEIGHTS = tuple(10.0**-k for k in range(0, 13, 2))


@dataclass(frozen=True)
class Nearest:
    """The parameters under the hypothesis that are nearest to the estimates.

    Attributes
    ----------
    distance : float
        D.
    rank : int
    gap : ndarray, shape (q,)
        Estimates less these parameters.
    jacobian : ndarray, shape (K, q)
        There.
    """

    distance: float
    rank: int
    gap: FloatArray
    jacobian: FloatArray


@dataclass(frozen=True)
class Nearby:
    """Estimands as functions of all their parameters.

    Attributes
    ----------
    estimand : callable
    parameters : Parameters
        The estimates.
    covariance : ndarray, shape (q, q)
        Of what the estimands depend on: coefficients, and where q is larger covariance parameters.
    """

    estimand: Estimand
    parameters: Parameters
    covariance: FloatArray

    @computed_once
    def root(self) -> FloatArray:
        """L with L L' the covariance, without directions that do not vary, (q, r)."""
        scale = np.sqrt(np.maximum(np.diag(self.covariance), 0.0))
        unit = np.where(scale > 0.0, scale, 1.0)
        roots, vectors = np.linalg.eigh(self.covariance / np.outer(unit, unit))
        keep = roots > 1e-12 * max(float(roots[-1]), 1e-300)
        half: FloatArray = unit[:, None] * vectors[:, keep] * np.sqrt(roots[keep])
        return half

    def __call__(self, z: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Values, (K,), and gradients in the parameters, (K, q), at the estimates plus L z."""
        return self.estimand(self.parameters.plus(self.root @ z), True)

    def nearest(self, null: FloatArray, unit: FloatArray) -> Nearest | None:
        """The nearest parameters where the estimands are `null`; None where there are none near.

        Parameters
        ----------
        null : ndarray, shape (K,)
        unit : ndarray, shape (K,)
            Standard errors of the estimates.
        """
        from scipy.optimize import least_squares

        root = self.root
        z = np.zeros(root.shape[1])

        def away(z: FloatArray, weight: float) -> FloatArray:
            value = np.nan_to_num((self(z)[0] - null) / unit, nan=1e8, posinf=1e8, neginf=-1e8)
            return np.concatenate([np.sqrt(weight) * z, value])

        def slopes(z: FloatArray, weight: float) -> FloatArray:
            return np.vstack([np.sqrt(weight) * np.eye(z.size), self(z)[1] @ root / unit[:, None]])

        with np.errstate(all="ignore"):
            for weight in _WEIGHTS:
                found = least_squares(away, z, slopes, args=(weight,), method="trf", xtol=1e-15, ftol=1e-15, gtol=1e-12)
                z = np.asarray(found.x, dtype=np.float64)
            value, jacobian = self(z)
        if not np.abs((value - null) / unit).max() <= _REACHED:
            return None
        sizes = np.linalg.svd(jacobian @ root / unit[:, None], compute_uv=False)
        rank = int((sizes > _RANK * max(float(sizes[0]), 1e-300)).sum())
        return Nearest(float(z @ z), rank, -(root @ z), jacobian)
