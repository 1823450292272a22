"""Models of categories of simulated data beside R's ordinal and nnet, and other structures by quadrature."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from reference_data import REFERENCE
from scipy import optimize, stats

import lme4py

R = json.loads((REFERENCE / "ordinal_simulated.json").read_text(encoding="utf-8"))
DATA = pd.DataFrame(R["data"]).assign(g=lambda d: d["g"].astype(str), z=lambda d: d["z"].astype(float))
CODES = DATA["o"].to_numpy() - 1
KINDS = {"nominal": ("x", "~ z", None), "scale": ("x + f", None, "~ z"), "both": ("f", "~ x", "~ z")}
# P(Y > k) = G(eta - alpha_k) with glmer's links; clm names the two asymmetric ones the other way round.
LINKS = {"cloglog": "loglog", "loglog": "cloglog"}
CDF = {
    "logit": stats.logistic.cdf,
    "probit": stats.norm.cdf,
    "cauchit": stats.cauchy.cdf,
    "cloglog": lambda t: np.exp(-np.exp(-t)),
    "loglog": lambda t: -np.expm1(-np.exp(t)),
}


def numbers(fit: Any) -> tuple[np.ndarray, np.ndarray]:
    """Free parameters of thresholds, nominal, location, scale, and their standard errors."""
    tables = [fit.threshold_parameters(), *(fit.coef_table(component=p) for p in ("nominal",) if p in fit.components)]
    tables += [fit.coef_table(), *(fit.coef_table(component=p) for p in ("scale",) if p in fit.components)]
    whole = pd.concat(tables)
    return whole["estimate"].to_numpy(), whole["std_error"].to_numpy()


@pytest.mark.parametrize("name", R["models"])
def test_the_numbers_of_clm_and_clmm2(name):
    want = R["models"][name]
    program, link, kind, threshold = name.split()
    right, nominal, scale = KINDS[kind]
    options: dict[str, Any] = {
        "nominal": nominal,
        "scale": scale,
        "threshold": threshold,
        "link": LINKS.get(link, link),
    }
    if program == "clm":
        fit = lme4py.clmm(f"o ~ {right}", DATA, fixed_only=True, **options)
    else:
        options |= {"nominal": "~ z", "nAGQ": 10}
        fit = lme4py.clmm("o ~ x + (1 | g)", DATA, **options)
        # clmm2 stops at gradients of 3e-6.
        assert fit.var_corr()["sdcor"].iloc[0] == pytest.approx(want["sd"], rel=1e-5)
    assert fit.log_likelihood == pytest.approx(want["log_likelihood"], abs=1e-6 if program == "clmm2" else 1e-9)
    estimates, errors = numbers(fit)
    k = estimates.size
    np.testing.assert_allclose(estimates, want["coefficients"][:k], atol=1e-5 if program == "clmm2" else 1e-6)
    # Our information is that of differences of exact gradients.
    np.testing.assert_allclose(errors, want["std_errors"][:k], rtol=1e-4 if program == "clmm2" else 1e-5)


def test_unordered_categories_are_those_of_multinom():
    fit, want = lme4py.glmer("y ~ x + f + z", DATA, family="multinomial"), R["multinom"]
    assert fit.log_likelihood == pytest.approx(want["log_likelihood"], abs=1e-9)
    np.testing.assert_allclose(fit.params, want["coefficients"], atol=1e-6)
    np.testing.assert_allclose(fit.bse, want["std_errors"], rtol=1e-5)  # multinom stops at 1e-15 of its deviance


@pytest.mark.parametrize("name", R["nominal_test"])
def test_proportional_odds_are_tested_as_by_nominal_test(name):
    scale = {"formula": "o ~ x + f", "scale": "~ z"}
    options = scale if name == "scale" else {"formula": "o ~ x + f + z", "link": name}
    fit, want = lme4py.clmm(data=DATA, fixed_only=True, **options), R["nominal_test"][name]
    found = fit.proportional_odds("lr")
    # nominal_test asks for terms of the scale too, those of the location come first.
    assert found.index.tolist() == want["terms"][: len(found)]
    assert found["df"].tolist() == want["df"][: len(found)]
    np.testing.assert_allclose(found["chi2"], want["chi2"][: len(found)], rtol=1e-6)  # clm's default tolerance
    # The score test asks the same question to first order.
    np.testing.assert_allclose(fit.proportional_odds("score")["chi2"], found["chi2"], rtol=0.2, atol=0.5)
    line = fit.check()["proportional odds"]
    assert line.value == pytest.approx(fit.proportional_odds("score")["p_value"].min())


@pytest.mark.parametrize(
    ("structure", "link", "kind"),
    [
        ("sequential", "logit", "nominal"),
        ("sequential", "cloglog", "scale"),
        ("adjacent", "logit", "scale"),
        ("adjacent", "logit", "nominal"),
        ("cumulative", "cauchit", "scale"),
    ],
)
def test_quadrature_of_every_structure(structure, link, kind):
    """The log-likelihood by 61 points of a rule that is not adaptive, and its slope at the estimates."""
    right, nominal, scale = {"nominal": ("x", "~ z", None), "scale": ("x", None, "~ z")}[kind]
    fit = lme4py.clmm(
        f"o ~ {right} + (1 | g)", DATA, structure=structure, link=link, nominal=nominal, scale=scale, nAGQ=25
    )
    u, w = np.polynomial.hermite_e.hermegauss(61)
    x, z, group = DATA["x"].to_numpy(), DATA["z"].to_numpy(), pd.factorize(DATA["g"])[0]

    def log_likelihood(par: np.ndarray) -> float:
        eta = (par[4] * x)[:, None] + par[-1] * u
        cuts = par[:4] + z[:, None] * (par[5:9] if nominal else 0.0)
        size = np.exp(par[5] * z) if scale else np.ones(len(z))
        t = (cuts[:, None, :] - eta[:, :, None]) / size[:, None, None]
        ones, none = np.ones((*eta.shape, 1)), np.zeros((*eta.shape, 1))
        if structure == "adjacent":
            scores = -np.concatenate([none, np.cumsum(t, axis=-1)], axis=-1)
            p = np.exp(scores - np.logaddexp.reduce(scores, axis=-1, keepdims=True))
        elif structure == "sequential":
            stop = np.concatenate([CDF[link](t), ones], axis=-1)
            p = stop * np.cumprod(np.concatenate([ones, 1.0 - stop[..., :-1]], axis=-1), axis=-1)
        else:
            p = np.diff(np.concatenate([none, CDF[link](t), ones], axis=-1), axis=-1)
        rows = np.log(np.take_along_axis(p, CODES[:, None, None], axis=-1)[..., 0])
        groups = np.zeros((group.max() + 1, u.size))
        np.add.at(groups, group, rows)
        return float(np.log(np.exp(groups) @ (w / w.sum())).sum())

    estimates, errors = numbers(fit)
    order = [*range(4), 8, *range(4, 8)] if nominal else list(range(6))
    par = np.append(estimates[order], fit.var_corr()["sdcor"].iloc[0])
    # A rule that is not adaptive is good to about 1e-6 for groups of ten rows, less for the cauchit link.
    assert log_likelihood(par) == pytest.approx(fit.log_likelihood, abs=1e-4 if link == "cauchit" else 2e-6)
    slope = optimize.approx_fprime(par, log_likelihood, 1e-5)[:-1]
    # Slopes times standard errors: how far from the maximum, in units of their own errors.
    np.testing.assert_allclose(slope * errors[order], 0.0, atol=2e-2 if link == "cauchit" else 2e-3)
