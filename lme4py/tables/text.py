"""Tables as plain text."""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Sequence

from lme4py.tables.table import Align, Table

__all__ = ["render_text"]

_WIDTH = 88  # notes are wrapped at this width; tables are as wide as they need to be


def render_text(tables: Sequence[Table], width: int | None = None) -> str:
    """Render tables one below the other, separated by an empty line.

    Parameters
    ----------
    tables : sequence of Table
    width : int, optional
        Tables that are wider are continued below, each part with the first column; as wide as they need to be when not
        given.
    """
    return "\n\n".join("\n".join(_table_lines(table, width)) for table in tables)


def _table_lines(table: Table, width: int | None) -> list[str]:
    lines = [table.title] if table.title else []
    body = ([table.columns] if table.show_header else []) + list(table.rows)
    if table.rows:
        widths = [max(map(display_width, column)) for column in zip(*body, strict=True)]
        for i, part in enumerate(_parts(widths, width)):
            lines += [""] * (i > 0)
            columns = [_padded([row[j] for row in body], widths[j], table.align[j]) for j in part]
            lines += [f"  {'  '.join(cells)}".rstrip() for cells in zip(*columns, strict=True)]
    return lines + [line for note in table.notes for line in _wrapped(note)]


def _parts(widths: Sequence[int], width: int | None) -> list[list[int]]:
    """Columns of each part of a table: the first one, and as many of the others as fit beside it."""
    if width is None or len(widths) < 2:
        return [list(range(len(widths)))]
    parts, used = [[0]], widths[0] + 2
    for j, own in enumerate(widths[1:], start=1):
        if used + own + 2 > width and len(parts[-1]) > 1:
            parts.append([0])
            used = widths[0] + 2
        parts[-1].append(j)
        used += own + 2
    return parts


def _padded(cells: Sequence[str], width: int, side: Align) -> list[str]:
    """The cells of a column, as wide as the widest."""
    pad = str.ljust if side == "left" else str.rjust
    # Python counts characters.
    return [pad(cell, width if cell.isascii() else width + len(cell) - display_width(cell)) for cell in cells]


def _wrapped(note: str) -> list[str]:
    return textwrap.wrap(note, _WIDTH, break_long_words=False, break_on_hyphens=False)


def display_width(text: str) -> int:
    """Columns that `text` takes on a terminal: wide characters count twice, combining marks not at all."""
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    marks = sum(unicodedata.combining(character) > 0 for character in text)
    return len(text) + wide - marks
