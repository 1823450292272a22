"""Models with correlated or unequal residuals against nlme and dense algebra; see tests/reference/make/residual.R."""

from __future__ import annotations

import json

import numpy as np
import pytest
from reference_data import REFERENCE, load_reference

import lme4py

STORED = json.loads((REFERENCE / "residual.json").read_text(encoding="utf-8"))
OVARY = "follicles ~ sin(2 * pi * Time) + cos(2 * pi * Time)"
TRIAL = "y ~ base * visit + arm * visit"
AGE = "distance ~ age * Sex"
MODELS = {
    "ovary_ar1": ("Ovary", f"{OVARY} + (1 | Mare)", {"residual": "ar1(1 | Mare)"}),
    "ovary_ar1_gls": ("Ovary", OVARY, {"residual": "ar1(1 | Mare)"}),
    "ovary_car1": ("Ovary", OVARY, {"residual": "car1(Time | Mare)"}),
    "ovary_arma11": ("Ovary", OVARY, {"residual": "arma11(1 | Mare)", "reml": False}),
    "ortho_ident": ("Orthodont", f"{AGE} + (1 | Subject)", {"variance": "ident(Sex)"}),
    "ortho_un": ("Orthodont", "distance ~ factor(age) * Sex", {"residual": "us(age | Subject)"}),
    "ortho_ident_ar1": ("Orthodont", AGE, {"residual": "ar1(1 | Subject)", "variance": "ident(Sex)"}),
    "ortho_exp_age": ("Orthodont", AGE, {"variance": "exp(age)"}),
    "ortho_comb": ("Orthodont", AGE, {"residual": "homcs(1 | Subject)", "variance": "ident(Sex) * power(age)"}),
    "bw_power": ("BodyWeight", "weight ~ Time * Diet + (Time | Rat)", {"variance": "power(fitted)"}),
    "bw_power_exp": (
        "BodyWeight",
        "weight ~ Time * Diet + (Time | Rat)",
        {"variance": "power(fitted)", "residual": "exp(Time | Rat)"},
    ),
    "bw_diet": ("BodyWeight", "weight ~ Time * Diet + (Time | Rat)", {"variance": "ident(Diet)"}),
    "trial_un_reml": ("mmrm200", TRIAL, {"residual": "us(visit | id)"}),
    "trial_ar1": ("mmrm200", TRIAL, {"residual": "ar1(visit | id)"}),
    "trial_arh1": ("mmrm200", TRIAL, {"residual": "hetar1(visit | id)"}),
    "trial_csh": ("mmrm200", TRIAL, {"residual": "cs(visit | id)"}),
    "irreg_car1": ("irreg", "y ~ x + time + (1 | id)", {"residual": "car1(time | id)"}),
    "spat_exp": ("spat120", "y ~ z + trt", {"residual": "exp(sx + sy | 1, nugget=TRUE)"}),
    "field_gaus": ("spatfield", "y ~ trt", {"residual": "gau(sx + sy | field, nugget=TRUE)"}),
}
# nlme stops up to this far from its optimum (the fixed point of power(fitted) included); ours are certified.
LOOSE = {"bw_power": 1e-4, "bw_power_exp": 2e-4, "ortho_un": 1e-5, "trial_un_reml": 1e-4}


@pytest.fixture(scope="module")
def fits():
    return {
        name: lme4py.lmer(formula, load_reference(data), **options) for name, (data, formula, options) in MODELS.items()
    }


@pytest.mark.parametrize("name", MODELS)
def test_estimates_are_those_of_nlme(fits, name):
    fit, stored, tolerance = fits[name], STORED[name], LOOSE.get(name, 1e-5)
    assert fit.converged
    # 1e-6, or what nlme is short of its own optimum: then ours is higher.
    assert fit.log_likelihood == pytest.approx(stored["logLik"], abs=1e-6)
    se = np.array(stored["se"])
    # nlme divides the variances of beta by n - p in ML fits as well.
    n, p = fit.n_obs, len(se)
    own = fit.bse.to_numpy() * (1.0 if fit.reml else np.sqrt(n / (n - p)))
    assert own == pytest.approx(se, rel=tolerance)
    assert np.abs(fit.params.to_numpy() - stored["fixef"]).max() < tolerance * se.max()
    assert fit.sigma == pytest.approx(stored["sigma"], rel=10 * tolerance)


def estimates(fit, kind=None):
    return [value for parameter, value in fit.fit.residual_estimates() if kind is None or parameter.kind == kind]


@pytest.mark.parametrize(
    "name", ["ovary_ar1", "ovary_ar1_gls", "ovary_car1", "ortho_ident_ar1", "irreg_car1", "trial_ar1"]
)
def test_correlations_are_those_of_nlme(fits, name):
    # Flat optima: nlme's parameters are good to about the root of its tolerance.
    assert estimates(fits[name])[1] == pytest.approx(STORED[name]["cor"], rel=1e-5)


def test_other_parameters_are_those_of_nlme(fits):
    assert estimates(fits["ovary_arma11"])[1:] == pytest.approx(STORED["ovary_arma11"]["cor"], rel=1e-5)
    assert estimates(fits["spat_exp"])[1:] == pytest.approx(STORED["spat_exp"]["cor"], rel=1e-5)
    assert estimates(fits["bw_power_exp"])[1] == pytest.approx(STORED["bw_power_exp"]["cor"], rel=1e-4)
    sd = np.array(estimates(fits["trial_un_reml"], "sd"))
    assert sd[1:] / sd[0] == pytest.approx(STORED["trial_un_reml"]["var"], rel=1e-4)
    # nlme prints ratios of standard deviations for varIdent, and the power itself.
    assert np.exp(fits["ortho_ident"].fit.scale_coefficients) == pytest.approx([STORED["ortho_ident"]["var"]], rel=1e-6)
    assert np.exp(fits["bw_diet"].fit.scale_coefficients) == pytest.approx(STORED["bw_diet"]["var"], rel=1e-6)
    assert fits["bw_power"].fit.scale_coefficients == pytest.approx([STORED["bw_power"]["var"]], rel=1e-4)


@pytest.mark.parametrize("name", ["ovary_ar1", "ortho_un", "bw_power_exp", "irreg_car1"])
def test_residuals_are_those_of_nlme(fits, name):
    for kind in ("pearson", "normalized"):
        own = fits[name].residuals(kind).head(8)
        assert own.to_numpy() == pytest.approx(STORED[name][kind], abs=2e-5)


WORDS = {"dense_un": "us", "dense_homtoep": "homtoep", "dense_ar1": "ar1"}


@pytest.mark.parametrize("name", WORDS)
def test_degrees_of_freedom_are_those_of_dense_algebra(name):
    stored = STORED[name]
    data = load_reference("mmrm200")
    formula = f"{TRIAL} + {WORDS[name]}(visit | id)"
    for method, se in (("Kenward-Roger", "second_order_se"), ("Kenward-Roger-Linear", "linear_se")):
        table = lme4py.mmrm(formula, data, method=method).coef_table()
        # Numerical second derivatives of R are good to 1e-7 or so.
        assert table["df"].to_numpy() == pytest.approx(stored["kenward_roger_df"], rel=1e-5)
        assert table["std_error"].to_numpy() == pytest.approx(stored[se], rel=1e-6)
    fit = lme4py.mmrm(formula, data, method="Satterthwaite")
    assert fit.log_likelihood == pytest.approx(stored["logLik"], abs=1e-7)
    # The Hessian of up to ten parameters by differences in R.
    assert fit.coef_table()["df"].to_numpy() == pytest.approx(stored["satterthwaite_df"], rel=5e-4)
    assert fit.bse.to_numpy() == pytest.approx(stored["se"], rel=1e-6)


def test_ordinary_models_are_those_of_the_usual_engine():
    """A dispersion formula without effect adds nothing: modes, variances and their errors are those of lmer."""
    data = lme4py.load_dataset("sleepstudy")
    usual = lme4py.lmer("Reaction ~ Days + (Days | Subject)", data)
    # The optimum of the larger model, held where its one more coefficient is zero, is that of the usual one.
    larger = lme4py.lmer("Reaction ~ Days + (Days | Subject)", data, dispformula="~ Days")
    test = lme4py.lrtest(usual, larger)
    assert test.df == 1
    assert test.chi2 >= 0.0
    assert not test.boundary_corrected
    plain = lme4py.lmer("Reaction ~ Days + (Days | Subject)", data, dispformula="~ 1")
    assert plain.criterion == pytest.approx(usual.criterion, abs=1e-8)
    # Two optimisers of one flat criterion: 1e-5 of the estimates.
    assert plain.fit.modes[0] == pytest.approx(usual.fit.modes[0], rel=1e-4, abs=1e-4)
    assert plain.fit.covariances[0] == pytest.approx(usual.fit.covariances[0], rel=1e-4)
    assert plain.sigma == pytest.approx(usual.sigma, rel=1e-5)
    own, theirs = (fit.ranef(conditional_se=True)[1] for fit in (plain, usual))
    assert own.to_numpy() == pytest.approx(theirs.to_numpy(), rel=1e-4)
    for ddf in ("satterthwaite", "kenward-roger"):
        a, b = plain.coef_table(ddf=ddf), usual.coef_table(ddf=ddf)
        assert a["df"].to_numpy() == pytest.approx(b["df"].to_numpy(), rel=1e-4)
        assert a["std_error"].to_numpy() == pytest.approx(b["std_error"].to_numpy(), rel=1e-5)
    for type in ("CR0", "CR1", "CR2", "CR3"):
        a, b = plain.coef_table(vcov=type), usual.coef_table(vcov=type)
        assert a["std_error"].to_numpy() == pytest.approx(b["std_error"].to_numpy(), rel=1e-5)
        assert a["df"].to_numpy() == pytest.approx(b["df"].to_numpy(), rel=1e-4)


def test_intervals_of_variances_are_those_of_nlme():
    """intervals() of nlme for irreg_car1; its Hessian is by differences, good to some four digits."""
    fit = lme4py.lmer("y ~ x + time + (1 | id)", load_reference("irreg"), residual="car1(time | id)")
    table = fit.residual_table().set_index("parameter")
    assert table.loc["sd", ["lower", "upper"]].tolist() == pytest.approx([1.096352, 1.358592], rel=1e-3)
    assert table.loc["cor(1 apart)", ["lower", "upper"]].tolist() == pytest.approx([0.23217, 0.5086321], rel=1e-3)
    random = fit.conf_int(parm="random")
    assert random.iloc[0].tolist() == pytest.approx([0.3169322, 0.8767264], rel=2e-3)
