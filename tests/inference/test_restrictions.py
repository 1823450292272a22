"""Linear hypotheses written as text, names, dicts, matrices and frames."""

from __future__ import annotations

import numpy as np
import pytest

import lme4py
from lme4py.inference.estimates.restrictions import linear_hypotheses

NAMES = ["Intercept", "Days", "period[T.2]", "poly(x, 2)1", "I(x^2)", "a b", "a:b", "a"]


def row(**weights):
    return [weights.get(name, 0.0) for name in NAMES]


@pytest.mark.parametrize(
    ("given", "rows", "target"),
    [
        ("Days", [row(Days=1)], [0]),
        ("Days = 10", [row(Days=1)], [10]),
        ("Days - 10 = 0", [row(Days=1)], [10]),
        ("10 = Days", [row(Days=-1)], [-10]),
        ("Days - 10", [row(Days=1)], [10]),
        ("2*Days + period[T.2] = Intercept / 2", [row(Days=2, Intercept=-0.5, **{"period[T.2]": 1})], [0]),
        ("poly(x, 2)1 = 0, a:b - a = 1e-3", [row(**{"poly(x, 2)1": 1}), row(**{"a:b": 1, "a": -1})], [0, 1e-3]),
        ("I(x^2) - `a b` = -1", [row(**{"I(x^2)": 1, "a b": -1})], [-1]),
        ("-(Days - a) * 3 = 1 + 2", [row(Days=-3, a=3)], [3]),
        ({"Days": 10, "a - a:b": 1}, [row(Days=1), row(**{"a": 1, "a:b": -1})], [10, 1]),
        (["Days", "a = 2"], [row(Days=1), row(a=1)], [0, 2]),
        (np.array(row(Days=1)), [row(Days=1)], [0]),
    ],
)
def test_hypotheses(given, rows, target):
    found = linear_hypotheses(NAMES, given)
    np.testing.assert_array_equal(found.R, rows)
    np.testing.assert_array_equal(found.target, target)


@pytest.mark.parametrize(
    ("given", "value", "message"),
    [
        ("Dayz = 1", 0, "no fixed effect 'Dayz'. Did you mean 'Days'"),
        ("Days * a", 0, "not linear"),
        ("Days / a", 0, "division by a number"),
        ("Days / 0", 0, "division by a number"),
        ("Days =", 0, "missing at its end"),
        ("(Days", 0, "not closed"),
        ("Days = a = 0", 0, "not expected there"),
        ("2 = 3", 0, "no coefficient"),
        ("Days = 3", 2, "leave `value` out"),
        ({"Days": 3}, 2, "leave `value` out"),
        ({"Days = 2": 3}, 0, "leave out the `=`"),
        ({}, 0, "empty dict"),
    ],
)
def test_what_cannot_be_read(given, value, message):
    with pytest.raises(lme4py.OptionError, match=message):
        linear_hypotheses(NAMES, given, value)


def test_text_gives_the_tests_of_its_matrix():
    fit = lme4py.lmer("Reaction ~ Days + I(Days^2) + (1 | Subject)", lme4py.load_dataset("sleepstudy"))
    R = [[0, 1, -2]]
    assert fit.wald_test("Days - 2*I(Days^2) = 3") == fit.wald_test(R, 3.0)
    assert fit.wald_test({"Days - 2*I(Days^2)": 3}) == fit.wald_test(R, 3.0)
    assert fit.contest("Days - 2*I(Days^2) = 3").equals(fit.contest(R, value=3.0))
    single = fit.contest("Days = 10, I(Days^2)", joint=False)
    assert list(single.index) == ["`Days` = 10", "`I(Days^2)`"]
    np.testing.assert_array_equal(single, fit.contest([[0, 1, 0], [0, 0, 1]], value=[10, 0], joint=False))


def test_generalised_models_have_tests_of_single_hypotheses():
    fit = lme4py.glmer("use ~ age + urban + (1 | district)", lme4py.load_dataset("Contraception"), "binomial")
    single = fit.contest("age = 0", joint=False)
    expected = fit.coef_table().loc["age"]
    np.testing.assert_allclose(single.iloc[0], expected, rtol=1e-12)  # the same numbers, another summation
    with pytest.raises(lme4py.OptionError, match="wald_test"):
        fit.contest("age = 0")
