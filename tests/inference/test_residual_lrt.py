"""Tests of variances beside a residual structure: half of the weight is that of one degree of freedom less."""

from __future__ import annotations

import pytest
from reference_data import load_reference
from scipy import stats

import lme4py
from lme4py.errors import OptionError

SLEEP = "Reaction ~ Days"


@pytest.fixture(scope="module")
def sleep():
    return lme4py.load_dataset("sleepstudy")


def test_a_dispersion_without_effect_leaves_the_tests_as_they_are(sleep):
    pairs = (("(1 | Subject)", "(Days | Subject)"), ("(1 | Subject)", "(1 | Subject) + (0 + Days | Subject)"))
    for reduced, full in pairs:
        a = [lme4py.lmer(f"{SLEEP} + {terms}", sleep, dispformula="~ 1") for terms in (reduced, full)]
        b = [lme4py.lmer(f"{SLEEP} + {terms}", sleep) for terms in (reduced, full)]
        own, usual = lme4py.lrtest(*a), lme4py.lrtest(*b)
        # Two optimisers of one criterion.
        assert own.chi2 == pytest.approx(usual.chi2, abs=1e-6)
        assert own.p_value == pytest.approx(usual.p_value, rel=1e-5)
        assert own.df == usual.df
        assert own.boundary_corrected


def test_a_random_intercept_beside_continuous_autoregression():
    data = load_reference("irreg")
    full = lme4py.lmer("y ~ x + time + (1 | id)", data, residual="car1(time | id)")
    small = lme4py.lmer("y ~ x + time", data, residual="car1(time | id)")
    test = lme4py.lrtest(small, full)
    chi2 = small.criterion - full.criterion
    assert test.chi2 == pytest.approx(chi2, abs=1e-8)
    assert test.p_value == pytest.approx(0.5 * stats.chi2.sf(chi2, 1), rel=1e-9)
    assert full.lrtest_no_random().p_value == pytest.approx(test.p_value, rel=1e-6)
    assert lme4py.lrtest(small, full, boundary=False).p_value == pytest.approx(stats.chi2.sf(chi2, 1), rel=1e-9)
    table = full.ranova()
    assert table["p_value"].iloc[1] == pytest.approx(test.p_value, rel=1e-6)


def test_a_slope_with_its_covariance(sleep):
    one = lme4py.lmer(f"{SLEEP} + (1 | Subject)", sleep, variance="exp(Days)")
    two = lme4py.lmer(f"{SLEEP} + (Days | Subject)", sleep, variance="exp(Days)")
    chi2 = one.criterion - two.criterion
    by_hand = 0.5 * stats.chi2.sf(chi2, 1) + 0.5 * stats.chi2.sf(chi2, 2)
    assert lme4py.lrtest(one, two).p_value == pytest.approx(by_hand, rel=1e-9)
    # A variance function that goes too is one more regular parameter.
    plain = lme4py.lmer(f"{SLEEP} + (1 | Subject)", sleep)
    chi2 = plain.criterion - two.criterion
    by_hand = 0.5 * stats.chi2.sf(chi2, 2) + 0.5 * stats.chi2.sf(chi2, 3)
    assert lme4py.lrtest(plain, two).p_value == pytest.approx(by_hand, rel=1e-9)


def test_what_no_theory_covers_is_refused(sleep):
    two = lme4py.lmer(f"{SLEEP} + (Days | Subject)", sleep, variance="exp(Days)")
    none = lme4py.lmer(SLEEP, sleep, variance="exp(Days)")
    with pytest.raises(OptionError, match="one effect"):
        lme4py.lrtest(none, two)
    assert lme4py.lrtest(none, two, boundary=False).df == 3
    with pytest.raises(OptionError, match="boundary=True"):
        lme4py.lrtest(lme4py.lmer(f"{SLEEP} + (Days | Subject)", sleep), two, boundary=True)
