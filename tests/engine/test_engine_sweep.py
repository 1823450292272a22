"""Elimination by sweeps, its adjoint and the cross-products, against dense matrices."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest
from dense_models import DESIGNS, blocks, changed, dense, factors, make_design, make_term, random_theta
from scipy import linalg

import lme4py
from lme4py.design.design import Design
from lme4py.engine.factor.crossproducts import ModelBlock, accumulate
from lme4py.engine.linear.criterion import Criterion, Point
from lme4py.engine.linear.problem import Problem, make_problem

CASES = pytest.mark.parametrize("name", DESIGNS)


@dataclass
class Inside:
    """A model in the engine's columns: the factor at a theta, and the same thing as dense matrices."""

    problem: Problem
    point: Point
    Lambda: np.ndarray  # rows: factors, columns of the factor, levels
    A: np.ndarray  # Z'WZ
    border: np.ndarray  # Z'W [X y]
    corner: np.ndarray  # [X y]'W [X y]


def inside(design: Design, theta: np.ndarray) -> Inside:
    criterion = lme4py.lmm_criterion(design).inside
    problem = criterion.problem
    by_term = factors(design.terms, theta)
    w = np.ones(design.n_obs) if design.weights is None else design.weights / problem.scaling.weight_scale
    Zs, Lambdas = [], []
    for factor in problem.factors:
        Z = np.hstack([design.terms[t].values @ problem.scaling.S[t] for t in factor.terms])
        codes = design.terms[factor.terms[0]].codes
        indicator = np.eye(factor.n_levels)[codes]
        Zs.append(np.hstack([indicator * Z[:, [a]] for a in range(factor.n_columns)]))
        T = linalg.block_diag(*[by_term[t] for t in factor.terms])
        Lambdas.append(np.kron(T, np.eye(factor.n_levels)))
    Z = np.hstack(Zs)
    y = design.y if design.offset is None else design.y - design.offset
    y = (y - design.X @ problem.scaling.b0) / problem.scaling.y_scale
    XY = np.column_stack([design.X @ problem.scaling.C, y])
    WZ = w[:, None] * Z
    return Inside(
        problem,
        criterion.evaluate(theta),
        linalg.block_diag(*Lambdas),
        Z.T @ WZ,
        WZ.T @ XY,
        XY.T @ (w[:, None] * XY),
    )


def by_factor(model: Inside, matrix: np.ndarray) -> list[np.ndarray]:
    """Diagonal blocks of each factor, (k, k, J)."""
    out = []
    start = 0
    for factor in model.problem.factors:
        k, J = factor.n_columns, factor.n_levels
        own = matrix[start : start + k * J, start : start + k * J].reshape(k, J, k, J)
        out.append(np.einsum("ajbj->abj", own))
        start += k * J
    return out


@CASES
def test_log_determinant_and_corner(name):
    model = inside(DESIGNS[name], random_theta(DESIGNS[name]))
    M = np.eye(len(model.A)) + model.Lambda.T @ model.A @ model.Lambda
    # Condition numbers of M up to 1e4.
    assert model.point.swept.log_det == pytest.approx(np.linalg.slogdet(M)[1], rel=1e-11)
    E = model.Lambda @ np.linalg.solve(M, model.Lambda.T)
    corner = model.corner - model.border.T @ E @ model.border
    assert model.point.r2 == pytest.approx(_residual(corner), rel=1e-10)
    taken = model.point.border.cross(model.point.border)
    np.testing.assert_allclose(model.corner - taken, corner, rtol=0, atol=1e-11 * np.abs(model.corner).max())


def _residual(corner: np.ndarray) -> float:
    p = len(corner) - 1
    half = np.linalg.solve(corner[:p, :p], corner[:p, p])
    return float(corner[p, p] - corner[p, :p] @ half)


@CASES
def test_diagonal_of_the_adjoint(name):
    """The derivative of log|M| in the diagonal blocks of Z'WZ is Lambda M^-1 Lambda'."""
    design = DESIGNS[name]
    model = inside(design, random_theta(design))
    M = np.eye(len(model.A)) + model.Lambda.T @ model.A @ model.Lambda
    E = model.Lambda @ np.linalg.solve(M, model.Lambda.T)
    c = len(model.corner)
    found = model.point.swept.adjoint(model.point.border, np.zeros((c, c))).diagonal
    for ours, expected in zip(found, by_factor(model, E), strict=True):
        # Rounding only, against the largest element.
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-11 * np.abs(expected).max())


@CASES
def test_diagonal_of_the_adjoint_with_a_corner(name):
    """With F = tr(S corner) the derivative gains E B S B' E."""
    design = DESIGNS[name]
    model = inside(design, random_theta(design))
    c = len(model.corner)
    S = np.random.default_rng(0).normal(size=(c, c))
    S = S @ S.T
    E = model.Lambda @ np.linalg.solve(np.eye(len(model.A)) + model.Lambda.T @ model.A @ model.Lambda, model.Lambda.T)
    EB = E @ model.border
    found = model.point.swept.adjoint(model.point.border, S).diagonal
    for ours, expected in zip(found, by_factor(model, E + EB @ S @ EB.T), strict=True):
        # Rounding only, against the largest element.
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-10 * np.abs(expected).max())


@CASES
def test_sigma_of_the_adjoint(name):
    """d log|M| = tr(G dSigma) with G = Z'V^-1Z, summed over the levels."""
    design = DESIGNS[name]
    model = inside(design, random_theta(design))
    E = model.Lambda @ np.linalg.solve(np.eye(len(model.A)) + model.Lambda.T @ model.A @ model.Lambda, model.Lambda.T)
    G = model.A - model.A @ E @ model.A
    c = len(model.corner)
    found = model.point.swept.adjoint(model.point.border, np.zeros((c, c))).sigma
    for ours, expected in zip(found, by_factor(model, G), strict=True):
        total = expected.sum(axis=2)
        # Rounding of A - AEA, whose terms are up to 1e2 times larger than the difference.
        np.testing.assert_allclose(ours, total, rtol=0, atol=1e-9 * np.abs(total).max())


@CASES
def test_modes_solve_hendersons_equations(name):
    """[X'WX X'WZ; Z'WX Z'WZ + Sigma^-1] [beta; b] = [X'Wy; Z'Wy], on the user's scale."""
    design = DESIGNS[name]
    theta = random_theta(design, 4)
    criterion = lme4py.lmm_criterion(design)
    # One evaluation: the fit stays at theta.
    optimum = lme4py.optimize_criterion(criterion, theta, {"max_evaluations": 1})
    with pytest.warns(lme4py.ConvergenceWarning):
        fit = lme4py.make_fit(design, criterion, optimum)
    X, Z = design.X, design.Zt.T.toarray()
    w = np.ones(design.n_obs) if design.weights is None else design.weights
    y = design.y if design.offset is None else design.y - design.offset
    precision = [
        np.kron(np.eye(t.n_levels), np.linalg.inv(T @ T.T))
        for t, T in zip(design.terms, factors(design.terms, theta), strict=True)
    ]
    both = np.hstack([X, Z])
    left = both.T @ (w[:, None] * both)
    left[X.shape[1] :, X.shape[1] :] += linalg.block_diag(*precision)
    solution = np.linalg.solve(left, both.T @ (w * y))
    ours = np.concatenate([fit.beta, *[b.ravel() for b in fit.modes]])
    # Condition numbers of up to 1e6 on the dense side.
    np.testing.assert_allclose(ours, solution, rtol=0, atol=1e-9 * np.abs(solution).max())
    np.testing.assert_allclose(fit.fitted, both @ solution + (design.y - y), rtol=1e-9)


@pytest.mark.parametrize("theta", [[0.0, 0.0, 0.5], [0.7, -0.2, 0.0], [0.0, 0.0, 0.0]])
def test_modes_at_singular_theta(theta):
    design = DESIGNS["slope"]
    criterion = lme4py.lmm_criterion(design)
    point = criterion.inside.evaluate(criterion.to_inside(theta))
    modes, _ = point.swept.back_substitute(point.border, np.append(-point.beta, 1.0)[:, None])
    scaling = criterion.inside.problem.scaling
    ours = scaling.y_scale * (scaling.S[0] @ modes[0].reshape(2, -1)).T
    expected = dense(design, np.array(theta)).modes[0]
    # Rounding only; a zero variance gives zeros.
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-10)


def test_blocks_helper_agrees_with_itself():
    """The helper that picks blocks by terms, on a matrix whose blocks are known."""
    design = DESIGNS["crossed, slopes"]
    size = sum(t.n_levels * t.n_columns for t in design.terms)
    picked = blocks(design, np.diag(np.arange(size, dtype=float)))
    assert np.concatenate([np.einsum("jaa->ja", b).ravel() for b in picked]).tolist() == list(range(size))


# -- accumulation ----------------------------------------------------------------------------------


def row_block(design: Design, problem: Problem, rows: np.ndarray) -> ModelBlock:
    Z = tuple(np.hstack([design.terms[t].values for t in factor.terms])[rows] for factor in problem.factors)
    codes = tuple(design.terms[factor.terms[0]].codes[rows] for factor in problem.factors)
    XY = np.column_stack([design.X, design.y])[rows]
    return ModelBlock(XY, codes, Z, None if design.weights is None else design.weights[rows])


@pytest.mark.parametrize(
    "name", ["slope", "three terms on one factor", "nested chain and crossed", "weights", "weights, nested"]
)
@pytest.mark.parametrize("cuts", [[80], [1, 2, 159], [40, 80, 120]])
def test_accumulation_over_blocks_of_rows(name, cuts):
    """Blocks that miss levels and pairs of levels add up to the same cross-products."""
    design = DESIGNS[name]
    problem = make_problem(design)
    # Sorted by the last factor, so that a block holds only some of its levels.
    order = np.argsort(design.terms[-1].codes, kind="stable")
    parts = [row_block(design, problem, rows) for rows in np.split(order, cuts)]
    whole = accumulate([row_block(design, problem, order)], problem.factors)
    summed = accumulate(iter(parts), problem.factors)
    close = {"rtol": 1e-12, "atol": 1e-11}  # the same sums in another order; elements up to 1e3
    assert (summed.n_obs, whole.n_obs) == (160, 160)
    assert summed.sum_log_weights == pytest.approx(whole.sum_log_weights, rel=1e-13)
    np.testing.assert_allclose(summed.corner, whole.corner, **close)
    for f in range(len(problem.factors)):
        np.testing.assert_allclose(summed.diagonal[f], whole.diagonal[f], **close)
        np.testing.assert_allclose(summed.border[f], whole.border[f], **close)
    assert list(summed.edges) == list(whole.edges)
    for key, edges in whole.edges.items():
        np.testing.assert_array_equal(summed.edges[key].rows, edges.rows)
        np.testing.assert_array_equal(summed.edges[key].columns, edges.columns)
        np.testing.assert_allclose(summed.edges[key].values, edges.values, **close)


def test_cross_products_are_the_dense_ones():
    design = DESIGNS["weights"]
    problem = make_problem(design)
    cross = accumulate([row_block(design, problem, np.arange(160))], problem.factors)
    w = design.weights
    Z = design.Zt.T.toarray()
    first, second = design.terms
    own = Z[:, : first.n_levels * 2]
    expected = blocks(changed(design, terms=(first,)), own.T @ (w[:, None] * own))[0]
    # Sums of 160 products in another order.
    np.testing.assert_allclose(cross.diagonal[0], np.moveaxis(expected, 0, -1), rtol=1e-12)
    between = (own.T @ (w[:, None] * Z[:, first.n_levels * 2 :])).reshape(first.n_levels, 2, second.n_levels)
    edges = cross.edges[0, 1]
    found = np.zeros_like(between)
    found[edges.rows, :, edges.columns] = edges.values[:, 0].T
    np.testing.assert_allclose(found, between, rtol=1e-12, atol=1e-11)
    assert cross.sum_log_weights == pytest.approx(np.log(w).sum(), rel=1e-13)


# -- structure -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "eliminated", "dense_factors"),
    [
        ("slope", [0], 0),
        ("crossed", [0], 1),
        ("nested", [0, 1], 0),
        ("nested, slopes", [0, 1], 0),
        ("nested chain", [0, 1, 2], 0),
        ("nested chain and crossed", [0, 1], 2),
    ],
)
def test_nested_factors_need_no_dense_block(name, eliminated, dense_factors):
    structure = make_problem(DESIGNS[name]).symbolic
    assert [stage.factor for stage in structure.stages] == eliminated
    assert len(structure.dense) == dense_factors


def test_order_of_the_terms_does_not_matter():
    """The engine chooses its own order of elimination."""
    design = DESIGNS["nested chain and crossed"]
    backwards = changed(design, terms=design.terms[::-1])
    theta = random_theta(design)
    ends = np.cumsum([t.n_theta for t in design.terms])[:-1]
    reversed_theta = np.concatenate(np.split(theta, ends)[::-1])
    # Rounding only.
    assert lme4py.lmm_criterion(backwards)(reversed_theta) == pytest.approx(
        lme4py.lmm_criterion(design)(theta), abs=1e-10
    )


@pytest.mark.parametrize("seed", range(6))
def test_random_layouts(seed):
    """Many factors with random nesting, crossing, empty cells and several columns."""
    rng = np.random.default_rng(seed)
    n = 60
    base = rng.integers(0, 12, n)
    codes = {"a": base, "b": rng.permutation(12)[base] // 3, "c": rng.integers(0, 4, n), "d": base // 6}
    codes["e"] = np.unique(codes["c"] * 10 + base // 4, return_inverse=True)[1]
    chosen = rng.permutation(list(codes))[: rng.integers(2, 6)]
    terms = [make_term(g, codes[g], rng.normal(size=(n, rng.integers(1, 3)))) for g in chosen]
    design = make_design(rng.normal(size=n), np.column_stack([np.ones(n), rng.normal(size=n)]), terms)
    theta = random_theta(design, seed)
    criterion = lme4py.lmm_criterion(design)
    expected = dense(design, theta)
    # As for the fixed cases in test_engine_criterion.py.
    assert criterion(theta) == pytest.approx(expected.value, abs=1e-9)
    scale = max(1.0, np.abs(expected.gradient).max())
    np.testing.assert_allclose(criterion.gradient(theta), expected.gradient, rtol=0, atol=1e-9 * scale)


@pytest.mark.parametrize("size", [1.0, 1e3, 1e6, 1e9])
def test_residual_map_has_no_cancellation(size):
    """(I + A Sigma)^-1 to all digits, also where Sigma is so large that it is next to nothing."""
    rng = np.random.default_rng(2)
    codes, x = np.repeat(np.arange(6), 7), rng.normal(size=42)
    ones = np.ones(42)
    design = make_design(
        rng.normal(size=42), np.column_stack([ones, x]), [make_term("g", codes, np.column_stack([ones, x]))]
    )
    problem = make_problem(design)
    T = size * np.array([[1.0, 0.0], [-0.4, 0.7]])
    stage = Criterion(problem, True).sweeper.factorize(problem.factor_T([T]), problem.base).stages[0]
    Sigma = [[Fraction(v) for v in row] for row in T.tolist()]
    Sigma = [[sum(a * b for a, b in zip(r, s, strict=True)) for s in Sigma] for r in Sigma]
    for level in range(6):
        A = [[Fraction(v) for v in row] for row in stage.A[:, :, level].tolist()]
        M = [[sum(A[i][k] * Sigma[k][j] for k in range(2)) + (i == j) for j in range(2)] for i in range(2)]
        det = M[0][0] * M[1][1] - M[0][1] * M[1][0]
        exact = [[M[1][1] / det, -M[0][1] / det], [-M[1][0] / det, M[0][0] / det]]
        # The condition of T'AT + I, of the order of ten, times rounding; I - A E would leave size^2 times that.
        largest = max(abs(float(v)) for row in exact for v in row)
        np.testing.assert_allclose(
            stage.residual_map[:, :, level], np.array(exact, float), rtol=0, atol=1e-13 * largest
        )
