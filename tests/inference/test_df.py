"""Satterthwaite and Kenward-Roger against lmerTest, pbkrtest and dense algebra."""

from __future__ import annotations

import gzip
import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from reference_data import REFERENCE, load_reference
from test_lmm_reference import MODELS, fit

import lme4py
from lme4py.design.design import Design
from lme4py.engine.linear.criterion import Criterion
from lme4py.errors import OptionError
from lme4py.fits.base import Fit
from lme4py.fits.linear import derivatives, information
from lme4py.fits.linear.derivatives import symmetric_inverse, variance_derivatives
from lme4py.fits.linear.information import expected_information
from lme4py.fits.linear.steps import LmmCriterion
from lme4py.fits.method import _joint_df
from lme4py.inference.uncertainty.df import method

INFERENCE: dict[str, dict[str, Any]] = json.loads(gzip.decompress((REFERENCE / "inference_lmm.json.gz").read_bytes()))[
    "models"
]

# Both programs' optima are known to 1e-6; R's derivatives are numeric and good to about 1e-6 as well.
TOLERANCE = 2e-6

# pbkrtest 0.5.2 joins the weighted (X'V^-1X)^-1 with derivatives and a V without prior weights (a dense computation of
# that mixture gives its numbers to all digits); ours is compared with the formulas below.
WEIGHTED = {"lmm_sleep_w", "lmm_rankdef_w"}


def close(ours: Any, expected: Any, tolerance: float = TOLERANCE) -> None:
    np.testing.assert_allclose(np.asarray(ours, float), np.asarray(expected, float), rtol=tolerance)


def close_p(ours: Any, expected: Any, tolerance: float = TOLERANCE) -> None:
    """p-values below 1e-14 lose digits in R's own output; the logarithm of a p-value moves with its size."""
    tiny = np.finfo(float).tiny
    a, b = (-np.log(np.maximum(np.asarray(v, float), tiny)) for v in (ours, expected))
    # An absolute part for p-values near one.
    np.testing.assert_allclose(a, b, rtol=10 * tolerance, atol=tolerance)


@pytest.mark.parametrize("name", [n for n, m in INFERENCE.items() if "coefficients" in m])
def test_coefficients_agree_with_the_reference(name):
    for ddf, expected in INFERENCE[name]["coefficients"].items():
        if ddf == "kenward_roger" and name in WEIGHTED:
            continue
        table = fit(name).coef_table(ddf.replace("_", "-"))
        # The effect of one iteration of R's optimisers on a poorly determined model, as in test_lmm_reference.
        wider = 1e-5 if name in ("lmm_assay", "lmm_tvbo") else TOLERANCE
        close(table["df"], expected["df"], wider)
        close(table["std_error"], expected["se"], wider)
        # A t value near zero is known against one.
        np.testing.assert_allclose(table["statistic"], expected["t"], rtol=wider, atol=wider)
        close_p(table["p_value"], expected["p"], wider)


@pytest.mark.parametrize("name", [n for n, m in INFERENCE.items() if "vcov_kenward_roger" in m and n not in WEIGHTED])
def test_adjusted_covariance_agrees_with_the_reference(name):
    expected = np.array(INFERENCE[name]["vcov_kenward_roger"])
    se = np.sqrt(np.diag(expected))
    ours = method(fit(name).fit, "kenward-roger").vcov
    np.testing.assert_allclose(ours / np.outer(se, se), expected / np.outer(se, se), atol=TOLERANCE)


def user_varpar(fitted: Fit) -> np.ndarray:
    """Covariance of (theta, sigma) on the user's scale from that of the roots, by a numeric change of variables."""
    found = variance_derivatives(fitted)
    criterion, structures = LmmCriterion(fitted.design, fitted.reml), fitted.problem.structures
    step, columns = 1e-5, []
    for term, chart in enumerate(found.charts):
        for along in np.eye(chart.size):
            ends = []
            for sign in (1.0, -1.0):
                theta = fitted.theta_inside.copy()
                theta[structures.slices[term]] = chart.theta(sign * step * along)
                ends.append(criterion.to_user(theta))
            columns.append(np.append((ends[0] - ends[1]) / (2 * step), 0.0))
    columns.append(np.append(np.zeros(fitted.theta.size), fitted.sigma / 2))  # d sigma / d log sigma^2
    J = np.column_stack(columns)
    return J @ found.covariance @ J.T


def regular(name: str) -> bool:
    return not MODELS[name]["singular"] and "theta_not_identified" not in MODELS[name]["tags"]


@pytest.mark.parametrize("name", [n for n, m in INFERENCE.items() if "vcov_varpar" in m and regular(n)])
def test_covariance_of_theta_and_sigma_agrees_with_the_reference(name):
    expected = np.array(INFERENCE[name]["vcov_varpar"])
    sd = np.sqrt(np.diag(expected))
    ours = user_varpar(fit(name).fit)
    # R's Hessian is numeric.
    np.testing.assert_allclose(ours / np.outer(sd, sd), expected / np.outer(sd, sd), atol=2e-5)


def restrictions(full: Design, reduced: Design) -> np.ndarray:
    """L with L beta = 0 in the reduced model."""
    inside = np.linalg.lstsq(full.X, reduced.X, rcond=None)[0]
    return np.linalg.svd(inside.T)[2][inside.shape[1] :]


@pytest.mark.parametrize("name", [n for n, m in INFERENCE.items() if "krmodcomp" in m])
def test_comparison_of_models_agrees_with_pbkrtest(name):
    for case in INFERENCE[name]["krmodcomp"]:
        result = fit(name)
        reduced = lme4py.lformula(case["reduced"], load_reference(MODELS[name]["data"]))
        L = restrictions(result.fit.design, reduced)
        test = method(result.fit, "kenward-roger").f_test(L, L @ result.fit.beta)
        expected = case["KR"]
        close(
            [test.F, test.num_df, test.den_df, test.scale],
            [expected[key] for key in ("stat", "ndf", "ddf", "F.scaling")],
        )
        close_p(test.p_value, expected["p.value"])
        row = result.contest(L).iloc[0]
        close(row[["F", "num_df", "den_df"]], [case["SAT"][key] for key in ("statistic", "ndf", "ddf")])


# --- dense algebra ----------------------------------------------------------------------------------------------


def _data() -> pd.DataFrame:
    rng = np.random.default_rng(3)
    n = 150
    data = pd.DataFrame({"a": rng.integers(0, 14, n), "b": rng.integers(0, 8, n), "x": rng.normal(size=n) + 0.5})
    data["w"] = rng.uniform(0.3, 3.0, n)
    data["c"] = data["a"] // 3
    noise = rng.normal(size=n) / np.sqrt(data["w"])
    slopes = rng.normal(size=(14, 2)) @ np.array([[1.0, 0.3], [0.0, 0.8]])
    data["y"] = slopes[data["a"], 0] + slopes[data["a"], 1] * data["x"] + rng.normal(size=8)[data["b"]] + noise
    data["y"] += rng.normal(size=8)[data["b"]] * data["x"] + 2 * rng.normal(size=5)[data["c"]]
    return data


FORMULAS = [
    "y ~ x + (x | a)",
    "y ~ x + (x | a) + (1 | b)",
    "y ~ x + (1 | a) + (x | b) + (1 | c)",
    "y ~ x + (0 + x | a) + (1 | a) + (x | b)",
    "y ~ 0 + x + diag(x | b) + id(x | a)",
]


def dense(fitted: Fit) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
    """V, its derivatives in sigma^2 and every free element of every covariance matrix, and P; all n x n."""
    design = fitted.design
    w = np.ones(design.n_obs) if design.weights is None else design.weights
    directions = [np.diag(1.0 / w)]
    V = fitted.sigma**2 * directions[0]
    for term, covariance, template in zip(
        design.terms, fitted.covariances, fitted.problem.structures.each, strict=True
    ):
        same = term.codes[:, None] == term.codes
        V = V + same * (term.values @ covariance @ term.values.T)
        for E in template.span_basis():
            directions.append(same * (term.values @ E @ term.values.T))
    inverse = np.linalg.inv(V)
    VX = inverse @ design.X
    return V, directions, inverse - VX @ np.linalg.inv(design.X.T @ VX) @ VX.T


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    return _data()


@pytest.mark.parametrize("weights", [None, "w"])
@pytest.mark.parametrize("formula", FORMULAS)
def test_kenward_roger_is_that_of_the_dense_formulas(data, formula, weights):
    fitted = lme4py.lmer(formula, data, weights=weights).fit
    V, G, P = dense(fitted)
    X, inverse = fitted.design.X, np.linalg.inv(V)
    phi = np.linalg.inv(X.T @ inverse @ X)
    PG, half = [P @ g for g in G], [g @ inverse @ X for g in G]
    W = np.linalg.inv(0.5 * np.array([[np.sum(a * b.T) for b in PG] for a in PG]))
    first = [-X.T @ inverse @ h for h in half]
    total = sum(
        W[i, j] * (half[i].T @ inverse @ half[j] - first[i] @ phi @ first[j])
        for i in range(len(G))
        for j in range(len(G))
    )
    ours = method(fitted, "kenward-roger")
    # Rounding of two different ways to the same number.
    np.testing.assert_allclose(ours.vcov, phi + 2 * phi @ total @ phi, rtol=1e-7, atol=1e-10)
    gradients = np.array([np.diag(phi @ K @ phi) for K in first])
    df = 2 * np.diag(phi) ** 2 / np.einsum("si,st,ti->i", gradients, W, gradients)
    np.testing.assert_allclose(ours.t_df(np.eye(phi.shape[0])), df, rtol=1e-7)


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("formula", FORMULAS)
def test_satterthwaite_is_that_of_the_exact_second_derivatives(data, formula, reml):
    fitted = lme4py.lmer(formula, data, reml=reml, weights="w").fit
    assert not fitted.certificate.is_singular  # where the dense formulas would not hold
    V, G, P = dense(fitted)
    X, inverse = fitted.design.X, np.linalg.inv(V)
    AG = [(P if reml else inverse) @ g for g in G]  # the determinants of REML and ML
    Ge = np.array([g @ (P @ fitted.design.y) for g in G])
    # At the optimum the second derivatives in any parameters that V is linear in are these.
    hessian = 2 * Ge @ P @ Ge.T - np.array([[np.sum(a * b.T) for b in AG] for a in AG])
    phi = np.linalg.inv(X.T @ inverse @ X)
    gradients = np.array([np.diag(phi @ X.T @ inverse @ g @ inverse @ X @ phi) for g in G])
    spread = np.einsum("si,st,ti->i", gradients, 2 * np.linalg.inv(hessian), gradients)
    # The optimum is known to about 1e-7 of a standard error.
    np.testing.assert_allclose(
        method(fitted, "satterthwaite").t_df(np.eye(phi.shape[0])), 2 * np.diag(phi) ** 2 / spread, rtol=1e-6
    )


# --- at the boundary, and elsewhere -----------------------------------------------------------------------------


def test_a_variance_of_zero_costs_satterthwaite_nothing():
    result = lme4py.lmer("Yield ~ 1 + (1 | Batch)", lme4py.load_dataset("Dyestuff2"))
    assert result.is_singular
    # As without the term: n - 1; exact up to rounding.
    assert result.coef_table("satterthwaite")["df"].tolist() == pytest.approx([29.0], rel=1e-12)
    # Kenward-Roger counts it: batches - 1, the analysis of variance.
    assert result.coef_table("kenward-roger")["df"].tolist() == pytest.approx([5.0], rel=1e-9)


def test_rank_one_covariance_does_not_depend_on_the_origin(data):
    # A slope of -1 correlation: where x starts does not matter to the slope.
    moved = data.assign(y=data["y"] - data["y"].groupby(data["b"]).transform("mean"), z=data["x"] - 3)
    fits = [lme4py.lmer(f"y ~ {v} + ({v} | b)", moved) for v in ("x", "z")]
    assert all(f.is_singular for f in fits)
    df = [f.coef_table()["df"].iloc[1] for f in fits]
    # The same optimum in two parametrisations.
    assert df[0] == pytest.approx(df[1], rel=1e-6)


def test_units_do_not_matter(sleep, sleepstudy):
    other = lme4py.lmer("Reaction ~ I(Days * 1e4 + 3e5) + (I(Days * 1e4 + 3e5) | Subject)", sleepstudy)
    for ddf in ("satterthwaite", "kenward-roger"):
        # 17 exactly in this balanced design; the optimum is known to 1e-7.
        assert other.coef_table(ddf)["df"].iloc[1] == pytest.approx(17.0, rel=1e-6)
        assert sleep.coef_table(ddf)["df"].tolist() == pytest.approx([17.0, 17.0], rel=1e-6)


def test_t_intervals_use_t_quantiles(sleep):
    from scipy import stats

    table = sleep.conf_int(ddf="satterthwaite", alpha=0.1)
    half = stats.t.ppf(0.95, 17) * sleep.bse
    # df is 17 to 1e-7.
    np.testing.assert_allclose(table["upper"], sleep.params + half, rtol=1e-7)
    assert (sleep.conf_int(ddf="normal")["upper"] < sleep.conf_int(ddf="residual")["upper"]).all()
    # The intervals and the p-values are those of one distribution.
    pd.testing.assert_frame_equal(sleep.conf_int(), sleep.conf_int(ddf="satterthwaite"))


def test_kenward_roger_needs_reml(sleepstudy):
    result = lme4py.lmer("Reaction ~ Days + (1 | Subject)", sleepstudy, reml=False)
    with pytest.raises(OptionError, match="refit with reml=True"):
        result.coef_table("kenward-roger")


def test_kenward_roger_refuses_what_does_not_fit_in_memory(data, monkeypatch):
    fitted = lme4py.lmer("y ~ x + (1 | a) + (1 | b)", data).fit
    monkeypatch.setattr(information, "_MEMORY", 100.0)
    with pytest.raises(OptionError, match=r"random effects of b\); use ddf='satterthwaite'"):
        expected_information(fitted)


def test_chunks_of_rows_make_no_difference(data, monkeypatch):
    fits = [lme4py.lmer("y ~ x + (x | a) + (x | b)", data).fit for _ in range(2)]
    whole = expected_information(fits[0]).traces
    monkeypatch.setattr(information, "_CHUNK", 5)
    # The same sums in another order.
    np.testing.assert_allclose(expected_information(fits[1]).traces, whole, rtol=1e-12)


def test_results_are_kept_but_not_pickled(sleep):
    import pickle

    first = variance_derivatives(sleep.fit)
    assert variance_derivatives(sleep.fit) is first
    again = pickle.loads(pickle.dumps(sleep.fit))
    assert not variance_derivatives.known(again)
    np.testing.assert_array_equal(variance_derivatives(again).hessian, first.hessian)


def test_hessian_without_sigma_is_the_profiled_one(sleep):
    # Eliminating log sigma^2 leaves the Hessian of the profiled criterion, differenced here once more by itself.
    fitted = sleep.fit
    H = variance_derivatives(fitted).hessian
    profiled = H[:-1, :-1] - np.outer(H[:-1, -1], H[-1, :-1]) / H[-1, -1]
    criterion, h = Criterion(fitted.problem, fitted.reml), 1e-4
    theta = fitted.theta_inside
    rows = [(criterion.gradient(theta + h * e) - criterion.gradient(theta - h * e)) / (2 * h) for e in np.eye(3)]
    # Second-order differences with this step.
    np.testing.assert_allclose(profiled, rows, rtol=1e-5, atol=1e-5 * np.abs(profiled).max())


def test_directions_without_curvature_are_left_out():
    H = np.array([[2.0, 2.0, 0.0], [2.0, 2.0, 0.0], [0.0, 0.0, 5.0]])
    # The pseudo-inverse, exactly.
    np.testing.assert_allclose(symmetric_inverse(H), np.linalg.pinv(H), atol=1e-15)
    assert symmetric_inverse(np.zeros((1, 1))).tolist() == [[0.0]]


@pytest.mark.parametrize(
    ("parts", "joint"),
    [
        # One variance for all rows: its degrees of freedom, also where an F variable has no mean; the parts differ by
        # the rounding of second derivatives.
        ([1.0, 1.0 + 4e-7, 1.0 - 4e-7], 1.0),
        ([2.0, 2.0 - 1e-9], 2.0),
        ([7.0, 7.0], 7.0),
        # 2 E / (E - q) with E = 4/2 + 6/4.
        ([4.0, 6.0], 7.0 / 1.5),
        # The limit as the smallest falls to two, and two below it (lmerTest's rule).
        ([2.0 + 1e-9, 8.0], 2.0),
        ([1.0, 8.0], 2.0),
    ],
)
def test_joint_degrees_of_freedom_at_two_and_below(parts, joint):
    # Up to the spread of the parts.
    assert _joint_df(np.array(parts)) == pytest.approx(joint, rel=1e-6)


@pytest.mark.parametrize("formula", ["y ~ x + (x | g)", "y ~ x + (1 | g) + (0 + x | g)", "y ~ x + ar1(0 + f | g)"])
@pytest.mark.parametrize("reml", [True, False])
def test_hessian_of_one_factor_of_any_size(formula, reml, monkeypatch):
    """More random effects than a dense matrix of them is made for; differences of gradients know no exact Hessian."""
    rng = np.random.default_rng(3)
    g, x = np.repeat(np.arange(200), 4), rng.standard_normal(800)
    y = x + rng.standard_normal(200)[g] + 0.5 * rng.standard_normal(200)[g] * x + rng.standard_normal(800)
    data = {"y": y, "x": x, "g": g, "f": np.tile(list("abcd"), 200)}
    fit = lme4py.lmer(formula, data, reml=reml).fit
    exact = variance_derivatives(fit).hessian
    monkeypatch.setattr(derivatives, "has_exact_hessian", lambda *_: False)
    found = variance_derivatives.make(fit).hessian
    # Differences of steps of 4e-3 have errors of their fourth power.
    np.testing.assert_allclose(exact, found, rtol=1e-7, atol=1e-7 * np.abs(found).max())


def test_summary_makes_no_gradients_beside_the_optimum(sleepstudy, monkeypatch):
    """The exact Hessian needs one factor, at the optimum."""
    fit = lme4py.lmer("Reaction ~ Days + (Days | Subject)", sleepstudy)
    calls = []
    original = Criterion.evaluate
    monkeypatch.setattr(Criterion, "evaluate", lambda self, theta: calls.append(theta) or original(self, theta))
    str(fit.summary())
    fit.conf_int()
    assert len(calls) == 1
