"""The test of no effect of a smooth (Wood 2013, Biometrika 100:221)."""

from __future__ import annotations

from math import floor

import numpy as np
from scipy import special

from lme4py.linalg.types import FloatArray

__all__ = ["mixture_tail", "smooth_test"]

# Terms of the sum that is the tail of a mixture.
_TERMS = 200_000
# P-values below this are those of the F or chi-squared distribution with as many degrees of freedom: the integral of
# the mixture has fewer digits.
_SMALL = 1e-7


def smooth_test(X: FloatArray, beta: FloatArray, V: FloatArray, rank: float, scale_df: float) -> tuple[float, float]:
    """The statistic f'V_f^(r-) f of a real rank r, and its p-value."""
    R = np.asarray(np.linalg.qr(X, mode="r"), dtype=np.float64)
    values, vectors = np.linalg.eigh(R @ V @ R.T)
    order = np.argsort(-values)
    z = (vectors[:, order].T @ (R @ beta)) / np.sqrt(np.maximum(values[order], 1e-300))
    k = floor(rank + 1e-9)
    part = max(rank - k, 0.0)
    if part < 1e-9 or k == z.size:
        T = float(z[:k] @ z[:k])
        return T, mixture_tail(T, [1.0] * k, float(k), scale_df)
    if k == 0:
        T = float(part * z[0] ** 2)
        return T, mixture_tail(T, [part], part, scale_df)
    whole, a, b = float(z[: k - 1] @ z[: k - 1]), z[k - 1], z[k]
    cross = np.sqrt(0.5 * part * (1.0 - part))
    # The sign of an eigenvector is arbitrary: the mean of both.
    found = [float(whole + a * a + part * b * b + 2.0 * sign * cross * a * b) for sign in (1.0, -1.0)]
    first = 0.5 * (part + 1.0 + np.sqrt(1.0 - part**2))
    weights = [1.0] * (k - 1) + [float(first), float(part + 1.0 - first)]
    return float(np.mean(found)), float(np.mean([mixture_tail(T, weights, rank, scale_df) for T in found]))


def mixture_tail(T: float, weights: list[float], rank: float, scale_df: float) -> float:
    """P(sum of weights chi2_1 > T), or > T chi2 / df of the scale, by Davies' (1973) sum."""
    plain = special.chdtrc(rank, T) if np.isinf(scale_df) else special.fdtrc(rank, scale_df, T / rank)
    if plain < _SMALL or len(set(weights)) == 1 == weights[0]:
        return float(plain)
    lam, own, shift = np.array(weights), np.ones(len(weights)), T
    if np.isfinite(scale_df):
        lam, own, shift = np.append(lam, -T / scale_df), np.append(own, scale_df), 0.0
    reach = abs(float(own @ lam)) + shift + 12.0 * np.sqrt(2.0 * float(own @ lam**2))
    k = np.arange(_TERMS) + 0.5
    u = np.pi / reach * k
    angle, size = -0.5 * shift * u, np.zeros(_TERMS)
    for value, df in zip(lam.tolist(), own.tolist(), strict=True):
        angle += 0.5 * df * np.arctan(value * u)
        size += 0.25 * df * np.log1p((value * u) ** 2)
    found = 0.5 + float(np.sum(np.sin(angle) * np.exp(-size) / k)) / np.pi
    return float(np.clip(found, 0.0, 1.0))
