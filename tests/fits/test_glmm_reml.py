"""REML of generalised models: the likelihood integrated over the fixed effects too, beside glmmTMB and mgcv."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from reference_data import REFERENCE

import lme4py
from lme4py.errors import DesignError, OptionError
from lme4py.families.registry import make_family

STORED = json.loads((REFERENCE / "glmm_reml.json").read_text(encoding="utf-8"))
DATA = pd.DataFrame(STORED["data"])
TICKS = lme4py.load_dataset("grouseticks").assign(more=lambda d: d.TICKS + 1)
SALAMANDERS = lme4py.load_dataset("Salamanders")
MODELS: dict[str, tuple[str, Any, str, dict[str, Any]]] = {
    "binomial": ("cbind(incidence, size - incidence) ~ period + (1 | herd)", "cbpp", "binomial", {}),
    "nbinomial": ("count ~ mined + (1 | site)", SALAMANDERS, "nbinomial", {}),
    "inflated": ("count ~ mined + (1 | site)", SALAMANDERS, "poisson", {"ziformula": "~ mined"}),
    "inflated_random": ("count ~ mined + (1 | site)", SALAMANDERS, "poisson", {"ziformula": "~ (1 | site)"}),
    "crossed": ("TICKS ~ YEAR + (1 | BROOD) + (1 | LOCATION)", TICKS, "poisson", {}),
    "gamma": ("more ~ YEAR + (1 | BROOD)", TICKS, "gamma", {"link": "log"}),
}
SMOOTHS = {
    "smooth_poisson": ("count ~ f + s(x, bs = 'cr', k = 8) + (1 | g)", "poisson"),
    "smooth_binomial": ("event ~ s(x, bs = 'ps', k = 8) + s(z, k = 6) + (1 | g)", "binomial"),
    "surface": ("count ~ te(x, z, k = 4)", "poisson"),
}


def binomial(**options: Any) -> Any:
    formula, data, family, _ = MODELS["binomial"]
    return lme4py.glmer(formula, lme4py.load_dataset(data), family, reml=True, **options)


@pytest.mark.parametrize("name", MODELS)
def test_fits_are_those_of_glmmtmb(name: str) -> None:
    formula, data, family, options = MODELS[name]
    frame = lme4py.load_dataset(data) if isinstance(data, str) else data
    ours, theirs = lme4py.glmer(formula, frame, family, reml=True, **options), STORED["models"][name]
    # nlminb stops at relative changes of 1e-10 of the criterion.
    assert_allclose(ours.log_likelihood, theirs["logLik"], atol=2e-6)
    assert_allclose(ours.params, theirs["beta"], atol=2e-5)
    # The variance of the mode for given variances, and how it moves with them.
    assert_allclose(ours.bse, theirs["se"], rtol=2e-4)
    sd = [np.sqrt(cov[0, 0]) for cov in ours.fit.covariances[: len(np.atleast_1d(theirs["sd"]))]]
    assert_allclose(sd, np.atleast_1d(theirs["sd"]), rtol=1e-4)


@pytest.mark.parametrize("name", SMOOTHS)
def test_smooths_are_those_of_mgcv(name: str) -> None:
    formula, family = SMOOTHS[name]
    ours, theirs = lme4py.glmer(formula, DATA, family, reml=True), STORED["models"][name]
    if name != "surface":
        # The criterion depends on the scale of the unpenalised columns of te(), which mgcv takes others of.
        assert_allclose(ours.log_likelihood, theirs["logLik"], atol=1e-7)
    # mgcv's outer Newton steps end 1e-6 short of the optimum.
    assert_allclose(ours.fittedvalues, theirs["fitted"], atol=2e-5)
    edf = ours.smooths()["edf"]
    assert_allclose(edf, np.atleast_1d(theirs["edf"])[: len(edf)], atol=2e-4)
    # Those of mgcv take the variances as known.
    assert (ours.bse.to_numpy() >= np.array(theirs["se"]) * (1.0 - 1e-6)).all()


def test_gaussian_is_lmer() -> None:
    data = lme4py.load_dataset("sleepstudy")
    formula = "Reaction ~ Days + (Days | Subject)"
    ours, linear = lme4py.glmer(formula, data, "gaussian", reml=True), lme4py.lmer(formula, data)
    assert_allclose(ours.log_likelihood, linear.log_likelihood, rtol=1e-10)
    assert_allclose(ours.sigma, linear.sigma, rtol=1e-6)


@pytest.mark.parametrize("hessian", ["observed", "expected"])
def test_the_gradient_is_that_of_the_criterion(hessian: str) -> None:
    formula = "more ~ YEAR + (1 + HEIGHT | BROOD) + (1 | LOCATION)"
    design = lme4py.lformula(formula, TICKS.assign(HEIGHT=TICKS.HEIGHT / 100.0), family="gamma")
    criterion = lme4py.glmm_criterion(design, make_family("gamma", "log"), hessian=hessian, reml=True)
    at = np.array([0.6, 0.1, 0.3, 0.4, -0.5])
    steps = 1e-5 * np.eye(at.size)
    slopes = [(criterion(at + step) - criterion(at - step)) / 2e-5 for step in steps]
    # Central differences with steps of 1e-5.
    assert_allclose(criterion.gradient(at), slopes, rtol=1e-5, atol=1e-5)


def test_units_and_codings_change_nothing() -> None:
    usual = binomial()
    other = binomial(contrasts={"period": "contr.sum"})
    # |X'V^-1X| moves by a constant with the coding.
    assert_allclose(other.fittedvalues, usual.fittedvalues, atol=1e-7)
    assert_allclose(other.fit.theta, usual.fit.theta, rtol=1e-6)


def test_what_follows_from_a_fit() -> None:
    ours = binomial()
    assert "restricted maximum likelihood" in str(ours.summary())
    plain = lme4py.glmer(MODELS["binomial"][0], lme4py.load_dataset("cbpp"), "binomial")
    # Profiles and drop1 are those of the maximum likelihood fit.
    ends = [fit.conf_int(method="profile", parm=["period[T.2]"]) for fit in (ours, plain)]
    assert_allclose(ends[0], ends[1], atol=1e-6)
    assert_allclose(ours.drop1()["chi2"].dropna(), plain.drop1()["chi2"].dropna(), rtol=1e-8)
    assert_allclose(ours.refit(ours.fit.design.y).params, ours.params, atol=1e-6)
    assert_allclose(ours.all_fit().to_frame()["criterion"].min(), ours.fit.criterion, rtol=1e-9)


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda: binomial(nAGQ=5), "Laplace's; use nAGQ=1"),
        (lambda: binomial(nAGQ=0), "Laplace's; use nAGQ=1"),
        (lambda: binomial(cov_prior="wishart"), "priors beside reml=True"),
        (lambda: lme4py.glmer("event ~ x", DATA, reml=True, fixed_only=True), "needs random effects or smooths"),
        (lambda: lme4py.glmer("f ~ x + (1 | g)", DATA, "multinomial", reml=True), "multinomial family"),
        (lambda: lme4py.lrtest(None, binomial()), "reml=False"),
        (lambda: binomial().cov_params("CR1"), "reml=False"),
        (lambda: lme4py.glmer("event ~ x + (1 | g)", DATA, reml="yes"), "reml"),
    ],
)
def test_refusals(ask: Any, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        ask()


def test_separated_responses_have_no_restricted_likelihood() -> None:
    data = DATA.assign(event=(DATA.f == "a").astype(int))
    data.loc[data.f == "b", "event"] = np.arange((data.f == "b").sum()) % 2
    with pytest.raises(DesignError, match="reml=True"):
        lme4py.glmer("event ~ f + (1 | g)", data, "binomial", reml=True)
