"""Whether the bases of smooths are large enough."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lme4py.inference.diagnostics.residuals import residual_values
from lme4py.inference.estimates.smooth_system import Smooth, smooth_system
from lme4py.linalg.types import FloatArray, IntArray

if TYPE_CHECKING:
    from lme4py.fits.base import Fit

__all__ = ["BasisUse", "basis_use"]

# Random orders of the residuals, the p-value that asks for attention, and the part of the basis that is used then.
_PERMUTATIONS, _POOR, _USED = 400, 0.01, 0.7
# Neighbours of a row in several variables.
_NEAREST = 3


@dataclass(frozen=True)
class BasisUse:
    """How much of its basis a smooth uses.

    Attributes
    ----------
    edf : float
    p_value : float
        Of the differences of residuals of neighbours in the variable against those in random order.
    is_small : bool
        Most of the basis is used, and the residuals of neighbours go together.
    """

    edf: float
    p_value: float
    is_small: bool


def basis_use(fit: Fit, one: Smooth) -> BasisUse:
    """Whether the basis of a smooth is large enough, by the differences of residuals of neighbours (Wood 2017, 5.9).

    Parameters
    ----------
    fit : Fit
    one : Smooth
    """
    edf = float(smooth_system(fit).edf[one.places].sum())
    kept = np.abs(one.columns).max(axis=1) > 0.0
    residual = np.asarray(residual_values(fit, "score" if fit.categories else "pearson"), dtype=np.float64)[kept]
    rng = np.random.default_rng(0)
    neighbours = _neighbours(one.x[kept], rng)
    observed = _differences(residual, neighbours)
    random = [_differences(rng.permutation(residual), neighbours) for _ in range(_PERMUTATIONS)]
    p = (1.0 + sum(value <= observed for value in random)) / (1.0 + _PERMUTATIONS)
    return BasisUse(edf, p, p < _POOR and edf > _USED * one.size)


def _neighbours(x: FloatArray, rng: np.random.Generator) -> IntArray:
    """Pairs of rows that are next to each other, (2, m): in order of one variable, the nearest ones in several."""
    if x.shape[1] == 1:
        order = np.lexsort(np.stack([rng.random(x.shape[0]), x[:, 0]]))
        return np.stack([order[:-1], order[1:]])
    from scipy.spatial import cKDTree

    standard = x / x.std(axis=0)
    near = np.asarray(cKDTree(standard).query(standard, k=min(_NEAREST + 1, x.shape[0]))[1], dtype=np.intp)
    return np.stack([np.repeat(near[:, 0], near.shape[1] - 1), near[:, 1:].ravel()])


def _differences(residual: FloatArray, pairs: IntArray) -> float:
    return float(np.sum((residual[pairs[0]] - residual[pairs[1]]) ** 2))
