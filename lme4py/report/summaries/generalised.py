"""The printed summary of a generalised linear mixed model, as a list of tables."""

from __future__ import annotations

from lme4py.fits.base import Fit
from lme4py.inference.estimates.dispersion import family_params, shown_dispersion
from lme4py.inference.overview.row_summary import row_summary
from lme4py.report.summaries.part_tables import part_table
from lme4py.report.summaries.parts import is_ordinal, threshold_table
from lme4py.report.summaries.summary import (
    closing_table,
    coefficient_table,
    criterion_table,
    group_table,
    header_table,
    likelihood_words,
    random_effects_table,
    residual_table,
    shares_table,
    smooth_tables,
)
from lme4py.tables.numbers import column_decimals, format_value
from lme4py.tables.table import Table

__all__ = ["approximation", "closing", "family_line", "summary_tables"]


def approximation(fit: Fit) -> str:
    """How the integral over the random effects was made, in words; "exact" for a linear mixed model."""
    if fit.approximation is None or not fit.design.terms:
        return "exact"
    points, hessian = fit.approximation
    if points == 0:
        return "nAGQ = 0 (fixed effects at the joint mode)"
    kind = "observed information, as glmmTMB" if hessian == "observed" else "expected information, as lme4"
    if is_ordinal(fit):
        kind = "" if hessian == "observed" else "expected information"
    kind = f"; {kind}" if kind and not fit.family.canonical else ""
    if points == 1:
        return f"Laplace approximation{kind}"
    adaptive = "adaptive" if points > 1 else "non-adaptive"
    return f"{adaptive} Gauss-Hermite quadrature, nAGQ = {points}{kind}"


def family_line(fit: Fit) -> str:
    """Family, link and dispersion."""
    text = f"{fit.family.name} ({fit.family.link.name})"
    if fit.family.variant:
        return f"{text}, {fit.family.variant}"
    found = shown_dispersion(fit)
    if found is not None:
        limit = f" ({found.limit})" if found.limit else ""
        text = f"{text}, {found.name} = {found.estimate:.4g}{limit}"
    return ", ".join([text, *(f"{name} = {value:.4g}" for name, value in family_params(fit).items())])


def summary_tables(fit: Fit, ddf: str | None = None) -> list[Table]:
    """Everything that the summary shows, in order.

    Parameters
    ----------
    fit : Fit
    ddf : {None, "residual", "normal"}
        Degrees of freedom of the fixed effects; `default_ddf` of the fit when not given.
    """
    return [
        _header(fit),
        criterion_table(fit),
        *([] if row_summary(fit).residual_quartiles is None else [residual_table(fit)]),
        *([random_effects_table(fit)] if fit.design.terms else []),
        *([group_table(fit)] if fit.design.n_groups else []),
        coefficient_table(fit, ddf),
        *smooth_tables(fit),
        *(part_table(fit, component) for component in fit.family.components[1:]),
        *([threshold_rows(fit)] if is_ordinal(fit) else []),
        *shares_table(fit),
        closing(fit),
    ]


def threshold_rows(fit: Fit) -> Table:
    """Thresholds of ordered categories with their standard errors."""
    table = threshold_table(fit)
    decimals = column_decimals(table["std_error"].tolist())
    numbers = [[format_value(value, decimals) for value in table[name].tolist()] for name in ("estimate", "std_error")]
    z = [format_value(value, 2, 2, least=1) for value in table["statistic"].tolist()]
    rows = tuple(zip(map(str, table.index), *numbers, z, strict=True))
    return Table("Thresholds", ("", "Estimate", "Std. error", "z value"), rows, ("left", "right", "right", "right"))


def _header(fit: Fit) -> Table:
    table = header_table(fit)
    integral = [("Integral:", approximation(fit))] if fit.design.terms else []
    rows = (("Family:", family_line(fit)), *integral, *table.rows)
    kind = "Generalised linear mixed model" if fit.design.terms else "Generalised linear model"
    return Table(f"{kind} fit by {likelihood_words(fit)}", ("", ""), rows, ("left", "left"), show_header=False)


def closing(fit: Fit) -> Table:
    """Notes and the verdict; also whether the rule for the integral is poor."""
    table, found = closing_table(fit), fit.integral_check
    if found is None or fit.approximation is None or not fit.design.terms:
        return table
    unchecked = fit.approximation.nAGQ != 0 and found.points is None
    if not found.matters and not unchecked:
        return table
    return Table(table.title, table.columns, table.rows, table.align, (*table.notes, str(found)))
