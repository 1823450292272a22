"""From what a user writes to the test that is made in every simulated response."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from lme4py.design.build import lformula
from lme4py.design.design import Design
from lme4py.errors import Lme4Warning, OptionError, did_you_mean
from lme4py.fits.base import Fit
from lme4py.fits.kinds import model_of
from lme4py.fits.method import check_method
from lme4py.formula.update import update_formula
from lme4py.inference.estimates.restrictions import linear_hypotheses
from lme4py.inference.lrt.lrt import lrtest
from lme4py.inference.lrt.mixture import Mixture
from lme4py.inference.power.tests import Alternative, FunctionTest, LinearTest, PowerTest, RatioTest
from lme4py.inference.tests.anova import own_term_rows, term_hypotheses
from lme4py.linalg.spans import same_span

__all__ = ["choose_test"]

_INTERCEPTS = ("(Intercept)", "_cons")


def choose_test(
    fit: Fit, test: Any, ddf: str | None, alternative: Alternative, wrap: Callable[[Any], Any], table: Callable[[], Any]
) -> PowerTest:
    """The test that is meant.

    Parameters
    ----------
    fit : Fit
        What carries the parameters.
    test : object
        A coefficient, text or a matrix as for `wald_test`; a term; a list of names; a random-effects term or a formula
        (likelihood ratio); or a function of the result.
    ddf : str or None
        None is `default_ddf` of the fit.
    alternative : {"two-sided", "greater", "less"}
    wrap : callable
        From a fit to a result.
    table : callable
        Gives the columns of the data, for other formulas.

    Raises
    ------
    OptionError
        Nothing of that name.
    """
    if alternative not in ("two-sided", "greater", "less"):
        raise OptionError(f"alternative={alternative!r} is not known; use 'two-sided', 'greater' or 'less'.")
    if callable(test):
        _two_sided(alternative, "a function")
        return FunctionTest(getattr(test, "__name__", "a function"), test, wrap)
    if fit.conventions.vce is not None:
        raise OptionError(
            f"the model was fitted with vce={fit.conventions.vce!r}, and the tests of power() have the covariance of "
            "the model: give a function of the result, or a fit without vce."
        )
    terms = [term.label for term in fit.design.terms]
    if isinstance(test, str) and ("~" in test or test.replace(" ", "") in [t.replace(" ", "") for t in terms]):
        _two_sided(alternative, "a likelihood ratio")
        return _ratio(fit, test, terms, table)
    chosen = check_method(fit.default_ddf if ddf is None else ddf)
    if chosen not in fit.ddf_methods:
        raise OptionError(f"ddf={ddf!r} is not there for a {fit.kind}; use one of {', '.join(fit.ddf_methods)}.")
    return _linear(fit, test, chosen, alternative)


def _two_sided(alternative: str, what: str) -> None:
    if alternative != "two-sided":
        raise OptionError(f"alternative={alternative!r} is for one coefficient, not for {what}.")


def _linear(fit: Fit, test: Any, ddf: str, alternative: Alternative) -> LinearTest:
    names = list(fit.design.x_names)
    if isinstance(test, str) and test in _INTERCEPTS:
        test = "Intercept"
    if isinstance(test, str) and test not in names and test in fit.design.fixed_labels:
        L = (own_term_rows(fit) if fit.family.is_joint else term_hypotheses(fit.design, 3, fit.vcov))[test]
        target, label = np.zeros(L.shape[0]), test
        if not L.shape[0]:
            raise OptionError(f"the term {test!r} has no columns of its own: those before it determine them.")
    elif isinstance(test, str) and test not in names and not any(sign in test for sign in "=+-*"):
        known = [*names, *fit.design.fixed_labels, *(term.label for term in fit.design.terms)]
        raise OptionError(
            f"the model has no coefficient or term {test!r}.{did_you_mean(test, known)} It has {', '.join(known)}."
        )
    else:
        found = linear_hypotheses(names, test)
        L, target = found.R, found.target
        label = test if isinstance(test, str) else ", ".join(map(str, found.labels or ["hypotheses"]))
    if np.linalg.matrix_rank(L) < L.shape[0]:
        raise OptionError("the hypotheses of the test are not linearly independent; leave out the redundant ones.")
    if L.shape[0] > 1:
        _two_sided(alternative, "several at once")
        return LinearTest(label, L, target, ddf)
    return LinearTest(label, L, target, ddf, alternative, float((L @ fit.beta - target)[0]))


def _ratio(fit: Fit, test: str, terms: list[str], table: Callable[[], Any]) -> RatioTest:
    formula = fit.design.recipe.formula
    if "~" not in test:
        own = next(label for label in terms if label.replace(" ", "") == test.replace(" ", ""))
        text, label = update_formula(formula, f"~ . - {own}")[0], own
    else:
        text, label = (update_formula(formula, test)[0] if "." in test.split("~", 1)[1].split() else test), test
    design = _restricted(fit, text, table)
    full = fit
    if fit.reml and not same_span(design.X, fit.design.X):
        full = model_of(fit).by_maximum_likelihood()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Lme4Warning)
        if not design.terms:
            if not same_span(design.X, fit.design.X):
                raise OptionError(
                    "a restricted model without random effects must have the fixed effects of the full one; take the "
                    "terms out in two steps."
                )
            return RatioTest(label, full, model_of(full).without_random(), _mixture(None, full))
        small = model_of(full).like(design, design.response)
        return RatioTest(label, full, small, _mixture(small, full))


def _mixture(small: Fit | None, full: Fit) -> Mixture:
    """The distribution of the ratio, by the design and one response of the parameters."""
    # The estimates belong to the response of the design; those of the carrier do not.
    own = model_of(full).like(full.design, full.design.response)
    found = lrtest(small, own)
    return Mixture(found.weights or {}, found.note)


def _restricted(fit: Fit, text: str, table: Callable[[], Any]) -> Design:
    """The design of a smaller formula on the same rows, with the response of the fit."""
    design = fit.design
    recipe = design.recipe
    family = None if fit.normal_errors else fit.family
    own = lformula(
        text,
        table(),
        functions=dict(recipe.functions),
        require_random=False,
        na_action="raise",
        family=family if family is not None and family.has_thresholds else None,
        levels=fit.categories or None,
    )
    first = replace(own.predictors[0], offset=design.offset) if recipe.offset is not None else own.predictors[0]
    return replace(
        own,
        y=design.y,
        predictors=(first, *design.predictors[1:]),
        part_recipes=design.part_recipes,
        weights=design.weights,
        response=design.response,
        response_name=design.response_name,
    )
