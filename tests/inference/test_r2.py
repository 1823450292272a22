"""R squared."""

from __future__ import annotations

import pytest
from inference_models import MODELS, having, lmm, reference_fit


def _comparable(name: str) -> bool:
    """R's performance 0.10.2 gives no value for singular fits, and takes random columns that are no fixed effects, and
    second terms of a factor, as if they had no variance."""
    block = MODELS[name]["performance"]
    if block["r2_conditional"] is None or block["icc_adjusted"] is None:
        return False
    design = reference_fit(name).fit.design
    groups = [term.group for term in design.terms]
    return len(set(groups)) == len(groups) and all(set(term.columns) <= set(design.x_names) for term in design.terms)


def test_values_of_rs_performance():
    compared = 0
    for name in having("performance"):
        # Large data cost seconds and add nothing.
        if MODELS[name]["data"] in ("InstEval", "Chem97", "star") or not _comparable(name):
            continue
        block, ours = MODELS[name]["performance"], reference_fit(name).r_squared()
        # Variances agree to 1e-7 with R's at its polished optimum.
        assert ours["marginal"] == pytest.approx(block["r2_marginal"], abs=1e-6), name
        assert ours["conditional"] == pytest.approx(block["r2_conditional"], abs=1e-6), name
        compared += 1
    assert compared > 40


def test_sleepstudy(sleep):
    found = sleep.r_squared()
    # Five digits as published.
    assert found["marginal"] == pytest.approx(0.27865, abs=5e-6)
    assert found["conditional"] == pytest.approx(0.79922, abs=5e-6)
    total = found["var_fixed"] + found["var_random"] + found["var_residual"]
    assert found["marginal"] == pytest.approx(found["var_fixed"] / total)


def test_without_variance_of_the_groups():
    found = lmm("Yield ~ 1 + (1 | Batch)", "Dyestuff2", True).r_squared()
    assert found["var_random"] == 0.0
    assert found["conditional"] == pytest.approx(0.0, abs=1e-12)
