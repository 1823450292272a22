"""Cross-products Z'WZ for weights that change: the pattern once, then one sparse product per set of weights.

All distinct elements of the blocks of Z'WZ stand in one vector v = P w. The arrays that the elimination starts from
are gathered from v, and the derivative of any function of them comes back to the weights by the transpose:
df/dw = P' df/dv. For f = log|M| this is h, the diagonal of Z Lambda M^-1 Lambda'Z'.
"""

from __future__ import annotations

import numpy as np

from lme4py.compiled.groups import AT_ONCE, group_sum, predictor, weighted_cross, weighted_sums
from lme4py.engine.factor.crossproducts import CrossProducts, Edges, Factor
from lme4py.engine.factor.forecast import check_levels
from lme4py.engine.factor.sweep import BaseValues, Swept
from lme4py.engine.generalised.elements import Elements
from lme4py.engine.generalised.stacking import Stack
from lme4py.frozen import computed_once
from lme4py.linalg import small
from lme4py.linalg.types import FloatArray, IntArray, SparseMatrix, sparse

_NONE = np.zeros(0)
# Up to this many columns of the only grouping factor Z'WZ b is made of the diagonal blocks.
_FEW = 8


class WeightedProducts(Elements):
    """Prepared products of the random-effects columns.

    Parameters
    ----------
    codes : tuple of ndarray of int, each (n,)
        Level of each row, one per grouping factor.
    Z : tuple of ndarray, each (n, k)
        Columns of each grouping factor.
    factors : tuple of Factor
    block : {"auto", "dense", "sparse"}
        As in `lme4py.engine.factor.symbolic.analyse`.
    places : tuple of tuple of int, optional
        The linear predictor of each column of each grouping factor, 0 .. D-1, where there are several.

    Attributes
    ----------
    codes : tuple of ndarray of int, each (n,)
        As given.
    stack : Stack
        How the predictors stand in one column.
    blocks : tuple of ndarray, each (n, k)
        Columns of each grouping factor, as given.
    """

    def __init__(
        self,
        codes: tuple[IntArray, ...],
        Z: tuple[FloatArray, ...],
        factors: tuple[Factor, ...],
        block: str = "auto",
        places: tuple[tuple[int, ...], ...] | None = None,
    ) -> None:
        check_levels(factors)
        super().__init__(factors)
        self.n = int(codes[0].size)
        self.codes, self.blocks = codes, Z
        self.places = tuple((0,) * z.shape[1] for z in Z) if places is None else places
        self.stack = Stack(self.n, 1 + max(max(own) for own in self.places))
        self._P_parts: list[tuple[IntArray, FloatArray, int]] = []
        cross = self._numbered(codes, Z)
        # As an index of arrays: any other type is converted in every sum.
        self._codes = codes[0].astype(np.intp) if _is_indicator(Z) and self.stack.size == 1 else None
        self._P, self._Pt = self._matrix()
        self._analysed(cross, block)

    # -- preparation ---------------------------------------------------------------------------------------------

    def _numbered(self, codes: tuple[IntArray, ...], Z: tuple[FloatArray, ...]) -> CrossProducts:
        """Cross-products whose values are positions in v."""
        every = range(len(self.factors))
        diagonal = tuple(self._diagonal(codes[s], Z[s], s) for s in every)
        edges = {(s, t): self._edges(codes, Z, s, t) for s in every for t in every[s + 1 :]}
        border = tuple(np.zeros((factor.n_columns, factor.n_levels, 1)) for factor in self.factors)
        return CrossProducts(diagonal, edges, border, np.zeros((0, 0)), self.n, 0.0)

    def _reserve(self, places: IntArray, values: FloatArray, count: int, pair: tuple[int, int]) -> FloatArray:
        """Room for `count` elements, to which row i adds values_i at `places`, times its weight; their numbers."""
        number = self.stack.pairs.index((min(pair), max(pair)))
        self._P_parts.append((places + self._next, values, number))
        numbers = np.arange(self._next, self._next + count, dtype=float)
        self._next += count
        return numbers

    def _diagonal(self, codes: IntArray, Z: FloatArray, factor: int) -> FloatArray:
        k, n_levels, own = Z.shape[1], self.factors[factor].n_levels, self.places[factor]
        # Columns that are never different from zero together, such as those of many times, have the number of a zero.
        out = np.zeros((k, k, n_levels))
        used = (Z != 0.0).astype(float)
        meet = used.T @ used > 0.0
        for a in range(k):
            for b in np.flatnonzero(meet[a, : a + 1]).tolist():
                numbers = self._reserve(codes, Z[:, a] * Z[:, b], n_levels, (own[a], own[b]))
                out[a, b] = out[b, a] = numbers
        return out

    def _edges(self, codes: tuple[IntArray, ...], Z: tuple[FloatArray, ...], s: int, t: int) -> Edges:
        width = self.factors[t].n_levels
        keys, place = np.unique(codes[s].astype(np.intp) * width + codes[t], return_inverse=True)
        values = np.array(
            [
                [self._reserve(place, x * z, keys.size, (d, e)) for e, z in zip(self.places[t], Z[t].T, strict=True)]
                for d, x in zip(self.places[s], Z[s].T, strict=True)
            ]
        )
        return Edges(keys // width, keys % width, values)

    def _matrix(self) -> tuple[SparseMatrix, SparseMatrix]:
        """P and its transpose as CSR; a random intercept alone needs neither."""
        if self._codes is not None:
            self._P_parts = []
            return None, None
        places = np.concatenate([part[0] for part in self._P_parts])
        values = np.concatenate([part[1] for part in self._P_parts])
        rows = np.concatenate([np.arange(number * self.n, (number + 1) * self.n) for *_, number in self._P_parts])
        self._P_parts = []
        if not values.all():
            # Of many times each row has one.
            kept = np.flatnonzero(values)
            places, values, rows = places[kept], values[kept], rows[kept]
        P = sparse.coo_array((values, (places, rows)), shape=(self._next, len(self.stack.pairs) * self.n)).tocsr()
        return P, P.T.tocsr()

    @computed_once
    def rows(self) -> SparseMatrix:
        """Z as CSR, (D n, Q), the predictors one below the other; columns run over factors, their columns, levels.

        A random intercept alone hardly needs it.
        """
        own = range(self.stack.size)
        parts = [_matrix_of_columns(self.codes, self.blocks, self.factors, self.places, d) for d in own]
        return parts[0] if len(parts) == 1 else sparse.vstack(parts, format="csr")

    @computed_once
    def columns(self) -> SparseMatrix:
        """Z' as CSR, (Q, D n)."""
        return self.rows.T.tocsr()

    # -- every set of weights ------------------------------------------------------------------------------------

    def base(self, w: FloatArray) -> BaseValues:
        """Blocks of Z'WZ in the layout of the elimination.

        Parameters
        ----------
        w : ndarray, shape (n,), or (n_pairs n,)
        """
        if self._codes is None:
            v = self._P @ w
        else:
            v = np.empty(self._next)
            v[0] = 0.0
            v[1:] = group_sum(self._codes, w, v.size - 1)
        return self.base_of(v)

    def factorize(self, T: list[FloatArray], w: FloatArray) -> Swept:
        """Factor of I + Lambda'Z'WZ Lambda; LinAlgError when it is not positive definite."""
        return self.factor_of(T, self.base(w))

    def spread(self, b: FloatArray) -> FloatArray:
        """Z b, (D n,), or (D n, c) of columns b (Q, c)."""
        if self._codes is None:
            out: FloatArray = self.rows @ b
            return out
        if b.ndim == 1:
            return b.take(self._codes)
        columns = np.empty((self.n, b.shape[1]), order="F")
        for own, column in zip(columns.T, b.T, strict=True):
            # Codes are places of b: "clip" leaves out the buffer that a check would need.
            column.take(self._codes, out=own, mode="clip")
        return columns

    def gather(self, x: FloatArray) -> FloatArray:
        """Z' x, (Q,)."""
        if self._codes is not None:
            return group_sum(self._codes, x, self.factors[0].n_levels)
        out: FloatArray = self.columns @ x
        return out

    def predictor(self, b: FloatArray, X: FloatArray, beta: FloatArray, start: FloatArray) -> FloatArray:
        """start + X beta + Z b, (D n,)."""
        if self._codes is not None:
            out = np.empty(self.n)
            predictor(self._codes, b, as_rows(X), beta, start, out, AT_ONCE)
            return out
        return predicted(self.rows @ b, X, beta, start)

    def weighted_sums(
        self, b: FloatArray, X: FloatArray, beta: FloatArray, w: FloatArray, start: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Z'x, (Q,), and X'x, (p,), of x = start + W (X beta + Z b); beta may be empty."""
        if self._codes is not None:
            return weighted_sums(self._codes, b, as_rows(X), beta, w, start, AT_ONCE)
        x = self.stack.weigh(w, predicted(self.rows @ b, X, beta))
        x += start
        return self.columns @ x, X.T @ x

    def weighted_cross(
        self, w: FloatArray, X: FloatArray, swept: Swept | None = None
    ) -> tuple[list[FloatArray], FloatArray]:
        """Z'W X, (k J, p) for each grouping factor, and X'W X, (p, p).

        Parameters
        ----------
        w : ndarray, shape (n,), or (n_pairs n,)
        X : ndarray, shape (D n, p)
        swept : Swept, optional
            The factor of these weights, where the first column of X is ones: what these give is in it already.
        """
        if self._codes is not None:
            first = _NONE if swept is None else swept.base.diagonal[0][0, 0]
            sums, cross = weighted_cross(self._codes, w, as_rows(X), self.factors[0].n_levels, AT_ONCE, first)
            return [sums], cross
        weighted = self.stack.weigh(w, X)
        return self.project(weighted), X.T @ weighted

    def normal(self, swept: Swept, w: FloatArray, b: FloatArray) -> FloatArray:
        """Z'WZ b, (Q,), or (Q, c) of columns b; the factor is of these weights."""
        if len(self.factors) == 1 and self.factors[0].n_columns <= _FEW:
            A = swept.base.diagonal[0]
            k, J = A.shape[1:]
            if b.ndim == 1:
                return np.asarray(small.product(A, b.reshape(k, 1, J))).ravel()
            return small.apply(A, b.reshape(k, J, -1)).reshape(k * J, -1)
        weighted = self.stack.weigh(w, self.spread(b))
        return self.gather(weighted) if b.ndim == 1 else np.concatenate(self.project(weighted))

    def project(self, columns: FloatArray) -> list[FloatArray]:
        """Z' columns, (k J, c) for each grouping factor."""
        if self._codes is not None:
            out = np.empty((self.factors[0].n_levels, columns.shape[1]))
            for own, column in zip(out.T, columns.T, strict=True):
                own[:] = self.gather(column)
            return [out]
        return self.split(self.columns @ columns)

    def solve(self, swept: Swept, column: FloatArray) -> tuple[FloatArray, FloatArray]:
        """u = H^-1 Lambda'Z' column and b = Lambda u, each (Q,)."""
        return self.solve_gathered(swept, self.gather(column))

    def log_det_derivatives(self, swept: Swept) -> tuple[FloatArray, list[FloatArray], list[FloatArray]]:
        """Derivatives of log|M|.

        Returns
        -------
        h : ndarray, shape (n,), or (n_pairs n,)
            In w: the diagonal of Z Lambda M^-1 Lambda'Z', and twice what couples two predictors in a row.
        sigma : list of ndarray, each (k, k)
            In Sigma of each factor.
        diagonal : list of ndarray, each (k, k, J)
            In the diagonal blocks of Z'WZ: those of Lambda M^-1 Lambda'.
        """
        dv, sigma, diagonal = self.element_derivatives(swept)
        h: FloatArray = dv[1:][self._codes] if self._codes is not None else self._Pt @ dv
        return h, sigma, diagonal


def as_rows(X: FloatArray) -> FloatArray:
    """X', (p, n), each column of X in one piece.

    Parameters
    ----------
    X : ndarray, shape (n, p)
        Copied, unless its columns are in one piece.
    """
    return np.ascontiguousarray(X.T)


def predicted(random: FloatArray, X: FloatArray, beta: FloatArray, start: FloatArray | None = None) -> FloatArray:
    """start + X beta + what the random effects add, (D n,), in the place of the latter.

    Parameters
    ----------
    random : ndarray, shape (D n,)
    X : ndarray, shape (D n, p)
    beta : ndarray, shape (p,)
    start : ndarray, shape (D n,), optional
    """
    if beta.size:
        random += X @ beta
    if start is not None:
        random += start
    return random


def _is_indicator(Z: tuple[FloatArray, ...]) -> bool:
    """One random intercept and nothing else: Z b is a look-up, Z'x a count."""
    return len(Z) == 1 and Z[0].shape[1] == 1 and bool((Z[0] == 1.0).all())


def _matrix_of_columns(
    codes: tuple[IntArray, ...],
    Z: tuple[FloatArray, ...],
    factors: tuple[Factor, ...],
    predictors: tuple[tuple[int, ...], ...],
    wanted: int,
) -> SparseMatrix:
    """The rows of Z of one predictor as CSR."""
    n = codes[0].size
    places, values, start = [], [], 0
    for c, z, factor, own in zip(codes, Z, factors, predictors, strict=True):
        for a in range(factor.n_columns):
            if own[a] == wanted:
                places.append(start + c)
                values.append(z[:, a])
            start += factor.n_levels
    width = len(places)
    indices = np.stack(places, axis=1).ravel() if width else np.zeros(0, dtype=np.intp)
    data = np.stack(values, axis=1).ravel() if width else np.zeros(0)
    return sparse.csr_array((data, indices, np.arange(n + 1) * width), shape=(n, start))
