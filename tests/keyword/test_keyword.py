"""The keyword front door fits the same models as the formula front door, under Stata's names."""

import pickle

import numpy as np
import pandas as pd
import pytest

import lme4py
from lme4py import (
    clmm,
    glmer,
    lmer,
    load_dataset,
    mecloglog,
    megamma,
    meglm,
    melogit,
    menbreg,
    meologit,
    meoprobit,
    mepoisson,
    meprobit,
    mixed,
)

DATA = {
    name: load_dataset(name)
    for name in (
        *("sleepstudy", "Pastes", "Penicillin", "Machines", "Oats", "Contraception", "cbpp", "Salamanders"),
        *("grouseticks", "wine", "Dyestuff", "Orthodont"),
    )
}
SLEEP, CBPP = DATA["sleepstudy"], DATA["cbpp"]
HALVES = np.linspace(0.5, 1.5, 180)
LOG_SIZE = np.log(CBPP["size"].to_numpy(dtype=float))

# (keyword call, formula call): the two must be the same fit.
PAIRS = {
    "slope": (
        lambda: mixed(SLEEP, "Reaction", ["Days"], "Subject", ["Days"]),
        lambda: lmer("Reaction ~ Days + (Days | Subject)", SLEEP),
    ),
    "slope ml": (
        lambda: mixed(SLEEP, "Reaction", ["Days"], "Subject", ["Days"], method="ML"),
        lambda: lmer("Reaction ~ Days + (Days | Subject)", SLEEP, reml=False),
    ),
    "bare strings": (
        lambda: mixed(SLEEP, "Reaction", "Days", "Subject", "Days", method="ReML"),
        lambda: lmer("Reaction ~ Days + (Days | Subject)", SLEEP),
    ),
    "diagonal": (
        lambda: mixed(SLEEP, "Reaction", ["Days"], "Subject", ["Days"], "diagonal"),
        lambda: lmer("Reaction ~ Days + (Days || Subject)", SLEEP),
    ),
    "identity": (
        lambda: mixed(SLEEP, "Reaction", ["Days"], "Subject", ["Days"], "identity"),
        lambda: lmer("Reaction ~ Days + id(Days | Subject)", SLEEP),
    ),
    "exchangeable": (
        lambda: mixed(SLEEP, "Reaction", ["Days"], "Subject", ["Days"], "exchangeable"),
        lambda: lmer("Reaction ~ Days + homcs(Days | Subject)", SLEEP),
    ),
    "no fixed effects": (
        lambda: mixed(DATA["Dyestuff"], "Yield", None, "Batch"),
        lambda: lmer("Yield ~ 1 + (1 | Batch)", DATA["Dyestuff"]),
    ),
    "no constant": (
        lambda: mixed(SLEEP, "Reaction", ["0", "Days"], "Subject", ["0", "Days"]),
        lambda: lmer("Reaction ~ 0 + Days + (0 + Days | Subject)", SLEEP),
    ),
    "power": (
        lambda: mixed(SLEEP, "log(Reaction)", ["Days", "I(Days^2)"], "Subject", ["poly(Days, 2)"]),
        lambda: lmer("log(Reaction) ~ Days + I(Days^2) + (poly(Days, 2) | Subject)", SLEEP),
    ),
    "nested": (
        lambda: mixed(DATA["Pastes"], "strength", None, ["batch", "cask"]),
        lambda: lmer("strength ~ 1 + (1 | batch/cask)", DATA["Pastes"]),
    ),
    "slopes per level": (
        lambda: mixed(DATA["Oats"], "yield", ["nitro"], ["Block", "Variety"], {"Variety": ["nitro"]}, "diagonal"),
        lambda: lmer("yield ~ nitro + (1 | Block) + diag(1 + nitro | Variety:Block)", DATA["Oats"]),
    ),
    "slopes at all levels": (
        lambda: mixed(DATA["Oats"], "yield", ["nitro"], ["Block", "Variety"], ["nitro"], "independent"),
        lambda: lmer("yield ~ nitro + diag(nitro | Block/Variety)", DATA["Oats"]),
    ),
    "crossed": (
        lambda: mixed(DATA["Penicillin"], "diameter", [], ["plate", "sample"], crossed=True),
        lambda: lmer("diameter ~ 1 + (1 | plate) + (1 | sample)", DATA["Penicillin"]),
    ),
    "interaction": (
        lambda: mixed(DATA["Orthodont"], "distance", ["age*Sex"], "Subject", ["age"]),
        lambda: lmer("distance ~ age * Sex + (age | Subject)", DATA["Orthodont"]),
    ),
    "colon": (
        lambda: mixed(DATA["Orthodont"], "distance", ["age", "age:Sex"], "Subject"),
        lambda: lmer("distance ~ age + age:Sex + (1 | Subject)", DATA["Orthodont"]),
    ),
    "factor": (
        lambda: mixed(DATA["Machines"], "score", "Machine", "Worker", "Machine", method="ml"),
        lambda: lmer("score ~ Machine + (Machine | Worker)", DATA["Machines"], reml=False),
    ),
    "weights": (
        lambda: mixed(SLEEP, "Reaction", ["Days"], "Subject", weights=HALVES, offset=HALVES),
        lambda: lmer("Reaction ~ Days + (1 | Subject)", SLEEP, weights=HALVES, offset=HALVES),
    ),
    "logit": (
        lambda: melogit(DATA["Contraception"], "use", ["age", "urban"], "district"),
        lambda: glmer("use ~ age + urban + (1 | district)", DATA["Contraception"]),
    ),
    "logit slope": (
        lambda: melogit(DATA["Contraception"], "use", ["age", "urban"], "district", ["urban"]),
        lambda: glmer("use ~ age + urban + (urban | district)", DATA["Contraception"]),
    ),
    "trials": (
        lambda: melogit(CBPP, "incidence", ["period"], "herd", trials="size"),
        lambda: glmer("cbind(incidence, size - incidence) ~ period + (1 | herd)", CBPP),
    ),
    "trials as an array": (
        lambda: melogit(CBPP, "incidence", ["period"], "herd", trials=CBPP["size"].to_numpy(), nAGQ=7),
        lambda: glmer("cbind(incidence, size - incidence) ~ period + (1 | herd)", CBPP, nAGQ=7),
    ),
    "trials as a number": (
        lambda: meprobit(CBPP, "incidence", ["period"], "herd", trials=40),
        lambda: glmer("cbind(incidence, 40 - incidence) ~ period + (1 | herd)", CBPP, link="probit"),
    ),
    "probit": (
        lambda: meprobit(CBPP, "incidence", "period", "herd", trials="size", hessian="expected"),
        lambda: glmer(
            "cbind(incidence, size - incidence) ~ period + (1 | herd)", CBPP, link="probit", hessian="expected"
        ),
    ),
    "cloglog": (
        lambda: mecloglog(CBPP, "incidence", ["period"], "herd", trials="size"),
        lambda: glmer("cbind(incidence, size - incidence) ~ period + (1 | herd)", CBPP, link="cloglog"),
    ),
    "poisson": (
        lambda: mepoisson(DATA["grouseticks"], "TICKS", ["YEAR"], ["LOCATION", "BROOD"]),
        lambda: glmer("TICKS ~ YEAR + (1 | LOCATION/BROOD)", DATA["grouseticks"], "poisson"),
    ),
    "offset": (
        lambda: mepoisson(CBPP.assign(ls=LOG_SIZE), "incidence", ["period"], "herd", offset="ls"),
        lambda: glmer("incidence ~ period + (1 | herd)", CBPP, "poisson", offset=LOG_SIZE),
    ),
    "quadrature with a slope": (
        lambda: meglm(CBPP.assign(t=CBPP["period"].cat.codes), "incidence", ["t"], "herd", "poisson", ["t"], nAGQ=5),
        lambda: glmer("incidence ~ t + (t | herd)", CBPP.assign(t=CBPP["period"].cat.codes), "poisson", nAGQ=5),
    ),
    "negative binomial": (
        lambda: menbreg(DATA["Salamanders"], "count", ["mined"], "site"),
        lambda: lme4py.glmer_nb("count ~ mined + (1 | site)", DATA["Salamanders"]),
    ),
    "gamma": (
        lambda: megamma(SLEEP, "Reaction", ["Days"], "Subject"),
        lambda: glmer("Reaction ~ Days + (1 | Subject)", SLEEP, "gamma"),
    ),
    "gaussian": (
        lambda: meglm(SLEEP, "Reaction", ["Days"], "Subject", x_random=["Days"]),
        lambda: glmer("Reaction ~ Days + (Days | Subject)", SLEEP, "gaussian"),
    ),
    "ordinal": (
        lambda: meologit(DATA["wine"], "rating", ["temp", "contact"], "judge"),
        lambda: clmm("rating ~ temp + contact + (1 | judge)", DATA["wine"]),
    ),
    "ordinal probit": (
        lambda: meoprobit(DATA["wine"], "rating", ["temp", "contact"], "judge", nAGQ=5),
        lambda: clmm("rating ~ temp + contact + (1 | judge)", DATA["wine"], link="probit", nAGQ=5),
    ),
}


def renamed(names):
    return ["_cons" if name == "Intercept" else name for name in names]


def test_there_are_enough_pairs():
    assert len(PAIRS) >= 25


@pytest.mark.parametrize("name", PAIRS)
def test_pair(name):
    make_keyword, make_formula = PAIRS[name]
    keyword, formula = make_keyword(), make_formula()
    # The same arithmetic on the same columns; where the terms come in another order, the same to rounding of a minimum.
    assert keyword.log_likelihood == pytest.approx(formula.log_likelihood, abs=1e-9)
    assert list(keyword.params.index) == renamed(formula.params.index)
    np.testing.assert_allclose(keyword.params, formula.params.to_numpy(), rtol=1e-9)
    np.testing.assert_allclose(keyword.bse, formula.bse.to_numpy(), rtol=1e-9)
    one, other = keyword.variance_components, formula.variance_components
    assert one.keys() == other.keys()
    np.testing.assert_allclose([one[key] for key in one], [other[key] for key in one], rtol=1e-9)
    assert keyword.n_params == formula.n_params
    assert keyword.n_groups == formula.n_groups
    assert type(keyword) is type(formula)


# --- what has a known answer ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (2000.0, 1.0), (1e5, 1e-6), (-3.0, 1e7)])
def test_shifted_and_scaled_days_are_the_same_model(shift, scale):
    data = SLEEP.assign(t=(SLEEP["Days"] + shift) * scale)
    result = mixed(data, "Reaction", ["t"], "Subject", ["t"], method="ml")
    # The reference is lme4's maximum; digits are lost to the shift.
    assert result.log_likelihood == pytest.approx(-875.9696722, abs=1e-6)
    assert result.converged


def test_contraception_with_raw_age():
    data = DATA["Contraception"]
    # lme4's values, given to that many decimals.
    assert melogit(data, "use", ["age", "urban"], "district").log_likelihood == pytest.approx(-1250.196, abs=5e-4)
    squared = melogit(data, "use", ["age", "I(age^2)", "urban"], "district")
    assert squared.log_likelihood == pytest.approx(-1203.97, abs=5e-3)


@pytest.mark.parametrize(("method", "chi2"), [("reml", 150.03539), ("ml", 148.35371)])
def test_likelihood_ratio_against_no_random_effects(method, chi2):
    result = mixed(SLEEP, "Reaction", ["Days"], "Subject", ["Days"], method=method)
    # The reference has five decimals.
    assert lme4py.lrtest(None, result).chi2 == pytest.approx(chi2, abs=1e-5)
    assert f"chibar2 = {chi2:.2f}" in result.summary()


def test_three_levels_with_labels_used_again_predict_their_own_groups():
    data = DATA["Pastes"]
    result = mixed(data, "strength", None, ["batch", "cask"])
    assert result.n_groups == {"cask:batch": 30, "batch": 10}
    modes = result.ranef()
    for batch, cask in (("A", "a"), ("B", "a"), ("J", "c")):
        own = (
            result.params["_cons"]
            + modes["batch"].loc[batch, "_cons"]
            + modes["cask:batch"].loc[f"{cask}:{batch}", "_cons"]
        )
        new = result.predict(pd.DataFrame({"batch": [batch], "cask": [cask]}))
        # The same three numbers in another order of addition.
        assert float(new.iloc[0]) == pytest.approx(own, rel=1e-13)
        inside = result.fittedvalues[(data["batch"] == batch) & (data["cask"] == cask)]
        assert inside.to_numpy() == pytest.approx(own, rel=1e-13)
    np.testing.assert_array_equal(result.predict(), result.fittedvalues)
    with pytest.warns(lme4py.Lme4Warning, match="1 "):
        unknown = result.predict(pd.DataFrame({"batch": ["A"], "cask": ["z"]}))
    outer = result.params["_cons"] + modes["batch"].loc["A", "_cons"]
    assert float(unknown.iloc[0]) == pytest.approx(outer, rel=1e-13)


def test_unused_categories_are_left_out():
    data = DATA["wine"].copy()
    data["rating"] = data["rating"].cat.add_categories(["6", "0"]).cat.reorder_categories(list("0123456"))
    result = meologit(data, "rating", ["temp", "contact"], "judge")
    assert list(result.thresholds.index) == ["1|2", "2|3", "3|4", "4|5"]
    # Clmm's value for the five categories that occur.
    assert result.log_likelihood == pytest.approx(-81.56541, abs=1e-5)


def test_the_index_of_the_data_is_kept_in_any_order():
    data = SLEEP.sample(frac=1.0, random_state=3)
    data.index = [f"row {i}" for i in range(180)]
    result = mixed(data, "Reaction", ["Days"], "Subject", ["Days"])
    straight = mixed(SLEEP, "Reaction", ["Days"], "Subject", ["Days"])
    assert list(result.fittedvalues.index) == list(data.index)
    assert list(result.predict(data.iloc[[5, 2]]).index) == ["row 5", "row 2"]
    again = data.assign(fit=result.fittedvalues, rest=result.residuals())
    np.testing.assert_allclose(again["fit"] + again["rest"], data["Reaction"], rtol=1e-13)
    expected = straight.predict(data).to_numpy()
    # Sums in another order.
    np.testing.assert_allclose(again["fit"], expected, rtol=1e-9)


def test_residual_plot_pairs_the_rows_of_unsorted_data():
    import matplotlib

    matplotlib.use("Agg")
    data = SLEEP.sample(frac=1.0, random_state=3)
    result = mixed(data, "Reaction", ["Days"], "Subject")
    axes = result.plot(kind="residuals")
    drawn = np.asarray(axes.collections[0].get_offsets() if axes.collections else axes.lines[0].get_xydata())
    fitted = drawn[np.argsort(drawn[:, 0]), 0]
    np.testing.assert_allclose(fitted, np.sort(result.fittedvalues), rtol=1e-12)
    scaled = result.residuals("scaled")
    raw = result.residuals()
    order = np.argsort(result.fittedvalues.to_numpy(), kind="stable")
    shown = drawn[np.argsort(drawn[:, 0], kind="stable"), 1]
    # Whichever residuals the plot shows, they belong to the fitted values beside them.
    assert any(
        np.allclose(shown, kind.to_numpy()[order], rtol=1e-9) for kind in (scaled, raw, result.residuals("pearson"))
    )


# --- covariances ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cov_type", ["diagonal", "identity", "exchangeable"])
def test_a_categorical_slope_does_not_depend_on_the_first_level(cov_type):
    data = DATA["Machines"].copy()
    result = mixed(data, "score", ["Machine"], "Worker", ["Machine"], cov_type)
    data["Machine"] = data["Machine"].cat.reorder_categories(["C", "A", "B"])
    other = mixed(data, "score", ["Machine"], "Worker", ["Machine"], cov_type)
    # X has other columns of determinant one.
    assert result.log_likelihood == pytest.approx(other.log_likelihood, abs=1e-8)
    assert "_cons" not in result.ranef().columns


@pytest.mark.parametrize("cov_type", ["identity", "exchangeable"])
def test_generalised_models_take_every_covariance(cov_type):
    data = DATA["Contraception"]
    result = melogit(data, "use", ["age"], "district", ["urban"], cov_type=cov_type)
    assert result.converged
    smaller = melogit(data, "use", ["age"], "district", ["urban"], cov_type="identity")
    larger = melogit(data, "use", ["age"], "district", ["0", "urban"])
    assert smaller.log_likelihood - 1e-8 <= result.log_likelihood <= larger.log_likelihood + 1e-8
    assert np.isfinite(result.conf_int(parm="random").to_numpy()).all()


# --- results ----------------------------------------------------------------------------------------------------------


def test_conventions_of_the_results():
    result = mixed(SLEEP, "Reaction", ["Days"], "Subject", ["Days"], alpha=0.1)
    table = result.coef_table()
    assert np.isinf(table["df"]).all()
    z = 1.6448536269514722
    expected = table["estimate"] - z * table["std_error"]
    np.testing.assert_allclose(result.conf_int()["lower"], expected, rtol=1e-12)
    np.testing.assert_allclose(
        result.conf_int(alpha=0.05)["lower"], table["estimate"] - 1.959963984540054 * table["std_error"]
    )
    assert "[90% conf." in result.summary()


def test_degrees_of_freedom_reach_tests_and_intervals():
    result = mixed(SLEEP, "Reaction", ["Days"], "Subject", ["Days"], ddf="satterthwaite")
    # Balanced: 17 degrees of freedom.
    np.testing.assert_allclose(result.coef_table()["df"], 17.0, rtol=1e-6)
    half = (result.conf_int()["upper"] - result.params) / result.bse
    # The 97.5 % quantile of t with 17 degrees of freedom.
    np.testing.assert_allclose(half, 2.1098156, rtol=1e-6)


def test_robust_standard_errors_follow_into_every_table():
    plain = mixed(SLEEP, "Reaction", ["Days"], "Subject")
    robust = mixed(SLEEP, "Reaction", ["Days"], "Subject", vce="robust")
    column = mixed(SLEEP, "Reaction", ["Days"], "Subject", vce="Subject")
    from lme4py.inference.uncertainty.robust import robust_covariance

    expected = robust_covariance(plain.fit, "CR1")
    np.testing.assert_allclose(robust.cov_params(), expected, rtol=1e-10)
    np.testing.assert_allclose(column.cov_params(), expected, rtol=1e-10)
    test = robust.wald_test(["Days"])
    assert test["chi2"] == pytest.approx(plain.params["Days"] ** 2 / expected[1, 1], rel=1e-10)
    assert robust.log_likelihood == plain.log_likelihood
    assert "clusters in Subject" in robust.summary()
    again = robust.refit(SLEEP["Reaction"] * 2.0)
    np.testing.assert_allclose(again.bse, 2.0 * robust.bse, rtol=1e-6)
    logit = melogit(DATA["Contraception"], "use", ["age"], "district", vce="robust")
    assert (logit.bse != melogit(DATA["Contraception"], "use", ["age"], "district").bse).all()


@pytest.mark.parametrize(
    "restrictions",
    [["Days"], "Days", [[0.0, 1.0]], pd.DataFrame({"Days": [1.0]}), pd.DataFrame({"Days": [1.0], "_cons": [0.0]})],
)
def test_wald_test_of_names_matrices_and_frames(restrictions):
    result = mixed(SLEEP, "Reaction", ["Days"], "Subject", ["Days"])
    test = result.wald_test(restrictions, value=10.0)
    expected = ((result.params["Days"] - 10.0) / result.bse["Days"]) ** 2
    assert test["chi2"] == pytest.approx(expected, rel=1e-12)
    assert test["df"] == 1


MODELS = {
    "linear": lambda: mixed(SLEEP, "Reaction", ["Days"], "Subject", ["Days"]),
    "three levels": lambda: mixed(DATA["Pastes"], "strength", None, ["batch", "cask"]),
    "logit": lambda: melogit(CBPP, "incidence", ["period"], "herd", trials="size"),
    "poisson, three levels": lambda: mepoisson(DATA["grouseticks"], "TICKS", ["YEAR"], ["LOCATION", "BROOD"]),
    "negative binomial": lambda: menbreg(DATA["Salamanders"], "count", ["mined"], "site"),
    "gamma": lambda: megamma(SLEEP, "Reaction", ["Days"], "Subject"),
    "ordinal": lambda: meologit(DATA["wine"], "rating", ["temp", "contact"], "judge"),
}


@pytest.mark.parametrize("name", MODELS)
def test_everything_of_the_result(name):
    result = MODELS[name]()
    p = len(result.params)
    assert result.bse.shape == result.pvalues.shape == (p,)
    assert (result.conf_int()["lower"] < result.params).all()
    assert result.cov_params().shape == (p, p)
    assert result.n_params >= p + 1
    modes, sds = result.ranef(conditional_se=True)
    frames = modes.items() if isinstance(modes, dict) else [("", modes)]
    for key, frame in frames:
        assert "_cons" in frame.columns
        assert ((sds[key] if key else sds) > 0).all().all()
    squares = result.r_squared()
    assert 0.0 <= squares["marginal"] <= squares["conditional"] <= 1.0
    if p:
        assert result.wald_test(list(result.params.index))["df"] == p
    text = result.summary()
    assert text == str(result)
    assert "LR test vs." in text
    assert "chibar2" in text
    levels = [f"_cons|{group}" for group in result.n_groups]
    component = "_cons" if len(levels) == 1 else levels[-1]
    assert 0.0 < lme4py.icc(result, component).estimate < 1.0
    again = pickle.loads(pickle.dumps(result))
    assert again.summary() == text
    new = result.fit.design.n_obs
    assert len(result.predict(include_random=False)) == new


def test_ratios_and_dispersion():
    logit = melogit(CBPP, "incidence", ["period"], "herd", trials="size")
    odds = logit.odds_ratios(alpha=0.1)
    np.testing.assert_allclose(odds["odds_ratio"], np.exp(logit.params))
    np.testing.assert_allclose(odds[["lower", "upper"]], np.exp(logit.conf_int(0.1)))
    counts = menbreg(DATA["Salamanders"], "count", ["mined"], "site", alpha=0.1)
    np.testing.assert_allclose(counts.incidence_rate_ratios()[["lower", "upper"]], np.exp(counts.conf_int(0.1)))
    # alpha, as in Stata: one over the shape.
    assert counts.dispersion == pytest.approx(1 / 0.64, abs=0.02)


def test_update_takes_keywords():
    result = melogit(CBPP, "incidence", ["period"], "herd", trials="size")
    assert result.update(nAGQ=7).nAGQ == 7
    smaller = result.update(x_fixed=None)
    assert smaller.formula == "cbind(incidence, size - incidence) ~ 1 + (1 | herd)"
    assert lme4py.lrtest(smaller, result).df == 3


def test_new_data_with_trials_and_offset():
    result = mepoisson(CBPP.assign(ls=LOG_SIZE), "incidence", ["period"], "herd", offset="ls")
    new = pd.DataFrame({"period": ["1", "1"], "herd": ["1", "1"], "ls": [0.0, 1.0]})
    predicted = result.predict(new, type="linear")
    assert predicted[1] - predicted[0] == pytest.approx(1.0, abs=1e-12)
    grouped = melogit(CBPP, "incidence", ["period"], "herd", trials=CBPP["size"].to_numpy())
    assert 0.0 < float(grouped.predict(new.drop(columns="ls")).iloc[0]) < 1.0


def test_other_data_frames():
    import polars as pl
    import pyarrow as pa

    expected = mixed(SLEEP, "Reaction", ["Days"], "Subject").log_likelihood
    for data in (pl.from_pandas(SLEEP), pa.Table.from_pandas(SLEEP), {name: SLEEP[name].to_numpy() for name in SLEEP}):
        # The same numbers, however they are stored.
        assert mixed(data, "Reaction", ["Days"], "Subject").log_likelihood == pytest.approx(expected, abs=1e-10)


def test_degrees_of_freedom_of_the_model_do_not_go_with_a_robust_covariance():
    robust = mixed(SLEEP, "Reaction", ["Days"], "Subject", vce="robust")
    for call in (robust.coef_table, robust.conf_int, robust.anova):
        with pytest.raises(lme4py.OptionError, match="vce='robust'"):
            call(ddf="satterthwaite")
    # The default of these fits is normal, in the table of terms too.
    pd.testing.assert_frame_equal(robust.anova(), robust.anova(ddf="normal"))


@pytest.mark.parametrize("name", ["linear", "logit"])
def test_slim_results_still_print(name):
    result = MODELS[name]()
    assert result.slim().summary() == result.summary()


@pytest.mark.parametrize("name", ["melogit", "meprobit", "mecloglog", "mepoisson", "menbreg", "megamma"])
def test_unknown_arguments(name):
    function = getattr(lme4py, name)
    with pytest.raises(lme4py.OptionError, match=rf"{name}\(\) has no argument 'nagq'; in lme4py it is nAGQ=7"):
        function(SLEEP, "Reaction", ["Days"], "Subject", nagq=3)
    with pytest.raises(lme4py.OptionError, match=r"Use meglm\(\) for another family"):
        function(SLEEP, "Reaction", ["Days"], "Subject", family="gaussian")


def test_each_door_has_its_names_and_understands_the_others():
    formula = lme4py.lmer("Reaction ~ Days + (Days | Subject)", SLEEP)
    keyword = mixed(SLEEP, "Reaction", ["Days"], "Subject", ["Days"], ddf="satterthwaite")
    plain = ["sd(Intercept | Subject)", "sd(Days | Subject)", "cor(Intercept, Days | Subject)", "sigma"]
    stata = ["sd(_cons)", "sd(Days)", "corr(_cons,Days)", "sd(Residual)"]
    lme4 = ["sd_(Intercept)|Subject", "sd_Days|Subject", "cor_Days.(Intercept)|Subject", "sigma"]
    assert list(formula.conf_int(parm="random").index) == plain
    assert list(keyword.conf_int(parm="random").index) == stata
    for names in (plain, stata, lme4):
        for result, own in ((formula, plain), (keyword, stata)):
            assert list(result.conf_int(parm=names).index) == own
    # Factors are named where there are several, terms where two of them hold the same effect.
    crossed = lme4py.lmer("diameter ~ 1 + (1 | plate) + (1 | sample)", DATA["Penicillin"])
    assert list(crossed.conf_int(parm="random").index) == ["sd(Intercept | plate)", "sd(Intercept | sample)", "sigma"]
    assert list(crossed.conf_int(parm=["sd(_cons|sample)"]).index) == ["sd(Intercept | sample)"]


def test_clusters_as_stata_writes_them():
    plain = mixed(SLEEP, "Reaction", ["Days"], "Subject", vce="Subject")
    written = mixed(SLEEP, "Reaction", ["Days"], "Subject", vce="cluster Subject")
    np.testing.assert_array_equal(written.bse, plain.bse)
