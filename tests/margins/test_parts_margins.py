"""Margins and averages of models with zero parts: products of means, brute force, and simulation."""

from __future__ import annotations

import warnings
from contextlib import nullcontext

import numpy as np
import pandas as pd
import pytest
from scipy.linalg import block_diag

import lme4py
from lme4py import Margins, pairwise
from lme4py.errors import Lme4Warning, OptionError


@pytest.fixture(scope="module")
def data():
    return lme4py.load_dataset("Salamanders")


@pytest.fixture(scope="module")
def fit(data):
    formula = "count ~ mined + DOP + (1 | site)"
    return lme4py.glmer(formula, data, family="poisson", ziformula="~ mined + DOY + (1 | site)")


def integrated(fit, data, nodes=60):
    """Means of rows over both random effects, by a product of Gauss-Hermite rules."""
    x, w = np.polynomial.hermite_e.hermegauss(nodes)
    w = w / w.sum()
    sd = fit.var_corr()["sdcor"].to_numpy()
    eta = fit.predict(data, type="linear", include_random=False).to_numpy()[:, None]
    zero = fit.predict(data, type="zprob", include_random=False).to_numpy()[:, None]
    mu = np.exp(eta + sd[0] * x) @ w
    pi = (1.0 / (1.0 + np.exp(-np.log(zero / (1.0 - zero)) - sd[1] * x))) @ w
    return mu, pi


def test_means_are_averaged_over_the_random_effects_of_both_parts(fit, data):
    mu, pi = integrated(fit, data)
    # Sixty nodes are exact to rounding with these standard deviations.
    np.testing.assert_allclose(fit.predict(include_random="integrate", type="conditional"), mu, rtol=1e-9)
    np.testing.assert_allclose(fit.predict(include_random="integrate", type="zprob"), pi, rtol=1e-9)
    np.testing.assert_allclose(fit.predict(include_random="integrate"), (1.0 - pi) * mu, rtol=1e-9)
    m = Margins.response(fit, random="integrate").predict()
    assert m.estimate[0] == pytest.approx(((1.0 - pi) * mu).mean(), rel=1e-9)


@pytest.mark.parametrize("random", ["zero", "integrate"])
def test_contrasts_and_slopes_are_differences_of_predictions(fit, data, random):
    m = Margins.response(fit, random=random)
    include = "integrate" if random == "integrate" else False

    def mean(**changes):
        return fit.predict(data.assign(**changes), include_random=include).mean()

    levels = {level: data["mined"].where(data["mined"] == level, level) for level in ("yes", "no")}
    difference = m.contrasts(pairwise("mined", ["no", "yes"]))
    expected = mean(mined=levels["no"]) - mean(mined=levels["yes"])
    assert difference.estimate[0] == pytest.approx(expected, rel=1e-10)
    for name in ("DOP", "DOY"):
        h = 1e-4
        slope = (mean(**{name: data[name] + h}) - mean(**{name: data[name] - h})) / (2.0 * h)
        # A central difference of this step has eight digits.
        assert m.dydx(name).estimate[0] == pytest.approx(slope, rel=1e-7)


def test_standard_errors_are_those_of_draws_of_the_parameters(fit):
    options = {"random": "integrate"}
    for call in (lambda m: m.predict(atexog={"mined": ["yes", "no"]}), lambda m: m.dydx("DOP")):
        delta = call(Margins.response(fit, **options))
        drawn = call(Margins.response(fit, method="simulation", n_sim=2000, rng_seed=1, **options))
        # 2000 draws: 1.6 % each, and the curvature that the delta method leaves out.
        np.testing.assert_allclose(delta.std_error, drawn.std_error, rtol=0.12)
    assert np.isfinite(Margins.response(fit, vcov="CR0").predict().std_error).all()


def test_each_part_has_margins_of_its_own(fit, data):
    zero = Margins.response(fit, component="zero_inflation").predict()
    assert zero.estimate[0] == pytest.approx(fit.predict(type="zprob", include_random=False).mean(), rel=1e-12)
    mean = Margins.response(fit, component="conditional").predict()
    assert mean.estimate[0] == pytest.approx(fit.predict(type="conditional", include_random=False).mean(), rel=1e-12)
    ratio = Margins.logit_scale(fit, component="zero_inflation").contrasts(pairwise("mined", ["no", "yes"]))
    coefficient = fit.coef_table(component="zero_inflation").loc["mined[T.no]"]
    # On the scale of the link a difference is the coefficient.
    assert np.log(ratio.estimate[0]) == pytest.approx(coefficient["estimate"], rel=1e-10)
    with pytest.raises(OptionError, match="no part 'zi'"):
        Margins.response(fit, component="zi")
    with pytest.raises(OptionError, match="one linear predictor"):
        Margins.log_scale(fit)


def test_what_a_part_does_not_have_is_said_of_the_part(data):
    fit = lme4py.glmer("count ~ mined + DOY + (1 | site)", data, family="poisson", ziformula="~ 1")
    zero = Margins.response(fit, component="zero_inflation")
    with pytest.raises(OptionError, match=r"not a predictor of the zero_inflation part.*predictors are: none"):
        zero.predict(atexog={"mined": ["no"]})
    with pytest.raises(OptionError, match="not in the fixed effects of the zero_inflation part"):
        zero.dydx("DOY")


def test_limits_of_predictions_are_those_of_margins_of_rows(fit, data):
    rows = data.iloc[[0, 100, 300]]
    for include, random in ((False, "zero"), ("integrate", "integrate")):
        table = fit.predict(rows, include_random=include, interval="confidence")
        one = Margins.response(fit, at=rows, random=random)
        found = one.predict(unit_level=True)
        assert ((table["lower"] < table["predicted"]) & (table["predicted"] < table["upper"])).all()
        # The delta method on the log scale: half the width is 1.96 relative standard errors.
        half = np.log(table["upper"] / table["predicted"])
        np.testing.assert_allclose(half, 1.959964 * found.std_error / found.estimate, rtol=1e-6)
    zero = fit.predict(rows, include_random=False, type="zprob", interval="confidence")
    assert ((zero > 0.0) & (zero < 1.0)).to_numpy().all()
    modes = fit.predict(rows, interval="confidence")
    assert ((modes["lower"] < modes["predicted"]) & (modes["predicted"] < modes["upper"])).all()


# Formula, family, parts: a mean that is exp of its predictor, one that is another function of it, one of counts that
# are not zero, with slopes in parts and with a dispersion that is joined too; `y` are counts, `h` counts with a hurdle.
JOINED = {
    "poisson": ("y ~ x + (1 | s | g)", "~ 1 + (1 | s | g)", None),
    "binomial": ("cbind(k, 9 - k) ~ x + (x | s | g)", "~ 1 + (1 | s | g)", None),
    "truncated_poisson": ("h ~ x + (1 | s | g)", "~ x + (1 | s | g)", None),
    "truncated_nbinomial": ("h ~ x + (1 | s | g)", "~ 1", "~ 1 + (1 | s | g)"),
}


@pytest.fixture(scope="module")
def joined_rows():
    rng = np.random.default_rng(11)
    g, x = np.repeat(np.arange(24), 8), rng.normal(size=192)
    b = rng.multivariate_normal([0.0, 0.0], [[0.4, 0.3], [0.3, 0.5]], size=24)
    counts = rng.negative_binomial(4.0, 4.0 / (4.0 + np.exp(0.8 + (0.3 + 0.3 * rng.normal(size=24)[g]) * x + b[g, 0])))
    zero = rng.random(192) < 1.0 / (1.0 + np.exp(0.5 - 0.4 * x - b[g, 1]))
    successes = rng.binomial(9, 1.0 / (1.0 + np.exp(-0.5 * x - b[g, 0])))
    there = {"y": counts, "h": np.maximum(counts, 1), "k": successes}
    return pd.DataFrame({"g": g, "x": x, **{name: np.where(zero, 0, own) for name, own in there.items()}})


@pytest.fixture(scope="module", params=list(JOINED))
def joined(request, joined_rows):
    formula, zeros, dispersion = JOINED[request.param]
    parts = {"ziformula": zeros} | ({} if dispersion is None else {"dispformula": dispersion})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Lme4Warning)
        return lme4py.glmer(formula, joined_rows, family=request.param, **parts)


def brute(fit, phi, x):
    """The mean of a row with this x, by a product of Gauss-Hermite rules over all random effects of a group."""
    own, m = fit.fit, fit.fit.theta.size
    sizes = [len(part.names) for part in own.design.predictors]
    coefficients = np.split(phi[m:], np.cumsum(sizes))
    b, w = nodes_of(own.design.structures.factors(phi[:m]))
    effects = [pair for term in own.design.terms for pair in zip(term.columns, term.column_parts, strict=True)]
    at = {}
    for part, values in zip(own.design.predictors, coefficients, strict=False):
        moved = [
            e * (x if name.endswith("x") else 1.0)
            for e, (name, home) in zip(b, effects, strict=True)
            if home == part.name
        ]
        at[part.name] = values[0] + (values[1] * x if values.size > 1 else 0.0) + sum(moved)
    eta, zero = at["conditional"], 1.0 / (1.0 + np.exp(-at["zero_inflation"]))
    return float(w @ ((1.0 - zero) * CONDITIONAL[own.family.base_name](eta, at.get("dispersion"))))


CONDITIONAL = {
    "poisson": lambda eta, d: np.exp(eta),
    "binomial": lambda eta, d: 1.0 / (1.0 + np.exp(-eta)),
    "truncated_poisson": lambda eta, d: np.exp(eta) / -np.expm1(-np.exp(eta)),
    "truncated_nbinomial": lambda eta, d: np.exp(eta) / -np.expm1(-np.exp(d) * np.log1p(np.exp(eta - d))),
}


def nodes_of(factors):
    """Random effects (E, N) of all terms, and weights (N,)."""
    root = block_diag(*factors)
    z, w = np.polynomial.hermite_e.hermegauss({2: 60, 3: 26}[len(root)])
    every = np.stack(np.meshgrid(*[z] * len(root), indexing="ij")).reshape(len(root), -1)
    weights = np.prod(np.meshgrid(*[w / w.sum()] * len(root), indexing="ij"), axis=0).ravel()
    return root @ every, weights


def test_means_over_joined_random_effects_and_their_errors_are_those_of_brute_force(joined, joined_rows):
    own, rows = joined.fit, joined_rows.iloc[[3, 77]]
    phi = np.concatenate([own.theta, own.beta, np.atleast_1d(own.lam)])

    def means(phi, h=0.0):
        return np.array([brute(joined, phi, x + h) for x in rows["x"]])

    def slopes(phi):
        # A step whose errors by either side are 1e-8.
        return (means(phi, 1e-3) - means(phi, -1e-3)) / 2e-3

    m = Margins.response(joined, at=rows, random="integrate")
    predicted = joined.predict(rows, include_random="integrate", se=True)
    for found, function in ((m.predict(unit_level=True), means), (m.dydx("x", unit_level=True), slopes)):
        steps = 1e-4 * np.eye(phi.size)
        jacobian = np.stack([(function(phi + h) - function(phi - h)) / 2e-4 for h in steps], axis=1)
        errors = np.sqrt(np.diag(jacobian @ own.parameter_vcov @ jacobian.T))
        # The rules leave 1e-8, differences of parameters 1e-6.
        np.testing.assert_allclose(found.estimate, function(phi), rtol=2e-6)
        np.testing.assert_allclose(found.std_error, errors, rtol=2e-5)
        if function is means:
            np.testing.assert_allclose(predicted["predicted"], found.estimate, rtol=1e-8)
            np.testing.assert_allclose(predicted["std_error"], found.std_error, rtol=1e-6)


def test_margins_at_the_modes_are_predictions_of_every_part(joined, joined_rows):
    for component, kind in ((None, "response"), ("zero_inflation", "zprob"), ("conditional", "conditional")):
        m = Margins.response(joined, random="conditional", component=component)
        found = m.predict(unit_level=True)
        rows = joined.predict(joined_rows, type=kind, se=True)
        np.testing.assert_allclose(found.estimate, rows["predicted"], rtol=1e-12)
        # Slopes of the mean are differences there, which have ten digits.
        np.testing.assert_allclose(found.std_error, rows["std_error"], rtol=1e-8)
        with pytest.raises(OptionError, match="all coefficients") if component else nullcontext():
            assert np.isfinite(
                Margins.response(joined, random="conditional", component=component, vcov="CR0").predict().std_error
            ).all()
    groups = Margins.response(joined, random=["g"]).predict(over="g")
    assert len(groups.estimate) == 24


def test_margins_of_a_dispersion(data):
    fit = lme4py.glmer("count ~ spp + mined + (1 | site)", data, family="nbinomial", dispformula="~ DOY")
    m = Margins.response(fit, component="dispersion").predict()
    assert m.estimate[0] == pytest.approx(fit.predict(type="dispersion").mean(), rel=1e-12)
    # The mean of the response has one predictor, as without the part.
    mean = Margins.response(fit).predict()
    assert mean.estimate[0] == pytest.approx(fit.predict(include_random=False).mean(), rel=1e-12)


def test_margins_at_the_modes_beside_a_dispersion_part_are_predictions(data):
    fit = lme4py.glmer("count ~ mined + (1 | site)", data, family="nbinomial", dispformula="~ mined")
    found = Margins.response(fit, random="conditional").predict(unit_level=True).to_frame()
    rows = fit.predict(data, se=True)
    # One formula for each row; no coefficient of the dispersion moves the mean.
    np.testing.assert_allclose(found[["estimate", "std_error"]], rows, rtol=1e-10)
