"""Levels with a known covariance: reference values, dense algebra, and what follows from the fit."""

from __future__ import annotations

import json
import pickle
from typing import Any

import covariance_cases
import numpy as np
import pandas as pd
import pytest
from reference_data import REFERENCE, load_reference
from scipy import linalg

import lme4py
from lme4py.engine.linear.criterion import Criterion
from lme4py.engine.linear.problem import make_problem
from lme4py.errors import DataError, OptionError

MODELS = json.loads((REFERENCE / "known.json").read_text(encoding="utf-8"))
PED = load_reference("ped300")
REC = load_reference("ped300_rec").assign(year=lambda d: d["year"].astype(str))
PEDIGREE = lme4py.Pedigree(PED["id"], PED["sire"], PED["dam"])
A = PEDIGREE.relationship()
PHYLO = load_reference("phylo60")
K_PHYLO = load_reference("K_phylo60").set_index("level")
WAYS = {
    "covariance": {"K_ped300": A, "K_phylo60": K_PHYLO},
    "inverse": {"K_ped300": lme4py.Precision(np.linalg.inv(A.to_numpy()), A.index)},
    "pedigree": {"K_ped300": PEDIGREE},
}


def fitted(name: str) -> Any:
    m = MODELS[name]
    data = REC if m["data"] == "ped300_rec" else PHYLO
    relmat = {group: WAYS[own["given"]][own["matrix"]] for group, own in m["matrix"].items()}
    if m["family"] == "gaussian":
        return lme4py.lmer(m["formula"], data, reml=m["reml"], relmat=relmat)
    return lme4py.glmer(m["formula"], data, family=m["family"], relmat=relmat)


@pytest.mark.parametrize("name", MODELS)
def test_reference_models(name: str) -> None:
    m, fit = MODELS[name], fitted(name)
    assert fit.converged
    # The reference is polished by Newton steps with numerical derivatives: 1e-9 in the likelihood, half the digits in
    # the estimates; with Laplace its inner modes add 1e-8.
    assert fit.log_likelihood == pytest.approx(m["log_likelihood"], abs=1e-6)
    np.testing.assert_allclose(fit.params, m["coefficients"], atol=1e-5 * min(m["std_errors"]), rtol=1e-6)
    np.testing.assert_allclose(fit.bse, m["std_errors"], rtol=1e-5)
    table = fit.var_corr().set_index("group")
    sd = table[table.columns[-1]]
    np.testing.assert_allclose(sd[list(m["sd"])].astype(float), list(m["sd"].values()), rtol=1e-5)
    if m["family"] == "gaussian":
        assert fit.sigma == pytest.approx(m["sigma"], rel=1e-5)
        # Numerical second derivatives in R.
        np.testing.assert_allclose(fit.coef_table()["df"], m["satterthwaite"], rtol=1e-4)
        share = lme4py.icc(fit, component=next(iter(m["matrix"])))
        assert [share.estimate, share.se] == pytest.approx(m["variance_ratio"], rel=1e-4)
    modes = fit.ranef()
    for group, expected in m["modes"].items():
        own = modes[group] if isinstance(modes, dict) else modes
        np.testing.assert_allclose(own.loc[expected["labels"], "Intercept"], expected["values"], atol=1e-5)


# --- the engine against dense algebra ---------------------------------------------------------------------------


def animals(n: int = 40, seed: int = 1) -> tuple[pd.DataFrame, lme4py.Pedigree]:
    """Records of the later animals of a random pedigree, in pens that some of them share."""
    rng = np.random.default_rng(seed)
    sire = [int(rng.integers(i)) if i > 5 else None for i in range(n)]
    dam = [int(rng.integers(i)) if i > 5 and rng.random() < 0.8 else None for i in range(n)]
    who = np.repeat(np.arange(8, n), 3)
    pen = rng.integers(0, 6, who.size)
    data = pd.DataFrame({"animal": who, "own": who, "x": rng.normal(size=who.size), "pen": pen.astype(str)})
    slope = 0.3 + rng.normal(size=n)[who]
    data["y"] = rng.normal(size=n)[who] + slope * data["x"] + rng.normal(size=6)[pen] + 0.7 * rng.normal(size=who.size)
    return data, lme4py.Pedigree(range(n), sire, dam)


ANIMALS, FAMILY = animals()
K_FAMILY = FAMILY.relationship()
FORMULAS = (
    "y ~ x + (1 | animal)",
    "y ~ x + (x | animal)",
    "y ~ x + (1 | animal) + (1 | own)",
    "y ~ x + (x | animal) + (1 | pen)",
    "y ~ x + (1 | animal) + (0 + x | animal) + (1 | pen) + (1 | own)",
)
GIVEN = {"pedigree": FAMILY, "matrix": K_FAMILY}


def dense_criterion(problem: Any, design: Any, covariances: list[np.ndarray], reml: bool) -> float:
    """The profiled criterion at covariances relative to sigma^2, on the user's scale."""
    X, y = design.X, design.y
    n, p = X.shape
    V = np.eye(n)
    for term, cov in zip(design.terms, covariances, strict=True):
        K = np.eye(term.n_levels) if term.relation is None else K_FAMILY.to_numpy()
        V += K[np.ix_(term.codes, term.codes)] * (term.values @ cov @ term.values.T)
    R = linalg.cholesky(V, lower=True)
    WX, Wy = (linalg.solve_triangular(R, M, lower=True) for M in (X, y))
    rest = Wy - WX @ np.linalg.lstsq(WX, Wy, rcond=None)[0]
    df = n - p if reml else n
    value = 2.0 * np.log(R.diagonal()).sum() + df * (1.0 + np.log(2.0 * np.pi * (rest @ rest) / df))
    return float(value + (np.linalg.slogdet(WX.T @ WX)[1] if reml else 0.0))


@pytest.mark.parametrize("formula", FORMULAS)
@pytest.mark.parametrize("given", GIVEN)
@pytest.mark.parametrize("reml", [True, False])
def test_the_criterion_is_that_of_dense_algebra(formula: str, given: str, reml: bool) -> None:
    design = lme4py.lformula(formula, ANIMALS, relmat={"animal": GIVEN[given]})
    criterion = lme4py.lmm_criterion(design, reml)
    rng = np.random.default_rng(0)
    for scale in (1.0, 0.1):
        theta = scale * rng.uniform(0.5, 1.5, design.n_theta)
        factors = design.structures.factors(theta)
        expected = dense_criterion(criterion.inside.problem, design, [T @ T.T for T in factors], reml)
        # Sums of logarithms of condition numbers below 1e4.
        assert criterion(theta) == pytest.approx(expected, abs=1e-9)
        # Differences of sixth order: rounding of 1e-12 over a step of 2e-3.
        slopes = covariance_cases.slopes(lambda t, c=criterion: np.array(c(t)), theta)
        np.testing.assert_allclose(criterion.gradient(theta), slopes, atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("given", GIVEN)
def test_the_derivative_at_a_singular_covariance(given: str) -> None:
    design = lme4py.lformula("y ~ x + (x | animal) + (1 | pen)", ANIMALS, relmat={"animal": GIVEN[given]})
    inside = Criterion(make_problem(design), True)
    for T in (np.zeros((2, 2)), np.array([[0.7, 0.0], [0.2, 0.0]])):
        factors = [T if term.n_columns == 2 else np.eye(1) for term in design.terms]
        point = inside.evaluate_factors(factors)
        G = inside.sigma_gradient(point)
        t = next(i for i, term in enumerate(design.terms) if term.n_columns == 2)
        for E in (np.eye(2), np.diag([1.0, 0.0]), np.diag([0.0, 1.0])):
            values = []
            for h in (0.0, 1e-4, 2e-4):
                w, U = np.linalg.eigh(T @ T.T + h * E)
                factors[t] = U * np.sqrt(np.maximum(w, 0.0))
                values.append(inside.evaluate_factors(factors).value)
            one_sided = (4.0 * values[1] - values[2] - 3.0 * values[0]) / 2e-4
            # A one-sided difference of second order: about h^2 times a third derivative.
            assert float(np.vdot(G[t], E)) == pytest.approx(one_sided, rel=2e-5, abs=1e-4)


def test_no_k_is_the_identity() -> None:
    eye = (np.eye(40), range(40))
    plain = lme4py.lmer("y ~ x + (x | animal) + (1 | pen)", ANIMALS)
    for given in (eye, lme4py.Precision(*eye)):
        fit = lme4py.lmer("y ~ x + (x | animal) + (1 | pen)", ANIMALS, relmat={"animal": given})
        # The same optimum found on two ways: the criterion is flat to the square of what is left.
        assert fit.log_likelihood == pytest.approx(plain.log_likelihood, abs=1e-8)
        np.testing.assert_allclose(fit.params, plain.params, atol=1e-6)
        np.testing.assert_allclose(
            fit.coef_table(ddf="kenward-roger")["df"], plain.coef_table(ddf="kenward-roger")["df"], rtol=1e-5
        )


# --- after the fit ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=list(GIVEN))
def model(request: pytest.FixtureRequest) -> Any:
    formula = "y ~ x + (x | animal) + (1 | pen)"
    return lme4py.lmer(formula, ANIMALS, relmat={"animal": GIVEN[request.param]})


def joint(fit: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Z and the covariance of all effects, by term, then level, then column; and Henderson's equations' inverse."""
    design = fit.fit.design
    blocks, covariances = [], []
    for term, cov in zip(design.terms, fit.fit.covariances, strict=True):
        K = np.eye(term.n_levels) if term.relation is None else K_FAMILY.to_numpy()
        Z = np.zeros((design.n_obs, term.n_levels, term.n_columns))
        Z[np.arange(design.n_obs), term.codes] = term.values
        blocks.append(Z.reshape(design.n_obs, -1))
        covariances.append(np.kron(K, cov))
    Z, D = np.hstack(blocks), linalg.block_diag(*covariances)
    XZ = np.hstack([design.X, Z])
    C = XZ.T @ XZ / fit.sigma**2
    p = design.X.shape[1]
    C[p:, p:] += np.linalg.inv(D)
    return Z, D, np.linalg.inv(C)


def test_modes_with_errors_and_reliabilities(model: Any) -> None:
    Z, D, C = joint(model)
    design, p = model.fit.design, model.params.size
    V = Z @ D @ Z.T + model.sigma**2 * np.eye(design.n_obs)
    b = D @ Z.T @ np.linalg.solve(V, design.y - design.X @ model.params.to_numpy())
    # Of a covariance matrix that is inverted: its condition number of 1e4 times rounding.
    np.testing.assert_allclose(np.concatenate([m.ravel() for m in model.fit.modes]), b, atol=1e-8)
    modes, errors = model.ranef(conditional_se=True, include_fixed=True)
    known = np.sqrt(C.diagonal()[p : p + 80].reshape(40, 2))
    np.testing.assert_allclose(errors["animal"], known, rtol=1e-6)
    reliability = model.ranef(reliability=True)[1]["animal"]
    np.testing.assert_allclose(reliability, 1.0 - known**2 / D.diagonal()[:80].reshape(40, 2), atol=1e-7)
    assert list(modes["animal"].index) == list(range(40))


def test_predictions_of_animals_without_records(model: Any) -> None:
    C = joint(model)[2]
    new = pd.DataFrame({"x": [0.5, -1.0], "animal": [0, 3], "pen": ["1", "2"]})
    found = model.predict(new, interval="confidence", alpha=0.05)
    modes = model.ranef()["animal"].loc[[0, 3]].to_numpy()
    pens = model.ranef()["pen"].loc[["1", "2"], "Intercept"].to_numpy()
    X = np.column_stack([np.ones(2), new["x"]])
    np.testing.assert_allclose(found["predicted"], X @ model.params + (X * modes).sum(axis=1) + pens, atol=1e-10)
    rows = np.zeros((2, C.shape[0]))
    rows[:, :2] = X
    for i, (animal, pen) in enumerate(((0, "1"), (3, "2"))):
        rows[i, 2 + 2 * animal : 4 + 2 * animal] = X[i]
        rows[i, 2 + 80 + list(model.ranef()["pen"].index).index(pen)] = 1.0
    error = np.sqrt(np.einsum("ij,jk,ik->i", rows, C, rows))
    half = (found["upper"] - found["lower"]) / 2.0
    normal = model.predict(new, interval="confidence", alpha=0.5)
    # The ratio of half widths is one of quantiles of t: the errors are the same.
    assert (half.to_numpy() / error > 1.95).all()
    assert ((normal["upper"] - normal["lower"]).to_numpy() / 2.0 / error < 0.75).all()


def test_simulated_effects_have_the_known_covariance() -> None:
    fit = lme4py.lmer("y ~ 1 + (1 | animal)", ANIMALS, relmat={"animal": FAMILY})
    draws = np.asarray(fit.simulate(4000, seed=1))
    V = np.cov(draws if draws.shape[0] == len(ANIMALS) else draws.T)
    codes = ANIMALS["animal"].to_numpy()
    expected = fit.fit.covariances[0][0, 0] * K_FAMILY.to_numpy()[np.ix_(codes, codes)] + fit.sigma**2 * np.eye(
        codes.size
    )
    # Standard errors of covariances of 4000 draws are about their size / 63; 2000 of them are looked at.
    assert np.abs(V - expected).max() < 5.0 * expected.max() / np.sqrt(4000) * np.sqrt(2.0)


def test_kenward_roger_is_that_of_dense_algebra() -> None:
    fit = lme4py.lmer("y ~ x + (1 | animal) + (1 | pen)", ANIMALS, relmat={"animal": FAMILY})
    design = fit.fit.design
    n, X = design.n_obs, design.X
    parts = [np.eye(n)]
    for term in design.terms:
        K = np.eye(term.n_levels) if term.relation is None else K_FAMILY.to_numpy()
        parts.append(K[np.ix_(term.codes, term.codes)])
    variances = [fit.sigma**2, *(float(cov[0, 0]) for cov in fit.fit.covariances)]
    V = sum(v * M for v, M in zip(variances, parts, strict=True))
    inverse = np.linalg.inv(V)
    phi = np.linalg.inv(X.T @ inverse @ X)
    P = inverse - inverse @ X @ phi @ X.T @ inverse
    W = 2.0 * np.linalg.inv([[np.trace(P @ a @ P @ b) for b in parts] for a in parts])
    K1 = [X.T @ inverse @ a @ inverse @ X for a in parts]
    added = sum(
        W[i, j] * (X.T @ inverse @ a @ inverse @ b @ inverse @ X - K1[i] @ phi @ K1[j])
        for i, a in enumerate(parts)
        for j, b in enumerate(parts)
    )
    expected = phi + 2.0 * phi @ added @ phi
    found = fit.coef_table(ddf="kenward-roger")["std_error"]
    # Both from inverses of well-conditioned matrices.
    np.testing.assert_allclose(found, np.sqrt(expected.diagonal()), rtol=1e-8)


def test_everything_else_works_or_says_why_not(model: Any) -> None:
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict(ANIMALS), model.predict(ANIMALS))
    np.testing.assert_allclose(model.slim().predict(ANIMALS), model.predict(ANIMALS), rtol=1e-12)
    assert len(model.bootstrap(3, seed=1).replicates) == 3
    deleted = model.influence("pen").dfbeta
    for pen in ("0", "3"):
        rows = ANIMALS[ANIMALS["pen"] != pen]
        design = lme4py.lformula("y ~ x + (x | animal) + (1 | pen)", rows, relmat={"animal": FAMILY})
        V = model.sigma**2 * np.eye(len(rows))
        for term, cov in zip(design.terms, model.fit.covariances, strict=True):
            K = np.eye(term.n_levels) if term.relation is None else K_FAMILY.to_numpy()
            V += K[np.ix_(term.codes, term.codes)] * (term.values @ cov @ term.values.T)
        half = np.linalg.solve(V, design.X)
        beta = np.linalg.solve(half.T @ design.X, half.T @ design.y)
        # Generalised least squares at the same variances.
        np.testing.assert_allclose(deleted.loc[pen], beta - model.params, atol=1e-8)
    animals = model.influence("animal").dfbeta
    assert list(animals.index) == list(range(8, 40))
    for ask in (
        lambda: model.coef_table(vcov="CR0"),
        lambda: model.bootstrap(2, type="cases", group="animal"),
        lambda: model.bootstrap(2, type="semiparametric"),
    ):
        with pytest.raises(OptionError, match="animal"):
            ask()


def test_likelihood_ratios(model: Any) -> None:
    given = model.fit.design.terms[0].relation
    relmat = {"animal": FAMILY if given.precision is not None else K_FAMILY}
    smaller = lme4py.lmer("y ~ x + (1 | animal) + (1 | pen)", ANIMALS, relmat=relmat)
    test = lme4py.lrtest(smaller, model)
    assert test.chi2 == pytest.approx(2.0 * (model.log_likelihood - smaller.log_likelihood), abs=1e-8)
    # Independent animals are no special case of related ones.
    with pytest.raises(OptionError):
        lme4py.lrtest(lme4py.lmer("y ~ x + (1 | animal) + (1 | pen)", ANIMALS), model)


def test_generalised_models_of_both_ways_are_one() -> None:
    data = ANIMALS.assign(
        z=(ANIMALS["y"] > ANIMALS["y"].median()).astype(int), o=pd.qcut(ANIMALS["y"], 3, labels=False)
    )
    fits = [
        lme4py.glmer("z ~ x + (x | animal) + (1 | pen)", data, "binomial", relmat={"animal": one})
        for one in GIVEN.values()
    ]
    assert fits[0].log_likelihood == pytest.approx(fits[1].log_likelihood, abs=1e-8)
    ordinal = [lme4py.clmm("o ~ x + (1 | animal)", data, relmat={"animal": one}) for one in GIVEN.values()]
    assert ordinal[0].log_likelihood == pytest.approx(ordinal[1].log_likelihood, abs=1e-8)
    plain = lme4py.clmm("o ~ x + (1 | animal)", data)
    eye = lme4py.clmm("o ~ x + (1 | animal)", data, relmat={"animal": (np.eye(40), range(40))})
    assert eye.log_likelihood == pytest.approx(plain.log_likelihood, abs=1e-8)
    with pytest.raises(OptionError, match="nAGQ=5 needs groups that are independent"):
        lme4py.glmer("z ~ x + (1 | animal)", data, "binomial", nAGQ=5, relmat={"animal": FAMILY})


def test_a_singular_matrix_of_clones() -> None:
    clones = np.kron(np.eye(20), np.ones((2, 2)))
    data = ANIMALS.assign(pair=ANIMALS["animal"] // 2)
    fit = lme4py.lmer("y ~ x + (1 | animal)", data, relmat={"animal": (clones, range(40))})
    same = lme4py.lmer("y ~ x + (1 | pair)", data)
    # Two animals of a clone are one level of another factor.
    assert fit.log_likelihood == pytest.approx(same.log_likelihood, abs=1e-8)
    z = data.assign(z=(data["y"] > 0.0).astype(int))
    binary = lme4py.glmer("z ~ x + (1 | animal)", z, "binomial", relmat={"animal": (clones, range(40))})
    assert binary.log_likelihood == pytest.approx(
        lme4py.glmer("z ~ x + (1 | pair)", z, "binomial").log_likelihood, abs=1e-8
    )


@pytest.mark.parametrize(
    ("formula", "relmat", "error", "match"),
    [
        ("y ~ x + (1 | animal)", {"pen": FAMILY}, OptionError, "'pen', which is no grouping factor"),
        ("y ~ x + (1 | animal)", FAMILY, OptionError, "give a dict"),
        ("y ~ x + (1 | animal:pen)", {"animal:pen": FAMILY}, OptionError, "an interaction"),
        ("y ~ x + (1 | animal)", {"animal": K_FAMILY.iloc[:20, :20]}, DataError, "20 of the 32 levels of 'animal'"),
        ("y ~ x + (1 | animal)", {"animal": -K_FAMILY}, DataError, "smallest eigenvalue is -"),
    ],
)
def test_what_is_refused(formula: str, relmat: Any, error: type[Exception], match: str) -> None:
    for fit in (lme4py.lmer, lme4py.glmer):
        with pytest.raises(error, match=match):
            fit(formula, ANIMALS, relmat=relmat, **({"family": "gaussian"} if fit is lme4py.glmer else {}))


def test_variances_that_relations_do_not_tell_apart() -> None:
    one = ANIMALS.drop_duplicates("animal")
    with pytest.raises(lme4py.DesignError, match="cannot be told apart"):
        lme4py.lmer("y ~ x + (1 | animal)", one, relmat={"animal": (2.0 * np.eye(40), range(40))})
    with pytest.raises(lme4py.DesignError, match="the same random effects"):
        lme4py.lmer("y ~ x + (1 | animal) + (1 | own)", ANIMALS, relmat={"animal": (np.eye(40), range(40))})
    assert lme4py.lmer("y ~ x + (1 | animal)", one, relmat={"animal": FAMILY}).converged


def test_new_rows_and_larger_studies() -> None:
    fit = lme4py.lmer("y ~ x + (1 | animal)", ANIMALS, relmat={"animal": FAMILY})
    rows = pd.DataFrame({"x": np.zeros(2), "animal": [0, 1]})
    draws = np.asarray(fit.simulate(4000, seed=2, data=rows))
    V = np.cov(draws if draws.shape[0] == 2 else draws.T)
    expected = fit.fit.covariances[0][0, 0] * K_FAMILY.to_numpy()[:2, :2] + fit.sigma**2 * np.eye(2)
    # Five standard errors of covariances of 4000 draws.
    assert np.abs(V - expected).max() < 5.0 * expected.max() * np.sqrt(2.0 / 4000)
    with pytest.raises(OptionError, match="relmat= does not have"):
        fit.simulate(1, data=rows.assign(animal=[0, 99]))
    with pytest.raises(OptionError, match="relmat= does not have"):
        lme4py.extend(fit, along="animal", n=60)
    with pytest.raises(OptionError, match="related levels"):
        fit.ranef(data=ANIMALS)


def test_refits_of_many_responses_are_those_of_one() -> None:
    fit = lme4py.lmer("y ~ x + (1 | animal)", ANIMALS, relmat={"animal": FAMILY})
    boot = fit.bootstrap(3, seed=1).replicates
    draws = np.asarray(fit.simulate(3, seed=1)).reshape(-1, 3)
    alone = [fit.refit(y).params["x"] for y in draws.T]
    # The same responses, fitted one by one and as the bootstrap fits them; the criterion is flat to 1e-9 there.
    np.testing.assert_allclose(np.sort(boot["x"]), np.sort(alone), atol=1e-6)


def test_the_conditional_aic_counts_how_fitted_values_move() -> None:
    data = ANIMALS.iloc[::2]
    fit = lme4py.lmer("y ~ x + (1 | animal)", data, relmat={"animal": FAMILY})
    y, h, moved = data["y"].to_numpy(), 1e-3, 0.0
    for i, e in enumerate(np.eye(y.size)):
        up, down = (fit.refit(y + step * e).fittedvalues.iloc[i] for step in (h, -h))
        moved += (up - down) / (2.0 * h)
    # Central differences of refits, which are good to 1e-6 or so, and one for sigma.
    assert lme4py.caic(fit).df == pytest.approx(moved + 1.0, abs=1e-3)
    with pytest.raises(OptionError, match="estimated sigma"):
        lme4py.caic(lme4py.lmer("y ~ x + (1 | animal)", data, sigma=1))


def test_two_traits_with_any_residual_covariance() -> None:
    """A loading for each trait beside the residual variance is a covariance of two traits without restriction."""
    rng = np.random.default_rng(8)
    n = 160
    sire = [int(rng.integers(4)) if i > 19 else None for i in range(n)]
    dam = [4 + int(rng.integers(16)) if i > 19 else None for i in range(n)]
    family = lme4py.Pedigree(range(n), sire, dam)
    A = family.relationship().to_numpy()
    effects = np.linalg.cholesky(A) @ rng.standard_normal((n, 2)) @ np.array([[1.0, 0.6], [0.0, 0.8]])
    y = effects + rng.standard_normal((n, 2)) @ np.array([[1.5, -0.6], [0.0, 1.0]])
    columns = {"animal": np.tile(np.arange(n), 2), "trait": np.repeat(["a", "b"], n), "y": y.T.ravel()}
    data = pd.DataFrame({**columns, "own": columns["animal"]})
    formula = "y ~ 0 + trait + (0 + trait | animal) + rr(0 + trait | own, 1)"
    fit = lme4py.lmer(formula, data, relmat={"animal": family})
    assert fit.converged
    X = np.kron(np.eye(2), np.ones((n, 1)))

    def criterion(x: np.ndarray) -> float:
        """-2 REML log-likelihood at the genetic and the residual covariance, each by its lower triangle."""
        G, R = (np.array([[v[0], v[1]], [v[1], v[2]]]) for v in (x[:3], x[3:]))
        V = np.kron(G, A) + np.kron(R, np.eye(n))
        VX = np.linalg.solve(V, X)
        rest = data["y"].to_numpy() - X @ np.linalg.solve(X.T @ VX, VX.T @ data["y"].to_numpy())
        dets = np.linalg.slogdet(V)[1] + np.linalg.slogdet(X.T @ VX)[1]
        return float(dets + rest @ np.linalg.solve(V, rest) + (2 * n - 2) * np.log(2 * np.pi))

    G, own = fit.fit.covariances
    R = own + fit.sigma**2 * np.eye(2)
    at = np.concatenate([G[np.tril_indices(2)], R[np.tril_indices(2)]])
    assert R[0, 1] < 0.0
    # Sums over 320 rows of a well-conditioned matrix.
    assert criterion(at) == pytest.approx(fit.criterion, abs=1e-8)
    slopes = covariance_cases.slopes(lambda x: np.array(criterion(x)), at)
    # The optimiser stops where the criterion could fall by 1e-12 at most: slopes of 1e-5 under curvatures of a hundred.
    np.testing.assert_allclose(slopes, 0.0, atol=2e-4)
