"""Column names, levels and options of the keyword front door: the formula they become, and what is refused."""

import numpy as np
import pandas as pd
import pytest

import lme4py
from lme4py import (
    DataError,
    DesignError,
    FormulaError,
    OptionError,
    load_dataset,
    megamma,
    meglm,
    melogit,
    menbreg,
    meologit,
    mepoisson,
    mixed,
)

SLEEP = load_dataset("sleepstudy")
CBPP = load_dataset("cbpp")


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    g = np.repeat(np.arange(24), 10)
    return pd.DataFrame(
        {
            "y": rng.normal(size=240) + rng.normal(size=24)[g],
            "x": rng.normal(size=240),
            "z": rng.normal(size=240),
            "s": rng.choice(list("abc"), 240),
            "b": rng.choice([True, False], 240),
            "g": g,
            "h": np.tile(np.repeat([1, 2], 5), 24),
        }
    )


ODD_NAMES = [
    *("body mass (g)", "a:b", "x*y", "1st", "`tick`", "über", "T", "if", "pi", "a\"q'", "log(x)", "a|b", "x~1", "-1"),
    *("new\nline", "c(1,2)", "True", "数", "x.y", "_x", "0", " lead", "#", "back\\slash", "x + y", "i.x", "."),
]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_any_column_name_in_any_place(data, name):
    expected = mixed(data, "y", ["x", "s"], "g", ["x"])
    renamed = data.rename(columns={"x": name})
    result = mixed(renamed, "y", [name, "s"], "g", [name])
    assert result.log_likelihood == expected.log_likelihood
    assert name in result.params.index
    assert f"var({name})" in result.variance_components
    assert name in result.ranef().columns
    np.testing.assert_array_equal(result.predict(renamed.head()), expected.predict(data.head()))
    assert result.wald_test([name])["df"] == 1
    assert result.summary()
    assert result.to_latex()
    assert mixed(data.rename(columns={"g": name}), "y", "x", name).n_groups == {name: 24}
    assert mixed(data.rename(columns={"y": name}), name, "x", "g").n_obs == 240
    # The formula that is shown is one that lmer reads.
    assert lme4py.lmer(result.formula, renamed).log_likelihood == result.log_likelihood


def test_a_bare_string_is_one_column(data):
    renamed = data.rename(columns={"x": "gs", "s": "yx"})
    result = mixed(renamed, "y", "gs", "g", "gs")
    assert result.formula == "y ~ gs + (1 + gs | g)"
    with pytest.raises(DataError, match="'zx', which is no column"):
        mixed(data, "y", "zx", "g")
    with pytest.raises(DataError, match=r"'gg'.*Did you mean 'g'"):
        mixed(data, "y", "x", "gg")


def test_columns_that_are_numbers():
    table = pd.DataFrame(np.random.default_rng(1).normal(size=(60, 2)))
    table[2] = np.repeat(np.arange(12), 5)
    assert mixed(table, 0, [1], 2).formula == "`0` ~ `1` + (1 | `2`)"


@pytest.mark.parametrize(
    ("keywords", "formula"),
    [
        ({"x_fixed": []}, "y ~ 1 + (1 | g)"),
        ({"x_fixed": None, "x_random": []}, "y ~ 1 + (1 | g)"),
        ({"x_fixed": ["x", "x", "s"]}, "y ~ x + s + (1 | g)"),
        ({"x_fixed": ("x*s",)}, "y ~ x * s + (1 | g)"),
        ({"x_fixed": ["x", "x : s"]}, "y ~ x + x:s + (1 | g)"),
        ({"x_fixed": ["factor(h)", "log(x^2)"]}, "y ~ factor(h) + log(x^2) + (1 | g)"),
        ({"x_fixed": ["-1", "x"]}, "y ~ 0 + x + (1 | g)"),
        ({"x_fixed": ["x"], "x_random": ["x", "z"]}, "y ~ x + (1 + x + z | g)"),
        ({"x_fixed": ["x"], "x_random": ["x"], "cov_type": "Diagonal "}, "y ~ x + diag(1 + x | g)"),
        ({"x_fixed": ["x"], "x_random": ["x"], "cov_type": "identity"}, "y ~ x + id(1 + x | g)"),
        ({"x_fixed": ["x"], "x_random": ["x"], "cov_type": "EXCHANGEABLE"}, "y ~ x + homcs(1 + x | g)"),
        ({"x_fixed": ["x"], "cov_type": "exchangeable"}, "y ~ x + (1 | g)"),
        ({"x_fixed": ["x"], "x_random": ["0", "x"], "cov_type": "diagonal"}, "y ~ x + (0 + x | g)"),
        ({"x_fixed": ["x"], "x_random": ["s"]}, "y ~ x + (1 + s | g)"),
        ({"x_fixed": ["x"], "x_random": ["b"], "cov_type": "diagonal"}, "y ~ x + diag(1 + b | g)"),
        ({"x_fixed": ["x"], "x_random": ["s"], "cov_type": "diagonal"}, "y ~ x + diag(0 + s | g)"),
        ({"x_fixed": ["x"], "x_random": ["factor(h)"], "cov_type": "identity"}, "y ~ x + id(0 + factor(h) | g)"),
        ({"x_fixed": ["x"], "offset": "z"}, "y ~ x + offset(z) + (1 | g)"),
        ({"x_fixed": ["x"], "group": ["g", "h"]}, "y ~ x + (1 | g/h)"),
        ({"x_fixed": ["x"], "group": ["g", "h"], "x_random": "x"}, "y ~ x + (1 + x | g/h)"),
        ({"x_fixed": ["x"], "group": ["g", "h"], "x_random": {"g": "x"}}, "y ~ x + (1 + x | g) + (1 | h:g)"),
        ({"x_fixed": ["x"], "group": ["g", "h"], "crossed": True}, "y ~ x + (1 | g) + (1 | h)"),
        ({"x_fixed": ["x"], "group": [["g", "h"], "s"], "crossed": True}, "y ~ x + (1 | g/h) + (1 | s)"),
    ],
)
def test_the_formula(data, keywords, formula):
    keywords = {"group": "g", **keywords}
    assert mixed(data, "y", **keywords).formula == formula


def test_three_levels_of_nesting():
    rng = np.random.default_rng(2)
    rows = pd.MultiIndex.from_product([range(8), range(3), range(3), range(3)], names=["a", "b", "c", "r"])
    table = rows.to_frame(index=False).astype(str)
    for columns in (["a"], ["a", "b"], ["a", "b", "c"]):
        code = table.groupby(columns).ngroup()
        table["y"] = table.get("y", 0.0) + rng.normal(size=code.max() + 1)[code]
    table["y"] += rng.normal(size=len(table))
    result = mixed(table, "y", None, ["a", "b", "c"])
    assert result.formula == "y ~ 1 + (1 | a/b/c)"
    assert result.n_groups == {"c:b:a": 72, "b:a": 24, "a": 8}
    slopes = mixed(table.assign(x=rng.normal(size=len(table))), "y", "x", ["a", "b", "c"], {"a": ["x"]})
    assert slopes.formula == "y ~ x + (1 + x | a) + (1 | b:a) + (1 | c:b:a)"
    assert set(slopes.ranef()) == {"c:b:a", "b:a", "a"}


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keywords", "error", "message"),
    [
        ({"y": "yy"}, DataError, "`y` names 'yy', which is no column"),
        ({"x_fixed": ["xx"]}, DataError, "`x_fixed` names 'xx'"),
        ({"x_fixed": ["x", "nope:s"]}, DataError, "`x_fixed` names 'nope'"),
        ({"x_fixed": ["c.x#i.s"]}, DataError, "interactions are 'a:b' or 'a\\*b'"),
        ({"x_fixed": ["i.h"]}, DataError, "Factors need no prefix"),
        ({"x_fixed": ["(1 | g)"]}, OptionError, "by `group` and `x_random`"),
        ({"x_fixed": ["x +"]}, FormulaError, "neither a column nor an expression"),
        ({"x_fixed": [["x"]]}, OptionError, "of type list"),
        ({"x_fixed": {"x"}}, OptionError, "`x_fixed` is of type set"),
        ({"x_fixed": [True]}, OptionError, "of type bool"),
        ({"x_fixed": [""]}, OptionError, "empty name"),
        ({"x_fixed": ["y"]}, FormulaError, "also a term on the right"),
        ({"group": None}, OptionError, "`group` is empty"),
        ({"group": []}, OptionError, "`group` is empty"),
        ({"group": ["g", "g"]}, OptionError, "names a column twice"),
        ({"group": [["g", "h"], "s"]}, OptionError, "crossed=True"),
        ({"x_random": ["xx"]}, DataError, "`x_random` names 'xx'"),
        ({"x_random": ["0"]}, OptionError, "has no slopes"),
        ({"x_random": {"gg": ["x"]}}, OptionError, "no level in `group`. Did you mean 'g'"),
        ({"x_random": ["s", "factor(h)"], "cov_type": "identity"}, OptionError, "categorical columns s and factor"),
        ({"cov_type": "ar1"}, OptionError, "cov_type='ar1' is not known"),
        ({"cov_type": None}, OptionError, "cov_type=None"),
        ({"method": "MLE2"}, OptionError, "use 'reml' or 'ml'"),
        ({"crossed": 1}, OptionError, "`crossed` is 1"),
        ({"maxiter": 0}, OptionError, "`maxiter` is 0"),
        ({"tol": -1.0}, OptionError, "`tol` is -1.0"),
        ({"alpha": 95}, OptionError, "`alpha` is 95"),
        ({"vce": "clusters"}, DataError, "`vce` names 'clusters'"),
        ({"vce": 3}, OptionError, "`vce` is 3"),
        ({"ddf": "kenward"}, OptionError, "ddf='kenward'"),
        ({"ddf": "satterthwaite", "vce": "robust"}, OptionError, "replaces it"),
        ({"weights": [1.0]}, DataError, "`weights` has 1 value"),
    ],
)
def test_refused(data, keywords, error, message):
    with pytest.raises(error, match=message):
        mixed(data, **{"y": "y", "x_fixed": ["x"], "group": "g", **keywords})


def test_data_come_first():
    with pytest.raises(OptionError, match="the data come first"):
        mixed("Reaction", SLEEP, ["Days"], "Subject")


def test_columns_called_like_the_intercept(data):
    with pytest.raises(DataError, match="called like the intercept"):
        mixed(data.rename(columns={"x": "_cons"}), "y", ["_cons"], "g")


@pytest.mark.parametrize(
    ("trials", "message"),
    [
        (3, "7 of 56 rows have more successes than trials \\(row 2: incidence = 4, trials = 3\\)"),
        ("sise", "`trials` names 'sise'"),
        ("herd", "the trials 'herd' are not numeric but factor"),
        ([1, 2], "`trials` has 2 values"),
        (2.5, "give a whole number"),
        (True, "`trials` is True"),
    ],
)
def test_trials_that_cannot_be(trials, message):
    with pytest.raises((DataError, OptionError), match=message):
        melogit(CBPP, "incidence", ["period"], "herd", trials=trials)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda d: mepoisson(d, "negative", ["period"], "herd"), "negative or not whole"),
        (lambda d: menbreg(d, "negative", ["period"], "herd"), "negative or not whole"),
        (lambda d: megamma(d, "incidence", ["period"], "herd"), "zero or negative"),
        (lambda d: melogit(d, "incidence", ["period"], "herd"), "outside 0 .. 1"),
        (lambda d: mepoisson(d, "incidence", ["period"], "herd", weights="size", family="x"), "Use meglm"),
        (lambda d: meglm(d, "incidence", ["period"], "herd", "poisson", trials="size"), "`trials` is for the binomial"),
        (lambda d: melogit(d, "incidence", ["period"], "herd", link="probit"), "not the logit link"),
        (lambda d: meglm(d, "incidence", ["period"], "herd", "poison"), "Did you mean 'poisson'"),
        (lambda d: melogit(d, "incidence", ["period"], "herd", trials="size", nAGQ=-1), "nAGQ=-1"),
        (lambda d: melogit(d, "incidence", ["period"], "herd", trials="size", ddf="satterthwaite"), "linear mixed"),
        (lambda d: meologit(d, "period", ["size"], "herd", threshold="free"), "threshold"),
    ],
)
def test_refused_before_any_fitting(call, message):
    with pytest.raises((lme4py.Lme4Error, TypeError), match=message):
        call(CBPP.assign(negative=CBPP["incidence"] - 3))


def test_crossed_factors_are_not_fitted_as_nested():
    data = load_dataset("Penicillin")
    with pytest.raises(DesignError, match="if the factors are crossed, give crossed=True"):
        mixed(data, "diameter", None, ["plate", "sample"])
    counts = data.assign(n=np.round(data["diameter"]))
    with pytest.raises(DesignError, match=r"each of the 144 combinations has one row.*crossed=True"):
        mepoisson(counts, "n", None, ["plate", "sample"])
    result = mixed(load_dataset("Machines"), "score", ["Machine"], ["Worker", "Machine"])
    assert "read as 18 groups nested in them; give crossed=True" in " ".join(result.summary().split())
    distinct = load_dataset("Pastes").assign(cask=lambda d: d["batch"].astype(str) + d["cask"].astype(str))
    assert "crossed" not in mixed(distinct, "strength", None, ["batch", "cask"]).summary()


def test_few_evaluations_are_not_certified():
    with pytest.warns(lme4py.ConvergenceWarning):
        result = melogit(load_dataset("Contraception"), "use", ["age"], "district", ["urban"], maxiter=1)
    assert not result.converged


# --- the summary -----------------------------------------------------------------------------------------------------


def test_summary_in_the_order_of_stata():
    text = mixed(SLEEP, "Reaction", ["Days"], "Subject", ["Days"]).summary()
    parts = [
        "Mixed-effects REML regression",
        "Log restricted-likelihood:  -871.8141",
        "Wald chi2(1):               45.85, Prob > chi2 = 1.3e-11",
        "Group variable  No. of groups  Minimum  Average  Maximum",
        "Subject                    18       10       10       10",
        "Reaction  Coefficient  Std. err.      z    P>|z|  [95% conf.  interval]",
        "Days           10.467      1.546   6.77  1.3e-11       7.438     13.497",
        "_cons         251.405      6.825  36.84   <2e-16     238.029    264.781",
        "Subject: Unstructured",
        # Stata prints the standard errors 288.8, 14.78, 46.68 and 77.19 of these variances.
        "var(Days)                  35.072     14.782      15.353     80.117",
        "var(_cons)                612.090    288.783     242.784   1543.157",
        "cov(Days,_cons)             9.604     46.678     -81.884    101.092",
        "var(Residual)               654.941     77.186     519.861    825.120",
        "LR test vs. linear model: chibar2 = 150.04",
        "Converged",
    ]
    places = [text.find(part) for part in parts]
    assert min(places) >= 0, parts[places.index(-1)]
    assert places == sorted(places)


def test_summary_of_levels_thresholds_and_dispersion():
    nested = mixed(load_dataset("Pastes"), "strength", None, ["batch", "cask"]).summary()
    assert nested.find("batch: Identity") < nested.find("cask:batch: Identity") < nested.find("var(Residual)")
    assert "Wald" not in nested
    one = mixed(SLEEP, "Reaction", ["Days"], "Subject", ["Days"], "exchangeable", ddf="satterthwaite").summary()
    assert "var(_cons Days)" in one
    assert "cov(_cons Days)" in one
    assert "Degrees of freedom: Satterthwaite." in one
    ordinal = meologit(load_dataset("wine"), "rating", ["temp", "contact"], "judge").summary()
    assert ordinal.startswith("Mixed-effects ordered logistic regression")
    assert ordinal.find("/cut4") < ordinal.find("var(_cons)") < ordinal.find("LR test vs. ordered logistic model")
    assert "/cut1 1|2" in ordinal
    counts = menbreg(load_dataset("Salamanders"), "count", ["mined"], "site").summary()
    # The logarithm of alpha, which the header prints as 1.565.
    row = next(line.split() for line in counts.splitlines() if "/lnalpha" in line)
    assert [float(cell) for cell in row[1:3]] == pytest.approx([np.log(1.565), 0.1177], abs=6e-4)  # as printed
    # MASS's glm.nb gives the log-likelihood -878.1677 without the random effects.
    assert "LR test vs. negative binomial model: chibar2(01) = 18.00" in counts


def test_latex_has_no_bare_special_characters():
    import re

    name = "a_b%&#$^~\\{}<>|x"
    result = mixed(SLEEP.rename(columns={"Days": name}), "Reaction", [name], "Subject", [name])
    text = result.to_latex()
    body = [line for line in text.splitlines() if not line.startswith("%")]
    # What stands alone in a line of a table: a column end, or math of a number.
    for line in body:
        assert not re.search(r"(?<!\\)[_#%]", line), line
        assert line.count("{") - line.count(r"\{") == line.count("}") - line.count(r"\}"), line


def test_front_doors_speak_their_own_language():
    formula = lme4py.lmer("Reaction ~ Days + (Days | Subject)", SLEEP)
    keyword = mixed(SLEEP, "Reaction", ["Days"], "Subject", ["Days"])
    assert "Intercept" in formula.params.index
    assert "Linear mixed model fit by REML" in formula.summary()
    assert np.isfinite(formula.coef_table()["df"]).all()
    assert np.isinf(keyword.coef_table()["df"]).all()
    assert lme4py.lrtest(mixed(SLEEP, "Reaction", ["Days"], "Subject"), formula).df == 2


def test_clusters_that_cannot_be(data):
    with pytest.raises(OptionError, match="vce='h' is not possible: levels of g have rows in several clusters"):
        mixed(data, "y", ["x"], "g", vce="h")
    with pytest.raises(OptionError, match=r"crossed.*name a column of coarser clusters"):
        mixed(data, "y", ["x"], ["g", "h"], crossed=True, vce="robust")
    table = data.assign(half=np.where(data["g"] < 12, "low", "high"))
    table.loc[3, "half"] = None
    with pytest.raises(DataError, match="is missing in 1 of the rows"):
        mixed(table, "y", ["x"], "g", vce="half")
    assert mixed(table.dropna(), "y", ["x"], "g", vce="half").bse.notna().all()


def test_rows_with_missing_values_are_left_out_once():
    data = CBPP.astype({"size": float, "incidence": float})
    data.loc[3, "size"] = np.nan
    data.loc[5, "incidence"] = np.nan
    data.loc[9, "herd"] = None
    expected = lme4py.glmer("cbind(incidence, size - incidence) ~ period + (1 | herd)", data)
    for trials in ("size", data["size"].to_numpy()):
        result = melogit(data, "incidence", ["period"], "herd", trials=trials)
        assert result.n_obs == 53
        assert result.log_likelihood == expected.log_likelihood
    proportion = data.assign(p=data["incidence"] / data["size"])
    # Counts from proportions: a rounding.
    again = melogit(proportion, "p", ["period"], "herd", weights="size")
    assert again.log_likelihood == pytest.approx(expected.log_likelihood, abs=1e-9)


def test_trials_of_an_expression():
    result = melogit(CBPP, "incidence + 0", ["period"], "herd", trials="size")
    assert result.formula == "cbind(incidence + 0, size - (incidence + 0)) ~ period + (1 | herd)"
    # glmer's value.
    assert result.log_likelihood == pytest.approx(-92.02628187, abs=1e-8)
