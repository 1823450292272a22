"""A fill-reducing order for a sparse symmetric matrix, found with vectorised operations only.

Nodes of least degree are eliminated in rounds, many independent ones at a time (multiple minimum degree; Liu 1985,
ACM Trans. Math. Softw. 11:141). Nodes with the same neighbours are merged, which keeps the number of rounds small.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lme4py.chunks import from_size
from lme4py.linalg.types import BoolArray, FloatArray, IntArray, SparseMatrix, sparse

# Nodes with at most so many neighbours are eliminated first, in one round that makes no edges to speak of.
_LEAF = 2
# Nodes with so many times the neighbours of most are hubs; fewer nodes than the second number are ordered in any case.
_HUB, _HUBS_FROM = 2.5, from_size(2000, 20)
# A graph that has grown beyond this many edges, or this part of all pairs, is taken as dense.
_MAX_EDGES, _MAX_DENSITY, _SMALL = 4_000_000, 0.4, 200


@dataclass(frozen=True)
class Ordering:
    """An order of elimination.

    Attributes
    ----------
    order : ndarray of int, shape (N,)
        Nodes, the first one to eliminate first.
    n_open : int
        Nodes at the end that were not ordered because the graph had become too dense; their columns are
        taken as full.
    n_leaves : int
        Nodes at the beginning that have at most two neighbours, and none among each other.
    """

    order: IntArray
    n_open: int
    n_leaves: int = 0


def minimum_degree(
    graph: SparseMatrix, weights: IntArray, max_degree: float, hubs: bool = False, max_work: float = np.inf
) -> Ordering:
    """Order the nodes of a graph.

    Parameters
    ----------
    graph : csr_array, shape (N, N)
        Symmetric pattern without a diagonal.
    weights : ndarray of int, shape (N,)
        Number of columns that each node stands for.
    max_degree : float
        Stop when every node that is left has more neighbours than this: a dense factor would be cheaper.
    hubs : bool
        Nodes with many more neighbours than others come last without more ado, where it is known that few of them are
        linked by nearly all others (sires of many offspring): the edges among them would be most of those that
        elimination makes.
    max_work : float
        Stop when so many edges have been looked at, each of them in every round that it was there.
    """
    G = sparse.csr_array((np.ones(graph.nnz, dtype=np.int8), graph.indices, graph.indptr), shape=graph.shape)
    rng = np.random.default_rng(0)
    nodes = np.arange(graph.shape[0])
    leaf = _independent(G, np.diff(G.indptr).astype(float), _LEAF, rng)
    G = _eliminate(G, leaf)
    leaves, nodes = nodes[leaf], nodes[~leaf]
    degree = np.diff(G.indptr)
    late = np.zeros(nodes.size, dtype=bool)
    if hubs and nodes.size >= _HUBS_FROM:
        late = degree > _HUB * degree.mean()
    last = nodes[late][np.argsort(degree[late], kind="stable")]
    early = np.flatnonzero(~late)
    parts, n_open = _rounds(G[early][:, early].tocsr(), nodes[early], weights, max_degree, max_work, rng)
    n_open += last.size if n_open else 0
    return Ordering(np.concatenate([leaves, *parts, last]), n_open, leaves.size)


def _rounds(
    G: SparseMatrix,
    nodes: IntArray,
    weights: IntArray,
    max_degree: float,
    max_work: float,
    rng: np.random.Generator,
) -> tuple[list[IntArray], int]:
    """Nodes in their order, and how many of them, at the end, are left open."""
    members = _Members(weights.size)
    size = weights[nodes].astype(float)
    parts: list[IntArray] = []
    work = 0
    while nodes.size and work <= max_work:
        work += int(G.nnz) + nodes.size
        G, nodes, size = _merge(G, nodes, size, members, rng)
        degree = _sum_rows(G, size[G.indices]) + size - 1.0
        least = float(degree.min())
        if least > max_degree or _is_full(G):
            break
        chosen = _independent(G, degree, least, rng)
        parts.extend(members.of(nodes[chosen]))
        G = _eliminate(G, chosen)
        nodes, size = nodes[~chosen], size[~chosen]
    rest = members.of(nodes)
    return [*parts, *rest], sum(part.size for part in rest)


def _is_full(G: SparseMatrix) -> bool:
    n, edges = int(G.shape[0]), int(G.nnz)
    return edges > _MAX_EDGES or (n > _SMALL and edges > _MAX_DENSITY * n * n)


class _Members:
    """Nodes that have been merged into each node."""

    def __init__(self, n: int) -> None:
        self.by_node: dict[int, list[IntArray]] = {}
        self.n = n

    def join(self, kept: IntArray, merged: IntArray) -> None:
        for keeper, other in zip(kept.tolist(), merged.tolist(), strict=True):
            mine = self.by_node.setdefault(keeper, [np.array([keeper])])
            mine.extend(self.by_node.pop(other, [np.array([other])]))

    def of(self, nodes: IntArray) -> list[IntArray]:
        out: list[IntArray] = []
        for node in nodes.tolist():
            out.extend(self.by_node.pop(node, [np.array([node])]))
        return out


def _sum_rows(G: SparseMatrix, values: FloatArray) -> FloatArray:
    """Sum of values, one per stored element, over each row."""
    ends = np.concatenate([[0.0], np.cumsum(values)])
    sums: FloatArray = ends[G.indptr[1:]] - ends[G.indptr[:-1]]
    return sums


def _merge(
    G: SparseMatrix, nodes: IntArray, size: FloatArray, members: _Members, rng: np.random.Generator
) -> tuple[SparseMatrix, IntArray, FloatArray]:
    """Merge nodes whose neighbours (themselves included) are the same, found by sums of random numbers."""
    labels = rng.integers(0, 2**62, nodes.size, dtype=np.uint64)
    ends = np.concatenate([np.zeros(1, dtype=np.uint64), np.cumsum(labels[G.indices], dtype=np.uint64)])
    mark = ends[G.indptr[1:]] - ends[G.indptr[:-1]] + labels
    _, first, group = np.unique(mark, return_index=True, return_inverse=True)
    if first.size == nodes.size:
        return G, nodes, size
    keeper = first[group]
    other = np.flatnonzero(keeper != np.arange(nodes.size))
    members.join(nodes[keeper[other]], nodes[other])
    total = np.bincount(keeper, weights=size, minlength=nodes.size)
    keep = np.sort(first)
    return G[keep][:, keep], nodes[keep], np.asarray(total[keep], dtype=float)


def _independent(G: SparseMatrix, degree: FloatArray, least: float, rng: np.random.Generator) -> BoolArray:
    """Nodes of at most this degree, no two of them neighbours."""
    n = degree.size
    key = np.where(degree <= least, rng.permutation(n).astype(float), np.inf)
    lowest = np.full(n, np.inf)
    filled = np.diff(G.indptr) > 0
    if G.nnz:
        lowest[filled] = np.minimum.reduceat(key[G.indices], G.indptr[:-1][filled])
    chosen: BoolArray = key < lowest
    return chosen


def _eliminate(G: SparseMatrix, chosen: BoolArray) -> SparseMatrix:
    """What is left of the graph: the neighbours of an eliminated node become neighbours of each other."""
    keep = np.flatnonzero(~chosen)
    C = G[np.flatnonzero(chosen)][:, keep]
    left = G[keep][:, keep]
    if not C.nnz:
        return left
    C = sparse.csr_array((np.ones(C.nnz, dtype=np.int32), C.indices, C.indptr), shape=C.shape)
    filled = (C.T @ C + left).tocoo()
    off = filled.row != filled.col
    index = (filled.row[off], filled.col[off])
    return sparse.coo_array((np.ones(index[0].size, dtype=np.int8), index), shape=filled.shape).tocsr()
