"""Autocorrelation and variogram of residuals, against R's nlme and by hand; see tests/reference/make/serial.R."""

from __future__ import annotations

import json

import numpy as np
import pytest
from reference_data import REFERENCE

import lme4py
from lme4py.errors import OptionError

OVARY = "follicles ~ sin(2 * pi * Time) + cos(2 * pi * Time)"


@pytest.fixture(scope="module")
def ovary():
    return lme4py.load_dataset("Ovary")


def test_autocorrelations_are_means_of_products(ovary):
    fit = lme4py.lmer(OVARY + " + (1 | Mare)", ovary)
    table = fit.plot_data("autocorrelation").set_index("lag")
    e = fit.residuals("scaled").to_numpy()
    rows = [np.flatnonzero(ovary["Mare"] == mare) for mare in ovary["Mare"].cat.categories]
    for lag in (1, 2, 7):
        products = np.concatenate([e[r[lag:]] * e[r[:-lag]] for r in rows if r.size > lag])
        # Sums in another order.
        assert table.loc[lag, "autocorrelation"] == pytest.approx(products.mean() / np.mean(e**2), rel=1e-12)
        assert table.loc[lag, "n_pairs"] == products.size
        assert table.loc[lag, "limit"] == pytest.approx(1.959963984540054 / np.sqrt(products.size), rel=1e-12)


def test_autocorrelations_are_those_of_nlme(ovary):
    stored = json.loads((REFERENCE / "serial.json").read_text(encoding="utf-8"))
    plain = lme4py.lmer(OVARY + " + (1 | Mare)", ovary)
    ar1 = lme4py.lmer(OVARY, ovary, residual="ar1(1 | Mare)")
    for name, fit, kind in (("plain", plain, None), ("ar1", ar1, None), ("ar1_pearson", ar1, "pearson")):
        own = fit.plot_data("autocorrelation", type=kind)
        # nlme's optimum is good to some eight digits.
        assert own["autocorrelation"].iloc[:9].to_numpy() == pytest.approx(stored[name]["acf"], abs=1e-7)


def test_variograms_are_half_mean_squares_of_differences(ovary):
    fit = lme4py.lmer(OVARY, ovary, residual="car1(Time | Mare)")
    table = fit.plot_data("variogram", bins=6)
    e, t = fit.residuals("pearson").to_numpy(), ovary["Time"].to_numpy()
    distance, half = [], []
    for mare in ovary["Mare"].cat.categories:
        r = np.flatnonzero(ovary["Mare"] == mare)
        i, j = np.triu_indices(r.size, 1)
        distance.append(np.abs(t[r[i]] - t[r[j]]))
        half.append(0.5 * (e[r[i]] - e[r[j]]) ** 2)
    distance, half = np.concatenate(distance), np.concatenate(half)
    assert table["n_pairs"].sum() == half.size
    # Weighted by their pairs the classes have the means of all pairs.
    assert np.average(table["semivariance"], weights=table["n_pairs"]) == pytest.approx(half.mean(), rel=1e-12)
    assert np.average(table["distance"], weights=table["n_pairs"]) == pytest.approx(distance.mean(), rel=1e-12)
    phi = fit.residual_table().set_index("parameter")["estimate"].iloc[1]
    model = 1.0 - phi**distance
    assert np.average(table["model"], weights=table["n_pairs"]) == pytest.approx(model.mean(), rel=1e-9)
    # Another variable has no model beside it.
    assert "model" not in fit.plot_data("variogram", "Time")
    with pytest.raises(OptionError, match="bins"):
        fit.plot_data("variogram", bins=0)


def test_visits_on_a_grid_have_a_class_for_each_gap():
    data = lme4py.load_dataset("trial")
    fit = lme4py.mmrm("CHG ~ BASE + TRT01P * AVISIT + us(AVISIT | USUBJID)", data)
    table = fit.plot_data("variogram")
    assert table["distance"].tolist() == [1.0, 2.0, 3.0]
    # What is left after the structure is not correlated.
    rest = fit.plot_data("autocorrelation")
    assert (rest["autocorrelation"].iloc[1:].abs() < 2.0 * rest["limit"].iloc[1:]).all()


def test_models_without_subjects_are_refused():
    data = lme4py.load_dataset("sleepstudy")
    fit = lme4py.lmer("Reaction ~ Days", data, variance="exp(Days)")
    with pytest.raises(OptionError, match="no subjects"):
        fit.plot_data("autocorrelation")
