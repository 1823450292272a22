"""Is one linear mixed model a special case of another, and where in its parameter space?

The covariance of two rows is linear in the elements of the covariances of the random effects, with coefficients that
follow from the rows' groups and columns. Seen on many pairs of rows, "the small model's covariances are among the large
one's" is a matter of linear spans; that also covers (1 | g:h) inside (h | g).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lme4py.covariance.templates import Template
from lme4py.design.design import Design, RandomTerm
from lme4py.linalg.types import FloatArray, IntArray

__all__ = ["Embedding", "embed"]

_TOLERANCE = 1e-6
# Pairs of rows for each grouping factor, and the seed that picks them.
_PAIRS, _SEED = 5000, 20_240_607


@dataclass(frozen=True)
class Embedding:
    """The random effects of a restricted model inside those of a full one.

    Attributes
    ----------
    null : tuple of ndarray, each (k, r)
        For each term of the full model an orthonormal basis of the directions without variance under the restricted
        one.
    covariances : tuple of ndarray, each (k, k)
        Covariances of the full model's terms that give the restricted model's estimates.
    is_unique : bool
        False when the full model's covariances are not identified.
    """

    null: tuple[FloatArray, ...]
    covariances: tuple[FloatArray, ...]
    is_unique: bool


def embed(full: Design, restricted: Design | None, covariances: tuple[FloatArray, ...]) -> Embedding | None:
    """Write the restricted model's random effects as those of the full one; None when that is impossible.

    Parameters
    ----------
    full : Design
    restricted : Design or None
        None has no random effects.
    covariances : tuple of ndarray
        Estimates of the restricted model.
    """
    zeros = [np.zeros((term.n_columns, term.n_columns)) for term in full.terms]
    if restricted is None:
        null = tuple(np.eye(z.shape[0]) for z in zeros)
        return Embedding(null, tuple(zeros), _is_unique(_kernels(full.terms, _pairs(full.terms))[0]))
    pairs = _pairs((*full.terms, *restricted.terms))
    A, directions = _kernels(full.terms, pairs)
    B, small = _kernels(restricted.terms, pairs)
    solution = np.linalg.lstsq(A, B, rcond=1e-9)[0]
    if (np.linalg.norm(A @ solution - B, axis=0) > _TOLERANCE * np.linalg.norm(B, axis=0)).any():
        return None
    generic = _assemble(full.terms, directions, solution @ _coefficients(small, _generic(restricted.terms)))
    scaled_estimates = _all_in_units(restricted.terms, covariances)
    values = _assemble(full.terms, directions, solution @ _coefficients(small, scaled_estimates))
    unique = _is_unique(A)
    scaled = [_in_units(term, g) for term, g in zip(full.terms, generic, strict=True)]
    # Outside the cone of covariance matrices: linear combinations alone would allow it.
    if unique and any(np.linalg.eigvalsh(g)[0] < -_TOLERANCE for g in scaled):
        return None
    return Embedding(tuple(_null(g, t) for g, t in zip(scaled, full.terms, strict=True)), tuple(values), unique)


def _pairs(terms: tuple[RandomTerm, ...]) -> tuple[IntArray, IntArray]:
    """Pairs of rows: rows with themselves, and rows of one level of each grouping factor."""
    rng = np.random.default_rng(_SEED)
    n = terms[0].codes.size
    own = np.arange(n) if n <= _PAIRS else rng.choice(n, _PAIRS, replace=False)
    first, second = [own], [own]
    seen: set[bytes] = set()
    for term in terms:
        key = term.codes.tobytes()
        if key in seen:
            continue
        seen.add(key)
        order = np.argsort(term.codes, kind="stable")
        counts = np.bincount(term.codes)
        starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
        i = np.repeat(np.arange(n), max(1, _PAIRS // n))
        i = i if i.size <= _PAIRS else rng.choice(i, _PAIRS, replace=False)
        level = term.codes[i]
        first.append(i)
        second.append(order[starts[level] + rng.integers(0, counts[level])])
    return np.concatenate(first), np.concatenate(second)


def _kernels(
    terms: tuple[RandomTerm, ...], pairs: tuple[IntArray, IntArray]
) -> tuple[FloatArray, list[tuple[int, FloatArray, float]]]:
    """Covariance of each pair of rows for each direction (term, matrix in units of the columns, scale)."""
    i, j = pairs
    columns, directions = [], []
    for t, term in enumerate(terms):
        units = _units(term)
        same = term.codes[i] == term.codes[j]
        left, right = term.values[i] / units, term.values[j] / units
        for E in Template(term.n_columns, term.structure).covariance_directions:
            columns.append(same * np.einsum("na,ab,nb->n", left, E, right))
            directions.append((t, E))
    A = np.column_stack(columns)
    scale = np.maximum(np.linalg.norm(A, axis=0), 1e-300)
    return A / scale, [(t, E, float(s)) for (t, E), s in zip(directions, scale, strict=True)]


def _units(term: RandomTerm) -> FloatArray:
    sizes = np.sqrt(np.mean(term.values**2, axis=0))
    if term.structure in ("identity", "exchangeable"):
        # One variance for all columns needs one unit.
        return np.full(term.n_columns, float(np.sqrt(np.mean(sizes**2))))
    return np.where(sizes > 0, sizes, 1.0)


def _in_units(term: RandomTerm, covariance: FloatArray) -> FloatArray:
    units = _units(term)
    return covariance * np.outer(units, units)


def _all_in_units(terms: tuple[RandomTerm, ...], covariances: Sequence[FloatArray]) -> list[FloatArray]:
    return [_in_units(term, covariance) for term, covariance in zip(terms, covariances, strict=True)]


def _generic(terms: tuple[RandomTerm, ...]) -> list[FloatArray]:
    """Covariances inside the range of each term, in units of its columns."""
    return [np.eye(term.n_columns) for term in terms]


def _coefficients(directions: list[tuple[int, FloatArray, float]], covariances: Sequence[FloatArray]) -> FloatArray:
    """Coefficients of scaled directions that give these covariances (in units of size one)."""
    out = []
    for t, E, scale in directions:
        # The directions of a term are orthogonal.
        out.append(float(np.sum(covariances[t] * E) / np.sum(E * E)) * scale)
    return np.array(out)


def _assemble(
    terms: tuple[RandomTerm, ...], directions: list[tuple[int, FloatArray, float]], solution: FloatArray
) -> list[FloatArray]:
    out = [np.zeros((term.n_columns, term.n_columns)) for term in terms]
    for (t, E, scale), x in zip(directions, solution, strict=True):
        out[t] += x / scale * E
    return [total / np.outer(_units(term), _units(term)) for total, term in zip(out, terms, strict=True)]


def _is_unique(A: FloatArray) -> bool:
    return bool(np.linalg.matrix_rank(A, tol=1e-9 * np.linalg.norm(A, 2)) == A.shape[1])


def _null(scaled: FloatArray, term: RandomTerm) -> FloatArray:
    """Directions without variance, on the user's scale."""
    values, vectors = np.linalg.eigh(scaled)
    N = vectors[:, values <= _TOLERANCE] * _units(term)[:, None]
    return np.linalg.qr(N)[0] if N.shape[1] else N
