"""Many fits at once: models with several grouping factors of few levels, by dense matrices of their random effects.

With Z'WZ = L L' (rank r), X_l = L^+ Z'WX, y_l = L^+ Z'Wy and A = I + L'Sigma L, Sigma the covariance of all random
effects relative to sigma^2, everything that a response has to do with its own variances is of size r:

    log|V| = log|A|,  Z'V^-1Z = K = L A^-1 L',  Z'V^-1X = U = L A^-1 X_l,  X'V^-1X = (X'WX - X_l'X_l) + X_l'A^-1X_l

and so on for y. With Z'PZ = K - U (X'V^-1X)^-1 U', R = Z'PZ for REML and K for ML, g = Z'Py and w = df / r2

    df/dtheta_i  = tr R dS_i - w g'dS_i g
    d2f          = -tr R dS_i R dS_l + 2 w g'dS_i Z'PZ dS_l g - (w / r2) (g'dS_i g)(g'dS_l g) + (from d2Sigma)

are exact. Where all responses have the same theta, as at a common start, one factorisation serves them all.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy import sparse

from lme4py.chunks import from_size
from lme4py.engine.linear.criterion import Criterion
from lme4py.fits.linear.batches.newton_batch import NewtonBatch, State, VarianceParts
from lme4py.fits.linear.fit import LinearFit
from lme4py.fits.linear.refit import Responses
from lme4py.linalg.cholesky import positive_inverses
from lme4py.linalg.types import FloatArray, IntArray

__all__ = ["DenseBatch", "can_batch_dense"]

# Random effects above which a sparse factor for each response is no slower.
_MAX_EFFECTS = from_size(120, 30)
_MAX_FIXED, _MAX_THETA = 12, 12
# Directions of Z'WZ below this part of the largest are rounding.
_NULL = 1e-12


def can_batch_dense(fit: LinearFit) -> bool:
    """True for models with few random effects in all, of independent levels, and T linear in theta."""
    problem = fit.problem
    if (
        problem.known is not None
        or problem.priors is not None
        or any(factor.relation is not None for factor in problem.factors)
    ):
        return False
    return (
        all(structure.linear_factor for structure in problem.structures.each)
        and sum(factor.size for factor in problem.factors) <= _MAX_EFFECTS
        and problem.n_fixed <= _MAX_FIXED
        and 0 < fit.theta_inside.size <= _MAX_THETA
    )


@dataclass(frozen=True)
class _Sums:
    """What is left of the responses: y_l (B, r), Xy (B, p), yy (B,)."""

    y: FloatArray
    Xy: FloatArray
    yy: FloatArray

    def take(self, rows: IntArray) -> _Sums:
        return _Sums(self.y[rows], self.Xy[rows], self.yy[rows])


@dataclass(frozen=True)
class _Point:
    """What a value and its derivatives share; the first axis is 1 where all responses have one theta."""

    inverse: FloatArray  # A^-1, (B, r, r)
    log_det: FloatArray  # (B,)
    W: FloatArray  # (X'V^-1X)^-1, (B, p, p)
    beta: FloatArray  # (B, p)
    r2: FloatArray  # (B,)
    log_det_X: FloatArray  # (B,)


class DenseBatch(NewtonBatch[_Sums]):
    """Optimises many responses of one model.

    Parameters
    ----------
    criterion : Criterion
        Of the model, for any response.
    responses : Responses
        Of the same model.
    """

    def __init__(self, criterion: Criterion, responses: Responses) -> None:
        super().__init__(criterion)
        problem = criterion.problem
        Z, columns = sparse.vstack(responses.Zt).tocsr(), responses.columns
        w = columns.weights
        weighted = Z if w is None else Z.multiply(w[None, :]).tocsr()
        values, vectors = np.linalg.eigh((weighted @ Z.T).toarray())
        keep = values > _NULL * values[-1]
        self.L = np.ascontiguousarray(vectors[:, keep] * np.sqrt(values[keep]))
        self.back = vectors[:, keep] / np.sqrt(values[keep])
        self.X = self.back.T @ (weighted @ columns.XY[:, :-1])
        self.rest = problem.base.corner[: self.p, : self.p] - self.X.T @ self.X
        sizes = [factor.size for factor in problem.factors]
        ends = np.cumsum([0, *sizes])
        self.places = [slice(a, b) for a, b in pairwise(ends.tolist())]
        self.shapes = [(factor.n_columns, factor.n_levels) for factor in problem.factors]
        # L'(S (x) I)L is a sum of these, one for each element of S of each factor.
        blocks = [self.L[place].reshape(k, J, -1) for place, (k, J) in zip(self.places, self.shapes, strict=True)]
        self.grams = np.concatenate([np.einsum("ajr,cjs->acrs", b, b).reshape(-1, b.shape[2] ** 2) for b in blocks])
        self._directions(criterion)

    def _directions(self, criterion: Criterion) -> None:
        """For each theta its factor and dT of that factor, (k, k)."""
        problem = criterion.problem
        slices = problem.structures.slices
        self.of: list[int] = [0] * sum(s.stop - s.start for s in slices)
        self.dT: list[FloatArray] = [np.empty(0)] * len(self.of)
        self.axes: list[FloatArray] = []
        for f, factor in enumerate(problem.factors):
            for term, place in zip(factor.terms, factor.columns, strict=True):
                structure = problem.structures.each[term]
                first = slices[term].start
                for i, direction in enumerate(structure.tangents(structure.initial())):
                    dT = np.zeros((factor.n_columns, factor.n_columns))
                    dT[place, place] = direction
                    self.of[first + i], self.dT[first + i] = f, dT
                axis = np.zeros(len(self.of))
                axis[slices[term]] = structure.initial()
                self.axes.append(axis)

    def sums(self, Zy: list[FloatArray], Xy: FloatArray, yy: FloatArray) -> _Sums:
        return _Sums(np.concatenate(Zy).T @ self.back, Xy.T, yy)

    def _lines(self, start: FloatArray) -> list[FloatArray]:
        """The shape of the start, and each term alone."""
        size = float(np.abs(start).max())
        shape = [] if size == 0.0 else [start / size]
        return shape + (self.axes if len(self.axes) > 1 or not shape else [])

    def values(self, theta: FloatArray, sums: _Sums) -> FloatArray:
        with np.errstate(all="ignore"):
            value = self._value(self._point(theta[None], sums))
        return np.where(np.isfinite(value), value, np.inf)

    def _value(self, at: _Point) -> FloatArray:
        value: FloatArray = at.log_det + self.df * np.log(at.r2) + self.constant
        return value + at.log_det_X if self.reml else value

    def factors(self, theta: FloatArray) -> list[FloatArray]:
        """T of each factor, (B, k, k)."""
        out = [np.zeros((theta.shape[0], k, k)) for k, _ in self.shapes]
        for i, (f, dT) in enumerate(zip(self.of, self.dT, strict=True)):
            out[f] += theta[:, i, None, None] * dT
        return out

    def _point(self, theta: FloatArray, sums: _Sums) -> _Point:
        size = self.L.shape[1]
        elements = [(T @ T.transpose(0, 2, 1)).reshape(theta.shape[0], -1) for T in self.factors(theta)]
        A = (np.concatenate(elements, axis=1) @ self.grams).reshape(-1, size, size)
        A[:, np.arange(size), np.arange(size)] += 1.0
        inverse, log_det = positive_inverses(A)
        XA = self.X.T @ inverse  # (b, p, r)
        Ay = _applied(inverse, sums.y)
        yy = sums.yy - np.einsum("br,br->b", sums.y, sums.y) + np.einsum("br,br->b", sums.y, Ay)
        Xy = sums.Xy + (Ay - sums.y) @ self.X
        W, beta, r2, log_det_X = self._solve_fixed(self.rest + XA @ self.X, Xy, yy)
        return _Point(inverse, log_det, W, beta, r2, log_det_X)

    def _evaluate(self, theta: FloatArray, sums: _Sums) -> State:
        common = theta.shape[0] > 1 and bool((theta == theta[0]).all())
        with np.errstate(all="ignore"):
            at = self._point(theta[:1] if common else theta, sums)
            value = self._value(at)
            gradient, hessian, _ = self._derivatives(theta, at, sums)
        finite = np.isfinite(value) & np.isfinite(hessian).all(axis=(1, 2)) & (at.r2 > 0)
        return State(np.where(finite, value, np.inf), gradient, hessian, at.beta, at.r2)

    def _tangents(self, theta: FloatArray) -> list[FloatArray]:
        """dSigma/dtheta of its factor for each theta, (B, k, k)."""
        T = self.factors(theta)
        half = [dT @ T[f].transpose(0, 2, 1) for f, dT in zip(self.of, self.dT, strict=True)]
        return [own + own.transpose(0, 2, 1) for own in half]

    def _derivatives(self, theta: FloatArray, at: _Point, sums: _Sums) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Gradient (B, m), Hessian (B, m, m), and slope g'dS g (B, m)."""
        LA = self.L @ at.inverse
        U, P = LA @ self.X, LA @ self.L.T
        R = P
        P = P - U @ at.W @ U.transpose(0, 2, 1)
        if self.reml:
            R = P
        g = _applied(LA, sums.y - at.beta @ self.X.T)
        dS = self._tangents(theta)
        m, w = len(dS), self.df / at.r2
        h = np.zeros((theta.shape[0], m, self.L.shape[0]))
        for i, own in enumerate(dS):
            place, (k, J) = self.places[self.of[i]], self.shapes[self.of[i]]
            h[:, i, place] = np.matmul(own, g[:, place].reshape(-1, k, J)).reshape(-1, k * J)
        slope = np.einsum("biq,bq->bi", h, g)
        traces = self._traces(R)
        gradient = np.stack([np.einsum("bac,bac->b", own, traces[self.of[i]]) for i, own in enumerate(dS)], axis=1)
        gradient = gradient - w[:, None] * slope
        hessian = 2.0 * w[:, None, None] * np.matmul(np.matmul(h, P), h.transpose(0, 2, 1))
        hessian -= (w / at.r2)[:, None, None] * slope[:, :, None] * slope[:, None, :]
        hessian -= self._trace_products(R, dS)
        self._add_curvature(hessian, traces, g, w)
        return gradient, 0.5 * (hessian + hessian.transpose(0, 2, 1)), slope

    def _traces(self, R: FloatArray) -> list[FloatArray]:
        """Sums over the levels of the diagonal blocks of R, (B, k, k) for each factor."""
        out = []
        for place, (k, J) in zip(self.places, self.shapes, strict=True):
            block = R[:, place, place].reshape(-1, k, J, k, J)
            out.append(np.einsum("bajcj->bac", block))
        return out

    def _trace_products(self, R: FloatArray, dS: list[FloatArray]) -> FloatArray:
        """tr R dS_i R dS_l, (B, m, m)."""
        m = len(dS)
        out = np.zeros((max(R.shape[0], dS[0].shape[0]), m, m))
        for f, (k, J) in enumerate(self.shapes):
            for e, (k2, J2) in enumerate(self.shapes[: f + 1]):
                block = R[:, self.places[f], self.places[e]].reshape(-1, k, J, k2, J2)
                # [b, c, a, d]: sum over levels of R[b, c] R[a, d].
                both = _products(block)
                for i in (i for i in range(m) if self.of[i] == f):
                    half = np.einsum("zab,zbcad->zcd", dS[i], both)
                    for j in (j for j in range(m) if self.of[j] == e):
                        out[:, i, j] = out[:, j, i] = np.einsum("zcd,zcd->z", half, dS[j])
        return out

    def _add_curvature(self, hessian: FloatArray, traces: list[FloatArray], g: FloatArray, w: FloatArray) -> None:
        """The part from d2Sigma = dT_i dT_l' + dT_l dT_i', in place."""
        for f, (place, (k, J)) in enumerate(zip(self.places, self.shapes, strict=True)):
            own = g[:, place].reshape(-1, k, J)
            G = traces[f] - w[:, None, None] * np.matmul(own, own.transpose(0, 2, 1))
            mine = [i for i in range(len(self.of)) if self.of[i] == f]
            for i in mine:
                for j in mine:
                    hessian[:, i, j] += 2.0 * np.einsum("bac,ac->b", G, self.dT[i] @ self.dT[j].T)

    def variance_parts(self, theta: FloatArray, sums: _Sums) -> VarianceParts:
        with np.errstate(all="ignore"):
            at = self._point(theta, sums)
            _, hessian, slope = self._derivatives(theta, at, sums)
            U = self.L @ at.inverse @ self.X
            changes = np.empty((theta.shape[0], len(self.of), self.p, self.p))
            for i, own in enumerate(self._tangents(theta)):
                place, (k, J) = self.places[self.of[i]], self.shapes[self.of[i]]
                block = U[:, place].reshape(theta.shape[0], k, J, self.p)
                both = np.einsum("bajp,bcjq,bac->bpq", block, block, own, optimize=True)
                changes[:, i] = at.W @ both @ at.W
        return VarianceParts(at.W, slope, changes, hessian)


def _applied(matrices: FloatArray, vectors: FloatArray) -> FloatArray:
    """Matrices (B, a, r), or one for all, times vectors (B, r)."""
    if matrices.shape[0] == 1:
        return np.asarray(vectors @ matrices[0].T)
    return np.asarray(np.matmul(matrices, vectors[:, :, None])[:, :, 0])


def _products(block: FloatArray) -> FloatArray:
    """Sums over both levels of R[b, j, c, i] R[a, j, d, i], (B, k, k2, k, k2) indexed [b, c, a, d]."""
    size, k, _, k2, _ = block.shape
    if k == 1 and k2 == 1:
        total: FloatArray = np.einsum("zjxi,zjxi->z", block[:, 0], block[:, 0])
        return total[:, None, None, None, None]
    flat = block.transpose(0, 1, 3, 2, 4).reshape(size, k * k2, -1)
    out: FloatArray = np.matmul(flat, flat.transpose(0, 2, 1)).reshape(-1, k, k2, k, k2)
    return out
