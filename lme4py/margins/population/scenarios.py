"""Scenarios: which variables are set to which values, and the helpers that write them and their contrasts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lme4py.data.column import Column
from lme4py.data.frame import Frame
from lme4py.errors import OptionError, did_you_mean
from lme4py.margins.models.adapter import ModelAdapter, frame_of

__all__ = [
    "ContrastSpec",
    "Scenario",
    "all_pairwise",
    "at_levels",
    "did",
    "expand_grid",
    "grid",
    "pairwise",
    "reference",
    "scenario_frame",
    "shown",
    "value_column",
]

Scenario = dict[str, Any]


@dataclass(frozen=True)
class ContrastSpec:
    """Scenarios with contrasts of them.

    It can be handed to `Margins.contrasts` as it is, with two stars, or in two pieces:
    ``scenarios, contrasts = pairwise("treated", [1, 0])``.

    Attributes
    ----------
    variable : str
    scenarios : list of dict
    contrasts : dict of str to list of float
        Label -> one weight for each scenario.
    family : str
        "pairwise" (all pairs), "reference", "custom": what Tukey's and Dunnett's procedures are for.
    waiting : str or None
        The helper that still needs the levels of the data.
    ref_level : object
    """

    variable: str
    scenarios: list[Scenario]
    contrasts: dict[str, list[float]]
    family: str = "custom"
    waiting: str | None = None
    ref_level: Any = None

    def ratio_labels(self) -> dict[str, list[float]]:
        """The contrasts under the labels of ratios: ``treated: 1 / 0``."""
        if self.family == "custom":
            return self.contrasts
        texts = [shown(scenario[self.variable]) for scenario in self.scenarios]
        labels = {}
        for weights in self.contrasts.values():
            labels[f"{self.variable}: {texts[weights.index(1.0)]} / {texts[weights.index(-1.0)]}"] = weights
        return labels

    def keys(self) -> tuple[str, str]:
        """Names of the two pieces, so that ``**spec`` works."""
        return ("scenarios", "contrasts")

    def __getitem__(self, key: str) -> Any:
        return getattr(self, key)

    def __iter__(self) -> Iterator[Any]:
        return iter((self.scenarios, self.contrasts))

    def resolved(self, levels: Sequence[Any]) -> ContrastSpec:
        """The same with the levels of the data where none were given."""
        if self.waiting is None:
            return self
        if self.waiting == "reference":
            return reference(self.variable, levels, ref_level=self.ref_level)
        return all_pairwise(self.variable, levels)


def shown(value: Any) -> str:
    """A value as text in a label."""
    if isinstance(value, (bool, np.bool_)):
        return str(bool(value))
    if isinstance(value, (float, np.floating)):
        return f"{float(value):.6g}"
    return str(value)


def at_levels(var: str, levels: Sequence[Any]) -> list[Scenario]:
    """One scenario for each level of a variable.

    Parameters
    ----------
    var : str
    levels : sequence

    Returns
    -------
    list of dict

    Examples
    --------
    >>> at_levels("treated", [0, 1])
    [{'treated': 0}, {'treated': 1}]
    """
    return [{var: level} for level in _levels(var, levels)]


def grid(values: Mapping[str, Any] | None = None, /, **more: Any) -> list[Scenario]:
    """All combinations of values, the first variable slowest.

    Parameters
    ----------
    values : dict of str to values, optional
    **more
        The same by name; single values count as lists of one.

    Returns
    -------
    list of dict

    Examples
    --------
    >>> grid(age=[20, 40], female=[0, 1])
    [{'age': 20, 'female': 0}, {'age': 20, 'female': 1}, {'age': 40, 'female': 0}, {'age': 40, 'female': 1}]
    """
    return expand_grid({**(values or {}), **more})


def expand_grid(values: Mapping[str, Any]) -> list[Scenario]:
    """Scenarios of all combinations, the first key slowest; single values count as lists of one."""
    if not isinstance(values, Mapping):
        raise OptionError(_no_grid(values))
    names = list(values)
    lists = [_levels(name, values[name]) for name in names]
    return [dict(zip(names, combination, strict=True)) for combination in product(*lists)]


def _no_grid(values: Any) -> str:
    name = values if isinstance(values, str) else "x"
    return (
        f"give the values of each variable, such as {{{name!r}: [0, 1]}}, got {values!r}; for groups of the rows as "
        f"they are: over={name!r}; for all pairs of values of a factor: contrasts(all_pairwise({name!r}))."
    )


def pairwise(var: str, levels: Sequence[Any] | None = None) -> ContrastSpec:
    """Differences between levels in the order given: the first minus the second, and so for all pairs of more.

    Parameters
    ----------
    var : str
    levels : sequence, optional
        Without it all pairs of levels of the data, the later minus the earlier, as `all_pairwise`.

    Returns
    -------
    ContrastSpec

    Examples
    --------
    >>> pairwise("treated", [1, 0]).contrasts
    {'treated: 1 - 0': [1.0, -1.0]}
    """
    return all_pairwise(var) if levels is None else _pairs(var, levels, first_minus_second=True)


def all_pairwise(var: str, levels: Sequence[Any] | None = None) -> ContrastSpec:
    """Differences of all pairs of levels, the later minus the earlier.

    Parameters
    ----------
    var : str
    levels : sequence, optional
        All levels of the data when not given.

    Returns
    -------
    ContrastSpec

    Examples
    --------
    >>> list(all_pairwise("arm", ["a", "b", "c"]).contrasts)
    ['arm: b - a', 'arm: c - a', 'arm: c - b']
    """
    if levels is None:
        return ContrastSpec(var, [], {}, "pairwise", waiting="pairwise")
    return _pairs(var, levels, first_minus_second=False)


def _pairs(var: str, levels: Sequence[Any], first_minus_second: bool) -> ContrastSpec:
    scenarios = at_levels(var, levels)
    values = [scenario[var] for scenario in scenarios]
    _two(var, values)
    weights = {}
    for pair in combinations(range(len(values)), 2):
        i, j = pair if first_minus_second else pair[::-1]
        weights[f"{var}: {shown(values[i])} - {shown(values[j])}"] = _unit(len(values), plus=(i,), minus=(j,))
    return ContrastSpec(var, scenarios, weights, "pairwise")


def reference(var: str, levels: Sequence[Any] | None = None, ref_level: Any = None) -> ContrastSpec:
    """Differences of every level from a reference level.

    Parameters
    ----------
    var : str
    levels : sequence, optional
        All levels of the data when not given; the reference level need not be among them.
    ref_level : object, optional
        The first level when not given.

    Returns
    -------
    ContrastSpec

    Examples
    --------
    >>> list(reference("school", ["B", "C"], ref_level="A").contrasts)
    ['school: B - A', 'school: C - A']
    """
    if levels is None:
        return ContrastSpec(var, [], {}, "reference", waiting="reference", ref_level=ref_level)
    values = _levels(var, levels)
    if ref_level is None:
        ref_level = values[0]
    rest = [value for value in values if value != ref_level]
    values = [ref_level, *rest]
    _two(var, values)
    weights = {
        f"{var}: {shown(level)} - {shown(ref_level)}": _unit(len(values), plus=(i + 1,), minus=(0,))
        for i, level in enumerate(rest)
    }
    return ContrastSpec(var, at_levels(var, values), weights, "reference")


def did(first: str, *rest: Any, **options: Any) -> ContrastSpec:
    """Difference in differences: the effect of one variable at the second level of another minus that at the first.

    Parameters
    ----------
    first : str
        The variable whose effect is compared.
    *rest
        ``did("treated", "post")`` for 0 and 1 in both, ``did("treated", "post", [0, 1], [0, 1])`` or
        ``did("treated", [0, 1], "post", [0, 1])``.

    Returns
    -------
    ContrastSpec

    Examples
    --------
    >>> did("treated", [0, 1], "post", ["before", "after"]).contrasts
    {'(treated: 1 - 0 at post = after) - (treated: 1 - 0 at post = before)': [1.0, -1.0, -1.0, 1.0]}
    """
    parts = [*rest, *options.values()]
    names = [part for part in parts if isinstance(part, str)]
    levels = [list(part) for part in parts if not isinstance(part, str)]
    if len(names) != 1 or len(levels) not in (0, 2) or any(len(part) != 2 for part in levels):
        raise OptionError("did() needs two variables with two levels each: did('treated', [0, 1], 'post', [0, 1]).")
    second = names[0]
    (a0, a1), (b0, b1) = levels or [[0, 1], [0, 1]]
    scenarios = [{first: a, second: b} for a in (a0, a1) for b in (b0, b1)]
    effect = f"{first}: {shown(a1)} - {shown(a0)}"
    label = f"({effect} at {second} = {shown(b1)}) - ({effect} at {second} = {shown(b0)})"
    return ContrastSpec(f"{first}:{second}", scenarios, {label: [1.0, -1.0, -1.0, 1.0]})


def _levels(var: str, levels: Any) -> list[Any]:
    if isinstance(levels, (str, bytes)) or not hasattr(levels, "__iter__"):
        return [levels]
    values = levels.tolist() if isinstance(levels, np.ndarray) else list(levels)
    if not values:
        raise OptionError(f"{var!r} has no values; give at least one.")
    return values


def _two(var: str, values: Sequence[Any]) -> None:
    if len(values) < 2:
        raise OptionError(f"a comparison of {var!r} needs two levels or more, but there is {len(values)}.")


def _unit(size: int, plus: tuple[int, ...], minus: tuple[int, ...]) -> list[float]:
    return [1.0 if i in plus else -1.0 if i in minus else 0.0 for i in range(size)]


# From values to columns -------------------------------------------------------------------------------------


def scenario_frame(adapter: ModelAdapter, scenarios: Sequence[Scenario]) -> Frame:
    """Scenarios that set the same variables as a frame with one row each."""
    names = list(scenarios[0])
    columns = {
        name: value_column(adapter, name, [scenario[name] for scenario in scenarios], adapter.columns[name])
        for name in names
    }
    return frame_of(columns, len(scenarios))


def value_column(adapter: ModelAdapter, name: str, values: Sequence[Any], trained: Column) -> Column:
    """Values of a variable as a column of the kind of the training data."""
    if trained.is_factor:
        return Column(name, trained.kind, _codes(name, values, trained), trained.levels)
    try:
        numbers = np.array([float(value) for value in values])
    except (TypeError, ValueError):
        raise OptionError(f"{name!r} is a numeric variable, but a value is {values[0]!r}; give numbers.") from None
    if not np.isfinite(numbers).all():
        raise OptionError(f"the values of {name!r} must be finite numbers.")
    if trained.kind == "boolean" or adapter.is_categorical(name):
        unknown = numbers[~np.isin(numbers, np.unique(trained.values))]
        if unknown.size:
            known = ", ".join(f"{level:g}" for level in np.unique(trained.values)[:8])
            raise OptionError(f"{name!r} never is {unknown[0]:g} in the data of the fit; its values are {known}.")
    return Column(name, trained.kind, numbers)


def _codes(name: str, values: Sequence[Any], trained: Column) -> NDArray[np.int64]:
    used = np.unique(trained.values).tolist()
    exact = {trained.levels[code]: code for code in used}
    by_text = {str(level): code for level, code in exact.items()}
    codes = []
    for value in values:
        code = exact.get(value) if _hashable(value) else None
        # "1" and 1 mean the same level where only one of them exists.
        code = by_text.get(shown(value)) if code is None else code
        if code is None:
            known = ", ".join(repr(level) for level in list(exact)[:8])
            hint = did_you_mean(str(value), by_text)
            raise OptionError(f"{value!r} is not a level of {name!r}; its levels are {known}.{hint}")
        codes.append(code)
    return np.array(codes, dtype=np.int64)


def _hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True
