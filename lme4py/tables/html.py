"""Tables as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from lme4py.tables.table import Align, Table

__all__ = ["render_html"]

# No colours but that of the rule, so that dark themes keep theirs.
_TABLE = "border-collapse: collapse; margin: 0 0 0.8em 0; font-variant-numeric: tabular-nums"
_CELL = "padding: 1px 0.6em; border: none; white-space: nowrap"


def render_html(tables: Sequence[Table]) -> str:
    """Render tables inside one ``<div>``; styled inline, so that it looks the same in any notebook."""
    parts = "\n".join(_table_html(table) for table in tables)
    return f'<div class="lme4py">\n{parts}\n</div>'


def _table_html(table: Table) -> str:
    notes = "\n".join(f"<p>{escape(note)}</p>" for note in table.notes)
    if not table.rows:
        return (f"<p><strong>{escape(table.title)}</strong></p>\n" if table.title else "") + notes
    caption = _caption(table.title) if table.title else ""
    head = f"<thead>{_row(table.columns, table.align, 'th')}</thead>\n" if table.show_header else ""
    rows = "\n".join(_row(row, table.align, "td") for row in table.rows)
    return f'<table style="{_TABLE}">\n{caption}{head}<tbody>\n{rows}\n</tbody>\n</table>\n{notes}'.rstrip()


def _caption(title: str) -> str:
    style = "caption-side: top; text-align: left; font-weight: bold; white-space: nowrap; padding: 2px 0.6em"
    return f'<caption style="{style}">{escape(title)}</caption>\n'


def _row(cells: Sequence[str], align: Sequence[Align], tag: str) -> str:
    rule = "; border-bottom: 1px solid #999" if tag == "th" else ""
    inside = "".join(
        f'<{tag} style="{_CELL}{rule}; text-align: {side}">{escape(cell)}</{tag}>'
        for cell, side in zip(cells, align, strict=True)
    )
    return f"<tr>{inside}</tr>"
