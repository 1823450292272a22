"""The columns of the training data that plots and `augment` show."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from lme4py.data.column import Column
from lme4py.errors import OptionError, did_you_mean
from lme4py.fits.base import Fit
from lme4py.formula.deparse import names_in

__all__ = ["columns_of", "observed_response", "training_columns"]


def training_columns(fit: Fit) -> dict[str, Column]:
    """Columns of the data that the formula uses, on the rows used.

    Parameters
    ----------
    fit : Fit
    """
    columns = fit.design.columns or {}
    formula = fit.design.recipe.formula
    nodes = [] if formula.response is None else [formula.response]
    nodes += [*formula.fixed.variables, *formula.fixed.offsets]
    nodes += [node for recipe in fit.design.part_recipes for node in recipe.formula.fixed.variables]
    for bar in formula.bars:
        nodes += [*bar.terms.variables, *bar.group]
    names = {name for node in nodes for name in names_in(node, columns)}
    return {name: column for name, column in columns.items() if name in names}


def columns_of(fit: Fit, names: Iterable[str]) -> dict[str, Column]:
    """Some of the columns.

    Parameters
    ----------
    fit : Fit
    names : iterable of str

    Raises
    ------
    OptionError
        The model has no such column.
    """
    known = training_columns(fit)
    return {name: _known(known, name) for name in names}


def _known(known: dict[str, Column], name: str) -> Column:
    if name in known:
        return known[name]
    raise OptionError(
        f"the model has no variable {name!r}.{did_you_mean(str(name), known)} Its variables are "
        f"{', '.join(known) or 'not known: the design was made by hand'}."
    )


def observed_response(fit: Fit) -> NDArray[np.float64]:
    """The response of the rows used on the scale of the mean (proportions for binomial counts), shape (n,).

    Parameters
    ----------
    fit : Fit
    """
    data = getattr(fit, "data", None)
    if data is None:
        y: NDArray[np.float64] = fit.design.y
        return y
    observed: NDArray[np.float64] = data.y if data.trials is None else data.y / np.maximum(data.trials, 1.0)
    return observed
