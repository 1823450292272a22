"""The printed summary of models of the keyword front door, in Stata's order, as a list of tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy import special

from lme4py.covariance import find_structure
from lme4py.design.names import CONSTANT
from lme4py.families.categories.multinomial import Multinomial
from lme4py.fits.base import Fit
from lme4py.fits.method import check_method
from lme4py.fits.parameters import fit_parameters
from lme4py.inference.estimates.coefficients import coef_table, confidence_intervals, wald_statistic
from lme4py.inference.estimates.dispersion import Dispersion, shown_dispersion
from lme4py.inference.estimates.limits import unknown
from lme4py.inference.estimates.restrictions import restriction_matrix
from lme4py.inference.estimates.variance_errors import variance_table
from lme4py.inference.lrt.lrt import LRTestResult
from lme4py.inference.overview.row_summary import no_random_test, row_summary
from lme4py.report.summaries.generalised import approximation, closing, family_line
from lme4py.report.summaries.parts import is_ordinal, threshold_table
from lme4py.report.summaries.summary import DDF_NOTES, closing_table, right_aligned, rows_used
from lme4py.tables.numbers import column_decimals, format_integer, format_p_value, format_value
from lme4py.tables.table import Table

__all__ = ["stata_tables"]


# Stata's names of the models, and of what the likelihood-ratio test compares them with.
_MODELS = {
    ("binomial", "logit"): ("logistic", "logistic model"),
    ("binomial", "probit"): ("probit", "probit model"),
    ("binomial", "cloglog"): ("complementary log-log", "complementary log-log model"),
    ("poisson", "log"): ("Poisson", "Poisson model"),
    ("nbinomial", "log"): ("negative binomial", "negative binomial model"),
    ("gamma", "log"): ("gamma", "gamma model"),
    ("ordinal", "logit"): ("ordered logistic", "ordered logistic model"),
    ("ordinal", "probit"): ("ordered probit", "ordered probit model"),
}


def stata_tables(fit: Fit, ddf: str | None = None) -> list[Table]:
    """Header, groups, coefficients, thresholds, random-effects parameters, test against no random effects, verdict.

    Parameters
    ----------
    fit : Fit
    ddf : {None, "satterthwaite", "kenward-roger", "residual", "normal"}
        None is `default_ddf` of the fit.
    """
    chosen = check_method(ddf or fit.default_ddf)
    tables = [_header(fit), _groups(fit), _coefficients(fit, chosen)]
    tables += [_thresholds(fit)] if is_ordinal(fit) else []
    tables.append(_random_effects(fit))
    last = closing_table(fit) if fit.approximation is None else closing(fit)
    test = _test_of_random_effects(fit)
    return [*tables, *([Table("", (), (), (), (test,))] if test else []), last]


def _names(fit: Fit) -> tuple[str, str]:
    if fit.normal_errors:
        return ("REML" if fit.reml else "ML"), "linear model"
    return _MODELS.get((fit.family.name, fit.family.link.name), ("GLM", "generalised linear model"))


def _header(fit: Fit) -> Table:
    rows = [("Formula:", fit.design.formula), ("Number of obs:", rows_used(fit))]
    if fit.approximation is not None:
        rows += [("Family and link:", family_line(fit)), ("Integration:", approximation(fit))]
    likelihood = "Log restricted-likelihood:" if fit.reml else f"Log {'pseudo' * fit.pseudo_likelihood}likelihood:"
    rows.append((likelihood, format_value(fit.log_likelihood, 4, 8)))
    rows += _wald_row(fit)
    return Table(
        f"Mixed-effects {_names(fit)[0]} regression", ("", ""), tuple(rows), ("left", "left"), show_header=False
    )


def _wald_row(fit: Fit) -> list[tuple[str, str]]:
    """The joint test of all coefficients but the constant."""
    names = [name for name, place in zip(fit.design.x_names, fit.design.assign, strict=True) if place != 0]
    if not names:
        return []
    rows = restriction_matrix(fit.design.x_names, names)
    if unknown(fit, rows).any():
        return [(f"Wald chi2({len(names)}):", "not finite")]
    test = wald_statistic(fit, rows)
    value = f"{format_value(test['chi2'], 2, 4)}, {_probability('Prob > chi2', test['p_value'])}"
    return [(f"Wald chi2({len(names)}):", value)]


def _groups(fit: Fit) -> Table:
    """Levels from the outer to the inner: number of groups, smallest, mean and largest number of rows."""
    found, counts = row_summary(fit).group_rows, fit.design.n_groups
    rows = tuple(
        (group, str(counts[group]), *(format_integer(float(size)) for size in found[group]))
        for group in reversed(list(counts))
    )
    columns = ("Group variable", "No. of groups", "Minimum", "Average", "Maximum")
    return Table("Observations per group", columns, rows, ("left", *right_aligned(4)))


def _limits_heading(fit: Fit) -> tuple[str, str]:
    return f"[{100.0 * (1.0 - fit.conventions.alpha):g}% conf.", "interval]"


def _coefficients(fit: Fit, ddf: str) -> Table:
    table = coef_table(fit, ddf)
    limits = confidence_intervals(fit, ddf=ddf)
    decimals = column_decimals(table["std_error"].tolist())
    columns: dict[str, list[str]] = {
        fit.design.response_name: list(fit.design.x_names),
        "Coefficient": [format_value(value, decimals) for value in table["estimate"].tolist()],
        "Std. err.": [format_value(value, decimals) for value in table["std_error"].tolist()],
    }
    statistic = "z" if ddf == "normal" else "t"
    if ddf != "normal":
        columns["df"] = [format_value(value, 2, 2, least=1) for value in table["df"].tolist()]
    columns[statistic] = [format_value(value, 2, 2, least=1) for value in table["statistic"].tolist()]
    columns[f"P>|{statistic}|"] = [format_p_value(value) for value in table["p_value"].tolist()]
    for heading, side in zip(_limits_heading(fit), ("lower", "upper"), strict=True):
        columns[heading] = [format_value(value, decimals) for value in limits[side].tolist()]
    rows = tuple(sorted(zip(*columns.values(), strict=True), key=lambda row: _place(row[0], fit)))
    notes = (*DDF_NOTES.get(ddf, ()), *_vce_note(fit)) if rows else ("There are no fixed effects.",)
    return Table("", tuple(columns), rows, ("left", *right_aligned(len(columns) - 1)), notes)


def _place(name: str, fit: Fit) -> tuple[int, bool]:
    """Stata's order of coefficients: an equation after the other, the constant last in each."""
    labels = [f"{home}: " for home in fit.family.others] if isinstance(fit.family, Multinomial) else []
    equation = next((k for k, label in enumerate(labels) if name.startswith(label)), 0)
    return equation, name in (CONSTANT, *(f"{label}{CONSTANT}" for label in labels))


def _vce_note(fit: Fit) -> tuple[str, ...]:
    vce = fit.conventions.vce
    if vce is None:
        return ()
    cluster = list(fit.design.n_groups)[-1] if vce == "robust" else vce
    if not fit.robust_variances:
        which = f"Standard errors of the coefficients are robust, for clusters in {cluster}"
        return (f"{which}; those of the variances are the model's.",)
    return (f"Standard errors are robust, for clusters in {cluster}.",)


def _random_effects(fit: Fit) -> Table:
    """Variances and covariances of each level, then the residual variance or the dispersion."""
    rows: list[tuple[str, tuple[float, ...]]] = []
    for t in reversed(range(len(fit.design.terms))):
        term = fit.design.terms[t]
        # One effect has a variance, whatever the structure.
        title = term.structure.heading if term.n_columns > 1 else find_structure("identity").title
        rows.append((f"{term.group}: {title}", ()))
        rows += [(f"  {name}", values) for name, values in _term_rows(fit, t)]
    rows += list(_last_rows(fit))
    numbers = np.array([values for _, values in rows if values])
    decimals = column_decimals([abs(v) for v in numbers[:, :2].ravel().tolist() if v > 0.0] or [1.0])
    cells = tuple(
        (name, *(format_value(v, min(decimals, 6)) for v in values)) if values else (name, "", "", "", "")
        for name, values in rows
    )
    columns = ("Random-effects parameters", "Estimate", "Std. err.", *_limits_heading(fit))
    return Table("", columns, cells, ("left", *right_aligned(4)))


def _entries(fit: Fit) -> list[tuple[Any, tuple[float, ...]]]:
    """Parameters of the variance table with its rows."""
    table = variance_table(fit, fit.conventions.alpha)
    known = [p for p in fit_parameters(fit) if p.is_random]
    # The dispersion, in the last row of the table, is no random effect.
    return list(zip(known, map(tuple, table.to_numpy(dtype=np.float64).tolist()), strict=False))


def _term_rows(fit: Fit, t: int) -> Iterator[tuple[str, tuple[float, ...]]]:
    """Rows of one term; where effects share a variance it is shown once, for all of them."""
    term = fit.design.terms[t]
    own = [(p, row) for p, row in _entries(fit) if p.term == t]
    if term.structure.shares_variance and term.structure.linear:
        together = " ".join(term.columns)
        for kind, word in (("sd", "var"), ("corr", "cov")):
            first = next((row for p, row in own if p.kind == kind), None)
            if first is not None:
                yield f"{word}({together})", first
        return
    for p, row in sorted(own, key=lambda one: (one[0].kind == "corr", term.columns[one[0].first] == CONSTANT)):
        if p.shape is not None or term.structure.shares_variance:
            yield p.stata.replace("sd(", "var("), row
            continue
        pair = (p.first, p.second) if p.kind == "corr" else (p.first,)
        names = sorted((term.columns[j] for j in pair), key=lambda name: name == CONSTANT)
        yield f"{'cov' if p.kind == 'corr' else 'var'}({','.join(names)})", row


def _last_rows(fit: Fit) -> Iterator[tuple[str, tuple[float, ...]]]:
    yield from (("var(Residual)", row) for p, row in _entries(fit) if p.kind == "sigma")
    found = shown_dispersion(fit)
    if found is not None and not fit.has_residual:
        if fit.family.stata_inverts:
            yield _logarithm(found)
        yield found.name, (found.estimate, found.std_error, found.lower, found.upper)


def _logarithm(found: Dispersion) -> tuple[str, tuple[float, ...]]:
    """The logarithm of a dispersion, which Stata estimates."""
    with np.errstate(divide="ignore"):
        estimate, lower, upper = np.log([found.estimate, found.lower, found.upper]).tolist()
    error = found.std_error / found.estimate if found.estimate > 0.0 else float("nan")
    return f"/ln{found.name}", (estimate, error, lower, upper)


def _thresholds(fit: Fit) -> Table:
    table = threshold_table(fit)
    half = -float(special.ndtri(fit.conventions.alpha / 2.0)) * table["std_error"]
    parts = (table["estimate"], table["std_error"], table["estimate"] - half, table["estimate"] + half)
    decimals = column_decimals(table["std_error"].tolist())
    cells = [[format_value(float(value), decimals) for value in part] for part in parts]
    columns = ("Thresholds", "Estimate", "Std. err.", *_limits_heading(fit))
    rows = tuple(zip([f"/cut{k}" for k in range(1, len(table) + 1)], *cells, strict=True))
    meaning = ", ".join(f"/cut{k} {name}" for k, name in enumerate(table.index, start=1))
    return Table("", columns, rows, ("left", *right_aligned(4)), (f"Between the categories: {meaning}.",))


def _test_of_random_effects(fit: Fit) -> str:
    """The likelihood-ratio test against the model without random effects; empty where its data are gone.

    Beside robust standard errors, which do not take the likelihood at its word, there is none, as in Stata.
    """
    test = None if fit.conventions.vce is not None else no_random_test(fit)
    if test is None:
        return ""
    return f"LR test vs. {_names(fit)[1]}: {_statistic(test)}"


def _statistic(test: LRTestResult) -> str:
    chi2 = format_value(test.chi2, 2, 4)
    if not test.boundary_corrected:
        return f"chi2({test.df}) = {chi2}, {_probability('Prob > chi2', test.p_value)}. The test is conservative."
    p = _probability("Prob >= chibar2", test.p_value)
    if test.weights == {0: 0.5, 1: 0.5}:
        return f"chibar2(01) = {chi2}, {p}."
    return f"chibar2 = {chi2}, {p} ({test.note})."


def _probability(what: str, value: float) -> str:
    text = format_p_value(value)
    return f"{what} < {text[1:]}" if text.startswith("<") else f"{what} = {text}"
