"""Sparse Cholesky factor of a fixed pattern by supernodes: factorise, solve, and elements of the inverse.

Columns of L with (nearly) the same pattern form a supernode, whose work is done on one small dense matrix, the
front (multifrontal method; Duff & Reid 1983, ACM Trans. Math. Softw. 9:302). The elements of the inverse on the
pattern of L follow from the last supernode to the first (Takahashi, Fagan & Chin 1973). Order and pattern do not
depend on the values, since a positive definite matrix needs no pivots; all positions are found once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg.blas as blas
import scipy.linalg.lapack as lapack

from lme4py.linalg.cholesky import mirror, upper_cholesky
from lme4py.linalg.ordering import Ordering
from lme4py.linalg.types import FloatArray, IntArray, SparseMatrix, sparse

# Subtrees of up to this many columns become one supernode: stored zeros cost less than another round of the loop.
_RELAX = 24
# Part of stored zeros that joining a supernode with the next node may bring, for wide and for narrow ones.
_ZEROS, _ZEROS_NARROW = 0.2, 0.5


@dataclass(frozen=True)
class Supernode:
    """Columns ``start : start + width`` of L with `rows` below them.

    Attributes
    ----------
    parent : int
        Supernode that takes its update; -1 for a root.
    relative : ndarray of int
        Places of `rows` in the front of the parent.
    offset : int
        Where its panel, (width + rows.size, width) in C order, begins in the vector of all panels.
    first_child : int
        Its child that comes first; -1 for a leaf.
    """

    start: int
    width: int
    rows: IntArray
    parent: int
    relative: IntArray
    offset: int
    first_child: int


@dataclass(frozen=True)
class Symbolic:
    """Order and pattern of the factor.

    Attributes
    ----------
    columns : ndarray of int, shape (q,)
        Column of the matrix at each place of the order.
    places : ndarray of int, shape (q,)
        Its inverse.
    nodes : tuple of Supernode
        Children before their parents.
    panel_size : int
        Stored elements.
    flops : float
        Multiplications and additions of one factorisation.
    peak_updates : int
        Elements of all fronts and updates that are alive at one time.
    """

    columns: IntArray
    places: IntArray
    nodes: tuple[Supernode, ...]
    panel_size: int
    flops: float
    peak_updates: int

    @property
    def largest_front(self) -> int:
        """Rows of the largest front."""
        return max(node.width + node.rows.size for node in self.nodes)

    def panel_positions(self, rows: IntArray, columns: IntArray) -> IntArray:
        """Where elements of the matrix stand in the vector of panels; (i, j) and (j, i) are the same element."""
        q = self.columns.size
        a, b = self.places[rows], self.places[columns]
        low, high = np.minimum(a, b), np.maximum(a, b)
        starts = np.array([node.start for node in self.nodes])
        widths = np.array([node.width for node in self.nodes])
        offsets = np.array([node.offset for node in self.nodes])
        counts = np.array([node.rows.size for node in self.nodes])
        owner = np.searchsorted(starts, low, side="right") - 1
        local = high - starts[owner]
        below = np.flatnonzero(local >= widths[owner])
        keys = np.concatenate([s * q + node.rows for s, node in enumerate(self.nodes)])
        first = np.cumsum(counts) - counts
        of = owner[below]
        local[below] = widths[of] + np.searchsorted(keys, of * q + high[below]) - first[of]
        out: IntArray = offsets[owner] + local * widths[owner] + low - starts[owner]
        return out


def analyse_pattern(graph: SparseMatrix, ordering: Ordering, node_columns: list[IntArray]) -> Symbolic:
    """Supernodes of the factor in a given order.

    Parameters
    ----------
    graph : csr_array, shape (N, N)
        Symmetric pattern of the nodes, without a diagonal.
    ordering : Ordering
    node_columns : list of ndarray of int
        Columns of the matrix that each node stands for.
    """
    tree = _Tree(graph, ordering)
    order = tree.postorder()
    label = np.empty(order.size, dtype=np.intp)
    label[order] = np.arange(order.size)
    weights = np.array([columns.size for columns in node_columns])
    weights = weights[ordering.order[order]]
    below = [np.sort(label[tree.below(int(node))]) for node in order]
    parent = np.array([rows[0] if rows.size else -1 for rows in below])
    ends = _supernode_ends(parent, below, weights)
    columns = np.concatenate([node_columns[v] for v in ordering.order[order]])
    return _layout(ends, parent, below, weights, columns)


class _Tree:
    """Patterns of the columns of L and the elimination tree, in the given order of the nodes."""

    def __init__(self, graph: SparseMatrix, ordering: Ordering) -> None:
        self.n = n = ordering.order.size
        place = np.empty(n, dtype=np.int32)
        place[ordering.order] = np.arange(n, dtype=np.int32)
        G = graph.tocoo()
        rows, columns = place[G.row], place[G.col]
        upper = columns > rows
        U: SparseMatrix = sparse.coo_array(
            (np.ones(int(upper.sum()), dtype=np.int8), (rows[upper], columns[upper])), shape=(n, n)
        )
        U = U.tocsr()
        self.patterns: list[IntArray] = []
        # From the first full column on all columns are full.
        self.n_sparse = n - ordering.n_open
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


def _layout(ends: list[int], parent: IntArray, below: list[IntArray], weights: IntArray, columns: IntArray) -> Symbolic:
    """Supernodes in terms of columns of the matrix."""
    first_column = np.concatenate([[0], np.cumsum(weights)])
    last = np.array(ends)
    owner = np.searchsorted(last, np.arange(weights.size))
    first_child = np.full(last.size, -1)
    rows = [_expand(below[end], first_column, weights) for end in ends]
    starts = [int(first_column[end + 1]) for end in [-1, *ends[:-1]]]
    widths = [int(first_column[end + 1]) - start for end, start in zip(ends, starts, strict=True)]
    nodes = []
    offset, flops = 0, 0.0
    for s, end in enumerate(ends):
        up = int(owner[parent[end]]) if parent[end] >= 0 else -1
        relative = np.zeros(0, dtype=np.intp)
        if up >= 0:
            if first_child[up] < 0:
                first_child[up] = s
            inside = rows[s] < starts[up] + widths[up]
            relative = np.where(inside, rows[s] - starts[up], widths[up] + np.searchsorted(rows[up], rows[s]))
        w, r = widths[s], rows[s].size
        nodes.append(Supernode(starts[s], w, rows[s], up, relative, offset, int(first_child[s])))
        offset += w * (w + r)
        flops += w**3 / 3 + w * w * r + w * r * r
    places = np.empty(columns.size, dtype=np.intp)
    places[columns] = np.arange(columns.size)
    return Symbolic(columns, places, tuple(nodes), offset, flops, _peak_updates(nodes))


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
        log_det = 0.0
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
        x = right[self.symbolic.columns]
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
        out = np.empty_like(x)
        out[self.symbolic.columns] = x
        return out

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
