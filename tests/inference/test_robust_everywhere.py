"""A robust covariance reaches everything that a result says, or says where it does not."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
import pytest
from numpy.polynomial.hermite import hermgauss
from scipy import linalg, special, stats

import lme4py
from lme4py import Margins
from lme4py.errors import OptionError

J, ROWS = 30, 6


@pytest.fixture(scope="module")
def answers():
    """Binary, ordered and counted answers of groups whose random effects have two different spreads."""
    rng = np.random.default_rng(11)
    g = np.repeat(np.arange(J), ROWS)
    x = rng.normal(size=J * ROWS)
    b = rng.normal(size=J) * np.where(np.arange(J) % 3, 0.8, 2.0)
    eta = 0.2 + 0.6 * x + b[g]
    return pd.DataFrame(
        {
            "g": g,
            "x": x,
            "y": rng.binomial(1, special.expit(eta)),
            "o": np.digitize(eta + rng.logistic(size=g.size), [-1.0, 1.0]),
            "n": rng.poisson(np.exp(0.5 * eta)),
            "z": eta + rng.normal(size=g.size),
            "block": g // 2,
        }
    )


NODES, WEIGHTS = hermgauss(40)


def by_group(rows, data, theta):
    """log of the integral over the random effect of the product of the rows of a group, (J,).

    `rows` gives the log-probabilities of all rows where u has the values it is given, (n, Q).
    """
    u = np.sqrt(2.0) * NODES
    logs = np.zeros((J, u.size))
    np.add.at(logs, data["g"], rows(theta * u))
    return special.logsumexp(logs + np.log(WEIGHTS / np.sqrt(np.pi)), axis=1)


def binary(par, data):
    def rows(b):
        eta = par[1] + par[2] * data["x"].to_numpy()[:, None] + b
        return np.where(data["y"].to_numpy()[:, None] == 1, special.log_expit(eta), special.log_expit(-eta))

    return by_group(rows, data, par[0])


def ordered(par, data):
    cuts = np.concatenate([[-np.inf], par[2:], [np.inf]])
    codes = data["o"].to_numpy()

    def rows(b):
        eta = par[1] * data["x"].to_numpy()[:, None] + b
        return np.log(special.expit(cuts[codes + 1, None] - eta) - special.expit(cuts[codes, None] - eta))

    return by_group(rows, data, par[0])


def sandwich(log_likelihood, par):
    """m / (m - 1) times H^-1 (sum of s s') H^-1 by differences."""
    unit = np.eye(par.size)
    h = 1e-5
    scores = np.array([(log_likelihood(par + h * e) - log_likelihood(par - h * e)) / (2 * h) for e in unit]).T
    h = 1e-4
    pairs = [
        [(log_likelihood(par + h * (a + b)) - log_likelihood(par + h * (a - b))).sum() for a in unit] for b in unit
    ]
    back = [[(log_likelihood(par - h * (a - b)) - log_likelihood(par - h * (a + b))).sum() for a in unit] for b in unit]
    inverse = np.linalg.inv(-(np.array(pairs) - np.array(back)) / (4 * h * h))
    return J / (J - 1) * inverse @ scores.T @ scores @ inverse


@pytest.mark.parametrize("kind", ["binary", "ordered"])
def test_the_sandwich_of_all_parameters_by_brute_force(answers, kind):
    if kind == "binary":
        fit = lme4py.melogit(answers, "y", ["x"], "g", nAGQ=25, vce="robust")
        par, function = np.r_[fit.theta, fit.params], partial(binary, data=answers)
    else:
        fit = lme4py.meologit(answers, "o", ["x"], "g", nAGQ=25, vce="robust")
        par, function = np.r_[fit.theta, fit.params, fit.thresholds], partial(ordered, data=answers)
    assert function(par).sum() == pytest.approx(fit.log_likelihood, abs=1e-6)  # both integrals are exact to this
    expected = sandwich(function, par)
    # Second derivatives by differences keep about five digits.
    np.testing.assert_allclose(fit.fit.parameter_vcov, expected, rtol=2e-4, atol=1e-6)
    np.testing.assert_allclose(fit.bse, np.sqrt(np.diag(expected))[1 : 1 + fit.params.size], rtol=1e-4)
    variance = fit.variance_table().iloc[0]
    assert variance["std_error"] == pytest.approx(2 * par[0] * np.sqrt(expected[0, 0]), rel=1e-4)
    if kind == "ordered":
        np.testing.assert_allclose(fit.thresholds_se, np.sqrt(np.diag(expected))[2:], rtol=1e-4)
        assert f"{fit.thresholds_se.iloc[0]:.4f}" in fit.summary()
    assert f"{variance['std_error']:.4f}" in fit.summary()
    assert "Standard errors are robust, for clusters in g." in fit.summary()
    assert "LR test" not in fit.summary()


@pytest.fixture(scope="module")
def pairs(answers):
    """Each model with robust standard errors from the start, and asked for them afterwards."""
    return {
        "binary": (lme4py.melogit, {"y": "y"}),
        "ordered": (lme4py.meologit, {"y": "o"}),
        "counts": (lme4py.menbreg, {"y": "n"}),
    }


def both(pairs, answers, name):
    function, options = pairs[name]
    options = {"data": answers, "x_fixed": ["x"], "group": "g", **options}
    return function(**options, vce="robust"), function(**options)


@pytest.mark.parametrize("name", ["binary", "ordered", "counts"])
def test_asked_for_before_or_after_the_fit_it_is_the_same(pairs, answers, name):
    before, after = both(pairs, answers, name)
    pd.testing.assert_frame_equal(before.coef_table(), after.coef_table(vcov="CR1"))
    pd.testing.assert_frame_equal(before.conf_int(parm="all"), after.conf_int(parm="all", vcov="CR1"))
    # A sandwich has the model's own information inside, and not a sandwich.
    pd.testing.assert_frame_equal(before.coef_table(vcov="CR1"), before.coef_table())
    pd.testing.assert_frame_equal(before.cov_params("CR0"), after.cov_params("CR0"))
    for random in ("zero", "integrate"):
        for ask in (
            lambda m: m.predict(atexog={"x": [0.0, 1.0]}),
            lambda m: m.dydx("x"),
            lambda m: m.contrasts([{"x": 0.0}, {"x": 1.0}], [-1, 1]),
        ):
            one = ask(Margins.linear_scale(before, random=random))
            two = ask(Margins.linear_scale(after, random=random, vcov="CR1"))
            own = ask(Margins.linear_scale(after, random=random))
            # The same formula.
            np.testing.assert_allclose(one.std_error, two.std_error, rtol=1e-9)
            assert (np.abs(one.std_error / own.std_error - 1) > 1e-3).all()
            assert np.linalg.eigvalsh(two.covariance).min() > -1e-12


@pytest.mark.parametrize("name", ["binary", "ordered", "counts"])
@pytest.mark.parametrize("include", [True, False, "integrate"])
def test_intervals_of_predictions_are_robust(pairs, answers, name, include):
    before, after = both(pairs, answers, name)
    new = pd.DataFrame({"x": [0.5], "g": [3]})
    robust, own = (fit.predict(new, include_random=include, interval="confidence") for fit in (before, after))
    robust, own = (np.asarray(table).reshape(-1, 3) for table in (robust, own))
    np.testing.assert_allclose(robust[:, 0], own[:, 0], rtol=1e-12)
    assert (np.abs(np.diff(robust[:, 1:]) / np.diff(own[:, 1:]) - 1) > 1e-4).all()
    if include == "integrate":
        margins = Margins.linear_scale(before, random="integrate").predict(atexog={"x": [0.5]})
        np.testing.assert_allclose(robust[:, 0], margins.estimate, rtol=1e-9)


def test_a_linear_model_has_one_covariance_of_its_coefficients(answers):
    """With random effects: the errors of the coefficients are robust, those of the modes given them the model's."""
    fit = lme4py.mixed(answers, "z", ["x"], "g", ["x"], vce="robust")
    design = fit.fit.design
    X, Z = design.X, design.Zt.T.toarray()
    Sigma = np.kron(np.eye(J), fit.fit.covariances[0])
    gain = Sigma @ Z.T @ np.linalg.inv(fit.sigma**2 * np.eye(len(X)) + Z @ Sigma @ Z.T)
    moved = X - Z @ gain @ X
    robust = lme4py.mixed(answers, "z", ["x"], "g", ["x"]).cov_params("CR1").to_numpy()
    K = Sigma - gain @ Z @ Sigma
    variance = np.einsum("ni,ij,nj->n", moved, robust, moved) + np.einsum("ni,ij,nj->n", Z, K, Z)
    half = stats.norm.ppf(0.975) * np.sqrt(variance)
    table = fit.predict(interval="confidence")
    # The dense side inverts a matrix of 180 rows.
    np.testing.assert_allclose(table["upper"] - table["predicted"], half, rtol=1e-8)
    fixed = fit.predict(include_random=False, interval="confidence")
    half = stats.norm.ppf(0.975) * np.sqrt(np.einsum("ni,ij,nj->n", X, robust, X))
    np.testing.assert_allclose(fixed["upper"] - fixed["predicted"], half, rtol=1e-8)
    assert "Standard errors of the coefficients are robust" in " ".join(fit.summary().split())
    assert "those of the variances are the model's" in " ".join(fit.summary().split())
    for table in (fit.variance_table(), fit.conf_int(parm="all"), fit.conf_int(parm="random")):
        assert "of variances are the model's" in table.attrs["note"]
    assert "note" not in fit.conf_int().attrs
    # Leverages belong to the model.
    plain = lme4py.mixed(answers, "z", ["x"], "g", ["x"])
    np.testing.assert_allclose(fit.hatvalues(), plain.hatvalues(), rtol=1e-12)
    with pytest.raises(OptionError, match="the variances of a linear mixed model have none"):
        plain.conf_int(parm="all", vcov="CR1")


def test_a_matrix_of_the_coefficients_alone_does_not_mix_with_the_model(pairs, answers):
    _, fit = both(pairs, answers, "binary")
    p, m = 2, 1
    with pytest.raises(OptionError, match=r"of shape \(3, 3\)"):
        Margins.linear_scale(fit, random="integrate", vcov=fit.cov_params()).predict()
    order = np.r_[m : m + p, 0:m]
    whole = fit.fit.parameter_vcov[np.ix_(order, order)]
    given = Margins.linear_scale(fit, random="integrate", vcov=whole).predict()
    own = Margins.linear_scale(fit, random="integrate").predict()
    np.testing.assert_allclose(given.std_error, own.std_error, rtol=1e-12)
    zero = Margins.linear_scale(fit, vcov=whole).predict()
    np.testing.assert_allclose(zero.std_error, Margins.linear_scale(fit).predict().std_error, rtol=1e-12)


def test_clusters_by_another_column_and_slim_results(pairs, answers):
    function, options = pairs["ordered"]
    fit = function(data=answers, x_fixed=["x"], group="g", vce="block", **options)
    plain = function(data=answers, x_fixed=["x"], group="g", **options)
    limits = plain.conf_int(parm="all", vcov="CR1", cluster=answers["block"])
    pd.testing.assert_frame_equal(fit.conf_int(parm="all"), limits)
    slim = fit.slim()
    pd.testing.assert_frame_equal(slim.conf_int(parm="all"), limits)
    assert slim.summary() == fit.summary()
    new = pd.DataFrame({"x": [0.5], "g": [3]})
    for include in (False, "integrate"):
        expected = fit.predict(new, include_random=include, interval="confidence")
        pd.testing.assert_frame_equal(slim.predict(new, include_random=include, interval="confidence"), expected)
    again = fit.refit(answers["o"].to_numpy()[::-1])
    assert again.fit.model_vcov is not None


def test_no_scores_no_robust_errors_before_any_fitting(answers):
    with pytest.raises(OptionError, match=r"vce='robust' needs a likelihood in all parameters.*nAGQ=1"):
        lme4py.melogit(answers, "y", ["x"], "g", nAGQ=0, vce="robust")


def test_profiles_bootstrap_and_influence_look_at_the_model(pairs, answers):
    before, after = both(pairs, answers, "binary")
    pd.testing.assert_frame_equal(
        before.conf_int(method="profile", parm="x"), after.conf_int(method="profile", parm="x"), rtol=1e-6
    )
    boot = {"method": "boot", "parm": "all", "n_boot": 10, "seed": 1}
    pd.testing.assert_frame_equal(before.conf_int(**boot), after.conf_int(**boot))
    one, two = (fit.influence("g") for fit in (before, after))
    np.testing.assert_allclose(one.cooks_distance, two.cooks_distance, rtol=1e-9)
    assert linalg.norm(before.bse - after.bse) > 0
