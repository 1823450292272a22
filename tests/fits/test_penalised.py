"""Priors: blme's modes, dense algebra, Firth's estimates, and what penalised fits refuse."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pandas as pd
import pytest
from reference_data import REFERENCE
from scipy import optimize, special, stats

import lme4py
from lme4py.errors import OptionError, PenalisedWarning
from lme4py.fits.generalised.criterion import glmm_criterion
from lme4py.priors.covariance import CovariancePrior, PriorPoint

MODELS = json.loads((REFERENCE / "penalised.json").read_text(encoding="utf-8"))["models"]
ONE, SLOPE = "Reaction ~ Days + (1 | Subject)", "Reaction ~ Days + (Days | Subject)"
HERD = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
LINEAR = {
    "wishart": (SLOPE, {"cov_prior": "wishart"}),
    "wishart_scale": (SLOPE, {"cov_prior": "wishart(df = 4, scale = diag(2, 2))"}),
    "invwishart": (SLOPE, {"cov_prior": {"Subject": "invwishart(df = 5, scale = diag(.5, 2))"}}),
    "gamma": (ONE, {"cov_prior": "gamma(shape = 2, rate = .1)"}),
    "gamma_absolute": (ONE, {"cov_prior": "gamma(shape = 2, rate = .1, common.scale = FALSE)"}),
    "invgamma": (ONE, {"cov_prior": "Subject ~ invgamma(shape = 2, scale = 3, posterior.scale = 'var')"}),
    "normal": (ONE, {"fixef_prior": "normal(sd = c(10, 2.5))", "reml": False}),
    "normal_reml": (ONE, {"fixef_prior": "normal(sd = c(10, 2.5))"}),
    "normal_absolute": (ONE, {"fixef_prior": "normal(sd = c(10, 2.5), common.scale = FALSE)", "reml": False}),
    "t": (ONE, {"fixef_prior": "t(df = 3, scale = c(10^2, 2.5^2))", "reml": False}),
    "residual": (ONE, {"cov_prior": "wishart", "resid_prior": "gamma(shape = 2, rate = .01)"}),
}
BINOMIAL = {
    "binomial_wishart": {"cov_prior": "wishart"},
    "binomial_normal": {"cov_prior": "wishart", "fixef_prior": "normal(sd = c(2, 1))"},
    "binomial_t": {"cov_prior": "gamma(shape = 2.5, rate = .5)", "fixef_prior": "t(df = 3, scale = c(4, 1))"},
}


@pytest.fixture(scope="module")
def sleep():
    return lme4py.load_dataset("sleepstudy")


@pytest.mark.parametrize("name", LINEAR)
def test_linear_modes_are_those_of_blme(sleep, name):
    formula, options = LINEAR[name]
    result, expected = lme4py.lmer(formula, sleep, **options), MODELS[name]
    assert result.converged
    # Nelder-Mead stops some 1e-5 of theta short, more where its steps go through beta as well (t).
    assert result.theta == pytest.approx(expected["theta"], rel=1e-3 if name == "t" else 3e-5, abs=1e-5)
    assert result.sigma == pytest.approx(expected["sigma"], rel=1e-5)
    assert result.params.to_numpy() == pytest.approx(expected["beta"], rel=1e-5)
    if name != "normal_reml":
        # blme's restricted log-likelihood with a prior of beta is taken at another beta.
        assert result.log_likelihood == pytest.approx(expected["logLik"], abs=1e-4)


@pytest.mark.parametrize("name", BINOMIAL)
def test_binomial_modes_are_those_of_blme(name):
    result, expected = lme4py.glmer(HERD, lme4py.load_dataset("cbpp"), "binomial", **BINOMIAL[name]), MODELS[name]
    assert result.converged
    # As above; pwrss and Nelder-Mead leave 1e-4.
    assert result.theta == pytest.approx(expected["theta"], rel=1e-3)
    assert result.params.to_numpy() == pytest.approx(expected["beta"], abs=1e-3)
    assert result.log_likelihood == pytest.approx(expected["logLik"], abs=1e-3)


def test_the_wishart_model_has_its_known_numbers(sleep):
    result = lme4py.lmer(SLOPE, sleep, cov_prior="wishart")
    # Of an independent optimiser of the same criterion, which ends within 1e-9.
    assert result.log_likelihood == pytest.approx(-871.953122, abs=2e-5)
    assert result.criterion == pytest.approx(1747.842420, abs=1e-6)
    table = result.var_corr()["sdcor"]
    assert table.to_numpy() == pytest.approx([27.01292, 6.36316, 0.006567, 25.265474], rel=1e-4)


def test_the_criterion_is_the_density_of_data_and_parameters(sleep):
    """The whole joint density by dense algebra, minimised by a general optimiser over all parameters."""
    options = {"cov_prior": "gamma(2, .5)", "fixef_prior": "normal(c(5, 1), common.scale = FALSE)"}
    data = sleep[sleep.Subject.isin(sleep.Subject.unique()[:6])].assign(y=lambda d: (d.Reaction - 300) / 20)
    result = lme4py.lmer("y ~ Days + (1 | Subject)", data, reml=False, resid_prior="invgamma(2, 1)", **options)
    X = np.column_stack([np.ones(len(data)), data.Days])
    ZZ = np.equal.outer(data.Subject.to_numpy(), data.Subject.to_numpy()).astype(float)

    def density(par):
        beta, theta, sigma2 = par[:2], par[2], np.exp(par[3])
        V = sigma2 * (np.eye(len(data)) + theta**2 * ZZ)
        value = stats.multivariate_normal.logpdf(data.y, X @ beta, V) + stats.norm.logpdf(beta, 0, [5, 1]).sum()
        return -2.0 * (value + np.log(abs(theta)) - 0.5 * abs(theta) - 3.0 * np.log(sigma2) - 1.0 / sigma2)

    start = [*result.params, result.theta[0], 2 * np.log(result.sigma)]
    assert density(start) == pytest.approx(result.criterion, abs=1e-9)
    found = optimize.minimize(density, np.array(start) + 0.1, method="BFGS")
    # BFGS with differences ends within 1e-8 of the minimum, parameters within its square root.
    assert found.fun == pytest.approx(result.criterion, abs=1e-6)
    assert found.x == pytest.approx(start, abs=1e-3)


@pytest.mark.parametrize("prior", ["lkj(1.5)", "wishart(df = 5, scale = 2, common.scale = FALSE)"])
def test_gradients_are_exact(sleep, prior):
    result = lme4py.lmer(SLOPE, sleep, cov_prior=prior, fixef_prior="normal(c(10, 2.5))", weights="Days + 1")
    criterion = lme4py.lmm_criterion(result.fit.design)
    at = result.theta * [1.3, 2.0, 0.8] + [0.0, 0.05, 0.0]
    steps = 1e-5 * np.eye(3)
    differences = [(criterion(at + h) - criterion(at - h)) / 2e-5 for h in steps]
    # Rounding of a criterion of 2000 over the step.
    assert criterion.gradient(at) == pytest.approx(differences, rel=1e-6, abs=1e-6)


def test_gradients_of_generalised_models_are_exact():
    wine = lme4py.load_dataset("wine")
    fits = [
        lme4py.glmer(HERD, lme4py.load_dataset("cbpp"), "binomial", link="probit", fixef_prior="jeffreys"),
        lme4py.glmer(HERD, lme4py.load_dataset("cbpp"), "binomial", nAGQ=5, **BINOMIAL["binomial_t"]),
        lme4py.clmm("rating ~ temp + (1 | judge)", wine, cov_prior="wishart", fixef_prior="normal(2)"),
    ]
    for result in fits:
        fit = result.fit
        assert fit.certificate.converged
        criterion = glmm_criterion(fit.design, fit.family, fit.data, nAGQ=fit.nAGQ)
        own = np.atleast_1d(fit.lam) if fit.family.n_nuisance else []
        at = np.concatenate([fit.theta, fit.beta, own])
        assert criterion(at) == pytest.approx(fit.criterion, abs=1e-9)
        at = 1.1 * at + 0.05
        steps = 1e-5 * np.eye(at.size)
        differences = [(criterion(at + h) - criterion(at - h)) / 2e-5 for h in steps]
        assert criterion.gradient(at) == pytest.approx(differences, rel=1e-6, abs=1e-6)


def test_fits_do_not_depend_on_units(sleep):
    options = {"cov_prior": "wishart", "fixef_prior": "normal(c(10, 2.5))"}
    one = lme4py.lmer(SLOPE, sleep, **options)
    other = lme4py.lmer(SLOPE, sleep.assign(Reaction=sleep.Reaction / 1000.0), **options)
    # Both are relative to sigma, so only the constants of the likelihood move.
    assert other.theta == pytest.approx(one.theta, rel=1e-7)
    assert 1000.0 * other.params.to_numpy() == pytest.approx(one.params.to_numpy(), rel=1e-9)


def test_firth_without_random_variation_adds_half_an_event():
    """One proportion whose random effect is zero: (successes + 1/2) / (trials + 1), Firth (1993)."""
    data = pd.DataFrame({"g": range(12), "y": [1] * 12, "n": [4] * 12})
    result = lme4py.glmer("cbind(y, n - y) ~ 1 + (1 | g)", data, "binomial", fixef_prior="firth")
    assert result.is_singular
    # The Newton step leaves 1e-9.
    assert special.expit(result.params.iloc[0]) == pytest.approx(12.5 / 49.0, rel=1e-7)


def separated():
    rng = np.random.default_rng(1)
    g, x = np.repeat(np.arange(20), 6), rng.normal(size=120)
    t = (np.arange(120) % 6 == 0).astype(int)
    y = (rng.random(120) < special.expit(x)).astype(int)
    return pd.DataFrame({"y": np.where(t == 1, 1, y), "x": x, "t": t, "g": g})


@pytest.mark.parametrize("prior", ["jeffreys", "normal(2.5)", "t(df = 3, scale = 6.25)"])
def test_separation_has_a_finite_mode_and_check_offers_it(prior):
    data = separated()
    with pytest.warns(lme4py.errors.ConvergenceWarning):
        plain = lme4py.glmer("y ~ x + t + (1 | g)", data, "binomial")
    assert np.isinf(plain.params["t"])
    assert "fixef_prior" in plain.check()["separation"].message
    result = lme4py.glmer("y ~ x + t + (1 | g)", data, "binomial", fixef_prior=prior)
    assert result.converged
    assert 0.5 < result.params["t"] < 10.0
    assert result.check()["separation"].ok


def test_check_offers_a_prior_for_a_singular_fit():
    data = lme4py.load_dataset("Dyestuff2")
    assert "cov_prior" in lme4py.lmer("Yield ~ 1 + (1 | Batch)", data).check()["singularity"].message
    result = lme4py.lmer("Yield ~ 1 + (1 | Batch)", data, cov_prior="gamma(shape = 2.5, rate = 0)")
    # blmer ends within 1e-9 of theta here.
    assert result.theta[0] == pytest.approx(0.410557796, rel=1e-6)
    assert not result.is_singular


def test_refit_and_pickle_keep_the_priors(sleep):
    result = lme4py.lmer(ONE, sleep, cov_prior="invgamma(shape = 50, scale = 5)", reml=False)
    y = result.simulate(1, seed=1).iloc[:, 0]
    again = lme4py.lmer(ONE, sleep.assign(Reaction=y), cov_prior="invgamma(shape = 50, scale = 5)", reml=False)
    # The same model fitted from another start.
    assert result.refit(y).theta == pytest.approx(again.theta, rel=1e-6)
    assert pickle.loads(pickle.dumps(result)).criterion == result.criterion


def test_replicates_of_a_bootstrap_are_penalised_too(sleep):
    from lme4py.fits.kinds import model_of

    fit = lme4py.lmer(ONE, sleep, cov_prior="gamma(shape = 200, rate = 300)").fit
    found = model_of(fit).estimates(sleep.Reaction.to_numpy()[:, None])
    # The response itself gives the fit itself, to the tolerance of the optimiser.
    assert found.sigma[0] == pytest.approx(fit.sigma, rel=1e-6)


def test_an_improper_prior_that_outweighs_the_data_has_no_mode(sleep):
    with pytest.raises(lme4py.errors.DesignError, match="no minimum"):
        lme4py.lmer(ONE, sleep, cov_prior="gamma(shape = 200, rate = 0)")


def test_what_needs_the_likelihood_says_so(sleep):
    result, plain = lme4py.lmer(ONE, sleep, cov_prior="wishart"), lme4py.lmer(ONE, sleep)
    assert "penalised" in str(result.summary())
    assert result.deviance == -2.0 * result.log_likelihood != result.criterion
    for name in ("aic", "bic"):
        with pytest.warns(PenalisedWarning, match="penalised"):
            assert np.isnan(getattr(result, name))
    calls = [
        result.profile,
        result.influence,
        result.ranova,
        result.lrtest_no_random,
        lambda: lme4py.lrtest(plain, result),
        lambda: lme4py.anova(plain, result),
        lambda: result.drop1("Chisq"),
        lambda: lme4py.step(result),
        lambda: lme4py.caic(result),
        lambda: lme4py.aicc(result),
        lambda: lme4py.power(result, "Days", n_sim=2),
        lambda: result.coef_table(ddf="satterthwaite"),
        lambda: result.coef_table(ddf="kenward-roger"),
    ]
    for call in calls:
        with pytest.raises(OptionError, match=r"penalised|ddf"):
            call()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cov_prior": {"subject": "wishart"}}, "Subject"),
        ({"cov_prior": "gamma"}, "2 columns"),
        ({"cov_prior": "wishart(df = 2)"}, "df=2"),
        ({"fixef_prior": "normal(sd = c(1, 2, 3))"}, "3 numbers"),
        ({"fixef_prior": "jeffreys"}, "flat"),
        ({"fixef_prior": "t"}, "reml=False"),
        ({"cov_prior": "wishart", "residual": "ar1(1 | Subject)"}, "independent residuals"),
        ({"cov_prior": "wishart", "control": {"block": "iterative"}}, "exact|grouping"),
    ],
)
def test_what_a_model_cannot_have_is_refused(sleep, options, message):
    with pytest.raises(OptionError, match=message):
        lme4py.lmer(SLOPE, sleep, **options)


def test_generalised_models_refuse_by_name():
    cbpp, salamanders = lme4py.load_dataset("cbpp"), lme4py.load_dataset("Salamanders")
    with pytest.raises(OptionError, match="nAGQ"):
        lme4py.glmer(HERD, cbpp, "binomial", nAGQ=0, fixef_prior="normal")
    with pytest.raises(OptionError, match="jeffreys"):
        lme4py.glmer_nb("count ~ mined + (1 | site)", salamanders, fixef_prior="jeffreys")
    with pytest.raises(OptionError, match="one linear predictor"):
        lme4py.glmer("count ~ mined + (1 | site)", salamanders, "poisson", ziformula="~ 1", cov_prior="wishart")


def test_a_prior_of_ones_own(sleep):
    class Ridge(CovariancePrior):
        """-2 log density = 10 tr(Sigma)."""

        def evaluate(self, covariance):
            k = covariance.shape[0]
            return PriorPoint(
                10.0 * float(np.trace(covariance)), 10.0 * np.eye(k), lambda changes: np.zeros((len(changes),) * 2)
            )

    own = lme4py.lmer(SLOPE, sleep, cov_prior=Ridge())
    known = lme4py.lmer(SLOPE, sleep, cov_prior="wishart(df = 3, scale = .1)")
    # A Wishart density with df = k + 1 is this one.
    assert own.theta == pytest.approx(known.theta, rel=1e-8)


def test_firth_of_a_model_without_random_effects_is_logistf():
    """The penalised likelihood of Firth (1993) by a general optimiser."""
    data = separated()
    result = lme4py.glmer("y ~ x + t", data, "binomial", fixed_only=True, fixef_prior="firth")
    X, y = np.column_stack([np.ones(len(data)), data.x, data.t]), data.y.to_numpy()

    def penalised(beta):
        p = special.expit(X @ beta)
        return -(
            special.log_expit((2 * y - 1) * (X @ beta)).sum() + 0.5 * np.linalg.slogdet((X.T * (p * (1 - p))) @ X)[1]
        )

    found = optimize.minimize(penalised, np.zeros(3), method="BFGS", options={"gtol": 1e-8})
    # BFGS with differences of values leaves 1e-5.
    assert result.params.to_numpy() == pytest.approx(found.x, abs=1e-4)
    with pytest.raises(OptionError, match="nothing to penalise"):
        lme4py.glmer("y ~ x", data, "binomial", fixed_only=True, cov_prior="wishart")


def test_coefficients_are_held_beside_priors_of_variances():
    """As the same coefficient in an offset, which blme's priors go with."""
    data = lme4py.load_dataset("sleepstudy")
    held = lme4py.lmer("Reaction ~ Days + (Days | Subject)", data, fix={"Days": 10.0}, cov_prior="wishart")
    moved = lme4py.lmer("Reaction ~ 1 + offset(10 * Days) + (Days | Subject)", data, cov_prior="wishart")
    assert held.criterion == pytest.approx(moved.criterion, abs=1e-9)
    assert list(held.params.index) == ["Intercept"]
    cbpp = lme4py.load_dataset("cbpp")
    formula = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
    glm = lme4py.glmer(formula, cbpp, "binomial", fix={"period[T.2]": -1.0}, cov_prior="gamma")
    assert glm.converged
    assert "period[T.2]" not in glm.params.index
    for more in ({"fixef_prior": "normal"}, {"cov_prior": "wishart", "fix": {"sd(Days | Subject)": 5.0}}):
        with pytest.raises(OptionError, match="not defined"):
            lme4py.lmer("Reaction ~ Days + (Days | Subject)", data, **{"fix": {"Days": 10.0}, **more})
