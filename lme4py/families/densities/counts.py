"""What families of counts share: distribution functions by summing probabilities, quantiles, simulation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import special

from lme4py.chunks import chunk, from_size
from lme4py.errors import OptionError
from lme4py.families.densities.base import Density, Values
from lme4py.families.densities.calculus.jets import Degrees, DensityJet
from lme4py.families.response import ResponseData
from lme4py.linalg.types import BoolArray, FloatArray, IntArray

__all__ = ["CountDensity", "discrete_quantile", "flat"]

# A probability counts as reached when it is this near: quantile(cdf(k)) is then k.
_FUZZ = 64.0 * float(np.finfo(np.float64).eps)
_FIRST, _MOST = 32, 4096
# Draws look at so many counts at a time, and at so many in all; so many draws are made together.
_STEP, _SEARCHED, _DRAWS = chunk(8, 3), from_size(128, 5), chunk(2**15)


class CountDensity(Density):
    """A distribution on 0, 1, 2, ...; zero-truncated ones on 1, 2, ..."""

    kind = "count"
    support = "counts 0, 1, 2, ..."
    ratio: str | None = "incidence-rate ratio"
    lowest: int = 0
    # Whether the mean and the smallest counts go to zero and one each at its own pace.
    overdisperses: bool = True

    @property
    def truncated_is_concave(self) -> bool:
        """Whether the log-likelihood of the zero-truncated distribution is known to be concave in its variables."""
        return False

    def trouble_above_zero(self, data: ResponseData, x: Values) -> str:
        """Why the zero-truncated distribution has no finite estimates here, or ""."""
        return ""

    def outside(self, data: ResponseData) -> BoolArray:
        return np.asarray((data.y < self.lowest) | (data.y != np.rint(data.y)))

    def log_log_zero(self, data: ResponseData, x: Values, degrees: Degrees) -> DensityJet:
        """log(-log P(Y = 0)) with its derivatives, accurate as the mean goes to zero.

        Raises
        ------
        OptionError
            For a family without a zero-truncated version.
        """
        raise OptionError(f"the {self.name} family has no zero-truncated version.")

    def start_eta(self, data: ResponseData) -> FloatArray:
        return self.link.eta(np.where(data.y == 0.0, 1.0 / 6.0, data.y))

    # --- distribution

    def cdf(self, y: FloatArray, x: Values, data: ResponseData) -> FloatArray:
        return self._tails(y, x, data)[0]

    def sf(self, y: FloatArray, x: Values, data: ResponseData) -> FloatArray:
        return self._tails(y, x, data)[1]

    def _tails(self, y: FloatArray, x: Values, data: ResponseData) -> tuple[FloatArray, FloatArray]:
        """P(Y <= y) and P(Y > y): the one away from the mean as a sum, the other one as its complement."""
        y, parts, shape = flat(y, x)
        y = np.floor(y)
        rows = np.broadcast_to(np.arange(shape[-1] if shape else 1), shape).ravel()
        mean = np.broadcast_to(self.mean(parts, data.take(rows)), y.shape)
        down = y <= mean
        total = np.zeros(y.shape)
        for where, sign in ((np.flatnonzero(down & (y >= 0.0)), -1.0), (np.flatnonzero(~down), 1.0)):
            chosen = [part[where] for part in parts]
            total[where] = self._sum(y[where], chosen, data.take(rows[where]), sign)
        total = np.clip(total, 0.0, 1.0)
        lower, upper = np.where(down, total, 1.0 - total), np.where(down, 1.0 - total, total)
        return lower.reshape(shape), upper.reshape(shape)

    def _sum(self, y: FloatArray, x: list[FloatArray], data: ResponseData, sign: float) -> FloatArray:
        """Sum of the probabilities from y downwards, or from y + 1 upwards, until they no longer count."""
        total = np.zeros(y.shape)
        active: IntArray = np.arange(y.size)
        first = y if sign < 0.0 else y + 1.0
        done, size = 0, _FIRST
        while active.size:
            k = first[active, None] + sign * (done + np.arange(size))
            inside = k >= self.lowest
            part = self._probabilities(np.where(inside, k, self.lowest), [p[active] for p in x], data.take(active))
            gained = np.where(inside, part, 0.0).sum(axis=1)
            total[active] += gained
            active = active[inside[:, -1] & (gained > 1e-18 * total[active])]
            done, size = done + size, min(2 * size, _MOST)
        return total

    def _probabilities(self, k: FloatArray, x: list[FloatArray], data: ResponseData) -> FloatArray:
        """P(Y = k) for several k of each row, shape (n, m)."""
        many = np.repeat(np.arange(k.shape[0]), k.shape[1])
        log_p = self.loglik(data.take(many).with_y(k.ravel()), [part[many] for part in x])
        p: FloatArray = np.exp(log_p).reshape(k.shape)
        return p

    def quantile(self, p: FloatArray, x: Values, data: ResponseData) -> FloatArray:
        p, parts, shape = flat(p, x)
        rows = np.broadcast_to(np.arange(shape[-1] if shape else 1), shape).ravel()

        def cdf(k: FloatArray, which: IntArray) -> FloatArray:
            return self.cdf(k, [part[which] for part in parts], data.take(rows[which]))

        everything = data.take(rows)
        center, spread = self.mean(parts, everything), np.sqrt(self.variance(parts, everything))
        return discrete_quantile(p, center, spread, cdf, self.lowest).reshape(shape)

    def simulate(self, x: Values, data: ResponseData, rng: np.random.Generator) -> FloatArray:
        return self.inverse(rng.random(data.n_obs), x, data)

    def inverse(self, u: FloatArray, x: Values, data: ResponseData) -> FloatArray:
        """Draws from uniform ones: probabilities are added up from the smallest count on, and far counts sought.

        Parameters
        ----------
        u : ndarray, shape (n,)
        x, data
            As for `simulate`.
        """
        u, parts, _ = flat(u, x)
        near = self.mean(parts, data) + 4.0 * np.sqrt(self.variance(parts, data)) < _SEARCHED
        y = np.empty(u.shape)
        for start in range(0, u.size, _DRAWS):
            rows = start + np.flatnonzero(near[start : start + _DRAWS])
            y[rows] = self._search(u[rows], [part[rows] for part in parts], data.take(rows))
        rest = np.flatnonzero(~near | np.isnan(y))
        if rest.size:
            y[rest] = self.quantile(u[rest], [part[rest] for part in parts], data.take(rest))
        return y

    def _search(self, u: FloatArray, x: list[FloatArray], data: ResponseData) -> FloatArray:
        """The smallest count whose distribution function is at least u; NaN where it is none of the smallest ones."""
        y, total = np.full(u.shape, np.nan), np.zeros(u.shape)
        active: IntArray = np.arange(u.size)
        for first in range(self.lowest, self.lowest + _SEARCHED, _STEP):
            if not active.size:
                break
            k = np.broadcast_to(np.arange(first, first + _STEP, dtype=np.float64), (active.size, _STEP))
            p = self._probabilities(k, [part[active] for part in x], data.take(active))
            reached = total[active, None] + np.cumsum(p, axis=1)
            below, found = reached < u[active, None], reached[:, -1] >= u[active]
            y[active[found]] = first + below[found].sum(axis=1)
            total[active] = reached[:, -1]
            active = active[~found]
        return y


def flat(y: FloatArray, x: Values) -> tuple[FloatArray, list[FloatArray], tuple[int, ...]]:
    """y and the variables, broadcast to one shape and as one axis; and that shape."""
    arrays = np.broadcast_arrays(np.asarray(y, dtype=np.float64), *(np.asarray(p, dtype=np.float64) for p in x))
    return arrays[0].ravel(), [part.ravel() for part in arrays[1:]], arrays[0].shape


def discrete_quantile(
    p: FloatArray,
    center: FloatArray,
    spread: FloatArray,
    cdf: Callable[[FloatArray, IntArray], FloatArray],
    lowest: int = 0,
) -> FloatArray:
    """The smallest whole number k with cdf(k) >= p, by bisection from a normal approximation.

    Parameters
    ----------
    p, center, spread : ndarray, shape (m,)
        Mean and standard deviation say where to look first.
    cdf : callable
        Of (k, which): the distribution function of the problems `which` at k.
    lowest : int
        The smallest possible value.
    """
    p = np.asarray(p, dtype=np.float64)
    proper = (p >= 0.0) & (p <= 1.0)
    target = np.where(proper, p * (1.0 - _FUZZ), 0.5)
    z = special.ndtri(np.clip(target, 1e-300, 1.0 - 1e-16))
    guess = np.floor(np.nan_to_num(center + z * spread, posinf=1e15))
    low = np.full(p.shape, lowest - 1.0)  # cdf(low) < p
    high = np.maximum(guess, float(lowest))
    step = np.maximum(np.ceil(0.25 * np.nan_to_num(spread, nan=1.0, posinf=1e15)), 1.0)
    active = np.flatnonzero(target < 1.0)
    while active.size:
        reached = cdf(high[active], active) >= target[active]
        active = active[~reached]
        low[active] = high[active]
        high[active] += step[active]
        step[active] *= 2.0
        active = active[high[active] < 1e16]
    return np.where(proper, np.where(target < 1.0, _bisect(target, low, high, step, cdf), np.inf), np.nan)


def _bisect(
    target: FloatArray,
    low: FloatArray,
    high: FloatArray,
    step: FloatArray,
    cdf: Callable[[FloatArray, IntArray], FloatArray],
) -> FloatArray:
    """Whole numbers between low (too small) and high (large enough)."""
    # First downwards in growing steps: the lower end may be far away.
    reach = step.copy()
    active = np.flatnonzero((target < 1.0) & (high - low > 1.0))
    while active.size:
        trial = np.maximum(high[active] - reach[active], low[active] + 1.0)
        enough = cdf(trial, active) >= target[active]
        high[active] = np.where(enough, trial, high[active])
        low[active] = np.where(enough, low[active], trial)
        reach[active] = np.where(enough, 2.0 * reach[active], np.ceil(0.5 * (high[active] - low[active])))
        active = active[high[active] - low[active] > 1.0]
    return high
