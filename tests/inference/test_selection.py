"""AICc, variance inflation and Rubin's rules."""

import json

import numpy as np
import pandas as pd
import pytest
from reference_data import REFERENCE

import lme4py
from lme4py.errors import OptionError

EXPECTED = json.loads((REFERENCE / "selection.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def sleepstudy():
    return lme4py.load_dataset("sleepstudy")


def test_aicc_of_sleepstudy(sleepstudy):
    fit = lme4py.lmer("Reaction ~ Days + (Days | Subject)", sleepstudy, reml=False)
    # R: AIC(m) + 2 k (k + 1) / (n - k - 1) of lme4's fit, whose optimum is known to 1e-7.
    assert lme4py.aicc(fit) == pytest.approx(EXPECTED["aicc"], abs=1e-6)


def test_aicc_needs_rows():
    data = pd.DataFrame({"y": [1.0, 2.0, 4.0, 3.0, 5.5, 6.0], "x": [0.0, 1, 2, 0, 1, 2], "g": list("aabbcc")})
    fit = lme4py.lmer("y ~ x + (1 | g)", data)
    assert lme4py.aicc(fit) == pytest.approx(fit.aic + 2 * 4 * 5 / (6 - 4 - 1), rel=1e-14)  # one formula
    with pytest.raises(OptionError, match="more rows than parameters"):
        lme4py.aicc(lme4py.lmer("y ~ x + I(x == 1) + (1 | g)", data))


def test_inflation_is_that_of_car():
    orthodont = lme4py.load_dataset("Orthodont")
    fit = lme4py.lmer("distance ~ age * Sex + (1 | Subject)", orthodont)
    # car::vif of lme4's fit. The correlations depend on the design and on the ratio of variances (known to 1e-6).
    assert lme4py.vif(fit)["gvif"].to_dict() == pytest.approx(EXPECTED["vif"], rel=1e-5)


def test_generalised_inflation_is_that_of_glmmtmb():
    cbpp = lme4py.load_dataset("cbpp")
    table = lme4py.vif(lme4py.glmer("cbind(incidence, size - incidence) ~ period + scale(size) + (1 | herd)", cbpp))
    # glmmTMB's optimum is good to about 1e-5.
    assert table["gvif"].to_numpy() == pytest.approx([EXPECTED["gvif"]] * 2, rel=1e-5)
    assert table["df"].tolist() == [3.0, 1.0]
    np.testing.assert_allclose(table["inflation"], table["gvif"] ** (0.5 / table["df"]), rtol=1e-14)  # the definition


def test_inflation_needs_two_terms(sleepstudy):
    with pytest.raises(OptionError, match="two terms or more"):
        lme4py.vif(lme4py.lmer("Reaction ~ Days + (1 | Subject)", sleepstudy))


def imputed(sleepstudy, m):
    rng = np.random.default_rng(3)
    missing = rng.choice(180, 30, replace=False)
    out = []
    for _ in range(m):
        data = sleepstudy.copy()
        data.loc[missing, "Reaction"] += rng.normal(scale=40.0, size=30)
        out.append(lme4py.lmer("Reaction ~ Days + (1 | Subject)", data))
    return out


def test_rubins_rules_are_those_of_mice(sleepstudy):
    """Five data sets in which every seventh response is moved by a sine, at lme4's optima."""
    fits, rows = [], np.arange(2, 180, 7)
    for i in range(1, 6):
        data = sleepstudy.copy()
        data.loc[rows, "Reaction"] += 40.0 * np.sin(i * np.arange(1, rows.size + 1))
        fits.append(lme4py.lmer("Reaction ~ Days + (1 | Subject)", data))
    table = lme4py.pool(fits)
    for name, values in EXPECTED["pooled"].items():
        # lme4 stops 1e-6 from its optimum, which a p-value of 1e-60 shows a hundred times.
        rtol = 1e-3 if name == "p_value" else 5e-6
        np.testing.assert_allclose(table[name], values, rtol=rtol, err_msg=name)


def test_rubins_rules_one_by_one(sleepstudy):
    fits = imputed(sleepstudy, 4)
    table = lme4py.pool(fits)
    for j, name in enumerate(["Intercept", "Days"]):
        q = [float(fit.params.iloc[j]) for fit in fits]
        u = [float(fit.bse.iloc[j]) ** 2 for fit in fits]
        mean = sum(q) / 4
        b = sum((value - mean) ** 2 for value in q) / 3
        t = sum(u) / 4 + 1.25 * b
        lam = 1.25 * b / t
        old, complete = 3 / lam**2, 176.0  # 180 rows, four parameters
        observed = (complete + 1) / (complete + 3) * complete * (1 - lam)
        df = old * observed / (old + observed)
        row = table.loc[name]
        # The same sums in another order.
        assert row["estimate"] == pytest.approx(mean, rel=1e-12)
        assert row["std_error"] == pytest.approx(np.sqrt(t), rel=1e-12)
        assert row["df"] == pytest.approx(df, rel=1e-10)
        assert row["lambda"] == pytest.approx(lam, rel=1e-10)
        assert row["riv"] == pytest.approx(lam / (1 - lam), rel=1e-10)
        assert row["fmi"] == pytest.approx((row["riv"] + 2 / (df + 3)) / (row["riv"] + 1), rel=1e-10)
        assert row["lower"] < mean < row["upper"]


def test_without_variation_between_the_fits_the_errors_are_those_of_one(sleepstudy):
    fit = lme4py.lmer("Reaction ~ Days + (1 | Subject)", sleepstudy)
    table = lme4py.pool([fit, fit, fit])
    # Nothing is added to the variance.
    np.testing.assert_allclose(table["std_error"], fit.bse, rtol=1e-14)
    np.testing.assert_allclose(table["df"], 177.0 / 179.0 * 176.0, rtol=1e-14)


def test_pool_refuses_what_is_not_one_model(sleepstudy):
    one = lme4py.lmer("Reaction ~ Days + (1 | Subject)", sleepstudy)
    other = lme4py.lmer("Reaction ~ 1 + (1 | Subject)", sleepstudy)
    with pytest.raises(OptionError, match="different coefficients"):
        lme4py.pool([one, other])
    with pytest.raises(OptionError, match="two fits or more"):
        lme4py.pool([one])
    with pytest.raises(OptionError, match="takes fitted mixed models"):
        lme4py.pool([one, 3])
