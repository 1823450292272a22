"""Joint tests of a session where estimates depend on each other, and groups, offsets and their names."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest
from scipy import special

import lme4py
from lme4py import Margins, OptionError, all_pairwise, pairwise, reference


@pytest.fixture(scope="module")
def curve():
    """0/1 answers over x in groups, with a slope that hardly matters."""
    rng = np.random.default_rng(3)
    g, x = np.repeat(np.arange(30), 8), rng.uniform(0, 4, 240)
    eta = -0.3 + 0.1 * x + 0.5 * rng.normal(size=30)[g]
    return pd.DataFrame({"g": g, "x": x, "y": rng.binomial(1, special.expit(eta)), "z": eta + rng.normal(size=240)})


@pytest.fixture(scope="module")
def line(curve):
    return lme4py.glmer("y ~ x + (1 | g)", curve, "binomial")


@pytest.fixture(scope="module")
def parabola(curve):
    return lme4py.glmer("y ~ x + I(x^2) + (1 | g)", curve, "binomial")


def from_first(values):
    rows = np.eye(len(values))[1:]
    rows[:, 0] = -1.0
    return [{"x": value} for value in values], rows


@pytest.mark.parametrize("values", [[0, 1, 2], [0, 1, 2, 3], [0, 0.5, 1, 2, 3, 4]])
@pytest.mark.parametrize("random", ["zero", "integrate"])
def test_probabilities_at_several_values_are_the_hypotheses_of_their_slopes(line, parabola, values, random):
    """All are the same when the slopes are zero, whatever the number of values: the Wald test of the slopes."""
    found = Margins.linear_scale(line, random=random).contrasts(*from_first(values)).joint_test()
    expected = line.wald_test("x")
    # Found by iteration to about six digits of a standard error.
    assert found == pytest.approx(expected, rel=1e-6)
    if len(values) > 3:
        found = Margins.linear_scale(parabola, random=random).contrasts(*from_first(values)).joint_test()
        assert found == pytest.approx(parabola.wald_test(["x", "I(x^2)"]), rel=1e-6)


def test_ratios_and_averages_over_rows_too(line, curve):
    for session in (Margins.log_scale(line), Margins.linear_scale(line, method="simulation", n_sim=200)):
        found = session.contrasts(*from_first([0, 1, 2, 3])).joint_test()
        assert found == pytest.approx(line.wald_test("x"), rel=1e-5)
    ordinal = curve.assign(o=np.digitize(curve["z"], [-0.7, 0.7]))
    fit = lme4py.clmm("o ~ x + (1 | g)", ordinal)
    found = Margins.linear_scale(fit).contrasts(*from_first([0, 1, 2])).joint_test()
    assert found == pytest.approx(fit.wald_test("x"), rel=1e-5)


def test_without_dependence_it_is_the_wald_test(line):
    cbpp = lme4py.load_dataset("cbpp")
    fit = lme4py.glmer("cbind(incidence, size - incidence) ~ period + (1 | herd)", cbpp)
    result = Margins.linear_scale(fit).contrasts(reference("period"))
    chi2 = result.value @ np.linalg.solve(result.covariance, result.value)
    assert result.joint_test()["chi2"] == pytest.approx(chi2, rel=1e-9)
    every = Margins.linear_scale(fit).contrasts(all_pairwise("period")).joint_test()
    assert every == pytest.approx(result.joint_test(), rel=1e-7)
    # A null value that can be reached: the one that is estimated.
    assert result.joint_test(result.estimate)["chi2"] == pytest.approx(0.0, abs=1e-12)
    single = Margins.linear_scale(line).contrasts([{"x": 0}, {"x": 2}], [-1, 1])
    assert single.joint_test()["chi2"] == pytest.approx(single.statistic[0] ** 2, rel=1e-9)


def test_curved_functions_of_a_linear_model_have_its_f_test(curve):
    fit = lme4py.lmer("z ~ x + I(x^2) + (1 | g)", curve)
    scenarios = [{"x": value} for value in (0.0, 1.0, 2.0, 3.0, 4.0)]
    m = Margins.linear_scale(fit)
    found = m.evaluate(scenarios, lambda y: np.exp(y[1:]) - np.exp(y[0])).joint_test()
    expected = fit.contest(["x", "I(x^2)"]).iloc[0]
    # Satterthwaite's denominator depends on the rows that stand for the hypothesis, F does not.
    assert found["F"] == pytest.approx(expected["F"], rel=1e-5)
    assert found["df"] == 2
    assert found["df_denom"] == pytest.approx(expected["den_df"], rel=0.1)


def test_impossible_hypotheses_say_whose_they_are(line, curve):
    m = Margins.linear_scale(line)
    probabilities = m.predict(atexog={"x": [0, 1, 2, 3]})
    with pytest.raises(OptionError, match="cannot all be 0"):
        probabilities.joint_test()
    with pytest.raises(OptionError, match="the null values contradict each other"):
        probabilities.joint_test([0.2, 0.8, 0.2, 0.8])
    half = probabilities.joint_test(0.5)
    assert half == pytest.approx(line.wald_test(["Intercept", "x"]), rel=1e-5)
    # A known part of the linear predictor that differs between scenarios.
    known = lme4py.lmer("z ~ x + offset(w) + (1 | g)", curve.assign(w=np.arange(240) / 100))
    both = Margins.linear_scale(known).contrasts([{"w": 0}, {"w": 1}, {"w": 1, "x": 2}], [[-1, 1, 0], [-1, 0, 1]])
    with pytest.raises(OptionError, match=r"cannot all be 0.*offset"):
        both.joint_test()
    with pytest.raises(OptionError, match="null values contradict"):
        both.joint_test(3.0)


def test_too_few_clusters_are_not_called_a_contradiction(curve):
    few = curve.assign(f=np.array(list("abcdef"))[np.arange(240) % 6], big=curve["g"] // 10)
    fit = lme4py.glmer("y ~ f + (1 | g)", few, "binomial")
    session = Margins.link_scale(fit, vcov="CR1", cluster=few["big"])
    with pytest.raises(OptionError, match="5 hypotheses, but their covariance has rank 2"):
        session.contrasts(reference("f")).joint_test()


def test_a_pickled_result_has_the_joint_tests_that_need_no_session(line):
    result = Margins.linear_scale(line).contrasts(*from_first([0, 1, 2, 3]))
    again = pickle.loads(pickle.dumps(result))
    pd.testing.assert_frame_equal(again.to_frame(), result.to_frame())
    with pytest.raises(OptionError, match="was pickled without it"):
        again.joint_test()
    linear = Margins.link_scale(line).contrasts(*from_first([0, 1, 2, 3]))
    assert pickle.loads(pickle.dumps(linear)).joint_test() == linear.joint_test()


# --- groups and what is set -------------------------------------------------------------------------------------


def test_a_variable_that_is_grouped_by_and_set_keeps_both(curve):
    data = curve.assign(t=np.array(["no", "yes"])[(curve["x"] > 2).astype(int)])
    fit = lme4py.glmer("y ~ z * t + (1 | g)", data, "binomial")
    m = Margins.linear_scale(fit)
    table = m.predict(atexog={"t": ["no", "yes"]}, over="t").to_frame()
    assert list(table[["over_t", "t"]].itertuples(index=False, name=None)) == [
        ("no", "no"),
        ("no", "yes"),
        ("yes", "no"),
        ("yes", "yes"),
    ]
    by_hand = [
        fit.predict(data[data["t"] == was].assign(t=now), include_random=False).mean()
        for was, now in zip(table["over_t"], table["t"], strict=True)
    ]
    np.testing.assert_allclose(table["estimate"], by_hand, rtol=1e-10)
    assert table["label"].is_unique
    effects = m.contrasts(pairwise("t", ["yes", "no"]), over="t")
    assert effects.labels == ("t: yes - no at over_t = no", "t: yes - no at over_t = yes")
    np.testing.assert_allclose(effects.estimate, [by_hand[1] - by_hand[0], by_hand[3] - by_hand[2]], rtol=1e-9)
    changes = m.dydx("t", over="t")
    np.testing.assert_allclose(changes.estimate, effects.estimate, rtol=1e-12)
    assert changes.scenarios["over_t"] == ["no", "yes"]
    fixed = Margins.linear_scale(fit, at={"t": "no"}).predict(over="t").to_frame()
    np.testing.assert_allclose(fixed["estimate"], [by_hand[0], by_hand[2]], rtol=1e-10)
    assert fixed["over_t"].tolist() == ["no", "yes"]
    # Nothing is set: the group is what it is called.
    assert "t" in m.predict(over="t").scenarios


@pytest.mark.parametrize("at", ["overall", "balanced", "mean", "median", "typical"])
def test_an_offset_counts_alike_however_it_was_spelt(at):
    rng = np.random.default_rng(2)
    g = np.repeat(np.arange(20), 6)
    data = pd.DataFrame({"g": g, "x": rng.normal(size=120), "f": np.array(list("abc"))[np.arange(120) % 3]})
    data["t"] = rng.uniform(1, 9, 120)
    data["lt"] = np.log(data["t"])
    data["n"] = rng.poisson(data["t"] * np.exp(-0.5 + 0.3 * data["x"] + 0.3 * rng.normal(size=20)[g]))
    fits = [
        lme4py.glmer("n ~ f + x + offset(log(t)) + (1 | g)", data, "poisson"),
        lme4py.glmer("n ~ f + x + offset(lt) + (1 | g)", data, "poisson"),
        lme4py.glmer("n ~ f + x + (1 | g)", data, "poisson", offset="lt"),
        lme4py.glmer("n ~ f + x + (1 | g)", data, "poisson", offset=data["lt"].to_numpy()),
        lme4py.mepoisson(data, "n", ["f", "x"], "g", offset="lt"),
    ]
    sessions = [Margins.linear_scale(fit, at=at) for fit in fits]
    for ask in (
        lambda m: m.predict(atexog={"f": ["a", "b"]}),
        lambda m: m.predict(over="f"),
        lambda m: m.contrasts(reference("f")),
        lambda m: m.dydx("x"),
    ):
        first, *rest = (ask(m) for m in sessions)
        for other in rest:
            # Five fits of one model, each to about nine digits.
            np.testing.assert_allclose(other.estimate, first.estimate, rtol=1e-6)
            np.testing.assert_allclose(other.std_error, first.std_error, rtol=1e-5)
    if at == "balanced":
        fit = fits[0]
        x = np.array([1.0, 0.0, 0.0, data["x"].mean()])
        expected = np.exp(x @ fit.params.to_numpy() + data["lt"].mean())
        assert sessions[0].predict(atexog={"f": ["a"]}).estimate[0] == pytest.approx(expected, rel=1e-9)
        # What sets the columns of an offset sets the offset.
        set_to = sessions[0].predict(atexog={"f": ["a"], "t": [1.0]}).estimate[0]
        assert set_to == pytest.approx(np.exp(x @ fit.params.to_numpy()), rel=1e-9)
        by_column = sessions[2].predict(atexog={"f": ["a"], "lt": [0.0]}).estimate[0]
        assert by_column == pytest.approx(set_to, rel=1e-6)
