"""Means that follow from several linear predictors: zero parts, truncated counts, ordered beta.

A mean is a function f of arguments a_1, a_2, ... of each row: linear predictors, variances and covariances of their
random effects, and parameters that all rows share. With G_k the gradient of an argument in the parameters and dots for
derivatives in a variable of the data,

    gradient of f = sum_k f_k G_k,    f. = sum_k f_k a_k.,    gradient of f. = sum_kl f_kl a_k. G_l + sum_k f_k G_k. .

A zero part is a factor 1 - pi of the mean. Where its random effects are independent of the others' the mean is a
product of means. Where they are joined and the rest is exp(eta), E exp(x) h(z) = E exp(x) E h(z + cov(x, z)) for x, z
normal: a product too, with another predictor of zeros. Other means are sums over nodes
(`lme4py.inference.prediction.joint_averages`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from lme4py.design.design import CONDITIONAL
from lme4py.families.densities.base import Density
from lme4py.families.densities.zeros import ZERO_INFLATION
from lme4py.families.links import LogMean
from lme4py.inference.prediction.joint_averages import Index, averaged
from lme4py.linalg.types import FloatArray
from lme4py.margins.estimands.curves import ResponseCurve
from lme4py.margins.estimands.grids import Grid, Parameters, UnitGrid, linear_predictor
from lme4py.margins.models.adapter import Random, Rows
from lme4py.margins.models.gradients import RowGradients
from lme4py.margins.models.parts import MeanAdapter
from lme4py.margins.population.population import Population
from lme4py.margins.population.scenarios import Scenario

__all__ = ["MeanGrid"]


@dataclass(frozen=True)
class _Argument:
    """An argument of the mean of every row.

    Attributes
    ----------
    value : ndarray, shape (n,)
    gradient : RowGradients
        In (beta, theta), or in (beta, random effects).
    of : tuple of int
        Whose it is: (i,) the predictor or shared parameter i, (i, i) the variance of a predictor, (i, j) a covariance.
    """

    value: FloatArray
    gradient: RowGradients
    of: Index


@dataclass(frozen=True)
class _Mean:
    """A function of k arguments: value (n,), first (k, n) and second derivatives (k, k, n), empty if not asked for."""

    value: FloatArray
    first: FloatArray
    second: FloatArray

    def times(self, other: _Mean) -> _Mean:
        """The product with another function of the same arguments."""
        first = self.first * other.value + self.value * other.first
        second = self.second
        if second.size:
            crossed = self.first[:, None] * other.first[None]
            second = second * other.value + self.value * other.second + crossed + crossed.swapaxes(0, 1)
        return _Mean(self.value * other.value, first, second)

    def among(self, places: Sequence[Sequence[int]], size: int) -> _Mean:
        """The same as a function of `size` arguments, from the places of those that each of its own is a sum of."""
        if not self.first.size:
            return self
        where = np.zeros((size, len(places)))
        for k, own in enumerate(places):
            where[list(own), k] = 1.0
        second = np.einsum("ak,kln,bl->abn", where, self.second, where) if self.second.size else self.second
        return _Mean(self.value, where @ self.first, second)


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

        def grid(part: Any) -> Grid:
            return Grid(part, population, scenarios, random)

        self.predictors: list[Grid] = [self, *map(grid, adapter.further)]
        self.names = [CONDITIONAL, *(part.component for part in adapter.further)]
        joined = adapter.pairs if self.integrated else {}
        self.covariances = [grid(part) for part in joined.values()]
        self.pairs: list[Index] = [(self.names.index(one), self.names.index(two)) for one, two in joined]
        self.has_zeros = ZERO_INFLATION in self.names

    @property
    def grids(self) -> list[Grid]:
        """One for each predictor, the zero part last, and for each covariance of two."""
        return [*self.predictors, *self.covariances]

    def evaluate(self, curve: ResponseCurve, parameters: Parameters, gradient: bool) -> tuple[FloatArray, FloatArray]:
        found = [self._rows_of(s, parameters, gradient) for s in range(self.size)]
        weights = [self.weights_of(s) for s in range(self.size)]
        values = np.array([w @ value for w, (value, _) in zip(weights, found, strict=True)])
        if not gradient:
            return values, np.empty((self.size, 0))
        return values, np.stack([slopes.mean(w) for w, (_, slopes) in zip(weights, found, strict=True)])

    def units(
        self, curve: ResponseCurve, parameters: Parameters, gradient: bool
    ) -> Iterator[tuple[FloatArray, FloatArray]]:
        for s in range(self.size):
            value, slopes = self._rows_of(s, parameters, gradient)
            yield value, slopes.whole() if gradient else np.empty((value.size, 0))

    def _rows_of(self, s: int, parameters: Parameters, gradient: bool) -> tuple[FloatArray, RowGradients]:
        """Means of the rows under scenario s, and their gradients."""
        arguments = self._arguments([grid.rows(s) for grid in self.grids], parameters)
        d = self._mean(arguments, int(gradient))
        return d.value, _summed(d.first, [a.gradient for a in arguments]) if gradient else arguments[0].gradient

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
        # Second derivatives in two (co)variances are fourth ones in predictors: only where a (co)variance moves.
        d = self._mean(arguments, 2, any(len(move.of) > 1 and bool(move.value.any()) for move in moves))
        by_move = np.stack([move.value for move in moves])
        slope = np.einsum("kn,kn->n", d.first, by_move)
        own = [a.gradient for a in arguments]
        jac = _summed(d.first, [move.gradient for move in moves]).plus(
            _summed(np.einsum("kln,kn->ln", d.second, by_move), own)
        )
        return (slope, jac), (d.value, _summed(d.first, own))

    # --- arguments

    def _arguments(self, rows: Sequence[Rows], parameters: Parameters, moving: bool = False) -> list[_Argument]:
        """Predictors with their variances, covariances, what all rows share; `moving`: derivatives of rows."""
        out = []
        for i, (grid, own) in enumerate(zip(self.predictors, rows, strict=False)):
            effects = own.effects if parameters.effects is not None else None
            gradient = RowGradients(self._behind(own.X, parameters), effects)
            out.append(_Argument(linear_predictor(own, parameters), gradient, (i,)))
            if self.integrated:
                out.append(self._variance(grid, own, parameters, (i, i)))
        covariances = rows[len(self.predictors) :]
        for pair, grid, own in zip(self.pairs, self.covariances, covariances, strict=True):
            out.append(self._variance(grid, own, parameters, pair))
        return [*out, *self._shared(rows[0], parameters, moving)]

    def _behind(self, X: FloatArray, parameters: Parameters) -> FloatArray:
        """Gradients in beta as those in (beta, theta) where theta takes part."""
        return np.hstack([X, np.zeros((X.shape[0], parameters.theta.size))]) if self.integrated else X

    def _shared(self, rows: Rows, parameters: Parameters, moving: bool) -> list[_Argument]:
        """Parameters of the rest that are no predictors."""
        n, p = rows.X.shape
        out = []
        for number, place in enumerate(self.mean.shared):
            column = np.zeros((n, p))
            column[:, place] = 0.0 if moving else 1.0
            gradient = RowGradients(self._behind(column, parameters))
            value = np.full(n, 0.0 if moving else parameters.beta[place])
            out.append(_Argument(value, gradient, (len(self.predictors) + number,)))
        return out

    def _variance(self, grid: Grid, rows: Rows, parameters: Parameters, of: Index) -> _Argument:
        n, p = rows.X.shape[0], parameters.beta.size
        if rows.spread is None:
            return _Argument(np.zeros(n), RowGradients(np.zeros((n, p + parameters.theta.size))), of)
        found = grid.adapter.spread_coefficients(parameters.theta)
        slopes = np.hstack([np.zeros((n, p)), rows.spread @ found[1]])
        return _Argument(rows.spread @ found[0], RowGradients(slopes), of)

    # --- the mean

    def _mean(self, arguments: Sequence[_Argument], order: int, fourth: bool = False) -> _Mean:
        """The mean of every row with derivatives in the arguments."""
        by_link = self.mean.by_link
        zero = len(self.predictors) - 1 if self.has_zeros else -1
        joined = [pair for pair in self.pairs if zero in pair]
        if joined and not (by_link and isinstance(self.mean.link, LogMean)):
            return self._by_nodes(self.mean.whole.family.density, arguments, range(len(arguments)), order, fourth)
        if by_link:
            rest = self._by_curve(self.mean_curve, arguments, 0, order)
        else:
            own = [k for k, a in enumerate(arguments) if zero not in a.of]
            rest = self._by_nodes(self.mean.density, arguments, own, order, fourth)
        if not self.has_zeros:
            return rest
        pi = self._by_curve(self.zero_curve, arguments, zero, order, joined)
        return rest.times(_Mean(1.0 - pi.value, -pi.first, -pi.second))

    def _by_curve(
        self,
        curve: ResponseCurve,
        arguments: Sequence[_Argument],
        number: int,
        order: int,
        moved_by: Sequence[Index] = (),
    ) -> _Mean:
        """A mean of one predictor and its variance; covariances `moved_by` move the predictor."""
        places = {a.of: k for k, a in enumerate(arguments)}
        eta = [places[number,], *(places[pair] for pair in moved_by)]
        at = np.asarray(sum(arguments[k].value for k in eta))
        if not self.integrated:
            d = curve(at, None, order)
            first, second, own = [d.e], [[d.ee]], [eta]
        else:
            spread = places[number, number]
            d = curve(at, arguments[spread].value, order)
            first, second, own = [d.e, d.v], [[d.ee, d.ev], [d.ev, d.vv]], [eta, [spread]]
        none = np.zeros((0, at.size)), np.zeros((0, 0, at.size))
        mean = _Mean(d.f, np.array(first) if order else none[0], np.array(second) if order > 1 else none[1])
        return mean.among(own, len(arguments))

    def _by_nodes(
        self, density: Density, arguments: Sequence[_Argument], own: Sequence[int], order: int, fourth: bool
    ) -> _Mean:
        """A mean of several arguments, averaged over the random effects of its predictors."""
        names = [*self.names, *self.mean.shared_names]
        found = averaged(density, names, {arguments[k].of: arguments[k].value for k in own}, order, fourth)
        return _Mean(*found).among([[k] for k in own], len(arguments))


def _summed(slopes: FloatArray, gradients: Sequence[RowGradients]) -> RowGradients:
    """Sum of gradients of rows times numbers, (k, n)."""
    parts = [gradient.times(f) for f, gradient in zip(slopes, gradients, strict=True)]
    return reduce(RowGradients.plus, parts)
