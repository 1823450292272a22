"""The table of residual structures: each row is the fit of its own."""

from __future__ import annotations

import numpy as np
import pytest

import lme4py
from lme4py.errors import DesignError, OptionError

FORMULA = "CHG ~ BASE + TRT01P * AVISIT"


@pytest.fixture(scope="module")
def data():
    whole = lme4py.load_dataset("trial")
    return whole[whole["SITEID"].isin(["01", "02", "03", "04", "05", "06"])]


def test_each_row_is_a_fit_of_its_own(data):
    fit = lme4py.mmrm(f"{FORMULA} + us(AVISIT | USUBJID)", data)
    table = lme4py.structure_table(fit, ["us", "hetar1", "homcs", "car1(AVISITN | USUBJID)"])
    for name in ("us", "hetar1", "homcs"):
        other = lme4py.mmrm(f"{FORMULA} + {name}(AVISIT | USUBJID)", data)
        row = table.loc[f"{name}(AVISIT | USUBJID)"]
        # The same optimum from the same starts.
        assert row["aic"] == pytest.approx(other.aic, abs=1e-8)
        assert row["bic"] == pytest.approx(other.bic, abs=1e-8)
        assert row["log_likelihood"] == pytest.approx(other.log_likelihood, abs=1e-8)
        assert row["parameters"] == other.n_params
    assert table["delta_aic"].min() == 0.0
    assert table["converged"].all()


def test_variance_functions_and_random_effects_stay(data):
    options = {"variance": "ident(SEX)"}
    fit = lme4py.lmer(f"{FORMULA} + (1 | SITEID)", data, residual="ar1(AVISIT | USUBJID)", **options)
    table = lme4py.structure_table(fit, ["ar1", "homcs"])
    other = lme4py.lmer(f"{FORMULA} + (1 | SITEID)", data, residual="homcs(AVISIT | USUBJID)", **options)
    assert table["log_likelihood"].tolist() == pytest.approx([fit.log_likelihood, other.log_likelihood], abs=1e-7)
    by_formula = lme4py.lmer(FORMULA, data, residual="ar1(AVISIT | USUBJID)", dispformula="~ AGE")
    again = lme4py.structure_table(by_formula, ["ar1", "homcs"])
    assert again["parameters"].tolist() == [by_formula.n_params] * 2


def test_what_cannot_be_fitted_says_why(data):
    never = data[~((data["AVISIT"] == "Week 12") & (data["USUBJID"].cat.codes % 2 == 0))]
    never = never[~((never["AVISIT"] == "Week 8") & (never["USUBJID"].cat.codes % 2 == 1))]
    fit = lme4py.mmrm(f"{FORMULA} + ar1(AVISIT | USUBJID)", never)
    table = lme4py.structure_table(fit, ["ar1", "us"])
    assert "never observed" in table.loc["us(AVISIT | USUBJID)", "note"]
    assert np.isnan(table.loc["us(AVISIT | USUBJID)", "aic"])
    with pytest.raises(OptionError, match="residual structure"):
        lme4py.structure_table(lme4py.lmer(f"{FORMULA} + (1 | USUBJID)", data))
    with pytest.raises(OptionError, match="list"):
        lme4py.structure_table(fit, "us")


def test_what_would_take_minutes_is_forecast():
    g = np.random.default_rng(1)
    kept = g.uniform(size=1800) < 0.9
    rows = {
        "id": np.repeat(np.arange(45), 40)[kept],
        "v": np.tile(np.arange(40), 45)[kept],
        "y": g.normal(size=1800)[kept],
    }
    fit = lme4py.lmer("y ~ 1", rows, residual="ar1(v | id)")
    table = lme4py.structure_table(fit, ["ar1", "us"])
    assert "820 covariance parameters would take about" in table.loc["us(v | id)", "note"]
    assert table["converged"].tolist() == [True, False]


def test_a_structure_of_more_positions_than_the_data_determine_is_refused_in_time():
    # 90 times that hardly repeat: the second derivatives of ad() in 179 parameters would be 2 GB.
    g = np.random.default_rng(2)
    rows = {"id": np.repeat(np.arange(30), 3), "t": np.round(g.uniform(0, 9, 90), 9), "y": g.normal(size=90)}
    with pytest.raises(DesignError, match=r"do not tell .* more\. Whatever"):
        lme4py.lmer("y ~ 1", rows, residual="ad(t | id)")
    fit = lme4py.lmer("y ~ 1", rows, residual="exp(t | id)")
    assert "minutes" in lme4py.structure_table(fit, ["ad"]).loc["ad(t | id)", "note"]
