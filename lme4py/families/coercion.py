"""How a response is read: from the value of the left-hand side to the numbers of a family, or an error."""

from __future__ import annotations

import numpy as np

from lme4py.errors import DataError
from lme4py.families.response import ResponseData
from lme4py.formula.values import Value, check_finite, response_values
from lme4py.linalg.types import BoolArray, FloatArray

__all__ = [
    "no_zero_weights",
    "one_column",
    "read_binomial",
    "refuse",
    "refuse_constant",
    "refuse_outside",
    "successes_of_trials",
    "whole_numbers",
]

# Relative rounding error of a proportion, written with six digits or more, times the trials; and of a count.
_PROPORTION = 1e-6
_COUNT = 1e-9


def one_column(value: Value, name: str) -> FloatArray:
    """The response as numbers, one for each row."""
    y = response_values(value, name)
    if y.ndim == 2:
        raise DataError(
            f"the response '{name}' has two columns, which only the binomial and multinomial families read; give one"
        )
    return y


def refuse_outside(bad: BoolArray, y: FloatArray, name: str, family: str, support: str, advice: str) -> None:
    """Refuse responses that a family cannot have, with their number, the first rows and what to do.

    Parameters
    ----------
    bad : ndarray of bool, shape (n,)
    y : ndarray, shape (n,)
    name, family, support, advice : str
    """
    if not bad.any():
        return
    first = np.flatnonzero(bad)[:5]
    shown = ", ".join(f"row {i + 1}: {y[i]:g}" for i in first) + ", ..." * (int(bad.sum()) > 5)
    raise DataError(
        f"the response '{name}' has {int(bad.sum())} of {y.size} values that the {family} family cannot have ({shown}; "
        f"rows of those used); it needs {support}: {advice}"
    )


def refuse_constant(y: FloatArray, name: str) -> None:
    """Refuse a continuous response without variation."""
    if y.size and np.all(y == y[0]):
        raise DataError(
            f"all {y.size} values of the response '{name}' are {y[0]:g}: a constant has no variance to "
            "estimate; check the column"
        )


def successes_of_trials(
    successes: FloatArray, trials: FloatArray, name: str, weights: FloatArray | None = None
) -> ResponseData:
    """Successes out of trials, checked.

    Parameters
    ----------
    successes, trials : ndarray, shape (n,)
        Whole numbers, 0 <= successes <= trials. A row with no trials says nothing and does no harm.
    name : str
        For messages.
    weights : ndarray, shape (n,), optional
        Multiply the log-likelihood of the row.
    """
    y = whole_numbers(successes, f"the successes of '{name}'", "successes are counts 0, 1, 2, ...")
    m = whole_numbers(trials, f"the trials of '{name}'", "trials are counts 0, 1, 2, ...")
    above = y > m
    if above.any():
        i = int(np.argmax(above))
        raise DataError(
            f"'{name}' has more successes than trials in {int(above.sum())} of {y.size} rows (first: {y[i]:g} of "
            f"{m[i]:g}); correct these rows"
        )
    return _informative(ResponseData(y, None if np.all(m == 1.0) else m, weights), name)


def read_binomial(value: Value, name: str, weights: FloatArray | None) -> ResponseData:
    """Successes and trials of a 0/1 column, a factor with two levels, cbind(successes, failures), or proportions.

    Parameters
    ----------
    value : Value
    name : str
    weights : ndarray, shape (n,), optional
        The numbers of trials, which can be 0, where the response is a column of numbers between 0 and 1; for every
        other kind of response, and for 0/1 with weights that are not whole, they multiply the log-likelihood.
    """
    if value.is_factor:
        no_zero_weights(weights)
        return _informative(ResponseData(_second_level(value, name), None, weights), name)
    y = response_values(value, name)
    if y.ndim == 2:
        no_zero_weights(weights)
        failures = whole_numbers(
            y[:, 1],
            f"the failures of '{name}'",
            "the second column of cbind() counts failures (trials less successes), and trials must be at least "
            "the successes",
        )
        successes = whole_numbers(y[:, 0], f"the successes of '{name}'", "successes are counts 0, 1, 2, ...")
        return successes_of_trials(successes, successes + failures, name, weights)
    refuse(
        (y < 0.0) | (y > 1.0),
        y,
        f"the response '{name}'",
        "outside 0 .. 1; the binomial family reads 0/1, a two-level factor, proportions with weights= the numbers of "
        "trials, or cbind(successes, failures); melogit() and its kin take trials=",
    )
    if value.kind == "boolean":
        no_zero_weights(weights)
        return _informative(ResponseData(y, None, weights), name)
    return _proportion(y, name, weights)


def _second_level(value: Value, name: str) -> FloatArray:
    """1 where a factor has its second level."""
    if len(value.levels) > 2:
        listed = ", ".join(map(repr, value.levels[:5])) + ", ..." * (len(value.levels) > 5)
        raise DataError(
            f"the response '{name}' is text or a factor with {len(value.levels)} levels ({listed}), but the binomial "
            "family needs two; use clmm() for ordered categories, or make a 0/1 column for one of them"
        )
    if len(value.levels) < 2:
        raise DataError(
            f"the response '{name}' has one level only ({', '.join(map(repr, value.levels))}) in the "
            f"{value.values.size} rows used: the probability has no estimate inside 0 .. 1; check the column, or "
            "use more data"
        )
    return np.asarray(value.values == 1, dtype=np.float64)


def _proportion(y: FloatArray, name: str, weights: FloatArray | None) -> ResponseData:
    """Numbers between 0 and 1: outcomes of one trial, or proportions of `weights` trials."""
    fractions = (y > 0.0) & (y < 1.0)
    if weights is None or (not fractions.any() and np.any(weights != np.rint(weights))):
        refuse(
            fractions,
            y,
            f"the response '{name}'",
            "between 0 and 1; give the numbers of trials as weights=, or write cbind(successes, failures)",
        )
        no_zero_weights(weights)
        return _informative(ResponseData(y, None, weights), name)
    trials = whole_numbers(weights, "the weights", f"the numbers of trials of the proportions '{name}' are whole")
    successes = y * trials
    rounded = np.rint(successes)
    off = _not_whole(successes, _PROPORTION)
    if off.any():
        i = int(np.argmax(off))
        raise DataError(
            f"'{name}' times weights is not a whole number of successes in {int(off.sum())} of {y.size} rows "
            f"(first: {y[i]:g} * {trials[i]:g} = {successes[i]:g}); weights= must hold the numbers of trials; "
            "or write cbind(successes, failures)"
        )
    return successes_of_trials(rounded, trials, name)


def no_zero_weights(weights: FloatArray | None) -> None:
    """Refuse zeros where weights are no numbers of trials."""
    zero = 0 if weights is None else int((weights == 0.0).sum())
    if zero:
        raise DataError(
            f"the weights hold {zero} zero value(s) but must be positive and finite; remove these rows (only the "
            "numbers of trials of proportions can be 0)"
        )


def _informative(data: ResponseData, name: str) -> ResponseData:
    """Refuse only failures or only successes: the estimate of the probability is 0 or 1, at an infinite eta."""
    for none, all_of in ((data.y, "failures (0)"), (data.failures, "successes (1)")):
        if not none.any():
            raise DataError(
                f"the response '{name}' has only {all_of} in all {data.n_obs} rows used: the probability has no "
                "estimate inside 0 .. 1; check the column and how it is coded, or use more data"
            )
    return data


def whole_numbers(values: FloatArray, what: str, need: str) -> FloatArray:
    """Counts without rounding error, or an error that says what is `need`ed."""
    check_finite(values, [what], "{name}")
    bad = _not_whole(values, _COUNT) | (values < 0.0)
    refuse(bad, values, what, f"negative or not whole; {need}; correct these rows")
    return np.rint(values)


def _not_whole(values: FloatArray, relative: float) -> BoolArray:
    """True where a value is further from a whole number than rounding explains."""
    # For large numbers a relative tolerance alone would let halves through.
    tolerance = np.minimum(relative * np.maximum(1.0, np.abs(values)), 0.01)
    return np.asarray(np.abs(values - np.rint(values)) > tolerance)


def refuse(bad: BoolArray, values: FloatArray, what: str, why: str) -> None:
    if bad.any():
        first = values[int(np.argmax(bad))]
        raise DataError(f"{what}: {int(bad.sum())} of {values.size} values (first: {first:g}) that are {why}")
