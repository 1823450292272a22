"""Tables as LaTeX (with the rules of the booktabs package)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from lme4py.errors import OptionError
from lme4py.tables.table import Table

__all__ = ["render_latex"]

_COMMANDS = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "`": r"\textasciigrave{}",
    "\n": " ",
}
_SPECIAL = re.compile("|".join(re.escape(character) for character in _COMMANDS))
_NUMBER = re.compile(r"[-+]?\d+(\.\d+)?(e[-+]\d+)?")
_NUMBER_ONLY = r"[-+]?\d+(?:\.\d+)?(?:e[-+]\d+)?"
# An estimate with stars and its standard error, limits, or a p-value.
_NUMBERS = re.compile(
    rf"{_NUMBER_ONLY}\** \({_NUMBER_ONLY}\)|{_NUMBER_ONLY}\*+|\[{_NUMBER_ONLY}, {_NUMBER_ONLY}\]|p [<=] {_NUMBER_ONLY}"
)


def render_latex(tables: Sequence[Table], caption: str | None = None, label: str | None = None) -> str:
    """Render tables as ``tabular`` environments; a comment names the packages that the document needs.

    Parameters
    ----------
    tables : sequence of Table
    caption : str, optional
        Puts everything into one ``table`` environment with this caption (special characters are escaped); it is made
        narrower where it would be wider than the text.
    label : str, optional
        For cross-references; needs a caption.
    """
    if label is not None and caption is None:
        raise OptionError(f"label={label!r} belongs to a caption; give caption= too.")
    body = "\n\n\\par\\medskip\n".join("\n".join(_lines(table, caption is not None)) for table in tables)
    if caption is None:
        preamble = r"% needs \usepackage{booktabs} and \usepackage[T1]{fontenc}"
        return f"{preamble}\n\n{body}\n"
    preamble = r"% needs \usepackage{booktabs,adjustbox} and \usepackage[T1]{fontenc}"
    return "\n".join([preamble, "", *_float(body, caption, label)]) + "\n"


def _float(body: str, caption: str, label: str | None) -> list[str]:
    """A floating table with a caption above it."""
    mark = [rf"\label{{{label}}}"] if label is not None else []
    return [r"\begin{table}[htbp]", rf"\caption{{{escape(caption)}}}", *mark, body, r"\end{table}"]


def escape(text: str) -> str:
    """Replace every character that is special to LaTeX by a command that prints it."""
    return _SPECIAL.sub(lambda match: _COMMANDS[match.group()], text)


def _lines(table: Table, within: bool) -> list[str]:
    """Title, tabular and notes; `within` the width of the text."""
    title = [rf"\par\noindent\textbf{{{escape(table.title)}}}\par\smallskip"] if table.title else []
    notes = [rf"\par\smallskip\noindent {escape(note)}" for note in table.notes]
    return title + (_tabular(table, within) if table.rows else []) + notes


def _tabular(table: Table, within: bool) -> list[str]:
    sides = "".join("l" if side == "left" else "r" for side in table.align)
    head = [_line(table.columns), r"\midrule"] if table.show_header else []
    rows = [_line(row) for row in table.rows]
    lines = [rf"\begin{{tabular}}{{{sides}}}", r"\toprule", *head, *rows, r"\bottomrule", r"\end{tabular}"]
    if within:
        return [r"\noindent\begin{adjustbox}{max width=\linewidth}", *lines, r"\end{adjustbox}"]
    return [rf"\noindent{lines[0]}", *lines[1:]]


def _line(cells: Sequence[str]) -> str:
    # A row that begins with "[" would be read as the length argument of the "\\" before it.
    text = " & ".join(_cell(cell) for cell in cells)
    return ("{}" if text.startswith("[") else "") + text + r" \\"


def _cell(cell: str) -> str:
    if _NUMBER.fullmatch(cell) is not None:
        return _number(cell)
    if _NUMBERS.fullmatch(cell) is not None:
        parts = re.split(rf"({_NUMBER_ONLY})", cell)
        return "".join(_number(part) if i % 2 else escape(part) for i, part in enumerate(parts))
    return escape(cell)


def _number(cell: str) -> str:
    mantissa, _, exponent = cell.partition("e")
    # Math mode sets a true minus sign.
    return f"${mantissa} \\times 10^{{{int(exponent)}}}$" if exponent else f"${mantissa}$"
