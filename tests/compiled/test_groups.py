"""Sums by group: NumPy, loops in Python and machine code against dense algebra."""

import importlib.util
from dataclasses import dataclass

import numpy as np
import pytest

from lme4py.compiled import groups

# Sums of some hundred terms of size one, in another order.
CLOSE = {"rtol": 1e-12, "atol": 1e-12}
FORMS = [
    "plain",
    "loops",
    pytest.param(
        "compiled",
        marks=pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="numba is not installed"),
    ),
]


@dataclass(frozen=True)
class Rows:
    codes: np.ndarray
    Z: np.ndarray
    columns: np.ndarray
    w: np.ndarray
    start: np.ndarray
    b: np.ndarray
    beta: np.ndarray

    @property
    def X(self):
        return self.columns.T


# More rows than a block of loops has, one block, fewer, and none; one level without rows.
@pytest.fixture(params=[(1100, 3), (512, 1), (7, 2), (5, 0), (0, 2)], ids=str)
def rows(request):
    n, p = request.param
    rng = np.random.default_rng(n)
    codes = rng.integers(0, 6, n)
    Z = (codes[:, None] == np.arange(7)).astype(float)
    w, start, b = rng.uniform(0.5, 2.0, n), rng.normal(size=n), rng.normal(size=7)
    return Rows(codes, Z, rng.normal(size=(p, n)), w, start, b, rng.normal(size=p))


@pytest.fixture(params=FORMS)
def form(request):
    return lambda twin: getattr(twin, request.param)


def test_group_sum(rows, form):
    np.testing.assert_allclose(form(groups.group_sum)(rows.codes, rows.w, 7), rows.Z.T @ rows.w, **CLOSE)


@pytest.mark.parametrize("known", [False, True])
def test_weighted_cross(rows, form, known):
    first = rows.Z.T @ (rows.w * rows.columns[0]) if known and rows.columns.size else np.empty(0)
    sums, cross = form(groups.weighted_cross)(rows.codes, rows.w, rows.columns, 7, 512, first)
    weighted = rows.w[:, None] * rows.X
    np.testing.assert_allclose(sums, rows.Z.T @ weighted, **CLOSE)
    np.testing.assert_allclose(cross, rows.X.T @ weighted, **CLOSE)


@pytest.mark.parametrize("with_beta", [True, False])
def test_predictor(rows, form, with_beta):
    beta = rows.beta if with_beta else np.empty(0)
    out = np.full(rows.codes.size, np.nan)
    form(groups.predictor)(rows.codes, rows.b, rows.columns, beta, rows.start, out, 512)
    fixed = rows.X @ rows.beta if with_beta else 0.0
    np.testing.assert_allclose(out, rows.start + fixed + rows.Z @ rows.b, **CLOSE)


@pytest.mark.parametrize("with_beta", [True, False])
def test_weighted_sums(rows, form, with_beta):
    beta = rows.beta if with_beta else np.empty(0)
    sums, products = form(groups.weighted_sums)(rows.codes, rows.b, rows.columns, beta, rows.w, rows.start, 512)
    x = rows.start + rows.w * ((rows.X @ rows.beta if with_beta else 0.0) + rows.Z @ rows.b)
    np.testing.assert_allclose(sums, rows.Z.T @ x, **CLOSE)
    np.testing.assert_allclose(products, rows.X.T @ x, **CLOSE)


def test_what_is_no_number_goes_through(form):
    codes, w = np.array([0, 0, 1]), np.array([1.0, np.nan, np.inf])
    np.testing.assert_array_equal(form(groups.group_sum)(codes, w, 2), [np.nan, np.inf])
