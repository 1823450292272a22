"""-2 log-likelihood and REML criterion of a linear model by the covariance of its units, with exact derivatives.

With P = V^-1 - V^-1 X Phi X'V^-1, Phi = (X'V^-1X)^-1, a = P y, B = V^-1 X and the derivatives V_j, V_jk of V:

    value      = log|V| + y'P y + n log 2 pi                    (REML: + log|X'V^-1X| - p log 2 pi)
    d_j        = tr(V^-1 V_j) - a'V_j a                         (REML: - tr(Phi B'V_j B))
    d2_jk      = - tr(V^-1 V_j V^-1 V_k) + 2 a'V_j P V_k a + <V^-1 - a a', V_jk>
                 (REML: + 2 tr(Phi B'V_j V^-1 V_k B) - tr(Phi B'V_j B Phi B'V_k B) - <B Phi B', V_jk>)

(Harville 1977, JASA 72:320). All of it is a sum over units, and units with the same V share its factor. Where the rows
follow a chain in time (`lme4py.engine.marginal.chain`) the derivatives are those of log|V| and of [X y]'V^-1[X y],
which need no V.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from lme4py.chunks import from_size
from lme4py.engine.marginal.blocks import Blocks, jets_of, make_blocks, second_sum
from lme4py.engine.marginal.chain import RowChain, chain_of
from lme4py.engine.marginal.chain_sums import ChainSums, chain_sums
from lme4py.engine.marginal.model import MarginalModel, RandomPart
from lme4py.engine.marginal.units import Batch, make_batches
from lme4py.errors import DesignError
from lme4py.frozen import computed_once
from lme4py.linalg.types import FloatArray, IntArray

__all__ = ["MarginalCriterion", "MarginalPoint", "MarginalScaling"]

_LOG_2_PI = float(np.log(2.0 * np.pi))
# From so many rows on columns are made orthogonal by their products, if the least eigenvalue of these leaves digits.
_MANY, _DIGITS = from_size(20_000), 1e-8
# Operations in the place of one number of the second derivatives of a structure, measured.
_SECOND = 500.0


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
class Factors:
    """V of every class of units.

    Attributes
    ----------
    blocks : tuple of Blocks
        By batch.
    inverse : tuple of ndarray, each (C, s, s)
        Inverse of the lower Cholesky factor of V.
    log_det : float
        log|V| of all units.
    """

    blocks: tuple[Blocks, ...]
    inverse: tuple[FloatArray, ...]
    log_det: float


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
    criterion : MarginalCriterion
    factors : Factors or None
        None where no V was needed: it is made when it is asked for.
    sums : ChainSums or None
        Of rows that follow a chain.
    """

    par: FloatArray
    value: float
    beta: FloatArray
    phi: FloatArray
    criterion: MarginalCriterion = field(repr=False, compare=False)
    factors: Factors | None = field(repr=False)
    sums: ChainSums | None = field(repr=False)

    @computed_once
    def _factors(self) -> Factors:
        made = self.factors or self.criterion.factored(self.par, derivatives=True)
        if made is None:
            raise DesignError("the covariance of the rows is singular in floating point.")
        return made

    @property
    def blocks(self) -> tuple[Blocks, ...]:
        """By batch."""
        return self._factors.blocks

    @property
    def inverse(self) -> tuple[FloatArray, ...]:
        """Inverse of the lower Cholesky factor of V, each (C, s, s), by batch."""
        return self._factors.inverse


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
    chain : RowChain or None
        The rows as a chain, where that is what evaluations go by.
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
        self.n, self.p = model.X.shape
        self.chain: RowChain | None = chain_of(self.model)
        if self.chain is None:
            # Refuses units that are too large before anything is fitted.
            self.batches = make_batches(self.model)
        self._last: tuple[MarginalPoint, tuple[FloatArray, FloatArray] | None] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Without what the last evaluation left."""
        return self.__dict__ | {"_last": None}

    @cached_property
    def batches(self) -> list[Batch]:
        """The units by size and class.

        Raises
        ------
        DesignError
            Units whose covariances are too many numbers.
        """
        if self.chain is not None and not self.chain.has_blocks:
            raise DesignError(
                f"this needs the covariances of whole units of correlated rows, of up to {int(self.chain.sizes.max())} "
                f"rows each: {self.chain.block_numbers:.2g} numbers, which are too many. The fit itself, its tables "
                "with ddf='satterthwaite' or 'normal', predictions of the mean, residuals and simulate() do not need "
                "them."
            )
        return make_batches(self.model)

    @property
    def work(self) -> float:
        """About the operations of one evaluation with derivatives."""
        if self.chain is not None:
            return 0.0
        m = float(self.model.n_par)
        blocks = sum(batch.count.size * batch.size**2 * m * (4.0 * batch.size + 2.0 * m) for batch in self.batches)
        own = sum((s.n_theta * s.size) ** 2 for s in self.model.structures if not s.linear)
        return blocks + _SECOND * float(own)

    def of_rows(self, rows: IntArray) -> MarginalCriterion:
        """The criterion of some of the rows, whose parameters mean the same.

        Parameters
        ----------
        rows : ndarray of int
        """
        model = self.model
        random = tuple(RandomPart(part.structure, part.codes[rows], part.values[rows]) for part in model.random)
        own = MarginalModel(model.X[rows], model.y[rows], random, model.residual.take(rows))
        p = self.p
        return MarginalCriterion(own, self.reml, MarginalScaling(np.eye(p), np.zeros(p), 1.0))

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
        if self.chain is None:
            made.batches = [replace(batch, data=batch.data @ M) for batch in self.batches]
        else:
            made.__dict__.pop("batches", None)
            made.chain = self.chain.with_columns(M)
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
        if self.chain is not None:
            sums = chain_sums(self.chain, par, 2 * derivatives)
            return None if sums is None else self._point(par, sums.A.value, float(sums.log_det.value), None, sums)
        made = self.factored(par, derivatives)
        if made is None:
            return None
        A = np.zeros((self.p + 1, self.p + 1))
        for batch, inverse in zip(self.batches, made.inverse, strict=True):
            U = (inverse[batch.of_class] @ batch.data).reshape(-1, self.p + 1)
            A += U.T @ U
        return self._point(par, A, made.log_det, made, None)

    def factored(self, par: FloatArray, derivatives: bool) -> Factors | None:
        """V of every class of units and its factors; None where one is not positive definite in floating point.

        Parameters
        ----------
        par : ndarray, shape (m,)
        derivatives : bool
            Those of V as well.
        """
        blocks, inverses, log_det = [], [], 0.0
        for batch in self.batches:
            jets = jets_of(self.model, batch, par, int(derivatives))
            made = make_blocks(self.model, batch, jets, par[self.model.slices[-1]])
            factor = _cholesky(made.V)
            if factor is None:
                return None
            log_det += 2.0 * float(batch.count @ np.log(np.diagonal(factor, axis1=1, axis2=2)).sum(axis=1))
            blocks.append(made)
            inverses.append(np.asarray(np.linalg.inv(factor), dtype=float))
        return Factors(tuple(blocks), tuple(inverses), log_det)

    def _point(
        self, par: FloatArray, A: FloatArray, log_det: float, factors: Factors | None, sums: ChainSums | None
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
        if not np.isfinite(value):
            return None
        return MarginalPoint(par, value, beta, 0.5 * (phi + phi.T), self, factors, sums)

    def square(self, point: MarginalPoint) -> float:
        """(y - X beta)' V^-1 (y - X beta)."""
        if point.sums is not None:
            e = np.append(-point.beta, 1.0)
            return float(e @ point.sums.A.value @ e)
        total = 0.0
        for batch, inverse in zip(self.batches, point.inverse, strict=True):
            left = inverse[batch.of_class] @ (batch.data[..., -1:] - batch.data[..., :-1] @ point.beta[:, None])
            total += float(np.sum(left**2))
        return total

    def first_moments(self, point: MarginalPoint) -> FloatArray:
        """X'V^-1 V_j V^-1 X, shape (m, p, p)."""
        if point.sums is not None:
            return -point.sums.A.first[:, : self.p, : self.p]
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
        if point.sums is not None:
            return self._of_sums(point, point.sums)
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

    def _of_sums(self, point: MarginalPoint, sums: ChainSums) -> tuple[FloatArray, FloatArray]:
        """The same from log|V| and A = [X y]'V^-1[X y] with their derivatives: e'A e for e = (-beta, 1)."""
        p, e = self.p, np.append(-point.beta, 1.0)
        moved = sums.A.first @ e
        gradient = sums.log_det.first + moved @ e
        hessian = sums.log_det.second + sums.A.second @ e @ e - 2.0 * moved[:, :p] @ point.phi @ moved[:, :p].T
        if self.reml:
            PM = point.phi @ sums.A.first[:, :p, :p]
            gradient = gradient + np.einsum("jaa->j", PM)
            hessian = hessian + np.einsum("jkaa->jk", point.phi @ sums.A.second[..., :p, :p])
            hessian = hessian - np.einsum("jab,kba->jk", PM, PM)
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
    C = _orthogonal(model.X)
    beta, left = np.zeros(p), model.y
    for _ in range(2):
        beta = beta + C @ (C.T @ (model.X.T @ left)) / n
        left = model.y - model.X @ beta
    return MarginalScaling(C, beta, float(np.sqrt(left @ left / max(n - p, 1))) or 1.0)


def _orthogonal(X: FloatArray) -> FloatArray:
    """C, (p, p), with orthogonal columns X C of length sqrt(n).

    Of many rows by the products of the columns, where these leave digits enough; C need not be exact, as all that is
    reported is mapped back by it.
    """
    n = len(X)
    norm = np.linalg.norm(X, axis=0)
    if n >= _MANY:
        products = (X.T @ X) / np.outer(norm, norm)
        values, vectors = np.linalg.eigh(products)
        if values[0] > _DIGITS:
            return np.asarray(vectors / np.sqrt(values) * np.sqrt(n) / norm[:, None])
    return np.asarray(np.linalg.inv(np.linalg.qr(X / norm, mode="r")) * np.sqrt(n) / norm[:, None])
