"""Residuals that follow a chain in time, in O(n), against the covariance matrices of whole units."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from test_marginal import N, model, parameters

import lme4py
from lme4py.engine.marginal import chain as chains
from lme4py.engine.marginal import effects
from lme4py.engine.marginal.adjustment import expected
from lme4py.engine.marginal.criterion import MarginalCriterion
from lme4py.errors import DesignError

CASES = {
    "car1": model("car1"),
    "exp, weights": model("exp", weights=True),
    "ou with an intercept": model("ou", random=("intercept",), scales=2, weights=True),
    "strata": model("car1", strata=2, scales=1),
    "strata with a slope": model("ar1", random=("slope",), strata=2, scales=1),
    "no correlation": model("homdiag", random=("slope",), scales=2),
}


@pytest.fixture
def pair(request, monkeypatch):
    """A model as a chain, and by the covariances of its units."""
    monkeypatch.setattr(chains, "_REPEATED", 0.0)
    name, reml = request.param
    chain = MarginalCriterion(CASES[name], reml)
    monkeypatch.setattr("lme4py.engine.marginal.criterion.chain_of", lambda _: None)
    dense = MarginalCriterion(CASES[name], reml)
    assert chain.chain is not None
    assert dense.chain is None
    return chain, dense


EVERY = pytest.mark.parametrize("pair", [(name, reml) for name in CASES for reml in (True, False)], indirect=True)


@EVERY
def test_value_and_derivatives(pair):
    """Two ways to the same sums; each is exact to some 1e-14."""
    points = [criterion.evaluate(parameters(criterion)) for criterion in pair]
    (gradient, hessian), (g, h) = (c.derivatives(point) for c, point in zip(pair, points, strict=True))
    assert points[0].value == pytest.approx(points[1].value, abs=1e-10)
    assert points[0].beta == pytest.approx(points[1].beta, rel=1e-10, abs=1e-12)
    assert gradient == pytest.approx(g, abs=1e-11 * np.abs(g).max())
    assert hessian == pytest.approx(h, abs=1e-11 * np.abs(h).max())
    values = [criterion.evaluate(1.1 * parameters(criterion), derivatives=False).value for criterion in pair]
    assert values[0] == pytest.approx(values[1], abs=1e-10)


@EVERY
def test_what_is_made_of_the_inverse(pair):
    z = np.random.default_rng(0).normal(size=(N, 2))
    points = [criterion.evaluate(parameters(criterion)) for criterion in pair]
    both = list(zip(pair, points, strict=True))
    for a, b in (
        [c.first_moments(point) for c, point in both],
        [c.square(point) for c, point in both],
        [effects.inverse_times(c, point, z) for c, point in both],
        [effects.whitened(c, point, z[:, 0]) for c, point in both],
        [np.array(effects.modes(c, point)) for c, point in both],
        [np.array(effects.conditional_covariances(c, point, True)) for c, point in both],
    ):
        # The same numbers by another order of operations on 90 rows.
        assert a == pytest.approx(b, rel=1e-9, abs=1e-10)
    for name in ("information", "first", "second", "curved"):
        a, b = (getattr(expected(c, point), name) for c, point in both)
        assert (a is None) == (b is None)
        assert a is None or a == pytest.approx(b, rel=1e-9, abs=1e-9 * np.abs(b).max())


@pytest.mark.parametrize("pair", [("strata with a slope", True), ("car1", True)], indirect=True)
def test_a_root_has_the_covariance_for_its_square(pair):
    """L L' of the chain is the residual part of V."""
    chain, dense = pair
    par = parameters(chain)
    L = chain.chain.coloured(par, np.eye(N))
    V = np.zeros((N, N))
    for batch, blocks in zip(dense.batches, dense.evaluate(par).blocks, strict=True):
        for rows, own in zip(batch.rows, blocks.residual[batch.unit_class], strict=True):
            V[np.ix_(rows, rows)] = own
    # Sums of 3 products of numbers about 1.
    assert np.abs(L @ L.T - V).max() < 1e-12


def series(n: int, subjects: int = 1, seed: int = 3) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    id_ = np.repeat(np.arange(subjects), n // subjects)
    t = np.cumsum(rng.exponential(1.0, n))
    e = np.empty(n)
    for i in range(n):
        e[i] = rng.normal()
        if i and id_[i] == id_[i - 1]:
            s = np.exp(-(t[i] - t[i - 1]) / 2.0)
            e[i] = s * e[i - 1] + np.sqrt(1.0 - s**2) * e[i]
    x = rng.normal(size=n)
    y = 1.0 + x + e + 0.6 * rng.normal(size=subjects)[id_]
    return pd.DataFrame({"id": [f"s{i}" for i in id_], "t": t, "x": x, "y": y})


@pytest.mark.parametrize("formula", ["y ~ x", "y ~ x + (x | id)"])
def test_fits_are_those_of_whole_units(formula, monkeypatch):
    """Estimates, errors, tests, predictions and draws of a model by both ways."""
    data = series(360, 24)
    chain = lme4py.lmer(formula, data, residual="car1(t | id)", variance="exp(x)")
    monkeypatch.setattr("lme4py.engine.marginal.criterion.chain_of", lambda _: None)
    dense = lme4py.lmer(formula, data, residual="car1(t | id)", variance="exp(x)")
    assert chain.fit.problem.criterion.chain is not None
    assert chain.criterion == pytest.approx(dense.criterion, abs=1e-9)
    for ddf in ("satterthwaite", "kenward-roger"):
        # Two searches that end within 1e-7 of the same optimum.
        assert chain.coef_table(ddf=ddf).to_numpy() == pytest.approx(dense.coef_table(ddf=ddf).to_numpy(), rel=1e-5)
    new = data.head(9).assign(t=data["t"].head(9) + 0.3)
    for options in ({}, {"given": True}, {"interval": "prediction"}):
        a, b = (np.asarray(fit.predict(new, **options), dtype=float) for fit in (chain, dense))
        assert a == pytest.approx(b, rel=1e-5)
    assert chain.residuals("normalized").to_numpy() == pytest.approx(dense.residuals("normalized").to_numpy(), abs=1e-5)
    # 4,000 draws: standard deviations to about 1 %.
    spreads = [fit.simulate(4_000, seed=1).to_numpy().std(axis=1) for fit in (chain, dense)]
    assert spreads[0] == pytest.approx(spreads[1], rel=0.1)


def test_a_long_series():
    """More rows of one subject than a covariance matrix is made for; the optimum by the innovations of each row."""
    data = series(6_000)
    fit = lme4py.lmer("y ~ x", data, residual="exp(t | id)", reml=False)
    assert fit.converged
    s, r = fit.fit.residual_estimates()[0][1], fit.fit.residual_estimates()[1][1]
    e = (fit.fit.design.y - fit.fit.design.X @ fit.fit.beta) / s
    rho = np.exp(-np.diff(data["t"].to_numpy()) / r)
    white = np.append(e[0], (e[1:] - rho * e[:-1]) / np.sqrt(1.0 - rho**2))
    value = np.sum(np.log1p(-(rho**2))) + 6_000 * np.log(2.0 * np.pi * s**2) + white @ white
    # Sums of 6,000 terms.
    assert fit.criterion == pytest.approx(value, abs=1e-8)
    assert fit.residuals("normalized").to_numpy() == pytest.approx(white, abs=1e-10)
    assert np.isfinite(fit.coef_table(ddf="satterthwaite").to_numpy()).all()
    with pytest.raises(DesignError, match="covariances of whole units"):
        fit.predict(data.head(3), given=True)


def test_what_a_sample_does_not_tell_apart_is_refused(monkeypatch):
    """A random intercept is the limit of an infinite range only; a level of its own for each row is the residual."""
    monkeypatch.setattr("lme4py.engine.marginal.solve._NUMBERS", 0)
    data = series(360, 24)
    assert lme4py.lmer("y ~ x + (1 | id)", data, residual="car1(t | id)").converged
    data["row"] = np.arange(360)
    with pytest.raises(DesignError, match="do not tell these covariance parameters apart"):
        lme4py.lmer("y ~ x + (1 | row)", data, dispformula="~ 1")
