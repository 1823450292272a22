"""MixedResult and the functions behind it, on hand-made fits and on a fit of real data."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace

import hand_made
import numpy as np
import pandas as pd
import pytest
from scipy import linalg, stats

from lme4py.covariance import make_structure
from lme4py.errors import OptionError
from lme4py.results import MixedResult

# Reference values of the sleepstudy model are those that R prints: they are good to their last digit.


# --- fixed effects ------------------------------------------------------------------------------------------


def test_fixed_effects_carry_names(slopes):
    assert list(slopes.params.index) == ["Intercept", "x"]
    pd.testing.assert_series_equal(slopes.fixed_effects, slopes.params)
    assert slopes.params.to_numpy() == pytest.approx(slopes.fit.beta)
    assert slopes.cov_params().loc["x", "Intercept"] == slopes.fit.vcov[1, 0]
    assert slopes.bse["x"] ** 2 == pytest.approx(slopes.fit.vcov[1, 1])


def test_coef_table_normal_and_residual(slopes):
    normal, residual = slopes.coef_table("normal"), slopes.coef_table(ddf="residual")
    assert list(normal.columns) == ["estimate", "std_error", "df", "statistic", "p_value"]
    assert np.isinf(normal["df"]).all()
    assert residual["df"].tolist() == [22.0, 22.0]
    t = normal["estimate"] / normal["std_error"]
    # scipy.stats is a second implementation of the same tail: agreement to rounding.
    np.testing.assert_allclose(normal["p_value"], 2 * stats.norm.sf(abs(t)), rtol=1e-10)
    np.testing.assert_allclose(residual["p_value"], 2 * stats.t.sf(abs(t), 22), rtol=1e-10)
    assert slopes.tvalues.tolist() == t.tolist()
    assert slopes.pvalues.tolist() == slopes.coef_table("satterthwaite")["p_value"].tolist()


def test_misspelt_ddf_gets_a_hint(slopes):
    with pytest.raises(OptionError, match="Did you mean 'residual'"):
        slopes.coef_table(ddf="residuals")


def test_conf_int(slopes):
    table = slopes.conf_int(ddf="normal")
    # 1.959964 is the normal quantile to seven digits.
    assert table.loc["x", "upper"] == pytest.approx(slopes.params["x"] + 1.959964 * slopes.bse["x"], rel=1e-6)
    assert table.loc["x", "lower"] == pytest.approx(slopes.params["x"] - 1.959964 * slopes.bse["x"], rel=1e-6)
    narrower = slopes.conf_int(alpha=0.5, parm=["x"], ddf="normal")
    assert list(narrower.index) == ["x"]
    assert narrower.loc["x", "upper"] < table.loc["x", "upper"]
    assert list(slopes.conf_int(parm="x").index) == ["x"]


@pytest.mark.parametrize("alpha", [0, 1, -0.1, 2, "0.05", True, float("nan")])
def test_conf_int_refuses_alpha(slopes, alpha):
    with pytest.raises(OptionError, match="alpha"):
        slopes.conf_int(alpha=alpha)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "guess"}, "Use one of wald, profile, boot"),
        ({"method": "profile", "ddf": "satterthwaite"}, "for method='wald' only"),
        ({"parm": ["x", "X"]}, "Did you mean 'x'"),
    ],
)
def test_conf_int_refuses(slopes, options, message):
    with pytest.raises(OptionError, match=message):
        slopes.conf_int(**options)


def test_wald_test_of_one_coefficient_is_the_squared_statistic(slopes):
    test = slopes.wald_test("x")
    assert test["df"] == 1
    assert test["chi2"] == pytest.approx(slopes.tvalues["x"] ** 2)
    assert test["p_value"] == pytest.approx(slopes.coef_table("normal").loc["x", "p_value"])


def test_wald_test_names_matrix_and_value_agree(slopes):
    by_name = slopes.wald_test(["Intercept", "x"], value=[5, 2])
    by_matrix = slopes.wald_test(np.eye(2), value=[5, 2])
    assert by_name == by_matrix
    gap = slopes.params.to_numpy() - [5, 2]
    # The explicit inverse is exact enough for a 2 x 2 matrix.
    assert by_name["chi2"] == pytest.approx(gap @ np.linalg.inv(slopes.fit.vcov) @ gap, rel=1e-10)
    assert by_name["p_value"] == pytest.approx(stats.chi2.sf(by_name["chi2"], 2), rel=1e-10)
    assert slopes.wald_test([0, 1])["chi2"] == pytest.approx(slopes.wald_test("x")["chi2"])


@pytest.mark.parametrize(
    ("restrictions", "value", "message"),
    [
        ("z", 0, "no fixed effect 'z'"),
        ([[1, 2, 3]], 0, "one column for each of the 2 fixed"),
        ([[1, 0], [2, 0]], 0, "rank 1"),
        (["x", "x"], 0, "rank 1"),
        ([[1, np.nan]], 0, "not finite"),
        ([["a", 1]], 0, "names of fixed effects or a matrix"),
        ({"x": 1}, 2, "right-hand side"),
        ({}, 0, "empty dict"),
        ("x * x", 0, "not linear"),
        ("2 = 3", 0, "no coefficient"),
        ("x", [1, 2], "one for each row"),
        ([], 0, "shape"),
    ],
)
def test_wald_test_refuses(slopes, restrictions, value, message):
    with pytest.raises(OptionError, match=message):
        slopes.wald_test(restrictions, value)


# --- variances ----------------------------------------------------------------------------------------------


def test_variance_components_of_one_factor(slopes):
    parts = slopes.variance_components
    assert list(parts) == ["var(_cons)", "var(x)", "cov(_cons,x)", "corr(_cons,x)", "var(Residual)"]
    G = slopes.fit.covariances[0]
    assert parts["cov(_cons,x)"] == pytest.approx(G[0, 1])
    assert parts["corr(_cons,x)"] == pytest.approx(G[0, 1] / np.sqrt(G[0, 0] * G[1, 1]))
    assert parts["var(Residual)"] == pytest.approx(slopes.sigma**2)


def test_variance_components_of_several_factors_are_all_kept(crossed):
    assert list(crossed.variance_components) == [
        "var(_cons|g)",
        "var(x|g)",
        "var(_cons|g.1)",
        "cov(x,_cons|g)",
        "corr(x,_cons|g)",
        "var(_cons|h)",
        "var(Residual)",
    ]
    assert crossed.variance_components["var(_cons|g.1)"] == crossed.fit.covariances[1][1, 1]


def test_var_corr_lists_variances_then_covariances(crossed):
    table = crossed.var_corr()
    assert list(table.columns) == ["group", "name1", "name2", "vcov", "sdcor"]
    assert table["group"].tolist() == ["g", "g.1", "g.1", "g.1", "h", "Residual"]
    assert table["name1"].tolist() == ["Intercept", "x", "Intercept", "x", "Intercept", None]
    assert table["name2"].tolist() == [None, None, None, "Intercept", None, None]
    variances = table[table["name2"].isna()]
    np.testing.assert_allclose(variances["sdcor"] ** 2, variances["vcov"], rtol=1e-14)  # rounding only


@pytest.mark.parametrize(("structure", "theta"), [("diagonal", [0.5, 0.2]), ("identity", [0.5])])
def test_structures_without_covariances_show_none(structure, theta):
    made = hand_made.slopes_design()
    term = replace(made.terms[0], structure=make_structure(structure, 2))
    result = MixedResult(hand_made.dense_fit(made.with_predictor(terms=(term,)), np.array(theta)))
    assert list(result.variance_components) == ["var(_cons)", "var(x)", "var(Residual)"]
    assert result.var_corr()["name2"].tolist() == [None, None, None]
    assert "Corr." not in result.summary()


def test_zero_variance_has_no_correlation():
    fit = hand_made.dense_fit(hand_made.slopes_design(), np.array([0.8, 0.0, 0.0]))
    parts = MixedResult(fit).variance_components
    assert parts["var(x)"] == 0
    assert parts["cov(_cons,x)"] == 0
    assert np.isnan(parts["corr(_cons,x)"])


def test_singular_correlation_is_one():
    fit = hand_made.dense_fit(hand_made.slopes_design(), np.array([0.8, 0.3, 0.0]))
    # Two square roots and a division leave at most a few last bits.
    assert MixedResult(fit).variance_components["corr(_cons,x)"] == pytest.approx(1.0, abs=1e-14)
    assert MixedResult(fit).variance_components["corr(_cons,x)"] <= 1.0


def test_theta_cannot_be_changed_through_the_result(slopes):
    slopes.theta[0] = 99.0
    assert slopes.theta[0] == 1.2


# --- quality of fit -----------------------------------------------------------------------------------------


def test_likelihood_and_information_criteria(slopes):
    assert slopes.deviance == slopes.criterion == pytest.approx(-2 * slopes.log_likelihood)
    assert slopes.n_params == 2 + 3 + 1
    assert slopes.df_resid == 24 - 6
    assert slopes.aic == pytest.approx(slopes.criterion + 12)
    assert slopes.bic == pytest.approx(slopes.criterion + 6 * np.log(24))


def test_model_facts(crossed):
    assert crossed.n_obs == 30
    assert crossed.n_groups == {"g": 6, "h": 5}
    assert (crossed.family, crossed.link, crossed.reml) == ("gaussian", "identity", True)
    assert crossed.converged
    assert not crossed.is_singular
    assert crossed.certificate.verdict == hand_made.VERDICT
    assert crossed.model_matrix.shape == (30, 2)
    assert crossed.Zt.shape == (6 + 12 + 5, 30)


def test_opt_log_has_one_row_per_evaluation(slopes):
    log = slopes.opt_log
    assert log.columns.tolist()[:5] == ["number", "criterion", "gradient_norm", "radius", "accepted"]
    assert log["number"].tolist() == [1, 2]
    assert log["theta1"].tolist() == [1.0, 1.2]


# --- random effects -----------------------------------------------------------------------------------------


def test_ranef_of_one_factor_is_a_frame(slopes):
    modes = slopes.ranef()
    assert modes.index.name == "g"
    assert modes.index.tolist() == ["a", "b", "c", "d"]
    assert modes.columns.tolist() == ["Intercept", "x"]
    np.testing.assert_array_equal(modes.to_numpy(), slopes.fit.modes[0])
    pd.testing.assert_frame_equal(slopes.random_effects, modes)
    pd.testing.assert_frame_equal(slopes.blups, modes)


def test_ranef_of_several_factors_joins_terms(crossed):
    modes = crossed.ranef()
    assert list(modes) == ["g", "h"]
    assert modes["g"].columns.tolist() == ["Intercept", "x", "Intercept.1"]
    np.testing.assert_array_equal(modes["g"]["Intercept.1"], crossed.fit.modes[1][:, 1])


def test_coef_adds_every_term(crossed):
    table = crossed.coef()["g"]
    expected = crossed.params["Intercept"] + crossed.fit.modes[0][:, 0] + crossed.fit.modes[1][:, 1]
    np.testing.assert_allclose(table["Intercept"], expected, rtol=1e-14)  # rounding only
    assert (crossed.coef()["h"]["x"] == crossed.params["x"]).all()


def test_coef_of_a_random_effect_without_fixed_effect():
    made = hand_made.slopes_design()
    only = made.with_predictor(X=made.X[:, :1], names=("Intercept",))
    result = MixedResult(hand_made.dense_fit(only, np.array([1.2, 0.1, 0.3])))
    assert result.coef().columns.tolist() == ["Intercept", "x"]
    np.testing.assert_array_equal(result.coef()["x"], result.ranef()["x"])


def test_conditional_sds_have_the_shape_of_the_modes(crossed):
    modes, sds = crossed.ranef(conditional_se=True)
    assert sds["g"].columns.tolist() == modes["g"].columns.tolist()
    assert sds["h"].index.equals(modes["h"].index)
    assert all((frame.to_numpy() > 0).all() for frame in sds.values())


# --- rows ---------------------------------------------------------------------------------------------------


def test_rows_keep_the_users_index(slopes):
    assert slopes.fittedvalues.index.tolist() == [f"r{i}" for i in range(24)]
    assert slopes.fittedvalues.index.name == "row"
    np.testing.assert_allclose(slopes.fittedvalues + slopes.residuals(), slopes.fit.design.y, rtol=1e-14)  # rounding


def _with_hole(na_action: str) -> MixedResult:
    full = hand_made.slopes_design()
    keep = np.ones(25, dtype=bool)
    keep[3] = False
    index = pd.Index([f"r{i}" for i in range(25)])
    made = replace(full, keep=keep, row_labels=index, na_action=na_action)
    return MixedResult(hand_made.dense_fit(made, np.array([1.2, 0.1, 0.3])))


def test_omitted_rows_are_absent():
    result = _with_hole("omit")
    assert "r3" not in result.residuals().index
    assert len(result.residuals()) == 24


def test_excluded_rows_are_nan():
    result = _with_hole("exclude")
    for series in (result.residuals("pearson"), result.fittedvalues):
        assert len(series) == 25
        assert series.index[series.isna()].tolist() == ["r3"]


def test_residual_types_with_weights():
    weights = np.linspace(0.5, 2.0, 24)
    result = MixedResult(hand_made.dense_fit(hand_made.slopes_design(weights=weights), np.array([1.2, 0.1, 0.3])))
    response = result.residuals()
    pd.testing.assert_series_equal(result.residuals("working"), response)
    np.testing.assert_allclose(result.residuals("pearson"), np.sqrt(weights) * response, rtol=1e-14)  # rounding
    pd.testing.assert_series_equal(result.residuals("deviance"), result.residuals("pearson"))
    np.testing.assert_allclose(
        result.residuals("scaled"), result.residuals("pearson") / result.sigma, rtol=1e-14
    )  # rounding


def test_unknown_residual_type(slopes):
    with pytest.raises(OptionError, match="Did you mean 'pearson'"):
        slopes.residuals("person")


# --- tidy data ----------------------------------------------------------------------------------------------


def test_tidy(slopes):
    table = slopes.tidy()
    assert table.columns.tolist() == [
        "effect",
        "group",
        "term",
        "estimate",
        "std_error",
        "statistic",
        "p_value",
    ]
    assert table["effect"].tolist() == ["fixed"] * 2 + ["ran_pars"] * 4
    assert table["group"].tolist() == [None, None, "g", "g", "g", "Residual"]
    assert table["term"].tolist()[2:] == ["sd__Intercept", "sd__x", "cor__Intercept.x", "sd__Observation"]
    assert table["estimate"].iloc[-1] == slopes.sigma
    assert table["std_error"].isna().tolist() == [False] * 2 + [True] * 4


def test_glance_is_one_row(slopes):
    table = slopes.glance()
    assert len(table) == 1
    row = table.iloc[0]
    assert (row["n_obs"], row["n_params"], row["df_resid"]) == (24, 6, 18)
    assert row["aic"] == slopes.aic
    assert bool(row["converged"]) is True


def test_json_round_trip(crossed):
    parts = json.loads(crossed.to_json(random_effects=True))
    assert parts["formula"] == crossed.formula
    assert parts["fixed_effects"][1]["term"] == "x"
    assert parts["fixed_effects"][1]["estimate"] == crossed.params["x"]
    assert parts["fixed_effects"][1]["df"] == crossed.coef_table("satterthwaite").loc["x", "df"]
    assert parts["variance_components"] == crossed.variance_components
    assert parts["certificate"]["converged"] is True
    assert parts["random_effects"]["h"][0]["level"] == "a"
    assert parts["random_effects"]["h"][0]["Intercept"] == crossed.fit.modes[2][0, 0]
    assert "random_effects" not in crossed.to_dict()


def test_json_of_numbers_that_are_not_finite():
    fit = hand_made.dense_fit(hand_made.slopes_design(), np.array([0.8, 0.0, 0.0]))
    assert json.loads(MixedResult(fit).to_json())["variance_components"]["corr(_cons,x)"] is None


# --- a fit of real data -------------------------------------------------------------------------------------


def test_sleepstudy_agrees_with_r(sleep):
    assert sleep.coef_table().round(3)["estimate"].tolist() == [251.405, 10.467]
    assert sleep.bse.round(3).tolist() == [6.825, 1.546]
    assert sleep.tvalues.round(3).tolist() == [36.838, 6.771]
    table = sleep.var_corr()
    # R's as.data.frame(VarCorr()); its default optimiser leaves the last two of its seven digits open.
    np.testing.assert_allclose(table["vcov"], [612.100158, 35.071714, 9.604409, 654.940008], rtol=2e-5)
    np.testing.assert_allclose(table["sdcor"], [24.74065799, 5.92213766, 0.06555124, 25.59179572], rtol=2e-5)
    assert round(sleep.criterion, 4) == 1743.6283
    assert sleep.n_groups == {"Subject": 18}


def test_sleepstudy_modes_agree_with_r(sleep):
    modes, sds = sleep.ranef(conditional_se=True)
    # ranef() of R 4.2.2, lme4 1.1-31, printed with seven digits.
    assert modes.loc["308"].round(3).tolist() == [2.259, 9.199]
    assert sds.loc["308"].round(3).tolist() == [12.071, 2.305]
    np.testing.assert_allclose(sleep.coef().loc["308"], modes.loc["308"] + sleep.params, rtol=1e-14)  # rounding only


def test_conditional_sds_are_those_of_the_dense_formulas(crossed):
    design, sigma = crossed.fit.design, crossed.sigma
    Z = design.Zt.T.toarray()
    G = linalg.block_diag(
        *(np.kron(np.eye(t.n_levels), C) for t, C in zip(design.terms, crossed.fit.covariances, strict=True))
    )
    V = Z @ G @ Z.T + sigma**2 * np.eye(30)
    dense = np.sqrt(np.diag(G - G @ Z.T @ np.linalg.solve(V, Z @ G)))
    sds = crossed.ranef(conditional_se=True)[1]
    # Two routes to the same numbers, both well conditioned.
    np.testing.assert_allclose(sds["h"]["Intercept"], dense[18:], rtol=1e-9)
    np.testing.assert_allclose(sds["g"]["Intercept.1"], dense[7:18:2], rtol=1e-9)


def test_criterion_is_that_of_the_dense_formulas(slopes):
    # Rounding of a sum of about fifty terms.
    assert slopes.criterion == pytest.approx(slopes.fit.point.value, rel=1e-11)


def test_pickle_keeps_the_result(sleep):
    copy = pickle.loads(pickle.dumps(sleep))
    assert copy.summary() == sleep.summary()


def test_predict_without_data_is_fitted(sleep):
    np.testing.assert_allclose(sleep.predict(), sleep.fittedvalues, rtol=1e-12)  # the same sums in another order
