"""The engine of generalised models against dense algebra and numerical derivatives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from dense_models import make_design, make_term

from lme4py.engine.generalised.batches.stacked import StackedModel, can_stack, has_dispersions
from lme4py.engine.generalised.criteria import JointCriterion, ProfiledCriterion
from lme4py.engine.generalised.fixed_system import WeightedFixed
from lme4py.engine.generalised.hessian import difference_hessian
from lme4py.engine.generalised.integrals.quadrature import Quadrature, check_quadrature, product_rule
from lme4py.engine.generalised.laplace import laplace
from lme4py.engine.generalised.making.make import make_glmm
from lme4py.engine.generalised.problem import GlmmProblem, ModeError, ModeFinder
from lme4py.engine.generalised.products import WeightedProducts
from lme4py.engine.generalised.starts.start import find_start
from lme4py.engine.linear.problem import group_terms
from lme4py.errors import OptionError
from lme4py.families.ordered.ordinal import make_ordinal
from lme4py.families.registry import make_family
from lme4py.families.response import ResponseData

RNG = np.random.default_rng(20)
N = 240
X = np.column_stack([np.ones(N), RNG.normal(size=N) + 2.0, RNG.normal(size=N)])
ETA = 0.3 * X[:, 1] - 0.4 * X[:, 2]
G, H = RNG.integers(0, 18, N), RNG.integers(0, 7, N)
NESTED = G // 4
MU = np.exp(0.5 * ETA + 0.3 * RNG.normal(size=18)[G])

TERMS = {
    "one": [make_term("g", G, np.ones(N))],
    "slope": [make_term("g", G, X[:, :2])],
    "three": [make_term("g", G, X)],
    "diagonal": [make_term("g", G, X[:, :2], "diagonal")],
    "identity": [make_term("g", G, X[:, :2], "identity")],
    "two terms": [make_term("g", G, np.ones(N)), make_term("g", G, X[:, 1])],
    "crossed": [make_term("g", G, X[:, :2]), make_term("h", H, X[:, ::2])],
    "nested": [make_term("g", G, X[:, :2]), make_term("n", NESTED, np.ones(N))],
    "both": [make_term("g", G, X[:, :2]), make_term("h", H, np.ones(N)), make_term("n", NESTED, X[:, :2])],
}
RESPONSES = {
    "binomial": RNG.binomial(1, 0.6, N).astype(float),
    "poisson": RNG.poisson(MU).astype(float),
    "nbinomial": RNG.negative_binomial(2, 2 / (2 + MU)).astype(float),
    "nbinomial1": RNG.negative_binomial(MU, 0.5).astype(float),
    "gamma": RNG.gamma(3.0, MU / 3),
    "inverse_gaussian": RNG.wald(MU, 5.0),
    "gaussian": MU + RNG.normal(size=N),
}


def make(terms: str, family: str, link: str | None = None, expected: bool = False, **changes: Any) -> GlmmProblem:
    design = make_design(RESPONSES[family], X, TERMS[terms], **changes)
    return make_glmm(design, make_family(family, link), ResponseData(RESPONSES[family]), expected)


def some_point(problem: GlmmProblem, seed: int = 3) -> np.ndarray:
    """Parameters away from any optimum, at which every row has a possible mean."""
    rng = np.random.default_rng(seed)
    start = find_start(problem)
    theta = 0.15 * problem.structures.initial() + 0.05 * rng.normal(size=problem.n_theta)
    return problem.join(theta, start.beta + 0.02 * rng.normal(size=start.beta.size), start.lam + 0.1)


def numerical(function: Any, phi: np.ndarray, h: float = 1e-5) -> np.ndarray:
    out = []
    for i in range(phi.size):
        up, down = phi.copy(), phi.copy()
        up[i] += h
        down[i] -= h
        out.append((function(up) - function(down)) / (2 * h))
    return np.array(out)


def at(finder: ModeFinder, phi: np.ndarray) -> Any:
    theta, beta, lam = finder.problem.split(phi)
    zero = np.zeros(sum(factor.size for factor in finder.problem.factors))
    return laplace(finder, finder.find(theta, beta, lam, zero))


def dense_Z(problem: GlmmProblem) -> np.ndarray:
    return problem.products.rows.toarray()


def dense_Lambda(problem: GlmmProblem, theta: np.ndarray) -> np.ndarray:
    from scipy.linalg import block_diag

    # Rows run over columns of the factor, then levels.
    T = problem.factor_T(theta)
    return block_diag(*[np.kron(t, np.eye(f.n_levels)) for t, f in zip(T, problem.factors, strict=True)])


class TestWeightedProducts:
    @pytest.mark.parametrize("block", ["auto", "dense", "sparse", "wide", "list"])
    @pytest.mark.parametrize("terms", list(TERMS))
    def test_determinant_and_its_derivative_in_the_weights(
        self, terms: str, block: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if block == "list":
            monkeypatch.setattr(WeightedProducts, "_only_dense", lambda *_: False)
            block = "dense"
        wide = block == "wide"
        if wide:
            # No list of products fits: the first stage is eliminated by matrix products.
            monkeypatch.setattr("lme4py.engine.factor.symbolic.MAX_PRODUCTS", 1)
            monkeypatch.setattr("lme4py.engine.generalised.elements._CHUNK", 50)
            block = "dense"
        design = make_design(RESPONSES["poisson"], X, TERMS[terms])
        factors = group_terms(design)
        codes = tuple(design.terms[f.terms[0]].codes for f in factors)
        columns = tuple(np.hstack([design.terms[t].values for t in f.terms]) for f in factors)
        products = WeightedProducts(codes, columns, factors, block)
        if wide and len(factors) > 1 and terms != "nested":
            assert any(stage.products is None for stage in products.structure.stages)
        w = RNG.uniform(0.5, 2.0, N)
        T = [np.tril(0.3 + 0.1 * np.arange(f.n_columns**2).reshape(f.n_columns, -1)) for f in factors]
        swept = products.factorize(T, w)
        h, _, diagonal = products.log_det_derivatives(swept)
        Z = products.rows.toarray()
        from scipy.linalg import block_diag

        Lambda = block_diag(*[np.kron(t, np.eye(f.n_levels)) for t, f in zip(T, factors, strict=True)])
        M = np.eye(Z.shape[1]) + Lambda.T @ (Z.T * w) @ Z @ Lambda
        covariance = Lambda @ np.linalg.solve(M, Lambda.T)
        # Both sides are sums of a few hundred products of order one.
        assert swept.log_det == pytest.approx(np.linalg.slogdet(M)[1], rel=1e-11)
        np.testing.assert_allclose(h, np.einsum("na,ab,nb->n", Z, covariance, Z), rtol=1e-9)
        first = factors[0]
        own = covariance[: first.size, : first.size].reshape(first.n_columns, first.n_levels, first.n_columns, -1)
        np.testing.assert_allclose(diagonal[0], np.einsum("ajbj->abj", own), rtol=1e-9, atol=1e-12)
        column = RNG.normal(size=N)
        u, b = products.solve(swept, column)
        np.testing.assert_allclose(u, np.linalg.solve(M, Lambda.T @ Z.T @ column), rtol=1e-8, atol=1e-11)
        np.testing.assert_allclose(b, Lambda @ u, rtol=1e-10, atol=1e-13)

    def test_rows_and_columns_of_one_intercept(self) -> None:
        problem = make("one", "poisson")
        b, x = RNG.normal(size=18), RNG.normal(size=N)
        np.testing.assert_allclose(problem.products.spread(b), dense_Z(problem) @ b)
        # Sums of 13 numbers in another order.
        np.testing.assert_allclose(problem.products.gather(x), dense_Z(problem).T @ x, rtol=1e-12)

    def test_one_intercept_is_fitted_without_sparse_matrices(self) -> None:
        problem = make("one", "poisson")
        found = at(ModeFinder(problem), some_point(problem))
        assert np.isfinite(found.gradient).all()
        assert not {"rows", "columns"} & set(vars(problem.products))

    @pytest.mark.parametrize("terms", ["one", "slope", "three", "two terms"])
    def test_levels_of_one_factor_are_solved_as_those_of_several(self, terms: str) -> None:
        rng, problem = np.random.default_rng(4), make(terms, "poisson")
        products, T = problem.products, problem.factor_T(0.3 * problem.structures.initial())
        swept = products.factorize(T, rng.uniform(0.5, 2.0, N))
        column = rng.normal(size=sum(factor.size for factor in problem.factors))
        assert products.is_alone
        found = []
        for alone in (True, False):
            products.is_alone = alone
            dv, sigma, diagonal = products.element_derivatives(swept)
            found.append([*products.solve_gathered(swept, column), dv, *sigma, *diagonal])
        for one, other in zip(*found, strict=True):
            np.testing.assert_array_equal(one, other)

    def test_a_dense_block_is_multiplied_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What the elements of the coupling take of it gives the diagonal blocks too."""
        monkeypatch.setattr("lme4py.engine.factor.symbolic.MAX_PRODUCTS", 1)
        monkeypatch.setattr("lme4py.engine.factor.adjoint.gram_adjoint", None)
        problem = make("crossed", "poisson")
        T = problem.factor_T(0.3 * problem.structures.initial())
        w = np.random.default_rng(4).uniform(0.5, 2.0, N)
        h = problem.products.log_det_derivatives(problem.products.factorize(T, w))[0]
        Z, Lambda = dense_Z(problem), dense_Lambda(problem, 0.3 * problem.structures.initial())
        M = np.eye(Z.shape[1]) + Lambda.T @ (Z.T * w) @ Z @ Lambda
        # Sums of a few hundred products of order one.
        np.testing.assert_allclose(h, np.einsum("na,an->n", Z @ Lambda, np.linalg.solve(M, Lambda.T @ Z.T)), rtol=1e-9)


class TestMode:
    @pytest.mark.parametrize(("family", "link"), [("binomial", "logit"), ("poisson", "log"), ("gamma", "log")])
    def test_the_gradient_vanishes_at_the_mode(self, family: str, link: str) -> None:
        problem = make("crossed", family, link)
        finder = ModeFinder(problem)
        phi = some_point(problem)
        mode = at(finder, phi).mode
        theta, beta, lam = problem.split(phi)
        Z, Lambda = dense_Z(problem), dense_Lambda(problem, theta)
        eta = problem.X @ beta + Z @ Lambda @ mode.u
        score = problem.family.derivatives(problem.data, eta, lam, 1).score
        # The square root of the tolerance of the mode.
        np.testing.assert_allclose(Lambda.T @ Z.T @ score, mode.u, atol=1e-7)

    def test_a_far_start_reaches_the_same_mode(self) -> None:
        finder = ModeFinder(make("slope", "poisson"))
        phi = some_point(finder.problem)
        theta, beta, lam = finder.problem.split(phi)
        near = at(finder, phi).mode
        far = finder.find(theta, beta, lam, np.full(near.u.size, 6.0))
        # Both stop where the penalised deviance can fall by 1e-15.
        np.testing.assert_allclose(far.u, near.u, atol=1e-7)
        assert far.steps > near.steps

    def test_an_impossible_start_is_an_error(self) -> None:
        problem = make("one", "gamma", "identity")
        with pytest.raises(ModeError, match="likelihood is zero"):
            ModeFinder(problem).find(np.ones(1), np.array([-5.0, 0, 0]), 0.0, np.zeros(18))

    def test_prediction_is_of_second_order(self) -> None:
        finder = ModeFinder(make("crossed", "nbinomial"))
        phi = some_point(finder.problem)
        found = at(finder, phi)
        direction = np.random.default_rng(0).normal(size=phi.size)
        errors = []
        for h in (1e-2, 1e-3):
            moved = phi + h * direction
            errors.append(np.abs(finder.predict(found, moved) - at(finder, moved).mode.u).max())
        # A step of a tenth leaves a hundredth of the error, up to terms of third order.
        assert errors[1] < 0.02 * errors[0]


CASES = [
    ("one", "binomial", "logit", False),
    ("slope", "binomial", "probit", False),
    ("slope", "binomial", "probit", True),
    ("diagonal", "binomial", "cloglog", True),
    ("identity", "binomial", "cauchit", True),
    ("two terms", "poisson", "log", False),
    ("crossed", "poisson", "sqrt", False),
    ("nested", "poisson", "log", False),
    ("both", "binomial", "logit", False),
    ("both", "nbinomial", "log", True),
    ("crossed", "nbinomial", "log", False),
    ("one", "nbinomial1", "log", False),
    ("nested", "gamma", "log", False),
    ("slope", "gamma", "inverse", False),
    ("one", "gamma", "inverse", True),
    ("slope", "inverse_gaussian", "log", False),
    ("crossed", "gaussian", "identity", False),
    ("one", "gaussian", "log", False),
]


@pytest.mark.parametrize(("terms", "family", "link", "expected"), CASES)
def test_laplace_and_its_gradient(terms: str, family: str, link: str, expected: bool) -> None:
    problem = make(terms, family, link, expected)
    finder = ModeFinder(problem)
    phi = some_point(problem)
    found = at(finder, phi)
    theta, beta, lam = problem.split(phi)
    Z, Lambda = dense_Z(problem), dense_Lambda(problem, theta)
    eta = problem.X @ beta + Z @ Lambda @ found.mode.u
    rows = problem.family.derivatives(problem.data, eta, lam, 2)
    w = rows.w_exp if expected else rows.w_obs
    M = np.eye(Z.shape[1]) + Lambda.T @ (Z.T * w) @ Z @ Lambda
    value = -2 * rows.loglik.sum() + found.mode.u @ found.mode.u + np.linalg.slogdet(M)[1]
    assert found.value == pytest.approx(value, rel=1e-10)
    difference = numerical(lambda point: at(finder, point).value, phi)
    # Central differences with h = 1e-5 of values with 1e-12 noise.
    np.testing.assert_allclose(found.gradient, difference, atol=2e-6 * np.abs(difference).max())


@pytest.mark.parametrize(("terms", "family", "link"), [("slope", "poisson", "log"), ("crossed", "gamma", "log")])
def test_gradient_with_fixed_effects_in_the_mode(terms: str, family: str, link: str) -> None:
    problem = make(terms, family, link)
    finder = ModeFinder(problem)
    phi = some_point(problem)
    theta, beta, lam = problem.split(phi)
    zero = np.zeros(sum(factor.size for factor in problem.factors))

    def evaluate(x: np.ndarray) -> Any:
        own_lam = float(x[-1]) if problem.n_dispersion else 0.0
        mode = finder.find(x[: problem.n_theta], beta, own_lam, zero, joint=True)
        return laplace(finder, mode, profiled=True)

    x = np.append(theta, lam) if problem.n_dispersion else theta
    difference = numerical(lambda point: evaluate(point).value, x)
    # As above.
    np.testing.assert_allclose(evaluate(x).gradient, difference, atol=2e-6 * np.abs(difference).max())


class TestQuadrature:
    @pytest.mark.parametrize(
        ("terms", "family", "link", "expected"), [c for c in CASES if c[0] not in ("crossed", "nested", "both")]
    )
    @pytest.mark.parametrize("points", [2, 3])
    def test_gradient(self, terms: str, family: str, link: str, expected: bool, points: int) -> None:
        problem = make(terms, family, link, expected)
        finder = ModeFinder(problem)
        rule = Quadrature(finder, points)
        phi = some_point(problem)
        difference = numerical(lambda point: rule(at(finder, point))[0], phi)
        # Central differences, as for the Laplace approximation.
        np.testing.assert_allclose(rule(at(finder, phi))[1], difference, atol=2e-6 * np.abs(difference).max())

    def test_one_point_is_laplace(self) -> None:
        problem = make("three", "binomial")
        finder = ModeFinder(problem)
        found = at(finder, some_point(problem))
        value, gradient = Quadrature(finder, 1)(found)
        assert value == pytest.approx(found.value, rel=1e-12)
        np.testing.assert_allclose(gradient, found.gradient, atol=1e-7 * np.abs(found.gradient).max())

    def test_a_gaussian_integral_is_exact_with_any_number_of_points(self) -> None:
        problem = make("slope", "gaussian", "identity")
        finder = ModeFinder(problem)
        found = at(finder, some_point(problem))
        for points in (1, 2, 5):
            assert Quadrature(finder, points).value(found) == pytest.approx(found.value, rel=1e-12)

    @pytest.mark.parametrize("terms", ["one", "slope"])
    def test_against_a_dense_integral(self, terms: str) -> None:
        problem = make(terms, "binomial")
        finder = ModeFinder(problem)
        phi = some_point(problem)
        phi[0] = 0.8
        theta, beta, _ = problem.split(phi)
        T, k = problem.factor_T(theta)[0], problem.factors[0].n_columns
        grid = np.linspace(-8, 8, 161)
        nodes = np.stack(np.meshgrid(*[grid] * k, indexing="ij"), axis=-1).reshape(-1, k)
        log_prior = -0.5 * (nodes**2).sum(axis=1) + k * np.log((grid[1] - grid[0]) / np.sqrt(2 * np.pi))
        total = 0.0
        Zt = problem.products.rows
        codes, values = Zt.indices[::k] % problem.factors[0].n_levels, Zt.data.reshape(-1, k)
        for j in range(problem.factors[0].n_levels):
            rows = codes == j
            eta = problem.X[rows] @ beta + nodes @ (values[rows] @ T).T
            data = ResponseData(problem.data.y[rows])
            loglik = problem.family.derivatives(data, eta, 0.0, 0).loglik.sum(axis=1)
            total -= 2 * np.logaddexp.reduce(loglik + log_prior)
        # The trapezoidal rule with a step of a tenth is exact to rounding for such smooth integrands.
        assert Quadrature(finder, 15).value(at(finder, phi)) == pytest.approx(total, rel=1e-9)

    def test_rows_in_blocks_give_the_same(self, monkeypatch: pytest.MonkeyPatch) -> None:
        problem = make("slope", "gamma")
        finder = ModeFinder(problem)
        found = at(finder, some_point(problem))
        whole = Quadrature(finder, 4)(found)
        monkeypatch.setattr("lme4py.engine.generalised.integrals.quadrature._CHUNK", 3 * N)
        parts = Quadrature(finder, 4)(found)
        assert parts[0] == pytest.approx(whole[0], rel=1e-13)
        # The same sums in another order.
        np.testing.assert_allclose(parts[1], whole[1], rtol=1e-9, atol=1e-9)

    def test_the_rule_integrates_polynomials(self) -> None:
        rule = product_rule(4, 2)
        w = np.exp(rule.log_weight - 0.5 * (rule.x**2).sum(axis=1))
        assert w.sum() == pytest.approx(1.0)
        # Moments of the normal distribution: 3 for x^4, 15 for x^6.
        assert (w * rule.x[:, 0] ** 4).sum() == pytest.approx(3.0)
        assert (w * rule.x[:, 0] ** 6 * rule.x[:, 1] ** 2).sum() == pytest.approx(15.0)

    def test_what_cannot_be_integrated_is_refused(self) -> None:
        with pytest.raises(OptionError, match="one grouping factor"):
            check_quadrature(make("crossed", "poisson"), 5)
        with pytest.raises(OptionError, match="use nAGQ=27 or less"):
            check_quadrature(make("three", "poisson"), 40)


def test_rows_with_all_derivatives_are_asked_for_where_a_mode_is_expected(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = make("one", "gamma")
    finder, start = ModeFinder(problem), find_start(problem)
    orders: list[int] = []
    rows = ModeFinder.rows
    monkeypatch.setattr(ModeFinder, "rows", lambda self, *args: orders.append(args[-1]) or rows(self, *args))

    rough = ProfiledCriterion(finder, start.beta)
    found = rough.evaluate(np.append(start.theta, start.lam), 1e-6)
    assert found is not None
    # Nowhere twice, first without and then with all derivatives.
    assert found.mode.complete
    assert orders == [2, 2, 2, 3]

    joint = JointCriterion(finder)
    joint.base = found
    phi = problem.join(found.mode.theta, found.mode.beta, found.mode.lam)
    orders.clear()
    first = joint.evaluate(phi)
    assert first is not None
    # The rows at the base are known; the first mode was sought less exactly.
    assert orders == [3]
    orders.clear()
    beside = joint.evaluate(phi + 1e-6)
    assert beside is not None
    assert orders == [3]
    whole = JointCriterion(ModeFinder(problem)).evaluate(phi + 1e-6)
    assert whole is not None
    # Modes are off by the root of a decrement of 1e-15, and so are log|M| and its derivatives.
    assert beside[1] == pytest.approx(whole[1], abs=1e-7)
    np.testing.assert_allclose(beside[2], whole[2], rtol=1e-6, atol=1e-6)


def test_difference_hessian() -> None:
    problem = make("slope", "nbinomial")
    finder = ModeFinder(problem)
    criterion = JointCriterion(finder)
    phi = some_point(problem)
    found, value, _ = criterion.evaluate(phi)  # type: ignore[misc]
    assert value == found.value
    rough = np.eye(phi.size) * 100.0
    hessian = difference_hessian(lambda points: np.array([at(finder, x).gradient for x in points]), phi, rough)
    beside = difference_hessian(
        lambda points: np.array([criterion.evaluate(x, beside=True)[2] for x in points]),  # type: ignore[index]
        phi,
        rough,
    )
    # Modes from the first-order prediction leave an error of the square of the step, 1e-8.
    np.testing.assert_allclose(beside, hessian, atol=1e-5 * np.abs(hessian).max())


@pytest.mark.parametrize("expected", [False, True])
@pytest.mark.parametrize(
    ("family", "link"),
    [
        ("poisson", "log"),
        ("poisson", "sqrt"),
        ("binomial", "logit"),
        ("binomial", "cloglog"),
        ("nbinomial", "log"),
        ("nbinomial1", "identity"),
        ("gamma", "log"),
        ("gaussian", "identity"),
    ],
)
@pytest.mark.parametrize("terms", ["one", "slope", "three", "two terms"])
def test_stacked_gradients_are_those_of_single_points(family: str, link: str, expected: bool, terms: str) -> None:
    if (terms, family) == ("slope", "nbinomial1"):
        # No predictor of the steps to the mode gives every row a mean above zero.
        terms = "diagonal"
    _stack_agrees(make(terms, family, link, expected))


@pytest.mark.parametrize("terms", ["diagonal", "identity"])
def test_stacked_gradients_of_structures(terms: str) -> None:
    _stack_agrees(make(terms, "poisson"))


@pytest.mark.parametrize("terms", ["crossed", "nested"])
def test_several_factors_are_not_stacked(terms: str) -> None:
    assert not can_stack(make(terms, "poisson"))


@pytest.mark.parametrize("expected", [False, True])
@pytest.mark.parametrize("threshold", ["flexible", "equidistant"])
@pytest.mark.parametrize("link", ["logit", "probit", "cloglog", "loglog"])
@pytest.mark.parametrize("terms", ["one", "slope"])
def test_stacked_gradients_of_ordered_categories(link: str, threshold: str, expected: bool, terms: str) -> None:
    codes = RNG.integers(0, 4, N)
    design = make_design(codes.astype(float), X[:, 1:], TERMS[terms])
    weights = RNG.integers(1, 4, N).astype(float)
    data = ResponseData(codes.astype(float), weights=weights, categories=("a", "b", "c", "d"))
    _stack_agrees(make_glmm(design, make_ordinal(link, threshold, 4), data, expected))


def _stack_agrees(problem: GlmmProblem) -> None:
    """Points beside one with its dispersion or thresholds, as the difference Hessian asks for them."""
    assert can_stack(problem)
    finder, phi = ModeFinder(problem), some_point(problem)
    # Dispersions may differ between the points where the family takes one for each.
    steps = 1e-3 * np.eye(phi.size)[: phi.size if has_dispersions(problem) else problem.n_theta + problem.n_fixed]
    points = phi + np.vstack([steps, -steps])
    found = StackedModel(problem).gradients(points, at(finder, phi))
    single = np.array([at(finder, point).gradient for point in points])
    # Both modes are found to a decrement of 1e-15.
    np.testing.assert_allclose(found, single, atol=1e-9 * np.abs(single).max())


def test_a_value_alone_needs_no_derivative(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = make("one", "binomial")
    start = find_start(problem)
    whole = ProfiledCriterion(ModeFinder(problem), start.beta).evaluate(start.theta)
    assert whole is not None
    monkeypatch.setattr("lme4py.engine.generalised.laplace.Laplace._gradient", None)
    alone = ProfiledCriterion(ModeFinder(problem), start.beta).evaluate(start.theta, only_value=True)
    assert alone is not None
    assert alone.value == whole.value


def test_starts_of_many_rows_are_those_of_few(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = make("one", "poisson")
    found = []
    for least in (N + 1, N):
        monkeypatch.setattr("lme4py.engine.generalised.starts.start._NORMAL_FROM", least)
        found.append(find_start(problem))
    few, many = found
    assert (many.beta != few.beta).any()
    # Rounding of normal equations of columns of size one.
    np.testing.assert_allclose(many.beta, few.beta, rtol=1e-9)


def test_sums_of_a_column_of_ones_are_taken_from_the_factor() -> None:
    problem = make("one", "poisson")
    products, w = problem.products, np.random.default_rng(4).uniform(0.5, 2.0, N)
    swept = products.factorize(problem.factor_T(np.ones(1)), w)
    swept.base.diagonal[0][0, 0, 3] += 1.0
    fixed, plain = WeightedFixed.of(problem, swept, w), products.weighted_cross(w, problem.X)
    assert problem.has_ones
    np.testing.assert_array_equal(fixed.gram, plain[1])
    np.testing.assert_array_equal(fixed.whole[:, 1:], plain[0][0][:, 1:])
    np.testing.assert_array_equal(np.flatnonzero(fixed.whole[:, 0] != plain[0][0][:, 0]), [3])
