"""Multinomial logits with random effects: other programs' numbers, brute force, and what is asked of the result."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pandas as pd
import pytest
from reference_data import REFERENCE

import lme4py
from lme4py.errors import DataError, DesignError, FormulaError, OptionError
from lme4py.families.categories.multinomial import Multinomial
from lme4py.families.response import ResponseData
from lme4py.fits.generalised.criterion import glmm_criterion

R = json.loads((REFERENCE / "multinomial.json").read_text(encoding="utf-8"))
CONTRACEPTION = lme4py.load_dataset("Contraception")
RNG = np.random.default_rng(7)
N = 240
G = np.repeat(np.arange(24), 10)
X = RNG.standard_normal(N)
_U = 1.4 * RNG.standard_normal((24, 2))[G]
_ETA = np.column_stack([np.zeros(N), 0.4 + 0.6 * X + _U[:, 0], -0.3 - 0.5 * X + 0.8 * _U[:, 1]])
Y = (_ETA + RNG.gumbel(size=(N, 3))).argmax(axis=1)
DATA = pd.DataFrame({"y": np.array(["A", "B", "C"])[Y], "x": X, "g": G})


@pytest.fixture(scope="module")
def fit():
    return lme4py.glmer("y ~ x + (1 | g)", DATA, family="multinomial")


def test_derivatives_are_those_of_differences():
    rng = np.random.default_rng(2)
    n, h = 30, 1e-5
    family = Multinomial(categories=("a", "b", "c", "d"))
    data = ResponseData(rng.integers(0, 4, n).astype(float), weights=rng.uniform(0.5, 2.0, n))
    eta = rng.standard_normal(3 * n)
    rows = family.derivatives(data, eta, 0.0, 3)
    pairs = [(0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)]
    for c in range(3):
        step = np.zeros((3, n))
        step[c] = h
        up, down = (family.derivatives(data, eta + s * step.ravel(), 0.0, 2) for s in (1.0, -1.0))
        # Central differences with steps of 1e-5 of functions of size one.
        close = {"rtol": 1e-6, "atol": 1e-8}
        np.testing.assert_allclose(rows.score.reshape(3, n)[c], (up.loglik - down.loglik) / (2 * h), **close)
        change = -(up.score - down.score).reshape(3, n) / (2 * h)
        for number, (d, e) in enumerate(pairs):
            if c in (d, e):
                other = e if c == d else d
                np.testing.assert_allclose(rows.w_obs.reshape(6, n)[number], change[other], **close)
        np.testing.assert_allclose(rows.dw_obs[c], (up.w_obs - down.w_obs) / (2 * h), **close)


@pytest.mark.parametrize("points", [2, 3])
def test_rows_of_several_points_are_rows_of_their_own(points):
    family = Multinomial(categories=("a", "b"))
    data = ResponseData(np.array([0.0, 1.0, 1.0]))
    eta = np.random.default_rng(1).standard_normal((points, 3))
    together = family.derivatives(data, eta, 0.0, 3)
    for i in range(points):
        alone = family.derivatives(data, eta[i], 0.0, 3)
        for name in ("score", "w_obs", "dw_obs"):
            np.testing.assert_array_equal(getattr(together, name)[i], getattr(alone, name))


def test_without_random_effects_it_is_nnet():
    wine = lme4py.load_dataset("wine")
    for name, formula in (("contact", "rating ~ contact"), ("both", "contact ~ temp + response")):
        want = R[name]
        fit = lme4py.glmer(formula, wine, family="multinomial") if name == "both" else None
        if fit is None:
            data = wine.assign(rating=wine["rating"].astype(str).replace({"4": "3", "5": "3"}))
            fit = lme4py.glmer(formula, data, family="multinomial")
        # multinom stops at relative changes of 1e-12 of its deviance, which is good to about 1e-6 of coefficients.
        assert fit.log_likelihood == pytest.approx(want["log_likelihood"], abs=1e-8)
        np.testing.assert_allclose(fit.params, want["coefficients"], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(fit.bse, want["std_errors"], rtol=1e-3)


@pytest.mark.parametrize("points", [1, 7])
def test_two_categories_are_the_binomial_model(points):
    a = lme4py.glmer("use ~ age + urban + (1 | district)", CONTRACEPTION, "multinomial", nAGQ=points)
    b = lme4py.glmer("use ~ age + urban + (1 | district)", CONTRACEPTION, nAGQ=points)
    # The same likelihood, minimised twice.
    assert a.log_likelihood == pytest.approx(b.log_likelihood, abs=1e-9)
    np.testing.assert_allclose(a.params, b.params, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(a.bse, b.bse, rtol=1e-6)
    np.testing.assert_allclose(a.theta, b.theta, rtol=1e-6)


def test_two_categories_have_the_criterion_of_the_binomial_model():
    a = lme4py.glmer("use ~ age + urban + (1 | district)", CONTRACEPTION, "multinomial")
    b = lme4py.glmer("use ~ age + urban + (1 | district)", CONTRACEPTION)
    one, two = (glmm_criterion(m.fit.design, m.fit.family, m.fit.data) for m in (a, b))
    for size in (1.0, 1.1):
        at = size * np.concatenate([b.theta, b.params])
        # One function by two ways: rounding of sums over 1,934 rows.
        assert one(at) == pytest.approx(two(at), abs=1e-10)
        np.testing.assert_allclose(one.gradient(at), two.gradient(at), atol=1e-10)
    # Estimates stop where the criterion can fall by 1e-12; limits of a probability are those of its logit.
    for random in ("zero", "integrate", "conditional"):
        own, other = (lme4py.Margins.response(m, random=random).predict(atexog={"urban": ["N", "Y"]}) for m in (a, b))
        columns = ["estimate", "std_error", "ci_lower", "ci_upper"]
        np.testing.assert_allclose(own.to_frame().iloc[2:][columns], other.to_frame()[columns], rtol=1e-6)
        for kind in ("eyex", "eydx", "dyex"):
            own, other = (getattr(lme4py.Margins.response(m, random=random), kind)("age") for m in (a, b))
            np.testing.assert_allclose(own.to_frame().iloc[1:][columns], other.to_frame()[columns], rtol=1e-6)


def test_brute_force_of_two_correlated_effects():
    fit = lme4py.glmer("y ~ x + (1 | g)", DATA, family="multinomial", nAGQ=15)
    L = np.linalg.cholesky(fit.fit.covariances[0])
    grid = np.linspace(-7.0, 7.0, 141)
    weight = np.exp(-0.5 * grid**2) / np.sqrt(2.0 * np.pi) * (grid[1] - grid[0])
    u = L @ np.stack([a.ravel() for a in np.meshgrid(grid, grid, indexing="ij")])
    w = np.outer(weight, weight).ravel()
    b = fit.params.to_numpy().reshape(2, 2)
    total = 0.0
    for g in range(24):
        rows = np.flatnonzero(g == G)
        fixed = b[:, 0][:, None] + b[:, 1][:, None] * X[rows]
        scores = np.concatenate([np.zeros((1, rows.size, w.size)), fixed[:, :, None] + u[:, None, :]])
        logp = scores - np.log(np.exp(scores).sum(axis=0))
        total += np.log(w @ np.exp(logp[Y[rows], np.arange(rows.size)].sum(axis=0)))
    # 15 points in two dimensions: to about 1e-6 for groups of ten rows.
    assert fit.log_likelihood == pytest.approx(total, abs=1e-5)


def test_another_baseline_is_the_same_model(fit):
    other = lme4py.glmer("y ~ x + (1 | g)", DATA, family="multinomial", baseline="B")
    assert other.log_likelihood == pytest.approx(fit.log_likelihood, abs=1e-8)  # the same maximum from two sides
    assert other.params["C: x"] == pytest.approx(fit.params["C: x"] - fit.params["B: x"], abs=1e-6)
    assert "baseline B" in str(other.summary())
    np.testing.assert_allclose(other.predict(DATA)["A"], fit.predict(DATA)["A"], atol=1e-7)


def test_weights_repeat_rows(fit):
    half = DATA.iloc[:120]
    twice = lme4py.glmer("y ~ x + (1 | g)", pd.concat([half, half]), family="multinomial")
    weighted = lme4py.glmer("y ~ x + (1 | g)", half, family="multinomial", weights=np.full(120, 2.0))
    assert weighted.log_likelihood == pytest.approx(twice.log_likelihood, abs=1e-8)
    np.testing.assert_allclose(weighted.params, twice.params, atol=1e-6)


def test_covariances_of_categories(fit):
    us = fit.var_corr()
    assert list(us["name1"]) == ["B: Intercept", "C: Intercept", "B: Intercept"]
    diag = lme4py.glmer("y ~ x + (1 || g)", DATA, family="multinomial")
    same = lme4py.glmer("y ~ x + diag(1 | g)", DATA, family="multinomial")
    one = lme4py.glmer("y ~ x + homdiag(1 | g)", DATA, family="multinomial")
    assert [f.n_params for f in (fit, diag, same, one)] == [7, 6, 6, 5]
    assert diag.log_likelihood == pytest.approx(same.log_likelihood, abs=1e-9)
    assert fit.log_likelihood >= diag.log_likelihood >= one.log_likelihood
    slopes = lme4py.lformula("y ~ x + (x | g)", DATA, family="multinomial")
    assert slopes.terms[0].n_columns == 2


def test_what_is_asked_of_a_result(fit):
    p = fit.predict(DATA.head(5))
    np.testing.assert_allclose(p.sum(axis=1), 1.0, rtol=1e-12)
    assert fit.predict(DATA.head(5), type="class").tolist() == p.idxmax(axis=1).tolist()
    table = fit.tidy()
    assert table.loc[table["effect"] == "fixed", "category"].tolist() == ["B", "B", "C", "C"]
    assert fit.anova()["df"].tolist() == [2]
    null = lme4py.glmer("y ~ 1 + (1 | g)", DATA, family="multinomial")
    ratio = lme4py.lrtest(null, fit)
    assert ratio.df == 2
    assert fit.drop1().loc["x", "chi2"] == pytest.approx(ratio.chi2, abs=1e-6)
    plain = lme4py.glmer("y ~ x", DATA, family="multinomial")
    assert fit.lrtest_no_random().chi2 == pytest.approx(2.0 * (fit.log_likelihood - plain.log_likelihood), abs=1e-6)
    drawn = fit.simulate(2, seed=1)
    assert set(drawn["sim_1"]) == {"A", "B", "C"}
    assert fit.refit(drawn["sim_1"]).converged
    assert fit.quantile_residuals(50, seed=1).test_uniformity().p_value > 0.01
    assert fit.thresholds is None
    again = pickle.loads(pickle.dumps(fit))
    np.testing.assert_array_equal(again.predict(DATA.head(2)), p.head(2))
    limits = fit.conf_int(parm=["B: x"], method="profile")
    assert limits["lower"].iloc[0] < fit.params["B: x"] < limits["upper"].iloc[0]


def test_margins_are_means_of_predictions(fit):
    session = lme4py.Margins.response(fit, random="integrate")
    table = session.predict().to_frame()
    averaged = fit.predict(DATA, include_random="integrate").mean()
    np.testing.assert_allclose(table["estimate"], averaged, rtol=1e-9)
    rng = np.random.default_rng(0)
    z = rng.standard_normal((200_000, 2)) @ np.linalg.cholesky(fit.fit.covariances[0]).T
    b = fit.params.to_numpy().reshape(2, 2)
    scores = np.column_stack([np.zeros(len(z)), z + b[:, 0] + 0.5 * b[:, 1]])
    drawn = (np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)).mean(axis=0)
    exact = fit.predict(pd.DataFrame({"x": [0.5]}), include_random="integrate").to_numpy()[0]
    # 200,000 draws: errors of about 5e-4.
    np.testing.assert_allclose(exact, drawn, atol=2e-3)
    slopes = session.dydx("x").estimate
    assert slopes.sum() == pytest.approx(0.0, abs=1e-9)  # probabilities add up to one


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"baseline": "Z"}, OptionError, "is no category"),
        ({"offset": {"Z": "x"}}, OptionError, "is no category of the response"),
        ({"offset": {}}, OptionError, "empty mapping"),
        ({"link": "probit"}, OptionError, "no link 'probit'"),
        ({"hessian": "expected"}, OptionError, "expected weights"),
        ({"ziformula": "~ 1"}, OptionError, "multinomial family"),
        ({"relmat": {"g": np.eye(24)}}, OptionError, "relmat="),
        ({"fix": {"x": 0.0}}, OptionError, "fix="),
    ],
)
def test_refusals_name_what_is_wrong(options, error, words):
    with pytest.raises(error, match=words):
        lme4py.glmer("y ~ x + (1 | g)", DATA, family="multinomial", **options)


def test_other_refusals(fit):
    with pytest.raises(OptionError, match="is for family='multinomial'"):
        lme4py.glmer("use ~ age + (1 | district)", CONTRACEPTION, baseline="Y")
    with pytest.raises(DataError, match="negative or not whole"):
        lme4py.glmer("cbind(x, g) ~ 1 + (1 | g)", DATA, family="multinomial")
    with pytest.raises(FormulaError, match="have the structures"):
        lme4py.glmer("y ~ x + ar1(0 + factor(k) | g)", DATA.assign(k=np.arange(N) % 3), family="multinomial")
    separated = DATA.assign(z=(DATA["y"] == "C").astype(float))
    with pytest.raises(DesignError, match=r"C: z goes to \+inf"):
        lme4py.glmer("y ~ z + (1 | g)", separated, family="multinomial")
    with pytest.raises(OptionError, match="multinomial family has no"):
        fit.r_squared()
    with pytest.raises(OptionError, match="about random effects"):
        lme4py.glmer("y ~ x", DATA, family="multinomial").icc_table()
    with pytest.raises(OptionError, match="about random effects"):
        lme4py.glmer("y ~ x", DATA, family="multinomial").lrtest_no_random()


def test_nothing_is_asked_of_quadrature_that_it_cannot_do(fit):
    quick = lme4py.glmer("y ~ x + (1 | g)", DATA, family="multinomial", nAGQ=0)
    np.testing.assert_allclose(quick.params, fit.params, atol=0.3)  # nAGQ = 0 is no likelihood: near, no more


@pytest.mark.parametrize(
    ("cov_type", "bar", "n_params"),
    [
        ("unstructured", "(1 | g)", 7),
        ("diagonal", "diag(1 | g)", 6),
        ("identity", "homdiag(1 | g)", 5),
        ("exchangeable", "homcs(1 | g)", 6),
    ],
)
def test_the_keyword_door_is_the_formula(cov_type, bar, n_params):
    keyword = lme4py.memlogit(DATA, "y", ["x"], "g", cov_type=cov_type, baseline="B")
    formula = lme4py.glmer(f"y ~ x + {bar}", DATA, family="multinomial", baseline="B")
    assert keyword.formula == formula.formula
    assert keyword.n_params == n_params
    np.testing.assert_array_equal(keyword.params, formula.params)
    np.testing.assert_array_equal(keyword.bse, formula.bse)
    assert list(keyword.params.index) == ["A: _cons", "A: x", "C: _cons", "C: x"]


def test_the_keyword_door_speaks_as_stata():
    result = lme4py.memlogit(DATA, "y", ["x"], "g")
    text = result.summary()
    rows = ["B: x ", "B: _cons ", "C: x ", "C: _cons "]
    # One equation after the other, the constant last in each.
    assert [text.index(row) for row in rows] == sorted(text.index(row) for row in rows)
    assert "baseline A" in text
    table, limits = result.relative_risk_ratios(alpha=0.1), result.conf_int(alpha=0.1)
    np.testing.assert_allclose(table["rrr"], np.exp(result.params), rtol=1e-14)  # the same exponentials
    np.testing.assert_allclose(table[["lower", "upper"]], np.exp(limits[["lower", "upper"]]), rtol=1e-14)
    np.testing.assert_array_equal(table["rrr"], result.odds_ratios()["odds_ratio"])
    weighted = lme4py.memlogit(DATA.assign(w=2.0), "y", ["x"], "g", weights="w")
    formula = lme4py.glmer("y ~ x + (1 | g)", DATA, family="multinomial", weights=np.full(N, 2.0))
    np.testing.assert_array_equal(weighted.params, formula.params)
    robust = lme4py.memlogit(DATA, "y", ["x"], "g", vce="robust")
    np.testing.assert_allclose(robust.bse, result.coef_table(vcov="CR1")["std_error"], rtol=1e-9)
    slopes = lme4py.memlogit(DATA, "y", ["x"], "g", ["x"], "diagonal", nAGQ=0)
    assert slopes.formula == "y ~ x + diag(1 + x | g)"


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: lme4py.memlogit(DATA, "y", ["x"], "g", baseline="Z"), "is no category"),
        (lambda: lme4py.memlogit(DATA, "y", ["x"], "g", offset={"Z": "x"}), "is no category"),
        (lambda: lme4py.memlogit(DATA, "y", ["x"], "g", rrr=True), r"relative_risk_ratios\(\)"),
        (lambda: lme4py.memlogit(DATA, "y", ["x"], "g", baseoutcome="A"), "baseline="),
        (lambda: lme4py.memlogit(DATA, "y", ["x"], "g", vce="robust", nAGQ=0), "nAGQ=0"),
        (lambda: lme4py.memlogit(DATA.assign(z=DATA["y"] == "C"), "y", ["z"], "g"), r"C: z.* goes to \+inf"),
        (lambda: lme4py.meglm(DATA, "y", ["x"], "g", "multinomial"), "use memlogit"),
        (
            lambda: lme4py.melogit(CONTRACEPTION, "use", ["age"], "district").relative_risk_ratios(),
            "multinomial family",
        ),
    ],
)
def test_refusals_of_the_keyword_door(call, words):
    with pytest.raises((lme4py.Lme4Error, TypeError), match=words):
        call()


def test_counts_in_long_form_are_the_repeated_rows():
    rng = np.random.default_rng(3)
    g, x = np.repeat(np.arange(12), 6), rng.standard_normal(72)
    eta = np.column_stack([np.zeros(72), 0.3 + 0.5 * x, np.full(72, -0.2)]) + rng.standard_normal((12, 3))[g]
    p = np.exp(eta) / np.exp(eta).sum(axis=1, keepdims=True)
    wide = pd.DataFrame(rng.multinomial(rng.integers(1, 6, 72), p), columns=list("abc")).assign(x=x, g=g)
    long = wide.melt(id_vars=["x", "g"], var_name="y", value_name="n").query("n > 0").reset_index(drop=True)
    rows = long.loc[long.index.repeat(long["n"])].reset_index(drop=True)
    counted = lme4py.glmer("y ~ x + (1 | g)", long, family="multinomial", weights="n")
    repeated = lme4py.glmer("y ~ x + (1 | g)", rows, family="multinomial")
    # The same likelihood, summed in another order and minimised twice.
    assert counted.log_likelihood == pytest.approx(repeated.log_likelihood, abs=1e-8)
    np.testing.assert_allclose(counted.params, repeated.params, atol=1e-6)
    np.testing.assert_allclose(counted.bse, repeated.bse, rtol=1e-5)
    two = wide[wide["a"] + wide["b"] > 0]
    binomial = lme4py.glmer("cbind(b, a) ~ x + (1 | g)", two)
    multinomial = lme4py.glmer("y ~ x + (1 | g)", long[long["y"] != "c"], family="multinomial", weights="n")
    assert multinomial.log_likelihood + binomial.fit.data.log_choose.sum() == pytest.approx(
        binomial.log_likelihood, abs=1e-8
    )
    for draws in (
        lambda: counted.simulate(1, seed=1),
        lambda: counted.bootstrap(2, seed=1),
        lambda: counted.quantile_residuals(20, seed=1),
    ):
        with pytest.raises(OptionError, match="rows with weights"):
            draws()
