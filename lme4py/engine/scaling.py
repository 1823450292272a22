"""Centred and scaled copies of the columns, and the way back.

The engine never sees the user's units: y is replaced by its residuals from X in units of their standard
deviation, X by columns that are orthonormal up to rounding, the columns of an unstructured random term by
combinations that are orthonormal over the data. The model is the same (the fixed effects and any unstructured
covariance are closed under such maps; a diagonal covariance only allows scales, and only scales are used there),
but `Days + 2000` or micrograms no longer cost digits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg

from lme4py.design.design import Design, RandomTerm
from lme4py.engine.covariance import mean_and_contrasts
from lme4py.engine.types import FloatArray
from lme4py.errors import DataError

# Beyond this condition number a cross-product loses too many digits and X is orthogonalised row by row.
_SAFE_CONDITION = 1e3


@dataclass(frozen=True)
class Scaling:
    """The maps between the user's columns and the engine's.

    Attributes
    ----------
    C : ndarray, shape (p, p)
        X_inside = X C.
    y_scale : float
        y_inside = (y - offset - X b0) / y_scale.
    b0 : ndarray, shape (p,)
    S : tuple of ndarray, each (k, k)
        Z_inside = Z S for each term.
    log_det_C : float
        log|det C|.
    weight_scale : float
        Mean of the prior weights; inside they have mean 1.
    """

    C: FloatArray
    y_scale: float
    b0: FloatArray
    S: tuple[FloatArray, ...]
    log_det_C: float
    weight_scale: float

    def factor(self, term: int, T: FloatArray) -> FloatArray:
        """S T of a term; rows that are rounding noise, because a variance is zero, are exact zeros."""
        S = self.S[term]
        root: FloatArray = S @ T
        noise = 1e-13 * np.linalg.norm(np.abs(S) @ np.abs(T), axis=1)
        root[np.linalg.norm(root, axis=1) <= noise] = 0.0
        return root

    def beta(self, inside: FloatArray) -> FloatArray:
        """Fixed effects on the user's scale."""
        return self.b0 + self.y_scale * (self.C @ inside)

    def vcov(self, inside: FloatArray) -> FloatArray:
        """Covariance of the fixed effects on the user's scale from that of the inside ones."""
        return self.y_scale**2 * (self.C @ inside @ self.C.T)


@dataclass(frozen=True)
class ScaledColumns:
    """The arrays that the cross-products are made of; rows are observations."""

    XY: FloatArray  # (n, p + 1): [X y] inside
    Z: tuple[FloatArray, ...]  # per term (n, k)
    weights: FloatArray | None  # mean 1


def scale_columns(design: Design) -> tuple[Scaling, ScaledColumns]:
    """Scale the columns of a design.

    Parameters
    ----------
    design : Design
        With y of shape (n,).
    """
    n, p = design.X.shape
    weight_scale = 1.0 if design.weights is None else float(design.weights.mean())
    w = None if design.weights is None else design.weights / weight_scale
    root = None if w is None else np.sqrt(w)
    y = design.y if design.offset is None else design.y - design.offset
    X, C = _scale_fixed(design.X, root)
    XY = np.empty((n, p + 1))
    XY[:, :p] = X
    del X
    # Squares of very small or very large numbers would leave the range of floating point.
    magnitude = float(np.abs(y).max(initial=0.0)) or 1.0
    if not 1e-140 < magnitude < 1e140:
        raise DataError(
            f"the largest response is {magnitude:.3g}, and its variance is beyond floating point; use other units."
        )
    XY[:, p] = y / magnitude
    spread, coefficients = _centre_response(XY, root)
    y_scale, coefficients = magnitude * spread, magnitude * coefficients
    maps = []
    Z = []
    for term in design.terms:
        scaled, S = _scale_random(term, root)
        Z.append(scaled)
        maps.append(S)
    log_det = float(np.log(np.abs(np.linalg.det(C)))) if p else 0.0
    scaling = Scaling(C, y_scale, C @ coefficients, tuple(maps), log_det, weight_scale)
    return scaling, ScaledColumns(XY, tuple(Z), w)


def _moments(X: FloatArray, root: FloatArray | None) -> tuple[FloatArray, FloatArray]:
    """Weighted means and standard deviations about them; a column that is constant keeps its root mean square."""
    if root is None:
        means = X.mean(axis=0)
        centred = X - means
        deviations = np.sqrt(np.einsum("ij,ij->j", centred, centred) / X.shape[0])
    else:
        v = root**2 / X.shape[0]
        means = v @ X
        centred = X - means
        deviations = np.sqrt(v @ centred**2)
    return means, deviations


def _constant_column(X: FloatArray) -> int | None:
    """Position of the first column whose elements are all equal and not zero."""
    if X.shape[0] == 0:
        return None
    candidates = np.flatnonzero((X[0] == X[-1]) & (X[0] != 0.0))
    for j in candidates:
        column = X[:, j]
        if (column == column[0]).all():
            return int(j)
    return None


def _scale_fixed(X: FloatArray, root: FloatArray | None) -> tuple[FloatArray, FloatArray]:
    """X C with C chosen so that the columns are close to orthonormal (weighted, times sqrt(n))."""
    n, p = X.shape
    if p == 0:
        return X, np.zeros((0, 0))
    C, scaled = _centre_and_scale(X, root)
    if p == 1:
        return scaled, C
    weighted = scaled if root is None else scaled * root[:, None]
    gram = weighted.T @ weighted / n
    spread = np.linalg.eigvalsh(gram)
    if spread[-1] > _SAFE_CONDITION**2 * spread[0]:
        triangle = scipy.linalg.qr(weighted, mode="r", check_finite=False)[0][:p] / np.sqrt(n)
        inverse = scipy.linalg.solve_triangular(triangle, np.eye(p), check_finite=False)
        scaled = scaled @ inverse
        C = C @ inverse
        weighted = scaled if root is None else scaled * root[:, None]
        gram = weighted.T @ weighted / n
    inverse = np.linalg.inv(np.linalg.cholesky(gram)).T
    return scaled @ inverse, C @ inverse


def _centre_and_scale(X: FloatArray, root: FloatArray | None) -> tuple[FloatArray, FloatArray]:
    """C and X C where other columns are centred if one is constant, and all have unit size."""
    p = X.shape[1]
    constant = _constant_column(X)
    means, deviations = _moments(X, root)
    C = np.eye(p)
    if constant is None:
        sizes = np.sqrt(means**2 + deviations**2)
        C /= np.where(sizes > 0, sizes, 1.0)[None, :]
        return C, X @ C
    value = X[0, constant]
    # A column that only differs from a constant by rounding keeps its size: the rank check has let it pass.
    sizes = np.where(deviations > 0, deviations, np.where(means != 0, np.abs(means), 1.0))
    sizes[constant] = abs(value)
    shift = means.copy()
    shift[constant] = 0.0
    scaled = X - shift
    scaled /= sizes
    C[constant, :] -= shift / value
    C /= sizes[None, :]
    return C, scaled


def _centre_response(XY: FloatArray, root: FloatArray | None) -> tuple[float, FloatArray]:
    """Replace the last column by its residuals from the others in units of their size; return size and coefficients."""
    n, p = XY.shape[0], XY.shape[1] - 1
    X, y = XY[:, :p], XY[:, p]
    coefficients = np.zeros(p)
    size = float(np.sqrt(np.mean(y * y)))
    # Twice, because the first residuals of a response far from zero still hold rounding of its mean.
    for _ in range(2 if p else 0):
        step = X.T @ (y if root is None else y * root**2) / n
        y -= X @ step
        coefficients += step
    scale = float(np.sqrt(np.mean(y * y if root is None else (root * y) ** 2)))
    if scale <= 1e-12 * size or scale == 0.0:
        raise DataError(
            "the fixed effects fit the response exactly (all residuals are zero), so there is no variation left for "
            "random effects; check the response, or leave out a fixed effect that is computed from it."
        )
    y /= scale
    return scale, coefficients


def _scale_random(term: RandomTerm, root: FloatArray | None) -> tuple[FloatArray, FloatArray]:
    """Z S for one term."""
    Z = term.values
    k = Z.shape[1]
    if k == 1 and Z[0, 0] == 1.0 and (Z == 1.0).all():
        return Z, np.eye(1)
    if term.structure != "unstructured":
        sizes = np.sqrt(np.mean(Z * Z if root is None else (Z * root[:, None]) ** 2, axis=0))
        sizes = np.where(sizes > 0, sizes, 1.0)
        if term.structure != "diagonal":
            sizes = np.full(k, np.sqrt(np.mean(sizes**2)))
        if term.structure == "exchangeable":
            S: FloatArray = mean_and_contrasts(k) / sizes
            return Z @ S, S
        return Z / sizes, np.diag(1.0 / sizes)
    S, scaled = _centre_and_scale(Z, root)
    weighted = scaled if root is None else scaled * root[:, None]
    gram = weighted.T @ weighted / Z.shape[0]
    values, vectors = np.linalg.eigh(gram)
    if k == 1 or values[0] < 1e-8 * values[-1]:
        return scaled, S
    whiten = (vectors / np.sqrt(values)) @ vectors.T
    return scaled @ whiten, S @ whiten


def scale_model(
    design: Design, constant: bool = False
) -> tuple[FloatArray, FloatArray, tuple[FloatArray, ...], tuple[FloatArray, ...], FloatArray | None]:
    """Columns of a model whose response keeps its units: X C, C, Z S and S for each term, and the shift.

    Parameters
    ----------
    design : Design
    constant : bool
        Other parameters of the model take up a constant in eta: the columns inside are X C + 1 shift', centred.
    """
    shift = None
    if constant and design.X.shape[1]:
        X, whole = _scale_fixed(np.column_stack([np.ones(design.n_obs), design.X]), None)
        X, C, shift = np.ascontiguousarray(X[:, 1:]), whole[1:, 1:], whole[0, 1:]
    else:
        X, C = _scale_fixed(design.X, None)
    scaled = [_scale_random(term, None) for term in design.terms]
    return X, C, tuple(Z for Z, _ in scaled), tuple(S for _, S in scaled), shift
