"""Least-squares means by arm and visit, and differences of arms at each visit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from lme4py.data.column import Column
from lme4py.data.frame import Frame, as_factor_column
from lme4py.design.recipe import new_fixed
from lme4py.design.source import is_unchanged
from lme4py.errors import Lme4Error, Lme4Warning, OptionError, did_you_mean, warn
from lme4py.fits.base import Fit, fit_of
from lme4py.formula.deparse import names_in
from lme4py.formula.several import RESPONSE
from lme4py.inference.estimates.coefficients import coefficient_method, quantile, two_sided
from lme4py.linalg.types import FloatArray, IntArray

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["trial_frame"]

_COLUMNS = ("estimate", "std_error", "df", "statistic", "p_value", "lower", "upper")


@dataclass(frozen=True)
class _Factor:
    """Codes on the rows used, and levels."""

    name: str
    codes: IntArray
    levels: tuple[Any, ...]


def trial_frame(
    fit: Fit,
    arm: str,
    visit: str,
    reference: Any,
    weights: str,
    level: float,
    ddf: str | None,
    vcov: str | None,
) -> pd.DataFrame:
    """As `lme4py.trial_table`.

    Raises
    ------
    OptionError
        No such factor, level or choice.
    """
    if fit_of(fit) is None or not fit.normal_errors:
        raise OptionError("trial_table() takes the result of mmrm(), or of another linear model.")
    if fit.design.responses is not None and RESPONSE not in (arm, visit):
        raise OptionError(
            "trial_table() of several responses has them in the place of the visits, visit='response'; use Margins for "
            "means by visit."
        )
    if weights not in ("equal", "proportional"):
        raise OptionError(f"weights={weights!r} is not known; use 'equal' or 'proportional'.")
    if isinstance(level, bool) or not isinstance(level, int | float) or not 0.0 < level < 1.0:
        raise OptionError(f"`level` is {level!r}; give a number between 0 and 1, such as 0.95.")
    arms, visits = _factor(fit, arm, "arm"), _factor(fit, visit, "visit")
    base = _reference(arms, reference)
    X = _cells(fit, arms, visits, weights)
    counts = _counts(fit, arms, visits)
    X[counts == 0] = np.nan
    _warn_unknown(arms, visits, X)
    method = coefficient_method(fit, ddf, vcov, None)
    labels, rows, cells = _rows(arms, visits, X, base)
    dropped = _dropped(fit, arms, visits)
    return _table(fit, method, labels, rows, [counts[c].sum() for c in cells], [dropped[c].sum() for c in cells], level)


def _factor(fit: Fit, name: object, what: str) -> _Factor:
    columns = fit.design.columns or {}
    known = [n for n in columns if n in _variables(fit)]
    if not isinstance(name, str) or name not in known:
        hint = did_you_mean(str(name), known)
        raise OptionError(f"{what}={name!r} is no variable of the fixed effects.{hint} They are {', '.join(known)}.")
    column = as_factor_column(columns[name])
    return _Factor(name, column.values.astype(np.intp), column.levels)


def _variables(fit: Fit) -> list[str]:
    columns = tuple(fit.design.columns or {})
    found = [name for node in fit.design.recipe.formula.fixed.variables for name in names_in(node, columns)]
    return [name for name in dict.fromkeys(found) if name in columns]


def _reference(arms: _Factor, reference: Any) -> int:
    used = [a for a, n in enumerate(np.bincount(arms.codes, minlength=len(arms.levels))) if n]
    if reference is None:
        return used[0]
    for a in used:
        if arms.levels[a] == reference or str(arms.levels[a]) == str(reference):
            return a
    shown = ", ".join(str(arms.levels[a]) for a in used)
    raise OptionError(f"reference={reference!r} is no level of {arms.name!r}; they are {shown}.")


# --- rows of the model matrix ---------------------------------------------------------------------------------------


def _cells(fit: Fit, arms: _Factor, visits: _Factor, weights: str) -> FloatArray:
    """Coefficients of the mean of each arm and visit, (A, V, p)."""
    others = [name for name in _variables(fit) if name not in (arms.name, visits.name)]
    columns = fit.design.columns or {}
    factors = [name for name in others if columns[name].is_factor or columns[name].kind == "boolean"]
    combinations, share = _combinations([columns[name] for name in factors], weights)
    A, V, K = len(arms.levels), len(visits.levels), len(share)
    a, v, k = (index.ravel() for index in np.meshgrid(np.arange(A), np.arange(V), np.arange(K), indexing="ij"))
    values = {arms.name: _at(columns[arms.name], a, arms), visits.name: _at(columns[visits.name], v, visits)}
    for j, name in enumerate(factors):
        values[name] = _replaced(columns[name], combinations[k, j])
    for name in others:
        if name not in factors:
            values[name] = _replaced(columns[name], np.full(a.size, float(columns[name].values.mean())))
    names = tuple(values)
    X = new_fixed(_without_offsets(fit), Frame(names, a.size, lambda i: values[names[i]]))[0]
    return np.asarray(np.einsum("avkp,k->avp", X.reshape(A, V, K, -1), share))


def _without_offsets(fit: Fit) -> Any:
    from dataclasses import replace

    recipe = fit.design.recipe
    formula = replace(recipe.formula, fixed=replace(recipe.formula.fixed, offsets=()))
    return replace(recipe, formula=formula, offset=None)


def _at(column: Column, codes: IntArray, factor: _Factor) -> Column:
    """The values of a column at some of its levels."""
    if column.is_factor:
        return _replaced(column, codes.astype(column.values.dtype))
    return _replaced(column, np.array([float(level) for level in factor.levels])[codes])


def _replaced(column: Column, values: Any) -> Column:
    return Column(column.name, column.kind, values, column.levels, column.declared, column.refusal)


def _combinations(columns: Sequence[Column], weights: str) -> tuple[Any, FloatArray]:
    """Values of the other factors, (K, f), and the weight of each combination."""
    if not columns:
        return np.zeros((1, 0)), np.ones(1)
    own = np.stack([column.values for column in columns], axis=1)
    if weights == "proportional":
        found, counts = np.unique(own, axis=0, return_counts=True)
        return found, counts / counts.sum()
    levels = [np.unique(column) for column in own.T]
    found = np.array(list(product(*levels)))
    return found, np.full(len(found), 1.0 / len(found))


# --- counts ---------------------------------------------------------------------------------------------------------


def _counts(fit: Fit, arms: _Factor, visits: _Factor) -> IntArray:
    """Rows used of each arm and visit, (A, V)."""
    A, V = len(arms.levels), len(visits.levels)
    return np.bincount(arms.codes * V + visits.codes, minlength=A * V).reshape(A, V)


def _dropped(fit: Fit, arms: _Factor, visits: _Factor) -> FloatArray:
    """Rows of the data that were not used, (A, V); NaN where the data are not at hand."""
    shape = (len(arms.levels), len(visits.levels))
    design = fit.design
    if design.source is None:
        return np.full(shape, np.nan)
    frame = design.source()
    try:
        if not is_unchanged(design, frame):
            return np.full(shape, np.nan)
        places = [_codes_in(frame.column(factor.name), factor)[~design.keep] for factor in (arms, visits)]
    except Lme4Error:
        return np.full(shape, np.nan)
    known = (places[0] >= 0) & (places[1] >= 0)
    cells = places[0][known] * shape[1] + places[1][known]
    return np.bincount(cells, minlength=shape[0] * shape[1]).reshape(shape).astype(float)


def _codes_in(column: Column, factor: _Factor) -> IntArray:
    """Codes of all rows in the levels of the fit; -1 for others."""
    whole = as_factor_column(column)
    place = {str(level): i for i, level in enumerate(factor.levels)}
    table = np.array([place.get(str(level), -1) for level in whole.levels] + [-1])
    return np.asarray(table[whole.values])


def _warn_unknown(arms: _Factor, visits: _Factor, X: FloatArray) -> None:
    lost = np.argwhere(np.isnan(X).any(axis=2))
    if len(lost):
        names = ", ".join(f"{arms.levels[a]} at {visits.levels[v]}" for a, v in lost[:10])
        warn(
            f"no mean is given for {len(lost)} combination(s) of {arms.name} and {visits.name} that were never "
            "observed, "
            f"or that the model says nothing about: {names}.",
            Lme4Warning,
        )


# --- the table ------------------------------------------------------------------------------------------------------

_Cell = tuple[Any, int]


def _rows(
    arms: _Factor, visits: _Factor, X: FloatArray, base: int
) -> tuple[list[tuple[str, str, Any]], FloatArray, list[_Cell]]:
    """What each row is, its coefficients, and the cells it is made of."""
    labels: list[tuple[str, str, Any]] = []
    rows: list[FloatArray] = []
    cells: list[_Cell] = []
    used = np.flatnonzero(np.bincount(arms.codes, minlength=len(arms.levels)))
    for v, name in enumerate(visits.levels):
        for a in used:
            labels.append(("mean", str(arms.levels[a]), name))
            rows.append(X[a, v])
            cells.append((a, v))
    for v, name in enumerate(visits.levels):
        for a in used[used != base]:
            labels.append(("difference", f"{arms.levels[a]} - {arms.levels[base]}", name))
            rows.append(X[a, v] - X[base, v])
            cells.append(([a, base], v))
    return labels, np.array(rows), cells


def _table(
    fit: Fit,
    method: Any,
    labels: Sequence[tuple[str, str, Any]],
    rows: FloatArray,
    counts: Sequence[Any],
    dropped: Sequence[Any],
    level: float,
) -> pd.DataFrame:
    import pandas as pd

    from lme4py.tables.frames import printed

    known = ~np.isnan(rows).any(axis=1)
    L = rows[known]
    estimate = L @ fit.beta
    se = np.sqrt(np.einsum("rp,pq,rq->r", L, method.vcov, L))
    df = method.t_df(L)
    statistic = estimate / se
    half = quantile(1.0 - level, df) * se
    parts = (estimate, se, df, statistic, two_sided(statistic, df), estimate - half, estimate + half)
    table = pd.DataFrame(labels, columns=["kind", "arm", "visit"])
    table["n"] = np.asarray(counts, dtype=int)
    table["n_dropped"] = np.asarray(dropped, dtype=float)
    for name, values in zip(_COLUMNS, parts, strict=True):
        column = np.full(len(rows), np.nan)
        column[known] = values
        table[name] = column
    return printed(table)
