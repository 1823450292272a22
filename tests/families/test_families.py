"""Every family and link: densities against SciPy, derivatives against differences, weights against expectations."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from scipy import stats
from scipy.special import erfcx

from lme4py.errors import OptionError
from lme4py.families.links import PROBABILITY_LINKS, LogMean, PowerMean
from lme4py.families.registry import FAMILIES, make_family
from lme4py.families.response import ResponseData
from lme4py.families.special import log1p_minus, log_rising, log_shape, nb1_information

PAIRS = [(name, link) for name, (_, links) in FAMILIES.items() for link in links]
EVERY = pytest.mark.parametrize(("name", "link"), PAIRS)
COUNTS = ("poisson", "nbinomial", "nbinomial1")
LAMBDAS = (-3.0, 0.4, 3.0)
ORDERS = {0: ("loglik",), 1: ("score",), 2: ("w_obs", "w_exp", "w_work"), 3: ("dw_obs", "dw_exp")}
LAMBDA_PARTS = ("d_lam", "score_lam", "w_obs_lam", "w_exp_lam")


def inside(name, link):
    """Whether means are between 0 and 1."""
    return name == "binomial" or link == "logit"


def rows(name, link="", n=60, weighted=True, seed=0):
    """Responses that vary around a mean, and that mean; both in the inside of every link's range."""
    rng = np.random.default_rng(seed)
    weights = rng.uniform(0.5, 2.0, n) if weighted else None
    if name == "binomial":
        mu, trials = rng.uniform(0.05, 0.95, n), rng.integers(0, 8, n)
        return ResponseData(rng.binomial(trials, mu).astype(float), trials.astype(float), weights), mu
    if inside(name, link):
        mu = rng.uniform(0.05, 0.95, n)
        return ResponseData(rng.normal(mu, 0.5), None, weights), mu
    mu = rng.uniform(0.3, 6.0, n)
    y = rng.poisson(mu).astype(float) if name in COUNTS else rng.gamma(3.0, mu / 3.0)
    return ResponseData(y, None, weights), mu


def lambdas(family):
    return LAMBDAS if family.n_dispersion else (0.0,)


def slope(function, x, h):
    """Central difference of order h^6."""
    parts = [c * (function(x + k * h) - function(x - k * h)) for k, c in ((1, 45.0), (2, -9.0), (3, 1.0))]
    return sum(parts) / (60.0 * h)


def reference_logpdf(name, data, mu, lam):
    y, w, value = data.y, data.weight, np.exp(lam)
    return {
        "binomial": lambda: w * stats.binom.logpmf(y, data.n_trials, mu),
        "poisson": lambda: w * stats.poisson.logpmf(y, mu),
        "gaussian": lambda: stats.norm.logpdf(y, mu, np.sqrt(value / w)),
        "gamma": lambda: stats.gamma.logpdf(y, w / value, scale=mu * value / w),
        "inverse_gaussian": lambda: stats.invgauss.logpdf(y, mu * value / w, scale=w / value),
        "nbinomial": lambda: w * stats.nbinom.logpmf(y, value, value / (value + mu)),
        "nbinomial1": lambda: w * stats.nbinom.logpmf(y, mu / value, 1.0 / (1.0 + value)),
    }[name]()


@EVERY
def test_log_likelihood_is_the_log_density(name, link):
    family = make_family(name, link)
    data, mu = rows(name, link)
    eta = family.eta_of(mu)
    # A link and its inverse lose a few units in the last place.
    np.testing.assert_allclose(family.mean(eta), mu, rtol=1e-13)
    for lam in lambdas(family):
        # SciPy's densities carry errors of some 1e-12 themselves (differences of log-gamma functions).
        np.testing.assert_allclose(
            family.loglik(data, eta, lam), reference_logpdf(name, data, mu, lam), rtol=1e-10, atol=1e-10
        )


@EVERY
def test_derivatives_in_eta(name, link):
    family = make_family(name, link)
    data, mu = rows(name, link)
    eta = family.eta_of(mu)
    # Near a bound the functions bend on the scale of the distance to it: the step stays well inside.
    h = np.minimum(1e-3, 0.02 * np.minimum(np.abs(eta), np.abs(family.link.high - eta)))
    for lam in lambdas(family):
        full = family.derivatives(data, eta, lam)
        for part, order, lower, sign in (
            ("score", 0, "loglik", 1.0),
            ("w_obs", 1, "score", -1.0),
            ("dw_obs", 2, "w_obs", 1.0),
            ("dw_exp", 2, "w_exp", 1.0),
        ):
            numeric = sign * slope(
                lambda e, x=lam, o=order, p=lower: getattr(family.derivatives(data, e, x, o), p), eta, h
            )
            # Rounding of the lower derivative over a step of 1e-3 or less, and h^6 truncation.
            np.testing.assert_allclose(getattr(full, part), numeric, rtol=1e-6, atol=1e-8, err_msg=part)


@pytest.mark.parametrize(("name", "link"), [p for p in PAIRS if make_family(*p).n_dispersion])
def test_derivatives_in_lambda(name, link):
    family = make_family(name, link)
    data, mu = rows(name, link)
    eta = family.eta_of(mu)
    for lam in LAMBDAS:
        full = family.derivatives(data, eta, lam)
        for part, lower in zip(LAMBDA_PARTS, ("loglik", "score", "w_obs", "w_exp"), strict=True):
            numeric = slope(lambda x, p=lower: getattr(family.derivatives(data, eta, x), p), lam, 1e-2)
            # h^6 truncation at h = 0.01 is 1e-12, rounding 1e-12 relative to the largest terms.
            np.testing.assert_allclose(getattr(full, part), numeric, rtol=1e-7, atol=1e-8, err_msg=part)


@EVERY
def test_expected_weight_is_the_mean_of_the_observed_one(name, link):
    family = make_family(name, link)
    mu = 0.7 if inside(name, link) else 1.6
    for lam in (-1.0, 0.5) if family.n_dispersion else (0.0,):
        y, volume, trials = support(family, mu, lam)
        data = ResponseData(y, trials)
        d = family.derivatives(data, np.full(y.size, float(family.eta_of(np.array(mu)))), lam)
        mass = volume * np.exp(d.loglik)
        # The grid and the cut tails leave 1e-9.
        assert mass.sum() == pytest.approx(1.0, abs=1e-8)
        assert mass @ d.score == pytest.approx(0.0, abs=1e-7)
        assert mass @ d.w_obs == pytest.approx(d.w_exp[0], rel=1e-7)
        assert mass @ d.score**2 == pytest.approx(d.w_exp[0], rel=1e-7)


def support(family, mu, lam):
    """Points of the sample space, their volumes, and the numbers of trials."""
    if family.name == "binomial":
        return np.arange(8.0), np.ones(8), np.full(8, 7.0)
    if family.name in COUNTS:
        return np.arange(400.0), np.ones(400), None
    if family.name == "gaussian":
        y = mu + np.sqrt(np.exp(lam)) * np.linspace(-12.0, 12.0, 2001)
        return y, np.full(y.size, y[1] - y[0]), None
    log_y = np.linspace(-50.0, 8.0, 20001)
    return np.exp(log_y), np.exp(log_y) * (log_y[1] - log_y[0]), None


@EVERY
def test_orders_agree_and_leave_out_the_rest(name, link):
    family = make_family(name, link)
    data, mu = rows(name, link)
    eta = family.eta_of(mu)
    full = family.derivatives(data, eta, 0.3)
    for order in range(3):
        part = family.derivatives(data, eta, 0.3, order)
        for o, names in ORDERS.items():
            for field in names:
                if o <= order:
                    np.testing.assert_array_equal(getattr(part, field), getattr(full, field))
                else:
                    assert getattr(part, field) is None
        assert part.d_lam is None
    assert (full.d_lam is not None) == bool(family.n_dispersion)


@EVERY
def test_several_points_at_once(name, link):
    family = make_family(name, link)
    data, mu = rows(name, link, n=20)
    eta = family.eta_of(mu) * np.array([[1.0], [0.9], [0.8]])
    together = family.derivatives(data, eta, 0.3)
    for k in range(3):
        one = family.derivatives(data, eta[k], 0.3)
        for field in (*sum(ORDERS.values(), ()), *LAMBDA_PARTS):
            if getattr(one, field) is not None:
                # Vectorised functions may differ in the last place with the position in the array.
                np.testing.assert_allclose(getattr(together, field)[k], getattr(one, field), rtol=1e-13, atol=1e-13)


@EVERY
def test_canonical_links_have_one_weight(name, link):
    family = make_family(name, link)
    canonical = {"gaussian": "identity", "binomial": "logit", "poisson": "log", "gamma": "inverse"}
    canonical["inverse_gaussian"] = "1/mu^2"
    assert family.canonical == (canonical.get(name) == link)
    data, mu = rows(name, link)
    d = family.derivatives(data, family.eta_of(mu), 0.3)
    assert (d.w_obs is d.w_exp) == family.canonical
    assert (d.dw_obs is d.dw_exp) == family.canonical


@EVERY
def test_log_concave_and_working_weights(name, link):
    family = make_family(name, link)
    rng = np.random.default_rng(3)
    data, _ = rows(name, link, 4000, weighted=False)
    if name in COUNTS:
        data = ResponseData(rng.poisson(np.exp(rng.normal(2.0, 2.0, 4000))).astype(float))
    mu = rng.uniform(0.01, 0.99, 4000) if inside(name, link) else np.exp(rng.normal(0.0, 2.0, 4000))
    weights = [family.derivatives(data, family.eta_of(mu), lam, 2) for lam in lambdas(family)]
    lowest = min(float(d.w_obs.min()) for d in weights)
    # Rounding of a curvature that is 0 may come out on either side.
    assert family.log_concave == (lowest > -1e-9)
    assert all((d.w_work >= -1e-9).all() for d in weights)


@EVERY
def test_extreme_eta(name, link):
    family = make_family(name, link)
    sides = np.array([1e-50, 1e-8, 0.5, 1.0, 8.5, 38.0, 100.0, 350.0, 600.0, 700.0])
    eta = np.concatenate([-sides, [0.0], sides])
    values = (0.001, 1.0, 50.0) if name in ("gamma", "inverse_gaussian") else (0.0, 1.0, 3.0)
    for y in values:
        data = ResponseData(np.full(eta.size, y), np.full(eta.size, 3.0) if name == "binomial" else None)
        for lam in (-8.0, 0.0, 15.0) if family.n_dispersion else (0.0,):
            d = family.derivatives(data, eta, lam)
            fine = np.isfinite(d.loglik)
            assert (d.loglik[~family.valid(eta)] == -np.inf).all()
            if name in ("binomial", *COUNTS):
                assert fine[family.valid(eta)].all()
            for field in (*sum(ORDERS.values(), ()), *LAMBDA_PARTS):
                if getattr(d, field) is not None:
                    assert np.isfinite(getattr(d, field)[fine]).all(), field


@EVERY
def test_rows_out_of_range(name, link):
    family = make_family(name, link)
    data, mu = rows(name, link, n=3)
    good = family.eta_of(mu)
    eta = np.array([np.nan, np.inf, good[2]])
    d = family.derivatives(data, eta, 0.3)
    assert family.valid(eta).tolist() == [False, False, True]
    assert d.loglik[:2].tolist() == [-np.inf, -np.inf]
    assert np.isnan(d.score[:2]).all()
    assert np.isnan(d.w_exp[:2]).all()
    assert d.score[2] == family.derivatives(data, good, 0.3).score[2]


@EVERY
def test_weights(name, link):
    """Twice a row is weight 2 where weights multiply; elsewhere weight 2 halves the dispersion."""
    family = make_family(name, link)
    plain, mu = rows(name, link, weighted=False)
    eta = family.eta_of(mu)
    doubled = ResponseData(plain.y, plain.trials, np.full(mu.size, 2.0))
    got = family.loglik(doubled, eta, 0.3)
    if family.weights_multiply:
        expected = 2.0 * family.loglik(plain, eta, 0.3)
    else:
        expected = family.loglik(plain, eta, 0.3 - np.log(2.0))
    # exp(log 0.3 - log 2) is exp(log 0.3)/2 to rounding.
    np.testing.assert_allclose(got, expected, rtol=1e-13, atol=1e-13)


@EVERY
def test_simulated_responses_have_the_mean_and_variance(name, link):
    family = make_family(name, link)
    n = 100_000
    mu = np.full(n, 0.3 if inside(name, link) else 2.0)
    weights = None if family.weights_multiply else np.full(n, 4.0)
    trials = np.full(n, 5.0) if name == "binomial" else None
    data = ResponseData(mu, trials, weights)
    y = family.simulate(family.eta_of(mu), -0.5, data, np.random.default_rng(1))
    per_row = 5.0 if name == "binomial" else 1.0
    spread = per_row * family.variance(mu, -0.5)[0] / (1.0 if weights is None else 4.0)
    # Four standard errors of a mean; the variance of a skewed variable is known to some percent only.
    assert y.mean() == pytest.approx(per_row * mu[0], abs=4.0 * np.sqrt(spread / n))
    assert y.var() == pytest.approx(spread, rel=0.05)


@EVERY
def test_starts_are_valid(name, link):
    family = make_family(name, link)
    data, _ = rows(name, link)
    eta = family.start_eta(data)
    assert family.valid(eta).all()
    assert np.isfinite(family.loglik(data, eta, 0.0)).all()


@pytest.mark.parametrize("name", [name for name in FAMILIES if make_family(name).n_dispersion])
def test_start_of_the_dispersion_is_near_the_truth(name):
    family = make_family(name)
    mu = np.exp(np.random.default_rng(2).normal(1.0, 0.5, 20_000))
    empty = ResponseData(mu)
    y = family.simulate(family.eta_of(mu), -0.7, empty, np.random.default_rng(3))
    # 20,000 rows give the moment estimate to some percent.
    assert family.start_lambda(ResponseData(y), mu) == pytest.approx(-0.7, abs=0.1)
    # No overdispersion at all: at the end of the range, not an error.
    assert np.isfinite(family.start_lambda(ResponseData(mu), mu))


def test_dispersion_and_sigma():
    lam = np.log(0.25)
    assert make_family("poisson").dispersion(lam) == make_family("poisson").sigma(lam) == 1.0
    for name, sigma in (("gaussian", 0.5), ("gamma", 0.5), ("nbinomial", 0.25), ("nbinomial1", 0.25)):
        family = make_family(name)
        # exp(log x) is x to rounding.
        assert family.dispersion(lam) == pytest.approx(0.25, rel=1e-14)
        assert family.sigma(lam) == pytest.approx(sigma, rel=1e-14)


@EVERY
def test_residuals(name, link):
    family = make_family(name, link)
    data, mu = rows(name)
    # For NB-1 the deviance is no difference of two log-likelihoods: see test_nb1_deviance.
    if name != "nbinomial1":
        scale = np.exp(0.3) if family.sigma(0.3) != family.dispersion(0.3) else 1.0
        own = np.clip(data.y / data.n_trials.clip(1), 1e-12, 1 - 1e-12) if name == "binomial" else data.y
        own = np.maximum(own, 1e-300) if name != "gaussian" else own
        saturated, fitted = (reference_logpdf(name, data, m, 0.3) for m in (own, mu))
        # Twice the log-likelihood below the saturated one; the clipped proportions cost 1e-11.
        deviance = family.deviance_residuals(data, mu, 0.3) ** 2
        np.testing.assert_allclose(deviance, 2.0 * scale * (saturated - fitted), rtol=1e-6, atol=1e-8)
    sign = np.sign(data.y / data.n_trials.clip(1) - mu) * (data.n_trials > 0)
    np.testing.assert_array_equal(np.sign(family.deviance_residuals(data, mu, 0.3)), sign)
    np.testing.assert_array_equal(np.sign(family.pearson(data, mu, 0.3)), sign)


def test_nb1_deviance_is_that_of_nb2_with_the_same_size():
    data, mu = rows("nbinomial1", weighted=False)
    other = make_family("nbinomial")
    got = make_family("nbinomial1").deviance_residuals(data, mu, 0.3)
    each = [other.deviance_residuals(data, mu, np.log(m) - 0.3)[i] for i, m in enumerate(mu)]
    # The same formula, but the size goes through a logarithm.
    np.testing.assert_allclose(got, each, rtol=1e-9, atol=1e-9)


def test_pearson_residuals_of_proportions_and_counts():
    data = ResponseData(np.array([3.0]), np.array([4.0]))
    # sqrt(4 / (0.5 * 0.5)) (0.75 - 0.5) = 1
    assert make_family("binomial").pearson(data, np.array([0.5]))[0] == 1.0
    assert make_family("poisson").pearson(ResponseData(np.array([6.0])), np.array([4.0]))[0] == 1.0


# --- limits of the negative binomials


@pytest.mark.parametrize(("name", "lam"), [("nbinomial", 18.0), ("nbinomial1", -18.0), ("nbinomial", 30.0)])
def test_negative_binomial_goes_over_into_poisson(name, lam):
    data, mu = rows(name)
    eta = np.log(mu)
    near, limit = make_family(name).derivatives(data, eta, lam), make_family("poisson").derivatives(data, eta)
    for field in ("loglik", "score", "w_obs", "w_exp", "dw_obs", "dw_exp"):
        # The distance is of order mu^2 exp(-18) = 5e-7.
        np.testing.assert_allclose(getattr(near, field), getattr(limit, field), rtol=1e-5, atol=1e-5)
    assert np.abs(near.d_lam).max() < 1e-5


def test_large_counts_keep_their_digits():
    data = ResponseData(np.array([1e6, 1e6 + 500.0]))
    d = make_family("nbinomial").derivatives(data, np.log(np.array([1e6, 1e6])), np.log(50.0))
    reference = stats.nbinom.logpmf(data.y, 50.0, 50.0 / (50.0 + 1e6))
    # log-gamma of 1e6 is 1.3e7: its rounding alone is 1e-9.
    np.testing.assert_allclose(d.loglik, reference, atol=1e-7)


# --- special functions


@pytest.mark.parametrize("y", [0, 1, 2, 7, 60, 1000])
@pytest.mark.parametrize("log_s", [-60.0, -5.0, 0.0, 2.9, 3.1, 8.0, 25.0])
def test_log_rising_is_its_sum(y, log_s):
    s, j = np.exp(log_s), np.arange(float(y))
    expected = (
        np.log1p(j / s).sum(),
        -(j / (s + j)).sum() if y else 0.0,
        (j * s / (s + j) ** 2).sum() if y else 0.0,
        (j * s * (j - s) / (s + j) ** 3).sum() if y else 0.0,
    )
    got = log_rising(np.array([float(y)]), np.array([log_s]))
    # Rounding relative to y log y, which both gamma functions reach.
    np.testing.assert_allclose([float(part[0]) for part in got], expected, rtol=1e-11, atol=1e-13 * (1 + y))


@pytest.mark.parametrize("alpha", [1e-4, 0.5, 30.0])
@pytest.mark.parametrize("s", [1e-3, 0.4, 7.0, 300.0])
def test_nb1_information_is_its_sum(s, alpha):
    j = np.arange(0.0, 40_000.0)
    expected = (stats.nbinom.sf(j, s, 1.0 / (1.0 + alpha)) * (s / (s + j)) ** 2).sum()
    got = nb1_information(np.array([np.log(s)]), np.array([alpha]))[0][0]
    # SciPy's tail probabilities hold to some 1e-12.
    assert got == pytest.approx(expected, rel=1e-10)


def test_log_shape_joins_smoothly():
    a = np.array([19.999999999, 20.000000001])
    value, slope_ = log_shape(a)
    # Two formulas on the two sides of 20; the function itself moves by 5e-11.
    assert value[0] == pytest.approx(value[1], abs=1e-10)
    assert slope_[0] == pytest.approx(slope_[1], abs=1e-12)
    # a log a - a - log Gamma(a) tends to log(a / 2 pi)/2; the first term left out is 1/(12 a).
    assert log_shape(np.array([1e12]))[0][0] == pytest.approx(0.5 * np.log(1e12 / (2 * np.pi)), abs=1e-12)


def test_log1p_minus():
    x = np.array([-0.5, -0.011, -0.009, 1e-9, 0.009, 0.011, 5.0])
    # Near 0 the difference of numpy's functions holds to 1e-16 absolute.
    np.testing.assert_allclose(log1p_minus(x), np.log1p(x) - x, atol=1e-16, rtol=1e-14)
    # -x^2/2 + x^3/3
    assert log1p_minus(np.array([1e-9]))[0] == pytest.approx(-5e-19, rel=1e-8)


# --- links


@pytest.mark.parametrize("link", PROBABILITY_LINKS.values(), ids=PROBABILITY_LINKS)
def test_probability_links(link):
    eta = np.linspace(0.02, 0.98, 49) if link.name == "identity" else np.linspace(-4.0, -0.05, 80)
    if np.isinf(link.high):
        eta = np.concatenate([eta, -eta])
    # Central differences at h = 1e-3, as above.
    for k in range(3):
        numeric = slope(lambda e, k=k: link.derivatives(e)[k], eta, 1e-3)
        np.testing.assert_allclose(link.derivatives(eta)[k + 1], numeric, rtol=1e-5, atol=1e-9)
    # One minus mu in floating point.
    np.testing.assert_allclose(link.mean(eta) + link.complement(eta), 1.0, rtol=1e-15)
    eta = np.sort(eta)
    # Near 1 the probability itself stands still in double precision, its complement does not.
    assert ((np.diff(link.mean(eta)) > 0) | (np.diff(link.complement(eta)) < 0)).all()


def test_probit_tail_against_its_asymptotic_series():
    x = np.array([30.0, 100.0, 700.0])
    A, B = PROBABILITY_LINKS["probit"].tails(-x)
    # h = phi/Phi by the scaled complementary error function.
    np.testing.assert_allclose(A[1], np.sqrt(2 / np.pi) / erfcx(x / np.sqrt(2)), rtol=1e-14)
    # log Phi(-x) = -x^2/2 - log x - log(2 pi)/2 - 1/x^2 + 5/(2 x^4) - 37/(3 x^6) + ...; next terms 1e-9 at x = 30.
    np.testing.assert_allclose(A[2], -1 + 1 / x**2 - 6 / x**4 + 50 / x**6, rtol=1e-6)
    np.testing.assert_allclose(A[3], 2 / x**3 - 24 / x**5 + 300 / x**7, rtol=1e-4)
    assert (B[0] == 0.0).all() or (np.abs(B[0]) < 1e-190).all()


def test_probit_tail_joins_the_continued_fraction():
    eta = np.array([-5.000000001, -4.999999999])
    A, _ = PROBABILITY_LINKS["probit"].tails(eta)
    # Two formulas at two points 2e-9 apart, where the derivatives move by less than 1e-8.
    for part in A:
        assert part[0] == pytest.approx(part[1], abs=2e-8)


def test_both_tails_keep_their_digits():
    cloglog, loglog, logit = (PROBABILITY_LINKS[name] for name in ("cloglog", "loglog", "logit"))
    # 1 - exp(-t) = t (1 - t/2) with t = exp(-40), and exp(-t) with t = exp(3).
    np.testing.assert_allclose(cloglog.mean(np.array([-40.0])), np.exp(-40.0), rtol=1e-14)
    np.testing.assert_allclose(cloglog.complement(np.array([3.0])), np.exp(-np.exp(3.0)), rtol=1e-14)
    np.testing.assert_allclose(loglog.complement(np.array([40.0])), np.exp(-40.0), rtol=1e-14)
    np.testing.assert_allclose(logit.complement(np.array([500.0])), np.exp(-500.0), rtol=1e-14)
    # Cauchy tails are 1/(pi x).
    np.testing.assert_allclose(PROBABILITY_LINKS["cauchit"].complement(np.array([1e9])), 1e-9 / np.pi, rtol=1e-12)


def test_ranges():
    assert make_family("binomial", "log").valid(np.array([-1.0, 0.0, 1.0])).tolist() == [True, False, False]
    assert make_family("poisson", "identity").valid(np.array([-1.0, 0.0, 1.0])).tolist() == [False, False, True]
    assert make_family("gaussian", "inverse").valid(np.array([-1.0, 0.0, 1.0])).tolist() == [True, False, True]
    assert make_family("gaussian").valid(np.array([-1.0, 0.0, np.nan])).tolist() == [True, True, False]


# --- make_family


@pytest.mark.parametrize(
    ("alias", "name", "link"),
    [
        ("negbin", "nbinomial", "log"),
        ("nbinom2", "nbinomial", "log"),
        ("nbinom1", "nbinomial1", "log"),
        ("Gamma", "gamma", "log"),
        ("inverse.gaussian", "inverse_gaussian", "log"),
        ("gaussian", "gaussian", "identity"),
        ("binomial", "binomial", "logit"),
    ],
)
def test_names_and_default_links(alias, name, link):
    family = make_family(alias)
    assert (family.name, family.link.name, family.default_link) == (name, link, link)
    assert make_family(family) is family
    assert make_family(family, link) is family


def test_a_family_with_another_link():
    probit = make_family(make_family("binomial"), "Probit")
    assert probit.link.name == "probit"


@EVERY
def test_pickles_and_compares(name, link):
    family = make_family(name, link)
    copy = pickle.loads(pickle.dumps(family))
    assert copy == family
    assert hash(copy) == hash(family)
    others = [pair for pair in PAIRS if make_family(*pair) == family]
    assert others == [(name, link)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("binominal",), r"no family 'binominal'.* Did you mean 'binomial'.*Use one of 'gaussian', 'binomial'"),
        (("quasipoisson",), "no family 'quasipoisson'"),
        ((3,), "`family` is of type int"),
        (("binomial", "logitt"), r"no link 'logitt'. Did you mean 'logit'.* Use one of 'logit', 'probit', 'cloglog'"),
        (("poisson", "probit"), "the poisson family has no link 'probit'; use one of 'log', 'sqrt', 'identity'"),
        (("poisson", 2), "the poisson family has no link 2; use one of"),
    ],
)
def test_unknown_names(arguments, message):
    with pytest.raises(OptionError, match=message):
        make_family(*arguments)


def test_mean_links_invert():
    mu = np.array([0.01, 1.0, 30.0])
    for link in (LogMean(), PowerMean("sqrt", 2.0), PowerMean("inverse", -1.0), PowerMean("1/mu^2", -0.5)):
        # A power and its root.
        np.testing.assert_allclose(link.mean(link.eta(mu)), mu, rtol=1e-14)
        np.testing.assert_allclose(link.log_mean(link.eta(mu))[0], np.log(mu), rtol=1e-13, atol=1e-15)


def test_gamma_functions_are_computed_once_while_lambda_stays(monkeypatch):
    asked = []

    def counted(*args, **kwargs):
        asked.append(args)
        return log_rising(*args, **kwargs)

    monkeypatch.setattr("lme4py.families.negative_binomial.log_rising", counted)
    family, data = make_family("nbinomial", "log"), ResponseData(np.array([0.0, 3.0, 3.0, 7.0]))
    first, again = (family.derivatives(data, eta, 0.5, 2).loglik for eta in (np.zeros(4), np.ones(4)))
    assert len(asked) == 1
    other = family.derivatives(data, np.zeros(4), 0.6, 2).loglik
    assert len(asked) == 2
    # Sums of a few terms of size one.
    np.testing.assert_allclose(first, stats.nbinom.logpmf(data.y, np.exp(0.5), 1 / (1 + np.exp(-0.5))), rtol=1e-12)
    np.testing.assert_allclose(
        again, stats.nbinom.logpmf(data.y, np.exp(0.5), np.exp(0.5) / (np.e + np.exp(0.5))), rtol=1e-12
    )
    assert (first != other).all()


@pytest.mark.parametrize(
    "link", [LogMean(), PowerMean("sqrt", 2.0), PowerMean("inverse", -1.0), *PROBABILITY_LINKS.values()], ids=repr
)
def test_all_are_valid_where_each_is(link):
    for eta in ([], [0.5, 2.0], [-1.0, 0.5], [0.0], [1.0, np.nan], [np.inf], [-np.inf, 1.0], [1e-70, 1.0]):
        assert link.all_valid(np.array(eta)) == link.valid(np.array(eta)).all()


def test_sides_of_rows_are_found_once(monkeypatch):
    family, data = make_family("binomial", "logit"), ResponseData(np.array([0.0, 1.0, 1.0]))
    asked = []
    original = type(family).stays_likely

    def counted(self, *args):
        asked.append(args)
        return original(self, *args)

    monkeypatch.setattr(type(family), "stays_likely", counted)
    for eta in (np.zeros(3), np.ones(3)):
        np.testing.assert_array_equal(family.half_rows(data, eta).sign, [-1.0, 1.0, 1.0])
    assert len(asked) == 2
