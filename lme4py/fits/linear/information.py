"""Expected information of the variance parameters, in products that do not grow with the number of rows.

The covariance of y is sigma^2 (V + change), with the directions V itself (for sigma^2) and Z E Z' for every parameter
of every covariance matrix, V = W^-1 + Z Sigma Z'. It is linear in its parameters where these are the elements of
covariance matrices; for other structures they are variances, correlations and ranges
(`CovarianceStructure.kenward_roger`), and R_ij = X'V^-1 V_ij V^-1 X is not zero. Needed are, with
P = V^-1 - V^-1 X (X'V^-1X)^-1 X'V^-1,

    trace[i, j] = tr(P V_i P V_j),      K_i = X'V^-1 V_i V^-1 X,      Q_ij = X'V^-1 V_i V^-1 V_j V^-1 X.

The traces are sums of squares of blocks of Z'PZ. With V = V_1 + Z_2 Sigma_2 Z_2', where V_1 holds the largest
grouping factor and Z_2 all others,

    Z_1'PZ_1 = B - F E F',      Z_1'PZ_2 = F G,

where B is block diagonal and F, sparse, has as many columns as all other factors together (and X): only matrices of
that size are dense.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lme4py.chunks import chunk
from lme4py.covariance.natural import Adjusted
from lme4py.engine.factor.symbolic import cross_block
from lme4py.engine.linear.criterion import Criterion, Point
from lme4py.engine.linear.hessian import inner_products
from lme4py.engine.linear.problem import Problem
from lme4py.errors import OptionError
from lme4py.fits.derived import derived
from lme4py.fits.linear.derivatives import fixed_in_groups, level_products, symmetric_inverse
from lme4py.fits.linear.fit import LinearFit
from lme4py.fits.parameters import KenwardRogerParts
from lme4py.linalg import small
from lme4py.linalg.types import FloatArray, IntArray, SparseMatrix, sparse

__all__ = ["Information", "expected_information", "kenward_roger"]

# Bytes that the dense matrices may take.
_MEMORY = 1.6e9
# Rows of the first factor that are made dense at a time.
_CHUNK = chunk(4096)


@dataclass(frozen=True)
class Information:
    """Traces and matrices of the s directions V, Z E_1 Z', Z E_2 Z', ...; the fixed effects are the engine's columns.

    Attributes
    ----------
    traces : ndarray, shape (s, s)
        tr(P V_i P V_j); half of it is the expected information at sigma = 1.
    first : ndarray, shape (s, p, p)
        K_i.
    second : ndarray, shape (s, s, p, p)
        Q_ij.
    curved : ndarray, shape (s, s, p, p), or None
        R_ij; None where the covariance is linear.
    """

    traces: FloatArray
    first: FloatArray
    second: FloatArray
    curved: FloatArray | None = None


def check_size(fit: LinearFit) -> None:
    """Refuse models whose dense matrices would not fit in memory."""
    if _has_related(fit.problem):
        _check_related(fit)
        return
    factors = sorted(fit.problem.factors, key=lambda f: f.size)
    k = factors[-1].n_columns
    size = sum(f.size for f in factors[:-1]) + fit.beta.size
    needed = 8.0 * size**2 * (k * (3 * k + 1) / 2 + 7)
    if needed > _MEMORY:
        raise OptionError(
            f"ddf='kenward-roger' needs dense matrices of {size} x {size} here, {needed / 1e9:.1f} GB in all "
            f"(random effects of {', '.join(f.name for f in factors[:-1])}); use ddf='satterthwaite'."
        )


def _has_related(problem: Problem) -> bool:
    return any(factor.relation is not None for factor in problem.factors)


def _check_related(fit: LinearFit) -> None:
    size = sum(factor.size for factor in fit.problem.factors)
    needed = 8.0 * 6.0 * float(size) ** 2
    if needed > _MEMORY:
        raise OptionError(
            f"ddf='kenward-roger' needs dense matrices of all {size:,} random effects where levels are related, "
            f"{needed / 1e9:.1f} GB in all; use ddf='satterthwaite'."
        )


@derived
def expected_information(fit: LinearFit) -> Information:
    """The expected information at the estimates; kept with the fit.

    Parameters
    ----------
    fit : LinearFit

    Raises
    ------
    OptionError
        The dense matrices would not fit in memory.
    """
    check_size(fit)
    problem, point = fit.problem, fit.point
    U = fixed_in_groups(point)
    parts = _parts(fit)
    directions = _directions(problem, parts)
    cross, second = _fixed_products(Criterion(problem, fit.reml), point, U, directions)
    blocks = _RelatedBlocks(problem, point) if _has_related(problem) else _Blocks(problem, point, U)
    s, p = len(directions) + 1, fit.beta.size
    traces = np.empty((s, s))
    traces[0, 0] = problem.cross.n_obs - p
    traces[0, 1:] = traces[1:, 0] = [float(np.sum(E * blocks.sums[f])) for f, E in directions]
    for i, (f, E) in enumerate(directions, start=1):
        for j, (g, D) in enumerate(directions[:i], start=1):
            traces[i, j] = traces[j, i] = blocks.trace(f, E, g, D)
    own = point.RX.T @ point.RX
    first = np.array([own, *cross]).reshape(s, p, p)
    full = np.empty((s, s, p, p))
    full[0] = first
    full[:, 0] = first
    full[1:, 1:] = second
    curved = None if problem.structures.linear else _curved(problem, parts, U)
    return Information(traces, first, full, curved)


def _parts(fit: LinearFit) -> list[Adjusted]:
    """Covariances of all terms with derivatives in Kenward and Roger's parameters, in the engine's columns."""
    structures = fit.problem.structures
    return [s.kenward_roger(own) for s, own in zip(structures.each, structures.split(fit.theta_inside), strict=True)]


def _curved(problem: Problem, parts: list[Adjusted], U: list[FloatArray]) -> FloatArray:
    """R_ij of all directions; that of V moves all variances together."""
    m = sum(len(part.sigma.first) for part in parts)
    p = U[0].shape[1]
    out = np.zeros((m + 1, m + 1, p, p))
    start = 1
    for part, P in zip(parts, level_products(problem, U), strict=True):
        own = len(part.sigma.first)
        change = np.zeros((m + 1, own))
        change[0], change[start : start + own] = part.along_scale, np.eye(own)
        second = np.einsum("ijab,abpq->ijpq", part.sigma.second, P)
        out += np.einsum("si,ijpq,tj->stpq", change, second, change, optimize=True)
        start += own
    return out


def _directions(problem: Problem, parts: list[Adjusted]) -> list[tuple[int, FloatArray]]:
    """(grouping factor, E) for each parameter of each covariance matrix; E is (k, k) in the factor's columns."""
    found: list[tuple[int, FloatArray]] = []
    for f, factor in enumerate(problem.factors):
        for term, columns in zip(factor.terms, factor.columns, strict=True):
            for own in parts[term].sigma.first:
                E = np.zeros((factor.n_columns, factor.n_columns))
                E[columns, columns] = own
                found.append((f, E))
    return found


def _fixed_products(
    criterion: Criterion, point: Point, U: list[FloatArray], directions: list[tuple[int, FloatArray]]
) -> tuple[list[FloatArray], FloatArray]:
    """K_i and Q_ij of the covariance directions."""
    factors = criterion.problem.factors
    p, m = point.beta.size, len(directions)
    H = [np.zeros((factor.size, m * p)) for factor in factors]
    for i, (f, E) in enumerate(directions):
        own = U[f].reshape(factors[f].n_columns, factors[f].n_levels, p)
        H[f][:, i * p : (i + 1) * p] = factors[f].along(np.tensordot(E, own, axes=1)).reshape(factors[f].size, p)
    first = [U[f].T @ H[f][:, i * p : (i + 1) * p] for i, (f, _) in enumerate(directions)]
    border, _ = criterion.ZZ.apply(H)
    _, solved = point.swept.back_substitute(point.swept.sweep_border(border), np.eye(m * p))
    total = sum((h.T @ g for h, g in zip(H, solved, strict=True)), np.zeros((m * p, m * p)))
    return first, total.reshape(m, p, m, p).transpose(0, 2, 1, 3)


class _Blocks:
    """Sums of products of the blocks of Z'PZ.

    Parameters
    ----------
    problem : Problem
    point : Point
    U : list of ndarray, each (k J, p)
        Z'V^-1X by grouping factor.

    Attributes
    ----------
    sums : dict of ndarray, each (k, k)
        Sum over levels of the diagonal blocks, by grouping factor.
    """

    def __init__(self, problem: Problem, point: Point, U: list[FloatArray]) -> None:
        self.factors = problem.factors
        self.first = int(np.argmax([factor.size for factor in problem.factors]))
        self.rest = _Rest(problem, self.first)
        factor = self.factors[self.first]
        inverse = np.linalg.inv(point.RX)
        phi = inverse @ inverse.T
        own = U[self.first].reshape(factor.n_columns, factor.n_levels, -1)
        self.B, F, K = _eliminate_first(problem, point, self.first, self.rest)
        rest = np.vstack([U[f] for f in self.rest.order]) if self.rest.order else np.zeros((0, phi.shape[0]))
        T = problem.factor_T(point.T)
        transposed = np.linalg.inv(np.eye(self.rest.size) + self.rest.scaled(T, K))
        residual = np.asarray(transposed.T, dtype=np.float64)  # (I + K Sigma)^-1
        E = self.rest.scaled(T, residual)
        self.inner = residual @ K - rest @ phi @ rest.T
        self.G = np.vstack([residual.T, -phi @ rest.T])
        self.E = _block_diagonal(E, phi)
        self.M = _gram(F, own)
        self.EM = {key: self.E @ M for key, M in self.M.items()}
        self.drop = _diagonal_blocks(F, own, self.E)
        self.sums = {self.first: (self.B - self.drop).sum(axis=2)}
        for f in self.rest.order:
            k = self.factors[f].n_columns
            sums = [[np.trace(self._inner(f, a, f, b)) for b in range(k)] for a in range(k)]
            self.sums[f] = np.array(sums)
        self._tables: dict[tuple[int, int], FloatArray] = {}

    def trace(self, f: int, E: FloatArray, g: int, D: FloatArray) -> float:
        """tr(P Z_f E Z_f' P Z_g D Z_g')."""
        if g == self.first:
            f, E, g, D = g, D, f, E
        if (f, g) not in self._tables:
            self._tables[f, g] = self._table(f, g)
        return float(np.einsum("ab,abeh,eh->", E, self._tables[f, g], D))

    def _table(self, f: int, g: int) -> FloatArray:
        """Sum over levels j of f and l of g of (Z'PZ)[bj, el] (Z'PZ)[aj, hl], shape (k, k, l, l): [a, b, e, h]."""
        k, m = self.factors[f].n_columns, self.factors[g].n_columns
        value = self._between if f != self.first else self._within if g == self.first else self._across
        out = np.empty((k, k, m, m))
        for a, b, e, h in np.ndindex(*out.shape):
            out[a, b, e, h] = value(f, g, a, b, e, h)
        return out

    def _within(self, f: int, g: int, a: int, b: int, e: int, h: int) -> float:
        """Both are the first factor: block diagonal B minus F E F'."""
        B, drop = self.B, self.drop
        blocks = B[b, e] @ B[a, h] - B[b, e] @ drop[a, h] - B[a, h] @ drop[b, e]
        return float(blocks + np.vdot(self.EM[b, a], self.EM[h, e].T))

    def _across(self, f: int, g: int, a: int, b: int, e: int, h: int) -> float:
        """f is the first factor and g is not: F G."""
        left, right = self.G[:, self.rest.columns(g, e)], self.G[:, self.rest.columns(g, h)]
        return float(np.vdot(left, self.M[b, a] @ right))

    def _between(self, f: int, g: int, a: int, b: int, e: int, h: int) -> float:
        """Neither is the first factor."""
        return float(np.vdot(self._inner(f, b, g, e), self._inner(f, a, g, h)))

    def _inner(self, f: int, a: int, g: int, b: int) -> FloatArray:
        return self.inner[self.rest.columns(f, a), self.rest.columns(g, b)]


class _RelatedBlocks:
    """The same of models with related levels, from all of Z'PZ and products with their covariances.

    Parameters
    ----------
    problem : Problem
    point : Point

    Attributes
    ----------
    sums : dict of ndarray, each (k, k)
        Sum of K_ij times the blocks of Z'PZ over pairs of levels, by grouping factor.
    """

    def __init__(self, problem: Problem, point: Point) -> None:
        self.factors = problem.factors
        W = inner_products(Criterion(problem, True), point)
        ends = np.cumsum([factor.size for factor in self.factors])
        self.rows = [slice(int(end) - f.size, int(end)) for end, f in zip(ends, self.factors, strict=True)]
        # (K (x) I) Z'PZ
        self.moved = [
            factor.along(W[own].reshape(factor.n_columns, factor.n_levels, -1))
            for factor, own in zip(self.factors, self.rows, strict=True)
        ]
        self.sums = {f: self._sum(f) for f in range(len(self.factors))}

    def _between(self, f: int, g: int) -> FloatArray:
        """The rows of f and the columns of g, (k, J, k', J')."""
        k, J = self.factors[g].n_columns, self.factors[g].n_levels
        return self.moved[f][:, :, self.rows[g]].reshape(*self.moved[f].shape[:2], k, J)

    def _sum(self, f: int) -> FloatArray:
        out: FloatArray = np.einsum("ajbj->ab", self._between(f, f))
        return out

    def trace(self, f: int, E: FloatArray, g: int, D: FloatArray) -> float:
        """tr(P Z_f (K (x) E) Z_f' P Z_g (K (x) D) Z_g')."""
        left = np.tensordot(E, self._between(f, g), axes=1)
        right = np.tensordot(D, self._between(g, f), axes=1)
        return float(np.vdot(left, right.transpose(2, 3, 0, 1)))


class _Rest:
    """The random effects of all grouping factors but the first, side by side.

    Attributes
    ----------
    order : list of int
        Grouping factors.
    size : int
    """

    def __init__(self, problem: Problem, first: int) -> None:
        self.factors = problem.factors
        self.order = [f for f in range(len(problem.factors)) if f != first]
        ends = np.cumsum([0, *(self.factors[f].size for f in self.order)])
        self.starts = dict(zip(self.order, ends.tolist(), strict=False))
        self.size = int(ends[-1])

    def columns(self, f: int, a: int) -> slice:
        """Where column a of factor f stands."""
        J = self.factors[f].n_levels
        return slice(self.starts[f] + a * J, self.starts[f] + (a + 1) * J)

    def scaled(self, T: list[FloatArray], M: FloatArray) -> FloatArray:
        """Sigma M for the rows of M, shape (size, c)."""
        out = np.empty_like(M)
        for f in self.order:
            factor = self.factors[f]
            rows = slice(self.starts[f], self.starts[f] + factor.size)
            own = M[rows].reshape(factor.n_columns, -1)
            out[rows] = (T[f] @ T[f].T @ own).reshape(factor.size, -1)
        return out

    def cross(self, problem: Problem) -> FloatArray:
        """Z_2'WZ_2, shape (size, size)."""
        A = np.zeros((self.size, self.size))
        for f in self.order:
            levels = np.arange(self.factors[f].n_levels)
            self._add(A, f, f, levels, levels, problem.cross.diagonal[f])
            for g in self.order:
                if f != g:
                    edges = cross_block(problem.cross, f, g)
                    self._add(A, f, g, edges.rows, edges.columns, edges.values)
        return A

    def _add(self, A: FloatArray, f: int, g: int, rows: IntArray, columns: IntArray, values: FloatArray) -> None:
        for a, b in np.ndindex(*values.shape[:2]):
            A[self.columns(f, a).start + rows, self.columns(g, b).start + columns] = values[a, b]

    def coupling(self, problem: Problem, first: int) -> list[SparseMatrix]:
        """Z_1'WZ_2 for each column of the first factor, (J, size)."""
        factor = self.factors[first]
        out = []
        for a in range(factor.n_columns):
            parts = []
            for g in self.order:
                edges = cross_block(problem.cross, first, g)
                J = self.factors[g].n_levels
                places = np.concatenate([b * J + edges.columns for b in range(self.factors[g].n_columns)])
                rows = np.tile(edges.rows, self.factors[g].n_columns)
                shape = (factor.n_levels, self.factors[g].size)
                parts.append(sparse.coo_array((edges.values[a].ravel(), (rows, places)), shape=shape))
            out.append(sparse.hstack(parts, format="csr") if parts else sparse.csr_array((factor.n_levels, 0)))
        return out


def _eliminate_first(
    problem: Problem, point: Point, first: int, rest: _Rest
) -> tuple[FloatArray, list[SparseMatrix], FloatArray]:
    """Z_1'V_1^-1Z_1 (k, k, J), Z_1'V_1^-1Z_2 (for each column of the factor) and Z_2'V_1^-1Z_2."""
    T, A = problem.factor_T(point.T)[first], problem.cross.diagonal[first]
    k = T.shape[0]
    M = small.congruence(T, A)
    M[np.arange(k), np.arange(k)] += 1.0
    _, inverse = small.spd_inverse(M)
    E = small.right(small.left(T, inverse), T.T)
    N = np.eye(k)[:, :, None] - small.product(A, E)
    C = rest.coupling(problem, first)
    F = [_combined(C, N[a]) for a in range(k)]
    K = rest.cross(problem)
    for a in range(k if rest.size else 0):
        K -= (C[a].T @ _combined(C, E[a])).toarray()
    return small.symmetrize(small.product(N, A)), F, K


def _combined(C: list[SparseMatrix], weights: FloatArray) -> SparseMatrix:
    """Sum over b of diag(weights[b]) C_b."""
    total = C[0] * weights[0][:, None]
    for c, w in zip(C[1:], weights[1:], strict=True):
        total = total + c * w[:, None]
    return total.tocsr()


def _block_diagonal(A: FloatArray, B: FloatArray) -> FloatArray:
    out = np.zeros((A.shape[0] + B.shape[0],) * 2)
    out[: A.shape[0], : A.shape[0]] = 0.5 * (A + A.T)
    out[A.shape[0] :, A.shape[0] :] = B
    return out


def _gram(F: list[SparseMatrix], own: FloatArray) -> dict[tuple[int, int], FloatArray]:
    """[F_a U_a]'[F_b U_b] for all columns a and b of the first factor."""
    q, p = F[0].shape[1], own.shape[2]
    out = {}
    for a in range(len(F)):
        for b in range(a + 1):
            M = np.empty((q + p, q + p))
            M[:q, :q] = (F[a].T @ F[b]).toarray()
            M[:q, q:] = F[a].T @ own[b]
            M[q:, :q] = (F[b].T @ own[a]).T
            M[q:, q:] = own[a].T @ own[b]
            out[a, b], out[b, a] = M, M.T
    return out


def _diagonal_blocks(F: list[SparseMatrix], own: FloatArray, E: FloatArray) -> FloatArray:
    """Diagonal blocks of [F U] E [F U]', shape (k, k, J)."""
    k, J = own.shape[:2]
    q = F[0].shape[1]
    out = small.outer(own @ E[q:, q:], own)
    for start in range(0, J if q else 0, _CHUNK):
        rows = slice(start, min(start + _CHUNK, J))
        for a in range(k):
            half = F[a][rows] @ E[:q, :q]
            for b in range(k):
                out[a, b, rows] += np.asarray((F[b][rows] * half).sum(axis=1)).ravel()
    return out


@derived
def kenward_roger(fit: LinearFit) -> KenwardRogerParts:
    """The parts at the estimates; computed once for each fit."""
    information = expected_information(fit)
    inverse = np.linalg.inv(fit.point.RX)
    phi = inverse @ inverse.T
    if fit.problem.known is not None:
        # sigma^2, the first direction, is no parameter.
        curved = None if information.curved is None else information.curved[1:, 1:]
        information = Information(information.traces[1:, 1:], information.first[1:], information.second[1:, 1:], curved)
    weights = symmetric_inverse(information.traces)
    changes = phi @ information.first @ phi
    # Sum of W_ij (Q_ij - P_i Phi P_j - R_ij / 4), with W twice the inverse of the traces.
    between = np.einsum("st,stij->ij", weights, information.second)
    between -= np.einsum("st,sij,jk,tkl->il", weights, information.first, phi, information.first, optimize=True)
    if information.curved is not None:
        between -= 0.25 * np.einsum("st,stij->ij", weights, information.curved)
    added = 4.0 * phi @ (0.5 * (between + between.T)) @ phi
    spread = fit.sigma**2 / fit.problem.scaling.weight_scale
    C = fit.problem.scaling.C
    return KenwardRogerParts(fit.vcov + spread * (C @ added @ C.T), C, phi, changes, weights)
