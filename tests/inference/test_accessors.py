"""What the neighbours give beside the estimates: each number with that of R, or of dense algebra."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pandas as pd
import pytest
from reference_data import REFERENCE
from scipy import integrate, special, stats

import lme4py
from lme4py import anova, glmer, glmer_nb, icc, lmer, load_dataset
from lme4py.errors import DataError, Lme4Warning, OptionError
from lme4py.inference.overview.named import PARTS

R = json.loads((REFERENCE / "accessors.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def sleep():
    return lmer("Reaction ~ Days + (Days | Subject)", load_dataset("sleepstudy"), reml=False)


@pytest.fixture(scope="module")
def herds():
    return glmer("cbind(incidence, size - incidence) ~ period + (1 | herd)", load_dataset("cbpp"))


@pytest.fixture(scope="module")
def growth():
    return lmer("distance ~ age * Sex + (1 | Subject)", load_dataset("Orthodont"))


def test_the_random_part_alone(sleep, herds):
    # lme4's optimum is good to five digits or so.
    alone = sleep.predict(include_fixed=False)
    assert alone.to_numpy()[:12] == pytest.approx(np.array(R["random_only"]), rel=1e-3)
    assert (alone + sleep.predict(include_random=False)).to_numpy() == pytest.approx(sleep.predict().to_numpy())
    logits = herds.predict(include_fixed=False, type="linear")
    assert logits.to_numpy()[:12] == pytest.approx(np.array(R["random_only_glm"]), abs=1e-3)
    new = load_dataset("cbpp").tail(3)
    assert herds.predict(new, include_fixed=False, type="linear").to_numpy() == pytest.approx(logits.to_numpy()[-3:])
    with pytest.raises(OptionError, match="type='linear'"):
        herds.predict(include_fixed=False)
    with pytest.raises(OptionError, match="nothing to predict"):
        sleep.predict(include_fixed=False, include_random=False)


def test_the_random_part_of_a_model_with_an_offset():
    data = load_dataset("sleepstudy").assign(o=np.linspace(-3.0, 3.0, 180))
    fit = lmer("Reaction ~ Days + offset(o) + (1 | Subject)", data)
    modes = fit.ranef().loc[data["Subject"], "Intercept"]
    assert fit.predict(include_fixed=False).to_numpy() == pytest.approx(modes.to_numpy())


def test_part_of_a_term(sleep):
    days = load_dataset("sleepstudy")["Days"]
    found = sleep.predict(include_random={"Subject": "Intercept"})
    assert found.to_numpy()[:12] == pytest.approx(np.array(R["intercepts"]), rel=1e-5)
    slopes = sleep.predict(include_random={"Subject": ["Days"]}, include_fixed=False)
    modes = sleep.ranef().loc[load_dataset("sleepstudy")["Subject"]]
    assert slopes.to_numpy() == pytest.approx(modes["Days"].to_numpy() * days.to_numpy())
    both = sleep.predict(include_random={"Subject": ["Intercept", "Days"]}, se=True)
    pd.testing.assert_frame_equal(both, sleep.predict(se=True))
    with pytest.raises(OptionError, match="no random effect of Subject"):
        sleep.predict(include_random={"Subject": ["Day"]})
    with pytest.raises(OptionError, match="new observation"):
        sleep.predict(include_random={"Subject": ["Days"]}, interval="prediction")


def test_errors_of_part_of_a_term(sleep):
    own = sleep.predict(include_random={"Subject": "Intercept"}, se=True)["std_error"].to_numpy()
    # At Days = 0 the slope has no part.
    whole = sleep.predict(se=True)["std_error"].to_numpy()
    zero = load_dataset("sleepstudy")["Days"].to_numpy() == 0
    assert own[zero] == pytest.approx(whole[zero])
    assert (np.abs(own[~zero] - whole[~zero]) > 0.01).all()


@pytest.mark.parametrize("kind", ["linear", "binomial", "ordinal", "parts"])
def test_rows_of_new_groups_can_be_missing(kind, sleep, herds):
    new = load_dataset("sleepstudy").head(4).assign(Subject=["308", "x", "309", "y"])
    fit = sleep
    if kind == "binomial":
        new, fit = load_dataset("cbpp").head(4).assign(herd=["1", "x", "2", "y"]), herds
    if kind == "ordinal":
        new = load_dataset("wine").head(4).assign(judge=["1", "x", "2", "y"])
        fit = lme4py.clmm("rating ~ temp + (1 | judge)", load_dataset("wine"))
    if kind == "parts":
        data = load_dataset("Salamanders")
        new = data.head(4).assign(site=[data["site"].iloc[0], "x", data["site"].iloc[1], "y"])
        fit = glmer("count ~ mined + (1 | site)", data, "poisson", ziformula="~ 1")
    found = fit.predict(new, new_levels="missing")
    missing = found.isna() if found.ndim == 1 else found.isna().all(axis=1)
    assert missing.tolist() == [False, True, False, True]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Lme4Warning)
        pd.testing.assert_series_equal(
            found.iloc[:, 0].iloc[[0, 2]] if found.ndim == 2 else found.iloc[[0, 2]],
            (lambda p: p.iloc[:, 0].iloc[[0, 2]] if p.ndim == 2 else p.iloc[[0, 2]])(fit.predict(new)),
        )
    with pytest.raises(OptionError, match="'missing', got 'nan'"):
        fit.predict(new, new_levels="nan")
    with pytest.raises(DataError, match="remove these"):
        fit.predict(new, new_levels="error")


def test_covariance_of_all_parameters():
    data = load_dataset("sleepstudy")
    fit = lmer("Reaction ~ Days + (1 | Subject)", data, reml=False)
    V = fit.cov_params(parm="all")
    # glmmTMB: fixed effects, residual, subjects.  Its Hessian is by automatic differentiation at an optimum of its own.
    order = ["Intercept", "Days", "sigma", "sd(Intercept | Subject)"]
    found = V.loc[order, order].to_numpy()
    assert found == pytest.approx(np.array(R["covariance"]), rel=2e-4, abs=2e-4)
    own = V.loc[["Intercept", "Days"], ["Intercept", "Days"]]
    pd.testing.assert_frame_equal(fit.cov_params(), own, check_names=False)


@pytest.mark.parametrize("fit", ["sleep", "herds", "counts", "wine"])
def test_its_diagonal_is_that_of_the_tables(fit, request):
    made = {
        "counts": lambda: glmer_nb("count ~ mined + (1 | site)", load_dataset("Salamanders")),
        "wine": lambda: lme4py.clmm("rating ~ temp + (1 | judge)", load_dataset("wine")),
    }
    result = made[fit]() if fit in made else request.getfixturevalue(fit)
    V = result.cov_params(parm="all")
    tidy = result.tidy(effects=["fixed"])
    assert np.sqrt(np.diag(V))[: len(result.params)] == pytest.approx(result.bse.to_numpy())
    assert list(V.index) == list(result.conf_int(parm="all").index)
    assert np.linalg.eigvalsh(V.to_numpy()).min() > 0.0
    assert len(tidy) >= len(result.params)


def test_a_variance_on_the_boundary_has_no_covariance():
    V = lmer("Yield ~ 1 + (1 | Batch)", load_dataset("Dyestuff2")).cov_params(parm="all")
    assert V.loc["sd(Intercept | Batch)"].isna().all()
    assert np.isfinite(V.loc["Intercept", "Intercept"])


def test_dropped_columns_have_rows_of_nan():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = lmer("Reaction ~ Days + I(2 * Days) + (1 | Subject)", load_dataset("sleepstudy"))
    table = fit.coef_table(dropped=True)
    assert table.index.tolist() == ["Intercept", "Days", "I(2 * Days)"]
    assert table.loc["I(2 * Days)"].isna().all()
    pd.testing.assert_frame_equal(table.head(2), fit.coef_table(), check_names=False)


def test_scope_of_drop1(growth):
    whole = growth.drop1()
    pd.testing.assert_frame_equal(growth.drop1(scope="age:Sex"), whole)
    pd.testing.assert_frame_equal(growth.drop1(scope="~ age:Sex"), whole)
    plain = lmer("distance ~ age + Sex + (1 | Subject)", load_dataset("Orthodont"))
    assert plain.drop1(scope=["Sex"]).index.tolist() == ["Sex"]
    assert plain.drop1("Chisq", scope="~ Sex").index.tolist() == ["<none>", "Sex"]
    with pytest.raises(OptionError, match="cannot be left out while"):
        growth.drop1(scope="age")
    with pytest.raises(OptionError, match="no term of the model"):
        growth.drop1(scope="~ height")


def test_variances_of_a_profile():
    fit = lmer("Yield ~ 1 + (1 | Batch)", load_dataset("Dyestuff"), reml=False)
    profile = fit.profile()
    table = profile.conf_int(scales="vcov")
    assert table.index.tolist() == ["Intercept", "var(Intercept | Batch)", "sigma^2"]
    # lme4 interpolates its profile by splines.
    assert table.iloc[1:].to_numpy() == pytest.approx(np.array(R["variances"]), rel=2e-3)
    frame, plain = profile.to_frame("vcov"), profile.to_frame()
    own = frame["parameter"] == "sigma^2"
    assert frame.loc[own, "value"].to_numpy() == pytest.approx(plain.loc[own, "value"].to_numpy() ** 2)
    with pytest.raises(OptionError, match="'sdcor' or 'vcov'"):
        profile.conf_int(scales="variance")


def test_names_of_compared_models(sleep):
    other = sleep.update("~ . - Days")
    assert anova(sleep, other, names=["with", "without"]).index.tolist() == ["without", "with"]
    assert sleep.anova(other, names=["with", "without"]).index.tolist() == ["without", "with"]
    with pytest.raises(OptionError, match="1 names for 2 models"):
        anova(sleep, other, names=["with"])
    with pytest.raises(OptionError, match="several models"):
        anova(sleep, names=["with"])


def test_criteria_by_groups(sleep):
    found = sleep.information_criteria()
    assert found["bic_Subject"] == pytest.approx(R["bic_groups"], abs=1e-5)
    assert found["aic"] == sleep.aic
    assert found["bic"] == sleep.bic
    assert found["aicc"] == lme4py.aicc(sleep)


def test_correlations_of_the_fixed_effects(herds):
    shown = str(herds.summary(correlation=True))
    lines = shown[shown.index("Correlation of fixed effects") :].split("\n")[2:5]
    numbers = [float(word) for line in lines for word in line.split()[2:]]
    # lme4's covariance is made of differences; shown are two decimals.  R's order is by columns.
    expected = np.zeros((4, 4))
    expected[np.triu_indices(4, 1)] = R["correlation"]
    assert numbers == pytest.approx(expected.T[np.tril_indices(4, -1)], abs=0.006)
    assert "Correlation of fixed effects" not in str(herds.summary())


def test_standardised_modes(sleep):
    """Modes over the roots of Sigma - PEV, by dense algebra: their covariance over repeated samples is B V B'."""
    X, Z = np.asarray(sleep.model_matrix), sleep.Zt.toarray().T
    Sigma = np.kron(np.eye(18), sleep.fit.covariances[0])
    V = Z @ Sigma @ Z.T + sleep.sigma**2 * np.eye(180)
    Vi = np.linalg.inv(V)
    P = Vi - Vi @ X @ np.linalg.solve(X.T @ Vi @ X, X.T @ Vi)
    own = np.sqrt(np.diag(Sigma @ Z.T @ P @ Z @ Sigma)).reshape(18, 2)
    found = sleep.ranef(standardised=True)
    assert found.to_numpy() == pytest.approx(sleep.ranef().to_numpy() / own)
    with pytest.raises(OptionError, match="leave the other"):
        sleep.ranef(standardised=True, conditional_se=True)


def test_reliability_of_means():
    """Spearman and Brown: the variance of a mean of k rows is s2 + sigma2 / k."""
    fit = lmer("Reaction ~ Days + (1 | Subject)", load_dataset("sleepstudy"))
    one, ten = icc(fit), icc(fit, k=10)
    s2 = fit.variance_components["var(_cons)"]
    assert ten.estimate == pytest.approx(s2 / (s2 + fit.sigma**2 / 10))
    h = 1e-6
    slope = ((10 * (one.estimate + h)) / (1 + 9 * (one.estimate + h)) - ten.estimate) / h
    # A difference of first order.
    assert ten.se == pytest.approx(slope * one.se, rel=1e-5)
    assert fit.icc(k=10).ci_upper == pytest.approx(10 * one.ci_upper / (1 + 9 * one.ci_upper))
    with pytest.raises(OptionError, match="1 or more"):
        icc(fit, k=0)


def test_standardised_coefficients(sleep, herds):
    data = load_dataset("sleepstudy")
    fit = lmer("scale(Reaction) ~ scale(Days) + (1 | Subject)", data, reml=False)
    plain = lmer("Reaction ~ Days + (1 | Subject)", data, reml=False)
    found = plain.standardised()
    assert found.loc["Days", "estimate"] == pytest.approx(fit.params["scale(Days)"])
    assert found.loc["Days", "std_error"] == pytest.approx(fit.bse["scale(Days)"])
    limits = fit.conf_int().loc["scale(Days)"].to_numpy()
    # Degrees of freedom are functions of second derivatives.
    assert found.loc["Days", ["lower", "upper"]].to_numpy(dtype=float) == pytest.approx(limits, rel=1e-6)
    x = (load_dataset("cbpp")["period"] == "2").std(ddof=1)
    assert herds.standardised().loc["period[T.2]", "estimate"] == pytest.approx(herds.params["period[T.2]"] * x)


def test_standardised_coefficients_of_categories_are_those_of_their_own_rows():
    rng = np.random.default_rng(2)
    data = pd.DataFrame(
        {"y": rng.choice(["a", "b", "c"], 90), "x": 2000.0 + rng.normal(size=90), "g": np.arange(90) % 9}
    )
    found = lme4py.glmer("y ~ x + (1 | g)", data, "multinomial")
    table = found.standardised()
    assert list(table.index) == ["b: x", "c: x"]
    # Exact: the coefficient times the standard deviation of the column.
    assert table.loc["b: x", "estimate"] == pytest.approx(found.params["b: x"] * data.x.std(), rel=1e-9)


def test_parts_by_name(sleep, herds):
    assert sleep.part("response").tolist() == load_dataset("sleepstudy")["Reaction"].tolist()
    assert herds.part("response").sum(axis=1).tolist() == load_dataset("cbpp")["size"].tolist()
    assert herds.part("weights").tolist() == load_dataset("cbpp")["size"].tolist()
    assert (sleep.part("predictors"), sleep.part("random")) == (["Days"], ["Subject"])
    assert herds.part("variables") == ["incidence", "size", "period", "herd"]
    assert sleep.part("groups")["Subject"].tolist() == load_dataset("sleepstudy")["Subject"].tolist()
    eta = sleep.part("X") @ sleep.part("beta") + sleep.part("Z") @ sleep.part("b") + sleep.part("offset")
    assert eta.to_numpy() == pytest.approx(sleep.part("eta"))
    for name in PARTS:
        assert herds.part(name) is not None
    with pytest.raises(OptionError, match="Did you mean 'response'"):
        sleep.part("respons")


def test_the_f_test_of_clubsandwich(growth):
    found = growth.contest(np.eye(4)[1:], vcov="CR2").iloc[0]
    assert found["F"] == pytest.approx(R["htz"]["F"], rel=1e-5)
    assert found["den_df"] == pytest.approx(R["htz"]["df"], rel=1e-5)
    assert found["p_value"] == pytest.approx(R["htz"]["p"], rel=1e-4)


@pytest.mark.parametrize("level", [0, 6, 14])
def test_posterior_means_of_a_generalised_model(herds, level):
    """Ratios of integrals of the binomial likelihood times the normal density, by SciPy's adaptive rule."""
    data = load_dataset("cbpp")
    own = (data["herd"].cat.codes == level).to_numpy()
    eta = herds.predict(include_random=False, type="linear").to_numpy()[own]
    y, n = (data.loc[own, name].to_numpy() for name in ("incidence", "size"))
    sd = float(np.sqrt(herds.fit.covariances[0][0, 0]))

    def moment(power):
        def integrand(b):
            return b**power * np.exp(stats.binom.logpmf(y, n, special.expit(eta + b)).sum()) * stats.norm.pdf(b, 0, sd)

        return integrate.quad(integrand, -8 * sd, 8 * sd, epsabs=0.0, epsrel=1e-11, limit=200)[0]

    whole, mean = moment(0), moment(1) / moment(0)
    means, sds = herds.ranef(type="mean", conditional_se=True)
    # 31 nodes about the mode.
    assert means.iloc[level, 0] == pytest.approx(mean, abs=1e-8)
    assert sds.iloc[level, 0] == pytest.approx(np.sqrt(moment(2) / whole - mean**2), abs=1e-8)


def test_posterior_means_of_two_effects_and_of_categories():
    """A grid over both effects of one group."""
    data = load_dataset("Contraception")
    fit = glmer("use ~ age + (urban | district)", data)
    means = fit.ranef(type="mean")
    level = "1"
    own = (data["district"].astype(str) == level).to_numpy()
    eta = fit.predict(include_random=False, type="linear").to_numpy()[own]
    y = (data["use"] == "Y").to_numpy()[own]
    z = np.column_stack([np.ones(own.sum()), (data["urban"] == "Y").to_numpy()[own]])
    S = fit.fit.covariances[0]
    grid = np.linspace(-7.0, 7.0, 281)
    L = np.linalg.cholesky(S)
    u = np.stack(np.meshgrid(grid, grid), axis=-1).reshape(-1, 2)
    b = u @ L.T
    logs = stats.norm.logpdf(u).sum(axis=1)
    for i in range(y.size):
        logs += np.log(special.expit((1 if y[i] else -1) * (eta[i] + b @ z[i])))
    weight = np.exp(logs - logs.max())
    # A trapezium rule of 281 x 281 points over seven standard deviations.
    assert means.loc[level].to_numpy() == pytest.approx(weight @ b / weight.sum(), abs=1e-6)
    wine = lme4py.clmm("rating ~ temp + (1 | judge)", load_dataset("wine"))
    assert wine.ranef(type="mean").to_numpy() == pytest.approx(wine.ranef().to_numpy(), abs=0.2)


def test_posterior_means_where_they_are_modes_and_where_there_are_none(sleep):
    pd.testing.assert_frame_equal(sleep.ranef(type="mean"), sleep.ranef())
    crossed = glmer("TICKS ~ 1 + (1 | BROOD) + (1 | LOCATION)", load_dataset("grouseticks"), "poisson")
    with pytest.raises(OptionError, match="one random-effects term"):
        crossed.ranef(type="mean")
    with pytest.raises(OptionError, match="conditional_se= only"):
        sleep.ranef(type="mean", include_fixed=True)


def test_replicates_are_stored_and_read_again(herds, tmp_path):
    boot = herds.bootstrap(20, seed=1)
    again = lme4py.BootstrapResult.load(boot.save(tmp_path / "boot.json"))
    pd.testing.assert_frame_equal(again.conf_int(), boot.conf_int(), check_names=False)
    pd.testing.assert_frame_equal(again.summary(), boot.summary(), check_names=False)
    assert repr(again) == repr(boot)
    (tmp_path / "other.json").write_text("{}", encoding="utf-8")
    with pytest.raises(OptionError, match="holds no bootstrap"):
        lme4py.BootstrapResult.load(tmp_path / "other.json")


def test_models_without_random_effects_have_none():
    fit = glmer("count ~ mined", load_dataset("Salamanders"), "poisson", fixed_only=True)
    assert fit.ranef(standardised=True) == {}
    assert fit.ranef(reliability=True) == ({}, {})
    assert (fit.predict(include_fixed=False, type="linear") == 0.0).all()


def test_the_keyword_door_knows_both_names_of_the_intercept():
    fit = lme4py.mixed(load_dataset("sleepstudy"), "Reaction", ["Days"], "Subject", x_random=["Days"])
    one, other = (fit.predict(include_random={"Subject": [name]}) for name in ("_cons", "Intercept"))
    pd.testing.assert_series_equal(one, other)
    assert (one - fit.predict()).abs().max() > 1.0
