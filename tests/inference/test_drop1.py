"""Tests of leaving out terms: lme4's drop1, and the same models fitted by formula."""

from __future__ import annotations

import numpy as np
import pytest
from influence_models import MODELS, having, made_up, reference_result
from numpy.testing import assert_allclose

import lme4py
from lme4py.errors import OptionError


@pytest.mark.parametrize("name", having("drop1"))
def test_as_lme4(name: str) -> None:
    table, expected = reference_result(name).drop1("Chisq"), MODELS[name]["drop1"]
    assert list(table.index) == expected["rows"]
    # lme4's drop1 refits generalised models with its default optimiser, which stops about 1e-4 above the optimum.
    atol = 1e-7 if MODELS[name]["family"] == "gaussian" else 1e-3
    assert_allclose(table["AIC"], expected["AIC"], rtol=0, atol=atol)
    assert_allclose(table["chi2"][1:], expected["chi2"][1:], rtol=0, atol=atol)


def test_f_tests() -> None:
    """Type III tests of the terms that are no margins; main effects of an interaction are not dropped alone."""
    result = lme4py.lmer("y ~ x * factor(s) + z + (1 | g)", made_up())
    table = result.drop1()
    assert list(table.index) == ["z", "x:factor(s)"]
    expected = result.anova(type=3).loc[table.index]
    assert_allclose(table, expected, rtol=1e-10)
    residual = result.drop1(ddf="residual")
    assert (residual["den_df"] == 150 - 9).all()
    assert_allclose(residual["F"], table["F"], rtol=1e-12)


@pytest.mark.parametrize("weights", [None, "w"])
def test_likelihood_ratio_by_formula(weights: str | None) -> None:
    data = made_up()
    full = lme4py.lmer("y ~ x * factor(s) + z + (x | g)", data, weights=weights, offset="o")
    table = full.drop1("Chisq")
    for term, formula in {"z": "y ~ x * factor(s) + (x | g)", "x:factor(s)": "y ~ x + factor(s) + z + (x | g)"}.items():
        smaller = lme4py.lmer(formula, data, weights=weights, offset="o", reml=False)
        # Two fits, each good to about 1e-8.
        assert table.loc[term, "logLik"] == pytest.approx(smaller.log_likelihood, abs=1e-6)
        assert table.loc[term, "AIC"] == pytest.approx(smaller.aic, abs=1e-6)
    assert table["df"].tolist()[1:] == [1.0, 3.0]


def test_no_fixed_effects_left() -> None:
    result = lme4py.lmer("y ~ 0 + x + (1 | g)", made_up(), reml=False)
    table = result.drop1("Chisq")
    smaller = lme4py.lmer("y ~ 0 + (1 | g)", made_up(), reml=False)
    assert table.loc["x", "logLik"] == pytest.approx(smaller.log_likelihood, abs=1e-6)


def test_generalised_and_ordinal() -> None:
    data = made_up()
    result = lme4py.glmer("count ~ x + z + (1 | g)", data, "nbinomial")
    smaller = lme4py.glmer("count ~ z + (1 | g)", data, "nbinomial")
    assert result.drop1().loc["x", "logLik"] == pytest.approx(smaller.log_likelihood, abs=1e-6)
    wine = lme4py.load_dataset("wine")
    table = lme4py.clmm("rating ~ temp * contact + (1 | judge)", wine).drop1()
    main = lme4py.clmm("rating ~ temp + contact + (1 | judge)", wine)
    assert list(table.index) == ["<none>", "temp:contact"]
    assert table.loc["temp:contact", "logLik"] == pytest.approx(main.log_likelihood, abs=1e-6)
    assert np.isnan(table.loc["<none>", "p_value"])


def test_errors() -> None:
    with pytest.raises(OptionError, match="Did you mean 'Chisq'"):
        reference_result("lmm_sleep_ri").drop1("chisq")
    with pytest.raises(OptionError, match="use test='Chisq'"):
        lme4py.glmer("count ~ x + (1 | g)", made_up(), "poisson").drop1("F")
