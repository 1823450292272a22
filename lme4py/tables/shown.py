"""What results print: text in a terminal, tables in a notebook, and both as Markdown, LaTeX and HTML."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from lme4py.tables.html import render_html
from lme4py.tables.latex import render_latex
from lme4py.tables.markdown import render_markdown
from lme4py.tables.table import Align, Table
from lme4py.tables.text import render_text

__all__ = ["Shown", "Summary", "facts"]

_WIDTH = 88


class Shown:
    """A result that prints its tables: as text in a terminal and in `print`, as HTML in a notebook."""

    __slots__ = ()

    def _tables(self) -> Sequence[Table]:
        """What is shown, in order."""
        raise NotImplementedError

    def __str__(self) -> str:
        return render_text(self._tables(), _WIDTH)

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return render_html(self._tables())

    def to_html(self) -> str:
        """What a notebook shows, as HTML.

        Returns
        -------
        str
        """
        return render_html(self._tables())

    def to_markdown(self) -> str:
        """The tables as Markdown.

        Returns
        -------
        str
        """
        return render_markdown(self._tables())

    def to_latex(self, caption: str | None = None, label: str | None = None) -> str:
        """The tables as LaTeX with the rules of booktabs.

        Parameters
        ----------
        caption : str, optional
            Puts the tables into a ``table`` environment with this caption.
        label : str, optional
            For ``\\ref``; needs a caption.

        Returns
        -------
        str
        """
        return render_latex(self._tables(), caption, label)


class Summary(str):
    """Tables as text: a `str` that prints itself in a terminal and shows HTML in a notebook.

    Parameters
    ----------
    tables : sequence of Table

    Examples
    --------
    >>> from lme4py import lmer, load_dataset
    >>> summary = lmer("Yield ~ 1 + (1 | Batch)", load_dataset("Dyestuff")).summary()
    >>> summary.splitlines()[0]
    'Linear mixed model fit by REML'
    >>> print(summary.to_latex(caption="Dyestuff").splitlines()[2])
    \\begin{table}[htbp]
    """

    tables: tuple[Table, ...]

    def __new__(cls, tables: Sequence[Table]) -> Self:
        made = super().__new__(cls, render_text(tables))
        made.tables = tuple(tables)
        return made

    def __getnewargs__(self) -> tuple[tuple[Table, ...]]:  # type: ignore[override]
        return (self.tables,)

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return render_html(self.tables)

    def to_html(self) -> str:
        """The tables as HTML.

        Returns
        -------
        str
        """
        return render_html(self.tables)

    def to_markdown(self) -> str:
        """The tables as Markdown.

        Returns
        -------
        str
        """
        return render_markdown(self.tables)

    def to_latex(self, caption: str | None = None, label: str | None = None) -> str:
        """The tables as LaTeX with the rules of booktabs.

        Parameters
        ----------
        caption : str, optional
            Puts the tables into a ``table`` environment with this caption.
        label : str, optional
            For ``\\ref``; needs a caption.

        Returns
        -------
        str
        """
        return render_latex(self.tables, caption, label)


def facts(title: str, rows: Sequence[tuple[str, str]], notes: Sequence[str] = ()) -> Table:
    """A list of labels and values as a table.

    Parameters
    ----------
    title : str
    rows : sequence of (str, str)
    notes : sequence of str
    """
    align: tuple[Align, Align] = ("left", "left")
    return Table(title, ("", ""), tuple(rows), align, tuple(notes), show_header=False)
