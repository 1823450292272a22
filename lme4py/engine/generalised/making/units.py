"""Units of linear predictors, which the engine's columns do not have."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from lme4py.design.design import Design
from lme4py.linalg.types import FloatArray

__all__ = ["in_row_units", "predictor_unit"]

Columns: TypeAlias = tuple[FloatArray, FloatArray, tuple[FloatArray, ...], tuple[FloatArray, ...]]


def in_row_units(
    design: Design,
    units: FloatArray | None,
    X: FloatArray,
    C: FloatArray,
    Z: tuple[FloatArray, ...],
    S: tuple[FloatArray, ...],
) -> Columns:
    """Columns in the units of the rows in which they are not zero; as they are without such units.

    Parameters
    ----------
    design : Design
    units : ndarray, shape (n,), or None
        Of rows of several responses.
    X, C, Z, S
        Columns inside and how they were made, as `scale_model` gives them.
    """
    if units is None:
        return X, C, Z, S
    own = _column_units(X, units)
    free = [term.structure.column_changes != "common" and term.structure.basis is None for term in design.terms]
    sizes = [
        _column_units(z, units) if own_scale else np.ones(z.shape[1]) for z, own_scale in zip(Z, free, strict=True)
    ]
    moved = tuple(z * size for z, size in zip(Z, sizes, strict=True))
    return X * own, C * own, moved, tuple(s * size for s, size in zip(S, sizes, strict=True))


def _column_units(columns: FloatArray, units: FloatArray) -> FloatArray:
    """Units of the rows in which columns are not zero, which are those of one response, shape (k,)."""
    return units[np.argmax(np.abs(columns), axis=0)] if columns.shape[1] else np.ones(0)


def predictor_unit(family: Any, data: Any) -> float:
    """Spread of the linear predictor to the nearest power of two; 1 for links that take the unit away.

    Parameters
    ----------
    family : Family
    data : object
    """
    if not (family.link.has_unit and family.has_unit):
        return 1.0
    with np.errstate(all="ignore"):
        eta = np.asarray(family.start_eta(data), dtype=np.float64)
        # Quartiles, since the reciprocal of a small response can be anything.
        spread = float(np.subtract(*np.percentile(eta, [75.0, 25.0]))) / 1.349 or float(np.std(eta))
    return float(2.0 ** np.round(np.log2(spread))) if np.isfinite(spread) and spread > 0.0 else 1.0
