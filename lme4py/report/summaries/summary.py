"""The printed summary of a fit, as a list of tables."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import zip_longest

import numpy as np

from lme4py.design.design import RandomTerm
from lme4py.errors import Lme4Error
from lme4py.fits.base import Fit
from lme4py.fits.method import check_method
from lme4py.fits.parameters import has_correlations
from lme4py.inference.estimates.coefficients import coefficient_tests, covariance_frame, parametric_names
from lme4py.inference.estimates.likelihood import aic, bic
from lme4py.inference.estimates.smooths import smooths
from lme4py.inference.estimates.variance import VarianceEntry, correlations, variance_entries
from lme4py.inference.overview.row_summary import row_summary
from lme4py.report.summaries.residual import residual_rows, residual_tables
from lme4py.tables.numbers import column_decimals, format_column, format_integer, format_p_value, format_value
from lme4py.tables.table import Align, Table

DDF_NOTES = {
    "satterthwaite": ("Degrees of freedom: Satterthwaite.",),
    "kenward-roger": ("Degrees of freedom and standard errors: Kenward-Roger.",),
}

__all__ = [
    "DDF_NOTES",
    "coefficient_table",
    "correlation_table",
    "likelihood_words",
    "random_effects_table",
    "right_aligned",
    "rows_used",
    "shares_table",
    "summary_tables",
]


def summary_tables(fit: Fit, ddf: str | None = None) -> list[Table]:
    """Everything that the summary shows, in order.

    Parameters
    ----------
    fit : Fit
    ddf : {None, "satterthwaite", "kenward-roger", "residual", "normal"}
        Degrees of freedom of the fixed effects; `default_ddf` of the fit when not given.
    """
    tables = [header_table(fit), criterion_table(fit)]
    if row_summary(fit).residual_quartiles is not None:
        tables.append(residual_table(fit))
    tables += [random_effects_table(fit), *residual_tables(fit)]
    tables += [*([group_table(fit)] if fit.design.n_groups else []), coefficient_table(fit, ddf)]
    tables += [*smooth_tables(fit), *shares_table(fit)]
    return [*tables, closing_table(fit)]


def right_aligned(count: int) -> tuple[Align, ...]:
    """The alignment of `count` columns of numbers."""
    side: Align = "right"
    return (side,) * count


def header_table(fit: Fit) -> Table:
    """Title, formula and the number of rows used."""
    method = "REML" if fit.reml else likelihood_words(fit)
    rows = [("Formula:", fit.design.formula), ("Data:", rows_used(fit))]
    if fit.design.streamed is not None:
        rows.append(("Read from:", fit.design.streamed.summary))
    limits = row_summary(fit).weight_range
    if limits is not None:
        rows.append(("Weights:", f"from {limits[0]:.4g} to {limits[1]:.4g}"))
    rows += residual_rows(fit)
    method = f"penalised {method}" if fit.penalised and fit.reml else method
    what = "mixed " if fit.design.n_groups else "additive " if fit.design.terms else ""
    title = f"Linear {what}model fit by {method}"
    return Table(title, ("", ""), tuple(rows), ("left", "left"), show_header=False)


def likelihood_words(fit: Fit) -> str:
    """How a generalised fit, or a linear one that is none of REML, was fitted."""
    if fit.reml:
        return "restricted maximum likelihood"
    if fit.pseudo_likelihood:
        return "weighted pseudo-maximum likelihood"
    return "penalised maximum likelihood" if fit.penalised else "maximum likelihood"


def rows_used(fit: Fit) -> str:
    """How many rows of the data the fit used, in words."""
    total = int(fit.design.keep.size)
    dropped = total - fit.design.n_obs
    responses = fit.design.responses
    if responses is not None:
        D = len(responses.labels)
        missing = f", {dropped} missing" if dropped else ""
        return f"{total // D} rows with {D} responses each, {fit.design.n_obs} used{missing}"
    if dropped == 0:
        return f"{total} rows, all used"
    return f"{fit.design.n_obs} of {total} rows used, {dropped} dropped (missing values)"


def criterion_table(fit: Fit) -> Table:
    """The criterion that was minimised, the log-likelihood and the information criteria."""
    if fit.penalised:
        return _penalised_table(fit)
    kind = "Log pseudo-lik." if fit.pseudo_likelihood else "Log-lik."
    name = "REML criterion" if fit.reml else f"-2 {kind.lower()}"
    logl = "REML log-lik." if fit.reml else kind
    values = (fit.criterion, fit.log_likelihood, aic(fit), bic(fit))
    cells = tuple(format_value(value, 2, 6) for value in values)
    columns = (name, logl, "AIC", "BIC", "Parameters", "Residual df")
    row = (*cells, str(fit.n_params), str(fit.df_resid))
    return Table("", columns, (row,), right_aligned(6))


def _penalised_table(fit: Fit) -> Table:
    """The same of a fit with priors, which has no information criteria."""
    logl = "REML log-lik." if fit.reml else "Log-lik."
    cells = tuple(format_value(value, 2, 6) for value in (fit.criterion, fit.log_likelihood))
    columns = ("Penalised criterion", logl, "AIC", "BIC", "Parameters", "Residual df")
    row = (*cells, "-", "-", str(fit.n_params), str(fit.df_resid))
    note = "Penalised: AIC, BIC and likelihood ratio tests need the maximum of the likelihood, which this is not."
    return Table("", columns, (row,), right_aligned(6), (note,))


def residual_table(fit: Fit) -> Table:
    """Minimum, quartiles and maximum of the scaled residuals (Pearson residuals of a generalised model)."""
    title = "Scaled residuals" if fit.normal_errors else "Pearson residuals"
    # These are of the order of one: what is left at the tenth decimal is rounding, and is shown as zero.
    values = [round(value, 10) for value in row_summary(fit).residual_quartiles or ()]
    cells = tuple(format_value(value, 3, 2, least=1) for value in values)
    return Table(title, ("Min", "1Q", "Median", "3Q", "Max"), (cells,), right_aligned(5))


def random_effects_table(fit: Fit) -> Table:
    """Variances, standard deviations and correlations of each term, then a residual variance."""
    terms = fit.design.terms
    found = list(variance_entries(fit))
    own = [[entry for entry in found if entry.term == t] for t in range(len(terms))]
    lines = [
        line
        for term, entries, cov in zip(terms, own, fit.covariance_estimates, strict=True)
        for line in (
            _lines(term, entries, cov)
            if term.structure.shown_as_matrix and not term.smooth
            else _natural_lines(term, entries, cov)
        )
    ]
    rest = [entry for entry in found if entry.term is None]
    lines += [_Line(entry, [], j == 0) for j, entry in enumerate(rest)]
    width = max((len(line.cells) for line in lines), default=0)
    sds = [line.entry for line in lines if line.entry is not None]
    numbers = iter(zip(format_column([e.vcov for e in sds]), format_column([e.sdcor for e in sds]), strict=True))
    rows = []
    for line in lines:
        entry = line.entry
        first = (entry.group if line.is_first else "", entry.name1 or "", *next(numbers)) if entry else ("",) * 4
        rows.append((*first, *_filled(line.cells, width)))
    columns = ("Group", "Name", "Variance", "Std. dev.", *_filled(["Corr."] if width else [], width))
    align: tuple[Align, ...] = ("left", "left", *right_aligned(2 + width))
    return Table("Random effects" if terms else "Residuals", columns, tuple(rows), align)


@dataclass(frozen=True)
class _Line:
    """A standard deviation, and what stands right of it: correlations, or parameters of a covariance structure."""

    entry: VarianceEntry | None
    cells: list[str]
    is_first: bool = True


def _lines(term: RandomTerm, entries: list[VarianceEntry], covariance: np.ndarray) -> list[_Line]:
    sds = [entry for entry in entries if entry.name2 is None]
    cells = _correlation_rows(term, covariance)
    return [_Line(entry, own, j == 0) for j, (entry, own) in enumerate(zip(sds, cells, strict=True))]


def _natural_lines(term: RandomTerm, entries: list[VarianceEntry], covariance: np.ndarray) -> list[_Line]:
    """Standard deviations, and beside them the other parameters with their names, from the top.

    Where these are made of other parameters, such as loadings, they are those of the columns.
    """
    sds = [entry for entry in entries if entry.name2 is None] or [
        replace(entries[0], name1=name, name2=None, vcov=float(variance), sdcor=float(np.sqrt(variance)), shape="")
        for name, variance in zip(term.columns, covariance.diagonal(), strict=True)
    ]
    cells = [[f"{_correlation(entry.sdcor)} ({_short(entry)})"] for entry in entries if entry.name2 is not None]
    pairs = zip_longest(sds, cells)
    return [_Line(entry, own or [], j == 0) for j, (entry, own) in enumerate(pairs)]


def _short(entry: VarianceEntry) -> str:
    """What a parameter of a structure is called beside it: ``"ar1"``, ``"lag 2"``, ``"range"``."""
    if not entry.shape:
        return f"{entry.name1}, {entry.name2}"
    word, _, rest = entry.shape[:-1].partition("(")
    return rest.rpartition(", ")[2] if word == "cor" else word


def _correlation_rows(term: RandomTerm, covariance: np.ndarray) -> list[list[str]]:
    """The lower triangle of the correlations, without the diagonal."""
    if not has_correlations(term):
        return [[] for _ in term.columns]
    corr = correlations(covariance)
    return [[_correlation(float(corr[j, i])) for i in range(j)] for j in range(term.n_columns)]


def _correlation(value: float) -> str:
    return format_value(value, 2, 1, least=1)


def _filled(cells: list[str], width: int) -> list[str]:
    return cells + [""] * (width - len(cells))


def group_table(fit: Fit) -> Table:
    """Number of levels of each grouping factor, and how many rows they have."""
    found = row_summary(fit).group_rows
    rows = tuple(
        (group, str(n_levels), *(format_integer(float(size)) for size in found[group]))
        for group, n_levels in fit.design.n_groups.items()
    )
    columns = ("Group", "Levels", "Min rows", "Mean", "Max")
    return Table("Groups", columns, rows, ("left", *right_aligned(4)))


def shares_table(fit: Fit) -> list[Table]:
    """R squared and the intraclass correlation, where the model has them."""
    shares = row_summary(fit).shares
    if shares is None:
        return []
    terms = [term for term in fit.design.terms if not term.is_curve]
    # With one factor of independent levels it is that of icc(); else the share of all, which icc() takes one by one.
    alone = len(terms) == 1 and terms[0].level_variance == 1.0
    columns = ("R² marginal", "R² conditional", "ICC" if alone else "ICC, all effects")[: 3 if terms else 1]
    cells = tuple(f"{share:.3f}" for share in shares[: len(columns)])
    return [Table("Shares of the variance", columns, (cells,), right_aligned(len(columns)))]


def coefficient_table(fit: Fit, ddf: str | None = None) -> Table:
    """Estimates, standard errors and tests, with the degrees of freedom of the fit where `ddf` is not given."""
    chosen = check_method(fit.default_ddf if ddf is None else ddf)
    table = {name: values.tolist() for name, values in coefficient_tests(fit, chosen).items()}
    decimals = column_decimals(table["std_error"])
    columns: dict[str, list[str]] = {
        "": [str(name) for name in parametric_names(fit)],
        "Estimate": [format_value(value, decimals) for value in table["estimate"]],
        "Std. error": [format_value(value, decimals) for value in table["std_error"]],
    }
    statistics = [format_value(value, 2, 2, least=1) for value in table["statistic"]]
    columns |= _test_columns(chosen, statistics, table["df"], table["p_value"])
    rows = tuple(zip(*columns.values(), strict=True))
    notes = DDF_NOTES.get(chosen, ()) if rows else ("There are no fixed effects.",)
    return Table("Fixed effects", tuple(columns), rows, ("left", *right_aligned(len(columns) - 1)), notes)


def smooth_tables(fit: Fit) -> list[Table]:
    """Effective degrees of freedom and tests of smooths, where the model has some and its rows."""
    if not fit.design.smooth_terms:
        return []
    try:
        table = smooths(fit)
    except Lme4Error as error:
        return [Table("Smooths", (), (), (), (str(error),))]
    name = "F" if fit.normal_errors and fit.has_residual else "Chi2"
    numbers = [format_column(table[column].tolist()) for column in ("edf", "ref_df", "statistic")]
    p = [format_p_value(value) for value in table["p_value"].tolist()]
    rows = tuple(zip(map(str, table.index), *numbers, p, strict=True))
    return [Table("Smooths", ("", "edf", "Ref. df", name, "p value"), rows, ("left", *right_aligned(4)))]


def correlation_table(fit: Fit) -> Table:
    """Correlations of the estimates of the fixed effects, the lower triangle with numbers for the columns."""
    names = [f"{i} {name}" for i, name in enumerate(parametric_names(fit), start=1)]
    V = covariance_frame(fit).to_numpy(dtype=np.float64)
    sd = np.sqrt(np.diag(V))
    R = V / np.outer(sd, sd)
    rows = tuple(
        (name, *(f"{value:.2f}" for value in (R[i, :i].round(2) + 0.0).tolist()), *[""] * (len(names) - 1 - i))
        for i, name in enumerate(names)
        if i
    )
    columns = ("", *map(str, range(1, len(names))))
    note = () if rows else ("There are fewer than two fixed effects.",)
    return Table("Correlation of fixed effects", columns, rows, ("left", *right_aligned(len(columns) - 1)), note)


def _test_columns(ddf: str, statistics: list[str], df: list[float], p: list[float]) -> dict[str, list[str]]:
    p_values = [format_p_value(value) for value in p]
    if ddf == "normal":
        return {"z value": statistics, "P(>|z|)": p_values}
    shown = [format_integer(value) if ddf == "residual" else format_value(value, 2, 2, least=1) for value in df]
    return {"df": shown, "t value": statistics, "P(>|t|)": p_values}


def closing_table(fit: Fit) -> Table:
    """The notes of the design (dropped columns among them) and the verdict on convergence, as sentences."""
    return Table("", (), (), (), (*(_sentence(note) for note in fit.design.notes), fit.certificate.verdict))


def _sentence(note: str) -> str:
    """`note` with a capital letter and a full stop."""
    text = note[:1].upper() + note[1:]
    return text if text.endswith((".", "!", "?")) else f"{text}."
