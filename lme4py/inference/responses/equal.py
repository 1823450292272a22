"""Is an effect the same on all responses?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lme4py.errors import OptionError, did_you_mean
from lme4py.fits.base import Fit
from lme4py.formula.several import RESPONSE
from lme4py.inference.responses.correlations import responses_of
from lme4py.inference.tests.anova import hypotheses_table
from lme4py.linalg.types import FloatArray

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["equal_effects"]


def equal_effects(fit: Fit, terms: str | Sequence[str] | None = None, ddf: str | None = None) -> pd.DataFrame:
    """Tests that the coefficients of a term are the same for all responses.

    Equal coefficients are equal effects where the responses are on one scale; standardise them first where they are
    not.

    Parameters
    ----------
    fit : Fit
        Of several responses.
    terms : str or sequence of str, optional
        Terms as in the formula, "Intercept" among them; all but the intercepts when not given.
    ddf : {None, "satterthwaite", "kenward-roger", "residual", "normal"}
        Of the F tests of linear models; None is `default_ddf` of the fit.

    Returns
    -------
    DataFrame
        As `anova`: an F test (linear models) or a Wald test for each term, with (D - 1) times as many degrees of
        freedom as the term has columns for one response.

    Raises
    ------
    OptionError
        The fit has one response, a term that is not there, or a column that one response does not have.

    Examples
    --------
    >>> import lme4py
    >>> data = lme4py.load_dataset("Orthodont").pivot(index=["Subject", "Sex"], columns="age", values="distance")
    >>> data.columns = ["a8", "a10", "a12", "a14"]
    >>> fit = lme4py.lmer("mvbind(a8, a14) ~ Sex", data.reset_index())
    >>> equal_effects(fit.fit)[["num_df", "den_df", "F"]].round(2).loc["Sex"].tolist()
    [1.0, 25.0, 3.71]
    """
    responses = responses_of(fit, "tests of equal effects are")
    if not fit.family.has_one_link:
        raise fit.family.lacks("scale in common on which effects could be equal; test them with wald_test() or anova()")
    known = ["Intercept" if label == RESPONSE else label for label in fit.design.fixed_labels]
    wanted = [name for name in known if name != "Intercept"] if terms is None else terms
    chosen = [wanted] if isinstance(wanted, str) else list(wanted)
    for name in chosen:
        if name not in known:
            raise OptionError(
                f"{name!r} is no term of the model.{did_you_mean(str(name), known)} Its terms are {', '.join(known)}."
            )
    assign = np.array(fit.design.assign)
    rows = {name: _differences(fit, responses.labels, assign == 1 + known.index(name), name) for name in chosen}
    return hypotheses_table(fit, rows, ddf)


def _differences(fit: Fit, labels: Sequence[str], own: np.ndarray, term: str) -> FloatArray:
    """Coefficients of each response minus those of the first."""
    names = fit.design.x_names
    places: dict[str, dict[str, int]] = {}
    for j in np.flatnonzero(own).tolist():
        label = next(one for one in labels if names[j].startswith(f"{one}: "))
        places.setdefault(names[j][len(label) + 2 :], {})[label] = j
    rows = []
    for column, found in places.items():
        if len(found) < len(labels):
            absent = ", ".join(one for one in labels if one not in found)
            raise OptionError(
                f"{column} of {term} was left out for {absent} (it depends "
                "on other columns there), so that its coefficients cannot be compared."
            )
        for label in labels[1:]:
            row = np.zeros(len(names))
            row[found[label]], row[found[labels[0]]] = 1.0, -1.0
            rows.append(row)
    return np.array(rows).reshape(-1, len(names))
