"""Directions of recession: combinations of coefficients along which the likelihood rises without end.

A row stays likely on one side when its likelihood does not fall to zero as its linear predictor goes to infinity
there: a success upwards, a count of zero downwards, a category towards its outer thresholds. If d moves every row to a
side on which it stays likely, or not at all, the likelihood rises along d for ever, whatever the values of the random
effects are: there is no finite maximum (Albert & Anderson 1984, Biometrika 71:1, for binomial and ordered responses;
Geyer 2009, Electron. J. Stat. 3:259, for exponential families). The limit of the likelihood is that of the rows that d
does not move. What these rows determine has an estimate, with the standard error that they give: a linear function
c'beta has a finite limit exactly if c lies in the span of these rows, the limit +inf if c is in the cone of the other
rows (with the signs of their sides), -inf if -c is, and none otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.linalg

from lme4py.families.rows import HalfRows
from lme4py.frozen import computed_once
from lme4py.linalg.types import BoolArray, FloatArray, IntArray

__all__ = ["Recession", "find_recession", "recession_directions"]

# At an optimum the rows that move along a direction of recession have slopes and curvatures far below this: their sum
# is the gradient along it.
_STILL = 1e-3
# Relative sizes below this are zero: rows of orthonormal columns, and products with unit vectors.
_ZERO = 1e-9
# Distances from the cone of the rows, relative: least squares with columns of length 1.
_IN_CONE = 1e-8
# The smallest tolerance of the solver of linear programmes.
_FEASIBLE = 1e-10


@dataclass(frozen=True)
class Recession:
    """Where the likelihood has no finite maximum, on the user's scale.

    Attributes
    ----------
    names : tuple of str
        Of the P coefficients: fixed effects, those of further parts, then the thresholds of ordered categories.
    to_user : ndarray, shape (P, P')
        Derivative of the coefficients in those of the engine, whose columns are orthonormal.
    null : ndarray, shape (P', q)
        Orthonormal directions inside that move none of the rows that remain in the limit.
    cone : ndarray, shape (r, q)
        Unit vectors: the rows that move, with the signs of their sides, in the coordinates of `null`.
    middle : ndarray, shape (q,)
        A direction inside the cone, in these coordinates, that moves every such row by 1 or more.
    n_moved, n_rows : int
        How many rows move, of how many.
    n_fixed : int
        How many of the names are effects of columns.
    """

    names: tuple[str, ...]
    to_user: FloatArray
    null: FloatArray
    cone: FloatArray
    middle: FloatArray
    n_moved: int
    n_rows: int
    n_fixed: int

    @computed_once
    def limits(self) -> FloatArray:
        """Limit of each coefficient: +inf, -inf, NaN where there is none, and 0 where it is finite, shape (P,)."""
        return self.limits_of(np.eye(len(self.names)))

    @computed_once
    def directions(self) -> FloatArray:
        """Directions inside the cone that span it, shape (q + 1, P): each moves every row that moves by 1/2 or more."""
        out = [self.middle]
        away = self.cone @ self.middle
        for unit in np.eye(self.middle.size):
            # As far along this coordinate as leaves half the distance to every side of the cone.
            room = np.min(0.5 * away / np.maximum(-(self.cone @ unit), 1e-9 * away.max()))
            out.append(self.middle + min(float(room), float(np.linalg.norm(self.middle))) * unit)
        inside: FloatArray = np.array(out) @ self.null.T
        return inside @ self.to_user.T

    def finite(self, C: FloatArray) -> BoolArray:
        """Which rows c of C, (r, P) or (r, p), have a c'beta that is determined in the limit, shape (r,)."""
        inside = self._inside(C)
        size = np.linalg.norm(inside, axis=1)
        result: BoolArray = np.linalg.norm(inside @ self.null, axis=1) <= 1e2 * _ZERO * size
        return result

    def limits_of(self, C: FloatArray) -> FloatArray:
        """Limit of c'beta for each row of C, (r, P) or (r, p): 0 where finite, else +inf, -inf or NaN, shape (r,)."""
        moved = self._inside(C) @ self.null
        out = np.zeros(moved.shape[0])
        rest = np.flatnonzero(~self.finite(C))
        if rest.size:
            directions, place = np.unique(np.round(_unit(moved[rest]), 9), axis=0, return_inverse=True)
            out[rest] = np.array([self._limit(v) for v in directions])[place.ravel()]
        return out

    def of_names(self, chosen: IntArray) -> Recession:
        """What it says of some of the coefficients, all effects of columns."""
        names = tuple(self.names[k] for k in chosen)
        return replace(self, names=names, to_user=self.to_user[chosen], n_fixed=len(names))

    def masked(self, C: FloatArray, values: FloatArray) -> FloatArray:
        """`values` of C beta, shape (r,), with their limits in the place of what is not finite."""
        limits = self.limits_of(C)
        return np.where(limits == 0.0, values, limits)

    def _inside(self, C: FloatArray) -> FloatArray:
        """The same functions of the coefficients inside, (r, P')."""
        inside: FloatArray = C @ self.to_user[: C.shape[1]]
        return inside

    def _limit(self, v: FloatArray) -> float:
        from scipy.optimize import nnls

        for sign in (1.0, -1.0):
            if nnls(self.cone.T, sign * v)[1] < _IN_CONE:
                return sign * np.inf
        return np.nan

    @property
    def sentence(self) -> str:
        """The coefficients that have no finite estimate, with their limits."""
        parts = []
        for sign, text in ((np.inf, "goes to +inf"), (-np.inf, "goes to -inf"), (np.nan, "is not determined")):
            same = np.isnan(self.limits) if np.isnan(sign) else self.limits == sign
            names = [name for name, chosen in zip(self.names, same, strict=True) if chosen]
            if names:
                plural = text.replace("goes", "go").replace("is ", "are ") if len(names) > 1 else text
                parts.append(f"{', '.join(names)} {plural}")
        return "; ".join(parts)

    def describe(self, what: str) -> str:
        """A sentence for people.

        Parameters
        ----------
        what : str
            What the coefficients separate, as in "successes from failures".
        """
        columns = [self.names[k] for k in range(self.n_fixed) if self.limits[k] != 0.0]
        verb = "separates" if len(columns) == 1 else "separate"
        kind = "complete" if self.n_moved == self.n_rows else "quasi-complete"
        return (
            f"{', '.join(columns)} {verb} {what} ({kind} separation, {self.n_moved} of {self.n_rows} rows): the "
            f"likelihood has no maximum but rises to a limit as {self.sentence}. Everything else, and the "
            "log-likelihood, is given as it is in this limit. Compare models by lrtest() and take limits from "
            "conf_int(method='profile'), or leave these columns out, merge sparse categories, or use a penalised "
            "method."
        )


def find_recession(
    half: HalfRows, rates: FloatArray | None, X: FloatArray, cuts: FloatArray | None, unit: float = 1.0
) -> tuple[FloatArray, FloatArray, FloatArray, IntArray] | None:
    """Directions of recession of the coefficients inside the engine.

    Parameters
    ----------
    half : HalfRows
    rates : ndarray, shape (R,), or None
        How much each half row still changes at an optimum, where only those that hardly do can move; None where there
        is no optimum.
    X : ndarray, shape (n, p)
        In columns of similar size.
    cuts : ndarray, shape (R, d), or None
        Ordered categories: derivative of the threshold of each half row in the parameters of the family, in columns of
        similar size.
    unit : float
        Of the linear predictor.

    Returns
    -------
    null : ndarray, shape (p + d, q)
    cone : ndarray, shape (r, q)
    direction : ndarray, shape (p + d,)
        Moves every row of the cone by 1 or more.
    moved : ndarray of int
        The half rows that move.
    None when there are none.
    """
    free = half.sign != 0.0
    if rates is not None:
        free &= np.abs(rates) <= _STILL / unit
    if not free.any():
        return None
    rest = _constraints(half, ~free, X, cuts)
    null = _null_space(rest, X.shape[1] + (0 if cuts is None else cuts.shape[1]))
    if not null.shape[1]:
        return None
    return recession_directions(_constraints(half, free, X, cuts), null, np.flatnonzero(free))


def _constraints(half: HalfRows, chosen: BoolArray, X: FloatArray, cuts: FloatArray | None) -> FloatArray:
    """What must not be negative: sign (x'd - a'g), shape (R, p + d)."""
    rows = X[half.row[chosen]]
    if cuts is not None:
        rows = np.hstack([rows, -cuts[chosen]])
    sign = half.sign[chosen]
    result: FloatArray = rows * np.where(sign == 0.0, 1.0, sign)[:, None]
    return result


def _null_space(rows: FloatArray, n_columns: int) -> FloatArray:
    """Orthonormal directions that no row moves, shape (n_columns, q)."""
    if not rows.shape[0]:
        return np.eye(n_columns)
    size = max(float(np.abs(rows).max()), 1e-300)
    # The Gram matrix is cheap and settles the common case; its small eigenvalues are rounding, those of R are not.
    values = np.linalg.eigvalsh((rows.T @ rows) / size**2)
    if values[0] > 1e-6 * values[-1]:
        return np.empty((n_columns, 0))
    R = scipy.linalg.qr(rows / size, mode="r")[0][:n_columns]
    _, sizes, directions = np.linalg.svd(R)
    kept = int((sizes > _ZERO * max(float(sizes[0]), 1e-300)).sum())
    null: FloatArray = directions[kept:].T
    return null


def recession_directions(
    rows: FloatArray, null: FloatArray, place: IntArray
) -> tuple[FloatArray, FloatArray, FloatArray, IntArray] | None:
    """The cone {d in span(null): rows d >= 0}, as `find_recession` returns it.

    Parameters
    ----------
    rows : ndarray, shape (R, P)
    null : ndarray, shape (P, q)
    place : ndarray of int, shape (R,)
        What each row is called.
    """
    inside = rows @ null
    size = np.linalg.norm(rows, axis=1)
    length = np.linalg.norm(inside, axis=1)
    moving = length > _ZERO * size
    unit, index = np.unique(np.round(_unit(inside[moving]), 12), axis=0, return_inverse=True)
    if not unit.shape[0]:
        return None
    direction = _interior(unit)
    if direction is None:
        return None
    strict = unit @ direction > 1e-7
    if not strict.all():
        # Rows that no direction moves hold the others: look again where they do not move.
        smaller = null @ _null_space(unit[~strict], null.shape[1])
        return recession_directions(rows, smaller, place) if 0 < smaller.shape[1] < null.shape[1] else None
    reach = (inside[moving] @ direction).min()
    return null, _extreme(unit), (null @ direction) / reach, place[moving][strict[index.ravel()]]


def _interior(unit: FloatArray) -> FloatArray | None:
    """A direction d with unit d >= 0 that makes as many rows positive as any; None when only d = 0 is left."""
    q = unit.shape[1]
    if q == 1:
        return np.ones(1) if (unit > 0.0).all() else -np.ones(1) if (unit < 0.0).all() else None
    from scipy.optimize import linprog

    open_rows = np.ones(unit.shape[0], dtype=bool)
    total = np.zeros(q)
    # Each round finds a direction that moves rows which those before did not: the dimension rises, so q rounds do.
    for _ in range(q):
        result: Any = linprog(
            -unit[open_rows].sum(axis=0),
            A_ub=-unit,
            b_ub=np.zeros(unit.shape[0]),
            bounds=[(-1.0, 1.0)] * q,
            method="highs",
            options={"primal_feasibility_tolerance": _FEASIBLE, "dual_feasibility_tolerance": _FEASIBLE},
        )
        if result.status != 0 or -float(result.fun) < 1e-7:
            break
        total = total + result.x
        open_rows &= unit @ total <= 1e-7
        if not open_rows.any():
            break
    norm = float(np.linalg.norm(total))
    return total / norm if norm > 0.0 else None


def _extreme(unit: FloatArray) -> FloatArray:
    """Rows whose cone is that of all: in one and in two dimensions its edges, else all of them."""
    q = unit.shape[1]
    if q == 1:
        return unit[:1]
    if q > 2:
        return unit
    middle = unit.mean(axis=0)
    angle = np.arctan2(middle[0] * unit[:, 1] - middle[1] * unit[:, 0], unit @ middle)
    return unit[[int(np.argmin(angle)), int(np.argmax(angle))]]


def _unit(rows: FloatArray) -> FloatArray:
    result: FloatArray = rows / np.maximum(np.linalg.norm(rows, axis=1), 1e-300)[:, None]
    return result
