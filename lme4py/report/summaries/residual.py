"""What a summary says about correlated and unequal residuals."""

from __future__ import annotations

import numpy as np

from lme4py.fits.base import Fit
from lme4py.fits.residual.fit import ResidualFit
from lme4py.inference.estimates.residual_part import DISPERSION_PART, has_dispersion_part
from lme4py.report.summaries.part_tables import part_table
from lme4py.tables.numbers import format_column, format_value
from lme4py.tables.table import Align, Table

__all__ = ["residual_rows", "residual_tables"]

# Larger matrices are left to residual_covariance().
_MOST_COLUMNS = 12


def residual_rows(fit: Fit) -> list[tuple[str, str]]:
    """Lines of the header: the structure, its subjects, and the variance function."""
    if not isinstance(fit, ResidualFit):
        return []
    side = fit.residual
    rows = []
    if side.is_known:
        sd = format_column([fit.sigma])[0].strip()
        what = f"covariance of {fit.design.n_obs} rows" if side.text else f"residual sd {sd}"
        by = " / sqrt(weight)" if fit.design.weights is not None else ""
        rows.append(("Known:", f"{what}{by}, not estimated"))
    elif side.text:
        title = side.part.structures[0].title
        rows.append(("Residuals:", f"{side.text}: {title.lower()}, {len(side.subjects)} subjects"))
    if side.variance_text:
        rows.append(("Variance:", side.variance_text))
    return rows


def residual_tables(fit: Fit) -> list[Table]:
    """Correlations and other parameters of the residuals, and the matrix of each stratum where it is small."""
    if not isinstance(fit, ResidualFit):
        return []
    parts = [part_table(fit, DISPERSION_PART)] if has_dispersion_part(fit) else []
    return [*_parameters(fit), *parts, *_matrices(fit)]


def _right(count: int) -> tuple[Align, ...]:
    side: Align = "right"
    return (side,) * count


def _parameters(fit: ResidualFit) -> list[Table]:
    side = fit.residual
    rows = []
    for h, stratum in enumerate(side.strata):
        for parameter, value in fit.residual_estimates(h):
            if parameter.kind != "sd" and parameter.columns == ():
                rows.append((stratum, parameter.label, value))
    # Those of a dispersion formula, the last ones, have a table of their own.
    functions = side.scale_names[: len(side.scale_names) - len(side.places.scales.places)]
    rows += [("", name, value) for name, value in zip(functions, fit.scale_coefficients.tolist(), strict=False)]
    if not rows:
        return []
    cells = format_column([value for *_, value in rows])
    note = ("Coefficients of variance functions multiply the logarithm of the standard deviation.",)
    lines = tuple((stratum, label, cell) for (stratum, label, _), cell in zip(rows, cells, strict=True))
    align: tuple[Align, ...] = ("left", "left", "right")
    return [Table("Residual parameters", ("", "Parameter", "Estimate"), lines, align, note if functions else ())]


def _matrices(fit: ResidualFit) -> list[Table]:
    """Variances on the diagonal and below it covariances; correlations above."""
    side = fit.residual
    if not side.text or not side.part.on_grid or len(side.columns) > _MOST_COLUMNS:
        return []
    tables = []
    for h, stratum in enumerate(side.strata):
        R = fit.residual_covariance(h)
        sd = np.sqrt(R.diagonal())
        C = R / np.outer(sd, sd)
        rows = tuple(
            (
                name,
                *(
                    format_value(R[i, j], 4, 4) if j <= i else format_value(C[i, j], 3, 3, least=1)
                    for j in range(len(R))
                ),
            )
            for i, name in enumerate(side.columns)
        )
        align: tuple[Align, ...] = ("left", *_right(len(side.columns)))
        title = f"Residual covariances{f', {stratum}' if stratum else ''} (correlations above the diagonal)"
        tables.append(Table(title, ("", *side.columns), rows, align))
    return tables
