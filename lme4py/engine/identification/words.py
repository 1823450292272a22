"""What is determined, and what is not, in words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lme4py.design.design import RandomTerm
from lme4py.engine.identification.record import NOTHING, Identification
from lme4py.linalg.null_space import echelon, independent_rows
from lme4py.linalg.types import FloatArray

__all__ = ["listed", "places", "sentences", "undetermined_columns"]

# Sums that a message lists.
_MOST = 4


def listed(names: Iterable[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    words = list(names)
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def undetermined_columns(found: Identification, term: int) -> list[int]:
    """Columns of a term whose variance is not determined."""
    mask = found.determined(term)
    return [] if mask is None else np.flatnonzero(~np.diagonal(mask)).tolist()


def places(found: Identification, terms: Sequence[RandomTerm]) -> list[str]:
    """The terms that hold a variance that is not determined, with the columns where it is not all of them."""
    out = []
    for t, term in enumerate(terms):
        columns = undetermined_columns(found, t)
        if columns:
            names = ", ".join(term.columns[j] for j in columns)
            out.append(term.label if len(columns) == term.n_columns else f"{names} in {term.label}")
    return out


@dataclass(frozen=True)
class _Element:
    """A variance or covariance of a term."""

    term: int
    row: int
    column: int

    def name(self, term: RandomTerm, alone: bool) -> str:
        first, second = term.columns[self.column], term.columns[self.row]
        text = f"var({first})" if self.row == self.column else f"cov({first},{second})"
        return text if alone else f"{text} of {term.label}"


def _elements(t: int, term: RandomTerm) -> list[_Element]:
    """The parameters of a term: one variance stands for all where they are equal."""
    return [_Element(t, i, j) for i, j in term.structure.elements]


def sentences(terms: Sequence[RandomTerm], found: Identification) -> Iterator[str]:
    """One sentence for each set of terms that share variances."""
    for members in _sets(found):
        own = [terms[t] for t in members]
        if len(own) == 1:
            names = listed(own[0].columns[j] for j in undetermined_columns(found, members[0]))
            what = f"the variances and covariances of {names} in {own[0].label} cannot be told apart"
        else:
            what = f"{listed(term.label for term in own)} share variances that cannot be told apart"
        # Small terms are spread over the elements of the large ones, and covariances over variances.
        small_first = sorted(members, key=lambda t: terms[t].n_columns)
        elements = [e for t in small_first for e in sorted(_elements(t, terms[t]), key=lambda e: e.row == e.column)]
        sums = [_sum_name(*one, elements, terms, len(own) == 1) for one in _determined_sums(elements, found)]
        more = f" and {len(sums) - _MOST} more sums" if len(sums) > _MOST else ""
        only = f"; only {', '.join(sums[:_MOST])}{more} {'is' if len(sums) == 1 else 'are'} determined" if sums else ""
        yield f"{what}{only}"


def _sum_name(
    first: int, coefficients: FloatArray, elements: Sequence[_Element], terms: Sequence[RandomTerm], alone: bool
) -> str:
    """A sum of variances and covariances in words."""
    text = elements[first].name(terms[elements[first].term], alone)
    for place in np.argsort(-np.abs(coefficients), kind="stable"):
        value = float(coefficients[place])
        if value and place != first:
            factor = "" if abs(value) == 1.0 else f"{abs(value):.4g} "
            element = elements[place]
            text += f" {'-' if value < 0.0 else '+'} {factor}{element.name(terms[element.term], alone)}"
    return text


def _sets(found: Identification) -> list[list[int]]:
    """Terms that share a combination, directly or by way of others."""
    sets: list[set[int]] = []
    for k in range(len(found.changes)):
        own = set(np.flatnonzero(found.moves(k)).tolist())
        sets = [one for one in sets if not one & own] + [own.union(*(one for one in sets if one & own))]
    return [sorted(one) for one in sets]


def _determined_sums(elements: list[_Element], found: Identification) -> list[tuple[int, FloatArray]]:
    """Sums of several parameters that are determined, variances first: the position of the first, and coefficients."""
    null = np.array([[change[e.term][e.row, e.column] for e in elements] for change in found.changes])
    size = np.array([[whole[e.term][e.row, e.column] for e in elements] for whole in found.sizes])
    null[np.abs(null) <= NOTHING * size] = 0.0
    moved = np.flatnonzero(np.abs(null).max(axis=0))
    scale = np.abs(null).max(axis=0)[moved]
    rows, pivots = echelon(independent_rows(null[:, moved] / scale))
    out = []
    for j in np.setdiff1d(np.arange(moved.size), pivots):
        one = np.zeros(len(elements))
        one[moved[j]] = 1.0
        # rows[k] is 1 at its own pivot and 0 at all others.
        one[moved[pivots]] = -rows[:, j] * scale[j] / scale[pivots]
        out.append((int(moved[j]), _rounded(one)))
    return sorted(out, key=lambda found: elements[found[0]].row != elements[found[0]].column)


def _rounded(coefficients: FloatArray) -> FloatArray:
    """Whole numbers where rounding left something else."""
    whole = np.round(coefficients)
    return np.where(np.abs(coefficients - whole) < NOTHING, whole, coefficients)
