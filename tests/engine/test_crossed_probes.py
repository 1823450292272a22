"""Derivatives of log-determinants of crossed effects in the weights of the rows, beside dense algebra."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg

import lme4py
from lme4py.engine.factor.crossed import CrossedAt, CrossedTables
from lme4py.engine.factor.crossed_probes import CrossedProbes, WeightChange
from lme4py.engine.factor.crossproducts import CrossProducts
from lme4py.engine.linear.problem import make_problem

FORMULAS = {
    "scalar": "y ~ x + (1 | a) + (1 | b)",
    "the larger one last": "y ~ x + (1 | c) + (1 | a)",
    "slopes": "y ~ x + (x | a) + (0 + x | b)",
    "three": "y ~ x + (1 | a) + (1 | b) + (x | c)",
}


def made(formula: str):
    rng = np.random.default_rng(3)
    a, b, c = rng.integers(0, 40, 500), rng.integers(0, 25, 500), rng.integers(0, 12, 500)
    data = {"y": rng.standard_normal(500), "x": rng.standard_normal(500), "a": a, "b": b, "c": c}
    problem = make_problem(lme4py.lformula(formula, data))
    theta = problem.structures.initial() * 0.8 + 0.02
    return problem, problem.factor_T(problem.structures.factors(theta))


def dense(cross: CrossProducts, factors) -> np.ndarray:
    """Z'WZ."""
    starts = np.cumsum([0, *(factor.size for factor in factors)])
    out = np.zeros((starts[-1], starts[-1]))
    places = [np.arange(f.size).reshape(f.n_columns, f.n_levels) + s for f, s in zip(factors, starts, strict=False)]
    for place, own in zip(places, cross.diagonal, strict=True):
        for a, b in np.ndindex(own.shape[:2]):
            out[place[a], place[b]] = own[a, b]
    for (s, t), edges in cross.edges.items():
        for a, b in np.ndindex(edges.values.shape[:2]):
            rows, columns = places[s][a][edges.rows], places[t][b][edges.columns]
            out[rows, columns] = out[columns, rows] = edges.values[a, b]
    return out


@pytest.mark.parametrize("name", FORMULAS)
def test_derivatives_along_weights(name):
    problem, T = made(FORMULAS[name])
    cross, factors = problem.cross, problem.factors
    rng = np.random.default_rng(1)
    # Elements of the pattern by chance: the identity is one of linear algebra.
    diagonal = [own + own.transpose(1, 0, 2) for own in (rng.standard_normal(d.shape) for d in cross.diagonal)]
    edges = {pair: rng.standard_normal(own.values.shape) for pair, own in cross.edges.items()}
    tables = CrossedTables(factors, cross)
    moved = tables.with_values(tuple(diagonal), edges)
    changed = CrossProducts(
        tuple(diagonal),
        {pair: type(own)(**{**vars(own), "values": edges[pair]}) for pair, own in cross.edges.items()},
        cross.border,
        cross.corner,
        cross.n_obs,
        0.0,
    )
    Lambda = scipy.linalg.block_diag(*[np.kron(t, np.eye(f.n_levels)) for t, f in zip(T, factors, strict=True)])
    A, Q = dense(cross, factors), dense(changed, factors)
    wanted = np.trace(np.linalg.solve(np.eye(A.shape[0]) + Lambda.T @ A @ Lambda, Lambda.T @ Q @ Lambda))
    at = CrossedAt.of(tables, T)
    probes = CrossedProbes(tables.size, 0)
    probes.learn_directions(at, tables.size)
    found = probes.probe(at, 2, [WeightChange(diagonal, edges)] * 2)
    # Systems of the probes are solved to 1e-5, and directions that span the space leave nothing to chance.
    np.testing.assert_allclose(found.along, wanted, atol=1e-4 * np.linalg.norm(Q))
    # Products with other values of the pattern, in both orientations.
    x = rng.standard_normal((tables.size, 2))
    rest = np.concatenate([np.arange(A.shape[0])[_rows(factors, t)] for t in tables.rest])
    np.testing.assert_allclose(moved.among_rest(x), Q[np.ix_(rest, rest)] @ x, atol=1e-10)
    np.testing.assert_allclose(moved.into_first(x), Q[_rows(factors, tables.first)][:, rest] @ x, atol=1e-10)


def _rows(factors, f: int) -> slice:
    starts = np.cumsum([0, *(factor.size for factor in factors)])
    return slice(starts[f], starts[f + 1])


def test_probes_of_changes_are_right_within_their_standard_errors():
    problem, T = made(FORMULAS["scalar"])
    cross = problem.cross
    tables = CrossedTables(problem.factors, cross)
    at = CrossedAt.of(tables, T)
    change = WeightChange(cross.diagonal, {pair: own.values for pair, own in cross.edges.items()})
    exact = CrossedProbes(tables.size, 0)
    exact.learn_directions(at, tables.size)
    wanted = float(exact.probe(at, 2, [change]).along[0, 0])
    found = CrossedProbes(tables.size, 2).probe(at, 60, [change]).along[:, 0]
    # Four standard errors: one chance in 16,000, and the seed is fixed.
    assert abs(found.mean() - wanted) < 4.0 * found.std() / np.sqrt(60)
