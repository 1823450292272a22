"""Information criteria of a frozen fit."""

from __future__ import annotations

import math

from lme4py.fits.base import Fit

__all__ = ["aic", "bic"]


def aic(fit: Fit) -> float:
    """Akaike's criterion: the criterion of the fit plus twice the number of parameters."""
    return fit.criterion + 2.0 * fit.n_params


def bic(fit: Fit, n: int | None = None) -> float:
    """Schwarz's criterion: log(n) per parameter, n the number of rows used (as lme4, also for REML) if not given."""
    return fit.criterion + math.log(fit.design.n_obs if n is None else n) * fit.n_params
