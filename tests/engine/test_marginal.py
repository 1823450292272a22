"""The criterion by units against dense algebra, its derivatives against differences, and classes of units."""

from __future__ import annotations

import numpy as np
import pytest

from lme4py.covariance import make_structure
from lme4py.design.residual.part import ResidualPart
from lme4py.engine.marginal.criterion import MarginalCriterion
from lme4py.engine.marginal.model import MarginalModel, RandomPart
from lme4py.engine.marginal.units import unit_codes

N, VISITS = 90, 4


def model(word, random=(), strata=1, scales=0, weights=False, seed=1):
    """30 subjects in 10 groups, some visits missing, rows in any order."""
    rng = np.random.default_rng(seed)
    subject = np.repeat(np.arange(30), 3)
    visit = np.concatenate([np.sort(rng.choice(VISITS, 3, replace=False)) for _ in range(30)]).astype(float)
    order = rng.permutation(N)
    subject, visit = subject[order], visit[order]
    X = np.column_stack([np.ones(N), visit, rng.normal(size=N)])
    y = X @ [1.0, 0.5, -1.0] + rng.normal(size=N) + rng.normal(size=30)[subject]
    if word == "homdiag":
        points, structures = np.zeros((N, 1)), tuple(make_structure(word, 1) for _ in range(strata))
        subject = np.arange(N)
    elif word in ("us", "ar1", "cs", "homtoep"):
        points, structures = visit[:, None], tuple(make_structure(word, VISITS) for _ in range(strata))
    else:
        points = (visit + rng.uniform(0.0, 0.5, N))[:, None]
        structures = tuple(make_structure(word, N, np.sort(points[:, 0])) for _ in range(strata))
    G = rng.normal(size=(N, scales)) * 0.3
    w = rng.uniform(0.5, 2.0, N) if weights else None
    parts = {
        "intercept": RandomPart(make_structure("homdiag", 1), subject, np.ones((N, 1))),
        "slope": RandomPart(make_structure("us", 2), subject // 3, np.column_stack([np.ones(N), visit])),
    }
    residual = ResidualPart(structures, subject, subject % strata, points, G, w)
    return MarginalModel(X, y, tuple(parts[name] for name in random), residual)


CASES = {
    "us": model("us"),
    "strata": model("us", strata=2),
    "ar1 with a slope": model("ar1", random=("slope",)),
    "times, scales, weights": model("car1", random=("intercept",), scales=2, weights=True),
    "nested terms": model("cs", random=("intercept", "slope"), scales=1),
}


def parameters(criterion):
    made = [structure.generic() for structure in criterion.model.structures]
    return np.concatenate([*made, 0.1 * np.ones(criterion.model.slices[-1].stop - criterion.model.slices[-1].start)])


def dense_value(m, par, reml):
    """-2 log-likelihood (or REML criterion) with the whole covariance matrix."""
    V = np.zeros((N, N))
    for part, place in zip(m.random, m.slices, strict=False):
        same = part.codes[:, None] == part.codes
        V += same * (part.values @ part.structure.covariance(par[place]) @ part.values.T)
    r = m.residual
    scale = np.exp(r.log_scale @ par[m.slices[-1]]) / np.sqrt(np.ones(N) if r.weights is None else r.weights)
    for h, structure in enumerate(r.structures):
        theta = par[m.slices[len(m.random) + h]]
        R = structure.covariance(theta, r.points[:, 0])
        inside = (r.subject[:, None] == r.subject) & (r.stratum == h)[:, None]
        V += inside * R * np.outer(scale, scale)
    W = np.linalg.inv(V)
    A = m.X.T @ W @ m.X
    e = m.y - m.X @ np.linalg.solve(A, m.X.T @ W @ m.y)
    value = np.linalg.slogdet(V)[1] + e @ W @ e + N * np.log(2 * np.pi)
    return value + (np.linalg.slogdet(A)[1] - m.X.shape[1] * np.log(2 * np.pi) if reml else 0.0)


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_value_is_that_of_dense_algebra(name, reml):
    m = CASES[name]
    criterion = MarginalCriterion(m, reml)
    par = parameters(criterion)
    found = criterion.value_outside(criterion.evaluate(par).value)
    # The same parameters on the user's scale; both are sums of some 100 logarithms, exact to 1e-13 each.
    outside = criterion.model.scaled(par, criterion.scaling.y_scale)
    assert found == pytest.approx(dense_value(m, outside, reml), abs=1e-9)


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_derivatives_are_those_of_differences(name, reml):
    criterion = MarginalCriterion(CASES[name], reml)
    par = parameters(criterion)
    gradient, hessian = criterion.derivatives(criterion.evaluate(par))
    h = 1e-5
    values, slopes = [], []
    for i in range(par.size):
        step = h * np.eye(par.size)[i]
        up, down = criterion.evaluate(par + step), criterion.evaluate(par - step)
        values.append((up.value - down.value) / (2 * h))
        slopes.append((criterion.derivatives(up)[0] - criterion.derivatives(down)[0]) / (2 * h))
    # Central differences of step 1e-5 are good to about 1e-10 of the third derivatives, and to 1e-16 / 1e-5 of values.
    assert gradient == pytest.approx(np.array(values), abs=1e-6 * np.abs(gradient).max())
    assert hessian == pytest.approx(np.array(slopes), abs=1e-6 * np.abs(hessian).max())


@pytest.mark.parametrize("stretch", [1.0, 1e6])
def test_columns_of_many_rows_are_scaled_by_their_products(stretch, monkeypatch):
    """The value is that of dense algebra, whatever columns the model is solved in, nearly collinear ones too."""
    m = CASES["us"]
    nearly = np.column_stack([m.X, m.X[:, 2] + m.X[:, 1] ** 2 / stretch])
    m = MarginalModel(nearly, m.y, (), m.residual)
    monkeypatch.setattr("lme4py.engine.marginal.criterion._MANY", 0)
    criterion = MarginalCriterion(m, True)
    par = parameters(criterion)
    outside = criterion.model.scaled(par, criterion.scaling.y_scale)
    found = criterion.value_outside(criterion.evaluate(par).value)
    # X'V^-1X of the dense form has the condition of the columns squared.
    assert found == pytest.approx(dense_value(m, outside, True), abs=1e-9 if stretch == 1.0 else 1e-3)


def test_units_join_what_shares_a_subject_or_a_level():
    m = CASES["nested terms"]
    assert np.unique(unit_codes(m)).size == 10
    assert np.unique(unit_codes(CASES["us"])).size == 30


def test_units_of_a_class_are_few_made_up_ones():
    """300 subjects with all visits are no more numbers than the products of their columns."""
    rng = np.random.default_rng(2)
    n = 300 * VISITS
    subject, visit = np.repeat(np.arange(300), VISITS), np.tile(np.arange(VISITS), 300).astype(float)
    X = np.column_stack([np.ones(n), visit, rng.normal(size=300)[subject]])
    y = rng.normal(size=n) + rng.normal(size=300)[subject]
    residual = ResidualPart((make_structure("us", 4),), subject, 0 * subject, visit[:, None], np.zeros((n, 0)))
    criterion = MarginalCriterion(MarginalModel(X, y, (), residual))
    (batch,) = criterion.batches
    assert batch.count.tolist() == [300.0]
    assert len(batch.data) <= VISITS * 4
    par = make_structure("us", 4).generic()
    # A weight of 1 in one row only makes each subject that has it a class of its own; nothing else changes.
    apart = ResidualPart(residual.structures, subject, 0 * subject, visit[:, None], rng.normal(size=(n, 1)))
    other = MarginalCriterion(MarginalModel(X, y, (), apart))
    assert sum(len(part.count) for part in other.batches) == 300
    value, single = criterion.evaluate(par).value, other.evaluate(np.append(par, 0.0)).value
    assert value == pytest.approx(single, rel=1e-12)
