"""The printed summary of a generalised linear mixed model, as a list of tables, and its one-row overview."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lme4py.glmm_fit import GlmmFit
from lme4py.inference.coefficients import coef_table
from lme4py.inference.glmm import has_residual, random_entries, residual_values, var_corr, variance_components
from lme4py.report.numbers import format_value
from lme4py.report.summary import (
    _right,
    closing_table,
    coefficient_table,
    criterion_table,
    group_table,
    header_table,
    random_effects_table,
)
from lme4py.report.table import Table
from lme4py.report.tidy import _TIDY, _fixed_rows, _overview, _random_term, nested_parts

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["approximation", "family_line", "glance", "summary_tables", "tidy", "to_dict"]


def approximation(fit: GlmmFit) -> str:
    """How the integral over the random effects was made, in words."""
    if fit.nAGQ == 0:
        return "nAGQ = 0 (fixed effects at the joint mode)"
    kind = "observed information, as glmmTMB" if fit.hessian == "observed" else "expected information, as lme4"
    kind = "" if fit.family.canonical else f"; {kind}"
    if fit.nAGQ == 1:
        return f"Laplace approximation{kind}"
    return f"adaptive Gauss-Hermite quadrature, nAGQ = {fit.nAGQ}{kind}"


def family_line(fit: GlmmFit) -> str:
    """Family, link and dispersion."""
    text = f"{fit.family.name} ({fit.family.link.name})"
    if fit.log_dispersion is None:
        return text
    return f"{text}, {fit.family.parameter} = {fit.dispersion:.4g}"


def summary_tables(fit: GlmmFit) -> list[Table]:
    """Everything that the summary shows, in order."""
    same: Any = fit
    return [
        _header(fit),
        criterion_table(same),
        _residual_table(fit),
        _random_effects(fit),
        group_table(same),
        coefficient_table(same, "normal"),
        _closing(fit),
    ]


def _header(fit: GlmmFit) -> Table:
    same: Any = fit
    table = header_table(same)
    rows = (("Family:", family_line(fit)), ("Integral:", approximation(fit)), *table.rows)
    return Table(
        "Generalised linear mixed model fit by maximum likelihood", ("", ""), rows, ("left", "left"), show_header=False
    )


def _residual_table(fit: GlmmFit) -> Table:
    values = np.quantile(residual_values(fit, "pearson"), [0.0, 0.25, 0.5, 0.75, 1.0])
    cells = tuple(format_value(float(value), 3, 2, least=1) for value in np.round(values, 10))
    return Table("Pearson residuals", ("Min", "1Q", "Median", "3Q", "Max"), (cells,), _right(5))


def _random_effects(fit: GlmmFit) -> Table:
    same: Any = fit
    table = random_effects_table(same)
    if has_residual(fit):
        return table
    # The last row is the residual variance of a linear model.
    return Table(table.title, table.columns, table.rows[:-1], table.align, table.notes)


def _closing(fit: GlmmFit) -> Table:
    same: Any = fit
    table = closing_table(same)
    if not fit.laplace_is_poor or fit.laplace_error is None:
        return table
    warning = (
        f"The Laplace approximation is poor here: quadrature changes the log-likelihood at these estimates by "
        f"{-0.5 * fit.laplace_error:+.2f}. Compare with nAGQ=9 or more."
    )
    return Table(table.title, table.columns, table.rows, table.align, (*table.notes, warning))


def tidy(fit: GlmmFit) -> pd.DataFrame:
    """One row per fixed effect, then one per standard deviation and correlation of the random effects."""
    import pandas as pd

    same: Any = fit
    table = coef_table(same)
    nan = float("nan")
    rows = [("fixed", None, name, *row) for name, row in zip(table.index, _fixed_rows(table), strict=True)]
    rows += [("ran_pars", e.group, _random_term(e), e.sdcor, nan, nan, nan) for e in random_entries(fit)]
    frame = pd.DataFrame(rows, columns=_TIDY)
    frame["group"] = pd.Series([row[1] for row in rows], dtype=object)
    return frame


def overview(fit: GlmmFit) -> dict[str, Any]:
    same: Any = fit
    parts = {
        "family": fit.family.name,
        "link": fit.family.link.name,
        "nAGQ": fit.nAGQ,
        "hessian": fit.hessian,
        **_overview(same),
    }
    del parts["reml"]
    parts["dispersion"] = fit.dispersion
    return parts


def glance(fit: GlmmFit) -> pd.DataFrame:
    """One row for the whole model."""
    import pandas as pd

    return pd.DataFrame([overview(fit)])


def to_dict(fit: GlmmFit, random_effects: bool = False) -> dict[str, Any]:
    """The result as nested dicts and lists of plain Python values."""
    same: Any = fit
    return nested_parts(same, overview(fit), coef_table(same), variance_components(fit), var_corr(fit), random_effects)
