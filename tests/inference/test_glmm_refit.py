"""Simulated responses and refits of generalised models."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import lme4py
from lme4py.errors import DataError, Lme4Error, OptionError
from lme4py.fits.generalised.refit import refit_estimates
from lme4py.inference.refits.simulate import simulate_responses

CBPP = "cbind(incidence, size - incidence) ~ period + (1 | herd)"


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(3)
    n = 300
    g = np.repeat(np.arange(30), 10)
    h = rng.integers(0, 6, n)
    x = rng.normal(size=n)
    eta = 0.5 + 0.4 * x + 0.6 * rng.normal(size=30)[g] + 0.3 * rng.normal(size=6)[h]
    return pd.DataFrame(
        {
            "y": (rng.uniform(size=n) < 1 / (1 + np.exp(-eta))).astype(int),
            "n": rng.poisson(np.exp(eta)),
            "z": rng.gamma(4, np.exp(eta) / 4),
            "v": eta + rng.normal(size=n),
            "o": pd.Categorical.from_codes(
                np.digitize(eta + rng.logistic(size=n), [-0.5, 0.5, 1.5]), ["low", "mid", "high", "top"], ordered=True
            ),
            "k": np.digitize(eta + rng.logistic(size=n), [-0.5, 0.5]) + 1,
            "x": x,
            "g": g,
            "h": h,
            "w": rng.uniform(0.5, 2, n),
        }
    )


MODELS = [
    ("y", "binomial", {}),
    ("y", "binomial", {"link": "probit", "nAGQ": 5}),
    ("n", "poisson", {}),
    ("n", "poisson", {"nAGQ": 0}),
    ("n", "nbinomial", {}),
    ("n", "nbinomial1", {}),
    ("z", "gamma", {"weights": "w"}),
    ("z", "inverse_gaussian", {}),
    ("v", "gaussian", {"weights": "w"}),
]


@pytest.mark.parametrize(("response", "family", "options"), MODELS)
def test_a_refit_is_a_fit_of_the_new_response(data, response, family, options):
    result = lme4py.glmer(f"{response} ~ x + (1 | g)", data, family, **options)
    new = result.simulate(1, seed=4)["sim_1"]
    again = result.refit(new)
    fresh = lme4py.glmer(f"{response} ~ x + (1 | g)", data.assign(**{response: new}), family, **options)
    # Both are optima with a certificate.
    assert again.criterion == pytest.approx(fresh.criterion, abs=1e-6)
    np.testing.assert_allclose(again.params, fresh.params, rtol=0, atol=1e-5 * fresh.bse.max())
    np.testing.assert_allclose(again.bse, fresh.bse, rtol=1e-4)
    assert type(again) is type(result)
    assert again.converged
    assert result.fit.design.y is not again.fit.design.y
    found = refit_estimates(result.fit, new)
    # Without the last Newton step.
    assert found.criterion == pytest.approx(fresh.criterion, abs=1e-6)
    np.testing.assert_allclose(found.beta, fresh.params, rtol=0, atol=1e-3 * fresh.bse.max())
    np.testing.assert_allclose(found.theta, fresh.theta, rtol=0, atol=1e-3)


def test_two_factors_and_slopes(data):
    formula = "n ~ x + (x | g) + (1 | h)"
    result = lme4py.glmer(formula, data, "poisson")
    new = result.simulate(1, seed=1)["sim_1"]
    again, fresh = result.refit(new), lme4py.glmer(formula, data.assign(n=new), "poisson")
    assert again.criterion == pytest.approx(fresh.criterion, abs=1e-6)


@pytest.mark.parametrize("response", ["o", "k"])
@pytest.mark.parametrize("options", [{}, {"nAGQ": 5}, {"threshold": "equidistant"}])
def test_ordinal_models(data, response, options):
    result = lme4py.clmm(f"{response} ~ x + (1 | g)", data, **options)
    new = result.simulate(1, seed=2)["sim_1"]
    assert set(new) <= set(result.fit.categories)
    again = result.refit(new)
    fresh = lme4py.clmm(f"{response} ~ x + (1 | g)", data.assign(**{response: new}), **options)
    assert again.criterion == pytest.approx(fresh.criterion, abs=1e-6)
    found = refit_estimates(result.fit, simulate_responses(result.fit, 1, 2)[:, 0])
    np.testing.assert_allclose(found.thresholds, fresh.fit.thresholds, rtol=0, atol=1e-3)
    with pytest.raises(DataError, match="levels are"):
        result.refit(["other"] * 300)
    with pytest.raises(DataError, match="never has"):
        result.refit([result.fit.categories[0]] * 300)


@pytest.fixture(scope="module")
def cbpp():
    return lme4py.load_dataset("cbpp")


class TestForms:
    def test_successes_of_trials(self, cbpp):
        result = lme4py.glmer(CBPP, cbpp)
        new = result.simulate(3, seed=1)["sim_2"]
        assert (new <= cbpp["size"]).all()
        assert (new == np.rint(new)).all()
        table = np.column_stack([new, cbpp["size"] - new])
        fresh = lme4py.glmer(CBPP, cbpp.assign(incidence=new))
        for form in (new, table):
            assert result.refit(form).criterion == pytest.approx(fresh.criterion, abs=1e-6)
        # Other trials come with the two columns only.
        other = lme4py.glmer(CBPP, cbpp.assign(incidence=new, size=cbpp["size"] + 3))
        assert result.refit(table + np.array([0, 3])).criterion == pytest.approx(other.criterion, abs=1e-6)
        with pytest.raises(DataError, match="more successes than trials"):
            result.refit(cbpp["size"] + 1)

    def test_proportions(self, cbpp):
        data = cbpp.assign(p=cbpp["incidence"] / cbpp["size"])
        result = lme4py.glmer("p ~ period + (1 | herd)", data, weights="size")
        new = result.simulate(1, seed=1)["sim_1"]
        fresh = lme4py.glmer("p ~ period + (1 | herd)", data.assign(p=new), weights="size")
        assert result.refit(new).criterion == pytest.approx(fresh.criterion, abs=1e-6)
        with pytest.raises(DataError, match="whole number of successes"):
            result.refit(new / 3.1 + 0.01)

    def test_labels(self, data):
        data = data.assign(word=np.where(data["y"] == 1, "yes", "no"))
        result = lme4py.glmer("word ~ x + (1 | g)", data)
        new = np.roll(data["y"].to_numpy(), 7)
        expected = result.refit(new).criterion
        assert result.refit(np.where(new == 1, "yes", "no")).criterion == expected
        with pytest.raises(DataError, match="maybe"):
            result.refit(["maybe"] * 300)

    def test_rows_of_the_data_or_rows_used(self, data):
        holes = data.assign(x=data["x"].where(data.index > 4))
        result = lme4py.glmer("n ~ x + (1 | g)", holes, "poisson")
        new = np.roll(data["n"].to_numpy(), 3)
        assert result.refit(new).criterion == result.refit(new[5:]).criterion

    @pytest.mark.parametrize(
        ("y", "error", "text"),
        [
            (np.ones(7), OptionError, "shape"),
            (np.full(300, -1.0), DataError, "negative"),
            (np.full(300, np.nan), DataError, "300 missing"),
            (np.zeros(300), DataError, "are 0"),
            (np.full((300, 2), 1.0), OptionError, "shape"),
            (["a"] * 300, DataError, "no numbers"),
        ],
    )
    def test_refusals(self, data, y, error, text):
        result = lme4py.glmer("n ~ x + (1 | g)", data, "poisson", nAGQ=0)
        with pytest.raises(error, match=text):
            result.refit(y)


# -- simulation ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("response", "family", "options"), MODELS)
def test_seeds_and_columns(data, response, family, options):
    result = lme4py.glmer(f"{response} ~ x + (1 | g)", data, family, **options)
    frame = result.simulate(3, seed=9)
    assert list(frame.columns) == ["sim_1", "sim_2", "sim_3"]
    assert frame.index.equals(data.index)
    # Column i depends on the seed and i only.
    pd.testing.assert_frame_equal(result.simulate(2, seed=9), frame[["sim_1", "sim_2"]])
    assert not result.simulate(3, seed=10).equals(frame)


@pytest.mark.parametrize(("response", "family", "options"), MODELS)
def test_moments(data, response, family, options):
    """Means and variances over many responses, given the modes and over new random effects."""
    fit = lme4py.glmer(f"{response} ~ x + (1 | g)", data, family, **options).fit
    N = 1500
    for include_random in (True, False):
        draws = simulate_responses(fit, N, 5, include_random)
        eta = fit.linear_predictor if include_random else fit.design.X @ fit.beta
        sd = 0.0 if include_random else float(np.sqrt(fit.covariances[0][0, 0]))
        x, w = np.polynomial.hermite_e.hermegauss(60)
        points = fit.family.mean(eta + sd * x[:, None])
        w = w / w.sum()
        weight = 1.0 if fit.family.weights_multiply else fit.data.weight
        mean = w @ points
        variance = w @ (fit.family.variance(points, fit.lam) / weight + points**2) - mean**2
        error = (draws.mean(axis=1) - mean) / np.sqrt(variance / N)
        # 300 nearly independent standard normals, with skew: their mean square has a standard error of 0.08.
        assert np.mean(error**2) == pytest.approx(1.0, abs=0.5)
        ratio = draws.var(axis=1) / variance
        # Heavy tails of the inverse Gaussian and of new random effects leave a few per cent.
        tolerance = 0.2 if family == "inverse_gaussian" else 0.08
        assert float(np.median(ratio)) == pytest.approx(1.0, abs=tolerance)


def test_some_factors_keep_their_modes(data):
    for result in (
        lme4py.glmer("v ~ x + (1 | g) + (1 | h)", data, "gaussian"),
        lme4py.lmer("v ~ x + (1 | g) + (1 | h)", data),
    ):
        draws = simulate_responses(result.fit, 3000, 1, ["g"])
        expected = result.predict(include_random=["g"])
        sd = np.sqrt(result.fit.covariances[1][0, 0] + result.sigma**2)
        # Six new effects of h in every response; their means have this error.
        np.testing.assert_allclose(draws.mean(axis=1), expected, rtol=0, atol=5 * sd / np.sqrt(3000))
        assert draws.var(axis=1).mean() == pytest.approx(sd**2, rel=0.02)
        with pytest.raises(OptionError, match="no grouping factor"):
            result.simulate(1, include_random=["k"])
        with pytest.raises(OptionError, match="no use for"):
            result.simulate(1, include_random="integrate")


def test_generators_and_sequences(data):
    fit = lme4py.glmer("n ~ x + (1 | g)", data, "poisson").fit
    a = simulate_responses(fit, 2, np.random.default_rng(1))
    np.testing.assert_array_equal(a, simulate_responses(fit, 2, np.random.default_rng(1)))
    b = simulate_responses(fit, 2, np.random.SeedSequence(3))
    np.testing.assert_array_equal(b, simulate_responses(fit, 2, 3))


def test_means_outside_the_range_of_the_link():
    rng = np.random.default_rng(0)
    g = np.repeat(np.arange(12), 8)
    b = rng.normal(size=12)
    frame = {"z": rng.gamma(5, (1.0 / (2.0 + 0.9 * b))[g] / 5), "g": g}
    result = lme4py.glmer("z ~ 1 + (1 | g)", frame, "gamma", link="inverse")
    draws = simulate_responses(result.fit, 300, 1)
    broken = np.isnan(draws)
    # Whole responses or none of a response.
    assert (broken.all(axis=0) == broken.any(axis=0)).all()
    assert 0 < broken.all(axis=0).mean() < 1
    with pytest.raises(Lme4Error, match="outside the range of the link"):
        result.simulate(300, seed=1)
