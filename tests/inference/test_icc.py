"""Intraclass correlations."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from inference_models import MODELS, having, lmm, reference_fit
from scipy import stats
from test_r2 import _comparable

from lme4py import icc, lmer
from lme4py.errors import OptionError


def test_values_of_statas_estat_icc():
    found = icc(lmm("Reaction ~ Days + (1 | Subject)", reml=True))
    # Seven digits as Stata prints them.
    assert found.estimate == pytest.approx(0.5893089, abs=6e-8)
    assert found.se == pytest.approx(0.0933693, abs=6e-8)
    assert found.ci_lower == pytest.approx(0.4025104, abs=6e-8)
    assert found.ci_upper == pytest.approx(0.7534754, abs=6e-8)
    assert found.alpha == 0.05


def test_values_of_rs_performance():
    for name in having("performance"):
        if MODELS[name]["data"] in ("InstEval", "Chem97", "star") or not _comparable(name):
            continue
        block, result = MODELS[name]["performance"], reference_fit(name)
        # Variances agree to 1e-7 with R's at its polished optimum.
        assert icc(result, "all").estimate == pytest.approx(block["icc_adjusted"], abs=1e-6), name
        unadjusted = icc(result, "all", adjusted=False)
        assert unadjusted.estimate == pytest.approx(block["icc_unadjusted"], abs=1e-6), name


def test_nested_levels_share_what_lies_above():
    result = lmm("strength ~ 1 + (1 | batch/cask)", "Pastes", True)
    parts = result.variance_components
    batch, cask = parts["var(_cons|batch)"], parts["var(_cons|cask:batch)"]
    total = batch + cask + parts["var(Residual)"]
    assert icc(result, "_cons|batch").estimate == pytest.approx(batch / total)
    inner = icc(result, "_cons|cask:batch")
    assert inner.estimate == pytest.approx((batch + cask) / total)
    assert 0 < inner.ci_lower < inner.estimate < inner.ci_upper < 1
    with pytest.raises(OptionError, match=r"_cons\|cask:batch"):
        icc(result)


def test_crossed_levels_share_their_own_variance():
    result = lmm("diameter ~ 1 + (1 | plate) + (1 | sample)", "Penicillin", True)
    parts = result.variance_components
    total = sum(parts.values())
    assert icc(result, "_cons|plate").estimate == pytest.approx(parts["var(_cons|plate)"] / total)


def test_delta_errors_are_those_of_the_likelihood():
    """For one intercept the criterion alone gives the curvature in the ICC, by differences."""
    result = lmm("Yield ~ 1 + (1 | Batch)", "Dyestuff", True)
    from lme4py import lmm_criterion

    criterion = lmm_criterion(result.fit.design, True)
    rho = icc(result).estimate
    h = 1e-4
    values = [criterion([np.sqrt(r / (1 - r))]) for r in (rho - h, rho, rho + h)]
    curvature = (values[0] - 2 * values[1] + values[2]) / h**2
    # The difference is good to h^2 and to rounding over h^2, 1e-5.
    assert icc(result).se == pytest.approx(np.sqrt(2 / curvature), rel=1e-4)


def test_random_slopes(sleep):
    parts = sleep.variance_components
    at = parts["var(_cons)"] + 10 * parts["cov(_cons,Days)"] + 25 * parts["var(Days)"]
    assert icc(sleep).estimate == pytest.approx(parts["var(_cons)"] / (parts["var(_cons)"] + parts["var(Residual)"]))
    assert icc(sleep, at={"Days": 5}).estimate == pytest.approx(at / (at + parts["var(Residual)"]))
    assert icc(sleep, at="mean") == icc(sleep, at="mean")
    assert icc(sleep, at="mean").estimate == pytest.approx(icc(sleep, "all").estimate)
    with pytest.raises(OptionError, match="no random intercept"):
        icc(lmm("Reaction ~ Days + (0 + Days | Subject)"))


def test_estimate_on_the_boundary():
    result = lmm("Yield ~ 1 + (1 | Batch)", "Dyestuff2", True)
    found = icc(result)
    assert (found.estimate, found.ci_lower) == (0.0, 0.0)
    from lme4py import lmm_criterion

    criterion = lmm_criterion(result.fit.design, True)
    change = criterion([np.sqrt(found.ci_upper / (1 - found.ci_upper))]) - result.criterion
    # The limit is the root of the profile to 1e-7.
    assert change == pytest.approx(stats.chi2.ppf(0.95, 1), rel=1e-5)


def test_bootstrap_interval():
    result = lmm("Reaction ~ Days + (1 | Subject)", reml=True)
    found = icc(result, n_boot=400, seed=2)
    assert found == icc(result, n_boot=400, seed=2)
    assert found.estimate == icc(result).estimate
    # Standard errors of 400 replicates scatter by a thirtieth.
    assert found.se == pytest.approx(icc(result).se, rel=0.15)
    assert found.ci_lower < found.estimate < found.ci_upper
    wide = icc(result, n_boot=50, seed=2, adjusted=False)
    assert wide.estimate < found.estimate


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"component": "Days"}, "no level of this model"),
        ({"at": {"days": 1}}, "Did you mean 'Days'"),
        ({"at": "average"}, "mean"),
        ({"at": {"Days": "5"}}, "give a number"),
        ({"alpha": 2}, "alpha"),
        ({"n_boot": -1}, "n_boot"),
        ({"n_boot": 2.5}, "n_boot"),
    ],
)
def test_refuses(sleep, options, message):
    with pytest.raises(OptionError, match=message):
        icc(sleep, **options)


def test_a_grouping_factor_names_its_level(sleep):
    assert icc(sleep, "Subject").estimate == icc(sleep).estimate
    crossed = lmm("diameter ~ 1 + (1 | plate) + (1 | sample)", "Penicillin")
    for name in ("plate", "sample"):
        assert icc(crossed, name).estimate == icc(crossed, f"_cons|{name}").estimate
    with pytest.raises(OptionError, match=r"'_cons\|plate' or '_cons\|sample'"):
        icc(crossed, "batch")


def test_one_sentence_in_print_and_in_a_notebook(sleep):
    found = sleep.icc(alpha=0.1)
    numbers = f"{found.estimate:.4f}, standard error {found.se:.4f}, 90% interval "
    assert str(found).startswith(f"ICC (_cons; Days = 0) {numbers}")
    assert str(found).endswith("(delta method, logit scale)")
    assert "Intraclass correlation" in found._repr_html_()
    assert repr(found).startswith("<ICCResult: ICC (_cons")
    assert found == icc(sleep, alpha=0.1)


def test_table_of_all_factors(sleep):
    table = lmm("diameter ~ 1 + (1 | plate) + (1 | sample)", "Penicillin").icc_table(0.2)
    assert list(table.columns) == ["component", "estimate", "se", "ci_lower", "ci_upper"]
    assert list(table["component"]) == ["_cons|plate", "_cons|sample"]
    one = icc(lmm("diameter ~ 1 + (1 | plate) + (1 | sample)", "Penicillin"), "sample", 0.2)
    assert tuple(table.iloc[1, 1:]) == (one.estimate, one.se, one.ci_lower, one.ci_upper)
    single = sleep.icc_table(at="mean")
    assert list(single["component"]) == ["_cons"]
    assert single["estimate"][0] == icc(sleep, at="mean").estimate
    with pytest.raises(OptionError, match="icc_table"):
        icc(sleep, "each")


@pytest.mark.parametrize("term", ["ar1(0 + visit | g)", "cs(0 + visit | g)", "rr(0 + visit | g, d=1)"])
def test_bootstrap_of_structures_counts_their_correlations(term: str) -> None:
    """Replicates are those of refits: the share of each from its covariance matrix."""
    rng = np.random.default_rng(3)
    g, visit = np.repeat(np.arange(20), 6), np.tile(["a", "b", "c"], 40)
    y = rng.normal(size=20)[g] + 0.7 * rng.normal(size=(20, 3))[g, np.tile([0, 1, 2], 40)] + rng.normal(size=120)
    result = lmer(f"y ~ 1 + {term}", pd.DataFrame({"y": y, "visit": visit, "g": g}))
    found = icc(result, n_boot=4, seed=1, at="mean")
    shares = result.bootstrap(4, lambda fit: icc(fit, at="mean").estimate, seed=1).replicates.to_numpy()[:, 0]
    # The same refits, and one formula.
    assert found.se == pytest.approx(shares.std(ddof=1), rel=1e-9)
