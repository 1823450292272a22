"""Variance of linear predictors with conditional modes, from the joint covariance of (beta^ - beta, b^ - b).

Henderson's mixed model equations have the coefficient matrix [X Z]'W[X Z] + diag(0, Sigma^-1); its inverse times
sigma^2 is that covariance (Henderson 1975, Biometrics 31:423). For a row x, z of any data it gives

    Var = (x - P'z)' V_beta (x - P'z) + z' K z,    K = Lambda M^-1 Lambda',  P = K Z'WX,

and for the rows of the fit, times the weight, the leverage. z'Kz of all rows is the derivative of log|M| in weights:
the new rows are added to the model with weight zero, so that one factorisation and its adjoint serve all of them,
whatever combinations of levels they hold. No matrix of n x n or q x q elements is formed for them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lme4py.engine.factor.crossproducts import Factor
from lme4py.engine.factor.sweep import Swept
from lme4py.engine.generalised.problem import FixedSystem
from lme4py.engine.generalised.products import WeightedProducts
from lme4py.engine.threads import limited_threads
from lme4py.fits.generalised import GlmmFit
from lme4py.fits.linear import Fit
from lme4py.frozen import computed_once
from lme4py.inference.prediction.rows import Rows, make_rows
from lme4py.linalg.types import FloatArray

__all__ = ["JointVariance", "joint_variance"]


@dataclass(frozen=True)
class JointVariance:
    """The parts of the joint covariance in the engine's columns.

    Attributes
    ----------
    fit : Fit or GlmmFit
    factors : tuple of Factor
    T : list of ndarray, each (k, k)
        By grouping factor.
    w : ndarray, shape (n,)
        Weights of the rows of the fit.
    C : ndarray, shape (p, p)
        X C are the columns that P and `vcov` belong to.
    S : tuple of ndarray, each (k, k)
        Z inside = Z S, by term.
    P : list of ndarray, each (k J, p)
        By grouping factor: what the conditional modes lose when a fixed effect (then a threshold) rises by one.
    vcov : ndarray, shape (p, p)
        Covariance of these, over `scale`.
    diagonal : list of ndarray, each (k, k, J)
        Diagonal blocks of Lambda M^-1 Lambda'.
    scale : float
    swept : Swept
        The factor of M.
    """

    fit: Fit | GlmmFit
    factors: tuple[Factor, ...]
    T: list[FloatArray]
    w: FloatArray
    C: FloatArray
    S: tuple[FloatArray, ...]
    P: list[FloatArray]
    vcov: FloatArray
    diagonal: list[FloatArray]
    scale: float
    swept: Swept

    def variance(self, rows: Rows) -> FloatArray:
        """Variance of x'beta^ + z'b^ - (x'beta + z'b) of complete rows, shape (n,); b of unknown groups left out."""
        moved, random = self.parts(rows)
        fixed = np.einsum("np,pq,nq->n", moved, self.vcov, moved)
        variance: FloatArray = self.scale * np.maximum(fixed + random, 0.0)
        return variance

    def parts(self, rows: Rows) -> tuple[FloatArray, FloatArray]:
        """x - P'z, shape (n, p), and z'Kz, shape (n,): what multiplies the errors of `vcov`, and the rest."""
        Z = [self._columns(rows, factor) for factor in self.factors]
        codes = [self._codes(rows, factor) for factor in self.factors]
        moved = rows.X @ self.C
        for factor, P, z, c in zip(self.factors, self.P, Z, codes, strict=True):
            if z.any():
                by_level = P.reshape(factor.n_columns, factor.n_levels, -1)
                for a in range(factor.n_columns):
                    moved = moved - z[:, a, None] * by_level[a][c]
        return moved, self._random(Z, codes)

    def _columns(self, rows: Rows, factor: Factor) -> FloatArray:
        """Columns of a factor inside, (n, k); zero where no mode is added."""
        out = np.zeros((rows.n, factor.n_columns))
        for t, place in zip(factor.terms, factor.columns, strict=True):
            if t in rows.codes:
                known = rows.codes[t] >= 0
                out[known, place] = rows.values[t][known] @ self.S[t]
        return out

    def _codes(self, rows: Rows, factor: Factor) -> Any:
        found = [rows.codes[t] for t in factor.terms if t in rows.codes]
        return np.maximum(found[0], 0) if found else np.zeros(rows.n, dtype=np.intp)

    def _random(self, Z: list[FloatArray], codes: list[Any]) -> FloatArray:
        """z'Kz of each row."""
        used = [f for f, z in enumerate(Z) if z.any()]
        total = np.zeros(Z[0].shape[0])
        if len(used) > 1:
            return self._with_cross_terms(Z, codes)
        for f in used:
            for a in range(Z[f].shape[1]):
                for b in range(Z[f].shape[1]):
                    total += Z[f][:, a] * self.diagonal[f][a, b][codes[f]] * Z[f][:, b]
        return total

    def _with_cross_terms(self, Z: list[FloatArray], codes: list[Any]) -> FloatArray:
        """z'Kz where several factors take part: covariances of the modes of different factors enter."""
        own_codes, own_Z = self._training
        n = self.w.size
        all_codes = tuple(np.concatenate([c, d]) for c, d in zip(own_codes, codes, strict=True))
        all_Z = tuple(np.concatenate([c, d]) for c, d in zip(own_Z, Z, strict=True))
        with limited_threads(self.fit.design):
            products = WeightedProducts(all_codes, all_Z, self.factors)
            swept = products.factorize(self.T, np.concatenate([self.w, np.zeros(Z[0].shape[0])]))
            return products.log_det_derivatives(swept)[0][n:]

    @computed_once
    def _training(self) -> tuple[list[Any], list[FloatArray]]:
        rows = make_rows(self.fit, None, range(len(self.fit.design.terms)))
        return [self._codes(rows, f) for f in self.factors], [self._columns(rows, f) for f in self.factors]

    def training(self) -> FloatArray:
        """`variance` of the rows of the fit with all their modes, shape (n,)."""
        return self.variance(make_rows(self.fit, None, range(len(self.fit.design.terms))))


def joint_variance(fit: Fit | GlmmFit, expected: bool = False) -> JointVariance:
    """The joint covariance of a fit.

    The fixed effects have `fit.vcov`, robust where the fit was asked for that; the conditional modes given the fixed
    effects vary as the model says.

    Parameters
    ----------
    fit : Fit or GlmmFit
        For generalised models that of the working linear model at the modes.
    expected : bool
        The model's own covariance of the fixed effects; for generalised models with the expected weights, and the
        fixed effects of the working model (X'V^-1X)^-1.
    """
    with limited_threads(fit.design):
        return _generalised(fit, expected) if isinstance(fit, GlmmFit) else _linear(fit, expected)


def _linear(fit: Fit, expected: bool) -> JointVariance:
    problem, point = fit.problem, fit.point
    p, scaling = problem.n_fixed, problem.scaling
    weights = fit.design.weights
    w = np.ones(fit.design.n_obs) if weights is None else weights / scaling.weight_scale
    inverse = np.linalg.inv(point.RX) if p else np.zeros((0, 0))
    P, _ = point.swept.back_substitute(point.border, np.eye(p + 1, p))
    diagonal = point.swept.adjoint(point.border, np.zeros((p + 1, p + 1))).diagonal
    scale = fit.sigma**2 / scaling.weight_scale
    vcov = inverse @ inverse.T
    if fit.design.conventions.vce is not None and not expected:
        back = np.linalg.inv(scaling.C)
        vcov = back @ fit.vcov @ back.T / scale
    return JointVariance(
        fit, problem.factors, problem.factor_T(point.T), w, scaling.C, scaling.S, P, vcov, diagonal, scale, point.swept
    )


def _generalised(fit: GlmmFit, expected: bool) -> JointVariance:
    problem, mode = fit.problem, fit.point.mode
    p, products = problem.n_fixed, problem.products
    w, swept = mode.w, mode.swept
    if expected or problem.uses_expected:
        w = fit.family.derivatives(fit.data, mode.eta, mode.lam, 2).w_exp
        swept = products.factorize(mode.T, w)
    diagonal = products.log_det_derivatives(swept)[2]
    if expected:
        system = FixedSystem(problem, swept, w, np.zeros(problem.n_obs))
        P, _ = swept.back_substitute(system.border, np.eye(p + 1, p))
        vcov = np.linalg.inv(system.cross) if p else np.zeros((0, 0))
        return JointVariance(fit, problem.factors, mode.T, w, problem.C, problem.S, P, vcov, diagonal, 1.0, swept)
    columns = w[:, None] * fit.design.X
    vcov = fit.vcov
    if fit.thresholds is not None:
        # The modes move with the thresholds too, and these with the fixed effects.
        columns = np.column_stack([columns, -_threshold_scores(fit)])
        vcov = fit.parameter_vcov[fit.theta.size :, fit.theta.size :]
    P, _ = swept.back_substitute(swept.sweep_border(products.project(columns)), np.eye(columns.shape[1]))
    C = np.eye(p, columns.shape[1])
    return JointVariance(fit, problem.factors, mode.T, w, C, problem.S, P, vcov, diagonal, 1.0, swept)


def _threshold_scores(fit: GlmmFit) -> FloatArray:
    """Derivatives of each row's score in the thresholds, shape (n, K - 1)."""
    rows = fit.family.derivatives(fit.data, fit.linear_predictor, fit.lam, 3)
    scores: FloatArray = replace(rows.score_lam, A=np.eye(len(fit.categories) - 1)).columns()
    return scores
