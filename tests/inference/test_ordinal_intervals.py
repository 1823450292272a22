"""Confidence limits of the probabilities of ordered categories, against R, dense algebra and the delta method."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import linalg, special, stats

import lme4py
from lme4py.errors import Lme4Warning
from lme4py.families.ordered.ordinal import make_ordinal
from lme4py.fits.rows.arrays import RowArrays
from lme4py.inference.prediction.ordinal import category_probabilities
from lme4py.inference.prediction.ordinal_intervals import probability_limits
from lme4py.inference.prediction.rows import make_rows

Z95 = stats.norm.ppf(0.975)


@pytest.fixture(scope="module")
def ratings() -> pd.DataFrame:
    rng = np.random.default_rng(12)
    n = 300
    x, g, h = rng.normal(size=n), rng.integers(0, 12, n), rng.integers(0, 7, n)
    latent = x + (0.9 * rng.normal(size=12) + 0.5 * np.outer(x, rng.normal(size=12)))[np.arange(n), g]
    latent += 0.5 * rng.normal(size=7)[h] + rng.logistic(size=n)
    y = pd.cut(latent, [-np.inf, -1.5, 0.0, 1.0, np.inf], labels=["a", "b", "c", "d"])
    return pd.DataFrame({"y": y, "x": x, "g": g, "h": h}, index=np.arange(n)[::-1])


FORMULA = "y ~ x + (x | g) + (1 | h)"


def logit_limits(p, se):
    return special.expit(special.logit(p) - Z95 * se), special.expit(special.logit(p) + Z95 * se)


def by_number(table, name):
    return table.xs(name, axis=1, level=1).to_numpy()


def test_without_variance_the_limits_are_those_of_r() -> None:
    wine = lme4py.load_dataset("wine").assign(g=np.arange(72) // 2 % 3)
    result = lme4py.clmm("rating ~ temp + contact + (1 | g)", wine)
    assert result.variance_components["var(_cons)"] == 0.0
    new = pd.DataFrame({"temp": ["cold", "warm"], "contact": ["no", "yes"], "g": [0, 1]}, index=["p", "q"])
    # predict(clm(rating ~ temp + contact, data = wine), new, interval = TRUE), printed with 8 decimals.
    lower = [
        [0.08644108, 0.39887109, 0.09609419, 0.00742903, 0.00159553],
        [0.00102654, 0.01994752, 0.17506663, 0.21512673, 0.13287400],
    ]
    upper = [
        [0.41802603, 0.7269447, 0.3477399, 0.07251284, 0.02728234],
        [0.02043158, 0.1370739, 0.4738928, 0.54356745, 0.48120233],
    ]
    for random in (True, False, "integrate"):
        table = result.predict(new, include_random=random, interval="confidence")
        # Both optimisers stop within 1e-6 of the estimates.
        np.testing.assert_allclose(by_number(table, "lower"), lower, atol=2e-6)
        np.testing.assert_allclose(by_number(table, "upper"), upper, atol=2e-6)


def test_layout(ratings) -> None:
    result = lme4py.clmm(FORMULA, ratings)
    new = ratings.head(4).assign(x=[0.1, np.nan, 0.3, -1.0])
    table = result.predict(new, interval="confidence")
    assert list(table.columns) == [(k, name) for k in "abcd" for name in ("predicted", "lower", "upper")]
    assert table.columns.names == ["y", None]
    assert table.index.equals(new.index)
    assert list(table["b"].columns) == ["predicted", "lower", "upper"]
    assert table.iloc[1].isna().all()
    assert table.iloc[[0, 2, 3]].notna().all(axis=None)
    np.testing.assert_array_equal(by_number(table, "predicted"), result.predict(new))
    narrow = result.predict(new, interval="confidence", alpha=0.5)
    assert (narrow["b"]["lower"] > table["b"]["lower"])[[True, False, True, True]].all()
    padded = lme4py.clmm(FORMULA, ratings.assign(x=ratings["x"].mask(ratings["x"] > 2)), na_action="exclude")
    limits = padded.predict(interval="confidence")
    assert limits.index.equals(ratings.index)
    assert limits.isna().all(axis=1).sum() == (ratings["x"] > 2).sum()


def test_groups_that_were_not_in_the_fit_add_their_variance(ratings) -> None:
    result = lme4py.clmm(FORMULA, ratings)
    new = pd.DataFrame({"x": [0.3], "g": [99], "h": [1]})
    with pytest.warns(Lme4Warning, match="g: 1 of 1 rows"):
        unknown = result.predict(new, type="cumulative", interval="confidence")
    own = result.predict(new, include_random=["h"], type="cumulative", interval="confidence")
    assert unknown["b"]["predicted"].iloc[0] == own["b"]["predicted"].iloc[0]
    term = {t.group: cov for t, cov in zip(result.fit.design.terms, result.fit.covariances, strict=True)}["g"]
    z = np.array([1.0, 0.3])
    wide, narrow = ((np.diff(special.logit(t["b"][["lower", "upper"]]))[0, 0] / (2 * Z95)) ** 2 for t in (unknown, own))
    assert wide - narrow == pytest.approx(z @ term @ z, rel=1e-8)


def test_the_last_cumulative_probability_is_certain(ratings) -> None:
    table = lme4py.clmm(FORMULA, ratings).predict(type="cumulative", interval="confidence")
    assert (table["d"] == 1.0).all(axis=None)
    assert (table["c"]["upper"] < 1.0).all()
    assert (table["a"]["lower"] > 0.0).all()


@pytest.mark.parametrize("link", ["logit", "probit", "cloglog", "loglog"])
@pytest.mark.parametrize("cumulative", [False, True])
def test_with_modes_the_covariance_is_that_of_dense_algebra(ratings, link, cumulative) -> None:
    """The inverse of the information in (thresholds, beta, u), thresholds and beta profiled as in the fit."""
    fit = lme4py.clmm(FORMULA, ratings, link=link).fit
    n, m, d = fit.design.n_obs, fit.theta.size, fit.thresholds.size
    Z = fit.design.Zt.T.toarray()
    terms = zip(fit.design.terms, fit.covariances, strict=True)
    prior = linalg.block_diag(*[np.kron(np.eye(t.n_levels), cov) for t, cov in terms])
    rows = make_rows(fit, None, range(2))
    step = 1e-5
    # Score of each row in eta, and its derivatives in eta and the thresholds, by differences.
    family = make_ordinal(link, "flexible", 4)

    def score(shift, thresholds):
        return fit.family.derivatives(fit.data, fit.linear_predictor + shift, thresholds, 1).score

    w = (score(-step, fit.lam) - score(step, fit.lam)) / (2 * step)
    cross = np.column_stack([(score(0, fit.lam + e) - score(0, fit.lam - e)) / (2 * step) for e in step * np.eye(d)])
    # A variance may be zero.
    K = prior @ np.linalg.inv(Z.T @ (w[:, None] * Z) @ prior + np.eye(len(prior)))
    gain = K @ Z.T @ np.column_stack([w[:, None] * fit.design.X, -cross])
    own = fit.parameter_vcov[m:, m:]
    moved = np.hstack([fit.design.X, np.zeros((n, d))]) - Z @ gain
    joint = np.empty((n, 1 + d, 1 + d))
    joint[:, 0, 0] = np.einsum("na,ab,nb->n", moved, own, moved) + np.einsum("na,ab,nb->n", Z, K, Z)
    joint[:, 0, 1:] = joint[:, 1:, 0] = (moved @ own)[:, fit.beta.size :]
    joint[:, 1:, 1:] = own[fit.beta.size :, fit.beta.size :]

    def probability(eta, thresholds):
        cut = np.column_stack([family.cumulative(eta, thresholds), np.ones(n)])
        return cut[:, :-1] if cumulative else np.diff(cut, axis=1, prepend=0.0)

    at = [np.eye(1 + d)[k] * step for k in range(1 + d)]
    slopes = np.stack(
        [
            (
                special.logit(probability(fit.linear_predictor + e[0], fit.thresholds + e[1:]))
                - special.logit(probability(fit.linear_predictor - e[0], fit.thresholds - e[1:]))
            )
            / (2 * step)
            for e in at
        ],
        axis=-1,
    )
    se = np.sqrt(np.einsum("nka,nab,nkb->nk", slopes, joint, slopes))
    lower, upper = probability_limits(fit, rows, Z95, cumulative=cumulative)
    p = probability(fit.linear_predictor, fit.thresholds)
    expected = logit_limits(p, se)
    # The logits of this side are differences of differences: they have few digits in the tails.
    inside = (p > 1e-6) & (p < 1.0 - 1e-6)
    assert inside.mean() > 0.9
    for one, two in zip((lower, upper), expected, strict=True):
        np.testing.assert_allclose(one[:, : p.shape[1]][inside], two[inside], rtol=1e-5)


@pytest.mark.parametrize("threshold", ["flexible", "symmetric", "equidistant"])
@pytest.mark.parametrize("cumulative", [False, True])
def test_averages_are_uncertain_in_theta_too(ratings, threshold, cumulative) -> None:
    fit = lme4py.clmm(FORMULA, ratings, threshold=threshold).fit
    rows = make_rows(fit, None, [], others=True)
    m, p = fit.theta.size, fit.beta.size
    n_events = 3 if cumulative else 4

    def logits(parameters):
        factors = fit.problem.structures.user.factors(parameters[:m])
        moved = replace(
            fit,
            family=make_ordinal("logit", "flexible", 4),
            theta=parameters[:m],
            beta=parameters[m : m + p],
            thresholds=parameters[m + p :],
            covariances=tuple(T @ T.T for T in factors),
        )
        return special.logit(category_probabilities(moved, rows, True, cumulative)[:, :n_events])

    at, step = np.concatenate([fit.theta, fit.beta, fit.thresholds]), 1e-5
    J = np.stack([(logits(at + e) - logits(at - e)) / (2 * step) for e in step * np.eye(at.size)], axis=-1)
    se = np.sqrt(np.einsum("nka,ab,nkb->nk", J, fit.parameter_vcov, J))
    found = probability_limits(fit, rows, Z95, average=True, cumulative=cumulative)
    for one, expected in zip(found, logit_limits(special.expit(logits(at)), se), strict=True):
        # Central differences; and the rule of 41 points, whose derivative in theta is exact to about 1e-8.
        np.testing.assert_allclose(one[:, :n_events], expected, atol=1e-7)


@pytest.mark.parametrize("link", ["logit", "probit", "cloglog", "loglog", "cauchit"])
def test_limits_stay_inside_far_away(ratings, link) -> None:
    fit = lme4py.clmm("y ~ x + (1 | g)", ratings, link=link).fit
    eta = np.array([-900.0, -60.0, -8.0, 0.0, 8.0, 60.0, 900.0])
    rows = RowArrays(np.ones((7, 1)), eta - fit.beta[0], {}, {}, None)
    p = category_probabilities(fit, rows)
    for cumulative in (False, True):
        lower, upper = probability_limits(fit, rows, Z95, cumulative=cumulative)
        assert np.isfinite(lower).all()
        assert np.isfinite(upper).all()
        assert (lower >= 0.0).all()
        assert (upper <= 1.0).all()
        if not cumulative:
            assert (lower <= p * (1 + 1e-9)).all()
            assert (upper >= p * (1 - 1e-9)).all()


@pytest.mark.parametrize("random", [False, "integrate"])
def test_slim_results_have_the_limits_that_need_no_rows(ratings, random) -> None:
    new = ratings.head(5)
    binary = lme4py.glmer("up ~ 1 + (x | g)", ratings.assign(up=(ratings["y"] > "b") * 1))
    for result in (lme4py.clmm(FORMULA, ratings), binary):
        slim = result.slim().predict(new, include_random=random, interval="confidence")
        np.testing.assert_array_equal(slim, result.predict(new, include_random=random, interval="confidence"))


def test_effect_plots_have_the_same_limits(ratings) -> None:
    result = lme4py.clmm(FORMULA, ratings)
    curve = result.plot_data("effect", "x", n_points=5)
    points = curve.loc[curve["category"] == "a", "x"].to_numpy()
    table = result.predict(pd.DataFrame({"x": points}), include_random=False, interval="confidence")
    for k in "abcd":
        own = curve.loc[curve["category"] == k, ["predicted", "lower", "upper"]]
        np.testing.assert_allclose(own, table[k], rtol=1e-12)
