"""Prior densities of covariance matrices of random effects.

All are densities of Sigma itself (of the standard deviation, where `posterior_scale` says so), without Jacobians and
normalising constants, as blme has them (Chung et al. 2013, Psychometrika 78:685; 2015, J. Educ. Behav. Stat. 40:136).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from lme4py.errors import OptionError
from lme4py.linalg.types import FloatArray

__all__ = ["LKJ", "CovariancePrior", "GammaPrior", "InverseGamma", "InverseWishart", "PriorPoint", "Wishart"]


class PriorPoint(NamedTuple):
    """-2 log density at one covariance matrix, with derivatives.

    Attributes
    ----------
    value : float
        inf where the density is zero.
    gradient : ndarray, shape (k, k)
        In Sigma, symmetric.
    second : callable
        Changes of Sigma (d, k, k) to second derivatives along all pairs of them, (d, d).
    """

    value: float
    gradient: FloatArray
    second: Callable[[FloatArray], FloatArray]


class CovariancePrior(ABC):
    """A prior of the covariance matrix of a random-effects term.

    A prior of your own is a subclass with `evaluate`.

    Attributes
    ----------
    common_scale : bool
        Sigma is relative to the residual variance (linear models only); False takes it in the units of the data.
    """

    common_scale: bool = True

    def check(self, size: int, term: str) -> None:  # noqa: B027
        """Refuse a term for which this is no prior.

        Parameters
        ----------
        size : int
            Columns of the term.
        term : str
            For messages.
        """

    @abstractmethod
    def evaluate(self, covariance: FloatArray) -> PriorPoint:
        """-2 log density with derivatives.

        Parameters
        ----------
        covariance : ndarray, shape (k, k)
        """


def _along(changes: FloatArray, root: FloatArray) -> FloatArray:
    """R'D R of every change, one row each."""
    moved: FloatArray = root.T @ changes @ root
    return moved.reshape(len(changes), -1)


def _inverse_root(covariance: FloatArray) -> tuple[float, FloatArray]:
    """log det, and R with R R' the inverse; infinite where the matrix is singular."""
    try:
        L = np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:
        return -np.inf, np.full_like(covariance, np.nan)
    return 2.0 * float(np.log(L.diagonal()).sum()), np.linalg.inv(L).T


def _of_matrix(covariance: FloatArray, power: float, linear: FloatArray, inverse: FloatArray) -> PriorPoint:
    """power log|Sigma| + tr(linear Sigma) + tr(inverse Sigma^-1)."""
    k = covariance.shape[0]
    value = float(np.vdot(linear, covariance))
    if power == 0.0 and not inverse.any():
        return PriorPoint(value, linear, lambda changes: np.zeros((len(changes), len(changes))))
    log_det, root = _inverse_root(covariance)
    if not np.isfinite(log_det):
        return PriorPoint(np.inf, np.full((k, k), np.nan), lambda changes: np.full((len(changes),) * 2, np.nan))
    middle = root.T @ inverse @ root
    value += power * log_det + float(np.trace(middle))
    gradient = linear + root @ (power * np.eye(k) - middle) @ root.T

    def second(changes: FloatArray) -> FloatArray:
        moved = _along(changes, root)
        turned = (middle @ moved.reshape(-1, k, k)).reshape(len(changes), -1)
        cross = turned @ moved.T
        out: FloatArray = cross + cross.T - power * (moved @ moved.T)
        return out

    return PriorPoint(value, gradient, second)


def _inverse(matrix: FloatArray) -> FloatArray:
    return np.asarray(np.linalg.inv(matrix), dtype=np.float64)


def _scale_matrix(scale: ArrayLike | None, size: int, what: str) -> FloatArray:
    given = np.asarray(scale, dtype=np.float64)
    matrix = given * np.eye(size) if given.ndim == 0 else np.diag(given) if given.ndim == 1 else given
    if matrix.shape != (size, size):
        raise OptionError(f"the scale of {what} has the shape {matrix.shape}, and the term has {size} columns.")
    if not np.allclose(matrix, matrix.T) or np.linalg.eigvalsh(matrix)[0] <= 0.0:
        raise OptionError(f"the scale of {what} must be a symmetric positive definite matrix.")
    return matrix


@dataclass(frozen=True)
class Wishart(CovariancePrior):
    """Wishart density of Sigma: it keeps the estimate off the boundary.

    Parameters
    ----------
    df : float, optional
        k + 2.5 by default, k the number of columns of the term.
    scale : array_like, optional
        (k, k), or its diagonal; infinite by default.
    common_scale : bool
        Sigma is relative to the residual variance.

    Examples
    --------
    >>> round(float(Wishart(df=4.5).evaluate(2.0 * np.eye(1)).value), 4)  # -(4.5 - 2) log 2
    -1.7329
    """

    df: float | None = None
    scale: ArrayLike | None = None
    common_scale: bool = True

    def check(self, size: int, term: str) -> None:
        if self.df is not None and self.df < size + 1:
            raise OptionError(
                f"the wishart prior of {term} has df={self.df:g}; below {size + 1} (columns of the term + 1) its "
                "density is infinite where the covariance matrix is singular, and there is no mode."
            )
        if self.scale is not None:
            _scale_matrix(self.scale, size, f"the wishart prior of {term}")

    def evaluate(self, covariance: FloatArray) -> PriorPoint:
        k = covariance.shape[0]
        zero = np.zeros((k, k))
        df = k + 2.5 if self.df is None else self.df
        linear: FloatArray = zero
        if self.scale is not None:
            linear = _inverse(_scale_matrix(self.scale, k, "a wishart prior"))
        return _of_matrix(covariance, -(df - k - 1.0), linear, zero)


@dataclass(frozen=True)
class InverseWishart(CovariancePrior):
    """Inverse Wishart density of Sigma.

    Parameters
    ----------
    df : float, optional
        k - 0.5 by default.
    scale : array_like, optional
        (k, k), or its diagonal; 10^2 / (df + k + 1) by default.
    common_scale : bool
        Sigma is relative to the residual variance.

    Examples
    --------
    >>> float(InverseWishart(df=3, scale=[1.0, 1.0]).evaluate(np.eye(2)).value)
    2.0
    """

    df: float | None = None
    scale: ArrayLike | None = None
    common_scale: bool = True

    def check(self, size: int, term: str) -> None:
        if self.df is not None and self.df <= size - 1:
            raise OptionError(f"the invwishart prior of {term} has df={self.df:g}; give more than {size - 1}.")
        if self.scale is not None:
            _scale_matrix(self.scale, size, f"the invwishart prior of {term}")

    def evaluate(self, covariance: FloatArray) -> PriorPoint:
        k = covariance.shape[0]
        df = k - 0.5 if self.df is None else self.df
        default = 100.0 / (df + k + 1.0)
        inverse = _scale_matrix(default if self.scale is None else self.scale, k, "an invwishart prior")
        return _of_matrix(covariance, df + k + 1.0, np.zeros((k, k)), inverse)


def _only_scalar(size: int, name: str, term: str) -> None:
    if size != 1:
        raise OptionError(
            f"the {name} prior is for one variance, and {term} has {size} columns; use 'wishart', 'invwishart' or 'lkj'"
        )


def _scalar(covariance: FloatArray, value: float, first: float, second: float) -> PriorPoint:
    """A function of the variance with its derivatives in it."""
    return PriorPoint(value, np.array([[first]]), lambda changes: second * np.outer(changes[:, 0, 0], changes[:, 0, 0]))


_NOWHERE = (np.inf, np.nan, np.nan)


@dataclass(frozen=True)
class GammaPrior(CovariancePrior):
    """Gamma density of a standard deviation or a variance.

    Parameters
    ----------
    shape : float
    rate : float
        0 for the improper, boundary-avoiding density.
    posterior_scale : {"sd", "var"}
        What the density is of.
    common_scale : bool
        Relative to the residual standard deviation.

    Examples
    --------
    >>> round(float(GammaPrior().evaluate(np.array([[4.0]])).value), 4)  # -2 (2.5 - 1) log 2
    -2.0794
    """

    shape: float = 2.5
    rate: float = 0.0
    posterior_scale: str = "sd"
    common_scale: bool = True

    def __post_init__(self) -> None:
        check_scale(self.posterior_scale)
        if self.shape < 1.0 or self.rate < 0.0:
            raise OptionError(
                f"gamma(shape={self.shape:g}, rate={self.rate:g}): below shape 1 the density is infinite at zero, and "
                "the rate is not negative."
            )
        if self.shape == 1.0 and self.rate > 0.0 and self.posterior_scale == "sd":
            raise OptionError(
                "gamma(shape=1) of a standard deviation has a kink at zero, where nothing can be proved about the "
                "mode; use a shape above 1, or posterior_scale='var'."
            )

    def check(self, size: int, term: str) -> None:
        _only_scalar(size, "gamma", term)

    def evaluate(self, covariance: FloatArray) -> PriorPoint:
        return _scalar(covariance, *self.of_variance(float(covariance[0, 0])))

    def of_variance(self, variance: float) -> tuple[float, float, float]:
        """-2 log density with two derivatives in the variance.

        Parameters
        ----------
        variance : float
        """
        if self.posterior_scale == "var":
            return _powers(variance, -2.0 * (self.shape - 1.0), 2.0 * self.rate, 1.0)
        return _powers(variance, 1.0 - self.shape, 2.0 * self.rate, 0.5)


@dataclass(frozen=True)
class InverseGamma(CovariancePrior):
    """Inverse gamma density of a standard deviation or a variance.

    Parameters
    ----------
    shape, scale : float
    posterior_scale : {"sd", "var"}
        What the density is of.
    common_scale : bool
        Relative to the residual standard deviation.

    Examples
    --------
    >>> float(InverseGamma(shape=2, scale=3).evaluate(np.array([[1.0]])).value)
    6.0
    """

    shape: float = 0.5
    scale: float = 100.0
    posterior_scale: str = "sd"
    common_scale: bool = True

    def __post_init__(self) -> None:
        check_scale(self.posterior_scale)
        if not (self.shape >= 0.0 and self.scale > 0.0):
            raise OptionError(
                f"invgamma(shape={self.shape:g}, scale={self.scale:g}): the shape is not negative, and the scale is "
                "above zero; else the density is infinite at zero, and there is no mode."
            )

    def check(self, size: int, term: str) -> None:
        _only_scalar(size, "invgamma", term)

    def evaluate(self, covariance: FloatArray) -> PriorPoint:
        return _scalar(covariance, *self.of_variance(float(covariance[0, 0])))

    def of_variance(self, variance: float) -> tuple[float, float, float]:
        """-2 log density with two derivatives in the variance.

        Parameters
        ----------
        variance : float
        """
        if self.posterior_scale == "var":
            return _powers(variance, 2.0 * (self.shape + 1.0), 2.0 * self.scale, -1.0)
        return _powers(variance, self.shape + 1.0, 2.0 * self.scale, -0.5)


def check_scale(posterior_scale: object) -> None:
    """Refuse what is neither "sd" nor "var".

    Parameters
    ----------
    posterior_scale : object
    """
    if posterior_scale not in ("sd", "var"):
        raise OptionError(f"posterior_scale={posterior_scale!r} is not known; use 'sd' or 'var'.")


def _powers(x: float, log_factor: float, factor: float, power: float) -> tuple[float, float, float]:
    """log_factor log x + factor x^power with two derivatives in x."""
    if x <= 0.0 and (log_factor != 0.0 or (factor != 0.0 and power < 0.0)):
        return _NOWHERE
    value = first = second = 0.0
    if factor:
        top = factor * x**power
        value, first = top, factor * power * x ** (power - 1.0)
        second = 0.0 if power == 1.0 else factor * power * (power - 1.0) * x ** (power - 2.0)
    if log_factor:
        value, first, second = value + log_factor * np.log(x), first + log_factor / x, second - log_factor / x**2
    return float(value), float(first), float(second)


@dataclass(frozen=True)
class LKJ(CovariancePrior):
    """LKJ density of the correlation matrix (Lewandowski, Kurowicka & Joe 2009), and a gamma one of each sd.

    Parameters
    ----------
    eta : float
        det(R)^(eta - 1): above 1 it keeps correlations off -1 and 1.
    shape, rate : float
        Of the gamma density of every standard deviation; the shape is above 1, so that none is zero, where its
        correlations would not be defined.
    common_scale : bool
        Standard deviations relative to the residual one.

    Examples
    --------
    >>> float(LKJ(eta=2).evaluate(np.eye(2)).value)
    0.0
    """

    eta: float = 2.0
    shape: float = 2.5
    rate: float = 0.0
    common_scale: bool = True

    def __post_init__(self) -> None:
        if not (self.eta > 1.0 and self.shape > 1.0 and self.rate >= 0.0):
            raise OptionError(
                f"lkj(eta={self.eta:g}, shape={self.shape:g}, rate={self.rate:g}): eta and shape are above 1, so that "
                "the mode is inside, and the rate is not negative."
            )

    def evaluate(self, covariance: FloatArray) -> PriorPoint:
        k = covariance.shape[0]
        zero, power = np.zeros((k, k)), -2.0 * (self.eta - 1.0)
        of_correlation = _of_matrix(covariance, power, zero, zero)
        if not np.isfinite(of_correlation.value):
            return of_correlation
        sds = GammaPrior(self.shape, self.rate)
        # log det R = log det Sigma - sum of log Sigma_ii.
        own = np.array([sds.of_variance(float(v)) for v in covariance.diagonal()])
        v = covariance.diagonal()
        value = of_correlation.value + float(own[:, 0].sum() - power * np.log(v).sum())
        curve = own[:, 2] + power / v**2

        def second(changes: FloatArray) -> FloatArray:
            diagonal = np.einsum("dii->di", changes)
            out: FloatArray = of_correlation.second(changes) + (diagonal * curve) @ diagonal.T
            return out

        return PriorPoint(value, of_correlation.gradient + np.diag(own[:, 1] - power / v), second)
