"""clmm with nominal=, scale= and structure=: other programs' numbers, brute force, and what is asked of the result."""

from __future__ import annotations

import json
import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest
from reference_data import REFERENCE
from scipy.special import expit

import lme4py
from lme4py.errors import DesignError, FormulaError, IdentificationWarning, OptionError
from lme4py.families.ordered.ordinal_parts import OrdinalParts
from lme4py.inference.prediction.categories import category_rows, category_table
from lme4py.inference.prediction.rows import make_rows

R = json.loads((REFERENCE / "ordinal_parts.json").read_text(encoding="utf-8"))
WINE = lme4py.load_dataset("wine")
SOUP = lme4py.load_dataset("soup")
CALLS: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "soup_scale": ("SURENESS ~ PROD", SOUP, {"scale": "~ PROD", "link": "probit"}),
    "wine_scale": ("rating ~ contact", WINE, {"scale": "~ temp"}),
    "wine_nominal": ("rating ~ temp", WINE, {"nominal": "~ contact"}),
    "wine_both": ("rating ~ temp", WINE, {"nominal": "~ contact", "scale": "~ temp"}),
    "wine_symmetric": ("rating ~ temp", WINE, {"nominal": "~ contact", "threshold": "equidistant"}),
    "mixed_nominal": ("rating ~ temp + (1 | judge)", WINE, {"nominal": "~ contact", "nAGQ": 10}),
    "mixed_scale": ("rating ~ contact + (1 | judge)", WINE, {"scale": "~ temp", "nAGQ": 10}),
    "sequential_logit": ("rating ~ temp + contact + (1 | judge)", WINE, {"structure": "sequential", "nAGQ": 40}),
    "adjacent": ("rating ~ temp + contact + (1 | judge)", WINE, {"structure": "adjacent", "nAGQ": 40}),
}


def fitted(name: str) -> Any:
    formula, data, options = CALLS[name]
    return lme4py.clmm(formula, data, **options)


@pytest.fixture(scope="module")
def both():
    return lme4py.clmm("rating ~ temp + (1 | judge)", WINE, nominal="~ contact", scale="~ temp")


def in_the_order_of_r(fit: Any) -> list[tuple[float, float]]:
    """Free parameters of the thresholds, nominal, location, scale: estimates with standard errors."""
    tables = [fit.threshold_parameters()]
    tables += [fit.coef_table(component="nominal")] if "nominal" in fit.components else []
    tables += [fit.coef_table()]
    tables += [fit.coef_table(component="scale")] if "scale" in fit.components else []
    return [(row["estimate"], row["std_error"]) for table in tables for _, row in table.iterrows()]


@pytest.mark.parametrize("name", CALLS)
def test_the_numbers_of_other_programs(name):
    fit, want = fitted(name), R[name]
    # clm and our optimum agree to 1e-9 of the log-likelihood; clmm2 stops at gradients of 1e-7.
    assert fit.log_likelihood == pytest.approx(want["log_likelihood"], abs=2e-7)
    own = in_the_order_of_r(fit)
    values = want["coefficients"][: len(own)]
    mixed = name.startswith("mixed")
    np.testing.assert_allclose([value for value, _ in own], values, rtol=1e-4 if mixed else 1e-6, atol=1e-6)
    if "std_errors" in want:
        # Differences of gradients against those of Richardson.
        np.testing.assert_allclose([error for _, error in own], want["std_errors"][: len(own)], rtol=1e-5)
    if mixed:
        assert fit.var_corr()["sdcor"].iloc[0] == pytest.approx(want["sd"], rel=1e-5)
    assert fit.converged


def test_a_sequential_model_is_a_binomial_one_of_its_steps():
    y, steps = WINE["rating"].cat.codes.to_numpy(), []
    for i, own in enumerate(y):
        for k in range(min(own, 3) + 1):
            steps.append({**WINE.iloc[i].to_dict(), "stopped": int(k == own), "k": str(k)})
    binomial = lme4py.glmer("stopped ~ 0 + k + temp + contact + (1 | judge)", pd.DataFrame(steps), link="probit")
    own = lme4py.clmm("rating ~ temp + contact + (1 | judge)", WINE, structure="sequential", link="probit")
    # Two ways to one likelihood: both stop at the same point up to rounding.
    assert own.log_likelihood == pytest.approx(binomial.log_likelihood, abs=1e-8)
    np.testing.assert_allclose(own.params, -binomial.params.iloc[4:], rtol=1e-6)
    np.testing.assert_allclose(own.thresholds, binomial.params.iloc[:4], rtol=1e-6)


def test_brute_force_of_a_scale_that_divides_random_effects_too(both):
    """The likelihood by 4,000 points a judge."""
    fit = lme4py.clmm("rating ~ temp + (1 | judge)", WINE, nominal="~ contact", scale="~ temp", nAGQ=25)
    warm, yes = (WINE["temp"] == "warm").to_numpy(), (WINE["contact"] == "yes").to_numpy()
    nu = fit.coef_table(component="nominal")["estimate"].to_numpy()
    scale = np.exp(fit.coef_table(component="scale")["estimate"].iloc[0] * warm)
    cuts = fit.thresholds.to_numpy() + nu * yes[:, None]
    u = np.linspace(-9.0, 9.0, 4001)
    weight = np.exp(-0.5 * u**2) / np.sqrt(2.0 * np.pi) * (u[1] - u[0])
    sd, codes = fit.var_corr()["sdcor"].iloc[0], WINE["rating"].cat.codes.to_numpy()
    total = 0.0
    for judge in WINE["judge"].unique():
        rows = np.flatnonzero(WINE["judge"] == judge)
        eta = fit.params.iloc[0] * warm[rows, None] + sd * u
        t = (cuts[rows, None, :] - eta[..., None]) / scale[rows, None, None]
        below = np.concatenate([np.zeros((*eta.shape, 1)), expit(t), np.ones((*eta.shape, 1))], axis=-1)
        p = np.diff(below, axis=-1)[np.arange(rows.size)[:, None], np.arange(u.size), codes[rows, None]]
        total += np.log(weight @ p.prod(axis=0))
    # 25 points of quadrature are exact to about 1e-9 here.
    assert fit.log_likelihood == pytest.approx(total, abs=1e-7)


def test_what_the_parts_are_called(both):
    assert both.components == ("conditional", "nominal", "scale")
    assert list(both.params.index) == ["temp[T.warm]"]
    assert list(both.coef_table(component="nominal").index) == [f"{k}|{k + 1}: contact[T.yes]" for k in range(1, 5)]
    tidy = both.tidy()
    assert set(tidy["component"]) == {"conditional", "nominal", "scale"}
    text = str(both.summary())
    assert "Effects on each threshold (nominal)" in text
    assert "Scale part (log)" in text
    assert both.anova(component="nominal")["df"].tolist() == [4]
    assert both.cov_params(component="all").shape == (6, 6)


def test_a_term_that_is_nominal_too_leaves_the_location(both):
    again = lme4py.clmm("rating ~ temp + contact + (1 | judge)", WINE, nominal="~ contact", scale="~ temp")
    assert again.log_likelihood == pytest.approx(both.log_likelihood, abs=1e-9)  # the same model
    assert "in the place of the common one" in str(again.summary())


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"nominal": "~ contact + (1 | judge)"}, FormulaError, "is a random effect"),
        ({"scale": "~ 0 + contact"}, FormulaError, "takes the intercept out"),
        ({"scale": "~ 1"}, FormulaError, "names no variable"),
        ({"nominal": "~ contact + offset(temp)"}, FormulaError, "cannot hold an offset"),
        ({"scale": 3}, OptionError, "is no formula"),
        ({"structure": "stopping"}, OptionError, "has no structure"),
        ({"structure": "adjacent", "link": "probit"}, OptionError, "logit link"),
        ({"scale": "~ contact", "hessian": "expected"}, OptionError, "expected weights"),
        ({"nominal": "~ I(as.numeric(temp)) + temp:contact"}, DesignError, "combination"),
    ],
)
def test_refusals_name_what_is_wrong(options, error, words):
    data = WINE.assign(x=np.arange(72.0))
    with pytest.raises(error, match=words):
        lme4py.clmm("rating ~ temp * contact + (1 | judge)", data, **options)


def test_random_effects_are_needed_unless_it_is_said_that_there_are_none():
    with pytest.raises(FormulaError, match="has no random-effects term"):
        lme4py.clmm("rating ~ temp", WINE, structure="sequential")
    fit = lme4py.clmm("rating ~ temp + contact", WINE, fixed_only=True)
    # R's clm of the same model, from the nominal test.
    assert fit.log_likelihood == pytest.approx(-86.4919233656, abs=1e-8)
    assert "Generalised linear model fit" in str(fit.summary())


# --- what follows from the fit ------------------------------------------------------------------------------------


def test_gradients_of_probabilities_are_those_of_differences(both):
    fit = both.fit
    for average in (False, True):
        rows = category_rows(fit, make_rows(fit, None, [], average), average)
        table = category_table(fit, rows, True)
        coefficients = np.concatenate([fit.beta, fit.others, fit.thresholds])
        assert table.jacobian is not None
        for i in range(coefficients.size):
            step = 1e-5 * np.eye(coefficients.size)[i]
            up, down = (category_table(fit, rows, False, coefficients + s * step) for s in (1.0, -1.0))
            # Central differences with steps of 1e-5.
            np.testing.assert_allclose(table.jacobian[:, :, i], (up.p - down.p) / 2e-5, atol=1e-9)
        up, down = (category_table(fit, rows, False, None, fit.theta + s * 1e-5) for s in (1.0, -1.0))
        np.testing.assert_allclose(table.jacobian[:, :, -1], (up.p - down.p) / 2e-5, atol=1e-9)


def test_predictions_of_a_model_without_parts_are_those_of_the_cumulative_one():
    """The general table against the one that ordinary ordinal models have."""
    plain = lme4py.clmm("rating ~ temp + contact + (1 | judge)", WINE)
    from dataclasses import replace

    general = replace(plain.fit, family=OrdinalParts(plain.fit.family.link, 5))
    from lme4py.inference.prediction.predict import predict

    for how, interval in ((False, "confidence"), ("integrate", "confidence"), (True, "confidence")):
        a = predict(plain.fit, WINE.head(20), include_random=how, type="prob", interval=interval)
        b = predict(general, WINE.head(20), include_random=how, type="prob", interval=interval)
        # Both rules are exact to rounding; limits on the logit scale by two ways to the same derivatives.
        np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-12)


def test_margins_of_a_model_without_parts_are_those_of_the_cumulative_one():
    data = WINE.assign(x=np.sin(np.arange(72.0)) + 0.5 * (WINE["temp"] == "warm"))
    plain = lme4py.clmm("rating ~ x + contact + (1 | judge)", data)
    from dataclasses import replace

    general = replace(plain.fit, family=OrdinalParts(plain.fit.family.link, 5))
    for random in ("zero", "integrate", "conditional"):
        one, two = (lme4py.Margins.response(fit, random=random) for fit in (plain.fit, general))
        for ask in (
            lambda m: m.predict(atexog={"contact": ["no", "yes"]}),
            lambda m: m.dydx(["x", "contact"]),
            lambda m: m.predict(over="contact"),
        ):
            a, b = ask(one).to_frame(), ask(two).to_frame()
            # Slopes are differences of fourth order with steps of a thousandth of the range.
            np.testing.assert_allclose(a["estimate"], b["estimate"], rtol=1e-7, atol=1e-10)
            np.testing.assert_allclose(a["std_error"], b["std_error"], rtol=1e-6, atol=1e-10)


def test_everything_that_is_asked_of_a_result(both):
    p = both.predict(WINE.head(6), type="prob", include_random=False)
    np.testing.assert_allclose(p.sum(axis=1), 1.0, rtol=1e-12)
    assert both.predict(WINE.head(6), type="class").tolist() == both.predict(type="class").head(6).tolist()
    drawn = both.simulate(3, seed=1)
    assert both.refit(drawn["sim_1"]).converged
    assert both.quantile_residuals(50, seed=1).test_uniformity().p_value > 0.01
    assert both.residuals("probability").mean() == pytest.approx(0.0, abs=0.2)  # of mean zero in the model
    for name in ("icc", "r_squared"):
        with pytest.raises(OptionError, match="no latent variable has one scale"):
            getattr(both, name)()
    limits = both.conf_int(component="scale", method="profile")
    assert float(limits["lower"].iloc[0]) < 0.105 < float(limits["upper"].iloc[0])
    again = pickle.loads(pickle.dumps(both))
    np.testing.assert_array_equal(again.predict(WINE.head(2), type="prob"), both.predict(WINE.head(2), type="prob"))
    slim = both.slim().predict(WINE.head(2), type="prob", include_random=False)
    np.testing.assert_array_equal(slim, p.head(2))
    scale = lme4py.Margins.response(both, component="scale").predict(atexog={"temp": ["cold", "warm"]}).estimate
    np.testing.assert_allclose(scale, [1.0, np.exp(both.coef_table(component="scale")["estimate"].iloc[0])])
    with pytest.raises(OptionError, match="nominal part alone"):
        lme4py.Margins.response(both, component="nominal")
    with pytest.raises(OptionError, match="several linear predictors"):
        lme4py.Margins.link_scale(both)


# --- proportional odds --------------------------------------------------------------------------------------------


def test_tests_of_proportional_odds_are_those_of_the_model_without_random_effects():
    fit = lme4py.clmm("rating ~ temp + contact", WINE, fixed_only=True)
    table, want = fit.proportional_odds(), R["nominal_test"]
    assert table["df"].tolist() == want["df"]
    # The effects of temp are infinite: its ratio is that of a limit, which R approaches as well.
    np.testing.assert_allclose(table["chi2"], want["chi2"], atol=2e-4)
    assert "limit" in table.attrs["note"]


def test_the_score_test_is_near_the_ratio_and_check_runs_it():
    rng = np.random.default_rng(3)
    n = 900
    x, g = rng.uniform(-1.0, 1.0, n), np.repeat(np.arange(30), 30)
    u = 0.7 * rng.standard_normal(30)[g]
    noise = rng.logistic(size=n)
    # x moves the second threshold twice as much as the first.
    y = (noise + u + 1.0 * x > -1.0).astype(int) + ((noise + u + 0.2 * x > 0.8) & (noise + u + 1.0 * x > -1.0))
    data = pd.DataFrame({"y": y, "x": x, "z": rng.standard_normal(n), "g": g})
    fit = lme4py.clmm("y ~ x + z + (1 | g)", data)
    ratio, score = fit.proportional_odds(), fit.proportional_odds("score")
    # Equal to first order: 900 rows.
    np.testing.assert_allclose(ratio["chi2"], score["chi2"], rtol=0.1, atol=0.1)
    assert ratio["p_value"]["x"] < 1e-4
    assert ratio["p_value"]["z"] > 0.01
    line = fit.check()["proportional odds"]
    assert line.ok is False
    assert "nominal='~ x'" in str(line).replace("\n          ", " ")
    larger = lme4py.clmm("y ~ z + (1 | g)", data, nominal="~ x")
    assert lme4py.lrtest(fit, larger).chi2 == pytest.approx(ratio["chi2"]["x"], abs=1e-6)  # the same two fits
    with pytest.raises(OptionError, match="restricted model has a nominal part"):
        lme4py.lrtest(larger, fit)


def test_a_response_without_order_has_no_proportional_odds():
    fit = lme4py.glmer("use ~ age + (1 | district)", lme4py.load_dataset("Contraception"))
    with pytest.raises(OptionError, match="thresholds"):
        fit.proportional_odds()


def test_curves_that_cross_within_the_data_are_named():
    # Far out the middle category is not observed: the line of its upper threshold falls below that of its lower one.
    x = np.repeat([0.0, 1.0, 6.0], 60)
    y = np.concatenate([np.tile([0, 1, 2], 20), np.tile([0, 0, 1, 2, 2, 2], 10), np.tile([0, 2], 30)])
    with pytest.warns(IdentificationWarning, match="curves of categories cross"):
        fit = lme4py.clmm("y ~ 1", pd.DataFrame({"x": x, "y": y}), nominal="~ x")
    assert fit.check()["thresholds"].ok is False
    with pytest.warns(IdentificationWarning, match="predictions are NaN"):
        p = fit.predict(pd.DataFrame({"x": [0.0, 6.0]}), type="prob")
    assert np.isfinite(p.iloc[0]).all()
    assert p.iloc[1].isna().all()


def test_without_random_effects_there_is_nothing_to_average():
    fit = lme4py.clmm("rating ~ temp + contact", WINE, fixed_only=True)
    for interval in (None, "confidence"):
        a, b = (fit.predict(WINE.head(9), include_random=how, interval=interval) for how in ("integrate", False))
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_elasticities_are_means_of_ratios():
    data = WINE.assign(x=np.sin(np.arange(72.0)) + 2.0)
    for options in ({}, {"scale": "~ temp"}):
        fit = lme4py.clmm("rating ~ x + contact + (1 | judge)", data, **options)
        p, up, down = (
            fit.predict(data.assign(x=data["x"] + h), include_random=False, type="prob") for h in (0.0, 1e-5, -1e-5)
        )
        want = ((up - down) / 2e-5 / p).mul(data["x"], axis=0).mean()
        # Central differences with steps of 1e-5 of functions of size one.
        np.testing.assert_allclose(lme4py.Margins.response(fit).eyex("x").estimate, want, rtol=1e-6)
    with pytest.raises(OptionError, match="it has levels"):
        lme4py.Margins.response(fit).eydx("contact")


def test_effects_on_thresholds_do_not_depend_on_the_origin_of_their_column():
    """From 2,000 away they and the thresholds are one parameter to 1e-7; errors come from differences along axes."""
    rng = np.random.default_rng(11)
    g, x = np.repeat(np.arange(20), 8), rng.normal(size=160)
    latent = 0.4 * x + 0.6 * rng.normal(size=20)[g] + rng.logistic(size=160) + 2.0
    data = pd.DataFrame({"y": np.clip(np.round(latent), 1, 4).astype(int), "x": x, "g": g})
    here = lme4py.clmm("y ~ 1 + (1 | g)", data, nominal="~ x").coef_table(component="nominal")
    there = lme4py.clmm("y ~ 1 + (1 | g)", data.assign(x=x + 2000.0), nominal="~ x").coef_table(component="nominal")
    # The search stops where the deviance can fall by 1e-12.
    np.testing.assert_allclose(there["estimate"], here["estimate"], rtol=1e-4)
    np.testing.assert_allclose(there["std_error"], here["std_error"], rtol=1e-4)
