"""How good the integral over the random effects is: the finer rule at the estimates, and what is said of it."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, log_expit, logsumexp

import lme4py
from lme4py.engine.generalised.integrals.integral import _other_points
from lme4py.errors import ConvergenceWarning

CLUSTERED = "y ~ x + (1 | g)"


def clustered(seed: int, groups: int, rows: int, sd: float) -> pd.DataFrame:
    """0/1 responses whose groups differ by `sd` on the scale of the logit."""
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(groups), rows)
    x = rng.standard_normal(g.size)
    y = rng.random(g.size) < expit(0.5 + x + sd * rng.standard_normal(groups)[g])
    return pd.DataFrame({"y": y.astype(float), "x": x, "g": g})


def quietly(data: pd.DataFrame, nAGQ: int) -> lme4py.MEGLMResult:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return lme4py.glmer(CLUSTERED, data, nAGQ=nAGQ)


def log_likelihood(fit: lme4py.MEGLMResult, data: pd.DataFrame) -> float:
    """By the trapezoidal rule, whose error for an analytic integrand that vanishes at both ends is far below 1e-9."""
    u, step = np.linspace(-12.0, 12.0, 6001, retstep=True)
    eta = (fit.params["Intercept"] + fit.params["x"] * data["x"]).to_numpy()[:, None] + fit.theta[0] * u
    sign = 2.0 * data["y"].to_numpy()[:, None] - 1.0
    starts = np.flatnonzero(np.diff(data["g"], prepend=-1))
    by_group = np.add.reduceat(log_expit(sign * eta), starts, axis=0)
    return float((logsumexp(by_group - 0.5 * u**2, axis=1) + np.log(step / np.sqrt(2.0 * np.pi))).sum())


def moved(a: lme4py.MEGLMResult, b: lme4py.MEGLMResult) -> float:
    """Largest difference of the estimates of two fits in the standard errors of the second."""
    se = np.sqrt(b.fit.parameter_vcov.diagonal())
    return float(np.abs((np.r_[a.theta, a.params] - np.r_[b.theta, b.params]) / se).max())


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(("groups", "rows", "sd"), [(40, 10, 5.0), (40, 10, 8.0), (60, 5, 6.0), (50, 10, 1.5)])
def test_a_warning_where_nine_points_are_too_few_and_none_elsewhere(
    seed: int, groups: int, rows: int, sd: float
) -> None:
    data = clustered(100 + seed, groups, rows, sd)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        nine = lme4py.glmer(CLUSTERED, data, nAGQ=9)
    right = quietly(data, 99)
    wrong = abs(nine.log_likelihood - right.log_likelihood) > 0.1 or moved(nine, right) > 1.0
    assert [str(w.message) for w in caught] == ([str(nine.integral_check)] if wrong else [])
    assert ("is poor here" in nine.summary()) == wrong
    if not wrong:
        return
    enough = nine.integral_check.enough
    assert enough is not None
    assert f"Use nAGQ={enough}" in str(caught[0].message)
    # The number in the message is enough: a fit with it carries no warning (warnings are errors here).
    better = lme4py.glmer(CLUSTERED, data, nAGQ=enough)
    # Half of what matters.
    assert abs(better.log_likelihood - right.log_likelihood) < 0.06
    assert moved(better, right) < 0.5


def test_the_change_is_that_of_brute_force() -> None:
    data = clustered(100, 40, 10, 4.0)
    for points, tolerance in ((1, 0.03), (5, 0.05), (9, 0.015)):
        fit = quietly(data, points)
        exact = log_likelihood(fit, data) - fit.log_likelihood
        # The finer rule has 15, 10 and 18 points: its own error is left.
        assert fit.integral_check.change == pytest.approx(exact, abs=tolerance)


@pytest.mark.parametrize(
    ("formula", "expected"),
    # Differences of the estimates of nAGQ=1 and 25 (15 with slopes) in standard errors.
    [("use ~ age + urban + (1 | district)", 0.045), ("use ~ age + urban + (urban | district)", 0.085)],
)
def test_a_laplace_approximation_is_judged_by_the_shift(formula: str, expected: float) -> None:
    data = lme4py.load_dataset("Contraception")
    fit, better = lme4py.glmer(formula, data), lme4py.glmer(formula, data, nAGQ=9)
    check = fit.integral_check
    assert moved(fit, better) == pytest.approx(expected, abs=0.002)
    # One Newton step falls short of the maximum by a second-order part.
    assert check.shift == pytest.approx(expected, abs=0.004)
    # The log-likelihood changes by more than 0.1, as it does with enough groups; this is not what counts.
    assert check.change > 0.1
    assert not check.matters
    assert not fit.fit.laplace_is_poor
    assert "poor" not in fit.summary()
    assert fit.check()["Laplace"].ok is True
    assert fit.laplace_error == -2.0 * check.change


def test_a_poor_laplace_approximation_names_a_number_that_is_enough() -> None:
    data = clustered(101, 200, 3, 2.0)
    poor = quietly(data, 1)
    check = poor.integral_check
    better = lme4py.glmer(CLUSTERED, data, nAGQ=9)
    assert moved(poor, better) > 0.5
    assert check.shift > 0.5
    assert check.enough == 9
    assert "The Laplace approximation is poor here" in poor.summary()
    assert "Use nAGQ=9, which is enough" in " ".join(poor.summary().split())
    assert poor.check()["Laplace"].ok is False
    assert better.check()["quadrature"].ok is True


def test_where_nothing_can_be_compared_the_check_says_so() -> None:
    ticks = lme4py.load_dataset("grouseticks")
    crossed = lme4py.glmer("TICKS ~ YEAR + (1 | BROOD) + (1 | LOCATION) + (1 | INDEX)", ticks, "poisson")
    assert crossed.integral_check.points is None
    assert not crossed.integral_check.matters
    assert crossed.laplace_error is None
    assert "does not split into groups" in str(crossed.integral_check)
    assert crossed.check()["Laplace"].ok is None
    fast = lme4py.glmer("use ~ age + (1 | district)", lme4py.load_dataset("Contraception"), nAGQ=0)
    assert "nAGQ=0" in str(fast.integral_check)


def test_nested_factors_and_rules_that_are_not_adaptive() -> None:
    data = clustered(3, 40, 6, 1.0).assign(inner=lambda d: d["g"] * 3 + np.arange(len(d)) % 3)
    nested = lme4py.glmer("y ~ x + (1 | g/inner)", data, nAGQ=7)
    assert nested.integral_check.points == 10
    assert abs(nested.integral_check.change) < 0.01
    wine = lme4py.load_dataset("wine")
    fixed = lme4py.clmm("rating ~ temp + contact + (1 | judge)", wine, nAGQ=-15)
    adaptive = lme4py.clmm("rating ~ temp + contact + (1 | judge)", wine, nAGQ=15)
    change = fixed.integral_check.change
    # 30 adaptive points give the integral at the estimates; the fit with 15 is its maximum to second order.
    assert change == pytest.approx(adaptive.log_likelihood - fixed.log_likelihood, abs=1e-4)
    with pytest.warns(ConvergenceWarning, match="nAGQ=-3 is poor"):
        lme4py.clmm("rating ~ temp + contact + (1 | judge)", wine, nAGQ=-3)


def test_the_most_points_are_compared_too() -> None:
    data = clustered(100, 40, 10, 4.0)
    assert lme4py.glmer(CLUSTERED, data, nAGQ=99).integral_check.points == 198
    # 100 points in two dimensions leave room for 141 of 20,000 nodes; 11 in four dimensions for none above 11.
    assert [_other_points(n, dimension, 1000) for n, dimension in ((100, 2), (11, 4))] == [141, 7]


def test_it_stays_with_the_fit() -> None:
    data = clustered(105, 40, 10, 8.0)
    fit = quietly(data, 9)
    again = pickle.loads(pickle.dumps(fit))
    assert again.integral_check.change == pytest.approx(fit.integral_check.change, abs=1e-9)  # the mode is found anew
    assert again.summary() == fit.summary()
    slim = fit.slim()
    assert slim.integral_check == fit.integral_check
    assert slim.summary() == fit.summary()


def test_refit_compares_too() -> None:
    data = clustered(100, 40, 10, 1.0)
    fit = lme4py.glmer(CLUSTERED, data, nAGQ=9)
    with pytest.warns(ConvergenceWarning, match="nAGQ=9 is poor"):
        fit.refit(clustered(105, 40, 10, 8.0)["y"])
