"""Refits without each row or group of a model with one grouping factor, all at once.

Leaving out row i of level j changes one level: the classes of `lme4py.fits.linear.batches.batch` lose level j, and the
level that is left of it is a class of its own. Every unit has its own cross-products, theta and Newton steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from lme4py.chunks import chunk
from lme4py.engine.linear.criterion import Criterion
from lme4py.engine.linear.scaling import scale_columns
from lme4py.fits.linear.batches.batch import BatchSolver
from lme4py.fits.linear.batches.newton_batch import BatchFits
from lme4py.fits.linear.fit import LinearFit
from lme4py.fits.rows.clusters import row_sums
from lme4py.linalg.newton import newton_steps
from lme4py.linalg.small import product, transpose
from lme4py.linalg.types import FloatArray, IntArray

__all__ = ["DeletionSolver", "Unit"]

# Numbers of one array (k, k, units, classes).
_CHUNK = chunk(2_000_000)


@dataclass(frozen=True)
class Unit:
    """Cross-products without each of B units: the C classes and, for rows, the level that is left.

    Attributes
    ----------
    A : ndarray, shape (k, k, B, C)
    X : ndarray, shape (k, p, B, C)
    N : ndarray, shape (B, C)
        Levels of each class.
    s : ndarray, shape (k, B, C)
        Sums over the levels of a class of Z'Wy.
    Q : ndarray, shape (k, k, B, C)
        Sums of their products.
    XX, Xy, yy : ndarray, shape (B, p, p), (B, p), (B,)
    df : ndarray, shape (B,)
    """

    A: FloatArray
    X: FloatArray
    N: FloatArray
    s: FloatArray
    Q: FloatArray
    XX: FloatArray
    Xy: FloatArray
    yy: FloatArray
    df: FloatArray

    def take(self, rows: IntArray) -> Unit:
        """Some of the units."""
        first = ("N", "XX", "Xy", "yy", "df")
        parts = {f.name: getattr(self, f.name) for f in fields(self)}
        return Unit(**{name: v[rows] if name in first else np.take(v, rows, axis=-2) for name, v in parts.items()})


class DeletionSolver(BatchSolver):
    """Fits without each unit.

    Parameters
    ----------
    fit : LinearFit
        With one grouping factor.
    """

    def __init__(self, fit: LinearFit) -> None:
        super().__init__(Criterion(fit.problem, fit.reml))
        self.fit = fit
        cross, p = fit.problem.cross, self.p
        self.level_A = np.moveaxis(cross.diagonal[0], 2, 0)  # (J, k, k)
        border = np.moveaxis(cross.border[0], 1, 0)
        self.level_X, self.level_s = border[:, :, :p], border[:, :, p]
        self.corner = fit.problem.base.corner
        self.constant = 0.0
        onehot = self.labels[:, None] == np.arange(self.n_classes)
        self.class_s = self.level_s.T @ onehot  # (k, C)
        self.class_Q = np.einsum("ja,jb,jc->abc", self.level_s, self.level_s, onehot.astype(float))
        columns = scale_columns(fit.design)[1]
        self.XY = columns.XY
        self.w = np.ones(fit.design.n_obs) if columns.weights is None else columns.weights
        self.Z = np.hstack([columns.Z[t] for t in fit.problem.factors[0].terms])
        self.codes = fit.design.terms[0].codes

    # -- units ---------------------------------------------------------------------------------------------------

    def chunks(self, size: int) -> Iterator[IntArray]:
        """Units that are fitted together."""
        each = max(1, _CHUNK // (self.k * max(self.k, self.p) * (self.n_classes + 1)))
        for start in range(0, size, each):
            yield np.arange(start, min(start + each, size))

    def rows(self, units: IntArray) -> Unit:
        """The model without each of some rows."""
        level = self.codes[units]
        gone = self.w[units, None] * self.Z[units]
        A = self.level_A[level] - gone[:, :, None] * self.Z[units, None, :]
        border = gone[:, :, None] * self.XY[units, None, :]
        X, s = self.level_X[level] - border[:, :, : self.p], self.level_s[level] - border[:, :, self.p]
        corner = self.w[units, None, None] * self.XY[units, :, None] * self.XY[units, None, :]
        without = self._without(level, corner, np.ones(units.size))
        return Unit(
            A=np.concatenate([without.A, np.moveaxis(A, 0, 2)[..., None]], axis=3),
            X=np.concatenate([without.X, np.moveaxis(X, 0, 2)[..., None]], axis=3),
            N=np.concatenate([without.N, np.ones((units.size, 1))], axis=1),
            s=np.concatenate([without.s, s.T[:, :, None]], axis=2),
            Q=np.concatenate([without.Q, np.einsum("ba,bd->adb", s, s)[..., None]], axis=3),
            XX=without.XX,
            Xy=without.Xy,
            yy=without.yy,
            df=without.df,
        )

    def levels(self, units: IntArray) -> Unit:
        """The model without each of some levels of the grouping factor."""
        J = self.level_s.shape[0]
        products = self.w[:, None, None] * self.XY[:, :, None] * self.XY[:, None, :]
        counts = np.bincount(self.codes, minlength=J).astype(float)
        return self._without(units, row_sums(products, self.codes, J)[units], counts[units])

    def _without(self, level: IntArray, corner: FloatArray, counts: FloatArray) -> Unit:
        """The classes without one level each, and the corner without some rows."""
        B, C, p = level.size, self.n_classes, self.p
        own = (self.labels[level, None] == np.arange(C)).astype(float)
        s = self.level_s[level]
        rest = self.corner - corner
        return Unit(
            A=np.broadcast_to(self.A, (self.k, self.k, B, C)),
            X=np.broadcast_to(self.X, (self.k, p, B, C)),
            N=self.N - own,
            s=self.class_s[:, None] - np.einsum("ba,bc->abc", s, own),
            Q=self.class_Q[:, :, None] - np.einsum("ba,bd,bc->adbc", s, s, own),
            XX=rest[:, :p, :p],
            Xy=rest[:, :p, p],
            yy=rest[:, p, p],
            df=self.df - counts,
        )

    # -- fits ----------------------------------------------------------------------------------------------------

    def step(self, units: Any, start: FloatArray) -> BatchFits:
        """One Newton step from `start`, shape (m,), for all units."""
        theta = np.tile(start, (units.yy.size, 1))
        state = self._evaluate(theta, units)
        moves, _ = newton_steps(state.gradient, state.hessian, np.full(units.yy.size, np.inf))
        theta = theta + moves
        after = self._evaluate(theta, units)
        return BatchFits(theta, after.beta, after.r2, after.value, np.isfinite(after.value))

    def covariances(self, theta: FloatArray, units: Any) -> FloatArray:
        """(X'V^-1X)^-1 without each unit, (B, p, p)."""
        here = self._with(units)
        return here._fixed(here._eliminate(here.factors(theta))[1], units)[0]

    def _with(self, units: Any) -> DeletionSolver:
        """A copy that works on the cross-products of the units."""
        here = copy(self)
        here.A, here.X, here.N, here.XX, here.df = units.A, units.X, units.N, units.XX, units.df
        return here

    def _evaluate(self, theta: FloatArray, sums: Any) -> Any:
        return super(DeletionSolver, self._with(sums))._evaluate(theta, sums)

    def values(self, theta: FloatArray, sums: Any) -> FloatArray:
        """The criterion without each unit at one theta, (m,)."""
        return super(DeletionSolver, self._with(sums)).values(theta, sums)

    def _total(self, log_det: FloatArray) -> FloatArray:
        return np.asarray(np.einsum("bc,bc->b", log_det, self.N))

    def _fixed(self, E: FloatArray, sums: Any) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        EX = product(E, self.X)
        XX = self.XX - np.einsum("apbc,aqbc,bc->bpq", self.X, EX, self.N, optimize=True)
        Xy = sums.Xy - np.einsum("apbc,abc->bp", EX, sums.s, optimize=True)
        yy = sums.yy - np.einsum("adbc,adbc->b", E, sums.Q)
        return self._solve_fixed(XX, Xy, yy)

    def _derivatives(
        self, T: FloatArray, N_: FloatArray, W: FloatArray, beta: FloatArray, r2: FloatArray, sums: Any
    ) -> tuple[FloatArray, FloatArray]:
        w, N = self.df / r2, self.N
        K = product(N_, self.A)
        fitted = np.einsum("apbc,bp->abc", self.X, beta)
        t = sums.s - N * fitted
        D = sums.Q - fitted[:, None] * sums.s[None] - sums.s[:, None] * fitted[None]
        D += N * fitted[:, None] * fitted[None]
        F = product(product(N_, D), transpose(N_))
        XN = product(N_, self.X)
        g = product(N_, t[:, None])[:, 0]
        F_sum = F.sum(axis=3)
        G = np.einsum("adbc,bc->adb", K, N) - w * F_sum
        second = (2.0 * w)[:, None] * F - N * K
        if self.reml and self.p:
            R = np.einsum("apbc,bpq,dqbc->adbc", XN, W, XN, optimize=True)
            G -= np.einsum("adbc,bc->adb", R, N)
            second += 2.0 * N * R
        dS = np.einsum("iac,dcb->iadb", self.dT, T[..., 0])
        dS = dS + dS.transpose(0, 2, 1, 3)
        gradient = np.einsum("iadb,adb->bi", dS, G)
        hessian = self._second(K, second, dS)
        slope = np.einsum("iadb,adb->bi", dS, F_sum)
        hessian -= (w / r2)[:, None, None] * slope[:, :, None] * slope[:, None, :]
        if self.p:
            U = np.einsum("apbc,dbc,iadb->bip", XN, g, dS, optimize=True)
            hessian -= 2.0 * w[:, None, None] * np.einsum("bip,bpq,blq->bil", U, W, U, optimize=True)
        if self.reml and self.p:
            both = np.einsum("apbc,dqbc,bc->pqadb", XN, XN, N, optimize=True)
            H = np.einsum("bpr,rqadb,iadb->bipq", W, both, dS, optimize=True)
            hessian -= np.einsum("bipq,blqp->bil", H, H, optimize=True)
        hessian += 2.0 * np.einsum("ilad,adb->bil", self.dTdT, G)
        return gradient, 0.5 * (hessian + hessian.transpose(0, 2, 1))
