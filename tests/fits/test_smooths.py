"""Smooths: gamm4's fits, closed forms, brute force, and what is refused by name."""

from __future__ import annotations

import json
import pickle
from itertools import pairwise

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from reference_data import REFERENCE
from scipy import integrate

import lme4py
from lme4py.errors import FormulaError, Lme4Error, OptionError
from lme4py.formula.smooth.bases import BASES, basis_slopes, basis_values
from lme4py.inference.estimates.smooth_system import smooth_system
from lme4py.inference.estimates.smooth_tests import mixture_tail

mpl.use("Agg")
STORED = json.loads((REFERENCE / "smooths.json").read_text(encoding="utf-8"))
DATA, NEW = pd.DataFrame(STORED["data"]), pd.DataFrame(STORED["new"])
FORMULAS = {
    "cr": "y ~ s(x, bs = 'cr', k = 8)",
    "ps": "y ~ s(x, bs = 'ps', k = 9)",
    "tp": "y ~ s(x, k = 8) + s(z, k = 6)",
    "cc": "y ~ s(x, bs = 'cc', k = 8)",
    "by_factor": "y ~ f + s(x, by = f, bs = 'cr', k = 7) + (1 | g)",
    "by_number": "y ~ s(x, by = z, bs = 'cr', k = 7)",
    "ml": "y ~ s(x, k = 8) + (1 | g)",
    "poisson": "count ~ s(x, bs = 'cr', k = 8) + (1 | g)",
}


@pytest.fixture(scope="module")
def fits():
    out = {}
    for name, formula in FORMULAS.items():
        if name == "poisson":
            out[name] = lme4py.glmer(formula, DATA, "poisson")
        else:
            out[name] = lme4py.lmer(formula, DATA, reml=name != "ml")
    return out


@pytest.mark.parametrize("name", FORMULAS)
def test_fits_are_those_of_gamm4(fits, name):
    result, expected = fits[name], STORED["models"][name]
    assert result.converged
    # gamm4's optimiser (bobyqa) stops some 1e-6 of a standard deviation short; its family scale is 1 for counts.
    assert result.fittedvalues.to_numpy() == pytest.approx(expected["fitted"], abs=2e-4)
    if name != "poisson":
        assert result.sigma == pytest.approx(expected["sigma"], rel=1e-4)
    smooth = list(result.smooths().index)
    assert result.smooths()["edf"].to_numpy() == pytest.approx(expected["edf"][: len(smooth)], rel=2e-3)
    if name not in ("cc",):
        found = result.predict(NEW, include_random=False, type="linear")
        # Outside the data too; predict.gam leaves out the random intercept, as include_random=False.
        assert found.to_numpy() == pytest.approx(expected["predicted"], abs=5e-4)


def test_likelihoods_are_those_of_lme4(fits):
    # ML does not depend on the scaling of the unpenalised columns.
    assert fits["ml"].log_likelihood == pytest.approx(STORED["models"]["ml"]["logLik"], abs=1e-5)
    assert fits["poisson"].log_likelihood == pytest.approx(STORED["models"]["poisson"]["logLik"], abs=1e-4)


@pytest.mark.parametrize("kind", ["cr", "cc", "ps", "tp"])
def test_bases_have_their_penalties(kind):
    """Penalties by numerical integration of second derivatives (cr, cc), and slopes by differences."""
    rng = np.random.default_rng(1)
    x = np.sort(rng.uniform(size=60))
    learnt = {"bs": kind, "k": 6}
    S = BASES[kind][0](x, np.unique(x), 6, learnt)
    size = S.shape[0]
    inside, h = np.linspace(x[1], x[-2], 7), 1e-6
    differences = (basis_values(inside + h, learnt) - basis_values(inside - h, learnt)) / (2 * h)
    assert basis_slopes(inside, learnt) == pytest.approx(differences, abs=1e-5)
    if kind in ("cr", "cc"):
        weights = rng.normal(size=size)

        def square(at):
            near = np.array([at])
            step = 1e-4
            parts = [basis_values(near + d, learnt) @ weights for d in (-step, 0.0, step)]
            return float((parts[0] - 2 * parts[1] + parts[2])[0] / step**2) ** 2

        knots = learnt["knots"]
        # Second differences of rounding 1e-16 / 1e-8; their error at the knots is of the size of the step.
        total = sum(integrate.quad(square, a + 2e-4, b - 2e-4)[0] for a, b in pairwise(knots))
        assert weights @ S @ weights == pytest.approx(total, rel=0.02)


def test_a_smooth_is_the_penalised_least_squares_fit():
    """At the estimated variances the fitted values are those of the ridge system, by dense algebra."""
    result = lme4py.lmer("y ~ s(x, bs = 'cr', k = 8)", DATA[DATA.f == "a"])
    fit = result.fit
    design, tau2 = fit.design, fit.covariances[0][0, 0]
    C = np.hstack([design.X, design.terms[0].values])
    penalty = np.diag([0.0] * design.X.shape[1] + [fit.sigma**2 / tau2] * design.terms[0].n_columns)
    solution = np.linalg.solve(C.T @ C + penalty, C.T @ design.y)
    assert C @ solution == pytest.approx(result.fittedvalues.to_numpy(), abs=1e-9)
    F = np.linalg.solve(C.T @ C + penalty, C.T @ C)
    assert np.trace(F) == pytest.approx(smooth_system(fit).edf.sum(), rel=1e-9)


def test_parametric_tables_have_the_parametric_part(fits):
    result = fits["by_factor"]
    assert list(result.params.index) == ["Intercept", "f[T.b]"]
    for table in (result.coef_table(), result.conf_int(), result.cov_params(), result.bse):
        assert list(table.index) == ["Intercept", "f[T.b]"]
    assert list(result.anova().index) == ["f"]
    assert result.n_groups == {"g": 8}
    assert "s(x):fa" in str(result.summary())
    assert set(result.ranef().columns) == {"Intercept"}
    assert "s(x):fa" in set(result.var_corr()["group"])


def test_every_prediction_has_the_smooths(fits):
    result = fits["by_factor"]
    zero = result.predict(NEW, include_random=False)

    one = result.ranef()["Intercept"]["a"]
    assert result.predict(NEW).to_numpy() - zero.to_numpy() == pytest.approx(np.full(4, one), abs=1e-12)
    assert result.predict(NEW, include_random="integrate").to_numpy() == pytest.approx(zero.to_numpy(), abs=1e-12)
    draws = result.simulate(200, seed=1)
    # Means of 200 simulations about the population curve: sd of about .6 / sqrt(200) each.
    gap = draws.mean(axis=1) - result.predict(include_random=False)
    assert float(np.abs(gap).max()) < 0.25
    assert result.refit(draws.iloc[:, 0]).smooths()["edf"].iloc[0] > 2.0
    again = pickle.loads(pickle.dumps(result))
    assert again.predict(NEW).equals(result.predict(NEW))


def test_margins_go_through_smooths(fits):
    result, h = fits["tp"], 1e-5
    slope = lme4py.Margins.linear_scale(result).dydx("x").to_frame()
    ahead = result.predict(DATA.assign(x=DATA.x + h)) - result.predict(DATA.assign(x=DATA.x - h))
    # Central differences of a smooth function.
    assert slope["estimate"].iloc[0] == pytest.approx(float(ahead.mean()) / (2 * h), rel=1e-5)
    at = lme4py.Margins.linear_scale(result).predict(atexog={"x": [0.3]}).to_frame()
    whole = result.predict(DATA.assign(x=0.3), interval="confidence")
    assert at["estimate"].iloc[0] == pytest.approx(float(whole["predicted"].mean()), rel=1e-10)
    assert 0.0 < at["std_error"].iloc[0] < float(((whole["upper"] - whole["lower"]) / 3.9).max())
    with pytest.raises(OptionError, match="smooths"):
        lme4py.Margins.linear_scale(result, method="bootstrap")


def test_curves_bands_and_differences(fits):
    result = fits["by_factor"]
    curve = result.smooth_curves("s(x):fa", n=50)
    system = smooth_system(result.fit)
    one = system.smooths[0]
    values = one.columns @ system.coefficients[one.places]
    kept = DATA.f == "a"
    assert np.interp(DATA.x[kept], curve["x"], curve["estimate"]) == pytest.approx(values[kept], abs=5e-3)
    band = result.smooth_curves("s(x):fa", n=50, simultaneous=True)
    assert (band["upper"] - band["lower"] > curve["upper"] - curve["lower"]).all()
    slope = result.smooth_curves("s(x):fa", n=50, derivative=True)
    assert slope["estimate"].to_numpy() == pytest.approx(np.gradient(curve["estimate"], curve["x"]), abs=0.5)
    both = result.smooth_difference("s(x):fa", "s(x):fb", n=50)
    other = result.smooth_curves("s(x):fb", n=50)
    if np.allclose(curve["x"], both["x"]) and np.allclose(other["x"], both["x"]):
        assert both["estimate"].to_numpy() == pytest.approx(curve["estimate"] - other["estimate"], abs=1e-10)
    assert result.plot("smooth").shape == (2,)
    shares = fits["tp"].concurvity()
    assert ((shares >= 0.0) & (shares <= 1.0)).all(axis=None)
    mpl.pyplot.close("all")


@pytest.mark.filterwarnings("ignore::lme4py.errors.OptimaWarning")
def test_tests_of_smooths_hold_their_level():
    """A smooth that is not there: p-values below .1 in about a tenth of 60 data sets (binomial sd .04)."""
    rng = np.random.default_rng(5)
    x = rng.uniform(size=80)
    made = lme4py.lmer("y ~ s(x, bs = 'cr', k = 6)", {"x": x, "y": rng.normal(size=80)})
    found = [made.refit(rng.normal(size=80)).smooths()["p_value"].iloc[0] for _ in range(60)]
    assert np.mean(np.array(found) < 0.1) < 0.23


def test_tails_of_mixtures_are_those_of_simulations():
    rng = np.random.default_rng(2)
    weights = [1.0, 1.0, 0.8, 0.3]
    draws = (rng.chisquare(1, (400_000, 4)) * weights).sum(axis=1)
    # 400,000 draws: standard error .0006.
    assert mixture_tail(5.0, weights, 3.1, np.inf) == pytest.approx(float((draws > 5.0).mean()), abs=0.003)
    scaled = draws / (rng.chisquare(20, 400_000) / 20)
    assert mixture_tail(5.0, weights, 3.1, 20.0) == pytest.approx(float((scaled > 5.0).mean()), abs=0.003)


def test_check_notices_a_small_basis():
    rng = np.random.default_rng(4)
    x = rng.uniform(size=400)
    data = {"x": x, "y": np.sin(25 * x) + 0.2 * rng.normal(size=400)}
    small, large = (lme4py.lmer(f"y ~ s(x, k = {k})", data) for k in (5, 25))
    assert small.check()["bases"].ok is False
    assert large.check()["bases"].ok


def test_ordered_categories_have_smooths():
    data = DATA.assign(rating=pd.Categorical(pd.qcut(DATA.y, 4, labels=False), ordered=True))
    result = lme4py.clmm("rating ~ f + s(x, by = f, bs = 'cr', k = 6) + (1 | g)", data)
    assert result.converged
    assert list(result.params.index) == ["f[T.b]"]
    # The latent curve is that of the linear model in shape: their correlation over the rows is nearly one.
    latent = result.predict(include_random=False, type="linear")
    linear = lme4py.lmer("y ~ f + s(x, by = f, bs = 'cr', k = 6) + (1 | g)", DATA).predict(include_random=False)
    assert np.corrcoef(latent, linear)[0, 1] > 0.95
    assert (result.smooths()["edf"] >= 1.0 - 1e-9).all()
    linear = result.predict(NEW, include_random=False, type="linear")
    assert np.isfinite(linear).all()


@pytest.mark.parametrize(
    ("formula", "options", "message"),
    [
        ("y ~ s(x, z, bs = 'cr')", {}, "one penalty"),
        ("y ~ f * s(x)", {}, "by = f"),
        ("y ~ x + (s(z) | g)", {}, "random effects"),
        ("y ~ s(x) + s(x, k = 5)", {}, "twice"),
        ("y ~ s(x, bs = 'ad')", {}, "tp"),
        ("y ~ s(f)", {}, "numbers"),
        ("y ~ s(x, k = 500)", {}, "distinct"),
        ("y ~ s(x, m = 1)", {}, "penalty"),
        ("y ~ s(x, by = log(z))", {}, "column"),
        ("y ~ s(x)", {"residual": "ar1(1 | g)"}, "smooths"),
    ],
)
def test_what_is_not_there_is_refused(formula, options, message):
    with pytest.raises(Lme4Error, match=message):
        lme4py.lmer(formula, DATA, **options)


def test_shares_of_the_variance():
    """Smooths count in the fixed part: that of the predictions without random effects."""
    for fit in (lme4py.lmer("y ~ z + s(x) + (1 | g)", DATA), lme4py.glmer("count ~ s(x) + (1 | g)", DATA, "poisson")):
        found = fit.r_squared()
        mean = fit.predict(DATA, include_random=False, type="linear")
        assert found["var_fixed"] == pytest.approx(mean.var(), rel=1e-10)
        random, rest = float(fit.covariances["(1 | g)"].iloc[0, 0]), found["var_residual"]
        assert found["var_random"] == pytest.approx(random, rel=1e-12)
        assert fit.icc().estimate == pytest.approx(random / (random + rest), rel=1e-10)
        assert fit.icc_table()["estimate"].tolist() == [fit.icc().estimate]
        assert "ICC" in str(fit.summary())


def test_the_report_has_the_shares_of_curves_of_levels(tmp_path):
    path = lme4py.lmer("y ~ s(x, g, bs = 'fs', k = 5)", DATA).report(tmp_path / "fit.html")
    assert "Intraclass correlation, g" in path.read_text(encoding="utf-8")


def test_likelihood_ratios_of_models_with_the_same_smooths():
    fits = [lme4py.lmer(f"y ~ s(x) + {right}", DATA, reml=False) for right in ("1", "(1 | g)", "z + (1 | g)")]
    for small, large in ((fits[0], fits[1]), (fits[1], fits[2])):
        test = lme4py.lrtest(small, large)
        assert test.chi2 == pytest.approx(2.0 * (large.log_likelihood - small.log_likelihood), rel=1e-12)
        assert test.df == 1
    assert lme4py.lrtest(fits[0], fits[1]).boundary_corrected
    assert fits[1].ranova().index.tolist() == ["<none>", "(1 | g)"]
    assert fits[1].ranova()["logLik"].iloc[1] == pytest.approx(fits[0].log_likelihood, abs=1e-6)


@pytest.mark.filterwarnings("ignore:The column te")
def test_check_says_what_could_not_be_checked():
    """s(x, by = f) and te(x, z) share a line, which is left out of the second."""
    fit = lme4py.lmer("y ~ f + s(x, by = f, k = 4) + te(x, z, k = 4)", DATA)
    assert "could not be checked" in str(fit.check())


def test_other_models_and_methods_refuse_by_name(fits):
    with pytest.raises(FormulaError, match="nominal"):
        lme4py.clmm("rating ~ x + (1 | g)", DATA.assign(rating=DATA.f), nominal="~ s(z)")
    with pytest.raises(FormulaError, match="multinomial"):
        lme4py.glmer("g ~ s(x)", DATA, "multinomial")
    with pytest.raises(Lme4Error, match="streamed"):
        lme4py.lmer("y ~ s(x) + (1 | g)", DATA, control={"rows": "stream"})
    result = fits["ml"]
    calls = [
        result.influence,
        result.lrtest_no_random,
        lambda: lme4py.lrtest(None, result),
        lambda: lme4py.lrtest(lme4py.lmer("y ~ (1 | g)", DATA, reml=False), result),
        lambda: lme4py.icc(lme4py.lmer("y ~ s(x)", DATA)),
        lambda: lme4py.lmer("y ~ s(x)", DATA).ranova(),
        lambda: result.icc(adjusted=False),
        lambda: lme4py.step(result),
        lambda: lme4py.caic(result),
        lambda: result.smooth_curves("s(z)"),
        lambda: result.ranef(data=DATA.iloc[:20]),
        lambda: result.predict(NEW, given=DATA.iloc[:20]),
    ]
    for call in calls:
        with pytest.raises(OptionError, match="smooth"):
            call()
    with pytest.raises(OptionError, match="no smooths"):
        lme4py.lmer("y ~ x + (1 | g)", DATA).smooths()
