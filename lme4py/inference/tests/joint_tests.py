"""Tests of linear functions of fixed and random effects: narrow and intermediate inference.

A function k'beta + m'b of the effects of the groups in the data is predicted by k'beta^ + m'b^; its error has the
covariance [k m]' C [k m], with sigma^2 C the inverse of Henderson's mixed model equations. m = 0 is broad inference,
about the population that the groups come from; m that averages over all levels of every factor narrow inference, about
these groups; over those of some factors intermediate inference (McLean, Sanders & Stroup 1991, Am. Stat. 45:54).

With K = Lambda M^-1 Lambda' and P = K Z'WX the variance is v = (k - P'm)' V_beta (k - P'm) + sigma^2 m'Km. Its
derivative in the covariances Sigma, for Satterthwaite's degrees of freedom, follows from the weights a of the data in
the best prediction, which is stationary in them: dv = w' dSigma w with w = m - Z'a, and Z'a comes from the same solves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lme4py.engine.threads import limited_threads
from lme4py.errors import OptionError
from lme4py.fits.base import Fit
from lme4py.fits.kinds import model_of
from lme4py.fits.method import FTest, check_method, joint_f_test
from lme4py.fits.residual.fit import ResidualFit
from lme4py.fits.residual.prediction import effects_covariance, effects_gradient
from lme4py.inference.estimates.coefficients import check_ddf, coefficient_method, constant_df
from lme4py.linalg.types import FloatArray

__all__ = ["JointMethod", "effect_places", "joint_method"]


def effect_places(fit: Fit) -> list[slice]:
    """Places of the random effects of each term among all of them: levels, then columns."""
    ends = np.cumsum([term.n_levels * term.n_columns for term in fit.design.terms])
    return [
        slice(int(end) - term.n_levels * term.n_columns, int(end))
        for end, term in zip(ends, fit.design.terms, strict=True)
    ]


@dataclass(frozen=True)
class _Solved:
    """Rows L = [k m] after the solves, in the engine's columns and relative to `scale`.

    Attributes
    ----------
    moved : ndarray, shape (r, p)
        k - P'm.
    random : ndarray, shape (r, r)
        m'Km.
    rest : list of ndarray, each (k J, r)
        (I - Z'WZ K) m, by grouping factor.
    """

    moved: FloatArray
    random: FloatArray
    rest: list[FloatArray]


class JointMethod:
    """Covariance and degrees of freedom of linear functions of all effects.

    Parameters
    ----------
    fit : Fit
    ddf : str or None
        `default_ddf` of the fit when not given; Satterthwaite's stand in for Kenward and Roger's, which are about fixed
        effects.
    vcov : ndarray, shape (p, p), optional
        Another covariance of the coefficients (beta, then thresholds); its tests are normal, or have residual degrees
        of freedom.
    before : int
        Coefficients before those of L, which take no part.

    Notes
    -----
    Rows of L have one column for each coefficient, then one for each random effect: terms, levels, columns. Random
    effects that take no part have zeros. Of generalised models the covariance is that of the working linear model at
    the modes, with the covariance of the coefficients that the fit reports.
    """

    def __init__(self, fit: Fit, ddf: str | None = None, vcov: FloatArray | None = None, before: int = 0) -> None:
        linear = fit.has_f_tests
        ddf = None if ddf is None else check_method(ddf)
        if ddf == "kenward-roger":
            raise OptionError(
                "ddf='kenward-roger' is about fixed effects; with random effects at their modes use "
                "ddf='satterthwaite', 'residual' or 'normal'."
            )
        self.fit, self.before = fit, before
        usual = "normal" if vcov is not None and fit.default_ddf != "residual" else fit.default_ddf
        chosen = check_ddf(usual if ddf is None else ddf, linear=linear)
        self.by_moments = linear and chosen in ("satterthwaite", "kenward-roger")
        if self.by_moments:
            if vcov is not None:
                raise OptionError(f"ddf={ddf!r} does not belong to another covariance; use ddf='normal' or 'residual'.")
            # Refuses where the fit has a robust covariance.
            coefficient_method(fit, "satterthwaite")
        self.df = np.inf if self.by_moments else float(constant_df(fit, chosen))
        self._prepare(vcov)

    def _prepare(self, vcov: FloatArray | None) -> None:
        """The covariance of the coefficients, and what the random effects' errors are made of."""
        self.joint = model_of(self.fit).joint_variance()
        # Columns of the coefficients in the engine; thresholds stand behind beta as they are.
        C = self.joint.C
        self.C = C if C.shape[0] == C.shape[1] else np.eye(C.shape[1])
        self.vcov = self.joint.vcov
        if vcov is not None:
            back = np.linalg.inv(self.C)
            self.vcov = back @ vcov @ back.T / self.joint.scale

    @property
    def n_effects(self) -> int:
        """Random effects of all terms."""
        return int(self._places[-1].stop)

    def _solve(self, L: FloatArray) -> _Solved:
        joint, terms = self.joint, self.fit.design.terms
        p = self.C.shape[0]
        # Coefficients of other parts take no part, as those of a dispersion in the mean of a gaussian response.
        own_p = L.shape[1] - self.n_effects
        fixed = np.zeros((len(L), p))
        fixed[:, self.before : self.before + own_p] = L[:, :own_p]
        effects = L[:, own_p:]
        by_term = [
            effects[:, place].reshape(len(L), term.n_levels, term.n_columns)
            for place, term in zip(self._places, terms, strict=True)
        ]
        columns = []
        for factor in joint.factors:
            m = np.zeros((factor.n_columns, factor.n_levels, len(L)))
            for t, place in zip(factor.terms, factor.columns, strict=True):
                m[place] = np.einsum("rja,ab->bjr", by_term[t], joint.S[t])
            columns.append(m.reshape(-1, len(L)))
        with limited_threads(self.fit.design):
            swept = joint.swept
            K, rest = swept.back_substitute(swept.sweep_border(columns), np.eye(len(L)))
        moved = fixed @ self.C
        random = np.zeros((len(L), len(L)))
        for column, b, P in zip(columns, K, joint.P, strict=True):
            moved = moved - column.T @ P
            random += column.T @ b
        return _Solved(moved, 0.5 * (random + random.T), rest)

    @property
    def _places(self) -> list[slice]:
        return effect_places(self.fit)

    def _of(self, solved: _Solved) -> FloatArray:
        covariance: FloatArray = self.joint.scale * (solved.moved @ self.vcov @ solved.moved.T + solved.random)
        return covariance

    def covariance(self, L: FloatArray) -> FloatArray:
        """Covariance of the errors of L [beta^ b^], shape (r, r)."""
        return self._of(self._solve(L))

    def t_df(self, L: FloatArray) -> FloatArray:
        """Degrees of freedom of every row of L."""
        if not self.by_moments:
            return np.full(L.shape[0], self.df)
        solved = self._solve(L)
        variance = np.maximum(np.diag(self._of(solved)), 0.0)
        model = model_of(self.fit)
        derivatives = model.variance_derivatives()
        weights = [
            rest - H @ self.vcov @ solved.moved.T for rest, H in zip(solved.rest, model.fixed_in_groups(), strict=True)
        ]
        by_term = {
            t: weights[f].reshape(factor.n_columns, factor.n_levels, -1)[place]
            for f, factor in enumerate(self.joint.factors)
            for t, place in zip(factor.terms, factor.columns, strict=True)
        }
        gradient = [
            self.joint.scale * np.einsum("ajr,ab,bjr->r", by_term[t], dS, by_term[t], optimize=True)
            for t, chart in enumerate(derivatives.charts)
            for dS in chart.tangents()
        ]
        df = derivatives.degrees_of_freedom(variance, np.column_stack([*gradient, variance]))
        return np.where(np.isnan(df), np.inf, df)

    def f_test(self, L: FloatArray, estimate: FloatArray) -> FTest:
        """F test of independent rows, of Fai and Cornelius (1996) where degrees of freedom differ."""
        covariance = self.covariance(L)
        vectors = np.linalg.eigh(covariance)[1]
        return joint_f_test(covariance, estimate, self.t_df(vectors.T @ L))


class ResidualJointMethod(JointMethod):
    """The same of a model with a residual structure, by the covariances of its units."""

    def _prepare(self, vcov: FloatArray | None) -> None:
        assert isinstance(self.fit, ResidualFit)
        self.own: ResidualFit = self.fit
        self.vcov = self.own.vcov if vcov is None else vcov

    def covariance(self, L: FloatArray) -> FloatArray:
        """Covariance of the errors of L [beta^ b^], shape (r, r)."""
        return effects_covariance(self.own, L, self.vcov)

    def t_df(self, L: FloatArray) -> FloatArray:
        """Degrees of freedom of every row of L."""
        if not self.by_moments:
            return np.full(L.shape[0], self.df)
        derivatives = model_of(self.own).variance_derivatives()
        variance = np.maximum(np.diag(self.covariance(L)), 0.0)
        df = derivatives.degrees_of_freedom(variance, effects_gradient(self.own, L))
        return np.where(np.isnan(df), np.inf, df)


def joint_method(fit: Fit, ddf: str | None = None, vcov: FloatArray | None = None, before: int = 0) -> JointMethod:
    """The method of a fit.

    Parameters
    ----------
    fit, ddf, vcov, before
        As `JointMethod`.
    """
    return (ResidualJointMethod if isinstance(fit, ResidualFit) else JointMethod)(fit, ddf, vcov, before)
