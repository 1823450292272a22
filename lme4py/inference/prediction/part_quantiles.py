"""Quantiles of a new response in models with several linear predictors: its distribution mixed over them.

The predictors of a row are normal with the covariance of their errors. Those of the parts take the nodes of a
Gauss-Hermite rule; given them the conditional one takes equally spaced nodes, as near to each other as the response
itself is sharp on its scale: the trapezoidal rule over a normal density then has an error below 1e-10.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any, Final

import numpy as np

from lme4py.chunks import chunk
from lme4py.families.averages import normal_nodes
from lme4py.families.densities.counts import discrete_quantile
from lme4py.families.parts import PartsFamily
from lme4py.families.response import ResponseData
from lme4py.fits.base import Fit
from lme4py.inference.prediction.response_quantiles import search
from lme4py.linalg.types import FloatArray, IntArray

__all__ = ["part_quantiles"]

_PART_NODES: Final = 9
_WIDEST_STEP: Final = 0.5
_NARROWEST_STEP: Final = 0.02
_REACH: Final = 8.0
# Values of a distribution function that are held at a time.
_TABLE: Final = chunk(400_000)

# From numbers without bounds to responses.
_SCALES: Final[dict[str, Callable[[FloatArray], FloatArray]]] = {
    "real": lambda t: t,
    "positive": np.exp,
    "proportion": lambda t: 1.0 / (1.0 + np.exp(-t)),
}


def part_quantiles(
    fit: Fit, data: ResponseData, eta: FloatArray, covariance: FloatArray, probabilities: tuple[float, ...]
) -> list[FloatArray]:
    """The smallest responses whose probability reaches each of `probabilities`, each (n,).

    Parameters
    ----------
    fit : Fit
    data : ResponseData
        Parts, trials and weights of the rows.
    eta : ndarray, shape (n,)
        The conditional linear predictor.
    covariance : ndarray, shape (n, D, D)
        Of the errors of the predictors of the parts, then of the conditional one.
    probabilities : tuple of float

    Returns
    -------
    list of ndarray
        Proportions where rows have trials.
    """
    mixture = _Mixture(fit, data, eta, covariance)
    out = []
    for p in probabilities:
        found = mixture.quantile(np.full(eta.size, p))
        out.append(found / data.n_trials if fit.family.has_trials else found)
    return out


class _Mixture:
    """P(Y <= y) of rows whose linear predictors are normal."""

    def __init__(self, fit: Fit, data: ResponseData, eta: FloatArray, covariance: FloatArray) -> None:
        family: Any = fit.family
        self.family: PartsFamily = family
        self.data, self.n = data, eta.size
        self.x = [np.broadcast_to(part, (self.n,)) for part in family.variables(data, eta, fit.lam).values()]
        names = family.density.names
        self.places = [*(names.index(part.name) for part in data.parts), 0]
        # Rounding of a covariance of zero.
        floor = 1e-14 * np.eye(len(self.places))
        self.root = np.linalg.cholesky(covariance + floor)
        self.nodes = self._nodes()

    def _nodes(self) -> tuple[FloatArray, FloatArray]:
        """Standard normal nodes (q, D) and their weights (q,)."""
        with np.errstate(all="ignore"):
            sharp = np.sqrt(self.family.without_parts_variance(self.x, self.data))
            slope = np.abs(self.family.link.derivatives(self.x[0])[1])
            width = sharp / (slope * self._trials * np.maximum(self.root[:, -1, -1], 1e-12))
        least = float(np.nanmin(np.where(np.isfinite(width), width, np.inf), initial=np.inf))
        step = float(np.clip(0.7 * least, _NARROWEST_STEP, _WIDEST_STEP))
        own, weights = normal_nodes(step, _REACH)
        z, w = np.polynomial.hermite_e.hermegauss(_PART_NODES)
        grids = [(z, w / w.sum())] * (len(self.places) - 1) + [(own, weights)]
        nodes = np.array(list(product(*(values for values, _ in grids))))
        return nodes, np.array([np.prod(w) for w in product(*(own for _, own in grids))])

    @property
    def _trials(self) -> FloatArray | float:
        return self.data.n_trials if self.family.has_trials else 1.0

    def cdf(self, y: FloatArray, rows: IntArray) -> FloatArray:
        """P(Y <= y) of some rows, shape (m,)."""
        out = np.empty(rows.size)
        nodes, weights = self.nodes
        step = max(1, _TABLE // weights.size)
        for start in range(0, rows.size, step):
            place = slice(start, start + step)
            out[place] = self._part(y[place], rows[place], nodes, weights)
        return out

    def _part(self, y: FloatArray, rows: IntArray, nodes: FloatArray, weights: FloatArray) -> FloatArray:
        moved = np.einsum("nde,qe->dqn", self.root[rows], nodes)
        x = [np.broadcast_to(part[rows], moved.shape[1:]) for part in self.x]
        for d, place in enumerate(self.places):
            x[place] = x[place] + moved[d]
        count = weights.size
        many = np.tile(rows, count)
        with np.errstate(all="ignore"):
            flat = [part.ravel() for part in x]
            value = self.family.density.cdf(np.tile(y, count), flat, self.data.take(many)).reshape(count, -1)
        total: FloatArray = weights @ np.nan_to_num(value, nan=0.0)
        return total

    def quantile(self, p: FloatArray) -> FloatArray:
        """The smallest values whose probability reaches p, shape (n,)."""
        if self.family.is_count:
            m = self.family.density.mean(self.x, self.data) * self._trials
            spread = np.sqrt(self.family.density.variance(self.x, self.data))
            return discrete_quantile(p, m, spread, self.cdf)
        return self._continuous(p)

    def _continuous(self, p: FloatArray) -> FloatArray:
        """On a scale on which any response is a number; a zero has a probability of its own."""
        if self.family.kind not in _SCALES:
            raise self.family.lacks("prediction intervals with further parts")
        out = np.zeros(self.n)
        rows = np.arange(self.n)
        if self.family.kind != "real":
            rows = np.flatnonzero(self.cdf(out, rows) < p)
        if rows.size:
            at, slope = (part[rows] for part in self._first())
            ends = np.full(rows.size, -np.inf), np.full(rows.size, np.inf)
            found = search(_Scaled(self, rows), at, slope, *ends, float(p[0]))
            out[rows] = _SCALES[self.family.kind](found)
        return out

    def _first(self) -> tuple[FloatArray, FloatArray]:
        """Points in the middle on the scale of the search, and one over the spread there."""
        with np.errstate(all="ignore"):
            mean = np.broadcast_to(self.family.density.mean(self.x, self.data), (self.n,))
            spread = np.sqrt(np.broadcast_to(self.family.density.variance(self.x, self.data), (self.n,)))
            if self.family.kind == "real":
                at, slope = mean, 1.0 / spread
            elif self.family.kind == "positive":
                at, slope = np.log(mean), mean / spread
            else:
                at, slope = np.log(mean) - np.log1p(-mean), mean * (1.0 - mean) / spread
        usable = np.isfinite(at) & np.isfinite(slope) & (slope > 0.0)
        return np.where(usable, at, 0.0), np.where(usable, np.maximum(slope, 1e-3), 1.0)


@dataclass(frozen=True)
class _Scaled:
    """The distribution of some rows of a mixture, of numbers without bounds where it is one of proportions."""

    mixture: _Mixture
    rows: IntArray
    is_count: bool = False

    @property
    def is_positive(self) -> bool:
        return self.mixture.family.kind == "positive"

    def take(self, rows: IntArray) -> _Scaled:
        """Some of the rows."""
        return _Scaled(self.mixture, self.rows[rows])

    def __call__(self, y: FloatArray) -> FloatArray:
        """Probability of at most `y`, shape (n,)."""
        at = _SCALES["proportion"](y) if self.mixture.family.kind == "proportion" else y
        return self.mixture.cdf(at, self.rows)
