"""Tests of the random effects of a model, one at a time."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from scipy import special

from lme4py.design.design import Design, RandomTerm
from lme4py.design.names import INTERCEPTS
from lme4py.fits.base import Fit
from lme4py.fits.kinds import model_of
from lme4py.fits.refuse import refuse_penalised, refuse_smooths
from lme4py.inference.lrt.lrt import lrtest
from lme4py.inference.lrt.mixture import UnknownDistribution

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ranova"]


def ranova(fit: Fit) -> pd.DataFrame:
    """Likelihood-ratio tests of leaving out each random effect, by the method of the fit (REML or ML).

    Parameters
    ----------
    fit : Fit

    Returns
    -------
    pandas.DataFrame
        Columns npar, logLik, AIC, chi2, df, p_value, p_chi2; the first row is the model itself. A slope is left out
        with its covariances, an intercept alone with its whole term. `p_chi2` is the plain chi-squared p-value (as
        lmerTest's ranova; it is not printed), `p_value` takes the boundary into account; both are NaN for a term that
        adds nothing to the others, with 0 degrees of freedom. `p_value` is NaN too where no distribution is known: a
        correlation, say, that has no meaning without the term (``lrtest(method='bootstrap')`` simulates it).
    """
    import pandas as pd

    from lme4py.tables.frames import printed

    refuse_penalised(fit, "a likelihood ratio test is")
    if all(term.smooth for term in fit.design.terms):
        refuse_smooths(fit, "ranova() is", "a model of smooths alone has no random effects; see smooths()")
    rows = {"<none>": {"npar": fit.n_params, "logLik": fit.log_likelihood, "AIC": fit.criterion + 2.0 * fit.n_params}}
    for label, terms in _reductions(fit.design):
        reduced = _refitted(fit, terms) if terms else None
        rows[label] = _row(reduced, fit)
    columns = ["npar", "logLik", "AIC", "chi2", "df", "p_value", "p_chi2"]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
    return printed(table, note="p_value takes the boundary into account.", hidden=["p_chi2"])


def _refitted(full: Fit, terms: tuple[RandomTerm, ...]) -> Fit:
    """The same model with other random effects."""
    return model_of(full).like(full.design.with_terms(terms))


def _row(reduced: Fit | None, full: Fit) -> dict[str, float]:
    if reduced is not None and _rank(reduced) == _rank(full):
        # The other terms describe all that this one does: there is nothing to test.
        own = {"npar": reduced.n_params, "logLik": reduced.log_likelihood}
        return own | {"AIC": reduced.criterion + 2.0 * reduced.n_params, "chi2": 0.0, "df": 0.0}
    try:
        test = lrtest(reduced, full)
        p_value = test.p_value
    except UnknownDistribution:
        test = lrtest(reduced, full, boundary=False)
        p_value = float("nan")
    npar = full.n_params - test.df
    return {
        "npar": npar,
        "logLik": test.restricted_logL,
        "AIC": -2.0 * test.restricted_logL + 2.0 * npar,
        "chi2": test.chi2,
        "df": test.df,
        "p_value": p_value,
        "p_chi2": float(special.chdtrc(test.df, test.chi2)),
    }


def _rank(fit: Fit) -> int:
    """Number of parameters that the design determines."""
    return fit.n_params - fit.identification.n_redundant


def _reductions(design: Design) -> Iterator[tuple[str, tuple[RandomTerm, ...]]]:
    """Each random effect by name, with the terms that are left without it."""
    for t, term in enumerate(design.terms):
        if term.smooth:
            # Those have tests of their own.
            continue
        before, after = design.terms[:t], design.terms[t + 1 :]
        variables = [re.sub(r"\[[^\]]*\]", "", name) for name in term.columns]
        slopes = [name for name in dict.fromkeys(variables) if name not in INTERCEPTS]
        # Effects that share a variance come and go together: without one of them the model is no special case.
        if term.structure.shares_variance or INTERCEPTS.isdisjoint(variables) or not slopes:
            yield term.label, before + after
            continue
        for name in slopes:
            kept = [j for j, variable in enumerate(variables) if variable != name]
            yield f"{name} in {term.label}", (*before, term.subset(kept), *after)
