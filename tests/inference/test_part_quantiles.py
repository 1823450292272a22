"""Prediction limits of continuous responses with further parts: the quantiles of the mixture, found in a few steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import special

import lme4py
from lme4py.families.densities.registry import make_density
from lme4py.families.densities.tweedie import Tweedie
from lme4py.families.response import ResponseData


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    """Rain of twelve stations: sums of a few amounts, or none."""
    rng = np.random.default_rng(41)
    g, x = np.repeat(np.arange(12), 10), rng.normal(size=120)
    mu = np.exp(1.2 + 0.3 * x + 0.5 * rng.normal(size=12)[g])
    return pd.DataFrame({"g": g, "x": x, "y": [rng.gamma(1.5, 0.6, k).sum() for k in rng.poisson(mu)]})


def test_limits_of_tweedie_responses_take_a_few_steps(data: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    fit = lme4py.glmer("y ~ x + (1 | g)", data, family="tweedie", dispformula="~ 1")
    calls = []
    own = Tweedie.cdf
    monkeypatch.setattr(Tweedie, "cdf", lambda self, *given: calls.append(1) or own(self, *given))
    found = fit.predict(data.head(6), interval="prediction", include_random=False)
    # Sixty halvings and a bracket for each of two limits were 137.
    assert len(calls) < 40
    # The same mixture over the errors of both predictors by another rule.
    row, new = found.iloc[0], data.head(1)
    mean, part = (fit.predict(new, type=t, include_random=False, se=True).iloc[0] for t in ("linear", "dispersion"))
    vcov = fit.fit.parameter_vcov[[1, 2, 3]][:, [1, 2, 3]]
    along = np.array([[1.0, new["x"].iloc[0], 0.0], [0.0, 0.0, 1.0]])
    root = np.linalg.cholesky(along @ vcov @ along.T + np.diag([fit.fit.covariances[0][0, 0], 0.0]))
    z, w = np.polynomial.hermite_e.hermegauss(40)
    nodes = np.stack(np.meshgrid(z, z), axis=-1).reshape(-1, 2) @ root.T
    density, y = make_density("tweedie", "log"), np.full(1600, row["upper"])
    x = [mean["predicted"] + nodes[:, 0], np.log(part["predicted"]) + nodes[:, 1], np.full(1600, fit.fit.lam[1])]
    below = np.outer(w, w).ravel() / w.sum() ** 2 @ own(density, y, x, ResponseData(y))
    # Nine nodes for the dispersion part.
    assert below == pytest.approx(0.975, abs=1e-7)


@pytest.mark.parametrize("number", [0.05, 1.0, 40.0])
def test_the_distribution_function_is_the_sum_over_numbers_of_amounts(number: float) -> None:
    power = 1.4
    k, rho = 2.0 - power, power - 1.0
    mu, y = 3.0, np.array([0.0, 1e-6, 0.5, 3.0, 9.0])
    phi = mu**k / (k * number)
    j = np.arange(1.0, 200.0)[:, None]
    p = np.exp(j * np.log(number) - number - special.gammaln(j + 1.0))
    shape, scale = k / rho, phi * rho * mu**rho
    found: dict[str, Any] = {}
    x = [np.full(5, np.log(mu)), np.log(phi), special.logit(rho)]
    for name in ("cdf", "sf"):
        found[name] = getattr(make_density("tweedie", "log"), name)(y, x, ResponseData(y))
    # Rounding of sums of some dozens of terms.
    np.testing.assert_allclose(
        found["cdf"], np.exp(-number) + (p * special.gammainc(j * shape, y / scale)).sum(axis=0), rtol=1e-13
    )
    np.testing.assert_allclose(found["sf"], (p * special.gammaincc(j * shape, y / scale)).sum(axis=0), rtol=1e-13)


def test_limits_reach_their_probability(data: pd.DataFrame) -> None:
    positive = data.assign(y=data["y"] + 0.1)
    fit = lme4py.glmer("y ~ x + (1 | g)", positive, family="gamma", link="log", dispformula="~ x")
    inner, outer = (fit.predict(positive.head(3), interval="prediction", alpha=a) for a in (0.5, 0.05))
    assert (outer["lower"] < inner["lower"]).all()
    assert (inner["upper"] < outer["upper"]).all()
    # Draws from the same distribution: the error of a share of 20,000 of them is .0015 and .003.
    rng = np.random.default_rng(5)
    new = positive.head(1).assign(g=99)
    band = fit.predict(new, interval="prediction", alpha=0.2, include_random=False).iloc[0]
    mean = fit.predict(new, type="linear", include_random=False, se=True).iloc[0]
    spread = np.hypot(mean["std_error"], np.sqrt(fit.covariances["(1 | g)"].to_numpy()[0, 0]))
    part = fit.predict(new, type="dispersion", include_random=False, se=True).iloc[0]
    shape = np.exp(np.log(part["predicted"]) + part["std_error"] / part["predicted"] * rng.normal(size=20_000))
    drawn = rng.gamma(shape, np.exp(mean["predicted"] + spread * rng.normal(size=20_000)) / shape)
    assert np.mean(drawn < band["upper"]) == pytest.approx(0.9, abs=0.01)
    assert np.mean(drawn < band["lower"]) == pytest.approx(0.1, abs=0.01)
