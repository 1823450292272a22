"""One question has one answer: degrees of freedom and levels are those of the fit everywhere."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from dense_models import DESIGNS
from scipy import stats
from test_prediction_intervals import dense_variance

import lme4py
from lme4py import Margins
from lme4py.errors import OptionError
from lme4py.fits.answers.noise import Noise
from lme4py.fits.kinds import model_of
from lme4py.inference.prediction.predictor_error import predictor_error
from lme4py.inference.prediction.rows import make_rows

SLEEP = {"y": "Reaction", "x_fixed": ["Days"], "group": "Subject", "x_random": ["Days"]}


@pytest.fixture(scope="module")
def sleepstudy():
    return lme4py.load_dataset("sleepstudy")


@pytest.fixture(scope="module")
def fits(sleepstudy):
    """Fits with each default, and what it is called."""
    contraception = lme4py.load_dataset("Contraception")
    return {
        "satterthwaite": lme4py.lmer("Reaction ~ Days + (Days | Subject)", sleepstudy),
        "kenward-roger": lme4py.mixed(sleepstudy, **SLEEP, ddf="kenward-roger", alpha=0.1),
        "residual": lme4py.mixed(sleepstudy, **SLEEP, ddf="residual", alpha=0.2),
        "normal": lme4py.mixed(sleepstudy, **SLEEP),
        "normal, generalised": lme4py.glmer("use ~ age + (1 | district)", contraception, "binomial"),
        "residual, generalised": lme4py.melogit(contraception, "use", ["age"], "district", ddf="residual", alpha=0.1),
    }


def level_of(fit):
    return 1.0 - fit.fit.conventions.alpha


@pytest.mark.parametrize("name", ["satterthwaite", "kenward-roger", "residual", "normal"])
def test_every_method_gives_the_same_interval_and_test_of_a_coefficient(fits, name):
    fit = fits[name]
    assert fit.default_ddf == fit.fit.default_ddf == name
    table, limits = fit.coef_table(), fit.conf_int()
    half = stats.t.ppf(0.5 + level_of(fit) / 2, table["df"]) * table["std_error"]
    for side, sign in (("lower", -1), ("upper", 1)):
        # Quantiles of two libraries.
        np.testing.assert_allclose(limits[side], table["estimate"] + sign * half, rtol=1e-10)
    tidy = fit.tidy(conf_int=True, effects="fixed").set_index("term")
    np.testing.assert_array_equal(tidy[["conf_low", "conf_high"]], limits)
    np.testing.assert_array_equal(tidy["p_value"], table["p_value"])
    slope = Margins.linear_scale(fit).dydx("Days").to_frame().iloc[0]
    expected = [table.loc["Days", "std_error"], table.loc["Days", "p_value"], *limits.loc["Days"], level_of(fit)]
    found = slope[["std_error", "p_value", "ci_lower", "ci_upper", "conf_level"]].to_numpy(dtype=float)
    np.testing.assert_allclose(found, expected, rtol=1e-9)  # the same numbers by way of a design
    assert fit.contest("Days")["p_value"].iloc[0] == pytest.approx(table.loc["Days", "p_value"], rel=1e-9)
    assert fit.anova().loc["Days", "p_value"] == pytest.approx(table.loc["Days", "p_value"], rel=1e-9)
    assert fit.drop1().loc["Days", "p_value"] == pytest.approx(table.loc["Days", "p_value"], rel=1e-9)
    assert lme4py.compare(fit).to_frame().iloc[1, 1] == table.loc["Days", "std_error"]
    records = fit.to_dict()["fixed_effects"]
    assert [record["p_value"] for record in records] == table["p_value"].tolist()


@pytest.mark.parametrize("name", ["satterthwaite", "kenward-roger", "residual", "normal"])
def test_predictions_and_plots_have_the_interval_of_the_margins(fits, name):
    fit = fits[name]
    new = {"Days": [0.0, 4.0, 20.0]}
    margins = Margins.linear_scale(fit).predict(atexog=new).to_frame()
    for choice in (False, "integrate"):
        table = fit.predict(pd.DataFrame(new), include_random=choice, interval="confidence")
        np.testing.assert_allclose(table, margins[["estimate", "ci_lower", "ci_upper"]], rtol=1e-9)
    drawn = fit.plot_data("effect", "Days", n_points=3)
    grid = Margins.linear_scale(fit).predict(atexog={"Days": drawn["Days"].tolist()}).to_frame()
    np.testing.assert_allclose(drawn[["lower", "upper"]], grid[["ci_lower", "ci_upper"]], rtol=1e-9)


@pytest.mark.parametrize("name", ["normal, generalised", "residual, generalised"])
def test_generalised_fits_have_one_default_too(fits, name):
    fit = fits[name]
    table, limits = fit.coef_table(), fit.conf_int()
    df = fit.n_obs - 2 if name.startswith("residual") else np.inf
    assert (table["df"] == df).all()
    half = stats.t.ppf(0.5 + level_of(fit) / 2, df) * table["std_error"]
    np.testing.assert_allclose(limits["upper"], table["estimate"] + half, rtol=1e-10)
    np.testing.assert_allclose(fit.odds_ratios()[["lower", "upper"]], np.exp(limits), rtol=1e-12)
    slope = Margins.link_scale(fit).dydx("age").to_frame().iloc[0]
    np.testing.assert_allclose(slope[["ci_lower", "ci_upper"]].to_numpy(float), limits.loc["age"], rtol=1e-9)
    assert slope["p_value"] == pytest.approx(table.loc["age", "p_value"], rel=1e-9)
    zero = fit.predict(pd.DataFrame({"age": [0.0]}), include_random=False, interval="confidence", type="linear")
    np.testing.assert_allclose(zero[["lower", "upper"]].to_numpy()[0], limits.iloc[0], rtol=1e-12)
    drawn = fit.plot_data("effect", "age", type="linear", n_points=3)
    half = (drawn["upper"] - drawn["lower"]) / 2
    np.testing.assert_allclose(half, stats.t.ppf(0.5 + level_of(fit) / 2, df) * drawn["std_error"], rtol=1e-10)
    assert ("P(>|t|)" in fit.summary() or "P>|t|" in fit.summary()) == name.startswith("residual")
    # A summary that was asked for degrees of freedom has them, in the formula door too.
    assert "t value" in fits["normal, generalised"].summary(ddf="residual")


def test_alpha_of_the_fit_reaches_every_interval(sleepstudy):
    """The 80 % limits of a fit with alpha=.2 are those that are asked for by name of a fit without."""
    wide, plain = (lme4py.mixed(sleepstudy, **SLEEP, **more) for more in ({}, {"alpha": 0.2}))
    new = sleepstudy.head(3)
    pairs = [
        (plain.conf_int(parm="all"), wide.conf_int(0.2, parm="all")),
        (plain.conf_int(method="profile", parm="sigma"), wide.conf_int(0.2, "profile", "sigma")),
        (plain.profile("Days").conf_int(), wide.profile("Days").conf_int(0.2)),
        (plain.variance_table(), wide.variance_table(0.2)),
        (plain.icc_table(), wide.icc_table(0.2)),
        (plain.tidy(conf_int=True), wide.tidy(conf_int=True, conf_level=0.8)),
        (plain.predict(new, interval="confidence"), wide.predict(new, interval="confidence", alpha=0.2)),
        (plain.predict(new, interval="prediction"), wide.predict(new, interval="prediction", alpha=0.2)),
        (plain.bootstrap(20, seed=1).conf_int(), wide.bootstrap(20, seed=1).conf_int(0.2)),
        (plain.plot_data("caterpillar"), wide.plot_data("caterpillar", alpha=0.2)),
        (plain.plot_data("qq"), wide.plot_data("qq", alpha=0.2)),
        (plain.plot_data("effect", "Days"), wide.plot_data("effect", "Days", alpha=0.2)),
        (Margins.linear_scale(plain).dydx().to_frame(), Margins.linear_scale(wide, level=0.8).dydx().to_frame()),
    ]
    for found, expected in pairs:
        # 1 - 0.8 is not 0.2 to the last digit.
        pd.testing.assert_frame_equal(found, expected, rtol=1e-12)
    assert lme4py.icc(plain) == lme4py.icc(wide, alpha=0.2)
    wine = {"data": lme4py.load_dataset("wine"), "y": "rating", "x_fixed": ["temp"], "group": "judge"}
    plain, wide = lme4py.meologit(**wine, alpha=0.2), lme4py.meologit(**wine)
    found = plain.predict(interval="confidence")
    assert found.equals(wide.predict(interval="confidence", alpha=0.2))
    assert plain.odds_ratios().equals(wide.odds_ratios(0.2))


def test_draws_have_limits_of_the_same_degrees_of_freedom_as_their_tests(fits):
    """A p-value is below alpha where its interval leaves out the null value; percentiles of normal draws are z's."""
    session = Margins.linear_scale(fits["satterthwaite"], method="simulation", n_sim=20_000, rng_seed=3)
    result = session.dydx("Days")
    assert result.df == pytest.approx([17.0], rel=1e-6)
    assert result.statistic_name == "t"
    low, high = result.limits(0.95)
    # 20,000 draws: a quantile of t(17) is known to about 1 %.
    half = stats.t.ppf(0.975, 17) * result.se
    np.testing.assert_allclose([low, high], [result.value - half, result.value + half], rtol=0.02)
    assert "widened for the degrees of freedom" in result.summary()
    plain = Margins.linear_scale(fits["satterthwaite"], method="simulation", n_sim=200, rng_seed=3, ddf="normal")
    one = plain.dydx("Days")
    np.testing.assert_allclose(np.ravel(one.limits(0.9)), np.quantile(one.draws, [0.05, 0.95]), rtol=1e-9)


def test_a_robust_covariance_brings_its_degrees_of_freedom_to_margins(fits):
    for name in ("satterthwaite", "normal"):
        table = fits[name].coef_table(vcov="CR2").loc["Days"]
        slope = Margins.linear_scale(fits[name], vcov="CR2").dydx("Days")
        np.testing.assert_allclose([slope.se[0], slope.df[0]], table[["std_error", "df"]].to_numpy(float), rtol=1e-9)
        assert fits[name].contest("Days", vcov="CR2")["den_df"].iloc[0] == pytest.approx(table["df"], rel=1e-9)
    with pytest.raises(OptionError, match="is for linear mixed models"):
        Margins.link_scale(fits["normal, generalised"], vcov="CR1", ddf="satterthwaite")


# --- degrees of freedom of predictions with random effects ------------------------------------------------------


def dense_df(fit, noise):
    """2 v^2 / g'Ag by central differences in (theta, log sigma) of the variance by the inverse of V."""
    m = fit.theta.size
    A = model_of(fit).variance_information().covariance[: m + 1, : m + 1]
    structures, scaling = fit.problem.structures, fit.problem.scaling
    X, Z = fit.design.X, fit.design.Zt.T.toarray()
    w = np.ones(X.shape[0]) if fit.design.weights is None else fit.design.weights

    def variance(change):
        sigma = fit.sigma * np.exp(change[m])
        factors = structures.factors(fit.theta_inside + change[:m])
        roots = [sigma / np.sqrt(scaling.weight_scale) * S @ T for S, T in zip(scaling.S, factors, strict=True)]
        moved = replace(fit, sigma=sigma, covariances=tuple(root @ root.T for root in roots))
        return dense_variance(moved, X, Z) + (sigma**2 / w if noise else 0.0)

    h, value = 1e-4, variance(np.zeros(m + 1))
    gradient = np.array([(variance(h * e) - variance(-h * e)) / (2 * h) for e in np.eye(m + 1)])
    return 2.0 * value**2 / np.einsum("in,ij,jn->n", gradient, A, gradient)


@pytest.mark.parametrize("name", ["intercept", "crossed", "weights and offset"])
def test_satterthwaite_of_predictions_equals_dense_algebra(name):
    """Some of these fits are singular: a variance of zero has no derivative on either side."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = lme4py.lmm_fit(DESIGNS[name])
    rows = make_rows(fit, None, range(len(fit.design.terms)))
    w = np.ones(rows.n) if fit.design.weights is None else fit.design.weights
    known = predictor_error(fit, rows)
    new = predictor_error(fit, rows, new=True, noise=Noise(fit.sigma**2 / w))
    # Second-order differences by hand, and another Hessian.
    np.testing.assert_allclose(known.df, dense_df(fit, noise=False), rtol=2e-6)
    np.testing.assert_allclose(new.df, dense_df(fit, noise=True), rtol=2e-6)


def test_prediction_limits_of_a_new_group_have_the_degrees_of_freedom_of_the_whole_variance():
    """One-way balanced data: the variance of a new row of a new batch is a sum of two mean squares.

    v = a MSB + b MSE with a = (1 + 1/J) / n and b = 1 - 1/n, so that Satterthwaite's (1946) own formula gives
    df = v^2 / ((a MSB)^2 / (J - 1) + (b MSE)^2 / (N - J)).
    """
    data = lme4py.load_dataset("Dyestuff")
    fit = lme4py.lmer("Yield ~ 1 + (1 | Batch)", data)
    J, n = 6, 5
    means = data.groupby("Batch", observed=True)["Yield"].transform("mean")
    between = ((means - data["Yield"].mean()) ** 2).sum() / (J - 1)
    within = ((data["Yield"] - means) ** 2).sum() / (J * n - J)
    parts = np.array([(1 + 1 / J) / n * between, (1 - 1 / n) * within])
    df = parts.sum() ** 2 / (parts[0] ** 2 / (J - 1) + parts[1] ** 2 / (J * n - J))
    table = fit.predict(data.head(1), include_random=False, interval="prediction")
    half = (table["upper"] - table["lower"]).iloc[0] / 2
    # REML stops at about eight digits of the mean squares.
    assert half == pytest.approx(stats.t.ppf(0.975, df) * np.sqrt(parts.sum()), rel=1e-6)
