"""Several responses: against dense algebra (tests/reference/make/several.R), and against the long form by hand."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from reference_data import REFERENCE, load_reference

import lme4py
from lme4py.errors import DataError, FormulaError, Lme4Error, OptionError

STORED = json.loads((REFERENCE / "several.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def data():
    table = load_reference("mvn80")
    table["arm"] = np.where(table["id"].cat.codes % 2 == 0, "a", "b")
    return table


@pytest.fixture(scope="module")
def long(data):
    table = data.assign(row=range(len(data)))
    kept = ["x", "id", "occ", "arm", "row"]
    melted = table.melt(id_vars=kept, value_vars=["y1", "y2"], var_name="response", value_name="value")
    return melted.sort_values(["row", "response"])


@pytest.fixture(scope="module")
def fit(data):
    return lme4py.lmer("mvbind(y1, y2) ~ x * arm + (1 | id)", data)


# --- numbers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "formula", "reml"),
    [
        ("mvn2_reml", "mvbind(y1, y2) ~ x + (1 | id)", True),
        ("mvn3_ml", "mvbind(y1, y2, y3) ~ x + (1 | id)", False),
    ],
)
def test_estimates_are_those_of_dense_algebra(data, name, formula, reml):
    fit, stored = lme4py.lmer(formula, data, reml=reml), STORED[name]
    assert fit.converged
    assert fit.n_obs == stored["nobs"]
    # Two certified optima of one function.
    assert fit.log_likelihood == pytest.approx(stored["logLik"], abs=1e-8)
    names = [name.replace("trait", "").replace(":", ": ") for name in stored["names"]]
    names = [name if ": " in name else f"{name}: Intercept" for name in names]
    table = fit.coef_table().loc[names]
    # Their optimiser stops where the gradient is 1e-6 or so.
    assert table["estimate"].to_numpy() == pytest.approx(stored["fixef"], abs=1e-7)
    assert table["std_error"].to_numpy() == pytest.approx(stored["se"], rel=1e-6)
    # Numerical second derivatives.
    assert table["df"].to_numpy() == pytest.approx(stored["df"], rel=1e-5)
    assert fit.fit.covariances[0] == pytest.approx(np.array(stored["G"]), abs=1e-6)
    assert fit.residual_covariance().to_numpy() == pytest.approx(np.array(stored["R"]), abs=1e-6)


def test_is_the_long_form_by_hand(data, long, fit):
    right = "0 + response + response:x + response:arm + response:x:arm"
    hand = lme4py.lmer(f"value ~ {right} + (0 + response | id)", long, residual="us(response | row)")
    # The same numbers by the same steps: rounding only.
    assert fit.log_likelihood == pytest.approx(hand.log_likelihood, abs=1e-9)
    assert fit.params.to_numpy() == pytest.approx(hand.params.to_numpy(), abs=1e-9)
    assert fit.cov_params().to_numpy() == pytest.approx(hand.cov_params().to_numpy(), rel=1e-9, abs=1e-12)
    assert fit.fit.covariances[0] == pytest.approx(hand.fit.covariances[0], rel=1e-8)
    assert fit.ranef().to_numpy() == pytest.approx(hand.ranef().to_numpy(), abs=1e-8)
    for ddf in ("satterthwaite", "kenward-roger"):
        own, other = fit.coef_table(ddf), hand.coef_table(ddf)
        assert own.to_numpy(dtype=float) == pytest.approx(other.to_numpy(dtype=float), rel=1e-7)
    wide = fit.fittedvalues
    whole = long.loc[long["value"].notna(), ["row", "response"]].assign(fitted=hand.fittedvalues)
    shaped = whole.pivot(index="row", columns="response", values="fitted")
    assert wide.to_numpy() == pytest.approx(shaped.to_numpy(), abs=1e-8, nan_ok=True)


def test_slopes_and_other_structures_are_the_long_form(data, long):
    for wide, hand in (
        ("(x | id)", "(0 + response + response:x | id)"),
        ("(1 || id)", "diag(0 + response | id)"),
        ("homcs(1 | id)", "homcs(0 + response | id)"),
    ):
        own = lme4py.lmer(f"mvbind(y1, y2) ~ x + {wide}", data, reml=False)
        other = lme4py.lmer(
            f"value ~ 0 + response + response:x + {hand}", long, reml=False, residual="us(response | row)"
        )
        assert own.log_likelihood == pytest.approx(other.log_likelihood, abs=1e-9)


def test_responses_that_are_independent_are_two_models(data):
    """Random effects and residuals without a correlation: with y2 far away in another half of the rows it is not known,
    so here both correlations are held by data whose estimate is compared with the sum of two fits."""
    own = lme4py.lmer("mvbind(y1, y2) ~ x + (1 | id)", data, reml=False)
    apart = [lme4py.lmer(f"{y} ~ x + (1 | id)", data, reml=False).log_likelihood for y in ("y1", "y2")]
    # Correlations can only raise the likelihood; without them it is the sum.
    assert own.log_likelihood > sum(apart) + 10.0
    held = lme4py.lmer(
        "mvbind(y1, y2) ~ x + (1 || id)",
        data.assign(y2=data.groupby("occ")["y2"].transform(lambda y: y.to_numpy()[::-1])),
        reml=False,
    )
    assert abs(held.residual_correlation().iloc[0, 1]) < 0.3


def test_without_an_intercept_the_first_factor_has_all_levels(data):
    fit = lme4py.lmer("mvbind(y1, y2) ~ 0 + arm + factor(occ) + (1 | id)", data)
    one = lme4py.lmer("y1 ~ 0 + arm + factor(occ) + (1 | id)", data)
    names = [name.split(": ", 1)[1] for name in fit.params.index if name.startswith("y1: ")]
    assert names == one.params.index.tolist()
    same = lme4py.lmer("mvbind(y1, y2) ~ arm + factor(occ) + (1 | id)", data)
    # The same space of columns; REML of another basis differs by a constant of the columns, ML does not.
    values = [f.update(reml=False).log_likelihood for f in (fit, same)]
    assert values[0] == pytest.approx(values[1], abs=1e-8)


def test_data_weights_and_subset_come_in_every_form(data):
    import polars as pl

    formula = "mvbind(y1, log(y3 + 10)) ~ poly(x, 2) + (1 | id)"
    weights = np.linspace(1.0, 2.0, len(data))
    expected = lme4py.lmer(formula, data.assign(w=weights), weights="w").log_likelihood
    shuffled = pd.Series(weights, index=data.index)[::-1]
    table = pl.from_pandas(data.assign(id=data["id"].astype(str), w=weights))
    for given in (
        lme4py.lmer(formula, data, weights=weights),
        lme4py.lmer(formula, data, weights=shuffled),
        lme4py.lmer(formula, table, weights="w"),
    ):
        # The same rows.
        assert given.log_likelihood == pytest.approx(expected, abs=1e-9)
    cut = lme4py.lmer("mvbind(y1, y2) ~ x + (1 | id)", data, subset="x > 0")
    assert cut.n_obs == data.loc[data["x"] > 0, ["y1", "y2"]].notna().to_numpy().sum()


def test_occasions(data):
    expected = lme4py.lmer("mvbind(y1, y2) ~ x + (1 | id)", data).log_likelihood
    apart = pd.concat([data.assign(y2=np.nan), data.assign(y1=np.nan)], ignore_index=True)
    for rows, occasion in ((data, "occ"), (data, "id:occ"), (data, "id/occ"), (apart, "id:occ")):
        found = lme4py.lmer("mvbind(y1, y2) ~ x + (1 | id)", rows, occasion=occasion)
        # The same long rows in another order.
        assert found.log_likelihood == pytest.approx(expected, abs=1e-9)
    assert "the unit is id:occ" in str(lme4py.lmer("mvbind(y1, y2) ~ x + (1 | id)", data, occasion="occ").summary())


# --- what is refused --------------------------------------------------------------------------------------------------

BAD = {
    "one response": ("mvbind(y1) ~ x + (1 | id)", {}, FormulaError, "two responses"),
    "twice": ("mvbind(y1, y1) ~ x + (1 | id)", {}, FormulaError, "y1 twice"),
    "on the right": ("mvbind(y1, y2) ~ y1 + (1 | id)", {}, FormulaError, "right of the tilde"),
    "offset()": ("mvbind(y1, y2) ~ offset(x) + (1 | id)", {}, FormulaError, "subtract it"),
    "offset=": ("mvbind(y1, y2) ~ x + (1 | id)", {"offset": "x"}, OptionError, "subtract it"),
    "residual": ("mvbind(y1, y2) ~ x + (1 | id)", {"residual": "ar1(1 | id)"}, OptionError, "residual="),
    "smooth": ("mvbind(y1, y2) ~ s(x) + (1 | id)", {}, FormulaError, "smooths"),
    "times": ("mvbind(y1, y2) ~ x + ar1(0 + factor(occ) | id)", {}, FormulaError, r"ar1\(\)"),
    "text": ("mvbind(y1, arm) ~ x + (1 | id)", {}, DataError, "'arm' is not numeric"),
    "no column": ("mvbind(y1, y4) ~ x + (1 | id)", {}, DataError, "'y4' not found"),
    "no occasion": ("mvbind(y1, y2) ~ x + (1 | id)", {"occasion": "visit"}, OptionError, "'visit'"),
    "occasions repeated": ("mvbind(y1, y2) ~ x + (1 | id)", {"occasion": "arm"}, DataError, "more than once"),
    "occasion of one": ("y1 ~ x + (1 | id)", {"occasion": "occ"}, OptionError, "several responses"),
    "sigma held": ("mvbind(y1, y2) ~ x + (1 | id)", {"fix": {"sigma": 1.0}}, OptionError, "sigma"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_by_name(data, case):
    formula, options, kind, words = BAD[case]
    with pytest.raises(kind, match=words):
        lme4py.lmer(formula, data, **options)


def test_responses_that_never_meet_are_refused(data):
    half = data.assign(y1=data["y1"].where(data.index % 2 == 0), y2=data["y2"].where(data.index % 2 == 1))
    with pytest.raises(DataError, match="never observed in the same row"):
        lme4py.lmer("mvbind(y1, y2) ~ x + (1 | id)", half)
    with pytest.raises(DataError, match="'y2' has no value"):
        lme4py.lmer("mvbind(y1, y2) ~ x + (1 | id)", data.assign(y2=np.nan))


def test_other_doors_refuse_several_responses(data):
    for call in (
        lambda: lme4py.clmm("mvbind(y1, y2) ~ x + (1 | id)", data),
        lambda: lme4py.mmrm("mvbind(y1, y2) ~ x + us(occ | id)", data),
        lambda: lme4py.lformula("mvbind(y1, y2) ~ x + (1 | id)", data),
        lambda: lme4py.lmer("mvbind(y1, y2) ~ x + (1 | id)", "rows.csv"),
    ):
        with pytest.raises(Lme4Error):
            call()


def test_a_column_called_response(data):
    named = data.assign(response=data["arm"])
    with pytest.raises(FormulaError, match="rename it"):
        lme4py.lmer("mvbind(y1, y2) ~ response + (1 | id)", named)
    fit = lme4py.lmer("mvbind(y1, y2) ~ x + (1 | id)", named)
    # A column of that name that the model does not use is no long form.
    assert list(fit.predict(named).columns) == ["y1", "y2"]
