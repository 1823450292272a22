"""Covariance structures on the boundary of their spaces, theta from elsewhere, changes of columns, and nesting."""

import numpy as np
import pytest
from covariance_cases import cases, options, positions, random_theta, slopes, symmetric
from hypothesis import given, settings
from hypothesis import strategies as st

from lme4py.covariance import CovarianceStructures, find_structure, make_structure, structure_names
from lme4py.covariance.kinds.matern import matern
from lme4py.covariance.registry import plain_structure
from lme4py.errors import OptionError

ALL = cases((1, 2, 4))
every = pytest.mark.parametrize("structure", [s for _, s in ALL], ids=[label for label, _ in ALL])
LARGER = [(label, s) for label, s in ALL if s.size > 1]
larger = pytest.mark.parametrize("structure", [s for _, s in LARGER], ids=[label for label, _ in LARGER])
NAMES = [f"x{j}" for j in range(10)]


def edge_points(structure, seed=0):
    """(place, theta with this one on its edge) for each theta that has one."""
    theta = random_theta(structure, seed)
    edges = structure.edges(theta)
    for i in np.flatnonzero(~np.isnan(edges)):
        moved = theta.copy()
        moved[i] = edges[i]
        if structure.column_changes == "any":
            # A zero on the diagonal of T stands over zeros.
            moved[(structure.columns == structure.columns[i]) & (structure.rows > structure.rows[i])] = 0.0
        yield int(i), moved


# --- edges ------------------------------------------------------------------------------------------------------------


@every
def test_covariances_are_even_about_edges(structure):
    G = symmetric(structure.size)
    for i, theta in edge_points(structure):
        here = structure.covariance(theta)
        unit = np.eye(theta.size)[i]
        for step in (0.3, 1e-3):
            up, down = structure.covariance(theta + step * unit), structure.covariance(theta - step * unit)
            np.testing.assert_allclose(up, down, rtol=0, atol=1e-14)
        # Stationary whatever G is; half the curvature is the slope in the square of the distance.
        assert abs(structure.covariance_pullback(theta, G)[i]) < 1e-13 * np.abs(G).sum()
        h = 1e-4
        numeric = np.vdot(G, structure.covariance(theta + h * unit) - here) / h**2
        assert 0.5 * structure.curvature(theta, G)[i, i] == pytest.approx(numeric, abs=1e-5 * (1 + abs(numeric)))
        assert structure.edge_sizes(theta)[i] < 1e-12
        assert structure.boundary_derivative(theta, G) is not None
        T = structure.factor(theta)
        np.testing.assert_allclose(T @ T.T, here, rtol=0, atol=1e-13)


@every
def test_which_theta_have_edges(structure):
    theta = random_theta(structure)
    assert structure.even.sum() == sum(1 for _ in edge_points(structure))
    assert structure.boundary_derivative(theta, symmetric(structure.size)) is None
    assert not structure.boundary(theta, "(x | g)", NAMES[: structure.size])
    np.testing.assert_array_equal(np.isinf(structure.edge_sizes(theta)), ~structure.even)


@larger
def test_derivatives_close_to_edges(structure):
    """Through T, where its symmetric root is almost singular, and through Sigma."""
    G = symmetric(structure.size)
    for i, theta in edge_points(structure):
        for distance in (1e-2, 1e-4, 1e-6, 1e-8, 0.0):
            moved = theta + distance * np.eye(theta.size)[i]
            T, by_Sigma = structure.factor(moved), structure.covariance_pullback(moved, G)
            scale = 1.0 + np.abs(by_Sigma).max()
            # Roots of eigenvalues that are rounding (1e-16) are 1e-8, and count with their own size.
            np.testing.assert_allclose(structure.pullback(moved, 2 * G @ T), by_Sigma, rtol=0, atol=1e-7 * scale)
            np.testing.assert_allclose(T @ T.T, structure.covariance(moved), rtol=0, atol=1e-13)


def test_a_kernel_that_is_singular_to_rounding():
    """The Gaussian correlation of 40 points at a tenth of the range: 30 of its eigenvalues are below 1e-16."""
    points = np.random.default_rng(1).uniform(0.0, 1.0, (40, 2))
    gau = make_structure("gau", 40, points)
    theta, G = gau.theta_of_natural(np.array([1.5, 5.0])), symmetric(40)
    T = gau.factor(theta)
    np.testing.assert_allclose(T @ T.T, gau.covariance(theta), rtol=0, atol=1e-13)
    numeric = slopes(lambda t: np.vdot(G, gau.covariance(t)), theta, 1e-4)
    np.testing.assert_allclose(gau.covariance_pullback(theta, G), numeric, rtol=1e-9, atol=1e-7)
    # 1,600 elements, each to the root of rounding times its share.
    np.testing.assert_allclose(gau.pullback(theta, 2 * G @ T), numeric, rtol=1e-6, atol=1e-6)
    assert not gau.boundary(theta, "gau(x + y | g)", [str(j) for j in range(40)])


@pytest.mark.parametrize("nu", [0.2, 0.5, 0.8, 3.0])
def test_matern_leaves_an_infinite_range_as_fast_as_its_smoothness_says(nu):
    mat = make_structure("mat", 4, np.array([0.0, 1.0, 2.5, 4.0]))
    theta, G = np.array([1.3, 0.0, np.log(nu)]), symmetric(4)
    moved = mat.covariance(mat.theta_of_natural(np.array([1.3, 1e5, nu]))) - mat.covariance(theta)
    # In units of what the median of the distances, 2, loses.
    unit = 1.3**2 * (1.0 - mat.covariance(mat.theta_of_natural(np.array([1.0, 1e5, nu])), np.array([0.0, 2.0]))[0, 1])
    one = 1.3**2 * np.vdot(G, moved) / unit
    found = mat.boundary_derivative(theta, G)
    # It is the least of what any smoothness gives; where that falls between two of those tried, a little less than one.
    assert found <= one + 0.02 * abs(one)
    assert mat.cone(theta).unknown == "smoothness has no meaning there"


def test_unstructured_and_reduced_rank_lose_ranks():
    G = symmetric(3)
    us = make_structure("us", 3)
    T = np.array([[1.0, 0, 0], [0.5, 0, 0], [0.2, 0.7, 0]])
    theta = us.theta_of_factor(T)
    N = np.linalg.svd(T)[0][:, 2:]
    assert us.boundary_derivative(theta, G) == pytest.approx(float((N.T @ G @ N)[0, 0]))
    # The same by moving there: Sigma + h n n'.
    moved = us.covariance(theta) + 1e-3 * N @ N.T
    assert np.vdot(G, moved - us.covariance(theta)) / 1e-3 == pytest.approx(us.boundary_derivative(theta, G))
    rr = make_structure("rr", 3, d=2)
    inside = random_theta(rr)
    assert rr.boundary_derivative(inside, G) is None
    single = rr.theta_of_factor(rr.factor(inside)[:, :1])
    N = np.linalg.svd(rr.factor(single))[0][:, 1:]
    assert rr.boundary_derivative(single, G) == pytest.approx(np.linalg.eigvalsh(N.T @ G @ N)[0])
    assert rr.cone(single).unknown
    assert not rr.cone(inside).unknown


@pytest.mark.parametrize("word", ["ar1", "homtoep", "exp", "cs", "hetar1", "toep", "ad", "diag", "homcs"])
def test_all_variances_zero(word):
    """The least one-sided derivative, over all correlations: brute force over random covariances of the structure."""
    k = 3
    structure = make_structure(word, k, positions(word, k))
    rng = np.random.default_rng(4)
    for _ in range(2):
        G = rng.normal(size=(k, k))
        G = G + G.T + 1.5 * np.eye(k)
        zero = structure.theta_of_factor(np.zeros((k, k)))
        found = structure.boundary_derivative(zero, G)
        least = np.inf
        for _ in range(500):
            Sigma = structure.covariance(rng.normal(scale=2.0, size=structure.n_theta))
            least = min(least, float(np.vdot(G, Sigma) / np.trace(Sigma)))
        if word == "homcs":
            # Its two eigenvalues are tested one by one; that of the differences stands for two effects.
            least = min(np.vdot(G, D) for D in structure.projections)
        # Never above what a random covariance gives, and not below what one nearby could give.
        assert found <= least + 1e-9
        assert found >= least - 0.6
        assert structure.boundary(zero, "(x | g)", NAMES[:k]) == ("all variances of (x | g) are zero",)
        if word not in ("diag", "homcs"):
            assert "no meaning there" in structure.cone(zero).unknown


@pytest.mark.parametrize(
    ("word", "k", "values", "words"),
    [
        ("us", 1, [0.0], "the variance of (x | g) is zero"),
        ("us", 2, [1.0, 0.0, np.nan], "the variance of x1 in (x | g) is zero"),
        ("us", 2, [1.0, 2.0, -1.0], "the correlation of x0 and x1 in (x | g) is -1"),
        ("us", 3, [1.0, 1.0, 1.0, 1.0, 0.0, 0.0], "the covariance matrix of (x | g) has rank 2, not 3"),
        ("diag", 3, [0.0, 1.0, 0.0], "the variance of x0, x2 in (x | g) is zero"),
        ("homdiag", 3, [0.0], "all variances of (x | g) are zero"),
        ("homcs", 3, [1.0, 1.0], "the covariance matrix of (x | g) has rank 1, not 3"),
        ("homcs", 3, [1.0, -0.5], "the covariance matrix of (x | g) has rank 2, not 3"),
        ("homcs", 2, [1.0, -1.0], "the correlation of x0 and x1 in (x | g) is -1"),
        ("cs", 3, [1.0, 2.0, 1.0, -0.5], "the correlation of (x | g) is -1/2, the lowest possible"),
        ("cs", 2, [1.0, 1.0, -1.0], "the correlation of (x | g) is -1"),
        ("cs", 3, [1.0, 1.0, 0.0, 0.3], "the variance of x2 in (x | g) is zero"),
        ("ar1", 3, [1.0, -1.0], "the correlation of neighbours in (x | g) is -1"),
        ("hetar1", 3, [1.0, 1.0, 2.0, 1.0], "the correlation of neighbours in (x | g) is +1"),
        ("ad", 3, [1.0, 1.0, 2.0, 0.1, 1.0], "the correlation of x1 and x2 in (x | g) is +1"),
        ("toep", 3, [1.0, 1.0, 2.0, 0.5, -0.5], "the covariance matrix of (x | g) has rank 2, not 3"),
        ("homtoep", 3, [1.0, 1.0, 1.0], "the correlation of neighbours in (x | g) is +1"),
        ("arma11", 3, [1.0, 1.0, 0.2], "the autoregressive parameter of (x | g) is +1"),
    ],
)
def test_boundaries_in_words(word, k, values, words):
    structure = make_structure(word, k)
    theta = structure.theta_of_natural(np.nan_to_num(values))
    assert structure.boundary(theta, "(x | g)", NAMES[:k]) == (words,)


def test_other_boundaries_in_words():
    exp = make_structure("exp", 3, np.arange(3.0))
    words = exp.boundary(np.array([1.0, 0.0]), "exp(t | g)", NAMES[:3])
    assert words == ("the range of exp(t | g) is infinite: all effects of a level are equal",)
    both = make_structure("exp", 3, np.arange(3.0), nugget=True)
    assert "correlated alike" in both.boundary(np.array([1.0, 0.0, 0.5]), "e", NAMES[:3])[0]
    assert both.limits(np.array([1.0, 1.0, 0.0]), "e") == ("the nugget of e is zero",)
    assert both.limits(np.array([1.0, 1.0, np.pi / 2]), "e") == ("the nugget of e is all of its variance",)
    assert "far shorter" in exp.limits(np.array([1.0, 9.0]), "e")[0]
    # A correlation of exp(-2 r^2) at the ends, times the unit: .999 is between the two.
    assert "far longer than the distances (no correlation is below 0.9999" in exp.limits(np.array([1.0, 1e-3]), "e")[0]
    assert exp.limits(np.array([1.0, 0.1]), "e") == ()
    plane = make_structure("gau", 4, np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
    assert "far longer" in plane.limits(np.array([1.0, 1e-3]), "p")[0]
    mat = make_structure("mat", 3, np.arange(3.0))
    assert "without bound" in mat.limits(np.array([1.0, 1.0, np.log(60.0)]), "m")[0]
    arma = make_structure("arma11", 4)
    assert "cancel" in arma.limits(np.array([1.0, 0.3, -0.3]), "a")[0]
    rr = make_structure("rr", 4, d=2)
    assert rr.boundary(rr.theta_of_factor(np.ones((4, 1))), "r", NAMES[:4]) == (
        "the covariance matrix of r has rank 1, not 2",
    )
    # In the user's columns: inside, both rows vary, but one of the user's columns does not.
    us, S = make_structure("us", 2), np.array([[1.0, -2.0], [0.0, 1.0]])
    theta = us.theta_of_factor(np.linalg.solve(S, np.diag([1.0, 0.0])))
    assert us.boundary(theta, "(x | g)", NAMES[:2], S) == ("the variance of x1 in (x | g) is zero",)


@every
def test_truncate_and_as_start(structure):
    for i, theta in edge_points(structure):
        near = theta + 1e-5 * np.eye(theta.size)[i]
        cut = structure.truncate(near, 1e-3)
        assert structure.edge_sizes(cut)[structure.even].min() < 1e-12
        np.testing.assert_allclose(structure.covariance(cut), structure.covariance(near), rtol=0, atol=1e-4)
        start = structure.as_start(near, 0.05, 30.0)
        # The least diagonal element of T is less than its least singular value.
        assert structure.edge_sizes(start)[structure.even].min() > 0.04
        assert not structure.boundary(start, "(x | g)", NAMES[: structure.size], least=0.01)
    theta = random_theta(structure)
    np.testing.assert_allclose(structure.truncate(theta, 1e-3), theta, rtol=0, atol=1e-15)


def test_a_start_within_the_limits_stays_what_it_is():
    us = make_structure("us", 3)
    theta = us.theta_of_factor(np.random.default_rng(4).normal(size=(3, 3)))
    np.testing.assert_array_equal(us.as_start(theta, 1e-6, 1e6), theta)


# --- cones ------------------------------------------------------------------------------------------------------------


@every
def test_cones_hold_what_is_near(structure):
    for _, theta in [(-1, random_theta(structure)), *edge_points(structure)]:
        cone = structure.cone(theta)
        if cone.unknown or structure.redundant():
            continue
        held = sum(r * (r + 1) // 2 for r in cone.blocks)
        assert len(cone.held) == held
        directions = np.concatenate([cone.held, cone.free]).reshape(-1, structure.size**2).T
        here = structure.covariance(theta)
        rng = np.random.default_rng(2)
        for _ in range(5):
            step = 1e-4 * rng.normal(size=theta.size)
            step[structure.edge_sizes(theta) < 1e-7] *= 100.0  # these move Sigma by their square
            change = (structure.covariance(theta + step) - here).ravel()
            coefficients = np.linalg.lstsq(directions, change, rcond=None)[0]
            # First order: what is left is of the order of the step squared.
            assert np.linalg.norm(directions @ coefficients - change) < 1e-5
            if set(cone.blocks) == {1}:
                assert (coefficients[:held] > -1e-5).all()


def test_the_cone_of_an_unstructured_covariance():
    us = make_structure("us", 3)
    theta = us.theta_of_factor(np.array([[1.0], [2.0], [0.5]]))
    cone = us.cone(theta)
    assert cone.blocks == (2,)
    assert (len(cone.held), len(cone.free)) == (3, 3)
    rng = np.random.default_rng(1)
    for _ in range(20):
        A = rng.normal(size=(2, 2))
        A = A @ A.T
        # By columns of the upper triangle.
        moved = us.covariance(theta) + np.tensordot([A[0, 0], A[0, 1], A[1, 1]], cone.held, 1)
        assert np.linalg.eigvalsh(moved).min() > -1e-12
    indefinite = us.covariance(theta) + np.tensordot([1.0, 2.0, 1.0], cone.held, 1)
    assert np.linalg.eigvalsh(indefinite).min() < -0.1


# --- theta from elsewhere ---------------------------------------------------------------------------------------------


@every
def test_theta_of_factor(structure):
    rng = np.random.default_rng(1)
    for theta in (random_theta(structure), *(point for _, point in edge_points(structure))):
        Sigma = structure.covariance(theta)
        rotation = np.linalg.qr(rng.normal(size=(structure.size + 1,) * 2))[0][: structure.size]
        M = structure.factor(theta) @ rotation
        again = structure.theta_of_factor(M)
        # A correlation that is fitted to those of all pairs is as good as their squares.
        np.testing.assert_allclose(structure.covariance(again), Sigma, rtol=0, atol=1e-8)
        np.testing.assert_allclose(structure.covariance(structure.canonical(theta)), Sigma, rtol=0, atol=1e-13)


@larger
def test_starts_are_not_flat(structure):
    """From independent effects, from equal ones, and from very large ones: every theta still moves Sigma."""
    k = structure.size
    for M in (np.eye(k), np.ones((k, 1)), 1e6 * np.eye(k)):
        start = structure.as_start(structure.theta_of_factor(M), 0.05, 30.0)
        assert np.sqrt(structure.covariance(start).diagonal().max()) < 31.0 * np.sqrt(k)
        moves = structure.covariance_tangents(start) / structure.covariance(start).diagonal().max()
        if structure.name != "sph" and k > 2:
            # 1e-3 is a correlation of e^-4 beside the typical distance.
            assert np.abs(moves).max(axis=(1, 2)).min() > 1e-4, structure.theta_names


@every
def test_theta_of_the_identity(structure):
    if structure.name == "rr":
        return
    Sigma = structure.covariance(structure.theta_of_factor(2.0 * np.eye(structure.size)))
    # Of continuous structures independence is a limit, a correlation of 1e-6 over a typical gap.
    np.testing.assert_allclose(Sigma, 4.0 * np.eye(structure.size), rtol=0, atol=1e-3)


@pytest.mark.parametrize("word", ["us", "diag", "homdiag", "homcs", "cs", "ar1", "hetar1", "ou", "ad", "car1"])
@pytest.mark.parametrize("small", [1e-3, 1e-6, 1e-9])
def test_small_distances_from_the_edge_keep_their_digits(word, small):
    if word == "us" and small < 1e-8:
        return  # rows that differ by less are taken to depend on each other
    k = 2 if word in ("cs", "homcs") else 4
    structure = make_structure(word, k, positions(word, k))
    theta = structure.canonical(random_theta(structure))
    if structure.edges(theta)[-1] == 0.0:
        theta[-1] = small
    else:
        theta[-1] = np.pi / 2 - small
    again = structure.theta_of_factor(structure.factor(theta))
    # The distance of an angle from pi / 2 is known to 1e-16.
    assert structure.edge_sizes(again)[-1] == pytest.approx(structure.edge_sizes(theta)[-1], rel=1e-5)


@pytest.mark.parametrize(
    "structure", [s for _, s in ALL if s.size in (1, 4)], ids=[n for n, s in ALL if s.size in (1, 4)]
)
@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_any_theta_and_any_factor(structure, data):
    k, m = structure.size, structure.n_theta
    number = st.integers(-600, 600).map(lambda i: i / 100.0)
    theta = np.array(data.draw(st.lists(number, min_size=m, max_size=m)))
    Sigma = structure.covariance(theta)
    scale = max(float(np.abs(Sigma).max()), 1e-300)
    assert np.linalg.eigvalsh(Sigma).min() >= -1e-12 * scale
    plain = structure.canonical(theta)
    np.testing.assert_allclose(structure.covariance(plain), Sigma, rtol=0, atol=1e-12 * scale)
    np.testing.assert_allclose(structure.canonical(plain), plain, rtol=1e-12, atol=1e-12)
    natural = structure.natural(plain)
    if np.isfinite(natural).all() and (structure.edge_sizes(plain) > 1e-3).all():
        again = structure.covariance(structure.theta_of_natural(natural))
        # Correlations near +-1 come back from their own rounding: the root of 1e-16 at distances of 1e-3.
        np.testing.assert_allclose(again, Sigma, rtol=0, atol=1e-8 * scale)
    M = np.array(data.draw(st.lists(number, min_size=2 * k, max_size=2 * k))).reshape(k, 2)
    found = structure.theta_of_factor(M)
    assert np.isfinite(found).all()
    assert found.size == m
    variances = np.einsum("ab,ab->a", M, M)
    if structure.name in ("diag", "us", "cs", "hetar1", "toep", "ad"):
        np.testing.assert_allclose(structure.covariance(found).diagonal(), variances, rtol=1e-9, atol=1e-12)
    elif structure.name != "rr":
        np.testing.assert_allclose(structure.covariance(found).trace(), variances.sum(), rtol=1e-9, atol=1e-12)


@every
def test_linear_spaces(structure):
    span = structure.span_basis()
    np.testing.assert_array_equal(span, span.swapaxes(1, 2))
    A = span.reshape(len(span), -1).T
    assert np.linalg.matrix_rank(A) == len(span)
    for seed in range(3):
        Sigma = structure.covariance(random_theta(structure, seed)).ravel()
        np.testing.assert_allclose(A @ np.linalg.lstsq(A, Sigma, rcond=None)[0], Sigma, rtol=0, atol=1e-12)
    if structure.linear:
        assert len(span) == structure.n_theta
    basis = structure.moment_basis()
    np.testing.assert_allclose(basis, basis.swapaxes(1, 2), rtol=0, atol=1e-15)
    assert np.linalg.matrix_rank(basis.reshape(len(basis), -1)) == len(basis)
    traces = np.trace(basis, axis1=1, axis2=2)
    # The variances come first.
    assert (
        (np.diff((traces > 0.0).astype(int)) <= 0).all()
        if structure.name not in ("us", "rr")
        else (traces >= 0.0).all()
    )


# --- columns ----------------------------------------------------------------------------------------------------------


def change_of_columns(structure):
    rng = np.random.default_rng(8)
    k = structure.size
    if structure.column_changes == "any":
        return rng.normal(size=(k, k)) + 2.0 * np.eye(k)
    S = np.diag(rng.uniform(0.2, 3.0, k)) if structure.column_changes == "diagonal" else 0.4 * np.eye(k)
    return S if structure.basis is None else structure.basis @ S


@every
def test_changes_of_columns(structure):
    S = change_of_columns(structure)
    for theta in (random_theta(structure), *(point for _, point in edge_points(structure))):
        inside = structure.inside
        user = structure.to_user(theta, S)
        expected = S @ inside.covariance(theta) @ S.T
        np.testing.assert_allclose(structure.covariance(user), expected, rtol=0, atol=1e-12 * np.abs(expected).max())
        back = structure.to_engine(user, S)
        np.testing.assert_allclose(inside.covariance(back), inside.covariance(theta), rtol=0, atol=1e-11)
        jacobian = structure.to_user_jacobian(theta, S)
        on_edge = structure.edge_sizes(user) < 1e-7
        assert not jacobian[on_edge].any()
        if not on_edge.any():
            numeric = slopes(lambda t: structure.to_user(t, S), theta, 1e-3).T
            np.testing.assert_allclose(jacobian, numeric, rtol=1e-8, atol=1e-8)
        # What the base class finds by solving for dSigma.
        plain = super(type(structure), structure).to_user_jacobian(theta, S)
        if not on_edge.any():
            np.testing.assert_allclose(plain, jacobian, rtol=1e-7, atol=1e-7)


def test_the_engine_has_exchangeable_effects_as_mean_and_contrasts():
    homcs = make_structure("homcs", 4)
    H = homcs.basis
    np.testing.assert_allclose(H.T @ H, np.eye(4), atol=1e-15)
    theta = np.array([0.7, 1.3])
    np.testing.assert_allclose(H @ homcs.inside.covariance(theta) @ H.T, homcs.covariance(theta), atol=1e-14)
    assert homcs.inside.triangular
    assert make_structure("us", 3).basis is None


@pytest.mark.parametrize("word", ["ou", "car1", "exp", "gau", "mat", "sph"])
def test_units_and_origin_of_time_and_space(word):
    places = positions(word, 5)
    here, there = make_structure(word, 5, places), make_structure(word, 5, 1000.0 * places + 2.0**20)
    theta = random_theta(here)
    # Distances of times in the millions: 1e-10 of a gap.
    np.testing.assert_allclose(there.covariance(theta), here.covariance(theta), rtol=0, atol=1e-8)
    if word != "car1":
        np.testing.assert_allclose(there.natural(theta)[1], 1000.0 * here.natural(theta)[1], rtol=1e-9)
    if word in ("ou", "car1"):
        return
    order = np.array([3, 0, 4, 2, 1])
    mixed = make_structure(word, 5, places[order])
    np.testing.assert_allclose(
        mixed.covariance(theta), here.covariance(theta)[np.ix_(order, order)], rtol=0, atol=1e-13
    )
    # In one dimension, given either way.
    line = make_structure(word, 5, np.arange(5.0))
    assert line == make_structure(word, 5, np.arange(5.0)[:, None])
    assert line.natural(theta).size == line.n_theta


# --- nesting ----------------------------------------------------------------------------------------------------------


def all_structures(k):
    points = np.array([0.0, 1.0, 2.5, 4.5])[:k]
    for word in (word for word in structure_names() if find_structure(word).__module__.startswith("lme4py.")):
        for extra in options(word, k):
            if word not in ("gau", "mat", "sph") or not extra:
                in_space = word in ("ou", "car1", "exp", "gau", "mat", "sph")
                yield make_structure(word, k, points if in_space else None, **extra)


def test_nesting_is_what_it_says():
    """Every pair: a nested structure's covariances are reached, and those of others are not."""
    told = set()
    structures = list(all_structures(4))
    for inner in structures:
        for outer in structures:
            missed = 0.0
            for seed in (1, 2):
                theta = random_theta(inner, seed)
                if inner.name == "rr":
                    theta = theta * np.where(np.arange(theta.size) % 3 == 1, -1.0, 1.0)
                again = outer.theta_of_factor(inner.factor(theta))
                missed = max(missed, np.abs(outer.covariance(again) - inner.covariance(theta)).max())
                if missed > 1e-6:
                    break
            if inner.nested_in(outer):
                told.add((inner.name, outer.name))
                assert missed < 1e-7, (inner, outer)
            elif (inner.name, outer.takes_positions) not in (("homdiag", "coordinates"), ("homdiag", "times")):
                # (A range of 0 is a limit.) Less than 1e-4 is missed by mat() alone, of which gau() is a limit.
                assert missed > 1e-6, (inner, outer)
    assert {("homcs", "cs"), ("cs", "toep"), ("ar1", "arma11"), ("diag", "us"), ("ou", "ad"), ("exp", "mat")} <= told
    assert ("ar1", "ad") in told
    assert ("toep", "ad") not in told


def test_structures_of_two_columns_are_alike():
    # Of arma11() one parameter would be too many.
    words = ("us", "cs", "hetar1", "toep", "ad", "homcs", "ar1", "homtoep", "diag", "homdiag", "rr")
    structures = [s for s in all_structures(2) if s.name in words]
    for inner in structures:
        for outer in structures:
            thetas = [random_theta(inner, seed) for seed in range(3)]
            missed = max(
                np.abs(outer.covariance(outer.theta_of_factor(inner.factor(t))) - inner.covariance(t)).max()
                for t in thetas
            )
            if inner.nested_in(outer):
                assert missed < 1e-7, (inner, outer)
            elif inner.name != "rr":  # these correlations are all +1
                assert missed > 1e-6, (inner, outer)


def test_nesting_depends_on_positions_and_options():
    even, gaps = np.arange(3.0), np.array([0.0, 1.0, 3.0])
    ou, ar1 = make_structure("ou", 3, even), make_structure("ar1", 3)
    assert ou.nested_in(ar1)
    assert not ar1.nested_in(ou)
    assert not make_structure("ou", 3, gaps).nested_in(make_structure("ar1", 3, gaps))
    assert not make_structure("ar1", 3, gaps).nested_in(ar1)
    assert make_structure("ar1", 3, gaps).nested_in(make_structure("ad", 3))
    assert make_structure("rr", 3, d=1).nested_in(make_structure("rr", 3, d=2))
    assert not make_structure("rr", 3, d=2).nested_in(make_structure("rr", 3, d=1))
    assert not make_structure("us", 2).nested_in(make_structure("us", 3))
    assert not make_structure("exp", 3, even, nugget=True).nested_in(make_structure("exp", 3, even))
    assert make_structure("us", 1).nested_in(make_structure("ar1", 1))


# --- all terms --------------------------------------------------------------------------------------------------------


def test_structures_of_several_terms():
    words = [("us", 2), ("homcs", 3), ("hetar1", 3), ("us", 1)]
    terms = CovarianceStructures(tuple(make_structure(word, k) for word, k in words))
    theta = np.concatenate([random_theta(s, i) for i, s in enumerate(terms.each)])
    assert terms.n_theta == theta.size == 3 + 2 + 4 + 1
    assert terms.slices[-1] == slice(9, 10)
    S = [change_of_columns(s) for s in terms.each]
    inside = terms.in_columns(S)
    user = terms.to_user(theta, S)
    for s, u, T, change in zip(terms.each, terms.split(user), inside.factors(theta), S, strict=True):
        np.testing.assert_allclose(s.covariance(u), change @ T @ T.T @ change.T, atol=1e-12)
    np.testing.assert_allclose(terms.to_engine(user, S), theta, atol=1e-12)
    numeric = slopes(lambda t: terms.to_user(t, S), theta, 1e-3).T
    np.testing.assert_allclose(terms.to_user_jacobian(theta, S), numeric, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(terms.theta_of_factors(terms.factors(theta)), theta, atol=1e-12)
    np.testing.assert_allclose(terms.canonical(-theta)[[0, 3, 9]], theta[[0, 3, 9]], atol=1e-12)
    assert terms.even.tolist() == [True, False, True, True, True, True, True, True, True, True]
    assert terms.initial().size == 10
    np.testing.assert_allclose(terms.as_start(theta, 1e-3), theta, atol=1e-14)
    np.testing.assert_array_equal(terms.check([1] * 10), np.ones(10))
    with pytest.raises(OptionError, match=r"10 finite numbers.*got 2"):
        terms.check([1.0, 2.0])
    with pytest.raises(OptionError, match="give 10 numbers"):
        terms.check("theta")
    assert CovarianceStructures(()).n_theta == 0
    assert CovarianceStructures(()).initial().size == 0


@pytest.mark.parametrize("log_nu", [-101.0, -745.0, -1e4])
@pytest.mark.parametrize("order", [0, 2])
def test_a_smoothness_next_to_zero_leaves_no_correlation(log_nu: float, order: int) -> None:
    found = matern(np.array([0.1, 5.0]), log_nu, order)
    assert found.value.tolist() == [0.0, 0.0]
    near = matern(np.array([0.1, 5.0]), -99.0, order)
    # About nu times 2 K0(x).
    assert 0.0 < near.value[0] < 1e-40
    assert found.first.shape == near.first.shape


@pytest.mark.parametrize(
    ("word", "theta"),
    [
        ("us", [1.0, 0.3, -0.2, 0.8, 0.1, 0.5]),
        ("us", [1.0, 0.3, -0.2, 0.8, 0.1, 0.0]),  # a root of rank two
        ("us", [0.0] * 6),  # nothing moves
        ("ar1", [1.5, 0.4]),
        ("cs", [1.0, 0.7, 1.2, 0.3]),
    ],
)
def test_curvature_in_the_coordinates_of_a_chart(word, theta):
    chart = make_structure(word, 3).chart(np.array(theta))
    G = np.array([[2.0, 0.3, -0.4], [0.3, 1.0, 0.2], [-0.4, 0.2, 3.0]])
    step = 1e-4
    rows = [(chart.pulled(G, step * e) - chart.pulled(G, -step * e)) / (2.0 * step) for e in np.eye(chart.size)]
    # Central differences: their error goes with the square of the step.
    np.testing.assert_allclose(chart.curvature(G), np.reshape(rows, (chart.size, chart.size)), rtol=1e-6, atol=1e-6)


def test_small_structures_of_a_kind_are_one():
    kind = find_structure("us")
    assert plain_structure(kind, 2) is plain_structure(kind, 2)
    assert plain_structure(kind, 20) is not plain_structure(kind, 20)
