"""Terms of many times: the sparse inverse of ar1, ou and car1 beside the dense form of the same models."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import lme4py
from lme4py.engine.factor import chain_terms
from lme4py.engine.factor.chain import ChainSwept
from lme4py.engine.factor.crossproducts import Factor
from lme4py.engine.generalised.products import WeightedProducts
from lme4py.engine.linear.chained import ChainProblem
from lme4py.errors import DesignError

MODELS = {
    "ar1": "y ~ x + ar1(0 + factor(t) | g)",
    "ou beside others": "y ~ x + ou(numFactor(h) + 0 | g) + (1 | g) + (x | item)",
    "ar1 beside independent effects": "y ~ 1 + ar1(0 + factor(t) | g) + (x || item)",
}


def series(k: int = 25, J: int = 6, seed: int = 0) -> pd.DataFrame:
    """J series of an autoregression with noise, rows missing and repeated; `h` are irregular times."""
    rng = np.random.default_rng(seed)
    b = np.zeros((J, k))
    b[:, 0] = rng.normal(size=J)
    for t in range(1, k):
        b[:, t] = 0.7 * b[:, t - 1] + np.sqrt(0.51) * rng.normal(size=J)
    g, t = np.repeat(np.arange(J), 2 * k), np.tile(np.repeat(np.arange(k), 2), J)
    x = rng.normal(size=g.size)
    data = pd.DataFrame({"g": g, "t": t, "x": x, "item": rng.integers(0, 5, g.size), "w": rng.uniform(0.5, 2, g.size)})
    data["h"] = np.cumsum(rng.uniform(0.5, 2.0, k)).round(2)[t]
    data["y"] = 1.0 + 0.5 * x + 1.2 * b[g, t] + 0.7 * rng.normal(size=g.size)
    data["count"] = rng.poisson(np.exp(0.3 + 0.3 * x + 0.6 * b[g, t]))
    keep = (rng.uniform(size=g.size) > 0.4) | (g == 0)
    return data[keep].reset_index(drop=True)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Chains from five times on."""
    monkeypatch.setattr(chain_terms, "LONG", 5)
    return monkeypatch


def both(monkeypatch: pytest.MonkeyPatch, make: object) -> tuple:
    """What `make` gives with the dense form, and with the sparse inverse."""
    monkeypatch.setattr(chain_terms, "LONG", 10**6)
    dense = make()  # type: ignore[operator]
    monkeypatch.setattr(chain_terms, "LONG", 5)
    return dense, make()  # type: ignore[operator]


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("name", MODELS)
def test_criterion_and_gradient_are_those_of_the_dense_form(
    monkeypatch: pytest.MonkeyPatch, name: str, reml: bool
) -> None:
    design = lme4py.lformula(MODELS[name], series(), weights="w")
    dense, sparse = both(monkeypatch, lambda: lme4py.lmm_criterion(design, reml))
    assert isinstance(sparse.inside.problem, ChainProblem)
    assert not isinstance(dense.inside.problem, ChainProblem)
    rng = np.random.default_rng(1)
    for _ in range(3):
        theta = np.abs(rng.normal(size=sparse.inside.problem.structures.n_theta)) + 0.1
        # Both are exact: what differs is rounding, of values and gradients of about a thousand.
        assert sparse(theta) == pytest.approx(dense(theta), abs=1e-9)
        np.testing.assert_allclose(sparse.gradient(theta), dense.gradient(theta), atol=1e-7, rtol=1e-9)


def test_zero_variance_is_an_ordinary_point(monkeypatch: pytest.MonkeyPatch) -> None:
    design = lme4py.lformula(MODELS["ou beside others"], series())
    dense, sparse = both(monkeypatch, lambda: lme4py.lmm_criterion(design))
    theta = np.array([0.0, 0.8, 0.3, 0.5, 0.1, 0.4])
    assert sparse(theta) == pytest.approx(dense(theta), abs=1e-9)
    np.testing.assert_allclose(sparse.gradient(theta), dense.gradient(theta), atol=1e-8)


def test_near_a_correlation_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the edge itself R has no inverse: the value is that of 1e-4 before it, and the criterion even about it."""
    design = lme4py.lformula(MODELS["ar1"], series())
    dense, sparse = both(monkeypatch, lambda: lme4py.lmm_criterion(design))
    for angle in (0.5 * np.pi - 1e-3, 0.5 * np.pi + 1e-3, -0.5 * np.pi + 1e-3):
        theta = np.array([1.0, angle])
        # 1e-16 over the square of the innovations, 1e-6, for each of the 150 levels.
        assert sparse(theta) == pytest.approx(dense(theta), abs=1e-6)
    edge = np.array([1.0, 0.5 * np.pi])
    # A variance of 1e-8 of the innovations, times a slope of about a thousand.
    assert sparse(edge) == pytest.approx(dense(edge), abs=1e-3)
    assert sparse.gradient(edge)[1] == 0.0


@pytest.fixture(scope="module")
def pair() -> tuple:
    """A fit by the dense form, and the same by the sparse inverse."""
    with pytest.MonkeyPatch.context() as patch:
        return both(patch, lambda: lme4py.lmer("y ~ x + ou(numFactor(h) + 0 | g) + (1 | item)", series(12, seed=3)))


def test_fits_are_equal(pair: tuple) -> None:
    dense, sparse = pair
    assert isinstance(sparse.fit.point.swept, ChainSwept)
    # Both stop where the criterion could fall by less than 1e-12: estimates agree to its root.
    assert sparse.log_likelihood == pytest.approx(dense.log_likelihood, abs=1e-9)
    np.testing.assert_allclose(sparse.params, dense.params, atol=1e-6)
    np.testing.assert_allclose(sparse.theta, dense.theta, atol=1e-4)
    assert sparse.converged
    assert sparse.opt_log is not None


NUMBERS = {
    "bse": lambda f: f.bse,
    "satterthwaite": lambda f: f.coef_table(ddf="satterthwaite").drop(columns="p_value"),
    "wald": lambda f: f.conf_int(parm="fixed"),
    "kenward-roger": lambda f: f.coef_table(ddf="kenward-roger").drop(columns="p_value"),
    "without rows": lambda f: f.influence().cooks_distance,
    "without groups": lambda f: f.influence("g").cooks_distance,
    "conditional AIC": lambda f: [lme4py.caic(f), lme4py.caic(f).df],
    "modes": lambda f: f.ranef()["g"],
    "standard errors of modes": lambda f: f.ranef(conditional_se=True)[1]["g"],
    "covariances of modes": lambda f: f.ranef_cov()["item"],
    "predictions": lambda f: f.predict(),
    "intervals": lambda f: f.predict(ROWS, interval="confidence"),
    "at new times": lambda f: f.predict(ROWS.assign(h=ROWS["h"] + 0.3).iloc[1:3], interval="prediction"),
    "averaged": lambda f: f.predict(include_random="integrate"),
    "simulations": lambda f: f.simulate(1, seed=1),
    "another response": lambda f: f.refit(np.roll(f.fit.design.y, 3) + f.fit.design.y).params,
    "bootstrap": lambda f: f.bootstrap(n=2, seed=1).conf_int(),
    "profile": lambda f: f.profile("sd(ou | g)").conf_int(),
    "limits of a share": lambda f: [getattr(lme4py.icc(f, "item"), name) for name in ("ci_lower", "ci_upper")],
    "shares": lambda f: list(f.r_squared().values()),
    "slim": lambda f: f.slim().ranef()["g"],
    "margins": lambda f: lme4py.Margins.linear_scale(f).dydx(["x"]).to_frame()[["estimate", "std_error"]],
}
ROWS = series(12, seed=3).iloc[:6]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NUMBERS)
def test_everything_after_the_fit_is_equal(pair: tuple, name: str) -> None:
    dense, sparse = (np.asarray(NUMBERS[name](fit), dtype=float) for fit in pair)
    assert np.isfinite(dense).any()
    # Two optima of one criterion that agree to 1e-6, and refits of them.
    np.testing.assert_allclose(sparse, dense, rtol=2e-4, atol=2e-5)


def test_fits_are_pickled(pair: tuple) -> None:
    import pickle

    again = pickle.loads(pickle.dumps(pair[1]))
    np.testing.assert_array_equal(again.params, pair[1].params)
    # The factor is made again.
    np.testing.assert_allclose(again.ranef(conditional_se=True)[1]["g"], pair[1].ranef(conditional_se=True)[1]["g"])


def test_a_model_that_is_not_identified_is_refused_in_the_usual_words(short: pytest.MonkeyPatch) -> None:
    data = series().drop_duplicates(["g", "t"])
    with pytest.raises(DesignError, match="cannot be told apart"):
        lme4py.lmer("y ~ x + ar1(0 + factor(t) | g) + (1 | g:t)", data)


def test_too_many_other_effects_are_refused_by_name(short: pytest.MonkeyPatch) -> None:
    from lme4py.engine.factor import forecast

    short.setattr(forecast, "available_memory", lambda: 2.0**20 + 1.0)
    data = series(k=60, J=40)
    data["item"] = np.arange(len(data)) % 200
    with pytest.raises(DesignError, match=r"pairs of a level and a time of ar1\(0 \+ factor\(t\) \| g\)"):
        lme4py.lmer("y ~ x + ar1(0 + factor(t) | g) + (1 | item)", data)


def test_many_times_take_no_blocks_of_their_square() -> None:
    """400 times of 2 groups: exact against the density of the response by dense algebra."""
    data = series(k=400, J=2, seed=2)
    fit = lme4py.lmer("y ~ x + ar1(0 + factor(t) | g)", data, reml=False)
    assert isinstance(fit.fit.problem, ChainProblem)
    natural = fit.fit.design.terms[0].structure.natural(fit.theta)
    sd, rho = natural[0] * fit.sigma, natural[1]
    g, t = data["g"].to_numpy(), data["t"].to_numpy()
    V = np.where(g[:, None] == g, sd**2 * rho ** np.abs(t[:, None] - t), 0.0) + fit.sigma**2 * np.eye(len(data))
    L = np.linalg.cholesky(V)
    X = np.column_stack([np.ones(len(data)), data["x"]])
    rest = np.linalg.solve(L, data["y"].to_numpy() - X @ fit.params.to_numpy())
    value = -0.5 * (len(data) * np.log(2 * np.pi) + rest @ rest) - np.log(L.diagonal()).sum()
    # Rounding of a sum of 1,000 terms of size one.
    assert fit.log_likelihood == pytest.approx(value, abs=1e-7)


def test_generalised_models_keep_no_products_of_times_that_never_meet() -> None:
    """One product for each row: those of two times are zero in every row."""
    data = series(12, seed=3)
    design = lme4py.lformula("count ~ x + ar1(0 + factor(t) | g)", data)
    term = design.terms[0]
    factor = Factor("g", term.n_levels, term.n_columns, (0,), (slice(0, term.n_columns),))
    products = WeightedProducts((term.codes,), (term.values,), (factor,))
    w = np.linspace(0.5, 1.5, len(data))
    diagonal = products.base(w).diagonal[0]
    assert products._P.nnz == len(data)
    Z = term.values
    for j in range(term.n_levels):
        rows = term.codes == j
        # Sums of a few numbers of size one.
        np.testing.assert_allclose(diagonal[:, :, j], Z[rows].T @ (w[rows, None] * Z[rows]), atol=1e-14)
