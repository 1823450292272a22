"""Joined zero-inflated counts of small groups: the Laplace approximation has poles there, quadrature has a maximum."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import special, stats

import lme4py
from lme4py.engine.generalised import search

CALL = {"formula": "y ~ 1 + (1 | id | g)", "family": "poisson", "ziformula": "~ 1 + (1 | id | g)"}


def small_groups(seed: int) -> pd.DataFrame:
    """Eight groups of five counts, many of them zero."""
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(8), 5)
    b = rng.normal(size=(8, 2))
    none = rng.random(g.size) < special.expit(b[g, 1] - 0.5)
    return pd.DataFrame({"y": np.where(none, 0, rng.poisson(np.exp(0.7 + 0.7 * b[g, 0]))), "g": g})


def integrated(fit: lme4py.MEGLMResult, data: pd.DataFrame) -> float:
    """The log-likelihood by a rule of 40 x 40 nodes that are not moved to the modes."""
    z, w = np.polynomial.hermite_e.hermegauss(40)
    T = np.linalg.cholesky(fit.fit.covariances[0] + 1e-14 * np.eye(2))
    nodes = np.stack(np.meshgrid(z, z, indexing="ij"), axis=-1).reshape(-1, 2) @ T.T
    total = 0.0
    for _, rows in data.groupby("g"):
        y = rows["y"].to_numpy()[:, None]
        pi = special.expit(fit.fit.lam[0] + nodes[:, 1])
        density = (y == 0) * pi + (1.0 - pi) * stats.poisson.pmf(y, np.exp(fit.params["Intercept"] + nodes[:, 0]))
        total += np.log(np.outer(w, w).ravel() / w.sum() ** 2 @ density.prod(axis=0))
    return float(total)


def test_where_laplace_breaks_down_quadrature_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    # One more start is enough here: all of them end at a pole.
    monkeypatch.setattr(search, "_BUDGET", 1)
    said = r"breaks down there; integrate by quadrature \(nAGQ=15 or more\)"
    with pytest.raises(lme4py.DesignError, match=said):
        lme4py.glmer(data=small_groups(1), **CALL)


def test_the_named_rule_has_the_maximum() -> None:
    data = small_groups(1)
    fit = lme4py.glmer(data=data, nAGQ=15, **CALL)
    assert fit.converged
    # 15 nodes at the modes and 40 nodes at the mean are both this near to the integral.
    assert fit.log_likelihood == pytest.approx(integrated(fit, data), abs=2e-3)


def test_a_stop_at_a_pole_is_no_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "_BUDGET", 1)
    rng = np.random.default_rng(2122)
    groups, n = int(rng.integers(10, 31)), int(rng.integers(60, 201))
    g = np.sort(rng.integers(0, groups, n))
    x = rng.normal(size=n)
    b = rng.normal(size=(groups, 2)) * np.array([0.6, 0.8])
    none = rng.random(n) < special.expit(b[g, 1] - 1.0)
    y = np.where(none, 0, rng.poisson(np.exp(0.7 + 0.3 * x + b[g, 0])))
    with pytest.raises(lme4py.DesignError, match="Laplace approximation breaks down there; integrate by quadrature"):
        lme4py.glmer(data=pd.DataFrame({"y": y, "x": x, "g": g}), **CALL | {"formula": "y ~ x + (1 | id | g)"})


def test_starts_that_run_into_a_pole_leave_others_their_turn() -> None:
    """The first two starts end there; a third leads to the proper minimum, which glmmTMB has too."""
    rng = np.random.default_rng(5)
    n = 360
    g, h, x, z = rng.integers(0, 24, n), rng.integers(0, 15, n), rng.standard_normal(n), rng.uniform(0, 3, n)
    u, s, v = 0.7 * rng.standard_normal(24), 0.3 * rng.standard_normal(24), 0.5 * rng.standard_normal(15)
    eta = 0.3 + 0.5 * x + u[g] + s[g] * x + v[h]
    # Numbers that other responses of the same simulation took.
    rng.standard_normal(n), rng.binomial(1, 1.0 / (1.0 + np.exp(-eta))), rng.poisson(np.exp(0.6 * eta))
    y = np.where(rng.random(n) < 0.3, 0, rng.poisson(np.exp(0.6 * eta) * rng.gamma(2.0, 0.5, n)))
    data = pd.DataFrame({"y": y, "x": x, "z": z, "g": g, "h": h})
    with pytest.warns(lme4py.Lme4Warning, match="From another start the criterion falls below this minimum"):
        fit = lme4py.glmer("y ~ x + z + (1 | g)", data, "nbinomial", ziformula="~ x + (1 | h)")
    assert fit.converged
    # glmmTMB 1.1.5: 528.2522 is what it minimises to, in four printed decimals.
    assert fit.log_likelihood == pytest.approx(-528.2522, abs=1e-4)
