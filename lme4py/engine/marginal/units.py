"""Independent units of a model, in batches of one size, with those that share their covariance in one class."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from lme4py.chunks import chunk
from lme4py.engine.marginal.model import MarginalModel
from lme4py.errors import DesignError
from lme4py.linalg.types import BoolArray, FloatArray, IntArray

__all__ = ["MOST_ROWS", "Batch", "make_batches", "unit_codes"]

# A unit of more rows takes minutes.
MOST_ROWS = 4000
# Numbers in the largest array of a batch.
_BATCH = chunk(4_000_000)
# From so many units of a class on their sums of products are made, in blocks of rows.
_MANY, _ROWS = 2_000, chunk(50_000)


@dataclass(frozen=True)
class Batch:
    """Units of s rows each, by classes of units with the same covariance.

    Attributes
    ----------
    points : ndarray, shape (C, s) or (C, s, d)
    stratum : ndarray of int, shape (C, s)
    same : ndarray of bool, shape (C, s, s)
        Rows of one subject.
    log_scale : ndarray, shape (C, s, r)
    base_scale : ndarray, shape (C, s)
        1 / sqrt(w).
    Z : tuple of ndarray, each (C, s, k)
    same_level : tuple of ndarray of bool, each (C, s, s)
    count : ndarray, shape (C,)
        Units of each class.
    data : ndarray, shape (R, s, p + 1)
        Columns X, y of each unit; or of fewer made-up units of the class with the same sums of products.
    of_class : ndarray of int, shape (R,)
        In ascending order.
    rows : ndarray of int, shape (N, s)
        Rows of all units, ordered by class.
    unit_class : ndarray of int, shape (N,)
    """

    points: FloatArray
    stratum: IntArray
    same: BoolArray
    log_scale: FloatArray
    base_scale: FloatArray
    Z: tuple[FloatArray, ...]
    same_level: tuple[BoolArray, ...]
    count: FloatArray
    data: FloatArray
    of_class: IntArray
    rows: IntArray
    unit_class: IntArray

    @property
    def size(self) -> int:
        """Rows of a unit, s."""
        return int(self.rows.shape[1])

    def by_class(self, values: FloatArray) -> FloatArray:
        """Sums over the units of each class, (R, ...) -> (C, ...)."""
        if len(values) == len(self.count):
            return values
        starts = np.searchsorted(self.of_class, np.arange(len(self.count)))
        return np.asarray(np.add.reduceat(values, starts, axis=0))


def unit_codes(model: MarginalModel) -> IntArray:
    """Unit of each row, shape (n,): rows that share a subject or a level, directly or through others."""
    codes = [model.residual.subject, *(part.codes for part in model.random)]
    n = codes[0].size
    current = np.unique(codes[0], return_inverse=True)[1]
    for other in codes[1:]:
        nodes = int(current.max()) + 1
        graph = sparse.coo_array((np.ones(n), (current, nodes + other)), shape=(nodes + int(other.max()) + 1,) * 2)
        current = connected_components(graph, directed=False)[1][current]
        current = np.unique(current, return_inverse=True)[1]
    found: IntArray = current.astype(np.intp)
    return found


def make_batches(model: MarginalModel) -> list[Batch]:
    """The units of a model.

    Parameters
    ----------
    model : MarginalModel

    Raises
    ------
    DesignError
        A unit of too many rows.
    """
    codes = unit_codes(model)
    sizes = np.bincount(codes)
    if int(sizes.max()) > MOST_ROWS:
        raise DesignError(
            f"subjects and random effects join {int(sizes.max())} rows in one block of correlated rows; with a "
            "residual "
            f"structure blocks can have {MOST_ROWS} rows at most. Random effects that are crossed with the subjects of "
            "the residuals make large blocks: take them out, or leave the residual structure out."
        )
    order = np.lexsort((*model.residual.points.T[::-1], model.residual.subject, codes))
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    made = []
    for size in np.unique(sizes):
        rows = order[starts[sizes == size][:, None] + np.arange(size)]
        made += list(_batches_of(model, rows))
    return made


def _batches_of(model: MarginalModel, rows: IntArray) -> Iterator[Batch]:
    """Batches of units of one size, small enough for the memory."""
    n_columns = model.X.shape[1] + 1
    classes = _classes(model, rows)
    order = np.argsort(classes, kind="stable")
    rows, classes = rows[order], classes[order]
    C, s = int(classes[-1]) + 1, rows.shape[1]
    each = max(1, _BATCH // (s * max(s, n_columns) * (model.n_par + 2)))
    for first in range(0, C, each):
        ends = np.searchsorted(classes, [first, min(first + each, C)])
        yield _batch(model, rows[slice(*ends)], classes[slice(*ends)] - first)


def _classes(model: MarginalModel, rows: IntArray) -> IntArray:
    """Class of each unit: what its covariance is made of, compared number by number."""
    residual = model.residual
    parts = [residual.points[rows], residual.stratum[rows][..., None], residual.log_scale[rows]]
    parts.append(_places(residual.subject[rows])[..., None])
    if residual.weights is not None:
        parts.append(residual.weights[rows][..., None])
    for part in model.random:
        parts += [part.values[rows], _places(part.codes[rows])[..., None]]
    key = np.concatenate([np.asarray(p, dtype=float).reshape(len(rows), -1) for p in parts], axis=1)
    key = np.ascontiguousarray(key + 0.0)  # no negative zeros
    as_bytes = key.view(np.dtype((np.void, key.dtype.itemsize * key.shape[1]))).ravel()
    found: IntArray = np.unique(as_bytes, return_inverse=True)[1].ravel().astype(np.intp)
    return found


def _places(codes: IntArray) -> IntArray:
    """For each row the first row of its unit with the same code, (N, s)."""
    places: IntArray = np.argmax(codes[:, :, None] == codes[:, None, :], axis=2)
    return places


def _batch(model: MarginalModel, rows: IntArray, classes: IntArray) -> Batch:
    first = rows[np.searchsorted(classes, np.arange(int(classes[-1]) + 1))]
    residual = model.residual
    points = residual.points[first]
    weights = np.ones(first.shape) if residual.weights is None else residual.weights[first]
    data, of_class = _made_up(np.concatenate([model.X, model.y[:, None]], axis=1), rows, classes)
    return Batch(
        points=points[..., 0] if points.shape[-1] == 1 else points,
        stratum=residual.stratum[first],
        same=_equal(residual.subject[first]),
        log_scale=residual.log_scale[first],
        base_scale=1.0 / np.sqrt(weights),
        Z=tuple(part.values[first] for part in model.random),
        same_level=tuple(_equal(part.codes[first]) for part in model.random),
        count=np.bincount(classes).astype(float),
        data=data,
        of_class=of_class,
        rows=rows,
        unit_class=classes,
    )


def _equal(codes: IntArray) -> BoolArray:
    same: BoolArray = codes[:, :, None] == codes[:, None, :]
    return same


def _made_up(D: FloatArray, rows: IntArray, classes: IntArray) -> tuple[FloatArray, IntArray]:
    """The units' data, (R, s, q), with fewer units where a class has many.

    All that the likelihood needs of the N units of a class are the sums of products of all pairs of their s q numbers:
    those of the rows of the triangular factor of the N x (s q) matrix, which is no larger than s q x s q.
    """
    ends = np.searchsorted(classes, np.arange(int(classes[-1]) + 2))
    s, q = rows.shape[1], D.shape[1]
    parts, of_class = [], []
    if int(np.diff(ends).max()) <= 2 * q:
        return D[rows], classes
    for c, (a, b) in enumerate(pairwise(ends)):
        own = D[rows[a:b]]
        if b - a > 2 * q:
            own = _triangle(own.reshape(b - a, s * q)).reshape(-1, s, q)
        parts.append(own)
        of_class.append(np.full(len(own), c, dtype=np.intp))
    return np.concatenate(parts), np.concatenate(of_class)


def _triangle(M: FloatArray) -> FloatArray:
    """Rows with the same sums of products as those of M, as few as its rank.

    Of many rows the sums of products themselves are made: the likelihood is computed from such sums anyway.
    """
    used = np.flatnonzero(M.any(axis=0))
    out: FloatArray = np.zeros((min(len(M), used.size), M.shape[1]))
    if len(M) < _MANY:
        out[:, used] = np.linalg.qr(M[:, used], mode="r")
        return out
    G = np.zeros((used.size, used.size))
    for first in range(0, len(M), _ROWS):
        block = M[first : first + _ROWS][:, used]
        G += block.T @ block
    sizes, vectors = np.linalg.eigh(G)
    kept = sizes > 1e-15 * sizes[-1]
    out = out[: int(kept.sum())]
    out[:, used] = np.sqrt(sizes[kept])[:, None] * vectors[:, kept].T
    return out
