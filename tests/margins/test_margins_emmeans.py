"""Marginal means and their pairs against R's emmeans (tests/reference/margins.json.gz)."""

from __future__ import annotations

import gzip
import json
import warnings
from functools import cache
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from reference_data import REFERENCE, load_reference

from lme4py import Margins, adjust, glmer, lmer

with gzip.open(REFERENCE / "margins.json.gz", "rt", encoding="utf-8") as file:
    MODELS = json.load(file)

METHODS = ("satterthwaite", "kenward-roger", "asymptotic", "default")
CASES = [
    (name, i, method)
    for name, model in MODELS.items()
    for i, block in enumerate(model["blocks"])
    for method in METHODS
    if method in block
]


@cache
def _fit(name):
    model = MODELS[name]
    data = load_reference(model["data"])
    if model["family"] == "gaussian":
        return lmer(model["formula"], data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # models with a singular fit among them
        return glmer(model["formula"], data, family=model["family"])


def _sessions(fit, ddf):
    yield "link", Margins.link_scale(fit, at="balanced", ddf=ddf)
    if fit.link == "logit":
        yield "response", Margins.logit_scale(fit, at="balanced")
    if fit.link == "log":
        yield "response", Margins.log_scale(fit, at="balanced")


def _scenarios(block, columns, data):
    names = [name for name in columns if name in data.columns]
    count = len(columns[names[0]])
    fixed = {k: np.ravel(v)[0] for k, v in (block["at"] or {}).items() if k not in names}
    return [{**{name: columns[name][i] for name in names}, **fixed} for i in range(count)]


def _compare(result, columns, rtol=1e-5):
    frame = result.to_frame()

    def column(*names):
        found = next(name for name in names if name in columns)
        return np.array([np.inf if x is None else x for x in columns[found]])

    np.testing.assert_allclose(frame["estimate"], column("emmean", "prob", "rate", "estimate", "odds.ratio", "ratio"))
    # Seven digits of two optimisers; five are promised.
    np.testing.assert_allclose(frame["std_error"], column("SE"), rtol=1e-5)
    np.testing.assert_allclose(result.df, column("df"), rtol=1e-5)
    # A limit near zero has the absolute error of one standard error's digits.
    scale = frame["std_error"].max()
    np.testing.assert_allclose(frame["ci_lower"], column("lower.CL", "asymp.LCL"), rtol=rtol, atol=rtol * scale)
    np.testing.assert_allclose(frame["ci_upper"], column("upper.CL", "asymp.UCL"), rtol=rtol, atol=rtol * scale)
    # p-values below 1e-10 of R's ptukey have absolute errors.
    np.testing.assert_allclose(frame["p_value"], column("p.value"), rtol=max(rtol, 3e-5), atol=1e-10)


@pytest.mark.parametrize(("name", "number", "method"), CASES)
def test_means_and_pairs(name, number, method):
    model = MODELS[name]
    block, fit, data = model["blocks"][number], _fit(name), load_reference(model["data"])
    ddf = {"asymptotic": "normal", "default": None}.get(method, method)
    by = block["specs"].partition("|")[2].strip()
    for scale, session in _sessions(fit, ddf):
        means = block[method].get(f"means_{scale}")
        if means is None:
            continue
        scenarios = _scenarios(block, means["cols"], data)
        _compare(session.contrasts(scenarios, np.eye(len(scenarios))), means["cols"])
        groups: dict[str, list] = {}
        for scenario in scenarios:
            groups.setdefault(str(scenario.get(by)), []).append(scenario)
        for rule in ("tukey", "none"):
            pairs = block[method].get(f"pairs_{scale}_{rule}")
            if pairs is not None:
                _compare_pairs(session, groups, pairs["cols"], rule)


def _compare_pairs(session, groups, columns, rule):
    start = 0
    for scenarios in groups.values():
        size = len(scenarios)
        weights = [np.eye(size)[i] - np.eye(size)[j] for i, j in combinations(range(size), 2)]
        result = adjust(session.contrasts(scenarios, weights), rule)
        part = {name: values[start : start + len(weights)] for name, values in columns.items()}
        # R's ptukey is exact to about 3e-4 of a small p-value with few degrees of freedom (4 here); ours is checked
        # against its own integral elsewhere.
        _compare(result, part, rtol=3e-4 if rule == "tukey" else 1e-5)
        start += len(weights)


def test_unadjusted_and_tukey_differ():
    session = Margins.linear_scale(_fit("lmm_ergo"), at="balanced")
    scenarios = [{"Type": level} for level in ("T1", "T2", "T3", "T4")]
    weights = [np.eye(4)[i] - np.eye(4)[j] for i, j in combinations(range(4), 2)]
    plain = session.contrasts(scenarios, weights)
    wider = plain.adjust("tukey")
    assert isinstance(plain.to_frame(), pd.DataFrame)
    assert (wider.p_values >= plain.p_values).all()
    assert (np.diff(np.array(wider.limits(0.95)), axis=0) > np.diff(np.array(plain.limits(0.95)), axis=0)).all()
