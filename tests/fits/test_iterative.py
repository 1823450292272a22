"""Fits whose crossed effects are solved iteratively: beside exact ones, and what they refuse."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest

import lme4py
from lme4py import progress
from lme4py.engine.factor import crossed_factor, crossed_inverse, forecast, symbolic
from lme4py.engine.linear import stochastic_solve
from lme4py.engine.linear.stochastic import StochasticCriterion
from lme4py.errors import DesignError, Lme4Error, OptionError
from lme4py.linalg import tiles

ITERATIVE = {"block": "iterative"}
SCALAR = "y ~ x + (1 | a) + (1 | b)"
SLOPE = "y ~ x + (x | a) + (1 | b)"


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    rng = np.random.default_rng(11)
    a, b, x = rng.integers(0, 120, 2500), rng.integers(0, 90, 2500), rng.standard_normal(2500)
    y = 0.5 * x + 0.6 * rng.standard_normal(120)[a] + 0.4 * rng.standard_normal(120)[a] * x
    y = y + 0.8 * rng.standard_normal(90)[b] + rng.standard_normal(2500)
    return pd.DataFrame({"y": y, "x": x, "a": a, "b": b})


@pytest.fixture(scope="module")
def fits(data):
    return {
        (formula, reml): (
            lme4py.lmer(formula, data, reml=reml),
            lme4py.lmer(formula, data, reml=reml, control=ITERATIVE),
        )
        for formula, reml in [(SCALAR, True), (SCALAR, False), (SLOPE, True)]
    }


@pytest.mark.parametrize("key", [(SCALAR, True), (SCALAR, False), (SLOPE, True)])
def test_estimates_are_those_of_the_exact_factor(fits, key):
    exact, found = fits[key]
    error = found.certificate.monte_carlo
    assert found.converged
    assert abs(found.criterion - exact.criterion) < 4.0 * error.criterion_se + 1e-6
    # The criterion at these estimates without the probes' error: what is lost is the square of the error of theta.
    assert exact.criterion <= found.exact_criterion() + 1e-7
    assert found.exact_criterion() == pytest.approx(exact.criterion, abs=1e-5)
    own = np.sqrt(np.diag(exact.fit.curvature.hessian) / 2.0)
    # In units of about a standard error.
    inside = (found.fit.theta_inside - exact.fit.theta_inside) * own
    assert np.abs(inside).max() < max(4.0 * error.theta_part, 1e-3)
    np.testing.assert_allclose(found.params, exact.params, rtol=1e-5)
    np.testing.assert_allclose(found.bse, exact.bse, rtol=1e-4)
    assert found.sigma == pytest.approx(exact.sigma, rel=1e-5)
    for one, other in zip(found.fit.modes, exact.fit.modes, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-4)
    # Average and observed information differ by the sampling of one data set.
    np.testing.assert_allclose(
        found.variance_table()["std_error"].to_numpy(dtype=float),
        exact.variance_table()["std_error"].to_numpy(dtype=float),
        rtol=0.1,
    )


def test_the_summary_says_how_and_how_well(fits):
    _, found = fits[SCALAR, True]
    text = " ".join(str(found.summary()).split())
    assert "Crossed effects were solved iteratively" in text
    assert "the criterion is known with a standard error of" in text
    assert "random probes (seed 0)" in text
    assert found.default_ddf == "normal"


def test_a_seed_gives_the_same_numbers(data):
    once, again, other = (
        lme4py.lmer(SCALAR, data, control={**ITERATIVE, "seed": seed}).criterion for seed in (3, 3, 4)
    )
    assert once == again
    # 90 levels and 32 directions: something is left to the probes.
    assert once != other


def test_a_smaller_error_on_request(data):
    found = lme4py.lmer(SCALAR, data, control={**ITERATIVE, "criterion_se": 1e-6})
    assert found.certificate.monte_carlo.criterion_se <= 1e-6
    # There are 90 directions at most: the value is exact.
    assert found.certificate.monte_carlo.directions == 90
    assert found.criterion == pytest.approx(found.exact_criterion(), abs=1e-6)


@pytest.mark.parametrize(
    "call",
    [
        lambda m: m.profile(),
        lambda m: m.coef_table(ddf="kenward-roger"),
        lambda m: m.coef_table(ddf="satterthwaite"),
        lambda m: m.bootstrap(10, seed=1),
        lambda m: m.influence(),
        lambda m: m.predict(interval="confidence", ddf="satterthwaite"),
        lambda m: m.hatvalues(),
        lambda m: m.refit(m.fit.design.y),
        lambda m: m.fit.point,
        lambda m: m.conf_int(method="profile"),
        lambda m: m.all_fit(),
    ],
)
def test_what_needs_a_factor_is_refused_by_name(fits, call):
    with pytest.raises(Lme4Error, match="were solved iteratively"):
        call(fits[SCALAR, True][1])


@pytest.mark.parametrize("call", [lambda m: m.bootstrap(10, seed=1), lambda m: m.conf_int(method="boot")])
def test_a_bootstrap_is_refused_before_its_first_replicate(fits, call):
    with pytest.raises(OptionError, match=r"^a bootstrap is not there for models whose crossed effects"):
        call(fits[SCALAR, True][1])


def test_what_needs_no_factor_works(fits, data):
    exact, found = fits[SCALAR, True]
    np.testing.assert_allclose(found.predict(), exact.predict(), atol=2e-4)
    new = data.head(5)
    np.testing.assert_allclose(found.predict(new), exact.predict(new), atol=2e-4)
    wanted = exact.coef_table(ddf="normal")["p_value"]
    np.testing.assert_allclose(found.coef_table()["p_value"], wanted, rtol=1e-2)
    assert found.simulate(2, seed=1).shape == (2500, 2)
    again = pickle.loads(pickle.dumps(found))
    assert again.criterion == found.criterion
    assert str(again.summary()) == str(found.summary())
    assert found.slim().criterion == found.criterion
    pd.testing.assert_frame_equal(found.slim().coef_table(), found.coef_table())


def test_likelihood_ratios_carry_the_error(data, fits):
    small = lme4py.lmer("y ~ 1 + (1 | a) + (1 | b)", data, reml=False, control=ITERATIVE)
    exact_small = lme4py.lmer("y ~ 1 + (1 | a) + (1 | b)", data, reml=False)
    exact, found = fits[SCALAR, False]
    test, wanted = lme4py.lrtest(small, found), lme4py.lrtest(exact_small, exact)
    error = np.hypot(small.certificate.monte_carlo.criterion_se, found.certificate.monte_carlo.criterion_se)
    assert abs(test.chi2 - wanted.chi2) < 4.0 * error + 1e-5
    assert "Monte-Carlo standard error of chi2" in test.note
    assert "Monte-Carlo" not in wanted.note


def test_an_exact_criterion_on_request(data, fits, monkeypatch):
    monkeypatch.setattr(crossed_factor, "_DOUBLE", 8_000)
    exact, _ = fits[SCALAR, True]
    found = lme4py.lmer(SCALAR, data, control={**ITERATIVE, "exact": True})
    error = found.certificate.monte_carlo
    # The tiles are in double precision.
    assert error.by_factor
    assert error.criterion_se < 1e-10
    assert 0.0 <= found.criterion - exact.criterion + 1e-9 < 1e-5
    text = " ".join(str(found.summary()).split())
    assert "The criterion at the estimates is that of an exact factor" in text
    small = lme4py.lmer("y ~ 1 + (1 | a) + (1 | b)", data, reml=False, control={**ITERATIVE, "exact": True})
    large = lme4py.lmer(SCALAR, data, reml=False, control={**ITERATIVE, "exact": True})
    exact_small = lme4py.lmer("y ~ 1 + (1 | a) + (1 | b)", data, reml=False)
    # Nothing is left of the probes' error but that of theta, squared.
    wanted = lme4py.lrtest(exact_small, fits[SCALAR, False][0]).chi2
    assert lme4py.lrtest(small, large).chi2 == pytest.approx(wanted, abs=1e-5)


def test_an_exact_criterion_in_single_precision(data, fits, monkeypatch):
    monkeypatch.setattr(crossed_factor, "_DOUBLE", 0)
    found = lme4py.lmer(SLOPE, data, control={**ITERATIVE, "exact": True})
    error = found.certificate.monte_carlo.criterion_se
    assert 1e-12 < error < 1e-6
    assert found.criterion == pytest.approx(fits[SLOPE, True][0].criterion, abs=1e-5)
    assert lme4py.lmer(SLOPE, data, control={"exact": True}).criterion == fits[SLOPE, True][0].criterion
    with pytest.raises(OptionError, match=r"control\['exact'\] must be True or False"):
        lme4py.lmer(SLOPE, data, control={**ITERATIVE, "exact": "yes"})


def test_an_exact_criterion_that_is_not_reached_is_said(data, monkeypatch):
    for error, text in [
        (KeyboardInterrupt(), "was interrupted: the criterion is the probes'"),
        (np.linalg.LinAlgError("not positive definite"), "failed .not positive definite.: the criterion is the"),
    ]:

        def failing(self, at, error=error):
            raise error

        monkeypatch.setattr(crossed_factor.CrossedFactor, "__init__", failing)
        with pytest.warns(lme4py.Lme4Warning, match=text):
            found = lme4py.lmer(SCALAR, data, control={**ITERATIVE, "exact": True})
        assert found.converged
        assert not found.certificate.monte_carlo.by_factor
    # Afterwards the ordinary factor does it.
    assert found.exact_criterion() == pytest.approx(lme4py.lmer(SCALAR, data).criterion, abs=1e-5)
    with pytest.raises(DesignError, match="leave exact=True out"):
        found.ranef(conditional_se=True, exact=True)
    # Some ten megabytes are tiles and what they are made of.
    monkeypatch.setattr(forecast, "exceeds_memory", lambda need: need > 1e7)
    monkeypatch.setattr(tiles, "_TILE", 1024)
    with pytest.raises(DesignError, match=r"in tiles .* needs memory"):
        lme4py.lmer(SCALAR, data, control={**ITERATIVE, "exact": True})


@pytest.mark.parametrize("key", [(SCALAR, True), (SLOPE, True)])
@pytest.mark.parametrize("include_fixed", [False, True])
def test_conditional_standard_deviations(fits, key, include_fixed):
    exact, found = fits[key]
    wanted = exact.ranef(conditional_se=True, include_fixed=include_fixed)[1]
    for by_factor in (False, True):
        sds = found.ranef(conditional_se=True, include_fixed=include_fixed, exact=by_factor)[1]
        for name, frame in sds.items():
            # theta differs by parts in 1e5; 64 of the 90 directions are exact, which leaves 3e-5 to the probes.
            np.testing.assert_allclose(frame, wanted[name], rtol=2e-4)
            assert ("exact factor" if by_factor else "random probes") in frame.attrs["note"]
    assert "note" not in wanted["a"].attrs


@pytest.mark.filterwarnings("ignore:groups that are missing")
@pytest.mark.parametrize("key", [(SCALAR, True), (SLOPE, True)])
def test_intervals_of_predictions(fits, data, key):
    exact, found = fits[key]
    new = data.head(6).reset_index(drop=True).assign(x=[-3.0, 0.0, 1.0, 2.0, 5.0, 1.0])
    new.loc[1, "a"] = 999
    for options in (
        {"interval": "confidence"},
        {"interval": "prediction"},
        {"interval": "confidence", "include_random": ["b"]},
        {"se": True},
    ):
        wanted = exact.predict(new, ddf="normal", **options)
        # theta differs by parts in 1e5.
        np.testing.assert_allclose(found.predict(new, **options), wanted, atol=3e-4)
    np.testing.assert_allclose(
        found.predict(interval="confidence"), exact.predict(interval="confidence", ddf="normal"), atol=3e-4
    )


def test_long_work_on_intervals_is_announced(fits, monkeypatch, capsys):
    monkeypatch.setattr(progress, "_LONG", 0.0)
    fits[SCALAR, True][1].predict(interval="confidence")
    assert "lme4py: errors of predictions: about" in capsys.readouterr().err


def test_reliabilities_and_covariances_of_modes(fits):
    exact, found = fits[SLOPE, True]
    for name, frame in found.ranef(reliability=True)[1].items():
        # As above.
        np.testing.assert_allclose(frame, exact.ranef(reliability=True)[1][name], atol=1e-3)
        assert "random probes" in frame.attrs["note"]
    for name, frame in found.ranef(standardised=True, exact=True).items():
        np.testing.assert_allclose(frame, exact.ranef(standardised=True)[name], atol=1e-2)
    for name, blocks in found.ranef_cov().items():
        np.testing.assert_allclose(blocks, exact.ranef_cov()[name], atol=1e-4)


def test_rough_standard_deviations_are_said(fits, monkeypatch):
    monkeypatch.setattr(crossed_inverse, "_DIRECTIONS", 1)
    monkeypatch.setattr(crossed_inverse, "_WANTED", 1e-6)
    monkeypatch.setattr(crossed_inverse, "_MOST", 40)
    with pytest.warns(lme4py.Lme4Warning, match="means over 40 random probes .* exact=True makes"):
        fits[SCALAR, True][1].ranef(conditional_se=True)


def test_streamed_rows(data, tmp_path, fits):
    path = tmp_path / "rows.parquet"
    data.to_parquet(path)
    found = lme4py.lmer(SCALAR, str(path), control=ITERATIVE)
    # Columns are scaled by other sums of the same rows.
    assert found.criterion == pytest.approx(fits[SCALAR, True][1].criterion, abs=1e-3)
    np.testing.assert_allclose(found.params, fits[SCALAR, True][0].params, rtol=1e-5)


def test_bad_settings_are_refused(data):
    for control, text in [
        ({"block": "fast"}, r"control\['block'\] must be one of auto, exact, iterative"),
        ({"block": "iterative", "seed": -1}, "whole number"),
        ({"block": "iterative", "criterion_se": 0.0}, "positive number"),
    ]:
        with pytest.raises(OptionError, match=text):
            lme4py.lmer(SCALAR, data, control=control)
    with pytest.raises(OptionError, match="two and more grouping factors"):
        lme4py.lmer("y ~ x + (1 | a)", data, control=ITERATIVE)
    criterion = lme4py.lmm_criterion(lme4py.lformula(SCALAR, data))
    with pytest.raises(OptionError, match="exact factor"):
        lme4py.optimize_criterion(criterion, control=ITERATIVE)


def test_a_variance_at_zero_is_no_silent_estimate(monkeypatch):
    rng = np.random.default_rng(2)
    a, b = rng.integers(0, 50, 1000), rng.integers(0, 40, 1000)
    y = rng.standard_normal(50)[a] + rng.standard_normal(1000)
    frame = pd.DataFrame({"y": y - pd.Series(y).groupby(b).transform("mean"), "a": a, "b": b})
    formula = "y ~ 1 + (1 | a) + (1 | b)"
    with pytest.raises(DesignError, match="at or near zero"):
        lme4py.lmer(formula, frame, control=ITERATIVE)
    exact = lme4py.lmer(formula, frame)
    assert exact.is_singular
    # Chosen by forecast alone, the iterative way gives place to the factor, which proves what is singular.
    monkeypatch.setattr(symbolic, "exceeds_memory", lambda need: need > 1000.0)
    found = lme4py.lmer(formula, frame)
    assert found.is_singular
    assert found.criterion == exact.criterion


def test_the_choice_is_by_forecast_and_said(data, monkeypatch):
    chosen = lme4py.lmer(SCALAR, data)
    assert chosen.certificate.monte_carlo is None
    monkeypatch.setattr(symbolic, "exceeds_memory", lambda need: need > 1000.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        forced = lme4py.lmer(SCALAR, data)
    assert forced.certificate.monte_carlo is not None
    assert "solved iteratively" in str(forced.summary()).replace("\n", " ")


def test_an_error_that_is_larger_than_wanted_is_said(data, monkeypatch):
    monkeypatch.setattr(stochastic_solve, "_MOST_DIRECTIONS", 16)
    monkeypatch.setattr(stochastic_solve, "_MOST_PROBES", 16)
    with pytest.warns(lme4py.Lme4Warning, match=r"1e-09 was wanted"):
        found = lme4py.lmer(SCALAR, data, control={**ITERATIVE, "criterion_se": 1e-9})
    assert found.converged
    assert found.certificate.caution


def test_steps_that_teach_a_wrong_curvature_are_not_believed():
    # A secant between the points of few probes made the Hessian of this chain indefinite, and the search stopped.
    rng = np.random.default_rng([7, 7])
    a = rng.integers(0, 900, 12000)
    b = np.clip(np.rint(a / 900 * 400 + rng.normal(0, 4, a.size)), 0, 399).astype(int)
    x = rng.standard_normal(a.size)
    y = 0.5 * x + 0.6 * rng.standard_normal(900)[a] + 0.8 * rng.standard_normal(b.max() + 1)[b]
    frame = pd.DataFrame({"y": y + rng.standard_normal(a.size), "x": x, "a": a, "b": b})
    found = lme4py.lmer(SCALAR, frame, control={**ITERATIVE, "seed": 7})
    assert found.converged
    assert np.linalg.eigvalsh(found.fit.curvature.hessian)[0] > 0.0
    assert found.certificate.monte_carlo.theta_part < 0.02


def test_a_poor_start_by_moments_is_replaced():
    # Few large hubs: moments say that both standard deviations are beyond 10.
    rng = np.random.default_rng([14, 7])
    a, b = (900 * rng.random(12000) ** 2).astype(int), (400 * rng.random(12000) ** 3.2).astype(int)
    x = rng.standard_normal(a.size)
    y = 0.5 * x + 0.6 * rng.standard_normal(900)[a] + 0.8 * rng.standard_normal(400)[b] + rng.standard_normal(a.size)
    found = lme4py.lmer(SCALAR, pd.DataFrame({"y": y, "x": x, "a": a, "b": b}), control=ITERATIVE)
    assert found.converged
    assert len(found.opt_log) < 10


def test_a_fit_of_many_seconds_is_left_to_the_iterative_block(data, monkeypatch):
    monkeypatch.setattr(symbolic, "_PATIENCE", 0.0)
    # The iterative fit is forecast to take next to nothing too.
    monkeypatch.setattr(symbolic, "_PER_PAIR", 0.0)
    assert lme4py.lmer(SCALAR, data).certificate.monte_carlo is not None
    monkeypatch.setattr(symbolic, "_PER_PAIR", 1.0)
    assert lme4py.lmer(SCALAR, data).certificate.monte_carlo is None


def test_the_search_for_an_order_ends_where_it_is_not_worth_it(data, monkeypatch):
    # Closed clusters of levels: a sparse factor, which an order has to be found for.
    rng = np.random.default_rng(0)
    a = rng.integers(0, 600, 4000)
    b = a % 60 + 60 * rng.integers(0, 6, a.size)
    frame = data.sample(4000, replace=True, random_state=1).assign(a=a, b=b)
    frame["y"] = rng.standard_normal(600)[a] + rng.standard_normal(360)[b] + rng.standard_normal(4000)
    monkeypatch.setattr(symbolic, "_PATIENCE", 1e-4)
    monkeypatch.setattr(symbolic, "_PER_PAIR", 0.0)
    problem = lme4py.lmer(SCALAR, frame).fit.problem
    assert problem.is_iterative
    monkeypatch.setattr(symbolic, "_PATIENCE", 5.0)
    assert not lme4py.lmer(SCALAR, frame).fit.problem.is_iterative


def test_an_interrupted_search_is_the_state_that_was_reached(data, monkeypatch):
    evaluate, calls = StochasticCriterion.evaluate, []

    def interrupted(self, *given):
        calls.append(given)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return evaluate(self, *given)

    monkeypatch.setattr(StochasticCriterion, "evaluate", interrupted)
    with pytest.warns(lme4py.errors.ConvergenceWarning, match="interrupted after 2 evaluations"):
        found = lme4py.lmer(SCALAR, data, control=ITERATIVE)
    assert not found.converged
    assert len(found.opt_log) == 2
    assert np.isfinite(found.params).all()


def test_long_work_is_announced_unless_progress_is_off(data, monkeypatch, capsys):
    monkeypatch.setattr(progress, "_LONG", 0.0)
    for control, text in [(ITERATIVE, "crossed random effects without a factor"), ({"block": "exact"}, "exact factor")]:
        lme4py.lmer(SCALAR, data, control=control)
        assert text in capsys.readouterr().err
        lme4py.lmer(SCALAR, data, control=control, progress=False)
        assert capsys.readouterr().err == ""
    monkeypatch.undo()
    lme4py.lmer(SCALAR, data, control=ITERATIVE)
    assert capsys.readouterr().err == ""


def test_a_long_step_through_zero_is_no_variance_at_zero(data):
    # Effects a thousand times the residuals: steps towards them bring the other factor near zero on the way.
    rng = np.random.default_rng(5)
    frame = data.assign(y=data["y"] + 1e3 * rng.standard_normal(90)[data["b"]])
    found = lme4py.lmer(SCALAR, frame, control=ITERATIVE)
    exact = lme4py.lmer(SCALAR, frame, control={"block": "exact"})
    assert found.converged
    assert found.exact_criterion() == pytest.approx(exact.criterion, abs=1e-3)
