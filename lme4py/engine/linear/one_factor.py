"""The criterion of a small model with one grouping factor, from a few products of small tables.

With E_j = (Sigma^-1 + A_j)^-1 of level j, A = Z'WZ and B = Z'W [X y], the swept corner is linear in the elements of all
E_j, so that one product with a table of B_j B_j' makes it. With H_j = (I + A_j Sigma)^-1, what derivatives are made of
are sums over the levels of products of

    W_j = H_j A_j,     g_j = H_j B_j (-beta, 1),     U_j = H_j X_j RX^-1,     X_j = Z_j'W X

and of them W_j, g_j g_j' and U_j U_j': two matrix products for all of these sums, where the general factor takes some
hundred calls. The equations are those of `lme4py.engine.linear.criterion` and `lme4py.engine.linear.hessian`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy.linalg.lapack as lapack

from lme4py.chunks import from_size
from lme4py.engine.factor.dense_block import is_invertible
from lme4py.engine.factor.sweep import Swept, SweptBorder
from lme4py.engine.linear.criterion import Criterion, Point
from lme4py.engine.linear.problem import Problem
from lme4py.frozen import computed_once
from lme4py.linalg import small
from lme4py.linalg.types import FloatArray

__all__ = ["OneFactorCriterion", "has_tables"]

# Numbers in the table of B_j B_j'; above, the general way is faster.
_TABLE = from_size(20_000)
# Columns of the factor: tables of derivatives have their fourth power.
_COLUMNS = 3


def has_tables(problem: Problem) -> bool:
    """Whether a model is small enough, with one grouping factor of independent levels.

    Parameters
    ----------
    problem : Problem
    """
    if len(problem.factors) != 1 or problem.factors[0].relation is not None:
        return False
    k, J = problem.factors[0].n_columns, problem.factors[0].n_levels
    return k <= _COLUMNS and k * k * J * (problem.n_fixed + 1) ** 2 <= _TABLE


class _Sums(NamedTuple):
    """Sums over the levels.

    Attributes
    ----------
    rows : ndarray, shape (k, J, c)
        H_j B_j, of each level.
    W : ndarray, shape (k, k)
    pairs : ndarray, shape (3, k k, 3, k k)
        Of the elements of W, g g' and U U' with each other.
    columns : ndarray, shape (k, p + 1, k, p + 1)
        Of the elements of (U, g) with each other.
    """

    rows: FloatArray
    W: FloatArray
    pairs: FloatArray
    columns: FloatArray


@dataclass(frozen=True)
class OneFactorPoint(Point):
    """The criterion at one theta; its factor is made where somebody asks for it.

    Attributes
    ----------
    criterion : OneFactorCriterion
    inverse, E : ndarray, shape (k, k, J)
        (I + T'A_j T)^-1 and E_j.
    """

    criterion: OneFactorCriterion
    inverse: FloatArray
    E: FloatArray

    @computed_once
    def factored(self) -> tuple[Swept, SweptBorder]:
        return self.criterion.eliminate(self.T)

    def modes(self) -> list[FloatArray]:
        rest = self.criterion.B @ np.append(-self.beta, 1.0)[:, None]
        return [small.apply(self.E, rest).reshape(-1, 1)]

    def solved(self, weights: FloatArray) -> list[FloatArray]:
        rows = self.sums.rows @ weights
        return [rows.reshape(rows.shape[0] * rows.shape[1], weights.shape[1])]

    @property
    def chain(self) -> None:
        return None

    def spend(self) -> None:
        """There is nothing large."""

    def discard(self) -> None:
        """There is nothing large."""

    @computed_once
    def sums(self) -> _Sums:
        """What derivatives are made of."""
        A, B = self.criterion.A, self.criterion.B
        k, J, c = B.shape
        T = self.criterion.problem.factor_T(self.T)[0]
        if k == 1:
            H = self.inverse
        elif is_invertible(T):
            # T^-T M^-1 T' has no cancellation.
            H = (_both(small.factor_inverse(T).T, T) @ self.inverse.reshape(-1, J)).reshape(k, k, J)
        else:
            H = np.eye(k)[:, :, None] - small.product(A, self.E)
        weights = np.zeros((c, c))
        weights[:-1, -1], weights[-1, -1] = -self.beta, 1.0
        if c > 1:
            weights[:-1, :-1] = lapack.dtrtri(self.RX)[0]
        rows = small.apply(H, B)
        columns = (rows @ weights).swapaxes(1, 2)  # (k, c, J)
        U, g = columns[:, :-1], columns[:, -1]
        W = small.product(H, A)
        stack = np.array([W, g[:, None] * g, (U[:, None] * U).sum(axis=2)]).reshape(3 * k * k, J)
        flat = columns.reshape(k * c, J)
        pairs, products = (stack @ stack.T).reshape(3, k * k, 3, k * k), (flat @ flat.T).reshape(k, c, k, c)
        return _Sums(rows, W.sum(axis=2), pairs, products)


def _both(left: FloatArray, right: FloatArray) -> FloatArray:
    """The matrix of M -> left M right' for the elements of M in rows, (k k, k k)."""
    k = left.shape[0]
    return (left[:, None, :, None] * right[None, :, None, :]).reshape(k * k, k * k)


class OneFactorCriterion(Criterion):
    """-2 log-likelihood (ML) or REML criterion of a model that `has_tables`.

    Parameters
    ----------
    problem : Problem
    reml : bool
    """

    def __init__(self, problem: Problem, reml: bool) -> None:
        super().__init__(problem, reml)
        self._set_tables()

    def _set_tables(self) -> None:
        base, factor = self.problem.base, self.problem.factors[0]
        k, J = factor.n_columns, factor.n_levels
        self.A, self.B = base.diagonal[0], base.border[0].reshape(k, J, -1)
        columns = self.B.swapaxes(1, 2)  # (k, c, J)
        products = columns[:, None, :, None] * columns[None, :, None]  # (k, k, c, c, J)
        self.table = products.transpose(0, 1, 4, 2, 3).reshape(k * k * J, -1)

    def with_columns(self, M: FloatArray) -> Criterion:
        moved = super().with_columns(M)
        assert isinstance(moved, OneFactorCriterion)
        moved._set_tables()
        return moved

    def evaluate_factors(self, T: list[FloatArray], theta: FloatArray | None = None) -> OneFactorPoint:
        problem = self.problem
        own, J = problem.factor_T(T)[0], self.A.shape[2]
        k = own.shape[0]
        change = _both(own, own)
        M = change.T @ self.A.reshape(k * k, J)
        M[:: k + 1] += 1.0
        log_det, inverse = small.spd_inverse(M.reshape(k, k, J))
        E = change @ inverse.reshape(k * k, J)
        corner = problem.base.corner - (E.ravel() @ self.table).reshape(problem.base.corner.shape)
        own_point = self.solved(theta, T, corner, log_det)
        return OneFactorPoint(*own_point, criterion=self, inverse=inverse, E=E.reshape(k, k, J))

    def sigma_gradient(self, point: Point) -> list[FloatArray]:
        sums = self._sums(point)
        g = sums.columns[:, -1, :, -1]
        G = sums.W - g / self.variance(point.r2)
        if self.reml and self.problem.n_fixed:
            G = G - np.einsum("apbp->ab", sums.columns[:, :-1, :, :-1])
        out: list[FloatArray] = [np.empty(0)] * len(self.problem.structures.each)
        for term, columns in zip(self.problem.factors[0].terms, self.problem.factors[0].columns, strict=True):
            out[term] = G[columns, columns]
        return out

    def average_information(
        self, point: Point, changes: Sequence[FloatArray] | None = None
    ) -> tuple[FloatArray, FloatArray]:
        sums, S = self._sums(point), self._flat(self.changes_at(point) if changes is None else changes)
        k, p = self.A.shape[0], self.problem.n_fixed
        # g_a W_bc g_d with S_i at (b, a) and S_j at (c, d).
        table = sums.pairs[1, :, 0].reshape(k, k, k, k).transpose(2, 0, 3, 1).reshape(k * k, -1)
        half = S @ sums.columns[:, :-1, :, -1].swapaxes(1, 2).reshape(k * k, p)
        return S @ table @ S.T - half @ half.T, S @ sums.columns[:, -1, :, -1].ravel()

    def traces(self, point: Point, changes: Sequence[FloatArray]) -> FloatArray:
        sums, S = self._sums(point), self._flat(changes)
        k, p = self.A.shape[0], self.problem.n_fixed if self.reml else 0
        own = sums.pairs[0, :, 0] - 2.0 * sums.pairs[2, :, 0] if p else sums.pairs[0, :, 0]
        # tr(B T B R) = sum of B_ab T_bc B_cd R_da.
        table = own.reshape(k, k, k, k).transpose(1, 2, 3, 0).reshape(k * k, -1)
        out: FloatArray = S @ table @ S.T
        if p:
            fixed = sums.columns[:, :-1, :, :-1].transpose(0, 2, 1, 3).reshape(k * k, -1)
            K = (S @ fixed).reshape(-1, p, p)
            out = out + K.reshape(-1, p * p) @ K.swapaxes(1, 2).reshape(-1, p * p).T
        return 0.5 * (out + out.T)

    def _sums(self, point: Point) -> _Sums:
        if not isinstance(point, OneFactorPoint):
            raise TypeError("the point is one of another criterion")
        return point.sums

    def _flat(self, changes: Sequence[FloatArray]) -> FloatArray:
        """The changes in the columns of the factor, (m, k k)."""
        factor = self.problem.factors[0]
        k = factor.n_columns
        if len(factor.terms) == 1:
            return changes[0].reshape(-1, k * k)
        out = []
        for own, columns in zip(changes, factor.columns, strict=True):
            whole = np.zeros((len(own), k, k))
            whole[:, columns, columns] = own
            out.append(whole.reshape(-1, k * k))
        return np.concatenate(out)
