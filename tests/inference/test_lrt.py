"""Likelihood-ratio tests and the distributions on the boundary."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from dense_models import make_design, make_term
from inference_models import MODELS, having, lmm, reference_fit
from scipy import stats

import lme4py
from lme4py import lrtest
from lme4py.engine.linear.problem import make_problem
from lme4py.errors import OptionError
from lme4py.inference.lrt import mixture
from lme4py.inference.lrt.mixture import Mixture

ONE = "Reaction ~ Days + (1 | Subject)"
DIAGONAL = "Reaction ~ Days + (Days || Subject)"
TWO = "Reaction ~ Days + (Days | Subject)"


# --- values of R --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "block"), [(n, b) for b in ("lrt", "lrt_reml") for n in having(b)])
def test_values_of_rs_anova(name, block):
    model = MODELS[name]
    reml = block == "lrt_reml"
    full = lmm(model["formula"], model["data"], reml)
    for row in model[block]:
        test = lrtest(lmm(row["reduced"], model["data"], reml), full, boundary=False)
        # Both optima are exact to 1e-9 of the criterion.
        assert (test.restricted_logL, test.full_logL) == pytest.approx(row["logLik"], abs=1e-7)
        assert test.chi2 == pytest.approx(row["chi2"], abs=1e-7)
        assert test.df == row["df"]
        assert test.p_value == pytest.approx(row["p"], rel=1e-6)
        assert not test.boundary_corrected


@pytest.mark.parametrize("name", having("ranova"))
def test_values_of_ranova(name):
    table, block = reference_fit(name).ranova(), MODELS[name]["ranova"]
    for i, row in enumerate(block["rows"]):
        ours = table.loc[row]
        assert (ours["npar"], ours["logLik"], ours["AIC"]) == pytest.approx(
            (block["npar"][i], block["logLik"][i], block["AIC"][i]),
            abs=1e-6,  # as above
        )
        if row != "<none>":
            assert ours["p_chi2"] == pytest.approx(block["Pr(>Chisq)"][i], rel=1e-5)
            assert ours["p_value"] < ours["p_chi2"]


# --- what is tested chooses the distribution ----------------------------------------------------------------


def test_random_slope_with_its_covariance():
    test = lrtest(lmm(ONE), lmm(TWO))
    # Published digits.
    assert test.chi2 == pytest.approx(42.1392985, abs=5e-8)
    assert test.p_value == pytest.approx(3.961e-10, rel=1e-3)
    assert (test.df, test.boundary_corrected, test.weights) == (2, True, {1: 0.5, 2: 0.5})
    assert "42.1393" in str(test)
    assert lrtest(lmm(ONE), lmm(TWO), boundary=False).p_value == pytest.approx(stats.chi2.sf(test.chi2, 2))


def test_interior_hypothesis():
    test = lrtest(lmm(DIAGONAL), lmm(TWO))
    assert test.p_value == pytest.approx(0.800, abs=5e-4)
    assert not test.boundary_corrected
    with pytest.raises(OptionError, match="leave `boundary` out"):
        lrtest(lmm(DIAGONAL), lmm(TWO), boundary=True)


def test_one_variance():
    for restricted in (ONE, "Reaction ~ Days + (0 + Days | Subject)"):
        assert lrtest(lmm(restricted), lmm(DIAGONAL)).weights == {0: 0.5, 1: 0.5}
    assert lrtest(lmm("Reaction ~ 1 + (1 | Subject)"), lmm(TWO)).weights == {2: 0.5, 3: 0.5}
    assert lrtest(None, lmm(ONE), boundary=True).weights == {0: 0.5, 1: 0.5}


def test_against_no_random_effects():
    # Published digits.
    assert lrtest(None, lmm(TWO, reml=True)).chi2 == pytest.approx(150.03539, abs=5e-6)
    assert lmm(TWO).lrtest_no_random().chi2 == pytest.approx(148.35371, abs=5e-6)
    assert lrtest(None, lmm(ONE)).df == 1


def test_a_linear_model_of_another_package(sleepstudy):
    """What statsmodels calls its arrays is enough."""
    y, X = sleepstudy["Reaction"].to_numpy(), np.column_stack([np.ones(180), sleepstudy["Days"]])
    ols = SimpleNamespace(model=SimpleNamespace(endog=y, exog=X))
    assert lrtest(ols, lmm(TWO)) == lrtest(None, lmm(TWO))
    mean = SimpleNamespace(model=SimpleNamespace(endog=y, exog=X[:, :1]))
    test = lrtest(mean, lmm(ONE))
    assert test.weights == {1: 0.5, 2: 0.5}
    # The textbook's likelihood of a normal sample.
    assert test.restricted_logL == pytest.approx(stats.norm.logpdf(y, y.mean(), y.std()).sum(), rel=1e-12)
    with pytest.raises(OptionError, match="another response"):
        lrtest(SimpleNamespace(model=SimpleNamespace(endog=y + 1, exog=X)), lmm(ONE))


def test_coding_of_fixed_effects_does_not_matter_under_reml(sleepstudy):
    shifted = sleepstudy.assign(Days=3.0 * sleepstudy["Days"] - 7.0)
    test = lrtest(lme4py.lmer(ONE, shifted), lmm(TWO, reml=True))
    # The criteria differ by the logarithm of 9, up to rounding.
    assert test.chi2 == pytest.approx(lrtest(lmm(ONE, reml=True), lmm(TWO, reml=True)).chi2, abs=1e-7)


def test_generalised_models():
    data = lme4py.load_dataset("Contraception")
    one, two = (lme4py.glmer(f"use ~ age + {bar}", data) for bar in ("(1 | district)", "(urban | district)"))
    test = lrtest(one, two)
    assert test.weights == {1: 0.5, 2: 0.5}
    assert test.chi2 == pytest.approx(2 * (two.log_likelihood - one.log_likelihood))
    with pytest.raises(OptionError, match="differ in nAGQ"):
        lrtest(lme4py.glmer("use ~ age + (1 | district)", data, nAGQ=0), two)
    assert one.anova(two)["df"].iloc[1] == 2


def test_zero_statistic_has_p_one():
    for options in ({}, {"method": "exact"}, {"method": "bootstrap", "n_sim": 100}):
        test = lrtest(None, lmm("Yield ~ 1 + (1 | Batch)", "Dyestuff2", True), **options)
        assert (test.chi2, test.p_value) == (0.0, 1.0)


def test_compound_symmetry_is_nested_in_the_unstructured_model():
    nested = lmm("score ~ Machine + (1 | Worker/Machine)", "Machines", True)
    full = lmm("score ~ Machine + (Machine | Worker)", "Machines", True)
    assert lrtest(nested, full).weights == {4: 1.0}
    assert lrtest(lmm("score ~ Machine + (1 | Worker)", "Machines", True), nested).weights == {0: 0.5, 1: 0.5}


def test_simulated_weights_are_said_and_repeatable():
    test = lrtest(None, lmm(TWO))
    assert "simulated" in test.note
    assert test.weights is not None
    assert sum(test.weights.values()) == pytest.approx(1.0)
    assert test == lrtest(None, lmm(TWO))
    assert stats.chi2.sf(test.chi2, 2) < test.p_value < stats.chi2.sf(test.chi2, 3)


def test_finite_sample_distributions_agree():
    full = lmm("Yield ~ 1 + (1 | Batch)", "Dyestuff", True)
    exact = lrtest(None, full, method="exact", n_sim=20_000, seed=1)
    boot = lrtest(None, full, method="bootstrap", n_sim=5000, seed=1)
    # Two simulations of a probability of 0.004 with 20,000 and 5,000 draws: standard errors 0.0004 and 0.0009.
    assert exact.p_value == pytest.approx(boot.p_value, abs=0.004)
    assert exact.p_value == pytest.approx(0.0042, abs=0.002)
    slope = lrtest(lmm(ONE), lmm(TWO), method="bootstrap", n_sim=200, seed=1)
    assert slope.p_value == pytest.approx(1 / 201)


def test_bootstrap_of_the_null_is_uniform():
    """Under the restricted model the mixture is right: the simulated ratios follow it."""
    from lme4py.fits.kinds import model_of
    from lme4py.inference.lrt.simulation import bootstrap_ratios

    rng = np.random.default_rng(5)
    x = np.tile(np.linspace(-1, 1, 10), 60)
    data = {"y": rng.normal(size=600), "x": x, "g": np.repeat(np.arange(60), 10).astype(str)}
    full = lme4py.lmer("y ~ x + (x | g)", data)
    test = lrtest(None, full)
    ratios, _ = bootstrap_ratios(model_of(full.fit).without_random(), full.fit, 3000, 1)
    distribution = Mixture(test.weights or {}, "")
    for cut in (1.0, 3.0, 6.0):
        # Binomial error of 3,000 draws is 0.009 at most; with 60 groups the limit is not quite reached.
        assert np.mean(ratios > cut) == pytest.approx(distribution.p_value(cut), abs=0.035)


# --- weights ------------------------------------------------------------------------------------------------


def test_weights_of_independent_variances_are_binomial():
    weights, how = mixture._weights([1, 1, 1], np.diag([1.0, 5.0, 0.1]))
    assert weights.tolist() == [0.125, 0.375, 0.375, 0.125]
    assert "binomial" in how


def test_weights_of_two_and_three_variances():
    J = np.array([[2.0, 0.6, 0.3], [0.6, 1.0, -0.2], [0.3, -0.2, 1.5]])
    two, _ = mixture._weights([1, 1], J[:2, :2])
    r = 0.6 / np.sqrt(2.0)
    assert two == pytest.approx([0.5 - np.arccos(r) / (2 * np.pi), 0.5, np.arccos(r) / (2 * np.pi)])
    three, how = mixture._weights([1, 1, 1], J)
    # Closed form of the orthant probability; 100,000 draws have a standard error of 0.0015 at most.
    size = np.sqrt(np.diag(J))
    inside = J / np.outer(size, size)
    inverse = np.linalg.inv(J)
    scale = np.sqrt(np.diag(inverse))
    correlation = inverse / np.outer(scale, scale)
    top = (2 * np.pi - sum(np.arccos(correlation[i, j]) for i, j in ((0, 1), (0, 2), (1, 2)))) / (4 * np.pi)
    low = (2 * np.pi - sum(np.arccos(inside[i, j]) for i, j in ((0, 1), (0, 2), (1, 2)))) / (4 * np.pi)
    assert three[3] == pytest.approx(top, abs=0.006)
    assert three[0] == pytest.approx(low, abs=0.006)
    assert "simulated" in how


def test_weights_of_the_matrix_cones():
    # In the metric of the elements the 2 x 2 cone is circular with an angle of 45 degrees.
    metric = np.diag([1.0, 2.0, 1.0])
    weights, _ = mixture._weights([2], metric)
    share = (1 - np.sqrt(0.5)) / 2
    # 100,000 draws: standard error 0.0011.
    assert weights == pytest.approx([share, 0.5 - share, 0.5 - share, share], abs=0.005)
    product, _ = mixture._weights([2, 1], np.diag([1.0, 2.0, 1.0, 1.0]))
    # A product of cones with independent parts; weights are fitted to 4,000 projections.
    assert product == pytest.approx(np.convolve(weights, [0.5, 0.5]), abs=0.03)
    assert product.sum() == pytest.approx(1.0)


def test_weights_do_not_depend_on_the_origin_of_a_column(sleepstudy):
    """An unstructured covariance is the same model from any origin; from 100,000 the columns are parallel to 1e-5."""
    moved = sleepstudy.assign(Days=sleepstudy.Days + 1e5)
    tests = [lme4py.lmer("Reaction ~ 1 + (Days | Subject)", data).lrtest_no_random() for data in (sleepstudy, moved)]
    # The same draws, of which a few lie at the edge of the cone.
    assert tests[1].weights == pytest.approx(tests[0].weights, abs=1e-4)


@pytest.mark.parametrize("reml", [True, False])
def test_expected_information_is_that_of_dense_algebra(reml):
    rng = np.random.default_rng(2)
    n = 90
    g, h, x = rng.integers(0, 12, n), rng.integers(0, 7, n), rng.normal(size=n)
    X = np.column_stack([np.ones(n), x])
    design = make_design(rng.normal(size=n), X, [make_term("g", g, X), make_term("h", h, np.ones(n))])
    problem = make_problem(design)
    covariances = (np.array([[1.0, 0.3], [0.3, 0.5]]), np.zeros((1, 1)))
    directions = [(t, E) for t, own in enumerate(problem.structures.each) for E in own.span_basis()]
    J = mixture.expected_information(problem, covariances, reml, directions)
    Z = [X @ problem.scaling.S[0], np.ones((n, 1))]
    codes = [g, h]
    same = [c[:, None] == c[None, :] for c in codes]
    changes = [
        same[t] * (Z[t] @ E @ Z[t].T)
        for t, template in enumerate(problem.structures.each)
        for E in template.span_basis()
    ]
    V = np.eye(n) + same[0] * (X @ covariances[0] @ X.T)
    changes.append(V)
    P = np.linalg.inv(V)
    if reml:
        P = P - P @ X @ np.linalg.solve(X.T @ P @ X, X.T @ P)
    dense = np.array([[0.5 * np.trace(P @ a @ P @ b) for b in changes] for a in changes])
    # One-sided differences of second order with a relative step of 1e-4.
    np.testing.assert_allclose(J, dense, rtol=1e-5, atol=1e-5 * np.abs(dense).max())


# --- refusals -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("restricted", "full", "message"),
    [
        ((TWO, True), (ONE, True), "comes first"),
        ((ONE, False), (TWO, True), "by ML and the full one by REML"),
        (("Reaction ~ 1 + (Days | Subject)", True), (TWO, True), "different fixed effects"),
        (("Reaction ~ Days + (0 + Days | Subject)", False), (ONE, False), "none is a special case"),
        (("Reaction ~ I(Days^2) + (1 | Subject)", False), (TWO, False), "fixed effects of the restricted"),
        ((TWO, False), ("Reaction ~ poly(Days, 4) + (1 | Subject)", False), "random effects"),
        (("log(Reaction) ~ Days + (1 | Subject)", False), (TWO, False), "different responses"),
    ],
)
def test_refuses_models_that_cannot_be_compared(restricted, full, message):
    with pytest.raises(OptionError, match=message):
        lrtest(lmm(restricted[0], reml=restricted[1]), lmm(full[0], reml=full[1]))


def test_refuses_other_data_and_options(sleepstudy):
    with pytest.raises(OptionError, match="170 rows and the full one to 180"):
        lrtest(lme4py.lmer(ONE, sleepstudy.iloc[:170], reml=False), lmm(TWO))
    with pytest.raises(OptionError, match="different weights"):
        lrtest(lme4py.lmer(ONE, sleepstudy, reml=False, weights=np.linspace(1, 2, 180)), lmm(TWO))
    with pytest.raises(OptionError, match="give a fitted mixed model"):
        lrtest(lmm(ONE), "model")
    with pytest.raises(OptionError, match="asymptotic, bootstrap, exact"):
        lrtest(lmm(ONE), lmm(TWO), method="guess")
    with pytest.raises(OptionError, match="only variance"):
        lrtest(lmm(ONE), lmm(TWO), method="exact")
    with pytest.raises(OptionError, match="boundary"):
        lrtest(lmm(ONE), lmm(TWO), boundary="yes")  # type: ignore[arg-type]


# --- table --------------------------------------------------------------------------------------------------


def test_table_of_several_models():
    table = lmm(TWO, reml=True).anova(lmm(ONE), lmm(DIAGONAL))
    assert table.index.tolist() == [ONE, DIAGONAL, TWO]
    assert table["npar"].tolist() == [4, 5, 6]
    # R's anova(), printed digits.
    assert table["AIC"].tolist() == pytest.approx([1802.0786, 1762.0033, 1763.9393], abs=5e-5)
    assert table["p_chi2"].iloc[2] == pytest.approx(0.8004, abs=5e-5)
    assert "refitted with ML" in table.attrs["note"]
    assert table["p_value"].iloc[1] == pytest.approx(table["p_chi2"].iloc[1] / 2)


def test_table_says_what_is_not_nested():
    table = lmm("Reaction ~ I(Days^2) + (1 | Subject)").anova(lmm(TWO))
    assert np.isnan(table["p_value"].iloc[1])
    assert "not nested" in table.attrs["note"]
