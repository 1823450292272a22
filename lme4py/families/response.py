"""The responses of a model as the numbers that a family works on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, xlogy

from lme4py.families.densities.calculus.special import log_factorial_remainder
from lme4py.frozen import computed_once
from lme4py.linalg.types import BoolArray, FloatArray, IntArray

__all__ = ["PartRows", "ResponseData"]

# A table of all counts up to the largest may have this many places for each value.
_SPARSE = 4.0


@dataclass(frozen=True)
class PartRows:
    """The rows of a further linear predictor.

    Attributes
    ----------
    name : str
        "zero_inflation" or "dispersion".
    X : ndarray, shape (n, p)
    offset : ndarray, shape (n,), or None
    """

    name: str
    X: FloatArray
    offset: FloatArray | None = None

    def predictor(self, coefficients: FloatArray) -> FloatArray:
        """The linear predictor, shape (n,); (B, n) where coefficients of B points are given, (B, p)."""
        eta: FloatArray = self.X @ coefficients if coefficients.ndim == 1 else coefficients @ self.X.T
        return eta if self.offset is None else eta + self.offset

    def plus(self, known: FloatArray) -> PartRows:
        """The rows with more in their offset, such as random effects."""
        return PartRows(self.name, self.X, known if self.offset is None else self.offset + known)

    def take(self, rows: IntArray | BoolArray | slice) -> PartRows:
        """Some of the rows."""
        return PartRows(self.name, self.X[rows], None if self.offset is None else self.offset[rows])


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
    notes : tuple of str
        What users should know of how the response was read.
    parts : tuple of PartRows
        Further linear predictors.
    counts : ndarray, shape (n, K), or None
        Unordered categories of rows that stand for several trials: how many had each; `y` is then their mean position.
    responses : ndarray of int, shape (n,), or None
        Which of several responses each row is for.
    """

    y: FloatArray
    trials: FloatArray | None = None
    weights: FloatArray | None = None
    categories: tuple[Any, ...] | None = None
    notes: tuple[str, ...] = ()
    parts: tuple[PartRows, ...] = ()
    counts: FloatArray | None = None
    responses: IntArray | None = None

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
        """`y`, or counts side by side where rows have several trials: of successes and failures, or of categories."""
        if self.counts is not None:
            return self.counts
        return self.y if self.trials is None else np.column_stack([self.y, self.failures])

    def take(self, rows: IntArray | BoolArray | slice) -> ResponseData:
        """Some of the rows."""
        beside = (None if part is None else part[rows] for part in (self.trials, self.weights, self.counts))
        trials, weights, counts = beside
        parts = tuple(part.take(rows) for part in self.parts)
        responses = None if self.responses is None else self.responses[rows]
        return ResponseData(self.y[rows], trials, weights, self.categories, (), parts, counts, responses)

    def with_y(self, y: FloatArray) -> ResponseData:
        """Other responses of the same rows."""
        return ResponseData(y, self.trials, self.weights, parts=self.parts, responses=self.responses)

    def remember(self, key: object, make: Callable[[], Any]) -> Any:
        """The value of `make()`, computed once for each key.

        Parameters
        ----------
        key : hashable
        make : callable
        """
        kept = self.__dict__.setdefault("_remembered", {})
        if key not in kept:
            kept[key] = make()
        return kept[key]

    def remember_last(self, name: str, key: object, make: Callable[[], Any]) -> Any:
        """The value of `make()` for the key asked for last.

        Parameters
        ----------
        name : str
        key : hashable
        make : callable
        """
        kept = self.__dict__.setdefault("_remembered", {})
        last = kept.get(name)
        if last is None or last[0] != key:
            last = kept[name] = (key, make())
        return last[1]

    def block(self, start: int, stop: int) -> ResponseData:
        """Rows start .. stop; the same object each time, with what it remembers."""
        if start == 0 and stop >= self.n_obs:
            return self
        block: ResponseData = self.remember(("block", start, stop), lambda: self.take(slice(start, stop)))
        return block

    def __getstate__(self) -> dict[str, Any]:
        """Without what can be computed again."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

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
    def zeros(self) -> IntArray:
        """Rows with a response of 0."""
        return np.flatnonzero(self.y == 0.0)

    @computed_once
    def positive(self) -> tuple[IntArray, ResponseData]:
        """Rows with a response other than 0."""
        rows = np.flatnonzero(self.y != 0.0)
        return rows, self.take(rows)

    @computed_once
    def zero_rows(self) -> tuple[IntArray, ResponseData]:
        """Rows with a response of 0."""
        return self.zeros, self.take(self.zeros)

    @computed_once
    def from_zeros_last(self) -> IntArray:
        """Where each row stands when those of `positive` come first, and those of `zero_rows` after them."""
        return np.argsort(np.concatenate([self.positive[0], self.zeros]))

    @computed_once
    def has_zeros(self) -> bool:
        """Whether a response is not above 0."""
        return not bool((self.y > 0.0).all())

    def unless_zero(self, values: FloatArray, instead: Callable[[], FloatArray | float]) -> FloatArray:
        """Numbers of rows, and others where the response is 0: asked for only where there is one.

        Parameters
        ----------
        values : ndarray, shape (..., n)
        instead : callable
        """
        return np.where(self.y > 0.0, values, instead()) if self.has_zeros else values

    @computed_once
    def log_rest(self) -> FloatArray:
        """log(1 - y) of proportions, and 0 where y is 1, shape (n,)."""
        return np.log1p(-np.where(self.y < 1.0, self.y, 0.0))

    @computed_once
    def factorial_remainder(self) -> FloatArray:
        """log y! - (y log y - y), shape (n,)."""
        return log_factorial_remainder(self.y)

    @computed_once
    def log_choose(self) -> FloatArray:
        """log of the binomial coefficient, shape (n,)."""
        if self.trials is None:
            return np.zeros_like(self.y)
        result: FloatArray = gammaln(self.trials + 1.0) - gammaln(self.y + 1.0) - gammaln(self.failures + 1.0)
        return result

    @computed_once
    def totals(self) -> FloatArray:
        """Trials of counts of categories, shape (n,); ones where each row is one."""
        return np.ones_like(self.y) if self.counts is None else self.counts.sum(axis=1)

    @computed_once
    def log_arrangements(self) -> FloatArray:
        """log of the multinomial coefficient of counts, shape (n,)."""
        if self.counts is None:
            return np.zeros_like(self.y)
        result: FloatArray = gammaln(self.totals + 1.0) - gammaln(self.counts + 1.0).sum(axis=1)
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
    def distinct_of_each(self) -> tuple[FloatArray, IntArray, IntArray]:
        """The distinct values of each of B responses (B, n): the values (K,), whose they are (K,), and where (B, n)."""
        B = self.y.shape[0]
        top = float(self.y.max(initial=0.0)) + 1.0
        if B * top > _SPARSE * self.y.size or self.y.min(initial=0.0) < 0.0 or (self.y != np.rint(self.y)).any():
            parts = [np.unique(row, return_inverse=True) for row in self.y]
            sizes = np.array([values.size for values, _ in parts])
            first = np.concatenate([[0], np.cumsum(sizes)[:-1]])
            index = np.array([place + start for (_, place), start in zip(parts, first, strict=True)])
            return np.concatenate([values for values, _ in parts]), np.repeat(np.arange(B), sizes), index
        # Small counts are places of a table, which needs no sorting.
        width = int(top)
        place = self.y.astype(np.intp) + width * np.arange(B)[:, None]
        found = np.bincount(place.ravel(), minlength=B * width) > 0
        taken = np.flatnonzero(found)
        number = np.cumsum(found) - 1
        return (taken % width).astype(np.float64), taken // width, number[place]

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
        """log y, and 0 where y is 0, shape (n,)."""
        return np.log(np.where(self.y > 0.0, self.y, 1.0))
