"""Prior densities of the fixed effects, and of the residual variance."""

from __future__ import annotations

from dataclasses import dataclass
from math import lgamma, log, pi
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from lme4py.errors import OptionError
from lme4py.linalg.types import FloatArray
from lme4py.priors.covariance import GammaPrior, InverseGamma, check_scale

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["FixedPrior", "Jeffreys", "Normal", "PointPrior", "Quadratic", "ResidualGamma", "ResidualPrior", "StudentT"]


class Quadratic(NamedTuple):
    """A prior that depends on beta through q = (beta - mean)' precision (beta - mean).

    Attributes
    ----------
    mean : ndarray, shape (p,)
    precision : ndarray, shape (p, p)
        On the user's scale, of beta in units of sigma where `common_scale`.
    common_scale : bool
    df : float
        Of the t density; inf for the normal one.
    """

    mean: FloatArray
    precision: FloatArray
    common_scale: bool
    df: float

    @property
    def constant(self) -> float:
        """The part of -2 log density that depends on neither beta nor sigma."""
        p = self.mean.size
        log_det = float(np.linalg.slogdet(self.precision)[1])
        if np.isinf(self.df):
            return p * log(2.0 * pi) - log_det
        return 2.0 * (lgamma(0.5 * self.df) - lgamma(0.5 * (self.df + p))) + p * log(self.df * pi) - log_det

    def of_square(self, q: float) -> tuple[float, float, float]:
        """The part of -2 log density that depends on q, with two derivatives in it.

        Parameters
        ----------
        q : float
        """
        if np.isinf(self.df):
            return q, 1.0, 0.0
        top, bottom = self.df + self.mean.size, self.df + q
        return top * log(bottom / self.df), top / bottom, -top / bottom**2


class FixedPrior:
    """A prior of the coefficients of the first linear predictor."""

    def quadratic(self, names: Sequence[str]) -> Quadratic | None:
        """The density as a function of a quadratic form; None where it is none.

        Parameters
        ----------
        names : sequence of str
            Of the coefficients.
        """
        raise NotImplementedError


def _by_coefficient(given: ArrayLike, names: Sequence[str], what: str) -> FloatArray:
    """One number for each coefficient: the first of several is the intercept's, the last one is repeated."""
    values = np.atleast_1d(np.asarray(given, dtype=np.float64))
    if values.ndim != 1 or not np.isfinite(values).all():
        raise OptionError(f"{what} of fixef_prior must be finite numbers, one for each coefficient or fewer.")
    p = len(names)
    if values.size == p:
        return values
    if values.size > p:
        raise OptionError(f"{what} of fixef_prior has {values.size} numbers, and the model {p} coefficients: {names}.")
    start = 0 if "Intercept" in names or values.size == 1 else 1
    values = values[start:]
    return np.concatenate([values, np.full(p - values.size, values[-1])])


def _precision(given: ArrayLike, names: Sequence[str], what: str, power: float) -> FloatArray:
    """The inverse of a matrix, or of a diagonal of numbers to a power."""
    values = np.asarray(given, dtype=np.float64)
    p = len(names)
    if values.ndim == 2:
        if values.shape != (p, p) or not np.allclose(values, values.T) or np.linalg.eigvalsh(values)[0] <= 0.0:
            raise OptionError(f"{what} of fixef_prior must be a positive definite matrix of {p} rows: {list(names)}.")
        return np.asarray(np.linalg.inv(values), dtype=np.float64)
    own = _by_coefficient(values, names, what)
    if not (own > 0.0).all():
        raise OptionError(f"{what} of fixef_prior must be above zero.")
    return np.diag(own**-power)


@dataclass(frozen=True)
class Normal(FixedPrior):
    """Normal density of the coefficients about 0.

    Parameters
    ----------
    sd : array_like
        Standard deviations: the first is the intercept's, the last one is repeated for further slopes.
    cov : array_like, optional
        Variances, or the covariance matrix, in the place of `sd`.
    common_scale : bool
        In units of the residual standard deviation (linear models only).

    Examples
    --------
    >>> Normal(sd=(10, 2.5)).quadratic(("Intercept", "x", "z")).precision.diagonal().round(4)
    array([0.01, 0.16, 0.16])
    """

    sd: ArrayLike = (10.0, 2.5)
    cov: ArrayLike | None = None
    common_scale: bool = True

    def quadratic(self, names: Sequence[str]) -> Quadratic:
        P = _precision(self.sd, names, "sd", 2.0) if self.cov is None else _precision(self.cov, names, "cov", 1.0)
        return Quadratic(np.zeros(len(names)), P, self.common_scale, np.inf)


@dataclass(frozen=True)
class StudentT(FixedPrior):
    """Multivariate t density of the coefficients.

    Parameters
    ----------
    df : float
    mean : array_like
    scale : array_like
        Squares of scales, or the scale matrix; the first is the intercept's, the last one is repeated.
    common_scale : bool
        In units of the residual standard deviation (linear models only).

    Examples
    --------
    >>> StudentT(df=7, scale=4).quadratic(("Intercept",)).precision
    array([[0.25]])
    """

    df: float = 3.0
    mean: ArrayLike = 0.0
    scale: ArrayLike = (100.0, 6.25)
    common_scale: bool = True

    def __post_init__(self) -> None:
        if not 0.0 < self.df < np.inf:
            raise OptionError(f"t(df={self.df:g}) needs degrees of freedom above zero; use 'normal' for infinite ones.")

    def quadratic(self, names: Sequence[str]) -> Quadratic:
        mean = _by_coefficient(self.mean, names, "mean")
        return Quadratic(mean, _precision(self.scale, names, "scale", 1.0), self.common_scale, self.df)


@dataclass(frozen=True)
class Jeffreys(FixedPrior):
    """Jeffreys' density |X'WX|^(1/2) of the model without random effects: estimates are finite under separation.

    Parameters
    ----------
    power : float
        1 is Firth's penalty (1993, Biometrika 80:27); Sterzinger & Kosmidis (2023, Stat. Comput. 33:53) take
        2 sqrt(p / n).
    """

    power: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 < self.power < np.inf:
            raise OptionError(f"jeffreys(power={self.power:g}): the power is above zero.")

    def quadratic(self, names: Sequence[str]) -> None:
        return None


class ResidualPrior:
    """A prior of the residual variance in the units of the data."""

    known: float | None = None

    def of_variance(self, variance: float) -> tuple[float, float]:
        """-2 log density with its derivative in the variance.

        Parameters
        ----------
        variance : float
        """
        raise NotImplementedError


@dataclass(frozen=True)
class ResidualGamma(ResidualPrior):
    """Gamma or inverse gamma density of the residual variance.

    Parameters
    ----------
    density : GammaPrior or InverseGamma
    """

    density: GammaPrior | InverseGamma

    def of_variance(self, variance: float) -> tuple[float, float]:
        value, first, _ = self.density.of_variance(variance)
        return value, first


@dataclass(frozen=True)
class PointPrior(ResidualPrior):
    """A residual standard deviation or variance that is known.

    Parameters
    ----------
    value : float
    posterior_scale : {"sd", "var"}
    """

    value: float = 1.0
    posterior_scale: str = "sd"

    def __post_init__(self) -> None:
        check_scale(self.posterior_scale)
        if not 0.0 < self.value < np.inf:
            raise OptionError(f"point({self.value:g}) must be above zero.")

    @property
    def sigma(self) -> float:
        """The standard deviation."""
        return self.value if self.posterior_scale == "sd" else self.value**0.5
