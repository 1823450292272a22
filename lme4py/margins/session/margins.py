"""A session: scale, rows, level and method fixed once, and the estimands asked of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lme4py.arguments import no_attribute, speaks_throughout
from lme4py.errors import OptionError
from lme4py.linalg.types import FloatArray
from lme4py.margins.estimands import estimands
from lme4py.margins.estimands.compose import Caller
from lme4py.margins.estimands.estimands import Estimand
from lme4py.margins.population.groups import RowGroup, groups_of
from lme4py.margins.population.labels import RowNames, contrast_labels, contrast_matrix, family_of, prediction_label
from lme4py.margins.population.population import Population
from lme4py.margins.population.scenarios import ContrastSpec, Scenario, expand_grid
from lme4py.margins.results.result import MarginsResult
from lme4py.margins.session.scales import ScaleMethods

__all__ = ["Margins"]


@speaks_throughout
class Margins(ScaleMethods):
    """Predictions, slopes and contrasts of a fitted model.

    Made by `response`, `link`, `log_scale` or `logit_scale`.

    Parameters
    ----------
    fit : MixedResult, MEGLMResult, or a statsmodels MixedLM fit
    scale : {"linear", "log", "logit", "link"}
    at, weights, level, method, n_sim, n_boot, rng_seed, n_jobs, ddf, random, adapter, vcov, cluster, boot,
    component
        As in `response`.

    Examples
    --------
    >>> from lme4py import Margins, glmer, load_dataset, pairwise
    >>> fit = glmer("cbind(incidence, size - incidence) ~ period + (1 | herd)", load_dataset("cbpp"))
    >>> m = Margins.logit_scale(fit, random="integrate")
    >>> m.predict(atexog={"period": ["1", "2", "3", "4"]}).estimate.round(4)
    array([0.2161, 0.097 , 0.0861, 0.0573])
    >>> ratio = Margins.logit_scale(fit).contrasts(pairwise("period", ["1", "2"]))
    >>> print(ratio.to_frame()[["label", "estimate"]].round(4).to_string(index=False))
            label  estimate
    period: 1 / 2    2.6975
    """

    if not TYPE_CHECKING:

        def __getattr__(self, name):
            """Say what another program's name of something is called here."""
            return no_attribute(self, name, "margins")

    # --- predictions

    def predict(
        self,
        atexog: Mapping[str, Any] | None = None,
        over: Any = None,
        *,
        unit_level: bool = False,
        outcome: Any = None,
    ) -> MarginsResult:
        """Average predictions on a grid of values.

        Parameters
        ----------
        atexog : dict of str to values, optional
            Variables that are set, the first one slowest; the other variables as `at` says.
        over : str or list of str, optional
            Average within the groups of these variables instead of over all rows. A variable that is set too gives
            its groups as ``over_x``: rows whose x was such in the data, with x as it is set.
        unit_level : bool
            The prediction of every row instead of averages.
        outcome : object or list, optional
            Categories of an ordinal response; all of them when not given.

        Returns
        -------
        MarginsResult
        """
        scenarios = expand_grid(atexog) if atexog else [{}]
        self._check_scenarios(scenarios)
        self._check_units(unit_level)
        make = estimands.unit_predictions if unit_level else estimands.predictions

        def build() -> tuple[Estimand, RowNames]:
            grids, names = [], RowNames()
            for group in groups_of(self.rows, over, scenarios[0]):
                grids.append(self._grid(scenarios, group))
                self._name_predictions(names, scenarios, group, grids[-1].population, unit_level)
            return make(grids, self._working), names

        estimand, names = self._categories(build, 1.0, outcome)
        return self._finish(estimand, names, self.scale.prediction, "Predictions")

    def _name_predictions(
        self, names: RowNames, scenarios: Sequence[Scenario], group: RowGroup, population: Population, unit_level: bool
    ) -> None:
        for scenario in scenarios:
            values = {**group.named({*scenario, *self.rows.fixed}), **scenario}
            label = prediction_label(values)
            if not unit_level:
                names.add("prediction", "predict", label, values, population.n_obs)
                continue
            for row in population.index:
                names.add("prediction", "predict", label, {**values, "row": row}, 1)

    # --- contrasts

    def contrasts(
        self, scenarios: Any = None, contrasts: Any = None, over: Any = None, *, outcome: Any = None
    ) -> MarginsResult:
        """Weighted sums of the predictions of scenarios.

        Parameters
        ----------
        scenarios : list of dict, dict of dict, or what `pairwise` and its relatives return
            Each scenario sets some variables.
        contrasts : list of weights, dict of label to weights, or matrix (K, S), optional
            Weights of the scenarios; with named scenarios a contrast may be a dict of name to weight.
        over : str or list of str, optional
            Within the groups of these variables.
        outcome : object or list, optional
            Categories of an ordinal response; all of them when not given.

        Returns
        -------
        MarginsResult
            Weights that sum to zero are differences (ratios and odds ratios on the log and logit scales).
        """
        spec = scenarios if isinstance(scenarios, ContrastSpec) else contrasts
        if isinstance(spec, ContrastSpec):
            spec = self._resolved(spec)
            scenarios = spec.scenarios
            contrasts = spec.contrasts if self.scale.effect == "identity" else spec.ratio_labels()
        names_of, listed = self._scenarios(scenarios)
        weights, given = contrast_matrix(contrasts, names_of, listed)
        labels = contrast_labels(given, weights, names_of, listed)
        variable = spec.variable if isinstance(spec, ContrastSpec) else _joined(listed)
        groups = groups_of(self.rows, over, _set_in_all(listed))

        def build() -> tuple[Estimand, RowNames]:
            parts, names = [], RowNames()
            for group in groups:
                inner, n_obs = self._predictions(listed, group)
                parts.append(estimands.combined(inner, weights))
                values = group.named({*self.rows.fixed, *(name for scenario in listed for name in scenario)})
                for label in labels:
                    text = f"{label} at {prediction_label(values)}" if values else label
                    names.add(variable, "contrast", text, values, n_obs)
            return estimands.stacked(parts), names

        estimand, names = self._categories(build, np.tile(weights.sum(axis=1), len(groups)), outcome)
        effect, notes = self._effect_of(weights)
        family = (spec.family, len(listed)) if isinstance(spec, ContrastSpec) and over is None else family_of(weights)
        whole = family if len(names.labels) == weights.shape[0] else ("custom", 0)
        return self._finish(estimand, names, effect, "Contrasts", notes, whole)

    def _resolved(self, spec: ContrastSpec) -> ContrastSpec:
        return spec if spec.waiting is None else spec.resolved(self.levels(spec.variable))

    def _effect_of(self, weights: FloatArray) -> tuple[str, list[str]]:
        """How sums with these weights are shown."""
        sums, size = weights.sum(axis=1), np.abs(weights).sum(axis=1)
        if np.all(np.abs(sums) <= 1e-9 * size):
            return self.scale.effect, []
        if np.all(np.abs(sums - 1.0) <= 1e-9 * size):
            return self.scale.prediction, []
        if self.scale.effect == "identity":
            return "identity", []
        return "identity", [f"Weights that sum to neither 0 nor 1 are shown on the {self.scale.name} scale itself."]

    def evaluate(self, scenarios: Any, compose: Callable[..., Any], *, outcome: Any = None) -> MarginsResult:
        """Any smooth function of the predictions of scenarios.

        Parameters
        ----------
        scenarios : list of dict, or dict of dict
        compose : callable
            Receives the predictions as they are shown: an array of shape (S,), or S numbers if it has S arguments, or a
            dict for named scenarios; returns a number, an array, or a dict of numbers.
        outcome : object, optional
            The category whose probabilities are handed over (ordinal models only).

        Returns
        -------
        MarginsResult
        """
        if not callable(compose):
            raise OptionError(f"`compose` is {compose!r}; give a function of the predictions.")
        if isinstance(scenarios, ContrastSpec):
            scenarios = self._resolved(scenarios).scenarios
        names_of, listed = self._scenarios(scenarios)
        if len(groups_of(self.rows, None, _set_in_all(listed))) > 1:
            raise OptionError(
                f"evaluate() takes predictions of one response each: set {self.adapter.apart!r} in every scenario."
            )

        def build() -> tuple[Estimand, RowNames]:
            made, n_obs = self._predictions(listed, RowGroup({}, None))
            names = RowNames()
            for scenario in listed:
                names.add("", "", "", scenario, n_obs)
            return made, names

        inner, rows = self._categories(build, 1.0, outcome)
        if len(rows.labels) != len(listed):
            raise OptionError("evaluate() needs one category: give `outcome`.")
        n_obs = rows.n_obs[0]
        function = Caller(compose, names_of, len(listed))
        estimand = estimands.composed(inner, self.scale.prediction, function.numbers)
        size = estimand(self._inference.estimates, False)[0].size
        names = RowNames()
        for label in function.labels(size):
            names.add(label, "evaluate", label, {}, n_obs)
        return self._finish(estimand, names, "identity", "Functions of predictions", curved=True)


def _set_in_all(scenarios: Sequence[Scenario]) -> set[str]:
    """Variables that every scenario sets."""
    return set.intersection(*(set(scenario) for scenario in scenarios))


def _joined(scenarios: Sequence[Scenario]) -> str:
    """The variables that scenarios set, as a term."""
    return ":".join(dict.fromkeys(name for scenario in scenarios for name in scenario))
