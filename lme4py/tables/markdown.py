"""Tables as Markdown (the pipe tables of GitHub, Quarto and Jupyter)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from lme4py.tables.table import Align, Table

__all__ = ["render_markdown"]

_SPECIAL = re.compile(r"([\\`*_\[\]<>#|~$])")


def render_markdown(tables: Sequence[Table]) -> str:
    """Render tables one below the other; titles become bold paragraphs."""
    return "\n\n".join("\n\n".join(_parts(table)) for table in tables)


def escape(text: str) -> str:
    """Put a backslash before every character that Markdown would read as markup."""
    return _SPECIAL.sub(r"\\\1", text).replace("\n", " ")


def _parts(table: Table) -> list[str]:
    title = [f"**{escape(table.title)}**"] if table.title else []
    body = ["\n".join(_pipe_table(table))] if table.rows else []
    return title + body + [escape(note) for note in table.notes]


def _pipe_table(table: Table) -> list[str]:
    # Markdown knows no table without a heading line: an empty one stands in.
    header = table.columns if table.show_header else ("",) * len(table.columns)
    return [_line(header), "|" + "|".join(_rule(side) for side in table.align) + "|", *map(_line, table.rows)]


def _rule(side: Align) -> str:
    return ":---" if side == "left" else "---:"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(escape(cell) for cell in cells) + " |"
