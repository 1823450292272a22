"""Many responses of models with several factors at once: the estimates and inferences of single fits."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from lme4py import lmer
from lme4py.engine.linear.criterion import Criterion
from lme4py.fits.kinds import model_of
from lme4py.fits.linear.batches.dense_batch import DenseBatch, can_batch_dense
from lme4py.fits.linear.inferences import _singly
from lme4py.fits.linear.refit import Responses
from lme4py.linalg.cholesky import positive_inverses


def crossed(formula: str, reml: bool, part: float, weights: bool = False):
    rng = np.random.default_rng(0)
    data = pd.DataFrame([(i, j) for i in range(9) for j in range(8)], columns=["s", "w"])
    data["x"] = data.w % 2 - 0.5
    data["v"] = rng.uniform(0.5, 2.0, len(data))
    data["y"] = rng.normal(size=len(data)) + rng.normal(size=9)[data.s] * 0.7 + 0.5 * rng.normal(size=8)[data.w]
    data = data.sample(frac=part, random_state=1)
    return lmer(formula, data, reml=reml, weights="v" if weights else None)


@pytest.mark.parametrize(
    ("formula", "reml", "part", "weights"),
    [
        ("y ~ x + (1 | s) + (1 | w)", True, 1.0, False),
        ("y ~ x + (1 | s) + (1 | w)", False, 0.7, True),
        ("y ~ x + (x | s) + (1 | w)", True, 0.8, False),
        ("y ~ x + (x || s) + (1 | w)", False, 0.8, False),
        ("y ~ 0 + (1 | s) + (1 | w)", True, 0.9, False),
    ],
)
def test_estimates_and_inferences_are_those_of_single_fits(formula, reml, part, weights):
    fit = crossed(formula, reml, part, weights).fit
    assert can_batch_dense(fit)
    model = model_of(fit)
    Y = model.simulator().draw(np.random.SeedSequence(1).spawn(12))
    together, single = model.inferences(Y), _singly(fit, Y)
    np.testing.assert_allclose(together.criterion, single.criterion, atol=1e-9)  # both stop within 1e-12
    np.testing.assert_array_equal(together.singular, single.singular)
    # Minima within 1e-12 of each other are 1e-6 apart in the parameters.
    np.testing.assert_allclose(together.many.sigma, single.many.sigma, rtol=1e-6)
    np.testing.assert_allclose(together.vcov, single.vcov, rtol=3e-6, atol=1e-12)
    if fit.beta.size:
        L = np.eye(fit.beta.size)
        # Differences of gradients on one side.
        np.testing.assert_allclose(together.t_df(L), single.t_df(L), rtol=1e-4)


def test_derivatives_are_those_of_the_criterion():
    fit = crossed("y ~ x + (x | s) + (1 | w)", True, 0.8).fit
    responses = Responses(fit)
    solver = DenseBatch(Criterion(fit.problem, True), responses)
    Y = model_of(fit).simulator().draw(np.random.SeedSequence(2).spawn(3))
    Zy, Xy, yy = responses.products(Y)
    sums = solver.sums(Zy, Xy, yy)
    theta = np.array([[0.7, 0.2, 0.4, 0.6], [1.1, -0.3, 0.2, 0.1], [0.3, 0.0, 0.9, 1.4]])
    state = solver._evaluate(theta, sums)
    for b in range(3):
        problem = responses.problem([z[:, b] for z in Zy], Xy[:, b], float(yy[b]))
        assert state.value[b] == pytest.approx(Criterion(problem, True)(theta[b]), abs=1e-9)  # sums in another order
    for i in range(4):
        step = np.zeros(4)
        step[i] = 1e-5
        above, below = solver._evaluate(theta + step, sums), solver._evaluate(theta - step, sums)
        # Central differences with a step of 1e-5.
        np.testing.assert_allclose(state.gradient[:, i], (above.value - below.value) / 2e-5, atol=1e-5)
        np.testing.assert_allclose(state.hessian[:, i], (above.gradient - below.gradient) / 2e-5, atol=1e-5)


def test_positive_inverses():
    rng = np.random.default_rng(0)
    half = rng.normal(size=(4, 5, 5))
    A = half @ half.transpose(0, 2, 1) + np.eye(5)
    A[2] = -np.eye(5)
    inverse, log_det = positive_inverses(A.copy())
    good = [0, 1, 3]
    np.testing.assert_allclose(inverse[good], np.linalg.inv(A[good]), atol=1e-12)  # condition numbers below 100
    np.testing.assert_allclose(log_det[good], np.linalg.slogdet(A[good])[1], atol=1e-12)
    assert log_det[2] == np.inf
    assert np.array_equal(inverse[2], np.eye(5))
