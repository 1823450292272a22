"""Variances, covariances and correlations of the random effects as tables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lme4py.covariance.naming import is_shape, natural_values, shape_words
from lme4py.design.design import RandomTerm
from lme4py.fits.base import Fit
from lme4py.fits.parameters import has_correlations, term_labels

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "VarianceEntry",
    "correlations",
    "var_corr",
    "variance_components",
    "variance_entries",
]

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class VarianceEntry:
    """One variance (`name2` is None) or covariance of random effects.

    Attributes
    ----------
    term : int or None
        Position of the term in the design; None for the residual variance.
    group : str
        Factor of the term; ``"Subject.1"`` for a second term of ``"Subject"``; ``"Residual"``.
    name1, name2 : str or None
        Columns; where all columns share a variance, the name of the covariance structure.
    vcov : float
        Variance or covariance; NaN for what is neither.
    sdcor : float
        Standard deviation, correlation, range, ...
    shape : str
        What this is where it is a parameter of a covariance structure, and no element of the matrix: ``"cor(ar1)"``.
    """

    term: int | None
    group: str
    name1: str | None
    name2: str | None
    vcov: float
    sdcor: float
    shape: str = ""

    def key(self, suffix: str) -> str:
        """`shape` as a key of `variance_components`: ``"corr(ar1|g)"``."""
        name = f"corr{self.shape[3:-1]}" if self.shape.startswith("cor(") else self.shape[:-1]
        return f"{name}{suffix})"


def correlations(covariance: FloatArray) -> FloatArray:
    """Correlation matrix, shape (k, k); NaN where a variance is zero."""
    sd = np.sqrt(np.diag(covariance))
    with np.errstate(divide="ignore", invalid="ignore"):
        # Rounding may leave a correlation of a singular matrix just outside its range.
        corr: FloatArray = np.clip(covariance / np.outer(sd, sd), -1.0, 1.0)
    return corr


def variance_entries(fit: Fit) -> Iterator[VarianceEntry]:
    """Every variance, then every covariance of each term in turn; a residual variance comes last.

    NaN stands for what has no unique estimate (see `lme4py.engine.identification.record`).
    """
    terms = fit.design.terms
    thetas = fit.design.structures.split(fit.theta)
    for i, (term, label, cov) in enumerate(zip(terms, term_labels(terms), fit.covariance_estimates, strict=True)):
        if term.smooth:
            yield from _smooth_entries(i, term, thetas[i], cov)
            continue
        if not term.structure.linear:
            yield from _natural_entries(i, label, term, thetas[i], cov)
            continue
        for j, name in enumerate(term.columns):
            yield VarianceEntry(i, label, name, None, float(cov[j, j]), float(np.sqrt(cov[j, j])))
        if has_correlations(term):
            yield from _covariance_entries(i, label, term.columns, cov)
    for label_of_sd, sd in fit.residual_deviations:
        yield VarianceEntry(None, "Residual", label_of_sd, None, sd**2, sd)


def _smooth_entries(t: int, term: RandomTerm, theta: FloatArray, cov: FloatArray) -> Iterator[VarianceEntry]:
    """One variance for each penalty of a smooth: all its effects share them."""
    natural = term.structure.natural_parameters
    for parameter, value in zip(natural, natural_values(term.structure, theta, cov).tolist(), strict=True):
        _, _, detail = parameter.label.partition("(")
        name = f"{term.label}, {detail[:-1]}" if detail else term.label
        yield VarianceEntry(t, term.group, name, None, value**2, value)


def _natural_entries(
    t: int, label: str, term: RandomTerm, theta: FloatArray, cov: FloatArray
) -> Iterator[VarianceEntry]:
    """Parameters of a covariance structure that is no linear space: each once."""
    structure = term.structure
    values = natural_values(structure, theta, cov)
    for parameter, value in zip(structure.natural_parameters, values.tolist(), strict=True):
        names = [term.columns[j] for j in parameter.columns] or [structure.word]
        if is_shape(structure, parameter):
            word, own = shape_words(structure, parameter, term.columns)
            yield VarianceEntry(t, label, names[0], parameter.label, float("nan"), value, f"{word}({own})")
        elif parameter.kind == "sd":
            yield VarianceEntry(t, label, names[0], None, value**2, value)
        else:
            vcov = float(cov[parameter.columns[1], parameter.columns[0]])
            yield VarianceEntry(t, label, names[0], names[1], vcov, value)


def _covariance_entries(term: int, label: str, names: tuple[str, ...], cov: FloatArray) -> Iterator[VarianceEntry]:
    corr = correlations(cov)
    for column in range(len(names)):
        for row in range(column + 1, len(names)):
            pair = (float(cov[row, column]), float(corr[row, column]))
            yield VarianceEntry(term, label, names[column], names[row], *pair)


def var_corr(fit: Fit) -> pd.DataFrame:
    """Table group, name1, name2, vcov, sdcor of variances and covariances, as R's VarCorr data frame.

    Parameters
    ----------
    fit : Fit

    Returns
    -------
    DataFrame
        Columns group, name1, name2, vcov (variance or covariance), sdcor (standard deviation or correlation);
        the residual variance, where there is one, is the last row.
    """
    import pandas as pd

    rows = [(e.group, e.name1, e.name2, e.vcov, e.sdcor) for e in variance_entries(fit)]
    table = pd.DataFrame(rows, columns=["group", "name1", "name2", "vcov", "sdcor"])
    # Object columns keep None as None; newer string types would turn it into NaN.
    for position in (1, 2):
        table[f"name{position}"] = pd.Series([row[position] for row in rows], dtype=object)
    return table


def variance_components(fit: Fit) -> dict[str, float]:
    """Variances, covariances and correlations under Stata-like keys.

    Keys are ``var(_cons)``, ``var(x)``, ``cov(_cons,x)``, ``corr(_cons,x)`` and ``var(Residual)``; with
    several grouping factors ``var(_cons|g)``. Where two terms of one factor hold the same column, the second
    term's keys carry its number: ``var(_cons|g.1)``.
    """
    factors = {term.group for term in fit.design.terms}
    parts: dict[str, float] = {}
    for entry in variance_entries(fit):
        suffix = _suffix(fit, entry, len(factors) > 1, parts)
        parts.update(_keyed(entry, suffix))
    return parts


def _suffix(fit: Fit, entry: VarianceEntry, several: bool, taken: dict[str, float]) -> str:
    if entry.term is None:
        return ""
    plain = f"|{fit.design.terms[entry.term].group}" if several else ""
    return f"|{entry.group}" if any(key in taken for key in _keyed(entry, plain)) else plain


def _keyed(entry: VarianceEntry, suffix: str) -> dict[str, float]:
    if entry.name1 is None:
        return {"var(Residual)": entry.vcov}
    if entry.term is None:
        return {f"var({entry.name1}|Residual)": entry.vcov}
    if entry.shape:
        return {entry.key(suffix): entry.sdcor}
    a = _stata_name(entry.name1)
    if entry.name2 is None:
        return {f"var({a}{suffix})": entry.vcov}
    b = _stata_name(entry.name2)
    return {f"cov({a},{b}{suffix})": entry.vcov, f"corr({a},{b}{suffix})": entry.sdcor}


def _stata_name(name: str) -> str:
    return "_cons" if name == "Intercept" else name
