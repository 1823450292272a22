"""Batched small matrices against a loop over the batch."""

from __future__ import annotations

import numpy as np
import pytest

from lme4py.linalg import small

# From 32 columns on matrices are worked on one by one.
SIZES = pytest.mark.parametrize("k", [1, 2, 3, 5, 40])
J = 7


def batch(k: int, columns: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(k, columns, J))


def definite(k: int, seed: int = 0) -> np.ndarray:
    B = batch(k, k, seed)
    return np.einsum("aij,bij->abj", B, B) + 0.1 * np.eye(k)[:, :, None]


def each(function, *batches):
    """`function` of the j-th matrices, stacked along the last axis."""
    return np.stack([function(*(B[:, :, j] for B in batches)) for j in range(J)], axis=-1)


@SIZES
def test_spd_inverse(k):
    M = definite(k)
    before = M.copy()
    log_det, inverse = small.spd_inverse(M)
    # Condition numbers below 1e4 leave 12 digits.
    np.testing.assert_allclose(inverse, each(np.linalg.inv, M), rtol=1e-10, atol=1e-11)
    assert log_det == pytest.approx(sum(np.linalg.slogdet(M[:, :, j])[1] for j in range(J)), rel=1e-12)
    np.testing.assert_array_equal(M, before)


@SIZES
def test_log_determinant_of_each(k):
    M = definite(k)
    log_dets, inverse = small.log_dets_and_inverse(M[:, :, None])
    # As above.
    np.testing.assert_allclose(inverse[:, :, 0], each(np.linalg.inv, M), rtol=1e-10, atol=1e-11)
    np.testing.assert_allclose(log_dets[0], [np.linalg.slogdet(M[:, :, j])[1] for j in range(J)], rtol=1e-12)


@SIZES
def test_spd_inverse_of_identity_is_exact(k):
    log_det, inverse = small.spd_inverse(np.repeat(np.eye(k)[:, :, None], J, axis=2))
    assert log_det == 0.0
    np.testing.assert_array_equal(inverse, np.repeat(np.eye(k)[:, :, None], J, axis=2))


def test_spd_inverse_with_large_differences_of_scale():
    scale = np.array([1e-6, 1.0, 1e6])
    M = definite(3)
    stretched = M * scale[:, None, None] * scale[None, :, None]
    _, plain = small.spd_inverse(M)
    _, inverse = small.spd_inverse(stretched)
    # Elimination without pivoting does not depend on scales.
    np.testing.assert_allclose(inverse * scale[:, None, None] * scale[None, :, None], plain, rtol=1e-9)


@SIZES
def test_products_with_one_matrix(k):
    rng = np.random.default_rng(1)
    T, A = rng.normal(size=(k, k)), batch(k, k)
    wide, tall = batch(k, 4), batch(4, k)
    # Sums of at most 25 products: rounding only.
    close = {"rtol": 1e-12, "atol": 1e-13}
    np.testing.assert_allclose(small.congruence(T, A), each(lambda a: T.T @ a @ T, A), **close)
    np.testing.assert_allclose(small.left(T, wide), each(lambda a: T @ a, wide), **close)
    np.testing.assert_allclose(small.right(tall, T), each(lambda a: a @ T, tall), **close)


@SIZES
def test_products_of_batches(k):
    A, B = batch(3, k, 1), batch(k, 2, 2)
    close = {"rtol": 1e-12, "atol": 1e-13}  # rounding only
    np.testing.assert_allclose(small.product(A, B), each(np.matmul, A, B), **close)
    rows = np.random.default_rng(3).normal(size=(k, J, 6))
    applied = np.stack([A[:, :, j] @ rows[:, j] for j in range(J)], axis=1)
    np.testing.assert_allclose(small.apply(A, rows), applied, **close)
    other = np.random.default_rng(4).normal(size=(3, J, 6))
    expected = np.stack([rows[:, j] @ other[:, j].T for j in range(J)], axis=-1)
    np.testing.assert_allclose(small.outer(rows, other), expected, **close)


@SIZES
def test_transpose_and_symmetrize(k):
    A = batch(k, k)
    np.testing.assert_array_equal(small.transpose(A), each(np.transpose, A))
    # One addition and an exact halving.
    np.testing.assert_allclose(small.symmetrize(A), each(lambda a: (a + a.T) / 2, A), rtol=1e-15)


@pytest.mark.parametrize(("k", "columns"), [(1, 1), (2, 2), (3, 3), (5, 5), (3, 7), (2, 1), (4, 2)])
def test_lower_factor(k, columns):
    M = np.random.default_rng(k * 10 + columns).normal(size=(k, columns))
    L = small.lower_factor(M)
    assert L.shape == (k, k)
    assert (np.triu(L, 1) == 0).all()
    assert (np.diag(L) >= 0).all()
    # Orthogonalised twice: rounding only.
    np.testing.assert_allclose(L @ L.T, M @ M.T, rtol=0, atol=1e-13 * np.abs(M @ M.T).max())


def test_lower_factor_of_a_lower_factor_is_itself():
    L = np.tril(np.random.default_rng(0).normal(size=(4, 4)))
    np.fill_diagonal(L, np.abs(np.diag(L)))
    # One square root of a square in each diagonal element.
    np.testing.assert_allclose(small.lower_factor(L), L, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize(
    ("M", "zeros"),
    [
        (np.zeros((1, 1)), [0]),
        (np.zeros((3, 3)), [0, 1, 2]),
        # A zero variance in the first, the middle and the last place.
        (np.array([[0.0, 0.0], [0.3, 0.4]]), [0]),
        (np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.2, 0.0, 0.5]]), [1]),
        (np.array([[1.0, 2.0], [0.0, 0.0]]), [1]),
        # Correlations of plus and minus one.
        (np.array([[0.6, 0.8], [1.2, 1.6]]), [1]),
        (np.array([[0.6, 0.8], [-0.1, -0.4 / 3]]), [1]),
        # Rank two of three: the third row is the sum of the others.
        (np.array([[1.0, 0.5, 0.1], [0.3, 1.0, 0.7], [1.3, 1.5, 0.8]]), [2]),
        # Rank one of three.
        (np.outer([1.0, -2.0, 3.0], [0.1, 0.7, -0.2]), [1, 2]),
    ],
)
def test_lower_factor_of_singular_matrices(M, zeros):
    """A row inside the span of the rows above it gets a diagonal of exactly zero, not of rounding."""
    L = small.lower_factor(M)
    assert np.flatnonzero(np.diag(L) == 0.0).tolist() == zeros
    assert (L[:, zeros] == 0.0).all()
    # Rounding only.
    np.testing.assert_allclose(L @ L.T, M @ M.T, rtol=0, atol=1e-14 * max(1.0, np.abs(M @ M.T).max()))


@pytest.mark.parametrize("seed", range(20))
def test_lower_factor_of_a_product_of_rank_two(seed):
    """The dependence is only exact up to rounding of the product."""
    rng = np.random.default_rng(seed)
    M = rng.normal(size=(5, 2)) @ rng.normal(size=(2, 5))
    L = small.lower_factor(M)
    assert (L[:, 2:] == 0.0).all()
    # Rounding only.
    np.testing.assert_allclose(L @ L.T, M @ M.T, rtol=0, atol=1e-13 * np.abs(M @ M.T).max())


def test_lower_factor_keeps_small_but_real_elements():
    M = np.array([[1.0, 0.0], [1.0, 1e-7]])
    # 1e-7 of the row is far above rounding, 1e-16 is not.
    assert small.lower_factor(M)[1, 1] == pytest.approx(1e-7, rel=1e-8)
    assert small.lower_factor(np.array([[1.0, 0.0], [1.0, 1e-16]]))[1, 1] == 0.0


def test_lower_factor_does_not_depend_on_units():
    rng = np.random.default_rng(5)
    M = rng.normal(size=(3, 3))
    scale = np.array([1e-12, 1.0, 1e12])
    # Row operations only: each row keeps its relative precision.
    np.testing.assert_allclose(
        small.lower_factor(scale[:, None] * M), scale[:, None] * small.lower_factor(M), rtol=1e-12
    )


@pytest.mark.parametrize("k", [2, 3, 40])
def test_products_of_batches_of_several_axes(k):
    """One matrix against a batch of two axes, as fits without a level take them, whatever the size."""
    rng = np.random.default_rng(k)
    A, B = rng.normal(size=(k, k, 1, 4)), rng.normal(size=(k, 2, 3, 1))
    wide = [np.broadcast_to(M, (*M.shape[:2], 3, 4)) for M in (A, B)]
    # Sums of k products in another order.
    np.testing.assert_allclose(small.product(A, B), np.einsum("abij,bcij->acij", *wide), atol=1e-12)


@pytest.mark.parametrize("k", [1, 2, 5, 40])
def test_eigen(k):
    S = definite(k)[:, :, 0]
    values, vectors = small.eigen(S)
    # The same algorithm as NumPy's: rounding.
    np.testing.assert_allclose(values, np.linalg.eigvalsh(S), rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose((vectors * values) @ vectors.T, S, atol=1e-11)
    assert small.least_eigenvalue(S) == pytest.approx(values[0], rel=1e-12)


def test_eigen_of_nothing():
    values, vectors = small.eigen(np.zeros((0, 0)))
    assert values.shape == (0,)
    assert vectors.shape == (0, 0)


@pytest.mark.parametrize("columns", [(), (2,), (0,)])
@pytest.mark.parametrize("k", [0, 1, 3])
def test_solve(k, columns):
    rng = np.random.default_rng(5)
    A, b = rng.normal(size=(k, k)), rng.normal(size=(k, *columns))
    # The same algorithm as NumPy's.
    np.testing.assert_allclose(small.solve(A, b), np.linalg.solve(A, b) if k else b, rtol=1e-13)


def test_what_is_singular_is_not_solved():
    with pytest.raises(np.linalg.LinAlgError, match="singular"):
        small.solve(np.ones((2, 2)), np.ones(2))


@pytest.mark.parametrize(("k", "c"), [(0, 2), (2, 0), (2, 3)])
def test_bordered(k, c):
    A, B, C = np.full((k, k), 1.0), np.arange(k * c, dtype=float).reshape(k, c), np.full((c, c), 3.0)
    np.testing.assert_array_equal(small.bordered(A, B, C), np.block([[A, B], [B.T, C]]))


@pytest.mark.parametrize("k", [1, 2, 3, 40])
def test_is_lower(k):
    L = np.tril(np.ones((k, k)))
    assert small.is_lower(L)
    for i in range(k - 1):
        full = L.copy()
        full[i, -1] = np.nan
        assert not small.is_lower(full)
