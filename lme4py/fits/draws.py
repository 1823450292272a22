"""What draws responses of a fitted model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np

from lme4py.linalg.small import lower_factor
from lme4py.linalg.types import FloatArray

__all__ = ["Draws", "covariance_roots", "generators"]


class Draws(Protocol):
    """Anything that draws responses from seeds."""

    def draw(self, seeds: Sequence[np.random.SeedSequence]) -> FloatArray: ...


def generators(seeds: Sequence[np.random.SeedSequence]) -> list[np.random.Generator]:
    """One generator for each seed."""
    return [np.random.Generator(np.random.PCG64(seed)) for seed in seeds]


def covariance_roots(covariances: Iterable[FloatArray]) -> list[FloatArray]:
    """A lower triangular factor of each covariance matrix (k, k); exact zeros stay zeros."""
    out = []
    for cov in covariances:
        values, vectors = np.linalg.eigh(cov)
        out.append(lower_factor(vectors * np.sqrt(np.maximum(values, 0.0))))
    return out
