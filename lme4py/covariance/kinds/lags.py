"""Correlations of whole-numbered times that are a function of the lag, and correlations that are sines of their phi."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from lme4py.covariance.chain import increasing
from lme4py.covariance.jets import Jet, sines
from lme4py.covariance.kinds.correlation import Correlation, fold_angles, odd_quarters, turn_sizes
from lme4py.errors import DesignError
from lme4py.frozen import computed_once
from lme4py.linalg.types import FloatArray, IntArray

__all__ = ["Angles", "LagCorrelation", "end_of", "lags_between", "powers", "whole_numbers"]


def whole_numbers(positions: FloatArray | None, size: int, what: str) -> FloatArray:
    """Positions as whole numbers in increasing order; 0 .. k-1 by default.

    Raises
    ------
    DesignError
    """
    if positions is None:
        return np.arange(float(size))
    places = np.asarray(positions, dtype=float)
    increasing(places, what)
    if not np.array_equal(places, np.round(places)):
        wrong = places[places != np.round(places)][0]
        raise DesignError(
            f"the times of {what} are {wrong:g}, ...: its lags are whole numbers; count the times 0, 1, 2, ..., or use "
            "ou(), where they may be anything."
        )
    return places


def lags_between(places: FloatArray) -> IntArray:
    """|t_i - t_j| of whole-numbered times, (..., p) -> (..., p, p).

    Raises
    ------
    DesignError
        They are not.
    """
    if not np.array_equal(places, np.rint(places)):
        wrong = places[places != np.rint(places)].flat[0]
        raise DesignError(f"{wrong:g} is no whole number; use ou() or car1(), where times may be anything.")
    return np.abs(places[..., :, None] - places[..., None, :]).astype(np.intp)


def powers(angle: float, exponents: FloatArray | IntArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """sin(v)^e with two derivatives in v, e whole numbers not below 0.

    Examples
    --------
    >>> powers(np.pi / 6, np.array([0, 1, 2]))[0].round(4)
    array([1.  , 0.5 , 0.25])
    """
    e = np.asarray(exponents, dtype=float)
    s, c = np.sin(angle), np.cos(angle)
    value = s**e
    first = e * s ** np.maximum(e - 1.0, 0.0) * c
    return value, first, e * (e - 1.0) * s ** np.maximum(e - 2.0, 0.0) * c**2 - e * value


def end_of(angle: float) -> str:
    """The end of its range that a correlation is at, in words."""
    return "+1" if np.sin(angle) > 0.0 else "-1"


class Angles(Correlation):
    """Correlations that are sines of their phi."""

    def initial(self) -> FloatArray:
        return np.zeros(self.n_phi)

    def typical(self) -> FloatArray:
        return np.full(self.n_phi, np.pi / 6.0)

    def edges(self, phi: FloatArray) -> FloatArray:
        return odd_quarters(phi)

    def edge_sizes(self, phi: FloatArray) -> FloatArray:
        return turn_sizes(phi)

    def as_start(self, phi: FloatArray) -> FloatArray:
        # Correlations of -0.95 to 0.95.
        return np.clip(fold_angles(phi), -1.25, 1.25)

    def canonical(self, phi: FloatArray) -> FloatArray:
        return fold_angles(phi)

    def natural(self, phi: FloatArray, order: int) -> Jet:
        return sines(phi, order)[0]

    def of_natural(self, values: FloatArray) -> FloatArray:
        return np.arcsin(values)


class LagCorrelation(Angles):
    """Correlations that are a function of the lag of whole-numbered times, and of angles."""

    @abstractmethod
    def sequence(self, phi: FloatArray, largest: int, order: int) -> Jet:
        """Correlations at lags 0, ..., `largest`."""

    @computed_once
    def lags(self) -> IntArray:
        """Lags of the columns, (k, k)."""
        return lags_between(self.places)

    @computed_once
    def n_lags(self) -> int:
        """The largest lag."""
        return int(self.lags.max())

    def derivatives(self, phi: FloatArray, points: FloatArray | None = None, order: int = 2) -> Jet:
        lags = self.lags if points is None else lags_between(points)
        return self.sequence(phi, int(lags.max(initial=0)), order)[lags]

    def _by_lag(self, W: FloatArray) -> FloatArray:
        """Sums of W over the pairs of columns at each lag."""
        return np.asarray(np.bincount(self.lags.ravel(), weights=W.ravel()), dtype=float)

    def pull(self, phi: FloatArray, W: FloatArray) -> FloatArray:
        return np.asarray(self.sequence(phi, self.n_lags, 1).first @ self._by_lag(W))

    def pull_rows(self, phi: FloatArray, W: FloatArray) -> FloatArray:
        n = self.n_lags + 1
        place = np.arange(self.size)[:, None] * n + self.lags
        sums = np.bincount(place.ravel(), weights=W.ravel(), minlength=self.size * n).reshape(self.size, n)
        return np.asarray(self.sequence(phi, self.n_lags, 1).first @ sums.T)

    def pull_second(self, phi: FloatArray, W: FloatArray) -> FloatArray:
        return np.asarray(self.sequence(phi, self.n_lags, 2).second @ self._by_lag(W))

    def span(self) -> FloatArray:
        """For each lag that occurs the matrix of ones at that lag."""
        bands: FloatArray = (self.lags == np.unique(self.lags)[:, None, None]).astype(float)
        return bands
