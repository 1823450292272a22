"""Models whose categories depend on a row in several ways: probabilities of categories as functions of all parameters.

Each cut P(Y > k) is an estimand of its own, as for ordinary ordinal models, whose values and gradients come from the
whole table of probabilities (`lme4py.inference.prediction.categories`). Slopes are differences of fourth order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from lme4py.data.column import Column
from lme4py.data.frame import Frame
from lme4py.errors import OptionError
from lme4py.fits.kinds import model_of
from lme4py.fits.method import Plain
from lme4py.fits.rows.arrays import RowArrays
from lme4py.fits.rows.clusters import check_robust_type
from lme4py.frozen import computed_once
from lme4py.inference.estimates.coefficients import constant_df
from lme4py.inference.prediction.categories import (
    CategoryRows,
    CategoryTable,
    category_rows,
    category_table,
    coefficient_covariance,
    coefficients_of,
)
from lme4py.inference.prediction.rows import part_columns
from lme4py.linalg.types import FloatArray
from lme4py.margins.estimands.curves import ResponseCurve
from lme4py.margins.estimands.estimands import Estimand, Values
from lme4py.margins.estimands.grids import Parameters, UnitGrid, moved_frame
from lme4py.margins.estimands.ordinal import SeveralCategories
from lme4py.margins.models.adapter import DdfMethod, FactoredRows, Random, Rows, frame_of
from lme4py.margins.models.formula_rows import FormulaRows
from lme4py.margins.population.population import Population
from lme4py.margins.population.scenarios import Scenario

__all__ = ["CategoryAdapter", "CategoryGrid", "category_slopes"]

# Weights of a one-sided difference of fourth order.
_DIFFERENCE: Final = (-25.0, 48.0, -36.0, 16.0, -3.0)
_STEP: Final = 1e-3
# Tables that are kept.
_KEPT: Final = 64


class CategoryAdapter(SeveralCategories):
    """A fit of categories with several linear predictors, effects on thresholds, or a scale.

    Parameters
    ----------
    fit : GeneralisedFit
    cut : int or None
        P(Y > category number cut + 1).
    """

    def __init__(self, fit: Any, cut: int | None = None, known: dict[Any, CategoryTable] | None = None) -> None:
        super().__init__(fit)
        self.cut = 0 if cut is None else cut
        # Tables that other cuts have asked for.
        self.known: dict[Any, CategoryTable] = {} if known is None else known
        self.categories = tuple(fit.categories)
        self.parts = [FormulaRows(recipe, self.columns) for recipe in fit.design.part_recipes]
        self.variables = tuple(dict.fromkeys([*self.variables, *(v for part in self.parts for v in part.variables)]))
        self.names = (*self.names, *fit.family.nuisance_names, *fit.threshold_names)
        self.params = coefficients_of(fit)
        self.parameter_vcov = coefficient_covariance(fit)
        self.vcov = self.parameter_vcov[: self.params.size, : self.params.size]

    @property
    def cuts(self) -> Sequence[CategoryAdapter]:
        """One adapter for each P(Y > k)."""
        return [CategoryAdapter(self.fit, k, self.known) for k in range(len(self.categories) - 1)]

    def table(self, rows: CategoryRows, parameters: Parameters, gradient: bool) -> CategoryTable:
        """The probabilities of all categories; those of the last few requests are kept, for the next cut."""
        rows = rows.moved(parameters.effects)
        key = (rows.mark, parameters.beta.tobytes(), parameters.theta.tobytes(), gradient)
        if key not in self.known:
            if len(self.known) >= _KEPT:
                self.known.clear()
            self.known[key] = category_table(self.fit, rows, gradient, parameters.beta, parameters.theta)
        return self.known[key]

    def is_categorical(self, name: str) -> bool:
        return super().is_categorical(name) or any(name in part.categorical for part in self.parts)

    def needed(self, random: Random) -> tuple[str, ...]:
        return tuple(dict.fromkeys([*self.variables, *super().needed(random)]))

    def category_rows(self, frame: Frame, random: Random, offset: FloatArray | None) -> CategoryRows:
        """Rows of data whose categories are predicted."""
        X, known = self.formula_rows.design(frame)
        X = X[:, : X.shape[1] - self.n_beyond]
        parts = {t: self._conditional(frame, t) for t in self._added(random)}
        codes = {t: own for t, (_, own) in parts.items()}
        rows = RowArrays(X, known if offset is None else known + offset, {}, codes, frame)
        found = category_rows(self.fit, rows, random == "integrate")
        if not parts:
            return found
        homes = self.fit.family.homes
        by_home = [{t: (part_columns(self.fit, t, home, rows), codes[t]) for t in parts} for home in homes]
        return replace(found, effects=tuple(self._effects(own, frame.n_rows) for own in by_home))

    def rows(self, frame: Frame, random: Random) -> Rows:
        raise OptionError(
            "the categories of this model follow from no single linear predictor; use Margins.response for their "
            "probabilities, or predict(type='linear')."
        )

    def slopes(self, frame: Frame, name: str, random: Random) -> Rows:
        return self.rows(frame, random)

    def factored(self, rows: Frame, scenarios: Frame, random: Random) -> FactoredRows | None:
        return None

    def robust(self, kind: str, cluster: Any, ddf: str | None = None) -> DdfMethod:
        k = self.params.size
        found = self._in_order(model_of(self.fit).robust_parameters(check_robust_type(kind), cluster))
        return Plain(found[:k, :k], float(constant_df(self.fit, ddf)))


class CategoryGrid(UnitGrid):
    """Scenarios of P(Y > k).

    Parameters
    ----------
    adapter, population, scenarios, random
        As in `Grid`.
    """

    adapter: CategoryAdapter

    def __init__(
        self, adapter: CategoryAdapter, population: Population, scenarios: Sequence[Scenario], random: Random
    ) -> None:
        if population.collapse:
            raise OptionError(
                "averages of the columns of a design (at='mean', 'median' or 'balanced') are those of one linear "
                "predictor, and these categories have several; use at='overall', 'typical', a dict or rows."
            )
        super().__init__(adapter, population, scenarios, random)

    def _frame(self, s: int) -> Frame:
        return moved_frame(self.population, self.frame, s) if self.frame.names else self.population.frame

    @computed_once
    def _tables(self) -> list[CategoryRows]:
        return [
            self.adapter.category_rows(self._frame(s), self.random, self.population.offset) for s in range(self.size)
        ]

    def units(
        self, curve: ResponseCurve, parameters: Parameters, gradient: bool
    ) -> Iterator[tuple[FloatArray, FloatArray]]:
        for rows in self._tables:
            yield self._exceeding(rows, parameters, gradient)

    def _exceeding(self, rows: CategoryRows, parameters: Parameters, gradient: bool) -> tuple[FloatArray, FloatArray]:
        """P(Y > k) of rows with its gradient."""
        table = self.adapter.table(rows, parameters, gradient)
        value = table.p[:, self.adapter.cut + 1 :].sum(axis=1)
        if table.jacobian is None:
            return value, np.empty((value.size, 0))
        above = slice(self.adapter.cut + 1, None)
        slopes = table.jacobian[:, above].sum(axis=1)
        if rows.terms:
            return value, slopes
        slopes = slopes[:, : parameters.beta.size]
        if not rows.effects or table.slopes is None:
            return value, slopes
        by_eta = table.slopes[:, above].sum(axis=1)
        effects = sum(z.multiply(own[:, None]) for z, own in zip(rows.effects, by_eta.T, strict=True))
        return value, np.hstack([slopes, effects.toarray()])

    def slopes(self, variable: str, parameters: Parameters, gradient: bool) -> Iterator[tuple[FloatArray, FloatArray]]:
        """Derivatives of P(Y > k) of rows in a numeric variable with their gradients, one scenario after the other.

        Parameters
        ----------
        variable : str
        parameters : Parameters
        gradient : bool
        """
        for rows, inward in self._moved(variable):
            found = [self._exceeding(one, parameters, gradient) for one in rows]
            value = sum(w * v for w, (v, _) in zip(_DIFFERENCE, found, strict=True)) / (12.0 * inward)
            slopes = sum(w * j for w, (_, j) in zip(_DIFFERENCE, found, strict=True)) / (12.0 * inward[:, None])
            yield np.asarray(value), np.asarray(slopes)

    def _moved(self, variable: str) -> Iterator[tuple[list[CategoryRows], FloatArray]]:
        """Rows with the variable moved by 0 .. 4 steps towards the middle of the data, and the step of each row."""
        trained = self.adapter.columns[variable].values
        h = _STEP * (float(np.ptp(trained)) or float(np.abs(trained).max()) or 1.0)
        for s in range(self.size):
            frame = self._frame(s)
            column = frame.column(variable)
            inward = np.where(column.values > 0.5 * (trained.min() + trained.max()), -h, h)
            others = {name: frame.column(name) for name in frame.names if name != variable}

            def at(steps: int, column: Column = column, inward: FloatArray = inward, others: Any = others) -> Any:
                moved = Column(variable, column.kind, column.values + steps * inward)
                whole = frame_of({**others, variable: moved}, inward.size)
                return self.adapter.category_rows(whole, self.random, self.population.offset)

            yield [at(steps) for steps in range(5)], inward


def category_slopes(grid: CategoryGrid, variable: str, unit_level: bool) -> Estimand:
    """Derivatives of P(Y > k) in a numeric variable, averaged over the rows of a grid.

    Parameters
    ----------
    grid : CategoryGrid
    variable : str
    unit_level : bool
        Every row instead of the mean.
    """

    def evaluate(parameters: Parameters, gradient: bool) -> Values:
        parts = list(grid.slopes(variable, parameters, gradient))
        if not unit_level:
            weights = [grid.weights_of(s) for s in range(grid.size)]
            parts = [
                (np.atleast_1d(w @ value), (w @ slopes)[None])
                for w, (value, slopes) in zip(weights, parts, strict=True)
            ]
        return np.concatenate([value for value, _ in parts]), np.vstack([slopes for _, slopes in parts])

    return evaluate
