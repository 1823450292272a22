"""What every bootstrap task needs, whatever the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lme4py.design.design import Design
from lme4py.engine.threads import limited_threads
from lme4py.errors import Lme4Error
from lme4py.fits.answers.draws import generators
from lme4py.fits.answers.many import TASK_NUMBERS, TASK_REPLICATES, Many, one_by_one
from lme4py.fits.base import Fit
from lme4py.fits.groups import default_group, group_codes, resampled_design, without_level
from lme4py.fits.kinds import model_of
from lme4py.fits.parameters import Parameter, fit_parameters, fit_values
from lme4py.linalg.types import FloatArray

__all__ = ["Part", "Seeds", "Statistic", "Task", "Wrap", "stack_values"]

Wrap = Callable[[Any], Any]
Statistic = Callable[[Any], Any]
Seeds = Sequence[np.random.SeedSequence]


@dataclass(frozen=True)
class Part:
    """Replicates of one task: values (B, s), failures by position in the task."""

    values: FloatArray
    failures: tuple[tuple[int, str], ...]
    n_not_converged: int


@dataclass(frozen=True)
class Task:
    """What every process needs to make replicates.

    Attributes
    ----------
    fit : Fit
    kind : str
    group : str or None
    func : callable or None
        None takes all parameters.
    wrap : callable or None
        Makes of a fit what `func` expects.
    """

    fit: Fit
    kind: str
    group: str | None
    func: Statistic | None
    wrap: Wrap | None

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """All parameters of the model, those of a residual structure last."""
        return (*fit_parameters(self.fit), *model_of(self.fit).residual_parameters())

    @property
    def names(self) -> list[str]:
        """Names of the statistics."""
        if self.func is None:
            return [parameter.name for parameter in self.parameters]
        return list(self._call(self.fit))

    def estimates(self) -> FloatArray:
        """The statistics of the fit itself."""
        if self.func is None:
            return fit_values(self.fit, self.parameters)
        return self._values(self.fit)

    def _call(self, fit: Any) -> dict[str, float]:
        if self.func is None:
            raise ValueError("there is no function")
        return _as_numbers(self.func(fit if self.wrap is None else self.wrap(fit)), self.func)

    def _values(self, fit: Any) -> FloatArray:
        return np.array(list(self._call(fit).values()))

    def size(self) -> int:
        """Replicates in one task."""
        if self.func is None and self.kind != "cases":
            return model_of(self.fit).together()
        rows = max(self.fit.design.n_obs, 1)
        return max(1, min(TASK_REPLICATES["single"], TASK_NUMBERS // rows))

    def __call__(self, seeds: Seeds) -> Part:
        """The replicates of some seeds."""
        with limited_threads(self.fit.design):
            return self._each(self._case_fits(seeds)) if self.kind == "cases" else self._responses(seeds)

    def _responses(self, seeds: Seeds) -> Part:
        """Replicates with new responses."""
        model = model_of(self.fit)
        draws = model.resampler() if self.kind == "semiparametric" else model.simulator()
        Y = draws.draw(seeds)
        if self.func is not None:
            return self._each(self._valued(make) for make in model.refits(Y))
        found = model.estimates(Y)
        return Part(self._stacked(found), found.failures, found.n_not_converged)

    def _valued(self, make: Callable[[], Fit]) -> Callable[[], FloatArray]:
        return lambda: self._values(make())

    def _stacked(self, found: Many) -> FloatArray:
        """Values of all parameters, (B, s)."""
        return stack_values(self.parameters, found)

    def _of_design(self, design: Design) -> FloatArray:
        """The statistics of the model of another design."""
        model = model_of(self.fit)
        if self.func is not None:
            return self._values(model.fit_of_design(design))
        values: FloatArray = self._stacked(model.estimates_of_design(design))[0]
        return values

    def of_design(self, design: Design) -> FloatArray:
        """The statistics of the model of another design, whose fixed effects must be identified."""
        if np.linalg.matrix_rank(design.X) < design.X.shape[1]:
            raise Lme4Error("the groups that were drawn do not identify all fixed effects")
        return self._of_design(design)

    def _case_fits(self, seeds: Seeds) -> Iterator[Callable[[], FloatArray]]:
        design = self.fit.design
        codes = group_codes(design, self.group or "")
        for rng in generators(seeds):
            drawn = resampled_design(design, codes, rng)

            def make(drawn: Any = drawn) -> FloatArray:
                return self.of_design(drawn)

            yield make

    def jackknife(self) -> FloatArray:
        """The statistics without each level of the group in turn, (J, s)."""
        design = self.fit.design
        codes = group_codes(design, self.group or default_group(design, None, required=False))
        levels = int(codes.max()) + 1
        makers = ((lambda j=j: self.of_design(without_level(design, codes, j))) for j in range(levels))
        with limited_threads(design):
            return self._each(makers).values

    def _each(self, makers: Iterator[Callable[[], FloatArray]]) -> Part:
        """Values one by one; whatever goes wrong in one replicate is recorded."""
        made = one_by_one(makers)
        width = max(1 if row is None else row.size for row in made.values)
        values = np.full((len(made.values), width), np.nan)
        for out, row in zip(values, made.values, strict=True):
            if row is not None:
                out[: row.size] = row
        return Part(values, made.failures, made.n_not_converged)


def stack_values(wanted: Sequence[Parameter], found: Many) -> FloatArray:
    """Values of parameters of B fits, (B, s); a correlation with an effect that has no variance is NaN.

    Parameters
    ----------
    wanted : sequence of Parameter
    found : Many
    """
    by_place = {"fixed": found.beta, "threshold": found.thresholds, "other": found.others}
    columns = []
    for parameter in wanted:
        own = by_place.get(parameter.kind)
        if own is not None:
            columns.append(own[:, parameter.first])
        elif parameter.kind == "residual" and found.residual is not None:
            columns.append(found.residual[:, parameter.natural])
        elif parameter.kind == "dispersion" and found.dispersion is not None:
            columns.append(parameter.reported(found.dispersion))
        elif parameter.kind == "sigma":
            columns.append(found.sigma)
        else:
            columns.append(_of_covariances(parameter, found.covariances[parameter.term]))
    return np.column_stack(columns)


def _of_covariances(parameter: Parameter, covariances: FloatArray) -> FloatArray:
    """A standard deviation, correlation or other parameter of the covariance matrices of a term, (B,)."""
    i, j = parameter.first, parameter.second
    if parameter.shape is not None:
        return np.array([parameter.of_covariance(one) for one in covariances])
    if parameter.kind == "sd":
        return np.asarray(np.sqrt(covariances[:, i, i]))
    size = np.sqrt(covariances[:, i, i] * covariances[:, j, j])
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(size > 0, np.clip(covariances[:, i, j] / size, -1.0, 1.0), np.nan)


def _as_numbers(value: Any, func: Statistic) -> dict[str, float]:
    """What a function returned, as named numbers."""
    if hasattr(value, "items"):
        return {str(name): float(number) for name, number in value.items()}
    array = np.asarray(value, dtype=np.float64)
    name = getattr(func, "__name__", "statistic").replace("<lambda>", "statistic")
    if array.ndim == 0:
        return {name: float(array)}
    return {f"{name}_{i + 1}": float(number) for i, number in enumerate(array.ravel())}
