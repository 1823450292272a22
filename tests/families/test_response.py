"""Responses of generalised models: the forms that are read, and the errors."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import lme4py
from lme4py.errors import DataError
from lme4py.families.coercion import successes_of_trials
from lme4py.families.registry import response_family
from lme4py.families.response import ResponseData
from lme4py.formula.values import Value


def numbers(*values):
    return Value("numeric", np.array(values, dtype=float))


def factor(codes, levels, kind="factor"):
    return Value(kind, np.array(codes, dtype=np.int64), tuple(levels))


def columns(*pairs):
    return Value("matrix", np.array(pairs, dtype=float), suffixes=("[1]", "[2]"))


def read(value, name, family, weights=None):
    return response_family(family).coerce(value, name, weights)


def arrays(data: ResponseData):
    return tuple(None if part is None else part.tolist() for part in (data.y, data.trials, data.weights))


# --- binomial


@pytest.mark.parametrize(
    "value",
    [
        numbers(0, 1, 1),
        Value("boolean", np.array([0.0, 1.0, 1.0])),
        factor([0, 1, 1], ["no", "yes"]),
        factor([0, 1, 1], [3, 7], "ordered"),
    ],
    ids=["0/1", "boolean", "factor", "ordered"],
)
def test_one_trial_each(value):
    data = read(value, "y", "binomial")
    assert arrays(data) == ([0.0, 1.0, 1.0], None, None)
    assert data.n_obs == 3
    assert data.n_trials.tolist() == [1.0, 1.0, 1.0]
    assert data.failures.tolist() == [1.0, 0.0, 0.0]
    assert data.log_choose.tolist() == [0.0, 0.0, 0.0]


def test_successes_and_failures():
    data = read(columns((2, 12), (0, 0), (3, 1)), "cbind(s, f)", "binomial")
    assert arrays(data) == ([2.0, 0.0, 3.0], [14.0, 0.0, 4.0], None)
    # log of 91, 1 and 4; gamma functions lose a few units in the last place.
    np.testing.assert_allclose(data.log_choose, np.log([91.0, 1.0, 4.0]), rtol=1e-13, atol=1e-14)


def test_weights_of_counted_successes_multiply():
    weights = np.array([0.5, 2.0])
    data = read(columns((2, 12), (3, 1)), "cbind(s, f)", "binomial", weights)
    assert arrays(data) == ([2.0, 3.0], [14.0, 4.0], [0.5, 2.0])


def test_proportions_take_the_trials_from_the_weights():
    # 1/3 and 5/49 do not come back whole from the multiplication.
    data = read(numbers(1 / 3, 5 / 49, 0.0), "p", "binomial", np.array([3.0, 49.0, 8.0]))
    assert arrays(data) == ([1.0, 5.0, 0.0], [3.0, 49.0, 8.0], None)


def test_zeros_and_ones_with_weights():
    whole = read(numbers(0, 1), "p", "binomial", np.array([3.0, 2.0]))
    assert arrays(whole) == ([0.0, 2.0], [3.0, 2.0], None)
    # Weights that are no numbers of trials multiply the log-likelihood.
    survey = read(numbers(0, 1), "p", "binomial", np.array([0.7, 2.0]))
    assert arrays(survey) == ([0.0, 1.0], None, [0.7, 2.0])
    named = read(factor([0, 1], "ab"), "p", "binomial", np.array([3.0, 2.0]))
    assert arrays(named) == ([0.0, 1.0], None, [3.0, 2.0])


@pytest.mark.parametrize(
    ("value", "name", "weights", "message"),
    [
        (factor([0, 1, 2], "abc"), "y", None, r"'y' is text or a factor with 3 levels \('a', 'b', 'c'\).*clmm\(\)"),
        (factor([0, 1, 2] * 2, range(7)), "y", None, r"7 levels \(0, 1, 2, 3, 4, ...\)"),
        (factor([0, 0], ["no"]), "y", None, r"has one level only \('no'\) in the 2 rows used"),
        (numbers(0, 0, 0), "y", None, r"only failures \(0\) in all 3 rows used: .*check the column"),
        (numbers(1, 1), "y", None, r"only successes \(1\) in all 2 rows used"),
        (Value("boolean", np.ones(4)), "y", None, r"only successes \(1\) in all 4 rows"),
        (columns((3, 0), (2, 0)), "cbind(s, f)", None, r"'cbind\(s, f\)' has only successes"),
        (numbers(0, 2, -1, 1), "y", None, r"'y': 2 of 4 values \(first: 2\) that are outside 0 .. 1; .*cbind"),
        (numbers(0, 0.25, 1), "y", None, r"1 of 3 values \(first: 0.25\) that are between 0 and 1; .*weights="),
        (numbers(0.25, 0.5), "p", np.array([4.0, 5.0]), r"1 of 2 rows \(first: 0.5 \* 5 = 2.5\).*numbers of trials"),
        (numbers(0.25, 0.5), "p", np.array([4.5, 4.0]), r"the weights: 1 of 2 values \(first: 4.5\).*whole"),
        (columns((1, 2), (2.5, 2)), "cbind(s, f)", None, r"the successes .* 1 of 2 values \(first: 2.5\)"),
        (columns((1, 2), (2, -2)), "cbind(s, f)", None, r"the failures .*\(first: -2\).* at least the successes"),
        (columns((1, 2), (2, 3)), "poly(x, 2)", None, "has 2 columns"),
        (numbers(0, np.inf, 1), "y", None, "infinite"),
    ],
)
def test_binomial_errors(value, name, weights, message):
    with pytest.raises(DataError, match=message):
        read(value, name, "binomial", weights)


def test_successes_out_of_trials():
    data = successes_of_trials(np.array([1.0, 0.0]), np.array([4.0, 2.0]), "y")
    assert arrays(data) == ([1.0, 0.0], [4.0, 2.0], None)
    single = successes_of_trials(np.array([1.0, 0.0]), np.array([1.0, 1.0]), "y")
    assert single.trials is None
    with pytest.raises(DataError, match=r"'y' has more successes than trials in 1 of 2 rows \(first: 5 of 4\)"):
        successes_of_trials(np.array([5.0, 0.0]), np.array([4.0, 2.0]), "y")
    with pytest.raises(DataError, match=r"the trials of 'y': 1 of 2 values \(first: 2.5\)"):
        successes_of_trials(np.array([1.0, 0.0]), np.array([4.0, 2.5]), "y")


# --- counts and positive numbers


@pytest.mark.parametrize("family", ["poisson", "nbinomial", "nbinomial1"])
def test_counts(family):
    weights = np.array([1.0, 0.5, 2.0])
    data = read(numbers(0, 3, 3 * (1 + 1e-15)), "y", family, weights)
    assert arrays(data) == ([0.0, 3.0, 3.0], None, [1.0, 0.5, 2.0])
    for values, message in (
        ((1, 2.5, -1), r"'y': 2 of 3 values \(first: 2.5\) .*needs counts 0, 1, 2, ...; correct these rows"),
        ((1, 1e8 + 0.5), r"1 of 2 values \(first: 1e\+08\)"),
        ((0, 0), "all 2 values of the response 'y' are 0"),
        ((1, np.inf), "infinite"),
    ):
        with pytest.raises(DataError, match=message):
            read(numbers(*values), "y", family)


@pytest.mark.parametrize("family", ["gamma", "inverse_gaussian"])
def test_positive_numbers(family):
    data = read(numbers(0.5, 2.0), "y", family)
    assert arrays(data) == ([0.5, 2.0], None, None)
    assert data.weight == 1.0
    # One rounding each.
    np.testing.assert_allclose(data.log_y, np.log([0.5, 2.0]), rtol=1e-15)
    with pytest.raises(DataError, match=rf"1 of 2 values \(first: 0\) .*{family} family needs values above 0"):
        read(numbers(1, 0), "y", family)


@pytest.mark.parametrize("family", ["gamma", "inverse_gaussian", "gaussian"])
def test_constant(family):
    with pytest.raises(DataError, match="all 3 values of the response 'y' are 2: a constant has no variance"):
        read(numbers(2, 2, 2), "y", family)


@pytest.mark.parametrize("family", ["poisson", "gamma", "gaussian"])
def test_only_the_binomial_family_reads_two_columns_and_factors(family):
    with pytest.raises(DataError, match="two columns, which only the binomial and multinomial"):
        read(columns((1, 2), (2, 3)), "cbind(s, f)", family)
    with pytest.raises(DataError, match="not numeric"):
        read(factor([0, 1], "ab"), "y", family)


def test_gaussian_takes_any_number():
    assert arrays(read(numbers(-1.5, 2), "y", "gaussian")) == ([-1.5, 2.0], None, None)


def no_trials() -> pd.DataFrame:
    """The cbpp data with two rows of no trials."""
    data = lme4py.load_dataset("cbpp")
    data.loc[[3, 10], ["incidence", "size"]] = 0
    return data.assign(share=data["incidence"] / data["size"], whole=lambda d: d["share"].fillna(0.0))


def test_rows_without_trials_say_nothing_in_any_spelling():
    data = no_trials()
    assert data["share"].isna().sum() == 2
    formula = "{} ~ period + (1 | herd)"
    fits = [
        lme4py.glmer(formula.format("cbind(incidence, size - incidence)"), data),
        lme4py.glmer(formula.format("share"), data, weights="size"),
        lme4py.glmer(formula.format("whole"), data, weights=data["size"].to_numpy()),
        lme4py.glmer(formula.format("I(incidence / size)"), data, weights="size"),
        lme4py.melogit(data, "incidence", ["period"], "herd", trials="size"),
    ]
    without = lme4py.glmer(formula.format("share"), data[data["size"] > 0], weights="size")
    for fit in fits:
        assert fit.n_obs == 56
        assert fit.log_likelihood == pytest.approx(without.log_likelihood, abs=1e-8)
        np.testing.assert_allclose(fit.params, without.params, atol=1e-6)
        assert fit.residuals("pearson").iloc[[3, 10]].tolist() == [0.0, 0.0]
        assert fit.simulate(3, seed=1).iloc[3].tolist() == [0.0, 0.0, 0.0]
        limits = fit.predict(interval="prediction")
        assert limits.iloc[3][["lower", "upper"]].isna().all()
        assert limits.drop(index=[3, 10]).notna().all(axis=None)


def test_missing_shares_with_trials_and_weights_of_other_kinds_are_as_before():
    data = no_trials()
    data.loc[5, "share"] = np.nan
    assert lme4py.glmer("share ~ period + (1 | herd)", data, weights="size").n_obs == 55
    with pytest.raises(DataError, match="2 zero value"):
        lme4py.glmer("incidence ~ period + (1 | herd)", data, "poisson", weights="size")
    with pytest.raises(DataError, match="only the numbers of trials of proportions can be 0"):
        lme4py.glmer("cbind(incidence, size) ~ period + (1 | herd)", data, weights="size")
    with pytest.raises(DataError, match="2 zero value"):
        lme4py.lmer("incidence ~ period + (1 | herd)", data, weights="size")
