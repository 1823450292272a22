"""Intervals, profiles, tests, ICC and R squared of generalised linear mixed models."""

from __future__ import annotations

import gzip
import json
import pickle
import warnings
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from joblib import parallel_config
from reference_data import REFERENCE, load_reference
from scipy import optimize, stats

import lme4py
from lme4py import icc, lrtest
from lme4py.errors import ConvergenceWarning, OptionError
from lme4py.inference.batch_glmm import can_batch_glmm, solve_responses, user_estimates
from lme4py.inference.glmm_constrained import GlmmConstrained, covariances_of
from lme4py.inference.glmm_refit import refit_estimates
from lme4py.inference.glmm_simulate import GlmmSimulator
from lme4py.inference.observation import null_mean, observation_variance
from lme4py.inference.parameters import fit_parameters

# Made once with R 4.2.2: lme4 1.1-31 polished to a scaled gradient of 1e-9, performance 0.10.2.
REFERENCES: dict[str, dict[str, Any]] = json.loads(
    gzip.decompress((REFERENCE / "inference_glmm.json.gz").read_bytes())
)["models"]
MODELS: dict[str, dict[str, Any]] = json.loads(gzip.decompress((REFERENCE / "glmm.json.gz").read_bytes()))["models"]
CBPP = "cbind(incidence, size - incidence) ~ period + (1 | herd)"


@cache
def fit(name: str, formula: str | None = None) -> lme4py.MEGLMResult:
    """Our fit of a reference model, with lme4's weights in the determinant."""
    model = MODELS[name]
    options = {key: model[key] for key in ("link", "nAGQ", "weights", "offset", "contrasts", "na_action")}
    return lme4py.glmer(
        formula or model["formula"], load_reference(model["data"]), model["family"], hessian="expected", **options
    )


@cache
def cbpp(formula: str = CBPP, **options: Any) -> lme4py.MEGLMResult:
    return lme4py.glmer(formula, lme4py.load_dataset("cbpp"), **options)


@cache
def wine(formula: str = "rating ~ temp + contact + (1 | judge)") -> lme4py.MEGLMResult:
    return lme4py.clmm(formula, lme4py.load_dataset("wine"))


@cache
def sleep(formula: str, family: str | None) -> Any:
    data = lme4py.load_dataset("sleepstudy")
    return lme4py.lmer(formula, data, reml=False) if family is None else lme4py.glmer(formula, data, family)


def having(block: str) -> list[str]:
    return [name for name, model in REFERENCES.items() if block in model]


# --- ICC and R squared --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", having("performance"))
def test_values_of_rs_performance(name):
    block, result = REFERENCES[name]["performance"], fit(name)
    found = result.r_squared()
    # performance's null model is R's default fit, which stops up to 1e-4 standard errors from its optimum.
    assert found["marginal"] == pytest.approx(block["r2_marginal"], abs=1e-4)
    assert found["conditional"] == pytest.approx(block["r2_conditional"], abs=1e-4)
    assert icc(result, "all").estimate == pytest.approx(block["icc_adjusted"], abs=1e-4)
    assert icc(result, "all", adjusted=False).estimate == pytest.approx(block["icc_unadjusted"], abs=1e-4)


def test_values_of_statas_estat_icc():
    found = icc(cbpp())
    # Seven digits as Stata prints them, of an optimum that it finds to about 1e-7.
    assert found.estimate == pytest.approx(0.1114151, abs=5e-7)
    assert found.se == pytest.approx(0.0550492, abs=5e-7)
    assert (found.ci_lower, found.ci_upper) == pytest.approx((0.0404581, 0.2715951), abs=1e-6)
    ordinal = icc(wine())
    # R's clmm, its Hessian by differences.
    assert (ordinal.estimate, ordinal.se) == pytest.approx((0.2800132, 0.1421766), abs=5e-7)
    assert wine().r_squared()["conditional"] == pytest.approx(0.578300, abs=5e-6)


def test_standard_errors_of_a_gaussian_model_are_those_of_the_linear_one():
    pair = [sleep("Reaction ~ Days + (Days | Subject)", family) for family in (None, "gaussian")]
    for options in ({}, {"at": {"Days": 5}}, {"component": "all"}, {"component": "all", "adjusted": False}):
        linear, general = (icc(result, **options) for result in pair)
        # The gaussian family has sigma among its parameters; both Hessians are differences with an error of 1e-7.
        assert general.estimate == pytest.approx(linear.estimate, rel=1e-6)
        assert general.se == pytest.approx(linear.se, rel=1e-5)
    tables = [result.variance_table() for result in pair]
    pd.testing.assert_frame_equal(*tables, rtol=1e-4)
    assert list(tables[0].index) == ["var(_cons)", "var(Days)", "cov(_cons,Days)", "var(Residual)"]
    limits = [result.conf_int(parm="random") for result in pair]
    pd.testing.assert_frame_equal(*limits, rtol=1e-4)


def test_variance_table_is_on_the_log_scale():
    table = cbpp().variance_table()
    value, error, lower, upper = table.loc["var(_cons)"]
    # As Stata's melogit prints var(_cons[herd]): .4124998 (.229367), .1387 to 1.2267.
    assert (value, error) == pytest.approx((0.4124998, 0.2293668), abs=2e-6)
    assert (lower, upper) == pytest.approx((value * np.exp(-1.959964 * error / value), 1.226668), rel=1e-5)
    # Limits of the standard deviation are the roots of those of the variance.
    assert cbpp().conf_int(parm="random").loc["sd(_cons)"].tolist() == pytest.approx(np.sqrt([lower, upper]))


@pytest.mark.parametrize("variance", ["lognormal", "trigamma", "delta"])
def test_variances_of_counts(variance):
    result = fit("nb_salam")
    mu, theta = null_mean(result.fit), result.dispersion
    shape = 1.0 / (1.0 / mu + 1.0 / theta)
    # Nakagawa, Johnson & Schielzeth (2017), table 1, for NB-2 with the log link.
    expected = {"lognormal": np.log1p(1.0 / shape), "trigamma": sum(1.0 / (shape + np.arange(2_000_000)) ** 2)}
    found = observation_variance(result.fit, variance).variance
    # The sum leaves a tail of 1 / 2,000,000.
    assert found == pytest.approx(expected.get(variance, 1.0 / shape), abs=1e-6)
    assert result.r_squared(variance)["var_residual"] == found


def test_cauchit_has_no_latent_variance():
    with pytest.raises(OptionError, match="no latent variable that has a variance"):
        fit("glmm_bin_cauchit").r_squared()
    with pytest.raises(OptionError, match="counts and positive responses"):
        cbpp().r_squared("trigamma")
    assert 0.0 < fit("glmm_bin_cauchit").r_squared("delta")["marginal"] < 1.0


def test_levels_of_nested_models():
    result = fit("glmm_3level_b")
    parts = result.variance_components
    outer, inner = parts["var(_cons|region)"], parts["var(_cons|state_in:region)"]
    total = outer + inner + np.pi**2 / 3
    assert icc(result, "_cons|region").estimate == pytest.approx(outer / total)
    both = icc(result, "_cons|state_in:region")
    assert both.estimate == pytest.approx((outer + inner) / total)
    assert 0 < both.ci_lower < both.estimate < both.ci_upper < 1


def test_icc_of_zero_has_a_one_sided_interval():
    result = _no_variance()
    found = icc(result)
    assert (found.estimate, found.ci_lower) == (0.0, 0.0)
    upper = result.conf_int(method="profile", parm="random").loc["sd(_cons)", "upper"]
    # The same root, found twice.
    assert found.ci_upper == pytest.approx(upper**2 / (upper**2 + np.pi**2 / 3), rel=1e-5)


@cache
def _no_variance() -> lme4py.MEGLMResult:
    """Each group has the same responses."""
    y = np.tile([0, 0, 1, 1, 0, 1], 12)
    return lme4py.glmer("y ~ 1 + (1 | g)", pd.DataFrame({"y": y, "g": np.repeat(np.arange(12), 6).astype(str)}))


def test_icc_by_bootstrap():
    found = icc(cbpp(), n_boot=100, seed=1)
    assert found == icc(cbpp(), n_boot=100, seed=1)
    # A standard error from 100 replicates scatters by 7 %.
    assert found.se == pytest.approx(icc(cbpp()).se, rel=0.25)
    counts = icc(fit("glmm_epil"), n_boot=10, seed=1)
    assert counts.ci_lower < counts.ci_upper < 1


# --- profile ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", having("profile"))
def test_profile_limits_of_lme4(name):
    block, result = REFERENCES[name]["profile"], fit(name)
    ours = result.conf_int(method="profile", parm="all")
    known = {
        p.alias.replace("[T.", "").replace("]", "").replace("True", "TRUE"): p.name for p in fit_parameters(result.fit)
    }
    assert len(block["names"]) == len(ours)
    for row, limits in zip(block["names"], block["limits"], strict=True):
        # Roots of the deviance found by R to 1e-8 of the interval.
        assert ours.loc[known[row]].tolist() == pytest.approx(limits, abs=1e-6)


def test_profile_of_a_gaussian_model_is_that_of_the_linear_one():
    pair = [sleep("Reaction ~ Days + (Days | Subject)", family) for family in (None, "gaussian")]
    limits = [result.conf_int(method="profile", parm="all") for result in pair]
    # Two programs for the same likelihood; limits are roots to 1e-7 of the signed root.
    pd.testing.assert_frame_equal(*limits, rtol=1e-5)


@pytest.mark.parametrize(
    ("formula", "parameter"),
    [
        ("period + diag(1 + x | herd)", "sd(x)"),
        ("period + homcs(1 + x | herd)", "sd(_cons)"),
        ("x + (x | herd)", "sd(x)"),
    ],
)
def test_constrained_minimum_is_one(formula, parameter):
    """The chart leaves nothing out: the free coordinates reach the estimates, and the slope is the derivative."""
    data = lme4py.load_dataset("cbpp").assign(x=lambda d: np.linspace(-1, 1, len(d)) ** 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        result = lme4py.glmer(f"cbind(incidence, size - incidence) ~ {formula}", data)
    held = next(p for p in fit_parameters(result.fit) if p.name == parameter)
    constrained = GlmmConstrained(result.fit, held)
    start = constrained.estimate
    v = start.v + 0.3
    x = constrained.minimum(v, start.x).x
    h = 1e-3
    # Differences of minima that are good to 1e-7.
    low, middle, high = (constrained.minimum(v + step, x) for step in (-h, 0.0, h))
    assert middle.slope == pytest.approx((high.value - low.value) / (2 * h), rel=1e-3, abs=1e-3)
    assert middle.value > result.fit.criterion - 1e-7
    cov = covariances_of(constrained.problem, middle.theta)[held.term]
    assert np.sqrt(cov[held.first, held.first]) == pytest.approx(v, rel=1e-9)


def test_profile_of_fixed_effects_is_that_of_offsets():
    """A held coefficient is an offset: the criterion of that model at the limit is the quantile above the minimum."""
    result = cbpp()
    lower, upper = result.conf_int(method="profile", parm="period[T.2]").loc["period[T.2]"]
    data = lme4py.load_dataset("cbpp")
    second = (data["period"].astype(str) == "2").astype(float)
    data = data.assign(p3=(data["period"].astype(str) == "3") * 1.0, p4=(data["period"].astype(str) == "4") * 1.0)
    for limit in (lower, upper):
        smaller = lme4py.glmer(CBPP.replace("period", "p3 + p4"), data, offset=limit * second)
        # Both optima are good to 1e-9.
        assert smaller.fit.criterion - result.fit.criterion == pytest.approx(stats.chi2.ppf(0.95, 1), abs=1e-6)


def test_profile_of_the_dispersion_and_thresholds():
    result = fit("nb_salam")
    table = result.conf_int(method="profile", parm="all")
    assert list(table.index)[-1] == "dispersion"
    lower, upper = table.loc["dispersion"]
    assert lower < result.dispersion < upper
    thresholds = wine().conf_int(method="profile", parm=["1|2", "4|5"])
    wald = wine().conf_int(parm=["1|2", "4|5"])
    # Profile limits are further out where the likelihood is skewed, but not by half of the interval.
    assert np.abs(thresholds - wald).to_numpy().max() < 0.5 * (wald["upper"] - wald["lower"]).max()
    # A threshold and a constant that is added to it: the profile does not depend on the coding of the covariates.
    coded = lme4py.clmm(
        "rating ~ temp + contact + (1 | judge)",
        lme4py.load_dataset("wine"),
        contrasts={"temp": "contr.SAS"},
    )
    moved = coded.conf_int(method="profile", parm="temp[T.cold]" if "temp[T.cold]" in coded.params else "fixed")
    own = wine().conf_int(method="profile", parm="temp[T.warm]")
    # The same root from two codings.
    assert sorted(-moved.iloc[0].to_numpy()) == pytest.approx(own.iloc[0].tolist(), abs=1e-5)


def test_profile_with_quadrature():
    laplace, quadrature = cbpp(), cbpp(nAGQ=9)
    limits = [result.conf_int(method="profile", parm="all") for result in (laplace, quadrature)]
    # lme4's Laplace and nAGQ = 9 profiles of this model differ by at most 0.03.
    assert 1e-4 < np.abs(limits[0] - limits[1]).to_numpy().max() < 0.05


def test_profile_at_the_boundary_says_so():
    table = _no_variance().profile().conf_int()
    lower, upper = table.loc["sd(_cons)"]
    assert lower == 0.0 < upper < np.inf
    assert "end of the range" in table.attrs["note"]
    assert table.notna().all(axis=None)


def test_profile_of_separated_responses_has_no_limit():
    rng = np.random.default_rng(3)
    g = np.repeat(np.arange(15), 8)
    treated = (g % 3 == 0) * 1.0
    y = np.where(treated, 1, rng.normal(size=15)[g] + rng.logistic(size=120) > 0).astype(int)
    data = pd.DataFrame({"y": y, "treated": treated, "g": g.astype(str)})
    with pytest.warns(ConvergenceWarning, match="separates"):
        result = lme4py.glmer("y ~ treated + (1 | g)", data)
    table = result.conf_int(method="profile", parm="treated")
    assert 0 < table.loc["treated", "lower"] < np.inf
    assert table.loc["treated", "upper"] == np.inf
    assert "no upper limit" in table.attrs["note"]


def test_profile_needs_a_likelihood():
    with pytest.raises(OptionError, match="nAGQ=0"):
        cbpp(nAGQ=0).profile()


def test_profile_is_a_table():
    frame = cbpp().profile("random").to_frame()
    assert (np.diff(frame["zeta"]) > 0).all()
    assert frame["zeta"].iloc[-1] > 2.5


# --- likelihood-ratio tests ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", having("lrt"))
def test_ratios_of_lme4(name):
    for block in REFERENCES[name]["lrt"]:
        test = lrtest(fit(name, block["restricted"]), fit(name))
        # Both optima are good to 1e-8.
        assert test.chi2 == pytest.approx(block["chi2"], abs=1e-5)
        assert test.df == block["df"]


def test_distribution_follows_from_what_is_tested():
    terms = ("(1 | g)", "(x | g)", "(x || g)")
    one, slope, apart = (fit("glmm_bin_rs", f"cbind(s, fail) ~ x + tr + {term}") for term in terms)
    chi2, p = stats.chi2.sf(lrtest(one, slope).chi2, [1, 2]), lrtest(one, slope).p_value
    assert p == pytest.approx(chi2.mean(), rel=1e-12)
    inside = lrtest(apart, slope)
    assert not inside.boundary_corrected
    assert inside.p_value == pytest.approx(0.0230649111887831, rel=1e-4)  # R's anova; chi2 is good to 1e-7
    assert lrtest(None, apart).weights.keys() == {0, 1, 2}
    assert sum(lrtest(None, slope).weights.values()) == pytest.approx(1.0)


def test_weights_of_a_gaussian_model_are_those_of_the_linear_one():
    pair = [sleep("Reaction ~ Days + (Days || Subject)", family) for family in (None, "gaussian")]
    linear, general = (lrtest(None, result) for result in pair)
    # The same information matrix, made of one problem and of its working model.
    assert list(general.weights.values()) == pytest.approx(list(linear.weights.values()), abs=1e-6)
    assert general.chi2 == pytest.approx(linear.chi2, abs=1e-6)


def test_generalised_linear_model_as_the_restricted_one():
    result = fit("glmm_bact")
    test = result.lrtest_no_random()
    # R's glm: log-likelihood -99.58836638925 on 4 degrees of freedom.
    assert test.restricted_logL == pytest.approx(-99.58836638925, abs=1e-8)
    assert (test.df, test.weights) == (1, {0: 0.5, 1: 0.5})
    # MASS::glm.nb and ordinal::clm.
    assert lrtest(None, fit("nb_salam")).restricted_logL == pytest.approx(-876.765910523, abs=1e-7)
    assert lrtest(None, wine()).restricted_logL == pytest.approx(-86.4919233656, abs=1e-7)
    # ordinal::anova of two clmm fits.
    assert lrtest(wine("rating ~ temp + (1 | judge)"), wine()).chi2 == pytest.approx(14.3467192356719, abs=1e-5)


def test_ranova_leaves_out_each_random_effect():
    table = fit("glmm_bin_rs").ranova()
    block = REFERENCES["glmm_bin_rs"]["lrt"][0]
    # A slope goes with its covariance, as in R's anova of both models.
    assert table["chi2"].iloc[1] == pytest.approx(block["chi2"], abs=1e-5)
    assert table["p_value"].iloc[1] < table["p_chi2"].iloc[1]


def test_restricted_models_of_other_packages():
    result = fit("glmm_bact")
    design = result.fit.design
    family = type("Binomial", (), {})()
    model = SimpleNamespace(endog=result.fit.data.y, exog=2.0 * design.X, family=family)
    assert lrtest(SimpleNamespace(model=model), result) == lrtest(None, result)
    fewer = SimpleNamespace(model=SimpleNamespace(endog=result.fit.data.y, exog=design.X[:, :1], family=family))
    test = lrtest(fewer, result)
    # Without covariates the likelihood is that of the mean.
    y = result.fit.data.y
    p = y.mean()
    assert test.restricted_logL == pytest.approx(y.size * (p * np.log(p) + (1 - p) * np.log1p(-p)), abs=1e-8)
    assert test.df == 4
    model.family = type("Poisson", (), {})()
    with pytest.raises(OptionError, match="differ in family"):
        lrtest(SimpleNamespace(model=model), result)
    model.endog = 1.0 - y
    with pytest.raises(OptionError, match="another response"):
        lrtest(SimpleNamespace(model=model), result)


def test_bootstrap_of_the_ratio():
    test = lrtest(None, cbpp(), method="bootstrap", n_sim=100, seed=1)
    assert test == lrtest(None, cbpp(), method="bootstrap", n_sim=100, seed=1)
    assert test.p_value <= 3 / 101
    assert "100 simulations, 0 failed" in test.note
    null = lrtest(cbpp(CBPP.replace("period", "1")), cbpp(), method="bootstrap", n_sim=100, seed=1)
    assert null.p_value <= 3 / 101


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"nAGQ": 5}, "nAGQ"),
        ({"link": "probit"}, "family"),
        ({"hessian": "expected"}, "hessian"),
    ],
)
def test_refuses_other_likelihoods(other, message):
    with pytest.raises(OptionError, match=f"differ in {message}"):
        lrtest(cbpp(CBPP.replace("period", "1"), **other), cbpp())


def test_refuses_what_is_not_nested():
    with pytest.raises(OptionError, match="56 rows"):
        lrtest(cbpp(), fit("glmm_bact"))
    data = lme4py.load_dataset("cbpp")
    other = data.assign(incidence=np.minimum(data["incidence"] + 1, data["size"]))
    restricted = lme4py.glmer(CBPP.replace("period", "1"), other)
    with pytest.raises(OptionError, match="different responses"):
        lrtest(restricted, cbpp())
    with pytest.raises(OptionError, match="linear mixed model"):
        lrtest(None, cbpp(), method="exact")
    with pytest.raises(OptionError, match="comes first"):
        lrtest(cbpp(), cbpp(CBPP.replace("period", "1")))


def test_table_of_several_models():
    table = cbpp(CBPP.replace("period", "1")).anova(cbpp())
    assert table["npar"].tolist() == [2, 5]
    assert table["chi2"].iloc[1] == pytest.approx(25.6101, abs=1e-4)


# --- bootstrap ----------------------------------------------------------------------------------------------


def test_parametric_bootstrap():
    result = cbpp()
    boot = result.bootstrap(150, seed=1)
    assert list(boot.replicates.columns) == [p.name for p in fit_parameters(result.fit)]
    assert boot.n_failed == 0
    # A standard deviation of 150 replicates has an error of 6 %.
    assert boot.summary()["std_error"].iloc[:3].tolist() == pytest.approx(result.bse.iloc[:3].tolist(), rel=0.25)
    assert result.bootstrap(5, seed=1).replicates.equals(boot.replicates.iloc[:5])
    for kind in ("percentile", "basic", "bca"):
        table = boot.conf_int(type=kind)
        assert (table["lower"] < table["upper"]).all()
    limits = result.conf_int(method="boot", parm="Intercept", n_boot=20, seed=1)
    assert limits.loc["Intercept"].tolist() == result.bootstrap(20, seed=1).conf_int().loc["Intercept"].tolist()


def test_bootstrap_is_the_same_for_every_number_of_processes():
    def first(result):
        return {"first": result.params.iloc[0]}

    one = cbpp().bootstrap(25, first, seed=3)
    # None leaves the workers to joblib; tests/test_bootstrap.py has processes.
    with parallel_config(backend="threading", n_jobs=2):
        two = cbpp().bootstrap(25, first, seed=3, n_jobs=None)
    assert one.replicates.equals(two.replicates)
    fast = cbpp().bootstrap(25, seed=3).replicates["Intercept"]
    # The fast path stops where the criterion can fall by 1e-9, without a last Newton step.
    np.testing.assert_allclose(fast, one.replicates["first"], atol=1e-4)
    assert pickle.loads(pickle.dumps(one)).replicates.equals(one.replicates)


def test_bootstrap_of_cases_and_other_families():
    boot = cbpp().bootstrap(10, seed=1, type="cases")
    assert boot.replicates.notna().all(axis=None)
    single = fit("glmm_bin_rs").bootstrap(3, seed=1)
    assert single.replicates.notna().all(axis=None)
    dispersion = fit("nb_salam").bootstrap(3, seed=1).replicates["dispersion"]
    assert (dispersion > 0).all()
    with pytest.raises(OptionError, match="semiparametric"):
        cbpp().bootstrap(3, type="semiparametric")


def test_minimum_without_derivatives():
    """The profile of the only standard deviation, found again by a simplex over the fixed effects."""
    result = cbpp("cbind(incidence, size - incidence) ~ 1 + (1 | herd)")
    upper = result.conf_int(method="profile", parm="random").loc["sd(_cons)", "upper"]
    from lme4py.engine.glmm import ModeFinder
    from lme4py.engine.glmm_solve import JointCriterion

    criterion = JointCriterion(ModeFinder(result.fit.problem))
    found = optimize.minimize_scalar(
        lambda b: criterion.evaluate(np.array([upper, b]))[1], bounds=(-3, 0), method="bounded", options={"xatol": 1e-7}
    )
    # Both minima are good to 1e-7.
    assert found.fun - result.fit.criterion == pytest.approx(stats.chi2.ppf(0.95, 1), abs=1e-5)


def test_separated_replicates_are_counted():
    rng = np.random.default_rng(1)
    data = pd.DataFrame({"g": np.repeat(np.arange(10), 6).astype(str), "x": np.tile([0, 0, 0, 0, 0, 1], 10)})
    data["y"] = np.where(data["x"] == 1, np.arange(60) // 6 != 3, rng.integers(0, 2, 60)).astype(int)
    boot = lme4py.glmer("y ~ x + (1 | g)", data).bootstrap(40, seed=1)
    # Nine of ten rows with x are successes; with probability 0.35 all ten of a replicate, and its estimate runs away.
    assert 0 < boot.n_not_converged == (boot.replicates["x"] > 10).sum()


# --- batches ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["glmm_cbpp_sum", "glmm_bin_cll", "glmm_epil", "glmm_bin_w_off", "glmm_pois_w"])
def test_batch_finds_the_optima_of_the_engine(name):
    result = fit(name).fit
    assert can_batch_glmm(result)
    Y = GlmmSimulator(result).draw(np.random.SeedSequence(2).spawn(12))
    found = solve_responses(result, Y)
    assert found.converged.mean() > 0.7
    beta, sd = user_estimates(result, found.phi)
    for b in np.flatnonzero(found.converged):
        alone = refit_estimates(result, Y[:, b])
        # Both stop where the criterion can fall by 1e-9, near 4e-5 standard errors.
        assert found.value[b] == pytest.approx(alone.criterion, abs=1e-7)
        assert sd[b] == pytest.approx(alone.theta[0], abs=1e-4)
        assert beta[b] == pytest.approx(alone.beta, abs=2e-4)


def test_batch_knows_zeros():
    result = _no_variance().fit
    Y = np.random.default_rng(4).binomial(1, 0.5, (72, 60)).astype(float)
    found = solve_responses(result, Y)
    zero = found.phi[:, 0] == 0.0
    # Without any variance about half of the estimates are zero.
    assert 15 < zero.sum() < 50
    for b in np.flatnonzero(found.converged)[:20]:
        alone = refit_estimates(result, Y[:, b])
        assert found.value[b] == pytest.approx(alone.criterion, abs=1e-7)
        assert abs(found.phi[b, 0]) == pytest.approx(alone.theta[0], abs=1e-4)


def test_batch_is_for_one_scalar_effect():
    assert not can_batch_glmm(fit("glmm_bin_rs").fit)
    assert not can_batch_glmm(fit("nb_salam").fit)
    assert not can_batch_glmm(fit("glmm_3level_b").fit)
    assert not can_batch_glmm(cbpp(nAGQ=9).fit)
