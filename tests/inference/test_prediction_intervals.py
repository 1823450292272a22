"""Limits of predicted means and of new observations, against dense algebra and numerical integrals."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from dense_models import DESIGNS, dense
from scipy import integrate, linalg, stats

import lme4py
from lme4py.errors import DataError, Lme4Warning, OptionError
from lme4py.families.registry import make_family
from lme4py.families.response import ResponseData
from lme4py.inference.diagnostics.leverage import hatvalues
from lme4py.inference.prediction.averages import averaged_mean
from lme4py.inference.prediction.predict import predict
from lme4py.inference.prediction.predictor import linear_predictor, random_variance
from lme4py.inference.prediction.response_quantiles import cumulative, mixed_quantiles
from lme4py.inference.prediction.rows import make_rows

Z95 = stats.norm.ppf(0.975)


def prior(fit):
    """Covariance of all random effects: terms, levels, columns."""
    terms = zip(fit.design.terms, fit.covariances, strict=True)
    return linalg.block_diag(*[np.kron(np.eye(term.n_levels), cov) for term, cov in terms])


def dense_variance(fit, x, z, w=None, vcov=None):
    """Variance of x'beta^ + z'b^ - x'beta - z'b for rows x and z, by the inverse of V; `w` are working weights."""
    X, Z = fit.design.X, fit.design.Zt.T.toarray()
    Sigma = prior(fit)
    scale = 1.0 if w is not None else fit.sigma**2
    if w is None:
        w = np.ones(X.shape[0]) if fit.design.weights is None else fit.design.weights
    V_inverse = np.linalg.inv(np.diag(scale / w) + Z @ Sigma @ Z.T)
    gain = Sigma @ Z.T @ V_inverse
    if vcov is None:
        vcov = np.linalg.inv(X.T @ V_inverse @ X) if X.shape[1] else np.zeros((0, 0))
    moved = x - z @ gain @ X
    K = Sigma - gain @ Z @ Sigma
    return np.einsum("ni,ij,nj->n", moved, vcov, moved) + np.einsum("ni,ij,nj->n", z, K, z)


def half_width(table):
    np.testing.assert_allclose(table["upper"] + table["lower"], 2 * table["predicted"], rtol=1e-10, atol=1e-10)
    return (table["upper"] - table["lower"]).to_numpy() / 2


@pytest.mark.parametrize("name", DESIGNS)
def test_linear_confidence_and_leverage_equal_dense_algebra(name):
    fit = lme4py.lmm_fit(DESIGNS[name])
    X, Z = fit.design.X, fit.design.Zt.T.toarray()
    expected = dense_variance(fit, X, Z)
    found = half_width(predict(fit, interval="confidence", ddf="normal"))
    # The dense side inverts a matrix of 160 rows.
    np.testing.assert_allclose(found, Z95 * np.sqrt(expected), rtol=1e-7)
    w = np.ones(X.shape[0]) if fit.design.weights is None else fit.design.weights
    np.testing.assert_allclose(hatvalues(fit), w * expected / fit.sigma**2, rtol=1e-7, atol=1e-12)
    observation = half_width(predict(fit, interval="prediction", alpha=0.1, ddf="normal"))
    np.testing.assert_allclose(observation, stats.norm.ppf(0.95) * np.sqrt(expected + fit.sigma**2 / w), rtol=1e-7)


@pytest.mark.parametrize("name", ["crossed, slopes", "nested chain and crossed", "two terms on one factor", "weights"])
def test_parts_of_the_random_effects(name):
    fit = lme4py.lmm_fit(DESIGNS[name])
    design = fit.design
    group = design.terms[-1].group
    ends = np.cumsum([term.n_levels * term.n_columns for term in design.terms])
    starts = np.concatenate([[0], ends[:-1]])
    z = design.Zt.T.toarray()
    for term, a, b in zip(design.terms, starts, ends, strict=True):
        if term.group != group:
            z[:, a:b] = 0.0
    expected = dense_variance(fit, design.X, z)
    found = half_width(predict(fit, include_random=[group], interval="confidence", ddf="normal"))
    np.testing.assert_allclose(found, Z95 * np.sqrt(expected), rtol=1e-7)  # as above
    new = sum(
        np.einsum("na,ab,nb->n", t.values, cov, t.values)
        for t, cov in zip(design.terms, fit.covariances, strict=True)
        if t.group != group
    )
    w = np.ones(design.n_obs) if design.weights is None else design.weights
    found = half_width(predict(fit, include_random=[group], interval="prediction", ddf="normal"))
    np.testing.assert_allclose(found, Z95 * np.sqrt(expected + new + fit.sigma**2 / w), rtol=1e-7)


def test_leverages_are_the_map_from_responses_to_fitted_values():
    fit = lme4py.lmm_fit(DESIGNS["crossed, slopes"])
    design = fit.design
    base = dense(design, fit.theta)
    for row in (0, 77):
        moved = dense(replace(design, y=design.y + np.eye(design.n_obs)[row]), fit.theta)
        effects = np.concatenate([b.ravel() for b in moved.modes]) - np.concatenate([b.ravel() for b in base.modes])
        change = design.X[row] @ (moved.beta - base.beta) + design.Zt.T.toarray()[row] @ effects
        # Differences of linear functions: rounding only.
        assert hatvalues(fit)[row] == pytest.approx(change, abs=1e-9)


@pytest.fixture(scope="module")
def gaps():
    """Crossed factors of which many pairs never occur together, with weights and a slope."""
    rng = np.random.default_rng(5)
    n = 240
    a = rng.integers(0, 14, n)
    b = (a + rng.integers(0, 3, n)) % 9
    x = rng.normal(size=n)
    y = 1 + x + rng.normal(size=14)[a] + 0.5 * rng.normal(size=14)[a] * x + rng.normal(size=9)[b] + rng.normal(size=n)
    w = rng.uniform(0.5, 2.0, n)
    count = rng.poisson(np.exp(0.3 + 0.2 * x + 0.4 * rng.normal(size=14)[a] + 0.3 * rng.normal(size=9)[b]))
    return pd.DataFrame({"y": y, "x": x, "a": [f"a{i:02d}" for i in a], "b": [f"b{i}" for i in b], "w": w, "n": count})


def new_rows():
    return pd.DataFrame(
        {"x": [0.1, -1.0, 2.0], "a": ["a00", "a03", "a13"], "b": ["b8", "b0", "b8"], "w": [1.0, 2.0, 0.5]},
        index=["p", "q", "r"],
    )


def columns_of(fit, new):
    """x and z of new rows, dense."""
    x = np.column_stack([np.ones(len(new)), new["x"]])
    parts = []
    for term in fit.design.terms:
        one = np.array([[level == own for level in term.levels] for own in new[term.group]], dtype=float)
        values = x[:, :1] if term.n_columns == 1 else x
        parts.append((one[:, :, None] * values[:, None, :]).reshape(len(new), -1))
    return x, np.hstack(parts)


def test_pairs_of_levels_that_never_met(gaps):
    result = lme4py.lmer("y ~ x + (x | a) + (1 | b)", gaps, weights="w")
    new = new_rows()
    pairs = set(zip(gaps["a"], gaps["b"], strict=True))
    assert not pairs & set(zip(new["a"], new["b"], strict=True))
    expected = dense_variance(result.fit, *columns_of(result.fit, new))
    table = result.predict(new, interval="confidence", ddf="normal")
    assert list(table.columns) == ["predicted", "lower", "upper"]
    assert list(table.index) == ["p", "q", "r"]
    np.testing.assert_allclose(half_width(table), Z95 * np.sqrt(expected), rtol=1e-8)  # dense inverse
    # Prior weights of the new rows come from the column that the fit used, or are given.
    for weights in (None, "w", [1.0, 2.0, 0.5]):
        found = half_width(result.predict(new, interval="prediction", weights=weights, ddf="normal"))
        np.testing.assert_allclose(found, Z95 * np.sqrt(expected + result.sigma**2 / new["w"]), rtol=1e-8)


def test_new_levels_are_uncertain_by_their_variance(gaps):
    result = lme4py.lmer("y ~ x + (x | a) + (1 | b)", gaps)
    new = new_rows().assign(a=["a00", "other", None])
    with pytest.warns(Lme4Warning, match=r"a: 2 of 3 rows"):
        confidence = result.predict(new, interval="confidence", ddf="normal")
    with pytest.warns(Lme4Warning, match="a: 2 of 3 rows"):
        observation = result.predict(new, interval="prediction", ddf="normal")
    x, z = columns_of(result.fit, new)
    variance = dense_variance(result.fit, x, z)
    cov = next(c for t, c in zip(result.fit.design.terms, result.fit.covariances, strict=True) if t.group == "a")
    variance[1:] += np.einsum("na,ab,nb->n", x, cov, x)[1:]
    np.testing.assert_allclose(half_width(confidence), Z95 * np.sqrt(variance), rtol=1e-8)  # dense inverse
    np.testing.assert_allclose(half_width(observation), Z95 * np.sqrt(variance + result.sigma**2), rtol=1e-8)
    with pytest.raises(DataError, match="2 of 3 rows"):
        result.predict(new, interval="confidence", new_levels="error")


def test_fixed_effects_alone(sleep):
    new = pd.DataFrame({"Days": [0.0, 20.0]})
    X = np.column_stack([np.ones(2), new["Days"]])
    V = sleep.cov_params().to_numpy()
    variance = np.einsum("ni,ij,nj->n", X, V, X)
    for choice in (False, [], "integrate"):
        table = sleep.predict(new, include_random=choice, interval="confidence", ddf="normal")
        np.testing.assert_allclose(half_width(table), Z95 * np.sqrt(variance), rtol=1e-12)  # the same formula
    group = np.einsum("ni,ij,nj->n", X, sleep.fit.covariances[0], X)
    found = half_width(sleep.predict(new, include_random=False, interval="prediction", ddf="normal"))
    np.testing.assert_allclose(found, Z95 * np.sqrt(variance + group + sleep.sigma**2), rtol=1e-12)


def test_rows_with_missing_values(sleep, sleepstudy):
    new = sleepstudy.head(4).copy()
    new.loc[1, "Days"] = np.nan
    table = sleep.predict(new, interval="prediction")
    assert table.isna().all(axis=1).tolist() == [False, True, False, False]
    whole = sleep.predict(sleepstudy.head(4), interval="prediction")
    np.testing.assert_allclose(table.loc[[0, 2, 3]], whole.loc[[0, 2, 3]], rtol=1e-12)


def test_excluded_rows_are_padded():
    data = lme4py.load_dataset("sleepstudy").set_index(pd.Index(range(1000, 1180)))
    data.loc[1003, "Reaction"] = np.nan
    result = lme4py.lmer("Reaction ~ Days + (Days | Subject)", data, na_action="exclude")
    table = result.predict(interval="confidence")
    assert table.index.equals(data.index)
    assert table.isna().all(axis=1).sum() == 1
    assert np.isnan(result.hatvalues().loc[1003])


# -- generalised models -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("formula", "family", "link"),
    [
        ("n ~ x + (1 | a) + (1 | b)", "poisson", None),
        ("n ~ x + (x | a) + (1 | b)", "nbinomial", None),
        ("I(n > 1) ~ x + (x | a)", "binomial", "probit"),
    ],
)
@pytest.mark.parametrize("hessian", ["observed", "expected"])
def test_generalised_confidence_equals_dense_algebra(gaps, formula, family, link, hessian):
    with warnings.catch_warnings():
        # Some of these fits are singular.
        warnings.simplefilter("ignore")
        result = lme4py.glmer(formula, gaps, family, link=link, hessian=hessian)
    fit = result.fit
    rows = fit.family.derivatives(fit.data, fit.linear_predictor, fit.lam, 2)
    w = rows.w_exp if hessian == "expected" else rows.w_obs
    X, Z = fit.design.X, fit.design.Zt.T.toarray()
    expected = dense_variance(fit, X, Z, w, fit.vcov)
    table = result.predict(type="linear", interval="confidence")
    # The dense side inverts a matrix of 240 rows.
    np.testing.assert_allclose(half_width(table), Z95 * np.sqrt(expected), rtol=1e-6)
    means = result.predict(interval="confidence")
    for name in ("lower", "upper"):
        np.testing.assert_allclose(means[name], fit.family.mean(table[name].to_numpy()), rtol=1e-12)
    new = new_rows()
    expected = dense_variance(fit, *columns_of(fit, new), w, fit.vcov)
    np.testing.assert_allclose(
        half_width(result.predict(new, type="linear", interval="confidence")), Z95 * np.sqrt(expected), rtol=1e-6
    )
    # Leverages have the expected weights and the fixed effects of the working model.
    working = dense_variance(fit, X, Z, rows.w_exp)
    np.testing.assert_allclose(hatvalues(fit), rows.w_exp * working, rtol=1e-6)


def test_averaged_means_by_differences(gaps):
    """The delta method against derivatives by central differences of the averaged mean in theta and beta."""
    result = lme4py.glmer("n ~ x + (1 | a) + (1 | b)", gaps, "poisson")
    fit = result.fit
    rows = make_rows(fit, None, [], others=True)

    def mean(parameters):
        theta, beta = parameters[:2], parameters[2:]
        covariances = tuple(np.array([[t**2]]) for t in theta)
        moved = replace(fit, beta=beta, covariances=covariances)
        return averaged_mean(moved.family.link, linear_predictor(moved, rows), random_variance(moved, rows)).f

    at = np.concatenate([fit.theta, fit.beta])
    step = 1e-6
    slopes = np.array([(mean(at + step * e) - mean(at - step * e)) / (2 * step) for e in np.eye(at.size)])
    log_se = np.sqrt(np.einsum("in,ij,jn->n", slopes, fit.parameter_vcov, slopes)) / mean(at)
    table = result.predict(include_random="integrate", interval="confidence")
    np.testing.assert_allclose(table["predicted"], mean(at), rtol=1e-10)
    # Central differences are exact to about 1e-9 here.
    np.testing.assert_allclose(np.log(table["upper"] / table["predicted"]), Z95 * log_se, rtol=1e-6)
    np.testing.assert_allclose(np.log(table["lower"] / table["predicted"]), -Z95 * log_se, rtol=1e-6)


FAMILIES = [
    ("poisson", None, "n"),
    ("nbinomial", None, "n"),
    ("nbinomial1", "log", "n"),
    ("gamma", "log", "positive"),
    ("inverse_gaussian", "log", "positive"),
    ("gaussian", "identity", "y"),
    ("gaussian", "log", "positive"),
]


@pytest.fixture(scope="module")
def family_fits(gaps):
    data = gaps.assign(positive=np.exp(0.3 * gaps["y"]) + 0.2)
    with warnings.catch_warnings():
        # The optimum does not matter here, only that there is a fit.
        warnings.simplefilter("ignore")
        return {
            (family, link): lme4py.glmer(f"{y} ~ x + (1 | a)", data, family, link=link).fit
            for family, link, y in FAMILIES
        }


@pytest.mark.parametrize("variance", [1e-10, 0.05, 1.5])
@pytest.mark.parametrize(("family", "link", "y"), FAMILIES)
def test_quantiles_of_mixed_responses(family_fits, family, link, y, variance):
    """The distribution function at the limits, by adaptive integration."""
    fit = family_fits[family, link]
    eta = np.array([-0.5, 0.7, 2.5])
    data = ResponseData(np.zeros(3))
    s = np.sqrt(variance)

    def probability(value, i):
        def integrand(z):
            at = np.array([eta[i] + s * z])
            return float(cumulative(fit, np.array([value]), at, ResponseData(np.zeros(1)))[0]) * stats.norm.pdf(z)

        turn = np.clip((np.log(max(value, 0.3)) - eta[i]) / s, -7.9, 7.9)
        points = np.unique(np.clip([turn - 0.5, turn, turn + 0.5, 0.0], -7.9, 7.9))
        return integrate.quad(integrand, -8, 8, points=points, limit=400)[0]

    for level in (0.025, 0.975):
        found = mixed_quantiles(fit, eta, np.full(3, variance), data, level)
        for i in range(3):
            if y == "n":
                # The smallest count that reaches the level; 1e-6 for the quadrature of both sides.
                assert probability(found[i], i) >= level - 1e-6
                assert found[i] == 0 or probability(found[i] - 1, i) < level + 1e-6
            else:
                assert probability(found[i], i) == pytest.approx(level, abs=1e-6)


def test_quantiles_of_many_kinds_of_rows(family_fits):
    """Each limit of a count is the smallest that reaches its level, from tiny means to huge ones."""
    rng = np.random.default_rng(8)
    eta, variance = rng.uniform(-8, 8, 400), 10.0 ** rng.uniform(-8, 0, 400)
    rows = ResponseData(np.zeros(400))
    for family in ("poisson", "nbinomial"):
        fit = family_fits[family, None]
        for level in (0.005, 0.5, 0.975):
            found = mixed_quantiles(fit, eta, variance, rows, level)
            assert (found == np.rint(found)).all()
            # The two rules agree to 1e-7.
            assert (_reached(fit, eta, variance, found) >= level - 1e-6).all()
            below = _reached(fit, eta, variance, found - 1.0)
            assert ((found == 0) | (below < level + 1e-6)).all()


def _reached(fit, eta, variance, value):
    """Probability of at most `value` by the trapezium rule over the normal variable, whose error falls faster than any
    power of the step once the step is a fifth of the width over which the distribution function rises."""
    s = np.sqrt(variance)
    width = 1.0 / (s * np.sqrt(np.maximum(value, 1.0)))
    out = np.empty(eta.size)
    for n, chosen in ((2_001, width > 0.05), (20_001, width <= 0.05)):
        z = np.linspace(-9, 9, n)[:, None]
        w = stats.norm.pdf(z) * (z[1] - z[0])
        rows = ResponseData(np.zeros(int(chosen.sum())))
        out[chosen] = (w * cumulative(fit, value[chosen], eta[chosen] + s[chosen] * z, rows)).sum(axis=0)
    return out


def test_a_limit_that_no_number_reaches(family_fits):
    """A mean that grows without limit: the upper limit is infinite, and found as such."""
    fit = replace(family_fits["gamma", "log"], family=make_family("gamma", "inverse"))
    rows = ResponseData(np.zeros(1))
    assert mixed_quantiles(fit, np.array([0.1]), np.array([4.0]), rows, 0.975)[0] == np.inf
    assert np.isfinite(mixed_quantiles(fit, np.array([0.1]), np.array([4.0]), rows, 0.3)[0])


def test_large_counts_and_many_trials():
    """Where the response is far narrower than the linear predictor the limits are those of the mean."""
    rng = np.random.default_rng(2)
    g = np.repeat(np.arange(30), 6)
    eta = 9.0 + 0.5 * rng.normal(size=30)[g]
    data = pd.DataFrame({"g": g, "n": rng.poisson(np.exp(eta))})
    result = lme4py.glmer("n ~ 1 + (1 | g)", data, "poisson")
    table = result.predict(pd.DataFrame({"g": [0]}), include_random=False, interval="prediction")
    sd = np.sqrt(result.fit.covariances[0][0, 0] + result.fit.vcov[0, 0])
    assert np.log(table["upper"][0]) == pytest.approx(result.params.iloc[0] + Z95 * sd, abs=1e-3)
    assert np.log(table["lower"][0]) == pytest.approx(result.params.iloc[0] - Z95 * sd, abs=1e-3)


@pytest.fixture(scope="module")
def cbpp():
    return lme4py.load_dataset("cbpp")


@pytest.fixture(scope="module")
def result(cbpp):
    return lme4py.glmer("cbind(incidence, size - incidence) ~ period + (1 | herd)", cbpp)


class TestTrials:
    def test_limits_are_attainable_proportions(self, result, cbpp):
        table = result.predict(interval="prediction")
        for name in ("lower", "upper"):
            counts = table[name] * cbpp["size"]
            np.testing.assert_allclose(counts, np.rint(counts), atol=1e-9)
        assert (table["lower"] <= table["predicted"]).all()
        assert (table["upper"] >= table["predicted"]).all()

    def test_new_rows_bring_their_trials(self, result, cbpp):
        whole = result.predict(interval="prediction")
        pd.testing.assert_frame_equal(result.predict(cbpp, interval="prediction"), whole)
        bare = cbpp[["period", "herd", "size"]]
        with pytest.raises(OptionError, match="number of trials"):
            result.predict(bare, interval="prediction")
        pd.testing.assert_frame_equal(result.predict(bare, interval="prediction", weights="size"), whole)
        with pytest.raises(DataError, match="whole numbers above 0"):
            result.predict(bare, interval="prediction", weights=np.full(len(bare), 2.5))

    def test_proportions_with_weights(self, result, cbpp):
        data = cbpp.assign(p=cbpp["incidence"] / cbpp["size"])
        other = lme4py.glmer("p ~ period + (1 | herd)", data, weights="size")
        found = other.predict(data.drop(columns=["p", "incidence"]), interval="prediction")
        pd.testing.assert_frame_equal(found, result.predict(interval="prediction"), rtol=1e-6)


def test_an_inverse_link_turns_the_limits():
    data = lme4py.load_dataset("sleepstudy")
    result = lme4py.glmer("Reaction ~ Days + (1 | Subject)", data, "gamma", link="inverse")
    table = result.predict(interval="confidence")
    assert (table["lower"] < table["predicted"]).all()
    assert (table["predicted"] < table["upper"]).all()
    wide = result.predict(interval="prediction")
    assert (wide["lower"] < table["lower"]).all()
    assert (wide["upper"] > table["upper"]).all()


class TestRefusals:
    def test_weights_that_were_an_array(self, gaps):
        result = lme4py.lmer("y ~ x + (1 | a)", gaps, weights=gaps["w"].to_numpy())
        with pytest.raises(OptionError, match="weights="):
            result.predict(new_rows(), interval="prediction")
        assert result.predict(new_rows(), interval="confidence").notna().all(axis=None)

    def test_bad_weights(self, gaps):
        result = lme4py.lmer("y ~ x + (1 | a)", gaps, weights="w")
        with pytest.raises(DataError, match="the weights 'w' hold 1 zero value"):
            result.predict(new_rows().assign(w=[1.0, 0.0, 1.0]), interval="prediction")

    def test_a_new_observation_has_no_linear_predictor(self, gaps):
        result = lme4py.glmer("n ~ x + (1 | a)", gaps, "poisson")
        with pytest.raises(OptionError, match="type='response'"):
            result.predict(type="linear", interval="prediction")

    @pytest.mark.parametrize("alpha", [0.0, 1.0, "x"])
    def test_alpha(self, sleep, alpha):
        with pytest.raises(OptionError, match="alpha"):
            sleep.predict(interval="confidence", alpha=alpha)

    def test_unknown_interval(self, sleep):
        with pytest.raises(OptionError, match="Did you mean 'confidence'"):
            sleep.predict(interval="confidense")


def test_a_variance_that_is_hardly_estimated_has_no_limits(exact_process):
    # An ar1 process of unit variance without noise of measurement: predictions at the modes are the data, and the
    # variance of their error is a residual variance of nearly zero, with about .003 degrees of freedom.
    with pytest.warns(Lme4Warning, match="The residual variance goes to zero"):
        result = lme4py.lmer("y ~ x + ar1(0 + t | g)", exact_process)
    without = lme4py.lmer("y ~ x + ar1(0 + t | g)", exact_process, dispformula="~ 0")
    assert result.converged
    # The criterion is within 1e-4 of its limit, which the warning says.
    np.testing.assert_allclose(result.log_likelihood, without.log_likelihood, atol=1e-4)
    with pytest.warns(Lme4Warning, match=r"90 of 90 intervals have no limits .* degrees of freedom"):
        found = result.predict(interval="confidence")
    assert found["predicted"].notna().all()
    assert found[["lower", "upper"]].isna().all(axis=None)
    assert result.predict(interval="confidence", ddf="normal").notna().all(axis=None)


@pytest.fixture
def exact_process():
    rng = np.random.default_rng(1)
    noise = rng.normal(size=(15, 6))
    process = noise.copy()
    for k in range(1, 6):
        process[:, k] = 0.7 * process[:, k - 1] + np.sqrt(0.51) * noise[:, k]
    x = rng.normal(size=90)
    columns = {"x": x, "y": 1.0 + 0.3 * x + process.ravel(), "g": np.repeat(np.arange(15), 6)}
    return pd.DataFrame(columns | {"t": np.tile(np.arange(6), 15).astype(str)})
