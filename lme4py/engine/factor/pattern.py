"""Which levels of the remaining grouping factors meet, and which factors can be eliminated one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lme4py.engine.factor.crossproducts import CrossProducts, Edges, Factor, SortedEdges
from lme4py.linalg.types import IntArray

# Products of a stage, for each element of the relations that it meets, above which it is eliminated with them.
_FILL = 2.0


def elimination_order(factors: tuple[Factor, ...]) -> list[int]:
    """Positions of the factors, the one with most random effects first."""
    return sorted(range(len(factors)), key=lambda f: -factors[f].size)


def level_pairs(cross: CrossProducts, s: int, t: int) -> tuple[IntArray, IntArray]:
    """Levels of s and t that occur together."""
    edges = cross.edges[min(s, t), max(s, t)]
    return (edges.rows, edges.columns) if s < t else (edges.columns, edges.rows)


def cross_block(cross: CrossProducts, s: int, t: int) -> Edges | SortedEdges:
    """Z_s'W Z_t for any order of s and t."""
    edges = cross.edges[min(s, t), max(s, t)]
    if s < t:
        return edges
    return Edges(edges.columns, edges.rows, edges.values.swapaxes(0, 1))


def _is_function(rows: IntArray, columns: IntArray) -> bool:
    """Does every row occur with one column only?  (pairs are distinct)"""
    return np.unique(rows).size == rows.size


class Pattern:
    """Pairs of levels that can be non-zero between any two remaining factors, growing as factors are eliminated."""

    def __init__(self, factors: tuple[Factor, ...], cross: CrossProducts) -> None:
        self.factors = factors
        self.cross = cross
        # Only of pairs of factors that have met more levels since: sorted row * width + column.
        self.filled: dict[tuple[int, int], IntArray] = {}

    def pairs(self, s: int, t: int) -> tuple[IntArray, IntArray]:
        """Levels of s and t; sorted by row, then column, where there is fill."""
        keys = self.filled.get((s, t))
        if keys is None:
            return level_pairs(self.cross, s, t)
        width = self.factors[t].n_levels
        return keys // width, keys % width

    def function(self, s: int, t: int) -> IntArray | None:
        """Level of t for every level of s when s is nested in t, otherwise None."""
        rows, columns = self.pairs(s, t)
        if rows.size != self.factors[s].n_levels or not _is_function(rows, columns):
            return None
        parent = np.empty(self.factors[s].n_levels, dtype=np.intp)
        parent[rows] = columns
        return parent

    def fill(self, parent: IntArray, s: int, t: int, others: list[int]) -> None:
        """Add the pairs between t and `others` that the elimination of s (nested in t) makes."""
        for u in others:
            if u == t:
                continue
            rows, columns = self.pairs(s, u)
            old_rows, old_columns = self.pairs(t, u)
            width = self.factors[u].n_levels
            keys = np.union1d(old_rows * width + old_columns, parent[rows] * width + columns)
            self.filled[t, u] = keys
            self.filled[u, t] = np.sort((keys % width) * self.factors[t].n_levels + keys // width)


def choose_stages(
    factors: tuple[Factor, ...], cross: CrossProducts, max_products: int
) -> tuple[list[int], list[int], Pattern]:
    """Factors eliminated by stages, factors left for the dense block, and the pattern of what is left."""
    remaining = elimination_order(factors)
    pattern = Pattern(factors, cross)
    first = _first_stage(factors, remaining, pattern)
    if first is None:
        return [], remaining, pattern
    remaining.remove(first)
    stages = [first]
    # Further stages need the list of products of the first one.
    while remaining and count_meetings(factors, pattern, stages[0]) <= max_products:
        found = None
        for t in remaining:
            if factors[t].relation is not None:
                continue
            parents = [pattern.function(s, t) for s in stages]
            if all(parent is not None for parent in parents):
                found = t, parents
                break
        if found is None:
            break
        t, parents = found
        for s, parent in zip(stages, parents, strict=True):
            if parent is not None:
                pattern.fill(parent, s, t, remaining)
        remaining.remove(t)
        stages.append(t)
    return stages, remaining, pattern


def _first_stage(factors: tuple[Factor, ...], order: list[int], pattern: Pattern) -> int | None:
    """The largest factor whose levels are independent; None where its elimination would fill a sparse relation."""
    relations = [factor.relation for factor in factors if factor.relation is not None]
    free = [f for f in order if factors[f].relation is None]
    if not relations:
        return free[0]
    if any(relation.precision is None for relation in relations):
        return free[0] if free else None
    elements = float(sum(relation.precision.nnz for relation in relations))
    few = [f for f in free if count_meetings(factors, pattern, f) <= _FILL * elements]
    return few[0] if few else None


def count_meetings(factors: tuple[Factor, ...], pattern: Pattern, s: int) -> int:
    """Number of products that the elimination of s needs."""
    met = np.zeros(factors[s].n_levels)
    for t, factor in enumerate(factors):
        if t != s:
            met += factor.n_columns * np.bincount(pattern.pairs(s, t)[0], minlength=met.size)
    return count_products(met, factors[s].n_columns)


def count_products(counts: NDArray[Any], k: int) -> int:
    """Number of products of a stage whose levels meet `counts` remaining effects each."""
    return int((counts.astype(float) ** 2).sum() * k**2 / 2)
