"""What a model is made of, by name: response, predictors, grouping factors, matrices, and estimates."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from lme4py.errors import OptionError, did_you_mean
from lme4py.fits.base import Fit
from lme4py.formula.deparse import names_in
from lme4py.inference.diagnostics.residuals import row_weights
from lme4py.inference.estimates.coefficients import estimates
from lme4py.inference.estimates.random_effects import conditional_modes, one_or_dict

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["PARTS", "named_part"]


def named_part(fit: Fit, name: str) -> Any:
    """A part of the model by its name, as R's ``getME`` and the package insight.

    Parameters
    ----------
    fit : Fit
    name : str
        "response" (a Series; of ``cbind`` and categories as the family reads it), "response_name", "predictors" (names
        of the variables of the fixed effects), "random" (names of the grouping factors), "variables" (all names),
        "groups" (a DataFrame with the level of every row), "terms" (labels of the random terms), "formula", "family",
        "link", "n_obs"; the arrays "X", "Z", "Zt", "y", "weights", "offset", "theta", "beta", "b" (modes as one
        vector, in the order of Z), "eta", "mu", "Sigma" (covariance matrices by term), "sigma"; "fixef" and "ranef".

    Returns
    -------
    str, list, array, Series or DataFrame

    Raises
    ------
    OptionError
        No such part; or rows of a result that has none.

    Examples
    --------
    >>> import lme4py
    >>> fit = lme4py.lmer("Reaction ~ Days + (Days | Subject)", lme4py.load_dataset("sleepstudy")).fit
    >>> named_part(fit, "predictors"), named_part(fit, "random"), named_part(fit, "Z").shape
    (['Days'], ['Subject'], (180, 36))
    """
    make = PARTS.get(name)
    if make is None:
        raise OptionError(f"there is no part {name!r}.{did_you_mean(str(name), list(PARTS))} Use one of {_listed()}.")
    return make(fit)


def _listed() -> str:
    return ", ".join(map(repr, PARTS))


def _response(fit: Fit) -> Any:
    """The response of the rows used; successes and failures, or counts of categories, side by side."""
    import pandas as pd

    design = fit.design
    if design.y.ndim == 1:
        return _rows(fit, design.y, design.response_name)
    index = design.index[design.keep]
    return pd.DataFrame(np.array(design.y), index=index, columns=list(fit.categories) or ["successes", "failures"])


def _rows(fit: Fit, values: Any, name: str) -> pd.Series[Any]:
    import pandas as pd

    design = fit.design
    return pd.Series(np.array(values), index=design.index[design.keep], name=name)


def _predictors(fit: Fit) -> list[str]:
    """Names of variables of the fixed effects of all linear predictors, in their order."""
    design = fit.design
    recipes = [design.recipe, *design.part_recipes]
    nodes = [node for recipe in recipes for node in recipe.formula.fixed.variables]
    return list(dict.fromkeys(name for node in nodes for name in sorted(names_in(node))))


def _random(fit: Fit) -> list[str]:
    return list(fit.design.n_groups)


def _variables(fit: Fit) -> list[str]:
    formula = fit.design.recipe.formula
    response = [] if formula.response is None else sorted(names_in(formula.response))
    slopes = [name for bar in formula.bars for node in bar.terms.variables for name in sorted(names_in(node))]
    groups = [name for bar in formula.bars for node in bar.group for name in sorted(names_in(node))]
    return list(dict.fromkeys([*response, *_predictors(fit), *slopes, *groups]))


def _groups(fit: Fit) -> pd.DataFrame:
    import pandas as pd

    columns = {term.group: np.array(term.levels, dtype=object)[term.codes] for term in fit.design.terms}
    return pd.DataFrame(columns, index=fit.design.index[fit.design.keep])


def _one_vector(fit: Fit) -> Any:
    """Modes in the order of the columns of Z: level by level within each term."""
    return np.concatenate([modes.ravel() for modes in fit.modes]) if fit.modes else np.empty(0)


def _offset(fit: Fit) -> pd.Series[Any]:
    known = fit.design.offset
    return _rows(fit, np.zeros(fit.design.n_obs) if known is None else known, "offset")


PARTS: dict[str, Callable[[Fit], Any]] = {
    "response": _response,
    "response_name": lambda fit: fit.design.response_name,
    "predictors": _predictors,
    "random": _random,
    "variables": _variables,
    "groups": _groups,
    "terms": lambda fit: [term.label for term in fit.design.terms],
    "formula": lambda fit: fit.design.formula,
    "family": lambda fit: fit.family.name,
    "link": lambda fit: fit.family.link.name,
    "n_obs": lambda fit: fit.design.n_obs,
    "X": lambda fit: np.array(fit.design.X),
    "Z": lambda fit: fit.design.Zt.T,
    "Zt": lambda fit: fit.design.Zt,
    "y": lambda fit: np.array(fit.design.y),
    "weights": row_weights,
    "offset": _offset,
    "theta": lambda fit: np.array(fit.theta),
    "beta": lambda fit: np.array(fit.beta_estimates),
    "b": _one_vector,
    "eta": lambda fit: np.array(fit.linear_predictor),
    "mu": lambda fit: np.array(fit.fitted),
    "Sigma": lambda fit: {
        term.label: np.array(cov) for term, cov in zip(fit.design.terms, fit.covariance_estimates, strict=True)
    },
    "sigma": lambda fit: fit.sigma,
    "fixef": estimates,
    "ranef": lambda fit: one_or_dict(conditional_modes(fit)),
}
