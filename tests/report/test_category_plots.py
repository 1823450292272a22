"""Plots of models of categories: the numbers that they draw are those of predict()."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import lme4py

RNG = np.random.default_rng(4)
N, J = 120, 12
G = np.repeat(np.arange(J), N // J)
X = RNG.standard_normal(N)
U = RNG.standard_normal(J)[G]
DATA = pd.DataFrame({"x": X, "z": RNG.choice([0.0, 1.0], N), "g": G.astype(str)})
DATA["o"] = np.digitize(X + U + RNG.logistic(size=N), [-1.5, 0.0, 1.5]) + 1
DATA["y"] = DATA["o"].clip(upper=3).map({1: "A", 2: "B", 3: "C"})


@pytest.fixture(scope="module")
def fits():
    parts = lme4py.clmm("o ~ 1 + (1 | g)", DATA, nominal="~ x", scale="~ z")
    return {"multinomial": lme4py.glmer("y ~ x + z + (1 | g)", DATA, family="multinomial"), "parts": parts}


@pytest.mark.parametrize("name", ["multinomial", "parts"])
def test_effects_are_predictions(fits, name):
    fit = fits[name]
    table = fit.plot_data("effect", "x", n_points=4)
    rows = pd.DataFrame({"x": table["x"].unique(), "z": DATA["z"].mean()})
    want = fit.predict(rows, include_random=False, type="prob", interval="confidence")
    for label, own in table.groupby("category"):
        np.testing.assert_allclose(own[["predicted", "lower", "upper"]], want[label], rtol=1e-12)
    assert len(fit.plot("effect", "z").get_legend().get_texts()) == len(fit.categories)


def test_linear_effects_have_no_baseline(fits):
    fit = fits["multinomial"]
    table = fit.plot_data("effect", "x", n_points=3, type="linear")
    assert table["category"].unique().tolist() == ["B", "C"]
    rows = pd.DataFrame({"x": table["x"].unique(), "z": DATA["z"].mean()})
    want = fit.predict(rows, include_random=False, type="linear", interval="confidence")
    for label, own in table.groupby("category"):
        np.testing.assert_allclose(own[["predicted", "lower", "upper"]], want[label], rtol=1e-10)


@pytest.mark.parametrize("name", ["multinomial", "parts"])
def test_fitted_curves_are_predictions_of_a_level(fits, name):
    fit = fits[name]
    table = fit.plot_data("fitted", "x", group="g", levels=["3"], n_points=4)
    own = DATA[DATA["g"] == "3"]
    curve = table[table["part"] == "fitted"]
    rows = pd.DataFrame({"x": curve["x"].unique(), "z": own["z"].mean(), "g": "3"})
    want = fit.predict(rows, type="prob")
    for label, part in curve.groupby("category"):
        np.testing.assert_allclose(part["value"], want[label], rtol=1e-12)
    seen = table[table["part"] == "observed"].groupby(level=0).first()
    assert seen["value"].sum() == len(own)
    fit.plot("fitted", "x", max_panels=3)


def test_residuals_of_all_categories_are_drawn(fits):
    fit = fits["multinomial"]
    table = fit.plot_data("residuals")
    pearson = fit.residuals("pearson")
    for label, own in table.groupby("category"):
        np.testing.assert_allclose(own["residual"], pearson[label])
        np.testing.assert_allclose(own["fitted"], fit.predict(type="prob")[label])
    assert len(fit.plot("residuals", type="quantile").get_legend().get_texts()) == 3
    assert len(fit.plot("check")) == 4
