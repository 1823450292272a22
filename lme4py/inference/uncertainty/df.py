"""Denominator degrees of freedom of t and F tests: Satterthwaite, Kenward-Roger, residual, normal.

Satterthwaite (1946), Giesbrecht & Burns (1985): the degrees of freedom of l'beta are 2 (l'Vl)^2 / (g'Ag), with g the
gradient of l'Vl in the variance parameters and A their asymptotic covariance. Several rows at once: Fai & Cornelius
(1996), as Kuznetsova, Brockhoff & Christensen (2017, JSS 82(13)) use it. Kenward & Roger (1997) replace A by
the inverse of the expected information, add the uncertainty of the variances to the covariance of beta and scale
the F statistic; notation of Halekoh & Hojsgaard (2014, JSS 59(9)).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

import numpy as np
from scipy import special

from lme4py.errors import Lme4Warning, OptionError, did_you_mean
from lme4py.fits.linear import Fit
from lme4py.inference.uncertainty.derivatives import remembered, symmetric_inverse, variance_derivatives
from lme4py.inference.uncertainty.information import expected_information
from lme4py.inference.uncertainty.kenward_roger import FScale, f_scale
from lme4py.linalg.types import FloatArray

__all__ = [
    "Ddf",
    "FTest",
    "KenwardRoger",
    "Method",
    "Plain",
    "Satterthwaite",
    "check_method",
    "joint_f_test",
    "method",
]

Ddf: TypeAlias = Literal["satterthwaite", "kenward-roger", "residual", "normal"]
# Degrees of freedom of the rows of one test that differ by this part differ by the rounding of second derivatives;
# above two of them the formula for different ones changes by the square of the difference only.
_EQUAL = 1e-5
METHODS: tuple[Ddf, ...] = ("satterthwaite", "kenward-roger", "residual", "normal")


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


def method(fit: Fit, ddf: str) -> Method:
    """Degrees of freedom for a linear mixed model.

    Parameters
    ----------
    fit : Fit
    ddf : {"satterthwaite", "kenward-roger", "residual", "normal"}
        "residual" is n - p, "normal" is infinity.

    Raises
    ------
    OptionError
        Unknown `ddf`; "kenward-roger" for a maximum likelihood fit, or for a model that is too large for it; either
        for a fit that was asked for robust standard errors.
    """
    chosen = check_method(ddf)
    vce = fit.design.conventions.vce
    if vce is not None and chosen in ("satterthwaite", "kenward-roger"):
        raise OptionError(
            f"ddf={ddf!r} belongs to the covariance of the model, but this one was fitted with vce={vce!r}; use "
            "ddf='normal' or 'residual', or fit without vce and use vcov='CR2', which has degrees of freedom."
        )
    if chosen == "satterthwaite":
        return Satterthwaite(fit)
    if chosen == "kenward-roger":
        return KenwardRoger(fit)
    return Plain(fit.vcov, float(fit.design.n_obs - fit.beta.size) if chosen == "residual" else np.inf)


class Plain:
    """The same degrees of freedom for every test."""

    def __init__(self, vcov: FloatArray, df: float) -> None:
        self.vcov = vcov
        self.df = df

    def t_df(self, L: FloatArray) -> FloatArray:
        return np.full(L.shape[0], self.df)

    def f_test(self, L: FloatArray, estimate: FloatArray) -> FTest:
        return _f_test(_wald(L @ self.vcov @ L.T, estimate), L.shape[0], self.df)


class Satterthwaite:
    """Satterthwaite's degrees of freedom.

    At a singular fit the rank of every covariance matrix is taken as known: a variance of zero has no
    uncertainty.
    """

    def __init__(self, fit: Fit) -> None:
        self.vcov = fit.vcov
        self.derivatives = variance_derivatives(fit)

    def t_df(self, L: FloatArray) -> FloatArray:
        variances = np.einsum("ri,ij,rj->r", L, self.vcov, L)
        gradients = np.einsum("ri,sij,rj->rs", L, self.derivatives.jacobian, L)
        return self.derivatives.degrees_of_freedom(variances, gradients)

    def f_test(self, L: FloatArray, estimate: FloatArray) -> FTest:
        covariance = L @ self.vcov @ L.T
        _, vectors = np.linalg.eigh(covariance)
        return joint_f_test(covariance, estimate, self.t_df(vectors.T @ L))


def joint_f_test(covariance: FloatArray, estimate: FloatArray, df: FloatArray) -> FTest:
    """F test of several estimates by Fai & Cornelius (1996).

    Parameters
    ----------
    covariance : ndarray, shape (r, r)
    estimate : ndarray, shape (r,)
    df : ndarray, shape (r,)
        Degrees of freedom along the eigenvectors of the covariance.
    """
    return _f_test(_wald(covariance, estimate), estimate.size, _joint_df(df))


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


class KenwardRoger:
    """Kenward and Roger's adjusted covariance, degrees of freedom and scale.

    All variance parameters take part, those that are estimated as zero too.
    """

    def __init__(self, fit: Fit) -> None:
        if not fit.reml:
            raise OptionError(
                "ddf='kenward-roger' is defined for REML fits only; refit with reml=True, or use ddf='satterthwaite'."
            )
        self.C = fit.problem.scaling.C
        self.parts = remembered(fit, "_kenward_roger", _adjust)
        self.vcov = self.parts.vcov
        self.plain = fit.vcov

    def t_df(self, L: FloatArray) -> FloatArray:
        parts, rows = self.parts, L @ self.C
        variances = np.einsum("ri,ij,rj->r", rows, parts.phi, rows)
        gradients = np.einsum("ri,sij,rj->rs", rows, parts.changes, rows) / variances[:, None]
        spread = np.einsum("rs,st,rt->r", gradients, parts.inverse_traces, gradients)
        with np.errstate(divide="ignore"):
            df: FloatArray = 1.0 / spread
        return df

    def f_test(self, L: FloatArray, estimate: FloatArray) -> FTest:
        rank = L.shape[0]
        F = _wald(L @ self.vcov @ L.T, estimate)
        if rank == 1:
            return _f_test(F, 1, float(self.t_df(L)[0]))
        found = self._scale(L @ self.C)
        if not found.is_sound:
            warnings.warn(_unsound(rank, found), Lme4Warning, stacklevel=2)
        return _f_test(F, rank, found.den_df, found.scale)

    def _scale(self, rows: FloatArray) -> FScale:
        half = np.linalg.solve(np.linalg.cholesky(rows @ self.parts.phi @ rows.T), rows)
        return f_scale(np.einsum("qi,sij,rj->sqr", half, self.parts.changes, half), 2.0 * self.parts.inverse_traces)


def _unsound(rank: int, found: FScale) -> str:
    end = "use ddf='satterthwaite', or test fewer coefficients at a time."
    if np.isnan(found.den_df):
        return (
            f"Kenward and Roger's F test of {rank} coefficients together does not exist here: its denominator has "
            f"about two degrees of freedom or fewer, and F would have no mean; {end}"
        )
    return (
        f"Kenward and Roger's F test of {rank} coefficients together has {found.den_df:.2f} denominator degrees of "
        f"freedom: the moments from which its scale ({found.scale:.3g}) comes hardly exist there. Do not trust its p; "
        f"{end}"
    )


@dataclass(frozen=True)
class _Adjusted:
    """Ingredients of Kenward-Roger; the variance parameters are relative to sigma^2.

    Attributes
    ----------
    vcov : ndarray, shape (p, p)
        Adjusted covariance, in the user's columns.
    phi : ndarray, shape (p, p)
        (X'V^-1X)^-1 in the engine's columns.
    changes : ndarray, shape (s, p, p)
        Its derivatives Phi K_i Phi.
    inverse_traces : ndarray, shape (s, s)
        Half the asymptotic covariance of the parameters.
    """

    vcov: FloatArray
    phi: FloatArray
    changes: FloatArray
    inverse_traces: FloatArray


def _adjust(fit: Fit) -> _Adjusted:
    information = expected_information(fit)
    inverse = np.linalg.inv(fit.point.RX)
    phi = inverse @ inverse.T
    weights = symmetric_inverse(information.traces)
    changes = phi @ information.first @ phi
    # Sum of W_ij (Q_ij - P_i Phi P_j), with W twice the inverse of the traces.
    between = np.einsum("st,stij->ij", weights, information.second)
    between -= np.einsum("st,sij,jk,tkl->il", weights, information.first, phi, information.first, optimize=True)
    added = 4.0 * phi @ (0.5 * (between + between.T)) @ phi
    spread = fit.sigma**2 / fit.problem.scaling.weight_scale
    C = fit.problem.scaling.C
    return _Adjusted(fit.vcov + spread * (C @ added @ C.T), phi, changes, weights)


def _wald(covariance: FloatArray, estimate: FloatArray) -> float:
    """estimate' covariance^-1 estimate / rank."""
    half = np.linalg.solve(np.linalg.cholesky(covariance), estimate)
    return float(half @ half) / estimate.size


def _f_test(wald: float, num_df: int, den_df: float, scale: float = 1.0) -> FTest:
    F = scale * wald
    p = special.chdtrc(num_df, num_df * F) if np.isinf(den_df) else special.fdtrc(num_df, den_df, F)
    return FTest(F, float(num_df), float(den_df), float(p), scale)
