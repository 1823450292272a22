"""Tables as Word documents and Excel workbooks."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lme4py.errors import Lme4Error, OptionError
from lme4py.tables.table import Align, Table

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["write_excel", "write_word"]


def write_word(tables: Sequence[Table], path: str | Path) -> None:
    """Write tables into a new document, each with its title above and its notes below.

    Parameters
    ----------
    tables : sequence of Table
    path : str or Path

    Raises
    ------
    OptionError
        The path does not end in ``.docx``.
    Lme4Error
        python-docx is not installed.
    """
    _check(path, ".docx", "to_word")
    document = _needed("docx", "python-docx").Document()
    for table in tables:
        _add_word(document, table)
    document.save(str(path))


def write_excel(table: Table, numbers: pd.DataFrame, path: str | Path) -> None:
    """Write a table as text into the first sheet of a workbook, and its numbers into the second.

    Parameters
    ----------
    table : Table
    numbers : DataFrame
    path : str or Path

    Raises
    ------
    OptionError
        The path does not end in ``.xlsx``.
    Lme4Error
        openpyxl is not installed.
    """
    _check(path, ".xlsx", "to_excel")
    package = _needed("openpyxl", "openpyxl")
    styles = importlib.import_module("openpyxl.styles")
    book = package.Workbook()
    sheet = book.active
    sheet.title = "Table"
    rows = [[table.title], list(table.columns), *map(list, table.rows), [], *([note] for note in table.notes)]
    for row in rows:
        # A text that begins with "=" would be read as a formula.
        sheet.append([_plain(cell) for cell in row])
    for cell in (*sheet[1], *sheet[2]):
        cell.font = styles.Font(bold=True)
    for i in range(2, 3 + len(table.rows)):
        for cell, side in zip(sheet[i], table.align, strict=False):
            cell.alignment = styles.Alignment(horizontal=side)
    for j, column in enumerate(zip(table.columns, *table.rows, strict=True), start=1):
        letter = package.utils.get_column_letter(j)
        sheet.column_dimensions[letter].width = max(map(len, column)) + 2
    second = book.create_sheet("Numbers")
    second.append([str(name) for name in numbers.columns])
    for numbers_of_row in numbers.astype(object).where(numbers.notna(), None).itertuples(index=False):
        second.append([_plain(cell) if isinstance(cell, str) else cell for cell in numbers_of_row])
    book.save(str(path))


def _add_word(document: Any, table: Table) -> None:
    if table.title:
        document.add_paragraph().add_run(table.title).bold = True
    body = ([table.columns] if table.show_header else []) + list(table.rows)
    if table.rows:
        made = document.add_table(rows=len(body), cols=len(table.columns))
        for i, row in enumerate(body):
            for j, (cell, side) in enumerate(zip(row, table.align, strict=True)):
                _fill(made.cell(i, j), cell, side, bold=table.show_header and i == 0)
        _rules(made, [0, 1, len(body)] if table.show_header else [0, len(body)])
    for note in table.notes:
        document.add_paragraph(note)


def _fill(cell: Any, text: str, side: Align, bold: bool) -> None:
    shared = importlib.import_module("docx.shared")
    sides = importlib.import_module("docx.enum.text").WD_ALIGN_PARAGRAPH
    paragraph = cell.paragraphs[0]
    paragraph.alignment = sides.LEFT if side == "left" else sides.RIGHT
    paragraph.paragraph_format.space_after = shared.Pt(0)
    run = paragraph.add_run(text)
    run.bold = bold
    run.font.size = shared.Pt(9)


def _rules(table: Any, heights: Sequence[int]) -> None:
    """Horizontal rules above these rows, the last one below the table: those of booktabs."""
    xml = importlib.import_module("docx.oxml")
    names = importlib.import_module("docx.oxml.ns")
    last = len(table.rows)
    for height in heights:
        edge = "bottom" if height == last else "top"
        for cell in table.rows[min(height, last - 1)].cells:
            properties = cell._tc.get_or_add_tcPr()
            borders = properties.find(names.qn("w:tcBorders"))
            if borders is None:
                borders = xml.OxmlElement("w:tcBorders")
                properties.append(borders)
            rule = xml.OxmlElement(f"w:{edge}")
            for key, value in (("val", "single"), ("sz", "8"), ("color", "000000")):
                rule.set(names.qn(f"w:{key}"), value)
            borders.append(rule)


def _plain(cell: str) -> str:
    return f"'{cell}" if cell.startswith("=") else cell


def _check(path: str | Path, ending: str, method: str) -> None:
    if Path(path).suffix.lower() != ending:
        raise OptionError(f"{method}() writes {ending} files; {str(path)!r} does not end so.")
    if not Path(path).resolve().parent.is_dir():
        raise OptionError(f"there is no directory {Path(path).resolve().parent}; create it first.")


def _needed(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise Lme4Error(
            f'this needs {package}, which is not installed; run `python -m pip install "lme4py[office]"`.'
        ) from None
