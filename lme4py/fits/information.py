"""Asymptotic covariance of all parameters, and delta-method standard errors of what is made of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lme4py.linalg.types import FloatArray

__all__ = ["VarianceInformation"]


@dataclass(frozen=True)
class VarianceInformation:
    """Covariance of all s parameters phi, and derivatives of what is reported in phi.

    phi is (theta inside, log sigma, beta) for a linear model, (theta, beta, log dispersion or thresholds) for a
    generalised one.

    Attributes
    ----------
    covariance : ndarray, shape (s, s)
        Inverse of half the Hessian of the criterion (restricted likelihood for REML fits).
    covariances : tuple of ndarray, each (s, k, k)
        Derivatives of the covariance matrix of each term.
    residual : ndarray, shape (s,)
        Derivatives of log sigma^2 (log dispersion); zeros for a family without a dispersion parameter.
    fixed : ndarray, shape (s, p)
        Derivatives of the fixed effects.
    thresholds : ndarray, shape (s, K - 1)
        Derivatives of the thresholds of an ordinal model.
    """

    covariance: FloatArray
    covariances: tuple[FloatArray, ...]
    residual: FloatArray
    fixed: FloatArray
    thresholds: FloatArray

    def std_error(self, gradient: FloatArray) -> float:
        """Standard error of a function with this gradient in phi."""
        return float(np.sqrt(max(float(gradient @ self.covariance @ gradient), 0.0)))
