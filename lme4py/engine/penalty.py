"""-2 log prior densities of covariance matrices in the engine's columns, with derivatives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lme4py.covariance import CovarianceStructures
from lme4py.linalg.types import FloatArray
from lme4py.priors.covariance import CovariancePrior, PriorPoint

__all__ = ["CovariancePenalty", "PenaltyPoint", "covariance_penalty"]


class PenaltyPoint(NamedTuple):
    """The penalty at one point.

    Attributes
    ----------
    value : float
    parts : tuple of (PriorPoint or None)
        By term, on the scale of the prior.
    maps : tuple of ndarray, each (k, k)
        B of each term: the prior is of B Sigma B', Sigma that of the engine's columns.
    """

    value: float
    parts: tuple[PriorPoint | None, ...]
    maps: tuple[FloatArray, ...]

    def gradient(self, term: int) -> FloatArray | float:
        """Derivative in the covariance of a term in the engine's columns, (k, k); 0 without a prior."""
        part = self.parts[term]
        return 0.0 if part is None else self.maps[term].T @ part.gradient @ self.maps[term]

    def hessian(self, structures: CovarianceStructures, theta: FloatArray, curvature: bool = False) -> FloatArray:
        """Second derivatives in theta, (m, m).

        Parameters
        ----------
        structures : CovarianceStructures
        theta : ndarray, shape (m,)
        curvature : bool
            With the part from the curvature of Sigma in theta.
        """
        out = np.zeros((theta.size, theta.size))
        for t, (part, B) in enumerate(zip(self.parts, self.maps, strict=True)):
            structure, place = structures.each[t], structures.slices[t]
            if part is None or place.stop == place.start:
                continue
            changes = np.array(list(structure.covariance_tangents(theta[place])))
            out[place, place] = part.second(B @ changes @ B.T)
            if curvature:
                out[place, place] += structure.curvature(theta[place], B.T @ part.gradient @ B)
        return out


@dataclass(frozen=True)
class CovariancePenalty:
    """The priors of all terms.

    Attributes
    ----------
    priors : tuple of (CovariancePrior or None)
    maps : tuple of ndarray, each (k, k)
        From the engine's columns to the user's.
    """

    priors: tuple[CovariancePrior | None, ...]
    maps: tuple[FloatArray, ...]

    @property
    def is_relative(self) -> bool:
        """Whether no prior needs the residual variance."""
        return all(prior is None or prior.common_scale for prior in self.priors)

    def at(self, T: Sequence[FloatArray], variance: float = 1.0) -> PenaltyPoint:
        """The penalty where the terms have the covariances T T' in the engine's columns.

        Parameters
        ----------
        T : sequence of ndarray, each (k, k)
        variance : float
            The residual variance on the user's scale, for priors that are not relative to it.
        """
        value, parts, maps = 0.0, [], []
        for prior, B, t in zip(self.priors, self.maps, T, strict=True):
            own = B if prior is None or prior.common_scale else np.sqrt(variance) * B
            root = own @ t
            part = None if prior is None else prior.evaluate(root @ root.T)
            value += 0.0 if part is None else part.value
            parts.append(part)
            maps.append(own)
        return PenaltyPoint(value, tuple(parts), tuple(maps))

    def log_slope(self, T: Sequence[FloatArray], variance: float) -> tuple[float, float]:
        """Value, and the derivative in the logarithm of the residual variance.

        Parameters
        ----------
        T : sequence of ndarray
        variance : float
        """
        here, slope = self.at(T, variance), 0.0
        for prior, part, B, t in zip(self.priors, here.parts, here.maps, T, strict=True):
            if part is not None and prior is not None and not prior.common_scale:
                root = B @ t
                slope += float(np.vdot(part.gradient, root @ root.T))
        return here.value, slope


def covariance_penalty(
    priors: Sequence[CovariancePrior | None], maps: Sequence[FloatArray]
) -> CovariancePenalty | None:
    """The penalty of the terms of a model; None where none has a prior.

    Parameters
    ----------
    priors : sequence of (CovariancePrior or None)
        By term.
    maps : sequence of ndarray, each (k, k)
        From the engine's columns to the user's, of each term.
    """
    return None if all(prior is None for prior in priors) else CovariancePenalty(tuple(priors), tuple(maps))
