"""Analysis of variance tables against lmerTest and car, and hypotheses against their definitions."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from reference_data import REFERENCE
from test_df import INFERENCE, TOLERANCE, WEIGHTED, close_p
from test_lmm_reference import fit

import lme4py
from lme4py.errors import OptionError
from lme4py.inference.tests import hypotheses
from lme4py.inference.tests.anova import anova_table, contest
from lme4py.inference.tests.drop1 import drop1

# Columns that R drops too are left out with a warning, of which one test is about.
pytestmark = pytest.mark.filterwarnings("ignore::lme4py.RankWarning")

# (model, type, ddf) -> why the reference is not taken.
EXCEPT = {
    ("lmm_oats_fac", "I", "satterthwaite"): "the last term has one hypothesis in all three types; lmerTest's type I "
    "differs from its own types II and III by 6e-4 (rounding in its elimination)",
}
# Their t tables agree with lmerTest to 1e-5 only: see test_lmm_reference.
WIDER = {"lmm_assay": 1e-5, "lmm_tvbo": 1e-5, "lmm_tvbo_fs": 1e-5}


@pytest.mark.parametrize("name", [n for n, m in INFERENCE.items() if "anova" in m])
def test_tables_agree_with_the_reference(name):
    tolerance = WIDER.get(name, TOLERANCE)
    for kind, tables in INFERENCE[name]["anova"].items():
        for ddf, expected in tables.items():
            if (ddf == "kenward_roger" and name in WEIGHTED) or (name, kind, ddf) in EXCEPT:
                continue
            table = fit(name).anova(kind, ddf.replace("_", "-"))
            values = np.array(expected, dtype=float).T
            tested = table["num_df"].to_numpy() > 0
            # A term without columns is empty there.
            assert (tested == ~np.isnan(values[:, 2])).all()
            # Relative; an F value near zero is known against one.
            ours = table.to_numpy()[tested, :5]
            np.testing.assert_allclose(ours, values[tested, :5], rtol=tolerance, atol=tolerance * 1e-3)
            close_p(table["p_value"][tested], values[tested, 5], tolerance)


@pytest.mark.parametrize("name", [n for n, m in INFERENCE.items() if "wald" in m])
def test_wald_tables_agree_with_car(name):
    for kind, expected in INFERENCE[name]["wald"].items():
        table = fit(name).anova(f"car-{kind}", "normal")
        ours = np.array([table["F"] * table["num_df"], table["num_df"]])
        np.testing.assert_allclose(ours, np.array(expected[:2], float), rtol=WIDER.get(name, TOLERANCE))
        close_p(table["p_value"], expected[2])


@pytest.fixture(scope="module")
def cells() -> pd.DataFrame:
    """Two factors with unequal cells, one of them empty, a covariate, and a column that follows from others."""
    rng = np.random.default_rng(5)
    frame = pd.DataFrame({"a": rng.choice(list("pqr"), 150), "b": rng.choice(list("uvw"), 150)})
    frame = frame[~((frame["a"] == "r") & (frame["b"] == "w"))].reset_index(drop=True)
    n = len(frame)
    frame["x"], frame["g"] = rng.normal(size=n), rng.integers(0, 12, n)
    frame["x2"] = 3 * frame["x"] - 1
    frame["y"] = rng.normal(size=n) + rng.normal(size=12)[frame["g"]] + (frame["a"] == "q") + frame["x"]
    return frame


@pytest.mark.parametrize("formula", ["y ~ a * b + x + (1 | g)", "y ~ b * a * x + (1 | g)", "y ~ a + b * x + (1 | g)"])
def test_type_three_does_not_depend_on_the_coding(cells, formula):
    if "b * a" in formula:
        cells = cells[cells["b"] != "w"]
    tables = [
        lme4py.lmer(formula, cells, contrasts=contrasts).anova(3)
        for contrasts in (None, {"a": "contr.sum", "b": "contr.helmert"}, {"a": "contr.SAS"})
    ]
    for other in tables[1:]:
        # The same hypotheses at optima that agree to 1e-7.
        np.testing.assert_allclose(other, tables[0], rtol=1e-5)


def test_type_three_averages_over_the_cells_with_equal_weights(cells):
    cells = cells[cells["b"] != "w"]
    result = lme4py.lmer("y ~ a * b + (1 | g)", cells)
    assert list(result.params.index) == ["Intercept", "a[T.q]", "a[T.r]", "b[T.v]", "a[T.q]:b[T.v]", "a[T.r]:b[T.v]"]
    # Differences of the means of p, q and r, each the mean of its two cells.
    L = [[0, 1, 0, 0, 0.5, 0], [0, 0, 1, 0, 0, 0.5]]
    # Exact coefficients up to rounding.
    np.testing.assert_allclose(hypotheses.type_three(result.fit.design)[0], L, atol=1e-12)
    assert result.contest(L)["F"].iloc[0] == pytest.approx(result.anova(3).loc["a", "F"], rel=1e-10)


def test_type_two_of_a_main_effect_is_a_comparison_without_its_interaction(cells):
    cells = cells[cells["b"] != "w"]
    design = lme4py.lformula("y ~ a * b + (1 | g)", cells)
    L = hypotheses.type_two(design)[0]
    # What a adds to b in least squares: X_a'(I - P_b) X beta = 0.
    M = np.eye(design.n_obs) - design.X[:, [0, 3]] @ np.linalg.pinv(design.X[:, [0, 3]])
    rows = design.X[:, [1, 2]].T @ M @ design.X
    # The same row space.
    assert np.linalg.matrix_rank(np.vstack([L, rows]), tol=1e-8) == 2


def test_a_dropped_column_is_not_estimable(cells):
    result = lme4py.lmer("y ~ x + x2 + a + (1 | g)", cells)
    assert result.fit.design.dropped == ("x2",)
    # x2 = 3 x - 1, as the design knows.
    np.testing.assert_allclose(result.fit.design.alias[:, 0], [-1, 3, 0, 0], atol=1e-10)
    table = result.anova(3)
    assert table["num_df"].tolist() == [1.0, 0.0, 2.0]
    assert table.loc["x2"].isna().tolist() == [True, True, False, True, True, True]
    # Leaving out x changes nothing while x2 stays.
    assert drop1(result.fit, "F")["num_df"].tolist() == [0.0, 0.0, 2.0]


def test_drop_each_tests_terms_that_are_no_margins(cells):
    result = lme4py.lmer("y ~ a * b + x + (1 | g)", cells)
    table = drop1(result.fit, "F")
    assert list(table.index) == ["x", "a:b"]
    assert table.loc["a:b", "num_df"] == 3  # four, and one cell is empty
    # The last term of a sequential table is the same comparison.
    last = result.anova(1).loc["a:b"]
    assert table.loc["a:b", "F"] == pytest.approx(last["F"], rel=1e-10)


@pytest.mark.parametrize("ddf", ["satterthwaite", "kenward-roger", "residual", "normal"])
def test_one_row_is_the_squared_t_test(sleep, ddf):
    table, row = sleep.coef_table(ddf), sleep.contest([0, 1], ddf).iloc[0]
    t = table.loc["Days"]
    # The same numbers by two ways, up to rounding.
    assert row["F"] == pytest.approx(t["statistic"] ** 2, rel=1e-12)
    assert row["den_df"] == pytest.approx(t["df"], rel=1e-12)
    assert row["p_value"] == pytest.approx(t["p_value"], rel=1e-9)
    each = sleep.contest(["Intercept", "Days"], ddf, joint=False)
    np.testing.assert_allclose(each, table, rtol=1e-12)
    assert sleep.anova(ddf=ddf)["F"].iloc[0] == pytest.approx(row["F"], rel=1e-12)


def test_rows_that_follow_from_others_count_once(cells):
    result = lme4py.lmer("y ~ a + x + (1 | g)", cells)
    L = np.array([[0, 1, 0, 0], [0, 0, 1, 0], [0, 1, -1, 0]])
    for ddf in ("satterthwaite", "kenward-roger"):
        several, two = result.contest(L, ddf).iloc[0], result.contest(L[:2], ddf).iloc[0]
        # The same hypothesis; Satterthwaite's degrees of freedom depend a little on the rows.
        assert several["F"] == pytest.approx(two["F"], rel=1e-10)
        assert several["num_df"] == 2
        assert several["den_df"] == pytest.approx(two["den_df"], rel=1e-2)
    shifted = result.contest(L, value=[1.0, 0.5, 0.5]).iloc[0]
    assert shifted["F"] == pytest.approx(result.contest(L[:2], value=[1.0, 0.5]).iloc[0]["F"], rel=1e-10)
    with pytest.raises(OptionError, match="contradict each other"):
        result.contest(L, value=[1.0, 0.5, 0.7])


def test_normal_f_tests_are_wald_tests(cells):
    result = lme4py.lmer("y ~ a * b + x + (1 | g)", cells)
    names = ["a[T.q]", "a[T.r]"]
    chi2, row = result.wald_test(names), result.contest(names, "normal").iloc[0]
    # The same number by two ways.
    assert row["F"] * 2 == pytest.approx(chi2["chi2"], rel=1e-10)
    assert row["p_value"] == pytest.approx(chi2["p_value"], rel=1e-10)
    assert np.isinf(row["den_df"])


def test_mean_square_is_f_times_the_residual_variance(sleep):
    row = sleep.anova().iloc[0]
    assert row["mean_sq"] == pytest.approx(row["F"] * sleep.sigma**2, rel=1e-12)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda f: anova_table(f, 4), "type=4 is not known"),
        (lambda f: anova_table(f, True), "type=True is not known"),
        (lambda f: anova_table(f, 3, "kenward"), "Did you mean 'kenward-roger'"),
        (lambda f: anova_table(f, "car-1"), "'sequential' .lme4's own anova.*Did you mean 'car-"),
        (lambda f: contest(f, [[0, 0], [0, 1]]), "zeros only"),
        (lambda f: contest(f, "Days", value=[1, 2]), "one for each row"),
        (lambda f: contest(f, "Dayz"), "Did you mean 'Days'"),
    ],
)
def test_bad_input_is_refused(sleep, call, words):
    with pytest.raises(OptionError, match=words):
        call(sleep.fit)


def test_generalised_models_have_no_f_tests():
    result = lme4py.glmer("cbind(incidence, size - incidence) ~ period + (1 | herd)", lme4py.load_dataset("cbpp"))
    for call in (lambda: result.anova(ddf="kenward-roger"), lambda: result.contest("Intercept")):
        with pytest.raises(OptionError, match="linear mixed models"):
            call()
    with pytest.raises(OptionError, match="linear mixed models"):
        result.coef_table("satterthwaite")


def test_a_model_without_fixed_terms_has_an_empty_table():
    table = lme4py.lmer("Yield ~ 1 + (1 | Batch)", lme4py.load_dataset("Dyestuff")).anova()
    assert table.shape == (0, 6)


@pytest.fixture(scope="module")
def counts() -> pd.DataFrame:
    """Two factors with unequal cells, a covariate, counts, and ordered categories."""
    rng = np.random.default_rng(8)
    n = 240
    frame = pd.DataFrame({"a": rng.choice(list("pqr"), n, p=[0.5, 0.3, 0.2]), "b": rng.choice(list("uv"), n)})
    frame["x"], frame["g"] = rng.normal(size=n), rng.integers(0, 15, n)
    eta = 0.4 * frame["x"] + 0.5 * (frame["a"] == "q") + rng.normal(0, 0.4, 15)[frame["g"]]
    frame["y"] = rng.poisson(np.exp(eta))
    frame["level"] = np.minimum(frame["y"], 3)
    return frame


def _ordinal(formula, data, contrasts=None):
    return lme4py.clmm("level " + formula, data, contrasts=contrasts)


def _poisson(formula, data, contrasts=None):
    return lme4py.glmer("y " + formula, data, "poisson", contrasts=contrasts)


@pytest.mark.parametrize("model", [_poisson, _ordinal])
def test_generalised_models_have_wald_tests_of_the_terms(model, counts):
    formula = "~ x + a * b + (1 | g)"
    treated, summed = (model(formula, counts, {"a": name, "b": name}) for name in ("contr.treatment", "contr.sum"))
    for kind in (1, 2, 3):
        table = treated.anova(kind)
        assert list(table.columns) == ["chi2", "df", "p_value"]
        assert list(table.index) == ["x", "a", "b", "a:b"]
        assert table["df"].tolist() == [1, 2, 1, 2]
        # The hypotheses do not depend on the coding; the two fits agree to the optimiser's tolerance.
        np.testing.assert_allclose(table["chi2"], summed.anova(kind)["chi2"], rtol=1e-5)
    # With sum-to-zero contrasts type III tests the coefficients themselves; the last type I test is the last term's.
    for result, kind, label in ((summed, 3, "a"), (summed, 3, "b"), (treated, 1, "a:b"), (treated, 2, "x")):
        assign = np.array(result.fit.design.assign) == 1 + list(result.fit.design.fixed_labels).index(label)
        own = result.wald_test(np.eye(assign.size)[assign])
        # Algebra only: rounding.
        assert result.anova(kind).loc[label, "chi2"] == pytest.approx(own["chi2"], rel=1e-9)
    # Type II of a main effect is the last of its margins in order.
    order = model("~ x + b + a + a:b + (1 | g)", counts)
    # Two fits: the optimiser's tolerance.
    assert treated.anova(2).loc["a", "chi2"] == pytest.approx(order.anova(1).loc["a", "chi2"], rel=1e-5)


def test_terms_that_follow_from_others_have_no_test(counts):
    for model in (_poisson, _ordinal):
        table = model("~ x + I(2 * x) + a + (1 | g)", counts).anova()
        assert table["df"].tolist() == [1, 0, 2]
        assert table["chi2"].isna().tolist() == [False, True, False]


def test_anova_of_one_model_and_of_several(sleep, counts):
    pd.testing.assert_frame_equal(lme4py.anova(sleep), sleep.anova())
    pd.testing.assert_frame_equal(lme4py.anova(sleep, type=1, ddf="residual"), sleep.anova(1, "residual"))
    one = lme4py.lmer("Reaction ~ 1 + (Days | Subject)", lme4py.load_dataset("sleepstudy"))
    table = lme4py.anova(one, sleep)
    pd.testing.assert_frame_equal(table, one.anova(sleep))
    assert table.attrs["note"] == "REML fits were refitted with ML."
    small, large = _poisson("~ x + (1 | g)", counts), _poisson("~ x + a + (1 | g)", counts)
    table = lme4py.anova(small, large)
    pd.testing.assert_frame_equal(table, small.anova(large))
    # Minus twice the difference of the log-likelihoods.
    assert table["chi2"].iloc[1] == pytest.approx(2 * (large.log_likelihood - small.log_likelihood), rel=1e-9)
    pd.testing.assert_frame_equal(lme4py.anova(large), large.anova())
    with pytest.raises(OptionError, match="of type str"):
        lme4py.anova("model")
    with pytest.raises(OptionError, match="at least two"):
        lme4py.anova()


# Orthodont without the rows 4, 11, 18, ... (counted from one): F of each term, and its denominator degrees of freedom,
# from lmerTest's anova(lmer(...), type = 2).
TYPE_TWO = {
    "age": ([88.15691915, 0.09791790, 3.27125280], [65.118423, 86.276363, 65.027155]),
    "scale(age)": ([88.15692154, 8.87238636, 3.27125291], [65.118424, 24.787335, 65.027156]),
    "poly(age, 2)": ([43.74298463, 8.92806432, 1.84047778], [63.158315, 24.790742, 63.104831]),
}


@pytest.mark.parametrize("age", TYPE_TWO)
def test_type_two_takes_matrices_as_lmertest_does(age):
    data = lme4py.load_dataset("Orthodont")
    data = data[np.arange(len(data)) % 7 != 3]
    table = lme4py.lmer(f"distance ~ {age} * Sex + (1 | Subject)", data).anova(2)
    # lmerTest differentiates numerically, and its estimates are those of an optimiser.
    np.testing.assert_allclose(table["F"], TYPE_TWO[age][0], rtol=1e-6)
    np.testing.assert_allclose(table["den_df"], TYPE_TWO[age][1], rtol=1e-6)


def test_f_tests_of_generalised_models_point_to_other_tests():
    result = lme4py.glmer("use ~ age + (1 | district)", lme4py.load_dataset("Contraception"))
    with pytest.raises(OptionError, match=r"drop1\(\).*wald_test\(\)"):
        result.anova(ddf="satterthwaite")


TYPES: dict[str, Any] = json.loads((REFERENCE / "anova_types.json").read_text(encoding="utf-8"))


def values(table: dict[str, Any]) -> np.ndarray[Any, Any]:
    return np.array(table["values"], dtype=float)


@pytest.mark.parametrize("number", range(len(TYPES["linear"])))
def test_each_type_is_that_of_the_r_package_it_is_named_after(number):
    expected = TYPES["linear"][number]
    data = lme4py.load_dataset(expected["data"])
    data = data[np.arange(len(data)) % expected["every"] != expected["dropped"]]
    result = lme4py.lmer(expected["formula"], data)
    # R's optima are good to 1e-7, and lmerTest's derivatives to 1e-6.
    close = {"rtol": 2e-6, "atol": 1e-9}
    for kind, table in expected["lmerTest"].items():
        np.testing.assert_allclose(result.anova(kind).iloc[:, :5], values(table)[:, :5], **close)
    own = result.anova("sequential")[["num_df", "sum_sq", "mean_sq", "F"]]
    np.testing.assert_allclose(own, values(expected["lme4"]), **close)
    for kind, table in expected["car"].items():
        ours = result.anova(f"car-{kind}", "normal")
        np.testing.assert_allclose(ours["F"] * ours["num_df"], values(table)[:, 0], **close)
        assert len(ours) == len(table["rows"])
    kenward = result.anova("car-2", "kenward-roger")[["F", "num_df", "den_df", "p_value"]]
    np.testing.assert_allclose(kenward, values(expected["car_kenward_roger"]["2"]), rtol=1e-5)


@pytest.mark.parametrize("number", range(len(TYPES["generalised"])))
def test_types_of_generalised_models_by_name(number):
    expected = TYPES["generalised"][number]
    result = lme4py.glmer(expected["formula"], lme4py.load_dataset(expected["data"]), family=expected["family"])
    for kind, table in expected["car"].items():
        # lme4 takes differences of the deviance for its covariance: three to four digits.
        np.testing.assert_allclose(result.anova(f"car-{kind}")["chi2"], values(table)[:, 0], rtol=2e-3)
    # lme4's own table, by the whole covariance: (R beta)^2 by term, with R'R its inverse.
    R = np.linalg.cholesky(np.linalg.inv(result.cov_params())).T
    assign = np.array(result.fit.design.assign)
    squares = (R @ result.params.to_numpy()) ** 2
    sums = [squares[assign == term].sum() for term in range(1, assign.max() + 1)]
    # Algebra only.
    np.testing.assert_allclose(result.anova("sequential")["chi2"], sums, rtol=1e-9)


@pytest.mark.parametrize("kind", [1, 2, 3, "sequential", "car-2", "car-3"])
def test_one_likelihood_has_one_test_of_each_type(kind):
    """A linear model by maximum likelihood, and the same model as a generalised one with the identity link."""
    data = lme4py.load_dataset("Orthodont")
    data = data[np.arange(len(data)) % 7 != 3]
    formula = "distance ~ age * Sex + (1 | Subject)"
    linear = lme4py.lmer(formula, data, reml=False).anova(kind, "normal")
    general = lme4py.glmer(formula, data, family="gaussian").anova(kind)
    assert list(linear.index) == list(general.index)
    # The covariance of a generalised fit is that of all its parameters, which in unbalanced data moves the tests by
    # 2e-3; types differ by factors.
    np.testing.assert_allclose(general["chi2"], linear["F"] * linear["num_df"], rtol=5e-3)


def test_types_of_ordinal_models_are_adjusted_for_the_thresholds():
    """The thresholds hold the intercept: moving a covariate does not change the test of a factor before it."""
    wine = lme4py.load_dataset("wine")
    wine = wine.assign(x=np.arange(len(wine)) % 7, x_moved=np.arange(len(wine)) % 7 + 100.0)
    here, there = (lme4py.clmm(f"rating ~ temp * {x} + contact + (1 | judge)", wine) for x in ("x", "x_moved"))
    for kind in (1, "sequential"):
        # Two fits of one model: the optimiser's tolerance.
        assert here.anova(kind)["chi2"].iloc[0] == pytest.approx(there.anova(kind)["chi2"].iloc[0], rel=1e-5)
    plain = lme4py.clmm("rating ~ temp + contact + (1 | judge)", wine)
    # Orthogonal and balanced: all types test the coefficient itself.
    for kind in (1, 2, 3):
        assert plain.anova(kind).loc["temp", "chi2"] == pytest.approx(plain.tvalues.iloc[0] ** 2, rel=1e-9)
