"""Names, ranks and cells: what the data determine of the fixed effects, against R.

cells.json is made by tests/reference/make/cells.R: columns that lme4 drops, and means of emmeans where cells are empty
and factors nested.
"""

from __future__ import annotations

import json
import warnings
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
from reference_data import REFERENCE

import lme4py
from lme4py import Margins, RankWarning

CELLS: dict[str, Any] = json.loads((REFERENCE / "cells.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    table = pd.DataFrame(CELLS["data"])
    return table.assign(count=rng.poisson(np.exp(0.3 * table["y"] - 0.5)), grade=pd.cut(table["y"], 4, labels=False))


@cache
def quiet_fit(formula: str, kind: str = "lmer") -> Any:
    table = pd.DataFrame(CELLS["data"])
    rng = np.random.default_rng(0)
    table["count"], table["grade"] = rng.poisson(np.exp(0.3 * table["y"] - 0.5)), pd.cut(table["y"], 4, labels=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RankWarning)
        if kind == "glmer":
            return lme4py.glmer(f"count ~ {formula} + (1 | g)", table, "poisson")
        if kind == "clmm":
            return lme4py.clmm(f"grade ~ {formula} + (1 | g)", table)
        return lme4py.lmer(f"y ~ {formula} + (1 | g)", table)


# Names --------------------------------------------------------------------------------------------------------


def named(**columns: str) -> pd.DataFrame:
    """Data in which x, z and w have other names."""
    rng = np.random.default_rng(2)
    n = 60
    table = pd.DataFrame(rng.normal(size=(n, 4)), columns=["y", "x", "z", "w"])
    table["f"], table["g"] = rng.choice(list("abc"), n), np.repeat(np.arange(10), 6)
    return table.rename(columns=columns)


@pytest.mark.parametrize(
    ("formula", "columns", "message"),
    [
        (
            "y ~ Intercept + (1 | g)",
            {"x": "Intercept"},
            "the fixed effects hold a column that is called",
        ),
        ("y ~ 0 + Intercept + (1 | g)", {"x": "Intercept"}, "called like the intercept"),
        ("y ~ _cons + (1 | g)", {"x": "_cons"}, "'_cons'; rename that column"),
        ("y ~ `(Intercept)` + (1 | g)", {"x": "(Intercept)"}, "called like the intercept"),
        ("y ~ z + (Intercept | g)", {"x": "Intercept"}, r"^\(Intercept \| g\) holds a column that is called like"),
        ("y ~ f + `f[T.b]` + (1 | g)", {"x": "f[T.b]"}, r"would be called 'f\[T.b\]': \[T.b\] of 'f' and 'f\[T.b\]'"),
        ("y ~ f + (`f[T.b]` | g)", {"x": "f[T.b]"}, r"two different columns of the model would be called 'f\[T.b\]'"),
        ("y ~ x + (f + `f[T.c]` | g)", {"z": "f[T.c]"}, r"'f\[T.c\]'"),
        ("y ~ x * z + `x:z` + (1 | g)", {"w": "x:z"}, "'x' times 'z'"),
    ],
)
def test_names_that_two_coefficients_would_share(formula: str, columns: dict[str, str], message: str) -> None:
    with pytest.raises(lme4py.DataError, match=message):
        lme4py.lmer(formula, named(**columns))


def test_names_of_dispersion_and_thresholds() -> None:
    counts = named(w="dispersion").assign(y=np.arange(60) % 5)
    with pytest.raises(lme4py.DataError, match="two parameters of the model would be called 'dispersion'"):
        lme4py.glmer_nb("y ~ dispersion + (1 | g)", counts)
    with pytest.raises(lme4py.DataError, match="'dispersion'"):
        lme4py.menbreg(counts, "y", ["dispersion"], "g")
    grades = named(w="1|2").assign(y=1 + np.arange(60) % 3)
    with pytest.raises(lme4py.DataError, match=r"'1\|2'"):
        lme4py.clmm("y ~ `1|2` + (1 | g)", grades)
    with pytest.raises(lme4py.DataError, match=r"two parameters of the model would be called 'sd\(_cons\)'"):
        lme4py.mixed(named(w="sd(_cons)"), "y", ["sd(_cons)"], "g")
    with pytest.raises(lme4py.DataError, match="called like the intercept"):
        lme4py.mixed(named(w="_cons"), "y", ["_cons"], "g")
    # A model without a dispersion may have such a column, and a response or a group may be called anything.
    assert "dispersion" in lme4py.lmer("y ~ dispersion + (1 | g)", named(w="dispersion")).conf_int().index
    assert lme4py.lmer("Intercept ~ x + (1 | _cons)", named(y="Intercept", g="_cons")).params.index[1] == "x"


def test_a_column_called_like_an_alias_of_a_parameter() -> None:
    """lme4 calls the residual standard deviation sigma; the coefficient of a column of that name comes first."""
    result = lme4py.lmer("y ~ sigma + (1 | g)", named(x="sigma"))
    assert list(result.conf_int(parm="sigma").index) == ["sigma"]
    assert list(result.conf_int(parm="sd(Residual)").index) == ["sd(Residual)"]


# Ranks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("formula", "dropped"), list(zip(CELLS["designs"], CELLS["dropped"], strict=True)))
def test_the_columns_that_lme4_drops(formula: str, dropped: list[int], data: pd.DataFrame) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        design = lme4py.lformula(f"y ~ {formula} + (1 | g)", data)
    count = len(design.x_names) + len(design.dropped)
    assert [j for j in range(count) if j not in design.recipe.kept] == dropped
    assert [w.category for w in caught] == [RankWarning] * bool(dropped)
    assert all(name in str(caught[0].message) for name in design.dropped)
    if dropped:
        # The place of the warning is the user's.
        assert caught[0].filename == __file__


def powers(origin: float) -> pd.DataFrame:
    rng = np.random.default_rng(4)
    g = np.repeat(np.arange(20), 10)
    t = np.tile(np.arange(10), 20) + rng.integers(0, 3, 200)
    y = 1 + 0.3 * t - 0.05 * t**2 + 0.004 * t**3 + rng.normal(size=20)[g] + rng.normal(size=200)
    return pd.DataFrame({"y": y, "g": g, "year": origin + t})


@pytest.mark.parametrize("random", ["1", "year", "year + I(year^2)"])
def test_a_cubic_in_years_does_not_depend_on_the_origin(random: str) -> None:
    formula = f"y ~ year + I(year^2) + I(year^3) + ({random} | g)"
    plain = lme4py.lmer(formula, powers(0.0), reml=False)
    for origin in (2000.0, 10_000.0):
        shifted = lme4py.lmer(formula, powers(origin), reml=False)
        assert shifted.fit.design.dropped == ()
        # The cubes have 16 digits and differ in the last 10 (the last 8).
        assert shifted.log_likelihood == pytest.approx(plain.log_likelihood, abs=1e-6)
        assert shifted.params["I(year^3)"] == pytest.approx(plain.params["I(year^3)"], rel=1e-6)
        assert shifted.bse["I(year^3)"] == pytest.approx(plain.bse["I(year^3)"], rel=1e-5)


def test_a_column_without_digits_is_left_out_with_a_warning() -> None:
    with pytest.warns(RankWarning, match=r"I\(year\^3\) is left out"):
        lme4py.lmer("y ~ year + I(year^2) + I(year^3) + (1 | g)", powers(1e6))


# Cells --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", CELLS["tables"], ids=lambda t: f"{t['formula'][0]}, {t['specs'][0]}")
def test_means_where_cells_are_empty(table: dict[str, Any], data: pd.DataFrame) -> None:
    """emmeans: empty cells of crossed factors have no mean, nested factors are averaged over the cells that exist."""
    fit = quiet_fit(table["formula"][0].removeprefix("y ~ "))
    levels = {name: sorted(set(values)) for name, values in table["keys"].items()}
    result = Margins.linear_scale(fit, at="balanced").predict(atexog=levels)
    found = result.to_frame().set_index(list(levels))
    keys = list(zip(*table["keys"].values(), strict=True))
    found = found.loc[[key[0] if len(key) == 1 else key for key in keys]]
    for ours, theirs in (("estimate", "estimate"), ("std_error", "se")):
        expected = np.array(table[theirs], dtype=float)
        # Both optima are certified to 1e-12 of the criterion; 12 digits were written.
        np.testing.assert_allclose(found[ours], expected, rtol=0, atol=1e-7)
    lost = int(np.isnan(result.value).sum())
    assert (f"{lost} of {len(result)} estimates cannot be estimated" in " ".join(result.notes)) == bool(lost)


@pytest.mark.parametrize("kind", ["lmer", "glmer", "clmm"])
def test_predictions_of_an_empty_cell(kind: str, data: pd.DataFrame) -> None:
    """They would depend on the coding: another first level gives another number."""
    fit = quiet_fit("f * h + x", kind)
    new = pd.DataFrame({"f": ["a", "b", "b"], "h": ["v", "v", "u"], "x": [0.0, 0.0, 1.0]})
    with pytest.warns(RankWarning, match="1 of 3 predictions cannot be estimated and are NaN"):
        found = np.asarray(fit.predict(new, include_random=False))
    rows = np.isnan(found).reshape(3, -1).all(axis=1)
    assert rows.tolist() == [False, True, False]
    assert not np.isnan(found[[0, 2]]).any()
    with pytest.warns(RankWarning, match="cannot be estimated"):
        limits = fit.predict(new, include_random=False, interval="confidence")
    assert np.isnan(np.asarray(limits)).reshape(3, -1)[1].all()
    # The rows of the fit can all be predicted, by name too; so says a slim copy.
    np.testing.assert_allclose(fit.predict(data), fit.predict(), rtol=1e-9)
    with pytest.warns(RankWarning):
        assert np.isnan(np.asarray(fit.slim().predict(new, include_random=False))).reshape(3, -1)[1].all()


def test_predictions_do_not_depend_on_the_coding(data: pd.DataFrame) -> None:
    new = pd.DataFrame({"f": list("abcd") * 3, "h": np.repeat(["u", "v", "w"], 4), "x": 0.3})
    values = []
    for contrasts in ("contr.treatment", "contr.sum", "contr.helmert"):
        with pytest.warns(RankWarning):
            fit = lme4py.lmer("y ~ f * h + x + (1 | g)", data, contrasts={"f": contrasts, "h": contrasts})
        with pytest.warns(RankWarning, match="2 of 12"):
            values.append(fit.predict(new, include_random=False).to_numpy())
    # The same model: rounding, and optima good to 1e-9.
    np.testing.assert_allclose(values[1], values[0], rtol=1e-7)
    np.testing.assert_allclose(values[2], values[0], rtol=1e-7)


def test_a_copy_that_new_data_contradict(data: pd.DataFrame) -> None:
    table = data.assign(double=2 * data["x"])
    with pytest.warns(RankWarning, match="double is left out"):
        fit = lme4py.lmer("y ~ x + double + (1 | g)", table)
    assert not fit.predict(table, include_random=False).isna().any()
    with pytest.warns(RankWarning, match="1 of 2"):
        found = fit.predict(pd.DataFrame({"x": [1.0, 1.0], "double": [2.0, 2.5]}), include_random=False)
    assert found.isna().tolist() == [False, True]


@pytest.mark.parametrize("kind", ["lmer", "glmer", "clmm"])
def test_what_can_be_estimated_in_an_empty_cell(kind: str) -> None:
    """The effect of x is the same in every cell: on the linear predictor it is known there too."""
    fit = quiet_fit("f * h + x", kind)
    session = Margins.link_scale(fit)
    effect = session.contrasts([{"f": "b", "h": "v", "x": 1}, {"f": "b", "h": "v", "x": 0}], {"x": [1, -1]})
    np.testing.assert_allclose(effect.estimate, fit.params["x"], rtol=1e-10)
    np.testing.assert_allclose(effect.std_error, fit.bse["x"], rtol=1e-10)
    assert session.dydx("x", atexog={"f": ["b"], "h": ["v"]}).estimate[0] == pytest.approx(fit.params["x"], rel=1e-10)
    cells = session.predict(atexog={"f": ["a", "b"], "h": ["u", "v"]})
    assert np.isnan(cells.estimate).tolist() == [False, False, False, True]
    scale = Margins.linear_scale(fit)
    if kind != "lmer":
        # On the scale of the response the effect depends on where it starts.
        curved = scale.contrasts([{"f": "b", "h": "v", "x": 1}, {"f": "b", "h": "v", "x": 0}], {"x": [1, -1]})
        assert np.isnan(curved.estimate).all()


@pytest.mark.parametrize("options", [{"method": "simulation", "n_sim": 50}, {"random": "integrate"}, {"at": "mean"}])
def test_sessions_of_all_kinds_have_the_same_cells(options: dict[str, Any]) -> None:
    found = Margins.linear_scale(quiet_fit("f * h + x", "glmer"), **options).predict(
        atexog={"f": ["a", "b"], "h": ["u", "v"]}
    )
    frame = found.to_frame()
    for name in ("estimate", "std_error", "ci_lower", "p_value"):
        assert frame[name].isna().tolist() == [False, False, False, True]
    assert "1 of 4 estimates cannot be estimated" in found.summary()


def test_adjustments_and_joint_tests_count_what_there_is() -> None:
    session = Margins.linear_scale(quiet_fit("f * h + x"))
    known = session.predict(atexog={"f": ["a", "b"], "h": ["u"]})
    mixed = session.predict(atexog={"h": ["u", "v"], "f": ["b"]})
    assert np.isnan(mixed.estimate).tolist() == [False, True]
    for method in ("bonferroni", "holm", "sidak", "fdr", "mvt"):
        adjusted = mixed.adjust(method)
        # One estimate is there: nothing to adjust for.
        assert adjusted.p_values[0] == pytest.approx(mixed.p_values[0], rel=1e-6)
        assert np.isnan(adjusted.p_values[1])
        assert np.isnan(adjusted.limits(0.95)[0][1])
    assert known.adjust("bonferroni").p_values[0] == pytest.approx(2 * known.p_values[0], rel=1e-10)
    both = session.predict(atexog={"f": ["a", "b"], "h": ["u", "v"]})
    three = session.predict(atexog={"f": ["a", "b"], "h": ["u"]}).value.size + 1
    assert both.joint_test()["df"] == three
