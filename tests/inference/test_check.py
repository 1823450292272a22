"""The checks in plain words: models with known faults."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from influence_models import made_up, made_up_fit, reference_result
from reference_data import load_reference

import lme4py
from lme4py.errors import Lme4Warning
from lme4py.inference.diagnostics.check import CheckLine, CheckResult, check


def quietly(make: Any) -> Any:
    """The fit of a model that warns."""
    with pytest.warns(Lme4Warning):
        return make().fit


def test_a_good_model() -> None:
    found = check(made_up_fit("slopes"))
    assert found.ok
    assert found.attention == ()
    assert str(found).startswith("Nothing asks for attention.\nok        convergence: the optimum is certified")
    names = [
        "convergence",
        "identification",
        "singularity",
        "scaling",
        "collinearity",
        "groups",
        "residuals",
        "normality of modes",
    ]
    assert [line.name for line in found] == names
    frame = found.to_frame()
    assert list(frame.columns) == ["check", "ok", "value", "message"]
    assert len(frame) == len(names)


def test_not_converged() -> None:
    fit = made_up_fit("slopes")
    stopped = replace(fit.certificate, converged=False, bound=0.3, verdict="The optimiser stopped early.")
    line = check(replace(fit, certificate=stopped))["convergence"]
    assert (line.ok, line.value) == (False, 0.3)
    assert "all_fit()" in line.message


def test_singular() -> None:
    found = lme4py.lmer("Yield ~ 1 + (1 | Batch)", load_reference("Dyestuff2")).check()
    assert found["singularity"].ok is False
    assert "(1 | Batch)" in found["singularity"].message
    assert found["normality of modes"].ok is None
    with pytest.raises(KeyError):
        found["nothing"]


def test_columns() -> None:
    data = made_up().assign(big=lambda d: 1e6 * d["o"], near=lambda d: d["x"] + 0.001 * d["o"])
    line = lme4py.lmer("y ~ x + big + (1 | g)", data).check()["scaling"]
    assert line.ok is False
    assert "the spread of big is" in line.message
    assert lme4py.lmer("y ~ x + near + (1 | g)", data).check()["collinearity"].ok is False
    twice = data.assign(twice=2 * data["x"])
    with pytest.warns(lme4py.RankWarning, match="twice"):
        line = lme4py.lmer("y ~ x + twice + (1 | g)", twice).check()["collinearity"]
    assert line.ok is False
    assert "twice dropped" in line.message


def test_few_groups() -> None:
    line = lme4py.lmer("y ~ x + (1 | s)", made_up()).check()["groups"]
    assert (line.ok, line.value) == (False, 4.0)


def test_separation() -> None:
    data = made_up().assign(wins=lambda d: (d["win"] > 3).astype(int))
    data["always"] = (data["wins"] == 1) & (data["o"] > 0)
    data["always"] = data["always"].astype(int)
    fit = quietly(lambda: lme4py.glmer("wins ~ always + (1 | g)", data))
    found = check(fit)
    assert found["separation"].ok is False
    assert "always" in found["separation"].message
    assert found["dispersion"].ok is None


def test_dispersion() -> None:
    rng = np.random.default_rng(5)
    g = np.repeat(np.arange(25), 20)
    mean = np.exp(1.0 + 0.5 * rng.normal(size=25)[g])
    data = pd.DataFrame({"over": rng.negative_binomial(1.0, 1 / (1 + mean)), "right": rng.poisson(mean), "g": g})
    over = lme4py.glmer("over ~ 1 + (1 | g)", data, "poisson").check()["dispersion"]
    assert over.ok is False
    assert over.value is not None
    assert over.value > 2
    assert "negative binomial" in over.message
    assert lme4py.glmer("right ~ 1 + (1 | g)", data, "poisson").check()["dispersion"].ok is True
    assert "dispersion" not in [line.name for line in lme4py.glmer("over ~ 1 + (1 | g)", data, "nbinomial").check()]


def test_outlying_groups_and_rows() -> None:
    rng = np.random.default_rng(6)
    g = np.repeat(np.arange(40), 5)
    modes = rng.normal(size=40)
    modes[0] = 15.0
    e = rng.normal(size=200)
    data = pd.DataFrame({"y": modes[g] + e, "g": g})
    assert lme4py.lmer("y ~ 1 + (1 | g)", data).check()["normality of modes"].ok is False
    heavy = data.assign(y=rng.normal(size=40)[g] + e**3)
    line = lme4py.lmer("y ~ 1 + (1 | g)", heavy).check()["residuals"]
    assert line.ok is False
    assert line.value is not None
    assert line.value < 1e-6


def test_laplace() -> None:
    rng = np.random.default_rng(7)
    g = np.repeat(np.arange(150), 2)
    data = pd.DataFrame({"y": rng.binomial(1, 1 / (1 + np.exp(-3 * rng.normal(size=150)[g]))), "g": g})
    rough = lme4py.glmer("y ~ 1 + (1 | g)", data).check()["Laplace"]
    assert rough.ok is False
    assert "nAGQ=9" in rough.message
    better = lme4py.glmer("y ~ 1 + (1 | g)", data, nAGQ=9).check()
    assert better["quadrature"].ok is True
    crossed = lme4py.glmer("count ~ x + (1 | g) + (1 | c)", made_up(), "poisson").check()["Laplace"]
    assert crossed.ok is None


def test_ordinal_and_reference_models() -> None:
    assert lme4py.clmm("rating ~ temp + (1 | judge)", load_reference("wine")).check()["convergence"].ok is True
    assert reference_result("glmm_contra").check()["separation"].ok is True


def test_lines_are_wrapped_with_an_indent() -> None:
    lines = str(CheckResult((CheckLine("name", False, "many words " * 40), CheckLine("x", True, "fine.")))).split("\n")
    assert max(map(len, lines)) <= 88
    assert lines[1].startswith("ATTENTION name: many words")
    assert all(line.startswith(" " * 10 + "m") or line.startswith(" " * 10 + "w") for line in lines[2:-1])
    assert len(lines) > 6
    assert lines[-1] == "ok        x: fine."
    assert CheckLine("x", True, "a < b")._repr_html_() == "<p>ok        x: a &lt; b</p>"


def test_zeros_beyond_those_expected_are_told_with_what_to_do():
    data = lme4py.load_dataset("Salamanders")

    def line(family, **parts):
        lines = lme4py.glmer("count ~ mined + (1 | site)", data, family=family, **parts).check().lines
        return next(one for one in lines if one.name == "zeros")

    plain = line("poisson")
    fit = lme4py.glmer("count ~ mined + (1 | site)", data, family="poisson")
    p = np.exp(-fit.fittedvalues)
    # Poisson zeros at the conditional modes.
    assert plain.value == pytest.approx((387 - p.sum()) / np.sqrt((p * (1 - p)).sum()), rel=1e-8)
    assert plain.ok is False
    assert "387 of 644 responses are zero" in plain.message
    assert "ziformula='~ 1'" in plain.message
    assert line("poisson", ziformula="~ mined").ok
    assert line("nbinomial").ok
    # A hurdle of all zeros at once expects as many as there are.
    assert line("truncated_poisson", ziformula="~ 1").value == pytest.approx(0.0, abs=1e-4)


def test_fewer_zeros_than_expected_ask_for_a_hurdle():
    rng = np.random.default_rng(0)
    data = pd.DataFrame({"g": np.repeat(np.arange(20), 20), "y": rng.binomial(3, 0.5, 400) + 1.0})
    data.loc[:3, "y"] = 0.0
    lines = lme4py.glmer("y ~ 1 + (1 | g)", data, family="poisson").check().lines
    zeros = next(one for one in lines if one.name == "zeros")
    assert zeros.ok is False
    assert "hurdle" in zeros.message
    dispersion = next(one for one in lines if one.name == "dispersion")
    assert "compois or genpois" in dispersion.message
