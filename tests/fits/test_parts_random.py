"""Random effects in zero and dispersion parts: against glmmTMB, brute force, and models that separate."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pandas as pd
import pytest
from reference_data import REFERENCE
from scipy import special

import lme4py
from lme4py.design.parts import part_formulas
from lme4py.engine.generalised.batches import stacked
from lme4py.engine.generalised.batches.stacked import StackedModel, can_stack
from lme4py.engine.generalised.criteria import JointCriterion
from lme4py.engine.generalised.problem import ModeFinder
from lme4py.errors import DesignError, FormulaError, OptionError
from lme4py.families.registry import family_with_parts, family_with_zeros, make_family
from lme4py.fits.generalised.criterion import glmm_criterion
from lme4py.fits.generalised.scores import cluster_scores

MODELS = json.loads((REFERENCE / "families.json").read_text(encoding="utf-8"))["models"]


def small_counts():
    rng = np.random.default_rng(2)
    g, x = np.repeat(np.arange(8), 6), rng.normal(size=48)
    a, b = rng.normal(size=(2, 8))
    mean = np.exp(0.8 + 0.3 * x + 0.5 * a[g])
    zero = rng.random(48) < 1.0 / (1.0 + np.exp(0.7 - 0.6 * b[g]))
    return pd.DataFrame({"g": g, "h": np.tile(np.arange(6), 8), "x": x, "y": np.where(zero, 0, rng.poisson(mean))})


def criterion(formula, family, ziformula=None, dispformula=None, nAGQ=1):
    data = small_counts()
    data["share"] = (data["y"] + 0.5) / (data["y"].max() + 1.0)
    parts = part_formulas(formula, ziformula, dispformula)
    plain = make_family(family)
    reader = family_with_zeros(plain) if "zero_inflation" in parts else plain
    design = lme4py.lformula(formula, data, family=reader, parts=parts)
    named = [(one.name, one.names) for one in design.predictors[1:]]
    random = [name for name in parts if any(name in term.parts for term in design.terms)]
    family = family_with_parts(plain, named, random)
    found = glmm_criterion(design, family, nAGQ=nAGQ)
    size = design.n_theta + len(design.x_names) + family.n_nuisance
    start = 0.3 * np.random.default_rng(0).standard_normal(size)
    start[: design.n_theta] = np.abs(start[: design.n_theta]) + 0.3
    return found, start, data


@pytest.mark.parametrize(
    ("family", "zi", "disp"),
    [
        ("nbinomial", "~ x", None),
        ("nbinomial", "~ x + (1 | g)", "~ x"),
        ("truncated_poisson", "~ 1 + (1 | h)", None),
        ("tweedie", "~ 1", None),
    ],
)
def test_gradients_at_several_points_are_those_one_by_one(family, zi, disp):
    problem, start, _ = criterion("y ~ x + (1 | g)", family, zi, disp)
    joint = JointCriterion(ModeFinder(problem.problem))
    joint.evaluate(start)
    points = start + 1e-3 * np.vstack([np.eye(start.size), -np.eye(start.size)])
    one_by_one = [joint.evaluate(point, beside=True)[2] for point in points]
    # The same operations on the same numbers, summed in another order.
    np.testing.assert_allclose(joint.gradients(points), one_by_one, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("formula", "family", "zi", "disp"),
    [
        ("y ~ x + (1 | g)", "nbinomial", "~ x", None),
        ("y ~ x + (1 | g)", "nbinomial", "~ 1", "~ x"),
        ("y ~ x + (1 | g)", "truncated_poisson", "~ x", None),
        ("share ~ x + (1 | g)", "beta", None, "~ x"),
    ],
)
def test_gradients_of_stacked_points_are_those_one_by_one(formula, family, zi, disp):
    found, start, _ = criterion(formula, family, zi, disp)
    assert can_stack(found.problem)
    joint = JointCriterion(ModeFinder(found.problem))
    joint.evaluate(start)
    points = start + 1e-3 * np.vstack([np.eye(start.size), -np.eye(start.size)])
    together = StackedModel(found.problem).gradients(points, joint.base)
    one_by_one = [joint.reported(point)[2] for point in points]
    # Both take a last step to modes that are known to a part in 1e7 or better, which leaves rounding.
    np.testing.assert_allclose(together, one_by_one, rtol=1e-9, atol=1e-9)


def test_stacked_points_have_no_value_where_a_groups_curvature_vanishes(monkeypatch):
    found, start, _ = criterion("y ~ x + (1 | g)", "nbinomial", "~ x")
    joint = JointCriterion(ModeFinder(found.problem))
    joint.evaluate(start)
    model = StackedModel(found.problem)
    assert model.gradients(start[None], joint.base) is not None
    # Curvatures of all groups count as none.
    monkeypatch.setattr(stacked, "FLAT", 0.0)
    assert model.gradients(start[None], joint.base) is None


@pytest.fixture(scope="module")
def zip_random():
    data = lme4py.load_dataset("Salamanders")
    return lme4py.glmer("count ~ mined + (1 | site)", data, family="poisson", ziformula="~ mined + (1 | site)")


def test_the_optimum_is_that_of_glmmtmb(zip_random):
    fit, reference = zip_random, MODELS["zip_random"]
    assert fit.converged
    # glmmTMB's optimum is at most 1e-6 short.
    assert fit.log_likelihood == pytest.approx(reference["log_likelihood"], abs=1e-6)
    np.testing.assert_allclose((fit.params - reference["cond"]["estimate"]) / fit.bse, 0.0, atol=2e-4)
    np.testing.assert_allclose(fit.bse, reference["cond"]["se"], rtol=2e-4)
    table = fit.coef_table(component="zero_inflation")
    np.testing.assert_allclose(table["estimate"], reference["zi"]["estimate"], rtol=1e-4)
    np.testing.assert_allclose(table["std_error"], reference["zi"]["se"], rtol=2e-4)
    sd = fit.var_corr()["sdcor"]
    np.testing.assert_allclose(sd, [*reference["sd"], *reference["sd_zi"]], rtol=2e-4)
    # Conditional modes at an optimum found to 1e-4 standard errors.
    np.testing.assert_allclose(fit.fittedvalues.to_numpy()[:6], reference["fitted"], rtol=1e-3)


@pytest.mark.parametrize(
    ("formula", "family", "parts", "nAGQ"),
    [
        ("y ~ x + (1 | g)", "poisson", {"ziformula": "~ x + (1 | g)"}, 1),
        ("y ~ x + (x | g)", "nbinomial", {"ziformula": "~ (1 | g) + (1 | h)", "dispformula": "~ x + (1 | h)"}, 1),
        ("y ~ (1 | h)", "genpois", {"dispformula": "~ (x || g)"}, 1),
        ("share ~ x + (1 | g)", "beta", {"dispformula": "~ diag(x | g)"}, 1),
        ("y ~ x + (1 | i | g)", "poisson", {"ziformula": "~ x + (x | i | g)"}, 1),
        ("y ~ x + (1 | g)", "gaussian", {"dispformula": "~ x + (1 | g)"}, 1),
        ("y ~ x + (1 | g)", "nbinomial1", {"ziformula": "~ x + (1 | g)", "dispformula": "~ (1 | g)"}, 5),
    ],
)
def test_the_gradient_is_that_of_the_criterion(formula, family, parts, nAGQ):
    found, x, _ = criterion(formula, family, **parts, nAGQ=nAGQ)
    steps = 1e-5 * np.eye(x.size)
    differences = np.array([(found(x + h) - found(x - h)) / 2e-5 for h in steps])
    # Central differences lose about ten of sixteen digits.
    np.testing.assert_allclose(found.gradient(x), differences, rtol=1e-6, atol=1e-5)


def test_quadrature_is_the_integral_over_both_effects():
    found, x, data = criterion("y ~ x + (1 | g)", "poisson", ziformula="~ x + (1 | g)", nAGQ=25)
    sd, sd_zero, *beta = x
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    total = 0.0
    for _, own in data.groupby("g"):
        y, z = own["y"].to_numpy(), own["x"].to_numpy()
        mean = np.exp(beta[0] + beta[1] * z + sd * nodes[:, None])[:, None]
        zero = 1.0 / (1.0 + np.exp(-(beta[2] + beta[3] * z + sd_zero * nodes[:, None])))[None]
        density = (1.0 - zero) * mean**y * np.exp(-mean) / special.factorial(y) + np.where(y == 0, zero, 0.0)
        total += np.log(weights @ density.prod(axis=2) @ weights / (2.0 * np.pi))
    # Sixty nodes of a rule that is not adapted, and 25 of one that is: both are exact to about ten digits.
    assert found(x) == pytest.approx(-2.0 * total, rel=1e-8)


def test_a_hurdle_model_is_two_models():
    data = lme4py.load_dataset("Salamanders")
    data["none"] = (data["count"] == 0).astype(float)
    fit = lme4py.glmer(
        "count ~ mined + (1 | site)", data, family="truncated_poisson", ziformula="~ mined + DOP + (1 | site)"
    )
    counts = lme4py.glmer("count ~ mined + (1 | site)", data[data["count"] > 0], family="truncated_poisson")
    zeros = lme4py.glmer("none ~ mined + DOP + (1 | site)", data, family="binomial")
    assert fit.converged
    # Sums of the two criteria, each minimised to 1e-9.
    assert fit.log_likelihood == pytest.approx(counts.log_likelihood + zeros.log_likelihood, abs=1e-7)
    np.testing.assert_allclose(fit.params, counts.params, rtol=1e-5)
    np.testing.assert_allclose(fit.coef_table(component="zero_inflation")["estimate"], zeros.params, rtol=1e-5)
    np.testing.assert_allclose(fit.coef_table(component="zero_inflation")["std_error"], zeros.bse, rtol=1e-4)
    np.testing.assert_allclose(fit.predict(type="zprob"), zeros.fittedvalues, rtol=1e-4)


def test_predictions_know_the_modes_of_every_part(zip_random):
    fit, data = zip_random, lme4py.load_dataset("Salamanders")
    for kind in ("response", "conditional", "zprob", "variance"):
        np.testing.assert_allclose(fit.predict(type=kind), fit.predict(data, type=kind), rtol=1e-12)
    np.testing.assert_allclose(fit.fittedvalues, fit.predict(), rtol=1e-12)
    table = fit.coef_table(component="zero_inflation")["estimate"]
    modes = fit.ranef()["zero_inflation: Intercept"]
    eta = table.iloc[0] + table.iloc[1] * (data["mined"] == "no") + modes[data["site"]].to_numpy()
    np.testing.assert_allclose(fit.predict(type="zprob"), 1.0 / (1.0 + np.exp(-eta)), rtol=1e-10)
    fixed = fit.predict(data, type="zprob", include_random=False)
    # Without random effects there is one probability for each kind of site.
    assert fixed.round(10).nunique() == 2
    new = data.head(2).assign(site="elsewhere")
    with pytest.warns(lme4py.errors.Lme4Warning, match="site"):
        np.testing.assert_allclose(fit.predict(new, type="zprob"), fixed.head(2), rtol=1e-12)


def test_what_follows_from_a_fit(zip_random):
    fit = zip_random
    scores = cluster_scores(fit.fit)
    # The gradient at the optimum.
    np.testing.assert_allclose(scores.sum(axis=0), 0.0, atol=1e-4)
    assert np.isfinite(fit.coef_table(vcov="CR0")["std_error"]).all()
    limits = fit.conf_int(parm="all")
    assert np.isfinite(limits.loc["sd(zero_inflation: Intercept | site)"]).all()
    draws = fit.simulate(50, seed=1)
    # Zeros of 50 data sets: their share has a standard error of 0.03 between sites.
    assert (draws == 0).to_numpy().mean() == pytest.approx(0.60, abs=0.06)
    again = pickle.loads(pickle.dumps(fit))
    np.testing.assert_allclose(again.predict(type="zprob"), fit.predict(type="zprob"), rtol=1e-12)
    assert fit.refit(draws.iloc[:, 0]).components == fit.components
    # One distance for each row of the data, though it has two linear predictors.
    assert np.isfinite(fit.influence().cooks_distance).all()


def test_the_variance_of_a_part_is_tested_on_its_boundary(zip_random):
    data = lme4py.load_dataset("Salamanders")
    small = lme4py.glmer("count ~ mined + (1 | site)", data, family="poisson", ziformula="~ mined")
    test = lme4py.lrtest(small, zip_random)
    assert test.boundary_corrected
    assert test.chi2 == pytest.approx(2.0 * (949.234760 - 941.591504), abs=1e-5)
    # Half of a chi-squared variable with one degree of freedom.
    assert test.p_value == pytest.approx(4.6e-5, rel=0.03)


def test_parts_do_not_share_their_terms():
    # A random effect of the zero part whose groups its fixed effects determine.
    data = small_counts().assign(f=lambda d: d["g"].astype(str))
    with pytest.raises(DesignError, match="fixed effects take up"):
        lme4py.glmer("y ~ x + (1 | h)", data, family="poisson", ziformula="~ f + (1 | g)")
    found = lme4py.glmer("y ~ x + (1 | g)", data, family="poisson", ziformula="~ .")
    assert [term.label for term in found.fit.design.terms] == ["(1 | g)", "zero_inflation: (1 | g)"]


def test_an_id_joins_terms_of_parts(zip_random):
    data = lme4py.load_dataset("Salamanders")
    fit = lme4py.glmer("count ~ mined + (1 | s | site)", data, family="poisson", ziformula="~ mined + (1 | s | site)")
    assert fit.converged
    # One more parameter than without the correlation.
    assert fit.n_params == zip_random.n_params + 1
    assert 0.0 < fit.log_likelihood - zip_random.log_likelihood < 1.0
    assert "cor(Intercept, zero_inflation: Intercept | site)" in fit.conf_int(parm="all").index
    np.testing.assert_allclose(fit.predict(data, type="zprob"), fit.predict(type="zprob"), rtol=1e-12)
    test = lme4py.lrtest(zip_random, fit)
    assert (test.df, test.boundary_corrected) == (1, False)


def test_an_id_joins_terms_of_one_formula():
    data = lme4py.load_dataset("sleepstudy")
    joined = lme4py.lmer("Reaction ~ Days + (1 | a | Subject) + (0 + Days | a | Subject)", data)
    plain = lme4py.lmer("Reaction ~ Days + (Days | Subject)", data)
    # The same model.
    assert joined.log_likelihood == pytest.approx(plain.log_likelihood, abs=1e-10)
    np.testing.assert_allclose(joined.predict(data), plain.predict(data), rtol=1e-8)
    with pytest.raises(FormulaError, match="different groups"):
        lme4py.lmer("Reaction ~ 1 + (1 | a | Subject) + (1 | a | Days)", data)
    with pytest.raises(FormulaError, match="id, which is a name"):
        lme4py.lmer("Reaction ~ 1 + (1 | a + b | Subject)", data)


def test_components_have_tables_of_their_own(zip_random):
    fit = zip_random
    whole = fit.coef_table(component="all")
    assert whole["component"].tolist() == ["conditional"] * 2 + ["zero_inflation"] * 2
    zero = fit.coef_table(component="zero_inflation")
    np.testing.assert_allclose(whole["estimate"].iloc[2:], zero["estimate"])
    V, every = fit.cov_params(component="zero_inflation"), fit.cov_params(component="all")
    np.testing.assert_allclose(np.sqrt(np.diag(V)), zero["std_error"], rtol=1e-12)
    np.testing.assert_allclose(every.iloc[2:, 2:], V, rtol=1e-12)
    limits = fit.conf_int(component="zero_inflation")
    np.testing.assert_allclose(limits, fit.conf_int(parm="all").loc[[f"zero_inflation: {n}" for n in zero.index]])
    # One coefficient: the square of its z.
    assert fit.anova(component="zero_inflation").loc["mined", "chi2"] == pytest.approx(zero["statistic"].iloc[1] ** 2)
    modes = fit.ranef(component="zero_inflation")
    np.testing.assert_allclose(modes["Intercept"], fit.ranef()["zero_inflation: Intercept"])
    tidy = fit.tidy(component="zero_inflation", exponentiate=True)
    assert tidy["term"].tolist() == ["sd__Intercept", "Intercept", "mined[T.no]"]
    np.testing.assert_allclose(tidy["estimate"].iloc[1:], np.exp(zero["estimate"]), rtol=1e-12)
    with pytest.raises(OptionError, match=r"no part 'zi'.*conditional, zero_inflation"):
        fit.anova(component="zi")
