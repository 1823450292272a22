"""Quadrature for two nested grouping factors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from dense_models import make_design, make_term

import lme4py
from lme4py.engine.generalised.integrals.nested_quadrature import NestedQuadrature, find_nesting, make_quadrature
from lme4py.engine.generalised.integrals.quadrature import Quadrature
from lme4py.engine.generalised.laplace import laplace
from lme4py.engine.generalised.making.make import make_glmm
from lme4py.engine.generalised.problem import GlmmProblem, ModeFinder
from lme4py.engine.generalised.starts.start import find_start
from lme4py.errors import OptionError
from lme4py.families.registry import make_family
from lme4py.families.response import ResponseData

RNG = np.random.default_rng(11)
N = 150
# Rows in no order, and inner groups whose numbers do not follow the outer ones.
PARENT = RNG.permutation(np.repeat(np.arange(6), [1, 2, 3, 4, 4, 4]))
INNER = RNG.permutation(np.concatenate([np.arange(18), RNG.integers(0, 18, N - 18)]))
OUTER = PARENT[INNER]
CROSSED = RNG.integers(0, 5, N)
X = np.column_stack([np.ones(N), RNG.normal(size=N) + 1.0])
MU = np.exp(0.3 * X[:, 1] + 0.5 * RNG.normal(size=6)[OUTER] + 0.4 * RNG.normal(size=18)[INNER])
RESPONSES = {
    "binomial": RNG.binomial(1, MU / (1.0 + MU)).astype(float),
    "poisson": RNG.poisson(MU).astype(float),
    "nbinomial": RNG.negative_binomial(2, 2 / (2 + MU)).astype(float),
    "gamma": RNG.gamma(3.0, MU / 3),
    "inverse_gaussian": RNG.wald(MU, 5.0),
    "gaussian": MU + RNG.normal(size=N),
}
ONE = np.ones(N)
TERMS = {
    "scalar": [make_term("a", OUTER, ONE), make_term("b", INNER, ONE)],
    "inner first": [make_term("b", INNER, ONE), make_term("a", OUTER, ONE)],
    "outer slope": [make_term("a", OUTER, X), make_term("b", INNER, ONE)],
    "inner slope": [make_term("b", INNER, X), make_term("a", OUTER, ONE)],
    "both slopes": [make_term("a", OUTER, X), make_term("b", INNER, X)],
    "two terms": [make_term("a", OUTER, ONE), make_term("b", INNER, ONE), make_term("a", OUTER, X[:, 1])],
    "only outer": [make_term("a", OUTER, ONE)],
    "only inner": [make_term("b", INNER, ONE)],
    "crossed": [make_term("a", OUTER, ONE), make_term("c", CROSSED, ONE)],
    "three": [make_term("a", OUTER, ONE), make_term("b", INNER, ONE), make_term("p", OUTER // 2, ONE)],
}
CASES = [
    ("scalar", "binomial", "logit", False),
    ("scalar", "binomial", "probit", True),
    ("inner first", "poisson", "log", False),
    ("outer slope", "binomial", "cloglog", True),
    ("inner slope", "nbinomial", "log", False),
    ("inner first", "nbinomial", "log", True),
    ("both slopes", "gamma", "log", False),
    ("two terms", "inverse_gaussian", "log", False),
    ("scalar", "gaussian", "log", False),
]


def make(terms: str, family: str, link: str | None = None, expected: bool = False) -> GlmmProblem:
    design = make_design(RESPONSES[family], X, TERMS[terms])
    return make_glmm(design, make_family(family, link), ResponseData(RESPONSES[family]), expected)


def some_point(problem: GlmmProblem, theta: Any = None) -> np.ndarray:
    """Parameters away from any optimum."""
    rng = np.random.default_rng(3)
    start = find_start(problem)
    if theta is None:
        theta = 0.4 * problem.structures.initial() + 0.1 * rng.normal(size=problem.n_theta)
    return problem.join(np.asarray(theta, dtype=float), start.beta + 0.05, start.lam + 0.1)


def at(finder: ModeFinder, phi: np.ndarray) -> Any:
    theta, beta, lam = finder.problem.split(phi)
    zero = np.zeros(sum(factor.size for factor in finder.problem.factors))
    return laplace(finder, finder.find(theta, beta, lam, zero))


def integral(terms: str, family: str, theta: Any, points: int) -> float:
    """-2 log-likelihood at the point that has this theta."""
    problem = make(terms, family)
    finder = ModeFinder(problem)
    return make_quadrature(finder, points).value(at(finder, some_point(problem, theta)))


@pytest.mark.parametrize(("terms", "family", "link", "expected"), CASES)
def test_one_point_is_laplace(terms: str, family: str, link: str, expected: bool) -> None:
    problem = make(terms, family, link, expected)
    finder = ModeFinder(problem)
    found = at(finder, some_point(problem))
    value, gradient = NestedQuadrature(finder, 1)(found)
    # The same sums in another order.
    assert value == pytest.approx(found.value, rel=1e-12)
    # The score at the mode is zero up to the square root of the tolerance of the mode.
    np.testing.assert_allclose(gradient, found.gradient, atol=1e-7 * np.abs(found.gradient).max())


@pytest.mark.parametrize("points", [2, 3])
@pytest.mark.parametrize(("terms", "family", "link", "expected"), CASES)
def test_gradient(terms: str, family: str, link: str, expected: bool, points: int) -> None:
    problem = make(terms, family, link, expected)
    finder = ModeFinder(problem)
    rule = NestedQuadrature(finder, points)
    phi = some_point(problem)
    h = 1e-5
    difference = [
        (rule.value(at(finder, phi + step)) - rule.value(at(finder, phi - step))) / (2 * h)
        for step in h * np.eye(phi.size)
    ]
    value, gradient = rule(at(finder, phi))
    assert value == rule.value(at(finder, phi))
    # Central differences with h = 1e-5 of values with 1e-12 noise.
    np.testing.assert_allclose(gradient, difference, atol=1e-6 * np.abs(difference).max())


def test_rows_in_blocks_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = make("inner slope", "gamma")
    finder = ModeFinder(problem)
    found = at(finder, some_point(problem))
    whole = NestedQuadrature(finder, 4)(found)
    monkeypatch.setattr("lme4py.engine.generalised.integrals.nested_quadrature._CHUNK", 3 * N)
    parts = NestedQuadrature(finder, 4)(found)
    assert parts[0] == pytest.approx(whole[0], rel=1e-13)
    # The same sums in another order.
    np.testing.assert_allclose(parts[1], whole[1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("terms", ["scalar", "both slopes"])
def test_a_gaussian_integral_is_exact_with_any_number_of_points(terms: str) -> None:
    problem = make(terms, "gaussian", "identity")
    finder = ModeFinder(problem)
    found = at(finder, some_point(problem))
    for points in (2, 5):
        assert NestedQuadrature(finder, points).value(found) == pytest.approx(found.value, rel=1e-12)


@pytest.mark.parametrize("family", ["binomial", "poisson"])
def test_more_points_converge(family: str) -> None:
    values = [integral("scalar", family, [0.9, 0.7], points) for points in (1, 3, 5, 9, 15, 25)]
    errors = np.abs(np.array(values[:-1]) - values[-1])
    assert errors[0] > 1e-3
    assert errors[1] < errors[0]
    # Far from Laplace the error falls geometrically.
    assert (errors[2:] < 0.1 * errors[1:-1]).all()
    assert errors[-1] < 1e-6


@pytest.mark.parametrize("family", ["binomial", "poisson"])
@pytest.mark.parametrize("terms", ["scalar", "inner first"])
def test_against_a_dense_integral(family: str, terms: str) -> None:
    problem = make(terms, family)
    finder = ModeFinder(problem)
    phi = some_point(problem, [0.9, 0.7])
    theta, beta, lam = problem.split(phi)
    t_outer, t_inner = theta if terms == "scalar" else theta[::-1]
    Z = problem.products.rows.data.reshape(N, 2)
    z_outer, z_inner = (Z if terms == "scalar" else Z[:, ::-1]).T
    grid = np.linspace(-8.0, 8.0, 129)
    log_prior = -0.5 * grid**2 + np.log((grid[1] - grid[0]) / np.sqrt(2 * np.pi))
    total = 0.0
    for a in range(6):
        log_outer = log_prior.copy()
        for b in np.unique(INNER[a == OUTER]):
            rows = b == INNER
            outer, inner = (
                np.multiply.outer(t_outer * grid, z_outer[rows]),
                np.multiply.outer(t_inner * grid, z_inner[rows]),
            )
            random = outer[:, None] + inner
            data = ResponseData(problem.data.y[rows])
            loglik = problem.family.derivatives(data, problem.X[rows] @ beta + random, lam, 0).loglik.sum(axis=-1)
            log_outer += np.logaddexp.reduce(loglik + log_prior, axis=1)
        total -= 2.0 * np.logaddexp.reduce(log_outer)
    # The trapezoidal rule with a step of an eighth is exact to rounding for such smooth integrands.
    assert NestedQuadrature(finder, 40).value(at(finder, phi)) == pytest.approx(total, rel=1e-10, abs=1e-8)


@pytest.mark.parametrize("points", [1, 4, 7])
@pytest.mark.parametrize("family", ["binomial", "gamma"])
def test_a_zero_variance_leaves_the_rule_of_the_other_factor(family: str, points: int) -> None:
    # The weights of the integral over an effect that does nothing sum to one.
    outer = integral("only outer", family, [0.8], points)
    assert integral("scalar", family, [0.8, 0.0], points) == pytest.approx(outer, rel=1e-12)
    inner = integral("only inner", family, [0.8], points)
    assert integral("scalar", family, [0.0, 0.8], points) == pytest.approx(inner, rel=1e-12)
    assert integral("inner first", family, [0.8, 0.0], points) == pytest.approx(inner, rel=1e-12)


def test_impossible_nodes_have_no_weight() -> None:
    problem = make("scalar", "gamma", "identity")
    finder = ModeFinder(problem)
    start = find_start(problem)
    found = at(finder, problem.join(np.array([0.5, 0.5]), np.array([2.0, 0.0]), start.lam))
    rule = NestedQuadrature(finder, 15)
    _, _, eta = rule._nodes(found, rule._scales(found), slice(None))
    assert (eta < 0.0).any()
    with np.errstate(all="ignore"):
        value, gradient = rule(found)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


class TestWhatIsIntegrated:
    def test_nesting(self) -> None:
        assert find_nesting(make("scalar", "poisson")) == (0, 1)
        assert find_nesting(make("inner first", "poisson")) == (1, 0)
        assert find_nesting(make("two terms", "poisson")) == (0, 1)
        assert find_nesting(make("crossed", "poisson")) is None
        assert find_nesting(make("three", "poisson")) is None

    def test_the_rule_of_a_model(self) -> None:
        assert isinstance(make_quadrature(ModeFinder(make("only outer", "poisson")), 3), Quadrature)
        assert isinstance(make_quadrature(ModeFinder(make("two terms", "poisson")), 3), NestedQuadrature)

    @pytest.mark.parametrize(("terms", "count"), [("crossed", 2), ("three", 3)])
    def test_other_factors_are_refused(self, terms: str, count: int) -> None:
        with pytest.raises(OptionError, match=rf"must split into groups; this model has {count} \(a, .*Laplace"):
            make_quadrature(ModeFinder(make(terms, "poisson")), 5)

    def test_too_many_nodes_are_refused(self) -> None:
        with pytest.raises(OptionError, match="use nAGQ=11 or less"):
            make_quadrature(ModeFinder(make("both slopes", "poisson")), 12)


class TestFit:
    @pytest.fixture
    def data(self) -> pd.DataFrame:
        rng = np.random.default_rng(5)
        a = np.repeat(np.arange(25), 16)
        b = np.tile(np.repeat(np.arange(4), 4), 25)
        x = rng.normal(size=a.size)
        eta = 0.5 + 0.7 * x + 1.2 * rng.normal(size=25)[a] + 1.0 * rng.normal(size=100)[4 * a + b]
        y = rng.binomial(1, 1.0 / (1.0 + np.exp(-eta)))
        return pd.DataFrame({"y": y, "x": x, "a": a.astype(str), "b": b.astype(str), "c": rng.integers(0, 5, a.size)})

    def test_certified_and_converging(self, data: pd.DataFrame) -> None:
        fits = [lme4py.glmer("y ~ x + (1 | a/b)", data, nAGQ=q) for q in (1, 5, 9, 13)]
        assert all(fit.converged for fit in fits)
        last = fits[-1]
        errors = [abs(fit.log_likelihood - last.log_likelihood) for fit in fits[:-1]]
        assert errors[0] > 0.05
        # Each pair of rules more leaves less than a tenth of the error.
        assert errors[1] < 0.1 * errors[0]
        assert errors[2] < 0.1 * errors[1]
        np.testing.assert_allclose(fits[2].params, last.params, rtol=1e-3)
        assert "nAGQ = 13" in last.summary()

    def test_crossed_factors_are_refused(self, data: pd.DataFrame) -> None:
        with pytest.raises(OptionError, match=r"nested in the other, .* this model has 2 \(a, c\)"):
            lme4py.glmer("y ~ x + (1 | a) + (1 | c)", data, nAGQ=5)
