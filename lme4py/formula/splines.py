"""B-splines and natural splines with the columns of R's bs() and ns()."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from lme4py.errors import Lme4Warning
from lme4py.formula.operands import CallSite, FloatArray, Operand, list_text, matrix

if TYPE_CHECKING:
    from scipy.interpolate import BSpline


def bs(
    site: CallSite,
    x: Operand,
    df: Operand = None,
    knots: Operand = None,
    degree: Operand = 3.0,
    intercept: Operand = False,
    Boundary_knots: Operand = None,
) -> Operand:
    """B-spline basis of a column."""
    order = site.whole("degree", degree, 1)
    values = site.numbers("x", x)
    full = site.flag("intercept", intercept)
    learnt = site.learnt()
    if learnt is None:
        learnt = _learn_knots(site, values, df, knots, Boundary_knots, fixed=order + int(full))
        site.learn(learnt)
    low, high = learnt["boundary"]
    outside = int(np.count_nonzero((values < low) | (values > high)))
    if outside:
        warnings.warn(
            f"{site.text}: {outside} of {values.size} values lie outside the boundary knots {low:g} and "
            f"{high:g}; the spline continues there as a polynomial and can go far astray. Set "
            "Boundary.knots wide enough, or use ns(), which continues as a straight line",
            Lme4Warning,
            stacklevel=2,
        )
    return matrix(bs_basis(values, learnt["knots"], learnt["boundary"], order, intercept=full))


def ns(
    site: CallSite,
    x: Operand,
    df: Operand = None,
    knots: Operand = None,
    intercept: Operand = False,
    Boundary_knots: Operand = None,
) -> Operand:
    """Natural cubic spline basis of a column."""
    values = site.numbers("x", x)
    full = site.flag("intercept", intercept)
    learnt = site.learnt()
    if learnt is None:
        learnt = _learn_knots(site, values, df, knots, Boundary_knots, fixed=1 + int(full))
        site.learn(learnt)
    return matrix(ns_basis(values, learnt["knots"], learnt["boundary"], intercept=full))


def _learn_knots(
    site: CallSite, x: FloatArray, df: Operand, knots: Operand, boundary: Operand, *, fixed: int
) -> dict[str, Any]:
    """Boundary and interior knots; `fixed` is the number of columns without interior knots."""
    ends = (float(x.min()), float(x.max())) if boundary is None else _boundary(site, boundary)
    if not ends[0] < ends[1]:
        raise site.error(f"{site.what('x')} has only the value {ends[0]:g}; a spline needs at least two", "x")
    if knots is not None:
        if df is not None:
            raise site.error("give 'df' or 'knots', not both", "df")
        inner = sorted(site.floats("knots", knots))
        if inner and not (ends[0] <= inner[0] and inner[-1] < ends[1]):
            raise site.error(
                f"the knots {list_text(inner)} must lie between the boundary knots {ends[0]:g} and "
                f"{ends[1]:g}; move them, or set Boundary.knots",
                "knots",
            )
        return {"knots": tuple(inner), "boundary": ends}
    wanted = fixed if df is None else site.whole("df", df, 1)
    if wanted < fixed:
        raise site.error(f"df = {wanted} is too small; this spline needs at least {fixed}", "df")
    if wanted > x.size:
        raise site.error(f"df = {wanted} is more than the {x.size} values of this variable; use a lower df", "df")
    inside = x[(x >= ends[0]) & (x <= ends[1])]
    probabilities = np.linspace(0.0, 1.0, wanted - fixed + 2)[1:-1]
    inner = np.quantile(inside, probabilities).tolist() if wanted > fixed else []
    if inner and inner[-1] >= ends[1]:
        # Splines with a knot on the upper end vanish there (R gives zeros or an error).
        raise site.error(
            f"so many values of {site.what('x')} equal the largest, {ends[1]:g}, that a knot falls on it; "
            "give the knots yourself, knots = c(...), or lower df",
            "df",
        )
    return {"knots": tuple(inner), "boundary": ends}


def _boundary(site: CallSite, boundary: Operand) -> tuple[float, float]:
    ends = sorted(site.floats("Boundary.knots", boundary))
    if len(ends) != 2 or ends[0] == ends[1]:
        raise site.error(f"Boundary.knots must be two different numbers, not {list_text(ends)}", "Boundary.knots")
    return ends[0], ends[1]


def bs_basis(
    x: FloatArray, knots: tuple[float, ...], boundary: tuple[float, float], degree: int, *, intercept: bool
) -> FloatArray:
    """B-spline basis, shape (n, len(knots) + degree + intercept); beyond the boundary end pieces go on."""
    return _values(_b_splines(knots, boundary, degree, intercept=intercept), x)


def ns_basis(x: FloatArray, knots: tuple[float, ...], boundary: tuple[float, float], *, intercept: bool) -> FloatArray:
    """Natural cubic spline basis, shape (n, len(knots) + 1 + intercept); straight lines beyond the boundary.

    The natural splines are those combinations of cubic B-splines whose second derivative is zero at both
    boundary knots: the null space of a matrix with 2 rows. The QR decomposition of its transpose has an
    orthonormal basis of that space in the last columns of Q.
    """
    natural = _natural_splines(knots, boundary, intercept=intercept)
    nearest = np.clip(x, *boundary)
    beyond = (x - nearest)[:, np.newaxis]
    return _values(natural, nearest) + beyond * _values(natural, nearest, derivative=1)


def bs_slope(
    x: FloatArray, knots: tuple[float, ...], boundary: tuple[float, float], degree: int, *, intercept: bool
) -> FloatArray:
    """Derivative of `bs_basis` in x."""
    return _values(_b_splines(knots, boundary, degree, intercept=intercept), x, derivative=1)


def ns_slope(x: FloatArray, knots: tuple[float, ...], boundary: tuple[float, float], *, intercept: bool) -> FloatArray:
    """Derivative of `ns_basis` in x: constant beyond the boundary."""
    natural = _natural_splines(knots, boundary, intercept=intercept)
    return _values(natural, np.clip(x, *boundary), derivative=1)


def _natural_splines(knots: tuple[float, ...], boundary: tuple[float, float], *, intercept: bool) -> BSpline:
    from scipy.interpolate import BSpline

    cubic = _b_splines(knots, boundary, 3, intercept=intercept)
    curvature = _values(cubic, np.array(boundary), derivative=2)
    orthogonal = np.linalg.qr(curvature.T, mode="complete").Q
    return BSpline(cubic.t, cubic.c @ orthogonal[:, len(boundary) :], 3)


def _b_splines(knots: tuple[float, ...], boundary: tuple[float, float], degree: int, *, intercept: bool) -> BSpline:
    """The B-splines as one function with a column for each; without an intercept the first is left out."""
    from scipy.interpolate import BSpline

    low, high = boundary
    ends = degree + 1
    sequence = np.array([*[low] * ends, *knots, *[high] * ends])
    each_one = np.eye(len(sequence) - ends)
    return BSpline(sequence, each_one if intercept else each_one[:, 1:], degree)


def _values(splines: BSpline, x: FloatArray, derivative: int = 0) -> FloatArray:
    """Values or derivatives, shape (len(x), number of splines)."""
    return np.asarray(splines(x, nu=derivative), dtype=np.float64)
