"""Bases of splines with their penalties: what is learnt from the data, values, and derivatives.

Splines are of one variable; thin plates of one or two, with the penalty of second derivatives that is the same in all
directions (Wood 2003, JRSS B 65:95).

A basis is a dict of plain data ("bs", "k" and what it learnt), so that it can be stored with a model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from lme4py.formula.operands import FloatArray

if TYPE_CHECKING:
    from scipy.interpolate import CubicSpline

__all__ = [
    "BASES",
    "LEAST",
    "POINT_VALUED",
    "Learnt",
    "basis_slopes",
    "basis_values",
    "eigen_basis",
    "learn_basis",
    "lines",
    "lines_by_knots",
]

# Eigenvalues of a penalty below this part of the largest are zero.
_NULL = 1e-9
# Distinct values that a thin plate basis is made of at most; others are left out evenly.
_DISTINCT = 2000
# P-splines begin this part of the range before the smallest value, and end as far behind the largest.
_MARGIN = 1e-3

Learnt = dict[str, Any]

# Smallest sizes: with one function fewer nothing would be penalised, or cubic pieces have no knots.
LEAST = {"tp": 3, "cr": 3, "cc": 4, "ps": 4}

# Bases whose coefficients are values of the curve at its knots.
POINT_VALUED = ("cr", "cc")


def learn_basis(kind: str, x: FloatArray, size: int) -> tuple[Learnt, FloatArray]:
    """What a basis learns from data, and its penalty matrix (k, k).

    Parameters
    ----------
    kind : str
        A key of `BASES`.
    x : ndarray, shape (n,), or (n, 2)
        With at least `size` distinct values, or points.
    size : int
    """
    learnt: Learnt = {"bs": kind, "k": size}
    return learnt, BASES[kind][0](x, np.unique(x, axis=0), size, learnt)


def basis_values(x: FloatArray, learnt: Learnt) -> FloatArray:
    """The functions of a basis at x, (n, k).

    Parameters
    ----------
    x : ndarray, shape (n,), or (n, 2)
    learnt : dict
    """
    return BASES[learnt["bs"]][1](x, learnt)


def basis_slopes(x: FloatArray, learnt: Learnt, variable: int = 0) -> FloatArray:
    """Derivatives of `basis_values` in x, (n, k).

    Parameters
    ----------
    x : ndarray, shape (n,), or (n, 2)
    learnt : dict
    variable : int
        Of two.
    """
    return _thin_plate_slopes(x, learnt, variable) if learnt["bs"] == "tp" else _spline_slopes(x, learnt)


def eigen_basis(S: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Eigenvalues of a penalty, zeros first, and its orthonormal eigenvectors, (k,) and (k, k).

    Parameters
    ----------
    S : ndarray, shape (k, k)
    """
    values, vectors = np.linalg.eigh(S)
    return np.where(values <= _NULL * values[-1], 0.0, values), vectors


def lines(null: FloatArray, x: FloatArray) -> FloatArray:
    """Combinations of unpenalised functions that are 1 (where there is a constant) and (x - mean) / sd, (d, d).

    Parameters
    ----------
    null : ndarray, shape (n, d)
        Values of the unpenalised functions, which are constants and straight lines.
    x : ndarray, shape (n,)
    """
    if not null.shape[1]:
        return np.zeros((0, 0))
    standard = np.column_stack([np.ones(x.size), (x - x.mean()) / x.std()])
    # Of centred functions there is the line only, of cyclic ones the constant.
    found = np.linalg.lstsq(null, standard, rcond=None)[0]
    made = np.abs(null @ found - standard).max(axis=0) < 1e-6
    kept: FloatArray = found[:, made]
    return kept


def lines_by_knots(B: FloatArray, knots: FloatArray) -> FloatArray:
    """Constant and line that mgcv's ``t2`` takes of a natural cubic basis, whose coefficients are values, (k, 2).

    The line that is zero at the first knot and the one whose values at the knots are orthogonal to its own, both of
    length one over the rows, are turned so that the first is a constant.

    Parameters
    ----------
    B : ndarray, shape (n, k)
    knots : ndarray, shape (k,)
    """
    first = knots - knots[0]
    one = np.ones(knots.size)
    second = one - first * (first @ one) / (first @ first)
    W = np.column_stack([first, second])
    W = W / np.sqrt(np.mean((B @ W) ** 2, axis=0))
    turn = np.linalg.lstsq(W, one, rcond=None)[0]
    turn /= np.sqrt(turn @ turn)
    made: FloatArray = W @ np.array([[turn[0], -turn[1]], [turn[1], turn[0]]])
    return made


def _curvature(spline: CubicSpline, knots: FloatArray) -> FloatArray:
    """Integral of the products of second derivatives, which are linear between the knots."""
    left, right = spline(knots[:-1], nu=2), spline(knots[1:], nu=2)
    width = np.diff(knots)[:, None]
    square = left.T @ (width * left) + right.T @ (width * right)
    cross = left.T @ (width * right)
    out: FloatArray = square / 3.0 + (cross + cross.T) / 6.0
    return out


def _cubic(learnt: Learnt) -> CubicSpline:
    """Natural cubic splines that are 1 at one knot and 0 at all others; periodic ones where the ends are one knot."""
    from scipy.interpolate import CubicSpline

    knots = learnt["knots"]
    if learnt["bs"] == "cr":
        return CubicSpline(knots, np.eye(knots.size), bc_type="natural")
    each = np.eye(knots.size - 1)
    return CubicSpline(knots, np.vstack([each, each[:1]]), bc_type="periodic")


def _learn_cubic(x: FloatArray, distinct: FloatArray, k: int, learnt: Learnt) -> FloatArray:
    learnt["knots"] = np.quantile(distinct, np.linspace(0.0, 1.0, k))
    return _curvature(_cubic(learnt), learnt["knots"])


def _cubic_values(x: FloatArray, learnt: Learnt) -> FloatArray:
    spline, knots = _cubic(learnt), learnt["knots"]
    low, high = knots[0], knots[-1]
    if learnt["bs"] == "cc":
        return np.asarray(spline(low + np.mod(x - low, high - low)), dtype=np.float64)
    return _straight_beyond(spline, x, low, high)


def _straight_beyond(spline: Callable[..., Any], x: FloatArray, low: float, high: float) -> FloatArray:
    """Splines that continue as straight lines."""
    near = np.clip(x, low, high)
    values, beyond = spline(near), x - near
    return np.asarray(values + beyond[:, None] * spline(near, nu=1) if beyond.any() else values, dtype=np.float64)


def _learn_p_spline(x: FloatArray, distinct: FloatArray, k: int, learnt: Learnt) -> FloatArray:
    low, high = float(distinct[0]), float(distinct[-1])
    margin = _MARGIN * (high - low)
    low, high = low - margin, high + margin
    step = (high - low) / (k - 3)
    learnt["knots"] = np.linspace(low - 3.0 * step, high + 3.0 * step, k + 4)
    differences = np.diff(np.eye(k), n=2, axis=0)
    return np.asarray(differences.T @ differences, dtype=np.float64)


def _p_spline_values(x: FloatArray, learnt: Learnt) -> FloatArray:
    from scipy.interpolate import BSpline

    knots = learnt["knots"]
    return _straight_beyond(BSpline(knots, np.eye(learnt["k"]), 3), x, knots[3], knots[-4])


def _learn_thin_plate(x: FloatArray, distinct: FloatArray, k: int, learnt: Learnt) -> FloatArray:
    if len(distinct) > _DISTINCT:
        distinct = distinct[np.linspace(0, len(distinct) - 1, _DISTINCT).round().astype(np.intp)]
    # Of two variables the functions that are kept depend on the unit, which is that of the data, as in mgcv.
    learnt["centre"], learnt["size"] = x.mean(axis=0), float(x.std()) if x.ndim == 1 else 1.0
    points = _standard(distinct, learnt)
    E = _plates(points, points)
    values, vectors = np.linalg.eigh(E)
    chosen = np.argsort(-np.abs(values))[:k]
    U = vectors[:, chosen]
    T = np.column_stack([np.ones(len(points)), points])
    M = T.shape[1]
    free = np.linalg.qr(U.T @ T, mode="complete").Q[:, M:]
    learnt["points"], learnt["map"] = points, U @ free
    rest = _thin_plate_values(x, learnt | {"scales": np.ones(k)})
    learnt["scales"] = 1.0 / np.sqrt(np.mean(rest**2, axis=0))
    S = np.zeros((k, k))
    S[: k - M, : k - M] = free.T @ (values[chosen, None] * free)
    scaled: FloatArray = S * np.outer(learnt["scales"], learnt["scales"])
    return scaled


def _standard(x: FloatArray, learnt: Learnt) -> FloatArray:
    """Points around their mean in one unit, (n, d)."""
    points: FloatArray = ((x - learnt["centre"]) / learnt["size"]).reshape(len(x), -1)
    return points


def _plates(at: FloatArray, points: FloatArray) -> FloatArray:
    """|r|^3 / 12 of one variable, r^2 log r / (8 pi) of two, of the distances r between points, (n, m)."""
    if at.shape[1] == 1:
        return np.asarray(np.abs(at - points.T) ** 3 / 12.0, dtype=np.float64)
    square = ((at[:, None, :] - points) ** 2).sum(axis=2)
    return np.asarray(square * np.log(np.where(square > 0.0, square, 1.0)) / (16.0 * np.pi), dtype=np.float64)


def _thin_plate_values(x: FloatArray, learnt: Learnt) -> FloatArray:
    at = _standard(x, learnt)
    wiggly = _plates(at, learnt["points"]) @ learnt["map"]
    out: FloatArray = np.column_stack([wiggly, np.ones(len(at)), at]) * learnt["scales"]
    return out


BASES: Mapping[str, tuple[Callable[..., FloatArray], Callable[[FloatArray, Learnt], FloatArray]]] = {
    "tp": (_learn_thin_plate, _thin_plate_values),
    "cr": (_learn_cubic, _cubic_values),
    "cc": (_learn_cubic, _cubic_values),
    "ps": (_learn_p_spline, _p_spline_values),
}


def _spline_slopes(x: FloatArray, learnt: Learnt) -> FloatArray:
    from scipy.interpolate import BSpline

    knots = learnt["knots"]
    if learnt["bs"] == "ps":
        near = np.clip(x, knots[3], knots[-4])
        return np.asarray(BSpline(knots, np.eye(learnt["k"]), 3)(near, nu=1), dtype=np.float64)
    low, high = knots[0], knots[-1]
    near = low + np.mod(x - low, high - low) if learnt["bs"] == "cc" else np.clip(x, low, high)
    return np.asarray(_cubic(learnt)(near, nu=1), dtype=np.float64)


def _thin_plate_slopes(x: FloatArray, learnt: Learnt, variable: int) -> FloatArray:
    at, points = _standard(x, learnt), learnt["points"]
    away = at[:, None, variable] - points[:, variable]
    if at.shape[1] == 1:
        plates = np.abs(away) * away / 4.0
    else:
        square = ((at[:, None, :] - points) ** 2).sum(axis=2)
        plates = away * (np.log(np.where(square > 0.0, square, 1.0)) + 1.0) / (8.0 * np.pi)
    lines = np.zeros((len(at), at.shape[1]))
    lines[:, variable] = 1.0
    out: FloatArray = np.column_stack([plates @ learnt["map"], np.zeros(len(at)), lines]) * learnt["scales"]
    return np.asarray(out / learnt["size"], dtype=np.float64)
