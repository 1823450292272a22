"""Influence in models of several linear predictors: beside dense algebra, and beside fits without the unit."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest

import lme4py
from lme4py.errors import Lme4Error, OptionError
from lme4py.fits.groups import without_level

FORMS: dict[str, dict[str, Any]] = {
    "zero part with effects": {"family": "poisson", "ziformula": "~ x + (1 | h)"},
    "joined": {"family": "poisson", "ziformula": "~ 1 + (1 | j | g)", "random": "(1 | j | g)"},
    "zero part without effects": {"family": "nbinomial", "ziformula": "~ x"},
    "three predictors": {"family": "nbinomial", "ziformula": "~ x", "dispformula": "~ (1 | g)"},
    "hurdle": {"family": "truncated_poisson", "ziformula": "~ x + (1 | g)"},
    "multinomial": {"family": "multinomial", "response": "cat"},
}


@cache
def rows() -> pd.DataFrame:
    rng = np.random.default_rng(3)
    g, x = np.repeat(np.arange(15), 10), rng.normal(size=150)
    rate = np.exp(0.7 + 0.4 * x + 0.6 * rng.normal(size=15)[g])
    none = rng.random(150) < 1.0 / (1.0 + np.exp(1.0 - x - rng.normal(size=15)[g]))
    y = np.where(none, 0, rng.poisson(rate * rng.gamma(3.0, 1.0 / 3.0, 150)))
    labels = {"g": g.astype(str), "h": rng.integers(0, 6, 150).astype(str)}
    return pd.DataFrame({"x": x, "y": y, "cat": np.array(list("ABC"))[rng.integers(0, 3, 150)], **labels})


@cache
def fitted(name: str) -> Any:
    form = dict(FORMS[name])
    left, random = form.pop("response", "y"), form.pop("random", "(1 | g)")
    return lme4py.glmer(f"{left} ~ x + {random}", rows(), **form)


def dense(name: str) -> tuple[Any, ...]:
    """[X Z], the blocks of W, W eta + score, and the inverse covariance of (fixed effects, u), in full matrices."""
    fit = fitted(name).fit
    problem, mode = fit.problem, fit.point.mode
    family = problem.family.with_all_stacked()
    D, n = 1 + len(family.stacked), fit.design.n_obs
    eta = np.zeros(D * n)
    eta[: mode.eta.size] = mode.eta
    own = family.derivatives(fit.data, eta, mode.lam, 2)
    W = np.zeros((n, D, D))
    pairs = [*((d, d) for d in range(D)), *((d, e) for d in range(D) for e in range(d + 1, D))]
    for w, (d, e) in zip(own.w_obs.reshape(-1, n), pairs, strict=True):
        W[:, d, e] = W[:, e, d] = w
    # Columns of the user, so that nothing of the engine's scaling enters.
    whole = [fit.design.X if family.is_joint else np.vstack([fit.design.X, np.zeros(((D - 1) * n, fit.beta.size))])]
    for d, part in enumerate(family.stacked, 1):
        for predictor in fit.data.parts:
            if predictor.name == part:
                block = np.zeros((D, n, predictor.X.shape[1]))
                block[d] = predictor.X
                whole.append(block.reshape(D * n, -1))
    effects, precisions = [], []
    for term, T in zip(fit.design.terms, fit.design.structures.factors(fit.theta), strict=True):
        places = term.predictors(family.stacked)
        for level in range(term.n_levels):
            block = np.zeros((D, n, term.n_columns))
            for a, d in enumerate(places):
                block[d, :, a] = np.where(term.codes == level, term.values[:, a], 0.0)
            effects.append(block.reshape(D * n, -1) @ T)
            precisions.append(np.ones(term.n_columns))
    X = np.hstack(whole)
    M = np.hstack([X, *effects]).reshape(D, n, -1).swapaxes(0, 1)
    penalty = np.diag(np.concatenate([np.zeros(X.shape[1]), *precisions]))
    score = own.score.reshape(D, n).T
    return M, W, score, penalty, fit


def newton(name: str, kept: np.ndarray, place: slice | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients after a step from the mode on the kept rows, less the mode's, and their covariance."""
    M, W, score, penalty, fit = dense(name)
    A = np.einsum("nda,nde,neb->ab", M[kept], W[kept], M[kept]) + penalty
    # The modes u are where the score of all rows is the penalty's.
    u_score = np.einsum("nda,nd->a", M, score)
    u_score[: A.shape[0] - np.count_nonzero(np.diag(penalty))] = 0.0
    step = np.linalg.solve(A, np.einsum("nda,nd->a", M[kept], score[kept]) - u_score)
    place = slice(0, fit.beta.size) if place is None else place
    return step[place], np.linalg.inv(A)[place, place]


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("group", [None, "g", "h"])
def test_a_step_without_a_unit_is_that_of_dense_algebra(name: str, group: str | None) -> None:
    every = np.ones(150, dtype=bool)
    found = fitted(name).influence(group)
    labels = rows().index if group is None else rows()[group]
    before, V = newton(name, every)
    for unit in list(found.dfbeta.index)[:4]:
        after, V_without = newton(name, np.asarray(labels != unit))
        # Two orders of the same sums: eight digits of the standard errors.
        scale = np.sqrt(np.diag(V))
        assert found.dfbeta.loc[unit].to_numpy() / scale == pytest.approx((after - before) / scale, abs=1e-8)
        assert found.dfbetas.loc[unit].to_numpy() == pytest.approx(
            (after - before) / np.sqrt(np.diag(V_without)), abs=1e-7
        )
        ratio = np.linalg.det(V_without) / np.linalg.det(V)
        assert found.covratio.loc[unit] == pytest.approx(ratio, rel=1e-7)


@pytest.mark.parametrize(
    ("name", "component"),
    [("zero part with effects", "zero_inflation"), ("zero part without effects", "zero_inflation"),
     ("three predictors", "dispersion"), ("three predictors", "zero_inflation")],
)  # fmt: skip
def test_a_part_moves_with_the_same_step(name: str, component: str) -> None:
    fit, found = fitted(name).fit, fitted(name).influence("g", component=component)
    stacked = fit.problem.family.with_all_stacked().stacked
    sizes = {part.name: part.X.shape[1] for part in fit.data.parts}
    start = fit.beta.size + sum(sizes[other] for other in stacked[: stacked.index(component)])
    place = slice(start, start + sizes[component])
    before, after = (newton(name, np.asarray(rows()["g"] != without), place)[0] for without in ("", "4"))
    # Two orders of the same sums.
    assert found.dfbeta.loc["4"].to_numpy() == pytest.approx(after - before, abs=1e-8)
    assert list(found.dfbeta.columns) == list(fitted(name).coef_table(component=component).index)


def test_what_components_of_influence_cannot_be_is_said() -> None:
    fit = fitted("zero part without effects")
    with pytest.raises(OptionError, match="name one of 'conditional', 'zero_inflation'"):
        fit.influence(component="all")
    with pytest.raises(Lme4Error, match="one-step"):
        fit.influence("g", "refit", component="zero_inflation")
    with pytest.raises(OptionError, match="no part 'scale'"):
        fit.influence(component="scale")


@pytest.mark.parametrize("name", FORMS)
def test_leverages_add_up_to_the_effective_number_of_parameters(name: str) -> None:
    M, W, _, penalty, _ = dense(name)
    A = np.einsum("nda,nde,neb->ab", M, W, M)
    expected = np.trace(np.linalg.solve(A + penalty, A))
    # A trace of 20 numbers, by two routes.
    assert fitted(name).influence().leverage.sum() == pytest.approx(expected, rel=1e-8)
    assert fitted(name).hatvalues().sum() == pytest.approx(expected, rel=1e-8)
    assert fitted(name).influence("g").leverage.sum() == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("name", ["hurdle", "multinomial"])
def test_steps_are_near_fits_without_the_unit(name: str) -> None:
    few = fitted(name).influence("h")
    again = fitted(name).influence("h", "refit")
    # One step keeps the variances, a fit does not: the two agree in direction and size, not in digits.
    a, b = few.dfbeta.to_numpy().ravel(), again.dfbeta.to_numpy().ravel()
    assert np.isfinite(b).all()
    assert np.corrcoef(a, b)[0, 1] > 0.95


def test_rows_have_no_studentised_residual_and_one_distance() -> None:
    found = fitted("zero part with effects").influence()
    assert found.rstudent is None
    assert found.cooks_distance.to_numpy() == pytest.approx(found.cooks_fixed.to_numpy())
    assert "the same here" in str(found.summary())


def test_rows_of_joint_predictors_are_taken_from_each() -> None:
    fit = fitted("multinomial").fit
    codes = fit.design.terms[0].codes
    smaller = without_level(fit.design, codes, 3)
    kept = np.asarray(codes != 3)
    direct = lme4py.glmer("cat ~ x + (1 | g)", rows()[kept], "multinomial").fit.design
    np.testing.assert_array_equal(smaller.X, direct.X)
