"""Intraclass correlations of unordered categories: of the latent variable of each, beside those of binomial models."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import lme4py
from lme4py.errors import OptionError

RNG = np.random.default_rng(8)
N = 200
G, H = np.repeat(np.arange(20), 10), np.arange(N) % 8
X = RNG.standard_normal(N)
_U = 1.3 * RNG.standard_normal((20, 2))[G]
_ETA = np.column_stack([np.zeros(N), 0.4 + 0.6 * X + _U[:, 0], -0.3 - 0.5 * X + 0.8 * _U[:, 1]])
Y = np.array(["A", "B", "C"])[(_ETA + RNG.gumbel(size=(N, 3))).argmax(axis=1)]
DATA = pd.DataFrame({"y": Y, "x": X, "g": G, "h": H})
REST = np.pi**2 / 3.0


@pytest.fixture(scope="module")
def fit():
    return lme4py.glmer("y ~ x + (1 | g)", DATA, family="multinomial")


def test_each_category_has_its_own(fit):
    covariance = fit.fit.covariances[0]
    table = fit.icc_table()
    assert table["component"].tolist() == ["B: _cons", "C: _cons"]
    np.testing.assert_allclose(table["estimate"], np.diag(covariance) / (np.diag(covariance) + REST), rtol=1e-12)
    for name in ("B", "B|g", "B: _cons", "B: _cons|g", "B: all"):
        assert fit.icc(name).estimate == pytest.approx(table["estimate"][0], rel=1e-12)
    fixed = np.var(fit.params["B: x"] * X, ddof=1)
    whole = fit.icc("B", adjusted=False).estimate
    assert whole == pytest.approx(covariance[0, 0] / (covariance[0, 0] + REST + fixed), rel=1e-12)
    replicates = fit.icc("C", n_boot=10, seed=1)
    assert 0.0 <= replicates.ci_lower < replicates.ci_upper <= 1.0


def test_standard_errors_are_those_of_standard_deviations(fit):
    # The first theta of an unstructured covariance is the standard deviation s of its first effect.
    s, error = fit.fit.theta[0], np.sqrt(fit.fit.parameter_vcov[0, 0])
    assert s == pytest.approx(np.sqrt(fit.fit.covariances[0][0, 0]), rel=1e-12)
    # d(s^2 / (s^2 + c)) = 2 s c / (s^2 + c)^2 ds: the delta method twice, exactly.
    assert fit.icc("B").se == pytest.approx(2.0 * s * REST / (s**2 + REST) ** 2 * error, rel=1e-8)


def test_random_slopes_are_taken_where_they_are_asked_for():
    fit = lme4py.glmer("y ~ x + (x | g)", DATA, family="multinomial")
    V = fit.fit.covariances[0]
    z = np.array([1.0, 2.0])
    own = z @ V[:2, :2] @ z
    assert fit.icc("B", at={"x": 2.0}).estimate == pytest.approx(own / (own + REST), rel=1e-10)
    columns = np.column_stack([np.ones(N), X])
    mean = float(np.sum(columns.T @ columns / N * V[2:, 2:]))
    assert fit.icc("C: all").estimate == pytest.approx(mean / (mean + REST), rel=1e-10)


def test_two_categories_are_the_binomial_model():
    data = DATA.assign(y=np.where(DATA["y"] == "A", "a", "b"))
    one, other = (lme4py.glmer("y ~ x + (1 | g) + (1 | h)", data, family) for family in ("multinomial", "binomial"))
    columns = ["estimate", "se", "ci_lower", "ci_upper"]
    # The same optimum, found twice.
    np.testing.assert_allclose(one.icc_table()[columns], other.icc_table()[columns], rtol=1e-4, atol=1e-6)
    assert one.icc("_cons|g").estimate == pytest.approx(other.icc("_cons|g").estimate, rel=1e-6)


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda fit: fit.icc(), "names no category"),
        (lambda fit: fit.icc("D"), "names no category"),
        (lambda fit: fit.icc("B: _cons|h"), "is no level of this model"),
        (lambda fit: fit.icc("B", variance="delta"), "variance='theoretical'"),
        (lambda fit: fit.r_squared(), "icc_table"),
    ],
)
def test_refusals(fit, ask, words):
    with pytest.raises(OptionError, match=words):
        ask(fit)
