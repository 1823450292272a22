"""A linear mixed model from rows that go by in blocks.

The cross-products are summed in columns that are scaled by a sample of the rows, and then brought to the columns that
the engine would have chosen with all rows before it: both are linear maps of the user's, so nothing is lost but
rounding. Where the sample was so unlike the rest that digits would be lost, the sums are made again in the columns that
the first ones suggest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import scipy.linalg

from lme4py.covariance import CovarianceStructure
from lme4py.design.design import Design
from lme4py.design.rank import dependent_columns
from lme4py.design.streaming.stream import ModelRows
from lme4py.engine.factor.crossproducts import CrossProducts, Edges, Factor, ModelBlock, Sums
from lme4py.engine.linear.scaling import Scaling, structured_columns
from lme4py.errors import DataError, DesignError
from lme4py.linalg.types import FloatArray, IntArray

__all__ = ["Columns", "PackedSums", "Quality", "RowSums", "first_columns", "problem_parts"]

# Sums of squares of which less than this is left have lost digits: the rows are gone through once more.
_LEFT = 1e-5
# The same for columns: squared condition number.
_CONDITION = 1e5
# Below this ratio of eigenvalues the columns of a term are dependent.
_DEPENDENT = 1e-12


@dataclass(frozen=True)
class Columns:
    """Linear maps from the user's columns to those in which sums are made.

    Attributes
    ----------
    C : ndarray, shape (p, p)
        X inside = X C.
    b0 : ndarray, shape (p,)
        y inside = (y - offset - X b0) / y_scale.
    y_scale : float
    S : tuple of ndarray, each (k, k)
        Z inside = Z S, by term.
    has_constant : bool
        Column 0 of X is 1.
    constants : tuple of bool
        Whether column 0 of Z is 1, by term.
    """

    C: FloatArray
    b0: FloatArray
    y_scale: float
    S: tuple[FloatArray, ...]
    has_constant: bool
    constants: tuple[bool, ...]

    def block(self, rows: ModelRows, factors: tuple[Factor, ...]) -> ModelBlock:
        """Rows in these columns."""
        X = _mapped(rows.X, self.C, self.has_constant)
        XY = np.empty((rows.n, X.shape[1] + 1), order="F")
        XY[:, :-1] = X
        y = rows.y if rows.offset is None else rows.y - rows.offset
        np.divide(y - rows.X @ self.b0, self.y_scale, out=XY[:, -1])
        Z = [_mapped(own, S, one) for own, S, one in zip(rows.Z, self.S, self.constants, strict=True)]
        by_factor = tuple(
            Z[factor.terms[0]] if len(factor.terms) == 1 else np.hstack([Z[t] for t in factor.terms])
            for factor in factors
        )
        weights = rows.weights if rows.cells is None else rows.cells.counts
        return ModelBlock(XY, tuple(rows.codes[factor.terms[0]] for factor in factors), by_factor, weights)


def _mapped(X: FloatArray, C: FloatArray, has_constant: bool) -> FloatArray:
    """X C; a shift is subtracted before anything else, which keeps the digits."""
    if X.shape[1] == 0:
        return X
    if not has_constant or X.shape[1] == 1:
        return X @ C
    # Column j of C is size_j (e_j - shift_j e_0) as long as there is no more to it.
    rest = C[1:, 1:]
    if np.count_nonzero(rest - np.diag(rest.diagonal())):
        middle = -np.linalg.solve(rest.T, C[0, 1:])
        out = np.empty_like(X)
        out[:, 0] = X[:, 0] * C[0, 0]
        out[:, 1:] = (X[:, 1:] - middle) @ rest
        return out
    out = np.empty_like(X)
    np.multiply(X[:, 0], C[0, 0], out=out[:, 0])
    size = rest.diagonal()
    for j in range(1, X.shape[1]):
        np.add(X[:, j], C[0, j] / size[j - 1], out=out[:, j])
        out[:, j] *= size[j - 1]
    return out


def first_columns(sample: ModelRows, has_constant: bool, constants: tuple[bool, ...]) -> Columns:
    """Columns of about unit size, centred beside a constant, by a sample of the rows.

    Parameters
    ----------
    sample : ModelRows
    has_constant : bool
    constants : tuple of bool
    """
    C = _unit(sample.X, has_constant)
    S = tuple(_unit(Z, one) for Z, one in zip(sample.Z, constants, strict=True))
    y = sample.y if sample.offset is None else sample.y - sample.offset
    X = _mapped(sample.X, C, has_constant)
    free = np.setdiff1d(np.arange(X.shape[1]), dependent_columns(sample.X, has_constant))
    inside = np.zeros(X.shape[1])
    inside[free] = np.linalg.lstsq(X[:, free], y, rcond=1e-8)[0]
    b0 = C @ inside
    size = float(np.sqrt(np.mean((y - X @ inside) ** 2)))
    largest = float(np.abs(y).max())
    y_scale = size if size > 1e-8 * largest else (largest or 1.0)
    return Columns(C, b0, y_scale, S, has_constant, constants)


def _unit(X: FloatArray, has_constant: bool) -> FloatArray:
    p = X.shape[1]
    if p == 0:
        return np.zeros((0, 0))
    shift = X.mean(axis=0) if has_constant else np.zeros(p)
    with np.errstate(over="ignore", invalid="ignore"):
        sizes = np.sqrt(np.mean((X - shift) ** 2, axis=0))
    largest = np.abs(X).max(axis=0)
    # A column that hardly varies in the sample may do so in the rest.
    sizes = np.where(np.isfinite(sizes) & (sizes > 1e-6 * largest), sizes, np.where(largest > 0.0, largest, 1.0))
    C = np.diag(1.0 / sizes)
    if has_constant:
        C[0, 0] = 1.0
        C[0, 1:] = -shift[1:] / sizes[1:]
    return C


@dataclass
class RowSums:
    """What the second pass sums.

    Parameters
    ----------
    columns : Columns
    factors : tuple of Factor

    Attributes
    ----------
    sum_weights, low_weight, high_weight : float
    squares, size : float
        Sum of squares of the responses less their offset, and the largest of them.
    plain : ndarray, shape (p, p)
        X'X, without weights.
    counts : list of ndarray, each (J,)
        Rows of each level, by factor.
    """

    columns: Columns
    factors: tuple[Factor, ...]
    sums: Sums = field(init=False)
    sum_weights: float = 0.0
    low_weight: float = np.inf
    high_weight: float = -np.inf
    squares: float = 0.0
    size: float = 0.0
    plain: FloatArray = field(init=False)

    def __post_init__(self) -> None:
        self.sums = Sums(self.factors, self.columns.C.shape[0] + 1)
        self.counts = [np.zeros(factor.n_levels) for factor in self.factors]
        p = self.columns.C.shape[0]
        self.plain = np.zeros((p, p))

    def add(self, rows: ModelRows) -> None:
        """Add the rows of a block."""
        block = self.columns.block(rows, self.factors)
        repeats = None if rows.cells is None else rows.cells.counts
        self.sums.add(block, counted=repeats is not None)
        for own, codes in zip(self.counts, block.codes, strict=True):
            own += np.bincount(codes, weights=repeats, minlength=own.size)
        y = rows.y if rows.offset is None else rows.y - rows.offset
        self.size = max(self.size, float(np.abs(y).max()))
        X = block.XY[:, :-1]
        if repeats is None or rows.cells is None:
            self.squares += float(y @ y)
            self.plain += X.T @ X
        else:
            within = float(rows.cells.within.sum())
            self.squares += float(repeats @ y**2) + within
            self.plain += X.T @ (repeats[:, None] * X)
            self.sums.corner[-1, -1] += within / self.columns.y_scale**2
        if rows.weights is not None:
            self.sum_weights += float(rows.weights.sum())
            self.low_weight = min(self.low_weight, float(rows.weights.min()))
            self.high_weight = max(self.high_weight, float(rows.weights.max()))

    def packed(self) -> PackedSums:
        """The sums of the levels that occur, to be sent from one machine to another."""
        own = self.sums.result()
        levels = tuple(np.flatnonzero(counts) for counts in self.counts)
        return PackedSums(
            levels,
            tuple(counts[at] for counts, at in zip(self.counts, levels, strict=True)),
            tuple(D[:, :, at] for D, at in zip(own.diagonal, levels, strict=True)),
            tuple(B[:, at] for B, at in zip(own.border, levels, strict=True)),
            {pair: Edges(edges.rows, edges.columns, edges.values) for pair, edges in own.edges.items()},
            own.corner,
            self.plain,
            own.n_obs,
            own.sum_log_weights,
            np.array([self.sum_weights, self.squares]),
            np.array([-self.low_weight, self.high_weight, self.size]),
        )

    def take_in(self, packed: PackedSums) -> None:
        """Add what was summed over other rows, in the same columns."""
        parts = zip(self.counts, self.sums.diagonal, self.sums.border, packed.by_level(), strict=True)
        for counts, diagonal, border, (at, more, D, B) in parts:
            counts[at] += more
            diagonal[:, :, at] += D
            border[:, at] += B
        for pair, edges in packed.edges.items():
            self.sums.edges[pair].append(edges)
        self.sums.corner += packed.corner
        self.plain += packed.plain
        self.sums.n_obs += packed.n_obs
        self.sums.sum_log_weights += packed.sum_log_weights
        self.sum_weights += float(packed.totals[0])
        self.squares += float(packed.totals[1])
        self.low_weight = min(self.low_weight, -float(packed.largest[0]))
        self.high_weight = max(self.high_weight, float(packed.largest[1]))
        self.size = max(self.size, float(packed.largest[2]))

    def add_all(self, blocks: Iterable[ModelRows]) -> RowSums:
        """Add the rows of many blocks."""
        for rows in blocks:
            self.add(rows)
        return self


@dataclass(frozen=True)
class PackedSums:
    """Sums keyed by the levels that occur in some rows.

    Attributes
    ----------
    levels : tuple of ndarray of int, each (L,)
        Ascending, by factor.
    counts : tuple of ndarray, each (L,)
    diagonal : tuple of ndarray, each (k, k, L)
    border : tuple of ndarray, each (k, L, p + 1)
    edges : dict (s, t) -> Edges
    corner : ndarray, shape (p + 1, p + 1)
    plain : ndarray, shape (p, p)
    n_obs : int
    sum_log_weights : float
    totals, largest : ndarray
        Numbers that are added, and those of which the largest counts.
    """

    levels: tuple[IntArray, ...]
    counts: tuple[FloatArray, ...]
    diagonal: tuple[FloatArray, ...]
    border: tuple[FloatArray, ...]
    edges: dict[tuple[int, int], Edges]
    corner: FloatArray
    plain: FloatArray
    n_obs: int
    sum_log_weights: float
    totals: FloatArray
    largest: FloatArray

    def by_level(self) -> Iterator[tuple[IntArray, FloatArray, FloatArray, FloatArray]]:
        """Levels, counts, diagonal and border of each factor."""
        return zip(self.levels, self.counts, self.diagonal, self.border, strict=True)

    def merge(self, other: PackedSums) -> PackedSums:
        """The sums over the rows of both: in any order and grouping the same up to rounding.

        Parameters
        ----------
        other : PackedSums
            Of other rows of the same model, in the same columns.
        """
        merged = [_joined(own, more) for own, more in zip(self.by_level(), other.by_level(), strict=True)]
        return PackedSums(
            tuple(levels for levels, _, _, _ in merged),
            tuple(counts for _, counts, _, _ in merged),
            tuple(diagonal for _, _, diagonal, _ in merged),
            tuple(border for _, _, _, border in merged),
            {pair: _joined_edges(own, other.edges[pair]) for pair, own in self.edges.items()},
            self.corner + other.corner,
            self.plain + other.plain,
            self.n_obs + other.n_obs,
            self.sum_log_weights + other.sum_log_weights,
            self.totals + other.totals,
            np.maximum(self.largest, other.largest),
        )


ByLevel = tuple[IntArray, FloatArray, FloatArray, FloatArray]


def _joined(own: ByLevel, more: ByLevel) -> ByLevel:
    levels = np.union1d(own[0], more[0])
    counts = np.zeros(levels.size)
    diagonal = np.zeros((*own[2].shape[:2], levels.size))
    border = np.zeros((own[3].shape[0], levels.size, own[3].shape[2]))
    for at, n, D, B in (own, more):
        place = np.searchsorted(levels, at)
        counts[place] += n
        diagonal[:, :, place] += D
        border[:, place] += B
    return levels, counts, diagonal, border


def _joined_edges(own: Edges, more: Edges) -> Edges:
    width = int(max(own.columns.max(initial=0), more.columns.max(initial=0))) + 1
    keys = np.concatenate([part.rows.astype(np.int64) * width + part.columns for part in (own, more)])
    distinct, place = np.unique(keys, return_inverse=True)
    both = np.concatenate([own.values, more.values], axis=2)
    sums = [[np.bincount(place, weights=cells, minlength=distinct.size) for cells in line] for line in both]
    return Edges(*np.divmod(distinct, width), np.array(sums))


@dataclass(frozen=True)
class Quality:
    """Whether the sums have kept their digits.

    Attributes
    ----------
    good : bool
    columns : Columns
        Better ones, by the sums.
    """

    good: bool
    columns: Columns


def problem_parts(
    sums: RowSums, cross: CrossProducts, design: Design, weighted: bool
) -> tuple[Scaling, CrossProducts, Quality]:
    """The scaling that all rows give, and the cross-products in its columns.

    Parameters
    ----------
    sums : RowSums
    cross : CrossProducts
        Of `sums`, without columns of X that were left out.
    design : Design
        Without rows.
    weighted : bool
    """
    columns = sums.columns
    n = cross.n_obs
    weight_scale = sums.sum_weights / n if weighted else 1.0
    corner = cross.corner / (n * weight_scale)
    p = corner.shape[0] - 1
    M, regular = _orthonormal(corner[:p, :p], columns.has_constant)
    step = M.T @ corner[:p, p]
    left = float(corner[p, p] - step @ step)
    quality = left > _LEFT * float(corner[p, p]) and regular
    size = float(np.sqrt(max(left, 0.0)))
    noise = max(1e-12 * np.sqrt(sums.squares / n), 1e-16 * sums.size) / columns.y_scale
    if size <= noise:
        raise DataError(
            "the fixed effects fit the response exactly (all residuals are zero), so there is no variation left for "
            "random effects; check the response, or leave out a fixed effect that is computed from it."
        )
    moves = []
    for t, term in enumerate(design.terms):
        move, clear = _random_map(term.structure, _term_gram(cross, sums.factors, t) / (n * weight_scale), columns, t)
        moves.append(move)
        quality = quality and clear
    C = columns.C @ M
    b0 = columns.b0 + columns.y_scale * (C @ step)
    y_scale = columns.y_scale * size
    S = tuple(own @ move for own, move in zip(columns.S, moves, strict=True))
    log_det = float(np.linalg.slogdet(C)[1]) if p else 0.0
    scaling = Scaling(C, y_scale, b0, S, log_det, weight_scale)
    XY = np.zeros((p + 1, p + 1))
    XY[:p, :p] = M
    XY[:p, p] = -(M @ step) / size
    XY[p, p] = 1.0 / size
    by_factor = [scipy.linalg.block_diag(*[moves[t] for t in factor.terms]) for factor in sums.factors]
    final = cross.in_columns(XY, by_factor, 1.0 / weight_scale, -n * float(np.log(weight_scale)))
    better = Columns(C, b0, y_scale, S, columns.has_constant, columns.constants)
    return scaling, final, Quality(quality, better)


def _orthonormal(G: FloatArray, has_constant: bool) -> tuple[FloatArray, bool]:
    """M such that the columns X M are orthonormal, and whether G holds enough digits for it."""
    p = G.shape[0]
    if p == 0:
        return np.zeros((0, 0)), True
    M = np.eye(p)
    if has_constant:
        M[0, 1:] = -G[0, 1:] / G[0, 0]
        M[0, 0] = 1.0 / np.sqrt(G[0, 0])
    centred = M.T @ G @ M
    kept = bool((centred.diagonal() > G.diagonal() / _CONDITION).all())
    sizes = np.sqrt(centred.diagonal())
    M = M / sizes
    gram = centred / sizes / sizes[:, None]
    values = np.linalg.eigvalsh(gram)
    try:
        mix = np.linalg.inv(np.linalg.cholesky(gram)).T
    except np.linalg.LinAlgError:
        raise DesignError("columns of the fixed effects depend on each other; leave one of them out.") from None
    return M @ mix, kept and bool(values[-1] < _CONDITION * values[0])


def _term_gram(cross: CrossProducts, factors: tuple[Factor, ...], t: int) -> FloatArray:
    for factor, diagonal in zip(factors, cross.diagonal, strict=True):
        if t in factor.terms:
            place = factor.columns[factor.terms.index(t)]
            gram: FloatArray = diagonal[place, place].sum(axis=2)
            return gram
    raise ValueError(t)


def _random_map(structure: CovarianceStructure, G: FloatArray, columns: Columns, t: int) -> tuple[FloatArray, bool]:
    """The change of the columns of a term from those of the sums to the engine's, and whether digits are left."""
    S = columns.S[t]
    if structure.column_changes != "any":
        # Nothing was subtracted from these columns.
        own = structured_columns(structure, np.sqrt(G.diagonal()) / S.diagonal())
        return own / S.diagonal()[:, None], True
    if G.shape[0] == 1:
        return (np.eye(1) if columns.constants[t] else 1.0 / np.sqrt(G)), True
    return _symmetric(G, columns.constants[t])


def _symmetric(G: FloatArray, has_constant: bool) -> tuple[FloatArray, bool]:
    """As `_orthonormal`, by the symmetric root of the centred columns."""
    k = G.shape[0]
    M = np.eye(k)
    if has_constant:
        M[0, 1:] = -G[0, 1:] / G[0, 0]
    centred = M.T @ G @ M
    kept = bool((centred.diagonal() > G.diagonal() / _CONDITION).all())
    sizes = np.sqrt(np.where(centred.diagonal() > 0.0, centred.diagonal(), 1.0))
    values, vectors = np.linalg.eigh(centred / sizes / sizes[:, None])
    if values[0] < _DEPENDENT * values[-1]:
        # Dependent columns are refused later, by what they do to the covariances.
        return M / sizes, kept
    return (M / sizes) @ ((vectors / np.sqrt(values)) @ vectors.T), kept and bool(values[-1] < _CONDITION * values[0])


def root_of(sums: RowSums, kept: Sequence[int]) -> FloatArray:
    """R with R'R = X'X in the user's columns, without those that were left out.

    Parameters
    ----------
    sums : RowSums
    kept : sequence of int
    """
    place = np.ix_(kept, kept)
    inside = np.linalg.cholesky(sums.plain[place]).T
    return np.asarray(np.linalg.qr(inside @ np.linalg.inv(sums.columns.C[place]), mode="r"), dtype=np.float64)


def triangle(blocks: Iterable[ModelRows], columns: Columns) -> FloatArray:
    """R of the QR decomposition of all rows of X, after a constant where X does not begin with one."""
    sizes = 1.0 / np.abs(columns.C.diagonal())
    own = sizes if columns.has_constant else np.append(1.0, sizes)
    R = np.zeros((0, own.size))
    for rows in blocks:
        X = rows.X / sizes if columns.has_constant else np.column_stack([np.ones(rows.n), rows.X / sizes])
        if rows.cells is not None:
            X = X * np.sqrt(rows.cells.counts)[:, None]
        R = scipy.linalg.qr(np.concatenate([R, X]), mode="r", check_finite=False)[0][: own.size]
    return R * own
