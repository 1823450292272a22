"""Power by simulation: against the exact power of balanced designs, refits one by one, and a published example."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lme4py import (
    extend,
    glmer,
    lmer,
    load_dataset,
    lrtest,
    make_model,
    minimum_effect,
    mixed,
    power,
    power_curve,
    sample_size,
)
from lme4py.errors import Lme4Error, Lme4Warning, OptionError
from lme4py.inference.power.run import exact_interval
from lme4py.inference.uncertainty.df import method

GROUPS, EACH = 16, 4
ROWS = pd.DataFrame({"g": np.repeat(np.arange(GROUPS), EACH), "x": np.repeat(np.arange(GROUPS) % 2, EACH)})
SD, SIGMA = 1.0, 1.0


def between(effect: float):
    """A balanced design with a treatment of whole groups."""
    return make_model(
        "y ~ x + (1 | g)", ROWS, {"beta": {"Intercept": 0.0, "x": effect}, "sd": {"g": SD}, "sigma": SIGMA}
    )


def exact_power(effect: float, groups: int = GROUPS) -> float:
    """Of the t test of the group means: what the t test of a balanced design is."""
    error = np.sqrt((SD**2 + SIGMA**2 / EACH) * 4.0 / groups)
    df, cut = groups - 2, stats.t.ppf(0.975, groups - 2)
    return stats.nct.sf(cut, df, effect / error) + stats.nct.cdf(-cut, df, effect / error)


@pytest.fixture(scope="module")
def sleep():
    return lmer("Reaction ~ Days + (Days | Subject)", load_dataset("sleepstudy"))


def test_power_and_size_of_a_balanced_design_are_exact():
    for effect in (0.0, 1.2):
        found = power(between(effect), "x", n_sim=4000, seed=5)
        wanted = exact_power(effect)
        # Four Monte-Carlo standard errors; where the variance is estimated as zero the test is another one, but at
        # these parameters in 2 of 4,000 simulations.
        assert abs(found.power - wanted) < 4 * np.sqrt(wanted * (1 - wanted) / 4000)
        assert found.lower < wanted < found.upper


def test_the_published_example_of_simr():
    # Green & MacLeod (2016): estimates of their example data, the slope set to -0.05; power 33.40 % (30.48, 36.41) of
    # 1,000 simulations, and 96.60 % (95.28, 97.63) with twenty values of x.
    data = pd.DataFrame([(x, g) for g in "abc" for x in range(1, 11)], columns=["x", "g"])
    params = {"beta": {"Intercept": 1.54079, "x": -0.05}, "sd": {"g": np.sqrt(0.08345)}}
    model = make_model("z ~ x + (1 | g)", data, params, "poisson")
    assert 0.3048 < power(model, "x", n_sim=1000, seed=123).power < 0.3641
    assert 0.9528 < power(extend(model, along="x", n=20), "x", n_sim=1000, seed=1).power < 0.9763


def test_every_simulation_is_the_test_of_a_refit(sleep):
    found = power(sleep, "Days", n_sim=6, seed=2, params={"Days": 4.0}).replicates
    drawn = sleep.simulate(6, seed=2, params={"beta": {"Days": 4.0}})
    for i in range(6):
        row = sleep.refit(drawn.iloc[:, i]).coef_table().loc["Days"]
        # Two searches that stop within 1e-12 of one minimum, and differences of gradients.
        np.testing.assert_allclose(found.loc[i, ["p_value", "std_error"]], row[["p_value", "std_error"]], rtol=1e-4)
    whole = power(sleep, ["Intercept - 250 = 0", "Days - 10 = 0"], n_sim=4, seed=2).replicates["p_value"]
    for i, (_, y) in enumerate(sleep.simulate(4, seed=2).items()):
        again = sleep.refit(y).fit
        test = method(again, "satterthwaite").f_test(np.eye(2), again.beta - [250.0, 10.0])
        assert whole[i] == pytest.approx(test.p_value, rel=1e-4)  # as above
    bound = power(sleep, "Days", n_sim=6, seed=2, params={"Days": 4.0}, ddf="kenward-roger").replicates
    row = sleep.refit(drawn.iloc[:, 0]).coef_table(ddf="kenward-roger").loc["Days"]
    np.testing.assert_allclose(bound.loc[0, "p_value"], row["p_value"], rtol=1e-5)  # two searches


def test_likelihood_ratios_have_their_mixtures(sleep):
    drawn = sleep.simulate(5, seed=2, params={"sd": {"Subject": {"Days": 1.0}}, "corr": {"Subject": 0.0}})
    weak = {"sd": {"Subject": {"Days": 1.0}}, "corr": {"Subject": 0.0}}
    found = power(sleep, "Reaction ~ Days + (1 | Subject)", n_sim=5, seed=2, params=weak).replicates["p_value"]
    small = lmer("Reaction ~ Days + (1 | Subject)", load_dataset("sleepstudy"))
    for i in range(5):
        y = drawn.iloc[:, i]
        wanted = lrtest(small.refit(y), sleep.refit(y))
        # Weights of the mixture are those of the design at one response; they depend on the estimates a little.
        assert found[i] == pytest.approx(wanted.p_value, rel=0.05)
    fixed = power(sleep, "~ . - Days", n_sim=3, seed=2, params={"Days": 4.0}).replicates["p_value"]
    drawn = sleep.simulate(3, seed=2, params={"beta": {"Days": 4.0}})
    full = lmer("Reaction ~ Days + (Days | Subject)", load_dataset("sleepstudy"), reml=False)
    null = full.update("~ . - Days")
    for i in range(3):
        wanted = lrtest(null.refit(drawn.iloc[:, i]), full.refit(drawn.iloc[:, i])).p_value
        assert found.notna().all()
        assert fixed[i] == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize(
    ("formula", "data", "test"),
    [
        ("cbind(incidence, size - incidence) ~ period + (1 | herd)", "cbpp", "period[T.2]"),
        ("diameter ~ 1 + (1 | plate) + (1 | sample)", "Penicillin", "Intercept"),
    ],
)
def test_other_models_against_refits(formula, data, test):
    fit = (glmer if "cbind" in formula else lmer)(formula, load_dataset(data))
    found = power(fit, test, n_sim=5, seed=4).replicates
    for i, (_, y) in enumerate(fit.simulate(5, seed=4).items()):
        row = fit.refit(y).coef_table().loc[test]
        # Batches of generalised models stop within 1e-9 of a minimum: an estimate within 3e-5 standard errors.
        np.testing.assert_allclose(found.loc[i, ["estimate", "std_error"]], row[["estimate", "std_error"]], rtol=1e-3)


def test_simulations_depend_on_seed_and_number_only(sleep, tmp_path):
    one = power(sleep, "Days", n_sim=600, seed=3, params={"Days": 3.0})
    two = power(sleep, "Days", n_sim=600, seed=3, params={"Days": 3.0}, n_jobs=2)
    assert one == two
    assert one.replicates.equals(two.replicates)
    file = tmp_path / "power.npz"
    first = power(sleep, "Days", n_sim=250, seed=3, params={"Days": 3.0}, save=file)
    assert first.n_sim == 250
    again = power(sleep, "Days", n_sim=600, seed=3, params={"Days": 3.0}, save=file)
    assert again.replicates.equals(one.replicates)
    assert power(sleep, "Days", n_sim=250, seed=3, params={"Days": 3.0}, save=file).replicates.equals(first.replicates)
    with pytest.raises(OptionError, match="another model"):
        power(sleep, "Days", n_sim=250, seed=4, params={"Days": 3.0}, save=file)
    early = power(sleep, "Days", n_sim=5000, seed=3, params={"Days": 3.0}, precision=0.05)
    assert early.n_sim < 5000
    assert 0.5 * (early.upper - early.lower) <= 0.05


def test_errors_of_sign_and_magnitude_and_one_sided_tests(sleep):
    weak = power(sleep, "Days", n_sim=500, seed=1, params={"Days": 1.0})
    table = weak.replicates
    hits = table[table["p_value"] < 0.05]
    assert weak.type_s == (hits["estimate"] < 0).mean()
    assert weak.type_m == pytest.approx(hits["estimate"].abs().mean() / 1.0)
    above = power(sleep, "Days", n_sim=500, seed=1, params={"Days": 1.0}, alternative="greater").replicates["p_value"]
    positive = table["estimate"] > 0
    np.testing.assert_allclose(above[positive], table["p_value"][positive] / 2)
    assert "Power of Days" in str(weak)


def test_functions_and_failures(sleep):
    def fails_for_some(result):
        if result.sigma > 25.5:
            raise ValueError("no")
        return 0.01

    found = power(sleep, fails_for_some, n_sim=12, seed=1)
    assert 0 < found.n_failed < 12
    assert found.power == (12 - found.n_failed) / 12
    assert found.power_of_fits == 1.0
    with pytest.raises(Lme4Error, match="all 4 simulations failed"):
        power(sleep, lambda result: 7.0, n_sim=4, seed=1)


def test_size_and_effect_for_a_power():
    model = between(1.6)
    curve = power_curve(model, "x", along="g", n=[8, 32], n_sim=1000, seed=1)
    assert list(curve.columns[:4]) == ["n", "power", "lower", "upper"]
    for n, found in zip(curve["n"], curve["power"], strict=True):
        wanted = exact_power(1.6, n)
        assert abs(found - wanted) < 4 * np.sqrt(wanted * (1 - wanted) / 1000)
    assert curve.plot().get_ylabel() == "Power"
    # The exact power is 0.78 with 14 groups and 0.83 with 16; of odd numbers it lies between.
    assert 13 <= sample_size(model, "x", along="g", n_sim=500, smallest=8).attrs["n"] <= 19
    effect = minimum_effect(between(1.0), "x", n_sim=500, tolerance=0.03)
    # Two Monte-Carlo standard errors of the power (500 simulations), and the tolerance.
    assert exact_power(effect) == pytest.approx(0.8, abs=0.05)


def test_interval():
    for hits, n in ((0, 10), (3, 10), (10, 10), (334, 1000)):
        wanted = stats.binomtest(hits, n).proportion_ci(method="exact")
        np.testing.assert_allclose(exact_interval(hits, n), (wanted.low, wanted.high), atol=1e-12)  # another inverse


def test_robust_fits_are_tested_by_a_function_only():
    fit = mixed(load_dataset("sleepstudy"), "Reaction", ["Days"], "Subject", vce="robust")
    with pytest.raises(OptionError, match="vce='robust'"):
        power(fit, "Days", n_sim=5)
    found = power(fit, lambda result: result.pvalues["Days"], n_sim=3, seed=1)
    assert found.n_failed == 0


@pytest.mark.parametrize(
    ("test", "kw", "message"),
    [
        ("Dys", {}, "no coefficient or term 'Dys'"),
        ("Days", {"ddf": "satterthwait"}, "not known"),
        ("Days", {"alternative": "up"}, "not known"),
        (["Intercept", "Days"], {"alternative": "less"}, "one coefficient"),
        ("Days", {"alpha": 5}, "between 0 and 1"),
        ("Days", {"params": {"Day": 3}}, "no part 'Day'"),
        ("Days", {"save": "x.npz"}, "needs a seed"),
    ],
)
def test_bad_input(sleep, test, kw, message):
    with pytest.raises(OptionError, match=message):
        power(sleep, test, n_sim=10, **kw)


def test_an_interruption_keeps_the_simulations_that_are_done(monkeypatch):
    from lme4py.inference.power import run

    whole = power(between(0.5), "x", n_sim=100, seed=3)
    parts = run._parts

    def cut(work, chunks, n_jobs):
        made = parts(work, [chunks[0][:40], chunks[0][40:]], n_jobs)
        yield next(made)
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "_parts", cut)
    with pytest.warns(Lme4Warning, match="interrupted: 40 of 100 simulations"):
        some = power(between(0.5), "x", n_sim=100, seed=3)
    assert some.n_sim == 40
    assert whole.n_sim == 100
