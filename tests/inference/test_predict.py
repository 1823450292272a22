"""Predictions for the fitted rows and for new data."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from reference_data import load_reference

import lme4py


@pytest.fixture(scope="module")
def penicillin():
    return lme4py.lmer("diameter ~ 1 + (1 | plate) + (1 | sample)", lme4py.load_dataset("Penicillin"))


@pytest.fixture(scope="module")
def new():
    """Three rows with an index of their own: two known subjects, one row with a fractional day."""
    return pd.DataFrame({"Days": [0.0, 2.5, 9.0], "Subject": ["308", "309", "308"]}, index=["p", "q", "r"])


def by_hand(sleep, new):
    modes = sleep.ranef().loc[new["Subject"].tolist()].to_numpy()
    days = new["Days"].to_numpy()
    beta = sleep.params.to_numpy()
    return (beta[0] + modes[:, 0]) + (beta[1] + modes[:, 1]) * days


def test_own_rows_are_the_fitted_values(sleep, sleepstudy):
    pd.testing.assert_series_equal(sleep.predict(), sleep.fittedvalues, check_names=False)
    # The same columns built again from the recipe: rounding only.
    np.testing.assert_allclose(sleep.predict(sleepstudy), sleep.fittedvalues, rtol=1e-12)
    np.testing.assert_allclose(sleep.predict() + sleep.residuals(), sleepstudy["Reaction"], rtol=1e-14)


def test_new_rows(sleep, new):
    found = sleep.predict(new)
    assert found.name == "predicted"
    assert list(found.index) == ["p", "q", "r"]
    np.testing.assert_allclose(found, by_hand(sleep, new), rtol=1e-12)  # rounding only


def test_without_random_effects(sleep, new):
    beta = sleep.params.to_numpy()
    fixed = beta[0] + beta[1] * new["Days"].to_numpy()
    for choice in (False, [], "integrate"):
        # Averaged over the random effects a linear model is its fixed part.
        np.testing.assert_allclose(sleep.predict(new, include_random=choice), fixed, rtol=1e-13)
    # The grouping factor is not needed then.
    np.testing.assert_allclose(sleep.predict(new[["Days"]], include_random=False), fixed, rtol=1e-13)
    own = sleep.predict(include_random=False)
    np.testing.assert_allclose(own, sleep.model_matrix.to_numpy() @ beta, rtol=1e-13)


def test_the_response_is_not_needed(sleep, sleepstudy):
    without = sleepstudy.drop(columns="Reaction")
    np.testing.assert_allclose(sleep.predict(without), sleep.predict(), rtol=1e-12)  # rounding only


def test_some_grouping_factors(penicillin):
    data = lme4py.load_dataset("Penicillin")
    plate, sample = penicillin.ranef()["plate"]["Intercept"], penicillin.ranef()["sample"]["Intercept"]
    mean = penicillin.params["Intercept"]
    parts = {
        ("plate",): mean + plate.loc[data["plate"]].to_numpy(),
        ("sample",): mean + sample.loc[data["sample"]].to_numpy(),
        ("plate", "sample"): penicillin.fittedvalues.to_numpy(),
    }
    for names, expected in parts.items():
        for rows in (None, data):
            found = penicillin.predict(rows, include_random=list(names))
            np.testing.assert_allclose(found, expected, rtol=1e-12)  # rounding only
    np.testing.assert_allclose(penicillin.predict(include_random="plate"), parts[("plate",)], rtol=1e-12)


@pytest.mark.parametrize("choice", ["plat", ["plate", "sampel"]])
def test_unknown_grouping_factor(penicillin, choice):
    with pytest.raises(lme4py.OptionError, match=r"no grouping factor.*plate, sample.*Did you mean"):
        penicillin.predict(include_random=choice)


def test_types(sleep, new):
    pd.testing.assert_series_equal(sleep.predict(new, type="linear"), sleep.predict(new, type="response"))
    with pytest.raises(lme4py.OptionError, match="type"):
        sleep.predict(new, type="probability")
    with pytest.raises(lme4py.OptionError, match="new_levels"):
        sleep.predict(new, new_levels="ignore")


# -- unseen and missing ----------------------------------------------------------------------------


def test_unseen_groups_contribute_nothing(sleep, new):
    unseen = new.assign(Subject=["999", "309", "998"])
    with pytest.warns(lme4py.Lme4Warning, match="Subject: 2 of 3 rows") as caught:
        found = sleep.predict(unseen)
    assert len(caught) == 1
    fixed = sleep.predict(unseen, include_random=False)
    assert found["p"] == fixed["p"]
    assert found["r"] == fixed["r"]
    assert found["q"] == pytest.approx(by_hand(sleep, new)[1], rel=1e-12)
    with pytest.raises(lme4py.DataError, match=r"Subject: 2 of 3 rows.*new_levels='zero'"):
        sleep.predict(unseen, new_levels="error")


def test_unseen_in_one_of_two_factors(penicillin):
    new = pd.DataFrame({"plate": ["a", "zz"], "sample": ["A", "B"]})
    with pytest.warns(lme4py.Lme4Warning, match="plate: 1 of 2 rows"):
        found = penicillin.predict(new)
    sample = penicillin.ranef()["sample"]["Intercept"]
    assert found[1] == pytest.approx(penicillin.params["Intercept"] + sample["B"], rel=1e-13)
    # A factor that is not asked for may hold anything.
    assert penicillin.predict(new, include_random=["sample"])[1] == pytest.approx(found[1], rel=1e-13)


def test_missing_predictor_gives_nan(sleep, new):
    found = sleep.predict(new.assign(Days=[0.0, np.nan, 9.0]))
    assert found.isna().tolist() == [False, True, False]
    np.testing.assert_allclose(found.iloc[[0, 2]], by_hand(sleep, new)[[0, 2]], rtol=1e-12)


def test_missing_group_counts_as_unseen(sleep, new):
    with pytest.warns(lme4py.Lme4Warning, match="missing or were not in the training data.*1 of 3"):
        found = sleep.predict(new.assign(Subject=["308", None, "308"]))
    assert found["q"] == sleep.predict(new, include_random=False)["q"]


def test_missing_column(sleep, new):
    with pytest.raises(lme4py.DataError, match="Subject"):
        sleep.predict(new[["Days"]])
    with pytest.raises(lme4py.DataError, match="Days"):
        sleep.predict(new[["Subject"]])


def test_unseen_level_of_a_fixed_factor():
    fit = lme4py.lmer("score ~ Machine + (1 | Worker)", lme4py.load_dataset("Machines"))
    new = pd.DataFrame({"Machine": ["A", "D"], "Worker": ["1", "1"]})
    with pytest.raises(lme4py.DataError, match="D"):
        fit.predict(new)


# -- transformations, offsets, weights, missing rows -----------------------------------------------


@pytest.mark.parametrize(
    "formula",
    [
        "Reaction ~ poly(Days, 2) + (Days | Subject)",
        "Reaction ~ scale(Days) + (scale(Days) | Subject)",
        "Reaction ~ factor(Days) + (1 | Subject)",
        "Reaction ~ I(Days^2) + log(Days + 1) + (0 + Days | Subject)",
        "log(Reaction) ~ Days + (Days || Subject)",
    ],
)
def test_transformations_remember_the_training_data(sleepstudy, formula):
    """A few rows must be transformed as they were among all."""
    fit = lme4py.lmer(formula, sleepstudy)
    few = sleepstudy.iloc[[3, 77, 150]]
    # The same columns from stored means and coefficients: rounding only.
    np.testing.assert_allclose(fit.predict(few), fit.predict().loc[few.index], rtol=1e-11)


def test_offset_of_the_formula_is_evaluated_in_the_new_data(sleepstudy):
    data = sleepstudy.assign(known=np.linspace(0, 5, len(sleepstudy)))
    fit = lme4py.lmer("Reaction ~ Days + offset(known) + (1 | Subject)", data)
    np.testing.assert_allclose(fit.predict(data), fit.fittedvalues, rtol=1e-12)  # rounding only
    moved = fit.predict(data.assign(known=data["known"] + 10))
    np.testing.assert_allclose(moved, fit.fittedvalues + 10, rtol=1e-12)
    fixed = fit.predict(include_random=False)
    np.testing.assert_allclose(fixed, fit.predict(data, include_random=False), rtol=1e-12)


def test_left_out_rows():
    data = load_reference("sleepstudy_na")
    omit = lme4py.lmer("Reaction ~ Days + (1 | Subject)", data)
    exclude = lme4py.lmer("Reaction ~ Days + (1 | Subject)", data, na_action="exclude")
    kept = omit.fit.design.keep
    assert 0 < kept.sum() < len(data)
    assert list(omit.predict().index) == list(data.index[kept])
    padded = exclude.predict()
    assert len(padded) == len(data)
    assert (padded.isna().to_numpy() == ~kept).all()
    np.testing.assert_allclose(padded[kept], omit.predict(), rtol=1e-13)
    assert exclude.residuals().isna().sum() == (~kept).sum()


def test_index_of_the_data_survives(sleepstudy):
    data = sleepstudy.set_index(pd.Index([f"row {i}" for i in range(len(sleepstudy))], name="label"))
    fit = lme4py.lmer("Reaction ~ Days + (1 | Subject)", data)
    for series in (fit.predict(), fit.predict(data), fit.fittedvalues, fit.residuals()):
        pd.testing.assert_index_equal(series.index, data.index)
    assert fit.predict(data.iloc[::-1])["row 7"] == pytest.approx(fit.predict()["row 7"], rel=1e-13)


@pytest.mark.parametrize("kind", ["polars", "pyarrow", "dict"])
def test_other_kinds_of_new_data(sleep, new, kind):
    columns = {name: new[name].tolist() for name in new}
    if kind == "polars":
        data = pytest.importorskip("polars").DataFrame(columns)
    elif kind == "pyarrow":
        data = pytest.importorskip("pyarrow").table(columns)
    else:
        data = columns
    np.testing.assert_allclose(sleep.predict(data), by_hand(sleep, new), rtol=1e-12)  # rounding only


def test_interactions_of_grouping_factors():
    data = lme4py.load_dataset("Pastes")
    fit = lme4py.lmer("strength ~ 1 + (1 | batch/cask)", data)
    new = pd.DataFrame({"batch": ["A", "B"], "cask": ["a", "c"]})
    modes = fit.ranef()
    inner = next(frame for name, frame in modes.items() if ":" in name)["Intercept"]
    outer = modes["batch"]["Intercept"]
    label = "a:A" if "a:A" in inner.index else "A:a"
    found = fit.predict(new)
    assert found[0] == pytest.approx(fit.params["Intercept"] + outer["A"] + inner[label], rel=1e-13)
    # A pair that does not occur in the data is an unseen group, though both labels are known.
    with pytest.warns(lme4py.Lme4Warning, match="1 of 1"):
        unseen = fit.predict(pd.DataFrame({"batch": ["A"], "cask": ["z"]}))
    assert unseen[0] == pytest.approx(fit.params["Intercept"] + outer["A"], rel=1e-13)


@pytest.mark.parametrize("random", ["(1 | batch/cask)", "(1 | batch) + (1 | batch:cask)"])
def test_nested_factors_with_reused_labels(random):
    """Casks are called a, b, c in every batch; a new cask of a known batch has the effect of the batch."""
    data = lme4py.load_dataset("Pastes")
    result = lme4py.lmer(f"strength ~ 1 + {random}", data)
    np.testing.assert_allclose(result.predict(data), result.fittedvalues, rtol=1e-12)  # rounding only
    new = pd.DataFrame({"batch": ["A", "B", "other"], "cask": ["d", "a", "a"]})
    with pytest.warns(lme4py.errors.Lme4Warning, match="2 of 3 rows.*batch: 1 of 3 rows"):
        found = result.predict(new)
    batch = result.ranef()["batch"]["Intercept"]
    mean = result.params["Intercept"]
    known = data.index[(data["batch"] == "B") & (data["cask"] == "a")][0]
    np.testing.assert_allclose(found, [mean + batch["A"], result.fittedvalues[known], mean], rtol=1e-12)


def test_generalised_models_predict_as_linear_ones():
    data = lme4py.load_dataset("cbpp").set_index(pd.Index([f"r{i}" for i in range(56)]))
    result = lme4py.glmer("cbind(incidence, size - incidence) ~ period + (1 | herd)", data)
    pd.testing.assert_series_equal(result.predict(), result.fittedvalues, check_names=False)
    np.testing.assert_allclose(result.predict(data), result.fittedvalues, rtol=1e-12)  # rounding only
    with pytest.warns(lme4py.errors.Lme4Warning, match="herd: 1 of 2 rows"):
        found = result.predict(pd.DataFrame({"period": ["1", "2"], "herd": ["3", "new"]}))
    assert found[1] == result.predict(pd.DataFrame({"period": ["2"]}), include_random=False)[0]
    with pytest.raises(lme4py.DataError, match=r"1 level.*'5'"):
        result.predict(pd.DataFrame({"period": ["5"], "herd": ["3"]}))


def test_unknown_levels_are_named_beside_those_of_the_model():
    cake = lme4py.load_dataset("cake")
    result = lme4py.lmer("angle ~ recipe + (1 | replicate)", cake)
    new = cake.head(2).astype({"recipe": str})
    new["recipe"] = ["A", "Bb"]
    with pytest.raises(lme4py.Lme4Error, match=r"'Bb'\. Did you mean 'B'\? The model has 3: 'A', 'B', 'C'; remove"):
        result.predict(new)
    many = cake.assign(f=[f"level {i % 9}" for i in range(len(cake))])
    with pytest.raises(lme4py.Lme4Error, match=r"The model has 9: 'level 0', .*, 'level 5', \.\.\.; remove"):
        lme4py.lmer("angle ~ f + (1 | replicate)", many).predict(many.head(2).assign(f="other"))
