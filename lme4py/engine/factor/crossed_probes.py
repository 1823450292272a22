"""Log-determinants of crossed effects and their derivatives by random probes.

With S = I + Lambda'K Lambda of `lme4py.engine.factor.crossed`, P = L L' its blocks of one level each, and for each
probe z of random signs

    w = L'^-1 z,      x = S^-1 L z,      E[w w'] = P^-1,      E[x w'] = S^-1,

log|S| = log|P| + E[z'(log(A) - A + I)z], A = L^-1 S L'^-1 with a diagonal of ones, and the derivatives in the
covariances are linear in the blocks of one level of S^-1,

    of other factors:     T^-T (J I - Q) T^-1,       Q = sum over levels of [P^-1] + E[(x - x0) w'],
    of the first factor:  sum of [R A_11] - [F P^-1 F'] - E[F (x - w) (F w)'],      F = R A_12 Lambda,

with x0 = 2 w - P^-1 S w, whose mean is known. The derivative in the weights of the rows, along Q = Z'dW Z, is

    tr(Lambda M^-1 Lambda' Q) = tr(E Q_11) + [w'Q w] + E[(x - w)'Q w],

with x and w continued to the first factor by -E A_12 Lambda; the mean of w'Q w needs P^-1 only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit

from lme4py.chunks import chunk
from lme4py.engine.factor.crossed import CrossedAt, CrossedTables
from lme4py.engine.factor.crossproducts import Factor
from lme4py.linalg import small
from lme4py.linalg.iterative import Solved, conjugate_gradients, random_signs
from lme4py.linalg.types import FloatArray

__all__ = [
    "MOST_ITERATIONS",
    "CrossedProbes",
    "Probed",
    "WeightChange",
    "probe_systems",
    "small_sample",
    "standard_error",
    "together",
]

# Residuals of the systems of the probes.
_PROBE = 1e-5
# Probes that are solved together, and the numbers of rows of the first factor that they may have.
_TOGETHER, _NUMBERS = chunk(24, 3), chunk(1_400_000, 120)
# Steps towards the farthest directions.
_POWERS = 3
# Iterations after which a system counts as unsolvable.
MOST_ITERATIONS = 2000


class WeightChange(NamedTuple):
    """Z'dW Z along one direction, by blocks.

    Attributes
    ----------
    diagonal : sequence of ndarray, each (k, k, J)
    edges : mapping of (int, int) to ndarray, each (k_s, k_t, E)
        Values of the pattern of the cross-products.
    """

    diagonal: Sequence[FloatArray]
    edges: Mapping[tuple[int, int], FloatArray]


@dataclass(frozen=True)
class Probed:
    """What single probes say: the mean estimates, the scatter tells how well.

    Attributes
    ----------
    log_det : ndarray, shape (B,)
        log|M|.
    G : list of ndarray, each (B, k, k)
        Its derivative in the covariance of each grouping factor.
    along : ndarray, shape (B, r)
        Its derivative along changes of the weights.
    iterations : int
    """

    log_det: FloatArray
    G: list[FloatArray]
    along: FloatArray
    iterations: int


class CrossedProbes:
    """Probes of one seed.

    Parameters
    ----------
    size : int
        Rows of S.
    seed : int

    Attributes
    ----------
    directions : ndarray, shape (q, r)
        Directions that probes leave out: what they add is computed exactly.
    """

    def __init__(self, size: int, seed: int) -> None:
        self.size, self.seed = size, seed
        self.directions = np.zeros((size, 0))

    def learn_directions(self, at: CrossedAt, count: int) -> None:
        """Directions in which the preconditioned matrix is farthest from the identity (Hutch++).

        What they add is then computed exactly (Meyer, Musco, Musco & Woodruff 2021). They need not be exact
        eigenvectors, so that those of one matrix serve for others.

        Parameters
        ----------
        at : CrossedAt
        count : int
        """
        # Seeds of the directions and of the probes are apart: given the directions the probes are independent.
        V = random_signs(self.size, min(count, self.size), self.seed + 2**32)
        step = together(at)
        for _ in range(_POWERS):
            V = np.linalg.qr(V)[0]
            for start in range(0, V.shape[1], step):
                V[:, start : start + step] -= at.whitened(V[:, start : start + step])
        self.directions = np.linalg.qr(V)[0]

    def probe(self, at: CrossedAt, count: int, changes: Sequence[WeightChange] = ()) -> Probed:
        """What the first probes say.

        Parameters
        ----------
        at : CrossedAt
        count : int
        changes : sequence of WeightChange
            Directions in which the weights change.
        """
        total, own, along = _known(at, changes)
        r = self.directions.shape[1]
        parts = [_columns(at, z, changes) for z in self.batches(at, 0, r + count)]
        log_det = np.concatenate([part.log_det for part in parts])
        G = [np.concatenate([part.G[f] for part in parts]) for f in range(len(own))]
        # Directions are added to what every probe says.
        G = [a + g[:r].sum(axis=0) + g[r:] for a, g in zip(own, G, strict=True)]
        moved = np.concatenate([part.along for part in parts])
        moved = along + moved[:r].sum(axis=0) + moved[r:]
        return Probed(total + log_det[:r].sum() + log_det[r:], G, moved, max(part.iterations for part in parts))

    def batches(self, at: CrossedAt, start: int, stop: int) -> Iterator[FloatArray]:
        """Directions, and after the last of them random signs without these directions, some at a time.

        Parameters
        ----------
        at : CrossedAt
        start, stop : int
            Numbers of the columns.
        """
        step = together(at)
        for own in range(start, stop, step):
            yield self._columns(own, min(own + step, stop))

    def _columns(self, start: int, stop: int) -> FloatArray:
        V = self.directions
        r = V.shape[1]
        first = max(start - r, 0)
        z = random_signs(self.size, max(stop - r - first, 0), self.seed, first)
        return np.hstack([V[:, start:stop], z - V @ (V.T @ z)])


def together(at: CrossedAt) -> int:
    """Columns at one time: rows of the first factor are the largest arrays.

    Parameters
    ----------
    at : CrossedAt
    """
    return min(_TOGETHER, max(4, _NUMBERS // at.tables.factors[at.tables.first].size))


def _known(at: CrossedAt, changes: Sequence[WeightChange]) -> tuple[float, list[FloatArray], FloatArray]:
    """What log|M| and its derivatives would be if the blocks of one level each were all of S."""
    tables = at.tables
    G: list[FloatArray] = [np.empty(0)] * len(tables.factors)
    for t in tables.rest:
        factor, inverse = tables.factors[t], np.linalg.inv(at.T[t])
        Q = at.inverses[t].sum(axis=2)
        G[t] = inverse.T @ (factor.n_levels * np.eye(factor.n_columns) - Q) @ inverse
    R = at.residual_map
    blocks = small.product(R, tables.cross.diagonal[tables.first])
    inner = {t: at.diagonal_inverse(t) for t in tables.rest}
    through: FloatArray = np.sum([tables.blocks(tables.first, t, inner[t]) for t in tables.rest], axis=0)
    blocks = blocks - small.product(small.product(R, through), small.transpose(R))
    total = blocks.sum(axis=2)
    G[tables.first] = 0.5 * (total + total.T)
    along = np.array([_known_along(at, change, inner, through) for change in changes])
    return at.log_det, G, along


def _known_along(at: CrossedAt, change: WeightChange, inner: Mapping[int, FloatArray], through: FloatArray) -> float:
    """The derivative along a change of the weights if S were its blocks of one level each."""
    tables, E, first = at.tables, at.E, at.tables.first
    own = change.diagonal[first]
    total = _trace(E, own) + _trace(small.product(small.product(E, own), E), through)
    for t in tables.rest:
        total += _trace(inner[t], change.diagonal[t])
        crossed = tables.blocks(first, t, inner[t], tables.oriented(change.edges, first, t))
        total -= 2.0 * _trace(E, crossed)
    return total


def _trace(a: FloatArray, b: FloatArray) -> float:
    """Sum over levels of tr(a_j b_j), a symmetric."""
    return float(np.einsum("abj,abj->", a, b))


def probe_systems(at: CrossedAt, z: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, Solved]:
    """x, w and x0 for columns z, and the solution that x is.

    Parameters
    ----------
    at : CrossedAt
    z : ndarray, shape (q, c)
    """
    left, w = at.rooted(z)
    found = conjugate_gradients(at.apply, at.precondition, left, _PROBE, None, MOST_ITERATIONS)
    return found.x, w, 2.0 * w - at.precondition(found.first), found


def _columns(at: CrossedAt, z: FloatArray, changes: Sequence[WeightChange]) -> Probed:
    """What is to be added for single columns z."""
    tables, count = at.tables, z.shape[1]
    x, w, x0, found = probe_systems(at, z)
    change = x - x0
    G: list[FloatArray] = [np.empty(0)] * len(tables.factors)
    for t in tables.rest:
        inverse = np.linalg.inv(at.T[t])
        moved = _products(change[tables.slices[t]], w[tables.slices[t]], tables.factors[t])
        G[t] = -inverse.T @ moved @ inverse
    effects = [at.to_effects(own) for own in (x - w, w)]
    into = [tables.into_first(own) for own in effects]
    G[tables.first] = -_products(at.swept(into[0]), at.swept(into[1]), tables.factors[tables.first])
    along = np.zeros((count, len(changes)))
    if changes:
        whole = tables.by_factor(-at.eliminate(np.hstack(into)), np.hstack(effects))
        for i, own in enumerate(changes):
            along[:, i] = _form(tables, own, whole, count)
    return Probed(found.log_moments[:count], G, along, found.iterations)


def _form(tables: CrossedTables, change: WeightChange, whole: Sequence[FloatArray], count: int) -> FloatArray:
    """x'Q w for the columns of x and w, which stand side by side in `whole`, shape (count,)."""
    out = np.zeros(count)
    for factor, Q, own in zip(tables.factors, change.diagonal, whole, strict=True):
        x, w = own[:, :count], own[:, count:].reshape(factor.n_columns, factor.n_levels, -1)
        out += np.einsum("ic,ic->c", x, small.apply(Q, w).reshape(x.shape))
    for (s, t), values in change.edges.items():
        moved = tables.off(s, t, whole[t], values)
        out += np.einsum("ic,ic->c", whole[s][:, :count], moved[:, count:])
        out += np.einsum("ic,ic->c", whole[s][:, count:], moved[:, :count])
    return out


def _products(a: FloatArray, b: FloatArray, factor: Factor) -> FloatArray:
    """Sum over levels of the symmetric part of a_j b_j' for each column, (c, k, k)."""
    shape = (factor.n_columns, factor.n_levels, a.shape[1])
    out = np.einsum("ajc,bjc->cab", a.reshape(shape), b.reshape(shape))
    return np.asarray(0.5 * (out + out.transpose(0, 2, 1)))


def standard_error(values: FloatArray) -> float:
    """Of the mean of independent values, the scatter of few of them enlarged by `small_sample`."""
    count = values.size
    return float(values.std(ddof=1) * small_sample(count) / np.sqrt(count)) if count > 1 else np.inf


def small_sample(count: int) -> float:
    """How much longer the interval of a mean of few values is: a user takes twice the standard error for 95 %."""
    return float(stdtrit(count - 1, 0.975) / stdtrit(np.inf, 0.975))
