"""Where a search begins when the user says so: theta, fixed effects, means, or the dispersion, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from lme4py.errors import OptionError, did_you_mean
from lme4py.linalg.types import FloatArray

if TYPE_CHECKING:
    from lme4py.fits.generalised.criterion import GlmmCriterion

__all__ = ["START_NAMES", "read_start"]

START_NAMES = ("theta", "beta", "mu", "dispersion", "shape")
_ALIASES = {"fixef": "beta", "par": "theta", "mustart": "mu"}


def read_start(criterion: GlmmCriterion, start: Any) -> dict[str, Any] | None:
    """The fields of the engine's start that the user gave.

    Parameters
    ----------
    criterion : GlmmCriterion
    start : array of shape (m,), dict, or None
        theta; or a dict with theta, beta (also fixef), mu (means of the rows used), dispersion or shape.

    Returns
    -------
    dict or None
        theta, beta and lam in the engine's columns.

    Raises
    ------
    OptionError
    """
    if start is None:
        return None
    if not isinstance(start, Mapping):
        return {"theta": criterion.to_inside(start)}
    given = {_name(key): value for key, value in start.items()}
    if "beta" in given and "mu" in given:
        raise OptionError("start gives beta and mu; give one of them: means lead to fixed effects.")
    found: dict[str, Any] = {}
    if "theta" in given:
        found["theta"] = criterion.to_inside(given["theta"])
    for name in ("beta", "mu"):
        if name in given:
            found["beta"] = _beta(criterion, name, given[name])
    for name in ("dispersion", "shape"):
        if name in given:
            found["lam"] = _log_dispersion(criterion, name, given[name])
    return found


def _name(key: object) -> str:
    name = _ALIASES.get(str(key), str(key))
    if name not in START_NAMES:
        raise OptionError(
            f"start has no part {key!r}.{did_you_mean(str(key), START_NAMES)} It has {', '.join(START_NAMES)}."
        )
    return name


def _numbers(name: str, given: Any, size: int, what: str) -> FloatArray:
    try:
        values = np.asarray(given, dtype=np.float64).ravel()
    except (TypeError, ValueError):
        values = np.empty(0)
    if values.size != size or not np.isfinite(values).all():
        raise OptionError(f"start[{name!r}] must hold {size} finite numbers, {what}.")
    return values


def _beta(criterion: GlmmCriterion, name: str, given: Any) -> FloatArray:
    design, problem = criterion.design, criterion.problem
    if criterion.family.has_thresholds:
        raise OptionError(f"start[{name!r}] is not there for ordered categories; give theta.")
    if name == "beta":
        beta = _numbers(name, given, len(design.x_names), f"one for each of {', '.join(design.x_names)}")
        return np.asarray(np.linalg.solve(problem.C, beta))
    link = criterion.family.link
    mu = _numbers(name, given, design.n_obs, "one for each row used")
    low, high = sorted(link.extremes)
    if not ((mu > low) & (mu < high)).all():
        raise OptionError("start['mu'] has means at the end of their range or beyond; give means inside.")
    rest = link.eta(mu) - (0.0 if design.offset is None else design.offset)
    found = np.linalg.lstsq(design.X, rest, rcond=None)[0]
    return np.asarray(np.linalg.solve(problem.C, found))


def _log_dispersion(criterion: GlmmCriterion, name: str, given: Any) -> Any:
    family = criterion.family
    if (family.n_dispersion, family.n_nuisance) != (1, 1):
        raise OptionError(f"start[{name!r}]: a {family.name} model has no dispersion as its only parameter beside.")
    if name == "shape" and family.parameter not in ("theta", "shape"):
        raise OptionError(
            f"start['shape']: the parameter of the {family.name} family is {family.parameter}; give "
            "start['dispersion']."
        )
    value = float(_numbers(name, given, 1, "the dispersion as results report it")[0])
    if value <= 0.0:
        raise OptionError(f"start[{name!r}] is {value:g}; give a positive number.")
    return float(np.log(value))
