"""Correlations that fall with the distance between points of one, two or more dimensions, and in continuous time.

With x = distance / range: exp(-x) for exp, ou and car1 (one dimension, where the process is Markov), exp(-x^2) for gau,
1 - 1.5 x + .5 x^3 below x = 1 for sph, and Matern's for mat. The inverse range is t^2 / unit (|t| / unit for gau),
where the unit is a typical distance of the positions: an infinite range, the correlation 1 of all points, lies at
t = 0, about which R is even. A nugget is the share sin(w)^2 of the variance that no two points have in common.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from lme4py.covariance.chain import SharedSteps, neighbour_turns
from lme4py.covariance.jets import Jet
from lme4py.covariance.kinds.correlation import Correlation
from lme4py.covariance.natural import NaturalParameter
from lme4py.covariance.spaces import refuse_large_basis
from lme4py.covariance.steps import Steps
from lme4py.errors import DesignError, OptionError
from lme4py.frozen import computed_once
from lme4py.linalg.types import FloatArray, IntArray

__all__ = [
    "ContinuousChain",
    "Decay",
    "ExponentialDecay",
    "GaussianDecay",
    "OneApartChain",
    "SphericalDecay",
    "checked_positions",
    "distances",
    "typical_distance",
]

# Of more points than this a typical distance is taken from so many of them.
_SAMPLE = 500
# Correlations of all points below this leave the range without a meaning.
_NONE = 1e-8
# And where one of the farthest is above this, the range is too long to be told from a longer one.
_ALL = 0.999


def distances(points: FloatArray, dimensions: int) -> FloatArray:
    """Euclidean distances between points, (..., p, p).

    Parameters
    ----------
    points : ndarray, shape (..., p, d), or (..., p) in one dimension
    dimensions : int
        d.

    Examples
    --------
    >>> distances(np.array([[0.0, 0.0], [3.0, 4.0]]), 2)
    array([[0., 5.],
           [5., 0.]])
    """
    if dimensions == 1:
        return np.asarray(np.abs(points[..., :, None] - points[..., None, :]))
    apart = points[..., :, None, :] - points[..., None, :, :]
    return np.asarray(np.sqrt(np.einsum("...ijd,...ijd->...ij", apart, apart)))


def typical_distance(positions: FloatArray) -> float:
    """Between that of nearest neighbours and that of any two points: the geometric mean of both medians.

    Parameters
    ----------
    positions : ndarray, shape (k,) or (k, d)

    Examples
    --------
    >>> round(typical_distance(np.array([0.0, 1.0, 2.0, 3.0])) ** 2, 12)
    1.5
    """
    # Not needed by most models, and slow to import.
    from scipy.spatial import cKDTree

    points = positions.reshape(len(positions), -1)
    nearest = np.asarray(cKDTree(points).query(points, k=2)[0])[:, 1]
    some = points[:: -(-len(points) // _SAMPLE)]
    rows, columns = np.triu_indices(len(some), 1)
    return float(np.sqrt(np.median(nearest) * np.median(np.linalg.norm(some[rows] - some[columns], axis=1))))


def checked_positions(positions: FloatArray | None, size: int, what: str) -> FloatArray:
    """Coordinates of the columns, (k, d), or (k,) in one dimension.

    Raises
    ------
    DesignError
        There are none, or they are missing or repeated.
    """
    if positions is None:
        raise DesignError(f"{what} needs the times or coordinates of its columns.")
    places = np.asarray(positions, dtype=float)
    places = places[:, 0] if places.ndim == 2 and places.shape[1] == 1 else places
    bad = int((~np.isfinite(places)).reshape(size, -1).any(axis=1).sum())
    if bad:
        raise DesignError(f"the coordinates of {bad} of the {size} points of {what} are missing or infinite.")
    distinct = len(np.unique(places, axis=0))
    if distinct < size:
        raise DesignError(f"{what} has {size} columns at {distinct} different points; there must be one for each.")
    return places


@dataclass(frozen=True, eq=False)
class Decay(Correlation):
    """A function of the distance; phi are the root of the inverse range, those of the shape, and the nugget's angle.

    Parameters
    ----------
    size, positions
        As in `Correlation`.
    unit : float
        The range at t = 1.
    nugget : bool
        Whether there is one.
    """

    unit: float = 1.0
    nugget: bool = False

    # The inverse range is |t|^power / unit.
    power: ClassVar[int] = 2
    most_dimensions: ClassVar[int | None] = None
    shape_names: ClassVar[tuple[str, ...]] = ()
    # Where a search starts, and how close the roots are that are compared before it, in powers of 2.
    first_root: ClassVar[float] = 1.0
    grid_step: ClassVar[float] = 0.5

    def key(self) -> tuple[Any, ...]:
        return self.unit, self.nugget

    @property
    def phi_names(self) -> tuple[str, ...]:
        return ("root of the inverse range", *self.shape_names, *(("nugget angle",) * self.nugget))

    @property
    def n_shape(self) -> int:
        """Number of phi without the nugget."""
        return 1 + len(self.shape_names)

    def initial(self) -> FloatArray:
        return np.array([self.first_root] + [0.0] * len(self.shape_names) + [0.5] * self.nugget)

    # --- R ----------------------------------------------------------------------------------------------------------

    @abstractmethod
    def profile(self, phi: FloatArray, x: FloatArray, order: int) -> Jet:
        """The correlation as a function of x = t^2 ratio and of the parameters of the shape, in this order.

        What is cheap may have derivatives of a higher order than asked for.

        The ratio is the distance over the unit, squared for power 1.
        """

    @property
    def dimensions(self) -> int:
        """Of the positions."""
        return 1 if self.positions is None or self.positions.ndim == 1 else int(self.positions.shape[1])

    def _ratios(self, points: FloatArray) -> FloatArray:
        apart = distances(points, self.dimensions) / self.unit
        return apart if self.power == 2 else apart**2

    @computed_once
    def ratios(self) -> FloatArray:
        """Of the columns, (k, k)."""
        return self._ratios(self.places)

    @computed_once
    def _nearest(self) -> float:
        """The least ratio of two columns."""
        if self.dimensions == 1:
            apart = float(np.diff(np.sort(self.places)).min()) / self.unit
        else:
            # Not needed by most models, and slow to import.
            from scipy.spatial import cKDTree

            apart = float(np.asarray(cKDTree(self.places).query(self.places, k=2)[0])[:, 1].min()) / self.unit
        return self._ratio(apart)

    @computed_once
    def _farthest(self) -> float:
        """No two columns have a larger ratio: that of the diagonal of the box around all places."""
        return self._ratio(float(np.linalg.norm(np.ptp(self.places, axis=0))) / self.unit)

    def _ratio(self, apart: float) -> float:
        return apart if self.power == 2 else apart**2

    def derivatives(self, phi: FloatArray, points: FloatArray | None = None, order: int = 2) -> Jet:
        ratio = self.ratios if points is None else self._ratios(points)
        found = self._correlations(phi, ratio, order)
        if not self.nugget:
            return found
        # A point has the correlation 1 with itself.
        own = np.eye(ratio.shape[-1])
        apart = 1.0 - own
        return Jet(own + apart * found.value, apart * found.first, apart * found.second)

    def at_pairs(self, phi: FloatArray, i: IntArray, j: IntArray, order: int) -> Jet:
        return self._correlations(phi, self.ratios[i, j], order)

    def _correlations(self, phi: FloatArray, ratio: FloatArray, order: int) -> Jet:
        """Of different points."""
        profile = self.profile(phi[: self.n_shape], phi[0] ** 2 * ratio, order)
        found = self._along_root(float(phi[0]), ratio, Jet.of(profile.value, profile.first, profile.second, order))
        return _less_nugget(float(phi[-1]), found) if self.nugget else found

    @staticmethod
    def _along_root(t: float, ratio: FloatArray, f: Jet) -> Jet:
        """The profile as a function of t instead of x = t^2 ratio."""
        slope, first, second = 2.0 * t * ratio, f.first.copy(), f.second.copy()
        first[:1] *= slope
        second[:1] *= slope
        second[:, :1] *= slope
        second[:1, :1] += 2.0 * ratio * f.first[:1]
        return Jet(f.value, first, second)

    # --- phi --------------------------------------------------------------------------------------------------------

    def grid(self) -> Iterator[FloatArray]:
        for t in (0.0, *2.0 ** np.arange(-4.0, 4.0, self.grid_step)):
            for shape in self._grid_of_shapes():
                yield np.array([t, *shape, *((0.3,) * self.nugget)])

    def _grid_of_shapes(self) -> Iterator[tuple[float, ...]]:
        yield ()

    def canonical(self, phi: FloatArray) -> FloatArray:
        out = phi.copy()
        out[0] = np.abs(phi[0])
        if self.nugget:
            out[-1] = np.arctan2(np.abs(np.sin(phi[-1])), np.abs(np.cos(phi[-1])))
        return out

    def edges(self, phi: FloatArray) -> FloatArray:
        out = np.full(self.n_phi, np.nan)
        out[0] = 0.0
        if self.nugget:
            out[-1] = np.round(phi[-1] / (0.5 * np.pi)) * 0.5 * np.pi
        return out

    def edge_sizes(self, phi: FloatArray) -> FloatArray:
        out = np.full(self.n_phi, np.inf)
        out[0] = np.abs(phi[0])
        if self.nugget:
            out[-1] = min(abs(np.sin(phi[-1])), abs(np.cos(phi[-1])))
        return out

    def as_start(self, phi: FloatArray) -> FloatArray:
        out = self.canonical(phi)
        # Neither a range so long that all is alike, nor so short that there is no correlation.
        out[0] = np.clip(out[0], 0.2 * self.first_root, 2.0 * self.first_root)
        # A smoothness of 1/3 to 3, and a share of 1 to 92 per cent.
        out[1 : self.n_shape] = np.clip(out[1 : self.n_shape], -1.1, 1.1)
        if self.nugget:
            out[-1] = np.clip(out[-1], 0.1, 1.3)
        return out

    def boundary(self, phi: FloatArray, label: str, columns: Sequence[str], least: float) -> tuple[str, ...]:
        if abs(phi[0]) >= least:
            return ()
        what = "correlated alike" if self.nugget else "equal"
        return (f"the range of {label} is infinite: all effects of a level are {what}",)

    def limits(self, phi: FloatArray, label: str) -> tuple[str, ...]:
        out = []
        nearest, farthest = self.profile(
            phi[: self.n_shape], phi[0] ** 2 * np.array([self._nearest, self._farthest]), 0
        ).value
        if nearest < _NONE:
            out.append(
                f"the range of {label} is far shorter than the distances: there is no correlation to estimate it from"
            )
        if farthest > _ALL:
            out.append(
                f"the range of {label} is far longer than the distances (no correlation is below {farthest:.6f}): it "
                "hardly matters how long, and the variance can grow with it"
            )
        if self.nugget and self.edge_sizes(phi)[-1] < 1e-4:
            out.append(f"the nugget of {label} is {'zero' if abs(np.sin(phi[-1])) < 0.5 else 'all of its variance'}")
        return tuple(out)

    # --- natural parameters -----------------------------------------------------------------------------------------

    @property
    def natural_parameters(self) -> tuple[NaturalParameter, ...]:
        nugget = (NaturalParameter("nugget", "nugget", (), 0.0, 1.0),) * self.nugget
        return (NaturalParameter("range", "range", (), 0.0, np.inf), *self._shape_parameters(), *nugget)

    def _shape_parameters(self) -> tuple[NaturalParameter, ...]:
        return ()

    def natural(self, phi: FloatArray, order: int) -> Jet:
        n = self.n_phi
        value, first, second = np.zeros(n), np.zeros((n, n)), np.zeros((n, n, n))
        t, p = float(phi[0]), self.power
        with np.errstate(divide="ignore", over="ignore"):
            value[0] = self.unit * np.abs(np.divide(1.0, t)) ** p
            first[0, 0] = -p * value[0] * np.divide(1.0, t)
            second[0, 0, 0] = p * (p + 1) * value[0] * np.divide(1.0, t) ** 2
        for i in range(1, self.n_shape):
            # Parameters of the shape are logarithms.
            value[i] = first[i, i] = second[i, i, i] = np.exp(phi[i])
        if self.nugget:
            w = phi[-1]
            value[-1], first[-1, -1], second[-1, -1, -1] = np.sin(w) ** 2, np.sin(2.0 * w), 2.0 * np.cos(2.0 * w)
        return Jet.of(value, first, second, order)

    def of_natural(self, values: FloatArray) -> FloatArray:
        for parameter, value in zip(self.natural_parameters[: self.n_shape], values[: self.n_shape], strict=True):
            if value <= 0.0:
                raise OptionError(f"a {parameter.label} is {value:g}; it must be positive.")
        out = np.array(values, dtype=float)
        out[0] = (self.unit / values[0]) ** (1.0 / self.power)
        out[1 : self.n_shape] = np.log(values[1 : self.n_shape])
        if self.nugget:
            out[-1] = np.arcsin(np.sqrt(values[-1]))
        return out

    def span(self) -> FloatArray:
        """One matrix for each distance that occurs."""
        refuse_large_basis(self.size)
        different, place = np.unique(np.round(self.ratios, 12), return_inverse=True)
        alike: FloatArray = (place.reshape(self.ratios.shape) == np.arange(different.size)[:, None, None]).astype(float)
        return alike


def _less_nugget(w: float, found: Jet) -> Jet:
    """Correlations times cos(w)^2, w one more parameter."""
    if not found.first.shape[0]:
        return Jet.value_only(np.cos(w) ** 2 * found.value)
    n, order = found.first.shape[0] + 1, 2 if found.second.shape[0] else 1
    one = np.eye(n)[-1].reshape(n, *(1,) * found.value.ndim)
    value = np.full(found.value.shape, np.cos(w) ** 2)
    share = Jet.of(value, -np.sin(2.0 * w) * one, -2.0 * np.cos(2.0 * w) * one[:, None] * one, order)
    whole = Jet.constant(found.value, n, order)
    whole.first[:-1], whole.second[:-1, :-1] = found.first, found.second
    return whole * share


class ExponentialDecay(Decay):
    def profile(self, phi: FloatArray, x: FloatArray, order: int) -> Jet:
        value = np.exp(-x)
        return Jet(value, -value[None], value[None, None])

    @property
    def steps_in_time(self) -> bool:
        return self.power == ExponentialDecay.power and self.dimensions == 1 and not self.nugget

    def gap_steps(self, phi: FloatArray, gaps: FloatArray) -> Steps:
        t, g = float(phi[0]), gaps / self.unit
        x = np.asarray(t**2 * g)
        s = np.exp(-x)
        ds, d2s = -2.0 * t * g * s, (4.0 * t**2 * g - 2.0) * g * s
        # c^2 = 1 - s^2 = x e(x), c = t sqrt(g) h: analytic in t where e is in x.
        e, slope = _decay_over_x(x)
        h, root = np.sqrt(e), np.sqrt(g)
        dh = 0.5 * slope / h * 2.0 * t * g
        c, dc = t * root * h, 2.0 * root * s**2 / h
        return Steps(s, c, ds, dc, d2s, 2.0 * root * (2.0 * s * ds / h - s**2 * dh / e))


class GaussianDecay(ExponentialDecay):
    """exp(-(|t| distance / unit)^2): the exponential of the squared distance."""

    power: ClassVar[int] = 1


class SphericalDecay(Decay):
    most_dimensions: ClassVar[int | None] = 3
    # Beyond the range there is no correlation, and no slope that would lead back: steps must be short.
    first_root: ClassVar[float] = 0.5
    grid_step: ClassVar[float] = 0.05

    def profile(self, phi: FloatArray, x: FloatArray, order: int) -> Jet:
        near = np.minimum(x, 1.0)
        value = 1.0 - near * (1.5 - 0.5 * near**2)
        return Jet(value, (-1.5 * (1.0 - near**2))[None], np.where(x < 1.0, 3.0 * x, 0.0)[None, None])


class ContinuousChain(SharedSteps, ExponentialDecay):
    """exp(-distance / range) of times, which is a Markov chain."""

    def gap_steps(self, phi: FloatArray, gaps: FloatArray) -> Steps:
        return ExponentialDecay.gap_steps(self, phi, gaps)

    def of_rows(self, M: FloatArray) -> FloatArray:
        sine, cosine = neighbour_turns(M)
        known = ~np.isnan(sine)
        if not known.any():
            return self.initial()
        g = np.diff(self.places)[known] / self.unit
        # -log s, from the cosine where s is about 1, and bounded where s is not positive; weighted for the gaps.
        square = np.where(sine[known] > 0.0, np.minimum(cosine[known] ** 2, 1.0 - 1e-12), 1.0 - 1e-12)
        return np.array([np.sqrt((g @ (-0.5 * np.log1p(-square))) / (g @ g))])


def _decay_over_x(x: FloatArray) -> tuple[FloatArray, FloatArray]:
    """e(x) = (1 - exp(-2 x)) / x and its derivative, also at x = 0."""
    small = x < 0.25
    safe = np.where(small, 1.0, x)
    e = -np.expm1(-2.0 * safe) / safe
    slope = (2.0 * np.exp(-2.0 * safe) - e) / safe
    # Coefficients (-1)^n 2^(n+1) / (n+1)!: below 1e-17 from the 16th on.
    n = np.arange(16)
    terms = (-1.0) ** n * 2.0 ** (n + 1.0) / np.cumprod(n + 1.0)
    low = np.where(small, x, 0.0)
    series = np.polynomial.polynomial.polyval(low, terms)
    return np.where(small, series, e), np.where(small, np.polynomial.polynomial.polyval(low, (n * terms)[1:]), slope)


class OneApartChain(ContinuousChain):
    """The same with the correlation at times one apart as its natural parameter."""

    @property
    def natural_parameters(self) -> tuple[NaturalParameter, ...]:
        return (NaturalParameter("cor", "cor(1 apart)", (), 0.0, 1.0),)

    def natural(self, phi: FloatArray, order: int) -> Jet:
        t, g = float(phi[0]), 1.0 / self.unit
        value = np.exp(-(t**2) * g)
        first, second = -2.0 * t * g * value, (4.0 * t**2 * g - 2.0) * g * value
        return Jet.of(np.array([value]), np.array([[first]]), np.array([[[second]]]), order)

    def of_natural(self, values: FloatArray) -> FloatArray:
        if values[0] <= 0.0:
            raise OptionError("the correlation of car1() at times one apart must be above 0.")
        return np.sqrt(-self.unit * np.log(values))
