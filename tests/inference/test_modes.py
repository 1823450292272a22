"""Conditional covariances of the random effects."""

from __future__ import annotations

import numpy as np
import pytest
from dense_models import DESIGNS, blocks, dense
from scipy import linalg

import lme4py
from lme4py.fits.kinds import model_of


@pytest.mark.parametrize("include_fixed", [False, True])
@pytest.mark.parametrize("name", DESIGNS)
def test_equal_the_dense_covariance(name, include_fixed):
    """sigma^2 (Sigma - Sigma Z'V^-1Z Sigma), with P in place of V^-1 when beta is uncertain."""
    design = DESIGNS[name]
    fit = lme4py.lmm_fit(design)
    expected = dense(design, fit.theta)
    matrix = expected.conditional_all if include_fixed else expected.conditional
    found = model_of(fit).conditional_covariances(include_fixed=include_fixed)
    assert len(found) == len(design.terms)
    for ours, theirs in zip(found, blocks(design, expected.sigma**2 * matrix), strict=True):
        assert ours.shape == theirs.shape
        # The dense side subtracts matrices of order one.
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-9)


def test_sleepstudy_with_and_without_the_fixed_effects(sleep):
    """lme4's condVar takes beta as known; Stata's reses does not."""
    known, uncertain = (
        np.sqrt(np.diagonal(model_of(sleep.fit).conditional_covariances(include_fixed=f)[0], axis1=1, axis2=2))
        for f in (False, True)
    )
    # Balanced data: the same for every subject.  Published with four decimals, from optimisers that stop
    # where theta is right to 1e-5.
    np.testing.assert_allclose(known, np.tile([12.0709, 2.3048], (18, 1)), rtol=0, atol=1e-4)
    np.testing.assert_allclose(uncertain, np.tile([13.1002, 2.6392], (18, 1)), rtol=0, atol=1e-4)


def test_ranef_gives_lme4s_sds(sleep):
    _, sds = sleep.ranef(conditional_se=True)
    blocks_of_fit = model_of(sleep.fit).conditional_covariances()[0]
    np.testing.assert_allclose(sds, np.sqrt(np.diagonal(blocks_of_fit, axis1=1, axis2=2)), rtol=1e-14)  # one root
    assert list(sds.columns) == ["Intercept", "Days"]


@pytest.mark.parametrize("name", ["slope", "two terms on one factor", "nested chain and crossed", "weights and offset"])
def test_positive_and_smaller_than_the_prior(name):
    fit = lme4py.lmm_fit(DESIGNS[name])
    more = model_of(fit).conditional_covariances(include_fixed=True)
    for block, with_fixed, prior in zip(model_of(fit).conditional_covariances(), more, fit.covariances, strict=True):
        # Rounding against variances of order one.
        assert np.linalg.eigvalsh(block).min() > -1e-12
        assert np.linalg.eigvalsh(prior - block).min() > -1e-9
        assert np.linalg.eigvalsh(with_fixed - block).min() > -1e-12
        np.testing.assert_allclose(block, np.swapaxes(block, 1, 2), rtol=0, atol=1e-13)


def test_zero_variance_leaves_no_uncertainty():
    result = lme4py.lmer("Yield ~ 1 + (1 | Batch)", lme4py.load_dataset("Dyestuff2"))
    for include_fixed in (False, True):
        assert (model_of(result.fit).conditional_covariances(include_fixed=include_fixed)[0] == 0.0).all()


def test_more_rows_mean_less_uncertainty():
    rng = np.random.default_rng(0)
    codes = np.repeat([0, 1, 2, 3, 4, 5], [2, 4, 8, 16, 32, 64])
    y = 2 * rng.normal(size=6)[codes] + rng.normal(size=codes.size)
    fit = lme4py.lmer("y ~ 1 + (1 | g)", {"y": y, "g": codes}).fit
    variances = model_of(fit).conditional_covariances()[0][:, 0, 0]
    assert (np.diff(variances) < 0).all()
    # sigma^2 tau / (sigma^2 + n tau): rounding only.
    tau = fit.covariances[0][0, 0]
    n = np.bincount(codes)
    np.testing.assert_allclose(variances, fit.sigma**2 * tau / (fit.sigma**2 + n * tau), rtol=1e-11)


def test_units(sleepstudy):
    """Milliseconds to seconds: SDs scale, and lose no digits."""
    plain = lme4py.lmer("Reaction ~ Days + (Days | Subject)", sleepstudy)
    seconds = lme4py.lmer(
        "Reaction ~ Days + (Days | Subject)", sleepstudy.assign(Reaction=sleepstudy["Reaction"] / 1000)
    )
    a, b = model_of(plain.fit).conditional_covariances()[0], model_of(seconds.fit).conditional_covariances()[0]
    # The optimum is the same to 1e-8 of theta or better.
    np.testing.assert_allclose(b * 1e6, a, rtol=1e-7)


def test_ranef_with_the_fixed_effects(sleep):
    """Stata's reses through the public method."""
    modes, sds = sleep.ranef(conditional_se=True, include_fixed=True)
    # Published with four decimals.
    np.testing.assert_allclose(sds.iloc[0], [13.1002, 2.6392], rtol=0, atol=1e-4)
    np.testing.assert_array_equal(modes, sleep.ranef())


@pytest.mark.parametrize(
    "formula", ["n ~ x + (x | g)", "n ~ x + (1 | g) + (0 + x | g)", "n ~ x + (x | g) + (1 | h)", "n ~ 0 + (1 | g)"]
)
def test_generalised_models_with_the_fixed_effects(formula):
    """K + P V P' with dense K = (Z'WZ + Sigma^-1)^-1 and P = K Z'WX."""
    rng = np.random.default_rng(3)
    g, h, x = np.repeat(np.arange(15), 8), rng.integers(0, 5, 120), rng.normal(size=120)
    mean = np.exp(0.5 + 0.3 * x + 0.6 * rng.normal(size=15)[g] + 0.3 * rng.normal(size=15)[g] * x)
    data = {"n": rng.poisson(mean * np.exp(0.4 * rng.normal(size=5)[h])), "x": x, "g": g, "h": h}
    result = lme4py.glmer(formula, data, "poisson")
    fit = result.fit
    X, Z, w = fit.design.X, fit.design.Zt.T.toarray(), fit.fitted
    prior = linalg.block_diag(
        *[np.kron(np.eye(t.n_levels), cov) for t, cov in zip(fit.design.terms, fit.covariances, strict=True)]
    )
    K = np.linalg.inv(Z.T @ (w[:, None] * Z) + np.linalg.inv(prior))
    P = K @ Z.T @ (w[:, None] * X)
    expected = blocks(fit.design, K + P @ fit.vcov @ P.T)
    for ours, theirs in zip(model_of(fit).conditional_covariances(include_fixed=True), expected, strict=True):
        # The dense side inverts matrices of size 40.
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-9)
    for ours, theirs in zip(model_of(fit).conditional_covariances(), blocks(fit.design, K), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-9)
    sds = result.ranef(conditional_se=True, include_fixed=True)[1]
    first = next(iter(sds.values())) if isinstance(sds, dict) else sds
    assert (first.to_numpy() > 0).all()


def test_ordinal_models_with_the_thresholds():
    """Thresholds and fixed effects together move the modes: db = K Z'(ds/dalpha dalpha - W X dbeta)."""
    result = lme4py.clmm("rating ~ temp + contact + (1 | judge)", lme4py.load_dataset("wine"))
    fit = result.fit
    step = 1e-5
    X, Z = fit.design.X, fit.design.Zt.T.toarray()
    w = fit.family.derivatives(fit.data, fit.linear_predictor, fit.lam, 2).w_obs

    def score(alpha):
        return fit.family.derivatives(fit.data, fit.linear_predictor, alpha, 1).score

    slopes = [(score(fit.thresholds + step * e) - score(fit.thresholds - step * e)) / (2 * step) for e in np.eye(4)]
    K = np.linalg.inv(Z.T @ (w[:, None] * Z) + np.eye(9) / fit.covariances[0])
    moved = K @ Z.T @ np.column_stack([-w[:, None] * X, *slopes])
    expected = K + moved @ fit.parameter_vcov[1:, 1:] @ moved.T
    found = model_of(fit).conditional_covariances(include_fixed=True)[0][:, 0, 0]
    # Central differences.
    np.testing.assert_allclose(found, expected.diagonal(), rtol=1e-7)
