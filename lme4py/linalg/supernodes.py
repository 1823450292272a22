"""Sparse Cholesky factor of a fixed pattern by supernodes: factorise, solve, and elements of the inverse.

Columns of L with (nearly) the same pattern form a supernode, whose work is done on one small dense matrix, the
front (multifrontal method; Duff & Reid 1983, ACM Trans. Math. Softw. 9:302). Small ones without large descendants,
which are most of the factor of a pedigree, are worked on many at a time (`lme4py.linalg.supernode_batches`). The
elements of the inverse on the pattern of L follow from the last supernode to the first (Takahashi, Fagan & Chin 1973).
Order and pattern do not depend on the values, since a positive definite matrix needs no pivots; all positions are
found once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg.blas as blas
import scipy.linalg.lapack as lapack

from lme4py.chunks import chunk, from_size
from lme4py.frozen import computed_once
from lme4py.linalg.cholesky import mirror, upper_cholesky
from lme4py.linalg.ordering import Ordering
from lme4py.linalg.supernode_batches import SupernodeBatch
from lme4py.linalg.types import BoolArray, FloatArray, IntArray, SparseMatrix, sparse

# Subtrees of up to this many columns become one supernode: stored zeros cost less than another round of the loop.
_RELAX = 24
# Columns and rows of supernodes that are worked on many at a time; positions that may be listed for it.
_BATCH_WIDTH, _BATCH_ROWS, _LISTED = 32, 96, from_size(40_000_000, 2000)
# Elements of right-hand sides that are solved at one time.
_SOLVED = chunk(16_000_000, 50)
# Part of stored zeros that joining a supernode with the next node may bring, for wide and for narrow ones.
_ZEROS, _ZEROS_NARROW = 0.2, 0.5


@dataclass(frozen=True)
class Supernode:
    """Columns ``start : start + width`` of L with `rows` below them.

    Attributes
    ----------
    parent : int
        Supernode of the same list that takes its update; -1 for a root.
    relative : ndarray of int
        Places of `rows` in the front of the parent.
    offset : int
        Where its panel, (width + rows.size, width) in C order, begins in the vector of all panels.
    first_child : int
        Its child that comes first; -1 where none is in the list.
    """

    start: int
    width: int
    rows: IntArray
    parent: int
    relative: IntArray
    offset: int
    first_child: int


@dataclass(frozen=True)
class Shapes:
    """All supernodes, in the order of their columns.

    Attributes
    ----------
    starts, widths, counts : ndarray of int, shape (s,)
        First column, columns and rows below them.
    rows : ndarray of int
        Rows of all of them, one after the other.
    parents : ndarray of int, shape (s,)
        -1 for a root.
    """

    starts: IntArray
    widths: IntArray
    counts: IntArray
    rows: IntArray
    parents: IntArray

    @computed_once
    def ends(self) -> IntArray:
        """Where the rows of each end."""
        return np.cumsum(self.counts)

    @property
    def n_columns(self) -> int:
        """Of all of them."""
        return int(self.widths.sum())

    @computed_once
    def keys(self) -> IntArray:
        """Rows with the number of their supernode, which increase throughout."""
        return np.repeat(np.arange(self.starts.size), self.counts) * self.n_columns + self.rows

    @property
    def sizes(self) -> IntArray:
        """Stored elements of each."""
        return self.widths * (self.widths + self.counts)

    @property
    def heights(self) -> IntArray:
        """0 for leaves, else one more than the highest child."""
        out = np.zeros(self.starts.size, dtype=np.intp)
        for s, parent in enumerate(self.parents.tolist()):
            if parent >= 0:
                out[parent] = max(out[parent], out[s] + 1)
        return out

    @property
    def flops(self) -> float:
        """Multiplications and additions of one factorisation."""
        w, r = self.widths.astype(float), self.counts.astype(float)
        return float((w**3 / 3 + w * w * r + w * r * r).sum())


@dataclass(frozen=True)
class Symbolic:
    """Order and pattern of the factor.

    Attributes
    ----------
    columns : ndarray of int, shape (q,)
        Column of the matrix at each place of the order.
    places : ndarray of int, shape (q,)
        Its inverse.
    shapes : Shapes
    offsets : ndarray of int
        Where the panel of each supernode begins.
    batches : tuple of SupernodeBatch
        Supernodes that are worked on first, many at a time, children before their parents.
    nodes : tuple of Supernode
        All others, children before their parents.
    peak_updates : int
        Elements of all fronts and updates that are alive at one time.
    """

    columns: IntArray
    places: IntArray
    shapes: Shapes
    offsets: IntArray
    batches: tuple[SupernodeBatch, ...]
    nodes: tuple[Supernode, ...]
    peak_updates: int

    @property
    def panel_size(self) -> int:
        """Stored elements."""
        return int(self.shapes.sizes.sum())

    @property
    def listed(self) -> int:
        """Positions that batches list."""
        return sum(batch.targets.size for batch in self.batches)

    @property
    def largest_front(self) -> int:
        """Rows of the largest front."""
        return int((self.shapes.widths + self.shapes.counts).max())

    def panel_positions(self, rows: IntArray, columns: IntArray) -> IntArray:
        """Where elements of the matrix stand in the vector of panels; (i, j) and (j, i) are the same element."""
        a, b = self.places[rows], self.places[columns]
        return _positions(self.shapes, self.offsets, np.minimum(a, b), np.maximum(a, b))


def _positions(shapes: Shapes, offsets: IntArray, low: IntArray, high: IntArray) -> IntArray:
    """Where elements (high, low) of L stand in the vector of panels, by places in the order."""
    owner = np.searchsorted(shapes.starts, low, side="right") - 1
    widths = shapes.widths[owner]
    local = high - shapes.starts[owner]
    below = local >= widths
    of = owner[below]
    place = np.searchsorted(shapes.keys, of * shapes.n_columns + high[below]) - (shapes.ends - shapes.counts)[of]
    local[below] = widths[below] + place
    out: IntArray = offsets[owner] + local * widths + low - shapes.starts[owner]
    return out


def analyse_pattern(graph: SparseMatrix, ordering: Ordering, node_columns: NodeColumns) -> Symbolic:
    """Supernodes of the factor in a given order.

    Parameters
    ----------
    graph : csr_array, shape (N, N)
        Symmetric pattern of the nodes, without a diagonal.
    ordering : Ordering
    node_columns : NodeColumns
    """
    leaves, rest = np.split(ordering.order, [ordering.n_leaves])
    met = graph[leaves][:, rest]
    met = sparse.csr_array((np.ones(met.nnz, dtype=np.int32), met.indices, met.indptr), shape=met.shape)
    tree = _Tree(graph[rest][:, rest] + met.T @ met, ordering.n_open)
    order = tree.postorder()
    label = np.empty(order.size, dtype=np.intp)
    label[order] = np.arange(order.size)
    weights = node_columns.counts[rest[order]]
    below = [np.sort(label[tree.below(int(node))]) for node in order]
    parent = np.array([rows[0] if rows.size else -1 for rows in below], dtype=np.intp)
    columns = node_columns.of(np.concatenate([leaves, rest[order]]))
    first = np.concatenate([[0], np.cumsum(weights)]) + int(node_columns.counts[leaves].sum())
    above = _shapes(_supernode_ends(parent, below, weights), below, first, weights)
    met = sparse.csr_array((met.data, label[met.indices], met.indptr), shape=met.shape)
    shapes = _with_leaves(met, node_columns.counts[leaves], first, weights, above)
    places = np.empty(columns.size, dtype=np.intp)
    places[columns] = np.arange(columns.size)
    return _layout(columns, places, shapes)


@dataclass(frozen=True)
class NodeColumns:
    """Columns of the matrix that each node of a graph stands for.

    Attributes
    ----------
    counts : ndarray of int, shape (N,)
    columns : ndarray of int
        Of all nodes, one after the other.
    """

    counts: IntArray
    columns: IntArray

    def of(self, nodes: IntArray) -> IntArray:
        """Columns of some nodes, one after the other."""
        return self.columns[_expand(nodes, np.cumsum(self.counts) - self.counts, self.counts)]


class _Tree:
    """Patterns of the columns of L and the elimination tree; nodes are eliminated as they are numbered."""

    def __init__(self, graph: SparseMatrix, n_open: int) -> None:
        self.n = n = int(graph.shape[0])
        U: SparseMatrix = sparse.triu(graph, 1).tocsr()
        U.sort_indices()
        self.patterns: list[IntArray] = []
        # From the first full column on all columns are full.
        self.n_sparse = n - n_open
        children: list[list[int]] = [[] for _ in range(n)]
        for j in range(self.n_sparse):
            own = U.indices[U.indptr[j] : U.indptr[j + 1]]
            pieces = [self.patterns[c][1:] for c in children[j]]
            pattern = _union([own, *pieces]) if pieces else own
            self.patterns.append(pattern)
            if pattern.size == n - 1 - j:
                self.n_sparse = j + 1
                break
            if pattern.size:
                children[int(pattern[0])].append(j)

    def below(self, j: int) -> IntArray:
        """Rows below the diagonal of column j."""
        return self.patterns[j] if j < self.n_sparse else np.arange(j + 1, self.n)

    def parent(self, j: int) -> int:
        if j >= self.n_sparse:
            return j + 1 if j + 1 < self.n else -1
        return int(self.patterns[j][0]) if self.patterns[j].size else -1

    def postorder(self) -> IntArray:
        """Nodes with all descendants of a node just before it."""
        children: list[list[int]] = [[] for _ in range(self.n)]
        roots: list[int] = []
        for j in range(self.n):
            parent = self.parent(j)
            (roots if parent < 0 else children[parent]).append(j)
        out: list[int] = []
        stack = roots
        # Parents first and last children first, read backwards.
        while stack:
            node = stack.pop()
            out.append(node)
            stack.extend(children[node])
        return np.array(out[::-1], dtype=np.intp)


def _union(pieces: list[IntArray]) -> IntArray:
    merged = np.concatenate(pieces)
    merged.sort()
    if merged.size > 1:
        keep = np.empty(merged.size, dtype=bool)
        keep[0] = True
        np.not_equal(merged[1:], merged[:-1], out=keep[1:])
        merged = merged[keep]
    return merged


def _supernode_ends(parent: IntArray, below: list[IntArray], weights: IntArray) -> list[int]:
    """Last node of each supernode; nodes are in postorder."""
    n = weights.size
    subtree = weights.astype(np.int64)
    for j in range(n):
        if parent[j] >= 0:
            subtree[parent[j]] += subtree[j]
    small = subtree <= _RELAX
    ends: list[int] = []
    width, stored = 0, 0
    for j in range(n):
        w, r = int(weights[j]), int(weights[below[j]].sum())
        own = _trapezoid(w, r)
        if ends and _joins(parent, ends[-1], j, small, width + w, stored + own, r):
            ends[-1] = j
            width, stored = width + w, stored + own
        else:
            ends.append(j)
            width, stored = w, own
    return ends


def _joins(parent: IntArray, last: int, j: int, small: np.ndarray, width: int, stored: int, r: int) -> bool:
    """Does node j go into the supernode that ends with node `last`, just before it?"""
    if parent[last] >= 0 and small[parent[last]]:
        return True  # both are inside the same small subtree
    zeros = 1.0 - stored / _trapezoid(width, r)
    return bool(parent[last] == j and zeros <= (_ZEROS_NARROW if width <= _RELAX else _ZEROS))


def _trapezoid(width: int, below: int) -> int:
    return width * (width + 1) // 2 + width * below


def _shapes(ends: list[int], below: list[IntArray], first: IntArray, weights: IntArray) -> Shapes:
    """Supernodes in terms of columns of the matrix, from the last node of each."""
    last = np.array(ends, dtype=np.intp)
    rows = [_expand(below[end], first, weights) for end in ends]
    starts = first[np.concatenate([[0], last[:-1] + 1])] if ends else np.zeros(0, dtype=np.intp)
    counts = np.array([one.size for one in rows], dtype=np.intp)
    upward = np.array([one[0] if one.size else -1 for one in rows], dtype=np.intp)
    parents = np.where(upward >= 0, np.searchsorted(starts, upward, side="right") - 1, -1)
    flat = np.concatenate(rows) if rows else np.zeros(0, dtype=np.intp)
    return Shapes(starts, first[last + 1] - starts, counts, flat, parents)


def _with_leaves(met: SparseMatrix, widths: IntArray, first: IntArray, weights: IntArray, above: Shapes) -> Shapes:
    """The supernodes with those of leaves before them, each of which is one node."""
    met.sort_indices()
    starts = np.cumsum(widths) - widths
    rows = _expand(met.indices, first, weights)
    own = np.repeat(np.arange(widths.size), np.diff(met.indptr))
    counts = np.bincount(own, weights=weights[met.indices], minlength=widths.size).astype(np.intp)
    parents = np.full(widths.size, -1)
    some = np.flatnonzero(counts)
    least = rows[(np.cumsum(counts) - counts)[some]]
    parents[some] = widths.size + np.searchsorted(above.starts, least, side="right") - 1
    moved = np.where(above.parents >= 0, above.parents + widths.size, -1)
    parts = zip((starts, widths, counts, rows, parents), (*_arrays(above)[:4], moved), strict=True)
    return Shapes(*(np.concatenate(pair).astype(np.intp) for pair in parts))


def _arrays(shapes: Shapes) -> tuple[IntArray, ...]:
    return shapes.starts, shapes.widths, shapes.counts, shapes.rows, shapes.parents


def _layout(columns: IntArray, places: IntArray, shapes: Shapes) -> Symbolic:
    """Where panels stand, and which supernodes are worked on together."""
    heights = shapes.heights
    batched = _batched(shapes, heights)
    # Panels of one batch stand one after the other.
    kind = np.stack([batched * shapes.counts, batched * shapes.widths, np.where(batched, heights, heights.size)])
    order = np.lexsort((np.arange(heights.size), *kind))
    sizes = shapes.sizes[order]
    offsets = np.empty(order.size, dtype=np.intp)
    offsets[order] = np.cumsum(sizes) - sizes
    together = order[: int(batched.sum())]
    changes = np.flatnonzero(np.diff(kind[:, together], axis=1).any(axis=0)) + 1
    batches = [_batch(shapes, offsets, own) for own in np.split(together, changes) if own.size]
    nodes = _alone(shapes, offsets, np.flatnonzero(~batched))
    return Symbolic(columns, places, shapes, offsets, tuple(batches), tuple(nodes), _peak_updates(nodes))


def _batched(shapes: Shapes, heights: IntArray) -> BoolArray:
    """Small supernodes without large descendants, up to a height where the list of positions is long enough."""
    small = (shapes.widths <= _BATCH_WIDTH) & (shapes.counts <= _BATCH_ROWS)
    for s, parent in enumerate(shapes.parents.tolist()):
        if parent >= 0 and not small[s]:
            small[parent] = False
    listed = np.where(small, shapes.counts * (shapes.counts + 1) // 2, 0)
    whole = np.cumsum(np.bincount(heights, weights=listed))
    found: BoolArray = small & (whole[heights] <= _LISTED)
    return found


def _batch(shapes: Shapes, offsets: IntArray, own: IntArray) -> SupernodeBatch:
    r = int(shapes.counts[own[0]])
    rows = shapes.rows[(shapes.ends - shapes.counts)[own][:, None] + np.arange(r)]
    i, j = np.tril_indices(r)
    targets = _positions(shapes, offsets, rows[:, j], rows[:, i]) if r else np.zeros((own.size, 0), dtype=np.intp)
    return SupernodeBatch(shapes.starts[own], int(shapes.widths[own[0]]), rows, targets, int(offsets[own[0]]))


def _alone(shapes: Shapes, offsets: IntArray, chosen: IntArray) -> list[Supernode]:
    """Supernodes that are worked on one by one; with each all its ancestors are among them."""
    place = np.full(shapes.starts.size + 1, -1)
    place[chosen] = np.arange(chosen.size)
    first_child = np.full(chosen.size + 1, -1)
    for s in range(chosen.size - 1, -1, -1):
        first_child[place[shapes.parents[chosen[s]]]] = s
    ends = shapes.ends
    rows = [shapes.rows[ends[s] - shapes.counts[s] : ends[s]] for s in chosen]
    nodes = []
    for s, own in enumerate(chosen):
        up = int(place[shapes.parents[own]])
        relative = np.zeros(0, dtype=np.intp)
        if up >= 0:
            start, width = int(shapes.starts[chosen[up]]), int(shapes.widths[chosen[up]])
            inside = rows[s] < start + width
            relative = np.where(inside, rows[s] - start, width + np.searchsorted(rows[up], rows[s]))
        start, width = int(shapes.starts[own]), int(shapes.widths[own])
        nodes.append(Supernode(start, width, rows[s], up, relative, int(offsets[own]), int(first_child[s])))
    return nodes


def _peak_updates(nodes: list[Supernode]) -> int:
    """Largest number of elements of updates that wait for their parents, with the front that is being worked on."""
    waiting, peak = 0, 0
    received = [0] * len(nodes)
    for s, node in enumerate(nodes):
        front = (node.width + node.rows.size) ** 2 if node.rows.size else 0  # a root is worked on in its panel
        peak = max(peak, waiting + 2 * front)
        waiting += node.rows.size**2 - received[s]
        if node.parent >= 0:
            received[node.parent] += node.rows.size**2
    return peak


def _expand(nodes: IntArray, first_column: IntArray, weights: IntArray) -> IntArray:
    """Columns of some nodes, all nodes numbered in the final order."""
    counts = weights[nodes]
    total = int(counts.sum())
    within = np.arange(total) - np.repeat(np.cumsum(counts) - counts, counts)
    out: IntArray = np.repeat(first_column[nodes], counts) + within
    return out


class SparseCholesky:
    """L with L L' = P S P', at one set of values.

    Parameters
    ----------
    symbolic : Symbolic
    positions : ndarray of int
        `Symbolic.panel_positions` of the elements of S that are given.
    values : ndarray
        Those elements.

    Raises
    ------
    LinAlgError
        When S is not positive definite.
    """

    def __init__(self, symbolic: Symbolic, positions: IntArray, values: FloatArray) -> None:
        self.symbolic = symbolic
        panels = np.zeros(symbolic.panel_size)
        panels[positions] = values
        self.panels = panels
        updates: dict[int, list[tuple[IntArray, FloatArray]]] = {}
        log_det = sum(batch.factorize(panels) for batch in symbolic.batches)
        for s, node in enumerate(symbolic.nodes):
            L, R = self._panel(panels, node)
            F22 = _gather(updates.pop(s, []), L, R)
            # L is in C order: its transpose is an upper triangular matrix in Fortran order, factored in place.
            U = upper_cholesky(L.T, clean=True)
            log_det += float(np.log(U.diagonal()).sum())
            if not node.rows.size:
                continue
            R[:] = blas.dtrsm(1.0, U, R.T, lower=0, trans_a=1).T
            change = R @ R.T
            F22 = np.negative(change, out=change) if F22 is None else np.subtract(F22, change, out=F22)
            updates.setdefault(node.parent, []).append((node.relative, F22))
        self.log_det = 2.0 * log_det

    @staticmethod
    def _panel(panels: FloatArray, node: Supernode) -> tuple[FloatArray, FloatArray]:
        """The triangle and the rectangle of a supernode, as views."""
        w = node.width
        middle = node.offset + w * w
        L = panels[node.offset : middle].reshape(w, w)
        return L, panels[middle : middle + w * node.rows.size].reshape(-1, w)

    def solve(self, right: FloatArray) -> FloatArray:
        """S^-1 right, shape (q, c)."""
        out = np.empty(right.shape)
        step = max(1, _SOLVED // max(1, right.shape[0]))
        for start in range(0, right.shape[1], step):
            own = slice(start, start + step)
            out[self.symbolic.columns, own] = self._solved(right[self.symbolic.columns, own])
        return out

    def _solved(self, x: FloatArray) -> FloatArray:
        """The same in the order of the factor, in place."""
        for batch in self.symbolic.batches:
            batch.forward(self.panels, x)
        for node in self.symbolic.nodes:
            L, R = self._panel(self.panels, node)
            own = slice(node.start, node.start + node.width)
            x[own] = blas.dtrsm(1.0, L.T, x[own], lower=0, trans_a=1)
            if node.rows.size:
                x[node.rows] -= R @ x[own]
        for node in reversed(self.symbolic.nodes):
            L, R = self._panel(self.panels, node)
            own = slice(node.start, node.start + node.width)
            rest = x[own] - R.T @ x[node.rows] if node.rows.size else x[own]
            x[own] = blas.dtrsm(1.0, L.T, rest, lower=0)
        for batch in reversed(self.symbolic.batches):
            batch.backward(self.panels, x)
        return x

    def inverse(self) -> FloatArray:
        """Elements of S^-1 on the pattern of the factor, in the layout of the panels."""
        out = np.empty(self.panels.size)
        fronts: dict[int, FloatArray] = {}
        for s in range(len(self.symbolic.nodes) - 1, -1, -1):
            node = self.symbolic.nodes[s]
            L, R = self._panel(self.panels, node)
            own, below = self._panel(out, node)
            own[:] = L
            # In place: the last front can be as large as all others together.
            _, info = lapack.dpotri(own.T, lower=0, overwrite_c=1)
            if info != 0:
                raise np.linalg.LinAlgError("the factor is not positive definite")
            mirror(own)
            rest = None
            if node.rows.size:
                rest = fronts[node.parent][np.ix_(node.relative, node.relative)]
                W = blas.dtrsm(1.0, L.T, R.T, lower=0).T
                below[:] = rest @ W
                own += W.T @ below
                np.negative(below, out=below)
            if node.first_child >= 0:
                fronts[s] = _front(own, below, rest)
            self._drop(fronts, s)
        for batch in reversed(self.symbolic.batches):
            batch.invert(self.panels, out)
        return out

    def _drop(self, fronts: dict[int, FloatArray], s: int) -> None:
        """Forget the front of the parent when its first child is done."""
        parent = self.symbolic.nodes[s].parent
        if parent >= 0 and self.symbolic.nodes[parent].first_child == s:
            del fronts[parent]


def _gather(children: list[tuple[IntArray, FloatArray]], L: FloatArray, R: FloatArray) -> FloatArray | None:
    """Add the updates of the children to the panel of a front; what falls outside it is returned."""
    if not children:
        return None
    w, r = L.shape[0], R.shape[0]
    F22 = np.zeros((r, r)) if r else None
    for relative, update in children:
        a = int(np.searchsorted(relative, w))
        head, tail = relative[:a], relative[a:] - w
        L[head[:, None], head] += update[:a, :a]
        if F22 is not None and tail.size:
            R[tail[:, None], head] += update[a:, :a]
            F22[tail[:, None], tail] += update[a:, a:]
    return F22


def _front(own: FloatArray, below: FloatArray, rest: FloatArray | None) -> FloatArray:
    if rest is None:
        return own
    w, r = own.shape[0], below.shape[0]
    front = np.empty((w + r, w + r))
    front[:w, :w] = own
    front[w:, :w] = below
    front[:w, w:] = below.T
    front[w:, w:] = rest
    return front
