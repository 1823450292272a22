"""What the data leave of the effects of each level, by probes or by an exact factor: blocks of Lambda M^-1 Lambda'.

With x and w of `lme4py.engine.factor.crossed_probes`, E[x w'] = S^-1. Of other factors the block of a level is

    Lambda P^-1 Lambda' + E[Lambda (x - x0) w'Lambda'],

and of the first E + F P^-1 F' + E[F (x - w) (F w)'], F = E A_12 Lambda. Since the inverse of a positive definite matrix
is never smaller than that of its blocks, what is added to Lambda P^-1 Lambda' and to E is never negative, and where
probes say so they err.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lme4py.chunks import row_blocks
from lme4py.engine.factor.crossed import CrossedAt
from lme4py.engine.factor.crossed_factor import CrossedFactor
from lme4py.engine.factor.crossed_probes import (
    MOST_ITERATIONS,
    CrossedProbes,
    probe_systems,
    small_sample,
    together,
)
from lme4py.linalg import small
from lme4py.linalg.iterative import conjugate_gradients
from lme4py.linalg.types import FloatArray, IntArray
from lme4py.progress import announce, tick

__all__ = ["LevelBlocks", "effects_of", "exact_blocks", "probed_blocks", "row_variances"]

# Wanted relative error of a standard deviation (root mean square over the effects); probes that are asked for it.
_WANTED, _FIRST, _MOST = 0.005, 32, 1024
# Directions that are computed exactly.
_DIRECTIONS = 64


@dataclass(frozen=True)
class LevelBlocks:
    """Blocks of one level each.

    Attributes
    ----------
    blocks : tuple of ndarray, each (k, k, J)
        By factor.
    errors : tuple of ndarray, each (k, J)
        Standard errors of the standard deviations, relative; zeros of an exact factor.
    probes, directions : int
        How they were found; zeros of an exact factor.
    """

    blocks: tuple[FloatArray, ...]
    errors: tuple[FloatArray, ...]
    probes: int
    directions: int

    def plus(self, moved: Sequence[FloatArray]) -> LevelBlocks:
        """The same with the outer products of the rows of each level more.

        Parameters
        ----------
        moved : sequence of ndarray, each (k J, p)
            Exact, so that errors become smaller.
        """
        rows = [own.reshape(*blocks.shape[1:], -1) for own, blocks in zip(moved, self.blocks, strict=True)]
        blocks = tuple(own + np.einsum("ajp,bjp->abj", r, r) for own, r in zip(self.blocks, rows, strict=True))
        errors = tuple(
            error * np.einsum("aaj->aj", own) / np.maximum(np.einsum("aaj->aj", more), np.finfo(float).tiny)
            for error, own, more in zip(self.errors, self.blocks, blocks, strict=True)
        )
        return LevelBlocks(blocks, errors, self.probes, self.directions)

    @property
    def error(self) -> float:
        """Root mean square of the relative errors, of the factor where it is largest."""
        return max(float(np.sqrt(np.mean(own**2))) for own in self.errors)

    @property
    def is_rough(self) -> bool:
        """Whether the most probes leave a larger error than is wanted."""
        return self.error > _WANTED

    def __str__(self) -> str:
        if not self.probes:
            return "Standard deviations are those of an exact factor."
        largest = max(float(own.max()) for own in self.errors)
        return (
            f"Standard deviations are means over {self.probes} random probes beside {self.directions} exact "
            f"directions: their Monte-Carlo standard error is {100.0 * self.error:.2g} % (root mean square), at most "
            f"{100.0 * largest:.2g} %."
        )


def probed_blocks(at: CrossedAt, seed: int = 0) -> LevelBlocks:
    """By probes, until a standard deviation is known to half a per cent or there are a thousand.

    Parameters
    ----------
    at : CrossedAt
    seed : int
    """
    tables = at.tables
    probes = CrossedProbes(tables.size, seed)
    probes.learn_directions(at, _DIRECTIONS)
    r = probes.directions.shape[1]
    lowest, known = _known(at)
    sums = [np.zeros_like(own) for own in known]
    squares = [np.zeros(own.shape[1:]) for own in known]
    for z in probes.batches(at, 0, r):
        for total, own in zip(known, _products(at, z), strict=True):
            total += own.sum(axis=3)
    count, wanted = 0, _FIRST
    while True:
        for z in probes.batches(at, r + count, r + wanted):
            for f, own in enumerate(_products(at, z)):
                sums[f] += own.sum(axis=3)
                squares[f] += np.einsum("aajc,aajc->aj", own, own)
        count = wanted
        blocks = tuple(low + _positive(a + b / count - low) for low, a, b in zip(lowest, known, sums, strict=True))
        errors = tuple(_errors(own, s, q, count) for own, s, q in zip(blocks, sums, squares, strict=True))
        found = LevelBlocks(blocks, errors, count, r)
        if not found.is_rough or count >= _MOST or r >= tables.size:
            return found
        # Few probes know little of their own scatter: not many times as many at once.
        wanted = min(_MOST, max(2 * count, int(np.ceil(1.1 * count * min(found.error / _WANTED, 8.0) ** 2))))


def effects_of(at: CrossedAt, gathered: FloatArray, tolerance: float) -> tuple[FloatArray, int]:
    """Lambda M^-1 Lambda' times columns, and the steps that it took.

    Parameters
    ----------
    at : CrossedAt
    gathered : ndarray, shape (Q, c)
        Rows over factors, then columns of the factor, then levels.
    tolerance : float
        Of the residuals, relative.

    Raises
    ------
    numpy.linalg.LinAlgError
        The systems are not solved.
    """
    tables = at.tables
    parts = tables.split(gathered)
    first = parts[tables.first]
    rest = np.concatenate([parts[t] for t in tables.rest])
    right = at.to_spherical(rest - tables.from_first(at.eliminate(first)))
    found = conjugate_gradients(at.apply, at.precondition, right, tolerance, None, MOST_ITERATIONS)
    if not float(found.residual.max(initial=0.0)) <= 1e3 * tolerance:
        raise np.linalg.LinAlgError("the systems of the random effects cannot be solved at this point")
    b = at.to_effects(found.x)
    own = at.eliminate(first - tables.into_first(b))
    return np.concatenate(tables.by_factor(own, b)), found.iterations


def row_variances(at: CrossedAt, codes: Sequence[IntArray], Z: Sequence[FloatArray], tolerance: float) -> FloatArray:
    """z'Lambda M^-1 Lambda'z of rows, shape (n,): a system for each level and column that a row has, some at a time.

    Parameters
    ----------
    at : CrossedAt
    codes : sequence of ndarray of int, each (n,)
        By factor.
    Z : sequence of ndarray, each (n, k)
        In the engine's columns.
    tolerance : float
        Of the residuals, relative.

    Raises
    ------
    numpy.linalg.LinAlgError
        The systems are not solved.
    """
    factors = at.tables.factors
    starts = np.cumsum([0, *(factor.size for factor in factors)])
    # Places in Z of the rows' columns, and these columns.
    places, values = [], []
    for factor, start, own_codes, own in zip(factors, starts, codes, Z, strict=False):
        for a, column in enumerate(own.T):
            places.append(start + a * factor.n_levels + own_codes.astype(np.int64))
            values.append(column)
    place, value = np.array(places), np.array(values)
    which, row = np.nonzero(value)
    order = np.argsort(place[which, row], kind="stable")
    which, row = which[order], row[order]
    units, first = np.unique(place[which, row], return_index=True)
    ends, began = np.append(first, row.size), time.monotonic()
    out = np.zeros(value.shape[1])
    for some in row_blocks(units.size, together(at)):
        own_units = units[some]
        columns = np.zeros((int(starts[-1]), own_units.size))
        columns[own_units, np.arange(own_units.size)] = 1.0
        found = effects_of(at, columns, tolerance)[0]
        part = slice(int(ends[some.start]), int(ends[some.stop]))
        j, rows = which[part], row[part]
        across = found[place[:, rows], np.searchsorted(own_units, place[j, rows])]
        np.add.at(out, rows, value[j, rows] * np.einsum("cn,cn->n", value[:, rows], across))
        tick("systems", own_units.size)
        if some.start == 0:
            announce("errors of predictions", (time.monotonic() - began) * (units.size / own_units.size - 1.0))
    return out


def exact_blocks(at: CrossedAt) -> LevelBlocks:
    """By a factor in tiles.

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
    blocks = tuple(CrossedFactor(at).level_blocks())
    return LevelBlocks(blocks, tuple(np.zeros(own.shape[1:]) for own in blocks), 0, 0)


def _known(at: CrossedAt) -> tuple[list[FloatArray], list[FloatArray]]:
    """What the blocks are at least, and what they would be if S were its blocks of one level each."""
    tables, first = at.tables, at.tables.first
    lowest = [at.E if f == first else at.diagonal_inverse(f) for f in range(len(tables.factors))]
    known = [own.copy() for own in lowest]
    through: FloatArray = np.sum([tables.blocks(first, t, lowest[t]) for t in tables.rest], axis=0)
    known[first] += small.product(small.product(at.E, through), at.E)
    return lowest, known


def _products(at: CrossedAt, z: FloatArray) -> list[FloatArray]:
    """What each column of z adds to the blocks, (k, k, J, c)."""
    tables, count = at.tables, z.shape[1]
    x, w, x0, _ = probe_systems(at, z)
    change, other, b = at.to_effects(x - x0), at.to_effects(x - w), at.to_effects(w)
    out: list[FloatArray] = [np.empty(0)] * len(tables.factors)
    for t in tables.rest:
        out[t] = _outer(change[tables.slices[t]], b[tables.slices[t]], tables.factors[t].n_columns, count)
    left, right = (at.eliminate(tables.into_first(own)) for own in (other, b))
    out[tables.first] = _outer(left, right, tables.factors[tables.first].n_columns, count)
    return out


def _outer(a: FloatArray, b: FloatArray, k: int, count: int) -> FloatArray:
    a, b = a.reshape(k, -1, count), b.reshape(k, -1, count)
    out = np.einsum("ajc,bjc->abjc", a, b)
    return np.asarray(0.5 * (out + out.transpose(1, 0, 2, 3)))


def _positive(blocks: FloatArray) -> FloatArray:
    """The nearest blocks without negative eigenvalues."""
    if blocks.shape[0] == 1:
        return np.maximum(blocks, 0.0)
    values, vectors = np.linalg.eigh(small.symmetrize(blocks).transpose(2, 0, 1))
    found = (vectors * np.maximum(values, 0.0)[:, None, :]) @ vectors.transpose(0, 2, 1)
    return np.ascontiguousarray(found.transpose(1, 2, 0))


def _errors(blocks: FloatArray, sums: FloatArray, squares: FloatArray, count: int) -> FloatArray:
    """Relative standard errors of the standard deviations, (k, J)."""
    mean = np.einsum("aaj->aj", sums) / count
    spread = np.maximum(squares / count - mean**2, 0.0) / max(count - 1, 1)
    variances = np.maximum(np.einsum("aaj->aj", blocks), np.finfo(float).tiny)
    return np.asarray(0.5 * small_sample(count) * np.sqrt(spread) / variances)
