"""Words of R, Stata, statsmodels, pymer4 and scikit-learn get an error that names the lme4py call."""

from __future__ import annotations

import re

import pytest

import lme4py
from lme4py.errors import ARGUMENTS, ATTRIBUTES, FUNCTIONS, VALUES, UnknownArgumentError, did_you_mean

S = lme4py.load_dataset("sleepstudy")


@pytest.fixture(scope="module")
def fit():
    return lme4py.lmer("Reaction ~ Days + (1 | Subject)", S)


@pytest.fixture(scope="module")
def logit():
    return lme4py.melogit(lme4py.load_dataset("cbpp"), "incidence", ["period"], "herd", trials="size")


@pytest.mark.parametrize("name", sorted(ATTRIBUTES))
def test_the_names_that_are_advised_exist(fit, logit, name):
    call = ATTRIBUTES[name]
    # "model_matrix, Zt and theta", "influence().cooks_distance", 'predict(...) of lme4py.Margins...'
    if "lme4py." in call:
        assert hasattr(lme4py, re.search(r"lme4py\.(\w+)", call).group(1))
        return
    first = re.match(r"\w+", call).group()
    assert hasattr(type(fit), first) or hasattr(type(logit), first)
    assert not hasattr(type(fit), name), "a name of our own is no foreign word"
    with pytest.raises(AttributeError, match=re.escape(call)):
        getattr(fit, name)
    assert not hasattr(logit, name)


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_functions_of_other_modules(name):
    with pytest.raises(AttributeError, match=re.escape(FUNCTIONS[name])):
        getattr(lme4py, name)


def test_methods_that_are_functions_elsewhere():
    with pytest.raises(AttributeError, match=r"lme4py has no 'VarCorr'; it is result.var_corr\(\)"):
        lme4py.VarCorr  # noqa: B018
    with pytest.raises(AttributeError, match="Did you mean 'lmer'"):
        lme4py.lmre  # noqa: B018


@pytest.mark.parametrize(
    ("call", "advice"),
    [
        (lambda f, g: lme4py.lmer("Reaction ~ 1 + (1 | Subject)", S, REML=False), "reml=False"),
        (lambda f, g: lme4py.mixed(S, "Reaction", ["Days"], "Subject", REML=False), 'method="ml"'),
        (lambda f, g: lme4py.mixed(S, "Reaction", ["Days"], "Subject", reml=False), 'method="ml"'),
        (lambda f, g: lme4py.lmer("Reaction ~ 1 + (1 | Subject)", S, method="ml"), "reml=False"),
        (lambda f, g: lme4py.glmer("y ~ 1 + (1 | g)", S, exposure="x"), "offset="),
        (lambda f, g: lme4py.mepoisson(S, "y", [], "g", exposure="x"), "offset="),
        (lambda f, g: lme4py.melogit(S, "y", [], "g", intpoints=7), "nAGQ=7"),
        (lambda f, g: lme4py.meglm(S, "y", [], "g", intpoints=7), "nAGQ=7"),
        (lambda f, g: lme4py.mixed(S, "y", ["x"], "g", subset="x > 0"), "data=data["),
        (lambda f, g: lme4py.mixed(S, "y", [], "g", residuals="ar1"), "residual="),
        (lambda f, g: f.predict(newdata=S), "data="),
        (lambda f, g: g.predict(newdata=S), "data="),
        (lambda f, g: f.predict(re_form=None), "include_random"),
        (lambda f, g: lme4py.lmer("y ~ 1 + (1 | g)", S, re_form=None), r"predict\(include_random=False\)"),
        (lambda f, g: lme4py.clmm("y ~ 1 + (1 | g)", S, **{"re.form": None}), r"predict\(include_random=False\)"),
        (lambda f, g: lme4py.mixed(S, "y", [], "g", re_form=None), r"predict\(include_random=False\)"),
        (lambda f, g: lme4py.glmer("y ~ 1 + (1 | g)", S, allow_new_levels=True), r"predict\(data, new_levels="),
        (lambda f, g: lme4py.melogit(S, "y", [], "g", **{"allow.new.levels": True}), r"predict\(data, new_levels="),
        (lambda f, g: lme4py.lmer("y ~ 1 + (1 | g)", S, newdata=S), r"result\.predict\(data\)"),
        (lambda f, g: lme4py.mixed(S, "y", [], "g", newdata=S), r"result\.predict\(data\)"),
        (lambda f, g: f.predict(S, at={"Days": 1}), "Margins.response"),
        (lambda f, g: f.conf_int(level=0.9), "alpha=0.1"),
        (lambda f, g: f.tidy(level=0.9), "conf_level=0.9"),
        (lambda f, g: f.update(REML=False), "reml=False"),
        (lambda f, g: lme4py.melogit(S, "y", [], "g", irr=True), r"incidence_rate_ratios\(\)"),
        (lambda f, g: lme4py.glmer_nb("y ~ 1 + (1 | g)", S, ziformula="~ 1"), "glmer(formula, data, family, ziformula"),
        (lambda f, g: lme4py.power(f, "Days", nsim=10), "n_sim=1000"),
    ],
)
def test_arguments_of_other_programs(fit, logit, call, advice):
    with pytest.raises(UnknownArgumentError, match=re.escape(advice) if "\\" not in advice else advice) as found:
        call(fit, logit)
    assert isinstance(found.value, TypeError)
    assert isinstance(found.value, lme4py.Lme4Error)


@pytest.mark.parametrize(
    ("call", "why"),
    [
        (lambda f, g: lme4py.mixed("y", ["x"], "g", data=S), r"mixed\(\): multiple values for argument 'data'"),
        (lambda f, g: lme4py.lmer("y ~ 1 + (1 | g)"), r"lmer\(\): missing a required argument: 'data'"),
        (lambda f, g: lme4py.aicc(f, g, g), r"aicc\(\): too many positional arguments\. .* result\."),
        (lambda f, g: f.contest("Days", *[False] * 9), r"contest\(\): too many .* in this order, are"),
    ],
)
def test_arguments_in_the_wrong_place(fit, logit, call, why):
    with pytest.raises(UnknownArgumentError, match=why):
        call(fit, logit)


def test_no_text_counts_as_true(fit):
    with pytest.raises(lme4py.OptionError, match="`conditional_se` is 'Subject'; give True or False"):
        fit.ranef("Subject")


@pytest.mark.parametrize(
    ("call", "advice"),
    [
        (lambda f, g: g.predict(type="link"), "'linear'"),
        (lambda f, g: f.coef_table("KR"), "'kenward-roger'"),
        (lambda f, g: f.anova(ddf="KR"), "'kenward-roger'"),
        (lambda f, g: lme4py.Margins.linear_scale(f, ddf="KR"), "'kenward-roger'"),
        (lambda f, g: lme4py.glmer("Reaction ~ 1 + (1 | Subject)", S, "logistic"), "'binomial'"),
        (lambda f, g: f.conf_int(method="bootstrap"), "'boot'"),
    ],
)
def test_values_of_other_programs(fit, logit, call, advice):
    with pytest.raises(lme4py.OptionError, match=f"Did you mean {advice}"):
        call(fit, logit)


def test_a_foreign_value_is_only_advised_where_it_is_known():
    assert did_you_mean("link", ["response", "prob"]) == ""
    assert all(word == word.casefold() for word in VALUES)
    assert all(pairs for pairs in ARGUMENTS.values())


def test_upper_and_lower_case_of_ddf_do_not_matter(fit):
    assert fit.coef_table("Kenward-Roger").equals(fit.coef_table("kenward-roger"))
    assert fit.summary("Satterthwaite") == fit.summary("satterthwaite")
    assert fit.anova(ddf="Residual").equals(fit.anova(ddf="residual"))
    by_session = lme4py.Margins.linear_scale(fit, ddf="Residual").predict().to_frame()
    assert by_session.equals(lme4py.Margins.linear_scale(fit, ddf="residual").predict().to_frame())


def test_a_level_in_the_place_of_alpha_warns(fit):
    with pytest.warns(lme4py.Lme4Warning, match="for 90% limits write alpha=0.1"):
        fit.conf_int(0.9)
    with pytest.warns(lme4py.Lme4Warning, match=r"for 95% limits write alpha=0.05 \(conf_level=0.95"):
        fit.tidy(conf_int=True, conf_level=0.05)
    with pytest.warns(lme4py.Lme4Warning, match=r"for 95% limits write level=0.95"):
        lme4py.Margins.linear_scale(fit, level=0.05)


def test_a_property_that_fails_shows_its_own_error(fit, monkeypatch):
    def broken(self):
        raise AttributeError("inner")

    monkeypatch.setattr(type(fit), "n_obs", property(broken))
    with pytest.raises(AttributeError, match="inner"):
        fit.n_obs  # noqa: B018


def test_results_of_margins_know_foreign_names(logit):
    found = lme4py.Margins.response(logit).dydx()
    with pytest.raises(AttributeError, match=r"conf_int"):
        found.confint  # noqa: B018
    with pytest.raises(AttributeError, match=r"MarginsResult has no 'fixef'\.$"):
        found.fixef  # noqa: B018
    with pytest.raises(AttributeError, match="Did you mean 'to_frame'"):
        found.to_framee  # noqa: B018
