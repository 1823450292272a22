"""The criterion, its gradient and its average information against dense matrices."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from dense_models import DESIGNS, changed, dense, make_design, make_term, random_theta
from scipy import linalg

import lme4py
from lme4py.engine.linear.criterion import Criterion
from lme4py.engine.linear.problem import group_terms, make_problem

CASES = pytest.mark.parametrize("name", DESIGNS)
METHOD = pytest.mark.parametrize("reml", [True, False], ids=["REML", "ML"])


@CASES
@METHOD
def test_value_equals_the_dense_criterion(name, reml):
    design = DESIGNS[name]
    criterion = lme4py.lmm_criterion(design, reml)
    for seed in range(3):
        theta = random_theta(design, seed)
        # The value is a few hundred; both sides round in its 13th digit.
        assert criterion(theta) == pytest.approx(dense(design, theta, reml).value, rel=0, abs=1e-9)


@CASES
@METHOD
def test_gradient_equals_the_dense_gradient(name, reml):
    design = DESIGNS[name]
    theta = random_theta(design)
    expected = dense(design, theta, reml).gradient
    found = lme4py.lmm_criterion(design, reml).gradient(theta)
    # The dense formula inverts a 160 x 160 matrix with a condition number of 1e3 or so.
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9 * max(1.0, np.abs(expected).max()))


@CASES
@METHOD
def test_gradient_equals_central_differences(name, reml):
    design = DESIGNS[name]
    criterion = lme4py.lmm_criterion(design, reml)
    theta = random_theta(design, 5)
    h = 1e-5
    steps = h * np.eye(theta.size)
    numeric = np.array([(criterion(theta + s) - criterion(theta - s)) / (2 * h) for s in steps])
    # Rounding of the differences is 1e-13 / 1e-5, their truncation 1e-10 times the third derivative.
    np.testing.assert_allclose(criterion.gradient(theta), numeric, rtol=0, atol=1e-6 * max(1.0, np.abs(numeric).max()))


@pytest.mark.parametrize(
    ("name", "theta"),
    [
        ("intercept", [0.0]),
        ("slope", [0.0, 0.0, 0.0]),
        ("slope", [0.8, 0.3, 0.0]),
        ("slope", [0.0, 0.0, 0.6]),
        ("three columns", [0.8, 0.3, -0.2, 0.0, 0.0, 0.5]),
        ("two terms on one factor", [0.0, 0.7]),
        ("diagonal", [0.0, 0.4]),
        ("crossed", [0.0, 0.5]),
        ("crossed", [0.5, 0.0]),
        ("crossed, slopes", [0.5, 0.2, 0.0, 0.0, 0.0, 0.3]),
        ("nested, slopes", [0.4, 0.1, 0.0, 0.3, -0.2, 0.0]),
        ("nested chain and crossed", [0.4, 0.1, 0.0, 0.3, 0.2, 0.0, 0.5, 0.1, 0.0, 0.0]),
    ],
)
@METHOD
def test_singular_theta(name, theta, reml):
    """Zero variances and correlations of one are points like any other."""
    design = DESIGNS[name]
    criterion = lme4py.lmm_criterion(design, reml)
    expected = dense(design, np.array(theta), reml)
    assert criterion(theta) == pytest.approx(expected.value, rel=0, abs=1e-9)
    # As above; a singular T adds no loss of digits.
    scale = max(1.0, np.abs(expected.gradient).max())
    np.testing.assert_allclose(criterion.gradient(theta), expected.gradient, rtol=0, atol=1e-9 * scale)


@CASES
def test_near_singular_theta(name):
    """Values between the two ways of computing (I + A Sigma)^-1 in the engine."""
    design = DESIGNS[name]
    criterion = lme4py.lmm_criterion(design)
    theta = random_theta(design)
    for size in (1e-4, 1e-6, 1e-8):
        small = theta.copy()
        small[-1] = size
        expected = dense(design, small)
        assert criterion(small) == pytest.approx(expected.value, rel=0, abs=1e-9)
        # One element of T is 1e-8 of the others: a condition number of 1e8 may cost half of the digits.
        scale = max(1.0, np.abs(expected.gradient).max())
        np.testing.assert_allclose(criterion.gradient(small), expected.gradient, rtol=0, atol=1e-7 * scale)


@CASES
@METHOD
def test_average_information(name, reml):
    """Without the exact part from the curvature of T T' the Hessian model is y'P V_i P V_j P y, profiled."""
    design = DESIGNS[name]
    inside = lme4py.lmm_criterion(design, reml).inside
    scaling, structures = inside.problem.scaling, inside.problem.structures
    theta = random_theta(design)
    found = inside.derivatives(inside.evaluate(theta))
    curvature = linalg.block_diag(
        *[s.curvature(own, g) for s, own, g in zip(structures.each, structures.split(theta), found.G, strict=True)]
    )
    # The same model in the engine's columns: those of each term times S, weights with mean one.
    terms = tuple(replace(t, values=t.values @ S) for t, S in zip(design.terms, scaling.S, strict=True))
    weights = None if design.weights is None else design.weights / scaling.weight_scale
    expected = dense(changed(design, terms=terms, weights=weights), theta, reml)
    for ours, theirs in (
        (found.hessian - curvature, expected.average_information),
        (found.gradient, expected.gradient),
    ):
        # Rounding only, relative to the largest element.
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-9 * max(1.0, np.abs(theirs).max()))


def test_hessian_model_is_close_to_the_hessian_in_expectation():
    """For a good model the average information is near the true curvature; the optimiser lives on that."""
    rng = np.random.default_rng(3)
    codes = np.repeat(np.arange(200), 5)
    y = rng.normal(size=200)[codes] + rng.normal(size=1000)
    design = make_design(y, np.ones((1000, 1)), [make_term("g", codes, np.ones(1000))])
    inside = lme4py.lmm_criterion(design).inside
    optimum = lme4py.optimize_criterion(lme4py.lmm_criterion(design)).theta
    h = 1e-4
    exact = (inside.gradient(optimum + h) - inside.gradient(optimum - h)) / (2 * h)
    model = inside.derivatives(inside.evaluate(optimum)).hessian
    # 200 groups: the two differ by sampling noise of order 1 / sqrt(200), taken three times.
    assert model[0, 0] == pytest.approx(exact[0], rel=0.2)


def test_estimates_at_any_theta():
    for name, design in DESIGNS.items():
        criterion = lme4py.lmm_criterion(design)
        theta = random_theta(design)
        point = criterion.inside.evaluate(criterion.to_inside(theta))
        scaling = criterion.inside.problem.scaling
        expected = dense(design, theta)
        # Rounding only.
        np.testing.assert_allclose(scaling.beta(point.beta), expected.beta, rtol=1e-9, err_msg=name)
        sigma = scaling.y_scale * np.sqrt(scaling.weight_scale * point.r2 / criterion.inside.df)
        assert sigma == pytest.approx(expected.sigma, rel=1e-10), name


def test_terms_of_one_factor_are_put_side_by_side():
    factors = group_terms(DESIGNS["three terms on one factor"])
    assert [(f.name, f.n_levels, f.n_columns, f.terms) for f in factors] == [("a", 20, 4, (0, 1, 2))]
    assert factors[0].columns == (slice(0, 1), slice(1, 2), slice(2, 4))


def test_problem_does_not_grow_with_the_rows():
    """Doubling every row keeps all shapes of the engine's side."""
    once = DESIGNS["crossed, slopes"]
    twice = make_design(
        np.tile(once.y, 2),
        np.tile(once.X, (2, 1)),
        [make_term(t.group, np.tile(t.codes, 2), np.tile(t.values, (2, 1))) for t in once.terms],
    )
    a, b = make_problem(once), make_problem(twice)
    assert [d.shape for d in a.cross.diagonal] == [d.shape for d in b.cross.diagonal]
    assert [e.values.shape for e in a.cross.edges.values()] == [e.values.shape for e in b.cross.edges.values()]
    assert b.cross.n_obs == 2 * a.cross.n_obs


def test_cbind_is_refused():
    design = DESIGNS["intercept"]
    two = replace(design, y=np.column_stack([design.y, design.y]))
    with pytest.raises(lme4py.DesignError, match="cbind"):
        lme4py.lmm_criterion(two)


@pytest.mark.parametrize("theta", [[1.0], [1.0, 0.0], [1.0, 0.0, np.nan], [[1.0, 0.0, 0.0, 1.0]]])
def test_theta_of_the_wrong_size(theta):
    criterion = lme4py.lmm_criterion(DESIGNS["slope"])
    for function in (criterion, criterion.gradient, criterion.to_inside):
        with pytest.raises(lme4py.OptionError, match="3 finite numbers"):
            function(theta)


def test_criterion_is_even_in_the_sign_of_a_column_of_T():
    inside = Criterion(make_problem(DESIGNS["slope"]), True)
    # The same covariance, so the same number but for rounding.
    assert inside(np.array([0.7, 0.2, 0.4])) == pytest.approx(inside(np.array([-0.7, -0.2, -0.4])), abs=1e-11)
