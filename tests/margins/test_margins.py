"""Estimands of a session: the example page, averages, slopes, contrasts and functions."""

from __future__ import annotations

import inspect
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from margins_models import binary_data, binary_fit, cbpp_fit, example, example_fit

from lme4py import (
    DataError,
    Lme4Error,
    Margins,
    OptionError,
    RankWarning,
    all_pairwise,
    at_levels,
    clmm,
    did,
    glmer,
    grid,
    lmer,
    load_dataset,
    pairwise,
    reference,
)
from lme4py.margins.session.scales import SessionOptions

# Numbers of the example page are printed with ten decimals of another optimiser's theta.
PAGE = {"rtol": 1e-6}


@pytest.fixture(scope="module")
def session():
    return Margins.linear_scale(example_fit())


def test_example_slope_of_age(session):
    result = session.dydx("age")
    np.testing.assert_allclose(result.estimate, [0.2900843739], **PAGE)
    np.testing.assert_allclose(result.std_error, [0.0171792884], **PAGE)
    assert 0 < result.p_values[0] < 1e-40  # not rounded to zero


def test_example_predictions_and_pairs(session):
    means = session.predict(atexog={"treated": [0, 1]})
    np.testing.assert_allclose(means.estimate, [62.3865881276, 66.0405637654], **PAGE)
    np.testing.assert_allclose(means.std_error, [0.3797787588, 0.4558173219], **PAGE)
    pair = session.contrasts(pairwise("treated", [1, 0]))
    np.testing.assert_allclose([pair.estimate[0], pair.std_error[0]], [3.6539756379, 0.5500542196], **PAGE)
    assert pair.labels == ("treated: 1 - 0",)


def test_example_schools_against_the_first(session):
    result = session.contrasts(reference("school", ["A", "B", "C", "D"], ref_level="A"))
    # The first difference is near zero: its digits are those of theta.
    np.testing.assert_allclose(result.estimate, [0.0431341303, -0.8248910249, -0.5478706517], atol=3e-7)
    np.testing.assert_allclose(result.std_error, [0.7541992828, 0.7777267487, 0.7758795234], **PAGE)


def test_example_grid_has_the_first_key_slowest(session):
    result = session.predict(atexog={"age": [20, 46, 74], "female": [0, 1]})
    expected = [56.8628567987, 55.2764934748, 64.4050505214, 62.8186871975, 72.5274129919, 70.9410496681]
    errors = [0.6215517168, 0.6138410513, 0.4160396884, 0.4071865708, 0.6242452168, 0.6203254589]
    np.testing.assert_allclose(result.estimate, expected, **PAGE)
    np.testing.assert_allclose(result.std_error, errors, **PAGE)
    assert result.scenarios == {"age": [20, 20, 46, 46, 74, 74], "female": [0, 1, 0, 1, 0, 1]}


def test_example_interaction_groups_and_weights():
    fit = example_fit("score ~ age * treated + female + C(school) + (1 | student)")
    session = Margins.linear_scale(fit)
    # Six digits are printed on the page.
    np.testing.assert_allclose(session.dydx("age").estimate, [0.288318], atol=1e-6)
    over = session.dydx("age", over="treated")
    np.testing.assert_allclose(over.estimate, [0.315301, 0.246989], atol=1e-6)
    assert over.n_obs.tolist() == [242, 158]
    weights = np.where(example()["age"] > 50, 11.0, 1.0)
    weighted = Margins.linear_scale(fit, weights=weights).contrasts(pairwise("treated", [1, 0]))
    np.testing.assert_allclose(weighted.estimate, [2.7618549], rtol=1e-7)


def test_cbpp_averaged_over_the_random_effects():
    periods = {"period": ["1", "2", "3", "4"]}
    zero = Margins.linear_scale(cbpp_fit()).predict(atexog=periods).estimate
    averaged = Margins.linear_scale(cbpp_fit(), random="integrate").predict(atexog=periods).estimate
    # Seven decimals of R at tight estimates.
    np.testing.assert_allclose(zero, [0.1980492, 0.0838719, 0.0739729, 0.0483907], atol=1e-7)
    np.testing.assert_allclose(averaged, [0.2160929, 0.0970426, 0.0861183, 0.0573003], atol=1e-7)


def test_logit_scale_shows_odds_ratios():
    fit = cbpp_fit()
    result = Margins.logit_scale(fit).contrasts(pairwise("period", ["2", "1"]))
    ratio = float(np.exp(fit.params["period[T.2]"]))
    np.testing.assert_allclose(result.estimate, [ratio], rtol=1e-12)
    np.testing.assert_allclose(result.std_error, ratio * fit.bse["period[T.2]"], rtol=1e-12)
    assert result.labels == ("period: 2 / 1",)
    assert "odds ratio" in result.title
    means = Margins.logit_scale(fit).predict(atexog={"period": ["1"]})
    low, high = means.limits(0.95)
    assert 0 < low[0] < means.estimate[0] < high[0] < 1


def test_log_scale_of_a_linear_model_takes_the_response_as_a_logarithm():
    data = load_dataset("sleepstudy").assign(log_reaction=lambda d: np.log(d["Reaction"]))
    fit = lmer("log_reaction ~ Days + (Days | Subject)", data)
    linear, log = Margins.linear_scale(fit), Margins.log_scale(fit)
    at = {"Days": [0, 9]}
    np.testing.assert_allclose(log.predict(atexog=at).estimate, np.exp(linear.predict(atexog=at).estimate))
    np.testing.assert_allclose(log.dydx("Days").estimate, np.exp(fit.params["Days"]))
    np.testing.assert_allclose(log.eydx("Days").estimate, fit.params["Days"])


@pytest.mark.parametrize("random", ["zero", "integrate", "conditional"])
@pytest.mark.parametrize("variable", ["x", "z"])
def test_slopes_are_those_of_the_predictions(random, variable):
    fit, data, h = binary_fit(), binary_data(), 1e-3
    include = {"zero": False, "integrate": "integrate", "conditional": True}[random]

    def mean(steps):
        moved = data.assign(**{variable: data[variable] + steps * h})
        return fit.predict(moved, include_random=include).mean()

    by_difference = (mean(-2) - 8 * mean(-1) + 8 * mean(1) - mean(2)) / (12 * h)
    result = Margins.linear_scale(fit, random=random).dydx(variable)
    # The differences are of fourth order.
    np.testing.assert_allclose(result.estimate, [by_difference], rtol=1e-8)


def test_elasticities_of_a_log_log_model():
    rng = np.random.default_rng(8)
    data = pd.DataFrame({"x": rng.uniform(1, 5, 200), "g": rng.integers(0, 20, 200)})
    data["y"] = rng.poisson(np.exp(0.3 + 0.7 * np.log(data["x"]) + 0.3 * rng.normal(size=20)[data["g"]]))
    fit = glmer("y ~ log(x) + (1 | g)", data, family="poisson")
    elasticity = Margins.linear_scale(fit).eyex("x")
    # With log(mu) = a + b log(x) the elasticity is b in every row, and so is its standard error.
    np.testing.assert_allclose(elasticity.estimate, fit.params["log(x)"], rtol=1e-12)
    np.testing.assert_allclose(elasticity.std_error, fit.bse["log(x)"], rtol=1e-10)
    rate = Margins.linear_scale(fit)
    mean = fit.predict(data, include_random=False).to_numpy()
    np.testing.assert_allclose(rate.dyex("x").estimate, [np.mean(mean * fit.params["log(x)"])], rtol=1e-12)
    np.testing.assert_allclose(rate.eydx("x").estimate, [np.mean(fit.params["log(x)"] / data["x"])], rtol=1e-12)


def test_only_variables_of_the_model_are_touched():
    data = example().assign(other=["text"] * 400, gap=np.nan)
    data.loc[[3, 77], "age"] = np.nan
    fit = lmer("score ~ age + school + (1 | student)", data)
    result = Margins.linear_scale(fit).predict(atexog={"school": ["A", "B"]})
    assert result.n_obs.tolist() == [398, 398]
    rows = data.dropna(subset=["age"])
    expected = [fit.predict(rows.assign(school=s), include_random=False).mean() for s in ("A", "B")]
    np.testing.assert_allclose(result.estimate, expected, rtol=1e-12)


def test_summaries_of_the_rows():
    fit, data = example_fit("score ~ age * C(school) + treated + (1 | student)"), example()
    params = fit.params
    shares = data["school"].value_counts(normalize=True)
    levels = ["A", "B", "C", "D"]

    def by_hand(age, weights, treated):
        parts = [
            params["Intercept"]
            + params["age"] * age
            + params["treated"] * treated
            + (0 if s == "A" else params[f"C(school)[T.{s}]"] + params[f"age:C(school)[T.{s}]"] * age)
            for s in levels
        ]
        return float(np.dot(parts, weights))

    proportions = [shares[s] for s in levels]
    age, treated = data["age"], data["treated"]
    top = [float(s == shares.idxmax()) for s in levels]
    expected = {
        "mean": by_hand(age.mean(), proportions, treated.mean()),
        "median": by_hand(age.median(), proportions, treated.median()),
        # A number with two values counts as a factor there, as in emmeans.
        "balanced": by_hand(age.mean(), [0.25] * 4, 0.5),
        "typical": by_hand(age.mean(), top, treated.mean()),
    }
    for at, value in expected.items():
        np.testing.assert_allclose(Margins.linear_scale(fit, at=at).predict().estimate, [value], rtol=1e-12)


def test_rows_given_as_dict_and_frame():
    fit, data = binary_fit(), binary_data()
    fixed = Margins.linear_scale(fit, at={"x": 0.5}).predict()
    np.testing.assert_allclose(fixed.estimate, fit.predict(data.assign(x=0.5), include_random=False).mean())
    rows = data.head(7)
    given = Margins.linear_scale(fit, at=rows)
    np.testing.assert_allclose(given.predict().estimate, fit.predict(rows, include_random=False).mean())
    assert given.predict().n_obs.tolist() == [7]


def test_factored_and_plain_grids_agree():
    fit = lmer("score ~ age * treated + I(age * female) + school + (1 | student)", example())
    # age stands in an expression with another column: rows are built one scenario at a time.
    plain = Margins.linear_scale(fit).predict(atexog={"age": [30, 60], "school": ["A", "C"]})
    data = example()
    cells = [(30, "A"), (30, "C"), (60, "A"), (60, "C")]
    expected = [fit.predict(data.assign(age=a, school=s), include_random=False).mean() for a, s in cells]
    np.testing.assert_allclose(plain.estimate, expected, rtol=1e-12)


def test_weights_enter_every_estimand():
    data = example()
    weights = np.random.default_rng(1).uniform(0.1, 3, 400)
    fit = example_fit("score ~ age * treated + female + C(school) + (1 | student)")
    session = Margins.linear_scale(fit, weights=weights)
    mean = fit.predict(data, include_random=False).to_numpy()
    np.testing.assert_allclose(session.predict().estimate, [np.average(mean, weights=weights)], rtol=1e-12)
    slope = fit.params["age"] + fit.params["age:treated"] * np.average(data["treated"], weights=weights)
    np.testing.assert_allclose(session.dydx("age").estimate, [slope], rtol=1e-12)
    two = session.evaluate(at_levels("treated", [0, 1]), lambda a, b: b / a)
    ones = session.predict(atexog={"treated": [0, 1]}).estimate
    np.testing.assert_allclose(two.estimate, [ones[1] / ones[0]], rtol=1e-12)
    by_mean = Margins.linear_scale(fit, weights=weights, at="mean").dydx("age")
    np.testing.assert_allclose(by_mean.estimate, [slope], rtol=1e-12)


def test_weights_and_groups_by_columns_that_the_model_does_not_use():
    data = example().assign(w=np.linspace(0.1, 2.0, 400), town=["east", "west", "east", "north"] * 100, gap=np.nan)
    data.index = [f"row {i}" for i in range(400)]
    data.loc[data.index[[3, 77]], "score"] = np.nan
    fit = lmer("score ~ age + treated + (1 | student)", data)
    rows = data.dropna(subset=["score"])
    mean = fit.predict(rows, include_random=False)
    weighted = Margins.linear_scale(fit, weights="w").predict()
    np.testing.assert_allclose(weighted.estimate, [np.average(mean, weights=rows["w"])], rtol=1e-12)
    by_town = Margins.linear_scale(fit).predict(over="town")
    np.testing.assert_allclose(by_town.estimate, mean.groupby(rows["town"]).mean(), rtol=1e-12)
    given = Margins.linear_scale(fit, at=rows.head(50), weights="w").predict()
    np.testing.assert_allclose(given.estimate, [np.average(mean[:50], weights=rows["w"][:50])], rtol=1e-12)
    for name, message in (("town", "labels"), ("gap", "finite"), ("ww", "give the weights as an array")):
        with pytest.raises(OptionError, match=message):
            Margins.linear_scale(fit, weights=name)
    with pytest.raises(OptionError, match="give the weights as an array"):
        Margins.linear_scale(pickle.loads(pickle.dumps(fit)), weights="w")
    # The columns of a dict are the user's own arrays, which can be changed in place.
    columns = {name: data[name].to_numpy(copy=True) for name in ("score", "age", "treated", "student", "w")}
    changed = lmer("score ~ age + treated + (1 | student)", columns)
    columns["age"] += 1
    with pytest.raises(DataError, match="changed after the fit"):
        Margins.linear_scale(changed, weights="w")


@pytest.mark.parametrize("given", ["age", ["age"], 3])
def test_values_of_a_grid_are_a_mapping(given):
    fit = lmer("score ~ age + treated + (1 | student)", example())
    with pytest.raises(OptionError, match="give the values of each variable"):
        Margins.linear_scale(fit).predict(given)


def test_variables_of_random_slopes_alone():
    data = binary_data().head(150)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a small variance
        fit = glmer("y ~ t + (0 + x | g)", data)
    for random, include in (("integrate", "integrate"), ("conditional", True)):
        h = 1e-3
        ends = [fit.predict(data.assign(x=data["x"] + s * h), include_random=include).mean() for s in (-2, -1, 1, 2)]
        expected = (ends[0] - 8 * ends[1] + 8 * ends[2] - ends[3]) / (12 * h)
        result = Margins.linear_scale(fit, random=random).dydx("x")
        # Differences of fourth order.
        np.testing.assert_allclose(result.estimate, [expected], rtol=1e-6)
    with pytest.raises(OptionError, match="in the random slopes only"):
        Margins.linear_scale(fit).dydx("x")
    with pytest.raises(OptionError, match="not in the fixed effects"):
        Margins.linear_scale(fit, random="conditional").dydx("g")
    # In a linear model the mean over the random effects has no slope, and that of the groups of the data an error.
    line = lmer("score ~ 1 + (age | student)", example().assign(age=lambda d: d["age"] / 50))
    whole = Margins.linear_scale(line, random="integrate").dydx("age")
    assert (whole.estimate[0], whole.p_values[0]) == (0.0, 1.0)
    assert Margins.linear_scale(line, random="conditional").dydx("age").std_error[0] > 0.0
    with pytest.raises(OptionError, match="no variable"):
        Margins.linear_scale(line).dydx()


def test_contrasts_in_all_forms(session):
    scenarios = at_levels("school", ["A", "B", "C"])
    by_list = session.contrasts(scenarios, [-1, 0.5, 0.5])
    by_matrix = session.contrasts(scenarios, np.array([[-1, 0.5, 0.5], [0, -1, 1]]))
    named = {level: {"school": level} for level in "ABC"}
    by_name = session.contrasts(named, {"rest against A": {"A": -1, "B": 0.5, "C": 0.5}})
    for other in (by_matrix, by_name):
        np.testing.assert_allclose(other.estimate[0], by_list.estimate[0], rtol=1e-12)
    assert by_name.labels == ("rest against A",)
    assert by_matrix.labels == ("school: 0.5 B + 0.5 C - A", "school: C - B")
    scenarios, weights = pairwise("treated", [1, 0])
    np.testing.assert_allclose(
        session.contrasts(scenarios, weights).estimate, session.contrasts(**pairwise("treated", [1, 0])).estimate
    )


def test_all_pairs_are_all_pairs_and_jointly_have_the_right_rank(session):
    result = session.contrasts(all_pairwise("school"))
    assert result.labels == (
        "school: B - A",
        "school: C - A",
        "school: D - A",
        "school: C - B",
        "school: D - B",
        "school: D - C",
    )
    six = result.joint_test()
    three = session.contrasts(reference("school")).joint_test()
    assert six["df"] == three["df"] == 3
    np.testing.assert_allclose(six["F"], three["F"], rtol=1e-9)


def test_difference_in_differences():
    fit = example_fit("score ~ age + treated * female + (1 | student)")
    result = Margins.linear_scale(fit).contrasts(did("treated", "female"))
    np.testing.assert_allclose(result.estimate, [fit.params["treated:female"]], rtol=1e-10)
    np.testing.assert_allclose(result.std_error, [fit.bse["treated:female"]], rtol=1e-10)


def test_functions_of_predictions():
    session = Margins.linear_scale(cbpp_fit(), random="integrate")
    one, two = session.predict(atexog={"period": ["1", "2"]}).estimate
    covariance = session.predict(atexog={"period": ["1", "2"]}).covariance
    gradient = np.array([-two / one**2, 1 / one])
    ratio = session.evaluate(at_levels("period", ["1", "2"]), compose=lambda p: p[1] / p[0])
    np.testing.assert_allclose(ratio.estimate, [two / one], rtol=1e-12)
    np.testing.assert_allclose(ratio.se, [np.sqrt(gradient @ covariance @ gradient)], rtol=1e-10)
    # abs() takes complex numbers but is not analytic: differences take its place.
    distance = session.evaluate(at_levels("period", ["1", "2"]), compose=lambda p: abs(p[1] - p[0]))
    plain = session.contrasts(pairwise("period", ["2", "1"]))
    np.testing.assert_allclose(distance.se, plain.se, rtol=1e-7)
    several = session.evaluate(
        {"first": {"period": "1"}, "second": {"period": "2"}}, lambda p: {"sum": p["first"] + p["second"]}
    )
    assert several.labels == ("sum",)
    np.testing.assert_allclose(several.estimate, [one + two], rtol=1e-12)


def test_rows_on_request():
    data = binary_data()
    fit = binary_fit()
    rows = Margins.linear_scale(fit).predict(unit_level=True)
    np.testing.assert_allclose(rows.estimate, fit.predict(data, include_random=False), rtol=1e-12)
    slopes = Margins.linear_scale(fit).dydx("x", unit_level=True)
    whole = Margins.linear_scale(fit).dydx("x")
    np.testing.assert_allclose(slopes.estimate.mean(), whole.estimate[0], rtol=1e-12)
    assert slopes.to_frame()["row"].tolist() == data.index.tolist()


def test_binary_and_categorical_variables_give_differences(session):
    result = session.dydx()
    assert result.labels[:3] == ("age", "female: 1 - 0", "treated: 1 - 0")
    assert any("differences from the first level" in note for note in result.notes)
    pair = session.contrasts(pairwise("treated", [1, 0]))
    np.testing.assert_allclose(session.dydx("treated").estimate, pair.estimate, rtol=1e-12)


def test_averages_over_random_effects_by_probit_are_exact():
    fit = binary_fit("probit")
    design, b = fit.fit.design, fit.params.to_numpy()
    z = design.terms[0].values
    variance = np.einsum("na,ab,nb->n", z, fit.fit.covariances[0], z)
    from scipy.special import ndtr

    expected = ndtr(design.X @ b / np.sqrt(1 + variance)).mean()
    np.testing.assert_allclose(Margins.linear_scale(fit, random="integrate").predict().estimate, [expected], rtol=1e-13)


def test_conditional_modes():
    fit, data = binary_fit(), binary_data()
    result = Margins.linear_scale(fit, random="conditional").predict(atexog={"x": [0.0, 1.0]})
    expected = [fit.predict(data.assign(x=x), include_random=True).mean() for x in (0.0, 1.0)]
    np.testing.assert_allclose(result.estimate, expected, rtol=1e-12)


@pytest.mark.parametrize("at", ["overall", "mean", "median", "typical", "balanced", {"HEIGHT": 450.0}])
def test_offset_given_by_name_is_one_of_the_formula(at):
    data = load_dataset("grouseticks").head(120).assign(known=np.linspace(-1, 1, 120))
    terms = "YEAR + I(HEIGHT / 100) + (1 | LOCATION)"
    named = glmer(f"TICKS ~ {terms}", data, "poisson", offset="known")
    written = glmer(f"TICKS ~ offset(known) + {terms}", data, "poisson")
    for ask in (
        lambda m: m.predict(),
        lambda m: m.predict(atexog={"YEAR": ["95", "96"]}),
        lambda m: m.dydx(["HEIGHT"]),
        lambda m: m.dydx(["YEAR"]),
    ):
        found, expected = (ask(Margins.linear_scale(fit, at=at)) for fit in (named, written))
        # The same numbers; rounding only.
        np.testing.assert_allclose(found.estimate, expected.estimate, rtol=1e-10)
        np.testing.assert_allclose(found.se, expected.se, rtol=1e-8)
    assert "known" not in named.augment().columns


def test_offset_given_as_an_array_stays_with_its_rows():
    data = load_dataset("grouseticks").head(120)
    offset = np.linspace(-1, 1, 120)
    fit = glmer("TICKS ~ YEAR + (1 | LOCATION)", data, family="poisson", offset=offset)
    expected = np.exp(fit.fit.design.X @ fit.params.to_numpy() + offset).mean()
    np.testing.assert_allclose(Margins.linear_scale(fit).predict().estimate, [expected], rtol=1e-12)


def test_ordered_categories():
    wine = load_dataset("wine")
    fit = clmm("rating ~ temp + contact + (1 | judge)", wine)
    for random, include in (("zero", False), ("integrate", "integrate")):
        session = Margins.linear_scale(fit, random=random)
        result = session.predict(atexog={"temp": ["cold", "warm"]})
        expected = [
            fit.predict(wine.assign(temp=t), include_random=include, type="prob").mean() for t in ("cold", "warm")
        ]
        table = result.to_frame().pivot(index="temp", columns="category", values="estimate")
        # Sums of differences of cuts here, of probabilities there.
        np.testing.assert_allclose(table.to_numpy(), np.array(expected), rtol=1e-11)
        slopes = session.dydx("temp")
        np.testing.assert_allclose(slopes.estimate.sum(), 0.0, atol=1e-14)
    latent = Margins.link_scale(fit, at="balanced").contrasts(pairwise("temp"))
    np.testing.assert_allclose([latent.estimate[0], latent.std_error[0]], [fit.params.iloc[0], fit.bse.iloc[0]])
    one = Margins.linear_scale(fit).contrasts(pairwise("temp"), outcome="5")
    assert one.labels == ("P(5), temp: warm - cold",)
    with pytest.raises(OptionError, match="no category"):
        Margins.linear_scale(fit).predict(outcome="9")
    with pytest.raises(OptionError, match="no meaning"):
        Margins.logit_scale(fit)


def test_cells_that_cannot_be_estimated_are_nan():
    data = example()
    data = data[~((data["school"] == "D") & (data["treated"] == 1))]
    with pytest.warns(RankWarning, match=r"school\[T.D\]:factor\(treated\)\[T.1\] is left out"):
        fit = lmer("score ~ school * factor(treated) + (1 | student)", data)
    session = Margins.linear_scale(fit)
    found = session.predict(atexog={"treated": [0, 1]})
    assert "1 of 2 estimates cannot be estimated" in " ".join(found.notes)
    np.testing.assert_allclose(
        found.estimate, [fit.predict(data.assign(treated=0), include_random=False).mean(), np.nan]
    )
    assert np.isnan(found.to_frame().iloc[1][["std_error", "ci_lower", "p_value"]].astype(float)).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.dydx("agee"), "Did you mean 'age'"),
        (lambda m: m.predict(atexog={"student": [1]}), "not a predictor"),
        (lambda m: m.predict(atexog={"school": ["E"]}), "'E' is not a level"),
        (lambda m: m.predict(atexog={"age": ["old"]}), "numeric variable"),
        (lambda m: m.predict(atexog={"age": [np.inf]}), "finite"),
        (lambda m: m.predict(over="grade"), "not a column"),
        (lambda m: m.eyex("school"), "not defined"),
        (lambda m: m.contrasts(at_levels("treated", [0, 1]), [1, 2, 3]), "2 scenarios"),
        (lambda m: m.contrasts(at_levels("treated", [0, 1])), "contrasts"),
        (lambda m: m.contrasts([], [1]), "list of dicts"),
        (lambda m: m.evaluate(at_levels("treated", [0, 1]), 3), "compose"),
        (lambda m: m.evaluate(grid(treated=[0]), lambda p: np.log(-p[0])), "not finite"),
        (lambda m: m.predict(outcome=1), "ordinal"),
    ],
)
def test_faults_of_requests(session, call, message):
    with np.errstate(invalid="ignore"), pytest.raises(Lme4Error, match=message):
        call(session)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"at": "overal"}, "Did you mean 'overall'"),
        ({"random": "zeros"}, "Did you mean 'zero'"),
        ({"method": "deltas"}, "Did you mean 'delta'"),
        ({"level": 95}, "between 0 and 1"),
        ({"weights": np.ones(3)}, "`weights` has 3 values but the data have 400 rows"),
        ({"weights": -np.ones(400)}, "not negative"),
        ({"weights": "w"}, "give the weights as an array"),
        ({"ddf": "kr"}, "ddf"),
        ({"vcov": np.ones((2, 2))}, "symmetric matrix of shape"),
        ({"cluster": "student"}, "needs vcov"),
        ({"at": {"agee": 1}}, "no variable 'agee'"),
        ({"at": pd.DataFrame({"age": [1.0]})}, "no column"),
        ({"at": "mean", "random": "conditional"}, "needs rows"),
        ({"boot": "wild", "method": "bootstrap"}, "parametric"),
    ],
)
def test_faults_of_sessions(options, message):
    with pytest.raises(Lme4Error, match=message):
        Margins.linear_scale(example_fit(), **options)


def test_a_fit_of_another_kind_is_refused():
    with pytest.raises(OptionError, match="no fit that Margins knows"):
        Margins.linear_scale(object())


def test_signatures_that_are_promised():
    promised = {
        "at": "overall",
        "weights": None,
        "level": None,  # that of the fit: 0.95 where its front door was given no other
        "method": "delta",
        "n_sim": 4000,
        "n_boot": 1000,
        "rng_seed": None,
        "n_jobs": 1,
        "ddf": None,
        "random": "zero",
        "adapter": None,
    }
    for scale in (
        Margins.response,
        Margins.link,
        Margins.linear_scale,
        Margins.log_scale,
        Margins.logit_scale,
        Margins.link_scale,
    ):
        found = inspect.signature(scale).parameters
        assert {name: found[name].default for name in promised} == promised
        assert list(found)[: len(promised) + 1] == ["fit", *promised]
    assert set(SessionOptions.__annotations__) == set(found) - {"fit"}
