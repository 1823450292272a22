"""Likelihood-ratio tests of generalised models."""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from glmm_models import CBPP, REFERENCES, cbpp, fit, having, sleep, wine
from scipy import stats

import lme4py
from lme4py import lrtest
from lme4py.errors import OptionError


@pytest.mark.parametrize("name", having("lrt"))
def test_ratios_of_lme4(name):
    for block in REFERENCES[name]["lrt"]:
        test = lrtest(fit(name, block["restricted"]), fit(name))
        # Both optima are good to 1e-8.
        assert test.chi2 == pytest.approx(block["chi2"], abs=1e-5)
        assert test.df == block["df"]


def test_distribution_follows_from_what_is_tested():
    terms = ("(1 | g)", "(x | g)", "(x || g)")
    one, slope, apart = (fit("glmm_bin_rs", f"cbind(s, fail) ~ x + tr + {term}") for term in terms)
    chi2, p = stats.chi2.sf(lrtest(one, slope).chi2, [1, 2]), lrtest(one, slope).p_value
    assert p == pytest.approx(chi2.mean(), rel=1e-12)
    inside = lrtest(apart, slope)
    assert not inside.boundary_corrected
    assert inside.p_value == pytest.approx(0.0230649111887831, rel=1e-4)  # R's anova; chi2 is good to 1e-7
    assert lrtest(None, apart).weights.keys() == {0, 1, 2}
    assert sum(lrtest(None, slope).weights.values()) == pytest.approx(1.0)


def test_weights_of_a_gaussian_model_are_those_of_the_linear_one():
    pair = [sleep("Reaction ~ Days + (Days || Subject)", family) for family in (None, "gaussian")]
    linear, general = (lrtest(None, result) for result in pair)
    # The same information matrix, made of one problem and of its working model.
    assert list(general.weights.values()) == pytest.approx(list(linear.weights.values()), abs=1e-6)
    assert general.chi2 == pytest.approx(linear.chi2, abs=1e-6)


def test_generalised_linear_model_as_the_restricted_one():
    result = fit("glmm_bact")
    test = result.lrtest_no_random()
    # R's glm: log-likelihood -99.58836638925 on 4 degrees of freedom.
    assert test.restricted_logL == pytest.approx(-99.58836638925, abs=1e-8)
    assert (test.df, test.weights) == (1, {0: 0.5, 1: 0.5})
    # MASS::glm.nb and ordinal::clm.
    assert lrtest(None, fit("nb_salam")).restricted_logL == pytest.approx(-876.765910523, abs=1e-7)
    assert lrtest(None, wine()).restricted_logL == pytest.approx(-86.4919233656, abs=1e-7)
    # ordinal::anova of two clmm fits.
    assert lrtest(wine("rating ~ temp + (1 | judge)"), wine()).chi2 == pytest.approx(14.3467192356719, abs=1e-5)


def test_ranova_leaves_out_each_random_effect():
    table = fit("glmm_bin_rs").ranova()
    block = REFERENCES["glmm_bin_rs"]["lrt"][0]
    # A slope goes with its covariance, as in R's anova of both models.
    assert table["chi2"].iloc[1] == pytest.approx(block["chi2"], abs=1e-5)
    assert table["p_value"].iloc[1] < table["p_chi2"].iloc[1]


def test_restricted_models_of_other_packages():
    result = fit("glmm_bact")
    design = result.fit.design
    family = type("Binomial", (), {})()
    model = SimpleNamespace(endog=result.fit.data.y, exog=2.0 * design.X, family=family)
    assert lrtest(SimpleNamespace(model=model), result) == lrtest(None, result)
    fewer = SimpleNamespace(model=SimpleNamespace(endog=result.fit.data.y, exog=design.X[:, :1], family=family))
    test = lrtest(fewer, result)
    # Without covariates the likelihood is that of the mean.
    y = result.fit.data.y
    p = y.mean()
    assert test.restricted_logL == pytest.approx(y.size * (p * np.log(p) + (1 - p) * np.log1p(-p)), abs=1e-8)
    assert test.df == 4
    model.family = type("Poisson", (), {})()
    with pytest.raises(OptionError, match="differ in family"):
        lrtest(SimpleNamespace(model=model), result)
    model.endog = 1.0 - y
    with pytest.raises(OptionError, match="another response"):
        lrtest(SimpleNamespace(model=model), result)


def test_bootstrap_of_the_ratio():
    test = lrtest(None, cbpp(), method="bootstrap", n_sim=100, seed=1)
    assert test == lrtest(None, cbpp(), method="bootstrap", n_sim=100, seed=1)
    assert test.p_value <= 3 / 101
    assert "100 simulations, 0 failed" in test.note
    null = lrtest(cbpp(CBPP.replace("period", "1")), cbpp(), method="bootstrap", n_sim=100, seed=1)
    assert null.p_value <= 3 / 101


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"nAGQ": 5}, "nAGQ"),
        ({"link": "probit"}, "link"),
        ({"hessian": "expected"}, "hessian"),
    ],
)
def test_refuses_other_likelihoods(other, message):
    with pytest.raises(OptionError, match=f"differ in {message}"):
        lrtest(cbpp(CBPP.replace("period", "1"), **other), cbpp())


def test_refuses_what_is_not_nested():
    with pytest.raises(OptionError, match="56 rows"):
        lrtest(cbpp(), fit("glmm_bact"))
    data = lme4py.load_dataset("cbpp")
    other = data.assign(incidence=np.minimum(data["incidence"] + 1, data["size"]))
    restricted = lme4py.glmer(CBPP.replace("period", "1"), other)
    with pytest.raises(OptionError, match="different responses"):
        lrtest(restricted, cbpp())
    with pytest.raises(OptionError, match="linear mixed model"):
        lrtest(None, cbpp(), method="exact")
    with pytest.raises(OptionError, match="comes first"):
        lrtest(cbpp(), cbpp(CBPP.replace("period", "1")))


def test_table_of_several_models():
    table = cbpp(CBPP.replace("period", "1")).anova(cbpp())
    assert table["npar"].tolist() == [2, 5]
    assert table["chi2"].iloc[1] == pytest.approx(25.6101, abs=1e-4)


@cache
def counts(family, change="", seed=1):
    """A model of counts that are Poisson given their groups."""
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(30), 10)
    x, u = rng.normal(size=300), 0.5 * rng.normal(size=30)
    data = pd.DataFrame(
        {"y": rng.poisson(np.exp(0.5 + 0.3 * x + u[g])), "x": x, "g": g, "h": np.tile(np.arange(10), 30)}
    )
    return lme4py.glmer(f"y ~ x + (1 | g){change}", data, family)


@pytest.mark.parametrize(("family", "where"), [("nbinomial", "theta = infinity"), ("nbinomial1", "alpha = 0")])
def test_poisson_is_negative_binomial_on_the_boundary(family, where):
    test = lrtest(counts("poisson"), counts(family))
    assert 0.1 < test.chi2 == pytest.approx(2.0 * (test.full_logL - test.restricted_logL))
    assert (test.df, test.weights, test.boundary_corrected) == (1, {0: 0.5, 1: 0.5}, True)
    assert test.p_value == pytest.approx(0.5 * stats.chi2.sf(test.chi2, 1), rel=1e-12)
    assert where in test.note
    plain = lrtest(counts("poisson"), counts(family), boundary=False)
    assert plain.p_value == pytest.approx(2.0 * test.p_value, rel=1e-12)
    assert lrtest(counts("poisson"), counts(family), boundary=True) == test


def test_a_dispersion_that_vanishes():
    data = pd.DataFrame({"g": np.repeat(np.arange(20), 8)})
    rng = np.random.default_rng(2)
    data["y"] = rng.binomial(12, 0.5 + 0.1 * np.tanh(rng.normal(size=20))[data["g"]])
    poisson, negative = (lme4py.glmer("y ~ 1 + (1 | g)", data, family) for family in ("poisson", "nbinomial"))
    # Fewer differences than Poisson counts have.
    assert negative.dispersion > 1e4
    assert (lrtest(poisson, negative).chi2, lrtest(poisson, negative).p_value) == (0.0, 1.0)


def test_dispersion_and_fixed_effects_together():
    restricted = counts("poisson")
    test = lrtest(restricted, counts("nbinomial", " + I(x^2)"))
    assert (test.df, test.weights) == (2, {1: 0.5, 2: 0.5})
    assert test.p_value == pytest.approx(stats.chi2.sf(test.chi2, [1, 2]).mean(), rel=1e-12)
    with pytest.raises(OptionError, match="one after the other"):
        lrtest(restricted, counts("nbinomial", " + (1 | h)"))


def test_table_with_families():
    table = lme4py.anova(counts("nbinomial"), counts("poisson"))
    assert list(table.index) == ["y ~ x + (1 | g) (poisson)", "y ~ x + (1 | g) (nbinomial)"]
    assert table["p_value"].iloc[1] == pytest.approx(0.5 * table["p_chi2"].iloc[1], rel=1e-12)
    assert "theta = infinity" in table.attrs["note"]


def test_families_that_are_not_nested():
    with pytest.raises(OptionError, match=r"family \(poisson and gaussian\).* compare\(first, second\)"):
        lrtest(counts("poisson"), counts("gaussian"))
    with pytest.raises(OptionError, match="it comes first"):
        lrtest(counts("nbinomial"), counts("poisson"))


def test_one_sentence_in_a_notebook():
    test = lrtest(counts("poisson"), counts("nbinomial"))
    assert "Likelihood-ratio test" in test._repr_html_()
    assert repr(test).startswith("<LRTestResult: LR chi2(1)")
