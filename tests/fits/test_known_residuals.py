"""Residual variances and covariances that are known: meta-analyses beside metafor, and dense algebra."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pandas as pd
import pytest
from reference_data import REFERENCE, load_reference
from scipy import stats

import lme4py
from lme4py.errors import DataError, OptionError

META = json.loads((REFERENCE / "meta_rows.json").read_text())
BCG = load_reference("dat_bcg")
PLAIN, MODERATED = "yi ~ 1 + (1 | trial)", "yi ~ ablat + (1 | trial)"
V = np.diag(BCG["vi"])


@pytest.fixture(scope="module")
def moderated():
    return lme4py.lmer(MODERATED, BCG, residual=V, sigma=1)


def log_density(y, X, V, reml=False):
    """Dense algebra: the log-likelihood at the generalised least squares estimate, or lme4's REML criterion / -2."""
    W = np.linalg.inv(V)
    A = X.T @ W @ X
    r = y - X @ np.linalg.solve(A, X.T @ W @ y)
    value = np.linalg.slogdet(V)[1] + r @ W @ r + (len(y) - reml * X.shape[1]) * np.log(2 * np.pi)
    return -0.5 * (value + reml * np.linalg.slogdet(A)[1])


def test_a_known_covariance_of_the_rows():
    sd = np.sqrt(BCG["vi"].to_numpy())
    same = (BCG["alloc"].to_numpy()[:, None] == BCG["alloc"].to_numpy()) * 0.3
    V = np.outer(sd, sd) * (same + 0.7 * np.eye(len(BCG)))
    result = lme4py.lmer(MODERATED, BCG, residual=V, sigma=1)
    reference = META["mv"]
    # rma.mv stops at 1e-10 of the criterion.
    np.testing.assert_allclose(result.params, reference["beta"], rtol=1e-4)
    np.testing.assert_allclose(result.bse, reference["se"], rtol=1e-4)
    X = result.fit.design.X
    more = 0.5 * np.linalg.slogdet(X.T @ X)[1]
    assert result.log_likelihood + more == pytest.approx(reference["logLik"], abs=1e-7)
    labelled = pd.DataFrame(V, index=BCG.index, columns=BCG.index)
    order = np.random.default_rng(1).permutation(len(BCG))
    shuffled = lme4py.lmer(MODERATED, BCG.iloc[order], residual=labelled, sigma=1)
    assert shuffled.log_likelihood == pytest.approx(result.log_likelihood, abs=1e-10)
    # sigma=None estimates one factor of the whole matrix: the likelihood is at least as high.
    free = lme4py.lmer(MODERATED, BCG, residual=V, reml=False)
    known = lme4py.lmer(MODERATED, BCG, residual=V, sigma=free.sigma, reml=False)
    assert known.log_likelihood == pytest.approx(free.log_likelihood, abs=1e-9)


def test_rows_that_are_left_out_are_left_out_of_the_matrix():
    V = np.diag(BCG["vi"]) + 0.001
    holed = BCG.assign(ablat=BCG["ablat"].where(BCG.index != 3))
    kept = BCG.drop(index=3)
    result = lme4py.lmer(MODERATED, holed, residual=V, sigma=1)
    wanted = lme4py.lmer(MODERATED, kept, residual=np.delete(np.delete(V, 3, 0), 3, 1), sigma=1)
    assert result.log_likelihood == pytest.approx(wanted.log_likelihood, abs=1e-11)


@pytest.mark.parametrize("reml", [True, False])
def test_a_diagonal_matrix_is_the_same_as_weights(reml):
    rows = lme4py.lmer(MODERATED, BCG, residual=V, sigma=1, reml=reml)
    weights = lme4py.lmer(MODERATED, BCG, weights="1/vi", sigma=1, reml=reml)
    # Two engines, each certified to 1e-6 of the criterion or better.
    assert rows.log_likelihood == pytest.approx(weights.log_likelihood, abs=1e-8)
    np.testing.assert_allclose(rows.params, weights.params, rtol=1e-6)
    for ddf in ("knapp-hartung", "satterthwaite", "normal", *(["kenward-roger"] if reml else [])):
        np.testing.assert_allclose(rows.coef_table(ddf=ddf), weights.coef_table(ddf=ddf), rtol=1e-5)
    assert pytest.approx(weights.heterogeneity().I2, rel=1e-6) == rows.heterogeneity().I2
    tau2 = rows.fit.covariances[0][0, 0]
    dense = log_density(BCG["yi"].to_numpy(), rows.fit.design.X, V + tau2 * np.eye(len(BCG)), reml)
    assert rows.log_likelihood == pytest.approx(dense, abs=1e-10)


def test_without_random_effects_nothing_is_estimated_but_the_coefficients():
    result = lme4py.lmer("yi ~ 1", BCG, weights="1/vi", sigma=1, fixed_only=True)
    reference = META["equal"]
    assert result.params.iloc[0] == pytest.approx(reference["beta"], rel=1e-12)
    assert result.bse.iloc[0] == pytest.approx(reference["se"], rel=1e-12)
    assert result.fit.n_params == 1
    assert "Exact" in result.fit.certificate.verdict
    # (Q - 12) / Q: what of Q is beyond its degrees of freedom, as metafor's method="EE" has it.
    found = result.heterogeneity()
    assert pytest.approx(100.0 * (found.Q - 12.0) / found.Q, rel=1e-12) == found.I2


@pytest.mark.parametrize("factor", [1e-6, 1e5])
def test_units_play_no_role(moderated, factor):
    data = BCG.assign(yi=BCG["yi"] * factor, vi=BCG["vi"] * factor**2)
    result = lme4py.lmer(MODERATED, data, residual=np.diag(data["vi"]), sigma=1)
    # The sum of squares is as large as 1 / vi in other units; the certificate is in units of the criterion.
    np.testing.assert_allclose(result.params / factor, moderated.params, rtol=1e-8)
    np.testing.assert_allclose(result.fit.theta / factor, moderated.fit.theta, rtol=1e-6)
    half = lme4py.lmer(MODERATED, BCG, residual=4.0 * V, sigma=0.5)
    assert half.log_likelihood == pytest.approx(moderated.log_likelihood, abs=1e-10)


def test_what_is_known_has_no_error(moderated):
    limits = moderated.conf_int(parm="all")
    assert "sigma" not in limits.index
    assert "var(Residual)" not in moderated.variance_table().index
    assert moderated.sigma == 1.0


def test_after_the_fit(moderated):
    again = pickle.loads(pickle.dumps(moderated))
    assert again.log_likelihood == moderated.log_likelihood
    moved = moderated.refit(BCG["yi"] + 1.0)
    assert moved.params["Intercept"] == pytest.approx(moderated.params["Intercept"] + 1.0, abs=1e-8)
    samples = moderated.simulate(2000, seed=1).to_numpy()
    spread = BCG["vi"] + moderated.fit.covariances[0][0, 0]
    # 2,000 draws: a variance is known to 3 %; five standard errors.
    np.testing.assert_allclose(samples.var(axis=1), spread, rtol=0.16)


def test_tests_compare_models_of_the_same_variances_only():
    small = lme4py.lmer(PLAIN, BCG, residual=V, sigma=1, reml=False)
    large = lme4py.lmer(MODERATED, BCG, residual=V, sigma=1, reml=False)
    found = lme4py.lrtest(small, large)
    assert found.chi2 == pytest.approx(2 * (large.log_likelihood - small.log_likelihood))
    with pytest.raises(OptionError, match="not the same"):
        lme4py.lrtest(small, lme4py.lmer(MODERATED, BCG, residual=V, sigma=2, reml=False))
    with pytest.raises(OptionError, match="not the same"):
        lme4py.lrtest(small, lme4py.lmer(MODERATED, BCG, residual=2 * V, sigma=1, reml=False))
    plain = lme4py.lmer(PLAIN, BCG, weights="1/vi", sigma=1, reml=False)
    for sigma in (2, None):
        with pytest.raises(OptionError, match="known residual"):
            lme4py.lrtest(plain, lme4py.lmer("yi ~ ablat + (1 | alloc)", BCG, weights="1/vi", sigma=sigma, reml=False))


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"sigma": 0.0}, OptionError, "a positive number"),
        ({"sigma": "vi"}, OptionError, "inverses of sampling variances"),
        ({"sigma": True}, OptionError, "a positive number"),
        ({"sigma": 1, "residual": "ar1(1 | trial)"}, OptionError, "cannot go together"),
        ({"residual": np.eye(4), "sigma": 1}, DataError, "the data have 13 rows"),
        ({"residual": np.diag(BCG["vi"]) - 0.1, "sigma": 1}, DataError, "not positive definite"),
        ({"residual": np.diag(BCG["vi"]) + np.triu(np.ones((13, 13)), 1), "sigma": 1}, DataError, "not symmetric"),
        ({"residual": np.full((13, 13), np.nan), "sigma": 1}, DataError, "missing or infinite"),
        ({"residual": pd.DataFrame(np.eye(13), index=range(5, 18), columns=range(5, 18))}, DataError, "lack 5 label"),
    ],
)
def test_what_is_refused(options, error, words):
    with pytest.raises(error, match=words):
        lme4py.lmer(PLAIN, BCG, **options)


def test_forest(moderated, agg):
    result = lme4py.lmer(PLAIN, BCG, weights="1/vi", sigma=1)
    table = result.plot_data("forest")
    assert list(table["label"]) == [*BCG["trial"].astype(str), "pooled"]
    assert table["weight"].sum() == pytest.approx(1.0)
    half = stats.norm.ppf(0.975) * np.sqrt(BCG["vi"])
    np.testing.assert_allclose(table["upper"][:-1] - table["estimate"][:-1], half, rtol=1e-12)
    assert len(result.plot("forest").get_yticks()) == 14
    assert len(moderated.plot_data("forest")) == 13
