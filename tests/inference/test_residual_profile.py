"""Profiles of models with a residual structure: those of lmer() where the structure says nothing, else brute force."""

from __future__ import annotations

import numpy as np
import pytest
from reference_data import load_reference
from scipy import optimize

import lme4py
from lme4py.errors import OptionError


def test_a_dispersion_without_effect_leaves_the_profile_as_it_is():
    data = lme4py.load_dataset("sleepstudy")
    formula = "Reaction ~ Days + (Days | Subject)"
    a = lme4py.lmer(formula, data, dispformula="~ 1").profile()
    b = lme4py.lmer(formula, data).profile()
    # Roots that are found to 1e-7 of the signed root, of two optimisers.
    assert a.conf_int().to_numpy() == pytest.approx(b.conf_int().to_numpy(), rel=1e-6)
    assert a.estimates == pytest.approx(b.estimates, rel=1e-5)


def test_a_coefficient_beside_correlated_residuals_is_that_of_brute_force():
    """The likelihood of gls with AR(1) residuals, written out and minimised by a general optimiser."""
    data = lme4py.load_dataset("Orthodont")
    fit = lme4py.lmer("distance ~ age * Sex", data, residual="ar1(1 | Subject)", reml=False)
    low, high = fit.conf_int(method="profile", parm=["age"]).loc["age"]
    X, y = fit.fit.design.X, fit.fit.design.y
    j = list(fit.params.index).index("age")
    blocks = y.reshape(-1, 4)
    lags = np.abs(np.subtract.outer(range(4), range(4)))

    def deviance(value: float) -> float:
        rest, left = np.delete(X, j, axis=1).reshape(-1, 4, X.shape[1] - 1), blocks - value * X[:, j].reshape(-1, 4)

        def at(par):
            V = np.exp(2.0 * par[0]) * np.tanh(par[1]) ** lags
            Vi = np.linalg.inv(V)
            A = np.einsum("gia,ij,gjb->ab", rest, Vi, rest)
            b = np.einsum("gia,ij,gj->a", rest, Vi, left)
            e = left - rest @ np.linalg.solve(A, b)
            return (
                len(blocks) * np.linalg.slogdet(V)[1] + np.einsum("gi,ij,gj->", e, Vi, e) + y.size * np.log(2 * np.pi)
            )

        return optimize.minimize(at, [0.8, 0.7], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-10}).fun

    # The deviance rises by the quantile at a limit; the simplex is good to 1e-9 or so.
    for value in (low, high):
        assert deviance(value) - fit.criterion == pytest.approx(3.841458820694124, abs=1e-6)


def test_a_standard_deviation_beside_correlated_residuals_is_that_of_brute_force():
    data = load_reference("irreg")
    fit = lme4py.lmer("y ~ x + time + (1 | id)", data, residual="car1(time | id)", reml=False)
    low, high = fit.conf_int(method="profile", parm=["sd(Intercept | id)"]).iloc[0]
    X, y = fit.fit.design.X, fit.fit.design.y
    id_, t = data["id"].to_numpy(), data["time"].to_numpy()
    rows = [np.flatnonzero(id_ == level) for level in np.unique(id_)]

    def deviance(sd: float) -> float:
        def at(par):
            A, b, c, det = np.zeros((3, 3)), np.zeros(3), 0.0, 0.0
            for r in rows:
                R = np.exp(2.0 * par[0]) * np.exp(-np.exp(par[1]) * np.abs(np.subtract.outer(t[r], t[r])))
                V = R + sd**2
                Vi = np.linalg.inv(V)
                A += X[r].T @ Vi @ X[r]
                b += X[r].T @ Vi @ y[r]
                c += y[r] @ Vi @ y[r]
                det += np.linalg.slogdet(V)[1]
            return det + c - b @ np.linalg.solve(A, b) + y.size * np.log(2 * np.pi)

        start = [np.log(fit.sigma), 0.0]
        return optimize.minimize(at, start, method="BFGS", options={"gtol": 1e-7}).fun

    for value in (low, high):
        if value > 0.0:
            assert deviance(value) - fit.criterion == pytest.approx(3.841458820694124, abs=1e-5)


def test_other_structures_and_what_has_no_likelihood():
    data = load_reference("mmrm200")
    fit = lme4py.mmrm("y ~ base * visit + arm * visit + us(visit | id)", data)
    table = fit.conf_int(method="profile", parm=["base", "arm[T.active]"])
    ml = lme4py.mmrm("y ~ base * visit + arm * visit + us(visit | id)", data, reml=False, method="Satterthwaite")
    # Profile and Wald limits agree to second order in 200 subjects.
    wald = ml.conf_int().loc[table.index]
    assert table.to_numpy() == pytest.approx(wald.to_numpy(), rel=0.02)
    power = lme4py.lmer("distance ~ age + (1 | Subject)", lme4py.load_dataset("Orthodont"), variance="power(fitted)")
    with pytest.raises(OptionError, match="no likelihood"):
        power.profile()
