"""Averages of a curve over rows, for many scenarios at once, with their gradients in the parameters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lme4py.chunks import chunk, from_size
from lme4py.data.frame import Frame
from lme4py.frozen import computed_once
from lme4py.inference.prediction.averages import MeanDerivatives
from lme4py.linalg.types import FloatArray, IntArray
from lme4py.margins.estimands.curves import ResponseCurve
from lme4py.margins.models.adapter import FactoredRows, ModelAdapter, Random, Rows, frame_of
from lme4py.margins.models.gradients import RowGradients
from lme4py.margins.population.population import Population
from lme4py.margins.population.scenarios import Scenario, scenario_frame

__all__ = [
    "Grid",
    "Parameters",
    "UnitGrid",
    "linear_predictor",
    "moved_frame",
    "row_derivatives",
    "row_gradients",
    "variance_of",
]

# Numbers of rows times scenarios that are held at a time, and of designs that are kept between evaluations.
_CHUNK = chunk(200_000)
_KEPT = from_size(20_000_000)


@dataclass(frozen=True, slots=True)
class Parameters:
    """The parameters at which an estimand is evaluated.

    Attributes
    ----------
    beta : ndarray, shape (p,)
    theta : ndarray, shape (m,)
    effects : ndarray, shape (Q,), or None
        Random effects less their conditional modes, where these are not taken as known.
    """

    beta: FloatArray
    theta: FloatArray
    effects: FloatArray | None = None

    def plus(self, change: FloatArray) -> Parameters:
        """Other parameters: of the coefficients, then of the random effects or the covariance parameters, (q,)."""
        p = self.beta.size
        beta, rest = self.beta + change[:p], change[p:]
        if self.effects is not None:
            return Parameters(beta, self.theta, self.effects + rest)
        return Parameters(beta, self.theta + rest if rest.size else self.theta)


def variance_of(adapter: ModelAdapter, curve: ResponseCurve, theta: FloatArray) -> tuple[FloatArray, FloatArray] | None:
    """Coefficients of the variance of the random effects and their slopes in theta, where the curve uses them."""
    return adapter.spread_coefficients(theta) if curve.uses_variance else None


def moved_frame(population: Population, scenarios: Frame, s: int) -> Frame:
    """The rows of a population with the values of scenario s."""
    n = population.frame.n_rows
    place = np.full(n, s)
    columns = {name: population.frame.column(name) for name in population.frame.names}
    columns.update({name: scenarios.column(name).take(place) for name in scenarios.names})
    return frame_of(columns, n)


def row_derivatives(
    rows: Rows, curve: ResponseCurve, parameters: Parameters, variance: tuple[FloatArray, FloatArray] | None, order: int
) -> MeanDerivatives:
    """The curve of every row."""
    eta = linear_predictor(rows, parameters)
    v = None if variance is None or rows.spread is None else rows.spread @ variance[0]
    return curve(eta, v, order)


def linear_predictor(rows: Rows, parameters: Parameters) -> FloatArray:
    """X beta, what is known, and what random effects differ from their modes, (n,)."""
    eta: FloatArray = rows.X @ parameters.beta + rows.known
    if rows.effects is not None and parameters.effects is not None and parameters.effects.any():
        eta = eta + rows.effects @ parameters.effects
    return eta


def row_gradients(
    rows: Rows, by_eta: FloatArray, by_variance: FloatArray | None, variance: tuple[FloatArray, FloatArray] | None
) -> RowGradients:
    """Gradients of a function of every row from its derivatives in eta and in the variance, each (n,)."""
    out = RowGradients(rows.X, rows.effects).times(by_eta)
    if by_variance is None or variance is None or rows.spread is None:
        return out
    return out.beside(by_variance[:, None] * (rows.spread @ variance[1]))


class Grid:
    """Scenarios that set the same variables, over one population.

    Parameters
    ----------
    adapter : ModelAdapter
    population : Population
    scenarios : sequence of dict
        ``[{}]`` for the rows as they are.
    random : str
    """

    def __init__(
        self, adapter: ModelAdapter, population: Population, scenarios: Sequence[Scenario], random: Random
    ) -> None:
        self.adapter, self.population, self.random = adapter, population, random
        self.size = len(scenarios)
        self.frame = scenario_frame(adapter, scenarios) if scenarios[0] else frame_of({}, 1)
        self.factors = adapter.factored(population.frame, self.frame, random) if scenarios[0] else None
        if self.factors is not None and population.offset is not None:
            self.factors = _with_offset(self.factors, population.offset, self.size)
        if self.factors is not None and population.collapse:
            self.factors = _collapsed(self.factors, population.weights)

    @property
    def weights(self) -> FloatArray:
        """Weights of the rows that the curve is averaged over."""
        return np.ones(1) if self.population.collapse else self.population.weights

    def weights_of(self, s: int) -> FloatArray:
        """Weights of the rows under scenario s: of nested factors only the combinations that occur count."""
        cells = self.population.cells
        if cells is None:
            return self.weights
        frame = moved_frame(self.population, self.frame, s) if self.frame.names else self.population.frame
        weights = cells.weights(frame) * self.weights
        total = float(weights.sum())
        # A scenario that is itself no cell has no average: its rows cannot be estimated.
        return weights / total if total > 0.0 else self.weights

    def rows(self, s: int) -> Rows:
        """The rows under scenario s."""
        population = self.population
        frame = moved_frame(population, self.frame, s) if self.frame.names else population.frame
        rows = self.adapter.rows(frame, self.random)
        if population.offset is not None:
            rows = replace(rows, known=rows.known + population.offset)
        if not population.collapse:
            return rows
        w = population.weights
        return Rows((w @ rows.X)[None], np.atleast_1d(w @ rows.known), _mean_rows(w, rows.spread))

    @computed_once
    def _kept(self) -> list[Rows] | None:
        cells = self.size * self.population.frame.n_rows * max(len(self.adapter.names), 1)
        return [self.rows(s) for s in range(self.size)] if cells <= _KEPT else None

    def each(self) -> Iterator[Rows]:
        """The rows of every scenario, one after the other."""
        return iter(self._kept) if self._kept is not None else (self.rows(s) for s in range(self.size))

    @computed_once
    def means(self) -> tuple[FloatArray, FloatArray]:
        """Means of the design (S, q), columns of random effects behind those of X, and of what is known (S,)."""
        if self.factors is not None:
            (C, R), (D, Q) = self.factors.X, self.factors.known
            X, one = C * (self.weights @ R), np.ones((self.size, R.shape[0]))
            if self.factors.effects:
                X = np.hstack([X, sum(part.gradient(one, self.weights) for part in self.factors.effects)])
            return X, D @ (self.weights @ Q)
        weights = map(self.weights_of, range(self.size))
        parts = [
            (RowGradients(rows.X, rows.effects).mean(w), w @ rows.known)
            for w, rows in zip(weights, self.each(), strict=True)
        ]
        return np.stack([x for x, _ in parts]), np.array([known for _, known in parts])

    def evaluate(self, curve: ResponseCurve, parameters: Parameters, gradient: bool) -> tuple[FloatArray, FloatArray]:
        """Averages of the curve, (S,), and their gradients in (beta, theta), (S, q); empty without `gradient`.

        The columns of theta are there only where the curve uses the variance of the random effects.
        """
        if curve.is_linear:
            X, known = self.means
            effects = np.empty(0) if parameters.effects is None else parameters.effects
            values = X @ np.concatenate([parameters.beta, effects]) + known
            return values, X if gradient else np.empty((self.size, 0))
        variance = variance_of(self.adapter, curve, parameters.theta)
        if self.factors is not None:
            return self._factored(self.factors, curve, parameters, variance, gradient)
        parts = [
            self._one(self.weights_of(s), rows, curve, parameters, variance, gradient)
            for s, rows in enumerate(self.each())
        ]
        return np.array([value for value, _ in parts]), np.stack([row for _, row in parts])

    def _one(
        self,
        weights: FloatArray,
        rows: Rows,
        curve: ResponseCurve,
        parameters: Parameters,
        variance: tuple[FloatArray, FloatArray] | None,
        gradient: bool,
    ) -> tuple[float, FloatArray]:
        d = row_derivatives(rows, curve, parameters, variance, int(gradient))
        value = float(weights @ d.f)
        if not gradient:
            return value, np.empty(0)
        # Averaged before the columns of the variance are made of it.
        row = RowGradients(rows.X, rows.effects).mean(weights * d.e)
        if variance is None or rows.spread is None:
            return value, row
        return value, np.concatenate([row, ((weights * d.v) @ rows.spread) @ variance[1]])

    def units(
        self, curve: ResponseCurve, parameters: Parameters, gradient: bool
    ) -> Iterator[tuple[FloatArray, FloatArray]]:
        """The curve of every row with its gradient, one scenario after the other."""
        variance = variance_of(self.adapter, curve, parameters.theta)
        for rows in self.each():
            d = row_derivatives(rows, curve, parameters, variance, int(gradient))
            yield d.f, row_gradients(rows, d.e, d.v, variance).whole() if gradient else np.empty((d.f.size, 0))

    @computed_once
    def _split(self) -> _Split:
        if self.factors is None:  # pragma: no cover - asked for with factors only
            raise TypeError
        return _split(self.factors, self.weights)

    def _factored(
        self,
        factors: FactoredRows,
        curve: ResponseCurve,
        parameters: Parameters,
        variance: tuple[FloatArray, FloatArray] | None,
        gradient: bool,
    ) -> tuple[FloatArray, FloatArray]:
        n = factors.X[1].shape[0]
        step = max(1, _CHUNK // max(n, 1))
        parts = [
            self._chunk(factors, slice(start, start + step), curve, parameters, variance, gradient)
            for start in range(0, self.size, step)
        ]
        return np.concatenate([value for value, _ in parts]), np.vstack([rows for _, rows in parts])

    def _chunk(
        self,
        factors: FactoredRows,
        part: slice,
        curve: ResponseCurve,
        parameters: Parameters,
        variance: tuple[FloatArray, FloatArray] | None,
        gradient: bool,
    ) -> tuple[FloatArray, FloatArray]:
        split, w = self._split, self.weights
        C, D = factors.X[0][part], factors.known[0][part]
        scaled = C * parameters.beta
        # Columns that are the same for all rows shift the linear predictor of a scenario as a whole.
        shift = scaled[:, split.fixed] @ split.fixed_values + D[:, split.known_fixed] @ split.known_values
        eta = scaled[:, split.moving] @ split.rows.T + shift[:, None]
        if split.known_rows.shape[1]:
            eta += D[:, split.known_moving] @ split.known_rows.T
        effects = [own.take(part) for own in factors.effects]
        if parameters.effects is not None and parameters.effects.any():
            for own in effects:
                eta += own.scenarios @ own.known(parameters.effects).T
        v = None
        if variance is not None and factors.spread is not None:
            CP, RP = factors.spread[0][part], factors.spread[1]
            v = (CP * variance[0]) @ RP.T
        d = curve(eta, v, int(gradient))
        if not gradient:
            return d.f @ w, np.empty((C.shape[0], 0))
        rows = np.empty_like(C)
        rows[:, split.fixed] = (d.e @ w)[:, None] * split.fixed_values
        rows[:, split.moving] = d.e @ split.weighted_rows
        rows *= C
        if effects:
            return d.f @ w, np.hstack([rows, sum(own.gradient(d.e, w) for own in effects)])
        if variance is not None and factors.spread is not None:
            rows = np.hstack([rows, ((d.v @ (w[:, None] * RP)) * CP) @ variance[1]])
        return d.f @ w, rows


class UnitGrid(Grid):
    """Scenarios whose averages are those of what `units` gives, row by row."""

    def evaluate(self, curve: ResponseCurve, parameters: Parameters, gradient: bool) -> tuple[FloatArray, FloatArray]:
        parts = list(self.units(curve, parameters, gradient))
        weights = [self.weights_of(s) for s in range(self.size)]
        values = np.array([w @ value for w, (value, _) in zip(weights, parts, strict=True)])
        return values, np.stack([w @ rows for w, (_, rows) in zip(weights, parts, strict=True)])


@dataclass(frozen=True, slots=True)
class _Split:
    """Columns of the parts of the rows that vary over the rows, and those that do not, with their values."""

    moving: IntArray
    fixed: IntArray
    rows: FloatArray
    weighted_rows: FloatArray
    fixed_values: FloatArray
    known_moving: IntArray
    known_fixed: IntArray
    known_rows: FloatArray
    known_values: FloatArray


def _split(factors: FactoredRows, weights: FloatArray) -> _Split:
    R, Q = factors.X[1], factors.known[1]
    moving, fixed = _varying(R)
    known_moving, known_fixed = _varying(Q)
    rows = np.ascontiguousarray(R[:, moving])
    return _Split(
        moving,
        fixed,
        rows,
        weights[:, None] * rows,
        R[0, fixed],
        known_moving,
        known_fixed,
        np.ascontiguousarray(Q[:, known_moving]),
        Q[0, known_fixed],
    )


def _varying(columns: FloatArray) -> tuple[IntArray, IntArray]:
    moves = columns.min(axis=0) != columns.max(axis=0)
    return np.flatnonzero(moves), np.flatnonzero(~moves)


def _mean_rows(weights: FloatArray, spread: FloatArray | None) -> FloatArray | None:
    return None if spread is None else (weights @ spread)[None]


def _with_offset(factors: FactoredRows, offset: FloatArray, n_scenarios: int) -> FactoredRows:
    D, Q = factors.known
    known = np.hstack([D, np.ones((n_scenarios, 1))]), np.hstack([Q, offset[:, None]])
    return replace(factors, known=known)


def _collapsed(factors: FactoredRows, weights: FloatArray) -> FactoredRows:
    """Means over the rows: the parts of the scenarios are the same for all rows."""

    def mean(pair: tuple[FloatArray, FloatArray]) -> tuple[FloatArray, FloatArray]:
        return pair[0], (weights @ pair[1])[None]

    spread = None if factors.spread is None else mean(factors.spread)
    return FactoredRows(mean(factors.X), mean(factors.known), spread)
