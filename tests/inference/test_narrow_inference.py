"""Narrow, intermediate and broad inference (McLean, Sanders & Stroup 1991), by Henderson's equations and by ANOVA."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import linalg, special, stats

import lme4py
from lme4py import Margins, OptionError, pairwise
from lme4py.fits.kinds import model_of
from lme4py.inference.tests.joint_tests import JointMethod, effect_places


@pytest.fixture(scope="module")
def plots():
    """A small split plot: 4 blocks, 3 whole plots in each, 2 subplots in each of these."""
    rng = np.random.default_rng(17)
    rows = pd.DataFrame(list(itertools.product("abcd", "uvw", "xy")), columns=["block", "A", "B"])
    block = dict(zip("abcd", 3.0 * rng.normal(size=4), strict=True))
    whole = {key: 1.5 * rng.normal() for key in itertools.product("abcd", "uvw")}
    effect = {"u": 0.0, "v": 1.0, "w": 3.0}
    rows["y"] = [
        10 + block[b] + effect[a] + (c == "y") + whole[b, a] + rng.normal()
        for b, a, c in rows.itertuples(index=False, name=None)
    ]
    rows["n"] = rng.poisson(np.exp(1.0 + 0.3 * (rows["y"] - 12)))
    return rows


@pytest.fixture(scope="module")
def split(plots):
    return lme4py.lmer("y ~ A + B + (1 | block/A)", plots)


def henderson(fit, w=None, R=None):
    """Covariance of (beta^ - beta, b^ - b) from the mixed model equations; terms, levels, columns."""
    design = fit.design
    X, Z = design.X, design.Zt.T.toarray()
    G = linalg.block_diag(*[np.kron(np.eye(t.n_levels), c) for t, c in zip(design.terms, fit.covariances, strict=True)])
    w = 1.0 / fit.sigma**2 if w is None else w
    both = np.hstack([X, Z])
    equations = both.T @ (np.broadcast_to(w, len(X))[:, None] * both)
    equations[X.shape[1] :, X.shape[1] :] += np.linalg.inv(G)
    return np.linalg.inv(equations), both


def means_by_hand(plots, fit, included):
    """Rows [k m] of the means of A: the rows of the data with A set, b of the included factors averaged over them."""
    X, terms = fit.design.X, fit.design.terms
    names = list(fit.design.x_names)
    places = effect_places(fit)
    out = []
    for level in "uvw":
        row = np.zeros(X.shape[1] + places[-1].stop)
        row[names.index("Intercept")] = 1.0
        if level != "u":
            row[names.index(f"A[T.{level}]")] = 1.0
        row[names.index("B[T.y]")] = 0.5
        for t, term in enumerate(terms):
            if term.group in included:
                own = {"block": lambda r: r.block, "A:block": lambda r, level=level: f"{level}:{r.block}"}[term.group]
                for r in plots.itertuples():
                    row[X.shape[1] + places[t].start + list(term.levels).index(own(r))] += 1 / len(plots)
        out.append(row)
    return np.array(out)


SPACES = {"zero": [], "broad": [], "conditional": ["block", "A:block"], "narrow": ["block", "A:block"]}


@pytest.mark.parametrize("random", ["broad", "zero", "narrow", "conditional", ("block",), ("A:block",)])
def test_the_three_kinds_of_inference_by_the_mixed_model_equations(plots, split, random):
    included = SPACES[random] if isinstance(random, str) else list(random)
    C, _ = henderson(split.fit)
    L = means_by_hand(plots, split.fit, included)
    session = Margins.linear_scale(split, random=random if isinstance(random, str) else list(random))
    found = session.predict(atexog={"A": ["u", "v", "w"]})
    # The inverse of a matrix of 20 rows.
    np.testing.assert_allclose(found.covariance, L @ C @ L.T, rtol=1e-8, atol=1e-12)
    b = np.concatenate([modes.ravel() for modes in split.fit.modes])
    np.testing.assert_allclose(found.estimate, L @ np.concatenate([split.params, b]), rtol=1e-10)
    contrast = session.contrasts(pairwise("A", ["w", "u"]))
    row = L[2] - L[0]
    assert contrast.std_error[0] == pytest.approx(np.sqrt(row @ C @ row), rel=1e-8)
    joint = session.contrasts(pairwise("A")).joint_test()
    rows = np.array([L[1] - L[0], L[2] - L[0]])
    gap = rows @ np.concatenate([split.params, b])
    assert joint["F"] == pytest.approx(gap @ np.linalg.solve(rows @ C @ rows.T, gap) / 2, rel=1e-6)
    kind = {0: "broad", 1: "intermediate", 2: "narrow"}[len(included)]
    assert f"{kind} inference" in " ".join(found.summary().split())


def test_the_kinds_differ_as_they_should(split):
    """Means are known best about these very plots, worst about the population of blocks."""
    sessions = {kind: Margins.linear_scale(split, random=kind) for kind in ("broad", "narrow")}
    errors = {kind: m.predict(atexog={"A": ["u"]}).std_error[0] for kind, m in sessions.items()}
    errors["intermediate"] = Margins.linear_scale(split, random=["block"]).predict(atexog={"A": ["u"]}).std_error[0]
    assert errors["narrow"] < errors["intermediate"] < errors["broad"]
    # Blocks are common to all levels of A: the difference does not depend on them.
    for kind, random in (("broad", "broad"), ("block", ["block"])):
        m = Margins.linear_scale(split, random=random)
        errors[kind] = m.contrasts(pairwise("A", ["v", "u"])).std_error[0]
    assert errors["block"] == pytest.approx(errors["broad"], rel=1e-8)


def test_randomised_blocks_by_the_analysis_of_variance():
    """The mean of a treatment over these blocks has the error of its own residuals: MSE / J on (I - 1)(J - 1) df.

    Over the population of blocks its variance is (MSB + (I - 1) MSE) / (I J), with Satterthwaite's own formula.
    """
    rng = np.random.default_rng(3)
    n_treatments, J = 3, 5
    data = pd.DataFrame(list(itertools.product(range(J), "rst")), columns=["block", "t"])
    data["y"] = 2.0 * rng.normal(size=J)[data["block"]] + rng.normal(size=n_treatments * J) + (data["t"] == "s")
    fit = lme4py.lmer("y ~ t + (1 | block)", data)
    table = data.pivot(index="block", columns="t", values="y").to_numpy()
    rest = table - table.mean(0) - table.mean(1)[:, None] + table.mean()
    mse, msb = (rest**2).sum() / ((n_treatments - 1) * (J - 1)), n_treatments * table.mean(1).var(ddof=1)
    narrow = Margins.linear_scale(fit, random="narrow").predict(atexog={"t": ["r"]})
    # REML stops at about eight digits of the variances.
    assert narrow.std_error[0] == pytest.approx(np.sqrt(mse / J), rel=1e-6)
    assert narrow.df[0] == pytest.approx((n_treatments - 1) * (J - 1), rel=1e-5)
    assert narrow.estimate[0] == pytest.approx(table[:, 0].mean(), rel=1e-9)
    broad = Margins.linear_scale(fit).predict(atexog={"t": ["r"]})
    parts = np.array([msb, (n_treatments - 1) * mse]) / (n_treatments * J)
    assert broad.std_error[0] == pytest.approx(np.sqrt(parts.sum()), rel=1e-6)
    df = parts.sum() ** 2 / (parts[0] ** 2 / (J - 1) + parts[1] ** 2 / ((n_treatments - 1) * (J - 1)))
    assert broad.df[0] == pytest.approx(df, rel=1e-5)


def test_degrees_of_freedom_by_differences(plots, split):
    fit = split.fit
    L = means_by_hand(plots, fit, ["block"])
    m = fit.theta.size
    A = model_of(fit).variance_information().covariance[: m + 1, : m + 1]
    scaling = fit.problem.scaling

    def variance(change):
        from dataclasses import replace

        sigma = fit.sigma * np.exp(change[m])
        roots = [
            sigma / np.sqrt(scaling.weight_scale) * S @ T
            for S, T in zip(scaling.S, fit.problem.structures.factors(fit.theta_inside + change[:m]), strict=True)
        ]
        moved = replace(fit, sigma=sigma, covariances=tuple(root @ root.T for root in roots))
        return np.einsum("ri,ij,rj->r", L, henderson(moved)[0], L)

    h, value = 1e-4, variance(np.zeros(m + 1))
    gradient = np.array([(variance(h * e) - variance(-h * e)) / (2 * h) for e in np.eye(m + 1)])
    expected = 2 * value**2 / np.einsum("in,ij,jn->n", gradient, A, gradient)
    found = Margins.linear_scale(split, random=["block"]).predict(atexog={"A": ["u", "v", "w"]})
    # Differences of second order, and another Hessian.
    np.testing.assert_allclose(found.df, expected, rtol=1e-5)


def test_groups_as_predict_has_them():
    sleep = lme4py.load_dataset("sleepstudy")
    fit = lme4py.lmer("Reaction ~ Days + (Days | Subject)", sleep)
    m = Margins.linear_scale(fit, random="conditional")
    found = m.predict(atexog={"Days": [0.0, 5.0]}, over="Subject").to_frame()
    new = found[["Days", "Subject"]]
    expected = fit.predict(new, interval="confidence")
    # Two ways to the same covariance and degrees of freedom: exact slopes and five-point differences.
    np.testing.assert_allclose(found[["estimate", "ci_lower", "ci_upper"]], expected, rtol=1e-7)
    slopes = m.dydx("Days", over="Subject")
    modes, sds = fit.ranef(conditional_se=True)
    np.testing.assert_allclose(slopes.estimate, fit.params["Days"] + modes["Days"], rtol=1e-10)
    # The error of a slope is that of beta and b together, and not that of b with beta known.
    assert (slopes.std_error > sds["Days"]).all()
    rows = Margins.linear_scale(fit, random="narrow").predict(unit_level=True)
    np.testing.assert_allclose(rows.limits(0.95), fit.predict(interval="confidence")[["lower", "upper"]].T, rtol=1e-7)


@pytest.mark.parametrize("family", ["poisson", "binomial"])
def test_generalised_models_by_the_working_equations(plots, family):
    if family == "poisson":
        fit = lme4py.glmer("n ~ A + B + (1 | block) + (1 | block:A)", plots, family)
    else:
        cbpp = lme4py.load_dataset("cbpp")
        fit = lme4py.glmer("cbind(incidence, size - incidence) ~ period + (1 | herd)", cbpp)
    rows = fit.fit.family.derivatives(fit.fit.data, fit.fit.linear_predictor, fit.fit.lam, 2)
    C, both = henderson(fit.fit, rows.w_obs)
    p = fit.params.size
    # The fixed effects have the covariance of the likelihood; given these, modes that of the working model.
    gain = -np.linalg.solve(np.linalg.inv(C)[p:, p:], np.linalg.inv(C)[p:, :p])
    K = np.linalg.inv(np.linalg.inv(C)[p:, p:])
    V = fit.cov_params().to_numpy()
    joint = np.block([[V, V @ gain.T], [gain @ V, K + gain @ V @ gain.T]])
    found = Margins.linear_scale(fit, random="narrow").predict()
    mean = fit.predict().to_numpy()
    slope = mean if family == "poisson" else mean * (1 - mean)
    row = (slope[:, None] * both).mean(axis=0)
    assert found.estimate[0] == pytest.approx(mean.mean(), rel=1e-10)
    assert found.std_error[0] == pytest.approx(np.sqrt(row @ joint @ row), rel=1e-7)  # a dense inverse
    assert np.isinf(found.df).all()
    linked = Margins.link_scale(fit, random="narrow").predict(unit_level=True)
    expected = fit.predict(type="linear", interval="confidence")
    np.testing.assert_allclose(np.array(linked.limits(0.95)).T, expected[["lower", "upper"]], rtol=1e-8)


def gradients(session, request):
    """The gradient that a request uses, and central differences of the same estimand in all parameters."""
    held = []
    apply = session._inference.apply
    session._inference.apply = lambda estimand, curved: held.append(estimand) or apply(estimand, curved)
    request(session)
    estimates = session._inference.estimates
    exact = held[0](estimates, True)[1]
    size = exact.shape[1]
    h = 1e-6
    by_difference = np.array(
        [
            (held[0](estimates.plus(h * e), False)[0] - held[0](estimates.plus(-h * e), False)[0]) / (2 * h)
            for e in np.eye(size)
        ]
    ).T
    return exact, by_difference


@pytest.mark.parametrize("random", ["conditional", ("g",)])
@pytest.mark.parametrize(
    "request_",
    [
        lambda m: m.predict(atexog={"x": [0.0, 1.0], "f": ["a", "b"]}),
        lambda m: m.predict(over="f"),
        lambda m: m.predict(unit_level=True),
        lambda m: m.predict(atexog={"g": [1, 2]}),
        lambda m: m.contrasts(pairwise("f")),
        lambda m: m.dydx("x"),
        lambda m: m.dydx("f"),
        lambda m: m.eyex("x"),
        lambda m: m.dydx("x", unit_level=True),
    ],
)
def test_gradients_in_the_random_effects(random, request_):
    rng = np.random.default_rng(4)
    g, h = np.repeat(np.arange(8), 6), np.tile(np.arange(6), 8)
    data = pd.DataFrame({"g": g, "h": h, "x": rng.normal(size=48), "f": np.array(list("ab"))[rng.integers(0, 2, 48)]})
    eta = 0.4 * data["x"] + 0.7 * rng.normal(size=8)[g] + 0.5 * rng.normal(size=6)[h] + 0.3 * rng.normal(size=8)[g]
    data["y"] = rng.poisson(np.exp(eta + 0.5))
    fit = lme4py.glmer("y ~ x * f + diag(x | g) + (1 | h)", data, "poisson")
    exact, by_difference = gradients(Margins.linear_scale(fit, random=random), request_)
    # Differences of second order with steps of 1e-6.
    np.testing.assert_allclose(exact, by_difference, atol=1e-7 * np.abs(exact).max())


def test_ordered_categories(plots):
    data = plots.assign(o=np.digitize(plots["y"], np.quantile(plots["y"], [0.3, 0.7])))
    fit = lme4py.clmm("o ~ B + (1 | block)", data)
    found = Margins.linear_scale(fit, random="narrow").predict(atexog={"B": ["x"]}, over="block").to_frame()
    new = pd.DataFrame({"B": ["x"] * 4, "block": list("abcd")})
    expected = fit.predict(new, type="prob", interval="confidence")
    for k in fit.categories:
        own = found[found["category"] == k].set_index("block").loc[list("abcd")]
        p = expected[k]["predicted"].to_numpy()
        np.testing.assert_allclose(own["estimate"], p, rtol=1e-9)
        # Limits of predict are on the logit scale.
        half = special.logit(expected[k]["upper"]) - special.logit(expected[k]["lower"])
        error = half / (2 * stats.norm.ppf(0.975)) * p * (1 - p)
        np.testing.assert_allclose(own["std_error"], error, rtol=1e-6)


def test_draws_and_robust_coefficients(split, plots):
    exact = Margins.linear_scale(split, random="narrow").predict(atexog={"A": ["u", "w"]})
    drawn = Margins.linear_scale(split, random="narrow", method="simulation", n_sim=4000, rng_seed=1)
    drawn = drawn.predict(atexog={"A": ["u", "w"]})
    # 4,000 draws: a standard deviation is known to about 1 %.
    np.testing.assert_allclose(drawn.std_error, exact.std_error, rtol=0.05)
    np.testing.assert_allclose(drawn.df, exact.df, rtol=1e-9)
    V = split.cov_params("CR1", "block").to_numpy()
    robust = Margins.linear_scale(split, random="narrow", vcov="CR1", cluster="block").predict(atexog={"A": ["u"]})
    L = means_by_hand(plots, split.fit, ["block", "A:block"])[:1]
    assert robust.std_error[0] == pytest.approx(np.sqrt(JointMethod(split.fit, None, V).covariance(L)[0, 0]), rel=1e-9)
    assert np.isinf(robust.df).all()


def test_joint_tests_of_curved_functions(split):
    m = Margins.linear_scale(split, random="narrow")
    scenarios = [{"A": level} for level in "uvw"]
    found = m.evaluate(scenarios, lambda y: np.array([np.exp(y[1] / 9) - np.exp(y[0] / 9), y[1] - y[0]])).joint_test()
    one = m.contrasts(pairwise("A", ["v", "u"]))
    # Two functions, but one hypothesis.
    assert found["df"] == 1
    assert found["F"] == pytest.approx(one.statistic[0] ** 2, rel=1e-5)
    assert found["df_denom"] == pytest.approx(one.df[0], rel=1e-5)


def test_degrees_of_freedom_follow_the_fit(plots):
    adjusted = lme4py.mixed(plots, "y", ["A", "B"], ["block", "A"], ddf="kenward-roger")
    plain = lme4py.mixed(plots, "y", ["A", "B"], ["block", "A"])
    narrow = Margins.linear_scale(adjusted, random="narrow").predict()
    # Kenward and Roger's are about fixed effects: Satterthwaite's stand in for them.
    same = Margins.linear_scale(plain, random="narrow", ddf="satterthwaite").predict()
    np.testing.assert_allclose([narrow.df, narrow.std_error], [same.df, same.std_error], rtol=1e-6)
    assert np.isinf(Margins.linear_scale(plain, random="narrow").predict().df).all()
    residual = Margins.linear_scale(plain, random="narrow", ddf="residual").predict()
    assert residual.df.tolist() == [len(plots) - 4]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"random": "intermediate"}, r"name the grouping factors, such as random=\['block'\]"),
        ({"random": ["blok"]}, "Did you mean 'block'"),
        ({"random": []}, "must name grouping factors"),
        ({"random": "narow"}, "Did you mean 'narrow'"),
        ({"random": "narrow", "at": "mean"}, "needs rows with groups"),
        ({"random": "narrow", "method": "bootstrap"}, "draws groups anew"),
        ({"random": "narrow", "ddf": "kenward-roger"}, "is about fixed effects"),
        ({"random": "narrow", "vcov": "CR1", "cluster": "block", "ddf": "satterthwaite"}, "does not belong to another"),
    ],
)
def test_what_is_refused(split, options, message):
    with pytest.raises(OptionError, match=message):
        Margins.linear_scale(split, **options)
