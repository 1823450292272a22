"""Tests of linear functions of the fixed effects: what every choice of degrees of freedom gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

import numpy as np
from scipy import special

from lme4py.errors import DesignError, OptionError, did_you_mean
from lme4py.linalg.types import FloatArray

__all__ = ["METHODS", "Ddf", "FTest", "Method", "Plain", "check_method", "f_test_of", "joint_f_test", "wald"]

Ddf: TypeAlias = Literal["satterthwaite", "kenward-roger", "residual", "normal", "knapp-hartung"]

# Degrees of freedom of the rows of one test that differ by this part differ by the rounding of second derivatives;
# above two of them the formula for different ones changes by the square of the difference only.
_EQUAL = 1e-5

METHODS: tuple[Ddf, ...] = ("satterthwaite", "kenward-roger", "residual", "normal", "knapp-hartung")


@dataclass(frozen=True, slots=True)
class FTest:
    """An F test of L beta = 0.

    Attributes
    ----------
    F : float
    num_df, den_df : float
    p_value : float
    scale : float
        Kenward and Roger's lambda: F is `scale` times the Wald statistic over `num_df`; 1 for other methods.
    """

    F: float
    num_df: float
    den_df: float
    p_value: float
    scale: float = 1.0


class Method(Protocol):
    """A choice of degrees of freedom for one fit."""

    vcov: FloatArray

    def t_df(self, L: FloatArray) -> FloatArray:
        """Degrees of freedom of every row of L, shape (r, p)."""

    def f_test(self, L: FloatArray, estimate: FloatArray) -> FTest:
        """F test of linearly independent rows, L of shape (r, p), whose estimates (r,) are L beta - value."""


def check_method(ddf: object) -> Ddf:
    """`ddf` if it is known (upper and lower case do not matter), otherwise an OptionError."""
    name = ddf.strip().lower() if isinstance(ddf, str) else ddf
    for known in METHODS:
        if name == known:
            return known
    hint = did_you_mean(str(ddf), METHODS)
    raise OptionError(f"ddf={ddf!r} is not known.{hint} Use one of {', '.join(map(repr, METHODS))}.")


class Plain:
    """The same degrees of freedom for every test."""

    def __init__(self, vcov: FloatArray, df: float) -> None:
        self.vcov = vcov
        self.df = df

    def t_df(self, L: FloatArray) -> FloatArray:
        return np.full(L.shape[0], self.df)

    def f_test(self, L: FloatArray, estimate: FloatArray) -> FTest:
        return f_test_of(wald(L @ self.vcov @ L.T, estimate), L.shape[0], self.df)


def joint_f_test(covariance: FloatArray, estimate: FloatArray, df: FloatArray) -> FTest:
    """F test of several estimates by Fai & Cornelius (1996).

    Parameters
    ----------
    covariance : ndarray, shape (r, r)
    estimate : ndarray, shape (r,)
    df : ndarray, shape (r,)
        Degrees of freedom along the eigenvectors of the covariance.
    """
    return f_test_of(wald(covariance, estimate), estimate.size, _joint_df(df))


def _joint_df(df: FloatArray) -> float:
    """Degrees of freedom of the mean of squares of independent t variables (Fai & Cornelius 1996).

    They are those of the F variable with the same mean, E / q with E = sum of nu / (nu - 2): equal ones are their
    common value, which is right at two degrees of freedom and below them too, where there is no mean.
    """
    least = float(df.min())
    if df.size == 1 or np.ptp(df) <= _EQUAL * least:
        return float(df.mean())
    if least <= 2.0:
        # As the smallest falls to two the mean grows without limit, and two is the limit of the formula.
        return 2.0
    mean = float(np.sum(df / (df - 2.0)))
    return 2.0 * mean / (mean - df.size)


def wald(covariance: FloatArray, estimate: FloatArray) -> float:
    """estimate' covariance^-1 estimate / rank.

    Raises
    ------
    DesignError
        The covariance has no inverse: that of a fit that has not converged, or is at the end of its parameters.
    """
    try:
        root = np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:
        raise DesignError(
            "there is no F test of these estimates: their covariance is not positive definite. See whether the fit has "
            "converged (certificate.verdict), and whether its covariances are singular; where they are, choose a "
            "simpler structure, or ddf='satterthwaite' in the place of Kenward and Roger's adjustment."
        ) from None
    half = np.linalg.solve(root, estimate)
    return float(half @ half) / estimate.size


def f_test_of(wald: float, num_df: int, den_df: float, scale: float = 1.0) -> FTest:
    F = scale * wald
    p = special.chdtrc(num_df, num_df * F) if np.isinf(den_df) else special.fdtrc(num_df, den_df, F)
    return FTest(F, float(num_df), float(den_df), float(p), scale)
