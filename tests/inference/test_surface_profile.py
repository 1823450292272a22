"""Profiles of correlations at a lag: a correlation that is a function of several theta is held on a surface.

Expected values: brute-force constrained optima by a general optimiser on the dense likelihood; central differences.
"""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize

import lme4py
from lme4py.covariance import CovarianceStructures, make_structure
from lme4py.engine.certificate import describe_limits
from lme4py.inference.profile.profile import why_never

K, GROUPS, ROWS = 4, 25, 2


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    R = np.array([1.0, 0.6, 0.3, 0.1])[np.abs(np.subtract.outer(range(K), range(K)))]
    b = np.linalg.cholesky(R) @ rng.standard_normal((K, GROUPS))
    t, g = np.repeat(np.tile(np.arange(K), GROUPS), ROWS), np.repeat(np.arange(GROUPS), K * ROWS)
    x = rng.standard_normal(t.size)
    y = 1.0 + 0.5 * x + np.repeat(b.T.ravel(), ROWS) + 0.7 * rng.standard_normal(t.size)
    return pd.DataFrame({"y": y, "x": x, "f": [f"t{i}" for i in t], "t": t, "g": g})


@pytest.mark.parametrize("kind", ["homtoep", "toep"])
@pytest.mark.parametrize("lag", [1, 2, 3])
def test_coordinates_hold_the_correlation_and_have_right_derivatives(kind, lag):
    structure = make_structure(kind, K)
    theta = structure.initial() + np.random.default_rng(lag).normal(0.0, 0.3, structure.n_theta)
    held = structure.hold(structure.n_theta - 4 + lag).about(theta)
    x, s = held.start(theta), held.value(theta)
    assert held.theta(x, s).value == pytest.approx(theta, abs=1e-13)  # the point is met to rounding
    z = np.append(x + 0.1, s + 0.1)
    jet = held.theta(z[:-1], z[-1])
    assert held.value(jet.value) == pytest.approx(s + 0.1, abs=1e-12)
    step = 1e-5
    moves = [(held.theta(*_split(z + d)), held.theta(*_split(z - d))) for d in step * np.eye(z.size)]
    first = [(up.value - down.value) / (2 * step) for up, down in moves]
    second = [(up.first - down.first) / (2 * step) for up, down in moves]
    # Central differences are good to the square of the step.
    assert jet.first == pytest.approx(np.array(first), abs=1e-8)
    assert jet.second == pytest.approx(np.array(second), abs=1e-8)


def _split(z):
    return z[:-1], z[-1]


def _constrained(data: pd.DataFrame, kind: str, lag: int, value: float) -> float:
    """The least -2 log-likelihood with one correlation held, by a general optimiser over all other parameters."""
    n_sd, rows = K if kind == "toep" else 1, K * ROWS
    table = np.column_stack([np.ones(len(data)), data["x"], data["y"]]).reshape(GROUPS, rows, 3)
    products = np.einsum("jap,jbq->abpq", table, table)
    Z = np.eye(K)[data["t"].to_numpy()[:rows]]
    lags = np.abs(np.subtract.outer(range(K), range(K)))

    def deviance(p):
        R = np.insert(np.append(1.0, p[n_sd:-1]), lag, value)[lags]
        sd = np.exp(p[:n_sd]) * np.ones(K)
        V = Z @ (R * np.outer(sd, sd)) @ Z.T + np.exp(2 * p[-1]) * np.eye(rows)
        if np.linalg.eigvalsh(R)[0] < 0.0:
            return 1e4
        A = np.einsum("ab,abpq->pq", np.linalg.inv(V), products)
        rss = A[2, 2] - A[2, :2] @ np.linalg.solve(A[:2, :2], A[:2, 2])
        return np.linalg.slogdet(V)[1] * GROUPS + rss + len(data) * np.log(2 * np.pi)

    start = np.concatenate([np.zeros(n_sd), np.full(K - 2, 0.1 if value < 0 else 0.3), [-0.3]])
    return minimize(deviance, start, method="BFGS", options={"gtol": 1e-4}).fun


@pytest.mark.parametrize(
    ("kind", "lag", "name"), [("homtoep", 2, "cor(f[t0], f[t2] | g)"), ("toep", 3, "cor(toep, lag 3 | g)")]
)
def test_limits_of_a_lag_are_where_the_constrained_deviance_has_risen_by_the_quantile(data, kind, lag, name):
    fit = lme4py.lmer(f"y ~ x + {kind}(0 + f | g)", data, reml=False)
    limits = fit.profile(name, alpha=0.05).conf_int(alpha=0.05).loc[name]
    for value in limits:
        rise = _constrained(data, kind, lag, float(value)) + 2.0 * fit.log_likelihood
        # The general optimiser, by differences, stops about 1e-6 above the minimum.
        assert rise == pytest.approx(3.841459, abs=2e-5)


def test_a_correlation_of_homtoep_is_held_at_its_own_lag(data):
    fit = lme4py.lmer(
        "y ~ x + homtoep(0 + f | g)", data, fix={"cor(f[t0], f[t1] | g)": 0.4, "cor(f[t1], f[t3] | g)": -0.1}
    )
    S = fit.fit.covariances[0]
    assert S[1, 2] / S[0, 0] == pytest.approx(0.4, abs=1e-12)
    assert S[0, 2] / S[0, 0] == pytest.approx(-0.1, abs=1e-12)


def test_beside_a_correlation_that_is_held_others_have_profiles(data):
    fit = lme4py.lmer("y ~ x + toep(0 + f | g)", data, reml=False, fix={"cor(toep, lag 1 | g)": 0.5})
    name = "cor(toep, lag 2 | g)"
    profile = fit.profile(name, alpha=0.05)
    value = float(profile.conf_int(alpha=0.05).loc[name].iloc[0])
    both = lme4py.lmer(
        "y ~ x + toep(0 + f | g)", data, reml=False, fix={"cor(toep, lag 1 | g)": 0.5, "cor(toep, lag 2 | g)": value}
    )
    # Both fits are minima to 1e-9.
    assert 2.0 * (fit.log_likelihood - both.log_likelihood) == pytest.approx(3.841459, abs=1e-6)


def test_a_smoothness_without_bound_is_said():
    mat = make_structure("mat", 3, np.arange(3.0))
    theta = mat.theta_of_natural(np.array([0.5, 0.003, 9e4]))
    said = "smoothness of mat(t | g) is without bound"
    structures = CovarianceStructures((mat,))
    assert said in describe_limits(structures, theta, [("mat(t | g)", ())], {})
    assert describe_limits(structures, theta, [("mat(t | g)", ())], {0: ("its variance is zero",)}) == ""
    # Where one better optimum follows another, a profile says the same.
    term = SimpleNamespace(structure=mat, label="mat(t | g)")
    fit = SimpleNamespace(design=SimpleNamespace(terms=(term,), structures=structures), theta=theta)
    assert said in why_never(fit)


def test_an_infinite_range_leaves_the_profiles_of_the_others():
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"t": np.tile(np.arange(5.0), 40), "g": np.repeat(np.arange(40), 5)})
    frame["y"] = 1.0 + rng.normal(size=200) + rng.normal(size=40)[frame["g"]]
    fit = lme4py.lmer("y ~ 1 + exp(0 + numFactor(t) | g)", frame, reml=False)
    assert "is infinite" in str(fit)
    limits = fit.profile().conf_int()
    np.testing.assert_array_equal(limits.loc["range(exp | g)"], [np.nan, np.inf])
    assert "range(exp | g): the estimate is infinite" in limits.attrs["note"]
    # With all effects of a group equal, it is the model of an intercept; limits are found to 1e-7 of the signed root.
    plain = lme4py.lmer("y ~ 1 + (1 | g)", frame, reml=False).profile().conf_int()
    rows = ["Intercept", "sigma"]
    np.testing.assert_allclose(limits.loc[rows, "lower"], plain.loc[rows, "lower"], rtol=1e-5)
