"""Random effects with covariance structures, against glmmTMB and dense algebra."""

from __future__ import annotations

import json
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from reference_data import REFERENCE, load_reference

import lme4py
from lme4py.errors import FormulaError, Lme4Error

MODELS = json.loads((REFERENCE / "covariance_effects.json").read_text(encoding="utf-8"))
FAMILIES = {"nbinom1": "nbinomial1"}
SLEEP = lme4py.load_dataset("sleepstudy")


# Heterogeneous autoregressions of ten times and 18 subjects have a second minimum .037 above the best one.
SECOND = pytest.mark.filterwarnings("ignore:.*another minimum:lme4py.errors.OptimaWarning")


def fitted(name: str) -> Any:
    m = MODELS[name]
    data = load_reference(m["data"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if m["family"] == "gaussian":
            return lme4py.lmer(m["formula"], data, reml=m["reml"])
        return lme4py.glmer(m["formula"], data, family=FAMILIES.get(m["family"], m["family"]))


@pytest.mark.parametrize("name", MODELS)
def test_structured_effects_are_those_of_glmmtmb(name: str) -> None:
    m, fit = MODELS[name], fitted(name)
    assert fit.converged
    # The reference stops where its likelihood changes by 1e-8 or so.
    assert fit.log_likelihood == pytest.approx(m["log_likelihood"], abs=1e-6)
    np.testing.assert_allclose(fit.params, m["coefficients"], rtol=1e-5, atol=1e-6)
    terms = fit.fit.design.terms
    order = range(len(terms)) if len(terms) < 2 or terms[0].n_columns == 1 else reversed(range(len(terms)))
    for t, expected in zip(order, m["terms"], strict=True):
        cov = fit.fit.covariances[t]
        sd = np.sqrt(np.diag(cov))
        k = len(expected["sd"])
        # Standard deviations and correlations are known to the root of that.
        np.testing.assert_allclose(sd[:k], expected["sd"], rtol=1e-4)
        if expected["cor"]:
            np.testing.assert_allclose((cov / np.outer(sd, sd))[:k, :k], expected["cor"], atol=1e-4)


def dense(fit: Any) -> float:
    """The criterion by dense algebra at the estimates."""
    design = fit.fit.design
    X, y = design.X, design.y
    V = fit.sigma**2 * np.eye(y.size)
    for term, cov in zip(design.terms, fit.fit.covariances, strict=True):
        V += (term.codes[:, None] == term.codes) * (term.values @ cov @ term.values.T)
    inverse = np.linalg.inv(V)
    XVX = X.T @ inverse @ X
    r = y - X @ np.linalg.solve(XVX, X.T @ inverse @ y)
    df = y.size - X.shape[1]
    logs = np.linalg.slogdet(V)[1] + np.linalg.slogdet(XVX)[1]
    return float(logs + r @ inverse @ r + df * np.log(2.0 * np.pi))


STRUCTURED = ["ar1(0 + Days | Subject)", "hetar1(0 + Days | Subject)", "ou(Days | Subject)", "gau(Days | Subject)"]


@pytest.mark.parametrize("term", [*STRUCTURED, "exp(Days | Subject)", "cs(0 + factor(Days) | Subject)"])
@SECOND
def test_the_criterion_is_that_of_dense_algebra(term: str) -> None:
    fit = lme4py.lmer(f"Reaction ~ Days + {term}", SLEEP)
    # The same sums of 180 rows in another order.
    assert dense(fit) == pytest.approx(fit.fit.criterion, abs=1e-7)
    criterion = lme4py.lmm_criterion(fit.fit.design)
    theta = fit.theta * 1.1
    numeric = [(criterion(theta + s) - criterion(theta - s)) / 2e-6 for s in 1e-6 * np.eye(theta.size)]
    # Central differences of a value of 1e3: 1e-13 * 1e3 / 1e-6.
    np.testing.assert_allclose(criterion.gradient(theta), numeric, atol=2e-4)


def test_equivalent_terms() -> None:
    ar1 = lme4py.lmer("Reaction ~ Days + ar1(0 + Days | Subject)", SLEEP)
    ou = lme4py.lmer("Reaction ~ Days + ou(Days | Subject)", SLEEP)
    field = lme4py.lmer("Reaction ~ Days + exp(numFactor(Days) | Subject)", SLEEP)
    # Equal for a positive correlation; each is certified to 1e-6.
    assert ar1.log_likelihood == pytest.approx(ou.log_likelihood, abs=1e-6)
    assert ar1.log_likelihood == pytest.approx(field.log_likelihood, abs=1e-6)
    rho, range_ = ar1.variance_components["corr(ar1)"], ou.variance_components["range(ou)"]
    assert rho == pytest.approx(np.exp(-1.0 / range_), rel=1e-5)
    full = lme4py.lmer("Reaction ~ Days + rr(0 + factor(Days) | Subject, d=1)", SLEEP)
    positional = lme4py.lmer("Reaction ~ Days + rr(0 + factor(Days) | Subject, 1)", SLEEP)
    assert full.log_likelihood == pytest.approx(positional.log_likelihood, abs=1e-9)


def test_unused_levels_count_as_times() -> None:
    once = SLEEP[SLEEP["Days"].isin([0, 1, 3, 4, 8])]
    # Two rows of each time: the residual variance is told apart from that of the process.
    noise = np.random.default_rng(1).normal(0.0, 10.0, len(once))
    odd = pd.concat([once, once.assign(Reaction=once["Reaction"] + noise)], ignore_index=True)
    as_factor = odd.assign(day=pd.Categorical(odd["Days"], categories=range(10)))
    one = lme4py.lmer("Reaction ~ Days + ar1(0 + day | Subject)", as_factor)
    two = lme4py.lmer("Reaction ~ Days + ar1(0 + Days | Subject)", odd)
    # The same columns and positions.
    assert one.log_likelihood == pytest.approx(two.log_likelihood, abs=1e-9)


def test_order_and_units_do_not_matter() -> None:
    one = lme4py.lmer("Reaction ~ Days + ou(Days | Subject)", SLEEP)
    other = SLEEP.assign(Reaction=1000.0 * SLEEP["Reaction"], hours=24.0 * SLEEP["Days"]).sample(
        frac=1.0, random_state=1
    )
    two = lme4py.lmer("Reaction ~ Days + ou(hours | Subject)", other)
    assert two.sigma == pytest.approx(1000.0 * one.sigma, rel=1e-5)
    assert two.variance_components["range(ou)"] == pytest.approx(24.0 * one.variance_components["range(ou)"], rel=1e-4)


@pytest.mark.parametrize(
    ("term", "words"),
    [
        ("ar2(0 + Days | Subject)", "no covariance structure 'ar2'"),
        ("diag(Days | Subject, 2)", "no argument 2"),
        ("cs(Days | Subject, d=2)", "no option 'd'"),
        ("ar1(0 + I(Days / 2) | Subject)", "whole numbers"),
        ("ou(0 + factor(Days) | Subject)", "is a factor"),
        ("ar1(1 | Subject)", "left of the bar"),
        ("homcs(0 + factor(Days) | Subject)", "cannot be told apart"),
    ],
)
def test_what_is_refused(term: str, words: str) -> None:
    with pytest.raises(Lme4Error, match=words):
        lme4py.lmer(f"Reaction ~ Days + {term}", SLEEP)


def test_names_say_where_a_structure_is_unknown() -> None:
    with pytest.raises(FormulaError, match="ar1"):
        lme4py.lmer("Reaction ~ Days + ar11(0 + Days | Subject)", SLEEP)


@SECOND
def test_a_time_with_a_variance_of_its_own_is_not_known_elsewhere() -> None:
    fit = lme4py.lmer("Reaction ~ Days + hetar1(0 + Days | Subject)", SLEEP)
    # Rows of the fit: their fitted values.
    np.testing.assert_allclose(fit.predict(SLEEP.head(5)), fit.fittedvalues.head(5), rtol=1e-12)
    with pytest.raises(Lme4Error, match="place"):
        fit.predict(SLEEP.head(2).assign(Days=[0, 77]), interval="confidence")


@SECOND
def test_likelihood_ratios() -> None:
    hetar1 = lme4py.lmer("Reaction ~ Days + hetar1(0 + Days | Subject)", SLEEP)
    ar1 = lme4py.lmer("Reaction ~ Days + ar1(0 + Days | Subject)", SLEEP)
    test = lme4py.lrtest(ar1, hetar1)
    assert test.df == 9
    assert not test.boundary_corrected
    with pytest.raises(Lme4Error, match="no meaning"):
        lme4py.lrtest(None, ar1)
    assert np.isnan(ar1.ranova()["p_value"].iloc[1])


def test_dummy() -> None:
    data = SLEEP.assign(f=np.where(SLEEP["Days"] > 4, "late", "early"))
    one = lme4py.lmer('Reaction ~ Days + (0 + dummy(f, "late") | Subject)', data)
    two = lme4py.lmer("Reaction ~ Days + (0 + late | Subject)", data.assign(late=(data["f"] == "late") * 1.0))
    assert one.log_likelihood == pytest.approx(two.log_likelihood, abs=1e-10)


@SECOND
def test_a_lower_minimum_at_another_correlation_is_found() -> None:
    """Rows without any correlation: the descent from the moments ends .26 above the deviance at -.6."""
    rng = np.random.default_rng(3)
    n, times = 8, int(rng.integers(8, 41))
    for options in ([0.1, 0.3, 0.5, 0.8, 0.95], [0, 0.3, 1.0], [0.1, 0.5, 1.0]):
        rng.choice(options)
    rows = []
    for group in range(n):
        rng.normal(size=times)
        rows += [(group, time, 1.0 + 0.1 * rng.normal()) for time in range(times)]
    data = pd.DataFrame(rows, columns=["g", "t", "y"])
    formula = "y ~ 1 + ar1(0 + factor(t) | g)"
    found = lme4py.lmer(formula, data, reml=False)
    others = [lme4py.lmer(formula, data, reml=False, start=[0.3, angle]) for angle in (-0.8, 0.0, 0.8)]
    # Certified minima: digits of a deviance of some hundreds.
    assert found.criterion <= min(other.criterion for other in others) + 1e-7
