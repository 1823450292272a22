"""Changing a formula or the arguments of a fit."""

from __future__ import annotations

import copy
import pickle

import pytest

import lme4py
from lme4py.arguments import binder
from lme4py.errors import FormulaError, Lme4Error, Lme4Warning, OptionError
from lme4py.formula.parse import parse_formula
from lme4py.formula.update import update_formula

OLD = "Reaction ~ Days + (Days | Subject)"


@pytest.mark.parametrize(
    ("old", "change", "new"),
    [
        # What R's update.formula makes of the same texts.
        (OLD, "~ . - Days", "Reaction ~ 1 + (Days | Subject)"),
        (OLD, ". ~ . + (0 + Days | Item)", "Reaction ~ Days + (Days | Subject) + (0 + Days | Item)"),
        (OLD, "~ . - (1 + Days | Subject) + (1 | Subject)", "Reaction ~ Days + (1 | Subject)"),
        (OLD, "log(.) ~ . + I(Days^2)", "log(Reaction) ~ Days + I(Days^2) + (Days | Subject)"),
        (OLD, "other ~ .", "other ~ Days + (Days | Subject)"),
        (OLD, "~ . * x", "Reaction ~ Days + x + Days:x + (Days | Subject)"),
        (OLD, "~ (. + x)^2", "Reaction ~ Days + x + Days:x + (Days | Subject)"),
        (OLD, "~ . - 1", "Reaction ~ 0 + Days + (Days | Subject)"),
        (OLD, "~ 0 + .", "Reaction ~ 0 + Days + (Days | Subject)"),
        (OLD, "~ x + (1 | g)", "Reaction ~ x + (1 | g)"),
        (OLD, "~ . + (Days | Subject)", "Reaction ~ Days + (Days | Subject)"),
        (OLD, "~ . + (x + (1 | g))", "Reaction ~ Days + x + (Days | Subject) + (1 | g)"),
        ("y ~ 0 + a * b + (1 | g)", "~ . - a:b", "y ~ 0 + a + b + (1 | g)"),
        ("y ~ 0 + a + (1 | g)", "~ . + 1", "y ~ a + (1 | g)"),
        ("y ~ a + offset(log(t)) + (1 | g)", "~ . + b", "y ~ a + b + offset(log(t)) + (1 | g)"),
        ("y ~ a + offset(log(t)) + (1 | g)", "~ . - offset(log(t))", "y ~ a + (1 | g)"),
        ("y ~ 1 + (1 | a/b)", "~ . - (1 | a)", "y ~ 1 + (1 | b:a)"),
        ("y ~ x + (x || g)", "~ . - (0 + x | g)", "y ~ x + (1 | g)"),
        ("y ~ x + diag(f | g)", "~ . - x", "y ~ 1 + diag(f | g)"),
        ("y ~ x | g", "~ . + z", "y ~ z + (x | g)"),
        ("cbind(s, n - s) ~ p + (1 | g)", "~ . + q", "cbind(s, n - s) ~ p + q + (1 | g)"),
        ("y ~ `a b` + (1 | `g 1`)", "~ . + z", "y ~ `a b` + z + (1 | `g 1`)"),
    ],
)
def test_formulas(old, change, new):
    assert update_formula(parse_formula(old), change)[0] == new


def test_a_dot_that_stood_for_all_columns():
    old = parse_formula("y ~ . - g + (1 | g)", ["y", "a", "b", "g"])
    assert update_formula(old, "~ . - b")[0] == "y ~ a + (1 | g)"


def test_what_cannot_be_removed():
    with pytest.raises(FormulaError, match=r"no random-effects term `\(1 \| g\)` to remove; there are \(Days"):
        update_formula(parse_formula(OLD), "~ . - (1 | g)")
    assert "removes nothing" in update_formula(parse_formula(OLD), "~ . - x")[1][0]
    with pytest.raises(FormulaError, match="no `~`"):
        update_formula(parse_formula(OLD), "Days")
    with pytest.raises(FormulaError, match="of type int"):
        update_formula(parse_formula(OLD), 3)


def test_results_are_new_and_equal_to_a_fresh_fit(sleep, sleepstudy):
    other = sleep.update("~ . - Days", reml=False)
    fresh = lme4py.lmer("Reaction ~ 1 + (Days | Subject)", sleepstudy, reml=False)
    assert type(other) is type(sleep)
    assert other is not sleep
    assert other.criterion == fresh.criterion
    assert other.formula == fresh.formula
    assert sleep.formula == OLD
    # Arguments stay, and can be changed again.
    assert not other.update("~ . + Days").reml
    assert other.update(data=sleepstudy.head(100)).n_obs == 100


def test_generalised_and_ordinal_models():
    cbpp = lme4py.glmer(
        "cbind(incidence, size - incidence) ~ period + (1 | herd)", lme4py.load_dataset("cbpp"), "binomial", nAGQ=5
    )
    small = cbpp.update("~ . - period")
    assert (small.nAGQ, small.family, list(small.params.index)) == (5, "binomial", ["Intercept"])
    assert cbpp.update(link="probit", nAGQ=1).link == "probit"
    counts = lme4py.glmer_nb("count ~ mined + (1 | site)", lme4py.load_dataset("Salamanders"))
    assert counts.update("~ . + cover").family == "nbinomial"
    wine = lme4py.clmm("rating ~ temp + contact + (1 | judge)", lme4py.load_dataset("wine"), threshold="equidistant")
    assert wine.update("~ . - contact").fit.family.threshold == "equidistant"


def test_errors_and_warnings(sleep):
    with pytest.raises(OptionError, match="Did you mean 'reml'"):
        sleep.update(remll=False)
    with pytest.warns(Lme4Warning, match="removes nothing"):
        sleep.update("~ . - x")
    with pytest.raises(Lme4Error, match="nothing to update"):
        sleep.refit(sleep.fit.design.y).update("~ .")


def test_copies_and_pickles(sleep, sleepstudy):
    assert copy.deepcopy(sleep).update("~ . - Days").params.size == 1
    loaded = pickle.loads(pickle.dumps(sleep))
    with pytest.raises(OptionError, match="as data="):
        loaded.update("~ . - Days")
    assert loaded.update("~ . - Days", data=sleepstudy).params.size == 1


def test_arguments_are_bound_by_name():
    def function(first, second=2, *, third=3):
        return first, second, third

    def open_ended(first, **more):
        return first, more

    bound = binder(function)
    assert bound((1,), {}) == {"first": 1}
    assert bound((1, 5), {"third": 4}) == {"first": 1, "second": 5, "third": 4}
    assert bound((), {"first": 1}) == {"first": 1}
    assert binder(open_ended)((1,), {"other": 2}) == {"first": 1, "other": 2}
    for args, given in [((1, 2, 3), {}), ((1,), {"first": 1}), ((), {"second": 1}), ((1,), {"fourth": 1})]:
        with pytest.raises(Lme4Error):
            bound(args, given)
