"""The sparse block after the stages: ordering, factor, the inverse on the pattern, and fits against a dense block."""

from __future__ import annotations

import numpy as np
import pytest
from dense_models import CONTROLLER, DESIGNS, make_design, make_term, random_theta
from scipy import sparse

import lme4py
from lme4py.design.design import Design
from lme4py.engine.factor import forecast
from lme4py.engine.factor import symbolic as structure
from lme4py.engine.factor.sparse_block import SparseFactor
from lme4py.engine.factor.symbolic import analyse
from lme4py.engine.generalised import elements as weighted
from lme4py.engine.generalised.laplace import laplace
from lme4py.engine.generalised.making.make import make_glmm
from lme4py.engine.generalised.problem import ModeFinder
from lme4py.engine.linear import problem as lmm
from lme4py.errors import DesignError
from lme4py.families.registry import make_family
from lme4py.families.response import ResponseData
from lme4py.fits.kinds import model_of
from lme4py.linalg import cholesky, ordering, supernodes
from lme4py.linalg.ordering import minimum_degree
from lme4py.linalg.supernodes import NodeColumns, SparseCholesky, Symbolic, analyse_pattern

CROSSED = [
    "crossed",
    "crossed, slopes",
    "crossed, diagonal",
    "nested chain and crossed",
    "weights",
    "weights and offset",
    "no fixed intercept",
]


@pytest.fixture(autouse=True)
def one_thread():
    """Threads of BLAS cost more than they bring for matrices of this size."""
    with CONTROLLER.limit(limits=1, user_api="blas"):
        yield


# -- graphs ----------------------------------------------------------------------------------------


def graph_of(n: int, rows: np.ndarray, columns: np.ndarray) -> sparse.csr_array:
    """Symmetric pattern without a diagonal."""
    table = sparse.coo_array((np.ones(rows.size), (rows, columns)), shape=(n, n)).tocsr()
    table = (table + table.T).tocoo()
    off = table.row != table.col
    index = (table.row[off], table.col[off])
    return sparse.coo_array((np.ones(index[0].size, dtype=np.int32), index), shape=(n, n)).tocsr()


def graphs() -> dict[str, sparse.csr_array]:
    rng = np.random.default_rng(4)
    none = np.zeros(0, dtype=int)
    line = np.arange(199)
    grid = np.arange(400).reshape(20, 20)
    across, down = (grid[:, :-1].ravel(), grid[:, 1:].ravel()), (grid[:-1].ravel(), grid[1:].ravel())
    return {
        "one node": graph_of(1, none, none),
        "no edges": graph_of(40, none, none),
        "path": graph_of(200, line, line + 1),
        "star": graph_of(100, np.zeros(99, dtype=int), np.arange(1, 100)),
        "full": graph_of(60, *np.triu_indices(60, 1)),
        "grid": graph_of(400, np.concatenate([across[0], down[0]]), np.concatenate([across[1], down[1]])),
        "random, several components": graph_of(150, rng.integers(0, 150, 110), rng.integers(0, 150, 110)),
        "random": graph_of(120, rng.integers(0, 120, 340), rng.integers(0, 120, 340)),
    }


GRAPHS = graphs()


def symbolic_of(graph: sparse.csr_array, k: int, max_degree: float = np.inf) -> Symbolic:
    n = graph.shape[0]
    ordering = minimum_degree(graph, np.full(n, k), max_degree)
    assert sorted(ordering.order.tolist()) == list(range(n))
    return analyse_pattern(graph, ordering, NodeColumns(np.full(n, k), np.arange(n * k)))


def matrix_on(graph: sparse.csr_array, k: int) -> np.ndarray:
    """A positive definite matrix with blocks of k x k on the pattern."""
    rng = np.random.default_rng(7)
    pattern = np.kron(graph.toarray() != 0, np.ones((k, k))) + np.kron(np.eye(graph.shape[0]), np.ones((k, k)))
    half = rng.normal(size=pattern.shape) * pattern
    S = half + half.T
    return S + np.diag(np.abs(S).sum(axis=1) + rng.uniform(0.1, 1.0, S.shape[0]))


@pytest.mark.parametrize("max_degree", [np.inf, 0.0])
@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("name", GRAPHS)
def test_factor_solve_and_inverse_are_those_of_the_dense_matrix(name, k, max_degree):
    """With max_degree 0 the ordering gives up at once and all columns are taken as full."""
    graph = GRAPHS[name]
    S = matrix_on(graph, k)
    symbolic = symbolic_of(graph, k, max_degree)
    rows, columns = np.nonzero(S)
    positions = symbolic.panel_positions(rows, columns)
    factor = SparseCholesky(symbolic, positions, S[rows, columns])
    right = np.random.default_rng(1).normal(size=(S.shape[0], 4))
    # The matrices are diagonally dominant: rounding errors of a few hundred operations.
    assert factor.log_det == pytest.approx(np.linalg.slogdet(S)[1], rel=1e-12, abs=1e-12)
    np.testing.assert_allclose(S @ factor.solve(right), right, rtol=0, atol=1e-11)
    inverse = np.linalg.inv(S)
    np.testing.assert_allclose(
        factor.inverse()[positions], inverse[rows, columns], rtol=0, atol=1e-11 * np.abs(inverse).max()
    )


def family_graph(sires: int, dams: int, offspring: int, generations: int, seed: int) -> sparse.csr_array:
    """Animals, their parents and mates: a few sires in every generation, whose offspring have dams of their own."""
    rng = np.random.default_rng(seed)
    per = sires + dams + offspring
    own, sire, dam = [], [], []
    for g in range(1, generations):
        own.append(g * per + np.arange(per))
        sire.append((g - 1) * per + rng.integers(0, sires, per))
        dam.append((g - 1) * per + sires + rng.integers(0, dams, per))
    i, s, d = (np.concatenate(part) for part in (own, sire, dam))
    return graph_of(generations * per, np.concatenate([i, i, s]), np.concatenate([s, d, d]))


@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("batches", [True, False])
def test_families_are_factored_many_animals_at_a_time(batches, k, monkeypatch):
    if not batches:
        monkeypatch.setattr(supernodes, "_LISTED", -1)
    monkeypatch.setattr(ordering, "_HUBS_FROM", 20)
    graph = family_graph(2, 12, 20, 4, 3)
    n = graph.shape[0]
    order = minimum_degree(graph, np.full(n, k), np.inf, hubs=True)
    assert sorted(order.order.tolist()) == list(range(n))
    assert order.n_open == 0
    # Sires of the second and third generation, who have mates, offspring and parents, come last.
    assert {34, 35, 68, 69} <= set(order.order[-6:].tolist())
    assert order.n_leaves > 60
    symbolic = analyse_pattern(graph, order, NodeColumns(np.full(n, k), np.arange(n * k)))
    assert bool(symbolic.batches) == batches
    S = matrix_on(graph, k)
    rows, columns = np.nonzero(S)
    positions = symbolic.panel_positions(rows, columns)
    factor = SparseCholesky(symbolic, positions, S[rows, columns])
    right = np.random.default_rng(1).normal(size=(n * k, 4))
    inverse = np.linalg.inv(S)
    # As above.
    assert factor.log_det == pytest.approx(np.linalg.slogdet(S)[1], rel=1e-12)
    np.testing.assert_allclose(S @ factor.solve(right), right, rtol=0, atol=1e-11)
    np.testing.assert_allclose(
        factor.inverse()[positions], inverse[rows, columns], rtol=0, atol=1e-11 * np.abs(inverse).max()
    )
    for animal in (0, n - 1):
        worse = S.copy()
        worse[animal * k, animal * k] = -1.0
        with pytest.raises(np.linalg.LinAlgError, match="not positive definite"):
            SparseCholesky(symbolic, positions, worse[rows, columns])


def test_few_sires_cost_few_elements():
    """Dams under 20 sires a generation: a pattern that grows with the animals, and a small full block of sires."""
    graph = family_graph(20, 500, 500, 5, 4)
    n = graph.shape[0]
    order = minimum_degree(graph, np.full(n, 1), np.inf, hubs=True)
    symbolic = analyse_pattern(graph, order, NodeColumns(np.full(n, 1), np.arange(n)))
    # Measured 8 an animal; the lower triangle has 2,550.
    assert symbolic.panel_size < 20 * n


def test_order_keeps_the_fill_small():
    """Trees have no fill at all, a grid of m x m nodes O(m^2 log m)."""
    # What is stored beyond that are the zeros of small supernodes of at most 24 columns.
    assert symbolic_of(GRAPHS["star"], 1).panel_size < 3 * 100
    assert symbolic_of(GRAPHS["path"], 1).panel_size < 26 * 200
    # A fifth of the dense half.
    assert symbolic_of(GRAPHS["grid"], 1).panel_size < 400**2 / 10


def test_indefinite_matrices_are_refused():
    graph = GRAPHS["path"]
    symbolic = symbolic_of(graph, 1)
    S = matrix_on(graph, 1)
    S[100, 100] = -1.0
    rows, columns = np.nonzero(S)
    with pytest.raises(np.linalg.LinAlgError, match="not positive definite"):
        SparseCholesky(symbolic, symbolic.panel_positions(rows, columns), S[rows, columns])


@pytest.mark.parametrize("clean", [False, True])
def test_large_dense_matrices_are_factored_by_blocks(clean, monkeypatch):
    """The blocked algorithm, at a size where LAPACK's can be compared."""
    rng = np.random.default_rng(5)
    M = rng.normal(size=(23, 40))
    A = M @ M.T
    expected = np.linalg.cholesky(A).T
    monkeypatch.setattr(cholesky, "_LARGEST", 10)
    monkeypatch.setattr(cholesky, "_BLOCK", 6)
    U = cholesky.upper_cholesky(np.asfortranarray(np.triu(A)), clean)
    # A well conditioned matrix: rounding only.
    np.testing.assert_allclose(np.triu(U), expected, rtol=0, atol=1e-12)
    if clean:
        assert not np.tril(U, -1).any()
    A[20, 20] = -1.0
    with pytest.raises(np.linalg.LinAlgError, match="not positive definite"):
        cholesky.upper_cholesky(np.asfortranarray(A))


# -- models both ways ------------------------------------------------------------------------------


def use(monkeypatch: pytest.MonkeyPatch, block: str) -> None:
    """Every model takes this block."""
    for module in (lmm, weighted):
        monkeypatch.setattr(module, "analyse", lambda factors, cross, *_, **__: analyse(factors, cross, block))


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("name", CROSSED)
def test_criterion_and_derivatives(name, zero, reml, monkeypatch):
    """Also where the covariance of a term in the block is singular."""
    design = DESIGNS[name]
    theta = random_theta(design)
    if zero:
        theta[-1] = 0.0
    found = {}
    for block in ("dense", "sparse"):
        use(monkeypatch, block)
        criterion = lme4py.lmm_criterion(design, reml).inside
        point = criterion.evaluate(theta)
        derivatives = criterion.derivatives(point)
        modes, residuals = point.swept.back_substitute(point.border, np.append(-point.beta, 1.0)[:, None])
        found[block] = (point, derivatives, np.concatenate(modes), np.concatenate(residuals))
        assert isinstance(point.swept.dense, SparseFactor) == (block == "sparse")
    dense, own = found["dense"], found["sparse"]
    # The same numbers in another order of elimination.
    assert own[0].value == pytest.approx(dense[0].value, rel=1e-12)
    for ours, theirs in (
        (own[1].gradient, dense[1].gradient),
        (own[1].hessian, dense[1].hessian),
        (own[2], dense[2]),
        (own[3], dense[3]),
    ):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-10 * np.abs(theirs).max())


@pytest.mark.parametrize("name", ["crossed, slopes", "nested chain and crossed", "weights"])
def test_fits(name, monkeypatch):
    fits = {}
    for block in ("dense", "sparse"):
        use(monkeypatch, block)
        fits[block] = lme4py.lmm_fit(DESIGNS[name])
    dense, own = fits["dense"], fits["sparse"]
    assert own.problem.symbolic.sparse is not None
    # Two runs of the optimiser end within its tolerance of 1e-12 in the criterion, the root of that in theta.
    assert own.criterion == pytest.approx(dense.criterion, rel=1e-12)
    np.testing.assert_allclose(own.theta, dense.theta, rtol=0, atol=1e-6)
    for include_fixed in (False, True):
        for ours, theirs in zip(
            model_of(own).conditional_covariances(include_fixed=include_fixed),
            model_of(dense).conditional_covariances(include_fixed=include_fixed),
            strict=True,
        ):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)


def test_conditional_covariances_at_the_same_theta(monkeypatch):
    """All derivatives in the diagonal blocks, with fixed effects known and uncertain."""
    design = DESIGNS["nested chain and crossed"]
    blocks = {}
    for block in ("dense", "sparse"):
        use(monkeypatch, block)
        point = lme4py.lmm_criterion(design).inside.evaluate(random_theta(design))
        corner = np.diag([1.0, 2.0, 3.0, 0.0])
        blocks[block] = point.swept.adjoint(point.border, corner, blocks=True)
    for ours, theirs in zip(blocks["sparse"].diagonal, blocks["dense"].diagonal, strict=True):
        # Rounding only.
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-10 * np.abs(theirs).max())
    np.testing.assert_allclose(blocks["sparse"].values, blocks["dense"].values, rtol=0, atol=1e-9)
    np.testing.assert_allclose(blocks["sparse"].coupling, blocks["dense"].coupling, rtol=0, atol=1e-9)


def test_generalised_models(monkeypatch):
    """Weights that change: value and gradient of the Laplace criterion."""
    rng = np.random.default_rng(8)
    n = 300
    X = np.column_stack([np.ones(n), rng.normal(size=n)])
    terms = [
        make_term("g", rng.integers(0, 20, n), np.ones(n)),
        make_term("h", rng.integers(0, 9, n), X),
        make_term("i", rng.integers(0, 6, n), np.ones(n)),
    ]
    y = rng.poisson(2.0, n).astype(float)
    design = make_design(y, X, terms)
    found = {}
    for block in ("dense", "sparse"):
        use(monkeypatch, block)
        problem = make_glmm(design, make_family("poisson", None), ResponseData(y), False)
        assert (problem.products.structure.sparse is None) == (block == "dense")
        finder = ModeFinder(problem)
        size = sum(factor.size for factor in problem.factors)
        mode = finder.find(np.array([0.4, 0.3, 0.1, 0.2, 0.3]), np.array([0.5, 0.1]), 0.0, np.zeros(size))
        found[block] = laplace(finder, mode)
    dense, own = found["dense"], found["sparse"]
    # The mode is found to about 1e-8, the square of which is in the value.
    assert own.value == pytest.approx(dense.value, rel=1e-12)
    np.testing.assert_allclose(own.gradient, dense.gradient, rtol=0, atol=1e-7)
    np.testing.assert_allclose(own.mode.b, dense.mode.b, rtol=0, atol=1e-7)


# -- the choice ------------------------------------------------------------------------------------


def workers_and_firms(n_workers: int, n_firms: int, local: bool) -> Design:
    """Three years of each worker, in firms next to each other or anywhere."""
    rng = np.random.default_rng(3)
    worker = np.repeat(np.arange(n_workers), 3)
    if local:
        firm = (np.repeat(rng.integers(0, n_firms, n_workers), 3) + rng.integers(0, 11, worker.size)) % n_firms
    else:
        firm = rng.integers(0, n_firms, worker.size)
    y = rng.normal(size=n_workers)[worker] + 0.5 * rng.normal(size=n_firms)[firm] + rng.normal(size=worker.size)
    one = np.ones(worker.size)
    return make_design(y, one[:, None], [make_term("worker", worker, one), make_term("firm", firm, one)])


def test_local_mobility_is_sparse_and_random_mobility_dense(monkeypatch):
    monkeypatch.setattr(structure, "SPARSE_FROM", 1500)
    local = workers_and_firms(20_000, 2000, local=True)
    problem = lmm.make_problem(local)
    block = problem.symbolic.sparse
    assert block is not None
    # 11 neighbouring firms on either side; the factor has about twice the elements of the band.
    assert block.n_elements < 11 * 2000
    assert block.symbolic.panel_size < 100 * 2000
    # Nothing of the size of the dense matrix is laid out.
    assert problem.base.block.shape == (block.n_elements,)
    fit = lme4py.lmm_fit(local)
    assert fit.certificate.converged
    # The truth is (1, 0.5) and 20,000 workers.
    np.testing.assert_allclose(fit.theta, [1.0, 0.5], rtol=0, atol=0.05)
    random = lmm.make_problem(workers_and_firms(20_000, 2000, local=False)).symbolic
    assert random.sparse is None
    assert random.forecast is not None
    assert random.forecast.sparse_seconds > 0.5 * random.forecast.dense_seconds


def test_small_blocks_are_dense_without_a_forecast(monkeypatch):
    monkeypatch.setattr(structure, "SPARSE_FROM", 3000)
    found = lmm.make_problem(workers_and_firms(2000, 200, local=True)).symbolic
    assert found.sparse is None
    assert found.forecast is None


def test_too_little_memory_is_an_error_before_anything_is_laid_out(monkeypatch):
    monkeypatch.setattr(structure, "SPARSE_FROM", 100)
    monkeypatch.setattr(forecast, "available_memory", lambda: 10 * 2.0**20)
    # Two matrices of 900 x 900 take 12.4 MB.
    with pytest.raises(DesignError) as caught:
        lmm.make_problem(workers_and_firms(9000, 900, local=False))
    message = str(caught.value)
    for part in ("firm (900)", "900 x 900", "about 12.4 MB", "10.0 MB of memory are free"):
        assert part in message
    assert "Kept sparse they would need" in message
    assert "Leave one of these" in message
    # With neighbours only, the sparse block fits.
    assert lmm.make_problem(workers_and_firms(9000, 900, local=True)).symbolic.sparse is not None
