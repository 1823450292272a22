"""Many fits at once: models with one grouping factor, all responses optimised together by Newton's method.

Levels of the factor with the same Z'WZ and Z'WX are gathered into classes (balanced data have one class), so that a
response enters through a few sums per class. With E = (Sigma^-1 + A)^-1 for a class of N levels, N_ = (I + A
Sigma)^-1, K = N_ A, F = N_ D N_' (D the sum over levels of the products of residuals) and R = N_ X'(X'V^-1X)^-1 X N_',

    df/dSigma   = sum N K - w F - N R,                                             w = df / r2
    d2f         = -sum N tr(K dS K dS) + w (2 y'P V. P V. P y - (y'PV.Py)^2 / r2)
                  + sum 2 N tr(R dS K dS) - tr(W^-1 H W^-1 H)                      (the R and H parts for REML only)

are exact, so that convergence is quadratic. Arrays are (k, k, B, C): responses and classes run fastest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lme4py.covariance import CovarianceStructures
from lme4py.engine.linear.criterion import Criterion
from lme4py.fits.linear.batches.newton_batch import NewtonBatch, State, VarianceParts
from lme4py.fits.linear.fit import LinearFit
from lme4py.linalg.small import product, transpose
from lme4py.linalg.types import FloatArray, IntArray

__all__ = ["BatchSolver", "can_batch"]

_MAX_COLUMNS, _MAX_FIXED = 4, 12


def can_batch(fit: LinearFit) -> bool:
    """True for models with one factor of independent levels, few columns and T linear in theta, where vectors pay."""
    problem = fit.problem
    linear = all(structure.linear_factor for structure in problem.structures.each)
    return (
        linear
        and len(problem.factors) == 1
        and problem.factors[0].relation is None
        and problem.known is None
        and problem.priors is None
        and problem.factors[0].n_columns <= _MAX_COLUMNS
        and problem.n_fixed <= _MAX_FIXED
    )


@dataclass(frozen=True)
class _Sums:
    """What is left of the responses: s (k, B, C), Q (k, k, B, C), Xy (B, p), yy (B,)."""

    s: FloatArray
    Q: FloatArray
    Xy: FloatArray
    yy: FloatArray

    def take(self, rows: IntArray) -> _Sums:
        return _Sums(self.s[:, rows], self.Q[:, :, rows], self.Xy[rows], self.yy[rows])


class BatchSolver(NewtonBatch[_Sums]):
    """Optimises many responses of one model.

    Parameters
    ----------
    criterion : Criterion
        Of the model, for any response.
    """

    def __init__(self, criterion: Criterion) -> None:
        problem = criterion.problem
        factor = problem.factors[0]
        super().__init__(criterion)
        self.k = factor.n_columns
        A = problem.cross.diagonal[0]
        X = problem.cross.border[0][:, :, : self.p].transpose(0, 2, 1)
        rows = np.concatenate([A.reshape(-1, factor.n_levels), X.reshape(-1, factor.n_levels)]).T
        _, first, labels, counts = np.unique(rows, axis=0, return_index=True, return_inverse=True, return_counts=True)
        self.labels: IntArray = labels.reshape(-1)
        self.N = counts.astype(float)
        self.A = np.ascontiguousarray(A[:, :, first])[:, :, None]  # (k, k, 1, C)
        self.X = np.ascontiguousarray(X[:, :, first])[:, :, None]  # (k, p, 1, C)
        self.XX = problem.base.corner[: self.p, : self.p]
        self._directions(problem.structures, factor.columns)

    def _directions(self, structures: CovarianceStructures, columns: tuple[slice, ...]) -> None:
        """dT/dtheta of the whole factor, (m, k, k), and their products."""
        out = []
        for structure, place in zip(structures.each, columns, strict=True):
            # The same at every theta.
            for direction in structure.tangents(structure.initial()):
                dT = np.zeros((self.k, self.k))
                dT[place, place] = direction
                out.append(dT)
        self.dT = np.array(out)
        self.dTdT = np.einsum("iab,lcb->ilac", self.dT, self.dT)

    @property
    def n_classes(self) -> int:
        """Number of different kinds of levels."""
        return int(self.N.size)

    def sums(self, Zy: list[FloatArray], Xy: FloatArray, yy: FloatArray) -> _Sums:
        """Gather the products of responses, Zy (k J, B), Xy (p, B), yy (B,), by class."""
        B = yy.size
        z = Zy[0].reshape(self.k, -1, B)
        C = self.n_classes
        if z.shape[1] == C:
            order = np.argsort(self.labels)
            s = np.ascontiguousarray(z[:, order].transpose(0, 2, 1))
            return _Sums(s, s[:, None] * s[None], Xy.T, yy)
        s = np.zeros((self.k, B, C))
        Q = np.zeros((self.k, self.k, B, C))
        for c in range(C):
            own = z[:, self.labels == c]
            s[:, :, c] = own.sum(axis=1)
            Q[:, :, :, c] = np.einsum("ajb,djb->adb", own, own)
        return _Sums(s, Q, Xy.T, yy)

    def _lines(self, start: FloatArray) -> list[FloatArray]:
        """Directions in theta to look along: the shape of the start, and the first effect alone."""
        first = np.zeros(start.size)
        first[0] = 1.0
        size = float(np.abs(start).max())
        return [first] if start.size == 1 or size == 0.0 else [start / size, first]

    def values(self, theta: FloatArray, sums: _Sums) -> FloatArray:
        """The criterion of all responses at one theta, (m,); infinite where it does not exist."""
        with np.errstate(all="ignore"):
            log_det, E = self._eliminate(self.factors(theta[None]))
            _, _, r2, log_det_X = self._fixed(E, sums)
            values: FloatArray = log_det + self.df * np.log(r2) + self.constant + (log_det_X if self.reml else 0.0)
        return np.where(np.isfinite(values), values, np.inf)

    def factors(self, theta: FloatArray) -> FloatArray:
        """T for each response, (k, k, B, 1)."""
        return np.tensordot(theta, self.dT, 1).transpose(1, 2, 0)[..., None]

    def _evaluate(self, theta: FloatArray, sums: _Sums) -> State:
        T = self.factors(theta)
        with np.errstate(all="ignore"):
            log_det, E = self._eliminate(T)
            N_ = self._shrunk(E)
            W, beta, r2, log_det_X = self._fixed(E, sums)
            value = log_det + self.df * np.log(r2) + self.constant
            if self.reml:
                value = value + log_det_X
            gradient, hessian = self._derivatives(T, N_, W, beta, r2, sums)
        finite = np.isfinite(value) & np.isfinite(hessian).all(axis=(1, 2)) & (r2 > 0)
        return State(np.where(finite, value, np.inf), gradient, hessian, beta, r2)

    def variance_parts(self, theta: FloatArray, sums: _Sums) -> VarianceParts:
        T = self.factors(theta)
        with np.errstate(all="ignore"):
            _, E = self._eliminate(T)
            N_ = self._shrunk(E)
            W, beta, r2, _ = self._fixed(E, sums)
            _, hessian = self._derivatives(T, N_, W, beta, r2, sums)
            F = product(product(N_, self._residuals(beta, sums)), transpose(N_)).sum(axis=3)
            dS = self._tangents(T)
            XN = product(N_, self.X)
            both = np.einsum("apbc,dqbc,c->pqadb", XN, XN, self.N, optimize=True)
            changes = np.einsum("bpr,rqadb,iadb,bqs->bips", W, both, dS, W, optimize=True)
        return VarianceParts(W, np.einsum("iadb,adb->bi", dS, F), changes, hessian)

    def _shrunk(self, E: FloatArray) -> FloatArray:
        """N_ = I - A E."""
        N_ = -product(self.A, E)
        for a in range(self.k):
            N_[a, a] += 1.0
        return N_

    def _residuals(self, beta: FloatArray, sums: _Sums) -> FloatArray:
        """D: sums over levels of the products of residuals, (k, k, B, C)."""
        fitted = self._fitted(beta)
        D = sums.Q - fitted[:, None] * sums.s[None] - sums.s[:, None] * fitted[None]
        D += self.N * fitted[:, None] * fitted[None]
        return D

    def _fitted(self, beta: FloatArray) -> FloatArray:
        """Z'X beta of one level of each class, (k, B, C)."""
        fitted: FloatArray = np.einsum("apc,bp->abc", self.X[:, :, 0], beta)
        return fitted

    def _tangents(self, T: FloatArray) -> FloatArray:
        """dSigma/dtheta, (m, k, k, B)."""
        dS = np.einsum("iac,dcb->iadb", self.dT, T[..., 0])
        tangents: FloatArray = dS + dS.transpose(0, 2, 1, 3)
        return tangents

    def _eliminate(self, T: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Sum of log|I + T'AT| for each response, and E = T (I + T'AT)^-1 T'."""
        M = product(product(transpose(T), self.A), T)
        for a in range(self.k):
            M[a, a] += 1.0
        log_det = np.zeros(M.shape[2:])
        # Gauss-Jordan sweeps; no pivoting is needed for positive definite matrices.
        for i in range(self.k):
            pivot = M[i, i].copy()
            log_det += np.log(pivot)
            row = M[i] / pivot
            column = M[:, i].copy()
            column[i] = 0.0
            M -= column[:, None] * row[None]
            M[:, i] = -column / pivot
            M[i] = row
            M[i, i] = 1.0 / pivot
        return self._total(log_det), product(product(T, M), transpose(T))

    def _total(self, log_det: FloatArray) -> FloatArray:
        """Sums over the levels, (B,), of what each class has."""
        total: FloatArray = log_det @ self.N
        return total

    def _fixed(self, E: FloatArray, sums: _Sums) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """(X'V^-1X)^-1, beta, r2 and log|X'V^-1X| for each response."""
        EX = product(E, self.X)
        swept = np.einsum("apc,aqbc,c->bpq", self.X[:, :, 0], EX, self.N, optimize=True)
        XX = self.XX - swept
        Xy = sums.Xy - np.einsum("apbc,abc->bp", EX, sums.s, optimize=True)
        yy = sums.yy - np.einsum("adbc,adbc->b", E, sums.Q)
        return self._solve_fixed(XX, Xy, yy)

    def _derivatives(
        self, T: FloatArray, N_: FloatArray, W: FloatArray, beta: FloatArray, r2: FloatArray, sums: _Sums
    ) -> tuple[FloatArray, FloatArray]:
        w = self.df / r2
        K = product(N_, self.A)
        t = sums.s - self.N * self._fitted(beta)
        F = product(product(N_, self._residuals(beta, sums)), transpose(N_))
        XN = product(N_, self.X)
        g = product(N_, t[:, None])[:, 0]
        G = np.einsum("adbc,c->adb", K, self.N) - w * F.sum(axis=3)
        second = (2.0 * w)[:, None] * F - self.N * K
        if self.reml and self.p:
            R = np.einsum("apbc,bpq,dqbc->adbc", XN, W, XN, optimize=True)
            G -= np.einsum("adbc,c->adb", R, self.N)
            second += 2.0 * self.N * R
        dS = self._tangents(T)
        gradient = np.einsum("iadb,adb->bi", dS, G)
        hessian = self._second(K, second, dS)
        slope = np.einsum("iadb,adb->bi", dS, F.sum(axis=3))
        hessian -= (w / r2)[:, None, None] * slope[:, :, None] * slope[:, None, :]
        if self.p:
            mixed = np.einsum("apbc,dbc->padb", XN, g, optimize=True)
            U = np.einsum("padb,iadb->bip", mixed, dS, optimize=True)
            hessian -= 2.0 * w[:, None, None] * np.einsum("bip,bpq,blq->bil", U, W, U, optimize=True)
        if self.reml and self.p:
            both = np.einsum("apbc,dqbc,c->pqadb", XN, XN, self.N, optimize=True)
            H = np.einsum("bpr,rqadb,iadb->bipq", W, both, dS, optimize=True)
            hessian -= np.einsum("bipq,blqp->bil", H, H, optimize=True)
        hessian += 2.0 * np.einsum("ilad,adb->bil", self.dTdT, G)
        return gradient, 0.5 * (hessian + hessian.transpose(0, 2, 1))

    @staticmethod
    def _second(K: FloatArray, second: FloatArray, dS: FloatArray) -> FloatArray:
        """sum over classes of tr(dS_i K dS_l Psi), (B, m, m)."""
        k = K.shape[0]
        tensor = np.empty((k, k, k, k, K.shape[2]))
        for a in range(k):
            for d in range(k):
                tensor[a, d] = np.einsum("efbc,bc->efb", second, K[a, d])
        # tensor[b, c, d, a]: dS_i[a, b] K[b, c] dS_l[c, d] Psi[d, a]
        half = np.einsum("iaez,eczda->izcda", dS, np.moveaxis(tensor, 4, 2), optimize=True)
        out: FloatArray = np.einsum("izcda,lcdz->zil", half, dS, optimize=True)
        return out
