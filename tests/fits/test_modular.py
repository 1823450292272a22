"""The modular steps of generalised and ordinal models: the criterion is the function that the fit minimises."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

import lme4py
from lme4py.errors import OptionError
from lme4py.families.ordered.ordinal import make_ordinal
from lme4py.families.registry import make_family

CASES: dict[str, tuple[str, str, Any, dict[str, Any]]] = {
    "binomial": ("cbpp", "cbind(incidence, size - incidence) ~ period + (1 | herd)", "binomial", {}),
    "quadrature": ("cbpp", "cbind(incidence, size - incidence) ~ period + (1 | herd)", "binomial", {"nAGQ": 5}),
    "profiled": ("cbpp", "cbind(incidence, size - incidence) ~ period + (1 | herd)", "binomial", {"nAGQ": 0}),
    "slope": ("Contraception", "use ~ age + (1 + urban | district)", "binomial", {}),
    "nbinomial": ("Salamanders", "count ~ mined + (1 | site)", "nbinomial", {}),
    "gamma": ("sleepstudy", "Reaction ~ Days + (1 | Subject)", "gamma", {}),
    "ordinal": ("wine", "rating ~ temp + contact + (1 | judge)", "ordinal", {}),
}


def steps(name: str) -> tuple[Any, Any, Any]:
    data, formula, family, options = CASES[name]
    design = lme4py.lformula(formula, lme4py.load_dataset(data), family=family)
    own = make_ordinal("logit", "flexible", 5) if family == "ordinal" else make_family(family)
    criterion = lme4py.glmm_criterion(design, own, **options)
    return design, criterion, lme4py.make_fit(design, criterion, lme4py.optimize_criterion(criterion))


@pytest.mark.parametrize("name", list(CASES))
def test_steps(name: str) -> None:
    _, _, family, options = CASES[name]
    design, criterion, fit = steps(name)
    own = make_ordinal("logit", "flexible", 5) if family == "ordinal" else make_family(family)
    at_once = lme4py.glmm_fit(design, own, **options)
    # The same calls.
    assert_allclose(fit.beta, at_once.beta, rtol=0)
    beside = np.atleast_1d(fit.lam) if criterion.problem.n_nuisance else np.zeros(0)
    par = np.concatenate([fit.theta, fit.beta if criterion.nAGQ else [], beside])
    # Modes found from zero, not from those of the fit: to 1e-10 of the criterion.
    assert criterion(par) == pytest.approx(fit.criterion, abs=1e-7)
    away = par + 0.05 * np.sign(par)
    step = 1e-4
    slopes = [(criterion(away + step * e) - criterion(away - step * e)) / (2 * step) for e in np.eye(par.size)]
    # Central differences: truncation of 1e-8 times a third derivative of up to 100.
    assert_allclose(criterion.gradient(away), slopes, rtol=1e-5, atol=1e-5)
    assert np.abs(criterion.gradient(par)).max() < 1e-2


def test_bad_input() -> None:
    design, criterion, _ = steps("binomial")
    with pytest.raises(OptionError, match="5 parameters"):
        criterion([1.0])
    linear = lme4py.lmm_criterion(lme4py.lformula("Yield ~ 1 + (1 | Batch)", lme4py.load_dataset("Dyestuff")))
    with pytest.raises(OptionError, match="not one of this criterion"):
        lme4py.make_fit(design, linear, lme4py.optimize_criterion(criterion))
    plain = lme4py.lformula("Yield ~ 1 + (1 | Batch)", lme4py.load_dataset("Dyestuff"))
    with pytest.raises(OptionError, match="no response of a family"):
        lme4py.glmm_criterion(plain, make_family("gamma"))
