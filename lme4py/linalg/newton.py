"""Newton steps of many functions at once."""

from __future__ import annotations

import numpy as np

from lme4py.linalg.types import FloatArray

__all__ = ["newton_steps"]


def newton_steps(gradient: FloatArray, hessian: FloatArray, radius: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Newton steps with the absolute curvatures, no longer than the radius, and the predicted decrease."""
    values, vectors = np.linalg.eigh(hessian)
    g = np.einsum("bij,bi->bj", vectors, gradient)
    size = np.maximum(np.abs(values).max(axis=1, keepdims=True), 1.0)
    # At a saddle (a standard deviation of zero) the gradient vanishes, so that it is left along its axis.
    saddle = (values < -1e-6 * size) & (np.abs(g) < 1e-6 * size)
    g = np.where(saddle, -1e-3 * size, g)
    step = -g / np.maximum(np.abs(values), 1e-10 * size)
    length = np.linalg.norm(step, axis=1)
    step *= np.minimum(1.0, radius / np.maximum(length, 1e-300))[:, None]
    predicted = -(g * step).sum(axis=1) - 0.5 * (np.where(saddle, 0.0, values) * step**2).sum(axis=1)
    return np.einsum("bij,bj->bi", vectors, step), np.maximum(predicted, 0.0)
