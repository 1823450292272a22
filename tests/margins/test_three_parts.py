"""Hurdle counts whose mean, zeros and dispersion share their random effects: margins over all three at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import special

import lme4py

PARTS = ("conditional", "zero_inflation", "dispersion")


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    rng = np.random.default_rng(8)
    g, x = np.repeat(np.arange(24), 14), rng.normal(size=336)
    b = rng.multivariate_normal(np.zeros(3), [[0.3, 0.2, -0.15], [0.2, 0.6, 0.1], [-0.15, 0.1, 0.4]], 24)[g]
    mu, shape = np.exp(0.9 + 0.3 * x + b[:, 0]), np.exp(0.4 + b[:, 2])
    counts = np.maximum(rng.poisson(mu * rng.gamma(shape, 1.0 / shape)), 1)
    none = rng.random(336) < special.expit(-0.8 + 0.4 * x + b[:, 1])
    return pd.DataFrame({"g": g, "x": x, "y": np.where(none, 0, counts)})


@pytest.fixture(scope="module")
def fit(data: pd.DataFrame) -> Any:
    joined = "(1 | id | g)"
    parts = {"ziformula": f"~ x + {joined}", "dispformula": f"~ 1 + {joined}"}
    return lme4py.glmer(f"y ~ x + {joined}", data, family="truncated_nbinomial", **parts)


def moments(fit: Any, phi: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of a response of a new group, by 24 nodes in each of three directions."""
    m = fit.theta.size
    z, w = np.polynomial.hermite_e.hermegauss(24)
    nodes = np.stack(np.meshgrid(z, z, z, indexing="ij"), axis=-1).reshape(-1, 3)
    weights = np.einsum("i,j,k->ijk", w, w, w).ravel() / w.sum() ** 3
    b = nodes @ fit.fit.design.structures.factors(phi[:m])[0].T
    assert fit.fit.design.terms[0].column_parts == PARTS
    mu = np.exp(phi[m] + phi[m + 1] * x[:, None] + b[:, 0])
    pi = special.expit(phi[m + 2] + phi[m + 3] * x[:, None] + b[:, 1])
    shape = np.exp(phi[m + 4] + b[:, 2])
    positive = 1.0 - (shape / (shape + mu)) ** shape
    mean, square = (1.0 - pi) * mu / positive, (1.0 - pi) * (mu + mu**2 / shape + mu**2) / positive
    return mean @ weights, square @ weights - (mean @ weights) ** 2


def test_margins_are_integrals_over_three_parts(fit: Any) -> None:
    phi, x = np.concatenate([fit.theta, fit.params, fit.fit.lam]), np.array([-0.5, 0.5])

    def mean(phi: np.ndarray, x: np.ndarray = x) -> np.ndarray:
        return moments(fit, phi, x)[0]

    found = lme4py.Margins(fit, random="integrate", at="mean").predict({"x": x.tolist()})
    # Both rules have an error below this.
    np.testing.assert_allclose(found.estimate, mean(phi), rtol=1e-7)
    slopes = np.array([(mean(phi + 1e-4 * e) - mean(phi - 1e-4 * e)) / 2e-4 for e in np.eye(phi.size)])
    expected = np.sqrt(np.einsum("in,ij,jn->n", slopes, fit.fit.parameter_vcov, slopes))
    # Of central differences.
    np.testing.assert_allclose(found.std_error, expected, rtol=1e-5)
    slope = lme4py.Margins(fit, random="integrate", at="mean").dydx("x", atexog={"x": x.tolist()})
    np.testing.assert_allclose(slope.estimate, (mean(phi, x + 1e-4) - mean(phi, x - 1e-4)) / 2e-4, rtol=1e-6)


def test_variances_of_new_groups_have_limits_at_once(fit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    family = type(fit.fit.family)
    own = family.moment
    monkeypatch.setattr(family, "moment", lambda self, *given: calls.append(1) or own(self, *given))
    found = fit.predict(
        pd.DataFrame({"x": [-1.0, 0.5]}), type="variance", include_random="integrate", interval="confidence"
    )
    # Two for each block of nodes of 23 points, not two for each of thousands of nodes.
    assert len(calls) < 200
    phi = np.concatenate([fit.theta, fit.params, fit.fit.lam])
    # The rule of predictions is made for seven digits.
    np.testing.assert_allclose(found["predicted"], moments(fit, phi, np.array([-1.0, 0.5]))[1], rtol=1e-6)
    assert (found["lower"] < found["predicted"]).all()
