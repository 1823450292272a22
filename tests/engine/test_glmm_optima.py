"""Generalised models with several optima, and dispersions at the end of their range."""

from __future__ import annotations

import json
import warnings
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
from reference_data import REFERENCE

import lme4py
from lme4py.engine.generalised.descent import Descents
from lme4py.engine.generalised.problem import ModeFinder
from lme4py.engine.generalised.rivals import Candidate
from lme4py.engine.generalised.search import Search
from lme4py.engine.optimise import Control
from lme4py.errors import DesignError, OptimaWarning
from lme4py.fits.generalised.refit import refit_estimates

# Hard random models, each with the lowest of twenty wide starts, by benchmarks/glmm_optima.py --write.
CASES: list[dict[str, Any]] = json.loads((REFERENCE / "glmm_optima.json").read_text(encoding="utf-8"))

TEN_ROWS = pd.DataFrame(
    {
        "y": [54.764349, 5.183235, 7.613936, 1.206727, 0.300031, 55.203115, 54.328991, 7.130494, 11.945872, 0.536647],
        "x": [-1.890798, 0.352345, 0.919057, -1.036487, 0.57123, -1.600073, -0.25683, 1.17199, 0.001268, -0.914597],
        "g": [0, 1, 2, 3, 0, 0, 2, 2, 3, 1],
        "f": list("ababaaabba"),
    }
)
# The other minimum, at a variance of zero, has -41.61419.
TEN_ROWS_BEST = -39.91546


@cache
def ten_rows() -> lme4py.MEGLMResult:
    return lme4py.glmer("y ~ x + f + (1 | g)", TEN_ROWS, family="gaussian", link="log")


def fit_case(case: dict[str, Any], **options: Any) -> lme4py.MEGLMResult:
    data = pd.DataFrame(case["data"])
    if case["family"] == "ordinal":
        data["y"] = pd.Categorical(data["y"], ["low", "mid", "high"], ordered=True)
        return lme4py.clmm(case["formula"], data, link=case["link"], **options)
    return lme4py.glmer(case["formula"], data, family=case["family"], link=case["link"], **options)


# The other minimum of the ten rows is 3.4 above.
@pytest.mark.filterwarnings("ignore:Converged:lme4py.OptimaWarning")
class TestSeveralMinima:
    def test_ten_rows_with_a_log_link(self) -> None:
        # All digits of the value known from another program.
        assert ten_rows().log_likelihood == pytest.approx(TEN_ROWS_BEST, abs=1e-5)
        assert ten_rows().converged

    @pytest.mark.parametrize("start", [0.0, 0.01, 0.1, 3.0, 50.0])
    def test_from_every_start(self, start: float) -> None:
        again = lme4py.glmer("y ~ x + f + (1 | g)", TEN_ROWS, family="gaussian", link="log", start=[start])
        assert again.log_likelihood == pytest.approx(TEN_ROWS_BEST, abs=1e-5)

    def test_the_other_minimum_is_told(self) -> None:
        with pytest.warns(OptimaWarning, match="another minimum is only 3.4 above"):
            fit = lme4py.glmer("y ~ x + f + (1 | g)", TEN_ROWS, family="gaussian", link="log")
        # 2 (41.61419 - 39.91546).
        assert fit.certificate.second == pytest.approx(3.39746, abs=1e-3)

    def test_refit_and_update(self) -> None:
        assert ten_rows().refit(TEN_ROWS["y"]).log_likelihood == pytest.approx(TEN_ROWS_BEST, abs=1e-5)
        assert refit_estimates(ten_rows().fit, TEN_ROWS["y"]).criterion == pytest.approx(-2.0 * TEN_ROWS_BEST, abs=1e-4)
        assert ten_rows().update(". ~ .").log_likelihood == pytest.approx(TEN_ROWS_BEST, abs=1e-5)

    def test_a_refit_from_a_singular_fit(self) -> None:
        flat = ten_rows().refit(np.exp(0.3 * TEN_ROWS["x"]) + 0.5 * np.cos(np.arange(10)) ** 2)
        assert flat.is_singular
        assert flat.refit(TEN_ROWS["y"]).log_likelihood == pytest.approx(TEN_ROWS_BEST, abs=1e-5)

    def test_the_certificate_says_what_was_compared(self) -> None:
        certificate = ten_rows().certificate
        assert "a local minimum of -2 log-likelihood is proved" in certificate.verdict
        assert "other starts, none lower" in certificate.verdict
        reached = [rival.reached for rival in certificate.compared]
        # Another minimum was seen, and none below.
        assert max(reached) == pytest.approx(2.0 * 41.61419, abs=1e-3)
        assert min(reached) > -2.0 * TEN_ROWS_BEST - 1e-4

    def test_an_interior_minimum_is_compared_with_a_prediction(self) -> None:
        fit = lme4py.glmer("use ~ age + (1 | district)", lme4py.load_dataset("Contraception"))
        assert [rival.points for rival in fit.certificate.compared] == [0]
        assert fit.certificate.compared[0].criterion > -2.0 * fit.log_likelihood
        assert "a prediction far from zero" in fit.certificate.verdict

    def test_the_criterion_has_the_last_step_of_the_modes(self) -> None:
        # Without it log|M| is off by the root of the last decrease, here by some 1e-9.
        for formula, data in (("use ~ age + (1 | district)", "Contraception"), ("r2 ~ Anger + (1 | id)", "VerbAgg")):
            fit = lme4py.glmer(formula, lme4py.load_dataset(data), "binomial").fit
            # From modes of zero, and as far as rounding allows; a sum of 8,000 rows has eleven digits after the point.
            assert fit.point.value == pytest.approx(fit.criterion, abs=1e-10)

    @pytest.mark.parametrize("number", range(len(CASES)))
    def test_hard_random_models(self, number: int) -> None:
        case = CASES[number]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", OptimaWarning)
            fit = fit_case(case)
        certificate = fit.certificate
        # A minimum beside an abyss, or with a predictor on both sides of a pole, is not called the answer in silence.
        doubtful = bool(certificate.caution) or certificate.second is not None
        assert [str(one.message) for one in caught] == [certificate.verdict] * doubtful
        # The criterion is known to six digits, and a fit may end 1e-5 above.
        assert -2.0 * fit.log_likelihood < case["best"] + 1.1e-5

    def test_correlations_of_a_structure_are_compared(self) -> None:
        # From moments a descent ends at a correlation of -.73, 1.07 above the minimum at a correlation of 1.
        rng = np.random.default_rng(16)
        g, visit = np.repeat(np.arange(12), 4), pd.Categorical(np.tile(np.arange(4), 12))
        x = rng.normal(size=48)
        effects = 0.3 * rng.normal(size=(4, 12)).T.ravel()
        data = pd.DataFrame({"g": g, "visit": visit, "x": x, "y": rng.poisson(np.exp(0.3 + 0.4 * x + effects))})
        fit = lme4py.glmer("y ~ x + ar1(0 + visit | g)", data, family="poisson")
        alike = lme4py.glmer("y ~ x + (1 | g)", data, family="poisson")
        # Effects that are all alike are one of each group; 1e-6 is the tolerance of both searches.
        assert fit.criterion == pytest.approx(alike.criterion, abs=1e-6)
        assert any(rival.reached > fit.criterion + 1.0 for rival in fit.certificate.compared)

    def test_two_columns_of_a_structure_alone(self) -> None:
        # With all variances a descent of toep ends .2 above hetar1, which it holds.
        rng = np.random.default_rng(1002)
        g, visit = np.repeat(np.arange(8), 12), np.tile(np.repeat(np.arange(4), 3), 8)
        x = rng.normal(size=96)
        rng.normal(size=(4, 8))
        rng.normal(size=96), rng.poisson(np.exp(0.3 + 0.4 * x))
        y = (rng.random(96) < 1 / (1 + np.exp(-0.3 - 0.4 * x))).astype(int)
        data = pd.DataFrame({"g": g, "visit": pd.Categorical(visit), "x": x, "y": y})
        outer, inner = (lme4py.glmer(f"y ~ x + {word}(0 + visit | g)", data) for word in ("toep", "hetar1"))
        # The tolerance of both searches.
        assert outer.criterion < inner.criterion + 1e-6

    def test_a_predictor_on_both_sides_of_a_zero_of_the_link_warns(self) -> None:
        rng = np.random.default_rng(1)
        x, g = np.repeat([-2.0, 2.0], 20), np.tile(np.arange(5), 8)
        data = pd.DataFrame({"y": rng.poisson((x + 0.2 * rng.standard_normal(5)[g]) ** 2), "x": x, "g": g})
        with pytest.warns(OptimaWarning, match="both signs"):
            fit = lme4py.glmer("y ~ 0 + x + (1 | g)", data, family="poisson", link="sqrt")
        # A proved minimum all the same: |x| gives the same means with one sign, and random effects of the other.
        assert fit.converged
        assert "both signs" in fit.certificate.verdict


def test_a_start_that_runs_away_leaves_others_their_turn() -> None:
    """Truncated counts that are nearly logarithmic: one start took everything, and the maximum was never reached."""
    rng = np.random.default_rng(1)
    data = pd.DataFrame({"g": np.repeat(np.arange(6), 4), "y": rng.poisson(2.0, 24)})
    glmm = lme4py.glmer("y ~ 1 + (1 | g)", data, family="nbinomial").fit
    turns: list[str] = []

    class Runaway(Search):
        def _followed(self, descents: Descents, candidate: Candidate) -> None:
            turns.append(candidate.what)
            # All it may take, and the one evaluation that tells it so.
            descents.finder.factorizations = descents.finder.most + 1

    search = Runaway(Descents(ModeFinder(glmm.problem), Control()))
    search.look_elsewhere()
    assert len(turns) == 4


def test_parameters_that_are_too_far_out_for_differences_have_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps beside them are rounding, and a Hessian of differences would not be finite."""

    def nowhere(slopes: Any, phi: Any, *_: Any) -> Any:
        return np.full((phi.size, phi.size), np.nan)

    monkeypatch.setattr("lme4py.engine.generalised.descent.difference_hessian", nowhere)
    with pytest.raises(DesignError, match="cannot be evaluated"):
        lme4py.glmer("incidence ~ 1 + (1 | herd)", lme4py.load_dataset("cbpp"), "poisson")
