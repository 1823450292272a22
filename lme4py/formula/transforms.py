"""Transformations that remember the training data: poly(), scale(), mean() and their like, and cbind()."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lme4py.formula.deparse import deparse
from lme4py.formula.factors import distinct
from lme4py.formula.nodes import Name
from lme4py.formula.operands import CallSite, FloatArray, Items, Operand, list_text, matrix
from lme4py.formula.values import Value


def poly(site: CallSite, x: Operand, *more: Operand, degree: Operand = None, raw: Operand = False) -> Operand:
    """Polynomial of a column: orthonormal columns, or powers with ``raw=TRUE``."""
    if (isinstance(x, Value) and x.kind == "matrix") or any(isinstance(operand, Value) for operand in more):
        raise site.error("one variable only; write poly(x, 2) * poly(z, 2) for a surface", "..1")
    if len(more) > 1 or (more and degree is not None):
        raise site.error("too many arguments; write poly(x, 2)")
    count = site.whole("degree", 1.0 if degree is None and not more else (more[0] if more else degree), 1)
    values = site.numbers("x", x)
    if site.flag("raw", raw):
        return matrix(values[:, None] ** np.arange(1, count + 1))
    learnt = site.learnt()
    if learnt is None:
        unique = np.unique(values).size
        if count >= unique:
            raise site.error(
                f"degree {count} needs at least {count + 1} distinct values, but {site.what('x')} has "
                f"{unique}; lower the degree",
                "degree",
            )
        learnt = learn_poly(values, count)
        site.learn(learnt)
    return matrix(orthogonal_polynomials(values, learnt["alpha"], learnt["norm2"]))


def learn_poly(x: FloatArray, degree: int) -> dict[str, tuple[float, ...]]:
    """Coefficients of the three-term recurrence of the polynomials orthogonal on `x`.

    Parameters
    ----------
    x : ndarray, shape (n,)
    degree : int

    Returns
    -------
    dict
        ``alpha`` (degree numbers) and ``norm2`` (degree + 1 squared norms, from degree 0).
    """
    # Work around the mean: the recurrence loses digits on numbers such as years.
    centre = float(x.mean())
    z = x - centre
    alpha: list[float] = []
    norm2: list[float] = [float(x.size)]
    before, current = np.zeros_like(z), np.ones_like(z)
    for k in range(degree):
        shift = float(z @ current**2) / norm2[k]
        alpha.append(shift + centre)
        ratio = norm2[k] / norm2[k - 1] if k else 0.0
        before, current = current, (z - shift) * current - ratio * before
        norm2.append(float(current @ current))
    return {"alpha": tuple(alpha), "norm2": tuple(norm2)}


def orthogonal_polynomials(x: FloatArray, alpha: tuple[float, ...], norm2: tuple[float, ...]) -> FloatArray:
    """The orthonormal polynomials of degree 1, 2, ... at `x`, shape (n, degree)."""
    out = np.empty((x.size, len(alpha)))
    before, current = np.zeros_like(x), np.ones_like(x)
    for k, shift in enumerate(alpha):
        ratio = norm2[k] / norm2[k - 1] if k else 0.0
        before, current = current, (x - shift) * current - ratio * before
        out[:, k] = current / np.sqrt(norm2[k + 1])
    return out


def scale(site: CallSite, x: Operand, center: Operand = True, scale: Operand = True) -> Operand:
    """``(x - center) / scale`` per column; TRUE stands for the training mean and standard deviation."""
    value = site.rows("x", x)
    is_matrix = value.kind == "matrix"
    columns = value.values if is_matrix else site.numbers("x", x)[:, None]
    learnt = site.learnt()
    if learnt is None:
        middle = _given(site, "center", center, columns.shape[1])
        if middle is None:
            middle = columns.mean(axis=0)
        spread = _given(site, "scale", scale, columns.shape[1])
        if spread is None:
            spread = np.sqrt(((columns - middle) ** 2).sum(axis=0) / max(len(columns) - 1, 1))
        if np.any(spread == 0):
            raise site.error(f"{site.what('x')} does not vary, so its scale is 0; remove the term", "x")
        learnt = {"center": tuple(middle.tolist()), "scale": tuple(spread.tolist())}
        site.learn(learnt)
    result = (columns - np.array(learnt["center"])) / np.array(learnt["scale"])
    return Value("matrix", result, suffixes=value.suffixes) if is_matrix else Value("numeric", result[:, 0])


def _given(site: CallSite, argument: str, operand: Operand, n_columns: int) -> FloatArray | None:
    """The numbers of `center` or `scale` that the formula states; None for TRUE."""
    if isinstance(operand, bool):
        return None if operand else np.full(n_columns, 0.0 if argument == "center" else 1.0)
    numbers = np.array(site.floats(argument, operand))
    if numbers.size not in (1, n_columns):
        raise site.error(f"argument '{argument}' has {numbers.size} numbers for {n_columns} columns", argument)
    return np.broadcast_to(numbers, (n_columns,))


def between(site: CallSite, x: Operand, g: Operand) -> Operand:
    """The mean of `x` in the group of each row (Mundlak 1978), beside ``within(x, g)`` the effect between groups.

    Groups of the training data keep their means; those of new groups are the means of their new rows.
    """
    return Value("numeric", _group_means(site, x, g))


def within(site: CallSite, x: Operand, g: Operand) -> Operand:
    """`x` minus the mean of the group of each row."""
    return Value("numeric", site.numbers("x", x) - _group_means(site, x, g))


def _group_means(site: CallSite, x: Operand, g: Operand) -> FloatArray:
    """The mean of the group of each row, (n,); NaN where the group or a new value is missing."""
    values, groups = site.numbers("x", x), distinct(site.rows("g", g))
    codes = groups.values
    # A code of -1 counts at the end, and is taken off.
    known = (codes >= 0) & ~np.isnan(values)
    counts = np.bincount(codes[known], minlength=len(groups.levels))
    with np.errstate(invalid="ignore"):
        means = np.bincount(codes[known], values[known], minlength=len(groups.levels)) / counts
    labels = [str(level) for level in groups.levels]
    learnt = site.learnt()
    if learnt is None:
        site.learn({"labels": tuple(labels), "means": tuple(means.tolist())})
    else:
        before = dict(zip(learnt["labels"], learnt["means"], strict=True))
        means = np.array([before.get(label, mean) for label, mean in zip(labels, means.tolist(), strict=True)])
    return np.asarray(np.append(means, np.nan)[codes], dtype=np.float64)


def center(site: CallSite, x: Operand) -> Operand:
    """`x` minus its training mean."""
    return scale(site, x, True, False)


def standardize(site: CallSite, x: Operand) -> Operand:
    """`x` minus its training mean, divided by its training standard deviation."""
    return scale(site, x, True, True)


def summary(function: Callable[[Any], Any]) -> Callable[..., Operand]:
    """A number computed from a whole column in training, and kept for new data."""

    def body(site: CallSite, x: Operand) -> Operand:
        learnt = site.learnt()
        if learnt is None:
            learnt = {"value": float(function(site.numbers("x", site.rows("x", x))))}
            site.learn(learnt)
        return float(learnt["value"])

    return body


def deviation(x: FloatArray) -> float:
    """Standard deviation with n - 1; NaN for one row."""
    return float(np.std(x, ddof=1)) if x.size > 1 else float("nan")


def variance(x: FloatArray) -> float:
    """Variance with n - 1; NaN for one row."""
    return float(np.var(x, ddof=1)) if x.size > 1 else float("nan")


def quantile(site: CallSite, x: Operand, probs: Operand) -> Operand:
    """Quantiles of the training data (R's type 7)."""
    wanted = site.floats("probs", probs)
    if not all(0 <= prob <= 1 for prob in wanted):
        raise site.error(f"argument 'probs' must be between 0 and 1, not {list_text(wanted)}", "probs")
    learnt = site.learnt()
    if learnt is None:
        learnt = {"value": tuple(np.quantile(site.numbers("x", site.rows("x", x)), wanted).tolist())}
        site.learn(learnt)
    values = learnt["value"]
    return float(values[0]) if len(values) == 1 else Items(tuple(values))


def cbind(site: CallSite, /, **columns: Operand) -> Operand:
    """Columns side by side, as a response of counts or as several predictors."""
    if not columns:
        raise site.error("needs columns, such as cbind(successes, failures)")
    parts: list[FloatArray] = []
    suffixes: list[str] = []
    for argument, operand in columns.items():
        if isinstance(operand, Value) and operand.kind == "matrix":
            parts.append(operand.values)
            suffixes.extend(operand.suffixes)
        else:
            parts.append(site.numbers(argument, operand)[:, None])
            suffixes.append(f"[{_column_name(site, argument)}]")
    return Value("matrix", np.hstack(parts), suffixes=tuple(suffixes))


def num_factor(site: CallSite, /, **columns: Operand) -> Operand:
    """Times or coordinates as they are: glmmTMB makes a factor of them, which a term of places does not need."""
    if not columns:
        raise site.error("needs times or coordinates, such as numFactor(x, y)")
    parts = [site.numbers(argument, operand) for argument, operand in columns.items()]
    if len(parts) == 1:
        return Value("numeric", parts[0])
    return Value("matrix", np.column_stack(parts), suffixes=tuple(f"[{_column_name(site, name)}]" for name in columns))


def _column_name(site: CallSite, argument: str) -> str:
    if not argument.startswith(".."):
        return argument
    node = site.nodes[argument]
    return node.name if isinstance(node, Name) else deparse(node)
