"""Designs on which a generalised model once failed; hundreds more are in benchmarks/torture.py."""

from __future__ import annotations

from math import comb, log

import numpy as np
import pytest
from scipy.special import gammaln

import lme4py
from lme4py.engine.generalised.making.make import make_glmm
from lme4py.engine.generalised.problem import ModeFinder
from lme4py.engine.generalised.search import solve_glmm
from lme4py.engine.optimise import Control
from lme4py.families.registry import make_family
from lme4py.families.special import log_coefficient, log_rising


@pytest.mark.parametrize(
    ("family", "y"),
    [("poisson", [2, 0, 2, 4]), ("binomial", [1, 1, 1, 1, 1, 0, 1, 0, 0])],
    ids=["poisson", "binomial"],
)
def test_a_variance_at_the_edge_of_zero_is_no_descent(family, y):
    """The score test of the variance is exactly 0: differences of gradients may make of it a small negative number."""
    groups = np.repeat(np.arange(len(y) // (2 if family == "poisson" else 3)), 2 if family == "poisson" else 3)
    result = lme4py.glmer("y ~ 1 + (1 | g)", {"y": y, "g": groups}, family)
    assert result.converged
    assert result.theta.tolist() == [0.0]


def test_a_symmetric_saddle_is_left():
    """All successes in half of the groups: by symmetry the gradient in the intercept is zero at zero.

    The doors refuse such data, whose likelihood has no maximum; Laplace's approximation of it has one.
    """
    groups = np.repeat(np.arange(20), 6)
    design = lme4py.lformula("y ~ 1 + (1 | g)", {"y": groups % 2, "g": groups}, family="binomial")
    finder = ModeFinder(make_glmm(design, make_family("binomial"), design.response))
    optimum = solve_glmm(finder, None, Control())
    # At the saddle, with an intercept of zero, twice the log-likelihood is -41.032.
    assert optimum.value < 2 * 16.1
    assert abs(optimum.phi[1]) > 1.0


def test_the_judgement_of_a_variance_does_not_depend_on_the_unit():
    rng = np.random.default_rng(8)
    groups = np.repeat(np.arange(20), 8)
    y = 0.5 * rng.normal(size=20)[groups] + rng.normal(size=160)
    plain = lme4py.glmer("y ~ 1 + (1 | g)", {"y": y, "g": groups}, "gaussian")
    for unit in (1e-12, 1e12):
        result = lme4py.glmer("y ~ 1 + (1 | g)", {"y": unit * y, "g": groups}, "gaussian")
        assert result.converged
        assert not result.is_singular
        # The same problem inside, but for rounding of the sums.
        assert result.theta[0] / unit == pytest.approx(plain.theta[0], rel=1e-6)


@pytest.mark.parametrize("link", ["logit", "probit", "cloglog"])
def test_separated_effects_are_infinite(link):
    """An effect without a finite estimate has no curvature: it has no standard error, and never one of zero."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=120)
    data = {"y": (x > 0).astype(int), "x": x, "g": np.repeat(np.arange(20), 6)}
    with pytest.warns(lme4py.ConvergenceWarning, match="separate successes from failures"):
        result = lme4py.glmer("y ~ x + (1 | g)", data, link=link)
    assert result.params["x"] == np.inf
    assert not np.isfinite(result.params["Intercept"])
    assert result.bse.isna().all()
    assert result.pvalues.isna().all()
    assert "nan" not in result.summary()


# -- large counts ----------------------------------------------------------------------------------


@pytest.mark.parametrize("y", [20.0, 1e3, 1e6, 1e9, 1e12])
@pytest.mark.parametrize("s", [1, 2, 7])
def test_log_coefficient_is_the_binomial_coefficient(y, s):
    """Gamma(y + s) / (Gamma(s) y!) with whole s."""
    value, slope = log_coefficient(np.array([y]), np.array([log(s)]))
    # Rounding of sums of a few terms of the size of the result.
    assert value[0] == pytest.approx(log(comb(int(y) + s - 1, s - 1)), rel=1e-13, abs=1e-13)
    # s (digamma(y + s) - digamma(s)) as a harmonic sum, by its own series beyond 1e6.
    if y <= 1e6:
        assert slope[0] == pytest.approx(s * float((1.0 / np.arange(s, s + int(y))).sum()), rel=1e-12)


def test_log_coefficient_is_the_ordinary_formula():
    y, log_s = np.array([25.0, 400.0, 3000.0]), np.log([0.01, 300.0, 2500.0])
    value, slope = log_coefficient(y, log_s)
    R = log_rising(y, log_s, 1)
    # The terms of the formula are up to 2e4.
    np.testing.assert_allclose(value, R[0] + y * log_s - gammaln(y + 1), rtol=0, atol=1e-11)
    np.testing.assert_allclose(slope, R[1] + y, rtol=0, atol=1e-11)


@pytest.mark.parametrize("family", ["nbinomial", "nbinomial1"])
@pytest.mark.parametrize("size", [6.0, 13.0, 20.0])
def test_negative_binomial_counts_of_any_size(family, size):
    """Counts around 400, 4e5 and 5e8; the dispersion does not know of the size (NB-2), or grows with it (NB-1)."""
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(20), 8)
    x = rng.normal(size=160)
    mean = np.exp(size + 0.4 * x + 0.5 * rng.normal(size=20)[groups])
    y = rng.poisson(mean * rng.gamma(2.0, 0.5, 160))
    result = lme4py.glmer("y ~ x + (1 | g)", {"y": y, "x": x, "g": groups}, family)
    assert result.converged
    if family == "nbinomial":
        # Beside the gamma variation the Poisson one is nothing: the same estimates up to its size.
        assert result.dispersion == pytest.approx(2.0, rel=0.5)
        assert result.params["x"] == pytest.approx(0.4, abs=0.2)  # three standard errors
    else:
        assert 0.1 < result.dispersion / np.exp(size) < 3.0
