"""The mixed model for repeated measures: the door, the table of a trial report, and what is refused by name."""

from __future__ import annotations

import json
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from reference_data import REFERENCE, load_reference

import lme4py
from lme4py.errors import DataError, DesignError, FormulaError, Lme4Error, Lme4Warning, OptionError
from lme4py.fits.method import wald

FORMULA = "y ~ base * visit + arm * visit + us(visit | id)"


@pytest.fixture(scope="module")
def trial():
    return load_reference("mmrm200")


@pytest.fixture(scope="module")
def fit(trial):
    return lme4py.mmrm(FORMULA, trial)


@pytest.fixture(scope="module")
def mixed():
    data = lme4py.load_dataset("Orthodont")
    return lme4py.lmer("distance ~ age * Sex + (age | Subject)", data, variance="ident(Sex)")


def test_where_kenward_and_roger_have_no_adjustment_there_are_no_numbers():
    """Seven subjects of four visits: the unstructured covariance becomes singular, and REML has no minimum."""
    g = np.random.default_rng(7)
    rows = [(f"s{i}", f"v{j}", "AB"[i % 2], g.normal()) for i in range(7) for j in range(4)]
    data = pd.DataFrame(rows, columns=["id", "v", "arm", "y"])
    data["y"] += data.groupby("id")["y"].transform("first")
    data = data[g.uniform(size=len(data)) > 0.25]
    with pytest.warns(Lme4Warning, match="Not converged"):
        fit = lme4py.mmrm("y ~ arm * v + us(v | id)", data)
    for ask in (fit.coef_table, fit.anova, lambda: lme4py.trial_table(fit, "arm", "v")):
        with pytest.warns(Lme4Warning, match="adjustment does not exist here"):
            assert ask()["p_value"].isna().all()
    assert np.isfinite(fit.coef_table(ddf="satterthwaite")["p_value"]).all()
    with pytest.warns(Lme4Warning, match="adjustment does not exist here"):
        assert "n/a" in str(fit.summary())


def test_random_effects_that_are_not_there_are_not_tested(fit):
    for ask in (fit.lrtest_no_random, fit.icc_table):
        with pytest.raises(OptionError, match=r"this model has none|no residual variance in common"):
            ask()
    plain = lme4py.lmer("distance ~ age", lme4py.load_dataset("Orthodont"), fixed_only=True)
    for ask in (plain.lrtest_no_random, plain.icc_table):
        with pytest.raises(OptionError, match="this model has none"):
            ask()


# --- the table --------------------------------------------------------------------------------------------------------


def test_means_are_those_of_margins(fit):
    """Least-squares means are predictions with the covariate at its mean."""
    table = lme4py.trial_table(fit, arm="arm", visit="visit")
    means = table[table["kind"] == "mean"]
    base = float(fit.fit.design.columns["base"].values.mean())
    grid = {"visit": ["V1", "V4"], "arm": ["placebo", "active"], "base": [base]}
    other = lme4py.Margins.linear_scale(fit).predict(atexog=grid).to_frame()
    for _, row in other.iterrows():
        own = means[(means["visit"] == row["visit"]) & (means["arm"] == row["arm"])].iloc[0]
        # The same linear function of the same numbers.
        for a, b in (("estimate",) * 2, ("std_error",) * 2, ("lower", "ci_lower"), ("upper", "ci_upper")):
            assert own[a] == pytest.approx(row[b], rel=1e-10)


MEANS = json.loads((REFERENCE / "trial_means.json").read_text(encoding="utf-8"))
MODELS = {
    "us": "y ~ base * visit + arm * visit + sex + us(visit | id)",
    "ar1": "y ~ base + arm * visit * sex + ar1(visit | id)",
}


@pytest.mark.parametrize("name", MEANS)
def test_means_and_differences_are_those_of_emmeans(name, trial):
    """nlme::gls and emmeans; see tests/reference/make/trial_means.R."""
    data = trial.assign(sex=np.where((trial["id"].cat.codes + 1) % 3 == 0, "f", "m"))
    structure, weights = name.split("_")
    fit = lme4py.mmrm(MODELS[structure], data, method="Satterthwaite")
    table = lme4py.trial_table(fit, "arm", "visit", weights=weights)
    # gls stops some 1e-5 standard errors short of the optimum of the ten parameters of us.
    tolerance = 1e-5 if structure == "us" else 1e-7
    means = pd.DataFrame(MEANS[name]["means"]).set_index(["arm", "visit"])
    own = table[table["kind"] == "mean"].set_index(["arm", "visit"]).loc[means.index]
    assert own[["estimate", "std_error"]].to_numpy() == pytest.approx(means.to_numpy(), rel=tolerance)
    pairs = pd.DataFrame(MEANS[name]["differences"]).set_index("visit")
    own = table[table["kind"] == "difference"].set_index("visit").loc[pairs.index]
    assert own[["estimate", "std_error"]].to_numpy() == pytest.approx(pairs.to_numpy(), rel=tolerance)
    if weights == "equal":
        # Equal weights are the average of the predictions of both sexes.
        base = float(fit.fit.design.columns["base"].values.mean())
        grid = {"arm": ["active"], "visit": ["V3"], "base": [base], "sex": ["f", "m"]}
        both = lme4py.Margins.linear_scale(fit).predict(atexog=grid).to_frame()["estimate"]
        assert both.mean() == pytest.approx(means.loc[("active", "V3"), "emmean"], rel=tolerance)


def test_differences_and_counts(fit, trial):
    table = lme4py.trial_table(fit, arm="arm", visit="visit")
    means = table[table["kind"] == "mean"].set_index(["arm", "visit"])
    differences = table[table["kind"] == "difference"].set_index("visit")
    for visit in ("V1", "V2", "V3", "V4"):
        own = means.loc[("active", visit), "estimate"] - means.loc[("placebo", visit), "estimate"]
        assert differences.loc[visit, "estimate"] == pytest.approx(own, rel=1e-10)
        rows = trial[(trial["visit"] == visit) & (trial["arm"] == "active")]
        assert means.loc[("active", visit), "n"] == rows["y"].notna().sum()
        assert means.loc[("active", visit), "n_dropped"] == rows["y"].isna().sum()
    other = lme4py.trial_table(fit, arm="arm", visit="visit", reference="active", level=0.9)
    assert other["estimate"].iloc[-1] == pytest.approx(-differences["estimate"].iloc[-1], rel=1e-10)
    assert set(other["arm"]) == {"placebo", "active", "placebo - active"}


def test_a_cell_that_was_never_observed_is_named(trial):
    data = trial[~((trial["arm"] == "active") & (trial["visit"] == "V4"))]
    with pytest.warns(lme4py.RankWarning):
        fit = lme4py.mmrm("y ~ arm * visit + us(visit | id)", data)
    with pytest.warns(Lme4Warning, match="active at V4"):
        table = lme4py.trial_table(fit, arm="arm", visit="visit")
    lost = table["estimate"].isna()
    assert table.loc[lost, ["kind", "visit"]].to_numpy().tolist() == [["mean", "V4"], ["difference", "V4"]]


def test_weights_of_other_factors(trial):
    data = trial.assign(sex=np.where(trial["id"].cat.codes % 3 == 0, "f", "m"))
    fit = lme4py.mmrm("y ~ arm * visit + sex + homcs(visit | id)", data)
    equal, proportional = (lme4py.trial_table(fit, "arm", "visit", weights=w) for w in ("equal", "proportional"))
    share = float((data.loc[data["y"].notna(), "sex"] == "m").mean())
    # Levels f, m: the equal mean has half of the coefficient of m, the other one the share of its rows.
    moved = (share - 0.5) * fit.params["sex[T.m]"]
    assert proportional["estimate"][0] - equal["estimate"][0] == pytest.approx(moved, rel=1e-8)


def test_robust_by_subject(fit):
    """Clusters are the subjects; degrees of freedom are Satterthwaite's of the sandwich."""
    table = lme4py.trial_table(fit, "arm", "visit", vcov="CR2")
    plain = lme4py.trial_table(fit, "arm", "visit", ddf="satterthwaite")
    assert table["estimate"].to_numpy() == pytest.approx(plain["estimate"].to_numpy(), rel=1e-12)
    # 200 subjects whose covariance is the model's: within a third of each other.
    assert table["std_error"].to_numpy() == pytest.approx(plain["std_error"].to_numpy(), rel=0.35)
    with pytest.raises(OptionError, match="kenward-roger"):
        fit.coef_table(ddf="kenward-roger", vcov="CR2")


def test_an_f_test_without_an_inverse_is_refused_by_name():
    """A covariance of rank one of two estimates."""
    with pytest.raises(DesignError, match="not positive definite"):
        wald(np.array([[1.0, 2.0], [2.0, 1.0]]), np.array([1.0, 1.0]))
    # 1 + 4 / 2 over two: the plain case.
    assert wald(np.diag([1.0, 2.0]), np.array([1.0, 2.0])) == pytest.approx(1.5, rel=1e-14)


def test_update_keeps_the_covariance_term(fit):
    other = fit.update(". ~ . - base:visit")
    assert other.formula == "y ~ base + visit + arm + visit:arm + us(visit | id)"
    assert other.update(". ~ . + cs(visit | id)").fit.residual.text == "cs(visit | id)"
    assert fit.update(method="Satterthwaite").criterion == pytest.approx(fit.criterion, abs=1e-10)


def test_responses_of_other_subjects(fit, trial):
    """Draws for new subjects have the fitted means and covariances."""
    new = trial.head(8).assign(id=[f"new {i}" for i in trial["id"].head(8)], y=np.nan).iloc[::-1]
    draws = fit.simulate(4_000, seed=3, data=new).to_numpy().reshape(2, 4, -1)
    left = draws - draws.mean(axis=2, keepdims=True)
    R = fit.residual_covariance().to_numpy()[::-1, ::-1]
    for subject in range(2):
        # 4,000 draws: covariances to 1.6 % of the variances or so, each.
        assert left[subject] @ left[subject].T / 4_000 == pytest.approx(R, abs=0.08 * R.max())
    assert draws.mean(axis=2).ravel() == pytest.approx(fit.predict(new).to_numpy(), abs=0.08 * np.sqrt(R.max()))
    with pytest.raises(DataError, match="twice at one position"):
        fit.simulate(1, data=pd.concat([new, new]))
    counted = lme4py.lmer("y ~ base", trial, residual="ar1(1 | id)")
    with pytest.raises(OptionError, match="counts the rows of a subject"):
        counted.simulate(1, data=new)


def test_variances_of_rows(fit, trial, mixed):
    rows = trial.dropna().sample(20, random_state=1)
    R = dict(zip(fit.residual_covariance().index, np.diag(fit.residual_covariance()), strict=True))
    own = [R[visit] for visit in rows["visit"]]
    # The same elements of the same matrix.
    assert fit.predict(rows, type="variance").to_numpy() == pytest.approx(own, rel=1e-10)
    assert fit.predict(rows, type="dispersion").to_numpy() == pytest.approx(np.sqrt(own), rel=1e-10)
    weights = np.linspace(1.0, 3.0, mixed.n_obs)
    other = lme4py.lmer(
        "distance ~ age * Sex + (1 | Subject)", lme4py.load_dataset("Orthodont"), variance="exp(age)", weights=weights
    )
    sd = other.predict(type="dispersion").to_numpy()
    age = lme4py.load_dataset("Orthodont")["age"].to_numpy()
    assert sd == pytest.approx(other.sigma * np.exp(age * other.fit.scale_coefficients[0]), rel=1e-10)
    assert other.predict(type="variance").to_numpy() == pytest.approx(sd**2 / weights, rel=1e-10)


# --- the door ---------------------------------------------------------------------------------------------------------


def test_visits_that_are_numbers_are_labels(fit, trial):
    numbered = trial.assign(visit=trial["visit"].cat.codes + 1)
    other = lme4py.mmrm(FORMULA, numbered)
    assert other.criterion == pytest.approx(fit.criterion, abs=1e-9)
    assert "taken as the labels of 4 visits" in other.fit.design.notes[-1]
    new = numbered[numbered["id"] == "S001"]
    assert other.predict(new).to_numpy() == pytest.approx(fit.predict(trial[trial["id"] == "S001"]).to_numpy())


def test_the_order_of_rows_is_free(fit, trial):
    mixed = lme4py.mmrm(FORMULA, trial.sample(frac=1.0, random_state=1))
    assert mixed.criterion == pytest.approx(fit.criterion, abs=1e-8)
    assert mixed.bse.to_numpy() == pytest.approx(fit.bse.to_numpy(), rel=1e-6)


def test_units_are_free(fit, trial):
    """Another unit of the response changes the criterion by a constant and the estimates by a factor."""
    other = lme4py.mmrm(FORMULA, trial.assign(y=1e6 * trial["y"] + 1e9))
    assert other.bse.to_numpy() == pytest.approx(1e6 * fit.bse.to_numpy(), rel=1e-6)
    assert other.coef_table()["df"].to_numpy() == pytest.approx(fit.coef_table()["df"].to_numpy(), rel=1e-5)


def test_matrices_by_arm(trial):
    fit = lme4py.mmrm("y ~ base * visit + arm * visit + us(visit | arm / id)", trial, method="Satterthwaite")
    with pytest.raises(OptionError, match="stratum"):
        fit.residual_covariance()
    arms = [fit.residual_covariance(arm) for arm in ("placebo", "active")]
    assert arms[0].shape == (4, 4)
    assert not np.allclose(arms[0], arms[1])
    one = lme4py.mmrm(FORMULA, trial)
    test = lme4py.lrtest(one, fit)
    assert test.df == 10
    assert test.chi2 > 0.0
    corr = one.residual_correlation()
    assert np.diag(corr) == pytest.approx(np.ones(4))


def test_fallback_is_used_on_request_and_said(trial):
    """Two visits that no subject has both of have no unstructured covariance."""
    data = trial[
        ~(
            ((trial["visit"] == "V1") & (trial["id"].cat.codes % 2 == 0))
            | ((trial["visit"] == "V4") & (trial["id"].cat.codes % 2 == 1))
        )
    ]
    with pytest.raises(DesignError, match="V1 and V4 are never observed in the same subject"):
        lme4py.mmrm(FORMULA, data)
    with pytest.warns(Lme4Warning, match="in the place of us"):
        fit = lme4py.mmrm(FORMULA, data, fallback=["hetar1", "cs"])
    assert fit.fit.residual.text == "hetar1(visit | id)"
    assert "in the place of us" in fit.fit.design.notes[-1]


BAD = {
    "y ~ arm * visit": (FormulaError, "no covariance term"),
    "y ~ arm + us(visit | id) + ar1(visit | id)": (FormulaError, "2 covariance terms"),
    "y ~ arm + (1 | id) + us(visit | id)": (FormulaError, "random effects"),
    "y ~ arm + uns(visit | id)": (OptionError, "no covariance structure 'uns'"),
    "y ~ arm + rr(visit | id)": (OptionError, "no structure of residuals"),
    "y ~ arm + us(visit | arm)": (DataError, "more than one row at visit = V1"),
    "y ~ arm + us(visit + base | id)": (OptionError, "takes one index"),
    "y ~ arm + car1(arm | id)": (DataError, "is no number"),
    "y ~ arm + us(visit | id, d=2)": (OptionError, "no option 'd'"),
    "y ~ arm + us(visit | nothing)": (DataError, "'nothing' not found"),
}


@pytest.mark.parametrize("formula", BAD)
def test_bad_formulas_are_refused_by_name(trial, formula):
    kind, words = BAD[formula]
    with pytest.raises(kind, match=words.replace("(", r"\(")):
        lme4py.mmrm(formula, trial)


def test_bad_options_are_refused_by_name(trial):
    with pytest.raises(OptionError, match="method='KR'"):
        lme4py.mmrm(FORMULA, trial, method="KR")
    with pytest.raises(OptionError, match="REML only"):
        lme4py.mmrm(FORMULA, trial, reml=False)
    with pytest.raises(OptionError, match="no variance function"):
        lme4py.lmer("y ~ arm", trial, variance="idnt(arm)")
    with pytest.raises(DataError, match="whole numbers"):
        lme4py.lmer("y ~ arm", trial, residual="ar1(base | id)")
    with pytest.raises(DataError, match="is zero in"):
        lme4py.lmer("y ~ arm", trial.assign(z=trial["time"] - 1), variance="power(z)")
    with pytest.raises(DesignError, match="do not tell"):
        lme4py.lmer("y ~ arm + (1 | id)", trial, residual="homcs(visit | id)")
    with pytest.raises(DesignError, match="do not tell"):
        lme4py.lmer("y ~ arm", trial, residual="us(visit | id)", variance="ident(visit)")


def test_the_fit_has_what_every_fit_has():
    """What inference reads of a linear mixed model, it may read of this one."""
    names = [set(dir(kind)) | set(kind.__dataclass_fields__) for kind in (lme4py.LinearFit, lme4py.ResidualFit)]
    own = {
        "theta_inside",
        "curvature",
        "in_blocks",
    }  # of the engine of linear models, which its own side of a fit reads
    assert {name for name in names[0] - names[1] if not name.startswith("_")} <= own


# --- after the fit ----------------------------------------------------------------------------------------------------

WORK = {
    "summary": lambda f: str(f.summary()),
    "coef_table": lambda f: f.coef_table(),
    "anova": lambda f: f.anova(),
    "contest": lambda f: f.contest(f.params.index[-1]),
    "wald_test": lambda f: f.wald_test(f.params.index[-1]),
    "drop1": lambda f: f.drop1("Chisq"),
    "conf_int": lambda f: f.conf_int(),
    "tidy": lambda f: f.tidy(),
    "glance": lambda f: f.glance(),
    "to_json": lambda f: f.to_json(),
    "to_latex": lambda f: f.to_latex(),
    "var_corr": lambda f: f.var_corr(),
    "variance_components": lambda f: f.variance_components,
    "predict": lambda f: f.predict(include_random=False, interval="confidence"),
    "residuals": lambda f: f.residuals("normalized"),
    "simulate": lambda f: f.simulate(2, seed=1),
    "refit": lambda f: f.refit(f.simulate(1, seed=1).iloc[:, 0]),
    "update": lambda f: f.update(control={"max_evaluations": 300}),
    "ranef": lambda f: f.ranef(conditional_se=True),
    "check": lambda f: f.check(),
    "residual_table": lambda f: f.residual_table(),
    "variance_table": lambda f: f.variance_table(),
    "intervals of all": lambda f: f.conf_int(parm="all"),
    "compare": lambda f: lme4py.compare(f),
    "Margins": lambda f: lme4py.Margins.linear_scale(f).predict(atexog={}),
    "pickle": lambda f: pickle.loads(pickle.dumps(f)).coef_table(),
    "slim": lambda f: str(f.slim()),
    "robust": lambda f: f.coef_table(vcov="CR3"),
    "influence": lambda f: f.influence(),
    "hatvalues": lambda f: f.hatvalues(),
    "prediction interval": lambda f: f.predict(include_random=False, interval="prediction"),
    "profile": lambda f: f.profile(f.params.index[-1]),
    "conditional margins": lambda f: lme4py.Margins.linear_scale(f, random="conditional").predict(atexog={}),
    "bootstrap": lambda f: f.bootstrap(2, seed=1, progress=False),
}
REFUSED = {
    "all_fit": lambda f: f.all_fit(),
    "icc": lambda f: lme4py.icc(f),
    "r_squared": lambda f: f.r_squared(),
    "quantile_residuals": lambda f: f.quantile_residuals(),
    "lrtest_no_random": lambda f: f.lrtest_no_random(),
    "semiparametric": lambda f: f.bootstrap(2, type="semiparametric"),
    "re_pca": lambda f: f.re_pca(),
}


@pytest.mark.parametrize("which", ["fit", "mixed"])
@pytest.mark.parametrize("name", WORK)
def test_methods_work(request, which, name):
    assert WORK[name](request.getfixturevalue(which)) is not None


@pytest.mark.parametrize("which", ["fit", "mixed"])
@pytest.mark.parametrize("name", REFUSED)
def test_what_would_be_wrong_is_refused_by_name(request, which, name):
    fit = request.getfixturevalue(which)
    with pytest.raises(Lme4Error):
        REFUSED[name](fit)


def test_simulated_responses_have_the_covariance(fit):
    """The mean of many products of residuals of one subject is its covariance."""
    Y = fit.simulate(4000, seed=3)
    rows = np.flatnonzero(fit.fit.design.columns["id"].values == 0)
    own = Y.iloc[rows].to_numpy() - fit.fittedvalues.iloc[rows].to_numpy()[:, None]
    found = own @ own.T / 4000
    R = fit.residual_covariance().to_numpy()[: len(rows), : len(rows)]
    # Standard errors of a product of normal variables: at most sqrt(2) times the largest variance over sqrt(4000).
    assert found == pytest.approx(R, abs=5.0 * np.sqrt(2.0 / 4000.0) * R.max())


def test_normalized_residuals_are_uncorrelated(fit):
    z = fit.residuals("normalized").to_numpy()
    assert np.mean(z**2) == pytest.approx(1.0, abs=0.1)


def test_no_warning_in_an_ordinary_trial(trial):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lme4py.mmrm(FORMULA, trial)


def test_residuals_that_determine_each_other_are_said():
    """A response that does not vary within subjects: a correlation of 1, where the likelihood has no maximum."""
    rng = np.random.default_rng(1)
    data = {
        "id": np.repeat(np.arange(30), 3),
        "visit": np.tile(np.arange(3), 30),
        "y": np.repeat(rng.normal(size=30), 3),
    }
    with pytest.warns(lme4py.ConvergenceWarning, match="residual covariance has become singular"):
        fit = lme4py.lmer("y ~ 1", data, residual="ar1(visit | id)")
    assert not fit.converged


def test_a_range_that_the_data_do_not_see_is_said():
    rng = np.random.default_rng(3)
    y = rng.normal(size=(40, 4))
    y[:, 1:] -= 0.3 * y[:, :-1]  # neighbours are negatively correlated, which no range describes
    data = {"id": np.repeat(np.arange(40), 4), "t": np.tile(np.arange(4.0), 40), "y": y.ravel()}
    with pytest.warns(Lme4Warning, match="far shorter than the distances"):
        lme4py.lmer("y ~ 1", data, residual="exp(t | id)")
