"""Profiles of generalised models."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from glmm_models import CBPP, REFERENCES, cbpp, fit, having, no_variance, sleep, wine
from scipy import optimize, stats

import lme4py
from lme4py.engine.generalised.criteria import JointCriterion
from lme4py.engine.generalised.problem import ModeFinder
from lme4py.errors import ConvergenceWarning, OptionError
from lme4py.fits.generalised.constrained import GlmmConstrained, covariances_of
from lme4py.fits.parameters import fit_parameters
from lme4py.inference.profile.profile import profile


@pytest.mark.parametrize("name", having("profile"))
def test_profile_limits_of_lme4(name):
    block, result = REFERENCES[name]["profile"], fit(name)
    ours = result.conf_int(method="profile", parm="all")
    known = {
        p.alias.replace("[T.", "").replace("]", "").replace("True", "TRUE"): p.name for p in fit_parameters(result.fit)
    }
    assert len(block["names"]) == len(ours)
    for row, limits in zip(block["names"], block["limits"], strict=True):
        # Roots of the deviance found by R to 1e-8 of the interval.
        assert ours.loc[known[row]].tolist() == pytest.approx(limits, abs=1e-6)


def test_profile_of_a_gaussian_model_is_that_of_the_linear_one():
    pair = [sleep("Reaction ~ Days + (Days | Subject)", family) for family in (None, "gaussian")]
    limits = [result.conf_int(method="profile", parm="all") for result in pair]
    # Two programs for the same likelihood; limits are roots to 1e-7 of the signed root.
    pd.testing.assert_frame_equal(*limits, rtol=1e-5)


@pytest.mark.parametrize(
    ("formula", "parameter"),
    [
        ("period + diag(1 + x | herd)", "sd(x | herd)"),
        ("period + homcs(1 + x | herd)", "sd(Intercept | herd)"),
        ("x + (x | herd)", "sd(x | herd)"),
    ],
)
def test_constrained_minimum_is_one(formula, parameter):
    """The chart leaves nothing out: the free coordinates reach the estimates, and the slope is the derivative."""
    data = lme4py.load_dataset("cbpp").assign(x=lambda d: np.linspace(-1, 1, len(d)) ** 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        result = lme4py.glmer(f"cbind(incidence, size - incidence) ~ {formula}", data)
    held = next(p for p in fit_parameters(result.fit) if p.name == parameter)
    constrained = GlmmConstrained(result.fit, held)
    start = constrained.estimate
    v = start.v + 0.3
    x = constrained.minimum(v, start.x).x
    h = 1e-3
    # Differences of minima that are good to 1e-7.
    low, middle, high = (constrained.minimum(v + step, x) for step in (-h, 0.0, h))
    assert middle.slope == pytest.approx((high.value - low.value) / (2 * h), rel=1e-3, abs=1e-3)
    assert middle.value > result.fit.criterion - 1e-7
    cov = covariances_of(constrained.problem, middle.theta)[held.term]
    assert np.sqrt(cov[held.first, held.first]) == pytest.approx(v, rel=1e-9)


def test_profile_of_fixed_effects_is_that_of_offsets():
    """A held coefficient is an offset: the criterion of that model at the limit is the quantile above the minimum."""
    result = cbpp()
    lower, upper = result.conf_int(method="profile", parm="period[T.2]").loc["period[T.2]"]
    data = lme4py.load_dataset("cbpp")
    second = (data["period"].astype(str) == "2").astype(float)
    data = data.assign(p3=(data["period"].astype(str) == "3") * 1.0, p4=(data["period"].astype(str) == "4") * 1.0)
    for limit in (lower, upper):
        smaller = lme4py.glmer(CBPP.replace("period", "p3 + p4"), data, offset=limit * second)
        # Both optima are good to 1e-9.
        assert smaller.fit.criterion - result.fit.criterion == pytest.approx(stats.chi2.ppf(0.95, 1), abs=1e-6)


def test_profile_of_the_dispersion_and_thresholds():
    result = fit("nb_salam")
    table = result.conf_int(method="profile", parm="all")
    assert list(table.index)[-1] == "dispersion"
    lower, upper = table.loc["dispersion"]
    assert lower < result.dispersion < upper
    thresholds = wine().conf_int(method="profile", parm=["1|2", "4|5"])
    wald = wine().conf_int(parm=["1|2", "4|5"])
    # Profile limits are further out where the likelihood is skewed, but not by half of the interval.
    assert np.abs(thresholds - wald).to_numpy().max() < 0.5 * (wald["upper"] - wald["lower"]).max()
    # A threshold and a constant that is added to it: the profile does not depend on the coding of the covariates.
    coded = lme4py.clmm(
        "rating ~ temp + contact + (1 | judge)",
        lme4py.load_dataset("wine"),
        contrasts={"temp": "contr.SAS"},
    )
    moved = coded.conf_int(method="profile", parm="temp[T.cold]" if "temp[T.cold]" in coded.params else "fixed")
    own = wine().conf_int(method="profile", parm="temp[T.warm]")
    # The same root from two codings.
    assert sorted(-moved.iloc[0].to_numpy()) == pytest.approx(own.iloc[0].tolist(), abs=1e-5)


def test_profile_with_quadrature():
    laplace, quadrature = cbpp(), cbpp(nAGQ=9)
    limits = [result.conf_int(method="profile", parm="all") for result in (laplace, quadrature)]
    # lme4's Laplace and nAGQ = 9 profiles of this model differ by at most 0.03.
    assert 1e-4 < np.abs(limits[0] - limits[1]).to_numpy().max() < 0.05


def test_profile_at_the_boundary_says_so():
    table = no_variance().profile().conf_int()
    lower, upper = table.loc["sd(Intercept | g)"]
    assert lower == 0.0 < upper < np.inf
    assert "end of the range" in table.attrs["note"]
    assert table.notna().all(axis=None)


def test_profile_of_separated_responses_has_no_limit():
    rng = np.random.default_rng(3)
    g = np.repeat(np.arange(15), 8)
    treated = (g % 3 == 0) * 1.0
    y = np.where(treated, 1, rng.normal(size=15)[g] + rng.logistic(size=120) > 0).astype(int)
    data = pd.DataFrame({"y": y, "treated": treated, "g": g.astype(str)})
    with pytest.warns(ConvergenceWarning, match="separates"):
        result = lme4py.glmer("y ~ treated + (1 | g)", data)
    table = result.conf_int(method="profile", parm="treated")
    assert 0 < table.loc["treated", "lower"] < np.inf
    assert table.loc["treated", "upper"] == np.inf
    assert "no upper limit" in table.attrs["note"]


def test_profile_finds_a_better_optimum():
    result = fit("glmm_bin_rs").fit
    phi = result.phi * np.array([1.3, 1.0, 1.0, 1.0, 1.0, 1.0])
    point = JointCriterion(ModeFinder(result.problem)).evaluate(phi)
    found = profile(replace(result, phi=phi, criterion=point[1]), "sd(Intercept | g)", 0.05)
    assert "better optimum" in found.note
    # The profile of the right fit.
    right = fit("glmm_bin_rs").conf_int(method="profile", parm="sd(Intercept | g)")
    assert found.conf_int().loc["sd(Intercept | g)"].tolist() == pytest.approx(
        right.loc["sd(Intercept | g)"].tolist(), rel=1e-6
    )


def test_profile_needs_a_likelihood():
    with pytest.raises(OptionError, match="nAGQ=0"):
        cbpp(nAGQ=0).profile()


def test_profile_is_a_table():
    frame = cbpp().profile("random").to_frame()
    assert (np.diff(frame["zeta"]) > 0).all()
    assert frame["zeta"].iloc[-1] > 2.5


def test_minimum_without_derivatives():
    """The profile of the only standard deviation, found again by a simplex over the fixed effects."""
    result = cbpp("cbind(incidence, size - incidence) ~ 1 + (1 | herd)")
    upper = result.conf_int(method="profile", parm="random").loc["sd(Intercept | herd)", "upper"]
    criterion = JointCriterion(ModeFinder(result.fit.problem))
    found = optimize.minimize_scalar(
        lambda b: criterion.evaluate(np.array([upper, b]))[1], bounds=(-3, 0), method="bounded", options={"xatol": 1e-7}
    )
    # Both minima are good to 1e-7.
    assert found.fun - result.fit.criterion == pytest.approx(stats.chi2.ppf(0.95, 1), abs=1e-5)
