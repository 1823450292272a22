"""Nested factors: averages run over the cells that exist, as in emmeans.

A factor is nested in another where each of its levels occurs in one level of the other only, or where every term of the
formula that holds it holds the other too (labels 1, 2, ... that start again in each level). Combinations of both that
do not occur are no cells of the design, and count in no average; levels that do exist within one level of the other
have the same weight. An empty cell of crossed factors is another matter: an average that needs it cannot be estimated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from lme4py.data.column import Column
from lme4py.data.frame import Frame
from lme4py.linalg.types import BoolArray, FloatArray

__all__ = ["NestedCells", "nested_cells"]


@dataclass(frozen=True)
class NestedCells:
    """Pairs of a nested factor and the one around it, with the combinations of their values that occur.

    Attributes
    ----------
    pairs : dict of (str, str) to set of (value, value)
        Codes of factors; numbers as they are.
    """

    pairs: Mapping[tuple[str, str], frozenset[tuple[float, float]]]

    def weights(self, frame: Frame) -> FloatArray:
        """Weights of the rows of a balanced grid, (n,), up to a factor: zero for those that are no cells of the design.

        Parameters
        ----------
        frame : Frame
            With the levels of the training data.
        """
        occurs = self._occur(frame)
        out = occurs.astype(np.float64)
        for inner in dict.fromkeys(inner for inner, _ in self.pairs):
            around = [frame.column(outer).values[occurs] for name, outer in self.pairs if name == inner]
            _, place = np.unique(np.column_stack(around), axis=0, return_inverse=True)
            own = np.unique(np.column_stack([place.ravel(), frame.column(inner).values[occurs]]), axis=0)
            out[occurs] /= np.bincount(own[:, 0].astype(np.intp))[place.ravel()]
        return out

    def _occur(self, frame: Frame) -> BoolArray:
        """Which rows are cells of the design, (n,)."""
        out = np.ones(frame.n_rows, dtype=bool)
        for (inner, outer), known in self.pairs.items():
            both = zip(frame.column(inner).values.tolist(), frame.column(outer).values.tolist(), strict=True)
            out &= np.fromiter((pair in known for pair in both), dtype=bool, count=frame.n_rows)
        return out


def nested_cells(
    columns: Mapping[str, Column], factors: Sequence[str], terms: Sequence[frozenset[str]]
) -> NestedCells | None:
    """The nested factors of a model; None where there are none.

    Parameters
    ----------
    columns : mapping of str to Column
        Training data.
    factors : sequence of str
        Columns that are factors in the fixed effects.
    terms : sequence of frozenset of str
        Columns of each term of the fixed effects.
    """
    pairs = {}
    for inner, outer in permutations(factors, 2):
        both = list(zip(columns[inner].values.tolist(), columns[outer].values.tolist(), strict=True))
        known = frozenset(both)
        labels = {level for level, _ in known}
        by_label = len(known) == len(labels)
        by_terms = all(outer in term for term in terms if inner in term)
        if by_label or by_terms:
            pairs[inner, outer] = known
    return NestedCells(pairs) if pairs else None
