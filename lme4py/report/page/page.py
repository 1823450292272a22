"""One page that holds all of a fitted model: question, equations, tables, checks, pictures. It needs no network."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from html import escape
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lme4py.design.names import INTERCEPTS
from lme4py.errors import Lme4Error, Lme4Warning, OptionError
from lme4py.fits.base import Fit
from lme4py.inference.diagnostics.check import check
from lme4py.inference.shares.icc import icc_table
from lme4py.inference.shares.r2 import r_squared
from lme4py.report.page.equations import equations
from lme4py.report.page.figures import figure
from lme4py.report.page.style import STYLE
from lme4py.report.page.words import findings, headline, listed, question
from lme4py.report.plots.plots import plot
from lme4py.report.plots.typical import effect_names
from lme4py.tables.html import render_html
from lme4py.tables.table import Table

__all__ = ["report_html", "write_report"]

_MOST_EFFECTS = 4
_MARKS = {True: "ok", False: "attention", None: "skipped"}


def write_report(
    fit: Fit, path: str | os.PathLike[str], tables: Sequence[Table], title: str | None = None, ddf: str | None = None
) -> Path:
    """Write one self-contained HTML page: the question, the model in words and equations, tables, checks, plots.

    Parameters
    ----------
    fit : Fit
    path : str or path
        Of the file, such as ``"report.html"``.
    tables : sequence of Table
        The summary.
    title : str, optional
        The formula when not given.
    ddf : {None, "satterthwaite", "kenward-roger", "residual", "normal"}
        Degrees of freedom of tests and limits of the fixed effects; None is `default_ddf`.

    Returns
    -------
    pathlib.Path
        Of the file written.

    Raises
    ------
    OptionError
        The file cannot be written.

    Notes
    -----
    The page follows the light or dark setting of the reader's system, scrolls wide tables on small screens, and says
    of each part that the model does not have why it is left out. Plots need matplotlib.
    """
    target = Path(path)
    if target.is_dir() or not target.parent.is_dir():
        raise OptionError(f"the report cannot be written to {str(path)!r}; give the name of a file in a directory.")
    text = report_html(fit, tables, title, ddf)
    try:
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OptionError(f"the report cannot be written to {str(path)!r}: {error.strerror}.") from None
    return target


def report_html(fit: Fit, tables: Sequence[Table], title: str | None = None, ddf: str | None = None) -> str:
    """The page as text; see `write_report`.

    Parameters
    ----------
    fit : Fit
    tables : sequence of Table
    title : str, optional
    ddf : str, optional
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", Lme4Warning)
        sections = [section for section in _sections(fit, tables, ddf) if section[2]]
    said = dict.fromkeys(str(one.message) for one in caught if issubclass(one.category, Lme4Warning))
    for one in caught:
        if not issubclass(one.category, Lme4Warning):
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
    if said:
        sections.append(("warnings", "Warnings", _list(list(said))))
    links = "".join(f'<a href="#{key}">{escape(name)}</a>' for key, name, _ in sections)
    parts = [f'<section id="{key}">\n<h2>{escape(name)}</h2>\n{html}\n</section>' for key, name, html in sections]
    return _page(fit, title, "\n".join([f"<nav>{links}</nav>", *parts]))


def _page(fit: Fit, title: str | None, body: str) -> str:
    formula = escape(fit.design.formula)
    heading = formula if title is None else escape(title)
    under = "" if title is None else f"<p><code>{formula}</code></p>\n"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{heading}</title>\n<style>\n{STYLE}\n</style>\n</head>\n<body>\n<main>\n"
        f'<h1>{heading}</h1>\n{under}<p class="soft">{escape(headline(fit))}</p>\n{body}\n'
        f"<footer>Made by {_program()}.</footer>\n</main>\n</body>\n</html>\n"
    )


def _program() -> str:
    try:
        return f"lme4py {version('lme4py')}"
    except PackageNotFoundError:
        return "lme4py"


def _sections(fit: Fit, tables: Sequence[Table], ddf: str | None) -> Iterator[tuple[str, str, str]]:
    """Key, name and HTML of each part."""
    yield "question", "The question", f"<p>{escape(question(fit))}</p>"
    yield "found", "What was found", _or_why(lambda: _found(fit, ddf))
    yield "model", "The model", f'<div class="model">\n{_paragraphs(equations(fit))}\n</div>'
    yield "estimates", "Estimates", render_html(tables)
    yield "shares", "How much is explained", _or_why(lambda: _shares(fit))
    yield "checks", "Checks", _or_why(lambda: _checks(fit))
    yield "pictures", "Pictures", "\n".join(_pictures(fit, ddf))


def _or_why(make: Callable[[], str]) -> str:
    """A part of the page, or the reason why the model does not have it."""
    try:
        return make()
    except Lme4Error as error:
        return f'<p class="soft">Left out: {escape(" ".join(str(error).split()))}</p>'


def _list(lines: Sequence[str]) -> str:
    return "<ul>\n" + "\n".join(f"<li>{escape(line)}</li>" for line in lines) + "\n</ul>"


def _paragraphs(lines: Sequence[str]) -> str:
    return "\n".join(f"<p>{line}</p>" for line in lines)


def _found(fit: Fit, ddf: str | None) -> str:
    lines = findings(fit, ddf)
    if not lines:
        return ""
    groups = list(fit.design.n_groups)
    held = f" and the same random effects of {listed(groups)}" if groups and not fit.normal_errors else ""
    note = f"Each sentence compares rows that are alike in everything else{held}."
    return f'{_list(lines)}\n<p class="soft">{escape(note)}</p>'


def _shares(fit: Fit) -> str:
    found = r_squared(fit)
    rows = [
        ("Fixed effects (marginal R²)", found.marginal),
        ("Fixed and random effects (conditional R²)", found.conditional),
    ]
    # Curves of the levels of a factor are random effects too.
    groups = [term.group for term in fit.design.terms if not term.is_curve]
    if groups:
        table = icc_table(fit)
        rows += [
            (f"Intraclass correlation, {component.partition('|')[2] or groups[0]}", float(value))
            for component, value in zip(table["component"], table["estimate"], strict=True)
        ]
    cells = tuple((name, f"{value:.3f}") for name, value in rows)
    note = "Shares of the variance after Nakagawa, Johnson and Schielzeth (2017)."
    return render_html([Table("", ("", "Share"), cells, ("left", "right"), (note,))])


def _checks(fit: Fit) -> str:
    found = check(fit)
    lines = "\n".join(
        f"<li{' class=' + chr(34) + 'attention' + chr(34) if line.ok is False else ''}>"
        f'<span class="mark">{_MARKS[line.ok]}</span><b>{escape(line.name)}</b>: {escape(line.message)}</li>'
        for line in found
    )
    return f'<p>{escape(found.verdict)}</p>\n<ul class="checks">\n{lines}\n</ul>'


def _pictures(fit: Fit, ddf: str | None) -> Iterator[str]:
    for kind, variable, caption, options in _wanted(fit, ddf):
        yield _or_why(
            lambda kind=kind, variable=variable, caption=caption, options=options: figure(  # type: ignore[misc]
                lambda: plot(fit, kind, variable, **options), caption
            )
        )


def _wanted(fit: Fit, ddf: str | None) -> Iterator[tuple[str, str | None, str, dict[str, Any]]]:
    """Kind, variable, caption and options of each plot."""
    response = fit.design.response_name
    if any(name not in INTERCEPTS for name in fit.design.x_names):
        yield "coef", None, "Coefficients with their confidence limits.", {"ddf": ddf}
    names = effect_names(fit)
    several = len(names) > 1
    for name in names[:_MOST_EFFECTS]:
        others = ", other variables at typical values" if several else ""
        zero = ", random effects at zero" if fit.design.terms else ""
        caption = f"{response} over {name}{others}{zero}, with its confidence limits."
        yield "effect", name, caption, {}
    for label in dict.fromkeys(term.group for term in fit.design.terms):
        first = next(term for term in fit.design.terms if term.group == label)
        effect = first.columns[0] if len(fit.design.n_groups) == 1 else f"{first.columns[0]}|{label}"
        yield "caterpillar", effect, f"Conditional modes of {first.columns[0]} of {label} with their intervals.", {}
    if fit.normal_errors:
        yield "residuals", None, "Residuals against fitted values: no pattern is what the model expects.", {}
        yield "qq", None, "Residuals against normal quantiles: points on the line are what the model expects.", {}
    elif fit.independent_residuals:
        caption = "Quantile residuals of simulated responses: uniform, and without pattern, if the model is right."
        yield "residual_panel", None, caption, {"seed": 1}
