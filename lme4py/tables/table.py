"""The one table model that every output format is made from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

__all__ = ["Align", "Table"]

Align: TypeAlias = Literal["left", "right"]


@dataclass(frozen=True, slots=True)
class Table:
    """A table of finished text: numbers are formatted before they come here, so that all formats agree.

    Attributes
    ----------
    title : str
        May be empty.
    columns : tuple of str
        Headings; may be empty text for a column that continues the one before it.
    rows : tuple of tuple of str
        Cells, each row as long as `columns`.
    align : tuple of {"left", "right"}
        One for each column.
    notes : tuple of str
        Sentences below the table.
    show_header : bool
        False for lists of label and value.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    align: tuple[Align, ...]
    notes: tuple[str, ...] = ()
    show_header: bool = True

    def __post_init__(self) -> None:
        width = len(self.columns)
        if len(self.align) != width or any(len(row) != width for row in self.rows):
            raise ValueError(f"Table {self.title!r}: every row and `align` need {width} entries.")
