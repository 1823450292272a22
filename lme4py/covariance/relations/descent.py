"""Who descends from whom: products with (I - P)^-1, where row i of P has 1/2 at each known parent of animal i.

(I - P)^-1 is lower triangular where parents come before their offspring, and is never formed: its products go through
the generations, all animals of one at a time, and cost as many operations as there are known parents.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from lme4py.chunks import chunk
from lme4py.frozen import computed_once
from lme4py.linalg.types import FloatArray, IntArray, SparseMatrix, sparse

__all__ = ["Ancestry"]

# Elements of a table of ancestors and mates that are in memory at one time.
_TABLE = chunk(4_000_000)
# Pairs of animals whose ancestors are traced at one time.
_PAIRS = chunk(2000)
# Generations of mates whose parts are summed for each of them, so that passes through the pedigree stop above them.
_STEPS = 4
# Ancestors of animals are counted from so many.
_SAMPLE = 64
# Time of an element of a sparse row of ancestors, where that of an operation on a table is 1.
_TRACED = 100.0


@dataclass(frozen=True, eq=False)
class _Level:
    """Animals of one generation: their places, their parents' places, and who gives what part to whom."""

    own: slice
    parents: IntArray
    share: SparseMatrix  # (own, parents)
    given: SparseMatrix  # (parents, own)


class Ancestry:
    """Descent of n animals.

    Parameters
    ----------
    parents : ndarray of int, shape (n, 2)
        Numbers of sire and dam; -1 for one that is not known.
    generation : ndarray of int, shape (n,)
        Larger than that of either parent.

    Examples
    --------
    >>> line = Ancestry(np.array([[-1, -1], [0, -1], [1, -1]]), np.arange(3))
    >>> line.down(np.array([[1.0], [0.0], [0.0]])).ravel()
    array([1.  , 0.5 , 0.25])
    """

    def __init__(self, parents: IntArray, generation: IntArray) -> None:
        self.parents = parents
        self.generation = generation

    def __reduce__(self) -> tuple[type[Ancestry], tuple[IntArray, IntArray]]:
        return Ancestry, (self.parents, self.generation)

    @computed_once
    def share(self) -> SparseMatrix:
        """P, shape (n, n)."""
        n = self.parents.shape[0]
        rows, column = np.nonzero(self.parents >= 0)
        halves = np.full(rows.size, 0.5)
        return sparse.coo_array((halves, (rows, self.parents[rows, column])), shape=(n, n)).tocsr()

    @computed_once
    def order(self) -> IntArray:
        """Animals by generation, shape (n,)."""
        return np.argsort(self.generation, kind="stable")

    @computed_once
    def _levels(self) -> tuple[_Level, ...]:
        """Generations after the first, in the order of `order`."""
        sorted_share = self.share[self.order][:, self.order].tocsr()
        ends = np.cumsum(np.bincount(self.generation))
        return tuple(_level(sorted_share, slice(int(a), int(b))) for a, b in pairwise(ends))

    def down(self, x: FloatArray) -> FloatArray:
        """(I - P)^-1 x, shape (n, c): what animals have, where x is what does not come from their parents."""
        out = x[self.order]
        for level in self._levels:
            out[level.own] += level.share @ out[level.parents]
        return self._back(out)

    def up(self, x: FloatArray) -> FloatArray:
        """(I - P)'^-1 x, shape (n, c)."""
        out = x[self.order]
        for level in reversed(self._levels):
            out[level.parents] += level.given @ out[level.own]
        return self._back(out)

    def _back(self, sorted_rows: FloatArray) -> FloatArray:
        out = np.empty_like(sorted_rows)
        out[self.order] = sorted_rows
        return out

    def ancestry(self, animals: IntArray) -> SparseMatrix:
        """Rows of (I - P)^-1: what part of every ancestor's Mendelian part an animal carries."""
        unit = np.ones(animals.size)
        step = sparse.csr_array(
            (unit, animals, np.arange(animals.size + 1)), shape=(animals.size, self.parents.shape[0])
        )
        total = step
        while step.nnz:
            step = step @ self.share
            total = total + step
        return total

    def inbreeding(self) -> FloatArray:
        """F, shape (n,), generation by generation: half the relationship of the parents."""
        F = np.zeros(self.parents.shape[0])
        both = np.flatnonzero((self.parents >= 0).all(axis=1))
        both = both[np.argsort(self.generation[both], kind="stable")]
        starts = np.flatnonzero(np.diff(self.generation[both], prepend=-1))
        for animals in np.split(both, starts[1:]):
            if animals.size:
                pairs, of = _distinct(self.parents[animals])
                F[animals] = 0.5 * self._between(pairs, self.mendelian(F))[of]
        return F

    def mendelian(self, F: FloatArray) -> FloatArray:
        """D, shape (n,): the part of the variance of each animal that its parents, whose inbreeding is known, do not
        give."""
        known = self.parents >= 0
        inbred = np.where(known, F[self.parents], 0.0).sum(axis=1)
        out: FloatArray = 1.0 - 0.25 * known.sum(axis=1) - 0.25 * inbred
        return out

    # -- relationships of mates ----------------------------------------------------------------------------------

    def _between(self, pairs: IntArray, mendelian: FloatArray) -> FloatArray:
        """A(i, j) of pairs of animals, shape (m,); the Mendelian parts of their ancestors are known.

        Where few animals have many mates, one pass through the pedigree gives the relationships of one of them with
        all others (Colleau 2002, Genet. Sel. Evol. 34:409); elsewhere the common ancestors of each pair are traced.
        """
        few = int(np.unique(pairs[:, 1]).size < np.unique(pairs[:, 0]).size)
        pivots, pivot = np.unique(pairs[:, few], return_inverse=True)
        mates, mate = np.unique(pairs[:, 1 - few], return_inverse=True)
        rng = np.random.default_rng(0)
        sample = mates if mates.size <= _SAMPLE else rng.choice(mates, _SAMPLE, replace=False)
        traced = _TRACED * mates.size * self.ancestry(sample).nnz / sample.size
        family = self._with_ancestors(np.concatenate([mates, pivots]))
        if 2.0 * pivots.size * family.size > traced:
            return self._traced(mates, mate, pivots, pivot, mendelian)
        return self._passed(family, mates[mate], pivots, pivot, mendelian)

    def _with_ancestors(self, animals: IntArray) -> IntArray:
        """Some animals and all their ancestors, by generation."""
        found = np.zeros(self.parents.shape[0] + 1, dtype=bool)
        new = animals
        while new.size:
            found[new] = True
            new = np.unique(self.parents[new])
            new = new[(new >= 0) & ~found[new]]
        own = np.flatnonzero(found)
        return own[np.argsort(self.generation[own], kind="stable")]

    def _traced(
        self, mates: IntArray, mate: IntArray, pivots: IntArray, pivot: IntArray, mendelian: FloatArray
    ) -> FloatArray:
        """Sums over the common ancestors of each pair, the animals with most rows traced once."""
        out = np.empty(mate.size)
        order = np.argsort(mate, kind="stable")
        for start in range(0, order.size, _PAIRS):
            own = order[start : start + _PAIRS]
            one, first = np.unique(mate[own], return_inverse=True)
            other, second = np.unique(pivot[own], return_inverse=True)
            left = (self.ancestry(mates[one]) @ sparse.diags_array(mendelian)).tocsr()
            out[own] = left[first].multiply(self.ancestry(pivots[other]).tocsr()[second]).sum(axis=1)
        return out

    def _passed(
        self, family: IntArray, mates: IntArray, pivots: IntArray, pivot: IntArray, mendelian: FloatArray
    ) -> FloatArray:
        """Columns v = T D T'e of the relationships of some pivots, T = (I - P)^-1, in the family of all ancestors.

        v = P v + w with w = D T'e, so that v = w + P w + ... + P^(s - 1) w + P^s v: where a pivot has few of the mates,
        their last generations cost less by these sums, and v is needed above them only.
        """
        place = np.full(self.parents.shape[0], -1)
        place[family] = np.arange(family.size)
        inside = self.share[family][:, family].tocsr()
        near, far = _unrolled(inside, place[mates])
        generation = self.generation[family]
        ends = np.cumsum(np.bincount(generation))[: int(generation[far.indices].max(initial=0)) + 1]
        levels = [(slice(a, b), inside[a:b]) for a, b in pairwise(ends) if b > a]
        order = np.argsort(pivot, kind="stable")
        bounds = np.searchsorted(pivot[order], np.arange(pivots.size + 1))
        out = np.empty(mates.size)
        wide = max(1, _TABLE // family.size)
        for start in range(0, pivots.size, wide):
            stop = min(start + wide, pivots.size)
            table = np.zeros((family.size, stop - start))
            rows = self.ancestry(pivots[start:stop]).tocoo()
            table[place[rows.col], rows.row] = rows.data * mendelian[rows.col]
            own = order[bounds[start] : bounds[stop]]
            out[own] = _at(near, own, table, pivot[own] - start)
            for level, share in levels:
                table[level] += share @ table
            out[own] += _at(far, own, table, pivot[own] - start)
        return out


def _unrolled(share: SparseMatrix, animals: IntArray) -> tuple[SparseMatrix, SparseMatrix]:
    """Rows of I + P + ... + P^(s - 1), and of P^s, for some animals."""
    distinct, of = np.unique(animals, return_inverse=True)
    unit = np.ones(distinct.size)
    step = sparse.csr_array((unit, distinct, np.arange(distinct.size + 1)), shape=(distinct.size, share.shape[0]))
    total = step
    for _ in range(_STEPS - 1):
        step = step @ share
        total = total + step
    return total[of], (step @ share)[of]


def _at(rows: SparseMatrix, own: IntArray, table: FloatArray, columns: IntArray) -> FloatArray:
    """Rows of a sparse matrix times one column of a table each."""
    starts, counts = rows.indptr[own], np.diff(rows.indptr)[own]
    of = np.repeat(np.arange(own.size), counts)
    element = np.arange(of.size) + np.repeat(starts - (np.cumsum(counts) - counts), counts)
    products = rows.data[element] * table[rows.indices[element], columns[of]]
    out: FloatArray = np.bincount(of, weights=products, minlength=own.size).astype(float, copy=False)
    return out


def _level(share: SparseMatrix, own: slice) -> _Level:
    rows = share[own]
    parents, place = np.unique(rows.indices, return_inverse=True)
    compact: SparseMatrix = sparse.csr_array((rows.data, place, rows.indptr), shape=(rows.shape[0], parents.size))
    return _Level(own, parents, compact, compact.T.tocsr())


def _distinct(pairs: IntArray) -> tuple[IntArray, IntArray]:
    """Pairs of animals, each once, and which of them each pair is."""
    width = int(pairs.max()) + 1
    keys, of = np.unique(pairs[:, 0] * width + pairs[:, 1], return_inverse=True)
    return np.stack(np.divmod(keys, width), axis=1), of
