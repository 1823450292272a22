"""Sampling variances and covariances of rows that are known."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from scipy import linalg

from lme4py.fits.base import Fit
from lme4py.fits.residual.fit import ResidualFit
from lme4py.linalg.types import FloatArray

__all__ = ["Root", "sampling_root", "sampling_sd"]

# Columns (n, c) -> H columns, with H'H = V^-1.
Root: TypeAlias = Callable[[FloatArray], FloatArray]


def sampling_sd(fit: Fit) -> FloatArray | None:
    """Known standard deviations of the rows, shape (n,); None where they are estimated."""
    if isinstance(fit, ResidualFit):
        return fit.residual_sd if fit.residual.is_known else None
    if fit.design.sigma is None:
        return None
    weights = fit.design.weights
    return np.full(fit.design.n_obs, fit.design.sigma) if weights is None else fit.design.sigma / np.sqrt(weights)


def sampling_root(fit: Fit) -> Root | None:
    """What multiplies columns by a root of the inverse of the known covariance of the rows; None where there is none.

    Parameters
    ----------
    fit : Fit
    """
    sd = sampling_sd(fit)
    if sd is None:
        return None
    if isinstance(fit, ResidualFit) and fit.residual.text:
        part = fit.residual.part
        R = part.structures[0].covariance(np.zeros(0), part.points[:, 0])
        weights = 1.0 if part.weights is None else np.sqrt(part.weights)
        L = np.linalg.cholesky(R)
        return lambda columns: linalg.solve_triangular(L, (columns.T * weights).T, lower=True)
    return lambda columns: columns / sd[:, None]
