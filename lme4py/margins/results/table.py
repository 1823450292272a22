"""The table of a result of a session, for every output format."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lme4py.tables.numbers import format_column, format_p_value, format_value
from lme4py.tables.table import Table

if TYPE_CHECKING:
    from lme4py.margins.results.result import MarginsResult

__all__ = ["result_table"]


def result_table(result: MarginsResult) -> Table:
    """One row for each estimate, with what was done in the notes."""
    frame = result.to_frame()
    level = f"{100 * result.level:g}%"
    heads = ["", "Estimate", "Std. error", f"{level} lower", "upper", result.statistic_name]
    columns: list[list[str]] = [[str(label) for label in frame["label"]]]
    for name in ("estimate", "std_error", "ci_lower", "ci_upper", "statistic"):
        columns.append(format_column([float(x) for x in frame[name]]))
    if np.isfinite(result.df).any():
        heads.append("df")
        columns.append([format_value(float(x), 1, 6, least=1) for x in result.df])
    heads.append("p")
    columns.append([format_p_value(float(p)) for p in frame["p_value"]])
    rows = tuple(zip(*columns, strict=True))
    align: Any = ("left", *("right",) * (len(heads) - 1))
    return Table(result.title, tuple(heads), rows, align, tuple(result.all_notes()))
