"""Residuals that follow a chain in time: products with the inverse of their covariance in O(n).

Row j of a subject, in units of its standard deviation, u_j = e_j / sd_j, is s_j times the row before it, v_j = u_{j-1},
plus an innovation of deviation c_j = sqrt(1 - s_j^2). The rows r_j = (u_j - s_j v_j) / c_j are white,

    x'R^-1 y = sum_j r_j(x) r_j(y),     log|R| = 2 sum_j log(c_j sd_j),

which is the tridiagonal inverse of a Markov process in differences, that do not cancel where times are close together.
A derivative in a parameter is linear in the same two rows, dr = a r + b v and dv = l v, with numbers a, b, l of each
row, so that two derivatives of all products cost a few passes over the rows whatever the times are (Jones 1993,
*Longitudinal Data with Serial Correlation*, chapter 3). Random effects whose levels hold whole subjects, one level for
each unit, are added by the matrices of the units (Henderson & Searle 1981, SIAM Review 23:53).
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass

import numpy as np
from scipy import linalg

from lme4py.chunks import chunk, from_size
from lme4py.covariance.jets import Jet
from lme4py.covariance.steps import Steps
from lme4py.engine.marginal.model import MarginalModel
from lme4py.engine.marginal.units import MOST_ROWS, unit_codes
from lme4py.linalg.types import BoolArray, FloatArray, IntArray

__all__ = ["ChainRows", "MovedRows", "RowChain", "RowMove", "chain_of"]

# Numbers in the arrays of the rows that are worked on at a time.
_NUMBERS = chunk(600_000, 1_501)
# Units of at most so many rows are counted by patterns, and patterns that hold this part of the rows pay.
_SHORT, _REPEATED = from_size(64), 0.25
# With more numbers in the covariances of whole units, derivatives included, these are not made (4 GiB).
_MOST_NUMBERS = 5e8
# A row whose innovation is below this part of its standard deviation is determined by the one before it.
_SINGULAR = 1e-12


@dataclass(frozen=True)
class RowMove:
    """A derivative of white rows in one parameter: dr = a r + b v, dv = lag v; each (l,)."""

    a: FloatArray
    b: FloatArray
    lag: FloatArray


@dataclass(frozen=True)
class MovedRows:
    """White rows of the columns Z, X, y and how they move with the parameters.

    Attributes
    ----------
    steps : Steps
        Into each row.
    r, v : ndarray, shape (l, q)
    inverse : ndarray, shape (l,)
        One over the standard deviation of each row.
    moves : list of RowMove
        By parameter of the residuals.
    bends : dict
        Derivatives of a and b, by pairs of parameters (k, i), i <= k; zero for others.
    """

    steps: Steps
    r: FloatArray
    v: FloatArray
    inverse: FloatArray
    moves: list[RowMove]
    bends: dict[tuple[int, int], tuple[FloatArray, FloatArray]]


@dataclass(frozen=True)
class ChainRows:
    """Some rows at some parameters of the residuals.

    Attributes
    ----------
    rows : slice
        Of the rows in the order of the chain.
    units : slice
    starts : ndarray of int
        First row of each unit, from the first of these rows.
    r : ndarray, shape (l, q)
        White rows of the columns Z, X, y.
    first : list of ndarray, each (l, q)
        Derivatives in the parameters of the residuals.
    second : list of list of ndarray
        Second ones, the lower triangle.
    log_det : Jet
        Of the covariance of the residuals, a number; the jets have as many parameters as `first`.
    """

    rows: slice
    units: slice
    starts: IntArray
    r: FloatArray
    first: list[FloatArray]
    second: list[list[FloatArray]]
    log_det: Jet


class RowChain:
    """The rows of a model in the order of their units, subjects and times.

    Parameters
    ----------
    model : MarginalModel
        Inside; `chain_of` tells whether it can be worked on like this.

    Attributes
    ----------
    order : ndarray of int, shape (n,)
    starts : ndarray of int, shape (U,)
        First row of each unit in this order.
    D : ndarray, shape (n, K + p + 1)
        Columns Z, X, y times sqrt(w), in this order.
    n_random : int
        K.
    """

    def __init__(self, model: MarginalModel, codes: IntArray) -> None:
        residual = model.residual
        self.model = model
        self.order = np.lexsort((residual.points[:, 0], residual.subject, codes))
        self.starts = np.flatnonzero(np.diff(codes[self.order], prepend=-1))
        self.subject_first: BoolArray = np.diff(residual.subject[self.order], prepend=-1) != 0
        self.gap = np.where(self.subject_first, 0.0, np.diff(residual.points[self.order, 0], prepend=0.0))
        self.stratum = residual.stratum[self.order]
        self.G = residual.log_scale[self.order]
        columns = [*(part.values for part in model.random), model.X, model.y[:, None]]
        self.D = np.concatenate(columns, axis=1)[self.order]
        self.root_weight = np.ones(len(self.order))
        if residual.weights is not None:
            self.root_weight = np.sqrt(residual.weights[self.order])
            self.D *= self.root_weight[:, None]
        self.n_random = sum(part.values.shape[1] for part in model.random)

    @property
    def residual_slice(self) -> slice:
        """Parameters of the residuals."""
        return slice(self.model.slices[len(self.model.random)].start, self.model.n_par)

    def with_columns(self, M: FloatArray) -> RowChain:
        """The chain of the columns [X y] M.

        Parameters
        ----------
        M : ndarray, shape (p + 1, q + 1)
        """
        made = copy(self)
        K = self.n_random
        made.D = np.concatenate([self.D[:, :K], self.D[:, K:] @ M], axis=1)
        return made

    @property
    def sizes(self) -> IntArray:
        """Rows of each unit."""
        found: IntArray = np.diff(np.append(self.starts, self.order.size))
        return found

    @property
    def block_numbers(self) -> float:
        """Numbers in the covariances of all units."""
        return float(np.sum(self.sizes.astype(float) ** 2))

    @property
    def has_blocks(self) -> bool:
        """Whether the covariances of whole units, with their derivatives, are few enough to be made."""
        return int(self.sizes.max()) <= MOST_ROWS and self.block_numbers * (self.model.n_par + 3) < _MOST_NUMBERS

    def sample(self, n: int) -> IntArray:
        """About n rows: the first ones of units that are spread over all of them, and those with the least and largest
        values of each column of the variances and of the random effects."""
        each = max(n // 10, 2)
        ahead = np.arange(self.order.size) - np.repeat(self.starts, self.sizes)
        few = np.flatnonzero(ahead < each)
        kept = np.minimum(self.sizes, each)
        step = max(1, int(kept.sum()) // n)
        unit = np.repeat(np.arange(self.starts.size), self.sizes)
        chosen = few[unit[few] % step == 0]
        columns = np.concatenate([self.G, self.D[:, : self.n_random]], axis=1)
        ends = np.concatenate([columns.argmin(axis=0), columns.argmax(axis=0)])
        found: IntArray = np.sort(self.order[np.unique(np.concatenate([chosen, ends]))])
        return found

    # --- steps ------------------------------------------------------------------------------------------------------

    def _steps(self, par: FloatArray, rows: slice) -> Steps:
        """Steps into some rows; of the first of a subject, none."""
        first, gap, stratum = self.subject_first[rows], self.gap[rows], self.stratum[rows]
        size = first.size
        s, c = np.zeros(size), np.ones(size)
        moved = np.zeros((4, size))
        structures = self.model.residual.structures
        places = self.model.slices[len(self.model.random) :]
        for h, (structure, place) in enumerate(zip(structures, places, strict=False)):
            own = np.flatnonzero(~first & (stratum == h)) if len(structures) > 1 else np.flatnonzero(~first)
            found = structure.gap_steps(par[place], gap[own])
            s[own], c[own] = found.s, found.c
            moved[0, own], moved[1, own], moved[2, own], moved[3, own] = found.ds, found.dc, found.d2s, found.d2c
        return Steps(s, c, *moved)

    def _inverse_sd(self, par: FloatArray, rows: slice) -> FloatArray:
        """One over the standard deviation of each row, (l,), but for its weight."""
        places = self.model.slices[len(self.model.random) :]
        sd = np.array([par[place.start] for place in places[: len(self.model.residual.structures)]])
        return np.asarray(np.exp(-(self.G[rows] @ par[self.model.slices[-1]])) / sd[self.stratum[rows]])

    @staticmethod
    def _with_before(rows: slice) -> slice:
        """The rows and the one before them."""
        return slice(max(rows.start - 1, 0), rows.stop)

    @staticmethod
    def _lagged(values: FloatArray, rows: slice) -> tuple[FloatArray, FloatArray]:
        """Of `_with_before`: the rows themselves, and the row before each (nothing before the first of all)."""
        if rows.start:
            return values[1:], values[:-1]
        return values, np.concatenate([np.zeros_like(values[:1]), values[:-1]])

    # --- white rows -------------------------------------------------------------------------------------------------

    def chunks(self, n_numbers: int) -> Iterator[tuple[slice, slice]]:
        """Rows and their units, some at a time: whole units where there are random effects."""
        n = self.order.size
        each = max(1, _NUMBERS // n_numbers)
        if not self.n_random:
            for first in range(0, n, each):
                yield slice(first, min(first + each, n)), slice(0, 0)
            return
        ends = np.append(self.starts[1:], n)
        unit = 0
        while unit < len(ends):
            last = max(unit + 1, int(np.searchsorted(ends, self.starts[unit] + each, side="right")))
            yield slice(int(self.starts[unit]), int(ends[last - 1])), slice(unit, last)
            unit = last

    def white(self, par: FloatArray, order: int) -> Iterator[ChainRows]:
        """All rows, some at a time, white and with derivatives up to `order` (0 or 2).

        Raises
        ------
        FloatingPointError
            A row is determined by the one before it: the covariance is singular.
        """
        m = self.model.n_par - self.residual_slice.start
        for rows, units in self.chunks(self.D.shape[1] * (2 + (m + m * m // 2 if order else 0))):
            yield self._white(par, rows, units, order)

    def _white(self, par: FloatArray, rows: slice, units: slice, order: int) -> ChainRows:
        found = self.moved(par, rows, order > 0)
        if not (np.abs(found.steps.c) > _SINGULAR).all():
            raise FloatingPointError("singular")
        log_det = np.asarray(2.0 * float(np.log(np.abs(found.steps.c)).sum() - np.log(np.abs(found.inverse)).sum()))
        starts = self.starts[units] - rows.start
        if not order:
            return ChainRows(rows, units, starts, found.r, [], [], Jet.value_only(log_det))
        moves, bends, r, v = found.moves, found.bends, found.r, found.v
        first = [move.a[:, None] * r + move.b[:, None] * v for move in moves]
        second = [[_second(moves, bends, k, i, r, v) for i in range(k + 1)] for k in range(len(moves))]
        m = len(moves)
        slopes, curves = np.array([-2.0 * move.a.sum() for move in moves]), np.zeros((m, m))
        for (k, i), (a, _) in bends.items():
            curves[k, i] = curves[i, k] = -2.0 * float(np.sum(a))
        return ChainRows(rows, units, starts, r, first, second, Jet(log_det, slopes, curves))

    def moved(self, par: FloatArray, rows: slice, derivatives: bool = True) -> MovedRows:
        """White rows of Z, X, y, and how they move with the parameters.

        Parameters
        ----------
        par : ndarray, shape (m,)
        rows : slice
        derivatives : bool
        """
        steps = self._steps(par, rows)
        both = self._with_before(rows)
        inverse = self._inverse_sd(par, both)
        u, v = self._lagged(self.D[both] * inverse[:, None], rows)
        r = (u - steps.s[:, None] * v) / steps.c[:, None]
        moves, bends = self._moves(par, rows, steps) if derivatives else ([], {})
        return MovedRows(steps, r, v, inverse[-len(u) :] * self.root_weight[rows], moves, bends)

    def _moves(
        self, par: FloatArray, rows: slice, steps: Steps
    ) -> tuple[list[RowMove], dict[tuple[int, int], tuple[FloatArray, FloatArray]]]:
        """First derivatives by parameter, and derivatives of their a and b, by pairs of parameters (k, i), i <= k."""
        s, c, none = steps.s, steps.c, np.zeros(steps.s.size)
        moves: list[RowMove] = []
        bends: dict[tuple[int, int], tuple[FloatArray, FloatArray]] = {}
        turning: list[tuple[int, FloatArray]] = []
        structures = self.model.residual.structures
        for h, structure in enumerate(structures):
            own = (self.stratum[rows] == h).astype(float)
            sd = float(par[self.model.slices[len(self.model.random) + h].start])
            bends[len(moves), len(moves)] = own / sd**2, none
            moves.append(RowMove(-own / sd, none, -own / sd))
            if structure.n_theta > 1:
                turn = own * steps.dc / c
                bend = -own * steps.d2c / c + turn**2, -own * steps.d2s / c + own * steps.ds * steps.dc / c**2
                bends[len(moves), len(moves)] = bend
                turning.append((len(moves), own))
                moves.append(RowMove(-turn, -own * steps.ds / c, none))
        g, before = self._lagged(self.G[self._with_before(rows)], rows)
        slope = (steps.ds - s * steps.dc / c) / c
        for j in range(g.shape[1]):
            step = before[:, j] - g[:, j]
            for t, own in turning:
                bends[len(moves), t] = none, own * slope * step
            moves.append(RowMove(-g[:, j], s / c * step, -before[:, j]))
        return moves, bends

    # --- the inverse and the root -----------------------------------------------------------------------------------

    def inverse_times(self, par: FloatArray, M: FloatArray) -> FloatArray:
        """R^-1 M for rows (n, q) in the order of the data, R the covariance of the residuals.

        Parameters
        ----------
        par : ndarray, shape (m,)
        M : ndarray, shape (n, q)
        """
        r, s, c, inverse = self._whole(par, M[self.order])
        r = r / c
        r[:-1] -= s[1:] * r[1:]
        return self._back(r * inverse)

    def whitened(self, par: FloatArray, M: FloatArray) -> FloatArray:
        """L^-1 M with L L' = R, L lower triangular in the order of subjects and times; (n, q)."""
        return self._back(self._whole(par, M[self.order])[0])

    def coloured(self, par: FloatArray, M: FloatArray) -> FloatArray:
        """L M: correlated rows of white ones, (n, q)."""
        every = slice(0, self.order.size)
        steps = self._steps(par, every)
        bands = np.ones((2, self.order.size))
        bands[1] = -np.append(steps.s[1:], 0.0)
        rows = linalg.solve_banded((1, 0), bands, steps.c[:, None] * M[self.order], check_finite=False)
        return self._back(rows / (self._inverse_sd(par, every) * self.root_weight)[:, None])

    def _whole(self, par: FloatArray, M: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """White rows of columns in the order of the chain, s, c and one over the standard deviations, (n, 1)."""
        every = slice(0, self.order.size)
        steps = self._steps(par, every)
        inverse = (self._inverse_sd(par, every) * self.root_weight)[:, None]
        u, v = self._lagged(M * inverse, every)
        s, c = steps.s[:, None], steps.c[:, None]
        return (u - s * v) / c, s, c, inverse

    def _back(self, M: FloatArray) -> FloatArray:
        out = np.empty_like(M)
        out[self.order] = M
        return out


def _second(
    moves: list[RowMove],
    bends: dict[tuple[int, int], tuple[FloatArray, FloatArray]],
    k: int,
    i: int,
    r: FloatArray,
    v: FloatArray,
) -> FloatArray:
    """d(a_k r + b_k v) along parameter i."""
    left, right = moves[k], moves[i]
    a, b = left.a * right.a, left.a * right.b + left.b * right.lag
    if (k, i) in bends:
        a, b = a + bends[k, i][0], b + bends[k, i][1]
    return np.asarray(a[:, None] * r + b[:, None] * v)


def chain_of(model: MarginalModel) -> RowChain | None:
    """The chain of a model, where its rows follow one and few of them repeat each other.

    Parameters
    ----------
    model : MarginalModel
    """
    residual = model.residual
    if not all(structure.is_chain_in_time for structure in residual.structures):
        return None
    codes = unit_codes(model)
    if not _one_level_each(model, codes) or _repeats(model, codes):
        return None
    return RowChain(model, codes)


def _one_level_each(model: MarginalModel, codes: IntArray) -> bool:
    """Whether all rows of a unit have the same level of every term."""
    first = np.zeros(int(codes.max()) + 1, dtype=np.intp)
    first[codes[::-1]] = np.arange(codes.size)[::-1]
    return all(np.array_equal(part.codes, part.codes[first[codes]]) for part in model.random)


def _repeats(model: MarginalModel, codes: IntArray) -> bool:
    """Whether the units are short and repeat each other, so that one stands for many: by a hash of what they are made
    of, which decides on the way only."""
    sizes = np.bincount(codes)
    if int(sizes.max()) > _SHORT:
        return False
    residual = model.residual
    parts = [residual.points, residual.stratum[:, None], residual.log_scale, *(part.values for part in model.random)]
    if residual.weights is not None:
        parts.append(residual.weights[:, None])
    rows = np.concatenate([np.asarray(part, dtype=float) for part in parts], axis=1) + 0.0
    mixed = np.random.default_rng(0).normal(size=rows.shape[1])
    hashed = np.bincount(codes, np.sin(rows @ mixed * 12.9898) * (1.0 + np.cos(rows[:, 0])))
    return np.unique(np.round(hashed, 9)).size * int(sizes.max()) < _REPEATED * codes.size
