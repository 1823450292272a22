"""Readable names of estimates, and contrasts in all the forms that they can be given in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lme4py.data.beside import is_numbered
from lme4py.errors import OptionError, did_you_mean
from lme4py.linalg.types import FloatArray
from lme4py.margins.population.scenarios import Scenario, shown

__all__ = ["RowNames", "contrast_labels", "contrast_matrix", "family_of", "prediction_label"]


@dataclass
class RowNames:
    """Names of estimates as they are put together, one entry for each."""

    terms: list[str] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    values: list[dict[str, Any]] = field(default_factory=list)
    n_obs: list[int] = field(default_factory=list)

    def add(self, term: str, kind: str, label: str, values: dict[str, Any], n_obs: int) -> None:
        """One more estimate."""
        self.terms.append(term)
        self.kinds.append(kind)
        self.labels.append(label)
        self.values.append(values)
        self.n_obs.append(n_obs)

    def table(self) -> dict[str, list[Any]]:
        """Values of the scenario variables, a list for each; None where an estimate does not set it."""
        names = dict.fromkeys(name for values in self.values for name in values)
        return {name: [values.get(name) for values in self.values] for name in names}


def prediction_label(values: Mapping[str, Any], what: str = "") -> str:
    """``age = 20, female = 1``, or ``treated: 1 - 0 at female = 1``."""
    setting = ", ".join(f"{name} = {shown(value)}" for name, value in values.items())
    if not what:
        return setting or "prediction"
    return f"{what} at {setting}" if setting else what


def contrast_matrix(
    contrasts: Any, names: list[str] | None, scenarios: Sequence[Scenario]
) -> tuple[FloatArray, list[str | None]]:
    """Weights of shape (K, S) and the labels that the user gave."""
    S = len(scenarios)
    if contrasts is None:
        raise OptionError("give `contrasts`: weights of the scenarios, such as [-1, 1], or use pairwise().")
    named = _with_names(contrasts)
    if named is not contrasts and isinstance(named, Mapping) and not hasattr(contrasts, "columns"):
        return _checked(_row(named, names, S)[None], S), [None]
    contrasts = named
    if isinstance(contrasts, Mapping):
        if _is_named(contrasts, names):
            return _row(contrasts, names, S)[None], [None]
        labels: list[str | None] = [str(label) for label in contrasts]
        return _checked(np.stack([_row(one, names, S) for one in contrasts.values()]), S), labels
    listed = [_with_names(one) for one in contrasts]
    if listed and all(isinstance(one, Mapping) for one in listed):
        return _checked(np.stack([_row(one, names, S) for one in listed]), S), [None] * len(listed)
    try:
        weights = np.atleast_2d(np.asarray(listed, dtype=np.float64))
    except (TypeError, ValueError):
        raise OptionError("`contrasts` must be numbers: one weight for each scenario, or a matrix of them.") from None
    return _checked(weights, S), [None] * weights.shape[0]


def _is_named(contrast: Mapping[Any, Any], names: list[str] | None) -> bool:
    """A single contrast as {name of scenario: weight}."""
    return names is not None and all(key in names and np.isscalar(value) for key, value in contrast.items())


def _with_names(contrasts: Any) -> Any:
    """Series and data frames with labels as dicts, so that weights stand with the scenarios that they name."""
    if hasattr(contrasts, "columns") and hasattr(contrasts, "iterrows"):
        rows = [_with_names(row) for _, row in contrasts.iterrows()]
        return rows if is_numbered(contrasts.index) else dict(zip(contrasts.index, rows, strict=True))
    index = getattr(contrasts, "index", None)
    if index is None or callable(index):
        return contrasts
    return contrasts.to_numpy() if is_numbered(index) else dict(zip(index, contrasts.tolist(), strict=True))


def _row(weights: Any, names: list[str] | None, size: int) -> FloatArray:
    weights = _with_names(weights)
    if isinstance(weights, Mapping):
        if names is None:
            raise OptionError("weights by name need named scenarios: give `scenarios` as a dict.")
        for key in weights:
            if key not in names:
                raise OptionError(f"there is no scenario {key!r}.{did_you_mean(str(key), names)}")
        return np.array([float(weights.get(name, 0.0)) for name in names])
    row = np.asarray(weights, dtype=np.float64)
    if row.shape != (size,):
        raise OptionError(f"a contrast has {row.size} weights but there are {size} scenarios; give one for each.")
    return row


def _checked(weights: FloatArray, size: int) -> FloatArray:
    if weights.ndim != 2 or weights.shape[1] != size:
        raise OptionError(f"`contrasts` has shape {weights.shape} for {size} scenarios; give one column for each.")
    if not np.isfinite(weights).all() or not np.abs(weights).sum(axis=1).all():
        raise OptionError("`contrasts` must be finite, and every contrast needs a weight that is not zero.")
    return weights


def contrast_labels(
    labels: Sequence[str | None], weights: FloatArray, names: list[str] | None, scenarios: Sequence[Scenario]
) -> list[str]:
    """The user's labels, or ``treated: 1 - 0`` made from the scenarios."""
    shared = {name for scenario in scenarios for name in scenario}
    one = next(iter(shared)) if len(shared) == 1 and all(len(scenario) == 1 for scenario in scenarios) else None
    if names is not None:
        texts = names
    elif one is not None:
        texts = [shown(scenario[one]) for scenario in scenarios]
    else:
        texts = [f"({prediction_label(scenario)})" for scenario in scenarios]
    prefix = f"{one}: " if one is not None and names is None else ""
    return [label or prefix + _sum_text(row, texts) for label, row in zip(labels, weights, strict=True)]


def _sum_text(weights: FloatArray, texts: Sequence[str]) -> str:
    # Positive parts first, so that a difference reads as one.
    order = sorted(np.flatnonzero(weights).tolist(), key=lambda j: weights[j] < 0)
    text = ""
    for j in order:
        w = weights[j]
        size = "" if abs(w) == 1 else f"{abs(w):.4g} "
        sign = ("-" if w < 0 else "") if not text else " - " if w < 0 else " + "
        text += f"{sign}{size}{texts[j]}"
    return text


def family_of(weights: FloatArray) -> tuple[str, int]:
    """Whether contrasts are all pairs of the scenarios."""
    m, k = weights.shape
    simple = (np.sort(weights, axis=1)[:, [0, -1]] == [-1.0, 1.0]).all() and (np.abs(weights).sum(axis=1) == 2).all()
    pairs = {tuple(sorted(np.flatnonzero(row).tolist())) for row in weights}
    return ("pairwise", k) if simple and m == k * (k - 1) // 2 and len(pairs) == m else ("custom", 0)
