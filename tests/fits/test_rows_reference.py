"""Random effects, residuals, leverages and predictions of R's lme4, at the same optima."""

from __future__ import annotations

import gzip
import json
import warnings
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
from reference_data import REFERENCE, load_reference

import lme4py
from lme4py.fits.kinds import model_of
from lme4py.inference.diagnostics.leverage import cooks_distance

MODELS: dict[str, dict[str, Any]] = json.loads(gzip.decompress((REFERENCE / "rows.json.gz").read_bytes()))["models"]


@cache
def fitted(name: str) -> Any:
    """Our fit of a reference model."""
    model = MODELS[name]
    data = load_reference(model["data"])
    options = {key: model[key] for key in ("weights", "offset") if model[key]}
    if model["engine"] == "lmer":
        return lme4py.lmer(model["formula"], data, reml=model["reml"], **options)
    family = "nbinomial" if model["engine"] == "glmer.nb" else model["family"]
    link = None if model["engine"] == "glmer.nb" else model["link"]
    return lme4py.glmer(model["formula"], data, family, link=link, nAGQ=model["nAGQ"], hessian="expected", **options)


def spread(name: str) -> float:
    """Largest standard deviation of random effects."""
    return max(float(np.sqrt(np.diag(cov)).max()) for cov in fitted(name).fit.covariances)


@pytest.mark.parametrize("name", MODELS)
def test_random_effects(name):
    result = fitted(name)
    modes = result.ranef()
    frames = modes if isinstance(modes, dict) else {next(iter(result.n_groups)): modes}
    assert list(frames) == list(MODELS[name]["ranef"])
    for group, expected in MODELS[name]["ranef"].items():
        found = frames[group].set_axis(frames[group].index.astype(str)).loc[expected["levels"]]
        # Both optima are exact to 1e-6 of a standard deviation.
        np.testing.assert_allclose(found, expected["values"], rtol=0, atol=1e-5 * spread(name))


@pytest.mark.parametrize("name", MODELS)
def test_conditional_variances(name):
    result = fitted(name)
    blocks = model_of(result.fit).conditional_covariances()
    for group, expected in MODELS[name]["ranef"].items():
        own = [t for t, term in enumerate(result.fit.design.terms) if term.group == group]
        levels = [str(level) for level in result.fit.design.terms[own[0]].levels]
        rows = [levels.index(level) for level in expected["levels"][:3]]
        for t, block in zip(own, expected["condVar"], strict=True):
            # As for the modes.
            np.testing.assert_allclose(blocks[t][rows], block["first"], rtol=0, atol=1e-5 * spread(name) ** 2)
            total = np.array(block["sum_over_levels"])
            np.testing.assert_allclose(blocks[t].sum(axis=0), total, rtol=1e-5, atol=1e-5 * np.abs(total).max())


@pytest.mark.parametrize("name", MODELS)
def test_residuals(name):
    for kind, expected in MODELS[name]["residuals"].items():
        if kind == "scaled_pearson" and MODELS[name]["engine"] != "lmer":
            continue
        found = fitted(name).residuals("scaled" if kind == "scaled_pearson" else kind)
        # As for the modes, in units of the residuals.
        np.testing.assert_allclose(found[: len(expected)], expected, rtol=0, atol=1e-5 * float(np.std(found)))


@pytest.mark.parametrize("name", [name for name in MODELS if "hatvalues" in MODELS[name]])
def test_leverages(name):
    result = fitted(name)
    # The optimum is exact to 1e-8 of theta.
    np.testing.assert_allclose(result.hatvalues(), MODELS[name]["hatvalues"]["values"], rtol=0, atol=1e-7)
    np.testing.assert_allclose(cooks_distance(result.fit), MODELS[name]["cooks"]["values"], rtol=1e-6, atol=1e-8)


def chosen(result: Any, form: str) -> Any:
    """`include_random` for R's re.form; None where that is a part of the terms of a factor."""
    if form in ("NULL", "NA"):
        return form == "NULL"
    group = form.split("|")[-1].strip(" )")
    return [group] if [term.group for term in result.fit.design.terms].count(group) == 1 else None


@pytest.mark.parametrize("name", [name for name in MODELS if MODELS[name]["predict"]])
def test_predictions(name):
    result = fitted(name)
    for block in MODELS[name]["predict"]:
        which = chosen(result, block["re_form"])
        if which is None:
            continue
        scale = "linear" if block["type"] == "link" else "response"
        with warnings.catch_warnings():
            # Some blocks have unseen groups.
            warnings.simplefilter("ignore", lme4py.errors.Lme4Warning)
            found = result.predict(pd.DataFrame(block["newdata"]), include_random=which, type=scale)
        # As for the modes.
        size = max(float(np.std(result.fittedvalues)), spread(name) if scale == "linear" else 0.0)
        np.testing.assert_allclose(found, block["values"], rtol=0, atol=1e-5 * size)
