"""Columns that separate ordered categories, in every structure and part: infinite, named, the rest as in the limit."""

from __future__ import annotations

import pickle
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm

import lme4py
from lme4py.errors import ConvergenceWarning

STRUCTURES = ("cumulative", "sequential", "adjacent")
RNG = np.random.default_rng(1)
N = 120
G = np.repeat(np.arange(12), 10)
X = RNG.standard_normal(N)
B = np.arange(N) % 2 == 1
LATENT = 0.7 * X + RNG.logistic(size=N) + np.repeat(0.9 * RNG.standard_normal(12), 10)
Y = np.digitize(LATENT, [-1.0, 0.5, 1.5]) + 1
DATA = pd.DataFrame(
    {
        "g": G.astype(str),
        "f": np.where(B, "b", "a"),
        "x": X,
        "top": np.where(B, 4, Y),
        "bottom": np.where(B, 1, Y),
        "never_first": np.where(B & (Y == 1), 2, Y),
        "never_last": np.where(B & (Y == 4), 3, Y),
        "steps": np.digitize(X, [-0.7, 0.0, 0.7]) + 1,
        "down": 4 - np.digitize(X, [-0.7, 0.0, 0.7]),
    }
)


def fit(formula: str, data: pd.DataFrame = DATA, **options: Any) -> Any:
    """A fit of columns that separate, which warns."""
    with pytest.warns(ConvergenceWarning, match="separate"):
        return lme4py.clmm(formula, data, **options)


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize(("name", "sign"), [("top", 1.0), ("bottom", -1.0)])
def test_a_level_in_an_outer_category(structure, name, sign):
    separated = fit(f"{name} ~ x + f + (1 | g)", structure=structure)
    table = separated.coef_table()
    assert table["estimate"].iloc[1] == sign * np.inf
    assert np.isnan(table["std_error"].iloc[1])
    assert "f[T.b]" in separated.certificate.verdict
    # In the limit the rows of the level have probability one: the model of the others.
    rest = lme4py.clmm(f"{name} ~ x + (1 | g)", DATA[~B], structure=structure)
    # Both optima are good to 1e-8 of the criterion, and standard errors to that of a difference Hessian.
    assert separated.log_likelihood == pytest.approx(rest.log_likelihood, abs=1e-6)
    assert table.iloc[0][["estimate", "std_error"]].tolist() == pytest.approx(
        rest.coef_table().iloc[0][["estimate", "std_error"]].tolist(), rel=1e-3
    )
    assert separated.thresholds.tolist() == pytest.approx(rest.thresholds.tolist(), abs=1e-3)


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize(("name", "sign"), [("steps", 1.0), ("down", -1.0)])
@pytest.mark.parametrize("unit", [1.0, 1e4])
def test_a_column_that_orders_all_rows(structure, name, sign, unit):
    data = DATA.assign(x=unit * DATA["x"])
    separated = fit(f"{name} ~ x", data, structure=structure, nominal="~ f")
    table = separated.coef_table(component="all")
    assert table["estimate"].iloc[0] == sign * np.inf
    assert table["std_error"].isna().all()
    assert separated.log_likelihood == pytest.approx(0.0, abs=1e-6)  # every row has probability one


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("bars", ["", " + (1 | g)"])
@pytest.mark.parametrize(("name", "cut", "sign"), [("never_first", 0, -1.0), ("never_last", 2, 1.0)])
def test_a_level_without_a_category_has_an_infinite_nominal_effect(structure, bars, name, cut, sign):
    separated = fit(f"{name} ~ x{bars}", structure=structure, nominal="~ f")
    table = separated.coef_table(component="nominal")
    wanted = np.zeros(3)
    wanted[cut] = sign * np.inf
    assert np.array_equal(np.where(np.isinf(table["estimate"]), table["estimate"], 0.0), wanted)
    assert np.array_equal(table["std_error"].isna(), np.isinf(wanted))
    # Nothing else is at infinity.
    assert np.isfinite(separated.coef_table().to_numpy()[:, :2]).all()
    assert np.isfinite(separated.thresholds_se).all()
    assert f"nominal: {cut + 1}|{cut + 2}: f[T.b]" in separated.certificate.verdict


def test_the_limit_of_a_sequential_model_is_that_of_its_binomial_steps():
    separated = fit("never_first ~ x", structure="sequential", nominal="~ f")
    y = DATA["never_first"].to_numpy()
    rows = []
    for k in range(1, 4):
        reached = (y >= k) & ~(B & (k == 1))  # rows of b pass the first threshold with certainty
        at = np.zeros((int(reached.sum()), 6))
        at[:, k - 1] = 1.0
        if k > 1:
            at[:, 1 + k] = B[reached]
        at[:, 5] = -X[reached]
        rows.append((np.asarray(y[reached] == k, dtype=float), at))
    stopped, columns = (np.concatenate(part) for part in zip(*rows, strict=True))
    binomial = sm.GLM(stopped, columns, family=sm.families.Binomial()).fit(tol=1e-12)
    nominal = separated.coef_table(component="nominal")
    own = [*separated.thresholds, *nominal["estimate"].iloc[1:], *separated.coef_table()["estimate"]]
    errors = [*separated.thresholds_se, *nominal["std_error"].iloc[1:], *separated.coef_table()["std_error"]]
    assert separated.log_likelihood == pytest.approx(binomial.llf, abs=1e-7)
    # Two optima, and a Hessian by differences.
    assert own == pytest.approx(binomial.params.tolist(), abs=1e-5)
    assert errors == pytest.approx(binomial.bse.tolist(), rel=1e-4)


@pytest.mark.parametrize("structure", STRUCTURES[:2])
def test_beside_a_scale_part(structure):
    separated = fit("top ~ f", structure=structure, scale="~ x")
    assert separated.coef_table()["estimate"].tolist() == [np.inf]
    rest = lme4py.clmm("top ~ 1", DATA[~B], structure=structure, scale="~ x")
    # Two optima, and a Hessian by differences.
    for column in ("estimate", "std_error"):
        own, other = (one.coef_table(component="scale")[column].tolist() for one in (separated, rest))
        assert own == pytest.approx(other, rel=1e-3)


def test_a_scale_that_only_rows_at_infinity_know_is_not_determined():
    data = DATA.assign(z=np.where(B, X, 0.0))
    separated = fit("top ~ f", data, scale="~ z")
    table = separated.coef_table(component="scale")
    assert table[["estimate", "std_error"]].isna().to_numpy().all()
    assert "scale: z is not determined" in separated.certificate.verdict


@pytest.mark.parametrize("structure", STRUCTURES)
def test_a_scale_that_collapses_is_said_to(structure):
    with pytest.warns(ConvergenceWarning, match="scale part|separate"):
        lme4py.clmm("top ~ x", DATA, structure=structure, scale="~ f")


@pytest.mark.parametrize("structure", STRUCTURES)
def test_predictions_are_limits_without_intervals(structure):
    part = "scale" if structure == "cumulative" else "nominal"
    separated = pickle.loads(pickle.dumps(fit("top ~ x + f + (1 | g)", structure=structure, **{part: "~ x"})))
    new = pd.DataFrame({"x": [0.3, 0.3], "f": ["a", "b"]})
    with pytest.warns(UserWarning, match="separation"):
        p = separated.predict(new, include_random=False, type="prob", interval="confidence")
    middle = p.xs("predicted", axis=1, level=1).to_numpy()
    assert middle[1].tolist() == pytest.approx([0.0, 0.0, 0.0, 1.0], abs=1e-12)  # the limit itself
    assert ((middle[0] > 0.0) & (middle[0] < 1.0)).all()
    limits = p.xs("lower", axis=1, level=1).to_numpy()
    assert np.isfinite(limits[0]).all()
    assert np.isnan(limits[1]).all()


@pytest.mark.parametrize("structure", STRUCTURES)
def test_no_alarm_where_nothing_separates(structure):
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        usual = lme4py.clmm("y ~ x", DATA.assign(y=Y), structure=structure, nominal="~ f", scale="~ f")
    assert usual.certificate.converged
    assert np.isfinite(usual.coef_table(component="all")[["estimate", "std_error"]].to_numpy()).all()
