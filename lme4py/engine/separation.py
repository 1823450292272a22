"""Complete and quasi-complete separation of binomial responses: fixed effects that have no finite estimate."""

from __future__ import annotations

import numpy as np

from lme4py.design.design import Design
from lme4py.design.response import ResponseData
from lme4py.engine.families import Family
from lme4py.engine.types import FloatArray

# A linear predictor of this size on the logit scale is what a direction without optimum looks like.
_SUSPICIOUS = 12.0


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
    if family.name != "binomial" or not beta.size:
        return ""
    eta = design.X @ beta
    se = np.sqrt(np.maximum(vcov.diagonal(), 0.0))
    wide = se * np.abs(design.X).max(axis=0) > _SUSPICIOUS
    if np.abs(eta).max() < _SUSPICIOUS and not wide.any():
        return ""
    direction = separating_direction(design.X, data)
    if direction is None:
        return ""
    size = np.abs(direction) * np.abs(design.X).max(axis=0)
    columns = [name for name, s in zip(design.x_names, size, strict=True) if s > 1e-6 * size.max()]
    verb = "separates" if len(columns) == 1 else "separate"
    return (
        f"{', '.join(columns)} {verb} successes from failures (complete or quasi-complete separation), so that some "
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
