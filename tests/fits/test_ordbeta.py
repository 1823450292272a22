"""Proportions with zeros and ones (ordbeta), and zero-inflated amounts: against glmmTMB, and what they cannot do."""

from __future__ import annotations

import json

import numpy as np
import pytest
from reference_data import REFERENCE
from scipy import special, stats

import lme4py
from lme4py.errors import ConvergenceWarning, DataError, OptionError

MODELS = json.loads((REFERENCE / "families.json").read_text(encoding="utf-8"))["models"]


@pytest.fixture(scope="module")
def data():
    return lme4py.load_dataset("Salamanders").assign(part=lambda d: np.minimum(d["count"], 8) / 8)


@pytest.fixture(scope="module")
def fit(data):
    return lme4py.glmer("part ~ mined + (1 | site)", data, family="ordbeta")


def test_the_optimum_is_that_of_glmmtmb(fit):
    reference = MODELS["ordbeta"]
    assert fit.converged
    # glmmTMB's optimum is at most 1e-6 short.
    assert fit.log_likelihood == pytest.approx(reference["log_likelihood"], abs=1e-6)
    se = np.array(reference["cond"]["se"])
    np.testing.assert_allclose((fit.params - reference["cond"]["estimate"]) / se, 0.0, atol=2e-4)
    np.testing.assert_allclose(fit.bse, se, rtol=2e-4)
    assert fit.dispersion == pytest.approx(reference["sigma"], rel=1e-4)
    # glmmTMB gives the cutpoints as probabilities.
    np.testing.assert_allclose(special.expit(list(fit.family_params.values())), reference["df"], rtol=1e-4)
    assert list(fit.family_params) == ["lower cutpoint", "upper cutpoint"]


def test_means_count_zeros_and_ones(fit, data):
    eta = fit.predict(type="linear").to_numpy()
    low, high = fit.family_params.values()
    mu, one = special.expit(eta), special.expit(eta - high)
    between = special.expit(eta - low) - one
    np.testing.assert_allclose(fit.fittedvalues, between * mu + one, rtol=1e-10)
    np.testing.assert_allclose(fit.predict(type="conditional"), mu, rtol=1e-10)
    draws = fit.simulate(200, seed=1).to_numpy()
    # 200 data sets of 644 rows, with new sites: shares within four standard errors.
    assert (draws == 0).mean() == pytest.approx((data["part"] == 0).mean(), abs=0.03)
    assert (draws == 1).mean() == pytest.approx((data["part"] == 1).mean(), abs=0.02)
    residuals = fit.residuals(type="quantile", seed=2)
    assert stats.kstest(residuals, "uniform").pvalue > 0.001


def test_its_parameters_have_intervals(fit):
    table = fit.tidy(conf_int=True).set_index("term")
    cut = table.loc["lower cutpoint"]
    assert cut["conf_low"] < cut["estimate"] < cut["conf_high"]
    assert np.isfinite(fit.coef_table(vcov="CR0")["std_error"]).all()


def test_responses_without_zeros_or_ones_are_refused(data):
    with pytest.raises(DataError, match=r"'part' has no 0.*one minus the response"):
        lme4py.glmer("part ~ mined + (1 | site)", data[data["part"] > 0], family="ordbeta")
    with pytest.raises(DataError, match=r"'part' has no 1.*ziformula"):
        lme4py.glmer("part ~ mined + (1 | site)", data[data["part"] < 1], family="ordbeta")
    with pytest.raises(OptionError, match="leave ziformula out"):
        lme4py.glmer("part ~ mined + (1 | site)", data, family="ordbeta", ziformula="~ 1")


def test_a_tweedie_response_has_zeros_of_its_own(data):
    # With the zeros of the amounts hardly any are left for the zero part of one kind of site.
    with pytest.warns(ConvergenceWarning, match="zero_inflation part go to infinity"):
        fit = lme4py.glmer("count ~ mined + (1 | site)", data, family="tweedie", ziformula="~ mined")
    assert fit.fit.family.name == "zero_inflated_tweedie"
    # glmmTMB's optimum is at most 1e-6 short; along the flat direction both stop.
    assert fit.log_likelihood == pytest.approx(MODELS["zero_inflated_tweedie"]["log_likelihood"], abs=1e-5)
    with pytest.raises(OptionError, match="t family is one of any numbers"):
        lme4py.glmer("count ~ mined + (1 | site)", data, family="t", ziformula="~ mined")
