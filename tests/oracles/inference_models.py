"""Models of tests/reference/inference2_lmm.json.gz, each fitted once, and models that lie on the boundary."""

from __future__ import annotations

import gzip
import json
import warnings
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from reference_data import REFERENCE, load_reference

import lme4py

MODELS: dict[str, dict[str, Any]] = json.loads(gzip.decompress((REFERENCE / "inference2_lmm.json.gz").read_bytes()))[
    "models"
]


def having(block: str) -> list[str]:
    """Names of the models with a block of reference numbers."""
    return [name for name, model in MODELS.items() if block in model]


@cache
def lmm(formula: str, data: str = "sleepstudy", reml: bool = False) -> lme4py.MixedResult:
    """A fit of a data set."""
    return lme4py.lmer(formula, load_reference(data), reml=reml)


def reference_fit(name: str) -> lme4py.MixedResult:
    """Our fit of a reference model; in some, terms share variances or columns depend on others."""
    model = MODELS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lme4py.IdentificationWarning)
        warnings.simplefilter("ignore", lme4py.RankWarning)
        return lmm(model["formula"], model["data"], model["reml"])


@cache
def grouped(kind: str) -> pd.DataFrame:
    """Small simulated data: "plain", "no slopes" (a zero variance), "one line" (a correlation of one) or "no groups"
    (all groups have the same least-squares line)."""
    rng = np.random.default_rng(1)
    groups, rows = 12, 6
    g = np.repeat(np.arange(groups), rows)
    x = np.tile(np.linspace(-1.0, 1.5, rows), groups)
    z = rng.normal(size=g.size)
    a, b = rng.normal(size=groups), rng.normal(size=groups)
    slopes = {"plain": 0.7 * b, "no slopes": 0.0 * b, "one line": 0.8 * a, "no groups": 0.0 * b}[kind]
    y = 2.0 + x + a[g] + slopes[g] * x + 0.5 * rng.normal(size=g.size)
    if kind == "no groups":
        lines = np.column_stack([g[:, None] == np.arange(groups), (g[:, None] == np.arange(groups)) * x[:, None]])
        y = 2.0 + x + y - lines @ np.linalg.lstsq(lines, y, rcond=None)[0]
    return pd.DataFrame({"y": y, "x": x, "z": z, "g": g.astype(str), "h": rng.integers(0, 5, g.size).astype(str)})
