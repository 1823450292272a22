"""Margins and averages of models with zero parts: products of means, brute force, and simulation."""

from __future__ import annotations

import numpy as np
import pytest

import lme4py
from lme4py import Margins, pairwise
from lme4py.errors import OptionError


@pytest.fixture(scope="module")
def data():
    return lme4py.load_dataset("Salamanders")


@pytest.fixture(scope="module")
def fit(data):
    formula = "count ~ mined + DOP + (1 | site)"
    return lme4py.glmer(formula, data, family="poisson", ziformula="~ mined + DOY + (1 | site)")


def integrated(fit, data, nodes=60):
    """Means of rows over both random effects, by a product of Gauss-Hermite rules."""
    x, w = np.polynomial.hermite_e.hermegauss(nodes)
    w = w / w.sum()
    sd = fit.var_corr()["sdcor"].to_numpy()
    eta = fit.predict(data, type="linear", include_random=False).to_numpy()[:, None]
    zero = fit.predict(data, type="zprob", include_random=False).to_numpy()[:, None]
    mu = np.exp(eta + sd[0] * x) @ w
    pi = (1.0 / (1.0 + np.exp(-np.log(zero / (1.0 - zero)) - sd[1] * x))) @ w
    return mu, pi


def test_means_are_averaged_over_the_random_effects_of_both_parts(fit, data):
    mu, pi = integrated(fit, data)
    # Sixty nodes are exact to rounding with these standard deviations.
    np.testing.assert_allclose(fit.predict(include_random="integrate", type="conditional"), mu, rtol=1e-9)
    np.testing.assert_allclose(fit.predict(include_random="integrate", type="zprob"), pi, rtol=1e-9)
    np.testing.assert_allclose(fit.predict(include_random="integrate"), (1.0 - pi) * mu, rtol=1e-9)
    m = Margins.response(fit, random="integrate").predict()
    assert m.estimate[0] == pytest.approx(((1.0 - pi) * mu).mean(), rel=1e-9)


@pytest.mark.parametrize("random", ["zero", "integrate"])
def test_contrasts_and_slopes_are_differences_of_predictions(fit, data, random):
    m = Margins.response(fit, random=random)
    include = "integrate" if random == "integrate" else False

    def mean(**changes):
        return fit.predict(data.assign(**changes), include_random=include).mean()

    levels = {level: data["mined"].where(data["mined"] == level, level) for level in ("yes", "no")}
    difference = m.contrasts(pairwise("mined", ["no", "yes"]))
    expected = mean(mined=levels["no"]) - mean(mined=levels["yes"])
    assert difference.estimate[0] == pytest.approx(expected, rel=1e-10)
    for name in ("DOP", "DOY"):
        h = 1e-4
        slope = (mean(**{name: data[name] + h}) - mean(**{name: data[name] - h})) / (2.0 * h)
        # A central difference of this step has eight digits.
        assert m.dydx(name).estimate[0] == pytest.approx(slope, rel=1e-7)


def test_standard_errors_are_those_of_draws_of_the_parameters(fit):
    options = {"random": "integrate"}
    for call in (lambda m: m.predict(atexog={"mined": ["yes", "no"]}), lambda m: m.dydx("DOP")):
        delta = call(Margins.response(fit, **options))
        drawn = call(Margins.response(fit, method="simulation", n_sim=2000, rng_seed=1, **options))
        # 2000 draws: 1.6 % each, and the curvature that the delta method leaves out.
        np.testing.assert_allclose(delta.std_error, drawn.std_error, rtol=0.12)
    assert np.isfinite(Margins.response(fit, vcov="CR0").predict().std_error).all()


def test_each_part_has_margins_of_its_own(fit, data):
    zero = Margins.response(fit, component="zero_inflation").predict()
    assert zero.estimate[0] == pytest.approx(fit.predict(type="zprob", include_random=False).mean(), rel=1e-12)
    mean = Margins.response(fit, component="conditional").predict()
    assert mean.estimate[0] == pytest.approx(fit.predict(type="conditional", include_random=False).mean(), rel=1e-12)
    ratio = Margins.logit_scale(fit, component="zero_inflation").contrasts(pairwise("mined", ["no", "yes"]))
    coefficient = fit.coef_table(component="zero_inflation").loc["mined[T.no]"]
    # On the scale of the link a difference is the coefficient.
    assert np.log(ratio.estimate[0]) == pytest.approx(coefficient["estimate"], rel=1e-10)
    with pytest.raises(OptionError, match="no part 'zi'"):
        Margins.response(fit, component="zi")
    with pytest.raises(OptionError, match="one linear predictor"):
        Margins.log_scale(fit)
    with pytest.raises(OptionError, match="conditional modes"):
        Margins.response(fit, random="conditional")


def test_limits_of_predictions_are_those_of_margins_of_rows(fit, data):
    rows = data.iloc[[0, 100, 300]]
    for include, random in ((False, "zero"), ("integrate", "integrate")):
        table = fit.predict(rows, include_random=include, interval="confidence")
        one = Margins.response(fit, at=rows, random=random)
        found = one.predict(unit_level=True)
        assert ((table["lower"] < table["predicted"]) & (table["predicted"] < table["upper"])).all()
        # The delta method on the log scale: half the width is 1.96 relative standard errors.
        half = np.log(table["upper"] / table["predicted"])
        np.testing.assert_allclose(half, 1.959964 * found.std_error / found.estimate, rtol=1e-6)
    zero = fit.predict(rows, include_random=False, type="zprob", interval="confidence")
    assert ((zero > 0.0) & (zero < 1.0)).to_numpy().all()
    modes = fit.predict(rows, interval="confidence")
    assert ((modes["lower"] < modes["predicted"]) & (modes["predicted"] < modes["upper"])).all()


def test_a_correlation_of_the_parts_is_no_product(data):
    joined = lme4py.glmer(
        "count ~ mined + (1 | s | site)", data, family="poisson", ziformula="~ mined + (1 | s | site)"
    )
    with pytest.raises(OptionError, match="correlate"):
        Margins.response(joined, random="integrate")
    zero = joined.predict(type="zprob", include_random="integrate")
    m = Margins.response(joined, component="zero_inflation", random="integrate").predict()
    assert m.estimate[0] == pytest.approx(zero.mean(), rel=1e-9)


def test_margins_of_a_dispersion(data):
    fit = lme4py.glmer("count ~ spp + mined + (1 | site)", data, family="nbinomial", dispformula="~ DOY")
    m = Margins.response(fit, component="dispersion").predict()
    assert m.estimate[0] == pytest.approx(fit.predict(type="dispersion").mean(), rel=1e-12)
    # The mean of the response has one predictor, as without the part.
    mean = Margins.response(fit).predict()
    assert mean.estimate[0] == pytest.approx(fit.predict(include_random=False).mean(), rel=1e-12)


def test_margins_at_the_modes_beside_a_dispersion_part_are_predictions(data):
    fit = lme4py.glmer("count ~ mined + (1 | site)", data, family="nbinomial", dispformula="~ mined")
    found = Margins.response(fit, random="conditional").predict(unit_level=True).to_frame()
    rows = fit.predict(data, se=True)
    # One formula for each row; no coefficient of the dispersion moves the mean.
    np.testing.assert_allclose(found[["estimate", "std_error"]], rows, rtol=1e-10)
