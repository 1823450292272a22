"""What follows from models with further parts: limits, new observations, averages, shares of variance, residuals."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import lme4py
from lme4py.errors import OptionError
from lme4py.fits.base import Fit

FORMULA = "count ~ mined + (1 | site)"
CALLS = {
    "zip": ("poisson", {"ziformula": "~ mined"}),
    "zip random": ("poisson", {"ziformula": "~ mined + (1 | site)"}),
    "nb dispersion": ("nbinomial", {"dispformula": "~ DOY"}),
    "hurdle": ("truncated_poisson", {"ziformula": "~ mined + (1 | site)"}),
    "gamma": ("gamma", {"link": "log", "ziformula": "~ mined"}),
}


@pytest.fixture(scope="module")
def fits():
    data = lme4py.load_dataset("Salamanders")
    found = {name: lme4py.glmer(FORMULA, data, family=family, **parts) for name, (family, parts) in CALLS.items()}
    found["joined"] = lme4py.glmer(
        "count ~ mined + (1 | i | site)", data, family="poisson", ziformula="~ mined + (1 | i | site)"
    )
    return found


@pytest.mark.parametrize("name", [*CALLS, "joined"])
def test_limits_of_the_conditional_mean_are_those_of_its_predictor(fits, name):
    fit = fits[name]
    eta = fit.predict(type="linear", interval="confidence")
    mean = fit.predict(type="conditional", interval="confidence")
    # Slopes of means are central differences, to 1e-10.
    np.testing.assert_allclose(np.exp(eta), mean, rtol=1e-9)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("include", [True, False, "integrate"])
def test_every_type_has_limits_around_it(fits, name, include):
    fit = fits[name]
    kinds = ["response", "conditional", "variance"]
    kinds += ["zprob"] if "zero_inflation" in fit.components else []
    new = lme4py.load_dataset("Salamanders").iloc[::50]
    for kind in kinds:
        found = fit.predict(new, type=kind, include_random=include, interval="confidence")
        np.testing.assert_allclose(found["predicted"], fit.predict(new, type=kind, include_random=include), rtol=1e-12)
        assert ((found["lower"] < found["predicted"]) & (found["predicted"] < found["upper"])).all()
        own = fit.predict(type=kind, include_random=include, interval="confidence").iloc[::50]
        # Other rows, other sums: rounding of the covariance of the modes.
        np.testing.assert_allclose(found, own, rtol=1e-8)


def standard_errors(fit: Fit, of) -> np.ndarray:
    """By the delta method in (beta, lambda) with differences, without random effects."""
    m, p = fit.theta.size, fit.beta.size
    at = np.concatenate([fit.beta, np.atleast_1d(fit.lam)])
    steps = 1e-5 * np.eye(at.size)
    slopes = np.array([(of(*np.split(at + h, [p])) - of(*np.split(at - h, [p]))) / 2e-5 for h in steps]).T
    return np.sqrt(np.einsum("ni,ij,nj->n", slopes, fit.parameter_vcov[m:, m:], slopes))


def test_standard_errors_are_those_of_the_delta_method(fits):
    fit = fits["zip"]
    X, Z = fit.fit.design.X, fit.fit.design.predictors[1].X
    expected = standard_errors(fit.fit, lambda b, g: np.exp(X @ b) / (1.0 + np.exp(Z @ g)))
    found = fit.predict(include_random=False, se=True)
    # Differences to 1e-10, twice.
    np.testing.assert_allclose(found["std_error"], expected, rtol=1e-7)
    eta = fit.predict(type="linear", se=True)
    at_modes = fit.predict(type="conditional", se=True)
    np.testing.assert_allclose(at_modes["std_error"], at_modes["predicted"] * eta["std_error"], rtol=1e-9)


@pytest.mark.parametrize("name", ["zip random", "hurdle", "joined", "gamma"])
def test_averages_and_new_observations_are_those_of_simulated_groups(fits, name):
    fit = fits[name]
    rng, n = np.random.default_rng(0), 200_000
    row = lme4py.load_dataset("Salamanders").iloc[[100]]
    beta, gamma = fit.fit.beta, np.atleast_1d(fit.fit.lam)[:2]
    x = np.array([1.0, float(row["mined"].iloc[0] == "no")])
    size = len(beta) + 2
    V = fit.fit.parameter_vcov[fit.theta.size :, fit.theta.size :][:size, :size]
    covariances = fit.fit.covariances
    own = covariances[0] if name == "joined" else np.diag([c[0, 0] for c in covariances])
    effects = rng.multivariate_normal(np.zeros(2), own if own.size == 4 else np.diag([own[0, 0], 0.0]), n)

    def draws(beta, gamma):
        mu, pi = np.exp(beta @ x + effects[:, 0]), 1.0 / (1.0 + np.exp(-(gamma @ x) - effects[:, 1]))
        if name == "gamma":
            shape = float(fit.predict(type="dispersion").iloc[0])
            y = rng.gamma(shape, mu / shape)
        elif name == "hurdle":
            y = stats.poisson.ppf(rng.uniform(np.exp(-mu), 1.0), mu)
        else:
            y = rng.poisson(mu)
        return np.where(rng.random(n) < pi, 0.0, y)

    y = draws(beta, gamma)
    # Four standard errors of the simulation.
    mean = fit.predict(row, include_random="integrate").iloc[0]
    assert mean == pytest.approx(y.mean(), abs=4.0 * y.std() / np.sqrt(n))
    variance = fit.predict(row, include_random="integrate", type="variance").iloc[0]
    assert variance == pytest.approx(y.var(), abs=4.0 * np.std((y - y.mean()) ** 2) / np.sqrt(n))
    estimates = rng.multivariate_normal(np.concatenate([beta, gamma]), V, n)
    y = draws(estimates[:, : len(beta)], estimates[:, len(beta) :])
    limits = fit.predict(row, include_random=False, interval="prediction").iloc[0]
    for end, p in (("lower", 0.025), ("upper", 0.975)):
        # P(Y < end) < p <= P(Y <= end), four standard errors of a share.
        error = 4.0 * np.sqrt(p * (1.0 - p) / n)
        assert np.mean(y < limits[end] - 1e-9) <= p + error
        assert np.mean(y <= limits[end] + 1e-9) >= p - error


def test_prediction_intervals_of_known_groups_cover(fits):
    count = lme4py.load_dataset("Salamanders")["count"]
    for name in ("zip random", "nb dispersion", "hurdle"):
        found = fits[name].predict(interval="prediction")
        # Counts: at least the level, up to what the fit lacks.
        assert count.between(found["lower"], found["upper"]).mean() > 0.93
    with pytest.raises(OptionError, match="scale of the response"):
        fits["zip"].predict(type="zprob", interval="prediction")


def test_means_of_truncated_counts_are_averaged_after_truncation(fits):
    fit = fits["hurdle"]
    zero = fit.predict(include_random=False)
    conditional = fit.predict(include_random=False, type="conditional")
    pi = fit.predict(include_random=False, type="zprob")
    np.testing.assert_allclose(zero, (1.0 - pi) * conditional / -np.expm1(-conditional), rtol=1e-12)
    assert (fit.predict(include_random="integrate") > 0.9 * zero).all()
    whole = lme4py.Margins.response(fit).predict().to_frame()
    assert whole["estimate"].iloc[0] == pytest.approx(zero.mean(), rel=1e-10)
    margins = lme4py.Margins.response(fit, component="conditional").predict(atexog={"mined": ["yes"]}).to_frame()
    assert margins["estimate"].iloc[0] == pytest.approx(conditional.min(), rel=1e-10)


def test_shares_are_those_of_the_response_on_the_conditional_scale(fits):
    fit = fits["zip"]
    null = lme4py.glmer("count ~ 1 + (1 | site)", lme4py.load_dataset("Salamanders"), family="poisson",
                        ziformula="~ mined")  # fmt: skip
    mu, pi = np.exp(null.params["Intercept"]), fit.predict(type="zprob")
    mean, variance = (1.0 - pi) * mu, (1.0 - pi) * (mu + pi * mu**2)
    own = np.log1p(variance / mean**2).mean()
    found = fit.r_squared()
    # Slopes of means are central differences.
    assert found["var_residual"] == pytest.approx(own, rel=1e-8)
    random, fixed = fit.fit.covariances[0][0, 0], np.var(fit.fit.design.X @ fit.fit.beta, ddof=1)
    assert found["conditional"] == pytest.approx((random + fixed) / (random + fixed + own), rel=1e-8)
    icc = lme4py.icc(fit)
    assert icc.estimate == pytest.approx(random / (random + own), rel=1e-8)
    assert icc.ci_lower < icc.estimate < icc.ci_upper
    # With random effects of the zero part the shares stay those of the conditional one.
    assert 0.0 < lme4py.icc(fits["zip random"]).estimate < 0.2
    assert list(fits["joined"].icc_table()["component"]) == ["_cons"]


def test_shares_without_zeros_are_those_of_the_plain_family():
    data = lme4py.load_dataset("Salamanders")
    plain = lme4py.glmer(FORMULA, data, family="nbinomial")
    parts = lme4py.glmer(FORMULA, data, family="nbinomial", dispformula="~ 1")
    # Two ends of descents of the same criterion.
    assert parts.r_squared()["conditional"] == pytest.approx(plain.r_squared()["conditional"], rel=1e-5)
    a, b = lme4py.icc(plain), lme4py.icc(parts)
    assert (a.estimate, a.se) == (pytest.approx(b.estimate, rel=1e-5), pytest.approx(b.se, rel=1e-4))
    # R's performance.
    tweedie = lme4py.glmer(FORMULA, data, family="tweedie").r_squared()
    assert (tweedie["marginal"], tweedie["conditional"]) == pytest.approx((0.4158558, 0.4886869), rel=1e-4)


def test_pearson_residuals_have_the_variance_of_the_response(fits):
    y = lme4py.load_dataset("Salamanders")["count"].to_numpy()
    for name in ("zip random", "hurdle", "gamma"):
        fit = fits[name]
        expected = (y - fit.fittedvalues) / np.sqrt(fit.predict(type="variance"))
        np.testing.assert_allclose(fit.residuals("pearson"), expected, rtol=1e-12)
    assert isinstance(fits["zip"].residuals("pearson"), pd.Series)


@pytest.mark.parametrize("name", ["zip", "zip random", "joined", "hurdle"])
def test_groups_that_came_later_have_the_modes_of_the_same_rows_in_the_fit(fits, name):
    fit = fits[name]
    data = lme4py.load_dataset("Salamanders")
    own = data[data["site"] == "R-1"]
    given = own.assign(site="new")
    modes, old = fit.ranef(data=given), fit.ranef() if name == "zip" else fit.ranef(component="all")
    np.testing.assert_allclose(modes.loc["new"], old.loc["R-1"], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(fit.predict(given, given=given), fit.predict(own), rtol=1e-8)
    np.testing.assert_allclose(
        fit.predict(given, given=given, type="linear"), fit.predict(own, type="linear"), rtol=1e-8, atol=1e-10
    )
    with pytest.raises(OptionError, match="limits of means given other rows"):
        fit.predict(given, given=given, interval="confidence")


@pytest.mark.parametrize("name", ["zip random", "joined", "hurdle"])
def test_other_rows_of_models_with_random_parts_are_simulated(fits, name):
    fit, data = fits[name], lme4py.load_dataset("Salamanders")
    # The rows of the fit as other rows: the same numbers.
    pd.testing.assert_frame_equal(fit.simulate(2, seed=1, data=data), fit.simulate(2, seed=1))
    new = pd.concat([data.head(20).assign(site="new"), data.head(1).assign(mined=None)])
    found = fit.simulate(3, seed=1, data=new)
    # The incomplete row is left out.
    assert found.shape == (20, 3)
    assert found.notna().all().all()


def test_models_without_parts_have_the_types_of_their_one_predictor():
    data, sleep = lme4py.load_dataset("Salamanders"), lme4py.load_dataset("sleepstudy")
    counts = lme4py.glmer(FORMULA, data, family="nbinomial")
    mu, shape = counts.predict(data.head(9)), counts.dispersion
    np.testing.assert_allclose(counts.predict(data.head(9), type="variance"), mu + mu**2 / shape, rtol=1e-12)
    assert (counts.predict(type="dispersion") == shape).all()
    pd.testing.assert_frame_equal(
        counts.predict(type="conditional", interval="confidence"), counts.predict(interval="confidence")
    )
    linear = lme4py.lmer("Reaction ~ Days + (1 | Subject)", sleep)
    np.testing.assert_allclose(linear.predict(type="dispersion"), linear.sigma, rtol=1e-15)
    np.testing.assert_allclose(linear.predict(type="variance"), linear.sigma**2, rtol=1e-15)
    with pytest.raises(OptionError, match="poisson family has no prediction of type 'zprob'"):
        lme4py.glmer(FORMULA, data, family="poisson").predict(type="zprob")


def test_covariances_by_the_labels_of_the_terms(fits):
    found = fits["zip random"].covariances
    assert list(found) == ["(1 | site)", "zero_inflation: (1 | site)"]
    for frame, own in zip(found.values(), fits["zip random"].fit.covariances, strict=True):
        np.testing.assert_array_equal(frame.to_numpy(), own)


@pytest.mark.parametrize("family", ["truncated_nbinomial", "truncated_compois"])
def test_limits_of_a_truncated_mean_without_parts_are_those_with_a_constant_dispersion_part(family):
    """The same model written twice: the mean depends on the dispersion, and modes move with it either way."""
    rng = np.random.default_rng(2)
    g, x = np.repeat(np.arange(15), 8), rng.normal(size=120)
    mean = np.exp(1.6 + 0.3 * x + rng.normal(0.0, 0.3, 15)[g])
    data = pd.DataFrame({"y": np.maximum(rng.negative_binomial(4, 4.0 / (4.0 + mean)), 1), "x": x, "g": g})
    plain, part = (lme4py.glmer("y ~ x + (1 | g)", data, family, **options) for options in ({}, {"dispformula": "~ 1"}))
    # Two searches, in the dispersion and in its logarithm's coefficient, each to 1e-6 of the deviance.
    np.testing.assert_allclose(plain.predict(data, se=True), part.predict(data, se=True), rtol=1e-4)
