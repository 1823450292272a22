"""A generalised model with a term of many times, whose levels are eliminated first in O(m).

The factor M is that of `lme4py.engine.factor.chain` with the weights of each step. The spherical effects u of the chain
are independent: b = s C u, with C the root of its correlations, a product in O(m); so are dC u, and all that the
gradient of Laplace's approximation asks of the chain.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lme4py.covariance import CovarianceStructures
from lme4py.covariance.chain_levels import ChainLevels
from lme4py.covariance.relations.chains import ChainRelation
from lme4py.engine.factor.chain import ChainSweeper, ChainSwept, chain_base, chain_structure
from lme4py.engine.factor.crossproducts import CrossProducts, Factor
from lme4py.engine.factor.sweep import BaseValues, SweptBorder
from lme4py.engine.generalised.products import WeightedProducts
from lme4py.linalg.types import FloatArray, IntArray

__all__ = ["ChainPart", "ChainProducts"]


@dataclass(frozen=True)
class ChainPart:
    """The chain of a problem.

    Attributes
    ----------
    factor, term : int
        Its grouping factor, which has no other term.
    place : slice
        Of its levels among all effects.
    levels : ChainLevels
    """

    factor: int
    term: int
    place: slice
    levels: ChainLevels

    def relation(self, T: list[FloatArray]) -> ChainRelation:
        """The correlations of the levels, from T of every grouping factor."""
        return self.levels.relation(T[self.factor][0])

    def effects(self, T: list[FloatArray], u: FloatArray, transpose: bool = False) -> FloatArray:
        """s C u, or s C'u, of the levels, (m,)."""
        relation, column = self.relation(T), u[:, None]
        moved = relation.root_transposed(column) if transpose else relation.root(column)
        return np.asarray(T[self.factor][0, 0] * moved[:, 0])

    def slopes(
        self, T: list[FloatArray], pairs: tuple[tuple[FloatArray, FloatArray], ...], G: FloatArray
    ) -> FloatArray:
        """Derivatives in (s, phi), (1, 2), of the sum of x'Lambda u over pairs of fixed x, u, and of log|M|.

        Parameters
        ----------
        T : list of ndarray
        pairs : tuple of (ndarray, ndarray), each (Q,)
        G : ndarray, shape (1, 2)
            Derivatives of log|M| in s^2 and phi.
        """
        s, relation = float(T[self.factor][0, 0]), self.relation(T)
        left, right = (np.column_stack([pair[i][self.place] for pair in pairs]) for i in (0, 1))
        size = float(np.vdot(left, relation.root(right))) + 2.0 * s * float(G[0, 0])
        phi = s * float(np.vdot(left, relation.moved_root(right))) + float(G[0, 1])
        return np.array([[size, phi]])

    def forms(self, T: list[FloatArray], g: FloatArray) -> FloatArray:
        """g'dSigma g in s^2 and phi, (1, 2), for g of all effects, (Q,)."""
        own, relation = g[self.place, None], self.relation(T)
        h = relation.times(own)
        s = float(T[self.factor][0, 0])
        return np.array([[float(np.vdot(own, h)), s**2 * float(np.vdot(own, relation.moved(h)))]])

    def directions(self, T: list[FloatArray], g: FloatArray) -> FloatArray:
        """dSigma g in s and phi, (m, 2), for g of all effects, (Q,)."""
        relation, s = self.relation(T), float(T[self.factor][0, 0])
        h = relation.times(g[self.place, None])
        return np.column_stack([2.0 * s * h, s**2 * relation.moved(h)])

    def structures(self, own: CovarianceStructures) -> CovarianceStructures:
        """Those of the terms, with the levels of the chain for its term."""
        return CovarianceStructures((*own.each[: self.term], self.levels, *own.each[self.term + 1 :]))


class ChainProducts(WeightedProducts):
    """Prepared products of a design with a chain.

    Parameters
    ----------
    codes, Z, factors
        As in `WeightedProducts`; the chain has one column and a code for each of its levels.
    chain : ChainPart
    """

    def __init__(
        self, codes: tuple[IntArray, ...], Z: tuple[FloatArray, ...], factors: tuple[Factor, ...], chain: ChainPart
    ) -> None:
        self.chain = chain
        super().__init__(codes, Z, factors)
        # The effects u are independent: what relates the levels is in the root of their covariance.
        self.has_related = self.is_alone = False

    def _symbolic(self, cross: CrossProducts, block: str) -> BaseValues:
        f = self.chain.factor
        self.structure = chain_structure(self.factors, f)
        self.sweeper: Any = ChainSweeper(self.structure, self.factors, f, self.chain.levels)
        return chain_base(self.structure, self.factors, cross, f)

    def _numbers(self, base: BaseValues) -> None:
        super()._numbers(base)
        own = self._diagonal_from[self.chain.factor].ravel()
        self._derivative_from = np.concatenate([own, self._coupling, self._below_from])
        pattern = base.coupling
        self._coupled = np.repeat(np.arange(pattern.shape[0]), np.diff(pattern.indptr)), pattern.indices

    def element_derivatives(self, swept: Any) -> tuple[FloatArray, list[FloatArray], list[FloatArray]]:
        chained: ChainSwept = swept
        rows, columns = self._below.dense_rows, self._below.dense_columns
        parts = [
            chained.effect_variances,
            2.0 * chained.covariance_with_rest[self._coupled],
            np.where(rows == columns, 1.0, 2.0) * chained.rest_covariance[rows, columns],
        ]
        dv: Any = np.bincount(self._derivative_from, weights=np.concatenate(parts), minlength=self._next)
        return dv, chained.log_det_sigma(), [chained.effect_blocks(f) for f in range(len(self.factors))]

    def spherical(self, swept: Any, border: SweptBorder, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
        chained: ChainSwept = swept
        b, g, h = chained.solved(border, weights)
        u = {f: chained.T[f].T @ own[:, 0].reshape(self.factors[f].n_columns, -1) for f, own in g.items()}
        f, s = self.chain.factor, chained.s
        b[f], u[f] = s**2 * h, s * chained.relation.solve_root(h)
        order = range(len(self.factors))
        return np.concatenate([u[f].ravel() for f in order]), np.concatenate([b[f][:, 0] for f in order])
