"""What every request to a session goes through: scenarios, grids, and the way from an estimand to a result."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from lme4py.errors import OptionError, did_you_mean
from lme4py.margins.estimands import estimands
from lme4py.margins.estimands.categories import CategoryAdapter, CategoryGrid
from lme4py.margins.estimands.draws import Inference
from lme4py.margins.estimands.estimands import Estimand
from lme4py.margins.estimands.grids import Grid
from lme4py.margins.estimands.means import MeanGrid
from lme4py.margins.estimands.ordinal import SeveralCategories, by_category
from lme4py.margins.estimands.scales import SCALES, Scale, assumption, outcome_curve, working_curve
from lme4py.margins.models.adapter import ModelAdapter, Random
from lme4py.margins.models.find import find_adapter
from lme4py.margins.models.parts import MeanAdapter
from lme4py.margins.population.groups import RowGroup
from lme4py.margins.population.labels import RowNames
from lme4py.margins.population.population import SessionRows
from lme4py.margins.population.scenarios import Scenario
from lme4py.margins.results.back import BackTransform, back_transform
from lme4py.margins.results.result import MarginsResult, check_level

__all__ = ["SessionBase"]

_METHODS: Final = ("delta", "simulation", "bootstrap")
# Names of kinds of inference and where random effects stand for them.
_RANDOM: Final = {
    "zero": "zero",
    "broad": "zero",
    "integrate": "integrate",
    "conditional": "conditional",
    "narrow": "conditional",
}


@dataclass(frozen=True)
class _Options:
    """The settings of a session, checked."""

    at: Any
    level: float
    random: Random


class SessionBase:
    """The settings of a session, and the steps that all estimands share."""

    def __init__(
        self,
        fit: Any,
        scale: str = "linear",
        *,
        at: Any = "overall",
        weights: Any = None,
        level: float | None = None,
        method: str = "delta",
        n_sim: int = 4000,
        n_boot: int = 1000,
        rng_seed: int | None = None,
        n_jobs: int = 1,
        ddf: str | None = None,
        random: str | Sequence[str] = "zero",
        adapter: ModelAdapter | type | None = None,
        vcov: Any = None,
        cluster: Any = None,
        boot: str = "parametric",
        component: str | None = None,
    ) -> None:
        self.scale: Scale = SCALES[_one_of("scale", scale, tuple(SCALES))]
        _one_of("method", method, _METHODS)
        self.adapter = find_adapter(fit, adapter, component)
        random = _random(random, self.adapter)
        self.options = _Options(at, check_level(1.0 - self.adapter.alpha if level is None else level), random)
        self.rows = SessionRows(self.adapter, at, weights, random)
        self._weighted = weights is not None
        integrate = random == "integrate"
        if isinstance(self.adapter, SeveralCategories) and scale in ("log", "logit"):
            raise OptionError(
                f"the {scale} scale has no meaning for the probabilities of several categories; use "
                "Margins.linear_scale for probabilities, or Margins.link_scale for the latent scale."
            )
        if isinstance(self.adapter, CategoryAdapter) and scale == "link":
            raise OptionError(
                "the categories of this model follow from several linear predictors; use Margins.response for their "
                "probabilities, or predict(type='linear')."
            )
        if isinstance(self.adapter, MeanAdapter):
            self._check_mean(self.adapter, scale)
        self._working = working_curve(self.scale, self.adapter.link, integrate)
        self._outcome = outcome_curve(self.scale, self.adapter.link, integrate)
        self._inference = Inference(
            self.adapter,
            method=method,
            n=n_sim if method == "simulation" else n_boot,
            seed=rng_seed,
            n_jobs=n_jobs,
            ddf=ddf,
            vcov=vcov,
            cluster=cluster,
            boot=boot,
            random=random,
        )

    @staticmethod
    def _check_mean(adapter: MeanAdapter, scale: str) -> None:
        if scale != "linear":
            raise OptionError(
                f"the {scale} scale belongs to one linear predictor, and the mean of this response follows from more "
                f"than one; use Margins.response, or component={adapter.component_hint}."
            )

    def levels(self, name: str) -> list[Any]:
        """The values of a variable that occur in the data of the fit, in order.

        Parameters
        ----------
        name : str
            A variable of the fixed effects.

        Returns
        -------
        list
        """
        self.rows.check_name(name)
        column = self.adapter.columns[name]
        distinct = np.unique(column.values)
        if column.is_factor:
            return [column.levels[code] for code in distinct.tolist()]
        if column.kind == "boolean":
            return [bool(value) for value in distinct]
        return [int(value) if float(value).is_integer() else value for value in distinct.tolist()]

    # --- parts

    def _scenarios(self, scenarios: Any) -> tuple[list[str] | None, list[Scenario]]:
        if scenarios is None or (not isinstance(scenarios, Mapping) and not hasattr(scenarios, "__iter__")):
            raise OptionError(
                "give `scenarios`: a list of dicts such as [{'treated': 0}, {'treated': 1}], or what "
                "lme4py.all_pairwise('treated') and lme4py.pairwise('treated', [1, 0]) make."
            )
        names = None
        if isinstance(scenarios, Mapping):
            names, scenarios = [str(name) for name in scenarios], list(scenarios.values())
        listed = [dict(scenario) if isinstance(scenario, Mapping) else scenario for scenario in scenarios]
        if not listed or not all(isinstance(scenario, dict) for scenario in listed):
            raise OptionError(
                "`scenarios` must be a list of dicts, or a dict of dicts; for all pairs of values of a factor give "
                "all_pairwise('the factor'), a function of lme4py."
            )
        self._check_scenarios(listed)
        return names, listed

    def _check_scenarios(self, scenarios: Sequence[Scenario]) -> None:
        for name in dict.fromkeys(name for scenario in scenarios for name in scenario):
            self.rows.check_name(name)

    def _check_units(self, unit_level: bool) -> None:
        if unit_level and self.rows.kind != "overall":
            raise OptionError(f"unit_level=True needs rows; at={self.rows.kind!r} has none. Use at='overall'.")

    def _grid(self, scenarios: Sequence[Scenario], group: RowGroup, also_moving: Sequence[str] = ()) -> Grid:
        moving = {*scenarios[0], *also_moving}
        population, random = self.rows.population(moving, group.rows), self.options.random
        if isinstance(self.adapter, CategoryAdapter):
            return CategoryGrid(self.adapter, population, scenarios, random)
        if not isinstance(self.adapter, MeanAdapter):
            return Grid(self.adapter, population, scenarios, random)
        curves = [
            working_curve(self.scale, None if one is None else one.link, random == "integrate")
            for one in (self.adapter.zeros, self.adapter)
        ]
        return MeanGrid(self.adapter, population, scenarios, random, *curves)

    def _predictions(self, scenarios: Sequence[Scenario], group: RowGroup) -> tuple[Estimand, int]:
        """Predictions of scenarios that may set different variables, in their order."""
        keys: dict[tuple[str, ...], list[int]] = {}
        for i, scenario in enumerate(scenarios):
            keys.setdefault(tuple(sorted(scenario)), []).append(i)
        grids = [self._grid([scenarios[i] for i in places], group) for places in keys.values()]
        order = np.argsort([i for places in keys.values() for i in places])
        inner = estimands.predictions(grids, self._working)
        if len(grids) > 1:
            inner = estimands.combined(inner, np.eye(len(scenarios))[order])
        return inner, grids[0].population.n_obs

    def _categories(
        self, build: Callable[[], tuple[Estimand, RowNames]], certain: Any, outcome: Any
    ) -> tuple[Estimand, RowNames]:
        """An estimand; for ordered categories (on the linear scale) one for each category.

        Parameters
        ----------
        build : callable
            Makes the estimand for the adapter of the session.
        certain : float or array
            What a row is when the probability is one: 1 for predictions, 0 for differences.
        outcome : object
            The categories that are asked for.
        """
        adapter = self.adapter
        if not isinstance(adapter, SeveralCategories) or self.scale.name != "linear":
            if outcome is not None:
                raise OptionError("`outcome` chooses categories of an ordinal model on the linear scale; leave it out.")
            return build()
        parts = []
        try:
            for cut in adapter.cuts:
                self.adapter = cut
                parts.append(build())
        finally:
            self.adapter = adapter
        names = parts[0][1]
        whole = np.array(np.broadcast_to(certain, len(names.labels)), dtype=np.float64)
        return by_category(adapter, [one for one, _ in parts], names, whole, outcome)

    def _finish(
        self,
        estimand: Estimand,
        names: RowNames,
        effect: str,
        title: str,
        notes: Sequence[str] = (),
        family: tuple[str, int] = ("custom", 0),
        curved: bool | None = None,
    ) -> MarginsResult:
        bent = not self._working.is_linear if curved is None else curved
        done = self._inference.apply(estimand, bent)
        if bool(((np.diag(done.covariance) == 0.0) & (done.value != 0.0)).any()):
            known = "A standard error of 0 is that of a number that depends on quantities taken as known"
            notes = (*notes, f"{known}: its test says nothing.")
        return MarginsResult(
            value=done.value,
            covariance=done.covariance,
            jacobian=done.jacobian,
            df=done.df,
            shown=effect,
            draws=done.draws,
            terms=tuple(names.terms),
            kinds=tuple(names.kinds),
            labels=tuple(names.labels),
            scenarios=names.table(),
            n_obs=np.array(names.n_obs),
            level=self.options.level,
            method=self._inference.method,
            title=f"{title} ({self._scale_text(effect, title)})",
            back=self._back(title),
            notes=(*notes, *self._session_notes(), *done.notes),
            family=family,
            tests=done.tests,
            is_curved=bent,
            nearby=done.nearby,
            numeric=frozenset(name for name in self.adapter.columns if not self.adapter.is_categorical(name)),
        )

    def _scale_text(self, effect: str, title: str) -> str:
        if title == "Contrasts" and effect != "identity":
            return f"{self.scale.effect_name}s" if effect == self.scale.effect else f"{self.scale.name} scale"
        if self.scale.name == "linear":
            return self.adapter.mean_name
        if title == "Predictions" and effect != "identity" and self.adapter.link is not None:
            return f"{self.adapter.mean_name}, averaged on the {self.scale.name} scale"
        return "linear predictor" if self.scale.name == "link" else f"{self.scale.name} scale"

    def _back(self, title: str) -> BackTransform | None:
        """Where limits of means are made, so that they stay in their range."""
        if title != "Predictions" or self.scale.name != "linear":
            return None
        several = isinstance(self.adapter, SeveralCategories)
        return back_transform(None if several else self.adapter.link, self.adapter.mean_range)

    def _session_notes(self) -> list[str]:
        at = self.options.at if isinstance(self.options.at, str) else "the given values or rows"
        rows = {"overall": "averaged over the rows of the data"}.get(str(at), f"at: {at}")
        if self._weighted:
            rows = "weighted average over the rows of the data" if at == "overall" else f"{rows}, weighted"
        random = self._inference_space()
        assumed = assumption(self.scale, self.adapter.link)
        return [f"{rows[0].upper()}{rows[1:]}; {random}.", *([assumed] if assumed else []), *self.adapter.notes]

    def _inference_space(self) -> str:
        """About which groups the estimates are, and with which random effects."""
        random, known = self.options.random, self._inference.joint is None
        if random == "zero":
            return "random effects at zero (broad inference)"
        if random == "integrate":
            return "averaged over the random effects (broad inference)"
        taken = ", taken as known" if known else ""
        if random == "conditional":
            return f"random effects at their conditional modes{taken} (narrow inference, about the groups of the data)"
        named = ", ".join(random)
        return f"random effects of {named} at their conditional modes{taken}, others at zero (intermediate inference)"

    def __repr__(self) -> str:
        return f"<Margins: {self.scale.name} scale, {self.adapter.description}>"


def _random(random: Any, adapter: ModelAdapter) -> Random:
    """Where random effects stand, from a name of it, a name of a kind of inference, or names of grouping factors."""
    if isinstance(random, (list, tuple)):
        if not random or not all(isinstance(name, str) for name in random):
            raise OptionError(f"random={random!r} must name grouping factors, such as random=['block'].")
        return adapter.check_groups(random)
    if random == "intermediate":
        raise OptionError(
            "random='intermediate' needs to know whose modes: name the grouping factors, such as random=['block']."
        )
    found = _RANDOM[_one_of("random", random, tuple(_RANDOM))]
    # Without random effects all of these are the same.
    return found if adapter.has_random else "zero"


def _one_of(name: str, value: Any, allowed: Sequence[str]) -> str:
    if value not in allowed:
        hint = did_you_mean(str(value), allowed)
        raise OptionError(f"{name}={value!r} is not known.{hint} Use one of {', '.join(map(repr, allowed))}.")
    return str(value)
