"""Crossed effects by conjugate gradients and probes, beside the exact factor of the same model."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg

import lme4py
from lme4py.engine.factor import crossed, crossed_inverse
from lme4py.engine.linear.criterion import Criterion
from lme4py.engine.linear.problem import make_problem
from lme4py.engine.linear.stochastic import StochasticCriterion
from lme4py.linalg.iterative import conjugate_gradients, random_signs


def made(n: int = 900, seed: int = 1) -> dict[str, np.ndarray]:
    """Three partially crossed factors of 60, 40 and 15 levels with a slope in each."""
    rng = np.random.default_rng(seed)
    a, b, c = rng.integers(0, 60, n), rng.integers(0, 40, n), rng.integers(0, 15, n)
    x, z = rng.standard_normal((2, n))
    y = 0.5 * x + (rng.standard_normal((60, 2)) * [0.6, 0.3])[a, 0] + (0.8 * rng.standard_normal(40))[b]
    y = y + 0.3 * rng.standard_normal(60)[a] * x + 0.5 * rng.standard_normal(15)[c] + rng.standard_normal(n)
    return {"y": y, "x": x, "z": z, "a": a, "b": b, "c": c}


FORMULAS = {
    "scalar": "y ~ x + (1 | a) + (1 | b)",
    "slope of the first": "y ~ x + (x | a) + (1 | b)",
    "slope of another": "y ~ x + z + (1 | a) + (x | b)",
    "three": "y ~ x + (1 | a) + (0 + x | a) + (z | b) + (1 | c)",
    "no fixed effects": "y ~ 0 + (1 | a) + (1 | b)",
}


def both(name: str, reml: bool, seed: int = 0, threads: int = 1):
    problem = make_problem(lme4py.lformula(FORMULAS[name], made()))
    m = problem.structures.n_theta
    # Away from the optimum, with correlations.
    theta = problem.structures.initial() * np.linspace(0.7, 1.2, m) + 0.05 * np.cos(np.arange(m))
    return Criterion(problem, reml), StochasticCriterion(problem, reml, seed, threads), theta


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("reml", [True, False], ids=["REML", "ML"])
def test_directions_that_span_the_space_leave_nothing_to_chance(name, reml):
    exact, found, theta = both(name, reml)
    found.learn_directions(theta, found.tables.size)
    point, other = found.evaluate(theta, 2), exact.evaluate(theta)
    wanted = exact.derivatives(other)
    # Systems of the probes are solved to 1e-5; a quadrature's error is the square of that.
    assert point.value == pytest.approx(other.value, abs=1e-6)
    np.testing.assert_allclose(point.gradient, wanted.gradient, atol=1e-4 * np.abs(wanted.gradient).max())
    # The probes are left out of all directions: nothing remains of them.
    assert point.value_se < 1e-10
    # Exact systems are solved to 1e-11.
    np.testing.assert_allclose(point.beta, other.beta, rtol=1e-9)
    np.testing.assert_allclose(point.RX, other.RX, rtol=1e-9, atol=1e-9 * np.abs(other.RX).max(initial=0.0))
    assert point.r2 == pytest.approx(other.r2, rel=1e-10)
    # The systems of the average information are solved to 1e-4.
    np.testing.assert_allclose(point.information, wanted.hessian, atol=1e-3 * np.abs(wanted.hessian).max())
    modes, _ = other.swept.back_substitute(other.border, np.append(-other.beta, 1.0)[:, None])
    for own, true in zip(point.modes, modes, strict=True):
        np.testing.assert_allclose(own[:, 0], np.asarray(true)[:, 0] if np.ndim(true) > 1 else true, atol=1e-8)


@pytest.mark.parametrize("name", ["scalar", "three"])
@pytest.mark.parametrize("directions", [0, 6])
def test_probes_are_right_within_their_standard_errors(name, directions):
    exact, found, theta = both(name, True, seed=5)
    if directions:
        found.learn_directions(theta, directions)
    point, other = found.evaluate(theta, 60), exact.evaluate(theta)
    gradient = exact.theta_gradient(other, exact.sigma_gradient(other))
    # Four standard errors: one chance in 16,000 for one number, and the seed is fixed.
    assert abs(point.value - other.value) < 4.0 * point.value_se
    assert (np.abs(point.gradient - gradient) < 4.0 * np.sqrt(np.diag(point.gradient_vcov))).all()


@pytest.mark.parametrize("together", [1, 1000])
@pytest.mark.parametrize("name", FORMULAS)
def test_variances_of_rows_are_those_of_dense_algebra(name, together, monkeypatch):
    monkeypatch.setattr(crossed_inverse, "together", lambda at: together)
    _, probed, theta = both(name, True)
    at = probed.moves(theta)[0]
    factors, rng = probed.problem.factors, np.random.default_rng(3)
    codes = [rng.integers(0, factor.n_levels, 8) for factor in factors]
    Z = [rng.standard_normal((8, factor.n_columns)) * rng.integers(0, 2, (8, 1)) for factor in factors]
    # Rows of Z as a matrix, and Lambda M^-1 Lambda' by its columns.
    dense, start = np.zeros((8, sum(factor.size for factor in factors))), 0
    for factor, own, level in zip(factors, Z, codes, strict=True):
        for a in range(factor.n_columns):
            dense[np.arange(8), start + a * factor.n_levels + level] += own[:, a]
        start += factor.size
    K = crossed_inverse.effects_of(at, np.eye(dense.shape[1]), 1e-12)[0]
    np.testing.assert_allclose(K, K.T, atol=1e-10)
    found = crossed_inverse.row_variances(at, codes, Z, 1e-11)
    # Both by systems that are solved to 1e-11.
    np.testing.assert_allclose(found, np.einsum("nq,qr,nr->n", dense, K, dense), atol=1e-9)


def test_directions_make_the_probes_better():
    _, found, theta = both("scalar", True)
    without = found.evaluate(theta, 30).value_se
    found.learn_directions(theta, 8)
    # The shift between the two factors alone is most of the variance.
    assert found.evaluate(theta, 30).value_se < 0.3 * without


def test_value_and_gradient_do_not_depend_on_threads(monkeypatch):
    monkeypatch.setattr(crossed, "_SHARED", 0)
    values = []
    for threads in (1, 2):
        _, found, theta = both("three", True, threads=threads)
        point = found.evaluate(theta, 5)
        found.tables.close()
        values.append(np.array([point.value, *point.gradient, *point.beta]))
    np.testing.assert_array_equal(values[0], values[1])


def test_conjugate_gradients_and_the_logarithm():
    rng = np.random.default_rng(0)
    root = rng.standard_normal((12, 12))
    A = np.eye(12) + root @ root.T / 12.0
    b = rng.standard_normal((12, 3))
    found = conjugate_gradients(lambda x: A @ x, lambda x: x, b, 1e-13)
    np.testing.assert_allclose(found.x, np.linalg.solve(A, b), rtol=1e-10)
    np.testing.assert_allclose(found.first, A @ b, rtol=1e-13)
    wanted = np.diag(b.T @ (scipy.linalg.logm(A) - A + np.eye(12)) @ b)
    # Twelve steps are the whole space: the quadrature is exact.
    np.testing.assert_allclose(found.log_moments, wanted, rtol=1e-8)
    again = conjugate_gradients(lambda x: A @ x, lambda x: x, b, 1e-13, start=found.x)
    assert again.iterations == 0


def test_signs_of_a_seed_are_always_the_same():
    ten = random_signs(20, 10, seed=3)
    np.testing.assert_array_equal(np.abs(ten), 1.0)
    np.testing.assert_array_equal(random_signs(20, 4, seed=3, first=6), ten[:, 6:])
    assert (random_signs(20, 10, seed=4) != ten).any()
