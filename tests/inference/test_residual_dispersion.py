"""The dispersion part of a linear model: coefficients of the logarithm of the residual standard deviation."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import lme4py

S = lme4py.load_dataset("sleepstudy")
# R, glmmTMB 1.1.5, which has the logarithm of the variance, twice that of the standard deviation: summary(glmmTMB(
# Reaction ~ Days + (1 | Subject), sleepstudy, REML = TRUE or FALSE, dispformula = ~ Days))$coefficients$disp
GLMMTMB = {
    True: ([6.0829310083, 0.1647230587], [0.25533385091, 0.05125646675]),
    False: ([6.0693082948, 0.1663807971], [0.25369340804, 0.05095308045]),
}


@pytest.fixture(scope="module", params=[True, False])
def fit(request):
    return lme4py.lmer("Reaction ~ Days + (1 | Subject)", S, reml=request.param, dispformula="~ Days")


def test_estimates_and_errors_are_those_of_glmmtmb(fit):
    table = fit.coef_table(component="dispersion")
    estimate, error = GLMMTMB[fit.fit.reml]
    # glmmTMB stops where its gradient is about 1e-6, and differentiates for its Hessian by differences.
    np.testing.assert_allclose(2.0 * table["estimate"], estimate, rtol=1e-5)
    np.testing.assert_allclose(2.0 * table["std_error"], error, rtol=1e-4)
    assert list(table.index) == ["Intercept", "Days"]
    assert fit.components == ("conditional", "dispersion")


def test_every_door_has_the_same_numbers(fit):
    table = fit.coef_table(component="dispersion")
    limits = fit.conf_int(component="dispersion")
    half = 1.959963984540054 * table["std_error"]
    # Rounding of the quantile and of sums.
    np.testing.assert_allclose(limits["upper"], table["estimate"] + half, rtol=1e-10)
    tidy = fit.tidy(component="dispersion", conf_int=True)
    np.testing.assert_array_equal(tidy["std_error"], table["std_error"])
    np.testing.assert_array_equal(tidy["conf_low"], limits["lower"])
    V = fit.cov_params(component="all")
    np.testing.assert_array_equal(np.sqrt(np.diag(V))[2:], table["std_error"])
    assert (V.to_numpy()[:2, 2:] == 0.0).all()
    assert fit.conf_int(component="all", parm="dispersion: Days").iloc[0].tolist() == limits.loc["Days"].tolist()
    tests = fit.anova(component="dispersion")
    # One degree of freedom: the square of z.
    assert tests["F"].iloc[0] == pytest.approx(table.loc["Days", "statistic"] ** 2, rel=1e-8)
    assert "Dispersion part (log)" in str(fit.summary())


def test_a_slim_result_keeps_them(fit):
    slim = fit.slim()
    assert slim.coef_table(component="dispersion").equals(fit.coef_table(component="dispersion"))
    assert "Dispersion part (log)" in str(slim.summary())


@pytest.mark.parametrize(
    "call",
    [
        lambda f: f.coef_table("kenward-roger", component="dispersion"),
        lambda f: f.coef_table(vcov="CR2", component="all"),
        lambda f: f.conf_int(component="dispersion", method="profile"),
        lambda f: f.conf_int(component="dispersion", parm=["Dais"]),
        lambda f: f.ranef(component="dispersion"),
        lambda f: lme4py.Margins.response(f, component="dispersion"),
    ],
)
def test_what_is_not_there_is_refused(fit, call):
    with pytest.raises(lme4py.OptionError, match="dispersion part"):
        call(fit)


def test_limits_of_unequal_residual_deviations():
    plain = lme4py.lmer("Reaction ~ Days + (1 | Subject)", S, variance="exp(Days)")
    same = lme4py.lmer("Reaction ~ Days + (1 | Subject)", S, dispformula="~ Days")
    row = plain.tidy(conf_int=True).set_index("term").loc["sd__Observation"]
    own = same.conf_int(component="dispersion").loc["Intercept"]
    # The same model, whose limits are those of the logarithm: two optima of one criterion.
    np.testing.assert_allclose(np.log([row["conf_low"], row["conf_high"]]), own, rtol=1e-6)
    with pytest.raises(lme4py.OptionError, match="no part 'dispersion'"):
        plain.coef_table(component="dispersion")


def test_origins_and_units_of_the_covariates_of_the_variance_do_not_matter():
    """The same model from 50 away and in units of a million: the constant is another number, and nothing else."""
    rng = np.random.default_rng(3)
    g, x = np.repeat(np.arange(15), 8), rng.normal(size=120)
    y = 0.4 * x + 0.6 * rng.normal(size=15)[g] + np.exp(0.3 * x) * rng.normal(size=120)
    data = pd.DataFrame({"y": y, "x": x, "g": g})
    here = lme4py.lmer("y ~ x + (1 | g)", data, dispformula="~ x")
    for origin, unit in ((50.0, 1.0), (0.0, 1e6)):
        there = lme4py.lmer("y ~ x + (1 | g)", data.assign(x=origin + unit * x), dispformula="~ x")
        # REML counts the determinant of X.
        assert there.criterion == pytest.approx(here.criterion + 2.0 * np.log(unit), abs=1e-8)
        old, new = here.coef_table(component="dispersion"), there.coef_table(component="dispersion")
        # Two searches that stop where the criterion can fall by 1e-12; errors by differences of 1e-5.
        assert unit * new.iloc[1, 0] == pytest.approx(old.iloc[1, 0], rel=1e-5)
        assert unit * new.iloc[1, 1] == pytest.approx(old.iloc[1, 1], rel=1e-5)
        assert np.log(there.sigma) == pytest.approx(np.log(here.sigma) - origin / unit * old.iloc[1, 0], abs=1e-4)
        np.testing.assert_allclose(there.fittedvalues, here.fittedvalues, rtol=1e-4)
        limits = there.conf_int(method="profile", parm=["sigma", "residual x"]).to_numpy()
        old_limits = here.conf_int(method="profile", parm=["sigma", "residual x"]).to_numpy()
        np.testing.assert_allclose(unit * limits[1], old_limits[1], rtol=1e-4)


def test_a_standard_deviation_that_has_no_number_is_refused():
    rng = np.random.default_rng(3)
    x = rng.normal(size=200)
    data = pd.DataFrame(
        {"y": np.exp(0.5 * x) * rng.normal(size=200), "x": x + 2000.0, "g": np.repeat(np.arange(20), 10)}
    )
    with pytest.raises(lme4py.errors.DesignError, match="take the mean of its covariates off"):
        lme4py.lmer("y ~ 1 + (1 | g)", data, dispformula="~ x")


def test_random_effects_in_the_dispersion_have_another_call():
    with pytest.raises(lme4py.OptionError, match=r"use glmer\(\.\.\., family='gaussian'\)"):
        lme4py.lmer("Reaction ~ Days + (1 | Subject)", S, dispformula="~ 1 + (1 | Subject)")
