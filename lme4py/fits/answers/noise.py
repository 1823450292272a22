"""Residual variances of rows, and how they depend on the variance parameters."""

from __future__ import annotations

from dataclasses import dataclass

from lme4py.linalg.types import FloatArray

__all__ = ["Noise"]


@dataclass(frozen=True)
class Noise:
    """Residual variances.

    Attributes
    ----------
    variance : ndarray, shape (n,)
    slopes : ndarray, shape (n, s), or None
        Derivatives in the parameters of `VarianceDerivatives`; None where these are relative to the variance itself.
    """

    variance: FloatArray
    slopes: FloatArray | None = None
