"""Fixed effects without a row or a group, the relative variances kept: exact updates of one fit.

With P = V^-1 - V^-1 X Phi X'V^-1, Phi = (X'V^-1X)^-1 and V the covariance over sigma^2, leaving out row i gives
(Christensen, Pearson & Johnson 1992, Technometrics 34:38; Haslett 1999, JRSS B 61:603)

    beta_(i) - beta   = -Phi X'V^-1 1_i (P y)_i / P_ii,
    Phi_(i)           = Phi + Phi X'V^-1 1_i 1_i'V^-1 X Phi / P_ii,
    r2_(i)            = r2 - (P y)_i^2 / P_ii.

For groups between which V has no correlation the sums X_g'V_g^-1X_g and X_g'V_g^-1y_g are subtracted; other groups
get weights of zero, one factorisation each.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lme4py.fits.answers.working import WorkingModel
from lme4py.fits.rows.clusters import row_sums
from lme4py.linalg.types import BoolArray, FloatArray, IntArray

__all__ = ["Deleted", "delete_groups", "delete_one_by_one", "delete_rows", "group_leverage"]

# A row or group takes a direction of X with it when less than this part of the information is left.
_LEFT = 1e-9


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


def delete_one_by_one(model: WorkingModel, codes: IntArray, size: int) -> Deleted:
    """Each group left out, one factorisation for each.

    Parameters
    ----------
    model : WorkingModel
    codes : ndarray of int, shape (n,)
    size : int
    """
    counts = np.bincount(codes, minlength=size).astype(float)
    p = model.X.shape[1]
    change, phi = np.zeros((size, p)), np.tile(model.phi, (size, 1, 1))
    lost, ok = np.zeros(size), np.zeros(size, dtype=bool)
    root = np.linalg.cholesky(model.phi)
    for g in range(size):
        rest = model.without(codes, g)
        ok[g] = np.linalg.eigvalsh(root.T @ rest.cross[0] @ root).min(initial=1.0) > _LEFT
        if ok[g]:
            change[g], phi[g], lost[g] = rest.beta - model.beta, rest.phi, model.square - rest.square
    return _deleted(model, change, phi, _scale_ratio(model, lost, counts), ok)


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
