"""-2 log-likelihood and REML criterion of a linear model by the covariance of its units, with exact derivatives.

With P = V^-1 - V^-1 X Phi X'V^-1, Phi = (X'V^-1X)^-1, a = P y, B = V^-1 X and the derivatives V_j, V_jk of V:

    value      = log|V| + y'P y + n log 2 pi                    (REML: + log|X'V^-1X| - p log 2 pi)
    d_j        = tr(V^-1 V_j) - a'V_j a                         (REML: - tr(Phi B'V_j B))
    d2_jk      = - tr(V^-1 V_j V^-1 V_k) + 2 a'V_j P V_k a + <V^-1 - a a', V_jk>
                 (REML: + 2 tr(Phi B'V_j V^-1 V_k B) - tr(Phi B'V_j B Phi B'V_k B) - <B Phi B', V_jk>)

(Harville 1977, JASA 72:320). All of it is a sum over units, and units with the same V share its factor.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lme4py.engine.marginal.blocks import Blocks, jets_of, make_blocks, second_sum
from lme4py.engine.marginal.model import MarginalModel
from lme4py.engine.marginal.units import Batch, make_batches
from lme4py.linalg.types import FloatArray

__all__ = ["MarginalCriterion", "MarginalPoint", "MarginalScaling"]

_LOG_2_PI = float(np.log(2.0 * np.pi))


@dataclass(frozen=True)
class MarginalScaling:
    """Units in which the model is solved: X C with orthogonal columns, and the residuals of y by least squares.

    Attributes
    ----------
    C : ndarray, shape (p, p)
    beta : ndarray, shape (p,)
        Least squares.
    y_scale : float
    """

    C: FloatArray
    beta: FloatArray
    y_scale: float


@dataclass(frozen=True)
class MarginalPoint:
    """The criterion at some parameters, inside.

    Attributes
    ----------
    par : ndarray, shape (m,)
    value : float
    beta : ndarray, shape (p,)
    phi : ndarray, shape (p, p)
        (X'V^-1X)^-1.
    blocks : tuple of Blocks
        By batch.
    inverse : tuple of ndarray, each (C, s, s)
        Inverse of the lower Cholesky factor of V.
    """

    par: FloatArray
    value: float
    beta: FloatArray
    phi: FloatArray
    blocks: tuple[Blocks, ...]
    inverse: tuple[FloatArray, ...]


class MarginalCriterion:
    """The criterion as a function of the covariance parameters.

    Parameters
    ----------
    model : MarginalModel
        On the user's scale.
    reml : bool
    scaling : MarginalScaling, optional
        That of another criterion, whose parameters are to mean the same here.

    Attributes
    ----------
    model : MarginalModel
        In the units of `scaling`.
    scaling : MarginalScaling
    batches : list of Batch
    """

    def __init__(self, model: MarginalModel, reml: bool = True, scaling: MarginalScaling | None = None) -> None:
        self.reml = reml
        self.scaling = _scaling(model) if scaling is None else scaling
        inside = (model.y - model.X @ self.scaling.beta) / self.scaling.y_scale
        residual = replace(
            model.residual, structures=tuple(s.in_units(self.scaling.y_scale) for s in model.residual.structures)
        )
        random = tuple(replace(r, structure=r.structure.in_units(self.scaling.y_scale)) for r in model.random)
        self.model = replace(model, X=model.X @ self.scaling.C, y=inside, random=random, residual=residual)
        self.batches = make_batches(self.model)
        self.n, self.p = model.X.shape
        self._last: tuple[MarginalPoint, tuple[FloatArray, FloatArray] | None] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Without what the last evaluation left."""
        return self.__dict__ | {"_last": None}

    # --- the user's scale -------------------------------------------------------------------------------------------

    def value_outside(self, value: float) -> float:
        """The criterion of the user's y and X."""
        log_scale = 2.0 * float(np.log(self.scaling.y_scale))
        n, p = float(self.n), float(self.p)
        if not self.reml:
            return value + n * log_scale
        return value + (n - p) * log_scale - 2.0 * float(np.linalg.slogdet(self.scaling.C)[1])

    def beta_outside(self, beta: FloatArray) -> FloatArray:
        """Coefficients of the user's X."""
        return self.scaling.beta + self.scaling.y_scale * (self.scaling.C @ beta)

    def vcov_outside(self, phi: FloatArray) -> FloatArray:
        """Their covariance."""
        half = self.scaling.y_scale * self.scaling.C
        return np.asarray(half @ phi @ half.T)

    def with_columns(self, M: FloatArray) -> MarginalCriterion:
        """The criterion of the columns [X y] M inside, whose rows and covariances are the same.

        Parameters
        ----------
        M : ndarray, shape (p + 1, q + 1)
        """
        made = copy(self)
        made._last = None
        made.batches = [replace(batch, data=batch.data @ M) for batch in self.batches]
        whole = np.concatenate([self.model.X, self.model.y[:, None]], axis=1) @ M
        made.model = replace(self.model, X=whole[:, :-1], y=whole[:, -1])
        made.p = M.shape[1] - 1
        return made

    # --- values -----------------------------------------------------------------------------------------------------

    def evaluate(self, par: FloatArray, derivatives: bool = True) -> MarginalPoint | None:
        """The criterion at par, shape (m,); None where V is not positive definite in floating point."""
        last = self._last
        if last is not None and np.array_equal(last[0].par, par):
            return last[0]
        point = self._evaluated(par, derivatives)
        if derivatives and point is not None:
            self._last = (point, None)
        return point

    def _evaluated(self, par: FloatArray, derivatives: bool) -> MarginalPoint | None:
        blocks, inverses = [], []
        A = np.zeros((self.p + 1, self.p + 1))
        log_det = 0.0
        for batch in self.batches:
            jets = jets_of(self.model, batch, par, int(derivatives))
            made = make_blocks(self.model, batch, jets, par[self.model.slices[-1]])
            factor = _cholesky(made.V)
            if factor is None:
                return None
            inverse: FloatArray = np.asarray(np.linalg.inv(factor), dtype=float)
            log_det += 2.0 * float(batch.count @ np.log(np.diagonal(factor, axis1=1, axis2=2)).sum(axis=1))
            U = (inverse[batch.of_class] @ batch.data).reshape(-1, self.p + 1)
            A += U.T @ U
            blocks.append(made)
            inverses.append(inverse)
        return self._point(par, A, log_det, tuple(blocks), tuple(inverses))

    def _point(
        self,
        par: FloatArray,
        A: FloatArray,
        log_det: float,
        blocks: tuple[Blocks, ...],
        inverse: tuple[FloatArray, ...],
    ) -> MarginalPoint | None:
        p = self.p
        if p and _cholesky(A[:p, :p]) is None:
            return None
        phi = np.linalg.inv(A[:p, :p])
        beta = phi @ A[:p, p]
        square = float(A[p, p] - A[:p, p] @ beta)
        value = log_det + square + self.n * _LOG_2_PI
        if self.reml:
            value += float(np.linalg.slogdet(A[:p, :p])[1]) - p * _LOG_2_PI
        return MarginalPoint(par, value, beta, 0.5 * (phi + phi.T), blocks, inverse) if np.isfinite(value) else None

    def square(self, point: MarginalPoint) -> float:
        """(y - X beta)' V^-1 (y - X beta)."""
        total = 0.0
        for batch, inverse in zip(self.batches, point.inverse, strict=True):
            left = inverse[batch.of_class] @ (batch.data[..., -1:] - batch.data[..., :-1] @ point.beta[:, None])
            total += float(np.sum(left**2))
        return total

    def first_moments(self, point: MarginalPoint) -> FloatArray:
        """X'V^-1 V_j V^-1 X, shape (m, p, p)."""
        M = np.zeros((self.model.n_par, self.p, self.p))
        for batch, blocks, inverse in zip(self.batches, point.blocks, point.inverse, strict=True):
            a, B = residuals(batch, inverse, point.beta)
            M += _moments(batch, blocks.first, a, B)[0]
        return M

    # --- derivatives ------------------------------------------------------------------------------------------------

    def derivatives(self, point: MarginalPoint) -> tuple[FloatArray, FloatArray]:
        """Gradient (m,) and Hessian (m, m) in the parameters.

        Parameters
        ----------
        point : MarginalPoint
            With derivatives.
        """
        last = self._last
        if last is None or last[0] is not point:
            return self._derivatives(point)
        made = last[1] or self._derivatives(point)
        self._last = (point, made)
        return made

    def _derivatives(self, point: MarginalPoint) -> tuple[FloatArray, FloatArray]:
        m, p = self.model.n_par, self.p
        gradient, hessian = np.zeros(m), np.zeros((m, m))
        if not m:
            return gradient, hessian
        M, h = np.zeros((m, p, p)), np.zeros((m, p))
        for batch, blocks, inverse in zip(self.batches, point.blocks, point.inverse, strict=True):
            a, B = residuals(batch, inverse, point.beta)
            Vinv = inverse.swapaxes(1, 2) @ inverse
            outer = batch.by_class(a[:, :, None] * a[:, None, :])
            if self.reml:
                outer = outer + batch.by_class(B @ point.phi @ B.swapaxes(1, 2))
            N = batch.count[:, None, None]
            G = N * Vinv - outer
            d = blocks.first
            gradient += np.einsum("mcab,cab->m", d, G)
            E = inverse @ d @ inverse.swapaxes(1, 2)
            factor = np.linalg.inv(inverse)
            Q = N * np.eye(batch.size) - 2.0 * (factor.swapaxes(1, 2) @ outer @ factor)
            hessian -= (E @ Q).reshape(m, -1) @ E.reshape(m, -1).T
            hessian += second_sum(self.model, batch, blocks, point.par, G)
            of_B, of_a = _moments(batch, d, a, B)
            M += of_B
            h += of_a
        hessian -= 2.0 * h @ point.phi @ h.T
        if self.reml:
            PM = point.phi @ M
            hessian -= np.einsum("jab,kba->jk", PM, PM)
        return gradient, 0.5 * (hessian + hessian.T)


def residuals(batch: Batch, inverse: FloatArray, beta: FloatArray) -> tuple[FloatArray, FloatArray]:
    """V^-1 (y - X beta), (R, s), and V^-1 X, (R, s, p)."""
    own = inverse[batch.of_class]
    solved = own.swapaxes(1, 2) @ (own @ batch.data)
    B = solved[..., :-1]
    return solved[..., -1] - B @ beta, B


def _moments(batch: Batch, d: FloatArray, a: FloatArray, B: FloatArray) -> tuple[FloatArray, FloatArray]:
    """sum B'V_j B, (m, p, p), and sum B'V_j a, (m, p)."""
    p = B.shape[2]
    flat = np.concatenate([B, a[..., None]], axis=2)
    moved = d[:, batch.of_class] @ flat
    out = B.reshape(-1, p).T @ moved.reshape(len(d), B.shape[0] * B.shape[1], p + 1)
    return out[..., :p], out[..., p]


def _cholesky(V: FloatArray) -> FloatArray | None:
    try:
        factor = np.asarray(np.linalg.cholesky(V), dtype=float)
    except np.linalg.LinAlgError:
        return None
    return factor if np.isfinite(factor).all() else None


def _scaling(model: MarginalModel) -> MarginalScaling:
    n, p = model.X.shape
    if not p:
        size = float(np.sqrt(np.mean(model.y**2)))
        return MarginalScaling(np.zeros((0, 0)), np.zeros(0), size or 1.0)
    norm = np.linalg.norm(model.X, axis=0)
    C = np.linalg.inv(np.linalg.qr(model.X / norm, mode="r")) * np.sqrt(n) / norm[:, None]
    beta = C @ (model.X @ C).T @ model.y / n
    beta = beta + C @ (model.X @ C).T @ (model.y - model.X @ beta) / n
    left = model.y - model.X @ beta
    return MarginalScaling(C, beta, float(np.sqrt(left @ left / max(n - p, 1))) or 1.0)
