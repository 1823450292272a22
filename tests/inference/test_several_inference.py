"""What follows from fits of several responses: by response, against the long form, or refused by name."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from reference_data import load_reference

import lme4py
from lme4py import Margins
from lme4py.errors import OptionError


@pytest.fixture(scope="module")
def data():
    table = load_reference("mvn80")
    table["arm"] = np.where(table["id"].cat.codes % 2 == 0, "a", "b")
    return table


@pytest.fixture(scope="module")
def fit(data):
    return lme4py.lmer("mvbind(y1, y2) ~ x * arm + (1 | id)", data)


@pytest.fixture(scope="module")
def hand(data):
    table = data.assign(row=range(len(data)))
    kept = ["x", "id", "occ", "arm", "row"]
    long = table.melt(id_vars=kept, value_vars=["y1", "y2"], var_name="response", value_name="value")
    right = "0 + response + response:x + response:arm + response:x:arm"
    return lme4py.lmer(f"value ~ {right} + (0 + response | id)", long, residual="us(response | row)")


@pytest.fixture(scope="module")
def new():
    return pd.DataFrame({"x": [0.0, 1.0], "arm": ["a", "b"], "id": ["v01", "v02"]}, index=["p", "q"])


# --- correlations and equal effects -----------------------------------------------------------------------------------


def test_correlations_have_intervals_on_the_scale_of_fishers_z(fit):
    table = fit.response_correlations()
    assert table["group"].tolist() == ["id", "Residual"]
    assert table["estimate"].tolist() == pytest.approx(
        [fit.variance_components["corr(y1: Intercept,y2: Intercept)"], fit.residual_correlation().iloc[0, 1]], rel=1e-12
    )
    z = 1.959963984540054
    for row in table.itertuples():
        # tanh(atanh(r) -+ z se / (1 - r^2)), by its definition.
        half = z * row.std_error / (1.0 - row.estimate**2)
        limits = np.tanh(np.arctanh(row.estimate) + np.array([-half, half]))
        assert [row.lower, row.upper] == pytest.approx(limits.tolist(), rel=1e-9)


def test_the_error_of_a_correlation_is_that_of_other_coordinates(data):
    """From a numerical Hessian of the likelihood with the correlation itself held."""
    fit = lme4py.lmer("mvbind(y1, y2) ~ x + (1 | id)", data, reml=False)
    name = "cor(y1: Intercept, y2: Intercept | id)"
    row = fit.response_correlations().iloc[0]
    h = 0.02
    values = [
        lme4py.lmer("mvbind(y1, y2) ~ x + (1 | id)", data, reml=False, fix={name: row["estimate"] + d}).criterion
        for d in (-h, h)
    ]
    curvature = (sum(values) - 2.0 * fit.criterion) / h**2
    # The second difference of the profile over 0.04; the error falls with its square.
    assert row["std_error"] == pytest.approx(np.sqrt(2.0 / curvature), rel=5e-3)
    profile = fit.response_correlations(method="profile").iloc[0]
    limits = fit.conf_int(parm=name, method="profile").iloc[0]
    assert [profile["lower"], profile["upper"]] == pytest.approx(limits.tolist(), rel=1e-9)


def test_equal_effects_are_tests_of_differences(fit):
    table = fit.equal_effects()
    assert table.index.tolist() == ["x", "arm", "x:arm"]
    for term, text in (("x", "y1:x - y2:x"), ("arm", "y1: arm[T.b] - y2: arm[T.b]")):
        single = fit.contest(text)
        # The same hypothesis.
        assert table.loc[term, ["F", "den_df"]].tolist() == pytest.approx(
            single.loc["L", ["F", "den_df"]].tolist(), rel=1e-10
        )
        chi2 = fit.wald_test(text)["chi2"]
        assert chi2 == pytest.approx(single.loc["L", "F"], rel=1e-10)
    both = fit.equal_effects(["Intercept", "x"], "kenward-roger")
    assert both.index.tolist() == ["Intercept", "x"]
    with pytest.raises(OptionError, match="no term"):
        fit.equal_effects("z")


def test_three_responses_have_two_differences(data):
    fit = lme4py.lmer("mvbind(y1, y2, y3) ~ x + (1 | id)", data)
    table = fit.equal_effects("x")
    together = fit.contest(["y1: x - y2: x", "y1: x - y3: x"])
    assert table.loc["x", "num_df"] == 2
    # Another basis of the same hypothesis.
    assert table.loc["x", "F"] == pytest.approx(together.loc["L", "F"], rel=1e-9)
    assert len(fit.response_correlations()) == 6


def test_other_models_say_that_they_have_one_response(data):
    one = lme4py.lmer("y1 ~ x + (1 | id)", data)
    for call in (one.response_correlations, one.equal_effects):
        with pytest.raises(OptionError, match="several responses"):
            call()


# --- tests of terms ---------------------------------------------------------------------------------------------------


def test_terms_are_tested_over_all_responses(data, fit, hand):
    for type in (1, 2, "sequential"):
        own, other = fit.anova(type), hand.anova(type)
        assert own.index.tolist() == ["x", "arm", "x:arm"]
        last = own.loc["x:arm", ["F", "den_df"]].tolist()
        # The last term has no other after it, whatever holds it.
        assert last == pytest.approx(other.loc["response:x:arm", ["F", "den_df"]].tolist(), rel=1e-7)


def test_type_three_is_free_of_the_coding(data):
    formula = "mvbind(y1, y2) ~ x * arm + (1 | id)"
    plain = lme4py.lmer(formula, data).anova(3)
    summed = lme4py.lmer(formula, data, contrasts={"arm": "contr.sum"}).anova(3)
    # The same hypotheses of two codings.
    assert plain[["F", "den_df"]].to_numpy() == pytest.approx(summed[["F", "den_df"]].to_numpy(), rel=1e-7)
    own = lme4py.lmer(formula, data, contrasts={"arm": "contr.sum"})
    hypotheses = own.contest(["y1: x", "y2: x"])
    assert summed.loc["x", "F"] == pytest.approx(hypotheses.loc["L", "F"], rel=1e-7)


def test_drop1_and_likelihood_ratios(data, fit):
    assert fit.drop1().index.tolist() == ["x:arm"]
    smaller = lme4py.lmer("mvbind(y1, y2) ~ x + arm + (1 | id)", data, reml=False)
    found = lme4py.lrtest(smaller, fit.update(reml=False))
    assert found.df == 2
    assert fit.drop1("Chisq").loc["x:arm", "chi2"] == pytest.approx(found.chi2, abs=1e-6)
    apart = lme4py.lrtest(fit.update("~ . - (1 | id) + (1 || id)"), fit)
    # One correlation is zero inside its range.
    assert apart.df == 1
    assert apart.p_value < 1e-6
    assert lme4py.vif(fit).index.tolist() == ["x", "arm", "x:arm"]


# --- rows -------------------------------------------------------------------------------------------------------------


def test_predictions_stand_side_by_side(data, fit, hand, new):
    wide = fit.predict(new)
    assert wide.index.tolist() == ["p", "q"]
    long = new.loc[["p", "p", "q", "q"]].assign(response=["y1", "y2"] * 2, row=[900, 900, 901, 901])
    # The same means.
    assert wide.to_numpy().ravel() == pytest.approx(hand.predict(long).to_numpy(), abs=1e-8)
    assert fit.predict(long).to_numpy() == pytest.approx(wide.to_numpy().ravel(), abs=1e-12)
    for interval in ("confidence", "prediction"):
        own = fit.predict(new, interval=interval)
        other = hand.predict(long, interval=interval)
        assert own["y2"]["upper"].tolist() == pytest.approx(other["upper"].iloc[[1, 3]].tolist(), abs=1e-7)
    se = fit.predict(new, se=True)
    assert list(se.columns) == [(y, c) for y in ("y1", "y2") for c in ("predicted", "std_error")]
    assert fit.predict().equals(fit.fittedvalues)
    assert fit.residuals().to_numpy() == pytest.approx(
        (data[["y1", "y2"]] - fit.fittedvalues).to_numpy(), abs=1e-9, nan_ok=True
    )


def test_a_response_given_the_other(data, fit):
    """The conditional normal distribution of one response of a new row of a new group given the other, by hand."""
    row = pd.DataFrame({"y1": [3.0], "y2": [np.nan], "x": [0.5], "arm": ["a"], "id": ["new"]})
    found = fit.predict(row, given=row, interval="prediction")["y2"].iloc[0]
    mean = fit.predict(row, include_random=False).iloc[0]
    S = fit.fit.covariances[0] + fit.residual_covariance().to_numpy()
    # The coefficients take part too, a little: 2 % of the distance.
    assert found["predicted"] == pytest.approx(mean["y2"] + S[0, 1] / S[0, 0] * (3.0 - mean["y1"]), abs=0.05)
    half = 0.5 * (found["upper"] - found["lower"])
    assert half == pytest.approx(1.96 * np.sqrt(S[1, 1] - S[0, 1] ** 2 / S[0, 0]), rel=0.02)
    known = data.iloc[:3]
    # Rows of the fit count once.
    once = fit.predict(known, given=known)
    assert once.to_numpy() == pytest.approx(fit.predict(known, given=True).to_numpy(), abs=1e-9)


def test_new_responses_come_wide_or_long(data, fit):
    drawn = fit.simulate(2, seed=1)
    assert drawn.index.names[-1] == "response"
    again = fit.refit(drawn["sim_1"])
    wide = drawn["sim_1"].unstack("response").reindex(data.index)
    # The same numbers in another shape.
    assert fit.refit(wide).params.to_numpy() == pytest.approx(again.params.to_numpy(), abs=1e-12)
    boot = fit.bootstrap(4, seed=1)
    assert "y1: x" in boot.conf_int(0.5, "percentile", ["y1: x"]).index


def test_new_rows_are_drawn_with_both_correlations(fit, new):
    drawn = fit.simulate(4000, seed=3, data=new.iloc[:1]).to_numpy()
    expected = fit.fit.covariances[0] + fit.residual_covariance().to_numpy()
    # Standard errors of variances and covariances of 4000 draws are near 0.05; four of them.
    assert np.cov(drawn) == pytest.approx(expected, abs=0.22)
    assert drawn.mean(axis=1) == pytest.approx(fit.predict(new.iloc[:1], include_random=False).iloc[0], abs=0.1)


def test_missing_rows(data):
    holes = data.copy()
    holes.loc[3, "x"] = np.nan
    formula = "mvbind(y1, y2) ~ x + (1 | id)"
    assert lme4py.lmer(formula, holes).residuals().shape == (239, 2)
    whole = lme4py.lmer(formula, holes, na_action="exclude").fittedvalues
    assert whole.shape == (240, 2)
    assert whole.loc[3].isna().all()


# --- tables, margins, other forms -------------------------------------------------------------------------------------


def test_tables_name_the_response(fit):
    tidy = fit.tidy(conf_int=True)
    assert tidy.loc[tidy["effect"] == "fixed", "response"].tolist() == ["y1", "y2"] * 4
    cor = tidy[tidy["term"] == "cor__y1.y2"].iloc[0]
    assert cor["estimate"] == pytest.approx(fit.residual_correlation().iloc[0, 1], rel=1e-12)
    cov = fit.tidy(scales="vcov")
    assert cov.loc[cov["term"] == "cov__y1.y2", "estimate"].iloc[0] == pytest.approx(
        fit.residual_covariance().iloc[0, 1], rel=1e-12
    )
    text = str(fit.summary())
    assert "240 rows with 2 responses each, 462 used, 18 missing" in text
    assert f"y2 is {abs(fit.params['y2: x']):.4g} lower" in " ".join(_findings(fit))


def _findings(fit):
    from lme4py.report.page.words import findings

    return findings(fit.fit)


def test_standardised_coefficients_are_those_of_each_response(data, fit):
    rows = data["y2"].notna()
    expected = fit.params["y2: x"] * data.loc[rows, "x"].std() / data.loc[rows, "y2"].std()
    # By its definition.
    assert fit.standardised().loc["y2: x", "estimate"] == pytest.approx(expected, rel=1e-9)


def test_margins_are_by_response(data, fit):
    slopes = Margins(fit).dydx("x").to_frame().set_index("response")
    share = (data.loc[data["y1"].notna(), "arm"] == "b").mean()
    by_hand = fit.params["y1: x"] + share * fit.params["y1: x:arm[T.b]"]
    # The mean of a linear function.
    assert slopes.loc["y1", "estimate"] == pytest.approx(by_hand, rel=1e-10)
    assert Margins(fit).predict().to_frame()["response"].tolist() == ["y1", "y2"]
    assert Margins(fit, at={"response": "y2"}).dydx("x").estimate.shape == (1,)
    between = Margins(fit).contrasts(lme4py.pairwise("response", ["y1", "y2"]))
    assert between.estimate.shape == (1,)
    with pytest.raises(OptionError, match="'response'"):
        Margins(fit).evaluate([{"arm": "a"}, {"arm": "b"}], lambda a, b: a / b)
    at = Margins(fit, at=pd.DataFrame({"x": [0.0], "arm": ["a"]})).predict().to_frame()
    assert at["estimate"].tolist() == pytest.approx(fit.params[["y1: Intercept", "y2: Intercept"]].tolist(), rel=1e-10)
    table = lme4py.trial_table(fit, arm="arm", visit="response")
    assert set(table["visit"]) == {"y1", "y2"}


def test_fits_without_rows_and_pickled_ones(fit, new):
    slim = pickle.loads(pickle.dumps(fit.slim()))
    assert slim.predict(new).equals(fit.predict(new))
    assert str(slim.summary()) == str(fit.summary())
    assert pickle.loads(pickle.dumps(fit)).response_correlations().equals(fit.response_correlations())


def test_augment_takes_wide_rows(data, fit, new):
    own, again = fit.augment(), fit.augment(data, prefix=".")
    np.testing.assert_allclose(again[".fitted"], own["fitted"])
    table = fit.augment(newdata=new, prefix=".")
    for name, how in (("fitted", True), ("fixed", False)):
        labels = fit.fit.design.responses.labels
        want = fit.predict(new, include_random=how, type="linear")
        np.testing.assert_allclose(table[[f".{name}_{label}" for label in labels]], want[list(labels)])
    with pytest.raises(OptionError, match="was fitted to data of"):
        fit.augment(data.iloc[:-1])


def test_every_method_answers_or_refuses_by_name(data, fit, new):
    """No method falls over: what a model of several responses does not have is said in words."""
    import matplotlib as mpl

    mpl.use("agg")
    calls = {
        "influence": lambda: fit.influence("id"),
        "hatvalues": fit.hatvalues,
        "augment": fit.augment,
        "glance": fit.glance,
        "ranova": fit.ranova,
        "check": fit.check,
        "compare": lambda: lme4py.compare(fit, fit).to_frame(),
        "ranef(data)": lambda: fit.ranef(data=data.iloc[:6]),
        "robust": lambda: fit.coef_table(vcov="CR2"),
        "caterpillar": lambda: fit.plot("caterpillar", variable="all"),
        "effect": lambda: fit.plot("effect", variable="x"),
        "residuals": lambda: fit.plot("residuals"),
        "coef": lambda: fit.plot("coef"),
        "weights": fit.weights,
        "latex": lambda: fit.summary().to_latex(),
        "coef()": fit.coef,
    }
    refused = {
        "icc": fit.icc,
        "r_squared": fit.r_squared,
        "quantile": lambda: fit.residuals("quantile"),
        "all_fit": fit.all_fit,
        "effect by": lambda: fit.plot("effect", variable="x", by="arm"),
        "trial_table": lambda: lme4py.trial_table(fit, arm="arm", visit="x"),
        "cross_validate": lambda: lme4py.cross_validate(fit, groups="id", k=3),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for call in calls.values():
            assert call() is not None
        for call in refused.values():
            with pytest.raises(lme4py.errors.Lme4Error):
                call()
    import matplotlib.pyplot as plt

    plt.close("all")


def test_the_effect_plot_has_a_line_for_each_response(fit):
    from lme4py.report.plots.effect import effect_data

    table = effect_data(fit.fit, "x")
    assert set(table["response"]) == {"y1", "y2"}
