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

from lme4py.design.design import Design
from lme4py.engine.factor.crossproducts import Factor
from lme4py.engine.factor.sweep import Swept
from lme4py.engine.generalised.products import WeightedProducts
from lme4py.engine.threads import limited_threads
from lme4py.fits.rows.arrays import RowArrays, own_rows
from lme4py.frozen import computed_once
from lme4py.linalg.types import FloatArray

__all__ = ["JointVariance"]


@dataclass(frozen=True)
class JointVariance:
    """The parts of the joint covariance in the engine's columns.

    Attributes
    ----------
    design : Design
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
    places : tuple of tuple of int, optional
        Linear predictor of each column of each factor, where there are several.
    """

    design: Design
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
    places: tuple[tuple[int, ...], ...] | None = None

    def variance(self, rows: RowArrays) -> FloatArray:
        """Variance of x'beta^ + z'b^ - (x'beta + z'b) of complete rows, shape (n,); b of unknown groups left out."""
        moved, random = self.parts(rows)
        fixed = np.einsum("np,pq,nq->n", moved, self.vcov, moved)
        variance: FloatArray = self.scale * np.maximum(fixed + random, 0.0)
        return variance

    def parts(self, rows: RowArrays) -> tuple[FloatArray, FloatArray]:
        """x - P'z, shape (n, p), and z'Kz, shape (n,): what multiplies the errors of `vcov`, and the rest."""
        Z = [self._columns(rows, factor) for factor in self.factors]
        codes = [self._codes(rows, factor) for factor in self.factors]
        moved = rows.X @ self.C
        if not self.factors:
            return moved, np.zeros(rows.n)
        for factor, P, z, c in zip(self.factors, self.P, Z, codes, strict=True):
            if z.any():
                by_level = P.reshape(factor.n_columns, factor.n_levels, -1)
                for a in range(factor.n_columns):
                    moved = moved - z[:, a, None] * by_level[a][c]
        return moved, self._random(Z, codes)

    def _columns(self, rows: RowArrays, factor: Factor) -> FloatArray:
        """Columns of a factor inside, (n, k); zero where no mode is added."""
        out = np.zeros((rows.n, factor.n_columns))
        for t, place in zip(factor.terms, factor.columns, strict=True):
            if t in rows.codes:
                known = rows.codes[t] >= 0
                out[known, place] = rows.values[t][known] @ self.S[t]
        return out

    def _codes(self, rows: RowArrays, factor: Factor) -> Any:
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
        n, new = self.design.n_obs, Z[0].shape[0]
        all_codes = tuple(np.concatenate([c, d]) for c, d in zip(own_codes, codes, strict=True))
        all_Z = tuple(np.concatenate([c, d]) for c, d in zip(own_Z, Z, strict=True))
        with limited_threads(self.design):
            products = WeightedProducts(all_codes, all_Z, self.factors, places=self.places)
            by_pair = self.w.reshape(-1, n)
            padded = np.concatenate([by_pair, np.zeros((by_pair.shape[0], new))], axis=1)
            swept = products.factorize(self.T, padded.ravel())
            by_predictors = products.log_det_derivatives(swept)[0].reshape(by_pair.shape[0], n + new)
            return np.asarray(by_predictors[:, n:].sum(axis=0))

    def _own_rows(self) -> RowArrays:
        terms = range(len(self.design.terms))
        return own_rows(self.design, terms, terms)

    @computed_once
    def _training(self) -> tuple[list[Any], list[FloatArray]]:
        """Codes and columns of the rows of the fit, those of all linear predictors."""
        rows = self._own_rows()
        rows = replace(rows, values={t: self.design.terms[t].values for t in rows.values})
        return [self._codes(rows, f) for f in self.factors], [self._columns(rows, f) for f in self.factors]

    def training(self) -> FloatArray:
        """`variance` of the rows of the fit with all their modes, shape (n,)."""
        return self.variance(self._own_rows())
