"""The response of a generalised model: checked, and as the numbers that a family works on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, xlogy

from lme4py.design.fixed import check_finite, response_values
from lme4py.errors import DataError
from lme4py.formula.values import Value
from lme4py.frozen import computed_once

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

__all__ = ["ResponseData", "binomial_response", "glmm_response"]

_COUNTS = ("poisson", "nbinomial", "nbinomial1")
_POSITIVE = ("gamma", "inverse_gaussian")
# Relative rounding error of a proportion, written with six digits or more, times the trials; and of a count.
_PROPORTION = 1e-6
_COUNT = 1e-9


@dataclass(frozen=True)
class ResponseData:
    """What the log-likelihood of a row needs, apart from eta and the dispersion.

    Attributes
    ----------
    y : ndarray, shape (n,)
        The response; for the binomial family the number of successes (a count, not a proportion).
    trials : ndarray, shape (n,), or None
        Binomial: number of trials of the row (None: one each); None for all other families.
    weights : ndarray, shape (n,), or None
        Prior weights w > 0; None stands for ones. Poisson, binomial and negative binomial: the row's
        log-likelihood is multiplied by w. Gaussian, gamma and inverse Gaussian: its dispersion is phi / w.
    categories : tuple or None
        Ordered categories: the labels, lowest first, as the user's own objects; `y` then holds 0 .. K - 1.
    """

    y: FloatArray
    trials: FloatArray | None = None
    weights: FloatArray | None = None
    categories: tuple[Any, ...] | None = None

    @property
    def n_obs(self) -> int:
        """Number of rows; grouped binomial data count rows, not trials."""
        return int(self.y.shape[0])

    @property
    def weight(self) -> FloatArray | float:
        """Prior weights, shape (n,), or 1.0."""
        return 1.0 if self.weights is None else self.weights

    @property
    def table(self) -> FloatArray:
        """`y`, or successes and failures side by side, (n, 2), where rows have several trials."""
        return self.y if self.trials is None else np.column_stack([self.y, self.failures])

    # The rest does not change while a model is fitted: computed once.

    @computed_once
    def codes(self) -> NDArray[np.intp]:
        """`y` of ordered categories as positions 0 .. K - 1, shape (n,)."""
        return self.y.astype(np.intp)

    @computed_once
    def n_trials(self) -> FloatArray:
        """Trials as an array, shape (n,)."""
        return np.ones_like(self.y) if self.trials is None else self.trials

    @computed_once
    def failures(self) -> FloatArray:
        """Trials less successes, shape (n,)."""
        return self.n_trials - self.y

    @computed_once
    def log_choose(self) -> FloatArray:
        """log of the binomial coefficient, shape (n,)."""
        if self.trials is None:
            return np.zeros_like(self.y)
        result: FloatArray = gammaln(self.trials + 1.0) - gammaln(self.y + 1.0) - gammaln(self.failures + 1.0)
        return result

    @computed_once
    def log_factorial(self) -> FloatArray:
        """log y!, shape (n,)."""
        result: FloatArray = gammaln(self.y + 1.0)
        return result

    @computed_once
    def distinct(self) -> tuple[FloatArray, NDArray[np.intp]]:
        """The distinct responses, and for each row the position of its own among them: counts repeat."""
        values, index = np.unique(self.y, return_inverse=True)
        return values, index

    @computed_once
    def has_large_counts(self) -> bool:
        """Counts so large that y log mu - mu would lose the digits that a fit needs."""
        return bool(self.y.size) and float(self.y.max()) > 1e4

    @computed_once
    def saturated_poisson(self) -> FloatArray:
        """Poisson log-likelihood at mu = y, shape (n,)."""
        result: FloatArray = xlogy(self.y, self.y) - self.y - self.log_factorial
        return result

    @computed_once
    def log_y(self) -> FloatArray:
        """log y of positive responses, shape (n,)."""
        result: FloatArray = np.log(self.y)
        return result


def glmm_response(value: Value, name: str, family: str, weights: FloatArray | None = None) -> ResponseData:
    """The response of a generalised linear mixed model, checked for its family.

    Parameters
    ----------
    value : Value
        The evaluated left-hand side on the n rows used; unused levels of a factor are gone.
    name : str
        As the user wrote it, for messages.
    family : str
        Canonical name: gaussian, binomial, poisson, gamma, inverse_gaussian, nbinomial, nbinomial1.
    weights : ndarray, shape (n,), optional
        Prior weights, positive. Binomial: the numbers of trials, which can be 0, where the response is a column of
        numbers between 0 and 1; for every other kind of response, and for 0/1 with weights that are not whole, they
        multiply the log-likelihood of the row.

    Returns
    -------
    ResponseData

    Raises
    ------
    DataError
        Values that the family cannot have, or a response without information: only failures, only successes,
        only zeros, or a constant for a continuous family.

    Examples
    --------
    >>> import numpy as np
    >>> half = Value("numeric", np.array([0.5, 0.25, 1.0]))
    >>> data = glmm_response(half, "p", "binomial", np.array([2.0, 8.0, 3.0]))
    >>> data.y, data.trials
    (array([1., 2., 3.]), array([2., 8., 3.]))
    """
    if family == "binomial":
        return _binomial(value, name, weights)
    _no_zero_weights(weights)
    y = response_values(value, name)
    if y.ndim == 2:
        raise DataError(f"the response '{name}' has two columns, which only the binomial family reads; give one")
    if family in _COUNTS:
        y = _whole_numbers(y, f"the response '{name}'", f"the {family} family needs counts 0, 1, 2, ...")
        if not y.any():
            raise DataError(
                f"all {y.size} values of the response '{name}' are 0: the mean has no estimate above 0; "
                "check the column, or use more data"
            )
        return ResponseData(y, None, weights)
    if family in _POSITIVE:
        _refuse(
            y <= 0.0,
            y,
            f"the response '{name}'",
            f"zero or negative, but the {family} family needs values above 0; remove these rows, or use another family",
        )
    if y.size and np.all(y == y[0]):
        raise DataError(
            f"all {y.size} values of the response '{name}' are {y[0]:g}: a constant has no variance to "
            "estimate; check the column"
        )
    return ResponseData(y, None, weights)


def binomial_response(
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
    y = _whole_numbers(successes, f"the successes of '{name}'", "successes are counts 0, 1, 2, ...")
    m = _whole_numbers(trials, f"the trials of '{name}'", "trials are counts 0, 1, 2, ...")
    above = y > m
    if above.any():
        i = int(np.argmax(above))
        raise DataError(
            f"'{name}' has more successes than trials in {int(above.sum())} of {y.size} rows (first: {y[i]:g} of "
            f"{m[i]:g}); correct these rows"
        )
    return _informative(ResponseData(y, None if np.all(m == 1.0) else m, weights), name)


def _binomial(value: Value, name: str, weights: FloatArray | None) -> ResponseData:
    if value.is_factor:
        _no_zero_weights(weights)
        return _informative(ResponseData(_second_level(value, name), None, weights), name)
    y = response_values(value, name)
    if y.ndim == 2:
        _no_zero_weights(weights)
        failures = _whole_numbers(
            y[:, 1],
            f"the failures of '{name}'",
            "the second column of cbind() counts failures (trials less successes), and trials must be at least "
            "the successes",
        )
        successes = _whole_numbers(y[:, 0], f"the successes of '{name}'", "successes are counts 0, 1, 2, ...")
        return binomial_response(successes, successes + failures, name, weights)
    _refuse(
        (y < 0.0) | (y > 1.0),
        y,
        f"the response '{name}'",
        "outside 0 .. 1; the binomial family reads 0/1, a two-level factor, proportions with weights= the numbers of "
        "trials, or cbind(successes, failures); melogit() and its kin take trials=",
    )
    if value.kind == "boolean":
        _no_zero_weights(weights)
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
        _refuse(
            fractions,
            y,
            f"the response '{name}'",
            "between 0 and 1; give the numbers of trials as weights=, or write cbind(successes, failures)",
        )
        _no_zero_weights(weights)
        return _informative(ResponseData(y, None, weights), name)
    trials = _whole_numbers(weights, "the weights", f"the numbers of trials of the proportions '{name}' are whole")
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
    return binomial_response(rounded, trials, name)


def _no_zero_weights(weights: FloatArray | None) -> None:
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


def _whole_numbers(values: FloatArray, what: str, need: str) -> FloatArray:
    """Counts without rounding error, or an error that says what is `need`ed."""
    check_finite(values, [what], "{name}")
    bad = _not_whole(values, _COUNT) | (values < 0.0)
    _refuse(bad, values, what, f"negative or not whole; {need}; correct these rows")
    return np.rint(values)


def _not_whole(values: FloatArray, relative: float) -> BoolArray:
    """True where a value is further from a whole number than rounding explains."""
    # For large numbers a relative tolerance alone would let halves through.
    tolerance = np.minimum(relative * np.maximum(1.0, np.abs(values)), 0.01)
    return np.asarray(np.abs(values - np.rint(values)) > tolerance)


def _refuse(bad: BoolArray, values: FloatArray, what: str, why: str) -> None:
    if bad.any():
        first = values[int(np.argmax(bad))]
        raise DataError(f"{what}: {int(bad.sum())} of {values.size} values (first: {first:g}) that are {why}")
