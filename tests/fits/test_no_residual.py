"""dispformula="~ 0": a random-effects term with an effect for each row is the residual covariance."""

from __future__ import annotations

import pytest
from reference_data import load_reference

import lme4py
from lme4py.errors import OptionError

SLEEP = lme4py.load_dataset("sleepstudy")


@pytest.mark.parametrize(
    ("structure", "log_likelihood"), [("ar1", -869.603009), ("cs", -874.024571), ("toep", -847.412541)]
)
def test_sleepstudy_by_reml(structure: str, log_likelihood: float) -> None:
    fit = lme4py.lmer(f"Reaction ~ Days + {structure}(0 + factor(Days) | Subject)", SLEEP, dispformula="~ 0")
    # REML by dense algebra, given to six decimals.
    assert fit.log_likelihood == pytest.approx(log_likelihood, abs=1e-6)
    if structure == "ar1":
        assert fit.sigma == pytest.approx(49.51496, abs=5e-5)
        assert fit.residual_correlation().iloc[0, 1] == pytest.approx(0.799953, abs=5e-6)
    assert any("~ 0" in note for note in fit.fit.design.notes)


def test_glmm_tmb_models() -> None:
    growth = lme4py.lmer(
        "distance ~ age * Sex + us(0 + factor(age) | Subject)",
        lme4py.load_dataset("Orthodont"),
        reml=False,
        dispformula="~ 0",
    )
    # glmmTMB keeps a residual variance of 1.5e-8, which moves the log-likelihood by about that.
    assert growth.log_likelihood == pytest.approx(-209.738524054973, abs=1e-6)
    visits = lme4py.lmer("y ~ x + g + toep(visit + 0 | id)", load_reference("repbin"), reml=False, dispformula="~0")
    assert visits.log_likelihood == pytest.approx(-298.90074753893, abs=1e-6)


def test_other_terms_stay() -> None:
    data = load_reference("irreg")
    both = lme4py.lmer("y ~ x + (1 | id) + exp(time | id)", data, dispformula="~ 0")
    same = lme4py.lmer("y ~ x + (1 | id)", data, residual="exp(time | id)")
    # The same model by another way in.
    assert both.log_likelihood == same.log_likelihood


@pytest.mark.parametrize(
    ("formula", "more", "match"),
    [
        ("Reaction ~ Days + (Days | Subject)", {}, "has 0 that can"),
        ("Reaction ~ ar1(0 + Days | Subject) + cs(0 + factor(Days) | Subject)", {}, "has 2 that can"),
        ("Reaction ~ ar1(0 + Days | Subject)", {"residual": "ar1(Days | Subject)"}, "give one"),
        ("Reaction ~ ar1(0 + Days | Subject)", {"variance": "power(Days)"}, "give one"),
    ],
)
def test_what_is_refused(formula: str, more: dict[str, str], match: str) -> None:
    with pytest.raises(OptionError, match=match):
        lme4py.lmer(formula, SLEEP, dispformula="~ 0", **more)
