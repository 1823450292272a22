"""Choices of a call: rows by an expression, starts by name, optimisers by name, checks turned off or into errors."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pandas as pd
import pytest
from reference_data import REFERENCE

import lme4py
from lme4py import clmm, glmer, glmer_nb, lmer, load_dataset
from lme4py.errors import DataError, DesignError, FormulaError, Lme4Warning, OptionError, RankWarning

S = load_dataset("sleepstudy")
FORMULA = "Reaction ~ Days + (Days | Subject)"
SINGULAR = ("Yield ~ 1 + (1 | Batch)", load_dataset("Dyestuff2"))
DEPENDENT = "Reaction ~ Days + I(2 * Days) + (1 | Subject)"


# --- subset


@pytest.mark.parametrize("data", [S, dict(S)], ids=["pandas", "dict"])
def test_rows_by_an_expression(data):
    w = np.arange(1.0, 181.0)
    own = S["Days"] > 1
    found = lmer(FORMULA, data, subset="Days > 1", weights=w)
    expected = lmer(FORMULA, S[own], weights=w[own])
    assert (found.n_obs, found.criterion) == (144, expected.criterion)
    assert lmer(FORMULA, data, subset=own.to_numpy(), weights=w).criterion == expected.criterion


def test_rows_keep_their_labels_and_the_choice_goes_with_an_update():
    fit = lmer(FORMULA, S, subset="Days > 1 & Subject != '308'")
    assert fit.predict().index.tolist()[:2] == [12, 13]
    assert fit.update(reml=False).n_obs == 136
    assert fit.update(subset=None).n_obs == 180


def test_rows_of_other_doors_and_libraries():
    polars = pytest.importorskip("polars")
    assert lmer(FORMULA, polars.from_pandas(S), subset="Days > 1").n_obs == 144
    ticks = load_dataset("grouseticks")
    assert (
        glmer("TICKS ~ 1 + (1 | BROOD)", ticks, "poisson", subset="YEAR != '95'").n_obs == (ticks["YEAR"] != "95").sum()
    )
    assert clmm("rating ~ temp + (1 | judge)", load_dataset("wine"), subset="contact == 'no'").n_obs == 36


def test_a_missing_condition_leaves_the_row_out():
    data = S.assign(x=np.where(S["Days"] == 3, np.nan, S["Days"]))
    assert lmer(FORMULA, data, subset="x > 1").n_obs == 126


@pytest.mark.parametrize(
    ("subset", "kind", "match"),
    [
        ("Days + 1", OptionError, "no condition"),
        ("Day > 1", DataError, "Did you mean 'Days'"),
        ("Days >", FormulaError, "neither a column nor an expression"),
        ("Days > 100", DataError, "none of the 180 rows"),
        (np.ones(180), OptionError, "180 values True or False"),
        (np.ones(3, dtype=bool), OptionError, "180 values True or False"),
    ],
)
def test_what_chooses_no_rows(subset, kind, match):
    with pytest.raises(kind, match=match):
        lmer(FORMULA, S, subset=subset)


def test_labels_of_conditions_and_of_weights_are_matched():
    own, w = S["Days"] > 1, pd.Series(np.linspace(1.0, 2.0, 180))
    shuffled = np.random.default_rng(0).permutation(180)
    expected = lmer(FORMULA, S[own], weights=w[own]).criterion
    for condition in (own, own.iloc[shuffled], own.tolist()):
        for weights in (w, w.iloc[shuffled], w[own], w.to_numpy()):
            assert lmer(FORMULA, S, subset=condition, weights=weights).criterion == expected
    with pytest.raises(DataError, match="`subset` has no value for 7 of the 180 rows"):
        lmer(FORMULA, S, subset=own.rename(index=lambda label: label + 7))


# --- starts


def test_starts_by_name_end_at_the_same_optimum():
    data = load_dataset("grouseticks")
    plain = glmer_nb("TICKS ~ YEAR + (1 | BROOD)", data)
    for start in (
        {"theta": [0.5], "beta": [1.0, 0.0, 0.0], "shape": 2.0},
        {"fixef": plain.params, "dispersion": 5.0},
        {"mu": data["TICKS"] + 0.5},
    ):
        # The criterion is certified to 1e-12 of its fall; sums of 403 terms.
        assert glmer_nb("TICKS ~ YEAR + (1 | BROOD)", data, start=start).criterion == pytest.approx(plain.criterion)
    assert lmer(FORMULA, S, start={"theta": [1.0, 0.0, 1.0]}).criterion == pytest.approx(1743.628271959)


def test_a_start_is_where_the_search_begins():
    """No more evaluations from the optimum, the first of them lower than that from moments."""
    data = load_dataset("grouseticks")
    plain = glmer("TICKS ~ YEAR + (1 | BROOD)", data, "poisson")
    again = plain.update(start={"theta": plain.theta, "beta": plain.params})
    assert len(again.opt_log) <= len(plain.opt_log)
    assert again.opt_log["criterion"].iloc[0] < plain.opt_log["criterion"].iloc[0]


@pytest.mark.parametrize(
    ("start", "match"),
    [
        ({"betas": [1.0]}, "Did you mean 'beta'"),
        ({"beta": [1.0]}, "3 finite numbers"),
        ({"mu": np.zeros(403)}, "end of their range"),
        ({"shape": 1.0}, "no dispersion"),
        ({"mu": np.ones(403), "beta": [0.0, 0.0, 0.0]}, "one of them"),
    ],
)
def test_starts_that_are_none(start, match):
    with pytest.raises(OptionError, match=match):
        glmer("TICKS ~ YEAR + (1 | BROOD)", load_dataset("grouseticks"), "poisson", start=start)


def test_a_linear_model_starts_from_theta():
    with pytest.raises(OptionError, match="from which the fixed effects and sigma follow"):
        lmer(FORMULA, S, start={"beta": [250.0, 10.0]})


# --- optimisers


@pytest.mark.parametrize("name", ["Nelder-Mead", "bobyqa", "nlminb", "BFGS", "Powell"])
def test_optimisers_by_name_have_the_same_certificate(name):
    fit = lmer(FORMULA, S, control={"optimizer": name})
    assert fit.certificate.converged
    # As many digits as are printed.
    assert fit.criterion == pytest.approx(1743.628271959, abs=1e-8)
    wine = clmm("rating ~ temp + (1 | judge)", load_dataset("wine"), control={"optimizer": name})
    usual = clmm("rating ~ temp + (1 | judge)", load_dataset("wine"))
    assert wine.certificate.converged
    assert wine.criterion == pytest.approx(usual.criterion, abs=1e-8)


def test_a_named_optimiser_hands_over_its_end():
    """The package's own steps begin where it stopped, so that few are left."""
    rows = S.iloc[:137]
    usual = lmer(FORMULA, rows)
    found = lmer(FORMULA, rows, control={"optimizer": "BFGS"})
    # BFGS stops at a gradient of 1e-6.
    assert found.opt_log["criterion"].iloc[0] == pytest.approx(usual.criterion, abs=1e-6)
    assert usual.opt_log["criterion"].iloc[0] > usual.criterion + 1e-3


def test_optimisers_that_are_none():
    with pytest.raises(OptionError, match="Did you mean 'Powell'"):
        lmer(FORMULA, S, control={"optimizer": "powell"})
    with pytest.raises(OptionError, match="own steps only"):
        lmer("Reaction ~ Days", S, residual="ar1(Days | Subject)", control={"optimizer": "BFGS"})


# --- checks


def test_warnings_by_name():
    with pytest.warns(RankWarning):
        lmer(DEPENDENT, S)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit = lmer(DEPENDENT, S, control={"check": {"rank": "ignore"}})
        assert fit.update(reml=False).n_obs == 180
        lmer(DEPENDENT, S, control={"check": {"check.rankX": "silent.drop.cols"}, "max_evaluations": 100})
    with pytest.raises(DesignError, match="makes an error of it"):
        lmer(DEPENDENT, S, control={"check": {"rank": "stop"}})


def test_singular_fits_are_said_where_that_is_asked_for():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert lmer(*SINGULAR).is_singular
        lmer(FORMULA, S, control={"check": {"singular": "stop"}})
    with pytest.warns(Lme4Warning, match="singular"):
        lmer(*SINGULAR, control={"check": {"conv.singular": "warning"}})
    with pytest.raises(DesignError, match="singular"):
        lmer(*SINGULAR, control={"check": {"singular": "stop"}})


@pytest.mark.parametrize(
    ("check", "match"),
    [
        ({"nobs.vs.nlev": "ignore"}, "not identified"),
        ({"singularity": "stop"}, "Did you mean 'singular'"),
        ({"rank": "off"}, "'ignore', 'warning' or 'stop'"),
        ("ignore", "give a dict"),
    ],
)
def test_checks_that_are_none(check, match):
    with pytest.raises(OptionError, match=match):
        lmer(FORMULA, S, control={"check": check})


# --- families and functions of a formula


def test_a_negative_binomial_with_a_known_shape():
    """glmmTMB 1.1.5, nbinom2 with betad mapped to log(1.5)."""
    data = load_dataset("grouseticks")
    fit = glmer("TICKS ~ YEAR + (1 | BROOD)", data, "negative.binomial(theta = 1.5)")
    # The printed digits.
    assert fit.log_likelihood == pytest.approx(-927.8966640522, abs=1e-7)
    assert fit.params.to_numpy() == pytest.approx([0.4979442881, 1.3183569534, -0.9254021946], abs=1e-7)
    assert (fit.n_params, fit.dispersion, fit.family) == (4, 1.0, "nbinomial(1.5)")
    free = glmer_nb("TICKS ~ YEAR + (1 | BROOD)", data)
    held = glmer("TICKS ~ YEAR + (1 | BROOD)", data, f"nbinomial({free.dispersion:.17g})")
    # The same optimum in one parameter less.
    assert held.criterion == pytest.approx(free.criterion, abs=1e-6)
    assert held.predict().to_numpy() == pytest.approx(free.predict().to_numpy(), rel=1e-5)
    pd.testing.assert_frame_equal(held.simulate(1, seed=1), free.simulate(1, seed=1))
    rows = {"type": "deviance"}
    assert held.residuals(**rows).to_numpy() == pytest.approx(free.residuals(**rows).to_numpy(), rel=1e-4)
    with pytest.raises(OptionError, match="gives no shape"):
        glmer("TICKS ~ YEAR + (1 | BROOD)", data, "nbinomial(-1)")


def test_the_square_root_link_of_gaussian_responses():
    """glmmTMB 1.1.5 from a start near its optimum."""
    fit = glmer("Reaction ~ Days + (1 | Subject)", S, "gaussian", link="sqrt")
    assert fit.log_likelihood == pytest.approx(-893.0268729051, abs=1e-7)
    # glmmTMB stops at a gradient of 1e-3 or so.
    assert fit.params.to_numpy() == pytest.approx([15.8182323045, 0.3111709844], rel=1e-6)
    assert fit.sigma == pytest.approx(30.0433737417, rel=1e-6)


def test_the_logit_link_of_gaussian_responses():
    """glmmTMB's optimum is good to 1e-7; its standard errors are those of a Hessian by differences."""
    wanted = json.loads((REFERENCE / "gaussian_logit.json").read_text(encoding="utf-8"))
    data = S.assign(p=(S["Reaction"] - 150.0) / 400.0)
    fit = glmer("p ~ Days + (1 | Subject)", data, "gaussian", link="logit")
    assert fit.log_likelihood == pytest.approx(wanted["log_likelihood"], abs=1e-8)
    assert fit.params.to_numpy() == pytest.approx(wanted["beta"], rel=1e-6)
    assert fit.bse.to_numpy() == pytest.approx(wanted["std_error"], rel=1e-5)
    assert [fit.theta[0], fit.sigma] == pytest.approx([wanted["sd"], wanted["sigma"]], rel=1e-6)
    # Means outside 0 .. 1 do not exist: rows near and beyond the ends are met as far as they can be.
    wide = glmer("y ~ Days + (1 | Subject)", data.assign(y=2.0 * data["p"] - 0.3), "gaussian", link="logit")
    assert wide.converged
    assert wide.fittedvalues.between(0.0, 1.0).all()


@pytest.fixture(scope="module")
def groups():
    rng = np.random.default_rng(1)
    g = np.repeat(np.arange(20), 6)
    x = rng.normal(size=120) + rng.normal(size=20)[g]
    data = pd.DataFrame({"g": g, "x": x, "y": x + rng.normal(size=20)[g] + rng.normal(size=120)})
    m = data.groupby("g")["x"].transform("mean")
    return data.assign(m=m, w=data["x"] - m)


def test_effects_within_and_between_groups(groups):
    fit = lmer("y ~ within(x, g) + between(x, g) + (1 | g)", groups)
    hand = lmer("y ~ w + m + (1 | g)", groups)
    assert fit.params.to_numpy() == pytest.approx(hand.params.to_numpy())
    assert fit.criterion == pytest.approx(hand.criterion)
    # Groups of the fit keep their means; a new one has that of its rows.
    new = groups.head(3).assign(x=[5.0, 6.0, 7.0])
    expected = hand.predict(new.assign(w=new["x"] - new["m"]))
    assert fit.predict(new).to_numpy() == pytest.approx(expected.to_numpy())
    other = new.assign(g=99)
    expected = hand.predict(other.assign(m=6.0, w=other["x"] - 6.0), include_random=False)
    assert fit.predict(other, include_random=False).to_numpy() == pytest.approx(expected.to_numpy())
    # A row that moves leaves its group where it is.
    slope = lme4py.Margins.linear_scale(fit).dydx("x").to_frame()["estimate"].iloc[0]
    assert slope == pytest.approx(fit.params["within(x, g)"])


def test_means_of_groups_ignore_rows_that_are_not_used(groups):
    data = groups.assign(x=np.where(groups.index == 3, np.nan, groups["x"]))
    kept = data.dropna(subset=["x"])
    fit = lmer("y ~ between(x, g) + (1 | g)", data)
    hand = lmer("y ~ m + (1 | g)", kept.assign(m=kept.groupby("g")["x"].transform("mean")))
    assert fit.criterion == pytest.approx(hand.criterion)


def test_models_of_statsmodels_in_one_table():
    smf = pytest.importorskip("statsmodels.formula.api")
    line, mean = (smf.ols(f"Reaction ~ {x}", S).fit() for x in ("Days", "1"))
    mixed = lmer("Reaction ~ Days + (1 | Subject)", S)
    table = lme4py.anova(mixed, line, mean)
    # R: anova(lmer, lm); the log-likelihoods of lm.
    assert table["logLik"].to_numpy() == pytest.approx([mean.llf, line.llf, -897.0393], abs=1e-4)
    assert table["chi2"].to_numpy()[1:] == pytest.approx([60.7556, 106.2142], abs=1e-3)
    assert table.index.tolist()[:2] == ["Reaction ~ 1", "Reaction ~ Days"]
    one = lme4py.lrtest(line, mixed.update(reml=False))
    assert table["p_value"].iloc[2] == pytest.approx(one.p_value)
    with pytest.raises(OptionError, match="none of the models"):
        lme4py.anova(line, mean)
