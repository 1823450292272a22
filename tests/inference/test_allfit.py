"""The same optimum by other optimisers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from influence_models import made_up, reference_result
from reference_data import load_reference

import lme4py
from lme4py.errors import OptionError
from lme4py.inference.diagnostics.allfit import OPTIMIZERS, all_fit


def test_all_optimisers_agree() -> None:
    result = reference_result("lmm_machines_fs")
    found = result.all_fit(n_starts=2, seed=1, optimizers=["trust-region", "L-BFGS-B", "BFGS"])
    assert found.agree
    assert list(found.table["start"]) == ["default"] * 3 + ["random 1"] * 3
    # All stop where the criterion can fall by about 1e-9.
    assert found.table["difference"].max() < 1e-6
    assert (found.fixef - result.params).abs().to_numpy().max() < 1e-4
    assert "6 of 6 runs end at the optimum of the fit" in str(found)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_optimiser(name: str) -> None:
    result = lme4py.lmer("y ~ x + (x | g)", made_up())
    row = result.all_fit([name], n_starts=1).table.iloc[0]
    assert (row["optimizer"], row["verdict"]) == (name, "same optimum")
    assert row["criterion"] == pytest.approx(result.deviance, abs=1e-5)
    assert row["evaluations"] > 1


@pytest.mark.parametrize(
    "arguments",
    [
        {"formula": "count ~ x + (1 | g)", "family": "nbinomial"},
        {"formula": "cbind(win, size - win) ~ x + (1 | g)", "nAGQ": 5},
        {"formula": "cbind(win, size - win) ~ x + (1 | g)", "nAGQ": 0},
    ],
)
def test_generalised(arguments: dict[str, Any]) -> None:
    result = lme4py.glmer(data=made_up(), **arguments)
    found = result.all_fit(["trust-region", "L-BFGS-B", "Powell"], n_starts=1)
    assert found.agree
    # Derivative-free runs stop at about 1e-6.
    assert found.table["criterion"].to_numpy() == pytest.approx(result.deviance, abs=1e-4)


def test_ordinal() -> None:
    result = lme4py.clmm("rating ~ temp + contact + (1 | judge)", load_reference("wine"))
    assert result.all_fit(["L-BFGS-B"], n_starts=1).agree


def test_a_fit_that_is_not_the_optimum() -> None:
    fit = reference_result("lmm_sleep_rs").fit
    worse = replace(fit, criterion=fit.criterion + 1.0, beta=fit.beta + 1.0)
    found = all_fit(worse, ["trust-region"], n_starts=1)
    assert not found.agree
    assert "lower criterion than the fit, by 1" in str(found)


def test_too_few_evaluations_are_seen() -> None:
    found = lme4py.lmer("y ~ x + (x | g)", made_up()).all_fit(["Nelder-Mead"], n_starts=1, max_evaluations=15)
    assert found.table["evaluations"].item() <= 17
    assert found.table["verdict"].item().startswith("stopped")
    assert np.isfinite(found.table["criterion"].item())


def test_errors() -> None:
    result = reference_result("lmm_sleep_ri")
    with pytest.raises(OptionError, match="Did you mean 'Nelder-Mead'"):
        result.all_fit(["Nelder-Meat"])
    with pytest.raises(OptionError, match="n_starts=0"):
        result.all_fit(n_starts=0)
