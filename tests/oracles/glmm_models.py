"""Generalised models of the inference tests, each fitted once, and R's numbers for them."""

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

# Made once with R 4.2.2: lme4 1.1-31 polished to a scaled gradient of 1e-9, performance 0.10.2.
REFERENCES: dict[str, dict[str, Any]] = json.loads(
    gzip.decompress((REFERENCE / "inference_glmm.json.gz").read_bytes())
)["models"]
MODELS: dict[str, dict[str, Any]] = json.loads(gzip.decompress((REFERENCE / "glmm.json.gz").read_bytes()))["models"]
CBPP = "cbind(incidence, size - incidence) ~ period + (1 | herd)"


@cache
def fit(name: str, formula: str | None = None) -> lme4py.MEGLMResult:
    """Our fit of a reference model, with lme4's weights in the determinant."""
    model = MODELS[name]
    options = {key: model[key] for key in ("link", "nAGQ", "weights", "offset", "contrasts", "na_action")}
    with warnings.catch_warnings():
        # Columns that R drops too.
        warnings.simplefilter("ignore", lme4py.RankWarning)
        return lme4py.glmer(
            formula or model["formula"], load_reference(model["data"]), model["family"], hessian="expected", **options
        )


@cache
def cbpp(formula: str = CBPP, **options: Any) -> lme4py.MEGLMResult:
    return lme4py.glmer(formula, lme4py.load_dataset("cbpp"), **options)


@cache
def wine(formula: str = "rating ~ temp + contact + (1 | judge)") -> lme4py.MEGLMResult:
    return lme4py.clmm(formula, lme4py.load_dataset("wine"))


@cache
def sleep(formula: str, family: str | None) -> Any:
    data = lme4py.load_dataset("sleepstudy")
    return lme4py.lmer(formula, data, reml=False) if family is None else lme4py.glmer(formula, data, family)


def having(block: str) -> list[str]:
    return [name for name, model in REFERENCES.items() if block in model]


@cache
def no_variance() -> lme4py.MEGLMResult:
    """Each group has the same responses."""
    y = np.tile([0, 0, 1, 1, 0, 1], 12)
    return lme4py.glmer("y ~ 1 + (1 | g)", pd.DataFrame({"y": y, "g": np.repeat(np.arange(12), 6).astype(str)}))
