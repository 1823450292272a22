"""Whether the bases of smooths are large enough."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lme4py.inference.diagnostics.residuals import residual_values
from lme4py.inference.estimates.smooths import Smooth, smooth_system

if TYPE_CHECKING:
    from lme4py.fits.base import Fit

__all__ = ["BasisUse", "basis_use"]

# Random orders of the residuals, the p-value that asks for attention, and the part of the basis that is used then.
_PERMUTATIONS, _POOR, _USED = 400, 0.01, 0.7


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
    order = np.lexsort((rng.random(residual.size), one.x[kept]))
    observed = float(np.sum(np.diff(residual[order]) ** 2))
    random = [float(np.sum(np.diff(rng.permutation(residual)) ** 2)) for _ in range(_PERMUTATIONS)]
    p = (1.0 + sum(value <= observed for value in random)) / (1.0 + _PERMUTATIONS)
    return BasisUse(edf, p, p < _POOR and edf > _USED * one.size)
