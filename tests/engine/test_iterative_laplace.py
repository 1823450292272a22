"""Laplace's criterion of crossed effects without a factor, beside the exact factor of the same model."""

from __future__ import annotations

import numpy as np
import pytest

import lme4py
from lme4py.engine.generalised.iterative import cells
from lme4py.engine.generalised.iterative.criterion import IterativeLaplace
from lme4py.engine.generalised.laplace import average_information, laplace
from lme4py.engine.generalised.making.make import make_glmm
from lme4py.engine.generalised.problem import ModeFinder
from lme4py.errors import Lme4Error
from lme4py.families.registry import make_family

MODELS = {
    "logit": ("y ~ x + (1 | a) + (1 | b)", "binomial", "logit"),
    "trials, probit": ("cbind(y, 3 - y) ~ x + (1 | a) + (1 | b)", "binomial", "probit"),
    "slopes": ("count ~ x + offset(half) + (x | a) + (0 + x | b)", "poisson", "log"),
    "three": ("count ~ x + (1 | b) + (1 | c) + (1 | a)", "poisson", "log"),
    "shape": ("count ~ x + (1 | b) + (1 | a)", "nbinomial", "log"),
    "dispersion": ("size ~ x + (1 | a) + (1 | b)", "gamma", "log"),
}


def made(n: int = 700, seed: int = 1) -> dict[str, np.ndarray]:
    """Factors of 50, 30 and 12 levels."""
    rng = np.random.default_rng(seed)
    a, b, c = rng.integers(0, 50, n), rng.integers(0, 30, n), rng.integers(0, 12, n)
    x = rng.standard_normal(n)
    eta = 0.4 * x + 0.7 * rng.standard_normal(50)[a] + 0.6 * rng.standard_normal(30)[b]
    eta = eta + 0.5 * rng.standard_normal(12)[c] + 0.3 * rng.standard_normal(50)[a] * x
    y = rng.binomial(1, 1.0 / (1.0 + np.exp(-eta)))
    count, size = rng.poisson(np.exp(eta)), rng.gamma(2.0, np.exp(eta) / 2.0)
    return {"y": y, "x": x, "half": 0.5 * x**2, "a": a, "b": b, "c": c, "count": count, "size": size}


def both(name: str, seed: int = 0):
    formula, family_name, link = MODELS[name]
    family = make_family(family_name, link)
    design = lme4py.lformula(formula, made(), family=family)
    exact = make_glmm(design, family, design.response)
    found = IterativeLaplace(make_glmm(design, family, design.response, block="iterative"), seed)
    # Away from the optimum.
    theta = exact.structures.initial() * 0.7 + 0.02
    phi = np.concatenate([theta, 0.3 + 0.1 * np.arange(exact.n_fixed), [0.4] * exact.n_nuisance])
    return ModeFinder(exact), found, phi


def at(finder: ModeFinder, phi: np.ndarray):
    zero = np.zeros(sum(factor.size for factor in finder.problem.factors))
    return laplace(finder, finder.find(*finder.problem.split(phi), zero))


@pytest.mark.parametrize("name", MODELS)
def test_directions_that_span_the_space_leave_nothing_to_chance(name):
    finder, found, phi = both(name)
    found.learn_directions(phi, found.size)
    point, wanted = found.evaluate(phi, 2), at(finder, phi)
    # Systems of the probes are solved to 1e-5, and a quadrature's error is the square of that.
    assert point.value == pytest.approx(wanted.value, abs=1e-5)
    size = np.abs(wanted.gradient).max()
    np.testing.assert_allclose(point.gradient, wanted.gradient, atol=1e-5 * size)
    assert point.value_se < 1e-8
    information = average_information(finder, wanted)
    # Of a log dispersion the curvature is a difference of two values.
    np.testing.assert_allclose(point.information, information, rtol=1e-5, atol=1e-6 * np.abs(information).max())
    # Modes are found to a decrease of 1e-10.
    np.testing.assert_allclose(point.b, wanted.mode.b, atol=1e-5)


@pytest.mark.parametrize("name", ["logit", "slopes", "shape"])
def test_probes_are_right_within_their_standard_errors(name):
    finder, found, phi = both(name, seed=4)
    point, wanted = found.evaluate(phi, 80), at(finder, phi)
    # Four standard errors: one chance in 16,000 for one number, and the seed is fixed.
    assert abs(point.value - wanted.value) < 4.0 * point.value_se
    assert (np.abs(point.gradient - wanted.gradient) < 4.0 * np.sqrt(np.diag(point.gradient_vcov)) + 1e-6).all()


def test_the_next_mode_is_predicted():
    _, found, phi = both("shape")
    here = found.evaluate(phi, 2)
    there = phi + 0.01 * np.cos(np.arange(phi.size))
    predicted = here.b + here.h.slopes @ (there - phi)
    moved = found.evaluate(there, 2, here.h).b
    # First order: what is left is of the size of the square of the step, 1e-4.
    assert np.abs(moved - predicted).max() < 1e-2 * np.abs(moved - here.b).max() + 1e-6


def test_numbers_do_not_depend_on_chunks_of_rows(monkeypatch):
    _, found, phi = both("slopes")
    whole = found.evaluate(phi, 3)
    monkeypatch.setattr(cells, "_ROWS", 31)
    _, found, phi = both("slopes")
    parts = found.evaluate(phi, 3)
    # Sums in another order.
    assert parts.value == pytest.approx(whole.value, rel=1e-11)
    np.testing.assert_allclose(parts.gradient, whole.gradient, rtol=1e-7, atol=1e-7)


def test_cells_of_rows_of_their_own_and_shared_ones():
    rng = np.random.default_rng(0)
    for n in (30, 3000):
        # 900 cells: hardly two rows share one, and all share one.
        rows, columns = rng.integers(0, 30, n), rng.integers(0, 30, n)
        if n == 30:
            rows, columns = np.arange(30), rng.permutation(30)
        own = cells._Cells(rows, columns, (30, 30))
        assert (own.first is None) == (n == 30)
        w = rng.standard_normal(n)
        wanted = np.zeros((30, 30))
        np.add.at(wanted, (rows, columns), w)
        found = np.zeros((30, 30))
        found[np.repeat(np.arange(30), np.diff(own.pointer)), own.indices] = own.sums(w)
        np.testing.assert_allclose(found, wanted, atol=1e-12)


def test_what_needs_a_factor_is_refused_by_name():
    _, found, _ = both("logit")
    with pytest.raises(Lme4Error, match="were solved iteratively"):
        found.products.factorize(None, None)
