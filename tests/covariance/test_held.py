"""Structures with parameters held: the whole structure on a part of its parameters."""

from __future__ import annotations

import numpy as np
import pytest
from covariance_cases import positions, random_theta, slopes, symmetric

from lme4py.covariance import make_structure
from lme4py.covariance.kinds.angles import SphericalAngles, order_for
from lme4py.covariance.kinds.held import hold_natural, hold_theta
from lme4py.errors import OptionError

CASES = [
    (word, size, places)
    for word in ("us", "diag", "cs", "homcs", "ar1", "hetar1", "toep", "ad", "ou", "gau", "mat")
    for size in (2, 4)
    # Matern's range and smoothness are not told apart by one distance.
    if (word, size) != ("mat", 2)
    for places in ((0,), (size,) if word in ("us", "cs", "hetar1", "toep", "ad") else (1,))
]


def held(word, size, places):
    """A structure with natural parameters held at their values at some theta, and that theta."""
    structure = make_structure(word, size, positions(word, size))
    theta = structure.canonical(random_theta(structure))
    values = structure.natural(theta)
    return structure, theta, hold_natural(structure, {place: float(values[place]) for place in places})


@pytest.mark.parametrize(("word", "size", "places"), CASES)
def test_the_same_covariances(word, size, places):
    structure, theta, held_one = held(word, size, places)
    own = held_one.theta_of_factor(structure.factor(theta))
    assert own.size == structure.n_theta - len(places)
    # Through the other parameters and back.
    np.testing.assert_allclose(held_one.covariance(own), structure.covariance(theta), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(held_one.natural(own), structure.natural(theta), rtol=1e-9, atol=1e-10)
    names = [parameter.held for parameter in held_one.natural_parameters]
    assert [i for i, is_held in enumerate(names) if is_held] == list(places)


@pytest.mark.parametrize(("word", "size", "places"), CASES)
def test_derivatives(word, size, places):
    _, _, structure = held(word, size, places)
    theta = random_theta(structure, 1)
    jet = structure.covariance_derivatives(theta)
    # Differences of sixth order, see `slopes`.
    np.testing.assert_allclose(jet.first, slopes(structure.covariance, theta), atol=1e-9)
    np.testing.assert_allclose(jet.second, slopes(structure.covariance_tangents, theta), atol=1e-8)
    np.testing.assert_allclose(structure.tangents(theta), slopes(structure.factor, theta), atol=1e-9)
    np.testing.assert_allclose(structure.second_tangents(theta), slopes(structure.tangents, theta), atol=1e-8)
    G = symmetric(size)
    pull = slopes(lambda t: np.vdot(G, structure.covariance(t)), theta)
    np.testing.assert_allclose(structure.covariance_pullback(theta, G), pull, atol=1e-8)
    np.testing.assert_allclose(
        structure.curvature(theta, G), slopes(lambda t: structure.covariance_pullback(t, G), theta), atol=1e-7
    )


@pytest.mark.parametrize(("word", "size", "places"), CASES)
def test_other_columns(word, size, places):
    """A standard deviation of 2 per day is one of 2 / 24 per hour."""
    _, _, structure = held(word, size, places)
    S = np.eye(size) * 0.3 if structure.shares_variance else np.diag(0.2 + 0.1 * np.arange(size))
    inside = structure.in_columns(S)
    assert inside.user is structure
    theta = random_theta(inside, 2)
    user = structure.to_user(theta, S)
    np.testing.assert_allclose(structure.covariance(user), S @ inside.covariance(theta) @ S, rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(structure.to_engine(user, S), theta, rtol=1e-12)
    np.testing.assert_allclose(
        structure.to_user_jacobian(theta, S), slopes(lambda t: structure.to_user(t, S), theta).T, atol=1e-9
    )


def test_any_correlation_matrix_by_angles():
    R = np.corrcoef(np.random.default_rng(3).normal(size=(4, 9)))
    for order in ((0, 1, 2, 3), (2, 0, 3, 1)):
        angles = SphericalAngles(4, order=order)
        phi = angles.of_rows(np.linalg.cholesky(R))
        np.testing.assert_allclose(angles.derivatives(phi, order=0).value, R, atol=1e-13)
        np.testing.assert_allclose(angles.of_natural(angles.natural(phi, 0).value), phi, atol=1e-12)
        np.testing.assert_allclose(
            angles.derivatives(phi).second,
            slopes(lambda p, angles=angles: angles.derivatives(p, order=1).first, phi),
            atol=1e-9,
        )


def test_orders_of_columns():
    assert order_for(3, frozenset()) == (0, 1, 2)
    # All of some columns, or those of one column with others.
    assert order_for(4, frozenset({(1, 2), (1, 3), (2, 3)})) is not None
    assert order_for(4, frozenset({(0, 2), (1, 2), (2, 3)}))[0] == 2
    assert order_for(4, frozenset({(0, 1), (1, 2), (2, 3)})) is None


def test_theta_that_are_held():
    us = make_structure("us", 2)
    held_one = hold_theta(us, {0: 2.0})
    np.testing.assert_allclose(held_one.covariance(np.array([1.0, 0.5])), us.covariance(np.array([2.0, 1.0, 0.5])))
    assert held_one.nested_in(us)
    assert not us.nested_in(held_one)
    assert hold_theta(us, {0: 2.0, 1: 1.0}).nested_in(held_one)
    assert not hold_theta(us, {0: 3.0}).nested_in(held_one)
    with pytest.raises(OptionError, match="beside theta that are held"):
        hold_theta(us, {1: 1.0}).kenward_roger(np.array([1.0, 0.5]))


def test_lags_are_held_from_the_first_on():
    toep = make_structure("toep", 4)
    assert hold_natural(toep, {4: 0.5, 5: 0.3}).n_theta == 5
    with pytest.raises(OptionError, match="from lag 1 on"):
        hold_natural(toep, {5: 0.3})
    with pytest.raises(OptionError, match=r"cannot be -0\.9"):
        hold_natural(toep, {4: 0.9, 5: -0.9})
    with pytest.raises(OptionError, match="must be between -1 and 1"):
        hold_natural(toep, {4: 1.5})
