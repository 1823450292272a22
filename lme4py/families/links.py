"""Link functions: from the linear predictor eta to the mean, with derivatives that hold in both tails.

Two kinds, because the log-likelihoods need two things:

* `ProbabilityLink` (binomial): A = log F(eta) and B = log(1 - F(eta)), each with three derivatives. No 1 - mu
  is formed by subtraction.
* `MeanLink` (all others): the mean, or the log of the mean, with three derivatives.

Links are frozen and hold no state but their range, so that they compare, hash and pickle.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.special import log_ndtr, logit, ndtr, ndtri

from lme4py.families import averages
from lme4py.linalg.types import BoolArray, FloatArray

__all__ = ["PROBABILITY_LINKS", "Derivatives", "Link", "LogMean", "MeanLink", "PowerMean", "ProbabilityLink"]

# A function and its first three derivatives with respect to eta.
Derivatives = tuple[FloatArray, FloatArray, FloatArray, FloatArray]

# Left of this point the tail of the normal distribution comes from Laplace's continued fraction.
_NORMAL_TAIL: Final = -5.0
# Nearer to the end of a bounded range than this, a third derivative is no number of double precision.
_EDGE: Final = 1e-60
_SQRT_2PI: Final = float(np.sqrt(2.0 * np.pi))


class Link(ABC):
    """A monotone function on an open range of eta.

    Attributes
    ----------
    name : str
    low, high : float
        eta is valid inside (low, high).
    has_unit : bool
        Whether eta has the unit of the mean, or a power of it; False for log, logit and their like.
    ratio : str or None
        What exp of a difference in eta is: "odds_ratio", "rate_ratio".
    latent_variance : float or None
        Variance of the latent variable whose distribution function the inverse link is; None where there is none.
    strip : float or None
        Half-width of the strip in which the inverse link is analytic and stays of order one: sums over a normal
        distribution need it.
    heavy_tail : bool
        Whether the inverse link falls slower than exp(eta).
    entire : bool
        Whether the inverse link is an entire function of eta.
    turn : float or None
        Where the mean turns from falling to rising.
    inner : float
        Some valid eta.
    """

    name: str
    low: float
    high: float
    has_unit: bool = True
    ratio: str | None = None
    latent_variance: float | None = None
    strip: float | None = None
    heavy_tail: bool = False
    entire: bool = False
    is_log: bool = False
    # Distance of the predictor from its middle at which tails have no digits left beside 1.
    tail: float = 40.0

    @property
    def ends(self) -> tuple[float | None, float | None]:
        """Means that are approached as eta goes to -inf and to +inf; None where the range of eta ends before."""
        low, high = self.extremes
        return (low if self.low == -np.inf else None), (high if self.high == np.inf else None)

    @property
    @abstractmethod
    def extremes(self) -> tuple[float, float]:
        """Means at both ends of the range of eta, whether these are infinite or not."""

    def valid(self, eta: FloatArray) -> BoolArray:
        """True where `eta` is finite and inside the range, shape of eta."""
        # Not-a-number and the infinities fail the comparisons: no separate check is needed.
        inside: BoolArray = (eta > self.low) & (eta < self.high)
        return inside

    def all_valid(self, eta: FloatArray) -> bool:
        """Whether all of `eta` are valid."""
        if type(self).valid is not Link.valid:
            return bool(self.valid(eta).all())
        # A not-a-number is the least and the largest of all. Two passes, and nothing to hold.
        return bool(eta.min(initial=np.inf) > self.low and eta.max(initial=-np.inf) < self.high)

    @property
    def has_pole(self) -> bool:
        """Whether a likelihood can be zero inside the range, so that each side of that point has maxima of its own."""
        return False

    @property
    def inner(self) -> float:
        return float(self.eta(np.array(0.5)))

    @property
    def is_identity(self) -> bool:
        """Whether the mean is eta itself."""
        return False

    @property
    def turn(self) -> float | None:
        return None

    def edge_mean(self, eta: FloatArray) -> FloatArray:
        """The mean, or its limit where eta is beyond the range, shape of eta."""
        valid = self.valid(eta)
        with np.errstate(over="ignore", under="ignore"):
            if valid.all():
                return self.mean(eta)
            inside = self.mean(np.where(valid, eta, self.inner))
        return np.where(valid, inside, self._beyond(eta))

    def _beyond(self, eta: FloatArray) -> FloatArray:
        """Limits of the mean where eta is not valid."""
        low, high = self.extremes
        return np.where(eta <= self.low, low, high)

    def averaged(self, eta: FloatArray, v: FloatArray, order: int) -> tuple[FloatArray, ...] | None:
        """E g^-1(eta + sqrt(v) z), z standard normal, with derivatives in eta, where they have a closed form.

        Parameters
        ----------
        eta, v : ndarray
            Of one shape, or shapes that broadcast.
        order : {0, 1, 2}
            2 takes four derivatives, 1 two.
        """
        return None

    def mean_derivatives(self, eta: FloatArray, order: int) -> tuple[FloatArray, ...]:
        """The mean and its derivatives, at least `order` (0 to 3) of them, on grids without an invalid eta."""
        return self.derivatives(eta)

    def room(self, eta: FloatArray, change: FloatArray) -> float:
        """The part of a step, at most 1, that surely stays inside the range.

        Parameters
        ----------
        eta : ndarray
            Inside the range.
        change : ndarray, same shape
        """
        if self.low == -np.inf and self.high == np.inf:
            return 1.0
        distance = np.where(change < 0.0, eta - self.low, self.high - eta)
        with np.errstate(divide="ignore", invalid="ignore"):
            most = float(np.nanmin(distance / np.abs(change), initial=np.inf))
        return 1.0 if most > 1.0 else 0.9 * most

    def mean(self, eta: FloatArray) -> FloatArray:
        """mu = g^-1(eta), shape of eta."""
        return self.derivatives(eta)[0]

    @abstractmethod
    def derivatives(self, eta: FloatArray) -> Derivatives:
        """mu, dmu/deta, d2mu/deta2, d3mu/deta3, each of the shape of eta."""

    @abstractmethod
    def eta(self, mu: FloatArray) -> FloatArray:
        """eta = g(mu), shape of mu."""


# --- probabilities


class ProbabilityLink(Link):
    """A link from eta to a probability F(eta).

    Attributes
    ----------
    log_concave : bool
        Whether log F and log(1 - F) are both concave, so that every binomial log-likelihood is.
    """

    low = -np.inf
    high = np.inf
    has_unit = False
    log_concave = True

    @property
    def extremes(self) -> tuple[float, float]:
        return 0.0, 1.0

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other)

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    @abstractmethod
    def tails(self, eta: FloatArray) -> tuple[Derivatives, Derivatives]:
        """A = log F(eta) and B = log(1 - F(eta)), each with three derivatives."""

    def lower_tail(self, eta: FloatArray) -> Derivatives:
        """A = log F(eta) with three derivatives."""
        return self.tails(eta)[0]

    def derivatives(self, eta: FloatArray) -> Derivatives:
        """mu, dmu/deta, d2mu/deta2, d3mu/deta3, each of the shape of eta; from the smaller tail."""
        A, B = self.tails(eta)
        left = A[0] < B[0]
        value, d1, d2, d3 = (np.where(left, a, b) for a, b in zip(A, B, strict=True))
        # 1 - mu falls where mu rises.
        scale = np.where(left, 1.0, -1.0) * np.exp(value)
        return np.exp(A[0]), scale * d1, scale * (d2 + d1 * d1), scale * (d3 + 3.0 * d1 * d2 + d1**3)

    def mean(self, eta: FloatArray) -> FloatArray:
        """mu = F(eta), shape of eta; small probabilities keep all digits."""
        mu: FloatArray = np.exp(self.tails(eta)[0][0])
        return mu

    def complement(self, eta: FloatArray) -> FloatArray:
        """1 - mu, shape of eta; accurate where mu is near 1."""
        rest: FloatArray = np.exp(self.tails(eta)[1][0])
        return rest


def _mirror(tail: Derivatives) -> Derivatives:
    """Derivatives of f(-x) from those of f at -x."""
    value, d1, d2, d3 = tail
    return value, -d1, d2, -d3


class Logit(ProbabilityLink):
    name = "logit"
    ratio = "odds_ratio"
    latent_variance = np.pi**2 / 3.0
    strip = np.pi
    entire = True

    def tails(self, eta: FloatArray) -> tuple[Derivatives, Derivatives]:
        small = np.exp(-np.abs(eta))
        larger = 1.0 / (1.0 + small)
        smaller = small * larger
        positive = eta > 0
        F, S = np.where(positive, larger, smaller), np.where(positive, smaller, larger)
        d2 = -larger * smaller
        d3 = d2 * (S - F)
        rest = np.log1p(small)
        return (np.minimum(eta, 0.0) - rest, S, d2, d3), (-np.maximum(eta, 0.0) - rest, -F, d2, d3)

    def eta(self, mu: FloatArray) -> FloatArray:
        return logit(mu)

    def mean_derivatives(self, eta: FloatArray, order: int) -> tuple[FloatArray, ...]:
        """On large grids: no derivative that is not asked for, and no 1 - mu by subtraction."""
        t = np.exp(-np.abs(eta))
        large = 1.0 / (1.0 + t)
        small = t * large
        positive = eta > 0
        mean = np.where(positive, large, small)
        first = large * small
        if order < 2:
            return mean, first
        difference = large - small
        second = first * np.where(positive, -difference, difference)
        return (mean, first, second) if order == 2 else (mean, first, second, first * (1.0 - 6.0 * first))


class Probit(ProbabilityLink):
    name = "probit"
    tail = 10.0
    latent_variance = 1.0
    # Its inverse is entire, and grows like the density falls.
    strip = 3.0
    entire = True

    def averaged(self, eta: FloatArray, v: FloatArray, order: int) -> tuple[FloatArray, ...]:
        return averages.probit(eta, v)

    def tails(self, eta: FloatArray) -> tuple[Derivatives, Derivatives]:
        return _normal_tail(eta), _mirror(_normal_tail(-eta))

    def lower_tail(self, eta: FloatArray) -> Derivatives:
        return _normal_tail(eta)

    def eta(self, mu: FloatArray) -> FloatArray:
        return ndtri(mu)


def _normal_tail(eta: FloatArray) -> Derivatives:
    h, delta, epsilon = _normal_ratio(eta)
    curve = h * delta
    return log_ndtr(eta), h, -curve, curve * (2.0 * delta - epsilon)


def _normal_ratio(eta: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """h = phi/Phi, delta = h + eta and epsilon = 1/delta + eta, without cancellation.

    With x = -eta, h = x + 1/(x + 2/(x + 3/(x + ...))): delta and epsilon are the tails of that fraction.
    """
    middle = np.maximum(eta, _NORMAL_TAIL)
    h = np.exp(-0.5 * middle * middle) / (_SQRT_2PI * ndtr(middle))
    delta = h + middle
    epsilon = 1.0 / delta + middle
    tail = eta < _NORMAL_TAIL
    if tail.any():
        x = -eta[tail]
        rest = x
        for k in range(40, 2, -1):
            rest = x + k / rest
        epsilon[tail] = 2.0 / rest
        delta[tail] = 1.0 / (x + epsilon[tail])
        h[tail] = x + delta[tail]
    return h, delta, epsilon


class Cauchit(ProbabilityLink):
    name = "cauchit"
    strip = 1.0
    heavy_tail = True
    log_concave = False
    # These tails fall like 1 / eta; further out the rest of the predictor would lose its digits.
    tail = 1e7

    def tails(self, eta: FloatArray) -> tuple[Derivatives, Derivatives]:
        return _cauchy_tail(eta), _mirror(_cauchy_tail(-eta))

    def lower_tail(self, eta: FloatArray) -> Derivatives:
        return _cauchy_tail(eta)

    def eta(self, mu: FloatArray) -> FloatArray:
        result: FloatArray = np.tan(np.pi * (mu - 0.5))
        return result


def _cauchy_tail(eta: FloatArray) -> Derivatives:
    F = np.arctan2(1.0, -eta) / np.pi
    S = np.arctan2(1.0, eta) / np.pi
    q = 1.0 / (1.0 + eta * eta)
    h = q / (np.pi * F)
    # log f has the derivatives k and d_k; h' = h (k - h).
    k = -2.0 * eta * q
    d_k = 2.0 * q * (eta * eta - 1.0) * q
    second = h * (k - h)
    value = np.where(eta > 0, np.log1p(-S), np.log(F))
    return value, h, second, second * (k - h) + h * (d_k - second)


class Cloglog(ProbabilityLink):
    name = "cloglog"
    latent_variance = np.pi**2 / 6.0
    strip = 0.5 * np.pi
    entire = True

    def tails(self, eta: FloatArray) -> tuple[Derivatives, Derivatives]:
        return _gumbel_tail(eta), _gumbel_survival(eta)

    def eta(self, mu: FloatArray) -> FloatArray:
        result: FloatArray = np.log(-np.log1p(-mu))
        return result


class Loglog(ProbabilityLink):
    """F = exp(-exp(-eta)): the cloglog link of failures, with eta reversed."""

    name = "loglog"
    latent_variance = np.pi**2 / 6.0
    strip = 0.5 * np.pi
    entire = True

    def tails(self, eta: FloatArray) -> tuple[Derivatives, Derivatives]:
        return _mirror(_gumbel_survival(-eta)), _mirror(_gumbel_tail(-eta))

    def eta(self, mu: FloatArray) -> FloatArray:
        result: FloatArray = -np.log(-np.log(mu))
        return result


def _gumbel_survival(eta: FloatArray) -> Derivatives:
    """log(1 - F) = -exp(eta), and so are all its derivatives."""
    value = -np.exp(eta)
    return value, value, value, value


def _gumbel_tail(eta: FloatArray) -> Derivatives:
    """log F for F = 1 - exp(-t), t = exp(eta)."""
    # At t = 700 log F and its derivatives are below 1e-295: a larger t changes nothing that matters.
    t = np.exp(np.minimum(eta, 6.55))
    tiny = eta < -30.0
    positive = np.where(tiny, 1.0, t)
    r = np.where(tiny, 1.0 - 0.5 * t, positive / np.expm1(positive))
    # The series (Bernoulli numbers) where 1 - t - r would lose its digits.
    series = -t / 2 - t**2 / 12 + t**4 / 720 - t**6 / 30240 + t**8 / 1209600
    s = np.where(t < 0.1, series, 1.0 - t - r)
    value = np.where(tiny, eta - 0.5 * t, np.log(-np.expm1(-positive)))
    return value, r, r * s, r * (s * s - t - r * s)


class LogProbability(ProbabilityLink):
    """mu = exp(eta), eta < 0 (relative risks)."""

    name = "log"
    high = -_EDGE
    strip = 0.5 * np.pi
    entire = True
    is_log = True

    def averaged(self, eta: FloatArray, v: FloatArray, order: int) -> tuple[FloatArray, ...]:
        return averages.log(eta, v)

    def tails(self, eta: FloatArray) -> tuple[Derivatives, Derivatives]:
        zero = np.zeros_like(eta)
        g = 1.0 / np.expm1(-eta)
        d_g = g * (1.0 + g)
        return (eta, zero + 1.0, zero, zero), (np.log(-np.expm1(eta)), -g, -d_g, -d_g * (1.0 + 2.0 * g))

    def eta(self, mu: FloatArray) -> FloatArray:
        result: FloatArray = np.log(mu)
        return result


class IdentityProbability(ProbabilityLink):
    """mu = eta, 0 < eta < 1 (risk differences)."""

    name = "identity"
    low = _EDGE
    high = 1.0
    has_unit = True
    strip = 0.5 * np.pi
    entire = True

    @property
    def is_identity(self) -> bool:
        return True

    def averaged(self, eta: FloatArray, v: FloatArray, order: int) -> tuple[FloatArray, ...]:
        return averages.identity(eta, v)

    def tails(self, eta: FloatArray) -> tuple[Derivatives, Derivatives]:
        p, q = 1.0 / eta, 1.0 / (1.0 - eta)
        return (np.log(eta), p, -p * p, 2.0 * p**3), (np.log1p(-eta), -q, -q * q, -2.0 * q**3)

    def eta(self, mu: FloatArray) -> FloatArray:
        return mu


PROBABILITY_LINKS: Final[dict[str, ProbabilityLink]] = {
    link.name: link
    for link in (Logit(), Probit(), Cloglog(), Loglog(), Cauchit(), LogProbability(), IdentityProbability())
}


# --- means


class MeanLink(Link):
    """A link from eta to a mean on the line or the half-line."""

    @property
    def inner(self) -> float:
        return 1.0

    @abstractmethod
    def log_mean(self, eta: FloatArray) -> Derivatives:
        """L = log mu with three derivatives, each of the shape of eta."""


@dataclass(frozen=True)
class LogMean(MeanLink):
    """mu = exp(eta)."""

    name: str = "log"
    low: float = -np.inf
    high: float = np.inf
    has_unit = False
    ratio = "rate_ratio"
    strip = 0.5 * np.pi
    entire = True
    is_log = True

    @property
    def extremes(self) -> tuple[float, float]:
        return 0.0, np.inf

    def derivatives(self, eta: FloatArray) -> Derivatives:
        mu = np.exp(eta)
        return mu, mu, mu, mu

    def log_mean(self, eta: FloatArray) -> Derivatives:
        zero = np.zeros_like(eta)
        return eta, zero + 1.0, zero, zero

    def averaged(self, eta: FloatArray, v: FloatArray, order: int) -> tuple[FloatArray, ...]:
        return averages.log(eta, v)

    def eta(self, mu: FloatArray) -> FloatArray:
        result: FloatArray = np.log(mu)
        return result


@dataclass(frozen=True)
class PowerMean(MeanLink):
    """mu = eta^power: identity (1), sqrt (2), inverse (-1), 1/mu^2 (-1/2).

    Attributes
    ----------
    name : str
    power : float
    low : float
        Next to 0 for a distribution with a positive mean, -inf for the gaussian.
    """

    name: str
    power: float
    low: float = _EDGE
    high: float = np.inf
    strip = 0.5 * np.pi

    @property
    def entire(self) -> bool:  # type: ignore[override]
        return self.power > 0.0

    @property
    def is_identity(self) -> bool:
        return self.power == 1.0

    @property
    def turn(self) -> float | None:
        """Even powers on both sides of zero turn there."""
        return 0.0 if self.power == 2.0 and self.low < 0.0 else None

    def _beyond(self, eta: FloatArray) -> FloatArray:
        """A range ends at zero, where the mean is 0 or infinite."""
        return np.full(eta.shape, np.inf if self.power < 0.0 else 0.0)

    def averaged(self, eta: FloatArray, v: FloatArray, order: int) -> tuple[FloatArray, ...] | None:
        if self.power == 1.0:
            return averages.identity(eta, v)
        if self.power == 2.0:
            return averages.square(eta, v)
        return averages.power(self.name, self.power, eta, v, order) if self.power in (-1.0, -0.5) else None

    @property
    def extremes(self) -> tuple[float, float]:
        far = np.inf if self.power > 0.0 else 0.0
        if self.low > -np.inf:
            return (0.0 if far else np.inf), far
        return (-far if far else far), far

    @property
    def has_pole(self) -> bool:
        """A power other than 1 on both sides of zero."""
        return self.power != 1.0 and self.low < 0

    def valid(self, eta: FloatArray) -> BoolArray:
        """True where `eta` is finite, inside the range, and not at the pole of a negative power."""
        inside = super().valid(eta)
        return inside & (np.abs(eta) > _EDGE) if self.has_pole else inside

    def derivatives(self, eta: FloatArray) -> Derivatives:
        p = self.power
        if p == 1.0:
            zero = np.zeros_like(eta)
            return eta, zero + 1.0, zero, zero
        mu = eta**p
        d1 = p * mu / eta
        d2 = (p - 1.0) * d1 / eta
        return mu, d1, d2, (p - 2.0) * d2 / eta

    def log_mean(self, eta: FloatArray) -> Derivatives:
        q = 1.0 / eta
        d1 = self.power * q
        return self.power * np.log(np.abs(eta)), d1, -d1 * q, 2.0 * d1 * q * q

    def eta(self, mu: FloatArray) -> FloatArray:
        return mu if self.power == 1.0 else mu ** (1.0 / self.power)
