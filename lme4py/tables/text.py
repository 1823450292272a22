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
        widths = [max(display_width(row[j]) for row in body) for j in range(len(table.columns))]
        for i, part in enumerate(_parts(widths, width)):
            lines += [""] * (i > 0)
            lines += [
                _row_line([row[j] for j in part], [widths[j] for j in part], [table.align[j] for j in part])
                for row in body
            ]
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


def _row_line(row: Sequence[str], widths: Sequence[int], align: Sequence[Align]) -> str:
    cells = [_padded(cell, width, side) for cell, width, side in zip(row, widths, align, strict=True)]
    return ("  " + "  ".join(cells)).rstrip()


def _padded(cell: str, width: int, side: Align) -> str:
    space = " " * (width - display_width(cell))
    return cell + space if side == "left" else space + cell


def _wrapped(note: str) -> list[str]:
    return textwrap.wrap(note, _WIDTH, break_long_words=False, break_on_hyphens=False)


def display_width(text: str) -> int:
    """Columns that `text` takes on a terminal: wide characters count twice, combining marks not at all."""
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    marks = sum(unicodedata.combining(character) > 0 for character in text)
    return len(text) + wide - marks
