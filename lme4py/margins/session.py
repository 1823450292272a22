"""A session: scale, rows, level and method fixed once, and the estimands asked of it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lme4py.engine.types import FloatArray
from lme4py.errors import OptionError, did_you_mean
from lme4py.margins import estimands
from lme4py.margins.adapter import ModelAdapter
from lme4py.margins.curves import Curve
from lme4py.margins.draws import Inference
from lme4py.margins.estimands import Estimand
from lme4py.margins.find import find_adapter
from lme4py.margins.grids import Grid
from lme4py.margins.groups import Group, groups_of
from lme4py.margins.labels import RowNames, contrast_labels, contrast_matrix, prediction_label
from lme4py.margins.population import Population, SessionRows
from lme4py.margins.result import MarginsResult, check_level
from lme4py.margins.scales import SCALES, Scale, outcome_curve, working_curve
from lme4py.margins.scenarios import ContrastSpec, Scenario, expand_grid, shown

__all__ = ["Margins"]

_METHODS: Final = ("delta", "simulation", "bootstrap")
_RANDOM: Final = ("zero", "integrate", "conditional")


@dataclass(frozen=True)
class _Options:
    """The settings of a session, checked."""

    at: Any
    level: float
    random: str


class Margins:
    """Predictions, slopes and contrasts of a fitted model.

    Made by `linear_scale`, `log_scale`, `logit_scale` or `link_scale`.

    Examples
    --------
    >>> from lme4py import Margins, glmer, load_dataset, pairwise
    >>> fit = glmer("cbind(incidence, size - incidence) ~ period + (1 | herd)", load_dataset("cbpp"))
    >>> m = Margins.logit_scale(fit, random="integrate")
    >>> m.predict(atexog={"period": ["1", "2", "3", "4"]}).estimate.round(4)
    array([0.2161, 0.097 , 0.0861, 0.0573])
    >>> ratio = Margins.logit_scale(fit).contrasts(pairwise("period", ["2", "1"]))
    >>> print(ratio.to_frame()[["label", "estimate"]].round(4).to_string(index=False))
              label  estimate
    period: 1 - 2    2.6969
    """

    def __init__(
        self,
        fit: Any,
        scale: str = "linear",
        *,
        at: Any = "overall",
        weights: Any = None,
        level: float = 0.95,
        method: str = "delta",
        n_sim: int = 4000,
        n_boot: int = 1000,
        rng_seed: int | None = None,
        n_jobs: int = 1,
        ddf: str | None = None,
        random: str = "zero",
        adapter: ModelAdapter | type | None = None,
        vcov: Any = None,
        cluster: Any = None,
        boot: str = "parametric",
    ) -> None:
        self.scale: Scale = SCALES[_one_of("scale", scale, tuple(SCALES))]
        _one_of("method", method, _METHODS)
        _one_of("random", random, _RANDOM)
        self.adapter = find_adapter(fit, adapter)
        self.options = _Options(at, check_level(level), random)
        self.rows = SessionRows(self.adapter, at, weights, random)
        integrate = random == "integrate"
        self._working = working_curve(self.scale, self.adapter.family, self.adapter.link, integrate)
        self._outcome = outcome_curve(self.scale, self.adapter.family, self.adapter.link, integrate)
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
        )

    @classmethod
    def linear_scale(cls, fit: Any, **options: Any) -> Margins:
        """A session on the scale of the response: means and their differences.

        Parameters
        ----------
        fit : MixedResult, MEGLMResult, or a statsmodels MixedLM fit
        at : str, dict or data frame
            Rows over which predictions are averaged. "overall": the data; "mean": numbers at their means, factors by
            their shares (the columns of the design are averaged); "median": the same with medians; "typical": means
            and the most frequent levels; "balanced": numbers at their means, all levels of factors alike (emmeans'
            reference grid); a dict fixes some variables and keeps the others; a data frame gives the rows.
        weights : array of shape (n,) or str, optional
            Weights of the rows in every average, share and median.
        level : float
            Confidence level.
        method : {"delta", "simulation", "bootstrap"}
            Gradients; draws from the normal distribution of the estimates; or refits of the same model to new
            responses (``boot="parametric"``) or to groups drawn with replacement (``boot="clusters"``, `cluster`
            names the grouping factor).
        n_sim, n_boot : int
        rng_seed : int, optional
            Seed of the draws; 0 when not given, so that results can be repeated.
        n_jobs : int
            Processes of the bootstrap.
        ddf : {None, "normal", "satterthwaite", "kenward-roger", "residual"}
            Degrees of freedom of each estimate; None is normal.
        random : {"zero", "integrate", "conditional"}
            Random effects at zero; averaged over their distribution; or at their conditional modes, which are taken
            as known.
        adapter : ModelAdapter or its class, optional
            For fits of other packages.
        vcov : str or array of shape (p, p), optional
            Another covariance of the fixed effects: an array, or the name of a robust one, as `cov_params` takes it.
        cluster : str, optional
            Clusters of the robust covariance, or of the bootstrap.

        Returns
        -------
        Margins
        """
        return cls(fit, "linear", **options)

    @classmethod
    def log_scale(cls, fit: Any, **options: Any) -> Margins:
        """A session on the log scale: logarithms of means are averaged and compared, and shown by exp.

        Predictions are geometric means, contrasts and slopes ratios. The response of a linear mixed model is taken to
        be a logarithm already. Parameters as in `linear_scale`.
        """
        return cls(fit, "log", **options)

    @classmethod
    def logit_scale(cls, fit: Any, **options: Any) -> Margins:
        """A session on the logit scale: logits of means are averaged and compared.

        Predictions are shown as probabilities, contrasts and slopes as odds ratios. The response of a linear mixed
        model is taken to be a logit already. Parameters as in `linear_scale`.
        """
        return cls(fit, "logit", **options)

    @classmethod
    def link_scale(cls, fit: Any, **options: Any) -> Margins:
        """A session on the linear predictor. Parameters as in `linear_scale`."""
        return cls(fit, "link", **options)

    # --- predictions

    def predict(
        self, atexog: Mapping[str, Any] | None = None, over: Any = None, *, unit_level: bool = False
    ) -> MarginsResult:
        """Average predictions on a grid of values.

        Parameters
        ----------
        atexog : dict of str to values, optional
            Variables that are set, the first one slowest; the other variables as `at` says.
        over : str or list of str, optional
            Average within the groups of these variables instead of over all rows.
        unit_level : bool
            The prediction of every row instead of averages.

        Returns
        -------
        MarginsResult
        """
        scenarios = expand_grid(atexog) if atexog else [{}]
        self._check_scenarios(scenarios)
        groups = groups_of(self.rows, over)
        grids = [self._grid(scenarios, group) for group in groups]
        names = RowNames()
        for group, grid in zip(groups, grids, strict=True):
            self._name_predictions(names, scenarios, group, grid.population, unit_level)
        make = estimands.unit_predictions if unit_level else estimands.predictions
        self._check_units(unit_level)
        return self._finish(make(grids, self._working), names, self.scale.prediction, "Predictions")

    def _name_predictions(
        self, names: RowNames, scenarios: Sequence[Scenario], group: Group, population: Population, unit_level: bool
    ) -> None:
        for scenario in scenarios:
            values = {**group.values, **scenario}
            label = prediction_label(values)
            if not unit_level:
                names.add("prediction", "predict", label, values, population.n_obs)
                continue
            for row in population.index:
                names.add("prediction", "predict", label, {**values, "row": row}, 1)

    # --- slopes

    def dydx(self, vars: Any = None, over: Any = None, **options: Any) -> MarginsResult:
        """Average slopes: dy/dx of numeric variables, differences from the first level of the others.

        Parameters
        ----------
        vars : str, list of str, optional
            All predictors when not given (or ``"*"``).
        over : str or list of str, optional
            Within the groups of these variables.
        atexog : dict, optional
            Set these variables first.
        unit_level : bool
            Every row instead of averages.

        Returns
        -------
        MarginsResult
            On the log and logit scales slopes are shown by exp: ratios for one unit more.
        """
        return self._slopes("dydx", vars, over, **options)

    def eyex(self, vars: Any = None, over: Any = None, **options: Any) -> MarginsResult:
        """Average elasticities (dy/dx) x / y of the response; arguments as in `dydx`."""
        return self._slopes("eyex", vars, over, **options)

    def eydx(self, vars: Any = None, over: Any = None, **options: Any) -> MarginsResult:
        """Average semi-elasticities (dy/dx) / y of the response; arguments as in `dydx`."""
        return self._slopes("eydx", vars, over, **options)

    def dyex(self, vars: Any = None, over: Any = None, **options: Any) -> MarginsResult:
        """Average semi-elasticities (dy/dx) x of the response; arguments as in `dydx`."""
        return self._slopes("dyex", vars, over, **options)

    def _slopes(
        self,
        kind: str,
        vars: Any,
        over: Any,
        atexog: Mapping[str, Any] | None = None,
        unit_level: bool = False,
    ) -> MarginsResult:
        variables = self._variables(vars)
        scenarios = expand_grid(atexog) if atexog else [{}]
        self._check_scenarios(scenarios)
        self._check_units(unit_level)
        parts: list[Estimand] = []
        names, notes = RowNames(), []
        for variable in variables:
            discrete = self._is_discrete(variable)
            if discrete:
                notes.append(f"{variable}: differences from its first level, not derivatives.")
                if kind in ("eyex", "dyex"):
                    raise OptionError(
                        f"{kind} of {variable!r} is not defined: it has levels, not amounts; use dydx or eydx."
                    )
            for group in groups_of(self.rows, over):
                add = self._add_changes if discrete else self._add_slope
                parts += add(names, kind, variable, scenarios, group, unit_level)
        effect = self.scale.effect if kind == "dydx" else "identity"
        title = {"dydx": "Slopes", "eyex": "Elasticities"}.get(kind, "Semi-elasticities")
        return self._finish(estimands.stacked(parts), names, effect, title, notes)

    def _add_slope(
        self,
        names: RowNames,
        kind: str,
        variable: str,
        scenarios: Sequence[Scenario],
        group: Group,
        unit_level: bool,
    ) -> list[Estimand]:
        grid = self._grid(scenarios, group, also_moving=())
        curve = self._working if kind == "dydx" else self._outcome
        for scenario in scenarios:
            values = {**group.values, **scenario}
            for row in grid.population.index if unit_level else [None]:
                own = values if row is None else {**values, "row": row}
                n_obs = grid.population.n_obs if row is None else 1
                names.add(variable, kind, prediction_label(values, variable), own, n_obs)
        return [estimands.slopes(self.adapter, grid, variable, curve, self.options.random, kind, unit_level)]

    def _add_changes(
        self,
        names: RowNames,
        kind: str,
        variable: str,
        scenarios: Sequence[Scenario],
        group: Group,
        unit_level: bool,
    ) -> list[Estimand]:
        levels = self.levels(variable)
        curve = self._working if kind == "dydx" else estimands.logarithm_of(self._outcome)
        parts = []
        for scenario in scenarios:
            grid = self._grid([{**scenario, variable: level} for level in levels], group)
            values = {**group.values, **scenario}
            size = grid.population.frame.n_rows if unit_level else 1
            weights = np.hstack([-np.ones((len(levels) - 1, 1)), np.eye(len(levels) - 1)])
            make = estimands.unit_predictions if unit_level else estimands.predictions
            parts.append(estimands.combined(make([grid], curve), np.kron(weights, np.eye(size))))
            for level in levels[1:]:
                label = prediction_label(values, f"{variable}: {shown(level)} - {shown(levels[0])}")
                for row in grid.population.index if unit_level else [None]:
                    own = values if row is None else {**values, "row": row}
                    names.add(variable, kind, label, own, grid.population.n_obs if row is None else 1)
        return parts

    def _variables(self, vars: Any) -> list[str]:
        known = list(self.adapter.variables)
        if vars is None or (isinstance(vars, str) and vars in ("*", "all") and vars not in known):
            return known
        chosen = [vars] if isinstance(vars, str) else list(vars)
        for name in chosen:
            if name not in known:
                hint = did_you_mean(str(name), known)
                raise OptionError(f"{name!r} is not in the fixed effects.{hint} They use {', '.join(known)}.")
        return chosen

    def _is_discrete(self, name: str) -> bool:
        if self.adapter.is_categorical(name):
            return True
        values = self.adapter.columns[name].values
        return bool(np.isin(values, (0.0, 1.0)).all()) and np.unique(values).size == 2

    def levels(self, name: str) -> list[Any]:
        """The values of a variable that occur in the data of the fit, in order."""
        self.rows.check_name(name)
        column = self.adapter.columns[name]
        distinct = np.unique(column.values)
        if column.is_factor:
            return [column.levels[code] for code in distinct.tolist()]
        if column.kind == "boolean":
            return [bool(value) for value in distinct]
        return [int(value) if float(value).is_integer() else value for value in distinct.tolist()]

    # --- contrasts

    def contrasts(self, scenarios: Any = None, contrasts: Any = None, over: Any = None) -> MarginsResult:
        """Weighted sums of the predictions of scenarios.

        Parameters
        ----------
        scenarios : list of dict, dict of dict, or what `pairwise` and its relatives return
            Each scenario sets some variables.
        contrasts : list of weights, dict of label to weights, or matrix (K, S), optional
            Weights of the scenarios; with named scenarios a contrast may be a dict of name to weight.
        over : str or list of str, optional
            Within the groups of these variables.

        Returns
        -------
        MarginsResult
            Weights that sum to zero are differences (ratios and odds ratios on the log and logit scales).
        """
        spec = scenarios if isinstance(scenarios, ContrastSpec) else contrasts
        if isinstance(spec, ContrastSpec):
            if spec.waiting is not None:
                spec = spec.resolved(self.levels(spec.variable))
            scenarios, contrasts = spec.scenarios, spec.contrasts
        names_of, listed = self._scenarios(scenarios)
        weights, labels = contrast_matrix(contrasts, names_of, listed)
        labels = contrast_labels(labels, weights, names_of, listed)
        variable = spec.variable if isinstance(spec, ContrastSpec) else ":".join(dict.fromkeys(k for s in listed for k in s))
        parts, names = [], RowNames()
        for group in groups_of(self.rows, over):
            inner, n_obs = self._predictions(listed, group)
            parts.append(estimands.combined(inner, weights))
            for label in labels:
                names.add(variable, "contrast", prediction_label(group.values, label), dict(group.values), n_obs)
        effect, notes = self._effect_of(weights)
        family = (spec.family, len(listed)) if isinstance(spec, ContrastSpec) and over is None else _family(weights)
        return self._finish(estimands.stacked(parts), names, effect, "Contrasts", notes, family)

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

    def evaluate(self, scenarios: Any, compose: Callable[..., Any]) -> MarginsResult:
        """Any smooth function of the predictions of scenarios.

        Parameters
        ----------
        scenarios : list of dict, or dict of dict
        compose : callable
            Receives the predictions as they are shown: an array of shape (S,), or S numbers if it has S arguments, or a
            dict for named scenarios; returns a number, an array, or a dict of numbers.

        Returns
        -------
        MarginsResult
        """
        if not callable(compose):
            raise OptionError(f"`compose` is {compose!r}; give a function of the predictions.")
        if isinstance(scenarios, ContrastSpec):
            scenarios = scenarios.resolved(self.levels(scenarios.variable)).scenarios if scenarios.waiting else scenarios[
                "scenarios"
            ]
        names_of, listed = self._scenarios(scenarios)
        inner, n_obs = self._predictions(listed, Group({}, None))
        function = _caller(compose, names_of, len(listed))
        estimand = estimands.composed(inner, self.scale.prediction, function.numbers)
        size = estimand(self._inference.estimates, False)[0].size
        names = RowNames()
        for label in function.labels(size):
            names.add(label, "evaluate", label, {}, n_obs)
        return self._finish(estimand, names, "identity", "Functions of predictions")

    # --- parts

    def _scenarios(self, scenarios: Any) -> tuple[list[str] | None, list[Scenario]]:
        if scenarios is None or (not isinstance(scenarios, Mapping) and not hasattr(scenarios, "__iter__")):
            raise OptionError("give `scenarios`: a list of dicts such as [{'treated': 0}, {'treated': 1}].")
        names = None
        if isinstance(scenarios, Mapping):
            names, scenarios = [str(name) for name in scenarios], list(scenarios.values())
        listed = [dict(scenario) if isinstance(scenario, Mapping) else scenario for scenario in scenarios]
        if not listed or not all(isinstance(scenario, dict) for scenario in listed):
            raise OptionError("`scenarios` must be a list of dicts, or a dict of dicts.")
        self._check_scenarios(listed)
        return names, listed

    def _check_scenarios(self, scenarios: Sequence[Scenario]) -> None:
        for name in dict.fromkeys(name for scenario in scenarios for name in scenario):
            self.rows.check_name(name)

    def _check_units(self, unit_level: bool) -> None:
        if unit_level and self.rows.kind != "overall":
            raise OptionError(f"unit_level=True needs rows; at={self.rows.kind!r} has none. Use at='overall'.")

    def _grid(
        self, scenarios: Sequence[Scenario], group: Group, also_moving: Sequence[str] = ()
    ) -> Grid:
        moving = {*scenarios[0], *also_moving}
        return Grid(self.adapter, self.rows.population(moving, group.rows), scenarios, self.options.random)

    def _predictions(self, scenarios: Sequence[Scenario], group: Group) -> tuple[Estimand, int]:
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

    def _finish(
        self,
        estimand: Estimand,
        names: RowNames,
        effect: str,
        title: str,
        notes: Sequence[str] = (),
        family: tuple[str, int] = ("custom", 0),
    ) -> MarginsResult:
        done = self._inference.apply(estimand)
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
            notes=(*notes, *self._session_notes(), *done.notes),
            family=family,
            tests=done.tests,
        )

    def _scale_text(self, effect: str, title: str) -> str:
        if title == "Contrasts" and effect != "identity":
            return f"{self.scale.effect_name}s" if effect == self.scale.effect else f"{self.scale.name} scale"
        return f"{self.scale.name} scale"

    def _session_notes(self) -> list[str]:
        at = self.options.at if isinstance(self.options.at, str) else "the given values or rows"
        rows = {"overall": "averaged over the rows of the data"}.get(str(at), f"at: {at}")
        random = {
            "zero": "random effects at zero",
            "integrate": "averaged over the random effects",
            "conditional": "random effects at their conditional modes, taken as known",
        }[self.options.random]
        return [f"{rows[0].upper()}{rows[1:]}; {random}.", *self.adapter.notes]

    def __repr__(self) -> str:
        return f"<Margins: {self.scale.name} scale, {self.adapter.description}>"


class _caller:
    """Calls `compose` in the way that it is written for."""

    def __init__(self, compose: Callable[..., Any], names: list[str] | None, size: int) -> None:
        self.compose, self.names = compose, names
        self.spread = size > 1 and _required_arguments(compose) == size
        self.keys: list[str] | None = None

    def numbers(self, y: NDArray[Any]) -> Any:
        """The value as an array."""
        if self.spread:
            value = self.compose(*y)
        elif self.names is not None:
            value = self.compose(dict(zip(self.names, y, strict=True)))
        else:
            value = self.compose(y)
        if isinstance(value, Mapping):
            self.keys = [str(key) for key in value]
            return np.array(list(value.values()))
        return value

    def labels(self, size: int) -> list[str]:
        """One label for each number."""
        if self.keys is not None:
            return self.keys
        name = getattr(self.compose, "__name__", "value")
        name = "value" if name == "<lambda>" else name
        return [name] if size == 1 else [f"{name}[{i}]" for i in range(size)]


def _required_arguments(function: Callable[..., Any]) -> int | None:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in kinds and p.default is inspect.Parameter.empty for p in parameters)


def _family(weights: FloatArray) -> tuple[str, int]:
    """Whether contrasts are all pairs of the scenarios."""
    m, k = weights.shape
    simple = (np.sort(weights, axis=1)[:, [0, -1]] == [-1.0, 1.0]).all() and (np.abs(weights).sum(axis=1) == 2).all()
    pairs = {tuple(sorted(np.flatnonzero(row).tolist())) for row in weights}
    return ("pairwise", k) if simple and m == k * (k - 1) // 2 and len(pairs) == m else ("custom", 0)


def _one_of(name: str, value: Any, allowed: Sequence[str]) -> str:
    if value not in allowed:
        hint = did_you_mean(str(value), allowed)
        raise OptionError(f"{name}={value!r} is not known.{hint} Use one of {', '.join(map(repr, allowed))}.")
    return str(value)
