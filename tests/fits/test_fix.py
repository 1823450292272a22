"""Parameters held at given values: the model in which they are known."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import lme4py
from lme4py.errors import OptionError
from lme4py.fits.parameters import fit_parameters, fit_values

SLEEP = lme4py.load_dataset("sleepstudy")
CBPP = lme4py.load_dataset("cbpp").assign(z=np.linspace(-1.0, 1.0, 56))
WINE = lme4py.load_dataset("wine")
INCIDENCE = "cbind(incidence, size - incidence) ~ period + z + (1 | herd)"
# Half the 95 % point of chi-squared with one degree of freedom: how far the log-likelihood falls at a limit.
DROP = 0.5 * float(stats.chi2.ppf(0.95, 1))


def _rows() -> pd.DataFrame:
    """Two observations of 40 groups at each of four times, whose effects are correlated by lag."""
    rng = np.random.default_rng(1)
    J, T = 40, 4
    rows = pd.DataFrame({"g": np.repeat(np.arange(J), 2 * T), "t": np.tile(np.repeat(np.arange(T), 2), J)})
    sd = np.array([1.0, 1.2, 0.8, 1.4])
    R = 0.6 ** np.abs(np.subtract.outer(range(T), range(T)))
    u = rng.multivariate_normal(np.zeros(T), R * np.outer(sd, sd), J)[rows["g"], rows["t"]]
    rows["x"], rows["s"] = rng.normal(size=len(rows)), rows["t"] ** 1.3
    rows["y"] = 1 + 0.5 * rows["x"] + u + 0.7 * rng.normal(size=len(rows))
    rows["c"] = rng.poisson(np.exp(0.3 + 0.3 * rows["x"] + 0.5 * u))
    return rows


ROWS = _rows()
TERMS = [
    "us(0 + factor(t) | g)",
    "diag(0 + factor(t) | g)",
    "homdiag(0 + factor(t) | g)",
    "cs(0 + factor(t) | g)",
    "homcs(0 + factor(t) | g)",
    "ar1(0 + factor(t) | g)",
    "hetar1(0 + factor(t) | g)",
    "homtoep(0 + factor(t) | g)",
    "ad(0 + factor(t) | g)",
    "ou(numFactor(s) | g)",
    "exp(numFactor(s) | g)",
    "gau(numFactor(s) | g)",
    "rr(0 + factor(t) | g, d=1)",
    "(1 | g)",
    "(x | g)",
    "(x || g)",
]


def _random(fit: Any) -> dict[str, float]:
    known = [parameter for parameter in fit_parameters(fit.fit) if parameter.term >= 0]
    return dict(zip([parameter.name for parameter in known], fit_values(fit.fit, known).tolist(), strict=True))


# --- coefficients -------------------------------------------------------------------------------------------------


def test_a_coefficient_that_is_held_is_an_offset() -> None:
    held = lme4py.lmer("Reaction ~ Days + (Days | Subject)", SLEEP, fix={"Days": 8.25})
    known = lme4py.lmer("Reaction ~ 1 + (Days | Subject)", SLEEP, offset=8.25 * SLEEP["Days"])
    # The same model by another way in.
    assert held.log_likelihood == pytest.approx(known.log_likelihood, abs=1e-9)
    assert list(held.params.index) == ["Intercept"]
    np.testing.assert_allclose(held.predict(SLEEP), known.fittedvalues, rtol=1e-8)
    assert "Fixed by the user, not estimated: Days = 8.25." in str(held.summary())


def test_zero_leaves_the_term_out() -> None:
    held = lme4py.lmer("Reaction ~ Days + (Days | Subject)", SLEEP, reml=False, fix={"Days": 0})
    out = lme4py.lmer("Reaction ~ 1 + (Days | Subject)", SLEEP, reml=False)
    assert held.log_likelihood == pytest.approx(out.log_likelihood, abs=1e-9)
    nothing = lme4py.lmer("Reaction ~ Days + (Days | Subject)", SLEEP, fix={"Intercept": 0})
    assert list(nothing.params.index) == ["Days"]


def test_an_intercept_at_any_value() -> None:
    held = lme4py.lmer("Reaction ~ Days + (1 | Subject)", SLEEP, fix={"(Intercept)": 250})
    known = lme4py.lmer("Reaction ~ 0 + Days + (1 | Subject)", SLEEP, offset=np.full(180, 250.0))
    assert held.log_likelihood == pytest.approx(known.log_likelihood, abs=1e-9)
    assert held.anova().index.tolist() == ["Days"]


def test_levels_of_factors_and_interactions() -> None:
    held = lme4py.glmer(INCIDENCE.replace("+ z", "* z"), CBPP, fix={"period[T.2]": -1, "period[T.3]:z": 0.25})
    known = (CBPP["period"] == "2") * -1.0 + 0.25 * (CBPP["period"] == "3") * CBPP["z"]
    columns = CBPP.assign(
        p3=(CBPP["period"] == "3") * 1.0,
        p4=(CBPP["period"] == "4") * 1.0,
        z2=(CBPP["period"] == "2") * CBPP["z"],
        z4=(CBPP["period"] == "4") * CBPP["z"],
    )
    same = lme4py.glmer(
        "cbind(incidence, size - incidence) ~ p3 + p4 + z + z2 + z4 + (1 | herd)", columns, offset=known
    )
    assert held.log_likelihood == pytest.approx(same.log_likelihood, abs=1e-8)
    np.testing.assert_allclose(held.params, same.params, atol=1e-6)
    # New data have the known part too.
    np.testing.assert_allclose(held.predict(CBPP), held.fittedvalues, rtol=1e-10)


def test_margins_know_the_slope_that_is_held() -> None:
    held = lme4py.lmer("Reaction ~ Days + (1 | Subject)", SLEEP, fix={"Days": 10})
    table = lme4py.Margins.linear_scale(held).dydx("Days").to_frame()
    # A known slope has no error.
    assert table["estimate"].tolist() == [pytest.approx(10.0)]
    assert table["std_error"].tolist() == [0.0]


def test_a_likelihood_ratio_test_of_what_is_held() -> None:
    full = lme4py.clmm("rating ~ temp + contact + (1 | judge)", WINE)
    held = lme4py.clmm("rating ~ temp + contact + (1 | judge)", WINE, fix={"temp[T.warm]": 2.5})
    test = lme4py.lrtest(held, full)
    assert test.df == 1
    assert test.chi2 == pytest.approx(2.0 * (full.log_likelihood - held.log_likelihood), abs=1e-10)


# --- sigma --------------------------------------------------------------------------------------------------------


def test_sigma_and_a_coefficient_together() -> None:
    held = lme4py.lmer("Reaction ~ Days + (1 | Subject)", SLEEP, fix={"sigma": 30, "Days": 10})
    assert held.sigma == 30.0
    same = lme4py.lmer("Reaction ~ 1 + (1 | Subject)", SLEEP, sigma=30, offset=10.0 * SLEEP["Days"])
    assert held.log_likelihood == pytest.approx(same.log_likelihood, abs=1e-9)


# --- dispersions --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["gamma", "gaussian", "inverse_gaussian", "lognormal", "nbinomial", "nbinomial1"])
def test_a_dispersion_that_is_held(family: str) -> None:
    formula, data = ("c ~ x + (1 | g)", ROWS) if family.startswith("n") else ("Reaction ~ Days + (1 | Subject)", SLEEP)
    free = lme4py.glmer(formula, data, family)
    held = lme4py.glmer(formula, data, family, fix={"dispersion": free.fit.dispersion})
    assert held.log_likelihood == pytest.approx(free.log_likelihood, abs=1e-7)
    assert held.n_params == free.n_params - 1
    lower, upper = free.conf_int(parm=list(free.conf_int(parm="all").index)[-1:], method="profile").iloc[0]
    # Of the gaussian family the standard deviation is printed.
    value = upper**2 if family == "gaussian" else upper
    assert 0.0 < lower < upper
    there = lme4py.glmer(formula, data, family, fix={"dispersion": value})
    # Limits are found to 1e-6 of the parameter.
    assert free.log_likelihood - there.log_likelihood == pytest.approx(DROP, abs=1e-3)
    again = there.refit(there.simulate(1, seed=1).iloc[:, 0])
    assert again.fit.dispersion == pytest.approx(value)
    assert "fixed by the user" in str(there.summary()).lower()
    assert lme4py.lrtest(there, free).df == 1


def test_negative_binomial_counts() -> None:
    fix = {"dispersion": 3.0, "x": 0.25, "sd(Intercept | g)": 0.5}
    a = lme4py.glmer_nb("c ~ x + (1 | g)", ROWS, fix=fix)
    b = lme4py.glmer("c ~ x + (1 | g)", ROWS, "nbinomial", fix=fix)
    assert a.log_likelihood == pytest.approx(b.log_likelihood, abs=1e-9)
    assert a.n_params == 1


def test_the_residual_deviation_of_a_gaussian_glmer() -> None:
    a = lme4py.glmer("Reaction ~ Days + (1 | Subject)", SLEEP, "gaussian", fix={"sigma": 30})
    b = lme4py.lmer("Reaction ~ Days + (1 | Subject)", SLEEP, reml=False, sigma=30)
    assert a.log_likelihood == pytest.approx(b.log_likelihood, abs=1e-7)


# --- covariance structures ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("term", TERMS)
def test_at_the_estimate_nothing_changes(term: str) -> None:
    """Held where it is estimated, a parameter leaves the likelihood and all others where they are."""
    free = lme4py.lmer(f"y ~ x + {term}", ROWS)
    estimates = _random(free)
    for name in (next(iter(estimates)), list(estimates)[-1]):
        if term.startswith("homtoep") and name.startswith("cor"):
            continue
        held = lme4py.lmer(f"y ~ x + {term}", ROWS, fix={name: estimates[name]})
        # Both optima are known to about 1e-9 in the criterion.
        assert held.log_likelihood == pytest.approx(free.log_likelihood, abs=1e-8)
        assert held.n_params == free.n_params - 1
        for other, value in _random(held).items():
            if other in estimates:
                assert value == pytest.approx(estimates[other], rel=1e-5, abs=1e-6)


Door = Callable[..., Any]


def _linear(**more: Any) -> Any:
    return lme4py.lmer("y ~ x + ar1(0 + factor(t) | g)", ROWS, reml=False, **more)


def _unstructured(**more: Any) -> Any:
    return lme4py.lmer("Reaction ~ Days + (Days | Subject)", SLEEP, reml=False, **more)


def _binomial(**more: Any) -> Any:
    return lme4py.glmer(INCIDENCE, CBPP, **more)


def _ordinal(**more: Any) -> Any:
    return lme4py.clmm("rating ~ temp + contact + (1 | judge)", WINE, **more)


def _counts(**more: Any) -> Any:
    return lme4py.glmer("c ~ x + ar1(0 + factor(t) | g)", ROWS, "poisson", **more)


@pytest.mark.parametrize(
    ("fit", "name"),
    [
        (_linear, "cor(ar1 | g)"),
        (_linear, "sd(ar1 | g)"),
        (_unstructured, "cor(Intercept, Days | Subject)"),
        (_unstructured, "sd(Days | Subject)"),
        (_binomial, "sd(Intercept | herd)"),
        (_ordinal, "sd(Intercept | judge)"),
        (_counts, "cor(ar1 | g)"),
    ],
)
def test_the_ends_of_a_profile_interval(fit: Door, name: str) -> None:
    """At a limit of its profile the log-likelihood of the model with the parameter held is 1.92 lower."""
    free = fit()
    limits = free.conf_int(parm=name, method="profile").loc[name]
    for limit in limits:
        held = fit(fix={name: float(limit)})
        # Limits are found to 1e-6 of the parameter.
        assert free.log_likelihood - held.log_likelihood == pytest.approx(DROP, abs=1e-4)
        assert held.n_params == free.n_params - 1
        assert held.aic == pytest.approx(-2.0 * held.log_likelihood + 2.0 * held.n_params)


def test_a_correlation_of_zero_is_the_model_of_independent_effects() -> None:
    held = lme4py.lmer("Reaction ~ Days + (Days | Subject)", SLEEP, fix={"rho(Intercept,Days|Subject)": 0})
    plain = lme4py.lmer("Reaction ~ Days + (Days || Subject)", SLEEP)
    assert held.log_likelihood == pytest.approx(plain.log_likelihood, abs=1e-9)
    assert held.n_params == plain.n_params
    # The same by Kenward and Roger, in the same parameters.
    pd.testing.assert_frame_equal(
        held.coef_table(ddf="kenward-roger"), plain.coef_table(ddf="kenward-roger"), rtol=1e-5
    )
    test = lme4py.lrtest(held, lme4py.lmer("Reaction ~ Days + (Days | Subject)", SLEEP))
    assert (test.df, test.boundary_corrected) == (1, False)


def test_everything_held() -> None:
    """Without a covariance parameter the model is generalised least squares."""
    fix = {"sd(Intercept | Subject)": 25, "sd(Days | Subject)": 6, "cor(Intercept, Days | Subject)": 0.1, "sigma": 25.6}
    held = lme4py.lmer("Reaction ~ Days + (Days | Subject)", SLEEP, fix=fix)
    X = np.column_stack([np.ones(180), SLEEP["Days"]])
    G = np.array([[625.0, 15.0], [15.0, 36.0]])
    V = np.kron(np.eye(18), X[:10] @ G @ X[:10].T + 25.6**2 * np.eye(10))
    cross = X.T @ np.linalg.solve(V, X)
    beta = np.linalg.solve(cross, X.T @ np.linalg.solve(V, SLEEP["Reaction"]))
    r = SLEEP["Reaction"].to_numpy() - X @ beta
    reml = np.linalg.slogdet(V)[1] + np.linalg.slogdet(cross)[1] + r @ np.linalg.solve(V, r) + 178 * np.log(2 * np.pi)
    # Dense algebra in double precision.
    np.testing.assert_allclose(held.params, beta, rtol=1e-9)
    np.testing.assert_allclose(held.cov_params(), np.linalg.inv(cross), rtol=1e-8)
    assert held.log_likelihood == pytest.approx(-0.5 * reml, abs=1e-8)
    assert held.n_params == 2
    assert held.converged
    assert not held.is_singular
    assert held.conf_int(parm="all").index.tolist() == ["Intercept", "Days"]


def test_theta_of_lme4() -> None:
    free = lme4py.lmer("Reaction ~ Days + (Days | Subject)", SLEEP)
    held = lme4py.lmer("Reaction ~ Days + (Days | Subject)", SLEEP, fix={"theta": [free.theta[0], None, free.theta[2]]})
    assert held.log_likelihood == pytest.approx(free.log_likelihood, abs=1e-8)
    assert held.n_params == free.n_params - 2


def test_what_follows_keeps_it() -> None:
    fix = {"sd(Intercept | Subject)": 20.0, "sigma": 26.0}
    held = lme4py.lmer("Reaction ~ Days + (Days | Subject)", SLEEP, fix=fix)
    again = held.refit(held.simulate(1, seed=1).iloc[:, 0])
    for one in (again, pickle.loads(pickle.dumps(held)), held.slim()):
        assert one.variance_components["var(_cons)"] == pytest.approx(400.0)
    drawn = held.bootstrap(5, func=lambda fit: [fit.variance_components["var(_cons)"], fit.sigma], seed=1)
    np.testing.assert_allclose(drawn.replicates, np.tile([400.0, 26.0], (5, 1)))
    assert "sd(Intercept | Subject)" not in held.conf_int(parm="all", method="profile").index
    assert "sd(Intercept | Subject) = 20" in str(held.summary())


def test_units_do_not_matter() -> None:
    small = SLEEP.assign(Reaction=SLEEP["Reaction"] * 1e-6, Days=SLEEP["Days"] * 1e3)
    formula = "Reaction ~ Days + (Days | Subject)"
    a = lme4py.lmer(formula, SLEEP, fix={"sd(Intercept | Subject)": 20.0})
    b = lme4py.lmer(formula, small, fix={"sd(Intercept | Subject)": 20.0e-6})
    np.testing.assert_allclose(b.params * [1e6, 1e9], a.params, rtol=1e-6)
    assert b.variance_components["corr(_cons,Days)"] == pytest.approx(
        a.variance_components["corr(_cons,Days)"], rel=1e-5
    )


def test_two_correlations_of_a_column_and_all_of_some() -> None:
    free = lme4py.lmer("y ~ x + us(0 + factor(t) | g)", ROWS)
    values = _random(free)
    star = {name: value for name, value in values.items() if name.startswith("cor(factor(t)[1]")}
    corner = {name: v for name, v in values.items() if name.startswith("cor") and "[0]" not in name}
    for fix in (star, corner):
        held = lme4py.lmer("y ~ x + us(0 + factor(t) | g)", ROWS, fix=fix)
        assert held.log_likelihood == pytest.approx(free.log_likelihood, abs=1e-8)
        assert held.n_params == free.n_params - len(fix)
    apart = {
        name: v
        for name, v in values.items()
        if name in (f"cor(factor(t)[{a}], factor(t)[{a + 1}] | g)" for a in (0, 2))
    }
    with pytest.raises(OptionError, match="cannot be held without others"):
        lme4py.lmer("y ~ x + us(0 + factor(t) | g)", ROWS, fix=apart)


# --- refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fix", "match"),
    [
        ({"Dais": 0.5}, "Did you mean 'Days'"),
        ({"Days": "a"}, "a finite number"),
        ({"Days": float("nan")}, "a finite number"),
        (["Days"], "give a dict"),
        ({"sd(Intercept | Subject)": -1}, "must be between 0"),
        ({"theta": [1.0, 2.0]}, "the model has 1"),
        ({"theta": 1.0}, "give a list"),
        ({"theta": [1.0], "sd(Intercept | Subject)": 1}, "one of the two"),
    ],
)
def test_what_is_refused(fix: Any, match: str) -> None:
    with pytest.raises(OptionError, match=match):
        lme4py.lmer("Reaction ~ Days + (1 | Subject)", SLEEP, fix=fix)


def test_what_is_not_held() -> None:
    with pytest.raises(OptionError, match="not thresholds"):
        _ordinal(fix={"1|2": 0})
    with pytest.raises(OptionError, match="beside the mean"):
        lme4py.glmer("Reaction ~ Days + (1 | Subject)", SLEEP, "tweedie", fix={"phi": 1})
    with pytest.raises(OptionError, match="must be positive"):
        lme4py.glmer("Reaction ~ Days + (1 | Subject)", SLEEP, "gamma", fix={"dispersion": 0})


def test_correlations_that_are_no_matrix() -> None:
    names = [f"cor(factor(t)[{a}], factor(t)[{b}] | g)" for a, b in ((0, 1), (0, 2), (1, 2))]
    with pytest.raises(OptionError, match="no correlation matrix"):
        lme4py.lmer("y ~ x + us(0 + factor(t) | g)", ROWS, fix=dict(zip(names, (0.9, 0.9, -0.9), strict=True)))
