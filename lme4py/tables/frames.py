"""Data frames that print themselves whole within 80 columns, numbers with the digits that count."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from lme4py.tables.html import render_html
from lme4py.tables.numbers import format_column, format_integer, format_p_value, format_value
from lme4py.tables.table import Align, Table
from lme4py.tables.text import render_text

__all__ = ["PrintedFrame", "frame_table", "printed"]

# Columns of a terminal, and rows above which the middle is left out.
_WIDTH = 80
_MOST_ROWS, _SHOWN = 60, 10
# Shown with two decimals, as in summaries.
_CRITERIA = frozenset(("aic", "bic", "loglik", "log_likelihood", "criterion", "deviance"))
# Longer text in a cell of a terminal goes on below.
_LONGEST = 60


class PrintedFrame(pd.DataFrame):
    """A data frame of results: as every other one, except that it prints whole within 80 columns.

    What is made from it (a column, a selection, a copy) is an ordinary data frame or Series. ``attrs["note"]`` is
    printed below the table, ``attrs["title"]`` above it; the columns named by ``attrs["hidden"]`` are not printed.
    """

    @property
    def _constructor(self) -> type[pd.DataFrame]:
        return pd.DataFrame

    def __repr__(self) -> str:
        table = frame_table(self)
        return render_text([replace(table, rows=tuple(line for row in table.rows for line in _folded(row)))], _WIDTH)

    def _repr_html_(self) -> str:
        return render_html([frame_table(self)])

    def __reduce__(self) -> tuple[Any, ...]:
        return printed, (pd.DataFrame(self),), {"attrs": dict(self.attrs)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.attrs.update(state["attrs"])


def printed(frame: pd.DataFrame, **shown: str | list[str]) -> PrintedFrame:
    """The same frame, which prints itself.

    Parameters
    ----------
    frame : DataFrame
    **shown
        ``title`` and ``note``, shown above and below; ``hidden``, names of columns that are not printed. They are kept
        in ``attrs``.
    """
    made = PrintedFrame(frame)
    made.attrs.update(frame.attrs)
    made.attrs.update(shown)
    return made


def frame_table(frame: pd.DataFrame) -> Table:
    """A data frame as a table of finished text.

    Parameters
    ----------
    frame : DataFrame
    """
    hidden = frame.attrs.get("hidden", ())
    columns = [(str(name), frame.iloc[:, j]) for j, name in enumerate(frame.columns) if name not in hidden]
    heads, cells, align = [], [], []
    if not isinstance(frame.index, pd.RangeIndex):
        heads.append("")
        cells.append([_text(label) for label in frame.index])
        align.append("left")
    for name, column in columns:
        heads.append(name)
        cells.append(_cells(name, column))
        align.append("right" if _is_number(column) else "left")
    rows = tuple(zip(*cells, strict=True)) if cells else ()
    sides: list[Align] = ["left" if side == "left" else "right" for side in align]
    note = str(frame.attrs.get("note", ""))
    return Table(
        str(frame.attrs.get("title", "")), tuple(heads), _shortened(rows), tuple(sides), (note,) if note else ()
    )


def _shortened(rows: tuple[tuple[str, ...], ...]) -> tuple[tuple[str, ...], ...]:
    """Long tables without their middle, whose size is said."""
    if len(rows) <= _MOST_ROWS:
        return rows
    gap = (f"... {len(rows) - 2 * _SHOWN} more rows", *[""] * (len(rows[0]) - 1))
    return (*rows[:_SHOWN], gap, *rows[-_SHOWN:])


def _is_number(column: pd.Series[Any]) -> bool:
    return bool(pd.api.types.is_numeric_dtype(column)) and not pd.api.types.is_bool_dtype(column)


def _cells(name: str, column: pd.Series[Any]) -> list[str]:
    if not _is_number(column):
        return [_text(value) for value in column]
    values = column.to_numpy(dtype=np.float64, na_value=np.nan)
    finite = values[np.isfinite(values)]
    if name.startswith("p_") or name == "p":
        made = [format_p_value(value) for value in values.tolist()]
    elif name.casefold() in _CRITERIA:
        made = [format_value(value, 2, 6) for value in values.tolist()]
    elif bool(np.all(finite == np.round(finite))):
        made = [format_integer(value) if math.isfinite(value) else str(value) for value in values.tolist()]
    else:
        made = format_column(values.tolist())
    return ["" if math.isnan(value) else text for value, text in zip(values.tolist(), made, strict=True)]


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(_text(part) for part in value)
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return ""
    return str(value)


def _folded(row: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """A row as the lines that its longest cell takes."""
    cells = [textwrap.wrap(cell, _LONGEST) or [""] for cell in row]
    for i in range(max(map(len, cells))):
        yield tuple(cell[i] if i < len(cell) else "" for cell in cells)
