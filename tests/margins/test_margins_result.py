"""Results of margins: tables, tests, adjusted inference, other ways to a covariance, plots."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest
from margins_models import binary_fit, cbpp_fit, example, example_fit
from scipy import special, stats

import lme4py
from lme4py import (
    Lme4Error,
    Margins,
    OptionError,
    adjust,
    all_pairwise,
    clmm,
    glmer,
    lmer,
    load_dataset,
    pairwise,
    reference,
)
from lme4py.margins.results.multiplicity import (
    adjusted,
    at_each,
    max_t_critical,
    max_t_tail,
    range_critical,
    range_tail,
)

matplotlib.use("Agg")

COLUMNS = [
    "estimate",
    "std_error",
    "ci_lower",
    "ci_upper",
    "conf_level",
    "n_obs",
    "method",
    "term",
    "kind",
    "label",
    "statistic",
    "p_value",
]


@pytest.fixture(scope="module")
def schools():
    return Margins.linear_scale(example_fit()).contrasts(all_pairwise("school"))


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


def test_columns_of_the_table():
    frame = Margins.linear_scale(example_fit()).predict(atexog={"age": [20, 30], "female": [0, 1]}).to_frame()
    assert list(frame.columns) == [*COLUMNS, "age", "female"]
    assert frame["label"].tolist()[0] == "age = 20, female = 0"
    assert set(frame["method"]) == {"delta"}
    assert set(frame["n_obs"]) == {400}


def test_summary_html_markdown_and_latex(schools):
    text = schools.summary()
    assert "school: B - A" in text
    assert "95% lower" in text
    assert str(schools) == text
    assert "<table" in schools._repr_html_()
    assert "\\begin{tabular}" in schools.to_latex()
    assert "|" in schools.to_markdown()
    assert repr(schools) == text
    assert "multivariate" in adjust(schools, "mvt").summary()


def test_nulls_on_the_scale_that_is_shown():
    ratio = Margins.logit_scale(cbpp_fit()).contrasts(pairwise("period", ["2", "1"]))
    z = (ratio.value[0] - np.log(0.5)) / ratio.se[0]
    test = ratio.test(value=0.5)
    np.testing.assert_allclose(test["statistic"], z, rtol=1e-12)
    np.testing.assert_allclose(test["p_value"], 2 * stats.norm.sf(abs(z)), rtol=1e-12)
    assert ratio.test()["null"].tolist() == [1.0]
    one_sided = ratio.test(value=0.5, alternative="less")
    np.testing.assert_allclose(one_sided["p_value"], stats.norm.cdf(z), rtol=1e-12)
    with pytest.raises(OptionError, match="positive"):
        ratio.test(value=-1.0)


def test_equivalence(schools):
    table = schools.test(equivalence=(-2.0, 2.0))
    low = stats.t.sf((schools.value + 2.0) / schools.se, schools.df)
    high = stats.t.cdf((schools.value - 2.0) / schools.se, schools.df)
    np.testing.assert_allclose(table["p_value"], np.maximum(low, high), rtol=1e-10)
    with pytest.raises(OptionError, match="larger upper"):
        schools.test(equivalence=(2.0, -2.0))


def test_degrees_of_freedom_and_joint_f_test():
    fit = example_fit()
    for ddf in ("satterthwaite", "kenward-roger"):
        result = Margins.linear_scale(fit, ddf=ddf).contrasts(reference("school"))
        table = fit.coef_table(ddf=ddf).loc[[f"C(school)[T.{s}]" for s in "BCD"]]
        np.testing.assert_allclose(result.df, table["df"], rtol=1e-10)
        np.testing.assert_allclose(result.p_values, table["p_value"], rtol=1e-9)
        joint = Margins.linear_scale(fit, ddf=ddf).contrasts(all_pairwise("school")).joint_test()
        expected = fit.contest([f"C(school)[T.{s}]" for s in "BCD"], ddf=ddf)
        np.testing.assert_allclose(joint["F"], expected["F"].iloc[0], rtol=1e-9)
        np.testing.assert_allclose(joint["df_denom"], expected["den_df"].iloc[0], rtol=1e-6)
        assert joint["df"] == 3
    # The hypothesis is the same in any order, and so are F and the degrees of freedom of Kenward and Roger.
    turned = Margins.linear_scale(fit, ddf=ddf).contrasts(all_pairwise("school", ["D", "B", "A", "C"])).joint_test()
    np.testing.assert_allclose(list(turned.values()), list(joint.values()), rtol=1e-9)


def test_satterthwaite_joint_test_has_the_first_rows():
    fit = example_fit()
    result = Margins.linear_scale(fit, ddf="satterthwaite").contrasts(all_pairwise("school", ["D", "B", "A", "C"]))
    joint = result.joint_test()
    expected = fit.contest(result.jacobian[:3], ddf="satterthwaite")
    np.testing.assert_allclose([joint["F"], joint["df_denom"]], expected[["F", "den_df"]].iloc[0], rtol=1e-9)


def test_tails_are_exact():
    session = Margins.linear_scale(example_fit(), ddf="normal")
    result = session.dydx("age")
    np.testing.assert_allclose(result.p_values, 2 * stats.norm.sf(result.statistic), rtol=1e-12)
    assert result.adjust("mvt").p_values[0] == result.p_values[0]
    # A statistic of 30 with normal tails: 1e-197 is not 0.
    np.testing.assert_allclose(max_t_tail(30.0, np.eye(1), np.inf), 2 * stats.norm.sf(30.0), rtol=1e-12)


@pytest.mark.parametrize(("q", "k", "df"), [(3.5, 3, 20.0), (10.6, 4, 24.0), (2.0, 10, 5.0), (3.0, 3, 2.3)])
def test_studentised_range(q, k, df):
    # scipy's own integral is good to about nine digits.
    np.testing.assert_allclose(range_tail(q, k, df), stats.studentized_range.sf(q, k, df), rtol=2e-9, atol=1e-15)


@pytest.mark.parametrize(("low", "high", "rtol"), [(5.0, 1e12, 1e-9), (2.1, 40.0, 1e-7), (1.0, 500.0, 1e-5)])
def test_critical_values_at_many_degrees_of_freedom(low, high, rtol):
    """Interpolated in 1 / df; a few are solved for one by one."""
    df = 1.0 / np.linspace(1.0 / low, 1.0 / high, 23)
    exact = [range_critical(0.05, 6, value) for value in df.tolist()]
    found = at_each(lambda value: range_critical(0.05, 6, value), np.append(df, np.nan))
    np.testing.assert_allclose(found[:-1], exact, rtol=rtol)
    assert np.isnan(found[-1])
    assert at_each(lambda value: value, np.array([3.0, 3.0 + 1e-14, 7.0])).tolist() == [3.0, 3.0, 7.0]


def test_range_of_two_is_a_t_statistic():
    for q, df in ((3.0, 7.0), (30.0, 7.0), (300.0, 2.5), (40.0, np.inf)):
        expected = 2 * (stats.norm.sf(q / np.sqrt(2)) if np.isinf(df) else stats.t.sf(q / np.sqrt(2), df))
        # The integrals hold their digits far in the tail.
        np.testing.assert_allclose(range_tail(q, 2, df), expected, rtol=1e-8)


def test_largest_of_correlated_statistics():
    pairs = [(i, j) for i in range(4) for j in range(i)]
    L = np.zeros((6, 4))
    for row, (i, j) in enumerate(pairs):
        L[row, i], L[row, j] = 1.0, -1.0
    correlation = L @ L.T / 2
    for t, df in ((1.3, 24.0), (3.0, 24.0), (7.5, 24.0), (12.0, np.inf)):
        # All pairs of independent means: the studentised range. The error of the points is about 1e-3.
        np.testing.assert_allclose(max_t_tail(t, correlation, df), range_tail(t * np.sqrt(2), 4, df), rtol=3e-3)
    exact = range_critical(0.05, 4, 24.0) / np.sqrt(2)
    np.testing.assert_allclose(max_t_critical(0.95, correlation, 24.0), exact, rtol=1e-3)
    # Two independent normal statistics: 1 - (1 - p)^2.
    p = 2 * stats.norm.sf(2.0)
    np.testing.assert_allclose(max_t_tail(2.0, np.eye(2), np.inf), 1 - (1 - p) ** 2, rtol=1e-3)
    # Copies of one statistic count once.
    np.testing.assert_allclose(max_t_tail(2.0, np.ones((3, 3)), 10.0), 2 * stats.t.sf(2.0, 10), rtol=1e-6)


def test_dunnett_against_known_values():
    # Dunnett (1964), two-sided 5 % points for 3 treatments and a control of equal size: 2.51 (df 24), 2.35 (infinite).
    correlation = 0.5 * (np.eye(3) + 1.0)
    assert round(max_t_critical(0.95, correlation, 24.0), 2) == 2.51
    assert round(max_t_critical(0.95, correlation, np.inf), 2) == 2.35


def test_adjustments_by_p_values():
    p = np.array([0.01, 0.04, 0.03, 0.2])
    np.testing.assert_allclose(adjusted(p, "holm"), [0.04, 0.09, 0.09, 0.2])
    np.testing.assert_allclose(adjusted(p, "hochberg"), [0.04, 0.08, 0.08, 0.2])
    np.testing.assert_allclose(adjusted(p, "fdr"), [0.04, 0.16 / 3, 0.16 / 3, 0.2])
    np.testing.assert_allclose(adjusted(p, "bonferroni"), [0.04, 0.16, 0.12, 0.8])
    np.testing.assert_allclose(adjusted(p, "sidak"), 1 - (1 - p) ** 4)
    np.testing.assert_allclose(adjusted(np.array([1e-200]), "sidak"), [1e-200])


@pytest.mark.parametrize("method", ["bonferroni", "holm", "fdr", "sidak", "tukey", "dunnett", "mvt", "BH"])
def test_adjusted_intervals_are_wider(schools, method):
    wider = adjust(schools, method)
    low, high = schools.limits(0.95)
    lower, upper = wider.limits(0.95)
    assert (lower < low).all()
    assert (upper > high).all()
    assert (wider.p_values >= schools.p_values - 1e-12).all()
    assert wider.all_notes()[-1].startswith("p-values")


def test_simultaneous_intervals(schools):
    plain, both = schools.conf_int(), schools.conf_int(simultaneous=True)
    factor = (both["upper"] - both["lower"]) / (plain["upper"] - plain["lower"])
    expected = [max_t_critical(0.95, schools.correlation, df) / stats.t.isf(0.025, df) for df in schools.df]
    np.testing.assert_allclose(factor, expected, rtol=1e-9)
    with pytest.raises(OptionError, match="level"):
        schools.conf_int(level=1.2)
    with pytest.raises(OptionError, match="no adjustment"):
        adjust(schools, "bonferoni")


def test_simulation_agrees_with_gradients():
    for session in (Margins.linear_scale, Margins.logit_scale):
        # At means there are a few rows only; the averages over the random effects are the same functions.
        exact = session(binary_fit(), random="integrate", at="mean").contrasts(pairwise("t", ["b", "a"]))
        drawn = session(binary_fit(), random="integrate", at="mean", method="simulation", n_sim=400, rng_seed=2)
        result = drawn.contrasts(pairwise("t", ["b", "a"]))
        np.testing.assert_allclose(result.estimate, exact.estimate)
        # 400 draws: a standard deviation is known to about 4 %, the curvature adds some.
        np.testing.assert_allclose(result.se, exact.se, rtol=0.15)


@pytest.mark.parametrize("boot", ["parametric", "clusters"])
def test_bootstrap_refits_the_same_model(boot):
    session = Margins.linear_scale(example_fit(), method="bootstrap", boot=boot, n_boot=200, rng_seed=4)
    result, exact = session.dydx("age"), Margins.linear_scale(example_fit()).dydx("age")
    assert result.draws is not None
    assert result.draws.shape == (200, 1)
    # 200 refits: a standard deviation is known to about 5 %.
    np.testing.assert_allclose(result.std_error, exact.std_error, rtol=0.25)
    assert session.dydx("age").std_error == result.std_error


def test_bootstrap_of_averages_over_random_effects():
    fit = glmer("cbind(incidence, size - incidence) ~ period + (1 | herd)", load_dataset("cbpp"))
    session = Margins.linear_scale(fit, random="integrate", method="bootstrap", n_boot=30, rng_seed=1)
    result = session.predict(atexog={"period": ["1"]})
    exact = Margins.linear_scale(fit, random="integrate").predict(atexog={"period": ["1"]})
    # 30 refits: a standard deviation is known to about 13 %.
    np.testing.assert_allclose(result.std_error, exact.std_error, rtol=0.5)


def test_bootstrap_of_ordered_categories():
    fit = clmm("rating ~ temp + (1 | judge)", load_dataset("wine"))
    for boot in ("parametric", "clusters"):
        session = Margins.linear_scale(fit, random="integrate", method="bootstrap", boot=boot, n_boot=20, rng_seed=1)
        result, exact = session.dydx("temp"), Margins.linear_scale(fit, random="integrate").dydx("temp")
        np.testing.assert_allclose(result.estimate, exact.estimate)
        # 20 refits: a standard deviation is known to about 16 %.
        np.testing.assert_allclose(result.std_error, exact.std_error, rtol=0.6)


def test_robust_covariances_pass_through():
    fit = example_fit()
    from lme4py.inference.uncertainty.robust import robust_method

    robust = robust_method(fit.fit, "CR2", None)
    named = Margins.linear_scale(fit, vcov="CR2", ddf="satterthwaite").dydx("age")
    place = list(fit.params.index).index("age")
    np.testing.assert_allclose(named.std_error, np.sqrt(robust.vcov[place, place]), rtol=1e-12)
    np.testing.assert_allclose(named.df, robust.t_df(np.eye(len(fit.params))[[place]]), rtol=1e-10)
    by_matrix = Margins.linear_scale(fit, vcov=robust.vcov).dydx("age")
    np.testing.assert_allclose(by_matrix.std_error, named.std_error, rtol=1e-12)
    with pytest.raises(OptionError, match="does not belong"):
        Margins.linear_scale(fit, vcov=robust.vcov, ddf="kenward-roger")


# Plots ------------------------------------------------------------------------------------------------------


def test_line_with_a_band_by_a_second_variable():
    fit = example_fit("score ~ age * treated + female + C(school) + (1 | student)")
    result = Margins.linear_scale(fit).predict(atexog={"treated": [0, 1], "age": list(range(20, 76, 5))})
    axes = result.plot()
    assert axes.get_xlabel() == "age"
    assert len(axes.lines) == 2
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["treated = 0", "treated = 1"]
    low, high = result.limits(0.95)
    band = axes.collections[0].get_paths()[0].vertices[:, 1]
    np.testing.assert_allclose([band.min(), band.max()], [low[:12].min(), high[:12].max()])


def test_forest_plot_with_a_reference_line(schools):
    axes = schools.plot(title="Schools")
    assert [label.get_text() for label in axes.get_yticklabels()] == list(schools.labels)
    assert axes.lines[0].get_xdata()[0] == 0.0
    assert axes.get_title(loc="left") == "Schools"
    ratio = Margins.logit_scale(cbpp_fit()).contrasts(reference("period")).plot()
    assert ratio.lines[0].get_xdata()[0] == 1.0
    assert ratio.get_xscale() == "log"


def test_factors_make_no_line():
    result = Margins.logit_scale(cbpp_fit()).predict(atexog={"period": [1, 2, 3, 4]})
    assert len(result.plot().get_yticklabels()) == 4
    line = result.plot(kind="line", x="period")
    assert line.get_xlabel() == "period"


@pytest.mark.parametrize(
    ("options", "message"),
    [({"x": "agee"}, "no scenario variable"), ({"kind": "bar"}, "no kind of plot"), ({"kind": "line"}, "numeric")],
)
def test_faults_of_plots(schools, options, message):
    with pytest.raises(Lme4Error, match=message):
        schools.plot(**options)


def test_variables_that_are_called_like_columns():
    data = example().rename(columns={"treated": "term"})
    result = Margins.linear_scale(lmer("score ~ age + term + (1 | student)", data)).predict(atexog={"term": [0, 1]})
    assert result.to_frame()["term_"].tolist() == [0, 1]


def test_over_several_variables():
    result = Margins.linear_scale(example_fit()).predict(over=["female", "treated"])
    sizes = example().groupby(["female", "treated"]).size().to_numpy()
    assert result.n_obs.tolist() == sizes.tolist()
    labels = np.where(example()["age"] > 50, "old", "young")
    by_array = Margins.linear_scale(example_fit()).predict(over=labels)
    assert by_array.scenarios["group"] == ["old", "young"]


def test_weighted_averages_say_so(schools):
    fit = example_fit()
    weights = np.arange(fit.n_obs) + 1.0
    assert "Averaged over the rows" in Margins.linear_scale(fit).predict().summary()
    assert "Weighted average over the rows" in Margins.linear_scale(fit, weights=weights).predict().summary()


# --- limits of means --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def herds():
    return lme4py.glmer(
        "cbind(incidence, size - incidence) ~ period + (1 | herd)", lme4py.load_dataset("cbpp"), "binomial"
    )


def test_limits_of_one_prediction_are_those_of_its_linear_predictor(herds):
    shown = Margins.response(herds).predict(atexog={"period": ["1", "4"]})
    linear = Margins.link(herds).predict(atexog={"period": ["1", "4"]}).conf_int()
    np.testing.assert_allclose(shown.conf_int(), special.expit(linear), rtol=1e-10)
    frame = lme4py.load_dataset("cbpp").drop_duplicates("period").iloc[[0, 3]]
    own = herds.predict(frame, include_random=False, interval="confidence")
    np.testing.assert_allclose(shown.conf_int(), own[["lower", "upper"]], rtol=1e-10)
    wider = shown.conf_int(simultaneous=True)
    assert (wider["lower"] < shown.conf_int()["lower"]).all()


@pytest.mark.parametrize("link", ["logit", "probit", "cloglog", "cauchit"])
@pytest.mark.parametrize("random", ["zero", "integrate"])
def test_limits_of_probabilities_stay_between_0_and_1(link, random):
    data = lme4py.load_dataset("cbpp")
    fit = lme4py.glmer("cbind(incidence, size - incidence) ~ period + (1 | herd)", data, "binomial", link=link)
    for level in (0.95, 0.999999):
        limits = Margins.response(fit, random=random, level=level).predict(atexog={"period": ["1", "2", "3", "4"]})
        lower, upper = limits.conf_int().to_numpy().T
        assert ((lower > 0.0) & (lower < limits.estimate) & (limits.estimate < upper) & (upper < 1.0)).all()


@pytest.mark.parametrize("link", ["log", "identity", "sqrt"])
def test_limits_of_positive_means_stay_positive(link):
    data = lme4py.load_dataset("Salamanders").assign(count=lambda d: d["count"] + 1)
    fit = lme4py.glmer("count ~ mined + (1 | site)", data, "poisson", link=link)
    shown = Margins.response(fit, level=0.999999).predict(atexog={"mined": ["yes", "no"]})
    lower, upper = shown.conf_int().to_numpy().T
    assert ((lower > 0.0) & (lower < shown.estimate) & (shown.estimate < upper)).all()
    assert "mean count" in shown.title


def test_titles_say_what_is_shown(herds):
    grid = {"period": ["1"]}
    assert Margins.response(herds).predict(atexog=grid).title == "Predictions (probability)"
    assert Margins.link(herds).predict(atexog=grid).title == "Predictions (linear predictor)"
    assert Margins.logit_scale(herds).contrasts(pairwise("period", ["1", "2"])).title == "Contrasts (odds ratios)"
    ordinal = lme4py.clmm("rating ~ temp + (1 | judge)", lme4py.load_dataset("wine"))
    shown = Margins.response(ordinal, level=0.999999).predict(atexog={"temp": ["cold", "warm"]})
    assert shown.title == "Predictions (probability)"
    assert shown.conf_int().gt(0.0).all(axis=None)
    assert shown.conf_int().lt(1.0).all(axis=None)


def test_the_default_family_is_announced(herds):
    formula, data = "use ~ age + (1 | district)", lme4py.load_dataset("Contraception")
    assert "The family was not given: binomial with the logit link." in lme4py.glmer(formula, data).summary()
    assert "was not given" not in lme4py.glmer(formula, data, "binomial").summary()
