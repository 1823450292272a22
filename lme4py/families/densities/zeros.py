"""Zeros of their own: zero-inflated and hurdle versions of other families.

Both have one more predictor, z, the logit of a probability pi. In a zero-inflated model a zero comes from pi *or*
from the counts; in a hurdle model zeros come from pi only, and what is not zero follows a family without zeros
(Lambert 1992, *Technometrics* 34:1; Mullahy 1986, *J. Econometrics* 33:341).
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import special

from lme4py.chunks import from_size
from lme4py.errors import OptionError
from lme4py.families.densities.base import Density, DensityArgument, End, Kind, Values, at
from lme4py.families.densities.calculus.jets import Degrees, DensityJet, Index, Part, compose2, degrees_of
from lme4py.families.densities.calculus.special import sigmoid, sigmoid_softplus, softplus
from lme4py.families.response import ResponseData
from lme4py.frozen import computed_once
from lme4py.linalg.types import BoolArray, FloatArray

__all__ = ["ZERO_INFLATION", "Hurdle", "ZeroInflated"]

ZERO_INFLATION: Final = "zero_inflation"
# Sums of probabilities below this have lost digits.
_TINY: Final = 1e-290
# Up to so many rows functions of the logit of pi are kept.
_FEW: Final = from_size(2000)
# The value and the derivatives in the logit of pi.
_IN_LOGIT: Final[tuple[Index, ...]] = ((), (1,), (1, 1), (1, 1, 1))


@dataclass(frozen=True, init=False)
class _WithZeros(Density):
    """A family with a second predictor, after the conditional one."""

    base: Density
    has_zeros = True

    def __init__(self, base: Density) -> None:
        object.__setattr__(self, "link", base.link)
        object.__setattr__(self, "base", base)

    @property
    def kind(self) -> Kind:
        return self.base.kind

    @property
    def default_link(self) -> str:
        return self.base.default_link

    @property
    def links(self) -> tuple[str, ...]:
        return self.base.links

    @property
    def dispersion_means(self) -> str:
        return self.base.dispersion_means

    @property
    def takes_points(self) -> bool:
        return self.base.takes_points

    @property
    def ratio(self) -> str | None:
        return self.base.ratio

    @property
    def weights_multiply(self) -> bool:
        return self.base.weights_multiply

    @property
    def sources(self) -> str:
        return self.base.sources

    @property
    def limits(self) -> tuple[End, ...]:
        return (*self.base.limits, End(ZERO_INFLATION, -1, self.without, simpler=True))

    @property
    @abstractmethod
    def without(self) -> str:
        """The model at pi = 0."""

    @computed_once
    def variables(self) -> tuple[DensityArgument, ...]:
        first, *rest = self.base.variables
        return (first, DensityArgument(ZERO_INFLATION, "pi", "logit"), *rest)

    @property
    def always(self) -> tuple[str, ...]:
        return (*self.base.always, ZERO_INFLATION)

    def _base(self, x: Values) -> list[FloatArray]:
        return [x[0], *x[2:]]

    def _base_degrees(self, degrees: Degrees) -> tuple[Degrees, dict[int, int]]:
        """Degrees in the variables of the base, and where these are among our own."""
        names = self._names
        active, nuisance = (
            tuple(base for base, ours in names.items() if ours in of) for of in (degrees.active, degrees.nuisance)
        )
        base = degrees_of(degrees.total, active, nuisance, degrees.nuisance_total, degrees.nuisance_third)
        return base, names

    @computed_once
    def _names(self) -> dict[int, int]:
        """Where the variables of the base are among our own."""
        return {0: 0, **{i: i + 1 for i in range(1, len(self.base.variables))}}

    def _shape(self, data: ResponseData, x: Values) -> tuple[int, ...]:
        return np.broadcast(data.y, *x).shape

    def valid(self, x: Values) -> BoolArray:
        inside: BoolArray = self.base.valid(self._base(x)) & np.isfinite(x[1])
        return inside

    def inner(self) -> float:
        return self.base.inner()

    def trouble(self, data: ResponseData, x: Values) -> str:
        return self.base.trouble(data, self._base(x))

    def outside(self, data: ResponseData) -> BoolArray:
        positive = data.y != 0.0
        bad: BoolArray = np.zeros(data.n_obs, dtype=np.bool_)
        bad[positive] = self.base.outside(data.take(positive))
        return bad

    def _probability(self, x: Values) -> tuple[FloatArray, FloatArray]:
        """pi and 1 - pi."""
        return sigmoid(np.asarray(x[1]))

    def mean(self, x: Values, data: ResponseData | None = None) -> FloatArray:
        """E(y), zeros included."""
        return self._probability(x)[1] * self.base.mean(self._base(x), data)

    def mean_jet(self, x: Values, degrees: Degrees, data: ResponseData | None = None) -> DensityJet:
        base_degrees, names = self._base_degrees(degrees)
        p, rest = self._probability(x)
        v = p * rest
        chain = (rest, -v, v * (p - rest), -v * (1.0 - 6.0 * v))
        left = DensityJet.kept(degrees, {(1,) * k: part for k, part in enumerate(chain)})
        return self.base.mean_jet(self._base(x), base_degrees, data).shifted(names, degrees) * left

    @property
    def conditional(self) -> Density:
        return self.base.conditional

    def variance(self, x: Values, data: ResponseData | None = None) -> FloatArray:
        """Var(y), zeros included: (1 - pi) (V + pi m^2), m and V those of the rest."""
        pi, rest = self._probability(x)
        m = self.base.mean(self._base(x), data)
        if self.base.kind == "trials" and data is not None:
            m = m * data.n_trials
        return rest * (self.base.variance(self._base(x), data) + pi * m * m)

    def cdf(self, y: FloatArray, x: Values, data: ResponseData) -> FloatArray:
        pi, rest = self._probability(x)
        return np.where(np.asarray(y) < 0.0, 0.0, pi + rest * self.base.cdf(y, self._base(x), data))

    def sf(self, y: FloatArray, x: Values, data: ResponseData) -> FloatArray:
        rest = self._probability(x)[1]
        return np.where(np.asarray(y) < 0.0, 1.0, rest * self.base.sf(y, self._base(x), data))

    def quantile(self, p: FloatArray, x: Values, data: ResponseData) -> FloatArray:
        pi, rest = self._probability(x)
        zero = self.zero_probability(x, data)
        inside = np.clip((np.asarray(p) - pi) / np.maximum(rest, 1e-300), 0.0, 1.0)
        positive = self.base.quantile(inside, self._base(x), data)
        return np.where(np.asarray(p) <= zero * (1.0 + 1e-14), 0.0, positive)

    def simulate(self, x: Values, data: ResponseData, rng: np.random.Generator) -> FloatArray:
        y = self.base.simulate(self._base(x), data, rng)
        return np.where(rng.random(data.n_obs) < self._probability(x)[0], 0.0, y)


def _loglogistic(z: FloatArray, sign: float, slopes: bool = True) -> list[FloatArray]:
    """log F(sign z) of the logistic distribution, and its three derivatives in z where they are wanted."""
    if not slopes:
        return [-softplus(-sign * z)]
    q, p, length = sigmoid_softplus(-sign * z)
    v = p * q
    return [-length, sign * q, -v, sign * v * (p - q)]


def _of_logit(
    data: ResponseData, z: FloatArray, slopes: bool
) -> tuple[list[FloatArray], FloatArray, tuple[FloatArray, FloatArray]]:
    """log(1 - pi) of rows that are not zero, with three derivatives in z where they are wanted; z and pi of the others.

    Of few rows they are kept: where modes are sought, z stays as it is.
    """

    def made(slopes: bool) -> tuple[list[FloatArray], FloatArray, tuple[FloatArray, FloatArray]]:
        zero = at([z], data.zeros)[0]
        return _loglogistic(at([z], data.positive[0])[0], -1.0, slopes), zero, sigmoid(zero)

    if z.ndim != 1 or z.size > _FEW:
        return made(slopes)
    kept: tuple[list[FloatArray], FloatArray, tuple[FloatArray, FloatArray]] = data.remember_last(
        "logit", z.tobytes(), lambda: made(True)
    )
    return kept


class ZeroInflated(_WithZeros):
    """y is 0 with probability pi, and from the base family otherwise.

    For a zero with f = log P(0) of the base: l = log(pi + (1 - pi) e^f), and with w = F(z - f), the probability that
    it is one of the zeros of pi, dl/dz = w (1 - pi) (1 - e^f), dl/df = 1 - w.
    """

    def __init__(self, base: Density) -> None:
        if not base.has_zeros or getattr(base, "lowest", 0) > 0:
            raise OptionError(f"the {base.name} family has no zeros to inflate; with a ziformula it is a hurdle model.")
        super().__init__(base)

    without = "no excess zeros"

    @property
    def name(self) -> str:
        return f"zero_inflated_{self.base.name}"

    @property
    def support(self) -> str:
        return self.base.support

    def zero_probability(self, x: Values, data: ResponseData) -> FloatArray:
        pi, rest = self._probability(x)
        return pi + rest * self.base.zero_probability(self._base(x), data)

    def jet(self, data: ResponseData, x: Values, degrees: Degrees) -> DensityJet:
        base_degrees, names = self._base_degrees(degrees)
        (rows, some), (zero_rows, zeros) = data.positive, data.zero_rows
        own = self._base(x)
        above, z, sides = _of_logit(data, np.asarray(x[1]), degrees.keeps((1,)))
        inner = self.base.jet(some, at(own, rows), base_degrees).shifted(names, degrees).parts
        indices = degrees.indices()
        others = {index: inner.get(index, 0.0) for index in indices}
        for index, part in zip(_IN_LOGIT, above, strict=False):
            if index in others:
                others[index] = others[index] + part
        if not zero_rows.size:
            return DensityJet(others, degrees)
        f = self.base.zero_jet(zeros, at(own, zero_rows), base_degrees).shifted(names, degrees)
        mixed = _mixed(f, z, sides).parts
        sorted_rows = np.empty((len(indices), *self._shape(data, x)))
        first, last = sorted_rows[..., : rows.size], sorted_rows[..., rows.size :]
        for i, index in enumerate(indices):
            first[i] = others[index]
            last[i] = mixed.get(index, 0.0)
        return DensityJet(dict(zip(indices, sorted_rows.take(data.from_zeros_last, axis=-1), strict=True)), degrees)

    def start_eta(self, data: ResponseData) -> FloatArray:
        """Zeros may be of either kind: they start at a small mean beside that of the others."""
        return self.base.start_eta(data)

    def start_rest(self, data: ResponseData, eta: FloatArray) -> tuple[float, ...]:
        """pi from the zeros that a Poisson or binomial model of the positive responses leaves over."""
        return (data.remember("excess zeros", lambda: _excess(data)), *self.base.start_rest(data, eta))


def _mixed(f: DensityJet, z: FloatArray, sides: tuple[FloatArray, FloatArray]) -> DensityJet:
    """log(pi + (1 - pi) e^f); `sides` are pi and 1 - pi."""
    p0 = np.minimum(f.value, 0.0)
    pi, rest = sides
    positive = -np.expm1(p0)
    # log1p((1 - pi) (e^f - 1)) keeps a log-likelihood near zero, the sum one far from it, softplus one at its end.
    near = rest * positive
    far = near >= 0.5
    value = np.asarray(np.log1p(-np.minimum(near, 0.5)))
    if np.count_nonzero(far):
        sums = pi + rest * np.exp(p0)
        value = np.where(far, np.log(sums), value)
        if sums.min() < _TINY:
            value = np.where(sums < _TINY, softplus(p0 - z) - softplus(-z), value)
    outer: dict[Index, Part] = {(): value}
    if f.degrees.total:
        w, miss = sigmoid(z - p0)
        v = w * miss
        outer |= {(0,): miss, (0, 0): v}
        third = v * (miss - w) if f.degrees.total > 2 else 0.0
        outer[0, 0, 0] = -third
        if f.degrees.keeps((1,)):
            # w - pi without cancellation as P(0) goes to 1.
            more = w * near
            in_z = more * (1.0 - w - pi)
            outer |= {(1,): more, (0, 1): -v, (1, 1): in_z, (0, 0, 1): third, (0, 1, 1): outer[0, 0, 0]}
            if f.degrees.keeps((1, 1, 1)):
                outer[1, 1, 1] = in_z * (1.0 - w - pi) - more * (v + pi * rest)
    return compose2(outer, f, DensityJet.kept(f.degrees, {(): z, (1,): 1.0}))


def _excess(data: ResponseData) -> float:
    """logit of the share of zeros beyond those of a zero-truncated Poisson fit of the positive counts."""
    share = float(np.mean(data.y == 0.0))
    positive = data.y[data.y > 0.0]
    mean = float(np.mean(positive)) if positive.size else 1.0
    # mean = mu / (1 - e^-mu), by fixed point; a mean of one is that of mu = 0.
    mu = mean
    for _ in range(50):
        mu = mean * -float(np.expm1(-mu))
    counted = float(np.exp(-mu))
    return float(special.logit(np.clip((share - counted) / max(1.0 - counted, 1e-8), 0.02, 0.98)))


class Hurdle(_WithZeros):
    """y is 0 with probability pi, and from a family without zeros otherwise: two models side by side."""

    def __init__(self, base: Density) -> None:
        if base.kind == "real":
            raise OptionError(
                f"the {base.name} family is one of any numbers; a ziformula belongs to counts, proportions and amounts."
            )
        if base.has_zeros and getattr(base, "lowest", 0) == 0:
            raise OptionError(f"the {base.name} family has zeros of its own; a hurdle model needs its truncated one.")
        super().__init__(base)

    without = "no zeros"
    is_hurdle = True

    @property
    def log_concave(self) -> bool:
        """As the rest: what says whether a response is zero is logistic, and side by side with it."""
        return self.base.log_concave

    @property
    def name(self) -> str:
        return f"hurdle_{self.base.name}"

    @property
    def support(self) -> str:
        return f"0, or {self.base.support}"

    advice = "correct or remove these rows"

    def zero_probability(self, x: Values, data: ResponseData) -> FloatArray:
        return self._probability(x)[0] + np.zeros(self._shape(data, x))

    def jet(self, data: ResponseData, x: Values, degrees: Degrees) -> DensityJet:
        base_degrees, names = self._base_degrees(degrees)
        shape = self._shape(data, x)
        rows, some = data.positive
        inner = self.base.jet(some, at(self._base(x), rows), base_degrees).shifted(names, degrees)
        z = np.asarray(x[1])
        slopes = degrees.keeps((1,))
        above, below = _loglogistic(z, -1.0, slopes), _loglogistic(z, 1.0, slopes)
        zero = data.y == 0.0
        parts: dict[Index, Part] = {}
        for index in degrees.indices():
            part = np.zeros(shape)
            part[..., rows] = inner.parts.get(index, 0.0)
            if set(index) <= {1}:
                part += np.where(zero, below[len(index)], above[len(index)])
            parts[index] = part
        return DensityJet(parts, degrees)

    def start_eta(self, data: ResponseData) -> FloatArray:
        rows, some = data.positive
        eta = np.zeros(data.n_obs)
        if rows.size:
            eta[rows] = self.base.start_eta(some)
            eta[data.zeros] = float(np.mean(eta[rows]))
        return eta

    def start_rest(self, data: ResponseData, eta: FloatArray) -> tuple[float, ...]:
        rows, some = data.positive
        share = float(np.clip(np.mean(data.y == 0.0), 0.5 / (data.n_obs + 1.0), 1.0 - 0.5 / (data.n_obs + 1.0)))
        return (float(special.logit(share)), *self.base.start_rest(some, eta[rows]))
