"""Numbers at the ends of floating point: refused by name, never a wrong value, nothing written past Python."""

from __future__ import annotations

import numpy as np
import pytest

import lme4py
from lme4py.engine.linear import scaling
from lme4py.errors import DataError, OptionError

MODELS = {
    "one": ("Yield ~ 1 + (1 | Batch)", "Dyestuff"),
    "slope": ("Reaction ~ Days + (Days | Subject)", "sleepstudy"),
    "crossed": ("diameter ~ 1 + (1 | plate) + (1 | sample)", "Penicillin"),
    "nested": ("strength ~ 1 + (1 | batch/cask)", "Pastes"),
}


def criterion_of(name: str) -> lme4py.LmmCriterion:
    formula, data = MODELS[name]
    return lme4py.lmm_criterion(lme4py.lformula(formula, lme4py.load_dataset(data)))


def test_random_slopes_that_are_all_fixed_effects_are_scaled_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    looked, centred = [], scaling._centred
    monkeypatch.setattr(scaling, "_centred", lambda X, w, names: looked.append(names) or centred(X, w, names))
    data = lme4py.load_dataset("sleepstudy")
    scaling.plan_scaling(lme4py.lformula("Reaction ~ Days + (Days | Subject)", data))
    assert looked == [("Intercept", "Days")]
    # Other columns are looked at by themselves.
    both = lme4py.lformula("Reaction ~ Days + (I(Days^2) | Subject)", data)
    apart = scaling.plan_scaling(both)[0]
    assert looked[1:] == [("Intercept", "Days"), ("Intercept", "I(Days^2)")]
    Z = both.terms[0].values @ apart.S[0]
    np.testing.assert_allclose(Z.T @ Z / 180, np.eye(2), atol=1e-13)  # rounding of sums of 180 products


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("size", [1e7, 1e8, 1e10, 1e20, 1e100, 1e155, 1e200, 1e308])
def test_theta_too_large_for_the_digits_of_the_criterion(name: str, size: float, capfd: pytest.CaptureFixture) -> None:
    criterion = criterion_of(name)
    theta = size * criterion.inside.problem.structures.initial()
    for function in (criterion, criterion.gradient):
        with pytest.raises(OptionError, match=r"cannot be evaluated at theta=.*relative to the residual one"):
            function(theta)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", MODELS)
def test_large_theta_are_right_or_refused(name: str) -> None:
    """Far out the criterion rises by twice the logarithm of theta for every random effect that is not a mean."""
    criterion = criterion_of(name)
    theta = criterion.inside.problem.structures.initial()
    before = rise = 0.0
    for power in range(3, 9):
        try:
            here, slope = criterion(10.0**power * theta), 10.0**power * theta @ criterion.gradient(10.0**power * theta)
        except OptionError:
            break
        if rise:
            # What is left of the curvature falls with theta^-2; digits are lost with theta^2.
            assert slope == pytest.approx(rise, rel=1e-2)
            assert here - before == pytest.approx(rise * np.log(10.0), rel=1e-2)
        before, rise = here, slope
    assert power > 4


@pytest.mark.parametrize("start", [1e3, 1e8, 1e100])
@pytest.mark.parametrize("name", MODELS)
def test_a_start_far_out_ends_in_the_minimum(name: str, start: float) -> None:
    formula, data = MODELS[name]
    right = lme4py.lmer(formula, lme4py.load_dataset(data))
    theta = start * criterion_of(name).inside.problem.structures.initial()
    again = lme4py.lmer(formula, lme4py.load_dataset(data), start=theta)
    assert again.converged
    # Both are certified to 1e-12 or so.
    assert again.criterion == pytest.approx(right.criterion, abs=1e-8)


@pytest.mark.parametrize("name", MODELS)
def test_the_bound_far_out_is_no_promise(name: str) -> None:
    """The criterion is flat in theta there, and still falls by much on the way back."""
    criterion = criterion_of(name)
    theta = 200.0 * criterion.inside.problem.structures.initial()
    optimum = lme4py.optimize_criterion(criterion, theta, {"max_evaluations": 1})
    with pytest.warns(lme4py.ConvergenceWarning, match=r"Not converged"):
        certificate = lme4py.make_fit(criterion.design, criterion, optimum).certificate
    assert certificate.bound > 1.0
    assert certificate.min_eigenvalue < 0.0


@pytest.mark.parametrize("scale", [1e150, 1e155, 1e300, 1e-150, 1e-200, 1e-310, 5e-324])
@pytest.mark.parametrize(
    "formula",
    [
        "Reaction ~ x + (1 | Subject)",
        "Reaction ~ x + z + (1 | Subject)",
        "Reaction ~ 0 + x + (1 | Subject)",
        "Reaction ~ Days + (x | Subject)",
        "Reaction ~ Days + (0 + x | Subject)",
        "Reaction ~ Days + diag(x | Subject)",
    ],
)
@pytest.mark.parametrize("centred", [False, True])
def test_columns_whose_squares_leave_floating_point(
    formula: str, scale: float, centred: bool, capfd: pytest.CaptureFixture
) -> None:
    data = lme4py.load_dataset("sleepstudy")
    data["z"] = np.sin(np.arange(180.0))
    data["x"] = (data["Days"] - (4.5 if centred else 0.0)) * scale
    with pytest.raises(DataError, match=r"the values of x are up to .* use other units"):
        lme4py.lmer(formula, data)
    with pytest.raises(DataError, match=r"the values of x are up to .* use other units"):
        lme4py.glmer(formula, data, family="gamma", link="log")
    assert capfd.readouterr() == ("", "")


def test_columns_within_the_range_are_fitted() -> None:
    data = lme4py.load_dataset("sleepstudy")
    right = lme4py.lmer("Reaction ~ Days + (Days | Subject)", data)
    for scale in (1e-130, 1e130):
        data["x"] = data["Days"] * scale
        again = lme4py.lmer("Reaction ~ x + (x | Subject)", data)
        # The same columns inside, up to rounding of the products with the scale.
        assert again.params["x"] * scale == pytest.approx(right.params["Days"], rel=1e-9)
        np.testing.assert_allclose(again.fittedvalues, right.fittedvalues, rtol=1e-9)
