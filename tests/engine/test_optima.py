"""More than one minimum: regressions within and between groups disagree, and a variance of zero looks like an answer.

The reference numbers are lme4's (tests/reference/make/optima.R).
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from reference_data import REFERENCE

import lme4py
from lme4py.engine.linear.criterion import Criterion
from lme4py.engine.linear.rivals import is_large
from lme4py.engine.linear.solve import solve
from lme4py.engine.optimise import Control, Local, minimise
from lme4py.engine.threads import limited_threads
from lme4py.fits.linear.batches.batch import BatchSolver
from lme4py.fits.linear.refit import Responses, refit_ml
from lme4py.inference.diagnostics.allfit import all_fit

CASES = json.loads((REFERENCE / "optima.json").read_text(encoding="utf-8"))
MODELS = ("y ~ x + (1 | g)", "y ~ x + (x | g)", "y ~ x + (1 | g) + (1 | h)", "y ~ x + (1 | g/h)")
# Groups, rows of each, slope between groups, residual standard deviation; the slope within groups is -1.
SETTINGS = ((5, 10, 3, 0.5), (20, 10, 3, 0.5), (10, 10, 3, 1), (10, 30, 3, 2))


def simpson(groups: int, rows: int, between: float, sd: float, seed: int) -> pd.DataFrame:
    """Groups whose means rise with x while y falls with x within each."""
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(groups), rows)
    x = 2.0 * g + rng.uniform(0, 2, g.size)
    y = between * g - (x - 2 * g) + sd * rng.standard_normal(g.size)
    return pd.DataFrame({"g": g, "h": np.tile(np.arange(rows) % 5, groups), "x": x, "y": y})


def lowest(whole: lme4py.LmmCriterion, sizes: tuple[float, ...] = (0.1, 1, 5, 20, 80)) -> float:
    """The best of local descents from multiples of T = I; no part of the search for a second minimum is used."""
    criterion = whole.inside
    structures = criterion.problem.structures

    def local(theta: np.ndarray) -> Local | None:
        try:
            point = criterion.evaluate(theta)
            found = criterion.derivatives(point)
        except np.linalg.LinAlgError:
            return None
        return Local(theta, point.value, found.gradient, found.hessian)

    identity = [np.eye(template.size) for template in structures.each]
    starts = [structures.theta_of_factors([size * T for T in identity]) for size in sizes]
    with limited_threads(whole.design):
        return min(minimise(local, start, Control()).value for start in starts)


def fitted(formula: str, data: pd.DataFrame, reml: bool = True, **options: Any) -> lme4py.MixedResult:
    return lme4py.lmer(formula, data, reml=reml, **options)


@pytest.mark.filterwarnings("ignore::lme4py.OptimaWarning")
@pytest.mark.parametrize("number", range(len(CASES["fits"])))
def test_against_lme4(number: int) -> None:
    case = CASES["fits"][number]
    for reference in case["fits"]:
        result = fitted(case["formula"], pd.DataFrame(case["data"]), reference["reml"])
        # lme4 stops at 1e-10 or so of the criterion; ours may be lower.
        assert result.criterion < reference["criterion"] + 1e-6
        if abs(result.criterion - reference["criterion"]) < 1e-6:
            # lme4's theta has 7 digits, and zero is 1e-7 there.
            np.testing.assert_allclose(result.theta, reference["theta"], rtol=1e-4, atol=1e-4)
            np.testing.assert_allclose(result.params, reference["beta"], rtol=1e-5)
            np.testing.assert_allclose(result.bse, reference["se"], rtol=1e-4)
            assert result.sigma == pytest.approx(reference["sigma"], rel=1e-5)


def test_the_example() -> None:
    """By lme4 1.1-31 and glmmTMB: 221.6712, theta 26.585, slope -0.956; a local minimum is at 441.54."""
    result = fitted("y ~ x + (1 | g)", simpson(8, 15, 3, 0.5, 7))
    assert result.criterion == pytest.approx(221.67119102, abs=1e-7)  # R prints eight decimals
    assert result.theta == pytest.approx([26.58539], abs=1e-4)  # seven digits of lme4
    assert result.params["x"] == pytest.approx(-0.9555904, abs=1e-6)  # as above
    moments = next(one for one in result.fit.certificate.compared if one.what == "moments")
    # The other minimum, where every variance is zero: by the linear model.
    assert moments.reached == pytest.approx(441.538994, abs=1e-5)


@pytest.mark.parametrize("formula", MODELS)
@pytest.mark.parametrize("setting", SETTINGS)
def test_no_start_finds_a_lower_minimum(formula: str, setting: tuple[int, int, float, float]) -> None:
    """benchmarks/optima.py has the whole grid."""
    design = lme4py.lformula(formula, simpson(*setting, seed=setting[0] + setting[1]))
    for reml in (True, False):
        criterion = lme4py.lmm_criterion(design, reml)
        found = lme4py.optimize_criterion(criterion)
        # Both descents stop where the criterion can fall by 1e-9 or so.
        assert found.value < lowest(criterion) + 1e-6
        assert found.theta.max() > 3.0  # the minimum near zero is the wrong one in all of these


@pytest.mark.parametrize("start", [0.0, 1e-3, 1.0, 300.0, 1e8])
def test_no_start_of_the_user_ends_in_the_wrong_minimum(start: float) -> None:
    for setting in ((8, 15, 3, 0.5, 7), (3, 6, 5, 1, 2)):
        data = simpson(*setting)
        right = fitted("y ~ x + (1 | g)", data)
        again = fitted("y ~ x + (1 | g)", data, start=[start])
        # Two descents to the same minimum.
        assert again.criterion == pytest.approx(right.criterion, abs=1e-8)
        assert again.converged


def random_data(seed: int) -> tuple[pd.DataFrame, str]:
    """Small unbalanced data, mixtures of effects within and between levels, heavy tails."""
    rng = np.random.default_rng(seed)
    levels = int(rng.choice([4, 8, 15]))
    sizes = np.maximum(2, rng.geometric(1 / rng.choice([3, 8]), levels))
    g = np.repeat(np.arange(levels), sizes)
    n = g.size
    h = rng.integers(0, 4, n)
    mean, other = rng.choice([0, 1, 5]) * rng.normal(size=levels)[g], rng.choice([0, 1, 5]) * rng.normal(size=4)[h]
    within = rng.normal(size=n)
    slopes = rng.normal(size=3) * rng.choice([0.0, 1.0, 3.0], 3)
    y = slopes @ [mean, other, within] + rng.choice([0, 0.3, 2]) * rng.normal(size=levels)[g]
    y = y + rng.choice([0.1, 1.0]) * rng.standard_t(4, n)
    formulas = (*MODELS, "y ~ x + (1 | g) + (0 + x | g)", "y ~ x + diag(x | g)")
    return pd.DataFrame({"g": g, "h": h, "x": mean + other + within, "y": y}), formulas[seed % len(formulas)]


@pytest.mark.parametrize("seed", range(18))
def test_random_data(seed: int) -> None:
    data, formula = random_data(seed)
    criterion = lme4py.lmm_criterion(lme4py.lformula(formula, data), reml=seed % 4 < 2)
    # As above.
    assert lme4py.optimize_criterion(criterion).value < lowest(criterion) + 1e-6


@pytest.mark.parametrize("formula", ["y ~ x + (1 | g)", "y ~ x + (x | g)", "y ~ x + (1 | g) + (1 | h)"])
def test_large_models_look_far_out_too(formula: str) -> None:
    data = simpson(2500, 4, 3, 0.5, 0)
    data["y"] += 0.01 * np.random.default_rng(1).normal(size=len(data))
    criterion = lme4py.lmm_criterion(lme4py.lformula(formula, data))
    assert is_large(criterion.inside.problem)
    found = lme4py.optimize_criterion(criterion)
    # Of a criterion near 2e4, which rounds at 1e-11 times that.
    assert found.value < lowest(criterion, (0.1, 20.0)) + 1e-5
    # One point far out, and the start that led to the other minimum.
    assert len(found.compared) == 2


def test_an_ordinary_fit_pays_for_one_point(sleep: lme4py.MixedResult) -> None:
    crossed = fitted("diameter ~ 1 + (1 | plate) + (1 | sample)", lme4py.load_dataset("Penicillin"))
    for result, where in ((sleep, "Subject"), (crossed, "plate and sample")):
        (far,) = result.fit.certificate.compared
        assert (far.what, far.reached, far.points) == (f"far out within {where}", None, 1)
        assert far.criterion > result.criterion
        assert "compared with 1 other point, none lower" in result.fit.certificate.verdict


def test_a_singular_fit_was_compared_with_variances_that_are_not_zero() -> None:
    result = fitted("Yield ~ 1 + (1 | Batch)", lme4py.load_dataset("Dyestuff2"))
    scan = result.fit.certificate.compared[-1]
    assert (scan.what, scan.points) == ("variances that are zero", 12)
    assert scan.criterion > result.criterion
    assert "a model without it fits as well" in result.fit.certificate.verdict


def test_nothing_is_compared_when_there_is_no_evaluation_left() -> None:
    criterion = lme4py.lmm_criterion(lme4py.lformula("y ~ x + (1 | g)", simpson(8, 15, 3, 0.5, 7)))
    stopped = lme4py.optimize_criterion(criterion, [0.5], {"max_evaluations": 1})
    assert (len(stopped.log), stopped.compared) == (1, ())


# --- what follows from a fit ------------------------------------------------------------------------------------------


def at_zero(formula: str, data: pd.DataFrame) -> lme4py.Fit:
    """The fit at the local minimum where every variance is zero, whatever is lower."""
    design = lme4py.lformula(formula, data)
    criterion = lme4py.lmm_criterion(design, reml=False)
    start = np.zeros(criterion.inside.problem.structures.n_theta)
    optimum = lme4py.optimize_criterion(criterion, start, {"max_evaluations": 1})
    return lme4py.make_fit(design, criterion, optimum)


def test_a_zero_variance_without_comparison_makes_no_claim() -> None:
    """The gradient vanishes and the curvature is positive there, yet a model without the variance fits far worse."""
    certificate = at_zero("y ~ x + (1 | g)", simpson(8, 15, 3, 0.5, 7)).certificate
    assert certificate.converged
    assert "no other start was compared" in certificate.verdict
    assert "fits as well" not in certificate.verdict


@pytest.mark.parametrize("formula", MODELS[:3])
def test_all_fit_finds_what_a_fit_missed(formula: str) -> None:
    found = all_fit(at_zero(formula, simpson(8, 15, 3, 0.5, 7)), ["trust-region", "L-BFGS-B"], seed=1)
    assert not found.agree
    assert "lower criterion than the fit, by 21" in str(found)
    assert found.table["criterion"].min() == pytest.approx(
        fitted(formula, simpson(8, 15, 3, 0.5, 7), False).criterion, abs=1e-3
    )


def test_tests_of_the_variance() -> None:
    data = simpson(8, 15, 3, 0.5, 7)
    result = fitted("y ~ x + (1 | g)", data)
    # The restricted criterion of the linear model, by dense algebra.
    X = np.column_stack([np.ones(120), data["x"]])
    rest = data["y"] - X @ np.linalg.lstsq(X, data["y"], rcond=None)[0]
    linear = 118 * (1 + np.log(2 * np.pi * rest @ rest / 118)) + np.linalg.slogdet(X.T @ X)[1]
    row = result.ranova().loc["(1 | g)"]
    assert row["chi2"] == pytest.approx(linear - result.criterion, abs=1e-6)  # two numbers of size 400
    assert row["p_value"] < 1e-40
    test = lme4py.lrtest(None, result)
    assert test.chi2 == pytest.approx(linear - result.criterion, abs=1e-6)
    # A smaller model has its second minimum too.
    slopes = fitted("y ~ x + (x | g)", data)
    assert lme4py.lrtest(result, slopes).chi2 == pytest.approx(result.criterion - slopes.criterion, abs=1e-6)
    assert slopes.ranova().loc["x in (x | g)", "chi2"] == pytest.approx(result.criterion - slopes.criterion, abs=1e-6)
    simulated = lme4py.lrtest(None, result, method="bootstrap", n_sim=200, seed=1)
    assert simulated.p_value < 0.01


def test_every_door_and_every_refit_ends_in_the_same_minimum() -> None:
    data = simpson(8, 15, 3, 0.5, 7)
    right = fitted("y ~ x + (1 | g)", data)
    assert lme4py.mixed(data, "y", "x", "g").criterion == pytest.approx(right.criterion, abs=1e-8)
    other = fitted("y ~ x + (1 | g)", data.assign(y=np.random.default_rng(0).normal(size=120)))
    assert other.refit(data["y"].to_numpy()).criterion == pytest.approx(right.criterion, abs=1e-8)
    assert fitted("y ~ 1 + (1 | g)", data).update(". ~ . + x").criterion == pytest.approx(right.criterion, abs=1e-8)
    ml = fitted("y ~ x + (1 | g)", data, False)
    assert refit_ml(right.fit).criterion == pytest.approx(ml.criterion, abs=1e-8)


def test_profile_limits_are_those_of_lme4() -> None:
    reference = np.array(CASES["profile"])[[2, 3]]
    result = fitted("y ~ x + (1 | g)", pd.DataFrame(CASES["fits"][0]["data"]), False)
    # lme4 interpolates its profiles.
    np.testing.assert_allclose(result.conf_int(method="profile"), reference, rtol=2e-3)


def two_maxima() -> pd.DataFrame:
    """Five groups of four rows, whose two minima are 1.4 apart."""
    rng = np.random.default_rng(56)
    g = np.repeat(np.arange(5), 4)
    x = 2.0 * g + rng.uniform(0, 2, 20)
    return pd.DataFrame({"g": g, "x": x, "y": 1.2 * g - (x - 2 * g) + 1.1 * rng.standard_normal(20)})


def test_an_interval_holds_both_maxima() -> None:
    data = two_maxima()
    with pytest.warns(lme4py.OptimaWarning, match=r"another minimum is only 1\.4 above: standard errors know nothing"):
        result = fitted("y ~ x + (1 | g)", data, False)
    assert result.converged
    # The lower minimum is the linear model, by dense algebra; the other one is far out.
    rest = data["y"] - np.polyval(np.polyfit(data["x"], data["y"], 1), data["x"])
    assert result.criterion == pytest.approx(20 * (1 + np.log(2 * np.pi * rest @ rest / 20)), abs=1e-9)
    whole = lme4py.lmm_criterion(lme4py.lformula("y ~ x + (1 | g)", data), False)
    other = min(whole([size]) for size in np.geomspace(2.0, 50.0, 2000))
    # The grid is 0.2 % wide, and the criterion quadratic in that.
    assert result.certificate.second == pytest.approx(other - result.criterion, abs=1e-4)
    interval = result.conf_int(method="profile", parm="x")
    assert "the likelihood has two maxima" in interval.attrs["note"]
    sizes = np.concatenate([[0.0], np.geomspace(0.01, 300.0, 300)])

    def deviance(slope: float) -> float:
        """Over all variances, with the slope in the response: no search, no profile."""
        design = lme4py.lformula("y ~ 1 + (1 | g)", data.assign(y=data["y"] - slope * data["x"]))
        criterion = lme4py.lmm_criterion(design, False)
        return min(criterion([size]) for size in sizes) - result.criterion

    lower, upper = interval.loc["x"]
    for limit in (lower, upper):
        # The grid of the variances is 3 % wide, and the deviance quadratic in that.
        assert deviance(limit) == pytest.approx(3.8415, abs=0.01)
    assert min(deviance(lower - 0.05), deviance(upper + 0.05)) > 3.85
    assert deviance(0.5 * (lower + upper)) > 3.85


@pytest.mark.parametrize("formula", MODELS[:2])
@pytest.mark.parametrize("start", [0.1, 30.0])
def test_many_responses_at_once(formula: str, start: float) -> None:
    """Bootstrap, simulated tests and deletions fit all responses together; each must find its lowest minimum."""
    fit = fitted(formula, simpson(8, 15, 3, 0.5, 7)).fit
    rng = np.random.default_rng(0)
    Y = fit.design.y[:, None] + rng.uniform(0.0, 2.0, 30) * rng.normal(size=(120, 30))
    responses = Responses(fit)
    Zy, Xy, yy = responses.products(Y)
    solver = BatchSolver(Criterion(fit.problem, True))
    found = solver.solve(solver.sums(Zy, Xy, yy), start * fit.problem.structures.initial())
    assert found.converged.all()
    for b in range(30):
        problem = responses.problem([z[:, b] for z in Zy], Xy[:, b], float(yy[b]))
        alone = solve(Criterion(problem, True), None, Control()).value
        # Both are certified to 1e-9 or so.
        assert found.value[b] == pytest.approx(alone, abs=1e-6)


def test_bootstrap_and_influence() -> None:
    data = simpson(8, 15, 3, 0.5, 7)
    result = fitted("y ~ x + (1 | g)", data)
    replicates = result.bootstrap(100, seed=1).replicates
    # All follow the slope within groups, -1, and not the one between them, 1.5.
    assert replicates["x"].max() < -0.5
    influence = result.influence(group="g", method="refit")
    for level in (0, 5):
        without = fitted("y ~ x + (1 | g)", data[data["g"] != level].reset_index(drop=True))
        # Two fits, each certified to 1e-9 or so of the criterion.
        assert influence.fixef.loc[level, "x"] == pytest.approx(without.params["x"], rel=1e-6)
