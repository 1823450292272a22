"""Means of inverse links over a normal linear predictor that have closed forms, with derivatives in its mean."""

from __future__ import annotations

from typing import Final

import numpy as np
from scipy import special

from lme4py.errors import OptionError
from lme4py.linalg.types import FloatArray

__all__ = ["REACH", "identity", "log", "normal_nodes", "power", "probit", "square"]

# Standard deviations from the middle beyond which the normal density is nothing beside rounding.
REACH: Final = 8.5
# The linear predictors of 1/mu and 1/mu^2 must be above zero but for this probability (a mean at 4.75 sd).
_BEYOND: Final = 1e-6
# For powers: a step whose error is below rounding as near to the pole as it is used, and nodes between 0 and the end.
_NEAR_STEP: Final = 0.2
_ROOT_NODES: Final = 160


def normal_nodes(step: float, reach: float) -> tuple[FloatArray, FloatArray]:
    """Nodes and weights of the trapezoidal rule over the standard normal distribution, each (Q,)."""
    half = int(np.ceil(reach / step))
    nodes = step * np.arange(-half, half + 1, dtype=np.float64)
    weights: FloatArray = np.exp(-0.5 * nodes * nodes)
    total = float(weights.sum())
    return nodes, weights / total


def identity(eta: FloatArray, v: FloatArray) -> tuple[FloatArray, ...]:
    zero = np.zeros_like(eta)
    return eta, zero + 1.0, zero, zero, zero


def square(eta: FloatArray, v: FloatArray) -> tuple[FloatArray, ...]:
    zero = np.zeros_like(eta)
    return eta * eta + v, 2.0 * eta, zero + 2.0, zero, zero


def log(eta: FloatArray, v: FloatArray) -> tuple[FloatArray, ...]:
    with np.errstate(over="ignore"):
        mean = np.exp(eta + 0.5 * v)
    return mean, mean, mean, mean, mean


def probit(eta: FloatArray, v: FloatArray) -> tuple[FloatArray, ...]:
    root = np.sqrt(1.0 + v)
    a = eta / root
    density = np.exp(-0.5 * a * a) / np.sqrt(2.0 * np.pi) / root
    second = -a * density / root
    third = (a * a - 1.0) * density / root**2
    return special.ndtr(a), density, second, third, (3.0 * a - a**3) * density / root**3


# --- powers of a linear predictor that is positive


def power(name: str, power: float, eta: FloatArray, v: FloatArray, order: int) -> tuple[FloatArray, ...]:
    """Means of 1/eta (principal value) and of 1/sqrt(eta) over its positive part."""
    sd = np.sqrt(v)
    ratio = np.divide(eta, sd, out=np.where(eta > 0, np.inf, -np.inf), where=sd > 0)
    beyond = special.ndtr(-ratio)
    if (beyond > _BEYOND).any():
        raise OptionError(
            f"the mean over the random effects does not exist with the {name!r} link: the linear predictor of "
            f"{int((beyond > _BEYOND).sum())} row(s) is negative with a probability up to {beyond.max():.3g}. Use "
            "random effects at zero (include_random=False, random='zero'), or fit the model with the log link."
        )
    count = 5 if order == 2 else 3
    near = ratio < REACH + 1.0
    # Numbers that reach no node: their rows are replaced below.
    away = np.where(near, 0.0, sd)
    sums = np.zeros((count, *eta.shape))
    for z, w in zip(*normal_nodes(_NEAR_STEP, REACH), strict=True):
        at = eta + z * away
        value = w * at**power
        for k in range(count):
            sums[k] += value
            value = value * (power - k) / at
    if near.any():
        sums[:, near] = (_dawson if power == -1.0 else _roots)(eta[near], sd[near], count)
    return tuple(sums)


def _dawson(eta: FloatArray, sd: FloatArray, count: int) -> FloatArray:
    """Principal value of E 1/(eta + sd z) = sqrt(2) / sd D(eta / (sqrt(2) sd)) by Dawson's integral D, (count, n)."""
    scale = np.sqrt(2.0) * sd
    x = eta / scale
    d = [special.dawsn(x)]
    d.append(1.0 - 2.0 * x * d[0])
    for k in range(1, count - 1):
        d.append(-2.0 * (x * d[k] + k * d[k - 1]))
    return np.stack([2.0 / scale * value / scale**k for k, value in enumerate(d)])


def _roots(eta: FloatArray, sd: FloatArray, count: int) -> FloatArray:
    """E 1/sqrt(x), x > 0, as the integral of the density at x = s^2 over the line of s, (count, n)."""
    ends = np.sqrt(eta + REACH * sd)
    s = ends * ((np.arange(_ROOT_NODES) + 0.5) / _ROOT_NODES)[:, None]
    u = (s * s - eta) / sd
    density = np.exp(-0.5 * u * u) * (2.0 * ends / (_ROOT_NODES * np.sqrt(2.0 * np.pi) * sd))
    # Hermite polynomials: each derivative in eta is one of the density.
    hermite = [np.ones_like(u), u]
    for k in range(1, count - 1):
        hermite.append(u * hermite[k] - k * hermite[k - 1])
    return np.stack([(h * density).sum(axis=0) / sd**k for k, h in enumerate(hermite)])
