"""Intraclass correlations, R squared and standard errors of variances of generalised models."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from glmm_models import REFERENCES, cbpp, fit, having, no_variance, sleep, wine

from lme4py import icc
from lme4py.errors import OptionError
from lme4py.inference.shares.observation import null_mean, observation_variance


@pytest.mark.parametrize("name", having("performance"))
def test_values_of_rs_performance(name):
    block, result = REFERENCES[name]["performance"], fit(name)
    found = result.r_squared()
    # performance's null model is R's default fit, which stops up to 1e-4 standard errors from its optimum.
    assert found["marginal"] == pytest.approx(block["r2_marginal"], abs=1e-4)
    assert found["conditional"] == pytest.approx(block["r2_conditional"], abs=1e-4)
    assert icc(result, "all").estimate == pytest.approx(block["icc_adjusted"], abs=1e-4)
    assert icc(result, "all", adjusted=False).estimate == pytest.approx(block["icc_unadjusted"], abs=1e-4)


def test_values_of_statas_estat_icc():
    found = icc(cbpp())
    # Seven digits as Stata prints them, of an optimum that it finds to about 1e-7.
    assert found.estimate == pytest.approx(0.1114151, abs=5e-7)
    assert found.se == pytest.approx(0.0550492, abs=5e-7)
    assert (found.ci_lower, found.ci_upper) == pytest.approx((0.0404581, 0.2715951), abs=1e-6)
    ordinal = icc(wine())
    # R's clmm, its Hessian by differences.
    assert (ordinal.estimate, ordinal.se) == pytest.approx((0.2800132, 0.1421766), abs=5e-7)
    assert wine().r_squared()["conditional"] == pytest.approx(0.578300, abs=5e-6)


def test_standard_errors_of_a_gaussian_model_are_those_of_the_linear_one():
    pair = [sleep("Reaction ~ Days + (Days | Subject)", family) for family in (None, "gaussian")]
    for options in ({}, {"at": {"Days": 5}}, {"component": "all"}, {"component": "all", "adjusted": False}):
        linear, general = (icc(result, **options) for result in pair)
        # The gaussian family has sigma among its parameters; both Hessians are differences with an error of 1e-7.
        assert general.estimate == pytest.approx(linear.estimate, rel=1e-6)
        assert general.se == pytest.approx(linear.se, rel=1e-5)
    tables = [result.variance_table() for result in pair]
    pd.testing.assert_frame_equal(*tables, rtol=1e-4)
    assert list(tables[0].index) == ["var(_cons)", "var(Days)", "cov(_cons,Days)", "var(Residual)"]
    limits = [result.conf_int(parm="random") for result in pair]
    pd.testing.assert_frame_equal(*limits, rtol=1e-4)


def test_variance_table_is_on_the_log_scale():
    table = cbpp().variance_table()
    value, error, lower, upper = table.loc["var(_cons)"]
    # As Stata's melogit prints var(_cons[herd]): .4124998 (.229367), .1387 to 1.2267.
    assert (value, error) == pytest.approx((0.4124998, 0.2293668), abs=2e-6)
    assert (lower, upper) == pytest.approx((value * np.exp(-1.959964 * error / value), 1.226668), rel=1e-5)
    # Limits of the standard deviation are the roots of those of the variance.
    assert cbpp().conf_int(parm="random").loc["sd(Intercept | herd)"].tolist() == pytest.approx(np.sqrt([lower, upper]))


@pytest.mark.parametrize("variance", ["lognormal", "trigamma", "delta"])
def test_variances_of_counts(variance):
    result = fit("nb_salam")
    mu, theta = null_mean(result.fit), result.dispersion
    shape = 1.0 / (1.0 / mu + 1.0 / theta)
    # Nakagawa, Johnson & Schielzeth (2017), table 1, for NB-2 with the log link.
    expected = {"lognormal": np.log1p(1.0 / shape), "trigamma": sum(1.0 / (shape + np.arange(2_000_000)) ** 2)}
    found = observation_variance(result.fit, variance).variance
    # The sum leaves a tail of 1 / 2,000,000.
    assert found == pytest.approx(expected.get(variance, 1.0 / shape), abs=1e-6)
    assert result.r_squared(variance)["var_residual"] == found


def test_cauchit_has_no_latent_variance():
    with pytest.raises(OptionError, match="no latent variable that has a variance"):
        fit("glmm_bin_cauchit").r_squared()
    with pytest.raises(OptionError, match="counts and positive responses"):
        cbpp().r_squared("trigamma")
    assert 0.0 < fit("glmm_bin_cauchit").r_squared("delta")["marginal"] < 1.0


def test_levels_of_nested_models():
    result = fit("glmm_3level_b")
    parts = result.variance_components
    outer, inner = parts["var(_cons|region)"], parts["var(_cons|state_in:region)"]
    total = outer + inner + np.pi**2 / 3
    assert icc(result, "_cons|region").estimate == pytest.approx(outer / total)
    both = icc(result, "_cons|state_in:region")
    assert both.estimate == pytest.approx((outer + inner) / total)
    assert 0 < both.ci_lower < both.estimate < both.ci_upper < 1


def test_icc_of_zero_has_a_one_sided_interval():
    result = no_variance()
    found = icc(result)
    assert (found.estimate, found.ci_lower) == (0.0, 0.0)
    upper = result.conf_int(method="profile", parm="random").loc["sd(Intercept | g)", "upper"]
    # The same root, found twice.
    assert found.ci_upper == pytest.approx(upper**2 / (upper**2 + np.pi**2 / 3), rel=1e-5)


def test_icc_by_bootstrap():
    found = icc(cbpp(), n_boot=100, seed=1)
    assert found == icc(cbpp(), n_boot=100, seed=1)
    # A standard error from 100 replicates scatters by 7 %.
    assert found.se == pytest.approx(icc(cbpp()).se, rel=0.25)
    counts = icc(fit("glmm_epil"), n_boot=10, seed=1)
    assert counts.ci_lower < counts.ci_upper < 1
