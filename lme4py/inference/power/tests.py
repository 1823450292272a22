"""What is tested in every simulated response: a p-value each, and for a single coefficient its estimate."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from scipy import special

from lme4py.errors import OptionError
from lme4py.fits.answers.many import Inferences, one_by_one
from lme4py.fits.base import Fit
from lme4py.fits.kinds import model_of
from lme4py.fits.method import f_test_of, joint_f_test, wald
from lme4py.inference.bootstrap.task import Part
from lme4py.inference.lrt.mixture import Mixture
from lme4py.inference.uncertainty.df import method
from lme4py.linalg.types import BoolArray, FloatArray

__all__ = ["Alternative", "FunctionTest", "LinearTest", "PowerTest", "RatioTest"]

Alternative = Literal["two-sided", "greater", "less"]
# Columns of the values of a test.
_WIDTH = 4


class PowerTest(ABC):
    """A test of one model, made from its design and parameters.

    Attributes
    ----------
    label : str
        What is tested, in words.
    truth : float or None
        The true value of what is tested, less that under the hypothesis, where it is one number.
    """

    label: str
    truth: float | None = None

    @abstractmethod
    def __call__(self, fit: Fit, Y: FloatArray) -> Part:
        """The test in each response.

        Parameters
        ----------
        fit : Fit
            What carries the parameters.
        Y : ndarray, shape (n, B)

        Returns
        -------
        Part
            Columns: p-value, estimate, standard error, whether the fit is singular; NaN where there is none.
        """


def _table(p: FloatArray, estimate: Any = np.nan, error: Any = np.nan, singular: Any = 0.0) -> FloatArray:
    out = np.full((p.size, _WIDTH), np.nan)
    for j, column in enumerate((p, estimate, error, singular)):
        out[:, j] = column
    return out


def p_of_t(t: FloatArray, df: FloatArray, alternative: Alternative) -> FloatArray:
    """p-values of t statistics.

    Parameters
    ----------
    t, df : ndarray
    alternative : {"two-sided", "greater", "less"}
    """
    endless = np.isinf(df)
    safe = np.where(endless | ~(df > 0.0), 1.0, df)

    def below(x: FloatArray) -> FloatArray:
        return np.where(endless, special.ndtr(x), np.where(df > 0.0, special.stdtr(safe, x), np.nan))

    if alternative == "two-sided":
        return 2.0 * below(-np.abs(t))
    return below(-t) if alternative == "greater" else below(t)


@dataclass(frozen=True)
class LinearTest(PowerTest):
    """A t or F test of linear functions of the fixed effects.

    Attributes
    ----------
    L : ndarray, shape (r, p)
        Linearly independent rows.
    target : ndarray, shape (r,)
    ddf : str
    alternative : {"two-sided", "greater", "less"}
        Of a single row.
    """

    label: str
    L: FloatArray
    target: FloatArray
    ddf: str
    alternative: Alternative = "two-sided"
    truth: float | None = None

    def __call__(self, fit: Fit, Y: FloatArray) -> Part:
        if self.ddf == "kenward-roger":
            return _each(partial(self._of_fit, make) for make in model_of(fit).refits(Y))
        found = model_of(fit).inferences(Y)
        with np.errstate(all="ignore"):
            gap = found.many.beta @ self.L.T - self.target
            covariance = np.einsum("ri,bij,qj->brq", self.L, found.vcov, self.L)
            values = (
                self._t(fit, found, gap, covariance) if self.L.shape[0] == 1 else self._f(fit, found, gap, covariance)
            )
        return Part(values, found.many.failures, int((~found.converged).sum()) - len(found.many.failures))

    def _df(self, fit: Fit, found: Inferences, L: FloatArray) -> FloatArray:
        """Degrees of freedom of the rows of L in every response, (B, r)."""
        if self.ddf == "satterthwaite":
            return found.t_df(L)
        df = np.inf if self.ddf == "normal" else float(fit.design.n_obs - fit.beta.size)
        return np.full((found.vcov.shape[0], L.shape[0]), df)

    def _t(self, fit: Fit, found: Inferences, gap: FloatArray, covariance: FloatArray) -> FloatArray:
        error = np.sqrt(covariance[:, 0, 0])
        p = p_of_t(gap[:, 0] / error, self._df(fit, found, self.L)[:, 0], self.alternative)
        return _table(p, gap[:, 0] + self.target[0], error, found.singular)

    def _f(self, fit: Fit, found: Inferences, gap: FloatArray, covariance: FloatArray) -> FloatArray:
        p = np.full(gap.shape[0], np.nan)
        usable: BoolArray = np.asarray(np.isfinite(gap).all(axis=1) & np.isfinite(covariance).all(axis=(1, 2)))
        _, vectors = np.linalg.eigh(np.where(usable[:, None, None], covariance, np.eye(gap.shape[1])))
        for b in np.flatnonzero(usable).tolist():
            if self.ddf == "satterthwaite":
                rows = vectors[b].T @ self.L
                df = _one(found, b).t_df(rows)[0]
                p[b] = joint_f_test(covariance[b], gap[b], df).p_value
            else:
                df = self._df(fit, found, self.L[:1])[0, 0]
                p[b] = f_test_of(wald(covariance[b], gap[b]), gap.shape[1], float(df)).p_value
        return _table(p, singular=found.singular)

    def _of_fit(self, make: Callable[[], Fit]) -> FloatArray:
        """By a method that needs the whole fit."""
        fit = make()
        chosen = method(fit, self.ddf)
        gap = self.L @ fit.beta_estimates - self.target
        singular = float(fit.certificate.is_singular)
        if self.L.shape[0] > 1:
            return _table(np.array([chosen.f_test(self.L, gap).p_value]), singular=singular)
        error = np.sqrt(np.einsum("ri,ij,rj->r", self.L, chosen.vcov, self.L))
        p = p_of_t(gap / error, np.asarray(chosen.t_df(self.L)), self.alternative)
        return _table(p, gap + self.target, error, singular)


def _one(found: Inferences, b: int) -> Inferences:
    """The response b alone."""
    jacobian, precision = found.jacobian, found.precision
    return Inferences(
        found.many,
        found.vcov[b : b + 1],
        found.criterion[b : b + 1],
        found.singular[b : b + 1],
        found.converged[b : b + 1],
        None if jacobian is None else jacobian[b : b + 1],
        None if precision is None else precision[b : b + 1],
    )


@dataclass(frozen=True)
class RatioTest(PowerTest):
    """A likelihood-ratio test.

    Attributes
    ----------
    full : Fit
        By maximum likelihood where the models differ in their fixed effects.
    restricted : object
        A `Model` or a `Null`.
    mixture : Mixture
        The distribution of the ratio under the restricted model.
    shift : float
        What the ratio of the criteria lacks.
    """

    label: str
    full: Fit
    restricted: Any
    mixture: Mixture

    def __call__(self, fit: Fit, Y: FloatArray) -> Part:
        values = np.full(Y.shape[1], np.nan)
        failures: list[tuple[int, str]] = []
        why: list[str] = []
        usable = np.flatnonzero(~np.isnan(Y).any(axis=0))
        if usable.size:
            large, small = (model.criteria(Y[:, usable], why) for model in (model_of(self.full), self._small()))
            values[usable] = small - large
        p = np.array([np.nan if np.isnan(v) else self.mixture.p_value(max(float(v), 0.0)) for v in values])
        told = why[0] if why else "a simulated mean is outside the range of the link"
        failures = [(int(b), told) for b in np.flatnonzero(np.isnan(p))]
        return Part(_table(p), tuple(failures), 0)

    def _small(self) -> Any:
        return model_of(self.restricted) if isinstance(self.restricted, Fit) else self.restricted


@dataclass(frozen=True)
class FunctionTest(PowerTest):
    """A function from a result to a p-value, or to whether it is significant.

    Attributes
    ----------
    function : callable
    wrap : callable
        From a fit to the result that the function takes.
    """

    label: str
    function: Callable[[Any], Any]
    wrap: Callable[[Any], Any]

    def __call__(self, fit: Fit, Y: FloatArray) -> Part:
        return _each(partial(self._of_fit, make) for make in model_of(fit).refits(Y))

    def _of_fit(self, make: Callable[[], Fit]) -> FloatArray:
        fit = make()
        value = self.function(self.wrap(fit))
        if isinstance(value, bool | np.bool_):
            p = 0.0 if value else 1.0
        else:
            p = float(value)
            if not 0.0 <= p <= 1.0:
                raise OptionError(f"the function gave {value!r}; it must return a p-value, or True where it rejects.")
        return _table(np.array([p]), singular=float(fit.certificate.is_singular))


def _each(makers: Iterator[Callable[[], FloatArray]]) -> Part:
    made = one_by_one(makers)
    empty = np.full((1, _WIDTH), np.nan)
    rows = [empty if row is None else row for row in made.values]
    return Part(np.concatenate(rows), made.failures, made.n_not_converged)
