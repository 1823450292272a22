"""What draws responses of a fitted model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from lme4py.linalg.small import lower_factor, symmetric_root
from lme4py.linalg.types import FloatArray

if TYPE_CHECKING:
    from lme4py.design.design import TermPlan

__all__ = ["Draws", "covariance_roots", "drawn_effects", "generators"]


class Draws(Protocol):
    """Anything that draws responses from seeds."""

    def draw(self, seeds: Sequence[np.random.SeedSequence]) -> FloatArray: ...


def generators(seeds: Sequence[np.random.SeedSequence]) -> list[np.random.Generator]:
    """One generator for each seed."""
    return [np.random.Generator(np.random.PCG64(seed)) for seed in seeds]


def covariance_roots(covariances: Iterable[FloatArray]) -> list[FloatArray]:
    """A lower triangular factor of each covariance matrix (k, k); exact zeros stay zeros."""
    return [lower_factor(symmetric_root(cov)) for cov in covariances]


def drawn_effects(term: TermPlan, z: FloatArray, root: FloatArray) -> FloatArray:
    """Random effects of a term from independent standard normal numbers.

    Parameters
    ----------
    term : TermPlan
    z : ndarray, shape (B, J, k)
    root : ndarray, shape (k, k)
        Of the covariance of the term.
    """
    if term.relation is not None:
        z = term.relation.along(z, "root")
    out: FloatArray = z @ root.T
    return out
