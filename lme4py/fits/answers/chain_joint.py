"""The joint covariance of estimates and conditional modes of a model with a term of many times.

As `lme4py.fits.answers.joint`, with the effects of the chain at every time: the parts of K = Lambda M^-1 Lambda' that
rows need are on the pattern of the tridiagonal inverse, or belong to the other effects, which are few.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lme4py.engine.factor.chain import ChainSwept
from lme4py.errors import OptionError
from lme4py.fits.answers.joint import JointVariance
from lme4py.fits.rows.arrays import RowArrays
from lme4py.linalg.types import FloatArray, sparse

__all__ = ["ChainJoint"]

# Weights of times below this part of the largest one of a row are zeros.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class ChainJoint(JointVariance):
    """The parts of the joint covariance in the engine's columns.

    As in `JointVariance`, with ``chained``, the factor with a level for every group at every time, and `P` for it.
    """

    chained: ChainSwept = field(kw_only=True)

    def parts(self, rows: RowArrays) -> tuple[FloatArray, FloatArray]:
        chain, swept = self.chained.sweeper.chain, self.chained
        own = self._chain_rows(rows)
        rest = self._rest_rows(rows)
        P = [self.P[f] for f in swept.sweeper.structure.dense]
        moved = rows.X @ self.C - own @ self.P[chain]
        random = _row_sums(own @ swept.covariance_on_pattern, own)
        if P:
            moved = moved - rest @ np.concatenate(P)
            random = random + _row_sums(rest @ swept.rest_covariance, rest)
            random = random + 2.0 * _row_sums(own @ swept.covariance_with_rest, rest)
        return moved, random

    def _chain_rows(self, rows: RowArrays) -> Any:
        """Z of the effects of the chain, (n, J k): one time in each row, or two that follow each other."""
        layout = self.chained.sweeper.levels.layout
        t = self.chained.sweeper.factors[self.chained.sweeper.chain].terms[0]
        shape = (rows.n, layout.size)
        if t not in rows.codes:
            return sparse.csr_array(shape)
        known = np.flatnonzero(rows.codes[t] >= 0)
        weights = rows.values[t][known]
        # Between two times others have no weight but rounding.
        row, column = np.nonzero(np.abs(weights) > _ROUNDING * np.abs(weights).max(axis=1, keepdims=True, initial=0.0))
        apart = np.diff(column)[np.diff(row) == 0]
        if (np.bincount(row, minlength=1) > 2).any() or (apart > 1).any():
            raise OptionError(
                f"errors of predictions of {self.design.terms[t].label} with {layout.n_columns:,} times are known for "
                "rows at one time, or between two times that follow each other."
            )
        values = weights[row, column] * self.S[t][0, 0]
        places = rows.codes[t][known][row].astype(np.intp) * layout.n_columns + column
        return sparse.coo_array((values, (known[row], places)), shape=shape).tocsr()

    def _rest_rows(self, rows: RowArrays) -> Any:
        """Z of all other effects, (n, q)."""
        structure, factors = self.chained.sweeper.structure, self.chained.sweeper.factors
        row, place, values = [np.zeros(0, dtype=np.intp)], [np.zeros(0, dtype=np.intp)], [np.zeros(0)]
        for f, start in zip(structure.dense, structure.dense_offsets, strict=True):
            Z, codes = self._columns(rows, factors[f]), self._codes(rows, factors[f])
            for a, z in enumerate(Z.T):
                used = np.flatnonzero(z)
                row.append(used)
                place.append(start + a * factors[f].n_levels + codes[used].astype(np.intp))
                values.append(z[used])
        index = (np.concatenate(row), np.concatenate(place))
        return sparse.coo_array((np.concatenate(values), index), shape=(rows.n, structure.dense_size)).tocsr()


def _row_sums(left: Any, right: Any) -> FloatArray:
    """Sums of the products of the elements of two matrices, by row."""
    product = right.multiply(left)
    return np.asarray(product.sum(axis=1), dtype=np.float64).ravel()
