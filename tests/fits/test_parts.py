"""Zero parts and dispersion parts: fits against glmmTMB, what follows from them, and what is refused by name."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from reference_data import REFERENCE
from scipy import stats

import lme4py
from lme4py.errors import ConvergenceWarning, FormulaError, Lme4Error, OptionError

MODELS = json.loads((REFERENCE / "families.json").read_text(encoding="utf-8"))["models"]
CALLS = {
    "zip": ("count ~ mined + (1 | site)", "Salamanders", "poisson", {"ziformula": "~ mined"}),
    "nb_dispersion": ("count ~ spp + mined + (1 | site)", "Salamanders", "nbinomial", {"dispformula": "~ DOY"}),
    "gaussian_dispersion": ("Reaction ~ Days + (Days | Subject)", "sleepstudy", "gaussian", {"dispformula": "~ Days"}),
}


@pytest.fixture(scope="module")
def fits():
    return {
        name: lme4py.glmer(formula, lme4py.load_dataset(data), family=family, **parts)
        for name, (formula, data, family, parts) in CALLS.items()
    }


@pytest.mark.parametrize("name", CALLS)
def test_the_optima_are_those_of_glmmtmb(fits, name):
    fit, reference = fits[name], MODELS[name]
    assert fit.converged
    # glmmTMB's optimum is at most 1e-6 short.
    assert fit.log_likelihood == pytest.approx(reference["log_likelihood"], abs=1e-6)
    se = np.array(reference["cond"]["se"])
    np.testing.assert_allclose((fit.params - reference["cond"]["estimate"]) / se, 0.0, atol=2e-4)
    np.testing.assert_allclose(fit.bse, se, rtol=2e-4)
    part = reference["zi"] or reference["disp"]
    # glmmTMB 1.1.5 writes the log of the variance of gaussian responses.
    scale = 0.5 if name.startswith("gaussian") else 1.0
    table = fit.coef_table(component=fit.components[1])
    np.testing.assert_allclose(table["std_error"], scale * np.array(part["se"]), rtol=2e-4)
    change = (table["estimate"] - scale * np.array(part["estimate"])) / table["std_error"]
    np.testing.assert_allclose(change, 0.0, atol=2e-4)
    np.testing.assert_allclose(fit.fittedvalues.to_numpy()[:6], reference["fitted"], rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "family"), [("zinb", "nbinomial"), ("hurdle", "truncated_nbinomial"), ("hurdle", "truncated_nbinom2")]
)
def test_zero_parts_that_separate_rows_say_so(name, family):
    data = lme4py.load_dataset("Salamanders")
    if name == "zinb":
        # In one cell of the zero part there are no excess zeros: a coefficient goes to minus infinity.
        with pytest.warns(ConvergenceWarning, match="zero_inflation part go to infinity"):
            fit = lme4py.glmer("count ~ spp * mined + (1 | site)", data, family=family, ziformula="~ spp * mined")
    else:
        fit = lme4py.glmer("count ~ spp * mined + (1 | site)", data, family=family, ziformula="~ spp * mined")
        assert fit.converged
    assert fit.log_likelihood == pytest.approx(MODELS[name]["log_likelihood"], abs=1e-5)


@pytest.mark.parametrize(
    ("family", "part", "message"),
    [
        ("poisson", {"ziformula": "~ 1"}, "zero-inflation probability is zero in all rows"),
        (
            "nbinomial",
            {"dispformula": "~ x"},
            r"dispersion is at the end of its range in all rows \(the Poisson model\)",
        ),
        (
            "nbinomial1",
            {"dispformula": "~ x"},
            r"dispersion is at the end of its range in all rows \(the Poisson model\)",
        ),
    ],
)
def test_parts_without_a_finite_estimate_say_so(family, part, message):
    rng = np.random.default_rng(1)
    g, x = np.repeat(np.arange(20), 10), rng.normal(size=200)
    y = rng.poisson(np.exp(0.3 * x + 0.5 * rng.normal(size=20)[g]))
    data = pd.DataFrame({"g": g, "x": x, "y": y})
    with pytest.warns(ConvergenceWarning, match=message):
        fit = lme4py.glmer("y ~ x + (1 | g)", data, family=family, **part)
    assert not fit.converged
    plain = lme4py.glmer("y ~ x + (1 | g)", data, family="poisson")
    # A predictor of 16 stands for an infinite one.
    assert fit.log_likelihood == pytest.approx(plain.log_likelihood, abs=1e-4)


@pytest.mark.parametrize("family", ["truncated_poisson", "truncated_nbinomial"])
def test_truncated_counts(family):
    data = lme4py.load_dataset("Salamanders")
    fit = lme4py.glmer("count ~ mined + (1 | site)", data[data["count"] > 0], family=family)
    reference = MODELS[family]
    assert fit.log_likelihood == pytest.approx(reference["log_likelihood"], abs=1e-6)
    np.testing.assert_allclose((fit.params - reference["cond"]["estimate"]) / fit.bse, 0.0, atol=3e-4)
    # Means of counts that are not zero, and the conditional part before truncation.
    np.testing.assert_allclose(fit.fittedvalues.to_numpy()[:6], reference["fitted"], rtol=1e-3)
    assert (fit.predict(type="conditional") < fit.predict()).all()
    with pytest.raises(Lme4Error, match=f"{family} family cannot have"):
        lme4py.glmer("count ~ mined + (1 | site)", data, family=family)


def test_predictions_of_a_zero_part(fits):
    fit, data = fits["zip"], lme4py.load_dataset("Salamanders")
    new = data.iloc[[0, 100, 200]]
    mean, conditional, zeros = (fit.predict(new, type=kind) for kind in ("response", "conditional", "zprob"))
    np.testing.assert_allclose(mean, (1.0 - zeros) * conditional, rtol=1e-12)
    np.testing.assert_allclose(mean, fit.fittedvalues.iloc[[0, 100, 200]], rtol=1e-12)
    np.testing.assert_allclose(conditional, np.exp(fit.predict(new, type="linear")), rtol=1e-12)
    variance = fit.predict(new, type="variance")
    # Var(y) of a zero-inflated Poisson count.
    np.testing.assert_allclose(variance, mean * (1.0 + zeros * conditional), rtol=1e-12)
    draws = fit.simulate(200, seed=1)
    # Zeros of 200 simulated data sets, four standard errors.
    assert (draws == 0).to_numpy().mean() == pytest.approx((data["count"] == 0).mean(), abs=0.03)


def test_a_dispersion_part_is_that_of_the_rows(fits):
    fit, data = fits["gaussian_dispersion"], lme4py.load_dataset("sleepstudy")
    table = fit.coef_table(component="dispersion")["estimate"]
    expected = np.exp(table["Intercept"] + table["Days"] * data["Days"])
    np.testing.assert_allclose(fit.predict(data, type="dispersion"), expected, rtol=1e-12)
    np.testing.assert_allclose(fit.residuals(type="response"), data["Reaction"] - fit.fittedvalues, rtol=1e-10)


def test_tables_name_their_components(fits):
    fit = fits["zip"]
    table = fit.tidy(conf_int=True)
    zero = table[table["component"] == "zero_inflation"]
    assert zero["term"].tolist() == ["Intercept", "mined[T.no]"]
    limits = fit.conf_int(parm="all").loc[["zero_inflation: Intercept", "zero_inflation: mined[T.no]"]]
    np.testing.assert_allclose(zero[["conf_low", "conf_high"]], limits, rtol=1e-12)
    profile = fit.conf_int(parm="zero_inflation: mined[T.no]", method="profile")
    # 644 rows: the profile is nearly a parabola.
    np.testing.assert_allclose(profile, limits.iloc[[1]], rtol=0.05)
    assert "Zero part (logit)" in str(fit.summary())
    assert fit.components == ("conditional", "zero_inflation")
    assert fit.params.index.tolist() == ["Intercept", "mined[T.no]"]


def test_rows_of_a_model_with_parts(fits):
    fit, data = fits["zip"], lme4py.load_dataset("Salamanders")
    table = fit.augment()
    np.testing.assert_allclose(table["mu"], fit.fittedvalues, rtol=1e-12)
    np.testing.assert_allclose(table["resid"], data["count"] - fit.fittedvalues, rtol=1e-10)


def test_what_follows_from_a_fit(fits):
    fit = fits["zip"]
    y = fit.simulate(1, seed=3).iloc[:, 0]
    again = fit.refit(y)
    assert again.components == fit.components
    assert np.isfinite(fit.bootstrap(2, seed=1).replicates.to_numpy()).all()
    assert np.isfinite(fit.coef_table(vcov="CR0")["std_error"]).all()
    for method in ("influence", "drop1", "lrtest_no_random", "check", "glance"):
        assert getattr(fit, method)() is not None
    assert fit.residuals(type="quantile", seed=1).between(0.0, 1.0).all()


@pytest.mark.parametrize(
    "call",
    [
        lambda fit: fit.residuals(),
        lambda fit: fit.predict(type="dispersion"),
    ],
    ids=["deviance", "dispersion"],
)
def test_what_is_not_there_is_refused_by_name(fits, call):
    with pytest.raises(Lme4Error, match="zero_inflated_poisson family has no"):
        call(fits["zip"])


def test_parts_that_are_refused():
    data = lme4py.load_dataset("Salamanders")
    formula = "count ~ mined + (1 | site)"
    with pytest.raises(FormulaError, match=r"grouping factor log\(spp\)"):
        lme4py.glmer(formula, data, family="poisson", ziformula="~ mined + (1 | log(spp))")
    with pytest.raises(OptionError, match="poisson family has no dispersion part"):
        lme4py.glmer(formula, data, family="poisson", dispformula="~ mined")
    with pytest.raises(OptionError, match=r"ziformula='mined'.*ziformula='~ x'"):
        lme4py.glmer(formula, data, family="poisson", ziformula="mined")


def test_likelihood_ratio_tests_of_parts(fits):
    data, formula = lme4py.load_dataset("Salamanders"), "count ~ mined + (1 | site)"
    none = lme4py.glmer(formula, data, family="poisson")
    one = lme4py.glmer(formula, data, family="poisson", ziformula="~ 1")
    full = fits["zip"]
    test = lme4py.lrtest(one, full)
    assert (test.df, test.boundary_corrected) == (1, False)
    chi2 = 2.0 * (full.log_likelihood - one.log_likelihood)
    assert test.chi2 == pytest.approx(chi2, abs=1e-9)
    assert test.p_value == pytest.approx(stats.chi2.sf(chi2, 1), rel=1e-9)
    # A probability of zero is the end of its range: half of the chi-squared probability.
    zero = lme4py.lrtest(none, one)
    assert (zero.df, zero.boundary_corrected) == (1, True)
    assert zero.p_value == pytest.approx(0.5 * stats.chi2.sf(2.0 * (one.log_likelihood - none.log_likelihood), 1))
    with pytest.raises(OptionError, match=r"coefficients of the zero part .* mean nothing"):
        lme4py.lrtest(none, full)
    with pytest.raises(OptionError, match="no combinations"):
        lme4py.lrtest(lme4py.glmer(formula, data, family="poisson", ziformula="~ DOP"), full)
    with pytest.raises(OptionError, match="has a zero_inflation part"):
        lme4py.lrtest(one, lme4py.glmer("count ~ mined + DOP + (1 | site)", data, family="poisson"))
    # One dispersion is a dispersion part with an intercept.
    plain = lme4py.glmer("count ~ spp + mined + (1 | site)", data, family="nbinomial")
    test = lme4py.lrtest(plain, fits["nb_dispersion"])
    assert (test.df, test.boundary_corrected) == (1, False)
    assert test.chi2 > 0.0


def test_no_excess_zeros():
    rng = np.random.default_rng(4)
    g, x = np.repeat(np.arange(20), 10), rng.normal(size=200)
    data = pd.DataFrame({"g": g, "x": x, "y": rng.poisson(np.exp(1.5 + 0.3 * x + 0.3 * rng.normal(size=20)[g]))})
    plain = lme4py.glmer("y ~ x + (1 | g)", data, family="poisson")
    with pytest.warns(ConvergenceWarning, match="zero-inflation probability is zero"):
        fit = lme4py.glmer("y ~ x + (1 | g)", data, family="poisson", ziformula="~ 1")
    # exp(-16) of zeros is nothing.
    assert fit.log_likelihood == pytest.approx(plain.log_likelihood, abs=1e-4)


def test_missing_values_of_a_part_drop_rows():
    data = lme4py.load_dataset("Salamanders")
    data["DOY"] = data["DOY"].where(np.arange(len(data)) != 5)
    fit = lme4py.glmer("count ~ mined + (1 | site)", data, family="poisson", ziformula="~ DOY")
    assert fit.n_obs == len(data) - 1
    predicted = fit.predict(data.iloc[:8])
    assert predicted.isna().tolist() == [False] * 5 + [True] + [False] * 2


def test_restricted_likelihoods_with_a_dispersion_part():
    data = lme4py.load_dataset("sleepstudy")
    fit = lme4py.lmer("Reaction ~ Days + (Days | Subject)", data, dispformula="~ Days")
    # glmmTMB 1.1.5, REML = TRUE, to the digits that it prints.
    assert fit.log_likelihood == pytest.approx(-865.8257208, abs=1e-6)
    np.testing.assert_allclose(fit.params, [252.8619, 10.08418], rtol=1e-6)
