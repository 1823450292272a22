"""Influence of rows and groups on models of unordered categories, beside dense algebra and the binomial model."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import lme4py

RNG = np.random.default_rng(5)
N, D = 96, 2
G = np.repeat(np.arange(12), 8)
X = RNG.standard_normal(N)
_U = RNG.standard_normal((12, 2))[G]
_ETA = np.column_stack([np.zeros(N), 0.4 + 0.6 * X + _U[:, 0], -0.3 - 0.5 * X + 0.8 * _U[:, 1]])
DATA = pd.DataFrame({"y": np.array(list("ABC"))[(_ETA + RNG.gumbel(size=(N, 3))).argmax(axis=1)], "x": X, "g": G})


@pytest.fixture(scope="module")
def fit():
    return lme4py.glmer("y ~ x + (1 | g)", DATA, family="multinomial")


class _Dense:
    """The working model at the modes with its whole covariance matrix."""

    def __init__(self, fit):
        inner = fit.fit
        p = inner.problem
        Z = p.products.rows.toarray()
        root = np.kron(p.factor_T(inner.phi[: p.n_theta])[0], np.eye(12))
        probability = np.exp(np.vstack([np.zeros(N), inner.linear_predictor.reshape(D, N)]))
        probability = (probability / probability.sum(axis=0))[1:]
        blocks = [[np.diag(probability[d] * ((d == e) - probability[e])) for e in range(D)] for d in range(D)]
        W = np.block(blocks)
        shown = np.array([(DATA["y"] == label).to_numpy(float) for label in "BC"])
        self.z = inner.linear_predictor + np.linalg.solve(W, (shown - probability).ravel())
        self.V = np.linalg.inv(W) + Z @ root @ root.T @ Z.T
        self.W, self.X = W, inner.design.X

    def beta(self, rows):
        k = np.concatenate([d * N + rows for d in range(D)])
        inverse = np.linalg.inv(self.V[np.ix_(k, k)])
        S = np.linalg.inv(self.X[k].T @ inverse @ self.X[k])
        return S @ (self.X[k].T @ inverse @ self.z[k]), S


@pytest.mark.parametrize(
    ("group", "units", "labels"),
    [(None, (0, 7, 40), np.arange(N)), ("g", (3, 8), G), (np.arange(N) % 5, (0, 4), np.arange(N) % 5)],
)
def test_deletions_are_those_of_dense_algebra(fit, group, units, labels):
    found, dense = fit.influence(group), _Dense(fit)
    whole, S = dense.beta(np.arange(N))
    for unit in units:
        beta, less = dense.beta(np.flatnonzero(labels != unit))
        # The same equations by a factor and by inverses of matrices of condition up to 1e5.
        np.testing.assert_allclose(found.dfbeta.to_numpy()[unit], beta - whole, atol=1e-9)
        errors = np.sqrt(np.diag(less))
        np.testing.assert_allclose(found.dfbetas.to_numpy()[unit], (beta - whole) / errors, atol=1e-8)
        assert found.covratio.iloc[unit] == pytest.approx(np.linalg.det(less) / np.linalg.det(S), rel=1e-9)
    inverse = np.linalg.inv(dense.V)
    P = inverse - inverse @ dense.X @ S @ dense.X.T @ inverse
    hat = (1.0 - np.diag(np.linalg.solve(dense.W, P))).reshape(D, N).sum(axis=0)
    np.testing.assert_allclose(found.leverage, pd.Series(hat).groupby(labels).sum(), atol=1e-9)
    assert found.rstudent is None


def test_refits_without_a_group_are_fits_of_the_others(fit):
    found = fit.influence("g", method="refit")
    less = lme4py.glmer("y ~ x + (1 | g)", DATA[DATA["g"] != 4], family="multinomial")
    # Two searches for one optimum.
    np.testing.assert_allclose(found.fixef.iloc[4], less.params, atol=1e-5)
    step = fit.influence("g")
    assert np.corrcoef(step.dfbeta.to_numpy().ravel(), found.dfbeta.to_numpy().ravel())[0, 1] > 0.8  # near, no more
    assert "12 levels of g" in str(step.summary())


@pytest.mark.parametrize("counts", [False, True])
def test_two_categories_are_the_binomial_model(counts):
    if counts:
        data = pd.DataFrame({"a": RNG.integers(0, 4, N), "b": RNG.integers(0, 3, N), "x": X, "g": G})
        left, right = "cbind(a, b)", "cbind(b, a)"
    else:
        data, left, right = DATA.assign(y=np.where(DATA["y"] == "A", "a", "b")), "y", "y"
    one = lme4py.glmer(f"{left} ~ x + (1 | g)", data, "multinomial").influence()
    other = lme4py.glmer(f"{right} ~ x + (1 | g)", data, "binomial").influence()
    for name in ("dfbeta", "dfbetas", "cooks_fixed", "leverage", "covratio"):
        # The same working model, at optima that agree to 1e-8.
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-5, atol=1e-7)
