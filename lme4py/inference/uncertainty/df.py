"""Denominator degrees of freedom of t and F tests: Satterthwaite, Kenward-Roger, residual, normal.

Satterthwaite (1946), Giesbrecht & Burns (1985): the degrees of freedom of l'beta are 2 (l'Vl)^2 / (g'Ag), with g the
gradient of l'Vl in the variance parameters and A their asymptotic covariance. Several rows at once: Fai & Cornelius
(1996), as Kuznetsova, Brockhoff & Christensen (2017, JSS 82(13)) use it. Kenward & Roger (1997) replace A by
the inverse of the expected information, add the uncertainty of the variances to the covariance of beta and scale
the F statistic; notation of Halekoh & Hojsgaard (2014, JSS 59(9)).
"""

from __future__ import annotations

import numpy as np

from lme4py.errors import Lme4Warning, OptionError, warn
from lme4py.fits.base import Fit
from lme4py.fits.kinds import model_of
from lme4py.fits.method import FTest, Method, Plain, check_method, f_test_of, joint_f_test, wald
from lme4py.inference.uncertainty.kenward_roger import FScale, f_scale
from lme4py.linalg.types import FloatArray

__all__ = ["KenwardRoger", "Satterthwaite", "knapp_hartung", "method"]


def method(fit: Fit, ddf: str) -> Method:
    """Degrees of freedom for a linear mixed model.

    Parameters
    ----------
    fit : Fit
    ddf : {"satterthwaite", "kenward-roger", "residual", "normal", "knapp-hartung"}
        "residual" is n - p, "normal" is infinity; "knapp-hartung" scales the covariance too, see `knapp_hartung`.

    Raises
    ------
    OptionError
        Unknown `ddf`; "kenward-roger" for a maximum likelihood fit, or for a model that is too large for it; either
        for a fit that was asked for robust standard errors.
    """
    chosen = check_method(ddf)
    vce = fit.conventions.vce
    if vce is not None and chosen in ("satterthwaite", "kenward-roger"):
        raise OptionError(
            f"ddf={ddf!r} belongs to the covariance of the model, but this one was fitted with vce={vce!r}; use "
            "ddf='normal' or 'residual', or fit without vce and use vcov='CR2', which has degrees of freedom."
        )
    if chosen == "knapp-hartung":
        return knapp_hartung(fit)
    if chosen == "satterthwaite":
        return Satterthwaite(fit)
    if chosen == "kenward-roger":
        return KenwardRoger(fit)
    return Plain(fit.vcov, float(fit.design.n_obs - fit.beta.size) if chosen == "residual" else np.inf)


def knapp_hartung(fit: Fit) -> Plain:
    """Covariance and degrees of freedom of Knapp & Hartung (2003, Stat. Med. 22:2693) for a known sigma.

    The covariance of the fixed effects is multiplied by (y - X beta)'V^-1 (y - X beta) / (n - p), with n - p degrees of
    freedom.
    """
    return Plain(model_of(fit).mean_square() * fit.vcov, float(fit.design.n_obs - fit.beta.size))


class Satterthwaite:
    """Satterthwaite's degrees of freedom.

    At a singular fit the rank of every covariance matrix is taken as known: a variance of zero has no
    uncertainty.
    """

    def __init__(self, fit: Fit) -> None:
        self.vcov = fit.vcov
        self.derivatives = model_of(fit).variance_derivatives()

    def t_df(self, L: FloatArray) -> FloatArray:
        variances = np.einsum("ri,ij,rj->r", L, self.vcov, L)
        gradients = np.einsum("ri,sij,rj->rs", L, self.derivatives.jacobian, L)
        return self.derivatives.degrees_of_freedom(variances, gradients)

    def f_test(self, L: FloatArray, estimate: FloatArray) -> FTest:
        covariance = L @ self.vcov @ L.T
        _, vectors = np.linalg.eigh(covariance)
        return joint_f_test(covariance, estimate, self.t_df(vectors.T @ L))


class KenwardRoger:
    """Kenward and Roger's adjusted covariance, degrees of freedom and scale.

    All variance parameters take part, those that are estimated as zero too.

    Warns
    -----
    Lme4Warning
        It does not exist at the estimates: standard errors, degrees of freedom and tests are NaN.
    """

    def __init__(self, fit: Fit) -> None:
        if not fit.reml:
            raise OptionError(
                "ddf='kenward-roger' is defined for REML fits only; refit with reml=True, or use ddf='satterthwaite'."
            )
        self.parts = model_of(fit).kenward_roger()
        self.C = self.parts.C
        self.vcov = self.parts.vcov
        if self.parts.missing:
            warn(
                f"Kenward and Roger's adjustment does not exist here, its standard errors and tests are NaN: "
                f"{self.parts.missing}. Choose a simpler structure, or ddf='satterthwaite' (method='Satterthwaite').",
                Lme4Warning,
            )

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
        if self.parts.missing:
            return FTest(np.nan, float(rank), np.nan, np.nan)
        F = wald(L @ self.vcov @ L.T, estimate)
        if rank == 1:
            return f_test_of(F, 1, float(self.t_df(L)[0]))
        found = self._scale(L @ self.C)
        if not found.is_sound:
            warn(_unsound(rank, found), Lme4Warning)
        return f_test_of(F, rank, found.den_df, found.scale)

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
