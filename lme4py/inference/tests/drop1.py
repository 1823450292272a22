"""Tests of leaving out each term of the fixed effects that is no margin of another one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy import special

from lme4py.design.design import Design
from lme4py.design.smooths import smooth_columns
from lme4py.errors import OptionError, did_you_mean
from lme4py.fits.base import Fit
from lme4py.fits.kinds import model_of
from lme4py.fits.refuse import refuse, refuse_penalised, refuse_smooths
from lme4py.formula.nodes import Name, Node, Terms
from lme4py.formula.parse import parse_formula
from lme4py.formula.several import RESPONSE
from lme4py.inference.tests.anova import drop_each
from lme4py.inference.tests.hypotheses import dropped_term
from lme4py.linalg.types import FloatArray

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["drop1", "droppable"]

TESTS = ("F", "Chisq")


def drop1(
    fit: Fit, test: str | None = None, ddf: str | None = None, scope: str | Sequence[str] | None = None
) -> pd.DataFrame:
    """Test of leaving out each fixed term that is no margin of another one.

    Parameters
    ----------
    fit : Fit
    test : {None, "F", "Chisq"}
        "F": Wald F tests as lmerTest's drop1 (linear models; their default). "Chisq": likelihood-ratio tests of refits
        by maximum likelihood, as lme4's drop1 (the default of generalised models).
    ddf : {None, "satterthwaite", "kenward-roger", "residual", "normal"}
        Of the F tests; None is `default_ddf` of the fit.
    scope : str or sequence of str, optional
        Only these terms, by their names or as a formula (``"~ a + b:c"``).

    Returns
    -------
    pandas.DataFrame
        "F": as `anova_table`. "Chisq": columns df (parameters less), logLik, AIC, chi2, p_value; the first row,
        ``<none>``, is the model itself, fitted by maximum likelihood.

    Examples
    --------
    >>> import lme4py
    >>> fit = lme4py.lmer("Reaction ~ Days + (Days | Subject)", lme4py.load_dataset("sleepstudy")).fit
    >>> drop1(fit, "Chisq").loc["Days", ["df", "AIC", "chi2"]].round(4).to_dict()
    {'df': 1.0, 'AIC': 1785.4759, 'chi2': 23.5365}
    """
    linear = fit.has_f_tests
    chosen = ("F" if linear else "Chisq") if test is None else test
    if chosen not in TESTS:
        raise OptionError(f"test={test!r} is not known.{did_you_mean(str(test), TESTS)} Use 'F' or 'Chisq'.")
    if chosen == "F":
        if not linear:
            refuse("test='F' is", "use test='Chisq'")
        return drop_each(fit, ddf, scoped(fit.design, scope))
    return _likelihood_table(fit, scope)


def droppable(design: Design) -> list[int]:
    """Numbers (from 1) of the terms whose variables are not all in another term."""
    sets = [frozenset(term.variables) for term in design.recipe.formula.fixed.terms]
    smooth: set[int] = set()
    if design.smooth_terms:
        smooth = {place for place, own in zip(design.assign, smooth_columns(design), strict=True) if own}
    found = (i for i, own in enumerate(sets, start=1) if not any(own < other for other in sets))
    # The first variable of several responses tells these apart; a term that it is alone holds the intercepts.
    intercepts = {i for i, own in enumerate(sets, start=1) if design.responses is not None and own == {0}}
    return [i for i in found if i not in smooth | intercepts]


def scoped(design: Design, scope: str | Sequence[str] | None) -> list[int]:
    """Numbers (from 1) of the terms of a scope; without one those that are no margin of another one.

    Parameters
    ----------
    design : Design
    scope : str, sequence of str, or None
    """
    if scope is None:
        return droppable(design)
    if isinstance(scope, str) and scope.lstrip().startswith("~"):
        wanted, own = _variables(parse_formula(f"y {scope}").fixed), _variables(design.recipe.formula.fixed)
        if design.responses is not None:
            wanted = [term | {Name(RESPONSE)} for term in wanted]
        places = [own.index(term) + 1 if term in own else 0 for term in wanted]
    else:
        names = [scope] if isinstance(scope, str) else list(scope)
        places = [design.fixed_labels.index(name) + 1 if name in design.fixed_labels else 0 for name in names]
    if not places or 0 in places:
        raise OptionError(
            f"scope={scope!r} names what is no term of the model; its terms are {', '.join(design.fixed_labels)}."
        )
    margins = [design.fixed_labels[i - 1] for i in places if i not in droppable(design)]
    if margins:
        raise OptionError(
            f"{', '.join(margins)} cannot be left out while a term that contains it stays: the model would be the "
            "same, or depend on the coding. Fit the model without the larger term, or use anova()."
        )
    return places


def _variables(terms: Terms) -> list[frozenset[Node]]:
    """The variables of each term."""
    return [frozenset(terms.variables[i] for i in term.variables) for term in terms.terms]


def _likelihood_table(fit: Fit, scope: str | Sequence[str] | None) -> pd.DataFrame:
    import pandas as pd

    refuse_penalised(fit, "a likelihood ratio test is", "use anova(), whose tests are Wald's")
    refuse_smooths(fit, "a likelihood ratio test is", "use anova(), whose tests are Wald's, and smooths()")
    full = model_of(fit).by_maximum_likelihood()
    design = full.design
    none = {"df": np.nan, "logLik": full.log_likelihood, "AIC": full.criterion + 2.0 * full.n_params}
    rows = {"<none>": none | {"chi2": np.nan, "p_value": np.nan}}
    for term in scoped(design, scope):
        rows[design.fixed_labels[term - 1]] = _without(full, _restriction(full, term))
    return pd.DataFrame.from_dict(rows, orient="index", columns=["df", "logLik", "AIC", "chi2", "p_value"])


def _restriction(full: Fit, term: int) -> FloatArray:
    """L beta = 0 is the model without a term."""
    if full.thresholds is None and not full.family.is_joint:
        return dropped_term(full.design, term)
    # The thresholds stand for the intercept, so that every term has its own columns.
    own = np.array(full.design.assign) == term
    rows: FloatArray = np.eye(own.size)[own]
    return rows


def _without(full: Fit, L: FloatArray) -> dict[str, float]:
    """The row of the model in which L beta = 0."""
    df = L.shape[0]
    if df == 0:
        logLik, AIC = full.log_likelihood, full.criterion + 2.0 * full.n_params
        return {"df": 0.0, "logLik": logLik, "AIC": AIC, "chi2": 0.0, "p_value": np.nan}
    reduced = model_of(full).like(_restricted(full.design, L))
    chi2 = max(reduced.criterion - full.criterion, 0.0)
    return {
        "df": float(df),
        "logLik": reduced.log_likelihood,
        "AIC": reduced.criterion + 2.0 * (full.n_params - df),
        "chi2": chi2,
        "p_value": float(special.chdtrc(df, chi2)),
    }


def _restricted(design: Design, L: FloatArray) -> Design:
    """The design whose columns span those X beta with L beta = 0."""
    basis = np.linalg.svd(L)[2][L.shape[0] :].T
    names = tuple(f"column{i}" for i in range(1, basis.shape[1] + 1))
    return design.with_predictor(X=design.X @ basis, names=names, assign=(1,) * len(names), dropped=(), alias=None)
