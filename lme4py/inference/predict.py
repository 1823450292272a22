"""Predictions from a fit, for its own rows or for new data."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from lme4py.data.frame import Frame, read_frame
from lme4py.design.recipe import new_fixed, new_random
from lme4py.engine.types import FloatArray
from lme4py.errors import DataError, Lme4Warning, OptionError, did_you_mean
from lme4py.fit import Fit

if TYPE_CHECKING:
    import pandas as pd


def predict(
    fit: Fit,
    data: Any = None,
    include_random: bool | str | Iterable[str] = True,
    type: str = "response",
    new_levels: str = "zero",
) -> pd.Series:
    """Predicted means.

    Parameters
    ----------
    fit : Fit
    data : data frame, optional
        New data with the columns of the formula; None predicts the rows that were fitted.
    include_random : bool, str or iterable of str
        True adds the conditional modes of all terms, False none; names of grouping factors add theirs only;
        "integrate" averages over the distribution of the random effects (the same as False for a linear model).
    type : {"response", "linear"}
        The same for a linear model.
    new_levels : {"zero", "error"}
        What to do with groups that were not in the training data: contribute nothing, with one warning that counts
        them, or raise.

    Returns
    -------
    pandas.Series
        On the data's own index; NaN in rows of new data with a missing value.

    Raises
    ------
    OptionError, DataError
    """
    import pandas as pd

    if type not in ("response", "linear"):
        raise OptionError(f"type must be 'response' or 'linear', got {type!r}.")
    if new_levels not in ("zero", "error"):
        raise OptionError(f"new_levels must be 'zero' or 'error', got {new_levels!r}.")
    chosen = _chosen_terms(fit, include_random)
    if data is None:
        return on_data_index(fit, _training(fit, chosen, fit.fitted), "predicted")
    frame = read_frame(data)
    return pd.Series(_new(fit, frame, chosen, new_levels), index=frame.index, name="predicted")


def on_data_index(fit: Fit, values: FloatArray, name: str) -> pd.Series:
    """Values of the rows used as a Series on the data's own index.

    With ``na_action="exclude"`` all rows of the data, NaN where a row was left out; otherwise the rows used.
    """
    import pandas as pd

    design = fit.design
    if design.na_action == "exclude":
        padded = np.full(design.keep.size, np.nan)
        padded[design.keep] = values
        return pd.Series(padded, index=design.index, name=name)
    index = design.index if design.keep.all() else design.index[design.keep]
    return pd.Series(values, index=index, name=name)


def _chosen_terms(fit: Fit, include_random: bool | str | Iterable[str]) -> list[int]:
    """Positions of the terms whose modes are added."""
    terms = range(len(fit.design.terms))
    if isinstance(include_random, bool):
        return list(terms) if include_random else []
    if include_random == "integrate":
        return []
    names = [include_random] if isinstance(include_random, str) else list(include_random)
    known = list(fit.design.n_groups)
    for name in names:
        if name not in known:
            raise OptionError(
                f"include_random names {name!r}, which is no grouping factor of the model "
                f"({', '.join(known)}).{did_you_mean(str(name), known)}"
            )
    return [t for t in terms if fit.design.terms[t].group in names]


def _training(fit: Fit, chosen: list[int], whole: FloatArray) -> FloatArray:
    """Linear predictor of the rows used with the chosen terms; `whole` is the one with all of them."""
    design = fit.design
    if len(chosen) == len(design.terms):
        return whole
    out: FloatArray = design.X @ fit.beta
    if design.offset is not None:
        out = out + design.offset
    for t in chosen:
        term = design.terms[t]
        out = out + np.einsum("nk,nk->n", term.values, fit.modes[t][term.codes])
    return out


def _new(fit: Fit, frame: Frame, chosen: list[int], new_levels: str) -> FloatArray:
    recipe = fit.design.recipe
    X, offset = new_fixed(recipe, frame)
    out: FloatArray = X @ fit.beta + offset
    unseen: dict[str, tuple[int, int]] = {}
    for t in chosen:
        values, codes = new_random(recipe, frame, t)
        known = codes >= 0
        part = np.zeros(frame.n_rows)
        part[known] = np.einsum("nk,nk->n", values[known], fit.modes[t][codes[known]])
        out = out + part
        if not known.all():
            unseen[fit.design.terms[t].group] = (int((~known).sum()), frame.n_rows)
    if unseen:
        _report_unseen(unseen, new_levels)
    return out


def _report_unseen(unseen: dict[str, tuple[int, int]], new_levels: str) -> None:
    counts = "; ".join(f"{group}: {rows} of {n} rows" for group, (rows, n) in unseen.items())
    if new_levels == "error":
        raise DataError(
            f"the new data hold groups that are missing or were not in the training data ({counts}); remove these "
            "rows, or use new_levels='zero' to predict them from the rest of the model."
        )
    warnings.warn(
        f"groups that are missing or were not in the training data contribute nothing to the prediction ({counts}).",
        Lme4Warning,
        stacklevel=4,
    )
