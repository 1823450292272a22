"""Points on the way to a minimum that is known."""

from types import SimpleNamespace

import numpy as np

from lme4py.engine.generalised.hessian import scaled_eigen
from lme4py.engine.generalised.optimum import Basin, GlmmOptimum
from lme4py.engine.optimise import Control, Local, minimise

HESSIAN = np.array([[4.0, 1.0], [1.0, 2.0]])
CENTRE = np.array([1.0, -0.5])
BASIN = Basin(CENTRE, 10.0, np.zeros(2), HESSIAN)


def parabola(x, bend=0.0):
    """A parabola around the centre, with a cubic term."""
    move = x - CENTRE
    value = 10.0 + 0.5 * float(move @ HESSIAN @ move) + bend * float(move[0]) ** 3
    slope = HESSIAN @ move + np.array([3.0 * bend * float(move[0]) ** 2, 0.0])
    return Local(x, value, slope, HESSIAN)


def test_points_of_the_same_parabola_are_inside():
    assert BASIN.holds(parabola(CENTRE + np.array([0.5, -0.5])))
    assert BASIN.holds(parabola(CENTRE + np.array([0.5, -0.5]), bend=0.1))


def test_points_of_another_shape_or_far_up_are_not():
    # Too high; a value that is another one; a slope that points elsewhere; other parameters.
    assert not BASIN.holds(parabola(CENTRE + np.array([2.0, 2.0])))
    assert not BASIN.holds(parabola(CENTRE + np.array([0.8, 0.0]), bend=-2.0))
    near = parabola(CENTRE + np.array([0.6, 0.2]))
    assert not BASIN.holds(Local(near.theta, near.value, -near.gradient, HESSIAN))
    assert not BASIN.holds(Local(np.zeros(1), 10.0, np.zeros(1), np.eye(1)))


def test_a_centre_that_is_no_minimum_holds_nothing():
    saddle = Basin(CENTRE, 10.0, np.zeros(2), np.diag([1.0, -1.0]))
    assert not saddle.holds(Local(CENTRE + np.array([0.2, 0.0]), 10.02, np.array([0.2, 0.5]), np.eye(2)))


def test_ends_are_compared_in_units_of_the_curvature():
    assert BASIN.ends(CENTRE + 0.1, HESSIAN)
    assert not BASIN.ends(CENTRE + 0.1, 100.0 * HESSIAN)


def test_a_descent_stops_where_it_is_known_where_it_leads():
    short = minimise(parabola, CENTRE + np.array([5.0, 3.0]), Control(radius=0.3), until=BASIN.holds)
    assert short.message == "it is known where this leads"
    assert BASIN.holds(parabola(short.theta))
    assert short.value > 10.0


def test_a_curvature_that_is_clearly_negative_proves_no_minimum():
    found = SimpleNamespace(
        mode=SimpleNamespace(w=np.ones(3)), finder=SimpleNamespace(problem=SimpleNamespace(units=1.0))
    )

    def end(hessian, gradient):
        return GlmmOptimum(np.zeros(2), found, 10.0, np.array(gradient), np.array(hessian), ())

    assert end([[4.0, 1.0], [1.0, 2.0]], [1e-4, 0.0]).is_minimum
    # Rounding of a curvature of zero.
    assert end([[4.0, 0.0], [0.0, -1e-5]], [1e-4, 0.0]).is_minimum
    # Across a jump differences are immense: a Newton step promises less than 1e-6, and the gradient is 1e5.
    assert not end([[-2e16, 0.0], [0.0, 2.0]], [1e5, 0.0]).is_minimum
    assert not end([[4.0, 6.0], [6.0, 4.0]], [0.0, 0.0]).is_minimum


def test_all_that_is_asked_of_an_end_takes_one_decomposition(monkeypatch):
    asked = []

    def counted(*args):
        asked.append(args)
        return scaled_eigen(*args)

    monkeypatch.setattr("lme4py.engine.generalised.optimum.scaled_eigen", counted)
    found = SimpleNamespace(
        mode=SimpleNamespace(w=np.ones(3)), finder=SimpleNamespace(problem=SimpleNamespace(units=1.0))
    )
    end = GlmmOptimum(CENTRE, found, 10.0, np.array([2.0, 0.0]), HESSIAN, ())
    assert not end.is_minimum
    # Half of g'H^-1 g, to rounding.
    np.testing.assert_allclose(end.bound, 0.5 * 4.0 * np.linalg.inv(HESSIAN)[0, 0], rtol=1e-12)
    assert len(asked) == 1
