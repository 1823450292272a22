"""Limits of dispersions and variances of models without further parts: those of the same model with a part of one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

import lme4py
from lme4py import OptionError


def rows() -> pd.DataFrame:
    """Counts, amounts and numbers of twelve groups."""
    rng = np.random.default_rng(31)
    g, x = np.repeat(np.arange(12), 10), rng.normal(size=120)
    mu = np.exp(0.5 + 0.3 * x + 0.5 * rng.normal(size=12)[g])
    return pd.DataFrame(
        {
            "g": g,
            "x": x,
            "count": rng.poisson(mu * rng.gamma(2.0, 0.5, 120)),
            "amount": rng.gamma(3.0, mu / 3.0),
            "real": np.log(mu) + rng.normal(size=120),
            "w": rng.uniform(0.5, 2.0, 120),
        }
    )


DATA = rows()
NEW = pd.DataFrame({"x": [0.0, 1.0, np.nan, -1.0], "g": [0, 3, 3, 5], "w": 1.5})


def pair(response: str, **call: Any) -> tuple[Any, Any]:
    fit = lme4py.lmer if response == "real" else lme4py.glmer
    return tuple(fit(f"{response} ~ x + (1 | g)", DATA, **call, **part) for part in ({}, {"dispformula": "~ 1"}))


CALLS = {
    "nbinomial": ("count", {"family": "nbinomial"}),
    "reml, weights": ("real", {"weights": "w"}),
    "gamma": ("amount", {"family": "gamma", "link": "log"}),
}


@pytest.mark.parametrize("name", CALLS)
def test_limits_are_those_of_the_same_model_with_a_part(name: str) -> None:
    response, call = CALLS[name]
    plain, part = pair(response, **call)
    for type in ("dispersion", "variance"):
        for effects in (True, False, "integrate"):
            for data in (None, NEW):
                asked = {"type": type, "include_random": effects, "se": True, "interval": "confidence"}
                found, expected = (fit.predict(data, **asked) for fit in (plain, part))
                assert (found["lower"] < found["predicted"]).sum() == (3 if data is NEW else 120)
                if name == "gamma" and type == "dispersion":
                    # The part is about the shape, one over the dispersion.
                    value = expected["predicted"]
                    ends = {"lower": 1 / expected["upper"], "upper": 1 / expected["lower"]}
                    expected = expected.assign(predicted=1 / value, std_error=expected["std_error"] / value**2, **ends)
                # The errors come from difference Hessians, the ends of two searches are 1e-7 of an error apart.
                pd.testing.assert_frame_equal(found, expected, rtol=1e-5)


def test_limits_of_a_residual_standard_deviation_are_those_of_conf_int() -> None:
    fit = lme4py.lmer("real ~ x + (1 | g)", DATA)
    found = fit.predict(NEW.head(1), type="dispersion", interval="confidence", alpha=0.1)
    own = fit.conf_int(parm="sigma", alpha=0.1)
    np.testing.assert_allclose(found[["lower", "upper"]].iloc[0], own.iloc[0], rtol=1e-9)


def test_a_dispersion_at_its_limit_has_limits_without_an_error() -> None:
    data = DATA.assign(count=np.random.default_rng(2).binomial(6, 0.5, 120))
    fit = lme4py.glmer("count ~ x + (1 | g)", data, family="nbinomial")
    found = fit.predict(data.head(1), type="dispersion", interval="confidence", se=True).iloc[0]
    assert found[["predicted", "lower", "upper"]].tolist() == [np.inf, 0.0, np.inf]
    assert np.isnan(found["std_error"])
    # The variance is that of the Poisson model then, and its error that of the mean.
    spread, mean = (fit.predict(data, type=type, se=True) for type in ("variance", "response"))
    np.testing.assert_allclose(spread, mean, rtol=1e-7)


def test_the_stata_door_has_the_dispersion_of_the_family() -> None:
    spoken = lme4py.menbreg(DATA, "count", ["x"], "g")
    plain = lme4py.glmer("count ~ x + (1 | g)", DATA, family="nbinomial")
    asked = {"type": "dispersion", "interval": "confidence"}
    pd.testing.assert_frame_equal(spoken.predict(**asked), plain.predict(**asked), rtol=1e-6)


def test_variances_that_follow_the_fitted_values_have_no_limits() -> None:
    fit = lme4py.lmer("amount ~ x", DATA, variance="power(fitted)", reml=False)
    assert fit.predict(NEW.head(1), type="dispersion").notna().all()
    with pytest.raises(OptionError, match="depend on the fitted values"):
        fit.predict(NEW, type="dispersion", interval="confidence")


def test_counts_without_a_dispersion_say_so() -> None:
    fit = lme4py.glmer("count ~ x + (1 | g)", DATA, family="poisson")
    with pytest.raises(OptionError, match="no prediction of type 'dispersion'"):
        fit.predict(type="dispersion", interval="confidence")
    spread, mean = (fit.predict(type=type, include_random=False, se=True) for type in ("variance", "response"))
    # By differences.
    np.testing.assert_allclose(spread, mean, rtol=1e-8)
