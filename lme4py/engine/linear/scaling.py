"""Centred and scaled copies of the columns, and the way back.

The engine never sees the user's units: y is replaced by its residuals from X in units of their standard
deviation, X by columns that are orthonormal up to rounding, the columns of an unstructured random term by
combinations that are orthonormal over the data. The model is the same (the fixed effects and any unstructured
covariance are closed under such maps; a diagonal covariance only allows scales, and only scales are used there),
but `Days + 2000` or micrograms no longer cost digits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import scipy.linalg
import scipy.linalg.lapack as lapack

from lme4py.chunks import chunk, from_size, row_blocks
from lme4py.covariance import CovarianceStructure
from lme4py.design.design import Design, RandomTerm
from lme4py.design.rank import dependent_columns
from lme4py.errors import DataError
from lme4py.linalg.small import eigen
from lme4py.linalg.types import FloatArray

# Beyond this condition number a cross-product loses too many digits and X is orthogonalised row by row.
_SAFE_CONDITION = 1e3
# Responses whose middle is this many times as far from zero as from the largest of them are moved to it.
_FAR = 100.0
# Rows that are worked on at one time: what is made of them stays in the cache of the processor.
_ROWS = chunk(2**14)
# Up to this many columns each is worked on by itself: along rows there would be a loop over few numbers for each.
_FEW = from_size(8, 1)


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

    @property
    def column_changes(self) -> list[FloatArray]:
        """S of each term, for covariances relative to the residual variance of a row with weight 1."""
        return [S / np.sqrt(self.weight_scale) for S in self.S]

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


@dataclass(frozen=True)
class ColumnMap:
    """Columns of the user's as columns of the engine's: ((X - shift) / sizes) mix, step by step to keep the digits.

    Attributes
    ----------
    shift, sizes : ndarray, shape (k,), or None
    mix : ndarray, shape (k, k), or None
    """

    shift: FloatArray | None = None
    sizes: FloatArray | None = None
    mix: FloatArray | None = None

    def __call__(self, X: FloatArray, out: FloatArray | None = None) -> FloatArray:
        """The columns of some rows, shape (n, k); the same array where nothing changes.

        Parameters
        ----------
        X : ndarray, shape (n, k)
        out : ndarray, shape (n, k), optional
            Where they go.
        """
        moved = self._moved(X)
        if self.mix is not None:
            return np.matmul(moved, self.mix, out=out)
        if out is None:
            return moved
        out[:] = moved
        return out

    def _moved(self, X: FloatArray) -> FloatArray:
        """(X - shift) / sizes; a few columns one after the other, each in one piece."""
        if self.shift is None and self.sizes is None:
            return X
        few = X.shape[1] <= _FEW
        moved = np.empty(X.shape, order="F" if few else "C")
        columns = range(X.shape[1]) if few else [slice(None)]
        for j in columns:
            own = moved[:, j]
            source = X[:, j]
            if self.shift is not None:
                source = np.subtract(source, self.shift[j], out=own)
            if self.sizes is not None:
                source = np.divide(source, self.sizes[j], out=own)
        return moved


@dataclass(frozen=True)
class RowScaler:
    """Makes the engine's columns of some rows, so that large data need no whole copy of them.

    Attributes
    ----------
    design : Design
    X, Z : ColumnMap
        Of the fixed effects and, for each term, of the random effects.
    origin, magnitude, spread : float
        y inside is the residual of (y - offset - origin) / magnitude from X, divided by `spread`.
    steps : tuple of ndarray, each (p,)
        Coefficients of that residual, subtracted one after the other.
    weight_scale : float
    """

    design: Design
    X: ColumnMap
    Z: tuple[ColumnMap, ...]
    origin: float
    magnitude: float
    spread: float
    steps: tuple[FloatArray, ...]
    weight_scale: float

    def rows(self, place: slice) -> ScaledColumns:
        """The columns of the rows `place`."""
        design = self.design
        Z = tuple(own(term.values[place]) for own, term in zip(self.Z, design.terms, strict=True))
        weights = None if design.weights is None else design.weights[place] / self.weight_scale
        return ScaledColumns(self.fixed(place), Z, weights)

    def fixed(self, place: slice, steps: Sequence[FloatArray] | None = None) -> FloatArray:
        """[X y] of the rows `place`, (n, p + 1); with the residuals of other steps where these are given."""
        rows = self.design.X[place]
        # Sums over the rows go along columns.
        XY = np.empty((rows.shape[0], rows.shape[1] + 1), order="F")
        self.X(rows, out=XY[:, :-1])
        self.respond(place, self.steps if steps is None else steps, XY)
        return XY

    def respond(self, place: slice, steps: Sequence[FloatArray], XY: FloatArray) -> None:
        """Put y of the rows `place` into the last column of XY, whose others are those of X."""
        X = XY[:, :-1]
        y = _response(self.design, place, self.magnitude, self.origin)
        for step in steps:
            y -= X @ step
        np.divide(y, self.spread, out=XY[:, -1])


def scale_columns(design: Design) -> tuple[Scaling, ScaledColumns]:
    """Scale the columns of a design.

    Parameters
    ----------
    design : Design
        With y of shape (n,).
    """
    scaling, scaler = plan_scaling(design)
    return scaling, scaler.rows(slice(0, design.n_obs))


def plan_scaling(design: Design) -> tuple[Scaling, RowScaler]:
    """The maps of a design, and what makes the columns of some of its rows.

    Parameters
    ----------
    design : Design
        With y of shape (n,).
    """
    weight_scale = 1.0 if design.weights is None else float(design.weights.mean())
    w = None if design.weights is None else design.weights / weight_scale
    centred = _centred(design.X, w, design.x_names)
    C, fixed = _made_orthonormal(centred, w)
    constant = centred.constant
    origin, magnitude = _range(design, constant is not None)
    scaler = RowScaler(design, fixed, (), origin, magnitude, 1.0, (), weight_scale)
    spread, steps = _centre_response(scaler, w)
    random = [_scale_random(term, w, known=centred) for term in design.terms]
    scaler = replace(scaler, Z=tuple(own for _, own in random), spread=spread, steps=steps)
    log_det = float(np.log(np.abs(np.linalg.det(C)))) if C.size else 0.0
    b0 = C @ (magnitude * sum(steps, np.zeros(C.shape[0])))
    if constant is not None:
        b0[constant] += origin / design.X[0, constant]
    return Scaling(C, magnitude * spread, b0, tuple(S for S, _ in random), log_det, weight_scale), scaler


def _response(design: Design, place: slice, magnitude: float, origin: float) -> FloatArray:
    """(y - offset - origin) / magnitude of some rows."""
    y = design.y[place] if design.offset is None else design.y[place] - design.offset[place]
    scaled: FloatArray = (y - origin) / magnitude if origin else y / magnitude
    return scaled


def _range(design: Design, has_constant: bool) -> tuple[float, float]:
    """The origin of the response, and the largest distance from it.

    Far from zero, the origin is the middle of the responses, which is subtracted from them without rounding; a constant
    column takes it up. Elsewhere it is zero. Squares of very small or very large numbers would leave the range of
    floating point: the responses inside are divided by the distance.
    """
    low, high = np.inf, -np.inf
    for place in row_blocks(design.n_obs, _ROWS):
        y = _response(design, place, 1.0, 0.0)
        low, high = min(low, float(y.min())), max(high, float(y.max()))
    middle, half = 0.5 * low + 0.5 * high, 0.5 * high - 0.5 * low
    is_far = has_constant and abs(middle) > _FAR * half > 0.0
    magnitude = (half if is_far else max(abs(low), abs(high))) or 1.0
    if not 1e-140 < magnitude < 1e140:
        raise DataError(
            f"the largest response is {magnitude:.3g}, and its variance is beyond floating point; use other units."
        )
    return middle if is_far else 0.0, magnitude


def _means(X: FloatArray, w: FloatArray | None) -> FloatArray:
    """Weighted means of the columns."""
    if w is None:
        means: FloatArray = np.add.reduce(X, axis=0) / X.shape[0]
        return means
    weighted: FloatArray = (w / X.shape[0]) @ X
    return weighted


def _gram(X: FloatArray, own: ColumnMap, w: FloatArray | None) -> FloatArray:
    """Weighted mean products of the mapped columns, (k, k)."""
    n, k = X.shape
    total = np.zeros((k, k))
    for place in row_blocks(n, _ROWS):
        mapped = own(X[place])
        total += mapped.T @ (mapped if w is None else mapped * w[place, None])
    total /= n
    return total


def constant_column(X: FloatArray) -> int | None:
    """Position of the first column whose elements are all equal and not zero."""
    if X.shape[0] == 0:
        return None
    candidates = np.flatnonzero((X[0] == X[-1]) & (X[0] != 0.0))
    for j in candidates:
        column = X[:, j]
        if (column == column[0]).all():
            return int(j)
    return None


def _scale_fixed(X: FloatArray, w: FloatArray | None, names: Sequence[str]) -> tuple[FloatArray, ColumnMap]:
    """C, and the map to X C, chosen so that the columns are close to orthonormal (weighted, times sqrt(n))."""
    return _made_orthonormal(_centred(X, w, names), w)


def _made_orthonormal(centred: _Centred, w: FloatArray | None) -> tuple[FloatArray, ColumnMap]:
    """As `_scale_fixed`."""
    X, C, own, gram, _ = centred
    if X.shape[1] < 2:
        return C, own
    spread = eigen(gram)[0]
    if spread[-1] > _SAFE_CONDITION**2 * spread[0]:
        return _by_triangle(X, C, own, w)
    mix = _orthonormal(gram)
    return C @ mix, ColumnMap(own.shift, own.sizes, mix)


def _orthonormal(gram: FloatArray) -> FloatArray:
    """R^-1 of R'R = gram, upper triangular."""
    R, info = lapack.dpotrf(gram, lower=0, clean=1)
    if info:
        raise np.linalg.LinAlgError("the mean products of columns are not positive definite")
    return np.asarray(lapack.dtrtri(R, lower=0)[0])


def _by_triangle(X: FloatArray, C: FloatArray, own: ColumnMap, w: FloatArray | None) -> tuple[FloatArray, ColumnMap]:
    """Orthonormal columns where cross-products would lose too many digits: by QR, and once more by Cholesky."""
    n, p = X.shape
    mix = scipy.linalg.solve_triangular(_triangle(X, own, w) / np.sqrt(n), np.eye(p), check_finite=False)
    gram = _gram(X, replace(own, mix=mix), w)
    mix = mix @ _orthonormal(gram)
    return C @ mix, replace(own, mix=mix)


def _triangle(X: FloatArray, own: ColumnMap, w: FloatArray | None) -> FloatArray:
    """R of the QR decomposition of the mapped and weighted columns, (p, p), some rows at a time."""
    n, p = X.shape
    R = np.zeros((0, p))
    for place in row_blocks(n, max(_ROWS, 2 * p)):
        mapped = own(X[place])
        weighted = mapped if w is None else mapped * np.sqrt(w[place, None])
        R = scipy.linalg.qr(np.concatenate([R, weighted]), mode="r", check_finite=False)[0][:p]
    return R


class _Centred(NamedTuple):
    """Columns X C, of which all have unit size and, where one is constant, the others are centred.

    Attributes
    ----------
    X : ndarray, shape (n, p)
        The user's columns.
    C : ndarray, shape (p, p)
    map : ColumnMap
        To X C.
    gram : ndarray, shape (p, p)
        Mean products of X C.
    constant : int or None
        Position of the constant column.
    """

    X: FloatArray
    C: FloatArray
    map: ColumnMap
    gram: FloatArray
    constant: int | None

    def has(self, Z: FloatArray) -> bool:
        """Whether Z are the same columns, and not only equal ones."""
        own, other = self.X.__array_interface__["data"], Z.__array_interface__["data"]
        return bool(own == other) and self.X.shape == Z.shape and self.X.strides == Z.strides


def _centred(X: FloatArray, w: FloatArray | None, names: Sequence[str]) -> _Centred:
    p = X.shape[1]
    if p == 0:
        return _Centred(X, np.zeros((0, 0)), ColumnMap(), np.zeros((0, 0)), None)
    constant = constant_column(X)
    C = np.eye(p)
    if constant is None:
        gram, sizes = _sizes(X, ColumnMap(), w, names)
        C /= sizes[None, :]
        return _Centred(X, C, ColumnMap(sizes=sizes), gram / sizes / sizes[:, None], None)
    value = X[0, constant]
    means = _means(X, w)
    shift = means.copy()
    shift[constant] = 0.0
    # A column that only differs from a constant by rounding keeps its size: the rank check has let it pass.
    gram, sizes = _sizes(X, ColumnMap(shift), w, names)
    sizes[constant] = abs(value)
    C[constant, :] -= shift / value
    C /= sizes[None, :]
    return _Centred(X, C, ColumnMap(shift, sizes), gram / sizes / sizes[:, None], constant)


def _sizes(X: FloatArray, own: ColumnMap, w: FloatArray | None, names: Sequence[str]) -> tuple[FloatArray, FloatArray]:
    """Mean products of the mapped columns (k, k) and their root mean squares (k,), or sizes where these are zero.

    Raises
    ------
    DataError
        When the squares of a column leave the range of floating point.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        gram = _gram(X, own, w)
        return gram, _checked_sizes(X, gram.diagonal(), names)


def _own_sizes(X: FloatArray, w: FloatArray | None, names: Sequence[str]) -> FloatArray:
    """Root mean squares of columns that are only scaled, as of `_sizes`."""
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.einsum("nk,nk->k", X, X) if w is None else np.einsum("nk,n,nk->k", X, w, X)
        return _checked_sizes(X, squares / X.shape[0], names)


def _checked_sizes(X: FloatArray, squares: FloatArray, names: Sequence[str]) -> FloatArray:
    sizes = np.sqrt(squares)
    if not (sizes > 0.0).all():
        largest = np.abs(X).max(axis=0, initial=0.0)
        sizes = np.where(sizes > 0.0, sizes, np.where(largest > 0.0, largest, 1.0))
    for name, size, column in zip(names, sizes, X.T, strict=True):
        if not 1e-140 < size < 1e140:
            raise DataError(
                f"the values of {name} are up to {float(np.abs(column).max()):.3g} in size, and their squares are "
                "beyond floating point; use other units."
            )
    return np.asarray(sizes)


def _centre_response(scaler: RowScaler, w: FloatArray | None) -> tuple[float, tuple[FloatArray, ...]]:
    """Size of the residuals of y from the columns of X inside, and their coefficients in two steps."""
    design = scaler.design
    n, p = design.X.shape
    size2 = 0.0
    steps: list[FloatArray] = []
    XY = np.zeros((0, p + 1))
    # Twice, because the first residuals of a response far from zero still hold rounding of its mean.
    for _ in range(2 if p else 1):
        step, squares = np.zeros(p), 0.0
        for place in row_blocks(n, _ROWS):
            if steps and n <= _ROWS:
                # X is there, of all rows.
                scaler.respond(place, steps, XY)
            else:
                XY = scaler.fixed(place, steps)
            X, y = XY[:, :p], XY[:, p]
            weighted = y if w is None else y * w[place]
            step += X.T @ weighted
            squares += float(y @ weighted)
            size2 += 0.0 if steps else float(y @ y)
        steps.append(step / n)
    # The columns are orthonormal, and the last step is small.
    scale = float(np.sqrt(max(squares / n - float(steps[-1] @ steps[-1]), 0.0)))
    # Far from zero the responses themselves have no more digits.
    noise = max(1e-12 * np.sqrt(size2 / n), 1e-14 * abs(scaler.origin) / scaler.magnitude)
    if scale <= noise or scale == 0.0:
        raise DataError(
            "the fixed effects fit the response exactly (all residuals are zero), so there is no variation left for "
            "random effects; check the response, or leave out a fixed effect that is computed from it."
        )
    return scale, tuple(steps)


def _scale_random(
    term: RandomTerm, w: FloatArray | None, apart: tuple[str, ...] = (), known: _Centred | None = None
) -> tuple[FloatArray, ColumnMap]:
    """S, and the map to Z S, for one term; columns with another value of `apart` are not mixed.

    Where random slopes are those of all fixed effects, what is `known` of these columns serves both.
    """
    Z = term.values
    k = Z.shape[1]
    if k == 1 and Z[0, 0] == 1.0 and (Z == 1.0).all():
        return np.eye(1), ColumnMap()
    structure = term.structure
    if len(set(apart or term.parts)) > 1:
        return _scale_by_part(term, w, apart or term.parts)
    if structure.column_changes != "any":
        S = structured_columns(structure, _own_sizes(Z, w, term.columns))
        is_scale = structure.basis is None
        return S, ColumnMap(sizes=1.0 / S.diagonal()) if is_scale else ColumnMap(mix=S)
    _, S, own, gram, _ = known if known is not None and known.has(Z) else _centred(Z, w, term.columns)
    if k == 1:
        return S, own
    values, vectors = eigen(gram)
    if values[0] < 1e-8 * values[-1]:
        # Dependent columns are refused later, by what they do to the covariances.
        depends = dependent_columns(Z, bool((Z[:, 0] == 1.0).all()))
        return (S, own) if depends else _by_triangle(Z, S, own, w)
    whiten = (vectors / np.sqrt(values)) @ vectors.T
    return S @ whiten, ColumnMap(own.shift, own.sizes, whiten)


def _scale_by_part(term: RandomTerm, w: FloatArray | None, parts: tuple[str, ...]) -> tuple[FloatArray, ColumnMap]:
    """S of a term of several linear predictors, or responses, whose columns cannot be mixed."""
    S = np.zeros((term.n_columns, term.n_columns))
    for part in dict.fromkeys(parts):
        own = [j for j, other in enumerate(parts) if other == part]
        S[np.ix_(own, own)] = _scale_random(term.subset(own), w)[0]
    return S, ColumnMap(mix=S)


def structured_columns(structure: CovarianceStructure, sizes: FloatArray) -> FloatArray:
    """S of a term whose columns cannot be changed at will.

    Parameters
    ----------
    structure : CovarianceStructure
    sizes : ndarray, shape (k,)
        Root mean squares of the columns.

    Returns
    -------
    ndarray, shape (k, k)
    """
    k = sizes.size
    if structure.shares_variance:
        sizes = np.full(k, np.sqrt(np.mean(sizes**2)))
    return np.diag(1.0 / sizes) if structure.basis is None else structure.basis / sizes


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
        whole = np.column_stack([np.ones(design.n_obs), design.X])
        C, own = _scale_fixed(whole, None, ("1", *design.x_names))
        X, C, shift = np.ascontiguousarray(own(whole)[:, 1:]), C[1:, 1:], C[0, 1:]
    else:
        C, own = _scale_fixed(design.X, None, design.x_names)
        X = own(design.X)
    scaled = [_scale_random(term, None, _responses(design, term)) for term in design.terms]
    Z = tuple(own(term.values) for (_, own), term in zip(scaled, design.terms, strict=True))
    return X, C, Z, tuple(S for S, _ in scaled), shift


def _responses(design: Design, term: RandomTerm) -> tuple[str, ...]:
    """The response of each column, where there are several: columns of others are not mixed with them."""
    if design.responses is None or term.structure.column_changes != "any":
        return ()
    return tuple(design.responses.split(name)[0] for name in term.columns)
