"""Every linear mixed model of tests/reference/lmm.json.gz against lme4 1.1-31 at its polished optimum.

The file was made once with R 4.2.2: each model was minimised by several optimisers with tight tolerances,
the best of them was polished by Newton steps until the criterion could fall by less than 1e-12, and all
numbers come from R's own extractors at that point.
"""

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

MODELS: dict[str, dict[str, Any]] = json.loads(gzip.decompress((REFERENCE / "lmm.json.gz").read_bytes()))["models"]

# Both optima stop where the criterion can fall by 1e-13 at most; a parameter whose curvature is of order one
# is then known to about the square root of that, 3e-7.
TOLERANCE = 1e-6

# Model -> tolerance and why it is wider.
WIDER: dict[str, tuple[float, str]] = {
    "lmm_assay": (
        1e-5,
        "R's optimisers differ by 1.0e-5; ours is the exact answer of the analysis of variance",
    ),
    "lmm_tvbo": (
        1e-5,
        "R's optimisers differ by 3.5e-6; ours is the exact answer of the analysis of variance",
    ),
}

# `||` with a factor, or an effect that is constant within its group: only sums of variances are identified,
# so that theta, the covariance of each term and the modes of each term are arbitrary. Sums are compared.
NOT_IDENTIFIED = {
    "lmm_fac_max": "h is constant within item, so (h | item) has one parameter too many",
    "lmm_machines_fsdbar": "(Machine || Worker) is (1 | Worker) + (0 + Machine | Worker) as in lme4",
}


# There too the design does not determine all variances, but on the boundary their estimates cannot move.
SHARED = {*NOT_IDENTIFIED, "lmm_sleep_re_inter"}


@cache
def fit(name: str) -> lme4py.MixedResult:
    """Our fit of a reference model through the front door, made once; any other warning is an error."""
    model = MODELS[name]
    data = load_reference(model["data"])
    # R evaluates `weights` in the data; here it is a column or an array.
    weights = np.exp(data["x2"].to_numpy()) if model["weights"] == "exp(x2)" else model["weights"]
    contrasts = model["contrasts"]
    if contrasts is not None:
        contrasts = {key: v if isinstance(v, str) else np.array(v, float) for key, v in contrasts.items()}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = lme4py.lmer(
            model["formula"],
            data,
            reml=model["reml"],
            weights=weights,
            offset=model["offset"],
            contrasts=contrasts,
            na_action=model["na_action"],
        )
    expected = [lme4py.RankWarning] if model["dropped"] else []
    expected += [lme4py.IdentificationWarning] if name in SHARED else []
    assert [w.category for w in caught] == expected, [str(w.message) for w in caught]
    return result


class Comparison:
    """Collects what differs by more than the tolerance, so that one failure shows all of it."""

    def __init__(self, tolerance: float) -> None:
        self.tolerance = tolerance
        self.found: list[str] = []

    def close(self, what: str, ours: Any, expected: Any, scale: Any = None, tolerance: float | None = None) -> None:
        """|ours - expected| <= tolerance * scale; the largest element of `expected` is the scale."""
        a, b = np.asarray(ours, dtype=float), np.asarray(expected, dtype=float)
        if a.shape != b.shape:
            self.found.append(f"{what}: shape {a.shape} instead of {b.shape}")
            return
        if (np.isnan(a) != np.isnan(b)).any():
            self.found.append(f"{what}: NaN at other places")
            return
        allowed = tolerance or self.tolerance
        size = np.abs(b).max(initial=0.0, where=~np.isnan(b)) if scale is None else np.asarray(scale, dtype=float)
        gap = np.nan_to_num(np.abs(a - b)) - allowed * size
        if (gap > 0).any():
            worst = np.unravel_index(np.argmax(gap), gap.shape)
            self.found.append(f"{what}{list(map(int, worst))}: {a[worst]!r} instead of {b[worst]!r} (within {allowed})")

    def same(self, what: str, ours: Any, expected: Any) -> None:
        if ours != expected:
            self.found.append(f"{what}: {ours!r} instead of {expected!r}")


def compare_criterion(c: Comparison, result: lme4py.MixedResult, model: dict[str, Any]) -> None:
    reference = model["criterion"]
    # Rounding of the criterion grows with its size; 1e-6 is what the certificate promises.
    allowed = 1e-6 * max(1.0, abs(reference) / 1000)
    # 2 x the spread: it was recorded as log-likelihood.
    below = allowed + 2 * model["spread"]["loglik"]
    if not -below <= result.criterion - reference <= allowed:
        c.found.append(f"criterion: {result.criterion!r} instead of {reference!r}")
    c.same("converged", result.converged, True)
    c.same("singular", result.is_singular, model["singular"])
    c.close("log-likelihood", result.log_likelihood, -reference / 2, tolerance=1e-9)  # the same number, halved
    # Counts are exact and the criterion is good to 1e-6, so these are too.
    c.close("AIC", result.aic, model["aic"], scale=1.0, tolerance=2 * allowed)
    c.close("BIC", result.bic, model["bic"], scale=1.0, tolerance=2 * allowed)
    c.same("n_params", result.n_params, model["df"])
    c.same("df_resid", result.df_resid, model["df_residual"])
    c.same("n_obs", result.n_obs, model["n_obs"])
    c.same("n_groups", result.n_groups, model["n_groups"])


def compare_fixed(c: Comparison, result: lme4py.MixedResult, model: dict[str, Any]) -> None:
    """R's and formulaic's names differ; the order of the columns is the same."""
    estimate, se = np.array(model["fixef"]["estimate"]), np.array(model["fixef"]["se"])
    names = ["Intercept" if name == "(Intercept)" else name for name in model["fixef"]["names"]]
    plain = [i for i, name in enumerate(names) if name == "Intercept" or name in load_reference(model["data"])]
    c.same("names", [result.params.index[i] for i in plain], [names[i] for i in plain])
    # A coefficient near zero is only known against its standard error.
    c.close("fixed effects", result.params, estimate, np.maximum(np.abs(estimate), se))
    c.close("standard errors", result.bse, se, se)
    c.close("vcov", result.cov_params(), np.reshape(model["vcov"], (se.size, se.size)), np.outer(se, se))
    c.close("columns of X", result.model_matrix.sum(), model["x_sums"], np.maximum(np.abs(model["x_sums"]), 1.0))
    c.same("dropped columns", len(result.fit.design.dropped), len(model["dropped"]))
    omitted = (np.flatnonzero(~result.fit.design.keep) + 1).tolist()
    c.same("omitted rows", omitted, model["na_omitted_rows"])


def compare_variances(c: Comparison, result: lme4py.MixedResult, model: dict[str, Any], identified: bool) -> None:
    c.close("sigma", result.sigma, model["sigma"])
    terms = result.fit.design.terms
    c.same("terms", len(terms), len(model["varcorr"]))
    for term, ours, entry in zip(terms, result.fit.covariances, model["varcorr"], strict=True):
        expected = np.array(entry["cov"], dtype=float)
        variances = np.diag(expected)
        # A variance of exactly zero must be zero against the residual variance.
        sd = np.sqrt(np.where(variances > 0, variances, model["sigma"] ** 2))
        if identified:
            c.close(f"covariance of {term.label}", ours, expected, np.outer(sd, sd))
    if identified:
        # The public table holds the same numbers.
        c.close("var_corr()", result.var_corr()["vcov"], np.array(model["varcorr_table"]["vcov"], dtype=float))
        c.close("theta", result.theta, model["theta"])
        return
    for group in result.n_groups:
        positions = [i for i, term in enumerate(terms) if term.group == group]
        ours, expected = (summed_covariance(terms, positions, found) for found in covariances(result, model))
        c.close(f"summed covariance of {group}", ours, expected)


def covariances(result: lme4py.MixedResult, model: dict[str, Any]) -> tuple[Any, Any]:
    return result.fit.covariances, [np.array(entry["cov"], dtype=float) for entry in model["varcorr"]]


def summed_covariance(terms: Any, positions: list[int], found: Any) -> Any:
    """Covariance within a group of the sum of all terms of a factor, between distinct rows of their columns.

    When a column is constant within the group only the variances of the rows are identified.
    """
    values = np.hstack([terms[i].values for i in positions])
    rows = np.unique(values, axis=0)[:50]
    blocks = np.zeros((values.shape[1], values.shape[1]))
    start = 0
    for i in positions:
        k = terms[i].n_columns
        blocks[start : start + k, start : start + k] = found[i]
        start += k
    total = rows @ blocks @ rows.T
    together = np.zeros(total.shape, dtype=bool)
    places = {tuple(row): j for j, row in enumerate(rows)}
    codes = terms[positions[0]].codes
    for level in range(min(terms[positions[0]].n_levels, 50)):
        seen = [places[key] for key in {tuple(row) for row in values[codes == level]} if key in places]
        together[np.ix_(seen, seen)] = True
    return np.where(together, total, 0.0)


def compare_modes(c: Comparison, result: lme4py.MixedResult, model: dict[str, Any]) -> None:
    if all(expected["cond_var"] is None for expected in model["ranef"].values()):
        # R was not asked for them in the largest models.
        modes, sds, blocks = result.ranef(), None, None
    else:
        modes, sds = result.ranef(conditional_se=True)
        blocks = model_of(result.fit).conditional_covariances()
    if len(result.n_groups) == 1:
        group = next(iter(result.n_groups))
        modes, sds = {group: modes}, {group: sds}
    c.same("grouping factors", sorted(modes), sorted(model["ranef"]))
    for group, expected in model["ranef"].items():
        ours = modes[group].to_numpy()
        values = np.array(expected["values"], dtype=float)
        shown = len(values)
        squares = np.array(expected["col_sumsq"])
        # Scale of a column: its largest mode; a column of zeros is compared with sigma.
        scale = np.where(squares > 0, np.abs(values).max(axis=0), result.sigma)
        c.same(f"levels of {group}", [str(v) for v in modes[group].index[:shown]], expected["levels"][:shown])
        c.close(f"modes of {group}", ours[:shown], values, scale)
        c.close(f"sums of modes of {group}", ours.sum(axis=0), expected["col_sum"], np.sqrt(len(ours)) * scale)
        c.close(f"squares of modes of {group}", (ours**2).sum(axis=0), squares, np.maximum(squares, scale**2))
        if sds is None or blocks is None:
            continue
        positions = [i for i, term in enumerate(result.fit.design.terms) if term.group == group]
        for i, entry in zip(positions, expected["cond_var"], strict=True):
            first = np.array(entry["first"], dtype=float)
            k = first.shape[1]
            total = np.reshape(entry["sum_over_levels"], (k, k))
            size = np.abs(total).max() or result.sigma**2
            c.close(f"condVar of {group}", blocks[i][: len(first)], first, np.abs(first).max() or size)
            c.close(f"sum of condVar of {group}", blocks[i].sum(axis=0), total, size)
        diagonal = np.hstack([np.diagonal(blocks[i], axis1=1, axis2=2) for i in positions])
        c.close(f"conditional SDs of {group}", sds[group], np.sqrt(diagonal), tolerance=1e-12)  # the same numbers


def compare_rows(c: Comparison, result: lme4py.MixedResult, model: dict[str, Any]) -> None:
    vectors = {"fitted": (result.fittedvalues, model["fitted"])}
    kinds = {"default": "response", "response": "response", "pearson": "pearson", "scaled_pearson": "scaled"}
    for theirs, ours in kinds.items():
        vectors[f"residuals {theirs}"] = result.residuals(ours), model["residuals"][theirs]
    for name, (series, expected) in vectors.items():
        c.same(f"{name}: length", len(series), expected["n"])
        c.same(f"{name}: missing", int(series.isna().sum()), expected["n_missing"])
        largest = float(np.abs(series).max())
        c.close(f"{name}: head", series.to_numpy()[:10], expected["head"], largest)
        c.close(
            f"{name}: sum",
            series.sum(),
            expected["sum"],
            max(abs(expected["sum"]), np.sqrt(len(series)) * largest),
        )
        c.close(f"{name}: squares", (series**2).sum(), expected["sumsq"])


def test_nothing_is_left_out():
    # The reference holds this many linear mixed models.
    assert len(MODELS) == 104
    assert set(WIDER) | set(NOT_IDENTIFIED) <= set(MODELS)
    assert set(NOT_IDENTIFIED) == {name for name, m in MODELS.items() if "theta_not_identified" in m["tags"]}


@pytest.mark.parametrize("name", MODELS)
def test_model_agrees_with_the_reference(name):
    model, result = MODELS[name], fit(name)
    c = Comparison(WIDER.get(name, (TOLERANCE, ""))[0])
    compare_criterion(c, result, model)
    compare_fixed(c, result, model)
    compare_variances(c, result, model, name not in NOT_IDENTIFIED)
    if name not in NOT_IDENTIFIED:
        compare_modes(c, result, model)
    compare_rows(c, result, model)
    assert not c.found, "\n".join([name, *c.found])


@pytest.mark.parametrize("name", [name for name, model in MODELS.items() if model["predict"]])
def test_predictions_agree_with_the_reference(name):
    model, result = MODELS[name], fit(name)
    c = Comparison(WIDER.get(name, (TOLERANCE, ""))[0])
    for case in model["predict"]["cases"]:
        data = pd.DataFrame({**model["predict"]["newdata"], **case["changed"]}, index=list("uvwxyz"))
        what = f"predict, re.form {case['re_form']}, unseen levels {case['new_levels']}"
        if case["new_levels"]:
            with pytest.warns(lme4py.Lme4Warning, match="contribute nothing"):
                ours = result.predict(data)
            with pytest.raises(lme4py.DataError, match="not in the training data"):
                result.predict(data, new_levels="error")
        else:
            ours = predict_part(result, data, case["re_form"])
        c.same(what, list(ours.index), list("uvwxyz"))
        c.close(what, ours, case["values"])
    assert not c.found, "\n".join([name, *c.found])


def predict_part(result: lme4py.MixedResult, data: pd.DataFrame, re_form: str) -> pd.Series[float]:
    """R chooses terms, `include_random` grouping factors."""
    if re_form in ("NULL", "NA"):
        return result.predict(data, include_random=re_form == "NULL")
    label = re_form.removeprefix("~")
    group = label.strip("()").split("|")[1].strip()
    terms = [term for term in result.fit.design.terms if term.group == group]
    if len(terms) == 1:
        return result.predict(data, include_random=[group])
    # The first of several terms of one factor is an intercept in every one of these models.
    assert label == f"(1 | {group})"
    modes = result.ranef() if len(result.n_groups) == 1 else result.ranef()[group]
    levels = data[group].astype(modes.index.dtype)
    return result.predict(data, include_random=False) + modes["Intercept"].loc[levels].to_numpy()
