"""Smooths in zero and dispersion parts: the Laplace criterion and the information by brute force, and their use."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import special, stats

import lme4py
from lme4py.inference.estimates.smooth_system import smooth_system

rng = np.random.default_rng(8)
N = 240
DATA = pd.DataFrame({"x": rng.uniform(size=N), "z": rng.uniform(size=N), "g": rng.choice(list("abcdef"), N)})
MEAN = np.exp(1.2 + np.sin(5 * DATA.x))
ZERO = special.expit(-1 + 3 * np.sin(5 * DATA.z))
DATA["count"] = rng.poisson(MEAN) * (rng.uniform(size=N) > ZERO)
DATA["y"] = np.sin(5 * DATA.x) + rng.normal(size=N) * np.exp(-1 + np.sin(5 * DATA.z))
NEW = pd.DataFrame({"x": [0.1, 0.5, 1.2], "z": [0.9, 0.5, 0.1], "g": ["a", "b", "c"]})


@pytest.fixture(scope="module")
def zeros():
    return lme4py.glmer("count ~ s(x, k = 5)", DATA, "poisson", ziformula="~ s(z, k = 5)")


@pytest.fixture(scope="module")
def spread():
    return lme4py.glmer("y ~ s(x, k = 5)", DATA, "gaussian", dispformula="~ s(z, k = 5)")


def _log_likelihood(result, columns, coefficients):
    """Of all coefficients, by the densities of scipy: the conditional predictor, then that of the part."""
    eta, other = columns[0] @ coefficients, columns[1] @ coefficients
    if "y" in result.formula.split("~")[0]:
        return float(stats.norm.logpdf(DATA["y"], eta, np.exp(other)).sum())
    zero = special.expit(other)
    mass = (1 - zero) * stats.poisson.pmf(DATA["count"], np.exp(eta)) + zero * (DATA["count"] == 0)
    return float(np.log(mass).sum())


def _columns(result):
    """Columns of all coefficients of `System` in both predictors."""
    fit, system = result.fit, smooth_system(result.fit)
    size, p = system.coefficients.size, fit.design.X.shape[1]
    first, second = np.zeros((N, size)), np.zeros((N, size))
    first[:, :p] = fit.design.X
    q = sum(term.n_columns for term in fit.design.terms)
    second[:, p + q :] = fit.design.predictors[1].X
    for one in system.smooths:
        home = first if one.component == "conditional" else second
        home[:, one.places] = one.columns
    return first, second


@pytest.mark.parametrize("name", ["zeros", "spread"])
def test_the_criterion_and_the_information_are_those_of_brute_force(name, request):
    result = request.getfixturevalue(name)
    assert result.converged
    system, columns = smooth_system(result.fit), _columns(result)
    best = system.coefficients
    step = 1e-3 * np.eye(best.size)

    def value(at):
        return _log_likelihood(result, columns, at)

    H = np.array(
        [
            [value(best + a + b) - value(best + a - b) - value(best - a + b) + value(best - a - b) for b in step]
            for a in step
        ]
    ) / (4 * 1e-6)
    p = result.fit.design.X.shape[1]
    q = sum(term.n_columns for term in result.fit.design.terms)
    random = slice(p, p + q)
    S = np.zeros(best.size)
    S[random] = 1.0
    # Differences of steps of .001 have errors of about 1e-5 of the largest elements.
    J = np.linalg.inv(system.V) - np.diag(S)
    assert np.abs(J + H).max() < 2e-4 * np.abs(H).max()
    laplace = -2 * value(best) + best[random] @ best[random]
    laplace += np.linalg.slogdet(-H[random, random] + np.eye(q))[1]
    assert result.fit.criterion == pytest.approx(laplace, abs=2e-3)


def test_tables_name_the_part(zeros, spread):
    assert list(zeros.smooths().index) == ["s(x)", "zero_inflation: s(z)"]
    assert list(spread.smooths().index) == ["s(x)", "dispersion: s(z)"]
    assert list(zeros.params.index) == ["Intercept"]
    assert list(zeros.coef_table(component="zero_inflation").index) == ["Intercept"]
    assert set(zeros.conf_int(parm="random").index) == {"sd(s(x))", "sd(zero_inflation: s(z))"}
    assert "zero_inflation: s(z)" in str(zeros.summary())
    # The truth: a wave in the logit of zeros.
    curve = zeros.smooth_curves("zero_inflation: s(z)", n=30)
    assert np.corrcoef(curve["estimate"], np.sin(5 * curve["z"]))[0, 1] > 0.95
    assert len(zeros.concurvity()) == 2
    assert zeros.check()["bases"].ok


def test_predictions_have_the_smooths_of_all_parts(zeros, spread):
    at = zeros.predict(NEW, type="zprob")
    one = smooth_system(zeros.fit).smooths[1]
    beta = zeros.coef_table(component="zero_inflation")["estimate"].iloc[0]
    system = smooth_system(zeros.fit)
    eta = beta + one.basis([NEW["z"].to_numpy()]) @ system.coefficients[one.places]
    assert at.to_numpy() == pytest.approx(special.expit(eta), rel=1e-8)
    response = zeros.predict(NEW)
    assert response.to_numpy() == pytest.approx(
        ((1 - at) * zeros.predict(NEW, type="conditional")).to_numpy(), rel=1e-9
    )
    # There are no other random effects.
    assert zeros.predict(NEW, include_random=False).to_numpy() == pytest.approx(response.to_numpy(), rel=1e-12)
    own = zeros.predict(DATA.iloc[:5], type="zprob")
    assert own.to_numpy() == pytest.approx(zeros.predict(type="zprob").iloc[:5].to_numpy(), rel=1e-9)
    limits = zeros.predict(NEW, interval="confidence")
    assert (limits["lower"] < limits["predicted"]).all()
    sd = spread.predict(DATA, type="dispersion")
    assert np.corrcoef(np.log(sd), np.sin(5 * DATA.z))[0, 1] > 0.95


def test_simulations_and_refits_keep_the_smooths(zeros):
    draws = zeros.simulate(30, seed=4)
    # Means of 30 draws of a mean of 240 counts.
    assert float(draws.mean().mean()) == pytest.approx(float(zeros.fittedvalues.mean()), rel=0.1)
    assert zeros.refit(draws.iloc[:, 0]).smooths()["edf"].notna().all()


def test_a_part_may_have_the_only_smooth_and_levels_of_a_factor():
    only = lme4py.glmer("count ~ x", DATA, "poisson", ziformula="~ s(z, k = 5)")
    assert list(only.smooths().index) == ["zero_inflation: s(z)"]
    levels = lme4py.glmer("count ~ s(x, k = 5)", DATA, "poisson", ziformula="~ z + s(z, g, bs = 'fs', k = 4)")
    assert list(levels.smooths().index) == ["s(x)", "zero_inflation: s(z,g)"]
    surface = lme4py.glmer("count ~ (1 | g)", DATA, "poisson", ziformula="~ te(x, z, k = 4)")
    assert list(surface.smooths().index) == ["zero_inflation: te(x,z)"]


def test_ordered_categories_with_a_scale_have_smooths():
    data = DATA.assign(r=pd.Categorical(pd.qcut(DATA.y, 4, labels=False), ordered=True))
    for more in ({"scale": "~ z"}, {"nominal": "~ z"}):
        result = lme4py.clmm("r ~ s(x, k = 5) + (1 | g)", data, **more)
        assert list(result.smooths().index) == ["s(x)"]
        assert 1.0 < result.smooths()["edf"].iloc[0] < 4.01


def test_margins_where_the_dispersion_has_a_smooth(spread):
    """No coefficient of the dispersion moves the mean: standard errors are those of predictions."""
    found = lme4py.Margins.linear_scale(spread).predict(atexog={"x": [0.2, 0.5]}).to_frame()
    rows = pd.DataFrame({"x": [0.2, 0.5], "z": 0.5, "g": "a"})
    predicted = spread.predict(rows, include_random=False, se=True)
    assert found["estimate"].to_numpy() == pytest.approx(predicted["predicted"].to_numpy(), rel=1e-10)
    assert found["std_error"].to_numpy() == pytest.approx(predicted["std_error"].to_numpy(), rel=1e-8)
