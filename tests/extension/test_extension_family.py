"""A family and a link that the package does not know, through every public method of a result and through Margins.

The toy family is the Poisson distribution under another name, written as a user would write it; the toy link is the
logarithm to base 2. A model with both is the Poisson model with the log link, its linear predictor divided by log 2,
so that every number is known from a model that the package does know; what the toy family does not say is refused by
its name.
"""

from __future__ import annotations

from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from scipy import special, stats

import lme4py
from lme4py.errors import Lme4Error
from lme4py.families.links import MeanLink
from lme4py.families.mean_family import MeanFamily, Pieces
from lme4py.results import MEGLMResult

mpl.use("Agg")
LOG2 = np.log(2.0)


@dataclass(frozen=True)
class Doublings(MeanLink):
    """mu = 2^eta."""

    name: str = "doublings"
    low: float = -np.inf
    high: float = np.inf
    has_unit = False
    strip = 0.5 * np.pi

    @property
    def extremes(self):
        return 0.0, np.inf

    def derivatives(self, eta):
        mu = np.exp2(eta)
        return mu, LOG2 * mu, LOG2**2 * mu, LOG2**3 * mu

    def log_mean(self, eta):
        zero = np.zeros_like(eta)
        return LOG2 * eta, zero + LOG2, zero, zero

    def eta(self, mu):
        return np.log2(mu)


@dataclass(frozen=True)
class Clicks(MeanFamily):
    """Poisson counts: log-likelihood, support, moments, distribution, simulation, start; nothing else is said."""

    name = "clicks"
    kind = "count"
    default_link = "doublings"
    support = "counts"
    concave_links = frozenset({"doublings"})

    def _pieces(self, data, t, lam, order, expected):
        mu = np.exp(t)
        p = Pieces(data.y * t - mu - special.gammaln(data.y + 1.0))
        if order >= 1:
            p.d1 = data.y - mu
        if order >= 2:
            p.d2, p.info, p.quasi = -mu, mu, mu
        if order >= 3:
            p.d3, p.d_info = -mu, mu
        return p

    def outside(self, y):
        return (y < 0) | (y != np.rint(y))

    def stays_likely(self, data, mean):
        return (data.y == 0.0) & (mean == 0.0)

    def variance(self, mu, lam=0.0):
        return mu

    def row_noise(self, data):
        return None

    def start_mean(self, data):
        return data.y + 0.1

    def _cdf(self, y, mu, lam, data):
        return np.where(y < 0.0, 0.0, stats.poisson.cdf(y, mu))

    def _draw(self, mu, lam, data, rng):
        return rng.poisson(mu).astype(float)


FORMULA = "y ~ x + f + offset(o) + (1 + x | g)"


def counts():
    rng = np.random.default_rng(4)
    n, groups = 240, 20
    g, x = np.repeat(np.arange(groups), n // groups), rng.normal(size=n)
    b = rng.normal(size=(groups, 2)) * [0.5, 0.3]
    f = rng.choice(list("ab"), n)
    o = rng.uniform(-0.2, 0.2, n)
    mu = np.exp(0.7 + 0.3 * x - 0.2 * (f == "b") + o + b[g, 0] + b[g, 1] * x)
    return pd.DataFrame({"y": rng.poisson(mu), "x": x, "f": f, "o": o, "o2": o / LOG2, "g": g})


@pytest.fixture(scope="module")
def fits():
    data = counts()
    with mpl.rc_context():
        toy = lme4py.glmer(FORMULA.replace("(o)", "(o2)"), data, family=Clicks(Doublings()))
        known = lme4py.glmer(FORMULA, data, family="poisson")
    return toy, known


# What each public name gives: "same" as the known model; "link" numbers on the scale of the link, divided by log 2 (the
# square of it for variances is "link2"); "text"; or "refused" by the name of the family.
PROPERTIES = {
    "same": [
        "Zt", "aic", "bic", "categories", "converged", "criterion", "default_ddf", "deviance", "df_resid", "dispersion",
        "dispersion_se", "endog_names", "fittedvalues", "is_singular", "laplace_error", "llf", "log_likelihood",
        "hessian", "model_matrix", "nAGQ", "n_groups", "n_obs", "n_params", "nobs", "pvalues", "sigma", "thresholds",
        "thresholds_se", "tvalues", "zvalues",
    ],
    "link": ["blups", "bse", "fixed_effects", "params", "random_effects", "theta"],
    "text": ["certificate", "components", "family", "family_params", "fit", "formula", "integral_check", "link",
        "opt_log", "rows"],
    "components": ["covariances", "variance_components"],
}  # fmt: skip
SAME = {
    "anova": {},
    "drop1": {},
    "exact_criterion": {},
    "hatvalues": {},
    "lrtest_no_random": {},
    "quantile_residuals": {"n": 50, "seed": 1},
    "r_squared": {"variance": "delta"},
    "simulate": {"n": 2, "seed": 3},
    "wald_test": {"restrictions": "x"},
    "icc": {},
    "icc_table": {},
    "weights": {},
    "information_criteria": {},
    "part": {"name": "mu"},
}
LINK = {"coef": {}, "coef_table": {}, "conf_int": {}, "ranef": {}, "standardised": {}}
# The family says neither what exp(beta) is, nor what a deviance is (which `augment` has); it has no thresholds.
REFUSED = {
    "odds_ratios": {},
    "incidence_rate_ratios": {},
    "relative_risk_ratios": {},
    "residuals": {"type": "deviance"},
    "augment": {},
    "threshold_parameters": {},
    "proportional_odds": {},
}
OTHER = {
    "all_fit", "bootstrap", "check", "contest", "cov_params", "glance", "influence", "plot",
    "plot_data", "predict", "profile", "ranef_cov", "ranova", "re_pca", "refit", "report", "slim", "summary", "tidy",
    "concurvity", "smooth_curves", "smooth_difference", "smooths", "equal_effects", "response_correlations",
    "to_dict", "to_json", "to_latex", "to_markdown", "to_native", "update", "var_corr", "variance_table", "with_call",
}  # fmt: skip


def test_the_lists_hold_every_public_name():
    known = {name for names in PROPERTIES.values() for name in names} | {*SAME, *LINK, *REFUSED, *OTHER}
    public = {name for name in dir(MEGLMResult) if not name.startswith("_")}
    assert public == known


def numbers(value):
    """All numbers of a result, in order."""
    if hasattr(value, "to_dict") and not isinstance(value, pd.DataFrame | pd.Series):
        value = value.to_dict()
    if isinstance(value, pd.DataFrame):
        value = value.select_dtypes("number").to_numpy(dtype=float)
    if isinstance(value, dict):
        return np.concatenate([np.zeros(0), *(numbers(v) for v in value.values())])
    if hasattr(value, "tocoo"):
        value = value.toarray()
    if hasattr(value, "__dataclass_fields__"):
        return np.concatenate([np.zeros(0), *(numbers(getattr(value, name)) for name in value.__dataclass_fields__)])
    if isinstance(value, list | tuple):
        return np.concatenate([np.zeros(0), *(numbers(v) for v in value)])
    try:
        return np.asarray(value, dtype=float).ravel()
    except (TypeError, ValueError):
        return np.zeros(0)


def same(a, b, factor=1.0):
    a, b = numbers(a), numbers(b)
    assert a.size == b.size
    # Two optimisations end at the same point to about 1e-6 of a standard error.
    np.testing.assert_allclose(a * factor, b, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("name", PROPERTIES["same"])
def test_properties(fits, name):
    same(*(getattr(fit, name) for fit in fits))


@pytest.mark.parametrize("name", PROPERTIES["link"])
def test_properties_on_the_scale_of_the_link(fits, name):
    if name == "theta":
        # The known model's theta and the toy's are those of the linear predictor.
        same(fits[0].theta, fits[1].theta / LOG2)
        return
    same(*(getattr(fit, name) for fit in fits), LOG2)


def test_other_properties(fits):
    toy, known = fits
    assert (toy.family, toy.link, known.family, known.link) == ("clicks", "doublings", "poisson", "log")
    assert toy.certificate.converged
    assert toy.family_params == known.family_params == {}
    assert toy.components == ("conditional",)
    with pytest.raises(Lme4Error, match="no part"):
        toy.coef_table(component="zero_inflation")
    assert toy.formula == known.formula.replace("(o)", "(o2)")
    assert toy.opt_log.shape[1] == known.opt_log.shape[1]
    same(toy.integral_check.change, known.integral_check.change)
    for own, other in zip(toy.covariances.values(), known.covariances.values(), strict=True):
        np.testing.assert_allclose(own * LOG2**2, other, rtol=5e-5)
    components, reference = toy.variance_components, known.variance_components
    for name, value in components.items():
        # Correlations have no unit. Two optimisations agree to 1e-5.
        assert value * (1.0 if name.startswith("corr") else LOG2**2) == pytest.approx(reference[name], rel=5e-5)


@pytest.mark.parametrize("name", SAME)
def test_methods(fits, name):
    if name == "r_squared":
        # The variances have the unit of the link, squared.
        toy, known = (fit.r_squared(variance="delta") for fit in fits)
        same([toy["marginal"], toy["conditional"]], [known["marginal"], known["conditional"]])
        return
    if name == "quantile_residuals":
        toy, known = (fit.quantile_residuals(**SAME[name]) for fit in fits)
        assert toy.is_discrete
        same(toy.residuals, known.residuals)
        return
    if name in ("icc", "icc_table"):
        # The delta method of both; the known model has the lognormal one for a log link.
        toy, known = (getattr(fit, name)(variance="delta") for fit in fits)
        same(toy, known)
        return
    toy, known = (getattr(fit, name)(**SAME[name]) for fit in fits)
    same(toy, known)


@pytest.mark.parametrize("name", ["coef", "ranef", "standardised"])
def test_effects(fits, name):
    same(*(getattr(fit, name)() for fit in fits), LOG2)


def test_smooths():
    data = counts().assign(f=lambda frame: pd.Categorical(frame["f"]))
    z = np.random.default_rng(1).permutation(np.linspace(-2.0, 2.0, 240))
    data = data.assign(z=z, y=np.random.default_rng(2).poisson(np.exp(1.0 + np.sin(2.0 * z))))
    formula = "y ~ s(z, k=5, by=f) + f + (1 | g)"
    toy = lme4py.glmer(formula, data, family=Clicks(Doublings()))
    known = lme4py.glmer(formula, data, family="poisson")
    same(toy.smooths(), known.smooths())
    same(toy.concurvity(), known.concurvity())
    for ask in ("smooth_curves", "smooth_difference"):
        given = ["s(z):fa"] if ask == "smooth_curves" else ["s(z):fa", "s(z):fb"]
        ours, theirs = (getattr(fit, ask)(*given).drop(columns="z") for fit in (toy, known))
        same(ours, theirs, LOG2)


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_name_the_family(fits, name):
    with pytest.raises(Lme4Error, match="clicks"):
        getattr(fits[0], name)(**REFUSED[name])


@pytest.mark.parametrize("name", ["smooths", "smooth_curves", "concurvity"])
def test_a_model_without_smooths_says_so(fits, name):
    with pytest.raises(Lme4Error, match="no smooths"):
        getattr(fits[0], name)()


def test_it_can_be_the_family_of_one_of_several_responses(fits):
    data = counts()
    both = data.assign(other=data["y"].to_numpy()[::-1])
    toy = lme4py.glmer("mvbind(y, other) ~ x + (1 | g)", both, family=[Clicks(Doublings()), "poisson"])
    known = lme4py.glmer("mvbind(y, other) ~ x + (1 | g)", both, family="poisson")
    # The same model: two optima.
    assert toy.log_likelihood == pytest.approx(known.log_likelihood, abs=1e-7)
    assert toy.predict(both.iloc[:3]).to_numpy() == pytest.approx(known.predict(both.iloc[:3]).to_numpy(), rel=1e-5)


@pytest.mark.parametrize("name", ["equal_effects", "response_correlations"])
def test_a_model_of_one_response_says_so(fits, name):
    with pytest.raises(Lme4Error, match="several responses"):
        getattr(fits[0], name)()


def test_f_tests_are_for_linear_models(fits):
    for fit in fits:
        with pytest.raises(Lme4Error, match="linear mixed models"):
            fit.contest(np.eye(3)[1:])


def test_tables(fits):
    toy, known = fits
    for name, columns in (("coef_table", ["estimate", "std_error"]), ("conf_int", ["lower", "upper"])):
        same(getattr(toy, name)()[columns], getattr(known, name)()[columns], LOG2)
    same(toy.coef_table()[["statistic", "p_value"]], known.coef_table()[["statistic", "p_value"]])
    same(toy.cov_params(), known.cov_params(), LOG2**2)
    fixed = [table.query("effect == 'fixed'")[["estimate", "std_error"]] for table in (toy.tidy(), known.tidy())]
    same(*fixed, LOG2)
    same(toy.var_corr()["vcov"].iloc[:2], known.var_corr()["vcov"].iloc[:2], LOG2**2)
    same(toy.variance_table().iloc[:2, 0], known.variance_table().iloc[:2, 0], LOG2**2)
    same(toy.glance(), known.glance())
    same(toy.re_pca().to_frame()["sd"], known.re_pca().to_frame()["sd"], LOG2)


@pytest.mark.parametrize("name", ["summary", "to_latex", "to_markdown", "to_json"])
def test_texts_name_the_family(fits, name):
    assert "clicks" in str(getattr(fits[0], name)())
    assert "doublings" in str(getattr(fits[0], name)())


def test_the_page_of_a_report(fits, tmp_path):
    page = fits[0].report(tmp_path / "page.html").read_text(encoding="utf-8")
    # What a link of which nothing is known does to the mean, no sentence says.
    assert "the linear predictor (doublings) is" in page
    assert "doublings(<var>&mu;</var><sub>i</sub>)" in page


def test_other_rows_and_power(fits):
    toy, known = fits
    same(toy.ranef_cov(), known.ranef_cov(), LOG2**2)
    given = counts().iloc[:15]
    same(toy.ranef(data=given), known.ranef(data=given), LOG2)
    same(*(fit.predict(given, given=given, interval="confidence", se=True) for fit in fits))
    same(*(fit.simulate(2, seed=3, data=given) for fit in fits))
    same(*(lme4py.power(fit, "x", n_sim=3, seed=1).replicates["p_value"] for fit in fits))
    assert lme4py.extend(toy, along="g", n=30).n_groups == {"g": 30}


def test_predictions(fits):
    toy, known = fits
    new = counts().iloc[:7].assign(g=[0, 1, 2, 3, 4, 99, 99])
    for how in ({}, {"include_random": False}, {"include_random": "integrate"}):
        for interval in (None, "confidence"):
            same(*(fit.predict(interval=interval, **how) for fit in fits))
    for interval in ("confidence", "prediction"):
        same(*(fit.predict(counts().iloc[:9], interval=interval, include_random=False) for fit in fits))
    same(toy.predict(type="linear"), known.predict(type="linear"), LOG2)
    with pytest.warns(lme4py.errors.Lme4Warning):
        toy.predict(new)


@pytest.mark.parametrize("kind", ["pearson", "working", "response", "quantile"])
def test_residuals(fits, kind):
    factor = LOG2 if kind == "working" else 1.0
    same(*(fit.residuals(type=kind, **({"seed": 1} if kind == "quantile" else {})) for fit in fits), factor)


def test_refits(fits):
    toy, known = fits
    y = toy.simulate(1, seed=5).iloc[:, 0]
    same(toy.refit(y).params, known.refit(y).params, LOG2)
    toy_draws, known_draws = (fit.bootstrap(3, seed=2).replicates for fit in fits)
    same(toy_draws[list(toy.params.index)], known_draws[list(toy.params.index)], LOG2)
    same(toy.update("y ~ f + offset(o2) + (1 | g)").params, known.update("y ~ f + offset(o) + (1 | g)").params, LOG2)
    same(toy.ranova().select_dtypes("number"), known.ranova().select_dtypes("number"))
    profile = [fit.profile("x").conf_int(0.05).to_numpy() for fit in fits]
    np.testing.assert_allclose(profile[0] * LOG2, profile[1], rtol=1e-4)
    assert toy.slim().params.equals(toy.params)


def test_diagnostics(fits):
    toy, known = fits
    influence = [fit.influence() for fit in fits]
    same(influence[0].cooks_distance, influence[1].cooks_distance)
    lines = [{line.name: line.ok for line in fit.check().lines} for fit in fits]
    # The toy family does not say which family has more variation.
    assert lines[0] == {name: ok for name, ok in lines[1].items() if name != "dispersion"}
    assert toy.all_fit(n_starts=1, optimizers=["L-BFGS-B"]) is not None
    for kind in ("caterpillar", "residuals", "qq"):
        assert toy.plot(kind) is not None
        assert len(toy.plot_data(kind)) == len(known.plot_data(kind))


@pytest.mark.parametrize("random", ["zero", "integrate"])
def test_margins(fits, random):
    toy, known = (lme4py.Margins.linear_scale(fit, random=random) for fit in fits)
    for name, arguments in (
        ("dydx", {"vars": ["x", "f"]}),
        ("eyex", {"vars": ["x"]}),
        ("predict", {"atexog": {"f": ["a", "b"]}}),
        ("contrasts", {"scenarios": {"one": {"f": "a"}, "two": {"f": "b"}}, "contrasts": {"d": {"one": 1, "two": -1}}}),
    ):
        columns = ["estimate", "std_error", "ci_lower", "ci_upper"]
        same(*(getattr(m, name)(**arguments).to_frame()[columns] for m in (toy, known)))


def test_margins_on_the_log_scale(fits):
    same(*(lme4py.Margins.log_scale(fit).dydx("x").to_frame()[["estimate", "std_error"]] for fit in fits))


def test_a_link_that_does_not_say_where_it_is_analytic_is_refused(fits):
    class Silent(Doublings):
        strip = None

    fit = lme4py.glmer("y ~ x + (1 | g)", counts(), family=Clicks(Silent(name="silent")))
    with pytest.raises(Lme4Error, match="silent"):
        fit.predict(include_random="integrate")


def test_bad_responses_are_refused_by_name():
    data = counts().assign(y=lambda d: d["y"] + 0.5)
    with pytest.raises(Lme4Error, match=r"clicks family cannot have \(row 1: "):
        lme4py.glmer("y ~ x + (1 | g)", data, family=Clicks(Doublings()))
