"""Many responses at once: criteria and regressions of each by the engine of single fits, and ends on the boundary."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import lme4py
from lme4py import lformula
from lme4py.engine.generalised import descent as single_descent
from lme4py.engine.generalised.batches.descent import StackedDescent
from lme4py.engine.generalised.batches.ends import certified_ends
from lme4py.engine.generalised.batches.stacked import StackedModel
from lme4py.engine.generalised.criteria import JointCriterion
from lme4py.engine.generalised.fixed_system import FixedSystem
from lme4py.engine.generalised.making.make import make_glmm
from lme4py.engine.generalised.problem import GlmmProblem, ModeFinder
from lme4py.families.registry import make_family
from lme4py.families.response import ResponseData

N, B = 60, 4
RNG = np.random.default_rng(3)
ROWS = pd.DataFrame({"g": np.arange(N) % 6, "x": RNG.normal(size=N), "w": RNG.uniform(0.5, 2.0, N)})
ETA = 0.5 + 0.3 * ROWS.x.to_numpy()[:, None] + (0.6 * RNG.normal(size=(6, B)))[ROWS.g]
RESPONSES = {
    "nbinomial": RNG.poisson(RNG.gamma(2.0, np.exp(ETA) / 2.0)).astype(float),
    # Beyond a thousand the gamma functions take another form.
    "nbinomial, large": RNG.poisson(RNG.gamma(2.0, np.exp(ETA + 7.0) / 2.0)).astype(float),
    "gamma": RNG.gamma(2.0, np.exp(ETA) / 2.0),
    "poisson": RNG.poisson(np.exp(ETA)).astype(float),
    "binomial": RNG.binomial(1, 1.0 / (1.0 + np.exp(-ETA))).astype(float),
}


def problem_of(name: str, expected: bool = False) -> GlmmProblem:
    word = name.partition(",")[0]
    family = make_family(word, "log" if word == "gamma" else None)
    design = lformula("y ~ x + (1 | g)", ROWS.assign(y=RESPONSES[name][:, 0]), family=family, weights="w")
    return make_glmm(design, family, design.response, expected)


@pytest.mark.parametrize("expected", [False, True])
@pytest.mark.parametrize("name", list(RESPONSES))
def test_points_are_those_of_single_criteria(name, expected):
    problem, Y = problem_of(name, expected), RESPONSES[name]
    model = StackedModel(problem)
    descent = StackedDescent(model, Y)
    phi = np.array([0.4, 0.6, 0.2, 0.5])[: 3 + problem.n_nuisance] + 0.1 * RNG.normal(size=(B, 3 + problem.n_nuisance))
    phi[:, 1] += 6.0 * ("large" in name)
    found = model.evaluate(phi, np.zeros((B, 6)), descent.data)
    beta, distance = model.within_groups(found, descent.data, 25.0)
    for b in range(B):
        single = replace(problem, data=replace(problem.data, y=Y[:, b]))
        laplace, value, gradient = JointCriterion(ModeFinder(single), None).evaluate(phi[b])
        # Single modes end at a decrement of 1e-15: the criterion is then known to 1e-8.
        assert found.value[b] == pytest.approx(value, abs=1e-7)
        np.testing.assert_allclose(found.gradient[b], gradient, atol=1e-6 * max(1.0, np.abs(gradient).max()))
        mode = laplace.mode
        w = mode.rows.w_work
        swept = single.products.factorize([25.0 * T for T in mode.T], w)
        column = w * (mode.eta - single.offset) + mode.rows.score
        system = FixedSystem(single, swept, w, (single.products.gather(column), single.X.T @ column))
        np.testing.assert_allclose(beta[b], system.solution, atol=1e-6)
        change = system.solution - mode.beta
        assert distance[b] == pytest.approx(float(change @ system.cross @ change), rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("name", ["nbinomial", "nbinomial, large"])
def test_distinct_counts_of_each_response(name):
    y = RESPONSES[name].T
    values, whose, index = ResponseData(y).distinct_of_each
    np.testing.assert_array_equal(values[index], y)
    np.testing.assert_array_equal(whose[index], np.arange(B)[:, None] + np.zeros_like(y))
    assert values.size == sum(np.unique(row).size for row in y)


def test_ends_do_not_depend_on_what_else_is_in_the_batch():
    problem, Y = problem_of("nbinomial"), RESPONSES["nbinomial"]
    model = StackedModel(problem)
    start = np.array([0.4, 0.6, 0.2, 0.5])

    def ends(columns):
        descent = StackedDescent(model, Y[:, columns])
        return certified_ends(descent, descent.down(descent.first(np.tile(start, (len(columns), 1)))))

    together = ends([0, 1, 2, 3])
    assert together.converged.all()
    for b in range(B):
        alone = ends([b])
        np.testing.assert_array_equal(alone.phi[0], together.phi[b])
        np.testing.assert_array_equal(alone.covariance[0], together.covariance[b])


def test_zero_variance_and_no_overdispersion_are_found():
    problem = problem_of("nbinomial")
    Y = np.random.default_rng(5).poisson(np.exp(0.5 + 0.3 * ROWS.x.to_numpy()), (12, N)).T.astype(float)
    descent = StackedDescent(StackedModel(problem), Y)
    state = descent.down(descent.first(np.tile([0.4, 0.6, 0.2, 0.5], (12, 1))))
    ends = certified_ends(descent, state)
    # Half of the estimates of a variance that is zero are zero, and so it is with overdispersion.
    assert 1 < ends.held[:, 0].sum() < 12
    assert 1 < ends.held[:, -1].sum() < 12
    assert (ends.phi[ends.held[:, 0], 0] == 0.0).all()
    assert (ends.covariance[ends.held[:, -1]][:, -1] == 0.0).all()
    for b in np.flatnonzero(ends.converged & ends.held[:, -1]):
        inside = ends.phi[b] - np.array([0.0, 0.0, 0.0, 27.0])
        there = descent.model.evaluate(inside[None], np.zeros((1, 6)), descent.rows_of(np.array([b])))
        assert there.value[0] > ends.value[b]


@pytest.mark.parametrize("name", ["poisson", "nbinomial"])
def test_hessian_with_many_fixed_effects(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # All points beside the optimum together, or one after the other.
    data = ROWS.assign(y=RESPONSES[name][:, 0], f=[f"level {i % 14}" for i in range(N)])
    together = lme4py.glmer("y ~ f + x + (1 | g)", data, name).fit
    monkeypatch.setattr(single_descent, "can_stack", lambda problem: False)
    alone = lme4py.glmer("y ~ f + x + (1 | g)", data, name).fit
    assert together.beta.size == 15
    # Differences of gradients that are known to 1e-9, over steps of 1e-3 standard errors.
    np.testing.assert_allclose(together.vcov, alone.vcov, rtol=1e-5, atol=1e-6 * np.abs(alone.vcov).max())
