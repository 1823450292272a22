"""Every generalised model of tests/reference/glmm.json.gz against lme4 1.1-31 and glmmTMB 1.1.5.

The file was made once with R 4.2.2; each model was minimised by several optimisers with tight tolerances and
polished by Newton steps. "expected" holds lme4's numbers (expected information in the Laplace approximation),
"observed" those of glmmTMB. Gamma and inverse Gaussian models of lme4 are not maximum likelihood and are left out.
"""

from __future__ import annotations

import gzip
import json
import warnings
from functools import cache
from typing import Any

import numpy as np
import pytest
from reference_data import REFERENCE, load_reference

import lme4py

MODELS: dict[str, dict[str, Any]] = json.loads(gzip.decompress((REFERENCE / "glmm.json.gz").read_bytes()))["models"]
CASES = [(name, kind) for name, model in MODELS.items() for kind in ("expected", "observed") if kind in model]

# lme4's standard errors come from finite differences of a numerically converged deviance; its own Hessian is only good
# to a few 1e-4 of its elements. glmmTMB's two models below have the same error against both lme4 and us.
SE_TOLERANCE = 2.5e-4
# Both programs stop where the log-likelihood can rise by about 1e-9; estimates then agree to about 1e-5 of
# the largest one.
TOLERANCE = 2e-5


@cache
def fit(name: str, kind: str) -> lme4py.MEGLMResult:
    """Our fit, made once; any warning but that of columns that R drops too is an error."""
    model = MODELS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", lme4py.RankWarning)
        # With the square root a few rows lie on the other side of zero.
        warnings.filterwarnings("ignore", ".*sqrt link has a pole or a zero", lme4py.OptimaWarning)
        return lme4py.glmer(
            model["formula"],
            load_reference(model["data"]),
            model["family"],
            link=model["link"],
            nAGQ=model["nAGQ"],
            hessian=kind,
            weights=model["weights"],
            offset=model["offset"],
            contrasts=model["contrasts"],
            na_action=model["na_action"],
        )


def relative(ours: Any, reference: Any) -> float:
    """Largest difference in units of the largest element."""
    a, b = np.asarray(ours, float).ravel(), np.asarray(reference, float).ravel()
    assert a.shape == b.shape
    return float(np.abs(a - b).max(initial=0.0) / max(np.abs(b).max(initial=0.0), 1e-300))


def by_group(name: str, kind: str) -> dict[str, int]:
    """R's label of a term (the factor, numbered from its second term on) -> its position here."""
    from lme4py.fits.parameters import term_labels

    return {label: i for i, label in enumerate(term_labels(fit(name, kind).fit.design.terms))}


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_log_likelihood(name: str, kind: str) -> None:
    result, reference = fit(name, kind), MODELS[name][kind]
    assert result.converged
    # Never worse than the reference by more than its own rounding, and not another model: glmmTMB may stop 1e-5 early.
    assert -1e-6 < result.log_likelihood - reference["log_likelihood"] < 2e-5
    assert len(result.opt_log) <= 30


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_fixed_effects(name: str, kind: str) -> None:
    result, reference = fit(name, kind), MODELS[name][kind]
    if reference["fixef"] is not None:
        assert relative(result.params, reference["fixef"]) < TOLERANCE
    if reference.get("se") is not None:
        assert relative(result.bse, reference["se"]) < SE_TOLERANCE


@pytest.mark.parametrize(("name", "kind"), [case for case in CASES if "sd" in MODELS[case[0]][case[1]]])
def test_covariances(name: str, kind: str) -> None:
    result, reference = fit(name, kind), MODELS[name][kind]
    assert result.n_params == reference["df"]
    for label, position in by_group(name, kind).items():
        covariance = result.fit.covariances[position]
        sd = np.sqrt(np.diag(covariance))
        size = max(float(np.max(reference["sd"][label])), 1e-3)
        assert np.abs(sd - reference["sd"][label]).max() < 1e-4 * size, label
        if (np.array(reference["sd"][label]) > 1e-3 * size).all():
            expected = np.array(reference["cor"][label], float) * np.outer(sd, sd)
            assert np.abs(covariance - expected).max() < 1e-4 * size**2, label
    if "sigma" in reference and reference["sigma"] is not None:
        assert result.sigma == pytest.approx(reference["sigma"], rel=TOLERANCE)


@pytest.mark.parametrize(("name", "kind"), [case for case in CASES if "ranef" in MODELS[case[0]][case[1]]])
def test_random_effects(name: str, kind: str) -> None:
    result, reference = fit(name, kind), MODELS[name][kind]
    terms = result.fit.design.terms
    for group, expected in reference["ranef"].items():
        positions = [i for i, term in enumerate(terms) if term.group == group]
        modes = np.hstack([result.fit.modes[i] for i in positions])
        values = np.array(expected["values"], float)
        assert relative(modes[: len(values)], values) < 1e-4, group
        for i, total in zip(positions, reference.get("cond_var", {}).get(group, []), strict=False):
            if total is not None:
                assert relative(result.fit.conditional_covariances[i].sum(axis=0), total) < 1e-4, group


@pytest.mark.parametrize(("name", "kind"), [case for case in CASES if "fitted" in MODELS[case[0]][case[1]]])
def test_rows(name: str, kind: str) -> None:
    result, reference = fit(name, kind), MODELS[name][kind]
    pairs = [(result.fit.fitted, reference["fitted"])]
    from lme4py.inference.diagnostics.residuals import residual_values

    for type_, expected in reference["residuals"].items():
        pairs.append((residual_values(result.fit, type_), expected))
    for ours, expected in pairs:
        # R pads rows with missing values under na.exclude; the sum of squares leaves them out.
        assert float((ours**2).sum()) == pytest.approx(expected["sumsq"], rel=1e-4)


def test_anchors() -> None:
    """Published numbers, to all digits that were printed."""
    cbpp = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
    data = lme4py.load_dataset("cbpp")
    laplace = lme4py.glmer(cbpp, data)
    assert laplace.deviance == pytest.approx(184.0525636, abs=1e-6)
    assert relative(laplace.params, [-1.3985320592, -0.9923327942, -1.1286722331, -1.5803139390]) < 1e-6
    assert relative(laplace.bse, [0.2324717631, 0.3066421057, 0.3266373818, 0.4274357366]) < 5e-6
    assert laplace.variance_components["var(_cons)"] == pytest.approx(0.4124996878, abs=5e-7)
    # With all constants, at every number of points.
    assert lme4py.glmer(cbpp, data, nAGQ=25).log_likelihood == pytest.approx(-91.98337, abs=1e-5)


@pytest.mark.parametrize(
    ("formula", "data", "family", "deviance"),
    [
        ("r2 ~ Anger + Gender + btype + situ + (1 | id) + (1 | item)", "VerbAgg", "binomial", 8151.39972),
        ("use ~ age + I(age^2) + urban + livch + (urban | district)", "Contraception", "binomial", 2360.610285),
        ("TICKS ~ YEAR + cHEIGHT + (1 | BROOD) + (1 | INDEX) + (1 | LOCATION)", "grouseticks", "poisson", 1780.54266),
    ],
)
def test_deviances(formula: str, data: str, family: str, deviance: float) -> None:
    result = lme4py.glmer(formula, lme4py.load_dataset(data), family)
    assert result.deviance == pytest.approx(deviance, abs=2e-5)
