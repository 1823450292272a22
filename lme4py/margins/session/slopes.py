"""The slopes and elasticities of a session."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lme4py.docstrings import carries
from lme4py.errors import OptionError, did_you_mean
from lme4py.linalg.types import FloatArray
from lme4py.margins.estimands import estimands
from lme4py.margins.estimands.categories import CategoryGrid, category_slopes
from lme4py.margins.estimands.estimands import Estimand
from lme4py.margins.estimands.grids import moved_frame
from lme4py.margins.estimands.ordinal import SeveralCategories, by_category, category_elasticities
from lme4py.margins.population.groups import RowGroup, groups_of
from lme4py.margins.population.labels import RowNames, prediction_label
from lme4py.margins.population.scenarios import Scenario, expand_grid, shown
from lme4py.margins.results.result import MarginsResult
from lme4py.margins.session.base import SessionBase

__all__ = ["SlopeMethods"]


class SlopeMethods(SessionBase):
    """dydx and its relatives."""

    # --- slopes

    def dydx(
        self,
        vars: Any = None,
        over: Any = None,
        *,
        atexog: Mapping[str, Any] | None = None,
        unit_level: bool = False,
        outcome: Any = None,
    ) -> MarginsResult:
        """Average slopes: dy/dx of numeric variables, differences from the first level of the others.

        Parameters
        ----------
        vars : str, list of str, optional
            All variables of the fixed effects when not given (or ``"*"``). Variables of random slopes alone can be
            named where `random` is not "zero".
        over : str or list of str, optional
            Within the groups of these variables.
        atexog : dict, optional
            Set these variables first.
        unit_level : bool
            Every row instead of averages.
        outcome : object or list, optional
            Categories of an ordinal response; all of them when not given.

        Returns
        -------
        MarginsResult
            On the log and logit scales slopes are shown by exp: ratios for one unit more.
        """
        return self._slopes("dydx", vars, over, atexog, unit_level, outcome)

    @carries(dydx)
    def eyex(
        self,
        vars: Any = None,
        over: Any = None,
        *,
        atexog: Mapping[str, Any] | None = None,
        unit_level: bool = False,
        outcome: Any = None,
    ) -> MarginsResult:
        """Average elasticities (dy/dx) x / y of the response.

        Returns
        -------
        MarginsResult
        """
        return self._slopes("eyex", vars, over, atexog, unit_level, outcome)

    @carries(dydx)
    def eydx(
        self,
        vars: Any = None,
        over: Any = None,
        *,
        atexog: Mapping[str, Any] | None = None,
        unit_level: bool = False,
        outcome: Any = None,
    ) -> MarginsResult:
        """Average semi-elasticities (dy/dx) / y of the response.

        Returns
        -------
        MarginsResult
        """
        return self._slopes("eydx", vars, over, atexog, unit_level, outcome)

    @carries(dydx)
    def dyex(
        self,
        vars: Any = None,
        over: Any = None,
        *,
        atexog: Mapping[str, Any] | None = None,
        unit_level: bool = False,
        outcome: Any = None,
    ) -> MarginsResult:
        """Average semi-elasticities (dy/dx) x of the response.

        Returns
        -------
        MarginsResult
        """
        return self._slopes("dyex", vars, over, atexog, unit_level, outcome)

    def _slopes(
        self,
        kind: str,
        vars: Any,
        over: Any,
        atexog: Mapping[str, Any] | None = None,
        unit_level: bool = False,
        outcome: Any = None,
    ) -> MarginsResult:
        variables = self._variables(vars)
        scenarios = expand_grid(atexog) if atexog else [{}]
        self._check_scenarios(scenarios)
        self._check_units(unit_level)
        notes = self._slope_notes(kind, variables)

        adapter = self.adapter
        if kind != "dydx" and isinstance(adapter, SeveralCategories):
            return self._category_elasticities(adapter, kind, variables, scenarios, over, unit_level, outcome)

        def build() -> tuple[Estimand, RowNames]:
            parts: list[Estimand] = []
            names = RowNames()
            for variable in variables:
                add = self._add_changes if self._is_discrete(variable) else self._add_slope
                for group in groups_of(self.rows, over, {*scenarios[0], variable}):
                    parts += add(names, kind, variable, scenarios, group, unit_level)
            return estimands.stacked(parts), names

        estimand, names = self._categories(build, 0.0, outcome)
        effect = self.scale.effect if kind == "dydx" else "identity"
        title = {"dydx": "Slopes", "eyex": "Elasticities"}.get(kind, "Semi-elasticities")
        return self._finish(estimand, names, effect, title, notes, curved=None if kind == "dydx" else True)

    def _slope_notes(self, kind: str, variables: Sequence[str]) -> list[str]:
        """What is no derivative; refuses elasticities that are not defined."""
        discrete = [variable for variable in variables if self._is_discrete(variable)]
        if discrete and kind != "dydx" and isinstance(self.adapter, SeveralCategories):
            raise OptionError(f"{kind} of {discrete[0]!r} is not there for categories: it has levels; use dydx.")
        if kind != "dydx" and isinstance(self.adapter, SeveralCategories) and self.scale.name != "linear":
            raise OptionError(f"{kind} of categories is that of their probabilities; use Margins.response.")
        if discrete and kind in ("eyex", "dyex"):
            raise OptionError(f"{kind} of {discrete[0]!r} is not defined: it has levels; use dydx or eydx.")
        return [f"{', '.join(discrete)}: differences from the first level, not derivatives."] if discrete else []

    def _category_elasticities(
        self,
        adapter: SeveralCategories,
        kind: str,
        variables: Sequence[str],
        scenarios: Sequence[Scenario],
        over: Any,
        unit_level: bool,
        outcome: Any,
    ) -> MarginsResult:
        """Relative changes of the probabilities of categories: ratios of slopes and levels, row by row."""
        parts, names = [], RowNames()
        for variable in variables:
            for group in groups_of(self.rows, over, {*scenarios[0], variable}):
                estimand, own = self._category_elasticity(
                    adapter, kind, variable, scenarios, group, unit_level, outcome
                )
                parts.append(estimand)
                for entry in zip(own.terms, own.kinds, own.labels, own.values, own.n_obs, strict=True):
                    names.add(*entry)
        title = "Elasticities" if kind == "eyex" else "Semi-elasticities"
        return self._finish(estimands.stacked(parts), names, "identity", title, [], curved=True)

    def _category_elasticity(
        self,
        adapter: SeveralCategories,
        kind: str,
        variable: str,
        scenarios: Sequence[Scenario],
        group: RowGroup,
        unit_level: bool,
        outcome: Any,
    ) -> tuple[Estimand, RowNames]:
        """Those in one variable within one group."""
        grid = self._grid(scenarios, group, also_moving=())

        def slopes() -> tuple[Estimand, RowNames]:
            own = RowNames()
            return estimands.stacked(self._add_slope(own, "dydx", variable, scenarios, group, True)), own

        def levels() -> tuple[Estimand, RowNames]:
            cut = self._grid(scenarios, group, also_moving=())
            return estimands.unit_predictions([cut], self._outcome), slopes()[1]

        by, by_names = self._categories(slopes, 0.0, outcome)
        level, _ = self._categories(levels, 1.0, outcome)
        frames = [moved_frame(grid.population, grid.frame, s) for s in range(grid.size)]
        x = np.stack([frame.column(variable).values for frame in frames])
        if unit_level:
            kinds = [kind] * len(by_names.kinds)
            return category_elasticities(kind, by, level, x, None), replace(by_names, kinds=kinds)
        own = RowNames()
        self._add_slope(own, kind, variable, scenarios, group, False)
        names = by_category(adapter, (), own, np.zeros(len(own.labels)), outcome)[1]
        weights = np.stack([grid.weights_of(s) for s in range(grid.size)])
        return category_elasticities(kind, by, level, x, weights), names

    def _add_slope(
        self,
        names: RowNames,
        kind: str,
        variable: str,
        scenarios: Sequence[Scenario],
        group: RowGroup,
        unit_level: bool,
    ) -> list[Estimand]:
        grid = self._grid(scenarios, group, also_moving=())
        curve = self._working if kind == "dydx" else self._outcome
        for scenario in scenarios:
            values = {**group.named({*scenario, *self.rows.fixed}), **scenario}
            for row in grid.population.index if unit_level else [None]:
                own = values if row is None else {**values, "row": row}
                n_obs = grid.population.n_obs if row is None else 1
                names.add(variable, kind, prediction_label(values, variable), own, n_obs)
        if isinstance(grid, CategoryGrid):
            return [category_slopes(grid, variable, unit_level)]
        return [estimands.slopes(self.adapter, grid, variable, curve, self.options.random, kind, unit_level)]

    def _add_changes(
        self,
        names: RowNames,
        kind: str,
        variable: str,
        scenarios: Sequence[Scenario],
        group: RowGroup,
        unit_level: bool,
    ) -> list[Estimand]:
        levels = self.levels(variable)
        curve = self._working if kind == "dydx" else estimands.logarithm_of(self._outcome)
        parts = []
        for scenario in scenarios:
            grid = self._grid([{**scenario, variable: level} for level in levels], group)
            values = {**group.named({*scenario, variable, *self.rows.fixed}), **scenario}
            size = grid.population.frame.n_rows if unit_level else 1
            weights: FloatArray = np.hstack([-np.ones((len(levels) - 1, 1)), np.eye(len(levels) - 1)])
            make = estimands.unit_predictions if unit_level else estimands.predictions
            parts.append(estimands.combined(make([grid], curve), np.kron(weights, np.eye(size)).astype(np.float64)))
            for level in levels[1:]:
                between = "-" if kind != "dydx" or self.scale.effect == "identity" else "/"
                label = prediction_label(values, f"{variable}: {shown(level)} {between} {shown(levels[0])}")
                for row in grid.population.index if unit_level else [None]:
                    own = values if row is None else {**values, "row": row}
                    names.add(variable, kind, label, own, grid.population.n_obs if row is None else 1)
        return parts

    def _variables(self, vars: Any) -> list[str]:
        known = list(self.adapter.variables)
        if vars is None or (isinstance(vars, str) and vars in ("*", "all") and vars not in known):
            known = [name for name in known if name != self.adapter.apart]
            if not known:
                raise OptionError("the fixed effects of this model hold no variable; there are no slopes.")
            return known
        chosen = [vars] if isinstance(vars, str) else list(vars)
        # Variables of random slopes move predictions that are averaged, or at the conditional modes.
        fixed = self.options.random == "zero" and not self.adapter.has_smooths
        possible = known if fixed else self.adapter.needed("zero" if self.adapter.has_smooths else "integrate")
        for name in chosen:
            if name not in possible:
                self._refuse(str(name), known)
        return chosen

    def _refuse(self, name: str, known: Sequence[str]) -> None:
        if name in self.adapter.needed("integrate"):
            raise OptionError(
                f"{name!r} is in the random slopes only, and predictions with random effects at zero do not depend on "
                "it; use random='integrate' or random='conditional'."
            )
        uses = f"They use {', '.join(known)}." if known else "They hold no variable."
        of = self.adapter.model_name
        raise OptionError(f"{name!r} is not in the fixed effects of {of}.{did_you_mean(name, known)} {uses}")

    def _is_discrete(self, name: str) -> bool:
        if self.adapter.is_categorical(name):
            return True
        values = self.adapter.columns[name].values
        return bool(np.isin(values, (0.0, 1.0)).all()) and np.unique(values).size == 2
