"""Influence of rows and groups: lme4's numbers, and deletion by brute force."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from dense_models import changed
from influence_models import (
    FORMULAS,
    MODELS,
    dense_covariance,
    having,
    made_up,
    made_up_fit,
    reference_result,
)
from numpy.testing import assert_allclose
from reference_data import load_reference

import lme4py
from lme4py.errors import DataError, Lme4Warning, OptionError
from lme4py.fits.answers import working
from lme4py.fits.linear.steps import lmm_fit
from lme4py.inference.diagnostics.influence import influence
from lme4py.inference.refits import deletion

MEASURES = {"hatvalues": "leverage", "cooks_distance": "cooks_distance", "rstudent": "rstudent"}


@pytest.mark.parametrize("name", having("influence"))
@pytest.mark.parametrize("block", MEASURES)
def test_rows_as_lme4(name: str, block: str) -> None:
    found = getattr(reference_result(name).influence(), MEASURES[block])
    # Stored with ten digits; both optima are good to about 1e-9.
    assert_allclose(found, MODELS[name]["influence"][block], rtol=1e-6, atol=1e-8)


GROUPS = [(name, key) for name in having("influence") for key in MODELS[name]["influence"] if key.startswith("delete_")]


@pytest.mark.parametrize("group", ["plate", "sample", "day"])
def test_updates_and_factorisations_are_one(group: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = lme4py.load_dataset("Penicillin")
    data["day"] = np.arange(len(data)) % 37
    # Without day 36 there is no "late"; without any other group everything can be estimated.
    data["late"] = (data["day"] == 36).astype(float)
    result = lme4py.lmer("diameter ~ late + (1 | plate) + (1 | sample)", data)
    label = data["day"].to_numpy() if group == "day" else group
    found = {}
    for few, columns in ((0, 256), (10**6, 256), (10**6, 5)):
        monkeypatch.setattr(working, "_FEW_ROWS", few)
        monkeypatch.setattr(deletion, "_COLUMNS", columns)
        with pytest.warns(Lme4Warning, match="36") if group == "day" else nullcontext():
            found[few, columns] = result.influence(label)
    expected = found.pop((0, 256))
    for other in found.values():
        # Two ways through a factor whose condition is about 100.
        assert_allclose(other.to_frame(), expected.to_frame(), rtol=1e-9, atol=1e-11)
        assert other.failed == expected.failed


@pytest.mark.parametrize(("name", "key"), GROUPS)
def test_groups_refitted_as_lme4(name: str, key: str) -> None:
    expected = MODELS[name]["influence"][key]
    found = reference_result(name).influence(key.removeprefix("delete_"), "refit")
    order = [list(found.fixef.index).index(level) for level in expected["levels"]]
    # The reference refits are tight; lme4's own, from which its measures come, stop at about 1e-6.
    assert_allclose(found.fixef.to_numpy()[order], expected["fixef_tight"], rtol=1e-8)
    assert_allclose(found.cooks_distance.to_numpy()[order], expected["lme4_cooks"], rtol=1e-4)
    assert_allclose(found.dfbetas.to_numpy()[order], expected["lme4_dfbetas"], rtol=1e-3, atol=1e-4)


def without(fit: Any, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """beta, its covariance and sigma by generalised least squares without some rows, relative variances kept."""
    keep = np.setdiff1d(np.arange(fit.design.n_obs), rows)
    V = (dense_covariance(fit) / fit.sigma**2)[np.ix_(keep, keep)]
    X = fit.design.X[keep]
    y = (fit.design.y - (0 if fit.design.offset is None else fit.design.offset))[keep]
    inverse = np.linalg.inv(V)
    phi = np.linalg.inv(X.T @ inverse @ X)
    beta = phi @ X.T @ inverse @ y
    e = y - X @ beta
    sigma2 = float(e @ inverse @ e) / (keep.size - (X.shape[1] if fit.reml else 0))
    return beta, sigma2 * phi, np.sqrt(sigma2)


@pytest.mark.parametrize("name", FORMULAS)
def test_exact_rows(name: str) -> None:
    fit = made_up_fit(name)
    found = influence(fit)
    for row in (0, 17, 149):
        beta, vcov, sigma = without(fit, np.array([row]))
        # Exact algebra on both sides.
        assert_allclose(found.fixef.iloc[row], beta, rtol=1e-9, atol=1e-11)
        assert_allclose(found.dfbetas.iloc[row], (beta - fit.beta) / np.sqrt(np.diag(vcov)), rtol=1e-6, atol=1e-9)
        assert found.sigma.iloc[row] == pytest.approx(sigma, rel=1e-9)
        assert found.covratio.iloc[row] == pytest.approx(np.linalg.det(vcov) / np.linalg.det(fit.vcov), rel=1e-7)


@pytest.mark.parametrize("group", ["g", "c", "s"])
@pytest.mark.parametrize("name", [name for name in FORMULAS if name != "two terms, ML"])
def test_exact_groups(name: str, group: str) -> None:
    """Groups that contain whole random effects, and groups that cut across them."""
    fit = made_up_fit(name)
    labels = made_up()[group]
    found = influence(fit, labels)
    for level in labels.unique()[:3]:
        beta, vcov, sigma = without(fit, np.flatnonzero(labels == level))
        # Exact algebra on both sides.
        assert_allclose(found.fixef.loc[level], beta, rtol=1e-9, atol=1e-11)
        assert found.sigma.loc[level] == pytest.approx(sigma, rel=1e-9)
        assert found.covratio.loc[level] == pytest.approx(np.linalg.det(vcov) / np.linalg.det(fit.vcov), rel=1e-7)
    assert found.leverage.sum() == pytest.approx(influence(fit).leverage.sum(), rel=1e-10)


def refitted(fit: Any, rows: np.ndarray) -> Any:
    """The model fitted again to fewer rows, from nothing."""
    keep = np.setdiff1d(np.arange(fit.design.n_obs), rows)
    design = fit.design

    def cut(values: Any) -> Any:
        return None if values is None else values[keep]

    terms = []
    for term in design.terms:
        levels, codes = np.unique(term.codes[keep], return_inverse=True)
        terms.append(replace(term, codes=codes, values=term.values[keep], levels=tuple(range(levels.size))))
    smaller = changed(
        design,
        y=design.y[keep],
        X=design.X[keep],
        terms=tuple(terms),
        weights=cut(design.weights),
        offset=cut(design.offset),
        keep=np.ones(keep.size, dtype=bool),
        row_labels=pd.RangeIndex(keep.size),
    )
    return lmm_fit(smaller, fit.reml)


@pytest.mark.parametrize("name", ["slopes", "weights", "diagonal", "crossed"])
def test_refits_of_rows(name: str) -> None:
    """All at once (one factor) and one after the other (two), against fits from nothing."""
    fit = made_up_fit(name)
    found = influence(fit, method="refit")
    for row in (3, 77):
        again = refitted(fit, np.array([row]))
        # Two optimisers that stop when the criterion can fall by about 1e-12.
        assert_allclose(found.fixef.iloc[row], again.beta, rtol=1e-5)
        assert found.sigma.iloc[row] == pytest.approx(again.sigma, rel=1e-5)
        assert found.theta is not None
        assert_allclose(found.theta.iloc[row], again.theta, rtol=1e-4, atol=1e-5)
        errors = np.sqrt(np.diag(again.vcov))
        assert_allclose(found.dfbetas.iloc[row], (again.beta - fit.beta) / errors, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "group"), [("slopes", "g"), ("slopes", "s"), ("two terms, ML", "g"), ("nested", "h")])
def test_refits_of_groups(name: str, group: str) -> None:
    fit = made_up_fit(name)
    labels = made_up()[group]
    chosen: Any = group if group in fit.design.n_groups else labels
    found = influence(fit, chosen, "refit")
    level = found.fixef.index[1]
    again = refitted(fit, np.flatnonzero(labels == level))
    # As above.
    assert_allclose(found.fixef.loc[level], again.beta, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("name", "group"), [("slopes", None), ("slopes", "g"), ("crossed", "c"), ("nested", "g")])
def test_one_step_is_nearer_to_the_refit(name: str, group: str | None) -> None:
    fit = made_up_fit(name)
    exact, step, full = (influence(fit, group, method).dfbetas for method in ("exact", "one-step", "refit"))
    far, near = ((table - full).abs().to_numpy().mean() for table in (exact, step))
    assert near < 0.5 * far


def test_singular_fit() -> None:
    result = lme4py.lmer("Yield ~ 1 + (1 | Batch)", load_reference("Dyestuff2"))
    found = result.influence()
    y = load_reference("Dyestuff2")["Yield"].to_numpy()
    # Without a variance between batches the leverage is 1/n, and the estimate the mean of the others.
    assert_allclose(found.leverage, 1.0 / 30.0, rtol=1e-10)
    assert_allclose(found.fixef["Intercept"], (y.sum() - y) / 29.0, rtol=1e-12)
    again = result.influence(method="refit")
    assert again.failed == ()
    # Most refits are singular too.
    assert np.median(np.abs(again.dfbeta - found.dfbeta)) < 1e-6


def test_unit_that_alone_determines_a_coefficient() -> None:
    data = made_up().assign(only=lambda d: (np.arange(len(d)) == 5).astype(float))
    fit = lme4py.lmer("y ~ x + only + (1 | g)", data).fit
    for method in ("exact", "refit"):
        with pytest.warns(Lme4Warning, match="without 1 of the 150 units"):
            found = influence(fit, method=method)
        assert found.failed == (5,)
        assert found.dfbeta.loc[5].isna().all()
        assert found.dfbeta.drop(index=5).notna().to_numpy().all()
    with pytest.warns(Lme4Warning, match="without 1 of the 12 units"):
        assert influence(fit, "g").failed == (data["g"][5],)


def test_missing_rows_and_labels() -> None:
    data = made_up().copy()
    data.index = [f"row {i}" for i in range(len(data))]
    data.loc["row 3", "x"] = np.nan
    result = lme4py.lmer("y ~ x + (1 | g)", data)
    found = result.influence()
    assert "row 3" not in found.leverage.index
    assert len(found.leverage) == 149
    by_label = result.influence(data["s"])
    assert by_label.unit == "s"
    # The same groups, given as labels of all rows or of the rows used.
    used = result.influence(data["s"].drop("row 3").to_numpy())
    assert_allclose(by_label.cooks_distance, used.cooks_distance, rtol=1e-12)


def test_no_fixed_effects() -> None:
    result = lme4py.lmer("y ~ 0 + (1 | g)", made_up())
    for method in ("exact", "one-step", "refit"):
        found = result.influence("g", method)
        assert found.dfbeta.shape == (12, 0)
        assert (found.cooks_fixed == 0.0).all()
        assert found.sigma.notna().all()


def test_equal_correlations() -> None:
    """A structure whose parameters are eigenvalues, fitted all at once, against a fit by formula."""
    data = made_up().assign(f=np.random.default_rng(4).integers(0, 3, 150).astype(str))
    formula = "y ~ x + homcs(0 + f | g)"
    found = lme4py.lmer(formula, data).influence("g", "refit")
    again = lme4py.lmer(formula, data[data["g"] != "4"])
    # Two optimisers.
    assert_allclose(found.fixef.loc["4"], again.params, rtol=1e-5)


# --- generalised models -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("group", [None, "g"])
def test_generalised_one_step(group: str | None) -> None:
    result = lme4py.glmer("count ~ x + (1 | g)", made_up(), "poisson")
    step, full = (result.influence(group, method).dfbetas.to_numpy() for method in ("one-step", "refit"))
    assert result.influence(group).method == "one-step"
    # The step keeps weights and variances: close for most units.
    assert np.corrcoef(step[:, 1], full[:, 1])[0, 1] > 0.97


def test_generalised_refit() -> None:
    data = made_up()
    formula = "cbind(win, size - win) ~ x + (1 | g)"
    found = lme4py.glmer(formula, data).influence("g", "refit")
    again = lme4py.glmer(formula, data[data["g"] != "4"])
    # Two fits of the same likelihood, each good to about 1e-8.
    assert_allclose(found.fixef.loc["4"], again.params, rtol=1e-5)


def test_generalised_step_is_exact_for_a_gaussian_model() -> None:
    """With the identity link the working model is the model, and one step at the same variances is exact."""
    data = made_up()
    generalised = lme4py.glmer("y ~ x + (1 | g)", data, "gaussian").fit
    linear = lme4py.lmer("y ~ x + (1 | g)", data, reml=False).fit
    # Estimates of two optimisers.
    assert_allclose(influence(generalised).dfbeta, influence(linear).dfbeta, rtol=1e-5, atol=1e-8)
    assert_allclose(influence(generalised, "g").dfbeta, influence(linear, "g").dfbeta, rtol=1e-5, atol=1e-8)


# --- the object -------------------------------------------------------------------------------------------------


def test_frame_and_words() -> None:
    found = reference_result("lmm_sleep_rs").influence("Subject", "refit")
    frame = found.to_frame()
    assert frame.shape == (18, 9)
    assert list(frame.columns[:5]) == ["cooks_fixed", "cooks_distance", "leverage", "covratio", "sigma"]
    assert found.largest(2).index.tolist() == frame["cooks_fixed"].sort_values(ascending=False).index[:2].tolist()
    assert "18 levels of Subject (model fitted again)" in str(found)
    assert "observations" in reference_result("lmm_sleep_rs").influence().summary()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "exakt"}, "Did you mean 'exact'"),
        ({"group": "Subjekt"}, "Did you mean 'Subject'"),
        ({"group": ["a"] * 180}, "one group only"),
        ({"group": ["a", "b"]}, "`group` has 2 values but the data have 180 rows"),
    ],
)
def test_errors(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((OptionError, DataError), match=message):
        reference_result("lmm_sleep_rs").influence(**arguments)


def test_no_exact_for_generalised_models() -> None:
    with pytest.raises(OptionError, match="linear mixed models"):
        lme4py.glmer("count ~ x + (1 | g)", made_up(), "poisson").influence(method="exact")


def test_summary_explains_both_distances() -> None:
    fit = made_up_fit("slopes")
    rows, groups = str(influence(fit)), str(influence(fit, fit.design.terms[0].group))
    # The note is folded to the width of a terminal.
    assert "cooks_fixed: change of the fixed effects; cooks_distance: lme4's" in rows.split("\n")[-2]
    assert groups.endswith("cooks_distance is the same here.")
