"""Predictions where no row of the fit was: conditional expectations of a process, and what they leave open."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

import lme4py
from lme4py.errors import Lme4Warning, OptimaWarning


def _rows(family: str = "gaussian") -> pd.DataFrame:
    rng = np.random.default_rng(4)
    times = np.array([0.0, 1.0, 2.5, 4.0, 5.0])
    data = pd.DataFrame({"g": np.repeat(np.arange(20), 10), "t": np.tile(np.repeat(times, 2), 20)})
    C = np.exp(-np.abs(np.subtract.outer(times, times)) / 2.0)
    u = rng.multivariate_normal(np.zeros(5), C, 20)[data["g"], np.searchsorted(times, data["t"])]
    data["x"] = rng.normal(size=len(data))
    eta = 1.0 + 0.5 * data["x"] + u
    data["y"] = eta + 0.5 * rng.normal(size=len(data)) if family == "gaussian" else rng.poisson(np.exp(0.5 * eta))
    return data


ROWS = _rows()
NEW = pd.DataFrame({"g": [0, 3, 3, 99], "t": [1.7, 4.6, 9.0, 1.7], "x": [0.0, 1.0, -1.0, 0.5]})
TERMS = ["ou(t | g)", "exp(t | g)", "gau(t | g)", "mat(t | g)"]


def _dense(fit: Any, row: pd.Series) -> tuple[float, float]:
    """Prediction and variance of its error from the covariance matrix of all rows."""
    design, structure = fit.fit.design, fit.fit.design.terms[0].structure
    known, theta = structure.positions, fit.fit.theta
    places = np.append(known.ravel(), row["t"])
    order = np.argsort(places)
    at = places[order] if known.ndim == 1 else places[order][:, None]
    C = np.empty((places.size,) * 2)
    C[np.ix_(order, order)] = fit.sigma**2 * structure.at_places(at).covariance(theta)
    term = design.terms[0]
    same = term.codes[:, None] == term.codes
    Z = term.values
    V = same * (Z @ C[:-1, :-1] @ Z.T) + fit.sigma**2 * np.eye(len(Z))
    mine = np.array([term.levels[code] == row["g"] for code in term.codes])
    c = mine * (Z @ C[:-1, -1])
    W = np.linalg.inv(V)
    X, x = design.X, np.array([1.0, row["x"]])
    A = np.linalg.inv(X.T @ W @ X)
    beta = A @ X.T @ W @ design.y
    rest = x - X.T @ W @ c
    return float(x @ beta + c @ W @ (design.y - X @ beta)), float(C[-1, -1] - c @ W @ c + rest @ A @ rest)


@pytest.mark.parametrize("term", TERMS)
def test_beside_dense_algebra(term: str) -> None:
    fit = lme4py.lmer(f"y ~ x + {term}", ROWS)
    found = fit.predict(NEW.iloc[:3], interval="confidence", se=True)
    for i, row in NEW.iloc[:3].iterrows():
        mean, variance = _dense(fit, row)
        # Matrices of 200 rows in double precision; the covariance of gau() is near to singular.
        assert found["predicted"][i] == pytest.approx(mean, rel=1e-6)
        assert found["std_error"][i] == pytest.approx(np.sqrt(variance), rel=1e-5)


def test_of_a_new_group_it_is_the_whole_variance() -> None:
    fit = lme4py.lmer("y ~ x + ou(t | g)", ROWS)
    here = fit.predict(NEW.iloc[3:], include_random=False, se=True)["std_error"].iloc[0]
    with pytest.warns(Lme4Warning, match="99"):
        total = fit.predict(NEW.iloc[3:], se=True, interval="confidence")["std_error"].iloc[0]
    assert total**2 == pytest.approx(here**2 + fit.variance_components["var(ou)"], rel=1e-8)


def test_degrees_of_freedom_beside_a_place_with_a_row_that_says_nothing() -> None:
    """A row of weight 1e-10 at the new place makes it one of the model's, and changes no estimate."""
    # A row more counts in the estimate of sigma, which is held.
    fit = lme4py.lmer("y ~ x + ou(t | g)", ROWS, sigma=0.5)
    more = pd.concat([ROWS, pd.DataFrame({"g": [5], "t": [1.7], "x": [0.0], "y": [1.0]})], ignore_index=True)
    more["w"] = np.append(np.ones(len(ROWS)), 1e-10)
    with_row = lme4py.lmer("y ~ x + ou(t | g)", more, weights="w", sigma=0.5)
    for interval in ("confidence", "prediction"):
        a = fit.predict(NEW.iloc[:1], interval=interval)
        b = with_row.predict(NEW.iloc[:1].assign(w=1.0), interval=interval)
        # Estimates are good to 1e-6, and the row to 1e-10 / 0.25 of an observation.
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_counts_and_ordered_categories() -> None:
    with pytest.warns(OptimaWarning, match="another minimum"):
        fit = lme4py.glmer("y ~ x + ou(t | g)", _rows("poisson"), "poisson")
    link = fit.predict(NEW.iloc[:2], type="linear", interval="confidence")
    at = fit.predict(NEW.iloc[:2].assign(t=[1.0, 4.0]), type="linear", interval="confidence")
    # Between the times nothing was seen: the limits are wider than at them.
    assert ((link["upper"] - link["lower"]) > (at["upper"] - at["lower"])).all()
    assert fit.predict(NEW.iloc[:2], interval="prediction").notna().all(axis=None)


def test_with_a_parameter_held() -> None:
    free = lme4py.lmer("y ~ x + ou(t | g)", ROWS)
    value = float(np.mean(free.conf_int(parm="range(ou | g)").iloc[0]))
    held = lme4py.lmer("y ~ x + ou(t | g)", ROWS, fix={"range(ou | g)": value})
    mean, variance = _dense(held, NEW.iloc[0])
    found = held.predict(NEW.iloc[:1], interval="confidence", se=True)
    assert found["predicted"].iloc[0] == pytest.approx(mean, rel=1e-8)
    assert found["std_error"].iloc[0] == pytest.approx(np.sqrt(variance), rel=1e-8)


def test_a_profile_reaches_a_range_of_nothing() -> None:
    """Where the data hardly tell a range from none its profile goes to zero."""
    data = _rows("poisson").iloc[:60]
    with pytest.warns(OptimaWarning, match="another minimum"):
        fit = lme4py.glmer("y ~ x + exp(t | g)", data, "poisson")
    limits = fit.conf_int(parm="range(exp | g)", method="profile").iloc[0]
    assert limits["lower"] >= 0.0


@pytest.mark.parametrize("term", ["ou(t | g)", "exp(t | g)"])
def test_the_share_of_a_process(term: str) -> None:
    """Its variance is the same everywhere."""
    fit = lme4py.lmer(f"y ~ x + {term}", ROWS)
    variance = fit.variance_components[f"var({term[: term.index('(')]})"]
    found = lme4py.icc(fit)
    assert found.estimate == pytest.approx(variance / (variance + fit.sigma**2), rel=1e-10)
    assert found.ci_lower < found.estimate < found.ci_upper
