"""The trust-region step against brute force, and the optimiser on functions with known minima."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from dense_models import DESIGNS, random_theta

import lme4py
from lme4py.engine.linear.criterion import Criterion
from lme4py.engine.optimise import Control, Local, minimise, trust_region_step
from lme4py.errors import DesignError


def decrease(gradient: np.ndarray, hessian: np.ndarray, step: np.ndarray) -> float:
    return -float(gradient @ step + 0.5 * step @ hessian @ step)


def brute_force(gradient: np.ndarray, hessian: np.ndarray, radius: float) -> float:
    """Largest decrease over a fine grid of the disc (two dimensions)."""
    angles = np.linspace(0, 2 * np.pi, 2881)
    sizes = np.linspace(0, radius, 401)
    steps = sizes[:, None, None] * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    flat = steps.reshape(-1, 2)
    values = flat @ gradient + 0.5 * np.einsum("si,ij,sj->s", flat, hessian, flat)
    return -float(values.min())


QUADRATICS = {
    "inside": ([1.0, -0.5], [[4.0, 1.0], [1.0, 3.0]], 1.0),
    "on the boundary": ([5.0, -2.0], [[2.0, 0.3], [0.3, 1.0]], 0.7),
    "indefinite": ([0.3, 0.4], [[1.0, 0.5], [0.5, -2.0]], 1.5),
    "negative definite": ([0.3, -0.1], [[-1.0, 0.2], [0.2, -3.0]], 0.8),
    "hard case": ([1.0, 0.0], [[2.0, 0.0], [0.0, -1.0]], 2.0),
    "hard case, no gradient": ([0.0, 0.0], [[2.0, 0.0], [0.0, -1.0]], 0.5),
    "hard case, rotated": ([0.6, 0.8], [[0.08, 1.44], [1.44, 0.92]], 3.0),
    "almost the hard case": ([1.0, 1e-7], [[2.0, 0.0], [0.0, -1.0]], 2.0),
    "zero Hessian": ([3.0, 4.0], [[0.0, 0.0], [0.0, 0.0]], 2.0),
    "semi-definite": ([1.0, 1.0], [[1.0, 0.0], [0.0, 0.0]], 2.0),
    "semi-definite, no gradient along the flat": ([1.0, 0.0], [[2.0, 0.0], [0.0, 0.0]], 2.0),
    "equal eigenvalues": ([1.0, 2.0], [[-1.0, 0.0], [0.0, -1.0]], 1.0),
    "large numbers": ([3e6, -1e6], [[2e7, 0.0], [0.0, -1e6]], 1e-1),
    "small numbers": ([3e-6, -1e-6], [[2e-5, 0.0], [0.0, -1e-5]], 1.0),
}


@pytest.mark.parametrize("name", QUADRATICS)
def test_step_is_the_minimum_of_the_disc(name):
    gradient, hessian, radius = (np.array(x, dtype=float) for x in QUADRATICS[name])
    step, predicted = trust_region_step(gradient, hessian, float(radius))
    best = brute_force(gradient, hessian, float(radius))
    # The step is bisected to 1e-10 of its shift; the flat directions are allowed a curvature of 1e-10.
    assert np.linalg.norm(step) <= radius * (1 + 1e-8)
    assert predicted == pytest.approx(decrease(gradient, hessian, step), rel=1e-8)
    # The grid of the brute force is the coarser of the two.
    assert predicted >= best * (1 - 1e-6)
    # The grid misses the minimum by a little; nothing beats it by more than that.
    assert predicted <= best + 1e-4 * max(abs(best), float(np.abs(gradient).max()) * radius)


@pytest.mark.parametrize("seed", range(20))
def test_step_fulfils_the_conditions_of_optimality(seed):
    """(H + shift I) s = -g, H + shift I semi-definite, shift (radius - |s|) = 0 (Moré & Sorensen 1983)."""
    rng = np.random.default_rng(seed)
    m = int(rng.integers(1, 7))
    H = rng.normal(size=(m, m))
    H = H + H.T + rng.uniform(0, 3) * np.eye(m)
    g = rng.normal(size=m)
    radius = float(rng.uniform(0.1, 3))
    step, _ = trust_region_step(g, H, radius)
    size = float(np.linalg.norm(step))
    shift = 0.0 if size < radius * (1 - 1e-6) else float(-(g + H @ step) @ step / (step @ step))
    # Rounding of the bisection.
    np.testing.assert_allclose((H + shift * np.eye(m)) @ step, -g, atol=1e-6)
    assert np.linalg.eigvalsh(H)[0] + shift >= -1e-6
    assert shift >= -1e-6


def test_no_step_at_a_minimum():
    step, predicted = trust_region_step(np.zeros(2), np.diag([2.0, 1.0]), 1.0)
    assert predicted == 0.0
    assert np.abs(step).max() == 0.0


def local(value, gradient, hessian):
    """A function of theta in the form that the optimiser takes."""
    return lambda t: Local(
        t, float(value(t)), np.asarray(gradient(t), dtype=float), np.asarray(hessian(t), dtype=float)
    )


def rosenbrock(hessian):
    return local(
        lambda t: (1 - t[0]) ** 2 + 100 * (t[1] - t[0] ** 2) ** 2,
        lambda t: [-2 * (1 - t[0]) - 400 * t[0] * (t[1] - t[0] ** 2), 200 * (t[1] - t[0] ** 2)],
        hessian,
    )


def true_hessian(t):
    return [[2 - 400 * t[1] + 1200 * t[0] ** 2, -400 * t[0]], [-400 * t[0], 200.0]]


@pytest.mark.parametrize("start", [[-1.2, 1.0], [3.0, -3.0], [0.0, 0.0], [1.0, 1.0]])
def test_rosenbrock(start):
    found = minimise(rosenbrock(true_hessian), np.array(start), Control())
    # The predicted decrease is below 1e-13 at the end and the smallest curvature is 0.4.
    np.testing.assert_allclose(found.theta, [1.0, 1.0], atol=1e-6)
    assert found.value < 1e-13
    assert len(found.log) < 60
    assert found.message == "predicted decrease below tolerance"


def test_secants_make_up_for_a_wrong_hessian():
    """The Hessian model of a mixed model is an average information, not the Hessian."""
    A = np.array([[3.0, 1.0, 0.2], [1.0, 2.0, 0.5], [0.2, 0.5, 1.0]])

    def value(t):
        return 0.5 * t @ A @ t + 0.1 * np.sum(t**4)

    wrong = local(value, lambda t: A @ t + 0.4 * t**3, lambda t: 1.3 * A)
    symmetric = local(value, lambda t: A @ t + 0.4 * t**3, lambda t: np.diag([4.0, 1.5, 1.6]))
    for function in (symmetric, wrong):
        found = minimise(function, np.array([0.5, -0.5, 0.5]), Control())
        # The smallest curvature is near 0.8 and 1e-13 of decrease remain.
        np.testing.assert_allclose(found.theta, 0.0, atol=1e-6)
        assert len(found.log) < 40


def quartic():
    """A saddle at zero, minima at (1, 0) and (-1, 0)."""
    return local(
        lambda t: t[0] ** 4 / 4 - t[0] ** 2 / 2 + t[1] ** 2,
        lambda t: [t[0] ** 3 - t[0], 2 * t[1]],
        lambda t: [[3 * t[0] ** 2 - 1, 0.0], [0.0, 2.0]],
    )


@pytest.mark.parametrize("start", [[0.0, 0.0], [0.0, 1.0], [1e-12, 0.0]])
def test_leaves_a_saddle(start):
    found = minimise(quartic(), np.array(start), Control())
    # As above; the curvature is 2 in both directions.
    np.testing.assert_allclose(np.abs(found.theta), [1.0, 0.0], atol=1e-6)
    assert found.value == pytest.approx(-0.25, abs=1e-13)


def test_function_without_a_value_shortens_the_step():
    """log has no value beyond zero; the first Newton step would go there."""

    def function(t):
        if t[0] <= 0:
            return None
        return Local(t, float(t[0] - np.log(t[0])), 1 - 1 / t, np.array([[1 / t[0] ** 2]]))

    found = minimise(function, np.array([5.0]), Control(radius=100.0))
    assert found.theta[0] == pytest.approx(1.0, abs=1e-6)  # curvature one, 1e-13 of decrease left


def test_no_value_at_the_start():
    with pytest.raises(DesignError, match="starting values"):
        minimise(lambda t: None, np.zeros(2), Control())


def test_limit_of_evaluations_and_the_log():
    found = minimise(rosenbrock(true_hessian), np.array([-1.2, 1.0]), Control(max_evaluations=5))
    assert found.message == "maximum number of evaluations reached"
    assert [e.number for e in found.log] == [1, 2, 3, 4, 5]
    accepted = [e.criterion for e in found.log if e.accepted]
    assert accepted == sorted(accepted, reverse=True)
    assert found.value == accepted[-1]
    first = found.log[0]
    assert (first.theta, first.accepted, first.radius) == ((-1.2, 1.0), True, 1.0)
    assert first.gradient_norm == pytest.approx(215.6)


# -- mixed models ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DESIGNS)
def test_leaves_zero_when_the_variance_is_positive(name):
    """At theta = 0 the gradient is zero by symmetry, yet it is no minimum."""
    design = DESIGNS[name]
    criterion = lme4py.lmm_criterion(design)
    usual = lme4py.optimize_criterion(criterion)
    from_zero = lme4py.optimize_criterion(criterion, np.zeros(design.n_theta))
    assert from_zero.log[0].criterion > usual.value + 1
    # Both are certified to 1e-12 or so.
    assert from_zero.value == pytest.approx(usual.value, abs=1e-8)


@pytest.mark.parametrize("name", DESIGNS)
def test_start_does_not_matter(name):
    design = DESIGNS[name]
    criterion = lme4py.lmm_criterion(design, reml=False)
    usual = lme4py.optimize_criterion(criterion)
    for seed, size in ((0, 0.05), (1, 1.0), (2, 20.0)):
        other = lme4py.optimize_criterion(criterion, size * random_theta(design, seed))
        assert other.value == pytest.approx(usual.value, abs=1e-8)  # as above


def test_at_the_optimum_one_evaluation_is_enough(sleep):
    criterion = lme4py.lmm_criterion(sleep.fit.design)
    again = lme4py.optimize_criterion(criterion, sleep.theta)
    # One more may be needed to see that nothing can be improved.
    assert len(again.log) <= 3
    np.testing.assert_allclose(criterion.to_user(again.theta), sleep.theta, rtol=1e-6)


COUNTS = {
    # Balanced: the moments are the REML estimates.
    "sleepstudy": ("Reaction ~ Days + (Days | Subject)", "sleepstudy", True, 1),
    "penicillin": ("diameter ~ 1 + (1 | plate) + (1 | sample)", "Penicillin", True, 1),
    "pastes": ("strength ~ 1 + (1 | batch/cask)", "Pastes", False, 6),
    "machines": ("score ~ Machine + (Machine | Worker)", "Machines", False, 5),
    "hsb82": ("mAch ~ meanses * cses + sector * cses + (cses | school)", "Hsb82", True, 7),
}


@pytest.mark.parametrize("name", COUNTS)
def test_number_of_evaluations(name, monkeypatch):
    """With derivatives, and of the value alone: a worse start, Hessian model or step shows here first."""
    formula, data, reml, full = COUNTS[name]
    calls = Counter()
    for method in ("evaluate", "derivatives"):
        original = getattr(Criterion, method)

        def counted(self, x, method=method, original=original):
            calls[method] += 1
            return original(self, x)

        monkeypatch.setattr(Criterion, method, counted)
    # The search alone: where the factor is not kept whole, the certificate takes m gradients more for its Hessian.
    criterion = lme4py.lmm_criterion(lme4py.lformula(formula, lme4py.load_dataset(data)), reml)
    optimum = lme4py.optimize_criterion(criterion)
    assert len(optimum.log) == calls["derivatives"]
    # Fewer are welcome; the last step can be one that only rounding asks for.
    assert calls["derivatives"] <= full
    # One look far out, for another minimum.
    assert calls["evaluate"] - calls["derivatives"] <= 1
