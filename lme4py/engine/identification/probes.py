"""The inner products of the directions of V by random probes, where levels of a grouping factor are related.

The matrices of the directions are then Z (K (x) E) Z', without the blocks that `lme4py.engine.identification.gram` sums
over. With columns z of independent standard normal numbers, V_p z and V_q z have the inner product tr(V_p V_q) in
expectation, and a combination of the directions that vanishes for them vanishes altogether, with probability one: what
is not identified is found without error, and the traces of a start by moments with an error that does not matter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lme4py.chunks import chunk
from lme4py.engine.factor.crossproducts import CrossProducts, Factor, ModelBlock, accumulate
from lme4py.engine.identification.gram import Direction, VarianceGram, variance_directions, variance_gram
from lme4py.linalg import small
from lme4py.linalg.types import FloatArray, sparse

__all__ = ["Probes", "gram_of", "make_probes"]

_COUNT, _SEED = 40, 0
# Effects times probes that are worked on at one time: there are several such tables for each pair of directions.
_ELEMENTS = chunk(4_000_000)


@dataclass(frozen=True)
class Probes:
    """Products of the model's columns with r columns z / sqrt(w) of the rows, z standard normal.

    Attributes
    ----------
    random : tuple of ndarray, each (k, J, r)
        Z'W^1/2 z.
    fixed : ndarray, shape (p, r)
        X'W^1/2 z.
    own : ndarray, shape (r, r)
        z'z.
    """

    random: tuple[FloatArray, ...]
    fixed: FloatArray
    own: FloatArray


def make_probes(factors: tuple[Factor, ...], blocks: Callable[[], Iterable[ModelBlock]]) -> Probes | None:
    """Probes of a model with related levels; None where all are independent.

    Parameters
    ----------
    factors : tuple of Factor
    blocks : callable
        Gives the blocks of rows; their last column is not used.
    """
    if all(factor.relation is None for factor in factors):
        return None
    cross = accumulate(_with_probes(blocks()), factors)
    p = cross.corner.shape[0] - _COUNT
    random = tuple(B[:, :, p:] for B in cross.border)
    return Probes(random, cross.corner[:p, p:], cross.corner[p:, p:])


def _with_probes(blocks: Iterable[ModelBlock]) -> Iterator[ModelBlock]:
    rng = np.random.default_rng(_SEED)
    for block in blocks:
        z = rng.standard_normal((block.XY.shape[0], _COUNT))
        if block.weights is not None:
            root = np.sqrt(block.weights)[:, None]
            z = np.divide(z, root, out=np.zeros_like(z), where=root > 0.0)
        yield replace(block, XY=np.hstack([block.XY[:, :-1], z]))


def gram_of(
    factors: tuple[Factor, ...],
    bases: Sequence[FloatArray],
    cross: CrossProducts,
    probes: Probes | None,
    size: float | None = None,
) -> VarianceGram:
    """The inner products, exactly where all levels are independent, and by probes where they are not.

    Parameters
    ----------
    factors, bases, cross, size
        As in `lme4py.engine.identification.gram.variance_gram`.
    probes : Probes or None
    """
    if probes is None:
        return variance_gram(factors, bases, cross, size)
    size = float(cross.n_obs) if size is None else size
    directions = variance_directions(factors, bases)
    p = probes.fixed.shape[0]
    gone = probes.fixed / size
    border = [B[:, :, :p] for B in cross.border]
    kept = [g - ZX @ gone for g, ZX in zip(probes.random, border, strict=True)]
    plain = _products(factors, directions, cross, list(probes.random), probes.own, None, size)
    left = probes.own - probes.fixed.T @ gone
    projected = _products(factors, directions, cross, kept, left, border, size)
    sums = [diagonal.sum(axis=2) for diagonal in cross.diagonal]
    totals = {
        t: total[c, c] for f, total in zip(factors, sums, strict=True) for t, c in zip(f.terms, f.columns, strict=True)
    }
    return VarianceGram(directions, plain, projected, tuple(totals[t] for t in sorted(totals)))


def _products(
    factors: tuple[Factor, ...],
    directions: tuple[Direction, ...],
    cross: CrossProducts,
    g: list[FloatArray],
    own: FloatArray,
    border: list[FloatArray] | None,
    size: float,
) -> FloatArray:
    """(V_p z)'(V_q z) averaged over the probes, z itself last; without X where its products with Z are given."""
    r, m = own.shape[0], len(directions)
    step = max(1, _ELEMENTS // max(factor.size for factor in factors))
    out = np.zeros((m + 1, m + 1))
    for start in range(0, r, step):
        some = [np.ascontiguousarray(values[:, :, start : start + step]) for values in g]
        out += _sums(factors, directions, cross, some, border, size)
    out[m, m] = np.trace(own)
    average: FloatArray = out / r
    return average


def _sums(
    factors: tuple[Factor, ...],
    directions: tuple[Direction, ...],
    cross: CrossProducts,
    g: list[FloatArray],
    border: list[FloatArray] | None,
    size: float,
) -> FloatArray:
    """The same sums of some probes, without that of z itself."""
    moved = [_moved(factors, direction, g) for direction in directions]
    m = len(directions)
    out = np.zeros((m + 1, m + 1))
    XZ = [] if border is None else [_onto(border[d.factor], h) for d, h in zip(directions, moved, strict=True)]
    for j, direction in enumerate(directions):
        applied = _applied(factors, cross, direction.factor, moved[j])
        for i in range(j, m):
            value = np.vdot(moved[i], applied[directions[i].factor])
            if border is not None:
                value -= np.vdot(XZ[i], XZ[j]) / size
            out[i, j] = out[j, i] = value
        out[j, m] = out[m, j] = np.vdot(moved[j], g[direction.factor])
    return out


def _moved(factors: tuple[Factor, ...], direction: Direction, g: list[FloatArray]) -> FloatArray:
    """(K (x) E) g, (k, J, r)."""
    h = np.tensordot(direction.E, g[direction.factor], axes=1)
    return factors[direction.factor].along(h)


def _onto(border: FloatArray, h: FloatArray) -> FloatArray:
    """X'WZ h, (p, r)."""
    return np.tensordot(border, h, axes=([0, 1], [0, 1]))


def _applied(factors: tuple[Factor, ...], cross: CrossProducts, f: int, h: FloatArray) -> dict[int, FloatArray]:
    """Z_g'WZ_f h for all factors g, each (k, J, r)."""
    out = {f: small.apply(cross.diagonal[f], h)}
    for (s, t), edges in cross.edges.items():
        if f not in (s, t):
            continue
        other = t if f == s else s
        rows, columns = (edges.columns, edges.rows) if f == s else (edges.rows, edges.columns)
        values = edges.values.swapaxes(0, 1) if f == s else edges.values
        shape = (factors[other].n_levels, factors[f].n_levels)
        total = np.zeros((values.shape[0], shape[0], h.shape[2]))
        for a in range(values.shape[0]):
            for b in range(values.shape[1]):
                total[a] += sparse.coo_array((values[a, b], (rows, columns)), shape=shape).tocsr() @ h[b]
        out[other] = total
    return out
