"""Complete and quasi-complete separation of binary and ordered responses: fixed effects without a finite estimate."""

from __future__ import annotations

import numpy as np

from lme4py.design.design import Design
from lme4py.design.response import ResponseData
from lme4py.engine.families import Family
from lme4py.engine.ordinal import Ordinal
from lme4py.engine.types import FloatArray

# A linear predictor of this size is what a direction without optimum looks like; normal tails are thinner.
_SUSPICIOUS = 12.0
_SUSPICIOUS_PROBIT = 4.0


def describe_separation(design: Design, data: ResponseData, family: Family, beta: FloatArray, vcov: FloatArray) -> str:
    """A sentence that names the separating columns, or "".

    Parameters
    ----------
    design : Design
    data : ResponseData
    family : Family
    beta : ndarray, shape (p,)
    vcov : ndarray, shape (p, p)
    """
    if family.name not in ("binomial", "ordinal") or not beta.size:
        return ""
    ordered = isinstance(family, Ordinal)
    # Thresholds take up any constant.
    X = design.X - design.X.mean(axis=0) if ordered else design.X
    se = np.sqrt(np.maximum(vcov.diagonal(), 0.0))
    large = _SUSPICIOUS_PROBIT if family.link.name == "probit" else _SUSPICIOUS
    wide = se * np.abs(X).max(axis=0) > large
    if np.abs(X @ beta).max() < large and not wide.any():
        return ""
    direction = (
        ordered_direction(design.X, data, family.A)
        if isinstance(family, Ordinal)
        else separating_direction(design.X, data)
    )
    if direction is None:
        return ""
    size = np.abs(direction) * np.abs(design.X).max(axis=0)
    columns = [name for name, s in zip(design.x_names, size, strict=True) if s > 1e-6 * size.max()]
    what = "the categories" if ordered else "successes from failures"
    verb = "separates" if len(columns) == 1 else "separate"
    return (
        f"{', '.join(columns)} {verb} {what} (complete or quasi-complete separation), so that some "
        "fixed effects have no finite estimate. Leave these columns out, merge sparse categories, or use a "
        "penalised method."
    )


def separating_direction(X: FloatArray, data: ResponseData) -> FloatArray | None:
    """d with X d >= 0 where all trials succeed, <= 0 where all fail and = 0 elsewhere, not all zero; None without one.

    Notes
    -----
    Albert & Anderson (1984, Biometrika 71:1): such a d exists exactly when the likelihood has no maximum.
    """
    from scipy.optimize import linprog

    successes = data.y
    failures = (np.ones_like(data.y) if data.trials is None else data.trials) - successes
    size = np.abs(X).max(axis=0)
    scaled = X / np.where(size > 0, size, 1.0)
    sign = np.where(failures == 0, 1.0, -1.0)
    mixed = (failures > 0) & (successes > 0)
    one_sided = np.unique(sign[~mixed, None] * scaled[~mixed], axis=0)
    equal = np.unique(scaled[mixed], axis=0)
    if not one_sided.size:
        return None
    result = linprog(
        -one_sided.sum(axis=0),
        A_ub=-one_sided,
        b_ub=np.zeros(one_sided.shape[0]),
        A_eq=equal if equal.size else None,
        b_eq=np.zeros(equal.shape[0]) if equal.size else None,
        bounds=[(-1.0, 1.0)] * X.shape[1],
        method="highs",
    )
    if result.status != 0 or float(result.fun or 0.0) > -1e-7:
        return None
    direction: FloatArray = result.x / np.where(size > 0, size, 1.0)
    return direction


def ordered_direction(X: FloatArray, data: ResponseData, A: FloatArray) -> FloatArray | None:
    """d such that X d leaves the intervals of the categories for thresholds that move along; None without one.

    The likelihood never falls along (d, g) when (A g)_k - x'd >= 0 for the threshold above each row and <= 0 for the
    one below it.

    Parameters
    ----------
    X : ndarray, shape (n, p)
    data : ResponseData
    A : ndarray, shape (K - 1, d)
        Thresholds = A gamma.
    """
    from scipy.optimize import linprog

    size = np.abs(X).max(axis=0)
    scaled = X / np.where(size > 0, size, 1.0)
    last = A.shape[0]
    below, above = data.codes > 0, data.codes < last
    rows = np.vstack(
        [
            np.hstack([scaled[above], -A[data.codes[above]]]),
            np.hstack([-scaled[below], A[data.codes[below] - 1]]),
        ]
    )
    rows = np.unique(rows, axis=0)
    result = linprog(
        rows.sum(axis=0), A_ub=rows, b_ub=np.zeros(rows.shape[0]), bounds=[(-1.0, 1.0)] * rows.shape[1], method="highs"
    )
    if result.status != 0 or float(result.fun or 0.0) > -1e-7:
        return None
    solution: FloatArray = np.asarray(result.x)[: X.shape[1]]
    direction: FloatArray = solution / np.where(size > 0, size, 1.0)
    return direction if np.abs(direction).max() > 0.0 else None
