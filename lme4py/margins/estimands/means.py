"""Means that follow from several linear predictors: zero parts, truncated counts, ordered beta.

A mean is a function f of arguments a_1, a_2, ... of each row: linear predictors, variances of their random effects, and
parameters that all rows share. With G_k the gradient of an argument in the parameters and dots for derivatives in a
variable of the data,

    gradient of f = sum_k f_k G_k,    f. = sum_k f_k a_k.,    gradient of f. = sum_kl f_kl a_k. G_l + sum_k f_k G_k. .

A zero part is a factor 1 - pi of the mean, whose random effects are independent of the others'. Where the rest is no
inverse link, averages over random effects are sums over nodes, and derivatives in a variance v follow from
d/dv E f(eta + sqrt(v) z) = E f''(eta + sqrt(v) z) / 2.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final

import numpy as np

from lme4py.chunks import chunk
from lme4py.families.densities.base import Density
from lme4py.families.densities.calculus.jets import Degrees, Index
from lme4py.linalg.types import FloatArray
from lme4py.margins.estimands.curves import ResponseCurve
from lme4py.margins.estimands.grids import Grid, Parameters, UnitGrid, linear_predictor
from lme4py.margins.models.adapter import Random, Rows
from lme4py.margins.models.gradients import RowGradients
from lme4py.margins.models.parts import MeanAdapter
from lme4py.margins.population.population import Population
from lme4py.margins.population.scenarios import Scenario

__all__ = ["MeanGrid"]

# Nodes for one predictor with random effects, and for each of several.
_NODES, _FEWER = 64, 24
# Numbers in one part of a jet that are held at a time.
_CHUNK = chunk(200_000)
# Square roots of variances that are divided by.
_LEAST: Final = 1e-4


@dataclass(frozen=True)
class _Argument:
    """An argument of the mean of every row.

    Attributes
    ----------
    value : ndarray, shape (n,)
    gradient : ndarray, shape (n, q)
        In (beta, theta).
    """

    value: FloatArray
    gradient: FloatArray


@dataclass(frozen=True)
class _Mean:
    """A function of k arguments: value (n,), first (k, n) and second derivatives (k, k, n), empty if not asked for."""

    value: FloatArray
    first: FloatArray
    second: FloatArray

    def times(self, other: _Mean) -> _Mean:
        """The product with a function of other arguments, those of the latter behind."""
        k, n = self.first.shape
        m = other.first.shape[0]
        first = np.concatenate([self.first * other.value, self.value * other.first])
        second = np.zeros((k + m, k + m, n)) if self.second.size else np.zeros((0, 0, n))
        if self.second.size:
            second[:k, :k], second[k:, k:] = self.second * other.value, self.value * other.second
            second[:k, k:] = self.first[:, None] * other.first[None]
            second[k:, :k] = second[:k, k:].swapaxes(0, 1)
        return _Mean(self.value * other.value, first, second)


class MeanGrid(UnitGrid):
    """Scenarios of a model whose mean has several arguments.

    Parameters
    ----------
    adapter : MeanAdapter
    population, scenarios, random
        As in `Grid`.
    zero_curve : ResponseCurve
        From the predictor of the zero part, where there is one, to its probability.
    mean_curve : ResponseCurve
        From the conditional predictor to its mean, where nothing else is in the rest.
    """

    def __init__(
        self,
        adapter: MeanAdapter,
        population: Population,
        scenarios: Sequence[Scenario],
        random: Random,
        zero_curve: ResponseCurve,
        mean_curve: ResponseCurve,
    ) -> None:
        super().__init__(adapter, population, scenarios, random)
        self.mean, self.zero_curve, self.mean_curve = adapter, zero_curve, mean_curve
        self.integrated = random == "integrate"
        self.rest = [self, *(Grid(part, population, scenarios, random) for part in adapter.others)]
        self.zeros = [] if adapter.zeros is None else [Grid(adapter.zeros, population, scenarios, random)]

    @property
    def grids(self) -> list[Grid]:
        """One for each predictor, the zero part last."""
        return [*self.rest, *self.zeros]

    def units(
        self, curve: ResponseCurve, parameters: Parameters, gradient: bool
    ) -> Iterator[tuple[FloatArray, FloatArray]]:
        for s in range(self.size):
            rows = [grid.rows(s) for grid in self.grids]
            arguments = self._arguments(rows, parameters)
            d = self._mean(arguments, int(gradient))
            if not gradient:
                yield d.value, np.empty((d.value.size, 0))
                continue
            yield d.value, sum(f[:, None] * a.gradient for f, a in zip(d.first, arguments, strict=True))

    def row_slopes(
        self, prepared: Sequence[tuple[Rows, Rows]], parameters: Parameters
    ) -> tuple[tuple[FloatArray, RowGradients], tuple[FloatArray, RowGradients]]:
        """Derivatives of the mean of every row in a variable, and the means, both with their gradients.

        Parameters
        ----------
        prepared : sequence of (Rows, Rows)
            For each grid: the rows, and their derivatives in the variable.
        parameters : Parameters
        """
        arguments = self._arguments([rows for rows, _ in prepared], parameters)
        moves = self._arguments([move for _, move in prepared], parameters, moving=True)
        d = self._mean(arguments, 2)
        slope = np.asarray(sum(f * move.value for f, move in zip(d.first, moves, strict=True)))
        level = sum(f[:, None] * a.gradient for f, a in zip(d.first, arguments, strict=True))
        jac = sum(f[:, None] * move.gradient for f, move in zip(d.first, moves, strict=True))
        for row, move in zip(d.second, moves, strict=True):
            for f, a in zip(row, arguments, strict=True):
                jac = jac + (f * move.value)[:, None] * a.gradient
        return (slope, RowGradients(np.asarray(jac))), (d.value, RowGradients(np.asarray(level)))

    # --- arguments

    def _arguments(self, rows: Sequence[Rows], parameters: Parameters, moving: bool = False) -> list[_Argument]:
        """Predictors and variances, what all rows share behind those of the rest; `moving`: derivatives of rows."""
        out = []
        for number, (grid, own) in enumerate(zip(self.grids, rows, strict=True)):
            if number == len(self.rest):
                out += self._shared(own, parameters, moving)
            out.append(_Argument(linear_predictor(own, parameters), self._behind(own.X, parameters)))
            if self.integrated:
                out.append(self._variance(grid, own, parameters))
        return out if self.zeros else [*out, *self._shared(rows[0], parameters, moving)]

    def _behind(self, X: FloatArray, parameters: Parameters) -> FloatArray:
        """Gradients in beta as those in (beta, theta) where theta takes part."""
        return np.hstack([X, np.zeros((X.shape[0], parameters.theta.size))]) if self.integrated else X

    def _shared(self, rows: Rows, parameters: Parameters, moving: bool) -> list[_Argument]:
        """Parameters of the rest that are no predictors."""
        n, p = rows.X.shape
        by_place = np.zeros((len(self.mean.shared), n, p))
        if not moving:
            by_place[np.arange(len(self.mean.shared)), :, list(self.mean.shared)] = 1.0
        values = [np.full(n, 0.0 if moving else parameters.beta[place]) for place in self.mean.shared]
        return [_Argument(v, self._behind(own, parameters)) for v, own in zip(values, by_place, strict=True)]

    def _variance(self, grid: Grid, rows: Rows, parameters: Parameters) -> _Argument:
        n, p = rows.X.shape
        found = grid.adapter.spread_coefficients(parameters.theta)
        if rows.spread is None:
            return _Argument(np.zeros(n), np.zeros((n, p + parameters.theta.size)))
        return _Argument(rows.spread @ found[0], np.hstack([np.zeros((n, p)), rows.spread @ found[1]]))

    # --- the mean

    def _mean(self, arguments: Sequence[_Argument], order: int) -> _Mean:
        """The mean of every row with derivatives in the arguments."""
        a = [one.value for one in arguments]
        width = 2 if self.integrated else 1
        parts = [a[width * i : width * (i + 1)] for i in range(len(self.rest))]
        ends = width * len(self.rest)
        shared = a[ends : ends + len(self.mean.shared)]
        rest = self._by_curve(self.mean_curve, parts[0], order) if self.mean.by_link else None
        rest = self._by_nodes(parts, shared, order) if rest is None else rest
        if not self.zeros:
            return rest
        pi = self._by_curve(self.zero_curve, a[-width:], order)
        return rest.times(_Mean(1.0 - pi.value, -pi.first, -pi.second))

    def _by_curve(self, curve: ResponseCurve, part: Sequence[FloatArray], order: int) -> _Mean:
        """A mean of one predictor."""
        n = part[0].size
        d = curve(part[0], part[1] if self.integrated else None, order)
        none = np.zeros((0, n)), np.zeros((0, 0, n))
        if order == 0:
            return _Mean(d.f, *none)
        if not self.integrated:
            return _Mean(d.f, d.e[None], d.ee[None, None] if order > 1 else none[1])
        first = np.stack([d.e, d.v])
        return _Mean(d.f, first, np.array([[d.ee, d.ev], [d.ev, d.vv]]) if order > 1 else none[1])

    def _by_nodes(self, parts: Sequence[Sequence[FloatArray]], shared: Sequence[FloatArray], order: int) -> _Mean:
        """A mean of several arguments, averaged over the random effects of its predictors."""
        random = [i for i in range(len(parts)) if self.integrated and bool(np.any(parts[i][1] > 0.0))]
        z, w = _grid_of_nodes(len(random))
        n = parts[0][0].size
        step = max(1, _CHUNK // w.size)
        pieces = []
        for start in range(0, n, step):
            rows = slice(start, start + step)
            own = [[x[rows] for x in part] for part in parts]
            pieces.append(self._some_rows(own, [x[rows] for x in shared], random, z, w, order))
        return _Mean(
            np.concatenate([p.value for p in pieces]),
            np.concatenate([p.first for p in pieces], axis=-1),
            np.concatenate([p.second for p in pieces], axis=-1),
        )

    def _some_rows(
        self,
        parts: Sequence[Sequence[FloatArray]],
        shared: Sequence[FloatArray],
        random: Sequence[int],
        z: FloatArray,
        w: FloatArray,
        order: int,
    ) -> _Mean:
        D, n = len(parts), parts[0][0].size
        roots = {i: np.sqrt(np.maximum(parts[i][1], 0.0)) for i in random}
        x = [part[0][None] + (z[:, random.index(i)][:, None] * roots[i] if i in roots else 0.0)
             for i, part in enumerate(parts)]  # fmt: skip
        x = [*x, *(own[None] for own in shared)]
        deeper = min(order + 1, 3) if order and random else order
        found = _jet(self.mean.density, self.mean.argument_names, x, deeper)
        shape = (w.size, n)

        def average(*index: int, by: FloatArray | None = None) -> FloatArray:
            part = np.broadcast_to(found.get(tuple(sorted(index)), 0.0), shape)
            out: FloatArray = (w if by is None else w * by) @ part
            return out

        if order == 0:
            return _Mean(average(), np.zeros((0, n)), np.zeros((0, 0, n)))
        # Arguments by place: (variable, whether it is the variance of its random effects).
        own = [(i, False) for i in range(D + len(shared))]
        if self.integrated:
            own = [(i, kind) for i in range(D) for kind in (False, True)] + own[D:]
        first = np.array([average(*self._twice(i, v)) * (0.5 if v else 1.0) * (i in random or not v) for i, v in own])
        if order == 1:
            return _Mean(average(), first, np.zeros((0, 0, n)))
        second = np.zeros((len(own), len(own), n))
        for k, (i, v) in enumerate(own):
            for m, (j, u) in enumerate(own[: k + 1]):
                if (v and i not in random) or (u and j not in random):
                    continue
                if v and u:
                    # A fourth derivative, by parts: E f_iij z_j / sqrt(v_j).
                    by = z[:, random.index(j)]
                    value = 0.25 * average(i, i, j, by=by) / np.maximum(roots[j], _LEAST)
                else:
                    value = average(*self._twice(i, v), *self._twice(j, u)) * (0.5 if v or u else 1.0)
                second[k, m] = second[m, k] = value
        return _Mean(average(), first, second)

    @staticmethod
    def _twice(i: int, variance: bool) -> tuple[int, ...]:
        return (i, i) if variance else (i,)


def _grid_of_nodes(size: int) -> tuple[FloatArray, FloatArray]:
    """Gauss-Hermite nodes (N, size) and weights (N,) of independent standard normal variables."""
    z, w = np.polynomial.hermite_e.hermegauss(_NODES if size < 2 else _FEWER)
    weights = np.array([np.prod(own) for own in product(w / w.sum(), repeat=size)])
    return np.array(list(product(z, repeat=size))).reshape(weights.size, size), weights


def _jet(density: Density, names: Sequence[str], x: Sequence[FloatArray], order: int) -> dict[Index, FloatArray]:
    """Derivatives of the mean in arguments of these names, by their places."""
    places = [names.index(name) for name in density.names]
    degrees = Degrees(order, tuple(range(len(places))))
    jet = density.mean_jet([x[i] for i in places], degrees)
    return {tuple(sorted(places[i] for i in index)): np.asarray(part) for index, part in jet.parts.items()}
