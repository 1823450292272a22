"""Simulation, refits and the bootstrap."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from inference_models import MODELS, grouped, lmm
from reference_data import load_reference

import lme4py
from lme4py.chunks import TINY
from lme4py.engine.linear.criterion import Criterion
from lme4py.engine.linear.problem import make_problem
from lme4py.engine.linear.solve import solve
from lme4py.engine.optimise import Control
from lme4py.engine.threads import limited_threads
from lme4py.errors import DataError, Lme4Error, OptionError
from lme4py.fits.groups import default_group, group_codes, is_nested, resampled_design
from lme4py.fits.linear.batches.batch import BatchSolver, can_batch
from lme4py.fits.linear.refit import Responses, random_start
from lme4py.fits.linear.simulate import Simulator
from lme4py.fits.linear.steps import lmm_fit

TWO = "Reaction ~ Days + (Days | Subject)"


def sigma(result):
    """For other processes, which need a function with a name."""
    return result.sigma


# --- refit --------------------------------------------------------------------------------------------------


def test_refit_of_rs_reference():
    model = MODELS["lmm_sleep_refit"]
    block = model["refit"]
    data = load_reference(model["data"])
    again = lmm(model["formula"], model["data"], model["reml"]).refit(data[block["new_response"]])
    # Both optima are exact to 1e-9 of the criterion.
    assert again.log_likelihood == pytest.approx(block["logLik"], abs=1e-7)
    assert again.params.tolist() == pytest.approx(block["fixef"]["values"], rel=1e-6)
    assert again.sigma == pytest.approx(block["sigma"], rel=1e-6)
    assert again.theta == pytest.approx(block["theta"], rel=1e-5)


@pytest.mark.parametrize("formula", ["y ~ x + (x | g) + (1 | h)", "y ~ x + (x || g)", "y ~ z + (1 | h/g)"])
def test_refit_is_a_fit_of_the_new_response(formula):
    data = grouped("plain")
    rng = np.random.default_rng(0)
    options = {"weights": rng.uniform(0.5, 2.0, len(data)), "offset": 1000.0 * rng.normal(size=len(data))}
    new = 1e4 * data["y"] + rng.normal(size=len(data))
    again = lme4py.lmer(formula, data, **options).refit(new)
    fresh = lme4py.lmer(formula, data.assign(y=new), **options)
    # The same optimum from the same cross-products.
    assert again.criterion == pytest.approx(fresh.criterion, abs=1e-8)
    np.testing.assert_allclose(again.params, fresh.params, rtol=1e-7)
    np.testing.assert_allclose(again.fittedvalues, fresh.fittedvalues, rtol=1e-6, atol=1e-3)


def test_refit_checks_the_response(sleep):
    with pytest.raises(OptionError, match=r"shape \(3,\).*180 rows"):
        sleep.refit([1.0, 2.0, 3.0])
    with pytest.raises(DataError, match="1 missing"):
        sleep.refit(np.append(np.arange(179.0), np.nan))
    with pytest.raises(DataError, match="no numbers"):
        sleep.refit(["a"] * 180)


# --- simulation ---------------------------------------------------------------------------------------------


def test_simulate_has_the_moments_of_the_model():
    data = grouped("plain")
    result = lme4py.lmer("y ~ x + (x | g) + (1 | h)", data, weights=np.linspace(0.5, 3, len(data)))
    design = result.fit.design
    Y = result.simulate(4000, seed=1).to_numpy()
    V = np.diag(result.sigma**2 / design.weights)
    for term, cov in zip(design.terms, result.fit.covariances, strict=True):
        V += (term.codes[:, None] == term.codes) * (term.values @ cov @ term.values.T)
    scale = np.sqrt(np.diag(V))
    # Means of 4,000 draws have an error of 0.016 sd, covariances of 0.022 at most; 72 and 5,184 of them are looked at.
    assert np.abs((Y.mean(axis=1) - design.X @ result.fit.beta) / scale).max() < 0.08
    assert np.abs((np.cov(Y) - V) / np.outer(scale, scale)).max() < 0.13


def test_simulate_is_reproducible(sleep):
    one, more = sleep.simulate(1, seed=4), sleep.simulate(3, seed=4)
    assert (one["sim_1"] == more["sim_1"]).all()
    assert (more["sim_1"] != more["sim_2"]).all()
    assert list(more.columns) == ["sim_1", "sim_2", "sim_3"]
    assert not sleep.simulate(1).equals(sleep.simulate(1))
    kept = sleep.simulate(2000, seed=1, include_random=True)
    # The error of a mean of 2,000 draws is 0.57; 180 of them.
    assert np.abs(kept.mean(axis=1) - sleep.fittedvalues).max() < 2.5


def test_semiparametric_draws_have_the_estimated_variances(sleep):
    Y = Simulator(sleep.fit, "semiparametric").draw(np.random.SeedSequence(1).spawn(3000))
    first = Y[:10] - (sleep.fit.design.X @ sleep.fit.beta)[:10, None]
    Z = sleep.fit.design.X[:10]
    V = Z @ sleep.fit.covariances[0] @ Z.T + sleep.sigma**2 * np.eye(10)
    scale = np.sqrt(np.diag(V))
    # Covariances of 3,000 draws: standard error 0.026 and a little more with heavy tails.
    assert np.abs((np.cov(first) - V) / np.outer(scale, scale)).max() < 0.13


# --- batches ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize(
    ("formula", "rows"),
    [
        ("y ~ x + (x | g)", 72),
        ("y ~ x + z + (x || g)", 70),
        ("y ~ 1 + (1 | g)", 72),
        ("y ~ 0 + x + (z | g)", 65),
        ("y ~ x + diag(x + z | g)", 71),
    ],
)
def test_batch_finds_the_optima_of_the_engine(formula, rows, reml):
    result = lme4py.lmer(formula, grouped("no slopes").iloc[:rows], reml=reml)
    fit = result.fit
    assert can_batch(fit)
    with limited_threads(fit.design):
        Y = Simulator(fit).draw(np.random.SeedSequence(2).spawn(25))
        responses = Responses(fit)
        Zy, Xy, yy = responses.products(Y)
        solver = BatchSolver(Criterion(fit.problem, reml))
        found = solver.solve(solver.sums(Zy, Xy, yy), random_start(fit))
        for b in range(25):
            problem = responses.problem([Zy[0][:, b]], Xy[:, b], yy[b])
            alone = solve(Criterion(problem, reml), random_start(fit), Control())
            fresh = make_problem(replace(fit.design, y=Y[:, b]))
            again = solve(Criterion(fresh, reml), None, Control())
            # Criteria of about 100 with optima exact to 1e-10.
            assert again.value == pytest.approx(alone.value, abs=1e-7)
            if found.converged[b]:
                assert found.value[b] == pytest.approx(alone.value, abs=1e-7)
    assert found.converged.mean() > 0.9


@pytest.mark.skipif(TINY, reason="levels whose rows are cut by a chunk differ in their last digits")
def test_balanced_data_have_one_class(sleep, sleepstudy):
    assert BatchSolver(Criterion(sleep.fit.problem, True)).n_classes == 1
    less = lme4py.lmer(TWO, sleepstudy.iloc[:-2])
    assert BatchSolver(Criterion(less.fit.problem, True)).n_classes == 2


# --- bootstrap ----------------------------------------------------------------------------------------------


def test_parametric_bootstrap_of_all_parameters(sleep):
    boot = sleep.bootstrap(2000, seed=1)
    assert list(boot.replicates.columns) == [
        *(
            "Intercept",
            "Days",
            "sd(Intercept | Subject)",
            "sd(Days | Subject)",
            "cor(Intercept, Days | Subject)",
            "sigma",
        )
    ]
    assert boot.n_failed == 0
    summary = boot.summary()
    # The error of a standard deviation of 2,000 replicates is 1.6 %.
    assert summary.loc[["Intercept", "Days"], "std_error"].tolist() == pytest.approx(sleep.bse.tolist(), rel=0.06)
    assert summary["estimate"].iloc[:2].tolist() == sleep.params.tolist()
    assert boot.conf_int().loc["Days"].tolist() == pytest.approx(sleep.conf_int().loc["Days"].tolist(), abs=0.4)


def test_same_numbers_for_every_number_of_processes(sleep):
    one = sleep.bootstrap(30, sigma, seed=3)
    two = sleep.bootstrap(30, sigma, seed=3, n_jobs=2)
    assert one.replicates.equals(two.replicates)
    few, many = sleep.bootstrap(5, seed=3).replicates, sleep.bootstrap(30, seed=3).replicates
    # Products with batches of other sizes are rounded in another order.
    np.testing.assert_allclose(few, many.iloc[:5], rtol=1e-10)
    # The batch solver and single fits stop within 1e-12 of the same minimum.
    fast = sleep.bootstrap(30, seed=3).replicates["sigma"]
    np.testing.assert_allclose(fast, one.replicates["sigma"], rtol=1e-6)


def test_models_without_a_batch_solver():
    result = lmm("diameter ~ 1 + (1 | plate) + (1 | sample)", "Penicillin", True)
    boot = result.bootstrap(30, seed=1)
    alone = result.bootstrap(30, lambda r: {"plate": np.sqrt(r.variance_components["var(_cons|plate)"])}, seed=1)
    # Two runs of the same optimiser.
    np.testing.assert_allclose(boot.replicates["sd(Intercept | plate)"], alone.replicates["plate"], rtol=1e-6)


@pytest.mark.parametrize("kind", ["semiparametric", "cases"])
def test_other_kinds_have_sensible_errors(sleep, kind):
    summary = sleep.bootstrap(300, seed=1, type=kind).summary()
    # The error of a standard deviation of 300 replicates is 4 %; 18 subjects differ by more between the methods.
    assert summary.loc["Days", "std_error"] == pytest.approx(sleep.bse["Days"], rel=0.2)
    assert (summary["n_used"] == 300).all()


def test_cases_get_fresh_levels():
    design = lmm("strength ~ 1 + (1 | batch/cask)", "Pastes", True).fit.design
    assert default_group(design, None, required=True) == "batch"
    codes = group_codes(design, "batch")
    drawn = resampled_design(design, codes, np.random.default_rng(1))
    assert drawn.n_groups == {"cask:batch": 30, "batch": 10}
    inner, outer = (term.codes for term in drawn.terms)
    assert is_nested(inner, outer)
    assert len(np.unique(drawn.y)) < len(np.unique(design.y))
    assert lmm_fit(drawn).certificate.converged
    crossed = lmm("diameter ~ 1 + (1 | plate) + (1 | sample)", "Penicillin", True)
    with pytest.raises(OptionError, match="crossed"):
        crossed.bootstrap(10, type="cases")
    assert crossed.bootstrap(5, seed=1, type="cases", group="plate").n_failed == 0


def test_failures_are_counted():
    data = grouped("plain").assign(rare=lambda d: np.where(d["g"].isin(["3", "7"]), 1.0, 0.0))
    result = lme4py.lmer("y ~ rare + (1 | g)", data)
    boot = result.bootstrap(60, seed=1, type="cases")
    assert 0 < boot.n_failed < 30
    assert "do not identify" in boot.failures[0][1]
    assert boot.replicates.isna().all(axis=1).sum() == boot.n_failed
    assert boot.conf_int().notna().all(axis=None)
    assert f"{boot.n_failed} failed" in repr(boot)

    def sometimes(fitted):
        if fitted.sigma > 1.001 * result.sigma:
            raise RuntimeError("too large")
        return fitted.sigma

    part = result.bootstrap(20, sometimes, seed=1)
    assert 0 < part.n_failed < 20
    assert part.replicates["sometimes"].max() <= 1.001 * result.sigma

    def never(fitted):
        if fitted is not result and fitted.criterion != result.criterion:
            raise RuntimeError("no")
        return 1.0

    with pytest.raises(Lme4Error, match="all 5 replicates failed; the first one: RuntimeError: no"):
        result.bootstrap(5, never, seed=1)


def test_intervals(sleep):
    boot = sleep.bootstrap(1000, seed=1)
    tables = {kind: boot.conf_int(type=kind) for kind in ("percentile", "basic", "bca", "normal")}
    values, estimate = np.sort(boot.replicates["sd(Days | Subject)"]), boot.estimates["sd(Days | Subject)"]
    lower, upper = tables["percentile"].loc["sd(Days | Subject)"]
    # Quantiles at (n + 1) p, between the order statistics 25 and 26, 975 and 976.
    assert values[24] <= lower <= values[25]
    assert values[974] <= upper <= values[975]
    assert tables["basic"].loc["sd(Days | Subject)"].tolist() == pytest.approx(
        [2 * estimate - upper, 2 * estimate - lower]
    )
    for table in tables.values():
        assert (table["lower"] < table["upper"]).all()
    # The replicates of a standard deviation are biased downwards, which BCa corrects.
    assert tables["bca"].loc["sd(Days | Subject)", "upper"] > upper
    assert pickle.loads(pickle.dumps(boot)).conf_int().equals(tables["percentile"])
    table = sleep.conf_int(method="boot", parm="Days", n_boot=1000, seed=1)
    assert table.loc["Days"].tolist() == tables["percentile"].loc["Days"].tolist()


def test_bootstrap_limits_do_not_depend_on_the_number_of_processes(sleep):
    one = sleep.conf_int(method="boot", parm="all", n_boot=40, seed=3)
    for jobs in (2, -1):
        pd.testing.assert_frame_equal(sleep.conf_int(method="boot", parm="all", n_boot=40, seed=3, n_jobs=jobs), one)
    with pytest.raises(OptionError, match="`n_jobs` is 0"):
        sleep.conf_int(method="boot", n_boot=5, n_jobs=0)


@pytest.mark.parametrize("option", [{"n_boot": 50}, {"seed": 1}, {"type": "bca"}, {"n_jobs": 2}])
@pytest.mark.parametrize("method", ["wald", "profile"])
def test_options_of_the_bootstrap_are_refused_by_other_intervals(sleep, option, method):
    with pytest.raises(OptionError, match=f"`{next(iter(option))}` belong to method='boot', not '{method}'"):
        sleep.conf_int(method=method, **option)


def test_statistics_may_be_anything(sleep):
    assert list(sleep.bootstrap(3, lambda r: r.params, seed=1).estimates.index) == ["Intercept", "Days"]
    array = sleep.bootstrap(3, lambda r: np.array([r.sigma, r.aic]), seed=1)
    assert list(array.replicates.columns) == ["statistic_1", "statistic_2"]
    assert isinstance(array.summary(), pd.DataFrame)


def test_progress_is_shown_on_request(sleep, capsys):
    sleep.bootstrap(5, seed=1)
    assert capsys.readouterr().err == ""
    sleep.bootstrap(5, seed=1, progress=True)
    assert "bootstrap" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 0}, "`n` is 0"),
        ({"seed": -1}, "seed"),
        ({"type": "case"}, "Did you mean 'cases'"),
        ({"n_jobs": 0}, "n_jobs"),
        ({"func": 3}, "func"),
        ({"type": "cases", "group": "subject"}, "Did you mean 'Subject'"),
        ({"progress": "yes"}, "progress"),
    ],
)
def test_refuses(sleep, options, message):
    with pytest.raises(OptionError, match=message):
        sleep.bootstrap(**{"n": 3, **options})


def test_interval_refuses(sleep):
    boot = sleep.bootstrap(3, seed=1)
    with pytest.raises(OptionError, match="Did you mean 'bca'"):
        boot.conf_int(type="BCa")
    with pytest.raises(OptionError, match="Did you mean 'Days'"):
        boot.conf_int(parm="days")
