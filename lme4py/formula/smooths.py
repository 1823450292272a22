"""Penalised splines of one variable: bases with their penalties, and their form as a mixed model.

A smooth is B beta with the penalty beta'S beta. The constraint that it sums to zero over the rows is absorbed. With
the eigenvalues and vectors S = U D U' the columns B U_0 of the null space are fixed effects, and B U_1 D_1^-1/2 random
effects with one variance (Wood 2017, *Generalized Additive Models*, sections 5.3 to 5.8).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from lme4py.formula.operands import CallSite, FloatArray, Operand, matrix
from lme4py.formula.values import Value

if TYPE_CHECKING:
    from scipy.interpolate import CubicSpline

__all__ = ["BASES", "both_parts", "s", "s_penalised", "slopes", "smooth_group", "weights"]

_K = 10
# Eigenvalues of a penalty below this part of the largest are zero.
_NULL = 1e-9
# Distinct values that a thin plate basis is made of at most; others are left out evenly.
_DISTINCT = 2000
# P-splines begin this part of the range before the smallest value, and end as far behind the largest.
_MARGIN = 1e-3

Learnt = dict[str, Any]


def s(
    site: CallSite,
    x: Operand,
    k: Operand = None,
    bs: Operand = "tp",
    m: Operand = None,
    by: Operand = None,
) -> Operand:
    """The unpenalised columns of a smooth; of each level of a factor `by`."""
    values, learnt = _learnt(site, x, k, bs, m, by)
    null, _ = both_parts(values, learnt)
    return matrix(np.hstack([null * weight[:, None] for weight in weights(site, by, learnt, None)]))


def s_penalised(
    site: CallSite,
    x: Operand,
    k: Operand = None,
    bs: Operand = "tp",
    m: Operand = None,
    by: Operand = None,
    level: Operand = None,
) -> Operand:
    """The penalised columns of a smooth, each with unit variance; of one level of a factor `by`."""
    values, learnt = _learnt(site, x, k, bs, m, by)
    _, penalised = both_parts(values, learnt)
    weight = weights(site, by, learnt, None if level is None else str(level))[0]
    return matrix(penalised * weight[:, None])


def smooth_group(site: CallSite, x: Operand, label: Operand) -> Operand:
    """The grouping factor of a smooth: one level for all rows."""
    return Value("factor", np.zeros(site.numbers("x", x).size, dtype=np.intp), levels=(str(label),))


def both_parts(x: FloatArray, learnt: Learnt) -> tuple[FloatArray, FloatArray]:
    """Unpenalised and penalised columns of a smooth at x, shapes (n, d) and (n, r).

    Parameters
    ----------
    x : ndarray, shape (n,)
    learnt : dict
        What the training call stored.
    """
    basis = BASES[learnt["bs"]][1](x, learnt)
    return basis @ learnt["null"], basis @ learnt["penalised"]


def slopes(x: FloatArray, learnt: Learnt) -> tuple[FloatArray, FloatArray]:
    """Derivatives of `both_parts` in x: of splines exact, of thin plates of third powers.

    Parameters
    ----------
    x : ndarray, shape (n,)
    learnt : dict
    """
    basis = _SLOPES[learnt["bs"]](x, learnt)
    return basis @ learnt["null"], basis @ learnt["penalised"]


def weights(site: CallSite, by: Operand, learnt: Learnt, level: str | None) -> list[FloatArray]:
    """What the columns are multiplied by: indicators of levels, or the numbers of `by`.

    Parameters
    ----------
    site : CallSite
    by : Operand
    learnt : dict
    level : str or None
        None for all levels.
    """
    if by is None:
        return [np.ones(1)]
    if not isinstance(by, Value) or not by.is_factor:
        return [site.numbers("by", by)]
    names = np.array([str(name) for name in by.levels] + [""])
    own = names[np.asarray(by.values, dtype=np.intp)]
    return [(own == name).astype(np.float64) for name in (learnt["levels"] if level is None else [level])]


def _learnt(site: CallSite, x: Operand, k: Operand, bs: Operand, m: Operand, by: Operand) -> tuple[FloatArray, Learnt]:
    values = site.numbers("x", x)
    learnt = site.learnt()
    if learnt is None:
        learnt = _learn(site, values, k, bs, by)
        if m is not None:
            raise site.error("only the usual penalty is there (second derivatives or differences); leave m out", "m")
        site.learn(learnt)
    return values, learnt


def _learn(site: CallSite, x: FloatArray, k: Operand, bs: Operand, by: Operand) -> Learnt:
    if not isinstance(bs, str) or bs not in BASES:
        raise site.error(f"bs = {bs!r} is not known; use one of {', '.join(map(repr, BASES))}", "bs")
    size = _K if k is None else site.whole("k", k, 4)
    distinct = np.unique(x)
    if distinct.size < size:
        raise site.error(
            f"k = {size} needs as many distinct values, but {site.what('x')} has {distinct.size}; lower k", "k"
        )
    learnt: Learnt = {"bs": bs, "k": size}
    S = BASES[bs][0](x, distinct, size, learnt)
    is_factor = isinstance(by, Value) and by.is_factor
    if is_factor and isinstance(by, Value):
        used = np.unique(np.asarray(by.values, dtype=np.intp))
        learnt["levels"] = [str(by.levels[i]) for i in used if i >= 0]
    constrained = np.eye(S.shape[0])
    # A smooth times numbers that vary is not confounded with the intercept.
    if by is None or is_factor or np.ptp(site.numbers("by", by)) == 0.0:
        sums = BASES[bs][1](x, learnt).sum(axis=0)
        constrained = np.linalg.qr(sums[:, None], mode="complete").Q[:, 1:]
    values, vectors = np.linalg.eigh(constrained.T @ S @ constrained)
    free = values <= _NULL * values[-1]
    learnt["null"] = constrained @ vectors[:, free]
    learnt["penalised"] = constrained @ (vectors[:, ~free] / np.sqrt(values[~free]))
    return learnt


# --- bases: what is learnt with the penalty, and the values --------------------------------------------------------


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
    if distinct.size > _DISTINCT:
        distinct = distinct[np.linspace(0, distinct.size - 1, _DISTINCT).round().astype(np.intp)]
    centre = float(x.mean())
    learnt["centre"], learnt["size"] = centre, float(x.std())
    points = (distinct - centre) / learnt["size"]
    E = np.abs(points[:, None] - points) ** 3 / 12.0
    values, vectors = np.linalg.eigh(E)
    chosen = np.argsort(-np.abs(values))[:k]
    U = vectors[:, chosen]
    T = np.column_stack([np.ones(points.size), points])
    free = np.linalg.qr(U.T @ T, mode="complete").Q[:, 2:]
    learnt["points"], learnt["map"] = points, U @ free
    rest = _thin_plate_values(x, learnt | {"scales": np.ones(k)})
    learnt["scales"] = 1.0 / np.sqrt(np.mean(rest**2, axis=0))
    S = np.zeros((k, k))
    S[: k - 2, : k - 2] = free.T @ (values[chosen, None] * free)
    scaled: FloatArray = S * np.outer(learnt["scales"], learnt["scales"])
    return scaled


def _thin_plate_values(x: FloatArray, learnt: Learnt) -> FloatArray:
    at = (x - learnt["centre"]) / learnt["size"]
    wiggly = np.abs(at[:, None] - learnt["points"]) ** 3 / 12.0 @ learnt["map"]
    out: FloatArray = np.column_stack([wiggly, np.ones(at.size), at]) * learnt["scales"]
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


def _thin_plate_slopes(x: FloatArray, learnt: Learnt) -> FloatArray:
    at = (x - learnt["centre"]) / learnt["size"]
    away = at[:, None] - learnt["points"]
    wiggly = np.abs(away) * away / 4.0 @ learnt["map"]
    out: FloatArray = np.column_stack([wiggly, np.zeros(at.size), np.ones(at.size)]) * learnt["scales"]
    return np.asarray(out / learnt["size"], dtype=np.float64)


_SLOPES: Mapping[str, Callable[[FloatArray, Learnt], FloatArray]] = {
    "tp": _thin_plate_slopes,
    "cr": _spline_slopes,
    "cc": _spline_slopes,
    "ps": _spline_slopes,
}
