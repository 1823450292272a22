"""Elimination without a list of products: sums of sparse and of dense matrix products."""

from __future__ import annotations

import numpy as np
import pytest
from dense_models import DESIGNS, random_theta
from scipy import sparse

import lme4py
from lme4py.engine.factor import sweep, wide
from lme4py.engine.factor.wide import GramPlan, gram_adjoint, gram_traces, subtract_gram
from lme4py.engine.linear import problem as lmm

J, Q = 40, 30


def table(k: int) -> sparse.csr_array:
    """A coupling with some popular columns; all columns of the term have the same pattern."""
    rng = np.random.default_rng(5)
    pattern = rng.random((J, Q)) < np.linspace(0.9, 0.02, Q)[rng.permutation(Q)]
    pattern[3] = False  # a level that meets nothing
    values = [np.where(pattern, rng.uniform(0.5, 2.0, (J, Q)), 0.0) for _ in range(k)]
    return sparse.csr_array(np.concatenate(values))


def spd(k: int) -> np.ndarray:
    half = np.random.default_rng(6).normal(size=(J, k, k))
    return np.moveaxis(half @ half.swapaxes(1, 2) + np.eye(k), 0, 2)


@pytest.fixture(params=["as chosen", "sparse", "dense", "both"])
def split(request, monkeypatch):
    """Which columns are multiplied as dense ones, and in small pieces."""
    monkeypatch.setattr(wide, "_CHUNK", 1500)
    chosen = {"sparse": np.zeros(Q, bool), "dense": np.ones(Q, bool), "both": np.arange(Q) % 3 == 0}
    if request.param in chosen:
        monkeypatch.setattr(wide, "_popular", lambda *_: chosen[request.param])


@pytest.mark.parametrize("k", [1, 2, 3])
def test_products(k, split):
    C = table(k)
    dense = C.toarray().reshape(k, J, Q)
    plan = GramPlan(C, J)
    T = np.tril(np.random.default_rng(7).normal(size=(k, k)))
    inverse, N = spd(k), spd(k) - 0.3
    E = np.einsum("ab,bcj,dc->adj", T, inverse, T)
    K = np.zeros((Q, Q))
    subtract_gram(plan, C, T, inverse, K)
    # Sums of 40 products in another order.
    np.testing.assert_allclose(np.tril(-K), np.tril(np.einsum("ajq,abj,bjr->qr", dense, E, dense)), rtol=0, atol=1e-11)
    D = np.random.default_rng(8).normal(size=(Q, Q))
    D = D + D.T
    lam = np.random.default_rng(9).uniform(0.5, 2.0, Q)
    for scale in (None, lam):
        inner = D if scale is None else D * np.outer(scale, scale)
        blocks = np.einsum("ajq,qr,bjr->abj", dense, inner, dense)
        np.testing.assert_allclose(gram_adjoint(C, J, k, D, scale), blocks, rtol=0, atol=1e-11)
        expected = np.einsum("acj,cdj,bdj->ab", N, blocks, N)
        # Totals of some thousand products.
        np.testing.assert_allclose(gram_traces(plan, C, N, D, scale), expected, rtol=1e-11, atol=1e-9)


def test_popular_columns_are_the_often_met_ones():
    """Where a dense product is cheaper the columns met most often come first."""
    C = table(1)
    met = np.bincount(C.indices, minlength=Q)
    plan = GramPlan(C, J)
    assert plan.popular.columns.size + plan.others.columns.size == Q
    if plan.popular.columns.size and plan.others.columns.size:
        assert met[plan.popular.columns].min() >= met[plan.others.columns].max()


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("name", ["crossed", "crossed, slopes", "weights"])
def test_criterion_and_derivatives(name, zero, reml, monkeypatch):
    """The same numbers as with a list of products; the factor gives way to its inverse."""
    design = DESIGNS[name]
    theta = random_theta(design)
    if zero:
        theta[-1] = 0.0
    found = []
    for limit, rows in ((10**9, 10**9), (0, 0)):
        monkeypatch.setattr(lmm, "_MAX_LISTED", limit)
        monkeypatch.setattr(sweep, "_SPEND_FROM", rows)
        criterion = lme4py.lmm_criterion(design, reml).inside
        assert (criterion.problem.symbolic.stages[0].products is None) == (limit == 0)
        point = criterion.evaluate(theta)
        point.swept.spend()
        derivatives = criterion.derivatives(point)
        point.swept.discard()
        assert point.swept.is_complete == (rows > 0)
        modes, rest = point.swept.back_substitute(point.border, np.append(-point.beta, 1.0)[:, None])
        found.append([[point.value], derivatives.gradient, derivatives.hessian, *modes, *rest])
    for listed, own in zip(*found, strict=True):
        # Rounding only.
        np.testing.assert_allclose(own, listed, rtol=0, atol=1e-10 * max(1.0, np.abs(listed).max()))


def test_fit(monkeypatch):
    """From start to certificate."""
    design = DESIGNS["crossed, slopes"]
    expected = lme4py.lmm_fit(design)
    monkeypatch.setattr(lmm, "_MAX_LISTED", 0)
    monkeypatch.setattr(sweep, "_SPEND_FROM", 0)
    found = lme4py.lmm_fit(design)
    assert found.certificate.converged
    # Two runs of the optimiser end within its tolerance of 1e-12 in the criterion, the root of that in theta.
    assert found.criterion == pytest.approx(expected.criterion, rel=1e-12)
    np.testing.assert_allclose(found.theta, expected.theta, rtol=0, atol=1e-6)
