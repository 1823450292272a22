"""Models made from parameters: what they draw has the mean and the covariance that the parameters say."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import lme4py
from lme4py import extend, glmer, lmer, load_dataset, make_model
from lme4py.errors import OptionError

ROWS = pd.DataFrame([(g, i) for g in range(8) for i in range(6)], columns=["g", "i"])
ROWS["x"] = ROWS.i / 6
ROWS["f"] = np.where(ROWS.i % 2, "b", "a")
ROWS["size"] = 10
BETA = {"(Intercept)": 0.2, "x": 0.5}


def test_linear_draws_have_the_covariance_of_the_parameters():
    params = {
        "beta": {"Intercept": 1.0, "x": -2.0, "f[T.b]": 0.5},
        "sd": {"g": {"Intercept": 1.5, "x": 2.0}, "i": 0.7},
        "corr": {"g": -0.4},
        "sigma": 0.8,
    }
    model = make_model("y ~ x + f + (x | g) + (1 | i)", ROWS, params)
    Y = model.simulate(4000, seed=3).to_numpy()
    Z = np.column_stack([np.ones(48), ROWS.x])
    S = np.array([[1.5**2, -0.4 * 3.0], [-0.4 * 3.0, 4.0]])
    same = ROWS.g.to_numpy()[:, None] == ROWS.g.to_numpy()
    V = (Z @ S @ Z.T) * same + 0.49 * (ROWS.i.to_numpy()[:, None] == ROWS.i.to_numpy()) + 0.64 * np.eye(48)
    mean = 1.0 - 2.0 * ROWS.x + 0.5 * (ROWS.f == "b")
    # Means of 4,000 draws: 5 standard errors, 48 of them.
    assert np.all(np.abs(Y.mean(axis=1) - mean) < 5 * np.sqrt(V.diagonal() / 4000))
    error = np.sqrt((np.outer(V.diagonal(), V.diagonal()) + V**2) / 4000)
    # 1,176 covariances: 5 standard errors each.
    assert np.all(np.abs(np.cov(Y) - V) < 5 * error)


@pytest.mark.parametrize(
    ("family", "extra", "mean"),
    [
        ("binomial", {}, lambda eta: 1 / (1 + np.exp(-eta))),
        ("poisson", {}, np.exp),
        ("nbinomial", {"dispersion": 2.0}, np.exp),
        ("nbinomial1", {"dispersion": 0.5}, np.exp),
        ("gamma", {"dispersion": 0.5}, np.exp),
        ("inverse_gaussian", {"dispersion": 0.3}, np.exp),
        ("beta", {"dispersion": 5.0}, lambda eta: 1 / (1 + np.exp(-eta))),
        ("tweedie", {"dispersion": 1.0, "family": {"power": 1.5}}, np.exp),
        ("t", {"sigma": 1.0, "family": {"df": 5.0}}, lambda eta: eta),
        ("lognormal", {"dispersion": 0.5}, np.exp),
        ("genpois", {"dispersion": 1.5}, np.exp),
        ("truncated_poisson", {}, lambda eta: np.exp(eta) / -np.expm1(-np.exp(eta))),
    ],
)
def test_every_family_draws_around_its_mean(family, extra, mean):
    model = make_model("y ~ x + (1 | g)", ROWS, {"beta": BETA, "sd": {"g": 1e-6}, **extra}, family)
    Y = model.simulate(2000, seed=1).to_numpy()
    expected = mean(0.2 + 0.5 * ROWS.x.to_numpy())
    # 48 means of 2,000 draws: 5 standard errors.
    assert np.all(np.abs(Y.mean(axis=1) - expected) < 5 * Y.std(axis=1) / np.sqrt(2000))


def test_parts_and_categories():
    zi = {"beta": BETA, "sd": {"g": 1e-6}, "zi": {"Intercept": -0.5, "x": 1.0}}
    Y = make_model("y ~ x + (1 | g)", ROWS, zi, "poisson", ziformula="~ x").simulate(2000, seed=1).to_numpy()
    p = 1 / (1 + np.exp(0.5 - ROWS.x))
    expected = p + (1 - p) * np.exp(-np.exp(0.2 + 0.5 * ROWS.x))
    # Shares of zeros: 5 binomial standard errors.
    assert np.all(np.abs((Y == 0).mean(axis=1) - expected) < 5 * np.sqrt(expected * (1 - expected) / 2000))
    wide = {"beta": BETA, "sd": {"g": 1e-6}, "disp": {"Intercept": 0.0, "x": 1.0}}
    Y = make_model("y ~ x + (1 | g)", ROWS, wide, dispformula="~ x").simulate(2000, seed=1).to_numpy()
    # Relative standard error of a standard deviation is 1 / sqrt(4000).
    assert np.all(np.abs(np.log(Y.std(axis=1)) - ROWS.x) < 5 / np.sqrt(4000))
    cuts = {"beta": {"x": 0.5}, "sd": {"g": 1e-6}, "thresholds": [-1.0, 0.5]}
    Y = make_model("y ~ x + (1 | g)", ROWS, cuts, "ordinal").simulate(2000, seed=1).to_numpy()
    below = 1 / (1 + np.exp(1.0 + 0.5 * ROWS.x))
    assert np.all(np.abs((Y == 1).mean(axis=1) - below) < 5 * np.sqrt(below * (1 - below) / 2000))


@pytest.mark.parametrize(
    ("formula", "kw"), [("cbind(s, size - s) ~ x + (1 | g)", {}), ("s / size ~ x + (1 | g)", {"weights": "size"})]
)
def test_trials(formula, kw):
    params = {"beta": BETA, "sd": {"g": 0.3}}
    one = make_model(formula, ROWS, params, "binomial", **kw)
    assert (one.fit.data.trials == 10).all()
    values = one.simulate(2, seed=1).to_numpy() * (10 if kw else 1)
    np.testing.assert_allclose(values, values.round(), atol=1e-12)  # rounding of a division by ten
    assert one.params["beta"] == pytest.approx({"Intercept": 0.2, "x": 0.5})


def test_unordered_categories():
    rows = pd.DataFrame({"y": list("ABC") * 1200, "x": np.tile([-1.0, 1.0], 1800), "g": np.repeat(np.arange(400), 9)})
    beta = {"B: Intercept": 0.2, "B: x": 0.5, "C: Intercept": 0.0, "C: x": -0.4}
    params = {"beta": beta, "sd": {"g": [0.5, 0.8]}, "corr": {"g": 0.4}}
    model = make_model("y ~ x + (1 | g)", rows, params, family="multinomial")
    drawn = model.simulate(1, seed=1)["sim_1"].to_numpy()
    again = glmer("y ~ x + (1 | g)", rows.assign(y=drawn), family="multinomial")
    # Estimates of 3,600 rows: within three and a half of their standard errors.
    assert (np.abs(again.params - pd.Series(beta)) < 3.5 * again.bse).all()
    sd = again.var_corr().set_index("name1")["sdcor"]
    assert sd.iloc[:2].tolist() == pytest.approx([0.5, 0.8], abs=0.2)
    with pytest.raises(OptionError, match="say which categories there"):
        make_model("y ~ x + (1 | g)", rows.drop(columns="y"), params, family="multinomial")
    with pytest.raises(OptionError, match="Did you mean 'B: x'"):
        make_model("y ~ x + (1 | g)", rows, {**params, "beta": {"B: xx": 1.0}}, family="multinomial")


def test_simulation_of_a_fit_with_other_rows_and_parameters():
    data = load_dataset("sleepstudy")
    fit = lmer("Reaction ~ poly(Days, 2) + (Days | Subject)", data)
    assert fit.simulate(2, seed=1).equals(fit.simulate(2, seed=1, data=data))
    rows = pd.DataFrame({"Days": [0.0, 4.5], "Subject": ["new", "308"]})
    quiet = {"sd": {"Subject": {"Intercept": 0.0, "Days": 0.0}}, "sigma": 1e-9}
    drawn = fit.simulate(1, seed=1, data=rows, params=quiet)["sim_1"]
    wanted = fit.predict(rows, include_random=False)
    # A residual standard deviation of 1e-9.
    np.testing.assert_allclose(drawn, wanted, atol=1e-7)
    with pytest.raises(OptionError, match="no conditional modes"):
        fit.simulate(1, data=rows, include_random=True)
    kept = fit.simulate(1, seed=1, data=rows[1:], include_random=True, params={"sigma": 1e-9})["sim_1"]
    np.testing.assert_allclose(kept, fit.predict(rows[1:]), atol=1e-7)
    cows = glmer("cbind(incidence, size - incidence) ~ period + (1 | herd)", load_dataset("cbpp"))
    assert cows.simulate(2, seed=1).equals(cows.simulate(2, seed=1, data=load_dataset("cbpp")))


def test_extension():
    fit = lmer("Reaction ~ poly(Days, 2) + (Days | Subject)", load_dataset("sleepstudy"))
    more = extend(fit, along="Subject", n=40)
    assert more.n_groups == {"Subject": 40}
    # Bases stay those of the fit: the rows of a copy are the rows of its original.
    np.testing.assert_array_equal(more.fit.design.X[180:360], more.fit.design.X[:180])
    np.testing.assert_allclose(more.fit.design.X[:180], fit.fit.design.X, rtol=1e-12)  # replayed by other sums
    np.testing.assert_array_equal(more.fit.beta, fit.fit.beta)
    assert extend(fit, along="Days", n=5).n_obs == 90
    assert extend(fit, within="Subject", n=25).n_obs == 450
    assert extend(fit, along="Subject", n=30, sizes=[3, 5, 10]).n_obs == 180
    assert 300 < extend(fit, along="Subject", n=40, dropout=0.3).n_obs < 400
    nested = lmer("strength ~ 1 + (1 | batch/cask)", load_dataset("Pastes"))
    assert extend(nested, along="batch", n=20).n_groups == {"cask:batch": 60, "batch": 20}
    crossed = lmer("diameter ~ 1 + (1 | plate) + (1 | sample)", load_dataset("Penicillin"))
    assert extend(crossed, along="plate", n=50).n_groups == {"plate": 50, "sample": 6}
    own = make_model(
        "y ~ x + (1 | a) + (1 | b)",
        ROWS.assign(a=ROWS.g, b=ROWS.g * 10 + ROWS.i // 3),
        {
            "beta": BETA,
            "sd": {"a": 1.0, "b": 0.5},
            "sigma": 1.0,
        },
    )
    # Levels that lie in one level of the factor are other ones in its copies.
    assert extend(own, along="a", n=24).n_groups == {"b": 48, "a": 24}
    with pytest.raises(OptionError, match="have coefficients"):
        extend(glmer("cbind(incidence, size - incidence) ~ period + (1 | herd)", load_dataset("cbpp")), "period", 9)
    with pytest.raises(OptionError, match="too few different rows"):
        extend(fit, along="Days", values=[0, 4.5])


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"beta": {"x": 1.0}, "sd": {"g": 1.0}, "sigma": 1.0}, "no value for Intercept"),
        ({"beta": BETA, "sd": {"h": 1.0}, "sigma": 1.0}, "'h', which is no grouping factor"),
        ({"beta": BETA, "sd": {"g": -1.0}, "sigma": 1.0}, "at least 0"),
        ({"beta": BETA, "sd": {"g": 1.0}}, "no 'sigma'"),
        ({"betas": BETA}, "Did you mean 'beta'"),
        ({"beta": BETA | {"y": 1.0}, "sd": {"g": 1.0}, "sigma": 1.0}, "'y', which the model does not have"),
        ({"beta": BETA, "sd": {"g": 1.0}, "sigma": 1.0, "zi": {"Intercept": 1.0}}, "does not have"),
    ],
)
def test_parameters_are_checked_by_name(params, message):
    with pytest.raises(OptionError, match=message):
        lme4py.simulate("y ~ x + (1 | g)", ROWS, params)
