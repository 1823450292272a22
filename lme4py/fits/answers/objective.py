"""The criterion of a model in scaled parameters, for optimisers of every make."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lme4py.covariance import CovarianceStructures
from lme4py.engine.optimise import Local
from lme4py.linalg.types import FloatArray

__all__ = ["NOWHERE", "Objective"]

# What an optimiser is told where the criterion does not exist.
NOWHERE = 1e100


@dataclass(frozen=True)
class Objective:
    """A criterion in scaled parameters.

    Attributes
    ----------
    value : callable
        x -> value and gradient; a large value where there is none.
    estimates : callable
        x -> beta and the standard deviations of all random effects, on the user's scale.
    local : callable
        For the package's own optimiser.
    start : ndarray
    structures : CovarianceStructures
        The first elements of x are theta.
    reach : tuple of float
        By what starts far out multiply standard deviations, least and most.
    """

    value: Callable[[FloatArray], tuple[float, FloatArray]]
    estimates: Callable[[FloatArray], tuple[FloatArray, FloatArray]]
    local: Callable[[FloatArray], Local | None]
    start: FloatArray
    structures: CovarianceStructures
    reach: tuple[float, float]
