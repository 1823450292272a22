"""The plots and the data frames that they draw."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import lme4py
from lme4py.errors import Lme4Error, OptionError
from lme4py.inference.uncertainty.df import Satterthwaite
from lme4py.report.plots import plots


@pytest.fixture(scope="module")
def cbpp():
    return lme4py.glmer(
        "cbind(incidence, size - incidence) ~ period + (1 | herd)", lme4py.load_dataset("cbpp"), family="binomial"
    )


@pytest.fixture(scope="module")
def wine():
    return lme4py.clmm("rating ~ temp + contact + (1 | judge)", lme4py.load_dataset("wine"))


@pytest.fixture(scope="module")
def contraception():
    return lme4py.glmer(
        "use ~ age + I(age^2) + urban * livch + (1 | district)", lme4py.load_dataset("Contraception"), "binomial"
    )


def _schools(n_levels: int, rows: int = 5) -> pd.DataFrame:
    rng = np.random.default_rng(2)
    g = np.repeat(np.arange(n_levels), rows)
    x = rng.normal(size=g.size)
    y = x + rng.normal(size=n_levels)[g] + rng.normal(size=g.size)
    return pd.DataFrame({"y": y, "x": x, "school": [f"a school with quite a long name, number {i:03d}" for i in g]})


def _overlaps(axis) -> int:
    """How many labels of the vertical axis overlap their neighbour."""
    figure = axis.figure
    figure.canvas.draw()
    boxes = [label.get_window_extent() for label in axis.get_yticklabels() if label.get_text()]
    boxes = sorted(boxes, key=lambda box: box.y0)
    return sum(upper.y0 < lower.y1 for lower, upper in pairwise(boxes))


# --- dispatch -----------------------------------------------------------------------------------------------


# Forests are of known variances, and smooths of models with some (tests/fits/test_smooths.py).
@pytest.mark.parametrize("kind", [kind for kind in plots.KINDS if kind not in ("forest", "smooth")])
def test_every_kind_draws_and_has_its_numbers(sleep, agg, kind):
    variable = "Days" if kind == "effect" else None
    axes = np.atleast_1d(np.asarray(sleep.plot(kind, variable), dtype=object)).ravel()
    assert all(axis.get_xlabel() or axis.get_title(loc="left") or axis.get_title() for axis in axes)
    table = sleep.plot_data(kind, variable, figsize=(3, 3))
    # The model has one coefficient beside the intercept, one correlation, and days that are up to nine apart.
    few = {"coef": 1, "correlation": 1, "autocorrelation": 10, "variogram": 9}
    assert len(table) >= few.get(kind, 11)
    assert not table.select_dtypes("number").isna().any().any()


@pytest.mark.parametrize("kind", ["caterpillar", "residuals", "qq", "fitted", "shrinkage"])
def test_kinds_of_a_generalised_model(cbpp, agg, kind):
    assert cbpp.plot(kind) is not None
    assert not cbpp.plot_data(kind).select_dtypes("number").isna().any().any()


def test_kinds_of_an_ordinal_model(wine, agg):
    assert wine.plot().get_title(loc="left") == "Intercept"
    assert "linear predictor" in wine.plot("effect", "temp", type="linear").get_ylabel()
    axis = wine.plot("effect", "temp", at={"contact": "no"})
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["1", "2", "3", "4", "5"]
    with pytest.raises(OptionError, match="every category"):
        wine.plot("effect", "temp", by="contact")
    with pytest.raises(OptionError, match="categories do not have"):
        wine.plot("shrinkage")
    for kind in ("residuals", "qq"):
        pd.testing.assert_frame_equal(wine.plot_data(kind), wine.plot_data(kind, type="quantile"))
        with pytest.raises(OptionError, match="ordinal"):
            wine.plot(kind, type="pearson")
    assert wine.plot("residuals").get_xlabel().endswith("random effects zero")
    assert "normal scale" in wine.plot("qq").get_ylabel()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "caterpilar"}, "Did you mean 'caterpillar'"),
        ({"kind": 3}, "no kind of plot"),
        ({"variable": "X"}, "Did you mean 'x'"),
        ({"kind": "residuals", "variable": "x"}, "takes no `variable`"),
        ({"kind": "qq", "variable": "z"}, "no random effect 'z'"),
        ({"kind": "qq", "variable": "g"}, "several random effects"),
        ({"alpha": 2}, "alpha"),
        ({"alhpa": 0.1}, "Did you mean 'alpha'"),
    ],
)
def test_plot_refuses(slopes, agg, options, message):
    with pytest.raises(OptionError, match=message):
        slopes.plot(**options)


def test_slim_results_say_why_they_draw_no_rows(sleep, agg):
    slim = sleep.slim()
    assert len(slim.plot(variable="all")) == 2
    for kind in ("residuals", "qq", "shrinkage", "fitted"):
        with pytest.raises(Lme4Error, match="slim"):
            slim.plot(kind)


# --- caterpillar --------------------------------------------------------------------------------------------


def test_caterpillar_draws_every_random_effect(slopes, agg):
    axes = slopes.plot(variable="all")
    assert [axis.get_title(loc="left") for axis in axes] == ["Intercept", "x"]
    labels = [label.get_text() for label in axes[0].get_yticklabels()]
    # From the top to the bottom.
    assert labels == slopes.ranef()["Intercept"].sort_values(ascending=False).index.tolist()


def test_caterpillar_draws_the_random_intercept_into_one_axes(slopes, crossed, agg):
    assert slopes.plot().get_title(loc="left") == "Intercept"
    assert slopes.plot_data()["term"].unique().tolist() == ["Intercept"]
    assert crossed.plot_data().equals(crossed.plot_data(variable="Intercept|g"))
    data = lme4py.load_dataset("sleepstudy")
    assert lme4py.lmer("Reaction ~ Days + (0 + Days | Subject)", data).plot().get_title(loc="left") == "Days"
    # A factor that is called so is meant by its name.
    named = lme4py.lmer("Reaction ~ Days + (Days | all)", data.rename(columns={"Subject": "all"}))
    assert len(named.plot_data(variable="all")) == 36


def test_caterpillar_whiskers_are_normal_intervals(slopes, agg):
    axis = slopes.plot(variable="x", sort=False)
    modes, sds = slopes.ranef(conditional_se=True)
    segments = axis.containers[0].lines[2][0].get_segments()
    ends = np.array([segment[:, 0] for segment in segments])
    # Levels run from the top downwards.
    half = 1.959963985 * sds["x"].to_numpy()[::-1]
    np.testing.assert_allclose(ends[:, 1] - ends[:, 0], 2 * half, rtol=1e-6)  # the quantile has ten digits
    names = {tick.get_text(): place for tick, place in zip(axis.get_yticklabels(), axis.get_yticks(), strict=True)}
    drawn = dict(zip(axis.lines[0].get_ydata().tolist(), axis.lines[0].get_xdata().tolist(), strict=True))
    for level, mode in modes["x"].items():
        assert drawn[names[level]] == mode


def test_caterpillar_into_given_axes(crossed, agg):
    _, axis = agg.subplots()
    assert crossed.plot(variable="Intercept|h", ax=axis) is axis
    with pytest.raises(OptionError, match="choose one with `variable`"):
        crossed.plot(variable="all", ax=axis)


def test_caterpillar_of_a_factor_and_of_a_second_term(crossed, agg):
    assert crossed.plot_data(variable="h")["group"].unique().tolist() == ["h"]
    table = crossed.plot_data(variable="Intercept.1|g", sort=False)
    np.testing.assert_array_equal(table["estimate"], crossed.ranef()["g"]["Intercept.1"])


@pytest.mark.parametrize("n_levels", [3, 60, 300])
def test_labels_can_be_read_whatever_the_number_of_levels(agg, n_levels):
    result = lme4py.lmer("y ~ x + (1 | school)", _schools(n_levels))
    for kind in ("caterpillar", "shrinkage"):
        axis = result.plot(kind)
        assert _overlaps(axis) == 0
        assert axis.figure.get_size_inches()[1] <= 9
        shown = [label.get_text() for label in axis.get_yticklabels()]
        assert len(shown) >= min(n_levels, 30)
        assert max(map(len, shown)) <= 24
        assert (f"{n_levels} levels" in axis.get_ylabel()) == (len(shown) < n_levels)
        agg.close("all")


# --- rows ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("na_action", ["omit", "exclude"])
def test_residuals_are_paired_with_their_fitted_values(agg, na_action):
    data = lme4py.load_dataset("sleepstudy").sample(frac=1.0, random_state=1)
    data.loc[data.index[[0, 7, 100]], "Days"] = np.nan
    result = lme4py.lmer("Reaction ~ Days + (Days | Subject)", data, na_action=na_action)
    table = result.plot_data("residuals")
    assert table.index.tolist() == data.index[data["Days"].notna()].tolist()
    rebuilt = table["fitted"] + result.sigma * table["residual"]
    np.testing.assert_allclose(rebuilt, data.loc[table.index, "Reaction"], rtol=1e-10)  # rounding only
    axis = result.plot("residuals")
    np.testing.assert_array_equal(axis.lines[0].get_xydata(), table)


def test_residuals_of_another_type(cbpp, agg):
    axis = cbpp.plot("residuals", type="deviance", smooth=False)
    np.testing.assert_array_equal(axis.lines[0].get_ydata(), cbpp.residuals("deviance"))
    assert axis.get_ylabel() == "deviance residual"


def test_quantile_residuals_of_every_family(cbpp, wine, agg):
    for result in (cbpp, wine):
        table = result.plot_data("qq")
        expected = np.sort(result.quantile_residuals(seed=1, include_random=True).normal)
        # The same numbers, only sorted.
        np.testing.assert_allclose(table["sample"], expected, rtol=1e-12)
        assert "normal scale" in result.plot("qq").get_ylabel()
    means = cbpp.predict(include_random=False)
    np.testing.assert_array_equal(cbpp.plot_data("residuals", type="quantile")["fitted"], means)
    assert cbpp.plot("residuals", type="quantile").get_xlabel().endswith("random effects zero")
    assert wine.plot("residuals", type="quantile").get_xlabel().startswith("linear predictor")


@pytest.mark.parametrize("na_action", ["omit", "exclude"])
def test_quantile_residuals_and_left_out_rows(sleepstudy, na_action):
    data = sleepstudy.copy()
    data.loc[[3, 17], "Days"] = np.nan
    result = lme4py.lmer("Reaction ~ Days + (1 | Subject)", data, na_action=na_action)
    table = result.plot_data("residuals", type="quantile")
    assert len(table) == len(data) - 2
    assert table.notna().all(axis=None)
    np.testing.assert_array_equal(table["residual"], result.quantile_residuals(seed=1).normal.dropna())


def test_quantile_plots(slopes, agg):
    axis = slopes.plot("qq")
    np.testing.assert_array_equal(axis.lines[0].get_ydata(), np.sort(slopes.residuals("scaled")))
    axis = slopes.plot("qq", variable="x")
    np.testing.assert_array_equal(axis.lines[0].get_ydata(), np.sort(slopes.ranef()["x"]))
    table = slopes.plot_data("qq", variable="x")
    assert table.set_index("label")["sample"].to_dict() == slopes.ranef()["x"].to_dict()


def test_the_band_of_a_quantile_plot_holds_its_level():
    rng = np.random.default_rng(5)
    result = lme4py.lmer("y ~ x + (1 | school)", _schools(40, 10))
    band = result.plot_data("qq", variable="Intercept")
    scale = (band["line"].iloc[-1] - band["line"].iloc[0]) / (2 * band["theoretical"].iloc[-1])
    standard = (band[["lower", "upper"]] - band["line"].mean()) / scale
    inside = []
    for _ in range(500):
        # Normal samples in place of the modes; the quartiles that the line goes through are estimated too.
        sample = np.sort(rng.normal(size=len(band)))
        low, high = np.quantile(sample, [0.25, 0.75])
        slope, centre = (high - low) / (2 * 0.6744897501960817), (low + high) / 2
        lower, upper = (standard[side] * slope + centre for side in ("lower", "upper"))
        inside.append(np.mean((sample >= lower) & (sample <= upper)))
    # Pointwise 95 %; estimating the line moves it by less than three points at n = 40.
    assert 0.93 < np.mean(inside) < 0.99


# --- shrinkage ----------------------------------------------------------------------------------------------


def test_no_pooling_is_least_squares_in_each_group(sleep, sleepstudy):
    table = sleep.plot_data("shrinkage").set_index(["term", "level"])
    for level, rows in sleepstudy.groupby("Subject", observed=True):
        slope, intercept = np.polyfit(rows["Days"], rows["Reaction"], 1)
        # Two routes to the same least squares.
        assert table.loc[("Intercept", level), "no_pooling"] == pytest.approx(intercept, rel=1e-9)
        assert table.loc[("Days", level), "no_pooling"] == pytest.approx(slope, rel=1e-8, abs=1e-8)
        assert table.loc[("Days", level), "partial_pooling"] == pytest.approx(sleep.coef().loc[level, "Days"])


def test_no_pooling_with_weights_and_a_level_of_one_row():
    data = lme4py.load_dataset("sleepstudy").iloc[9:].reset_index(drop=True)
    weights = np.linspace(0.5, 2.0, len(data))
    table = lme4py.lmer("Reaction ~ Days + (Days | Subject)", data, weights=weights).plot_data("shrinkage")
    table = table.set_index(["term", "level"])
    assert np.isnan(table.loc[("Days", "308"), "no_pooling"])
    rows = data["Subject"] == "309"
    slope = np.polyfit(data["Days"][rows], data["Reaction"][rows], 1, w=np.sqrt(weights[rows]))[0]
    assert table.loc[("Days", "309"), "no_pooling"] == pytest.approx(slope, rel=1e-8)  # another least squares


def test_partial_pooling_of_a_generalised_model_lies_between(cbpp):
    table = cbpp.plot_data("shrinkage")
    assert table["partial_pooling"].tolist() == pytest.approx(cbpp.coef()["Intercept"].tolist())
    own = (table["no_pooling"] - table["population"]) / (table["partial_pooling"] - table["population"])
    assert (own > 1).all()


def test_shrinkage_is_about_one_factor(crossed, agg):
    with pytest.raises(OptionError, match="about one grouping factor"):
        crossed.plot("shrinkage", ["Intercept|h", "Intercept|g"])
    assert crossed.plot("shrinkage", "h").get_ylabel() == "h"


# --- fitted curves ------------------------------------------------------------------------------------------


def test_fitted_curves_are_predictions(sleep, sleepstudy, agg):
    table = sleep.plot_data("fitted", "Days")
    curve = table[table["part"] == "fitted"]
    new = pd.DataFrame({"Days": curve["Days"], "Subject": curve["level"]})
    np.testing.assert_allclose(curve["value"], sleep.predict(new), rtol=1e-12)  # the same sums in another order
    population = table[table["part"] == "population"]
    np.testing.assert_allclose(population["value"], sleep.predict(new, include_random=False), rtol=1e-12)  # as above
    seen = table[table["part"] == "observed"]
    np.testing.assert_array_equal(seen["value"], sleepstudy["Reaction"])
    assert len(sleep.plot("fitted", levels=["308", "337"])) == 2


def test_fitted_curves_of_nested_factors_and_covariates(agg):
    data = lme4py.load_dataset("Oats")
    result = lme4py.lmer("yield ~ nitro + Variety + (1 | Block / Variety)", data)
    table = result.plot_data("fitted", "nitro")
    curve = table[table["part"] == "fitted"]
    parts = curve["level"].str.split(":", expand=True)
    new = pd.DataFrame({"nitro": curve["nitro"], "Variety": parts[0], "Block": parts[1]})
    np.testing.assert_allclose(curve["value"], result.predict(new), rtol=1e-12)  # the same sums in another order


def test_fitted_panels_are_limited(agg):
    result = lme4py.lmer("y ~ x + (1 | school)", _schools(100))
    axes = result.plot("fitted")
    assert len(axes) == 24
    assert "24 of 100" in axes[0].figure.get_suptitle()
    assert len(result.plot("fitted", max_panels=5)) == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variable": "days"}, "Did you mean 'Days'"),
        ({"group": "subject"}, "Did you mean 'Subject'"),
        ({"levels": ["3080"]}, "no level of the grouping factor. Did you mean '308'"),
    ],
)
def test_fitted_refuses(sleep, agg, options, message):
    with pytest.raises(OptionError, match=message):
        sleep.plot("fitted", **options)


def test_variables_inside_expressions(sleepstudy, agg):
    result = lme4py.lmer("Reaction ~ log(Days + 1) + (1 | Subject)", sleepstudy)
    curve = result.plot_data("effect", "Days")
    assert curve["Days"].iloc[[0, -1]].tolist() == [0.0, 9.0]
    np.testing.assert_allclose(curve["predicted"], result.predict(curve[["Days"]], include_random=False), rtol=1e-12)
    assert len(result.plot("fitted")) == 18


def test_numbers_that_the_model_takes_as_levels(sleepstudy, agg):
    result = lme4py.lmer("Reaction ~ factor(Days) + (1 | Subject)", sleepstudy)
    table = result.plot_data("effect", "Days")
    assert table["Days"].tolist() == list(range(10))
    np.testing.assert_allclose(table["predicted"], result.predict(table[["Days"]], include_random=False), rtol=1e-12)
    assert [label.get_text() for label in result.plot("effect", "Days").get_xticklabels()][:2] == ["0", "1"]
    assert result.plot_data("fitted", "Days").query("part == 'fitted'")["Days"].nunique() == 10


# --- effects ------------------------------------------------------------------------------------------------


def test_effect_of_a_numeric_variable(sleep):
    table = sleep.plot_data("effect", "Days")
    X = np.column_stack([np.ones(len(table)), table["Days"]])
    np.testing.assert_allclose(table["predicted"], X @ sleep.params, rtol=1e-12)  # the same sums
    se = np.sqrt(np.einsum("np,pq,nq->n", X, sleep.cov_params().to_numpy(), X))
    half = stats.t.ppf(0.975, Satterthwaite(sleep.fit).t_df(X)) * se
    np.testing.assert_allclose(table["upper"] - table["predicted"], half, rtol=1e-10)  # the same formula


def test_effect_is_an_average_over_the_other_factors(contraception):
    data = lme4py.load_dataset("Contraception")
    table = contraception.plot_data("effect", "urban", type="linear").set_index("urban")
    for level in ("N", "Y"):
        new = data.assign(urban=level, age=data["age"].mean())
        eta = contraception.predict(new, include_random=False, type="linear").mean()
        assert table.loc[level, "predicted"] == pytest.approx(eta, rel=1e-9)  # a mean over two thousand rows
    means = contraception.plot_data("effect", "urban").set_index("urban")
    np.testing.assert_allclose(means["predicted"], 1 / (1 + np.exp(-table["predicted"])), rtol=1e-12)  # rounding only


def test_effect_by_another_variable(contraception, agg):
    at = {"livch": "2"}
    table = contraception.plot_data("effect", "age", by="urban", at=at, n_points=5)
    assert len(table) == 10
    new = table[["age", "urban"]].assign(livch="2")
    np.testing.assert_allclose(table["predicted"], contraception.predict(new, include_random=False), rtol=1e-10)  # sums
    axis = contraception.plot("effect", "livch", by="urban")
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["N", "Y"]
    three = contraception.plot_data("effect", "livch", by="age")
    np.testing.assert_allclose(
        three["age"].unique(), np.quantile(lme4py.load_dataset("Contraception")["age"], [0.1, 0.5, 0.9])
    )


def test_effect_holds_the_offset_at_its_mean():
    data = pd.DataFrame(
        {"x": np.tile([0.0, 1.0, 2.0], 20), "g": np.repeat(np.arange(10), 6), "t": np.linspace(1, 9, 60)}
    )
    data["y"] = np.random.default_rng(1).poisson(data["t"] * np.exp(0.3 * data["x"]))
    result = lme4py.glmer("y ~ x + offset(log(t)) + (1 | g)", data, family="poisson")
    table = result.plot_data("effect", "x")
    expected = np.exp(result.params["Intercept"] + table["x"] * result.params["x"] + np.log(data["t"]).mean())
    np.testing.assert_allclose(table["predicted"], expected, rtol=1e-12)  # rounding only


@pytest.mark.parametrize(
    ("variable", "options", "message"),
    [
        (None, {}, "needs `variable`"),
        ("Age", {}, "Did you mean 'age'"),
        ("age", {"by": "age"}, "two different"),
        ("age", {"at": {"livch": "9"}}, "no level of it; the levels are '0'"),
        ("urban", {"at": {"age": "old"}}, "is numeric"),
        ("urban", {"at": {"district": 1}}, "no variable of the fixed effects"),
        ("age", {"type": "prob"}, "'response' or 'linear'"),
    ],
)
def test_effect_refuses(contraception, variable, options, message):
    with pytest.raises(OptionError, match=message):
        contraception.plot_data("effect", variable, **options)


def test_effect_on_ordered_categories(wine):
    table = wine.plot_data("effect", "temp", at={"contact": "yes"})
    new = pd.DataFrame({"temp": ["cold", "warm"], "contact": "yes"})
    wide = table.pivot(index="temp", columns="category", values="predicted")
    np.testing.assert_allclose(wide, wine.predict(new, include_random=False, type="prob"), rtol=1e-12)  # the same sums
    assert ((table["lower"] < table["predicted"]) & (table["predicted"] < table["upper"])).all()


def test_limits_of_categories_are_those_of_the_delta_method(wine):
    table = wine.plot_data("effect", "contact", at={"temp": "warm"})
    fit = wine.fit
    start = np.concatenate([fit.beta, fit.thresholds])

    def probabilities(parameters):
        beta, cuts = parameters[:2], parameters[2:]
        eta = np.array([[1.0, 0.0], [1.0, 1.0]]) @ beta
        cumulative = 1 / (1 + np.exp(eta[:, None] - cuts))
        return np.diff(cumulative, axis=1, prepend=0.0, append=1.0)

    steps = 1e-5 * np.eye(start.size)
    slopes = np.array([(probabilities(start + h) - probabilities(start - h)) / 2e-5 for h in steps])
    variance = np.einsum("ank,ab,bnk->nk", slopes, fit.parameter_vcov[1:, 1:], slopes)
    p = probabilities(start)
    half = 1.959963985 * np.sqrt(variance) / (p * (1 - p))
    upper = 1 / (1 + np.exp(-np.log(p / (1 - p)) - half))
    found = table.pivot(index="contact", columns="category", values="upper")
    np.testing.assert_allclose(found, upper, rtol=1e-7)  # central differences with a step of 1e-5


# --- profiles -----------------------------------------------------------------------------------------------


def test_profile_plot_of_one_parameter(sleep, agg):
    profile = sleep.profile(["Days", "sd(Days | Subject)"])
    axis = sleep.plot("profile", "sd(Days | Subject)", profile=profile)
    assert axis.get_title(loc="left") == "sd(Days | Subject)"
    table = sleep.plot_data("profile", "sd(Days | Subject)", profile=profile)
    assert table["parameter"].unique().tolist() == ["sd(Days | Subject)"]
    assert len(sleep.plot("profile", ["Days", "sd(Days | Subject)"], profile=profile)) == 2
    low, high = profile.conf_int().loc["sd(Days | Subject)"]
    span = axis.patches[0].get_extents().transformed(axis.transData.inverted())
    np.testing.assert_allclose([span.x0, span.x1], [low, high], rtol=1e-6)  # through pixels and back


def test_drawing_without_matplotlib_says_how_to_get_it(slopes, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.pyplot", None)
    with pytest.raises(OptionError, match="lme4py\\[plot\\]"):
        slopes.plot()
    assert len(slopes.plot_data()) > 0


def test_coefficients_with_their_limits(sleep):
    table = sleep.plot_data("coef")
    assert table["term"].tolist() == ["Days"]
    np.testing.assert_allclose(table[["lower", "upper"]], sleep.conf_int(parm=["Days"]), rtol=1e-14)
    both = sleep.plot("coef", ["Intercept", "Days"])
    assert [label.get_text() for label in both.get_yticklabels()] == ["Days", "Intercept"]
    with pytest.raises(OptionError, match="Did you mean 'Days'"):
        sleep.plot("coef", "Dayz")
    logit = lme4py.glmer("use ~ age + urban + (1 | district)", lme4py.load_dataset("Contraception"), "binomial")
    shown = logit.plot_data("coef", exponentiate=True).set_index("term")
    np.testing.assert_allclose(shown, logit.odds_ratios().loc[shown.index], rtol=1e-12)
    assert logit.plot("coef", exponentiate=True).get_xscale() == "log"


def test_the_residual_panel_shows_the_quantile_residuals(sleep):
    own = sleep.quantile_residuals(100, seed=2)
    table = sleep.plot_data("residual_panel", n=100, seed=2)
    np.testing.assert_array_equal(table["residual"], own.residuals)
    assert len(sleep.plot("residual_panel", n=50, seed=1)) == 4
    counts = lme4py.glmer("count ~ mined + (1 | site)", lme4py.load_dataset("Salamanders"), "poisson")
    axes = counts.plot("residual_panel", n=50, seed=1)
    assert len(axes) == 5
    assert "zeros" in axes[3].get_title(loc="left")
    with pytest.raises(OptionError, match="no variable"):
        sleep.plot("residual_panel", "Days")


# --- results that draw themselves -----------------------------------------------------------------------------------


def test_influence_draws_its_measures_and_names_the_largest(sleep, agg):
    found = sleep.influence("Subject")
    axis = found.plot()
    heights = axis.lines[0].get_ydata()
    np.testing.assert_array_equal(heights, found.cooks_fixed.to_numpy())
    # The largest is named, and the line of Cook's distances is at 4 / U.
    assert axis.texts[0].get_text() == str(found.cooks_fixed.idxmax())
    assert any(np.allclose(line.get_ydata(), 4.0 / 18.0) for line in axis.lines)
    lines = found.plot("dfbetas_Days").lines
    assert any(np.allclose(line.get_ydata(), -2.0 / 18.0**0.5) for line in lines)
    with pytest.raises(OptionError, match="Did you mean 'leverage'"):
        found.plot("leverages")


def test_a_bootstrap_draws_its_replicates_and_limits(sleep, agg):
    boot = sleep.bootstrap(30, seed=1)
    axes = boot.plot(["Days", "sigma"])
    assert [axis.get_title(loc="left") for axis in axes] == ["Days", "sigma"]
    assert sum(patch.get_height() for patch in axes[0].patches[:30]) == 30
    assert any(np.allclose(line.get_xdata(), boot.estimates["Days"]) for line in axes[0].lines)


def test_a_comparison_draws_every_model(contraception, agg):
    other = lme4py.glmer("use ~ age + (1 | district)", lme4py.load_dataset("Contraception"), "binomial")
    found = lme4py.compare(contraception, other, names=["large", "small"], exponentiate=True)
    axis = found.plot(["age", "urban[T.Y]"])
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["large", "small"]
    large, small = (line.get_xdata() for line in axis.lines if len(line.get_xdata()) and line.get_label()[0] != "_")
    np.testing.assert_allclose(large, np.exp(contraception.params[["age", "urban[T.Y]"]]))
    np.testing.assert_allclose(small, np.exp(other.params[["age"]]))
    with pytest.raises(OptionError, match="no model has the coefficient"):
        found.plot("agee")
    linear = lme4py.lmer("age ~ urban + (1 | district)", lme4py.load_dataset("Contraception"))
    with pytest.raises(OptionError, match="no axis in common"):
        lme4py.compare(contraception, linear, exponentiate=True).plot()


def test_the_residual_panel_has_a_panel_for_each_variable(contraception, agg):
    axes = contraception.plot("residual_panel", seed=1)
    titles = [axis.get_title(loc="left") for axis in axes]
    assert titles[4:] == ["against age", "against urban", "against livch"]


def test_axes_of_predictions_say_what_they_show(contraception, cbpp, wine, sleep, agg):
    assert contraception.plot("effect", "age").get_ylabel() == "P(use = Y)"
    assert cbpp.plot("effect", "period").get_ylabel() == "P(incidence)"
    assert wine.plot("effect", "temp", at={"contact": "no"}).get_ylabel() == "P(rating = category)"
    assert sleep.plot("effect", "Days").get_ylabel() == "Reaction"
    margins = lme4py.Margins.response(cbpp)
    assert margins.predict(atexog={"period": ["1", "2"]}).plot().get_xlabel() == "probability"
    assert margins.dydx("period").plot().get_xlabel() == "slope of the probability"


def test_fitted_curves_of_a_process_go_between_its_places() -> None:
    rng = np.random.default_rng(4)
    t, g = np.tile([0.0, 0.7, 1.9, 3.2], 40), np.repeat(np.arange(20), 8)
    data = pd.DataFrame({"g": g, "t": t, "y": 0.3 * t + rng.normal(size=20)[g] + rng.normal(size=160)})
    fit = lme4py.lmer("y ~ t + ou(t | g)", data)
    table = fit.plot_data("fitted", variable="t")
    own = table[(table["part"] == "fitted") & (table["level"] == "3")]
    # One linear predictor by two ways.
    np.testing.assert_allclose(own["value"], fit.predict(own[["t"]].assign(g=3)), rtol=1e-10)
