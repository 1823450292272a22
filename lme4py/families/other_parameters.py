"""Parameters of a likelihood beside eta and thresholds: a dispersion, and others such as the power of Tweedie's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from lme4py.linalg.types import FloatArray

__all__ = ["OtherParameters"]


class OtherParameters(ABC):
    """What they are called, their scales and ends: none, until a family says otherwise."""

    @property
    @abstractmethod
    def n_dispersion(self) -> int: ...

    @property
    def nuisance_names(self) -> tuple[str, ...]:
        """Names of the parameters that are neither a dispersion nor thresholds, such as "power"."""
        return ()

    def other_values(self, others: Sequence[float]) -> FloatArray:
        """The parameters of `nuisance_names` as they are reported, from their values on scales without bounds."""
        return np.asarray(others, dtype=np.float64)

    def other_natural(self, number: int, value: float) -> float:
        """One of them as it is reported."""
        return value

    def other_ends(self, others: Sequence[float]) -> dict[int, str]:
        """Which of them stand at an end of their range, and what the model is there."""
        return {}

    def other_slopes(self, others: Sequence[float]) -> FloatArray:
        """Derivatives of `other_values`, shape (k, k)."""
        return np.eye(len(others))

    def other_limits(self, number: int, value: float, half: float) -> tuple[float, float]:
        """Limits of one of them, normal on the scale without bounds, from half the width of an interval around it."""
        return value - half, value + half

    def dispersion(self, lam: float) -> float:
        """The dispersion parameter exp(lambda); 1 where the family has none."""
        return float(np.exp(lam)) if self.n_dispersion else 1.0

    def sigma(self, lam: float) -> float:
        """The number that glmmTMB's ``sigma()`` gives; 1 where the family has no dispersion parameter."""
        return self.dispersion(lam)
