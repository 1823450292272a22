"""Estimands as functions of the parameters: values with their gradients.

Everything that a session reports is an `Estimand`: a function from parameters to K numbers and, where asked for, their
(K, q) gradients, q = p, or p + m where the covariance parameters matter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from lme4py.errors import OptionError
from lme4py.linalg.types import FloatArray
from lme4py.margins.estimands.curves import Composed, Identity, Outer, ResponseCurve
from lme4py.margins.estimands.grids import (
    Grid,
    Parameters,
    linear_predictor,
    row_derivatives,
    row_gradients,
    variance_of,
)
from lme4py.margins.estimands.means import MeanGrid
from lme4py.margins.estimands.scales import transform
from lme4py.margins.models.adapter import ModelAdapter, Random, Rows
from lme4py.margins.models.gradients import RowGradients
from lme4py.margins.population.population import Population

__all__ = ["Estimand", "Values", "combined", "composed", "elasticity", "predictions", "slopes", "stacked"]

Values: TypeAlias = tuple[FloatArray, FloatArray]
Estimand: TypeAlias = Callable[[Parameters, bool], Values]


def predictions(grids: Sequence[Grid], curve: ResponseCurve) -> Estimand:
    """Averages of the curve under every scenario of every grid."""

    def evaluate(parameters: Parameters, gradient: bool) -> Values:
        return _join([grid.evaluate(curve, parameters, gradient) for grid in grids])

    return evaluate


def unit_predictions(grids: Sequence[Grid], curve: ResponseCurve) -> Estimand:
    """The curve of every row, scenarios slowest."""

    def evaluate(parameters: Parameters, gradient: bool) -> Values:
        return _join([part for grid in grids for part in grid.units(curve, parameters, gradient)])

    return evaluate


def _join(parts: Sequence[Values]) -> Values:
    return np.concatenate([value for value, _ in parts]), np.vstack([rows for _, rows in parts])


def stacked(estimands: Sequence[Estimand]) -> Estimand:
    """Several estimands one after the other."""
    return lambda parameters, gradient: _join([one(parameters, gradient) for one in estimands])


def combined(inner: Estimand, weights: FloatArray) -> Estimand:
    """Linear combinations; `weights` of shape (K, S)."""

    def evaluate(parameters: Parameters, gradient: bool) -> Values:
        value, rows = inner(parameters, gradient)
        return weights @ value, weights @ rows

    return evaluate


# Slopes -----------------------------------------------------------------------------------------------------


def slopes(
    adapter: ModelAdapter, grid: Grid, variable: str, curve: ResponseCurve, random: Random, kind: str, unit_level: bool
) -> Estimand:
    """Derivatives of the curve in a numeric variable, averaged over the rows of a grid.

    Parameters
    ----------
    adapter : ModelAdapter
    grid : Grid
    variable : str
    curve : ResponseCurve
        The working curve for "dydx", otherwise that of the response.
    random : str
    kind : {"dydx", "eyex", "eydx", "dyex"}
        With e the relative change: dy/dx, (dy/dx) x/y, (dy/dx)/y, (dy/dx) x.
    unit_level : bool
        Every row instead of the mean.
    """
    grids = grid.grids if isinstance(grid, MeanGrid) else [grid]
    prepared = [[_prepare(one.adapter, one, s, variable, random) for one in grids] for s in range(grid.size)]
    averages = [grid.weights_of(s) for s in range(grid.size)]

    def evaluate(parameters: Parameters, gradient: bool) -> Values:
        variance = variance_of(adapter, curve, parameters.theta)
        parts = []
        for own, weights in zip(prepared, averages, strict=True):
            rows, moves, x = own[0]
            level: tuple[FloatArray, RowGradients] | None
            if isinstance(grid, MeanGrid):
                (value, jac), level = grid.row_slopes([(one, move) for one, move, _ in own], parameters)
            else:
                value, jac = _row_slopes(rows, moves, curve, parameters, variance)
                level = _row_levels(rows, curve, parameters, variance) if kind != "dydx" else None
            if level is not None and kind != "dydx":
                value, jac = elasticity(kind, x, *level, value, jac)
            if unit_level:
                parts.append((value, jac.whole() if gradient else np.empty((value.size, 0))))
            else:
                parts.append(
                    (np.atleast_1d(weights @ value), jac.mean(weights)[None] if gradient else np.empty((1, 0)))
                )
        return _join(parts)

    return evaluate


def _row_levels(
    rows: Rows, curve: ResponseCurve, parameters: Parameters, variance: tuple[FloatArray, FloatArray] | None
) -> tuple[FloatArray, RowGradients]:
    """The curve of every row with its gradient."""
    d = row_derivatives(rows, curve, parameters, variance, 1)
    return d.f, row_gradients(rows, d.e, d.v, variance)


def _prepare(adapter: ModelAdapter, grid: Grid, s: int, variable: str, random: Random) -> tuple[Rows, Rows, FloatArray]:
    """Rows, their derivatives in the variable, and its values; means of all three where the design is averaged."""
    from lme4py.margins.estimands.grids import moved_frame

    population: Population = grid.population
    frame = moved_frame(population, grid.frame, s) if grid.frame.names else population.frame
    moves, x = adapter.slopes(frame, variable, random), frame.column(variable).values
    if population.collapse:
        w = population.weights
        spread = None if moves.spread is None else (w @ moves.spread)[None]
        moves = Rows((w @ moves.X)[None], np.atleast_1d(w @ moves.known), spread)
        x = np.atleast_1d(w @ x)
    return grid.rows(s), moves, x


def _row_slopes(
    rows: Rows,
    moves: Rows,
    curve: ResponseCurve,
    parameters: Parameters,
    variance: tuple[FloatArray, FloatArray] | None,
) -> tuple[FloatArray, RowGradients]:
    """df/dx of every row, (n,), and its gradient."""
    eta_x = linear_predictor(moves, parameters)
    along = RowGradients(moves.X, moves.effects)
    if curve.is_linear:
        return eta_x, along
    d = row_derivatives(rows, curve, parameters, variance, 2)
    value, by_eta = d.e * eta_x, d.ee * eta_x
    if variance is None or rows.spread is None or moves.spread is None:
        return value, RowGradients(rows.X, rows.effects).times(by_eta).plus(along.times(d.e))
    sigma, by_theta = variance
    v_x = moves.spread @ sigma
    value, by_eta = value + d.v * v_x, by_eta + d.ev * v_x
    by_variance = (d.ev * eta_x + d.vv * v_x)[:, None] * rows.spread + d.v[:, None] * moves.spread
    own = RowGradients(rows.X).times(by_eta).plus(along.times(d.e))
    return value, own.beside(by_variance @ by_theta)


def elasticity(
    kind: str, x: FloatArray, y: FloatArray, y_jac: RowGradients, slope: FloatArray, slope_jac: RowGradients
) -> tuple[FloatArray, RowGradients]:
    """Elasticities of rows from levels and slopes."""
    factor = np.ones_like(y) if kind == "eydx" else x
    if kind == "dyex":
        return slope * factor, slope_jac.times(factor)
    if np.any(y == 0):
        raise OptionError(f"{kind} divides by the predicted value, which is zero in {int((y == 0).sum())} row(s).")
    value = slope * factor / y
    return value, slope_jac.times(factor / y).plus(y_jac.times(-value / y))


def logarithm_of(curve: ResponseCurve) -> ResponseCurve:
    """log of a curve, for relative changes between levels."""
    return Composed(Outer("log"), curve if not isinstance(curve, Identity) else Composed(Outer("identity"), curve))


# Functions of predictions -----------------------------------------------------------------------------------


def composed(inner: Estimand, report: str, function: Callable[[FloatArray], Any]) -> Estimand:
    """A function of the predictions as they are shown; its derivative by complex steps or differences.

    Parameters
    ----------
    inner : Estimand
        The predictions on the working scale.
    report : str
        How predictions are shown.
    function : callable
        From an array of shape (S,) to a number or an array of shape (K,).
    """

    def evaluate(parameters: Parameters, gradient: bool) -> Values:
        working, rows = inner(parameters, gradient)
        y, slope = transform(report, working)
        value = _numbers(function(y))
        if not gradient:
            return value, np.empty((value.size, 0))
        return value, function_jacobian(function, y, value) @ (slope[:, None] * rows)

    return evaluate


def _numbers(value: Any) -> FloatArray:
    try:
        out = np.atleast_1d(np.asarray(value))
    except (TypeError, ValueError):
        out = np.empty((0, 0))
    if out.ndim != 1 or out.dtype.kind not in "biufc":
        raise OptionError(f"`compose` returned {value!r}; it must return a number or a one-dimensional array of them.")
    if not np.isfinite(out).all():
        raise OptionError(f"`compose` returned {value!r}, which is not finite, for the estimates of this model.")
    return np.real(out).astype(np.float64)


def function_jacobian(function: Callable[[FloatArray], Any], y: FloatArray, value: FloatArray) -> FloatArray:
    """Derivative of a function of y, (K, S): by complex steps where the function takes them, otherwise differences.

    A complex step is exact to rounding, but a function such as abs() is not analytic: the two ways are compared.
    """
    by_difference = _differences(function, y)
    exact = _complex_steps(function, y, value)
    if exact is None or exact.shape != by_difference.shape:
        return by_difference
    size = np.abs(by_difference).max(initial=0.0) + 1e-300
    return exact if np.abs(exact - by_difference).max(initial=0.0) <= 1e-5 * size else by_difference


def _complex_steps(function: Callable[[Any], Any], y: FloatArray, value: FloatArray) -> FloatArray | None:
    import warnings

    columns = []
    for j in range(y.size):
        moved = y.astype(np.complex128)
        moved[j] += 1e-30j
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                result = np.atleast_1d(np.asarray(function(moved)))
        except Exception:
            return None
        if result.dtype.kind != "c" or result.shape != value.shape or not np.isfinite(result).all():
            return None
        columns.append(result.imag / 1e-30)
    return np.stack(columns, axis=1)


def _differences(function: Callable[[FloatArray], Any], y: FloatArray) -> FloatArray:
    """Differences of fourth order."""
    scale = np.abs(y).max(initial=0.0) or 1.0
    columns = []
    for j in range(y.size):
        h = 1e-3 * max(abs(y[j]), 1e-3 * scale)

        def at(steps: float, j: int = j, h: float = h) -> FloatArray:
            moved = y.copy()
            moved[j] += steps * h
            return _numbers(function(moved))

        columns.append((at(-2) - 8 * at(-1) + 8 * at(1) - at(2)) / (12 * h))
    return np.stack(columns, axis=1)
