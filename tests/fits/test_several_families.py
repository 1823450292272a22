"""Several responses with a family each: against sums over grids, separate fits, and the long form by hand."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, stats

import lme4py
from lme4py import Margins
from lme4py.engine.generalised.laplace import laplace
from lme4py.engine.generalised.problem import ModeFinder
from lme4py.errors import DataError, DesignError, FormulaError, Lme4Error, OptionError
from lme4py.families.registry import make_family

MIXED = {"y": "gaussian", "event": "binomial"}


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(3)
    groups, size = 50, 6
    person = np.repeat(np.arange(groups), size)
    x = rng.normal(size=person.size)
    b = rng.multivariate_normal([0, 0], [[1.0, 0.5], [0.5, 0.8]], groups)[person]
    table = pd.DataFrame({"x": x, "person": person, "arm": np.where(person % 2 == 0, "a", "b")})
    table["y"] = 1.0 + 0.5 * x + b[:, 0] + 0.7 * rng.normal(size=x.size)
    table["event"] = (rng.random(x.size) < 1.0 / (1.0 + np.exp(0.3 - 0.8 * x - b[:, 1]))).astype(float)
    table["count"] = rng.poisson(np.exp(0.2 + 0.3 * x + 0.5 * b[:, 0])).astype(float)
    table.loc[::11, "y"] = np.nan
    table.loc[5::13, "event"] = np.nan
    return table


@pytest.fixture(scope="module")
def fit(data):
    return lme4py.glmer("mvbind(y, event) ~ x * arm + (1 | person)", data, family=MIXED)


# --- the likelihood ---------------------------------------------------------------------------------------------------

TINY = "mvbind(y, event, count) ~ x + (1 | person)"
FAMILIES = ["gaussian", "binomial", "poisson"]


@pytest.fixture(scope="module")
def tiny(data):
    return data[data["person"] < 4]


def _log_joint(fit, rows, b):
    """log density of the responses of a person and of its effects, written out, for b of shape (..., 3)."""
    beta = fit.params
    G = fit.fit.covariances[0]
    sigma = fit.family_params["sigma(y)"]
    total = stats.multivariate_normal(np.zeros(3), G, allow_singular=True).logpdf(b)
    for k, name in enumerate(("y", "event", "count")):
        own = rows[rows[name].notna()]
        eta = beta[f"{name}: Intercept"] + beta[f"{name}: x"] * own["x"].to_numpy() + b[..., k, None]
        values = own[name].to_numpy()
        if name == "y":
            total = total + stats.norm(eta, sigma).logpdf(values).sum(axis=-1)
        elif name == "event":
            total = total + (values * eta - np.logaddexp(0.0, eta)).sum(axis=-1)
        else:
            total = total + stats.poisson(np.exp(eta)).logpmf(values).sum(axis=-1)
    return total


@pytest.fixture(scope="module")
def tiny_fit(tiny):
    fix = {"sd(y: Intercept | person)": 0.9, "sd(event: Intercept | person)": 0.8, "sd(count: Intercept | person)": 0.5}
    fix |= {f"cor({a}: Intercept, {b}: Intercept | person)": r for a, b, r in _CORRELATIONS}
    return lme4py.glmer(TINY, tiny, family=FAMILIES, fix=fix)


_CORRELATIONS = (("y", "event", 0.5), ("y", "count", 0.4), ("event", "count", 0.3))


def test_the_likelihood_is_laplaces_written_out(tiny, tiny_fit):
    """-2 log L = -2 [log f(y, b~) + 3/2 log 2 pi - 1/2 log|H|] of each person, by a general optimiser."""
    total = 0.0
    for _, rows in tiny.groupby("person"):

        def minus(b, rows=rows):
            return -float(_log_joint(tiny_fit, rows, b))

        found = optimize.minimize(minus, np.zeros(3), method="BFGS", options={"gtol": 1e-9})
        H = _hessian(minus, found.x)
        total += -found.fun + 1.5 * np.log(2.0 * np.pi) - 0.5 * np.linalg.slogdet(H)[1]
    # A Hessian by differences of fourth order.
    assert tiny_fit.log_likelihood == pytest.approx(total, abs=2e-5)


def _hessian(f, x, h=1e-3):
    def second(u, v):
        def g(s):
            return (f(x + s * u + s * v) - f(x + s * u - s * v) - f(x - s * u + s * v) + f(x - s * u - s * v)) / (
                4.0 * s * s
            )

        return (4.0 * g(h) - g(2.0 * h)) / 3.0

    e = np.eye(x.size)
    return np.array([[second(a, b) for b in e] for a in e])


def test_quadrature_is_the_integral(tiny, tiny_fit):
    """The sum over a fine product rule in the effects themselves, at the estimates of the quadrature fit."""
    pair = "mvbind(event, count) ~ x + (1 | person)"
    fit = lme4py.glmer(pair, tiny, family=["binomial", "poisson"], nAGQ=15)
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    weights = weights / weights.sum()
    L = np.linalg.cholesky(fit.fit.covariances[0] + 1e-14 * np.eye(2))
    z = np.stack(np.meshgrid(nodes, nodes, indexing="ij"), axis=-1).reshape(-1, 2)
    w = np.outer(weights, weights).ravel()
    b, beta, total = z @ L.T, fit.params, 0.0
    for _, rows in tiny.groupby("person"):
        log_f = np.zeros(len(b))
        for k, name in enumerate(("event", "count")):
            own = rows[rows[name].notna()]
            eta = beta[f"{name}: Intercept"] + beta[f"{name}: x"] * own["x"].to_numpy() + b[:, k, None]
            values = own[name].to_numpy()
            one = (
                values * eta - np.logaddexp(0.0, eta) if name == "event" else stats.poisson(np.exp(eta)).logpmf(values)
            )
            log_f += one.sum(axis=1)
        total += np.log(w @ np.exp(log_f))
    # Fifteen adaptive points against eighty that are not.
    assert fit.log_likelihood == pytest.approx(total, abs=1e-5)


def test_the_gradient_is_that_of_differences(data):
    rng = np.random.default_rng(5)
    counts = rng.poisson(np.exp(1.0 + 0.3 * data["x"]) * rng.gamma(0.7, 1.4, len(data)))
    over = data.assign(count=counts.astype(float), other=rng.gamma(2.0, np.exp(0.3 * data["x"])))
    formula = "mvbind(y, event, count, other) ~ x + (1 || person)"
    families = ["gaussian", "binomial", "nbinomial", make_family("gamma", "log")]
    fit = lme4py.glmer(formula, over, family=families)
    problem = fit.fit.problem
    finder = ModeFinder(problem)
    phi = fit.fit.phi + 0.05 * np.random.default_rng(1).standard_normal(fit.fit.phi.size)
    zero = np.zeros(sum(factor.size for factor in problem.factors))

    def at(point):
        return laplace(finder, finder.find(*problem.split(point), zero))

    gradient, h = at(phi).gradient, 1e-5
    steps = h * np.eye(phi.size)
    difference = np.array([(at(phi + s).value - at(phi - s).value) / (2.0 * h) for s in steps])
    # Central differences of values with 1e-12 noise.
    assert gradient == pytest.approx(difference, abs=2e-6 * np.abs(difference).max())


def test_independent_effects_are_separate_models(data):
    together = lme4py.glmer("mvbind(y, event) ~ x + (1 || person)", data, family=MIXED)
    y = lme4py.glmer("y ~ x + (1 | person)", data, family="gaussian")
    event = lme4py.glmer("event ~ x + (1 | person)", data, family="binomial")
    # Certified optima of one function.
    assert together.log_likelihood == pytest.approx(y.log_likelihood + event.log_likelihood, abs=1e-8)
    for name, own in (("y", y), ("event", event)):
        assert together.params[f"{name}: x"] == pytest.approx(own.params["x"], abs=1e-6)
        assert together.bse[f"{name}: x"] == pytest.approx(own.bse["x"], rel=1e-5)
    assert together.family_params["sigma(y)"] == pytest.approx(y.sigma, rel=1e-6)


def test_one_family_for_all_is_the_long_form(data):
    wide = data.assign(other=np.roll(data["count"], 1))
    fit = lme4py.glmer("mvbind(count, other) ~ x + (1 | person)", wide, family="poisson")
    long = wide.melt(id_vars=["x", "person"], value_vars=["count", "other"], var_name="kind")
    hand = lme4py.glmer("value ~ 0 + kind + kind:x + (0 + kind | person)", long, family="poisson")
    # Two certified optima.
    assert fit.log_likelihood == pytest.approx(hand.log_likelihood, abs=1e-8)
    assert fit.params.to_numpy() == pytest.approx(hand.params.to_numpy(), abs=1e-6)
    assert fit.equal_effects().loc["x", "df"] == 1


@pytest.mark.parametrize("unit", [1e6, 1e-6])
def test_units_of_a_response_do_not_matter(data, unit):
    formula = "mvbind(y, event) ~ x + (1 | person)"
    fit = lme4py.glmer(formula, data, family=MIXED)
    other = lme4py.glmer(formula, data.assign(y=unit * data["y"]), family=MIXED)
    jacobian = np.log(unit) * data["y"].notna().sum()
    # The same model in other numbers: two certified optima.
    assert other.log_likelihood + jacobian == pytest.approx(fit.log_likelihood, abs=1e-6)
    assert other.bse["event: x"] == pytest.approx(fit.bse["event: x"], rel=1e-4)


def test_separation_is_found_in_one_response(data):
    parted = data.assign(event=data["event"].where(data["arm"] == "a", 1.0))
    with pytest.warns(lme4py.errors.ConvergenceWarning, match=r"event: arm\[T.b\]"):
        fit = lme4py.glmer("mvbind(y, event) ~ arm + (1 | person)", parted, family=MIXED)
    assert fit.params["event: arm[T.b]"] == np.inf
    assert np.isnan(fit.bse["event: arm[T.b]"])
    assert np.isfinite(fit.bse[["y: arm[T.b]", "event: Intercept"]]).all()


# --- what follows -----------------------------------------------------------------------------------------------------


def test_correlations_and_tests(data, fit):
    table = fit.response_correlations()
    assert table["group"].tolist() == ["person"]
    row = table.iloc[0]
    half = 1.959963984540054 * row["std_error"] / (1.0 - row["estimate"] ** 2)
    limits = np.tanh(np.arctanh(row["estimate"]) + np.array([-half, half]))
    # By its definition.
    assert [row["lower"], row["upper"]] == pytest.approx(limits.tolist(), rel=1e-9)
    apart = lme4py.glmer("mvbind(y, event) ~ x * arm + (1 || person)", data, family=MIXED)
    assert lme4py.lrtest(apart, fit).df == 1
    assert fit.anova().index.tolist() == ["x", "arm", "x:arm"]
    assert fit.anova()["df"].tolist() == [2, 2, 2]
    with pytest.raises(OptionError, match="scale in common"):
        fit.equal_effects()
    chi2 = fit.wald_test("y:x = 0, event:x = 0")["chi2"]
    assert np.isfinite(chi2)


def test_predictions_have_the_link_of_their_response(data, fit):
    new = pd.DataFrame({"x": [0.0, 1.0], "arm": ["a", "b"], "person": [0, 1]}, index=["p", "q"])
    linear, means = fit.predict(new, type="linear"), fit.predict(new)
    # The inverse links.
    assert means["y"].tolist() == pytest.approx(linear["y"].tolist(), rel=1e-12)
    assert means["event"].tolist() == pytest.approx((1.0 / (1.0 + np.exp(-linear["event"]))).tolist(), rel=1e-12)
    limits = fit.predict(new, include_random=False, interval="confidence")
    row = fit.cov_params().loc[["y: Intercept"], ["y: Intercept"]].iloc[0, 0]
    half = 0.5 * (limits["y"]["upper"]["p"] - limits["y"]["lower"]["p"])
    assert half == pytest.approx(1.959963984540054 * np.sqrt(row), rel=1e-9)
    own = fit.predict()
    assert own.to_numpy() == pytest.approx(fit.fittedvalues.to_numpy(), abs=1e-12, nan_ok=True)
    average = fit.predict(new, include_random="integrate")["event"]["p"]
    eta, sd = fit.params["event: Intercept"], np.sqrt(fit.fit.covariances[0][1, 1])
    z = np.linspace(-8, 8, 4001)
    by_hand = np.trapezoid(stats.norm.pdf(z) / (1.0 + np.exp(-eta - sd * z)), z)
    # A fine sum.
    assert average == pytest.approx(by_hand, abs=1e-8)


def test_margins_are_of_one_response(data, fit):
    with pytest.raises(OptionError, match="component="):
        Margins.response(fit)
    m = Margins.response(fit, component="event")
    found = m.predict(atexog={"arm": ["a"]}).estimate[0]
    rows = data[data["event"].notna()].assign(arm="a")
    expected = fit.predict(rows, include_random=False)["event"].mean()
    # The mean over the rows that have the response.
    assert found == pytest.approx(expected, rel=1e-10)
    ratio = Margins.logit_scale(fit, component="event").contrasts(lme4py.pairwise("arm", ["b", "a"]), over=None)
    assert ratio.estimate.shape == (1,)


def test_draws_refits_and_rows(data, fit):
    drawn = fit.simulate(2, seed=1)["sim_1"].unstack("response")
    assert set(drawn["event"].dropna()) <= {0.0, 1.0}
    assert drawn["y"].nunique() > 100
    again = fit.refit(data[["y", "event"]])
    # The same response.
    assert again.params.to_numpy() == pytest.approx(fit.params.to_numpy(), abs=1e-7)
    new = data.iloc[:4].assign(person=[0, 0, 77, 77])
    assert fit.simulate(1, seed=2, data=new).shape == (8, 1)
    table = fit.bootstrap(4, seed=1).conf_int(0.5)
    assert "sigma(y)" in table.index
    modes = fit.ranef(data=data)
    # From all rows of the fit.
    assert modes.to_numpy() == pytest.approx(fit.ranef().to_numpy(), abs=1e-6)
    pearson = fit.residuals("pearson")["event"]
    p = fit.fittedvalues["event"]
    by_hand = (data["event"].reindex(p.index) - p) / np.sqrt(p * (1 - p))
    assert pearson.to_numpy() == pytest.approx(by_hand.to_numpy(), nan_ok=True)
    slim = pickle.loads(pickle.dumps(fit.slim()))
    assert slim.predict(new.iloc[:2]).equals(fit.predict(new.iloc[:2]))


def test_tables(fit):
    text = str(fit.summary())
    assert "y: gaussian, event: binomial" in text
    tidy = fit.tidy(conf_int=True)
    assert tidy.loc[tidy["effect"] == "fixed", "response"].tolist() == ["y", "event"] * 4
    sigma = tidy[tidy["term"] == "sigma(y)"].iloc[0]
    assert sigma["conf_low"] < sigma["estimate"] < sigma["conf_high"]
    assert fit.profile("sigma(y)").conf_int().shape == (1, 2)


def test_responses_of_two_levels(data):
    words = data.assign(event=data["event"].map({0.0: "no", 1.0: "yes"}))
    numbers = lme4py.glmer("mvbind(y, event) ~ x + (1 | person)", data, family=MIXED)
    # The second level is 1.
    found = lme4py.glmer("mvbind(y, event) ~ x + (1 | person)", words, family=MIXED)
    assert found.log_likelihood == pytest.approx(numbers.log_likelihood, abs=1e-9)


def test_every_method_answers_or_refuses_by_name(data, fit):
    import matplotlib as mpl

    mpl.use("agg")
    answers = [
        lambda: fit.influence("person"), fit.hatvalues, fit.augment, fit.glance, fit.ranova, fit.check, fit.re_pca,
        lambda: fit.coef_table(vcov="CR0"), lambda: fit.plot("caterpillar", variable="all"), fit.quantile_residuals,
        lambda: fit.plot("residual_panel"), lambda: fit.summary().to_latex(), fit.information_criteria, fit.drop1,
        lambda: lme4py.compare(fit, fit).to_frame(), fit.coef,
    ]  # fmt: skip
    refused = [
        fit.icc, fit.r_squared, fit.odds_ratios, lambda: fit.residuals("working"), lambda: lme4py.caic(fit),
        lambda: fit.plot("effect", variable="x"), lambda: lme4py.cross_validate(fit, groups="person", k=3),
        lambda: fit.predict(data, given=data),
    ]  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for call in answers:
            assert call() is not None
        for call in refused:
            with pytest.raises(Lme4Error):
                call()
    import matplotlib.pyplot as plt

    plt.close("all")


BAD = {
    "no family": ({}, OptionError, "need their families"),
    "too few": ({"family": ["gaussian"]}, OptionError, "1 values for 2"),
    "one without": ({"family": {"y": "gaussian"}}, OptionError, "none for the response 'event'"),
    "no response": ({"family": {"z": "gaussian"}}, OptionError, "no response"),
    "categories": ({"family": ["gaussian", "multinomial"]}, OptionError, "multinomial"),
    "bounded": ({"family": ["gamma", "binomial"], "link": ["inverse", None]}, OptionError, "bounded range"),
    "negative counts": ({"family": ["poisson", "binomial"]}, DataError, "'y'"),
    "offset": ({"family": MIXED, "offset": "x"}, OptionError, "offset="),
    "zeros": ({"family": MIXED, "ziformula": "~ 1"}, OptionError, "ziformula="),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_by_name(data, case):
    options, kind, words = BAD[case]
    with pytest.raises(kind, match=words):
        lme4py.glmer("mvbind(y, event) ~ x + (1 | person)", data, **options)


def test_without_random_effects_only_where_asked_for(data):
    with pytest.raises(FormulaError, match="no random-effects term"):
        lme4py.glmer("mvbind(y, event) ~ x", data, family=MIXED)
    fit = lme4py.glmer("mvbind(y, event) ~ x", data, family=MIXED, fixed_only=True)
    y = lme4py.glmer("y ~ x", data, family="gaussian", fixed_only=True)
    event = lme4py.glmer("event ~ x", data, family="binomial", fixed_only=True)
    # A sum of two.
    assert fit.log_likelihood == pytest.approx(y.log_likelihood + event.log_likelihood, abs=1e-8)


def test_effects_of_every_row(data):
    rows = data.assign(row=range(len(data)), other=np.roll(data["count"], 1))
    with pytest.raises(DesignError, match="every row"):
        lme4py.glmer("mvbind(y, event) ~ x + (1 | row)", rows, family=MIXED)
    # Counts have no variation beside their mean: the Poisson-lognormal model.
    fit = lme4py.glmer("mvbind(count, other) ~ x + (1 | row)", rows, family="poisson")
    assert fit.converged
