"""Cluster-robust (sandwich) covariance of the fixed effects of a linear mixed model, and its degrees of freedom.

With clusters that the model takes as independent, V block diagonal in them, M = (X'V^-1X)^-1 and e = y - X beta,

    V_R = M ( sum over clusters of S_c e_c e_c' S_c' ) M,           S_c = X_c'V_c^-1 A_c.

CR0: A = I (Liang & Zeger 1986). CR1: CR0 times m / (m - 1), as Stata's vce(cluster). CR2: A_c = D_c' B_c^{+1/2} D_c
with V_c = D_c'D_c and B_c = D_c (V_c - X_c M X_c') D_c', unbiased when V is right (Bell & McCaffrey 2002; Pustejovsky
& Tipton 2018, J. Bus. Econ. Stat. 36:672); D_c is the symmetric root here, which gives the same A_c. CR3: A_c =
(I - X_c M X_c'V_c^-1)^-1, close to the jackknife.

Stata's ``mixed, vce(robust)`` (maximum likelihood only, clusters the highest level) is CR1 but for the part of the
observed information that links beta and the variances, which is zero in expectation and left out here.

Degrees of freedom (Pustejovsky & Tipton 2018, sections 3 and 4) treat V as known: with g_c = S_c'M l and

    G_ij = [i = j] g_i'V_i g_i - g_i'X_i M X_j'g_j,               df = (sum_i G_ii)^2 / sum_ij G_ij^2.

All of it needs only S_c e_c, S_c V_c S_c' and S_c X_c of every cluster: p and p x p numbers. V_c acts as a multiple of
I beyond the columns of X_c and Z_c (for equal weights), so that large clusters are reduced to a basis of these.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lme4py.engine.linear.problem import group_terms
from lme4py.engine.linear.scaling import ScaledColumns, scale_columns
from lme4py.engine.threads import limited_threads
from lme4py.errors import DesignError
from lme4py.fits.linear.fit import LinearFit
from lme4py.fits.linear.joint import working_model
from lme4py.fits.method import FTest, f_test_of, wald
from lme4py.fits.rows.clusters import Clusters, RobustType, buckets, too_few_clusters
from lme4py.linalg.types import BoolArray, FloatArray, IntArray

__all__ = ["Robust", "RobustPieces", "bias_reduced_pieces", "jackknife"]

# Eigenvalues of B_c below this part of the largest are zero: the cluster alone determines that direction of X.
_RANK = 1e-10


@dataclass(frozen=True)
class RobustPieces:
    """What is left of m clusters, in the engine's columns and relative to sigma^2.

    Attributes
    ----------
    scores : ndarray, shape (m, p)
        S_c e_c.
    spread : ndarray, shape (m, p, p)
        S_c V_c S_c'.
    reach : ndarray, shape (m, p, p)
        S_c X_c.
    """

    scores: FloatArray
    spread: FloatArray
    reach: FloatArray

    def times(self, factor: float) -> RobustPieces:
        return RobustPieces(factor * self.scores, factor**2 * self.spread, factor * self.reach)


class Robust:
    """A robust covariance with Satterthwaite's degrees of freedom.

    Parameters
    ----------
    fit : LinearFit
    type : {"CR0", "CR1", "CR2", "CR3"}
    clusters : Clusters
        Independent ones.

    Attributes
    ----------
    vcov : ndarray, shape (p, p)
    n_clusters : int
    """

    def __init__(self, fit: LinearFit, type: RobustType, clusters: Clusters) -> None:
        inverse = np.linalg.inv(fit.point.RX)
        self.M = inverse @ inverse.T
        self.C = fit.problem.scaling.C
        self.type = type
        self.n_clusters = clusters.n_clusters
        with limited_threads(fit.design):
            self.pieces = self._adjusted(fit, clusters)
        scores = self.pieces.scores @ self.M
        self.vcov = fit.problem.scaling.vcov(scores.T @ scores)

    def _adjusted(self, fit: LinearFit, clusters: Clusters) -> RobustPieces:
        if self.type == "CR2":
            return _bias_reduced(_rows_of(fit), clusters, self.M)
        plain = _plain(fit, clusters)
        if self.type == "CR3":
            return jackknife(plain, self.M, clusters)
        m = clusters.n_clusters
        return plain.times(np.sqrt(m / (m - 1.0))) if self.type == "CR1" else plain

    def _forms(self, L: FloatArray) -> tuple[FloatArray, FloatArray]:
        """b_c = l'M S V S'M l' (m, r, r) and a_c = R T_c'M l (m, r, p), M = R'R, for the rows l of L."""
        rows = L @ self.C @ self.M
        b = np.einsum("ri,cij,sj->crs", rows, self.pieces.spread, rows, optimize=True)
        R = np.linalg.cholesky(self.M).T
        a = np.einsum("ri,cij,kj->crk", rows, self.pieces.reach, R, optimize=True)
        return b, a

    def t_df(self, L: FloatArray) -> FloatArray:
        """Degrees of freedom of every row of L (r, p)."""
        b, a = self._forms(L)
        out = np.empty(L.shape[0])
        for r in range(L.shape[0]):
            own, reach = b[:, r, r], a[:, r]
            size = (reach * reach).sum(axis=1)
            cross = reach.T @ reach
            trace = float((own - size).sum())
            square = float(own @ own - 2.0 * own @ size + (cross * cross).sum())
            out[r] = trace**2 / square if square > 0.0 else np.inf
        return out

    def f_test(self, L: FloatArray, estimate: FloatArray) -> FTest:
        """Approximate Hotelling test of independent rows (Pustejovsky & Tipton 2018, section 4).

        Raises
        ------
        DesignError
            When there are too few clusters for that many rows.
        """
        q = L.shape[0]
        if q == 1:
            return f_test_of(wald(L @ self.vcov @ L.T, estimate), 1, float(self.t_df(L)[0]))
        b, a = self._forms(L)
        size = np.einsum("crk,csk->crs", a, a)
        cross = np.einsum("crk,csl->rskl", a, a, optimize=True)
        expected = (b - size).sum(axis=0)
        root = np.linalg.inv(np.linalg.cholesky(0.5 * (expected + expected.T)))
        b, size = root @ b @ root.T, root @ size @ root.T
        cross = np.einsum("rs,tu,sukl->rtkl", root, root, cross, optimize=True)
        eta = q * (q + 1.0) / _total_variance(b, size, cross)
        den_df = eta - q + 1.0
        covariance = L @ self.vcov @ L.T
        if den_df <= 0.0 or np.linalg.matrix_rank(covariance, hermitian=True) < q:
            raise DesignError(too_few_clusters(self.n_clusters, q))
        return f_test_of(wald(covariance, estimate), q, den_df, den_df / eta)


def _total_variance(b: FloatArray, size: FloatArray, cross: FloatArray) -> float:
    """Sum of the variances of the elements of the standardised covariance of q contrasts."""
    own = np.einsum("css->cs", b)
    own_size = np.einsum("css->cs", size)
    total = float(np.einsum("cs,ct->", own, own)) - 2.0 * float(np.einsum("cs,ct->", own, own_size))
    total += float((cross * cross).sum())
    total += float((b * b).sum()) - 2.0 * float((b * size).sum())
    return total + float(np.einsum("stkl,stlk->", cross, cross))


# --- the pieces of every cluster --------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Rows:
    """Rows in the engine's columns: X (n, p), residuals (n,), weights (n,), and for each factor codes, Z and Sigma."""

    X: FloatArray
    residuals: FloatArray
    weights: FloatArray
    codes: tuple[IntArray, ...]
    Z: tuple[FloatArray, ...]
    roots: tuple[FloatArray, ...]


def _rows_of(fit: LinearFit) -> _Rows:
    columns: ScaledColumns = scale_columns(fit.design)[1]
    factors = group_terms(fit.design)
    p = fit.beta.size
    w = np.ones(fit.design.n_obs) if columns.weights is None else columns.weights
    return _Rows(
        columns.XY[:, :p],
        columns.XY[:, p] - columns.XY[:, :p] @ fit.point.beta,
        w,
        tuple(fit.design.terms[factor.terms[0]].codes for factor in factors),
        tuple(np.hstack([columns.Z[t] for t in factor.terms]) for factor in factors),
        tuple(fit.problem.factor_T(fit.point.T)),
    )


def _plain(fit: LinearFit, clusters: Clusters) -> RobustPieces:
    """CR0: sums of the rows of V^-1 X, which the factor gives at once for all clusters."""
    model = working_model(fit)
    m = clusters.n_clusters
    blocks, right, _ = model.cluster_products(clusters.codes, m)
    return RobustPieces(right - blocks @ fit.point.beta, blocks, blocks)


def jackknife(plain: RobustPieces, M: FloatArray, clusters: Clusters) -> RobustPieces:
    """CR3 from CR0: X'V^-1 (I - X M X'V^-1)^-1 = (I - X'V^-1X M)^-1 X'V^-1 in every cluster."""
    R = np.linalg.cholesky(M)
    left = np.eye(M.shape[0]) - R.T @ plain.spread @ R
    values = np.linalg.eigvalsh(left)[:, 0]
    alone = np.flatnonzero(values < _RANK)
    if alone.size:
        raise DesignError(
            f"without cluster {clusters.labels[int(alone[0])]!r} of {clusters.name!r} the fixed effects cannot all be "
            f"estimated ({alone.size} such cluster(s)), so that type='CR3' does not exist; use type='CR2'."
        )
    back = np.linalg.inv(R)
    inverse = back.T @ np.linalg.solve(left, np.broadcast_to(R.T, plain.spread.shape))
    scores = np.einsum("cij,cj->ci", inverse, plain.scores)
    reach = inverse @ plain.reach
    return RobustPieces(scores, reach @ np.swapaxes(inverse, 1, 2), reach)


def _bias_reduced(rows: _Rows, clusters: Clusters, M: FloatArray) -> RobustPieces:
    """CR2, bucket by bucket."""
    m, p = clusters.n_clusters, M.shape[0]
    out = RobustPieces(np.empty((m, p)), np.empty((m, p, p)), np.empty((m, p, p)))
    for which, places, counts in buckets(clusters.codes, m):
        X, e, V = _reduced(rows, places, np.arange(places.shape[1]) < counts[:, None])
        bias_reduced_pieces(out, which, X, e, V, M)
    return out


def bias_reduced_pieces(
    out: RobustPieces, which: IntArray, X: FloatArray, e: FloatArray, V: FloatArray, M: FloatArray
) -> None:
    """CR2 of some clusters, put in their places.

    Parameters
    ----------
    out : RobustPieces
    which : ndarray of int, shape (C,)
    X : ndarray, shape (C, s, p)
    e : ndarray, shape (C, s)
    V : ndarray, shape (C, s, s)
    M : ndarray, shape (p, p)
    """
    values, vectors = np.linalg.eigh(V)
    root = (vectors * np.sqrt(values)[:, None, :]) @ np.swapaxes(vectors, 1, 2)
    inverse_root = (vectors / np.sqrt(values)[:, None, :]) @ np.swapaxes(vectors, 1, 2)
    rX = root @ X
    B = V @ V - rX @ M @ np.swapaxes(rX, 1, 2)
    S = np.swapaxes(X, 1, 2) @ inverse_root @ _inverse_root(B) @ root
    out.scores[which] = np.einsum("cir,cr->ci", S, e)
    out.spread[which] = S @ V @ np.swapaxes(S, 1, 2)
    out.reach[which] = S @ X


def _inverse_root(B: FloatArray) -> FloatArray:
    """Symmetric root of the Moore-Penrose inverse of each positive semi-definite matrix."""
    values, vectors = np.linalg.eigh(B)
    kept = values > _RANK * values[:, -1:]
    scale = np.where(kept, 1.0 / np.sqrt(np.where(kept, values, 1.0)), 0.0)
    out: FloatArray = (vectors * scale[:, None, :]) @ np.swapaxes(vectors, 1, 2)
    return out


def _reduced(rows: _Rows, places: IntArray, real: BoolArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """X (C, r, p), residuals (C, r) and V / sigma^2 (C, r, r) of the clusters of a bucket.

    r is the number of rows, or that of a basis of [X Z] where it is smaller and weights do not vary within clusters.
    Places that are not real have no columns, no residual and variance 1.
    """
    mask = real[:, :, None]
    X = np.where(mask, rows.X[places], 0.0)
    e = np.where(real, rows.residuals[places], 0.0)
    w = np.where(real, rows.weights[places], 1.0)
    size, width = real.shape[1], X.shape[2]
    levels, widths = _levels_within(rows, places, real)
    width += sum(count * Z.shape[1] for count, Z in zip(widths, rows.Z, strict=True))
    first = rows.weights[places[:, :1]]
    constant = bool((np.where(real, rows.weights[places], first) == first).all())
    if width >= size or not constant:
        V = np.eye(size) / w[:, :, None]
        for codes, Z, T in zip(rows.codes, rows.Z, rows.roots, strict=True):
            half = np.where(mask, Z[places] @ T, 0.0)
            same = codes[places][:, :, None] == codes[places][:, None, :]
            V = V + np.where(same, half @ np.swapaxes(half, 1, 2), 0.0)
        return X, e, V
    halves = [_expanded(rows, f, places, real, levels[f], widths[f]) for f in range(len(rows.codes))]
    Q = np.linalg.qr(np.concatenate([X, *halves], axis=2))[0]
    Qt = np.swapaxes(Q, 1, 2)
    V = np.eye(Q.shape[2]) / first[:, :, None]
    for half in halves:
        short = Qt @ half
        V = V + short @ np.swapaxes(short, 1, 2)
    return Qt @ X, np.einsum("cnr,cn->cr", Q, e), V


def _levels_within(rows: _Rows, places: IntArray, real: BoolArray) -> tuple[list[IntArray], list[int]]:
    """For each factor the level of each place counted from 0 within its cluster, and the most levels of a cluster."""
    out, widths = [], []
    for codes in rows.codes:
        # Levels of a cluster in order; places that are not real repeat its first row.
        own = codes[places]
        order = np.argsort(own, axis=1, kind="stable")
        ordered = np.take_along_axis(own, order, axis=1)
        rank = np.concatenate([np.zeros((own.shape[0], 1), int), np.cumsum(np.diff(ordered) != 0, axis=1)], axis=1)
        level = np.empty_like(own)
        np.put_along_axis(level, order, rank, axis=1)
        out.append(level)
        widths.append(int(level.max()) + 1)
    return out, widths


def _expanded(rows: _Rows, f: int, places: IntArray, real: BoolArray, level: IntArray, count: int) -> FloatArray:
    """Z Lambda of a factor in each cluster, (C, places, levels k)."""
    half = np.where(real[:, :, None], rows.Z[f][places] @ rows.roots[f], 0.0)
    C, size, k = half.shape
    out = np.zeros((C, size, count, k))
    np.put_along_axis(out, level[:, :, None, None], half[:, :, None, :], axis=2)
    return out.reshape(C, size, count * k)
