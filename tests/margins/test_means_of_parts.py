"""Margins of means that follow from several predictors: truncated counts, hurdles, zero parts, ordered beta."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest

import lme4py
from lme4py.errors import OptionError
from lme4py.families.densities.calculus.jets import Degrees
from lme4py.families.densities.registry import make_density
from lme4py.margins.estimands import estimands
from lme4py.margins.estimands.curves import Identity
from lme4py.margins.population.groups import RowGroup

FORMS: dict[str, dict[str, Any]] = {
    "truncated": {"family": "truncated_poisson", "positive": True},
    "hurdle": {"family": "truncated_poisson", "ziformula": "~ x + (1 | h)"},
    "hurdle, slopes": {"family": "truncated_poisson", "ziformula": "~ z", "random": "(x || g)"},
    "hurdle, dispersion": {"family": "truncated_nbinomial1", "ziformula": "~ 1", "dispformula": "~ x"},
    "zero-inflated": {"family": "poisson", "ziformula": "~ x + (1 | g)", "random": "(x || g)"},
    "ordered beta": {"family": "ordbeta", "response": "share"},
}


@cache
def rows() -> pd.DataFrame:
    rng = np.random.default_rng(7)
    n, g = 240, np.repeat(np.arange(20), 12)
    x, b = 0.6 * rng.normal(size=240), 0.5 * rng.normal(size=(2, 20))
    mean = np.exp(0.4 + 0.4 * x + b[0, g] + b[1, g] * x)
    y = np.where(rng.random(n) < 1.0 / (1.0 + np.exp(1.0 - 0.5 * x)), 0, rng.poisson(mean * rng.gamma(2.0, 0.5, n)))
    share = np.where(rng.random(n) < 0.25, rng.integers(0, 2, n), rng.beta(2.0, 2.0, n))
    h = rng.integers(0, 8, n).astype(str)
    return pd.DataFrame({"y": y, "share": share, "x": x, "z": rng.choice(["a", "b"], n), "g": g.astype(str), "h": h})


def of(name: str) -> pd.DataFrame:
    return rows()[rows()["y"] > 0] if "positive" in FORMS[name] else rows()


@cache
def fitted(name: str) -> Any:
    form = dict(FORMS[name])
    form.pop("positive", None)
    left, random = form.pop("response", "y"), form.pop("random", "(1 | g)")
    return lme4py.glmer(f"{left} ~ x + z + {random}", of(name), **form)


def averaged(name: str, random: str, change: dict[str, Any]) -> float:
    include = "integrate" if random == "integrate" else False
    return float(fitted(name).predict(of(name).assign(**change), include_random=include).mean())


@pytest.mark.parametrize("random", ["zero", "integrate"])
@pytest.mark.parametrize("name", FORMS)
def test_predictions_are_averages_of_predictions(name: str, random: str) -> None:
    session = lme4py.Margins.response(fitted(name), random=random)
    found = session.predict(atexog={"x": [-0.5, 0.8]}).to_frame()["estimate"]
    # Two quadratures of the same smooth means.
    assert found.to_numpy() == pytest.approx([averaged(name, random, {"x": x}) for x in (-0.5, 0.8)], rel=1e-6)
    contrast = session.contrasts(contrasts=lme4py.pairwise("z", ["b", "a"])).to_frame()["estimate"]
    expected = averaged(name, random, {"z": "b"}) - averaged(name, random, {"z": "a"})
    assert contrast.to_numpy() == pytest.approx([expected], abs=1e-6)


@pytest.mark.parametrize("random", ["zero", "integrate"])
@pytest.mark.parametrize("name", FORMS)
def test_slopes_are_those_of_predictions(name: str, random: str) -> None:
    session = lme4py.Margins.response(fitted(name), random=random)
    h, x = 1e-4, of(name)["x"]
    expected = (averaged(name, random, {"x": x + h}) - averaged(name, random, {"x": x - h})) / (2.0 * h)
    # A central difference has an error of h^2.
    assert session.dydx("x").to_frame()["estimate"].to_numpy() == pytest.approx([expected], abs=1e-6)


@pytest.mark.parametrize("random", ["zero", "integrate"])
@pytest.mark.parametrize("name", FORMS)
def test_gradients_are_those_of_the_values(name: str, random: str) -> None:
    session = lme4py.Margins.response(fitted(name), random=random)
    grid = session._grid([{"z": "a"}], RowGroup({}, None))
    at = session._inference.estimates
    for estimand in (
        estimands.predictions([grid], Identity()),
        estimands.slopes(session.adapter, grid, "x", session._outcome, session.options.random, "dydx", False),
        estimands.slopes(session.adapter, grid, "x", session._outcome, session.options.random, "eyex", False),
    ):
        _, gradient = estimand(at, True)
        q = at.beta.size + (at.theta.size if random == "integrate" else 0)
        for j in range(q):
            step = np.zeros(q)
            step[j] = 1e-5
            up, down = (estimand(at.plus(sign * step), False)[0] for sign in (1.0, -1.0))
            # Central differences: h^2, and rounding over h.
            assert gradient[0, j] == pytest.approx(float((up - down)[0]) / 2e-5, rel=1e-5, abs=1e-7)


def test_what_has_no_mean_of_one_predictor_is_said() -> None:
    with pytest.raises(OptionError, match=r"follows from more than one.*'conditional' or 'zero_inflation'"):
        lme4py.Margins.log_scale(fitted("hurdle"))
    narrow = lme4py.Margins.log_scale(fitted("truncated"), component="conditional")
    assert np.isfinite(narrow.dydx("x").to_frame()["std_error"]).all()


TRUNCATED = ("truncated_poisson", "truncated_nbinomial", "truncated_nbinomial1", "truncated_compois")


@pytest.mark.parametrize("family", [*TRUNCATED, "ordbeta", "beta", "lognormal", "tweedie"])
def test_jets_of_means(family: str) -> None:
    density = make_density(family)
    k = len(density.variables)
    x = [np.array([-1.5, 0.2, 1.1]), np.array([0.3, -0.4, 0.8]), np.array([-0.5, 0.1, 0.2]), np.array([0.4, 0.2, 0.7])]
    jet = density.mean_jet(x[:k], Degrees(3, tuple(range(k))))
    assert jet.value == pytest.approx(density.mean(x[:k]), rel=1e-13)
    for i in range(k):
        # Each order is the difference of the one below; truncation 1e-10, rounding 1e-11.
        for index in [own for own in jet.degrees.indices() if len(own) < 3]:
            up, down = (
                density.mean_jet([v + h * (j == i) for j, v in enumerate(x[:k])], jet.degrees).d(*index)
                for h in (1e-5, -1e-5)
            )
            assert jet.d(*index, i) == pytest.approx((up - down) / 2e-5, rel=1e-6, abs=1e-8)
