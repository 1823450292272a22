"""Estimates at infinity: separation in every family that can have it, and what every method says of it."""

from __future__ import annotations

import itertools
import json
import pickle
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from reference_data import REFERENCE
from scipy.optimize import linprog
from scipy.special import expit

import lme4py
from lme4py.engine.identification.recession import Recession, find_recession
from lme4py.errors import ConvergenceWarning, DesignError
from lme4py.families.rows import HalfRows
from lme4py.report.plots.effect import effect_data

N = 144
RNG = np.random.default_rng(0)
F = np.array(list("abc"))[np.arange(N) % 3]
G = np.repeat(np.arange(12), 12)
X = RNG.standard_normal(N)
ETA = 0.5 + 0.5 * X + 0.7 * RNG.standard_normal(12)[G]
ONE = F == "c"
DATA = pd.DataFrame(
    {
        "g": G.astype(str),
        "f": F,
        "x": X,
        "h": np.where(G % 2 == 0, "u", "v"),
        "m": RNG.integers(1, 6, N),
        "count": np.where(ONE, 0, RNG.poisson(np.exp(ETA))),
        "over": np.where(ONE, 0, RNG.negative_binomial(2, 2.0 / (2.0 + np.exp(ETA)))),
        "none": np.where(ONE, 0, RNG.random(N) < expit(ETA)).astype(float),
        "all": np.where(ONE, 1, RNG.random(N) < expit(ETA)).astype(float),
        "rank": np.where(ONE, 0, np.digitize(ETA + RNG.logistic(size=N), [-0.5, 1.0, 2.0])),
        "top": np.where(ONE, 3, np.digitize(ETA + RNG.logistic(size=N), [-0.5, 1.0, 2.0])),
        "size": np.where(ONE, -np.abs(RNG.standard_normal(N)), np.exp(0.3 * ETA) + 0.3 * RNG.standard_normal(N)),
    }
)
FORMULA = "{} ~ x + f + (1 | g)"


def fit(formula: str, data: pd.DataFrame = DATA, family: str = "poisson", **options: Any) -> lme4py.MEGLMResult:
    """Without the warning of the separation."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        if family == "ordinal":
            return lme4py.clmm(formula, data, **options)
        return lme4py.glmer(formula, data, family, **options)


MODELS = [
    ("count", "poisson", {}, -np.inf),
    ("over", "nbinomial", {}, -np.inf),
    ("over", "nbinomial1", {}, -np.inf),
    ("count", "poisson", {"nAGQ": 7}, -np.inf),
    *[("none", "binomial", {"link": link}, -np.inf) for link in ("logit", "probit", "cloglog", "loglog", "cauchit")],
    *[("all", "binomial", {"link": link}, np.inf) for link in ("logit", "probit", "cloglog", "loglog", "cauchit")],
    ("all", "binomial", {"nAGQ": 0}, np.inf),
    ("all", "binomial", {"nAGQ": 5}, np.inf),
    *[("rank", "ordinal", {"link": link}, -np.inf) for link in ("logit", "probit", "cloglog", "loglog", "cauchit")],
    ("top", "ordinal", {"threshold": "equidistant"}, np.inf),
    ("size", "gaussian", {"link": "log"}, -np.inf),
]


@pytest.mark.parametrize(("response", "family", "options", "limit"), MODELS)
def test_one_level_without_information(response: str, family: str, options: dict[str, Any], limit: float) -> None:
    """The limit is the model of the other rows: estimates, errors and likelihood are those."""
    formula = FORMULA.format(response)
    with pytest.warns(ConvergenceWarning, match=r"f\[T\.c\] separates .*48 of 144 rows"):
        found = (
            lme4py.clmm(formula, DATA, **options)
            if family == "ordinal"
            else lme4py.glmer(formula, DATA, family, **options)
        )
    assert not found.converged
    assert found.params["f[T.c]"] == limit
    assert np.isnan(found.bse["f[T.c]"])
    assert found.coef_table().loc["f[T.c]", ["std_error", "statistic", "p_value"]].isna().all()
    if response in ("top", "size"):
        # The thresholds of the other rows have another structure; the gaussian rows say something about sigma.
        return
    rest = DATA[DATA["f"] != "c"]
    assert (rest[response] == 0).any()
    other = fit(formula, rest, family, **options)
    names = list(other.params.index)
    # Cauchit tails fall like 1 / eta: rows at a predictor of 1e7 have a log-likelihood of 3e-8 each.
    loose = 1e-5 if options.get("link") == "cauchit" else 1e-7
    assert found.log_likelihood == pytest.approx(other.log_likelihood, abs=loose)
    # Both stop where the criterion can fall by 1e-9: 4e-5 standard errors.
    np.testing.assert_allclose(found.params[names], other.params, atol=1e-5)
    np.testing.assert_allclose(found.bse[names], other.bse, rtol=1e-4)
    np.testing.assert_allclose(found.theta, other.theta, atol=1e-5)
    if found.fit.categories:
        np.testing.assert_allclose(found.thresholds, other.thresholds, atol=1e-5)
        np.testing.assert_allclose(found.thresholds_se, other.thresholds_se, rtol=1e-4)


def r_reference() -> dict[str, Any]:
    """Made by tests/reference/make/separation.R."""
    found: dict[str, Any] = json.loads((REFERENCE / "separation.json").read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("name", list(r_reference()["fits"]))
def test_the_finite_part_is_that_of_r(name: str) -> None:
    """glmmTMB and ordinal stop at coefficients of -18 and the like, where everything else is at its limit."""
    reference = r_reference()
    data, other = pd.DataFrame(reference["data"]), reference["fits"][name]
    if name == "ordinal":
        found = fit("rank ~ x + f + (1 | g)", data.assign(rank=data["rank"].astype(int)), "ordinal")
        values = pd.concat([found.thresholds, found.params])
        errors = pd.concat([found.thresholds_se, found.bse])
    else:
        counts = name in ("poisson", "nbinomial", "nbinomial1")
        options: dict[str, Any] = {"family": name} if counts else {"family": "binomial", "link": name}
        found = fit(f"{'count' if counts else 'yes'} ~ x + f + (1 | g)", data, **options)
        values, errors = found.params, found.bse
    assert values["f[T.c]"] == -np.inf
    # They stop where the likelihood of some 36 rows can still rise by 1e-8 each.
    assert found.log_likelihood == pytest.approx(other["logLik"], abs=2e-6)
    known = values.drop("f[T.c]")
    np.testing.assert_allclose(known, other["estimate"], atol=2e-4)
    if None not in other["se"]:  # R's own are not defined where its Hessian is not
        np.testing.assert_allclose(errors.drop("f[T.c]"), other["se"], rtol=2e-3)


def glm_limits(X: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest value of each coefficient over the cone {d: rows d >= 0} in a box."""
    p = X.shape[1]
    out = []
    for sign in (1.0, -1.0):
        ends = [
            linprog(sign * np.eye(p)[k], A_ub=-rows, b_ub=np.zeros(len(rows)), bounds=[(-1.0, 1.0)] * p).x[k]
            for k in range(p)
        ]
        out.append(np.array(ends))
    return out[0], out[1]


@pytest.mark.parametrize("seed", range(30))
def test_against_linear_programmes(seed: int) -> None:
    """Random small designs: a coefficient's limits follow from its range over the cone of recession."""
    rng = np.random.default_rng(seed)
    n, p = 10, 3
    X = np.column_stack([np.ones(n), rng.integers(-2, 3, (n, p - 1))]).astype(float)
    if np.linalg.matrix_rank(X) < p:
        X[:p] = np.eye(p) + 1.0
    kind = rng.choice([-1.0, 0.0, 1.0], n, p=[0.45, 0.1, 0.45])
    found = find_recession(HalfRows(np.arange(n), kind), None, X, None)
    rows = np.vstack([X[kind > 0], -X[kind < 0], X[kind == 0], -X[kind == 0]])
    low, high = glm_limits(X, rows)
    if found is None:
        assert np.abs(np.r_[low, high]).max() < 1e-9
        return
    null, cone, direction, moved = found
    limits = Recession(("a", "b", "c"), np.eye(p), null, cone, null.T @ direction, moved.size, n, p).limits
    # Along a generic direction every row moves that any direction moves.
    assert (rows @ direction > -1e-9).all()
    expected = np.where(low > -1e-9, np.where(high < 1e-9, 0.0, np.inf), np.where(high < 1e-9, -np.inf, np.nan))
    # Ranges over the cone tell +inf from -inf; a coefficient that the remaining rows do not determine is NaN.
    np.testing.assert_array_equal(limits, expected)


def test_combinations_of_columns_and_contrasts() -> None:
    rng = np.random.default_rng(1)
    data = DATA.assign(y=np.where(F == "a", 0, rng.poisson(2.0, N)))
    found = fit("y ~ x + f + (1 | g)", data)
    # The reference level goes to minus infinity, so that both differences from it are infinite.
    assert found.params.tolist()[0] == -np.inf
    assert (found.params[["f[T.b]", "f[T.c]"]] == np.inf).all()
    # The difference of the other two is that of a model with another reference level.
    contrast = np.array([[0.0, 0.0, -1.0, 1.0]])
    again = fit("y ~ 0 + f + x + (1 | g)", data)
    test, other = found.wald_test(contrast), again.wald_test(np.array([[0.0, -1.0, 1.0, 0.0]]))
    assert test["chi2"] == pytest.approx(other["chi2"], rel=1e-5)
    with pytest.warns(ConvergenceWarning, match="a Wald test needs finite estimates"):
        assert np.isnan(found.wald_test("f[T.b]")["chi2"])
    assert again.params["f[a]"] == -np.inf
    # One empty cell of two factors: the level and its interaction are infinite, with opposite signs.
    cell = DATA.assign(y=np.where((F == "c") & (DATA["h"] == "u"), 0, rng.poisson(2.0, N)))
    crossed = fit("y ~ f * h + (1 | g)", cell)
    assert crossed.params[["f[T.c]", "f[T.c]:h[T.v]"]].tolist() == [-np.inf, np.inf]
    assert np.isfinite(crossed.params.drop(["f[T.c]", "f[T.c]:h[T.v]"])).all()
    assert "24 of 144 rows" in crossed.certificate.verdict


def test_the_direction_of_an_intercept_can_be_open() -> None:
    # Any point between -0.2 and 0.3 separates: the intercept may go either way, or stay.
    x = np.where(X > 0, X + 0.3, X - 0.2)
    data = DATA.assign(x=x, y=(x > 0).astype(float), far=x + 5.0)
    found = fit("y ~ x + (1 | g)", data, "binomial")
    assert found.params["x"] == np.inf
    assert np.isnan(found.params["Intercept"])
    assert "complete separation, 144 of 144 rows" in found.certificate.verdict
    assert found.log_likelihood == pytest.approx(0.0, abs=1e-9)
    # Nothing is left that could say how large the variance is.
    assert np.isnan(found.variance_components["var(_cons)"])
    assert np.isnan(found.conf_int(parm="random")).all(axis=None)
    # With another origin every such point is on one side.
    assert fit("y ~ far + (1 | g)", data, "binomial").params.tolist() == [-np.inf, np.inf]


def test_units_and_origin_do_not_matter() -> None:
    plain = fit(FORMULA.format("count"))
    other = fit(FORMULA.format("count"), DATA.assign(x=1e-3 * X + 50.0))
    assert other.params["f[T.c]"] == -np.inf
    assert np.isfinite(other.params.drop("f[T.c]")).all()
    assert other.log_likelihood == pytest.approx(plain.log_likelihood, abs=1e-7)


def test_trials_and_weights() -> None:
    rng = np.random.default_rng(5)
    wins = np.where(ONE, DATA["m"], rng.binomial(DATA["m"], expit(ETA)))
    data = DATA.assign(wins=wins, losses=DATA["m"] - wins, share=wins / DATA["m"])
    one = fit("cbind(wins, losses) ~ x + f + (1 | g)", data, "binomial")
    two = fit("share ~ x + f + (1 | g)", data, "binomial", weights="m")
    for found in (one, two):
        assert found.params["f[T.c]"] == np.inf
    # A single failure in the level makes its coefficient finite again.
    data.loc[2, ["wins", "losses"]] = [data.loc[2, "m"] - 1, 1]
    assert lme4py.glmer("cbind(wins, losses) ~ x + f + (1 | g)", data).converged


def test_other_random_effects() -> None:
    for formula in ("count ~ x + f + (x | g)", "count ~ x + f + (1 | g) + (1 | h)", "count ~ x + f + (1 | h/g)"):
        found = fit(formula)
        rest = fit(formula, DATA[~ONE])
        assert found.params["f[T.c]"] == -np.inf
        assert found.log_likelihood == pytest.approx(rest.log_likelihood, abs=1e-7)


def test_a_variance_of_separated_rows_alone_is_not_determined() -> None:
    found = fit("count ~ x + f + (1 | g) + (0 + z | g)", DATA.assign(z=ONE * X))
    assert np.isnan(found.variance_components["var(z)"])
    rest = lme4py.glmer("count ~ x + f + (1 | g)", DATA[~ONE], "poisson")
    kept = found.variance_components["var(_cons)"]
    assert kept == pytest.approx(rest.variance_components["var(_cons)"], rel=1e-5)
    assert "say nothing about the variance of z" in found.certificate.verdict


def test_finite_estimates_are_left_alone() -> None:
    """Rare events and tiny means are no separation."""
    data = DATA.assign(y=DATA["count"].where(np.arange(N) != 5, 1))
    found = lme4py.glmer("y ~ x + f + (1 | g)", data, "poisson")
    assert found.converged
    assert found.fit.recession is None
    assert -7.0 < found.params["f[T.c]"] < -3.0
    assert found.bse["f[T.c]"] == pytest.approx(1.0, abs=0.1)  # one event: 1 / sqrt(1)
    assert found.check()["separation"].ok is True


@pytest.mark.parametrize(
    ("response", "family", "link"),
    [("count", "poisson", "identity"), ("none", "binomial", "log"), ("all", "binomial", "log")],
)
def test_links_with_a_bounded_range_say_why_there_is_no_fit(response: str, family: str, link: str) -> None:
    with pytest.raises(
        DesignError, match=rf"f\[T\.c\] separates .* \(48 of 144 rows\): .* the range of the {link} link"
    ):
        lme4py.glmer(FORMULA.format(response), DATA, family, link=link)


class TestMethods:
    found = fit(FORMULA.format("count"))
    new = pd.DataFrame({"x": [0.0, 0.0], "f": ["b", "c"], "g": ["1", "1"]})

    def test_tables(self) -> None:
        m = self.found
        assert m.cov_params().loc["f[T.c]"].isna().all()
        assert m.conf_int().loc["f[T.c]"].isna().all()
        assert m.conf_int().drop("f[T.c]").notna().all(axis=None)
        rates = m.incidence_rate_ratios().loc["f[T.c]"]
        assert rates["rate_ratio"] == 0.0
        assert rates[["lower", "upper"]].isna().all()
        tidy = m.tidy(conf_int=True).set_index("term").loc["f[T.c]"]
        assert tidy["estimate"] == -np.inf
        assert tidy[["std_error", "statistic", "p_value", "conf_low", "conf_high"]].isna().all()
        line = next(line for line in m.summary().splitlines() if "f[T.c]" in line)
        assert line.split() == ["f[T.c]", "-inf", "n/a", "n/a", "n/a"]
        assert "f[T.c] goes to -inf" in " ".join(m.summary().split())
        assert m.coef()["f[T.c]"].eq(-np.inf).all()
        assert "f[T.c]" in m.check()["separation"].message
        with pytest.warns(ConvergenceWarning, match="separates"):
            text = lme4py.mepoisson(DATA, "count", ["x", "f"], "g").summary()
        assert "not finite" in text

    def test_tests_of_terms(self) -> None:
        for type_ in (1, 2, 3, "sequential", "car-2", "car-3"):
            with pytest.warns(ConvergenceWarning, match="a Wald test of a term"):
                table = self.found.anova(type=type_)
            assert np.isnan(table.loc["f", "chi2"])
            # Type 1 tests x without adjusting it for f, whose effect is infinite.
            assert np.isnan(table.loc["x", "chi2"]) if type_ == 1 else table.loc["x", "p_value"] < 1e-6
        # Likelihood-ratio tests are right: the likelihood of the limit is its supremum.
        without = lme4py.glmer("count ~ x + (1 | g)", DATA, "poisson")
        right = 2.0 * (self.found.log_likelihood - without.log_likelihood)
        assert self.found.drop1().loc["f", "chi2"] == pytest.approx(right, abs=1e-6)
        assert lme4py.lrtest(without, self.found).chi2 == pytest.approx(right, abs=1e-6)

    def test_profile_limits_are_one_sided(self) -> None:
        lower, upper = self.found.conf_int(method="profile", parm="f[T.c]").loc["f[T.c]"]
        assert lower == -np.inf
        held = DATA.assign(o=np.where(ONE, upper, 0.0), ff=np.where(ONE, "a", F))
        other = lme4py.glmer("count ~ x + ff + (1 | g)", held, "poisson", offset="o")
        # Twice the log-likelihood falls by the 0.95 quantile of chi-squared with 1 df where the limit is.
        assert 2.0 * (self.found.log_likelihood - other.log_likelihood) == pytest.approx(3.8415, abs=1e-3)

    def test_predictions_are_limits(self) -> None:
        m = self.found
        assert m.predict(self.new).tolist()[1] == 0.0
        assert m.predict(self.new, type="linear").tolist()[1] == -np.inf
        assert m.predict(self.new, include_random="integrate").tolist()[1] == 0.0
        assert (m.predict(type="linear")[ONE] == -np.inf).all()
        for options in ({}, {"include_random": False}, {"include_random": "integrate"}):
            with pytest.warns(ConvergenceWarning, match="1 of 2 predictions have no interval"):
                table = m.predict(self.new, interval="confidence", **options)
            assert table.loc[0].notna().all()
            assert table.loc[1, ["lower", "upper"]].isna().all()

    def test_predictions_of_categories(self) -> None:
        m = fit(FORMULA.format("rank"), family="ordinal")
        table = m.predict(self.new, include_random=False)
        np.testing.assert_allclose(table.loc[1], [1.0, 0.0, 0.0, 0.0], atol=0)
        assert table.loc[0].sum() == pytest.approx(1.0)
        with pytest.warns(ConvergenceWarning, match="4 of 8 predictions have no interval"):
            limits = m.predict(self.new, include_random=False, interval="confidence")
        assert limits[0].loc[1, ["lower", "upper"]].isna().all()
        assert limits[0].loc[0].notna().all()

    def test_undetermined_predictions_are_missing(self) -> None:
        x = np.where(X > 0, X + 0.3, X - 0.2)
        m = fit("y ~ x + (1 | g)", DATA.assign(x=x, y=(x > 0).astype(float)), "binomial")
        new = pd.DataFrame({"x": [-1.0, 0.0, 1.0], "g": ["1"] * 3})
        with pytest.warns(ConvergenceWarning, match="1 of 3 predictions are not determined"):
            predicted = m.predict(new, include_random=False)
        np.testing.assert_array_equal(predicted, [0.0, np.nan, 1.0])

    def test_bootstrap(self) -> None:
        boot = self.found.bootstrap(20, seed=1)
        assert (boot.replicates["f[T.c]"] == -np.inf).all()
        table = boot.conf_int()
        assert table.loc["f[T.c]"].isna().all()
        assert table.drop("f[T.c]").notna().all(axis=None)
        assert "no interval: f[T.c]" in table.attrs["note"]

    def test_influence(self) -> None:
        one, again = self.found.influence(group="g"), self.found.influence(group="g", method="refit")
        for result in (one, again):
            assert result.dfbeta["f[T.c]"].isna().all()
            assert result.dfbeta.drop(columns="f[T.c]").notna().all(axis=None)
            assert result.cooks_distance.notna().all()
            assert not result.failed

    def test_other_ways_to_the_fit(self) -> None:
        m = self.found
        assert pickle.loads(pickle.dumps(m)).params.equals(m.params)
        slim = m.slim()
        assert slim.params.equals(m.params)
        assert slim.predict(self.new, type="linear").tolist()[1] == -np.inf
        with pytest.warns(ConvergenceWarning, match="separates"):
            again = m.refit(DATA["count"])
        assert again.params["f[T.c]"] == -np.inf
        assert lme4py.glmer("count ~ x + f + (1 | g)", DATA.assign(count=DATA["count"] + 1), "poisson").converged
        finite = m.refit(DATA["over"] + 1)
        assert np.isfinite(finite.params).all()

    def test_simulations_keep_the_zeros(self) -> None:
        assert (self.found.simulate(3, seed=1)[ONE] == 0).all(axis=None)

    def test_plots_and_shares_of_the_variance(self) -> None:
        with pytest.warns(ConvergenceWarning, match="1 of 3 predictions have no interval"):
            table = effect_data(self.found.fit, "f")
        assert table.loc[2, "predicted"] == 0.0
        assert table.loc[2, ["lower", "upper", "std_error"]].isna().all()
        assert table.loc[:1].notna().all(axis=None)
        with pytest.warns(ConvergenceWarning, match="the variance of the fixed effects needs finite estimates"):
            shares = self.found.r_squared()
        assert np.isnan([shares["marginal"], shares["var_fixed"]]).all()
        assert np.isfinite(shares["var_random"])
        assert self.found.plot("profile", variable="f[T.c]") is not None


class TestMargins:
    found, rest = fit(FORMULA.format("count")), lme4py.glmer(FORMULA.format("count"), DATA[~ONE], "poisson")
    at = {"x": [0.5], "f": ["a", "b", "c"]}  # noqa: RUF012

    @pytest.mark.parametrize("scale", ["linear_scale", "log_scale", "link_scale"])
    @pytest.mark.parametrize("random", ["zero", "integrate"])
    def test_cells_are_those_of_the_other_rows_or_limits(self, scale: str, random: str) -> None:
        if scale == "link_scale" and random == "integrate":
            return
        a = getattr(lme4py.Margins, scale)(self.found, random=random).predict(atexog=self.at)
        b = getattr(lme4py.Margins, scale)(self.rest, random=random).predict(atexog={**self.at, "f": ["a", "b"]})
        np.testing.assert_allclose(a.estimate[:2], b.estimate, rtol=1e-5)
        np.testing.assert_allclose(a.std_error[:2], b.std_error, rtol=1e-4)
        assert a.estimate[2] == (-np.inf if scale == "link_scale" else 0.0)
        assert np.isnan([a.std_error[2], a.p_values[2], *a.conf_int().iloc[2]]).all()
        assert any("1 of 3 estimates have no standard error: f[T.c] goes to -inf" in note for note in a.all_notes())

    def test_averages_and_slopes_over_separated_rows(self) -> None:
        session = lme4py.Margins.linear_scale(self.found)
        whole = session.predict()
        means = np.where(ONE, 0.0, self.found.predict(DATA, include_random=False))
        assert whole.estimate[0] == pytest.approx(means.mean(), rel=1e-10)
        assert np.isnan(whole.std_error[0])
        slope = session.dydx("x")
        assert slope.estimate[0] == pytest.approx(means.mean() * self.found.params["x"], rel=1e-8)
        assert np.isnan(slope.std_error[0])
        # The slope of the logarithm does not depend on the level.
        own = lme4py.Margins.log_scale(self.found).dydx("x")
        assert np.log(own.estimate[0]) == pytest.approx(self.found.params["x"], rel=1e-8)
        assert own.std_error[0] > 0.0

    def test_adjustments_and_joint_tests_leave_it_out(self) -> None:
        table = lme4py.Margins.linear_scale(self.found).predict(atexog=self.at)
        some = lme4py.Margins.linear_scale(self.found).predict(atexog={**self.at, "f": ["a", "b"]})
        np.testing.assert_allclose(table.adjust("bonferroni").p_values[:2], some.adjust("bonferroni").p_values)
        assert table.joint_test()["chi2"] == pytest.approx(some.joint_test()["chi2"])

    @pytest.mark.parametrize("method", ["simulation", "bootstrap"])
    def test_draws(self, method: str) -> None:
        session = lme4py.Margins.linear_scale(self.found, method=method, n_sim=50, n_boot=12)
        table = session.predict(atexog=self.at)
        assert table.estimate[2] == 0.0
        assert np.isnan(table.std_error[2])
        assert (table.std_error[:2] > 0.0).all()

    def test_probabilities_of_categories(self) -> None:
        m = fit(FORMULA.format("rank"), family="ordinal")
        table = lme4py.Margins.linear_scale(m).predict(atexog={"f": ["a", "c"]})
        by = table.to_frame().set_index(["category", "f"])
        assert by.loc[(0, "c"), "estimate"] == 1.0
        assert (by.xs("c", level="f")["std_error"].isna()).all()
        assert (by.xs("a", level="f")["std_error"] > 0).all()

    def test_what_has_no_limit_is_missing(self) -> None:
        x = np.where(X > 0, X + 0.3, X - 0.2)
        m = fit("y ~ x + (1 | g)", DATA.assign(x=x, y=(x > 0).astype(float)), "binomial")
        table = lme4py.Margins.linear_scale(m).predict(atexog={"x": [-1.0, 0.0, 1.0]})
        np.testing.assert_allclose(
            table.estimate, [0.0, np.nan, 1.0], atol=1e-15
        )  # the weights of the rows add up to 1
        linear = lme4py.Margins.link_scale(m).predict(atexog={"x": [-1.0, 0.0, 1.0]})
        np.testing.assert_array_equal(linear.estimate, [-np.inf, np.nan, np.inf])


def test_bootstrap_limits_are_infinite_where_replicates_are() -> None:
    # Nine of ten rows with z are successes; in a third of the replicates all ten are.
    rng = np.random.default_rng(1)
    data = pd.DataFrame({"g": np.repeat(np.arange(10), 6).astype(str), "z": np.tile([0, 0, 0, 0, 0, 1], 10)})
    data["y"] = np.where(data["z"] == 1, np.arange(60) // 6 != 3, rng.integers(0, 2, 60)).astype(int)
    boot = lme4py.glmer("y ~ z + (1 | g)", data).bootstrap(40, seed=1)
    infinite = np.isinf(boot.replicates["z"])
    assert 0 < boot.n_not_converged == infinite.sum()
    lower, upper = boot.conf_int(parm="z").loc["z"]
    assert np.isfinite(lower)
    assert upper == np.inf
    assert np.isnan(boot.conf_int(parm="z", type="normal")).all(axis=None)


@pytest.mark.parametrize("pattern", list(itertools.product([0, 1, 2], repeat=3)))
def test_every_pattern_of_three_cells(pattern: tuple[int, ...]) -> None:
    """Cells with 0, some or all successes: exactly those of one kind are infinite."""
    if len(set(pattern)) == 1 and pattern[0] != 1:
        return
    rng = np.random.default_rng(2)
    some = (rng.random(N) < 0.5).astype(float)
    kind = np.array(pattern)[np.arange(N) % 3]
    data = DATA.assign(y=np.select([kind == 0, kind == 2], [0.0, 1.0], some))
    found = fit("y ~ 0 + f + (1 | h)", data, "binomial")
    expected = [{0: -np.inf, 1: 0.0, 2: np.inf}[k] for k in pattern]
    np.testing.assert_array_equal(np.where(np.isinf(found.params), found.params, 0.0), expected)
