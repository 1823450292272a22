"""The response: a column, an expression, or successes out of trials."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from lme4py.data.beside import beside
from lme4py.data.column import Column
from lme4py.data.frame import Frame
from lme4py.design.beside.given import number_column
from lme4py.errors import DataError, OptionError
from lme4py.families.base import Family
from lme4py.keyword.names import quote, term

__all__ = ["response_part"]


def response_part(y: Any, trials: Any, family: Family | None, frame: Frame) -> tuple[str, Frame]:
    """Left-hand side of the formula, and the data it is evaluated on.

    Parameters
    ----------
    y : str, or sequence of str
        Column or expression; with `trials` the number of successes. Several: counts of unordered categories.
    trials : None, str, number, or array of shape (n_data,)
        A column name, an expression, or values; values with an index are matched with the rows by it.
    family : Family or None
        None for a linear mixed model.
    frame : Frame

    Returns
    -------
    str
        ``"y"``, ``"cbind(y, trials - y)"`` or ``"cbind(a, b, c)"``.
    Frame
        With a column more where `trials` is an array.
    """
    if isinstance(y, list | tuple) and family is not None and family.is_joint:
        return f"cbind({', '.join(term(own, frame, 'y') for own in y)})", frame
    response = term(y, frame, "y")
    if trials is None:
        return response, frame
    if family is None or not family.has_trials:
        name = "gaussian" if family is None else family.name
        raise OptionError(f"`trials` is for the binomial family; this model is {name}.")
    text, values, extended = _trials(trials, frame)
    if str(y) in frame:
        _check_successes(frame.column(str(y)), values)
        return f"cbind({response}, {text} - {response})", extended
    return f"cbind({response}, {text} - ({response}))", extended


def _trials(trials: Any, frame: Frame) -> tuple[str, Any, Frame]:
    """Trials as text, as values, and the data that hold them."""
    if isinstance(trials, str):
        text = term(trials, frame, "trials")
        found = number_column(trials, "trials", frame)
        return text if trials in frame else f"({text})", found.values, frame
    if isinstance(trials, bool):
        raise OptionError(f"`trials` is {trials!r}; give a column name, a number or one number for each row.")
    if isinstance(trials, int | float | np.number):
        number = float(trials)
        if not (np.isfinite(number) and number >= 1.0 and number == np.floor(number)):
            raise OptionError(f"`trials` is {trials!r}; give a whole number of at least 1.")
        return str(int(number)), number, frame
    name = "trials"
    while name in frame:
        name += "_"
    added = replace(beside(trials, "trials", frame), name=name)
    return quote(name), added.values, frame.with_column(added)


def _check_successes(successes: Column, trials: Any) -> None:
    """Successes cannot be more than trials."""
    if successes.kind == "boolean":
        return
    if successes.kind != "numeric":
        raise DataError(
            f"the response {successes.name!r} is {successes.kind}; with `trials` it must be the number of successes."
        )
    with np.errstate(invalid="ignore"):
        bad = np.flatnonzero(successes.values > trials)
    if bad.size:
        first = int(bad[0])
        out_of = float(np.broadcast_to(trials, successes.values.shape)[first])
        raise DataError(
            f"{bad.size} of {successes.values.size} rows have more successes than trials (row {first}: "
            f"{successes.name} = {successes.values[first]:g}, trials = {out_of:g}); correct the counts."
        )
