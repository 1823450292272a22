"""Coefficients of the linear predictors after the first in a printed summary."""

from __future__ import annotations

from typing import Final

from lme4py.fits.base import Fit
from lme4py.inference.overview.components import component_table
from lme4py.tables.numbers import column_decimals, format_value
from lme4py.tables.table import Table

__all__ = ["part_table"]

# Titles of the tables of further parts.
_TITLES: Final = {
    "zero_inflation": "Zero part (logit)",
    "dispersion": "Dispersion part (log)",
    "nominal": "Effects on each threshold (nominal)",
    "scale": "Scale part (log)",
}


def part_table(fit: Fit, component: str) -> Table:
    """Coefficients of a further part.

    Parameters
    ----------
    fit : Fit
    component : str
    """
    table = component_table(fit, component=component)
    decimals = column_decimals(table["std_error"].tolist())
    numbers = [[format_value(value, decimals) for value in table[name].tolist()] for name in ("estimate", "std_error")]
    z = [format_value(value, 2, 2, least=1) for value in table["statistic"].tolist()]
    rows = tuple(zip(map(str, table.index), *numbers, z, strict=True))
    return Table(
        _TITLES.get(component, f"{component} part"),
        ("", "Estimate", "Std. error", "z value"),
        rows,
        ("left", "right", "right", "right"),
    )
