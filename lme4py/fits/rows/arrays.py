"""Rows of a model: those of a fit, or new ones."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from lme4py.data.frame import Frame
from lme4py.design.design import CONDITIONAL, Design
from lme4py.design.joint import own_columns
from lme4py.linalg.types import BoolArray, FloatArray, IntArray

__all__ = ["Left", "RowArrays", "finite_rows", "own_rows"]


@dataclass(frozen=True)
class Left:
    """What a process varies at places that the fit did not have, given its effects at those that it had.

    Attributes
    ----------
    variance : ndarray, shape (n,)
        Zero at known places.
    slopes : ndarray, shape (n, m)
        Its derivatives in theta.
    moves : ndarray, shape (n, m, k)
        Derivatives of the rows of the model matrix in theta.
    """

    variance: FloatArray
    slopes: FloatArray
    moves: FloatArray

    def take(self, rows: BoolArray) -> Left:
        """Some of the rows."""
        return Left(self.variance[rows], self.slopes[rows], self.moves[rows])


@dataclass(frozen=True)
class RowArrays:
    """Rows to predict.

    Attributes
    ----------
    X : ndarray, shape (n, p)
    offset : ndarray, shape (n,)
    values : dict of int to ndarray, each (n, k)
        Columns of the random terms that are needed, by position in the design; zero where they belong to another
        linear predictor than the first.
    codes : dict of int to ndarray of int, each (n,)
        Levels of the terms whose conditional modes are added; -1 where a group is missing or unknown.
    frame : Frame or None
        The new data; None for the rows of the fit.
    left : dict of int to Left
        Of terms with rows at places that the fit did not have: the variance there that is not that of `values`.
    """

    X: FloatArray
    offset: FloatArray
    values: dict[int, FloatArray]
    codes: dict[int, IntArray]
    frame: Frame | None
    left: dict[int, Left] = field(default_factory=dict)

    @property
    def n(self) -> int:
        return int(self.X.shape[0])

    @property
    def complete(self) -> BoolArray:
        """Rows without a missing value in the columns that are needed."""
        whole = np.isfinite(self.X).all(axis=1)
        # Categories can have offsets of their own: (n,) or (n, D).
        whole &= finite_rows(self.offset)
        for values in self.values.values():
            whole &= np.isfinite(values).all(axis=1)
        return whole

    def take(self, rows: BoolArray) -> RowArrays:
        """Some of the rows."""
        values = {t: v[rows] for t, v in self.values.items()}
        codes = {t: c[rows] for t, c in self.codes.items()}
        left = {t: one.take(rows) for t, one in self.left.items()}
        return RowArrays(self.X[rows], self.offset[rows], values, codes, self.frame, left)


def finite_rows(offset: FloatArray) -> BoolArray:
    """Rows in which an offset, (n,) or (n, D), is finite."""
    known = np.isfinite(offset)
    return known if known.ndim == 1 else np.asarray(known.all(axis=1))


def own_rows(design: Design, terms: Iterable[int], chosen: Iterable[int]) -> RowArrays:
    """The rows of a fit.

    Parameters
    ----------
    design : Design
    terms : iterable of int
        Whose columns are needed.
    chosen : iterable of int
        Whose conditional modes are added.
    """
    known = np.zeros(design.n_obs) if design.offset is None else design.offset
    values = {t: design.terms[t].values_of(CONDITIONAL) for t in terms}
    return RowArrays(own_columns(design), known, values, {t: design.terms[t].codes for t in chosen}, None)
