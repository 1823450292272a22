"""A residual standard deviation that is known: meta-analysis against metafor, and dense algebra."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from reference_data import REFERENCE, load_reference
from scipy import optimize

import lme4py
from lme4py.errors import OptionError

MODELS = json.loads((REFERENCE / "meta.json").read_text(encoding="utf-8"))
BCG = load_reference("dat_bcg").assign(obs=range(1, 14))


def fitted(name: str) -> Any:
    m = MODELS[name]
    data = BCG if m["data"] == "dat_bcg" else load_reference(m["data"])
    # The district enters once: school within it is the second level.
    formula = m["formula"].replace("(1 | district) + ", "")
    return lme4py.lmer(formula, data, weights="1/vi", sigma=1, reml=m["reml"])


@pytest.mark.parametrize("name", MODELS)
def test_models_of_metafor(name: str) -> None:
    m, fit = MODELS[name], fitted(name)
    assert fit.converged
    found = fit.heterogeneity()
    # metafor's optimisers stop where the log-likelihood is known to 1e-8 or better.
    assert fit.log_likelihood + m["half_log_det"] == pytest.approx(m["log_likelihood"], abs=1e-7)
    assert found.log_likelihood_metafor == pytest.approx(m["log_likelihood"], abs=1e-7)
    np.testing.assert_allclose(fit.params, m["coefficients"], atol=1e-5 * min(m["std_errors"]))
    np.testing.assert_allclose(fit.bse, m["std_errors"], rtol=1e-5)
    variances = sorted(float(cov[0, 0]) for cov in fit.fit.covariances)
    np.testing.assert_allclose(variances, sorted(np.atleast_1d(m["variances"])), rtol=1e-5)
    # Closed forms.
    assert [found.Q, found.df, found.p_value] == pytest.approx(m["Q"], rel=1e-8)
    if "I2" in m:
        assert pytest.approx([m["I2"], m["H2"]], rel=1e-5) == [found.I2, found.H2]
    if "knapp_hartung" in m:
        table = fit.coef_table(ddf="knapp-hartung")
        np.testing.assert_allclose(table["std_error"], m["knapp_hartung"]["std_errors"], rtol=1e-5)
        np.testing.assert_allclose(table["p_value"], m["knapp_hartung"]["p_values"], rtol=1e-4)
        assert (table["df"] == m["knapp_hartung"]["df"]).all()
    if "prediction" in m:
        assert [found.lower, found.upper] == pytest.approx(m["prediction"], rel=1e-5)


def test_sigma_is_no_parameter_and_its_value_is_not_estimated() -> None:
    fit = fitted("konst_3l")
    assert fit.sigma == 1.0
    assert fit.n_params == 3
    assert fit.heterogeneity().I2_by_term.keys() == {"(1 | school:district)", "(1 | district)"}
    assert "Residual" not in fit.var_corr()["group"].tolist()
    assert list(fit.conf_int(parm="random").index) == ["sd(Intercept | school:district)", "sd(Intercept | district)"]
    assert any("sigma is known: 1" in note for note in fit.fit.design.notes)
    # Weights 4 / vi with sigma 2 are the same variances.
    again = lme4py.lmer("yi ~ 1 + (1 | district/school)", load_reference("dat_konst"), weights="4/vi", sigma=2)
    assert again.log_likelihood == pytest.approx(fit.log_likelihood, abs=1e-9)


def data() -> pd.DataFrame:
    rng = np.random.default_rng(3)
    g, h = np.repeat(np.arange(8), 6), np.tile(np.arange(6), 8)
    x = rng.normal(size=48)
    y = x + rng.normal(size=8)[g] + 0.5 * rng.normal(size=6)[h] + 0.8 * rng.normal(size=48)
    return pd.DataFrame({"y": y, "x": x, "g": g.astype(str), "h": h.astype(str), "w": rng.uniform(0.5, 2.0, 48)})


DATA = data()


def dense(design: Any, theta: np.ndarray, sigma: float, reml: bool) -> float:
    V = sigma**2 * np.diag(1.0 / design.weights)
    for term, T in zip(design.terms, design.structures.factors(theta), strict=True):
        V += sigma**2 * (term.codes[:, None] == term.codes) * (term.values @ T @ T.T @ term.values.T)
    inverse, X = np.linalg.inv(V), design.X
    XVX = X.T @ inverse @ X
    r = design.y - X @ np.linalg.solve(XVX, X.T @ inverse @ design.y)
    n, p = X.shape
    value = np.linalg.slogdet(V)[1] + r @ inverse @ r + (n - p if reml else n) * np.log(2.0 * np.pi)
    return float(value + (np.linalg.slogdet(XVX)[1] if reml else 0.0))


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("formula", ["y ~ x + (x | g)", "y ~ x + (1 | g) + (1 | h)"])
def test_the_criterion_is_that_of_dense_algebra(formula: str, reml: bool) -> None:
    fit = lme4py.lmer(formula, DATA, weights="w", sigma=0.7, reml=reml)
    criterion = lme4py.lmm_criterion(fit.fit.design, reml)
    rng = np.random.default_rng(1)
    theta = rng.uniform(0.5, 1.5, fit.fit.theta.size)
    # Well-conditioned matrices of 48 rows.
    assert criterion(theta) == pytest.approx(dense(fit.fit.design, theta, 0.7, reml), abs=1e-9)
    h = 1e-4
    slopes = [(criterion(theta + h * e) - criterion(theta - h * e)) / (2 * h) for e in np.eye(theta.size)]
    # A central difference: h^2 times a third derivative.
    np.testing.assert_allclose(criterion.gradient(theta), slopes, atol=1e-5)
    assert fit.fit.certificate.gradient_norm < 1e-4
    assert dense(fit.fit.design, fit.fit.theta, 0.7, reml) == pytest.approx(fit.criterion, abs=1e-9)


def test_what_follows_keeps_sigma() -> None:
    fit = lme4py.lmer("y ~ x + (1 | g) + (1 | h)", DATA, weights="w", sigma=0.7)
    free = lme4py.lmer("y ~ x + (1 | g) + (1 | h)", DATA, weights="w")
    assert fit.refit(DATA["y"] * 2.0).sigma == 0.7
    boot = fit.bootstrap(3, seed=1).replicates
    assert not any("sigma" in name for name in boot)
    limits = fit.conf_int(method="profile", parm="random")
    wald = fit.conf_int(parm="random")
    assert list(limits.index) == list(wald.index)
    best = lme4py.lmer("y ~ x + (1 | g) + (1 | h)", DATA, weights="w", sigma=0.7, reml=False)
    criterion = lme4py.lmm_criterion(best.fit.design, False)
    for name, row in limits.iterrows():
        t = next(t for t, term in enumerate(best.fit.design.terms) if f"| {term.group})" in name)
        for sd in row:

            def held(other: float, t: int = t, sd: float = sd) -> float:
                return criterion([sd / 0.7, other] if t == 0 else [other, sd / 0.7])

            least = optimize.minimize_scalar(held, bounds=(0.0, 5.0), method="bounded", options={"xatol": 1e-9})
            # Profiles are solved to 1e-6 of the deviance.
            assert least.fun - best.criterion == pytest.approx(3.841459, abs=1e-5)
    with pytest.raises(OptionError, match="no one share"):
        lme4py.icc(fit, component="g")
    with pytest.raises(OptionError, match="sampling variances are known"):
        free.heterogeneity()
    with pytest.raises(OptionError, match="sampling variances are known"):
        free.coef_table(ddf="knapp-hartung")
    assert lme4py.lrtest(lme4py.lmer("y ~ x + (1 | g)", DATA, weights="w", sigma=0.7), fit).df == 1


@pytest.mark.parametrize(
    ("more", "match"),
    [
        ({"sigma": 0.0}, "a positive number"),
        ({"sigma": "1"}, "a positive number"),
        ({"sigma": 1, "residual": "ar1(1 | g)"}, "cannot go together"),
    ],
)
def test_what_is_refused(more: dict[str, Any], match: str) -> None:
    with pytest.raises(OptionError, match=match):
        lme4py.lmer("y ~ x + (1 | g)", DATA, **more)


def test_a_refit_knows_sigma_in_the_units_of_the_new_response() -> None:
    data = lme4py.load_dataset("sleepstudy")
    fit = lme4py.lmer("Reaction ~ Days + (Days | Subject)", data, sigma=26.0)
    y = 3.0 * fit.simulate(1, seed=1).iloc[:, 0]
    again = fit.refit(y)
    same = lme4py.lmer("Reaction ~ Days + (Days | Subject)", data.assign(Reaction=y.to_numpy()), sigma=26.0)
    # The same model by another way in.
    assert again.log_likelihood == pytest.approx(same.log_likelihood, abs=1e-8)
    assert again.variance_components["var(Days)"] == pytest.approx(same.variance_components["var(Days)"], rel=1e-6)


def test_shares_of_common_effects_follow_from_q() -> None:
    """As metafor's method = "EE": no variance is estimated that they could be shares of."""
    data = {"yi": [0.1, 0.6, -0.4, 0.9, 0.2], "vi": [0.02, 0.03, 0.05, 0.02, 0.04]}
    found = lme4py.meta(data, "yi", "vi", method="EE").heterogeneity()
    np.testing.assert_allclose(
        [found.I2, found.H2], [100.0 * (1.0 - found.df / found.Q), found.Q / found.df], rtol=1e-12
    )
    assert found.tau2 == 0.0
