"""Quantile residuals by simulation, and their tests."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import lme4py
from lme4py.errors import OptionError
from lme4py.inference.diagnostics.quantile_residuals import quantile_residuals
from lme4py.inference.refits.simulate import simulate_responses


@pytest.fixture(scope="module")
def counts():
    """Poisson counts, and the same with twice the zeros and with far more variance."""
    rng = np.random.default_rng(8)
    g = np.repeat(np.arange(40), 12)
    x = rng.normal(size=g.size)
    mean = np.exp(0.7 + 0.3 * x + 0.4 * rng.normal(size=40)[g])
    n = rng.poisson(mean)
    wide = rng.poisson(mean * rng.gamma(0.6, 1 / 0.6, g.size))
    return pd.DataFrame({"n": n, "wide": wide, "zeros": n * (rng.uniform(size=g.size) > 0.4), "x": x, "g": g})


@pytest.fixture(scope="module")
def right(counts):
    return lme4py.glmer("n ~ x + (1 | g)", counts, "poisson")


def test_definition(right):
    """A draw between the shares of simulated values below, and not above, the response."""
    found = right.quantile_residuals(n=100, seed=3)
    y = right.fit.data.y
    below = (found.simulated < y[:, None]).mean(axis=1)
    not_above = (found.simulated <= y[:, None]).mean(axis=1)
    values = found.residuals.to_numpy()
    assert ((values >= below) & (values <= not_above)).all()
    inside = not_above > below
    # Uniform between them: 480 draws.
    assert stats.kstest((values - below)[inside] / (not_above - below)[inside], "uniform").pvalue > 0.001
    seeds = np.random.SeedSequence(3).spawn(100)
    np.testing.assert_array_equal(found.simulated[:, 0], simulate_responses(right.fit, 1, 3)[:, 0])
    assert len(seeds) == found.n


def test_seeds(right):
    pd.testing.assert_series_equal(right.residuals("quantile", seed=1), right.residuals("quantile", seed=1))
    assert not right.residuals("quantile", seed=1).equals(right.residuals("quantile", seed=2))


def test_a_right_model_passes(right):
    found = right.quantile_residuals(seed=1)
    for test in (found.test_uniformity, found.test_dispersion, found.test_zero_inflation, found.test_outliers):
        assert test().p_value > 0.05
    assert found.test_dispersion().statistic == pytest.approx(1.0, abs=0.3)
    assert found.normal.std() == pytest.approx(1.0, abs=0.15)


def test_both_spellings_of_a_binomial_response_give_the_same_tests():
    data = lme4py.load_dataset("cbpp").assign(share=lambda d: d["incidence"] / d["size"])
    one = lme4py.glmer("cbind(incidence, size - incidence) ~ period + (1 | herd)", data)
    two = lme4py.glmer("share ~ period + (1 | herd)", data, weights="size")
    for random in (False, True):
        a, b = (m.quantile_residuals(n=60, seed=1, include_random=random) for m in (one, two))
        np.testing.assert_array_equal(a.residuals, b.residuals)
        for test in ("test_dispersion", "test_zero_inflation", "test_outliers", "test_uniformity"):
            left, right = getattr(a, test)(), getattr(b, test)()
            # Means that are the same up to the last step of the optimiser.
            assert left.statistic == pytest.approx(right.statistic, rel=1e-6)
            assert left.p_value == right.p_value


def test_overdispersion_zeros_and_outliers_are_found(counts):
    wide = lme4py.glmer("wide ~ x + (1 | g)", counts, "poisson").quantile_residuals(seed=1)
    assert wide.test_dispersion("greater").p_value < 0.01
    assert wide.test_dispersion().statistic > 1.5
    assert wide.test_outliers().p_value < 0.05
    assert wide.test_uniformity().p_value < 0.01
    zeros = lme4py.glmer("zeros ~ x + (1 | g)", counts, "poisson").quantile_residuals(seed=1)
    assert zeros.test_zero_inflation("greater").p_value < 0.01
    # One-sided tests the other way see nothing.
    assert zeros.test_zero_inflation("less").p_value > 0.99
    assert wide.test_dispersion("less").p_value > 0.99


def test_size_of_the_tests():
    """Under the model p-values below 0.1 come in about a tenth of all cases."""
    rng = np.random.default_rng(4)
    g = np.repeat(np.arange(25), 6)
    pieces = []
    for seed in range(30):
        y = 1.0 + rng.normal(size=25)[g] + rng.normal(size=g.size)
        found = lme4py.lmer("y ~ 1 + (1 | g)", {"y": y, "g": g}).quantile_residuals(60, seed)
        pieces.append([found.test_dispersion().p_value, found.test_outliers().p_value])
    # 30 replicates: more than 8 below 0.1 have probability 0.002 each.
    assert ((np.array(pieces) < 0.1).sum(axis=0) <= 8).all()


def test_outliers_of_a_continuous_response():
    rng = np.random.default_rng(1)
    g = np.repeat(np.arange(20), 10)
    y = rng.normal(size=20)[g] + rng.normal(size=200)
    y[:6] += 60.0
    found = lme4py.lmer("y ~ 1 + (1 | g)", {"y": y, "g": g}).quantile_residuals(200, 1)
    test = found.test_outliers()
    assert test.statistic >= 6
    assert test.p_value < 0.05
    assert test.expected == pytest.approx(400 / 201)
    assert (found.residuals[:6] == 1.0).all()
    assert not found.is_discrete


@pytest.mark.parametrize("include_random", [True, ["g"]])
def test_given_the_modes(right, include_random):
    found = quantile_residuals(right.fit, 100, 1, include_random)
    np.testing.assert_allclose(found.expected, right.fit.fitted, rtol=1e-12)
    assert found.test_uniformity().p_value > 0.01


def test_trials_proportions_categories_and_missing_rows():
    cbpp = lme4py.load_dataset("cbpp")
    counts = lme4py.glmer("cbind(incidence, size - incidence) ~ period + (1 | herd)", cbpp)
    shares = lme4py.glmer("p ~ period + (1 | herd)", cbpp.assign(p=cbpp["incidence"] / cbpp["size"]), weights="size")
    a, b = counts.quantile_residuals(seed=1), shares.quantile_residuals(seed=1)
    # The same model, up to rounding of its optimum.
    assert np.mean(np.abs(a.residuals - b.residuals) < 0.05) > 0.95
    np.testing.assert_allclose(a.expected, b.expected * cbpp["size"], rtol=1e-4)
    wine = lme4py.clmm("rating ~ temp + contact + (1 | judge)", lme4py.load_dataset("wine"))
    assert wine.quantile_residuals(seed=1).test_uniformity().p_value > 0.05
    holes = lme4py.load_dataset("sleepstudy")
    holes.loc[3, "Reaction"] = np.nan
    found = lme4py.lmer("Reaction ~ Days + (Days | Subject)", holes, na_action="exclude").quantile_residuals(50, 1)
    assert np.isnan(found.residuals[3])
    assert found.residuals.size == 180
    assert found.test_uniformity().p_value > 0.01


def test_refusals(right):
    with pytest.raises(OptionError, match="`n` is 5"):
        right.quantile_residuals(5)
    with pytest.raises(OptionError, match="alternative"):
        right.quantile_residuals(30, 1).test_dispersion("both")
