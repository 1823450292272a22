"""log|V| and [X y]'V^-1[X y] of rows that follow a chain, with two derivatives, and what else needs their inverse.

With H = [Z D]'R^-1[Z D] of a unit, D = [X y], and the factor T of the covariance of its random effects,

    M = I + T'H_zz T,   C = T'H_zd,   log|V| = log|R| + log|M|,   D'V^-1 D = H_dd - C'M^-1 C,

also for a singular T (Henderson & Searle 1981).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import linalg

from lme4py.covariance.jets import Jet
from lme4py.engine.marginal.chain import ChainRows, RowChain
from lme4py.engine.marginal.model import MarginalModel
from lme4py.linalg.types import FloatArray

__all__ = ["ChainSums", "chain_sums", "effects_inner", "random_factor", "second_moments", "solved"]


@dataclass(frozen=True)
class ChainSums:
    """Sums over all rows, with derivatives in the m parameters.

    Attributes
    ----------
    log_det : Jet
        log|V|, a number.
    A : Jet
        [X y]'V^-1[X y], (p + 1, p + 1).
    """

    log_det: Jet
    A: Jet


@dataclass(frozen=True)
class _UnitProducts:
    """Products of white rows: of D over all rows (q, q), of Z with [Z D] by unit (U, K, K + q)."""

    whole: FloatArray
    units: FloatArray | None

    def __add__(self, other: _UnitProducts) -> _UnitProducts:
        units = None if self.units is None or other.units is None else self.units + other.units
        return _UnitProducts(self.whole + other.whole, units)


def _products(some: ChainRows, x: FloatArray, y: FloatArray, K: int) -> _UnitProducts:
    """Of x with y and of y with x, halved where they are the same."""
    half = x[:, K:].T @ y[:, K:]
    if not K:
        return _UnitProducts(half + half.T, None)
    rows = x[:, :K, None] * y[:, None, :] + y[:, :K, None] * x[:, None, :]
    return _UnitProducts(half + half.T, np.add.reduceat(rows, some.starts, axis=0))


def chain_sums(chain: RowChain, par: FloatArray, order: int) -> ChainSums | None:
    """The sums at par, with derivatives up to `order` (0 or 2); None where the covariance is singular.

    Parameters
    ----------
    chain : RowChain
    par : ndarray, shape (m,)
    order : {0, 2}
    """
    m, q, K = chain.model.n_par, chain.D.shape[1] - chain.n_random, chain.n_random
    total_log, total = Jet.constant(np.zeros(()), m, order), Jet.constant(np.zeros((q, q)), m, order)
    if not order:
        total_log, total = Jet.value_only(total_log.value), Jet.value_only(total.value)
    factor = random_factor(chain.model, par, order)
    try:
        for some in chain.white(par, order):
            log_det, A = _of_rows(chain, some, factor, order, K)
            total_log, total = total_log + log_det, total + A
    except FloatingPointError:
        return None
    return ChainSums(total_log, total)


def _of_rows(chain: RowChain, some: ChainRows, T: Jet, order: int, K: int) -> tuple[Jet, Jet]:
    """What some rows add."""
    own = chain.residual_slice
    value = _products(some, 0.5 * some.r, some.r, K)
    if not order:
        log_det, A = Jet.value_only(some.log_det.value), Jet.value_only(value.whole)
        if value.units is None:
            return log_det, A
        return _with_effects(log_det, A, T, Jet.value_only(value.units), own)
    first = [_products(some, x, some.r, K) for x in some.first]
    second = [
        [_products(some, x, some.r, K) + _products(some, some.first[k], some.first[i], K) for i, x in enumerate(row)]
        for k, row in enumerate(some.second)
    ]
    log_det = _widened(some.log_det, own, chain.model.n_par)
    whole = Jet(value.whole, np.array([x.whole for x in first]), _symmetric([[x.whole for x in row] for row in second]))
    A = _widened(whole, own, chain.model.n_par)
    if value.units is None:
        return log_det, A
    units = Jet(value.units, np.array([x.units for x in first]), _symmetric([[x.units for x in row] for row in second]))
    return _with_effects(log_det, A, T, units, own)


def _symmetric(lower: list[list[FloatArray | None]] | list[list[FloatArray]]) -> FloatArray:
    m = len(lower)
    return np.array([[lower[max(i, j)][min(i, j)] for j in range(m)] for i in range(m)])


def _widened(jet: Jet, own: slice, m: int) -> Jet:
    """A function of some parameters as one of all m."""
    first, second = np.zeros((m, *jet.value.shape)), np.zeros((m, m, *jet.value.shape))
    first[own], second[own, own] = jet.first, jet.second
    return Jet(jet.value, first, second)


def random_factor(model: MarginalModel, par: FloatArray, order: int) -> Jet:
    """T of all terms beside each other, (K, K), with derivatives in the parameters of the random effects."""
    parts = list(zip(model.random, model.slices, strict=False))
    K, m = sum(part.structure.size for part, _ in parts), sum(part.structure.n_theta for part, _ in parts)
    value, first, second = np.zeros((K, K)), np.zeros((m, K, K)), np.zeros((m, m, K, K))
    at = 0
    for part, place in parts:
        own = slice(at, at + part.structure.size)
        value[own, own] = part.structure.factor(par[place])
        if order:
            first[place, own, own] = part.structure.tangents(par[place])
            second[place, place, own, own] = part.structure.second_tangents(par[place])
        at = own.stop
    return Jet.of(value, first, second, order)


def _transposed(x: FloatArray) -> FloatArray:
    return x.swapaxes(-1, -2)


def _with_effects(log_det: Jet, A: Jet, T: Jet, H: Jet, own: slice) -> tuple[Jet, Jet]:
    """log|V| and D'V^-1 D from those of the residuals alone, H (U, K, K + q) and T."""
    K = T.value.shape[0]
    t, Hz, Hd = _transposed(T.value), H.value[..., :K], H.value[..., K:]
    M, C = np.eye(K) + t @ Hz @ T.value, t @ Hd
    inverse = np.linalg.inv(M)
    Y = inverse @ C
    log_value = log_det.value + np.linalg.slogdet(M)[1].sum()
    A_value = A.value - np.tensordot(C, Y, ((0, 1), (0, 1)))
    if not H.first.shape[0]:
        return Jet.value_only(np.asarray(log_value)), Jet.value_only(A_value)
    # Derivatives of M and C, those in T before those in the residuals: the order of all parameters.
    dt = _transposed(T.first)[:, None]
    half = dt @ Hz @ T.value
    M1 = np.concatenate([half + _transposed(half), t @ H.first[..., :K] @ T.value])
    C1 = np.concatenate([dt @ Hd, t @ H.first[..., K:]])
    E, inner = C1 - M1 @ Y, inverse @ M1
    log_first, A_first = log_det.first + np.einsum("muaa->m", inner), A.first - _twice(C1, Y) + _within(M1, Y)
    log_second, A_second = log_det.second.copy(), A.second.copy()
    W = inverse @ E
    for j in range(len(M1)):
        for k in range(j + 1):
            M2, C2 = _second(T, H, j, k)
            log_second[j, k] += np.einsum("uab,uba->", inverse, M2) - np.einsum("uab,uba->", inner[j], inner[k])
            A_second[j, k] -= (_twice(C2[None], Y) - _within(M2[None], Y) + _twice(E[j][None], W[k]))[0]
            log_second[k, j], A_second[k, j] = log_second[j, k], A_second[j, k]
    return Jet(np.asarray(log_value), log_first, log_second), Jet(A_value, A_first, A_second)


def _second(T: Jet, H: Jet, j: int, k: int) -> tuple[FloatArray, FloatArray]:
    """M_jk and C_jk, k <= j."""
    K, a = T.value.shape[0], T.first.shape[0]
    t = _transposed(T.value)
    if k >= a:
        found = H.second[j - a, k - a]
        return t @ found[..., :K] @ T.value, t @ found[..., K:]
    if j >= a:
        dt, found = _transposed(T.first[k]), H.first[j - a]
        half = dt @ found[..., :K] @ T.value
        return half + _transposed(half), dt @ found[..., K:]
    both = _transposed(T.second[j, k])
    half = both @ H.value[..., :K] @ T.value + _transposed(T.first[j]) @ H.value[..., :K] @ T.first[k]
    return half + _transposed(half), both @ H.value[..., K:]


def _twice(C: FloatArray, Y: FloatArray) -> FloatArray:
    """sum over units of C'Y + Y'C, (m, q, q)."""
    half = np.tensordot(C, Y, ((1, 2), (0, 1)))
    return np.asarray(half + _transposed(half))


def _within(M: FloatArray, Y: FloatArray) -> FloatArray:
    """sum over units of Y'M Y, (m, q, q)."""
    return np.asarray(np.tensordot(M @ Y, Y, ((1, 2), (0, 1))))


def solved(chain: RowChain, par: FloatArray, M: FloatArray) -> FloatArray:
    """V^-1 M for rows (n, q) in the order of the data.

    Parameters
    ----------
    chain : RowChain
    par : ndarray, shape (m,)
    M : ndarray, shape (n, q)
    """
    KM = chain.inverse_times(par, M)
    if not chain.n_random:
        return KM
    model = chain.model
    Z = np.concatenate([part.values for part in model.random], axis=1)
    T = random_factor(model, par, 0).value
    unit = np.empty(len(M), dtype=np.intp)
    unit[chain.order] = np.repeat(np.arange(chain.starts.size), np.diff(np.append(chain.starts, len(M))))
    H, own = effects_inner(chain, par), _by_unit(chain, Z, KM)
    b = T @ np.linalg.solve(np.eye(len(T)) + T.T @ H @ T, T.T @ own)
    return np.asarray(KM - chain.inverse_times(par, np.einsum("nk,nkq->nq", Z, b[unit])))


def effects_inner(chain: RowChain, par: FloatArray) -> FloatArray:
    """Z'R^-1 Z of each unit, (U, K, K), in the order of the units of the chain."""
    K = chain.n_random
    found = [_products(some, 0.5 * some.r, some.r, K).units for some in chain.white(par, 0)]
    return np.concatenate([one[..., :K] for one in found if one is not None])


def _by_unit(chain: RowChain, Z: FloatArray, M: FloatArray) -> FloatArray:
    """Z'M of each unit, (U, K, q)."""
    rows = (Z[:, :, None] * M[:, None, :])[chain.order]
    return np.asarray(np.add.reduceat(rows, chain.starts, axis=0))


def second_moments(chain: RowChain, par: FloatArray) -> tuple[FloatArray, FloatArray]:
    """X'R^-1 R_i R^-1 R_j R^-1 X, (m, m, p, p), and tr(R^-1 R_i R^-1 R_j), (m, m), without random effects.

    In white rows R^(1/2) (R^-1)_i X = 2 a_i r + b_i v + c w, w - s w = b r of the row after: a recursion backwards.
    """
    p = chain.D.shape[1] - 1
    every, m = slice(0, chain.order.size), chain.model.n_par
    found = chain.moved(par, every)
    r, v, s, c = found.r[:, :p], found.v[:, :p], found.steps.s, found.steps.c
    bands = np.ones((2, s.size))
    bands[0] = np.append(0.0, -s[1:])
    rows = np.empty((m, s.size, p))
    for j, move in enumerate(found.moves):
        rows[j] = 2.0 * move.a[:, None] * r + move.b[:, None] * v
        if move.b.any() and p:
            ahead = np.concatenate([(move.b[:, None] * r)[1:], np.zeros((1, p))])
            rows[j] += c[:, None] * linalg.solve_banded((0, 1), bands, ahead, check_finite=False)
    flat = np.moveaxis(rows, 1, 0).reshape(s.size, m * p)
    Q = np.moveaxis((flat.T @ flat).reshape(m, p, m, p), 2, 1)
    a, b = (np.array([getattr(move, name) for move in found.moves]) for name in ("a", "b"))
    return Q, 4.0 * a @ a.T + 2.0 * b @ b.T
