"""Is one linear mixed model a special case of another, and where in its parameter space?

The covariance of two rows is linear in the elements of the covariances of the random effects, with coefficients that
follow from the rows' groups and columns. Seen on many pairs of rows, "the small model's covariances are among the large
one's" is a matter of linear spans; that also covers (1 | g:h) inside (h | g).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lme4py.covariance import TangentCone
from lme4py.design.design import Design, RandomTerm
from lme4py.errors import OptionError
from lme4py.fits.base import Fit
from lme4py.fits.kinds import model_of
from lme4py.fits.refuse import refuse_smooths
from lme4py.linalg.types import FloatArray, IntArray

__all__ = ["Embedding", "check_same_smooths", "embed", "refuse_null_of_smooths", "without_terms"]

_TOLERANCE = 1e-6
# Rows whose covariances with any others are looked at where levels are related.
_RELATED = 50
# Pairs of rows for each grouping factor, and the seed that picks them.
_PAIRS, _SEED = 5000, 20_240_607

# First and second row of each pair, and pairs of names of linear predictors.
_Pairs = tuple[IntArray, IntArray, list[tuple[str, str]]]


@dataclass(frozen=True)
class Embedding:
    """The random effects of a restricted model inside those of a full one.

    Attributes
    ----------
    cones : tuple of TangentCone
        For each term of the full model the covariances near one that the restricted model can have, in the user's
        columns.
    covariances : tuple of ndarray, each (k, k)
        Covariances of the full model's terms that give the restricted model's estimates.
    is_unique : bool
        False when the full model's covariances are not identified.
    """

    cones: tuple[TangentCone, ...]
    covariances: tuple[FloatArray, ...]
    is_unique: bool

    @property
    def blocks(self) -> list[int]:
        """Sizes of the positive semi-definite blocks that are zero under the restricted model."""
        return [size for cone in self.cones for size in cone.blocks]

    @property
    def unknown(self) -> str:
        """Why a cone is not known, or ""."""
        return "; ".join(dict.fromkeys(cone.unknown for cone in self.cones if cone.unknown))


def embed(full: Design, restricted: Design | None, covariances: tuple[FloatArray, ...]) -> Embedding | None:
    """Write the restricted model's random effects as those of the full one; None when that is impossible.

    A term whose covariances are no linear space is compared with the term of the restricted model that has its columns
    and groups; all others by linear spans.

    Parameters
    ----------
    full : Design
    restricted : Design or None
        None has no random effects.
    covariances : tuple of ndarray
        Estimates of the restricted model.
    """
    if not full.terms:
        return None if restricted is not None and restricted.terms else Embedding((), (), True)
    generic = [np.zeros((term.n_columns, term.n_columns)) for term in full.terms]
    values = list(generic)
    upright = tuple(_upright(term) for term in full.terms)
    unique = _is_unique(_kernels(upright, _pairs(upright), _directions(upright))[0])
    rest = [] if restricted is None else list(range(len(restricted.terms)))
    linear = [t for t, term in enumerate(full.terms) if term.structure.linear]
    if restricted is not None:
        for t, r in _partners(full.terms, restricted.terms).items():
            generic[t], values[t] = _typical(restricted.terms[r]), covariances[r]
            rest.remove(r)
        found = _embed_spans(
            [full.terms[t] for t in linear], [restricted.terms[r] for r in rest], [covariances[r] for r in rest], unique
        )
        if found is None:
            return None
        for t, own, value in zip(linear, *found, strict=True):
            generic[t], values[t] = own, value
    return Embedding(tuple(_cone(g, t) for g, t in zip(generic, full.terms, strict=True)), tuple(values), unique)


def _upright(term: RandomTerm) -> RandomTerm:
    """The term with orthogonal columns, where its covariance stays of its kind.

    Columns far from zero are nearly parallel to the constant, and would not be told from it.
    """
    if term.structure.column_changes != "any" or len(set(term.column_parts)) > 1:
        return term
    units = _units(term)
    R = np.linalg.qr(term.values / units, mode="r")
    if np.linalg.matrix_rank(R) < term.n_columns:
        return term
    return replace(term, values=term.values @ (np.linalg.inv(R) / units[:, None]))


def _partners(full: tuple[RandomTerm, ...], restricted: tuple[RandomTerm, ...]) -> dict[int, int]:
    """For terms of the full model that are no linear space the term of the restricted model that is a case of each."""
    found: dict[int, int] = {}
    for t, term in enumerate(full):
        if term.structure.linear:
            continue
        fitting = [
            r
            for r, other in enumerate(restricted)
            if r not in found.values()
            and other.structure.nested_in(term.structure)
            and other.relation is term.relation
            and np.array_equal(other.codes, term.codes)
            and np.array_equal(other.values, term.values)
            and other.column_parts == term.column_parts
        ]
        if fitting:
            found[t] = max(fitting, key=lambda r: restricted[r].structure == term.structure)
    return found


def _typical(term: RandomTerm) -> FloatArray:
    """A covariance matrix of a term in no special place."""
    return term.structure.covariance(term.structure.generic())


def _embed_spans(
    full: Sequence[RandomTerm], restricted: Sequence[RandomTerm], covariances: Sequence[FloatArray], unique: bool
) -> tuple[list[FloatArray], list[FloatArray]] | None:
    """A typical covariance of the restricted terms, and their estimates, as those of the full terms."""
    if not restricted:
        zeros = [np.zeros((term.n_columns, term.n_columns)) for term in full]
        return zeros, zeros
    if not full:
        return None
    pairs = _pairs((*full, *restricted))
    A, directions = _kernels(full, pairs, _spans(full))
    B, small = _kernels(restricted, pairs, _spans(restricted))
    solution = np.linalg.lstsq(A, B, rcond=1e-9)[0]
    if (np.linalg.norm(A @ solution - B, axis=0) > _TOLERANCE * np.linalg.norm(B, axis=0)).any():
        return None
    generic = _assemble(full, directions, solution @ _coefficients(small, _generic(restricted)))
    values = _assemble(full, directions, solution @ _coefficients(small, _all_in_units(restricted, covariances)))
    # Outside the cone of covariance matrices: linear combinations alone would allow it.
    if unique and any(np.linalg.eigvalsh(g)[0] < -_TOLERANCE for g in _all_in_units(full, generic)):
        return None
    return generic, values


def _spans(terms: Sequence[RandomTerm]) -> list[FloatArray]:
    """The smallest linear space that holds all covariances of each term."""
    return [term.structure.span_basis() for term in terms]


def _directions(terms: Sequence[RandomTerm]) -> list[FloatArray]:
    """In which directions the covariances of each term move."""
    return [term.structure.directions() for term in terms]


def _cone(covariance: FloatArray, term: RandomTerm) -> TangentCone:
    """The covariances of a term near one of them."""
    units = np.outer(_units(term), _units(term))
    values, vectors = np.linalg.eigh(covariance * units)
    root = vectors * np.sqrt(np.where(values > _TOLERANCE * max(float(values[-1]), 0.0), values, 0.0))
    cone = term.structure.cone(term.structure.theta_of_factor(root))
    return replace(cone, held=cone.held / units, free=cone.free / units)


def _pairs(terms: Sequence[RandomTerm]) -> _Pairs:
    """Pairs of rows: with themselves, of one level of each grouping factor, and of any levels that may be related.

    With them the pairs of linear predictors in which the terms have columns: one, but for models with further parts.
    """
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
    if any(term.relation is not None for term in terms):
        # Of a few rows, since every one of their levels takes a column of a known covariance.
        few = rng.choice(n, min(n, _RELATED))
        first.append(np.repeat(few, _PAIRS // _RELATED))
        second.append(rng.integers(0, n, first[-1].size))
    parts = sorted({part for term in terms for part in term.column_parts})
    return np.concatenate(first), np.concatenate(second), [(a, b) for a in parts for b in parts if a <= b]


def _kernels(
    terms: Sequence[RandomTerm], pairs: _Pairs, bases: Sequence[FloatArray]
) -> tuple[FloatArray, list[tuple[int, FloatArray, float]]]:
    """Covariance of each pair of rows for each direction (term, matrix in units of the columns, scale)."""
    i, j, places = pairs
    columns, directions = [], []
    for t, (term, basis) in enumerate(zip(terms, bases, strict=True)):
        units = _units(term)
        if term.relation is None:
            same: FloatArray = (term.codes[i] == term.codes[j]).astype(np.float64)
        else:
            same = term.relation.elements(term.codes[i], term.codes[j])
        sides = {part: term.values_of(part) / units for place in places for part in place}
        for E in basis:
            own = [same * np.einsum("na,ab,nb->n", sides[a][i], E, sides[b][j]) for a, b in places]
            columns.append(np.concatenate(own))
            directions.append((t, E))
    A = np.column_stack(columns)
    scale = np.maximum(np.linalg.norm(A, axis=0), 1e-300)
    return A / scale, [(t, E, float(s)) for (t, E), s in zip(directions, scale, strict=True)]


def _units(term: RandomTerm) -> FloatArray:
    sizes = np.sqrt(np.mean(term.values**2, axis=0))
    if term.structure.shares_variance:
        # One variance for all columns needs one unit.
        return np.full(term.n_columns, float(np.sqrt(np.mean(sizes**2))))
    return np.where(sizes > 0, sizes, 1.0)


def _in_units(term: RandomTerm, covariance: FloatArray) -> FloatArray:
    units = _units(term)
    return covariance * np.outer(units, units)


def _all_in_units(terms: Sequence[RandomTerm], covariances: Sequence[FloatArray]) -> list[FloatArray]:
    return [_in_units(term, covariance) for term, covariance in zip(terms, covariances, strict=True)]


def _generic(terms: Sequence[RandomTerm]) -> list[FloatArray]:
    """Covariances inside the range of each term, in units of its columns."""
    return [np.eye(term.n_columns) if term.structure.linear else _typical(term) for term in terms]


def _coefficients(directions: list[tuple[int, FloatArray, float]], covariances: Sequence[FloatArray]) -> FloatArray:
    """Coefficients of scaled directions that give these covariances (in units of size one)."""
    out = []
    for t, E, scale in directions:
        # The directions of a term are orthogonal.
        out.append(float(np.sum(covariances[t] * E) / np.sum(E * E)) * scale)
    return np.array(out)


def _assemble(
    terms: Sequence[RandomTerm], directions: list[tuple[int, FloatArray, float]], solution: FloatArray
) -> list[FloatArray]:
    out = [np.zeros((term.n_columns, term.n_columns)) for term in terms]
    for (t, E, scale), x in zip(directions, solution, strict=True):
        out[t] += x / scale * E
    return [total / np.outer(_units(term), _units(term)) for total, term in zip(out, terms, strict=True)]


def _is_unique(A: FloatArray) -> bool:
    return bool(np.linalg.matrix_rank(A, tol=1e-9 * np.linalg.norm(A, 2)) == A.shape[1])


def check_same_smooths(a: Design, b: Design) -> None:
    """Refuse a likelihood ratio of models whose smooths differ: these have tests of their own.

    Parameters
    ----------
    a, b : Design

    Raises
    ------
    OptionError
    """
    own = [{term.label: term.values for term in design.terms if term.smooth} for design in (a, b)]
    if own[0].keys() != own[1].keys() or not all(np.array_equal(own[0][label], own[1][label]) for label in own[0]):
        names = " and ".join(", ".join(one) or "none" for one in own)
        raise OptionError(
            f"the models have different smooths ({names}): a likelihood ratio test is there for models whose smooths "
            "are the same; a smooth is tested by smooths(), and AIC compares such models."
        )


def refuse_null_of_smooths(fit: Fit) -> None:
    """Refuse a test against the model without random effects where the smooths would go with them.

    Parameters
    ----------
    fit : Fit

    Raises
    ------
    OptionError
    """
    refuse_smooths(fit, "a test against a model without random effects is", "see ranova() and smooths()")


def without_terms(fit: Fit) -> Fit:
    """The model of the same residuals without random effects.

    Parameters
    ----------
    fit : Fit
    """
    refuse_null_of_smooths(fit)
    return model_of(fit).like(fit.design.with_terms(()))
