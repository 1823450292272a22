"""An exact factor of what conjugate gradients solve, in tiles, where the estimates are known: one value, one inverse.

With C C' = I + T'A_11 T of the first factor, L L' the blocks of one level each of S (see `crossed`) and

    F = C^-1 T'A_12 Lambda L'^-1,      A = L^-1 S L'^-1 = I + (what other factors share) - (F'F without its own blocks),

the blocks of one level each of A are identities. Its Cholesky factor R is made in tiles, of which only the lower
triangle is held. With R in single precision

    log|A| = log|R R'| + log|B|,      B = R^-1 A R'^-1,      log|B| = E[z'(B - I)z] + E[z'(log(B) - B + I)z],

z of random signs. A is applied in double precision without its elements, so that the second part is what rounding did
to the first, whatever R is; and since B is the identity but for rounding, a few probes know it to many digits. Their
scatter is the error that is told.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from lme4py.chunks import chunk, from_size
from lme4py.engine.factor.crossed import CrossedAt, CrossedTables
from lme4py.engine.factor.crossed_probes import MOST_ITERATIONS, standard_error
from lme4py.engine.factor.forecast import check_memory, exceeds_memory
from lme4py.engine.threads import single_thread
from lme4py.linalg import small
from lme4py.linalg.iterative import conjugate_gradients, random_signs
from lme4py.linalg.tiles import TiledCholesky, tiled_bytes
from lme4py.linalg.types import FloatArray, IntArray, SparseMatrix, sparse
from lme4py.progress import announce, tick

__all__ = ["CrossedFactor", "ExactValue", "TileForecast", "forecast_tiles"]

# Floating-point operations of one thread in a second, in double precision; twice that in single.
_RATE = 4e10
# Products of two elements of F that are added in a second.
_PAIRS = 1e8
# Rows up to which double precision takes seconds.
_DOUBLE = from_size(8_000, 40)
_THREADS = 2
# Columns of right-hand sides at one time.
_COLUMNS = chunk(512, 6)
# Bytes of an element of F: its value and its column, by rows and by columns of tiles.
_HELD = 24.0
# Probes of what rounding did, and the residual of their systems.
_PROBES, _ROUNDING = 8, 1e-10
# The first columns of random signs are those of other probes.
_SEED = 2**33


class ExactValue(NamedTuple):
    """A number with the error that rounding leaves in it."""

    value: float
    error: float


@dataclass(frozen=True)
class TileForecast:
    """What a factor in tiles takes.

    Attributes
    ----------
    size : int
        Rows.
    seconds, bytes : float
    dtype : type
        Precision of the tiles.
    """

    size: int
    seconds: float
    bytes: float
    dtype: Any

    @property
    def fits(self) -> bool:
        """Whether there is memory for it."""
        return not exceeds_memory(self.bytes)

    def check(self) -> None:
        """Refuse what does not fit, and say how long a long one takes.

        Raises
        ------
        DesignError
        """
        precision = "single" if self.dtype is np.float32 else "double"
        what = f"a factor of the crossed random effects in tiles ({self.size:,} x {self.size:,}, {precision} precision)"
        check_memory(self.bytes, f"{what} needs memory")
        announce(what, self.seconds)


def forecast_tiles(tables: CrossedTables) -> TileForecast:
    """What a factor of these tables takes.

    Parameters
    ----------
    tables : CrossedTables
    """
    q = tables.size
    dtype = np.float64 if q <= _DOUBLE else np.float32
    rate = _THREADS * _RATE * (2.0 if dtype is np.float32 else 1.0)
    pairs = elements = 0.0
    met = [tables.counts(tables.first, t) * tables.factors[t].n_columns for t in tables.rest]
    whole = np.sum(met, axis=0) if met else np.zeros(1)
    k = tables.factors[tables.first].n_columns
    pairs = 0.5 * k * float((whole**2).sum())
    elements = k * float(whole.sum())
    seconds = float(q) ** 3 / 3.0 / rate + pairs / (_THREADS * _PAIRS)
    return TileForecast(q, seconds, tiled_bytes(q, dtype, _THREADS) + _HELD * elements, dtype)


class CrossedFactor:
    """A factor in tiles at one theta.

    Parameters
    ----------
    at : CrossedAt

    Raises
    ------
    DesignError
        It does not fit into memory.
    numpy.linalg.LinAlgError
        The matrix is not positive definite in the precision of the tiles.
    """

    def __init__(self, at: CrossedAt) -> None:
        self.at, tables = at, at.tables
        forecast = forecast_tiles(tables)
        forecast.check()
        self.levels = _levels_of(tables)
        self.across = _first_rows(at)
        self.beside = _beside(at)
        # Tiles are sums over the first factor: rows of the one times columns of the other.
        self._by_start: dict[int, tuple[SparseMatrix, SparseMatrix]] = {}
        with single_thread(0), ThreadPoolExecutor(_THREADS) as pool:
            self.tiles = TiledCholesky(
                tables.size, self._tile, forecast.dtype, lambda call, numbers: list(pool.map(call, numbers))
            )
        self._by_start = {}

    def _columns(self, place: slice) -> tuple[SparseMatrix, SparseMatrix]:
        found = self._by_start.get(place.start)
        if found is None:
            own = self.across[place]
            found = self._by_start[place.start] = (own, own.T.tocsr())
        return found

    def _tile(self, rows: slice, columns: slice) -> FloatArray:
        """Elements of A."""
        out: FloatArray = (self._columns(rows)[0] @ self._columns(columns)[1]).toarray()
        np.negative(out, out=out)
        if self.beside is not None:
            out += self.beside[rows][:, columns].toarray()
        mine, other = self.levels[rows], self.levels[columns]
        same = mine[:, None] == other
        if same.any():
            out[same] = 0.0
            own = np.arange(max(rows.start, columns.start), min(rows.stop, columns.stop))
            out[own - rows.start, own - columns.start] = 1.0
        return out

    def log_det(self, seed: int = 0) -> ExactValue:
        """log|M|, and the standard error of the correction of what rounding did to it.

        Parameters
        ----------
        seed : int
            Of the probes of the correction.

        Raises
        ------
        numpy.linalg.LinAlgError
            The correction is not found: the factor says too little of the matrix.
        """
        at, tiles = self.at, self.tiles
        z = random_signs(tiles.size, _PROBES, _SEED + seed)
        with single_thread(0):
            right = _lower_times(tiles, z)
            found = conjugate_gradients(
                at.whitened, lambda x: tiles.backward(tiles.forward(x)), right, _ROUNDING, None, MOST_ITERATIONS
            )
            # R'^-1 z, whose product with A is the first of the systems.
            moved = tiles.backward(z)
        if not float(found.residual.max(initial=0.0)) <= 1e3 * _ROUNDING:
            raise np.linalg.LinAlgError("what rounding did to the factor is not found")
        change = np.einsum("ij,ij->j", moved, found.first) - np.einsum("ij,ij->j", z, z) + found.log_moments
        total = at.log_det + tiles.log_det
        return ExactValue(total + float(change.mean()), standard_error(change))

    def level_blocks(self) -> list[FloatArray]:
        """Blocks of one level each of Lambda M^-1 Lambda', (k, k, J) by factor."""
        at, tables = self.at, self.at.tables
        out: list[FloatArray] = [np.empty(0)] * len(tables.factors)
        with single_thread(0):
            for t in tables.rest:
                start, factor = tables.slices[t].start, tables.factors[t]
                places = start + np.arange(factor.size).reshape(factor.n_columns, -1)
                inner = self._squares(places, None)
                scale = _scaled_columns(at, t)
                out[t] = small.product(small.product(scale, inner), small.transpose(scale))
            first = tables.factors[tables.first]
            places = np.arange(first.size).reshape(first.n_columns, -1)
            inner = self._squares(places, self.across.tocsc())
        # E = T'C'^-1 C^-1 T of the first factor.
        outer = small.transpose(first_scale(at))
        moved = small.product(small.product(outer, inner), small.transpose(outer))
        out[tables.first] = at.E + moved
        return out

    def _squares(self, places: IntArray, columns: SparseMatrix | None) -> FloatArray:
        """X'X of each level, X = R^-1 times its columns of a matrix, or of the identity: (k, k, J)."""
        k, J = places.shape
        out = np.empty((k, k, J))
        step = max(1, _COLUMNS // k)
        for start in range(0, J, step):
            own = places[:, start : start + step]
            flat, first = own.ravel(), 0
            if columns is None:
                right = np.zeros((self.tiles.size, flat.size))
                right[flat, np.arange(flat.size)] = 1.0
                first = int(flat.min())
            else:
                right = columns[:, flat].toarray()
            X = self.tiles.forward(right, first).reshape(self.tiles.size, k, -1)
            out[:, :, start : start + step] = np.einsum("qaj,qbj->abj", X, X)
            tick("columns", flat.size)
        return out


def _lower_times(tiles: TiledCholesky, x: FloatArray) -> FloatArray:
    """R x."""
    out = np.zeros_like(x)
    for place, own in zip(tiles.places, tiles.rows, strict=True):
        out[place] = own.astype(np.float64) @ x[: place.stop]
    return out


def _levels_of(tables: CrossedTables) -> IntArray:
    """A number of its own for each level, of the rows of S."""
    out, start = [], 0
    for t in tables.rest:
        factor = tables.factors[t]
        out.append(np.tile(np.arange(start, start + factor.n_levels), factor.n_columns))
        start += factor.n_levels
    return np.concatenate(out)


def _scaled_columns(at: CrossedAt, t: int) -> FloatArray:
    """Lambda L'^-1 of each level, (k, k, J)."""
    # L^-1 = L'P^-1, P = L L'.
    inverse = small.product(small.transpose(at.roots[t]), at.inverses[t])
    return small.left(at.T[t], small.transpose(inverse))


def first_scale(at: CrossedAt) -> FloatArray:
    """C^-1 T' of each level of the first factor, (k, k, J)."""
    tables = at.tables
    T, A = at.T[tables.first], tables.cross.diagonal[tables.first]
    M = small.congruence(T, A)
    k = M.shape[0]
    M[np.arange(k), np.arange(k)] += 1.0
    inverse = np.linalg.inv(np.linalg.cholesky(M.transpose(2, 0, 1))).transpose(1, 2, 0)
    return np.asarray(small.right(inverse, T.T))


def _first_rows(at: CrossedAt) -> SparseMatrix:
    """F', (q, k J): rows of S, columns of the first factor."""
    tables = at.tables
    left = first_scale(at)
    blocks = []
    for t in tables.rest:
        rows, columns, values = tables.blocks_of(tables.first, t)
        moved = small.product(small.product(left[:, :, rows], values), _scaled_columns(at, t)[:, :, columns])
        blocks.append(_assembled(tables, t, tables.first, columns, rows, small.transpose(moved)))
    return sparse.vstack(blocks, format="csr")


def _beside(at: CrossedAt) -> SparseMatrix | None:
    """What the other factors share with each other, in the columns of A; None where there is but one."""
    tables = at.tables
    if len(tables.rest) < 2:
        return None
    whole: list[list[Any]] = [[None] * len(tables.rest) for _ in tables.rest]
    for i, s in enumerate(tables.rest):
        for j, t in enumerate(tables.rest):
            if i == j:
                whole[i][j] = sparse.csr_array((tables.factors[s].size,) * 2)
                continue
            rows, columns, values = tables.blocks_of(s, t)
            left = small.transpose(_scaled_columns(at, s))
            moved = small.product(small.product(left[:, :, rows], values), _scaled_columns(at, t)[:, :, columns])
            whole[i][j] = _assembled(tables, s, t, rows, columns, moved)
    return sparse.block_array(whole, format="csr")


def _assembled(
    tables: CrossedTables, s: int, t: int, rows: IntArray, columns: IntArray, values: FloatArray
) -> SparseMatrix:
    """Blocks (k_s, k_t, E) as a matrix of rows of one factor and columns of another."""
    J, K = tables.factors[s].n_levels, tables.factors[t].n_levels
    parts = [
        [
            sparse.coo_array((values[a, b], (rows, columns)), shape=(J, K)).tocsr()
            for b in range(tables.factors[t].n_columns)
        ]
        for a in range(tables.factors[s].n_columns)
    ]
    return parts[0][0] if values.shape[:2] == (1, 1) else sparse.block_array(parts, format="csr")
