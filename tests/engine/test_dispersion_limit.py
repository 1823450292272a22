"""Dispersions at the end of their range: the limit model, its intervals, and refits from it."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, stats

import lme4py
from lme4py.errors import ConvergenceWarning
from lme4py.fits.generalised.refit import refit_estimates

FAMILIES = ("nbinomial", "nbinomial1")


@cache
def counts() -> pd.DataFrame:
    """Counts with less variation than a Poisson model has, and with more."""
    rng = np.random.default_rng(3)
    g, x = np.repeat(np.arange(12), 10), rng.standard_normal(120)
    mean = np.exp(1.0 + 0.3 * x + 0.5 * rng.standard_normal(12)[g])
    y = rng.binomial(30, mean / 30.0)
    return pd.DataFrame({"y": y, "x": x, "g": g, "over": rng.negative_binomial(1.5, 1.5 / (1.5 + mean))})


@cache
def fitted(family: str, response: str = "y", nAGQ: int = 1) -> lme4py.MEGLMResult:
    return lme4py.glmer(f"{response} ~ x + (1 | g)", counts(), family=family, nAGQ=nAGQ)


def brute_force(size: float) -> float:
    """-2 log-likelihood at its maximum where the shape is `size`: the integral as a sum, SciPy's optimiser."""
    data, nodes = counts(), np.arange(-6.0, 6.0, 0.06)
    weights = 0.06 * stats.norm.pdf(nodes)
    y, x, g = (data[name].to_numpy() for name in ("y", "x", "g"))

    def criterion(phi: np.ndarray) -> float:
        mean = np.exp((phi[0] + phi[1] * x)[:, None] + phi[2] * nodes)
        rows = stats.nbinom.logpmf(y[:, None], size, size / (size + mean))
        groups = np.array([rows[g == j].sum(axis=0) for j in range(12)])
        return -2.0 * float(np.log(np.exp(groups) @ weights).sum())

    return float(optimize.minimize(criterion, [1.17, 0.33, 0.52], method="Nelder-Mead", options={"xatol": 1e-5}).fun)


class TestTheLimitModel:
    @pytest.mark.parametrize("family", FAMILIES)
    def test_is_the_poisson_model(self, family: str) -> None:
        fit, plain = fitted(family), fitted("poisson")
        assert fit.converged
        # Both end within 1e-8 of the same minimum.
        assert fit.log_likelihood == pytest.approx(plain.log_likelihood, abs=1e-7)
        assert fit.params.to_numpy() == pytest.approx(plain.params.to_numpy(), rel=1e-5)
        # Differences of gradients of 1e-6 or so.
        assert fit.bse.to_numpy() == pytest.approx(plain.bse.to_numpy(), rel=1e-4)
        assert "the Poisson model" in fit.certificate.verdict
        assert "(the Poisson model)" in str(fit.summary())

    def test_the_parameter_is_exactly_at_its_end(self) -> None:
        assert fitted("nbinomial").dispersion == np.inf
        assert fitted("nbinomial1").dispersion == 0.0
        assert fitted("nbinomial", "over").fit.dispersion_limit == ""

    @pytest.mark.parametrize("family", FAMILIES)
    def test_deletions_are_those_of_the_poisson_model(self, family: str) -> None:
        distances = [fitted(name).influence().cooks_distance for name in (family, "poisson")]
        # Deletions take one Newton step from estimates that agree to 1e-5.
        assert np.asarray(distances[0]) == pytest.approx(np.asarray(distances[1]), rel=1e-3, abs=1e-6)

    @pytest.mark.parametrize("family", ["gamma", "inverse_gaussian"])
    def test_rows_that_are_met_exactly_have_no_maximum(self, family: str) -> None:
        data = pd.DataFrame({"g": np.repeat(np.arange(6), 4)})
        data["y"] = np.exp(0.5 * np.sin(1.0 + data["g"]))
        with pytest.warns(ConvergenceWarning, match="no maximum"):
            fit = lme4py.glmer("y ~ 1 + (1 | g)", data, family=family, link="log")
        assert not fit.converged


class TestIntervals:
    def test_a_profile_has_one_finite_limit(self) -> None:
        exact = fitted("nbinomial", nAGQ=25)
        lower, upper = exact.conf_int(method="profile", parm=["dispersion"]).loc["dispersion"]
        assert upper == np.inf
        # Brute force at the limit is a quantile of chi-squared above the Poisson model; the optimiser stops at 1e-4,
        # and at a shape of 1e7 the model is the Poisson model to 1e-5.
        rise = brute_force(float(lower)) - brute_force(1e7)
        assert rise == pytest.approx(stats.chi2.ppf(0.95, 1), abs=1e-3)

    def test_a_profile_that_starts_at_zero(self) -> None:
        lower, upper = fitted("nbinomial1").conf_int(method="profile", parm=["dispersion"]).loc["dispersion"]
        assert lower == 0.0
        assert 0.05 < upper < 0.5


class TestRefits:
    @pytest.mark.parametrize("family", FAMILIES)
    def test_from_the_limit_and_back(self, family: str) -> None:
        over = fitted(family, "over")
        # The gradient vanishes at the limit: a descent that began there would stay.
        assert fitted(family).refit(counts()["over"]).log_likelihood == pytest.approx(over.log_likelihood, abs=1e-6)
        quick = refit_estimates(fitted(family).fit, counts()["over"])
        assert quick.criterion == pytest.approx(-2.0 * over.log_likelihood, abs=1e-5)
        back = over.refit(counts()["y"])
        assert back.log_likelihood == pytest.approx(fitted("poisson").log_likelihood, abs=1e-6)
        assert back.fit.dispersion_limit == "the Poisson model"

    def test_a_bootstrap_of_the_limit_finds_dispersions_again(self) -> None:
        samples = fitted("nbinomial").bootstrap(n=8, seed=1)
        found = samples.replicates["dispersion"].to_numpy()
        # About half of the samples of a Poisson model vary more than it.
        assert np.isinf(found).any()
        assert np.isfinite(found).any()
        assert np.isnan(samples.summary().loc["dispersion", "std_error"])
