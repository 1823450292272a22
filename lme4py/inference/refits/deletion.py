"""Fixed effects without a row or a group, the relative variances kept: exact updates of one fit.

With P = V^-1 - V^-1 X Phi X'V^-1, Phi = (X'V^-1X)^-1 and V the covariance over sigma^2, leaving out row i gives
(Christensen, Pearson & Johnson 1992, Technometrics 34:38; Haslett 1999, JRSS B 61:603)

    beta_(i) - beta   = -Phi X'V^-1 1_i (P y)_i / P_ii,
    Phi_(i)           = Phi + Phi X'V^-1 1_i 1_i'V^-1 X Phi / P_ii,
    r2_(i)            = r2 - (P y)_i^2 / P_ii.

and the same with the block P_gg in the place of P_ii for the rows of a group. For groups between which V has no
correlation the sums X_g'V_g^-1X_g and X_g'V_g^-1y_g are subtracted; of the others those with many rows get weights of
zero, one factorisation each.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve_triangular

from lme4py.chunks import chunk
from lme4py.fits.answers.working import FactoredModel, WorkingModel
from lme4py.fits.rows.clusters import row_sums
from lme4py.linalg.types import BoolArray, FloatArray, IntArray

__all__ = ["Deleted", "delete_crossed", "delete_groups", "delete_rows", "group_leverage"]

# A row or group takes a direction of X with it when less than this part of the information is left.
_LEFT = 1e-9
# Columns that are carried through the elimination at a time.
_COLUMNS = chunk(256)


@dataclass(frozen=True)
class Deleted:
    """Estimates without each of U units, on the user's scale.

    Attributes
    ----------
    change : ndarray, shape (U, p)
        beta without the unit minus beta.
    errors : ndarray, shape (U, p)
        Standard errors without the unit.
    log_det : ndarray, shape (U,)
        log determinant of the covariance of beta without the unit, minus that with it.
    sigma : ndarray, shape (U,)
        Residual standard deviation without the unit over that with it.
    ok : ndarray of bool, shape (U,)
        False where the fixed effects cannot be estimated without the unit, or a refit failed: numbers are NaN there.
    theta : ndarray, shape (U, m), or None
        Where the variances were estimated again.
    """

    change: FloatArray
    errors: FloatArray
    log_det: FloatArray
    sigma: FloatArray
    ok: BoolArray
    theta: FloatArray | None = None


def delete_rows(model: WorkingModel) -> Deleted:
    """Each row left out.

    Parameters
    ----------
    model : WorkingModel
    """
    rows = model.left_out(_LEFT)
    ratio = _scale_ratio(model, rows.lost, np.ones(rows.ok.size))
    hide = np.where(rows.ok, 1.0, np.nan)
    return Deleted(
        change=model.scale * rows.change * hide[:, None],
        errors=model.sigma * model.scale * np.sqrt(ratio[:, None] * rows.variances) * hide[:, None],
        log_det=(rows.change.shape[1] * np.log(ratio) + rows.log_det) * hide,
        sigma=np.sqrt(ratio) * hide,
        ok=rows.ok,
    )


def delete_groups(model: WorkingModel, codes: IntArray, size: int) -> Deleted:
    """Each group left out, where V is block diagonal in the groups.

    Parameters
    ----------
    model : WorkingModel
    codes : ndarray of int, shape (n,)
    size : int
        Number of groups.
    """
    blocks, right, square = model.cluster_products(codes, size)
    A = model.cross[0]
    counts = np.bincount(codes, minlength=size).astype(float)
    left = A - blocks
    root = np.linalg.cholesky(model.phi)
    ok = np.linalg.eigvalsh(root.T @ left @ root).min(axis=1, initial=1.0) > _LEFT
    left = np.where(ok[:, None, None], left, A)
    phi: FloatArray = np.asarray(np.linalg.inv(left), dtype=np.float64)
    # From residuals of the whole fit, so that nothing large is subtracted.
    pull = right - blocks @ model.beta
    change: FloatArray = -np.einsum("gij,gj->gi", phi, pull)
    own = square - 2.0 * right @ model.beta + np.einsum("i,gij,j->g", model.beta, blocks, model.beta)
    lost = own + np.einsum("gi,gi->g", pull, np.einsum("gij,gj->gi", phi, pull))
    return _deleted(model, change, phi, _scale_ratio(model, lost, counts), ok)


def delete_crossed(model: WorkingModel, codes: IntArray, size: int) -> Deleted:
    """Each group left out, where V joins groups: small ones by updates of the fit, others by a factorisation each.

    Parameters
    ----------
    model : WorkingModel
    codes : ndarray of int, shape (n,)
    size : int
    """
    counts = np.bincount(codes, minlength=size)
    out = _Without(model, size)
    most = model.most_rows if isinstance(model, FactoredModel) else 0
    for group in np.flatnonzero(counts > most):
        out.refactor(codes, int(group))
    if isinstance(model, FactoredModel):
        rows = np.split(np.argsort(codes, kind="stable"), np.cumsum(counts)[:-1])
        for together in _batches(np.flatnonzero(counts <= most), counts):
            blocks = model.inverse_blocks([rows[group] for group in together])
            for group, block in zip(together, blocks, strict=True):
                out.update(int(group), rows[group], block)
    return _deleted(model, out.change, out.phi, _scale_ratio(model, out.lost, counts.astype(float)), out.ok)


def _batches(groups: IntArray, counts: IntArray) -> list[IntArray]:
    """Groups of about `_COLUMNS` rows together."""
    return np.split(groups, np.flatnonzero(np.diff(np.cumsum(counts[groups]) // _COLUMNS)) + 1) if groups.size else []


class _Without:
    """Estimates without each of U groups, the relative variances kept, in the engine's columns.

    Parameters
    ----------
    model : WorkingModel
    size : int
        U.

    Attributes
    ----------
    change : ndarray, shape (U, p)
    phi : ndarray, shape (U, p, p)
    lost : ndarray, shape (U,)
        What the penalised residual sum of squares loses.
    ok : ndarray of bool, shape (U,)
    """

    def __init__(self, model: WorkingModel, size: int) -> None:
        self.model = model
        self.root = np.linalg.cholesky(model.phi)
        self.change, self.phi = np.zeros((size, model.X.shape[1])), np.tile(model.phi, (size, 1, 1))
        self.lost, self.ok = np.zeros(size), np.zeros(size, dtype=bool)

    def refactor(self, codes: IntArray, group: int) -> None:
        """A group left out by weights of zero."""
        rest = self.model.without(codes, group)
        self.ok[group] = np.linalg.eigvalsh(self.root.T @ rest.cross[0] @ self.root).min(initial=1.0) > _LEFT
        if self.ok[group]:
            self.change[group], self.phi[group] = rest.beta - self.model.beta, rest.phi
            self.lost[group] = self.model.square - rest.square

    def update(self, group: int, rows: IntArray, block: FloatArray) -> None:
        """A group left out by the equations for a row, P_ii the block of P at its rows.

        Parameters
        ----------
        group : int
        rows : ndarray of int, shape (n_g,)
        block : ndarray, shape (n_g, n_g)
            Of V^-1 at the rows.
        """
        half = self.model.inverse_times[0][rows] @ self.root
        residual = self.model.residual[rows]
        try:
            L = np.linalg.cholesky(block - half @ half.T)
        except np.linalg.LinAlgError:
            return
        columns = solve_triangular(L, np.column_stack([half, residual]), lower=True)
        half, residual = columns[:, :-1], columns[:, -1]
        grown = half.T @ half
        self.ok[group] = 1.0 / (1.0 + np.linalg.eigvalsh(grown).max(initial=0.0)) > _LEFT
        if self.ok[group]:
            self.change[group] = -self.root @ (half.T @ residual)
            self.phi[group] += self.root @ grown @ self.root.T
            self.lost[group] = residual @ residual


def _scale_ratio(model: WorkingModel, lost: FloatArray, counts: FloatArray) -> FloatArray:
    """sigma^2 without the unit over that with it, from what the sum of squares loses; 1 for generalised models."""
    if model.df is None:
        return np.ones(lost.size)
    rest = model.df - counts
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio: FloatArray = (model.square - lost) / rest / (model.square / model.df)
    return np.where(rest > 0, np.maximum(ratio, 0.0), np.nan)


def _deleted(model: WorkingModel, change: FloatArray, phi: FloatArray, ratio: FloatArray, ok: BoolArray) -> Deleted:
    own = model.C @ phi @ model.C.T
    log_det = np.linalg.slogdet(own)[1] - np.linalg.slogdet(model.C @ model.phi @ model.C.T)[1]
    ok = ok & np.isfinite(ratio)
    hide = np.where(ok, 1.0, np.nan)
    return Deleted(
        change=model.scale * (change @ model.C.T) * hide[:, None],
        errors=model.sigma * model.scale * np.sqrt(ratio[:, None] * np.einsum("gaa->ga", own)) * hide[:, None],
        log_det=(model.C.shape[0] * np.log(ratio) + log_det) * hide,
        sigma=np.sqrt(ratio) * hide,
        ok=ok,
    )


def group_leverage(model: WorkingModel, codes: IntArray, size: int) -> FloatArray:
    """Sums of the leverages of the rows of each group, (size,)."""
    return row_sums(model.leverage[:, None], codes, size)[:, 0]
