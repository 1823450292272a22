"""What a structure that knows nothing better finds by numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lme4py.linalg.types import FloatArray

if TYPE_CHECKING:
    from lme4py.covariance.structure import CovarianceStructure

__all__ = ["independent", "nearest"]

# What is left of a direction, as a part of it, where it is no combination of the ones before it.
_NEW = 1e-7


def nearest(structure: CovarianceStructure, M: FloatArray) -> FloatArray:
    """theta of the covariance of a structure that is nearest to M M', by least squares of its elements.

    Parameters
    ----------
    structure : CovarianceStructure
    M : ndarray, shape (k, l)
    """
    C = M @ M.T
    rows, columns = np.tril_indices(structure.size)

    def misfit(theta: FloatArray) -> FloatArray:
        return np.asarray((structure.covariance(theta) - C)[rows, columns])

    def slopes(theta: FloatArray) -> FloatArray:
        return structure.covariance_tangents(theta)[:, rows, columns].T

    from scipy.optimize import least_squares

    first = structure.initial()
    start = np.sqrt(np.trace(C) / structure.size) * first if np.trace(C) > 0.0 else 0.0 * first
    found = least_squares(misfit, start, slopes, xtol=1e-15, ftol=1e-15, gtol=1e-15)
    return np.asarray(found.x)


def independent(moves: FloatArray) -> list[int]:
    """Which of some matrices, (m, k, k), are no linear combinations of the ones before them."""
    basis: list[FloatArray] = []
    kept = []
    for i, move in enumerate(moves.reshape(len(moves), int(np.prod(moves.shape[1:])))):
        rest = move - sum((q * (q @ move) for q in basis), np.zeros_like(move))
        size = float(np.linalg.norm(rest))
        if size > _NEW * float(np.linalg.norm(move)):
            basis.append(rest / size)
            kept.append(i)
    return kept
