"""Prior densities: values by scipy, derivatives by differences, and words that are refused by name."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from lme4py.errors import OptionError
from lme4py.priors.covariance import LKJ, GammaPrior, InverseGamma, InverseWishart, Wishart
from lme4py.priors.fixed import Normal, StudentT
from lme4py.priors.text import read_covariance, read_fixed, read_residual

SIGMA = np.array([[2.0, 0.5], [0.5, 1.0]])
OTHER = np.array([[1.0, -0.2], [-0.2, 0.7]])
PRIORS = [
    Wishart(df=5, scale=OTHER),
    Wishart(),
    InverseWishart(df=4, scale=OTHER),
    LKJ(eta=1.7, shape=2.0, rate=0.3),
    GammaPrior(2.0, 0.4),
    GammaPrior(2.0, 0.4, "var"),
    InverseGamma(1.0, 3.0),
    InverseGamma(1.0, 3.0, "var"),
]


@pytest.mark.parametrize("prior", PRIORS, ids=repr)
def test_derivatives_are_those_of_the_value(prior):
    k = 1 if isinstance(prior, GammaPrior | InverseGamma) else 2
    at, change = SIGMA[:k, :k], np.array([OTHER[:k, :k], np.eye(k)])
    h = 1e-4
    here = prior.evaluate(at)
    up, down = prior.evaluate(at + h * change[0]), prior.evaluate(at - h * change[0])
    # Central differences: their error is h^2 times a third derivative of order one.
    assert np.vdot(here.gradient, change[0]) == pytest.approx((up.value - down.value) / (2 * h), rel=1e-6)
    second = here.second(change)
    for j in range(2):
        slope = np.vdot(up.gradient - down.gradient, change[j]) / (2 * h)
        assert second[0, j] == pytest.approx(slope, rel=1e-6)
    assert second[0, 1] == pytest.approx(second[1, 0], rel=1e-12)  # rounding


@pytest.mark.parametrize(
    ("prior", "density"),
    [
        (Wishart(df=5, scale=OTHER), lambda S: stats.wishart.logpdf(S, 5, OTHER)),
        (InverseWishart(df=4, scale=OTHER), lambda S: stats.invwishart.logpdf(S, 4, OTHER)),
        (GammaPrior(2.0, 0.4), lambda S: stats.gamma.logpdf(S[0, 0] ** 0.5, 2.0, scale=1 / 0.4)),
        (InverseGamma(1.0, 3.0, "var"), lambda S: stats.invgamma.logpdf(S[0, 0], 1.0, scale=3.0)),
    ],
    ids=["wishart", "invwishart", "gamma", "invgamma"],
)
def test_values_differ_from_the_densities_by_a_constant(prior, density):
    # -2 log density up to the constant that blme leaves out: the same at both matrices, to rounding.
    apart = [prior.evaluate(S).value + 2.0 * density(S) for S in (SIGMA, OTHER)]
    assert apart[0] == pytest.approx(apart[1], abs=1e-12)


def test_lkj_is_a_power_of_the_determinant_of_the_correlations():
    with_power, without = LKJ(eta=3.0).evaluate(SIGMA).value, LKJ(eta=2.0).evaluate(SIGMA).value
    assert with_power - without == pytest.approx(-2.0 * np.log(1.0 - 0.25 / 2.0), abs=1e-13)


def test_constants_of_coefficients_are_whole_densities():
    beta, names = np.array([1.5, -0.4]), ("Intercept", "x")
    normal = Normal(sd=(2.0, 0.5), common_scale=False).quadratic(names)
    found = normal.of_square(float(beta @ normal.precision @ beta))[0] + normal.constant
    assert found == pytest.approx(-2.0 * stats.norm.logpdf(beta, 0, [2.0, 0.5]).sum(), rel=1e-14)
    t = StudentT(df=4, scale=(4.0, 0.25), common_scale=False).quadratic(names)
    found = t.of_square(float(beta @ t.precision @ beta))[0] + t.constant
    expected = stats.multivariate_t.logpdf(beta, np.zeros(2), np.diag([4.0, 0.25]), df=4)
    assert found == pytest.approx(-2.0 * expected, rel=1e-13)


def test_words_of_blme_are_read():
    assert read_covariance('invgamma(shape = 2, scale = 10^2, posterior.scale = "sd")') == InverseGamma(2, 100, "sd")
    assert read_covariance("NULL") is None
    assert read_covariance("wishart(df = 4, scale = Inf)") == Wishart(4)
    assert np.array_equal(read_covariance("wishart(scale = diag(c(1, 2)))").scale, np.diag([1.0, 2.0]))
    assert read_fixed("normal(sd = c(10, 2.5), common.scale = FALSE)") == Normal((10, 2.5), None, False)
    assert read_residual('point(4, posterior.scale = "var")').sigma == 2.0


@pytest.mark.parametrize(
    ("read", "text", "message"),
    [
        (read_covariance, "wishard", "wishart"),
        (read_covariance, "gamma(shape = 0.5)", "shape 1"),
        (read_covariance, "gamma(shape = 1, rate = 2)", "kink"),
        (read_covariance, "gamma(form = 2)", "form"),
        (read_covariance, "gamma(shape = ", "cannot be read"),
        (read_covariance, "gamma(shape = open('x'))", "cannot be read"),
        (read_covariance, 3, "3"),
        (read_covariance, "lkj(1)", "above 1"),
        (read_covariance, "invgamma(scale = 0)", "above zero"),
        (read_covariance, "wishart(posterior.scale = 'sqrt')", "posterior_scale"),
        (read_fixed, "horseshoe", "normal"),
        (read_fixed, "t(df = 0)", "above zero"),
        (read_residual, "point(0)", "above zero"),
    ],
)
def test_what_is_no_prior_is_refused(read, text, message):
    with pytest.raises(OptionError, match=message):
        read(text)
