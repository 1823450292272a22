"""Profile likelihood and intervals of all parameters."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from inference_models import MODELS, grouped, having, lmm, reference_fit
from scipy import optimize, stats

import lme4py
from lme4py.errors import OptionError
from lme4py.fits.linear.steps import lmm_criterion
from lme4py.fits.parameters import parameters

CUT = stats.chi2.ppf(0.95, 1)


@pytest.mark.parametrize("name", having("profile"))
def test_limits_are_those_of_lme4(name):
    result = reference_fit(name)
    limits = result.conf_int(method="profile", parm="all")
    # R writes MachineB where we write Machine[T.B].
    known = {p.alias.replace("[T.", "").replace("]", ""): p.name for p in parameters(result.fit.design)}
    block = MODELS[name]["profile"]
    for row, (lower, upper) in zip(block["rows"], block["limits"], strict=True):
        # Both sides find the root of the same function: R's root finder leaves 1e-8 of the width, ours 1e-8 too.
        assert limits.loc[known[row]].to_numpy() == pytest.approx([lower, upper], abs=1e-6 * (upper - lower)), row


def _constrained_minimum(result: lme4py.MixedResult, name: str, value: float) -> float:
    """The smallest -2 log-likelihood with a parameter at a value, by a general optimiser."""
    design = result.fit.design
    criterion = lmm_criterion(design, reml=False)
    parameter = next(p for p in parameters(design) if p.name == name)
    structures = criterion.inside.problem.structures
    n = design.n_obs

    def deviance(x):
        point = criterion.inside.evaluate(criterion.to_inside(x[:-1]))
        scaling = criterion.inside.problem.scaling
        sigma2 = point.r2 / n * scaling.y_scale**2 * scaling.weight_scale
        ratio = sigma2 / np.exp(2.0 * x[-1])
        return point.value + n * (ratio - 1.0 - np.log(ratio))

    def held(x):
        T = structures.factors(x[:-1])[parameter.term]
        cov = np.exp(2.0 * x[-1]) * T @ T.T
        i, j = parameter.first, parameter.second
        if parameter.kind == "sd":
            return np.sqrt(cov[i, i]) - value
        return cov[i, j] / np.sqrt(cov[i, i] * cov[j, j]) - value

    # Off the boundary, where the constraint has no gradient; from two places, because SLSQP can stall.
    def smallest(off: float) -> float:
        start = np.append(np.where(result.theta == 0.0, off, result.theta), np.log(result.sigma))
        constraint = {"type": "eq", "fun": held}
        options = {"ftol": 1e-12, "maxiter": 500}
        # A line search may try a residual variance too small for floating point, and then turns back.
        with np.errstate(all="ignore"):
            found = optimize.minimize(deviance, start, method="SLSQP", constraints=constraint, options=options)
        return float(found.fun) if abs(held(found.x)) < 1e-6 else np.inf

    return min(smallest(off) for off in (0.05, 0.2))


@pytest.mark.parametrize(
    ("formula", "names"),
    [
        ("y ~ x + (x + z | g)", ["sd(z | g)", "cor(x, z | g)", "cor(Intercept, z | g)"]),
        ("y ~ x + diag(x + z | g)", ["sd(x | g)"]),
        ("y ~ x + (x | g) + (1 | h)", ["cor(Intercept, x | g)", "sd(Intercept | h)"]),
    ],
)
def test_limits_are_where_a_general_optimiser_finds_the_quantile(formula, names):
    data = grouped("plain").assign(z=lambda d: 30.0 * d["z"] + 100.0)
    result = lme4py.lmer(formula, data, reml=False, weights=np.linspace(0.5, 2.0, len(data)))
    limits = result.conf_int(method="profile", parm=names)
    for name in names:
        for value in limits.loc[name]:
            if value in (0.0, 1.0, -1.0):
                continue
            # SLSQP with differences stops within about 1e-5 of the minimum.
            assert _constrained_minimum(result, name, value) == pytest.approx(result.criterion + CUT, abs=1e-4), name


def test_zero_variance_has_a_one_sided_interval():
    result = lmm("Yield ~ 1 + (1 | Batch)", "Dyestuff2", True)
    limits = result.conf_int(method="profile", parm="all")
    assert limits.loc["sd(Intercept | Batch)", "lower"] == 0.0
    assert 0.5 < limits.loc["sd(Intercept | Batch)", "upper"] < 5.0
    assert _constrained_minimum(
        lmm("Yield ~ 1 + (1 | Batch)", "Dyestuff2"),
        "sd(Intercept | Batch)",
        limits.loc["sd(Intercept | Batch)", "upper"],
    ) == pytest.approx(lmm("Yield ~ 1 + (1 | Batch)", "Dyestuff2").criterion + CUT, abs=1e-4)  # as above
    assert limits.notna().all(axis=None)


@pytest.mark.parametrize(("kind", "end"), [("one line", "upper"), ("no slopes", "lower")])
def test_correlations_at_the_end_of_their_range(kind, end):
    result = lme4py.lmer("y ~ x + (x | g)", grouped(kind), reml=False)
    assert "correlation" in result.certificate.singular[0]
    limits = result.conf_int(method="profile", parm="all")
    row = limits.loc["cor(Intercept, x | g)"]
    assert row[end] == (1.0 if end == "upper" else -1.0)
    assert 0.1 < abs(row.drop(end).item()) < 0.99
    assert limits.notna().all(axis=None)
    inner = row.drop(end).item()
    assert _constrained_minimum(result, "cor(Intercept, x | g)", inner) == pytest.approx(
        result.criterion + CUT, abs=1e-4
    )


def test_correlation_with_an_effect_without_variance_can_be_anything():
    result = lme4py.lmer("y ~ x + (x | g)", grouped("no groups"))
    assert np.isnan(result.variance_components["corr(_cons,x)"])
    limits = result.conf_int(method="profile", parm="all")
    assert limits.loc["cor(Intercept, x | g)"].tolist() == [-1.0, 1.0]
    assert limits.loc[["sd(Intercept | g)", "sd(x | g)"], "lower"].tolist() == [0.0, 0.0]
    assert (limits.loc[["sd(Intercept | g)", "sd(x | g)"], "upper"] > 0.01).all()
    diagonal = lme4py.lmer("y ~ x + diag(x | g)", grouped("no slopes"), reml=False)
    assert diagonal.variance_components["var(x)"] == 0.0
    lower, upper = diagonal.conf_int(method="profile", parm="sd(x | g)").to_numpy()[0]
    assert lower == 0.0
    assert _constrained_minimum(diagonal, "sd(x | g)", upper) == pytest.approx(diagonal.criterion + CUT, abs=1e-4)


def test_profile_is_a_table_of_signed_roots(sleep):
    profile = sleep.profile()
    table = profile.to_frame()
    assert list(table.columns) == ["parameter", "value", "zeta"]
    for _, part in table.groupby("parameter"):
        assert (np.diff(part["value"]) > 0).all()
        assert (np.diff(part["zeta"]) > 0).all()
        assert part["zeta"].min() < -1.9
    assert "maximum likelihood" in profile.note
    assert profile.conf_int(0.1).loc["Days", "lower"] > profile.conf_int(0.05).loc["Days", "lower"]
    assert profile.conf_int(0.001).notna().all(axis=None)
    # An estimate is where the root is zero; the fixed effects of balanced data are the same under REML.
    assert table.query("parameter == 'Days' and zeta == 0")["value"].item() == pytest.approx(sleep.params["Days"])


def test_profile_of_chosen_parameters(sleep):
    assert list(sleep.conf_int(method="profile", parm=["sigma", "Days"]).index) == ["sigma", "Days"]
    assert list(sleep.conf_int(method="profile", parm="random").index) == [
        "sd(Intercept | Subject)",
        "sd(Days | Subject)",
        "cor(Intercept, Days | Subject)",
        "sigma",
    ]
    with pytest.raises(OptionError, match="Did you mean 'Days'"):
        sleep.profile("days")


def test_units_do_not_matter(sleepstudy, sleep):
    scaled = sleepstudy.assign(Reaction=sleepstudy["Reaction"] * 1e6, Days=sleepstudy["Days"] * 1e-6)
    limits = lme4py.lmer("Reaction ~ Days + (Days | Subject)", scaled).conf_int(method="profile", parm="all")
    units = np.array([1e6, 1e12, 1e6, 1e12, 1.0, 1e6])[:, None]
    # Roots are found to 1e-7 of a standard error.
    np.testing.assert_allclose(limits / units, sleep.conf_int(method="profile", parm="all"), rtol=1e-6)


def test_wald_limits_of_variances(sleep):
    table = sleep.conf_int(parm="all")
    assert table.loc["Days"].tolist() == sleep.conf_int().loc["Days"].tolist()
    # Symmetric about the estimate on the scale that they are made on.
    assert np.log(table.loc["sigma"]).mean() == pytest.approx(np.log(sleep.sigma), rel=1e-9)
    assert (table["lower"] < table["upper"]).all()
    assert np.arctanh(table.loc["cor(Intercept, Days | Subject)"]).mean() == pytest.approx(
        np.arctanh(sleep.variance_components["corr(_cons,Days)"]), rel=1e-9
    )


def test_flat_profiles_of_a_parameter_without_scale_end_at_the_range_of_the_parameter() -> None:
    """A smoothness that ran to 1e45: steps of a usual size are nothing beside it."""
    rng = np.random.default_rng(3)
    u, v, s = rng.normal(size=8), rng.normal(size=8), np.repeat(np.arange(8), 3)
    y, x = rng.integers(0, 3, 24), rng.normal(size=24)
    data = pd.DataFrame({"y": y, "x": x, "u": u[s], "v": v[s], "g": 1})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = lme4py.clmm("y ~ x + mat(numFactor(u, v) + 0 | g)", data)
        limits = fit.profile("smoothness(mat | g)").conf_int()
    assert limits.to_numpy().tolist() == [[0.0, np.inf]]


def test_a_profile_along_which_sigma_goes_to_zero() -> None:
    """Minima beside each other are far apart in the other parameters there: they are no polynomial."""
    rng = np.random.default_rng(11)
    visit, g = np.tile(np.arange(4), 30), np.repeat(np.arange(30), 4)
    x = rng.normal(size=120)
    effects = np.linalg.cholesky(0.6 ** abs(np.subtract.outer(range(4), range(4)))) @ rng.normal(size=(4, 30))
    shift, place = 0.5 * rng.normal(size=6), rng.integers(0, 6, 120)
    y = 0.4 + 0.5 * x + 0.8 * effects.T.ravel() + shift[place] + 0.7 * rng.normal(size=120)
    data = pd.DataFrame({"y": y, "x": x, "visit": pd.Categorical(visit), "g": g})
    fit = lme4py.lmer("y ~ x + ar1(0 + visit | g)", data, reml=False)
    lower = float(fit.conf_int(method="profile", parm=["cor(ar1 | g)"])["lower"].iloc[0])
    # There sigma is 1e-3 and the rest is rho^lag alone, by dense algebra.
    V = np.kron(np.eye(30), lower ** abs(np.subtract.outer(range(4), range(4))))
    X = np.column_stack([np.ones(120), x])
    W = np.linalg.solve(V, X)
    beta = np.linalg.solve(X.T @ W, W.T @ y)
    r2 = float((y - X @ beta) @ np.linalg.solve(V, y - X @ beta))
    held = 120 * (1.0 + np.log(2.0 * np.pi * r2 / 120)) + np.linalg.slogdet(V)[1]
    # What is left of sigma is of this order.
    assert held - fit.criterion == pytest.approx(CUT, abs=1e-3)
