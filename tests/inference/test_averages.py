"""Means over a normal part of the linear predictor, against adaptive quadrature."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate, special

from lme4py import OptionError
from lme4py.families.links import PROBABILITY_LINKS, LogMean, PowerMean
from lme4py.families.ordered.ordinal import make_ordinal
from lme4py.inference.prediction.averages import average_over, averaged_mean, normal_rule

SDS = (0.0, 1e-4, 0.3, 1.0, 3.0, 5.0)
WHOLE = ("logit", "probit", "cloglog", "loglog", "cauchit")


def _check(link, etas, sds):
    """Values and three derivatives in eta against adaptive quadrature of E g^-1(eta + sd z)."""
    eta, sd = np.repeat(etas, len(sds)), np.tile(sds, len(etas))

    def integrand(z):
        return np.exp(-0.5 * z * z) * np.stack(link.mean_derivatives(eta + sd * z, 3))

    turns = np.divide(-eta, sd, out=np.zeros_like(eta), where=sd > 0)
    points = np.unique(np.clip(turns, -12.0, 12.0))
    expected = integrate.quad_vec(integrand, -13.0, 13.0, epsabs=1e-13, epsrel=1e-13, norm="max", points=points)[0]
    d = averaged_mean(link, eta, sd**2, 2)
    # The accuracy that is promised; the adaptive rule itself has about 1e-13.
    np.testing.assert_allclose([d.f, d.e, d.ee, 2.0 * d.ev], expected / np.sqrt(2.0 * np.pi), rtol=1e-10, atol=1e-10)
    # The heat equation.
    np.testing.assert_allclose(d.v, 0.5 * d.ee, rtol=1e-14)


@pytest.mark.parametrize("name", WHOLE)
def test_probabilities(name):
    _check(PROBABILITY_LINKS[name], [-3.0, 0.4, 6.0], SDS)


@pytest.mark.parametrize(
    ("link", "etas"),
    [(LogMean(), [-2.0, 1.0]), (PowerMean("sqrt", 2.0), [0.5, 4.0]), (PowerMean("identity", 1.0), [-3.0, 2.0])],
)
def test_means_of_the_whole_line(link, etas):
    _check(link, etas, SDS)


@pytest.mark.parametrize("link", [PowerMean("inverse", -1.0), PowerMean("1/mu^2", -0.5)])
def test_powers_of_positive_predictors(link):
    # The whole range of z stays away from the pole.
    _check(link, [1.0], [0.0, 1e-4, 0.01, 0.05, 0.07])
    # Both sides of the change of method.
    near = [averaged_mean(link, np.array([1.0]), np.array([sd**2]), 2) for sd in (1 / 9.5 - 1e-9, 1 / 9.5 + 1e-9)]
    for part in ("f", "e", "v", "ee", "ev", "vv"):
        np.testing.assert_allclose(getattr(near[0], part), getattr(near[1], part), rtol=1e-6)


def test_a_root_near_the_end_of_its_range():
    sd = 0.2
    found = averaged_mean(PowerMean("1/mu^2", -0.5), np.array([1.0]), np.array([sd**2])).f[0]
    # The integral over s = sqrt(x), which has no pole.
    expected = integrate.quad(
        lambda s: 2.0 * np.exp(-0.5 * ((s * s - 1.0) / sd) ** 2) / (sd * np.sqrt(2.0 * np.pi)), 0.0, 2.0, epsabs=1e-14
    )[0]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    # Principal value of 1/x: pairs of points on both sides of the pole.
    inverse = averaged_mean(PowerMean("inverse", -1.0), np.array([1.0]), np.array([sd**2])).f[0]

    def pair(t):
        density = [np.exp(-0.5 * ((x - 1.0) / sd) ** 2) for x in (t, -t)]
        return (density[0] - density[1]) / t

    expected = integrate.quad(pair, 0.0, 3.0, points=[1.0], epsabs=1e-14)[0] / (sd * np.sqrt(2.0 * np.pi))
    np.testing.assert_allclose(inverse, expected, rtol=1e-11)


@pytest.mark.parametrize("link", [PowerMean("inverse", -1.0), PowerMean("1/mu^2", -0.5)])
def test_means_that_do_not_exist(link):
    with pytest.raises(OptionError, match=r"1 row\(s\) is negative with a probability up to 0.0228"):
        averaged_mean(link, np.array([2.0, 9.0]), np.array([1.0, 1.0]))
    with pytest.raises(OptionError, match="does not exist"):
        averaged_mean(link, np.array([-1.0]), 0.0)


@pytest.mark.parametrize("name", WHOLE)
def test_derivatives_are_those_of_the_value(name):
    link, h = PROBABILITY_LINKS[name], 1e-3
    eta, v = np.array([[-2.0, 0.3], [1.0, 3.0]]), np.array([[0.5], [6.0]])
    d = averaged_mean(link, eta, v, 2)

    def difference(part, by_eta):
        def at(steps):
            moved = averaged_mean(link, eta + steps * h * by_eta, v + steps * h * (1 - by_eta), 1)
            return getattr(moved, part)

        return (at(-2) - 8 * at(-1) + 8 * at(1) - at(2)) / (12 * h)

    # Fourth-order differences.
    for part, base, by_eta in (("e", "f", 1), ("v", "f", 0), ("ee", "e", 1), ("ev", "e", 0), ("vv", "v", 0)):
        np.testing.assert_allclose(getattr(d, part), difference(base, by_eta), rtol=1e-7, atol=1e-10)


def test_small_probabilities_keep_their_digits():
    # E logistic(eta + sd z) is exp(eta + v/2) far down the tail.
    found = averaged_mean(PROBABILITY_LINKS["logit"], np.array([-80.0]), np.array([16.0])).f
    np.testing.assert_allclose(found, np.exp(-80.0 + 8.0), rtol=1e-10)


def test_shapes_and_rounding_below_zero():
    link = PROBABILITY_LINKS["logit"]
    assert averaged_mean(link, np.zeros((0,)), np.zeros(0), 2).vv.shape == (0,)
    np.testing.assert_array_equal(averaged_mean(link, np.zeros((2, 3)), None).f, np.full((2, 3), 0.5))
    np.testing.assert_array_equal(averaged_mean(link, np.array([1.0]), -1e-18).f, special.expit([1.0]))
    z, w = normal_rule(link, 2.0)
    # Moments of the standard normal distribution.
    np.testing.assert_allclose([w.sum(), w @ z**2, w @ z**4], [1.0, 1.0, 3.0], rtol=1e-12)


@pytest.mark.parametrize("name", WHOLE)
def test_categories(name):
    family, thresholds = make_ordinal(name), np.array([-1.0, 1.5])
    eta, sd = np.array([-2.0, 0.5, 4.0]), np.array([0.0, 3.0, 5.0])
    table = average_over(lambda x: family.probabilities(x, thresholds), family.link, eta, sd)
    np.testing.assert_allclose(table.sum(axis=1), 1.0, rtol=1e-13)
    above = averaged_mean(family.link, eta[:, None] - thresholds, sd[:, None] ** 2).f
    # The rule of one row serves all thresholds, whatever the closed form.
    np.testing.assert_allclose(table[:, 0], 1.0 - above[:, 0], rtol=0, atol=1e-12)
    np.testing.assert_allclose(table[:, 2], above[:, 1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", WHOLE)
def test_tables_of_many_rows(name, monkeypatch):
    link, eta = PROBABILITY_LINKS[name], np.linspace(-7.0, 9.0, 20_000).reshape(2, -1)
    by_table = averaged_mean(link, eta, 0.25, 2)
    monkeypatch.setattr("lme4py.inference.prediction.averages._TABLE_FROM", np.inf)
    exact = averaged_mean(link, eta, 0.25, 2)
    for part in ("f", "e", "v", "ee", "ev", "vv"):
        # The error of the interpolation, which grows with the order of the derivative.
        np.testing.assert_allclose(getattr(by_table, part), getattr(exact, part), rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(by_table.f, exact.f, rtol=1e-12, atol=1e-13)
