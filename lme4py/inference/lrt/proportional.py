"""Tests of proportional odds: does a term have the same effect on all thresholds?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import special

from lme4py.errors import OptionError, did_you_mean
from lme4py.fits.base import Fit
from lme4py.fits.kinds import model_of

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["proportional_odds"]

_TESTS = ("lr", "score")


def proportional_odds(fit: Fit, test: str = "lr") -> pd.DataFrame:
    """Test for each term of the location whether its effect is the same on all thresholds (proportional odds).

    Parameters
    ----------
    fit : Fit
        Of ordered categories.
    test : {"lr", "score"}
        Likelihood ratio against the model with the term in ``nominal=``, which is fitted; or the score test at the
        estimates of the fit (Brant's question with random effects), which needs no other fit.

    Returns
    -------
    DataFrame
        Index: terms; columns chi2, df, p_value. NaN where the larger model has no finite estimates; the attribute
        ``attrs["note"]`` says why.

    Raises
    ------
    OptionError
        The response is not ordered, or thresholds are symmetric about zero and take up no common effect.

    Examples
    --------
    >>> from lme4py import clmm, load_dataset
    >>> fit = clmm("rating ~ temp + contact + (1 | judge)", load_dataset("wine"))
    >>> fit.proportional_odds("score").round(3).loc["contact"].to_dict()
    {'chi2': 0.555, 'df': 3.0, 'p_value': 0.907}
    """
    import pandas as pd

    from lme4py.tables.frames import printed

    if test not in _TESTS:
        raise OptionError(f"test={test!r} is not known.{did_you_mean(str(test), _TESTS)} Use 'lr' or 'score'.")
    if not fit.family.has_thresholds:
        raise fit.family.lacks("thresholds, which a test of proportional odds is about")
    rows, notes = {}, []
    for number, label in enumerate(fit.design.fixed_labels, start=1):
        if number not in fit.design.assign:
            continue
        chi2, df, why = model_of(fit).threshold_test(number, test == "score")
        rows[label] = {"chi2": chi2, "df": df, "p_value": float(special.chdtrc(df, chi2))}
        notes += [f"{label}: {why}"] if why else []
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["chi2", "df", "p_value"])
    table.index.name = "term"
    table["df"] = table["df"].astype(np.int64) if len(table) else table["df"]
    if notes:
        table.attrs["note"] = " ".join(notes)
    return printed(table)
