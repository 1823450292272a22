"""Families with parameters beside the mean: fits against glmmTMB, and everything after the fit."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from reference_data import REFERENCE
from scipy import stats
from scipy.optimize import minimize

import lme4py
from lme4py.errors import ConvergenceWarning, DataError, DesignError, Lme4Error, OptimaWarning, OptionError
from lme4py.families.registry import make_family

MODELS = json.loads((REFERENCE / "families.json").read_text(encoding="utf-8"))["models"]


def data_of(name):
    sal = lme4py.load_dataset("Salamanders")
    cbpp = lme4py.load_dataset("cbpp")
    if name in ("beta", "betabinomial"):
        return cbpp.assign(share=(cbpp["incidence"] + 0.5) / (cbpp["size"] + 1.0))
    if name == "t":
        return lme4py.load_dataset("sleepstudy")
    return sal[sal["spp"] == "DM"] if name == "compois" else sal


CALLS = {
    "beta": "share ~ period + (1 | herd)",
    "betabinomial": "cbind(incidence, size - incidence) ~ period + (1 | herd)",
    "compois": "count ~ mined + (1 | site)",
    "genpois": "count ~ mined + (1 | site)",
    "tweedie": "count ~ mined + (1 | site)",
}


@pytest.fixture(scope="module")
def fits():
    return {name: lme4py.glmer(formula, data_of(name), family=name) for name, formula in CALLS.items()}


@pytest.mark.parametrize("name", CALLS)
def test_the_optima_are_those_of_glmmtmb(fits, name):
    fit, reference = fits[name], MODELS[name]
    assert fit.converged
    assert fit.log_likelihood >= reference["log_likelihood"] - 1e-6
    # glmmTMB stops where its own gradient is about 1e-4.
    assert fit.log_likelihood == pytest.approx(reference["log_likelihood"], abs=1e-5)
    se = np.array(reference["cond"]["se"])
    np.testing.assert_allclose((fit.params - reference["cond"]["estimate"]) / se, 0.0, atol=3e-4)
    np.testing.assert_allclose(fit.bse, se, rtol=3e-4)
    # 2e-6 is glmmTMB's zero.
    assert np.sqrt(fit.var_corr()["vcov"].iloc[0]) == pytest.approx(reference["sd"][0], rel=1e-3, abs=1e-5)
    assert fit.dispersion == pytest.approx(reference["sigma"], rel=1e-3)
    np.testing.assert_allclose(fit.fittedvalues.to_numpy()[:6], reference["fitted"], rtol=1e-3)
    if name == "tweedie":
        assert fit.family_params == {"power": pytest.approx(reference["df"][0], rel=1e-4)}


def test_t_responses_find_the_heavy_tails():
    fit = lme4py.glmer("Reaction ~ Days + (1 | Subject)", data_of("t"), family="t")
    # glmmTMB stops at infinite degrees of freedom, 5.7 below.
    assert fit.log_likelihood > MODELS["t"]["log_likelihood"] + 5.0
    table = fit.tidy(conf_int=True)
    row = table[table["effect"] == "family"].iloc[0]
    assert row["term"] == "df"
    assert row["conf_low"] < row["estimate"] < row["conf_high"]
    limits = fit.conf_int(parm="all").loc["df"]
    np.testing.assert_allclose(limits, [row["conf_low"], row["conf_high"]], rtol=1e-10)
    assert "df = " in str(fit.summary())


def test_degrees_of_freedom_without_heavy_tails_are_infinite():
    rng = np.random.default_rng(1)
    g, x = np.repeat(np.arange(20), 10), rng.normal(size=200)
    data = pd.DataFrame({"g": g, "x": x, "y": x + rng.normal(size=20)[g] + rng.uniform(-1.0, 1.0, 200)})
    fit = lme4py.glmer("y ~ x + (1 | g)", data, family="t")
    assert fit.family_params == {"df": np.inf}
    assert "the gaussian model" in fit.certificate.verdict
    # The gaussian model itself.
    assert fit.log_likelihood == pytest.approx(
        lme4py.lmer("y ~ x + (1 | g)", data, reml=False).log_likelihood, abs=1e-6
    )
    assert fit.conf_int(parm="all").loc["df"].isna().all()


def test_counts_more_variable_than_any_conway_maxwell_distribution_are_geometric():
    fit = lme4py.glmer("count ~ mined + (1 | site)", lme4py.load_dataset("Salamanders"), family="compois")
    reference = MODELS["geometric"]
    assert fit.dispersion == np.inf
    assert "the geometric distribution" in fit.certificate.verdict
    # A phi of e^30 stands for an infinite one.
    assert fit.log_likelihood == pytest.approx(reference["log_likelihood"], abs=1e-6)
    se = np.array(reference["cond"]["se"])
    np.testing.assert_allclose((fit.params - reference["cond"]["estimate"]) / se, 0.0, atol=3e-4)
    np.testing.assert_allclose(fit.bse, se, rtol=3e-4)


def test_counts_of_which_only_two_occur_have_no_phi():
    rng = np.random.default_rng(1)
    data = pd.DataFrame({"g": np.repeat(np.arange(10), 8), "y": rng.integers(0, 2, 80)})
    with pytest.warns(ConvergenceWarning, match="phi goes to zero"):
        fit = lme4py.glmer("y ~ 1 + (1 | g)", data, family="compois")
    assert not fit.converged


def test_logarithmic_counts_have_no_truncated_negative_binomial():
    """Shape and mean go to zero together; beta and the shape were printed as numbers with errors of thousands."""
    rng = np.random.default_rng(3)
    data = pd.DataFrame({"g": np.arange(200) % 12, "x": rng.normal(size=200), "y": rng.logseries(0.6, 200)})
    with pytest.warns(ConvergenceWarning, match="the shape and the means before truncation go to zero together"):
        fit = lme4py.glmer("y ~ x + (1 | g)", data, family="truncated_nbinomial")
    assert not fit.converged

    # The limit itself: log P(y) = y log(q) - log(y) - log(-log(1 - q)) with odds q / (1 - q) = exp(a + b x).
    def minus(ab):
        q = 1.0 / (1.0 + np.exp(-ab[0] - ab[1] * data["x"]))
        return -(data["y"] * np.log(q) - np.log(data["y"]) - np.log(-np.log1p(-q))).sum()

    assert fit.log_likelihood == pytest.approx(-minimize(minus, [0.0, 0.0]).fun, abs=1e-5)
    with pytest.raises(Lme4Error, match="go to zero together"):
        fit.r_squared()


@pytest.mark.parametrize("zeros", [0, 40])
def test_logarithmic_counts_have_no_truncated_negative_binomial_of_either_kind(zeros):
    """The mean alone goes to zero, phi has an estimate: the means were called converged at exp(-21)."""
    rng = np.random.default_rng(3)
    y = np.r_[rng.logseries(0.6, 200), np.zeros(zeros, dtype=int)]
    parts = {"ziformula": "~ 1"} if zeros else {}
    with pytest.warns(ConvergenceWarning, match="only phi does: counts above zero vary as those of the logarithmic"):
        fit = lme4py.glmer("y ~ 1", {"y": y}, family="truncated_nbinomial1", fixed_only=True, **parts)
    assert not fit.converged

    # The limit itself, with p = phi / (1 + phi); and the zeros of their own part.
    def minus(a):
        p = 1.0 / (1.0 + np.exp(-a[0]))
        return -stats.logser.logpmf(y[y > 0], p).sum()

    share = zeros / y.size
    alone = zeros * np.log(share) + (y.size - zeros) * np.log(1.0 - share) if zeros else 0.0
    assert fit.log_likelihood == pytest.approx(alone - minimize(minus, [0.0]).fun, abs=1e-5)


def test_a_way_that_ends_where_the_criterion_has_no_value_is_no_reason_to_refuse():
    """The first descent ends where a group has no proper mode; others lead to the minimum that glmmTMB finds."""
    rng = np.random.default_rng([1, 7, 0])
    g, h, f = rng.integers(0, 16, 240), rng.integers(0, 6, 240), rng.choice(["a", "b", "c"], 240)
    x, _ = rng.normal(size=240), rng.normal(size=240)
    eta = 0.5 + 0.4 * x + 0.4 * (f == "b") + 0.5 * rng.normal(size=16)[g] + 0.3 * rng.normal(size=16)[g] * x
    eta += 0.3 * rng.normal(size=6)[h]
    zero = rng.random(240) < 1.0 / (1.0 + np.exp(1.0 - 0.5 * x - 0.7 * rng.normal(size=16)[g]))
    rng.integers(1, 3, 240), rng.beta(5.0 / (1.0 + np.exp(-eta)) + 0.1, 5.0 / (1.0 + np.exp(eta)) + 0.1)
    y = np.where(zero, 0, np.maximum(rng.poisson(np.exp(eta) * rng.gamma(2.0, 0.5, 240)), 1))
    data = pd.DataFrame({"g": g, "x": x, "f": f, "y": y})
    with pytest.warns(OptimaWarning, match="the Laplace approximation breaks down"):
        fit = lme4py.glmer("y ~ x + f + (1 | g)", data, family="truncated_nbinomial1", ziformula="~ x + (1 | g)")
    assert fit.converged
    # glmmTMB 1.1.5 stops 4e-9 beside the maximum.
    assert fit.log_likelihood == pytest.approx(-397.327400117, abs=1e-7)


def test_a_lognormal_model_is_the_linear_one_of_the_logarithms():
    data = lme4py.load_dataset("sleepstudy")
    fit = lme4py.glmer("Reaction ~ Days + (1 | Subject)", data, family="lognormal")
    linear = lme4py.lmer("log(Reaction) ~ Days + (1 | Subject)", data, reml=False)
    assert fit.log_likelihood == pytest.approx(linear.log_likelihood - np.log(data["Reaction"]).sum(), abs=1e-7)
    assert fit.dispersion == pytest.approx(linear.sigma, rel=1e-6)
    assert fit.params["Intercept"] == pytest.approx(linear.params["Intercept"] + 0.5 * linear.sigma**2, rel=1e-7)
    assert fit.params["Days"] == pytest.approx(linear.params["Days"], rel=1e-6)


def test_a_betabinomial_model_without_overdispersion_is_binomial():
    rng = np.random.default_rng(2)
    x = rng.normal(size=150)
    data = pd.DataFrame({"g": np.repeat(np.arange(15), 10), "x": x, "s": rng.binomial(10, 1 / (1 + np.exp(-x)))})
    fit = lme4py.glmer("cbind(s, 10 - s) ~ x + (1 | g)", data, family="betabinomial")
    plain = lme4py.glmer("cbind(s, 10 - s) ~ x + (1 | g)", data, family="binomial")
    if fit.dispersion == np.inf:
        assert "the binomial model" in fit.certificate.verdict
        assert fit.log_likelihood == pytest.approx(plain.log_likelihood, abs=1e-6)
    assert fit.log_likelihood >= plain.log_likelihood - 1e-6


# The sums of compois and genpois make a full round slow; they share the code.
@pytest.mark.parametrize("name", ["beta", "betabinomial", "tweedie"])
def test_everything_after_the_fit(fits, name):
    fit = fits[name]
    for method in ("augment", "check", "drop1", "glance", "hatvalues", "influence", "lrtest_no_random", "residuals"):
        assert getattr(fit, method)() is not None
    assert np.isfinite(fit.predict(include_random="integrate")).all()
    limits = fit.predict(data_of(name).iloc[:3], include_random=False, interval="prediction")
    assert (limits["lower"] <= limits["upper"]).all()
    y = fit.simulate(1, seed=4).iloc[:, 0]
    assert fit.refit(y).log_likelihood != fit.log_likelihood
    assert np.isfinite(fit.bootstrap(2, seed=1).replicates.to_numpy()).any()
    shares = fit.r_squared(variance="theoretical" if name != "beta" else "delta")
    assert 0.0 <= shares["marginal"] <= shares["conditional"] <= 1.0
    # Uniform on 0 .. 1.
    assert fit.residuals(type="quantile", seed=2).mean() == pytest.approx(0.5, abs=0.1)
    assert np.isfinite(lme4py.Margins.linear_scale(fit).dydx().to_frame()["std_error"]).all()
    assert fit.slim().family_params == fit.family_params


def test_profile_of_a_power(fits):
    wald = fits["tweedie"].conf_int(parm="power")
    profile = fits["tweedie"].conf_int(parm="power", method="profile")
    # With 644 rows the profile is nearly a parabola.
    np.testing.assert_allclose(profile, wald, rtol=0.02)


def test_robust_errors_have_a_place_for_every_parameter(fits):
    robust = fits["tweedie"].coef_table(vcov="CR0")["std_error"]
    assert np.isfinite(robust).all()


@pytest.mark.parametrize(
    ("family", "y", "words"),
    [
        ("beta", [0.2, 0.0, 1.0, 0.4], r"2 of 4 .*row 2: 0, row 3: 1.*ordbeta"),
        ("lognormal", [1.0, -2.0, 3.0, 4.0], r"1 of 4 .*row 2: -2"),
        ("tweedie", [0.0, -2.0, 3.0, 4.0], r"row 2: -2"),
        ("genpois", [0.0, 0.5, 3.0, 4.0], r"row 2: 0.5"),
    ],
)
def test_impossible_responses(family, y, words):
    data = pd.DataFrame({"y": y, "g": list("aabb")})
    with pytest.raises(DataError, match=words):
        lme4py.glmer("y ~ 1 + (1 | g)", data, family=family)


def test_expected_weights_are_refused_by_name():
    with pytest.raises(OptionError, match="beta family has no expected weights"):
        lme4py.glmer("share ~ period + (1 | herd)", data_of("beta"), family="beta", hessian="expected")


def test_quadrature_agrees_with_laplace_where_that_is_good(fits):
    more = lme4py.glmer(CALLS["betabinomial"], data_of("betabinomial"), family="betabinomial", nAGQ=9)
    # Adaptive quadrature of 15 herds: a change of the integral of some tenths at most.
    assert more.log_likelihood == pytest.approx(fits["betabinomial"].log_likelihood, abs=0.5)
    assert more.converged


def test_names_of_other_programs():
    assert make_family("beta_family").name == "beta"
    assert make_family("t_family").name == "t"


def test_a_tweedie_model_of_responses_without_zeros_names_the_gamma_model():
    rng = np.random.default_rng(3)
    x, g = rng.normal(size=200), np.repeat(np.arange(20), 10)
    data = pd.DataFrame({"x": x, "g": g, "y": np.exp(0.3 * x + 0.4 * rng.normal(size=200))})
    with pytest.raises(DesignError, match=r"no response is zero, and the power goes to 2.*family='gamma'"):
        lme4py.glmer("y ~ x + (1 | g)", data, "tweedie")
