"""Generalised models whose crossed effects are solved iteratively: beside exact fits, and what they refuse."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest

import lme4py
from lme4py import progress
from lme4py.engine.factor import symbolic
from lme4py.engine.generalised.iterative.criterion import IterativeLaplace
from lme4py.engine.linear.stochastic_solve import NothingProved
from lme4py.errors import Lme4Error, OptionError
from lme4py.families.registry import make_family

ITERATIVE = {"block": "iterative"}
GAMMA = make_family("gamma", "log")
MODELS = {
    "logit": ("y ~ x + (1 | a) + (1 | b)", "binomial"),
    "slope": ("count ~ x + (x | a) + (1 | b)", "poisson"),
    "shape": ("mixed ~ x + (1 | b) + (1 | a)", "nbinomial"),
    "dispersion": ("size ~ x + (1 | b) + (1 | a)", GAMMA),
}


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    n = 900
    a, b, x = rng.integers(0, 60, n), rng.integers(0, 40, n), rng.standard_normal(n)
    eta = 0.5 * x + 0.7 * rng.standard_normal(60)[a] + 0.6 * rng.standard_normal(40)[b]
    eta = eta + 0.3 * rng.standard_normal(60)[a] * x
    y = rng.binomial(1, 1.0 / (1.0 + np.exp(-eta)))
    count, size = rng.poisson(np.exp(eta)), rng.gamma(2.0, np.exp(eta) / 2.0)
    mixed = rng.poisson(np.exp(eta) * rng.gamma(2.0, 0.5, n))
    return pd.DataFrame({"y": y, "count": count, "size": size, "mixed": mixed, "x": x, "a": a, "b": b})


@pytest.fixture(scope="module")
def fits(data):
    return {
        name: (
            lme4py.glmer(formula, data, family=family),
            lme4py.glmer(formula, data, family=family, control=ITERATIVE),
        )
        for name, (formula, family) in MODELS.items()
    }


@pytest.mark.parametrize("name", MODELS)
def test_estimates_are_those_of_the_exact_factor(fits, name):
    exact, found = fits[name]
    error = found.certificate.monte_carlo
    assert found.converged
    assert abs(found.criterion - exact.criterion) < 4.0 * error.criterion_se + 1e-5
    # What is lost at these estimates is half the square of their error in standard errors, 0.003 each at most.
    assert exact.criterion - 1e-6 <= found.exact_criterion() < exact.criterion + 1e-4
    assert exact.exact_criterion() == exact.criterion
    own = np.sqrt(np.diag(exact.fit.parameter_vcov))
    whole = [np.concatenate([f.fit.theta, f.fit.beta]) for f in (exact, found)]
    assert (np.abs(whole[1] - whole[0]) / own[: whole[0].size]).max() < max(4.0 * error.theta_part, 1e-3)
    # One-sided differences over a fiftieth of a standard error, beside two-sided ones.
    np.testing.assert_allclose(np.sqrt(np.diag(found.fit.parameter_vcov)), own, rtol=0.005)
    if exact.fit.log_dispersion is not None:
        assert abs(found.fit.log_dispersion - exact.fit.log_dispersion) < 0.01 * exact.fit.log_dispersion_se
    for one, other in zip(found.fit.modes, exact.fit.modes, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)


def test_more_probes_are_nearer(data, fits):
    formula, family = MODELS["logit"]
    found = lme4py.glmer(formula, data, family=family, control={**ITERATIVE, "criterion_se": 1e-7})
    # Nothing of the size of the rows that can be made again is kept.
    assert not {"tables", "_cells"} & set(vars(found.fit.problem.products))
    # There are 40 directions at most: nothing is left to chance.
    assert found.certificate.monte_carlo.directions == 40
    exact = fits["logit"][0]
    assert found.criterion == pytest.approx(exact.criterion, abs=1e-5)
    np.testing.assert_allclose(found.fit.theta, exact.fit.theta, rtol=1e-5)
    np.testing.assert_allclose(found.params, exact.params, rtol=1e-4)


def test_the_summary_says_how_and_how_well(fits):
    text = " ".join(str(fits["logit"][1].summary()).split())
    assert "Crossed effects were solved iteratively" in text
    assert "the criterion is known with a standard error of" in text
    assert "the estimates with" in text
    assert "random probes (seed 0)" in text
    assert "The integral over the random effects was not checked" in text


def test_a_seed_gives_the_same_numbers(data):
    formula, family = MODELS["logit"]
    once, again, other = (
        lme4py.glmer(formula, data, family=family, control={**ITERATIVE, "seed": seed}).criterion for seed in (3, 3, 4)
    )
    assert once == again
    assert once != other


@pytest.mark.parametrize(
    "call",
    [
        lambda m: m.profile(),
        lambda m: m.bootstrap(10, seed=1),
        lambda m: m.influence(),
        lambda m: m.hatvalues(),
        lambda m: m.refit(m.fit.design.y),
        lambda m: m.fit.point,
        lambda m: m.conf_int(method="profile"),
        lambda m: m.all_fit(),
        lambda m: m.augment(),
        lambda m: m.drop1(),
        lambda m: m.fit.conditional_covariances[0],
    ],
)
def test_what_needs_a_factor_is_refused_by_name(fits, call):
    with pytest.raises(Lme4Error, match="were solved iteratively"):
        call(fits["logit"][1])


def test_what_needs_no_factor_works(fits, data):
    exact, found = fits["logit"]
    np.testing.assert_allclose(found.predict(), exact.predict(), atol=1e-3)
    new = data.head(5)
    np.testing.assert_allclose(found.predict(new), exact.predict(new), atol=1e-3)
    np.testing.assert_allclose(found.residuals("pearson"), exact.residuals("pearson"), rtol=1e-2)
    assert found.simulate(2, seed=1).shape == (900, 2)
    again = pickle.loads(pickle.dumps(found))
    assert str(again.summary()) == str(found.summary())
    assert again.exact_criterion() == pytest.approx(found.exact_criterion(), abs=1e-9)
    pd.testing.assert_frame_equal(found.slim().coef_table(), found.coef_table())


@pytest.mark.filterwarnings("ignore:groups that are missing")
@pytest.mark.parametrize("name", MODELS)
def test_intervals_of_predictions(fits, data, name):
    exact, found = fits[name]
    new = data.head(4).reset_index(drop=True).assign(x=[-3.0, 0.0, 1.0, 2.0])
    new.loc[1, "b"] = 999
    for options in ({"interval": "confidence", "type": "linear"}, {"interval": "confidence"}, {"se": True}):
        # Estimates differ by up to 1e-3 of their standard errors.
        np.testing.assert_allclose(found.predict(new, **options), exact.predict(new, **options), rtol=3e-3)


@pytest.mark.parametrize("name", ["slope", "dispersion"])
def test_conditional_standard_deviations(fits, name):
    exact, found = fits[name]
    for include_fixed in (False, True):
        wanted = exact.ranef(conditional_se=True, include_fixed=include_fixed)[1]
        for by_factor in (False, True):
            sds = found.ranef(conditional_se=True, include_fixed=include_fixed, exact=by_factor)[1]
            for group, frame in sds.items():
                # Estimates differ by parts of their standard errors, as the probes leave them.
                np.testing.assert_allclose(frame, wanted[group], rtol=2e-3)
                assert ("exact factor" if by_factor else "random probes") in frame.attrs["note"]


def test_an_exact_criterion_on_request(data, fits):
    formula, family = MODELS["logit"]
    found = lme4py.glmer(formula, data, family=family, control={**ITERATIVE, "exact": True})
    assert found.certificate.monte_carlo.by_factor
    assert fits["logit"][0].criterion - 1e-6 <= found.criterion < fits["logit"][0].criterion + 1e-4
    # Modes are found to 1e-10 from other starts.
    assert found.criterion == pytest.approx(found.exact_criterion(), abs=1e-7)
    assert "the estimates were found with" in " ".join(str(found.summary()).split())


def test_long_work_is_announced_before_the_search(data, monkeypatch, capsys):
    formula, family = MODELS["logit"]
    monkeypatch.setattr(progress, "_LONG", 0.0)
    evaluate, said = IterativeLaplace.evaluate, []

    def listening(self, *given):
        said.append(capsys.readouterr().err)
        return evaluate(self, *given)

    monkeypatch.setattr(IterativeLaplace, "evaluate", listening)
    lme4py.glmer(formula, data, family=family, control=ITERATIVE)
    # After one evaluation it is known how long they take.
    assert said[0] == ""
    assert "crossed random effects without a factor" in said[1]
    assert "(forecast; Ctrl-C interrupts)" in said[1]
    assert len(said) > 3
    lme4py.glmer(formula, data, family=family, control=ITERATIVE, progress=False)
    assert "".join(said[said.index(said[1]) + 1 :]) == ""


def test_likelihood_ratios_carry_the_error(data, fits):
    small = lme4py.glmer("y ~ 1 + (1 | a) + (1 | b)", data, family="binomial", control=ITERATIVE)
    exact_small = lme4py.glmer("y ~ 1 + (1 | a) + (1 | b)", data, family="binomial")
    exact, found = fits["logit"]
    test, wanted = lme4py.lrtest(small, found), lme4py.lrtest(exact_small, exact)
    error = np.hypot(small.certificate.monte_carlo.criterion_se, found.certificate.monte_carlo.criterion_se)
    assert abs(test.chi2 - wanted.chi2) < 4.0 * error + 1e-4
    assert "Monte-Carlo standard error of chi2" in test.note


def test_models_that_have_an_exact_factor_only_are_told(data):
    two = "(1 | a) + (1 | b)"
    data = data.assign(grade=pd.cut(data["x"], [-9, -0.5, 0.5, 9], labels=["1", "2", "3"]))
    for call, text in [
        (lambda: lme4py.glmer("y ~ x + (1 | a)", data, family="binomial", control=ITERATIVE), "two and more grouping"),
        (lambda: lme4py.glmer(f"y ~ x + {two}", data, family="binomial", nAGQ=0, control=ITERATIVE), "nAGQ=0"),
        (lambda: lme4py.glmer(f"y ~ x + {two}", data, family="binomial", reml=True, control=ITERATIVE), "reml=True"),
        (
            lambda: lme4py.glmer(f"y ~ x + {two}", data, "binomial", link="cauchit", control=ITERATIVE),
            "not concave with the cauchit link",
        ),
        (
            lambda: lme4py.glmer(f"count ~ x + {two}", data, "poisson", ziformula="~ 1", control=ITERATIVE),
            "more than one linear predictor",
        ),
        (lambda: lme4py.clmm(f"grade ~ {two}", data, control=ITERATIVE), "thresholds"),
        (
            lambda: lme4py.glmer(f"y ~ x + {two}", data, "binomial", cov_prior="wishart", control=ITERATIVE),
            "the model has priors",
        ),
        (
            lambda: lme4py.glmer(f"y ~ x + {two}", data, "binomial", control={**ITERATIVE, "optimizer": "bobyqa"}),
            "package's own steps",
        ),
    ]:
        with pytest.raises(OptionError, match=text):
            call()
    design = lme4py.lformula(f"y ~ x + {two}", data, family="binomial")
    criterion = lme4py.glmm_criterion(design, make_family("binomial", "logit"))
    with pytest.raises(OptionError, match="exact factor"):
        lme4py.optimize_criterion(criterion, control=ITERATIVE)


def test_separation_is_no_silent_estimate(data):
    apart = data.assign(z=((data["y"] == 1) & (np.arange(900) % 9 == 0)).astype(float))
    with pytest.raises(NothingProved, match=r"z separates .*exact"):
        lme4py.glmer("y ~ z + (1 | a) + (1 | b)", apart, family="binomial", control=ITERATIVE)


def test_a_variance_at_zero_is_no_silent_estimate(data, monkeypatch):
    # Every group has as many ones as zeros.
    flat = data.assign(y=(np.arange(900) % 2), b=np.arange(900) // 4 % 30)
    with pytest.raises(NothingProved, match="at or near zero"):
        lme4py.glmer("y ~ 1 + (1 | a) + (1 | b)", flat, family="binomial", control=ITERATIVE)
    # Chosen by forecast alone, the iterative way gives place to the factor, which proves what is singular.
    monkeypatch.setattr(symbolic, "exceeds_memory", lambda need: need > 1000.0)
    found = lme4py.glmer("y ~ 1 + (1 | a) + (1 | b)", flat, family="binomial")
    assert found.is_singular
    assert found.certificate.monte_carlo is None


def test_a_dispersion_at_the_end_of_its_range_is_no_silent_estimate(data):
    rng = np.random.default_rng(5)
    a, b = 0.7 * rng.standard_normal(60)[data["a"]], 0.6 * rng.standard_normal(40)[data["b"]]
    trials = np.maximum(1.0, np.rint(3.0 * np.exp(0.5 * data["x"] + a + b))).astype(int)
    # Less variation than a Poisson model has.
    few = data.assign(less=rng.binomial(trials, 0.33))
    with pytest.raises(NothingProved, match="take the Poisson model, or use"):
        lme4py.glmer("less ~ x + (1 | a) + (1 | b)", few, family="nbinomial", control=ITERATIVE)


def test_the_choice_is_by_forecast_and_said(data, fits, monkeypatch):
    formula, family = MODELS["logit"]
    assert fits["logit"][0].certificate.monte_carlo is None
    monkeypatch.setattr(symbolic, "exceeds_memory", lambda need: need > 1000.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        forced = lme4py.glmer(formula, data, family=family)
    assert forced.certificate.monte_carlo is not None
    assert "solved iteratively" in str(forced.summary()).replace("\n", " ")
    # Families that have no iterative way keep their factor without a word.
    kept = lme4py.glmer(formula, data, family="binomial", link="cauchit")
    assert kept.certificate.monte_carlo is None


def test_standard_errors_of_many_fixed_effects(data):
    rng = np.random.default_rng(8)
    columns = {f"z{i}": rng.standard_normal(900) for i in range(11)}
    formula = f"count ~ {' + '.join(columns)} + (1 | a) + (1 | b)"
    frame = data.assign(**columns)
    exact, found = (lme4py.glmer(formula, frame, "poisson", control=control) for control in ({}, ITERATIVE))
    # Those of the fixed effects are the working model's.
    np.testing.assert_allclose(found.bse, exact.bse, rtol=0.02)
    own = [np.sqrt(np.diag(fit.fit.parameter_vcov))[:2] for fit in (exact, found)]
    np.testing.assert_allclose(own[1], own[0], rtol=0.01)


def test_starts_are_used(data, fits):
    formula, family = MODELS["logit"]
    found = fits["logit"][1]
    again = lme4py.glmer(formula, data, family=family, start=found.fit.theta, control=ITERATIVE)
    assert len(again.opt_log) <= len(found.opt_log)
    assert again.criterion == pytest.approx(found.criterion, abs=1e-2)
