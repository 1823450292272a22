"""Columns of the data that a model does not keep, read on the rows of its fit."""

from __future__ import annotations

import numpy as np

from lme4py.data.column import Column
from lme4py.data.frame import Frame
from lme4py.design.beside.given import column_of_text, given_text
from lme4py.design.design import Design
from lme4py.errors import DataError
from lme4py.formula.deparse import names_in

__all__ = ["column_of_fit", "is_unchanged"]


def column_of_fit(design: Design, text: str, what: str) -> Column | None:
    """A column or an expression on the rows used: of the columns that the fit keeps, otherwise of its data.

    Parameters
    ----------
    design : Design
    text : str
    what : str
        Name of the argument, for messages.

    Returns
    -------
    Column or None
        None where there is no such column, or it needs the data and these are not at hand (after pickling, say).

    Raises
    ------
    DataError
        The data were changed after the fit, so that their rows are no longer those of the fit.
    FormulaError
        Neither a column nor an expression.
    """
    functions, kept = design.recipe.functions, _kept(design)
    frame = kept if design.source is None else design.source()
    try:
        node = given_text(text, what, frame.names).node
    except DataError:
        return None
    if node is not None and all(name in kept for name in names_in(node, frame.names)):
        return column_of_text(text, what, kept, functions)
    if not is_unchanged(design, frame):
        raise DataError(
            f"{text!r} is not in the model, and the data frame was changed after the fit, so that its rows are no "
            "longer those of the fit; give an array with one value for each row used."
        )
    return column_of_text(text, what, frame, functions).take(design.keep)


def _kept(design: Design) -> Frame:
    columns = dict(design.columns or {})
    names = tuple(columns)
    return Frame(names, design.n_obs, lambda i: columns[names[i]])


def is_unchanged(design: Design, frame: Frame) -> bool:
    """Whether data that were sorted or edited since still have the rows of the fit.

    Parameters
    ----------
    design : Design
    frame : Frame
        The data as they are now.
    """
    if frame.n_rows != design.n_rows or not frame.index.equals(design.index):
        return False
    return all(
        name in frame and _same(frame.column(name).take(design.keep), column)
        for name, column in (design.columns or {}).items()
    )


def _same(now: Column, then: Column) -> bool:
    if now.kind != then.kind or now.levels != then.levels:
        return False
    return bool(np.array_equal(now.values, then.values))
