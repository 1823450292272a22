"""The example of the documentation and other models that the tests of margins share."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

import lme4py


@cache
def _example() -> pd.DataFrame:
    rng = np.random.default_rng(42)
    n = 400
    data = pd.DataFrame(
        {
            "age": rng.integers(20, 75, n),
            "female": rng.binomial(1, 0.52, n),
            "treated": rng.binomial(1, 0.40, n),
            "school": rng.choice(["A", "B", "C", "D"], n),
            "student": np.repeat(np.arange(40), 10),
        }
    )
    effect = rng.standard_normal(40)[data["student"]]
    data["score"] = 50 + 0.3 * data["age"] - 2 * data["female"] + 3 * data["treated"] + effect + rng.normal(0, 5, n)
    return data


def example() -> pd.DataFrame:
    """A fresh copy of the data of the example page."""
    return _example().copy()


@cache
def example_fit(formula: str = "score ~ age + female + treated + C(school) + (1 | student)") -> Any:
    """A linear mixed model of the example data."""
    return lme4py.lmer(formula, _example())


@cache
def binary_data() -> pd.DataFrame:
    """Binary responses with a random intercept and slope."""
    rng = np.random.default_rng(3)
    n = 300
    data = pd.DataFrame(
        {
            "x": rng.normal(size=n),
            "z": rng.uniform(0.5, 3.0, n),
            "t": rng.choice(["a", "b", "c"], n),
            "g": rng.integers(0, 20, n),
        }
    )
    b = rng.normal(size=(20, 2)) * [0.8, 0.5]
    g, x = data["g"].to_numpy(), data["x"].to_numpy()
    eta = 0.2 + 0.5 * x - 0.3 * np.log(data["z"]) + 0.6 * (data["t"] == "b") + b[g, 0] + b[g, 1] * x
    data["y"] = rng.binomial(1, 1 / (1 + np.exp(-eta)))
    return data


@cache
def binary_fit(link: str = "logit") -> Any:
    """A binary model with interactions, a logarithm, a power and a random slope."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return lme4py.glmer("y ~ x * t + log(z) + I(x^2) + (1 + x | g)", binary_data(), link=link)


@cache
def cbpp_fit() -> Any:
    """The classic model of the cbpp data."""
    formula = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
    return lme4py.glmer(formula, lme4py.load_dataset("cbpp"))
