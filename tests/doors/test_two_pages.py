"""The calls of the two pages that the package was designed from, and the corrections of their text."""

from __future__ import annotations

import inspect
import warnings

import matplotlib
import numpy as np
import pandas as pd
import pytest
from margins_models import example
from scipy import stats

import lme4py
from lme4py import Margins, adapters, all_pairwise, icc, load_dataset, lrtest, pairwise, reference
from lme4py.errors import Lme4Warning, OptionError

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


# --- the page of functions and results --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pupils():
    rng = np.random.default_rng(8)
    n, schools = 320, 20
    school = np.repeat(np.arange(schools), n // schools)
    x = rng.normal(size=n)
    b, s = rng.normal(size=schools), 0.4 * rng.normal(size=schools)
    eta = 0.3 + 0.5 * x + 0.7 * b[school] + s[school] * x
    frame = pd.DataFrame({"x": x, "school": school, "class": np.arange(n) // 4, "log_t": rng.uniform(-1, 1, n)})
    frame["score"] = eta + rng.normal(size=n)
    frame["tried"] = rng.integers(1, 6, n)
    frame["passed"] = rng.binomial(frame["tried"], 1 / (1 + np.exp(-eta)))
    frame["count"] = rng.poisson(np.exp(eta) * rng.gamma(1.5, 1 / 1.5, n))
    frame["time"] = rng.gamma(2.0, np.exp(eta) / 2.0)
    frame["grade"] = np.digitize(eta + rng.logistic(size=n), [-1.0, 0.5, 2.0])
    return frame


def models(pupils):
    """One call of each function, with the arguments by position where the page gives them so."""
    return {
        "mixed": lme4py.mixed(pupils, "score", ["x"], "school", ["x"], "unstructured", "reml", 1000, 1e-9, 0.05),
        "meglm": lme4py.meglm(
            pupils, "passed", ["x"], "school", "binomial", None, "unstructured", "tried", None, 1, 300, 1e-6, 0.05
        ),
        "melogit": lme4py.melogit(pupils, "passed", ["x"], "school", None, "tried", 7),
        "mepoisson": lme4py.mepoisson(pupils, "count", ["x"], "school", None, "log_t", 1),
        "menbreg": lme4py.menbreg(pupils, "count", ["x"], "school", None, None, 1),
        "megamma": lme4py.megamma(pupils, "time", ["x"], "school"),
        "meologit": lme4py.meologit(pupils, "grade", ["x"], "school", None, "unstructured", None, 1),
        "gaussian": lme4py.meglm(pupils, "score", ["x"], "school"),
    }


@pytest.fixture(scope="module")
def results(pupils):
    return models(pupils)


def test_every_attribute_and_method_of_the_page(results):
    for name, result in results.items():
        assert isinstance(result.params, pd.Series)
        assert isinstance(result.bse, pd.Series)
        assert list(result.conf_int(0.1).columns) == ["lower", "upper"]
        assert isinstance(result.n_params, int)
        modes, errors = result.ranef(conditional_se=True)
        assert modes.shape == errors.shape
        assert result.predict(include_random=False).shape[0] == result.n_obs
        assert result.wald_test(["x"]) == result.wald_test(pd.DataFrame({"x": [1.0]}))
        assert "tabular" in result.to_latex()
        assert isinstance(str(result.summary()), str)
        assert result.plot(kind="caterpillar", variable=None) is not None
        assert result.plot("caterpillar", variable="_cons").get_title(loc="left") == "_cons"
        assert 0.0 < icc(result, "_cons", 0.05, 0, None).estimate < 1.0
        if name != "meologit":
            shares = result.r_squared()
            assert set(shares) >= {"marginal", "conditional"}
    results["mixed"].plot(kind="residuals")
    eta = results["melogit"].predict(None, True, "linear")
    np.testing.assert_allclose(results["melogit"].predict(type="response"), 1 / (1 + np.exp(-eta)), rtol=1e-12)
    assert results["mepoisson"].incidence_rate_ratios().shape == (2, 3)
    for name in ("melogit", "meologit"):
        assert list(results[name].odds_ratios().columns) == ["odds_ratio", "lower", "upper"]


def test_no_property_of_a_result_raises(results, pupils):
    everything = [
        *results.values(),
        lme4py.glmer("passed > 1 ~ x + (1 | school)", pupils, "binomial"),
        lme4py.glmer_nb("count ~ x + (1 | school)", pupils),
        lme4py.clmm("grade ~ x + (1 | school)", pupils),
        lme4py.lmer("score ~ x + (x | school) + (1 | class)", pupils),
    ]
    for result in everything:
        for name, _ in inspect.getmembers(type(result), lambda member: isinstance(member, property)):
            getattr(result, name)


def test_dispersion_as_each_door_speaks(results, pupils):
    by_formula = lme4py.glmer_nb("count ~ x + (1 | school)", pupils)
    stata = results["menbreg"]
    # The same fit twice.
    assert stata.dispersion == pytest.approx(1 / by_formula.dispersion, rel=1e-10)
    # The delta method of 1 / theta.
    assert stata.dispersion_se == pytest.approx(by_formula.dispersion_se / by_formula.dispersion**2, rel=1e-10)
    for name in ("meglm", "melogit", "mepoisson", "meologit"):
        assert results[name].dispersion is None
        assert results[name].dispersion_se is None
    phi = lme4py.glmer("time ~ x + (1 | school)", pupils, "gamma", link="log")
    assert results["megamma"].dispersion == pytest.approx(phi.dispersion, rel=1e-10)
    assert results["gaussian"].dispersion == pytest.approx(results["gaussian"].sigma ** 2, rel=1e-12)
    assert lme4py.glmer("count ~ x + (1 | school)", pupils, "poisson").dispersion == 1.0
    for name in ("melogit", "meologit"):
        assert results[name].thresholds is None or name == "meologit"
        assert results[name].thresholds_se is None or name == "meologit"


@pytest.mark.parametrize(("name", "label"), [("menbreg", "alpha"), ("megamma", "phi")])
def test_the_dispersion_is_in_every_table(results, name, label):
    result = results[name]
    value, error = result.dispersion, result.dispersion_se
    row = result.variance_table().loc[label]
    half = stats.norm.ppf(0.975) * error / value
    # Normal limits on the log scale.
    np.testing.assert_allclose(row, [value, error, value * np.exp(-half), value * np.exp(half)], rtol=1e-9)
    tidy = result.tidy(conf_int=True).set_index("effect").loc["dispersion"]
    assert tidy["term"] == label
    found = tidy[["estimate", "std_error", "conf_low", "conf_high"]].to_numpy(dtype=float)
    np.testing.assert_allclose(found, row, rtol=1e-12)
    np.testing.assert_allclose(result.conf_int(parm="dispersion").to_numpy()[0], row[["lower", "upper"]], rtol=1e-9)
    np.testing.assert_array_equal(result.conf_int(parm=label), result.conf_int(parm="dispersion"))
    assert result.glance()["dispersion"].iloc[0] == value
    assert lme4py.compare(result).to_frame().loc[("random", f"Dispersion ({label})")].iloc[0] == value
    line = next(line for line in result.summary().splitlines() if line.split()[:1] == [label])
    assert float(line.split()[1]) == pytest.approx(value, abs=5e-4)  # four decimals are printed
    assert f"{label} = {value:.4g}" in result.summary()


def test_profile_and_bootstrap_of_alpha_are_those_of_the_shape_turned_round(results, pupils):
    shape = lme4py.glmer_nb("count ~ x + (1 | school)", pupils)
    stata = results["menbreg"]
    turned = 1.0 / shape.conf_int(method="profile", parm="dispersion").to_numpy()[:, ::-1]
    # Limits of the profile are found to about eight digits.
    np.testing.assert_allclose(stata.conf_int(method="profile", parm="dispersion"), turned, rtol=1e-6)
    curve = stata.profile("dispersion").to_frame()
    assert curve["value"].is_monotonic_increasing
    assert curve["zeta"].is_monotonic_increasing
    options = {"method": "boot", "parm": "dispersion", "n_boot": 20, "seed": 3, "type": "percentile"}
    turned = 1.0 / shape.conf_int(**options).to_numpy()[:, ::-1]
    # Quantiles between two replicates are interpolated, on one scale or the other.
    np.testing.assert_allclose(stata.conf_int(**options), turned, rtol=0.1)


def test_text_and_unordered_categories_are_ordered_with_one_warning(pupils):
    words = np.array(["poor", "fair", "good", "fine"])
    text = pupils.assign(grade=words[pupils["grade"]])
    appeared = list(dict.fromkeys(text["grade"]))
    with pytest.warns(Lme4Warning, match="of their first appearance") as caught:
        result = lme4py.meologit(text, "grade", ["x"], "school")
    assert len(caught) == 1
    assert " < ".join(map(repr, appeared)) in str(caught[0].message)
    assert "levels=[" in str(caught[0].message)
    assert caught[0].filename == __file__
    assert list(result.categories) == appeared
    unordered = text.assign(grade=pd.Categorical(text["grade"], categories=words))
    with pytest.warns(Lme4Warning, match="which is unordered: 'poor' < 'fair' < 'good' < 'fine'"):
        result = lme4py.meoprobit(unordered, "grade", ["x"], "school")
    assert list(result.categories) == list(words)
    numbers = lme4py.meologit(pupils, "grade", ["x"], "school")
    # The same codes.
    for quiet in (
        lme4py.meologit(text, "grade", ["x"], "school", levels=words),
        lme4py.meologit(unordered.assign(grade=unordered["grade"].cat.as_ordered()), "grade", ["x"], "school"),
        lme4py.meologit(pupils.assign(grade=pd.Categorical(pupils["grade"])), "grade", ["x"], "school"),
    ):
        assert quiet.log_likelihood == pytest.approx(numbers.log_likelihood, abs=1e-9)


def test_nested_components_by_each_name():
    pastes = load_dataset("Pastes")
    nested = lme4py.mixed(pastes, "strength", None, ["batch", "cask"])
    formula = lme4py.lmer("strength ~ 1 + (1 | batch/cask)", pastes)
    for result in (nested, formula):
        values = [icc(result, name).estimate for name in ("cask", "cask|batch", "cask:batch", "_cons|cask:batch")]
        # R's performance::icc(by_group = TRUE) has shares: 0.783 for casks and 0.154 for batches, whose sum this is.
        assert values == pytest.approx([0.783 + 0.154] * 4, abs=1e-3)
        assert icc(result, "batch").estimate == pytest.approx(0.154, abs=5e-4)
    with pytest.raises(OptionError, match="no level of this model"):
        icc(nested, "tasks")


def test_icc_says_at_which_covariate_values():
    fit = lme4py.lmer("Reaction ~ Days + (Days | Subject)", load_dataset("sleepstudy"))
    assert str(icc(fit)).startswith("ICC (_cons; Days = 0) ")
    assert icc(fit, at={"Days": 5}).at == "Days = 5"
    assert icc(fit, at="mean").at == icc(fit, "all").at == "mean over the rows"
    assert icc(fit, n_boot=10, seed=1).at == "Days = 0"
    assert fit.icc_table().attrs["note"] == "Variances at: Days = 0."
    plain = lme4py.lmer("Reaction ~ Days + (1 | Subject)", load_dataset("sleepstudy"))
    assert icc(plain).at == ""
    assert str(icc(plain)).startswith("ICC (_cons) ")
    # performance 0.10.2: icc(m)$ICC_adjusted, $ICC_unadjusted, as the migration table says.
    assert icc(fit, "all").estimate == pytest.approx(0.7216603, abs=1e-5)
    assert icc(fit, "all", adjusted=False).estimate == pytest.approx(0.5205689, abs=1e-5)


def test_lrtest_of_the_page(pupils):
    small = lme4py.mixed(pupils, "score", ["x"], "school", method="ml")
    large = lme4py.mixed(pupils, "score", ["x"], "school", ["x"], method="ml")
    found = lrtest(small, large, boundary=None)
    assert found.boundary_corrected
    assert found.restricted_logL < found.full_logL
    with pytest.raises(ValueError, match="famil"):
        lrtest(lme4py.mepoisson(pupils, "count", ["x"], "school"), lme4py.meglm(pupils, "count", ["x"], "school"))


# --- the page of margins ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page():
    return example()


@pytest.mark.parametrize("package", ["statsmodels", "lme4py"])
def test_the_example_page(page, package):
    if package == "statsmodels":
        smf = pytest.importorskip("statsmodels.formula.api")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fit = smf.mixedlm("score ~ age + female + treated + C(school)", groups="student", data=page).fit()
        effect = float(fit.params["treated"])
    else:
        fit = lme4py.lmer("score ~ age + female + treated + C(school) + (1 | student)", page)
        effect = float(fit.params["treated"])
    m = Margins.linear_scale(fit, at="overall")
    assert "age" in m.dydx("age").summary()
    m.predict(atexog={"treated": [0, 1]}).summary()
    scen, w = pairwise("treated", [1, 0])
    contrast = m.contrasts(scenarios=scen, contrasts=w)
    assert contrast.estimate[0] == pytest.approx(effect, rel=1e-10)
    assert contrast.labels == ("treated: 1 - 0",)
    assert effect > 0
    res = m.predict(atexog={"age": list(range(20, 76, 2)), "female": [0, 1]}).to_frame()
    assert [level for level, _ in res.groupby("female")] == [0, 1]
    scen, W = reference("school", ["A", "B", "C", "D"], ref_level="A")
    forest = m.contrasts(scenarios=scen, contrasts=W).to_frame()
    assert (forest["ci_lower"] < forest["estimate"]).all()
    assert len(forest["label"]) == 3


def test_the_array_interface_of_the_page(page):
    api = pytest.importorskip("statsmodels.api")
    X = np.column_stack([np.ones(400), page["age"], page["treated"]])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit_array = api.MixedLM(page["score"].to_numpy(), X, groups=page["student"].to_numpy()).fit()
    adapter = adapters.StatsmodelsMixedLMAdapter(fit_array, training_data=page)
    m = Margins.linear_scale(fit_array, adapter=adapter, at="overall")
    assert m.contrasts(pairwise("treated", [1, 0])).estimate[0] == pytest.approx(fit_array.fe_params[2], rel=1e-10)


def test_pairs_of_given_levels_are_first_minus_second_and_of_all_later_minus_earlier(page):
    fit = lme4py.lmer("score ~ age + C(school) + (1 | student)", page)
    m = Margins.linear_scale(fit)
    b, c, d = (fit.params[f"C(school)[T.{s}]"] for s in "BCD")
    given = m.contrasts(pairwise("school", ["A", "B", "C"]))
    assert given.labels == ("school: A - B", "school: A - C", "school: B - C")
    np.testing.assert_allclose(given.estimate, [-b, -c, b - c], rtol=1e-10)
    for every in (pairwise("school"), all_pairwise("school")):
        result = m.contrasts(every)
        np.testing.assert_allclose(result.estimate, [b, c, d, c - b, d - b, d - c], rtol=1e-9)
        assert result.labels[0] == "school: B - A"
    ratio = Margins.log_scale(fit).contrasts(pairwise("school", ["B", "A"]))
    assert ratio.labels == ("school: B / A",)
    np.testing.assert_allclose(ratio.estimate, [np.exp(b)], rtol=1e-10)


def test_scales_say_what_they_take_a_model_without_a_link_to_be(page):
    fit = lme4py.lmer("log(score) ~ age + (1 | student)", page)
    assert "taken to be a logarithm already" in Margins.log_scale(fit).predict().summary()
    assert "taken to be a logit already" in Margins.logit_scale(fit).dydx("age").summary()
    gaussian = lme4py.glmer("log(score) ~ age + (1 | student)", page, "gaussian")
    assert "taken to be a logarithm already" in Margins.log_scale(gaussian).predict().summary()
    for session in (Margins.linear_scale(fit), Margins.link_scale(fit)):
        assert "already" not in session.predict().summary()
    logged = lme4py.glmer("score ~ age + (1 | student)", page, "gamma", link="log")
    assert "already" not in Margins.log_scale(logged).predict().summary()


# --- plots ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["poisson", "binomial", "gamma"])
def test_quantiles_of_a_right_model_stay_within_the_band(family):
    """The model made the data: a pointwise 95 % band holds its points, but 40 to 70 % of Pearson residuals leave it."""
    rng = np.random.default_rng(5)
    g, x = np.repeat(np.arange(30), 12), rng.normal(size=360)
    eta = 0.3 + 0.4 * x + 0.8 * rng.normal(size=30)[g]
    draw = {
        "poisson": lambda: rng.poisson(np.exp(eta)),
        "binomial": lambda: rng.binomial(1, 1 / (1 + np.exp(-eta))),
        "gamma": lambda: rng.gamma(3.0, np.exp(eta) / 3.0),
    }
    data = pd.DataFrame({"g": g, "x": x, "y": draw[family]()})
    link = {"link": "log"} if family == "gamma" else {}
    fit = lme4py.glmer("y ~ x + (1 | g)", data, family, **link)

    def outside(table):
        return float(((table["sample"] < table["lower"]) | (table["sample"] > table["upper"])).mean())

    assert outside(fit.plot_data("qq")) < 0.1
    assert outside(fit.plot_data("qq", type="pearson")) > 0.25
