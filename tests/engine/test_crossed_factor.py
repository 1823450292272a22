"""Factors in tiles of crossed effects, in both precisions, beside dense algebra."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import scipy.linalg
from test_crossed_probes import FORMULAS, dense, made

from lme4py import progress
from lme4py.engine.factor import crossed_factor, crossed_inverse, forecast
from lme4py.engine.factor.crossed import CrossedAt, CrossedTables
from lme4py.engine.factor.crossed_factor import CrossedFactor, forecast_tiles
from lme4py.engine.factor.crossed_inverse import LevelBlocks, exact_blocks, probed_blocks
from lme4py.errors import DesignError
from lme4py.linalg import tiles
from lme4py.linalg.tiles import TiledCholesky


def one_by_one(call, numbers):
    for number in numbers:
        call(number)


def at_start(name: str):
    """The matrices, log|M| and Lambda M^-1 Lambda' of a formula."""
    problem, T = made(FORMULAS[name])
    A = dense(problem.cross, problem.factors)
    every = zip(T, problem.factors, strict=True)
    Lambda = scipy.linalg.block_diag(*[np.kron(t, np.eye(factor.n_levels)) for t, factor in every])
    M = np.eye(A.shape[0]) + Lambda.T @ A @ Lambda
    at = CrossedAt.of(CrossedTables(problem.factors, problem.cross), T)
    return at, float(np.linalg.slogdet(M)[1]), Lambda @ np.linalg.solve(M, Lambda.T)


def level_blocks(factors, whole: np.ndarray) -> list[np.ndarray]:
    """Blocks (k, k, J) of one level each."""
    out, start = [], 0
    for factor in factors:
        places = start + np.arange(factor.size).reshape(factor.n_columns, -1)
        out.append(np.array([[whole[a, b] for b in places] for a in places]))
        start += factor.size
    return out


@pytest.fixture(params=["double", "single"])
def precision(request, monkeypatch):
    monkeypatch.setattr(crossed_factor, "_DOUBLE", 0 if request.param == "single" else 10**6)
    # Several tiles, and sums of several parts, of which the last are shorter.
    monkeypatch.setattr(tiles, "_TILE", 9)
    monkeypatch.setattr(tiles, "_DEPTH", 13)
    return request.param


@pytest.mark.parametrize("name", FORMULAS)
def test_the_log_determinant_is_exact_but_for_what_is_told(name, precision):
    at, wanted, _ = at_start(name)
    found = CrossedFactor(at).log_det()
    # Single precision keeps 7 digits of each of some 60 pivots; the probes' correction is good to the told error.
    assert found.error < (1e-6 if precision == "single" else 1e-13)
    assert abs(found.value - wanted) < 5.0 * found.error + 1e-13 * abs(wanted)


@pytest.mark.parametrize("name", FORMULAS)
def test_blocks_of_levels_are_exact(name, precision):
    at, _, whole = at_start(name)
    found = exact_blocks(at)
    wanted = level_blocks(at.tables.factors, whole)
    for own, other in zip(found.blocks, wanted, strict=True):
        # Rounding of single precision, in units of the largest variance.
        np.testing.assert_allclose(own, other, atol=(1e-6 if precision == "single" else 1e-13) * other.max())
    assert not any(own.any() for own in found.errors)
    assert str(found) == "Standard deviations are those of an exact factor."


def test_a_poor_factor_is_corrected_and_its_error_told(monkeypatch):
    at, wanted, _ = at_start("scalar")
    monkeypatch.setattr(crossed_factor, "_DOUBLE", 0)
    factor = CrossedFactor(at)
    # Half precision: three digits.
    factor.tiles.rows = [own.astype(np.float16) for own in factor.tiles.rows]
    diagonals = [own[:, place].diagonal() for own, place in zip(factor.tiles.rows, factor.tiles.places, strict=True)]
    factor.tiles.log_det = 2.0 * float(np.log(np.concatenate(diagonals).astype(np.float64)).sum())
    poor = at.log_det + factor.tiles.log_det
    found = factor.log_det()
    assert 1e-6 < found.error < 1e-2
    assert abs(found.value - wanted) < 4.0 * found.error
    assert abs(found.value - wanted) < abs(poor - wanted)


def test_threads_change_no_digit():
    rng = np.random.default_rng(1)
    X = rng.standard_normal((60, 80))
    A = X @ X.T / 80.0 + np.eye(60)
    names = set()

    def backwards(call, numbers):
        def named(number):
            names.add(threading.get_ident())
            call(number)

        workers = [threading.Thread(target=named, args=(number,)) for number in reversed(numbers)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

    def fill(rows, columns):
        return A[rows, columns].copy()

    once, again = (TiledCholesky(60, fill, np.float32, run) for run in (one_by_one, backwards))
    assert once.log_det == again.log_det
    for own, other in zip(once.rows, again.rows, strict=True):
        np.testing.assert_array_equal(own, other)


def test_solutions_of_triangles(monkeypatch):
    monkeypatch.setattr(tiles, "_TILE", 9)
    rng = np.random.default_rng(2)
    X = rng.standard_normal((50, 70))
    A = X @ X.T / 70.0 + np.eye(50)
    found = TiledCholesky(50, lambda rows, columns: A[rows, columns].copy(), np.float64, one_by_one)
    root, b = np.linalg.cholesky(A), rng.standard_normal((50, 3))
    b[:20] = 0.0
    wanted = scipy.linalg.solve_triangular(root, b, lower=True)
    # Rounding of some fifty additions.
    np.testing.assert_allclose(found.forward(b), wanted, atol=1e-13)
    np.testing.assert_allclose(found.forward(b, 20), wanted, atol=1e-13)
    np.testing.assert_allclose(found.backward(b), scipy.linalg.solve_triangular(root.T, b), atol=1e-13)
    with pytest.raises(np.linalg.LinAlgError, match="not positive definite in float64"):
        TiledCholesky(50, lambda rows, columns: -A[rows, columns], np.float64, one_by_one)


def test_what_does_not_fit_is_refused_and_what_takes_long_is_said(monkeypatch, capsys):
    at, _, _ = at_start("three")
    known = forecast_tiles(at.tables)
    assert known.size == at.tables.size
    monkeypatch.setattr(progress, "_LONG", 0.0)
    CrossedFactor(at)
    assert "a factor of the crossed random effects in tiles" in capsys.readouterr().err
    monkeypatch.setattr(forecast, "exceeds_memory", lambda need: True)
    with pytest.raises(DesignError, match=rf"in tiles \({known.size} x {known.size}, .* precision\) needs memory"):
        CrossedFactor(at)


@pytest.mark.parametrize("size", [40_000, 59_000])
def test_giants_fit_into_sixteen_gigabytes(size):
    need = tiles.tiled_bytes(size, np.float32, 2)
    assert 2.0 * size**2 < need < 9.0 * 2**30


@pytest.mark.parametrize("name", FORMULAS)
def test_probes_err_as_they_say(name, monkeypatch):
    monkeypatch.setattr(crossed_inverse, "_DIRECTIONS", 4)
    monkeypatch.setattr(crossed_inverse, "_WANTED", 0.02)
    at, _, whole = at_start(name)
    found = probed_blocks(at, 1)
    assert found.probes >= 32
    assert found.directions == 4
    off, told = [], []
    for own, other, errors in zip(found.blocks, level_blocks(at.tables.factors, whole), found.errors, strict=True):
        sds, wanted = (np.sqrt(np.einsum("aaj->aj", blocks)) for blocks in (own, other))
        off.append((sds / wanted - 1.0).ravel())
        told.append(errors.ravel())
        # No covariance is smaller than it can be.
        assert np.linalg.eigvalsh(own.transpose(2, 0, 1)).min() > 0.0
    size, error = (float(np.sqrt(np.mean(np.concatenate(each) ** 2))) for each in (off, told))
    # Errors of one matrix hang together: a ratio of 2 is no accident of few.
    assert 1e-6 < size < 2.0 * error
    assert found.error >= error
    assert f"means over {found.probes} random probes beside 4 exact directions" in str(found)


def test_known_rows_make_errors_smaller():
    blocks = np.full((1, 1, 3), 2.0)
    found = LevelBlocks((blocks,), (np.full((1, 3), 0.1),), 8, 4).plus([np.ones((1, 3, 2))])
    np.testing.assert_allclose(found.blocks[0], 4.0)
    np.testing.assert_allclose(found.errors[0], 0.05)
