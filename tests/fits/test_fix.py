"""Parameters held at given values: the model in which they are known."""

from __future__ import annotations

import numpy as np
import pytest

import lme4py
from lme4py.errors import OptionError

SLEEP = lme4py.load_dataset("sleepstudy")
CBPP = lme4py.load_dataset("cbpp").assign(z=np.linspace(-1.0, 1.0, 56))


def test_a_coefficient_that_is_held_is_an_offset() -> None:
    held = lme4py.lmer("Reaction ~ Days + (Days | Subject)", SLEEP, fix={"Days": 8.25})
    known = lme4py.lmer("Reaction ~ 1 + (Days | Subject)", SLEEP, offset=8.25 * SLEEP["Days"])
    # The same model by another way in.
    assert held.log_likelihood == pytest.approx(known.log_likelihood, abs=1e-9)
    assert list(held.params.index) == ["Intercept"]
    np.testing.assert_allclose(held.predict(SLEEP), known.fittedvalues, rtol=1e-8)
    assert "Days is held at 8.25" in held.fit.design.notes


def test_zero_leaves_the_term_out() -> None:
    held = lme4py.lmer("Reaction ~ Days + (Days | Subject)", SLEEP, reml=False, fix={"Days": 0})
    out = lme4py.lmer("Reaction ~ 1 + (Days | Subject)", SLEEP, reml=False)
    assert held.log_likelihood == out.log_likelihood
    nothing = lme4py.lmer("Reaction ~ Days + (Days | Subject)", SLEEP, fix={"Intercept": 0})
    assert list(nothing.params.index) == ["Days"]


def test_sigma_and_a_coefficient_together() -> None:
    held = lme4py.lmer("Reaction ~ Days + (1 | Subject)", SLEEP, fix={"sigma": 30, "Days": 10})
    assert held.sigma == 30.0
    same = lme4py.lmer("Reaction ~ 1 + (1 | Subject)", SLEEP, sigma=30, offset=10.0 * SLEEP["Days"])
    assert held.log_likelihood == pytest.approx(same.log_likelihood, abs=1e-9)


def test_generalised_models() -> None:
    formula = "cbind(incidence, size - incidence) ~ period + z + (1 | herd)"
    held = lme4py.glmer(formula, CBPP, "binomial", fix={"z": 0.5})
    same = lme4py.glmer(formula.replace(" + z", ""), CBPP, "binomial", offset=0.5 * CBPP["z"])
    assert held.log_likelihood == pytest.approx(same.log_likelihood, abs=1e-8)


@pytest.mark.parametrize(
    ("fix", "match"),
    [
        ({"sd(Intercept | Subject)": 0.5}, "cannot be held"),
        ({"Dais": 0.5}, "Did you mean 'Days'"),
        ({"Days": "a"}, "a finite number"),
        ({"Intercept": 3}, "at 0 only"),
        (["Days"], "give a dict"),
    ],
)
def test_what_is_refused(fix: object, match: str) -> None:
    with pytest.raises(OptionError, match=match):
        lme4py.lmer("Reaction ~ Days + (1 | Subject)", SLEEP, fix=fix)
    with pytest.raises(OptionError, match="cannot be held"):
        lme4py.glmer("Reaction ~ Days + (1 | Subject)", SLEEP, "gamma", fix={"sigma": 1})
