"""The criterion of a small model with one grouping factor, against that of the general factor."""

from __future__ import annotations

import numpy as np
import pytest

from lme4py import lformula, load_dataset
from lme4py.engine.linear.criterion import Criterion
from lme4py.engine.linear.hessian import exact_hessian
from lme4py.engine.linear.one_factor import OneFactorCriterion
from lme4py.engine.linear.problem import make_problem

DATA = load_dataset("sleepstudy").assign(
    x=np.random.default_rng(1).normal(size=180), z=np.random.default_rng(2).normal(size=180)
)
FORMULAS = (
    "Reaction ~ Days + (1 | Subject)",
    "Reaction ~ Days + (Days | Subject)",
    "Reaction ~ 0 + (Days | Subject)",
    "Reaction ~ x + (Days + z | Subject)",
    "Reaction ~ Days + x + (1 | Subject) + (0 + Days + z | Subject)",
)
PROBLEMS = {formula: make_problem(lformula(formula, DATA, weights=2.0 - np.cos(DATA["x"]))) for formula in FORMULAS}


def both(formula: str, reml: bool) -> tuple[Criterion, OneFactorCriterion]:
    problem = PROBLEMS[formula]
    return Criterion(problem, reml), OneFactorCriterion(problem, reml)


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("formula", FORMULAS)
@pytest.mark.parametrize("kind", ["inside", "edge", "zero"])
def test_value_derivatives_and_solutions(formula, reml, kind):
    general, small = both(formula, reml)
    theta = np.random.default_rng(3).uniform(0.3, 1.5, general.problem.structures.n_theta)
    theta[-1 if kind == "edge" else theta.size * (kind == "inside") :] = 0.0
    old, new = general.evaluate(theta), small.evaluate(theta)
    # Sums of a few hundred products in another order: a dozen digits.
    close = {"rtol": 1e-11, "atol": 1e-11}
    assert new.value == pytest.approx(old.value, rel=1e-13)
    before, after = general.derivatives(old), small.derivatives(new)
    scale = max(np.abs(before.hessian).max(), 1.0)
    np.testing.assert_allclose(after.gradient, before.gradient, rtol=1e-11, atol=1e-11 * scale)
    np.testing.assert_allclose(after.hessian / scale, before.hessian / scale, **close)
    hessians = [
        exact_hessian(criterion, point, found.G, found.forms)
        for criterion, point, found in ((general, old, before), (small, new, after))
    ]
    np.testing.assert_allclose(hessians[1] / scale, hessians[0] / scale, **close)
    weights = np.eye(old.beta.size + 1)
    np.testing.assert_allclose(new.modes()[0], old.modes()[0], **close)
    assert new.solved(weights[:, :0])[0].shape == (new.modes()[0].size, 0)
    np.testing.assert_allclose(new.solved(weights)[0], old.solved(weights)[0], rtol=1e-10, atol=1e-9)
    np.testing.assert_allclose(new.border.cross(new.border), old.border.cross(old.border), rtol=1e-12, atol=1e-11)
    assert new.swept.log_det == pytest.approx(old.swept.log_det, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("formula", FORMULAS[:2])
def test_other_columns(formula):
    general, small = both(formula, True)
    M = np.eye(3)[:, 1:]
    theta = small.problem.structures.initial()
    # As above.
    assert small.with_columns(M)(theta) == pytest.approx(general.with_columns(M)(theta), rel=1e-12)


def test_a_point_of_another_criterion_has_no_sums():
    general, small = both(FORMULAS[0], True)
    point = general.evaluate(np.ones(1))
    with pytest.raises(TypeError, match="another criterion"):
        small.sigma_gradient(point)
