"""Models of tests/reference/influence.json.gz and small made-up ones, each fitted once."""

from __future__ import annotations

import gzip
import json
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from reference_data import REFERENCE, load_reference

import lme4py

MODELS: dict[str, dict[str, Any]] = json.loads(gzip.decompress((REFERENCE / "influence.json.gz").read_bytes()))[
    "models"
]


def having(block: str) -> list[str]:
    """Names of the models with a block of reference numbers."""
    return [name for name, model in MODELS.items() if block in model]


@cache
def reference_result(name: str) -> Any:
    """Our fit of a reference model."""
    model = MODELS[name]
    data = load_reference(model["data"])
    if model["family"] == "gaussian":
        return lme4py.lmer(model["formula"], data, reml=model["REML"])
    return lme4py.glmer(model["formula"], data, model["family"], link=model["link"])


@cache
def made_up() -> pd.DataFrame:
    """Unbalanced rows with groups g in schools s, a factor h nested in g, a crossed factor c, weights and an offset."""
    rng = np.random.default_rng(0)
    n = 150
    g = rng.integers(0, 12, n)
    h, c = g * 3 + rng.integers(0, 3, n), rng.integers(0, 7, n)
    x, z = rng.normal(size=n) + 0.3 * (g // 3), rng.normal(size=12)[g]
    b = rng.normal(size=(12, 2))
    y = 1 + x + z + b[g, 0] + 0.6 * b[g, 1] * x + 0.7 * rng.normal(size=36)[h] + 0.8 * rng.normal(size=7)[c]
    y = y + rng.normal(size=n)
    frame = {"y": y, "x": x, "z": z, "w": rng.uniform(0.5, 2.0, n), "o": rng.normal(size=n)}
    labels = {"g": g, "h": h, "c": c, "s": g // 3}
    rate = np.exp(0.4 * x + 0.5 * b[g, 0] - 0.5)
    counts = {"count": rng.poisson(rate), "win": rng.binomial(6, 1 / (1 + np.exp(-0.5 * x - b[g, 0]))), "size": 6}
    return pd.DataFrame({**frame, **{k: v.astype(str) for k, v in labels.items()}, **counts})


FORMULAS: dict[str, dict[str, Any]] = {
    "slopes": {"formula": "y ~ x + z + (x | g)"},
    "nested": {"formula": "y ~ x + z + (1 | g) + (1 | h)"},
    "crossed": {"formula": "y ~ x + (1 | g) + (1 | c)"},
    "weights": {"formula": "y ~ x + z + (x | g)", "weights": "w", "offset": "o"},
    "two terms, ML": {"formula": "y ~ x + factor(s) + (1 | g) + (0 + x | g)", "reml": False},
    "diagonal": {"formula": "y ~ x + diag(x | g)"},
}


@cache
def made_up_fit(name: str) -> Any:
    """The frozen fit of one of `FORMULAS`."""
    return lme4py.lmer(data=made_up(), **FORMULAS[name]).fit


def dense_covariance(fit: Any) -> np.ndarray:
    """V, shape (n, n), from the estimates."""
    design = fit.design
    V = np.diag(fit.sigma**2 / (np.ones(design.n_obs) if design.weights is None else design.weights))
    for term, covariance in zip(design.terms, fit.covariances, strict=True):
        V += (term.codes[:, None] == term.codes) * (term.values @ covariance @ term.values.T)
    return V
