"""What families with a density share: the check for infinite and impossible values, quantiles by bisection."""

from __future__ import annotations

import numpy as np

from lme4py.families.densities.base import ScaledDensity, Values
from lme4py.families.response import ResponseData
from lme4py.linalg.types import BoolArray, FloatArray

__all__ = ["PositiveDensity", "RealDensity", "log_bisection"]


class RealDensity(ScaledDensity):
    """A density on the line."""

    kind = "real"
    support = "finite numbers"

    def outside(self, data: ResponseData) -> BoolArray:
        return ~np.isfinite(data.y)

    def stays_likely(self, data: ResponseData, mean: float) -> BoolArray:
        return np.zeros(data.n_obs, dtype=bool)


class PositiveDensity(ScaledDensity):
    """A density on the positive half-line."""

    kind = "positive"
    support = "numbers above 0"
    advice = "for zeros beside positive amounts add a ziformula (a hurdle model) or use the tweedie family"
    ratio = "ratio of means"

    def outside(self, data: ResponseData) -> BoolArray:
        return np.asarray(data.y <= 0.0)

    def stays_likely(self, data: ResponseData, mean: float) -> BoolArray:
        """None: the density of a positive response is zero with a mean of zero and with an infinite one."""
        return np.zeros(data.n_obs, dtype=bool)

    def start_eta(self, data: ResponseData) -> FloatArray:
        return self.link.eta(data.y)


def log_bisection(p: FloatArray, x: Values, data: ResponseData, family: ScaledDensity) -> FloatArray:
    """Quantiles of a positive response by bisection of log y, from its mean and variance.

    Whichever of P(Y <= y) and P(Y > y) is the smaller one is compared, so that both tails keep their digits.
    """
    mu, V = family.mean(x, data), family.variance(x, data)
    p, mu, V = np.broadcast_arrays(np.asarray(p, dtype=np.float64), mu, V)
    step = np.sqrt(np.log1p(V / (mu * mu)))
    low, high = (np.log(mu) + sign * step for sign in (-1.0, 1.0))

    def below(log_y: FloatArray) -> BoolArray:
        y = np.exp(log_y)
        return np.where(p < 0.5, family.cdf(y, x, data) < p, family.sf(y, x, data) > 1.0 - p)

    for _ in range(60):
        out_low, out_high = ~below(low) & (low > -700.0), below(high) & (high < 700.0)
        if not (out_low.any() or out_high.any()):
            break
        step = 2.0 * step
        low, high = np.where(out_low, low - step, low), np.where(out_high, high + step, high)
    for _ in range(70):
        middle = 0.5 * (low + high)
        under = below(middle)
        low, high = np.where(under, middle, low), np.where(under, high, middle)
    inside = np.where((p > 0.0) & (p < 1.0), np.exp(0.5 * (low + high)), np.where(p == 0.0, 0.0, np.inf))
    return np.where((p >= 0.0) & (p <= 1.0), inside, np.nan)
