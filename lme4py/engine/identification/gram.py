"""Inner products of the directions in which the covariance of the response can move.

V = sigma^2 W^-1 + sum_q tau_q Z E_q Z', with E_q a basis of the covariance matrices of each term. With M the projection
off X and every matrix multiplied by W^1/2 from both sides,

    plain[p, q] = tr(Z E_p Z' Z E_q Z'),      projected[p, q] = tr(M Z E_p Z' M Z E_q Z'),

the last row and column belonging to W^-1. They are the equations of the moment estimators (MINQUE with zero prior
weights; Rao 1971, J. Multivariate Anal. 1:257), and say which variances the data tell apart. Everything comes from the
cross-products: with A the blocks of Z'WZ and R = Z'WX (X'WX)^-1 X'WZ on the pattern of A,

    projected[p, q] = tr(E_p A E_q A') - 2 tr(E_p A E_q R') + tr(G_p G_q),      G = U'^-1 X'WZ E Z'WX U^-1, U'U = X'WX.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lme4py.chunks import chunk, from_size
from lme4py.engine.factor.crossproducts import CrossProducts, Factor
from lme4py.linalg import small
from lme4py.linalg.types import FloatArray

# Numbers of rows of Z'WX that are gathered at one time.
_CHUNK = chunk(2**18)
# A table of all pairs of elements of two covariances with more numbers is not made.
_LARGE_TABLE = from_size(1_000_000)


@dataclass(frozen=True)
class Direction:
    """One variance parameter: E is its matrix in the columns of the grouping factor.

    Attributes
    ----------
    term, factor : int
    E : ndarray, shape (k, k)
    own : ndarray
        The part of E in the columns of the term.
    diagonal : bool
        Whether it is a variance, which may not be negative.
    """

    term: int
    factor: int
    E: FloatArray
    own: FloatArray
    diagonal: bool


@dataclass(frozen=True)
class VarianceGram:
    """Inner products of the directions; W^-1 is the last one.

    Attributes
    ----------
    directions : tuple of Direction
        m of them.
    plain, projected : ndarray, shape (m + 1, m + 1)
    totals : tuple of ndarray, each (k, k)
        Z'WZ of the columns of each term, summed over its groups.
    """

    directions: tuple[Direction, ...]
    plain: FloatArray
    projected: FloatArray
    totals: tuple[FloatArray, ...]


def variance_directions(factors: tuple[Factor, ...], bases: Sequence[FloatArray]) -> tuple[Direction, ...]:
    """The directions of the covariances of all terms in the columns of their grouping factors.

    Parameters
    ----------
    factors : tuple of Factor
    bases : sequence of ndarray, each (d, k, k)
        Of each term, in the engine's columns.
    """
    out = []
    for f, factor in enumerate(factors):
        for term, columns in _columns_of(factor):
            for own in bases[term]:
                E = np.zeros((factor.n_columns, factor.n_columns))
                E[columns, columns] = own
                out.append(Direction(term, f, E, own, bool(own.trace() > 0)))
    return tuple(out)


def variance_gram(
    factors: tuple[Factor, ...], bases: Sequence[FloatArray], cross: CrossProducts, size: float | None = None
) -> VarianceGram:
    """The inner products of a model.

    Parameters
    ----------
    factors : tuple of Factor
    bases : sequence of ndarray, each (d, k, k)
        Directions of the covariance of each term, in the engine's columns.
    cross : CrossProducts
        The columns of X orthonormal up to rounding: X'WX = `size` I.
    size : float, optional
        tr(I) in the metric of W: the number of rows, or of trials where a row stands for several.
    """
    directions = variance_directions(factors, bases)
    m, p = len(directions), cross.corner.shape[0] - 1
    size = float(cross.n_obs) if size is None else size
    plain, mixed = np.zeros((m + 1, m + 1)), np.zeros((m + 1, m + 1))
    places = [np.array([i for i, d in enumerate(directions) if d.factor == f], np.intp) for f in range(len(factors))]
    stacks = [
        np.array([directions[i].E for i in own]).reshape(own.size, factor.n_columns**2)
        for own, factor in zip(places, factors, strict=True)
    ]
    for (f, g), A, R in _blocks(cross, p):
        for out, B in ((plain, A), (mixed, R)):
            if B is not None:
                part = _products_of(stacks[f], A, stacks[g], B)
                out[places[f][:, None], places[g]] += part
                if f != g:
                    out[places[g][:, None], places[f]] += part.T
    sums = [diagonal.sum(axis=2) for diagonal in cross.diagonal]
    for own, E, total in zip(places, stacks, sums, strict=True):
        plain[own, m] = plain[m, own] = E @ total.ravel()
    plain[m, m] = size
    totals = {t: total[c, c] for f, total in zip(factors, sums, strict=True) for t, c in _columns_of(f)}
    projected = _projected(plain, mixed, directions, cross, size)
    return VarianceGram(directions, plain, projected, tuple(totals[t] for t in sorted(totals)))


def _columns_of(factor: Factor) -> Iterator[tuple[int, slice]]:
    return zip(factor.terms, factor.columns, strict=True)


def _projected(
    plain: FloatArray, mixed: FloatArray, directions: tuple[Direction, ...], cross: CrossProducts, size: float
) -> FloatArray:
    p, m = cross.corner.shape[0] - 1, len(directions)
    if p == 0:
        return plain
    grams = _fixed_grams(directions, cross, p).reshape(m, p * p)
    out = plain - 2.0 * mixed / size
    out[:m, :m] += grams @ grams.T / size**2
    out[:m, m] -= grams[:, :: p + 1].sum(axis=1) / size
    out[m, :m] = out[:m, m]
    out[m, m] = size - p
    return out


def _blocks(cross: CrossProducts, p: int) -> Iterator[tuple[tuple[int, int], FloatArray, FloatArray | None]]:
    """Blocks of Z'WZ, and of Z'WX X'WZ at the same places, each (k, l, number of blocks), some at a time."""
    for f, A in enumerate(cross.diagonal):
        own = cross.border[f][:, :, :p]
        yield (f, f), A, np.einsum("ajp,bjp->abj", own, own) if p else None
    for (s, t), edges in cross.edges.items():
        step = max(1, _CHUNK // max(p, 1))
        for start in range(0, edges.values.shape[2], step):
            place = slice(start, start + step)
            rows, columns = edges.levels(place)
            own, other = cross.border[s][:, rows, :p], cross.border[t][:, columns, :p]
            yield (s, t), edges.values[:, :, place], np.einsum("ajp,bjp->abj", own, other) if p else None


def _products_of(left: FloatArray, A: FloatArray, right: FloatArray, B: FloatArray) -> FloatArray:
    """tr(E A D B') summed over blocks for all E and D, flattened rows of `left` and `right`."""
    k, m, _ = A.shape
    if k * k * m * m <= _LARGE_TABLE:
        return left @ _table(A, B) @ right.T
    # Of many columns the table would be too large, and there are few directions.
    moved = [small.left(E.reshape(k, k), A).ravel() for E in left]
    other = [small.right(B, D.reshape(m, m)).ravel() for D in right]
    return np.array(moved) @ np.array(other).T


def _table(A: FloatArray, B: FloatArray) -> FloatArray:
    """T with tr(E A D B') summed over blocks = vec(E)' T vec(D), shape (k k, m m)."""
    k, m, n = A.shape
    # tr(E A D B') is the sum over a, b, c, d of E[a, b] A[b, c] D[c, d] B[a, d].
    products = (A.reshape(k * m, n) @ B.reshape(k * m, n).T).reshape(k, m, k, m)
    return products.transpose(2, 0, 1, 3).reshape(k * k, m * m)


def _fixed_grams(directions: tuple[Direction, ...], cross: CrossProducts, p: int) -> FloatArray:
    """X'WZ E Z'WX for each direction, shape (m, p, p)."""
    out = np.zeros((len(directions), p, p))
    for f, border in enumerate(cross.border):
        own = [i for i, direction in enumerate(directions) if direction.factor == f]
        if len(own) < border.shape[0]:
            for i in own:
                moved = np.tensordot(directions[i].E, border[:, :, :p], axes=1)
                out[i] = np.tensordot(border[:, :, :p], moved, axes=([0, 1], [0, 1]))
            continue
        for a in range(border.shape[0]):
            for b in range(a + 1):
                used = [(i, weight) for i in own if (weight := float(directions[i].E[a, b]))]
                if used:
                    product = border[a, :, :p].T @ border[b, :, :p]
                    both = product if a == b else product + product.T
                    for i, weight in used:
                        out[i] += weight * both
    return out
